"""VGG: plain stacks of 3x3 convolutions (https://arxiv.org/abs/1409.1556), with and without batch norm.

The hidden layers between features and classifier are convolutions here, as in timm, whose keys these are: the first
has the size of the 7x7 map that a 224x224 image gives, so that on an image of that size they are the paper's linear
layers, and on a larger one they score every 7x7 window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ActLayer, ClassifierHead, NormLayer, get_act_layer, get_norm_layer, placeable
from ..layers.weight_init import init_kaiming, init_normal, init_zero_bias
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, StateDict, Step, rename_keys

if TYPE_CHECKING:
    from ._variants.vgg import *

__all__ = ["VGG", "ConvMlp"]

_HIDDEN_CHS = 4096
_GRID = 7  # side of the final map of a 224x224 image

# Channels of the convolutions; "M" is a max pool. The paper's configurations A, B, D and E.
cfgs: dict[str, tuple[int | str, ...]] = {
    "vgg11": (64, "M", 128, "M", *[256] * 2, "M", *[512] * 2, "M", *[512] * 2, "M"),
    "vgg13": (64, 64, "M", 128, 128, "M", *[256] * 2, "M", *[512] * 2, "M", *[512] * 2, "M"),
    "vgg16": (64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"),
    "vgg19": (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"),
}


@torch.fx.wrap  # one node in a traced graph: what it does depends on the input's size
def _fit_grid(x: Tensor, side: int, exactly: bool) -> Tensor:
    """Pool a feature map to (side, side), up or down; unless `exactly`, only what is smaller, up."""
    height, width = x.shape[-2:]
    size = (side, side) if exactly else (max(height, side), max(width, side))
    return x if size == (height, width) else F.adaptive_avg_pool2d(x, size)


class ConvMlp(nn.Module):
    """A convolution of the whole grid and a 1x1 convolution, each with an activation; keys `fc1`, `fc2`.

    Shapes: (B, in_features, H, W) -> (B, out_features, H - 6, W - 6), or (B, out_features, 1, 1) where H and W are at
    most 7, `kernel_size`, or the grid is fixed. Arguments as for `VGG`.
    """

    @placeable
    def __init__(
        self, in_features: int = 512, out_features: int = _HIDDEN_CHS, kernel_size: int = _GRID, mlp_ratio: float = 1.0,
        drop_rate: float = 0.2, act_layer: ActLayer = nn.ReLU, conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        fixed_grid: bool = False,
    ) -> None:
        super().__init__()
        self.input_kernel_size, self.fixed_grid = kernel_size, fixed_grid
        mid_chs, act = int(out_features * mlp_ratio), get_act_layer(act_layer)
        self.fc1 = conv_layer(in_features, mid_chs, kernel_size)
        self.act1 = act(inplace=True)
        self.drop = nn.Dropout(drop_rate)
        self.fc2 = conv_layer(mid_chs, out_features, 1)
        self.act2 = act(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = _fit_grid(x, self.input_kernel_size, self.fixed_grid)
        x = self.drop(self.act1(self.fc1(x)))
        return self.act2(self.fc2(x))


class VGG(ImageModel):
    """Stacks of 3x3 convolutions between max pools, two hidden layers, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features (B, 512, H / 32, W / 32) come before the hidden
    layers. The taps are the last activation before each max pool (strides 1 to 16), and the last max pool.

    Args:
        cfg: Channels of the convolutions in order, "M" for a max pool.
        num_classes: Classes; 0 for the pooled output of the hidden layers (B, 4096).
        output_stride: 32 alone.
        mlp_ratio: Width of the first hidden layer, in that of the second.
        conv_layer, norm_layer: Convolution class; norm behind each convolution, none unless given.
        global_pool: "avg", "max", "avgmax", "catavgmax", or "" for none: pools what the hidden layers give.
        drop_rate: Dropout behind each hidden layer.
        fixed_grid: Pool the features to 7x7 for every size of image, as torchvision does, instead of only enlarging
            smaller ones. Without effect below 256 pixels.

    Raises:
        ValueError: Another output stride, or an unknown norm, activation or pooling.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    dropout_paths: ClassVar[tuple[str, ...]] = ("pre_logits.drop", "head.drop")
    hidden_paths: ClassVar[tuple[str, ...]] = ("pre_logits",)
    inits: ClassVar[Inits] = {nn.Conv2d: init_kaiming, (nn.Conv2d, nn.Linear): init_zero_bias, nn.Linear: init_normal}

    def __init__(
        self, cfg: Sequence[int | str] = cfgs["vgg16"], num_classes: int = 1000, in_chans: int = 3,
        output_stride: int = 32, mlp_ratio: float = 1.0, act_layer: ActLayer = "relu",
        conv_layer: Callable[..., nn.Module] = nn.Conv2d, norm_layer: NormLayer = None, global_pool: str = "avg",
        drop_rate: float = 0.0, fixed_grid: bool = False,
    ) -> None:
        super().__init__()
        if output_stride != 32:
            raise ValueError(f"output_stride is 32 for a VGG, not {output_stride}")
        self.num_classes, self.in_chans = num_classes, in_chans
        norm, act = get_norm_layer(norm_layer), get_act_layer(act_layer)

        self.features = nn.Sequential()
        chs, reduction, stages = in_chans, 1, []  # of each stage: layers until its end, channels, stride
        for width in cfg:
            if width == "M":
                stages.append((len(self.features), chs, reduction))
                self.features.append(nn.MaxPool2d(2))
                reduction *= 2
                continue
            layers = [conv_layer(chs, width, kernel_size=3, padding=1), act(inplace=True)]
            self.features.extend(layers if norm is None else [layers[0], norm(width), layers[1]])
            chs = width
        stages.append((len(self.features), chs, reduction))
        starts = [0, *(stop for stop, *_ in stages)]
        self.flow = Flow(stem=[], stages=[
            Step(f"features[{start}:{stop}]", chs, reduction, module=f"features.{stop - 1}")
            for start, (stop, chs, reduction) in zip(starts, stages)])

        self.num_features = chs
        self.pre_logits: nn.Module = ConvMlp(
            chs, _HIDDEN_CHS, _GRID, mlp_ratio, drop_rate, act_layer, conv_layer, fixed_grid)
        self.head = ClassifierHead(_HIDDEN_CHS, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.head.num_features
        self.init_weights()

    def pool(self, x: Tensor) -> Tensor:
        return self.forward_head(x, pre_logits=True)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(self.pre_logits(x), pre_logits=pre_logits)


register_model.variants(__name__, VGG, {
    f"{name}{suffix}": (dict(cfg=cfg, **norm), f"The paper's configuration {letter}.")
    for (name, cfg), letter in zip(cfgs.items(), "ABDE")
    for suffix, norm in (("", {}), ("_bn", dict(norm_layer="batchnorm2d")))})


def _from_torchvision(state_dict: StateDict, model: nn.Module) -> StateDict:
    """torchvision's hidden layers are linear, the first on the flattened 7x7 map: the same numbers as our kernels."""
    converted = rename_keys(state_dict, (r"^classifier\.0\.", "pre_logits.fc1."),
                            (r"^classifier\.3\.", "pre_logits.fc2."), (r"^classifier\.6\.", "head.fc."))
    for key, side in (("pre_logits.fc1.weight", _GRID), ("pre_logits.fc2.weight", 1)):
        if key in converted:
            converted[key] = converted[key].unflatten(1, (-1, side, side))
    return converted


VGG.key_maps = (KeyMap("torchvision", lambda keys: "classifier.0.weight" in keys, _from_torchvision),)
