"""Networks of MLPs alone: one mixes an image's patches, channel by channel, another the channels of each patch.

- Mixer: Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision", 2021, arXiv:2105.01601.
- ResMLP: Touvron et al., "ResMLP: Feedforward networks for image classification with data-efficient training", 2021,
  arXiv:2105.03404.
- gMLP: Liu et al., "Pay Attention to MLPs", 2021, arXiv:2105.08050.

"gmixer" is a Mixer with gated linear units. What mixes patches has weights for their number: images have one size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import DropPath, GatedMlp, GluMlp, Mlp, PatchEmbed, PreNormBlock, init_vit_module, to_2tuple
from ..layers.activations import ActLayer, get_act_layer
from ..layers.mlp import init_open, open_gate
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..registry import register_model
from .base import Flow, ImageModel, Indices, KeyMap, StateDict, Step, Tap, rename_keys

if TYPE_CHECKING:
    from ._variants.mlp_mixer import *

__all__ = ["MixerBlock", "MlpMixer"]

Layer = Callable[..., nn.Module]


class MixerBlock(PreNormBlock):
    """Mixer: an MLP over the patches, and one over the channels. Shapes: (B, seq_len, dim) -> same.

    `mlp_ratio`: Hidden widths of the first and the second MLP, both per channel.
    """

    names: ClassVar[tuple[str, str]] = ("mlp_tokens", "mlp_channels")
    one_drop_path = True
    mlp_tokens: Any

    def __init__(
        self, dim: int, seq_len: int, mlp_ratio: float | tuple[float, float] = (0.5, 4.0), mlp_layer: Layer = Mlp,
        norm_layer: Layer = LayerNorm, act_layer: Layer = nn.GELU, drop: float = 0.0, drop_path: float = 0.0,
    ) -> None:
        tokens_dim, channels_dim = (int(ratio * dim) for ratio in to_2tuple(mlp_ratio))
        super().__init__(dim, mlp_layer(seq_len, tokens_dim, act_layer=act_layer, drop=drop),
                         mlp_layer(dim, channels_dim, act_layer=act_layer, drop=drop), norm_layer, drop_path)

    def attend(self, x: Tensor, *shared: Any, **options: Any) -> Tensor:
        return self.mlp_tokens(x.transpose(1, 2)).transpose(1, 2)


class Affine(nn.Module):
    """ResMLP's norm: a scale and a shift per channel; keys `alpha`, `beta`. Shapes: (..., dim) -> same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(1, 1, dim))
        self.beta = nn.Parameter(torch.empty(1, 1, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.alpha)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, self.alpha, x)


class ResBlock(PreNormBlock):
    """ResMLP: a linear layer over the patches, an MLP over the channels. Shapes: (B, seq_len, dim) -> same.

    Arguments as `MixerBlock`'s, but `mlp_ratio` is one number; `init_values` is the initial scale of each branch.
    """

    names: ClassVar[tuple[str, str]] = ("linear_tokens", "mlp_channels")
    one_drop_path = True
    linear_tokens: Any
    mlp_channels: Any

    def __init__(
        self, dim: int, seq_len: int, mlp_ratio: float = 4, mlp_layer: Layer = Mlp, norm_layer: Layer = Affine,
        act_layer: Layer = nn.GELU, init_values: float = 1e-4, drop: float = 0.0, drop_path: float = 0.0,
    ) -> None:
        mlp = mlp_layer(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drop)
        super().__init__(dim, nn.Linear(seq_len, seq_len), mlp, norm_layer, drop_path)
        self.init_values = init_values
        self.ls1, self.ls2 = (nn.Parameter(torch.empty(dim)) for _ in range(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for scale in (self.ls1, self.ls2):
            nn.init.constant_(scale, self.init_values)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.linear_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = torch.addcmul(x, self.ls1, self.drop_path1(branch))
        return torch.addcmul(x, self.ls2, self.drop_path2(self.mlp_channels(self.norm2(x))))


class SpatialGatingUnit(nn.Module):
    """One half of the channels, times a linear layer over the patches of the other; the layer begins as 1.

    Shapes: (B, seq_len, dim) -> (B, seq_len, dim / 2).
    """

    def __init__(self, dim: int, seq_len: int, norm_layer: Layer = nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm_layer(dim // 2)
        self.proj = nn.Linear(seq_len, seq_len)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * self.proj(self.norm(gate).transpose(1, 2)).transpose(1, 2)


class SpatialGatingBlock(nn.Module):
    """gMLP: an MLP over the channels that is gated by other patches. Shapes and arguments as `ResBlock`."""

    def __init__(
        self, dim: int, seq_len: int, mlp_ratio: float = 4, mlp_layer: Layer = GatedMlp, norm_layer: Layer = LayerNorm,
        act_layer: Layer = nn.GELU, drop: float = 0.0, drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        gate = partial(SpatialGatingUnit, seq_len=seq_len)
        self.norm = norm_layer(dim)
        self.mlp_channels = mlp_layer(dim, int(dim * mlp_ratio), act_layer=act_layer, gate_layer=gate, drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp_channels(self.norm(x)))


class MlpMixer(ImageModel):
    """Patches, blocks of one kind, norm, mean over the patches, linear classifier.

    Shapes: (B, in_chans, *img_size) -> (B, num_classes); features and taps are (B, patches, embed_dim).

    Args:
        mlp_ratio: Hidden widths of the MLPs; a pair for `MixerBlock`.
        block_layer: `MixerBlock`, `ResBlock` or `SpatialGatingBlock`.
        mlp_layer, norm_layer, act_layer: What the blocks are made of.
        drop_path_rate: Stochastic depth, the same in all blocks.
        nlhb: The classifier's bias begins such that all classes are equally likely under independent sigmoids.
        stem_norm: A norm of the embedded patches.
        global_pool: "avg", or "" for none.

    Raises:
        ValueError: The pooling is unknown, or the image is smaller than a patch; from `forward`, it has another size.
    """

    tap_layout: ClassVar[str] = "NLC"
    default_out_indices: ClassVar[Indices] = 3
    tap_norm: ClassVar[str] = "all"
    pools: ClassVar[tuple[str, ...]] = ("", "avg")

    def __init__(
        self, num_classes: int = 1000, img_size: int | tuple[int, int] = 224, in_chans: int = 3,
        patch_size: int | tuple[int, int] = 16, num_blocks: int = 8, embed_dim: int = 512,
        mlp_ratio: float | tuple[float, float] = (0.5, 4.0), block_layer: Layer = MixerBlock, mlp_layer: Layer = Mlp,
        norm_layer: NormLayer = LayerNorm, act_layer: ActLayer = nn.GELU, drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0, drop_path_rate: float = 0.0, nlhb: bool = False, stem_norm: bool = False,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        self.in_chans, self.img_size, self.embed_dim = in_chans, to_2tuple(img_size), embed_dim
        self.weight_init_mode = "jax_nlhb" if nlhb else "jax"
        norm = get_norm_layer(norm_layer)
        self.stem = PatchEmbed(img_size, patch_size, in_chans, embed_dim, norm_layer=norm if stem_norm else None)
        self.blocks = nn.Sequential(*(
            block_layer(
                embed_dim, self.stem.num_patches, mlp_ratio, mlp_layer=mlp_layer, norm_layer=norm,
                act_layer=get_act_layer(act_layer), drop=proj_drop_rate, drop_path=drop_path_rate)
            for _ in range(num_blocks)))
        self.norm = norm(embed_dim)
        stages = [Step(f"blocks.{i}", embed_dim, self.stem.feat_ratio()) for i in range(num_blocks)]
        self.flow = Flow(stem=[Step("stem")], stages=stages, tail=[Step("norm")])
        self.add_classifier(embed_dim, num_classes, global_pool, nn.Dropout(drop_rate))

    def tap_grid(self, tap: Tap, image_size: Sequence[int] | None) -> tuple[int, int] | None:
        return self.stem.dynamic_feat_size(image_size) if image_size else None

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        init_vit_module(name, module, self.weight_init_mode, self.num_classes)
        open_gate(self, name, module)
        path, _, leaf = name.rpartition(".")
        if leaf == "proj" and isinstance(self.get_submodule(path), SpatialGatingUnit):
            init_open(module)


_SIZES = {"s": {}, "b": dict(num_blocks=12, embed_dim=768), "l": dict(num_blocks=24, embed_dim=1024)}
_GLU = dict(embed_dim=384, mlp_ratio=(1.0, 4.0), mlp_layer=GluMlp, act_layer=nn.SiLU)
_RES = dict(embed_dim=384, mlp_ratio=4, block_layer=ResBlock, norm_layer=Affine)
_GATED = dict(num_blocks=30, mlp_ratio=6, block_layer=SpatialGatingBlock, mlp_layer=GatedMlp)

register_model.variants(__name__, MlpMixer, {
    **{f"mixer_{size}{patch}_224": (preset, dict(patch_size=patch))
       for size, preset in _SIZES.items() for patch in (32, 16)},
    **{f"gmixer_{depth}_224": (_GLU, dict(num_blocks=depth)) for depth in (12, 24)},
    "resmlp_12_224": (_RES, dict(num_blocks=12)),
    "resmlp_24_224": (_RES, dict(num_blocks=24, block_layer=partial(ResBlock, init_values=1e-5))),
    "resmlp_36_224": (_RES, dict(num_blocks=36, block_layer=partial(ResBlock, init_values=1e-6))),
    "resmlp_big_24_224": (_RES, dict(
        patch_size=8, num_blocks=24, embed_dim=768, block_layer=partial(ResBlock, init_values=1e-6))),
    "gmlp_ti16_224": (_GATED, dict(embed_dim=128)),
    "gmlp_s16_224": (_GATED, dict(embed_dim=256)),
    "gmlp_b16_224": (_GATED, dict(embed_dim=512)),
})


def _from_facebook(state_dict: StateDict, model: nn.Module) -> StateDict:
    """The authors' ResMLP has other names, and norms whose scales and shifts are vectors."""
    out = rename_keys(state_dict, (r"patch_embed\.", "stem."), (r"attn\.", "linear_tokens."),
                      (r"mlp\.", "mlp_channels."), ("gamma_", "ls"))
    return {key: value.reshape(1, 1, -1) if key.endswith((".alpha", ".beta")) else value for key, value in out.items()}


MlpMixer.key_maps = (KeyMap("facebook", lambda keys: "patch_embed.proj.weight" in keys, _from_facebook),)
