"""Compares mvlib's models with timm's and torchvision's; see `python -m tests.parity --help` and __main__.py.

Four checks, each a function from an architecture's name to findings:

keys: on the meta device, so that it costs no memory: names, shapes and kinds (parameter or buffer) of the state dict,
    the order of it, of parameters and of buffers, `feature_info`, `no_weight_decay`, and the layer groups for
    layer-wise learning rates.
outputs: float32, eval mode: logits, classifier's input, `forward_intermediates` (plain and with the final norm).
features: float32, eval mode: `features_only` outputs, their channels and strides.
gradients: float64, train mode, drop rates 0: every parameter's gradient. In float64, because a sum over a batch in
    another order is amplified by batch norm's backward pass until float32 says little.

Weights are random but alive: convolutions and linear layers keep variance, batch-norm statistics are those of a random
batch and then perturbed, and biases, norms' scales, layer scales, tokens and bias tables differ from what their
initial values would hide (zeros and ones). Differences are relative: max |a - b| / max |b|.
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import math
import pkgutil
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
import torchvision
from timm.models._manipulate import group_parameters
from torch import Tensor, nn

import mvlib
import mvlib.models
from mvlib import registry
from mvlib.features import FeatureExtractor
from mvlib.loading import load_weights
from tests.skeleton import skeletons, uninitialised

CHECKS = ("keys", "outputs", "features", "gradients")
TOLERANCE = 1e-5
BATCH = 2
GIB = 2**30
_BYTES_PER_PARAMETER = {"outputs": 4, "features": 8, "gradients": 24}  # at once; float64 weights and two gradients

StateDict = dict[str, Tensor]


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
        if not worst <= TOLERANCE:
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
    """timm's model; every one of timm 1.0.31 can be built on the meta device.

    Our default weights' `model_args` go to timm too: it sets some (an eps) only where weights are loaded.
    """
    config = registry.get_pretrained_cfg(name)
    with skeletons() if meta else uninitialised():
        return timm.create_model(name, **{**(config.model_args if config else {}), **kwargs})


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
    ones. A model that is built for one size gets half of it, which leaves several windows or patches.
    """
    config = registry.get_pretrained_cfg(name)
    full = config.input_size[-1] if config is not None else 224
    if config is None or not config.fixed_input_size:
        return [side for side in (56, 64, 128) if side < full] + [full]
    patch = getattr(getattr(build_ours(name), "patch_embed", None), "patch_size", 16)
    patch = max(patch) if isinstance(patch, (tuple, list)) else patch
    half = max(min(full // 2, 192) // patch, 3) * patch
    return [half, full] if half < full else [full]


# random weights

def randomize(model: nn.Module, image: Tensor, seed: int = 0) -> None:
    """Give a model random weights in place, as the module's docstring says; ends in eval mode."""
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
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        model.train()(image)
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
            except (AssertionError, RuntimeError):  # too small, or an odd size where the model needs an even one
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

    def build_ours(self, dtype: torch.dtype | None = None) -> nn.Module:
        return build_ours(self.name, self.theirs.state_dict(), dtype, **self.kwargs).eval()


def compare(name: str, checks: Sequence[str] = CHECKS, max_gib: float = 4.0, **arguments: Any) -> Report:
    """Compare one architecture with timm's of the same name; checks that exceed the memory are left out, and noted.

    `arguments` go to both libraries' models.
    """
    start = time.perf_counter()
    report = Report(name)
    try:
        ours = build_ours(name, **arguments)
        report.parameters = sum(p.numel() for p in ours.parameters())
        if "keys" in checks:
            _run(report, "keys", check_keys, ours, build_timm(name, meta=True, **arguments))
        dynamic = [check for check in _DYNAMIC if check in checks and _fits(report, check, max_gib)]
        if dynamic:
            pair = Pair.build(name, **arguments)
            for check in dynamic:
                _run(report, check, _DYNAMIC[check], pair)
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


def check_keys(report: Report, ours: nn.Module, theirs: nn.Module) -> None:
    """State dict, order, feature_info, no_weight_decay and layer groups; both models may be on the meta device."""
    _compare_mappings(report, "state dict", _layout(ours), _layout(theirs))
    _compare_order(report, "state dict", *([*m.state_dict()] for m in (ours, theirs)))
    _compare_order(report, "parameters", *([name for name, _ in m.named_parameters()] for m in (ours, theirs)))
    _compare_order(report, "buffers", *([name for name, _ in m.named_buffers()] for m in (ours, theirs)))
    info = [[{key: item[key] for key in ("num_chs", "reduction", "module")} for item in getattr(m, "feature_info", [])]
            for m in (ours, theirs)]
    if info[0] != info[1] and info[1]:
        report.problems.append(f"feature_info: {info[0]}, expected {info[1]}")
    names = {name for name, _ in theirs.named_parameters()}  # timm lists some that only other variants have
    decay = [{name for pattern in m.no_weight_decay() for name in fnmatch.filter(names, pattern)}
             if hasattr(m, "no_weight_decay") else set() for m in (ours, theirs)]
    if decay[0] != decay[1]:
        report.problems.append(f"no_weight_decay: in one only: {_shorten(decay[0] ^ decay[1])}")
    if hasattr(theirs, "group_matcher"):
        for coarse in (False, True):
            groups = [group_parameters(m, m.group_matcher(coarse=coarse), reverse=True) for m in (ours, theirs)]
            _compare_mappings(report, f"layer groups (coarse={coarse})", *groups)


def _layout(model: nn.Module) -> dict[str, tuple]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {key: ("parameter" if key in parameters else "buffer", tuple(value.shape))
            for key, value in model.state_dict().items()}


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
    pre_logits = [m.forward_head(m.forward_features(image), pre_logits=True) for m in (ours, theirs)]
    report.compare("pre_logits", *pre_logits)
    if not hasattr(theirs, "forward_intermediates"):
        report.notes.append("timm has no forward_intermediates")
        return
    known = inspect.signature(theirs.forward_intermediates).parameters
    early = {"indices": [0], "stop_early": True}
    for options in ({}, {"norm": True}, early, {**early, "intermediates_only": True}, {"return_prefix_tokens": True}):
        if not options.keys() <= known.keys():
            continue
        try:
            expected = theirs.forward_intermediates(image, **options)
        except AssertionError:  # timm's mobilenetv3 stops early for the intermediates alone
            report.notes.append(f"timm refuses forward_intermediates({options})")
            continue
        report.compare("intermediates", ours.forward_intermediates(image, **options), expected)


@torch.inference_mode()
def check_features(report: Report, pair: Pair) -> None:
    """`features_only`: outputs, channels and strides; eval mode, float32."""
    try:
        theirs = build_timm(pair.name, features_only=True, **pair.kwargs)
    except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
        raise NotApplicable(f"timm cannot: {_first_line(error)}") from error
    state_dict = pair.theirs.state_dict()
    theirs.load_state_dict({key: state_dict[_unflatten(key, state_dict)] for key in theirs.state_dict()})
    theirs.eval()
    ours = FeatureExtractor(pair.build_ours()).eval()
    for what in ("channels", "reduction", "module_name"):
        found = [list(getattr(m.feature_info, what)()) for m in (ours, theirs)]
        if found[0] != found[1]:
            report.problems.append(f"features_only {what}: {found[0]}, expected {found[1]}")
    report.compare("features", ours(pair.image), theirs(pair.image))


def _unflatten(key: str, known: StateDict) -> str:
    """The model's own key for one of timm's feature extractors: those have "model." before it, or "layers_0.blocks"."""
    first, _, rest = key.partition(".")
    candidates = [key, rest] + [f"{first[:i]}.{first[i + 1:]}.{rest}" for i, char in enumerate(first) if char == "_"]
    return next(candidate for candidate in candidates if candidate in known)


def check_gradients(report: Report, pair: Pair) -> None:
    """Every parameter's gradient; train mode, float64. Turns the pair into float64: run it last."""
    pair.theirs.double()
    image = pair.image.double()
    ours = pair.build_ours(torch.float64)
    found = []
    for model in (ours, pair.theirs):
        torch.manual_seed(0)  # for a dropout that no argument turns off
        logits = model.train()(image)
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        (logits * weights).sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    pair.theirs.eval()
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


_DYNAMIC: dict[str, Callable[[Report, Pair], None]] = {
    "outputs": check_outputs, "features": check_features, "gradients": check_gradients}


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
