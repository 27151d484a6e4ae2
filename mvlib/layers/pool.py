"""Global pooling and the classifier head of convolutional and hierarchical models."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import NoneType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, get_act_layer
from .format import get_channel_dim, get_spatial_dim
from .helpers import Module, get_device_dtype, placeable, to_2tuple
from .norm import NormLayer, get_norm_layer
from .padding import Padding, pad_same, resolve_padding

__all__ = [
    "POOL_TYPES", "AdaptiveAvgMaxPool2d", "AdaptiveCatAvgMaxPool2d", "AvgPool2dSame", "ClassifierHead",
    "ConvClassifier", "FastAdaptiveAvgMaxPool", "FastAdaptiveAvgPool", "FastAdaptiveCatAvgMaxPool",
    "FastAdaptiveMaxPool", "GlobalPool2d", "Head", "MaxPool2dSame", "NormMlpClassifierHead", "SelectAdaptivePool2d",
    "adaptive_avgmax_pool2d", "adaptive_catavgmax_pool2d", "adaptive_pool_feat_mult", "avg_pool2d_same",
    "create_pool2d", "global_pool_nlc", "max_pool2d_same", "select_adaptive_pool2d", "shortcut_pool",
]

POOL_TYPES = ("avg", "max", "avgmax", "catavgmax", "")
Sides = int | tuple[int, int]


def avg_pool2d_same(
    x: Tensor, kernel_size: Sides, stride: Sides, padding: Sides = (0, 0), ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """What `AvgPool2dSame` does; `padding` is without effect."""
    return F.avg_pool2d(pad_same(x, kernel_size, stride), kernel_size, stride, 0, ceil_mode, count_include_pad)


def max_pool2d_same(
    x: Tensor, kernel_size: Sides, stride: Sides, padding: Sides = (0, 0), dilation: Sides = (1, 1),
    ceil_mode: bool = False,
) -> Tensor:
    """What `MaxPool2dSame` does; `padding` is without effect."""
    x = pad_same(x, kernel_size, stride, dilation, -math.inf)
    return F.max_pool2d(x, kernel_size, stride, 0, dilation, ceil_mode)


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


def adaptive_pool_feat_mult(pool_type: str = "avg") -> int:
    """Output channels per input channel of a kind of pooling."""
    return 2 if pool_type.endswith("catavgmax") else 1


def adaptive_avgmax_pool2d(x: Tensor, output_size: Sides = 1) -> Tensor:
    """The mean of average and maximum: (B, C, H, W) -> (B, C, *output_size)."""
    return 0.5 * (F.adaptive_avg_pool2d(x, output_size) + F.adaptive_max_pool2d(x, output_size))


def adaptive_catavgmax_pool2d(x: Tensor, output_size: Sides = 1) -> Tensor:
    """Average and maximum: (B, C, H, W) -> (B, 2C, *output_size)."""
    return torch.cat((F.adaptive_avg_pool2d(x, output_size), F.adaptive_max_pool2d(x, output_size)), dim=1)


def select_adaptive_pool2d(x: Tensor, pool_type: str = "avg", output_size: Sides = 1) -> Tensor:
    """Pool a map to `output_size` by "avg", "max", "avgmax" (their mean) or "catavgmax" (both).

    Raises:
        ValueError: The pool type is another.
    """
    pools: dict[str, Callable[..., Tensor]] = {
        "avg": F.adaptive_avg_pool2d, "max": F.adaptive_max_pool2d, "avgmax": adaptive_avgmax_pool2d,
        "catavgmax": adaptive_catavgmax_pool2d}
    if pool_type not in pools:
        raise _unknown(pool_type)
    return pools[pool_type](x, output_size)


def _unknown(pool_type: str) -> ValueError:
    return ValueError(f"unknown global_pool '{pool_type}'; known: {', '.join(repr(p) for p in POOL_TYPES)}")


def global_pool_nlc(
    x: Tensor, pool_type: str = "token", num_prefix_tokens: int = 1, reduce_include_prefix: bool = False
) -> Tensor:
    """Pool tokens (B, N, C) -> (B, C): "token" for the first, "avg", "max", "avgmax" (their mean), or "" for none.

    Args:
        num_prefix_tokens: Leading tokens that are left out,
        reduce_include_prefix: unless this is said.

    Raises:
        ValueError: The pool type is another.
    """
    if not pool_type:
        return x
    if pool_type == "token":
        return x[:, 0]
    x = x if reduce_include_prefix else x[:, num_prefix_tokens:]
    if pool_type == "avg":
        return x.mean(1)
    if pool_type == "max":
        return x.amax(1)
    if pool_type == "avgmax":
        return 0.5 * (x.amax(1) + x.mean(1))
    raise ValueError(f"unknown global_pool '{pool_type}'; known: 'token', 'avg', 'max', 'avgmax', ''")


class AdaptiveAvgMaxPool2d(nn.Module):
    """The mean of average and maximum: (B, C, H, W) -> (B, C, *output_size)."""

    def __init__(self, output_size: Sides = 1) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avgmax_pool2d(x, self.output_size)


class AdaptiveCatAvgMaxPool2d(AdaptiveAvgMaxPool2d):
    """Average and maximum: (B, C, H, W) -> (B, 2C, *output_size)."""

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_catavgmax_pool2d(x, self.output_size)


class FastAdaptiveAvgPool(nn.Module):
    """The average over positions. Shapes: (B, C, H, W) -> (B, C, 1, 1), or as `input_fmt` says; (B, C) if `flatten`."""

    def __init__(self, flatten: bool = False, input_fmt: str = "NCHW") -> None:
        super().__init__()
        self.flatten = flatten
        self.dim, self.channel_dim = get_spatial_dim(input_fmt), 1 if flatten else get_channel_dim(input_fmt)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dim, keepdim=not self.flatten)


class FastAdaptiveMaxPool(FastAdaptiveAvgPool):
    """The maximum over positions; shapes as `FastAdaptiveAvgPool`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(self.dim, keepdim=not self.flatten)


class FastAdaptiveAvgMaxPool(FastAdaptiveAvgPool):
    """The mean of average and maximum; shapes as `FastAdaptiveAvgPool`."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x.mean(self.dim, keepdim=not self.flatten) + 0.5 * x.amax(self.dim, keepdim=not self.flatten)


class FastAdaptiveCatAvgMaxPool(FastAdaptiveAvgPool):
    """Average and maximum; shapes as `FastAdaptiveAvgPool`, with twice the channels."""

    def forward(self, x: Tensor) -> Tensor:
        parts = x.mean(self.dim, keepdim=not self.flatten), x.amax(self.dim, keepdim=not self.flatten)
        return torch.cat(parts, dim=self.channel_dim)


class SelectAdaptivePool2d(nn.Module):
    """Pool a feature map, as a rule to one vector: `pool`, then `flatten`.

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

    _fast = {"avg": FastAdaptiveAvgPool, "max": FastAdaptiveMaxPool, "avgmax": FastAdaptiveAvgMaxPool,
             "catavgmax": FastAdaptiveCatAvgMaxPool}
    _sized: ClassVar[dict[str, Callable[..., nn.Module]]] = {
        "avg": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d, "avgmax": AdaptiveAvgMaxPool2d,
        "catavgmax": AdaptiveCatAvgMaxPool2d}

    def __init__(
        self,
        output_size: Sides = 1,
        pool_type: str = "fast",
        flatten: bool = False,
        input_fmt: str | None = "NCHW",
    ) -> None:
        super().__init__()
        kind = (pool_type or "").lower()
        kind = "avg" if kind == "fast" else kind.removeprefix("fast")
        if kind not in POOL_TYPES:
            raise _unknown(pool_type)
        self.output_size = to_2tuple(output_size)
        self.layout = input_fmt or "NCHW"
        is_vector = self.output_size == (1, 1)
        if not is_vector and (self.layout != "NCHW" or kind != pool_type):
            raise ValueError(f"global_pool '{pool_type}' of {input_fmt} gives one position, not {output_size}")
        self.pool_type = kind
        self.pool: nn.Module = nn.Identity()
        if kind:
            self.pool = self._fast[kind](input_fmt=self.layout) if is_vector else self._sized[kind](self.output_size)
        self.flatten: nn.Module = nn.Flatten(1) if flatten else nn.Identity()

    def feat_mult(self) -> int:
        """Output channels per input channel."""
        return adaptive_pool_feat_mult(self.pool_type)

    def is_identity(self) -> bool:
        return not self.pool_type

    def forward(self, x: Tensor) -> Tensor:
        return self.flatten(self.pool(x))

    def __repr__(self) -> str:
        flatten = isinstance(self.flatten, nn.Flatten)
        return f"{type(self).__name__}(pool_type={self.pool_type!r}, flatten={flatten}, layout={self.layout!r})"


class GlobalPool2d(SelectAdaptivePool2d):
    """`SelectAdaptivePool2d` with what models mostly need in front: a vector for each image."""

    def __init__(self, pool_type: str = "avg", flatten: bool = True, layout: str = "NCHW") -> None:
        super().__init__(1, pool_type, flatten and bool(pool_type), layout)

    @property
    def out_factor(self) -> int:
        """Output channels per input channel."""
        return self.feat_mult()


class Head(Module):
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

    def set_classifier(self, classifier: nn.Module) -> None:
        """Put a classifier in the place of the head's."""
        self.fc = classifier

    def set_global_pool(self, pool_type: str) -> None:
        """Change the pooling, in place; the classifier has to be made anew."""
        self.global_pool = GlobalPool2d(pool_type, layout=self.global_pool.layout).train(self.training)

    def cut(self, in_features: int) -> None:
        """Remove, in place, what fits the final features alone: the head then takes any of `in_features` channels."""
        self.in_features = in_features

    def reset(
        self,
        num_classes: int | None,
        pool_type: str | None = None,
        reset_other: bool = False,
        in_features: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the classifier anew, in place.

        Args:
            num_classes: Its outputs; 0 removes it, None keeps it.
            pool_type: New pooling, unchanged if None.
            reset_other: Remove norm and hidden layers, too.
            in_features: Channels of the feature map, where they change.
            device, dtype: Of the classifier; the head's unless given.

        Raises:
            ValueError: The channels change, and there is a norm that they do not fit.
        """
        placed = get_device_dtype(self, device, dtype)
        in_features = self.in_features if in_features is None else in_features
        if reset_other:
            self.cut(in_features)
        elif in_features != self.in_features:
            if not isinstance(getattr(self, "norm", None), (nn.Identity, NoneType)):
                raise ValueError("in_features changes only without the norm; reset it with reset_other=True")
            self.in_features = in_features
        if pool_type is not None:
            self.set_global_pool(pool_type)
        if num_classes is not None:
            self.set_classifier(self.make_classifier(num_classes).to(**placed).train(self.training))

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
        self.input_fmt = input_fmt
        self.global_pool = GlobalPool2d(pool_type, layout=input_fmt)
        self.drop = nn.Dropout(drop_rate)
        self.fc = self.make_classifier(num_classes)
        self.flatten = nn.Identity()  # what is pooled is flat

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
        self.global_pool = make_narrow_pool(pool_type)
        self.norm = get_norm_layer(norm_layer)(in_features)
        self.flatten = nn.Flatten(1) if pool_type else nn.Identity()
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

    @property
    def use_conv(self) -> bool:
        """Whether the layers are convolutions, for a map."""
        return self.global_pool.is_identity()

    def make_classifier(self, num_classes: int) -> nn.Module:
        if num_classes <= 0:
            return nn.Identity()
        return self._make_linear(self.num_features, num_classes, self.has_bias)

    def set_global_pool(self, pool_type: str) -> None:
        """As every head's; the hidden layer keeps its weights."""
        self.global_pool = make_narrow_pool(pool_type).train(self.training)
        self.flatten = (nn.Flatten(1) if pool_type else nn.Identity()).train(self.training)
        if isinstance(self.pre_logits, nn.Sequential):
            old, fresh = self.pre_logits.fc, self._make_linear(self.in_features, self.hidden_size)
            weight = old.weight.detach().reshape(fresh.weight.shape)
            fresh.weight, fresh.bias = nn.Parameter(weight, requires_grad=old.weight.requires_grad), old.bias
            self.pre_logits.fc = fresh.train(old.training)

    def cut(self, in_features: int) -> None:
        self.norm, self.pre_logits = (nn.Identity().train(self.training) for _ in range(2))
        self.in_features, self.hidden_size = in_features, None

    def _make_linear(self, in_features: int, out_features: int, bias: bool = True) -> nn.Module:
        if self.global_pool.pool_type:
            return nn.Linear(in_features, out_features, bias=bias)
        return nn.Conv2d(in_features, out_features, 1, bias=bias)

    def pool(self, x: Tensor) -> Tensor:
        return self.pre_logits(self.flatten(self.norm(self.global_pool(x))))


def make_narrow_pool(pool_type: str, flatten: bool = False) -> GlobalPool2d:
    """Pooling that keeps the number of channels.

    Raises:
        ValueError: The pooling is unknown, or changes the number of channels.
    """
    pool = GlobalPool2d(pool_type, flatten)
    if pool.out_factor != 1:
        raise ValueError(f"global_pool '{pool_type}' changes the width, which the layers in this head do not fit")
    return pool
