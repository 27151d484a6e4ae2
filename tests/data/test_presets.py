"""`weights.transforms()` against torchvision's presets, and timm's transforms for timm's weights."""

import numpy
import pytest
import timm.data
import torch
import torchvision
from PIL import Image

import mvlib
from mvlib.data.presets import ImageClassification

THEIRS = torchvision.models
SIZES = [(375, 500), (500, 375), (64, 700), (33, 47), (224, 224)]


def picture(height, width, seed=0):
    generator = numpy.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=numpy.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def members():
    """One member for every way of preprocessing that torchvision has."""
    seen = {}
    for builder in (*THEIRS.list_models(module=THEIRS), *THEIRS.list_models(module=THEIRS.quantization)):
        for member in THEIRS.get_model_weights(builder):
            seen.setdefault(repr(member.transforms()), member)
    return list(seen.values())


@pytest.mark.sample(3)
@pytest.mark.parametrize("theirs", members(), ids=repr)
def test_equal_to_torchvisions(theirs):
    ours = mvlib.get_weight(repr(theirs)).transforms()
    expected = theirs.transforms()
    for size in SIZES:
        image = picture(*size)
        assert torch.equal(ours(image), expected(image))
    for size in ((33, 47), (500, 375)):
        tensor = torchvision.transforms.functional.pil_to_tensor(picture(*size))
        assert torch.equal(ours(tensor), expected(tensor))
        batch = torch.stack([tensor, tensor.flip(-1)])
        assert torch.equal(ours(batch), expected(batch))
        assert torch.equal(ours(tensor / 255), expected(tensor / 255))


def test_every_weight_has_torchvisions_arguments():
    for builder in THEIRS.list_models(module=THEIRS):
        for member in THEIRS.get_model_weights(builder):
            ours, theirs = mvlib.get_weight(repr(member)).transforms(), member.transforms()
            for name in ("crop_size", "resize_size", "mean", "std", "interpolation", "antialias"):
                assert getattr(ours, name) == getattr(theirs, name), (member, name)


def test_arguments_can_be_replaced():
    weights = mvlib.models.ResNet50_Weights.IMAGENET1K_V2
    image = picture(375, 500)
    theirs = THEIRS.ResNet50_Weights.IMAGENET1K_V2.transforms(crop_size=400, resize_size=400)
    assert torch.equal(weights.transforms(crop_size=400, resize_size=400)(image), theirs(image))


def test_repr():
    for weights in (THEIRS.ResNet50_Weights.IMAGENET1K_V2, THEIRS.ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1):
        assert repr(mvlib.get_weight(repr(weights)).transforms()) == repr(weights.transforms())
    assert "resized to 232 pixels (bilinear)" in mvlib.models.ResNet50_Weights.IMAGENET1K_V2.transforms().describe()


MODES = [dict(crop_size=64, resize_size=73), dict(crop_size=(64, 80), resize_size=(70, 90)),
         dict(crop_size=64, resize_size=80, crop_mode="squash"), dict(crop_size=64, resize_size=64, crop_mode="border")]


@pytest.mark.parametrize("arguments", MODES, ids=str)
@pytest.mark.parametrize("size", [(90, 120), (120, 90), (30, 40)], ids=str)
def test_scripts_and_exports(arguments, size):
    preset = ImageClassification(**arguments)
    image = torchvision.transforms.functional.pil_to_tensor(picture(*size)).unsqueeze(0)
    expected = preset(image)
    assert torch.equal(torch.jit.script(preset)(image), expected)
    assert torch.equal(torch.export.export(preset, (image,)).module()(image), expected)


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "vit_base_patch16_clip_224.openai", "resnet50d.ra2_in1k"])
def test_timms_weights_get_timms_result(name):
    architecture, _, tag = name.partition(".")
    weights = mvlib.get_model_weights(architecture)[tag.upper()]
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    theirs = timm.data.create_transform(**config)
    for size in SIZES:
        image = picture(*size)
        assert torch.equal(weights.transforms()(image), theirs(image))


@pytest.mark.parametrize("mode", ["squash", "border"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_timms_crop_modes(mode, size):
    ours = ImageClassification(crop_size=64, resize_size=71 if mode == "squash" else 64, crop_mode=mode,
                               interpolation="bicubic")
    theirs = timm.data.create_transform(64, crop_pct=0.9 if mode == "squash" else 1.0, crop_mode=mode,
                                        interpolation="bicubic")
    image = picture(*size)
    assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(crop_size=0), "crop_size 0 is not a size in pixels"),
    (dict(crop_size=(1, 2, 3)), r"crop_size \(1, 2, 3\) is not a size"),
    (dict(crop_size=8, crop_mode="centre"), "crop_mode 'centre' is none of center, squash, border"),
    (dict(crop_size=8, std=(0.2, 0.0, 0.2)), "std above 0"),
    (dict(crop_size=8, interpolation="cubic"), "'cubic' is not a valid InterpolationMode"),
])
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageClassification(**arguments)
