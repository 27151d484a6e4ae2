"""Learning from a teacher's logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import ConfigError
from .cross_entropy import in_float32

__all__ = ["DistillationLoss", "distill"]


class DistillationLoss(nn.Module):
    """A loss on the labels and one on a teacher's logits.

    (1 - alpha) * base(student, target) + alpha * distillation, where distillation is

    - "soft": temperature^2 * KL(softmax(teacher / temperature) || softmax(student / temperature)), summed over classes
      and averaged over images (Hinton et al., arXiv 1503.02531; DeiT, arXiv 2012.12877, equation 2);
    - "hard": cross-entropy with the class that the teacher finds likeliest (DeiT, equation 3).

    Args:
        base: Loss on the labels, of (logits, target).
        alpha: Share of the distillation.
        temperature: Of the soft kind.
        kind: "soft" or "hard".

    Raises:
        ConfigError: An argument is out of its range.
    """

    def __init__(
        self, base: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], alpha: float = 0.5, temperature: float = 1.0,
        kind: str = "soft",
    ) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ConfigError(f"the share of distillation is from 0 to 1, not {alpha}")
        if not temperature > 0:
            raise ConfigError(f"the temperature of distillation is above 0, not {temperature}")
        if kind not in ("soft", "hard"):
            raise ConfigError(f"unknown kind of distillation '{kind}'; known: soft, hard")
        self.base = base
        self.alpha = alpha
        self.temperature = temperature
        self.kind = kind

    def forward(
        self, student_logits: torch.Tensor | tuple[torch.Tensor, torch.Tensor], target: torch.Tensor,
        teacher_logits: torch.Tensor,
    ) -> torch.Tensor:
        """Loss of logits (N, classes), a target for `base` and the teacher's logits, which get no gradient.

        A student with a distillation token gives a pair of logits: the first learns from the labels, the second from
        the teacher.

        Raises:
            ConfigError: Teacher and student have different classes.
        """
        from_labels, from_teacher = student_logits if isinstance(student_logits, tuple) else (student_logits,) * 2
        if from_teacher.shape != teacher_logits.shape:
            raise ConfigError(f"the teacher's logits have the shape {tuple(teacher_logits.shape)}, the student's "
                              f"{tuple(from_teacher.shape)}: both must know the same classes")
        distillation = distill(from_teacher, teacher_logits, self.temperature, self.kind)
        return (1 - self.alpha) * self.base(from_labels, target) + self.alpha * distillation


def distill(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 1.0, kind: str = "soft"
) -> torch.Tensor:
    """What a student's logits (N, classes) cost that shall be a teacher's; the kinds are those of `DistillationLoss`.

    Computed in float32; the teacher's logits get no gradient.
    """
    student, teacher = in_float32(student_logits), in_float32(teacher_logits.detach())
    if kind == "hard":
        return F.cross_entropy(student, teacher.argmax(-1))
    divergence = F.kl_div((student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1),
                          reduction="batchmean", log_target=True)
    return divergence * temperature ** 2
