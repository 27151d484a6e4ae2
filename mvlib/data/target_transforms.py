"""What a data set makes of its labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError

__all__ = ["MultiLabelTarget"]


class MultiLabelTarget:
    """An image's labels to a float32 vector (num_classes) of zeros and ones.

    Args:
        dense: Labels come as such a vector already, of values from 0 to 1.

    Raises:
        ValueError: When called: labels that are not numbers of classes, or vectors that are not as said.
    """

    def __init__(self, num_classes: int, dense: bool = False) -> None:
        if num_classes < 1:
            raise ConfigError(f"num_classes {num_classes} is not a number of classes")
        self.num_classes = num_classes
        self.dense = dense

    def __call__(self, target: Any) -> Tensor:
        values = torch.as_tensor(target)
        if values.ndim != 1 or values.is_complex():
            raise ConfigError(f"labels {target!r} are no list of numbers")
        if self.dense:
            values = values.float()
            if len(values) != self.num_classes or not ((values >= 0) & (values <= 1)).all():
                raise ConfigError(f"labels {target!r} are not {self.num_classes} values from 0 to 1")
            return values
        vector = torch.zeros(self.num_classes)
        if not len(values):
            return vector
        if values.is_floating_point() or values.dtype == torch.bool:
            raise ConfigError(f"labels {target!r} are not numbers of classes; dense=True takes a value a class")
        if values.min() < 0 or values.max() >= self.num_classes:
            raise ConfigError(f"labels {target!r} are not all among {self.num_classes} classes")
        vector[values.long()] = 1
        return vector
