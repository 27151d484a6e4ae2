"""Mixed precision, and where it does not pay."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

__all__ = ["autocast_for", "keep_slow_convolutions_in_float32"]

_logger = logging.getLogger("mvlib")


def autocast_for(
    device: torch.device, dtype: str = "float16"
) -> tuple[Callable[[], contextlib.AbstractContextManager], torch.amp.GradScaler | None]:
    """The context of a forward pass in mixed precision, and the gradient scaler that float16 needs.

    On a CPU it is bfloat16 whatever is asked for.
    """
    kind = getattr(torch, dtype)
    if device.type == "cpu" and kind is torch.float16:
        kind = torch.bfloat16
        _logger.info("--amp on a CPU: bfloat16 autocast, which needs no loss scaling")
    scaler = torch.amp.GradScaler(device.type) if kind is torch.float16 else None
    return partial(torch.autocast, device.type, kind), scaler


def keep_slow_convolutions_in_float32(model: nn.Module) -> nn.Module:
    """Leave depthwise convolutions that are strided or larger than 3 x 3 in float32 under a CPU's autocast, in place.

    oneDNN's bfloat16 kernels take two to five times as long as its float32 ones for their gradients. The rest of the
    model is untouched. Returns the model.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 \
                and (max(module.kernel_size) > 3 or max(module.stride) > 1):
            module.forward = partial(_in_float32, module, type(module).forward)
    return model


def _in_float32(module: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(x.device.type):
        return forward(module, x)
    dtype = torch.get_autocast_dtype(x.device.type)
    with torch.autocast(x.device.type, enabled=False):
        return forward(module, x.float()).to(dtype)
