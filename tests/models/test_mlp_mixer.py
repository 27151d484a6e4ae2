"""Mixer, ResMLP, gMLP: options, the authors' files."""

import math
import re

import pytest
import timm
import torch
from timm.models.mlp_mixer import checkpoint_filter_fn

import mvlib

from .pairs import assert_same_effect, image


@pytest.mark.parametrize(("name", "kwargs"), [
    ("mixer_s32_224", dict(img_size=(64, 96), stem_norm=True, mlp_ratio=(0.1, 0.5), act_layer=torch.nn.ReLU)),
    ("gmlp_ti16_224", dict(img_size=(48, 32), num_classes=0, norm_layer=torch.nn.LayerNorm, in_chans=5)),
])
def test_arguments_have_timms_effect(name, kwargs):
    assert_same_effect(name, kwargs["img_size"], **kwargs)


def test_all_classes_begin_equally_likely():
    model = mvlib.create_model("mixer_s32_224", pretrained=False, img_size=64, num_classes=20, nlhb=True,
                               mlp_ratio=0.1)
    assert not model.head.weight.any() and torch.allclose(model.head.bias, torch.tensor(-math.log(20)))


def test_the_authors_resmlp_loads(tmp_path):
    """Their names; scales and shifts are vectors."""
    size = dict(img_size=32, num_classes=10)
    foreign = {}
    for key, value in timm.create_model("resmlp_12_224", **size).state_dict().items():
        for name, theirs in (("stem", "patch_embed"), ("linear_tokens", "attn"), ("mlp_channels", "mlp")):
            key = key.replace(f"{name}.", f"{theirs}.")
        foreign[re.sub(r"\bls(\d)$", r"gamma_\1", key)] = torch.randn_like(value.flatten() if "norm" in key else value)
    torch.save(foreign, tmp_path / "resmlp.pth")
    theirs = timm.create_model("resmlp_12_224", **size).eval()
    theirs.load_state_dict(checkpoint_filter_fn(foreign, theirs))
    ours = mvlib.create_model("resmlp_12_224", checkpoint_path=tmp_path / "resmlp.pth", **size).eval()
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(global_pool="max"), "unknown global_pool 'max'; known: '', 'avg'"),
    (dict(img_size=24), r"an image of \(24, 24\) is smaller than a patch of \(32, 32\)"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("mixer_s32_224")(**kwargs)


def test_images_have_one_size():
    model = mvlib.create_model("mixer_s32_224", pretrained=False, img_size=64, mlp_ratio=(0.1, 0.5))
    with pytest.raises(ValueError, match="the input is 96 x 64, its patches are made for 64 x 64; .* with img_size=$"):
        model(image((96, 64)))
