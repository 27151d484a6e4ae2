"""EfficientViM: a state space model whose mixing of channels happens in a few hidden states instead of all pixels.

Lee et al., "EfficientViM: Efficient Vision Mamba with Hidden State Mixer based State Space Duality", 2024,
arXiv:2411.15241.

A block is a depthwise convolution, the mixer (`HSMSSD`), a convolution and an MLP, each blended with its input by a
learned gate. Logits are a weighted sum of those of each stage's hidden states and of the last map. "dist" models have
a second set of classifiers that learn from a teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers.branches import Fusable, merge_norm, reparameterize
from ..layers.channel_attention import SqueezeExcite
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import Module, Sequential
from ..layers.norm import LayerNorm, LayerNorm2d
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Inits, StateDict, Step, take_indices

if TYPE_CHECKING:
    from ._variants.efficientvim import *

__all__ = ["EfficientViM", "EfficientViMDistilled"]

Layer = Callable[..., nn.Module]


class ConvLayer2d(Fusable):
    """Convolution without bias, norm and activation, those that there are; keys `conv`, `norm`.

    Shapes: (B, in_dim, H, W) -> (B, out_dim, H', W'). A batch norm, whose weight begins with `bn_weight_init`, becomes
    a part of the convolution by `reparameterize()`, timm's `fuse`, in place.
    """

    conv_layer: ClassVar[Layer] = nn.Conv2d

    def __init__(
        self, in_dim: int, out_dim: int, kernel_size: int = 3, stride: int = 1, padding: int = 0, dilation: int = 1,
        groups: int = 1, norm: Layer | None = nn.BatchNorm2d, act_layer: Layer | None = nn.ReLU,
        bn_weight_init: float = 1.0,
    ) -> None:
        super().__init__()
        self.conv = self.conv_layer(in_dim, out_dim, kernel_size, stride, padding, dilation, groups, bias=False)
        self.norm, self.act = norm(out_dim) if norm else None, act_layer() if act_layer else None
        if isinstance(self.norm, _BatchNorm):
            nn.init.constant_(self.norm.weight, bn_weight_init)

    def reparameterize(self) -> nn.Module:
        if isinstance(self.norm, _BatchNorm):
            self.conv, self.norm = merge_norm(self.conv, self.norm), None
        return self

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x if self.norm is None else self.norm(x)
        return x if self.act is None else self.act(x)


class ConvLayer1d(ConvLayer2d):
    """The same of tokens: (B, in_dim, N) -> (B, out_dim, N')."""

    conv_layer: ClassVar[Layer] = nn.Conv1d

    def __init__(
        self, in_dim: int, out_dim: int, kernel_size: int = 3, stride: int = 1, padding: int = 0, dilation: int = 1,
        groups: int = 1, norm: Layer | None = nn.BatchNorm1d, act_layer: Layer | None = nn.ReLU,
        bn_weight_init: float = 1.0,
    ) -> None:
        super().__init__(
            in_dim, out_dim, kernel_size, stride, padding, dilation, groups, norm, act_layer, bn_weight_init)


def _depthwise(dim: int, weight: float = 1.0) -> ConvLayer2d:
    return ConvLayer2d(dim, dim, 3, padding=1, groups=dim, act_layer=None, bn_weight_init=weight)


class Stem(Sequential):
    """Four strided convolutions. Shapes: (B, in_dim, H, W) -> (B, dim, H / 16, W / 16)."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        widths = (in_dim, dim // 8, dim // 4, dim // 2, dim)
        self.conv = nn.Sequential(*(
            ConvLayer2d(widths[i], widths[i + 1], 3, 2, 1, act_layer=nn.ReLU if i < 3 else None) for i in range(4)))


class FFN(Sequential):
    """Two 1x1 convolutions, `dim` channels between them. Shapes: (B, in_dim, H, W) -> same."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.fc1 = ConvLayer2d(in_dim, dim, 1)
        self.fc2 = ConvLayer2d(dim, in_dim, 1, act_layer=None, bn_weight_init=0)


class _Gated(Fusable):
    """Has depthwise convolutions with a shortcut, which `reparameterize()` makes part of them: then it is `fused`."""

    fused: bool = False
    dwconv1: ConvLayer2d
    dwconv2: ConvLayer2d

    @property
    def is_reparameterized(self) -> bool:
        return self.fused

    def gates(self) -> tuple[Any, Any]:
        """The convolutions' share of their blend with the input, by channel; None where they are added to it."""
        return None, None

    @torch.no_grad()
    def reparameterize(self) -> nn.Module:
        """Merge all that can be merged, in place; RuntimeError where the module is in training."""
        if self.training:
            raise RuntimeError(f"{type(self).__name__} is merged for evaluation: call eval() first")
        if not self.fused:
            for layer, gate in zip((self.dwconv1, self.dwconv2), self.gates()):
                conv: Any = layer.reparameterize().conv
                if gate is not None:
                    conv.weight.mul_(gate.view(-1, 1, 1, 1))
                    conv.bias.mul_(gate)
                conv.weight[:, 0, 1, 1] += 1 if gate is None else 1 - gate
            self.fused = True
            reparameterize(self)
        return self


class PatchMerging(_Gated):
    """Inverted bottleneck between depthwise convolutions. Shapes: (B, in_dim, H, W) -> (B, out_dim, H / 2, W / 2)."""

    def __init__(self, in_dim: int, out_dim: int, ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(out_dim * ratio)
        self.conv = nn.Sequential(
            ConvLayer2d(in_dim, hidden, 1), ConvLayer2d(hidden, hidden, 3, 2, 1, groups=hidden),
            SqueezeExcite(hidden, 0.25), ConvLayer2d(hidden, out_dim, 1, act_layer=None))
        self.dwconv1, self.dwconv2 = _depthwise(in_dim), _depthwise(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.dwconv1(x) if self.fused else x + self.dwconv1(x))
        return self.dwconv2(x) if self.fused else x + self.dwconv2(x)


class HSMSSD(Module):
    """Mixer: pixels are summed up in `state_dim` hidden states, channels mixed among those, and pixels made of them.

    Shapes: (B, dim, H, W) -> same, and the hidden states (B, dim, state_dim). `a_init_range` is that of `A`.
    """

    def __init__(
        self, dim: int, ssd_expand: float = 1.0, state_dim: int = 64, a_init_range: tuple[float, float] = (1.0, 16.0)
    ) -> None:
        super().__init__()
        self.d_inner, self.state_dim, self.a_init_range = int(ssd_expand * dim), state_dim, a_init_range
        plain: dict[str, Any] = dict(norm=None, act_layer=None)
        self.BCdt_proj = ConvLayer1d(dim, 3 * state_dim, 1, **plain)
        self.dw = ConvLayer2d(3 * state_dim, 3 * state_dim, 3, 1, 1, groups=3 * state_dim, **plain)
        self.hz_proj = ConvLayer1d(dim, 2 * self.d_inner, 1, **plain)
        self.out_proj = ConvLayer1d(self.d_inner, dim, 1, **plain)
        self.A, self.D = nn.Parameter(torch.empty(state_dim)), nn.Parameter(torch.empty(1))
        self.act = nn.SiLU()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.A, *self.a_init_range)
        nn.init.ones_(self.D)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, _, height, width = x.shape
        x = x.flatten(2)
        b, c, dt = self.dw(self.BCdt_proj(x).reshape(batch, -1, height, width)).flatten(2).chunk(3, dim=1)
        a = (dt + self.A.view(1, -1, 1)).softmax(dim=-1)
        h, z = self.hz_proj(x @ (a * b).transpose(1, 2)).chunk(2, dim=1)
        h = self.out_proj(h * self.act(z) + h * self.D)
        return (h @ c).reshape(batch, -1, height, width), h


class EfficientViMBlock(_Gated):
    """Convolution, mixer, convolution, MLP, each blended with its input by a gate a channel. Shapes as `HSMSSD`'s."""

    def __init__(
        self, dim: int, mlp_ratio: float = 4.0, ssd_expand: float = 1.0, state_dim: int = 64, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.mixer, self.norm = HSMSSD(dim, ssd_expand, state_dim), LayerNorm2d(dim, eps=1e-5)
        self.dwconv1, self.dwconv2 = _depthwise(dim, 0.0), _depthwise(dim, 0.0)
        self.ffn = FFN(dim, int(dim * mlp_ratio))
        self.alpha, self.drop_path = nn.Parameter(torch.empty(4, dim)), DropPath(drop_path)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.alpha, 1e-4)

    def gates(self) -> tuple[Any, Any]:
        alpha = self.alpha.sigmoid()
        return alpha[0], alpha[2]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gates = torch.sigmoid(self.alpha).view(4, -1, 1, 1)
        x = self.dwconv1(x) if self.fused else self._blend(x, self.dwconv1(x), gates[0])
        mixed, hidden = self.mixer(self.norm(x))
        x = self._blend(x, mixed, gates[1])
        x = self.dwconv2(x) if self.fused else self._blend(x, self.dwconv2(x), gates[2])
        return self._blend(x, self.ffn(x), gates[3]), hidden

    def _blend(self, x: Tensor, new: Tensor, gate: Tensor) -> Tensor:
        return x + self.drop_path(gate * (new - x))


class EfficientViMStage(Module):
    """Blocks, then downsampling. Shapes: (B, in_dim, H, W) -> three: as the input, (B, out_dim, H / 2, W / 2), hidden.

    The hidden states (B, in_dim, state_dim) are the last block's. Without `downsample` the second is the first.
    """

    def __init__(
        self, in_dim: int, out_dim: int, depth: int, mlp_ratio: float = 4.0, downsample: Layer | None = None,
        ssd_expand: float = 1.0, state_dim: int = 64, drop_path: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"a stage has blocks, not depth {depth}")
        self.blocks = nn.ModuleList([
            EfficientViMBlock(in_dim, mlp_ratio, ssd_expand, state_dim, rate)
            for rate in (drop_path or (0.0,) * depth)[:depth]])
        self.downsample = downsample(in_dim=in_dim, out_dim=out_dim) if downsample else None

    def advance(self, x: Tensor, hidden: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """A map through the blocks, and the hidden states of earlier stages and of this one."""
        h = x
        for block in self.blocks:
            x, h = block(x)
        return x, [*hidden, h]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, hidden = self.advance(x, [])
        return x, x if self.downsample is None else self.downsample(x), hidden[0]


class EfficientViM(ImageModel):
    """A stem of stride 16, stages with hidden states, and classifiers of those of each stage and of the last map.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features are a list: the hidden states of each stage (B, dim,
    state_dim), and the last map (B, dim, N). Without a classifier their means stand side by side.

    Args:
        embed_dim, depths, state_dim: Channels, blocks and number of hidden states of each stage.
        mlp_ratio, ssd_expand: Hidden channels of the MLPs, and those that are mixed in the hidden states, per channel.
        global_pool: "avg", or "" for none, without a classifier.

    Raises:
        ValueError: Unknown pooling, a classifier without pooling, or not a number for each stage.
    """

    tap_norm: ClassVar[str] = "all"
    pools: ClassVar[tuple[str, ...]] = ("avg", "")
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}
    undecayed: ClassVar[str] = r"\.D$"
    head_lists: ClassVar[tuple[str, ...]] = ("heads",)  # names of the lists of classifiers

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, embed_dim: Sequence[int] = (128, 256, 512),
        depths: Sequence[int] = (2, 2, 2), mlp_ratio: float = 4.0, ssd_expand: float = 1.0,
        state_dim: Sequence[int] = (49, 25, 9), global_pool: str = "avg", drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if not len(embed_dim) == len(depths) == len(state_dim):
            raise ValueError(f"embed_dim {embed_dim}, depths {depths} and state_dim {state_dim} are one for each stage")
        self.in_chans, self.num_classes = in_chans, num_classes
        self.set_global_pool(global_pool)
        self.patch_embed = Stem(in_chans, embed_dim[0])
        count = len(depths)
        self.stages = nn.ModuleList([
            EfficientViMStage(
                embed_dim[i], embed_dim[min(i + 1, count - 1)], depths[i], mlp_ratio,
                PatchMerging if i < count - 1 else None, ssd_expand, state_dim[i], rates)
            for i, rates in enumerate(drop_path_rates(drop_path_rate, depths))])
        self.set_widths(embed_dim)
        self.weights = nn.Parameter(torch.empty(count + 1), requires_grad=num_classes > 0)
        self.norm = nn.ModuleList([
            *(LayerNorm(dim, eps=1e-5) for dim in embed_dim), LayerNorm2d(embed_dim[-1], eps=1e-5)])
        self.head_drop = nn.Dropout(drop_rate)
        self.heads = self.make_heads(num_classes)
        self.init_weights()

    def set_widths(self, embed_dim: Sequence[int]) -> None:
        """Note the stages' channels, and the flow."""
        self.embed_dim = tuple(embed_dim)
        self.num_features = self.head_hidden_size = sum(embed_dim) + embed_dim[-1]
        stages: list[Step] = []
        for i, dim in enumerate(embed_dim):
            stages += [Step(f"stages.{i - 1}.downsample")] if i else []
            stages.append(Step(f"stages.{i}", dim, 16 * 2**i, takes=("hidden",), gives=("hidden",), method="advance"))
        self.flow = Flow(stem=[Step("patch_embed"), Step("begin", gives=("hidden",))], stages=stages,
                         tail=[Step("gather", takes=("hidden",))])

    def begin(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return x, []

    def gather(self, x: Tensor, hidden: list[Tensor]) -> list[Tensor]:
        """What the classifiers read: normalised hidden states, and the map, normalised where it is the last stage's."""
        x = self.norm[-1](x) if len(hidden) == len(self.stages) else x
        return [*(norm(h.transpose(1, 2)).transpose(1, 2) for norm, h in zip(self.norm, hidden)), x.flatten(2)]

    def norm_tap(self, x: Tensor, index: int) -> Tensor:
        return self.norm[index](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def pool(self, x: list[Tensor]) -> Any:  # type: ignore[override]
        """Features -> their means side by side; as they are where there is no pooling."""
        return torch.cat([part.mean(dim=-1) for part in x], dim=1) if self.global_pool else x

    def forward_head(self, x: list[Tensor], pre_logits: bool = False) -> Any:  # type: ignore[override]
        """Features -> logits, or what `pool` gives."""
        if not self.global_pool:
            return x
        means = self.head_drop(self.pool(x))
        return means if pre_logits or self.num_classes == 0 else self.classify(means)

    def classify(self, means: Tensor) -> Any:
        """Pooled features -> logits."""
        return self.weighted_sum(self.heads, self.weights, means)

    def weighted_sum(self, heads: Any, weights: Tensor, means: Tensor) -> Tensor:
        """Logits of all heads, each of its part of the features, by their weights' softmax."""
        parts, shares = means.split([*self.embed_dim, self.embed_dim[-1]], dim=1), weights.softmax(dim=-1)
        return torch.stack([shares[i] * head(parts[i]) for i, head in enumerate(heads)]).sum(dim=0)

    def check_pool(self, pool_type: str) -> None:
        super().check_pool(pool_type)
        if not pool_type and self.num_classes > 0:
            raise ValueError("a classifier needs pooled features: global_pool '' goes with num_classes=0")

    @property
    def classifier_paths(self) -> tuple[str, ...]:
        return tuple(f"{name}.{i}" for name in self.head_lists for i in range(len(self.embed_dim) + 1))

    def get_classifier(self, name_only: bool = False) -> Any:
        return "heads" if name_only else self.heads

    def make_heads(self, num_classes: int) -> nn.ModuleList:
        """A classifier for each of the features, or identities for 0 classes."""
        return nn.ModuleList([
            nn.Linear(dim, num_classes) if num_classes > 0 else nn.Identity()
            for dim in (*self.embed_dim, self.embed_dim[-1])])

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, reset_other: bool = False) -> None:
        """As every model's; `reset_other` removes the norms, too."""
        self.num_classes, like = num_classes, self.weights
        self.set_global_pool(self.global_pool if global_pool is None else global_pool)
        if reset_other:
            self.norm = nn.ModuleList([nn.Identity() for _ in self.norm])
        for name in self.head_lists:
            setattr(self, name, self.make_heads(num_classes).to(like.device, like.dtype).train(self.training))
            getattr(self, name.replace("heads", "weights")).requires_grad_(num_classes > 0)
        self.init_modules(self.classifier_paths)

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """As every model's; norms that no named feature needs go with the head, which cannot stay where stages go."""
        taken = take_indices(len(self.stages), indices)
        count = max(taken) + 1
        if count < len(self.stages):
            if not prune_head:
                raise ValueError("the classifiers read all stages: prune_head has to be True where some go")
            self.stages = self.stages[:count]
            setattr(self.stages[-1], "downsample", None)  # noqa: B010
            self.norm = nn.ModuleList([*self.norm[:count], nn.Identity()])
            for name in self.head_lists:
                name = name.replace("heads", "weights")
                weights = getattr(self, name).detach()
                setattr(self, name, nn.Parameter(torch.cat((weights[:count], weights[-1:]))))
            self.set_widths(self.embed_dim[:count])
        if prune_norm or prune_head:
            self.norm = nn.ModuleList([
                nn.Identity() if prune_norm or i not in taken else norm for i, norm in enumerate(self.norm)])
        if prune_head:
            self.reset_classifier(0)
        return taken

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = [(r"^stages\.(\d+)", None)] if coarse else [
            (r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^stages\.(\d+)\.downsample", (99999,)), (r"^norm", (99999,))]
        return dict(stem=r"^patch_embed", blocks=blocks)

    def reset_parameters(self) -> None:
        for weights in self._parameters.values():
            if weights is not None:
                nn.init.ones_(weights)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, _BatchNorm):  # all begin with 1, unlike those of single blocks
            nn.init.ones_(module.weight)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Leave out a teacher's classifiers, and weights of stages, that are not here; flatten the authors' norms."""
        own, fitted = self.state_dict(), {}
        for key, value in state_dict.items():
            if key in own and key.startswith("weights") and len(own[key]) < len(value):
                value = torch.cat((value[:len(own[key]) - 1], value[-1:]))
            elif key in own and own[key].numel() == value.numel():
                value = value.reshape(own[key].shape)
            if key in own or not key.startswith(("heads_dist.", "weights_dist")):
                fitted[key] = value
        return fitted


class EfficientViMDistilled(EfficientViM):
    """An EfficientViM with classifiers that learn from a teacher, `heads_dist`, too. Shapes as `Distilled`'s."""

    head_lists: ClassVar[tuple[str, ...]] = ("heads", "heads_dist")
    distilled_training: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weights_dist = nn.Parameter(torch.empty_like(self.weights), requires_grad=self.num_classes > 0)
        self.heads_dist = self.make_heads(self.num_classes)
        self.init_modules(["", *(path for path in self.classifier_paths if path.startswith("heads_dist"))])

    def set_distilled_training(self, enable: bool = True) -> None:
        """Whether training returns both logits, for a loss of each."""
        self.distilled_training = enable

    def classify(self, means: Tensor) -> Any:
        own, distilled = super().classify(means), self.weighted_sum(self.heads_dist, self.weights_dist, means)
        return (own, distilled) if self.distilled_training and self.training else (own + distilled) / 2


def _efficientvim(distilled: bool = False, **kwargs: Any) -> EfficientViM:
    """`distilled`: with classifiers that learn from a teacher."""
    return (EfficientViMDistilled if distilled else EfficientViM)(**kwargs)


_SIZES: dict[str, dict[str, Any]] = {
    "m1": dict(embed_dim=(128, 192, 320)),
    "m2": {},
    "m3": dict(embed_dim=(224, 320, 512)),
    "m4": dict(embed_dim=(224, 320, 512), depths=(3, 4, 2), state_dim=(64, 32, 16)),
}

register_model.variants(__name__, _efficientvim, {
    **{f"efficientvim_{size}": row for size, row in _SIZES.items()},
    **{f"efficientvim_{size}_dist": (row, dict(distilled=True)) for size, row in _SIZES.items()},
})
