"""Means, standard deviations and crops that published weights were trained with, as in timm."""

__all__ = [
    "DEFAULT_CROP_MODE", "DEFAULT_CROP_PCT", "IMAGENET_DEFAULT_MEAN", "IMAGENET_DEFAULT_STD", "IMAGENET_DPN_MEAN",
    "IMAGENET_DPN_STD", "IMAGENET_INCEPTION_MEAN", "IMAGENET_INCEPTION_STD", "OPENAI_CLIP_MEAN", "OPENAI_CLIP_STD",
]

# What most weights use: the statistics of ImageNet's training images, intensities in [0, 1].
IMAGENET_DEFAULT_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEFAULT_STD = (0.229, 0.224, 0.225)

# [0, 1] to [-1, 1]: Inception, AugReg and most networks from TensorFlow and JAX.
IMAGENET_INCEPTION_MEAN = IMAGENET_INCEPTION_STD = (0.5, 0.5, 0.5)

# Dual path networks: means in 8-bit steps, one scale for all channels.
IMAGENET_DPN_MEAN = tuple(step / 255 for step in (124, 117, 104))
IMAGENET_DPN_STD = (1 / (0.0167 * 255),) * 3

# CLIP (https://github.com/openai/CLIP), and those trained after it.
OPENAI_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

DEFAULT_CROP_PCT = 0.875  # 224 of 256 pixels
DEFAULT_CROP_MODE = "center"
