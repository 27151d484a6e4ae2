"""Mixup (Zhang et al. 2018, arXiv:1710.09412) and CutMix (Yun et al. 2019, arXiv:1905.04899) within a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from .collate import fast_collate

__all__ = ["FastCollateMixup", "Mixup", "cutmix_bbox_and_lam", "mixup_target", "one_hot", "rand_bbox",
           "rand_bbox_minmax"]

MODES = ("batch", "pair", "elem", "half")

Box = tuple[Any, Any, Any, Any]  # top, bottom, left, right: ints, or arrays of several boxes


def one_hot(x: Tensor, num_classes: int, on_value: float = 1.0, off_value: float = 0.0) -> Tensor:
    """Labels (batch) to (batch, num_classes), float32: `on_value` at the label, `off_value` elsewhere."""
    rest = torch.full((x.numel(), num_classes), off_value, device=x.device)
    return rest.scatter_(1, x.long().view(-1, 1), on_value)


def soft_target(target: Tensor, num_classes: int, smoothing: float = 0.0, multi_label: bool = False) -> Tensor:
    """Labels (batch) to smoothed probabilities (batch, num_classes), float32.

    Label smoothing keeps 1 - `smoothing` at the label and spreads the rest over all classes. With `multi_label`, target
    is (batch, num_classes) already and smoothed towards 0.5.

    Raises:
        ConfigError: The target's shape does not fit.
    """
    if multi_label:
        if target.ndim != 2 or target.shape[1] != num_classes:
            raise ConfigError(f"multi_label mixing needs targets of shape (batch, {num_classes}), "
                              f"got {tuple(target.shape)}")
        return target.float() * (1 - smoothing) + 0.5 * smoothing
    if target.ndim != 1:
        raise ConfigError(f"mixing needs one label an image, got targets of shape {tuple(target.shape)}")
    rest = smoothing / num_classes
    return one_hot(target, num_classes, 1 - smoothing + rest, rest)


def mixup_target(target: Tensor, num_classes: int, lam: float | Tensor = 1.0, smoothing: float = 0.0,
                 multi_label: bool = False) -> Tensor:
    """`soft_target` of each image with weight `lam`, and of its partner from the other end of the batch with the rest.

    Args:
        lam: One weight, or one an image (batch, 1).
    """
    soft = soft_target(target, num_classes, smoothing, multi_label)
    return soft * lam + soft.flip(0) * (1 - lam)


def rand_bbox(img_shape: Sequence[int], lam: float, margin: float = 0.0, count: int | None = None,
              rng: Any = None) -> Box:
    """CutMix's box: a share 1 - `lam` of the image, of its aspect ratio, cut off at its edges.

    Args:
        img_shape: Ends in height and width.
        margin: Share of the box's sides by which its centre stays away from the image's edges.
        count: Boxes, None for one.
        rng: As of `Mixup.__call__`.
    """
    height, width = img_shape[-2:]
    side = np.sqrt(1 - lam)
    box_h, box_w = int(height * side), int(width * side)
    y, x = (_random(rng).randint(int(margin * box), whole - int(margin * box), size=count)
            for box, whole in ((box_h, height), (box_w, width)))
    return (np.clip(y - box_h // 2, 0, height), np.clip(y + (box_h + 1) // 2, 0, height),
            np.clip(x - box_w // 2, 0, width), np.clip(x + (box_w + 1) // 2, 0, width))


def rand_bbox_minmax(img_shape: Sequence[int], minmax: Sequence[float], count: int | None = None,
                     rng: Any = None) -> Box:
    """A box within the image, whose sides are shares out of `minmax` of the image's; otherwise as `rand_bbox`."""
    rng = _random(rng)
    height, width = img_shape[-2:]
    box_h, box_w = (rng.randint(*(int(whole * share) for share in minmax), size=count) for whole in (height, width))
    top, left = rng.randint(0, height - box_h + 1, size=count), rng.randint(0, width - box_w + 1, size=count)
    return top, top + box_h, left, left + box_w


def cutmix_bbox_and_lam(img_shape: Sequence[int], lam: float, ratio_minmax: Sequence[float] | None = None,
                        correct_lam: bool = True, count: int | None = None, rng: Any = None) -> tuple[Box, float]:
    """A box of either kind, and the weight of what remains: `lam`, unless `correct_lam` or `ratio_minmax` asks for
    its share of the area."""
    if ratio_minmax is not None:
        box = rand_bbox_minmax(img_shape, ratio_minmax, count, rng)
    else:
        box = rand_bbox(img_shape, lam, count=count, rng=rng)
    correct = correct_lam or ratio_minmax is not None
    return box, _outside(box, *img_shape[-2:]) if correct else lam


def _random(rng: Any) -> Any:
    return np.random if rng is None else rng


class Mixup:
    """Mixes each image of a batch with a partner, and their labels likewise. Results and draws are timm's.

    Args:
        mixup_alpha: Of the beta distribution that the weight of blended images is drawn from; 0 for no mixup.
        cutmix_alpha: The same for CutMix, where a box is cut from the partner; 0 for no CutMix.
        cutmix_minmax: Least and largest side of CutMix's box, as shares of the image's; replaces `cutmix_alpha`.
        prob: Share of batches (mode "batch") or images (else) that are mixed.
        switch_prob: Share of CutMix where both are on.
        mode: Whether one draw serves the "batch", a "pair" of images or an image ("elem"); "half" is "elem" and gives
            the first half of the batch alone.
        correct_lam: Whether the label's weight is that of the area that the box has when cut off at the image's edge.
        label_smoothing: See `soft_target`.
        num_classes: Of the targets that are made.
        multi_label: Targets are (batch, num_classes) already.
        rolled: torchvision's variant (its reference recipes): the partner is the image before, not the one at the
            mirrored position, and CutMix's box is cut as in torchvision. Mode "batch" only.

    Raises:
        ConfigError: Arguments that contradict each other.
    """

    before_erasing = False  # whether a loader mixes before it erases

    def __init__(self, mixup_alpha: float = 1.0, cutmix_alpha: float = 0.0,
                 cutmix_minmax: Sequence[float] | None = None, prob: float = 1.0, switch_prob: float = 0.5,
                 mode: str = "batch", correct_lam: bool = True, label_smoothing: float = 0.1, num_classes: int = 1000,
                 multi_label: bool = False, *, rolled: bool = False) -> None:
        if mode not in MODES:
            raise ConfigError(f"mixup mode {mode!r} is none of {', '.join(MODES)}")
        if cutmix_minmax is not None:
            if len(cutmix_minmax) != 2 or not 0 <= cutmix_minmax[0] < cutmix_minmax[1] <= 1:
                raise ConfigError(f"cutmix_minmax {cutmix_minmax!r} is not two shares of an image's side, least first")
            cutmix_alpha = 1.0
        if mixup_alpha <= 0 and cutmix_alpha <= 0:
            raise ConfigError("one of mixup_alpha, cutmix_alpha and cutmix_minmax is needed to mix anything")
        if rolled and (mode != "batch" or cutmix_minmax is not None):
            raise ConfigError("torchvision's mixup (rolled=True) has mode 'batch' and no cutmix_minmax")
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.cutmix_minmax = cutmix_minmax
        self.mix_prob = prob
        self.switch_prob = switch_prob
        self.mode = mode
        self.correct_lam = correct_lam
        self.label_smoothing = label_smoothing
        self.num_classes = num_classes
        self.multi_label = multi_label
        self.rolled = rolled
        self.mixup_enabled = True

    def __repr__(self) -> str:
        return (f"{type(self).__name__}(mixup_alpha={self.mixup_alpha}, cutmix_alpha={self.cutmix_alpha}, "
                f"cutmix_minmax={self.cutmix_minmax}, prob={self.mix_prob}, switch_prob={self.switch_prob}, "
                f"mode={self.mode!r}, label_smoothing={self.label_smoothing}, num_classes={self.num_classes}, "
                f"rolled={self.rolled})")

    def __call__(self, images: Tensor, target: Tensor, rng: Any = None) -> tuple[Tensor, Tensor]:
        """Mix, in place.

        Args:
            images: Floats (batch, channels, height, width).
            target: Labels (batch), or (batch, num_classes) with `multi_label`.
            rng: A `np.random.RandomState` to draw from, None for numpy's global one.

        Returns:
            The images (half of them in mode "half"), and targets (batch, num_classes).

        Raises:
            ConfigError: The batch size is odd and the mode is not "batch".
        """
        rng = _random(rng)
        if self.rolled:
            return images, self._mix_rolled(images, target, rng)
        if self.mode == "batch":
            lam: float | Tensor = self._mix_batch(images, rng)
        else:
            if len(images) % 2:
                raise ConfigError(f"mixup mode '{self.mode}' needs an even batch size, got {len(images)}")
            lam = self._mix_each(images, rng)
        mixed = mixup_target(target, self.num_classes, lam, self.label_smoothing, self.multi_label)
        kept = len(images) // 2 if self.mode == "half" else len(images)
        return images[:kept], mixed[:kept]

    def _mix_batch(self, images: Tensor, rng: Any) -> float:
        lam, cut = self._draw(rng)
        if lam == 1:
            return lam
        if cut:
            box, lam = self._box(images.shape, lam, rng)
            patch = _patch(images, box)
            patch.copy_(patch.flip(0))
        else:
            _blend_(images, images.flip(0), lam)
        return lam

    def _mix_rolled(self, images: Tensor, target: Tensor, rng: Any) -> Tensor:
        lam, cut = self._draw(rng)
        if cut:
            box, lam = _torchvision_box(images.shape, lam, rng)
            patch = _patch(images, box)
            patch.copy_(patch.roll(1, 0))
        elif lam < 1:
            _blend_(images, images.roll(1, 0), lam)
        soft = soft_target(target, self.num_classes, self.label_smoothing, self.multi_label)
        return soft * lam + soft.roll(1, 0) * (1 - lam)

    def _mix_each(self, images: Tensor, rng: Any) -> Tensor:
        """Mix by a draw for each image or pair; the weights (batch, 1)."""
        size = len(images)
        drawn = size if self.mode == "elem" else size // 2
        lams, cuts = self._draw_each(drawn, rng)
        weights = np.where(cuts, 1, lams).astype(np.float32)  # of the images as a whole: boxes replace, not blend
        boxes: dict[int, Box] = {}
        for row in np.flatnonzero(cuts & (lams != 1)):
            boxes[int(row)], lams[row] = self._box(images.shape, lams[row], rng)
        if self.mode == "pair":
            lams, weights = (np.concatenate((values, values[::-1])) for values in (lams, weights))
            boxes |= {size - 1 - row: box for row, box in boxes.items()}
        elif self.mode == "half":
            lams, weights = (np.concatenate((values, np.ones_like(values))) for values in (lams, weights))
        partners = images.flip(0)
        for row, box in boxes.items():
            _patch(images[row], box).copy_(_patch(partners[row], box))
        if (weights != 1).any():
            _blend_(images, partners, torch.from_numpy(weights).to(images).view(-1, 1, 1, 1))
        return torch.from_numpy(lams).to(images.device).unsqueeze(1)

    def _draw(self, rng: Any) -> tuple[float, bool]:
        """The weight of the images of a batch, and whether it is CutMix."""
        if not (self.mixup_enabled and rng.random_sample() < self.mix_prob):
            return 1.0, False
        both = self.mixup_alpha > 0 and self.cutmix_alpha > 0
        cut = rng.random_sample() < self.switch_prob if both else self.cutmix_alpha > 0
        alpha = self.cutmix_alpha if cut else self.mixup_alpha
        return float(rng.beta(alpha, alpha)), bool(cut)

    def _draw_each(self, count: int, rng: Any) -> tuple[np.ndarray, np.ndarray]:
        """The same for `count` images or pairs."""
        lams, cuts = np.ones(count, dtype=np.float32), np.full(count, self.cutmix_alpha > 0)
        if not self.mixup_enabled:
            return lams, cuts
        if self.mixup_alpha > 0 and self.cutmix_alpha > 0:
            cuts = rng.random_sample(count) < self.switch_prob
        drawn = [rng.beta(alpha, alpha, size=count) for alpha in (self.cutmix_alpha, self.mixup_alpha) if alpha > 0]
        mixed = np.where(cuts, drawn[0], drawn[-1]).astype(np.float32)
        return np.where(rng.random_sample(count) < self.mix_prob, mixed, lams), cuts

    def _box(self, shape: Sequence[int], lam: float, rng: Any) -> tuple[Box, float]:
        """A box to cut out, and the weight of what remains."""
        return cutmix_bbox_and_lam(shape, lam, self.cutmix_minmax, self.correct_lam, rng=rng)


class FastCollateMixup(Mixup):
    """Mixup as a `collate_fn`, before random erasing.

    A DataLoader's workers collate and mix 8-bit images with it, which rounds, as in timm. `create_loader(collate_fn=)`
    of mvlib mixes normalised floats on the device instead.

    Attributes:
        mixup_enabled: Heeded by workers that run already, too.
    """

    before_erasing = True

    @property
    def mixup_enabled(self) -> bool:
        return bool(self._enabled)

    @mixup_enabled.setter
    def mixup_enabled(self, enabled: bool) -> None:
        if "_enabled" not in self.__dict__:
            self._enabled = torch.ones((), dtype=torch.bool).share_memory_()
        self._enabled.fill_(enabled)

    def __call__(self, images: Any, target: Any = None, rng: Any = None) -> tuple[Tensor, Tensor]:
        """Collate and mix a list of samples (uint8 image, label); or as `Mixup` with images and targets."""
        if isinstance(images, Tensor):
            return super().__call__(images, target, rng)
        batch, labels = fast_collate(images)
        mixed, soft = super().__call__(batch.float(), labels, rng)
        return mixed.round_().byte(), soft


def _patch(images: Tensor, box: Box) -> Tensor:
    top, bottom, left, right = box
    return images[..., top:bottom, left:right]


def _blend_(images: Tensor, partners: Tensor, lam: float | Tensor) -> None:
    """Overwrites both."""
    images.mul_(lam).add_(partners.mul_(1 - lam))


def _outside(box: Box, height: int, width: int) -> float:
    top, bottom, left, right = box
    return 1 - (bottom - top) * (right - left) / (height * width)


def _torchvision_box(shape: Sequence[int], lam: float, rng: Any) -> tuple[Box, float]:
    height, width = shape[-2:]
    x, y = rng.randint(0, width), rng.randint(0, height)
    half = 0.5 * float(np.sqrt(1 - lam))
    half_h, half_w = int(half * height), int(half * width)
    box = (max(y - half_h, 0), min(y + half_h, height), max(x - half_w, 0), min(x + half_w, width))
    return box, _outside(box, height, width)
