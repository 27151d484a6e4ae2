"""effdet: EfficientDet on backbones from timm."""

from functools import partial

import torch
from client import Case, images, play
from effdet import DetBenchPredict, DetBenchTrain, EfficientDet, get_efficientdet_config


def detector(name, size=128, **changed):
    config = get_efficientdet_config(name)
    config.image_size = (size, size)
    config.num_classes = 5
    config.update(changed)
    return EfficientDet(config, pretrained_backbone=False)


def answers(size, model):
    x = images(2, 3, size, size)
    with torch.no_grad():
        classes, boxes = model(x)
        found = {"classes": classes, "boxes": boxes, "detections": DetBenchPredict(model)(x)}
    target = {"bbox": torch.tensor([[[8.0, 8, 60, 60]], [[20, 30, 90, 100]]]), "cls": torch.tensor([[1.0], [3]])}
    losses = DetBenchTrain(model, create_labeler=True)(x, target)
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(losses["loss"], parameters, allow_unused=True)
    return found | {"losses": {key: value.detach() for key, value in losses.items()}, "gradients": list(gradients)}


def case(name, size=128, **changed):
    return Case(partial(detector, name, size, **changed), partial(answers, size))


play("effdet", {
    "efficientdet_d0": case("efficientdet_d0"),
    "tf_efficientdet_d0": case("tf_efficientdet_d0"),
    "tf_efficientdet_lite0": case("tf_efficientdet_lite0"),
    "efficientdetv2_dt": case("efficientdetv2_dt", backbone_name="efficientnetv2_rw_t"),
    "resdet50": case("resdet50"),
    "cspresdet50": case("cspresdet50"),
    "mixdet_m": case("mixdet_m"),
    "mobiledet_v3": case("efficientdet_d0", backbone_name="mobilenetv3_small_100"),
    "regnety_002": case("efficientdet_d0", backbone_name="regnety_002"),
})
