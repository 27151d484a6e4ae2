"""Modules of families: classes, helpers, `checkpoint_filter_fn`, ...; entrypoints follow. Imports no torch."""

from __future__ import annotations

_FAMILIES, _CONFIGS = "mvlib.timm.meanings.families", "mvlib.timm.meanings.configs"
_MOBILE = "mvlib.timm.meanings.mobile"

_CLASSES: dict[str, str] = {  # with timm's constructors, in the module of the family; `timm.models` has them, too
    "byobnet": "ByoBlockCfg create_block create_byob_stem",
    "beit": "Beit",
    "cait": "Cait ClassAttn LayerScaleBlock LayerScaleBlockClassAttn TalkingHeadAttn",
    "coat": "CoaT",
    "convit": "ConVit",
    "convmixer": "ConvMixer",
    "convnext": "ConvNeXt",
    "cpubone": "CPUBone",
    "crossvit": "CrossVit",
    "csatv2": "CSATv2",
    "cspnext": "CspNext",
    "davit": "DaVit",
    "deepseek_vit": "DeepseekVitClassifier DeepseekVitEncoder",
    "deit": "VisionTransformerDistilled",
    "densenet": "DenseNet",
    "dla": "DLA",
    "dpn": "DPN",
    "edgenext": "EdgeNeXt",
    "efficientformer": "EfficientFormer",
    "efficientformer_v2": "EfficientFormerV2",
    "efficientnet": "EfficientNet",
    "efficientvim": "EfficientViM EfficientViMDistilled",
    "efficientvit_mit": "EfficientVit EfficientVitLarge",
    "efficientvit_msra": "EfficientVitMsra",
    "eva": "Eva",
    "fasternet": "FasterNet",
    "fastvit": "FastVit",
    "focalnet": "FocalNet",
    "gcvit": "GlobalContextVit",
    "ghostnet": "GhostNet",
    "gemma4_vit": "Gemma4VitClassifier Gemma4VitEncoder",
    "hgnet": "HighPerfGpuNet",
    "hiera": "Hiera",
    "iformer": "IFormer",
    "inception_next": "MetaNeXt",
    "inception_resnet_v2": "InceptionResnetV2",
    "inception_v3": "InceptionV3",
    "inception_v4": "InceptionV4",
    "lcnetv2": "LCNetV2",
    "levit": "Levit",
    "lowformer": "LowFormer",
    "mambaout": "MambaOut",
    "metaformer": "MetaFormer",
    "mlp_mixer": "MixerBlock MlpMixer",
    "mobilenetv3": "MobileNetV3",
    "mobilenetv5": "MobileNetV5 MobileNetV5Encoder",
    "naflexvit": "NaFlexVit NaFlexVitCfg",
    "nasnet": "NASNetALarge",
    "nest": "Nest",
    "nextvit": "NextViT",
    "pit": "PoolingVisionTransformer",
    "pnasnet": "PNASNet5Large",
    "pvt_v2": "PyramidVisionTransformerV2",
    "qwen3_vit": "Qwen3VitClassifier Qwen3VitEncoder",
    "rdnet": "RDNet",
    "repghost": "RepGhostNet",
    "repvit": "RepVit",
    "resnet": "BasicBlock Bottleneck ResNet",
    "resnetv2": "ResNetV2",
    "rexnet": "RexNet",
    "senet": "SENet",
    "sequencer": "Sequencer2d",
    "shvit": "SHViT",
    "starnet": "StarNet",
    "swiftformer": "SwiftFormer",
    "swin_transformer": "SwinTransformer",
    "swin_transformer_v2": "SwinTransformerV2",
    "swin_transformer_v2_cr": "SwinTransformerV2Cr",
    "tiny_vit": "TinyVit",
    "tnt": "TNT",
    "tresnet": "TResNet",
    "twins": "Twins",
    "vgg": "VGG",
    "visformer": "Visformer",
    "vision_transformer": "VisionTransformer",
    "vision_transformer_relpos": "VisionTransformerRelPos",
    "vision_transformer_sam": "VisionTransformerSAM",
    "xception": "Xception",
    "xception_aligned": "XceptionAligned",
    "volo": "VOLO",
    "xcit": "Xcit=XCiT",
}
_CONFIGURED: dict[str, str] = {  # classes that take a config, and configs; `timm.models` has them, too
    "byobnet": "ByoModelCfg ByobNet",
    "cspnet": "CspNet",
    "hrnet": "HighResolutionNet",
    "maxxvit": "MaxxVit MaxxVitCfg MaxxVitConvCfg MaxxVitTransformerCfg",
    "mvitv2": "MultiScaleVit MultiScaleVitCfg",
    "nfnet": "NfCfg NormFreeNet",
    "regnet": "RegNet RegNetCfg",
    "selecsls": "SelecSls",
    "vovnet": "VovNet",
}
_ONLY_CONFIGURED: dict[str, str] = {  # what only the family's module has
    **{family: f"model_cfgs={family}.model_cfgs" for family in (
        "byoanet", "byobnet", "levit", "maxxvit", "mobilevit", "mvitv2", "nfnet", "regnet", "vovnet")},
    "cspnet": "CspModelCfg CspStagesCfg CspStemCfg model_cfgs=cspnet.model_cfgs",
    "hrnet": "cfg_cls=hrnet.cfg_cls",
}
_FURTHER: dict[str, str] = {  # what only the family's module has
    "beit": "Attention Block RelativePositionBias",
    "byobnet": "BasicBlock BottleneckBlock DarkBlock DownsampleAvg EdgeBlock LayerFn MobileOneBlock RepVggBlock "
               "SelfAttnBlock Stem create_shortcut drop_blocks expand_blocks_cfg interleave_blocks reduce_feat_size "
               "register_block",
    "coat": "ConvPosEnc ConvRelPosEnc FactorAttnConvRelPosEnc ParallelBlock SerialBlock insert_cls remove_cls",
    "convit": "Block GPSA MHSA",
    "convmixer": "Residual",
    "convnext": "ConvNeXtBlock ConvNeXtStage Downsample",
    "cpubone": "CPUBoneBlock ClsHead ConvAttention ConvLayer FusedMBConv LinearLayer MBConv ResidualBlock "
               "get_same_padding remap_legacy_state_dict",
    "crossvit": "CrossAttention CrossAttentionBlock MultiScaleBlock PatchEmbed scale_image",
    "csatv2": "Block Dct1d Dct2d Dct2dStats LearnableDct2d PosConv SpatialAttention SpatialTransformerBlock "
              "TransformerBlock",
    "cspnet": "BottleneckBlock CrossStage CrossStage3 DarkBlock DarkStage EdgeBlock create_csp_stem",
    "cspnext": "CspNextBlock CspNextLayer DepthwiseSeparableConv SPPBottleneck",
    "davit": "ChannelAttention ChannelAttentionV2 ChannelBlock ConvPosEnc DaVitStage Downsample SpatialBlock Stem "
             "WindowAttention window_partition window_reverse",
    "deepseek_vit": "DeepseekVitAligner DeepseekVitBlock",
    "densenet": "DenseBlock DenseLayer DenseTransition",
    "dla": "DlaBasic DlaBottle2neck DlaBottleneck DlaRoot DlaTree",
    "dpn": "BnAct BnActConv2d DualPathBlock",
    "edgenext": "ConvBlock CrossCovarianceAttn EdgeNeXtStage PositionalEncodingFourier SplitTransposeBlock",
    "efficientformer": "Attention ConvMlpWithNorm Downsample EfficientFormerStage EfficientFormer_depth "
                       "EfficientFormer_width Flat MetaBlock1d MetaBlock2d Pooling Stem4",
    "efficientformer_v2": "Attention2d Attention2dDownsample ConvMlpWithNorm ConvNorm Downsample "
                          "EfficientFormerV2Block EfficientFormerV2Stage EfficientFormer_depth "
                          "EfficientFormer_expansion_ratios EfficientFormer_width LocalGlobalQuery Stem4",
    "efficientvim": "ConvLayer1d ConvLayer2d EfficientViMBlock EfficientViMStage FFN HSMSSD PatchMerging Stem",
    "efficientvit_mit": "ClassifierHead ConvBlock ConvNormAct DSConv EfficientVitBlock EfficientVitLargeStage "
                        "EfficientVitStage FusedMBConv LiteMLA MBConv ResidualBlock Stem build_local_block "
                        "get_same_padding val2list val2tuple",
    "efficientvit_msra": "CascadedGroupAttention ConvMlp ConvNorm EfficientVitBlock EfficientVitStage "
                         "LocalWindowAttention NormLinear PatchEmbedding PatchMerging ResidualDrop",
    "fasternet": "Block MLPBlock Partial_conv3 PatchEmbed PatchMerging",
    "fastvit": "Attention AttentionBlock ConvMlp FastVitStage LayerScale2d MobileOneBlock PatchEmbed "
               "RepConditionalPosEnc RepMixer RepMixerBlock ReparamLargeKernelConv convolutional_stem",
    "focalnet": "Downsample FocalModulation FocalNetBlock FocalNetStage",
    "gcvit": "Downsample2d FeatureBlock GlobalContextVitBlock GlobalContextVitStage MbConvBlock Stem "
             "WindowAttentionGlobal window_partition",
    "gemma4_vit": "Gemma4Attention Gemma4Block Gemma4ClippableLinear Gemma4GatedMlp Gemma4PatchEmbed "
                  "Gemma4RotaryEmbedding2D Gemma4VisionPooler",
    "ghostnet": "GhostBottleneck GhostBottleneckV3 GhostModule GhostModuleV2 GhostModuleV3",
    "hgnet": "ClassifierHead ConvBNAct EseModule HighPerfGpuBlock HighPerfGpuStage LearnableAffineBlock LightConvBNAct "
             "StemV1 StemV2 model_cfgs",
    "hiera": "HieraBlock MaskUnitAttention PatchEmbed Reroll Unroll conv_nd get_resized_mask undo_windowing",
    "hieradet_sam2": "HieraDet HieraPatchEmbed MultiScaleAttention MultiScaleBlock window_unpartition",
    "hrnet": "HighResolutionModule",
    "iformer": "ConvBlock ConvNorm FFN RepCPE Residual SHMA SHMABlock StageBlock Stem",
    "inception_next": "InceptionDWConv2d MetaNeXtBlock MetaNeXtStage MlpClassifierHead",
    "inception_resnet_v2": "Block17 Block35 Block8 Mixed_5b Mixed_6a Mixed_7a",
    "inception_v3": "InceptionA InceptionAux InceptionB InceptionC InceptionD InceptionE",
    "inception_v4": "InceptionA InceptionB InceptionC Mixed3a Mixed4a Mixed5a ReductionA ReductionB",
    "lcnetv2": "RepDepthwiseSeparable",
    "levit": "LevitDistilled Attention AttentionDownsample ConvNorm Downsample LevitBlock LevitDownsample LevitMlp "
             "LevitStage LinearNorm NormLinear Stem16 Stem8",
    "lowformer": "ConvAttention ConvLayer FusedMBConv LowFormerBlock MBConv ResidualBlock",
    "metaformer": "Attention Downsampling GroupNorm1NoBias LayerNorm2dNoBias LayerNormNoBias MetaFormerBlock "
                  "MetaFormerStage MlpHead Pooling Scale SepConv SquaredReLU StarReLU Stem",
    "maxxvit": "Attention2d AttentionCl ConvNeXtBlock Downsample2d MaxxVitBlock MaxxVitStage MbConvBlock "
               "ParallelMaxxVitBlock ParallelPartitionAttention PartitionAttention2d PartitionAttentionCl Stem "
               "TransformerBlock2d cfg_window_size get_rel_pos_cls grid_partition grid_partition_nchw grid_reverse "
               "grid_reverse_nchw window_partition_nchw window_reverse_nchw",
    "mambaout": "Downsample DownsampleNormFirst GatedConvBlock MambaOutStage MlpHead Stem",
    "mlp_mixer": "Affine ResBlock SpatialGatingBlock SpatialGatingUnit",
    "mobilenetv5": "MobileNetV5MultiScaleFusionAdapter",
    "mobilevit": "LinearSelfAttention LinearTransformerBlock MobileVitBlock MobileVitV2Block",
    "mvitv2": "MultiScaleAttention MultiScaleBlock MultiScaleVitStage PatchEmbed",
    "naflexvit": "NaFlexEmbeds batch_patchify calculate_naflex_grid_sizes create_attention_mask get_block_fn "
                 "global_pool_naflex",
    "nest": "Attention ConvPool TransformerLayer blockify deblockify resize_pos_embed",
    "nextvit": "ConvAttention ConvNormAct EfficientAttention NextConvBlock NextStage NextTransformerBlock PatchEmbed "
               "merge_pre_bn",
    "nfnet": "DownsampleAvg GammaAct NormFreeBlock act_with_gamma create_stem",
    "pit": "ConvEmbedding",
    "pnasnet": "BranchSeparables FactorizedReduction",
    "pvt_v2": "Attention Block MlpWithDepthwiseConv OverlapPatchEmbed PyramidVisionTransformerStage",
    "qwen3_vit": "Qwen3VitPatchMerger resample_pos_embed_grid",
    "rdnet": "Block BlockESE DenseBlock DenseStage",
    "regnet": "Bottleneck PreBottleneck RegStage adjust_widths_groups_comp create_shortcut downsample_avg "
              "downsample_conv generate_regnet quantize_float",
    "repghost": "RepGhostBottleneck RepGhostModule repghost_model_convert",
    "repvit": "ConvNorm NormLinear RepVggDw RepViTBlock RepVitClassifier RepVitDownsample RepVitMlp RepVitStage "
              "RepVitStem",
    "res2net": "Bottle2neck",
    "resnest": "ResNestBottleneck",
    "resnet": "downsample_avg downsample_conv drop_blocks make_blocks",
    "resnetv2": "Bottleneck DownsampleAvg DownsampleConv PreActBasic PreActBottleneck ResNetStage create_resnetv2_stem "
                "is_stem_deep",
    "rexnet": "LinearBottleneck",
    "selecsls": "SelecSlsBlock SelectSeq conv_bn",
    "senet": "Bottleneck SEBottleneck SEModule SEResNeXtBottleneck SEResNetBlock SEResNetBottleneck",
    "sequencer": "Downsample2d LSTM2d RNN2dBase RNNIdentity Sequencer2dBlock Sequencer2dStage Shuffle",
    "shvit": "BasicBlock Conv2dNorm FFN NormLinear PatchMerging Residual SHSA StageBlock",
    "sknet": "SelectiveKernelBasic SelectiveKernelBottleneck",
    "starnet": "Block ConvBN",
    "swiftformer": "Block ConvEncoder EfficientAdditiveAttention Embedding LayerScale2d LocalRepresentation Mlp Stage",
    "swin_transformer": "PatchMerging SwinTransformerBlock SwinTransformerStage WindowAttention window_partition "
                        "window_reverse calc_stage_window_sizes resolve_stage_window_ratios resolve_stage_window_sizes "
                        "resolve_window_args window_sizes_from_ratio",
    "swin_transformer_v2": "PatchMerging SwinTransformerV2Block WindowAttention SwinTransformerV2Stage",
    "swin_transformer_v2_cr": "PatchEmbed PatchMerging SwinTransformerV2CrBlock SwinTransformerV2CrStage "
                              "WindowMultiHeadAttention bchw_to_bhwc bhwc_to_bchw init_weights_swin",
    "tiny_vit": "Attention ConvLayer ConvNorm MBConv NormMlp PatchEmbed PatchMerging TinyVitBlock TinyVitStage",
    "tnt": "Attention PixelEmbed",
    "tresnet": "BasicBlock Bottleneck",
    "twins": "Block GlobalSubSampleAttn LocallyGroupedAttn PatchEmbed PosConv",
    "vgg": "cfgs ConvMlp",
    "visformer": "Attention Block SpatialMlp",
    "vision_transformer": "ATTN_LAYERS Block DiffParallelScalingBlock ParallelScalingBlock ParallelThingsBlock "
                          "ResPostBlock",
    "vision_transformer_hybrid": "ConvStem",
    "vision_transformer_sam": "Attention Block get_decomposed_rel_pos_bias get_rel_pos window_partition "
                              "window_unpartition",
    "vision_transformer_relpos": "RelPosAttention RelPosBlock ResPostRelPosBlock",
    "volo": "Attention ClassAttention ClassBlock Downsample OutlookAttention Outlooker PatchEmbed Transformer "
            "get_block outlooker_blocks rand_bbox transformer_blocks",
    "vitamin": "Downsample2d GeGluMlp MbConvLNBlock MbConvStages Stem StridedConv VitCfg VitConvCfg",
    "vovnet": "OsaBlock OsaStage SequentialAppendList",
    "xception": "Block SeparableConv2d",
    "xception_aligned": "PreSeparableConv2d PreXceptionModule SeparableConv2d XceptionModule",
    "xcit": "ClassAttentionBlock ConvPatchEmbed LPI PositionalEncodingFourier XCA XCABlock conv3x3",
}
_FUNCTIONS: dict[str, str] = {  # of `meanings.families`
    "beit": "gen_relative_position_index=beit_relative_position_index",
    "deepseek_vit": "checkpoint_filter_fn_classifier=checkpoint_filter_fn "
                    "checkpoint_filter_fn_encoder=checkpoint_filter_fn",
    "gcvit": "window_reverse=window_reverse_to_size",
    "gemma4_vit": "checkpoint_filter_fn_classifier=checkpoint_filter_fn "
                  "checkpoint_filter_fn_encoder=checkpoint_filter_fn",
    "hieradet_sam2": "checkpoint_filter_fn=sam2_filter_fn",
    "levit": "create_levit",
    "maxxvit": "window_reverse=window_reverse_to_size",
    "naflexvit": "get_init_weights_vit",
    "qwen3_vit": "checkpoint_filter_fn_classifier=checkpoint_filter_fn "
                 "checkpoint_filter_fn_encoder=checkpoint_filter_fn",
    "swin_transformer": "get_relative_position_index",
    "swin_transformer_v2": "window_reverse=window_reverse_to_size",
    "swin_transformer_v2_cr": "window_reverse=window_reverse_to_size",
    "vision_transformer": "_load_weights=load_vit_arrays get_init_weights_vit init_weights_reset_parameters "
                          "init_weights_vit_jax init_weights_vit_moco init_weights_vit_timm resize_pos_embed",
    "vision_transformer_hybrid": "checkpoint_filter_fn=hybrid_filter_fn",
}
_LAYERS: dict[str, dict[str, str]] = {
    "byobnet": {"mvlib.layers.conv": "num_groups"},
    "efficientnet": {_MOBILE: "EfficientNetFeatures"},
    "gemma4_vit": {"mvlib.layers.rope": "rotate_half=rope_rotate_half"},
    "hieradet_sam2": {"mvlib.layers.window": "window_partition"},
    "eva": {"mvlib.models.eva_blocks": "EvaAttention EvaBlock EvaBlockPostNorm"},
    "fastvit": {"mvlib.layers.conv": "num_groups"},
    "inception_next": {"mvlib.layers": "ConvMlp"},
    "hrnet": {"mvlib.timm.meanings.hrnet": "HighResolutionNetFeatures block_types_dict",
              "torch.nn": "SequentialList=Sequential"},
    "iformer": {"mvlib.models.repvit": "RepVitClassifier", "mvlib.models.shvit": "NormLinear"},
    "maxxvit": {"mvlib.layers.conv": "num_groups", "mvlib.layers.window": "window_partition"},
    "mobilenetv3": {_MOBILE: "MobileNetV3Features"},
    "nasnet": {"mvlib.models.nas_blocks": "ActConvBn BranchSeparables SeparableConv2d"},
    "pnasnet": {"mvlib.models.nas_blocks": "ActConvBn SeparableConv2d"},
    "resnet": {"mvlib.layers.padding": "get_padding"},
    "selecsls": {"torch.nn": "SequentialList=Sequential"},
    "swin_transformer_v2": {"mvlib.layers.window": "window_partition"},
    "swin_transformer_v2_cr": {"mvlib.layers.window": "window_partition"},
    "vision_transformer": {"mvlib.layers.pool": "global_pool_nlc",
                           "mvlib.models.tokens": "resample_abs_pos_embed"},  # where it is used: users replace it
}
_WITH_FILTER = (  # a line a letter
    "beit byobnet "
    "cait coat convnext cpubone csatv2 cspnext "
    "davit deit "
    "edgenext efficientformer efficientvim efficientvit_msra eva "
    "fasternet fastvit focalnet "
    "ghostnet "
    "hiera "
    "iformer "
    "levit lowformer "
    "mambaout maxxvit metaformer mlp_mixer mobilenetv5 mvitv2 "
    "naflexvit nest nextvit "
    "pit pvt_v2 "
    "rdnet "
    "sequencer shvit starnet swiftformer swin_transformer swin_transformer_v2 swin_transformer_v2_cr "
    "tiny_vit tnt tresnet "
    "vision_transformer vision_transformer_relpos vision_transformer_sam "
    "xcit "
).split()

CREATORS = {  # family: (timm's function, the class that it makes; "" where that takes a config by the name)
    "beit": ("_create_beit", "Beit"),
    "byoanet": ("_create_byoanet", ""),
    "byobnet": ("_create_byobnet", ""),
    "convmixer": ("_create_convmixer", "ConvMixer"),
    "convnext": ("_create_convnext", "ConvNeXt"),
    "cpubone": ("_create_cpubone", "CPUBone"),
    "crossvit": ("_create_crossvit", "CrossVit"),
    "csatv2": ("_create_csatv2", "CSATv2"),
    "cspnet": ("_create_cspnet", ""),
    "cspnext": ("_create_cspnext", "CspNext"),
    "davit": ("_create_davit", "DaVit"),
    "deepseek_vit": ("_create_deepseek_vit_classifier", "DeepseekVitClassifier"),
    "deit": ("_create_deit", "VisionTransformer"),
    "densenet": ("_create_densenet", "DenseNet"),
    "dla": ("_create_dla", "DLA"),
    "dpn": ("_create_dpn", "DPN"),
    "edgenext": ("_create_edgenext", "EdgeNeXt"),
    "efficientformer": ("_create_efficientformer", "EfficientFormer"),
    "efficientformer_v2": ("_create_efficientformerv2", "EfficientFormerV2"),
    "efficientvim": ("_create_efficientvim", "EfficientViM"),
    "efficientvit_mit": ("_create_efficientvit", "EfficientVit"),
    "efficientvit_msra": ("_create_efficientvit_msra", "EfficientVitMsra"),
    "gemma4_vit": ("_create_gemma4_vit_classifier", "Gemma4VitClassifier"),
    "hgnet": ("_create_hgnet", ""),
    "eva": ("_create_eva", "Eva"),
    "fasternet": ("_create_fasternet", "FasterNet"),
    "hiera": ("_create_hiera", "Hiera"),
    "hieradet_sam2": ("_create_hiera_det", "HieraDet"),
    "fastvit": ("_create_fastvit", "FastVit"),
    "focalnet": ("_create_focalnet", "FocalNet"),
    "gcvit": ("_create_gcvit", "GlobalContextVit"),
    "hrnet": ("_create_hrnet", ""),
    "iformer": ("_create_iformer", "IFormer"),
    "inception_next": ("_create_inception_next", "MetaNeXt"),
    "lcnetv2": ("_create_lcnetv2", "LCNetV2"),
    "lowformer": ("_create_lowformer", "LowFormer"),
    "mambaout": ("_create_mambaout", "MambaOut"),
    "maxxvit": ("_create_maxxvit", ""),
    "metaformer": ("_create_metaformer", "MetaFormer"),
    "mlp_mixer": ("_create_mixer", "MlpMixer"),
    "mobilenetv5": ("_create_mnv5", "MobileNetV5"),
    "mobilevit": ("_create_mobilevit", ""),
    "naflexvit": ("_create_naflexvit", "NaFlexVit"),
    "nest": ("_create_nest", "Nest"),
    "nextvit": ("_create_nextvit", "NextViT"),
    "nfnet": ("_create_normfreenet", ""),
    "pvt_v2": ("_create_pvt2", "PyramidVisionTransformerV2"),
    "qwen3_vit": ("_create_qwen3_vit_classifier", "Qwen3VitClassifier"),
    "rdnet": ("_create_rdnet", "RDNet"),
    "regnet": ("_create_regnet", ""),
    "repghost": ("_create_repghostnet", "RepGhostNet"),
    "repvit": ("_create_repvit", "RepVit"),
    "res2net": ("_create_res2net", "ResNet"),
    "resnest": ("_create_resnest", "ResNet"),
    "resnet": ("_create_resnet", "ResNet"),
    "resnetv2": ("_create_resnetv2", "ResNetV2"),
    "rexnet": ("_create_rexnet", "RexNet"),
    "selecsls": ("_create_selecsls", ""),
    "sequencer": ("_create_sequencer2d", "Sequencer2d"),
    "shvit": ("_create_shvit", "SHViT"),
    "sknet": ("_create_skresnet", "ResNet"),
    "starnet": ("_create_starnet", "StarNet"),
    "swiftformer": ("_create_swiftformer", "SwiftFormer"),
    "swin_transformer": ("_create_swin_transformer", "SwinTransformer"),
    "swin_transformer_v2": ("_create_swin_transformer_v2", "SwinTransformerV2"),
    "swin_transformer_v2_cr": ("_create_swin_transformer_v2_cr", "SwinTransformerV2Cr"),
    "tiny_vit": ("_create_tiny_vit", "TinyVit"),
    "tnt": ("_create_tnt", "TNT"),
    "tresnet": ("_create_tresnet", "TResNet"),
    "twins": ("_create_twins", "Twins"),
    "vgg": ("_create_vgg", ""),
    "visformer": ("_create_visformer", "Visformer"),
    "vision_transformer": ("_create_vision_transformer", "VisionTransformer"),
    "vision_transformer_sam": ("_create_vision_transformer", "VisionTransformerSAM"),
    "vision_transformer_relpos": ("_create_vision_transformer_relpos", "VisionTransformerRelPos"),
    "volo": ("_create_volo", "VOLO"),
    "vitamin": ("_create_vitamin", "ViTamin"),
    "vovnet": ("_create_vovnet", ""),
}
_WITH_CFGS = sorted({*_CLASSES, *_CONFIGURED, *_FURTHER, *CREATORS, "hardcorenas"})
_WITHOUT_CFG = "coat inception_resnet_v2 inception_v4 nasnet nfnet pnasnet xception".split()


def _rows(family: str) -> dict[str, str]:
    derived = ["default_cfgs"] + ["_cfg"] * (family not in _WITHOUT_CFG)
    derived += ["checkpoint_filter_fn"] * (family in _WITH_FILTER) + [CREATORS.get(family, ("",))[0]]
    rows = {_FAMILIES: " ".join([*(f"{name}={family}.{name}" for name in derived if name), _FUNCTIONS.get(family, "")])}
    for module, tables in ((f"mvlib.models.{family}", (_CLASSES, _FURTHER)),
                           (_CONFIGS, (_CONFIGURED, _ONLY_CONFIGURED))):
        own = " ".join(table[family] for table in tables if family in table)
        if own:
            rows[module] = own
    return {**rows, **_LAYERS.get(family, {})}


NAMES: dict[str, dict[str, str]] = {
    "models": {**{f"mvlib.models.{family}": names for family, names in _CLASSES.items()},
               _CONFIGS: " ".join(_CONFIGURED.values()), _MOBILE: "EfficientNetFeatures MobileNetV3Features",
               "mvlib.timm.meanings.hrnet": "HighResolutionNetFeatures"},
    **{f"models.{family}": _rows(family) for family in _WITH_CFGS},
    "models._efficientnet_builder": {
        "mvlib.models.efficientnet_blocks":
        "BlockArgs EfficientNetBuilder decode_arch_def efficientnet_init_weights round_channels",
        _FAMILIES: "BN_EPS_TF_DEFAULT BN_MOMENTUM_TF_DEFAULT resolve_act_layer resolve_bn_args",
    },
    "models._efficientnet_blocks": {
        "mvlib.models.efficientnet_blocks":
        "CondConvResidual ConvBnAct DepthwiseSeparableConv EdgeResidual InvertedResidual MobileAttention SqueezeExcite "
        "UniversalInvertedResidual num_groups",
    },
}

# Where a family's module finds what it imports in timm, and others import from it (`vision_transformer.PatchEmbed`).
BORROWED = ("layers", "data.constants", "models._builder", "models._efficientnet_blocks",
            "models._efficientnet_builder", "models._features", "models._features_fx", "models._helpers", "models._hub",
            "models._input", "models._manipulate", "models._prune", "models._registry")
IMPORTED: dict[str, tuple[str, ...]] = {  # from other families
    "byoanet": ("models.byobnet",),
    "crossvit": ("models.vision_transformer",),
    "deit": ("models.vision_transformer",),
    "gemma4_vit": ("models.naflexvit",),
    "hardcorenas": ("models.mobilenetv3",),
    "hrnet": ("models.resnet",),
    "mobilevit": ("models.byobnet",),
    "naflexvit": ("models.vision_transformer", "models.eva"),
    "pit": ("models.vision_transformer",),
    "qwen3_vit": ("models.eva",),
    "res2net": ("models.resnet",),
    "resnest": ("models.resnet",),
    "sknet": ("models.resnet",),
    "swin_transformer": ("models.vision_transformer",),
    "swin_transformer_v2": ("models.swin_transformer",),
    "swin_transformer_v2_cr": ("models.swin_transformer",),
    "vision_transformer_hybrid": ("models.resnet", "models.resnetv2", "models.vision_transformer"),
    "vision_transformer_relpos": ("models.vision_transformer",),
    "vitamin": ("models.vision_transformer",),
    "xcit": ("models.cait",),
}

ABSENT: dict[str, dict[str, str]] = {
    "a line of timm's own computation, which is done otherwise here": {
        "models.mvitv2": "cal_rel_pos_type prod reshape_post_pool reshape_pre_pool"},
    "timm's multiplies matrices that do not fit, and no architecture has it": {
        "models.mvitv2": "MultiScaleAttentionPoolFirst"},
    "rotary embeddings of each block come to it with the model's flow": {"models.naflexvit": "NaFlexRopeIterator"},
    "a cell gives what the next one reads of the cell before, too; timm's networks hand that on themselves": {
        "models.nasnet": "CellStem0 CellStem1 FirstCell NormalCell ReductionCell0 ReductionCell1",
        "models.pnasnet": "Cell CellBase CellStem0"},
    "maps have their channels last between levels": {"models.nest": "NestLevel"},
    "stages take all tokens and the patches' grid; timm's a map of patches and class tokens": {
        "models.pit": "Pooling SequentialTuple Transformer"},
    "takes and gives patches before their pixels; timm's pixels before patches": {"models.tnt": "Block"},
    "a step of the constructor, which reads the model's arguments here; the class with a config makes the same": {
        "models.byobnet": "create_byob_stages get_layer_fns override_kwargs update_block_kwargs",
        "models.cspnet": "create_csp_stages"},
    "halves are turned in one piece; what initialises weights is the model's init_weights": {
        "models.gemma4_vit": "apply_multidimensional_rope apply_rotary_pos_emb get_init_weights_gemma4_vit "
                             "init_weights_gemma4_vit"},
}
