"""DenseNet: inside a block, each layer reads what all layers before it wrote.

DenseNet-BC (https://arxiv.org/abs/1608.06993), recomputation of its concatenations
(https://arxiv.org/abs/1707.06990), blurred downsampling (https://arxiv.org/abs/1904.11486).

The number is the count of layers with weights. A "d" stands for a stem of three 3x3 convolutions, as in ResNet-D.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers.activations import ActLayer
from ..layers.blur_pool import AaLayer, create_aa
from ..layers.helpers import check_choice
from ..layers.norm import BatchNormAct2d, NormLayer, get_norm_act_layer
from ..layers.weight_init import init_kaiming, init_zero_bias
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, Step, rename_keys

if TYPE_CHECKING:
    from ._variants.densenet import *

__all__ = ["DenseBlock", "DenseLayer", "DenseNet", "DenseTransition"]

_STEM_TYPES = ("", "deep", "deep_tiered", "deep_tiered_narrow")


class DenseLayer(nn.Module):
    """Norm, activation and a 1x1 convolution that narrows, then norm, activation and a 3x3 convolution.

    Shapes: list of (B, C_i, H, W) with sum(C_i) = num_input_features -> (B, growth_rate, H, W).

    Args:
        bn_size: Channels between the two convolutions per output channel.
        norm_layer: Makes norm and activation for a number of channels.
        drop_rate: Dropout of the output.
        grad_checkpointing: Recompute what lies before the second norm, above all the concatenation, in the backward
            pass instead of storing it.
    """

    def __init__(
        self, num_input_features: int, growth_rate: int, bn_size: int,
        norm_layer: Callable[[int], nn.Module] = BatchNormAct2d, drop_rate: float = 0.0,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        width = bn_size * growth_rate
        self.norm1 = norm_layer(num_input_features)
        self.conv1 = nn.Conv2d(num_input_features, width, 1, bias=False)
        self.norm2 = norm_layer(width)
        self.conv2 = nn.Conv2d(width, growth_rate, 3, padding=1, bias=False)
        self.drop_rate, self.grad_checkpointing = drop_rate, grad_checkpointing

    def squeeze(self, *features: Tensor) -> Tensor:
        """All inputs (B, C_i, H, W) -> (B, bn_size * growth_rate, H, W)."""
        x = torch.cat(features, dim=1) if len(features) > 1 else features[0]  # of one tensor, `cat` makes a copy
        return self.conv1(self.norm1(x))

    def forward(self, features: list[Tensor]) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            x = checkpoint(self.squeeze, *features, use_reentrant=False)
        else:
            x = self.squeeze(*features)
        x = self.conv2(self.norm2(x))
        return F.dropout(x, self.drop_rate, self.training) if self.drop_rate > 0.0 else x


class DenseBlock(nn.ModuleDict):
    """Layers `denselayer1`, ...; the output is the input and the outputs of all of them. Arguments as for `DenseLayer`.

    Shapes: (B, num_input_features, H, W) -> (B, num_input_features + num_layers * growth_rate, H, W).
    """

    def __init__(
        self, num_layers: int, num_input_features: int, bn_size: int, growth_rate: int,
        norm_layer: Callable[[int], nn.Module] = BatchNormAct2d, drop_rate: float = 0.0,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__({
            f"denselayer{i + 1}": DenseLayer(
                num_input_features + i * growth_rate, growth_rate, bn_size, norm_layer, drop_rate, grad_checkpointing)
            for i in range(num_layers)
        })

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, dim=1)


class DenseTransition(nn.Sequential):
    """Norm, activation, a 1x1 convolution, and pooling that halves the size; keys `norm`, `conv`.

    Shapes: (B, num_input_features, H, W) -> (B, num_output_features, H / 2, W / 2).
    """

    def __init__(
        self, num_input_features: int, num_output_features: int,
        norm_layer: Callable[[int], nn.Module] = BatchNormAct2d, aa_layer: AaLayer = None,
    ) -> None:
        super().__init__()
        self.norm = norm_layer(num_input_features)
        self.conv = nn.Conv2d(num_input_features, num_output_features, 1, bias=False)
        self.pool = create_aa(aa_layer or "avg", num_output_features, stride=2)


class DenseNet(ImageModel):
    """Stem, dense blocks with transitions between them, a final norm, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32 where there are four blocks.

    Args:
        growth_rate: Channels that each layer adds ("k" in the paper); the stem has twice as many.
        block_config: Layers of each block.
        bn_size: Channels between a layer's two convolutions, in growth rates.
        stem_type: "" for one 7x7 convolution, "deep" for three 3x3, "deep_tiered" for three of growing width, the last
            two of which are equal in "deep_tiered_narrow".
        proj_drop_rate: Dropout of each layer's output.
        memory_efficient: Recompute concatenations in the backward pass, as `set_grad_checkpointing` does.
        aa_stem_only: `aa_layer` is for the stem alone, not for the transitions.

    Raises:
        ValueError: An option has an unknown value.
    """

    classifier_path: ClassVar[str] = "classifier"
    feature_form: ClassVar[str] = "flat"
    inits: ClassVar[Inits] = {nn.Conv2d: partial(init_kaiming, mode="fan_in"), nn.Linear: init_zero_bias}

    def __init__(
        self, growth_rate: int = 32, block_config: tuple[int, ...] = (6, 12, 24, 16), num_classes: int = 1000,
        in_chans: int = 3, global_pool: str = "avg", bn_size: int = 4, stem_type: str = "",
        act_layer: ActLayer = "relu", norm_layer: NormLayer = "batchnorm2d", aa_layer: AaLayer = None,
        drop_rate: float = 0.0, proj_drop_rate: float = 0.0, memory_efficient: bool = False, aa_stem_only: bool = True,
    ) -> None:
        super().__init__()
        check_choice("stem_type", stem_type, _STEM_TYPES)
        self.num_classes, self.in_chans = num_classes, in_chans
        norm_act = get_norm_act_layer(norm_layer, act_layer)
        chs = growth_rate * 2
        self.features = nn.Sequential()
        widths, kernel_size = [chs], 7
        if stem_type:
            first = second = growth_rate
            if "tiered" in stem_type:
                first, second = 3 * (growth_rate // 4), 6 * (growth_rate // 4)
            widths, kernel_size = [first, chs if "narrow" in stem_type else second, chs], 3
        stem: list[Step] = []
        for i, (in_chs, width) in enumerate(zip([in_chans, *widths], widths)):
            conv = nn.Conv2d(in_chs, width, kernel_size, 1 if i else 2, padding=kernel_size // 2, bias=False)
            self.features.add_module(f"conv{i}", conv)
            self.features.add_module(f"norm{i}", norm_act(width))
            stem += [Step(f"features.conv{i}"), Step(f"features.norm{i}")]
        self.features.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1) if not aa_layer else nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), create_aa(aa_layer, chs, stride=2) or nn.Identity()))
        # The pool counts as a stage, because the stem's feature is taken before it.
        self.flow = Flow(stem=[*stem[:-1], Step(stem[-1].name, chs, reduction=2)], stages=[Step("features.pool0")])
        reduction = 4
        for i, num_layers in enumerate(block_config, start=1):
            if i > 1:
                transition = DenseTransition(chs, chs // 2, norm_act, None if aa_stem_only else aa_layer)
                self.features.add_module(f"transition{i - 1}", transition)
                self.flow.stages.append(Step(f"features.transition{i - 1}"))
                chs, reduction = chs // 2, reduction * 2
            block = DenseBlock(num_layers, chs, bn_size, growth_rate, norm_act, proj_drop_rate, memory_efficient)
            self.features.add_module(f"denseblock{i}", block)
            chs += num_layers * growth_rate
            is_last = i == len(block_config)  # its feature is taken behind the final norm
            self.flow.stages.append(Step(f"features.denseblock{i}", *(() if is_last else (chs, reduction))))
        self.features.add_module("norm5", norm_act(chs))
        self.flow.stages.append(Step("features.norm5", chs, reduction))
        self.add_classifier(chs, num_classes, global_pool, nn.Dropout(drop_rate))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the layers' concatenations in the backward pass instead of storing them."""
        for module in self.modules():
            if isinstance(module, DenseLayer):
                module.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = [(r"^features\.(?:denseblock|transition)(\d+)", None)] if coarse else [
            (r"^features\.denseblock(\d+)\.denselayer(\d+)", None),
            (r"^features\.transition(\d+)", (99999,))]  # a transition joins its block's last layer
        return dict(stem=r"^features\.(?:conv|norm|pool)[012]", blocks=blocks)


# The architectures
_121 = dict(growth_rate=32, block_config=(6, 12, 24, 16))

register_model.variants(__name__, DenseNet, {
    "densenet121": (_121, "torchvision's."),
    "densenetblur121d": (_121, dict(stem_type="deep", aa_layer="blur")),
    "densenet161": (dict(growth_rate=48, block_config=(6, 12, 36, 24)), "Wider than the others; torchvision's."),
    "densenet169": (dict(growth_rate=32, block_config=(6, 12, 32, 32)), "torchvision's."),
    "densenet201": (dict(growth_rate=32, block_config=(6, 12, 48, 32)), "torchvision's."),
    "densenet264d": dict(growth_rate=48, block_config=(6, 12, 64, 48), stem_type="deep"),
})


# Foreign checkpoints: torchvision's models have our keys, but what it publishes is older, with "norm.1" for "norm1"
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)")
DenseNet.key_maps = (
    KeyMap("torchvision", lambda keys: any(_OLD_NAME.search(key) for key in keys),
           lambda state_dict, model: rename_keys(state_dict, (_OLD_NAME.pattern, r"\1"))),
)
