"""Modules of families: classes, helpers, `checkpoint_filter_fn`, ...; entrypoints follow. Imports no torch.

What `timm.models` has of them stands under "models", found in the face itself: {"mvlib.timm.models.resnet": "ResNet"}.
"""

from __future__ import annotations

NAMES: dict[str, dict[str, str]] = {}

ABSENT: dict[str, str] = {}
