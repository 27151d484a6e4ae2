"""The base of our own optimizers: an update is written once, over lists of tensors.

`BatchOptimizer.step` sorts a group's parameters into batches that share device, dtype and step count, and `update` says
what happens to a batch with torch's list operations. Where those have kernels of their own (CUDA) a batch is the whole
group; on a CPU, where a list is worked off one by one anyway, it is one parameter, whose state then stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import ConfigError
from . import each

__all__ = ["Batch", "BatchOptimizer", "cautious", "decay_", "root_mean", "trust_ratios"]

Tensors = list[Tensor]
State = dict[str, Any]
Group = dict[str, Any]
LOW_PRECISION = (torch.float16, torch.bfloat16)


@dataclass
class Batch:
    """Parameters that take the same update at the same time; `batch["exp_avg"]` is their state of that name.

    Attributes:
        step: Updates of these parameters so far, this one included.
        lr: Learning rate of the group.
    """

    lr: float
    step: int
    params: Tensors = field(default_factory=list)
    grads: Tensors = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    def __getitem__(self, name: str) -> Tensors:
        return [state[name] for state in self.states]

    def replace(self, name: str, tensors: Iterable[Tensor]) -> None:
        """Put new tensors into the states."""
        for state, tensor in zip(self.states, tensors):
            state[name] = tensor


class BatchOptimizer(Optimizer):
    """Base of an optimizer whose `update` works on a `Batch`.

    A subclass names in `slots` the tensors of a parameter's state that begin as zeros, and refines `init_state` for any
    other. What belongs to no parameter (a generator) goes through `extra_state`; `settings` names the attributes that a
    copy of the optimizer keeps.

    Raises:
        ConfigError: A negative learning rate, weight decay, momentum or eps, a beta outside [0, 1), or corrected weight
            decay with a learning rate of zero.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[tuple[str, ...]] = ()
    counts_by_group: ClassVar[bool] = False  # timm does: a saved group has a "step"

    def __init__(self, params: Any, **defaults: Any) -> None:
        _check(type(self).__name__, defaults)
        if "corrected_weight_decay" in defaults:
            # decay scales with lr ** 2 / peak lr (https://arxiv.org/abs/2506.02285): the peak is the lr of construction
            defaults["max_lr_snapshot"] = float(defaults["lr"])
        super().__init__(params, defaults)

    def update(self, batch: Batch, group: Group) -> None:
        """Change the batch's parameters and states in place."""
        raise NotImplementedError

    def init_state(self, p: Tensor, group: Group) -> State:
        """A parameter's state before its first update, without the step count; names and shapes if on "meta"."""
        return {name: torch.zeros_like(p, dtype=self.state_dtype(name, p, group)) for name in self.slots}

    def state_dtype(self, name: str, p: Tensor, group: Group) -> torch.dtype:
        """Type of the state `name` of a parameter; it survives saving and loading."""
        return p.dtype

    def batch_key(self, state: State, group: Group) -> Any:
        """What, besides device, dtype and step, parameters must share to be updated together."""
        return None

    def before_step(self) -> None:
        """Run once a step, after the closure and before the updates."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient. Returns what `closure`, if given, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.before_step()
        for group in self.param_groups:
            for batch in self._batches(group):
                self.update(batch, group)
        return loss

    def _batches(self, group: Group) -> Iterator[Batch]:
        params = [p for p in group["params"] if p.grad is not None]
        together = group.get("foreach")
        if together is None:
            together = all(p.is_cuda for p in params)
        lr = 0.0 if group["lr"] is None else float(group["lr"])
        batches: dict[Any, Batch] = {}
        for index, p in enumerate(params):
            if p.grad.is_sparse or p.is_complex():
                kind = "complex parameters" if p.is_complex() else "sparse gradients"
                raise ConfigError(f"{type(self).__name__} does not take {kind}; torch.optim.SGD does")
            state = self.state[p]
            if "step" not in state:
                for name, value in {**self.init_state(p, group), "step": 0}.items():
                    state.setdefault(name, value)
            state["step"] = int(state["step"]) + 1
            key = (p.device, p.dtype, state["step"], self.batch_key(state, group)) if together else index
            batch = batches.setdefault(key, Batch(lr, state["step"]))
            batch.params.append(p)
            batch.grads.append(-p.grad if group.get("maximize") else p.grad)
            batch.states.append(state)
        yield from batches.values()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in self.settings}}

    def extra_state(self) -> dict[str, Any]:
        """What `state_dict` holds besides states and groups."""
        return {}

    def load_extra_state(self, extra: dict[str, Any]) -> None:
        """Take back what `extra_state` gave."""

    def state_dict(self) -> dict[str, Any]:
        saved, extra = super().state_dict(), self.extra_state()
        states, groups = dict(saved["state"]), []
        for own, group in zip(self.param_groups, saved["param_groups"]):
            members = [(p, key) for p, key in zip(own["params"], group["params"]) if states.get(key)]
            for p, key in members:
                states[key] = dict(states[key])
                self.to_timm(p, states[key], own)
            steps = {"step": max(int(states[key]["step"]) for _, key in members)} if members else {}
            groups.append({**group, **(steps if self.counts_by_group else {})})
        return {**saved, "state": states, "param_groups": groups, **({"extra": extra} if extra else {})}

    def to_timm(self, p: Tensor, state: State, group: Group) -> None:
        """Put, in place, what a parameter's saved state holds into the form that timm's optimizer goes on from."""

    def from_timm(self, p: Tensor, state: State, group: Group) -> None:
        """Rename, in place, what a parameter's saved state holds under timm's names; one of ours stays as it is."""

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave, here or in timm's optimizer of the same name.

        Raises:
            ConfigError: It is the state of another optimizer, or of parameters of other shapes.
        """
        groups = state_dict["param_groups"]
        if [len(group["params"]) for group in groups] == [len(group["params"]) for group in self.param_groups]:
            state_dict = self._in_our_terms(state_dict)  # torch refuses the others
        super().load_state_dict(state_dict)
        # torch has cast every tensor to its parameter's type, which loses digits where the two differ
        for group, saved_group in zip(self.param_groups, state_dict["param_groups"]):
            for p, key in zip(group["params"], saved_group["params"]):
                for name, value in state_dict["state"].get(key, {}).items():
                    dtype = self.state_dtype(name, p, group)
                    if dtype != p.dtype and name != "step":
                        self.state[p][name] = _recast(value, p.device, dtype)
        if "extra" in state_dict:
            self.load_extra_state(state_dict["extra"])

    def _in_our_terms(self, saved: dict[str, Any]) -> dict[str, Any]:
        """A state dict with all that ours has: timm may count steps by group, use other names, lack some options."""
        states, groups = dict(saved["state"]), []
        for own, group in zip(self.param_groups, saved["param_groups"]):
            group = {**{name: own.get(name, value) for name, value in self.defaults.items()}, **group}
            steps = {"step": group.pop("step")} if "step" in group else {}
            groups.append(group)
            for p, key in zip(own["params"], group["params"]):
                state = {name: value for name, value in states.get(key, {}).items() if value is not None}
                self.from_timm(p, state, group)
                if state:
                    states[key] = {name: int(value) if name == "step" else value
                                   for name, value in {**steps, **state}.items()}  # muon's is a tensor in timm
                    self._check_state(p, state, group)
                else:
                    states.pop(key, None)
        return {**saved, "state": states, "param_groups": groups}

    def _check_state(self, p: Tensor, state: State, group: Group) -> None:
        like = torch.empty(p.shape, dtype=p.dtype, device="meta")
        like.grad = torch.empty_like(like)
        for name, value in self.init_state(like, group).items():
            if name not in state:
                raise ConfigError(f"{type(self).__name__}: it is the state of another optimizer, without '{name}'")
            if _shapes(state[name]) != _shapes(value):
                raise ConfigError(f"{type(self).__name__}: '{name}' of a parameter of shape {tuple(p.shape)} is "
                                  f"{_shapes(state[name])} in the state, not {_shapes(value)}")


def _shapes(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_shapes(item) for item in value]
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _recast(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if isinstance(value, list):
        return [_recast(item, device, dtype) for item in value]
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(device, dtype, copy=True) if is_float else value


def _check(name: str, defaults: dict[str, Any]) -> None:
    for key in ("lr", "eps", "weight_decay", "momentum"):
        value = defaults.get(key)
        if value is not None and not value >= 0:
            raise ConfigError(f"{name}: {key} {value} is negative")
    for beta in defaults.get("betas") or ():
        if beta is not None and not 0 <= beta < 1:
            raise ConfigError(f"{name}: beta {beta} is not in [0, 1)")
    if defaults.get("nesterov") and "dampening" in defaults and (not defaults["momentum"] or defaults["dampening"]):
        raise ConfigError(f"{name}: Nesterov momentum needs a momentum above 0 and no dampening")
    if defaults.get("corrected_weight_decay") and not defaults["lr"] > 0:
        raise ConfigError(f"{name}: corrected weight decay needs the peak learning rate, got lr={defaults['lr']}")


def decay_(batch: Batch, group: Group, scale: float = 1.0) -> None:
    """Weight decay apart from the gradient (https://arxiv.org/abs/1711.05101), corrected where the group says so."""
    lr = batch.lr**2 / group["max_lr_snapshot"] if group.get("corrected_weight_decay") else batch.lr
    if group["weight_decay"]:
        each.mul_(batch.params, 1.0 - lr * group["weight_decay"] * scale)


def cautious(updates: Tensors, grads: Tensors) -> Tensors:
    """Keep of each update the elements whose sign is the gradient's, scaled up by their share of the tensor.

    Cautious Optimizers, https://arxiv.org/abs/2411.16085
    """
    agree = [(product > 0).to(product.dtype) for product in each.mul(updates, grads)]
    each.div_(agree, [mask.mean().clamp_(min=1e-3) for mask in agree])
    return each.mul(updates, agree)


def root_mean(squares: Tensors, beta: float, step: int, eps: float) -> Tensors:
    """Adam's denominator: the root of a running mean of squares, freed of the bias of its start at zero."""
    roots = each.sqrt(squares)
    each.div_(roots, (1.0 - beta**step) ** 0.5)
    each.add_(roots, eps)
    return roots


def trust_ratios(weights: Tensors, updates: Tensors, ratio: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """ratio(weight norms, update norms) of each pair of tensors, (N,); 1 where either norm is zero."""
    weight_norms, update_norms = torch.stack(each.norm(weights)), torch.stack(each.norm(updates))
    return torch.where((weight_norms > 0) & (update_norms > 0), ratio(weight_norms, update_norms), 1.0)
