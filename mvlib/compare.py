"""Which model? Error, time and size of models side by side. Timing alone imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import hub
from .costs import costs_of, gmacs_at
from .engines.folder import is_export, read_export
from .errors import ConfigError, MvlibError
from .names import natural_key, split_model_name_tag
from .precisions import precision_name
from .registry import get_pretrained_cfg, match_models, resolve_name
from .weights import WeightsConfig

__all__ = ["COLUMNS", "Candidate", "compare_models", "pareto_front", "short_names"]

DATA_SET = "ImageNet-1K"
COLUMNS = ("model", "top1_err", "top5_err", "cpu_ms", "cpu_iqr_ms", "gpu_ms", "gpu_iqr_ms", "size_mib", "params",
           "gmacs", "img_size", "pareto", "disturbed",
           "weights", "size_from", "note")
_MIB = 2**20
_AS_TRAINED = "timed as trained: its branches merge with --mode optimized"
_TOGETHER_BYTES = 2 * 2**30  # of weights that are in memory at once while models take turns


@dataclass
class Candidate:
    """A model and what speaks for it.

    Attributes:
        model: Its name, as asked for.
        weights: architecture.tag of the weights that the errors are of; of an export, its folder.
        top1_err, top5_err: Errors in percent, on ImageNet-1K as published or on the user's data set.
        cpu_ms, gpu_ms: Median time an image, in milliseconds; `cpu_iqr_ms`, `gpu_iqr_ms` its interquartile range.
        size_mib: Size of the weights file in MiB; `size_from` says how it is known: "cached", "published",
            "exported" or "4 bytes a parameter".
        params: Parameters, in 1e6; `gmacs` multiply-accumulates for an image, in 1e9.
        img_size: Height of the images of these errors and times.
        disturbed: Whether the machine was busy when a time was measured, so that it is too long.
        pareto: Whether no other model has both a lower error and a lower time.
        note: What is missing, and why.
    """

    model: str
    weights: str
    top1_err: float | None = None
    top5_err: float | None = None
    cpu_ms: float | None = None
    cpu_iqr_ms: float | None = None
    gpu_ms: float | None = None
    gpu_iqr_ms: float | None = None
    size_mib: float | None = None
    size_from: str | None = None
    params: float | None = None
    gmacs: float | None = None
    img_size: int | None = None
    pareto: bool = False
    disturbed: bool = False
    note: str | None = None

    def remark(self, text: str) -> None:
        self.note = f"{self.note}; {text}" if self.note else text

    def as_row(self) -> dict[str, Any]:
        """The fields, plain."""
        return asdict(self)


def compare_models(
    models: str | Iterable[str],
    *,
    batch_size: int = 1,
    img_size: int | None = None,
    precision: str = "float32",
    force: bool = False,
    backend: str = "torch",
    mode: str = "eager",
    seconds: float = 2.0,
    devices: Sequence[str] | None = None,
    measure: Callable[[str], Mapping[str, float]] | None = None,
    sort: str = "top1_err",
    on_progress: Callable[[str], None] | None = None,
) -> list[Candidate]:
    """Error, time, and size of models.

    Errors are the published ones, or measured; times are measured here with random weights, models that share an
    architecture once, all models in turns. No weights are downloaded for that.

    Args:
        models: Names with or without tags, wildcards, and folders of exports; without a tag, an architecture's default
            weights are meant. A wildcard without a dot matches architectures with weights, one with a dot tags.
        batch_size: Images at once, when timed.
        img_size: Height and width of the images in pixels, instead of those at which the weights are evaluated.
        precision: "float32", "bfloat16" or "float16", in any usual spelling.
        force: Take a precision in which a device is slower than in float32, too.
        backend: What runs the models when they are timed, as `benchmark_models` takes it; exports have their own.
        mode: "eager", "compiled" or "optimized" (`mvlib.optimize`, which merges the branches of models that were
            trained with more than inference needs), with the backend "torch".
        seconds: Time for the measurements of a model on a device.
        devices: Of "cpu" and "cuda"; default: both where there is a GPU.
        measure: Measures the errors of a model: {"top1_err": percent, "top5_err": percent}.
        sort: Field to sort by, those without a value last.
        on_progress: Called with a line about what has been done.

    Raises:
        UnknownNameError: A name is unknown, or a wildcard matches nothing.
        ConfigError: No model is named, there is no such field, or the precision does not pay here.
    """
    names = match_models(models, pretrained=True, what="compare")
    if not names:
        raise ConfigError("compare needs the names of models")
    if sort not in COLUMNS:
        raise ConfigError(f"cannot sort by '{sort}'; known: {', '.join(COLUMNS)}")
    tell = on_progress or (lambda line: None)
    devices = _devices(devices, precision, force)
    configs = {name: _config(name) for name in names}
    candidates = [_describe(name, config, measure is None) for name, config in configs.items()]
    if measure is not None:
        for candidate in candidates:
            _take_errors(candidate, measure)
            tell(f"{candidate.model}: " + (candidate.note or f"top-1 error {candidate.top1_err:.2f} %"))
    _time(candidates, configs, batch_size, img_size, precision, backend, mode, seconds, devices, measure is not None,
          tell)
    pareto_front(candidates)
    return sorted(candidates, key=lambda candidate: _sort_key(getattr(candidate, sort)))


def pareto_front(candidates: Iterable[Candidate], time: str = "cpu_ms") -> list[Candidate]:
    """Mark, and return from the lowest error on, the models of which none is both better and faster.

    A model is off the front where another has no higher top-1 error and no higher time, and is lower in one of them.
    """
    candidates = list(candidates)
    for candidate in candidates:
        candidate.pareto = False
    front, least = [], float("inf")
    known = [c for c in candidates if c.top1_err is not None and getattr(c, time) is not None]
    for candidate in sorted(known, key=lambda c: (c.top1_err, getattr(c, time))):
        own = getattr(candidate, time)
        is_tie = bool(front) and own == least and candidate.top1_err == front[-1].top1_err
        if own < least or is_tie:
            candidate.pareto, least = True, own
            front.append(candidate)
    return front


def short_names(candidates: Sequence[Candidate]) -> list[str]:
    """For a chart: names without the tag, where no two would be the same."""
    names = [split_model_name_tag(candidate.model)[0] for candidate in candidates]
    return [name if names.count(name) == 1 else candidate.model for name, candidate in zip(names, candidates)]


def _sort_key(value: Any) -> tuple[bool, Any]:
    return (value is None, natural_key(value) if isinstance(value, str) else value if value is not None else 0)


def _config(name: str) -> WeightsConfig:
    """The weights config that a name means."""
    if is_export(name):
        return read_export(name).weights_config
    architecture, tag = resolve_name(name)
    return get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture) or \
        WeightsConfig(architecture=architecture)


def _describe(name: str, config: WeightsConfig, with_errors: bool) -> Candidate:
    count = config.num_params or costs_of(config).get("params")
    candidate = Candidate(name, config.name)
    candidate.params = round(count / 1e6, 2) if count else None
    if is_export(name):
        return _describe_export(candidate, with_errors)
    candidate.size_mib, candidate.size_from = _size(config, count)
    if with_errors:
        published = config.metrics.get(DATA_SET, {})
        if "acc@1" in published:
            candidate.top1_err = round(100 - published["acc@1"], 3)
        if "acc@5" in published:
            candidate.top5_err = round(100 - published["acc@5"], 3)
        if "acc@1" not in published:
            candidate.remark(f"no published {DATA_SET} accuracy" if config.has_weights else "no published weights")
    return candidate


def _describe_export(candidate: Candidate, with_errors: bool) -> Candidate:
    folder = read_export(candidate.model)
    candidate.weights = candidate.model
    size = sum((folder.path / file).stat().st_size for file in folder.files if (folder.path / file).is_file())
    candidate.size_mib, candidate.size_from = round(size / _MIB, 1), "exported"
    if with_errors:
        candidate.remark(f"exported in {folder.precision}: errors are measured with --data")
    return candidate


def _size(config: WeightsConfig, params: int | None) -> tuple[float | None, str | None]:
    cached = hub.is_cached(config.sources, filename=config.filename) if config.has_weights else None
    if cached is not None:
        return round(os.path.getsize(cached) / _MIB, 1), "cached"
    if config.file_size:
        return round(config.file_size, 1), "published"
    return (round(4 * params / _MIB, 1), "4 bytes a parameter") if params else (None, None)


def _take_errors(candidate: Candidate, measure: Callable[[str], Mapping[str, float]]) -> None:
    try:
        found = measure(candidate.weights)
        candidate.top1_err, candidate.top5_err = found["top1_err"], found["top5_err"]
    except (MvlibError, OSError) as error:
        candidate.remark(f"not measured: {str(error).splitlines()[0]}")


def _devices(devices: Sequence[str] | None, precision: str, force: bool) -> Sequence[str]:
    """Where to time; the precision is refused before anything else is done, if it does not pay there."""
    import torch

    from .optimization.precision import check_precision

    if devices is None:
        devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    for device in devices:
        check_precision(getattr(torch, precision_name(precision)), torch.device(device), force)
    return devices


def _time(
    candidates: list[Candidate], configs: Mapping[str, WeightsConfig], batch_size: int, img_size: int | None,
    precision: str, backend: str, mode: str, seconds: float, devices: Sequence[str], measured: bool,
    tell: Callable[[str], None],
) -> None:
    """Fill in times, image sizes and multiply-accumulates; weights of one architecture share them."""
    from .benchmark import benchmark_models, count_gmacs, input_size_of

    alike: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        config = configs[candidate.model]
        size = input_size_of(candidate.weights, img_size)
        candidate.img_size = size[-2]
        if img_size and size != input_size_of(candidate.weights) and candidate.top1_err is not None and not measured:
            candidate.remark(f"errors published at {input_size_of(candidate.weights)[-2]} px")
        own = candidate.model if is_export(candidate.model) else ""
        alike.setdefault(repr((own, config.architecture, size, config.num_classes, sorted(config.model_args.items()))),
                         []).append(candidate)
    groups = {group[0].weights: group for group in alike.values()}
    for name, group in groups.items():
        size = input_size_of(name, img_size)
        try:
            gmacs = gmacs_at(_config(name), size) or (None if is_export(name) else count_gmacs(name, size))
        except Exception as error:  # whatever a model makes of a size that it cannot take; timing says it, too
            tell(f"{name}: no multiply-accumulates: {str(error).splitlines()[0] if str(error) else type(error)}")
            gmacs = None
        for candidate in group:
            candidate.gmacs = gmacs
    for device in devices:
        kind = "cpu" if device == "cpu" else "gpu"
        for names in _batches(groups):
            found = benchmark_models(
                names, tasks=("inference",), modes=(mode,), precisions=(precision,), batch_sizes=(batch_size,),
                img_size=img_size, device=device, force=True, backends=(backend,), seconds=seconds, together=len(names),
                on_model=lambda results: tell(str(results[0])))
            for result in found:
                for candidate in groups[result.model]:
                    if result.error is not None:
                        candidate.remark(f"not timed on {device}: {result.error}")
                        continue
                    _fill_in_size(candidate, result.params)
                    if result.mergeable and device == devices[0]:
                        candidate.remark(_AS_TRAINED)
                    candidate.disturbed |= result.disturbed
                    setattr(candidate, f"{kind}_ms", _per_image(result.latency_ms, batch_size))
                    setattr(candidate, f"{kind}_iqr_ms", _per_image(result.latency_iqr_ms, batch_size))


def _fill_in_size(candidate: Candidate, params: float | None) -> None:
    """Of a model of the user's, of which nothing was known before it was built."""
    if candidate.params is None and params is not None:
        candidate.params = params
        if candidate.size_mib is None:
            candidate.size_mib, candidate.size_from = round(4e6 * params / _MIB, 1), "4 bytes a parameter"


def _batches(groups: Mapping[str, list[Candidate]]) -> list[list[str]]:
    """Models that take turns with each other, as many as memory holds."""
    batches: list[list[str]] = []
    room = 0.0
    for name, group in groups.items():
        need = 4e6 * (group[0].params or 100)
        if not batches or need > room:
            batches.append([])
            room = _TOGETHER_BYTES
        batches[-1].append(name)
        room -= need
    return batches


def _per_image(milliseconds: float | None, batch_size: int) -> float | None:
    return None if milliseconds is None else float(f"{milliseconds / batch_size:.4g}")
