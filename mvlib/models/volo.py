"""VOLO: a stage in which each position says how its neighbours are mixed, stages of self-attention, class attention.

Yuan et al., "VOLO: Vision Outlooker for Visual Recognition", 2021, arXiv:2106.13112; the class token that comes late is
CaiT's, arXiv:2103.17239; the patches' classifier is that of Jiang et al., "All Tokens Matter: Token Labeling for
Training Better Vision Transformers", 2021, arXiv:2104.10858. Maps have their channels last. As in timm, outlookers have
no stochastic depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ActLayer, HeadsAttention, Mlp, PreNormBlock, init_trunc_normal, resample_grid, run_blocks
from ..layers.helpers import Module, to_2tuple, to_ntuple
from ..layers.norm import NormLayer, get_norm_layer
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Inits, StateDict, Step

if TYPE_CHECKING:
    from ._variants.volo import *

__all__ = ["VOLO"]

Layer = Callable[..., nn.Module]


class OutlookAttention(Module):
    """Each position weighs the pairs of positions in its window; windows add up where they overlap.

    Weights are a linear function of a window's centre alone, or of a mean for a `stride` above 1; keys `v`, `attn`,
    `proj`. Shapes: (B, H, W, dim) -> same.
    """

    def __init__(
        self, dim: int, num_heads: int, kernel_size: int = 3, padding: int = 1, stride: int = 1,
        qkv_bias: bool = False, attn_drop: float = 0.0, proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.kernel_size, self.padding, self.stride = kernel_size, padding, stride
        self.v, self.attn = nn.Linear(dim, dim, bias=qkv_bias), nn.Linear(dim, num_heads * kernel_size**4)
        self.proj = nn.Linear(dim, dim)
        self.attn_drop, self.proj_drop = nn.Dropout(attn_drop), nn.Dropout(proj_drop)
        self.unfold = nn.Unfold(kernel_size, padding=padding, stride=stride)
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        area = self.kernel_size**2
        values = self.unfold(self.v(x).permute(0, 3, 1, 2)).unflatten(1, (self.num_heads, -1, area))
        centres = self.pool(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        logits = self.attn(centres).unflatten(2, (self.num_heads, area, area)).transpose(1, 2)
        attn = self.attn_drop((logits * self.scale).softmax(dim=-1))
        mixed = (attn @ values.permute(0, 1, 4, 3, 2)).permute(0, 1, 4, 3, 2).flatten(1, 3)  # windows of all channels
        mixed = F.fold(mixed, (x.shape[1], x.shape[2]), self.kernel_size, padding=self.padding, stride=self.stride)
        return self.proj_drop(self.proj(mixed.permute(0, 2, 3, 1)))


class Attention(HeadsAttention):
    """Self-attention of all positions of a map. Shapes: (B, H, W, dim) -> same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1, 2)).view_as(x)


class Transformer(PreNormBlock):
    """A vision transformer's block, on a map. Shapes: (B, H, W, dim) -> same."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, attn_drop: float = 0.0,
        drop_path: float = 0.0, act_layer: ActLayer = nn.GELU, norm_layer: Layer = nn.LayerNorm,
    ) -> None:
        super().__init__(dim, Attention(dim, num_heads, qkv_bias, attn_drop),
                         Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer), norm_layer, drop_path)


class Outlooker(PreNormBlock):
    """Outlook attention and an MLP, each behind a norm and beside a shortcut. Shapes: (B, H, W, dim) -> same."""

    def __init__(
        self, dim: int, kernel_size: int, padding: int, stride: int = 1, num_heads: int = 1, mlp_ratio: float = 3.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.LayerNorm,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__(dim, OutlookAttention(dim, num_heads, kernel_size, padding, stride, qkv_bias, attn_drop),
                         Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer), norm_layer, drop_path)


class ClassAttention(HeadsAttention):
    """The class token attends to all tokens; keys `kv`, `q`, `proj`. Shapes: (B, N, dim) -> (B, 1, dim)."""

    inputs: ClassVar[Mapping[str, int]] = {"kv": 2, "q": 1}
    q: Any
    kv: Any

    def __init__(
        self, dim: int, num_heads: int = 8, head_dim: int | None = None, qkv_bias: bool = False,
        attn_drop: float = 0.0, proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias, attn_drop, proj_drop, head_dim)

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        return *self.split_heads(self.q(x[:, :1])), *self.split_heads(self.kv(x), 2)


class ClassBlock(PreNormBlock):
    """Class attention and an MLP of the class token; other tokens stay. Shapes: (B, N, dim) -> same."""

    def __init__(
        self, dim: int, num_heads: int, head_dim: int | None = None, mlp_ratio: float = 4.0, qkv_bias: bool = False,
        drop: float = 0.0, attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Layer = nn.GELU,
        norm_layer: Layer = nn.LayerNorm,
    ) -> None:
        super().__init__(dim, ClassAttention(dim, num_heads, head_dim, qkv_bias, attn_drop, drop),
                         Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drop), norm_layer, drop_path)

    def forward(self, x: Tensor) -> Tensor:
        token = x[:, :1] + self.drop_path1(self.attn(self.norm1(x)))
        token = token + self.drop_path2(self.mlp(self.norm2(token)))
        return torch.cat((token, x[:, 1:]), dim=1)


def get_block(block_type: str, **kwargs: Any) -> nn.Module:
    """A block of class attention with `ClassBlock`'s arguments; raises ValueError for any type but "ca"."""
    if block_type != "ca":
        raise ValueError(f"unknown block_type '{block_type}'; known: ca")
    return ClassBlock(**kwargs)


def rand_bbox(size: Sequence[int], lam: Tensor, scale: int = 1) -> tuple[int, int, int, int]:
    """A random box, cut off at the edges of a map of size (B, H, W, C): first row, first column, their ends.

    `lam`, a tensor, is what it leaves of the area; it is one of a map `scale` times smaller.
    """
    sides, part = torch.tensor(size[1:3]) // scale, torch.sqrt(1.0 - lam)
    cut = (sides * part).int()
    centre = torch.cat([torch.randint(0, int(side), (1,)) for side in sides])
    zero = torch.zeros_like(sides)
    first, end = torch.clamp(centre - cut // 2, zero, sides), torch.clamp(centre + (cut + 1) // 2, zero, sides)
    return int(first[0]), int(first[1]), int(end[0]), int(end[1])


class PatchEmbed(Module):
    """Three convolutions of `stem_stride`, then one of patches with sides of 4, 8 or 16; keys `conv`, `proj`.

    Shapes: (B, in_chans, H, W) -> (B, embed_dim, H / patch_size, W / patch_size). Without `stem_conv`, the input has
    `hidden_dim` channels, and is `stem_stride` smaller.
    """

    def __init__(
        self, img_size: int | tuple[int, int] = 224, stem_conv: bool = False, stem_stride: int = 1,
        patch_size: int = 8, in_chans: int = 3, hidden_dim: int = 64, embed_dim: int = 384,
    ) -> None:
        super().__init__()
        if patch_size not in (4, 8, 16):
            raise ValueError(f"patch_size is 4, 8 or 16, not {patch_size}")
        self.conv = None
        if stem_conv:
            self.conv = nn.Sequential()
            for chs, kernel, stride in ((in_chans, 7, stem_stride), (hidden_dim, 3, 1), (hidden_dim, 3, 1)):
                self.conv.extend([
                    nn.Conv2d(chs, hidden_dim, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(hidden_dim),
                    nn.ReLU(inplace=True)])
        size = patch_size // stem_stride
        self.proj = nn.Conv2d(hidden_dim, embed_dim, size, size)
        height, width = to_2tuple(img_size)
        self.num_patches = (height // patch_size) * (width // patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x if self.conv is None else self.conv(x))


class Downsample(Module):
    """Patches of a map to vectors; key `proj`. Shapes: (B, H, W, in) -> (B, H / patch_size, W / patch_size, out)."""

    def __init__(self, in_embed_dim: int, out_embed_dim: int, patch_size: int = 2) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_embed_dim, out_embed_dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def outlooker_blocks(
    block_fn: Layer, index: int, dim: int, layers: Sequence[int], num_heads: int = 1, kernel_size: int = 3,
    padding: int = 1, stride: int = 2, mlp_ratio: float = 3.0, qkv_bias: bool = False, attn_drop: float = 0.0,
    drop_path_rate: float = 0.0, device: Any = None, dtype: Any = None, **kwargs: Any,
) -> nn.Sequential:
    """The stage `index` of models that have these `layers`, of blocks with `Outlooker`'s arguments."""
    return transformer_blocks(
        block_fn, index, dim, layers, num_heads, mlp_ratio, qkv_bias, attn_drop, drop_path_rate,
        kernel_size=kernel_size, padding=padding, stride=stride, device=device, dtype=dtype, **kwargs)


def transformer_blocks(
    block_fn: Layer, index: int, dim: int, layers: Sequence[int], num_heads: int, mlp_ratio: float = 3.0,
    qkv_bias: bool = False, attn_drop: float = 0.0, drop_path_rate: float = 0.0, **kwargs: Any,
) -> nn.Sequential:
    """The same of blocks with `Transformer`'s arguments; stochastic depth grows to `drop_path_rate` in the last one."""
    first, last = sum(layers[:index]), sum(layers) - 1
    return nn.Sequential(*(
        block_fn(dim, num_heads=num_heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, attn_drop=attn_drop,
                 drop_path=drop_path_rate * i / last if drop_path_rate else 0.0, **kwargs)
        for i in range(first, first + layers[index])))


@torch.fx.wrap  # one node in a traced graph: it looks at the sizes
def _add_positions(x: Tensor, pos_embed: Tensor) -> Tensor:
    if x.shape[1:3] != pos_embed.shape[1:3]:
        raise ValueError(f"a map of {x.shape[1]} x {x.shape[2]} has no positions: the model's img_size gives one of "
                         f"{pos_embed.shape[1]} x {pos_embed.shape[2]}; build it with the images' img_size")
    return x + pos_embed


class VOLO(ImageModel):
    """Patches, outlookers, positions, self-attention, class attention, norm; classifiers of class token and patches.

    Logits are the class token's, plus half of the largest that any patch has. Shapes: (B, in_chans, *img_size) ->
    (B, num_classes); features (B, 1 + N, embed_dims[-1]), taps without class token.

    Args:
        layers, embed_dims, num_heads, mlp_ratio: Of each stage: blocks, channels, heads, hidden channels of the MLPs
            per channel; the last may be one number.
        global_pool: "token" (the first token: the class token, where there is one), "avg" (of all tokens), or "" for
            none, and then without the patches' classifier.
        patch_size: Side of a patch: 4, 8 or 16.
        stem_hidden_dim: Channels of the stem's convolutions.
        downsamples, outlook_attention: Which stages end with a downsampling by 2, and which are of outlookers.
        drop_path_rate: Stochastic depth of the last transformer; it grows linearly with depth. Outlookers have none.
        post_layers: Types of the blocks of class attention; None for none, and no class token.
        use_aux_head: Whether there is the patches' classifier.
        use_mix_token: Whether `forward_train` mixes pairs of images.
        pooling_scale: What the stages downsample by, all in all.

    Raises:
        ValueError: An option has an unknown value, or the stages do not fit each other.
    """

    tap_layout: ClassVar[str] = "NHWC"
    default_out_indices: ClassVar[Indices] = 3
    tap_norm: ClassVar[str] = "last"
    pools: ClassVar[tuple[str, ...]] = ("", "avg", "token")
    beta: ClassVar[float] = 1.0  # of the distribution of what `forward_train` mixes
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}
    cls_token: Any  # None where the head was cut, as
    post_network: Any
    aux_head: Any

    def __init__(
        self, layers: Sequence[int], img_size: int | tuple[int, int] = 224, in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "token", patch_size: int = 8, stem_hidden_dim: int = 64,
        embed_dims: Sequence[int] | None = None, num_heads: Sequence[int] | None = None,
        downsamples: Sequence[bool] = (True, False, False, False),
        outlook_attention: Sequence[bool] = (True, False, False, False), mlp_ratio: float | Sequence[float] = 3.0,
        qkv_bias: bool = False, drop_rate: float = 0.0, pos_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, norm_layer: NormLayer = nn.LayerNorm,
        post_layers: Sequence[str] | None = ("ca", "ca"), use_aux_head: bool = True, use_mix_token: bool = False,
        pooling_scale: int = 2,
    ) -> None:
        super().__init__()
        depth, ratios = len(layers), to_ntuple(len(layers))(mlp_ratio)
        if embed_dims is None or num_heads is None or depth > min(
                len(each) for each in (embed_dims, num_heads, downsamples, outlook_attention, ratios)):
            raise ValueError("embed_dims, num_heads, downsamples, outlook_attention and mlp_ratio have a value for "
                             f"each of the {depth} stages")
        if any(embed_dims[i] != embed_dims[i + 1] and not downsamples[i] for i in range(depth - 1)):
            raise ValueError(f"channels {tuple(embed_dims)} change only where downsamples does: {tuple(downsamples)}")
        if use_mix_token and global_pool != "token":
            raise ValueError(f"use_mix_token needs global_pool 'token', not {global_pool!r}")
        self.num_classes, self.in_chans, self.img_size = num_classes, in_chans, to_2tuple(img_size)
        self.mix_token, self.pooling_scale, self.use_aux_head = use_mix_token, pooling_scale, use_aux_head
        self.num_features = self.head_hidden_size = dim = embed_dims[-1]
        norm: Any = get_norm_layer(norm_layer)
        common = dict(qkv_bias=qkv_bias, attn_drop=attn_drop_rate, norm_layer=norm)
        self.patch_embed = PatchEmbed(self.img_size, True, 2, patch_size, in_chans, stem_hidden_dim, embed_dims[0])
        rows, columns = (side // patch_size // pooling_scale for side in self.img_size)
        self.pos_embed: Any = nn.Parameter(torch.empty(1, rows, columns, dim))
        self.cls_token = None if post_layers is None else nn.Parameter(torch.empty(1, 1, dim))
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.network = nn.ModuleList()
        self.flow = Flow(stem=[Step("patch_embed"), Step("to_channels_last")], stages=[],
                         tail=[Step("attend_to_class"), Step("norm")])
        for i, (chs, heads, ratio) in enumerate(zip(embed_dims, num_heads, ratios[:depth])):
            make: Callable[..., nn.Sequential] = partial(outlooker_blocks, Outlooker) if outlook_attention[i] else \
                partial(transformer_blocks, Transformer, drop_path_rate=drop_path_rate)
            self._append(make(i, chs, layers, heads, mlp_ratio=ratio, **common), chs, patch_size)
            if downsamples[i]:
                self._append(Downsample(chs, embed_dims[i + 1]))
                patch_size *= 2
        self.post_network = None if post_layers is None else nn.ModuleList(
            get_block(kind, dim=dim, num_heads=num_heads[-1], mlp_ratio=ratios[-1], **common) for kind in post_layers)
        self.aux_head = self.make_classifier(num_classes) if use_aux_head else None
        self.norm = norm(dim)
        self.check_pool(global_pool)
        self.global_pool = global_pool
        self.head_drop, self.head = nn.Dropout(drop_rate), self.make_classifier(num_classes)
        self.init_weights()

    def _append(self, module: nn.Module, chs: int | None = None, reduction: int | None = None) -> None:
        """Add an item of `network` to it and to the flow; positions come before the third."""
        if len(self.network) == 2:
            self.flow.stages.append(Step("add_positions"))
        self.flow.stages.append(Step(f"network.{len(self.network)}", chs, reduction))
        self.network.append(module)

    def to_channels_last(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)

    def add_positions(self, x: Tensor) -> Tensor:
        return self.pos_drop(_add_positions(x, self.pos_embed))

    def attend_to_class(self, x: Tensor) -> Tensor:
        """A map (B, H, W, C) as tokens, behind a class token, where there is one, that has read them."""
        x = x.flatten(1, 2)
        if self.post_network is None:
            return x
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return run_blocks(self.post_network, x, recompute=self.grad_checkpointing)

    def norm_tap(self, x: Tensor, index: int) -> Tensor:
        """The norm fits the taps behind the positions."""
        return x if index == 0 else self.norm(x)

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        norm = self.norm
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if max(taken) == 0:
            self.pos_embed = None
        elif not prune_norm:  # which timm leaves where it fits, though the stages that it was made for are gone
            self.norm = norm
            self.flow.tail = [Step("attend_to_class"), Step("norm")]
        return taken

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled, x = self.head_drop(self.pool(x)), self.head_drop(x)
        if pre_logits:
            return pooled
        logits = self.head(pooled)
        if self.global_pool and self._has_aux_head:
            logits = logits + 0.5 * self.aux_head(x[:, 1:]).amax(dim=1)
        return logits

    @property
    def _has_aux_head(self) -> bool:
        return self.aux_head is not None and self.num_classes > 0

    def forward_train(self, x: Tensor) -> Any:
        """What token labeling learns from; by timm's ways the class token's features, not its logits.

        Returns:
            In training (features (B, C), logits of the patches (B, N, num_classes), box); with `use_mix_token`, patches
            within the box, `rand_bbox`'s, are another image's of the batch, and the box is empty without. The features
            alone where there is no patches' classifier; in eval mode the logits, as `forward`'s.
        """
        if not self.training and self._has_aux_head:
            return self.forward(x)
        box = (0, 0, 0, 0)
        x = self.to_channels_last(self.patch_embed(x))
        rows, columns = (side // self.pooling_scale for side in x.shape[1:3])
        if self.mix_token and self.training:
            lam = torch.distributions.Beta(self.beta, self.beta).sample()
            box = rand_bbox(x.shape, lam, self.pooling_scale)
            x = _swap(x, [self.pooling_scale * side for side in box])
        for step in self.flow.stages + self.flow.tail:
            x = self.run_step(step, x, {}, self.grad_checkpointing and step in self.flow.stages)
        if not self._has_aux_head:
            return self.pool(x)
        aux = self.aux_head(x[:, 1:])
        if self.mix_token:
            aux = _swap(aux.unflatten(1, (rows, columns)), box).flatten(1, 2)
        return self.pool(x), aux, box

    @property
    def classifier_paths(self) -> tuple[str, ...]:
        return ("head", "aux_head") if self.use_aux_head else ("head",)

    def set_global_pool(self, pool_type: str) -> None:
        if pool_type == "token" and self.cls_token is None:
            raise ValueError("global_pool 'token' needs a class token, which this model does not have")
        super().set_global_pool(pool_type)

    def cut_head(self) -> None:
        super().cut_head()
        self.cls_token = self.post_network = self.aux_head = None
        self.use_aux_head = False
        self.global_pool = self.global_pool and "avg"

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(
            stem=r"^cls_token|pos_embed|patch_embed",
            blocks=[(r"^network\.(\d+)\.(\d+)", None), (r"^network\.(\d+)", (0,))],
            blocks2=[(r"^cls_token", (0,)), (r"^post_network\.(\d+)", None), (r"^norm", (99999,))])

    def reset_parameters(self) -> None:
        for parameter in (self.pos_embed, self.cls_token):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Without what this model was built without; positions are resampled, as the authors do, for other sizes."""
        absent = tuple(name for name in ("aux_head", "cls_token", "post_network") if getattr(self, name) is None)
        fitted = {key: value for key, value in state_dict.items() if not key.startswith(absent)}
        grid = fitted.get("pos_embed")
        if grid is not None and self.pos_embed is not None and grid.shape[1:3] != self.pos_embed.shape[1:3]:
            fitted["pos_embed"] = resample_grid(grid, list(self.pos_embed.shape[1:3]), antialias=False)
        return fitted


def _swap(x: Tensor, box: Sequence[int]) -> Tensor:
    """Maps (B, H, W, C) of which a box (first row and column, their ends) is that of the batch in reverse order."""
    top, left, bottom, right = box
    mixed = x.clone()
    mixed[:, top:bottom, left:right] = x.flip(0)[:, top:bottom, left:right]
    return mixed


_D1 = dict(layers=(4, 4, 8, 2), embed_dims=(192, 384, 384, 384), num_heads=(6, 12, 12, 12))
_D2 = dict(layers=(6, 4, 10, 4), embed_dims=(256, 512, 512, 512), num_heads=(8, 16, 16, 16))
_D3 = dict(_D2, layers=(8, 8, 16, 4))
_D4 = dict(_D3, embed_dims=(384, 768, 768, 768), num_heads=(12, 16, 16, 16))
_D5 = dict(_D4, layers=(12, 12, 20, 4), mlp_ratio=4.0, stem_hidden_dim=128)

register_model.variants(__name__, VOLO, {
    f"volo_{name}_{side}": row if side == 224 else (row, dict(img_size=side))
    for name, row, *sides in (("d1", _D1, 384), ("d2", _D2, 384), ("d3", _D3, 448), ("d4", _D4, 448),
                              ("d5", _D5, 448, 512))
    for side in (224, *sides)
})
