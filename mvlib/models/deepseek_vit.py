"""The vision encoder of DeepSeek's multimodal models (V4, V4.1), and classifiers over it.

Paper: "DeepSeek-V4.1-Flash: Pushing the Limits of KV Cache Compression", 2026, arXiv:2609.19969.

A vision transformer whose patches have a rotary position alone, with root-mean-square norms and gated feed-forward
blocks. Behind the final norm the aligner makes one token of the language model of 3 x 3 patches.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.drop import drop_path_rates
from ..layers.helpers import placeable
from ..layers.mlp import SwiGLUPacked
from ..layers.norm import NormLayer, RmsNormFp32
from ..layers.patch_embed import PatchEmbed
from ..layers.rope import RotaryEmbeddingCat
from ..registry import register_model
from .base import KeyMap, StateDict, rename_keys
from .encoders import EncoderClassifier, VisionEncoder
from .eva_blocks import EvaBlock

if TYPE_CHECKING:
    from ._variants.deepseek_vit import *

__all__ = ["DeepseekVitClassifier", "DeepseekVitEncoder"]

Size = tuple[int, int]


class DeepseekVitBlock(EvaBlock):
    """Attention with rotary positions, and a gated feed-forward block without biases. Shapes: (B, N, dim) -> same."""

    @placeable
    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 2.75, proj_drop: float = 0.0, attn_drop: float = 0.0,
        drop_path: float = 0.0, norm_layer: NormLayer = RmsNormFp32,
    ) -> None:
        super().__init__(
            dim, num_heads, mlp_ratio=mlp_ratio, num_prefix_tokens=0, attn_type="rope", rotate_half=True,
            proj_drop=proj_drop, attn_drop=attn_drop, drop_path=drop_path, norm_layer=norm_layer)
        self.mlp = SwiGLUPacked(dim, 2 * int(dim * mlp_ratio), bias=False, drop=proj_drop)


class DeepseekVitAligner(nn.Module):
    """Blocks of patches to tokens of a language model; keys `fc1`, `fc2`.

    Shapes: (B, H, W, dim) -> (B, ceil(H / r) * ceil(W / r), out_features); blocks at the edge are filled with zeros.

    Args:
        downsample_ratio: Side r of a block.
        out_features: Channels of a token.

    Raises:
        ValueError: Either of these is less than 1.
    """

    @placeable
    def __init__(
        self, dim: int, downsample_ratio: int = 3, out_features: int = 0, act_layer: type[nn.Module] = nn.GELU
    ) -> None:
        super().__init__()
        if out_features < 1 or downsample_ratio < 1:
            raise ValueError(f"the aligner makes tokens of out_features channels, the language model's, of blocks of "
                             f"downsample_ratio patches a side: at least 1, not {out_features} and {downsample_ratio}")
        self.downsample_ratio, self.hidden_size = downsample_ratio, dim * downsample_ratio**2
        self.out_features = out_features
        self.fc1 = nn.Linear(self.hidden_size, out_features)
        self.act = act_layer()
        self.fc2 = nn.Linear(out_features, out_features)

    def unshuffle(self, x: Tensor) -> Tensor:
        """A map -> its blocks, row by row: each (B, N, dim * r * r), where a channel's patches are side by side."""
        side = self.downsample_ratio
        x = F.pad(x, (0, 0, 0, -x.shape[2] % side, 0, -x.shape[1] % side))  # always: exported graphs take any size
        x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))
        return x.permute(0, 1, 3, 5, 2, 4).flatten(3).flatten(1, 2)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """`pre_logits`: the hidden layer instead."""
        x = self.act(self.fc1(self.unshuffle(x)))
        return x if pre_logits else self.fc2(x)


class DeepseekVitEncoder(VisionEncoder):
    """The encoder, which classifies nothing.

    Shapes: (B, in_chans, H, W) -> (B, ceil(H / 42) * ceil(W / 42), out_features), or as `global_pool` has it; features
    are (B, H / 14, W / 14, embed_dim). Images have any size that patches divide.

    Args:
        img_size: Side, or (height, width), of usual images; without effect.
        patch_size: Side of a patch.
        out_features: Channels of the aligner's tokens.
        global_pool: "align" (the aligner), "avg" (one vector (B, embed_dim) of all patches), or "" for the features.
        embed_dim, depth, num_heads, mlp_ratio: Of the blocks.
        downsample_ratio: Side of the aligner's blocks.
        rope_temperature: Of the rotary embedding.
        norm_eps: Of all norms.
        proj_drop_rate, attn_drop_rate: Dropout in the blocks.
        dynamic_img_pad: Take images that patches do not divide, with zeros below and on the right.
        num_classes, drop_rate: Without effect, as in timm.

    Raises:
        ValueError: The pooling is unknown; there is an aligner without `out_features`; a head's channels are no
            multiple of 4; from `forward`, patches do not divide the image.
    """

    projector: ClassVar[str] = "aligner"
    pools: ClassVar[tuple[str, ...]] = ("", "avg", "align")

    def __init__(
        self, img_size: int | Size = 546, patch_size: int = 14, in_chans: int = 3, out_features: int = 0,
        global_pool: str = "align", embed_dim: int = 1024, depth: int = 32, num_heads: int = 16,
        mlp_ratio: float = 2816 / 1024, downsample_ratio: int = 3, rope_temperature: float = 10000.0,
        norm_eps: float = 1e-6, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        dynamic_img_pad: bool = False, *, num_classes: int = 0, drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.check_pool(global_pool)
        if embed_dim % (4 * num_heads):
            raise ValueError(f"{embed_dim} channels cannot be divided among {num_heads} heads of a multiple of 4 each, "
                             f"as rotary positions take them")
        norm = partial(RmsNormFp32, eps=norm_eps)
        self.in_chans, self.num_classes, self.global_pool = in_chans, 0, global_pool
        self.embed_dim, self.out_features, self.downsample_ratio = embed_dim, out_features, downsample_ratio
        self.patch_embed = PatchEmbed(
            img_size, patch_size, in_chans, embed_dim, strict_img_size=False, dynamic_img_pad=dynamic_img_pad,
            output_fmt="NHWC")
        self.rope = RotaryEmbeddingCat(
            embed_dim // num_heads, temperature=rope_temperature, in_pixels=False, rotate_half=True)
        self.blocks = nn.ModuleList(
            DeepseekVitBlock(embed_dim, num_heads, mlp_ratio, proj_drop_rate, attn_drop_rate, rate, norm)
            for rate in drop_path_rates(drop_path_rate, depth))
        self.norm = norm(embed_dim)
        self.end(DeepseekVitAligner(embed_dim, downsample_ratio, out_features) if global_pool == "align" else None)

    def _pos_embed(self, x: Tensor) -> tuple[Tensor, Tensor, Size]:
        """Patches (B, rows, columns, C) -> tokens (B, N, C), rotary embedding (N, 2 * channels), (rows, columns)."""
        grid = x.shape[1], x.shape[2]
        return x.flatten(1, 2), self.rope.get_embed(grid), grid

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Weights of an encoder with an aligner, for one without; or of one that embeds flattened patches."""
        fitted = super().fit_state_dict(state_dict)
        weight = fitted.get("patch_embed.proj.weight")
        if weight is not None and weight.ndim == 2:
            fitted["patch_embed.proj.weight"] = weight.unflatten(1, (-1, *self.patch_embed.patch_size))
        return fitted


class DeepseekVitClassifier(EncoderClassifier):
    """A classifier of the mean of the encoder's patches, or of the aligner's tokens.

    Args:
        global_pool: "avg", or "" for logits of each patch or token.
        encoder_pool: "align" for the aligner's tokens, "" for patches.
        final_norm: A norm, without weights, behind the pooling.
        others: As of `DeepseekVitEncoder`.

    Raises:
        ValueError: As there.
    """

    final_norms: ClassVar[Any] = RmsNormFp32

    def __init__(
        self, img_size: int | Size = 546, patch_size: int = 14, in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "avg", encoder_pool: str = "", out_features: int = 0, embed_dim: int = 1024, depth: int = 32,
        num_heads: int = 16, mlp_ratio: float = 2816 / 1024, downsample_ratio: int = 3,
        rope_temperature: float = 10000.0, norm_eps: float = 1e-6, final_norm: bool = True, drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        dynamic_img_pad: bool = False,
    ) -> None:
        super().__init__()
        self.check_pools(global_pool, encoder_pool, ("", "align"))
        self.encoder = DeepseekVitEncoder(
            img_size, patch_size, in_chans, out_features, encoder_pool, embed_dim, depth, num_heads, mlp_ratio,
            downsample_ratio, rope_temperature, norm_eps, proj_drop_rate, attn_drop_rate, drop_path_rate,
            dynamic_img_pad)
        self.add_head(num_classes, drop_rate, norm_eps if final_norm else None)


_412M = dict(out_features=5120)  # channels of the language model that the default weights are of

register_model.variants(__name__, DeepseekVitClassifier, {
    "deepseek_vit_412m": _412M,
    "deepseek_vit_412m_align": (_412M, dict(encoder_pool="align")),
})
register_model.variants(__name__, DeepseekVitEncoder, {"deepseek_vit_412m_enc": _412M})


# --- foreign checkpoints

_PARTS = ("patch_embed.", "blocks.", "norm.", "aligner.")
_THEIRS = re.compile(r"vision\.|(.*\.)?(attn\.w(qkv|o)|(mlp|aligner)\.w[12])\.")


def _encoder_keys(state_dict: StateDict) -> StateDict:
    """An encoder's weights, of a whole multimodal model or a shard of it, of a classifier, or alone.

    Beside the encoder ("vision.") stand the aligner, and a language model with a norm and a head of its own.
    """
    if any(key.startswith("vision.") for key in state_dict):
        state_dict = {key: value for key, value in state_dict.items() if key.startswith(("vision.", "aligner."))}
    out = rename_keys(
        state_dict, (r"^(vision|encoder)\.", ""), (r"\.attn\.wqkv\.", ".attn.qkv."), (r"\.attn\.wo\.", ".attn.proj."),
        (r"\b(mlp|aligner)\.w([12])\.", r"\1.fc\2."))
    return {key: value for key, value in out.items() if key.startswith(_PARTS)}


def _classifier_keys(state_dict: StateDict, model: nn.Module) -> StateDict:
    return {f"encoder.{key}": value for key, value in _encoder_keys(state_dict).items()}


def _is_deepseeks(keys: Any) -> bool:
    return any(map(_THEIRS.match, keys))


DeepseekVitEncoder.key_maps = (
    KeyMap("deepseek", _is_deepseeks, lambda state_dict, model: _encoder_keys(state_dict)),
    KeyMap("classifier", lambda keys: "encoder.patch_embed.proj.weight" in keys,
           lambda state_dict, model: rename_keys(state_dict, prefix="encoder.")),
)
DeepseekVitClassifier.key_maps = (
    KeyMap("deepseek", _is_deepseeks, _classifier_keys),
    KeyMap("encoder", lambda keys: "patch_embed.proj.weight" in keys, _classifier_keys),
)
