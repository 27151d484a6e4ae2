"""One small architecture for every type of block of every family; the default test run compares these dynamically.

{family: {architecture: side of the image, None for the harness's choice}}. Whoever adds a family or a block adds a line;
test_parity.py fails for a family without one.
"""

from __future__ import annotations

REPRESENTATIVES: dict[str, dict[str, int | None]] = {
    "efficientnet": {
        "mnasnet_small": None,
        "semnasnet_050": None,  # squeeze-and-excitation
        "mobilenetv1_100": None,  # depthwise-separable blocks alone
        "mobilenetv2_035": None,
        "fbnetc_100": None,
        "tinynet_e": None,
        "efficientnet_lite0": None,
        "efficientnet_b0": None,
        "efficientnet_b0_gn": None,  # group norm
        "efficientnet_b0_g8_gn": None,  # grouped convolutions
        "efficientnet_es": None,  # edge residuals
        "efficientnet_cc_b0_4e": None,  # conditional convolutions
        "efficientnetv2_rw_t": None,
        "tf_efficientnet_b0": None,  # TensorFlow's padding
        "tf_efficientnetv2_b0": None,
        "tf_mixnet_s": None,  # mixed kernels
        "mobilenet_edgetpu_v2_xs": None,
        "test_efficientnet_ln": None,
        "test_efficientnet_evos": None,
    },
    "resnet": {
        "resnet18": None,  # basic blocks
        "resnet26": None,  # bottlenecks
        "resnet14t": None,  # tiered deep stem
        "resnet26d": None,  # deep stem, average-pooled shortcut
        "resnext50_32x4d": None,  # grouped convolutions
        "seresnet18": None,
        "ecaresnet26t": None,
        "seresnext26d_32x4d": None,
        "resnetaa34d": None,  # anti-aliasing
        "resnetblur18": None,
        "resnetrs50": None,
        "ecaresnet50d_pruned": None,
    },
    "swin_transformer": {
        "swin_tiny_patch4_window7_224": None,
        "swin_s3_tiny_224": 224,  # the smallest image in which its windows of 14 are not cut
    },
    "vision_transformer": {
        "vit_tiny_patch16_224": None,
        "vit_tiny_patch16_224": None,
    },
}
