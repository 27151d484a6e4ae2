"""transformers: timm's models in its wrappers and below its detectors, saved and read by its own methods.

It makes a model that it reads on the meta device: buffers that no file has are the model's own to fill."""

from functools import partial

import torch
from client import Case, images, play
from PIL import Image
from transformers import (
    ConditionalDetrConfig,
    ConditionalDetrForObjectDetection,
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    DetrForSegmentation,
    TableTransformerConfig,
    TableTransformerForObjectDetection,
    TimmBackbone,
    TimmBackboneConfig,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
    TimmWrapperModel,
)

SWIN = dict(img_size=64, embed_dim=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 3, 6], window_size=4)
VIT = dict(img_size=64, depth=3)
# with the buffers that their files lack: tables of positions, masks of shifted windows, filters of blurring
WRAPPED = {
    "resnet18": {}, "resnet26d": {}, "resnetblur18": {}, "efficientnet_b0": {}, "mobilenetv3_small_100": {},
    "convnext_atto": {}, "regnety_002": {}, "vit_tiny_patch16_224": VIT, "deit_tiny_distilled_patch16_224": VIT,
    "deit3_small_patch16_224": VIT, "vit_little_patch16_reg4_gap_256": VIT, "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_tiny_window8_256": SWIN, "levit_128s": {}, "maxvit_rmlp_pico_rw_256": {}, "coatnet_nano_rw_224": {},
    "xcit_nano_12_p16_224": dict(depth=2), "convit_tiny": dict(img_size=64, depth=3, local_up_to_layer=2),
    "botnet26t_256": {}, "pit_ti_224": {}, "visformer_tiny": {}, "twins_svt_small": dict(depths=[1, 1, 2, 1]),
    "mixer_s32_224": {}, "nest_tiny_jx": dict(img_size=64), "cait_xxs24_224": VIT,
}
SIZES = {"maxvit_rmlp_pico_rw_256": 256, "botnet26t_256": 256, "levit_128s": 224, "coatnet_nano_rw_224": 224,
         "pit_ti_224": 224, "visformer_tiny": 224, "twins_svt_small": 224, "mixer_s32_224": 224,
         "xcit_nano_12_p16_224": 224}
NO_INTERMEDIATES = {"botnet26t_256"}


def to_folder(model, folder):
    model.save_pretrained(folder)


@torch.no_grad()
def hidden(size, every, model):
    out = model(images(2, 3, size, size), output_hidden_states=every)
    return {"last": out.last_hidden_state, "pooled": out.pooler_output, "hidden": list(out.hidden_states or ())}


def wrapped(name):
    config = TimmWrapperConfig(architecture=name, model_args=WRAPPED[name])
    return Case(lambda: TimmWrapperModel(config), partial(hidden, SIZES.get(name, 64), name not in NO_INTERMEDIATES),
                to_folder, TimmWrapperModel.from_pretrained)


def classified(model):
    out = model(images(2, 3, 64, 64), labels=torch.tensor([1, 3]))
    gradients = torch.autograd.grad(out.loss, [p for p in model.parameters() if p.requires_grad])
    return {"loss": out.loss.detach(), "logits": out.logits.detach(), "gradients": list(gradients)}


def classifier(name, **model_args):
    config = TimmWrapperConfig(architecture=name, model_args=model_args, num_labels=5)
    return Case(lambda: TimmWrapperForImageClassification(config), classified, to_folder,
                TimmWrapperForImageClassification.from_pretrained)


class Processor(torch.nn.Module):
    """An image processor among models."""

    def __init__(self, processor):
        super().__init__()
        self.processor = processor


def processed(holder):
    pixels = images(3, 75, 100).mul(40).add(128).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return {"data": dict(holder.processor.data_config),
            "images": [holder.processor(image)["pixel_values"]
                       for image in (Image.fromarray(pixels), [Image.fromarray(pixels)] * 2)]}


def processor(**pretrained_cfg):
    """Its settings lie in the model's configuration."""
    cfg = dict(input_size=[3, 64, 64], mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.3], interpolation="bicubic",
               crop_pct=0.9) | pretrained_cfg
    return Case(lambda: Processor(TimmWrapperImageProcessor(pretrained_cfg=cfg, architecture="resnet18")), processed,
                lambda _, folder: to_folder(TimmWrapperConfig(architecture="resnet18", pretrained_cfg=cfg), folder),
                lambda folder: Processor(TimmWrapperImageProcessor.from_pretrained(folder)))


@torch.no_grad()
def maps(size, every, model):
    out = model(images(2, 3, size, size), output_hidden_states=every)
    return {"maps": list(out.feature_maps), "hidden": list(out.hidden_states or ()), "channels": model.channels,
            "stages": list(model.stage_names)}


def backbone(name, size=64, indices=(1, 3), every=True, **kwargs):
    config = TimmBackboneConfig(backbone=name, out_indices=list(indices), use_pretrained_backbone=False, **kwargs)
    return Case(lambda: TimmBackbone(config), partial(maps, size, every))


SMALL = dict(d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32,
             encoder_attention_heads=2, decoder_attention_heads=2, num_queries=5, num_labels=4)


@torch.no_grad()
def detected(model):
    out = model(images(2, 3, 96, 96))
    return {"logits": out.logits, "boxes": out.pred_boxes, "masks": getattr(out, "pred_masks", None)}


def detector(model_class, config_class, name="resnet18", indices=(4,), **changed):
    def build():
        backbone = TimmBackboneConfig(backbone=name, out_indices=list(indices), freeze_batch_norm_2d=True)
        return model_class(config_class(backbone_config=backbone, **SMALL | changed))

    return Case(build, detected, to_folder, model_class.from_pretrained)


CASES = {f"wrapper-{name}": wrapped(name) for name in WRAPPED}
CASES |= {
    "classifier-resnet18": classifier("resnet18"),
    "classifier-vit": classifier("vit_tiny_patch16_224", **VIT),
    "classifier-swin": classifier("swin_tiny_patch4_window7_224", **SWIN),
    "features-resnet18": Case(
        lambda: TimmWrapperModel(TimmWrapperConfig(architecture="resnet18",
                                                   model_args=dict(features_only=True, out_indices=[1, 2]))),
        lambda model: list(model(images(2, 3, 64, 64)).last_hidden_state), to_folder, TimmWrapperModel.from_pretrained),
    "processor": processor(),
    "processor-border": processor(crop_mode="border", interpolation="bilinear"),
    "processor-squash": processor(crop_mode="squash", crop_pct=1.0, test_input_size=[3, 96, 96]),
    "backbone-resnet18": backbone("resnet18"),
    "backbone-resnet18-dilated": backbone("resnet18", output_stride=16),
    "backbone-resnet18-frozen": backbone("resnet18", freeze_batch_norm_2d=True),
    "backbone-efficientnet_b0": backbone("efficientnet_b0", every=False),
    "backbone-convnext_atto": backbone("convnext_atto", every=False),
    "backbone-swin": backbone("swin_tiny_patch4_window7_224", 224, every=False),
    "backbone-vit": backbone("vit_tiny_patch16_224", 224, indices=(3, 11), every=False),
    "detr": detector(DetrForObjectDetection, DetrConfig),
    "detr-mobilenetv3": detector(DetrForObjectDetection, DetrConfig, "mobilenetv3_small_100"),
    "detr-segmentation": detector(DetrForSegmentation, DetrConfig, indices=(1, 2, 3, 4), encoder_attention_heads=8,
                                  decoder_attention_heads=8),
    "conditional-detr": detector(ConditionalDetrForObjectDetection, ConditionalDetrConfig),
    "deformable-detr": detector(DeformableDetrForObjectDetection, DeformableDetrConfig, indices=(2, 3, 4),
                                decoder_layers=2),
    "table-transformer": detector(TableTransformerForObjectDetection, TableTransformerConfig),
}
play("transformers", CASES)
