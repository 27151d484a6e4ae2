"""SwiftFormer: timm's options, the authors' files, two classifiers."""

import pytest
import torch

from .pairs import assert_same, assert_same_effect, build, pair

SMALL = dict(layers=(1, 2, 2, 1), embed_dims=(16, 16, 24, 32))


@pytest.mark.parametrize("kwargs", [
    dict(mlp_ratios=2, use_layer_scale=False, in_chans=1, num_classes=0, global_pool=""),
    dict(downsamples=(True, False, True, True), embed_dims=(16, 16, 16, 24), down_patch_size=5, down_pad=2),
], ids=str)
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect("swiftformer_xs", **{**SMALL, **kwargs})


def test_the_authors_files_load(tmp_path):
    """In them, stages and what lies between are one list, and scales are parameters of the blocks."""
    _, theirs, x = pair("swiftformer_xs", **SMALL)
    original = {}
    for key, value in theirs.state_dict().items():
        part, *rest = key.replace(".gamma", "").replace("attn.proj", "attn.Proj").split(".")
        if part == "stages":
            position = 2 * int(rest[0]) - (rest[1] == "downsample")
            part, rest = f"network.{position}", rest[2:]
        part = {"stem": "patch_embed", "head_dist": "dist_head"}.get(part, part)
        original[".".join([part, *rest])] = value
    assert {"network.0.0.layer_scale_1", "network.1.proj.weight", "network.2.0.layer_scale", "dist_head.bias",
            "network.6.0.attn.Proj.weight"} <= original.keys()
    torch.save({"model": original}, tmp_path / "swiftformer.pth")
    assert_same(build("swiftformer_xs", checkpoint_path=tmp_path / "swiftformer.pth", **SMALL), theirs, x)


def test_distilled_training():
    ours, theirs, x = pair("swiftformer_xs", **SMALL)
    for model in (ours, theirs):
        model.set_distilled_training()
        model.train()
    for own, other in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(own, other)


def test_bad_stride():
    with pytest.raises(ValueError, match="output_stride is 32 for a SwiftFormer, not 16"):
        build("swiftformer_xs", output_stride=16)
