"""Transforms for training against timm's and torchvision's: the same boxes and steps, pixels within rounding."""

import io
import math
import pickle
import random

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from timm.data import auto_augment as peer_policies
from timm.data import transforms as peer
from torchvision.transforms import Compose, InterpolationMode, RandomCrop, v2

from mvlib import BadImageError, ConfigError
from mvlib.data import create_transform
from mvlib.data import train_transforms as own
from mvlib.data.images import open_image
from mvlib.data.random_erasing import RandomErasing
from mvlib.data.randomness import seeded

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def photograph(width: int = 400, height: int = 300, seed: int = 0) -> Image.Image:
    """Something as smooth as a photograph, with a little noise."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height), 3)
    noise = generator.integers(-8, 9, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse).astype(int) + noise, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def pixels(image) -> torch.Tensor:
    return v2.functional.pil_to_tensor(image) if isinstance(image, Image.Image) else image


def difference(one, other) -> int:
    return int((pixels(one).int() - pixels(other).int()).abs().max())


def last_in_memory(image: torch.Tensor) -> bool:
    return image.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("size", [(500, 375), (30, 900), (900, 31), (5, 5), (1, 1)])
@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.9, 1.0), (0.9, 1.1))])
def test_boxes_are_drawn_as_in_timm(size, scale, ratio):
    image = Image.new("RGB", size)
    crop = own.RandomResizedCropAndInterpolation((224, 224), scale, ratio)
    for seed in range(60):
        random.seed(seed)
        ours = crop.draw(image.height, image.width)
        random.seed(seed)
        theirs = peer.RandomResizedCropAndInterpolation.get_params(image, scale, ratio)
        if min(theirs[2:]) > 0:  # timm may draw no pixels of a small image
            assert ours == theirs
        assert min(ours[2:]) > 0 and ours[0] + ours[2] <= image.height and ours[1] + ours[3] <= image.width


def test_boxes_are_distributed_as_torchvisions():
    def summary(boxes):
        top, left, height, width = np.array(boxes).T
        areas, aspects = (np.quantile(values, (0.1, 0.5, 0.9)) for values in (height * width, width / height))
        return [*areas, *aspects, top.mean(), left.mean()]

    random.seed(0)
    torch.manual_seed(0)
    image, crop = Image.new("RGB", (500, 375)), own.RandomResizedCropAndInterpolation(224)
    theirs = [torch_box(image) for _ in range(4000)]
    assert summary([crop.draw(375, 500) for _ in range(4000)]) == pytest.approx(summary(theirs), rel=0.06)


def torch_box(image: Image.Image) -> tuple[int, int, int, int]:
    crop = v2.RandomResizedCrop(224)
    make_params = crop.make_params if hasattr(crop, "make_params") else crop._get_params  # older name
    params = make_params([image])
    return params["top"], params["left"], params["height"], params["width"]


@pytest.mark.parametrize(("interpolation", "steps"), [("bilinear", 1), ("bicubic", 2), ("lanczos", 0), ("nearest", 0)])
@pytest.mark.parametrize("size", [(400, 300), (90, 120)], ids=["smaller", "larger"])
def test_a_crop_has_timms_pixels(interpolation, steps, size):
    ours = own.RandomResizedCropAndInterpolation((112, 96), interpolation=interpolation, as_tensor=True)
    theirs = peer.RandomResizedCropAndInterpolation((112, 96), interpolation=interpolation)
    for seed in range(8):
        image = photograph(*size, seed)
        random.seed(seed)
        result = ours(image)
        random.seed(seed)
        assert difference(result, theirs(image)) <= steps
        assert result.dtype == torch.uint8 and result.shape == (3, 112, 96) and last_in_memory(result)
        random.seed(seed)
        if steps:
            assert torch.equal(ours(pixels(image)), result)
            random.seed(seed)
            assert torch.equal(ours(pixels(image).contiguous()), result)


@pytest.mark.parametrize("mode", ["rkrc", "rkrr"])
@pytest.mark.parametrize("size", [(400, 300), (97, 301), (60, 50)])
@pytest.mark.parametrize("interpolation", ["bilinear", "lanczos"])
def test_crops_of_nearly_the_right_aspect_are_timms(mode, size, interpolation):
    options = {"train_crop_mode": mode, "hflip": 0.0, "color_jitter": None, "use_prefetcher": True,
               "interpolation": interpolation}
    for scale in (None, (0.4, 1.0)):
        ours = create_transform((3, 96, 80), True, scale=scale, **options)
        theirs = timm.data.create_transform((3, 96, 80), True, scale=scale, **options)
        for seed in range(12):
            image = photograph(*size, seed)
            random.seed(seed)
            result = ours(image)
            random.seed(seed)
            assert difference(result, theirs(image)) <= (interpolation == "bilinear"), (scale, seed)


def agree(ours, theirs, ours_takes, theirs_takes) -> None:
    for seed in range(12):
        results = []
        for transform, image in ((ours, ours_takes), (theirs, theirs_takes)):
            with seeded(seed):
                results.append(transform(image))
        assert difference(*results) == 0, seed


@pytest.mark.parametrize("options", [
    {}, {"color_jitter": (0.1, 0.2, 0.3, 0.1)}, {"color_jitter": 0.8, "color_jitter_prob": 0.5},
    {"vflip": 0.3, "hflip": 0.5, "color_jitter": None}, {"train_crop_mode": "rkrr"},
    {"auto_augment": "rand-m6-mstd0.5-inc1", "vflip": 0.5, "interpolation": "nearest"},
    {"auto_augment": "augmix-m5-w4-d2", "interpolation": "nearest"},
    {"grayscale_prob": 0.5, "gaussian_blur_prob": 0.5, "color_jitter": None},
], ids=str)
def test_the_whole_pipeline_is_timms(options):
    """With Lanczos, which is PIL's on both sides."""
    options = {"use_prefetcher": True, "interpolation": "lanczos", **options}
    image = photograph()
    agree(create_transform(64, True, **options), timm.data.create_transform(64, True, **options), image, image)


@pytest.mark.parametrize("options", [
    {"auto_augment": "original-mstd0.5"}, {"auto_augment": "v0r", "interpolation": "bicubic"},
    {"auto_augment": "3a", "color_jitter": 0.3},
], ids=str)
def test_what_follows_the_crop_is_timms(options):
    ours, theirs = (create(64, True, hflip=0.0, use_prefetcher=True, **options)
                    for create in (create_transform, timm.data.create_transform))
    image = photograph(64, 64)
    steps = own.TrainTransform(ours.transforms[1:]), Compose(theirs.transforms[1:])
    agree(*steps, pixels(image), image)


def test_normalised_results_are_timms():
    options = {"scale": (1.0, 1.0), "ratio": (4 / 3, 4 / 3), "hflip": 0.0, "color_jitter": None, "re_prob": 1.0,
               "re_count": 2, "interpolation": "lanczos", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    image = photograph()
    for seed in range(5):
        results = []
        for create in (create_transform, timm.data.create_transform):
            with seeded(seed):
                results.append(create(64, True, **options)(image))
        assert results[0].dtype == torch.float32
        assert torch.allclose(*results, rtol=1e-6, atol=1e-6) and (results[0] == 0).sum() > 50


@pytest.mark.parametrize("size", [96, (96, 80), (3, 80, 96)])
def test_without_augmentation(size):
    image = photograph()
    for options in ({"interpolation": "random"}, {"interpolation": "bicubic", "use_prefetcher": True}):
        ours = create_transform(size, True, no_aug=True, **options)(image)
        theirs = timm.data.create_transform(size if isinstance(size, int) else list(size), True, no_aug=True,
                                            **options)(image)
        assert torch.equal(ours, theirs)


def names(transform) -> list[str]:
    return [type(step).__name__ for step in transform.transforms]


@pytest.mark.parametrize("options", [
    {}, {"use_prefetcher": True, "color_jitter": None, "vflip": 0.5, "re_prob": 0.5},
    {"auto_augment": "rand-m9", "hflip": 0.0}, {"auto_augment": "3a", "re_prob": 0.5, "interpolation": "random"},
    {"normalize": False, "re_prob": 0.5, "grayscale_prob": 0.1, "color_jitter_prob": 0.5},
    {"train_crop_mode": "rkrc"}, {"train_crop_mode": "rkrr", "auto_augment": "augmix-m3"}, {"no_aug": True},
], ids=str)
def test_the_steps_are_timms(options):
    ours, theirs = (create(64, True, **options) for create in (create_transform, timm.data.create_transform))
    assert list(map(repr, ours.transforms)) == list(map(repr, theirs.transforms))
    assert isinstance(ours, Compose)


def test_torchvisions_policies_stand_where_timms_do():
    steps = names(create_transform(64, True, auto_augment="ta_wide", color_jitter_prob=0.5, grayscale_prob=0.1))
    assert steps[2:4] == ["TrivialAugmentWide", "RandomGrayscale"]


def test_steps_can_be_replaced_and_inserted():
    """As DeiT does for small images, and others with steps that take PIL images alone."""
    modes = []
    transform = create_transform(32, True, auto_augment="rand-m9-mstd0.5-inc1", color_jitter=None)
    transform.transforms.insert(2, lambda image: modes.append(image.mode) or image)
    assert transform(photograph()).shape == (3, 32, 32) and modes == ["RGB"]
    image = photograph(32, 32)
    ours, theirs = (create(32, True, auto_augment="rand-m9-mstd0.5-inc1")
                    for create in (create_transform, timm.data.create_transform))
    for each in (ours, theirs):
        each.transforms[0] = RandomCrop(32, padding=4)
    for seed in range(10):
        results = []
        calls = (ours, image), (theirs, image), (ours.from_file, jpeg(image)), (ours, open_image(jpeg(image)))
        for each, takes in calls:
            with seeded(seed):
                results.append(each(takes))
        assert torch.equal(*results[:2]) and torch.equal(*results[2:])


def test_a_tensor_that_is_the_result_stays_one():
    seen = []
    transform = create_transform(32, True, use_prefetcher=True)
    transform.transforms.append(lambda image: seen.append(type(image)) or image)
    transform(photograph())
    assert seen == [torch.Tensor]


def test_torchvisions_preset():
    transform = create_transform(176, True, preprocessing="torchvision", auto_augment="augmix", re_prob=0.1)
    assert names(transform) == ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "AugMix", "MaybeToTensor",
                                "Normalize", "RandomErasing"]
    erasing = transform.transforms[-1]
    theirs = v2.RandomErasing(p=0.1)
    assert (erasing.probability, erasing.mode) == (theirs.p, "const")
    assert (erasing.min_area, erasing.max_area) == theirs.scale
    assert erasing.log_aspect_ratio == tuple(map(math.log, theirs.ratio))
    crop, peer_crop = transform.transforms[0], v2.RandomResizedCrop(176)
    assert (crop.scale, crop.ratio, crop.interpolation) == \
        (peer_crop.scale, pytest.approx(peer_crop.ratio), InterpolationMode(peer_crop.interpolation))
    assert transform.transforms[2].interpolation == InterpolationMode.BILINEAR
    assert transform(photograph()).shape == (3, 176, 176)


def test_policies_are_given_timms_parameters():
    for size, interpolation in (((3, 200, 100), "random"), (224, "bicubic")):
        for config in ("rand-m9-mstd0.5-inc1", "augmix-m5-w4-d2"):
            options = {"auto_augment": config, "interpolation": interpolation, "mean": (0.5, 0.4, 1.0)}
            ours = create_transform(size, True, **options).transforms[2].ops[0].hparams
            theirs = timm.data.create_transform(size, True, **options).transforms[2].ops[0]
            assert ours == {**ours, **theirs.hparams, "img_mean": theirs.kwargs["fillcolor"],
                            "interpolation": theirs.kwargs["resample"]}


def test_three_parts_make_the_whole():
    options = {"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.5, "re_num_splits": 3}
    image = photograph()
    for seed in range(5):
        parts = create_transform(64, True, separate=True, **options)
        with seeded(seed):
            clean = parts[0](image)
            apart = parts[2](parts[1](clean))
        with seeded(seed):
            assert torch.equal(apart, create_transform(64, True, **options)(image))
        assert isinstance(clean, Image.Image) and isinstance(parts[1](clean), Image.Image)
    assert isinstance(parts[2].transforms[-1], RandomErasing)
    plain = create_transform(64, True, separate=True, color_jitter=None, use_prefetcher=True)
    assert last_in_memory(plain[2](plain[1](plain[0](image))))


EVERY_POLICY = ["rand-m9-mstd0.5-inc1", "augmix-m5-w4-d2", "original-mstd0.5", "3a", "ta_wide", "ra", "autoaugment",
                None]


@pytest.mark.parametrize("policy", EVERY_POLICY)
@pytest.mark.parametrize("interpolation", ["random", "bilinear"])
def test_results_are_a_function_of_the_seed_and_can_be_sent_to_workers(policy, interpolation):
    image = photograph()
    transform = create_transform(64, True, auto_augment=policy, interpolation=interpolation, use_prefetcher=True)
    copy = pickle.loads(pickle.dumps(transform))
    results = []
    for number, each in enumerate((transform, copy)):
        random.seed(number)  # what came before is of no importance
        torch.rand(number + 1)
        with seeded(7):
            results.append(each(image))
    assert torch.equal(*results) and last_in_memory(results[0]) and results[0].dtype == torch.uint8
    with seeded(8):
        assert not torch.equal(results[0], transform(image))


@pytest.mark.parametrize("content", ["RGB", "L", "progressive", "upright", "turned", "CMYK", "PNG"])
def test_files_give_what_opened_images_give(content, tmp_path, monkeypatch):
    image, options = photograph(), {"subsampling": 0}
    if content in ("L", "CMYK"):
        image = image.convert(content)
    if content in ("upright", "turned"):
        exif = Image.Exif()
        exif[0x0112] = 1 if content == "upright" else 6
        options["exif"] = exif
    if content == "progressive":
        options["progressive"] = True
    data = jpeg(image, **options)
    if content == "PNG":
        image.save(buffer := io.BytesIO(), "PNG")
        data = buffer.getvalue()
    (tmp_path / "file.jpg").write_bytes(data)
    decoded = []
    monkeypatch.setattr(own, "decode_jpeg", lambda *a, decode=own.decode_jpeg: decoded.append(1) or decode(*a))
    transform = create_transform(160, True, auto_augment="rand-m9-mstd0.5-inc1", interpolation="random")
    for seed in range(3):
        with seeded(seed):
            expected = transform(open_image(data))
        stream = io.BytesIO(data)
        stream.read(10)
        for source in (data, tmp_path / "file.jpg", str(tmp_path / "file.jpg"), stream):
            with seeded(seed):
                assert torch.equal(transform.from_file(source), expected)
    assert bool(decoded) == (content in ("RGB", "L", "progressive", "upright"))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "header", "folder", "missing"])
def test_unreadable_files_are_named_as_open_image_names_them(damage, tmp_path):
    path = tmp_path / "bad.jpg"
    data = jpeg(photograph())
    contents = {"cut": data[:len(data) // 2], "empty": b"", "text": b"not an image", "header": data[:30]}
    if damage == "folder":
        path.mkdir()
    elif damage in contents:
        path.write_bytes(contents[damage])
    transform = create_transform(64, True)
    messages = []
    for read in (transform.from_file, open_image):
        with pytest.raises(BadImageError) as caught:
            read(path)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_too_many_pixels_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    with pytest.raises(BadImageError, match="too many pixels"), pytest.warns(Image.DecompressionBombWarning):
        create_transform(64, True).from_file(jpeg(photograph(400, 300)))


def test_a_jpeg_that_torchvision_cannot_decode_is_read_by_pil(monkeypatch):
    def refuse(*_):
        raise RuntimeError("built without libjpeg")

    data, transform = jpeg(photograph()), create_transform(64, True)
    with seeded(1):
        expected = transform.from_file(data)
    monkeypatch.setattr(own, "decode_jpeg", refuse)
    with seeded(1):
        assert torch.equal(transform.from_file(data), expected)


def test_large_crops_are_decoded_smaller():
    data = jpeg(photograph(1203, 901))
    fast, slow = (own.RandomResizedCropAndInterpolation(64, as_tensor=True, decode_gap=gap) for gap in (2.0, math.inf))
    image, shrunk = open_image(data), set()
    for seed in range(25):
        random.seed(seed)
        box = fast.draw(901, 1203)
        shrink = fast._shrink(box)
        shrunk.add(shrink)
        assert shrink == 1 or min(box[2:]) >= 2 * shrink * 64
        random.seed(seed)
        quick = fast.from_file(data)
        rounded = tuple(pixels // shrink * shrink for pixels in box)
        exact = own.resized_crop(image, rounded, (64, 64), InterpolationMode.BILINEAR)
        assert difference(quick, exact) <= (6 if shrink > 1 else 0)
        assert (quick.float() - exact.float()).abs().mean() < 0.5
        random.seed(seed)
        expected = own.resized_crop(image, box, (64, 64), InterpolationMode.BILINEAR)
        assert torch.equal(slow.from_file(data), expected)
    assert {2, 4} <= shrunk


def test_a_large_damaged_jpeg_is_an_error():
    data = jpeg(photograph(1203, 901))
    for seed in range(5):
        random.seed(seed)
        with pytest.raises(BadImageError, match="truncated"):
            create_transform(32, True, scale=(0.9, 1.0)).from_file(data[:len(data) // 3])


def test_small_and_narrow_images_are_taken():
    transform = create_transform(32, True, auto_augment="rand-m9-mstd0.5-inc1", use_prefetcher=True)
    for size in ((1, 1), (1, 500), (700, 2), (3, 3)):
        for seed in range(4):
            with seeded(seed):
                assert transform(photograph(*size)).shape == (3, 32, 32)


def test_greyscale_images():
    image = photograph().convert("L")
    transform = create_transform((1, 64, 64), True, auto_augment="rand-m9-mstd0.5-inc1", mean=(0.5,), std=(0.2,))
    for seed in range(6):
        with seeded(seed):
            assert transform(image).shape == (1, 64, 64)


def test_the_policies_of_timm_take_our_crops():
    """Parts of the two libraries can be put together."""
    policy = peer_policies.rand_augment_transform("rand-m5-mstd0.5", {"img_mean": (1, 2, 3)})
    clean = create_transform(64, True, separate=True)[0](photograph())
    assert policy(clean).size == (64, 64)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"train_crop_mode": "center"}, "train_crop_mode 'center' is none of rrc, rkrc, rkrr"),
    ({"color_jitter": (0.1, 0.2)}, "color_jitter takes one factor, or three or four"),
    ({"auto_augment": "rand-m9-foo1"}, "unknown section 'foo1' in augmentation 'rand-m9-foo1'"),
    ({"auto_augment": "trivial"}, "unknown augmentation 'trivial'"),
    ({"re_prob": 0.5, "re_mode": "noise"}, "random erasing has no mode 'noise'"),
    ({"scale": (1.0, 0.5)}, "are to be ranges (least, greatest) above 0"),
    ({"ratio": (0.0, 1.0)}, "are to be ranges (least, greatest) above 0"),
])
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ConfigError) as caught:
        create_transform(64, True, **arguments)
    assert message in str(caught.value)
