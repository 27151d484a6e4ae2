"""SHViT: attention with one head, over part of the channels, on maps of stride 16 and more.

Yun and Ro, "SHViT: Single-Head Vision Transformer with Memory Efficient Macro Design", 2024, arXiv:2401.16456.

Four strided convolutions make the first map. A block mixes each channel's neighbours, then positions (stages of type
"s"; the first is "i", without), then channels. All norms but those before attention are batch norms behind or before a
layer, which `reparameterize()` merges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.branches import Fusable, merge_branches, reparameterize
from ..layers.channel_attention import SEModule
from ..layers.helpers import Module, Sequential
from ..layers.norm import GroupNorm1, NormLayer, get_norm_layer
from ..layers.pool import make_narrow_pool
from ..layers.stage import Stage
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from . import repvit
from .base import Flow, ImageModel, Inits

if TYPE_CHECKING:
    from ._variants.shvit import *

__all__ = ["SHViT"]


class Conv2dNorm(repvit.ConvNorm):
    """RepViT's convolution and norm, by timm's arguments here; `bn_weight_init` of 0 makes a silent branch."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, padding: int = 0,
        bn_weight_init: float = 1, dilation: int = 1, groups: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bn_weight_init)


class NormLinear(repvit.NormLinear):
    """RepViT's norm and linear layer, by timm's arguments here."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, std: float = 0.02) -> None:
        super().__init__(in_features, out_features, bias, std)


class Residual(Fusable):
    """x + m(x); around a depthwise `Conv2dNorm`, `reparameterize()` makes one convolution of all."""

    def __init__(self, m: nn.Module) -> None:
        super().__init__()
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        return x + self.m(x)

    def reparameterize(self) -> nn.Module:
        if isinstance(self.m, Conv2dNorm):
            return merge_branches([self.m, nn.Identity()], like=self.m.layer)
        reparameterize(self.m)
        return self


class PatchMerging(Sequential):
    """Inverted bottleneck of stride 2 with squeeze-and-excitation. Shapes: (B, dim, H, W) -> (B, out_dim, H/2, W/2)."""

    def __init__(self, dim: int, out_dim: int, act_layer: ActLayer = nn.ReLU) -> None:
        super().__init__()
        hidden, act = 4 * dim, get_act_layer(act_layer)
        self.conv1, self.act1 = Conv2dNorm(dim, hidden), act()
        self.conv2, self.act2 = Conv2dNorm(hidden, hidden, 3, 2, 1, groups=hidden), act()
        self.se, self.conv3 = SEModule(hidden, 0.25), Conv2dNorm(hidden, out_dim)


class FFN(Sequential):
    """Two 1x1 convolutions, with `embed_dim` channels between them. Shapes: (B, dim, H, W) -> same."""

    def __init__(self, dim: int, embed_dim: int, act_layer: ActLayer = nn.ReLU) -> None:
        super().__init__()
        self.pw1, self.act = Conv2dNorm(dim, embed_dim), get_act_layer(act_layer)()
        self.pw2 = Conv2dNorm(embed_dim, dim, bn_weight_init=0)


class SHSA(Module):
    """Single-head attention over the first `pdim` channels, then a projection of all. Shapes: (B, dim, H, W) -> same.

    Queries and keys have `qk_dim` channels, values `pdim`; `norm_layer` stands before attention.
    """

    def __init__(
        self, dim: int, qk_dim: int, pdim: int, norm_layer: NormLayer = GroupNorm1, act_layer: ActLayer = nn.ReLU
    ) -> None:
        super().__init__()
        self.scale, self.qk_dim, self.dim, self.pdim = qk_dim**-0.5, qk_dim, dim, pdim
        self.pre_norm, self.qkv = get_norm_layer(norm_layer)(pdim), Conv2dNorm(pdim, qk_dim * 2 + pdim)
        self.proj = nn.Sequential(get_act_layer(act_layer)(), Conv2dNorm(dim, dim, bn_weight_init=0))

    def forward(self, x: Tensor) -> Tensor:
        attending, rest = x.split([self.pdim, self.dim - self.pdim], dim=1)
        q, k, v = self.qkv(self.pre_norm(attending)).flatten(2).split([self.qk_dim, self.qk_dim, self.pdim], dim=1)
        attn = (q.transpose(1, 2) @ k * self.scale).softmax(dim=-1)
        attended = (v @ attn.transpose(1, 2)).view_as(attending)
        return self.proj(torch.cat((attended, rest), dim=1))


class BasicBlock(Sequential):
    """Depthwise convolution, `SHSA` where `type` is "s", feed-forward, each beside a shortcut. Shapes as `SHSA`."""

    def __init__(
        self, dim: int, qk_dim: int, pdim: int, type: str, norm_layer: NormLayer = GroupNorm1,
        act_layer: ActLayer = nn.ReLU,
    ) -> None:
        super().__init__()
        self.conv = Residual(Conv2dNorm(dim, dim, 3, 1, 1, groups=dim, bn_weight_init=0))
        self.mixer = Residual(SHSA(dim, qk_dim, pdim, norm_layer, act_layer)) if type == "s" else nn.Identity()
        self.ffn = Residual(FFN(dim, 2 * dim))  # of ReLU, as timm's, whatever the others' activation


class StageBlock(Stage):
    """Downsampling between two pairs of convolution and feed-forward, where the width changes, and `depth` blocks."""

    def __init__(
        self, prev_dim: int, dim: int, qk_dim: int, pdim: int, type: str, depth: int,
        norm_layer: NormLayer = GroupNorm1, act_layer: ActLayer = nn.ReLU,
    ) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if prev_dim != dim:
            before, after = (
                (Residual(Conv2dNorm(chs, chs, 3, 1, 1, groups=chs)), Residual(FFN(chs, 2 * chs, act_layer)))
                for chs in (prev_dim, dim))
            self.downsample = nn.Sequential(*before, PatchMerging(prev_dim, dim, act_layer), *after)
        self.blocks = nn.Sequential(*(
            BasicBlock(dim, qk_dim, pdim, type, norm_layer, act_layer) for _ in range(depth)))


class SHViT(ImageModel):
    """Stem of stride 16, stages of single-head attention, pooling and a classifier with a batch norm in front.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 64 with three stages.

    Args:
        global_pool: "avg", "max", "avgmax", or "" for none.
        embed_dim, depth: Channels and blocks of each stage; one as wide as the one before does not shrink the map.
        partial_dim, qk_dim: Channels that attend, and width of queries and keys, by stage.
        types: "s" for a stage with attention, "i" for one without.
        norm_layer: Norm before attention.

    Raises:
        ValueError: The pooling is unknown, or changes the number of channels.
    """

    feature_form: ClassVar[str] = "flat"
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
        embed_dim: Sequence[int] = (128, 256, 384), partial_dim: Sequence[int] = (32, 64, 96),
        qk_dim: Sequence[int] = (16, 16, 16), depth: Sequence[int] = (1, 2, 3), types: Sequence[str] = ("s", "s", "s"),
        drop_rate: float = 0.0, norm_layer: NormLayer = GroupNorm1, act_layer: ActLayer = nn.ReLU,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        chs = embed_dim[0]
        self.patch_embed = nn.Sequential(Conv2dNorm(in_chans, chs // 8, 3, 2, 1))
        for share in (4, 2, 1):
            self.patch_embed.extend([
                get_act_layer(act_layer)(), Conv2dNorm(chs // (2 * share), chs // share, 3, 2, 1)])
        self.stages = nn.Sequential()
        for dim, qk, pdim, kind, count in zip(embed_dim, qk_dim, partial_dim, types, depth):
            self.stages.append(StageBlock(chs, dim, qk, pdim, kind, count, norm_layer, act_layer))
            chs = dim
        self.flow = Flow.of_stages(embed_dim, 16, "patch_embed")
        self.num_features = self.head_hidden_size = chs
        self.global_pool = make_narrow_pool(global_pool, flatten=True)
        self.head = self.make_classifier(num_classes)
        self.init_weights()

    def make_classifier(self, num_classes: int) -> nn.Module:
        return NormLinear(self.head_hidden_size, num_classes) if num_classes > 0 else nn.Identity()

    def get_classifier(self, name_only: bool = False) -> Any:
        """The linear layer of the head, as timm's; an `nn.Identity` where there is none; or its path."""
        return self.logits_paths[0] if name_only else getattr(self.head, "l", self.head)

    def set_global_pool(self, pool_type: str) -> None:
        self.global_pool = make_narrow_pool(pool_type, flatten=True).train(self.training)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.head(x)

    def fuse(self) -> SHViT:
        """Merge all norms, in place: timm's name for `layers.reparameterize`. Returns the model."""
        reparameterize(self)
        return self


_LATER = dict(types=("i", "s", "s"))

register_model.variants(__name__, SHViT, {
    "shvit_s1": (_LATER, dict(embed_dim=(128, 224, 320), depth=(2, 4, 5), partial_dim=(32, 48, 68))),
    "shvit_s2": (_LATER, dict(embed_dim=(128, 308, 448), depth=(2, 4, 5), partial_dim=(32, 66, 96))),
    "shvit_s3": (_LATER, dict(embed_dim=(192, 352, 448), depth=(3, 5, 5), partial_dim=(48, 75, 96))),
    "shvit_s4": (_LATER, dict(embed_dim=(224, 336, 448), depth=(4, 7, 6), partial_dim=(48, 72, 96))),
})
