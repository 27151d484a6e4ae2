"""Attention over the positions of a feature map, as MobileNetV4 has it."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from .attention import attend
from .config import use_fused_attn
from .conv import create_conv2d
from .helpers import placeable, to_2tuple
from .norm import NormLayer, get_norm_layer
from .padding import Padding
from .pool import AvgPool2dSame

__all__ = ["Attention2d", "MultiQueryAttention2d", "MultiQueryAttentionV2"]


class Attention2d(nn.Module):
    """Multi-head self-attention on a feature map; keys `qkv`, `proj`. Shapes: (B, dim, H, W) -> (B, dim_out, H, W).

    Args:
        dim: Channels of the input.
        dim_out: Channels of the output; `dim` unless given.
        num_heads: Heads.
        bias: Whether the two projections have a bias.
        expand_first: Attend in `dim_out` channels instead of `dim`.
        head_first: Lay the projected channels out as (heads, 3, head_dim) instead of (3, heads, head_dim).
        attn_drop: Dropout of the attention weights.
        proj_drop: Dropout of the output.
    """

    @placeable
    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        num_heads: int = 32,
        bias: bool = True,
        expand_first: bool = False,
        head_first: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        dim_out = dim_out or dim
        dim_attn = dim_out if expand_first else dim
        self.num_heads, self.dim_head = num_heads, dim_attn // num_heads
        self.head_first = head_first
        self.fused_attn = use_fused_attn()
        self.qkv = nn.Conv2d(dim, dim_attn * 3, 1, bias=bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Conv2d(dim_attn, dim_out, 1, bias=bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:]
        qkv = self.qkv(x).flatten(2)
        if self.head_first:
            q, k, v = qkv.unflatten(1, (self.num_heads, 3, -1)).unbind(2)
        else:
            q, k, v = qkv.unflatten(1, (3, self.num_heads, -1)).unbind(1)
        q, k, v = (t.transpose(2, 3).contiguous() for t in (q, k, v))  # (B, heads, H * W, head_dim)
        x = attend(q, k, v, self.fused_attn, self.attn_drop, attn_mask)
        x = x.transpose(2, 3).flatten(1, 2).unflatten(2, (height, width))
        return self.proj_drop(self.proj(x))


class MultiQueryAttention2d(nn.Module):
    """Attention whose heads share one key and one value map, both optionally downsampled; MobileNetV4's Mobile MQA.

    Shapes: (B, dim, H, W) -> (B, dim_out, H, W). Keys `query.proj`, `key.{down_conv,norm,proj}`, `value` likewise,
    `output.proj`. Source: Qin et al., "MobileNetV4: Universal Models for the Mobile Ecosystem", 2024.

    Args:
        dim: Channels of the input.
        dim_out: Channels of the output; `dim` unless given.
        num_heads: Query heads.
        key_dim: Channels of a key; `dim` / `num_heads` unless given.
        value_dim: Channels of a value, likewise.
        query_strides: Stride (vertical, horizontal) at which queries are pooled; the output is interpolated.
        kv_stride: Stride of a depthwise convolution before the key and value projections; 1 for none.
        dw_kernel_size: Kernel of that convolution.
        padding: Its padding, see `resolve_padding`.
        attn_drop: Dropout of the attention weights.
        proj_drop: Dropout of the output.
        norm_layer: Norm after the depthwise convolution.
        use_bias: Whether the projections have a bias.
    """

    @placeable
    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        num_heads: int = 8,
        key_dim: int | None = None,
        value_dim: int | None = None,
        query_strides: int | tuple[int, int] = 1,
        kv_stride: int = 1,
        dw_kernel_size: int = 3,
        dilation: int = 1,
        padding: Padding = "",
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        norm_layer: NormLayer = nn.BatchNorm2d,
        use_bias: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.key_dim = key_dim = key_dim or dim // num_heads
        self.value_dim = value_dim = value_dim or dim // num_heads
        self.query_strides, self.kv_stride = to_2tuple(query_strides), kv_stride
        self.has_query_strides = max(self.query_strides) > 1
        self.scale = key_dim**-0.5
        self.fused_attn = use_fused_attn()

        def project(out: int, stride: int) -> nn.Sequential:
            layers = nn.Sequential()
            if stride > 1:
                layers.add_module("down_conv", create_conv2d(
                    dim, dim, dw_kernel_size, stride=stride, dilation=dilation, padding=padding, depthwise=True))
                layers.add_module("norm", get_norm_layer(norm_layer)(dim))
            layers.add_module("proj", nn.Conv2d(dim, out, 1, bias=use_bias))
            return layers

        strides = self.query_strides
        self.query = project(num_heads * key_dim, 1)
        if self.has_query_strides:
            pool = AvgPool2dSame(strides) if padding == "same" else nn.AvgPool2d(strides)
            self.query = nn.Sequential(OrderedDict(
                down_pool=pool, norm=get_norm_layer(norm_layer)(dim), proj=self.query.proj))
        self.key = project(key_dim, kv_stride)
        self.value = project(value_dim, kv_stride)
        self.attn_drop = nn.Dropout(attn_drop)
        self.output = nn.Sequential()
        if self.has_query_strides:
            self.output.add_module("upsample", nn.Upsample(scale_factor=strides, mode="bilinear", align_corners=False))
        self.output.add_module("proj", nn.Conv2d(num_heads * value_dim, dim_out or dim, 1, bias=use_bias))
        self.output.add_module("drop", nn.Dropout(proj_drop))
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier's values for the projections, and for the convolutions before them."""
        for path, module in self.named_modules():
            if path.endswith(("proj", "down_conv")):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        # q (B, heads, H * W, key_dim), k (B, 1, M, key_dim), v (B, 1, M, value_dim)
        q = self.query(x)
        height, width = q.shape[-2:]
        q = q.flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3).contiguous()
        k = self.key(x).flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
        v = self.value(x).flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
        x = attend(q, k, v, self.fused_attn, self.attn_drop, attn_mask, self.scale)
        return self.output(x.transpose(2, 3).flatten(1, 2).unflatten(2, (height, width)))


class MultiQueryAttentionV2(nn.Module):
    """Attention whose heads share keys and values, without layers; keys `{query,key,value,out}_proj`.

    Shapes: (B, dim, H, W) -> (B, dim_out, H, W).
    Source: Shazeer, "Fast Transformer Decoding: One Write-Head is All You Need", 2019.

    Args:
        dim: Channels of the input.
        dim_out: Channels of the output; `dim` unless given.
        num_heads: Heads of queries.
        key_dim, value_dim: Channels of a key, of a value.
        attn_drop, proj_drop: Dropout of the attention weights, of the output.
    """

    @placeable
    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        num_heads: int = 8,
        key_dim: int = 64,
        value_dim: int = 64,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        dim_out = dim_out or dim
        self.num_heads, self.key_dim, self.value_dim = num_heads, key_dim, value_dim
        self.scale = key_dim**-0.5
        self.fused_attn = use_fused_attn()
        self.query_proj = nn.Parameter(torch.empty(num_heads, key_dim, dim))
        self.key_proj = nn.Parameter(torch.empty(dim, key_dim))
        self.value_proj = nn.Parameter(torch.empty(dim, value_dim))
        self.attn_drop = nn.Dropout(attn_drop)
        self.out_proj = nn.Parameter(torch.empty(dim_out, num_heads, value_dim))
        self.proj_drop = nn.Dropout(proj_drop)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in (self.query_proj, self.key_proj, self.value_proj):
            nn.init.normal_(weight, std=self.key_proj.shape[0] ** -0.5)
        nn.init.normal_(self.out_proj, std=self.out_proj.shape[0] ** -0.5)

    def forward(self, x: Tensor, m: Tensor | None = None) -> Tensor:
        """`m` is the map (B, dim, H', W') that keys and values are of, `x` itself unless given."""
        tokens = x.flatten(2).transpose(1, 2).unsqueeze(1)  # (B, 1, H * W, dim)
        others = tokens if m is None else m.flatten(2).transpose(1, 2).unsqueeze(1)
        q = tokens @ self.query_proj.transpose(1, 2)  # (B, heads, H * W, key_dim)
        k, v = others @ self.key_proj, others @ self.value_proj
        heads = attend(q, k, v, self.fused_attn, self.attn_drop, scale=self.scale)
        out = torch.einsum("bhnv,dhv->bdn", heads, self.out_proj)
        return self.proj_drop(out).unflatten(2, x.shape[2:])
