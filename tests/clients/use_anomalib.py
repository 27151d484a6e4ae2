"""anomalib: features of timm's models, and its detectors on them. All weights are random: it is asked for none."""

from functools import partial, wraps

import timm
import torch
from client import Case, images, play

_create = timm.create_model


@wraps(_create)
def without_weights(name, pretrained=False, **kwargs):
    """Some of its detectors ask for pretrained weights always."""
    return _create(name, pretrained=False, **kwargs)


timm.create_model = without_weights

from anomalib.models.components import TimmFeatureExtractor  # noqa: E402
from anomalib.models.image.anomaly_dino.torch_model import AnomalyDINOModel  # noqa: E402
from anomalib.models.image.cflow.torch_model import CflowModel  # noqa: E402
from anomalib.models.image.dinomaly.torch_model import DinomalyModel  # noqa: E402
from anomalib.models.image.fastflow.torch_model import FastflowModel  # noqa: E402
from anomalib.models.image.general_ad.torch_model import GeneralADModel  # noqa: E402
from anomalib.models.image.padim.torch_model import PadimModel  # noqa: E402
from anomalib.models.image.patchcore.torch_model import PatchcoreModel  # noqa: E402
from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode  # noqa: E402
from anomalib.models.image.reverse_distillation.torch_model import ReverseDistillationModel  # noqa: E402
from anomalib.models.image.stfpm.torch_model import STFPMModel  # noqa: E402
from anomalib.models.image.supersimplenet.torch_model import SupersimplenetModel  # noqa: E402


def plain(output):
    if isinstance(output, torch.Tensor) or output is None:
        return output
    if isinstance(output, dict):
        return {str(key): plain(value) for key, value in output.items()}
    return [plain(value) for value in output]


@torch.no_grad()
def outputs(size, train, model):
    """What a model says in training, then as a detector."""
    found = {}
    if train:
        model.train()
        found["train"] = plain(model(images(4, 3, size, size, seed=2)))
        if hasattr(model, "fit"):
            model.fit()
        if hasattr(model, "subsample_embedding"):
            model.subsample_embedding(0.5)
        model.eval()
    return found | {"eval": plain(model(images(2, 3, size, size)))}


def case(build, size=64, train=False):
    return Case(build, partial(outputs, size, train))


def extractor(name, layers, size=64, **kwargs):
    def build():
        return TimmFeatureExtractor(name, layers, pre_trained=False, **kwargs)

    def answers(model):
        return {"features": plain(model(images(2, 3, size, size))), "widths": list(model.out_dims)}

    return Case(build, lambda model: torch.no_grad()(answers)(model))


STAGES = ["layer1", "layer2", "layer3"]
play("anomalib", {
    "features-resnet18": extractor("resnet18", STAGES),
    "features-efficientnet_b0": extractor("efficientnet_b0", ["blocks.1", "blocks.2"]),
    "features-by-number": extractor("convnext_atto", [1, 3]),
    "features-vit-maps": extractor("vit_tiny_patch16_224", ["blocks.2", "blocks.8"]),
    "features-vit-tokens": extractor("vit_tiny_patch16_224", ["blocks.2", "blocks.8"], output_fmt="NLC",
                                     return_class_token=True),
    "features-dinov2": extractor("vit_small_patch14_dinov2", ["blocks.3"], 70, output_fmt="NLC", norm=False),
    "features-registers": extractor("vit_little_patch16_reg4_gap_256", ["blocks.3"], output_fmt="NLC",
                                    return_class_token=True),
    "padim": case(lambda: PadimModel("resnet18", STAGES, pre_trained=False, n_features=20), train=True),
    "patchcore": case(lambda: PatchcoreModel(["layer2", "layer3"], "resnet18", pre_trained=False), train=True),
    "stfpm": case(lambda: STFPMModel(STAGES, "resnet18")),
    "reverse-distillation": case(lambda: ReverseDistillationModel("resnet18", (64, 64), STAGES,
                                                                  AnomalyMapGenerationMode.ADD, pre_trained=False)),
    "cflow": case(lambda: CflowModel("resnet18", STAGES, pre_trained=False, coupling_blocks=2)),
    "fastflow-resnet18": case(lambda: FastflowModel((64, 64), "resnet18", pre_trained=False, flow_steps=2), train=True),
    "supersimplenet": case(lambda: SupersimplenetModel(backbone="resnet18", layers=["layer2", "layer3"])),
    "anomaly-dino": case(lambda: AnomalyDINOModel(encoder_name="vit_small_patch14_dinov2"), 70, train=True),
    "dinomaly": case(lambda: DinomalyModel("vit_small_patch14_dinov2", decoder_depth=8), 70),
    "general-ad": case(lambda: GeneralADModel("vit_tiny_patch16_224", [5, 8], 32, dsc_heads=2, image_size=(64, 64),
                                              pre_trained=False)),
})
