"""RDNet: timm's options, the authors' files, and what is refused."""

import pytest
import torch

from .pairs import assert_same, assert_same_effect, build, pair

SMALL = dict(num_init_features=16, growth_rates=(8, 16, 8), num_blocks_list=(1, 2, 1),
             block_type=("Block", "BlockESE", "BlockESE"),
             is_downsample_block=(None, True, False))


@pytest.mark.parametrize("kwargs", [
    dict(stem_type="overlap_tiered", head_norm_first=True, conv_bias=False, global_pool="catavgmax", in_chans=1),
    dict(patch_size=8, ls_init_value=0, norm_layer="batchnorm2d", norm_eps=0.1, act_layer="relu", num_classes=0),
    dict(transition_compression_ratio=0.75, bottleneck_width_ratio=2.0, drop_rate=0.1, proj_drop_rate=0.1),
], ids=str)
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect("rdnet_tiny", **{**SMALL, **kwargs})


def test_the_authors_files_load(tmp_path):
    _, theirs, x = pair("rdnet_tiny", **SMALL)
    original = {key.replace("stem.", "stem.stem."): value for key, value in theirs.state_dict().items()}
    torch.save({"model": original}, tmp_path / "rdnet.pth")
    assert_same(build("rdnet_tiny", checkpoint_path=tmp_path / "rdnet.pth", **SMALL), theirs, x)


def test_the_heads_scale():
    torch.manual_seed(0)
    plain = build("rdnet_tiny", **SMALL)
    torch.manual_seed(0)
    scaled = build("rdnet_tiny", head_init_scale=0.5, **SMALL)
    torch.testing.assert_close(scaled.head.fc.weight, 0.5 * plain.head.fc.weight)
    torch.testing.assert_close(scaled.stem[0].weight, plain.stem[0].weight)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(num_blocks_list=(1, 2)), "is_downsample_block and block_type have one value a stage"),
    (dict(block_type=("Block",)), "is_downsample_block and block_type have one value a stage"),
    (dict(block_type=("Bottle",) * 3), "unknown block_type 'Bottle'; known: 'Block', 'BlockESE'"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build("rdnet_tiny", **{**SMALL, **kwargs})
