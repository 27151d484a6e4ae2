"""CoAtNet and MaxViT."""

import torch

from .case import Case, From

_MAXXVIT = "models.maxxvit."
_MAP, _LAST = [(2, 32, 8, 12)], [(2, 8, 12, 32)]
_SIZES = dict(window_size=(4, 6), grid_size=(2, 3))
_IMAGE, _WINDOWS = torch.arange(576.0).view(2, 4, 6, 12), torch.arange(576.0).view(8, 2, 3, 12)
_RELATIVE = {kind: From(_MAXXVIT + f"RelPos{kind}", window_size=(8, 12)) for kind in ("Bias", "BiasTf", "Mlp")}


def _conv(**kwargs):
    return From("models.MaxxVitConvCfg", **kwargs).made


def _attention(**kwargs):
    return From("models.MaxxVitTransformerCfg", **kwargs).made


def _case(name, args=(), kwargs=None, inputs=None, configs="", **options):
    return Case(_MAXXVIT + name, args, kwargs or {}, inputs, configs, **options)


def _block(name, *args, inputs=_MAP, **kwargs):
    configs = {"MaxxVitBlock": "conv_cfg transformer_cfg", "ParallelMaxxVitBlock": "conv_cfg transformer_cfg",
               "MaxxVitStage": "conv_cfg transformer_cfg"}
    return _case(name, args, kwargs, inputs, configs.get(name, "cfg"))


def _shared():
    return torch.randn(2, 32, 4, 6), torch.randn(1, 1, 24, 24)


def _shared_last():
    return torch.randn(2, 4, 6, 32), torch.randn(1, 1, 24, 24)


_PARTS = _attention(**_SIZES)
_EVEN = _attention(window_size=4, init_values=0.1, head_first=False, rel_pos_type="bias_tf", dim_head=16)
_NEXT = _conv(block_type="convnext", init_values=0.1)

CASES = [
    # attention
    _case("Attention2d", (32,), {}, _MAP),
    _case("Attention2d", (32, 64, 16, False, True, False), dict(rel_pos_cls=_RELATIVE["Bias"], attn_drop=0.1), _MAP),
    _case("Attention2d", (32, 64, 16, True, False), dict(rel_pos_cls=_RELATIVE["BiasTf"], proj_drop=0.1), _MAP),
    _case("Attention2d", (32, 16), dict(dim_head=16), _MAP),
    _case("Attention2d", (32,), {}, _shared),
    _case("AttentionCl", (32,), {}, _LAST),
    _case("AttentionCl", (32,), {}, [(2, 7, 32)]),
    _case("AttentionCl", (32, 64, 16, False, True, False), {}, _LAST),
    _case("AttentionCl", (32, 64, 16), dict(expand_first=False, rel_pos_cls=_RELATIVE["Mlp"]), _LAST),
    _case("AttentionCl", (32, 16), dict(dim_head=32), _LAST),
    _case("AttentionCl", (32,), {}, _shared_last),
    # convolution
    *(_case("Downsample2d", (8, 12, pool, padding), dict(bias=False), [(2, 8, 9, 7)])
      for pool in ("max", "max2", "avg", "avg2") for padding in ("", "same")),
    _case("Downsample2d", (8, 8), {}, [(2, 8, 9, 7)]),
    _block("MbConvBlock", 32, 32),
    _block("MbConvBlock", 32, 48, 2, (1, 2), _conv(expand_output=False, pre_norm_act=True, attn_ratio=0.1), 0.1),
    _block("MbConvBlock", 32, 48, 2, (2, 1), _conv(attn_early=True, kernel_size=5, padding="same", pool_type="max")),
    _block("MbConvBlock", 32, 32, 1, (2, 1)),
    _block("MbConvBlock", 32, 48, 2, (1, 2), _conv(stride_mode="pool", output_bias=False, group_size=8)),
    _block("MbConvBlock", 32, 48, 2, (1, 3), _conv(stride_mode="1x1", attn_layer="eca", act_layer="silu")),
    _block("ConvNeXtBlock", 32),
    _block("ConvNeXtBlock", 32, 64, 5, 1, (1, 2), _NEXT),
    _block("ConvNeXtBlock", 32, 64, 3, 2, (1, 1), _NEXT, False, 0.1),
    _block("ConvNeXtBlock", 32, cfg=_conv(block_type="convnext", norm_eps=0.1, output_bias=False), conv_mlp=False),
    _block("ConvNeXtBlock", 32, 64, stride=2, cfg=_conv(
        block_type="convnext", stride_mode="pool", downsample_pool_type="max", norm_eps=0.1, init_values=None)),
    _case("Stem", (3, 16), {}, [(2, 3, 15, 12)]),
    _case("Stem", (3, (8, 12), 5, "same", True, "relu", "layernorm2d", 1e-2), {}, [(2, 3, 15, 12)]),
    # transformer blocks
    _block("TransformerBlock2d", 32, 32),
    _block("TransformerBlock2d", 32, 32, inputs=_shared),
    _block("TransformerBlock2d", 32, 64, 2, From(_MAXXVIT + "RelPosBias", window_size=(4, 6)), _attention(
        expand_first=False, shortcut_bias=False, pool_type="max", head_first=False, init_values=0.1,
        act_layer="relu"), 0.1),
    _block("TransformerBlock2d", 32, 64, 2, cfg=_attention(attn_bias=False, expand_ratio=2.0, norm_eps=0.1),
           inputs=lambda: (torch.randn(2, 32, 8, 12), torch.randn(1, 2, 24, 24))),
    *(_block(name, 32, kind, _PARTS, inputs=inputs)
      for kind in ("block", "grid") for name, inputs in (
          ("PartitionAttentionCl", _LAST), ("PartitionAttention2d", _MAP))),
    _block("PartitionAttentionCl", 32, "grid", _EVEN, 0.1, inputs=_LAST),
    _block("PartitionAttention2d", 32, cfg=_EVEN),
    _block("PartitionAttentionCl", 32, cfg=_attention(**_SIZES, rel_pos_type="mlp", rel_pos_dim=8), inputs=_LAST),
    _block("ParallelPartitionAttention", 32, _attention(window_size=(4, 3)), inputs=_LAST),
    _block("ParallelPartitionAttention", 64, _EVEN, 0.1, inputs=[(2, 8, 12, 64)]),
    _block("MaxxVitBlock", 32, 32, transformer_cfg=_PARTS),
    _block("MaxxVitBlock", 32, 64, 2, _NEXT, _attention(
        window_size=2, grid_size=(4, 3), use_nchw_attn=True, attn_bias=False), 0.1),
    _block("MaxxVitBlock", 32, 32, transformer_cfg=_attention(**_SIZES, no_block_attn=True)),
    _block("ParallelMaxxVitBlock", 32, 64, 2, transformer_cfg=_attention(window_size=2)),
    _block("ParallelMaxxVitBlock", 32, 32, 1, 1, _NEXT, _EVEN, 0.1),
    _block("ParallelMaxxVitBlock", 32, 32, 1, 4, transformer_cfg=_EVEN),
    _block("MaxxVitStage", 32, 48, drop_path=[0.0] * 4),
    _block("MaxxVitStage", 32, 64, 2, 3, (4, 6), ("C", "T", "M"), _attention(window_size=2), _conv(), [0.0, 0.1, 0.2]),
    _block("MaxxVitStage", 32, 32, 1, 3, (8, 12), ("T", "PM"), _attention(window_size=4), _NEXT, [0.0] * 3),
    # sizes
    *(_case(name, (_IMAGE, (2, 3))) for name in ("window_partition", "grid_partition")),
    *(_case(name, (_IMAGE.permute(0, 3, 1, 2), (2, 3))) for name in ("window_partition_nchw", "grid_partition_nchw")),
    *(_case(name, (_WINDOWS, (2, 3), (4, 6))) for name in ("window_reverse", "grid_reverse")),
    *(_case(name, (_WINDOWS.permute(0, 3, 1, 2).contiguous(), (2, 3), (4, 6)))
      for name in ("window_reverse_nchw", "grid_reverse_nchw")),
    *(_case("get_rel_pos_cls", (_attention(rel_pos_type=kind, rel_pos_dim=8), (2, 3)))
      for kind in ("bias", "bias_tf", "mlp", "")),
    *(_block("PartitionAttentionCl", 32, kind, From(_MAXXVIT + "cfg_window_size", cfg, (64, 96)).made, inputs=_LAST)
      for kind, cfg in (("block", _attention(partition_ratio=16)), ("grid", _PARTS))),
]
