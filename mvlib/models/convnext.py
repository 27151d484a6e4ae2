"""ConvNeXt: a ResNet rebuilt with the habits of vision transformers.

ConvNeXt (https://arxiv.org/abs/2201.03545); ConvNeXt V2, with global response normalisation
(https://arxiv.org/abs/2301.00808). The sizes below tiny, the overlapping stems ("ols"), norm before pooling ("hnf") and
the norms that keep the mean ("rms") are timm's.

A block is a depthwise convolution, a norm and an MLP on one residual branch. The MLP's layers are linear, on channels
last, or 1x1 convolutions (`conv_mlp`): the same arithmetic on weights of another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers import ActLayer, GlobalResponseNormMlp, Stage, create_conv2d, get_act_layer, init_trunc_normal
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import make_divisible, placeable, to_2tuple, to_ntuple
from ..layers.mlp import ConvMlp, Mlp, ScaledBlock, scaled
from ..layers.norm import LayerNorm, LayerNorm2d, NormLayer, get_norm_layer
from ..layers.pool import ClassifierHead, NormMlpClassifierHead, shortcut_pool
from ..registry import register_model
from .base import Flow, ImageModel, KeyMap, StateDict, Step, rename_keys, reshape_alike

if TYPE_CHECKING:
    from ._variants.convnext import *

__all__ = ["ConvNeXt", "ConvNeXtBlock", "ConvNeXtStage", "Downsample"]

_STEM_TYPES = ("patch", "overlap", "overlap_tiered", "overlap_act")
_OUTPUT_STRIDES = (8, 16, 32)
_NORMS = ("layernorm", "rmsnorm", "simplenorm")  # which there are with channels first ("2d") and last


class Downsample(nn.Module):
    """A shortcut that pools to shrink, projects to widen. (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride)."""

    @placeable
    def __init__(self, in_chs: int, out_chs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.pool = shortcut_pool(stride, dilation)
        self.conv = create_conv2d(in_chs, out_chs, 1) if in_chs != out_chs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pool(x))


class ConvNeXtBlock(ScaledBlock):
    """Depthwise convolution, norm and MLP, scaled per channel, beside a shortcut.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        in_chs, out_chs: Channels; as many unless given, else a multiple.
        kernel_size, stride, dilation: Of the depthwise convolution; two dilations that differ stand where a stride
            became dilation.
        mlp_ratio: Hidden width of the MLP, in `out_chs`.
        conv_mlp: The MLP's layers are 1x1 convolutions.
        conv_bias: The depthwise convolution has a bias.
        use_grn: Global response normalisation in the MLP.
        ls_init_value: Initial value of the scale; None for no scale.
        norm_layer: Norm over the channels; of a feature map where `conv_mlp`, else of the last dimension.
        drop_path: Stochastic depth: rate of the residual branch.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int | None = None, kernel_size: int = 7, stride: int = 1,
        dilation: int | tuple[int, int] = (1, 1), mlp_ratio: float = 4.0, conv_mlp: bool = False,
        conv_bias: bool = True, use_grn: bool = False, ls_init_value: float | None = 1e-6, act_layer: ActLayer = "gelu",
        norm_layer: Callable[[int], nn.Module] | None = None, drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        out_chs = out_chs or in_chs
        first, last = to_2tuple(dilation)
        self.use_conv_mlp = conv_mlp
        norm_layer = norm_layer or (LayerNorm2d if conv_mlp else LayerNorm)
        mlp = partial(GlobalResponseNormMlp, use_conv=conv_mlp) if use_grn else ConvMlp if conv_mlp else Mlp
        self.conv_dw = create_conv2d(
            in_chs, out_chs, kernel_size, stride=stride, dilation=first, depthwise=True, bias=conv_bias)
        self.norm = norm_layer(out_chs)
        self.mlp = mlp(out_chs, int(mlp_ratio * out_chs), act_layer=act_layer)
        self.add_scales(ls_init_value, out_chs, "gamma")
        fits = in_chs == out_chs and stride == 1 and first == last
        self.shortcut = nn.Identity() if fits else Downsample(in_chs, out_chs, stride, first)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv_dw(x)
        if self.use_conv_mlp:
            branch = self.mlp(self.norm(branch))
        else:
            branch = self.mlp(self.norm(branch.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return self.drop_path(scaled(branch, self.gamma)) + self.shortcut(x)


def make_downsample(
    in_chs: int, out_chs: int, stride: int, dilation: tuple[int, int], norm: Callable[[int], nn.Module], bias: bool
) -> nn.Module:
    """Norm and a convolution, where the size, the width or the dilation changes, which is here's and the blocks'."""
    resamples = stride > 1 or dilation[0] != dilation[1]
    return nn.Identity() if not resamples and in_chs == out_chs else nn.Sequential(norm(in_chs), create_conv2d(
        in_chs, out_chs, 2 if resamples else 1, stride=stride, dilation=dilation[0], bias=bias,
        padding="same" if dilation[1] > 1 else 0))


class ConvNeXtStage(Stage):
    """Norm and a strided convolution, where the size or the width changes, then blocks; keys `downsample`, `blocks`.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        dilation: Of the downsampling convolution, and of the blocks; they differ in the first stage whose stride became
            dilation.
        drop_path_rates: Rate of each block's stochastic depth; 0 unless given.
        norm_layer, norm_layer_cl: Norm over the channels of a feature map; and over the last dimension, for the blocks
            unless `conv_mlp`.
        others: As of `ConvNeXtBlock`.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 7, stride: int = 2, depth: int = 2,
        dilation: tuple[int, int] = (1, 1), drop_path_rates: Sequence[float] | None = None,
        ls_init_value: float | None = 1.0, conv_mlp: bool = False, conv_bias: bool = True, use_grn: bool = False,
        act_layer: ActLayer = "gelu", norm_layer: Callable[[int], nn.Module] | None = None,
        norm_layer_cl: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.downsample = make_downsample(in_chs, out_chs, stride, dilation, norm_layer or LayerNorm2d, conv_bias)
        block_norm = norm_layer if conv_mlp else norm_layer_cl
        self.blocks = nn.Sequential(*(
            ConvNeXtBlock(out_chs, None, kernel_size, 1, dilation[1], 4.0, conv_mlp, conv_bias, use_grn, ls_init_value,
                          act_layer, block_norm, rate)
            for rate in (drop_path_rates or [0.0] * depth)[:depth]))


def _get_norms(norm_layer: NormLayer, conv_mlp: bool, eps: float | None) -> tuple[Callable[..., nn.Module], ...]:
    """The norm of the stem, the downsampling and the head, and that of the blocks."""
    norm_layer = norm_layer or "layernorm"
    name = norm_layer.removesuffix("2d") if isinstance(norm_layer, str) else ""
    if name not in _NORMS and not conv_mlp:
        raise ValueError(f"norm_layer {norm_layer!r} needs conv_mlp=True: with channels last there are "
                         f"{', '.join(_NORMS)}")
    norm = get_norm_layer(f"{name}2d" if name in _NORMS else norm_layer)
    norms = norm, norm if conv_mlp else get_norm_layer(name)
    return norms if eps is None else tuple(partial(norm, eps=eps) for norm in norms)


class ConvNeXt(ImageModel):
    """A stem, four stages of ConvNeXt blocks, and a head that pools, normalises and classifies.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features (B, dims[-1], H / 32, W / 32) are normalised only
    where `head_norm_first`.

    Args:
        global_pool: "avg", "max", "avgmax", "" for none; "catavgmax" too where `head_norm_first`.
        output_stride: 8, 16 or 32: later strides become dilation.
        depths, dims: Blocks and channels of each stage.
        kernel_sizes: Of the depthwise convolutions, one number or one a stage.
        ls_init_value: Initial value of the residual branches' scale; None for no scale.
        stem_type: "patch" for one convolution of size and stride `patch_size`; "overlap" for two 3x3 convolutions of
            stride 2, "overlap_tiered" with half the channels between them, "overlap_act" with an activation there.
        patch_size: Stride of the patch stem.
        head_init_scale: Factor on the head's initial weights.
        head_norm_first: Normalise before pooling instead of after.
        head_hidden_size: Width of a hidden layer before the classifier; none unless given.
        conv_mlp: 1x1 convolutions in place of linear layers.
        conv_bias: Biases of all other convolutions.
        use_grn: Global response normalisation (V2).
        norm_layer: "layernorm", "rmsnorm" or "simplenorm"; any norm of feature maps where `conv_mlp`.
        norm_eps: The norms' epsilon; their own unless given.

    Raises:
        ValueError: An option has an unknown value, or two do not go together.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    tap_norm: ClassVar[str] = "last"
    norm_path: ClassVar[str] = "norm_pre"

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg", output_stride: int = 32,
        depths: Sequence[int] = (3, 3, 9, 3), dims: Sequence[int] = (96, 192, 384, 768),
        kernel_sizes: int | Sequence[int] = 7, ls_init_value: float | None = 1e-6, stem_type: str = "patch",
        patch_size: int = 4, head_init_scale: float = 1.0, head_norm_first: bool = False,
        head_hidden_size: int | None = None, conv_mlp: bool = False, conv_bias: bool = True, use_grn: bool = False,
        act_layer: ActLayer = "gelu", norm_layer: NormLayer = None, norm_eps: float | None = None,
        drop_rate: float = 0.0, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if output_stride not in _OUTPUT_STRIDES:
            raise ValueError(f"output_stride {output_stride} is not one of {', '.join(map(str, _OUTPUT_STRIDES))}")
        if head_norm_first and head_hidden_size:
            raise ValueError("head_hidden_size needs the norm in the head: head_norm_first has to be False")
        self.num_classes, self.in_chans, self.head_init_scale = num_classes, in_chans, head_init_scale
        norm, block_norm = _get_norms(norm_layer, conv_mlp, norm_eps)

        self.stem = make_stem(stem_type, in_chans, dims[0], patch_size, conv_bias, act_layer, norm)
        chs, reduction, dilation = dims[0], patch_size if stem_type == "patch" else 4, 1
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("stem")], stages=[], tail=[Step("norm_pre")])
        kernels, rates = to_ntuple(len(depths))(kernel_sizes), drop_path_rates(drop_path_rate, depths)
        for i, (dim, kernel_size, drop_path) in enumerate(zip(dims, kernels, rates)):
            stride = 2 if i > 0 or reduction == 2 else 1
            if stride > 1 and reduction >= output_stride:
                stride, dilation = 1, dilation * stride
            reduction *= stride
            self.stages.append(ConvNeXtStage(
                chs, dim, kernel_size, stride, len(drop_path), (1 if dilation <= 2 else 2, dilation), drop_path,
                ls_init_value, conv_mlp, conv_bias, use_grn, act_layer, norm, block_norm))
            self.flow.stages.append(Step(f"stages.{i}", dim, reduction))
            chs = dim

        self.num_features = chs
        self.norm_pre = norm(chs) if head_norm_first else nn.Identity()
        self.head = ClassifierHead(chs, num_classes, global_pool, drop_rate) if head_norm_first else \
            NormMlpClassifierHead(chs, num_classes, head_hidden_size, global_pool, drop_rate, norm, "gelu")
        self.head_hidden_size = self.head.num_features
        self.init_weights()

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            is_head = isinstance(module, nn.Linear) and name.startswith("head.")
            init_trunc_normal(module, std=0.02 * (self.head_init_scale if is_head else 1.0))

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Make linear layers 1x1 convolutions, or the reverse; give an encoder that has no final norm a fresh one."""
        fitted = reshape_alike(state_dict, self)
        stem = state_dict.get("stem.0.weight")
        if stem is not None and not any(key.startswith(("head.", "norm_pre.")) for key in state_dict):  # FCMAE's
            fitted.update((key, stem.new_full(value.shape, float(key.endswith("weight"))))
                          for key, value in self.state_dict().items() if key.startswith(("head.norm.", "norm_pre.")))
        return fitted


def make_stem(
    stem_type: str, in_chans: int, dim: int, patch_size: int, bias: bool, act_layer: ActLayer,
    norm_layer: Callable[[int], nn.Module],
) -> nn.Sequential:
    if stem_type not in _STEM_TYPES:
        raise ValueError(f"unknown stem_type '{stem_type}'; known: {', '.join(_STEM_TYPES)}")
    if stem_type == "patch":
        return nn.Sequential(nn.Conv2d(in_chans, dim, patch_size, stride=patch_size, bias=bias), norm_layer(dim))
    mid_chs = make_divisible(dim // 2) if stem_type == "overlap_tiered" else dim
    return nn.Sequential(
        nn.Conv2d(in_chans, mid_chs, 3, stride=2, padding=1, bias=bias),
        *([get_act_layer(act_layer)()] if stem_type == "overlap_act" else []),
        nn.Conv2d(mid_chs, dim, 3, stride=2, padding=1, bias=bias), norm_layer(dim))


def _size(depth: int, dim: int) -> dict[str, Any]:
    """Arguments of a size, by the blocks of its third stage and the channels of its first; timm's own are small."""
    sizes = dict(depths=(3, 3, depth, 3), dims=(dim, 2 * dim, 4 * dim, 8 * dim))
    return sizes if dim >= 96 else dict(sizes, depths=(2, 2, depth, 2), conv_mlp=True)


_SIZES: dict[str, tuple[dict[str, Any], str]] = {
    "atto": (_size(6, 40), "3.7M parameters."), "femto": (_size(6, 48), "5.2M parameters."),
    "pico": (_size(6, 64), "9M parameters."), "nano": (_size(8, 80), "16M parameters."),
    "tiny": (_size(9, 96), "29M parameters."), "small": (_size(27, 96), "50M parameters."),
    "base": (_size(27, 128), "89M parameters."), "large": (_size(27, 192), "198M parameters."),
    "xlarge": (_size(27, 256), "350M parameters."), "huge": (_size(27, 352), "660M parameters.")}
_ZEPTO_RMS = dict(depths=(2, 2, 4, 2), dims=(32, 64, 128, 256), conv_mlp=True, norm_layer="simplenorm")
_TEST, _TEST2 = dict(norm_eps=1e-5, act_layer="gelu_tanh"), dict(depths=(1, 1, 1, 1), dims=(32, 64, 96, 128))
_OLS = dict(stem_type="overlap_tiered")

register_model.variants(__name__, ConvNeXt, {
    "convnext_zepto_rms": (_ZEPTO_RMS, "2M parameters."),
    "convnext_zepto_rms_ols": (_ZEPTO_RMS, dict(stem_type="overlap_act")),
    **{f"convnext_{size}": row for size, row in _SIZES.items() if size != "huge"},
    **{f"convnext_{size}_ols": (_SIZES[size][0], _OLS) for size in ("atto", "femto", "pico")},
    "convnext_nano_ols": (_size(8, 80), dict(stem_type="overlap"), "The stem is of full width."),
    "convnext_atto_rms": (_size(6, 40), dict(norm_layer="rmsnorm2d")),
    "convnext_tiny_hnf": (_size(9, 96), dict(head_norm_first=True, conv_mlp=True)),
    "convnext_large_mlp": (_size(27, 192), dict(head_hidden_size=1536), "A hidden layer in the head, as LAION's CLIP."),
    "convnext_xxlarge": (dict(depths=(3, 4, 30, 3), dims=(384, 768, 1536, 3072), norm_eps=1e-5),
                         "The image tower of LAION's largest CLIP, 847M parameters."),
    **{f"convnextv2_{size}": (args, dict(use_grn=True, ls_init_value=None), about)
       for size, (args, about) in _SIZES.items() if size != "xlarge"},
    "test_convnext": (_TEST, dict(depths=(1, 2, 4, 2), dims=(24, 32, 48, 64))),
    "test_convnext2": (_TEST, _TEST2),
    "test_convnext3": (_TEST, _TEST2, dict(kernel_sizes=(7, 5, 5, 3), act_layer="silu")),
})


# --- foreign checkpoints

def _from_facebook(state_dict: StateDict, model: nn.Module) -> StateDict:
    """The original repositories, V1 and V2, DINOv3 and EUPE, whose projectors and norms of taps are not used."""
    used = {key: value for key, value in state_dict.items() if not key.startswith(("projectors.", "norms."))}
    return reshape_alike(rename_keys(
        used, (r"^downsample_layers\.0\.", "stem."), (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
        (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."), (r"\.dwconv\.", ".conv_dw."),
        (r"\.pwconv(\d)\.", r".mlp.fc\1."), (r"\.grn\.gamma$", ".mlp.grn.weight"), (r"\.grn\.beta$", ".mlp.grn.bias"),
        (r"^head\.", "head.fc."), (r"^norm\.", "head.norm.")), model)


def _from_torchvision(state_dict: StateDict, model: nn.Module) -> StateDict:
    """torchvision counts stem, stages and downsampling in one sequence; the latter have the even numbers."""
    return reshape_alike(rename_keys(
        state_dict, (r"^features\.0\.", "stem."), (r"^features\.(\d*[02468])\.", _stage_of("downsample")),
        (r"^features\.(\d+)\.", _stage_of("blocks")), (r"\.layer_scale$", ".gamma"), (r"\.block\.0\.", ".conv_dw."),
        (r"\.block\.2\.", ".norm."), (r"\.block\.3\.", ".mlp.fc1."), (r"\.block\.5\.", ".mlp.fc2."),
        (r"^classifier\.0\.", "head.norm."), (r"^classifier\.2\.", "head.fc.")), model)


def _stage_of(part: str) -> Callable[[Any], str]:
    return lambda match: f"stages.{int(match[1]) // 2}.{part}."


def _from_open_clip(state_dict: StateDict, model: nn.Module) -> StateDict:
    """The image tower of a CLIP model; its projection becomes the classifier, without a bias there."""
    converted = rename_keys(
        state_dict, (r"^head\.(?:proj|mlp\.fc2)\.", "head.fc."), (r"^head\.mlp\.fc1\.", "head.pre_logits.fc."),
        (r"^trunk\.", ""), prefix="visual.")
    if "head.fc.weight" in converted:
        weight = converted["head.fc.weight"]
        converted.setdefault("head.fc.bias", weight.new_zeros(weight.shape[0]))
    return converted


ConvNeXt.key_maps = (
    KeyMap("facebook", lambda keys: "downsample_layers.0.0.weight" in keys, _from_facebook),
    KeyMap("torchvision", lambda keys: "features.1.0.layer_scale" in keys, _from_torchvision),
    KeyMap("open_clip", lambda keys: "visual.trunk.stem.0.weight" in keys, _from_open_clip),
)
