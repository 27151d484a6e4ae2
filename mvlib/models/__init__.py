"""Model families, one module each, and torchvision's way to them.

    from mvlib.models import resnet50, ResNet50_Weights
    model = resnet50(weights=ResNet50_Weights.IMAGENET1K_V2)

Every architecture has a builder here, and an Enum of its weights; both are made on first use, from the registry.
`list_models`, `get_model`, `get_weight` and their like behave as torchvision's.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from .. import registry

_NAMES = {
    "..builders": ("get_model", "get_model_builder", "get_model_weights", "list_models"),
    "..enums": ("Weights", "WeightsEnum", "get_weight"),
    "..factory": ("create_model",),  # for callers of timm.models
    "..features": ("FeatureExtractor",),
    "..loading": ("load_checkpoint",),
    "..registry": (
        "get_arch_pretrained_cfgs", "get_pretrained_cfg", "get_pretrained_cfg_value", "is_model", "is_model_in_modules",
        "is_model_pretrained", "list_modules", "list_pretrained", "model_entrypoint", "register_model",
        "register_model_deprecations",
    ),
    ".base": ("ImageModel",),
    ".alexnet": ("AlexNet",),
    ".cait": ("Cait",),
    ".byobnet": ("ByobNet",),
    ".convnext": ("ConvNeXt",),
    ".cspnet": ("CspNet",),
    ".deit": ("VisionTransformerDistilled",),
    ".coat": ("CoaT",),
    ".convit": ("ConVit",),
    ".densenet": ("DenseNet",),
    ".dla": ("DLA",),
    ".dpn": ("DPN",),
    ".efficientnet": ("EfficientNet",),
    ".ghostnet": ("GhostNet",),
    ".googlenet": ("GoogLeNet", "GoogLeNetOutputs"),
    ".hrnet": ("HighResolutionNet",),
    ".inception_resnet_v2": ("InceptionResnetV2",),
    ".inception_v3": ("InceptionOutputs", "InceptionV3"),
    ".inception_v4": ("InceptionV4",),
    ".levit": ("Levit", "LevitDistilled"),
    ".maxxvit": ("MaxxVit",),
    ".mlp_mixer": ("MlpMixer",),
    ".mobilenetv3": ("MobileNetV3",),
    ".nasnet": ("NASNetALarge",),
    ".nest": ("Nest",),
    ".nfnet": ("NormFreeNet",),
    ".pit": ("PoolingVisionTransformer", "PoolingVisionTransformerDistilled"),
    ".pnasnet": ("PNASNet5Large",),
    ".regnet": ("RegNet",),
    ".resnet": ("ResNet",),
    ".resnetv2": ("ResNetV2",),
    ".rexnet": ("RexNet",),
    ".selecsls": ("SelecSls",),
    ".senet": ("SENet",),
    ".shufflenetv2": ("ShuffleNetV2",),
    ".squeezenet": ("SqueezeNet",),
    ".swin_transformer": ("SwinTransformer",),
    ".swin_transformer_v2": ("SwinTransformerV2",),
    ".twins": ("Twins",),
    ".tresnet": ("TResNet",),
    ".tnt": ("TNT",),
    ".vgg": ("VGG",),
    ".vision_transformer": ("VisionTransformer",),
    ".vision_transformer_hybrid": ("HybridVisionTransformer",),
    ".visformer": ("Visformer",),
    ".vovnet": ("VovNet",),
    ".xcit": ("XCiT",),
    ".xception": ("Xception",),
    ".xception_aligned": ("XceptionAligned",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
_ALIASES = {  # torchvision's classes whose networks are of our other classes
    "Inception3": "InceptionV3", "MNASNet": "EfficientNet", "MaxVit": "MaxxVit", "MobileNetV2": "EfficientNet",
}
_SUBMODULES = ("feature_extraction", "quantization")


class _Package(ModuleType):
    """Importing a family sets its module as an attribute; where a model has the name (alexnet), the builder stays."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and registry.is_model(name)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name in _ALIASES:
        value = __getattr__(_ALIASES[name])
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name], __name__), name)
    elif name.startswith("_"):
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    elif "." not in name and registry.is_model(name):
        from ..builders import get_builder

        return get_builder(name)  # kept there; a user may register another model under the name
    elif name.endswith(("_Weights", "_QuantizedWeights")):
        from ..enums import find_enum

        value = find_enum(name)
        if value is None:
            raise AttributeError(_no_such_enum(name))
        return value
    elif name in _SUBMODULES or name in registry.list_modules():
        return importlib.import_module(f"{__name__}.{name}")
    else:
        from ..names import closest

        hint = closest(name, {*registry.list_models(), *registry.list_builders()})
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'{hint}")
    globals()[name] = value
    return value


def _no_such_enum(name: str) -> str:
    from ..enums import enum_names
    from ..names import closest

    known = enum_names()
    same = [other for other in known if other.lower() == name.lower()]
    return f"module '{__name__}' has no Enum of weights '{name}'{closest(name, same or known)}"


def __dir__() -> list[str]:
    from ..enums import enum_names

    public = {name for name in globals() if not name.startswith("_")} - {"annotations", "importlib", "sys", "Any"}
    dunder = {name for name in globals() if name.startswith("__")}
    made = {*registry.list_models(), *registry.list_builders(), *enum_names()}
    return sorted({*public, *dunder, *_HOME, *_ALIASES, *_SUBMODULES, *made} - {"registry", "ModuleType"})


sys.modules[__name__].__class__ = _Package
