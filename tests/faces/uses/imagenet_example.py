"""The habits of the ImageNet example: names from the module's dictionary, weights by pretrained=, a head put in."""

import warnings

import torch
from common import fill, images
from models_under_test import models
from torch import nn

names = sorted(name for name in models.__dict__
               if name.islower() and not name.startswith("__") and callable(models.__dict__[name]))
x, target = images(4, 3, 64, 64), torch.tensor([0, 1, 2, 1])
RESULT = {"choices": {"resnet50", "vit_b_16", "convnext_tiny", "regnet_y_400mf"} <= set(names)}
for arch, head in (("resnet18", "fc"), ("mobilenet_v2", "classifier.1"), ("alexnet", "classifier.6")):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = models.__dict__[arch](pretrained=False)
    parent, _, name = head.rpartition(".")
    old = model.get_submodule(head)
    setattr(model.get_submodule(parent), name, nn.Linear(old.in_features, 3))
    model = fill(model).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    RESULT[arch] = {"losses": torch.tensor(losses), "logits": model.eval()(x).detach(),
                    "state": {key: value.float().norm() for key, value in model.state_dict().items()},
                    "warned": sorted({warning.category.__name__ for warning in caught})}
weights = models.ResNet50_Weights.DEFAULT
RESULT["weights"] = {"url": weights.url, "categories": weights.meta["categories"][:3],
                     "top1": weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
                     "image": weights.transforms()(images(3, 300, 260).mul(40).add(128).clamp(0, 255).byte()),
                     "transforms": repr(weights.transforms()),
                     "same": models.get_weight("ResNet50_Weights.IMAGENET1K_V2") is weights}
