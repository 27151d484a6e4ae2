"""`timm.layers`. Imports no torch."""

from __future__ import annotations

from .core import FLAGS as _FLAGS

NAMES: dict[str, dict[str, str]] = {
    "layers": {"mvlib.layers.fx": "_float_to_int", "torch": "_assert"},
    "layers._fx": {
        "mvlib.layers.fx": "create_feature_extractor get_graph_node_names get_notrace_functions get_notrace_modules "
                           "is_notrace_function is_notrace_module register_notrace_function register_notrace_module",
        _FLAGS: "has_fx_feature_extraction",
    },
    "layers.activations": {
        "mvlib.layers.activations": "gelu GELU gelu_tanh GELUTanh hard_mish hard_sigmoid hard_swish HardMish "
                                    "HardSigmoid HardSwish mish Mish PReLU quick_gelu QuickGELU sigmoid Sigmoid swish "
                                    "Swish tanh Tanh",
    },
    "layers.activations_me": {
        "mvlib.layers.activations": "hard_mish_me=hard_mish hard_sigmoid_me=hard_sigmoid hard_swish_me=hard_swish "
                                    "HardMishMe=HardMish HardSigmoidMe=HardSigmoid HardSwishMe=HardSwish mish_me=mish "
                                    "MishMe=Mish swish_me=swish SwishMe=Swish",
    },
    "layers.adaptive_avgmax_pool": {
        "mvlib.layers.pool": "adaptive_avgmax_pool2d adaptive_catavgmax_pool2d adaptive_pool_feat_mult "
                             "AdaptiveAvgMaxPool2d AdaptiveCatAvgMaxPool2d FastAdaptiveAvgMaxPool FastAdaptiveAvgPool "
                             "FastAdaptiveCatAvgMaxPool FastAdaptiveMaxPool select_adaptive_pool2d "
                             "SelectAdaptivePool2d",
    },
    "layers.attention": {"mvlib.layers.attention": "Attention AttentionRope maybe_add_mask resolve_self_attn_mask"},
    "layers.attention2d": {"mvlib.layers.attention2d": "Attention2d MultiQueryAttention2d MultiQueryAttentionV2"},
    "layers.attention_pool": {"mvlib.layers.attention_pool": "AttentionPoolLatent AttentionPoolPrr"},
    "layers.attention_pool2d": {"mvlib.layers.attention_pool2d": "AttentionPool2d RotAttentionPool2d"},
    "layers.blur_pool": {"mvlib.layers.blur_pool": "BlurPool2d create_aa"},
    "layers.bottleneck_attn": {"mvlib.layers.self_attention2d": "BottleneckAttn"},
    "layers.cbam": {
        "mvlib.layers.feature_attention": "CbamModule ChannelAttn LightCbamModule LightChannelAttn LightSpatialAttn "
                                          "SpatialAttn",
    },
    "layers.classifier": {
        "mvlib.layers.classifier": "ClNormMlpClassifierHead create_classifier",
        "mvlib.layers.pool": "ClassifierHead NormMlpClassifierHead",
    },
    "layers.cond_conv2d": {"mvlib.layers.conv": "CondConv2d get_condconv_initializer"},
    "layers.config": {
        "mvlib.layers.config": "is_exportable is_no_jit is_scriptable set_exportable set_fused_attn set_layer_config "
                               "set_no_jit set_reentrant_ckpt set_scriptable use_fused_attn use_reentrant_ckpt",
    },
    "layers.conv2d_same": {"mvlib.layers.conv": "conv2d_same Conv2dSame create_conv2d_pad"},
    "layers.conv_bn_act": {"mvlib.layers.conv": "ConvBnAct ConvNormAct ConvNormActAa=ConvNormAct"},
    "layers.coord_attn": {"mvlib.layers.coord_attention": "CoordAttn EfficientLocalAttn SimpleCoordAttn StripAttn"},
    "layers.create_act": {"mvlib.layers.activations": "create_act_layer get_act_fn get_act_layer"},
    "layers.create_attn": {"mvlib.layers.channel_attention": "create_attn get_attn"},
    "layers.create_conv2d": {"mvlib.layers.conv": "create_conv2d"},
    "layers.create_norm": {"mvlib.layers.norm": "create_norm_layer get_norm_layer"},
    "layers.create_norm_act": {"mvlib.layers.norm": "create_norm_act_layer get_norm_act_layer"},
    "layers.diff_attention": {"mvlib.layers.attention": "DiffAttention"},
    "layers.drop": {"mvlib.layers.drop": "calculate_drop_path_rates drop_block_2d drop_path DropBlock2d DropPath"},
    "layers.eca": {
        "mvlib.layers.channel_attention": "CecaModule CircularEfficientChannelAttn EcaModule EfficientChannelAttn",
    },
    "layers.evo_norm": {
        "mvlib.layers.evo_norm": "EvoNorm2dB0 EvoNorm2dB1 EvoNorm2dB2 EvoNorm2dS0 EvoNorm2dS0a EvoNorm2dS1 "
                                 "EvoNorm2dS1a EvoNorm2dS2 EvoNorm2dS2a group_rms group_std instance_rms instance_std "
                                 "manual_var",
    },
    "layers.fast_norm": {
        "mvlib.layers.fast_norm": "fast_group_norm fast_layer_norm fast_rms_norm fast_rms_norm2d fast_simple_norm "
                                  "get_autocast_dtype is_autocast_enabled is_fast_norm rms_norm rms_norm2d "
                                  "set_fast_norm simple_norm",
        _FLAGS: "has_apex has_apex_rmsnorm has_torch_rms_norm",
    },
    "layers.filter_response_norm": {
        "mvlib.layers.norm": "FilterResponseNormAct2d FilterResponseNormTlu2d inv_instance_rms",
    },
    "layers.format": {"mvlib.layers.format": "Format FormatT get_channel_dim get_spatial_dim nchw_to nhwc_to"},
    "layers.gather_excite": {"mvlib.layers.feature_attention": "GatherExcite"},
    "layers.global_context": {"mvlib.layers.channel_attention": "GlobalContext"},
    "layers.grid": {"mvlib.layers.helpers": "meshgrid ndgrid"},
    "layers.grn": {"mvlib.layers.grn": "GlobalResponseNorm"},
    "layers.halo_attn": {"mvlib.layers.self_attention2d": "HaloAttn"},
    "layers.helpers": {
        "mvlib.layers.helpers": "extend_tuple get_device_dtype is_exporting make_divisible to_1tuple to_2tuple "
                                "to_3tuple to_4tuple to_ntuple",
    },
    "layers.hybrid_embed": {"mvlib.layers.patch_embed": "HybridEmbed HybridEmbedWithSize"},
    "layers.inplace_abn": {"mvlib.layers.batch_norm": "inplace_abn inplace_abn_sync InplaceAbn", _FLAGS: "has_iabn"},
    "layers.lambda_layer": {"mvlib.layers.self_attention2d": "LambdaLayer"},
    "layers.layer_scale": {"mvlib.layers.mlp": "LayerScale LayerScale2d"},
    "layers.linear": {"mvlib.layers.mlp": "Linear"},
    "layers.median_pool": {"mvlib.layers.learned_pool": "MedianPool2d"},
    "layers.mixed_conv2d": {"mvlib.layers.conv": "MixedConv2d"},
    "layers.ml_decoder": {"mvlib.layers.ml_decoder": "add_ml_decoder_head MLDecoder TransformerDecoderLayerOptimal"},
    "layers.mlp": {
        "mvlib.layers.grn": "GlobalResponseNormMlp",
        "mvlib.layers.mlp": "ConvMlp GatedMlp GluMlp Mlp SwiGLU SwiGLUPacked",
    },
    "layers.non_local_attn": {"mvlib.layers.feature_attention": "BatNonLocalAttn BilinearAttnTransform NonLocalAttn"},
    "layers.norm": {
        "mvlib.layers.norm": "GroupNorm GroupNorm1 LayerNorm LayerNorm2d LayerNorm2dFp32 LayerNormExp2d=LayerNorm2d "
                             "LayerNormFp32 RmsNorm RmsNorm2d RmsNorm2dFp32 RmsNormFp32 SimpleNorm SimpleNorm2d "
                             "SimpleNorm2dFp32 SimpleNormFp32",
    },
    "layers.norm_act": {
        "mvlib.layers.batch_norm": "convert_sync_batchnorm freeze_batch_norm_2d FrozenBatchNormAct2d SyncBatchNormAct "
                                   "unfreeze_batch_norm_2d",
        "mvlib.layers.norm": "BatchNormAct2d GroupNorm1Act GroupNormAct LayerNormAct LayerNormAct2d LayerNormAct2dFp32 "
                             "LayerNormActFp32 RmsNormAct RmsNormAct2d RmsNormAct2dFp32 RmsNormActFp32",
    },
    "layers.other_pool": {"mvlib.layers.learned_pool": "LsePlus1d LsePlus2d SimPool1d SimPool2d"},
    "layers.padding": {
        "mvlib.layers.padding": "get_padding get_padding_value get_same_padding is_static_pad pad_same pad_same_arg",
    },
    "layers.patch_dropout": {"mvlib.layers.drop": "patch_dropout_forward PatchDropout PatchDropoutWithIndices"},
    "layers.patch_embed": {
        "mvlib.layers.patch_embed": "PatchEmbed PatchEmbedInterpolator PatchEmbedResamplerFixedOrigSize "
                                    "PatchEmbedWithSize resample_patch_embed "
                                    "resample_patch_embed_old=resample_patch_embed",
        _FLAGS: "DTYPE_INTERMEDIATE",
    },
    "layers.pool1d": {"mvlib.layers.pool": "global_pool_nlc"},
    "layers.pool2d_same": {
        "mvlib.layers.pool": "avg_pool2d_same AvgPool2dSame create_pool2d max_pool2d_same MaxPool2dSame",
    },
    "layers.pos_embed": {"mvlib.layers.pos_embed": "resample_abs_pos_embed resample_abs_pos_embed_nhwc"},
    "layers.pos_embed_rel": {
        "mvlib.layers.rel_pos": "gen_relative_log_coords gen_relative_position_index RelPosBias RelPosBiasTf RelPosMlp "
                                "resize_rel_pos_bias_table resize_rel_pos_bias_table_levit "
                                "resize_rel_pos_bias_table_simple",
    },
    "layers.pos_embed_sincos": {
        "mvlib.layers.rope": "apply_keep_indices_nlc apply_rot_embed apply_rot_embed_cat apply_rot_embed_list "
                             "build_fourier_pos_embed build_rotary_pos_embed build_sincos2d_pos_embed "
                             "create_rope_embed FourierEmbed freq_bands get_mixed_freqs get_mixed_grid "
                             "init_random_2d_freqs make_coords_dinov3 pixel_freq_bands rope_rotate_half rot "
                             "RotaryEmbedding RotaryEmbeddingCat RotaryEmbeddingDinoV3 RotaryEmbeddingMixed "
                             "RotaryEmbeddingMRope swap_shape_xy",
    },
    "layers.selective_kernel": {"mvlib.layers.feature_attention": "SelectiveKernel SelectiveKernelAttn"},
    "layers.separable_conv": {
        "mvlib.layers.conv": "SeparableConv2d SeparableConvBnAct=SeparableConvNormAct SeparableConvNormAct",
    },
    "layers.space_to_depth": {"mvlib.layers.space_to_depth": "DepthToSpace SpaceToDepth"},
    "layers.split_attn": {"mvlib.layers.feature_attention": "RadixSoftmax SplitAttn"},
    "layers.split_batchnorm": {"mvlib.layers.batch_norm": "convert_splitbn_model SplitBatchNorm2d"},
    "layers.squeeze_excite": {
        "mvlib.layers.channel_attention": "EffectiveSEModule EffectiveSqueezeExcite SEModule SqueezeExcite "
                                          "SqueezeExciteCl",
    },
    "layers.std_conv": {"mvlib.layers.std_conv": "ScaledStdConv2d ScaledStdConv2dSame StdConv2d StdConv2dSame"},
    "layers.test_time_pool": {"mvlib.layers.classifier": "apply_test_time_pool TestTimePoolHead"},
    "layers.trace_utils": {"mvlib.layers.fx": "_float_to_int", "torch": "_assert"},
    "layers.typing": {"mvlib.layers.helpers": "LayerType disable_compiler nullwrap", "mvlib.layers.padding": "PadType"},
    "layers.weight_init": {
        "mvlib.layers.weight_init": "init_weight_jax init_weight_vit is_meta_device lecun_normal_ trunc_normal_ "
                                    "trunc_normal_tf_ variance_scaling_",
    },
}

ABSENT: dict[str, dict[str, str]] = {
    "torch's own function keeps as little for the backward pass; the ..._me names are those functions": {
        "layers.activations_me": " ".join(
            f"{kind}_fwd {kind}_bwd {kind.title().replace('_', '')}AutoFn"
            for kind in ("swish", "mish", "hard_sigmoid", "hard_swish", "hard_mish")),
    },
    "Conv2dSame is exported as it is": {"layers.conv2d_same": "Conv2dSameExport"},
    "the variable of a loop, or of a type": {"layers.create_act": "a", "layers.typing": "F"},
    "torch computes variances on TPUs, too": {"layers.evo_norm": "instance_std_tpu group_std_tpu"},
    "a part of timm's own computation, which is done otherwise here": {
        "layers.bottleneck_attn": "PosEmbedRel rel_logits_1d", "layers.halo_attn": "PosEmbedRel rel_logits_1d",
        "layers.interpolate": "", "layers.lambda_layer": "rel_pos_indices",
        "layers.pos_embed_rel": "generate_lookup_tensor reindex_2d_einsum_lookup",
    },
}
