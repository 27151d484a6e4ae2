"""What timm.layers exports and we export, too: the same arguments, and the same answers."""

import importlib
import inspect
import pickle
import pkgutil
import re
from functools import partial

import pytest
import timm.layers as theirs
import torch
from torch import nn

import mvlib.layers as ours
from mvlib.layers import NormAct

PUBLIC = {
    name: getattr(module, name)
    for info in pkgutil.iter_modules(ours.__path__)
    for module in [importlib.import_module(f"mvlib.layers.{info.name}")]
    for name in module.__all__
}
THEIRS = {  # some stand in a module alone
    name: value
    for info in pkgutil.iter_modules(theirs.__path__)
    for name, value in vars(importlib.import_module(f"timm.layers.{info.name}")).items()
    if name[0] != "_" and str(getattr(value, "__module__", "")).startswith("timm.layers")
} | {name: value for name, value in vars(theirs).items() if name[0] != "_" and not inspect.ismodule(value)}
COMMON = sorted(PUBLIC.keys() & THEIRS.keys())
# What timm takes and we do not, and why.
NOT_TAKEN = {
    "create_norm_act_layer": {"jit"},  # TorchScript is deprecated in torch
    "RotaryEmbedding": {"rotate_half"},  # taken, in the place that it has in RotaryEmbeddingCat
    "LayerNormAct": {"normalization_shape"},  # num_channels, as for all others
    "LayerNormActFp32": {"normalization_shape"},
    "inplace_abn": set(inspect.signature(THEIRS["inplace_abn"]).parameters),  # passed on as they are
}


def parameters(function):
    found = inspect.signature(function).parameters.values()
    return [p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def test_all_public_names_are_exported():
    assert len(COMMON) > 200
    for name, value in PUBLIC.items():
        assert getattr(ours, name) is value


@pytest.mark.parametrize("name", COMMON)
def test_arguments_are_timms(name):
    mine, its = PUBLIC[name], THEIRS[name]
    if not callable(mine):
        return  # the type of an argument
    found = parameters(mine)
    if isinstance(mine, type) and issubclass(mine, NormAct):
        norm = mine.__mro__[mine.__mro__.index(NormAct) + 1]
        first = parameters(norm if mine.__init__ is NormAct.__init__ else mine)
        found = [*first, *parameters(NormAct), "device", "dtype"]
    wanted = [p for p in parameters(its) if p not in NOT_TAKEN.get(name, ())]
    assert set(wanted) <= set(found)
    keywords = ("device", "dtype")  # which stand anywhere
    assert [p for p in found if p in wanted and p not in keywords] == [p for p in wanted if p not in keywords]


TABLE = torch.rand(12, 4, generator=torch.Generator().manual_seed(0))
MAPS = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0))
MAP, TOKENS, VECTORS = (2, 16, 8, 8), (2, 9, 16), (3, 16)
LAYERS = [  # name, arguments, input's shape
    *((name, dict(num_channels=16, eps=0.1), shape) for name, shape in (
        ("LayerNormFp32", TOKENS), ("LayerNorm2dFp32", MAP))),
    *((name, dict(channels=16, eps=0.1), shape) for name, shape in (
        ("RmsNormFp32", TOKENS), ("RmsNorm2dFp32", MAP), ("SimpleNormFp32", TOKENS), ("SimpleNorm2dFp32", MAP))),
    *((name, dict(num_channels=16, act_layer=nn.SiLU), MAP) for name in ("LayerNormAct2dFp32", "RmsNormAct2dFp32")),
    ("RmsNormActFp32", dict(num_channels=16, act_layer="gelu"), TOKENS),
    ("LayerNormActFp32", dict(args=(16,)), TOKENS),
    *((f"EvoNorm2d{kind}", dict(num_features=16, apply_act=apply_act), MAP)
      for kind in ("B0", "B1", "B2") for apply_act in (True, False)),
    *((f"EvoNorm2d{kind}", dict(num_features=16, groups=4, apply_act=apply_act, **kwargs), MAP)
      for kind in ("S1", "S1a", "S2", "S2a") for apply_act in (True, False)
      for kwargs in ({}, dict(act_layer=nn.GELU))),
    *(("FrozenBatchNormAct2d", dict(num_features=16, **kwargs), MAP) for kwargs in (
        dict(eps=0.1), dict(act_layer=nn.GELU), dict(apply_act=False))),
    ("BatchNormAct2d", dict(num_features=16, act_layer=nn.GELU), MAP),  # which takes no inplace
    ("SEModule", dict(channels=16, act_layer=nn.GELU), MAP),
    ("SqueezeExciteCl", dict(channels=16, rd_channels=4), (2, 8, 8, 16)),
    *((name, dict(channels=16, **kwargs), MAP) for name in ("ChannelAttn", "LightChannelAttn") for kwargs in (
        dict(), dict(rd_channels=3, mlp_bias=True, gate_layer="tanh"))),
    *((name, dict(kernel_size=3, gate_layer="hard_sigmoid"), MAP) for name in ("SpatialAttn", "LightSpatialAttn")),
    ("LightCbamModule", dict(channels=16, gate_layer="tanh"), MAP),
    *((name, dict(channels=16, has_skip=has_skip), (2, 16, 6, 8)) for has_skip in (True, False)
      for name in ("CoordAttn", "SimpleCoordAttn", "EfficientLocalAttn", "StripAttn")),
    ("CoordAttn", dict(channels=16, rd_channels=5, norm_layer=None, bias=True, gate_layer="tanh"), MAP),
    ("EfficientLocalAttn", dict(channels=16, kernel_size=3, norm_layer=None), MAP),
    ("StripAttn", dict(channels=16, use_conv=False), MAP),
    ("BilinearAttnTransform", dict(in_channels=16, block_size=4, groups=4, act_layer=nn.SiLU), MAP),
    ("SelectiveKernelAttn", dict(channels=16, num_paths=3, attn_channels=6), (2, 3, 16, 4, 4)),
    *(("RadixSoftmax", dict(radix=radix, cardinality=2), (2, 24, 1, 1)) for radix in (2, 1)),
    *((name, dict(in_channels=16, out_channels=6, kernel_size=5, stride=2, channel_multiplier=2, bias=True, **kwargs),
       MAP) for name, kwargs in (("SeparableConv2d", {}), ("SeparableConvNormAct", dict(act_layer="gelu")),
                                 ("SeparableConvNormAct", dict(apply_act=False)))),
    ("SpaceToDepth", dict(), MAP), ("DepthToSpace", dict(block_size=2), MAP),
    *(("MedianPool2d", kwargs, MAP) for kwargs in (
        dict(), dict(kernel_size=(2, 3), stride=2, padding=(1, 0, 2, 1)), dict(kernel_size=4, stride=3, same=True))),
    *((name, dict(r=4.0, r_learnable=learnable), shape) for learnable in (True, False)
      for name, shape in (("LsePlus1d", TOKENS), ("LsePlus2d", MAP))),
    ("LsePlus2d", dict(flatten=False), MAP),
    *((name, dict(dim=16, num_heads=2, **kwargs), shape) for kwargs in (
        dict(), dict(qkv_bias=True, qk_norm=True), dict(gamma=1.25))
      for name, shape in (("SimPool1d", TOKENS), ("SimPool2d", MAP))),
    *((name, dict(flatten=flatten, input_fmt=layout), MAP) for flatten in (True, False) for layout in ("NCHW", "NHWC")
      for name in ("FastAdaptiveAvgPool", "FastAdaptiveMaxPool", "FastAdaptiveAvgMaxPool",
                   "FastAdaptiveCatAvgMaxPool")),
    *((name, dict(output_size=size), MAP) for size in (1, (2, 4))
      for name in ("AdaptiveAvgMaxPool2d", "AdaptiveCatAvgMaxPool2d")),
    *(("ClNormMlpClassifierHead", {"in_features": 16, "num_classes": 5, **kwargs}, shape) for kwargs, shape in (
        (dict(), (2, 4, 4, 16)), (dict(hidden_size=6, pool_type="avgmax", input_fmt="NLC"), TOKENS),
        (dict(pool_type=""), (2, 4, 4, 16)), (dict(pool_type="max", num_classes=0), (2, 4, 4, 16)))),
    *(("FourierEmbed", dict(num_bands=3, **kwargs), (2, 4, 5, 6)) for kwargs in (
        dict(), dict(concat_grid=False), dict(keep_spatial=True))),
    ("Linear", dict(in_features=16, out_features=5), TOKENS),
    ("PatchEmbed", dict(img_size=8, patch_size=2, in_chans=16, embed_dim=6, output_fmt="NCL"), MAP),
    ("PatchEmbedWithSize", dict(img_size=16, patch_size=4, in_chans=16, embed_dim=6, norm_layer=nn.LayerNorm), MAP),
    ("PatchEmbedWithSize", dict(img_size=None, patch_size=3, in_chans=16, embed_dim=6, flatten=False), MAP),
    *((name, dict(), VECTORS) for name in ("GELU", "GELUTanh", "HardMish", "HardSigmoid", "HardSwish", "Mish", "PReLU",
                                           "QuickGELU", "Sigmoid", "Swish", "Tanh")),
    *((name, dict(num_channels=16), TOKENS) for name in ("LayerNorm",)),
    *((name, dict(channels=16), TOKENS) for name in ("RmsNorm", "SimpleNorm")),
    *((name, dict(channels=16), MAP) for name in ("RmsNorm2d", "SimpleNorm2d", "SEModule", "SqueezeExcite", "EcaModule",
                                                  "EffectiveSEModule", "CecaModule", "GlobalContext")),
    *((name, dict(num_channels=16, eps=0.1), MAP) for name in ("LayerNorm2d", "GroupNorm1")),
    *((name, dict(num_channels=16, **kwargs), MAP) for name in ("GroupNorm1Act", "LayerNormAct2d", "RmsNormAct2d")
      for kwargs in (dict(eps=0.1), dict(act_layer=nn.SiLU, inplace=False), dict(apply_act=False))),
    ("GroupNorm", dict(num_channels=16, num_groups=4), MAP),
    ("GroupNormAct", dict(num_channels=16, group_size=2, act_layer="gelu"), MAP),
    ("BatchNormAct2d", dict(num_features=16, act_layer="leaky_relu", act_kwargs=dict(negative_slope=0.3)), MAP),
    ("EvoNorm2dS0", dict(num_features=16, group_size=4, act_layer=nn.ReLU), MAP),
    *(("EvoNorm2dS0a", dict(num_features=16, groups=4, apply_act=apply_act), MAP) for apply_act in (True, False)),
    ("FilterResponseNormAct2d", dict(num_features=16, eps=0.1, act_layer="silu"), MAP),
    *(("FilterResponseNormTlu2d", dict(num_features=16, apply_act=apply_act), MAP) for apply_act in (True, False)),
    *(("ClassifierHead", dict(in_features=16, num_classes=5, pool_type=pool, use_conv=True), MAP)
      for pool in ("catavgmax", "")),
    ("Attention", dict(dim=16, num_heads=2, attn_head_dim=6, dim_out=10, gated=True, qkv_bias=True), TOKENS),
    ("Attention", dict(dim=16, num_heads=2, qk_norm=True, scale_norm=True, norm_layer=nn.LayerNorm), TOKENS),
    ("DiffAttention", dict(dim=16, num_heads=2, depth=3, dual_lambda=True, qk_norm=True), TOKENS),
    ("DiffAttention", dict(dim=16, num_heads=2, depth=3, scale_norm=True), TOKENS),
    *(("AttentionRope", dict(dim=16, num_heads=4, norm_layer=nn.LayerNorm, **kwargs), TOKENS) for kwargs in (
        dict(), dict(qkv_fused=False, num_kv_heads=2, gated=True, qk_norm=True, dim_out=6),
        dict(attn_head_dim=6, scale_norm=True, qkv_bias=False))),
    ("MultiQueryAttentionV2", dict(dim=16, dim_out=6, num_heads=3, key_dim=5, value_dim=7), MAP),
    ("Attention2d", dict(dim=16, dim_out=8, num_heads=2, head_first=True), MAP),
    ("MultiQueryAttention2d", dict(dim=16, num_heads=2, key_dim=4, query_strides=2, kv_stride=2), MAP),
    ("MultiQueryAttention2d", dict(dim=16, num_heads=2, query_strides=(2, 2), padding="same", dim_out=8), MAP),
    ("AttentionPoolLatent", dict(in_features=16, num_heads=2, feat_size=9, pos_embed="abs", qk_norm=True,
                                 out_features=8, latent_len=3, pool_type="avg"), TOKENS),
    ("AttentionPoolLatent", dict(in_features=16, num_heads=2, out_features=0, q_proj=False, qkv_bias=False,
                                 latent_len=2, pool_type="", norm_layer=nn.LayerNorm), TOKENS),
    ("AttentionPoolLatent", dict(in_features=16, num_heads=2, latent_dim=6, norm_layer=nn.LayerNorm), TOKENS),
    ("AttentionPoolPrr", dict(dim=16, num_heads=2, pre_norm=True, post_norm=True, pool_type="avg"), TOKENS),
    ("Mlp", dict(in_features=16, hidden_features=5, use_conv=True), MAP),
    ("GluMlp", dict(in_features=16, hidden_features=6, use_conv=True), MAP),
    ("GluMlp", dict(in_features=16, hidden_features=6, norm_layer=nn.LayerNorm), TOKENS),
    ("SwiGLUPacked", dict(in_features=16, hidden_features=6), TOKENS),
    ("SwiGLU", dict(in_features=16, hidden_features=6, align_to=4, bias=False), TOKENS),
    ("GatedMlp", dict(in_features=16, hidden_features=6, norm_layer=nn.LayerNorm, bias=(True, False)), TOKENS),
    ("GatedMlp", dict(in_features=16, hidden_features=6, out_features=5, norm_layer=nn.LayerNorm,
                      gate_layer=lambda chs, **placed: nn.GLU()), TOKENS),
    ("ConvMlp", dict(in_features=16, hidden_features=6, norm_layer=nn.BatchNorm2d), MAP),
    ("GlobalResponseNormMlp", dict(in_features=16, hidden_features=6, use_conv=True, bias=(True, False)), MAP),
    ("LayerScale2d", dict(dim=16, init_values=0.3), MAP),
    ("EcaModule", dict(channels=16, use_mlp=True, rd_channels=4), MAP),
    ("CecaModule", dict(channels=16, act_layer=nn.ReLU), MAP),
    ("GlobalContext", dict(channels=16, fuse_add=True, rd_ratio=0.5), MAP),
    ("ConvNormAct", dict(in_channels=16, out_channels=6, kernel_size=3, conv_kwargs=dict(padding_mode="circular"),
                         norm_kwargs=dict(eps=0.1), act_layer="elu", act_kwargs=dict(alpha=0.3)), MAP),
    ("NonLocalAttn", dict(in_channels=16), MAP),
    ("NonLocalAttn", dict(in_channels=16, use_scale=False, rd_channels=4), MAP),
    ("BatNonLocalAttn", dict(in_channels=16, block_size=4, groups=4), MAP),
    ("BatNonLocalAttn", dict(in_channels=16, block_size=2), (2, 16, 6, 8)),
    ("SelectiveKernel", dict(in_channels=16, out_channels=8, stride=2), MAP),
    ("SelectiveKernel", dict(in_channels=16, kernel_size=[3, 5, 7], keep_3x3=False, split_input=False, groups=4), MAP),
    ("SplitAttn", dict(in_channels=16, norm_layer=nn.BatchNorm2d, groups=2), MAP),
    ("SplitAttn", dict(in_channels=16, radix=1, rd_channels=4, stride=2), MAP),
    ("GatherExcite", dict(channels=16, use_mlp=False), MAP),
    ("GatherExcite", dict(channels=16, use_mlp=False, extent=4, add_maxpool=True), MAP),
    ("ConvNormAct", dict(in_channels=16, out_channels=6, act_layer=None), MAP),
    ("ConvBnAct", dict(in_channels=16, out_channels=6, kernel_size=3, stride=2, aa_layer="blur"), MAP),
    ("MixedConv2d", dict(in_channels=16, out_channels=16, kernel_size=[3, 5], depthwise=True, bias=True), MAP),
    ("MixedConv2d", dict(in_channels=16, out_channels=8), MAP),
    ("BlurPool2d", dict(channels=16, filt_size=4), MAP),
    ("AvgPool2dSame", dict(kernel_size=3, stride=2), MAP),
    *(("create_pool2d", dict(pool_type=kind, kernel_size=3, stride=stride, padding=padding), MAP)
      for kind in ("avg", "max") for stride in (1, 2) for padding in ("", "same", "valid")),
    ("AvgPool2dSame", dict(kernel_size=2, stride=1, ceil_mode=True, count_include_pad=False), MAP),
    ("PatchEmbed", dict(img_size=None, patch_size=3, in_chans=16, embed_dim=6), MAP),
    ("PatchEmbed", dict(img_size=8, patch_size=2, in_chans=16, embed_dim=6, flatten=False), MAP),
    *(("RelPosBias", dict(window_size=(2, 4), num_heads=16, prefix_tokens=prefix), (2, 16, 8 + prefix, 8 + prefix))
      for prefix in (0, 1)),
    ("RelPosBiasTf", dict(window_size=(2, 4), num_heads=16), MAP),
    *(("RelPosMlp", dict(window_size=(2, 4), num_heads=16, **kwargs), MAP) for kwargs in (
        dict(), dict(mode="swin"), dict(mode="swin", pretrained_window_size=(6, 8), hidden_dim=12))),
    ("RelPosMlp", dict(window_size=(2, 4), num_heads=16, prefix_tokens=2), (2, 16, 10, 10)),
    *(("SelectAdaptivePool2d", kwargs, MAP) for kwargs in (
        dict(), dict(pool_type="avgmax", flatten=True), dict(pool_type="catavgmax"), dict(pool_type="", flatten=True),
        dict(pool_type=""), dict(pool_type="fastmax", flatten=True, input_fmt="NHWC"),
        dict(output_size=(2, 4), pool_type="max"), dict(output_size=2, pool_type="avgmax"),
        dict(output_size=2, pool_type="catavgmax", flatten=True))),
]


WITHIN = {  # attributes of timm's layers that are their own affair
    **dict.fromkeys(("AvgPool2dSame", "CecaModule", "create_pool2d"), {"padding"}),
    **dict.fromkeys(("EvoNorm2dS1", "EvoNorm2dS1a"), {"pre_act_norm"}),
    **dict.fromkeys(("FilterResponseNormAct2d", "FilterResponseNormTlu2d"), {"apply_act", "rms"}),
    **dict.fromkeys(("HardMish", "Sigmoid", "Tanh"), {"inplace"}),
    **dict.fromkeys(("RelPosBias", "RelPosBiasTf", "RelPosMlp"), {"bias_act", "bias_gain", "bias_shape"}),
    "ClNormMlpClassifierHead": {"pool_dim"},
    "DiffAttention": {"attn_drop_p"},
    "FastAdaptiveCatAvgMaxPool": {"dim_cat", "dim_reduce"},
    "GatherExcite": {"gk", "gs"},
    "GlobalContext": {"init_last_zero"},
    "MultiQueryAttention2d": {"drop", "einsum"},
    "PatchEmbedWithSize": {"strict_img_size"},
    "SelectAdaptivePool2d": {"pool_type"},  # "avg" for "fast"
}


def without_address(value):
    """As processes that share the tests name them alike."""
    return re.sub(r" at 0x\w+", "", str(value))


@pytest.mark.parametrize(("name", "kwargs", "shape"), LAYERS, ids=without_address)
def test_answers_are_timms(name, kwargs, shape):
    torch.manual_seed(0)
    kwargs = dict(kwargs)
    args = kwargs.pop("args", ())
    its, mine = THEIRS[name](*args, **kwargs).eval(), PUBLIC[name](*args, **kwargs).eval()
    for value in its.state_dict().values():
        value.uniform_(-0.3, 0.9).abs_() if value.is_floating_point() else None
    assert [(key, value.shape) for key, value in mine.state_dict().items()] == [
        (key, value.shape) for key, value in its.state_dict().items()]
    mine.load_state_dict(its.state_dict())
    for key, value in vars(its).items():  # what code that uses a layer may ask
        if key[0] != "_" and key not in WITHIN.get(name, ()):
            found = getattr(mine, key)
            assert type(value) not in (int, float, bool, str, tuple) or found == value, key
    x = torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(mine(x.clone()), its(x.clone()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kwargs", [
    dict(kernel_size=3, stride=2), dict(kernel_size=(2, 3), stride=3, dilation=2, ceil_mode=True),
], ids=str)
def test_maxima_with_tensorflows_padding(kwargs):
    x = -torch.rand(1, 2, 8, 7)  # below the zeros that other padding has
    expected = theirs.create_pool2d("max", padding="same", **kwargs)(x)
    torch.testing.assert_close(ours.MaxPool2dSame(**kwargs)(x), expected)


@pytest.mark.parametrize(("name", "args"), [
    ("to_ntuple", (3,)), ("make_divisible", (37, 8, None, 0.9)), ("calculate_drop_path_rates", (0.3, [2, 3, 1])),
    ("calculate_drop_path_rates", (0.3, [2, 3, 1], True)), ("calculate_drop_path_rates", (0.3, 4)),
    ("gen_relative_position_index", ((2, 3),)), ("gen_relative_position_index", ((3, 2), None, True)),
    ("gen_relative_log_coords", ((2, 4),)), ("gen_relative_log_coords", ((2, 4), (3, 8))),
    ("gen_relative_log_coords", ((2, 4), (0, 0), "cr")),
    *(("resize_rel_pos_bias_table", args) for args in (
        (TABLE, (3, 5), (45 + 3, 4), (2, 2)), (TABLE[:9], (3, 5), (45, 4)), (MAPS, (3, 4), (2, 5, 7)),
        (TABLE, (2, 2), (12, 4)))),
    *(("resize_rel_pos_bias_table_simple", args) for args in (
        (TABLE, (3, 5), (45 + 3, 4)), (TABLE[:9], (3, 3), (25, 4)), (MAPS, (3, 4), (2, 5, 7)),
        (MAPS, (2, 3), (2, 3, 5)))),
    ("resize_rel_pos_bias_table_levit", (TABLE[:9], (25, 4))), ("resize_rel_pos_bias_table_levit", (TABLE[:9], (9, 4))),
    ("resample_abs_pos_embed_nhwc", (torch.arange(36.0).view(1, 3, 4, 3), (5, 2))),
    ("get_padding", (5, 2, 3)), ("pad_same", (torch.ones(1, 2, 7, 5), (3, 4), (2, 3))),
    ("resample_abs_pos_embed", (torch.arange(40.0).view(1, 10, 4), [4, 2], None, 1, "bilinear", False, False, True)),
], ids=lambda value: value if isinstance(value, str) else "")
def test_functions_are_timms(name, args):
    mine, its = getattr(ours, name)(*args), getattr(theirs, name)(*args)
    if callable(its):
        for value in (2, (1, 2), "ab", [4]):
            assert mine(value) == its(value)
    else:
        torch.testing.assert_close(mine, its)


@pytest.mark.parametrize("name", ["RelPosBias", "RelPosBiasTf", "RelPosMlp"])
def test_windows_change_as_in_timm(name):
    its, mine = (getattr(layers, name)((2, 4), 3).eval() for layers in (theirs, ours))
    mine.load_state_dict(its.state_dict())
    for module in (its, mine):
        module.set_window_size((3, 5))
    torch.testing.assert_close(mine.get_bias(), its.get_bias().view_as(mine.get_bias()), rtol=1e-4, atol=1e-6)


def test_offsets_without_sign():
    """LeViT's index: its own code goes through all pairs of points."""
    for size, stride in (((3, 4), 1), ((4, 3), 2)):
        keys = [(y, x) for y in range(size[0]) for x in range(size[1])]
        queries = [(y, x) for y, x in keys if y % stride == x % stride == 0]
        expected = [[abs(y - v) * size[1] + abs(x - u) for v, u in keys] for y, x in queries]
        assert ours.gen_offset_index(size, stride).tolist() == expected


@pytest.mark.parametrize(("name", "kwargs"), [
    ("trunc_normal_", dict(std=0.5, a=-0.2, b=0.7)), ("trunc_normal_tf_", dict(mean=2.0, std=0.5)),
    ("lecun_normal_", {}),
    *(("variance_scaling_", dict(scale=2.0, mode=mode, distribution=distribution))
      for mode in ("fan_in", "fan_out", "fan_avg") for distribution in ("truncated_normal", "normal", "uniform")),
], ids=str)
def test_initial_values_are_timms(name, kwargs):
    torch.manual_seed(3)
    its, mine = torch.empty(80, 60, 3, 3), torch.empty(80, 60, 3, 3)
    getattr(theirs, name)(its, **kwargs)
    getattr(ours, name)(mine, **kwargs)
    scale = its.std()
    assert abs(mine.std() / scale - 1) < 0.02 and abs(mine.mean() - its.mean()) < 0.02 * scale
    if "normal" != kwargs.get("distribution"):
        assert abs(mine.max() - its.max()) < 0.02 * scale and abs(mine.min() - its.min()) < 0.02 * scale


@pytest.mark.parametrize(("name", "kwargs", "shape"), [
    ("DropPath", dict(drop_prob=0.5), VECTORS), ("DropPath", dict(drop_prob=0.5, scale_by_keep=False), VECTORS),
    ("PatchDropout", dict(prob=0.5), TOKENS), ("PatchDropoutWithIndices", dict(prob=0.5, ordered=True), TOKENS),
    *(("DropBlock2d", dict(drop_prob=0.3, **kwargs), MAP) for kwargs in (
        dict(block_size=3), dict(block_size=4, couple_channels=False), dict(block_size=2, with_noise=True),
        dict(block_size=3, inplace=True, scale_by_keep=False), dict(block_size=3, inplace=True, with_noise=True))),
], ids=str)
def test_what_is_dropped_is_dropped_in_timm(name, kwargs, shape):
    found = []
    for layers in (theirs, ours):
        torch.manual_seed(5)
        found.append(getattr(layers, name)(**kwargs)(torch.ones(shape)))
    torch.testing.assert_close(found[1], found[0])


# --- names with another meaning would be traps


def test_a_norm_without_activation_asked_for_has_none():
    for get in (ours.get_norm_act_layer, theirs.get_norm_act_layer):
        assert get(None) is None and get("") is None
        assert isinstance(get("batchnorm2d")(8).act, nn.Identity)
        assert isinstance(get("groupnorm-x", "silu")(32).act, nn.SiLU)
        assert isinstance(get(partial(nn.BatchNorm2d, eps=0.1), nn.ReLU)(8).act, nn.ReLU)
    assert ours.create_attn(None, 8) is theirs.create_attn(None, 8) is None
    assert ours.create_aa(None, 8, noop=None) is theirs.create_aa(None, 8, noop=None) is None


def test_layers_are_placed():
    for layer in (ours.Mlp, ours.GroupNormAct, partial(ours.create_conv2d, out_channels=4, kernel_size=[3, 5])):
        layer = layer(32, device="meta")
        assert all(p.is_meta for p in layer.parameters())
    half = ours.Attention(16, 2, device="cpu", dtype=torch.float16)
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    assert list(inspect.signature(ours.Mlp).parameters)[-2:] == ["device", "dtype"]


# --- users' own norms


class OwnNorm(nn.GroupNorm):
    def __init__(self, channels, eps=1e-5):
        super().__init__(2, channels, eps)


class OwnNormAct(nn.Module):
    def __init__(self, channels, apply_act=True, act_layer=None):
        super().__init__()
        self.act = ours.create_act_layer(act_layer) if apply_act and act_layer else nn.Identity()

    def forward(self, x):
        return self.act(x)


def test_a_norm_of_ones_own_gets_an_activation_and_keeps_its_keys():
    layer = ours.ConvNormAct(3, 8, norm_layer=partial(OwnNorm, eps=0.5), act_layer="silu")
    assert list(layer.state_dict()) == ["conv.weight", "bn.weight", "bn.bias"]
    assert isinstance(layer.bn, OwnNorm) and layer.bn.eps == 0.5
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(layer.bn(x), nn.functional.silu(nn.functional.group_norm(x, 2, eps=0.5)))
    again = pickle.loads(pickle.dumps(layer))
    assert type(again.bn) is type(layer.bn)
    torch.testing.assert_close(again.bn(x), layer.bn(x))


def test_a_norm_that_activates_is_taken_as_it_is():
    layer = ours.get_norm_act_layer(OwnNormAct, "relu")(8)
    assert type(layer) is OwnNormAct and isinstance(layer.act, nn.ReLU)
    assert isinstance(ours.get_norm_act_layer(OwnNormAct, "relu")(8, apply_act=False).act, nn.Identity)
    assert isinstance(ours.ConvNormAct(3, 8, norm_layer=OwnNormAct, act_layer="gelu").bn.act, nn.GELU)


def test_a_registered_norm_is_known_by_name(monkeypatch):
    monkeypatch.setitem(ours.NORMS, "own", OwnNorm)
    monkeypatch.setitem(ours.NORM_ACTS, OwnNorm, OwnNormAct)
    assert ours.get_norm_layer("own") is OwnNorm
    assert isinstance(ours.get_norm_act_layer("own", "tanh")(8).act, nn.Tanh)


@pytest.mark.parametrize("name", ["se", "ese", "eca", "ecam", "ceca", "gc", "gca", "cbam", "lcbam", "sk", "splat", "nl",
                                  "bat"])
def test_attention_by_name_is_timms(name):
    torch.manual_seed(0)
    its, mine = (layers.create_attn(name, 32).eval() for layers in (theirs, ours))
    for value in its.state_dict().values():
        value.uniform_(-0.2, 0.4).abs_() if value.is_floating_point() else None
    mine.load_state_dict(its.state_dict())
    x = torch.randn(2, 32, 7, 14)
    with torch.no_grad():
        expected = its(x.clone())
        torch.testing.assert_close(mine(x.clone()), expected, rtol=1e-4, atol=1e-5)
        assert (expected - x).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "kwargs"), [
    ("bottleneck", dict(feat_size=(8, 16))),
    ("bottleneck", dict(feat_size=(8, 16), dim_out=48, stride=2, num_heads=2, qk_ratio=0.5, scale_pos_embed=True)),
    ("halo", dict(block_size=4)), ("halo", dict(stride=2, num_heads=4, dim_head=6, qkv_bias=True)),
    ("halo", dict(dim_out=48, block_size=4, halo_size=1, stride=2, avg_down=True, qk_ratio=0.5, scale_pos_embed=True)),
    ("lambda", dict()), ("lambda", dict(r=3, stride=2, num_heads=2, dim_head=None, qk_ratio=0.5, qkv_bias=True)),
    ("lambda", dict(r=None, feat_size=(8, 16))),
], ids=str)
def test_self_attention_is_timms(name, kwargs):
    torch.manual_seed(0)
    its, mine = (layers.create_attn(name, 32, **kwargs) for layers in (theirs, ours))
    assert parameters(type(mine)) == parameters(type(its))
    for part in (mine, its):
        part.reset_parameters()
    for key, value in its.named_parameters():
        assert abs(mine.get_parameter(key).std() - value.std()) < 0.35 * value.std() + 1e-6, key
    with torch.no_grad():
        for value in its.state_dict().values():
            value.uniform_(-0.4, 0.9).abs_() if value.is_floating_point() else None
    mine.load_state_dict(its.state_dict())
    assert list(mine.state_dict()) == list(its.state_dict())
    x = torch.randn(2, 32, 8, 16)
    its.eval(), mine.eval()
    (expected, grads), (found, own) = ((y, torch.autograd.grad(y.square().mean(), list(part.parameters())))
                                       for part in (its, mine) for y in [part(x)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for grad, wanted in zip(own, grads, strict=True):
        torch.testing.assert_close(grad, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item() + 1e-7)


@pytest.mark.parametrize(("name", "kwargs", "message"), [
    ("bottleneck", dict(), "feat_size is needed"), ("lambda", dict(r=None), "feat_size is needed"),
    ("bottleneck", dict(feat_size=4, num_heads=3), "32 channels cannot be divided among 3 heads"),
    ("halo", dict(stride=3), "stride is 1 or 2, not 3"), ("lambda", dict(r=4), "r is odd, to have a centre, not 4"),
    ("bottleneck", dict(feat_size=4), "the input is 6 x 4, not 4 x 4; .* img_size=$"),
    ("halo", dict(block_size=4), "the input is 6 x 4, not multiples of 4 x 4; resize the images$"),
    ("lambda", dict(r=None, feat_size=4), "the input is 6 x 4, not 4 x 4; .* img_size=$"),
])
def test_what_self_attention_cannot_take(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        ours.create_attn(name, 32, **kwargs)(torch.ones(1, 32, 6, 4))


@pytest.mark.parametrize("kwargs", [
    dict(), dict(extent=4), dict(extent=2, add_maxpool=True), dict(extra_params=True, extent=4),
    dict(extra_params=True, feat_size=(8, 8)),
], ids=str)
def test_gather_and_excite(kwargs):
    """timm's cannot be built with an MLP or parameters; a map of equal positions has a mean that is known."""
    layer = ours.create_attn("ge", 16, **kwargs).eval()
    x = torch.rand(2, 16, 1, 1).expand(-1, -1, 8, 8)
    with torch.no_grad():
        y = layer(x)
        assert y.shape == x.shape
        if "extra_params" not in kwargs:
            torch.testing.assert_close(y, x * torch.sigmoid(layer.mlp(x)))
        assert layer.gather is None or list(layer.gather.state_dict())[0] == "conv1.weight"
    with pytest.raises(ValueError, match="a region's side is even"):
        ours.GatherExcite(16, extent=3)


def test_attention_of_ones_own_by_name(monkeypatch):
    monkeypatch.setitem(ours.ATTN_LAYERS, "own", nn.Softmax2d)
    assert ours.get_attn("own") is nn.Softmax2d
    assert ours.create_attn("se", 64, rd_channels=3).fc1.out_channels == 3
