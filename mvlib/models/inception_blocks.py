"""What the Inception networks share: blocks of parallel branches, auxiliary classifiers, a second normalisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ConvNormAct, get_norm_act_layer, placeable, to_2tuple
from .base import ImageModel, Indices, StateDict

__all__ = ["AuxiliaryModel", "ConvNorm", "Mixed", "branch_pool"]

ConvLayer = Callable[..., nn.Module]
Kernel = int | tuple[int, int]
Item = Any  # a convolution ([name, ]out_chs, kernel[, stride]), a pool's kind, or a fork, a list of convolutions


_SCALE = [std / 0.5 for std in (0.229, 0.224, 0.225)]
_SHIFT = [(mean - 0.5) / 0.5 for mean in (0.485, 0.456, 0.406)]


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, activation; keys `conv`, `bn`. Shapes: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: Kernel = 1, stride: int = 1, padding: Kernel = 0,
        norm_layer: Any = nn.BatchNorm2d, norm_eps: float = 1e-3, act_layer: Any = nn.ReLU,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, kernel_size, stride, padding, bias=False)
        self.bn = get_norm_act_layer(norm_layer, act_layer)(out_chs, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Mixed(nn.Module):
    """Branches side by side, whose outputs are concatenated.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H, W), or (H - 1) // 2 rows where the branches have a stride of 2.

    Args:
        in_chs: Channels of the input.
        branches: Each a list of items that follow one another: a convolution ([name, ]channels, kernel[, stride]),
            padded to keep the size unless it has a stride, else by `conv`'s default; a pool of 3 x 3, see
            `branch_pool`; or a list of convolutions that fork, whose outputs are concatenated. Without a name, item 2
            of branch 1 is "branch1.2", or "branch1" where it is the only one.
        conv: Makes a convolution with norm and activation; `ConvNormAct` unless given.

    Attributes:
        out_chs: Channels of the output.
    """

    @placeable
    def __init__(self, in_chs: int, branches: Sequence[Sequence[Item]], conv: ConvLayer | None = None) -> None:
        super().__init__()
        conv = conv or ConvNormAct
        self.out_chs = 0
        self.branches: list[list[str | tuple[str, ...]]] = []
        for i, branch in enumerate(branches):
            chs, steps = in_chs, []
            for j, item in enumerate(branch):
                if isinstance(item, str):
                    steps.append(item)
                    continue
                default = f"branch{i}.{j}" if len(branch) > 1 else f"branch{i}"
                forks = [fork if isinstance(fork[0], str) else (default, *fork)
                         for fork in (item if isinstance(item, list) else [item])]
                for name, out_chs, kernel, *stride in forks:
                    place: dict[str, Any] = dict(stride=stride[0]) if stride else dict(
                        padding=tuple(side // 2 for side in to_2tuple(kernel)))
                    self._add(name, conv(chs, out_chs, kernel_size=kernel, **place))
                steps.append(tuple(fork[0] for fork in forks))
                chs = sum(fork[1] for fork in forks)
            self.branches.append(steps)
            self.out_chs += chs

    def _add(self, path: str, module: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        if parent and parent not in self._modules:
            self.add_module(parent, nn.Module())
        self.get_submodule(parent).add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for branch in self.branches:
            out = x
            for step in branch:
                if isinstance(step, str):
                    out = branch_pool(out, step)
                else:
                    forked = [self.get_submodule(name)(out) for name in step]
                    out = forked[0] if len(forked) == 1 else torch.cat(forked, dim=1)
            outputs.append(out)
        return torch.cat(outputs, dim=1)


def branch_pool(x: Tensor, kind: str) -> Tensor:
    """The pool of a branch: "max" halves the size; "avg" and "inner" keep it, "inner" averages the image alone."""
    if kind == "max":
        return F.max_pool2d(x, 3, stride=2)
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=kind == "avg")


class AuxiliaryModel(ImageModel):
    """A model that also classifies from the middle while it is trained.

    A family names its auxiliary heads, each a module with a classifier, in `aux_heads`, and gives `outputs`, which
    makes what `forward` returns in training of the logits and the auxiliary ones, in order of depth.

    Class attributes:
        aux_heads: {step of the flow: (name of the head that follows it, path of its classifier)}.
        aux_chs: Channels that the auxiliary classifiers read.
    """

    classifier_path: ClassVar[str] = "fc"
    feature_form: ClassVar[str] = "list"
    aux_heads: ClassVar[Mapping[str, tuple[str, str]]] = {}
    aux_chs: ClassVar[int] = 0

    aux_logits: bool
    transform_input: bool

    @property
    def classifier_paths(self) -> tuple[str, ...]:
        aux = [path for head, path in self.aux_heads.values() if getattr(self, head, None) is not None]
        return (self.classifier_path, *aux)

    @property
    def optional_parts(self) -> tuple[str, ...]:
        return tuple(head for head, _ in self.aux_heads.values() if getattr(self, head) is not None)

    def outputs(self, logits: Tensor, auxiliary: list[Tensor]) -> Any:
        """What `forward` returns in training, where there are auxiliary heads."""
        raise NotImplementedError

    def renormalize(self, x: Tensor) -> Tensor:
        """ImageNet's normalisation to mean and deviation 0.5, where `transform_input`. (B, 3, H, W) -> same."""
        if not self.transform_input:
            return x
        scale, shift = (torch.tensor(values).to(x).view(-1, 1, 1) for values in (_SCALE, _SHIFT))
        return x * scale + shift

    def forward(self, x: Tensor) -> Any:
        """Image (B, in_chans, H, W) -> logits (B, num_classes); in training with `aux_logits`, a tuple of logits."""
        if not (self.training and self.aux_logits):
            return super().forward(x)
        auxiliary, shared = [], {}
        for position, step in enumerate(self.flow.body):
            x = self.run_step(step, x, shared, position >= len(self.flow.stem) and self.grad_checkpointing)
            if step.name in self.aux_heads:
                auxiliary.append(self._at(self.aux_heads[step.name][0])(x))
        return self.outputs(self.forward_head(x), auxiliary)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, reset_other: bool = False) -> None:
        super().reset_classifier(num_classes, global_pool, reset_other)
        like = next(p for p in self.parameters() if p.is_floating_point())
        for head, path in self.aux_heads.values():
            if getattr(self, head) is None:
                continue
            fresh = nn.Linear(self.aux_chs, num_classes) if num_classes > 0 else nn.Identity()
            self.set_submodule(path, fresh.to(device=like.device, dtype=like.dtype).train(self.training))
            if num_classes > 0 and not like.is_meta:
                self.init_module(path, fresh)

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        last = self.flow.body[-1]
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if prune_head or self.flow.body[-1] is not last:
            self._drop_aux()  # they go where the classifier goes
        return taken

    def _drop_aux(self) -> None:
        self.aux_logits = False
        for head, _ in self.aux_heads.values():
            setattr(self, head, None)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Without the auxiliary heads that the model does not have."""
        heads = tuple(f"{head}." for head, _ in self.aux_heads.values() if getattr(self, head) is None)
        return {key: value for key, value in state_dict.items() if not key.startswith(heads)}
