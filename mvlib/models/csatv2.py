"""CSATv2: the frequencies of 8x8 patches, as JPEG has them, then convolutions and transformers.

By members of MLPA Lab, in timm since 2025; there is no paper yet. The image, normalised as ImageNet's are, becomes
luma and chroma, each patch its discrete cosine transform, in JPEG's order and with the mean and variance of each
frequency taken out. Blocks are ConvNeXt V2's with a spatial gate, those at the end of stages are transformers'.

As in timm, with whose code the weights were trained: within the gates not the positions of an image attend to each
other, but the images of a batch. What the model says of an image depends on those that are beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import Attention, GlobalResponseNorm, LayerNorm2d, NormMlpClassifierHead, init_trunc_normal, placeable
from ..layers.drop import DropPath, drop_path_rates
from ..layers.mlp import LayerScale, LayerScale2d, Mlp
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, StateDict, Step, rename_keys, reshape_alike

if TYPE_CHECKING:
    from ._variants.csatv2 import *

__all__ = [
    "Block", "CSATv2", "Dct1d", "Dct2d", "Dct2dStats", "LearnableDct2d", "PosConv", "SpatialAttention",
    "SpatialTransformerBlock", "TransformerBlock",
]

# Of each frequency of luma, blue and red chroma, in the order of the zigzag.
_DCT_MEAN = (
    (932.42657, -0.0026, 0.33415, -0.0284, 3e-05, -0.02792, -0.00183, 6e-05, 0.00032, 0.03402, -0.00571, 0.0002,
     6e-05, -0.00038, -0.00558, -0.00116, 0.0, -0.00047, -8e-05, -0.0003, 0.00942, 0.00161, -9e-05, -6e-05, -0.00014,
     -0.00035, 1e-05, -0.0022, 0.00033, -2e-05, -3e-05, -0.0002, 7e-05, 0.0, 5e-05, 0.00293, -4e-05, 6e-05, 0.00019,
     4e-05, 6e-05, -0.00015, -2e-05, 7e-05, 0.0001, -4e-05, 8e-05, 0.0, 8e-05, -1e-05, 0.00015, 2e-05, 7e-05, 3e-05,
     4e-05, -1e-05, 4e-05, 0.0, 2e-05, 0.0, -8e-05, 0.0, -3e-05, 3e-05),
    (962.34735, -0.00428, 0.09835, 0.00152, -9e-05, 0.00312, -0.00141, -1e-05, -0.00013, 0.0105, 0.00065, 6e-05, 0.0,
     3e-05, 0.00264, 0.0, 1e-05, 7e-05, -6e-05, 3e-05, 0.00341, 0.00163, 4e-05, 3e-05, -1e-05, 8e-05, 0.0, 0.0009,
     0.00018, -6e-05, -1e-05, 7e-05, -3e-05, -1e-05, 6e-05, 0.00084, 0.0, -1e-05, 0.0, 4e-05, -1e-05, -2e-05, 0.0,
     1e-05, 2e-05, 1e-05, 4e-05, 0.00011, 0.0, -3e-05, 0.00011, -2e-05, 1e-05, 1e-05, 1e-05, 1e-05, -7e-05, -3e-05,
     1e-05, 0.0, 1e-05, 2e-05, 1e-05, 0.0),
    (1053.16101, -0.00213, -0.09207, 0.00186, 0.00013, 0.00034, -0.00119, 2e-05, 0.00011, -0.00984, 0.00046, -7e-05,
     -1e-05, -5e-05, 0.0018, 0.00042, 2e-05, -0.0001, 4e-05, 3e-05, -0.00301, 0.00125, -2e-05, -3e-05, -1e-05, -1e-05,
     -1e-05, 0.00056, 0.00021, 1e-05, -1e-05, 2e-05, -1e-05, -1e-05, 5e-05, -0.0007, -2e-05, -2e-05, 5e-05, -4e-05,
     0.0, 2e-05, -2e-05, 1e-05, 0.0, -3e-05, 4e-05, 7e-05, 1e-05, 0.0, 0.00013, 0.0, 0.0, 2e-05, 0.0, -1e-05, -4e-05,
     -3e-05, 0.0, 1e-05, -1e-05, 1e-05, 0.0, 0.0),
)
_DCT_VAR = (
    (270372.375, 6287.10645, 5974.94043, 1653.10889, 1463.91748, 1832.58997, 755.92468, 692.41528, 648.57184,
     641.46881, 285.79288, 301.621, 380.43405, 349.84027, 374.15891, 190.3096, 190.76746, 221.64578, 200.82646,
     145.87979, 126.92046, 62.14622, 67.75562, 102.42001, 129.74922, 130.04631, 103.12189, 97.76417, 53.17402,
     54.81048, 73.48712, 81.04342, 69.351, 49.06024, 33.96053, 37.03279, 20.48858, 24.9483, 33.90822, 44.54912,
     47.56363, 40.0316, 30.43313, 22.63899, 26.53739, 26.57114, 21.84404, 17.41557, 15.18253, 10.69678, 11.24111,
     12.97229, 15.08971, 15.31646, 8.90409, 7.44213, 6.66096, 6.97719, 4.17834, 3.83882, 4.51073, 2.36646, 2.41363,
     1.48266),
    (18839.21094, 321.70932, 300.15259, 77.4783, 76.02293, 89.04748, 33.99642, 34.74807, 32.12333, 28.19588, 12.04675,
     14.26871, 18.45779, 16.59588, 15.67892, 7.37718, 8.56312, 10.28946, 9.41013, 6.6909, 5.16453, 2.55186, 3.03073,
     4.66765, 5.85418, 5.74644, 4.33702, 3.66948, 1.95107, 2.26034, 3.0638, 3.50705, 3.06359, 2.19284, 1.54454,
     1.5786, 0.97078, 1.13941, 1.48653, 1.89996, 1.95544, 1.6495, 1.24754, 0.93677, 1.09267, 1.09516, 0.94163,
     0.78966, 0.72489, 0.50841, 0.50909, 0.55664, 0.63111, 0.64125, 0.38847, 0.33378, 0.30918, 0.33463, 0.20875,
     0.19298, 0.21903, 0.1338, 0.13444, 0.09554),
    (17127.39844, 292.81421, 271.45209, 66.64056, 63.60253, 76.35437, 28.06587, 27.84831, 25.96656, 23.6037, 9.99173,
     11.34992, 14.46955, 12.92553, 12.69353, 5.91537, 6.60187, 7.90891, 7.32825, 5.32785, 4.2966, 2.13459, 2.44135,
     3.66021, 4.50335, 4.38959, 3.34888, 2.97181, 1.60633, 1.7701, 2.35118, 2.69018, 2.38189, 1.74596, 1.26014,
     1.31684, 0.79327, 0.92046, 1.1767, 1.47609, 1.50914, 1.28725, 0.99898, 0.74832, 0.85736, 0.858, 0.74663, 0.63508,
     0.58748, 0.41098, 0.41121, 0.44663, 0.50277, 0.51519, 0.31729, 0.27336, 0.25399, 0.27241, 0.17353, 0.16255,
     0.1844, 0.11602, 0.11511, 0.0845),
)


def _zigzag(size: int) -> list[int]:
    """Positions of a square, row by row, in the order of its diagonals: up the even ones, down the odd ones."""
    def order(index: int) -> tuple[int, int]:
        row, column = divmod(index, size)
        diagonal = row + column
        return diagonal, row if diagonal % 2 else column

    return sorted(range(size**2), key=order)


class Dct1d(nn.Module):
    """Discrete cosine transform of the last dimension, of type 2, or 3, its inverse; key `weights`, a buffer.

    Shapes: (..., kernel_size) -> same.

    Raises:
        ValueError: The type is another.
    """

    weights: Tensor

    @placeable
    def __init__(self, kernel_size: int, kernel_type: int = 2, orthonormal: bool = True) -> None:
        super().__init__()
        if kernel_type not in (2, 3):
            raise ValueError(f"kernel_type is 2 or 3, not {kernel_type}")
        self.kernel_type, self.orthonormal = kernel_type, orthonormal
        self.register_buffer("weights", torch.empty(kernel_size, kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.weights.is_meta:  # nothing to hold them, and to compute there imports torch's compiler
            return
        size = len(self.weights)
        steps = torch.arange(size, device=self.weights.device, dtype=torch.float64)
        weights = 2 * torch.cos(math.pi / (2 * size) * steps[:, None] * (2 * steps + 1))
        if self.orthonormal:
            weights = weights / math.sqrt(2 * size)
            weights[0] /= math.sqrt(2)
        with torch.no_grad():
            self.weights.copy_(weights if self.kernel_type == 2 else torch.linalg.inv(weights))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weights)


class Dct2d(nn.Module):
    """`Dct1d` of the last two dimensions; key `transform`. Shapes: (..., kernel_size, kernel_size) -> same."""

    @placeable
    def __init__(self, kernel_size: int, kernel_type: int = 2, orthonormal: bool = True) -> None:
        super().__init__()
        self.transform = Dct1d(kernel_size, kernel_type, orthonormal)

    def forward(self, x: Tensor) -> Tensor:
        return self.transform(self.transform(x).transpose(-1, -2)).transpose(-1, -2)


@torch.fx.wrap  # the check depends on the image's size
def _patches(x: Tensor, size: int) -> Tensor:
    """(B, C, H, W) -> (B, H / size, W / size, C, size, size)."""
    if x.shape[-2] % size or x.shape[-1] % size:
        raise ValueError(f"image size {x.shape[-2]}x{x.shape[-1]} cannot be divided into patches of {size}x{size}")
    return x.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5)


class _Frequencies(nn.Module):
    """Transforms patches; key `transform`."""

    permutation: Tensor

    def __init__(self, kernel_size: int, kernel_type: int, orthonormal: bool) -> None:
        super().__init__()
        self.k = kernel_size
        self.transform = Dct2d(kernel_size, kernel_type, orthonormal)
        self.register_buffer("permutation", torch.empty(kernel_size**2, dtype=torch.long), persistent=False)

    def init_non_persistent_buffers(self) -> None:
        device = self.permutation.device
        self.register_buffer("permutation", torch.tensor(_zigzag(self.k), device=device), persistent=False)

    def frequencies(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H / k, W / k, C, k ** 2), in the order of the zigzag."""
        return self.transform(_patches(x, self.k)).flatten(4).index_select(4, self.permutation)


class Dct2dStats(_Frequencies):
    """Mean and variance of each frequency. Shapes: (B, 3, H, W) -> (3, 64) twice."""

    @placeable
    def __init__(self, kernel_size: int, kernel_type: int = 2, orthonormal: bool = True) -> None:
        super().__init__(kernel_size, kernel_type, orthonormal)
        if not self.permutation.is_meta:
            self.init_non_persistent_buffers()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.frequencies(x).flatten(0, 2)
        return x.mean(0), x.var(0)


class LearnableDct2d(_Frequencies):
    """A normalised RGB image to frequencies of luma and chroma, and 1x1 convolutions `conv_y`, `conv_cb`, `conv_cr`.

    Shapes: (B, 3, H, W) -> (B, out_chs, H / 8, W / 8); six eighths of the channels are luma's.

    Raises:
        ValueError: The channels are no multiple of 8.
    """

    mean: Tensor
    var: Tensor
    imagenet_mean: Tensor
    imagenet_std: Tensor

    @placeable
    def __init__(self, kernel_size: int, kernel_type: int = 2, orthonormal: bool = True, out_chs: int = 32) -> None:
        super().__init__(kernel_size, kernel_type, orthonormal)
        unit, rest = divmod(out_chs, 8)
        if rest or not unit:
            raise ValueError(f"out_chs is a multiple of 8, six parts luma and one of each chroma, not {out_chs}")
        self.conv_y, self.conv_cb, self.conv_cr = (
            nn.Conv2d(kernel_size**2, chs, 1) for chs in (6 * unit, unit, unit))
        for name in ("mean", "var", "imagenet_mean", "imagenet_std"):
            shape = (3, 1, 1) if "_" in name else (3, 64)
            self.register_buffer(name, torch.empty(shape), persistent=False)
        if not self.mean.is_meta:
            self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        super().init_non_persistent_buffers()
        values = dict(mean=_DCT_MEAN, var=_DCT_VAR, imagenet_mean=(0.485, 0.456, 0.406),
                      imagenet_std=(0.229, 0.224, 0.225))
        for name, value in values.items():
            old = getattr(self, name)
            fresh = torch.tensor(value, device=old.device, dtype=old.dtype).view(old.shape)
            self.register_buffer(name, fresh, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        r, g, b = ((x * self.imagenet_std + self.imagenet_mean) * 255).unbind(1)
        y = r * 0.299 + g * 0.587 + b * 0.114
        x = self.frequencies(torch.stack([y, 0.564 * (b - y) + 128, 0.713 * (r - y) + 128], dim=1))
        x = (x - self.mean) / (self.var**0.5 + 1e-8)
        y, cb, cr = x.permute(0, 3, 4, 1, 2).contiguous().unbind(1)
        return torch.cat([self.conv_y(y), self.conv_cb(cb), self.conv_cr(cr)], dim=1)


class PosConv(nn.Module):
    """Positions by a depthwise convolution with a shortcut. Shapes: (B, N, in_chans), `size` (H, W) of N -> same."""

    @placeable
    def __init__(self, in_chans: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, in_chans, 3, padding=1, groups=in_chans)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x.transpose(1, 2).unflatten(2, size)
        return (self.proj(x) + x).flatten(2).transpose(1, 2)


class SpatialTransformerBlock(nn.Module):
    """A block of one channel, whose images, not positions, attend to each other. Shapes: (B, 1, H, W) -> same."""

    @placeable
    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = PosConv(1)
        self.norm1 = nn.LayerNorm(1)
        self.qkv = nn.Linear(1, 3, bias=False)
        self.norm2 = nn.LayerNorm(1)
        self.mlp = Mlp(1, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.pos_embed(self.norm1(x), size)).unbind(-1)  # (B, N) each
        x = x + ((q @ k.transpose(0, 1)).softmax(dim=-1) @ v).unsqueeze(-1)
        x = x + self.mlp(self.norm2(x))
        return x.transpose(1, 2).unflatten(2, size)


class SpatialAttention(nn.Module):
    """A gate for each of 7x7 regions, of the channels' mean and maximum. Shapes: (B, C, H, W) -> (B, 1, 7, 7)."""

    @placeable
    def __init__(self) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.conv = nn.Conv2d(2, 1, 7, padding=3)
        self.attn = SpatialTransformerBlock()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return self.attn(self.conv(self.avgpool(x)))


class Block(nn.Module):
    """ConvNeXt V2's block with a spatial gate at its branch's end. Shapes: (B, dim, H, W) -> same."""

    @placeable
    def __init__(self, dim: int, drop_path: float = 0.0, ls_init_value: float | None = None) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.act = nn.Linear(dim, 4 * dim), nn.GELU()
        self.grn = GlobalResponseNorm(4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.ls = LayerScale2d(dim, ls_init_value) if ls_init_value else nn.Identity()
        self.drop_path = DropPath(drop_path)
        self.attn = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        out = self.pwconv2(self.grn(self.act(self.pwconv1(out)))).permute(0, 3, 1, 2)
        gate = F.interpolate(self.attn(out), size=out.shape[2:], mode="bilinear", align_corners=True)
        return x + self.drop_path(self.ls(out * gate))


class TransformerBlock(nn.Module):
    """Attention with positions by a convolution, and an MLP; `downsample` pools the map before, and projects it.

    Shapes: (B, inp, H, W) -> (B, oup, H, W), or half the rows and columns.
    """

    @placeable
    def __init__(
        self, inp: int, oup: int, num_heads: int = 8, attn_head_dim: int = 32, downsample: bool = False,
        attn_drop: float = 0.0, proj_drop: float = 0.0, drop_path: float = 0.0, ls_init_value: float | None = None,
    ) -> None:
        super().__init__()
        self.pool1 = nn.MaxPool2d(3, 2, 1) if downsample else nn.Identity()
        self.proj = nn.Conv2d(inp, oup, 1, bias=False) if downsample else nn.Identity()
        self.pos_embed = PosConv(inp)
        self.norm1 = nn.LayerNorm(inp)
        self.attn = Attention(inp, num_heads, attn_head_dim, oup, attn_drop=attn_drop, proj_drop=proj_drop)
        self.ls1 = LayerScale(oup, ls_init_value) if ls_init_value else nn.Identity()
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(oup)
        self.mlp = Mlp(oup, 4 * inp, oup, drop=proj_drop)
        self.ls2 = LayerScale(oup, ls_init_value) if ls_init_value else nn.Identity()
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(x)
        size = x.shape[2:]
        out = self.ls1(self.attn(self.pos_embed(self.norm1(x.flatten(2).transpose(1, 2)), size)))
        x = self.proj(x).flatten(2).transpose(1, 2) + self.drop_path1(out)
        x = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        return x.transpose(1, 2).unflatten(2, size)


class CSATv2(ImageModel):
    """Frequencies, four stages of blocks with a norm at the end of all but the last, pooling, norm, classifier.

    Shapes: (B, 3, H, W) -> (B, num_classes), with sides of multiples of 8; the features have a stride of 64.

    Args:
        in_chans: 3 alone.
        dims: Channels of each stage, the first a multiple of 8.
        depths, transformer_depths: Blocks of each stage, and how many of them, at its end, are transformers'.
        transformer_drop_path: Transformers' blocks have it, too.
        ls_init_value: Layer scale's initial value; none for None.
        global_pool: "avg", "max", "avgmax", or "" for none.

    Raises:
        ValueError: The channels are others, or an option has an unknown value.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    default_out_indices: ClassVar[tuple[int, ...]] = (1, 2, 3, 4)
    inits: ClassVar[Inits] = {(nn.Conv2d, nn.Linear): init_trunc_normal}

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, dims: Sequence[int] = (32, 72, 168, 386),
        depths: Sequence[int] = (2, 2, 8, 6), transformer_depths: Sequence[int] = (0, 0, 2, 2), drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, transformer_drop_path: bool = False, ls_init_value: float | None = None,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if in_chans != 3:
            raise ValueError(f"in_chans is 3 for a CSATv2, which takes colours apart, not {in_chans}")
        self.num_classes, self.in_chans, self.num_features = num_classes, in_chans, dims[-1]
        self.stem_dct = LearnableDct2d(8, out_chs=dims[0])
        self.flow = Flow(stem=[Step("stem_dct", dims[0], 8)], stages=[])
        self.stages = nn.Sequential()
        counts = [(depth - count, count) for depth, count in zip(depths, transformer_depths)]
        rates = drop_path_rates(drop_path_rate, [c + (t if transformer_drop_path else 0) for c, t in counts])
        for i, (dim, (convs, transformers)) in enumerate(zip(dims, counts)):
            stage_rates = [*rates[i], *[0.0] * transformers]
            stage = nn.Sequential()
            if i > 0:
                stage.append(nn.Conv2d(dims[i - 1], dim, 2, stride=2))
            stage.extend(Block(dim, rate, ls_init_value) for rate in stage_rates[:convs])
            stage.extend(TransformerBlock(dim, dim, drop_path=rate, ls_init_value=ls_init_value)
                         for rate in stage_rates[convs:convs + transformers])
            if i < len(dims) - 1:
                stage.append(LayerNorm2d(dim, eps=1e-6))
            self.stages.append(stage)
            self.flow.stages.append(Step(f"stages.{i}", dim, 8 * 2**i))
        self.head = NormMlpClassifierHead(dims[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features
        self.init_weights()


register_model.variants(__name__, CSATv2, {
    "csatv2": {},
    "csatv2_21m": dict(dims=(48, 96, 224, 448), depths=(3, 3, 10, 8), transformer_depths=(0, 0, 4, 3)),
})


def _from_authors(state_dict: StateDict, model: nn.Module) -> StateDict:
    """The authors' stages, "stages1" to "stages4", end with what begins ours, and gates and transformers are nested."""
    stages: nn.Sequential = model.stages  # type: ignore[assignment]

    def place(match: re.Match[str]) -> str:
        stage, item = int(match[1]) - 1, int(match[2])
        if item == len(stages[stage]) - (stage > 0) and stage + 1 < len(stages):  # type: ignore[arg-type]
            return f"stages.{stage + 1}.0."
        return f"stages.{stage}.{item + (stage > 0)}."

    return reshape_alike(rename_keys(
        state_dict, (r"^dct\.", "stem_dct."), (r"\.(Y|Cb|Cr)_Conv\.", lambda m: f".conv_{m[1].lower()}."),
        (r"^stages([1-4])\.(\d+)\.", place), (r"grn\.gamma", "grn.weight"), (r"grn\.beta", "grn.bias"),
        (r"\.ff\.net\.0\.", ".mlp.fc1."), (r"\.ff\.net\.3\.", ".mlp.fc2."), (r"\.ff_norm\.", ".norm2."),
        (r"\.attn_norm\.", ".norm1."), (r"\.attention\.attention\.(attn\.)?", ".attn.attn."),
        (r"\.attention\.", ".attn."), (r"\.attn\.to_qkv\.", ".attn.qkv."), (r"\.attn\.to_out\.0\.", ".attn.proj."),
        (r"(?<!\.attn)\.attn\.pos_embed\.", ".pos_embed."), (r"^head\.", "head.fc."),
        (r"^norm\.", "head.norm.")), model)


CSATv2.key_maps = (KeyMap("csatv2", lambda keys: any(key.startswith("stages1.") for key in keys), _from_authors),)
