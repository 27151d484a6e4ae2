"""`timm.utils`, `timm.task`, `timm.loss`, `timm.optim` and `timm.scheduler`. Imports no torch."""

from __future__ import annotations

NAMES: dict[str, dict[str, str]] = {}

ABSENT: dict[str, str] = {}
