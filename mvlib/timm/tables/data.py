"""`timm.data`. Imports no torch."""

from __future__ import annotations

NAMES: dict[str, dict[str, str]] = {}

ABSENT: dict[str, str] = {}
