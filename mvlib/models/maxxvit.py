"""CoAtNet, MaxViT and their relatives: convolutions first, then self-attention with a bias for relative positions.

Papers:
    Dai et al., "CoAtNet: Marrying Convolution and Attention for All Data Sizes", 2021, arXiv:2106.04803.
    Tu et al., "MaxViT: Multi-Axis Vision Transformer", 2022, arXiv:2204.01697.

A stage halves the map in its first block. There are four kinds of block, named by letters:

    C   a convolution block: MBConv, or ConvNeXt (the "coatnext" and "maxxvit" models)
    T   a transformer block that attends to the whole map (CoAtNet's last stages)
    M   a convolution block, then attention within windows, then attention across them on a grid (MaxViT)
    PM  two convolution blocks, then both attentions side by side

All architectures are one class. Its arguments that begin with "conv_" are fields of `ConvConfig`, those that begin with
"transformer_" fields of `TransformerConfig`; the table of configs below says what differs between architectures.
"""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer
from ..layers.attention import attend
from ..layers.channel_attention import AttnLayer, SEModule, get_attn
from ..layers.config import use_fused_attn
from ..layers.conv import create_conv2d, num_groups
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import computed, extend_tuple, make_divisible, placeable, to_2tuple
from ..layers.mlp import ConvMlp, LayerScale, LayerScale2d, Mlp
from ..layers.norm import LayerNorm, NormLayer, get_norm_act_layer, get_norm_layer
from ..layers.padding import pad_same, resolve_padding
from ..layers.pool import ClassifierHead, NormMlpClassifierHead
from ..layers.rel_pos import RelPosBias, RelPosBiasTf, RelPosMlp, RelPosTable
from ..layers.residual import ResidualBlock
from ..layers.stage import run_blocks
from ..layers.weight_init import fan_out_normal_
from ..layers.window import window_partition, window_reverse
from ..registry import register_model
from .base import Flow, ImageModel, KeyMap, StateDict, Step

if TYPE_CHECKING:
    from ._variants.maxxvit import *

__all__ = ["ConvConfig", "MaxxVit", "TransformerConfig"]

Size = tuple[int, int]


@dataclass
class ConvConfig:
    """What convolution blocks (and the stem) are like. Arguments of the model begin with "conv_".

    Attributes:
        block_type: "mbconv" or "convnext".
        expand_ratio: Hidden channels per channel, of MBConv's output with `expand_output`, else of its input.
        kernel_size, group_size: MBConv: of the inner convolution, side of the kernel (ConvNeXt's is 7) and channels of
            a group; 1 is depthwise, 0 ungrouped.
        pre_norm_act: MBConv: an activation after the first norm.
        output_bias: Whether the last convolution and the shortcut's have a bias.
        stride_mode: What halves the map: "dw" the inner convolution, "1x1" the first one, "pool" pooling before it, of
            `downsample_pool_type`; "" for `pool_type`, which is that of MBConv's shortcut, see `Downsample2d`.
        padding: "" for PyTorch's symmetric padding, "same" for TensorFlow's.
        attn_early: Channel attention before the second norm instead of after it.
        attn_layer: Channel attention by name, see `layers.get_attn`; "" for none.
        attn_act_layer, attn_ratio: Squeeze-and-excitation's activation, and its squeezed channels per output channel
            (per hidden channel unless `expand_output`).
        init_values: ConvNeXt: initial layer scale; None for none.
        norm_layer, norm_eps: Batch norm with 1e-5 for MBConv, layer norm with 1e-6 for ConvNeXt unless given.
        norm_layer_cl: timm's, without effect: the blocks' maps are (B, C, H, W).
        shortcut_proj: MBConv: project a pooled shortcut even where the width stays.
    """

    block_type: str = "mbconv"
    expand_ratio: float = 4.0
    expand_output: bool = True
    kernel_size: int = 3
    group_size: int = 1
    pre_norm_act: bool = False
    output_bias: bool = True
    stride_mode: str = "dw"
    pool_type: str = "avg2"
    downsample_pool_type: str = "avg2"
    padding: str = ""
    attn_early: bool = False
    attn_layer: AttnLayer = "se"
    attn_act_layer: ActLayer = "silu"
    attn_ratio: float = 0.25
    init_values: float | None = 1e-6
    act_layer: ActLayer = "gelu"
    norm_layer: NormLayer = ""
    norm_layer_cl: NormLayer = ""
    norm_eps: float | None = None
    shortcut_proj: bool = False

    def __post_init__(self) -> None:
        _check("conv_block_type", self.block_type, ("mbconv", "convnext"))
        _check("conv_stride_mode", self.stride_mode, ("dw", "pool") + ("1x1",) * (self.block_type == "mbconv"))
        norm, norm_cl, eps = ("batchnorm2d", "", 1e-5) if self.block_type == "mbconv" else \
            ("layernorm2d", "layernorm", 1e-6)
        self.norm_layer, self.norm_layer_cl = self.norm_layer or norm, self.norm_layer_cl or norm_cl
        self.norm_eps = eps if self.norm_eps is None else self.norm_eps
        self.downsample_pool_type = self.downsample_pool_type or self.pool_type


def _norm_act(norm_layer: NormLayer, act_layer: ActLayer, eps: float | None) -> Callable[..., nn.Module]:
    return get_norm_act_layer(partial(get_norm_layer(norm_layer), eps=eps), act_layer)


@dataclass
class TransformerConfig:
    """What attention blocks are like. Arguments of the model begin with "transformer_".

    Attributes:
        dim_head: Channels of a head.
        head_first: Windows: each head's query, key and value stand together; otherwise all queries come first.
        expand_ratio: Hidden channels of the MLP per channel.
        expand_first: T blocks: widen in the projection to queries, keys and values; otherwise in that of the output.
        shortcut_bias, attn_bias: Whether the projections of T blocks' shortcuts, and those of attention, have a bias.
        attn_drop, proj_drop: Dropout of the attention weights, and of the outputs of attention and MLP.
        pool_type: T blocks: pooling, see `Downsample2d`.
        rel_pos_type: "bias", "bias_tf" (tables), "mlp" (`RelPosMlp` of `rel_pos_dim` hidden channels), or "" for none.
        partition_ratio: Pixels of the image per row (column) of a window and of the grid, where these are not given.
        window_size, grid_size: Rows and columns of a window, and of the grid; those of the window unless given.
        no_block_attn: M blocks: attention on the grid alone.
        use_nchw_attn: M blocks: 1x1 convolutions on (B, C, H, W) instead of linear layers.
        init_values: Initial layer scale; None for none.
        norm_layer: Norm of (B, C, H, W) maps, and of the final features; `norm_layer_cl`: of channels-last maps.
        scale_dim: Windows: attention logits are divided by the root of all channels, not of a head's.
    """

    dim_head: int = 32
    head_first: bool = True
    expand_ratio: float = 4.0
    expand_first: bool = True
    shortcut_bias: bool = True
    attn_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0
    pool_type: str = "avg2"
    rel_pos_type: str = "bias"
    rel_pos_dim: int = 512
    partition_ratio: int = 32
    window_size: int | Size | None = None
    grid_size: int | Size | None = None
    no_block_attn: bool = False
    use_nchw_attn: bool = False
    init_values: float | None = None
    act_layer: ActLayer = "gelu"
    norm_layer: NormLayer = "layernorm2d"
    norm_layer_cl: NormLayer = "layernorm"
    norm_eps: float = 1e-6
    scale_dim: bool = False

    def __post_init__(self) -> None:
        _check("transformer_rel_pos_type", self.rel_pos_type, ("bias", "bias_tf", "mlp", ""))
        self.grid_size = None if self.grid_size is None else to_2tuple(self.grid_size)
        if self.window_size is not None:
            self.window_size = to_2tuple(self.window_size)
            self.grid_size = self.grid_size or self.window_size

    def make_norm(self, dim: int, layout: str = "NCHW") -> nn.Module:
        return get_norm_layer(self.norm_layer if layout == "NCHW" else self.norm_layer_cl)(dim, eps=self.norm_eps)


def cfg_window_size(cfg: TransformerConfig, img_size: Size) -> TransformerConfig:
    """The config with windows and grid for an image of `img_size`, in pixels, unless it has them."""
    size = _partition(img_size, cfg.partition_ratio)
    return cfg if cfg.window_size is not None else replace(cfg, window_size=size, grid_size=size)


def _check(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} {value!r} is not one of {', '.join(map(repr, known))}")


def _partition(img_size: Size, ratio: int) -> Size:
    return img_size[0] // ratio, img_size[1] // ratio


_CONV, _TRANSFORMER = ConvConfig(), TransformerConfig()  # of blocks that are given none


# relative positions

def get_rel_pos_cls(cfg: TransformerConfig, window_size: Size) -> Callable[..., nn.Module] | None:
    """What makes the biases for a window of rows and columns of `num_heads`; None for none."""
    if cfg.rel_pos_type == "mlp":
        return partial(RelPosMlp, window_size=window_size, hidden_dim=cfg.rel_pos_dim)
    classes = {"bias": RelPosBias, "bias_tf": RelPosBiasTf}
    return partial(classes[cfg.rel_pos_type], window_size=window_size) if cfg.rel_pos_type else None


# convolution blocks

class Downsample2d(nn.Module):
    """Halve a map by pooling, then project it to another width, if it is another or always; key `expand`.

    Shapes: (B, dim, H, W) -> (B, dim_out, H', W'); H' is ceil(H / 2), or floor(H / 2) for kernels of 2 without padding.
    `pool_type`: "max" or "avg" over 3 x 3 pixels, "avg_zeros" (the zeros around the map count for the mean), "max2" or
    "avg2" over 2 x 2. `padding`: as `ConvConfig`'s.

    Raises:
        ValueError: The pooling is unknown.
    """

    _pools = {
        "max": (nn.MaxPool2d, 3, -math.inf, {}), "max2": (nn.MaxPool2d, 2, -math.inf, {}),
        "avg": (nn.AvgPool2d, 3, 0.0, {"count_include_pad": False}), "avg_zeros": (nn.AvgPool2d, 3, 0.0, {}),
        "avg2": (nn.AvgPool2d, 2, 0.0, {}),
    }

    @placeable
    def __init__(
        self, dim: int, dim_out: int, pool_type: str = "avg2", padding: str = "", bias: bool = True,
        always_project: bool = False,
    ) -> None:
        super().__init__()
        _check("pool_type", pool_type, tuple(self._pools))
        pool, self.kernel_size, self.pad_value, options = self._pools[pool_type]
        amount, self.pads_input = resolve_padding(padding or (self.kernel_size - 1) // 2, self.kernel_size, stride=2)
        self.pool = pool(self.kernel_size, stride=2, padding=amount, **options)
        self.expand = nn.Conv2d(dim, dim_out, 1, bias=bias) if dim != dim_out or always_project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.pads_input:
            x = pad_same(x, self.kernel_size, stride=2, value=self.pad_value)
        return self.expand(self.pool(x))


class MbConvBlock(nn.Module):
    """Inverted bottleneck with a norm in front: 1x1 convolution that widens, 3x3, channel attention, 1x1.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H', W'). Keys `shortcut`, `pre_norm`, `down`, `conv1_1x1`, `norm1`,
    `conv2_kxk`, `se_early`, `norm2`, `se`, `conv3_1x1`. `dilation` is of the inner convolution: the first where that
    one strides, or would, otherwise the second.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 1, dilation: Size = (1, 1), cfg: ConvConfig = _CONV,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        mid_chs = make_divisible((out_chs if cfg.expand_output else in_chs) * cfg.expand_ratio)
        strides = {mode: stride if mode == cfg.stride_mode else 1 for mode in ("pool", "1x1", "dw")}
        norm_act = _norm_act(cfg.norm_layer, cfg.act_layer, cfg.norm_eps)
        padding, bias = cfg.padding, cfg.output_bias
        attn = _make_channel_attention(cfg, mid_chs, out_chs)

        self.shortcut = Downsample2d(in_chs, out_chs, cfg.pool_type, padding, bias, cfg.shortcut_proj) \
            if stride == 2 else nn.Identity()
        self.pre_norm = norm_act(in_chs, apply_act=cfg.pre_norm_act)
        self.down = Downsample2d(in_chs, in_chs, cfg.downsample_pool_type, padding) if strides["pool"] == 2 else \
            nn.Identity()
        self.conv1_1x1 = create_conv2d(in_chs, mid_chs, 1, stride=strides["1x1"])
        self.norm1 = norm_act(mid_chs)
        self.conv2_kxk = create_conv2d(
            mid_chs, mid_chs, cfg.kernel_size, stride=strides["dw"], padding=padding,
            dilation=dilation[0 if cfg.stride_mode == "dw" else 1], groups=num_groups(cfg.group_size, mid_chs))
        self.se_early = attn if cfg.attn_early else nn.Identity()
        self.norm2 = norm_act(mid_chs)
        self.se = nn.Identity() if cfg.attn_early else attn
        self.conv3_1x1 = create_conv2d(mid_chs, out_chs, 1, bias=bias)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        x = self.norm1(self.conv1_1x1(self.down(self.pre_norm(x))))
        x = self.se(self.norm2(self.se_early(self.conv2_kxk(x))))
        return self.drop_path(self.conv3_1x1(x)) + shortcut


def _make_channel_attention(cfg: ConvConfig, mid_chs: int, out_chs: int) -> nn.Module:
    layer = get_attn(cfg.attn_layer)
    if layer is None:
        return nn.Identity()
    if layer is SEModule:
        squeezed = int(cfg.attn_ratio * (out_chs if cfg.expand_output else mid_chs))
        return SEModule(mid_chs, rd_channels=squeezed, act_layer=cfg.attn_act_layer)
    return layer(mid_chs)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7 convolution, norm and MLP on one residual branch, scaled (Liu et al., 2022, arXiv:2201.03545).

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H', W'). Keys `shortcut`, `down`, `conv_dw`, `norm`, `mlp`, `ls`.

    Args:
        dilation: Of the depthwise convolution; the second counts.
        conv_mlp: The MLP is of 1x1 convolutions; otherwise of linear layers, behind layer norm.

    Raises:
        ValueError: An MLP of linear layers, and the norm is not a layer norm.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int | None = None, kernel_size: int = 7, stride: int = 1, dilation: Size = (1, 1),
        cfg: ConvConfig = _CONV, conv_mlp: bool = True, drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if not conv_mlp and "layernorm" not in str(cfg.norm_layer):
            raise ValueError(f"conv_mlp=False goes with a layer norm, not with norm_layer {cfg.norm_layer!r}")
        out_chs = out_chs or in_chs
        bias, pools = cfg.output_bias, stride == 2 and cfg.stride_mode == "pool"
        self.layout = "NCHW" if conv_mlp else "NHWC"
        self.shortcut = Downsample2d(in_chs, out_chs) if stride == 2 else \
            nn.Conv2d(in_chs, out_chs, 1, bias=bias) if in_chs != out_chs else nn.Identity()
        self.down = Downsample2d(in_chs, in_chs, cfg.downsample_pool_type) if pools else nn.Identity()
        self.conv_dw = create_conv2d(in_chs, out_chs, kernel_size, stride=1 if pools else stride, dilation=dilation[1],
                                     depthwise=True, bias=bias)
        self.norm = get_norm_layer(cfg.norm_layer)(out_chs, eps=cfg.norm_eps) if conv_mlp else LayerNorm(out_chs)
        self.mlp = _make_mlp(out_chs, cfg.expand_ratio, self.layout, act_layer=cfg.act_layer, bias=bias)
        self.ls = _make_layer_scale(out_chs, cfg.init_values, self.layout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        branch, is_last = self.conv_dw(self.down(x)), self.layout == "NHWC"
        branch = self.ls(self.mlp(self.norm(branch.permute(0, 2, 3, 1) if is_last else branch)))
        return self.drop_path(branch.permute(0, 3, 1, 2) if is_last else branch) + self.shortcut(x)


def _make_conv(in_chs: int, out_chs: int, stride: int, cfg: ConvConfig, drop_path: float) -> nn.Module:
    block = ConvNeXtBlock if cfg.block_type == "convnext" else MbConvBlock
    return block(in_chs, out_chs, stride=stride, cfg=cfg, drop_path=drop_path)


def _make_layer_scale(dim: int, init_values: float | None, layout: str) -> nn.Module:
    scale = LayerScale2d if layout == "NCHW" else LayerScale
    return scale(dim, init_values) if init_values else nn.Identity()


def _make_mlp(dim: int, expand_ratio: float, layout: str, **kwargs: Any) -> nn.Module:
    return (ConvMlp if layout == "NCHW" else Mlp)(dim, int(expand_ratio * dim), **kwargs)


# windows and grids

def grid_partition(x: Tensor, grid_size: Size) -> Tensor:
    """The sets of positions that a grid joins: those at the same place of each of its cells, as many as it has places.

    Shapes: (B, H, W, C) -> (B * sets, gh, gw, C); the grid's sides gh and gw must divide H and W.
    """
    (batch, height, width, chans), (rows, columns) = x.shape, grid_size
    cells = x.reshape(batch, rows, height // rows, columns, width // columns, chans)  # unflatten would fix ONNX's batch
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(-1, rows, columns, chans)


def grid_reverse(windows: Tensor, grid_size: Size, img_size: Size) -> Tensor:
    """Put the sets of `grid_partition` together again. Shapes: (B * sets, gh, gw, C) -> (B, *img_size, C)."""
    cells = windows.unflatten(0, (-1, img_size[0] // grid_size[0], img_size[1] // grid_size[1]))
    return cells.permute(0, 3, 1, 4, 2, 5).flatten(3, 4).flatten(1, 2)


def window_partition_nchw(x: Tensor, window_size: Size) -> Tensor:
    """Cut a map into windows, row by row. Shapes: (B, C, H, W) -> (B * windows, C, wh, ww)."""
    return window_partition(x.permute(0, 2, 3, 1), window_size).permute(0, 3, 1, 2)


def window_reverse_nchw(windows: Tensor, window_size: Size, img_size: Size) -> Tensor:
    """Put the windows of a map together again. Shapes: (B * windows, C, wh, ww) -> (B, C, *img_size)."""
    return window_reverse(windows.permute(0, 2, 3, 1), window_size, *img_size).permute(0, 3, 1, 2)


def grid_partition_nchw(x: Tensor, grid_size: Size) -> Tensor:
    """As `grid_partition`. Shapes: (B, C, H, W) -> (B * sets, C, gh, gw)."""
    return grid_partition(x.permute(0, 2, 3, 1), grid_size).permute(0, 3, 1, 2)


def grid_reverse_nchw(windows: Tensor, grid_size: Size, img_size: Size) -> Tensor:
    """As `grid_reverse`. Shapes: (B * sets, C, gh, gw) -> (B, C, *img_size)."""
    return grid_reverse(windows.permute(0, 2, 3, 1), grid_size, img_size).permute(0, 3, 1, 2)


@torch.fx.wrap  # one node in a traced graph: the number of parts depends on the input's size
def _cut_into_parts(x: Tensor, size: Size, in_windows: bool) -> Tensor:
    height, width = x.shape[1:3]
    if height % size[0] or width % size[1]:
        raise ValueError(f"a map of {height} x {width} cannot be cut into {'windows' if in_windows else 'a grid'} of "
                         f"{size[0]} x {size[1]}: build the model with the image's img_size, or call set_input_size")
    return window_partition(x, size) if in_windows else grid_partition(x, size)


@torch.fx.wrap
def _join_parts(parts: Tensor, size: Size, in_windows: bool, like: Tensor) -> Tensor:
    height, width = like.shape[1:3]
    return window_reverse(parts, size, height, width) if in_windows else grid_reverse(parts, size, (height, width))


# attention blocks

class Attention(nn.Module):
    """Multi-head self-attention within windows, or over a whole map; keys `qkv`, `rel_pos`, `proj`.

    Derived classes say how maps lie.

    Args:
        dim_out: Channels of the output; `dim` unless given.
        expand_first: Queries, keys and values have the output's channels (of linear layers, if more); otherwise the
            input's.
        rel_pos_cls: What makes the biases for relative positions of `num_heads`; None for none.
        Others: As in `TransformerConfig`.

    Raises:
        ValueError: The heads do not divide the channels.
    """

    layout = ""

    @placeable
    def __init__(
        self, dim: int, dim_out: int | None = None, dim_head: int = 32, bias: bool = True, expand_first: bool = True,
        head_first: bool = True, rel_pos_cls: Callable[..., nn.Module] | None = None, attn_drop: float = 0.0,
        proj_drop: float = 0.0, scale_dim: bool = False,
    ) -> None:
        super().__init__()
        dim_out = dim_out or dim
        attn_dim = (dim_out if self.layout == "NCHW" else max(dim, dim_out)) if expand_first else dim
        if attn_dim % dim_head:
            raise ValueError(f"{attn_dim} channels cannot be divided into heads of {dim_head}")
        project = partial(nn.Conv2d, kernel_size=1) if self.layout == "NCHW" else nn.Linear
        self.head_first, self.dim_head, self.num_heads = head_first, dim_head, attn_dim // dim_head
        self.fused_attn = use_fused_attn()
        self.scale = (attn_dim if scale_dim else dim_head) ** -0.5
        self.qkv = project(dim, 3 * attn_dim, bias=bias)
        self.rel_pos = rel_pos_cls(num_heads=self.num_heads) if rel_pos_cls else None
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = project(attn_dim, dim_out, bias=bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def set_window_size(self, window_size: Size) -> None:
        """Change the window that the bias for relative positions is for."""
        if self.rel_pos is not None:
            self.rel_pos.set_window_size(window_size)

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        """`shared_rel_pos` are biases (1, num_heads, N, N) for an attention without its own."""
        q, k, v = self._split_heads(self.qkv(x))
        bias = self.rel_pos.get_bias() if self.rel_pos is not None else shared_rel_pos  # fused if of rank 4
        out = attend(q, k, v, self.fused_attn, self.attn_drop, bias, self.scale)
        out = out.transpose(2, 3).reshape(x.shape[0], -1, x.shape[2], x.shape[3]) if self.layout == "NCHW" else \
            out.transpose(1, 2).reshape(x.shape[:-1] + (-1,))
        return self.proj_drop(self.proj(out))

    def _split_heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, each (B, num_heads, N, dim_head)."""
        qkv = qkv.flatten(2).transpose(1, 2) if self.layout == "NCHW" else qkv.flatten(1, -2)
        qkv = qkv.unflatten(-1, (self.num_heads, 3, self.dim_head)).permute(3, 0, 2, 1, 4) if self.head_first else \
            qkv.unflatten(-1, (3, self.num_heads, self.dim_head)).permute(2, 0, 3, 1, 4)
        # The fused kernels want a head's channels side by side.
        return (qkv.contiguous() if self.layout == "NCHW" else qkv).unbind(0)


class Attention2d(Attention):
    """`Attention` whose projections are 1x1 convolutions. Shapes: (B, dim, H, W) -> (B, dim_out, H, W)."""

    layout = "NCHW"


class AttentionCl(Attention):
    """`Attention` whose projections are linear layers. Shapes: (B, ..., dim) -> (B, ..., dim_out)."""

    layout = "NHWC"


class TransformerBlock(ResidualBlock):
    """Attention, then an MLP; `attend` is for derived classes to define, `attn` are the modules that it uses, by name.

    Shapes: (B, dim, H, W) -> (B, dim_out, H', W'), or channels last for layout "NHWC". Key `shortcut` beside the usual.
    """

    layout = "NCHW"

    def __init__(
        self, dim: int, dim_out: int, cfg: TransformerConfig, attn: Mapping[str, nn.Module], drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.Identity()
        self.norm1: nn.Module = cfg.make_norm(dim, self.layout)
        for name, module in attn.items():
            self.add_module(name, module)
        self.ls1 = _make_layer_scale(dim_out, cfg.init_values, self.layout)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = cfg.make_norm(dim_out, self.layout)
        self.mlp = _make_mlp(dim_out, cfg.expand_ratio, self.layout, act_layer=cfg.act_layer, drop=cfg.proj_drop)
        self.ls2 = _make_layer_scale(dim_out, cfg.init_values, self.layout)
        self.drop_path2 = DropPath(drop_path)

    def skip(self, x: Tensor, normed: Tensor) -> Tensor:
        return self.shortcut(x)

    def set_partition_size(self, partition_size: int | Size) -> None:
        """Change the rows and columns of the windows and of the grid that are attended to."""
        self.partition_size = to_2tuple(partition_size)
        for module in self.children():
            if isinstance(module, Attention):
                module.set_window_size(self.partition_size)


class TransformerBlock2d(TransformerBlock):
    """CoAtNet's transformer block: attends to the whole map, which pooling halves before where `stride` is 2.

    Shapes: (B, dim, H, W) -> (B, dim_out, H', W'). `rel_pos_cls` as `Attention`'s, whose window is the output's map.

    Raises:
        ValueError: The width changes without a stride, or a map does not fit the biases.
    """

    @placeable
    def __init__(
        self, dim: int, dim_out: int, stride: int = 1, rel_pos_cls: Callable[..., nn.Module] | None = None,
        cfg: TransformerConfig = _TRANSFORMER, drop_path: float = 0.0,
    ) -> None:
        if stride != 2 and dim != dim_out:
            raise ValueError(f"a transformer block of stride {stride} keeps its {dim} channels, it makes no {dim_out}")
        attn = Attention2d(dim, dim_out, cfg.dim_head, cfg.attn_bias, cfg.expand_first, rel_pos_cls=rel_pos_cls,
                           attn_drop=cfg.attn_drop, proj_drop=cfg.proj_drop)
        super().__init__(dim, dim_out, cfg, {"attn": attn}, drop_path)
        if stride == 2:
            self.shortcut = Downsample2d(dim, dim_out, cfg.pool_type, bias=cfg.shortcut_bias)
            self.norm1 = nn.Sequential(OrderedDict(norm=self.norm1, down=Downsample2d(dim, dim, cfg.pool_type)))

    def set_input_size(self, feat_size: Size, window_size: Size | None = None, grid_size: Size | None = None) -> None:
        """Change the size of the map."""
        self.attn.set_window_size(feat_size)

    def attend(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        if self.attn.rel_pos is not None:
            x = _expect_size(x, self.attn.rel_pos.window_size)
        return self.attn(x, shared_rel_pos)


class PartitionAttention(TransformerBlock):
    """MaxViT's attention within the windows of a map, or across them, on a grid (see `grid_partition`).

    Derived classes say how maps lie. Keys as `TransformerBlock`. `partition_type` is "block" for windows, "grid" to
    attend across them; their size is the config's.

    Raises:
        ValueError: The config has no size, or a map cannot be cut into parts of it.
    """

    attention: type[Attention]

    @placeable
    def __init__(
        self, dim: int, partition_type: str = "block", cfg: TransformerConfig = _TRANSFORMER, drop_path: float = 0.0
    ) -> None:
        in_windows = partition_type == "block"
        size = _check_partition(cfg.window_size if in_windows else cfg.grid_size)
        super().__init__(dim, dim, cfg, {"attn": _make_attention(self.attention, dim, dim, size, cfg)}, drop_path)
        self.partition_size, self.partition_block = size, in_windows

    def attend(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        return _attend_in_parts(self.attn, x, self.partition_size, self.partition_block, shared_rel_pos)


class PartitionAttentionCl(PartitionAttention):
    """`PartitionAttention` with the channels last. Shapes: (B, H, W, dim) -> same."""

    layout, attention = "NHWC", AttentionCl


class PartitionAttention2d(PartitionAttention):
    """`PartitionAttention` by 1x1 convolutions. Shapes: (B, dim, H, W) -> same."""

    layout, attention = "NCHW", Attention2d


class ParallelPartitionAttention(TransformerBlock):
    """Attention within windows and across them side by side, each giving half of the channels, then one MLP.

    Shapes: (B, H, W, dim) -> same. Keys as `TransformerBlock`, but `attn_block` and `attn_grid`.

    Raises:
        ValueError: Windows and grid are not of one size, or have none, or the channels are odd.
    """

    layout = "NHWC"

    @placeable
    def __init__(self, dim: int, cfg: TransformerConfig = _TRANSFORMER, drop_path: float = 0.0) -> None:
        if dim % 2:
            raise ValueError(f"{dim} channels cannot be divided between two attentions")
        size = _check_partition(cfg.window_size, cfg.grid_size)
        attn = {name: _make_attention(AttentionCl, dim, dim // 2, size, cfg) for name in ("attn_block", "attn_grid")}
        super().__init__(dim, dim, cfg, attn, drop_path)
        self.partition_size = size

    def attend(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        within = _attend_in_parts(self.attn_block, x, self.partition_size, True, shared_rel_pos)
        across = _attend_in_parts(self.attn_grid, x, self.partition_size, False, shared_rel_pos)
        return torch.cat((within, across), dim=-1)


def _make_attention(
    attention: type[Attention], dim: int, dim_out: int, size: Size, cfg: TransformerConfig
) -> Attention:
    return attention(dim, dim_out, cfg.dim_head, cfg.attn_bias, head_first=cfg.head_first, attn_drop=cfg.attn_drop,
                     rel_pos_cls=get_rel_pos_cls(cfg, size), proj_drop=cfg.proj_drop, scale_dim=cfg.scale_dim)


def _attend_in_parts(attn: Attention, x: Tensor, size: Size, in_windows: bool, bias: Tensor | None) -> Tensor:
    """Attend to each window, or to each set of positions that a grid joins."""
    if attn.layout == "NHWC":
        return _join_parts(attn(_cut_into_parts(x, size, in_windows), bias), size, in_windows, x)
    x = x.permute(0, 2, 3, 1)
    parts = attn(_cut_into_parts(x, size, in_windows).permute(0, 3, 1, 2), bias)
    return _join_parts(parts.permute(0, 2, 3, 1), size, in_windows, x).permute(0, 3, 1, 2)


@torch.fx.wrap
def _expect_size(x: Tensor, feat_size: Size) -> Tensor:
    height, width = x.shape[2:]
    if (height, width) != feat_size:
        raise ValueError(f"a map of {height} x {width} does not fit the biases for relative positions in one of "
                         f"{feat_size[0]} x {feat_size[1]}: build the model with the image's img_size, or call "
                         f"set_input_size")
    return x


def _check_partition(size: int | Size | None, *others: int | Size | None) -> Size:
    if size is None:
        raise ValueError("windows and grid have no size: give window_size and grid_size, or the config that "
                         "cfg_window_size makes for an image")
    size = to_2tuple(size)
    if min(size) < 1:
        raise ValueError(f"windows and grid of {size[0]} x {size[1]}: the image is smaller than "
                         f"transformer_partition_ratio, or transformer_window_size is not positive")
    for other in others:
        if other is None or to_2tuple(other) != size:
            raise ValueError(f"attention within windows and across them stand side by side: windows {size} and grid "
                             f"{other} must be of one size")
    return size


class MaxxVitBlock(nn.Module):
    """M: a convolution block, attention within windows, attention across them; keys `conv`, `attn_block`, `attn_grid`.

    Shapes: (B, dim, H, W) -> (B, dim_out, H', W').
    """

    @placeable
    def __init__(
        self, dim: int, dim_out: int, stride: int = 1, conv_cfg: ConvConfig = _CONV,
        transformer_cfg: TransformerConfig = _TRANSFORMER, drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.nchw_attn = transformer_cfg.use_nchw_attn
        attention = PartitionAttention2d if self.nchw_attn else PartitionAttentionCl
        self.conv = _make_conv(dim, dim_out, stride, conv_cfg, drop_path)
        self.attn_block = nn.Identity() if transformer_cfg.no_block_attn else \
            attention(dim_out, "block", transformer_cfg, drop_path)
        self.attn_grid = attention(dim_out, "grid", transformer_cfg, drop_path)

    def set_input_size(self, feat_size: Size, window_size: Size, grid_size: Size) -> None:
        """Change the rows and columns of windows and grid."""
        if isinstance(self.attn_block, PartitionAttention):
            self.attn_block.set_partition_size(window_size)
        self.attn_grid.set_partition_size(grid_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.nchw_attn:
            return self.attn_grid(self.attn_block(x))
        return self.attn_grid(self.attn_block(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class ParallelMaxxVitBlock(nn.Module):
    """PM: two convolution blocks, then both attentions side by side; keys `conv.0`, `conv.1`, `attn`.

    Shapes: (B, dim, H, W) -> (B, dim_out, H', W'). As timm's, the second of `num_conv` blocks is also all that follow;
    a single one has key `conv`.
    """

    @placeable
    def __init__(
        self, dim: int, dim_out: int, stride: int = 1, num_conv: int = 2, conv_cfg: ConvConfig = _CONV,
        transformer_cfg: TransformerConfig = _TRANSFORMER, drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv = _make_conv(dim, dim_out, stride, conv_cfg, drop_path)
        if num_conv > 1:
            further = _make_conv(dim_out, dim_out, 1, conv_cfg, drop_path)
            self.conv = nn.Sequential(self.conv, *[further] * (num_conv - 1))
        self.attn = ParallelPartitionAttention(dim_out, transformer_cfg, drop_path)

    def set_input_size(self, feat_size: Size, window_size: Size, grid_size: Size) -> None:
        """Change the rows and columns of windows and grid, which are the same."""
        self.attn.set_partition_size(_check_partition(window_size, grid_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


# the model

class MaxxVitStage(nn.Module):
    """Blocks of one resolution, of which the first may halve the map; key `blocks`.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, *feat_size).

    `stride` is the first block's; `block_types` are the letters of the blocks, the last is repeated.

    Raises:
        ValueError: A letter is unknown.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 2, depth: int = 4, feat_size: Size = (14, 14),
        block_types: str | Sequence[str] = "C", transformer_cfg: TransformerConfig = _TRANSFORMER,
        conv_cfg: ConvConfig = _CONV, drop_path: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.blocks = nn.Sequential()
        for letter, rate in zip(extend_tuple(block_types, depth), extend_tuple(drop_path, depth)):
            _check("block_type", letter, ("C", "T", "M", "PM"))
            shape = (out_chs, out_chs, 1) if len(self.blocks) else (in_chs, out_chs, stride)
            if letter == "C":
                block = _make_conv(*shape, conv_cfg, rate)
            elif letter == "T":
                block = TransformerBlock2d(*shape, get_rel_pos_cls(transformer_cfg, feat_size), transformer_cfg, rate)
            else:
                block = (MaxxVitBlock if letter == "M" else ParallelMaxxVitBlock)(
                    *shape, conv_cfg=conv_cfg, transformer_cfg=transformer_cfg, drop_path=rate)
            self.blocks.append(block)

    def set_input_size(self, feat_size: Size, window_size: Size, grid_size: Size) -> None:
        """Change the rows and columns of the stage's output, of its windows and of the grid."""
        for block in self.blocks:
            if hasattr(block, "set_input_size"):
                block.set_input_size(feat_size, window_size, grid_size)

    def forward(self, x: Tensor) -> Tensor:
        return run_blocks(self.blocks, x, recompute=self.grad_checkpointing)


class Stem(nn.Module):
    """Two 3x3 convolutions, the first of stride 2, with norm and activation between; keys `conv1`, `norm1`, `conv2`.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, ceil(H / 2), ceil(W / 2)). `out_chs` and `bias` are for both or each.
    """

    stride = 2

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int | Size, kernel_size: int = 3, padding: str = "",
        bias: bool | tuple[bool, bool] = False, act_layer: ActLayer = "gelu", norm_layer: NormLayer = "batchnorm2d",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        widths, biases = to_2tuple(out_chs), to_2tuple(bias)
        self.out_chs = widths[-1]
        self.conv1 = create_conv2d(in_chs, widths[0], kernel_size, stride=2, padding=padding, bias=biases[0])
        self.norm1 = _norm_act(norm_layer, act_layer, norm_eps)(widths[0])
        self.conv2 = create_conv2d(widths[0], widths[1], kernel_size, padding=padding, bias=biases[1])

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.norm1(self.conv1(x)))


_NORMAL = partial(nn.init.normal_, std=0.02)
_INITS: dict[str, Callable[[Tensor], Any] | None] = {  # by name; "vit_eff" is EfficientNet's and Xavier's
    "": None, "normal": _NORMAL, "normal_all": _NORMAL, "xavier_normal": nn.init.xavier_normal_, "vit_eff": None,
    "trunc_normal": partial(nn.init.trunc_normal_, std=0.02, a=-0.04, b=0.04)}


class MaxxVit(ImageModel):
    """CoAtNet, MaxViT and what lies between.

    Image (B, in_chans, H, W) -> logits (B, num_classes); features (B, num_features, H / 32, W / 32).

    Args:
        img_size: Height and width of the image, in pixels; windows and biases for relative positions are made for it.
        global_pool: "avg", "max", "avgmax", "catavgmax" (not with `head_hidden_size`) or "".
        embed_dim, depths: Channels and blocks of each stage.
        block_type: Letter of each stage's blocks, or of each of its blocks (the last letter is repeated).
        stem_width, stem_bias: Channels of the stem's convolutions, and whether they have a bias, for both or each.
        head_hidden_size, head_bias: Width of a hidden layer in the head, which then also holds the final norm (None for
            none), and whether the classifier behind it has a bias.
        weight_init: Initial weights of convolutions and linear layers but the head's: "vit_eff" (EfficientNet's for
            convolution blocks, Xavier for attention blocks), "normal", "trunc_normal" (deviation 0.02),
            "xavier_normal", "" (torch's); "normal_all" is "normal" for the head, too.
        **options: `conv_` and a field of `ConvConfig`, `transformer_` and a field of `TransformerConfig`.

    Raises:
        TypeError: An option is unknown.
        ValueError: The stages' arguments differ in length, a name is unknown, or sizes do not fit.
    """

    head_path, feature_form, tap_norm = "head", "flat", "last"
    global_pool = computed(attrgetter("head.global_pool.pool_type"))
    undecayed = r"relative_position_bias_table|rel_pos\.mlp"

    def __init__(
        self, img_size: int | Size = 224, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
        drop_rate: float = 0.0, drop_path_rate: float = 0.0, embed_dim: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 3, 5, 2), block_type: Sequence[str | Sequence[str]] = ("C", "C", "T", "T"),
        stem_width: int | tuple[int, int] = 64, stem_bias: bool | tuple[bool, bool] = False,
        head_hidden_size: int | None = None, head_bias: bool = True, weight_init: str = "vit_eff", **options: Any,
    ) -> None:
        super().__init__()
        if not len(embed_dim) == len(depths) == len(block_type):
            raise ValueError(f"embed_dim {tuple(embed_dim)}, depths {tuple(depths)} and block_type "
                             f"{tuple(block_type)} must have one entry for each stage")
        _check("weight_init", weight_init, tuple(_INITS))
        configs, self.img_size = _make_configs(options), to_2tuple(img_size)
        conv, transformer = configs["conv"], cfg_window_size(configs["transformer"], self.img_size)
        self.partition_ratio, self.weight_init_mode = transformer.partition_ratio, weight_init
        self.num_classes, self.in_chans, self.embed_dim = num_classes, in_chans, embed_dim[-1]
        self.num_features = self.embed_dim
        self.stem = Stem(in_chans, stem_width, padding=conv.padding, bias=stem_bias, act_layer=conv.act_layer,
                         norm_layer=conv.norm_layer, norm_eps=conv.norm_eps)
        stem_chs = self.stem.out_chs
        feat_sizes, rates = _feat_sizes(self.img_size, len(depths)), drop_path_rates(drop_path_rate, depths)
        self.stages = nn.Sequential(*(
            MaxxVitStage(in_chs, out_chs, 2, depth, feat_size, letters, transformer, conv, stage_rates)
            for in_chs, out_chs, letters, depth, feat_size, stage_rates in zip(
                (stem_chs, *embed_dim), embed_dim, block_type, depths, feat_sizes, rates)))
        self.norm = nn.Identity() if head_hidden_size else transformer.make_norm(self.num_features)
        self.head = NormMlpClassifierHead(
            self.num_features, num_classes, head_hidden_size, global_pool, drop_rate, transformer.make_norm,
            bias=head_bias) if head_hidden_size else \
            ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.head.num_features
        stages = [Step(f"stages.{i}", chs, 4 * 2**i) for i, chs in enumerate(embed_dim)]
        self.flow = Flow([Step("stem", stem_chs, 2)], stages, tail=[Step("norm")])
        self.init_weights()

    def set_input_size(
        self, img_size: int | Size | None = None, window_size: int | Size | None = None,
        grid_size: int | Size | None = None, partition_ratio: int | None = None,
    ) -> None:
        """Change the image's size, in place, and with it windows and grid; tables of biases are resampled.

        Args:
            img_size: Height and width of the image; unchanged if None.
            window_size, grid_size: Rows and columns of a window, of the grid; image / `partition_ratio` if None.
            partition_ratio: Pixels of the image per row or column of a window; unchanged if None.

        Raises:
            ValueError: Windows or grid would be empty; nothing is changed then.
        """
        img_size = self.img_size if img_size is None else to_2tuple(img_size)
        ratio = partition_ratio or self.partition_ratio
        sizes = [_partition(img_size, ratio) if size is None else to_2tuple(size) for size in (window_size, grid_size)]
        for module in self.modules():
            if isinstance(module, PartitionAttention):
                for size in sizes:
                    _check_partition(size)
            elif isinstance(module, ParallelPartitionAttention):
                _check_partition(*sizes)
        self.img_size, self.partition_ratio = img_size, ratio
        for stage, feat_size in zip(self.stages, _feat_sizes(img_size, len(self.stages))):
            stage.set_input_size(feat_size, *sizes)
        self.note_arguments(img_size=img_size, transformer_window_size=sizes[0], transformer_grid_size=sizes[1],
                            transformer_partition_ratio=ratio)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        kind = self._init_kind(name) if isinstance(module, (nn.Conv2d, nn.Linear)) else None
        if kind is None or not self.weight_init_mode:
            return
        init, bias_std = _INITS[self.weight_init_mode], 0.0
        if init is not None:
            init(module.weight)
        elif kind == "conv":
            fan_out_normal_(module.weight, module.groups)
        else:
            nn.init.xavier_uniform_(module.weight)
            bias_std = 1e-6 if ".mlp." in name else 0.0
        if module.bias is not None:
            nn.init.normal_(module.bias, std=bias_std)

    def _init_kind(self, name: str) -> str | None:
        """Whether the module at `name` belongs to a convolution block, to an attention block, or to neither."""
        section, *path = name.split(".")
        if section == "stem":
            return "conv"
        if section != "stages":
            return "head" if self.weight_init_mode == "normal_all" else None
        block = self.stages[int(path[0])].blocks[int(path[2])]
        if isinstance(block, ConvNeXtBlock):  # by itself it keeps torch's
            return None
        return "conv" if isinstance(block, MbConvBlock) or path[3] == "conv" else "transformer"

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Resample tables of biases for other windows, and give linear layers' weights a 1x1 convolution's shape."""
        modules, expected, fitted = dict(self.named_modules()), self.state_dict(), {}
        for key, value in state_dict.items():
            owner, like = modules.get(key.rpartition(".")[0]), expected.get(key)
            if isinstance(owner, RelPosTable):
                value = owner.fit_table(value)
            elif like is not None and value.ndim != like.ndim and value.numel() == like.numel():
                value = value.reshape(like.shape)
            fitted[key] = value
        return fitted


def _make_configs(options: dict[str, Any]) -> dict[str, Any]:
    """{"conv": ConvConfig, "transformer": TransformerConfig} of arguments that begin with these names."""
    given: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    for name, value in options.items():
        section, _, option = name.partition("_")
        if section not in given:
            raise TypeError(f"MaxxVit got an unexpected keyword argument '{name}'")
        given[section][option] = value
    return {section: _SECTIONS[section](**values) for section, values in given.items()}


def _spell_out(init: Callable[..., None]) -> inspect.Signature:
    """The signature with `options` spelled out, for callers who want to know what a model takes."""
    own = [p for p in inspect.signature(init).parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [inspect.Parameter(f"{section}_{option.name}", inspect.Parameter.KEYWORD_ONLY, default=option.default,
                                 annotation=option.type)
               for section, config in _SECTIONS.items() for option in fields(config)]
    return inspect.Signature(own + options)


_SECTIONS = {"conv": ConvConfig, "transformer": TransformerConfig}
MaxxVit.__init__.__signature__ = _spell_out(MaxxVit.__init__)


def _feat_sizes(img_size: Size, count: int) -> list[Size]:
    """Rows and columns of each stage's output; the stem halves the image first."""
    sizes = [tuple(side // 2 for side in img_size)]
    for _ in range(count):
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    return sizes[1:]


# --- the architectures: widths, what a line of models has in common, and what else differs from the class's defaults

_PICO = dict(embed_dim=(32, 64, 128, 256), stem_width=(24, 32))
_NANO = dict(embed_dim=(64, 128, 256, 512), stem_width=(32, 64))
_SMALL = dict(embed_dim=(96, 192, 384, 768), stem_width=(32, 64))
_BASE = dict(embed_dim=(128, 256, 512, 1024), stem_width=(64, 128))
_LARGE = dict(embed_dim=(192, 384, 768, 1536), stem_width=(96, 192))
_TEST = dict(embed_dim=(32, 64, 96, 128), stem_width=(16, 32), img_size=160)
_PAPER = "As in the paper."
_256, _384 = (dict(img_size=size) for size in (256, 384))  # pixels; 224 by default


def _depths(*depths: int) -> dict[str, Any]:
    return dict(depths=depths)


def _head(stem_width: int, head_hidden_size: int) -> dict[str, int]:
    return dict(stem_width=stem_width, head_hidden_size=head_hidden_size)


_M = dict(block_type=("M",) * 4)

# timm's first models, made before Google published MaxViT's code: SiLU, MBConv widens the input's channels, attention
# widens in its output. CoAtNets also activate after the first norm, and halve maps by pooling.
_RW_MAX = dict(conv_act_layer="silu", conv_expand_output=False, conv_output_bias=False, conv_attn_ratio=1 / 16,
               transformer_expand_first=False)
_RW_MAX_COAT = {**_RW_MAX, "conv_output_bias": True, "conv_attn_ratio": 0.25}  # CoAtNets of MaxViT's kind
_RW_COAT = {**_RW_MAX, "conv_attn_ratio": 0.25, "conv_stride_mode": "pool", "conv_pre_norm_act": True,
            "conv_attn_act_layer": "relu"}
_RW_COAT_DW = {**_RW_COAT, "conv_stride_mode": "dw"}
_EARLY = dict(conv_attn_early=True, transformer_shortcut_bias=False)
_RMLP = dict(transformer_rel_pos_type="mlp")
_SCALED = dict(conv_attn_act_layer="silu", transformer_init_values=1e-6)
# ConvNeXt blocks instead of MBConv; the second version attends on the grid alone.
_NEXT = dict(**_RMLP, conv_block_type="convnext", conv_expand_output=False, transformer_expand_first=False,
             transformer_init_values=1e-6)
_NEXT_V2 = {**_NEXT, "transformer_no_block_attn": True}
# Google's MaxViT: TensorFlow's padding and GELU, all queries before all keys and values.
_TF = dict(**_M, stem_bias=True, conv_norm_eps=1e-3, conv_act_layer="gelu_tanh", conv_padding="same",
           transformer_norm_eps=1e-5, transformer_act_layer="gelu_tanh", transformer_head_first=False,
           transformer_rel_pos_type="bias_tf")

_COATNET_RMLP_2 = {**_BASE, **_RW_COAT_DW, **_RMLP, **_SCALED, **_depths(2, 6, 14, 2)}
_MAXVIT_TINY = {**_NANO, **_M, **_RW_MAX, **_depths(2, 2, 5, 2)}
_MAXVIT_RMLP_SMALL = {**_SMALL, **_M, **_RW_MAX, **_RMLP, **_depths(2, 2, 5, 2), "transformer_init_values": 1e-6}
_MAXVIT_RMLP_BASE = {**_SMALL, **_M, **_RW_MAX, **_RMLP, **_depths(2, 6, 14, 2), "head_hidden_size": 768}
_MAXXVIT_V2_BASE = {**_BASE, **_M, **_NEXT_V2, **_depths(2, 6, 12, 2)}
_TF_SIZES = {
    "tiny": (_NANO, _depths(2, 2, 5, 2), _head(64, 512)), "small": (_SMALL, _depths(2, 2, 5, 2), _head(64, 768)),
    "base": (_SMALL, _depths(2, 6, 14, 2), _head(64, 768)), "large": (_BASE, _depths(2, 6, 14, 2), _head(128, 1024)),
    "xlarge": (_LARGE, _depths(2, 6, 14, 2), _head(192, 1536)),
}

register_model.variants(__name__, MaxxVit, {
    "coatnet_pico_rw_224": (_NANO, _RW_MAX_COAT, _depths(2, 3, 5, 2)),
    "coatnet_nano_rw_224": (_NANO, _RW_MAX_COAT, _depths(3, 4, 6, 3), dict(conv_stride_mode="pool")),
    "coatnet_0_rw_224": (_SMALL, _RW_COAT, _EARLY, _depths(2, 3, 7, 2)),
    "coatnet_1_rw_224": (_SMALL, _RW_COAT_DW, _EARLY, _depths(2, 6, 14, 2)),
    "coatnet_2_rw_224": (_BASE, _RW_COAT_DW, _depths(2, 6, 14, 2), dict(conv_attn_act_layer="silu")),
    "coatnet_3_rw_224": (_LARGE, _RW_COAT_DW, _SCALED, _depths(2, 6, 14, 2)),
    "coatnet_bn_0_rw_224": (_SMALL, _RW_COAT_DW, _EARLY, _depths(2, 3, 7, 2),
                            dict(transformer_norm_layer="batchnorm2d")),
    "coatnet_rmlp_nano_rw_224": (_NANO, _RW_MAX_COAT, _RMLP, _depths(3, 4, 6, 3), dict(transformer_rel_pos_dim=384)),
    "coatnet_rmlp_0_rw_224": (_SMALL, _RW_COAT_DW, _RMLP, _depths(2, 3, 7, 2)),
    "coatnet_rmlp_1_rw_224": (_SMALL, _RW_COAT, _EARLY, _RMLP, _depths(2, 6, 14, 2), dict(
        conv_pool_type="max", transformer_pool_type="max", transformer_rel_pos_dim=384)),
    "coatnet_rmlp_1_rw2_224": (_SMALL, _RW_COAT_DW, _RMLP, _depths(2, 6, 14, 2)),
    "coatnet_rmlp_2_rw_224": _COATNET_RMLP_2,
    "coatnet_rmlp_2_rw_384": (_COATNET_RMLP_2, _384),
    "coatnet_rmlp_3_rw_224": (_LARGE, _RW_COAT_DW, _RMLP, _SCALED, _depths(2, 6, 14, 2)),
    "coatnet_nano_cc_224": (_NANO, _RW_COAT, _depths(3, 4, 6, 3), dict(block_type=("C", "C", ("C", "T"), ("C", "T")))),
    "coatnext_nano_rw_224": (_NANO, _NEXT, _depths(3, 4, 6, 3), dict(
        weight_init="normal", conv_init_values=1e-5, transformer_init_values=None, transformer_rel_pos_type="bias")),

    "coatnet_0_224": (_SMALL, _depths(2, 3, 5, 2), _head(64, 768), _PAPER),
    "coatnet_1_224": (_SMALL, _depths(2, 6, 14, 2), _head(64, 768), _PAPER),
    "coatnet_2_224": (_BASE, _depths(2, 6, 14, 2), _head(128, 1024), _PAPER),
    "coatnet_3_224": (_LARGE, _depths(2, 6, 14, 2), _head(192, 1536), _PAPER),
    "coatnet_4_224": (_LARGE, _depths(2, 12, 28, 2), _head(192, 1536), _PAPER),
    "coatnet_5_224": (dict(embed_dim=(256, 512, 1280, 2048)), _depths(2, 12, 28, 2), _head(192, 2048), _PAPER),

    "maxvit_pico_rw_256": (_PICO, _M, _RW_MAX, _depths(2, 2, 5, 2), _256),
    "maxvit_nano_rw_256": (_NANO, _M, _RW_MAX, _depths(1, 2, 3, 1), _256),
    "maxvit_tiny_rw_224": _MAXVIT_TINY,
    "maxvit_tiny_rw_256": (_MAXVIT_TINY, _256),
    "maxvit_rmlp_pico_rw_256": (_PICO, _M, _RW_MAX, _RMLP, _depths(2, 2, 5, 2), _256),
    "maxvit_rmlp_nano_rw_256": (_NANO, _M, _RW_MAX, _RMLP, _depths(1, 2, 3, 1), _256),
    "maxvit_rmlp_tiny_rw_256": (_MAXVIT_TINY, _RMLP, _256),
    "maxvit_rmlp_small_rw_224": _MAXVIT_RMLP_SMALL,
    "maxvit_rmlp_small_rw_256": (_MAXVIT_RMLP_SMALL, _256),
    "maxvit_rmlp_base_rw_224": _MAXVIT_RMLP_BASE,
    "maxvit_rmlp_base_rw_384": (_MAXVIT_RMLP_BASE, _384),
    "maxvit_tiny_pm_256": (_MAXVIT_TINY, dict(block_type=("PM",) * 4), _256),

    "maxxvit_rmlp_nano_rw_256": (_NANO, _M, _NEXT, _depths(1, 2, 3, 1), dict(weight_init="normal"), _256),
    "maxxvit_rmlp_tiny_rw_256": (_NANO, _M, _NEXT, _depths(2, 2, 5, 2), _256),
    "maxxvit_rmlp_small_rw_256": (_SMALL, _M, _NEXT, _depths(2, 2, 5, 2), dict(stem_width=(48, 96)), _256),
    "maxxvitv2_nano_rw_256": (_SMALL, _M, _NEXT_V2, _depths(1, 2, 3, 1), dict(
        stem_width=(48, 96), weight_init="normal", transformer_rel_pos_type="bias"), _256),
    "maxxvitv2_rmlp_base_rw_224": _MAXXVIT_V2_BASE,
    "maxxvitv2_rmlp_base_rw_384": (_MAXXVIT_V2_BASE, _384),
    "maxxvitv2_rmlp_large_rw_224": (_M, _NEXT_V2, _depths(2, 6, 16, 2), dict(
        embed_dim=(160, 320, 640, 1280), stem_width=(80, 160), head_hidden_size=1280)),

    **{f"maxvit_{name}_tf_{size}": (_TF, *rows, dict(img_size=size)) for name, rows in _TF_SIZES.items()
       for size in (224, 384, 512)},

    # It differs from `maxvit_tiny_tf_224` in padding (symmetric, and zeros count in the shortcut's average over 3 x 3
    # pixels), the exact GELU, batch norm's momentum, attention logits that are divided by the root of all channels,
    # and windows that are 7 x 7 for every image size; the first stage's shortcut has a projection, the stem's first
    # convolution and the classifier have no bias, and tables of position biases lie as in Swin.
    "maxvit_t": (_NANO, _M, _depths(2, 2, 5, 2), _head(64, 512), dict(
        stem_bias=(False, True), head_bias=False, drop_path_rate=0.2, weight_init="normal_all",
        conv_norm_layer=partial(nn.BatchNorm2d, momentum=0.01), conv_norm_eps=1e-3, conv_pool_type="avg_zeros",
        conv_shortcut_proj=True, transformer_head_first=False, transformer_scale_dim=True, transformer_window_size=7,
        transformer_norm_eps=1e-5), "torchvision's MaxViT-T."),

    "test_maxvit": (_M, _RW_MAX, _TEST, _depths(1, 1, 1, 1)),
    "test_coatnet": (_RW_MAX_COAT, _TEST, _depths(1, 1, 2, 1), dict(conv_stride_mode="pool")),
})


MaxxVit.key_maps = (
    KeyMap.renaming(
        "torchvision", "blocks.0.layers.0.layers.MBconv.layers.pre_norm.weight",
        (r"^stem\.0\.0\.", "stem.conv1."), (r"^stem\.0\.1\.", "stem.norm1."), (r"^stem\.1\.0\.", "stem.conv2."),
        (r"^classifier\.2\.", "head.norm."), (r"^classifier\.3\.", "head.pre_logits.fc."),
        (r"^classifier\.5\.", "head.fc."), (r"^blocks\.(\d+)\.layers\.(\d+)\.layers\.", r"stages.\1.blocks.\2."),
        (r"\.MBconv\.proj\.1\.", ".conv.shortcut.expand."), (r"\.MBconv\.layers\.", ".conv."),
        (r"\.conv_a\.0\.", ".conv1_1x1."), (r"\.conv_b\.0\.", ".conv2_kxk."), (r"\.conv_c\.", ".conv3_1x1."),
        (r"\.conv_a\.1\.", ".norm1."), (r"\.conv_b\.1\.", ".norm2."), (r"\.squeeze_excitation\.", ".se."),
        (r"\.window_attention\.", ".attn_block."), (r"\.grid_attention\.", ".attn_grid."),
        (r"\.attn_layer\.0\.", ".norm1."), (r"\.attn_layer\.1\.to_qkv\.", ".attn.qkv."),
        (r"\.attn_layer\.1\.merge\.", ".attn.proj."), (r"\.attn_layer\.1\.", ".attn.rel_pos."),
        (r"\.mlp_layer\.0\.", ".norm2."), (r"\.mlp_layer\.1\.", ".mlp.fc1."), (r"\.mlp_layer\.3\.", ".mlp.fc2."),
        without=r"\.relative_position_index$"),  # which we compute
)
