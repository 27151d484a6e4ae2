"""The optimizers by name. Imports no torch: a class is imported when its optimizer is first built."""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, overload

from ..errors import ConfigError, MissingPackageError
from ..names import closest

__all__ = ["OptimInfo", "get_optimizer_class", "get_optimizer_info", "list_optimizers", "register_alias",
           "register_optimizer"]

_TORCH = "torch.optim."
_OURS = "mvlib.optim."
# what to say where a package is missing
_INSTALL = {
    "bitsandbytes": ("bitsandbytes", "pip install bitsandbytes"),
    "apex": ("apex", "NVIDIA's, built from https://github.com/NVIDIA/apex"),
}


@dataclass(frozen=True)
class OptimInfo:
    """What is known of an optimizer.

    Attributes:
        name: Its name.
        opt_class: The class (or a function that builds one's instance), or its dotted path.
        description: What it is, where it is from, and where it differs from timm's of the same name.
        has_eps: Takes `eps`.
        has_momentum: Takes `momentum`.
        has_betas: Takes `betas`.
        num_betas: How many.
        second_order: Needs gradients with a graph: `loss.backward(create_graph=True)`.
        defaults: Arguments that the name stands for.
        package: The optional package that it needs.
    """

    name: str
    opt_class: str | Callable[..., Any]
    description: str = ""
    has_eps: bool = True
    has_momentum: bool = False
    has_betas: bool = False
    num_betas: int = 2
    second_order: bool = False
    defaults: dict[str, Any] | None = None
    package: str | None = None


_infos: dict[str, OptimInfo] = {}


def register_optimizer(
    name: str,
    opt_class: str | Callable[..., Any],
    description: str = "",
    *,
    has_eps: bool = True,
    has_momentum: bool = False,
    has_betas: bool = False,
    num_betas: int = 2,
    second_order: bool = False,
    defaults: dict[str, Any] | None = None,
    package: str | None = None,
) -> OptimInfo:
    """Make an optimizer known by name; a name that is taken is taken over, with a warning.

    Args:
        name: Case does not matter. It may not begin with "lookahead_", which wraps the optimizer of the rest.
        opt_class: Called with (params, **arguments), or the dotted path of what is. `lr` and `weight_decay` are always
            passed as keywords; `momentum`, `eps` and `betas` where the flags below say so.
        description: For `list_optimizers(with_description=True)`.
        has_eps: Takes `eps`.
        has_momentum: Takes `momentum`.
        has_betas: Takes `betas`.
        num_betas: How many.
        second_order: Needs gradients with a graph.
        defaults: Arguments to pass unless the caller gives them.
        package: Module that must be installed.

    Returns:
        What `get_optimizer_info(name)` gives from now on.

    Raises:
        ConfigError: The name is empty or begins with "lookahead_".
    """
    key = name.lower()
    if not key or key.startswith("lookahead_"):
        raise ConfigError(f"'{name}' cannot name an optimizer: 'lookahead_' is a prefix that any name takes")
    if key in _infos:
        warnings.warn(f"optimizer '{key}' is registered anew", stacklevel=2)
    _infos[key] = OptimInfo(
        key, opt_class, description, has_eps, has_momentum, has_betas, num_betas, second_order, defaults, package)
    return _infos[key]


def register_alias(alias: str, target: str) -> None:
    """Give an optimizer a second name.

    Raises:
        ConfigError: There is none of the first.
    """
    _infos[alias.lower()] = get_optimizer_info(target)


@overload
def list_optimizers(
    filter: str | Iterable[str] = ..., exclude_filters: str | Iterable[str] | None = ...,
    with_description: Literal[False] = ...,
) -> list[str]: ...
@overload
def list_optimizers(
    filter: str | Iterable[str] = ..., exclude_filters: str | Iterable[str] | None = ..., with_description: bool = ...,
) -> list[str] | list[tuple[str, str]]: ...
def list_optimizers(
    filter: str | Iterable[str] = "",
    exclude_filters: str | Iterable[str] | None = None,
    with_description: bool = False,
) -> list[str] | list[tuple[str, str]]:
    """Names of optimizers, sorted.

    Args:
        filter: Wildcards, one or several, that a name must match one of; "" is all.
        exclude_filters: Wildcards of names to leave out.
        with_description: Give pairs (name, description).
    """
    wanted = [filter] if isinstance(filter, str) else list(filter)
    unwanted = [exclude_filters] if isinstance(exclude_filters, str) else list(exclude_filters or ())
    names = [name for name in sorted(_infos) if _any_match(name, wanted if any(wanted) else ["*"])]
    names = [name for name in names if not _any_match(name, unwanted)]
    return [(name, _infos[name].description) for name in names] if with_description else names


def _any_match(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def get_optimizer_info(name: str) -> OptimInfo:
    """What is known of an optimizer.

    Raises:
        ConfigError: There is none of that name; the message has the closest ones.
    """
    key = name.lower()
    if key not in _infos:
        raise ConfigError(f"unknown optimizer '{name}'{closest(key, _infos)}")
    return _infos[key]


def get_optimizer_class(name: str | OptimInfo, bind_defaults: bool = True) -> Callable[..., Any]:
    """The class of an optimizer, with the arguments that its name stands for bound unless not `bind_defaults`.

    Raises:
        ConfigError: There is none of that name, or it needs a CUDA device and there is none.
        MissingPackageError: It needs a package that is not installed.
    """
    info = get_optimizer_info(name) if isinstance(name, str) else name
    opt_class = info.opt_class
    if info.package is not None:
        _require(info)
    if isinstance(opt_class, str):
        module, _, attribute = opt_class.rpartition(".")
        opt_class = getattr(importlib.import_module(module), attribute)
    return partial(opt_class, **info.defaults) if bind_defaults and info.defaults else opt_class


def _require(info: OptimInfo) -> None:
    try:
        is_there = importlib.util.find_spec(info.package) is not None
    except ValueError:  # a module set to None
        is_there = False
    if not is_there:
        package, install = _INSTALL.get(info.package, (info.package, f"pip install {info.package}"))
        raise MissingPackageError(f"'{info.name}' needs the package '{package}': {install}")
    if info.package in ("apex", "bitsandbytes"):
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(f"'{info.name}' needs a CUDA device")


def _add(name: str, opt_class: str, description: str, *has: str, package: str | None = None, **defaults: Any) -> None:
    """Register one of ours; `has` names the common arguments that it takes: "eps", "momentum", "betas", "betas3"."""
    _infos[name] = OptimInfo(
        name, opt_class, description, "eps" in has, "momentum" in has, "betas" in has or "betas3" in has,
        3 if "betas3" in has else 2, "second_order" in has, defaults or None, package)


def _derive(name: str, base: str, description: str, **defaults: Any) -> None:
    """Register a name that stands for another optimizer with further arguments."""
    info = _infos[base]
    _infos[name] = replace(
        info, name=name, description=f"{description}; see {base}", defaults={**(info.defaults or {}), **defaults})


def _register_all() -> None:
    _add("sgd", _TORCH + "SGD", "torch's SGD with Nesterov momentum", "momentum", nesterov=True)
    _add("momentum", _TORCH + "SGD", "torch's SGD with classical momentum", "momentum", nesterov=False)
    _add("adam", _TORCH + "Adam", "torch's Adam", "eps", "betas")
    _add("adamw", _TORCH + "AdamW", "torch's AdamW", "eps", "betas")
    _add("nadam", _TORCH + "NAdam", "torch's NAdam", "eps", "betas")
    _add("radam", _TORCH + "RAdam", "torch's RAdam", "eps", "betas")
    _derive("radamw", "radam", "with decoupled weight decay", decoupled_weight_decay=True)
    _add("adamax", _TORCH + "Adamax", "torch's Adamax", "eps", "betas")
    _add("adadelta", _TORCH + "Adadelta", "torch's Adadelta", "eps")
    _add("adagrad", _TORCH + "Adagrad", "torch's Adagrad", "eps", eps=1e-8)
    _add("rmsprop", _TORCH + "RMSprop", "torch's RMSprop", "eps", "momentum", alpha=0.9)

    momentum, adaptive = _OURS + "momentum.", _OURS + "adaptive."
    _add("sgdw", momentum + "SGDW", "SGD with Nesterov momentum and decoupled weight decay", "momentum", nesterov=True)
    _add("sgdp", momentum + "SGDP", "SGD that does not lengthen scale-invariant weights", "eps", "momentum",
         nesterov=True)
    _add("lars", momentum + "Lars", "LARS, a learning rate for each layer", "eps", "momentum")
    _add("lion", momentum + "Lion", "Lion, the sign of the momentum", "betas")
    _add("madgrad", momentum + "MADGRAD", "MADGRAD, momentumized dual averaging", "eps", "momentum")
    _add("rmsproptf", momentum + "RMSpropTF", "RMSprop as TensorFlow has it", "eps", "momentum", alpha=0.9)

    for name, text, rectify in (("adabelief", "AdaBelief", False), ("radabelief", "AdaBelief, rectified", True)):
        _add(name, adaptive + "AdaBelief", text, "eps", "betas", rectify=rectify)
    _add("adamwlegacy", adaptive + "AdamWLegacy", "AdamW with caution, corrected decay and update clipping", "eps",
         "betas")
    _add("nadamw", adaptive + "NAdamW", "AdamW with Nesterov momentum, AlgoPerf's", "eps", "betas")
    _add("nadamlegacy", adaptive + "NAdamLegacy", "NAdam from before torch had it", "eps", "betas")
    _add("radamlegacy", adaptive + "RAdamLegacy", "RAdam from before torch had it, with decoupled weight decay", "eps",
         "betas")
    _add("adamp", adaptive + "AdamP", "Adam that does not lengthen scale-invariant weights", "eps", "betas",
         wd_ratio=0.01, nesterov=True)
    _add("adan", adaptive + "Adan", "Adan, adaptive Nesterov momentum", "eps", "betas3", no_prox=False)
    _add("adanw", adaptive + "Adan", "Adan with AdamW's weight decay", "eps", "betas3", no_prox=True)
    _add("adopt", adaptive + "Adopt", "ADOPT, which converges with any beta2", "eps", "betas")
    _add("laprop", adaptive + "LaProp", "LaProp, momentum of scaled gradients", "eps", "betas")
    _add("lamb", adaptive + "Lamb", "LAMB, Adam with a learning rate for each layer", "eps", "betas")
    _add("mars", adaptive + "Mars", "MARS, variance reduction for Adam", "eps", "betas")
    _add("novograd", adaptive + "NvNovoGrad", "NovoGrad, one second moment a tensor, NVIDIA's", "eps", "betas")
    _add("adafactor", _OURS + "adafactor.Adafactor", "Adafactor, fairseq's", "eps", "betas")
    _add("adafactorbv", _OURS + "adafactor.AdafactorBigVision", "Adafactor, Big Vision's, half-precision momentum",
         "eps", "momentum")
    _add("adahessian", _OURS + "second_order.Adahessian", "AdaHessian; the state of its random numbers is saved too",
         "eps", "betas", "second_order")
    _add("kron", _OURS + "second_order.Kron", "PSGD with Kronecker factors; deterministic=True by default, unlike "
         "timm's, and never compiled", "momentum")
    _add("muon", _OURS + "muon.Muon", "Muon, AdamW for vectors", "eps", "momentum", "betas")
    _derive("nmuon", "muon", "with Nesterov momentum, NAdamW for vectors", nesterov=True)
    _derive("adamuon", "muon", "with a running mean of squares", algo="adamuon")
    _derive("nadamuon", "adamuon", "with Nesterov momentum, NAdamW for vectors", nesterov=True)

    _derive("nlars", "lars", "with Nesterov momentum", nesterov=True)
    for name, base in (("larc", "lars"), ("nlarc", "nlars"), ("lambc", "lamb")):
        _derive(name, base, "never above the plain learning rate", trust_clip=True)
    for base, argument in (
        ("lamb", "decoupled_decay"), ("lambc", "decoupled_decay"), ("adopt", "decoupled"),
        ("kron", "decoupled_decay"), ("madgrad", "decoupled_decay"), ("novograd", "decoupled_decay"),
        ("rmsproptf", "decoupled_decay"),
    ):
        _derive(base + "w", base, "with decoupled weight decay", **{argument: True})

    for base in (
        "adafactor", "adafactorbv", "adamp", "adan", "adanw", "adopt", "adoptw", "lamb", "lambw", "laprop", "lion",
        "mars", "nadamw", "rmsproptf", "sgdp", "sgdw",
    ):
        # Adafactor is cautious of its momentum, which it has only where betas are given
        extra = {"betas": (0.9, 0.999)} if base == "adafactor" else {}
        _derive("c" + base, base, "cautious", caution=True, **extra)
    _derive("cadamw", "adamwlegacy", "cautious", caution=True)

    for name, base in (
        ("adamc", "adamwlegacy"), ("nadamc", "nadamw"), ("sgdc", "sgdw"), ("adoptc", "adoptw"), ("lambcd", "lambw"),
        ("kronc", "kronw"), ("lionc", "lion"), ("lapropc", "laprop"), ("rmsproptfc", "rmsproptfw"),
        ("novogradc", "novogradw"), ("adafactorbvc", "adafactorbv"), ("cadamc", "cadamw"), ("cadoptc", "cadoptw"),
        ("cnadamc", "cnadamw"), ("csgdc", "csgdw"), ("clionc", "clion"), ("cadafactorbvc", "cadafactorbv"),
    ):
        _derive(name, base, "with weight decay that scales with lr ** 2 / peak lr", corrected_weight_decay=True)

    apex = partial(_add, package="apex")
    apex("fusedsgd", "apex.optimizers.FusedSGD", "NVIDIA apex' SGD", "momentum", nesterov=True)
    apex("fusedadam", "apex.optimizers.FusedAdam", "NVIDIA apex' Adam", "eps", "betas", adam_w_mode=False)
    apex("fusedadamw", "apex.optimizers.FusedAdam", "NVIDIA apex' AdamW", "eps", "betas", adam_w_mode=True)
    apex("fusedlamb", "apex.optimizers.FusedLAMB", "NVIDIA apex' LAMB", "eps", "betas")
    apex("fusednovograd", "apex.optimizers.FusedNovoGrad", "NVIDIA apex' NovoGrad", "eps", "betas", betas=(0.95, 0.98))
    for name, attribute, has, defaults in (
        ("sgd", "SGD", ("momentum",), {"nesterov": True}), ("adam", "Adam", ("eps", "betas"), {}),
        ("adamw", "AdamW", ("eps", "betas"), {}), ("lion", "Lion", ("betas",), {}),
        ("ademamix", "AdEMAMix", ("eps", "betas3"), {}),
    ):
        for suffix, text in (("", ""), ("8bit", " with 8-bit state")):
            _add(f"bnb{name}{suffix}", f"bitsandbytes.optim.{attribute}{suffix}", f"bitsandbytes' {attribute}{text}",
                 *has, package="bitsandbytes", **defaults)

    for alias, name in (("nesterov", "sgd"), ("nesterovw", "sgdw"), ("nvnovograd", "novograd")):
        _infos[alias] = _infos[name]


_register_all()
