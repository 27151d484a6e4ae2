"""Weights laid out once as oneDNN's kernels want them, with the activation done in the same kernel. CPUs alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .precision import is_faster
from .wiring import adjacent, parents_of, record_calls, replace

__all__ = ["PackedConv2d", "PackedLinear", "can_prepack", "prepack"]

_Fused = tuple[str, list[float], str]  # oneDNN's name of an activation, its numbers, its variant
_NONE: _Fused = ("none", [], "")
_TRIAL_ROWS = 1024  # of a linear layer's input, at most, when it is timed
_ACTIVATIONS: dict[type, Callable[[Any], _Fused]] = {
    nn.ReLU: lambda act: ("relu", [], ""),
    nn.ReLU6: lambda act: ("hardtanh", [0.0, 6.0], ""),
    nn.SiLU: lambda act: ("swish", [], ""),
    nn.GELU: lambda act: ("gelu", [], act.approximate),
    nn.Hardswish: lambda act: ("hardswish", [], ""),
    nn.Sigmoid: lambda act: ("sigmoid", [], ""),
    nn.Tanh: lambda act: ("tanh", [], ""),
    nn.LeakyReLU: lambda act: ("leaky_relu", [act.negative_slope], ""),
}


class _Packed(nn.Module):
    """What has weights that only oneDNN can read, in `packed`: copies share them, which nothing writes to."""

    packed: Tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> _Packed:
        memo[id(self.packed)] = self.packed
        memo[id(self)] = copied = type(self).__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied


class PackedLinear(_Packed):
    """A linear layer, and perhaps the activation behind it, as one oneDNN kernel. Shapes: (..., in) -> (..., out).

    torch's own multiplies float32 with MKL, which oneDNN outruns on many CPUs.
    """

    def __init__(self, linear: nn.Linear, rows: int, fused: _Fused = _NONE) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)
        self.bias = linear.bias
        self.fused = fused
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, *self.fused)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.fused[0]}"


class PackedConv2d(_Packed):
    """A convolution, and perhaps the activation behind it, as one oneDNN kernel. Shapes: (B, C, H, W) -> as torch's."""

    def __init__(self, conv: nn.Conv2d, input_size: list[int], fused: _Fused = _NONE) -> None:
        super().__init__()
        self.geometry = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self.packed = torch.ops.mkldnn._reorder_convolution_weight(conv.weight.detach(), *self.geometry, input_size)
        self.bias = conv.bias
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(x, self.packed, self.bias, *self.geometry, *self.fused)

    def extra_repr(self) -> str:
        padding, stride, dilation, groups = self.geometry
        return f"padding={padding}, stride={stride}, dilation={dilation}, groups={groups}, {self.fused[0]}"


def can_prepack() -> bool:
    """Whether this build of torch has oneDNN and the operators that we use."""
    names = ("_reorder_linear_weight", "_reorder_convolution_weight", "_linear_pointwise", "_convolution_pointwise")
    return torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled \
        and all(hasattr(torch.ops.mkldnn, name) for name in names)


@torch.inference_mode()
def prepack(
    model: nn.Module, images: Tensor, batch_size: int | None = None, fuse: bool = True,
    kinds: tuple[type, ...] = (nn.Conv2d, nn.Linear),
) -> tuple[int, int]:
    """Replace convolutions and linear layers of a model on the CPU by packed ones, in place.

    Args:
        model: In evaluation mode.
        images: A batch (B, C, H, W); a layer is packed for the sizes that it sees in it, and right for any.
        batch_size: Pack for so many images instead of B.
        fuse: Take the activation that reads a layer's output into it; into a linear layer only where that is measured
            to be faster: on some CPUs, oneDNN's GELU and SiLU behind a matrix product are far slower than torch's.
        kinds: Which layers; convolutions only where images are channels last.

    Returns:
        How many layers were packed, and how many activations taken in.
    """
    shapes: dict[int, tuple[nn.Module, torch.Size]] = {}

    def note(module: nn.Module, x: Tensor, output: Tensor) -> None:
        shapes[id(module)] = module, x.shape

    record_calls(model, images, kinds, note)
    pairs = adjacent(model, images, kinds, tuple(_ACTIVATIONS)) if fuse else []
    readers = {id(layer): act for layer, act in pairs}
    places, packed, fused = parents_of(model), 0, 0
    verdicts: dict[tuple, bool] = {}
    times = (batch_size or len(images)) / len(images)
    for module, shape in shapes.values():
        if id(module) not in places or not _is_packable(module):
            continue
        act = readers.get(id(module))
        post = _fusable(act) if act is not None and id(act) in places else None
        if isinstance(module, nn.Linear):
            rows = round(shape[:-1].numel() * times)
            if post and not _pays(module, rows, post, act, verdicts):
                post = None
            own = PackedLinear(module, rows, post or _NONE)
        else:
            own = PackedConv2d(module, [round(shape[0] * times), *shape[1:]], post or _NONE)
        replace(places[id(module)], own.eval())
        packed += 1
        if post:
            replace(places[id(act)], nn.Identity())
            fused += 1
    return packed, fused


def _pays(linear: nn.Linear, rows: int, post: _Fused, act: nn.Module, verdicts: dict[tuple, bool]) -> bool:
    """Whether an activation within a linear layer is measured to be faster than behind it; `verdicts` remembers."""
    rows = min(rows, _TRIAL_ROWS)
    key = rows, linear.weight.shape, repr(post)
    if key not in verdicts:
        x = linear.weight.new_ones(rows, linear.in_features)
        within, before = (PackedLinear(linear, rows, fused) for fused in (post, _NONE))
        verdicts[key] = is_faster(lambda: within(x), lambda: act(before(x)))
    return verdicts[key]


def _is_packable(module: nn.Module) -> bool:
    plain = nn.Linear if isinstance(module, nn.Linear) else nn.Conv2d
    return (type(module).forward is plain.forward and "forward" not in vars(module) and not module._forward_hooks
            and not module._forward_pre_hooks and module.weight.device.type == "cpu"
            and (plain is nn.Linear or (module.padding_mode == "zeros" and not isinstance(module.padding, str))))


def _fusable(act: nn.Module) -> _Fused | None:
    kind = next((kind for kind in type(act).__mro__ if kind in _ACTIVATIONS), None)
    if kind is None or type(act).forward is not kind.forward:
        return None
    return _ACTIVATIONS[kind](act)
