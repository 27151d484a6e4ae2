"""From a name and a model to an optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import ConfigError
from ..layers.helpers import unwrap
from ..names import closest
from .param_groups import param_groups_layer_decay, param_groups_weight_decay
from .registry import OptimInfo, get_optimizer_class, get_optimizer_info

__all__ = ["create_optimizer", "create_optimizer_v2", "optimizer_kwargs"]

_LOOKAHEAD = "lookahead_"


class _Guarded(Optimizer):
    """torch's own, but copies and what is unpickled look before a fused step too; torch forgets a copy's hooks."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if _prepare_fused not in self._optimizer_step_pre_hooks.values():
            self.register_step_pre_hook(_prepare_fused)


class SGD(_Guarded, torch.optim.SGD):
    pass


class Adam(_Guarded, torch.optim.Adam):
    pass


class AdamW(_Guarded, torch.optim.AdamW):
    pass


class Adagrad(_Guarded, torch.optim.Adagrad):
    pass


# one pass over memory instead of several; same results up to the last bit
_FUSED = {torch.optim.SGD: SGD, torch.optim.Adam: Adam, torch.optim.AdamW: AdamW, torch.optim.Adagrad: Adagrad}


def create_optimizer_v2(
    model_or_params: nn.Module | Iterable[Any],
    opt: str = "sgd",
    lr: float | None = None,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    foreach: bool | None = None,
    filter_bias_and_bn: bool = True,
    fallback_list: Collection[str] = (),
    fallback_no_weight_decay: bool = False,
    layer_decay: float | None = None,
    layer_decay_min_scale: float = 0.0,
    layer_decay_no_opt_scale: float | None = None,
    param_group_fn: Callable[[nn.Module], Any] | None = None,
    **kwargs: Any,
) -> Optimizer:
    """Create an optimizer by name.

    torch's SGD, Adam, AdamW and Adagrad run fused where all parameters are floating tensors on a CPU or a CUDA device,
    unless `foreach` or `fused` says otherwise; but never, `fused=True` or not, groups that the fused kernels would
    update wrongly or refuse: with slices and other tensors that have gaps in memory, sparse gradients, DTensors.

    Args:
        model_or_params: A model, in wrappers (DDP, torch.compile, ...) or not, whose trainable parameters are sorted
            into groups by the arguments below, or parameters or groups, which are taken as they are.
        opt: Name (see `list_optimizers`), after "lookahead_" wrapped in `Lookahead`.
        lr: Learning rate; None is the optimizer's own default.
        weight_decay: Weight decay.
        momentum: Momentum, where the optimizer has one.
        foreach: Update all tensors at once (True) or one by one (False); None leaves it to the optimizer.
        filter_bias_and_bn: Of a model: vectors, scalars and biases take no weight decay, nor does what
            `model.no_weight_decay()` names.
        fallback_list: Names or wildcards of parameters that a hybrid optimizer's fallback updates (Muon: AdamW).
        fallback_no_weight_decay: What `model.no_weight_decay()` names goes to the fallback too.
        layer_decay: Factor of the learning rate from one layer to the one before it; see `param_groups_layer_decay`.
        layer_decay_min_scale: Least such factor.
        layer_decay_no_opt_scale: Layers with a smaller factor are frozen.
        param_group_fn: From the model to groups, in place of all that.
        **kwargs: Further arguments of the optimizer. `eps` and `betas` are dropped where it has none.

    Raises:
        ConfigError: An unknown name, an argument that the optimizer does not take, or a value that it refuses.
        MissingPackageError: The optimizer needs a package that is not installed.
    """
    name = opt.lower()
    wrap = name.startswith(_LOOKAHEAD)
    info = get_optimizer_info(name.removeprefix(_LOOKAHEAD))
    opt_class = get_optimizer_class(info, bind_defaults=False)

    params = model_or_params
    if isinstance(model_or_params, nn.Module) and param_group_fn is not None:
        params = param_group_fn(model_or_params)
    elif isinstance(model_or_params, nn.Module):
        inner = unwrap(model_or_params)
        no_decay = inner.no_weight_decay() if hasattr(inner, "no_weight_decay") else ()
        common = dict(
            weight_decay=weight_decay, no_weight_decay_list=no_decay, fallback_list=fallback_list,
            fallback_no_weight_decay=fallback_no_weight_decay, weight_decay_exclude_1d=filter_bias_and_bn)
        if layer_decay is None:
            params = param_groups_weight_decay(model_or_params, **common)
        else:
            params = param_groups_layer_decay(
                model_or_params, layer_decay=layer_decay, min_scale=layer_decay_min_scale,
                no_opt_scale=layer_decay_no_opt_scale, **common)
        weight_decay = 0.0  # the groups say it
        if not params:
            raise ConfigError("the model has no trainable parameters")
    params = _listed(params)

    arguments = {"weight_decay": weight_decay, **(info.defaults or {}), **kwargs}
    if lr is not None:
        arguments["lr"] = lr
    if info.has_momentum:
        arguments.setdefault("momentum", momentum)
    for argument, is_taken in (("eps", info.has_eps), ("betas", info.has_betas)):
        if not is_taken:
            arguments.pop(argument, None)
    if foreach is not None:
        arguments.setdefault("foreach", foreach)
    _check_arguments(info, opt_class, arguments)
    if opt_class in _FUSED:
        _choose_fused(arguments, list(_tensors(params)))
    try:
        optimizer = _FUSED.get(opt_class, opt_class)(params, **arguments)
    except ConfigError:
        raise
    except ValueError as error:  # a learning rate, beta, ... out of its range
        raise ConfigError(f"optimizer '{opt}': {error}") from error
    if opt_class in _FUSED:
        optimizer.register_step_pre_hook(_prepare_fused)
        optimizer._step_supports_amp_scaling = False  # a step may turn out not to be fused, which cannot unscale
    if wrap:
        from .lookahead import Lookahead

        return Lookahead(optimizer)
    return optimizer


def _listed(params: Iterable[Any]) -> list[Any]:
    """Parameters or groups as lists, so that they can be looked at before the optimizer reads them."""
    if isinstance(params, Tensor):
        raise ConfigError("parameters are given as a model or a list of tensors, not as one tensor")
    return [
        {**item, "params": [item["params"]] if isinstance(item["params"], Tensor) else list(item["params"])}
        if isinstance(item, dict) else item
        for item in params
    ]


def _tensors(params: Iterable[Any]) -> Iterator[Tensor]:
    for item in params:
        if isinstance(item, dict):
            yield from _tensors(item["params"])
        else:
            yield item[1] if isinstance(item, tuple) else item  # (name, parameter)


def _choose_fused(arguments: dict[str, Any], params: Sequence[Tensor]) -> None:
    """Set `fused` among an optimizer's arguments where nothing that was asked for speaks against it."""
    settled = ("foreach", "fused", "capturable", "differentiable")
    by_default = (
        all(arguments.get(name) is None for name in settled)
        and not isinstance(arguments.get("lr"), Tensor)
        and all(p.device.type in ("cpu", "cuda") for p in params))
    if by_default or arguments.get("fused"):
        arguments["fused"] = all(map(_suits_fused, params)) or None


def _suits_fused(p: Tensor, *others: Tensor) -> bool:
    """Whether torch's fused kernels update a parameter rightly, given its gradient and state.

    They walk the tensors' memory from end to end as if all were of the parameter's type, and know no subclasses.
    """
    return (
        type(p) in (Tensor, nn.Parameter) and p.is_floating_point() and p.layout == torch.strided and _is_dense(p)
        and all(t.dtype == p.dtype and t.layout == torch.strided for t in others))


def _is_dense(p: Tensor) -> bool:
    """Whether each element has its own place in memory and there are no gaps between them."""
    if p.is_contiguous():
        return True
    end = 1
    for stride, size in sorted((stride, size) for size, stride in zip(p.shape, p.stride()) if size > 1):
        if stride != end:
            return False
        end *= size
    return True


def _prepare_fused(optimizer: Optimizer, *_: Any) -> None:
    """Before a step: leave the fused kernel where it would be wrong, and lay everything out as it takes it.

    Parameters, gradients and state may have become what they were not when the optimizer was made: added or cast
    later, loaded from a model that was channels_last.
    """
    for group in optimizer.param_groups:
        for p in group["params"] if group.get("fused") else ():
            if p.grad is None:
                continue
            state = {name: value for name, value in optimizer.state.get(p, {}).items()
                     if name != "step" and isinstance(value, Tensor)}
            if not _suits_fused(p, p.grad, *state.values()):
                group["fused"] = None
                break
            if not _same_layout(p.grad, p):
                p.grad = torch.empty_like(p).copy_(p.grad)
            for name, value in state.items():
                if not _same_layout(value, p):
                    optimizer.state[p][name] = torch.empty_like(p).copy_(value)


def _same_layout(a: Tensor, b: Tensor) -> bool:
    if a.stride() == b.stride():
        return True
    return all(i == j for size, i, j in zip(a.shape, a.stride(), b.stride()) if size > 1)


def _check_arguments(info: OptimInfo, opt_class: Callable[..., Any], arguments: dict[str, Any]) -> None:
    parameters = inspect.signature(opt_class).parameters.values()
    known = [p.name for p in list(parameters)[1:] if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if not any(p.kind == p.VAR_KEYWORD for p in parameters):
        if "weight_decay" not in known and not arguments["weight_decay"]:
            del arguments["weight_decay"]
        for name in arguments:
            if name not in known:
                raise ConfigError(f"optimizer '{info.name}' takes no argument '{name}'{closest(name, known)}; it takes "
                                  f"{', '.join(known)}")
    betas = arguments.get("betas")
    if betas is not None and len(betas) != info.num_betas:
        raise ConfigError(f"optimizer '{info.name}' takes {info.num_betas} betas, got {len(betas)}: {tuple(betas)}")


def optimizer_kwargs(cfg: Any) -> dict[str, Any]:
    """Arguments of `create_optimizer_v2` from those of a command line.

    Args:
        cfg: Has `opt`, `lr`, `weight_decay` and `momentum`; may have `opt_eps`, `opt_betas`, `layer_decay`,
            `layer_decay_min_scale`, `layer_decay_no_opt_scale`, `opt_foreach`, which are passed on unless None, and
            `opt_args`, a dict of further arguments.
    """
    kwargs = {name: getattr(cfg, name) for name in ("opt", "lr", "weight_decay", "momentum")}
    optional = {
        "eps": "opt_eps", "betas": "opt_betas", "layer_decay": "layer_decay",
        "layer_decay_min_scale": "layer_decay_min_scale", "layer_decay_no_opt_scale": "layer_decay_no_opt_scale",
    }
    found = {name: getattr(cfg, option, None) for name, option in optional.items()}
    kwargs.update((name, value) for name, value in found.items() if value is not None)
    kwargs.update(getattr(cfg, "opt_args", None) or {})
    if getattr(cfg, "opt_foreach", None) is not None:
        kwargs["foreach"] = cfg.opt_foreach
    return kwargs


def create_optimizer(args: Any, model: nn.Module | Iterable[Any], filter_bias_and_bn: bool = True) -> Optimizer:
    """`create_optimizer_v2` with the arguments of a command line, see `optimizer_kwargs`."""
    return create_optimizer_v2(model, **optimizer_kwargs(args), filter_bias_and_bn=filter_bias_and_bn)
