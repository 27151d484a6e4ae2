"""timm.utils: the small things that training scripts take from there."""

from __future__ import annotations

import argparse
import ast
import csv
import logging
import logging.handlers
import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from ...errors import ConfigError, MissingPackageError
from ...optim.clip import clip_grad as _clip_grad
from ...train import batchnorm

__all__ = [
    "ApexScaler", "AverageMeter", "FormatterNoInfo", "NativeScaler", "ParseKwargs", "accuracy", "add_bool_arg",
    "check_batch_size_retry", "decay_batch_step", "distribute_bn", "get_outdir", "init_distributed_device",
    "init_distributed_device_so", "is_distributed_env", "is_global_primary", "is_local_primary", "is_primary",
    "random_seed", "reduce_tensor", "set_jit_fuser", "set_jit_legacy", "setup_default_logging", "trim_summary",
    "update_summary", "world_info_from_env",
]

_logger = logging.getLogger("mvlib")


# command lines


def add_bool_arg(parser: argparse.ArgumentParser, name: str, default: bool = False, help: str = "") -> None:
    """Give a parser the two flags `--name` and `--no-name`, of which one at most is given."""
    destination = name.replace("-", "_")
    flags = parser.add_mutually_exclusive_group()
    flags.add_argument(f"--{name}", action="store_true", dest=destination, help=help)
    flags.add_argument(f"--no-{name}", action="store_false", dest=destination, help=help)
    parser.set_defaults(**{destination: default})


class ParseKwargs(argparse.Action):
    """An option of words key=value, as a dict; a value that is no Python literal is text."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        pairs = (word.split("=", 1) for word in values if word)
        setattr(namespace, self.dest, {key: _literal(text) for key, text in pairs})


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# messages and results


class FormatterNoInfo(logging.Formatter):
    """Messages of level INFO bare, others with their level."""

    def __init__(self, fmt: str = "%(levelname)s: %(message)s") -> None:
        super().__init__(fmt)

    def format(self, record: logging.LogRecord) -> str:
        return str(record.getMessage()) if record.levelno == logging.INFO else super().format(record)


def setup_default_logging(default_level: int = logging.INFO, log_path: str = "") -> None:
    """Send what is logged to the terminal and, where `log_path` is given, to a file of at most 2 MiB and 3 older."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    handlers[0].setFormatter(FormatterNoInfo())
    if log_path:
        handlers.append(logging.handlers.RotatingFileHandler(log_path, maxBytes=2 * 2 ** 20, backupCount=3))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s - %(name)20s: [%(levelname)8s] - %(message)s"))
    for handler in handlers:
        logging.root.addHandler(handler)
    logging.root.setLevel(default_level)


def get_outdir(path: str, *paths: str, inc: bool = False) -> str:
    """Make a folder and return its path; where it exists and `inc` is given, a new one with -1 to -99 behind the name.

    Raises:
        FileExistsError: All of those exist.
    """
    folder = os.path.join(path, *paths)
    if not os.path.exists(folder):
        os.makedirs(folder)
        return folder
    if not inc:
        return folder
    for number in range(1, 100):
        if not os.path.exists(numbered := f"{folder}-{number}"):
            os.makedirs(numbered)
            return numbered
    raise FileExistsError(f"{folder} and {folder}-1 to {folder}-99 exist already")


def update_summary(
    epoch: int, train_metrics: Mapping[str, Any], eval_metrics: Mapping[str, Any] | None, filename: str,
    lr: float | None = None, write_header: bool | None = None, log_wandb: bool = False,
) -> None:
    """Append a row of epoch, train_*, eval_* and lr to a CSV file.

    Args:
        write_header: Whether the names stand above the row; None where the file is new or empty.
        log_wandb: The row goes to Weights & Biases, too.
    """
    row = {"epoch": epoch, **{f"train_{name}": value for name, value in train_metrics.items()},
           **{f"eval_{name}": value for name, value in (eval_metrics or {}).items()}}
    if lr is not None:
        row["lr"] = lr
    if log_wandb:
        try:
            import wandb
        except ImportError:
            raise MissingPackageError("log_wandb needs the package wandb: pip install wandb") from None
        wandb.log(row)
    if write_header is None:
        write_header = not os.path.exists(filename) or os.path.getsize(filename) == 0
    with open(filename, "a") as stream:
        writer = csv.DictWriter(stream, row.keys())
        if write_header:
            writer.writeheader()
        writer.writerow(row)


def trim_summary(filename: str, start_epoch: int) -> None:
    """Drop from a CSV file of `update_summary` the epochs from `start_epoch` on, which will be trained again."""
    if not os.path.exists(filename):
        return
    with open(filename, newline="") as stream:
        rows = list(csv.reader(stream))
    kept = [row for row in rows[1:] if row and row[0] != "epoch" and int(float(row[0])) < start_epoch]
    dropped = len(rows) - 1 - len(kept)
    if dropped > 0:
        _logger.info("%s: %d rows of epochs from %d on are dropped", filename, dropped, start_epoch)
        with open(filename, "w", newline="") as stream:
            csv.writer(stream).writerows([rows[0], *kept] if kept else [])


class AverageMeter:
    """A running mean.

    Attributes:
        val: The last value.
        sum, count, avg: Sum of the values times their counts, sum of the counts, and their ratio.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self.val: Any = 0
        self.sum: Any = 0
        self.count: Any = 0
        self.avg: Any = 0

    def update(self, val: Any, n: int = 1) -> None:
        """Add the mean `val` of `n` values."""
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count if self.count else 0


def accuracy(output: Tensor, target: Tensor, topk: Sequence[int] = (1,)) -> list[Tensor]:
    """Percentage of labels (N,) among the k highest logits (N, classes), a scalar tensor for each k."""
    most = min(max(topk), output.shape[1])
    hits = output.topk(most, 1).indices == target.reshape(-1, 1)
    return [hits[:, :min(k, most)].float().sum() * 100.0 / len(target) for k in topk]


# batch sizes, seeds


def decay_batch_step(batch_size: int, num_intra_steps: int = 2, no_odd: bool = False) -> int:
    """The next smaller batch size to try: 0 after 1, else a multiple of the power of two below over `num_intra_steps`.

    Args:
        num_intra_steps: Steps from a power of two to the next.
        no_odd: No odd sizes.
    """
    if batch_size <= 1:
        return 0
    power = 2 ** int(math.log(batch_size - 1) // math.log(2))
    step = max(power // num_intra_steps, 1)
    smaller = power + (batch_size - power - 1) // step * step
    return smaller - smaller % 2 if no_odd else smaller


def check_batch_size_retry(error_str: str) -> bool:
    """Whether a smaller batch may help after an error of this text; not after illegal accesses and wrong layouts."""
    return not any(sign in error_str.lower() for sign in ("required rank", "illegal"))


def random_seed(seed: int = 42, rank: int = 0) -> None:
    """Seed torch's, NumPy's and Python's generators with `seed + rank`."""
    for set_seed in (torch.manual_seed, np.random.seed, random.seed):
        set_seed(seed + rank)


# mixed precision


class NativeScaler:
    """Backward pass, clipping and step under torch's gradient scaler, in one call.

    Attributes:
        state_dict_key: Key of its state in a checkpoint.
    """

    state_dict_key = "amp_scaler"

    def __init__(self, device: str = "cuda") -> None:
        self._scaler = torch.amp.GradScaler(device)

    def __call__(
        self, loss: Tensor, optimizer: Optimizer, clip_grad: float | None = None, clip_mode: str = "norm",
        parameters: Any = None, create_graph: bool = False, need_update: bool = True,
    ) -> None:
        """Scale the loss and go backward; with `need_update` also clip the gradients and step.

        Args:
            clip_grad: Bound of `dispatch_clip_grad`, which wants `parameters`; None for none.
            need_update: False while gradients are accumulated.

        Raises:
            ConfigError: `clip_grad` is given without `parameters`.
        """
        self._scaler.scale(loss).backward(create_graph=create_graph)
        if not need_update:
            return
        if clip_grad is not None:
            if parameters is None:
                raise ConfigError("NativeScaler: clip_grad needs the parameters whose gradients to clip")
            self._scaler.unscale_(optimizer)
            _clip_grad(parameters, clip_grad, mode=clip_mode)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return self._scaler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._scaler.load_state_dict(state_dict)


class ApexScaler:
    """Refuses: apex.amp, which timm's class wraps, is no longer a part of NVIDIA's apex."""

    state_dict_key = "amp"

    def __init__(self) -> None:
        raise MissingPackageError("apex.amp has been removed from NVIDIA's apex; NativeScaler does the same with torch")


# distributed training


def distribute_bn(model: nn.Module, world_size: int, reduce: bool = False) -> None:
    """Give all processes the running statistics of the first, or with `reduce` the mean of all."""
    batchnorm.distribute_bn(model, reduce)


def reduce_tensor(tensor: Tensor, n: int) -> Tensor:
    """The sum of a tensor over all processes, by `n`."""
    total = tensor.clone()
    dist.all_reduce(total)
    return total / n


def is_global_primary(args: Any) -> bool:
    """Whether this is the first process of all."""
    return args.rank == 0


def is_local_primary(args: Any) -> bool:
    """Whether this is the first process of its machine."""
    return args.local_rank == 0


def is_primary(args: Any, local: bool = False) -> bool:
    """Whether this is the first process, of its machine if `local`."""
    return is_local_primary(args) if local else is_global_primary(args)


_ENVIRONMENT = {  # what launchers call local rank, rank and size: torchrun, Intel MPI, Slurm, Open MPI
    "LOCAL_RANK": ("LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "RANK": ("RANK", "PMI_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"),
    "WORLD_SIZE": ("WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"),
}


def world_info_from_env() -> tuple[int, int, int]:
    """Local rank, rank and number of processes, as the launcher's environment says; (0, 0, 1) without one."""
    found = [next((int(os.environ[name]) for name in names if name in os.environ), None)
             for names in _ENVIRONMENT.values()]
    local_rank, rank, size = found
    return local_rank or 0, rank or 0, 1 if size is None else size


def is_distributed_env() -> bool:
    """Whether torchrun or Slurm has started more than one process."""
    size = os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", 1))
    return int(size) > 1


def init_distributed_device(args: Any) -> torch.device:
    """`init_distributed_device_so` with a script's arguments, which get what it found.

    Args:
        args: May have `device`, `dist_backend` and `dist_url`; `device`, `world_size`, `rank`, `local_rank` and
            `distributed` are set.
    """
    found = init_distributed_device_so(
        getattr(args, "device", "cuda"), getattr(args, "dist_backend", None), getattr(args, "dist_url", None))
    args.rank = found.pop("global_rank")
    for name, value in found.items():
        setattr(args, name, value)
    return torch.device(args.device)


_BACKENDS = {"cuda": "nccl", "xpu": "ccl", "hpu": "hccl", "npu": "hccl"}


def init_distributed_device_so(
    device: str = "cuda", dist_backend: str | None = None, dist_url: str | None = None
) -> dict[str, Any]:
    """Join the group that the environment names, if there is one, and choose this process's device.

    Args:
        device: Of several processes each takes the one of its local rank, whatever number is given.
        dist_backend: None for the device's usual one.
        dist_url: Where the processes meet; None for the environment's.

    Returns:
        device, global_rank, local_rank, world_size, distributed.

    Raises:
        ConfigError: A GPU is asked for and there is none.
    """
    kind, _, number = device.partition(":")
    distributed = is_distributed_env()
    local_rank, rank, size = world_info_from_env() if distributed else (0, 0, 1)
    if distributed:
        meeting: dict[str, Any] = {"backend": dist_backend or _BACKENDS.get(kind, "gloo"),
                                   "init_method": dist_url or "env://"}
        if "SLURM_PROCID" in os.environ:
            os.environ.update(LOCAL_RANK=str(local_rank), RANK=str(rank), WORLD_SIZE=str(size))
            meeting.update(rank=rank, world_size=size)
        dist.init_process_group(**meeting)
        rank, size = dist.get_rank(), dist.get_world_size()
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{device}': there is no GPU that torch can use")
    if distributed and device != "cpu":
        if number:
            _logger.warning("of several processes each takes its own device: '%s' is read as '%s'", device, kind)
        device = f"{kind}:{local_rank}"
    if device.startswith(("cuda:", "npu:")):
        getattr(torch, kind).set_device(device)
    return {"device": device, "global_rank": rank, "local_rank": local_rank, "world_size": size,
            "distributed": distributed}


# TorchScript


def set_jit_legacy() -> None:
    """Run TorchScript by the executor without profiling, with fusion on a GPU."""
    torch._C._jit_set_profiling_executor(False)
    torch._C._jit_set_profiling_mode(False)
    torch._C._jit_override_can_fuse_on_gpu(True)


def set_jit_fuser(fuser: str) -> None:
    """Choose what fuses TorchScript's operations: "te" (torch's default) or "old", also called "legacy".

    Raises:
        ConfigError: Another name; "nvfuser" is no longer a part of torch.
    """
    if fuser in ("nvfuser", "nvf"):
        raise ConfigError(f"fuser '{fuser}' has been removed from torch; take 'te'")
    if fuser not in ("te", "old", "legacy"):
        raise ConfigError(f"unknown fuser '{fuser}'; known: te, old, legacy")
    is_new = fuser == "te"
    switches: dict[Callable[[bool], Any], bool] = {
        torch._C._jit_set_profiling_executor: is_new, torch._C._jit_set_profiling_mode: is_new,
        torch._C._jit_override_can_fuse_on_gpu: True, torch._C._jit_set_texpr_fuser_enabled: is_new,
    }
    for switch, value in switches.items():
        switch(value)
    if is_new:
        torch._C._jit_override_can_fuse_on_cpu(False)
