"""RepViT: a MobileNet arranged as a vision transformer, its token mixers trained with branches beside them.

Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", 2023, arXiv:2307.09283.

A block mixes positions by a depthwise convolution, a 1x1 one and the input, added, and channels by an MLP; every second
one has squeeze-and-excitation. `mvlib.optimize` (or `reparameterize()`, timm's `fuse`) leaves plain convolutions. Of
the two classifiers one learns from a teacher. "m1", "m2", "m3" are the paper's first version: norms within the token
mixers' branches instead of behind them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.branches import merge_branches, merge_norm, one_branch, reparameterize, spread_merged
from ..layers.channel_attention import SEModule
from ..layers.helpers import get_device_dtype, placeable, to_ntuple
from ..layers.stage import Stage
from ..registry import register_model
from .base import Flow, ImageModel, KeyMap, StateDict, Step

if TYPE_CHECKING:
    from ._variants.repvit import *

__all__ = [
    "ConvNorm", "NormLinear", "RepVggDw", "RepViTBlock", "RepVit", "RepVitClassifier", "RepVitDownsample", "RepVitMlp",
    "RepVitStage", "RepVitStem",
]

Layer = Callable[..., nn.Module]


class ConvNorm(nn.Sequential):
    """Convolution and batch norm, which `reparameterize()` merges; keys `c`, `bn`. Shapes as `nn.Conv2d`."""

    merged_path: ClassVar[str] = ""

    @placeable
    def __init__(
        self, in_dim: int, out_dim: int, ks: int = 1, stride: int = 1, pad: int = 0, dilation: int = 1,
        groups: int = 1, bn_weight_init: float = 1,
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(in_dim, out_dim, ks, stride, pad, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(out_dim)
        nn.init.constant_(self.bn.weight, bn_weight_init)

    def reparameterize(self) -> nn.Conv2d:
        merged: nn.Conv2d = merge_norm(copy.deepcopy(self.c), self.bn)
        return merged

    fuse = reparameterize

    def spread(self, weight: Tensor, bias: Tensor) -> StateDict:
        """For `spread_merged`."""
        return one_branch(self, ("c", "bn"), "c", "bn", weight, bias)


class NormLinear(nn.Sequential):
    """Batch norm and linear layer, which `reparameterize()` merges; keys `bn`, `l`. Shapes as `nn.Linear`.

    `std` is the deviation of the initial weights.
    """

    merged_path: ClassVar[str] = ""

    @placeable
    def __init__(self, in_dim: int, out_dim: int, bias: bool = True, std: float = 0.02) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(in_dim)
        self.l = nn.Linear(in_dim, out_dim, bias=bias)
        nn.init.trunc_normal_(self.l.weight, std=std)
        if bias:
            nn.init.zeros_(self.l.bias)

    def reparameterize(self) -> nn.Linear:
        merged: nn.Linear = merge_norm(copy.deepcopy(self.l), self.bn, before=True)
        return merged

    fuse = reparameterize

    def spread(self, weight: Tensor, bias: Tensor) -> StateDict:
        """For `spread_merged`."""
        return {**_neutral(self.bn, "bn"), "l.weight": weight, "l.bias": bias}


def _neutral(norm: nn.Module, name: str) -> StateDict:
    """The state of a batch norm that changes nothing."""
    eps: Any = norm.eps
    values = dict(weight=math.sqrt(1 + eps), running_var=1)
    return {f"{name}.{key}": torch.full_like(value, values.get(key, 0)) for key, value in norm.state_dict().items()}


class RepVggDw(nn.Module):
    """A depthwise convolution, a 1x1 one and the input, added; `reparameterize()` makes one convolution of them.

    Shapes: (B, ed, H, W) -> same. Keys `conv`, `conv1`, `bn`; with `legacy` the 1x1 convolution has a norm of its own,
    instead of the one behind the sum.
    """

    merged_path: ClassVar[str] = ""

    @placeable
    def __init__(self, ed: int, kernel_size: int, legacy: bool = False) -> None:
        super().__init__()
        self.conv = ConvNorm(ed, ed, kernel_size, 1, (kernel_size - 1) // 2, groups=ed)
        self.conv1 = ConvNorm(ed, ed, groups=ed) if legacy else nn.Conv2d(ed, ed, 1, groups=ed)
        self.bn = nn.Identity() if legacy else nn.BatchNorm2d(ed)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x) + self.conv1(x) + x)

    def reparameterize(self) -> nn.Conv2d:
        merged = merge_branches([self.conv, self.conv1, nn.Identity()], like=self.conv.c)
        return merged if isinstance(self.bn, nn.Identity) else merge_norm(merged, self.bn)

    fuse = reparameterize

    def spread(self, weight: Tensor, bias: Tensor) -> StateDict:
        """For `spread_merged`."""
        kernel, middle = weight.clone(), weight.shape[-1] // 2
        kernel[..., middle, middle] -= 1  # which the input adds
        state = one_branch(self, ("conv", "conv1"), "conv.c", "conv.bn", kernel, bias)
        return state if isinstance(self.bn, nn.Identity) else {**state, **_neutral(self.bn, "bn")}


class RepVitMlp(nn.Module):
    """Two 1x1 convolutions, an activation between them; keys `conv1`, `conv2`. Shapes: (B, in_dim, H, W) -> same."""

    @placeable
    def __init__(self, in_dim: int, hidden_dim: float, act_layer: Layer) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_dim, int(hidden_dim))
        self.act = act_layer()
        self.conv2 = ConvNorm(int(hidden_dim), in_dim, bn_weight_init=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.act(self.conv1(x)))


class RepViTBlock(nn.Module):
    """Token mixer, squeeze-and-excitation where `use_se`, and an MLP with a shortcut.

    Shapes: (B, in_dim, H, W) -> same. Keys `token_mixer`, `se`, `channel_mixer`.
    """

    @placeable
    def __init__(
        self, in_dim: int, mlp_ratio: float, kernel_size: int, use_se: bool, act_layer: Layer, legacy: bool = False
    ) -> None:
        super().__init__()
        self.token_mixer = RepVggDw(in_dim, kernel_size, legacy)
        self.se = SEModule(in_dim, 0.25) if use_se else nn.Identity()
        self.channel_mixer = RepVitMlp(in_dim, in_dim * mlp_ratio, act_layer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.se(self.token_mixer(x))
        return x + self.channel_mixer(x)


class RepVitStem(nn.Module):
    """Two strided convolutions; keys `conv1`, `conv2`. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 4, W / 4)."""

    stride: ClassVar[int] = 4

    @placeable
    def __init__(self, in_chs: int, out_chs: int, act_layer: Layer) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_chs, out_chs // 2, 3, 2, 1)
        self.act1 = act_layer()
        self.conv2 = ConvNorm(out_chs // 2, out_chs, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.act1(self.conv1(x)))


class RepVitDownsample(nn.Module):
    """A block, a strided depthwise convolution, a 1x1 one that widens, and an MLP with a shortcut.

    Shapes: (B, in_dim, H, W) -> (B, out_dim, H / 2, W / 2).
    """

    @placeable
    def __init__(
        self, in_dim: int, mlp_ratio: float, out_dim: int, kernel_size: int, act_layer: Layer, legacy: bool = False
    ) -> None:
        super().__init__()
        self.pre_block = RepViTBlock(in_dim, mlp_ratio, kernel_size, False, act_layer, legacy)
        self.spatial_downsample = ConvNorm(in_dim, in_dim, kernel_size, 2, (kernel_size - 1) // 2, groups=in_dim)
        self.channel_downsample = ConvNorm(in_dim, out_dim)
        self.ffn = RepVitMlp(out_dim, out_dim * mlp_ratio, act_layer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.channel_downsample(self.spatial_downsample(self.pre_block(x)))
        return x + self.ffn(x)


class RepVitStage(Stage):
    """Downsampling, where asked for, and blocks, the first, third, ... with squeeze-and-excitation."""

    @placeable
    def __init__(
        self, in_dim: int, out_dim: int, depth: int, mlp_ratio: float, act_layer: Layer, kernel_size: int = 3,
        downsample: bool = True, legacy: bool = False,
    ) -> None:
        super().__init__()
        self.downsample = RepVitDownsample(in_dim, mlp_ratio, out_dim, kernel_size, act_layer, legacy) \
            if downsample else nn.Identity()
        self.blocks = nn.Sequential(*(
            RepViTBlock(out_dim, mlp_ratio, kernel_size, i % 2 == 0, act_layer, legacy) for i in range(depth)))


class RepVitClassifier(nn.Module):
    """A classifier, or with `distillation` the mean of two; in training both, where `distilled_training` is set.

    Shapes: (B, dim) -> (B, num_classes). Keys `head`, `head_dist`. `reparameterize()` makes a linear layer of it.
    """

    merged_path: ClassVar[str] = ""
    head: Any
    head_dist: Any

    @placeable
    def __init__(self, dim: int, num_classes: int, distillation: bool = False, drop: float = 0.0) -> None:
        super().__init__()
        self.head_drop = nn.Dropout(drop)
        self.num_classes, self.distillation, self.distilled_training = num_classes, distillation, False
        for name in self.names:
            self.add_module(name, NormLinear(dim, num_classes) if num_classes > 0 else nn.Identity())

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classifiers."""
        return ("head", "head_dist") if self.distillation else ("head",)

    def forward(self, x: Tensor) -> Any:
        x = self.head_drop(x)
        if not self.distillation:
            return self.head(x)
        own, distilled = self.head(x), self.head_dist(x)
        return (own, distilled) if self.training and self.distilled_training else (own + distilled) / 2

    @torch.no_grad()
    def reparameterize(self) -> nn.Module:
        if self.num_classes <= 0:
            return nn.Identity()
        merged: nn.Linear = self.head.reparameterize()
        if self.distillation:
            other = self.head_dist.reparameterize()
            merged.weight.add_(other.weight).div_(2)
            merged.bias.add_(other.bias).div_(2)
        return merged

    fuse = reparameterize

    def spread(self, weight: Tensor, bias: Tensor) -> StateDict:
        """For `spread_merged`."""
        return {f"{name}.{key}": value for name in self.names
                for key, value in getattr(self, name).spread(weight, bias).items()}


class RepVit(ImageModel):
    """Stem, stages, average pooling, classifiers.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 4 * 2 ** (stages - 1).

    Args:
        img_size: Without effect: images may have any size.
        embed_dim: Channels of each stage.
        depth: Blocks of each stage.
        mlp_ratio: Hidden channels of MLPs per channel, one number or one for each stage.
        global_pool: "avg", or "" for none.
        kernel_size: Of the token mixers.
        act_layer: Activation.
        distillation: Whether there is a second classifier.
        drop_rate: Dropout before the classifiers.
        legacy: See `RepVggDw`.

    Raises:
        ValueError: An option has an unknown value, or not a number for each stage.
    """

    feature_form: ClassVar[str] = "flat"
    classifier_path: ClassVar[str | tuple[str, ...]] = ("head.head", "head.head_dist")
    pools: ClassVar[tuple[str, ...]] = ("avg", "")

    def __init__(
        self, in_chans: int = 3, img_size: int = 224, embed_dim: Sequence[int] = (48,), depth: Sequence[int] = (2,),
        mlp_ratio: float | Sequence[float] = 2, global_pool: str = "avg", kernel_size: int = 3, num_classes: int = 1000,
        act_layer: ActLayer = nn.GELU, distillation: bool = True, drop_rate: float = 0.0, legacy: bool = False,
    ) -> None:
        super().__init__()
        ratios = to_ntuple(len(embed_dim))(mlp_ratio)
        if not len(embed_dim) == len(depth) == len(ratios):
            raise ValueError(f"depth and mlp_ratio are for {len(depth)} and {len(ratios)} stages, embed_dim for "
                             f"{len(embed_dim)}")
        self.num_classes, self.in_chans, self.embed_dim = num_classes, in_chans, embed_dim
        self.set_global_pool(global_pool)
        act = get_act_layer(act_layer) or nn.Identity
        self.stem = RepVitStem(in_chans, embed_dim[0], act)
        self.flow = Flow(stem=[Step("stem")], stages=[])
        self.stages = nn.Sequential()
        for i, (dim, blocks, ratio) in enumerate(zip(embed_dim, depth, ratios)):
            self.stages.append(RepVitStage(
                embed_dim[max(i - 1, 0)], dim, blocks, ratio, act, kernel_size, i > 0, legacy))
            self.flow.stages.append(Step(f"stages.{i}", dim, self.stem.stride * 2**i))
        self.num_features = self.head_hidden_size = embed_dim[-1]
        self.head_drop = nn.Dropout(drop_rate)
        self.head: Any = None
        self.set_head(distillation)
        self.init_weights()

    def set_head(self, distillation: bool) -> None:
        names: tuple[str, ...] = ("head",)
        self.head = nn.Identity()
        if self.num_classes > 0:
            self.head = RepVitClassifier(self.num_features, self.num_classes, distillation)
            names = tuple(f"head.{name}" for name in self.head.names)
        self.classifier_path = names  # type: ignore[misc]  # of this model

    def get_classifier(self, name_only: bool = False) -> Any:
        """The classifiers, one module; or its path."""
        return "head" if name_only else self.head

    def reset_classifier(
        self, num_classes: int, global_pool: str | None = None, reset_other: bool = False, distillation: bool = False
    ) -> None:
        """As every model's; `distillation`: make two classifiers."""
        self.num_classes, self.head_hidden_size = num_classes, self.num_features
        if global_pool is not None:
            self.set_global_pool(global_pool)
        placed = get_device_dtype(self)
        self.set_head(distillation)
        self.head.to(**placed).train(self.training)
        self.init_modules(name for name, _ in self.named_modules() if name.partition(".")[0] == "head")
        self.note_arguments(distillation=distillation)

    def set_distilled_training(self, enable: bool = True) -> None:
        """Whether training returns both classifiers' logits, for a loss of each."""
        self.head.distilled_training = enable

    def pool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if self.global_pool else x

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if name.endswith(("_mixer.conv2.bn", "ffn.conv2.bn")):  # branches begin with 0
            assert isinstance(module, nn.BatchNorm2d)
            nn.init.zeros_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def fuse(self) -> RepVit:
        """Merge, in place, what can be: timm's name for `layers.reparameterize`. Returns the model."""
        reparameterize(self)
        return self


_S = dict(embed_dim=(48, 96, 192, 384), depth=(2, 2, 14, 2))
_M = dict(embed_dim=(64, 128, 256, 512), depth=(2, 2, 12, 2))
_OLD = dict(legacy=True)

register_model.variants(__name__, RepVit, {
    "repvit_m1": (_S, _OLD),
    "repvit_m2": (_M, _OLD),
    "repvit_m3": (_M, _OLD, dict(depth=(4, 4, 18, 2))),
    "repvit_m0_9": _S,
    "repvit_m1_0": (_S, dict(embed_dim=(56, 112, 224, 448))),
    "repvit_m1_1": _M,
    "repvit_m1_5": (_M, dict(depth=(4, 4, 24, 4))),
    "repvit_m2_3": dict(embed_dim=(80, 160, 320, 640), depth=(6, 6, 34, 2)),
})


# --- foreign checkpoints

RepVit.key_maps = (KeyMap("merged", lambda keys: "stem.conv1.weight" in keys, spread_merged),)
