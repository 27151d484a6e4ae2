"""timm.optim's registry as an object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from ...errors import ConfigError
from ...optim import registry
from ...optim.factory import create_optimizer_v2
from ...optim.registry import OptimInfo

__all__ = ["OptimType", "OptimizerCallable", "OptimizerRegistry", "ParamsT", "default_registry"]

OptimType = type[Optimizer]


class OptimizerCallable(Protocol):
    """What makes an optimizer from parameters and keywords."""

    def __call__(self, params: Any, **kwargs: Any) -> Optimizer: ...


class OptimizerRegistry:
    """`mvlib.optim.registry` as an object: `default_registry` is the one that there is.

    Raises:
        ConfigError: A second one is asked for.
    """

    def __init__(self) -> None:
        if "default_registry" in globals():
            raise ConfigError("there is one registry of optimizers: timm.optim.default_registry")

    list_optimizers = staticmethod(registry.list_optimizers)
    get_optimizer_info = staticmethod(registry.get_optimizer_info)
    get_optimizer_class = staticmethod(registry.get_optimizer_class)

    def register(self, info: OptimInfo) -> None:
        """Make an optimizer known; a name that is taken is taken over, with a warning."""
        registry.register_optimizer(
            info.name, info.opt_class, info.description, has_eps=info.has_eps, has_momentum=info.has_momentum,
            has_betas=info.has_betas, num_betas=info.num_betas, second_order=info.second_order, defaults=info.defaults)

    def register_alias(self, alias: str, target: str) -> None:
        """Give an optimizer a second name.

        Raises:
            ConfigError: There is none of the first.
        """
        registry.register_alias(alias, target)

    def create_optimizer(
        self, model_or_params: Any, opt: str, lr: float | None = None, weight_decay: float = 0.0,
        momentum: float = 0.9, foreach: bool | None = None, weight_decay_exclude_1d: bool = True,
        param_group_fn: Callable[..., Any] | None = None, **kwargs: Any,
    ) -> Optimizer:
        """`create_optimizer_v2`, whose `filter_bias_and_bn` is called `weight_decay_exclude_1d` here."""
        return create_optimizer_v2(
            model_or_params, opt, lr, weight_decay, momentum, foreach, weight_decay_exclude_1d,
            param_group_fn=param_group_fn, **kwargs)


default_registry = OptimizerRegistry()
