"""LowFormer and CPUBone: the authors' files, and what they refuse."""

import pytest
import timm
import torch

import mvlib
from mvlib.models.cpubone import ConvAttention, CPUBone, get_same_padding
from mvlib.models.lowformer import LowFormer

TINY = dict(width_list=[8, 8, 16, 32, 64], depth_list=[0, 1, 1, 1, 1], head_widths=(24, 16), num_classes=3)
_BLOCK = "backbone.stages.2.op_list.1.total."
KEYS = """backbone.input_stem.op_list.0.conv.weight backbone.stages.0.op_list.0.main.spatial_conv.conv.weight
    BLOCK.0.0.main.1.conv_proj.0.weight BLOCK.0.0.main.1.pwise.0.weight
    BLOCK.0.0.main.1.conv_proj.1.running_mean BLOCK.0.1.main.1.weight
    BLOCK.1.main.depth_conv.conv.bias backbone.stages.3.op_list.1.total.0.main.pwise.0.weight
    BLOCK.1.main.depth_conv.norm.running_mean
    head.op_list.0.conv.weight head.op_list.2.linear.weight head.op_list.2.norm.bias head.op_list.3.linear.weight"""
KEYS = KEYS.replace("BLOCK.", _BLOCK).split()


@pytest.mark.parametrize(("name", "kwargs"), [
    ("lowformer_b0", {}), ("cpubone_nano", {}), ("cpubone_nano", dict(local_mbconv_norm="all"))])
def test_the_authors_files_are_read_as_timm_reads_them(name, kwargs):
    model = mvlib.create_model(name, pretrained=False, **TINY, **kwargs)
    theirs = {key: torch.full((), float(i)) for i, key in enumerate(KEYS)}
    read = getattr(timm.models, name.partition("_")[0]).checkpoint_filter_fn(dict(theirs), model)
    key_map, = model.key_maps
    assert key_map.matches(theirs) and not key_map.matches(model.state_dict())
    assert key_map.convert(dict(theirs), model) == read


def test_bad_arguments_are_reported():
    for model in (LowFormer, CPUBone):
        with pytest.raises(ValueError, match="downsample_expand_ratios has one for each of 4 stages, not 2"):
            model(downsample_expand_ratios=(6, 6), **TINY)
    with pytest.raises(ValueError, match="global_pool 'catavgmax' changes the width, which the layers in this head"):
        LowFormer(global_pool="catavgmax", **TINY)
    with pytest.raises(ValueError, match="global_pool is one of 'avg', '', not 'max'"):
        CPUBone(global_pool="max", **TINY)
    with pytest.raises(ValueError, match="local_mbconv_norm is one of 'proj', 'depth_proj', 'all', not 'none'"):
        CPUBone(local_mbconv_norm="none", **TINY)
    with pytest.raises(ValueError, match="upsample_mode is one of 'transpose', 'nearest', not 'bilinear'"):
        ConvAttention(16, upsample_mode="bilinear")
    with pytest.raises(ValueError, match="kernel_size is odd or 2, not 4"):
        get_same_padding(4)
