"""The vision encoder of Google's Gemma 4, and classifiers over it.

Paper: "Gemma 4 Technical Report", 2026, arXiv:2607.02770.

A vision transformer whose blocks have norms before and behind each part, and norms of queries, keys and values. Each
patch has learned positions, of its column and of its row, and a rotary one; what it sees are pixels from 0 to 1. The
encoder's pool makes one token of the language model of 3 x 3 patches.

A model takes images (B, C, H, W), or patches as `mvlib.data` makes them: (B, N, P * P * C), or (B, N, P, P, C), the row
and column of each, and which of them are no padding. Within the model a position is (column, row).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ..layers.attention import attend
from ..layers.config import use_fused_attn
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable, to_2tuple
from ..layers.norm import RmsNorm
from ..layers.rope import rope_rotate_half
from ..layers.weight_init import trunc_normal_tf_
from ..registry import register_model
from .base import Flow, ImageModel, Indices, KeyMap, StateDict, Step, rename_keys
from .encoders import Headless, OverEncoder
from .naflexvit import batch_patchify, global_pool_naflex, take_patches

if TYPE_CHECKING:
    from ._variants.gemma4_vit import *

__all__ = ["Gemma4VitClassifier", "Gemma4VitEncoder"]

Size = tuple[int, int]
Act = Callable[[], nn.Module] | None



@torch.fx.wrap  # one node in a traced graph each: what they do depends on the image's size
def _positions_of(x: Tensor, rows: int, columns: int) -> Tensor:
    """(column, row) of each patch of images: (B, N, 2)."""
    row, column = torch.meshgrid(
        torch.arange(rows, device=x.device), torch.arange(columns, device=x.device), indexing="ij")
    return torch.stack((column, row), dim=-1).flatten(0, 1).expand(x.shape[0], -1, -1)


@torch.fx.wrap
def _check_blocks(x: Tensor, sides: Size) -> Tensor:
    if x.shape[2] % sides[0] or x.shape[3] % sides[1]:
        raise ValueError(f"the pool takes images of multiples of {sides[0]} x {sides[1]} pixels, not "
                         f"{x.shape[2]} x {x.shape[3]}; resize the images, or build the model with another pool")
    return x


@torch.fx.wrap
def _members(positions: Tensor, side: int) -> Tensor:
    """Which of a grid's blocks, row by row, each patch is of: (B, N, N / side ** 2)."""
    count = positions.shape[1]
    if count % (side * side):
        raise ValueError(f"{count} patches cannot be pooled in blocks of {side} x {side}: pad to a multiple")
    positions = positions.clamp(min=0)
    sides = positions.amax(dim=1, keepdim=True) + 1
    torch._assert_async((sides % side == 0).all(), "the blocks of patches that are pooled do not divide a grid")
    blocks = positions.div(side, rounding_mode="floor")
    index = blocks[..., 0] + sides[..., 0].div(side, rounding_mode="floor") * blocks[..., 1]
    return index.long().unsqueeze(-1) == torch.arange(count // (side * side), device=index.device)


class Gemma4ClippableLinear(nn.Module):
    """A linear layer without bias, key `linear`. Shapes: (..., in) -> (..., out).

    `use_clipped`: It has bounds of input and output: keys `input_min`, `input_max`, `output_min`, `output_max`.
    """

    input_min: Tensor
    input_max: Tensor
    output_min: Tensor
    output_max: Tensor

    @placeable
    def __init__(self, in_features: int, out_features: int, use_clipped: bool = False) -> None:
        super().__init__()
        self.use_clipped = use_clipped
        self.linear = nn.Linear(in_features, out_features, bias=False)
        if use_clipped:
            for name in ("input_min", "input_max", "output_min", "output_max"):
                self.register_buffer(name, torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for name, bound in self._buffers.items():
            cast(Tensor, bound).fill_(float("inf") if name.endswith("max") else -float("inf"))

    def forward(self, x: Tensor) -> Tensor:
        if not self.use_clipped:
            return self.linear(x)
        return self.linear(x.clamp(self.input_min, self.input_max)).clamp(self.output_min, self.output_max)


def apply_multidimensional_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys (B, N, heads, d): one half by the column, one by the row. cos, sin: (B, N, d)."""
    turned = rope_rotate_half(x.unflatten(-1, (2, -1))).flatten(-2)
    return x * cos.unsqueeze(2) + turned * sin.unsqueeze(2)


class Gemma4RotaryEmbedding2D(nn.Module):
    """Rotary embedding of columns and rows; no keys. Shapes: positions (B, N, 2) -> two of (B, N, head_dim).

    The frequencies fall from 1 towards 1 / `rope_theta`.
    """

    inv_freq: Tensor

    @placeable
    def __init__(self, head_dim: int, rope_theta: float = 100.0) -> None:
        super().__init__()
        self.head_dim, self.rope_theta = head_dim, rope_theta
        self.register_buffer("inv_freq", torch.empty(head_dim // 4, dtype=torch.float32), persistent=False)
        if not self.inv_freq.is_meta:
            self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        half = self.head_dim // 2
        exponents = torch.arange(0, half, 2, dtype=torch.float32, device=self.inv_freq.device) / half
        self.inv_freq.copy_(1.0 / self.rope_theta**exponents)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, in x's type."""
        angles = position_ids.float().unsqueeze(-1) * self.inv_freq.float()
        angles = torch.cat((angles, angles), dim=-1).flatten(2)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


class Gemma4PatchEmbed(nn.Module):
    """Images or patches to tokens with positions; keys `position_embedding_table`, `input_proj`.

    Shapes: as the module's docstring -> tokens (B, N, embed_dim), positions (B, N, 2), padding (B, N) or None.
    `position_embedding_size`: Columns, and rows, that there are positions for.
    """

    @placeable
    def __init__(
        self, patch_size: int | Size = 16, in_chans: int = 3, embed_dim: int = 768, position_embedding_size: int = 10240
    ) -> None:
        super().__init__()
        self.patch_size = to_2tuple(patch_size)
        self.embed_dim, self.position_embedding_size = embed_dim, position_embedding_size
        self.input_proj = nn.Linear(in_chans * self.patch_size[0] * self.patch_size[1], embed_dim, bias=False)
        self.position_embedding_table = nn.Parameter(torch.empty(2, position_embedding_size, embed_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        trunc_normal_tf_(self.position_embedding_table, std=0.02)

    def forward(
        self, x: Any, patch_coord: Tensor | None = None, patch_valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Coordinates (-1, -1) are those of padding where no `patch_valid` is given; otherwise a ValueError says what
        is neither an image nor a patch with coordinates."""
        x, given = _given(x, patch_coord, patch_valid)
        positions, valid = self.places(x, **given)
        if "patch_coord" not in given or x.ndim == 4:
            x = batch_patchify(x, self.patch_size, pad=False, channels_last=False)[0]
        elif x.ndim in (3, 5):
            patches = x.unflatten(2, (*self.patch_size, -1)) if x.ndim == 3 else x
            x = patches.permute(0, 1, 4, 2, 3).flatten(2)
        else:
            raise ValueError(f"patches are (B, N, numbers) or (B, N, height, width, channels), not {tuple(x.shape)}")
        table = self.position_embedding_table
        x = self.input_proj((2 * (x - 0.5)).to(table.dtype))  # the layer's type: a packed one shows no weight
        columns, rows = positions.clamp(min=0).unbind(-1)
        embedding = table[0][columns] + table[1][rows]
        if valid is None:
            return x + embedding, positions, None
        return x + embedding.masked_fill(~valid.unsqueeze(-1), 0.0), positions, ~valid

    def places(
        self, x: Tensor, patch_coord: Tensor | None = None, patch_valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Positions (B, N, 2) of images' patches, or of patches; and which are no padding (B, N), None for all."""
        if patch_coord is None:
            return _positions_of(x, x.shape[2] // self.patch_size[0], x.shape[3] // self.patch_size[1]), None
        if patch_valid is None:
            found = (patch_coord != -1).any(dim=-1)
            patch_valid = None if found.all() else found
        return patch_coord.flip(-1), patch_valid if patch_valid is None else patch_valid.bool()


class Gemma4Attention(nn.Module):
    """Attention with norms of queries, keys and values, and a scale of 1. Shapes: (B, N, dim) -> same.

    Args:
        num_kv_heads: Heads of keys and values; `num_heads` unless given.
        use_clipped_linears: See `Gemma4ClippableLinear`.

    Raises:
        ValueError: The heads of keys and values do not divide those of queries.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int = 12, head_dim: int = 64, num_kv_heads: int | None = None,
        attn_drop: float = 0.0, proj_drop: float = 0.0, norm_eps: float = 1e-6, use_clipped_linears: bool = False,
    ) -> None:
        super().__init__()
        kv_heads = num_kv_heads or num_heads
        if num_heads % kv_heads:
            raise ValueError(f"{kv_heads} heads of keys and values are not for {num_heads} heads of queries")
        self.head_dim, self.num_kv_groups, self.fused_attn = head_dim, num_heads // kv_heads, use_fused_attn()
        self.q_proj, self.k_proj, self.v_proj = (
            Gemma4ClippableLinear(dim, heads * head_dim, use_clipped_linears)
            for heads in (num_heads, kv_heads, kv_heads))
        self.o_proj = Gemma4ClippableLinear(num_heads * head_dim, dim, use_clipped_linears)
        self.q_norm, self.k_norm = RmsNorm(head_dim, norm_eps), RmsNorm(head_dim, norm_eps)
        self.v_norm = RmsNorm(head_dim, norm_eps, affine=False)
        self.attn_drop, self.proj_drop = nn.Dropout(attn_drop), nn.Dropout(proj_drop)

    def forward(self, x: Tensor, rope_cos: Tensor, rope_sin: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """The mask as `attend` takes it; cosines and sines (B, N, head_dim)."""
        q, k, v = (proj(x).unflatten(2, (-1, self.head_dim)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = self.q_norm(q), self.k_norm(k), self.v_norm(v)
        q, k = (apply_multidimensional_rope(t, rope_cos, rope_sin) for t in (q, k))
        if self.num_kv_groups > 1:
            k, v = (t.repeat_interleave(self.num_kv_groups, dim=2) for t in (k, v))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        x = attend(q, k, v, self.fused_attn, self.attn_drop, attn_mask, scale=1.0)
        return self.proj_drop(self.o_proj(x.transpose(1, 2).flatten(2)))


class Gemma4GatedMlp(nn.Module):
    """A gated feed-forward block. Shapes: (..., in_features) -> same."""

    @placeable
    def __init__(
        self, in_features: int, hidden_features: int, act_layer: Act = None, drop: float = 0.0,
        use_clipped_linears: bool = False,
    ) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (
            Gemma4ClippableLinear(in_features, hidden_features, use_clipped_linears) for _ in range(2))
        self.down_proj = Gemma4ClippableLinear(hidden_features, in_features, use_clipped_linears)
        self.act = act_layer() if act_layer else nn.GELU(approximate="tanh")
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x)))


class Gemma4Block(nn.Module):
    """Attention and a feed-forward block, each between two norms. Shapes: (B, N, dim) -> same.

    `intermediate_size`: Hidden channels of the feed-forward block. Others: As of `Gemma4Attention`.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int, head_dim: int, intermediate_size: int, num_kv_heads: int | None = None,
        norm_eps: float = 1e-6, attn_drop: float = 0.0, proj_drop: float = 0.0, drop_path: float = 0.0,
        act_layer: Act = None, use_clipped_linears: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = RmsNorm(dim, norm_eps)
        self.attn = Gemma4Attention(
            dim, num_heads, head_dim, num_kv_heads, attn_drop, proj_drop, norm_eps, use_clipped_linears)
        self.norm2, self.norm3 = RmsNorm(dim, norm_eps), RmsNorm(dim, norm_eps)
        self.mlp = Gemma4GatedMlp(dim, intermediate_size, act_layer, use_clipped_linears=use_clipped_linears)
        self.norm4 = RmsNorm(dim, norm_eps)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor, rope_cos: Tensor, rope_sin: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        x = x + self.drop_path(self.norm2(self.attn(self.norm1(x), rope_cos, rope_sin, attn_mask)))
        return x + self.drop_path(self.norm4(self.mlp(self.norm3(x))))


class Gemma4VisionPooler(nn.Module):
    """The means of blocks of k x k patches, times the root of their channels; no keys.

    Shapes: (B, N, hidden_size) -> (B, N / k ** 2, hidden_size), and which of these have patches (B, N / k ** 2).

    Raises:
        ValueError: From `forward`, N is no multiple of k ** 2. (Where blocks do not divide a grid, torch's own error.)
    """

    def __init__(self, hidden_size: int, pooling_kernel_size: int = 3) -> None:
        super().__init__()
        self.hidden_size, self.pooling_kernel_size = hidden_size, pooling_kernel_size

    def forward(
        self, hidden_states: Tensor, position_ids: Tensor, padding_positions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if padding_positions is not None:
            hidden_states = hidden_states.masked_fill(padding_positions.unsqueeze(-1), 0.0)
        is_of = _members(position_ids, self.pooling_kernel_size)
        means = (is_of.float() / self.pooling_kernel_size**2).transpose(1, 2) @ hidden_states.float()
        return means.to(hidden_states.dtype) * self.hidden_size**0.5, is_of.any(dim=1)


_NAMES = ("patch_coord", "patch_valid")


def _given(x: Any, *values: Tensor | None) -> tuple[Any, dict[str, Any]]:
    x, given = take_patches(x, _NAMES, values)
    return x, given if "patch_coord" in given else {}  # images have no padding


class _Tower(ImageModel):
    """What encoder and classifier share."""

    tap_layout: ClassVar[str] = "NLC"
    default_out_indices: ClassVar[Indices] = 3
    tap_norm: ClassVar[str] = "all"  # there is none, and what follows the blocks fits each of them
    pruned_pool: ClassVar[str | None] = None
    output_fmt: ClassVar[str] = "NLC"  # timm's name of the layout of features
    patch_size: Size

    def follow(self, path: str, depth: int, embed_dim: int) -> None:
        """Make the flow, whose modules are at `path` ("encoder.", or nothing)."""
        self.flow = Flow(
            stem=[Step(f"{path}_embed", gives=("cos", "sin", "attn_mask"), options=_NAMES)],
            stages=[Step(f"{path}blocks.{i}", embed_dim, max(self.patch_size), f"blocks.{i}", takes=("cos", "sin"),
                         options=("attn_mask",)) for i in range(depth)])

    def cut_head(self) -> None:
        """The norm has no weights, and stays."""

    def norm_tap(self, x: Tensor, index: int) -> Tensor:
        return x

    def tap_grid(self, tap: Any, image_size: Any) -> Size | None:
        return image_size[0] // self.patch_size[0], image_size[1] // self.patch_size[1]

    def get_patch_size(self) -> Size:
        """(height, width) of a patch: what loaders of patches ask for."""
        return self.patch_size

    def set_clamp_enabled(self, enabled: bool = True) -> None:
        """Whether linear layers that have bounds keep them: these stop gradients."""
        for module in self.modules():
            if isinstance(module, Gemma4ClippableLinear):
                module.use_clipped = enabled and bool(module._buffers)

    def forward_intermediates(  # type: ignore[override]  # timm's order
        self, x: Any, patch_coord: Tensor | None = None, patch_valid: Tensor | None = None, indices: Indices = None,
        norm: bool = False, stop_early: bool = False, output_fmt: str = "NCHW", intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> Any:
        """As every model's, of images or of patches; `norm` is without effect. `output_dict` adds "patch_valid".

        Raises:
            ValueError: Patches are to become maps.
        """
        x, given = _given(x, patch_coord, patch_valid)
        if x.ndim != 4 and output_fmt != "NLC":
            raise ValueError(f"patches of images of different sizes make no maps: output_fmt is 'NLC', not "
                             f"{output_fmt!r}")
        found = self.run_to_taps(
            x, indices, norm, stop_early, output_fmt, intermediates_only, False, output_dict, **given)
        if output_dict:
            tower: Any = getattr(self, "encoder", self)
            positions, valid = tower.patch_embed.places(x, **given)
            found["patch_valid"] = torch.ones_like(positions[..., 0], dtype=torch.bool) if valid is None else valid
        return found

    def init_weights(self, mode: str = "", needs_reset: bool = True) -> None:
        self._init_as(mode, needs_reset)


class Gemma4VitEncoder(Headless, _Tower):
    """The encoder, which classifies nothing.

    Shapes: images, or patches -> (B, N / 9, embed_dim), or as `global_pool` has it; features are (B, N, embed_dim).

    Args:
        img_size, num_classes: Without effect, as in timm: any size is taken.
        patch_size: Side, or (height, width), of a patch.
        global_pool: "soft" (a token for each block of patches), "avg" (one vector for all), "none" or "".
        embed_dim, depth, num_heads, head_dim, num_kv_heads, intermediate_size, norm_eps, use_clipped_linears: See
            `Gemma4Block`.
        rope_theta, position_embedding_size: See `Gemma4RotaryEmbedding2D` and `Gemma4PatchEmbed`.
        pooling_kernel_size: Side of a block of patches.
        standardize: Shift and scale the pooled tokens.
        proj_drop_rate, attn_drop_rate: Dropout in the blocks.
        act_layer: Activation; GELU by its tanh approximation unless given.
        weight_init: "reset" and "skip" leave linear layers as torch initialises them.

    Raises:
        ValueError: The pooling is unknown; from `forward`, blocks do not divide the patches.
    """

    pools: ClassVar[tuple[str, ...]] = ("soft", "avg", "none", "")
    std_bias: Any
    std_scale: Any

    def __init__(
        self, img_size: int | Size = 768, patch_size: int | Size = 16, in_chans: int = 3, global_pool: str = "soft",
        embed_dim: int = 768, depth: int = 16, num_heads: int = 12, head_dim: int = 64, num_kv_heads: int | None = None,
        intermediate_size: int = 3072, norm_eps: float = 1e-6, rope_theta: float = 100.0,
        position_embedding_size: int = 10240, pooling_kernel_size: int = 3, standardize: bool = False,
        use_clipped_linears: bool = False, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, act_layer: Act = None, weight_init: str = "", *, num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.check_pool(global_pool)
        self.in_chans, self.num_classes, self.global_pool = in_chans, 0, global_pool
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.patch_size, self.pooling_kernel_size = to_2tuple(patch_size), pooling_kernel_size
        self.use_clipped_linears, self.weight_init_mode = use_clipped_linears, weight_init
        self.patch_embed = Gemma4PatchEmbed(patch_size, in_chans, embed_dim, position_embedding_size)
        self.rotary_emb = Gemma4RotaryEmbedding2D(head_dim, rope_theta)
        self.blocks = nn.ModuleList(
            Gemma4Block(embed_dim, num_heads, head_dim, intermediate_size, num_kv_heads, norm_eps, attn_drop_rate,
                        proj_drop_rate, rate, act_layer, use_clipped_linears)
            for rate in drop_path_rates(drop_path_rate, depth))
        self.pooler = Gemma4VisionPooler(embed_dim, pooling_kernel_size)
        for name in ("std_bias", "std_scale"):
            self.register_buffer(name, torch.empty(embed_dim) if standardize else None)
        self.follow("", depth, embed_dim)
        self.init_weights()

    def _embed(self, x: Tensor, patch_coord: Tensor | None = None, patch_valid: Tensor | None = None) -> Any:
        """Images or patches -> tokens, cosines and sines, and a mask (B, 1, 1, N) where there is padding."""
        if self.global_pool == "soft" and patch_coord is None:
            x = _check_blocks(x, cast(Size, tuple(side * self.pooling_kernel_size for side in self.patch_size)))
        x, positions, padding = self.patch_embed(x, patch_coord, patch_valid)
        cos, sin = self.rotary_emb(x, positions)
        return x, cos, sin, None if padding is None else ~padding[:, None, None, :]

    def forward_features(self, x: Any, patch_coord: Tensor | None = None, patch_valid: Tensor | None = None) -> Tensor:
        """Images or patches -> (B, N, embed_dim), padding among them."""
        x, given = _given(x, patch_coord, patch_valid)
        return cast(Tensor, self.run_flow(x, **given))

    def forward(self, x: Any, patch_coord: Tensor | None = None, patch_valid: Tensor | None = None) -> Tensor:
        """Images or patches, a dict of these as "patches", "patch_coord", "patch_valid" -> as `global_pool` has it.

        Raises:
            ValueError: There are patches without coordinates, or blocks do not divide the patches.
        """
        x, given = _given(x, patch_coord, patch_valid)
        return self.pool(self.run_flow(x, **given), *self.patch_embed.places(x, **given))

    def pool(self, x: Tensor, positions: Tensor, valid: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Features (B, N, embed_dim), their positions and which are no padding -> as `global_pool` has it."""
        if self.global_pool == "avg":
            return global_pool_naflex(x, valid, "avg", 0)
        if self.global_pool != "soft":
            return x
        x = self.pooler(x, positions, None if valid is None else ~valid)[0]
        return x if self.std_bias is None else (x - self.std_bias) * self.std_scale

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        raise NotImplementedError("an encoder has no head: its pool needs the patches' positions, which forward knows")

    def reset_parameters(self) -> None:
        if self.std_bias is not None:
            nn.init.zeros_(self.std_bias)
            nn.init.ones_(self.std_scale)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, nn.Linear) and self.weight_init_mode not in ("reset", "skip"):
            trunc_normal_tf_(module.weight, std=0.02)

    def no_weight_decay(self) -> set[str]:
        return {"patch_embed.position_embedding_table"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^patch_embed|^rotary_emb", blocks=[
            (r"^blocks\.(\d+)", None), (r"^pooler|^std_", (99999,))])


class Gemma4VitClassifier(OverEncoder, _Tower):
    """A classifier of the mean of the encoder's patches, or of its pooled tokens.

    Shapes: images, or patches -> (B, num_classes); features are (B, N, embed_dim).

    Args:
        global_pool: "avg", or "none" or "" for logits of each token.
        encoder_pool: "soft" for the encoder's pooled tokens, "none" or "" for patches.
        final_norm: A norm, without weights, behind the pooling.
        others: As of `Gemma4VitEncoder`.

    Raises:
        ValueError: As there.
    """

    pools: ClassVar[tuple[str, ...]] = ("avg", "none", "")

    def __init__(
        self, img_size: int | Size = 768, patch_size: int | Size = 16, in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "avg", encoder_pool: str = "", embed_dim: int = 768, depth: int = 16, num_heads: int = 12,
        head_dim: int = 64, num_kv_heads: int | None = None, intermediate_size: int = 3072, norm_eps: float = 1e-6,
        rope_theta: float = 100.0, position_embedding_size: int = 10240, pooling_kernel_size: int = 3,
        standardize: bool = False, use_clipped_linears: bool = False, final_norm: bool = True, drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0, act_layer: Act = None,
        weight_init: str = "",
    ) -> None:
        super().__init__()
        self.check_pool(global_pool)
        if encoder_pool not in ("", "none", "soft"):
            raise ValueError(f"unknown encoder_pool {encoder_pool!r}; known: '', 'none', 'soft'")
        self.in_chans, self.num_classes, self.embed_dim = in_chans, num_classes, embed_dim
        self.global_pool, self.encoder_pool, self.weight_init_mode = global_pool, encoder_pool, weight_init
        self.encoder = Gemma4VitEncoder(
            img_size, patch_size, in_chans, encoder_pool, embed_dim, depth, num_heads, head_dim, num_kv_heads,
            intermediate_size, norm_eps, rope_theta, position_embedding_size, pooling_kernel_size, standardize,
            use_clipped_linears, proj_drop_rate, attn_drop_rate, drop_path_rate, act_layer, weight_init)
        self.num_features = self.head_hidden_size = embed_dim
        self.patch_size = self.encoder.patch_size
        self.norm = RmsNorm(embed_dim, norm_eps, affine=False) if final_norm else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.head = self.make_classifier(num_classes)
        self.follow("encoder.", depth, embed_dim)
        self.init_weights()

    def forward_features(self, x: Any, patch_coord: Tensor | None = None, patch_valid: Tensor | None = None) -> Tensor:
        """Images or patches -> (B, N, embed_dim), padding among them; or the encoder's pooled tokens."""
        x, given = _given(x, patch_coord, patch_valid)
        features: Tensor = self.run_flow(x, **given)
        if self.encoder_pool != "soft":
            return features
        return self.encoder.pool(features, *self.encoder.patch_embed.places(x, **given))

    def forward(self, x: Any, patch_coord: Tensor | None = None, patch_valid: Tensor | None = None) -> Tensor:
        """Images or patches -> logits; arguments and errors as `Gemma4VitEncoder.forward`."""
        x, given = _given(x, patch_coord, patch_valid)
        valid = self.encoder.patch_embed.places(x, **given)[1] if given else None
        return self.forward_head(self.forward_features(x, **given), valid)

    def pool(self, x: Tensor, patch_valid: Tensor | None = None) -> Tensor:
        """Features -> (B, embed_dim), normed; (B, N, embed_dim) where there is no pooling."""
        if self.global_pool == "avg":
            x = global_pool_naflex(x, None if self.encoder_pool == "soft" else patch_valid, "avg", 0)
        return self.norm(x)

    def forward_head(  # type: ignore[override]  # timm's order
        self, x: Tensor, patch_valid: Tensor | None = None, pre_logits: bool = False
    ) -> Tensor:
        x = self.head_drop(self.pool(x, patch_valid))
        return x if pre_logits else self.head(x)

    def init_module(self, name: str, module: nn.Module) -> None:
        if name == "head":
            super().init_module(name, module)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        elif self._began_empty is not None and name.startswith("encoder"):  # otherwise it has just been initialised
            self.encoder.weight_init_mode = self.weight_init_mode
            self.encoder.init_module(name.removeprefix("encoder").removeprefix("."), module)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^encoder\.patch_embed|^encoder\.rotary_emb", blocks=[(r"^encoder\.blocks\.(\d+)", None)])


_167M = dict(use_clipped_linears=True)
_570M = dict(embed_dim=1152, depth=27, num_heads=16, head_dim=72, intermediate_size=4304, standardize=True)

register_model.variants(__name__, Gemma4VitClassifier, {"gemma4_vit_167m": _167M, "gemma4_vit_570m": _570M})
register_model.variants(__name__, Gemma4VitEncoder, {"gemma4_vit_167m_enc": _167M, "gemma4_vit_570m_enc": _570M})


# --- foreign checkpoints

_PREFIXES = ("model.vision_tower.", "model.vision_model.", "vision_model.", "vision_tower.")
_PARTS = ("patch_embed.", "blocks.", "std_")
_FIRST = "encoder.layers.0.input_layernorm.weight"


def _from_hugging_face(state_dict: StateDict) -> StateDict:
    """The encoder of a whole multimodal model, or alone."""
    prefix = next((p for p in _PREFIXES if p + _FIRST in state_dict), "")
    out = rename_keys(
        state_dict, (r"^patch_embedder\.", "patch_embed."), (r"^encoder\.layers\.", "blocks."),
        (r"\.self_attn\.", ".attn."), (r"\.input_layernorm\.", ".norm1."), (r"\.post_attention_layernorm\.", ".norm2."),
        (r"\.pre_feedforward_layernorm\.", ".norm3."), (r"\.post_feedforward_layernorm\.", ".norm4."), prefix=prefix)
    return {key: value for key, value in out.items() if key.startswith(_PARTS)}


def _within(state_dict: StateDict) -> StateDict:
    return {key if key.startswith("head.") else f"encoder.{key}": value for key, value in state_dict.items()}


def _is_theirs(keys: Any) -> bool:
    return any(key.endswith(_FIRST) for key in keys)


Gemma4VitEncoder.key_maps = (
    KeyMap("huggingface", _is_theirs, lambda state_dict, model: _from_hugging_face(state_dict)),
    KeyMap.renaming("classifier", "encoder.patch_embed.input_proj.weight", prefix="encoder."),
)
Gemma4VitClassifier.key_maps = (
    KeyMap("huggingface", _is_theirs, lambda state_dict, model: _within(_from_hugging_face(state_dict))),
    KeyMap("encoder", lambda keys: "patch_embed.input_proj.weight" in keys,
           lambda state_dict, model: _within(state_dict)),
)
