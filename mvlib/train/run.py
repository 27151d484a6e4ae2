"""A training run, from arguments to the exported model."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.config import image_mode, resolve_data_config
from ..data.dataset import AugMixDataset
from ..data.dataset_factory import create_dataset
from ..data.loader import create_loader
from ..data.mixup import FastCollateMixup, Mixup
from ..data.readers import Relabel, check_labels, check_same_classes, match_classes
from ..errors import CheckpointError, ConfigError, DataError
from ..factory import create_model
from ..layers.helpers import unwrap
from ..loading import load_checkpoint, strip_wrappers
from ..loss import DistillationLoss, create_loss
from ..optim import create_optimizer_v2, optimizer_kwargs
from ..publish import describe_model, save_for_hub
from ..registry import resolve_name
from ..scheduler.factory import create_scheduler_v2, scale_learning_rate, scheduler_kwargs
from ..threads import fitting_workers
from . import naflex
from .batchnorm import distribute_bn
from .checkpoint import CheckpointStore, find_checkpoints, newest_checkpoint, ranked_model, read_checkpoint
from .distributed import World, broadcast_object, init_world, is_parallel, sum_over_ranks
from .engine import NonFiniteLossError, Progress, StepOptions, TrainState, train_one_epoch, validate
from .messages import messages_on_terminal
from .model import average_model, build_model, wrap_model
from .precision import autocast_for, keep_slow_convolutions_in_float32
from .report import Report, write_text

__all__ = ["EXIT_STOPPED", "train"]

_logger = logging.getLogger("mvlib")

_TWICE = 1.0  # seconds; a SIGINT that follows as soon is the same one (timeout sends it to the process and its group)
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: stopped by a signal and saved; --resume FOLDER goes on


def train(args: argparse.Namespace) -> int:
    """Train a model as `parse_train_arguments` describes it.

    Returns:
        0 where the run is complete, `EXIT_STOPPED` where SIGTERM or SIGINT ended it early, saved.

    Raises:
        ConfigError, DataError, CheckpointError, WeightsError, ...: What cannot be used, and why.
        NonFiniteLossError: The loss was not finite; the message names the last good checkpoint.
    """
    world = init_world(args.device)
    with messages_on_terminal(world.is_main), _stop_signals() as stopped, contextlib.ExitStack() as after_failure:
        try:
            status = _train(args, world, stopped, after_failure)
            after_failure.pop_all()
            return status
        except RuntimeError as error:  # torch says so in the middle of whatever the main process does
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(f"{str(error).splitlines()[0]}; fewer --workers need less memory") from error
        finally:
            if is_parallel():
                torch.distributed.destroy_process_group()


def _train(args: argparse.Namespace, world: World, stopped: _Stop, after_failure: contextlib.ExitStack) -> int:
    if args.deterministic:
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
    else:
        torch.backends.cudnn.benchmark = True
    autocast, scaler = autocast_for(world.device, args.amp_dtype, args.force) if args.amp else \
        (contextlib.nullcontext, None)
    data_train, data_eval = _datasets(args)
    torch.manual_seed(args.seed)  # all ranks initialise alike
    model, data_config = build_model(args, data_train.classes, world)
    for dataset in (data_train, data_eval):
        dataset.input_img_mode = image_mode(model.in_chans, args.input_img_mode)
    classes = _begin_with_classes(args, model, (data_train, data_eval)) or data_train.classes
    eval_config = _eval_config(args, data_config)
    loader_eval = _eval_loader(args, data_eval, eval_config, model, world)
    if args.test_only:
        return _test_only(args, model, data_eval, loader_eval, autocast, world)

    check_same_classes(data_train, data_eval)
    check_labels(data_train, model.num_classes)
    folder = _folder(args, model, data_config, world)
    loader = _train_loader(args, data_train, data_config, model, world)
    optimizer = _optimizer(args, model, world)
    updates_per_epoch = math.ceil(len(loader) / args.grad_accum_steps)
    scheduler, epochs = _scheduler(args, optimizer, updates_per_epoch)
    if world.is_main:
        _notice(args, scheduler, epochs)
    ema = average_model(args, model, world) if args.model_ema else None
    if args.amp and world.device.type == "cpu":  # after the average was made: copies must not share these forwards
        keep_slow_convolutions_in_float32(model)
    wrapped = wrap_model(args, model, world)
    state = TrainState(wrapped, optimizer, scheduler, ema, scaler)
    store = CheckpointStore(folder, args.checkpoint_hist, decreasing=args.eval_metric == "loss") \
        if world.is_main else None
    about = _describe_run(args, model, classes, eval_config, world, epochs)
    _resume(args, state, store, folder, about, (data_train, data_eval), world, updates_per_epoch)
    if world.is_main:
        if state.epoch >= epochs:
            _logger.info("this run is complete; --epochs %d or more goes on with it, another --experiment begins anew",
                         epochs + 1)
        _logger.info("%s, %.1f M parameters, on %d training and %d validation images of %s classes; %d epochs of %d "
                     "updates in %s", args.model, sum(p.numel() for p in model.parameters()) / 1e6, len(data_train),
                     len(data_eval), model.num_classes, epochs, updates_per_epoch, folder)

    loss_fn, teacher = _loss(args, world, model.num_classes, data_config)
    if world.is_main:
        _make_folder(folder, args, state, after_failure)
    report = Report(folder, args, world.is_main, epochs)
    options = StepOptions(
        autocast, args.grad_accum_steps, args.clip_grad, args.clip_mode, args.model_ema_steps,
        args.warmup_epochs if args.model_ema_adjust else 0, args.skip_nonfinite, args.seed, world.rank, teacher,
        naflex.loss_scale(args))
    save = partial(_save, state, store, about, world)

    def on_update(state: TrainState, progress: Progress) -> None:
        report.update(state, progress)
        stop = stopped.on_any_rank()
        if stop or (args.recovery_interval and state.updates % args.recovery_interval == 0):
            save(None)
        if stop:
            raise _Stopped

    common = len(data_eval) // world.size // loader_eval.batch_size  # batches that every process has

    def on_evaluated(batch: int, _: int) -> None:
        """Before a stop, the epoch is saved as trained and not yet measured."""
        if (world.size == 1 or batch <= common) and stopped.on_any_rank():
            state.epoch, state.batch, state.sums = epoch, len(loader), {"loss": measured["loss"], "images": 1}
            save(None)
            raise _Stopped

    try:
        while state.epoch < epochs:
            epoch = state.epoch
            if args.mixup_off_epoch and epoch >= args.mixup_off_epoch:
                loader.mixup_enabled = False
            report.start_epoch(epoch, len(loader), state.batch)
            rate = state.learning_rate
            measured = train_one_epoch(state, loader, loss_fn, options, on_update)
            row = {"epoch": epoch, "train_loss": measured["loss"],
                   **_evaluate(args, state, loader_eval, autocast, on_evaluated),
                   "lr": rate, "images_per_second": round(measured["images_per_second"], 2)}
            _list_bad_samples(loader, "training")
            _list_bad_samples(loader_eval, "validation")
            state.history.append(row)
            metric = row[f"{ranked_model(row)}_{args.eval_metric}"]
            if scheduler is not None:
                scheduler.step(epoch + 1, metric)
            save(metric)
            report.end_epoch(state.history)
            if state.epoch < epochs and stopped.on_any_rank():
                raise _Stopped
    except _Stopped:
        if world.is_main:
            command = "mvlib" if world.size == 1 else f"torchrun --nproc-per-node {world.size} -m mvlib"
            _logger.warning("stopped by %s in epoch %d; %s holds the state, and '%s train --resume %s' goes on",
                            stopped.name, state.epoch, store.newest(), command, shlex.quote(str(folder)))
        return EXIT_STOPPED
    except NonFiniteLossError as error:
        last = next(iter(find_checkpoints(folder)), None)
        raise NonFiniteLossError(f"{error}; the last good checkpoint is {last or 'none yet'}") from None
    finally:
        report.close()
    if world.is_main:
        _finish(args, store, epochs)
    return 0


def _notice(args: argparse.Namespace, scheduler: Any, epochs: int) -> None:
    """A line for each argument that does not do what it seems to."""
    if scheduler is not None and args.warmup_epochs >= epochs:
        _logger.warning("%d epochs of training, all of them warmup (--warmup-epochs %g): the learning rate never "
                        "reaches --lr; --warmup-epochs 0 begins with it", epochs, args.warmup_epochs)
    if args.workers > (fitting := fitting_workers(args.workers)):
        _logger.info("--workers %d on %d cores: as many workers as cores", args.workers, fitting)


class _Stopped(Exception):
    """A signal asked for the end, and the state is saved."""


class _Stop:
    """Whether a signal asked this process, or one that trains with it, to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.since = 0.0

    def __call__(self, number: int, frame: Any) -> None:
        if self.signal is None:
            self.signal, self.since = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self.since > _TWICE:  # a person who will not wait
            raise KeyboardInterrupt

    @property
    def name(self) -> str:
        return signal.Signals(self.signal).name if self.signal is not None else "another process"

    def on_any_rank(self) -> bool:
        if not is_parallel():
            return self.signal is not None
        flag = torch.tensor(float(self.signal is not None))
        if torch.distributed.get_backend() == "nccl":
            flag = flag.cuda()
        return sum_over_ranks(flag).item() > 0


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    stop = _Stop()
    try:
        old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: signals are the caller's business
        old = {}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


# data


def _datasets(args: argparse.Namespace) -> tuple[Any, Any]:
    if not args.data_dir and not args.dataset:
        raise ConfigError("no data set: give its folder, or --dataset")
    common = dict(class_map=args.class_map, download=args.dataset_download, batch_size=args.batch_size,
                  seed=args.seed, trust_remote_code=args.dataset_trust_remote_code)
    keys = dict(input_key=args.input_key, target_key=args.target_key)
    common.update({key: value for key, value in keys.items() if value})
    make = partial(create_dataset, args.dataset, root=args.data_dir, **common)
    data_eval = make(split=args.val_split, is_training=False, num_samples=args.val_num_samples)
    if args.test_only:
        return data_eval, data_eval
    return make(split=args.train_split, is_training=True, num_samples=args.train_num_samples,
                repeats=args.epoch_repeats), data_eval


def _keep_numbers(where: Any, classes: Sequence[str] | None, datasets: Sequence[Any]) -> list[str] | None:
    """Have the data sets number their classes as the weights do; those, in their order, if that is another one.

    Raises:
        ConfigError: The weights are of other classes.
    """
    try:
        order = match_classes(datasets[0].classes, [classes] if classes else [])
    except ConfigError as error:
        raise ConfigError(f"{where} was trained on other classes: {error}") from None
    for dataset in datasets:
        dataset.target_transform = order and Relabel(order)
    if order is None:
        return None
    _logger.info("%s numbers the same classes in another order, which is kept", where)
    return list(classes)


def _begin_with_classes(
    args: argparse.Namespace, model: nn.Module, datasets: Sequence[Any]
) -> list[str] | None:
    """The order of classes that the weights to begin with bring, if they are of these classes."""
    names = model.weights_config.label_names
    if getattr(model, "base_weights", None) is None or not names or len(names) != model.num_classes:
        return None
    where = args.initial_checkpoint or args.pretrained_path or args.model
    try:
        return _keep_numbers(where, names, datasets)
    except ConfigError as error:
        _logger.info("%s; its classifier learns the new ones", error)
        return None


def _train_loader(
    args: argparse.Namespace, dataset: Any, config: Mapping[str, Any], model: nn.Module, world: World
) -> Any:
    if args.aug_splits:
        dataset = AugMixDataset(dataset, num_splits=args.aug_splits)
    interpolation = config["interpolation"] if args.no_aug or not args.train_interpolation \
        else args.train_interpolation
    common: dict[str, Any] = dict(
        batch_size=args.batch_size, no_aug=args.no_aug,
        re_prob=args.reprob, re_mode=args.remode, re_count=args.recount, re_split=args.resplit,
        train_crop_mode=args.train_crop_mode, scale=tuple(args.scale), ratio=tuple(args.ratio), hflip=args.hflip,
        vflip=args.vflip, color_jitter=args.color_jitter, color_jitter_prob=args.color_jitter_prob,
        grayscale_prob=args.grayscale_prob or 0.0, gaussian_blur_prob=args.gaussian_blur_prob or 0.0,
        auto_augment=_policy(args), interpolation=interpolation, mean=config["mean"], std=config["std"],
        num_workers=fitting_workers(args.workers), distributed=world.size > 1, pin_memory=args.pin_mem or None,
        device=world.device, use_prefetcher=not args.no_prefetcher, worker_seeding=args.worker_seeding, seed=args.seed,
        max_bad=args.max_bad_samples)
    if args.naflex_loader:
        return naflex.train_loader(args, dataset, config, model, world, common)
    mixup = None
    if args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax:
        # timm's script mixes before images are normalised and erased, torchvision's after
        kind = partial(Mixup, rolled=True) if args.dialect == "torchvision" else \
            Mixup if args.no_prefetcher else FastCollateMixup
        mixup = kind(
            mixup_alpha=args.mixup, cutmix_alpha=args.cutmix, cutmix_minmax=args.cutmix_minmax, prob=args.mixup_prob,
            switch_prob=args.mixup_switch_prob, mode=args.mixup_mode, label_smoothing=args.smoothing,
            num_classes=model.num_classes)
    if args.dialect == "torchvision":
        common["preprocessing"] = "torchvision"
    return create_loader(
        dataset, input_size=config["input_size"], is_training=True, num_aug_repeats=int(args.aug_repeats),
        num_aug_splits=args.aug_splits, use_multi_epochs_loader=args.use_multi_epochs_loader, mixup=mixup, **common)


def _policy(args: argparse.Namespace) -> str | None:
    """The augmentation policy; torchvision's script says the strength of its own beside them."""
    strengths = {"ra": args.ra_magnitude, "augmix": args.augmix_severity} if args.dialect == "torchvision" else {}
    return f"{args.aa}-m{strengths[args.aa]}" if args.aa in strengths else args.aa


def _eval_config(args: argparse.Namespace, config: Mapping[str, Any]) -> dict[str, Any]:
    """How validation images are prepared: as the model's weights say, or as torchvision's script does."""
    config = dict(config)
    channels = config["input_size"][0]
    if args.val_img_size:
        config["input_size"] = (channels, args.val_img_size, args.val_img_size)
    if args.val_resize_size:
        config.update(preprocessing="torchvision", resize_size=args.val_resize_size, crop_mode="center",
                      crop_pct=config["input_size"][-1] / args.val_resize_size)
    return config


def _eval_loader(
    args: argparse.Namespace, dataset: Any, config: Mapping[str, Any], model: nn.Module, world: World
) -> Any:
    batch_size = args.validation_batch_size or args.batch_size
    if args.naflex_loader:
        return naflex.eval_loader(args, dataset, config, model, batch_size=batch_size, distributed=world.size > 1,
                                  device=world.device, seed=args.seed)
    special = {key: config[key] for key in ("preprocessing", "resize_size", "antialias") if key in config}
    return create_loader(
        dataset, input_size=config["input_size"], batch_size=batch_size, is_training=False,
        interpolation=config["interpolation"], mean=config["mean"], std=config["std"],
        num_workers=fitting_workers(args.workers), distributed=world.size > 1, crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"], pin_memory=args.pin_mem or None, device=world.device,
        use_prefetcher=not args.no_prefetcher, seed=args.seed, max_bad=args.max_bad_samples, **special)


def _list_bad_samples(loader: Any, what: str) -> None:
    bad = loader.bad_samples
    if bad:
        shown = "".join(f"\n  {name}: {reason}" for name, reason in bad[:20])
        _logger.warning("%d %s images could not be read in this epoch:%s%s", len(bad), what, shown,
                        f"\n  and {len(bad) - 20} more" if len(bad) > 20 else "")


# optimizer, schedule, loss


def _optimizer(args: argparse.Namespace, model: nn.Module, world: World) -> torch.optim.Optimizer:
    if args.lr is None:
        images = args.batch_size * args.grad_accum_steps * world.size
        args.lr = scale_learning_rate(args.lr_base, images, args.lr_base_size, args.lr_base_scale, args.opt)
        if world.is_main:
            _logger.info("learning rate %.4g for %d images an update, from %.4g for %d", args.lr, images, args.lr_base,
                         args.lr_base_size)
    kwargs = optimizer_kwargs(args)
    if args.dialect == "torchvision":
        name = args.opt.lower()
        kwargs["opt"] = {"sgd": "momentum", "sgd_nesterov": "nesterov"}.get(name, name)
        if name == "rmsprop":
            kwargs.update(eps=0.0316, alpha=0.9)
    groups = {name: getattr(args, f"{name}_weight_decay") for name in ("norm", "bias", "embedding")}
    if any(value is not None for value in groups.values()):
        kwargs["param_group_fn"] = partial(_decay_groups, weight_decay=args.weight_decay, **groups)
    return create_optimizer_v2(model, filter_bias_and_bn=args.filter_bias_and_bn, **{**kwargs, **args.opt_kwargs})


_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm,
          nn.LocalResponseNorm)
_EMBEDDINGS = ("cls_token", "class_token", "pos_embed", "pos_embedding", "position_embedding",
               "relative_position_bias_table")


def _decay_groups(
    model: nn.Module, weight_decay: float, norm: float | None, bias: float | None, embedding: float | None
) -> list[dict[str, Any]]:
    """Parameter groups with a weight decay each: norms, biases, embeddings, the rest. torchvision's rules."""
    groups: dict[float, list[nn.Parameter]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            decay = weight_decay
            if bias is not None and name == "bias":
                decay = bias
            elif embedding is not None and name in _EMBEDDINGS:
                decay = embedding
            elif norm is not None and isinstance(module, _NORMS):
                decay = norm
            group = groups.setdefault(decay, [])
            if not any(parameter is other for other in group):
                group.append(parameter)
    return [{"params": parameters, "weight_decay": decay} for decay, parameters in groups.items()]


def _scheduler(args: argparse.Namespace, optimizer: torch.optim.Optimizer, updates_per_epoch: int) -> tuple[Any, int]:
    kwargs = scheduler_kwargs(args, decreasing_metric=args.eval_metric == "loss")
    if args.dialect == "torchvision":  # --epochs counts warmup, and what follows has the rest
        kwargs["num_epochs"] = max(args.epochs - args.warmup_epochs, 1)
    scheduler, epochs = create_scheduler_v2(optimizer, **kwargs, updates_per_epoch=updates_per_epoch)
    if args.dialect == "torchvision":
        epochs = args.epochs
    return scheduler, epochs


def _loss(
    args: argparse.Namespace, world: World, num_classes: int, config: Mapping[str, Any]
) -> tuple[nn.Module, nn.Module | None]:
    mixes = args.mixup > 0 or args.cutmix > 0 or bool(args.cutmix_minmax)
    loss = create_loss(
        jsd=args.jsd_loss, num_splits=args.aug_splits, mixup_active=mixes, smoothing=args.smoothing,
        bce_loss=args.bce_loss, bce_target_thresh=args.bce_target_thresh, bce_sum=args.bce_sum,
        bce_pos_weight=args.bce_pos_weight).to(world.device)
    if not args.teacher:
        return loss, None
    teacher = create_model(args.teacher, pretrained=None if args.teacher_checkpoint else True,
                           checkpoint_path=args.teacher_checkpoint, num_classes=num_classes)
    wanted = resolve_data_config(model=teacher)
    if any(abs(a - b) > 1e-6 for key in ("mean", "std") for a, b in zip(config[key], wanted[key])):
        teacher = nn.Sequential(_Renormalize(config, wanted), teacher)
    teacher = teacher.to(world.device).eval().requires_grad_(False)
    return DistillationLoss(loss, args.distill_alpha, args.distill_temperature, args.distill_type), teacher


class _Renormalize(nn.Module):
    """Images normalised by one mean and standard deviation -> by those that a teacher was trained with."""

    def __init__(self, own: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        super().__init__()
        mean, std, to_mean, to_std = (torch.tensor(config[key]).view(-1, 1, 1)
                                      for config in (own, wanted) for key in ("mean", "std"))
        self.register_buffer("scale", std / to_std)
        self.register_buffer("shift", (mean - to_mean) / to_std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.shift.to(x.dtype), x, self.scale.to(x.dtype))


# evaluation, checkpoints, output


def _evaluate(
    args: argparse.Namespace, state: TrainState, loader: Any, autocast: Any, on_batch: Callable[[int, int], None]
) -> dict[str, float]:
    model = unwrap(state.model)
    if args.dist_bn:
        distribute_bn(model, args.dist_bn == "reduce")
    measure = partial(validate, loader=loader, autocast=autocast, on_batch=on_batch, tta=args.tta)
    row = {f"eval_{key}": value for key, value in measure(model).items()}
    if state.ema is not None:
        average = state.ema.module
        home, device = (next(m.parameters()).device for m in (average, model))
        average.to(device)  # kept on the CPU, it takes the room that gradients had
        if args.dist_bn:
            distribute_bn(average, args.dist_bn == "reduce")
        row.update({f"ema_{key}": value for key, value in measure(average).items() if key != "images"})
        average.to(home)
    row.pop("eval_images")
    return row


def _test_only(
    args: argparse.Namespace, model: nn.Module, dataset: Any, loader: Any, autocast: Any, world: World
) -> int:
    if args.resume:
        found = newest_checkpoint(args.resume)
        if found is None:
            raise CheckpointError(f"there is no checkpoint in {args.resume}")
        _keep_numbers(found[0], found[1].get("classes"), [dataset])
        load_checkpoint(model, found[0])
    measured = validate(model, loader, autocast=autocast, tta=args.tta)
    if world.is_main:
        print(json.dumps(measured))
    return 0


def _folder(args: argparse.Namespace, model: nn.Module, config: Mapping[str, Any], world: World) -> Path:
    """The run's folder, the same on all processes and after each of torchrun's restarts."""
    folder = None
    if world.is_main:
        base = Path(args.output or "output/train")
        given = Path(args.resume) if args.resume and args.resume != "auto" else None
        name = args.experiment
        note = _torchrun_note(args)
        if given is not None and not name and not args.output:
            folder = given if given.is_dir() else given.parent
        elif name or args.dialect == "torchvision" and args.output:
            folder = base / name
        elif world.restarts and note.exists():
            folder = base / note.read_text(encoding="utf-8")
        else:
            if args.resume == "auto":
                raise ConfigError("--resume without a path goes on with an --experiment, and none is named")
            size = config["input_size"][-1]
            folder = base / f"{time.strftime('%Y%m%d-%H%M%S')}-{model.architecture}-{size}"
        if not args.resume and not world.restarts and find_checkpoints(folder):
            folder = ConfigError(f"{folder} already holds a run: --resume goes on with it, and another --experiment "
                                 f"begins a new one")
    folder = broadcast_object(folder)
    if isinstance(folder, Exception):
        raise folder
    return folder


def _make_folder(
    folder: Path, args: argparse.Namespace, state: TrainState, after_failure: contextlib.ExitStack
) -> None:
    """Make the run's folder; where the run fails before its first update, it goes again."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    updates = state.updates

    def remove() -> None:
        if missing and state.updates == updates and not find_checkpoints(folder):
            shutil.rmtree(folder, ignore_errors=True)
            for path in missing[1:]:
                with contextlib.suppress(OSError):  # another run is there already
                    path.rmdir()

    after_failure.callback(remove)
    folder.mkdir(parents=True, exist_ok=True)
    note = _torchrun_note(args)
    if "TORCHELASTIC_RUN_ID" in os.environ and folder.parent == note.parent:
        write_text(note, folder.name)


def _torchrun_note(args: argparse.Namespace) -> Path:
    """Where processes of torchrun read which folder those had that they replace: all of them share a parent."""
    return Path(args.output or "output/train",
                f".torchrun-{os.environ.get('TORCHELASTIC_RUN_ID')}-{os.getppid()}")


def _describe_run(
    args: argparse.Namespace, model: nn.Module, classes: Sequence[str] | None, eval_config: Mapping[str, Any],
    world: World, epochs: int,
) -> dict[str, Any]:
    """What a checkpoint says of its run, as plain data."""
    return {
        **describe_model(model), "classes": classes, **({"label_set": None} if classes else {}), "epochs": epochs,
        "data_config": {key: list(value) if isinstance(value, tuple) else value for key, value in eval_config.items()},
        "args": dict(vars(args)), "version": 2, "world_size": world.size,
        "images_per_batch": world.size * args.batch_size,
    }


def _save(
    state: TrainState, store: CheckpointStore | None, about: Mapping[str, Any], world: World, metric: float | None
) -> None:
    """Save the end of an epoch (with its metric) or, without, a point within one. All processes call it."""
    sums = state.sums
    if is_parallel():  # each process goes on with its share of what all have seen
        total = torch.tensor([sums["loss"], sums["images"]], dtype=torch.float64)
        total = sum_over_ranks(total.to(world.device)) / world.size
        sums = dict(zip(("loss", "images"), total.tolist()))
    if store is None:
        return
    data = {**state.state_dict(), **about, "sums": sums}
    if metric is None:
        store.save_recovery(data, state.epoch, state.batch)
    else:
        store.save_epoch({**data, "metric": metric}, state.epoch - 1, metric)


def _resume(
    args: argparse.Namespace, state: TrainState, store: CheckpointStore | None, folder: Path, about: dict[str, Any],
    datasets: Sequence[Any], world: World, updates_per_epoch: int,
) -> None:
    here = newest_checkpoint(folder) if folder.exists() and (world.restarts or args.resume == "auto") else None
    own = here if world.restarts else None  # --resume and --start-epoch were for the first start
    where = folder if args.resume == "auto" else args.resume
    found = here or (newest_checkpoint(where) if where and where is not folder else None)
    if found is not None:
        with_optimizer = own is not None or not args.no_resume_opt
        _take_up(args, state, store, folder, about, datasets, world, updates_per_epoch, with_optimizer, *found)
    elif where and world.is_main:
        _logger.info("no checkpoint in %s: training begins", where)
    if args.start_epoch is not None and own is None:
        state.begin_at(args.start_epoch, args.start_epoch * updates_per_epoch)
        if found is None and state.ema is not None:
            state.ema.n_averaged.fill_(state.updates // args.model_ema_steps)


def _take_up(
    args: argparse.Namespace, state: TrainState, store: CheckpointStore | None, folder: Path, about: dict[str, Any],
    datasets: Sequence[Any], world: World, updates_per_epoch: int, with_optimizer: bool, path: Path,
    data: dict[str, Any],
) -> None:
    is_ours = "sums" in data
    if not is_ours:
        data = _from_timm(data, updates_per_epoch, args.model_ema_steps)
    _check_fits(path, data, about, unwrap(state.model))
    about.update({key: data[key] for key in ("license", "base") if key in data})  # whence these weights came
    about["classes"] = _keep_numbers(path, data.get("classes"), datasets) or about["classes"]
    changed = [f"{key}: {old!r} -> {about['args'][key]!r}" for key, old in _saved_arguments(data).items()
               if key in about["args"] and about["args"][key] != old
               and key not in ("resume", "output", "experiment", "config", "workers", "device", "data_dir")]
    try:
        state.load_state_dict(data, with_optimizer)
    except ConfigError as error:
        reasons = [change for change in changed if change.partition(":")[0] in _MAKE_GROUPS]
        raise ConfigError(f"{path}: {error}" + (f"; arguments differ, {'; '.join(reasons)}" if reasons else "")
                          + ". --no-resume-opt goes on without the optimizer's state") from None
    if store is not None and "store" in data and path.parent.resolve() == folder.resolve():
        store.load_state_dict(data["store"])
        kept = {*store.metrics, data["epoch"] - 1 if "metric" in data else None}
        store.metrics = {row["epoch"]: row[f"{ranked_model(row)}_{args.eval_metric}"]  # perhaps another one than before
                         for row in data["history"] if row["epoch"] in kept}
    if world.is_main:
        _logger.info("going on from %s: epoch %d, batch %d; all weights are its", path, state.epoch, state.batch)
        if with_optimizer and "optimizer" not in data:
            _logger.warning("%s holds no optimizer's state: it begins anew", path)
        if changed and is_ours:
            _logger.warning("arguments differ from the checkpoint's: %s", "; ".join(changed))
        unheeded = [name for name in _OF_THE_OPTIMIZER if any(change.startswith(f"{name}:") for change in changed)]
        if unheeded and is_ours and with_optimizer:
            _logger.warning("the optimizer goes on with the checkpoint's %s; --no-resume-opt begins with those given",
                            ", ".join(unheeded))


def _saved_arguments(data: Mapping[str, Any]) -> dict[str, Any]:
    saved = data.get("args") or {}
    return dict(saved) if isinstance(saved, dict) else vars(saved)


_MAKE_GROUPS = ("opt", "weight_decay", "layer_decay", "layer_decay_min_scale", "layer_decay_no_opt_scale", "freeze",
                "norm_weight_decay", "bias_weight_decay", "embedding_weight_decay")
_OF_THE_OPTIMIZER = ("lr", "momentum", "weight_decay", "opt_eps", "opt_betas")


def _from_timm(data: Mapping[str, Any], updates_per_epoch: int, ema_steps: int) -> dict[str, Any]:
    """A checkpoint that timm's script wrote at the end of an epoch, in our terms.

    timm counts neither updates nor those of the average: both follow from the epoch. What it saves within an epoch
    stands, as there, for the whole epoch.
    """
    begun = data.get("version", 1) < 2  # once the number was the next epoch's
    epoch = data["epoch"] + (not begun) if "epoch" in data else 0
    weights = {key: strip_wrappers(data[key]) for key in ("state_dict", "state_dict_ema") if data.get(key)}
    updates = epoch * updates_per_epoch
    return {**data, **weights, "epoch": epoch, "batch": 0, "updates": updates, "ema_updates": updates // ema_steps,
            "skipped": 0, "sums": {"loss": 0.0, "images": 0.0}, "history": []}


def _check_fits(path: Path, data: Mapping[str, Any], about: Mapping[str, Any], model: nn.Module) -> None:
    arch = data.get("arch")
    if arch is not None and resolve_name(str(arch))[0] != about["arch"]:
        raise ConfigError(f"{path} is a checkpoint of '{arch}', and this run trains '{about['arch']}'")
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    theirs = {key: tuple(value.shape) for key, value in data["state_dict"].items()}
    if own != theirs:
        key = next(key for key in [*own, *theirs] if own.get(key) != theirs.get(key))
        raise ConfigError(f"{path} does not fit the model: '{key}' is {theirs.get(key, 'missing')} in the checkpoint "
                          f"and {own.get(key, 'missing')} in the model; the model's arguments have to be the same")
    if data.get("batch") and data["images_per_batch"] != about["images_per_batch"]:
        raise ConfigError(
            f"{path} was taken in the middle of an epoch, by {data['world_size']} processes with "
            f"{data['images_per_batch'] // data['world_size']} images each; this run has {about['world_size']} with "
            f"{about['images_per_batch'] // about['world_size']}. Use as many in all, or resume from the end of an "
            f"epoch (checkpoint-*.pth.tar)")


def _finish(args: argparse.Namespace, store: CheckpointStore, epochs: int) -> None:
    """Export the best epoch's weights, those that were measured, from its checkpoint."""
    best = store.best()
    if best is None:
        _logger.warning("no epoch of this run is saved in %s: there is nothing to export", store.folder)
        return
    epoch, path = best
    _logger.info("best %s: %.4g, in epoch %d", args.eval_metric, store.metrics[epoch], epoch)
    if args.no_export:
        return
    data = read_checkpoint(path)
    row = data["history"][-1]
    kind = ranked_model(row)
    metrics = {"validation": {name: round(row[f"{kind}_{name}"], 4) for name in ("top1", "top5")}}
    trained = {"epoch": epoch, "epochs": epochs, "eval_metric": args.eval_metric, "average": kind == "ema"}
    model = create_model(data["arch"], checkpoint_path=path)
    if kind == "eval":  # of two models that it may hold, the one that was measured
        load_checkpoint(model, path, use_ema=False)
    save_for_hub(model, store.folder / "export", metrics=metrics, trained=trained)
    _logger.info("the weights of epoch %d are a repository: create_model('local-dir:%s')", epoch,
                 store.folder / "export")
