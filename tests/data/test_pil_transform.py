"""Reading without torch against the reference transform: the same to the bit; of large images within one step."""

import io
import os
import random

import numpy as np
import pytest
import skimage.data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mvlib import BadImageError, create_transform
from mvlib.data import open_image
from mvlib.data.config import image_mode
from mvlib.data.pil_transform import PILTransform

from .test_fast import FILES, SIDES, encoded, pixels

PHOTOGRAPH = Image.fromarray(skimage.data.chelsea())
CONFIG = dict(input_size=(3, 64, 64), interpolation="bicubic", mean=(0.2, 0.4, 0.6), std=(0.5,) * 3, crop_pct=0.9,
              crop_mode="center")


def reference(source, config):
    """uint8 (height, width, channels) of the transform that models are validated with."""
    image = open_image(source, image_mode(config["input_size"][0]))
    return create_transform(**config, use_prefetcher=True)(image).permute(1, 2, 0).numpy()


def assert_same(data, config, decode="full", most=0):
    try:
        expected = reference(data, config)
    except BadImageError as error:
        with pytest.raises(BadImageError) as ours:
            PILTransform(config, decode).from_file(data)
        assert str(ours.value) == str(error)
        return
    found = PILTransform(config, decode).from_file(data)
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= most


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(height=SIDES, width=SIDES, kind=st.sampled_from(["noise", "stripes", "grid", "photograph"]),
       seed=st.integers(0, 10**6), file=FILES, orientation=st.integers(0, 9),
       interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]),
       crop_mode=st.sampled_from(["center", "squash", "border"]), crop_pct=st.sampled_from([0.5, 0.9, 1.0, 1.3]),
       size=st.tuples(st.integers(1, 4), st.integers(2, 130), st.integers(2, 130)))
def test_the_reference_to_the_bit(height, width, kind, seed, file, orientation, interpolation, crop_mode, crop_pct,
                                  size):
    config = dict(CONFIG, input_size=size, crop_mode=crop_mode, crop_pct=crop_pct, interpolation=interpolation,
                  mean=(0.2, 0.4, 0.6, 0.8)[:size[0]])
    data = encoded(pixels(kind, height, width, seed), *file, orientation)
    assert_same(data, config, "reference")
    assert_same(data, config, most=1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(height=st.integers(150, 900), width=st.integers(150, 900), seed=st.integers(0, 10**6),
       kind=st.sampled_from(["noise", "black and white", "stripes", "grid", "photograph"]), size=st.integers(16, 80),
       interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]),
       crop_mode=st.sampled_from(["center", "squash", "border"]))
def test_large_images_within_a_step(height, width, seed, kind, size, interpolation, crop_mode):
    config = dict(CONFIG, input_size=(3, size, size), crop_mode=crop_mode, interpolation=interpolation)
    assert_same(encoded(pixels(kind, height, width, seed), "PNG", "RGB", 0), config, most=1)


def test_of_large_images_the_crop_alone_is_resized(monkeypatch):
    asked = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda *args: asked.append(args[1:]) or resize(*args))
    for side, width, interpolation, decode in ((200, 300, "bicubic", "full"), (200, 300, "box", "full"),
                                               (200, 300, "bicubic", "reference"), (100, 150, "bicubic", "full")):
        PILTransform(dict(CONFIG, interpolation=interpolation), decode)(PHOTOGRAPH.resize((width, side)))
    assert [args[0] for args in asked[1::2]] == [(64, 64), (106, 71), (106, 71), (106, 71)]


@pytest.mark.parametrize("resize_size", [72, (70, 96)])
@pytest.mark.parametrize("side", [40, 300])
def test_torchvisions_preprocessing(resize_size, side):
    config = dict(CONFIG, preprocessing="torchvision", resize_size=resize_size, interpolation="bilinear")
    assert_same(encoded(pixels("photograph", side, 2 * side, 1), "JPEG", "RGB", 6), config)


def test_16_bits():
    deep = np.asarray(PHOTOGRAPH.convert("L")).astype(np.uint16) * 257
    stream = io.BytesIO()
    Image.fromarray(deep).save(stream, "PNG")
    for channels in (1, 3):
        assert_same(stream.getvalue(), dict(CONFIG, input_size=(channels, 64, 64), mean=(0.5,) * channels))


def test_random_interpolation_draws_as_the_reference_does():
    data, config = encoded(np.asarray(PHOTOGRAPH), "PNG", "RGB", 0), dict(CONFIG, interpolation="random")
    sides = []
    for read in (PILTransform(config, "reference").from_file, lambda data: reference(data, config)):
        random.seed(0)
        sides.append([read(data) for _ in range(8)])
    assert len({image.tobytes() for image in sides[0]}) == 2
    np.testing.assert_array_equal(*sides)


def test_damaged_files_are_refused_as_by_the_reference():
    data = encoded(np.asarray(PHOTOGRAPH), "JPEG", "RGB", 0)
    for broken in (data[: len(data) // 2], data[:200], b"", b"\xff\xd8\xff" + b"nothing"):
        with pytest.raises(BadImageError) as error:
            open_image(broken)
        for decode in ("full", "scaled"):
            with pytest.raises(BadImageError) as ours:
                PILTransform(CONFIG, decode).from_file(broken)
            assert str(ours.value) == str(error.value)


def test_damage_of_any_kind_is_what_the_reference_makes_of_it():
    """Bytes of the headers are changed at random; decoders meet that with errors of all types."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    PHOTOGRAPH.resize((120, 90)).save(stream, "JPEG", exif=exif, dpi=(72, 72))
    data, draw, refused = stream.getvalue(), random.Random(0), 0
    for _ in range(150):
        broken = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            broken[draw.randrange(3, 650)] = draw.randrange(256)
        try:
            expected = reference(bytes(broken), CONFIG)
        except BadImageError:
            refused += 1
            for decode in ("full", "scaled"):
                with pytest.raises(BadImageError):
                    PILTransform(CONFIG, decode).from_file(bytes(broken))
        else:
            np.testing.assert_array_equal(PILTransform(CONFIG).from_file(bytes(broken)), expected)
    assert 10 < refused < 140


def test_an_error_of_any_type_leaves_the_file_to_the_reference(monkeypatch):
    def fail(image):
        raise IndexError("bytes are missing")

    monkeypatch.setattr("mvlib.data.jpeg.turn_upright", fail)
    assert_same(encoded(np.asarray(PHOTOGRAPH), "JPEG", "RGB", 0), CONFIG, most=1)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadImageError, match="pipe.jpg: is not a regular file"):
        PILTransform(CONFIG).from_file(tmp_path / "pipe.jpg")


def test_scaled_decoding():
    large = np.asarray(PHOTOGRAPH.resize((1500, 1000)))
    full, scaled = PILTransform(CONFIG), PILTransform(CONFIG, "scaled")
    turned = encoded(large, "JPEG", "RGB", 6)
    difference = np.abs(full.from_file(turned).astype(int) - scaled.from_file(turned))
    assert 0 < difference.mean() < 1.5
    fast = create_transform(**CONFIG, use_prefetcher=True, backend="fast", decode="scaled").from_file(turned)
    assert np.abs(fast.permute(1, 2, 0).numpy().astype(int) - scaled.from_file(turned)).max() <= 1
    for same in (encoded(large[:120, :120], "JPEG", "RGB", 0), encoded(large, "PNG", "RGB", 0)):  # small; no JPEG
        np.testing.assert_array_equal(scaled.from_file(same), full.from_file(same))


def test_grey_models_decode_in_full():
    config = dict(CONFIG, input_size=(1, 64, 64), mean=(0.5,))
    data = encoded(np.asarray(PHOTOGRAPH.resize((1500, 1000))), "JPEG", "RGB", 0)
    assert_same(data, config, "scaled", most=1)


def test_a_border_of_a_model_of_another_number_of_channels():
    """Three means of two channels: their average, as of normalisation."""
    config = dict(CONFIG, input_size=(2, 64, 64), crop_mode="border")
    image = PILTransform(config).from_file(encoded(np.asarray(PHOTOGRAPH), "PNG", "RGB", 0))
    assert (image[0] == 102).all()
    assert image.shape == (64, 64, 2)
