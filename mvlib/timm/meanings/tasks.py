"""timm.task: a model, its loss and perhaps its teacher in one module, as timm's training script drives them.

`mvlib train` does the same with `mvlib.loss.DistillationLoss` and the engine's own teacher.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...errors import ConfigError
from ...loss import create_classification_loss
from ...loss.distillation import distill
from ...optim.param_groups import group_parameters
from .checkpoints import clean_state_dict, read_training_checkpoint, resume_optimizer_state
from .ema import ModelEmaV3
from .evaluator import ClassificationEvaluator, MultiLabelClassificationEvaluator, check_threshold
from .factory import create_model
from .inspection import get_state_dict, unwrap_model

__all__ = [
    "ClassificationTask", "DistillationTeacher", "FeatureDistillationTask", "FeatureDistillationTrainableModule",
    "LogitDistillationTask", "MultiLabelClassificationTask", "TokenDistillationTask", "TrainingTask",
    "load_task_ema_checkpoint", "resolve_classification_loss", "resume_task_checkpoint",
]

_logger = logging.getLogger("mvlib")


class TrainingTask(nn.Module):
    """What a training loop calls: `task(input, target)` gives {"loss": ..., "output": ..., ...}.

    A task of one's own sets `trainable_module` and defines `forward`.

    Args:
        device, dtype: Of its own tensors; they follow `.to()`.
        verbose: Whether it logs what it is.
    """

    trainable_module: Any

    def __init__(
        self, device: torch.device | None = None, dtype: torch.dtype | None = None, verbose: bool = True
    ) -> None:
        super().__init__()
        self.device = torch.device("cpu") if device is None else device
        self.dtype = torch.get_default_dtype() if dtype is None else dtype
        self.verbose = verbose

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        moved = fn(torch.empty(0, device=self.device, dtype=self.dtype))
        self.device, self.dtype = moved.device, moved.dtype
        return super()._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Losses and logits of images (N, C, H, W) and their targets."""
        raise NotImplementedError

    def prepare_distributed(self, device_ids: list[int] | None = None, **ddp_kwargs: Any) -> TrainingTask:
        """Wrap what is trained in DistributedDataParallel; teachers stay as they are."""
        if "trainable_module" in self._modules:
            self.trainable_module = DistributedDataParallel(
                self.trainable_module, device_ids=device_ids, **ddp_kwargs)
        return self

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> Any:
        """Compile what is trained, before it is wrapped; returns what validation calls."""
        return None

    def get_trainable_module(self, ema: bool = False) -> Any:
        """The module whose parameters are trained, or its average (None without one)."""
        return getattr(self, "trainable_module_ema", None) if ema else getattr(self, "trainable_module", self)

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False) -> Any:
        """What validation calls."""
        if module is not None:
            return module
        compiled = getattr(self, "eval_model_ema" if ema else "eval_model", None)
        return self.get_trainable_module(ema) if compiled is None else compiled

    def setup_ema(
        self, decay: float = 0.9999, use_warmup: bool = False, device: torch.device | None = None, **kwargs: Any
    ) -> nn.Module:
        """Begin a moving average of what is trained; arguments of `ModelEmaV3`."""
        self.trainable_module_ema = ModelEmaV3(
            self.get_trainable_module(), decay=decay, use_warmup=use_warmup, device=device, **kwargs)
        return self.trainable_module_ema

    def has_ema(self) -> bool:
        """Whether there is an average."""
        return self.get_trainable_module(ema=True) is not None

    def compile_ema(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> Any:
        """Compile the average, if there is one."""
        if not self.has_ema():
            return None
        self.eval_model_ema = torch.compile(
            self.get_eval_model(ema=True), backend=backend, mode=mode, **compile_kwargs)
        return self.eval_model_ema

    def update_ema(self, step: int | None = None) -> None:
        """Move the average, if there is one, towards the present weights."""
        if self.has_ema():
            self.get_trainable_module(ema=True).update(unwrap_model(self.get_trainable_module()), step=step)

    def get_clip_parameters(self, exclude_head: bool = False) -> Iterable[nn.Parameter]:
        """Parameters whose gradients are clipped: all, or all but the last two."""
        parameters = list(self.get_trainable_module().parameters())
        return parameters[:-2] if exclude_head else parameters

    def no_sync(self) -> contextlib.AbstractContextManager[Any]:
        """DistributedDataParallel's context for updates of several batches; nothing without it."""
        module = self.get_trainable_module()
        return module.no_sync() if module is not self and hasattr(module, "no_sync") else contextlib.nullcontext()

    def create_evaluator(self, **kwargs: Any) -> ClassificationEvaluator:
        """Metrics that suit the task's targets."""
        return ClassificationEvaluator(device=self.device, **kwargs)

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """What a checkpoint needs besides the model."""
        return {}

    def load_task_state(
        self, state: Mapping[str, Any] | None, strict: bool = True, module: nn.Module | None = None, ema: bool = False
    ) -> None:
        """Take back what `get_task_state` gave."""

    def get_checkpoint_state(
        self, ema: bool = False, unwrap_fn: Callable[[Any], nn.Module] = unwrap_model
    ) -> dict[str, Any]:
        """The entries of a checkpoint: `state_dict` and `task_state`, or `state_dict_ema` and `task_state_ema`."""
        model = self.get_eval_model(ema=ema)
        if model is None:
            return {}
        end = "_ema" if ema else ""
        own = self.get_task_state(ema=ema)
        return {f"state_dict{end}": get_state_dict(model, unwrap_fn), **({f"task_state{end}": own} if own else {})}

    def load_checkpoint_state(
        self, state_dict: Mapping[str, Any], task_state: Mapping[str, Any] | None = None, ema: bool = False,
        strict: bool = True,
    ) -> None:
        """Take back those entries.

        Raises:
            RuntimeError: Averages are to be loaded and there is no average yet.
        """
        model = self.get_eval_model(ema=ema)
        if model is None:
            raise RuntimeError("the task has no moving average to load: call setup_ema() first")
        unwrap_model(model).load_state_dict(state_dict, strict=strict)
        self.load_task_state(task_state, strict=strict, ema=ema)


def resolve_classification_loss(
    criterion: Any, device: torch.device, multi_label: bool = False, criterion_kwargs: Mapping[str, Any] | None = None
) -> Any:
    """A loss on a device: the one that is given, or that of `create_classification_loss(**criterion_kwargs)`.

    Raises:
        ConfigError: Both are given.
    """
    if criterion is None:
        criterion = create_classification_loss(multi_label=multi_label, **(criterion_kwargs or {}))
    elif criterion_kwargs:
        raise ConfigError(f"a criterion is given, and arguments for another: {', '.join(sorted(criterion_kwargs))}")
    return criterion.to(device) if isinstance(criterion, nn.Module) else criterion


class ClassificationTask(TrainingTask):
    """A model and a loss on labels.

    Args:
        model: Trained.
        criterion: Loss of (logits, target); None for `create_classification_loss(**criterion_kwargs)`.
        criterion_kwargs: Of that.
        device, dtype, verbose: As of `TrainingTask`.
    """

    multi_label = False

    def __init__(
        self, model: nn.Module, criterion: Any = None, criterion_kwargs: Mapping[str, Any] | None = None,
        device: torch.device | None = None, dtype: torch.dtype | None = None, verbose: bool = True,
    ) -> None:
        super().__init__(device, dtype, verbose)
        self.trainable_module = model
        self.criterion = resolve_classification_loss(criterion, self.device, self.multi_label, criterion_kwargs)
        if verbose:
            name = getattr(self.criterion, "__name__", type(self.criterion).__name__)
            _logger.info("%s: %s", type(self).__name__, name)

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> Any:
        self.trainable_module = self.eval_model = torch.compile(
            self.trainable_module, backend=backend, mode=mode, **compile_kwargs)
        return self.eval_model

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """{"loss", "output"} of images (N, C, H, W) and their targets."""
        output = self.trainable_module(input)
        return {"loss": self.criterion(output, target), "output": output}


class MultiLabelClassificationTask(ClassificationTask):
    """The same with several labels an image: targets (N, classes) of 0 and 1, binary cross-entropy unless told.

    Args:
        model, criterion, criterion_kwargs, device, dtype, verbose: As of `ClassificationTask`.
        threshold: Of the evaluator.
    """

    multi_label = True

    def __init__(
        self, model: nn.Module, criterion: Any = None, criterion_kwargs: Mapping[str, Any] | None = None,
        threshold: float = 0.5, device: torch.device | None = None, dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(model, criterion, criterion_kwargs, device, dtype, verbose)
        self.threshold = check_threshold(threshold)

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        if target.ndim != 2 or not target.is_floating_point():
            raise ConfigError(f"several labels an image are floating-point targets (N, classes), not "
                              f"{tuple(target.shape)} of {target.dtype}")
        return super().forward(input, target)

    def create_evaluator(self, **kwargs: Any) -> ClassificationEvaluator:
        return MultiLabelClassificationEvaluator(device=self.device, threshold=self.threshold, **kwargs)


_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _normalization(model: nn.Module, like: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation that a model's images are normalized with, (1, C, 1, 1) each."""
    cfg = getattr(unwrap_model(model), "pretrained_cfg", None) or _IMAGENET
    mean, std = (torch.tensor(cfg.get(name, _IMAGENET[name]), **like).view(1, -1, 1, 1) for name in ("mean", "std"))
    return mean, std


class DistillationTeacher(nn.Module):
    """A model in evaluation mode that gives logits or features to learn from, of images in its own normalization.

    Args:
        model_name_or_module: A model, or the name of a pretrained one.
        num_classes, in_chans: Of the named one.
        pretrained_path: A file with its weights.
        pretrained_cfg_overlay: Changes of its pretrained_cfg.
        device, dtype: Of the named one, and of the teacher's constants.

    Raises:
        TypeError: It is neither a name nor a module.
    """

    mean_kd: Tensor
    std_kd: Tensor

    def __init__(
        self, model_name_or_module: str | nn.Module, num_classes: int | None = None, in_chans: int = 3,
        pretrained_path: str | None = None, pretrained_cfg_overlay: Mapping[str, Any] | None = None,
        device: torch.device | None = None, dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        model: Any = model_name_or_module
        if isinstance(model, str):
            overlay: dict[str, Any] = {"file": pretrained_path, "num_classes": num_classes} if pretrained_path else {}
            overlay.update(pretrained_cfg_overlay or {})
            model = create_model(
                model, pretrained=True, pretrained_cfg_overlay=overlay or None, num_classes=num_classes,
                in_chans=in_chans, device=device, dtype=dtype)
        elif not isinstance(model, nn.Module):
            raise TypeError(f"a teacher is a model's name or a module, not {type(model).__name__}")
        self.model = model.eval()
        mean, std = _normalization(model, {"device": device, "dtype": dtype})
        self.register_buffer("mean_kd", mean, persistent=False)
        self.register_buffer("std_kd", std, persistent=False)
        self._features: Callable[[Tensor], Tensor] = self._forward_features

    def _forward_features(self, input: Tensor) -> Tensor:
        model = self.model
        if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
            raise ConfigError(f"{type(model).__name__} gives no features to learn from: it has no forward_features and "
                              f"forward_head")
        return model.forward_head(model.forward_features(input), pre_logits=True)

    def compile(  # type: ignore[override]
        self, backend: str = "inductor", mode: str | None = None, compile_model: bool = True,
        compile_features: bool = False, **compile_kwargs: Any,
    ) -> DistillationTeacher:
        """Compile what gives logits, what gives features, or both."""
        if compile_model:
            self.model = torch.compile(self.model, backend=backend, mode=mode, **compile_kwargs)
        if compile_features:
            self._features = torch.compile(self._forward_features, backend=backend, mode=mode, **compile_kwargs)
        return self

    def forward(self, input: Tensor, return_features: bool = False) -> Tensor:
        """Logits, or with `return_features` pooled features, of images in the teacher's normalization."""
        return self._features(input) if return_features else self.model(input)

    def normalize_input(
        self, input: Tensor, student_mean: Tensor | None = None, student_std: Tensor | None = None
    ) -> Tensor:
        """The student's images in the teacher's normalization."""
        if student_mean is None or student_std is None:
            return input
        if torch.equal(student_mean, self.mean_kd) and torch.equal(student_std, self.std_kd):
            return input
        return (input * student_std + student_mean - self.mean_kd) / self.std_kd


class _DistillationTask(TrainingTask):
    """A student, a teacher, and the weights of two losses.

    With `distill_loss_weight` the weights are independent (`task_loss_weight` is 1 unless given); with
    `task_loss_weight` alone the other is what it leaves of 1; without either both are 1.
    """

    student_mean: Tensor
    student_std: Tensor

    def __init__(
        self, student: nn.Module, teacher: Any, criterion: Any, criterion_kwargs: Mapping[str, Any] | None,
        teacher_path: str | None, teacher_overlay: Mapping[str, Any] | None, distill_weight: float | None,
        task_weight: float | None, device: torch.device | None, dtype: torch.dtype | None, verbose: bool,
    ) -> None:
        super().__init__(device, dtype, verbose)
        like: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        if not isinstance(teacher, DistillationTeacher):
            inner = unwrap_model(student)
            teacher = DistillationTeacher(
                teacher, inner.num_classes, inner.in_chans, teacher_path, teacher_overlay, **like)
        self.trainable_module = student
        self.teacher = teacher
        self.criterion = resolve_classification_loss(criterion, self.device, criterion_kwargs=criterion_kwargs)
        mean, std = _normalization(student, like)
        self.register_buffer("student_mean", mean, persistent=False)
        self.register_buffer("student_std", std, persistent=False)
        complement = distill_weight is None and task_weight is not None
        self.task_loss_weight = 1.0 if task_weight is None else task_weight
        self.distill_loss_weight = 1.0 - self.task_loss_weight if complement else \
            1.0 if distill_weight is None else distill_weight
        if verbose:
            _logger.info("%s: %g times the task's loss and %g times the teacher's", type(self).__name__,
                         self.task_loss_weight, self.distill_loss_weight)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.teacher.eval()
        return self

    def prepare_distributed(self, device_ids: list[int] | None = None, **ddp_kwargs: Any) -> TrainingTask:
        self.teacher.requires_grad_(False)
        return super().prepare_distributed(device_ids, **ddp_kwargs)

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> Any:
        self.trainable_module = self.eval_model = torch.compile(
            self.trainable_module, backend=backend, mode=mode, **compile_kwargs)
        self.teacher.compile(backend=backend, mode=mode, **compile_kwargs)
        return self.eval_model

    @torch.no_grad()
    def _ask_teacher(self, input: Tensor, return_features: bool = False) -> Tensor:
        images = self.teacher.normalize_input(input, self.student_mean, self.student_std)
        return self.teacher(images.detach(), return_features=return_features)

    def _losses(self, output: Tensor, target: Tensor, from_teacher: Tensor, name: str) -> dict[str, Tensor]:
        task_loss = self.criterion(output, target)
        loss = self.task_loss_weight * task_loss + self.distill_loss_weight * from_teacher
        return {"loss": loss, "output": output, "task_loss": task_loss, name: from_teacher}


class LogitDistillationTask(_DistillationTask):
    """A student that learns from labels and from a teacher's logits (arXiv 1503.02531).

    Args:
        student_model: Trained.
        teacher_model: A model, a pretrained one's name, or a `DistillationTeacher`.
        criterion, criterion_kwargs: Loss on labels, as of `ClassificationTask`.
        teacher_pretrained_path, teacher_pretrained_cfg_overlay: As of `DistillationTeacher`.
        loss_type: "kl", the divergence of the softened distributions.
        distill_loss_weight: Weight of the teacher's loss.
        task_loss_weight: Weight of the labels' loss; without the other, that is what this leaves of 1.
        temperature: Of the softening.
        device, dtype, verbose: As of `TrainingTask`.

    Raises:
        ConfigError: Another `loss_type`.
    """

    def __init__(
        self, student_model: nn.Module, teacher_model: str | nn.Module, criterion: Any = None,
        criterion_kwargs: Mapping[str, Any] | None = None, teacher_pretrained_path: str | None = None,
        teacher_pretrained_cfg_overlay: Mapping[str, Any] | None = None, loss_type: str = "kl",
        distill_loss_weight: float | None = None, task_loss_weight: float | None = None, temperature: float = 1.0,
        device: torch.device | None = None, dtype: torch.dtype | None = None, verbose: bool = True,
    ) -> None:
        if loss_type != "kl":
            raise ConfigError(f"a teacher's logits are learned by 'kl', not '{loss_type}'")
        super().__init__(
            student_model, teacher_model, criterion, criterion_kwargs, teacher_pretrained_path,
            teacher_pretrained_cfg_overlay, distill_loss_weight, task_loss_weight, device, dtype, verbose)
        self.loss_type = loss_type
        self.temperature = temperature

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """{"loss", "output", "task_loss", "kd_loss"} of images (N, C, H, W) and their targets."""
        logits = self.trainable_module(input)
        return self._losses(logits, target, distill(logits, self._ask_teacher(input), self.temperature), "kd_loss")


class TokenDistillationTask(_DistillationTask):
    """A student with a distillation token, whose logits learn from the teacher alone (DeiT, arXiv 2012.12877).

    Args:
        student_model: Trained; has `set_distilled_training`, and gives a pair of logits after it.
        distill_type: "soft", the divergence of softened distributions, or "hard", the teacher's likeliest class.
        teacher_model, criterion, criterion_kwargs, teacher_pretrained_path, teacher_pretrained_cfg_overlay,
            distill_loss_weight, task_loss_weight, temperature, device, dtype, verbose: As of `LogitDistillationTask`.

    Raises:
        ConfigError: The student has no distillation token, or another `distill_type`.
    """

    def __init__(
        self, student_model: nn.Module, teacher_model: str | nn.Module, criterion: Any = None,
        criterion_kwargs: Mapping[str, Any] | None = None, teacher_pretrained_path: str | None = None,
        teacher_pretrained_cfg_overlay: Mapping[str, Any] | None = None, distill_type: str = "soft",
        distill_loss_weight: float | None = None, task_loss_weight: float | None = None, temperature: float = 1.0,
        device: torch.device | None = None, dtype: torch.dtype | None = None, verbose: bool = True,
    ) -> None:
        if distill_type not in ("soft", "hard"):
            raise ConfigError(f"unknown kind of distillation '{distill_type}'; known: soft, hard")
        student = unwrap_model(student_model)
        if not hasattr(student, "set_distilled_training"):
            raise ConfigError(f"{type(student).__name__} has no distillation token: it has no set_distilled_training")
        student.set_distilled_training(True)
        super().__init__(
            student_model, teacher_model, criterion, criterion_kwargs, teacher_pretrained_path,
            teacher_pretrained_cfg_overlay, distill_loss_weight, task_loss_weight, device, dtype, verbose)
        self.distill_type = distill_type
        self.temperature = temperature

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """{"loss", "output", "task_loss", "distill_loss"} of images (N, C, H, W) and their targets."""
        logits, token_logits = self.trainable_module(input)
        loss = distill(token_logits, self._ask_teacher(input), self.temperature, self.distill_type)
        return self._losses(logits, target, loss, "distill_loss")


class FeatureDistillationTrainableModule(nn.Module):
    """A student and the projection of its features: what is trained, so that one wrapper holds both.

    Args:
        student_model: Has `forward_features` and `forward_head`.
        projection: From the student's features to the teacher's; None where they fit.
    """

    def __init__(self, student_model: nn.Module, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.student: Any = student_model
        self.projection = projection

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay."""
        student = unwrap_model(self.student)
        names = student.no_weight_decay() if hasattr(student, "no_weight_decay") else ()
        return {f"student.{name}" for name in names}

    def group_matcher(self, coarse: bool = False) -> Any:
        """From a parameter's name to its layer; the projection's is the last."""
        student = unwrap_model(self.student)
        if not hasattr(student, "group_matcher"):
            return {}
        layers = group_parameters(student, student.group_matcher(coarse=coarse))
        last = max(layers.values(), default=0)
        return lambda name: (layers.get(name.removeprefix("student."), last),)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, classes) and features (N, the teacher's)."""
        maps = self.student.forward_features(input)
        features = self.student.forward_head(maps, pre_logits=True)
        return self.student.forward_head(maps), features if self.projection is None else self.projection(features)


class FeatureDistillationTask(_DistillationTask):
    """A student that learns from labels and from a teacher's pooled features, by their mean squared difference.

    A linear projection, which is trained too, leads from the student's width to another one of the teacher.

    Args:
        student_feature_dim, teacher_feature_dim: Widths of the features; None to ask the models.
        student_model, teacher_model, criterion, criterion_kwargs, teacher_pretrained_path,
            teacher_pretrained_cfg_overlay, distill_loss_weight, task_loss_weight, device, dtype, verbose: As of
            `LogitDistillationTask`.

    Raises:
        ConfigError: A model does not say its width.
    """

    def __init__(
        self, student_model: nn.Module, teacher_model: str | nn.Module, criterion: Any = None,
        criterion_kwargs: Mapping[str, Any] | None = None, teacher_pretrained_path: str | None = None,
        teacher_pretrained_cfg_overlay: Mapping[str, Any] | None = None, distill_loss_weight: float | None = None,
        task_loss_weight: float | None = None, student_feature_dim: int | None = None,
        teacher_feature_dim: int | None = None, device: torch.device | None = None, dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(
            student_model, teacher_model, criterion, criterion_kwargs, teacher_pretrained_path,
            teacher_pretrained_cfg_overlay, distill_loss_weight, task_loss_weight, device, dtype, verbose)
        width = _feature_width(student_model) if student_feature_dim is None else student_feature_dim
        wanted = _feature_width(self.teacher.model) if teacher_feature_dim is None else teacher_feature_dim
        projection = None
        if width != wanted:
            projection = nn.Linear(width, wanted, device=self.device, dtype=self.dtype)
        self.trainable_module = FeatureDistillationTrainableModule(student_model, projection)

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """{"loss", "output", "task_loss", "kd_loss"} of images (N, C, H, W) and their targets."""
        logits, features = self.trainable_module(input)
        wanted = self._ask_teacher(input, return_features=True)
        return self._losses(logits, target, nn.functional.mse_loss(features, wanted), "kd_loss")

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> Any:
        options = {"backend": backend, "mode": mode, **compile_kwargs}
        self.eval_model = torch.compile(self.trainable_module.student, **options)
        self.trainable_module = torch.compile(self.trainable_module, **options)
        self.teacher.compile(compile_model=False, compile_features=True, **options)
        return self.eval_model

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False) -> Any:
        model = super().get_eval_model(module, ema)
        inner = None if model is None else unwrap_model(model)
        return inner.student if isinstance(inner, FeatureDistillationTrainableModule) else model

    def get_clip_parameters(self, exclude_head: bool = False) -> Iterable[nn.Parameter]:
        trained = unwrap_model(self.trainable_module)
        parameters = list(trained.student.parameters())
        projection = [] if trained.projection is None else list(trained.projection.parameters())
        return [*(parameters[:-2] if exclude_head else parameters), *projection]

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        module = self.get_trainable_module(ema) if module is None else module
        projection = None if module is None else unwrap_model(module).projection
        return {} if projection is None else {"projection": projection.state_dict()}

    def load_task_state(
        self, state: Mapping[str, Any] | None, strict: bool = True, module: nn.Module | None = None, ema: bool = False
    ) -> None:
        """Load the projection.

        Raises:
            RuntimeError: There is none here, or no average to load it into.
        """
        if not state or state.get("projection") is None:
            return
        module = self.get_trainable_module(ema) if module is None else module
        if module is None:
            raise RuntimeError("the task has no moving average to load: call setup_ema() first")
        projection = unwrap_model(module).projection
        if projection is not None:
            projection.load_state_dict(state["projection"], strict=strict)
        elif strict:
            raise RuntimeError("the checkpoint has a projection of features, and this task needs none")


def _feature_width(model: nn.Module) -> int:
    model = unwrap_model(model)
    width = getattr(model, "head_hidden_size", getattr(model, "num_features", None))
    if width is None:
        raise ConfigError(f"{type(model).__name__} says neither head_hidden_size nor num_features; give "
                          f"student_feature_dim and teacher_feature_dim")
    return width


# checkpoints


def _entries(checkpoint: Any, *names: tuple[str, str]) -> Iterator[tuple[dict[str, Any], Any, str]]:
    """The first of some entries that a checkpoint has, with the task's own state; a bare state dict is the last."""
    is_dict = isinstance(checkpoint, dict)
    for name, own in names:
        if is_dict and checkpoint.get(name) is not None:
            yield clean_state_dict(checkpoint[name]), checkpoint.get(own), name
    yield clean_state_dict(checkpoint), None, ""


def resume_task_checkpoint(
    task: TrainingTask, checkpoint_path: str | os.PathLike[str], optimizer: torch.optim.Optimizer | None = None,
    loss_scaler: Any = None, log_info: bool = True, weights_only: bool = True,
) -> int | None:
    """Load a training checkpoint's model and task, and the states of optimizer and loss scaler where they are given.

    Args:
        weights_only: Accepted for timm's sake: nothing in a pickle is ever run.

    Returns:
        The epoch to go on with, None where the file does not say it.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It cannot be read.
    """
    checkpoint = read_training_checkpoint(checkpoint_path)
    model, own, name = next(_entries(checkpoint, ("state_dict", "task_state"), ("model", "")))
    task.load_checkpoint_state(model, own)
    if not name:
        return None
    if optimizer is not None and "optimizer" in checkpoint:
        resume_optimizer_state(optimizer, checkpoint["optimizer"], task.get_trainable_module(), model)
    if loss_scaler is not None and loss_scaler.state_dict_key in checkpoint:
        loss_scaler.load_state_dict(checkpoint[loss_scaler.state_dict_key])
    epoch: int | None = checkpoint.get("epoch")
    if log_info:
        _logger.info("resumed from %s, epoch %s", checkpoint_path, epoch)
    return epoch if epoch is None or checkpoint.get("version", 0) < 2 else epoch + 1


def load_task_ema_checkpoint(
    task: TrainingTask, checkpoint_path: str | os.PathLike[str], weights_only: bool = True
) -> None:
    """Load a training checkpoint's averages, or its weights where it has none, into a task's average."""
    names = (("state_dict_ema", "task_state_ema"), ("model_ema", ""), ("state_dict", "task_state"), ("model", ""))
    model, own, name = next(_entries(read_training_checkpoint(checkpoint_path), *names))
    task.load_checkpoint_state(model, own, ema=True)
    _logger.info("loaded %s of %s into the average", name or "the weights", checkpoint_path)
