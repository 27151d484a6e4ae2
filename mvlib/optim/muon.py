"""Muon: momentum made orthogonal, for matrices; AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from .adaptive import adam_update_
from .batch import Batch, BatchOptimizer, Group, State, decay_

__all__ = ["Muon", "NSCoeff", "orthogonalize"]

Coefficients = list[tuple[float, float, float]]
NSCoeff = str | Sequence[Any]

# (a, b, c) of x <- a x + (b (x x') + c (x x')^2) x, one triple a step; the last one repeats
COEFFICIENTS: dict[str, Coefficients] = {
    # https://kellerjordan.github.io/posts/muon/
    "original": [(3.4445, -4.7750, 2.0315)],
    # https://leloykun.github.io/ponder/muon-opt-coeffs/
    "quintic": [
        (4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037), (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ],
    # https://arxiv.org/abs/2505.16932, with a safety margin of 1e-2
    "polar_express": [
        (8.237312490495555, -23.157747414558198, 16.680568411445915),
        (4.082441999064835, -2.893047735332586, 0.5252849256975648),
        (3.9263479922546582, -2.8547468034765298, 0.5318022422894988),
        (3.2982187133085143, -2.424541981026706, 0.48632008358844075),
        (2.2970369434552573, -1.63662558125903, 0.4002628455953627),
        (1.8763805351440397, -1.2347896577722228, 0.35891887501668385),
        (1.8564423485617974, -1.2132449880935525, 0.3568003487825883),
        (1.8749998008682747, -1.2499988017229169, 0.3749994008546422),
    ],
    # the same with a margin of 2e-2, https://github.com/KellerJordan/modded-nanogpt
    "polar_express_safer": [
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.0429299351667245, -2.808917465908704, 0.5000178451051299),
        (3.8916678022926563, -2.7724841532176825, 0.5060648178503389),
        (3.285753657755658, -2.3681294933425394, 0.46449024233003117),
        (2.3005307116270983, -1.6111665557258408, 0.3833374427545273),
        (1.8631210546382593, -1.2042160621002727, 0.3421879560523383),
        (1.8382572152247512, -1.1779263289537742, 0.3396513038637379),
        (1.8749999923301852, -1.2499999836060613, 0.374999991275876),
    ],
}


def _coefficients(value: NSCoeff) -> Coefficients:
    """Triples from the name of a preset, one triple, or a sequence of triples."""
    if isinstance(value, str):
        if value not in COEFFICIENTS:
            raise ConfigError(f"Muon: ns_coefficients '{value}' is not one of {', '.join(COEFFICIENTS)}")
        return COEFFICIENTS[value]
    triples = [value] if len(value) == 3 and not isinstance(value[0], Sequence) else list(value)
    if not triples or any(not isinstance(t, Sequence) or len(t) != 3 for t in triples):
        raise ConfigError(f"Muon: ns_coefficients are (a, b, c) or a list of such, got {value!r}")
    return [tuple(map(float, triple)) for triple in triples]


def orthogonalize(
    matrix: Tensor, steps: int, coefficients: Coefficients, eps: float = 1e-7, safety_factor: float = 1.0,
    scale_eps: bool = False,
) -> Tensor:
    """The nearest matrix with orthogonal rows or columns, roughly, by a Newton-Schulz iteration in bfloat16.

    Args:
        matrix: (m, n), or (B, m, n) for B matrices.
        steps: Iterations.
        coefficients: One triple a step, the last one repeated.
        eps: Least norm; with `scale_eps`, added to it as eps * sqrt(n / m) (https://arxiv.org/abs/2512.05620).
        safety_factor: Of the norm that the matrix is divided by.
    """
    rows, columns = matrix.shape[-2:]
    x = matrix.bfloat16()
    if rows > columns:
        x = x.mT
    size = x.norm(2, dim=(-2, -1), keepdim=True) * safety_factor
    x = (x / (size + eps * (columns / rows) ** 0.5 if scale_eps else size.clamp(min=eps))).contiguous()
    product = torch.baddbmm if x.ndim == 3 else torch.addmm
    for step in range(steps):
        a, b, c = coefficients[min(step, len(coefficients) - 1)]
        gram = x @ x.mT
        x = product(x, product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if rows > columns else x


def _is_matrix(shape: Sequence[int]) -> bool:
    """Whether Muon fits: not a vector, a position embedding, a depthwise convolution, or too thin a matrix."""
    if sum(size > 1 for size in shape) < 2 or 1 in shape[:2]:
        return False
    sides = shape[0], torch.Size(shape[1:]).numel()
    return min(sides) >= 4 and max(sides) <= 128 * min(sides)


class Muon(BatchOptimizer):
    """Muon (https://kellerjordan.github.io/posts/muon/), or AdaMuon (https://arxiv.org/abs/2507.11005).

    Vectors, thin matrices and groups with "use_fallback" (or "use_muon" of False) take AdamW, NAdamW if `nesterov`.

    Args:
        ns_steps: Newton-Schulz iterations.
        ns_coefficients: "original", "quintic", "polar_express", "polar_express_safer", a triple, or a list of triples.
        adjust_lr_fn: Scale of an update by its matrix' sides: "original" sqrt(max(1, out / in)), "match_rms_adamw"
            0.2 sqrt(max(out, in)) (https://arxiv.org/abs/2502.16982), "rms_to_rms" sqrt(out / in), for AdaMuon also
            "rsqrt_in" 1 / sqrt(in), or None. AdaMuon has no "original".
        conv_mode: A convolution is one matrix (out, in * h * w) if "flatten", h * w matrices (out, in) if "batched".
        normalize_spatial: With "batched", divide by sqrt(h * w).
        fallback_lr_scale: Learning rate of the fallback, relative to Muon's.
        betas: Of the fallback; the second is AdaMuon's too.
        algo: "muon" or "adamuon".
        scale_eps: Scale eps with sqrt(in / out).

    Raises:
        ConfigError: An unknown `conv_mode`, `algo`, `adjust_lr_fn` or preset.
    """

    def __init__(
        self, params: Any, lr: float = 0.02, weight_decay: float = 0.0, momentum: float = 0.95, nesterov: bool = False,
        ns_steps: int = 5, ns_coefficients: NSCoeff = "quintic", eps: float = 1e-7,
        safety_factor: float = 1.0, adjust_lr_fn: str | None = "match_rms_adamw", conv_mode: str = "flatten",
        normalize_spatial: bool = True, fallback_lr_scale: float = 1.0, betas: tuple[float, float] = (0.9, 0.95),
        algo: str = "muon", scale_eps: bool = False, foreach: bool | None = None,
    ) -> None:
        scales = {"muon": ("original", "match_rms_adamw", "rms_to_rms"),
                  "adamuon": ("match_rms_adamw", "rms_to_rms", "rsqrt_in")}
        for name, value, known in (("algo", algo, tuple(scales)), ("conv_mode", conv_mode, ("flatten", "batched")),
                                   ("adjust_lr_fn", adjust_lr_fn, (None, *scales.get(algo, ())))):
            if value not in known:
                raise ConfigError(f"Muon: {name} '{value}' is not one of {', '.join(map(str, known))}")
        _coefficients(ns_coefficients)
        super().__init__(
            params, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps,
            ns_coefficients=ns_coefficients, eps=eps, safety_factor=safety_factor, adjust_lr_fn=adjust_lr_fn,
            conv_mode=conv_mode, normalize_spatial=normalize_spatial, fallback_lr_scale=fallback_lr_scale, betas=betas,
            algo=algo, scale_eps=scale_eps, foreach=foreach)

    def init_state(self, p: Tensor, group: Group) -> State:
        use_muon = not group.get("use_fallback", False) and group.get("use_muon", _is_matrix(p.shape))
        names = ["momentum_buffer"] if use_muon else ["exp_avg"]
        if group["algo"] == "adamuon" or not use_muon:
            names.append("exp_avg_sq")
        return {"use_muon": use_muon, **{name: torch.zeros_like(p) for name in names}}

    def batch_key(self, state: State, group: Group) -> bool:
        return state["use_muon"]

    def to_timm(self, p: Tensor, state: State, group: Group) -> None:
        state["step"] = torch.tensor(float(state["step"]))

    def update(self, batch: Batch, group: Group) -> None:
        if not batch.states[0]["use_muon"]:
            lr = batch.lr * group["fallback_lr_scale"]
            decay_(batch, group, group["fallback_lr_scale"])
            adam_update_(batch, group, lr, group["nesterov"])
            return
        decay_(batch, group)
        for p, grad, state in zip(batch.params, batch.grads, batch.states):
            buffer = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
            direction = grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
            matrix = self._as_matrix(direction, group)
            update = orthogonalize(
                matrix, group["ns_steps"], _coefficients(group["ns_coefficients"]), group["eps"],
                group["safety_factor"], group["scale_eps"])
            scale = self._scale(matrix, group)
            if matrix.ndim == 3:
                update = update.permute(1, 2, 0)
            update = update.reshape(p.shape)
            if group["algo"] == "adamuon":
                update = self._adapted(update, state["exp_avg_sq"], batch.step, group)
            p.add_(update, alpha=-batch.lr * scale)

    @staticmethod
    def _as_matrix(tensor: Tensor, group: Group) -> Tensor:
        if tensor.ndim == 2:
            return tensor
        if group["conv_mode"] == "flatten":
            return tensor.flatten(1)
        return tensor.flatten(2).permute(2, 0, 1)

    @staticmethod
    def _scale(matrix: Tensor, group: Group) -> float:
        rows, columns = matrix.shape[-2:]
        scale = {
            None: 1.0,
            "original": max(1.0, rows / columns) ** 0.5,
            "match_rms_adamw": 0.2 * (matrix.numel() if group["algo"] == "adamuon" else max(rows, columns)) ** 0.5,
            "rms_to_rms": (rows / columns) ** 0.5,
            "rsqrt_in": columns**-0.5,
        }[group["adjust_lr_fn"]]
        spread = group["normalize_spatial"] and matrix.ndim == 3
        return scale * (matrix.shape[0] ** -0.5 if spread else 1.0)

    @staticmethod
    def _adapted(update: Tensor, squares: Tensor, step: int, group: Group) -> Tensor:
        """AdaMuon: divide by the running root mean square; with "match_rms_adamw", to a norm of 1."""
        beta2 = group["betas"][1]
        squares.mul_(beta2).addcmul_(update, update, value=1 - beta2)
        is_normalized = group["adjust_lr_fn"] == "match_rms_adamw"  # the bias cancels in the norm
        mean = squares if is_normalized else squares / (1 - beta2**step)
        update = update / mean.sqrt().add_(group["eps"])
        return update / update.norm().add_(group["eps"]) if is_normalized else update
