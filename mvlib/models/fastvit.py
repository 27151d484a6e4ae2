"""FastViT: convolutions mix positions in its early stages, attention in the late ones; branches and shortcuts merge.

Vasu et al., "FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization", 2023, arXiv:2303.14189.
"mci" are the image towers of MobileCLIP (arXiv:2311.17049) and MobileCLIP2 (arXiv:2508.20691), whose projection is the
classifier. `mvlib.optimize` (or `reparameterize()`) leaves one convolution of each set of branches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import attention
from ..layers.activations import ActLayer, get_act_layer
from ..layers.branches import BranchedBlock, merge_branches, norm_as_scale_and_shift, one_branch, spread_merged
from ..layers.channel_attention import SEModule
from ..layers.conv import ConvNormAct, num_groups
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import Module, Sequential, extend_tuple, to_2tuple
from ..layers.mlp import LayerScale
from ..layers.norm import LayerNorm2d, NormLayer, get_norm_layer
from ..layers.pool import ClassifierHead
from ..layers.stage import Stage, run_blocks
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from .base import Flow, ImageModel, KeyMap, StateDict, Step, rename_keys
from .efficientformer import split_network

if TYPE_CHECKING:
    from ._variants.fastvit import *

__all__ = ["FastVit"]

Layer = Callable[..., Any]


class _Branched(BranchedBlock):
    """A `BranchedBlock` whose attention is `se`, and which may be made merged."""

    se: nn.Module

    def begin(
        self, in_chs: int, out_chs: int, kernel_size: int, stride: int, dilation: int, groups: int, merged: bool
    ) -> Layer:
        """Add the merged convolution, if it is asked for. Returns what makes a branch of a kernel size."""
        if merged:
            self.reparam_conv = nn.Conv2d(
                in_chs, out_chs, kernel_size, stride, dilation * (kernel_size - 1) // 2, dilation, groups)
        return partial(ConvNormAct, in_chs, out_chs, stride=stride, groups=groups, apply_act=False)

    def finish(self, total: Tensor) -> Tensor:
        return self.act(self.se(total))


class MobileOneBlock(_Branched):
    """The sum of k x k convolutions, a 1x1 one and the input, each with a norm; attention, activation.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        group_size: Channels in a group of the convolutions, 0 for one group.
        inference_mode: Made as it is once merged; `dilation` is of that alone.
        use_scale_branch: Whether there is a 1x1 convolution, where k > 1.
        num_conv_branches: Convolutions; with none, and no 1x1 one, the norm of the input alone, which does not merge.
    """

    branch_names: ClassVar[tuple[str, ...]] = ("conv_scale", "conv_kxk")

    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int, stride: int = 1, dilation: int = 1, group_size: int = 0,
        inference_mode: bool = False, use_se: bool = False, use_act: bool = True, use_scale_branch: bool = True,
        num_conv_branches: int = 1, act_layer: Layer = nn.GELU,
    ) -> None:
        super().__init__()
        self.se = SEModule(out_chs, rd_divisor=1) if use_se else nn.Identity()
        groups = num_groups(group_size, in_chs)
        conv = self.begin(in_chs, out_chs, kernel_size, stride, dilation, groups, inference_mode)
        self.conv_kxk = self.conv_scale = None
        if not inference_mode:
            self.identity = nn.BatchNorm2d(in_chs) if out_chs == in_chs and stride == 1 else None
            if num_conv_branches > 0:
                self.conv_kxk = nn.ModuleList(conv(kernel_size) for _ in range(num_conv_branches))
            self.conv_scale = conv(1) if kernel_size > 1 and use_scale_branch else None
        self.act = act_layer() if use_act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.reparam_conv is None and not self.branches and self.identity is not None:
            return self.finish(self.identity(x))
        return super().forward(x)


class ReparamLargeKernelConv(_Branched):
    """Convolutions of a large and a small kernel, added (arXiv:2203.06717), attention, activation. Shapes as above."""

    branch_names: ClassVar[tuple[str, ...]] = ("small_conv", "large_conv")

    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int, stride: int, group_size: int,
        small_kernel: int | None = None, use_se: bool = False, act_layer: Layer | None = None,
        inference_mode: bool = False,
    ) -> None:
        super().__init__()
        conv = self.begin(in_chs, out_chs, kernel_size, stride, 1, num_groups(group_size, in_chs), inference_mode)
        self.large_conv = None if inference_mode else conv(kernel_size)
        self.small_conv = None if inference_mode or small_kernel is None else conv(small_kernel)
        self.se = SEModule(out_chs, rd_ratio=0.25) if use_se else nn.Identity()
        self.act = act_layer() if act_layer is not None else nn.Identity()


def convolutional_stem(
    in_chs: int, out_chs: int, act_layer: Layer = nn.GELU, inference_mode: bool = False, use_scale_branch: bool = True,
    device: Any = None, dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """Three MobileOne blocks: 3x3, depthwise 3x3, both strided, and 1x1. Shapes: (B, C, H, W) -> (B, C', H/4, W/4)."""
    make: Layer = MobileOneBlock
    block = partial(make, out_chs=out_chs, act_layer=act_layer, inference_mode=inference_mode,
                    use_scale_branch=use_scale_branch, device=device, dtype=dtype)
    return nn.Sequential(block(in_chs, kernel_size=3, stride=2),
                         block(out_chs, kernel_size=3, stride=2, group_size=1), block(out_chs, kernel_size=1))


class Attention(attention.Attention):
    """Multi-head self-attention of the positions of a map; keys `qkv`, `proj`. Shapes: (B, dim, H, W) -> same."""

    def __init__(
        self, dim: int, head_dim: int = 32, qkv_bias: bool = False, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        if dim % head_dim:
            raise ValueError(f"{dim} channels cannot be divided into heads of {head_dim}")
        super().__init__(dim, dim // head_dim, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=proj_drop)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape_as(x)


class PatchEmbed(Sequential):
    """A strided depthwise convolution of a large kernel, and a 1x1 block: (B, C, H, W) -> (B, C', H/stride, ...)."""

    def __init__(
        self, patch_size: int, stride: int, in_chs: int, embed_dim: int, act_layer: Layer = nn.GELU,
        lkc_use_act: bool = False, use_se: bool = False, inference_mode: bool = False,
    ) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            ReparamLargeKernelConv(in_chs, embed_dim, patch_size, stride, 1, 3, use_se,
                                   act_layer if lkc_use_act else None, inference_mode),
            MobileOneBlock(embed_dim, embed_dim, 1, act_layer=act_layer, inference_mode=inference_mode))


class LayerScale2d(LayerScale):
    """A factor for each channel; key `gamma`, (dim, 1, 1). Shapes: (B, dim, H, W) -> same."""

    def __init__(self, dim: int, init_values: float = 1e-5, inplace: bool = False) -> None:
        super().__init__(dim, init_values, inplace)
        self.gamma = nn.Parameter(self.gamma.detach().view(dim, 1, 1))


def _scale(dim: int, init_values: float | None) -> nn.Module:
    return nn.Identity() if init_values is None else LayerScale2d(dim, init_values)


def _add_input(kernel: Tensor, factor: Any = 1.0) -> Tensor:
    """A depthwise kernel (C, 1, kh, kw) that also adds its input, times a factor."""
    kernel = kernel.clone()
    kernel[:, 0, kernel.shape[2] // 2, kernel.shape[3] // 2] += factor
    return kernel


class _Merging(Module):
    """A module that may become its `reparam_conv`, a depthwise convolution."""

    merged_path: ClassVar[str] = "reparam_conv"
    names: ClassVar[tuple[str, ...]]  # of what it is made of before

    def __init__(self) -> None:
        super().__init__()
        self.reparam_conv: nn.Conv2d | None = None

    @property
    def is_reparameterized(self) -> bool:
        return self.reparam_conv is not None

    def put(self, weight: Tensor, bias: Tensor) -> None:
        """Become a convolution of these."""
        chs, _, height, width = weight.shape
        conv = nn.Conv2d(chs, chs, (height, width), padding=(height // 2, width // 2), groups=chs, device="meta")
        conv.weight, conv.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
        self.reparam_conv = conv.train(self.training)
        for name in self.names:
            delattr(self, name)


class RepMixer(_Merging):
    """Mixes positions: x + scale * (branches(x) - norm(x)), which may become a depthwise convolution."""

    names: ClassVar[tuple[str, ...]] = ("norm", "mixer", "layer_scale")

    def __init__(
        self, dim: int, kernel_size: int = 3, layer_scale_init_value: float | None = 1e-5, inference_mode: bool = False
    ) -> None:
        super().__init__()
        if inference_mode:
            self.reparam_conv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
            return
        block = partial(MobileOneBlock, dim, dim, kernel_size, group_size=1, use_act=False)
        self.norm, self.mixer = block(use_scale_branch=False, num_conv_branches=0), block()
        self.layer_scale = _scale(dim, layer_scale_init_value)

    def forward(self, x: Tensor) -> Tensor:
        if self.reparam_conv is not None:
            return self.reparam_conv(x)
        return x + self.layer_scale(self.mixer(x) - self.norm(x))

    @torch.no_grad()
    def reparameterize(self) -> RepMixer:
        if self.reparam_conv is None:
            branches = self.mixer.branches
            mixed: Any = merge_branches([*branches, self.mixer.identity], like=branches[-1].conv)
            scale, shift = norm_as_scale_and_shift(self.norm.identity)
            gamma = self.layer_scale.gamma.flatten() if isinstance(self.layer_scale, LayerScale2d) else \
                torch.ones_like(shift)
            weight = _add_input(mixed.weight, -scale) * gamma.view(-1, 1, 1, 1)
            self.put(_add_input(weight), gamma * (mixed.bias - shift))
        return self

    def spread(self, weight: Tensor, bias: Tensor) -> StateDict:
        """For `spread_merged`."""
        conv = "mixer.conv_kxk.0"
        state = one_branch(self, ("norm", "mixer"), f"{conv}.conv", f"{conv}.bn", _add_input(weight, -1), bias)
        return {**state, **{f"layer_scale.{key}": torch.ones_like(value)
                            for key, value in self.layer_scale.state_dict().items()}}


class ConvMlp(Module):
    """A depthwise 7x7 convolution with a norm, two 1x1 ones around an activation: (B, C, H, W) -> (B, C', H, W)."""

    def __init__(
        self, in_chs: int, hidden_channels: int | None = None, out_chs: int | None = None, act_layer: Layer = nn.GELU,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        out_chs, hidden = out_chs or in_chs, hidden_channels or in_chs
        self.conv = ConvNormAct(in_chs, out_chs, 7, groups=in_chs, apply_act=False)
        self.fc1, self.act, self.fc2 = nn.Conv2d(in_chs, hidden, 1), act_layer(), nn.Conv2d(hidden, out_chs, 1)
        self.drop = nn.Dropout(drop)
        module: Any
        for module in (self.conv.conv, self.fc1, self.fc2):
            init_trunc_normal(module)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(self.conv(x))))))


class RepConditionalPosEnc(_Merging):
    """A depthwise convolution of positions, added to the input, which `reparameterize()` merges (arXiv:2102.10882)."""

    names: ClassVar[tuple[str, ...]] = ("pos_enc",)
    pos_enc: Any

    def __init__(
        self, dim: int, dim_out: int | None = None, spatial_shape: int | tuple[int, int] = (7, 7),
        inference_mode: bool = False,
    ) -> None:
        super().__init__()
        sides = to_2tuple(spatial_shape)
        conv = nn.Conv2d(dim, dim_out or dim, sides, padding=sides[0] // 2, groups=dim)
        setattr(self, "reparam_conv" if inference_mode else "pos_enc", conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.pos_enc(x) + x if self.reparam_conv is None else self.reparam_conv(x)

    @torch.no_grad()
    def reparameterize(self) -> RepConditionalPosEnc:
        if self.reparam_conv is None:
            self.put(_add_input(self.pos_enc.weight), self.pos_enc.bias.clone())
        return self

    def spread(self, weight: Tensor, bias: Tensor) -> StateDict:
        """For `spread_merged`."""
        return {"pos_enc.weight": _add_input(weight, -1), "pos_enc.bias": bias}


class RepMixerBlock(Module):
    """`RepMixer`, then a `ConvMlp` with a shortcut. Shapes: (B, dim, H, W) -> same."""

    def __init__(
        self, dim: int, kernel_size: int = 3, mlp_ratio: float = 4.0, act_layer: Layer = nn.GELU,
        proj_drop: float = 0.0, drop_path: float = 0.0, layer_scale_init_value: float | None = 1e-5,
        inference_mode: bool = False,
    ) -> None:
        super().__init__()
        self.token_mixer = RepMixer(dim, kernel_size, layer_scale_init_value, inference_mode)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.layer_scale, self.drop_path = _scale(dim, layer_scale_init_value), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        return x + self.drop_path(self.layer_scale(self.mlp(x)))


class AttentionBlock(Module):
    """Attention behind a norm, then a `ConvMlp`, each with a shortcut. Shapes: (B, dim, H, W) -> same."""

    def __init__(
        self, dim: int, mlp_ratio: float = 4.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.BatchNorm2d,
        proj_drop: float = 0.0, drop_path: float = 0.0, layer_scale_init_value: float | None = 1e-5,
    ) -> None:
        super().__init__()
        self.norm, self.token_mixer = norm_layer(dim), Attention(dim)
        self.layer_scale_1, self.drop_path1 = _scale(dim, layer_scale_init_value), DropPath(drop_path)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.layer_scale_2, self.drop_path2 = _scale(dim, layer_scale_init_value), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.layer_scale_1(self.token_mixer(self.norm(x))))
        return x + self.drop_path2(self.layer_scale_2(self.mlp(x)))


class FastVitStage(Stage):
    """Downsampling, where asked for, positions, which `pos_emb_layer` makes of so many channels, and blocks.

    Keys `downsample`, `pos_emb`, `blocks`. `drop_path_rate` is a rate for each block, or one.

    Raises:
        ValueError: The token mixer is neither "repmixer" nor "attention".
    """

    def __init__(
        self, dim: int, dim_out: int, depth: int, token_mixer_type: str, downsample: bool = True,
        se_downsample: bool = False, down_patch_size: int = 7, down_stride: int = 2,
        pos_emb_layer: Layer | None = None, kernel_size: int = 3, mlp_ratio: float = 4.0, act_layer: Layer = nn.GELU,
        norm_layer: Layer = nn.BatchNorm2d, proj_drop_rate: float = 0.0, drop_path_rate: Any = 0.0,
        layer_scale_init_value: float | None = 1e-5, lkc_use_act: bool = False, inference_mode: bool = False,
    ) -> None:
        super().__init__()
        common = dict(mlp_ratio=mlp_ratio, act_layer=act_layer, proj_drop=proj_drop_rate,
                      layer_scale_init_value=layer_scale_init_value)
        kinds: dict[str, Layer] = {
            "repmixer": partial(RepMixerBlock, kernel_size=kernel_size, inference_mode=inference_mode),
            "attention": partial(AttentionBlock, norm_layer=norm_layer)}
        if token_mixer_type not in kinds:
            raise ValueError(f"unknown token mixer {token_mixer_type!r}; known: 'repmixer', 'attention'")
        down = (down_patch_size, down_stride, dim, dim_out, act_layer, lkc_use_act, se_downsample, inference_mode)
        self.downsample = PatchEmbed(*down) if downsample else nn.Identity()
        self.pos_emb = pos_emb_layer(dim_out, inference_mode=inference_mode) if pos_emb_layer else nn.Identity()
        self.blocks = nn.Sequential(*(
            kinds[token_mixer_type](dim_out, drop_path=rate, **common) for rate in extend_tuple(drop_path_rate, depth)))

    def forward(self, x: Tensor) -> Tensor:
        return run_blocks(self.blocks, self.pos_emb(self.downsample(x)), recompute=self.grad_checkpointing)


class FastVit(ImageModel):
    """Stem of MobileOne blocks, stages, a depthwise convolution with attention, pooling, a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the stem has a stride of 4, each stage that downsamples 2.

    Args:
        layers, embed_dims, mlp_ratios: Blocks, channels, and hidden channels of MLPs per channel, of each stage.
        token_mixers: "repmixer" or "attention", of each stage.
        downsamples, se_downsamples: Whether a stage downsamples, as it does, too, where channels change, and whether
            that has squeeze-and-excitation.
        repmixer_kernel_size, down_patch_size, down_stride: Kernel of the token mixers; that and stride of downsampling.
        pos_embs: What makes positions, of so many channels, for each stage; None for none.
        proj_drop_rate: Dropout in MLPs.
        layer_scale_init_value: Initial scale of residual branches; None for no scale.
        lkc_use_act: An activation behind the large kernels.
        stem_use_scale_branch: Whether the stem's blocks have a 1x1 convolution.
        cls_ratio: Channels of the last convolution per channel of the last stage.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        norm_layer: Norm before attention.
        inference_mode: Made as it is once merged.

    Raises:
        ValueError: An option has an unknown value, or not a value for each stage.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"

    def __init__(
        self, in_chans: int = 3, layers: Sequence[int] = (2, 2, 6, 2), token_mixers: Sequence[str] = ("repmixer",) * 4,
        embed_dims: Sequence[int] = (64, 128, 256, 512), mlp_ratios: Sequence[float] = (4,) * 4,
        downsamples: Sequence[bool] = (False, True, True, True), se_downsamples: Sequence[bool] = (False,) * 4,
        repmixer_kernel_size: int = 3, num_classes: int = 1000, pos_embs: Sequence[Layer | None] = (None,) * 4,
        down_patch_size: int = 7, down_stride: int = 2, drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, layer_scale_init_value: float | None = 1e-5, lkc_use_act: bool = False,
        stem_use_scale_branch: bool = True, cls_ratio: float = 2.0, global_pool: str = "avg",
        norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.GELU, inference_mode: bool = False,
    ) -> None:
        super().__init__()
        columns = (token_mixers, embed_dims, mlp_ratios, downsamples, se_downsamples, pos_embs)
        if any(len(column) < len(layers) for column in columns):
            raise ValueError(f"token_mixers, embed_dims, mlp_ratios, downsamples, se_downsamples and pos_embs have a "
                             f"value for each of the {len(layers)} stages of layers")
        self.num_classes, self.in_chans = num_classes, in_chans
        norm, act = get_norm_layer(norm_layer), get_act_layer(act_layer)
        self.stem = convolutional_stem(in_chans, embed_dims[0], act, inference_mode, stem_use_scale_branch)
        self.flow = Flow(stem=[Step("stem")], stages=[], neck=[Step("final_conv")])
        self.stages = nn.Sequential()
        chs, reduction = embed_dims[0], 4
        rates = drop_path_rates(drop_path_rate, list(layers))
        for i, (depth, stage_rates, mixer, dim, ratio, down, se, pos_emb) in enumerate(zip(layers, rates, *columns)):
            down = down or chs != dim
            self.stages.append(FastVitStage(
                chs, dim, depth, mixer, down, se, down_patch_size, down_stride, pos_emb, repmixer_kernel_size, ratio,
                act, norm, proj_drop_rate, stage_rates, layer_scale_init_value, lkc_use_act, inference_mode))
            chs, reduction = dim, reduction * 2 if down else reduction
            self.flow.stages.append(Step(f"stages.{i}", chs, reduction))
        self.default_out_indices = tuple(range(min(len(layers), 4)))  # type: ignore[misc]  # timm's, of five stages, too
        self.num_features = int(chs * cls_ratio)
        self.final_conv = MobileOneBlock(chs, self.num_features, 3, group_size=1, inference_mode=inference_mode,
                                         use_se=True, act_layer=act)
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)
        self.init_weights()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^stem", blocks=r"^stages\.(\d+)" if coarse else [
            (r"^stages\.(\d+)\.(?:downsample|pos_emb)", (0,)), (r"^stages\.(\d+)\.\w+\.(\d+)", None)])

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, nn.Linear) or isinstance(module, nn.Conv2d) and ".mlp." in name:
            init_trunc_normal(module)


_POS = partial(RepConditionalPosEnc, spatial_shape=(7, 7))
_RATIO3 = dict(mlp_ratios=(3,) * 4)
_SA = dict(token_mixers=("repmixer",) * 3 + ("attention",), pos_embs=(None,) * 3 + (_POS,))
_MCI = (_RATIO3, _SA, dict(se_downsamples=(False, False, True, True), lkc_use_act=True))
_MCI5 = dict(
    mlp_ratios=(4,) * 5, se_downsamples=(False,) * 5, downsamples=(False, True, True, True, True),
    token_mixers=("repmixer",) * 3 + ("attention",) * 2, pos_embs=(None,) * 3 + (_POS,) * 2, lkc_use_act=True,
    norm_layer=partial(LayerNorm2d, eps=1e-5), stem_use_scale_branch=False)

register_model.variants(__name__, FastVit, {
    "fastvit_t8": (_RATIO3, dict(layers=(2, 2, 4, 2), embed_dims=(48, 96, 192, 384))),
    "fastvit_t12": _RATIO3,
    "fastvit_s12": {},
    "fastvit_sa12": _SA,
    "fastvit_sa24": (_SA, dict(layers=(4, 4, 12, 4))),
    "fastvit_sa36": (_SA, dict(layers=(6, 6, 18, 6))),
    "fastvit_ma36": (_SA, dict(layers=(6, 6, 18, 6), embed_dims=(76, 152, 304, 608))),
    "fastvit_mci0": (*_MCI, dict(layers=(2, 6, 10, 2))),
    "fastvit_mci1": (*_MCI, dict(layers=(4, 12, 20, 4))),
    "fastvit_mci2": (*_MCI, dict(layers=(4, 12, 24, 4), embed_dims=(80, 160, 320, 640))),
    "fastvit_mci3": (_MCI5, dict(layers=(2, 12, 24, 4, 2), embed_dims=(96, 192, 384, 768, 1536))),
    "fastvit_mci4": (_MCI5, dict(layers=(2, 12, 24, 4, 4), embed_dims=(128, 256, 512, 1024, 2048))),
})

_CLIP, _TOWER = "module.visual.trunk.", "image_encoder.model."
_RENAMED = (
    ("patch_embed", "stem"), ("rbr_conv", "conv_kxk"), ("rbr_scale", "conv_scale"), ("rbr_skip", "identity"),
    ("conv_exp", "final_conv"), ("lkb_origin", "large_conv"), ("convffn", "mlp"), (r"se\.reduce", "se.fc1"),
    (r"se\.expand", "se.fc2"), (r"(layer_scale(?:_\d)?)$", r"\1.gamma"), (r"^head\.(?!proj$)", "head.fc."),
)


def _from_authors(state_dict: StateDict, model: nn.Module) -> StateDict:
    """Apple's FastViT and MobileCLIP; a projection becomes a classifier without bias."""
    prefix = _TOWER if any(key.startswith(_TOWER) for key in state_dict) else ""
    converted = split_network(rename_keys(state_dict, *_RENAMED, prefix=prefix), {
        "proj.": "downsample.proj.", "pe.": "pos_emb.pos_enc.", "reparam_conv.": "pos_emb.reparam_conv."})
    if "head.proj" in converted:
        projection = converted.pop("head.proj")
        converted["head.fc.weight"], converted["head.fc.bias"] = projection.T, torch.zeros(projection.shape[1])
    return spread_merged(converted, model)


FastVit.key_maps = (
    KeyMap("clip", lambda keys: any(key.startswith(_CLIP) for key in keys),  # OpenCLIP's image tower, of timm's keys
           lambda state_dict, model: spread_merged(rename_keys(state_dict, prefix=_CLIP), model)),
    KeyMap("authors", lambda keys: any(key.startswith(("patch_embed.", f"{_TOWER}patch_embed.")) for key in keys),
           _from_authors),
    KeyMap("merged", lambda keys: any(key.endswith(".reparam_conv.weight") for key in keys), spread_merged),
)
