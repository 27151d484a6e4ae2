"""Sequencer: long short-term memories read the map's rows and columns, in both directions, in attention's place.

Tatsunami and Taki, "Sequencer: Deep LSTM for Image Classification", 2022, arXiv:2205.01972. Maps have their channels
last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import ActLayer, ClassifierHead, Mlp, PatchEmbed, PreNormBlock, Stage, get_act_layer, init_vit_module
from ..layers.helpers import Module, to_ntuple
from ..layers.norm import NormLayer, get_norm_layer
from ..registry import register_model
from .base import Flow, ImageModel, KeyMap, Step

if TYPE_CHECKING:
    from ._variants.sequencer import *

__all__ = ["Sequencer2d"]

_NORM = partial(nn.LayerNorm, eps=1e-6)
_UNIONS = ("cat", "add", "vertical", "horizontal")


class RNNIdentity(nn.Module):
    """Gives its input, and None for a state; the arguments are without effect."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x, None


class RNN2dBase(Module):
    """A recurrent network over each column (`rnn_v`), one over each row (`rnn_h`), and what unites them.

    Shapes: (B, H, W, input_size) -> same.

    Class attributes:
        rnn_layer: Makes a network for sequences, as torch's; its output comes first of what it returns.

    Args:
        hidden_size: Channels of a direction.
        union: "cat" or "add" for both; "vertical" or "horizontal" for one alone.
        with_fc: A linear layer back to `input_size` channels.

    Raises:
        ValueError: The union is another, or without the layer the channels are not `input_size`.
    """

    rnn_layer: ClassVar[Callable[..., nn.Module]] = RNNIdentity

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, bidirectional: bool = True,
        union: str = "cat", with_fc: bool = True,
    ) -> None:
        super().__init__()
        if union not in _UNIONS:
            raise ValueError(f"unknown union '{union}'; known: {', '.join(_UNIONS)}")
        self.input_size, self.hidden_size, self.union, self.with_fc = input_size, hidden_size, union, with_fc
        self.output_size = 2 * hidden_size if bidirectional else hidden_size
        self.with_vertical, self.with_horizontal = union != "horizontal", union != "vertical"
        width = 2 * self.output_size if union == "cat" else self.output_size
        if not with_fc and width != input_size:
            raise ValueError(f"without with_fc the output has {width} channels, not the input's {input_size}")
        self.fc = nn.Linear(width, input_size) if with_fc else None
        self.rnn_v, self.rnn_h = (
            (self.rnn_layer if is_there else RNNIdentity)(
                input_size, hidden_size, num_layers, bias=bias, batch_first=True, bidirectional=bidirectional)
            for is_there in (self.with_vertical, self.with_horizontal))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.rnn_h(x.flatten(0, 1))[0].unflatten(0, x.shape[:2]) if self.with_horizontal else None
        if self.with_vertical:
            turned = x.transpose(1, 2)
            columns = self.rnn_v(turned.flatten(0, 1))[0].unflatten(0, turned.shape[:2]).transpose(1, 2)
            x = columns if rows is None else torch.cat((columns, rows), dim=-1) if self.union == "cat" else \
                columns + rows
        elif rows is not None:
            x = rows
        return x if self.fc is None else self.fc(x)


class LSTM2d(RNN2dBase):
    """`RNN2dBase` of long short-term memories; keys `fc`, `rnn_v`, `rnn_h`."""

    rnn_layer = nn.LSTM


class Sequencer2dBlock(PreNormBlock):
    """Norm and recurrent networks, norm and MLP, each beside a shortcut. Shapes: (B, H, W, dim) -> same.

    `rnn_layer`, `mlp_layer` and `norm_layer` make the parts; the other arguments are `RNN2dBase`'s, and rates.
    """

    names: ClassVar[tuple[str, str]] = ("rnn_tokens", "mlp_channels")
    one_drop_path = True

    def __init__(
        self, dim: int, hidden_size: int, mlp_ratio: float = 3.0, rnn_layer: Callable[..., nn.Module] = LSTM2d,
        mlp_layer: Callable[..., nn.Module] = Mlp, norm_layer: NormLayer = _NORM, act_layer: ActLayer = nn.GELU,
        num_layers: int = 1, bidirectional: bool = True, union: str = "cat", with_fc: bool = True, drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        rnn = rnn_layer(
            dim, hidden_size, num_layers=num_layers, bidirectional=bidirectional, union=union, with_fc=with_fc)
        mlp = mlp_layer(dim, int(mlp_ratio * dim), act_layer=get_act_layer(act_layer), drop=drop)
        super().__init__(dim, rnn, mlp, get_norm_layer(norm_layer), drop_path)


class Shuffle(nn.Module):
    """In training, the positions in random order, the same for all images. Shapes: (B, H, W, C) -> same."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        order = torch.randperm(x.shape[1] * x.shape[2])
        return x.flatten(1, 2)[:, order].view_as(x)


class Downsample2d(Module):
    """Patches of a map to vectors; key `down`. Shapes: (B, H, W, input_dim) -> (B, H / size, W / size, output_dim)."""

    def __init__(self, input_dim: int, output_dim: int, patch_size: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(input_dim, output_dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Sequencer2dStage(Stage):
    """Where asked to, `Downsample2d`, without which the width stays; then `depth` blocks of other `block_args`."""

    def __init__(
        self, dim: int, dim_out: int, depth: int, patch_size: int, hidden_size: int, mlp_ratio: float,
        downsample: bool = False, block_layer: Callable[..., nn.Module] = Sequencer2dBlock,
        drop_path: float | Sequence[float] = 0.0, **block_args: Any,
    ) -> None:
        super().__init__()
        if not downsample and dim != dim_out:
            raise ValueError(f"{dim} channels become {dim_out} only with downsample=True")
        self.downsample = Downsample2d(dim, dim_out, patch_size) if downsample else nn.Identity()
        self.blocks = nn.Sequential(*(
            block_layer(dim_out, hidden_size, mlp_ratio=mlp_ratio, drop_path=rate, **block_args)
            for rate in to_ntuple(depth)(drop_path)[:depth]))


class Sequencer2d(ImageModel):
    """Patches, stages of recurrent blocks, layer norm, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, H', W', embed_dims[-1]) of a stride that is the
    product of `patch_sizes`.

    Args:
        img_size: Without effect: images have any size.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        layers, patch_sizes, embed_dims, hidden_sizes, mlp_ratios: Of each stage: blocks, stride, channels, channels of
            a recurrent direction, hidden width of the MLPs in channels.
        block_layer, rnn_layer, mlp_layer, norm_layer, act_layer: What the parts are made of.
        num_rnn_layers, bidirectional, union, with_fc: As of `RNN2dBase`.
        drop_path_rate: Stochastic depth, the same rate for each block.
        nlhb: The classifier's bias begins with minus the logarithm of the number of classes.
        stem_norm: A norm of the patches.

    Raises:
        ValueError: The lists are not of one length, or an option has an unknown value.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    default_out_indices: ClassVar[tuple[int, ...]] = (0, 1, 2)
    tap_layout: ClassVar[str] = "NHWC"
    feature_layout: ClassVar[str] = "NHWC"
    output_fmt: ClassVar[str] = "NHWC"  # timm's name of the layout of features
    feature_dim: ClassVar[int] = -1  # and of the dimension that the channels have there
    tap_norm: ClassVar[str] = "last"

    def __init__(
        self, num_classes: int = 1000, img_size: int | tuple[int, int] = 224, in_chans: int = 3,
        global_pool: str = "avg", layers: Sequence[int] = (4, 3, 8, 3), patch_sizes: Sequence[int] = (7, 2, 2, 1),
        embed_dims: Sequence[int] = (192, 384, 384, 384), hidden_sizes: Sequence[int] = (48, 96, 96, 96),
        mlp_ratios: Sequence[float] = (3.0, 3.0, 3.0, 3.0), block_layer: Callable[..., nn.Module] = Sequencer2dBlock,
        rnn_layer: Callable[..., nn.Module] = LSTM2d, mlp_layer: Callable[..., nn.Module] = Mlp,
        norm_layer: NormLayer = _NORM, act_layer: ActLayer = nn.GELU, num_rnn_layers: int = 1,
        bidirectional: bool = True, union: str = "cat", with_fc: bool = True, drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0, drop_path_rate: float = 0.0, nlhb: bool = False, stem_norm: bool = False,
    ) -> None:
        super().__init__()
        if len({len(each) for each in (layers, patch_sizes, embed_dims, hidden_sizes, mlp_ratios)}) != 1:
            raise ValueError("layers, patch_sizes, embed_dims, hidden_sizes and mlp_ratios have one value a stage")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.weight_init_mode = "jax_nlhb" if nlhb else "jax"
        norm, chs, reduction = get_norm_layer(norm_layer), embed_dims[0], 1
        self.stem = PatchEmbed(
            None, patch_sizes[0], in_chans, chs, norm if stem_norm else None, flatten=False, output_fmt="NHWC")
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("stem")], stages=[], tail=[Step("norm")])
        for i, (depth, size, dim, hidden, ratio) in enumerate(
                zip(layers, patch_sizes, embed_dims, hidden_sizes, mlp_ratios)):
            self.stages.append(Sequencer2dStage(
                chs, dim, depth, size, hidden, ratio, i > 0, block_layer, drop_path_rate, rnn_layer=rnn_layer,
                mlp_layer=mlp_layer, norm_layer=norm, act_layer=act_layer, num_layers=num_rnn_layers,
                bidirectional=bidirectional, union=union, with_fc=with_fc, drop=proj_drop_rate))
            chs, reduction = dim, reduction * size
            self.flow.stages.append(Step(f"stages.{i}", chs, reduction))
        self.num_features = chs
        self.norm = norm(chs)
        self.head = ClassifierHead(chs, num_classes, global_pool, drop_rate, input_fmt="NHWC")
        self.head_hidden_size = self.head.num_features
        self.init_weights()

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        init_vit_module(name, module, self.weight_init_mode, self.num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        stage = r"^stages\.(\d+)"
        blocks = [(stage, None)] if coarse else [(rf"{stage}\.blocks\.(\d+)", None), (rf"{stage}\.downsample", (0,))]
        return dict(stem=r"^stem", blocks=[*blocks, (r"^norm", (99999,))])


_PATCHES = dict(patch_sizes=(7, 2, 1, 1))

register_model.variants(__name__, Sequencer2d, {
    "sequencer2d_s": _PATCHES,
    "sequencer2d_m": (_PATCHES, dict(layers=(4, 3, 14, 3))),
    "sequencer2d_l": (_PATCHES, dict(layers=(8, 8, 16, 4))),
})

Sequencer2d.key_maps = (KeyMap.renaming(  # the authors' downsampling is the last item of the stage before
    "authors", "blocks.0.0.norm1.weight",
    (r"^blocks\.(\d+)\.\d+\.down", lambda match: f"stages.{int(match[1]) + 1}.downsample.down"),
    (r"^blocks\.(\d+)\.(\d+)", r"stages.\1.blocks.\2"), (r"^head\.", "head.fc.")),)
