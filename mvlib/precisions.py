"""Names of the types that models compute in, and which a processor has instructions for. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .errors import ConfigError
from .names import closest

__all__ = ["INSTRUCTIONS", "PRECISIONS", "canonical_precision", "precision_name", "processor_features"]

PRECISIONS = ("float32", "bfloat16", "float16")
_SPELLINGS = {
    "float32": ("fp32", "f32", "float", "single", "full"),
    "bfloat16": ("bf16", "bfloat"),
    "float16": ("fp16", "f16", "half"),
}
_CANONICAL = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in (name, *spellings)}
# What a processor's features say of arithmetic in a type, on x86-64 and on Arm (Linux's and Apple's names).
INSTRUCTIONS = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16", "feat_bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "asimdhp", "feat_fp16"),
}


def canonical_precision(text: str) -> str:
    """torch's name of a type for any usual spelling (fp16, half, bf16, ...); what is unknown as it is."""
    return _CANONICAL.get(text.lower().removeprefix("torch."), text)


def precision_name(text: str, known: Sequence[str] = PRECISIONS) -> str:
    """The same, of `known` names.

    Raises:
        ConfigError: It is none of them.
    """
    name = canonical_precision(str(text))
    if name not in known:
        raise ConfigError(f"unknown precision '{text}'; known: {', '.join(known)}{closest(name, known)}")
    return name


def processor_features() -> frozenset[str] | None:
    """What the processor can do, in the system's words and small letters; None where the system does not tell."""
    import platform  # all this takes longer to import than most commands want to wait
    import subprocess

    try:
        if sys.platform == "darwin" and platform.machine() == "arm64":
            lines = subprocess.check_output(["sysctl", "hw.optional"], text=True).splitlines()
            names = (line.removesuffix(": 1") for line in lines if line.endswith(": 1"))
            return frozenset(name.rpartition(".")[2].lower() for name in names)
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                name, _, values = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return frozenset(values.lower().split())
    except (OSError, subprocess.SubprocessError):
        pass
    return None
