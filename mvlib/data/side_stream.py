"""Work on the next batch beside the consumer's, on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch

__all__ = ["SideStream"]

T = TypeVar("T")


class SideStream:
    """A stream of `device` on which batches are made ready; without CUDA they are made ready when asked for.

    Args:
        enabled: False where there is nothing to do on the device.
    """

    def __init__(self, device: torch.device, enabled: bool = True) -> None:
        self.device = device
        self._stream: Any = torch.cuda.Stream(device) if enabled and device.type == "cuda" else None

    @property
    def is_active(self) -> bool:
        return self._stream is not None

    def ahead(self, items: Iterable[T], prepare: Callable[[T], Any]) -> Iterator[tuple[T, Any]]:
        """(item, prepare(item)) of each item; what is prepared is a tuple of tensors, or dicts of them, or None.

        On CUDA each is asked for before the one that precedes it is given, so that both sides work at once.
        """
        if self._stream is None:
            for item in items:
                yield item, prepare(item)
            return
        prepared = (self._run(prepare, item) for item in items)
        for item, batch, ready in prepared:
            for following in prepared:
                yield item, self._hand_over(batch, ready)
                item, batch, ready = following
            yield item, self._hand_over(batch, ready)

    def _run(self, prepare: Callable[[T], Any], item: T) -> tuple[T, Any, Any]:
        with torch.cuda.stream(self._stream):
            return item, prepare(item), self._stream.record_event()

    def _hand_over(self, batch: Any, ready: Any) -> Any:
        """Make the consumer's stream wait for a batch, and its memory for the consumer."""
        consumer = torch.cuda.current_stream(self.device)
        consumer.wait_event(ready)
        for value in batch or ():
            for tensor in value.values() if isinstance(value, dict) else (value,):
                if isinstance(tensor, torch.Tensor):
                    tensor.record_stream(consumer)
        return batch
