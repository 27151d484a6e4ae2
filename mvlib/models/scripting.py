"""What `torch.jit.script` compiles in a model's place: its graphs, traced by torch.fx.

TorchScript reads a small part of Python and real types; models here are written for people. But what a model does is a
graph of torch's functions and layers, which TorchScript can read.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["scriptable"]


def scriptable(model: nn.Module) -> nn.Module:
    """A module with the model's answers, parameters and keys that `torch.jit.script` can compile.

    It holds two graphs, for training and for evaluation, and `train()` and `eval()` choose between them. In the mode
    that the model is in, parts of it may be in the other one (frozen norms); in the other mode none is.

    Raises:
        torch.fx.proxy.TraceError: What the model does depends on its input's values or size.
    """
    shell = _shell(model)
    functions, structures = {}, set()
    modes = {module: module.training for module in model.modules()}
    try:
        for training in (model.training, not model.training):
            if training != model.training:
                model.train(training)
            tracer = _Tracer()
            tracer.traced_func_name = "forward_image" if hasattr(model, "forward_image") else "forward"
            graph = tracer.trace(model)
            for node in graph.nodes:
                node.type = None  # names of types, where TorchScript wants types
                if node.op == "get_attr":
                    _add_constant(shell, model, node.target)
            forward = type(torch.fx.GraphModule(shell, graph)).forward
            forward.__name__ = "_train" if training else "_evaluate"
            functions[forward.__name__] = forward
            structures.add(type(node.args[0]))  # of the last node, which is the output
    finally:
        for module, mode in modes.items():
            module.training = mode
    forward = _forward if len(structures) == 1 else _forward_any
    shell.__class__ = type(f"Scriptable{type(model).__name__}", (nn.Module,), {"forward": forward, **functions})
    return shell


def _forward(self: nn.Module, x: Tensor):  # of one type in both modes, which TorchScript finds
    if self.training:
        return self._train(x)
    return self._evaluate(x)


def _forward_any(self: nn.Module, x: Tensor) -> Any:  # one mode returns a tensor, the other several
    if self.training:
        return self._train(x)
    return self._evaluate(x)


class _Tracer(torch.fx.Tracer):
    proxy_buffer_attributes = True  # a buffer is read as the graph runs, not as it is traced


@functools.cache
def _container(names: tuple[str, ...]) -> type[nn.Module]:
    """A class for each order of names: TorchScript lets modules of one class share a type, with the first's order."""
    return type("Container", (nn.Module,), {})


def _shell(module: nn.Module) -> nn.Module:
    """The module's tree without its code, but for torch's own layers, which the graph calls as they are."""
    if _Tracer().is_leaf_module(module, "") and not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return module
    shell = _container((*module._parameters, *module._buffers, *module._modules))()
    shell.training = module.training
    shell._parameters.update(module._parameters)
    shell._buffers.update(module._buffers)
    shell._non_persistent_buffers_set.update(module._non_persistent_buffers_set)
    for name, child in module._modules.items():
        shell._modules[name] = None if child is None else _shell(child)
    return shell


def _add_constant(shell: nn.Module, model: nn.Module, target: str) -> None:
    """Take over a tensor that the trace made; torch.fx leaves it with the model."""
    if target in vars(model):
        shell.register_buffer(target, vars(model).pop(target), persistent=False)
