"""Which types a device computes in, and where the narrow ones do not pay."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import ConfigError
from ..precisions import INSTRUCTIONS, PRECISIONS, processor_features
from .wiring import parents_of, record_calls, replace

__all__ = [
    "InFloat32",
    "ProductAttention",
    "check_precision",
    "keep_measured_in_float32",
    "keep_slow_convolutions_in_float32",
    "prefers_product_attention",
    "slowdown",
    "supported_dtypes",
    "time_both",
    "why_not",
]

_logger = logging.getLogger("mvlib")

_SCORES_LIMIT = 1 << 27  # elements: attention maps beyond 256 MiB are not held at once


def supported_dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """The types that the device computes in, and not slower than in float32."""
    return tuple(dtype for dtype in (getattr(torch, name) for name in PRECISIONS) if why_not(dtype, device) is None)


def check_precision(dtype: torch.dtype, device: torch.device, force: bool = False) -> None:
    """Refuse a type in which the device is slower than in float32; with `force`, log that it is, and go on.

    Raises:
        ConfigError: It is slower, and not forced; or it is no type to compute in.
    """
    reason = why_not(dtype, device)
    if reason is None:
        return
    if dtype not in (getattr(torch, name) for name in PRECISIONS):
        raise ConfigError(reason)
    if not force:
        raise ConfigError(f"{reason}; float32 is the type to take (--force, or force=True, goes on all the same)")
    _say_once(f"{reason}: going on, as asked")


@functools.cache
def _say_once(line: str) -> None:
    _logger.warning(line)


def why_not(dtype: torch.dtype, device: torch.device) -> str | None:
    """Why computing in a type does not pay on a device; None where it does."""
    name = str(dtype).removeprefix("torch.")
    if name not in PRECISIONS:
        return f"{device.type} here does not compute in {name}; known: {', '.join(PRECISIONS)}"
    if dtype is torch.float32 or device.type in ("mps", "xpu"):
        return None
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
        return None if dtype is torch.float16 or has_bfloat16 else f"this GPU has no instructions for {name}"
    if device.type != "cpu":
        return f"{device.type} here does not compute in {name}"
    features, wanted = processor_features(), INSTRUCTIONS[name]
    if features is not None and features.isdisjoint(wanted):
        return f"the processor has no instructions for {name} ({', '.join(wanted[:2])})"
    factor = slowdown(dtype)
    return None if factor <= 1 else \
        f"computing in {name} takes {factor:.1f} times as long as in float32 on this processor, as measured"


@functools.cache
def slowdown(dtype: torch.dtype) -> float:
    """Time of a small convolution and matrix product on the CPU in a type, over that in float32. Takes milliseconds."""
    def work(kind: torch.dtype) -> Callable[[], object]:
        matrix, images, weight = (torch.full(shape, 0.5, dtype=kind)
                                  for shape in ((256, 256), (4, 32, 28, 28), (32, 32, 3, 3)))
        images = images.contiguous(memory_format=torch.channels_last)
        return lambda: (F.linear(matrix, matrix), F.conv2d(images, weight, padding=1))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of several, one may wait for its core
    try:
        narrow, wide = time_both(work(dtype), work(torch.float32), repeats=7)
    finally:
        torch.set_num_threads(threads)
    return narrow / wide


def _is_slow_narrow(module: nn.Module) -> bool:
    """Depthwise convolutions for which oneDNN may have no good kernel but in float32."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


def keep_slow_convolutions_in_float32(model: nn.Module) -> nn.Module:
    """Leave depthwise convolutions that are strided or larger than 3 x 3 in float32 under a CPU's autocast, in place.

    oneDNN's bfloat16 kernels take two to five times as long as its float32 ones for their gradients. The rest of the
    model is untouched. Returns the model.
    """
    for module in model.modules():
        if _is_slow_narrow(module) and (max(module.kernel_size) > 3 or max(module.stride) > 1):
            module.forward = partial(_in_float32, module, type(module).forward)
    return model


def _in_float32(module: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(x.device.type):
        return forward(module, x)
    dtype = torch.get_autocast_dtype(x.device.type)
    with torch.autocast(x.device.type, enabled=False):
        return forward(module, x.float()).to(dtype)


class InFloat32(nn.Module):
    """A module whose weights are float32 in a model of a narrower type; key `inner`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.float()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.float()).to(x.dtype)


def keep_measured_in_float32(model: nn.Module, images: Tensor) -> tuple[int, int]:
    """Put depthwise convolutions back into float32, in place, where that is measured to be faster, with conversions.

    Args:
        model: Converted to a narrow type already.
        images: A batch of that type.

    Returns:
        How many were put back, and how many there are.
    """
    inputs: dict[int, tuple[nn.Module, Tensor]] = {}

    def note(module: nn.Module, x: Tensor, output: Tensor) -> None:
        if _is_slow_narrow(module):
            inputs[id(module)] = module, x

    record_calls(model, images, (nn.Conv2d,), note)
    places, verdicts, changed = parents_of(model), {}, 0
    for module, x in inputs.values():
        key = module.in_channels, module.out_channels, module.kernel_size, module.stride, module.dilation, x.shape
        if key not in verdicts:
            wide = InFloat32(_twin(module))
            verdicts[key] = is_faster(lambda: wide(x), lambda: module(x))  # noqa: B023  (called at once)
        if verdicts[key]:
            replace(places[id(module)], InFloat32(module))
            changed += 1
    return changed, len(inputs)


def _twin(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, to be changed: the parameters are copies, the object another one."""
    twin = type(conv).__new__(type(conv))
    twin.__dict__.update(conv.__dict__)
    twin._parameters = {name: None if value is None else nn.Parameter(value.detach().clone(), requires_grad=False)
                        for name, value in conv._parameters.items()}
    return twin


@torch.inference_mode()
def time_both(one: Callable[[], object], other: Callable[[], object], repeats: int = 3) -> tuple[float, float]:
    """Seconds that each takes: the best of a few runs that take turns."""
    best = [float("inf"), float("inf")]
    for number in range(repeats + 1):
        for which, work in enumerate((one, other)):
            started = time.perf_counter()
            work()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            if number:  # the first is for warming up
                best[which] = min(best[which], time.perf_counter() - started)
    return best[0], best[1]


def is_faster(one: Callable[[], object], other: Callable[[], object]) -> bool:
    """Whether `one` is measured to take less time than `other`."""
    first, second = time_both(one, other)
    return first < second


class ProductAttention(TorchFunctionMode):
    """Within it, attention is two matrix products around a softmax instead of torch's fused kernel.

    On CPUs without matrix tiles, the fused kernel multiplies small blocks with a slow routine; oneDNN's batched
    products in a narrow type take less than half of its time. What has dropout, a mask or a causal order, and maps
    that are too large to be held, stay with the fused kernel.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            inputs = _plain_inputs(*args, **(kwargs or {}))
            if inputs is not None:
                return _product_attention(*inputs)
        return func(*args, **(kwargs or {}))


def _plain_inputs(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> tuple[Tensor, Tensor, Tensor, float | None] | None:
    """What `_product_attention` takes, of a call of torch's function that it can stand for; torch's parameters."""
    is_plain = (attn_mask is None and not dropout_p and not is_causal and not enable_gqa and query.dim() == 4
                and query.dtype in (torch.bfloat16, torch.float16)
                and query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2] <= _SCORES_LIMIT)
    return (query, key, value, scale) if is_plain else None


def _product_attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    return scores.softmax(-1) @ v


def prefers_product_attention(model: nn.Module, images: Tensor) -> bool | None:
    """Whether `ProductAttention` is measured to be faster for the first attention of the model; None without any."""
    class Watch(TorchFunctionMode):
        seen: tuple[Tensor, Tensor, Tensor, float | None] | None = None

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is F.scaled_dot_product_attention and self.seen is None:
                self.seen = _plain_inputs(*args, **(kwargs or {}))
            return func(*args, **(kwargs or {}))

    with torch.inference_mode(), Watch() as watch:
        model(images)
    if watch.seen is None:
        return None
    query, key, value, scale = watch.seen
    return is_faster(lambda: _product_attention(query, key, value, scale),
                     lambda: F.scaled_dot_product_attention(query, key, value, scale=scale))
