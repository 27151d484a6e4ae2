"""Inference, as a model's card has it; lists of models."""

import timm
import torch
from common import fill, images
from PIL import Image
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config
from timm.utils import reparameterize_model

pixels = images(80, 100, 3).mul(40).add(128).clamp(0, 255).byte().numpy()
model = fill(timm.create_model("mobilenetv3_small_100.lamb_in1k", pretrained=False)).eval()
config = resolve_model_data_config(model)
transform = create_transform(**config, is_training=False)
image = transform(Image.fromarray(pixels)).unsqueeze(0)
with torch.no_grad():
    top, classes = torch.topk(model(image).softmax(1) * 100, k=5)
    features = model.forward_features(image)
    pooled = model.forward_head(features, pre_logits=True)
    model.reset_classifier(0)
    embedding = model(image)
    branches = fill(timm.create_model("repvgg_a0", num_classes=3)).eval()
    before, after = branches(image), reparameterize_model(branches)(image)
info = ImageNetInfo(infer_imagenet_subset(model) or "imagenet-1k")
filters = dict(a="resnet1*", b="*resne?t18*", c=["vit_tiny_r*", "deit_tiny*"])
RESULT = {
    "config": config, "image": image, "top": top, "classes": classes, "pooled": pooled, "embedding": embedding,
    "features": features, "labels": [info.index_to_description(int(i)) for i in classes[0]],
    "reparameterized": [before, after], "transform": str(transform),
    "lists": {key: timm.list_models(value) for key, value in filters.items()},
    "pretrained": timm.list_pretrained("mobilenetv3_small*"), "modules": "resnet" in timm.list_modules(),
    "cfg": {key: timm.get_pretrained_cfg("resnet18.a1_in1k").to_dict()[key] for key in ("hf_hub_id", "crop_pct")},
    "excluded": timm.list_models("resnet18*", exclude_filters=["resnet18.*"], pretrained=True),
}
