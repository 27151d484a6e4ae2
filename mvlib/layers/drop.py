"""Regularisation by dropping: residual paths, feature blocks, tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DropBlock2d", "DropPath", "PatchDropout", "drop_path_rates"]


def drop_path_rates(rate: float, depths: int | list[int] | tuple[int, ...]) -> list:
    """Stochastic-depth rates that grow linearly from 0 at the first block to `rate` at the last.

    Args:
        rate: Rate of the last block.
        depths: Number of blocks, or of blocks per stage; with stages the result is a list of lists.
    """
    flat = isinstance(depths, int)
    counts = [depths] if flat else list(depths)
    total = sum(counts)
    rates = [rate * i / max(total - 1, 1) for i in range(total)]
    if flat:
        return rates
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [rates[start:start + count] for start, count in zip(starts, counts)]


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
        return _drop_path(x, self.drop_prob, self.scale_by_keep)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:0.3f}"


@torch.fx.wrap  # one node in a traced graph: the mask's shape depends on the input's dimensions
def _drop_path(x: Tensor, drop_prob: float, scale_by_keep: bool) -> Tensor:
    keep = 1 - drop_prob
    mask = x.new_empty([x.shape[0]] + [1] * (x.dim() - 1)).bernoulli_(keep)
    if scale_by_keep and keep > 0:
        mask.div_(keep)
    return x * mask


class DropBlock2d(nn.Module):
    """Drop contiguous squares of a feature map in training.

    Shapes: (B, C, H, W) -> same. Kept activations are rescaled so that their sum is kept in expectation.
    Source: Ghiasi et al., "DropBlock: A regularization method for convolutional networks", 2018.

    Args:
        drop_prob: Expected share of dropped activations (before `gamma_scale`).
        block_size: Side of a dropped square, in feature-map pixels.
        gamma_scale: Factor on the rate of seeds.
    """

    def __init__(self, drop_prob: float = 0.1, block_size: int = 7, gamma_scale: float = 1.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.block_size = block_size
        self.gamma_scale = gamma_scale

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        return _drop_block(x, self.drop_prob * self.gamma_scale, self.block_size)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:0.3f}, block_size={self.block_size}"


@torch.fx.wrap  # one node in a traced graph: sizes and rate depend on the map's size
def _drop_block(x: Tensor, drop_prob: float, block_size: int) -> Tensor:
    height, width = x.shape[-2:]
    size = min(block_size, height, width)
    seeds_fit = (height - size + 1) * (width - size + 1)
    gamma = drop_prob * height * width / size**2 / seeds_fit
    seeds = torch.empty_like(x).bernoulli_(min(gamma, 1.0))
    dropped = F.max_pool2d(seeds, kernel_size=size, stride=1, padding=size // 2)[:, :, :height, :width]
    keep = 1 - dropped
    return x * keep * (keep.numel() / keep.sum().clamp(min=1))


class PatchDropout(nn.Module):
    """In training, keep a random share of each image's patch tokens; prefix tokens stay.

    Shapes: (B, N, C) -> (B, kept + prefix, C).
    Source: Liu et al., "PatchDropout: Economizing Vision Transformers Using Patch Dropout", 2022.
    """

    def __init__(self, prob: float = 0.5, num_prefix_tokens: int = 1) -> None:
        super().__init__()
        if not 0 <= prob < 1:
            raise ValueError(f"a patch dropout of {prob} leaves nothing; it must be in [0, 1)")
        self.prob = prob
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, x: Tensor) -> Tensor:
        if self.prob == 0.0 or not self.training:
            return x
        return _drop_patches(x, self.prob, self.num_prefix_tokens)


@torch.fx.wrap  # one node in a traced graph: how many are kept depends on how many there are
def _drop_patches(x: Tensor, prob: float, num_prefix_tokens: int) -> Tensor:
    prefix, patches = x[:, :num_prefix_tokens], x[:, num_prefix_tokens:]
    count = max(1, int(patches.shape[1] * (1 - prob)))
    kept = torch.rand(patches.shape[:2], device=x.device).argsort(dim=1)[:, :count, None]
    return torch.cat((prefix, patches.gather(1, kept.expand(-1, -1, x.shape[-1]))), dim=1)
