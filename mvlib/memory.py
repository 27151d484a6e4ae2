"""Memory: the C library's allocator, set for tensors; whether an error means that there is too little. Imports no
torch."""

from __future__ import annotations

import ctypes
import functools
import sys

__all__ = ["is_out_of_memory", "reuse_freed_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # mallopt's names for them (malloc.h)


@functools.cache
def reuse_freed_memory() -> bool:
    """Let the process keep what it frees, so that the next tensor of that size finds pages that are there already.

    By default glibc gives each large block back to the kernel, and every step of a model pays again for pages of
    zeros: hundreds of thousands of page faults, up to half of a step's time on a CPU. The process's size then stays at
    its peak. Concerns CPU memory alone; does nothing where the C library is not glibc.

    Returns:
        Whether the allocator took the settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018  (musl has a mallopt, too, which does nothing)
    except (OSError, AttributeError):
        return False
    return all([mallopt(_MMAP_THRESHOLD, 1 << 30), mallopt(_TRIM_THRESHOLD, -1), mallopt(_TOP_PAD, 64 << 20)])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of Python or in torch's many words, says that memory was not enough."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and any(
        sign in words for sign in ("out of memory", "not enough memory", "can't allocate memory", "bad_alloc",
                                   "storage size calculation overflowed", "numel: integer multiplication overflow"))
