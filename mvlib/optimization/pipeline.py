"""`mvlib.optimize`: a model made ready to answer fast on the device where it is."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..engines.folder import FORMATS
from ..engines.module import EngineModule, convert_module
from ..engines.runtime import BACKENDS, ENGINES, install_command, is_installed, require_backend
from ..errors import ConfigError, MvlibError
from ..layers.branches import reparameterize
from ..layers.helpers import unwrap
from ..memory import reuse_freed_memory
from ..precisions import precision_name
from ..tasks import check_classifies
from .compilation import CompiledForward, compiler_missing, estimated_seconds, worth_compiling
from .copies import convert_tensors, settle_weights, shared_copy, why_quantized
from .folding import fold_batch_norms
from .layout import is_convolutional
from .precision import (
    ProductAttention,
    check_precision,
    keep_measured_in_float32,
    prefers_product_attention,
    time_both,
)
from .prepacking import can_prepack, prepack
from .report import Report
from .wiring import Snapshot, relative_difference

__all__ = ["OptimizedModel", "optimize"]

_logger = logging.getLogger("mvlib")
_BOUND = 1e-4  # of the largest output: what float32 may lose
_NARROW_BOUND = 2e-2  # what packing may change in bfloat16, whose rounding is 4e-3 and more
_SAMPLE = 2  # images of the example that outputs are compared on
_COMPILE = ("auto", "on", "off")


class OptimizedModel(nn.Module):
    """What `optimize` returns: a model for inference. Image (B, C, H, W) of any floating type -> float32 outputs.

    Runs in inference mode, converts its input's type and layout, and gives floating outputs as float32, nests of them
    included. Attributes that it lacks are the model's (`num_classes`, `feature_info`, ...). Packed weights cannot be
    saved: save the model that it was made from. Hooks on the modules within, and the attentions' `fused_attn`, work but
    where the model is compiled.

    Attributes:
        model: The changed copy.
        report: What was done.
    """

    def __init__(self, model: nn.Module, report: Report, dtype: torch.dtype, layout: torch.memory_format) -> None:
        super().__init__()
        self.model = model
        self.report = report
        self.dtype = dtype
        self.layout = layout
        self.mode: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
        self.compiled: CompiledForward | None = None
        self.eval()

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Any:
        x = self.prepare(x)
        run = self.compiled if self.compiled is not None and self.compiled.fits(x) else self.model
        with self.mode():
            outputs = run(x)
        return tree_map(_to_float32, outputs)

    def prepare(self, x: Tensor) -> Tensor:
        """Images as the model within takes them."""
        return x.to(dtype=self.dtype, memory_format=self.layout) if x.is_floating_point() else x

    def train(self, mode: bool = True) -> OptimizedModel:
        """Only `train(False)`.

        Raises:
            RuntimeError: Training was asked for.
        """
        if mode:
            raise RuntimeError("an optimized model cannot be trained: train the model that it was made from")
        return super().train(False)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":
                raise
            return getattr(super().__getattr__("model"), name)


def _to_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def optimize(
    model: nn.Module,
    example_input: Tensor,
    *,
    dtype: torch.dtype | str | None = None,
    compile: str = "auto",
    work: int | None = None,
    force: bool = False,
    backend: str = "torch",
) -> tuple[nn.Module, Report]:
    """Make a model answer faster on the device where it is, by what helps there and no more.

    In order: memory that the process frees is kept for reuse (CPU; concerns the whole process), channels-last layout,
    branches merged, batch norms folded, weights converted, weights packed for oneDNN together with activations (CPU),
    torch.compile with frozen weights. In float32 each step is checked on the example: one that changes outputs by more
    than 1e-4 of the largest is undone, and the report says so.

    Args:
        model: Unchanged. The result is a copy that shares the parameters that no step replaces, on the same device;
            weights that are computed from others in each pass (weight norm) are those of now. A quantized
            model is left alone; one that is optimized already is returned as it is.
        example_input: Images (B, C, H, W) like those to come: it decides the image size and batch size that weights are
            packed for, and steps are checked on its first two images (on noise where it is blank).
            Other batch and image sizes work.
        dtype: What weights and activations are converted to; float32 unless given. Depthwise convolutions that are
            faster in float32 stay so. Outputs are float32 at any rate. As a text in any usual spelling: "bf16", "half".
        compile: "on", "off", or "auto": where `work` is so long that the time is won back.
        work: Number of images to come, for "auto"; without it, nothing is compiled.
        force: Take a type in which the device is slower than in float32, too.
        backend: What runs the model. "torch" does what is said above. "openvino" and "onnxruntime" convert it, which
            takes seconds, to an engine on the CPU for images of the example's size (others run in torch), checked on
            the example like any step. "auto" converts too where it can, measures both, and takes the faster; what
            fails is torch's, and the report says why. MVLIB_ENGINES=off keeps it from converting.

    Returns:
        The model, and what was done to it.

    Raises:
        ConfigError: The example does not fit the model, the type does not pay on the device, `compile` or `backend` is
            unknown, or the engine that was asked for cannot be made or gives other outputs.
        MissingPackageError: The library that was asked for is not installed.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if compile not in _COMPILE:
        raise ConfigError(f"compile {compile!r} is not one of {', '.join(_COMPILE)}")
    if work is not None and work < 0:
        raise ConfigError(f"work is a number of images, not {work}")
    if backend not in ("auto", "torch") and compile == "on":
        raise ConfigError(f"compile='on' is torch's, and backend='{backend}' runs no torch: give one of them")
    wanted, model = _dtype_of(dtype), unwrap(model)
    if isinstance(model, (OptimizedModel, EngineModule)):
        return _as_it_is(model, wanted, backend)
    check_classifies(model, "optimize")
    _check_example(model, example_input)
    target = wanted or torch.float32
    device = example_input.device
    quantized = why_quantized(model)
    if backend in ENGINES:
        if reason := quantized or _no_engine(device):
            raise ConfigError(f"backend '{backend}': {reason}")
        require_backend(backend)
        return _Optimizer(model, example_input, target).run_in_engine(backend)
    if quantized:
        report = Report(str(device), "int8")
        report.add("all", False, f"{quantized}: left alone")
        return OptimizedModel(model.eval(), report, torch.float32, torch.preserve_format), report
    check_precision(target, device, force)
    optimized, report = _Optimizer(model, example_input, target).run(compile, work)
    if backend == "auto":
        return _or_engine(_Optimizer(model, example_input, target), optimized, report)
    return optimized, report


def _as_it_is(
    model: OptimizedModel | EngineModule, wanted: torch.dtype | None, backend: str
) -> tuple[nn.Module, Report]:
    """What needs no optimizing, if it is what is asked for."""
    dtype = _name(model.dtype) if isinstance(model, OptimizedModel) else model.precision
    report = model.report or Report("cpu", dtype, backend=model.backend)
    if wanted is not None and _name(wanted) != dtype:
        raise ConfigError(f"the model is optimized for {dtype} already: optimize the model that it was made from for "
                          f"{_name(wanted)}")
    if backend not in ("auto", report.backend):
        raise ConfigError(f"the model is optimized with {report.backend} already: optimize the model that it was made "
                          f"from with {backend}")
    return model, report


def _no_engine(device: torch.device) -> str | None:
    """Why no engine can be made on the device."""
    return None if device.type == "cpu" else f"engines run on the CPU, and the model is on {device}"


def _or_engine(
    optimizer: _Optimizer, optimized: OptimizedModel, report: Report
) -> tuple[OptimizedModel | EngineModule, Report]:
    """An engine in the place of what torch has, if it is faster and gives the same."""
    def stay(reason: str) -> tuple[OptimizedModel, Report]:
        report.add("engine", False, reason)
        return optimized, report

    from ..engines.choose import are_enabled

    if reason := _no_engine(optimizer.device):
        return stay(reason)
    if not are_enabled():
        return stay("MVLIB_ENGINES is off")
    backend = next((name for name, format in ENGINES.items() if is_installed(FORMATS[format].package)), None)
    if backend is None:
        return stay(f"no library for it is installed: {install_command('openvino')}")
    try:
        engine, found = optimizer.run_in_engine(backend)
    except MvlibError as error:
        return stay(str(error))
    images = optimizer.example
    own, other = time_both(lambda: optimized(images), lambda: engine(images))
    if own <= other:
        return stay(f"undone: with {backend} a batch takes {other * 1e3:.0f} ms, and {own * 1e3:.0f} ms with torch")
    return engine, found


class _Optimizer:
    """The steps, on a copy of a model, each compared with the outputs before any of them."""

    def __init__(self, model: nn.Module, example: Tensor, dtype: torch.dtype) -> None:
        self.dtype, self.device, self.example = dtype, example.device, example
        self.report = Report(str(example.device), _name(dtype))
        self.model = shared_copy(model).eval()
        settle_weights(self.model)
        if any(p.is_floating_point() and p.dtype != torch.float32 for p in self.model.parameters()):
            convert_tensors(self.model, torch.float32)
        self.images = _sample(example)
        try:
            with torch.inference_mode():
                self.expected = self.model(self.images)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"the model does not take an example_input of shape {tuple(example.shape)}: {message}"
                              ) from error
        self.layout = torch.contiguous_format
        self.bound = _BOUND

    def run(self, compile: str, work: int | None) -> tuple[OptimizedModel, Report]:
        if self.device.type == "cpu":
            kept = reuse_freed_memory()
            self.report.add("memory", kept, "freed memory is kept for reuse, in the whole process" if kept
                            else "the C library does not offer to keep freed memory")
        self._lay_out()
        self._step("reparameterize", self._merge_branches)
        self._step("fold", self._fold)
        self._convert()
        optimized = OptimizedModel(self.model, self.report, self.dtype, self.layout)
        self._choose_attention(optimized)
        plain = Snapshot(self.model)
        self._prepack()
        self._compile(optimized, compile, work, plain)
        self.report.difference = relative_difference(optimized(self.images), self.expected)
        return optimized, self.report

    def run_in_engine(self, backend: str) -> tuple[EngineModule, Report]:
        """An engine of the model.

        Raises:
            ConfigError: It cannot be made, or gives other outputs.
        """
        self.report.backend = backend
        self._step("reparameterize", self._merge_branches)
        started = time.perf_counter()
        try:
            engine = convert_module(self.model, self.images, ENGINES[backend])
        except MvlibError:
            raise
        except Exception as error:  # a library's, which have no base of their own
            _logger.debug("%s cannot take the model", backend, exc_info=True)
            raise ConfigError(f"{backend} cannot take the model: {_first_line(error)}") from error
        seconds = time.perf_counter() - started
        difference = max(self._difference_on(engine, rows) for rows in ([0], [0] * 3 + [-1]))
        if difference > _BOUND:
            raise ConfigError(f"undone: with {backend}, outputs change by {difference:.1e} of the largest")
        size = " x ".join(map(str, self.example.shape[2:]))
        self.report.add("engine", True, f"converted for {backend} in {seconds:.1f} s, for images of {size}; others run "
                        f"in torch")
        if self.dtype is torch.float32:
            self.report.add("convert", False, "float32 is what was asked for")
        else:
            engine.compute_in(_name(self.dtype))
            self.report.add("convert", True, f"computes in {_name(self.dtype)}")
        self.report.difference = self._difference_on(engine, list(range(len(self.images))))
        engine.report = self.report
        return engine, self.report

    def _difference_on(self, engine: EngineModule, rows: list[int]) -> float:
        expected = tree_map(lambda value: value[rows], self.expected)
        return relative_difference(engine(self.images[rows]), expected)

    def _lay_out(self) -> None:
        """Channels last: for convolutions on CPUs, and on GPUs where tensor cores read that layout."""
        if not is_convolutional(self.model):
            return self.report.add("channels_last", False, "convolutions are a small part of the model")
        if self.device.type == "cuda" and self.dtype is torch.float32:
            return self.report.add("channels_last", False, "cuDNN's float32 kernels prefer channels first")
        self.layout = torch.channels_last
        self._step("channels_last", self._to_channels_last)

    def _to_channels_last(self) -> str:
        # Buffers and parameters are replaced, not changed: the original shares them.
        for module in self.model.modules():
            for values in (module._parameters, module._buffers):
                for name, value in values.items():
                    if value is not None and value.dim() == 4:
                        laid = value.detach().contiguous(memory_format=torch.channels_last)
                        is_parameter = isinstance(value, nn.Parameter)
                        values[name] = nn.Parameter(laid, requires_grad=False) if is_parameter else laid
        self.images = self.images.contiguous(memory_format=torch.channels_last)
        return "weights and images"

    def _merge_branches(self) -> str:
        count = reparameterize(self.model)
        return f"{count} modules merged into simple layers" if count else ""

    def _fold(self) -> str:
        count = fold_batch_norms(self.model, self.images, self.bound)
        return f"{count} batch norms went into the layers beside them" if count else ""

    def _step(self, name: str, work: Callable[[], str]) -> None:
        """Do something that keeps outputs; undo it where it does not."""
        snapshot = Snapshot(self.model)
        try:
            note = work()
            with torch.inference_mode():
                difference = relative_difference(self.model(self.images), self.expected) if note else 0.0
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            snapshot.restore()
            return self.report.add(name, False, f"undone: {str(error).splitlines()[0]}")
        if difference > self.bound:
            snapshot.restore()
            return self.report.add(name, False, f"undone: outputs changed by {difference:.1e} of the largest")
        self.report.add(name, bool(note), note or _NOTHING[name])

    def _convert(self) -> None:
        if self.dtype is torch.float32:
            return self.report.add("convert", False, "float32 is what was asked for")
        convert_tensors(self.model, self.dtype)
        self.images = self.images.to(self.dtype)
        note = f"weights and activations in {_name(self.dtype)}"
        if self.device.type == "cpu":
            kept, count = keep_measured_in_float32(self.model, self.images)
            note += f", {kept} of {count} depthwise convolutions faster in float32" if count else ""
        self.report.add("convert", True, note)
        self.bound = _NARROW_BOUND
        with torch.inference_mode():
            self.expected_narrow = self.model(self.images)

    def _choose_attention(self, optimized: OptimizedModel) -> None:
        if self.device.type != "cpu" or self.dtype is torch.float32:
            return
        prefers = prefers_product_attention(self.model, self.images)
        if prefers:
            optimized.mode = ProductAttention
        if prefers is not None:
            self.report.add("attention", prefers, "as batched matrix products, measured to be faster" if prefers
                            else "torch's fused kernel is measured to be faster")

    def _prepack(self) -> None:
        """Not a `_step`: in a narrow type, outputs are compared with those in that type."""
        if self.device.type != "cpu":
            return
        if not can_prepack():
            return self.report.add("prepack", False, "this build of torch has no oneDNN")
        kinds = (nn.Conv2d, nn.Linear) if self.layout is torch.channels_last else (nn.Linear,)
        expected = self.expected if self.dtype is torch.float32 else self.expected_narrow
        snapshot, difference = Snapshot(self.model), float("inf")
        for fuse in (True, False):  # an activation whose input something else reads, too, must stay
            try:
                packed, fused = prepack(self.model, self.images, len(self.example), fuse, kinds)
                with torch.inference_mode():
                    difference = relative_difference(self.model(self.images), expected)
            except (RuntimeError, AttributeError, TypeError) as error:
                reason = str(error).splitlines()[0]
            else:
                reason = f"outputs changed by {difference:.1e} of the largest"
                if difference <= self.bound:
                    note = f"{packed} layers packed for oneDNN, {fused} activations within them"
                    return self.report.add("prepack", packed > 0, note if packed else "no layer can be packed")
            snapshot.restore()
        self.report.add("prepack", False, f"undone: {reason}")

    def _compile(self, optimized: OptimizedModel, compile: str, work: int | None, plain: Snapshot) -> None:
        def skip(reason: str) -> None:
            self.report.add("compile", False, reason)

        if compile == "off":
            return skip("compile is off")
        if reason := compiler_missing(self.device):
            return skip(reason)
        if compile == "auto":
            if work is None:
                return skip("pays for long work alone: say how many images are to come (work=)")
            cost, pace = estimated_seconds(self.model), self._seconds_per_image(optimized)
            if not worth_compiling(pace, work, cost, self.device.type):
                return skip(f"some {cost:.0f} s of compiling would not be won back in {work} images, which take "
                            f"{pace * work:.3g} s")
        packed = Snapshot(self.model)
        plain.restore()  # the compiler packs weights itself, and cannot look into ours
        compiled = CompiledForward(_Within(shared_copy(self.model), optimized.mode))
        packed.restore()
        images = optimized.prepare(self.example)
        try:
            with torch.inference_mode():
                seconds = compiled.compile(images)
                difference = relative_difference(compiled(self.images), self.expected)
        except Exception as error:  # the compiler's errors have no base of their own
            _logger.debug("torch.compile failed", exc_info=True)
            return skip(f"failed, so the model runs uncompiled: {_first_line(error)}")
        if self.dtype is torch.float32 and difference > _BOUND:
            return skip(f"undone: outputs changed by {difference:.1e} of the largest")
        uncompiled, took = time_both(lambda: optimized(images), lambda: compiled(images))
        if took > uncompiled:
            return skip(f"undone: compiled in {seconds:.0f} s, a batch takes {took * 1e3:.0f} ms, and "
                        f"{uncompiled * 1e3:.0f} ms without")
        optimized.compiled = compiled
        self.report.compiled = True
        sizes = "any batch size from 2" if compiled.any_batch else "a batch of 1"
        self.report.add("compile", True, f"in {seconds:.0f} s, with frozen weights, for {sizes} at "
                        f"{' x '.join(map(str, images.shape[2:]))}; others run uncompiled")

    def _seconds_per_image(self, optimized: OptimizedModel) -> float:
        images = optimized.prepare(self.example)
        optimized(images)
        started = time.perf_counter()
        optimized(images)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return (time.perf_counter() - started) / len(images)


class _Within(nn.Module):
    """A model whose forward runs in a context, as one module that can be compiled."""

    def __init__(self, model: nn.Module, mode: Callable[[], contextlib.AbstractContextManager]) -> None:
        super().__init__()
        self.model = model
        self.mode = mode

    def forward(self, x: Tensor) -> Any:
        if self.mode is contextlib.nullcontext:
            return self.model(x)
        with self.mode():
            return self.model(x)


_NOTHING = {"reparameterize": "no module has branches to merge", "fold": "no batch norm stands beside a layer"}


def _check_example(model: nn.Module, example: Tensor) -> None:
    if not isinstance(example, Tensor) or example.dim() != 4 or not example.is_floating_point() or not len(example):
        shown = f"{tuple(example.shape)} of {example.dtype}" if isinstance(example, Tensor) else type(example).__name__
        raise ConfigError(f"example_input is a floating tensor of images (B, C, H, W), not {shown}")
    channels = getattr(model, "in_chans", None)
    if channels is not None and example.shape[1] != channels:
        raise ConfigError(f"example_input has {example.shape[1]} channels, and the model takes {channels}")
    device = next((p.device for p in model.parameters()), example.device)
    if device != example.device:
        raise ConfigError(f"example_input is on {example.device}, and the model on {device}")


def _dtype_of(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype in ("int8", torch.int8, torch.qint8):
        raise ConfigError("int8 is calibrated on pictures: mvlib.export(model, folder, precision='int8', "
                          "calibrate=...), and mvlib.engines.EngineModule(folder)")
    if not isinstance(dtype, str):
        return dtype
    return getattr(torch, precision_name(dtype))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _sample(example: Tensor) -> Tensor:
    """A few images to compare outputs on, in float32: the example's, or noise where they are blank."""
    images = example[:_SAMPLE].detach().float()
    if (images.amax((2, 3)) == images.amin((2, 3))).all():
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(images.shape, generator=generator).to(images.device)
    return images.contiguous()
