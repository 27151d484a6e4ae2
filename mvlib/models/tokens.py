"""What transformers of one resolution share: tokens beside the patches, positions, pooling, other sizes.

A family's constructor calls `add_tokens` with its patch embedding, makes its `blocks`, and calls `add_head`. What its
blocks take besides tokens (rotary tables, a bias for pairs of positions) it names in `shared` and returns from `share`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.drop import PatchDropout
from ..layers.helpers import computed, to_2tuple
from ..layers.patch_embed import resample_patch_embed
from ..layers.pool import global_pool_nlc
from ..layers.pos_embed import resample_abs_pos_embed
from ..layers.rel_pos import RelPosMlp, RelPosTable
from ..layers.weight_init import init_vit_module, scale_output
from .base import Flow, ImageModel, Indices, StateDict, Step

__all__ = ["SIZES", "MaskedTokenModel", "SequenceModel", "TokenModel", "masks_given", "sized_by_name"]

torch.fx.wrap("resample_abs_pos_embed")  # one node in a traced graph: what it does depends on the image's size

SIZES = {name: dict(embed_dim=dim, depth=depth, num_heads=heads) for name, dim, depth, heads in (
    ("tiny", 192, 12, 3), ("small", 384, 12, 6), ("medium", 512, 12, 8), ("betwixt", 640, 12, 10),
    ("base", 768, 12, 12), ("large", 1024, 24, 16), ("huge", 1280, 32, 16))}
_WITH_WEIGHTS = ("map", "prr")  # pooling by a module, which is there from the beginning or not at all


class SequenceModel(ImageModel):
    """Base class of transformers that keep a sequence of tokens of one width from the patches to the head.

    A family sets `embed_dim`, `num_prefix_tokens`, `has_class_token`, makes its `blocks`, and calls `add_head`. A block
    whose norms have an initial weight of their own says it in its attribute `norm_weight`.

    Arguments of these names mean the same in all families: `img_size`, side, or (height, width), in pixels, that
    positions are made for; `patch_size`, side, or (height, width), of a patch; `global_pool`, "token" (the class
    token), "avg", "max", "avgmax" (over patches), "map" (attention from a learned query) or "" for none, as far as
    `pools` has them; `embed_dim`, `depth`, `num_heads`, channels of a token, blocks, attention heads; `mlp_ratio`,
    hidden channels of the feed-forward blocks per channel; `class_token`, whether there is one; `no_embed_class`,
    prefix tokens have no position embedding; `fix_init` and `weight_init`, as below; `init_values`, initial layer
    scale, none where None; `pos_drop_rate`, `patch_drop_rate`, `proj_drop_rate`, `attn_drop_rate`, dropout after the
    position embedding, of whole patches, and in the blocks; `dynamic_img_size`, take images of any size that patches
    divide, positions are resampled, and `dynamic_img_pad`, pad images to a multiple of the patch size;
    `head_init_scale`, factor on the classifier's initial weights.

    Class attributes:
        fc_norm_name: The constructor's argument that says whether the final norm stands behind the pooling; "" where it
            never does.
        weight_init_mode: Initial weights, see `init_vit_module`.
        fix_init: Whether the blocks' output projections are scaled down with depth (BEiT).
        shared: Names of the values that the blocks take besides tokens; with `one_each`, each block its own of them.
        options: Names of what they take besides, as keyword arguments, where a caller gave it.
        pool_include_prefix: Whether prefix tokens are pooled too.
    """

    tap_layout: ClassVar[str] = "NLC"
    default_out_indices: ClassVar[Indices] = 3
    tap_norm: ClassVar[str] = "all"
    hidden_paths: ClassVar[tuple[str, ...]] = ("fc_norm",)
    pools: ClassVar[tuple[str, ...]] = ("", "avg", "avgmax", "max", "token")
    fc_norm_name: ClassVar[str] = "fc_norm"
    fix_init: bool = False
    head_init_scale: float = 0.0  # none
    shared: tuple[str, ...] = ()
    one_each: bool = False
    options: tuple[str, ...] = ()
    pool_include_prefix: bool = False
    has_class_token: bool
    embed_dim: int
    norm_pre: nn.Module
    blocks: nn.Sequential | nn.ModuleList

    # what a constructor calls

    def add_head(  # type: ignore[override]  # one of tokens
        self, norm: Callable[[int], nn.Module], num_classes: int, global_pool: str, fc_norm: bool | None = None,
        final_norm: bool = True, attn_pool: nn.Module | None = None, drop_rate: float = 0.0,
    ) -> None:
        """Make what follows the blocks, and the flow.

        Args:
            norm: Makes the final norm.
            fc_norm: Whether the final norm stands behind the pooling; by default where patches are pooled by mean or
                maximum.
            final_norm: Whether there is a final norm.
            attn_pool: What pools where `global_pool` is "map" or "prr": (B, N, embed_dim) -> (B, embed_dim).

        Raises:
            ValueError: The pooling is unknown, or needs a class token that is not there.
        """
        self.check_pool(global_pool)
        self.num_classes, self.global_pool = num_classes, global_pool
        is_behind = global_pool in ("avg", "avgmax", "max") if fc_norm is None else fc_norm
        self.norm = norm(self.embed_dim) if final_norm and not is_behind else nn.Identity()
        self.attn_pool = attn_pool
        self.fc_norm = norm(self.embed_dim) if final_norm and is_behind else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.head = self.make_classifier(num_classes)
        stem, stride = self.stem()
        self.flow = Flow(stem, tail=[Step("norm")], stages=[
            Step(f"blocks.{i}", self.embed_dim, stride, options=self.options,
                 takes=self.shared[i:i + 1] if self.one_each else self.shared) for i in range(len(self.blocks))])

    def stem(self) -> tuple[list[Step], int]:
        """What makes tokens of an image, and its stride."""
        raise NotImplementedError

    # head

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """Tokens (B, N, embed_dim) -> (B, embed_dim); unchanged where there is no pooling."""
        pool_type = self.global_pool if pool_type is None else pool_type
        if self.attn_pool is not None:
            return self.attn_pool(x if self.pool_include_prefix else x[:, self.num_prefix_tokens:])
        return global_pool_nlc(x, pool_type, self.num_prefix_tokens, self.pool_include_prefix)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.fc_norm(self.pool(x)))
        return x if pre_logits else self.head(x)

    def check_pool(self, pool_type: str) -> None:
        super().check_pool(pool_type)
        if pool_type == "token" and not self.has_class_token:
            raise ValueError("global_pool 'token' needs a class token, which this model does not have")

    def set_global_pool(self, pool_type: str) -> None:
        self.check_pool(pool_type)
        if pool_type in _WITH_WEIGHTS and pool_type != self.global_pool:
            raise ValueError(f"attention pooling has weights: build the model with global_pool={pool_type!r}")
        if pool_type not in _WITH_WEIGHTS:
            self.attn_pool = None
        self.global_pool = pool_type
        if self.fc_norm_name:  # where the norm stands followed from the pooling that the model began with
            self.note_arguments(**{self.fc_norm_name: not isinstance(self.fc_norm, nn.Identity)})

    # weights

    def init_weights(self, mode: str = "", needs_reset: bool = True) -> None:
        """As every model's; `mode` is another scheme for this once, see `init_vit_module`."""
        self._init_as(mode, needs_reset)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        init_vit_module(name, module, self.weight_init_mode, self.num_classes)
        if self.fix_init:
            scale_output(name, module)
        norm = re.fullmatch(r"blocks\.(\d+)\.norm[12]", name)
        weight = getattr(self.blocks[int(norm[1])], "norm_weight", None) if norm else None
        if weight is not None:
            nn.init.constant_(module.weight, weight)  # type: ignore[arg-type]
        if name == "head" and self.head_init_scale and isinstance(module, nn.Linear):
            module.weight.mul_(self.head_init_scale)

    def fix_init_weight(self) -> None:
        """Scale the blocks' output projections down with depth (BEiT)."""
        with torch.no_grad():
            for name, module in self.named_modules():
                scale_output(name, module)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Weights of a model that is pooled otherwise as this one's."""
        fitted = {key: value for key, value in state_dict.items()
                  if self.attn_pool is not None or not key.startswith("attn_pool.")}
        if not isinstance(self.fc_norm, nn.Identity) and "fc_norm.weight" not in fitted:
            # Their norm goes where ours stands, behind the pooling.
            for key in [key for key in fitted if key.startswith("norm.")]:
                fitted[f"fc_{key}"] = fitted.pop(key)
        return fitted


class TokenModel(SequenceModel):
    """Base class of transformers whose tokens keep one resolution and one width from the patches to the head.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features are (B, prefix tokens + patches, embed_dim).

    Class attributes:
        has_dist_token: Whether a token for distillation follows the class token.
        token_std: Standard deviation of initial class and register tokens.
        dynamic_img_size: Whether images of any size are taken; position embeddings are resampled.
        resampling: How weights of another size are resampled, as `fit_sizes` takes it.
    """

    has_dist_token: ClassVar[bool] = False
    token_std: ClassVar[float] = 1e-6
    dynamic_img_size: bool = False
    resampling: Mapping[str, Any] = {"interpolation": "bicubic", "antialias": True}
    patch_embed: Any  # a `PatchEmbed`, or what has its attributes and methods

    # what a constructor calls

    def add_tokens(
        self, patch_embed: nn.Module, embed_dim: int, class_token: bool = True, reg_tokens: int = 0,
        positions: bool = True, no_embed_class: bool = False, pos_drop_rate: float = 0.0, patch_drop_rate: float = 0.0,
    ) -> None:
        """Make what turns patches into tokens.

        Args:
            patch_embed: Image (B, in_chans, H, W) -> patches (B, N, embed_dim), or (B, rows, columns, embed_dim) with
                `dynamic_img_size`.
            reg_tokens: Number of register tokens.
            positions: Whether there is a learned position embedding.
            others: As of the models.
        """
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.has_class_token, self.num_reg_tokens, self.no_embed_class = class_token, reg_tokens, no_embed_class
        self.num_prefix_tokens = int(class_token) + int(self.has_dist_token) + reg_tokens
        self.patch_embed = patch_embed
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.empty(1, reg_tokens, embed_dim)) if reg_tokens else None
        count = self.patch_embed.num_patches + self._prefix_positions
        self.pos_embed = nn.Parameter(torch.empty(1, count, embed_dim)) if positions else None
        self.dist_token = nn.Parameter(torch.empty(1, 1, embed_dim)) if self.has_dist_token else None
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.patch_drop = PatchDropout(patch_drop_rate, self.num_prefix_tokens) if patch_drop_rate else nn.Identity()
        self.norm_pre = nn.Identity()

    # tokens

    def stem(self) -> tuple[list[Step], int]:
        embed: Any = self.patch_embed  # a user's may say nothing of its stride
        stride = embed.feat_ratio() if hasattr(embed, "feat_ratio") else to_2tuple(embed.patch_size)[0]
        sharing = [Step("share", gives=self.shared)] if self.shared else []
        return [Step("patch_embed"), *sharing, Step("_pos_embed"), Step("patch_drop"), Step("norm_pre")], stride

    @computed
    def img_size(self) -> tuple[int, int] | None:
        size: tuple[int, int] | None = self.patch_embed.img_size
        return size

    @property
    def _prefix_positions(self) -> int:
        """Entries of the position embedding that belong to no patch."""
        return 0 if self.no_embed_class else self.num_prefix_tokens

    def prefix_tokens(self) -> list[Tensor]:
        """The learned tokens that stand before the patches, each (1, n, embed_dim)."""
        return [token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None]

    def share(self, x: Tensor) -> tuple[Any, ...]:
        """Patches as they come from their embedding -> the same, and a value for each name in `shared`."""
        raise NotImplementedError(f"{type(self).__name__} has blocks that share {self.shared}, and no `share`")

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Patches (B, N, C), or (B, rows, columns, C) for images of any size -> tokens with prefix and position."""
        pos_embed: Tensor | None = self.pos_embed
        if self.dynamic_img_size:
            if pos_embed is not None:
                pos_embed = self.resample_positions(pos_embed, x.shape[1:3], list(self.patch_embed.grid_size))
            x = x.flatten(1, 2)
        prefix = [token.expand(x.shape[0], -1, -1) for token in self.prefix_tokens()]
        if pos_embed is not None and self.no_embed_class:
            x = x + pos_embed
        if prefix:
            x = torch.cat((*prefix, x), dim=1)
        if pos_embed is not None and not self.no_embed_class:
            x = x + pos_embed
        return self.pos_drop(x)

    def resample_positions(self, pos_embed: Tensor, new: Any, old: Any, **kwargs: Any) -> Tensor:
        """The position embedding for the grid `new` (rows, columns); `kwargs` as `resample_abs_pos_embed` has them."""
        return resample_abs_pos_embed(pos_embed, new, old, num_prefix_tokens=self._prefix_positions, **kwargs)

    # sizes and weights

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, patch_size: int | tuple[int, int] | None = None
    ) -> None:
        """Change image and patch size, in place; positions, biases for offsets and patch weights are resampled."""
        old = self.patch_embed.grid_size
        self.patch_embed.set_input_size(img_size, patch_size)
        if self.pos_embed is not None and self.patch_embed.grid_size != old:
            with torch.no_grad():
                resized = self.resample_positions(self.pos_embed, self.patch_embed.grid_size, old)
            self.pos_embed = nn.Parameter(resized, self.pos_embed.requires_grad)
        for module in self.modules():
            if isinstance(module, (RelPosMlp, RelPosTable)):
                module.set_window_size(self.patch_embed.grid_size)
        self.note_arguments(img_size=self.img_size, **({"patch_size": to_2tuple(patch_size)} if patch_size else {}))

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token", "reg_token", "dist_token"}

    def reset_parameters(self) -> None:
        """Initialise the tokens and the position embedding."""
        for embedding in (self.pos_embed, self.dist_token):
            if embedding is not None:
                nn.init.trunc_normal_(embedding, std=0.02)
        for token in (self.cls_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=self.token_std)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Weights of a model that is pooled otherwise, or has other sizes, as this one's."""
        fitted = self.fit_sizes(super().fit_state_dict(state_dict), **self.resampling)
        tables = {f"{path}.relative_position_bias_table": module for path, module in self.named_modules()
                  if isinstance(module, RelPosTable)}
        return {key: tables[key].fit_table(value) if key in tables else value for key, value in fitted.items()
                if not (tables and key.endswith("relative_position_index"))}  # which we compute

    def fit_sizes(
        self, state_dict: StateDict, interpolation: str, antialias: bool, align_corners: bool | None = None
    ) -> StateDict:
        """Resample patch weights and position embedding to this model's sizes.

        The source's grid is what the weights config says of the image, where that accounts for all tokens, and else a
        square. A position embedding that stands as a grid, (1, rows, columns, C), was fitted by a key map.
        """
        fitted = dict(state_dict)
        weight, pos_embed = fitted.get("patch_embed.proj.weight"), fitted.get("pos_embed")
        patch = source_patch = self.patch_embed.patch_size
        if weight is not None:
            if weight.ndim < 4:  # a linear layer over flattened patches
                weight = weight.reshape(weight.shape[0], -1, *patch)
            source_patch = tuple(weight.shape[-2:])
            fitted["patch_embed.proj.weight"] = resample_patch_embed(weight, patch, interpolation, antialias)
        if pos_embed is None or self.pos_embed is None:
            return fitted
        if pos_embed.ndim == 4:
            fitted["pos_embed"] = pos_embed.flatten(1, 2)
            return fitted
        old = self._source_grid(pos_embed.shape[1] - self._prefix_positions, source_patch)
        if old is not None and old != self.patch_embed.grid_size:
            fitted["pos_embed"] = self.resample_positions(
                pos_embed, self.patch_embed.grid_size, old, interpolation=interpolation, antialias=antialias,
                align_corners=align_corners)
        return fitted

    def _source_grid(self, count: int, patch_size: tuple[int, int]) -> tuple[int, int] | None:
        """Rows and columns of a checkpoint's `count` patches; None where they fit as they are, or nothing fits."""
        config = getattr(self, "weights_config", None)
        if config is not None:
            grid = tuple(s // p for s, p in zip(config.input_size[1:], patch_size))
            if math.prod(grid) == count:
                return grid
        side = math.isqrt(count)
        return (side, side) if side * side == count != self.patch_embed.num_patches else None


def masks_given(attn_mask: Tensor | None, is_causal: bool) -> dict[str, Any]:
    """Arguments for a block, or an attention, that need not know them where there is no mask."""
    return dict(attn_mask=attn_mask, is_causal=is_causal) if attn_mask is not None or is_causal else {}


class MaskedTokenModel(TokenModel):
    """A `TokenModel` whose callers may say which tokens see which."""

    options = ("attn_mask", "is_causal")

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Image (B, in_chans, H, W) -> logits (B, num_classes), or features where `num_classes` is 0.

        Args:
            attn_mask: Who sees whom of all tokens, the prefix among them, in every block: as `Attention` takes it.
            is_causal: Each token sees itself and those before it.
        """
        return self.forward_head(self.forward_features(x, **masks_given(attn_mask, is_causal)))

    def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        features: Tensor = self.run_flow(x, **masks_given(attn_mask, is_causal))
        return features

    def forward_intermediates(  # type: ignore[override]  # timm's order, with prefix tokens first
        self, x: Tensor, indices: Indices = None, return_prefix_tokens: bool = False, norm: bool = False,
        stop_early: bool = False, output_fmt: str = "NCHW", intermediates_only: bool = False, output_dict: bool = False,
        attn_mask: Tensor | None = None, is_causal: bool = False,
    ) -> Any:
        """As every model's; masks as `forward` takes them."""
        return self.run_to_taps(
            x, indices, norm, stop_early, output_fmt, intermediates_only, return_prefix_tokens, output_dict,
            **masks_given(attn_mask, is_causal))


def sized_by_name(table: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of architectures that share presets, {"a name and another": presets}, each with what its name says.

    A word of `SIZES` is that size, "patch14" the `patch_size`, a number at the end the `img_size`; 16 and 224, the
    defaults of all, are left out. Presets have the last word.
    """
    rows: dict[str, Any] = {}
    for names, presets in table.items():
        for name in names.split():
            numbers = {"patch_size": re.search(r"_patch(\d+)", name), "img_size": re.search(r"_(\d+)$", name)}
            said = {key: int(found[1]) for key, found in numbers.items() if found and found[1] not in ("16", "224")}
            size = next((SIZES[word] for word in name.split("_") if word in SIZES), {})
            rows[name] = ({**size, **said}, *(presets if isinstance(presets, tuple) else (presets,)))
    return rows
