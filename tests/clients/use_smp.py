"""segmentation-models-pytorch: encoders from timm below its decoders."""

from functools import partial

import segmentation_models_pytorch as smp
import torch
from client import Case, images, play

UNIVERSAL = ("resnet18", "resnest14d", "skresnet18", "efficientnet_b0", "mobilenetv3_small_100", "mobilenetv2_050",
             "ghostnet_050", "rexnet_100", "regnety_002", "hrnet_w18_small", "dla34", "vgg11_bn", "densenet121",
             "convnext_atto", "res2net50_14w_8s", "cspresnet50", "ese_vovnet19b_dw", "selecsls42b", "tresnet_m",
             "swin_tiny_patch4_window7_224", "maxvit_rmlp_pico_rw_256")
SIZES = {"swin_tiny_patch4_window7_224": 224, "maxvit_rmlp_pico_rw_256": 256}
OWN = ("timm-efficientnet-b0", "timm-tf_efficientnet_lite0", "timm-skresnet18", "timm-resnest14d", "timm-regnetx_002",
       "timm-gernet_s", "timm-mobilenetv3_small_100", "mit_b0")


@torch.no_grad()
def masks(size, model):
    return model(images(1, 3, size, size))


def unet(encoder, size=64, **kwargs):
    build = partial(smp.Unet, encoder, encoder_weights=None, decoder_channels=(32, 16, 16, 8, 8), **kwargs)
    return Case(build, partial(masks, size), save=lambda model, folder: model.save_pretrained(folder),
                load=smp.from_pretrained)


CASES = {f"tu-{name}": unet(f"tu-{name}", SIZES.get(name, 64)) for name in UNIVERSAL}
CASES |= {name: unet(name) for name in OWN}
for stride in (8, 16):
    build = partial(smp.DeepLabV3, "tu-resnet18", encoder_weights=None, encoder_output_stride=stride,
                    decoder_channels=16)
    CASES[f"deeplab-tu-resnet18-stride{stride}"] = Case(build, partial(masks, 64))
CASES["dpt-tu-vit_tiny"] = Case(partial(smp.DPT, "tu-vit_tiny_patch16_224", encoder_weights=None,
                                        decoder_intermediate_channels=(16, 16, 16, 16), decoder_fusion_channels=16,
                                        encoder_output_indices=(2, 5, 8, 11)), partial(masks, 224))
CASES["fpn-tu-efficientnet_b0-5-channels"] = Case(
    partial(smp.FPN, "tu-efficientnet_b0", encoder_weights=None, in_channels=5, encoder_depth=4),
    lambda model: model(images(1, 5, 64, 64)).detach())

play("segmentation_models_pytorch", CASES)
