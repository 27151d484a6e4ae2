"""PiT: image sizes, the authors' files, and distillation."""

import pytest
import timm
import torch
from timm.models.pit import checkpoint_filter_fn

import mvlib

from .pairs import assert_same, assert_same_effect, build, image, pair

NARROW = dict(img_size=64, base_dims=(16, 16, 16), depth=(1, 1, 1))


@pytest.mark.parametrize(("name", "options", "size"), [
    ("pit_ti_224", dict(img_size=(80, 64), patch_size=12, stride=5, num_classes=0, global_pool=""), (80, 64)),
    ("pit_ti_distilled_224", dict(mlp_ratio=2.0, in_chans=1), 64),
    ("pit_ti_224", dict(distilled=True), 64),
])
def test_arguments_have_timms_effect(name, options, size):
    assert_same_effect(name, size, **{**NARROW, **options})


@pytest.mark.parametrize("name", ["pit_ti_224", "pit_ti_distilled_224"])
def test_the_authors_files_load(tmp_path, name):
    """In them, poolings stand beside the stages."""
    ours, theirs, x = pair(name, **NARROW)
    original = {key.replace("transformers.1.pool", "pools.0").replace("transformers.2.pool", "pools.1"): value
                for key, value in theirs.state_dict().items()}
    assert len([key for key in original if key.startswith("pools.")]) == 8
    torch.save(original, tmp_path / "pit.pth")
    theirs.load_state_dict(checkpoint_filter_fn(original, theirs))
    assert_same(build(name, checkpoint_path=tmp_path / "pit.pth", **NARROW), theirs, x)


def test_positions_are_resampled_for_another_image_size():
    ours, _, _ = pair("pit_ti_224", **NARROW)
    larger = build("pit_ti_224", **{**NARROW, "img_size": (96, 80)})
    larger.load_state_dict(ours.state_dict())
    expected = timm.layers.resample_abs_pos_embed(
        ours.pos_embed.flatten(2).transpose(1, 2), [11, 9], [7, 7], num_prefix_tokens=0)
    torch.testing.assert_close(larger.pos_embed.flatten(2).transpose(1, 2), expected)
    assert larger(image((96, 80))).shape == (2, 1000)


def test_distilled_training():
    ours, theirs, x = pair("pit_ti_distilled_224", **NARROW)
    for model in (ours, theirs):
        model.set_distilled_training()
        model.train()
    for own, other in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(img_size=12), r"an image of \(12, 12\) is smaller than a patch of 16"),
    (dict(heads=(2, 4)), r"heads \(2, 4\) are a number for each stage"),
    (dict(stem_type="patch"), "unknown stem_type 'patch'; known: 'overlap'"),
    (dict(global_pool="avg"), "unknown global_pool 'avg'; known: 'token', ''"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("pit_ti_224")(**arguments)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="the input is 8 x 6, not 7 x 7; .* with img_size=$"):
        build("pit_ti_224", **NARROW)(image((72, 56)))
