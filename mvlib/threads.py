"""Cores, and the threads that compute on them. Imports no torch."""

from __future__ import annotations

import os
import sys

__all__ = ["compute_threads", "cpu_count", "fitting_workers", "let_waiting_threads_sleep"]

# What GNU's and Intel's OpenMP go by; torch's wheels have GNU's on Linux. More rounds cost more on a busy machine: of
# steps with 2 spinning processes on 2 cores, 100 took a tenth of the default's time, 3,000 a quarter, 10,000 a third.
_SPIN_LITTLE = {"GOMP_SPINCOUNT": "100", "KMP_BLOCKTIME": "0"}
_OWN_CHOICE = (*_SPIN_LITTLE, "OMP_WAIT_POLICY")


def cpu_count() -> int:
    """Cores for this process: those that it may use, shared with the others that torchrun started here."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(count // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


def compute_threads() -> int:
    """Cores for a model: as `cpu_count`, or as many as OMP_NUM_THREADS allows."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # of nested levels, the first
    return min(int(asked), cpu_count()) if asked.isdecimal() and int(asked) else cpu_count()


def fitting_workers(wanted: int) -> int:
    """As many processes as are wanted, but no more than cores, on which they would wait for each other."""
    return min(wanted, cpu_count())


def let_waiting_threads_sleep() -> bool:
    """Have threads of OpenMP that wait for each other sleep soon instead of spinning for milliseconds.

    Where other processes want the cores, a thread that spins keeps the one from its core that it waits for, and a model
    takes several times as long. On an idle machine, waking costs some microseconds a layer: next to nothing of a
    training step of 16 images, up to a tenth where images are few and small (benchmarks/spinning.py). OpenMP reads this
    when it is loaded: call it before torch is imported. Child processes inherit it.

    Returns:
        Whether it was set: not after torch's import, nor where the environment says anything of it.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _OWN_CHOICE):
        return False
    os.environ.update(_SPIN_LITTLE)
    return True
