"""Devices by name."""

from __future__ import annotations

import torch

from .errors import ConfigError

__all__ = ["find_device"]


def find_device(name: str | torch.device | None = None) -> torch.device:
    """The device of a name ("cpu", "cuda:1", ...); a GPU if there is one, unless a name is given.

    Raises:
        ConfigError: There is no such device here.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"the device '{name}' cannot be used: {reason}") from None
    return device
