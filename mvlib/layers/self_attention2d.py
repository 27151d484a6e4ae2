"""Self-attention in place of a 3x3 convolution: over the whole map, over what is near, and without attention maps.

A logit for the relative position of a query and a key is the sum of one for the key's row and one for its column. Here
it comes out of the product of queries and keys: a query carries its logits for all rows and columns behind its own
channels, a key ones at its row and its column. The map of all pairs is then written once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .channel_attention import ATTN_LAYERS
from .helpers import is_recording, make_divisible, placeable, to_2tuple
from .rel_pos import gen_relative_position_index
from .window import check_map

__all__ = ["BottleneckAttn", "HaloAttn", "LambdaLayer"]

torch.fx.wrap("check_map")  # one node in a traced graph: what it does depends on the map's size


def _qk_width(dim_out: int, num_heads: int, dim_head: int | None, qk_ratio: float) -> int:
    if dim_out % num_heads:
        raise ValueError(f"{dim_out} channels cannot be divided among {num_heads} heads")
    return dim_head or make_divisible(dim_out * qk_ratio) // num_heads


class PosEmbedRel(nn.Module):
    """Attention with logits of relative positions; keys `height_rel`, `width_rel`.

    Source: Bello et al., "Attention Augmented Convolutional Networks", 2019.

    Args:
        win_size: Rows and columns of the keys, at least those of the queries; both are counted from the same corner.
        dim_head: Channels of queries and keys.
        scale_pos_embed: The scale of queries and keys holds for these logits, too.
    """

    marks: Tensor

    def __init__(self, win_size: tuple[int, int], dim_head: int, scale_pos_embed: bool) -> None:
        super().__init__()
        self.win_size = win_size
        self.scale = dim_head**-0.5
        self.scale_pos_embed = scale_pos_embed
        self.height_rel, self.width_rel = (nn.Parameter(torch.empty(2 * size - 1, dim_head)) for size in win_size)
        self.register_buffer("marks", torch.empty(sum(win_size), *win_size), persistent=False)
        self.init_non_persistent_buffers()

    def reset_parameters(self) -> None:
        for table in (self.height_rel, self.width_rel):
            nn.init.trunc_normal_(table, std=self.scale)

    def init_non_persistent_buffers(self) -> None:
        if self.marks.is_meta:  # where `eye` imports torch's compiler
            return
        rows, columns = (torch.eye(size) for size in self.win_size)
        self.marks[:len(rows)], self.marks[len(rows):] = rows[:, :, None], columns[:, None]

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B, y, x, heads, rows, columns, d), keys (B, y, x, heads, d, *win_size), values as keys ->
        (B, y, x, heads, rows * columns, e): a map of y times x windows.
        """
        own = q * self.scale
        based = own if self.scale_pos_embed else q
        rows, columns = (table.unfold(0, size, 1).flip(0) for table, size in
                         zip((self.height_rel, self.width_rel), self.win_size))  # (query's place, d, key's place)
        q = torch.cat((own, torch.einsum("byxnhwd,hdj->byxnhwj", based, rows[:q.shape[4]]),
                       torch.einsum("byxnhwd,wdj->byxnhwj", based, columns[:q.shape[5]])), dim=6).flatten(4, 5)
        marks = self.marks.to(k.dtype)
        if is_recording():  # an expansion, or zeros, would be written down with the batch's size
            marks = marks + 0.0 * k[:, :, :, :, :1]
        else:
            marks = marks.expand(k.shape[0], k.shape[1], k.shape[2], k.shape[3], -1, -1, -1)
        k = torch.cat((k, marks), dim=4).flatten(5)
        return (q @ k).softmax(dim=-1) @ v.flatten(5).transpose(4, 5)


class BottleneckAttn(nn.Module):
    """Attention of all positions to all; keys `qkv`, `pos_embed`.

    Shapes: (B, dim, H, W) of `feat_size` -> (B, dim_out, H / stride, W / stride).
    Source: Srinivas et al., "Bottleneck Transformers for Visual Recognition", 2021.

    Args:
        dim: Channels of the input.
        dim_out: Channels of the output; `dim` unless given.
        feat_size: Rows and columns of the map.
        stride: 1 or 2, by average pooling.
        num_heads: Heads.
        dim_head: Channels of a head's queries and keys; decides instead of `qk_ratio`.
        qk_ratio: All heads' channels of queries per channel of the output.
        qkv_bias: Whether the projection has a bias.
        scale_pos_embed: The logits of positions are scaled as the others.

    Raises:
        ValueError: The size is missing, or heads do not divide the channels; from `forward`, the map has another size.
    """

    @placeable
    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        feat_size: tuple[int, int] | None = None,
        stride: int = 1,
        num_heads: int = 4,
        dim_head: int | None = None,
        qk_ratio: float = 1.0,
        qkv_bias: bool = False,
        scale_pos_embed: bool = False,
    ) -> None:
        super().__init__()
        if feat_size is None:
            raise ValueError("the attention has positions for maps of one size: feat_size is needed")
        dim_out = dim_out or dim
        self.feat_size = to_2tuple(feat_size)
        self.num_heads = num_heads
        width = num_heads * _qk_width(dim_out, num_heads, dim_head, qk_ratio)
        self.splits = [width, width, dim_out]
        self.qkv = nn.Conv2d(dim, sum(self.splits), 1, bias=qkv_bias)
        self.pos_embed = PosEmbedRel(self.feat_size, width // num_heads, scale_pos_embed)
        self.pool = nn.AvgPool2d(2, 2) if stride == 2 else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.qkv.weight, std=self.qkv.in_channels**-0.5)
        self.pos_embed.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        x = self.qkv(check_map(x, self.feat_size, True))
        q, k, v = x[:, None, None].split(self.splits, dim=3)  # one window
        q, k, v = (t.unflatten(3, (self.num_heads, -1)) for t in (q, k, v))
        x = self.pos_embed(q.permute(0, 1, 2, 3, 5, 6, 4), k, v).flatten(1, 3)  # (B, heads, H * W, e)
        return self.pool(x.transpose(2, 3).flatten(1, 2).unflatten(2, self.feat_size))


class HaloAttn(nn.Module):
    """Attention of each block's positions to those of the block and of a halo around it; keys `q`, `kv`, `pos_embed`.

    Shapes: (B, dim, H, W) -> (B, dim_out, H / stride, W / stride); `block_size` divides H and W.
    Source: Vaswani et al., "Scaling Local Self-Attention for Parameter Efficient Visual Backbones", 2021. Here zeros
    beyond the map's edge are keys as others.

    Args:
        dim: Channels of the input.
        dim_out: Channels of the output; `dim` unless given.
        feat_size: Without effect; other attention takes it.
        stride: 1 or 2, by fewer queries.
        num_heads: Heads.
        dim_head: Channels of a head's queries and keys; decides instead of `qk_ratio`.
        block_size: Side of a block.
        halo_size: Positions around it on each side.
        qk_ratio: All heads' channels of queries per channel of the output.
        qkv_bias: Whether the projections have a bias.
        avg_down: Stride by average pooling, as where the stride does not divide the block.
        scale_pos_embed: The logits of positions are scaled as the others.

    Raises:
        ValueError: The stride is another, or heads do not divide the channels; from `forward`, blocks do not divide the
            map.
    """

    @placeable
    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        feat_size: tuple[int, int] | None = None,
        stride: int = 1,
        num_heads: int = 8,
        dim_head: int | None = None,
        block_size: int = 8,
        halo_size: int = 3,
        qk_ratio: float = 1.0,
        qkv_bias: bool = False,
        avg_down: bool = False,
        scale_pos_embed: bool = False,
    ) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ValueError(f"stride is 1 or 2, not {stride}")
        dim_out = dim_out or dim
        pools = stride > 1 and (avg_down or block_size % stride != 0)
        self.num_heads, self.block_size, self.halo_size = num_heads, block_size, halo_size
        self.query_stride = 1 if pools else stride
        self.win_size = block_size + 2 * halo_size
        qk_width = _qk_width(dim_out, num_heads, dim_head, qk_ratio)
        self.splits = [qk_width, dim_out // num_heads]
        self.q = nn.Conv2d(dim, num_heads * qk_width, 1, stride=self.query_stride, bias=qkv_bias)
        self.kv = nn.Conv2d(dim, num_heads * sum(self.splits), 1, bias=qkv_bias)
        self.pos_embed = PosEmbedRel((self.win_size, self.win_size), qk_width, scale_pos_embed)
        self.pool = nn.AvgPool2d(2, 2) if pools else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for conv in (self.q, self.kv):
            nn.init.trunc_normal_(conv.weight, std=conv.in_channels**-0.5)
        self.pos_embed.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        x = check_map(x, (self.block_size, self.block_size), False)
        side, heads = self.block_size // self.query_stride, (self.num_heads, -1)
        q = self.q(x).unflatten(3, (-1, side)).unflatten(2, (-1, side)).unflatten(1, heads)  # (B, heads, d, y, h, x, w)
        kv = self._windows(self.kv(x)).unflatten(1, heads)  # (B, heads, d + e, y, x, *win_size)
        k, v = kv.permute(0, 3, 4, 1, 2, 5, 6).split(self.splits, dim=4)
        x = self.pos_embed(q.permute(0, 3, 5, 1, 4, 6, 2), k, v).unflatten(4, (side, side))
        return self.pool(x.permute(0, 3, 6, 1, 4, 2, 5).flatten(5).flatten(3, 4).flatten(1, 2))

    def _windows(self, x: Tensor) -> Tensor:
        """Blocks with their halos: (B, C, H, W) -> (B, C, blocks down, blocks across, win_size, win_size)."""
        if is_recording():  # ONNX's older exporter knows no views that overlap
            windows = F.unfold(x, self.win_size, padding=self.halo_size, stride=self.block_size)
            windows = windows.unflatten(2, (x.shape[2] // self.block_size, -1))
            windows = windows.unflatten(1, (-1, self.win_size, self.win_size))
            return windows.permute(0, 1, 4, 5, 2, 3)
        x = F.pad(x, [self.halo_size] * 4).unfold(2, self.win_size, self.block_size)
        return x.unfold(3, self.win_size, self.block_size)


class LambdaLayer(nn.Module):
    """Linear maps, of all content and of each position's surroundings, applied to queries.

    Shapes: (B, dim, H, W) -> (B, dim_out, H / stride, W / stride); keys `qkv`, `norm_q`, `norm_v`, and `conv_lambda` or
    `pos_emb`.
    Source: Bello, "LambdaNetworks: Modeling Long-Range Interactions Without Attention", 2021, with an intra-depth of 1.

    Args:
        dim: Channels of the input.
        dim_out: Channels of the output; `dim` unless given.
        feat_size: Rows and columns of the map, where `r` is None.
        stride: 1 or 2, by average pooling.
        num_heads: Heads.
        dim_head: Channels of a head's queries, and of the keys; `qk_ratio` decides where it is None.
        r: Odd side of the surroundings, whose maps come from a convolution; None for a table of all relative positions.
        qk_ratio: All heads' channels of queries per channel of the output.
        qkv_bias: Whether the projection has a bias.

    Raises:
        ValueError: The size is missing, `r` is even, or heads do not divide the channels; from `forward`, the map has
            another size than the table is for.
    """

    conv_lambda: Any  # or a parameter `pos_emb`, with its index
    pos_emb: Any
    rel_pos_index: Tensor

    @placeable
    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        feat_size: tuple[int, int] | None = None,
        stride: int = 1,
        num_heads: int = 4,
        dim_head: int | None = 16,
        r: int | None = 9,
        qk_ratio: float = 1.0,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        if r is None and feat_size is None:
            raise ValueError("without r, positions are for maps of one size: feat_size is needed")
        if r is not None and r % 2 == 0:
            raise ValueError(f"r is odd, to have a centre, not {r}")
        dim_out = dim_out or dim
        width = _qk_width(dim_out, num_heads, dim_head, qk_ratio)
        self.num_heads = num_heads
        self.splits = [num_heads * width, width, dim_out // num_heads]
        self.feat_size: tuple[int, int] | None = None
        self.qkv = nn.Conv2d(dim, sum(self.splits), 1, bias=qkv_bias)
        self.norm_q = nn.BatchNorm2d(self.splits[0])
        self.norm_v = nn.BatchNorm2d(self.splits[2])
        self.conv_lambda = self.pos_emb = None
        if r is not None:
            self.conv_lambda = nn.Conv3d(1, width, (r, r, 1), padding=(r // 2, r // 2, 0))
        else:
            rows, columns = self.feat_size = to_2tuple(feat_size)
            self.pos_emb = nn.Parameter(torch.empty(2 * rows - 1, 2 * columns - 1, width))
            count = rows * columns
            self.register_buffer("rel_pos_index", torch.empty(count, count, dtype=torch.long), persistent=False)
            self.init_non_persistent_buffers()
        self.pool = nn.AvgPool2d(2, 2) if stride == 2 else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.qkv.weight, std=self.qkv.in_channels**-0.5)
        if self.conv_lambda is not None:
            nn.init.trunc_normal_(self.conv_lambda.weight, std=self.splits[1]**-0.5)
        if self.pos_emb is not None:
            nn.init.trunc_normal_(self.pos_emb, std=0.02)

    def init_non_persistent_buffers(self) -> None:
        if self.feat_size is not None and not self.rel_pos_index.is_meta:
            self.rel_pos_index.copy_(gen_relative_position_index(self.feat_size).T)  # key's place less query's

    def forward(self, x: Tensor) -> Tensor:
        if self.feat_size is not None:
            x = check_map(x, self.feat_size, True)
        size = x.shape[2:]
        q, k, v = self.qkv(x).split(self.splits, dim=1)
        q = self.norm_q(q).unflatten(1, (self.num_heads, -1)).flatten(3)  # (B, heads, d, H * W)
        k, v = k.flatten(2).softmax(dim=2), self.norm_v(v)
        if self.conv_lambda is not None:
            out = self._apply_lambdas(q, k, v)
        else:  # the same maps, multiplied in another order: (B, heads, queries, keys)
            table = self.pos_emb.flatten(0, 1)[self.rel_pos_index]
            weights = torch.einsum("bnki,ijk->bnij", q, table) + q.transpose(2, 3) @ k.unsqueeze(1)
            out = v.flatten(2).unsqueeze(1) @ weights.transpose(2, 3)
        return self.pool(out.flatten(1, 2).unflatten(2, size))

    def _apply_lambdas(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        conv, chs = self.conv_lambda, self.splits[2]
        # A channel is an image of its own: in two dimensions that is quicker than in three.
        near = F.conv2d(v.flatten(0, 1).unsqueeze(1), conv.weight.squeeze(4), conv.bias, padding=conv.padding[:2])
        content = v.flatten(2) @ k.transpose(1, 2)  # (B, e, d)
        lambdas = near.flatten(2).unflatten(0, (-1, chs)) + content.unsqueeze(3)
        # Products and sums, head by head: there is a small matrix for each position, too small to multiply quickly.
        return torch.stack([(q[:, i].unsqueeze(1) * lambdas).sum(2) for i in range(self.num_heads)], dim=1)


ATTN_LAYERS.update({"bottleneck": BottleneckAttn, "halo": HaloAttn, "lambda": LambdaLayer})
