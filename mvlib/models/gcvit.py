"""GCViT: attention within windows, whose queries are in every second block those of a summary of the whole map.

Hatamizadeh et al., "Global Context Vision Transformers", 2022, arXiv:2206.09959. Windows and summary follow from
`img_size`, which all images have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention import attention_logits
from ..layers.channel_attention import AttnLayer, create_attn
from ..layers.drop import drop_path_rates
from ..layers.helpers import placeable, to_2tuple, to_ntuple
from ..layers.mlp import Mlp
from ..layers.norm import LayerNorm2d, NormLayer, get_norm_layer
from ..layers.pool import ClassifierHead
from ..layers.rel_pos import RelPosBias
from ..layers.residual import ResidualBlock
from ..layers.stage import run_blocks
from ..layers.window import check_map, window_partition, window_reverse
from ..registry import register_model
from .base import Flow, ImageModel, Step

if TYPE_CHECKING:
    from ._variants.gcvit import *

__all__ = ["GlobalContextVit"]

torch.fx.wrap("check_map")  # one node in a traced graph: what it does depends on the map's size

Size = int | tuple[int, int]
Act = Callable[[], nn.Module]
Norm = Callable[[int], nn.Module]
_POOLS: dict[str, Act] = {"max": partial(nn.MaxPool2d, 3, stride=2, padding=1), "avg": partial(nn.AvgPool2d, 2)}


class MbConvBlock(nn.Module):
    """Two convolutions, channel attention between; keys `conv_dw`, `se`, `conv_pw`. (B, in_chs, H, W) -> same."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int | None = None, expand_ratio: float = 1.0, attn_layer: AttnLayer = "se",
        bias: bool = False, act_layer: Act = nn.GELU,
    ) -> None:
        super().__init__()
        chs = int(expand_ratio * in_chs)
        self.conv_dw = nn.Conv2d(in_chs, chs, 3, padding=1, groups=in_chs, bias=bias)
        self.act = act_layer()
        squeezed = dict(rd_ratio=0.25, bias=False) if attn_layer in ("se", "eca") else {}
        self.se = create_attn(attn_layer, chs, act_layer=act_layer, **squeezed) or nn.Identity()
        self.conv_pw = nn.Conv2d(chs, out_chs or in_chs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_pw(self.se(self.act(self.conv_dw(x))))


class Downsample2d(nn.Module):
    """Half the size: (B, dim, H, W) -> (B, dim_out, H / 2, W / 2); keys `norm1`, `conv_block`, `reduction`, `norm2`."""

    @placeable
    def __init__(
        self, dim: int, dim_out: int | None = None, reduction: str = "conv", act_layer: Act = nn.GELU,
        norm_layer: Norm | None = LayerNorm2d,
    ) -> None:
        super().__init__()
        dim_out = dim_out or dim
        if reduction != "conv" and (reduction not in _POOLS or dim != dim_out):
            raise ValueError(f"no reduction '{reduction}' from {dim} to {dim_out} channels; take 'conv'")
        self.norm1 = norm_layer(dim) if norm_layer else nn.Identity()
        self.conv_block = MbConvBlock(dim, act_layer=act_layer)
        self.reduction = _POOLS.get(reduction, partial(nn.Conv2d, dim, dim_out, 3, stride=2, padding=1, bias=False))()
        self.norm2 = norm_layer(dim_out) if norm_layer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.reduction(self.conv_block(self.norm1(x))))


class FeatureBlock(nn.Module):
    """A map's summary, key `blocks`: (B, dim, H, W) -> (B, dim, H / 2 ** levels, W / 2 ** levels)."""

    @placeable
    def __init__(self, dim: int, levels: int = 0, reduction: str = "max", act_layer: Act = nn.GELU) -> None:
        super().__init__()
        self.blocks = nn.Sequential()
        for i in range(1, max(levels, 1) + 1):
            self.blocks.add_module(f"conv{i}", MbConvBlock(dim, act_layer=act_layer))
            if levels > 0:
                self.blocks.add_module(f"pool{i}", _POOLS["avg" if reduction == "avg" else "max"]())

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Stem(nn.Module):
    """A convolution, downsampling; keys `conv1`, `down`. (B, in_chs, H, W) -> (B, out_chs, H / 4, W / 4)."""

    @placeable
    def __init__(
        self, in_chs: int = 3, out_chs: int = 96, act_layer: Act = nn.GELU, norm_layer: Norm = LayerNorm2d
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chs, out_chs, 3, stride=2, padding=1)
        self.down = Downsample2d(out_chs, act_layer=act_layer, norm_layer=norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.conv1(x))


class WindowAttentionGlobal(nn.Module):
    """Attention within windows; keys `rel_pos`, `qkv`, `proj`. Shapes: (B * windows, wh * ww, dim) -> same.

    With `use_global` the queries are those of a summary (B, wh, ww, dim), in all windows of its image.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int, window_size: Size, use_global: bool = True, qkv_bias: bool = True,
        attn_drop: float = 0.0, proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.window_size, self.num_heads, self.use_global = to_2tuple(window_size), num_heads, use_global
        self.rel_pos = RelPosBias(self.window_size, num_heads)
        self.qkv = nn.Linear(dim, dim * (2 if use_global else 3), bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.attn_drop, self.proj_drop = nn.Dropout(attn_drop), nn.Dropout(proj_drop)

    def forward(self, x: Tensor, q_global: Tensor | None = None) -> Tensor:
        parts = self.qkv(x).unflatten(2, (2 if self.use_global else 3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if self.use_global and q_global is not None:
            k, v = parts.unbind(0)
            q = q_global.repeat_interleave(x.shape[0] // q_global.shape[0], dim=0)  # ONNX loses an expanded batch
            q = q.flatten(1, 2).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (windows, heads, wh * ww, d)
        else:
            q, k, v = parts.unbind(0)
        attn = self.attn_drop(self.rel_pos(attention_logits(q, k)).softmax(dim=-1))
        return self.proj_drop(self.proj((attn @ v).transpose(1, 2).flatten(2)))


class GlobalContextVitBlock(ResidualBlock):
    """Attention within windows and an MLP: (B, H, W, dim) -> same; `feat_size` is (H, W)."""

    @placeable
    def __init__(
        self, dim: int, feat_size: Size, num_heads: int, window_size: Size = 7, mlp_ratio: float = 4.0,
        use_global: bool = True, qkv_bias: bool = True, layer_scale: float | None = None, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, attn_layer: Callable[..., nn.Module] = WindowAttentionGlobal,
        act_layer: Act = nn.GELU, norm_layer: Norm = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.window_size = to_2tuple(window_size)
        self.num_windows = math.prod(a // b for a, b in zip(to_2tuple(feat_size), self.window_size))
        attn = attn_layer(
            dim, num_heads=num_heads, window_size=self.window_size, use_global=use_global, qkv_bias=qkv_bias,
            attn_drop=attn_drop, proj_drop=proj_drop)
        mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.add_branches(dim, norm_layer, attn, mlp, layer_scale, drop_path)

    def attend(self, x: Tensor, q_global: Tensor | None = None) -> Tensor:
        windows = self.attn(window_partition(x, self.window_size).flatten(1, 2), q_global)
        return window_reverse(windows, self.window_size, x.shape[1], x.shape[2])


class GlobalContextVitStage(nn.Module):
    """Downsampling, a summary of the map, blocks; keys `downsample`, `global_block`, `global_norm`, `blocks`, `norm`.

    Shapes: (B, dim, *feat_size) -> (B, 2 * dim, H / 2, W / 2), or the same without `downsample`. `global_norm` and
    `stage_norm` normalise summary and output; `norm_layer` is for maps, `norm_layer_cl` where channels are last.
    """

    grad_checkpointing = False

    @placeable
    def __init__(
        self, dim: int, depth: int, num_heads: int, feat_size: tuple[int, int], window_size: Size,
        downsample: bool = True, global_norm: bool = False, stage_norm: bool = False, mlp_ratio: float = 4.0,
        qkv_bias: bool = True, layer_scale: float | None = None, proj_drop: float = 0.0, attn_drop: float = 0.0,
        drop_path: float | Sequence[float] = 0.0, act_layer: Act = nn.GELU, norm_layer: Norm = LayerNorm2d,
        norm_layer_cl: Norm = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.downsample = Downsample2d(dim, 2 * dim, norm_layer=norm_layer) if downsample else nn.Identity()
        self.dim, scale = (2 * dim, 2) if downsample else (dim, 1)
        self.feat_size, window = (-(-feat_size[0] // scale), -(-feat_size[1] // scale)), to_2tuple(window_size)
        levels = int(math.log2(min(self.feat_size) / max(min(window), 1)))
        summary = tuple(-(-side // 2 ** levels) for side in self.feat_size)
        if 0 in window or any(a % b for a, b in zip(self.feat_size, window)) or depth > 1 and summary != window:
            raise ValueError(f"a map of {self.feat_size[0]} x {self.feat_size[1]} is no windows of {window[0]} x "
                             f"{window[1]} or does not halve to one; choose another img_size or window_size")
        self.global_block = FeatureBlock(self.dim, levels)
        self.global_norm = norm_layer_cl(self.dim) if global_norm else nn.Identity()
        rates = drop_path if isinstance(drop_path, Sequence) else [drop_path] * depth
        self.blocks = nn.ModuleList(GlobalContextVitBlock(
            self.dim, self.feat_size, num_heads, window, mlp_ratio, i % 2 == 1, qkv_bias, layer_scale, proj_drop,
            attn_drop, rate, act_layer=act_layer, norm_layer=norm_layer_cl) for i, rate in enumerate(rates))
        self.norm = norm_layer_cl(self.dim) if stage_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        summary = self.global_norm(self.global_block(x).permute(0, 2, 3, 1))
        x = run_blocks(self.blocks, x.permute(0, 2, 3, 1), summary, recompute=self.grad_checkpointing)
        return self.norm(x).permute(0, 3, 1, 2).contiguous()


class GlobalContextVit(ImageModel):
    """A convolutional stem, stages of windows with a global context, pooling, classifier.

    Shapes: (B, in_chans, *img_size) -> (B, num_classes); the features have a stride of 32. Channels double each stage.
    A window's side is `window_size`, one or one a stage, else that of the image by `window_ratio`. `weight_init` is
    "vit" for Xavier's initial values of linear layers, another name for a deviation of 0.02, "" for torch's own.

    Raises:
        ValueError: An option has an unknown value; windows do not fit the maps; from `forward`, images of another size.
    """

    head_path, feature_form, undecayed = "head", "flat", "relative_position_bias_table"

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg", img_size: Size = 224,
        window_ratio: int | Sequence[int] = (32, 32, 16, 32), window_size: int | Sequence[Size] | None = None,
        embed_dim: int = 64, depths: Sequence[int] = (3, 4, 19, 5), num_heads: Sequence[int] = (2, 4, 8, 16),
        mlp_ratio: float = 3.0, qkv_bias: bool = True, layer_scale: float | None = None, drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0, weight_init: str = "",
        act_layer: ActLayer = "gelu", norm_layer: NormLayer = "layernorm2d", norm_layer_cl: NormLayer = "layernorm",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        act: Any = get_act_layer(act_layer)
        norm, norm_last = (partial(get_norm_layer(name), eps=norm_eps) for name in (norm_layer, norm_layer_cl))
        self.num_classes, self.in_chans, self.weight_init_mode = num_classes, in_chans, weight_init
        self.img_size = height, width = to_2tuple(img_size)
        windows = to_ntuple(len(depths))(window_size) if window_size is not None else [
            (height // ratio, width // ratio) for ratio in to_ntuple(len(depths))(window_ratio)]
        self.stem = Stem(in_chans, embed_dim, act, norm)
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("check_size"), Step("stem")], stages=[])
        dim, feat_size = embed_dim, (-(-height // 4), -(-width // 4))
        for i, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            self.stages.append(stage := GlobalContextVitStage(
                dim, len(rates), num_heads[i], feat_size, windows[i], i > 0, False, i == len(depths) - 1, mlp_ratio,
                qkv_bias, layer_scale, proj_drop_rate, attn_drop_rate, rates, act, norm, norm_last))
            dim, feat_size = stage.dim, stage.feat_size
            self.flow.stages.append(Step(f"stages.{i}", dim, 4 * 2 ** i))
        self.num_features = dim
        self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.head.num_features
        self.init_weights()

    def check_size(self, x: Tensor) -> Tensor:
        return check_map(x, self.img_size, True) if self.img_size is not None else x

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if self.weight_init_mode and isinstance(module, nn.Linear):
            is_vit = self.weight_init_mode == "vit"
            nn.init.xavier_uniform_(module.weight) if is_vit else nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=1e-6 if is_vit and "mlp" in name else 0.0)


_WIDE = dict(mlp_ratio=2, layer_scale=1e-5)

register_model.variants(__name__, GlobalContextVit, {
    "gcvit_xxtiny": dict(depths=(2, 2, 6, 2)),
    "gcvit_xtiny": dict(depths=(3, 4, 6, 5)),
    "gcvit_tiny": {},
    "gcvit_small": (_WIDE, dict(embed_dim=96, num_heads=(3, 6, 12, 24))),
    "gcvit_base": (_WIDE, dict(embed_dim=128, num_heads=(4, 8, 16, 32))),
})
