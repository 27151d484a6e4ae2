"""Lookahead, a wrapper of any optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from ..errors import ConfigError

__all__ = ["Lookahead"]

_SLOW = "lookahead_slow_buff"


class Lookahead(Optimizer):
    """k steps forward, one back (https://arxiv.org/abs/1907.08610).

    Every `k` steps of the wrapped optimizer the parameters go back to a point between where they are and a slow copy,
    which goes there too. The slow copy is made at the first such step. Groups and state are the wrapped optimizer's,
    so that schedules and checkpoints need not know of the wrapper.

    Args:
        base_optimizer: The optimizer to wrap.
        alpha: How far the slow copy moves, 0 to 1.
        k: Steps between two moves.

    Raises:
        ConfigError: `alpha` or `k` is out of range.
    """

    def __init__(self, base_optimizer: Optimizer, alpha: float = 0.5, k: int = 6) -> None:
        if not 0 <= alpha <= 1 or k < 1:
            raise ConfigError(f"lookahead takes alpha in [0, 1] and k of at least 1, got {alpha} and {k}")
        super().__init__([{"params": []}], {})  # hooks; the groups are replaced at once
        self.base_optimizer = base_optimizer
        self._own = {"lookahead_alpha": alpha, "lookahead_k": k, "lookahead_step": 0}
        self._share()

    @property
    def is_second_order(self) -> bool:
        return getattr(self.base_optimizer, "is_second_order", False)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "base_optimizer": self.base_optimizer, "_own": self._own}

    def _share(self) -> None:
        self.param_groups, self.state = self.base_optimizer.param_groups, self.base_optimizer.state
        self.defaults = {**self.base_optimizer.defaults, **self._own}
        for group in self.param_groups:
            for name, value in self._own.items():
                group.setdefault(name, value)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if not hasattr(self, "base_optimizer"):  # the constructor of Optimizer
            return super().add_param_group(param_group)
        self.base_optimizer.add_param_group(param_group)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the wrapped optimizer, and every k-th time the move back."""
        loss = self.base_optimizer.step(closure)
        for group in self.param_groups:
            group["lookahead_step"] += 1
            if group["lookahead_step"] % group["lookahead_k"] == 0:
                self._move_back(group)
        return loss

    def sync_lookahead(self) -> None:
        """Move back now, as timm's training script does before it validates."""
        for group in self.param_groups:
            self._move_back(group)

    @torch.no_grad()
    def _move_back(self, group: dict[str, Any]) -> None:
        for p in group["params"]:
            if p.grad is not None:
                state = self.state[p]
                if _SLOW not in state:
                    state[_SLOW] = p.detach().clone()
                p.copy_(state[_SLOW].add_(p - state[_SLOW], alpha=group["lookahead_alpha"]))

    def state_dict(self) -> dict[str, Any]:
        return self.base_optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also takes the state of the wrapped optimizer alone."""
        self.base_optimizer.load_state_dict(state_dict)
        self._share()
