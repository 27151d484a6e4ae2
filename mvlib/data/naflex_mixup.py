"""Mixup and CutMix of images of different sizes: each with one of a near aspect ratio, where both lie on each other.

Results and random draws are timm's, from the same seeds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from ..errors import ConfigError
from .mixup import soft_target

__all__ = ["NaFlexMixup", "mix_batch_variable_size", "pairwise_mixup_target"]


def mix_batch_variable_size(
    imgs: Sequence[Tensor], *, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0, switch_prob: float = 0.5,
    local_shuffle: int = 4,
) -> tuple[list[Tensor], list[float], dict[int, int]]:
    """Mix each image with a partner, in the middle where both lie on each other; of an odd number one stays as it is.

    Args:
        imgs: Images (C, H, W).
        mixup_alpha, cutmix_alpha, switch_prob: As of `Mixup`.
        local_shuffle: Of so many images that follow one another by aspect ratio, any two may be partners.

    Returns:
        The images, the share of each that is its own, and {image: partner}.

    Raises:
        ConfigError: There are fewer than two images, or both alphas are 0.
    """
    if len(imgs) < 2:
        raise ConfigError(f"{len(imgs)} images cannot be mixed: it takes two")
    if mixup_alpha <= 0 and cutmix_alpha <= 0:
        raise ConfigError("mixup_alpha and cutmix_alpha are 0: there is nothing to do")
    cuts = cutmix_alpha > 0
    if cuts and mixup_alpha > 0:
        cuts = torch.rand(()).item() < switch_prob
    alpha = cutmix_alpha if cuts else mixup_alpha
    share = min(max(torch.distributions.Beta(alpha, alpha).sample().item(), 0.0), 1.0)
    partners = _pair_by_aspect(imgs, local_shuffle)
    mixed, shares = list(imgs), [1.0] * len(imgs)
    mix = _cut_in if cuts else _blend
    for i in sorted(partners):
        mixed[i], shares[i] = mix(imgs[i], imgs[partners[i]], share)
    return mixed, shares, partners


def _pair_by_aspect(imgs: Sequence[Tensor], window: int) -> dict[int, int]:
    order = sorted(range(len(imgs)), key=lambda i: imgs[i].shape[2] / imgs[i].shape[1])
    if window > 1:
        for start in range(0, len(order), window):
            near = order[start:start + window]
            random.shuffle(near)
            order[start:start + window] = near
    partners = {}
    for a, b in zip(order[::2], order[1::2]):
        partners[a], partners[b] = b, a
    return partners


def _middles(a: Tensor, b: Tensor) -> tuple[list[int], list[tuple[int, int]]]:
    """Height and width of what two images have in common, and (top, left) of it in each."""
    common = [min(sides) for sides in zip(a.shape[1:], b.shape[1:])]
    places = [((image.shape[1] - common[0]) // 2, (image.shape[2] - common[1]) // 2) for image in (a, b)]
    return common, places


def _blend(image: Tensor, partner: Tensor, share: float) -> tuple[Tensor, float]:
    (height, width), places = _middles(image, partner)
    mixed = image.clone()
    own, other = (each[:, top:top + height, left:left + width] for each, (top, left) in zip((mixed, partner), places))
    own.copy_(own.mul(share).add_(other, alpha=1.0 - share))
    area, common = image.shape[1] * image.shape[2], height * width
    return mixed, (area - common) / area + share * common / area


def _cut_in(image: Tensor, partner: Tensor, share: float) -> tuple[Tensor, float]:
    (height, width), places = _middles(image, partner)
    side = math.sqrt(1.0 - share)
    h, w = int(height * side), int(width * side)
    down, across = random.randint(0, height - h), random.randint(0, width - w)
    mixed = image.clone()
    own, other = (each[:, top + down:top + down + h, left + across:left + across + w]
                  for each, (top, left) in zip((mixed, partner), places))
    own.copy_(other)
    return mixed, 1.0 - h * w / float(image.shape[1] * image.shape[2])


def pairwise_mixup_target(
    targets: Tensor, pair_to: dict[int, int], lam_list: Sequence[float], *, num_classes: int, smoothing: float = 0.0,
    multi_label: bool = False,
) -> Tensor:
    """Targets (B, num_classes) of what `mix_batch_variable_size` mixed: of each image and its partner, by the shares.

    Args:
        targets: Labels (B), or (B, num_classes) with `multi_label`.
        pair_to, lam_list: Partners and shares.
        smoothing: See `soft_target`.
    """
    soft = soft_target(targets, num_classes, smoothing, multi_label)
    mixed = soft.clone()
    for i, partner in pair_to.items():
        mixed[i].mul_(lam_list[i]).add_(soft[partner], alpha=1.0 - lam_list[i])
    return mixed


class NaFlexMixup:
    """Mixes images of different sizes and their labels, before they are cut into patches.

    Args:
        num_classes: Of the targets that are made.
        mixup_alpha, cutmix_alpha, switch_prob, local_shuffle: See `mix_batch_variable_size`.
        prob: Share of batches that are mixed.
        label_smoothing: See `soft_target`.
        mixup_off_epoch: Epoch from which nothing is mixed; 0 for none.
        multi_label: Targets are (batch, num_classes) already.
    """

    def __init__(
        self, *, num_classes: int, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0, switch_prob: float = 0.5,
        prob: float = 1.0, local_shuffle: int = 4, label_smoothing: float = 0.0, mixup_off_epoch: int = 0,
        multi_label: bool = False,
    ) -> None:
        self.num_classes = num_classes
        self.mixup_alpha, self.cutmix_alpha, self.switch_prob = mixup_alpha, cutmix_alpha, switch_prob
        self.prob, self.local_shuffle = prob, local_shuffle
        self.smoothing, self.multi_label = label_smoothing, multi_label
        self.mixup_off_epoch = mixup_off_epoch
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next batches are of."""
        self.mixup_enabled = not self.mixup_off_epoch or epoch < self.mixup_off_epoch

    def __call__(self, imgs: Sequence[Tensor], targets: Any) -> tuple[Sequence[Tensor], tuple[Tensor, ...]]:
        """Images (C, H, W) and labels -> images of the same sizes, and targets (num_classes) of each."""
        labels = targets if isinstance(targets, Tensor) else default_collate(list(targets))
        if len(imgs) < 2 or not self.mixup_enabled or random.random() > self.prob:
            return imgs, soft_target(labels, self.num_classes, self.smoothing, self.multi_label).unbind(0)
        mixed, shares, partners = mix_batch_variable_size(
            imgs, mixup_alpha=self.mixup_alpha, cutmix_alpha=self.cutmix_alpha, switch_prob=self.switch_prob,
            local_shuffle=self.local_shuffle)
        soft = pairwise_mixup_target(labels, partners, shares, num_classes=self.num_classes,
                                     smoothing=self.smoothing, multi_label=self.multi_label)
        return mixed, soft.unbind(0)
