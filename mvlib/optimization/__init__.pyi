# Written by scripts/build_stubs.py.
# ruff: noqa
from . import compilation as compilation, folding as folding, layout as layout, pipeline as pipeline, precision as precision, prepacking as prepacking, report as report
from .compilation import compiler_missing, worth_compiling
from .folding import fold_batch_norms
from .layout import is_convolutional
from .pipeline import OptimizedModel, optimize
from .precision import check_precision, keep_slow_convolutions_in_float32, supported_dtypes
from .prepacking import PackedConv2d, PackedLinear, prepack
from .report import Report, Step
__all__ = ['OptimizedModel', 'PackedConv2d', 'PackedLinear', 'Report', 'Step', 'check_precision', 'compiler_missing', 'fold_batch_norms', 'is_convolutional', 'keep_slow_convolutions_in_float32', 'optimize', 'prepack', 'supported_dtypes', 'worth_compiling']
