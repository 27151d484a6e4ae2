"""The model of a training run."""

from __future__ import annotations

import argparse
import inspect
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..data.config import resolve_data_config
from ..errors import ConfigError
from ..factory import create_model, known_arguments
from ..loading import read_training_facts
from ..memory import reuse_freed_memory
from ..names import closest, parse_model_name
from ..optimization.layout import is_convolutional
from ..registry import check_is_classifier, resolve_name
from .arguments import TORCHVISION_INPUTS
from .batchnorm import convert_splitbn_model, convert_sync_batchnorm
from .distributed import World
from .ema import ModelEma
from .precision import keep_slow_convolutions_in_float32

__all__ = ["average_model", "build_model", "prepare_model", "wrap_model"]

_logger = logging.getLogger("mvlib")


def build_model(
    args: argparse.Namespace, class_names: Sequence[str] | None, world: World
) -> tuple[nn.Module, dict[str, Any]]:
    """The model that the arguments name, ready for an optimizer, and how its training images are prepared.

    Args:
        args: Arguments of training.
        class_names: The data set's, if it knows them: as many outputs, unless `num_classes` says otherwise.
        world: This process.

    Raises:
        ConfigError: Arguments that the model does not know, or that contradict each other.
        WeightsError: Weights to begin with cannot be had or do not fit.
    """
    name = args.model
    if args.weights:
        tag = args.weights.rpartition(".")[2]
        name = name if tag.upper() == "DEFAULT" else f"{resolve_name(name)[0]}.{tag.lower()}"
    parsed = parse_model_name(name)
    begins = args.initial_checkpoint or args.pretrained_path or None
    says_inputs = bool(read_training_facts(begins).get("data_config")) if begins else args.pretrained and parsed.source
    if args.dialect == "torchvision" and not says_inputs:
        for key, value in TORCHVISION_INPUTS.items():
            if getattr(args, key) in (None, ""):
                setattr(args, key, value)
    check_is_classifier(name, "train")
    known = known_arguments(name)
    side = args.input_size[1:] if args.input_size else args.img_size
    classes = args.num_classes or (len(class_names) if class_names else None)
    extra = dict(img_size=tuple(side) if isinstance(side, list) else side) \
        if side and "img_size" in (known or ()) else {}
    model = create_model(
        name, pretrained=bool(args.pretrained or args.weights),
        checkpoint_path=begins,
        num_classes=classes, in_chans=args.in_chans or (args.input_size[0] if args.input_size else None),
        drop_rate=args.drop or None,
        drop_path_rate=args.drop_path if args.drop_path is not None else args.drop_connect,
        drop_block_rate=args.drop_block, global_pool=args.gp, **{**extra, **args.model_kwargs})
    if args.num_classes and class_names and len(class_names) > args.num_classes:
        raise ConfigError(f"--num-classes {args.num_classes}, and the data set has {len(class_names)} classes")
    if (parsed.source or parsed.tag) and not (args.pretrained or args.weights or begins) and world.is_main:
        _logger.info("%s names weights, but without --pretrained training begins at random, as timm's does", name)
    _initialise_head(model, args)
    _set_batch_norm(model, args)
    _freeze(model, args)
    if args.grad_checkpointing:
        model.set_grad_checkpointing(True)
    wanted = {key: value for key, value in vars(args).items() if value not in (None, "")}
    data_config = resolve_data_config({**wanted, "in_chans": model.in_chans}, model=model)
    if args.dialect == "torchvision" and not says_inputs:
        data_config.pop("preprocessing", None)
    if args.split_bn:
        convert_splitbn_model(model, max(args.aug_splits, 2))
    if args.sync_bn and world.size > 1:
        if world.device.type != "cuda":
            raise ConfigError("--sync-bn needs GPUs: torch has no synchronised batch norm for the CPU")
        convert_sync_batchnorm(model)
    return prepare_model(model, world.device, args.channels_last), data_config


def prepare_model(
    model: nn.Module, device: torch.device, channels_last: bool | None = None, mixed: bool = False
) -> nn.Module:
    """Put a model where it is trained, in the memory layout that is quickest.

    Args:
        model: Changed in place, and returned.
        device: Where it is trained.
        channels_last: Layout of 4-d tensors; None for what suits the model.
        mixed: Whether it runs under autocast.
    """
    if device.type == "cpu":
        reuse_freed_memory()
        if mixed:
            keep_slow_convolutions_in_float32(model)
    if channels_last if channels_last is not None else is_convolutional(model):
        model = model.to(memory_format=torch.channels_last)
    return model.to(device)


def _initialise_head(model: Any, args: argparse.Namespace) -> None:
    with torch.no_grad():
        for head in map(model.get_submodule, model.logits_paths):
            if args.head_init_scale is not None:
                head.weight.mul_(args.head_init_scale)
                head.bias.mul_(args.head_init_scale)
            if args.head_init_bias is not None:
                head.bias.fill_(args.head_init_bias)


def _set_batch_norm(model: nn.Module, args: argparse.Namespace) -> None:
    if args.bn_eps is not None:
        if "bn_eps" not in (known_arguments(model.architecture) or ()):
            raise ConfigError(f"--bn-eps: '{model.architecture}' has no such argument, so that nobody who loads what "
                              f"was trained could be told of it")
        model.model_args["bn_eps"] = args.bn_eps
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = args.bn_momentum if args.bn_momentum is not None else module.momentum
            module.eps = args.bn_eps if args.bn_eps is not None else module.eps


def _freeze(model: nn.Module, args: argparse.Namespace) -> None:
    names = list(args.freeze)
    if args.freeze_stages:
        stages = model.flow.stages
        if args.freeze_stages > len(stages):
            raise ConfigError(f"--freeze-stages {args.freeze_stages}, and {args.model} has {len(stages)} stages")
        names += [step.name for step in model.flow.stem + stages[:args.freeze_stages]]
        names += [name for name, _ in model.named_parameters(recurse=False)]  # position embeddings, class tokens
    for name in names:
        path, bracket, limits = name.removesuffix("]").partition("[")
        paths = [f"{path}.{i}" for i in range(*map(int, limits.split(":")))] if bracket else [name]
        for one in paths:
            parameters = dict(model.named_parameters())
            below = [p for key, p in parameters.items() if key == one or key.startswith(f"{one}.")]
            if not below and name in args.freeze:
                modules = [key for key, _ in model.named_modules() if key]
                raise ConfigError(f"--freeze {name}: {args.model} has no such module with parameters"
                                  f"{closest(name, modules) or ''}")
            for parameter in below:
                parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("everything is frozen: there is nothing to train")


def wrap_model(args: argparse.Namespace, model: nn.Module, world: World) -> nn.Module:
    """The model as the loop calls it: in DistributedDataParallel, compiled."""
    if world.size > 1:
        ids = [world.device] if world.device.type == "cuda" else None
        known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.13
        model = nn.parallel.DistributedDataParallel(model, device_ids=ids, **{name: not args.no_ddp_bb})
    if args.torchcompile:
        model = torch.compile(model, backend=args.torchcompile, mode=args.torchcompile_mode)
    return model


def average_model(args: argparse.Namespace, model: nn.Module, world: World) -> ModelEma:
    """The average of the weights that the arguments ask for."""
    decay = args.model_ema_decay
    if args.model_ema_adjust:  # torchvision's: the same half-life in epochs whatever the batch size
        adjust = world.size * args.batch_size * args.model_ema_steps / args.epochs
        decay = 1.0 - min(1.0, (1.0 - decay) * adjust)
    return ModelEma(model, decay, args.model_ema_warmup, "cpu" if args.model_ema_force_cpu else None)
