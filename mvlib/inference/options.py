"""What a command can be told about model and machine. Imports no torch."""

from __future__ import annotations

__all__ = ["COMPILE", "DECODINGS", "DEFAULT_MODEL", "PRECISIONS"]

DEFAULT_MODEL = "tf_efficientnet_lite0.pip_in1k"  # its weights come from the package index, so no hub is needed
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
COMPILE = ("auto", "on", "off")
DECODINGS = ("full", "scaled", "reference")
