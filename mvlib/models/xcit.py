"""XCiT: attention among channels instead of tokens, so that its cost grows linearly with the image.

El-Nouby et al., "XCiT: Cross-Covariance Image Transformers", 2021, arXiv:2106.09681; class attention of CaiT,
arXiv:2103.17239. "p16" is the patch's side; the blocks' convolutions need to know the grid in which tokens lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ActLayer, DropPath, HeadsAttention, Mlp, Module, PreNormBlock, get_act_layer, run_blocks, to_2tuple
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..registry import register_model
from .base import KeyMap, StateDict, Step
from .cait import ClassAttn
from .tokens import SequenceModel

if TYPE_CHECKING:
    from ._variants.xcit import *

__all__ = [
    "LPI", "XCA", "ClassAttentionBlock", "ConvPatchEmbed", "PositionalEncodingFourier", "XCABlock", "XCiT", "conv3x3",
]

Grid = tuple[int, int]
Layer = Callable[..., nn.Module]


@torch.fx.wrap  # one node in a traced graph: what it does depends on the map's size
def _fourier_angles(like: Tensor, rows: int, columns: int, hidden_dim: int, temperature: float) -> Tensor:
    """Sines and cosines of rows, then of columns: (1, 2 * hidden_dim, rows, columns), as `like` is stored."""
    bands = torch.arange(hidden_dim, device=like.device, dtype=torch.float32)
    bands = temperature ** (2 * torch.div(bands, 2, rounding_mode="floor") / hidden_dim)
    codes = []
    for size in (rows, columns):
        position = torch.arange(1, size + 1, device=like.device, dtype=torch.float32)
        angle = (position / (size + 1e-6) * (2 * math.pi))[:, None] / bands
        codes.append(torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1))
    maps = torch.cat((codes[0][:, None].expand(-1, columns, -1), codes[1][None].expand(rows, -1, -1)), dim=-1)
    return maps.permute(2, 0, 1)[None].to(like.dtype)


class PositionalEncodingFourier(Module):
    """Sines and cosines of rows and columns, projected. Shapes: sizes of batch and grid, B, H, W -> (B, dim, H, W).

    There are `hidden_dim` frequencies of rows, and of columns; `temperature` is the ratio of the highest to the lowest.
    """

    def __init__(self, hidden_dim: int = 32, dim: int = 768, temperature: float = 10000.0) -> None:
        super().__init__()
        self.hidden_dim, self.dim, self.temperature = hidden_dim, dim, temperature
        self.token_projection = nn.Conv2d(2 * hidden_dim, dim, 1)

    def forward(self, B: int, H: int, W: int, like: Tensor | None = None) -> Tensor:
        """Of the type and place of `like`, or of the projection's weights, which packed layers do not show."""
        like = self.token_projection.weight if like is None else like
        angles = _fourier_angles(like, H, W, self.hidden_dim, self.temperature)
        return self.token_projection(angles).expand(B, -1, -1, -1)


def conv3x3(in_planes: int, out_planes: int, stride: int = 1, device: Any = None, dtype: Any = None) -> nn.Sequential:
    """A 3x3 convolution and its batch norm."""
    place = {"device": device, "dtype": dtype}
    return nn.Sequential(
        nn.Conv2d(in_planes, out_planes, 3, stride, padding=1, bias=False, **place),
        nn.BatchNorm2d(out_planes, **place))


class ConvPatchEmbed(Module):
    """Strided 3x3 convolutions, for patches of 8 or 16 pixels.

    Shapes: (B, C, H, W) -> (B, rows * columns, embed_dim), and (rows, columns).
    """

    def __init__(
        self, img_size: int | Grid = 224, patch_size: int = 16, in_chans: int = 3, embed_dim: int = 768,
        act_layer: Layer = nn.GELU,
    ) -> None:
        super().__init__()
        if patch_size not in (8, 16):
            raise ValueError(f"patch_size is 8 or 16, not {patch_size}")
        self.img_size, self.patch_size = to_2tuple(img_size), patch_size
        self.num_patches = math.prod(side // patch_size for side in self.img_size)
        widths = [in_chans, *(embed_dim // 2**i for i in reversed(range(int(math.log2(patch_size)))))]
        self.proj = nn.Sequential()
        for i, (a, b) in enumerate(zip(widths, widths[1:])):
            self.proj.extend([*([act_layer()] if i else []), conv3x3(a, b, 2)])

    def forward(self, x: Tensor) -> tuple[Tensor, Grid]:
        x = self.proj(x)
        return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3])


class LPI(Module):
    """Two depthwise convolutions over the tokens' grid. Shapes: (B, N, in_features), H, W -> (B, N, out_features)."""

    def __init__(
        self, in_features: int, out_features: int | None = None, act_layer: Layer = nn.GELU, kernel_size: int = 3
    ) -> None:
        super().__init__()
        out_features, padding = out_features or in_features, kernel_size // 2
        self.conv1 = nn.Conv2d(in_features, in_features, kernel_size, padding=padding, groups=in_features)
        self.act = act_layer()
        self.bn = nn.BatchNorm2d(in_features)
        self.conv2 = nn.Conv2d(in_features, out_features, kernel_size, padding=padding, groups=out_features)

    def forward(self, x: Tensor, H: int, W: int) -> Tensor:
        x = x.transpose(1, 2).reshape(x.shape[0], -1, H, W)
        return self.conv2(self.bn(self.act(self.conv1(x)))).flatten(2).transpose(1, 2)


class XCA(HeadsAttention):
    """Attention of channels to channels within a head, over normalised tokens. Shapes: (B, N, dim) -> same."""

    def add_parts(self) -> None:
        self.temperature = nn.Parameter(torch.empty(self.num_heads, 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.temperature)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, *shared: Any) -> Tensor:
        attn = F.normalize(q, dim=2).transpose(2, 3) @ F.normalize(k, dim=2) * self.temperature
        return (self.attn_drop(attn.softmax(dim=-1)) @ v.transpose(2, 3)).transpose(2, 3)


class XCABlock(Module):
    """Attention among channels, local interaction, MLP, each with norm, scale and residual.

    Shapes: (B, N, dim), rows, columns -> (B, N, dim). `eta` is the initial scale.
    """

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.LayerNorm,
        eta: float = 1.0,
    ) -> None:
        super().__init__()
        self.eta = eta
        self.norm1, self.attn = norm_layer(dim), XCA(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        self.norm3, self.local_mp = norm_layer(dim), LPI(dim, act_layer=act_layer)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.drop_path1, self.drop_path3, self.drop_path2 = (DropPath(drop_path) for _ in range(3))
        self.gamma1, self.gamma3, self.gamma2 = (nn.Parameter(torch.empty(dim)) for _ in range(3))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for gamma in (self.gamma1, self.gamma3, self.gamma2):
            nn.init.constant_(gamma, self.eta)

    def forward(self, x: Tensor, H: int, W: int) -> Tensor:
        x = x + self.drop_path1(self.gamma1 * self.attn(self.norm1(x)))
        x = x + self.drop_path3(self.gamma3 * self.local_mp(self.norm3(x), H, W))
        return x + self.drop_path2(self.gamma2 * self.mlp(self.norm2(x)))


class ClassAttentionBlock(PreNormBlock):
    """Attention of the class token to all tokens, and an MLP on it. Shapes: (B, 1 + N, dim) -> same.

    Arguments as `XCABlock`'s, but that `eta` None is for no scale; `tokens_norm`: the second norm is of all tokens.
    """

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.LayerNorm,
        eta: float | None = 1.0, tokens_norm: bool = False,
    ) -> None:
        super().__init__(dim, ClassAttn(dim, num_heads, qkv_bias, attn_drop, proj_drop),
                         Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop), norm_layer, drop_path)
        self.eta, self.tokens_norm = eta, tokens_norm
        self.gamma1, self.gamma2 = (1.0 if eta is None else nn.Parameter(torch.empty(dim)) for _ in range(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for gamma in self.parameters(recurse=False):
            nn.init.constant_(gamma, self.eta or 0.0)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.drop_path1(self.gamma1 * torch.cat((self.attn(normed), normed[:, 1:]), dim=1))
        x = self.norm2(x) if self.tokens_norm else torch.cat((self.norm2(x[:, :1]), x[:, 1:]), dim=1)
        return x + self.drop_path2(torch.cat((self.gamma2 * self.mlp(x[:, :1]), x[:, 1:]), dim=1))


class XCiT(SequenceModel):
    """Patches, blocks that mix channels, then blocks in which a class token reads the patches.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, 1 + N, embed_dim), taps without class token.

    Args:
        img_size: Side, or (height, width); nothing depends on it, images may have any size.
        patch_size: Side of a patch: 8 or 16.
        global_pool: "token" (the class token), "avg" (over patches), or "" for none.
        drop_path_rate: Stochastic depth, the same in all blocks.
        cls_attn_layers: Blocks with a class token.
        use_pos_embed: Whether positions are encoded.
        eta: Initial layer scale.
        tokens_norm: Those blocks' second norm is of all tokens, else of the class token.

    Raises:
        ValueError: The patch size or the pooling is unknown.
    """

    tap_prefix: ClassVar[bool] = False
    pools: ClassVar[tuple[str, ...]] = ("", "avg", "token")
    fc_norm_name: ClassVar[str] = ""
    num_prefix_tokens: int = 1
    has_class_token: bool = True
    shared = ("rows", "columns")

    def __init__(
        self, img_size: int | Grid = 224, patch_size: int = 16, in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "token", embed_dim: int = 768, depth: int = 12, num_heads: int = 12, mlp_ratio: float = 4.0,
        qkv_bias: bool = True, drop_rate: float = 0.0, pos_drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0, act_layer: ActLayer = None,
        norm_layer: NormLayer = None, cls_attn_layers: int = 2, use_pos_embed: bool = True, eta: float = 1.0,
        tokens_norm: bool = False,
    ) -> None:
        super().__init__()
        act, norm = get_act_layer(act_layer) or nn.GELU, get_norm_layer(norm_layer) or LayerNorm
        self.in_chans, self.img_size = in_chans, to_2tuple(img_size)
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.patch_embed = ConvPatchEmbed(self.img_size, patch_size, in_chans, embed_dim, act)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = PositionalEncodingFourier(dim=embed_dim) if use_pos_embed else None
        self.pos_drop = nn.Dropout(pos_drop_rate)
        common: dict[str, Any] = dict(
            dim=embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, proj_drop=proj_drop_rate,
            attn_drop=attn_drop_rate, drop_path=drop_path_rate, act_layer=act, norm_layer=norm, eta=eta)
        self.blocks = nn.Sequential(*(XCABlock(**common) for _ in range(depth)))
        common.update(drop_path=0.0, tokens_norm=tokens_norm)
        self.cls_attn_blocks = nn.Sequential(*(ClassAttentionBlock(**common) for _ in range(cls_attn_layers)))
        self.add_head(norm, num_classes, global_pool, fc_norm=False, drop_rate=drop_rate)
        self.flow.tail.insert(0, Step("attend_to_class"))
        self.init_weights()

    def stem(self) -> tuple[list[Step], int]:
        return [Step("patch_embed", gives=("grid",)), Step("add_positions", takes=("grid",), gives=self.shared)], \
            self.patch_embed.patch_size

    def add_positions(self, x: Tensor, grid: Grid) -> tuple[Tensor, int, int]:
        rows, columns = grid[0], grid[1]
        if self.pos_embed is not None:
            x = x + self.pos_embed(1, rows, columns, x).flatten(2).transpose(1, 2)
        return self.pos_drop(x), rows, columns

    def attend_to_class(self, x: Tensor) -> Tensor:
        """Put the class token before the patches (B, N, embed_dim) and let it read them."""
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return run_blocks(self.cls_attn_blocks, x, recompute=self.grad_checkpointing)

    def cut_head(self) -> None:
        super().cut_head()
        self.cls_token = self.cls_attn_blocks = None
        self.has_class_token, self.num_prefix_tokens = False, 0
        self.flow.tail = [step for step in self.flow.tail if step.name == self.norm_path]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^cls_token|pos_embed|patch_embed", blocks=r"^blocks\.(\d+)",
                    cls_attn_blocks=[(r"^cls_attn_blocks\.(\d+)", None), (r"^norm", (99999,))])

    def check_pool(self, pool_type: str) -> None:
        if pool_type == "token" and not self.has_class_token:
            raise ValueError("global_pool 'token' needs the class token, which was cut off with the head")
        super().check_pool(pool_type)

    def no_weight_decay(self) -> set[str]:
        return {"cls_token", "pos_embed.*"}

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Without the position encoding that the model does not have."""
        return {key: value for key, value in state_dict.items()
                if self.pos_embed is not None or not key.startswith("pos_embed.")}


_NORM = dict(tokens_norm=True)
_TINY, _SMALL = dict(_NORM, embed_dim=192, num_heads=4), dict(_NORM, embed_dim=384, num_heads=8)
_MEDIUM, _LARGE = dict(_NORM, embed_dim=512, num_heads=8), dict(_NORM, embed_dim=768, num_heads=16)
_24 = dict(depth=24, eta=1e-5)
_SIZES: dict[str, tuple[dict[str, Any], ...]] = {
    "nano_12": (dict(embed_dim=128, num_heads=4),), "tiny_12": (_TINY,), "small_12": (_SMALL,),
    "tiny_24": (_TINY, _24), "small_24": (_SMALL, _24), "medium_24": (_MEDIUM, _24), "large_24": (_LARGE, _24),
}

register_model.variants(__name__, XCiT, {
    f"xcit_{size}_p{patch}_{side}": (*presets, dict(patch_size=patch))
    for size, presets in _SIZES.items() for patch in (16, 8) for side in (224, 384)
})


def _from_facebook(state_dict: StateDict, model: nn.Module) -> StateDict:
    """The authors call the position encoding otherwise, and have class attention's three projections in one."""
    out = {key.replace("pos_embeder.", "pos_embed."): value for key, value in state_dict.items()}
    for key in [key for key in out if "cls_attn_blocks" in key and ".qkv." in key]:
        for part, value in zip("qkv", out.pop(key).chunk(3)):
            out[key.replace(".qkv.", f".{part}.")] = value
    return out


XCiT.key_maps = (KeyMap("facebook", lambda keys: "cls_attn_blocks.0.attn.qkv.weight" in keys, _from_facebook),)
