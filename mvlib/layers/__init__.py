"""Building blocks that more than one model family uses. Imports nothing else of mvlib."""

from .activations import ACTIVATIONS, GELUTanh, QuickGELU, get_act_layer
from .attention import set_fused_attn, use_fused_attn
from .attention2d import Attention2d, MultiQueryAttention2d
from .blur_pool import BlurPool2d, create_aa
from .branches import RepVggBlock, reparameterize
from .channel_attention import CecaModule, EcaModule, EffectiveSEModule, SEModule, create_attn, get_attn
from .conv import CondConv2d, Conv2dSame, ConvNormAct, MixedConv2d, create_conv2d, pad_same
from .drop import DropBlock2d, DropPath, drop_path_rates
from .grn import GlobalResponseNorm, GlobalResponseNormMlp
from .helpers import make_divisible, to_2tuple, to_ntuple
from .mlp import ConvMlp, LayerScale, LayerScale2d, Mlp
from .norm import (
    BatchNormAct2d,
    EvoNorm2dS0,
    GroupNorm,
    GroupNormAct,
    LayerNorm,
    LayerNorm2d,
    LayerNormAct2d,
    RmsNorm,
    RmsNorm2d,
    SimpleNorm,
    SimpleNorm2d,
    get_norm_act_layer,
    get_norm_layer,
)
from .pool import ClassifierHead, GlobalPool2d, NormMlpClassifierHead
from .squeeze_excite import GlobalContext, SqueezeExcite

__all__ = [
    "ACTIVATIONS", "Attention2d", "BatchNormAct2d", "BlurPool2d", "CecaModule", "ClassifierHead", "CondConv2d",
    "Conv2dSame", "ConvMlp", "ConvNormAct", "DropBlock2d", "DropPath", "EcaModule", "EffectiveSEModule", "EvoNorm2dS0",
    "GELUTanh", "GlobalContext", "GlobalPool2d", "GlobalResponseNorm", "GlobalResponseNormMlp", "GroupNorm",
    "GroupNormAct", "LayerNorm", "LayerNorm2d", "LayerNormAct2d", "LayerScale", "LayerScale2d", "MixedConv2d", "Mlp",
    "MultiQueryAttention2d", "NormMlpClassifierHead", "QuickGELU", "RepVggBlock", "RmsNorm", "RmsNorm2d", "SEModule",
    "SimpleNorm", "SimpleNorm2d", "SqueezeExcite", "create_aa", "create_attn", "create_conv2d", "drop_path_rates",
    "get_act_layer", "get_attn", "get_norm_act_layer", "get_norm_layer", "make_divisible", "pad_same", "reparameterize",
    "set_fused_attn", "to_2tuple", "to_ntuple", "use_fused_attn",
]
