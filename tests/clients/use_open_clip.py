"""open_clip: towers from timm beside its text towers."""

from functools import partial

import open_clip
import torch
from client import Case, images, play
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from PIL import Image

TEXT = dict(context_length=8, vocab_size=64, width=32, heads=2, layers=1)


def answers(size, intermediates, model):
    x, text = images(2, 3, size, size), torch.arange(16).reshape(2, 8)
    image, words, scale = model(x, text)[:3]
    loss = open_clip.ClipLoss()(image, words, scale)
    found = {"image": image.detach(), "text": words.detach(), "loss": loss.detach(),
             "gradients": list(torch.autograd.grad(loss, model.visual.trunk.parameters(), allow_unused=True))}
    if intermediates:
        with torch.no_grad():
            found["intermediates"] = model.visual.forward_intermediates(x, indices=2)
    model.lock_image_tower(unlocked_groups=2, freeze_bn_stats=True)
    found["trained"] = sorted(name for name, p in model.visual.named_parameters() if p.requires_grad)
    return found


def case(name, size=64, intermediates=True, kind=CLIP, set_size=False, width_as=32, **vision):
    def build():
        cfg = CLIPVisionCfg(timm_model_name=name, timm_model_pretrained=False, image_size=size, **vision)
        model = kind(width_as, cfg, CLIPTextCfg(**TEXT), output_dict=False)
        if set_size:
            model.visual.set_input_size(size)
        return model

    return Case(build, partial(answers, size, intermediates))


def transformed(_):
    """Timm's transforms, as open_clip makes them for training."""
    pixels = images(3, 75, 100).mul(40).add(128).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    augmentations = dict(use_timm=True, scale=(0.5, 1.0), ratio=(0.8, 1.2), color_jitter=0.3, re_prob=0.5, re_count=2)
    train = open_clip.image_transform(64, is_train=True, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3),
                                      aug_cfg=augmentations)
    return [train(Image.fromarray(pixels)) for _ in range(4)]


play("open_clip", {
    "resnet18-linear": case("resnet18", timm_pool="avg", timm_proj="linear"),
    "resnet18-mlp": case("resnet18", timm_pool="", timm_proj="mlp", kind=CustomTextCLIP),
    "resnet18-attention": case("resnet18", 224, timm_pool="abs_attn", timm_proj="", intermediates=False),
    "resnet18-rotary": case("resnet18", timm_pool="rot_attn", timm_proj="", intermediates=False),
    "resnetv2_50-own-head": case("resnetv2_50", timm_pool="avg", timm_proj=None),
    "efficientnet_b0-linear": case("efficientnet_b0", timm_pool="avg", timm_proj="linear"),
    "convnext_atto-linear": case("convnext_atto", timm_pool="", timm_proj="linear", timm_drop_path=0.1),
    "vit_tiny-linear": case("vit_tiny_patch16_224", timm_pool="token", timm_proj="linear", set_size=True,
                            timm_drop_path=0.1),
    "vit_tiny-own-head": case("vit_tiny_patch16_224", 224, timm_pool="avg", timm_proj=None),
    "vit_tiny-no-head": case("vit_tiny_patch16_224", 224, timm_pool="token", timm_proj="none", width_as=192),
    "vit_xsmall_clip-mlp": case("vit_xsmall_patch16_clip_224", 224, timm_pool="token", timm_proj="mlp",
                                kind=CustomTextCLIP),
    "swin_tiny-linear": case("swin_tiny_patch4_window7_224", timm_pool="avg", timm_proj="linear", set_size=True),
    "transforms": Case(torch.nn.Identity, transformed),
})
