"""MViT v2: attention whose queries, keys and values convolutions pool, with relative positions of rows and columns.

Li et al., "MViTv2: Improved Multiscale Vision Transformers for Classification and Detection", 2021, arXiv:2112.01526.

A stage's first block pools the queries, and the shortcut with them; keys and values are pooled in all, fewer times in
each stage. A position's bias is the product of the query with an embedding of its distance from the key.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.attention import attend
from ..layers.config import use_fused_attn
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable, to_2tuple, to_ntuple
from ..layers.mlp import Mlp
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.pool import global_pool_nlc
from ..layers.rel_pos import decomposed_bias, gen_axis_index, resize_offset_vectors
from ..layers.stage import run_blocks
from ..layers.weight_init import init_zero_bias, trunc_normal_tf_
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Inits, KeyMap, StateDict, Step, rename_keys

if TYPE_CHECKING:
    from ._variants.mvitv2 import *

__all__ = ["MultiScaleVit"]

Size = Any  # (rows, columns)
Norm = Callable[[int], nn.Module]


class PatchEmbed(nn.Module):
    """Patches that overlap. Shapes: (B, dim_in, H, W) -> (B, N, dim_out), and (rows, columns)."""

    @placeable
    def __init__(
        self, dim_in: int = 3, dim_out: int = 768, kernel: Size = (7, 7), stride: Size = (4, 4), padding: Size = (3, 3)
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim_in, dim_out, tuple(kernel), tuple(stride), tuple(padding))

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        x = self.proj(x)
        return x.flatten(2).transpose(1, 2), x.shape[-2:]


@torch.fx.wrap  # one node in a traced graph: it depends on the maps' sizes
def _position_bias(
    q: Tensor, q_size: list[int], k_size: list[int], rows: Tensor, columns: Tensor, prefix: int
) -> Tensor:
    """Logits (B, heads, queries, keys) of positions; 0 of prefix tokens. `rows`, `columns`: (distances, channels)."""
    for i, table in enumerate((rows, columns)):
        if 2 * max(q_size[i], k_size[i]) - 1 > len(table):
            raise ValueError(f"a map of {q_size[0]} x {q_size[1]} is larger than its positions, which are made for "
                             f"{(len(table) + 1) // 2}; build the model with img_size= the images' size")
    grid = q[:, :, prefix:].flatten(0, 1).unflatten(1, (q_size[0], q_size[1]))
    down, across = (gen_axis_index(q_size[i], k_size[i], q.device) for i in range(2))
    bias = decomposed_bias(grid, rows[down], columns[across]).unflatten(0, (-1, q.shape[1]))
    return F.pad(bias, [prefix, 0, prefix, 0])


class MultiScaleAttention(nn.Module):
    """Self-attention with pooled queries, keys and values.

    Shapes: (B, N, dim), (rows, columns) -> (B, N', dim_out), (rows', columns').

    Args:
        feat_size: Rows and columns of the input, which positions are made for.
        mode: How to pool each head: "conv" (depthwise, with a norm), "avg" or "max"; not where kernel and stride are 1.
        rel_pos_type: "spatial", or another word for no relative positions.
        residual_pooling: Add the pooled queries to what is attended to.

    Raises:
        ValueError: The heads do not divide the channels, the mode is unknown, or the map is not a square.
    """

    @placeable
    def __init__(
        self, dim: int, dim_out: int, feat_size: Size, num_heads: int = 8, qkv_bias: bool = True, mode: str = "conv",
        kernel_q: Size = (1, 1), kernel_kv: Size = (1, 1), stride_q: Size = (1, 1), stride_kv: Size = (1, 1),
        has_cls_token: bool = True, rel_pos_type: str = "spatial", residual_pooling: bool = True,
        norm_layer: Norm = nn.LayerNorm,
    ) -> None:
        super().__init__()
        if dim_out % num_heads:
            raise ValueError(f"{dim_out} channels cannot be divided among {num_heads} heads")
        if mode not in ("conv", "avg", "max"):
            raise ValueError(f"mode {mode!r} is not one of conv, avg, max")
        if rel_pos_type == "spatial" and feat_size[0] != feat_size[1]:
            raise ValueError(f"relative positions need a square map, not {feat_size[0]} x {feat_size[1]}")
        self.num_heads, self.prefix, head_dim = num_heads, int(has_cls_token), dim_out // num_heads
        self.rel_pos_type, self.residual_pooling, self.fused_attn = rel_pos_type, residual_pooling, use_fused_attn()
        self.qkv = nn.Linear(dim, 3 * dim_out, bias=qkv_bias)
        self.proj = nn.Linear(dim_out, dim_out)
        for name in "qkv":
            kernel, stride = (kernel_q, stride_q) if name == "q" else (kernel_kv, stride_kv)
            pool: Any = None
            norm: Any = None
            window = tuple(kernel), tuple(stride), tuple(n // 2 for n in kernel)
            if math.prod((*kernel, *stride)) > 1 and mode == "conv":
                pool = nn.Conv2d(head_dim, head_dim, *window, groups=head_dim, bias=False)
                norm = norm_layer(head_dim)
            elif math.prod((*kernel, *stride)) > 1:
                pool = (nn.MaxPool2d if mode == "max" else nn.AvgPool2d)(*window)
            self.add_module(f"pool_{name}", pool)
            self.add_module(f"norm_{name}", norm)
        if rel_pos_type == "spatial":
            count = 2 * max(feat_size[0] // stride_q[1], feat_size[0] // stride_kv[1]) - 1
            self.rel_pos_h, self.rel_pos_w = (nn.Parameter(torch.empty(count, head_dim)) for _ in range(2))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.rel_pos_type == "spatial":
            trunc_normal_tf_(self.rel_pos_h, std=0.02)
            trunc_normal_tf_(self.rel_pos_w, std=0.02)

    def forward(self, x: Tensor, feat_size: Any) -> tuple[Tensor, Any]:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, q_size = self._pool(q, feat_size, self.pool_q, self.norm_q)
        k, k_size = self._pool(k, feat_size, self.pool_k, self.norm_k)
        v, _ = self._pool(v, feat_size, self.pool_v, self.norm_v)
        bias = None
        if self.rel_pos_type == "spatial":
            bias = _position_bias(q, q_size, k_size, self.rel_pos_h, self.rel_pos_w, self.prefix)
        x = attend(q, k, v, self.fused_attn, mask=bias)
        x = x + q if self.residual_pooling else x
        return self.proj(x.transpose(1, 2).flatten(2)), q_size

    def _pool(self, x: Tensor, size: Any, pool: Any, norm: Any) -> tuple[Tensor, Any]:
        """Tokens of each head (B, heads, N, d) of a map of `size` -> the same of fewer, and their size."""
        if pool is None:
            return x, size
        x, size = _pool_tokens(x.flatten(0, 1), size, pool, self.prefix)
        x = x.unflatten(0, (-1, self.num_heads))
        return (x if norm is None else norm(x)), size


def _pool_tokens(x: Tensor, size: Any, pool: nn.Module, prefix: int) -> tuple[Tensor, Any]:
    """Tokens (B, prefix + N, C) of a map of `size` -> (B, prefix + N', C), and the new size; prefix tokens stay."""
    pooled = pool(x[:, prefix:].unflatten(1, size).permute(0, 3, 1, 2).contiguous())
    tokens = pooled.flatten(2).transpose(1, 2)
    return torch.cat((x[:, :prefix], tokens), dim=1) if prefix else tokens, pooled.shape[-2:]


class MultiScaleBlock(nn.Module):
    """Attention, then an MLP, of which one widens. Shapes: (B, N, dim), (rows, columns) -> (B, N', dim_out), size.

    Args:
        expand_attn: The attention widens, rather than the MLP.
        pool_first: Has to be false.
        Others: As of the attention.

    Raises:
        ValueError: Pooling is to come first, which timm's attention cannot compute; or as the attention says.
    """

    @placeable
    def __init__(
        self, dim: int, dim_out: int, num_heads: int, feat_size: Size, mlp_ratio: float = 4.0, qkv_bias: bool = True,
        drop_path: float = 0.0, norm_layer: Norm = nn.LayerNorm, kernel_q: Size = (1, 1), kernel_kv: Size = (1, 1),
        stride_q: Size = (1, 1), stride_kv: Size = (1, 1), mode: str = "conv", has_cls_token: bool = True,
        expand_attn: bool = False, pool_first: bool = False, rel_pos_type: str = "spatial",
        residual_pooling: bool = True,
    ) -> None:
        super().__init__()
        if pool_first:
            raise ValueError("pool_first=True is of no published model, and fails in timm: leave it out")
        widens, inner, self.prefix = dim != dim_out, dim_out if expand_attn else dim, int(has_cls_token)
        self.norm1 = norm_layer(dim)
        self.shortcut_proj_attn = nn.Linear(dim, dim_out) if widens and expand_attn else None
        kernel = tuple(s + 1 if s > 1 else s for s in stride_q)
        self.shortcut_pool_attn = nn.MaxPool2d(kernel, tuple(stride_q), tuple(n // 2 for n in kernel)) \
            if math.prod(stride_q) > 1 else None
        self.attn = MultiScaleAttention(
            dim, inner, feat_size, num_heads, qkv_bias, mode, kernel_q, kernel_kv, stride_q, stride_kv, has_cls_token,
            rel_pos_type, residual_pooling, norm_layer)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = norm_layer(inner)
        self.shortcut_proj_mlp = nn.Linear(dim, dim_out) if widens and not expand_attn else None
        self.mlp = Mlp(inner, int(inner * mlp_ratio), dim_out)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor, feat_size: Any) -> tuple[Tensor, Any]:
        normed = self.norm1(x)
        x = x if self.shortcut_proj_attn is None else self.shortcut_proj_attn(normed)
        if self.shortcut_pool_attn is not None:
            x, _ = _pool_tokens(x, feat_size, self.shortcut_pool_attn, self.prefix)
        attended, feat_size = self.attn(normed, feat_size)
        x = x + self.drop_path1(attended)
        normed = self.norm2(x)
        x = x if self.shortcut_proj_mlp is None else self.shortcut_proj_mlp(normed)
        return x + self.drop_path2(self.mlp(normed)), feat_size


class MultiScaleVitStage(nn.Module):
    """Blocks, of which the first pools the queries. Shapes: (B, N, dim), size -> (B, N', dim_out), size.

    Arguments as of `MultiScaleBlock`; without `expand_attn` the last block widens.
    """

    @placeable
    def __init__(
        self, dim: int, dim_out: int, depth: int, num_heads: int, feat_size: Size, mlp_ratio: float = 4.0,
        qkv_bias: bool = True, kernel_q: Size = (1, 1), kernel_kv: Size = (1, 1), stride_q: Size = (1, 1),
        stride_kv: Size = (1, 1), mode: str = "conv", has_cls_token: bool = True, expand_attn: bool = False,
        pool_first: bool = False, rel_pos_type: str = "spatial", residual_pooling: bool = True,
        norm_layer: Norm = nn.LayerNorm, drop_path: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.blocks = nn.ModuleList()
        for i, rate in enumerate(to_ntuple(depth)(drop_path)):
            out = dim_out if expand_attn or i == depth - 1 else dim
            self.blocks.append(MultiScaleBlock(
                dim, out, num_heads, feat_size, mlp_ratio, qkv_bias, rate, norm_layer, kernel_q, kernel_kv,
                (1, 1) if i else stride_q, stride_kv, mode, has_cls_token, expand_attn, pool_first, rel_pos_type,
                residual_pooling))
            dim = out
            if i == 0:
                feat_size = tuple(n // s for n, s in zip(feat_size, stride_q))
        self.feat_size = feat_size

    def forward(self, x: Tensor, feat_size: Any) -> tuple[Tensor, Any]:
        for block in self.blocks:
            x, feat_size = run_blocks([block], x, feat_size, recompute=self.grad_checkpointing)
        return x, feat_size


def _init(module: nn.Linear) -> None:
    trunc_normal_tf_(module.weight, std=0.02)
    init_zero_bias(module)


def by_stage(
    count: int, embed_dim: int | Sequence[int], num_heads: int | Sequence[int], stride_q: Sequence[Size],
    stride_kv: Sequence[Size] | None, stride_kv_adaptive: Size | None,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Size, ...]]:
    """Channels, heads, and strides of keys and values of `count` stages, from `MultiScaleVit`'s arguments.

    Raises:
        ValueError: One of them has fewer values than there are stages.
    """
    dims, heads = (tuple(n * 2**i for i in range(count)) if isinstance(n, int) else tuple(n)
                   for n in (embed_dim, num_heads))
    strides: list[Size] = list(stride_kv or ())
    if stride_kv is None:
        last = stride_kv_adaptive or (1, 1)
        for q in stride_q:
            last = (max(last[0] // q[0], 1), max(last[1] // q[1], 1)) if min(q) > 1 else (last[0], last[1])
            strides.append(last)
    for name, values in dict(embed_dim=dims, num_heads=heads, stride_q=stride_q, stride_kv=strides).items():
        if len(values) < count:
            raise ValueError(f"{name} has {len(values)} values for the {count} stages of depths")
    return dims, heads, tuple(strides)


class MultiScaleVit(ImageModel):
    """MViT v2.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, N, num_features), taps are maps.

    Args:
        img_size: Side, or (height, width), that positions are made for.
        global_pool: "avg", "token" or ""; by default "token" where there is a class token, else "avg".
        depths: Blocks of each stage.
        embed_dim, num_heads: Channels and heads of each stage, or of the first: each further stage doubles them.
        use_cls_token, use_abs_pos: Whether there are a class token and a learned position embedding.
        kernel_qkv, stride_q, stride_kv: Kernel of the pools, and strides in each stage.
        stride_kv_adaptive: Strides of keys and values in the first stage, divided as the queries' map shrinks.
        Others: As of the blocks.

    Raises:
        ValueError: Not a value a stage; the pooling is unknown, or needs a class token; or as the blocks say.
    """

    tap_layout, tap_norm, pools = "NLC", "last", ("avg", "token", "")
    undecayed = "pos_embed|cls_token|rel_pos_h|rel_pos_w"
    inits: ClassVar[Inits] = {nn.Linear: _init}
    classifier_path: ClassVar[str | tuple[str, ...]] = "head.fc"
    default_out_indices: ClassVar[Indices] = 4

    def __init__(
        self, img_size: int | Size = (224, 224), in_chans: int = 3, global_pool: str | None = None,
        num_classes: int = 1000, drop_path_rate: float = 0.0, drop_rate: float = 0.0,
        depths: Sequence[int] = (2, 3, 16, 3), embed_dim: int | Sequence[int] = 96, num_heads: int | Sequence[int] = 1,
        mlp_ratio: float = 4.0, pool_first: bool = False, expand_attn: bool = True, qkv_bias: bool = True,
        use_cls_token: bool = False, use_abs_pos: bool = False, residual_pooling: bool = True, mode: str = "conv",
        kernel_qkv: Size = (3, 3), stride_q: Sequence[Size] = ((1, 1), (2, 2), (2, 2), (2, 2)),
        stride_kv: Sequence[Size] | None = None, stride_kv_adaptive: Size | None = (4, 4), patch_kernel: Size = (7, 7),
        patch_stride: Size = (4, 4), patch_padding: Size = (3, 3), rel_pos_type: str = "spatial",
        norm_layer: NormLayer = "layernorm", norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        count, norm = len(depths), partial(get_norm_layer(norm_layer), eps=norm_eps)
        dims, heads, stride_kv = by_stage(count, embed_dim, num_heads, stride_q, stride_kv, stride_kv_adaptive)
        self.num_classes, self.in_chans, self.img_size = num_classes, in_chans, to_2tuple(img_size)
        self.depths, self.expand_attn = tuple(depths), expand_attn
        self.patch_embed = PatchEmbed(in_chans, dims[0], patch_kernel, patch_stride, patch_padding)
        self.num_prefix_tokens = int(use_cls_token)
        grid = tuple(n // s for n, s in zip(self.img_size, patch_stride))
        self.cls_token = nn.Parameter(torch.empty(1, 1, dims[0])) if use_cls_token else None
        self.pos_embed = nn.Parameter(torch.empty(1, math.prod(grid) + self.num_prefix_tokens, dims[0])) \
            if use_abs_pos else None
        self.stages = nn.ModuleList()
        dim, stride, steps = dims[0], max(patch_stride), []
        for i, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            dim_out = dims[i] if expand_attn else dims[min(i + 1, count - 1)]
            stage = MultiScaleVitStage(
                dim, dim_out, depths[i], heads[i], grid, mlp_ratio, qkv_bias, kernel_qkv, kernel_qkv, stride_q[i],
                stride_kv[i], mode, use_cls_token, expand_attn, pool_first, rel_pos_type, residual_pooling, norm, rates)
            self.stages.append(stage)
            dim, grid, stride = dim_out, stage.feat_size, stride * max(stride_q[i])
            steps.append(Step(f"stages.{i}", dim, stride, f"block.{i}", takes=("grid",), gives=("grid",)))
        self.flow = Flow([Step("patch_embed", gives=("grid",)), Step("add_tokens")], steps, tail=[Step("norm")])
        self.num_features = self.head_hidden_size = dim
        self.norm = norm(dim)
        self.set_global_pool(("token" if use_cls_token else "avg") if global_pool is None else global_pool)
        self.head = nn.Sequential(OrderedDict(drop=nn.Dropout(drop_rate), fc=self.make_classifier(num_classes)))
        self.init_weights()

    def add_tokens(self, x: Tensor) -> Tensor:
        """Patches -> tokens, with the class token and positions where they are."""
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return x if self.pos_embed is None else x + self.pos_embed

    def pool(self, x: Tensor) -> Tensor:
        return global_pool_nlc(x, self.global_pool, self.num_prefix_tokens)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.pool(x)
        return x if pre_logits else self.head(x)

    def check_pool(self, pool_type: str) -> None:
        super().check_pool(pool_type)
        if pool_type == "token" and self.cls_token is None:
            raise ValueError("global_pool 'token' needs a class token, which this model does not have")

    def _format_tap(self, x: Tensor, grid: Any, output_fmt: str, prefix: bool) -> Any:
        return x if output_fmt == "NLC" else super()._format_tap(x, grid, output_fmt, prefix)  # with the class token

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^(?:cls_token|pos_embed|patch_embed)",
                    blocks=[(r"^stages\.(\d+)", None), (r"^norm", (99999,))])

    def reset_parameters(self) -> None:
        """Initialise the class token and the position embedding."""
        for parameter in (self.cls_token, self.pos_embed):
            if parameter is not None:
                trunc_normal_tf_(parameter, std=0.02)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Relative positions of another size, interpolated."""
        own = self.state_dict()
        return {key: resize_offset_vectors(value, len(own[key])) if key in own and ".rel_pos_" in key else value
                for key, value in state_dict.items()}


_SMALL, _BASE = dict(depths=(1, 2, 11, 2)), dict(depths=(2, 3, 16, 3))
_LARGE = dict(depths=(2, 6, 36, 4), embed_dim=144, num_heads=2)
_CLS = dict(use_cls_token=True)

register_model.variants(__name__, MultiScaleVit, {
    "mvitv2_tiny": dict(depths=(1, 2, 5, 2)),
    "mvitv2_small": _SMALL,
    "mvitv2_base": _BASE,
    "mvitv2_large": (_LARGE, dict(expand_attn=False)),
    "mvitv2_small_cls": (_SMALL, _CLS),
    "mvitv2_base_cls": (_BASE, _CLS),
    "mvitv2_large_cls": (_LARGE, _CLS),
    "mvitv2_huge_cls": (_CLS, dict(depths=(4, 8, 60, 8), embed_dim=192, num_heads=3)),
})


def _from_meta(state_dict: StateDict, model: Any) -> StateDict:
    """Meta counts the blocks through; a projection is the shortcut's that widens, or the classifier."""
    places = [(i, j) for i, depth in enumerate(model.depths) for j in range(depth)]
    shortcut = "shortcut_proj_attn" if model.expand_attn else "shortcut_proj_mlp"
    return rename_keys(
        state_dict, (r"^(blocks\.\d+)\.proj\.", rf"\1.{shortcut}."), (r"^head\.projection\.", "head.fc."),
        (r"^blocks\.(\d+)\.", lambda match: "stages.{}.blocks.{}.".format(*places[int(match[1])])))


MultiScaleVit.key_maps = (KeyMap("meta", lambda keys: "blocks.0.norm1.weight" in keys, _from_meta),)
