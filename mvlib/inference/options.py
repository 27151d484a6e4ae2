"""What a command can be told about model and machine. Imports no torch."""

from __future__ import annotations

from .. import precisions

__all__ = ["BATCH_SIZES", "COMPILE", "DECODINGS", "DEFAULT_MODEL", "PRECISIONS", "SHEETS"]

DEFAULT_MODEL = "tf_efficientnet_lite0.pip_in1k"  # its weights come from the package index, so no hub is needed
PRECISIONS = (*precisions.PRECISIONS, "int8")
COMPILE = ("auto", "on", "off")
DECODINGS = ("full", "scaled", "reference")
SHEETS = (".png", ".jpg", ".jpeg", ".webp")  # what a contact sheet is drawn as
BATCH_SIZES = {"cpu": 4, "cuda": 64}  # images at once, in each thread of the model
