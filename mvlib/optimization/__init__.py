"""Models made ready to answer fast. `optimize` does it all; the steps are functions of their own."""

from __future__ import annotations

from ..lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {
    "pipeline": ("OptimizedModel", "optimize"),
    "report": ("Report", "Step"),
    "folding": ("fold_batch_norms",),
    "layout": ("is_convolutional",),
    "precision": ("check_precision", "keep_slow_convolutions_in_float32", "supported_dtypes"),
    "prepacking": ("PackedConv2d", "PackedLinear", "prepack"),
    "compilation": ("compiler_missing", "worth_compiling"),
})
