"""Model families, one module each, and torchvision's way to them.

    from mvlib.models import resnet50, ResNet50_Weights
    model = resnet50(weights=ResNet50_Weights.IMAGENET1K_V2)

Every architecture has a builder here, and an Enum of its weights; both are made on first use, from the registry.
`list_models`, `get_model`, `get_weight` and their like behave as torchvision's.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from types import ModuleType
from typing import Any

from .. import registry
from ..tasks import CLASSIFICATION
from ..torchvision_modules import attribute, real

_THEIRS = "torchvision.models"
_NAMES = {
    _THEIRS: (  # its classes; ours of these names are in the families' modules
        "AlexNet", "ConvNeXt", "DenseNet", "EfficientNet", "GoogLeNet", "GoogLeNetOutputs", "Inception3",
        "InceptionOutputs", "MNASNet", "MaxVit", "MobileNetV2", "MobileNetV3", "RegNet", "ResNet", "ShuffleNetV2",
        "SqueezeNet", "SwinTransformer", "VGG", "VisionTransformer", "_GoogLeNetOutputs", "_InceptionOutputs",
    ),
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
    ".beit": ("Beit",),
    ".cait": ("Cait",),
    ".byobnet": ("ByobNet",),
    ".cpubone": ("CPUBone",),
    ".crossvit": ("CrossVit",),
    ".csatv2": ("CSATv2",),
    ".cspnet": ("CspNet",),
    ".cspnext": ("CspNext",),
    ".davit": ("DaVit",),
    ".deepseek_vit": ("DeepseekVitClassifier", "DeepseekVitEncoder"),
    ".deit": ("VisionTransformerDistilled",),
    ".coat": ("CoaT",),
    ".convit": ("ConVit",),
    ".convmixer": ("ConvMixer",),
    ".dla": ("DLA",),
    ".dpn": ("DPN",),
    ".edgenext": ("EdgeNeXt",),
    ".efficientformer": ("EfficientFormer",),
    ".efficientformer_v2": ("EfficientFormerV2",),
    ".efficientvim": ("EfficientViM", "EfficientViMDistilled"),
    ".efficientvit_mit": ("EfficientVit", "EfficientVitLarge"),
    ".efficientvit_msra": ("EfficientVitMsra",),
    ".eva": ("Eva",),
    ".fasternet": ("FasterNet",),
    ".fastvit": ("FastVit",),
    ".focalnet": ("FocalNet",),
    ".gcvit": ("GlobalContextVit",),
    ".gemma4_vit": ("Gemma4VitClassifier", "Gemma4VitEncoder"),
    ".ghostnet": ("GhostNet",),
    ".hgnet": ("HighPerfGpuNet",),
    ".hiera": ("Hiera",),
    ".hieradet_sam2": ("HieraDet",),
    ".hrnet": ("HighResolutionNet",),
    ".iformer": ("IFormer",),
    ".inception_next": ("MetaNeXt",),
    ".inception_resnet_v2": ("InceptionResnetV2",),
    ".inception_v3": ("InceptionV3",),
    ".inception_v4": ("InceptionV4",),
    ".lcnetv2": ("LCNetV2",),
    ".levit": ("Levit", "LevitDistilled"),
    ".lowformer": ("LowFormer",),
    ".mambaout": ("MambaOut",),
    ".maxxvit": ("MaxxVit",),
    ".metaformer": ("MetaFormer",),
    ".mlp_mixer": ("MlpMixer",),
    ".mobilenetv5": ("MobileNetV5", "MobileNetV5Encoder"),
    ".mvitv2": ("MultiScaleVit",),
    ".naflexvit": ("NaFlexVit", "NaFlexVitCfg"),
    ".nasnet": ("NASNetALarge",),
    ".nest": ("Nest",),
    ".nextvit": ("NextViT",),
    ".nfnet": ("NormFreeNet",),
    ".pit": ("PoolingVisionTransformer", "PoolingVisionTransformerDistilled"),
    ".pnasnet": ("PNASNet5Large",),
    ".pvt_v2": ("PyramidVisionTransformerV2",),
    ".qwen3_vit": ("Qwen3VitClassifier", "Qwen3VitEncoder"),
    ".rdnet": ("RDNet",),
    ".repghost": ("RepGhostNet",),
    ".repvit": ("RepVit",),
    ".resnetv2": ("ResNetV2",),
    ".rexnet": ("RexNet",),
    ".selecsls": ("SelecSls",),
    ".senet": ("SENet",),
    ".sequencer": ("Sequencer2d",),
    ".shvit": ("SHViT",),
    ".starnet": ("StarNet",),
    ".swiftformer": ("SwiftFormer",),
    ".swin_transformer_v2_cr": ("SwinTransformerV2Cr",),
    ".swin_transformer_v2": ("SwinTransformerV2",),
    ".tiny_vit": ("TinyVit",),
    ".twins": ("Twins",),
    ".tresnet": ("TResNet",),
    ".tnt": ("TNT",),
    ".vision_transformer_hybrid": ("HybridVisionTransformer",),
    ".vision_transformer_relpos": ("VisionTransformerRelPos",),
    ".vision_transformer_sam": ("VisionTransformerSAM",),
    ".visformer": ("Visformer",),
    ".vitamin": ("ViTamin",),
    ".vovnet": ("VovNet",),
    ".volo": ("VOLO",),
    ".xcit": ("XCiT",),
    ".xception": ("Xception",),
    ".xception_aligned": ("XceptionAligned",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
_SUBMODULES = ("feature_extraction", "quantization")
_OTHER_TASKS = ("detection", "optical_flow", "segmentation", "video")
_MODULES = (  # torchvision's, where we have no family of the name
    *_OTHER_TASKS, "_api", "_meta", "_utils", "inception", "maxvit", "mnasnet", "mobilenet", "mobilenetv2")


class _Package(ModuleType):
    """Importing a family sets its module as an attribute; where a model has the name (alexnet), the builder stays.

    What a family's module lacks, it takes from torchvision's of the same name. `__dict__` has all builders, which
    torchvision's callers look through: they are put there when it is first asked for, and when there are more.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        is_module = isinstance(value, ModuleType)
        if is_module and value.__name__ == f"{__name__}.{name}" and "__getattr__" not in vars(value):
            value.__getattr__ = partial(attribute, name)  # type: ignore[method-assign]
        if not (is_module and registry.is_model(name)):
            super().__setattr__(name, value)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        names = registry.list_models(task=CLASSIFICATION) if registry.count_models() != _listed[0] else ()
        more = (*registry.list_builders(CLASSIFICATION), *_NAMES["..builders"], "get_weight") if names else ()
        for name in (*names, *more):
            globals().setdefault(name, __getattr__(name))
        _listed[0] = registry.count_models()
        return globals()


_listed = [0]  # how many models `__dict__` has


def __getattr__(name: str) -> Any:
    if name in _HOME:
        home = _HOME[name]
        value = getattr(real(home) if home == _THEIRS else importlib.import_module(home, __name__), name)
    elif name == "__all__":
        return _all()
    elif name in _SUBMODULES or name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    elif name.startswith("_"):
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    elif "." not in name and registry.is_model(name) and registry.task_of(name) == CLASSIFICATION:
        from ..builders import get_builder

        return get_builder(name)  # kept there; a user may register another model under the name
    elif name.endswith(("_Weights", "_QuantizedWeights")):
        from ..enums import find_enum

        value = find_enum(name)
        if value is not None and value.__module__ != __name__:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'; {value.__module__} has")
        if value is None:
            raise AttributeError(_no_such_enum(name))
        return value
    elif name in registry.list_modules():
        return importlib.import_module(f"{__name__}.{name}")
    else:
        from ..names import closest

        hint = f"; mvlib.models.{registry.get_module(name)} has" if registry.is_model(name) else \
            closest(name, {*registry.list_models(), *registry.list_builders()})
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'{hint}")
    globals()[name] = value
    return value


def _all() -> list[str]:
    """What `from mvlib.models import *` gives: the names of torchvision.models."""
    names = [name for name in registry.list_builders(CLASSIFICATION) if registry.get_module(name) != "quantization"]
    classes = [name for name in _NAMES[_THEIRS] if not name.startswith("_")]
    functions = ("get_model", "get_model_builder", "get_model_weights", "get_weight", "list_models")
    modules = ("convnext", "densenet", "efficientnet", "mobilenetv3", "quantization", "regnet", "resnet",
               "shufflenetv2", "squeezenet", "swin_transformer", "vgg", "vision_transformer",
               *(name for name in _MODULES if not name.startswith("_")))
    return sorted({*names, *(registry.builder_facts(name)["weights"] for name in names), *classes, *functions,
                   *modules, "Weights", "WeightsEnum"})


def _no_such_enum(name: str) -> str:
    from ..enums import enum_names
    from ..names import closest

    known = enum_names(CLASSIFICATION)
    same = [other for other in known if other.lower() == name.lower()]
    return f"module '{__name__}' has no Enum of weights '{name}'{closest(name, same or known)}"


def __dir__() -> list[str]:
    from ..enums import enum_names

    public = {name for name in globals() if not name.startswith("_")} - {
        "annotations", "importlib", "sys", "Any", "registry", "CLASSIFICATION", "ModuleType", "partial", "attribute",
        "real"}
    dunder = {name for name in globals() if name.startswith("__")}
    made = {*registry.list_models(task=CLASSIFICATION), *registry.list_builders(CLASSIFICATION),
            *enum_names(CLASSIFICATION)}
    return sorted({*public, *dunder, *_HOME, *_SUBMODULES, *_MODULES, *made})


sys.modules[__name__].__class__ = _Package
