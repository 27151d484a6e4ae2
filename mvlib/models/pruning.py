"""Architectures whose layers were made narrower one by one, by a search that no formula repeats.

Their widths are data: `_pruned/NAME.txt` has a line a layer, in the order of the model:

    layer1.0.conv1 47 64    a convolution: output channels, input channels; a depthwise convolution and the first of
                            the model have only the former: input channels follow from it, or from `in_chans`
    layer1.0.bn1 47         a batch norm: channels
    fc 2022                 the classifier: its input, the channels of the final features

An entrypoint builds the architecture that was pruned and narrows it:

    @register_model
    def ecaresnet50d_pruned(**kwargs) -> ResNet:
        return prune_to_widths(ResNet(**{**_R50, **_D, **_ECA, **kwargs}), "ecaresnet50d_pruned")

Source: Aflalo et al., "Knapsack Pruning with Inner Distillation", 2020, https://arxiv.org/abs/2002.08258.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TypeVar

from torch import nn

from ..layers.evo_norm import EvoNorm2dS0
from .base import Flow, ImageModel, Step

__all__ = ["prune_to_widths", "pruned_widths"]

Widths = Mapping[str, tuple[int, ...]]
Model = TypeVar("Model", bound=ImageModel)

_RIGID = (nn.Linear, nn.GroupNorm, nn.LayerNorm, EvoNorm2dS0)  # layers with a width that no search has narrowed


@cache
def pruned_widths(name: str) -> Widths:
    """Widths by layer of an architecture that has a file in `_pruned`, in the model's order.

    Raises:
        FileNotFoundError: There is no such file.
    """
    text = (resources.files("mvlib.models") / "_pruned" / f"{name}.txt").read_text(encoding="utf-8")
    rows = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return MappingProxyType({layer: tuple(map(int, widths)) for layer, *widths in rows})


def prune_to_widths(model: Model, name: str, widths: Widths | None = None) -> Model:
    """Narrow a model, not yet trained, in place, to the widths that `_pruned` has under `name`, unless they are given.

    The channels of its features, `num_features` and the classifier follow; all weights are initialised again. Layers
    that the widths do not depend on (an ECA's convolution over channels) stay as they are.

    Raises:
        ValueError: The model has a layer that these widths do not fit; the message names it.
    """
    widths = pruned_widths(name) if widths is None else widths
    modules = dict(model.named_modules())
    for path in widths:
        if path not in modules:
            raise ValueError(f"the widths of '{name}' are for a model with a layer '{path}'")
    for path, module in modules.items():
        if path not in model.classifier_paths:
            _narrow(path, module, widths.get(path), name)
    model.flow = _narrow_flow(model, widths)
    *_, (num_features,) = widths.values()
    pooled_factor = model.head_hidden_size // model.num_features
    model.num_features, model.head_hidden_size = num_features, num_features * pooled_factor
    model.reset_classifier(model.num_classes)
    model.init_weights()
    return model


def _narrow(path: str, module: nn.Module, widths: Sequence[int] | None, name: str) -> None:
    is_conv, is_norm = isinstance(module, nn.Conv2d), isinstance(module, nn.BatchNorm2d)
    if (is_conv or is_norm) != (widths is not None) or isinstance(module, _RIGID):
        raise ValueError(f"the widths of '{name}' do not fit its layer '{path}', a {type(module).__name__}")
    if is_norm:
        module.num_features = widths[0]
    elif is_conv:
        module.out_channels = widths[0]
        if module.groups > 1:
            module.in_channels = module.groups = widths[0]
        elif len(widths) > 1:
            module.in_channels = widths[1]
    else:
        return
    for key, parameter in module._parameters.items():
        if parameter is not None:
            shape = (widths[0], module.in_channels // module.groups, *module.kernel_size) if parameter.ndim == 4 \
                else (widths[0],)
            module._parameters[key] = nn.Parameter(parameter.new_empty(shape))
    for key, buffer in module._buffers.items():
        if buffer is not None and buffer.ndim == 1:
            module._buffers[key] = buffer.new_empty(widths[0])


def _narrow_flow(model: ImageModel, widths: Widths) -> Flow:
    """The flow with the channels that its taps have now: those of the last convolution or norm up to the tap's end."""
    chs, current = {}, 0
    for path, _ in model.named_modules():
        current = widths[path][0] if path in widths else current
        parts = path.split(".")
        chs.update({".".join(parts[:end]): current for end in range(1, len(parts) + 1)})

    def narrow(steps: list[Step]) -> list[Step]:
        return [replace(step, chs=chs[step.module or step.name]) if step.taps else step for step in steps]

    flow = model.flow
    return Flow(narrow(flow.stem), narrow(flow.stages), narrow(flow.tail), narrow(flow.neck))
