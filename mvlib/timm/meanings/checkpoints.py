"""timm's reading of checkpoints into models."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import _IncompatibleKeys

from ... import loading
from ...errors import CheckpointError
from ...layers.helpers import named_parameters
from ...optim.resume import resume_optimizer

__all__ = [
    "clean_state_dict", "load_checkpoint", "load_state_dict", "read_training_checkpoint", "remap_state_dict",
    "resume_checkpoint", "resume_optimizer_state",
]

_logger = logging.getLogger("mvlib")

PathLike = str | os.PathLike[str]
StateDict = dict[str, Any]


def clean_state_dict(state_dict: Mapping[str, Any]) -> StateDict:
    """A state dict without the prefixes of DistributedDataParallel and torch.compile, nested in either order."""
    cleaned = {}
    for key, value in state_dict.items():
        for prefix in ("_orig_mod.", "module.", "_orig_mod."):
            key = key.removeprefix(prefix)
        cleaned[key] = value
    return cleaned


def load_state_dict(
    checkpoint_path: PathLike, use_ema: bool = True, device: str | torch.device = "cpu", weights_only: bool = True
) -> StateDict:
    """The tensors of a weights file or training checkpoint, averaged ones first if they are there and wanted.

    Args:
        checkpoint_path: What `mvlib.read_state_dict` reads.
        use_ema: Prefer averaged weights.
        device: Where the tensors go.
        weights_only: Accepted for timm's sake: nothing in a pickle is ever run.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It cannot be read.
    """
    state_dict = loading.read_state_dict(checkpoint_path, use_ema)
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in state_dict.items()}


def load_checkpoint(
    model: Any,
    checkpoint_path: PathLike,
    use_ema: bool = True,
    device: str | torch.device = "cpu",
    strict: bool = True,
    remap: bool = False,
    filter_fn: Callable[..., Any] | None = None,
    weights_only: bool = True,
) -> _IncompatibleKeys | None:
    """Load a file into a model; see `mvlib.load_checkpoint`, which this is without `remap` and `filter_fn`.

    Args:
        model: The model.
        checkpoint_path: The file. A `.npz` of JAX goes to the model's own `load_pretrained`, if it has one.
        use_ema: Prefer averaged weights.
        device: Where the file's tensors are read to.
        strict: Whether missing and unexpected keys are an error.
        remap: Give the tensors the model's names, in their order.
        filter_fn: `filter_fn(state_dict, model)` makes the state dict that is loaded.
        weights_only: Accepted for timm's sake: nothing in a pickle is ever run.

    Returns:
        (missing_keys, unexpected_keys).
    """
    if os.fspath(checkpoint_path).lower().endswith((".npz", ".npy")) and hasattr(model, "load_pretrained"):
        model.load_pretrained(checkpoint_path)
        return None
    if not remap and filter_fn is None:
        return loading.load_checkpoint(model, checkpoint_path, use_ema, strict)
    state_dict = load_state_dict(checkpoint_path, use_ema, device)
    if remap:
        state_dict = remap_state_dict(state_dict, model)
    elif filter_fn is not None:
        state_dict = filter_fn(state_dict, model)
    result: _IncompatibleKeys = model.load_state_dict(state_dict, strict=strict)
    return result


def remap_state_dict(state_dict: Mapping[str, Any], model: nn.Module, allow_reshape: bool = True) -> StateDict:
    """A state dict under the model's names, tensor by tensor in their order.

    Raises:
        AssertionError: A tensor has another number of elements than the model's, or another shape where it may not
            be reshaped.
    """
    remapped = {}
    for (name, own), (key, value) in zip(model.state_dict().items(), state_dict.items()):
        fits = own.numel() == value.numel() if allow_reshape else own.shape == value.shape
        if not fits:
            raise AssertionError(f"'{key}' of shape {tuple(value.shape)} cannot become '{name}' of {tuple(own.shape)}")
        remapped[name] = value.reshape(own.shape)
    return remapped


def read_training_checkpoint(path: PathLike) -> Any:
    """What a training script saved, its arguments among it; nothing in it is run.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It cannot be read: it is damaged, or holds objects that could run code.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch says of what lies there
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error


def resume_optimizer_state(
    optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], model: nn.Module, order: Iterable[str]
) -> None:
    """Load an optimizer's state, parameter by parameter also where the model has them in another order now.

    Args:
        optimizer: Of the model's parameters.
        saved: Its `state_dict()` then.
        model: The model.
        order: Names of the saved model's state dict, in their order.
    """
    names = {id(p): name for name, p in named_parameters(model)}
    known = set(names.values())
    then = [name for name in order if name in known]
    is_models = all(id(p) in names for group in optimizer.param_groups for p in group["params"])
    if is_models and len(then) == len(names) and then != list(names.values()):
        resume_optimizer(optimizer, saved, model, then)
    else:
        optimizer.load_state_dict(dict(saved))


def resume_checkpoint(
    model: nn.Module,
    checkpoint_path: PathLike,
    optimizer: torch.optim.Optimizer | None = None,
    loss_scaler: Any = None,
    log_info: bool = True,
    weights_only: bool = True,
) -> int | None:
    """Load a training checkpoint's model, and the states of optimizer and loss scaler where they are given.

    Returns:
        The epoch to go on with, None where the file does not say it.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It cannot be read: it is damaged, or holds objects that could run code.
    """
    checkpoint = read_training_checkpoint(checkpoint_path)
    if not (isinstance(checkpoint, dict) and "state_dict" in checkpoint):
        model.load_state_dict(checkpoint)
        return None
    model.load_state_dict(clean_state_dict(checkpoint["state_dict"]))
    if optimizer is not None and "optimizer" in checkpoint:
        resume_optimizer_state(optimizer, checkpoint["optimizer"], model, clean_state_dict(checkpoint["state_dict"]))
    if loss_scaler is not None and loss_scaler.state_dict_key in checkpoint:
        loss_scaler.load_state_dict(checkpoint[loss_scaler.state_dict_key])
    epoch: int | None = checkpoint.get("epoch")
    if log_info:
        _logger.info("resumed from %s, epoch %s", checkpoint_path, epoch)
    if epoch is not None and checkpoint.get("version", 0) > 1:  # older ones had counted it up before they were saved
        epoch += 1
    return epoch
