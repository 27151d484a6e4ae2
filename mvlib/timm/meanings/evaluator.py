"""timm.task.evaluator: metrics of a whole data set, in percent."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...errors import ConfigError

__all__ = ["ClassificationEvaluator", "MultiLabelClassificationEvaluator", "evaluation_sample_limit"]

_logger = logging.getLogger("mvlib")


def evaluation_sample_limit(loader: Any) -> int | None:
    """How many of a loader's images are this process's own, without those that fill up its last batch; None for all."""
    return getattr(getattr(loader, "sampler", None), "num_valid_samples", None)


def check_threshold(threshold: float) -> float:
    """`threshold`, which must lie between 0 and 1."""
    if not 0 < threshold < 1:
        raise ConfigError(f"the threshold of several labels lies between 0 and 1, not at {threshold}")
    return threshold


class ClassificationEvaluator:
    """Mean loss, top-1 and top-5 of logits and labels, batch by batch; sums stay on the device.

    Args:
        device: Where the logits are.
        max_samples: How many images count; the rest fills up batches.
        criterion: Loss of (logits, labels); None for cross-entropy.
    """

    default_metric = "top1"
    metric_names: tuple[str, ...] = ("loss", "top1", "top5")

    def __init__(self, device: Any = None, *, max_samples: int | None = None, criterion: Any = None) -> None:
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        self.device = torch.device(device or "cpu")
        self.max_samples = max_samples
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.num_samples = 0
        exact = torch.float32 if self.device.type == "mps" else torch.float64
        self.loss_sum = torch.zeros((), dtype=exact, device=self.device)
        self.counts = torch.zeros(3, dtype=torch.int64, device=self.device)  # images, right at first, right among 5

    def _take(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """What of a batch counts; its loss and number are added."""
        left = len(output) if self.max_samples is None else max(0, self.max_samples - self.num_samples)
        output, target = output[:left].detach().float(), target[:left].detach()
        self.num_samples += len(output)
        if len(output):
            self.loss_sum += self.criterion(output, target).to(self.loss_sum.dtype) * len(output)
            self.counts[0] += len(output)
        return output, target

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: logits (N, classes) and labels (N,).

        Raises:
            ConfigError: They have other shapes.
        """
        if output.ndim != 2 or target.shape != output.shape[:1]:
            raise ConfigError(f"metrics of one label want logits (N, classes) and labels (N,), not "
                              f"{tuple(output.shape)} and {tuple(target.shape)}")
        output, target = self._take(output, target)
        hits = output.topk(min(5, output.shape[1])).indices == target[:, None]
        self.counts[1] += hits[:, 0].sum()
        self.counts[2] += hits.sum()

    def _metrics(self, loss_sum: Tensor, counts: Tensor) -> dict[str, float]:
        images, first, five = counts.tolist()
        images = max(images, 1)
        return {"loss": loss_sum.item() / images, "top1": 100 * first / images, "top5": 100 * five / images}

    def summary(self) -> dict[str, float]:
        """The metrics so far, of this process."""
        return self._metrics(self.loss_sum, self.counts)

    def compute(self, distributed: bool = False) -> dict[str, float]:
        """The metrics, of all processes if `distributed`."""
        loss_sum, counts = self.loss_sum.clone(), self.counts.clone()
        if distributed:
            dist.all_reduce(loss_sum)
            dist.all_reduce(counts)
        return self._metrics(loss_sum, counts)


class MultiLabelClassificationEvaluator(ClassificationEvaluator):
    """Mean loss, mean average precision over classes, and F1 over all, over classes and over images.

    A class that no image has counts as 0, as does an F1 of nothing. Logits and targets are kept until `compute`.

    Args:
        device, max_samples: As of `ClassificationEvaluator`.
        threshold: Probability from which a label counts as predicted.
    """

    default_metric = "map"
    metric_names = ("loss", "map", "micro_f1", "macro_f1", "sample_f1")

    def __init__(self, device: Any = None, *, max_samples: int | None = None, threshold: float = 0.5) -> None:
        self.threshold = check_threshold(threshold)
        super().__init__(device, max_samples=max_samples, criterion=nn.BCEWithLogitsLoss())

    def reset(self) -> None:
        super().reset()
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: logits and targets, (N, classes) each; targets from 0.5 on are labels.

        Raises:
            ConfigError: They have other shapes.
        """
        if output.ndim != 2 or target.shape != output.shape:
            raise ConfigError(f"metrics of several labels want logits and targets (N, classes), not "
                              f"{tuple(output.shape)} and {tuple(target.shape)}")
        output, target = self._take(output, target.float())
        self.outputs.append(output.cpu())
        self.targets.append((target >= 0.5).cpu())

    def _metrics(self, loss_sum: Tensor, counts: Tensor) -> dict[str, float]:
        return {"loss": loss_sum.item() / max(int(counts[0]), 1)}

    def compute(self, distributed: bool = False) -> dict[str, float]:
        metrics = super().compute(distributed)
        output = torch.cat(self.outputs) if self.outputs else torch.empty(0, 0)
        target = torch.cat(self.targets) if self.targets else torch.empty(0, 0, dtype=torch.bool)
        if distributed:
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, (output, target))
            parts = [part for part in parts if len(part[0])]
            if parts:
                output, target = (torch.cat(tensors) for tensors in zip(*parts))
        if not len(output):
            return {**metrics, **dict.fromkeys(self.metric_names[1:], 0.0)}
        predicted = output.sigmoid() >= self.threshold
        right, either = (predicted & target).double(), predicted.double() + target.double()
        f1 = {"micro_f1": right.sum() / either.sum().clamp(min=1)}
        for name, dim in (("macro_f1", 0), ("sample_f1", 1)):
            f1[name] = (right.sum(dim) / either.sum(dim).clamp(min=1)).mean()
        precision = torch.stack([_average_precision(*column) for column in zip(output.T, target.T)]).mean()
        return {**metrics, "map": 100 * precision.item(), **{name: 200 * value.item() for name, value in f1.items()}}


def _average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean of the precision at each positive, all of equal score standing together."""
    order = scores.argsort(descending=True)
    scores, labels = scores[order], labels[order].double()
    last = torch.searchsorted(-scores, -scores, right=True)  # how many score as high or higher
    precision = labels.cumsum(0)[last - 1] / last
    return (labels * precision).sum() / labels.sum().clamp(min=1)
