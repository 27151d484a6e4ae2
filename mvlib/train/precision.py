"""Mixed precision, and where it does not pay."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial

import torch

from ..optimization.precision import check_precision, keep_slow_convolutions_in_float32
from ..precisions import precision_name

__all__ = ["autocast_for", "keep_slow_convolutions_in_float32"]

_logger = logging.getLogger("mvlib")


def autocast_for(
    device: torch.device, dtype: str = "float16", force: bool = False
) -> tuple[Callable[[], contextlib.AbstractContextManager], torch.amp.GradScaler | None]:
    """The context of a forward pass in mixed precision, and the gradient scaler that float16 needs.

    On a CPU it is bfloat16 whatever is asked for.

    Raises:
        ConfigError: The device is slower in that type than in float32, and `force` is not given.
    """
    kind = getattr(torch, precision_name(dtype))
    if device.type == "cpu" and kind is torch.float16:
        kind = torch.bfloat16
        _logger.info("--amp on a CPU: bfloat16 autocast, which needs no loss scaling")
    check_precision(kind, device, force)
    scaler = torch.amp.GradScaler(device.type) if kind is torch.float16 else None
    return partial(torch.autocast, device.type, kind), scaler
