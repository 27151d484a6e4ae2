"""pytorch-grad-cam: maps from the gradients at a layer that its user names."""

from functools import partial

import pytorch_grad_cam
import timm
import torch
from client import Case, images, play
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

SWIN = dict(img_size=64, embed_dim=24, depths=(1, 1, 2, 1), num_heads=(1, 2, 3, 6), window_size=4)


def tokens_to_map(tokens):
    """Of a ViT's tokens: the class token goes, the rest is a map."""
    batch, count, width = tokens[:, 1:].shape
    side = int(count ** 0.5)
    return tokens[:, 1:].reshape(batch, side, side, width).permute(0, 3, 1, 2)


def map_last(x):
    return x.permute(0, 3, 1, 2)


def cams(methods, layer, size, reshape, model):
    x, target = images(2, 3, size, size), [ClassifierOutputTarget(3), ClassifierOutputTarget(7)]
    found = {}
    for method in methods:
        with getattr(pytorch_grad_cam, method)(model, [layer(model)], reshape_transform=reshape) as cam:
            found[method] = torch.from_numpy(cam(x, target))
    return found


GRADIENTS = ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "EigenGradCAM")


def case(name, layer, size=64, reshape=None, methods=GRADIENTS, **kwargs):
    return Case(partial(timm.create_model, name, num_classes=10, **kwargs),
                partial(cams, methods, layer, size, reshape))


play("pytorch_grad_cam", {
    "resnet18": case("resnet18", lambda m: m.layer4[-1], methods=(*GRADIENTS, "ScoreCAM", "AblationCAM")),
    "efficientnet_b0": case("efficientnet_b0", lambda m: m.blocks[-1]),
    "convnext_atto": case("convnext_atto", lambda m: m.stages[-1].blocks[-1]),
    "vit": case("vit_tiny_patch16_224", lambda m: m.blocks[-1].norm1, 64, tokens_to_map, img_size=64, depth=3),
    "deit_distilled": case("deit_tiny_distilled_patch16_224", lambda m: m.blocks[-1].norm1, 64,
                           lambda x: tokens_to_map(x[:, 1:]), img_size=64, depth=3),
    "swin": case("swin_tiny_patch4_window7_224", lambda m: m.layers[-1].blocks[-1].norm1, 64, map_last, **SWIN),
})
