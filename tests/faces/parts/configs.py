"""Classes that take a config."""

from torch import nn

from .case import Case, From

_MVIT = dict(depths=(1, 1, 2, 1), embed_dim=8)
_HEAD = dict(num_classes=3)


def _made(path, *args, **kwargs):
    return From(f"models.{path}", *args, **kwargs).made


def _byob(*blocks, **kwargs):
    return _made("byobnet.ByoModelCfg", blocks=blocks, **kwargs)


def _block(*args, **kwargs):
    return _made("byobnet.ByoBlockCfg", *args, **kwargs)


_BLOCKS = (_block("bottle", 2, 16, s=1, gs=8, br=0.5),
           (_block("basic", 1, 24, attn_layer="eca"), _block(type="edge", d=1, c=24, s=1, br=2.0)))
_HALO = dict(self_attn_layer="halo", self_attn_kwargs=dict(block_size=2, halo_size=1))
_REGNET = dict(depth=6, w0=8, wa=9.0, wm=2.0, group_size=4, stem_width=8)
_CSP = _made("cspnet.CspModelCfg", stem=_made("cspnet.CspStemCfg", out_chs=(8, 16), stride=4, pool="max"),
             stages=_made("cspnet.CspStagesCfg", depth=(1, 2), out_chs=(16, 32), stride=(1, 2), expand_ratio=2.0,
                          attn_layer="se", cross_linear=True))
_MAXXVIT = dict(embed_dim=(32, 64), depths=(1, 1), block_type=("M", ("C", "T")), stem_width=8)
_NF = _made("nfnet.NfCfg", depths=(1, 1, 1, 2), channels=(8, 8, 16, 16), attn_layer="se", attn_kwargs={}, group_size=4)
_VOV = dict(stem_chs=[8, 8, 16], stage_conv_chs=[8] * 4, stage_out_chs=[16, 16, 24, 32], layer_per_block=2,
            block_per_stage=[1, 1, 1, 2], residual=True, depthwise=False, attn="ese")


def _stage(modules, block, blocks, channels):
    return dict(num_modules=modules, num_branches=len(blocks), block_type=block, num_blocks=blocks,
                num_channels=channels, fuse_method="SUM")


_HRNET = dict(
    stem_width=64, stage1=_stage(1, "BOTTLENECK", (1,), (16,)), stage2=_stage(1, "BASIC", (1, 1), (4, 8)),
    stage3=_stage(2, "BASIC", (1, 1, 1), (4, 8, 16)), stage4=_stage(1, "BASIC", (1,) * 4, (4, 8, 16, 32)))
_SELECSLS = dict(
    block=From("models.selecsls.SelecSlsBlock"), num_features=40,
    features=[(32, 0, 16, 16, True, 2), (16, 16, 16, 24, False, 1), (24, 0, 24, 32, True, 2)],
    head=[(32, 32, 3, 2), (32, 40, 3, 1)], feature_info=[dict(num_chs=32, reduction=2, module="stem.2")])

CASES = [
    Case("models.byobnet.ByobNet", (_byob(*_BLOCKS, stem_chs=8), 3), {}, [(2, 3, 32, 32)]),
    Case("models.ByobNet", (), dict(_HEAD, cfg=_byob(
        _block("dark", 1, 16, block_kwargs=dict(attn_last=False)), _block("self_attn", 1, 32, br=0.5, **_HALO),
        downsample="avg", stem_type="tiered", stem_pool="", act_layer="silu", num_features=48, head_type="mlp",
        head_hidden_size=8, attn_layer="se")), [(2, 3, 64, 64)]),
    Case("models.ByobNet", (_byob(*_BLOCKS, stem_type="deep"),),
         dict(width_factor=0.5, stem_pool="avg2", output_stride=8, in_chans=1), [(2, 1, 32, 32)]),
    Case("models.cspnet.CspNet", (_CSP, 3, 3), {}, [(2, 3, 64, 64)]),
    Case("models.cspnet.CspNet", (_CSP,), dict(_HEAD, act_layer="relu", stem=_made("cspnet.CspStemCfg", 8)),
         [(2, 3, 64, 64)]),
    Case("models.maxxvit.MaxxVit", (_made("maxxvit.MaxxVitCfg", **_MAXXVIT), 64), dict(
        _HEAD, conv_attn_ratio=0.5, transformer_rel_pos_type="mlp"), [(2, 3, 64, 64)], init=False),  # few biases
    Case("models.MaxxVit", (_made("MaxxVitCfg", **_MAXXVIT, head_hidden_size=16, conv_cfg=_made(
        "MaxxVitConvCfg", "convnext", stride_mode="pool"), transformer_cfg=_made(
            "MaxxVitTransformerCfg", 16, window_size=4, init_values=1e-3)), 64), _HEAD, [(2, 3, 64, 64)]),
    Case("models.mvitv2.MultiScaleVit", (_made("mvitv2.MultiScaleVitCfg", **_MVIT), 64), {}, [(2, 3, 64, 64)]),
    Case("models.MultiScaleVit", (_made(
        "MultiScaleVitCfg", **_MVIT, use_cls_token=True, use_abs_pos=True, expand_attn=False, stride_kv_adaptive=(2, 2),
        residual_pooling=False, mode="avg", act_layer="relu"), 64, 1), dict(global_pool="avg", num_classes=5),
        [(2, 1, 64, 64)]),
    Case("models.nfnet.NormFreeNet", (_NF, 3), {}, [(2, 3, 64, 64)]),
    Case("models.nfnet.NormFreeNet", (_NF,), dict(_HEAD, act_layer="relu", reg=True, width_factor=2.0, num_features=24),
         [(2, 3, 64, 64)]),
    Case("models.regnet.RegNet", (_made("regnet.RegNetCfg", **_REGNET), 3, 3), {}, [(2, 3, 64, 64)]),
    Case("models.RegNet", (_made("RegNetCfg", **_REGNET),), dict(_HEAD, preact=True, se_ratio=0.25), [(2, 3, 64, 64)]),
    Case("models.vovnet.VovNet", (_VOV, 3, 3), {}, [(2, 3, 64, 64)], other_defaults="norm_layer act_layer"),
    Case("models.VovNet", (_VOV,), dict(_HEAD, depthwise=True, residual=False, attn="eca", act_layer=nn.SiLU),
         [(2, 3, 64, 64)], other_defaults="norm_layer act_layer"),
    Case("models.hrnet.HighResolutionNet", (_HRNET, 3, 3), dict(head_conv_bias=False), [(2, 3, 64, 64)]),
    Case("models.selecsls.SelecSls", (_SELECSLS, 3), {}, [(2, 3, 64, 64)]),
    *(Case(path, other_defaults=other, **kwargs) for path, other, kwargs in (
        ("models.byobnet.ByoBlockCfg", "", dict(args=("bottle", 1, 8, 2, None))),
        ("models.byobnet.ByoModelCfg", "", dict(args=((),))),
        ("models.cspnet.CspStemCfg", "", {}),
        ("models.cspnet.CspStagesCfg", "", dict(kwargs=dict(depth=(1, 1, 1), out_chs=(8, 8, 8), stride=(1, 2)))),
        ("models.mvitv2.MultiScaleVitCfg", "", {}),
        ("models.nfnet.NfCfg", "", dict(args=((1, 2), (3, 4)))),
        ("models.regnet.RegNetCfg", "", {}),
    )),
]
