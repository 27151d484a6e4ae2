"""CoaT: attention whose cost grows linearly with the image, in series over four scales and then side by side.

Xu et al., "Co-Scale Conv-Attentional Image Transformers", 2021, arXiv:2104.06399. Factorised attention first sums
values into one small matrix a head, weighted by the softmax of keys over tokens, and then reads it with the queries;
what it lacks of positions a depthwise convolution of the values adds. "lite" models have serial blocks alone, and the
last scale's class token is classified; the others have parallel blocks behind them, in which scales 2 to 4 exchange
what they know, and classify a mixture of their class tokens. Blocks of one scale share their convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import DropPath, HeadsAttention, Mlp, PatchEmbed, PreNormBlock, init_trunc_normal, run_blocks
from ..layers.helpers import Module, move_to_end, to_2tuple
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Inits, StateDict, Step

if TYPE_CHECKING:
    from ._variants.coat import *

__all__ = [
    "CoaT", "ConvPosEnc", "ConvRelPosEnc", "FactorAttnConvRelPosEnc", "ParallelBlock", "SerialBlock", "insert_cls",
    "remove_cls",
]

Layer = Callable[..., nn.Module]
Grid = tuple[int, int]
_SCALES = (1, 2, 3, 4)
_COARSE = (2, 3, 4)  # those of the parallel blocks


def _to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """Class token and patches (B, 1 + H * W, C) -> patches as a map (B, C, H, W), without a copy."""
    return tokens[:, 1:].transpose(1, 2).reshape(tokens.shape[0], -1, *grid)


def _to_tokens(cls_token: Tensor, x: Tensor) -> Tensor:
    """Class token (B, 1, C) and map (B, C, H, W) -> (B, 1 + H * W, C)."""
    return torch.cat((cls_token, x.flatten(2).transpose(1, 2)), dim=1)


def _exchange(xs: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """For each scale the sum of all: of class tokens, and of patches, which are resized to it."""
    cls_token: Any = sum(x[:, :1] for x in xs)
    maps = [_to_map(x, grid) for x, grid in zip(xs, grids)]
    sums: list[Any] = [sum(x if grid == own else F.interpolate(x, own, mode="bilinear") for x, grid in zip(maps, grids))
                       for own in grids]
    return [_to_tokens(cls_token, x) for x in sums]


def insert_cls(x: Tensor, cls_token: Tensor) -> Tensor:
    """Put a class token (1, 1, C) before patches (B, N, C)."""
    return torch.cat((cls_token.expand(x.shape[0], -1, -1), x), dim=1)


def remove_cls(x: Tensor) -> Tensor:
    """The patches (B, N, C) of (B, 1 + N, C)."""
    return x[:, 1:]


class TokenEmbed(PatchEmbed):
    """Patches of an image (B, C, H, W), or of the tokens of `grid` of the scale before, behind a class token.

    Returns (B, 1 + rows * columns, embed_dim), and (rows, columns).
    """

    def forward(self, x: Tensor, cls_token: Tensor, grid: Any = None) -> Any:  # type: ignore[override]
        return insert_cls(super().forward(x if grid is None else _to_map(x, grid)), cls_token), self.grid_size


class ConvPosEnc(Module):
    """A depthwise convolution with a shortcut, of patches. Shapes: (B, 1 + H * W, dim), (H, W) -> first."""

    def __init__(self, dim: int, k: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim)

    def forward(self, x: Tensor, size: Grid) -> Tensor:
        patches = _to_map(x, size)
        return _to_tokens(x[:, :1], self.proj(patches) + patches)


class ConvRelPosEnc(Module):
    """Queries times values that are convolved, by each of the convolutions those of some heads; 0 for the class token.

    Shapes: queries and values (B, num_heads, 1 + H * W, head_chs), (H, W) -> first. `window` is {kernel size: number of
    heads}, `num_heads` in all, or one size for all.
    """

    def __init__(self, head_chs: int, num_heads: int, window: int | Mapping[int, int]) -> None:
        super().__init__()
        windows = {window: num_heads} if isinstance(window, int) else dict(window)
        if sum(windows.values()) != num_heads:
            raise ValueError(f"crpe_window has windows for {sum(windows.values())} heads, there are {num_heads}")
        self.channels = [heads * head_chs for heads in windows.values()]
        self.conv_list = nn.ModuleList(nn.Conv2d(chs, chs, int(size), padding=int(size) // 2, groups=chs)
                                       for size, chs in zip(windows, self.channels))

    def forward(self, q: Tensor, v: Tensor, size: Grid) -> Tensor:
        maps = v[:, :, 1:].transpose(2, 3).flatten(1, 2).unflatten(2, (size[0], size[1])).split(self.channels, dim=1)
        convolved = torch.cat([conv(maps[i]) for i, conv in enumerate(self.conv_list)], dim=1)
        position = convolved.flatten(2).unflatten(1, (q.shape[1], -1)).transpose(2, 3)
        return F.pad(q[:, :, 1:] * position, (0, 0, 1, 0))


class FactorAttnConvRelPosEnc(HeadsAttention):
    """Queries read a matrix of keys and values; what `shared_crpe` says of positions is added.

    Shapes: (B, 1 + H * W, dim), (H, W) -> first. `attn_drop` is without effect: there is no map to drop from.
    """

    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, attn_drop: float = 0.0, proj_drop: float = 0.0,
        shared_crpe: Any = None,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        self.crpe = shared_crpe

    def mix(self, q: Tensor, k: Tensor, v: Tensor, *shared: Any) -> Tensor:
        return q @ ((k.softmax(dim=2).transpose(2, 3) @ v) * self.scale) + self.crpe(q, v, *shared)


class SerialBlock(PreNormBlock):
    """Position, attention, MLP, for one scale. Shapes: (B, 1 + H * W, dim), (H, W) -> first.

    `shared_cpe` and `shared_crpe` are a `ConvPosEnc` and a `ConvRelPosEnc`, of all blocks of the scale.
    """

    names: ClassVar[tuple[str, str]] = ("factoratt_crpe", "mlp")
    one_drop_path = True

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.LayerNorm,
        shared_cpe: Any = None, shared_crpe: Any = None,
    ) -> None:
        super().__init__(dim, FactorAttnConvRelPosEnc(dim, num_heads, qkv_bias, attn_drop, proj_drop, shared_crpe),
                         Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop), norm_layer, drop_path)
        self.cpe = shared_cpe
        move_to_end(self, "norm1", "factoratt_crpe", "norm2", "mlp")

    def forward(self, x: Tensor, size: Grid) -> Tensor:
        return super().forward(self.cpe(x, size), size)


class ParallelBlock(Module):
    """Attention within scales 2 to 4, whose answers each takes from all, resized; then an MLP that they share.

    Shapes: anything for scale 1, three of (B, 1 + H * W, dim), and the (H, W) of all four -> the four. `dims`,
    `mlp_ratios` and `shared_crpes` are of all four scales, too; the first two are the same for scales 2 to 4.
    """

    def __init__(
        self, dims: Sequence[int], num_heads: int, mlp_ratios: Sequence[float] | None = None, qkv_bias: bool = False,
        proj_drop: float = 0.0, attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Layer = nn.GELU,
        norm_layer: Layer = nn.LayerNorm, shared_crpes: Sequence[Any] | None = None,
    ) -> None:
        super().__init__()
        ratios, crpes = mlp_ratios or (), shared_crpes or (None,) * len(_SCALES)
        if not len(set(dims[1:])) == len(set(ratios[1:])) == 1:
            raise ValueError("parallel blocks share an MLP: embed_dims and mlp_ratios must be one for scales 2 to 4")
        self.drop_path = DropPath(drop_path)
        attentions = [FactorAttnConvRelPosEnc(dims[1], num_heads, qkv_bias, attn_drop, proj_drop, crpe)
                      for crpe in crpes[1:]]
        norms1, norms2 = ([norm_layer(dims[1]) for _ in _COARSE] for _ in range(2))
        for name, modules in (("norm1", norms1), ("factoratt_crpe", attentions), ("norm2", norms2)):
            for i, module in zip(_COARSE, modules):
                self.add_module(f"{name}{i}", module)
        self.mlp2 = self.mlp3 = self.mlp4 = Mlp(dims[1], int(dims[1] * ratios[1]), act_layer=act_layer, drop=proj_drop)

    def forward(self, x1: Any, x2: Tensor, x3: Tensor, x4: Tensor, sizes: Sequence[Any]) -> tuple[Any, ...]:
        xs, grids = [x2, x3, x4], [tuple(size) for size in sizes[1:]]
        norms1, attentions, norms2 = (
            [getattr(self, f"{name}{i}") for i in _COARSE] for name in ("norm1", "factoratt_crpe", "norm2"))
        answers = [attn(norm(x), grid) for norm, attn, x, grid in zip(norms1, attentions, xs, grids)]
        xs = [x + self.drop_path(mixed) for x, mixed in zip(xs, _exchange(answers, grids))]
        return x1, *(x + self.drop_path(self.mlp2(norm(x))) for norm, x in zip(norms2, xs))


def _run_parallel(block: nn.Module, xs: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """A block's answers for scales 2 to 4; the first, which it leaves as it is, is not carried through."""
    return list(block(None, *xs, [None, *grids])[1:])


class CoaT(ImageModel):
    """Four scales of serial blocks, parallel blocks of three of them, norm, pooling, classifier.

    Shapes: (B, in_chans, *img_size) -> (B, num_classes); features (B, 1 + N, embed_dims[3]), where there are parallel
    blocks a list of those of scales 2 to 4. Taps are maps of strides `patch_size` * (1, 2, 4, 8).

    Args:
        patch_size: Side of the first scale's patches.
        embed_dims, serial_depths, mlp_ratios: Of each scale: channels, serial blocks, hidden channels of their MLPs.
        parallel_depth: Parallel blocks; where there are some, scales 2 to 4 have the same channels and ratios.
        attn_drop_rate: Without effect, as in timm: there is no map to drop from.
        drop_path_rate: Stochastic depth, the same in all blocks.
        crpe_window: {kernel size: number of heads} of the convolutions of values, or one size for all heads.
        global_pool: "token" (class tokens), "avg" (over patches), or "" for none.

    Raises:
        ValueError: The pooling is unknown, not a number for each scale, parallel scales differ, or `crpe_window` is
            for other heads.
    """

    tap_layout: ClassVar[str] = "NLC"
    default_out_indices: ClassVar[Indices] = 4
    pools: ClassVar[tuple[str, ...]] = ("", "avg", "token")
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}
    num_prefix_tokens = 1

    def __init__(
        self, img_size: int | Grid = 224, patch_size: int = 16, in_chans: int = 3, num_classes: int = 1000,
        embed_dims: Sequence[int] = (64, 128, 320, 512), serial_depths: Sequence[int] = (3, 4, 6, 3),
        parallel_depth: int = 0, num_heads: int = 8, mlp_ratios: Sequence[float] = (4.0, 4.0, 4.0, 4.0),
        qkv_bias: bool = True, drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, norm_layer: NormLayer = None, crpe_window: int | Mapping[int, int] | None = None,
        global_pool: str = "token",
    ) -> None:
        super().__init__()
        for name, values in dict(embed_dims=embed_dims, serial_depths=serial_depths, mlp_ratios=mlp_ratios).items():
            if len(values) != len(_SCALES):
                raise ValueError(f"{name} has a value for each of {len(_SCALES)} scales, not {len(values)}")
        norm, window = get_norm_layer(norm_layer) or LayerNorm, crpe_window or {3: 2, 5: 3, 7: 3}
        self.in_chans, self.img_size = in_chans, to_2tuple(img_size)
        size, patch, chs = self.img_size, patch_size, in_chans
        for i, dim in zip(_SCALES, embed_dims):
            setattr(self, f"cls_token{i}", nn.Parameter(torch.empty(1, 1, dim)))
            embed: Any = TokenEmbed(size, patch, chs, dim, norm_layer=nn.LayerNorm)
            self.add_module(f"patch_embed{i}", embed)
            size, patch, chs = embed.grid_size, 2, dim
        cpes = [ConvPosEnc(dim) for dim in embed_dims]
        crpes = [ConvRelPosEnc(dim // num_heads, num_heads, window) for dim in embed_dims]
        common: dict[str, Any] = dict(num_heads=num_heads, qkv_bias=qkv_bias, proj_drop=proj_drop_rate,
                                      drop_path=drop_path_rate, norm_layer=norm)
        serial = [nn.Sequential(*(SerialBlock(dim, mlp_ratio=ratio, shared_cpe=cpe, shared_crpe=crpe, **common)
                                  for _ in range(depth)))
                  for dim, ratio, depth, cpe, crpe in zip(embed_dims, mlp_ratios, serial_depths, cpes, crpes)]
        for name, modules in (("cpe", cpes), ("crpe", crpes), ("serial_blocks", serial)):
            for i, module in zip(_SCALES, modules):
                self.add_module(f"{name}{i}", module)
        self.parallel_blocks = nn.ModuleList(
            ParallelBlock(embed_dims, mlp_ratios=mlp_ratios, shared_crpes=crpes, **common)
            for _ in range(parallel_depth))
        for i in _COARSE if parallel_depth else (4,):
            self.add_module(f"norm{i}", norm(embed_dims[i - 1]))
        self.aggregate = nn.Conv1d(3, 1, 1) if parallel_depth else None
        self._make_flow(embed_dims, [patch_size * 2**i for i in range(4)], parallel_depth)
        self.add_classifier(embed_dims[-1], num_classes, global_pool, nn.Dropout(drop_rate))

    def _make_flow(self, chs: Sequence[int], strides: Sequence[int], parallel_depth: int) -> None:
        steps = [Step("share", gives=tuple(f"cls{i}" for i in _SCALES))]
        for i, channels, stride in zip(_SCALES, chs, strides):
            is_tap = i == 1 or not parallel_depth
            steps += [Step(f"patch_embed{i}", takes=(f"cls{i}", "grid") if i > 1 else ("cls1",), gives=("grid",)),
                      Step(f"serial_blocks{i}", channels if is_tap else None, stride, takes=("grid",))]
            if parallel_depth and i in (2, 3):
                steps.append(Step("keep", gives=(f"x{i}",)))
        if parallel_depth:
            steps.append(Step("run_parallel", tuple(chs[1:]), tuple(strides[1:]), ("parallel_blocks",) * 3,
                              takes=("x2", "x3"), gives=("grid",)))
        self.flow = Flow(stem=steps[:2], stages=steps[2:], tail=[Step("norm_all" if parallel_depth else "norm4")])

    def share(self, x: Tensor) -> tuple[Tensor, ...]:
        return x, *(getattr(self, f"cls_token{i}") for i in _SCALES)

    def keep(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x

    def run_parallel(self, x4: Tensor, x2: Tensor, x3: Tensor) -> tuple[list[Tensor], list[Grid]]:
        xs, grids = [x2, x3, x4], [self._at(f"patch_embed{i}").grid_size for i in _COARSE]
        for block in self.parallel_blocks:
            xs = [self._at(f"cpe{i}")(x, grid) for i, x, grid in zip(_COARSE, xs, grids)]
            xs = run_blocks([partial(_run_parallel, block)], xs, grids, recompute=self.grad_checkpointing)
        return xs, grids

    def norm_all(self, xs: list[Tensor]) -> list[Tensor]:
        return [self.norm_tap(x, i) for i, x in enumerate(xs, start=1)]

    def norm_tap(self, x: Tensor, index: int) -> Tensor:
        name = f"norm{index + 1}"
        return self._at(name)(x) if name in self._modules else x

    def pool(self, x: Any) -> Any:
        if not isinstance(x, list) or not self.global_pool:
            return super().pool(x)
        scales = torch.stack([self.pool(scale) for scale in x], dim=1)
        return scales[:, -1] if self.aggregate is None else self.aggregate(scales).squeeze(1)

    def cut_head(self) -> None:
        super().cut_head()
        self.aggregate = None

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        pool_type = self.global_pool
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        self.global_pool = pool_type  # timm's model goes on pooling
        cut = [i for i in _SCALES if not isinstance(self._at(f"patch_embed{i}"), TokenEmbed)]
        for name in [f"{part}{i}" for part in ("cls_token", "cpe", "crpe") for i in cut]:
            setattr(self, name, None)
        if cut:
            self.parallel_blocks, self.flow.tail = nn.ModuleList(), []
        for name in {f"norm{i}" for i in _COARSE if cut or prune_norm} & self._modules.keys():
            setattr(self, name, nn.Identity())
        return taken

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        scales = [(f"^(?:cls_token|patch_embed|crpe|cpe){i}", rf"^serial_blocks{i}\.(\d+)") for i in _SCALES]
        rules: dict[str, Any] = {f"{i}": pattern for i, pattern in enumerate(sum(scales, ()))}
        return rules | dict(last=[(r"^parallel_blocks\.(\d+)", None), (r"^(?:norm|aggregate)", (99999,))])

    def no_weight_decay(self) -> set[str]:
        return {f"cls_token{i}" for i in _SCALES}

    def reset_parameters(self) -> None:
        for token in self.parameters(recurse=False):
            nn.init.trunc_normal_(token, std=0.02)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Without norms that the authors' files have besides, and with every name of what blocks share, if any."""
        own = self.state_dict(keep_vars=True)
        fitted = {key: value for key, value in state_dict.items()
                  if key in own or not key.startswith(("norm", "aggregate"))}
        found = {id(own[key]): value for key, value in fitted.items() if key in own}
        return {**{key: found[id(value)] for key, value in own.items() if id(value) in found}, **fitted}


_TINY = dict(patch_size=4, embed_dims=(152, 152, 152, 152), serial_depths=(2, 2, 2, 2), parallel_depth=6)
_LITE = dict(patch_size=4, mlp_ratios=(8, 8, 4, 4))
_MEDIUM = dict(patch_size=4, embed_dims=(128, 256, 320, 512), serial_depths=(3, 6, 10, 8))

register_model.variants(__name__, CoaT, {
    "coat_tiny": _TINY,
    "coat_mini": (_TINY, dict(embed_dims=(152, 216, 216, 216))),
    "coat_small": (_TINY, dict(embed_dims=(152, 320, 320, 320))),
    "coat_lite_tiny": (_LITE, dict(embed_dims=(64, 128, 256, 320), serial_depths=(2, 2, 2, 2))),
    "coat_lite_mini": (_LITE, dict(serial_depths=(2, 2, 2, 2))), "coat_lite_small": _LITE,
    "coat_lite_medium": _MEDIUM, "coat_lite_medium_384": (_MEDIUM, dict(img_size=384)),
})
