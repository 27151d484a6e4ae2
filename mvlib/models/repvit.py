"""RepViT: a MobileNet arranged as a vision transformer, its token mixers trained with branches beside them.

Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", 2023, arXiv:2307.09283.

A block mixes positions by a depthwise convolution, a 1x1 one and the input, added, and channels by an MLP; every second
one has squeeze-and-excitation. `mvlib.optimize` (or `reparameterize()`, timm's `fuse`) leaves plain convolutions. Of
the two classifiers one learns from a teacher. "m1", "m2", "m3" are the paper's first version: norms within the token
mixers' branches instead of behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import branches
from ..layers.activations import ActLayer, get_act_layer
from ..layers.channel_attention import SEModule
from ..layers.helpers import Module, Sequential, get_device_dtype, to_ntuple
from ..layers.stage import Stage
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, StateDict

if TYPE_CHECKING:
    from ._variants.repvit import *

__all__ = ["RepVit"]

Layer = Callable[..., nn.Module]


class ConvNorm(branches.ConvNormPair):
    """Convolution and batch norm, see `ConvNormPair`; keys `c`, `bn`. Shapes as `nn.Conv2d`."""

    layer_name: ClassVar[str] = "c"

    def __init__(
        self, in_dim: int, out_dim: int, ks: int = 1, stride: int = 1, pad: int = 0, dilation: int = 1,
        groups: int = 1, bn_weight_init: float = 1,
    ) -> None:
        super().__init__(in_dim, out_dim, ks, stride, pad, dilation, groups, bn_weight_init)


class NormLinear(branches.NormPair):
    """Batch norm and linear layer, of initial weights of the deviation `std`; keys `bn`, `l`. Shapes as `nn.Linear`."""

    layer_name: ClassVar[str] = "l"
    norm_first: ClassVar[bool] = True

    def __init__(self, in_dim: int, out_dim: int, bias: bool = True, std: float = 0.02) -> None:
        super().__init__()
        self.bn, self.l = nn.BatchNorm1d(in_dim), nn.Linear(in_dim, out_dim, bias=bias)
        init_trunc_normal(self.l, std)


class RepVggDw(branches.Fusable):
    """A depthwise convolution, a 1x1 one and the input, added; `reparameterize()` makes one convolution of them.

    Shapes: (B, ed, H, W) -> same. `legacy`: the 1x1 convolution has a norm of its own, instead of one behind the sum.
    """

    def __init__(self, ed: int, kernel_size: int, legacy: bool = False) -> None:
        super().__init__()
        self.conv = ConvNorm(ed, ed, kernel_size, 1, (kernel_size - 1) // 2, groups=ed)
        self.conv1 = ConvNorm(ed, ed, groups=ed) if legacy else nn.Conv2d(ed, ed, 1, groups=ed)
        self.bn = nn.Identity() if legacy else nn.BatchNorm2d(ed)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x) + self.conv1(x) + x)

    def reparameterize(self) -> nn.Conv2d:
        merged = branches.merge_branches([self.conv, self.conv1, nn.Identity()], like=self.conv.layer)
        return merged if isinstance(self.bn, nn.Identity) else branches.merge_norm(merged, self.bn)

    def spread(self, weight: Tensor, bias: Tensor) -> StateDict:
        """For `spread_merged`."""
        kernel, middle = weight.clone(), weight.shape[-1] // 2
        kernel[..., middle, middle] -= 1  # which the input adds
        state = branches.one_branch(self, ("conv", "conv1"), "conv.c", "conv.bn", kernel, bias)
        return state if isinstance(self.bn, nn.Identity) else {**state, **branches.neutral_norm(self.bn, "bn")}


class RepVitMlp(Sequential):
    """Two 1x1 convolutions, an activation between them; keys `conv1`, `conv2`. Shapes: (B, in_dim, H, W) -> same."""

    def __init__(self, in_dim: int, hidden_dim: float, act_layer: Layer) -> None:
        super().__init__()
        self.conv1, self.act = ConvNorm(in_dim, int(hidden_dim)), act_layer()
        self.conv2 = ConvNorm(int(hidden_dim), in_dim, bn_weight_init=0)


class RepViTBlock(Module):
    """Token mixer, squeeze-and-excitation where `use_se`, MLP with a shortcut. Shapes: (B, in_dim, H, W) -> same."""

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


class RepVitStem(Module):
    """Two strided convolutions; keys `conv1`, `conv2`. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 4, W / 4)."""

    stride: ClassVar[int] = 4
    conv_norm: ClassVar[type[branches.ConvNormPair]] = ConvNorm

    def __init__(self, in_chs: int, out_chs: int, act_layer: Layer) -> None:
        super().__init__()
        self.conv1, self.act1 = self.conv_norm(in_chs, out_chs // 2, 3, 2, 1), act_layer()
        self.conv2 = self.conv_norm(out_chs // 2, out_chs, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.act1(self.conv1(x)))


class RepVitDownsample(Module):
    """A block, strided depthwise and 1x1 convolution, MLP: (B, in_dim, H, W) -> (B, out_dim, H / 2, W / 2)."""

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

    def __init__(
        self, in_dim: int, out_dim: int, depth: int, mlp_ratio: float, act_layer: Layer, kernel_size: int = 3,
        downsample: bool = True, legacy: bool = False,
    ) -> None:
        super().__init__()
        self.downsample = RepVitDownsample(in_dim, mlp_ratio, out_dim, kernel_size, act_layer, legacy) \
            if downsample else nn.Identity()
        self.blocks = nn.Sequential(*(
            RepViTBlock(out_dim, mlp_ratio, kernel_size, i % 2 == 0, act_layer, legacy) for i in range(depth)))


class RepVitClassifier(branches.Fusable):
    """A classifier, or with `distillation` the mean of two; in training both, where `distilled_training` is set."""

    head: Any
    head_dist: Any

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

    def spread(self, weight: Tensor, bias: Tensor) -> StateDict:
        """For `spread_merged`."""
        return {f"{name}.{key}": value for name in self.names
                for key, value in getattr(self, name).spread(weight, bias).items()}


class RepVit(ImageModel):
    """Stem, stages, average pooling, classifiers.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 4 * 2 ** (stages - 1).

    Args:
        img_size: Without effect: images may have any size.
        embed_dim, depth: Channels and blocks of each stage.
        mlp_ratio: Hidden channels of MLPs per channel, one number or one for each stage.
        global_pool: "avg", or "" for none.
        kernel_size, legacy: Of the token mixers, see `RepVggDw`.
        distillation: Whether there is a second classifier.

    Raises:
        ValueError: An option has an unknown value, or not a number for each stage.
    """

    feature_form: ClassVar[str] = "flat"
    classifier_path: ClassVar[str | tuple[str, ...]] = ("head.head", "head.head_dist")
    pools: ClassVar[tuple[str, ...]] = ("avg", "")
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}

    def __init__(
        self, in_chans: int = 3, img_size: int = 224, embed_dim: Sequence[int] = (48,), depth: Sequence[int] = (2,),
        mlp_ratio: float | Sequence[float] = 2, global_pool: str = "avg", kernel_size: int = 3, num_classes: int = 1000,
        act_layer: ActLayer = nn.GELU, distillation: bool = True, drop_rate: float = 0.0, legacy: bool = False,
    ) -> None:
        super().__init__()
        ratios = to_ntuple(len(embed_dim))(mlp_ratio)
        if not len(embed_dim) == len(depth) == len(ratios):
            raise ValueError(
                f"depth and mlp_ratio are for {len(depth)} and {len(ratios)} stages, embed_dim for {len(embed_dim)}")
        self.num_classes, self.in_chans, self.embed_dim = num_classes, in_chans, embed_dim
        self.set_global_pool(global_pool)
        act = get_act_layer(act_layer) or nn.Identity
        self.stem = RepVitStem(in_chans, embed_dim[0], act)
        self.stages = nn.Sequential(*(
            RepVitStage(embed_dim[max(i - 1, 0)], dim, depth[i], ratios[i], act, kernel_size, i > 0, legacy)
            for i, dim in enumerate(embed_dim)))
        self.flow = Flow.of_stages(embed_dim)
        self.num_features = self.head_hidden_size = embed_dim[-1]
        self.head_drop = nn.Dropout(drop_rate)
        self.set_head(distillation)
        self.init_weights()

    def set_head(self, distillation: bool) -> None:
        self.head: Any = nn.Identity()
        self.classifier_path = ("head",)  # type: ignore[misc]  # of this model
        if self.num_classes > 0:
            self.head = RepVitClassifier(self.num_features, self.num_classes, distillation)
            self.classifier_path = tuple(f"head.{name}" for name in self.head.names)  # type: ignore[misc]

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

    def fuse(self) -> RepVit:
        """Merge, in place, what can be: timm's name for `layers.reparameterize`. Returns the model."""
        branches.reparameterize(self)
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

RepVit.key_maps = (KeyMap("merged", lambda keys: "stem.conv1.weight" in keys, branches.spread_merged),)
