"""What the Inception networks share: blocks of parallel branches, auxiliary classifiers, a second normalisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ConvNormAct, placeable, to_2tuple
from .base import ImageModel, Indices, StateDict

__all__ = ["AuxiliaryModel", "FixedMixed", "Mixed", "unpadded_conv"]

ConvLayer = Callable[..., nn.Module]
Item = Any  # a convolution ([name, ]out_chs, kernel[, stride]), a pool's kind, or a fork, a list of convolutions
Branches = Sequence[Sequence[Item]]

_SCALE = [std / 0.5 for std in (0.229, 0.224, 0.225)]
_SHIFT = [(mean - 0.5) / 0.5 for mean in (0.485, 0.456, 0.406)]


def unpadded_conv(norm_layer: Any = nn.BatchNorm2d, norm_eps: float = 1e-3, act_layer: Any = nn.ReLU) -> ConvLayer:
    """What makes the networks' convolutions: a `ConvNormAct` that does not pad unless told to."""
    return partial(ConvNormAct, padding=0, norm_layer=norm_layer, norm_kwargs=dict(eps=norm_eps), act_layer=act_layer)


class Mixed(nn.Module):
    """Branches side by side, whose outputs are concatenated.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H, W), or (H - 1) // 2 rows where the branches have a stride of 2.

    Args:
        in_chs: Channels of the input.
        branches: Each a list of items that follow one another: a convolution ([name, ]channels, kernel[, stride]),
            padded to keep the size unless it has a stride, else by `conv`'s default; a pool of 3 x 3, see
            `_pool`; or a list of convolutions that fork, whose outputs are concatenated. Without a name, item 2 of
            branch 1 is "branch1.2", or "branch1" where it is the only one.
        conv: Makes a convolution with norm and activation; `ConvNormAct` unless given.
    """

    @placeable
    def __init__(self, in_chs: int, branches: Branches, conv: ConvLayer | None = None) -> None:
        super().__init__()
        self.out_chs = 0
        self.steps: list[list[str | tuple[str, ...]]] = []
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
                    self._add(name, (conv or ConvNormAct)(chs, out_chs, kernel_size=kernel, **place))
                steps.append(tuple(fork[0] for fork in forks))
                chs = sum(fork[1] for fork in forks)
            self.steps.append(steps)
            self.out_chs += chs

    def _add(self, path: str, module: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        if parent and parent not in self._modules:
            self.add_module(parent, nn.Module())
        self.get_submodule(parent).add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for steps in self.steps:
            out = x
            for step in steps:
                if isinstance(step, str):
                    out = _pool(out, step)
                else:
                    forked = [self.get_submodule(name)(out) for name in step]
                    out = forked[0] if len(forked) == 1 else torch.cat(forked, dim=1)
            outputs.append(out)
        return torch.cat(outputs, dim=1)


def _pool(x: Tensor, kind: str) -> Tensor:
    """The pool of a branch: "max" halves the size; "avg" and "inner" keep it, "inner" averages the image alone."""
    if kind == "max":
        return F.max_pool2d(x, 3, stride=2)
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=kind == "avg")


class FixedMixed(Mixed):
    """A `Mixed` that is the same wherever it stands: of `table`, (channels of the input, branches)."""

    table: ClassVar[tuple[int, Branches]]

    @placeable
    def __init__(self, conv_block: ConvLayer | None = None) -> None:
        super().__init__(*self.table, conv_block)


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

    def __init__(self, num_classes: int, in_chans: int, aux_logits: bool, transform_input: bool) -> None:
        super().__init__()
        if transform_input and in_chans != 3:
            raise ValueError(f"transform_input knows the statistics of 3 channels, not of {in_chans}")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.aux_logits, self.transform_input = aux_logits, transform_input

    @property
    def _present(self) -> dict[str, str]:
        """{auxiliary head: path of its classifier} of those that there are."""
        return {head: path for head, path in self.aux_heads.values() if getattr(self, head, None) is not None}

    @property
    def classifier_paths(self) -> tuple[str, ...]:
        return (self.classifier_path, *self._present.values())

    @property
    def optional_parts(self) -> tuple[str, ...]:
        return tuple(self._present)

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

    def make_classifier_at(self, path: str, num_classes: int) -> nn.Module:
        if path == self.classifier_path:
            return self.make_classifier(num_classes)
        return nn.Linear(self.aux_chs, num_classes) if num_classes > 0 else nn.Identity()

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        last = self.flow.body[-1]
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if prune_head or self.flow.body[-1] is not last:  # they go where the classifier goes
            self.aux_logits = False
            for head, _ in self.aux_heads.values():
                setattr(self, head, None)
        return taken

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Without the auxiliary heads that the model does not have."""
        absent = tuple(f"{head}." for head, _ in self.aux_heads.values() if head not in self._present)
        return {key: value for key, value in state_dict.items() if not key.startswith(absent)}
