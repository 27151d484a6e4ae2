"""Adafactor: the running mean of squares of a matrix is kept as its row and column means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from .batch import LOW_PRECISION, Batch, BatchOptimizer, Group, State, cautious, decay_

__all__ = ["Adafactor", "AdafactorBigVision"]

Dims = tuple[int, int] | None
_MOMENTUM_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def _new_squares(shape: Sequence[int], dims: Dims, like: dict[str, Any]) -> State:
    """Zero means of squares: over each of `dims` in turn, or of every element if None."""
    if dims is None:
        return {"exp_avg_sq": torch.zeros(shape, **like)}
    rows, columns = ([1 if i == dim else size for i, size in enumerate(shape)] for dim in reversed(dims))
    return {"exp_avg_sq_row": torch.zeros(rows, **like), "exp_avg_sq_col": torch.zeros(columns, **like)}


def _inverse_root(squares: Tensor, state: State, dims: Dims, rate: float) -> Tensor:
    """Take squared gradients into the means, at `rate`, and give one over the root of what they say of each element."""
    if dims is None:
        return state["exp_avg_sq"].lerp_(squares, rate).rsqrt()
    first, second = dims
    rows = state["exp_avg_sq_row"].lerp_(squares.mean(dim=second, keepdim=True), rate)
    columns = state["exp_avg_sq_col"].lerp_(squares.mean(dim=first, keepdim=True), rate)
    return (rows / rows.mean(dim=first, keepdim=True)).rsqrt() * columns.rsqrt()


def _rms(tensor: Tensor) -> Tensor:
    return tensor.norm() / tensor.numel() ** 0.5


def _limited(update: Tensor, threshold: float | None) -> Tensor:
    """The update with a root mean square of `threshold` at most."""
    return update if threshold is None else update / (_rms(update) / threshold).clamp(min=1.0)


class Adafactor(BatchOptimizer):
    """Adafactor (https://arxiv.org/abs/1804.04235) as fairseq has it, factored over a convolution's channels.

    Args:
        lr: Learning rate. None: it follows from the step and (`scale_parameter`) from the weight's size; the group's
            "lr" then shows the last one used.
        eps: Added to squared gradients.
        eps_scale: Least size of a weight for `scale_parameter`.
        clip_threshold: Bound of the update's root mean square.
        decay_rate: Squares decay with 1 - step ** decay_rate.
        betas: The first is the momentum's; None is no momentum. There is no second.
        warmup_init: Without lr: begin at 1e-6 and rise with the step.
        min_dim_size_to_factor: A matrix is factored if both its sides are above this.

    Raises:
        ConfigError: `warmup_init` together with lr.
    """

    def __init__(
        self, params: Any, lr: float | None = None, eps: float = 1e-30, eps_scale: float = 1e-3,
        clip_threshold: float = 1.0, decay_rate: float = -0.8, betas: tuple[float, float] | None = None,
        weight_decay: float = 0.0, scale_parameter: bool = True, warmup_init: bool = False,
        min_dim_size_to_factor: int = 16, caution: bool = False, foreach: bool | None = None,
    ) -> None:
        if warmup_init and lr is not None:
            raise ConfigError("Adafactor: warmup_init is for the learning rate that it sets itself, with lr=None")
        super().__init__(
            params, lr=lr, eps=eps, eps_scale=eps_scale, clip_threshold=clip_threshold, decay_rate=decay_rate,
            betas=betas, weight_decay=weight_decay, scale_parameter=scale_parameter, relative_step=lr is None,
            warmup_init=warmup_init, min_dim_size_to_factor=min_dim_size_to_factor, caution=caution, foreach=foreach)

    def state_dtype(self, name: str, p: Tensor, group: Group) -> torch.dtype:
        return torch.float32 if p.dtype in LOW_PRECISION else p.dtype

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        groups = [dict(group) for group in state_dict["param_groups"]]
        for group in groups:
            if "beta1" in group:  # timm's; the second one is of no use
                beta1 = group.pop("beta1")
                group["betas"] = None if beta1 is None else (beta1, 0.999)
        super().load_state_dict({**state_dict, "param_groups": groups})

    def from_timm(self, p: Tensor, state: State, group: Group) -> None:
        state.pop("RMS", None)
        dims = self._dims(p.shape, group["min_dim_size_to_factor"])
        for name, dim in zip(("exp_avg_sq_col", "exp_avg_sq_row"), dims or ()):
            if name in state and state[name].ndim == p.ndim - 1:  # timm drops the dimension of a mean
                state[name] = state[name].unsqueeze(dim)

    def to_timm(self, p: Tensor, state: State, group: Group) -> None:
        dims = self._dims(p.shape, group["min_dim_size_to_factor"])
        for name, dim in zip(("exp_avg_sq_col", "exp_avg_sq_row"), dims or ()):
            state[name] = state[name].squeeze(dim)

    def state_dict(self) -> dict[str, Any]:
        saved = super().state_dict()
        groups = [{**group, "beta1": group["betas"][0] if group["betas"] else None} for group in saved["param_groups"]]
        return {**saved, "param_groups": groups}  # timm has the first of the betas alone

    @staticmethod
    def _dims(shape: Sequence[int], least: int) -> Dims:
        """The channels of a convolution, else the last two dimensions, if both are above `least`."""
        pairs = [(0, 1)] if len(shape) > 2 else []
        pairs += [(len(shape) - 2, len(shape) - 1)] if len(shape) > 1 else []
        return next((pair for pair in pairs if min(shape[i] for i in pair) > least), None)

    def init_state(self, p: Tensor, group: Group) -> State:
        like = dict(dtype=self.state_dtype("", p, group), device=p.device)
        state = _new_squares(p.shape, self._dims(p.shape, group["min_dim_size_to_factor"]), like)
        return state if group["betas"] is None else {**state, "exp_avg": torch.zeros(p.shape, **like)}

    def _lr(self, p: Tensor, step: int, group: Group) -> float:
        if group["relative_step"]:
            lr = min(1e-6 * step if group["warmup_init"] else 1e-2, 1.0 / math.sqrt(step))
            group["lr"] = lr * (max(group["eps_scale"], _rms(p).item()) if group["scale_parameter"] else 1.0)
        return group["lr"]

    def update(self, batch: Batch, group: Group) -> None:
        rate = batch.step ** group["decay_rate"]
        for p, grad, state in zip(batch.params, batch.grads, batch.states):
            weight, grad = (t.float() if p.dtype in LOW_PRECISION else t for t in (p, grad))
            lr = self._lr(weight, batch.step, group)
            dims = self._dims(p.shape, group["min_dim_size_to_factor"])
            change = _inverse_root(grad**2 + group["eps"], state, dims, rate) * grad
            change = _limited(change, group["clip_threshold"]) * lr
            if group["betas"] is not None:
                change = state["exp_avg"].lerp_(change, 1 - group["betas"][0])
                if group["caution"]:
                    change = cautious([change], [grad])[0]
            weight.mul_(1 - lr * group["weight_decay"])
            weight.sub_(change)
            if weight is not p:
                p.copy_(weight)


class AdafactorBigVision(BatchOptimizer):
    """Adafactor as google-research/big_vision has it, with momentum in half precision (https://arxiv.org/abs/2106.04560).

    Args:
        min_dim_size_to_factor: A tensor is factored over its two largest sides if both have this size.
        decay_rate: Squares decay with 1 - step ** -decay_rate, at most `beta2_cap`; steps count from `decay_offset`.
        momentum: None is no momentum.
        momentum_dtype: Type of the momentum, or its name.
        eps: Added to squared gradients; None is 1e-30, or 1e-7 in float16.
        clipping_threshold: Bound of the update's root mean square; None is none.
        unscaled_wd: Weight decay does not scale with the learning rate.
    """

    def __init__(
        self, params: Any, lr: float = 1.0, min_dim_size_to_factor: int = 16, decay_rate: float = 0.8,
        decay_offset: int = 0, beta2_cap: float = 0.999, momentum: float | None = 0.9,
        momentum_dtype: str | torch.dtype = torch.bfloat16, eps: float | None = None, weight_decay: float = 0.0,
        clipping_threshold: float | None = None, unscaled_wd: bool = False, caution: bool = False,
        corrected_weight_decay: bool = False, foreach: bool | None = None,
    ) -> None:
        if isinstance(momentum_dtype, str):
            if momentum_dtype not in _MOMENTUM_DTYPES:
                raise ConfigError(f"AdafactorBigVision: momentum_dtype '{momentum_dtype}' is not one of "
                                  f"{', '.join(_MOMENTUM_DTYPES)}")
            momentum_dtype = _MOMENTUM_DTYPES[momentum_dtype]
        super().__init__(
            params, lr=lr, min_dim_size_to_factor=min_dim_size_to_factor, decay_rate=decay_rate,
            decay_offset=decay_offset, beta2_cap=beta2_cap, momentum=momentum, momentum_dtype=momentum_dtype, eps=eps,
            weight_decay=weight_decay, clipping_threshold=clipping_threshold, unscaled_wd=unscaled_wd,
            caution=caution, corrected_weight_decay=corrected_weight_decay, foreach=foreach)

    def state_dtype(self, name: str, p: Tensor, group: Group) -> torch.dtype:
        return group["momentum_dtype"] if name == "exp_avg" else p.dtype

    def from_timm(self, p: Tensor, state: State, group: Group) -> None:
        for name, timms in (("exp_avg_sq_row", "exp_avg_sq_r"), ("exp_avg_sq_col", "exp_avg_sq_c")):
            if timms in state:
                state[name] = state.pop(timms)

    def to_timm(self, p: Tensor, state: State, group: Group) -> None:
        for name, timms in (("exp_avg_sq_row", "exp_avg_sq_r"), ("exp_avg_sq_col", "exp_avg_sq_c")):
            if name in state:
                state[timms] = state.pop(name)

    @staticmethod
    def _dims(shape: Sequence[int], least: int) -> Dims:
        """The two largest dimensions, the larger one last, if both have size `least`."""
        if len(shape) < 2:
            return None
        second, first = sorted(range(len(shape)), key=lambda i: (shape[i], i))[-2:]
        return (second, first) if shape[second] >= least else None

    def init_state(self, p: Tensor, group: Group) -> State:
        dims = self._dims(p.shape, group["min_dim_size_to_factor"])
        state = _new_squares(p.shape, dims, dict(dtype=p.dtype, device=p.device))
        if group["momentum"] is not None:
            state["exp_avg"] = torch.zeros_like(p, dtype=group["momentum_dtype"])
        return state

    def update(self, batch: Batch, group: Group) -> None:
        step = max(batch.step - group["decay_offset"], 1)
        rate = 1 - min(group["beta2_cap"], 1 - float(step) ** -group["decay_rate"])
        for p, grad, state in zip(batch.params, batch.grads, batch.states):
            eps = group["eps"] if group["eps"] is not None else 1e-7 if grad.dtype == torch.float16 else 1e-30
            dims = self._dims(p.shape, group["min_dim_size_to_factor"])
            change = _limited(grad * _inverse_root(grad.square() + eps, state, dims, rate), group["clipping_threshold"])
            if group["momentum"] is not None:
                mean = state["exp_avg"].lerp_(change.to(state["exp_avg"].dtype), 1 - group["momentum"])
                change = mean.to(grad.dtype)
                if group["caution"]:
                    change = cautious([change], [grad])[0]
            if group["unscaled_wd"]:
                share = batch.lr / group["max_lr_snapshot"] if group["corrected_weight_decay"] else 1.0
                p.mul_(1 - share * group["weight_decay"])
            else:
                decay_(Batch(batch.lr, batch.step, [p]), group)
            p.sub_(change * batch.lr)
