"""Compares mvlib's models with timm's and torchvision's; see `python -m tests.parity --help` and __main__.py.

Its checks, each a function from an architecture's name to findings; the first three on the meta device, so that they
cost no memory:

keys: names, shapes and kinds (parameter or buffer) of the state dict, the order of it, of parameters and of buffers,
    `feature_info`, widths, norms' epsilons and momenta, `no_weight_decay`, and the layer groups for layer-wise learning
    rates.
extractors: `features_only` with several `out_indices`: state dict, its order; channels, strides, names of the outputs.
heads: what `reset_classifier` and `prune_intermediate_layers` leave; rates of stochastic depth.
init: initial weights: each tensor's mean and standard deviation, within the error of a sample of its size.
outputs: float32, eval mode: logits, classifier's input, `forward_intermediates` (plain and with the final norm).
features: float32, eval mode: `features_only` outputs, their channels and strides.
graphs: float32, eval mode: what `torch.jit.trace` makes of one image and `torch.jit.script` of the model, on more.
gradients: float64, train mode, drop rates 0: every parameter's gradient. In float64, because a sum over a batch in
    another order is amplified by batch norm's backward pass until float32 says little.
step: the shortest that says as much of a type of block: logits and gradients, float64, eval mode; not among "all".

Weights are random but alive: convolutions and linear layers keep variance, batch-norm statistics are those of a random
batch and then perturbed, and biases, norms' scales, layer scales, tokens and bias tables differ from what their
initial values would hide (zeros and ones). Differences are relative: max |a - b| / max |b|.

Random weights amplify rounding, most of all in deep networks whose branches are weighed by softmax or sigmoid. Where
outputs or features differ in float32, float64 decides: a difference that is gone there (under 1e-8), while ours is as
near to timm's float64 logits as timm's float32 is, was of rounding, and is noted.
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import math
import pkgutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest import mock

import timm
import torch
import torchvision
from timm.models import cspnet
from timm.models._manipulate import group_parameters
from torch import Tensor, nn

import mvlib
import mvlib.models
from mvlib import registry
from mvlib.features import FeatureExtractor
from mvlib.loading import load_weights
from tests.skeleton import skeletons, uninitialised

CHECKS = ("keys", "extractors", "heads", "init", "outputs", "features", "graphs", "gradients")
SUBSETS = {  # what `features_only` is asked for; fewer than four taps have no middle
    "default": {}, "first": {"out_indices": (0,)}, "last": {"out_indices": (-1,)}, "some": {"out_indices": (1, -2)}}
CANNOT = (RuntimeError, TypeError, AttributeError, AssertionError, IndexError)  # timm's, where it has no features
TOLERANCE = 1e-5
EXACT = 1e-8  # in float64, of rounding that is amplified as much as makes float32 say nothing
BATCH = 2
GIB = 2**30
LEFT_WHOLE = ("hrnet",)  # timm keeps widths and layers of what it cut off, and stops early with a list of maps
HEADS = (dict(num_classes=7), dict(num_classes=7, global_pool="max"), dict(num_classes=7, global_pool="avg"),
         dict(num_classes=0), dict(num_classes=0, global_pool=""))
PRUNINGS = (dict(indices=1), dict(indices=[0]), dict(indices=[0, 2]), dict(indices=1, prune_head=False),
            dict(indices=1, prune_norm=True), dict(indices=[1], prune_head=False))
# At once; float64 weights and two gradients.
_BYTES_PER_PARAMETER = {"init": 8, "outputs": 4, "features": 8, "graphs": 12, "gradients": 24, "step": 24}

StateDict = dict[str, Tensor]
Build = Callable[..., nn.Module]  # keyword arguments -> a model on the meta device


class NotApplicable(Exception):
    """A check that the other library's model does not support; the message is the reason."""


@dataclass
class Report:
    """What was found for one architecture."""

    name: str
    parameters: int = 0
    differences: dict[str, float] = field(default_factory=dict)  # "logits" -> relative difference
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was left out, and why
    passed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    tolerance: float | None = None  # TOLERANCE unless given

    @property
    def ok(self) -> bool:
        return not self.problems

    def fail(self, error: Exception, check: str = "") -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.problems.append(f"{check + ': ' if check else ''}{type(error).__name__}: {_first_line(error)} "
                             f"({where.filename.rpartition('/')[2]}:{where.lineno})")

    def compare(self, what: str, ours: Any, theirs: Any) -> None:
        """Compare tensors, or lists of them, under the name `what`."""
        ours, theirs = _flat(ours), _flat(theirs)
        shapes = [tuple(t.shape) for t in ours], [tuple(t.shape) for t in theirs]
        if shapes[0] != shapes[1]:
            self.problems.append(f"{what}: shapes {shapes[0]}, expected {shapes[1]}")
            return
        worst = max((relative_difference(a, b) for a, b in zip(ours, theirs)), default=0.0)
        self.differences[what] = max(worst, self.differences.get(what, 0.0))
        if not worst <= (TOLERANCE if self.tolerance is None else self.tolerance):
            self.problems.append(f"{what}: differs by {worst:.1e}")
        elif theirs and min(t.std().item() if t.numel() > 1 else 1.0 for t in theirs) < 1e-6:
            self.problems.append(f"{what}: a constant output proves nothing; the random weights need care")


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [tensor for item in value for tensor in _flat(item)]


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """max |ours - theirs| / max |theirs|; NaN where either holds one."""
    scale = theirs.abs().max().item() if theirs.numel() else 0.0
    gap = (ours - theirs).abs().max().item() if theirs.numel() else 0.0
    return gap / scale if scale > 0.0 else gap


# names

def import_families() -> tuple[list[str], dict[str, str]]:
    """Import every family module, so that architectures count that are not in the index yet.

    Returns:
        The families that define architectures, and those that cannot be imported with the reason.
    """
    broken = {}
    modules = [info.name for info in pkgutil.iter_modules(mvlib.models.__path__)]
    for module in modules:
        try:
            importlib.import_module(f"mvlib.models.{module}")
        except Exception as error:  # one family being written must not stop the others
            broken[module] = f"{type(error).__name__}: {_first_line(error)}"
    return [m for m in modules if m not in broken and m in registry.list_modules()], broken


def list_architectures(patterns: Sequence[str] = (), modules: Sequence[str] = ()) -> list[str]:
    """Our architectures that match any pattern; a family's name stands for all of its architectures.

    Raises:
        ValueError: A pattern or a module matches nothing.
    """
    families, broken = import_families()
    for module in modules:
        if module not in families:
            raise ValueError(f"mvlib has no family '{module}'" + (f": {broken[module]}" if module in broken else ""))
    known = registry.list_models(module=list(modules) or families)
    names: dict[str, None] = {}
    for pattern in patterns or ["*"]:
        family = registry.list_models(module=pattern) if pattern in families else []
        matches = [name for name in family or registry.list_models(pattern) if name in set(known)]
        if not matches:
            raise ValueError(f"no architecture of mvlib matches '{pattern}'" +
                             (f": {broken[pattern]}" if pattern in broken else ""))
        names.update(dict.fromkeys(matches))
    return list(names)


# building

def build_ours(name: str, state_dict: StateDict | None = None, dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
    """Our model on the meta device, or with these weights, whose memory it shares."""
    model = mvlib.create_model(name, pretrained=False, device="meta", **kwargs)
    if state_dict is not None:
        load_weights(model, state_dict, dtype=dtype)
        left = [key for key, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
        if left:
            raise AssertionError(f"still on the meta device after loading: {', '.join(left[:5])}")
    return model


def build_timm(name: str, meta: bool = False, **kwargs: Any) -> nn.Module:
    """timm's model; every one of timm 1.0.31 can be built on the meta device."""
    with skeletons() if meta else uninitialised():
        return create_timm(name, **kwargs)


def build_initialised_timm(name: str, **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_timm(name, **kwargs)


def create_timm(name: str, **kwargs: Any) -> nn.Module:
    """timm's model; arguments that its entrypoint sets, and lets nobody else set, are set behind it."""
    arguments = _as_timms(name, kwargs)
    try:
        return timm.create_model(name, **arguments)
    except TypeError as error:
        if "multiple values for keyword argument" not in str(error):
            raise
    module = sys.modules[timm.model_entrypoint(name).__module__]
    given = {key: value for key, value in arguments.items() if value is not None}  # as timm.create_model does
    creators = {creator: partial(_create_with, function, given) for creator, function in vars(module).items()
                if creator.startswith("_create_")}
    with mock.patch.multiple(module, **creators):
        return timm.create_model(name)


def _create_with(create: Callable[..., nn.Module], given: dict[str, Any], *args: Any, **fixed: Any) -> nn.Module:
    return create(*args, **{**fixed, **given})


def _as_timms(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Our arguments as timm's models take them: its CSPNets have those of the stem and of the stages in an object."""
    if name not in cspnet.model_cfgs:
        return arguments
    config = cspnet.model_cfgs[name]
    arguments = dict(arguments)
    for part, prefix in (("stem", "stem_"), ("stages", "")):
        default = getattr(config, part)
        arguments[part] = replace(default, **{
            key: arguments.pop(prefix + key) for key in vars(default) if prefix + key in arguments})
    return arguments


def accepted(name: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments among `wanted` that our architecture takes."""
    model_class = type(build_ours(name))
    entrypoint = inspect.signature(registry.model_entrypoint(name)).parameters
    parameters = {*entrypoint, *inspect.signature(model_class.__init__).parameters}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(model_class.__init__).parameters.values())
    return {key: value for key, value in wanted.items() if takes_all or key in parameters}


def small_sides(name: str) -> list[int]:
    """Sides of a small image to try, the last one being that of the default weights.

    56 pixels give maps of odd size in the deep layers, where padding rules differ; 64 is for models that need even
    ones, 144 for three patches of 16 in a token. A model that is built for one size gets half of it, which leaves
    several windows or patches.
    """
    config = registry.get_pretrained_cfg(name)
    full = config.input_size[-1] if config is not None else 224
    if config is None or not config.fixed_input_size:
        return [side for side in (56, 64, 128, 144) if side < full] + [full]
    patch = getattr(getattr(build_ours(name), "patch_embed", None), "patch_size", 16)
    patch = max(patch) if isinstance(patch, (tuple, list)) else patch
    half = max(min(full // 2, 192) // patch, 3) * patch
    return [half, full] if half < full else [full]


# random weights

def randomize(model: nn.Module, image: Any, seed: int = 0) -> None:
    """Give a model random weights in place, as the module's docstring says; ends in eval mode.

    `image` is an image, or a tuple of what the model takes.
    """
    inputs = image if isinstance(image, tuple) else (image,)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            is_norm = "norm" in type(module).__name__.lower()
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.is_floating_point():
                    parameter.copy_(_random_parameter(name, parameter, is_norm, generator))
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
        if not norms:
            model.eval()
            model(*inputs)  # does it take images of this size?
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        model.train()
        model(*inputs)
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
            noise = torch.randn(norm.running_mean.shape, generator=generator)
            norm.running_mean.add_(0.1 * noise * norm.running_var.sqrt())
            norm.running_var.mul_(_uniform(norm.running_var.shape, 0.8, 1.25, generator)).clamp_(min=1e-3)
    model.eval()


def _random_parameter(name: str, like: Tensor, is_norm: bool, generator: torch.Generator) -> Tensor:
    shape = like.shape
    noise = torch.randn(shape, generator=generator)
    if name.endswith("bias"):
        return 0.1 * noise
    if is_norm and like.ndim <= 1:
        return _uniform(shape, 0.7, 1.3, generator)
    if name.endswith("weight") and like.ndim >= 2:
        return noise / math.sqrt(like[0].numel())
    constant = like.flatten()[0].item() if like.numel() and (like == like.flatten()[0]).all() else 0.0
    if abs(constant) >= 0.1:  # a temperature or a gain
        return constant * _uniform(shape, 0.8, 1.2, generator)
    if like.numel() == max(shape, default=1) and constant != 0.0:  # a layer scale, near nothing at first
        return _uniform(shape, 0.2, 0.6, generator)
    return 0.2 * noise


def _uniform(shape: Iterable[int], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(tuple(shape), generator=generator) * (high - low) + low


def random_image(side: int, chans: int = 3, batch: int = BATCH) -> Tensor:
    return torch.randn(batch, chans, side, side, generator=torch.Generator().manual_seed(1))


# checks

@dataclass
class Pair:
    """timm's model with random weights, what builds ours with the same, and an image for both."""

    name: str
    theirs: nn.Module
    image: Tensor
    kwargs: dict[str, Any]

    @classmethod
    def build(cls, name: str, **arguments: Any) -> Pair:
        sides = [arguments["img_size"]] if "img_size" in arguments else small_sides(name)
        for side in sides:
            try:
                return cls._build(name, side, arguments)
            except (AssertionError, IndexError, RuntimeError, ValueError):  # too small, or odd where it has to be even
                if side == sides[-1]:
                    raise
        raise AssertionError("no size to try")

    @classmethod
    def _build(cls, name: str, side: int, arguments: dict[str, Any]) -> Pair:
        kwargs = dict(drop_rate=0.0, drop_path_rate=0.0)
        config = registry.get_pretrained_cfg(name)
        if config is not None and config.fixed_input_size:
            kwargs["img_size"] = side
        kwargs = {**accepted(name, kwargs), **arguments}
        theirs = build_timm(name, **kwargs)
        image = random_image(side, theirs.in_chans)
        randomize(theirs, image)
        return cls(name, theirs, image, kwargs)

    def build_ours(self) -> nn.Module:
        return build_ours(self.name, self.theirs.state_dict(), self.image.dtype, **self.kwargs).eval()

    def to(self, dtype: torch.dtype) -> None:
        """Take timm's model and the image into another precision, and ours that is built from then on."""
        self.theirs.to(dtype)
        self.image = self.image.to(dtype)


def compare(name: str, checks: Sequence[str] = CHECKS, max_gib: float = 4.0, **arguments: Any) -> Report:
    """Compare one architecture with timm's of the same name; checks that exceed the memory are left out, and noted.

    `arguments` go to both libraries' models.
    """
    start = time.perf_counter()
    report = Report(name)
    try:
        ours = build_ours(name, **arguments)
        report.parameters = sum(p.numel() for p in ours.parameters())
        builders = partial(build_ours, name), partial(build_timm, name, meta=True)
        for check in (check for check in _STATIC if check in checks):
            _run(report, check, _STATIC[check], *(partial(build, **arguments) for build in builders))
        if "init" in checks and name != "ecaresnet50d_pruned" and _fits(report, "init", max_gib):
            _run(report, "init", check_init, mvlib.create_model(name, pretrained=False, **arguments),
                 build_initialised_timm(name, **arguments))
        dynamic = [check for check in _DYNAMIC if check in checks and _fits(report, check, max_gib)]
        if dynamic:
            pair = Pair.build(name, **arguments)
            for check in dynamic:
                _run_dynamic(report, check, pair)
    except Exception as error:  # one architecture that fails must not hide the others
        report.fail(error)
    report.seconds = time.perf_counter() - start
    return report


def _fits(report: Report, check: str, max_gib: float) -> bool:
    need = report.parameters * _BYTES_PER_PARAMETER[check] / GIB
    if need > max_gib:
        report.notes.append(f"{check} left out: needs {need:.1f} GiB")
    return need <= max_gib


def _run(report: Report, check: str, function: Callable[..., None], *args: Any) -> None:
    before = len(report.problems)
    try:
        function(report, *args)
    except NotApplicable as reason:
        report.notes.append(f"no {check}: {reason}")
        return
    except Exception as error:
        report.fail(error, check)
    if len(report.problems) == before:
        report.passed.append(check)


def _run_dynamic(report: Report, check: str, pair: Pair) -> None:
    trial = Report(report.name)
    _run(trial, check, _DYNAMIC[check], pair)
    if check in ("outputs", "features") and any("differs by" in problem for problem in trial.problems):
        if rounding := _rounding(check, pair):
            trial.notes.append(f"{check}: differs by {max(trial.differences.values()):.1e} in float32, {rounding}")
            trial.problems, trial.passed = [], [check]
    report.differences.update(trial.differences)
    for kind in ("problems", "notes", "passed"):
        getattr(report, kind).extend(getattr(trial, kind))


def _rounding(check: str, pair: Pair) -> str:
    """What shows that a difference in float32 is of rounding alone; "" where it is not."""
    with torch.inference_mode():
        rounded = [model(pair.image) for model in (pair.build_ours(), pair.theirs)]
        exact = Report(pair.name, tolerance=EXACT)
        pair.to(torch.float64)
        _run(exact, check, _DYNAMIC[check], pair)
        errors = [relative_difference(logits.double(), pair.theirs(pair.image)) for logits in rounded]
        pair.to(torch.float32)
    if not exact.ok or errors[0] > 4 * errors[1] + TOLERANCE:
        return ""
    return (f"{max(exact.differences.values()):.1e} in float64; of its float64 logits, ours in float32 are off by "
            f"{errors[0]:.1e} and timm's by {errors[1]:.1e}: rounding")


def described(model: nn.Module) -> dict[str, Any]:
    """What is timm's to the name in a model, on the meta device or not; None where timm's model has no such thing.

    state: names, kinds and shapes of the state dict, and the parameters' shapes, in order. taps: `feature_info`.
    widths: `num_features`, `head_hidden_size`. norms: epsilons and momenta, in the order of the modules. decay:
    `no_weight_decay`. groups: {parameter: layer} for layer-wise learning rates, fine and coarse.
    """
    parameters = {name for name, _ in model.named_parameters()}  # timm lists some that only other variants have
    patterns = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    decay = {name for pattern in patterns for name in fnmatch.filter(parameters, pattern)}
    groups = [_groups(model, coarse) for coarse in (False, True)]
    taps = [[item[key] for key in ("num_chs", "reduction", "module")] for item in getattr(model, "feature_info", [])]
    if taps and taps[0][1:] == [2, ""]:  # timm's TResNet, whose first convolution has no name, and a stride of 4
        taps[0][1:] = [4, "body.conv1"]
    widths = [getattr(model, key, None) for key in ("num_features", "head_hidden_size")]
    return {"state": _layout(model), "taps": taps or None, "widths": widths,
            "norms": [_settings(model, key) for key in ("eps", "momentum")], "decay": sorted(decay), "groups": groups}


def _groups(model: nn.Module, coarse: bool) -> dict[str, Any] | None:
    try:
        return group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
    except (AttributeError, AssertionError):  # timm's rdnet has no coarse ones
        return None


def described_extractor(model: nn.Module) -> dict[str, Any]:
    """The same of a feature extractor: its state dict and what its outputs are."""
    info = model.feature_info
    return {"state": _layout(model), "taps": [list(info.channels()), list(info.reduction()), list(info.module_name())]}


def check_keys(report: Report, build_ours: Build, build_timm: Build) -> None:
    """State dict, order, feature_info, no_weight_decay and layer groups."""
    ours, theirs = build_ours(), build_timm()
    found, expected = described(ours), described(theirs)
    _compare_layouts(report, "", found["state"], expected["state"])
    names = [[name for name, _ in m.named_buffers()] for m in (ours, theirs)]  # those that are not saved, too
    _compare_order(report, "buffers", *names)
    if found["taps"] != expected["taps"] and expected["taps"]:
        report.problems.append(f"feature_info: {found['taps']}, expected {expected['taps']}")
    for what in ("widths", "norms"):
        if found[what] != expected[what]:
            report.problems.append(f"{what}: {found[what]}, expected {expected[what]}")
    if found["decay"] != expected["decay"]:
        report.problems.append(f"no_weight_decay: in one only: {_shorten({*found['decay']} ^ {*expected['decay']})}")
    for coarse, groups in enumerate(expected["groups"]):
        if groups is not None:
            _compare_mappings(report, f"layer groups (coarse={bool(coarse)})", found["groups"][coarse], groups)


def subsets(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Those of `SUBSETS` that a model has enough taps for."""
    taps = len(getattr(model, "feature_info", ()))
    return {key: value for key, value in SUBSETS.items() if key != "some" or taps >= 4}


def check_extractors(report: Report, build_ours: Build, build_timm: Build) -> None:
    """`features_only` of several `out_indices`: state dict, order, what the outputs are."""
    for subset, options in subsets(build_ours()).items():
        try:
            expected = described_extractor(build_timm(features_only=True, **options))
        except CANNOT as error:
            report.notes.append(f"timm has no features_only of {options or 'default'}: {_first_line(error)}")
            continue
        found, what = described_extractor(build_ours(features_only=True, **options)), f"features_only, {subset}"
        _compare_layouts(report, f"{what}: ", found["state"], expected["state"])
        if found["taps"] != expected["taps"]:
            report.problems.append(f"{what}: feature_info: {found['taps']}, expected {expected['taps']}")


def check_heads(report: Report, build_ours: Build, build_timm: Build) -> None:
    """What a new head and pruning leave, and the settings that no weight tells of."""
    name = build_ours.args[0]
    rates = accepted(name, dict(drop_rate=0.2, drop_path_rate=0.3))
    found, expected = ([rate for rate in _settings(build(**rates), "drop_prob") if rate]  # 0 is no module, or another
                       for build in (build_ours, build_timm))
    if found != expected:
        report.problems.append(f"rates of stochastic depth: {found}, expected {expected}")
    calls = [("reset_classifier", options) for options in HEADS]
    if not name.startswith(LEFT_WHOLE):
        calls += [("prune_intermediate_layers", options) for options in PRUNINGS]
    for method, options in calls:
        ours, theirs = build_ours(), build_timm()
        try:
            expected = getattr(theirs, method)(**options)
        except (*CANNOT, ValueError) as error:
            report.notes.append(f"timm refuses {method}({options}): {_first_line(error)}")
            continue
        found, what = getattr(ours, method)(**options), f"{method}({options}): "
        if found != expected:
            report.problems.append(f"{what}{found}, expected {expected}")
        _compare_layouts(report, what, *(_layout(m) for m in (ours, theirs)))
        for width in ("num_features", "head_hidden_size", "num_classes"):
            if getattr(ours, width) != getattr(theirs, width):
                report.problems.append(f"{what}{width} {getattr(ours, width)}, expected {getattr(theirs, width)}")


def _settings(model: nn.Module, key: str) -> list[float]:
    """Values of one attribute of the modules, in their order; of those alone that are norms or own parameters."""
    modules = [m for m in model.modules() if key == "drop_prob" or m._parameters or "norm" in type(m).__name__.lower()]
    return [round(value, 6) for m in modules if isinstance(value := getattr(m, key, None), float)]


def check_init(report: Report, ours: nn.Module, theirs: nn.Module) -> None:
    """Initial values are drawn from the same distributions: means and deviations within six standard errors."""
    expected = theirs.state_dict()
    for key, value in ours.state_dict().items():
        other, count = expected[key].float(), value.numel()
        value = value.float()
        if key == "rope.freqs":  # lengths are given, and directions are a few random numbers
            value, other = value.norm(dim=0), other.norm(dim=0)
        if count < 2 and float(other) not in (0.0, 1.0):  # one random number says nothing
            continue
        if count < 2 or other.std() == 0:
            if not torch.equal(value, other):
                report.problems.append(f"init: {key} is {value.mean():.3g}, expected {other.mean():.3g}")
            continue
        other, value = _without_outliers(other), _without_outliers(value)
        gap, spread, own = (value.mean() - other.mean()).abs(), other.std(), value.std()
        if gap > 6 * torch.maximum(spread, own) * (2 / count) ** 0.5 or (own / spread).log().abs() > 6 / count ** 0.5:
            report.problems.append(f"init: {key} has mean {value.mean():.3g} and deviation {own:.3g}, expected "
                                   f"{other.mean():.3g} and {spread:.3g}")


def _cut(weights: Tensor, like: Tensor) -> Tensor:
    """EfficientViM's weights of all stages and of the last map, for a model of fewer stages."""
    return weights if weights.shape == like.shape else torch.cat((weights[:len(like) - 1], weights[-1:]))


def _without_outliers(value: Tensor) -> Tensor:
    """Without the bound, at a hundred deviations, that torch's `trunc_normal_` draws once in millions of values."""
    far = (value - value.mean()).abs() > 20 * value.std()
    return value[~far] if far.sum() in (1, 2) else value


def _layout(model: nn.Module) -> list[list]:
    """[name, kind, shape] of what the state dict holds, and the shapes of the parameters, both in order."""
    held = [[key, "parameter" if isinstance(value, nn.Parameter) else "buffer", list(value.shape)]
            for key, value in model.state_dict(keep_vars=True).items()]
    return [held, [list(p.shape) for p in model.parameters()]]


def _compare_layouts(report: Report, where: str, ours: list, theirs: list) -> None:
    entries = [{key: (kind, tuple(shape)) for key, kind, shape in held} for held, _ in (ours, theirs)]
    _compare_mappings(report, f"{where}state dict", *entries)
    _compare_order(report, f"{where}state dict", *map(list, entries))
    if ours[1] != theirs[1] and ours[0] == theirs[0]:
        report.problems.append(f"{where}parameters: in another order than in the state dict")


def _compare_mappings(report: Report, what: str, ours: dict, theirs: dict) -> None:
    missing, extra = theirs.keys() - ours.keys(), ours.keys() - theirs.keys()
    other = [f"{key} {ours[key]}, expected {theirs[key]}" for key in theirs if key in ours and ours[key] != theirs[key]]
    for kind, keys in (("missing", missing), ("extra", extra), ("different", other)):
        if keys:
            report.problems.append(f"{what}: {len(keys)} {kind}: {_shorten(keys)}")


def _compare_order(report: Report, what: str, ours: Sequence[str], theirs: Sequence[str]) -> None:
    """Names in both come in one order: an optimizer's state knows its tensors by number alone.

    Names in one only are the state dict's comparison's, or buffers that are not saved.
    """
    ours, theirs = [name for name in ours if name in theirs], [name for name in theirs if name in ours]
    first = next(((a, b) for a, b in zip(ours, theirs) if a != b), None)
    if first:
        report.problems.append(f"{what}: in another order: {first[0]}, expected {first[1]}")


def _shorten(items: Iterable[str], most: int = 3) -> str:
    items = sorted(items)
    return ", ".join(items[:most]) + (", ..." if len(items) > most else "")


@torch.inference_mode()
def check_outputs(report: Report, pair: Pair) -> None:
    """Logits, the classifier's input, intermediates; eval mode, float32."""
    ours, theirs, image = pair.build_ours(), pair.theirs, pair.image
    report.compare("logits", ours(image), theirs(image))
    for model in (ours, theirs):
        if not hasattr(model, "forward_head"):
            raise NotApplicable(f"{type(model).__module__}.{type(model).__name__} has no forward_head")
    try:
        expected = theirs.forward_head(theirs.forward_features(image), pre_logits=True)
    except (NotImplementedError, TypeError) as error:  # an encoder's; MobileNetV5's knows no pre_logits either
        report.notes.append(f"timm refuses forward_head: {_first_line(error)}")
    else:
        report.compare("pre_logits", ours.forward_head(ours.forward_features(image), pre_logits=True), expected)
    if not hasattr(theirs, "forward_intermediates"):
        report.notes.append("timm has no forward_intermediates")
        return
    known = inspect.signature(theirs.forward_intermediates).parameters
    early, gap = {"indices": [0], "stop_early": True}, {"indices": [0, 2], "stop_early": True}
    for options in ({}, {"norm": True}, early, gap, {**early, "intermediates_only": True},
                    {"return_prefix_tokens": True}):
        if not options.keys() <= known.keys() or options is gap and pair.name.startswith(LEFT_WHOLE):
            continue
        try:
            expected = theirs.forward_intermediates(image, **options)
        except (AssertionError, UnboundLocalError):  # mobilenetv3 stops early for these alone; EVA without prefix
            report.notes.append(f"timm refuses forward_intermediates({options})")
            continue
        found = ours.forward_intermediates(image, **options)
        if getattr(theirs, "rope_is_mixed", False) and isinstance(found, tuple) and "stop_early" in options:
            found, expected = found[1], expected[1]  # timm's NaFlex goes on to the last block
        report.compare("intermediates", found, expected)


@torch.inference_mode()
def check_features(report: Report, pair: Pair) -> None:
    """`features_only` of several `out_indices`: outputs, channels and strides; eval mode, float32."""
    state_dict, compared = pair.theirs.state_dict(), False
    for subset, options in subsets(pair.theirs).items():
        try:
            theirs = build_timm(pair.name, features_only=True, **options, **pair.kwargs)
        except CANNOT as error:
            report.notes.append(f"timm has no features_only, {subset}: {_first_line(error)}")
            continue
        theirs.load_state_dict({key: _cut(state_dict[_unflatten(key, state_dict)], value)
                                for key, value in theirs.state_dict().items()})
        theirs.to(pair.image.dtype).eval()
        ours = FeatureExtractor(pair.build_ours(), **options).eval()
        for what in ("channels", "reduction", "module_name"):
            found = [list(getattr(m.feature_info, what)()) for m in (ours, theirs)]
            if found[0] != found[1]:
                report.problems.append(f"features_only, {subset}: {what}: {found[0]}, expected {found[1]}")
        report.compare("features", ours(pair.image), theirs(pair.image))
        compared = True
    if not compared:
        raise NotApplicable("timm has none")


def _unflatten(key: str, known: StateDict) -> str:
    """The model's own key for one of timm's feature extractors: those have "model." before it, or "layers_0.blocks"."""
    first, _, rest = key.partition(".")
    flattened = [f"{first[:i]}.{first[i + 1:]}.{rest}" for i, char in enumerate(first) if char == "_"]
    return next(candidate for candidate in (key, *flattened, rest) if candidate in known)  # "stem_0.norm" is no "norm"


@torch.no_grad()
def check_graphs(report: Report, pair: Pair) -> None:
    """A trace of one image and a script give our model's answers for a batch of another size."""
    model, images = pair.build_ours(), random_image(pair.image.shape[-1], pair.image.shape[1], BATCH + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, and that scripting is deprecated
        graphs = {"trace": torch.jit.trace(model, images[:1], check_trace=False), "script": torch.jit.script(model)}
    with torch.jit.optimized_execution(False):
        for what, graph in graphs.items():
            report.compare(what, graph(images), model(images))


def check_step(report: Report, pair: Pair) -> None:
    """Logits and every parameter's gradient; eval mode, float64. Turns the pair into float64: run it last."""
    check_gradients(report, pair, train=False)


def check_gradients(report: Report, pair: Pair, train: bool = True) -> None:
    """Every parameter's gradient; train mode, float64. Turns the pair into float64: run it last."""
    pair.to(torch.float64)
    ours, found, outputs = pair.build_ours(), [], []
    for model in (ours, pair.theirs):
        torch.manual_seed(0)  # for a dropout that no argument turns off
        logits, generator = model.train(train)(pair.image), torch.Generator().manual_seed(2)
        logits = logits if isinstance(logits, tuple) else (logits,)  # auxiliary heads give their own
        weights = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in logits]
        sum((each * weight).sum() for each, weight in zip(logits, weights)).backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        outputs.append([each.detach() for each in logits])
    pair.theirs.eval()
    report.compare("logits", *outputs)
    gradients, expected = found
    if gradients.keys() != expected.keys():
        report.problems.append(f"gradients: in one only: {_shorten(gradients.keys() ^ expected.keys())}")
        return
    # A bias before batch norm has no gradient but rounding; the scale of the others says what is nothing.
    floor = 1e-6 * max(gradient.abs().max().item() for gradient in expected.values())
    if not math.isfinite(floor) or floor == 0.0:
        report.problems.append("gradients: they vanish or explode; the random weights need care")
        return
    gaps = {key: ((gradients[key] - e).abs().max() / e.abs().max().clamp(min=floor)).item()
            for key, e in expected.items()}
    worst = max(gaps, key=lambda key: math.inf if math.isnan(gaps[key]) else gaps[key])
    report.differences["gradients"] = gaps[worst]
    if not gaps[worst] <= TOLERANCE:
        report.problems.append(f"gradients: that of {worst} differs by {gaps[worst]:.1e}")


_STATIC: dict[str, Callable[[Report, Build, Build], None]] = {
    "keys": check_keys, "extractors": check_extractors, "heads": check_heads}
_DYNAMIC: dict[str, Callable[[Report, Pair], None]] = {
    "outputs": check_outputs, "features": check_features, "graphs": check_graphs, "gradients": check_gradients,
    "step": check_step}


# torchvision

def list_builders(patterns: Sequence[str]) -> list[str]:
    """Names of torchvision's classification builders.

    Raises:
        ValueError: A pattern matches nothing.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    names: dict[str, None] = {}
    for pattern in patterns:
        matches = fnmatch.filter(known, pattern)
        if not matches:
            raise ValueError(f"no builder of torchvision.models matches '{pattern}'")
        names.update(dict.fromkeys(matches))
    return list(names)


def torchvision_weights(builder: str) -> list[str]:
    """Names, in our registry, of the weights that torchvision publishes for a builder."""
    if not registry.is_model(builder):
        return []
    architecture = registry.resolve_name(builder)[0]
    return registry.list_models(f"{architecture}.imagenet1k_*", include_tags=True)


def compare_torchvision(builder: str, max_gib: float = 4.0) -> Report:
    """Compare torchvision's model, with random weights, with ours that these weights are loaded into by a key map.

    Ours is built for each tag as its config says (`model_args`, image size).
    """
    start = time.perf_counter()
    report = Report(builder)
    try:
        names = torchvision_weights(builder)
        if not names:
            report.notes.append("mvlib has no such architecture with weights of torchvision's")
        else:
            report.parameters = sum(p.numel() for p in build_ours(names[0]).parameters())
            if _fits(report, "outputs", max_gib):
                _run(report, "outputs", check_torchvision, builder, names)
    except Exception as error:
        report.fail(error)
    report.seconds = time.perf_counter() - start
    return report


def check_torchvision(report: Report, builder: str, names: Sequence[str]) -> None:
    """Logits of torchvision's builder and of our architectures `names` (with tags); eval mode, float32."""
    configs = [registry.get_pretrained_cfg(name) for name in names]
    fixed = [config.input_size[-1] if config.fixed_input_size else None for config in configs]
    for side in dict.fromkeys(fixed):
        size = dict(image_size=side) if builder.startswith("vit_") else {}  # the others take images of any size
        with uninitialised():
            theirs = torchvision.models.get_model(builder, **size)
        image = random_image(side or 96)
        randomize(theirs, image)
        with torch.inference_mode():
            expected = theirs(image)
            for config in (c for c, own in zip(configs, fixed) if own == side):
                ours = build_ours(config.name)
                load_weights(ours, theirs.state_dict(), config=config)
                report.compare("logits", ours.eval()(image), expected)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200]
