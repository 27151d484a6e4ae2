"""The training loop: one epoch of updates, one pass of validation, and the state that both work on.

A run is a function of its arguments, its data and its seed. What is random in an update (dropout, stochastic depth)
is drawn from generators that are seeded with the update's place in the run, so that a run which was stopped anywhere
goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..data.randomness import sample_seed
from ..errors import MvlibError
from ..layers.helpers import unwrap
from ..optim.clip import clip_grad, model_parameters
from ..optim.resume import resume_optimizer
from ..publish import describe_model
from .distributed import is_parallel, sum_over_ranks
from .ema import ModelEma

__all__ = ["NonFiniteLossError", "StepOptions", "StopTraining", "TrainState", "train_one_epoch", "validate"]

Loss = Callable[..., Tensor]


class NonFiniteLossError(MvlibError, RuntimeError):
    """The loss became infinite or not a number."""


class StopTraining(Exception):
    """A callback's way to end training after an update."""


class Loader(Protocol):
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterable[tuple[Tensor, Tensor]]: ...
    def set_epoch(self, epoch: int, start_batch: int = 0) -> None: ...


@dataclass
class TrainState:
    """All that changes while a model is trained.

    Attributes:
        model: Perhaps wrapped (DDP, torch.compile).
        optimizer, scheduler, ema, scaler: What the run uses of them.
        epoch, batch: The next batch to train on.
        updates: Updates of the weights so far.
        skipped: Updates left out for a loss that was not finite, in a row.
        sums: Of this epoch so far: "loss" (weighted with images), "images".
        history: One row an epoch, of all that was measured.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any = None
    ema: ModelEma | None = None
    scaler: torch.amp.GradScaler | None = None
    epoch: int = 0
    batch: int = 0
    updates: int = 0
    skipped: int = 0
    sums: dict[str, float] = field(default_factory=lambda: {"loss": 0.0, "images": 0.0})
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def learning_rate(self) -> float:
        """The mean of the groups' rates."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return sum(rates) / len(rates)

    @property
    def mean_loss(self) -> float:
        return self.sums["loss"] / self.sums["images"] if self.sums["images"] else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors and plain data, under timm's names where timm has one; and of a model that
        `create_model` built, what it is."""
        model = unwrap(self.model)
        state: dict[str, Any] = {
            **(describe_model(model) if getattr(model, "architecture", None) else {}),
            "state_dict": model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch, "batch": self.batch, "updates": self.updates, "skipped": self.skipped,
            "sums": dict(self.sums), "history": [dict(row) for row in self.history],
        }
        if self.scheduler is not None:
            state["scheduler"] = self.scheduler.progress()  # its schedule is what the flags say
        if self.ema is not None:
            state.update(state_dict_ema=self.ema.module.state_dict(), ema_updates=int(self.ema.n_averaged))
        if self.scaler is not None:
            state["amp_scaler"] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any], with_optimizer: bool = True) -> None:
        """Take up what `state_dict` gave, or go on from there with the optimizer (and scaler, and rates) as it is here.

        Raises:
            ConfigError: The optimizer's state is that of another optimizer, or of other parameter groups.
        """
        model = unwrap(self.model)
        if with_optimizer and "optimizer" in state:  # first: it may raise
            resume_optimizer(self.optimizer, state["optimizer"], model, state["state_dict"])
        model.load_state_dict(state["state_dict"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state.get("state_dict_ema", state["state_dict"]))
            self.ema.n_averaged.fill_(state.get("ema_updates", 1))
        if with_optimizer and self.scaler is not None and state.get("amp_scaler"):
            self.scaler.load_state_dict(state["amp_scaler"])
        for name in ("epoch", "batch", "updates", "skipped"):
            setattr(self, name, state[name])
        if self.scheduler is not None and with_optimizer and "scheduler" in state:
            self.scheduler.load_state_dict(state["scheduler"])
        elif self.scheduler is not None:
            self.scheduler.go_to(self.epoch, self.updates, state.get("metric"))
        self.sums = dict(state["sums"])
        self.history = [dict(row) for row in state["history"]]

    def begin_at(self, epoch: int, updates: int) -> None:
        """Stand at the start of an epoch, `updates` into training; the schedule goes there, too."""
        self.epoch, self.batch, self.updates = epoch, 0, updates
        self.sums = {"loss": 0.0, "images": 0.0}
        if self.scheduler is not None:
            self.scheduler.go_to(epoch, updates)


@dataclass(frozen=True)
class StepOptions:
    """How an update is made.

    Attributes:
        autocast: Makes the context of the forward pass.
        grad_accum_steps: Batches an update.
        clip_grad, clip_mode: Gradient clipping; None for none.
        ema_steps: Updates from one average to the next.
        ema_restart_epochs: Epochs at the start in which the average only copies.
        skip_nonfinite: Updates in a row that may be left out for a loss that is not finite.
        seed, rank: Of what is random in the model.
        teacher: A model whose logits the loss takes as a third argument.
        loss_scale: Factor on the loss of a batch of so many images; None for 1. Ranks have as many images at a time.
    """

    autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    grad_accum_steps: int = 1
    clip_grad: float | None = None
    clip_mode: str = "norm"
    ema_steps: int = 1
    ema_restart_epochs: int = 0
    skip_nonfinite: int = 0
    seed: int = 42
    rank: int = 0
    teacher: nn.Module | None = None
    loss_scale: Callable[[int], float] | None = None


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each update.

    Attributes:
        batch, batches: Batches done of this epoch, of how many.
        loss: Of the update's last batch, on this process.
        images_per_second: Of all processes, since the epoch's start (or its resumption).
        data_share: Share of that time in which the loop waited for data.
        images: The last batch.
        count: Its number of images.
    """

    batch: int
    batches: int
    loss: float
    images_per_second: float
    data_share: float
    images: Any
    count: int


def train_one_epoch(
    state: TrainState,
    loader: Loader,
    loss_fn: Loss,
    options: StepOptions = StepOptions(),
    on_update: Callable[[TrainState, Progress], None] | None = None,
) -> dict[str, float]:
    """Train from `state.batch` to the end of the epoch `state.epoch`.

    Args:
        state: Changed in place; at the end it stands at the next epoch's first batch.
        loader: Gives (images, targets) on the device; told the epoch and the first batch. Images may be a dict, of
            patches and what belongs to them.
        loss_fn: (outputs, targets) -> scalar; with a teacher (outputs, targets, teacher's logits).
        options: How an update is made.
        on_update: Called after each update, with the state as a checkpoint should hold it.

    Returns:
        `loss`: the epoch's mean over all processes.

    Raises:
        NonFiniteLossError: More updates in a row than `skip_nonfinite` had a loss that is not finite.
    """
    model, optimizer, accumulate = state.model, state.optimizer, options.grad_accum_steps
    parameters = model_parameters(unwrap(model), exclude_head=options.clip_mode == "agc")
    second_order = getattr(optimizer, "is_second_order", False)
    model.train()
    _keep_frozen_norms(unwrap(model))
    loader.set_epoch(state.epoch, state.batch)
    batches, device = len(loader), _device(model)
    clock = _Clock()
    optimizer.zero_grad()
    finite = True
    for batch, (images, targets) in enumerate(loader, start=state.batch):
        clock.got_data()
        is_update = (batch + 1) % accumulate == 0 or batch + 1 == batches
        group = min(accumulate, batches - batch // accumulate * accumulate)  # the last may be smaller
        images, targets = _moved(images, device), targets.to(device, non_blocking=True)
        count = len(targets)
        _seed_model(options.seed, state.epoch, batch, options.rank, device)
        with contextlib.nullcontext() if is_update or not hasattr(model, "no_sync") else model.no_sync():
            with options.autocast():
                outputs = model(images)
                advice = () if options.teacher is None else (_ask(options.teacher, images),)
                loss = _loss_of(loss_fn, outputs, targets, *advice)
            scaled = loss / group if group > 1 else loss
            if options.loss_scale is not None:
                scaled = scaled * options.loss_scale(count)
            if state.scaler is not None:
                scaled = state.scaler.scale(scaled)
            scaled.backward(create_graph=second_order)
        value = loss.item()
        finite &= math.isfinite(value)
        state.sums["loss"] += value * count if math.isfinite(value) else 0.0
        state.sums["images"] += count if math.isfinite(value) else 0
        clock.count(count)
        if not is_update:
            clock.wait()
            continue

        if _all_finite(finite, device):
            _update(state, options, parameters)
            state.skipped = 0
        else:
            state.skipped += 1
            if state.skipped > options.skip_nonfinite:
                raise NonFiniteLossError(
                    f"the loss is {value} in epoch {state.epoch}, batch {batch} (update {state.updates}), at learning "
                    f"rate {state.learning_rate:.3g}")
        optimizer.zero_grad()
        finite = True
        state.updates += 1
        state.batch = batch + 1
        if state.scheduler is not None:
            state.scheduler.step_update(num_updates=state.updates, metric=state.mean_loss)
        if on_update is not None and batch + 1 < batches:  # the end of the epoch is its caller's
            on_update(state, Progress(batch + 1, batches, value, clock.rate(), clock.data_share, images, count))
        clock.wait()
    if hasattr(optimizer, "sync_lookahead"):
        optimizer.sync_lookahead()
    total = sum_over_ranks(torch.tensor([state.sums["loss"], state.sums["images"]], dtype=torch.float64).to(
        device if device.type == "cuda" else "cpu"))
    state.epoch, state.batch = state.epoch + 1, 0
    state.sums = {"loss": 0.0, "images": 0.0}
    return {"loss": (total[0] / total[1]).item() if total[1] else math.nan, "images_per_second": clock.rate()}


def _update(state: TrainState, options: StepOptions, parameters: Sequence[Tensor]) -> None:
    """Clip, step, average."""
    if state.scaler is not None:
        if options.clip_grad is not None:
            state.scaler.unscale_(state.optimizer)
            clip_grad(parameters, options.clip_grad, options.clip_mode)
        state.scaler.step(state.optimizer)
        state.scaler.update()
    else:
        if options.clip_grad is not None:
            clip_grad(parameters, options.clip_grad, options.clip_mode)
        state.optimizer.step()
    if state.ema is not None and state.updates % options.ema_steps == 0:
        state.ema.update_parameters(unwrap(state.model))
        if state.epoch < options.ema_restart_epochs:
            state.ema.restart()


def _moved(images: Any, device: torch.device) -> Any:
    """Images, or a dict of what is made of them, on a device."""
    if not isinstance(images, dict):
        return images.to(device, non_blocking=True)
    return {key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in images.items()}


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _seed_model(seed: int, epoch: int, batch: int, rank: int, device: torch.device) -> None:
    value = sample_seed(seed, epoch, batch, rank) >> 1
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(value)


AUXILIARY_WEIGHT = 0.3  # of GoogLeNet's and Inception's auxiliary classifiers (Szegedy et al., 2014, section 5)


def _loss_of(loss_fn: Loss, outputs: Any, targets: Tensor, *advice: Tensor) -> Tensor:
    """The loss of logits; of logits with those of auxiliary classifiers, the weighted sum of all."""
    if not hasattr(outputs, "_fields"):  # a plain pair of logits is the loss's own business (distillation tokens)
        return loss_fn(outputs, targets, *advice)
    main, *auxiliary = (output for output in outputs if output is not None)
    loss = loss_fn(main, targets, *advice)
    for output in auxiliary:
        loss = loss + AUXILIARY_WEIGHT * loss_fn(output, targets, *advice)
    return loss


@torch.no_grad()
def _ask(teacher: nn.Module, images: Tensor) -> Tensor:
    return teacher(images)


def _all_finite(finite: bool, device: torch.device) -> bool:
    """Whether the loss was finite on every process; they have to decide alike."""
    if not is_parallel():
        return finite
    return sum_over_ranks(torch.tensor(float(not finite), device=device)).item() == 0


def _keep_frozen_norms(model: nn.Module) -> None:
    """Batch norms without a parameter to train keep their statistics, too."""
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and isinstance(module, nn.modules.batchnorm._BatchNorm) and not any(p.requires_grad for p in own):
            module.eval()


class _Clock:
    """Images a second, and the share of time that went to waiting for data."""

    def __init__(self) -> None:
        self.start = self.mark = time.perf_counter()
        self.images = 0
        self.waited = 0.0

    def got_data(self) -> None:
        self.waited += time.perf_counter() - self.mark

    def count(self, images: int) -> None:
        self.images += images

    def wait(self) -> None:
        self.mark = time.perf_counter()

    def rate(self) -> float:
        """Of all processes, if each is as quick as this one."""
        size = torch.distributed.get_world_size() if is_parallel() else 1
        return self.images * size / max(time.perf_counter() - self.start, 1e-9)

    @property
    def data_share(self) -> float:
        return self.waited / max(time.perf_counter() - self.start, 1e-9)


def logits_of(
    model: nn.Module, images: Any, autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
) -> Tensor:
    """A model's (main) logits in float32 for images that may still lie elsewhere."""
    with autocast():
        outputs = model(_moved(images, _device(model)))
    return (outputs[0] if isinstance(outputs, (tuple, list)) else outputs).float()


@torch.inference_mode()
def validate(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    loss_fn: Loss | None = None,
    autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    on_batch: Callable[[int, int], None] | None = None,
    tta: int = 0,
) -> dict[str, float]:
    """Accuracy and loss over all of a loader's samples, of all processes together.

    Args:
        model: Put in evaluation mode, and back.
        loader: Gives (images, targets) on the device.
        loss_fn: (outputs, targets) -> scalar mean; cross-entropy unless given.
        autocast: Makes the context of the forward pass.
        on_batch: Called with the batches and images done.
        tta: Copies of each image that follow one another in a batch; their outputs are averaged. 0 for none.

    Returns:
        `loss`, `top1` and `top5` (percent), `images`.
    """
    loss_fn = loss_fn or nn.functional.cross_entropy
    was_training = model.training
    model.eval()
    device = _device(model)
    sums = torch.zeros(4, dtype=torch.float64, device=device)  # loss, correct at 1, correct at 5, images
    for count, (images, targets) in enumerate(loader, start=1):
        targets = targets.to(device, non_blocking=True)
        outputs = logits_of(model, images, autocast)
        if tta > 1:
            outputs, targets = outputs.unflatten(0, (-1, tta)).mean(1), targets[::tta]
        hits = outputs.topk(min(5, outputs.shape[1])).indices == targets[:, None]
        hits &= outputs.amax(-1, keepdim=True).isfinite()  # else the first class would be the likeliest
        sums += torch.stack([loss_fn(outputs, targets).double() * len(targets), hits[:, :1].sum().double(),
                             hits.sum().double(), torch.tensor(float(len(targets)), device=device).double()])
        if on_batch is not None:
            on_batch(count, len(targets))
    loss, top1, top5, images = sum_over_ranks(sums).tolist()
    model.train(was_training)
    if not images:
        return {"loss": math.nan, "top1": math.nan, "top5": math.nan, "images": 0}
    return {"loss": loss / images, "top1": 100 * top1 / images, "top5": 100 * top5 / images, "images": int(images)}
