"""Anti-aliased downsampling."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from math import comb
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .helpers import check_layer, placeable

__all__ = ["AaLayer", "BlurPool2d", "create_aa"]

AaLayer = str | Callable[..., nn.Module] | None


class BlurPool2d(nn.Module):
    """Blur each channel with a binomial filter, then take every `stride`-th pixel.

    Shapes: (B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride)); no keys, the filter is not saved.
    Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", 2019.

    Args:
        channels: Channels, the input's unless given (ONNX's older exporter wants them said): the filter is the same
            for all.
        filt_size: Side of the filter, at least 2.
        stride: Downsampling factor.
        pad_mode: `F.pad`'s mode at the borders: "reflect", "constant" (zeros), ...
    """

    @placeable
    def __init__(
        self, channels: int | None = None, filt_size: int = 3, stride: int = 2, pad_mode: str = "reflect"
    ) -> None:
        super().__init__()
        self.channels = channels
        self.filt_size = filt_size
        self.stride = stride
        self.pad_mode = pad_mode
        self.padding = (stride + filt_size - 2) // 2
        self.register_buffer("filt", torch.empty(1, 1, filt_size, filt_size), persistent=False)
        if not self.filt.is_meta:
            self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Fill the filter: the outer square of a row of Pascal's triangle, with sum 1."""
        row = [comb(self.filt_size - 1, k) / 2 ** (self.filt_size - 1) for k in range(self.filt_size)]
        values = torch.tensor([[a * b for b in row] for a in row], dtype=torch.float64, device=self.filt.device)
        self.filt.copy_(values[None, None])

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (self.padding,) * 4, mode=self.pad_mode)
        channels = self.channels or x.shape[1]
        return F.conv2d(x, self.filt.expand(channels, -1, -1, -1), stride=self.stride, groups=channels)

    def extra_repr(self) -> str:
        return f"{self.channels}, filt_size={self.filt_size}, stride={self.stride}, pad_mode={self.pad_mode!r}"


_AA_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "avg": nn.AvgPool2d,
    "avgpool": nn.AvgPool2d,
    "blur": BlurPool2d,
    "blurpool": BlurPool2d,
    "blurpc": partial(BlurPool2d, pad_mode="constant"),
}


def create_aa(
    aa_layer: AaLayer,
    channels: int | None = None,
    stride: int = 2,
    enable: bool = True,
    noop: Callable[[], nn.Module] | None = nn.Identity,
    device: Any = None,
    dtype: torch.dtype | None = None,
) -> nn.Module | None:
    """The layer that downsamples by `stride` in place of a strided convolution; an identity where there is none.

    Args:
        aa_layer: "avg", "blur", "blurpc" (zeros at the borders), or a class that takes `channels` and `stride`, or
            only a stride.
        channels: Channels of the feature map.
        stride: Downsampling factor.
        enable: False for none.
        noop: What stands for none; None for None.
        device, dtype: Of the layer's filter.

    Raises:
        ValueError: The name is unknown, or can make no layer.
    """
    if not aa_layer or not enable:
        return noop() if noop is not None else None
    if isinstance(aa_layer, str):
        name = aa_layer.lower().replace("_", "").replace("-", "")
        if name not in _AA_LAYERS:
            raise ValueError(f"unknown anti-aliasing layer '{aa_layer}'; known: {', '.join(sorted(_AA_LAYERS))}")
        aa_layer = _AA_LAYERS[name]
    parameters = inspect.signature(check_layer(aa_layer, "anti-aliasing layer")).parameters
    if "channels" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        layer = aa_layer(channels=channels, stride=stride)
    else:
        layer = aa_layer(stride)  # a plain pooling layer
    return layer.to(device, dtype) if device is not None or dtype is not None else layer
