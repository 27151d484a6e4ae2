"""Attention in residual networks that looks at positions, at other positions, or at several kernels' results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, get_act_layer
from .attention import attend
from .blur_pool import AaLayer
from .channel_attention import ATTN_LAYERS
from .config import use_fused_attn
from .conv import ConvNormAct, create_conv2d
from .helpers import make_divisible, placeable, to_2tuple
from .mlp import ConvMlp
from .norm import NormLayer, get_norm_layer

__all__ = [
    "BatNonLocalAttn", "BilinearAttnTransform", "CbamModule", "ChannelAttn", "GatherExcite", "LightCbamModule",
    "LightChannelAttn", "LightSpatialAttn", "NonLocalAttn", "RadixSoftmax", "SelectiveKernel", "SelectiveKernelAttn",
    "SpatialAttn", "SplitAttn",
]


def _act(act_layer: ActLayer) -> Callable[..., nn.Module]:
    return get_act_layer(act_layer) or nn.Identity


class GatherExcite(nn.Module):
    """A gate for each channel and region, from the region's mean or from strided convolutions; keys `gather`, `mlp`.

    Shapes: (B, C, H, W) -> same.
    Source: Hu et al., "Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks", 2018.

    Args:
        channels: Channels.
        feat_size: Rows and columns of the map, for `extra_params` of all of it.
        extra_params: Gather by depthwise convolutions.
        extent: Side of a region, a power of 2; 0 for the whole map.
        use_mlp: Two 1x1 convolutions around an activation before the gate.
        rd_ratio, rd_channels, rd_divisor: Width between them, see `SEModule`.
        add_maxpool: Gather the mean of average and maximum instead of the average.
        act_layer: Activation between convolutions.
        norm_layer: Whether there is a batch norm after each convolution that gathers.
        gate_layer: Activation that makes the gate.
    """

    @placeable
    def __init__(
        self,
        channels: int,
        feat_size: tuple[int, int] | None = None,
        extra_params: bool = False,
        extent: int = 0,
        use_mlp: bool = True,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
        add_maxpool: bool = False,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
        gate_layer: ActLayer = "sigmoid",
    ) -> None:
        super().__init__()
        if extent % 2 or (extra_params and not extent and feat_size is None):
            raise ValueError("a region's side is even; parameters for all of the map need its size, feat_size")
        self.add_maxpool = add_maxpool
        self.extent = extent
        gather = nn.Sequential()
        self.gather = gather if extra_params else None
        if extra_params:
            count = int(math.log2(extent)) if extent else 1
            for i in range(1, count + 1):
                kernel, stride = (3, 2) if extent else (to_2tuple(feat_size), 1)
                padding = "" if extent else 0
                conv = create_conv2d(channels, channels, kernel, stride, padding, depthwise=True)
                gather.add_module(f"conv{i}", conv)
                if norm_layer:
                    gather.add_module(f"norm{i}", nn.BatchNorm2d(channels))
                if i < count:
                    gather.add_module(f"act{i}", _act(act_layer)(inplace=True))
        hidden = rd_channels or make_divisible(channels * rd_ratio, rd_divisor, round_limit=0.0)
        self.mlp = ConvMlp(channels, hidden, act_layer=act_layer) if use_mlp else nn.Identity()
        self.gate = _act(gate_layer)()

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mlp(self._gather(x))
        if self.extent or self.gather is not None:
            gate = F.interpolate(gate, size=x.shape[-2:])
        return x * self.gate(gate)

    def _gather(self, x: Tensor) -> Tensor:
        if self.gather is not None:
            return self.gather(x)
        if not self.extent:
            mean, peak = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        else:
            side = 2 * self.extent - 1
            mean = F.avg_pool2d(x, side, self.extent, side // 2, count_include_pad=False)
            peak = F.max_pool2d(x, side, self.extent, side // 2)
        return 0.5 * mean + 0.5 * peak if self.add_maxpool else mean


class ChannelAttn(nn.Module):
    """The channel's half of CBAM: gates from averages and maxima, by one MLP; keys `fc1`, `fc2`.

    Shapes: (B, C, H, W) -> same; arguments as `CbamModule`.
    """

    @placeable
    def __init__(
        self,
        channels: int,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
        act_layer: ActLayer = nn.ReLU,
        gate_layer: ActLayer = "sigmoid",
        mlp_bias: bool = False,
    ) -> None:
        super().__init__()
        hidden = rd_channels or make_divisible(channels * rd_ratio, rd_divisor, round_limit=0.0)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=mlp_bias)
        self.act = _act(act_layer)(inplace=True)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=mlp_bias)
        self.gate = _act(gate_layer)()

    def mlp(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True)))


class LightChannelAttn(ChannelAttn):
    """`ChannelAttn` that takes the mean of average and maximum in place of both, and a sigmoid as gate."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = 0.5 * x.mean((2, 3), keepdim=True) + 0.5 * x.amax((2, 3), keepdim=True)
        return x * self.mlp(pooled).sigmoid()


class SpatialAttn(nn.Module):
    """The position's half of CBAM: a gate from the channels' average and maximum around; key `conv`.

    Shapes: (B, C, H, W) -> same.
    """

    inputs = 2

    @placeable
    def __init__(self, kernel_size: int = 7, gate_layer: ActLayer = "sigmoid") -> None:
        super().__init__()
        self.conv = ConvNormAct(self.inputs, 1, kernel_size, apply_act=False)
        self.gate = _act(gate_layer)()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.conv(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)))


class LightSpatialAttn(SpatialAttn):
    """`SpatialAttn` that takes the mean of average and maximum in place of both."""

    inputs = 1

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.conv(0.5 * x.mean(1, keepdim=True) + 0.5 * x.amax(1, keepdim=True)))


class CbamModule(nn.Module):
    """A gate for each channel, then one for each position; keys `channel.{fc1,fc2}`, `spatial.conv`.

    Shapes: (B, C, H, W) -> same.
    Source: Woo et al., "CBAM: Convolutional Block Attention Module", 2018.

    Args:
        channels: Channels.
        rd_ratio, rd_channels, rd_divisor: Width of the channels' MLP, see `SEModule`.
        spatial_kernel_size: Kernel from which a position's gate is computed.
        act_layer: Activation of the MLP.
        gate_layer: Activation that makes the gates.
        mlp_bias: Whether the MLP has biases.
    """

    parts: tuple[type[ChannelAttn], type[SpatialAttn]] = (ChannelAttn, SpatialAttn)

    @placeable
    def __init__(
        self,
        channels: int,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
        spatial_kernel_size: int = 7,
        act_layer: ActLayer = nn.ReLU,
        gate_layer: ActLayer = "sigmoid",
        mlp_bias: bool = False,
    ) -> None:
        super().__init__()
        channel, spatial = self.parts
        self.channel = channel(channels, rd_ratio, rd_channels, rd_divisor, act_layer, gate_layer, mlp_bias)
        self.spatial = spatial(spatial_kernel_size, gate_layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.spatial(self.channel(x))


class LightCbamModule(CbamModule):
    """`CbamModule` that takes the mean of average and maximum in place of both, and sigmoids as gates."""

    parts = (LightChannelAttn, LightSpatialAttn)

    @placeable
    def __init__(
        self,
        channels: int,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
        spatial_kernel_size: int = 7,
        act_layer: ActLayer = nn.ReLU,
        gate_layer: ActLayer = "sigmoid",
        mlp_bias: bool = False,
    ) -> None:
        super().__init__(channels, rd_ratio, rd_channels, rd_divisor, spatial_kernel_size, act_layer, "sigmoid",
                         mlp_bias)


class NonLocalAttn(nn.Module):
    """Attention of each position to all, added to the map; keys `t`, `p`, `g` (query, key, value), `z`, `norm`.

    Shapes: (B, C, H, W) -> same; at first the identity.
    Source: Wang et al., "Non-local Neural Networks", 2018.

    Args:
        in_channels: Channels.
        use_scale: Divide the logits by the square root of `in_channels`.
        rd_ratio, rd_channels, rd_divisor: Channels of query, key and value.
    """

    @placeable
    def __init__(
        self,
        in_channels: int,
        use_scale: bool = True,
        rd_ratio: float = 1 / 8,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
    ) -> None:
        super().__init__()
        hidden = rd_channels or make_divisible(in_channels * rd_ratio, rd_divisor)
        self.scale = in_channels**-0.5 if use_scale else 1.0
        self.fused_attn = use_fused_attn()
        self.t, self.p, self.g = (nn.Conv2d(in_channels, hidden, 1) for _ in range(3))
        self.z = nn.Conv2d(hidden, in_channels, 1)
        self.norm = nn.BatchNorm2d(in_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for conv in (self.t, self.p, self.g, self.z):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        for parameter in (p for p in self.parameters() if p.ndim == 1):  # biases, and the norm's scale
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (project(x).flatten(2).transpose(1, 2).unsqueeze(1) for project in (self.t, self.p, self.g))
        attended = attend(q, k, v, self.fused_attn, scale=self.scale)  # (B, 1, H * W, hidden)
        return self.norm(self.z(attended.squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:]))) + x


class BilinearAttnTransform(nn.Module):
    """Rows mixed with rows and columns with columns, block by block, by matrices computed from the map.

    Shapes: (B, C, H, W) -> same; `block_size` divides both sides. Keys `conv1`, `conv_p`, `conv_q`, `conv2`.
    """

    @placeable
    def __init__(
        self,
        in_channels: int,
        block_size: int,
        groups: int,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.block_size = block_size
        self.groups = groups
        conv = partial(ConvNormAct, in_channels, act_layer=act_layer, norm_layer=norm_layer)
        self.conv1 = conv(groups)
        self.conv_p = nn.Conv2d(groups, block_size**2 * groups, (block_size, 1))
        self.conv_q = nn.Conv2d(groups, block_size**2 * groups, (1, block_size))
        self.conv2 = conv(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        size, shape = self.block_size, (self.groups, 1, self.block_size, self.block_size)
        out = self.conv1(x)
        rows = self.conv_p(F.adaptive_max_pool2d(out, (size, 1))).flatten(1).unflatten(1, shape).sigmoid()
        columns = self.conv_q(F.adaptive_max_pool2d(out, (1, size))).flatten(1).unflatten(1, shape).sigmoid()
        rows, columns = rows / rows.sum(4, keepdim=True), columns / columns.sum(3, keepdim=True)
        # A matrix is for blocks: positions of the same place in their blocks are mixed.
        y = x.unflatten(1, (self.groups, -1))
        y = (rows @ y.unflatten(3, (size, -1)).flatten(4)).unflatten(4, (-1, x.shape[3])).flatten(3, 4)
        y = (y.unflatten(4, (size, -1)).transpose(-1, -2) @ columns.unsqueeze(3)).transpose(-1, -2).flatten(4)
        return self.conv2(y.flatten(1, 2))


class BatNonLocalAttn(nn.Module):
    """Bilinear attention between the rows and between the columns of a map, added to it; keys `conv1`, `ba`, `conv2`.

    Shapes: (B, C, H, W) -> same; `block_size` divides H and W.
    Source: Chi et al., "Non-Local Neural Networks With Grouped Bilinear Attentional Transforms", 2020.

    Args:
        in_channels: Channels.
        block_size: Blocks along each side.
        groups: Groups of channels with matrices of their own.
        rd_ratio, rd_channels, rd_divisor: Channels of the attention.
        drop_rate: Dropout of whole channels of the result.
        act_layer, norm_layer: Of the convolutions.
    """

    @placeable
    def __init__(
        self,
        in_channels: int,
        block_size: int = 7,
        groups: int = 2,
        rd_ratio: float = 0.25,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        drop_rate: float = 0.2,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
        **_: Any,
    ) -> None:
        super().__init__()
        hidden = rd_channels or make_divisible(in_channels * rd_ratio, rd_divisor)
        conv = partial(ConvNormAct, act_layer=act_layer, norm_layer=norm_layer)
        self.conv1 = conv(in_channels, hidden)
        self.ba = BilinearAttnTransform(hidden, block_size, groups, act_layer, norm_layer)
        self.conv2 = conv(hidden, in_channels)
        self.dropout = nn.Dropout2d(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.conv2(self.ba(self.conv1(x)))) + x


def _mean_of_sum(maps: Sequence[Tensor]) -> Tensor:
    """Several maps (B, C, H, W) -> (B, C, 1, 1)."""
    return reduce(torch.add, maps).mean((2, 3), keepdim=True)


def _weigh(maps: Sequence[Tensor], shares: Tensor) -> Tensor:
    """The sum of several maps (B, C, H, W), each times its share of (B, maps, C, 1, 1)."""
    x = maps[0] * shares[:, 0]
    for i, other in enumerate(maps[1:], start=1):
        x += other * shares[:, i]
    return x


class SelectiveKernelAttn(nn.Module):
    """Shares of several maps in their sum, channel by channel; keys `fc_reduce`, `bn`, `fc_select`.

    Shapes: (B, num_paths, C, H, W) -> (B, num_paths, C, 1, 1).

    Args:
        channels: Channels of a map.
        num_paths: Maps.
        attn_channels: Width of the hidden layer, with act_layer and norm_layer.
    """

    @placeable
    def __init__(
        self,
        channels: int,
        num_paths: int = 2,
        attn_channels: int = 32,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.num_paths = num_paths
        self.fc_reduce = nn.Conv2d(channels, attn_channels, 1, bias=False)
        self.bn = get_norm_layer(norm_layer)(attn_channels)
        self.act = _act(act_layer)(inplace=True)
        self.fc_select = nn.Conv2d(attn_channels, channels * num_paths, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.share(_mean_of_sum(x.unbind(1)))

    def share(self, x: Tensor) -> Tensor:
        """Mean of the maps' sum (B, C, 1, 1) -> shares."""
        x = self.fc_select(self.act(self.bn(self.fc_reduce(x))))
        return x.unflatten(1, (self.num_paths, -1)).softmax(dim=1)


class SelectiveKernel(nn.Module):
    """Convolutions of several sizes, summed with shares that depend on the image; keys `paths.*`, `attn`.

    Shapes: (B, C, H, W) -> (B, C', H', W').
    Source: Li et al., "Selective Kernel Networks", 2019.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; `in_channels` unless given.
        kernel_size: Odd kernel of each path; 3 and 5 unless given, one number for two paths.
        stride, dilation, groups: Of each path.
        rd_ratio, rd_channels, rd_divisor: Width of the shares' MLP.
        keep_3x3: Dilated 3x3 kernels in place of larger ones.
        split_input: Divide the channels of the input among the paths.
        act_layer, norm_layer, aa_layer, drop_layer: As `ConvNormAct`.
    """

    @placeable
    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int | list[int] | None = None,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        keep_3x3: bool = True,
        split_input: bool = True,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
        aa_layer: AaLayer = None,
        drop_layer: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        out_channels = out_channels or in_channels
        kernels = kernel_size or [3, 5]
        kernels = kernels if isinstance(kernels, list) else [kernels] * 2
        if any(kernel < 3 or kernel % 2 == 0 for kernel in kernels) or (split_input and in_channels % len(kernels)):
            raise ValueError(f"kernels {kernels} are not odd and 3 or more, or do not divide {in_channels} channels")
        self.in_channels, self.out_channels, self.num_paths = in_channels, out_channels, len(kernels)
        self.split_input = split_input
        share = in_channels // len(kernels) if split_input else in_channels
        self.paths = nn.ModuleList(
            ConvNormAct(share, out_channels, 3 if keep_3x3 else kernel, stride, groups=min(out_channels, groups),
                        dilation=dilation * (kernel - 1) // 2 if keep_3x3 else dilation, act_layer=act_layer,
                        norm_layer=norm_layer, aa_layer=aa_layer, drop_layer=drop_layer)
            for kernel in kernels)
        hidden = rd_channels or make_divisible(out_channels * rd_ratio, rd_divisor)
        self.attn = SelectiveKernelAttn(out_channels, len(kernels), hidden)

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.chunk(self.num_paths, dim=1) if self.split_input else (x,) * self.num_paths
        maps = [path(inputs[i]) for i, path in enumerate(self.paths)]
        return _weigh(maps, self.attn.share(_mean_of_sum(maps)))


class RadixSoftmax(nn.Module):
    """Shares of the splits of each group, which sum to 1; gates where there is one split.

    Shapes: (B, cardinality * radix * C, ...) -> (B, radix * cardinality * C): one split behind the other.
    """

    def __init__(self, radix: int, cardinality: int) -> None:
        super().__init__()
        self.radix = radix
        self.cardinality = cardinality

    def forward(self, x: Tensor) -> Tensor:
        if self.radix <= 1:
            return x.sigmoid()
        return x.flatten(1).unflatten(1, (self.cardinality, self.radix, -1)).transpose(1, 2).softmax(dim=1).flatten(1)


class SplitAttn(nn.Module):
    """A convolution of `radix` splits that are summed with shares which depend on the image, channel by channel.

    Shapes: (B, C, H, W) -> (B, C', H', W'). Keys `conv`, `bn0`, `fc1`, `bn1`, `fc2`.
    Source: Zhang et al., "ResNeSt: Split-Attention Networks", 2020.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; `in_channels` unless given.
        kernel_size, stride, padding, dilation, groups, bias: Of the convolution; padded by half a kernel unless said.
        radix: Splits of each group; with one, its channels are gated.
        rd_ratio, rd_channels, rd_divisor: Width of the shares' MLP, for each split.
        act_layer, norm_layer, drop_layer: Behind convolution and MLP's first layer; the dropout behind the former.
        kwargs: Further arguments of the convolution.
    """

    @placeable
    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        radix: int = 2,
        rd_ratio: float = 0.25,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = None,
        drop_layer: Callable[[], nn.Module] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        out_channels = out_channels or in_channels
        width = out_channels * radix
        hidden = rd_channels * radix if rd_channels else make_divisible(
            in_channels * radix * rd_ratio, rd_divisor, min_value=32)
        norm, act = get_norm_layer(norm_layer) or nn.Identity, _act(act_layer)
        self.radix = radix
        self.conv = nn.Conv2d(in_channels, width, kernel_size, stride, kernel_size // 2 if padding is None else padding,
                              dilation, groups * radix, bias, **kwargs)
        self.bn0 = norm(width)
        self.drop = drop_layer() if drop_layer is not None else nn.Identity()
        self.act0 = act(inplace=True)
        self.fc1 = nn.Conv2d(out_channels, hidden, 1, groups=groups)
        self.bn1 = norm(hidden)
        self.act1 = act(inplace=True)
        self.fc2 = nn.Conv2d(hidden, width, 1, groups=groups)
        self.rsoftmax = RadixSoftmax(radix, groups)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act0(self.drop(self.bn0(self.conv(x)))).unflatten(1, (self.radix, -1))
        splits = [x[:, i] for i in range(self.radix)]
        shares = self.fc2(self.act1(self.bn1(self.fc1(_mean_of_sum(splits)))))
        shares = self.rsoftmax(shares).flatten(1).unflatten(1, (self.radix, -1, 1, 1))
        return _weigh(splits, shares)


ATTN_LAYERS.update(
    ge=GatherExcite, cbam=CbamModule, lcbam=LightCbamModule, nl=NonLocalAttn, bat=BatNonLocalAttn, sk=SelectiveKernel,
    splat=SplitAttn)
