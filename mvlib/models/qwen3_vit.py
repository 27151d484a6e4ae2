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
from ..registry import register_model
from .base import KeyMap, StateDict, rename_keys
from .encoders import EncoderClassifier, VisionEncoder
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


class Qwen3VitEncoder(VisionEncoder):
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

    projector: ClassVar[str] = "merger"
    pools: ClassVar[tuple[str, ...]] = ("", "avg", "merge")
    resamples_positions = True  # in each pass

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
        self.embed_dim, self.out_features = embed_dim, out_features
        self.merge_size, self.pos_embed_grid_size = merge_size, pos_embed_grid_size
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
        self.end(Qwen3VitPatchMerger(embed_dim, merge_size, out_features, norm) if global_pool == "merge" else None)

    def _pos_embed(self, x: Tensor) -> tuple[Tensor, Tensor, Size]:
        """Patches (B, rows, columns, C) -> tokens (B, N, C), rotary embedding (N, 2 * channels), (rows, columns)."""
        grid = x.shape[1], x.shape[2]
        positions = resample_pos_embed_grid(self.pos_embed, self.pos_embed_grid_size, grid)
        return x.flatten(1, 2) + positions.to(x.dtype), self.rope.get_embed(grid), grid

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed"}

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Weights of an encoder with a merger, for one without, or without the merger's last layer."""
        fitted = super().fit_state_dict(state_dict)
        unused = () if self.out_features else "merger.fc2."
        return {key: value for key, value in fitted.items() if not key.startswith(unused)}


class Qwen3VitClassifier(EncoderClassifier):
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

    final_norms: ClassVar[Any] = LayerNorm
    resamples_positions = True

    def __init__(
        self, img_size: int | Size = 768, patch_size: int = 16, in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "avg", encoder_pool: str = "", out_features: int = 0, embed_dim: int = 1152, depth: int = 27,
        num_heads: int = 16, mlp_ratio: float = 4304 / 1152, merge_size: int = 2, pos_embed_grid_size: int = 48,
        rope_temperature: float = 10000.0, norm_eps: float = 1e-6, act_layer: ActLayer = None, final_norm: bool = True,
        drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.check_pools(global_pool, encoder_pool, ("", "merge"))
        self.encoder = Qwen3VitEncoder(
            img_size, patch_size, in_chans, out_features, encoder_pool, embed_dim, depth, num_heads, mlp_ratio,
            merge_size, pos_embed_grid_size, rope_temperature, norm_eps, act_layer, proj_drop_rate, attn_drop_rate,
            drop_path_rate)
        self.add_head(num_classes, drop_rate, norm_eps if final_norm else None)


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
