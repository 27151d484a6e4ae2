"""CoaT: blocks that share their convolutions, scales side by side, class tokens that are mixed."""

import pytest
import torch
from safetensors.torch import save_file

import mvlib

from .pairs import assert_same, assert_same_effect, build, pair

LITE, FULL = "coat_lite_tiny", "coat_tiny"
TINY = {
    LITE: dict(embed_dims=(8, 16, 24, 32), serial_depths=(1, 1, 1, 1), img_size=64),
    FULL: dict(embed_dims=(8, 16, 16, 16), serial_depths=(1, 1, 1, 1), parallel_depth=1, img_size=64),
}


@pytest.mark.parametrize(("name", "kwargs"), [
    (LITE, dict(img_size=(64, 96), crpe_window=5, qkv_bias=False, num_classes=3, in_chans=1)),
    (LITE, dict(num_heads=4, crpe_window={3: 1, 7: 3}, mlp_ratios=(1, 2, 3, 4), global_pool="avg")),
    (FULL, dict(img_size=(96, 64), global_pool="avg", serial_depths=(1, 2, 0, 1))),
])
def test_arguments_have_timms_effect(name, kwargs):
    assert_same_effect(name, kwargs.get("img_size", 64), **{**TINY[name], **kwargs})


@pytest.mark.parametrize(("name", "index", "options"), [
    (LITE, 1, {}), (LITE, 3, dict(prune_norm=True, prune_head=False)), (LITE, 3, {}),
    (FULL, 0, dict(prune_head=False)), (FULL, 2, dict(prune_norm=True, prune_head=False)),
])
def test_pruned(name, index, options):
    ours, theirs, x = pair(name, **TINY[name])
    for model in (ours, theirs):
        assert model.prune_intermediate_layers([index], **options) == [index]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_same(ours, theirs, x)


def test_a_new_classifier_after_the_mixture_was_cut():
    ours = build(FULL, **TINY[FULL])
    ours.prune_intermediate_layers([2])
    ours.reset_classifier(3)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(x), ours.head(ours.forward_features(x)[-1][:, 0]))  # of the coarsest scale


def test_what_blocks_share_is_saved_and_loaded(tmp_path):
    """Under every name, as timm has it; or, as safetensors' own `save_model` writes files, under one."""
    ours, theirs, x = pair(FULL, **TINY[FULL])
    mvlib.save_for_hub(ours, tmp_path / "all")
    assert_same(mvlib.create_model(f"local-dir:{tmp_path / 'all'}").eval(), theirs, x)

    once = {key: value.clone() for key, value in theirs.state_dict().items() if "blocks" not in key or not any(
        part in key for part in (".cpe.", ".crpe.", ".mlp2.", ".mlp4."))}
    save_file(once, tmp_path / "once.safetensors")
    loaded = build(FULL, checkpoint_path=tmp_path / "once.safetensors", **TINY[FULL])
    assert loaded.serial_blocks2[0].cpe is loaded.cpe2
    assert_same(loaded, theirs, x)


@pytest.mark.parametrize(("name", "others"), [(LITE, ("norm1", "norm2", "norm3")), (FULL, ("norm1",))])
def test_the_authors_files_load(name, others, tmp_path):
    """They have norms that no answer needs."""
    _, theirs, x = pair(name, **TINY[name])
    unused = {f"{norm}.{kind}": torch.ones(8) for norm in others for kind in ("weight", "bias")}
    torch.save({"model": {**theirs.state_dict(), **unused}}, tmp_path / "coat.pth")
    assert_same(build(name, checkpoint_path=tmp_path / "coat.pth", **TINY[name]), theirs, x)


@pytest.mark.parametrize(("name", "arguments", "message"), [
    (LITE, dict(num_heads=4), "crpe_window has windows for 8 heads, there are 4"),
    (FULL, dict(mlp_ratios=(4, 4, 4, 8)), "embed_dims and mlp_ratios must be one for scales 2 to 4"),
    (LITE, dict(serial_depths=(1, 1)), "serial_depths has a value for each of 4 scales, not 2"),
    (LITE, dict(global_pool="max"), "unknown global_pool 'max'; known: '', 'avg', 'token'"),
])
def test_bad_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(name, **{**TINY[name], **arguments})
