"""The fast backend against the reference: at most one step of 8 bits, whatever comes."""

import io
import subprocess
import sys
import threading

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import mvlib
from mvlib import BadImageError
from mvlib.data import create_loader, create_transform, open_image, resample
from mvlib.data.geometry import jpeg_shrink
from mvlib.data.jpeg import read_jpeg

PHOTOGRAPH = Image.fromarray(skimage.data.chelsea())
ORIENTATION = 0x0112


def pixels(kind: str, height: int, width: int, seed: int) -> np.ndarray:
    """What is hard for resizing: noise, sharp edges, patterns that repeat, and photographs."""
    draw = np.random.RandomState(seed)
    if kind == "noise":
        return draw.randint(0, 256, (height, width, 3), np.uint8)
    if kind == "black and white":
        return draw.choice(np.array([0, 255], np.uint8), (height, width, 3))
    if kind == "stripes":
        return np.broadcast_to(draw.choice(np.array([0, 255], np.uint8), (1, width, 3)), (height, width, 3)).copy()
    if kind == "grid":
        rows, columns = draw.rand(height, 1, 3) > 0.5, draw.rand(1, width, 3) > 0.5
        return ((rows ^ columns) * 255).astype(np.uint8)
    left, top = draw.randint(0, 200), draw.randint(0, 100)
    return np.asarray(PHOTOGRAPH.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + 200, top + 180)))


def encoded(array: np.ndarray, file_format: str, mode: str, orientation: int) -> bytes:
    image, stream = Image.fromarray(array).convert(mode), io.BytesIO()
    exif = Image.Exif()
    if orientation:
        exif[ORIENTATION] = orientation
    image.save(stream, file_format, quality=90, exif=exif)
    return stream.getvalue()


def largest_step(ours, theirs) -> int:
    assert ours.dtype == theirs.dtype == torch.uint8 and ours.shape == theirs.shape
    return (ours.int() - theirs.int()).abs().max().item()


SIDES = st.one_of(st.integers(1, 40), st.integers(41, 400))
FILES = st.sampled_from([("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA"),
                         ("PNG", "L"), ("PNG", "P"), ("WEBP", "RGB")])


# The same examples in every run: `resample` says what one in a thousand others would meet.
@pytest.mark.slow
@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(height=SIDES, width=SIDES, kind=st.sampled_from(["noise", "black and white", "stripes", "grid", "photograph"]),
       seed=st.integers(0, 10**6), file=FILES, orientation=st.integers(0, 9),
       interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]),
       crop_mode=st.sampled_from(["center", "squash", "border"]), crop_pct=st.sampled_from([None, 0.5, 0.9, 1.0, 1.3]),
       size=st.one_of(st.integers(2, 130), st.tuples(st.integers(2, 130), st.integers(2, 130))),
       trim=st.sampled_from([0, 0, 2]))
def test_one_step_at_most(height, width, kind, seed, file, orientation, interpolation, crop_mode, crop_pct, size, trim):
    data = encoded(pixels(kind, height, width, seed), *file, orientation)
    options = dict(input_size=size, crop_mode=crop_mode, crop_pct=crop_pct, interpolation=interpolation,
                   crop_border_pixels=trim, use_prefetcher=True)
    reference, fast = create_transform(**options), create_transform(**options, backend="fast")
    try:
        theirs = reference(open_image(data))
    except BadImageError as error:
        with pytest.raises(BadImageError) as ours:
            fast.from_file(data)
        assert str(ours.value) == str(error)
        return
    assert largest_step(fast.from_file(data), theirs) <= 1
    assert largest_step(fast(open_image(data)), theirs) <= 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(height=st.integers(300, 900), width=st.integers(300, 900), seed=st.integers(0, 10**6),
       kind=st.sampled_from(["noise", "black and white", "photograph"]),
       interpolation=st.sampled_from(["bilinear", "bicubic"]))
def test_large_images(height, width, seed, kind, interpolation):
    image = Image.fromarray(pixels(kind, height, width, seed))
    options = dict(input_size=64, interpolation=interpolation, use_prefetcher=True)
    assert largest_step(create_transform(**options, backend="fast")(image), create_transform(**options)(image)) <= 1


@pytest.mark.parametrize("name", ["resnet50.imagenet1k_v2", "tf_efficientnet_lite0.pip_in1k", "vit_base_patch16_224"])
def test_the_preprocessing_of_weights(name):
    config = mvlib.resolve_data_config(pretrained_cfg=mvlib.get_pretrained_cfg(name))
    ours = mvlib.create_transform(**config, backend="fast")(PHOTOGRAPH)
    theirs = mvlib.create_transform(**config)(PHOTOGRAPH)
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.is_contiguous()
    step = 1.001 / 255 / min(config["std"])
    assert (ours - theirs).abs().max() <= step
    assert (ours - theirs).abs().mean() < step / 5


def test_uint8_tensors_and_what_goes_to_the_reference():
    options = dict(input_size=64, interpolation="bicubic", use_prefetcher=True)
    fast, reference = create_transform(**options, backend="fast"), create_transform(**options)
    tensor = torch.from_numpy(np.array(PHOTOGRAPH)).permute(2, 0, 1)
    assert largest_step(fast(tensor), reference(PHOTOGRAPH)) <= 1
    batch = torch.stack([tensor, tensor.flip(-1)])
    assert torch.equal(fast(batch), reference(batch))
    floats = tensor / 255
    assert torch.equal(create_transform(64, backend="fast")(floats), create_transform(64)(floats))
    grey = PHOTOGRAPH.convert("L")
    assert largest_step(fast(grey), reference(grey)) <= 1
    clear = PHOTOGRAPH.convert("RGBA")
    assert torch.equal(fast(clear), reference(clear))


def test_scaled_decoding_leaves_twice_the_size():
    large = PHOTOGRAPH.resize((1500, 1000))
    data = encoded(np.asarray(large), "JPEG", "RGB", 6)
    _, header = read_jpeg(data)
    assert (header.height, header.width, header.upright_size) == (1000, 1500, (1500, 1000))
    scaled = create_transform(100, crop_pct=1.0, interpolation="bicubic", backend="fast", decode="scaled",
                              use_prefetcher=True)
    sides = (199, 399, 400, 799, 800, 1600, 3200)
    assert [jpeg_shrink(scaled.geometry, side, side) for side in sides] == [1, 1, 2, 2, 4, 8, 8]
    full = create_transform(100, crop_pct=1.0, interpolation="bicubic", use_prefetcher=True)
    difference = (scaled.from_file(data).int() - full(open_image(data)).int()).abs().float()
    assert 0 < difference.mean() < 1.5


def test_damaged_files_are_refused_as_by_the_reference():
    data = encoded(np.asarray(PHOTOGRAPH), "JPEG", "RGB", 0)
    for backend in (create_transform(64, backend="fast"), create_transform(64, backend="fast", decode="scaled")):
        for broken in (data[: len(data) // 2], data[:200], b"", b"\xff\xd8\xff" + b"nothing"):
            with pytest.raises(BadImageError) as error:
                open_image(broken)
            with pytest.raises(BadImageError) as ours:
                backend.from_file(broken)
            assert str(ours.value) == str(error.value)
    with pytest.raises(BadImageError, match="nowhere.jpg: No such file"):
        backend.from_file("nowhere.jpg")


def test_threads_share_a_transform():
    transform = create_transform(64, backend="fast", interpolation="bicubic")
    files = [encoded(pixels("photograph", 90 + n, 80 + n, n), "JPEG", "RGB", 0) for n in range(12)]
    alone = [create_transform(64, backend="fast", interpolation="bicubic").from_file(data) for data in files]
    found = [None] * len(files)

    def work(number):
        for index in range(number, len(files), 4):
            found[index] = transform.from_file(files[index])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, other) for one, other in zip(alone, found))


def test_the_order_of_passes_is_that_of_pil():
    """Bicubic overshoots are clipped after the first pass; sharp images show which that was."""
    for height, width, size in ((300, 40, (100, 30)), (40, 300, (30, 100)), (200, 90, (100, 45)), (210, 90, (105, 45)),
                                (60, 50, (20, 80)), (50, 60, (80, 20)), (30, 30, (70, 90)), (80, 30, (90, 100))):
        image = pixels("black and white", height, width, 0)
        theirs = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
        ours = resample.resample(torch.from_numpy(image), size, "bicubic", (0, 0, *size)).permute(1, 2, 0).numpy()
        assert np.abs(ours - theirs).max() <= 1, (height, width, size)


def test_loaders_take_it(tmp_path):
    for label in ("cat", "dog"):
        for number in range(3):
            path = tmp_path / label / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encoded(pixels("photograph", 100, 120, number), "JPEG", "RGB", 0))
    dataset = mvlib.data.create_dataset("", root=tmp_path)
    batches = {backend: list(create_loader(dataset, (3, 64, 64), 4, backend=backend, num_workers=0, std=(1, 1, 1)))
               for backend in ("reference", "fast")}
    dataset.transform = None
    for (theirs, labels), (ours, ours_labels) in zip(batches["reference"], batches["fast"]):
        assert torch.equal(labels, ours_labels)
        assert 0 < (ours - theirs).abs().max() <= 1.001 / 255


def test_torchvision_is_not_imported():
    code = """if True:
        import sys, torch, mvlib
        transform = mvlib.create_transform(64, interpolation="bicubic", backend="fast")
        assert transform.from_file(sys.argv[1]).shape == (3, 64, 64)
        assert "torchvision" not in sys.modules
    """
    import tempfile
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(encoded(np.asarray(PHOTOGRAPH), "JPEG", "RGB", 0))
        file.flush()
        subprocess.run([sys.executable, "-c", code, file.name], check=True, timeout=120)


def test_names_that_do_not_exist():
    with pytest.raises(ValueError, match="backend 'quick' is none of reference, fast"):
        create_transform(64, backend="quick")
    with pytest.raises(ValueError, match="decode 'half' is none of full, scaled"):
        create_transform(64, decode="half")
