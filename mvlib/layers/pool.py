"""Global pooling and the classifier head of convolutional and hierarchical models."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, get_act_layer
from .conv import Padding, pad_same, resolve_padding
from .helpers import placeable, to_2tuple
from .norm import NormLayer, get_norm_layer

__all__ = [
    "POOL_TYPES", "AvgPool2dSame", "ClassifierHead", "ConvClassifier", "GlobalPool2d", "Head", "MaxPool2dSame",
    "NormMlpClassifierHead", "SelectAdaptivePool2d", "create_pool2d", "shortcut_pool",
]

POOL_TYPES = ("avg", "max", "avgmax", "catavgmax", "")
_SPATIAL_DIMS = {"NCHW": (2, 3), "NHWC": (1, 2)}


class AvgPool2dSame(nn.AvgPool2d):
    """Average pooling with TensorFlow's "same" padding, whose zeros count as values; stride as kernel unless given.

    Shapes: (B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | str = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(to_2tuple(kernel_size), to_2tuple(kernel_size if stride is None else stride), 0, ceil_mode,
                         count_include_pad)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad_same(x, self.kernel_size, self.stride))


class MaxPool2dSame(nn.MaxPool2d):
    """Max pooling with TensorFlow's "same" padding, which is never the maximum; stride as kernel unless given.

    Shapes: (B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | str = 0,
        dilation: int | tuple[int, int] = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(to_2tuple(kernel_size), to_2tuple(kernel_size if stride is None else stride), 0,
                         to_2tuple(dilation), ceil_mode=ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad_same(x, self.kernel_size, self.stride, self.dilation, -math.inf))


def create_pool2d(
    pool_type: str, kernel_size: int, stride: int | None = None, padding: Padding = "", **kwargs: Any
) -> nn.Module:
    """An "avg" or "max" pool; stride as kernel unless given; `padding` as in `resolve_padding`.

    Args:
        kwargs: Further arguments of the pool: `ceil_mode`, `count_include_pad`, ...

    Raises:
        ValueError: The type or the padding is unknown.
    """
    pools: dict[str, tuple[Any, Any]] = {
        "avg": (nn.AvgPool2d, AvgPool2dSame), "max": (nn.MaxPool2d, MaxPool2dSame)}
    if pool_type not in pools:
        raise ValueError(f"pool_type {pool_type!r} is not one of {', '.join(pools)}")
    stride = stride or kernel_size
    static, is_dynamic = resolve_padding(padding, kernel_size, stride, kwargs.get("dilation", 1))
    return pools[pool_type][is_dynamic](kernel_size, stride, static, **kwargs)


def shortcut_pool(stride: int, dilation: int = 1) -> nn.Module:
    """The 2x2 average pool by which a shortcut shrinks as ResNet-D's; where a stride became dilation, it keeps size."""
    if dilation > 1:
        return AvgPool2dSame(2, stride=1)
    return nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()


class SelectAdaptivePool2d(nn.Module):
    """Pool a feature map, as a rule to one vector.

    Shapes: (B, C, H, W) or (B, H, W, C) -> (B, C), or (B, 2C) for "catavgmax". Unflattened output keeps the spatial
    dimensions with size 1 (or `output_size`). The empty pool type passes the map through.

    Args:
        output_size: Rows and columns of the output.
        pool_type: "avg", "max", "avgmax" (their mean), "catavgmax" (both), or "" for none; "fast" before it is ignored.
        flatten: Drop the pooled dimensions.
        input_fmt: "NCHW" or "NHWC".

    Raises:
        ValueError: The pool type is unknown, or an output of several positions is asked of what cannot give it.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int] = 1,
        pool_type: str = "fast",
        flatten: bool = False,
        input_fmt: str = "NCHW",
    ) -> None:
        super().__init__()
        kind = (pool_type or "").lower()
        kind = "avg" if kind == "fast" else kind.removeprefix("fast")
        if kind not in POOL_TYPES:
            raise ValueError(f"unknown global_pool '{pool_type}'; known: {', '.join(repr(p) for p in POOL_TYPES)}")
        self.output_size = to_2tuple(output_size)
        if self.output_size != (1, 1) and (input_fmt != "NCHW" or kind != pool_type):
            raise ValueError(f"global_pool '{pool_type}' of {input_fmt} gives one position, not {output_size}")
        self.pool_type = kind
        self.flatten = flatten
        self.layout = input_fmt

    def feat_mult(self) -> int:
        """Output channels per input channel."""
        return 2 if self.pool_type == "catavgmax" else 1

    def is_identity(self) -> bool:
        return not self.pool_type

    def forward(self, x: Tensor) -> Tensor:
        if not self.pool_type:
            return x.flatten(1) if self.flatten else x
        if self.output_size != (1, 1):
            return self._pool_to_size(x)
        dims, keep = _SPATIAL_DIMS[self.layout], not self.flatten
        if self.pool_type == "avg":
            return x.mean(dims, keepdim=keep)
        if self.pool_type == "max":
            return x.amax(dims, keepdim=keep)
        avg, peak = x.mean(dims, keepdim=keep), x.amax(dims, keepdim=keep)
        if self.pool_type == "avgmax":
            return 0.5 * avg + 0.5 * peak
        return torch.cat((avg, peak), dim=1 if self.flatten or self.layout == "NCHW" else -1)

    def _pool_to_size(self, x: Tensor) -> Tensor:
        avg, peak = F.adaptive_avg_pool2d(x, self.output_size), F.adaptive_max_pool2d(x, self.output_size)
        pooled = {"avg": avg, "max": peak, "avgmax": 0.5 * avg + 0.5 * peak, "catavgmax": torch.cat((avg, peak), 1)}
        return pooled[self.pool_type].flatten(1) if self.flatten else pooled[self.pool_type]

    def extra_repr(self) -> str:
        return f"pool_type={self.pool_type!r}, flatten={self.flatten}, layout={self.layout!r}"


class GlobalPool2d(SelectAdaptivePool2d):
    """`SelectAdaptivePool2d` with what models mostly need in front: a vector for each image."""

    def __init__(self, pool_type: str = "avg", flatten: bool = True, layout: str = "NCHW") -> None:
        super().__init__(1, pool_type, flatten and bool(pool_type), layout)

    @property
    def out_factor(self) -> int:
        """Output channels per input channel."""
        return self.feat_mult()


class Head(nn.Module):
    """What `ImageModel` asks of a head, where a family has one module for it: pooling, dropout `drop`, classifier `fc`.

    Shapes: feature map -> (B, num_classes), or the pooled features where `num_classes` is 0.
    """

    in_features: int
    num_features: int  # width of the classifier's input
    global_pool: GlobalPool2d
    drop: nn.Dropout
    fc: nn.Module

    def pool(self, x: Tensor) -> Tensor:
        """Feature map -> the classifier's input, but for dropout."""
        return self.global_pool(x)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """A classifier that fits this head, or an identity for 0 classes."""
        return nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def set_global_pool(self, pool_type: str) -> None:
        """Change the pooling, in place; the classifier has to be made anew."""
        self.global_pool = GlobalPool2d(pool_type, layout=self.global_pool.layout)

    def cut(self, in_features: int) -> None:
        """Remove, in place, what fits the final features alone: the head then takes any of `in_features` channels."""
        self.in_features = in_features

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.pool(x))
        return x if pre_logits else self.fc(x)


class ConvClassifier(nn.Conv2d):
    """A linear classifier with the weight of a 1x1 convolution.

    Shapes: (B, C) -> (B, num_classes) where `is_pooled`, otherwise (B, C, H, W) -> (B, num_classes, H, W).
    """

    def __init__(self, in_features: int, num_classes: int, is_pooled: bool) -> None:
        super().__init__(in_features, num_classes, 1)
        self.is_pooled = is_pooled

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias) if self.is_pooled else super().forward(x)


class ClassifierHead(Head):
    """Global pooling, dropout and a linear classifier; keys `fc.weight`, `fc.bias`. The map is in `input_fmt`.

    With `use_conv` the classifier is a 1x1 convolution: without pooling it gives a map (B, num_classes, H, W).
    """

    @placeable
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        pool_type: str = "avg",
        drop_rate: float = 0.0,
        use_conv: bool = False,
        input_fmt: str = "NCHW",
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.use_conv = use_conv
        self.global_pool = GlobalPool2d(pool_type, layout=input_fmt)
        self.drop = nn.Dropout(drop_rate)
        self.fc = self.make_classifier(num_classes)

    @property
    def num_features(self) -> int:
        return self.in_features * self.global_pool.out_factor

    def make_classifier(self, num_classes: int) -> nn.Module:
        if self.use_conv and num_classes > 0:
            return ConvClassifier(self.num_features, num_classes, bool(self.global_pool.pool_type))
        return super().make_classifier(num_classes)


class NormMlpClassifierHead(Head):
    """Global pooling, norm, a hidden layer (if asked for), dropout, classifier; keys `norm`, `pre_logits.fc`, `fc`.

    Shapes: (B, C, H, W) -> (B, num_classes). Without pooling the layers are 1x1 convolutions and the map keeps its
    size: (B, num_classes, H, W). Where `num_classes` is 0, the classifier's input is returned.

    Args:
        in_features: Channels of the feature map.
        num_classes: Outputs of the classifier; 0 for none.
        hidden_size: Width of the hidden layer; none unless given.
        pool_type: "avg", "max", "avgmax", or "" for none.
        drop_rate: Dropout before the classifier.
        norm_layer: Norm over the channels of a feature map.
        act_layer: Activation of the hidden layer.
        bias: Whether the classifier has a bias.

    Raises:
        ValueError: The pooling is unknown, or changes the number of channels.
    """

    @placeable
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: int | None = None,
        pool_type: str = "avg",
        drop_rate: float = 0.0,
        norm_layer: NormLayer = "layernorm2d",
        act_layer: ActLayer = "tanh",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.hidden_size = hidden_size
        self.has_bias = bias
        self.global_pool = _make_narrow_pool(pool_type)
        self.norm = get_norm_layer(norm_layer)(in_features)
        self.pre_logits: nn.Module = nn.Identity()
        if hidden_size:
            self.pre_logits = nn.Sequential()
            self.pre_logits.add_module("fc", self._make_linear(in_features, hidden_size))
            self.pre_logits.add_module("act", get_act_layer(act_layer)())
        self.drop = nn.Dropout(drop_rate)
        self.fc = self.make_classifier(num_classes)

    @property
    def num_features(self) -> int:
        return self.hidden_size or self.in_features

    def make_classifier(self, num_classes: int) -> nn.Module:
        if num_classes <= 0:
            return nn.Identity()
        return self._make_linear(self.num_features, num_classes, self.has_bias)

    def set_global_pool(self, pool_type: str) -> None:
        """As every head's; the hidden layer keeps its weights."""
        self.global_pool = _make_narrow_pool(pool_type)
        if isinstance(self.pre_logits, nn.Sequential):
            old, fresh = self.pre_logits.fc, self._make_linear(self.in_features, self.hidden_size)
            weight = old.weight.detach().reshape(fresh.weight.shape)
            fresh.weight, fresh.bias = nn.Parameter(weight, requires_grad=old.weight.requires_grad), old.bias
            self.pre_logits.fc = fresh.train(old.training)

    def cut(self, in_features: int) -> None:
        self.norm, self.pre_logits = nn.Identity(), nn.Identity()
        self.in_features, self.hidden_size = in_features, None

    def _make_linear(self, in_features: int, out_features: int, bias: bool = True) -> nn.Module:
        if self.global_pool.pool_type:
            return nn.Linear(in_features, out_features, bias=bias)
        return nn.Conv2d(in_features, out_features, 1, bias=bias)

    def pool(self, x: Tensor) -> Tensor:
        x = self.norm(self.global_pool(x))
        return self.pre_logits(x.flatten(1) if self.global_pool.pool_type else x)


def _make_narrow_pool(pool_type: str) -> GlobalPool2d:
    pool = GlobalPool2d(pool_type, flatten=False)
    if pool.out_factor != 1:
        raise ValueError(f"global_pool '{pool_type}' changes the width, which the norm in this head does not fit")
    return pool
