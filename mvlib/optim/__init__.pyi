# Written by scripts/build_stubs.py.
# ruff: noqa
from . import adafactor as adafactor, adaptive as adaptive, batch as batch, clip as clip, each as each, factory as factory, lookahead as lookahead, momentum as momentum, muon as muon, param_groups as param_groups, registry as registry, resume as resume, second_order as second_order
from .adafactor import Adafactor, AdafactorBigVision
from .adaptive import AdaBelief, AdamP, AdamWLegacy, Adan, Adopt, LaProp, Lamb, Mars, NAdamLegacy, NAdamW, NvNovoGrad, RAdamLegacy
from .batch import Batch, BatchOptimizer
from .clip import adaptive_clip_grad, clip_grad, model_parameters
from .factory import create_optimizer, create_optimizer_v2, optimizer_kwargs
from .lookahead import Lookahead
from .momentum import Lars, Lion, MADGRAD, RMSpropTF, SGDP, SGDW
from .muon import Muon, orthogonalize
from .param_groups import auto_group_layers, group_parameters, param_groups_layer_decay, param_groups_weight_decay
from .registry import OptimInfo, get_optimizer_class, get_optimizer_info, list_optimizers, register_alias, register_optimizer
from .resume import resume_optimizer
from .second_order import Adahessian, Kron
__all__ = ['AdaBelief', 'Adafactor', 'AdafactorBigVision', 'Adahessian', 'AdamP', 'AdamWLegacy', 'Adan', 'Adopt', 'Batch', 'BatchOptimizer', 'Kron', 'LaProp', 'Lamb', 'Lars', 'Lion', 'Lookahead', 'MADGRAD', 'Mars', 'Muon', 'NAdamLegacy', 'NAdamW', 'NvNovoGrad', 'OptimInfo', 'RAdamLegacy', 'RMSpropTF', 'SGDP', 'SGDW', 'adaptive_clip_grad', 'auto_group_layers', 'clip_grad', 'create_optimizer', 'create_optimizer_v2', 'get_optimizer_class', 'get_optimizer_info', 'group_parameters', 'list_optimizers', 'model_parameters', 'optimizer_kwargs', 'orthogonalize', 'param_groups_layer_decay', 'param_groups_weight_decay', 'register_alias', 'register_optimizer', 'resume_optimizer']
