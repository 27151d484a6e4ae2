"""Optimizers that estimate curvature: AdaHessian, and PSGD with Kronecker factors."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from .batch import Batch, BatchOptimizer, Group, State, decay_

__all__ = ["Adahessian", "Kron"]

_SEED = 2147483647


class Adahessian(BatchOptimizer):
    """AdaHessian: Adam with the Hessian's diagonal in place of the squared gradient (https://arxiv.org/abs/2006.00719).

    The diagonal is estimated from Hessian-vector products, so the gradients must come from
    `loss.backward(create_graph=True)`.

    Args:
        hessian_power: Exponent of the diagonal, 0 to 1.
        update_each: Steps between two estimates.
        n_samples: Random vectors an estimate.
        avg_conv_kernel: Average the diagonal over a convolution's kernel.

    Raises:
        ConfigError: hessian_power is out of range; in `step`, the gradients carry no graph.
    """

    slots = ("exp_avg", "exp_hessian_diag_sq")
    settings = ("update_each", "n_samples", "avg_conv_kernel", "generator")
    is_second_order = True

    def __init__(
        self, params: Any, lr: float = 0.1, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, hessian_power: float = 1.0, update_each: int = 1, n_samples: int = 1,
        avg_conv_kernel: bool = False, foreach: bool | None = None,
    ) -> None:
        if not 0 <= hessian_power <= 1:
            raise ConfigError(f"Adahessian: hessian_power {hessian_power} is not in [0, 1]")
        self.update_each, self.n_samples, self.avg_conv_kernel = update_each, n_samples, avg_conv_kernel
        # a generator of its own: all ranks of a distributed run draw the same vectors
        self.generator = torch.Generator().manual_seed(_SEED)
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, hessian_power=hessian_power,
            foreach=foreach)

    def extra_state(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_extra_state(self, extra: dict[str, Any]) -> None:
        self.generator.set_state(extra["generator"].cpu())

    def from_timm(self, p: Tensor, state: State, group: Group) -> None:
        state.pop("hessian step", None)

    def before_step(self) -> None:
        due = [p for group in self.param_groups for p in group["params"]
               if p.grad is not None and ("hessian" not in self.state[p]  # new, or timm's, which does not save it
                                          or self.state[p]["step"] % self.update_each == 0)]
        self._traces = dict.fromkeys(due, 0.0)
        if not due:
            return
        if any(p.grad.grad_fn is None for p in due):
            raise ConfigError("Adahessian needs gradients with a graph: call loss.backward(create_graph=True)")
        if self.generator.device != due[0].device:
            self.generator = torch.Generator(due[0].device).manual_seed(_SEED)
        for sample in range(self.n_samples):
            signs = [torch.randint(0, 2, p.shape, generator=self.generator, device=p.device) * 2.0 - 1.0 for p in due]
            products = torch.autograd.grad(
                [p.grad for p in due], due, grad_outputs=signs, retain_graph=sample < self.n_samples - 1)
            for p, product, sign in zip(due, products, signs):
                self._traces[p] = self._traces[p] + product * sign / self.n_samples

    def update(self, batch: Batch, group: Group) -> None:
        beta1, beta2 = group["betas"]
        decay_(batch, group)
        for p, grad, state in zip(batch.params, batch.grads, batch.states):
            if p in self._traces:
                state["hessian"] = self._traces.pop(p).to(p.dtype)
            hessian, average, squares = (state[name] for name in ("hessian", "exp_avg", "exp_hessian_diag_sq"))
            if self.avg_conv_kernel and p.ndim == 4:
                hessian.copy_(hessian.abs().mean(dim=(2, 3), keepdim=True).expand_as(hessian))
            average.mul_(beta1).add_(grad.detach(), alpha=1 - beta1)
            squares.mul_(beta2).addcmul_(hessian, hessian, value=1 - beta2)
            root = (squares / (1 - beta2**batch.step)).pow_(group["hessian_power"] / 2).add_(group["eps"])
            p.addcdiv_(average, root, value=-batch.lr / (1 - beta1**batch.step))


def update_probability(step: int) -> float:
    """How often Kron fits its factors: always for 500 steps, then less and less, down to 0.03 by step 4000."""
    return min(1.0, max(0.03, math.exp(-0.001 * (step - 500))))


class Kron(BatchOptimizer):
    """PSGD with a Kronecker-factored preconditioner (https://arxiv.org/abs/1512.04202).

    Each dimension of a tensor has a factor Q, an upper triangle or a diagonal; the momentum is multiplied by Q'Q along
    each. The factors are fitted to random probes.

    Args:
        preconditioner_update_probability: Share of steps that fit the factors, or a function of the step; None is
            `update_probability`.
        max_size_triangular: A longer dimension has a diagonal factor.
        min_ndim_triangular: A tensor of fewer dimensions has diagonal factors.
        memory_save_mode: "one_diag": the longest dimension has a diagonal factor; "smart_one_diag": if it is longer
            than all others; "all_diag": all have.
        momentum_into_precond_update: Fit to the momentum rather than to the gradient.
        precond_lr: Step size of the fit.
        precond_init_scale: Of the first factors.
        mu_dtype: Type of the momentum.
        precond_dtype: Type of the factors.
        flatten: Join the dimensions from `flatten_start_dim` to `flatten_end_dim`.
        stochastic_weight_decay: Scale weight decay by a random factor, 0 to 2.
        deterministic: Draw probes from generators of the optimizer's own, whose state is saved with it; otherwise from
            torch's global one.

    Raises:
        ConfigError: An unknown memory_save_mode.
    """

    settings = ("rng", "deterministic")

    def __init__(
        self, params: Any, lr: float = 0.001, momentum: float = 0.9, weight_decay: float = 0.0,
        preconditioner_update_probability: Callable[[int], float] | float | None = None,
        max_size_triangular: int = 2048, min_ndim_triangular: int = 2, memory_save_mode: str | None = None,
        momentum_into_precond_update: bool = True, precond_lr: float = 0.1, precond_init_scale: float = 1.0,
        mu_dtype: torch.dtype | None = None, precond_dtype: torch.dtype | None = None, decoupled_decay: bool = False,
        corrected_weight_decay: bool = False, flatten: bool = False, flatten_start_dim: int = 2,
        flatten_end_dim: int = -1, stochastic_weight_decay: bool = False, deterministic: bool = True,
        foreach: bool | None = None,
    ) -> None:
        if memory_save_mode not in (None, "one_diag", "smart_one_diag", "all_diag"):
            raise ConfigError(f"Kron: memory_save_mode '{memory_save_mode}' is not one of one_diag, smart_one_diag, "
                              "all_diag")
        self.rng = random.Random(1337)
        self.deterministic = deterministic
        super().__init__(
            params, lr=lr, momentum=momentum, weight_decay=weight_decay,
            preconditioner_update_probability=preconditioner_update_probability,
            max_size_triangular=max_size_triangular, min_ndim_triangular=min_ndim_triangular,
            memory_save_mode=memory_save_mode, momentum_into_precond_update=momentum_into_precond_update,
            precond_lr=precond_lr, precond_init_scale=precond_init_scale, mu_dtype=mu_dtype,
            precond_dtype=precond_dtype, decoupled_decay=decoupled_decay,
            corrected_weight_decay=corrected_weight_decay, flatten=flatten, flatten_start_dim=flatten_start_dim,
            flatten_end_dim=flatten_end_dim, stochastic_weight_decay=stochastic_weight_decay, foreach=foreach)

    def extra_state(self) -> dict[str, Any]:
        return {"rng": self.rng.getstate()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        timms = {"extra": {"rng": state_dict["rng_state"]}} if "rng_state" in state_dict else {}
        super().load_state_dict({**state_dict, **timms})

    def load_extra_state(self, extra: dict[str, Any]) -> None:
        version, internal, gauss = extra["rng"]
        self.rng.setstate((version, tuple(internal), gauss))

    def state_dtype(self, name: str, p: Tensor, group: Group) -> torch.dtype:
        return (group["mu_dtype"] if name == "momentum_buffer" else group["precond_dtype"]) or p.dtype

    @staticmethod
    def _shaped(tensor: Tensor, group: Group) -> Tensor:
        start, end = group["flatten_start_dim"], group["flatten_end_dim"]
        end = min(end if end >= 0 else tensor.ndim + end, tensor.ndim - 1)
        return tensor.flatten(start, end) if group["flatten"] and start <= end else tensor

    def init_state(self, p: Tensor, group: Group) -> State:
        shape = self._shaped(p, group).shape
        like = dict(dtype=self.state_dtype("Q", p, group), device=p.device)
        scale = group["precond_init_scale"] ** (1 / max(len(shape), 1))
        longest = max(range(len(shape)), key=lambda i: (shape[i], i), default=0)
        mode = group["memory_save_mode"]
        is_longest_diagonal = mode == "one_diag" or (
            mode == "smart_one_diag" and len(shape) > 1 and sorted(shape)[-1] > sorted(shape)[-2])
        factors = []
        for i, size in enumerate(shape):
            is_diagonal = (
                size == 1 or size > group["max_size_triangular"] or len(shape) < group["min_ndim_triangular"]
                or mode == "all_diag" or (is_longest_diagonal and i == longest))
            factors.append(scale * (torch.ones(size, **like) if is_diagonal else torch.eye(size, **like)))
        momentum = torch.zeros(shape, dtype=self.state_dtype("momentum_buffer", p, group), device=p.device)
        return {"update_counter": 0, "momentum_buffer": momentum, "Q": factors or [scale * torch.ones((), **like)]}

    def update(self, batch: Batch, group: Group) -> None:
        probability = group["preconditioner_update_probability"]
        if probability is None:
            probability = update_probability
        if callable(probability):
            probability = float(probability(batch.step - 1))
        for p, grad, state in zip(batch.params, batch.grads, batch.states):
            grad = self._shaped(grad, group)
            state["update_counter"] += 1
            is_due = state["update_counter"] >= 1 / probability
            factors = state["Q"]
            buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(grad, alpha=1 - group["momentum"])
            mean = (buffer / (1 - group["momentum"] ** batch.step)).to(factors[0].dtype)
            if self.rng.random() < 0.01 and is_due and grad.ndim > 1:
                _balance_(factors)
            if is_due:
                state["update_counter"] = 0
                target = mean if group["momentum_into_precond_update"] else grad.to(mean.dtype)
                _fit_(factors, target, self._probe(mean), group["precond_lr"])
            update = mean
            for dim, factor in enumerate(factors):
                update = _along(_along(update, dim, factor), dim, factor.mT if factor.ndim == 2 else factor)
            update = update.to(p.dtype)
            update *= (1.1 / (update.square().mean().sqrt() + 1e-8)).clamp(max=1.0)  # its scale should be about 1
            self._decay(p, update := update.view(p.shape), batch, group)
            p.add_(update, alpha=-batch.lr)

    def _probe(self, like: Tensor) -> Tensor:
        generator = None
        if self.deterministic:
            generator = torch.Generator(like.device).manual_seed(self.rng.randint(0, 2**31))
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)

    def _decay(self, p: Tensor, update: Tensor, batch: Batch, group: Group) -> None:
        if not group["weight_decay"]:
            return
        factor = 2 * self.rng.random() if group["stochastic_weight_decay"] else 1.0
        if group["decoupled_decay"]:
            decay_(Batch(batch.lr, batch.step, [p]), group, factor)
        else:
            update.add_(p, alpha=factor * group["weight_decay"])


def _along(x: Tensor, dim: int, factor: Tensor) -> Tensor:
    """Multiply `x` by a factor along one dimension."""
    if x.ndim == 0:
        return x * factor
    last = x.movedim(dim, -1)
    return (last * factor if factor.ndim == 1 else last @ factor.mT).movedim(-1, dim)


def _whiten(x: Tensor, dim: int, factor: Tensor) -> Tensor:
    """Multiply `x` by the transposed inverse of a factor along one dimension."""
    if x.ndim == 0:
        return x / factor
    last = x.movedim(dim, -1)
    if factor.ndim == 1:
        return (last / factor).movedim(-1, dim)
    rows = last.reshape(-1, last.shape[-1]).float()
    solved = torch.linalg.solve_triangular(factor.float(), rows, upper=True, left=False)
    return solved.reshape(last.shape).to(x.dtype).movedim(-1, dim)


def _gram(x: Tensor, dim: int, factor: Tensor) -> Tensor:
    """Products of `x` with itself over all dimensions but one: a matrix, or its diagonal where the factor is one."""
    if x.ndim == 0:
        return x * x
    rows = x.movedim(dim, 0).reshape(x.shape[dim], -1)
    return rows.square().sum(dim=1) if factor.ndim == 1 else rows @ rows.mT


def _fit_(factors: list[Tensor], target: Tensor, probe: Tensor, rate: float) -> None:
    """One step towards factors that give the preconditioned target the probe's covariance."""
    tiny = torch.finfo(torch.bfloat16).tiny
    for dim, factor in enumerate(factors):
        target, probe = _along(target, dim, factor), _whiten(probe, dim, factor)
    for dim, factor in enumerate(factors):
        seen, wanted = _gram(target, dim, factor), _gram(probe, dim, factor)
        change, total = (seen - wanted) * rate, seen + wanted
        if factor.ndim < 2:
            factor.sub_(change * factor / (total.abs().max() + tiny))
        else:
            factor.sub_(torch.triu(change) / (_spectral_bound(total) + tiny) @ factor)


def _spectral_bound(matrix: Tensor) -> Tensor:
    """A cheap lower bound of a symmetric matrix' largest eigenvalue: one power step from its longest row."""
    peak = matrix.abs().max()
    scaled = matrix / peak.clamp(min=torch.finfo(matrix.dtype).tiny)
    longest = scaled.square().sum(dim=1).argmax()
    x = scaled[longest] @ scaled
    return peak * (x / x.norm().clamp(min=torch.finfo(x.dtype).tiny) @ scaled).norm()


def _balance_(factors: list[Tensor]) -> None:
    """Bring the factors to one scale without changing their product."""
    peaks = torch.stack([factor.abs().max() for factor in factors])
    for factor, scale in zip(factors, peaks.prod() ** (1 / len(factors)) / peaks):
        factor.mul_(scale)
