"""What timm's family modules have beside classes: `_cfg`, `default_cfgs`, `checkpoint_filter_fn`, `_create_resnet`, ...

Each is found by a name with its family, "resnet._cfg".
"""

from __future__ import annotations

import copy
import importlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ... import registry
from ...errors import UnknownNameError
from ...layers.activations import get_act_layer
from ...layers.pos_embed import resample_abs_pos_embed
from ...layers.rel_pos import gen_relative_position_index
from ...layers.weight_init import init_vit_module
from ...layers.window import window_reverse
from ...loading import read_state_dict
from ...models.base import ImageModel, StateDict, rename_keys
from ...names import closest
from ..tables.models import CREATORS
from . import configs
from .builder import build_model_with_cfg
from .checkpoints import clean_state_dict
from .pretrained import DefaultCfg
from .registry import generate_default_cfgs, get_arch_pretrained_cfgs

__all__ = [
    "BN_EPS_TF_DEFAULT", "BN_MOMENTUM_TF_DEFAULT", "beit_relative_position_index", "create_levit",
    "get_init_weights_vit",
    "get_relative_position_index",
    "hybrid_filter_fn", "init_weights_reset_parameters", "init_weights_vit_jax", "init_weights_vit_moco",
    "init_weights_vit_timm", "load_vit_arrays", "resize_pos_embed", "resolve_act_layer", "resolve_bn_args",
    "sam2_filter_fn", "window_reverse_to_size",
]

# --- configs of weights

_FIXED: dict[str, Any] = dict(pool_size=None, fixed_input_size=True)
_HALF: dict[str, Any] = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _row(
    first_conv: str | Sequence[str] | None, classifier: str | Sequence[str] | None, **others: Any
) -> dict[str, Any]:
    common = dict(num_classes=1000, input_size=(3, 224, 224), pool_size=(7, 7), crop_pct=0.875, interpolation="bicubic",
                  mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), license="apache-2.0")
    row = {**common, **others, "first_conv": first_conv, "classifier": classifier}
    return {key: value for key, value in row.items() if value is not None or key == "pool_size"}


_CFGS = {  # what a family's weights have in common unless one says otherwise
    "beit": _row("patch_embed.proj", "head", pool_size=None, crop_pct=0.9, mean=(0.5,) * 3, std=(0.5,) * 3,
                 fixed_input_size=True),
    "byoanet": _row("stem.conv1.conv", "head.fc", crop_pct=0.95, fixed_input_size=False,
                    min_input_size=(3, 224, 224)),
    "byobnet": _row("stem.conv", "head.fc", interpolation="bilinear"),
    "cait": _row("patch_embed.proj", "head", input_size=(3, 384, 384), **_FIXED, crop_pct=1.0),
    "coat": _row("patch_embed1.proj", "head", **_FIXED, crop_pct=0.9),
    "convit": _row("patch_embed.proj", "head", **_FIXED, crop_pct=None, interpolation=None),
    "convmixer": _row("stem.0", "head", pool_size=None, crop_pct=0.96, license="mit"),
    "convnext": _row("stem.0", "head.fc"),
    "cpubone": _row("stem.0.conv", "head.classifier.linear", crop_pct=0.95, license=None),
    "crossvit": _row(
        ("patch_embed.0.proj", "patch_embed.1.proj"), ("head.0", "head.1"), input_size=(3, 240, 240), **_FIXED,
        interpolation=None),
    "csatv2": _row([], "head.fc", input_size=(3, 512, 512), pool_size=(8, 8), interpolation="bilinear", crop_pct=1.0,
                   license=None),
    "cspnet": _row("stem.conv1.conv", "head.fc", input_size=(3, 256, 256), pool_size=(8, 8), crop_pct=0.887,
                   interpolation="bilinear"),
    "cspnext": _row(
        "stem.0.conv", "head.fc", crop_pct=0.949, paper_ids="arXiv:2212.07784",
        origin_url="https://github.com/open-mmlab/mmdetection/tree/main/configs/rtmdet",
        paper_name="RTMDet: An Empirical Study of Designing Real-Time Object Detectors"),
    "davit": _row("stem.conv", "head.fc", crop_pct=0.95),
    "deepseek_vit": _row(None, None, num_classes=0, input_size=(3, 546, 546), min_input_size=(3, 126, 126),
                         pool_size=None, crop_pct=1.0, crop_mode="border", fixed_input_size=False, license="mit",
                         **_HALF),
    "deit": _row("patch_embed.proj", "head", **_FIXED, crop_pct=0.9),
    "densenet": _row("features.conv0", "classifier"),
    "dla": _row("base_layer.0", "fc", interpolation="bilinear", license="bsd-3-clause"),
    "dpn": _row("features.conv1_1.conv", "classifier", mean=(124 / 255, 117 / 255, 104 / 255),
                std=(1 / (0.0167 * 255),) * 3),
    "edgenext": _row("stem.0", "head.fc", input_size=(3, 256, 256), pool_size=(8, 8), crop_pct=0.9, license="mit"),
    "efficientformer": _row("stem.conv1", ("head", "head_dist"), **_FIXED, crop_pct=0.95),
    "efficientformer_v2": _row("stem.conv1.conv", ("head", "head_dist"), **_FIXED, crop_pct=0.95),
    "efficientnet": _row("conv_stem", "classifier"),
    "efficientvim": _row("patch_embed.conv.0.conv", tuple(f"heads.{i}" for i in range(4)), pool_size=None,
                         license="mit", paper_ids="arXiv:2411.15241",
                         origin_url="https://github.com/mlvlab/EfficientViM"),
    "efficientvit_mit": _row("stem.in_conv.conv", "head.classifier.4", crop_pct=0.95, interpolation=None),
    "efficientvit_msra": _row("patch_embed.conv1.conv", "head.linear", input_size=None, pool_size=(4, 4), crop_pct=None,
                              interpolation=None, fixed_input_size=True, license="mit"),
    "eva": _row(
        "patch_embed.proj", "head", **_FIXED, crop_pct=0.9, mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711), license="mit"),
    "fasternet": _row("patch_embed.proj", "classifier", crop_pct=1.0, test_crop_pct=0.9, paper_ids="arXiv:2303.03667",
                      paper_name="Run, Don't Walk: Chasing Higher FLOPS for Faster Neural Networks",
                      origin_url="https://github.com/JierunChen/FasterNet"),
    "fastvit": _row(("stem.0.conv_kxk.0.conv", "stem.0.conv_scale.conv"), "head.fc", input_size=(3, 256, 256),
                    pool_size=(8, 8), crop_pct=0.9, license="fastvit-license"),
    "focalnet": _row("stem.proj", "head.fc", crop_pct=0.9, license="mit"),
    "gcvit": _row("stem.conv1", "head.fc", fixed_input_size=True),
    "gemma4_vit": _row("patch_embed.input_proj", "head", num_classes=0, input_size=(3, 768, 768), pool_size=None,
                       min_input_size=(3, 96, 96), crop_pct=1.0, fixed_input_size=False, mean=(0.0,) * 3,
                       std=(1.0,) * 3, license=None),
    "ghostnet": _row("conv_stem", "classifier"),
    "hardcorenas": _row("conv_stem", "classifier", interpolation="bilinear"),
    "hgnet": _row("stem.stem1.conv", "head.fc", crop_pct=0.965, test_crop_pct=1.0, test_input_size=(3, 288, 288)),
    "hiera": _row("patch_embed.proj", "head.fc", **_FIXED, crop_pct=0.9),
    "hieradet_sam2": _row("patch_embed.proj", "head.fc", num_classes=0, input_size=(3, 896, 896), pool_size=(28, 28),
                          crop_pct=1.0, min_input_size=(3, 224, 224)),
    "hrnet": _row("conv1", "classifier", interpolation="bilinear", license="mit"),
    "iformer": _row("stem.conv1.c", "head.head.l", license="mit", paper_ids="arXiv:2501.15369",
                    paper_name="iFormer: Integrating ConvNet and Transformer for Mobile Application",
                    origin_url="https://github.com/ChuanyangZheng/iFormer"),
    "inception_next": _row("stem.0", "head.fc2"),
    "inception_v3": _row("Conv2d_1a_3x3.conv", "fc", input_size=(3, 299, 299), pool_size=(8, 8), **_HALF),
    "lcnetv2": _row("stem.0.conv", "classifier", origin_url="https://github.com/PaddlePaddle/PaddleClas"),
    "levit": _row("stem.conv1.linear", ("head.linear", "head_dist.linear"), **_FIXED, crop_pct=0.9),
    "lowformer": _row("stem.0.conv", "classifier", crop_pct=0.95, origin_url="https://github.com/altair199797/LowFormer"),
    "mambaout": _row("stem.conv1", "head.fc", test_input_size=(3, 288, 288), crop_pct=1.0),
    "maxxvit": _row("stem.conv1", "head.fc", crop_pct=0.95, **_HALF, fixed_input_size=True),
    "metaformer": _row("stem.conv", "head.fc", crop_pct=1.0),
    "mlp_mixer": _row("stem.proj", "head", **_FIXED, **_HALF),
    "mobilenetv3": _row("conv_stem", "classifier", interpolation="bilinear"),
    "mobilenetv5": _row("conv_stem.conv", "classifier", input_size=(3, 256, 256), pool_size=(16, 16), crop_pct=1.0,
                        license=None, **_HALF),
    "mobilevit": _row("stem.conv", "head.fc", input_size=(3, 256, 256), pool_size=(8, 8), crop_pct=0.9,
                      mean=(0.0,) * 3, std=(1.0,) * 3, fixed_input_size=False, license="cvnets-license"),
    "mvitv2": _row("patch_embed.proj", "head.fc", **_FIXED, crop_pct=0.9),
    "naflexvit": _row("embeds.proj", "head", input_size=(3, 384, 384), pool_size=None, crop_pct=1.0, **_HALF),
    "nest": _row("patch_embed.proj", "head", pool_size=(14, 14), fixed_input_size=True),
    "nextvit": _row("stem.0.conv", "head.fc", crop_pct=0.95),
    "nfnet": _row("stem.conv1", "head.fc", crop_pct=0.9),
    "pit": _row("patch_embed.conv", "head", **_FIXED, crop_pct=0.9),
    "pvt_v2": _row("patch_embed.proj", "head", crop_pct=0.9, fixed_input_size=False),
    "qwen3_vit": _row(None, None, num_classes=0, input_size=(3, 768, 768), pool_size=None, crop_pct=1.0,
                      crop_mode="squash", fixed_input_size=False, license="apache-2.0", **_HALF),
    "rdnet": _row("stem.0", "head.fc", crop_pct=0.9, paper_ids="arXiv:2403.19588",
                  paper_name="DenseNets Reloaded: Paradigm Shift Beyond ResNets and ViTs",
                  origin_url="https://github.com/naver-ai/rdnet"),
    "regnet": _row("stem.conv", "head.fc", test_input_size=(3, 288, 288), crop_pct=0.95, test_crop_pct=1.0),
    "repghost": _row("conv_stem", "classifier", license="mit"),
    "repvit": _row("stem.conv1.c", ("head.head.l", "head.head_dist.l"), crop_pct=0.95),
    "res2net": _row("conv1", "fc", interpolation="bilinear", license="unknown"),
    "resnest": _row("conv1.0", "fc", interpolation="bilinear"),
    "resnet": _row("conv1", "fc", interpolation="bilinear"),
    "resnetv2": _row("stem.conv", "head.fc", interpolation="bilinear", **_HALF),
    "rexnet": _row("stem.conv", "head.fc", license="mit"),
    "selecsls": _row("stem.0", "fc", pool_size=(4, 4), interpolation="bilinear", license="cc-by-4.0"),
    "senet": _row("layer0.conv1", "last_linear", interpolation="bilinear"),
    "sequencer": _row("stem.proj", "head.fc", **_FIXED),
    "shvit": _row("patch_embed.0.c", "head.l", pool_size=(4, 4), license="mit", paper_ids="arXiv:2401.16456",
                  paper_name="SHViT: Single-Head Vision Transformer with Memory Efficient Macro Design",
                  origin_url="https://github.com/ysj9909/SHViT"),
    "sknet": _row("conv1", "fc"),
    "starnet": _row("stem.0.conv", "head", paper_ids="arXiv:2403.19967", paper_name="Rewrite the Stars",
                    origin_url="https://github.com/ma-xu/Rewrite-the-Stars"),
    "swiftformer": _row("stem.0", ("head", "head_dist"), **_FIXED, crop_pct=0.95, paper_ids="arXiv:2303.15446",
                        paper_name="SwiftFormer: Efficient Additive Attention for Transformer-based Real-time Mobile "
                                   "Vision Applications",
                        origin_url="https://github.com/Amshaker/SwiftFormer"),
    "swin_transformer": _row("patch_embed.proj", "head.fc", crop_pct=0.9, fixed_input_size=True, license="mit"),
    "swin_transformer_v2": _row("patch_embed.proj", "head.fc", input_size=(3, 256, 256), pool_size=(8, 8),
                                crop_pct=0.9, fixed_input_size=True, license="mit"),
    "tiny_vit": _row("patch_embed.conv1.conv", "head.fc", crop_pct=0.95, interpolation=None),
    "swin_transformer_v2_cr": _row("patch_embed.proj", "head.fc", crop_pct=0.9, fixed_input_size=True),
    "tnt": _row(
        "pixel_embed.proj", "head", **_FIXED, crop_pct=0.9, **_HALF, paper_ids="arXiv:2103.00112",
        paper_name="Transformer in Transformer",
        origin_url="https://github.com/huawei-noah/Efficient-AI-Backbones/tree/master/tnt_pytorch"),
    "tresnet": _row("body.conv1.conv", "head.fc", interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0,
                    1.0)),
    "twins": _row("patch_embeds.0.proj", "head", **_FIXED, crop_pct=0.9),
    "vgg": _row("features.0", "head.fc", interpolation="bilinear", license="bsd-3-clause"),
    "visformer": _row("stem.0", "head", crop_pct=0.9, fixed_input_size=True),
    "vision_transformer": _row("patch_embed.proj", "head", **_FIXED, crop_pct=0.9, **_HALF),
    "vision_transformer_hybrid": _row("patch_embed.backbone.stem.conv", "head", **_FIXED, crop_pct=0.9, **_HALF),
    "vision_transformer_relpos": _row("patch_embed.proj", "head", **_FIXED, crop_pct=0.9, **_HALF),
    "vision_transformer_sam": _row("patch_embed.proj", "head.fc", input_size=(3, 1024, 1024), **_FIXED, crop_pct=0.9,
                                   **_HALF, license=None),
    "vitamin": _row("patch_embed.backbone.stem.conv1", "head", **_FIXED, crop_pct=0.9,
                    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711), license="mit"),
    "vovnet": _row("stem.0.conv", "head.fc"),
    "xception_aligned": _row("stem.0.conv", "head.fc", input_size=(3, 299, 299), pool_size=(10, 10), crop_pct=0.903,
                             **_HALF),
    "volo": _row("patch_embed.conv.0", ("head", "aux_head"), **_FIXED, crop_pct=0.96),
    "xcit": _row("patch_embed.proj.0.0", "head", **_FIXED, crop_pct=1.0),
}


def _cfg(family: str, url: str = "", **kwargs: Any) -> dict[str, Any]:
    """The fields of a config of weights, as the family's have them unless given."""
    return {"url": url, **_CFGS[family], **kwargs}


def default_cfgs(family: str) -> dict[str, DefaultCfg]:
    """The weights of all of a family's architectures: {architecture: `DefaultCfg`}."""
    return generate_default_cfgs({
        name: cfg for architecture in registry.list_models(module=family)
        for name, cfg in get_arch_pretrained_cfgs(architecture).items()})


# --- building and loading


def _create(
    family: str, variant: str, pretrained: bool = False, cfg_variant: str | None = None, distilled: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """A model of a family's class; where that takes a config, that of the architecture `variant` (or `cfg_variant`).

    Raises:
        UnknownNameError: The class takes a config, and no architecture has this name.
    """
    name, described = CREATORS[family][1], cfg_variant or variant
    changed = configs.changed(family, described)
    model_class: Any
    if changed is not None:
        model_class, kwargs["model_cfg"] = changed
    elif not name:
        model_class = registry.load_entrypoint(described)
    else:
        module = importlib.import_module(f"mvlib.models.{family}")
        model_class = getattr(module, f"{name}Distilled" if distilled else name)
    return build_model_with_cfg(model_class, variant, pretrained, **kwargs)


def create_levit(
    variant: str, cfg_variant: str | None = None, pretrained: bool = False, distilled: bool = True, **kwargs: Any
) -> nn.Module:
    """A LeViT by the config of the architecture `variant` (or `cfg_variant`), whose name may go on with "_conv".

    Raises:
        UnknownNameError: No architecture has this name.
    """
    known = getattr(configs, "levit.model_cfgs")
    name = cfg_variant or (variant if variant in known else variant.replace("_conv", ""))
    if name not in known:
        raise UnknownNameError(f"no LeViT has the name {name!r}{closest(name, known)}")
    module = importlib.import_module("mvlib.models.levit")
    model_class = module.LevitDistilled if distilled else module.Levit
    kwargs.setdefault("feature_cfg", dict(out_indices=(0, 1, 2)))
    return build_model_with_cfg(model_class, variant, pretrained, **{**known[name], **kwargs})


def checkpoint_filter_fn(
    state_dict: Mapping[str, Any],
    model: ImageModel,
    adapt_layer_scale: bool = False,
    interpolation: str = "bicubic",
    antialias: bool = True,
    align_corners: bool | None = None,
) -> StateDict:
    """A state dict of another layout or size as one for `model`.

    Args:
        state_dict: Tensors, or a checkpoint that has them under "model" or "state_dict".
        model: One of ours.
        adapt_layer_scale: Without effect: where the keys ask for it, it is done.
        interpolation, antialias, align_corners: How position embeddings and patches of vision transformers are
            resampled.
    """
    for key in ("model_ema", "model", "module", "state_dict"):
        state_dict = state_dict.get(key, state_dict)
    given = dict(interpolation=interpolation, antialias=antialias, align_corners=align_corners)
    if given != dict(interpolation="bicubic", antialias=True, align_corners=None):
        model = copy.copy(model)
        vars(model)["resampling"] = given
    return model.adapt_state_dict(clean_state_dict(state_dict))


def resampling_filter_fn(
    state_dict: Mapping[str, Any], model: ImageModel, interpolation: str = "bicubic", antialias: bool = True
) -> StateDict:
    """`checkpoint_filter_fn` as the families have it that know no older form of layer scale."""
    return checkpoint_filter_fn(state_dict, model, False, interpolation, antialias)


resampling_filter_fn.__name__ = "checkpoint_filter_fn"
_RESAMPLING = ("beit", "eva")


def hybrid_filter_fn(
    state_dict: Mapping[str, Any], model: ImageModel, interpolation: str = "bicubic", antialias: bool = True
) -> StateDict:
    """The same for hybrid vision transformers, with the arguments that timm has there."""
    return checkpoint_filter_fn(state_dict, model, interpolation=interpolation, antialias=antialias)


def sam2_filter_fn(state_dict: Mapping[str, Any], model: ImageModel | None = None, prefix: str = "") -> StateDict:
    """A state dict of SAM 2's image encoder in our names: what begins with `prefix`, without it."""
    names = importlib.import_module("mvlib.models.hieradet_sam2").META_NAMES
    return rename_keys(state_dict.get("model", state_dict), *names, prefix=prefix)


def load_vit_arrays(
    model: ImageModel, checkpoint_path: str | os.PathLike[str], prefix: str = "", load_bfloat16: bool = False
) -> None:
    """Load a vision transformer's arrays from a file of Google's (.npz); names begin with `prefix`.

    Raises:
        ValueError: bfloat16 is asked for, which needs JAX.
    """
    if load_bfloat16:
        raise ValueError("arrays in bfloat16 need JAX: save them as float32")
    arrays = read_state_dict(checkpoint_path)
    model.load_state_dict({key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)})


# --- functions of single families


def init_weights_vit_timm(module: Any, name: str = "", needs_reset: bool = True, scheme: str = "") -> None:
    """Initialise a module of a vision transformer, for `apply` or `named_apply`.

    Args:
        module: The module.
        name: Its path in the model.
        needs_reset: Whether what has `reset_parameters` and is no layer of the scheme is reset.
        scheme: As `init_vit_module`'s.
    """
    kinds: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d) if scheme == "jax" else (nn.Linear,)
    if isinstance(module, kinds) and scheme != "reset":
        init_vit_module(name, module, scheme)
    elif hasattr(module, "init_weights") and scheme != "reset":
        module.init_weights()
    elif needs_reset and hasattr(module, "reset_parameters"):
        module.reset_parameters()


def init_weights_vit_jax(
    module: nn.Module, name: str = "", head_bias: float = 0.0, needs_reset: bool = True
) -> None:
    """The same as in Flax; `head_bias` is the bias of a module whose name begins with "head"."""
    init_weights_vit_timm(module, name, needs_reset, "jax")
    if isinstance(module, nn.Linear) and name.startswith("head"):
        nn.init.constant_(module.bias, head_bias)


def init_weights_vit_moco(module: nn.Module, name: str = "", needs_reset: bool = True) -> None:
    """The same as in MoCo v3."""
    init_weights_vit_timm(module, name, needs_reset, "moco")


def init_weights_reset_parameters(module: nn.Module, name: str = "", needs_reset: bool = True) -> None:
    """The same as torch itself does."""
    init_weights_vit_timm(module, name, needs_reset, "reset")


def get_init_weights_vit(
    mode: str = "jax", head_bias: float = 0.0, needs_reset: bool = True
) -> Callable[..., None]:
    """One of the four by its mode: what begins with "jax" or "moco", "reset", or anything else."""
    if mode.startswith("jax"):
        return partial(init_weights_vit_jax, head_bias=head_bias, needs_reset=needs_reset)
    if mode.startswith("moco"):
        return partial(init_weights_vit_moco, needs_reset=needs_reset)
    return partial(init_weights_reset_parameters if mode == "reset" else init_weights_vit_timm,
                   needs_reset=needs_reset)


def resize_pos_embed(
    posemb: Tensor,
    posemb_new: Tensor,
    num_prefix_tokens: int = 1,
    gs_new: Sequence[int] = (),
    interpolation: str = "bicubic",
    antialias: bool = False,
) -> Tensor:
    """Position embeddings of a square grid with the shape of `posemb_new`, whose grid is square unless `gs_new`."""
    old, new = (math.isqrt(embedding.shape[1] - num_prefix_tokens) for embedding in (posemb, posemb_new))
    return resample_abs_pos_embed(
        posemb, list(gs_new) or [new, new], [old, old], num_prefix_tokens=num_prefix_tokens,
        interpolation=interpolation, antialias=antialias)


def beit_relative_position_index(window_size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """BEiT's rows of a bias table for a class token and a window: (wh * ww + 1, wh * ww + 1)."""
    return gen_relative_position_index(window_size, class_token=True, device=device)


def get_relative_position_index(win_h: int, win_w: int, device: torch.device | None = None) -> Tensor:
    """Row of Swin's bias table for each pair of positions in a window: (wh * ww, wh * ww)."""
    return gen_relative_position_index((win_h, win_w), device=device)


def window_reverse_to_size(windows: Tensor, window_size: tuple[int, int], img_size: Sequence[int]) -> Tensor:
    """Put the windows of a map of rows and columns `img_size` together again: (B, H, W, C)."""
    return window_reverse(windows, window_size, *img_size)


# --- by family



@cache
def _of(family: str, kind: str) -> Any:
    if kind == "default_cfgs":
        return default_cfgs(family)
    if kind == "checkpoint_filter_fn":
        return resampling_filter_fn if family in _RESAMPLING else checkpoint_filter_fn
    function: Any = partial(_cfg if kind == "_cfg" else _create, family)
    function.__name__ = kind
    return function


def __getattr__(name: str) -> Any:
    family, _, kind = name.partition(".")
    if not kind:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _of(family, kind)


# --- what an EfficientNet's arguments mean

BN_MOMENTUM_TF_DEFAULT, BN_EPS_TF_DEFAULT = 1 - 0.99, 1e-3  # of Google's own training


def resolve_bn_args(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take "bn_momentum" and "bn_eps" out of these arguments, as a batch norm's "momentum" and "eps"; None is none."""
    given = {name: kwargs.pop(f"bn_{name}", None) for name in ("momentum", "eps")}
    return {name: value for name, value in given.items() if value is not None}


def resolve_act_layer(kwargs: dict[str, Any], default: str = "relu") -> Any:
    """Take "act_layer" out of these arguments, as a class."""
    return get_act_layer(kwargs.pop("act_layer", default))
