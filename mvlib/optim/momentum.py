"""Optimizers that follow the (scaled) mean gradient: SGD's relatives, Lion, MADGRAD, TensorFlow's RMSprop."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from . import each
from .batch import Batch, BatchOptimizer, Group, State, Tensors, cautious, decay_, trust_ratios

__all__ = ["MADGRAD", "SGDP", "SGDW", "Lars", "Lion", "RMSpropTF", "project"]


def accumulate(batch: Batch, updates: Tensors, group: Group) -> Tensors:
    """torch.optim.SGD's momentum: what to subtract, `updates` added to the buffers (which they start)."""
    momentum = group["momentum"]
    if not momentum:
        return updates
    if "momentum_buffer" not in batch.states[0]:
        batch.replace("momentum_buffer", [update.clone() for update in updates])
        buffers = batch["momentum_buffer"]
    else:
        buffers = batch["momentum_buffer"]
        each.mul_(buffers, momentum)
        each.add_(buffers, updates, alpha=1 - group["dampening"])
    return list(each.add(updates, buffers, alpha=momentum)) if group["nesterov"] else buffers


class SGDW(BatchOptimizer):
    """SGD with decoupled weight decay (https://arxiv.org/abs/1711.05101)."""

    def __init__(
        self, params: Any, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
        nesterov: bool = False, *, caution: bool = False, corrected_weight_decay: bool = False, maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov,
            caution=caution, corrected_weight_decay=corrected_weight_decay, maximize=maximize, foreach=foreach)

    def update(self, batch: Batch, group: Group) -> None:
        decay_(batch, group)
        updates = accumulate(batch, batch.grads, group)
        if group["caution"] and group["momentum"]:
            updates = cautious(updates, batch.grads)
        each.add_(batch.params, updates, alpha=-batch.lr)


class Lars(BatchOptimizer):
    """LARS (https://arxiv.org/abs/1708.03888); with `trust_clip` LARC, which never raises the learning rate.

    Args:
        trust_coeff: Share of a weight's norm that one update may have.
        always_adapt: Scale the parameters without weight decay too.
    """

    def __init__(
        self, params: Any, lr: float = 1.0, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
        nesterov: bool = False, trust_coeff: float = 0.001, eps: float = 1e-8, trust_clip: bool = False,
        always_adapt: bool = False, foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov,
            trust_coeff=trust_coeff, eps=eps, trust_clip=trust_clip, always_adapt=always_adapt, foreach=foreach)

    def update(self, batch: Batch, group: Group) -> None:
        updates = batch.grads
        if group["weight_decay"] or group["always_adapt"]:
            ratios = self._ratios(batch, group)
            updates = list(each.add(updates, batch.params, alpha=group["weight_decay"]))
            each.mul_(updates, ratios)
        each.add_(batch.params, accumulate(batch, updates, group), alpha=-batch.lr)

    def _ratios(self, batch: Batch, group: Group) -> Tensors:
        decay, eps = group["weight_decay"], group["eps"]
        ratios = trust_ratios(batch.params, batch.grads,
                              lambda weight, grad: group["trust_coeff"] * weight / (grad + decay * weight + eps))
        return list((ratios / batch.lr).clamp(max=1.0) if group["trust_clip"] else ratios)


class Lion(BatchOptimizer):
    """Lion, the sign of an interpolated momentum (https://arxiv.org/abs/2302.06675)."""

    slots = ("exp_avg",)

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0,
        caution: bool = False, corrected_weight_decay: bool = False, maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, weight_decay=weight_decay, caution=caution,
            corrected_weight_decay=corrected_weight_decay, maximize=maximize, foreach=foreach)

    def update(self, batch: Batch, group: Group) -> None:
        decay_(batch, group)
        beta1, beta2 = group["betas"]
        averages = batch["exp_avg"]
        updates = list(each.lerp(averages, batch.grads, 1 - beta1))
        each.sign_(updates)
        if group["caution"]:
            updates = cautious(updates, batch.grads)
        each.add_(batch.params, updates, alpha=-batch.lr)
        each.lerp_(averages, batch.grads, 1 - beta2)


class MADGRAD(BatchOptimizer):
    """MADGRAD, dual averaging with a cube root (https://arxiv.org/abs/2101.11075)."""

    slots = ("grad_sum_sq", "s")

    def __init__(
        self, params: Any, lr: float = 1e-2, momentum: float = 0.9, weight_decay: float = 0.0, eps: float = 1e-6,
        decoupled_decay: bool = False, foreach: bool | None = None,
    ) -> None:
        if not (lr > 0 and 0 <= momentum < 1):
            raise ConfigError(f"MADGRAD takes lr > 0 and momentum in [0, 1), got {lr} and {momentum}")
        super().__init__(
            params, lr=lr, momentum=momentum, weight_decay=weight_decay, eps=eps, decoupled_decay=decoupled_decay,
            foreach=foreach)

    def init_state(self, p: Tensor, group: Group) -> State:
        state = super().init_state(p, group)
        return {**state, "x0": p.detach().clone()} if group["momentum"] else state

    def update(self, batch: Batch, group: Group) -> None:
        sums, squares, eps = batch["s"], batch["grad_sum_sq"], group["eps"]
        grads = batch.grads
        if group["decoupled_decay"]:
            decay_(batch, group)
        elif group["weight_decay"]:
            grads = each.add(grads, batch.params, alpha=group["weight_decay"])
        weight = (batch.lr + eps) * math.sqrt(batch.step)
        # without momentum the starting point is not kept: it follows from where the parameters are
        points = list(batch["x0"] if group["momentum"] else self._shift(batch.params, sums, squares, eps, 1.0))
        each.addcmul_(squares, grads, grads, value=weight)
        each.add_(sums, grads, alpha=weight)
        points = self._shift(points, sums, squares, eps, -1.0)
        each.lerp_(batch.params, points, 1 - group["momentum"])

    @staticmethod
    def _shift(points: Tensors, sums: Tensors, squares: Tensors, eps: float, sign: float) -> Tensors:
        roots = each.pow(squares, 1 / 3)
        each.add_(roots, eps)
        return each.addcdiv(points, sums, roots, value=sign)


class RMSpropTF(BatchOptimizer):
    """RMSprop as TensorFlow has it, which the EfficientNet and MobileNet recipes were tuned with.

    Unlike torch.optim.RMSprop the running square starts at one, eps stands under the root, and (`lr_in_momentum`) the
    momentum buffer holds updates that are already multiplied by the learning rate.
    """

    def __init__(
        self, params: Any, lr: float = 1e-2, alpha: float = 0.9, eps: float = 1e-10, weight_decay: float = 0.0,
        momentum: float = 0.0, centered: bool = False, decoupled_decay: bool = False,
        corrected_weight_decay: bool = False, lr_in_momentum: bool = True, caution: bool = False,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered,
            decoupled_decay=decoupled_decay, corrected_weight_decay=corrected_weight_decay,
            lr_in_momentum=lr_in_momentum, caution=caution, foreach=foreach)

    def init_state(self, p: Tensor, group: Group) -> State:
        state = {"square_avg": torch.ones_like(p)}
        if group["momentum"]:
            state["momentum_buffer"] = torch.zeros_like(p)
        if group["centered"]:
            state["grad_avg"] = torch.zeros_like(p)
        return state

    def update(self, batch: Batch, group: Group) -> None:
        grads = batch.grads
        if group["decoupled_decay"]:
            decay_(batch, group)
        elif group["weight_decay"]:
            grads = list(each.add(grads, batch.params, alpha=group["weight_decay"]))
        roots = self._roots(batch, grads, group)
        if not group["momentum"]:
            each.addcdiv_(batch.params, grads, roots, value=-batch.lr)
            return
        inner, outer = (batch.lr, 1.0) if group["lr_in_momentum"] else (1.0, batch.lr)
        buffers = batch["momentum_buffer"]
        each.mul_(buffers, group["momentum"])
        each.addcdiv_(buffers, grads, roots, value=inner)
        updates = cautious(buffers, grads) if group["caution"] else buffers
        each.add_(batch.params, updates, alpha=-outer)

    def _roots(self, batch: Batch, grads: Tensors, group: Group) -> Tensors:
        squares, rate = batch["square_avg"], 1.0 - group["alpha"]
        each.add_(squares, each.sub(each.pow(grads, 2), squares), alpha=rate)
        if group["centered"]:
            means = batch["grad_avg"]
            each.add_(means, each.sub(grads, means), alpha=rate)
            squares = each.sub(squares, each.mul(means, means))
        return each.sqrt(each.add(squares, group["eps"]))


def project(
    p: Tensor, grad: Tensor, update: Tensor, delta: float, wd_ratio: float, eps: float, caution: bool
) -> tuple[Tensor, float]:
    """Take from an update what only lengthens the weight, where the loss does not depend on the weight's length.

    That is so where gradient and weight are near orthogonal: each output channel by itself, else the whole tensor
    (AdamP and SGDP, https://arxiv.org/abs/2006.08217). `caution` masks within the tangent space.

    Returns:
        (update, factor of the weight decay).
    """
    for rows in (p.shape[0], 1) if p.ndim > 1 else ():
        w, g, u = (t.reshape(rows, -1) for t in (p, grad, update))
        if F.cosine_similarity(g, w, dim=1, eps=eps).abs().max() >= delta / math.sqrt(w.shape[1]):
            continue
        unit = w / w.norm(dim=1, keepdim=True).add(eps)
        u = _tangent(u, unit)
        if caution:
            u = _tangent(cautious([u], [_tangent(g, unit)])[0], unit)
        return u.reshape(p.shape), wd_ratio
    return (cautious([update], [grad])[0] if caution else update), 1.0


def _tangent(rows: Tensor, unit: Tensor) -> Tensor:
    return rows - unit * (unit * rows).sum(dim=1, keepdim=True)


class SGDP(BatchOptimizer):
    """SGD whose updates do not lengthen scale-invariant weights (https://arxiv.org/abs/2006.08217).

    Args:
        delta: Bound of the cosine under which a weight counts as scale-invariant, before division by each.sqrt(size).
        wd_ratio: Weight decay of scale-invariant weights, relative to the others'.
    """

    slots = ("momentum",)

    def __init__(
        self, params: Any, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
        nesterov: bool = False, eps: float = 1e-8, delta: float = 0.1, wd_ratio: float = 0.1, caution: bool = False,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov,
            eps=eps, delta=delta, wd_ratio=wd_ratio, caution=caution, foreach=foreach)

    def update(self, batch: Batch, group: Group) -> None:
        momentum, buffers = group["momentum"], batch["momentum"]
        each.mul_(buffers, momentum)
        each.add_(buffers, batch.grads, alpha=1 - group["dampening"])
        updates = each.add(batch.grads, buffers, alpha=momentum) if group["nesterov"] else buffers
        for p, grad, update in zip(batch.params, batch.grads, updates):
            update, ratio = project(
                p, grad, update, group["delta"], group["wd_ratio"], group["eps"], group["caution"])
            p.mul_(1 - batch.lr * group["weight_decay"] * ratio / (1 - momentum))
            p.add_(update, alpha=-batch.lr)
