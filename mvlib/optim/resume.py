"""The saved state of an optimizer, put where it belongs in another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import ConfigError
from ..layers.helpers import named_parameters, plain_name

__all__ = ["resume_optimizer"]

Groups = Sequence[Mapping[str, Any]]
_HOW = ("foreach", "fused", "capturable", "differentiable")  # an optimizer computes, not what
_LIKE_PARAMETER = ("exp_avg", "momentum_buffer")


def resume_optimizer(
    optimizer: Optimizer, saved: Mapping[str, Any], model: nn.Module, order: Iterable[str]
) -> None:
    """Load what the optimizer of a model saved, here or in timm, parameter by parameter.

    A saved state knows parameters by number alone: by their place in the groups. Where the model's parameters came in
    another order then, each still gets its own state.

    Args:
        optimizer: Of the model's parameters.
        saved: Its `state_dict()` then.
        model: The model.
        order: Names in the order that the parameters had then, as the saved model's state dict has it; others may be
            among them.

    Raises:
        ConfigError: It is the state of another kind of optimizer, or of other parameter groups.
    """
    groups, then = optimizer.param_groups, saved["param_groups"]
    names = {id(p): name for name, p in named_parameters(model)}
    own = [[names[id(p)] for p in group["params"]] for group in groups]
    where = _numbers(groups, own, then, {plain_name(name): place for place, name in enumerate(order)})
    resumed = []
    for group, members in zip(groups, own):
        before = where[members[0]][0] if members else {}
        known = {"betas" if key == "beta1" else key for key in before}  # timm's Adafactor has the first one alone
        differ = [key for key in ("betas", "momentum", "eps") if (key in group) != (key in known)]
        if members and differ:
            raise ConfigError(f"it is the state of another optimizer, {'without' if differ[0] in group else 'with'} "
                              f"{differ[0]}")
        resumed.append({**group, **before, **{key: group[key] for key in _HOW if key in group},
                        "params": [where[name][1] for name in members]})
        if group.get("flatten"):  # Kron's momentum is; it looks at the shapes itself
            continue
        for p, number in zip(group["params"], resumed[-1]["params"]):
            _check_shape(names[id(p)], p, saved["state"].get(number, {}))
    optimizer.load_state_dict({**saved, "param_groups": resumed})


def _numbers(
    groups: Groups, own: Sequence[Sequence[str]], then: Groups, place: Mapping[str, int]
) -> dict[str, tuple[Mapping[str, Any], int]]:
    """The group and the number that each parameter had then."""
    kept = [sorted(members, key=place.__getitem__) for members in own]
    # Groups for weight decay come in an order of their own, those for layer decay in that of their first parameters.
    for order in (range(len(kept)), sorted(range(len(kept)), key=lambda i: place[kept[i][0]] if kept[i] else -1)):
        if _sizes([groups[i] for i in order]) == _sizes(then):
            return {name: (group, number) for i, group in zip(order, then)
                    for name, number in zip(kept[i], group["params"])}
    raise ConfigError(f"its optimizer has other parameter groups: {_described(then)}, and this run's "
                      f"{_described(groups)}")


def _sizes(groups: Groups) -> list[tuple[int, float]]:
    return [(len(group["params"]), group.get("lr_scale", 1.0)) for group in groups]


def _described(groups: Groups) -> str:
    parts = [f"{len(group['params'])} parameters with weight decay {group.get('weight_decay', 0):g}"
             + (f" and learning rate times {group['lr_scale']:.3g}" if "lr_scale" in group else "") for group in groups]
    more = f" and {len(parts) - 4} more groups" if len(parts) > 4 else ""
    return f"{len(parts)} ({'; '.join(parts[:4])}{more})"


def _check_shape(name: str, p: Tensor, state: Mapping[str, Any]) -> None:
    for key in _LIKE_PARAMETER:
        value = state.get(key)
        if isinstance(value, Tensor) and value.shape != p.shape:
            raise ConfigError(f"its optimizer's '{key}' for '{name}' is {tuple(value.shape)}, and the parameter "
                              f"{tuple(p.shape)}")
