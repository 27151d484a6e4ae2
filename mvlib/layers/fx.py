"""What torch.fx shall not trace into, and features of traced models.

Layers here mark their functions with `torch.fx.wrap`; what users register is added to those when a model is traced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import fx, nn

__all__ = [
    "create_feature_extractor", "get_graph_node_names", "get_notrace_functions", "get_notrace_modules",
    "is_notrace_function", "is_notrace_module", "register_notrace_function", "register_notrace_module",
]

_modules: dict[type[nn.Module], None] = {}
_functions: dict[Any, None] = {}
Kind = TypeVar("Kind", bound=type[nn.Module])
Function = TypeVar("Function", bound=Callable[..., Any])


def register_notrace_module(module: Kind) -> Kind:
    """Class decorator: a module of this class is one node of a traced graph."""
    _modules[module] = None
    return module


def is_notrace_module(module: type[nn.Module]) -> bool:
    """Whether the class was registered."""
    return module in _modules


def get_notrace_modules() -> list[type[nn.Module]]:
    """Classes that were registered."""
    return list(_modules)


def register_notrace_function(name_or_fn: Function) -> Function:
    """Decorator: calls of the function, by the name that it has in its module, are one node of a traced graph."""
    _functions[name_or_fn] = None
    return name_or_fn


def is_notrace_function(func: Callable[..., Any]) -> bool:
    """Whether the function was registered."""
    return func in _functions


def get_notrace_functions() -> list[Callable[..., Any]]:
    """Functions that were registered."""
    return list(_functions)


def _float_to_int(x: float) -> int:
    return int(x)


def _tracer_arguments() -> dict[str, Any]:
    return dict(leaf_modules=get_notrace_modules(), autowrap_functions=get_notrace_functions())


def get_graph_node_names(model: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the nodes of a model's graph, in training and in evaluation, as `create_feature_extractor` takes them.

    torchvision's, with what was registered as leaves.
    """
    from torchvision.models import feature_extraction

    return feature_extraction.get_graph_node_names(model, tracer_kwargs=_tracer_arguments())


def create_feature_extractor(model: nn.Module, return_nodes: dict[str, str] | list[str]) -> fx.GraphModule:
    """A model that returns the outputs of some nodes, {name: tensor}; torchvision's, with registered leaves."""
    from torchvision.models import feature_extraction

    return feature_extraction.create_feature_extractor(model, return_nodes, tracer_kwargs=_tracer_arguments())
