"""Classifiers: pooling and linear layer by themselves, a head for channels that come last, one for larger images."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, get_act_layer
from .format import get_spatial_dim
from .helpers import placeable
from .norm import NormLayer, get_norm_layer
from .pool import Head, SelectAdaptivePool2d, adaptive_avgmax_pool2d

__all__ = ["ClNormMlpClassifierHead", "TestTimePoolHead", "apply_test_time_pool", "create_classifier"]

_logger = logging.getLogger(__name__)


def create_classifier(
    num_features: int,
    num_classes: int,
    pool_type: str = "avg",
    use_conv: bool = False,
    input_fmt: str | None = "NCHW",
    drop_rate: float | None = None,
    device: Any = None,
    dtype: torch.dtype | None = None,
) -> tuple[nn.Module, ...]:
    """Pooling and classifier, an identity for 0 classes; with a `drop_rate` the dropout between them, too.

    Args:
        num_features: Channels of the map.
        num_classes: Outputs.
        pool_type, input_fmt: See `SelectAdaptivePool2d`.
        use_conv: A 1x1 convolution, of a pooled map that is not flattened.
        device, dtype: Of the classifier.
    """
    pool = SelectAdaptivePool2d(pool_type=pool_type, flatten=bool(pool_type) and not use_conv, input_fmt=input_fmt)
    width = num_features * pool.feat_mult()
    fc: nn.Module = nn.Identity()
    if num_classes > 0:
        fc = (nn.Conv2d(width, num_classes, 1, device=device, dtype=dtype) if use_conv
              else nn.Linear(width, num_classes, device=device, dtype=dtype))
    return (pool, fc) if drop_rate is None else (pool, nn.Dropout(drop_rate), fc)


class ClNormMlpClassifierHead(Head):
    """Pooling, norm, a hidden layer (if asked for), dropout, classifier; keys `norm`, `pre_logits.fc`, `fc`.

    Shapes: (B, H, W, C) or (B, N, C) -> (B, num_classes); without pooling the positions are kept.

    Args:
        in_features: Channels.
        num_classes: Outputs; 0 for none.
        hidden_size: Width of the hidden layer; none unless given.
        pool_type: "avg", "max", "avgmax" (their mean), or "" for none.
        drop_rate: Dropout before the classifier.
        norm_layer, act_layer: Norm over channels; activation of the hidden layer.
        input_fmt: "NHWC" or "NLC".

    Raises:
        ValueError: The pooling or the layout is another.
    """

    @placeable
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: int | None = None,
        pool_type: str = "avg",
        drop_rate: float = 0.0,
        norm_layer: NormLayer = "layernorm",
        act_layer: ActLayer = "gelu",
        input_fmt: str = "NHWC",
    ) -> None:
        super().__init__()
        if input_fmt not in ("NHWC", "NLC"):
            raise ValueError(f"input_fmt {input_fmt!r} is not one of NHWC, NLC")
        self.in_features = in_features
        self.hidden_size = hidden_size
        self.pool_dim = get_spatial_dim(input_fmt)
        self.set_global_pool(pool_type)
        self.norm: nn.Module = get_norm_layer(norm_layer)(in_features)
        self.pre_logits: nn.Module = nn.Identity()
        if hidden_size:
            self.pre_logits = nn.Sequential()
            self.pre_logits.add_module("fc", nn.Linear(in_features, hidden_size))
            self.pre_logits.add_module("act", get_act_layer(act_layer)())
        self.drop = nn.Dropout(drop_rate)
        self.fc = self.make_classifier(num_classes)

    @property
    def num_features(self) -> int:  # type: ignore[override]
        """Width of the classifier's input."""
        return self.hidden_size or self.in_features

    def set_global_pool(self, pool_type: str) -> None:
        """Change the pooling, in place."""
        if pool_type not in ("", "avg", "max", "avgmax"):
            raise ValueError(f"unknown global_pool '{pool_type}'; known: 'avg', 'max', 'avgmax', ''")
        self.pool_type = pool_type

    def cut(self, in_features: int) -> None:
        self.norm, self.pre_logits = (nn.Identity().train(self.training) for _ in range(2))
        self.in_features, self.hidden_size = in_features, None

    def pool(self, x: Tensor) -> Tensor:
        if self.pool_type:
            mean, peak = x.mean(self.pool_dim), x.amax(self.pool_dim)
            x = {"avg": mean, "max": peak, "avgmax": 0.5 * (mean + peak)}[self.pool_type]
        return self.pre_logits(self.norm(x))


class TestTimePoolHead(nn.Module):
    """A model for images that are larger than those it was trained on; keys `base`, `fc`.

    The classifier is applied to averages over regions of the training images' size, and its answers are pooled to the
    mean of average and maximum. The model loses its classifier.

    Shapes: (B, C, H, W) -> (B, num_classes).

    Args:
        base: A convolutional model with a linear classifier.
        original_pool: Side of the map of a training image.
    """

    __test__ = False  # no test, whatever its name

    def __init__(self, base: Any, original_pool: int | tuple[int, int] = 7) -> None:
        super().__init__()
        self.base = base
        self.original_pool = original_pool
        self.fc = base.get_classifier()
        if not isinstance(self.fc, nn.Conv2d):
            linear = self.fc
            self.fc = nn.Conv2d(linear.in_features, linear.out_features, 1, device=linear.weight.device,
                                dtype=linear.weight.dtype)
            with torch.no_grad():
                self.fc.weight.copy_(linear.weight[:, :, None, None])
                self.fc.bias.copy_(linear.bias)
        base.reset_classifier(0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(F.avg_pool2d(self.base.forward_features(x), self.original_pool, stride=1))
        return adaptive_avgmax_pool2d(x).flatten(1)


def apply_test_time_pool(
    model: Any, config: dict[str, Any], use_test_size: bool = False
) -> tuple[nn.Module, bool]:
    """A `TestTimePoolHead` of a model whose images are larger than its weights' own; otherwise the model as it is.

    Args:
        model: A model.
        config: Its `input_size` (C, H, W) is that of the images.
        use_test_size: The weights' own size is that of their tests, where they have one.

    Returns:
        The model, and whether it is a `TestTimePoolHead`.
    """
    cfg = getattr(model, "default_cfg", None)
    if not cfg:
        return model, False
    size = (cfg.get("test_input_size") if use_test_size else None) or cfg["input_size"]
    if not all(new > old for new, old in zip(config["input_size"][1:], size[1:])):
        return model, False
    _logger.info("images of %s, weights of %s: pooling at test time", config["input_size"][1:], size[1:])
    return TestTimePoolHead(model, original_pool=cfg["pool_size"]), True
