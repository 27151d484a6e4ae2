"""Optimizers that scale each element by a running mean of squares: Adam's relatives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from . import each
from .batch import (
    LOW_PRECISION,
    Batch,
    BatchOptimizer,
    Group,
    State,
    Tensors,
    cautious,
    decay_,
    root_mean,
    trust_ratios,
)
from .momentum import project

__all__ = [
    "AdaBelief", "AdamP", "AdamWLegacy", "Adan", "Adopt", "LaProp", "Lamb", "Mars", "NAdamLegacy", "NAdamW",
    "NvNovoGrad", "RAdamLegacy", "adam_update_",
]

Betas = tuple[float, float]


def observe_(batch: Batch, grads: Tensors, betas: Betas) -> tuple[Tensors, Tensors]:
    """Adam's two running means, of the gradients and of their squares, with `grads` taken in."""
    averages, squares = batch["exp_avg"], batch["exp_avg_sq"]
    each.lerp_(averages, grads, 1 - betas[0])
    each.mul_(squares, betas[1])
    each.addcmul_(squares, grads, grads, value=1 - betas[1])
    return averages, squares


def adam_update_(batch: Batch, group: Group, lr: float, nesterov: bool = False) -> None:
    """Adam's update without weight decay; `nesterov` looks one gradient ahead (https://arxiv.org/abs/1910.05446)."""
    beta1, beta2 = group["betas"]
    averages, squares = observe_(batch, batch.grads, group["betas"])
    if group.get("amsgrad"):
        each.maximum_(batch["max_exp_avg_sq"], squares)
        squares = batch["max_exp_avg_sq"]
    roots = root_mean(squares, beta2, batch.step, group["eps"])
    if group.get("clipping_threshold") is not None:
        _limit_(roots, batch.grads, group["clipping_threshold"])
    if nesterov:
        averages = each.lerp(averages, batch.grads, 1 - beta1)
    if group.get("caution"):
        averages = cautious(averages, batch.grads)
    each.addcdiv_(batch.params, averages, roots, value=-lr / (1 - beta1**batch.step))


def _limit_(roots: Tensors, grads: Tensors, threshold: float) -> None:
    """Raise the denominators where the scaled gradient's root mean square is above the threshold (StableAdamW)."""
    norms = each.norm(each.div(grads, roots))
    each.mul_(roots, [(n / (g.numel() ** 0.5 * threshold)).clamp_(min=1.0) for n, g in zip(norms, grads)])


class AdamWLegacy(BatchOptimizer):
    """AdamW (https://arxiv.org/abs/1711.05101) with what torch's has not: caution, corrected decay, update clipping.

    Args:
        clipping_threshold: Bound of the update's root mean square, 1 in https://arxiv.org/abs/2304.13013; None is none.
    """

    slots = ("exp_avg", "exp_avg_sq")
    nesterov = False

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, caution: bool = False, corrected_weight_decay: bool = False,
        maximize: bool = False, foreach: bool | None = None, clipping_threshold: float | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, caution=caution,
            corrected_weight_decay=corrected_weight_decay, maximize=maximize, foreach=foreach,
            clipping_threshold=clipping_threshold)

    def init_state(self, p: Tensor, group: Group) -> State:
        state = super().init_state(p, group)
        return {**state, "max_exp_avg_sq": torch.zeros_like(p)} if group["amsgrad"] else state

    def update(self, batch: Batch, group: Group) -> None:
        decay_(batch, group)
        adam_update_(batch, group, batch.lr, self.nesterov)


class NAdamW(AdamWLegacy):
    """AdamW with Nesterov momentum, as the AlgoPerf benchmark defines it (table 1 of https://arxiv.org/abs/1910.05446).

    It is not torch.optim.NAdam with decoupled decay, whose momentum follows a schedule.
    """

    nesterov = True

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, caution: bool = False, corrected_weight_decay: bool = False,
        maximize: bool = False, foreach: bool | None = None, clipping_threshold: float | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, False, caution, corrected_weight_decay, maximize, foreach,
            clipping_threshold)


class NAdamLegacy(BatchOptimizer):
    """NAdam (Dozat 2016) as timm had it before torch did."""

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, params: Any, lr: float = 2e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, schedule_decay: float = 4e-3, foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, schedule_decay=schedule_decay,
            foreach=foreach)

    def init_state(self, p: Tensor, group: Group) -> State:
        return {**super().init_state(p, group), "m_schedule": 1.0}

    def batch_key(self, state: State, group: Group) -> float:
        return state["m_schedule"]

    def update(self, batch: Batch, group: Group) -> None:
        now, ahead = (
            group["betas"][0] * (1.0 - 0.5 * 0.96 ** (step * group["schedule_decay"]))
            for step in (batch.step, batch.step + 1))
        product = batch.states[0]["m_schedule"] * now
        batch.replace("m_schedule", [product] * len(batch.params))
        grads = batch.grads
        if group["weight_decay"]:
            grads = each.add(grads, batch.params, alpha=group["weight_decay"])
        averages, squares = observe_(batch, grads, group["betas"])
        roots = root_mean(squares, group["betas"][1], batch.step, group["eps"])
        each.addcdiv_(batch.params, grads, roots, value=-batch.lr * (1 - now) / (1 - product))
        each.addcdiv_(batch.params, averages, roots, value=-batch.lr * ahead / (1 - product * ahead))


class RAdamLegacy(BatchOptimizer):
    """Rectified Adam (https://arxiv.org/abs/1908.03265) as timm had it before torch did; decay is decoupled."""

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, foreach: bool | None = None,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=foreach)

    def update(self, batch: Batch, group: Group) -> None:
        beta1, beta2 = group["betas"]
        averages, squares = observe_(batch, batch.grads, group["betas"])
        decay_(batch, group)
        step_size = batch.lr / (1 - beta1**batch.step)
        rectifier = _rectifier(beta2, batch.step)
        if rectifier is None:
            each.add_(batch.params, averages, alpha=-step_size)
            return
        roots = each.sqrt(squares)
        each.add_(roots, group["eps"])
        each.addcdiv_(batch.params, averages, roots, value=-step_size * rectifier)


def _rectifier(beta2: float, step: int) -> float | None:
    """RAdam's factor, bias correction included; None while there are too few squares to know their variance."""
    # length of the simple moving average that the running mean of squares stands for
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / (1 - beta2**step)
    if length < 5:
        return None
    rectifier = (length - 4) / (longest - 4) * (length - 2) / length * longest / (longest - 2)
    return math.sqrt((1 - beta2**step) * rectifier)


class AdaBelief(BatchOptimizer):
    """Adam that divides by the gradient's deviation from its mean (https://arxiv.org/abs/2010.07468).

    Args:
        amsgrad: Divide by the largest variance so far; a rectified update takes the present one all the same.
        fixed_decay: Decoupled weight decay does not scale with the learning rate.
        rectify: Rectify the variance as RAdam does.
        degenerated_to_sgd: Take plain momentum steps while the variance is not known well enough to rectify.
    """

    slots = ("exp_avg", "exp_avg_var")

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-16,
        weight_decay: float = 0.0, amsgrad: bool = False, decoupled_decay: bool = True, fixed_decay: bool = False,
        rectify: bool = True, degenerated_to_sgd: bool = True, foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
            decoupled_decay=decoupled_decay, fixed_decay=fixed_decay, rectify=rectify,
            degenerated_to_sgd=degenerated_to_sgd, foreach=foreach)

    def state_dtype(self, name: str, p: Tensor, group: Group) -> torch.dtype:
        return torch.float32 if p.dtype in LOW_PRECISION else p.dtype

    def init_state(self, p: Tensor, group: Group) -> State:
        state = super().init_state(p, group)
        return {**state, "max_exp_avg_var": torch.zeros_like(state["exp_avg_var"])} if group["amsgrad"] else state

    def update(self, batch: Batch, group: Group) -> None:
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        is_low = batch.params[0].dtype in LOW_PRECISION
        params, grads = ([t.float() for t in tensors] if is_low else tensors for tensors in (batch.params, batch.grads))
        if decay and group["decoupled_decay"]:
            each.mul_(params, 1.0 - decay * (1.0 if group["fixed_decay"] else batch.lr))
        elif decay:
            grads = list(each.add(grads, params, alpha=decay))
        averages, variances = batch["exp_avg"], batch["exp_avg_var"]
        each.lerp_(averages, grads, 1 - beta1)
        surprises = each.sub(grads, averages)
        each.mul_(variances, beta2)
        each.addcmul_(variances, surprises, surprises, value=1 - beta2)
        each.add_(variances, group["eps"])  # it stays in the state
        if group["amsgrad"]:
            each.maximum_(batch["max_exp_avg_var"], variances)
        step_size = batch.lr / (1 - beta1**batch.step)
        rectifier = _rectifier(beta2, batch.step) if group["rectify"] else 1.0
        if rectifier is not None:
            largest = batch["max_exp_avg_var"] if group["amsgrad"] and not group["rectify"] else variances
            # a rectifier corrects the bias itself
            roots = root_mean(largest, 0.0 if group["rectify"] else beta2, batch.step, group["eps"])
            each.addcdiv_(params, averages, roots, value=-step_size * rectifier)
        elif group["degenerated_to_sgd"]:
            each.add_(params, averages, alpha=-step_size)
        if is_low:
            each.copy_(batch.params, params)


class AdamP(BatchOptimizer):
    """Adam whose updates do not lengthen scale-invariant weights (https://arxiv.org/abs/2006.08217); see `SGDP`."""

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, delta: float = 0.1, wd_ratio: float = 0.1, nesterov: bool = False,
        caution: bool = False, foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, delta=delta, wd_ratio=wd_ratio,
            nesterov=nesterov, caution=caution, foreach=foreach)

    def update(self, batch: Batch, group: Group) -> None:
        beta1, beta2 = group["betas"]
        averages, squares = observe_(batch, batch.grads, group["betas"])
        if group["nesterov"]:
            averages = each.lerp(averages, batch.grads, 1 - beta1)
        updates = each.div(averages, root_mean(squares, beta2, batch.step, group["eps"]))
        for p, grad, update in zip(batch.params, batch.grads, updates):
            update, ratio = project(
                p, grad, update, group["delta"], group["wd_ratio"], group["eps"], group["caution"])
            p.mul_(1 - batch.lr * group["weight_decay"] * ratio)
            p.add_(update, alpha=-batch.lr / (1 - beta1**batch.step))


class Adan(BatchOptimizer):
    """Adaptive Nesterov momentum (https://arxiv.org/abs/2208.06677).

    Args:
        betas: Of the gradients, of their differences, of the squares. The paper's betas are one minus these.
        no_prox: Decay the weights before the update, as AdamW does, instead of dividing them after it.
    """

    counts_by_group = True
    slots = ("exp_avg", "exp_avg_sq", "exp_avg_diff")

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8, weight_decay: float = 0.0, no_prox: bool = False, caution: bool = False,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, no_prox=no_prox, caution=caution,
            foreach=foreach)

    def init_state(self, p: Tensor, group: Group) -> State:
        return {**super().init_state(p, group), "last_grad": p.grad.clone()}  # the first difference is zero

    def from_timm(self, p: Tensor, state: State, group: Group) -> None:
        if "neg_pre_grad" in state:
            state["last_grad"] = -state.pop("neg_pre_grad")

    def to_timm(self, p: Tensor, state: State, group: Group) -> None:
        state["neg_pre_grad"] = -state.pop("last_grad")

    def update(self, batch: Batch, group: Group) -> None:
        beta1, beta2, beta3 = group["betas"]
        averages, differences, squares, last = (
            batch[name] for name in ("exp_avg", "exp_avg_diff", "exp_avg_sq", "last_grad"))
        change = last  # minus the change, in the memory of the last gradient
        each.sub_(change, batch.grads)
        each.lerp_(averages, batch.grads, 1 - beta1)
        each.mul_(differences, beta2)
        each.add_(differences, change, alpha=beta2 - 1)
        each.mul_(change, -beta2)
        each.add_(change, batch.grads)
        each.mul_(squares, beta3)
        each.addcmul_(squares, change, change, value=1 - beta3)
        roots = root_mean(squares, beta3, batch.step, group["eps"])
        if group["caution"]:
            averages = cautious(averages, batch.grads)
        if group["no_prox"]:
            decay_(batch, group)
        each.addcdiv_(batch.params, averages, roots, value=-batch.lr / (1 - beta1**batch.step))
        each.addcdiv_(batch.params, differences, roots, value=-batch.lr * beta2 / (1 - beta2**batch.step))
        if not group["no_prox"]:
            each.div_(batch.params, 1 + batch.lr * group["weight_decay"])
        each.copy_(last, batch.grads)


class Adopt(BatchOptimizer):
    """ADOPT, which converges with any beta2 (https://arxiv.org/abs/2411.02853).

    The first step only measures the squares. Each gradient is divided by the root of what came before it.

    Args:
        clip_exp: The scaled gradient of update t is clipped to t ** clip_exp; None is no clipping.
        decoupled: Decoupled weight decay.
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: Betas = (0.9, 0.9999), eps: float = 1e-6,
        clip_exp: float | None = 0.333, weight_decay: float = 0.0, decoupled: bool = False,
        corrected_weight_decay: bool = False, *, caution: bool = False, foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, clip_exp=clip_exp, weight_decay=weight_decay, decoupled=decoupled,
            corrected_weight_decay=corrected_weight_decay, caution=caution, foreach=foreach, maximize=maximize)

    def update(self, batch: Batch, group: Group) -> None:
        beta1, beta2 = group["betas"]
        averages, squares, grads = batch["exp_avg"], batch["exp_avg_sq"], batch.grads
        if not group["decoupled"] and group["weight_decay"]:
            grads = each.add(grads, batch.params, alpha=group["weight_decay"])
        if batch.step == 1:
            each.addcmul_(squares, grads, grads)
            return
        if group["decoupled"]:
            decay_(batch, group)
        roots = each.sqrt(squares)
        each.clamp_min_(roots, group["eps"])
        scaled = each.div(grads, roots)
        if group["clip_exp"] is not None:
            bound = (batch.step - 1) ** group["clip_exp"]
            each.clamp_min_(scaled, -bound)
            each.clamp_max_(scaled, bound)
        each.lerp_(averages, scaled, 1 - beta1)
        updates = cautious(averages, grads) if group["caution"] else averages
        each.add_(batch.params, updates, alpha=-batch.lr)
        each.mul_(squares, beta2)
        each.addcmul_(squares, grads, grads, value=1 - beta2)


class LaProp(BatchOptimizer):
    """LaProp: momentum of the scaled gradients, which keeps apart what Adam mixes (https://arxiv.org/abs/2002.04839).

    The buffer holds gradients times the learning rate they were seen at, and is normalised by the running mean of the
    learning rates, so that a schedule weighs past gradients by their own rate.
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, params: Any, lr: float = 4e-4, betas: Betas = (0.9, 0.999), eps: float = 1e-15,
        weight_decay: float = 0.0, caution: bool = False, corrected_weight_decay: bool = False,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, caution=caution,
            corrected_weight_decay=corrected_weight_decay, foreach=foreach)

    def init_state(self, p: Tensor, group: Group) -> State:
        return {**super().init_state(p, group), "exp_avg_lr_1": 0.0}

    def to_timm(self, p: Tensor, state: State, group: Group) -> None:
        state["exp_avg_lr_2"] = torch.tensor(1.0 - group["betas"][1] ** int(state["step"]))

    def from_timm(self, p: Tensor, state: State, group: Group) -> None:
        state.pop("exp_avg_lr_2", None)  # follows from the step

    def batch_key(self, state: State, group: Group) -> float:
        return state["exp_avg_lr_1"]

    def update(self, batch: Batch, group: Group) -> None:
        beta1, beta2 = group["betas"]
        averages, squares = batch["exp_avg"], batch["exp_avg_sq"]
        mean_lr = beta1 * batch.states[0]["exp_avg_lr_1"] + (1 - beta1) * batch.lr
        batch.replace("exp_avg_lr_1", [mean_lr] * len(batch.params))
        each.mul_(squares, beta2)
        each.addcmul_(squares, batch.grads, batch.grads, value=1 - beta2)
        roots = root_mean(squares, beta2, batch.step, group["eps"])
        each.mul_(averages, beta1)
        each.addcdiv_(averages, batch.grads, roots, value=batch.lr * (1 - beta1))
        updates = cautious(averages, batch.grads) if group["caution"] else averages
        each.add_(batch.params, updates, alpha=-batch.lr / mean_lr if mean_lr else 0.0)
        decay_(batch, group)


class Lamb(BatchOptimizer):
    """LAMB, Adam with layer-wise rates (https://arxiv.org/abs/1904.00962), in NVIDIA's variant: it clips the global
    gradient norm first, and leaves parameters without weight decay at the plain rate unless `always_adapt`.

    Args:
        grad_averaging: Weigh the gradient by 1 - beta1 in the running mean.
        max_grad_norm: Bound of the norm of all gradients together; None is none. The gradients stay as they are.
        trust_clip: LAMBC, which never raises the learning rate.
    """

    counts_by_group = True
    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, params: Any, lr: float = 1e-3, bias_correction: bool = True, betas: Betas = (0.9, 0.999),
        eps: float = 1e-6, weight_decay: float = 0.01, grad_averaging: bool = True, max_grad_norm: float | None = 1.0,
        trust_clip: bool = False, always_adapt: bool = False, caution: bool = False, decoupled_decay: bool = False,
        corrected_weight_decay: bool = False, foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, bias_correction=bias_correction, betas=betas, eps=eps, weight_decay=weight_decay,
            grad_averaging=grad_averaging, max_grad_norm=max_grad_norm, trust_clip=trust_clip,
            always_adapt=always_adapt, caution=caution, decoupled_decay=decoupled_decay,
            corrected_weight_decay=corrected_weight_decay, foreach=foreach)
        self._excess: Tensor | None = None  # how far the global norm is over its bound, as a factor

    def before_step(self) -> None:
        bound = self.defaults["max_grad_norm"]
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self._excess = None
        if bound is not None and grads:
            norms = [n.to(grads[0].device) for n in each.norm(grads)]
            self._excess = (torch.stack(norms).norm() / bound).clamp_(min=1.0)

    def update(self, batch: Batch, group: Group) -> None:
        beta1, beta2 = group["betas"]
        averages, squares, grads = batch["exp_avg"], batch["exp_avg_sq"], batch.grads
        if self._excess is not None:
            grads = each.div(grads, self._excess.to(grads[0].device))
        if group["grad_averaging"]:
            each.lerp_(averages, grads, 1 - beta1)
        else:
            each.mul_(averages, beta1)
            each.add_(averages, grads)
        each.mul_(squares, beta2)
        each.addcmul_(squares, grads, grads, value=1 - beta2)
        corrections = [1 - beta**batch.step if group["bias_correction"] else 1.0 for beta in (beta1, beta2)]
        roots = each.sqrt(squares)
        each.div_(roots, corrections[1] ** 0.5)
        each.add_(roots, group["eps"])
        updates = each.div(averages, corrections[0])
        each.div_(updates, roots)
        if group["caution"]:
            updates = cautious(updates, grads)
        if group["decoupled_decay"]:
            decay_(batch, group)
        elif group["weight_decay"]:
            each.add_(updates, batch.params, alpha=group["weight_decay"])
        if group["weight_decay"] or group["always_adapt"]:
            ratios = trust_ratios(batch.params, updates, torch.div)
            each.mul_(updates, list(ratios.clamp(max=1.0) if group["trust_clip"] else ratios))
        each.add_(batch.params, updates, alpha=-batch.lr)


class Mars(BatchOptimizer):
    """MARS, variance reduction for Adam or Lion (https://arxiv.org/abs/2411.10438), in its approximate form.

    Args:
        gamma: Scale of the correction by the last gradient.
        mars_type: "adamw" or "lion".
        optimize_1d: Use MARS for vectors too, which otherwise take AdamW with `betas_1d` and lr * `lr_1d_factor`.
    """

    slots = ("exp_avg", "exp_avg_sq", "last_grad")

    def __init__(
        self, params: Any, lr: float = 3e-3, betas: Betas = (0.9, 0.99), eps: float = 1e-8, weight_decay: float = 0.0,
        gamma: float = 0.025, mars_type: str = "adamw", optimize_1d: bool = False, lr_1d_factor: float = 1.0,
        betas_1d: Betas | None = None, caution: bool = False, foreach: bool | None = None,
    ) -> None:
        if mars_type not in ("adamw", "lion"):
            raise ConfigError(f"Mars: mars_type '{mars_type}' is neither 'adamw' nor 'lion'")
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, gamma=gamma, mars_type=mars_type,
            optimize_1d=optimize_1d, lr_1d_factor=lr_1d_factor, betas_1d=betas_1d or betas, caution=caution,
            foreach=foreach)

    def init_state(self, p: Tensor, group: Group) -> State:
        return {**super().init_state(p, group), "is_reduced": group["optimize_1d"] or p.ndim >= 2}

    def from_timm(self, p: Tensor, state: State, group: Group) -> None:
        if state:
            state.setdefault("is_reduced", group["optimize_1d"] or p.ndim >= 2)

    def batch_key(self, state: State, group: Group) -> bool:
        return state["is_reduced"]

    def update(self, batch: Batch, group: Group) -> None:
        is_reduced = batch.states[0]["is_reduced"]
        betas = group["betas"] if is_reduced else group["betas_1d"]
        grads = self._reduced(batch, group) if is_reduced else batch.grads
        averages, squares = observe_(batch, grads, betas)
        if group["caution"]:
            averages = cautious(averages, batch.grads)
        if is_reduced and group["mars_type"] == "lion":
            updates = list(each.mul(averages, 1.0))
            each.sign_(updates)
        else:
            updates = each.div(averages, 1 - betas[0] ** batch.step)
            each.div_(updates, root_mean(squares, betas[1], batch.step, group["eps"]))
        each.add_(updates, batch.params, alpha=group["weight_decay"])
        each.add_(batch.params, updates, alpha=-batch.lr * (1.0 if is_reduced else group["lr_1d_factor"]))
        each.copy_(batch["last_grad"], batch.grads)

    def _reduced(self, batch: Batch, group: Group) -> Tensors:
        """Gradients corrected by their change, each of norm 1 at most."""
        beta1 = group["betas"][0]
        grads = list(batch.grads)
        if batch.step > 1:  # the first gradient has none before it
            change = each.sub(grads, batch["last_grad"])
            grads = list(each.add(grads, change, alpha=group["gamma"] * beta1 / (1 - beta1)))
        return list(each.div(grads, [n.clamp(min=1.0) for n in each.norm(grads)]))


class NvNovoGrad(BatchOptimizer):
    """NovoGrad, one second moment a tensor (https://arxiv.org/abs/1905.11286), in NVIDIA's variant.

    Args:
        grad_averaging: Weigh the scaled gradient by 1 - beta1 in the running mean.
    """

    slots = ("exp_avg",)

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: Betas = (0.95, 0.98), eps: float = 1e-8,
        weight_decay: float = 0.0, grad_averaging: bool = False, amsgrad: bool = False, decoupled_decay: bool = False,
        corrected_weight_decay: bool = False, foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, grad_averaging=grad_averaging,
            amsgrad=amsgrad, decoupled_decay=decoupled_decay, corrected_weight_decay=corrected_weight_decay,
            foreach=foreach)

    def state_dtype(self, name: str, p: Tensor, group: Group) -> torch.dtype:
        return torch.float32 if name.endswith("exp_avg_sq") and p.dtype != torch.float64 else p.dtype

    def init_state(self, p: Tensor, group: Group) -> State:
        zero = torch.zeros((), dtype=self.state_dtype("exp_avg_sq", p, group), device=p.device)
        extra = {"max_exp_avg_sq": zero.clone()} if group["amsgrad"] else {}
        return {**super().init_state(p, group), "exp_avg_sq": zero, **extra}

    def update(self, batch: Batch, group: Group) -> None:
        beta1, beta2 = group["betas"]
        averages, squares = batch["exp_avg"], batch["exp_avg_sq"]
        new = [grad.square().sum().to(square.dtype) for grad, square in zip(batch.grads, squares)]
        # a tensor's first gradient that is not zero starts the mean
        mixed = [torch.where(old == 0, now, old.lerp(now, 1 - beta2)) for old, now in zip(squares, new)]
        each.copy_(squares, mixed)
        if group["amsgrad"]:
            each.maximum_(batch["max_exp_avg_sq"], squares)
            squares = batch["max_exp_avg_sq"]
        updates = [grad / square.sqrt().add(group["eps"]) for grad, square in zip(batch.grads, squares)]
        if group["decoupled_decay"]:
            decay_(batch, group)
        elif group["weight_decay"]:
            each.add_(updates, batch.params, alpha=group["weight_decay"])
        each.mul_(averages, beta1)
        each.add_(averages, updates, alpha=1 - beta1 if group["grad_averaging"] else 1.0)
        each.add_(batch.params, averages, alpha=-batch.lr)
