"""What training needs of torch.distributed; with one process everything here is a no-op."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..devices import find_device
from ..errors import ConfigError

__all__ = ["World", "broadcast_object", "init_world", "is_parallel", "mean_over_ranks", "sum_over_ranks"]


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Attributes:
        rank, size: Its number, and how many there are.
        local_rank: Its number on this machine.
        device: Where it computes.
        restarts: How often torchrun has restarted the group.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    restarts: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def init_world(device: str | None = None) -> World:
    """Join the group that torchrun's environment names, if there is one.

    Args:
        device: "cuda", "cuda:1", "cpu", ...; unless given, cuda where there is one.

    Raises:
        ConfigError: The device does not exist here.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.device(name) if re.fullmatch(r"cuda(:\d+)?", name) else find_device(name)
    if where.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"--device {device}: there is no GPU that torch can use; --device cpu trains on the CPU")
        index = where.index if where.index is not None else local_rank if size > 1 else torch.cuda.current_device()
        if index >= torch.cuda.device_count():
            raise ConfigError(f"process {local_rank} wants GPU {index}, and there are {torch.cuda.device_count()}")
        where = torch.device("cuda", index)
        torch.cuda.set_device(where)
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if size > 1 and not dist.is_initialized():
        backend = "nccl" if where.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=_meeting_place(restarts), rank=rank, world_size=size,
                                device_id=where if where.type == "cuda" else None)
    return World(rank, size, local_rank, where, restarts)


def _meeting_place(restarts: int) -> dist.Store:
    """Where the processes leave each other their addresses.

    torchrun keeps one store over its restarts, so a quick process would find the address of one that is dead. Under
    one agent all processes count the same restarts, and each count gets its own corner. Agents on several machines
    count differently; TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun gives them a new store each time.
    """
    store, _, _ = next(dist.rendezvous("env://"))
    store.set_timeout(dist.default_pg_timeout)
    one_agent = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return dist.PrefixStore(f"attempt {restarts}", store) if one_agent else store


def is_parallel() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, in place."""
    if is_parallel():
        dist.all_reduce(tensor)
    return tensor


@torch.no_grad()
def mean_over_ranks(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their mean over all processes."""
    if is_parallel():
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor.div_(dist.get_world_size())


def broadcast_object(value: Any) -> Any:
    """What the first process holds."""
    if not is_parallel():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
