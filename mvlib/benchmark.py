"""Time and memory that models take, for inference and training, measured side by side."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .costs import costs_of
from .devices import find_device
from .engines.folder import is_export, read_export
from .engines.module import EngineModule
from .engines.runtime import BACKENDS, backend_of
from .errors import ConfigError, MvlibError
from .factory import create_model, known_arguments
from .layers.branches import count_mergeable
from .memory import reuse_freed_memory
from .optim import create_optimizer_v2
from .optimization.precision import check_precision
from .optimization.prepacking import PackedConv2d, PackedLinear
from .precisions import precision_name
from .registry import get_pretrained_cfg, match_models, resolve_name
from .weights import WeightsConfig

__all__ = ["Measurement", "benchmark_models", "calibration", "count_gmacs", "describe_machine", "input_size_of"]

TASKS = ("inference", "training")
MODES = ("eager", "compiled", "optimized")
_ROUNDS = 5  # turns that each configuration gets, if its steps are short enough
_LEAST_STEPS = 5  # that were not disturbed, of each configuration, ...
_PATIENCE = 3  # ... for which it gets up to so many times its time
_DISTURBED = 1.3  # time of a fixed work over the least that it took, from where on the machine was busy
_UNSTEADY = 0.25  # interquartile range of steps over their median, from where on they were disturbed at any rate
_LONG_STEP = 0.1  # seconds; shorter steps are timed after one that brings the model back into the caches
_COMPILED_VARIANTS = 64  # of one model; beyond torch's own limit (8), it would silently run eagerly


@dataclass
class Measurement:
    """What one model took in one configuration.

    Attributes:
        model: Its name, as asked for.
        task: "inference", or "training": forward, backward and an SGD step.
        mode: "eager", "compiled" (`torch.compile`) or "optimized" (`mvlib.optimize`, which makes engines, too).
        precision: Type of parameters and inputs.
        device: "cpu", "cuda", ...
        batch_size: Images in a step.
        img_size: Height of the images; they are square unless the model's are not.
        params: Parameters, in 1e6.
        latency_ms: Median time of a step, in milliseconds.
        latency_iqr_ms: Its interquartile range, in milliseconds; None for fewer than two steps.
        images_per_second: Images in a step over its median time.
        steps: Steps that were timed, and count.
        disturbed: Whether the machine was busy with other things at the time, so that the figures are not the model's.
        disturbance: What a fixed work took around these steps, over the least that it took at any time: 1 when idle.
        peak_memory_mib: Most memory at any time of a step: parameters, buffers, the optimizer's state, and whatever the
            step needs beyond them, in MiB; None where the system does not tell.
        setup_seconds: Building, compiling and the first step.
        error: Why there are no figures.
        backend: What ran it: "torch", "openvino", "onnxruntime".
        mergeable: Modules whose branches would be merged by the mode "optimized", in the other modes.
    """

    model: str
    task: str
    mode: str
    precision: str
    device: str
    batch_size: int
    img_size: int | None = None
    params: float | None = None
    latency_ms: float | None = None
    latency_iqr_ms: float | None = None
    images_per_second: float | None = None
    steps: int = 0
    disturbed: bool = False
    disturbance: float | None = None
    peak_memory_mib: float | None = None
    setup_seconds: float | None = None
    error: str | None = None
    backend: str = "torch"
    mergeable: int = 0

    @property
    def what(self) -> str:
        """Model and configuration, in a line."""
        mode = self.mode if self.backend == "torch" else self.backend
        return f"{self.model}, {self.task}, {mode}, {self.precision}, {self.device}, batch {self.batch_size}"

    def __str__(self) -> str:
        if self.latency_ms is None:
            return f"{self.what}: {self.error}"
        mark = " (disturbed)" if self.disturbed else ""
        return f"{self.what}: {self.latency_ms:.4g} ms, {self.images_per_second:.4g} images/s{mark}"


def benchmark_models(
    models: str | Iterable[str],
    *,
    tasks: Sequence[str] = TASKS,
    modes: Sequence[str] = ("eager",),
    precisions: Sequence[str] = ("float32",),
    batch_sizes: Sequence[int] = (1, 32),
    img_size: int | None = None,
    device: torch.device | str | None = None,
    channels_last: bool = False,
    force: bool = False,
    backends: Sequence[str] = ("torch",),
    seconds: float = 20.0,
    together: int = 1,
    on_model: Callable[[list[Measurement]], None] | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> list[Measurement]:
    """Time models with random weights on random images; nothing is downloaded.

    The configurations of a model take turns, so that whatever else the machine does meets all of them alike. A fixed
    work between the turns shows how much that is: steps of a busy time do not count, others are made in their place as
    far as there is time, and where there is none the measurement says that it was disturbed. Training
    is timed at the largest batch size alone, and not in the mode "optimized". Images have the size at which the weights
    are evaluated, in training the one of training.

    Args:
        models: Names and wildcards, and folders of exports, which are timed as they are, in inference alone.
        tasks: Of "inference" and "training".
        modes: Of "eager", "compiled" and "optimized".
        precisions: Of "float32", "bfloat16" and "float16", in any usual spelling; parameters and inputs have it.
        batch_sizes: Images in a step.
        img_size: Height and width of the images instead of the model's own, in pixels.
        device: Where to run; default: a GPU if there is one.
        channels_last: Lay images and weights out with the channels last (`optimized` decides for itself).
        force: Measure precisions that are slower than float32 here, too; a step in float16 may take minutes.
        backends: Of "torch" (which the modes are of), "openvino", "onnxruntime", and "auto" for the fastest here; all
            but torch are for inference.
        seconds: Time for the steps of a model, all configurations together; up to three times as much where one has
            fewer than five steps that were not disturbed. Each has one step at least. Building, compiling and first
            steps come on top.
        together: Models that take turns with each other; all of them are in memory at once.
        on_model: Called with the measurements of each model when they are there.
        on_progress: Called with a line before something that takes long, compiling.

    Returns:
        A measurement for every model and configuration; what fails has its `error` and the others go on.

    Raises:
        UnknownNameError: A name is unknown, or a wildcard matches nothing.
        ConfigError: There is nothing to do, an argument is impossible, or a precision does not pay here.
    """
    names = match_models(models, what="benchmark")
    device = find_device(device)
    precisions = [precision_name(precision) for precision in precisions]
    _check(tasks, modes, backends, batch_sizes, img_size)
    for precision in precisions:
        check_precision(getattr(torch, precision), device, force)
    ways = [(mode, backend) for backend in backends for mode in (modes if backend == "torch" else ("optimized",))]
    setups = [(task, mode, backend, precision, batch_size)
              for task in tasks for mode, backend in ways for precision in precisions
              for batch_size in sorted(set(batch_sizes))
              if task == "inference" or (mode != "optimized" and batch_size == max(batch_sizes))]

    def setups_of(name: str) -> Iterator[Measurement]:
        if is_export(name):
            folder = read_export(name)
            rows = [("inference", "optimized", backend_of(folder), folder.precision, batch_size)
                                     for batch_size in sorted(set(batch_sizes)) if "inference" in tasks]
        else:
            rows = setups
        for task, mode, backend, precision, batch_size in rows:
            yield Measurement(name, task, mode, precision, str(device), batch_size, backend=backend)

    if not any(any(setups_of(name)) for name in names):
        raise ConfigError("there is nothing to measure: optimized models are for inference")
    if device.type == "cpu":
        reuse_freed_memory()  # as training and validation do here
    found = []
    for start in range(0, len(names), max(together, 1)):
        group = names[start:start + max(together, 1)]
        cases = [_Case(result, img_size, channels_last) for name in group for result in setups_of(name)]
        with _compiler() if {"compiled", "optimized"} & set(modes) else contextlib.nullcontext():
            for case in cases:
                if on_progress is not None and case.result.mode != "eager":
                    on_progress(f"{case.result.what}: preparing")
                case.prepare()
            _take_turns([case for case in cases if case.step is not None], seconds * len(group), calibration(device))
        for name in group:
            results = [case.finish() for case in cases if case.result.model == name]
            found += results
            if on_model is not None:
                on_model(results)
        del cases
        _free()
    return found


def _check(
    tasks: Sequence[str], modes: Sequence[str], backends: Sequence[str], batch_sizes: Sequence[int],
    img_size: int | None,
) -> None:
    for what, values, known in (("task", tasks, TASKS), ("mode", modes, MODES), ("backend", backends, BACKENDS)):
        for value in values:
            if value not in known:
                raise ConfigError(f"unknown {what} '{value}'; known: {', '.join(known)}")
    for value in (*batch_sizes, *([] if img_size is None else [img_size])):
        if value < 1:
            raise ConfigError(f"{value} is neither a batch size nor an image size")


class _Case:
    """A model in one configuration: how to make a step, and what was measured."""

    def __init__(self, result: Measurement, img_size: int | None, channels_last: bool) -> None:
        self.result = result
        self.img_size = img_size
        self.channels_last = channels_last
        self.step: Callable[[], object] | None = None
        self.turns: list[tuple[float, list[float]]] = []  # disturbance, and the seconds of each step

    def prepare(self) -> None:
        """Build the model and make its first steps."""
        started = time.perf_counter()
        try:
            self.step, held = self._build()
            self._timed()
            self.result.setup_seconds = round(time.perf_counter() - started, 2)
            if self.result.backend == "torch":  # others do not say what they hold
                self.result.peak_memory_mib = _peak_memory(self.step, held, torch.device(self.result.device))
        except Exception as error:
            self.fail(error)

    def _build(self) -> tuple[Callable[[], object], Callable[[], Iterator[Tensor]]]:
        """A step, and the tensors that stay from one to the next."""
        result = self.result
        device, dtype = torch.device(result.device), getattr(torch, result.precision)
        training = result.task == "training"
        size = input_size_of(result.model, self.img_size, training)
        images = torch.randn(result.batch_size, *size, device=device)
        if is_export(result.model):
            export = EngineModule(result.model)
            count = costs_of(export.weights_config).get("params")
            result.img_size, result.params = size[-2], count and round(count / 1e6, 2)
            return lambda: export(images), lambda: _tensors(export, images)
        model = build_model(result.model, size, device)
        result.img_size, result.params = size[-2], round(sum(p.numel() for p in model.parameters()) / 1e6, 2)
        if result.mode == "optimized":
            from . import optimize

            model, report = optimize(model.eval(), images, dtype=dtype, force=True, backend=result.backend)
            result.backend = report.backend  # of "auto", what it came to
            # A model that has been optimized takes the images as they come.
        else:
            result.mergeable = count_mergeable(model)
            layout = torch.channels_last if self.channels_last else torch.contiguous_format
            model = model.to(dtype=dtype, memory_format=layout)
            images = images.to(dtype=dtype, memory_format=layout)
        if not training:
            run = _compile(model.eval(), result.mode)
            return torch.inference_mode()(lambda: run(images)), lambda: _tensors(model, images)
        optimizer = create_optimizer_v2(model, opt="sgd", lr=1e-4)
        run = _compile(model.train(), result.mode)

        def step() -> None:
            _loss(run(images)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        def held() -> Iterator[Tensor]:
            yield from _tensors(model, images)
            yield from (value for state in optimizer.state.values() for value in state.values()
                        if isinstance(value, Tensor))

        return step, held

    def take_turn(self, seconds: float, calibration: _Calibration) -> None:
        """Time steps for so many seconds, one at least, and what the machine was like."""
        assert self.step is not None
        steps: list[float] = []
        before = calibration.last
        try:
            if not self.turns or self.turns[-1][1][-1] < _LONG_STEP:
                self._timed()
            end = time.perf_counter() + seconds
            while not steps or time.perf_counter() < end:
                steps.append(self._timed())
        except Exception as error:
            self.fail(error)
        self.turns.append((max(before, calibration.measure()), steps))

    @property
    def quiet_turns(self) -> list[tuple[float, list[float]]]:
        return [turn for turn in self.turns if turn[0] <= _DISTURBED]

    @property
    def has_enough(self) -> bool:
        return sum(len(steps) for _, steps in self.quiet_turns) >= _LEAST_STEPS

    def _timed(self) -> float:
        """Seconds of one step, until the device has done it."""
        _wait_for(self.result.device)
        started = time.perf_counter()
        self.step()
        _wait_for(self.result.device)
        return time.perf_counter() - started

    def fail(self, error: Exception) -> None:
        # Of a foreign error the kind tells as much as the text.
        text = (str(error).strip().splitlines() or [""])[0]
        self.result.error = text if isinstance(error, MvlibError) else f"{type(error).__name__}: {text}".rstrip(": ")
        self.step = None
        _free()

    def finish(self) -> Measurement:
        """The measurement, complete; the model is let go."""
        self.step = None
        if self.result.error is None and self.turns:
            turns = self.quiet_turns if self.has_enough else self.turns
            seconds = [second for _, steps in turns for second in steps]
            median = statistics.median(seconds)
            self.result.latency_ms = _rounded(1000 * median)
            self.result.images_per_second = _rounded(self.result.batch_size / median)
            self.result.steps = len(seconds)
            self.result.disturbance = round(statistics.fmean(disturbance for disturbance, _ in turns), 2)
            self.result.disturbed = len(turns) > len(self.quiet_turns)
            if len(seconds) > 1:
                low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
                self.result.latency_iqr_ms = _rounded(1000 * (high - low))
                self.result.disturbed |= high - low > _UNSTEADY * median
        return self.result


class _Calibration:
    """How much else a device is busy with: what a fixed work, of as many threads as a model's, takes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.matrix = torch.full((2048, 2048) if device.type == "cuda" else (384, 384), 0.5, device=device)
        self.least = math.inf
        self.last = 1.0
        for _ in range(10):  # between what disturbs there are moments of a millisecond without
            self.measure()

    def measure(self) -> float:
        """The work's time over the least that it has ever taken; 1 is undisturbed."""
        seconds = []
        for _ in range(32):
            _wait_for(str(self.device))
            started = time.perf_counter()
            self.matrix @ self.matrix
            _wait_for(str(self.device))
            seconds.append(time.perf_counter() - started)
        del seconds[:2]  # threads awake
        self.least = min(self.least, *seconds)
        self.last = statistics.fmean(seconds) / self.least
        return self.last


calibration = functools.cache(_Calibration)  # what was least is kept


def _take_turns(cases: list[_Case], seconds: float, calibration: _Calibration) -> None:
    """Let cases have turns in a circle until the time is up and each had enough, or very little."""
    if not cases:
        return
    share = seconds / (len(cases) * _ROUNDS)
    started = time.perf_counter()
    calibration.measure()

    def wants(case: _Case) -> bool:
        took = time.perf_counter() - started
        return case.step is not None and (
            not case.turns or took < seconds or not case.has_enough and took < _PATIENCE * seconds)

    while any(map(wants, cases)):
        for case in filter(wants, cases):
            case.take_turn(share, calibration)


def input_size_of(model_name: str, img_size: int | None = None, training: bool = False) -> tuple[int, int, int]:
    """(channels, height, width) of the images that a model is given: at evaluation, or in training."""
    if is_export(model_name):
        channels, *own = read_export(model_name).data_config["input_size"]
        return (channels, img_size, img_size) if img_size else (channels, *own)
    config = get_pretrained_cfg(model_name) or WeightsConfig()
    size = config.input_size if training else config.test_input_size or config.input_size
    return (size[0], img_size, img_size) if img_size else size


def build_model(model_name: str, size: Sequence[int], device: torch.device | str) -> nn.Module:
    """A model with random weights for images of this size."""
    config = get_pretrained_cfg(model_name) or WeightsConfig()
    known = known_arguments(resolve_name(model_name)[0]) or ()
    is_resized = tuple(size) != config.input_size
    kwargs: dict[str, Any] = {"img_size": tuple(size[1:])} if is_resized and "img_size" in known else {}
    return create_model(model_name, pretrained=False, device=device, **kwargs)


def count_gmacs(model_name: str, size: Sequence[int]) -> float:
    """Multiply-accumulates for one image of this size, in 1e9: convolutions, matrix products and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    model = build_model(model_name, size, "meta").eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *size, device="meta"))
    return counter.get_total_flops() / 2e9


def _compile(model: nn.Module, mode: str) -> Callable[[Tensor], Any]:
    return torch.compile(model, dynamic=False) if mode == "compiled" else model


@contextlib.contextmanager
def _compiler() -> Iterator[None]:
    """Room for every variant of a model that is compiled, which are forgotten afterwards."""
    import torch._dynamo  # takes a second

    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # of torch 2.5
    try:
        with config.patch({limit: _COMPILED_VARIANTS}):
            yield
    finally:
        torch.compiler.reset()


def _loss(outputs: Any) -> Tensor:
    """Cross entropy with random labels, of auxiliary classifiers too; of features, their mean square."""
    if isinstance(outputs, (tuple, list)):
        return torch.stack([_loss(part) for part in outputs if part is not None]).sum()
    if outputs.ndim != 2:
        return outputs.float().square().mean()
    labels = torch.randint(outputs.shape[1], outputs.shape[:1], device=outputs.device)
    return nn.functional.cross_entropy(outputs, labels)


# memory


def _tensors(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    if isinstance(model, nn.Module):
        yield from model.parameters()
        yield from model.buffers()
        yield from (module.packed for module in model.modules() if isinstance(module, (PackedConv2d, PackedLinear)))
    yield images


def _memory_of(tensor: Tensor) -> tuple[int, int]:
    """(where it lies, bytes); packed weights do not say where, and are no one else's."""
    if tensor.is_mkldnn:
        return id(tensor), tensor.numel() * tensor.element_size()
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def _peak_memory(
    step: Callable[[], object], held: Callable[[], Iterator[Tensor]], device: torch.device
) -> float | None:
    """The most memory of a step in MiB: tensors that stay, and what comes on top of them while it runs."""
    growth = _cuda_growth(step, device) if device.type == "cuda" else _resident_growth(step)
    if growth is None:
        return None
    return round((growth + sum(dict(map(_memory_of, held())).values())) / 2**20, 1)


def _cuda_growth(step: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _resident_growth(step: Callable[[], object]) -> int | None:
    """Bytes by which the process grows during a step; None without Linux or glibc.

    What the allocator has kept of earlier steps goes back to the kernel first: it would hide what this one takes.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as stream:
            stream.write("5")  # the peak begins anew (proc(5))
    except (OSError, AttributeError):
        return None
    before = _status("VmRSS")
    step()
    return max(_status("VmHWM") - before, 0)


def _status(field: str) -> int:
    with open("/proc/self/status") as stream:
        line = next(line for line in stream if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _wait_for(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


# the machine


def describe_machine(device: torch.device | str | None = None) -> dict[str, Any]:
    """What figures depend on: processor, cores, threads, memory in GiB, GPU (where one is used), system, versions."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {"cpu": _cpu_name(), "cores": usable, "threads": torch.get_num_threads(), "memory_gib": _memory_gib()}
    device = find_device(device)
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        machine |= {"gpu": facts.name, "gpu_memory_gib": round(facts.total_memory / 2**30, 1),
                    "cuda": torch.version.cuda or torch.version.hip}
    return machine | {"os": _os_name(), "python": platform.python_version(), "torch": torch.__version__}


def machine_line(machine: dict[str, Any]) -> str:
    """The same in a line."""
    gpu = f"; {machine['gpu']}, {machine['gpu_memory_gib']} GiB, CUDA {machine['cuda']}" if "gpu" in machine else ""
    memory = f", {machine['memory_gib']} GiB" if machine["memory_gib"] else ""
    threads = f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}"
    return (f"{machine['cpu']}, {machine['cores']} cores, {threads}{memory}{gpu}; {machine['os']}, "
            f"Python {machine['python']}, torch {machine['torch']}")


def _cpu_name() -> str:
    try:
        if sys.platform == "darwin":
            return subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return " ".join(line.partition(":")[2].split())
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> int | None:
    """Memory in whole GiB, of the container where that has a limit."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.max") as stream:
        total = min(total, int(stream.read()))  # "max" is no number: no limit
    return round(total / 2**30)


def _os_name() -> str:
    name = platform.system()
    with contextlib.suppress(OSError, AttributeError):
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"{name}, {platform.machine()}"
