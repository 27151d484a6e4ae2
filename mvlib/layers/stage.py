"""A stage: downsampling, then blocks of one resolution; and how blocks are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .config import use_reentrant_ckpt
from .helpers import Module

__all__ = ["BlockStage", "Stage", "dilate_strides", "run_blocks", "runs_by_itself"]


def run_blocks(
    blocks: Iterable[Callable[..., Any]], x: Any, *shared: Any, recompute: bool = False, **options: Any
) -> Any:
    """Run blocks one after the other, each with the same shared values and options.

    Args:
        recompute: Keep no activations within the blocks, but compute them again in the backward pass. A block that
            changes its input in place is run as it is: its input would not be there any more.
    """
    recompute = recompute and torch.is_grad_enabled()
    if not recompute and runs_by_itself(blocks):
        return blocks(x, *shared, **options)  # type: ignore[operator]
    for block in blocks:
        again = recompute and not getattr(block, "inplace", False)
        if again:
            x = checkpoint(partial(block, **options), x, *shared, use_reentrant=use_reentrant_ckpt())
        else:
            x = block(x, *shared, **options)
    return x


def runs_by_itself(blocks: Any) -> bool:
    """Whether to call a container is more than to run its blocks in turn: a user hooked it, or put his own there."""
    if not isinstance(blocks, nn.Module) or isinstance(blocks, nn.ModuleList):
        return False
    if blocks._forward_hooks or blocks._forward_pre_hooks or blocks._backward_hooks or blocks._backward_pre_hooks:
        return True
    kind = type(blocks)  # which a tracer derives from the container's, so that it is none that one knows
    return "forward" in vars(blocks) or (
        kind.forward is not nn.Sequential.forward and not kind.__module__.startswith(("mvlib.", "torch.fx")))


def dilate_strides(strides: Iterable[int], reduction: int, output_stride: int) -> list[tuple[int, int, int, int]]:
    """What becomes of stages' strides where the output's is limited: the further ones become dilation.

    Args:
        strides: Each stage's.
        reduction: Stride of what the first of them takes.
        output_stride: 8, 16 or 32.

    Returns:
        Of each stage: stride, dilation of what comes before its stride, dilation behind that, stride of the output.

    Raises:
        ValueError: The output stride is another.
    """
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride is 8, 16 or 32, not {output_stride}")
    dilated, dilation = [], 1
    for stride in strides:
        before = dilation
        if reduction * stride > output_stride:
            stride, dilation = 1, dilation * stride
        reduction *= stride
        dilated.append((stride, before, dilation, reduction))
    return dilated


class Stage(Module):
    """Downsampling, then blocks; keys `downsample`, `blocks`. What is shared goes to the blocks alone.

    A family derives its stage from this one, whose constructor adds the two.
    """

    grad_checkpointing: bool = False
    downsample: nn.Module
    blocks: nn.Sequential

    @staticmethod
    def check_channels(dim: int, dim_out: int, downsample: object) -> None:
        """
        Raises:
            ValueError: Channels are to change without downsampling.
        """
        if dim != dim_out and not downsample:
            raise ValueError(f"a stage without downsample keeps its {dim} channels, they cannot become {dim_out}")

    def forward(self, x: Any, *shared: Any) -> Any:
        return run_blocks(self.blocks, self.downsample(x), *shared, recompute=self.grad_checkpointing)


class BlockStage(Stage):
    """A stage whose blocks are all; the first of them may downsample. Key `blocks`."""

    def forward(self, x: Any, *shared: Any) -> Any:
        return run_blocks(self.blocks, x, *shared, recompute=self.grad_checkpointing)
