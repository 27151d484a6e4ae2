"""Building blocks that more than one model family uses. Imports nothing else of mvlib."""

from .activations import ACTIVATIONS, GELUTanh, QuickGELU, get_act_layer
from .drop import DropBlock2d, DropPath, drop_path_rates
from .helpers import make_divisible, to_2tuple, to_ntuple
from .mlp import LayerScale, Mlp
from .norm import BatchNormAct2d, LayerNorm, LayerNorm2d, RmsNorm, get_norm_act_layer, get_norm_layer
from .pool import ClassifierHead, GlobalPool2d

__all__ = [
    "ACTIVATIONS", "BatchNormAct2d", "ClassifierHead", "DropBlock2d", "DropPath", "GELUTanh", "GlobalPool2d",
    "LayerNorm", "LayerNorm2d", "LayerScale", "Mlp", "QuickGELU", "RmsNorm", "drop_path_rates", "get_act_layer",
    "get_norm_act_layer", "get_norm_layer", "make_divisible", "to_2tuple", "to_ntuple",
]
