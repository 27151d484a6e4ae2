"""Randomness that belongs to a sample: the same draws in whichever process and order samples are read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch

__all__ = ["reseed", "sample_seed", "seeded"]


def sample_seed(*numbers: int) -> int:
    """A 64-bit seed from numbers such as (seed, epoch, index, copy): any change gives an unrelated one."""
    words = b"".join(number.to_bytes(16, "little", signed=True) for number in numbers)
    return int.from_bytes(blake2b(words, digest_size=8).digest(), "little")


def reseed(seed: int) -> None:
    """Seed Python's `random`, numpy's and torch's CPU generators: what `seeded` does, without the way back."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's `random`, numpy's and torch's CPU generators, and put their states back at the end.

    What runs inside sees the same draws wherever it runs; what runs after (dropout in the training process) sees
    none of it.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    reseed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
