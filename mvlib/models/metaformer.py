"""MetaFormers: transformers whose attention is any function that mixes positions: a pool, a convolution, attention.

- PoolFormer: Yu et al., "MetaFormer Is Actually What You Need for Vision", 2021, arXiv:2111.11418.
- PoolFormer V2, ConvFormer, CAFormer: Yu et al., "MetaFormer Baselines for Vision", 2022, arXiv:2210.13452.

All but the first have norms without bias, StarReLU, factors on the shortcuts of the last stages, and a hidden layer in
the classifier (PoolFormer V2 has not). A CAFormer is convolutional in two stages and attends in two.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import Mlp, NormMlpClassifierHead, Stage, attention, init_trunc_normal, placeable, run_blocks, to_ntuple
from ..layers.activations import ActLayer, get_act_layer
from ..layers.drop import DropPath, drop_path_rates
from ..layers.norm import GroupNorm1, LayerNorm, LayerNorm2d
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, StateDict, Step, rename_keys, reshape_alike

if TYPE_CHECKING:
    from ._variants.metaformer import *

__all__ = ["MetaFormer"]

Layer = Callable[..., nn.Module]


class _NoBias(nn.Module):
    """Mixed into a norm: it has a scale alone, and an eps of 1e-6."""

    @placeable
    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(num_channels, eps=eps, affine=affine)
        self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        for weight in self._parameters.values():
            if weight is not None:
                nn.init.ones_(weight)


class GroupNorm1NoBias(_NoBias, GroupNorm1):
    """`GroupNorm1` without a bias."""


class LayerNorm2dNoBias(_NoBias, LayerNorm2d):
    """`LayerNorm2d` without a bias."""


class LayerNormNoBias(_NoBias, LayerNorm):
    """`LayerNorm` without a bias."""


class SquaredReLU(nn.Module):
    """relu(x) ** 2 (So et al., 2021, arXiv:2109.08668)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x, self.inplace).square()


class StarReLU(nn.Module):
    """scale * relu(x) ** 2 + bias, both learned, one number each; keys `scale`, `bias`. `mode` is without effect."""

    @placeable
    def __init__(
        self, scale_value: float = 1.0, bias_value: float = 0.0, scale_learnable: bool = True,
        bias_learnable: bool = True, mode: str | None = None, inplace: bool = False,
    ) -> None:
        super().__init__()
        self.scale_value, self.bias_value, self.inplace = scale_value, bias_value, inplace
        self.scale = nn.Parameter(torch.empty(1), requires_grad=scale_learnable)
        self.bias = nn.Parameter(torch.empty(1), requires_grad=bias_learnable)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.scale, self.scale_value)
        nn.init.constant_(self.bias, self.bias_value)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.relu(x, self.inplace).square() + self.bias


class Scale(nn.Module):
    """A factor per channel; key `scale`. Shapes: (B, dim, H, W) -> same, or (..., dim) unless `use_nchw`."""

    @placeable
    def __init__(self, dim: int, init_value: float = 1.0, trainable: bool = True, use_nchw: bool = True) -> None:
        super().__init__()
        self.init_value = init_value
        self.shape = (dim, 1, 1) if use_nchw else (dim,)
        self.scale = nn.Parameter(torch.empty(dim), requires_grad=trainable)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.scale, self.init_value)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.view(self.shape)


# what mixes positions; each takes the others' arguments, too, and ignores them


class Pooling(nn.Module):
    """The mean of a position's neighbours, less the position itself. Shapes: (B, C, H, W) -> same."""

    def __init__(self, pool_size: int = 3, **kwargs: Any) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(pool_size, stride=1, padding=pool_size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


class SepConv(nn.Sequential):
    """MobileNet V2's inverted separable convolution. Shapes: (B, dim, H, W) -> same."""

    @placeable
    def __init__(
        self, dim: int, expansion_ratio: float = 2, act1_layer: ActLayer = StarReLU, act2_layer: ActLayer = nn.Identity,
        bias: bool = False, kernel_size: int = 7, padding: int = 3, **kwargs: Any,
    ) -> None:
        super().__init__()
        chs = int(expansion_ratio * dim)
        self.pwconv1 = nn.Conv2d(dim, chs, 1, bias=bias)
        self.act1 = get_act_layer(act1_layer)()
        self.dwconv = nn.Conv2d(chs, chs, kernel_size, padding=padding, groups=chs, bias=bias)
        self.act2 = get_act_layer(act2_layer)()
        self.pwconv2 = nn.Conv2d(chs, dim, 1, bias=bias)


class Attention(attention.Attention):
    """Attention whose heads have `head_dim` channels; as many as make `dim` unless `num_heads`. (B, N, dim) -> same."""

    @placeable
    def __init__(
        self, dim: int, head_dim: int = 32, num_heads: int | None = None, qkv_bias: bool = False,
        attn_drop: float = 0.0, proj_drop: float = 0.0, proj_bias: bool = False, **kwargs: Any,
    ) -> None:
        super().__init__(
            dim, num_heads or max(dim // head_dim, 1), head_dim, qkv_bias=qkv_bias, proj_bias=proj_bias,
            attn_drop=attn_drop, proj_drop=proj_drop)


class MetaFormerBlock(nn.Module):
    """What mixes positions, then an MLP, each with norm and shortcut; branches and shortcuts may have learned factors.

    Shapes: (B, dim, H, W) -> same, or (B, N, dim) unless `use_nchw`.

    Args:
        token_mixer: What mixes positions, from `dim`, `proj_drop` and the further arguments.
        proj_drop: Dropout in the MLP and of what is mixed.
        use_nchw: Whether channels come first.
        layer_scale_init_value, res_scale_init_value: Initial factors of branches and of shortcuts; None for none.
    """

    @placeable
    def __init__(
        self, dim: int, token_mixer: Layer = Pooling, mlp_act: ActLayer = StarReLU, mlp_bias: bool = False,
        norm_layer: Layer = LayerNorm2d, proj_drop: float = 0.0, drop_path: float = 0.0, use_nchw: bool = True,
        layer_scale_init_value: float | None = None, res_scale_init_value: float | None = None, **kwargs: Any,
    ) -> None:
        super().__init__()

        def scale(init_value: float | None) -> nn.Module:
            return nn.Identity() if init_value is None else Scale(dim, init_value, use_nchw=use_nchw)

        self.norm1 = norm_layer(dim)
        self.token_mixer = token_mixer(dim=dim, proj_drop=proj_drop, **kwargs)
        self.drop_path1 = DropPath(drop_path)
        self.layer_scale1, self.res_scale1 = scale(layer_scale_init_value), scale(res_scale_init_value)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, 4 * dim, act_layer=mlp_act, bias=mlp_bias, drop=proj_drop, use_conv=use_nchw)
        self.drop_path2 = DropPath(drop_path)
        self.layer_scale2, self.res_scale2 = scale(layer_scale_init_value), scale(res_scale_init_value)

    def forward(self, x: Tensor) -> Tensor:
        x = self.res_scale1(x) + self.layer_scale1(self.drop_path1(self.token_mixer(self.norm1(x))))
        return self.res_scale2(x) + self.layer_scale2(self.drop_path2(self.mlp(self.norm2(x))))


class Stem(nn.Module):
    """A 7x7 convolution of stride 4, and a norm, where there is one; keys `conv`, `norm`."""

    @placeable
    def __init__(self, in_channels: int, out_channels: int, norm_layer: Layer | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 7, stride=4, padding=2)
        self.norm = norm_layer(out_channels) if norm_layer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Downsampling(nn.Sequential):
    """A norm, where there is one, and a convolution; keys `norm`, `conv`."""

    @placeable
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0,
        norm_layer: Layer | None = None,
    ) -> None:
        super().__init__()
        self.norm = norm_layer(in_channels) if norm_layer else nn.Identity()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding)


class MetaFormerStage(Stage):
    """Downsampling, where the width changes, then blocks; those that attend take a map as a sequence.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 2, W / 2), or (B, out_chs, H, W) of the same width.

    `downsample_norm` comes before the downsampling, None for none; `dp_rates` is the stochastic depth of each block;
    all else as `MetaFormerBlock`.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, depth: int = 2, token_mixer: Layer = nn.Identity, mlp_act: ActLayer = StarReLU,
        mlp_bias: bool = False, downsample_norm: Layer | None = LayerNorm2d, norm_layer: Layer = LayerNorm2d,
        proj_drop: float = 0.0, dp_rates: Sequence[float] = (0.0, 0.0), layer_scale_init_value: float | None = None,
        res_scale_init_value: float | None = None, **kwargs: Any,
    ) -> None:
        super().__init__()
        self.use_nchw = not (isinstance(token_mixer, type) and issubclass(token_mixer, Attention))
        self.downsample = nn.Identity() if in_chs == out_chs else Downsampling(
            in_chs, out_chs, kernel_size=3, stride=2, padding=1, norm_layer=downsample_norm)
        self.blocks = nn.Sequential(*(
            MetaFormerBlock(
                out_chs, token_mixer, mlp_act, mlp_bias, norm_layer, proj_drop, dp_rates[i], self.use_nchw,
                layer_scale_init_value, res_scale_init_value, **kwargs)
            for i in range(depth)))

    def forward(self, x: Tensor, *shared: Any) -> Tensor:
        x = self.downsample(x)
        height, width = x.shape[2:]
        if not self.use_nchw:
            x = x.flatten(2).transpose(1, 2)
        x = run_blocks(self.blocks, x, *shared, recompute=self.grad_checkpointing)
        return x if self.use_nchw else x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)


class MlpHead(nn.Sequential):
    """A classifier with a hidden layer, normalised; keys `fc1`, `norm`, `fc2`. (..., dim) -> (..., num_classes)."""

    @placeable
    def __init__(
        self, dim: int, num_classes: int = 1000, mlp_ratio: float = 4, act_layer: Layer = SquaredReLU,
        norm_layer: Layer = LayerNorm, drop_rate: float = 0.0, bias: bool = True,
    ) -> None:
        super().__init__()
        hidden = int(mlp_ratio * dim)
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.act = act_layer()
        self.norm = norm_layer(hidden)
        self.head_drop = nn.Dropout(drop_rate)
        self.fc2 = nn.Linear(hidden, num_classes, bias=bias)


class _Head(NormMlpClassifierHead):
    """Pooling, norm, dropout, and a classifier of linear layers, which without pooling takes each position."""

    def __init__(
        self, in_features: int, num_classes: int, pool_type: str, drop_rate: float, norm_layer: Layer, use_mlp: bool
    ) -> None:
        super().__init__(in_features, 0, None, pool_type, drop_rate, norm_layer)
        self.use_mlp = use_mlp
        self.fc = self.make_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Module:
        if num_classes <= 0:
            return nn.Identity()
        return (MlpHead if self.use_mlp else nn.Linear)(self.in_features, num_classes)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.pool(x))
        if pre_logits:
            return x
        return self.fc(x) if self.global_pool.pool_type else self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MetaFormer(ImageModel):
    """A convolution, stages of MetaFormer blocks, pooling, norm and classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32.

    Args:
        global_pool: "avg", "max", "avgmax" or "" for none, with which the logits are a map.
        depths, dims: Blocks and channels of each stage; one that is as wide as the one before does not downsample.
        token_mixers: What mixes positions, one or one a stage.
        mlp_act, mlp_bias: Activation and biases of the MLPs.
        proj_drop_rate: Dropout in the blocks.
        layer_scale_init_values, res_scale_init_values: Initial factors of branches and of shortcuts, one or one a
            stage; None for none.
        downsample_norm: Norm behind the stem and before each downsampling; None for none.
        norm_layers: Norm of the blocks, one or one a stage.
        output_norm: Norm of what was pooled.
        use_mlp_head: A hidden layer in the classifier.
        mixer_args: Further arguments of all token mixers.

    Raises:
        TypeError: No token mixer has an argument of this name.
        ValueError: An option has an unknown value, or not one for each stage.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    inits: ClassVar[Inits] = {(nn.Conv2d, nn.Linear): init_trunc_normal}

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
        depths: int | Sequence[int] = (2, 2, 6, 2), dims: int | Sequence[int] = (64, 128, 320, 512),
        token_mixers: Layer | Sequence[Layer] = Pooling, mlp_act: ActLayer = StarReLU, mlp_bias: bool = False,
        drop_path_rate: float = 0.0, proj_drop_rate: float = 0.0, drop_rate: float = 0.0,
        layer_scale_init_values: float | Sequence[float | None] | None = None,
        res_scale_init_values: float | Sequence[float | None] | None = (None, None, 1.0, 1.0),
        downsample_norm: Layer | None = LayerNorm2dNoBias, norm_layers: Layer | Sequence[Layer] = LayerNorm2dNoBias,
        output_norm: Layer = LayerNorm2d, use_mlp_head: bool = True, **mixer_args: Any,
    ) -> None:
        super().__init__()
        depths = [depths] if isinstance(depths, int) else list(depths)
        options = dict(dims=dims, token_mixers=token_mixers, norm_layers=norm_layers,
                       layer_scale_init_values=layer_scale_init_values, res_scale_init_values=res_scale_init_values)
        rows = {name: to_ntuple(len(depths))(value) for name, value in options.items()}
        for name, row in rows.items():
            if len(row) != len(depths):
                raise ValueError(f"{name} has {len(row)} values, not one for each of {len(depths)} stages")
        known = {name for mixer in rows["token_mixers"] for name in inspect.signature(mixer).parameters} - {"kwargs"}
        if unknown := sorted(mixer_args.keys() - known):
            raise TypeError(f"MetaFormer got an unexpected argument '{unknown[0]}'; beside its own it takes those of "
                            f"its token mixers: {', '.join(sorted(known))}")
        self.num_classes, self.in_chans, self.use_mlp_head = num_classes, in_chans, use_mlp_head
        chs, reduction = rows["dims"][0], 4
        self.stem = Stem(in_chans, chs, downsample_norm)
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("stem")], stages=[])
        for i, (dim, mixer, norm, layer_scale, res_scale) in enumerate(zip(*rows.values())):
            rates = drop_path_rates(drop_path_rate, depths)[i]
            self.stages.append(MetaFormerStage(
                chs, dim, depths[i], mixer, mlp_act, mlp_bias, downsample_norm, norm, proj_drop_rate, rates,
                layer_scale, res_scale, **mixer_args))
            reduction *= 1 if dim == chs else 2
            chs = dim
            self.flow.stages.append(Step(f"stages.{i}", chs, reduction))
        self.num_features = self.head_hidden_size = chs
        self.head = _Head(chs, num_classes, global_pool, drop_rate, output_norm, use_mlp_head)
        self.init_weights()


_DEPTHS = {"s12": (2, 2, 6, 2), "s24": (4, 4, 12, 4), "s36": (6, 6, 18, 6), "m36": (6, 6, 18, 6), "m48": (8, 8, 24, 8)}
_POOLS = {size: dict(depths=depths, dims=(96, 192, 384, 768) if size[0] == "m" else (64, 128, 320, 512))
          for size, depths in _DEPTHS.items()}
_POOL = dict(downsample_norm=None, mlp_act=nn.GELU, mlp_bias=True, norm_layers=GroupNorm1, res_scale_init_values=None,
             use_mlp_head=False)
_POOL2 = dict(norm_layers=GroupNorm1NoBias, use_mlp_head=False)
_BASELINES = {
    "s18": dict(depths=(3, 3, 9, 3)),
    "s36": dict(depths=(3, 12, 18, 3)),
    "m36": dict(depths=(3, 12, 18, 3), dims=(96, 192, 384, 576)),
    "b36": dict(depths=(3, 12, 18, 3), dims=(128, 256, 512, 768)),
}
_CONV = dict(token_mixers=SepConv)
_CONV_ATTN = dict(token_mixers=(SepConv, SepConv, Attention, Attention),
                  norm_layers=(LayerNorm2dNoBias, LayerNorm2dNoBias, LayerNormNoBias, LayerNormNoBias))

register_model.variants(__name__, MetaFormer, {
    **{f"poolformer_{size}": (args, _POOL, dict(layer_scale_init_values=1e-5 if size in ("s12", "s24") else 1e-6))
       for size, args in _POOLS.items()},
    **{f"poolformerv2_{size}": (args, _POOL2) for size, args in _POOLS.items()},
    **{f"convformer_{size}": (args, _CONV) for size, args in _BASELINES.items()},
    **{f"caformer_{size}": (args, _CONV_ATTN) for size, args in _BASELINES.items()},
})


_ENDS = ((r"^head\.", "head.fc."), (r"^norm\.", "head.norm."))


def _from_poolformer(state_dict: StateDict, model: nn.Module) -> StateDict:
    """Stages have even numbers in one list, downsampling odd ones."""
    return reshape_alike(rename_keys(
        state_dict, (r"^network\.([135])\.proj\.", lambda m: f"stages.{(int(m[1]) + 1) // 2}.downsample.conv."),
        (r"^network\.(\d)\.", lambda m: f"stages.{int(m[1]) // 2}.blocks."),
        (r"layer_scale_(\d)", r"layer_scale\1.scale"), (r"^patch_embed\.proj\.", "stem.conv."), *_ENDS), model)


def _from_baselines(state_dict: StateDict, model: nn.Module) -> StateDict:
    return reshape_alike(rename_keys(
        state_dict, (r"^stages\.(\d)\.", r"stages.\1.blocks."), (r"^downsample_layers\.0\.", "stem."),
        (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."), (r"\.(?:pre|post)_norm\.", ".norm."), *_ENDS), model)


MetaFormer.key_maps = (
    KeyMap("poolformer", lambda keys: "network.0.0.mlp.fc1.weight" in keys, _from_poolformer),
    KeyMap("baselines", lambda keys: "downsample_layers.0.conv.weight" in keys, _from_baselines),
)
