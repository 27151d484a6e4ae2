"""What a command can be told about model and machine. Imports no torch."""

from __future__ import annotations

import re

from .. import precisions
from ..names import parse_model_name
from ..registry import get_arch_tags, is_model, resolve_name

__all__ = ["BATCH_SIZES", "COMPILE", "DECODINGS", "DEFAULT_MODEL", "PRECISIONS", "SHEETS", "quantized_name"]

DEFAULT_MODEL = "tf_efficientnet_lite0.pip_in1k"  # its weights come from the package index, so no hub is needed
PRECISIONS = (*precisions.PRECISIONS, "int8")
COMPILE = ("auto", "on", "off")
DECODINGS = ("full", "scaled", "reference")
SHEETS = (".png", ".jpg", ".jpeg", ".webp")  # what a contact sheet is drawn as
BATCH_SIZES = {"cpu": 4, "cuda": 64}  # images at once, in each thread of the model


def quantized_name(name: str) -> str | None:
    """The name of int8 weights that were made from the weights `name`."""
    if parse_model_name(name).source is not None:
        return None
    architecture, tag = resolve_name(name)
    if not is_model(f"quantized_{architecture}"):
        return None
    for candidate in get_arch_tags(f"quantized_{architecture}"):
        if not tag or re.sub(r"_(fbgemm|qnnpack)(?=_)", "", candidate) == tag:
            return f"quantized_{architecture}.{candidate}"
    return None
