"""Bring your own blocks: stages of any blocks, by name, between a stem and a head; the networks that timm makes so.

GPU-efficient networks "gernet" (https://arxiv.org/abs/2006.14090), RepVGG (https://arxiv.org/abs/2101.03697),
MobileOne (https://arxiv.org/abs/2206.04040), CLIP's ResNets (https://arxiv.org/abs/2103.00020); and timm's own: ResNets
with other stems and channel attention, and "regnetz" (https://arxiv.org/abs/2103.06877) with widths of their own,
"evos" with EvoNorm (https://arxiv.org/abs/2004.02967). The letters:

    q, ts, t   a stem of four ("quad") or three ("tiered") 3x3 convolutions; s: SiLU
    gc, se, eca, bat   channel attention: global context, squeeze-and-excitation, ECA, bilinear attention
    clip       the mean's attention to all positions pools, and a projection is the classifier; "gap": average pooling

RepVGG and MobileOne are trained with convolutions side by side, which `mvlib.optimize` (or `reparameterize`) merges.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention_pool2d import AttentionPool2d, RotAttentionPool2d
from ..layers.blur_pool import AaLayer
from ..layers.branches import spread_merged
from ..layers.channel_attention import AttnLayer, get_attn
from ..layers.conv import ConvNormAct
from ..layers.drop import DropBlock2d, drop_path_rates
from ..layers.evo_norm import EvoNorm2dS0a
from ..layers.helpers import check_choice, make_divisible, owns_meta, to_2tuple
from ..layers.norm import NormLayer, get_norm_act_layer
from ..layers.pool import ClassifierHead, NormMlpClassifierHead
from ..layers.pos_embed import resample_abs_pos_embed
from ..layers.stage import dilate_strides
from ..layers.weight_init import init_fan_out, init_normal
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Inits, KeyMap, StateDict, Step, rename_keys
from .byobnet_blocks import (
    BasicBlock,
    BottleneckBlock,
    DarkBlock,
    DownsampleAvg,
    EdgeBlock,
    Layer,
    LayerFn,
    MobileOneBlock,
    RepVggBlock,
    SelfAttnBlock,
    Stem,
    create_block,
    create_byob_stem,
    create_shortcut,
    register_block,
)

if TYPE_CHECKING:
    from ._variants.byobnet import *

__all__ = ["BasicBlock", "BottleneckBlock", "ByoBlockCfg", "ByobNet", "DarkBlock", "DownsampleAvg", "EdgeBlock",
           "MobileOneBlock", "RepVggBlock", "SelfAttnBlock", "Stem", "create_block", "create_byob_stem",
           "create_shortcut", "drop_blocks", "expand_blocks_cfg", "interleave_blocks", "reduce_feat_size",
           "register_block"]

Options = Mapping[str, Any]

_HEADS = ("", "classifier", "mlp", "attn_abs", "attn_rot")


@dataclass
class ByoBlockCfg:
    """A stage of equal blocks, or some blocks of a stage.

    What is None below is as the model's argument of the same name says; options are replaced as a whole.

    Attributes:
        type: Name of the block, see `create_block`, or what makes it.
        d, c: Blocks, and their output channels; rounded once the model's `width_factor` is known.
        s: Stride of the first; the first entry of a stage has the stage's.
        gs: Channels in a group of their k x k convolutions, 1 for depthwise ones, 0 or None for one group; or a
            function (channels, index in the stage) -> that.
        br: Ratio of inner channels.
        attn_layer, attn_kwargs: Channel attention ("" for none) and its options; likewise `self_attn_layer`,
            `self_attn_kwargs` of self-attention, in blocks that have it.
    """

    type: str | Layer
    d: int
    c: float
    s: int = 2
    gs: int | Callable[[int, int], int] | None = None
    br: float = 1.0
    attn_layer: AttnLayer = None
    attn_kwargs: Options | None = None
    self_attn_layer: AttnLayer = None
    self_attn_kwargs: Options | None = None
    block_kwargs: Options | None = None


Stage = ByoBlockCfg | Sequence[ByoBlockCfg]


def interleave_blocks(
    types: tuple[str, str], d: int, every: int | Sequence[int] = 1, first: bool = False, **kwargs: Any
) -> tuple[ByoBlockCfg, ...]:
    """A stage of `d` blocks of two types; `kwargs` are further attributes of `ByoBlockCfg`.

    Args:
        types: The types; the second stands at the places that `every` says.
        every: So many of the first type before each of the second; the last place where that gives none. Or the places.
        first: Begin with the second type.
    """
    if isinstance(every, int):
        every = range(0 if first else every, d, every + 1) or [d - 1]
    return tuple(ByoBlockCfg(types[i in every], d=1, **kwargs) for i in range(d))


def expand_blocks_cfg(stage_blocks_cfg: Stage) -> list[ByoBlockCfg]:
    """A stage's blocks, each by a config of its own."""
    entries = stage_blocks_cfg if isinstance(stage_blocks_cfg, Sequence) else (stage_blocks_cfg,)
    return [replace(entry, d=1) for entry in entries for _ in range(entry.d)]


class ByobNet(ImageModel):
    """Stem, stages of blocks, a 1x1 convolution where asked for, and a head.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        blocks: What each stage is made of.
        downsample: How shortcuts change shape: "conv1x1", "avg" or "" for none, see `ResidualBlock`.
        stem_type, stem_pool: See `create_byob_stem`.
        stem_chs: Channels of the stem, or of each of its convolutions; 0 for those of the first block.
        width_factor: Factor on all channels.
        num_features: Channels of the convolution behind the last stage; 0 for none.
        fixed_input_size: `img_size` has to be said.
        aa_layer: Anti-aliased downsampling in the stages, see `create_aa`.
        head_hidden_size: Channels of the head's hidden layer, or of its attention.
        head_type: "classifier" (also ""), "mlp" with a norm and a hidden layer, "attn_abs" or "attn_rot" for pooling by
            attention with learned or rotary positions.
        attn_layer, attn_kwargs: Channel attention of the blocks, see `get_attn`, and options of it.
        self_attn_layer, self_attn_kwargs: Attention between positions, in blocks that have it, and options of it.
        block_kwargs: Options of the blocks.
        global_pool: "avg", "max", "avgmax", "catavgmax", or "" for none; of attention "token", or "". The head's first
            unless given.
        img_size: Side of the images, or (height, width): what learned positions are made for.
        drop_block_rate, drop_block_size: Share of activations that is dropped in squares, in the last two stages, and
            side of these squares in the last stage.

    Raises:
        ValueError: An option has an unknown value, or the image's size is needed.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    inits: ClassVar[Inits] = {nn.Conv2d: init_fan_out, nn.Linear: init_normal}

    def __init__(
        self, blocks: Sequence[Stage], downsample: str = "conv1x1", stem_type: str = "3x3",
        stem_pool: str | None = "maxpool", stem_chs: int | Sequence[int] = 32, width_factor: float = 1.0,
        num_features: int = 0, fixed_input_size: bool = False, act_layer: ActLayer = "relu",
        norm_layer: NormLayer = "batchnorm", aa_layer: AaLayer = None, head_hidden_size: int | None = None,
        head_type: str = "classifier", attn_layer: AttnLayer = None, attn_kwargs: Options | None = None,
        self_attn_layer: AttnLayer = None, self_attn_kwargs: Options | None = None, block_kwargs: Options | None = None,
        num_classes: int = 1000, in_chans: int = 3, global_pool: str | None = None, output_stride: int = 32,
        img_size: int | tuple[int, int] | None = None, drop_rate: float = 0.0, drop_block_rate: float = 0.0,
        drop_block_size: int = 3, drop_path_rate: float = 0.0, zero_init_last: bool = True,
    ) -> None:
        super().__init__()
        check_choice("output_stride", output_stride, (8, 16, 32))
        check_choice("head_type", head_type, _HEADS)
        self.num_classes, self.in_chans, self.zero_init_last = num_classes, in_chans, zero_init_last
        self.img_size = None if img_size is None else to_2tuple(img_size)
        if fixed_input_size and self.img_size is None:
            raise ValueError("img_size is needed: the model is made for images of one size")
        conv_norm_act = partial(ConvNormAct, norm_layer=norm_layer, act_layer=act_layer)
        layers = LayerFn(conv_norm_act, get_norm_act_layer(norm_layer, act_layer), get_act_layer(act_layer),
                         _attn_fn(attn_layer, attn_kwargs), _attn_fn(self_attn_layer, self_attn_kwargs))
        entries = [expand_blocks_cfg(stage) for stage in blocks]
        chs = stem_chs or entries[0][0].c
        widths = round(chs * width_factor) if isinstance(chs, (int, float)) else [round(c * width_factor) for c in chs]
        self.stem, taps = create_byob_stem(in_chans, widths, stem_type, stem_pool, layers=layers)
        *taps, last = taps
        chs, reduction = last["num_chs"], last["reduction"]
        named = {tap["module"]: (tap["num_chs"], tap["reduction"]) for tap in taps}
        names = [f"stem.{name}" for name in self.stem._modules] if isinstance(self.stem, Stem) else ["stem"]
        self.flow = Flow(stem=[Step(name, *named.get(name, ())) for name in names], stages=[])
        feat_size = reduce_feat_size(self.img_size, reduction)

        layers = replace(layers, conv_norm_act=partial(conv_norm_act, aa_layer=aa_layer or None))
        rates = drop_path_rates(drop_path_rate, [len(stage) for stage in entries])
        squares = drop_blocks(drop_block_rate, drop_block_size, len(entries))
        self.stages = nn.Sequential()
        steps, strides = self.flow.stem, dilate_strides((stage[0].s for stage in entries), reduction, output_stride)
        for i, (stage, stage_rates, drop_block) in enumerate(zip(entries, rates, squares)):
            if stage[0].s != 1:  # what comes before a stride can be taken as a feature
                steps[-1] = Step(steps[-1].name, chs, reduction)
            stride, _, dilation, reduction = strides[i]
            first_dilation = 1 if dilation in (1, 2) else 2
            made = []
            for j, (cfg, rate) in enumerate(zip(stage, stage_rates)):
                out_chs = make_divisible(cfg.c * width_factor)
                own = dict(feat_size=feat_size) if cfg.type == "self_attn" else {}
                own.update((block_kwargs if cfg.block_kwargs is None else cfg.block_kwargs) or {})
                made.append(create_block(
                    cfg.type, in_chs=chs, out_chs=out_chs, stride=stride, dilation=(first_dilation, dilation),
                    group_size=cfg.gs(out_chs, j) if callable(cfg.gs) else cfg.gs, bottle_ratio=cfg.br,
                    downsample=downsample, drop_block=drop_block, drop_path_rate=rate, **own,
                    layers=replace(
                        layers, attn=_attn_fn(attn_layer, attn_kwargs, cfg.attn_layer, cfg.attn_kwargs),
                        self_attn=_attn_fn(self_attn_layer, self_attn_kwargs, cfg.self_attn_layer,
                                           cfg.self_attn_kwargs))))
                feat_size = reduce_feat_size(feat_size, stride)
                chs, stride, first_dilation = out_chs, 1, dilation
            self.stages.append(nn.Sequential(*made))
            self.flow.stages.append(Step(f"stages.{i}"))
            steps = self.flow.stages
        self.num_features = round(width_factor * num_features) or chs
        self.final_conv = layers.conv_norm_act(chs, self.num_features, 1) if num_features else nn.Identity()
        self.flow.stages.append(Step("final_conv", self.num_features, reduction))
        self.make_head(head_type, head_hidden_size, global_pool, feat_size, drop_rate, norm_layer, act_layer)
        self.init_weights()

    def make_head(
        self, head_type: str, hidden_size: int | None, global_pool: str | None, feat_size: tuple[int, int] | None,
        drop_rate: float, norm_layer: NormLayer = None, act_layer: ActLayer = None,
    ) -> None:
        is_attn = head_type.startswith("attn")
        global_pool = ("token" if is_attn else "avg") if global_pool is None else global_pool
        self.head: Any
        if is_attn:
            if feat_size is None:
                raise ValueError("img_size is needed: pooling by attention has positions for images of one size")
            pool: Any = partial(AttentionPool2d, feat_size=feat_size) if head_type == "attn_abs" else partial(
                RotAttentionPool2d, ref_feat_size=feat_size)
            self.head = pool(self.num_features, out_features=self.num_classes, embed_dim=hidden_size,
                             pool_type=global_pool, drop_rate=drop_rate, qkv_separate=True)
        elif head_type == "mlp":
            self.head = NormMlpClassifierHead(self.num_features, self.num_classes, hidden_size, global_pool, drop_rate,
                                              norm_layer, act_layer)
        elif hidden_size is None:
            self.head = ClassifierHead(self.num_features, self.num_classes, global_pool, drop_rate)
        else:
            raise ValueError("head_hidden_size is for head_type 'mlp', 'attn_abs' and 'attn_rot'")
        self.head_hidden_size = self.head.num_features
        self.classifier_path = "head.proj" if is_attn else "head.fc"  # type: ignore[misc]  # not the class's

    def tap_facts(self, module: str) -> dict[str, Any]:
        """`stage`: the number of the tap's stage, counted from 1; the stem's is 0."""
        if module == "final_conv":
            return {"stage": len(self.stages)}
        return {"stage": int(module.removeprefix("stages.")) + 1 if module.startswith("stages.") else 0}

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """As every model's; pooling by attention goes with the classifier."""
        count, is_attn = len(self.flow.body), self.classifier_path == "head.proj"
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if is_attn and (prune_head or len(self.flow.body) < count):
            self.make_head("", None, "", None, self.drop_rate)
            self.head.train(self.training)
        return taken

    def forward_intermediates(self, x: Tensor, *args: Any, exclude_final_conv: bool = False, **kwargs: Any) -> Any:
        """As every model's; `exclude_final_conv`: the last intermediate is what the last stage gives."""
        model, stages = self, self.flow.stages
        if exclude_final_conv and stages and stages[-1].name == "final_conv":
            model, last = copy.copy(self), replace(stages[-1], name=stages[-2].name)
            model.flow = Flow(self.flow.stem, [*stages[:-2], last], neck=[Step("final_conv")])
        return super(ByobNet, model).forward_intermediates(x, *args, **kwargs)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return dict(stem=r"^stem", blocks=[(blocks, None), (r"^final_conv", (99999,))])

    def init_modules(self, paths: Any = None) -> None:
        super().init_modules(paths)
        if paths is None and not any(map(owns_meta, self.modules())):
            for module in [self.stem, *(block for stage in self.stages for block in stage.children())]:
                init: Any = getattr(module, "init_weights", None)
                if init is not None:  # a block's
                    init(zero_init_last=self.zero_init_last)
            if self.classifier_path == "head.proj":
                self.head.reset_parameters()

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Resample the positions of pooling by attention, of a square map, to this model's."""
        pos_embed, head = state_dict.get("head.pos_embed"), getattr(self, "head", None)
        if pos_embed is None or not isinstance(head, AttentionPool2d) or pos_embed.shape == head.pos_embed.shape:
            return state_dict
        return {**state_dict, "head.pos_embed": resample_abs_pos_embed(pos_embed[None], list(head.feat_size))[0]}


def reduce_feat_size(feat_size: tuple[int, int] | None, stride: int = 2) -> tuple[int, int] | None:
    """Rows and columns of a map behind a stride; None where they are not known."""
    return feat_size and (feat_size[0] // stride, feat_size[1] // stride)


def _attn_fn(
    layer: AttnLayer, kwargs: Options | None, own_layer: AttnLayer = None, own_kwargs: Options | None = None
) -> Layer | None:
    """What makes attention; a block's own layer and options come before the model's, "" is none."""
    layer, kwargs = layer if own_layer is None else own_layer, kwargs if own_kwargs is None else own_kwargs
    made_by = get_attn(layer)
    return None if made_by is None else partial(made_by, **(kwargs or {}))


def drop_blocks(drop_prob: float = 0.0, block_size: int = 3, num_stages: int = 4) -> list[Layer | None]:
    """DropBlock for the last two stages; maps halve from one to the other, and so do the squares."""
    if not drop_prob:
        return [None] * num_stages
    return [None] * (num_stages - 2) + [
        partial(DropBlock2d, drop_prob=drop_prob, block_size=2 * block_size - 1, gamma_scale=0.25),
        partial(DropBlock2d, drop_prob=drop_prob, block_size=block_size, gamma_scale=1.0)]


def _stages(
    d: Sequence[int], c: Sequence[float], s: int | Sequence[int] = (1, 2, 2, 2), gs: Any = 0, br: Any = 0.25,
    type: str | Sequence[str] = "bottle", **more: Any,
) -> dict[str, Any]:
    """`blocks`, a stage each; what is not a sequence holds for all stages."""
    columns = {key: value if isinstance(value, (list, tuple)) else [value] * len(d)
               for key, value in dict(type=type, d=d, c=c, s=s, gs=gs, br=br, **more).items()}
    return dict(blocks=tuple(ByoBlockCfg(**dict(zip(columns, row))) for row in zip(*columns.values())))


def _gernet(d: Sequence[int], c: Sequence[int], stem_chs: int, num_features: int) -> dict[str, Any]:
    stages = _stages(d, c, (2, 2, 2, 2, 1), (0, 0, 0, 1, 1), (1.0, 1.0, 0.25, 3.0, 3.0),
                     ("basic", "basic", "bottle", "bottle", "bottle"))
    return dict(stages, stem_chs=stem_chs, stem_pool="", num_features=num_features)


def _repvgg(
    width: float, last: float, d: Sequence[int] = (4, 6, 16, 1), stem_chs: int = 64, groups: int = 0
) -> dict[str, Any]:
    """`width` times 64, 128, 256 channels, `last` times 512; `groups` in every second convolution of a stage."""
    stages = _stages(d, (64 * width, 128 * width, 256 * width, 512 * last), 2,
                     partial(_size_of_every_second, groups) if groups else 0, 1.0, "rep")
    return dict(stages, stem_type="rep", stem_chs=stem_chs)


def _size_of_every_second(groups: int, chs: int, index: int) -> int:
    return chs // groups if index % 2 else 0


def _mobileone(
    *widths: float, branches: int = 1, se_blocks: Sequence[int] = (0, 0, 0, 0), stem_chs: int = 64
) -> dict[str, Any]:
    """Depthwise and 1x1 convolutions in turn, of so many times 64, 128, 256, 512 channels; attention in the last."""
    stages: list[list[ByoBlockCfg]] = []
    chs = min(64, 64 * widths[0])
    for i, (width, depth, se) in enumerate(zip(widths, (2, 8, 10, 1), se_blocks)):
        stages.append([])
        for j in range(depth):
            attn = "se" if j >= depth - se else None
            for out_chs, gs, kernel_size in ((chs, 1, 3), (64 * 2**i * width, 0, 1)):
                stages[i].append(ByoBlockCfg("one", 1, out_chs, gs=gs, attn_layer=attn, block_kwargs=dict(
                    num_conv_branches=branches, kernel_size=kernel_size)))
            chs = 64 * 2**i * width
    return dict(blocks=tuple(map(tuple, stages)), stem_type="one", stem_chs=stem_chs)


_C50, _C1536 = (256, 512, 1024, 2048), (256, 512, 1536, 1536)
_TIERED = dict(stem_chs=64, stem_type="tiered", stem_pool="")
_TS = dict(_TIERED, act_layer="silu")
_ATTNS = {"": {}, "gc": dict(attn_layer="gca"), "se": dict(attn_layer="se"), "eca_": dict(attn_layer="eca")}
_X26 = {**_TS, **_stages((2, 2, 2, 2), _C50, gs=32), "stem_pool": "maxpool"}
_R33 = dict(_TS, **_stages((2, 3, 3, 2), _C1536), num_features=1280)
_R50 = _stages((3, 4, 6, 3), _C50)
_Q = dict(stem_chs=128, stem_pool="", num_features=2048, act_layer="silu")
_Z = dict(downsample="", act_layer="silu", attn_layer="se", attn_kwargs=dict(rd_ratio=0.25),
          block_kwargs=dict(bottle_in=True, linear_out=True))
_B16, _C16 = (dict(_Z, **_stages((2, 6, 12, 2), (48, 96, 192, 288), 2, 16, br), stem_pool="",
                   num_features=1536) for br in (3.0, 4.0))
_D8, _D32 = (dict(_Z, **_TIERED, **_stages((3, 6, 12, 3), (64, 128, 256, 384), gs=gs, br=4.0),
                  num_features=1792) for gs in (8, 32))
_EVOS = dict(norm_layer=partial(EvoNorm2dS0a, group_size=16))
_CLIP_ROW = dict(stem_chs=(32, 32, 64), stem_type="", stem_pool="avg2", downsample="avg", aa_layer="avg")


def _clip(d: Sequence[int], width_factor: float, img_size: int, num_classes: int) -> dict[str, Any]:
    return dict(_CLIP_ROW, **_stages(d, _C50), width_factor=width_factor, img_size=img_size, num_classes=num_classes)


_CLIPS = {
    "resnet50": _clip((3, 4, 6, 3), 1.0, 224, 1024), "resnet101": _clip((3, 4, 23, 3), 1.0, 224, 512),
    "resnet50x4": _clip((4, 6, 10, 6), 1.25, 288, 640), "resnet50x16": _clip((6, 8, 18, 8), 1.5, 384, 768),
    "resnet50x64": _clip((3, 15, 36, 10), 2.0, 448, 1024)}

register_model.variants(__name__, ByobNet, {
    "gernet_l": _gernet((1, 2, 6, 5, 4), (128, 192, 640, 640, 640), 32, 2560),
    "gernet_m": _gernet((1, 2, 6, 4, 1), (128, 192, 640, 640, 640), 32, 2560),
    "gernet_s": _gernet((1, 3, 7, 2, 1), (48, 48, 384, 560, 256), 13, 1920),
    **{f"repvgg_{name}": _repvgg(width, last, (2, 4, 14, 1), stem_chs=stem_chs) for name, width, last, stem_chs in (
        ("a0", 0.75, 2.5, 48), ("a1", 1.0, 2.5, 64), ("a2", 1.5, 2.75, 64))},
    **{f"repvgg_b{size}{name}": _repvgg(width, last, groups=groups)
       for size, width, last in ((1, 2.0, 4.0), (2, 2.5, 5.0), (3, 3.0, 5.0)) for name, groups in (("", 0), ("g4", 4))},
    "repvgg_b0": _repvgg(1.0, 2.5),
    "repvgg_d2se": dict(_repvgg(2.5, 5.0, (8, 14, 24, 1)), attn_layer="se",
                        attn_kwargs=dict(rd_ratio=0.0625, rd_divisor=1)),
    "resnet51q": (_stages((2, 4, 6, 4), _C1536, gs=(32, 32, 32, 1), br=(0.25, 0.25, 0.25, 1.0)), _Q,
                  dict(stem_type="quad2")),
    "resnet61q": (_stages((1, 4, 6, 4), _C1536, gs=(0, 32, 32, 1), br=(1.0, 0.25, 0.25, 1.0),
                          type=("edge", "bottle", "bottle", "bottle"), block_kwargs=({}, None, None, None)), _Q,
                  dict(stem_type="quad", block_kwargs=dict(extra_conv=True))),
    **{f"{attn}resnext26ts": (_X26, own) for attn, own in _ATTNS.items()},
    "bat_resnext26ts": (_X26, dict(attn_layer="bat", attn_kwargs=dict(block_size=8))),
    "resnet32ts": (_R33, dict(num_features=0)),
    **{f"{attn}resnet33ts": (_R33, own) for attn, own in _ATTNS.items()},
    "gcresnet50t": (_R50, _TIERED, _ATTNS["gc"]),
    "gcresnext50ts": (_stages((3, 4, 6, 3), _C50, gs=32), _TS, dict(stem_pool="maxpool"), _ATTNS["gc"]),
    "regnetz_b16": _B16,
    "regnetz_c16": _C16,
    "regnetz_d32": _D32,
    "regnetz_d8": _D8,
    "regnetz_e8": (_D8, _stages((3, 8, 16, 3), (96, 192, 384, 512), gs=8, br=4.0), dict(num_features=2048)),
    "regnetz_b16_evos": (_B16, _EVOS),
    "regnetz_c16_evos": (_C16, _EVOS),
    "regnetz_d8_evos": (_D8, _EVOS, dict(stem_type="deep")),
    "mobileone_s0": _mobileone(0.75, 1.0, 1.0, 2.0, branches=4, stem_chs=48),
    "mobileone_s1": _mobileone(1.5, 1.5, 2.0, 2.5),
    "mobileone_s2": _mobileone(1.5, 2.0, 2.5, 4.0),
    "mobileone_s3": _mobileone(2.0, 2.5, 3.0, 4.0),
    "mobileone_s4": _mobileone(3.0, 3.5, 3.5, 4.0, se_blocks=(0, 0, 5, 1)),
    **{f"{name}_clip": (row, dict(head_type="attn_abs"), "CLIP's, with its projection for classifier.")
       for name, row in _CLIPS.items()},
    **{f"{name}_clip_gap": (row, dict(num_classes=0, img_size=None), "CLIP's, with average pooling.")
       for name, row in _CLIPS.items()},
    "resnet50_mlp": (_R50, _CLIP_ROW, dict(head_type="mlp", head_hidden_size=1024)),
    "test_byobnet": (
        _stages((1, 1, 1, 1), (32, 64, 128, 256), 2, (0, 0, 32, 64), (0.5, 0.5, 0.25, 0.25),
                ("edge", "dark", "basic", "bottle")),
        dict(stem_chs=24, stem_pool="", downsample="avg", attn_layer="se", attn_kwargs=dict(rd_ratio=0.25))),
})


# Foreign checkpoints
_CLIP = (
    (r"^(conv|bn)(\d)\.", r"stem.conv\2.\1."),
    (r"^layer(\d)\.", lambda match: f"stages.{int(match[1]) - 1}."),
    *((rf"^(stages.*)\.(conv|bn){i}\.", rf"\1.{name}.\2.")
      for i, name in enumerate(("conv1_1x1", "conv2_kxk", "conv3_1x1"), start=1)),
    (r"\.downsample\.0\.", ".shortcut.conv.conv."), (r"\.downsample\.1\.", ".shortcut.conv.bn."),
    (r"^attnpool\.positional_embedding$", "head.pos_embed"),
    (r"^attnpool\.(?:([qkv])|c)_(proj)\.", lambda match: f"head.{match[1] or match[2]}."),
)
_BRANCHES = (
    (r"^stage0\.", "stem."), (r"^stage(\d)\.", lambda match: f"stages.{int(match[1]) - 1}."),
    (r"\.rbr_(?:identity|skip)\.", ".identity."), (r"\.rbr_(?:dense|conv)\.", ".conv_kxk."),
    (r"\.rbr_1x1\.", ".conv_1x1."), (r"\.rbr_scale\.", ".conv_scale."), (r"\.rbr_reparam\.", ".reparam_conv."),
    (r"\.se\.(?:down|reduce)\.", ".attn.fc1."), (r"\.se\.(?:up|expand)\.", ".attn.fc2."), (r"^linear\.", "head.fc."),
)
_CLIP_PREFIXES = ("module.visual.", "visual.")


def _from_clip(state_dict: StateDict, model: nn.Module) -> StateDict:
    """The image tower of OpenAI's and OpenCLIP's CLIP; its pooling where the model has such."""
    prefix = next(prefix for prefix in _CLIP_PREFIXES if f"{prefix}conv1.weight" in state_dict)
    converted = rename_keys(state_dict, *_CLIP, prefix=prefix)
    has_pool = isinstance(getattr(model, "head", None), AttentionPool2d)
    return {key: value for key, value in converted.items() if has_pool or not key.startswith("head.")}


def _from_authors(state_dict: StateDict, model: nn.Module) -> StateDict:
    """RepVGG's and MobileOne's own repositories, with branches or merged."""
    return spread_merged(rename_keys(state_dict, *_BRANCHES), model)


ByobNet.key_maps = (
    KeyMap("clip", lambda keys: any(f"{prefix}conv1.weight" in keys for prefix in _CLIP_PREFIXES), _from_clip),
    KeyMap("authors", lambda keys: any(key.startswith(("stage0.rbr_", "stage0.reparam_")) for key in keys),
           _from_authors),
    KeyMap("merged", lambda keys: any(key.endswith(".reparam_conv.weight") for key in keys), spread_merged),
)
