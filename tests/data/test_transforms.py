"""create_transform against timm's and torchvision's, on PIL images to the bit, on tensors to one step of 8 bits."""

import inspect
import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import skimage
import timm.data
import torch
import torchvision
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

import mvlib
from mvlib.data import create_transform

PHOTOS = Path(skimage.__file__).parent / "data"
MODES = ("center", "squash", "border")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
SIZES = (64, (3, 96, 96), (3, 96, 64), (50, 81))
CLIP = {"mean": (0.481, 0.458, 0.408), "std": (0.269, 0.261, 0.276)}


def photo(name="chelsea.png", size=None):
    image = Image.open(PHOTOS / name).convert("RGB")
    return image.crop((0, 0, *size)) if size else image


IMAGES = [photo(), photo(size=(123, 211)), photo("coffee.png", (400, 31)), photo("astronaut.png", (64, 64)),
          photo(size=(20, 30)), photo(size=(1, 1))]


def assert_equal_to_timm(images=IMAGES, **arguments):
    ours, theirs = create_transform(**arguments), timm.data.create_transform(**arguments)
    for image in images:
        before = image.tobytes()
        found, expected = ours(image), theirs(image)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected), (arguments, image.size)
        assert image.tobytes() == before


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("crop_mode", MODES)
def test_pil_images_give_what_timm_gives(crop_mode, interpolation):
    for input_size, crop_pct in itertools.product(SIZES, (None, 0.9, 1.0, 1.15)):
        assert_equal_to_timm(input_size=input_size, crop_pct=crop_pct, crop_mode=crop_mode,
                             interpolation=interpolation, **CLIP)


@pytest.mark.parametrize("crop_mode", MODES)
@pytest.mark.parametrize("arguments", [
    {"normalize": False}, {"use_prefetcher": True}, {"crop_border_pixels": 4}, {"crop_border_pixels": 0},
    {"tf_preprocessing": True}, {"mean": [0.5] * 3, "std": [0.5] * 3},
    {"hflip": 1.0, "color_jitter": 0.9, "auto_augment": "rand-m9", "re_prob": 1.0, "no_aug": True},  # of training
], ids=lambda a: next(iter(a)))
def test_other_arguments_do_what_they_do_in_timm(crop_mode, arguments):
    images = [image for image in IMAGES if min(image.size) > 8]
    for size in (64, (96, 64)):
        assert_equal_to_timm(images, input_size=size, crop_mode=crop_mode, **arguments)


@pytest.mark.parametrize("crop_mode", MODES)
@pytest.mark.parametrize("arguments", [{"mean": (0.5,), "std": (0.25,)}, {"normalize": False, "mean": (0.5,)}])
def test_grey_images_give_what_timm_gives(crop_mode, arguments):
    assert_equal_to_timm([image.convert("L") for image in IMAGES], input_size=(1, 64, 48), crop_mode=crop_mode,
                         **arguments)


def test_16_bit_images_give_what_timm_gives():
    image = Image.fromarray(np.asarray(photo().convert("L")).astype(np.uint16) * 257)
    assert image.mode == "I;16"
    assert_equal_to_timm([image], input_size=(1, 64, 64), normalize=False, interpolation="nearest")
    assert_equal_to_timm([image.convert("I")], input_size=(1, 64, 64), normalize=False, interpolation="bicubic")


@pytest.mark.parametrize(("crop_mode", "size"), [("border", 64), ("border", (64, 48)), ("center", (64, 48))])
def test_random_interpolation_draws_as_timm_does(crop_mode, size):
    arguments = dict(input_size=size, crop_mode=crop_mode, interpolation="random")
    ours, theirs = create_transform(**arguments), timm.data.create_transform(**arguments)
    results = []
    for seed in range(8):
        random.seed(seed)
        found = ours(IMAGES[0])
        random.seed(seed)
        assert torch.equal(found, theirs(IMAGES[0]))
        results.append(found)
    assert any(not torch.equal(results[0], other) for other in results)


def test_random_interpolation_works_where_timms_fails():
    for crop_mode in ("center", "squash"):
        found = create_transform(64, crop_mode=crop_mode, interpolation="random")(IMAGES[0])
        assert any(torch.equal(found, create_transform(64, crop_mode=crop_mode, interpolation=name)(IMAGES[0]))
                   for name in ("bilinear", "bicubic"))


def test_arguments_have_timms_names_order_and_defaults():
    ours = [p for p in inspect.signature(create_transform).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    theirs = inspect.signature(timm.data.create_transform).parameters.values()
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


def torchvision_weights():
    """One of each preprocessing that torchvision's classification weights have."""
    found = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name):
            found.setdefault(repr(weights.transforms()), (name, weights))
    return [pytest.param(*pair, id=f"{pair[0]}-{pair[1].name}") for pair in found.values()
            if "ImageClassification" in repr(pair[1].transforms())]


@pytest.mark.parametrize(("name", "weights"), torchvision_weights())
def test_pil_images_give_what_torchvision_gives(name, weights):
    theirs = weights.transforms()
    config = mvlib.resolve_data_config(pretrained_cfg={
        "preprocessing": "torchvision", "input_size": (3, *theirs.crop_size * 2), "resize_size": theirs.resize_size[0],
        "interpolation": theirs.interpolation.value, "mean": tuple(theirs.mean), "std": tuple(theirs.std)})
    for image in IMAGES[:1] + IMAGES[-2:]:
        assert torch.equal(create_transform(**config)(image), theirs(image))


@pytest.mark.parametrize("name", ["resnet18.imagenet1k_v1", "resnet50.imagenet1k_v2", "efficientnet_b0.imagenet1k_v1"])
def test_our_torchvision_tags_prepare_inputs_as_torchvision(name):
    architecture, _, tag = name.partition(".")
    theirs = torchvision.models.get_model_weights(architecture)[tag.upper()].transforms()
    ours = create_transform(**mvlib.resolve_data_config(pretrained_cfg=mvlib.get_pretrained_cfg(name)))
    for image in IMAGES:
        assert torch.equal(ours(image), theirs(image))


def test_torchvisions_pipeline_covers_a_size_that_is_not_square():
    transform = create_transform((3, 96, 64), preprocessing="torchvision", resize_size=(110, 73))
    for image in IMAGES:
        width, height = transform.transforms[0](image).size
        assert height >= 110 and width >= 73
        assert transform(image).shape == (3, 96, 64)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("crop_mode", MODES)
def test_uint8_tensors_differ_by_at_most_one_step(crop_mode, interpolation):
    sharp = np.random.default_rng(0).integers(0, 2, (257, 131, 3), dtype=np.uint8) * 255  # overshoots everywhere
    images = (*IMAGES, photo("page.png"), Image.fromarray(sharp))
    for size, crop_pct in itertools.product((64, (96, 64), 300), (0.9, 1.15)):
        transform = create_transform(size, crop_pct=crop_pct, crop_mode=crop_mode, interpolation=interpolation,
                                     normalize=False, **CLIP)
        for image in images:
            found, expected = transform(pil_to_tensor(image)), transform(image)
            assert found.dtype == expected.dtype == torch.uint8
            assert found.shape == expected.shape
            assert (found.int() - expected.int()).abs().max() <= 1, image.size


def test_tensors_are_normalised_as_images_are():
    image = photo("astronaut.png", (64, 64))
    transform = create_transform(64, crop_pct=1.0)
    expected = transform(image)
    assert torch.equal(transform(pil_to_tensor(image)), expected)
    assert torch.equal(transform(pil_to_tensor(image) / 255), expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_batches_and_any_number_of_channels_are_taken(interpolation):
    transform = create_transform((40, 56), interpolation=interpolation, mean=(0.5,), std=(0.5,))
    images = torch.stack([pil_to_tensor(photo(size=(90, 80))), pil_to_tensor(photo("coffee.png", (90, 80)))])
    images = torch.cat([images, images.flip(1)], dim=1)  # six channels
    found = transform(images)
    assert found.shape == (2, 6, 40, 56)
    assert torch.equal(found[1], transform(images[1]))
    assert torch.equal(found[:, :3], transform(images[:, :3]))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_antialias_counts_for_tensors_alone(interpolation):
    on, off = (create_transform(64, antialias=antialias, interpolation=interpolation) for antialias in (True, False))
    assert torch.equal(on(IMAGES[0]), off(IMAGES[0]))
    assert not torch.equal(on(pil_to_tensor(IMAGES[0])), off(pil_to_tensor(IMAGES[0])))


def test_the_transform_can_be_read():
    transform = create_transform((3, 224, 200), crop_mode="border", crop_border_pixels=2, interpolation="bicubic")
    theirs = timm.data.create_transform(224, crop_mode="border", crop_border_pixels=2, interpolation="bicubic")
    names = ["TrimBorder", "ResizeKeepRatio", "CenterCropOrPad", "MaybeToTensor", "Normalize"]
    assert [type(step).__name__ for step in transform.transforms] == names
    assert [repr(step) for step in create_transform(224, interpolation="bicubic").transforms] == \
        [repr(step) for step in timm.data.create_transform(224, interpolation="bicubic").transforms]
    assert repr(theirs.transforms[1]).replace("256)", "228)", 1) == repr(transform.transforms[1])
    assert "antialias=False" in repr(create_transform(antialias=False))
    assert "MaybePILToTensor()" in repr(create_transform(normalize=False))


def test_a_narrow_image_is_refused_before_memory_runs_out():
    with pytest.raises(mvlib.BadImageError) as caught:
        create_transform(224)(Image.new("RGB", (30000, 1)))
    assert str(caught.value) == "too narrow to be resized: 30000 x 1 pixels would become 7680000 x 256"
    assert create_transform(224, crop_mode="border")(Image.new("RGB", (30000, 1))).shape == (3, 224, 224)


def test_a_border_as_large_as_the_image_is_refused():
    with pytest.raises(mvlib.BadImageError, match="8 x 20 pixels are too few to cut 4 off each edge"):
        create_transform(64, crop_border_pixels=4)(Image.new("RGB", (8, 20)))


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"is_training": True, "no_aug": True, "separate": True}, ValueError, "separate=True splits transforms"),
    ({"separate": True}, ValueError, "separate=True splits transforms for training"),
    ({"naflex": True, "backend": "fast"}, NotImplementedError, "patches are made by backend='reference'"),
    ({"patchify": True, "preprocessing": "torchvision"}, NotImplementedError, "and preprocessing='timm', not by"),
    ({"tf_preprocessing": True, "use_prefetcher": True}, NotImplementedError, "tf_preprocessing=True is not supported"),
    ({"crop_mode": "centre"}, ValueError, "crop_mode 'centre' is none of center, squash, border"),
    ({"interpolation": "cubic"}, ValueError, "interpolation 'cubic' is none of nearest, bilinear, bicubic, box, "),
    ({"preprocessing": "keras"}, ValueError, "preprocessing 'keras' is none of timm, torchvision"),
    ({"preprocessing": "torchvision"}, ValueError, "needs resize_size"),
    ({"preprocessing": "torchvision", "resize_size": 256, "crop_mode": "border"}, ValueError, "crop_mode 'center'"),
    ({"input_size": (3, 0, 224)}, ValueError, "input_size (3, 0, 224) is not a size in pixels"),
    ({"input_size": -1}, ValueError, "input_size -1 is not a size in pixels"),
])
def test_mistakes_are_named(arguments, error, message):
    with pytest.raises(error) as caught:
        create_transform(**arguments)
    assert message in str(caught.value)
