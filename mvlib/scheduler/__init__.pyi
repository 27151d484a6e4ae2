# Written by scripts/build_stubs.py.
# ruff: noqa
from . import factory as factory, scheduler as scheduler, schedules as schedules
from .factory import create_schedule, create_scheduler, create_scheduler_v2, list_schedulers, scale_learning_rate, scheduler_kwargs
from .scheduler import CosineLRScheduler, ExponentialLRScheduler, MultiStepLRScheduler, PlateauLRScheduler, PolyLRScheduler, Scheduler, StepLRScheduler, TanhLRScheduler, WSDLRScheduler
from .schedules import Cosine, Exponential, MultiStep, Poly, Schedule, Step, Tanh, WarmupStableDecay
__all__ = ['Cosine', 'CosineLRScheduler', 'Exponential', 'ExponentialLRScheduler', 'MultiStep', 'MultiStepLRScheduler', 'PlateauLRScheduler', 'Poly', 'PolyLRScheduler', 'Schedule', 'Scheduler', 'Step', 'StepLRScheduler', 'Tanh', 'TanhLRScheduler', 'WSDLRScheduler', 'WarmupStableDecay', 'create_schedule', 'create_scheduler', 'create_scheduler_v2', 'list_schedulers', 'scale_learning_rate', 'scheduler_kwargs']
