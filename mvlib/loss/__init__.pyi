# Written by scripts/build_stubs.py.
# ruff: noqa
from . import asymmetric as asymmetric, binary as binary, cross_entropy as cross_entropy, distillation as distillation, factory as factory
from .asymmetric import AsymmetricLossMultiLabel, AsymmetricLossSingleLabel
from .binary import BinaryCrossEntropy
from .cross_entropy import JsdCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from .distillation import DistillationLoss
from .factory import create_loss
__all__ = ['AsymmetricLossMultiLabel', 'AsymmetricLossSingleLabel', 'BinaryCrossEntropy', 'DistillationLoss', 'JsdCrossEntropy', 'LabelSmoothingCrossEntropy', 'SoftTargetCrossEntropy', 'create_loss']
