"""Regularisation by dropping: residual paths, feature blocks, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "DropBlock2d", "DropPath", "PatchDropout", "PatchDropoutWithIndices", "calculate_drop_path_rates", "drop_block_2d",
    "drop_path", "drop_path_rates", "patch_dropout_forward",
]


@overload
def drop_path_rates(rate: float, depths: int) -> list[float]: ...
@overload
def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]: ...
def drop_path_rates(rate: float, depths: int | Sequence[int]) -> list[float] | list[list[float]]:
    """Stochastic-depth rates that grow linearly from 0 at the first block to `rate` at the last.

    Args:
        rate: Rate of the last block.
        depths: Number of blocks, or of blocks per stage; with stages the result is a list of lists.
    """
    counts = [depths] if isinstance(depths, int) else list(depths)
    total = sum(counts)
    rates = [rate * i / max(total - 1, 1) for i in range(total)]
    if isinstance(depths, int):
        return rates
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [rates[start:start + count] for start, count in zip(starts, counts)]


def calculate_drop_path_rates(
    drop_path_rate: float, depths: int | list[int], stagewise: bool = False
) -> list[float] | list[list[float]]:
    """timm's `drop_path_rates`: those of several stages in one list, unless `stagewise`.

    Raises:
        ValueError: `stagewise` without stages.
    """
    if isinstance(depths, int):
        if stagewise:
            raise ValueError("stagewise=True needs the depth of each stage")
        return drop_path_rates(drop_path_rate, depths)
    rates = drop_path_rates(drop_path_rate, depths)
    return rates if stagewise else sum(rates, [])


class DropPath(nn.Module):
    """Stochastic depth: in training, zero a sample's residual branch with probability `drop_prob`.

    Shapes: any (B, ...) -> same. Surviving samples are scaled by 1 / (1 - drop_prob) unless `scale_by_keep` is false.
    Source: Huang et al., "Deep Networks with Stochastic Depth", 2016.
    """

    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.scale_by_keep = scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        return drop_path(x, self.drop_prob, True, self.scale_by_keep)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:0.3f}"


@torch.fx.wrap  # one node in a traced graph: the mask's shape depends on the input's dimensions
def drop_path(x: Tensor, drop_prob: float = 0.0, training: bool = False, scale_by_keep: bool = True) -> Tensor:
    """What `DropPath` does."""
    if drop_prob == 0.0 or not training:
        return x
    keep = 1 - drop_prob
    mask = x.new_empty([x.shape[0]] + [1] * (x.dim() - 1)).bernoulli_(keep)
    if scale_by_keep and keep > 0:
        mask.div_(keep)
    return x * mask


class DropBlock2d(nn.Module):
    """Drop contiguous squares of a feature map in training.

    Shapes: (B, C, H, W) -> same.
    Source: Ghiasi et al., "DropBlock: A regularization method for convolutional networks", 2018.

    Args:
        drop_prob: Expected share of dropped activations (before `gamma_scale`).
        block_size: Side of a dropped square, in feature-map pixels.
        gamma_scale: Factor on the rate of seeds.
        with_noise: Put normal noise in the place of what is dropped.
        inplace: Change the map itself.
        couple_channels: Drop the same squares in all channels.
        scale_by_keep: Rescale what is kept, so that its sum is kept in expectation.
        batchwise, fast: Without effect, as in timm, whose older releases had them.
    """

    def __init__(
        self, drop_prob: float = 0.1, block_size: int = 7, gamma_scale: float = 1.0, with_noise: bool = False,
        inplace: bool = False, couple_channels: bool = True, scale_by_keep: bool = True, batchwise: bool | None = None,
        fast: bool | None = None,
    ) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.block_size = block_size
        self.gamma_scale = gamma_scale
        self.with_noise = with_noise
        self.inplace = inplace
        self.couple_channels = couple_channels
        self.scale_by_keep = scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        return drop_block_2d(x, self.drop_prob, self.block_size, self.gamma_scale, self.with_noise, self.inplace,
                             self.couple_channels, self.scale_by_keep)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:0.3f}, block_size={self.block_size}"


@torch.fx.wrap  # one node in a traced graph: sizes and rate depend on the map's size
def drop_block_2d(
    x: Tensor, drop_prob: float = 0.1, block_size: int = 7, gamma_scale: float = 1.0, with_noise: bool = False,
    inplace: bool = False, couple_channels: bool = True, scale_by_keep: bool = True,
) -> Tensor:
    """What `DropBlock2d` does in training."""
    batch, chans, height, width = x.shape
    rows, columns = min(block_size, height), min(block_size, width)
    gamma = gamma_scale * drop_prob * height * width / (rows * columns) / ((height - rows + 1) * (width - columns + 1))
    seeds = x.detach().new_empty((batch, 1 if couple_channels else chans, height, width)).bernoulli_(min(gamma, 1.0))
    dropped = F.max_pool2d(seeds, (rows, columns), stride=1, padding=(rows // 2, columns // 2))
    dropped = dropped[:, :, dropped.shape[2] - height:, dropped.shape[3] - width:]  # even sides give one more
    keep = 1 - dropped
    noise = torch.randn_like(keep) * dropped if with_noise else None
    if noise is None and scale_by_keep:
        keep = keep * (keep.numel() / keep.float().sum().clamp(min=1)).to(x.dtype)
    x = x.mul_(keep) if inplace else x * keep
    return x if noise is None else x.add_(noise) if inplace else x + noise


class PatchDropout(nn.Module):
    """In training, keep a random share of each image's patch tokens; prefix tokens stay.

    Shapes: (B, N, C) -> (B, kept + prefix, C). What is kept keeps its order only where `ordered`.
    Source: Liu et al., "PatchDropout: Economizing Vision Transformers Using Patch Dropout", 2022.
    """

    def __init__(self, prob: float = 0.5, num_prefix_tokens: int = 1, ordered: bool = False) -> None:
        super().__init__()
        if not 0 <= prob < 1:
            raise ValueError(f"a patch dropout of {prob} leaves nothing; it must be in [0, 1)")
        self.prob = prob
        self.num_prefix_tokens = num_prefix_tokens
        self.ordered = ordered

    def forward(self, x: Tensor) -> Tensor:
        return patch_dropout_forward(x, self.prob, self.num_prefix_tokens, self.ordered, self.training)[0]


class PatchDropoutWithIndices(PatchDropout):
    """`PatchDropout` that returns the tokens and the indices (B, kept) of the patches among them; None for all."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return patch_dropout_forward(x, self.prob, self.num_prefix_tokens, self.ordered, self.training)


def patch_dropout_forward(
    x: Tensor, prob: float, num_prefix_tokens: int, ordered: bool, training: bool
) -> tuple[Tensor, Tensor | None]:
    """What `PatchDropoutWithIndices` does."""
    if prob == 0.0 or not training:
        return x, None
    return _drop_patches(x, prob, num_prefix_tokens, ordered)


@torch.fx.wrap  # one node in a traced graph: how many are kept depends on how many there are
def _drop_patches(x: Tensor, prob: float, num_prefix_tokens: int, ordered: bool) -> tuple[Tensor, Tensor]:
    prefix, patches = x[:, :num_prefix_tokens], x[:, num_prefix_tokens:]
    count = max(1, int(patches.shape[1] * (1 - prob)))
    kept = torch.randn(patches.shape[:2], device=x.device).argsort(dim=1)[:, :count]
    kept = kept.sort(dim=1).values if ordered else kept
    patches = patches.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
    return torch.cat((prefix, patches), dim=1), kept
