"""Optimizers that other packages bring, under timm's argument names."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from ..errors import ConfigError

__all__ = ["AdaBelief"]


def AdaBelief(
    params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-16,
    weight_decay: float = 0.0, amsgrad: bool = False, decoupled_decay: bool = True, fixed_decay: bool = False,
    rectify: bool = True, degenerated_to_sgd: bool = True, foreach: bool | None = None,
) -> Optimizer:
    """pytorch-optimizer's AdaBelief (https://arxiv.org/abs/2010.07468).

    It counts steps by group where timm counts by parameter, which shows only where a parameter misses gradients;
    adds coupled weight decay to the gradients in place; and takes `amsgrad` into the rectified update too.

    Args:
        fixed_decay: Weight decay does not scale with the learning rate.
        rectify: Rectify the variance as RAdam does.
        degenerated_to_sgd: Take plain momentum steps while the variance is not known well enough to rectify.

    Raises:
        ImportError: pytorch-optimizer is not installed.
    """
    from pytorch_optimizer import AdaBelief

    optimizer = AdaBelief(
        params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, ams_bound=amsgrad,
        weight_decouple=decoupled_decay, fixed_decay=fixed_decay, rectify=rectify,
        degenerated_to_sgd=degenerated_to_sgd, foreach=foreach)
    optimizer.register_load_state_dict_pre_hook(_from_timm)
    return optimizer


def _from_timm(optimizer: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """A state dict of timm's AdaBelief in pytorch-optimizer's terms; one of its own stays as it is."""
    groups = []
    for own, group in zip(optimizer.param_groups, saved["param_groups"]):
        group = {**{name: own[name] for name in optimizer.defaults if name in own}, **group}
        for name, timms in (("ams_bound", "amsgrad"), ("weight_decouple", "decoupled_decay")):
            group[name] = group.pop(timms, group[name])
        states = [saved["state"][key] for key in group["params"] if key in saved["state"]]
        if not all("exp_avg_var" in state for state in states):
            raise ConfigError("AdaBelief: it is the state of another optimizer, without 'exp_avg_var'")
        if "step" not in group and states:
            steps = {int(state["step"]) for state in states if "step" in state}
            if len(steps) != 1:
                raise ConfigError("AdaBelief counts the steps of a group, and the parameters of the state's have taken "
                                  f"{', '.join(map(str, sorted(steps))) or 'none'}")
            group["step"] = steps.pop()
        groups.append(group)
    return {**saved, "param_groups": groups}
