"""The vision encoder of Qwen's multimodal models (Qwen3-VL, Qwen3.5, Qwen3.8, Qwen-Drive), and classifiers over it.

Papers:
    "Qwen3-VL Technical Report", 2025, arXiv:2511.21631.
    "Qwen-Drive-1.0: An Initial Step towards a Vision-Language Foundation Model for Autonomous Driving", 2026,
    arXiv:2609.00111.

A vision transformer with two positions for each patch: a learned one, of a grid that is resampled to the image's, and a
rotary one. Behind the blocks is no norm, but the merger, which makes one token of the language model of 2 x 2 patches.
As in timm, a patch is of one frame, not of two, and Qwen3-VL's mergers of intermediate features are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer
from ..layers.drop import drop_path_rates
from ..layers.helpers import placeable
from ..layers.norm import LayerNorm
from ..layers.patch_embed import PatchEmbed
from ..layers.pos_embed import resample_grid
from ..layers.rope import RotaryEmbeddingCat
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Inits, KeyMap, StateDict, Step, rename_keys
from .eva_blocks import EvaBlock

if TYPE_CHECKING:
    from ._variants.qwen3_vit import *

__all__ = ["Qwen3VitClassifier", "Qwen3VitEncoder"]

Size = tuple[int, int]

torch.fx.wrap("resample_pos_embed_grid")  # one node in a traced graph each: what they do depends on the image's size
torch.fx.wrap("_blocks_of")


def resample_pos_embed_grid(pos_embed: Tensor, grid_size: int, new_size: Size) -> Tensor:
    """Learned positions of a square grid, (1, grid_size ** 2, C), for another: (1, rows * columns, C)."""
    rows, columns = new_size
    if rows == grid_size and columns == grid_size:
        return pos_embed
    grid = pos_embed.unflatten(1, (grid_size, grid_size))
    return resample_grid(grid, [rows, columns], "bilinear", antialias=False, align_corners=True).flatten(1, 2)


def _blocks_of(x: Tensor, side: int) -> Tensor:
    """A map (B, H, W, C) as its blocks of side x side, row by row: (B, H / side * W / side, side * side * C).

    Raises:
        ValueError: They do not divide the map.
    """
    rows, columns = x.shape[1:3]
    if rows % side or columns % side:
        raise ValueError(f"the input gives {rows} x {columns} patches, which blocks of {side} x {side} do not divide; "
                         f"resize the images")
    return x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3).flatten(3).flatten(1, 2)


class Qwen3VitPatchMerger(nn.Module):
    """Blocks of patches to tokens of a language model. Shapes: (B, H, W, dim) -> (B, H / k * W / k, out_features).

    Args:
        merge_size: Side k of a block.
        out_features: Channels of a token; 0 for the k * k * dim of the hidden layer.
        norm_layer: Norm of each patch; act_layer: activation of the hidden layer.

    Raises:
        ValueError: From `forward`, blocks do not divide the map.
    """

    @placeable
    def __init__(
        self, dim: int, merge_size: int = 2, out_features: int = 0, norm_layer: Callable[[int], nn.Module] = LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        self.merge_size, self.hidden_size = merge_size, dim * merge_size**2
        self.out_features = out_features or self.hidden_size
        self.norm = norm_layer(dim)
        self.fc1 = nn.Linear(self.hidden_size, self.hidden_size)
        self.act = act_layer()
        self.fc2 = nn.Linear(self.hidden_size, out_features) if out_features else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """`pre_logits`: the hidden layer instead."""
        x = self.act(self.fc1(_blocks_of(self.norm(x), self.merge_size)))
        return x if pre_logits else self.fc2(x)


class _Tower(ImageModel):
    """What encoder and classifier share. Final features are a map (B, H, W, embed_dim), or the merger's tokens."""

    tap_layout: ClassVar[str] = "NLC"
    default_out_indices: ClassVar[Indices] = 3
    tap_norm: ClassVar[str] = "all"  # there is none, and what follows the blocks fits each of them
    resamples_positions = True  # in each pass
    num_prefix_tokens = 0

    def follow(self, path: str, depth: int, embed_dim: int, stride: int, neck: list[Step]) -> None:
        """Make the flow, whose modules are at `path` ("encoder.", or nothing)."""
        self.flow = Flow(
            stem=[Step(f"{path}patch_embed"), Step(f"{path}_pos_embed", gives=("rope", "grid"))],
            stages=[Step(f"{path}blocks.{i}", embed_dim, stride, takes=("rope",)) for i in range(depth)],
            tail=[Step("_to_map", takes=("grid",))],
            neck=neck)

    def _to_map(self, x: Tensor, grid: Size) -> Tensor:
        return x.unflatten(1, grid)

    def norm_tap(self, x: Tensor, index: int) -> Tensor:
        return x

    def forward_intermediates(  # type: ignore[override]  # timm's order, with prefix tokens first
        self,
        x: Tensor,
        indices: Indices = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> Any:
        """As every model's; `norm` and `return_prefix_tokens` are without effect."""
        return self.run_to_taps(
            x, indices, norm, stop_early, output_fmt, intermediates_only, return_prefix_tokens, output_dict)


class Qwen3VitEncoder(_Tower):
    """The encoder, which classifies nothing.

    Shapes: (B, in_chans, H, W) -> (B, H / 32 * W / 32, out_features), or as `global_pool` has it; features are
    (B, H / 16, W / 16, embed_dim). Images have any size whose patches the merger's blocks divide.

    Args:
        img_size: Side, or (height, width), of usual images; without effect.
        patch_size: Side of a patch.
        out_features: Channels of the merger's tokens; 0 for those of its hidden layer.
        global_pool: "merge" (the merger), "avg" (one vector (B, embed_dim) of all patches), or "" for the features.
        embed_dim, depth, num_heads, mlp_ratio: Of the blocks.
        merge_size: Side of the merger's blocks.
        pos_embed_grid_size: Side of the grid of learned positions.
        rope_temperature: Of the rotary embedding.
        norm_eps: Of all norms.
        act_layer: Activation of the blocks; GELU by its tanh approximation unless given.
        proj_drop_rate, attn_drop_rate: Dropout in the blocks.
        num_classes, drop_rate: Without effect, as in timm.

    Raises:
        ValueError: The pooling is unknown; the heads do not divide the channels; from `forward`, the merger's blocks do
            not divide the patches.
    """

    classifier_path: ClassVar[tuple[str, ...]] = ()
    output_fmt: ClassVar[str] = "NHWC"  # timm's name of the layout of features
    pools: ClassVar[tuple[str, ...]] = ("", "avg", "merge")
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}

    def __init__(
        self, img_size: int | Size = 768, patch_size: int = 16, in_chans: int = 3, out_features: int = 0,
        global_pool: str = "merge", embed_dim: int = 1152, depth: int = 27, num_heads: int = 16,
        mlp_ratio: float = 4304 / 1152, merge_size: int = 2, pos_embed_grid_size: int = 48,
        rope_temperature: float = 10000.0, norm_eps: float = 1e-6, act_layer: ActLayer = None,
        proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0, *, num_classes: int = 0,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.check_pool(global_pool)
        norm = partial(LayerNorm, eps=norm_eps)
        self.in_chans, self.num_classes, self.global_pool = in_chans, 0, global_pool
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.out_features, self.merge_size, self.pos_embed_grid_size = out_features, merge_size, pos_embed_grid_size
        self.patch_embed = PatchEmbed(
            img_size, patch_size, in_chans, embed_dim, strict_img_size=False, output_fmt="NHWC")
        self.pos_embed = nn.Parameter(torch.empty(1, pos_embed_grid_size**2, embed_dim))
        self.rope = RotaryEmbeddingCat(
            embed_dim // num_heads, temperature=rope_temperature, in_pixels=False, rotate_half=True)
        self.blocks = nn.ModuleList(
            EvaBlock(embed_dim, num_heads, mlp_ratio=mlp_ratio, num_prefix_tokens=0, attn_type="rope", rotate_half=True,
                     proj_drop=proj_drop_rate, attn_drop=attn_drop_rate, drop_path=rate,
                     act_layer=act_layer or "gelu_tanh", norm_layer=norm)
            for rate in drop_path_rates(drop_path_rate, depth))
        self.merger: Any = None
        if global_pool == "merge":
            self.merger = Qwen3VitPatchMerger(embed_dim, merge_size, out_features, norm)
            self.head_hidden_size = self.merger.out_features
        self.follow("", depth, embed_dim, patch_size, [])
        self.init_weights()

    def _pos_embed(self, x: Tensor) -> tuple[Tensor, Tensor, Size]:
        """Patches (B, rows, columns, C) -> tokens (B, N, C), rotary embedding (N, 2 * channels), (rows, columns)."""
        grid = x.shape[1], x.shape[2]
        positions = resample_pos_embed_grid(self.pos_embed, self.pos_embed_grid_size, grid)
        return x.flatten(1, 2) + positions.to(x.dtype), self.rope.get_embed(grid), grid

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features (B, H, W, embed_dim) -> what `global_pool` makes of them; `pre_logits` is without effect."""
        if self.merger is not None:
            return self.merger(x)
        return x.mean(dim=(1, 2)) if self.global_pool == "avg" else x

    def pool(self, x: Tensor) -> Tensor:
        return self.forward_head(x)

    def get_classifier(self, name_only: bool = False) -> Any:
        """There is none."""
        return "" if name_only else nn.Identity()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, reset_other: bool = False) -> None:
        """Change the pooling.

        Raises:
            ValueError: Classes are asked for, or a pooling that is unknown or has weights.
        """
        if num_classes:
            raise ValueError("an encoder classifies nothing: build the model of the same name without '_enc'")
        if global_pool is not None:
            self.set_global_pool(global_pool)

    def set_global_pool(self, pool_type: str) -> None:
        self.check_pool(pool_type)
        if pool_type == "merge" and self.merger is None:
            raise ValueError("the merger has weights: build the model with global_pool='merge'")
        if pool_type != "merge":
            self.merger, self.out_features, self.head_hidden_size = None, 0, self.num_features
        self.global_pool = pool_type

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^patch_embed|pos_embed|rope", blocks=[(r"^blocks\.(\d+)", None), (r"^merger", (99999,))])

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Weights of an encoder with a merger, for one without, or without the merger's last layer."""
        unused = "merger." if self.merger is None else "" if self.out_features else "merger.fc2."
        return {key: value for key, value in state_dict.items() if not (unused and key.startswith(unused))}


class Qwen3VitClassifier(_Tower):
    """A classifier of the mean of the encoder's patches, or of the merger's tokens.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features are the encoder's, or (B, N, out_features) with the
    merger.

    Args:
        global_pool: "avg", or "" for logits of each patch or token.
        encoder_pool: "merge" for the merger's tokens, "" for patches.
        final_norm: A norm, without weights, behind the pooling.
        others: As of `Qwen3VitEncoder`.

    Raises:
        ValueError: As there.
    """

    pruned_pool: ClassVar[str | None] = None
    pools: ClassVar[tuple[str, ...]] = ("", "avg")

    def __init__(
        self, img_size: int | Size = 768, patch_size: int = 16, in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "avg", encoder_pool: str = "", out_features: int = 0, embed_dim: int = 1152, depth: int = 27,
        num_heads: int = 16, mlp_ratio: float = 4304 / 1152, merge_size: int = 2, pos_embed_grid_size: int = 48,
        rope_temperature: float = 10000.0, norm_eps: float = 1e-6, act_layer: ActLayer = None, final_norm: bool = True,
        drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.check_pool(global_pool)
        if encoder_pool not in ("", "merge"):
            raise ValueError(f"unknown encoder_pool {encoder_pool!r}; known: '', 'merge'")
        self.in_chans, self.num_classes, self.embed_dim = in_chans, num_classes, embed_dim
        self.global_pool, self.encoder_pool = global_pool, encoder_pool
        self.encoder = Qwen3VitEncoder(
            img_size, patch_size, in_chans, out_features, encoder_pool, embed_dim, depth, num_heads, mlp_ratio,
            merge_size, pos_embed_grid_size, rope_temperature, norm_eps, act_layer, proj_drop_rate, attn_drop_rate,
            drop_path_rate)
        self.num_features = self.head_hidden_size = self.encoder.head_hidden_size
        self.norm = LayerNorm(self.num_features, norm_eps, affine=False) if final_norm else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.head = self.make_classifier(num_classes)
        self.follow("encoder.", depth, embed_dim, patch_size, [Step("encoder.merger")] if encoder_pool else [])
        self.init_weights()

    @property
    def output_fmt(self) -> str:
        """timm's name of the layout of features."""
        return "NLC" if self.encoder_pool else "NHWC"

    def pool(self, x: Tensor) -> Tensor:
        """Features -> (B, num_features), normed; (B, N, num_features) where there is no pooling."""
        x = x.flatten(1, -2)
        return self.norm(x.mean(dim=1) if self.global_pool == "avg" else x)

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """As every model's; the merger goes with the head."""
        if prune_head:
            self.encoder.set_global_pool("")
            self.encoder_pool, self.flow.neck = "", []
            self.num_features = self.embed_dim
        return super().prune_intermediate_layers(indices, False, prune_head)

    def cut_head(self) -> None:
        self.head_hidden_size = self.num_features
        if isinstance(self.norm, LayerNorm):
            self.norm = LayerNorm(self.num_features, self.norm.eps, affine=False).train(self.training)

    def init_module(self, name: str, module: nn.Module) -> None:
        if not name.startswith("encoder"):
            self.encoder.init_module("head", module)  # there is one scheme
        elif self._began_empty is not None:  # otherwise the encoder has just been made, and initialised
            self.encoder.init_module(name.removeprefix("encoder").removeprefix("."), module)

    @property
    def optional_parts(self) -> tuple[str, ...]:
        return ("head",)  # the published encoders classify nothing

    def no_weight_decay(self) -> set[str]:
        return {"encoder.pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^encoder\.(?:patch_embed|pos_embed|rope)", blocks=[
            (r"^encoder\.blocks\.(\d+)", None), (r"^encoder\.merger|^norm|^head", (99999,))])

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        encoder = self.encoder.fit_state_dict(rename_keys(state_dict, prefix="encoder."))
        own = {key: value for key, value in state_dict.items() if not key.startswith("encoder.")}
        return {**{f"encoder.{key}": value for key, value in encoder.items()}, **own}


# --- the architectures; `out_features` are the channels of the language model that the default weights are of

_88M = dict(embed_dim=768, depth=12, num_heads=12, mlp_ratio=4.0, out_features=1024)
_306M = dict(embed_dim=1024, depth=24, num_heads=16, mlp_ratio=4.0, out_features=2048)
_416M = dict(out_features=5120)
_MERGE = dict(encoder_pool="merge")

register_model.variants(__name__, Qwen3VitClassifier, {
    "qwen3_vit_88m": _88M,
    "qwen3_vit_88m_merge": (_88M, _MERGE),
    "qwen3_vit_306m": _306M,
    "qwen3_vit_306m_merge": (_306M, _MERGE),
    "qwen3_vit_416m": _416M,
    "qwen3_vit_416m_merge": (_416M, _MERGE),
})
register_model.variants(__name__, Qwen3VitEncoder, {
    "qwen3_vit_88m_enc": _88M,
    "qwen3_vit_306m_enc": _306M,
    "qwen3_vit_416m_enc": _416M,
})


# --- foreign checkpoints

_PREFIXES = ("vlm.model.visual.", "model.visual.", "visual.", "encoder.")
_PARTS = ("patch_embed.", "pos_embed", "blocks.", "merger.")


def _encoder_keys(state_dict: StateDict) -> StateDict:
    """An encoder's weights, of a whole multimodal model, of a classifier, or alone, in Qwen's names or ours."""
    prefix = next((p for p in _PREFIXES if any(key.startswith(p) for key in state_dict)), "")
    out = rename_keys(state_dict, (r"\blinear_fc", "fc"), (r"^pos_embed\.weight$", "pos_embed"), prefix=prefix)
    out = {key: value for key, value in out.items() if key.startswith(_PARTS)}
    weight, positions = out.get("patch_embed.proj.weight"), out.get("pos_embed")
    if weight is not None and weight.ndim == 5:  # of two frames, which for an image are the same; exactly, then rounded
        out["patch_embed.proj.weight"] = weight.double().sum(dim=2).to(weight.dtype)
    if positions is not None and positions.ndim == 2:
        out["pos_embed"] = positions[None]
    return out


def _classifier_keys(state_dict: StateDict, model: nn.Module) -> StateDict:
    own = {key: value for key, value in state_dict.items() if key.startswith("head.")}
    return {**{f"encoder.{key}": value for key, value in _encoder_keys(state_dict).items()}, **own}


def _is_qwens(keys: Any) -> bool:
    return any(key.endswith("blocks.0.mlp.linear_fc1.weight") for key in keys)


Qwen3VitEncoder.key_maps = (
    KeyMap("qwen", _is_qwens, lambda state_dict, model: _encoder_keys(state_dict)),
    KeyMap("classifier", lambda keys: "encoder.pos_embed" in keys, lambda state_dict, model: _encoder_keys(state_dict)),
)
Qwen3VitClassifier.key_maps = (
    KeyMap("qwen", _is_qwens, _classifier_keys),
    KeyMap("encoder", lambda keys: "pos_embed" in keys, _classifier_keys),
)
