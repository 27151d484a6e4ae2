"""ImageNet's validation set by the labels of "ReaL" (Beyer et al. 2020, https://arxiv.org/abs/2006.07159)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import ConfigError
from .dataset_info import read_info

__all__ = ["RealLabelsImagenet"]


class RealLabelsImagenet:
    """Counts predictions as correct that are one of an image's labels; images without a label do not count.

    Args:
        filenames: Of all 50,000 images, in the order in which they are evaluated.
        real_json: A file with a list of labels an image; None for the published one.
        topk: How many predictions of an image may be looked at.

    Raises:
        ConfigError: There are not as many file names as images.
    """

    def __init__(self, filenames: Sequence[str], real_json: str | os.PathLike[str] | None = None,
                 topk: Sequence[int] = (1, 5)) -> None:
        text = read_info("imagenet_real_labels.json") if real_json is None else Path(real_json).read_text()
        self.real_labels = {f"ILSVRC2012_val_{number:08}.JPEG": labels
                            for number, labels in enumerate(json.loads(text), 1)}
        if len(filenames) != len(self.real_labels):
            raise ConfigError(f"{len(filenames)} file names for {len(self.real_labels)} images with labels")
        self.filenames = filenames
        self.topk = topk
        self.is_correct: dict[int, list[bool]] = {k: [] for k in topk}
        self.sample_idx = 0

    def add_result(self, output: Tensor) -> None:
        """Count the scores (batch, num_classes) of the next images."""
        for predicted in output.topk(max(self.topk), dim=1).indices.tolist():
            labels = self.real_labels[os.path.basename(self.filenames[self.sample_idx])]
            self.sample_idx += 1
            for k in self.topk if labels else ():
                self.is_correct[k].append(not set(labels).isdisjoint(predicted[:k]))

    def get_accuracy(self, k: int | None = None) -> float | dict[int, float]:
        """In per cent, of the first `k` predictions; None for {k: accuracy}."""
        if k is None:
            return {k: float(np.mean(correct)) * 100 for k, correct in self.is_correct.items()}
        return float(np.mean(self.is_correct[k])) * 100
