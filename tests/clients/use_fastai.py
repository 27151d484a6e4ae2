"""fastai: its heads on timm's bodies, and its training loop."""

from functools import partial

import torch
from client import Case, images, play
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.all import (
    DataLoaders,
    create_timm_model,
    vision_learner,
)
from torch.utils.data import TensorDataset


def loaders():
    data = TensorDataset(images(24, 3, 64, 64), torch.arange(24) % 4)
    return DataLoaders.from_dsets(data, data, bs=8, num_workers=0, shuffle=False, drop_last=False)


def learner(name, **kwargs):
    return vision_learner(loaders(), name, n_out=4, pretrained=False, normalize=False,
                          loss_func=CrossEntropyLossFlat(), **kwargs)


def groups(model_learner):
    """How fastai freezes: the sizes of the groups of parameters."""
    return [sum(p.numel() for p in group) for group in model_learner.splitter(model_learner.model)]


class Holder(torch.nn.Module):
    """A learner among models."""

    def __init__(self, made):
        super().__init__()
        self.learner, self.model = made, made.model


def train(holder):
    made = holder.learner
    made.freeze()
    made.opt_func = partial(made.opt_func, mom=0.9)
    with made.no_bar(), made.no_logging():
        made.fit(1, 1e-3)
        made.unfreeze()
        made.fit(1, slice(1e-5, 1e-3))
    made.model.eval()
    with torch.no_grad():
        return {"groups": groups(made), "losses": torch.tensor([float(x) for x in made.recorder.losses]),
                "logits": made.model(images(2, 3, 64, 64))}


def save(holder, folder):
    holder.learner.path = folder
    holder.learner.save("learner")


def load(name, kwargs, folder):
    holder = Holder(learner(name, **kwargs))
    holder.learner.path = folder
    holder.learner.load("learner")
    return holder


def case(name, **kwargs):
    return Case(lambda: Holder(learner(name, **kwargs)), train, save, partial(load, name, kwargs))


@torch.no_grad()
def logits(model):
    return model(images(2, 3, 64, 64))


def body(name, **kwargs):
    return Case(lambda: create_timm_model(name, 5, pretrained=False, **kwargs)[0], logits)


play("fastai", {
    "learner-resnet18": case("resnet18.a1_in1k"),
    "learner-convnext_atto": case("convnext_atto"),
    "body-resnet18": body("resnet18"),
    "body-efficientnet_b0": body("efficientnet_b0"),
    "body-convnext_atto": body("convnext_atto"),
    "body-mobilenetv3": body("mobilenetv3_small_100"),
    "body-regnety-1-channel": Case(lambda: create_timm_model("regnety_002", 5, pretrained=False, n_in=1)[0],
                                   lambda m: m(images(2, 1, 64, 64)).detach()),
    "body-vit": body("vit_tiny_patch16_224", img_size=64, concat_pool=False),
})
