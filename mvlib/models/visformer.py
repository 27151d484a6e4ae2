"""Visformer: what a transformer gains from convolutional networks: stages, early convolutions, batch norm.

Chen et al., "Visformer: The Vision-friendly Transformer", 2021, arXiv:2104.12533.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import Attention2d, DropPath, Module, PatchEmbed, drop_path_rates, placeable, to_2tuple
from ..layers.norm import LayerNorm2d, NormLayer, get_norm_layer
from ..layers.weight_init import init_kaiming, init_trunc_normal
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, Step

if TYPE_CHECKING:
    from ._variants.visformer import *

__all__ = ["Visformer"]


class SpatialMlp(Module):
    """1x1 convolutions around an activation, or, for `spatial_conv`, around a grouped 3x3 one, with its own widths.

    Shapes: (B, in_features, H, W) -> (B, out_features, H, W); as many unless given.
    """

    def __init__(
        self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
        act_layer: Callable[[], nn.Module] = nn.GELU, drop: float | tuple[float, float] = 0.0, group: int = 8,
        spatial_conv: bool = False,
    ) -> None:
        super().__init__()
        chs, drops = hidden_features or in_features, to_2tuple(drop)
        if spatial_conv:
            chs = in_features * 5 // 6 if group < 2 else in_features * 2
        self.conv1 = nn.Conv2d(in_features, chs, 1, bias=False)
        self.act1 = act_layer()
        self.drop1 = nn.Dropout(drops[0])
        self.conv2 = nn.Conv2d(chs, chs, 3, padding=1, groups=group, bias=False) if spatial_conv else None
        self.act2 = act_layer() if spatial_conv else nn.Identity()
        self.conv3 = nn.Conv2d(chs, out_features or in_features, 1, bias=False)
        self.drop3 = nn.Dropout(drops[1])

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop1(self.act1(self.conv1(x)))
        if self.conv2 is not None:
            x = self.act2(self.conv2(x))
        return self.drop3(self.conv3(x))


class Attention(Attention2d):
    """Attention whose heads may be narrower than their share of the channels. Shapes: (B, dim, H, W) -> same."""

    @placeable
    def __init__(
        self, dim: int, num_heads: int = 8, head_dim_ratio: float = 1.0, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__(dim, num_heads=num_heads, bias=False, attn_drop=attn_drop, proj_drop=proj_drop)
        width = num_heads * round(dim // num_heads * head_dim_ratio)
        self.qkv = nn.Conv2d(dim, 3 * width, 1, bias=False)
        self.proj = nn.Conv2d(width, dim, 1, bias=False)


class Block(Module):
    """Attention, unless it is disabled, and MLP, each with norm and residual. Shapes: (B, dim, H, W) -> same."""

    def __init__(
        self, dim: int, num_heads: int, head_dim_ratio: float = 1.0, mlp_ratio: float = 4.0, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Callable[[], nn.Module] = nn.GELU,
        norm_layer: Callable[[int], nn.Module] = LayerNorm2d, group: int = 8, attn_disabled: bool = False,
        spatial_conv: bool = False,
    ) -> None:
        super().__init__()
        self.drop_path = DropPath(drop_path)
        self.norm1 = None if attn_disabled else norm_layer(dim)
        self.attn = None if attn_disabled else Attention(dim, num_heads, head_dim_ratio, attn_drop, proj_drop)
        self.norm2 = norm_layer(dim)
        self.mlp = SpatialMlp(
            dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop, group=group, spatial_conv=spatial_conv)

    def forward(self, x: Tensor) -> Tensor:
        if self.norm1 is not None and self.attn is not None:
            x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Visformer(ImageModel):
    """Stem, three stages that each embed patches of what is before, add positions and run blocks; norm, classifier.

    Shapes: (B, in_chans, *img_size) -> (B, num_classes); the features have a stride of `2 * patch_size`.

    Args:
        patch_size: Stride of the second stage.
        init_channels: Channels of the stem's 7x7 convolution; None for no stem.
        embed_dim: Channels of the second stage; the first has half, the third twice as many.
        depth: Blocks, in all or of each stage.
        attn_stage, spatial_conv: Three digits: which stages have attention, and which have MLPs with a 3x3 convolution.
        use_pos_embed: Whether positions are learned.
        vit_stem: Patches as in a ViT, and one width and stride for all stages.
        group: Groups of the 3x3 convolutions.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        conv_init: Convolutions begin as in a ResNet, not as in a ViT.
        embed_norm: Norm of the embedded patches.

    Raises:
        ValueError: An option has an unknown value; from `forward`, the image has another size.
    """

    tap_norm: ClassVar[str] = "last"
    inits: ClassVar[Inits] = {(nn.Linear, nn.Conv2d): init_trunc_normal}

    def __init__(
        self, img_size: int | tuple[int, int] = 224, patch_size: int = 16, in_chans: int = 3, num_classes: int = 1000,
        init_channels: int | None = 32, embed_dim: int = 384, depth: int | Sequence[int] = 12, num_heads: int = 6,
        mlp_ratio: float = 4.0, drop_rate: float = 0.0, pos_drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0, norm_layer: NormLayer = LayerNorm2d,
        attn_stage: str = "111", use_pos_embed: bool = True, spatial_conv: str = "111", vit_stem: bool = False,
        group: int = 8, global_pool: str = "avg", conv_init: bool = False, embed_norm: NormLayer = None,
    ) -> None:
        super().__init__()
        for option, value in (("attn_stage", attn_stage), ("spatial_conv", spatial_conv)):
            if len(value) != 3 or not set(value) <= {"0", "1"}:
                raise ValueError(f"{option} is three digits, each 0 or 1, not {value!r}")
        depths = [depth // 3, depth - 2 * (depth // 3), depth // 3] if isinstance(depth, int) else list(depth)
        if len(depths) != 3:
            raise ValueError(f"depth is one number or one for each of the 3 stages, not {depth}")
        norm = get_norm_layer(norm_layer)
        self.in_chans, self.img_size = in_chans, to_2tuple(img_size)
        self.embed_dim, self.conv_init = embed_dim, conv_init
        self.flow = Flow(stem=[], stages=[])
        size: Any = self.img_size
        chs, reduction, self.stem = in_chans, 1, None
        dims, patches = (embed_dim // 2, embed_dim, embed_dim * 2), [patch_size // 2, patch_size // 8, patch_size // 8]
        if vit_stem:
            dims, patches = (embed_dim, embed_dim, embed_dim), [patch_size, 0, 0]
        elif init_channels is not None:
            self.stem = nn.Sequential(
                nn.Conv2d(in_chans, init_channels, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(init_channels),
                nn.ReLU(inplace=True))
            self.flow.stem.append(Step("stem"))
            size, chs, reduction = tuple(side // 2 for side in size), init_channels, 2
            patches[0] //= 2
        self.pos_drop = nn.Dropout(pos_drop_rate)
        for i, (dim, patch, rates) in enumerate(zip(dims, patches, drop_path_rates(drop_path_rate, depths))):
            steps = self.flow.stages if i else self.flow.stem
            if patch:
                embed = PatchEmbed(size, patch, chs, dim, get_norm_layer(embed_norm), flatten=False)
                self.add_module(f"patch_embed{i + 1}", embed)
                steps.append(Step(f"patch_embed{i + 1}"))
                size, chs, reduction = embed.grid_size, dim, reduction * patch
                if use_pos_embed:
                    self.register_parameter(f"pos_embed{i + 1}", nn.Parameter(torch.empty(1, dim, *size)))
                    steps.append(Step(f"add_positions{i + 1}"))
            self.add_module(f"stage{i + 1}", nn.Sequential(*(
                Block(dim, num_heads, 1.0 if i else 0.5, mlp_ratio, proj_drop_rate, attn_drop_rate, rate,
                      norm_layer=norm, group=group, attn_disabled=attn_stage[i] == "0",
                      spatial_conv=spatial_conv[i] == "1")
                for rate in rates)))
            self.flow.stages.append(Step(f"stage{i + 1}", dim, reduction))
        self.norm = norm(chs)
        self.flow.tail = [Step("norm")]
        self.add_classifier(chs, num_classes, global_pool, nn.Dropout(drop_rate))

    def add_positions(self, stage: int, x: Tensor) -> Tensor:
        return self.pos_drop(x + getattr(self, f"pos_embed{stage}"))

    def add_positions1(self, x: Tensor) -> Tensor:
        return self.add_positions(1, x)

    def add_positions2(self, x: Tensor) -> Tensor:
        return self.add_positions(2, x)

    def add_positions3(self, x: Tensor) -> Tensor:
        return self.add_positions(3, x)

    def _remove_module(self, path: str) -> None:
        super()._remove_module(path)
        if path.startswith("add_positions"):
            setattr(self, path.replace("add_positions", "pos_embed"), None)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = [(r"^stage(\d+)\.(\d+)", None), (r"^(?:patch_embed|pos_embed)(\d+)", (0,)), (r"^norm", (99999,))]
        return dict(stem=r"^patch_embed1|pos_embed1|stem", blocks=blocks)

    def reset_parameters(self) -> None:
        for positions in self._parameters.values():
            if positions is not None:
                nn.init.trunc_normal_(positions, std=0.02)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if self.conv_init and isinstance(module, nn.Conv2d):
            init_kaiming(module)


_PUBLISHED = dict(depth=(7, 4, 4), attn_stage="011", spatial_conv="100", norm_layer=nn.BatchNorm2d, conv_init=True,
                  embed_norm=nn.BatchNorm2d)

register_model.variants(__name__, Visformer, {
    "visformer_tiny": (_PUBLISHED, dict(init_channels=16, embed_dim=192, num_heads=3)),
    "visformer_small": _PUBLISHED,
})

Visformer.key_maps = tuple(  # the authors' norms are modules within modules
    KeyMap.renaming("authors", f"norm.{norm}.weight", (r"\.(?:bn|ln)\.", ".")) for norm in ("bn", "ln"))
