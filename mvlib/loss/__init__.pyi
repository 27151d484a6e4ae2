# Written by scripts/build_stubs.py.
# ruff: noqa
from . import asymmetric as asymmetric, binary as binary, class_weights as class_weights, cross_entropy as cross_entropy, distillation as distillation, factory as factory, multi_label as multi_label, poly as poly
from .asymmetric import AsymmetricLossMultiLabel, AsymmetricLossSingleLabel
from .binary import BinaryCrossEntropy
from .class_weights import CLASS_WEIGHT_METHODS, CLASS_WEIGHT_METHOD_KINDS, compute_class_weights, load_class_stats, load_class_weights, resolve_class_weights
from .cross_entropy import JsdCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from .distillation import DistillationLoss
from .factory import LOSS_TYPES, MULTI_LABEL_LOSS_TYPES, create_classification_loss, create_loss
from .multi_label import DistributionBalancedLoss, TwoWayLoss, ZlprLoss
from .poly import PolyBinaryCrossEntropy, PolyCrossEntropy
__all__ = ['AsymmetricLossMultiLabel', 'AsymmetricLossSingleLabel', 'BinaryCrossEntropy', 'CLASS_WEIGHT_METHODS', 'CLASS_WEIGHT_METHOD_KINDS', 'DistillationLoss', 'DistributionBalancedLoss', 'JsdCrossEntropy', 'LOSS_TYPES', 'LabelSmoothingCrossEntropy', 'MULTI_LABEL_LOSS_TYPES', 'PolyBinaryCrossEntropy', 'PolyCrossEntropy', 'SoftTargetCrossEntropy', 'TwoWayLoss', 'ZlprLoss', 'compute_class_weights', 'create_classification_loss', 'create_loss', 'load_class_stats', 'load_class_weights', 'resolve_class_weights']
