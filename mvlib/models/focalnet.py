"""FocalNet: what is around a position, near and far, is gathered by gated convolutions and modulates it.

Yang et al., "Focal Modulation Networks", 2022, arXiv:2203.11926. As in timm, a stage begins with its downsampling, and
maps have their channels first throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.activations import ActLayer
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable, to_ntuple
from ..layers.mlp import LayerScale2d, Mlp
from ..layers.norm import LayerNorm2d
from ..layers.pool import ClassifierHead, NormMlpClassifierHead
from ..layers.stage import Stage
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, StateDict, Step, rename_keys

if TYPE_CHECKING:
    from ._variants.focalnet import *

__all__ = ["FocalNet"]

Norm = Callable[[int], nn.Module]
_NORM = partial(LayerNorm2d, eps=1e-5)


class FocalModulation(nn.Module):
    """A query, times what gates let through of its surroundings at each level; keys `f`, `h`, `proj`, `focal_layers`.

    Shapes: (B, dim, H, W) -> same.

    Args:
        focal_window, focal_factor: Kernel of the first level's convolution, and what each further one's has more.
        focal_level: Levels, beside the mean of the map.
        bias: Whether the projection has biases.
        use_post_norm: Normalise what was modulated; key `norm`.
        normalize_modulator: Divide by the number of levels.
    """

    @placeable
    def __init__(
        self, dim: int, focal_window: int, focal_level: int, focal_factor: int = 2, bias: bool = True,
        use_post_norm: bool = False, normalize_modulator: bool = False, proj_drop: float = 0.0,
        norm_layer: Norm = LayerNorm2d,
    ) -> None:
        super().__init__()
        self.dim, self.focal_window, self.focal_level, self.focal_factor = dim, focal_window, focal_level, focal_factor
        self.use_post_norm, self.normalize_modulator = use_post_norm, normalize_modulator
        self.f = nn.Conv2d(dim, 2 * dim + focal_level + 1, 1, bias=bias)
        self.h = nn.Conv2d(dim, dim, 1, bias=bias)
        self.act = nn.GELU()
        self.proj = nn.Conv2d(dim, dim, 1)
        self.proj_drop = nn.Dropout(proj_drop)
        self.kernel_sizes = [focal_factor * level + focal_window for level in range(focal_level)]
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False), nn.GELU())
            for kernel in self.kernel_sizes)
        self.norm = norm_layer(dim) if use_post_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = self.f(x).split([self.dim, self.dim, self.focal_level + 1], dim=1)
        gathered: Any = 0
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            gathered = gathered + context * gates[:, level:level + 1]
        gathered = gathered + self.act(context.mean((2, 3), keepdim=True)) * gates[:, self.focal_level:]
        if self.normalize_modulator:
            gathered = gathered / (self.focal_level + 1)
        return self.proj_drop(self.proj(self.norm(query * self.h(gathered))))


class FocalNetBlock(nn.Module):
    """Focal modulation, then an MLP, each with norm and shortcut; the norms stand before, or behind (`use_post_norm`).

    Shapes: (B, dim, H, W) -> same.

    Args:
        use_post_norm_in_modulation: `FocalModulation`'s `use_post_norm`.
        layerscale_value: Initial scale of the branches; None for no scale.
    """

    @placeable
    def __init__(
        self, dim: int, mlp_ratio: float = 4.0, focal_level: int = 1, focal_window: int = 3,
        use_post_norm: bool = False, use_post_norm_in_modulation: bool = False, normalize_modulator: bool = False,
        layerscale_value: float | None = 1e-4, proj_drop: float = 0.0, drop_path: float = 0.0,
        act_layer: ActLayer = nn.GELU, norm_layer: Norm = LayerNorm2d,
    ) -> None:
        super().__init__()
        norm, no_norm = partial(norm_layer, dim), nn.Identity
        before, behind = (no_norm, norm) if use_post_norm else (norm, no_norm)
        scale = nn.Identity if layerscale_value is None else partial(LayerScale2d, dim, layerscale_value)
        self.dim, self.mlp_ratio, self.use_post_norm = dim, mlp_ratio, use_post_norm
        self.focal_window, self.focal_level = focal_window, focal_level
        self.norm1 = before()
        self.modulation = FocalModulation(
            dim, focal_window, focal_level, use_post_norm=use_post_norm_in_modulation,
            normalize_modulator=normalize_modulator, proj_drop=proj_drop, norm_layer=norm_layer)
        self.norm1_post, self.ls1, self.drop_path1 = behind(), scale(), DropPath(drop_path)
        self.norm2 = before()
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop, use_conv=True)
        self.norm2_post, self.ls2, self.drop_path2 = behind(), scale(), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.norm1_post(self.modulation(self.norm1(x)))))
        return x + self.drop_path2(self.ls2(self.norm2_post(self.mlp(self.norm2(x)))))


class Downsample(nn.Module):
    """A convolution, of patches or (`overlap`) of more, then a norm; keys `proj`, `norm`.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Raises:
        ValueError: What overlaps has a stride that is neither 2 nor 4.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 4, overlap: bool = False, norm_layer: Norm | None = None
    ) -> None:
        super().__init__()
        if overlap and stride not in (2, 4):
            raise ValueError(f"overlapping convolutions have a stride of 2 or 4, not {stride}")
        kernel, padding = {2: (3, 1), 4: (7, 2)}[stride] if overlap else (stride, 0)
        self.stride = stride
        self.proj = nn.Conv2d(in_chs, out_chs, kernel, stride=stride, padding=padding)
        self.norm = nn.Identity() if norm_layer is None else norm_layer(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class FocalNetStage(Stage):
    """Downsampling, where there is some, then blocks. Shapes: (B, dim, H, W) -> (B, out_dim, H / 2, W / 2).

    Without `downsample` channels and sizes stay; `use_overlap_down` is its `overlap`; `drop_path` is of all or each.
    """

    @placeable
    def __init__(
        self, dim: int, out_dim: int, depth: int, mlp_ratio: float = 4.0, downsample: bool = True,
        focal_level: int = 1, focal_window: int = 1, use_overlap_down: bool = False, use_post_norm: bool = False,
        use_post_norm_in_modulation: bool = False, normalize_modulator: bool = False,
        layerscale_value: float | None = 1e-4, proj_drop: float = 0.0, drop_path: float | Sequence[float] = 0.0,
        norm_layer: Norm = LayerNorm2d,
    ) -> None:
        super().__init__()
        self.dim, self.depth = dim, depth
        self.downsample = Downsample(dim, out_dim, 2, use_overlap_down, norm_layer) if downsample else nn.Identity()
        self.blocks = nn.Sequential(*(
            FocalNetBlock(
                out_dim, mlp_ratio, focal_level, focal_window, use_post_norm, use_post_norm_in_modulation,
                normalize_modulator, layerscale_value, proj_drop, rate, norm_layer=norm_layer)
            for rate in to_ntuple(depth)(drop_path)))


class FocalNet(ImageModel):
    """Patches, stages of focal modulation, pooling and classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32 and `8 * embed_dim` channels.

    Args:
        global_pool: "avg", "max", "avgmax" or "" for none; "catavgmax" too without `head_hidden_size`.
        embed_dim: Channels of the first stage; each other has twice as many as the one before.
        depths, focal_levels, focal_windows: Blocks, levels, and the first one's kernel, of each stage.
        use_overlap_down: Stem and downsampling overlap.
        use_post_norm, use_post_norm_in_modulation, normalize_modulator, layerscale_value: As of `FocalNetBlock`.
        head_hidden_size: Width of a hidden layer in the head, whose norm then follows the pooling; none unless given.
        head_init_scale: Factor on the classifier's initial weights.

    Raises:
        ValueError: An option has an unknown value.
    """

    head_path, feature_form, tap_norm = "head", "flat", "last"
    inits: ClassVar[Inits] = {(nn.Conv2d, nn.Linear): init_trunc_normal}

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg", embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2), mlp_ratio: float = 4.0, focal_levels: Sequence[int] = (2, 2, 2, 2),
        focal_windows: Sequence[int] = (3, 3, 3, 3), use_overlap_down: bool = False, use_post_norm: bool = False,
        use_post_norm_in_modulation: bool = False, normalize_modulator: bool = False,
        head_hidden_size: int | None = None, head_init_scale: float = 1.0, layerscale_value: float | None = None,
        drop_rate: float = 0.0, proj_drop_rate: float = 0.0, drop_path_rate: float = 0.1, norm_layer: Norm = _NORM,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.head_init_scale = num_classes, in_chans, head_init_scale
        self.embed_dim = [embed_dim * 2 ** i for i in range(len(depths))]
        chs = embed_dim
        self.stem = Downsample(in_chans, chs, overlap=use_overlap_down, norm_layer=norm_layer)
        self.layers = nn.Sequential()
        self.flow = Flow(stem=[Step("stem")], stages=[], tail=[Step("norm")])
        for i, (dim, rates) in enumerate(zip(self.embed_dim, drop_path_rates(drop_path_rate, depths))):
            self.layers.append(FocalNetStage(
                chs, dim, len(rates), mlp_ratio, i > 0, focal_levels[i], focal_windows[i], use_overlap_down,
                use_post_norm, use_post_norm_in_modulation, normalize_modulator, layerscale_value, proj_drop_rate,
                rates, norm_layer))
            self.flow.stages.append(Step(f"layers.{i}", dim, 4 * 2 ** i))
            chs = dim
        self.num_features = chs
        self.norm = nn.Identity() if head_hidden_size else norm_layer(chs)
        self.head = NormMlpClassifierHead(
            chs, num_classes, head_hidden_size, global_pool, drop_rate, norm_layer) if head_hidden_size else \
            ClassifierHead(chs, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.head.num_features
        self.init_weights()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        groups = super().group_matcher(coarse)
        return {**groups, "blocks": [*groups["blocks"], (r"^norm", (99999,))]} if coarse else groups

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, nn.Linear) and name == "head.fc":
            module.weight.mul_(self.head_init_scale)


_SMALL, _BASE, _FAR = dict(depths=(2, 2, 18, 2)), dict(depths=(2, 2, 18, 2), embed_dim=128), dict(focal_levels=(3,) * 4)
_WIDE = dict(depths=(2, 2, 18, 2), use_post_norm=True, use_overlap_down=True, layerscale_value=1e-4)
_FL3, _FL4 = dict(_FAR, focal_windows=(5,) * 4), dict(focal_levels=(4,) * 4)
_HUGE = dict(_WIDE, embed_dim=352, use_post_norm_in_modulation=True)

register_model.variants(__name__, FocalNet, {
    "focalnet_tiny_srf": {},
    "focalnet_small_srf": _SMALL,
    "focalnet_base_srf": _BASE,
    "focalnet_tiny_lrf": _FAR,
    "focalnet_small_lrf": (_SMALL, _FAR),
    "focalnet_base_lrf": (_BASE, _FAR),
    **{f"focalnet_{name}_{levels}": (_WIDE, row, dict(embed_dim=dim)) for name, dim in (("large", 192), ("xlarge", 256))
       for levels, row in (("fl3", _FL3), ("fl4", _FL4))},
    "focalnet_huge_fl3": (_HUGE, _FAR),
    "focalnet_huge_fl4": (_HUGE, _FL4),
})


def _from_authors(state_dict: StateDict, model: nn.Module) -> StateDict:
    """Theirs downsample at a stage's end, call norms behind a branch as those before it, and have linear layers."""
    own = model.state_dict()
    converted = {}
    for key, value in rename_keys(
            state_dict, (r"\.gamma_(\d)$", r".ls\1.gamma"), (r"^patch_embed\.", "stem."), (r"^head\.", "head.fc."),
            (r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample."),
            (r"\.ln\.", ".norm.")).items():
        key = key if key in own else key.replace(".norm1.", ".norm1_post.").replace(".norm2.", ".norm2_post.")
        fits = key in own and own[key].numel() == value.numel()
        converted[key] = value.reshape(own[key].shape) if fits else value
    return converted


FocalNet.key_maps = (KeyMap("authors", lambda keys: "patch_embed.proj.weight" in keys, _from_authors),)
