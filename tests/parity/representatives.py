"""One small architecture for every type of block of every family: what the default test run compares dynamically.

{family: {architecture: arguments}}. The arguments go to both libraries: they cut depth where no small variant exists,
or choose the image's size. Whoever adds a family or a type of block adds a line; test_parity.py fails for a family
without one.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

from mvlib.layers import StdConv2d
from mvlib.models.byobnet import ByoBlockCfg
from mvlib.models.efficientnet_blocks import decode_arch_def

_SMALL = dict(depth=3, embed_dim=192, num_heads=3)
_VITAMIN = dict(  # both libraries' descriptions have these
    embed_cfg=SimpleNamespace(embed_dim=(16, 32, 48), depths=(1, 2, 1), stem_width=8), embed_dim=48, num_heads=3,
    img_size=64)
_SAM = dict(depth=2, embed_dim=48, num_heads=3, window_size=2, global_attn_indexes=(1,))
_RELPOS = dict(depth=2, embed_dim=48, num_heads=3, img_size=64)
_EVA = dict(depth=3, embed_dim=48, num_heads=3, img_size=64)
_TINY = dict(img_size=64, depths=(1, 1, 2, 1))
_ONE_BLOCK = dict(depths=(1, 1, 1, 1), width_factor=0.125)
_TWO_EACH = dict(block_config=(2, 2, 2, 2))
_COAT = dict(embed_dims=(16, 24, 32, 32), img_size=64)
_ONE_EACH = dict(layers=(1, 1, 1, 1))
_CHANNELS = (128, 256, 256, 256)
_SLIM = dict(_ONE_EACH, channels=(16, 32, 64, 128))
_NAFLEX = dict(depth=2, embed_dim=48, num_heads=3, pos_embed_grid_size=(4, 4))
_DEEPSEEK = dict(depth=3, embed_dim=48, num_heads=3, img_size=70)
_QWEN = dict(depth=3, embed_dim=48, num_heads=3, pos_embed_grid_size=5, img_size=64)
_GEMMA = dict(depth=3, embed_dim=48, num_heads=3, head_dim=16, intermediate_size=64, position_embedding_size=16,
              img_size=96)
_NARROW = dict(layer_per_block=2, block_per_stage=[1, 1, 1, 2], stage_conv_chs=[32] * 4, stage_out_chs=[64] * 4)
_FOUR_STAGES = dict(depth=(1, 1, 2, 1), out_chs=(16, 16, 32, 32), stem_out_chs=(8, 16))
_FIVE_STAGES = dict(depth=(1, 1, 1, 2, 1), out_chs=(16, 16, 16, 32, 32), stem_out_chs=8)
_DLA_CHANNELS = (8, 8, 16, 16, 32, 32)
_DPN = dict(k_sec=(1, 2, 1, 1), k_r=16, groups=4)



def _byob(kind: str, first_stride: int = 2, **kwargs: Any) -> tuple[ByoBlockCfg, ...]:
    """A block in each stage, two in the last; timm takes ours."""
    rows = ((1, 32, first_stride), (1, 32, 2), (1, 64, 2), (2, 128, 2))
    return tuple(ByoBlockCfg(kind, *row, **kwargs) for row in rows)


def _patches(kind: str) -> tuple[Any, ...]:
    """Bottlenecks, and behind the last of them a block of a small transformer."""
    options = dict(transformer_dim=32, transformer_depth=1, patch_size=2)
    *stages, last = _byob("bottle")
    return (*stages, (last, ByoBlockCfg(kind, 1, last.c, 1, block_kwargs=options)))


def _aligned(**last: Any) -> list[dict[str, Any]]:
    chs = ((64, 16, 2), (16, 16, 2), (16, 24, 2), (24, 24, 1), (24, (24, 32, 32), 2), (32, (32, 32, 48), 1))
    blocks = [dict(in_chs=a, out_chs=b, stride=stride) for a, b, stride in chs]
    return [*blocks[:-1], dict(blocks[-1], no_skip=True, **last)]


_BOTTLES = dict(blocks=_byob("bottle", 1, gs=8, br=0.5))
_ATTENTIVE = dict(blocks=_byob("self_attn", 1, br=0.5), img_size=64)
_DAVIT = dict(depths=(1, 1, 2, 1), embed_dims=(8, 16, 24, 32), num_heads=(1, 2, 3, 4))
_GCVIT = dict(depths=(2, 2, 2, 2), embed_dim=12, num_heads=(1, 2, 2, 4), img_size=64)
_FOCAL = dict(depths=(1, 1, 2, 1), embed_dim=8)
_META = dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
_LOWFORMER = dict(width_list=[8, 8, 16, 32, 64], depth_list=[0, 1, 1, 1, 2], head_widths=(48, 40))
_CROSSVIT = dict(img_size=48, embed_dim=(24, 48), num_heads=(2, 2), depth=((1, 2, 0), (1, 1, 0)))
_TNT = dict(depth=2, embed_dim=48, inner_dim=12, num_heads_outer=3, img_size=64)



class _Decoded(list):
    """Decoded block strings, a copy for each that reads them: timm's builder empties what it is given."""

    def __iter__(self):
        return iter(copy.deepcopy([*super().__iter__()]))


_MNV5 = dict(stem_size=8, block_args=_Decoded(decode_arch_def((
    ("er_r1_k3_s2_e4_c16",), ("uir_r1_a3_k5_s2_e6_c16", "uir_r1_a5_k0_s1_e4_c16"),
    ("uir_r1_a5_k5_s2_e6_c24", "mqa_r1_k3_h2_v2_s1_d8_c24", "uir_r1_a0_k0_s1_e2_c24"),
    ("uir_r1_a5_k5_s2_e6_c32", "mqa_r1_k3_h2_s1_d8_c32", "uir_r1_a0_k0_s1_e2_c32")))))

REPRESENTATIVES: dict[str, dict[str, dict[str, Any]]] = {
    "cait": {"cait_xxs24_224": dict(depth=2, embed_dim=64, img_size=64)},
    "coat": {
        "coat_lite_tiny": dict(_COAT, serial_depths=(1, 1, 1, 1)),
        "coat_tiny": dict(_COAT, serial_depths=(1, 1, 1, 1), parallel_depth=2, embed_dims=(16, 24, 24, 24)),
    },
    "convit": {"convit_tiny": dict(depth=3, local_up_to_layer=2, embed_dim=16, img_size=64)},
    "beit": {
        "beit_base_patch16_224": dict(embed_dim=64, depth=2, num_heads=2, img_size=64),
        "beitv2_base_patch16_224": dict(  # one bias for all blocks, positions, gated blocks
            embed_dim=64, depth=2, num_heads=2, img_size=64, use_rel_pos_bias=False, use_shared_rel_pos_bias=True,
            use_abs_pos_emb=True, swiglu_mlp=True, scale_mlp=True, global_pool="token"),
    },
    "byoanet": {
        "botnet26t_256": _ATTENTIVE,
        "halonet26t": dict(_ATTENTIVE, self_attn_kwargs=dict(block_size=2, halo_size=1)),
        "haloregnetz_b": dict(_ATTENTIVE, self_attn_kwargs=dict(block_size=2, halo_size=1, qk_ratio=0.33)),
        "lambda_resnet26t": _ATTENTIVE,
        "lambda_resnet26rpt_256": _ATTENTIVE,  # a table of relative positions
    },
    "byobnet": {
        "test_byobnet": {},  # a block of each residual type
        "repvgg_d2se": dict(blocks=_byob("rep", gs=4)),
        "mobileone_s0": dict(blocks=_byob("one", block_kwargs=dict(num_conv_branches=3))),
        "resnet51q": dict(_BOTTLES, block_kwargs=dict(extra_conv=True)),  # stem without all norms, last convolution
        "bat_resnext26ts": dict(_BOTTLES, attn_kwargs=dict(block_size=2)),
        "gcresnext26ts": _BOTTLES,
        "regnetz_d8_evos": dict(blocks=_byob("bottle", 1, br=2.0)),  # no shortcut where the shape changes
        "resnet50_clip": dict(_BOTTLES, img_size=64),  # pooling by attention
        "resnet50_mlp": _BOTTLES,  # hidden layer in the head
    },
    "convmixer": {
        "convmixer_768_32": dict(dim=16, depth=4),
        "convmixer_1536_20": dict(dim=16, depth=4),  # GELU
    },
    "convnext": {
        "test_convnext": {},
        "test_convnext2": dict(head_hidden_size=48),
        "test_convnext3": {},
        "convnext_atto": {},
        "convnext_atto_rms": {},
        "convnext_zepto_rms_ols": {},  # overlapping stem
        "convnext_atto_ols": {},
        "convnext_nano_ols": {},
        "convnext_tiny_hnf": {},  # norm before the head's pooling
        "convnextv2_atto": {},  # response norm
        "convnextv2_tiny": dict(depths=(1, 1, 1, 1)),
    },
    "cpubone": {
        "cpubone_nano": _LOWFORMER,
        "cpubone_b0_bfrobust": dict(_LOWFORMER, fused_conv=False, depth_list=[1, 1, 1, 1, 1]),  # norms in blocks
        "cpubone_b1_dwnorm": dict(_LOWFORMER, fused_conv=False, small_kernels=False, attn_upsample="transpose"),
    },
    "crossvit": {
        "crossvit_9_240": dict(_CROSSVIT, img_scale=(1.0, 32 / 48), patch_size=(12, 16)),
        "crossvit_9_dagger_240": dict(_CROSSVIT, img_scale=(1.0, 1.0), depth=((1, 2, 1), (1, 1, 0))),
    },
    "csatv2": {
        "csatv2": dict(dims=(8, 16, 24, 32), depths=(1, 1, 2, 2), transformer_depths=(0, 0, 1, 1)),
    },
    "cspnet": {
        "cs3darknet_s": _FOUR_STAGES,
        "cs3darknet_focus_s": dict(_FOUR_STAGES, stem_out_chs=8),
        "cspresnext50": dict(_FOUR_STAGES, out_chs=(64, 64, 64, 64)),  # bottlenecks
        "cspdarknet53": _FIVE_STAGES,
        "sedarknet21": _FIVE_STAGES,  # one path
        "darknetaa53": _FIVE_STAGES,  # pooled downsampling
        "cs3sedarknet_xdw": dict(_FOUR_STAGES, groups=(1, 1, 4, 8)),
        "cs3se_edgenet_x": _FOUR_STAGES,  # 3x3 convolution first
    },
    "cspnext": {"cspnext_tiny": dict(channels=(64, 64, 128, 128))},
    "davit": {
        "davit_tiny": _DAVIT,
        "davit_base_fl": dict(_DAVIT, window_size=4),  # channels' attention of another kind, named blocks
    },
    "deepseek_vit": {
        "deepseek_vit_412m": _DEEPSEEK,
        "deepseek_vit_412m_align": dict(_DEEPSEEK, out_features=40),
        "deepseek_vit_412m_enc": dict(_DEEPSEEK, out_features=40),
    },
    "deit": {
        "deit_tiny_patch16_224": _SMALL,
        "deit_tiny_distilled_patch16_224": _SMALL,
        "deit3_small_patch16_224": _SMALL,  # class token without position, layer scale
    },
    "densenet": {"densenet121": _TWO_EACH, "densenetblur121d": _TWO_EACH},
    "dla": {
        "dla46_c": dict(channels=_DLA_CHANNELS),  # bottlenecks
        "dla34": dict(channels=_DLA_CHANNELS),
        "dla102": dict(channels=_DLA_CHANNELS, levels=(1, 2, 1, 3, 1, 1)),  # shortcuts around roots, trees of trees
        "dla60_res2net": dict(channels=_DLA_CHANNELS, levels=(1, 1, 2, 1, 1, 1)),
        "dla60_res2next": dict(channels=(8, 16, 64, 64, 64, 64)),
    },
    "dpn": {
        "dpn68": _DPN,
        "dpn68b": _DPN,  # two convolutions at a block's end
        "dpn92": dict(_DPN, inc_sec=(4, 8, 8, 8)),
    },
    "edgenext": {
        "edgenext_xx_small": dict(dims=(16, 16, 24, 32), depths=(1, 2, 1, 1), heads=(2, 2, 2, 2)),
        "edgenext_small_rw": dict(dims=(8, 16, 32, 64), depths=(1, 2, 2, 2), heads=(2, 2, 2, 2)),
    },
    "efficientformer": {  # attention knows 7 x 7 tokens alone
        "efficientformer_l1": dict(depths=(1, 1, 1, 2), embed_dims=(8, 16, 16, 32), img_size=224)},
    "efficientformer_v2": {
        "efficientformerv2_s0": dict(
            depths=(1, 1, 1, 2), embed_dims=(8, 16, 16, 24), num_vit=1, mlp_ratios=2, img_size=64),
    },
    "efficientnet": {
        "test_efficientnet": {},
        "mnasnet_small": {},
        "semnasnet_050": {},  # squeeze-and-excitation
        "mobilenetv1_100h": {},
        "mobilenetv1_100": {},  # depthwise-separable blocks alone
        "mobilenetv2_035": {},
        "fbnetc_100": {},
        "tinynet_e": {},
        "efficientnet_lite0": {},
        "efficientnet_b0": {},
        "efficientnet_b0_gn": {},  # group norm
        "efficientnet_b0_g8_gn": {},  # grouped convolutions
        "efficientnet_blur_b0": {},  # anti-aliasing
        "efficientnet_es": {},  # edge residuals
        "efficientnet_cc_b0_4e": {},  # conditional convolutions
        "efficientnet_es_pruned": {},
        "efficientnetv2_rw_t": {},
        "tf_efficientnet_b0": {},  # TensorFlow's padding
        "tf_efficientnetv2_b0": {},
        "mixnet_s": {},
        "efficientnet_x_b3": {},
        "tf_efficientnet_cc_b0_4e": {},
        "gc_efficientnetv2_rw_t": {},
        "tf_mixnet_s": {},  # mixed kernels
        "mobilenet_edgetpu_v2_xs": {},
        "test_efficientnet_gn": {},
        "test_efficientnet_ln": {},
        "test_efficientnet_evos": {},
    },
    "efficientvim": {
        "efficientvim_m1": dict(embed_dim=(16, 24, 32), depths=(1, 1, 2), state_dim=(5, 4, 3)),
        "efficientvim_m1_dist": dict(embed_dim=(16, 24, 32), depths=(1, 1, 1), state_dim=(5, 4, 3)),
    },
    "efficientvit_mit": {
        "efficientvit_b0": dict(widths=(8, 8, 16, 16, 32), depths=(1, 1, 2, 1, 1), head_widths=(32, 48)),
        "efficientvit_l1": dict(widths=(8, 8, 16, 32, 32), depths=(1, 1, 1, 1, 1), head_widths=(32, 48)),
    },
    "efficientvit_msra": {"efficientvit_m0": dict(embed_dim=(16, 32, 48), num_heads=(2, 2, 3), depth=(1, 1, 1))},
    "eva": {
        "eva02_tiny_patch14_224": dict(_EVA, img_size=56),
        "eva_giant_patch14_224": dict(_EVA, img_size=56, mlp_ratio=2),  # learned positions alone
        "eva02_base_patch16_clip_224": _EVA,  # separate projections, norms inside
        "eva02_enormous_patch14_clip_224": dict(_EVA, img_size=56, mlp_ratio=2),  # norms behind
        "vit_mediumd_patch16_rope_reg1_gap_256": _EVA,
        "vit_pe_core_tiny_patch16_384": dict(_EVA, attn_pool_num_heads=3),  # pooling by attention
        "vit_pe_spatial_gigantic_patch14_448": dict(_EVA, img_size=56, mlp_ratio=2),  # no final norm
        "vit_small_patch16_rope_224": _EVA,
        "vit_small_patch16_rope_mixed_ape_224": _EVA,  # learned frequencies of each block and head
        "vit_small_plus_patch16_dinov3_qkvb": _EVA,
        "vit_large_patch16_sapiens2": dict(_EVA, num_kv_heads=(3, 1, 3)),  # heads in groups
    },
    "fasternet": {"fasternet_t0": dict(embed_dim=16, depths=(1, 1, 2, 1), feature_dim=64)},
    "fastvit": {
        "fastvit_t8": dict(layers=(2, 1), embed_dims=(16, 32)),
        "fastvit_sa12": dict(layers=(1, 1), embed_dims=(16, 32), token_mixers=("repmixer", "attention"),
                             pos_embs=(None, None)),
        "fastvit_mci0": dict(layers=(1, 1), embed_dims=(16, 32), se_downsamples=(False, True)),
        "fastvit_mci3": dict(layers=(1, 1), embed_dims=(32, 64), token_mixers=("repmixer", "attention")),  # layer norm
    },
    "focalnet": {
        "focalnet_tiny_srf": _FOCAL,
        "focalnet_large_fl4": _FOCAL,  # norms behind, layer scale
        "focalnet_huge_fl3": dict(_FOCAL, head_hidden_size=20),  # norms in the modulation, too
    },
    "gcvit": {
        "gcvit_xxtiny": _GCVIT,
        "gcvit_small": dict(_GCVIT, num_heads=(1, 2, 3, 4)),  # layer scale
    },
    "gemma4_vit": {
        "gemma4_vit_167m": _GEMMA,
        "gemma4_vit_167m_enc": _GEMMA,  # blocks of patches are pooled
        "gemma4_vit_570m_enc": dict(_GEMMA, num_kv_heads=1),  # what is pooled is standardised
    },
    "ghostnet": {
        "ghostnet_050": {},
        "ghostnetv2_100": {},  # attention
        "ghostnetv3_050": {},  # branches
    },
    "hardcorenas": {"hardcorenas_a": {}},
    "hgnet": {
        "hgnetv2_b0": {},  # light blocks, affine maps
        "hgnet_tiny": {},
    },
    "hiera": {
        "hiera_tiny_224": dict(stages=(1, 1, 2, 1), embed_dim=24, img_size=64),
        "hiera_small_abswin_256": dict(stages=(1, 1, 1, 1), embed_dim=24, img_size=64),  # shortcuts without layers
    },
    "hieradet_sam2": {
        "sam2_hiera_tiny": dict(stages=(1, 1, 2, 1), embed_dim=24, global_att_blocks=(3,)),
        "hieradet_small": dict(stages=(1, 1, 2, 1), embed_dim=24, global_att_blocks=(3,)),  # layer scale
    },
    "hrnet": {"hrnet_w18_small": {}},
    "iformer": {
        "iformer_t": dict(dims=(8, 16, 24, 32), depths=(1, 1, 4, 3), attn_groups=(0, 0, 1, 1)),
        "iformer_m_distilled": dict(dims=(8, 16, 24, 32), depths=(1, 1, 4, 3), attn_groups=(0, 0, 1, 1),
                                    layer_scale_init_value=0.1),
    },
    "inception_next": {"inception_next_atto": dict(depths=(1, 1, 2, 1), dims=(16, 24, 32, 40))},
    "inception_resnet_v2": {"inception_resnet_v2": {}},
    "inception_v3": {"inception_v3": {}},
    "inception_v4": {"inception_v4": {}},
    "lcnetv2": {"lcnetv2_small": dict(scale=0.25, depths=(1, 1, 2, 2))},
    "levit": {
        "levit_128s": dict(depth=(1, 1, 1), img_size=64),
        "levit_conv_128s": dict(depth=(1, 1, 1), img_size=64),  # convolutions on maps
        "levit_256d": dict(depth=(1, 1, 1), img_size=64, embed_dim=(64, 96, 128)),  # one classifier
    },
    "lowformer": {
        "lowformer_b0": dict(_LOWFORMER, fused_conv=False),
        "lowformer_b3": dict(_LOWFORMER, depth_list=[1, 2, 0, 1, 1]),  # fused convolutions
        "lowformer_e1": _LOWFORMER,  # no attention
        "lowformer_e3": _LOWFORMER,  # no MLPs
    },
    "mambaout": {
        "test_mambaout": dict(depths=(1, 1, 2, 1)),
        "mambaout_femto": dict(depths=(1, 1, 1, 1), dims=(16, 24, 32, 40)),
    },
    "maxxvit": {
        "test_maxvit": dict(img_size=64),
        "test_coatnet": dict(img_size=64),
        "coatnet_0_rw_224": _TINY,
        "coatnet_bn_0_rw_224": _TINY,
        "coatnet_nano_cc_224": dict(img_size=64, depths=(1, 1, 2, 2)),
        "coatnext_nano_rw_224": _TINY,
        "coatnet_0_224": _TINY,  # hidden layer in the head
        "maxvit_rmlp_pico_rw_256": _TINY,  # relative positions by an MLP
        "maxvit_tiny_pm_256": _TINY,
        "maxxvitv2_nano_rw_256": _TINY,
        "maxvit_tiny_tf_224": dict(img_size=96, depths=(1, 1, 2, 1)),
    },
    "metaformer": {
        "poolformer_s12": _META,
        "poolformerv2_s12": _META,
        "convformer_s18": _META,
        "caformer_s18": dict(_META, head_dim=8),
    },
    "mlp_mixer": {
        "mixer_s32_224": dict(img_size=64, mlp_ratio=(0.125, 0.5)),
        "gmixer_12_224": dict(img_size=64),  # gated linear units
        "resmlp_12_224": dict(img_size=64),
        "gmlp_ti16_224": dict(img_size=64),
    },
    "mobilenetv3": {
        "mobilenetv3_small_050": {},
        "tf_mobilenetv3_small_075": {},
        "tf_mobilenetv3_small_minimal_100": {},
        "mobilenetv3_rw": {},
        "fbnetv3_b": {},
        "lcnet_035": {},
        "mobilenetv4_conv_small_035": {},
        "mobilenetv4_conv_blur_medium": {},
        "mobilenetv4_conv_aa_medium": {},
        "mobilenetv4_hybrid_medium_075": {},
    },
    "mobilenetv5": {"mobilenetv5_base": dict(_MNV5, num_features=64), "mobilenetv5_300m_enc": _MNV5,
                    "mobilenetv5_300m": dict(_MNV5, num_features=64, use_msfa=False)},
    "mobilevit": {
        "mobilevit_xxs": dict(blocks=_patches("mobilevit"), num_features=48),
        "mobilevitv2_050": dict(blocks=_patches("mobilevit2")),
    },
    "mvitv2": {"mvitv2_tiny": dict(img_size=64), "mvitv2_small_cls": dict(img_size=64)},  # class token
    "naflexvit": {
        "naflexvit_base_patch16_map": _NAFLEX,
        "naflexvit_base_patch16_gap": _NAFLEX,
        "naflexvit_base_patch16_par_gap": dict(  # positions resampled by what ONNX has, too
            _NAFLEX, pos_embed_grid_size=(5, 3), pos_embed_interp_mode="bilinear", pos_embed_antialias=False),
        "naflexvit_base_patch16_parfac_gap": dict(_NAFLEX, pos_embed_grid_size=(5, 3)),
        "naflexvit_base_patch16_radio_v3": dict(_NAFLEX, pos_embed_grid_size=(6, 6), rope_type="mixed"),
        "naflexvit_base_patch16_siglip": dict(
            _NAFLEX, rope_type="axial", swiglu_mlp=True, pos_embed="none", embed_proj_type="conv", pre_norm=True),
    },
    "nasnet": {"nasnetalarge": {}},
    "nest": {
        "nest_tiny": dict(img_size=32, mlp_ratio=0.25),
        "nest_tiny_jx": dict(img_size=32, mlp_ratio=0.25),  # TensorFlow's padding
    },
    "nextvit": {"nextvit_small": dict(depths=(1, 2, 5, 2))},
    "nfnet": {
        "test_nfnet": {},
        "dm_nfnet_f0": dict(_ONE_BLOCK, group_size=16),  # scaled activations and branches, TensorFlow's padding
        "nf_regnet_b0": dict(depths=(1, 1, 1, 1)),  # attention within the branch
        "nf_seresnet26": _ONE_BLOCK,
        "nf_ecaresnet26": _ONE_BLOCK,
    },
    "pit": {
        "pit_ti_224": dict(depth=(1, 1, 1), img_size=64),
        "pit_ti_distilled_224": dict(depth=(1, 1, 2), img_size=64),
    },
    "pnasnet": {"pnasnet5large": {}},
    "pvt_v2": {
        "pvt_v2_b0": dict(depths=(2, 1, 1, 1), embed_dims=(16, 16, 20, 32)),
        "pvt_v2_b2_li": dict(depths=(2, 1, 1, 1), embed_dims=(16, 16, 20, 32)),  # linear attention
    },
    "qwen3_vit": {
        "qwen3_vit_88m": _QWEN,
        "qwen3_vit_88m_merge": dict(_QWEN, out_features=40),
        "qwen3_vit_88m_enc": dict(_QWEN, out_features=40),
    },
    "rdnet": {"rdnet_tiny": dict(num_init_features=16, growth_rates=(8,) * 7, num_blocks_list=(1, 2, 1, 1, 1, 1, 1))},
    "regnet": {
        "regnetx_002": {},
        "regnety_002": {},  # squeeze-and-excitation
        "regnetx_004_tv": {},  # torchvision's rounding
        "regnety_040_sgn": {},
        "regnetz_005": {},  # no shortcut convolution, last convolution
        "regnetv_040": {},  # activation before convolution
        "regnetv_064": {},
    },
    "repghost": {"repghostnet_050": {}},
    "repvit": {
        "repvit_m0_9": dict(embed_dim=(16, 24, 32), depth=(2, 1, 1), distillation=False),
        "repvit_m1": dict(embed_dim=(16, 24), depth=(1, 1)),  # norms within branches
    },
    "res2net": {
        "res2net50_48w_2s": _SLIM,
        "res2net50_26w_4s": dict(_SLIM, layers=(2, 1, 1, 1)),  # splits that read one another
        "res2net50d": _SLIM,
        "res2next50": _SLIM,  # groups
    },
    "resnest": {
        "resnest14d": _SLIM,
        "resnest50d_4s2x40d": dict(_ONE_EACH, channels=(32, 32, 64, 64)),  # groups, pool before the convolution
        "resnest50d_1s4x24d": _SLIM,  # one split
    },
    "resnet": {
        "resnet18": {},  # basic blocks
        "resnet26": {},  # bottlenecks
        "resnet14t": {},  # tiered deep stem
        "resnet26d": {},  # deep stem, average-pooled shortcut
        "resnet50c": _ONE_EACH,
        "resnet50s": _ONE_EACH,
        "resnet50_gn": _ONE_EACH,
        "resnext50_32x4d": _ONE_EACH,  # grouped convolutions
        "wide_resnet50_2": _ONE_EACH,
        "seresnet18": {},
        "seresnext26d_32x4d": {},
        "seresnetaa50d": _ONE_EACH,
        "ecaresnet26t": {},
        "ecaresnetlight": _ONE_EACH,
        "ecaresnet50d_pruned": {},
        "resnetaa34d": _ONE_EACH,  # anti-aliasing by average pooling
        "resnetblur18": {},
        "resnetblur50d": _ONE_EACH,
        "senet154": _ONE_EACH,
        "resnetrs50": _ONE_EACH,
        "test_resnet": {},
    },
    "resnetv2": {
        "resnetv2_18": dict(_ONE_EACH, channels=(32, 64, 96, 128)),
        "resnetv2_50": dict(  # BiT's standardised kernels, group norm and padding: timm's function fixes its depths
            _ONE_EACH, channels=_CHANNELS, conv_layer=StdConv2d, norm_layer="groupnorm", stem_type="fixed"),
        "resnetv2_50t": dict(_ONE_EACH, channels=_CHANNELS),  # deep stem, pooled shortcuts
        "resnetv2_50d_evos": dict(_ONE_EACH, channels=_CHANNELS),
        "resnetv2_50d_frn": dict(_ONE_EACH, channels=_CHANNELS),
    },
    "selecsls": {"selecsls42b": {}},
    "senet": {
        "legacy_seresnet18": _ONE_EACH,
        "legacy_seresnet50": _ONE_EACH,  # bottlenecks
        "legacy_seresnext26_32x4d": _ONE_EACH,  # groups
        "legacy_senet154": _ONE_EACH,  # deep stem, 3x3 shortcuts
    },
    "sequencer": {"sequencer2d_s": dict(layers=(1, 1, 2, 1), embed_dims=(16, 24, 24, 32), hidden_sizes=(4, 8, 8, 8))},
    "shvit": {"shvit_s1": dict(embed_dim=(16, 24, 32), partial_dim=(8, 8, 12), depth=(1, 2, 1))},
    "sknet": {
        "skresnet18": _SLIM,
        "skresnet50d": _SLIM,  # bottlenecks
        "skresnext50_32x4d": _SLIM,  # each kernel reads all channels
    },
    "rexnet": {"rexnet_100": {}, "rexnetr_100": {}},
    "starnet": {"starnet_s050": dict(depths=(1, 1, 2, 1), base_dim=8)},
    "swiftformer": {"swiftformer_xs": dict(layers=(1, 2, 1, 1), embed_dims=(16, 16, 24, 32), img_size=64)},
    "swin_transformer": {
        "swin_tiny_patch4_window7_224": dict(depths=(1, 2, 1, 1), img_size=112),
        "swin_s3_tiny_224": dict(depths=(1, 2, 2, 2), img_size=224),  # the smallest image that its windows of 14 fit
    },
    "swin_transformer_v2": {
        "swinv2_tiny_window8_256": dict(depths=(1, 2, 1, 1), img_size=128),
        "swinv2_base_window12to16_192to256": dict(depths=(2, 1, 1, 1), embed_dim=48, num_heads=(2, 4, 8, 16)),
    },
    "tiny_vit": {"tiny_vit_5m_224": dict(embed_dims=(16, 32, 32, 48), num_heads=(1, 2, 2, 3), depths=(1, 1, 1, 1))},
    "swin_transformer_v2_cr": {
        "swinv2_cr_tiny_224": dict(depths=(1, 2, 1, 1), embed_dim=24, img_size=96, window_size=4),
        "swinv2_cr_huge_224": dict(
            depths=(2, 2, 1, 1), embed_dim=32, num_heads=(2, 2, 4, 4), img_size=64, extra_norm_period=2),
    },
    "twins": {
        "twins_svt_small": dict(img_size=64, embed_dims=(16, 16, 32), num_heads=(2, 2, 2), mlp_ratios=(2, 2, 2),
                                depths=(2, 1, 1), sr_ratios=(8, 4, 2), wss=(7, 7, 7)),
        "twins_pcpvt_small": dict(img_size=32, depths=(1, 1, 1, 1)),  # no windows
    },
    "tnt": {
        "tnt_s_patch16_224": _TNT,
        "tnt_s_legacy_patch16_224": _TNT,  # patches cut out of the embedded image
    },
    "tresnet": {
        "tresnet_m": dict(_ONE_EACH, width_factor=0.25),
        "tresnet_v2_l": dict(_ONE_EACH, width_factor=0.25),  # bottlenecks alone
    },
    "vgg": {"vgg11": dict(mlp_ratio=0.0625), "vgg11_bn": dict(mlp_ratio=0.0625)},
    "vision_transformer": {
        "vit_tiny_patch16_224": _SMALL,
        "vit_base_patch16_224_miil": _SMALL,
        "vit_base_patch16_rpn_224": _SMALL,  # norm after attention and MLP
        "vit_base_patch16_xp_224": _SMALL,
        "vit_base_patch16_clip_224": _SMALL,  # norm before the blocks
        "vit_base_patch16_clip_quickgelu_224": _SMALL,
        "vit_base_patch16_siglip_224": _SMALL,  # attention pooling
        "vit_base_patch16_siglip_gap_224": _SMALL,
        "vit_base_patch16_radio_v3": _SMALL,
        "vit_base_patch14_reg1_tipsv2": _SMALL,
        "vit_medium_patch16_gap_240": _SMALL,
        "vit_small_patch14_dinov2": _SMALL,
        "vit_small_patch14_reg4_dinov2": _SMALL,  # register tokens
        "vit_giant_patch14_dinov2": _SMALL,  # SwiGLU
        "vit_small_patch16_18x2_224": _SMALL,  # parallel residual branches
        "vit_pwee_patch16_reg1_gap_256": _SMALL,  # attention and MLP in parallel
        "vit_dwee_patch16_reg1_gap_256": _SMALL,  # differential attention
        "vit_dpwee_patch16_reg1_gap_256": _SMALL,
        "vit_so150m_patch16_reg4_map_256": _SMALL,
        "vit_so150m2_patch16_reg1_gap_256": _SMALL,
        "vit_intern300m_patch14_448": {**_SMALL, "img_size": 112},
        "beit3_base_patch16_224": _SMALL,
        "flexivit_small": _SMALL,
        "test_vit": {},
        "test_vit2": {},
        "test_vit3": {},
        "test_vit4": {},
    },
    "vision_transformer_hybrid": {
        "vit_tiny_r_s16_p8_224": dict(_SMALL, depth=2, img_size=64),  # a stem alone
        "vit_base_r26_s32_224": dict(_SMALL, depth=2, img_size=64),
        "vit_small_resnet50d_s16_224": dict(_SMALL, depth=2, img_size=64),  # three stages of ResNet-D
        "vit_base_mci_224": dict(depth=2, img_size=64),  # MobileCLIP's convolutions
    },
    "vision_transformer_relpos": {
        "vit_relpos_small_patch16_224": _RELPOS,
        "vit_srelpos_small_patch16_224": _RELPOS,  # one bias for all blocks
        "vit_relpos_medium_patch16_cls_224": _RELPOS,
        "vit_relpos_base_patch16_clsgap_224": dict(_RELPOS, rel_pos_type="bias", qk_norm=True),  # a table
        "vit_relpos_small_patch16_rpn_224": dict(_RELPOS, rel_pos_type="mlp-swin"),  # norms behind
    },
    "vision_transformer_sam": {
        "samvit_base_patch16": dict(_SAM, img_size=80),  # windows that are padded, the neck
        "samvit_base_patch16_224": dict(_SAM, img_size=64, qk_norm=True, init_values=1e-2),
        "samvit_large_patch16": dict(  # rotary embeddings, another head
            _SAM, img_size=64, use_rel_pos=False, use_rope=True, head_hidden_size=32, pre_norm=True),
    },
    "visformer": {"visformer_tiny": dict(img_size=64, depth=(1, 1, 1), embed_dim=48)},
    "vitamin": {
        "vitamin_small_224": dict(_VITAMIN, depth=2),
        "vitamin_xlarge_256": dict(_VITAMIN, depth=2),  # no positions
    },
    "vovnet": {
        "ese_vovnet39b": _NARROW,
        "vovnet39a": _NARROW,  # no shortcuts
        "ese_vovnet19b_slim_dw": {},  # separable convolutions
        "ese_vovnet39b_evos": _NARROW,
    },
    "xception": {"legacy_xception": {}},
    "xception_aligned": {
        "xception41": dict(block_cfg=_aligned(start_with_relu=False)),
        "xception41p": dict(block_cfg=_aligned()),  # norm and activation in front
    },
    "volo": {"volo_d1_224": dict(layers=(1, 1, 1, 1), embed_dims=(16, 32, 32, 32), num_heads=(1, 2, 2, 2), img_size=64,
                                 stem_hidden_dim=8)},
    "xcit": {
        "xcit_nano_12_p16_224": dict(depth=2, embed_dim=64, img_size=64),
        "xcit_tiny_12_p8_224": dict(depth=2, embed_dim=64, img_size=64),  # norm of all tokens
    },
    # torchvision's alone
    "alexnet": {"alexnet": {}},
    "googlenet": {"googlenet": dict(transform_input=False)},
    "shufflenetv2": {"shufflenet_v2_x0_5": {}},
    "squeezenet": {"squeezenet1_1": {}},
}
FIRST = {family: next(iter(members)) for family, members in REPRESENTATIVES.items()}
# Nothing makes these small: the default run has their keys, and what their own files test of their blocks.
LARGE = ("inception_resnet_v2", "inception_v4", "nasnet", "pnasnet", "xception")
DEFAULT = [name for family, name in FIRST.items() if family not in LARGE]
