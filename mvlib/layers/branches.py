"""What becomes one layer for inference: the protocol, batch norms beside a layer, and RepVGG's block.

A module that can be a simpler one (branches that can be added, a norm behind a layer, kernels that are computed in each
pass) has a method `reparameterize()`, which merges in place and returns the module that takes its place, perhaps
itself, or None for itself. Whoever wants a model of simple layers calls the function of that name.

`spread_merged` goes the other way, for files of merged models: modules that it can fill have `merged_path`, where their
merged layer is, and `spread(weight, bias)`, the state of branches that do what a layer of these does.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, get_act_layer
from .conv import ConvNormAct
from .drop import DropBlock2d
from .helpers import Module, Sequential

__all__ = [
    "BranchedBlock", "ConvNormPair", "Fusable", "NormPair", "RepVggBlock", "count_mergeable", "identity_kernel",
    "merge_branches", "merge_norm", "neutral_norm", "norm_as_scale_and_shift", "one_branch", "reparameterize",
    "spread_merged", "sum_branches",
]

_SILENT = (nn.Identity, nn.Dropout, DropBlock2d, nn.Sequential)  # what changes nothing in inference


def reparameterize(model: nn.Module) -> int:
    """Merge, in place, what every module within offers to merge; the outputs in evaluation stay.

    Modules of other libraries that name the method `fuse` or `switch_to_deploy` are asked by that name.

    Returns:
        How many modules were merged.
    """
    count = 0
    for parent, name, method in list(_mergeable(model)):
        merged = method()
        if isinstance(merged, nn.Module) and merged is not parent._modules[name]:
            parent._modules[name] = merged
        count += 1
    return count


def count_mergeable(model: nn.Module) -> int:
    """How many modules `reparameterize` would merge."""
    return sum(1 for _ in _mergeable(model))


def _mergeable(model: nn.Module) -> Iterator[tuple[nn.Module, str, Callable[[], Any]]]:
    """Modules that merge and have not yet: the module above, the name in it, what merges it."""
    for name, child in model.named_children():
        method = next((found for key in ("reparameterize", "fuse", "switch_to_deploy")
                       if callable(found := getattr(child, key, None))), None)
        if method is None:
            yield from _mergeable(child)
        elif not getattr(child, "is_reparameterized", False):
            yield model, name, method


def norm_as_scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """What a batch norm does in evaluation: x * scale + shift, a number per channel each."""
    scale = torch.rsqrt(norm.running_var + norm.eps) * (1 if norm.weight is None else norm.weight)
    return scale, (0 if norm.bias is None else norm.bias) - norm.running_mean * scale


@torch.no_grad()
def merge_norm(layer: Any, norm: nn.Module, before: bool = False) -> Any:
    """Make a batch norm behind (or `before`) a convolution or linear layer a part of it, in place. Returns the layer.

    Running statistics are taken as they are. Before a convolution with groups or padding, a norm cannot be merged.
    """
    scale, shift = norm_as_scale_and_shift(norm)
    weight, bias = layer.weight, 0 if layer.bias is None else layer.bias
    shape = [1] * weight.dim()
    shape[1 if before else 0] = -1
    bias = bias + (weight * shift.view(shape)).flatten(1).sum(1) if before else bias * scale + shift
    layer.weight = nn.Parameter(weight * scale.view(shape), requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


@torch.no_grad()
def merge_branches(branches: Iterable[nn.Module | None], like: nn.Conv2d) -> nn.Conv2d:
    """A convolution that gives the sum of what modules side by side give; they stay. For inference: without gradients.

    Running statistics are taken as they are.

    Args:
        branches: Convolutions, batch norms and identities, alone or one convolution and norms behind it in a module
            (nn.Sequential, `ConvNormAct` without activation); None for a branch that is not there.
        like: A convolution with the largest kernel, whose shape and stride the result has.

    Raises:
        ValueError: A branch has something else in it, or another stride, other groups or another centre.
    """
    weight, bias = torch.zeros_like(like.weight), like.weight.new_zeros(like.out_channels)
    for branch in branches:
        if branch is not None:
            kernel, shift = _as_kernel(branch, like)
            weight, bias = weight + kernel, bias + shift
    merged = nn.Conv2d(like.in_channels, like.out_channels, like.kernel_size, like.stride, like.padding, like.dilation,
                       like.groups, device="meta")
    merged.weight, merged.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
    return merged.train(like.training)


def _as_kernel(branch: nn.Module, like: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias with which a convolution of `like`'s shape does what the branch does."""
    parts = [m for m in branch.modules() if type(m) is nn.Conv2d or isinstance(m, nn.BatchNorm2d)]
    others = [m for m in branch.modules() if not (m in parts or isinstance(m, _SILENT) or list(m.children()))]
    conv = parts.pop(0) if parts and type(parts[0]) is nn.Conv2d else nn.Conv2d(
        like.in_channels, like.in_channels, 1, groups=like.groups, device="meta")
    others += [m for m in parts if type(m) is nn.Conv2d]
    if others:
        raise ValueError(f"a branch is one convolution and batch norms behind it, no {type(others[0]).__name__}")
    if (conv.stride, conv.groups, conv.out_channels) != (like.stride, like.groups, like.out_channels) or not all(
            _fits_inside(conv, like, side) for side in (0, 1)):
        raise ValueError(f"a branch of {conv} cannot become part of {like}")
    weight, bias = conv.weight, like.weight.new_zeros(()) if conv.bias is None else conv.bias
    if weight.is_meta and not like.weight.is_meta:  # an identity
        weight, bias = identity_kernel(like.weight, like.groups), like.weight.new_zeros(())
    for norm in parts:
        scale, shift = norm_as_scale_and_shift(norm)
        weight, bias = weight * scale.view(-1, 1, 1, 1), bias * scale + shift
    below, right = ((large - small) // 2 for large, small in zip(like.kernel_size, conv.kernel_size))
    return F.pad(weight, (right, right, below, below)), bias


def _fits_inside(small: nn.Conv2d, large: nn.Conv2d, side: int) -> bool:
    """Whether the small kernel's centre is that of the large one, and its weights lie on weights of it."""
    if isinstance(small.padding, str) or isinstance(large.padding, str):
        return False
    dilation, rim = large.dilation[side], large.kernel_size[side] - small.kernel_size[side]
    return (rim >= 0 and rim % 2 == 0 and (small.dilation[side] == dilation or small.kernel_size[side] == 1)
            and large.padding[side] - small.padding[side] == dilation * rim // 2)


def identity_kernel(weight: Tensor, groups: int) -> Tensor:
    """The kernel of one position that gives its input, of the channels and the type of another one (C', C, kh, kw)."""
    width = weight.shape[1]
    return torch.eye(width).repeat(groups, 1).view(-1, width, 1, 1).to(weight)


def spread_merged(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A state dict that has merged layers, for a model of branches. For inference: one branch does what all did."""
    converted = dict(state_dict)
    for path, module in model.named_modules():
        if hasattr(module, "spread") and not getattr(module, "is_reparameterized", False):
            merged = ".".join(filter(None, (path, module.merged_path)))
            keys = f"{merged}.weight", f"{merged}.bias"
            if all(key in converted for key in keys):
                state = module.spread(*(converted.pop(key) for key in keys))
                converted.update((f"{path}.{key}", value) for key, value in state.items())
    return converted


def one_branch(
    module: nn.Module, names: Iterable[str], conv: str, norm: str, weight: Tensor, bias: Tensor
) -> dict[str, Tensor]:
    """The state of a module's branches where one does what a layer of `weight` and `bias` does, the others nothing.

    Args:
        names: The branches.
        conv: Path of that one's convolution, without bias,
        norm: and of the batch norm behind it.
    """
    state = {}
    for key, value in module.state_dict().items():
        if key.partition(".")[0] in names:
            make = torch.ones if key.endswith("running_var") else torch.zeros
            state[key] = make(value.shape, dtype=value.dtype)
    eps: Any = module.get_submodule(norm).eps
    return {**state, f"{conv}.weight": weight, f"{norm}.bias": bias,
            f"{norm}.weight": torch.full_like(bias, math.sqrt(1 + eps))}


def sum_branches(branches: Iterable[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    """The sum of what modules side by side give; the first one's output is overwritten with it."""
    first, *others = branches
    total = first(x)
    for branch in others:
        total += branch(x)
    return total


def neutral_norm(norm: Any, name: str) -> dict[str, Tensor]:
    """The state of a batch norm `name` that changes nothing."""
    values = dict(weight=math.sqrt(1 + norm.eps), running_var=1)
    return {f"{name}.{key}": torch.full_like(value, values.get(key, 0)) for key, value in norm.state_dict().items()}


class Fusable(Module):
    """A module that `reparameterize()` makes one layer, in its place; timm's name for that is `fuse`."""

    merged_path: ClassVar[str] = ""

    def reparameterize(self) -> nn.Module:
        raise NotImplementedError(f"{type(self).__name__} has no `reparameterize`")

    def fuse(self) -> nn.Module:
        return self.reparameterize()


class NormPair(Fusable, Sequential):
    """A layer and a batch norm `bn` behind it, or before it where `norm_first`; a subclass's constructor adds both."""

    layer_name: ClassVar[str] = "conv"
    norm_first: ClassVar[bool] = False
    bn: nn.Module

    @property
    def layer(self) -> Any:
        return getattr(self, self.layer_name)

    def reparameterize(self) -> Any:
        return merge_norm(copy.deepcopy(self.layer), self.bn, self.norm_first)

    def spread(self, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """For `spread_merged`."""
        state = {**neutral_norm(self.bn, "bn"), f"{self.layer_name}.weight": weight}
        return {**state, f"{self.layer_name if self.norm_first else 'bn'}.bias": bias}


class ConvNormPair(NormPair):
    """A convolution without bias and a batch norm whose weight begins with `bn_weight_init`; keys `layer_name`, `bn`.

    Shapes as `nn.Conv2d`, whose arguments it takes; families have it by other names of theirs.
    """

    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 1, stride: int = 1, padding: int = 0, dilation: int = 1,
        groups: int = 1, bn_weight_init: float = 1,
    ) -> None:
        super().__init__()
        self.add_module(self.layer_name, nn.Conv2d(
            in_chs, out_chs, kernel_size, stride, padding, dilation, groups, bias=False))
        bn: Any = nn.BatchNorm2d(out_chs)
        bn.initial_weight = bn_weight_init  # for `init_module` of models
        nn.init.constant_(bn.weight, bn_weight_init)
        self.bn = bn


class BranchedBlock(Module):
    """The sum of convolutions side by side and of the input, each with its norm; then attention and an activation.

    `reparameterize()` makes one convolution of the branches, key `reparam_conv`. A subclass adds its branches and
    `act`, and `identity`, `drop_path` and `attn` where it has them.
    Shapes: (B, C, H, W) -> (B, C', H', W').
    """

    branch_names: ClassVar[tuple[str, ...]]  # modules, or lists of them, but for `identity`; the largest kernel last
    merged_path: ClassVar[str] = "reparam_conv"
    act: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.identity: nn.Module | None = None
        self.reparam_conv: nn.Conv2d | None = None
        self.drop_path: nn.Module | None = None
        self.attn: nn.Module | None = None

    @property
    def is_reparameterized(self) -> bool:
        return self.reparam_conv is not None

    @property
    def branches(self) -> list[Any]:
        """Those that there are, but for `identity`."""
        found = [getattr(self, name) for name in self.branch_names]
        lists = [part if isinstance(part, nn.ModuleList) else [part] for part in found if part is not None]
        return [branch for part in lists for branch in part]

    def forward(self, x: Tensor) -> Tensor:
        if self.reparam_conv is not None:
            total = self.reparam_conv(x)
        else:
            total = sum_branches(self.branches, x)
            if self.drop_path is not None:
                total = self.drop_path(total)
            if self.identity is not None:
                total += self.identity(x)
        return self.finish(total)

    def finish(self, total: Tensor) -> Tensor:
        """What comes behind the sum."""
        return self.act(total if self.attn is None else self.attn(total))

    @torch.no_grad()
    def reparameterize(self) -> BranchedBlock:
        """Merge the branches, in place; running statistics are taken as they are. Returns the block."""
        if self.reparam_conv is None:
            branches = self.branches
            self.reparam_conv = merge_branches([*branches, self.identity], like=branches[-1].conv).train(self.training)
            for name in ("identity", "drop_path", *self.branch_names):
                setattr(self, name, None)
        return self

    def spread(self, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """For `spread_merged`."""
        main = self.branches[-1]
        path = next(path for path, module in self.named_modules() if module is main)
        return one_branch(self, ("identity", *self.branch_names), f"{path}.conv", f"{path}.bn", weight, bias)


class RepVggBlock(BranchedBlock):
    """The sum of a k x k convolution, a 1 x 1 convolution and the input, each with its batch norm; then an activation.

    `reparameterize()` merges the three. Shapes: (B, C, H, W) -> (B, C', H', W'). Keys `identity` (where shapes allow),
    `conv_kxk`, `conv_1x1`; `reparam_conv` once merged. Source: Ding et al., "RepVGG: Making VGG-style ConvNets Great
    Again", 2021.
    """

    branch_names: ClassVar[tuple[str, ...]] = ("conv_1x1", "conv_kxk")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        act_layer: ActLayer = nn.ReLU,
    ) -> None:
        super().__init__()
        keeps_shape = in_channels == out_channels and stride == 1
        same = dict(stride=stride, groups=groups, apply_act=False)
        self.identity = nn.BatchNorm2d(out_channels) if keeps_shape else None
        self.conv_kxk = ConvNormAct(in_channels, out_channels, kernel_size, dilation=dilation, **same)
        self.conv_1x1 = ConvNormAct(in_channels, out_channels, 1, **same)
        self.act = get_act_layer(act_layer)()
