"""Switches that layers look at when they are built, as timm's code sets them."""

from __future__ import annotations

import os
from typing import Any

__all__ = [
    "is_exportable", "is_no_jit", "is_scriptable", "set_exportable", "set_fused_attn", "set_layer_config", "set_no_jit",
    "set_reentrant_ckpt", "set_scriptable", "use_fused_attn", "use_reentrant_ckpt",
]


def _fused_level(text: str) -> int:
    if text not in ("0", "1", "2"):
        raise ValueError(f"the environment variable TIMM_FUSED_ATTN is 0 (off), 1 or 2 (on), not {text!r}")
    return int(text)


_flags = dict.fromkeys(("scriptable", "exportable", "no_jit", "no_activation_jit"), False)
_fused = _fused_level(os.environ.get("TIMM_FUSED_ATTN", "1"))  # 2 takes in what is experimental; nothing here is
_reentrant = os.environ.get("TIMM_REENTRANT_CKPT", "").lower() in ("1", "true", "yes", "on")


class set_layer_config:
    """Set switches, those that are not None: from now on, or as a context manager within it.

    Of what is built then, `exportable` alone changes something here: attention is written out (`use_fused_attn`).
    Activations need no other form to be scripted or exported.
    """

    def __init__(
        self,
        scriptable: bool | None = None,
        exportable: bool | None = None,
        no_jit: bool | None = None,
        no_activation_jit: bool | None = None,
    ) -> None:
        wanted = (scriptable, exportable, no_jit, no_activation_jit)
        self.before = dict(_flags)
        _flags.update({name: value for name, value in zip(_flags, wanted) if value is not None})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        _flags.update(self.before)


class _set_one(set_layer_config):
    name = ""

    def __init__(self, mode: bool) -> None:
        self.before = {self.name: _flags[self.name]}
        _flags[self.name] = mode


class set_scriptable(_set_one):
    """`set_layer_config(scriptable=mode)`."""

    name = "scriptable"


class set_exportable(_set_one):
    """`set_layer_config(exportable=mode)`."""

    name = "exportable"


class set_no_jit(_set_one):
    """`set_layer_config(no_jit=mode)`."""

    name = "no_jit"


def is_scriptable() -> bool:
    """Whether what is built now shall be fit for `torch.jit.script`."""
    return _flags["scriptable"]


def is_exportable() -> bool:
    """Whether what is built now shall be fit for older exporters."""
    return _flags["exportable"]


def is_no_jit() -> bool:
    """Whether what is built now shall hold nothing that is scripted; nothing here does."""
    return _flags["no_jit"]


def use_fused_attn(experimental: bool = False) -> bool:
    """Whether attention that is built now uses torch's fused kernel."""
    return _fused > (1 if experimental else 0) and not is_exportable()


def set_fused_attn(enable: bool = True, experimental: bool = False) -> None:
    """Choose, for models that are built from now on, between torch's fused kernel and plain matrix products.

    Plain ones show each attention map to hooks on the attention's `attn_drop` (Swin's `softmax`, too). A model that is
    built already is switched module by module: `block.attn.fused_attn = False`. The environment variable
    TIMM_FUSED_ATTN (0, 1 or 2) says what is so at first.
    """
    global _fused
    _fused = (2 if experimental else 1) if enable else 0


def use_reentrant_ckpt() -> bool:
    """Whether models that recompute activations do it by torch's older, reentrant way."""
    return _reentrant


def set_reentrant_ckpt(enable: bool = True) -> None:
    """Choose torch's reentrant way of recomputing activations, or its better one, which is so at first.

    The environment variable TIMM_REENTRANT_CKPT says what is so at first.
    """
    global _reentrant
    _reentrant = enable
