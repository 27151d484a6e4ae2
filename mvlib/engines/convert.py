"""From a torch module to the file of another library.

OpenVINO is given what `torch.jit.trace` writes down: 0.9 s for a resnet50, against 4 s by way of torch.export, whose
graphs it has to take apart again and whose open sizes it does not always understand. ONNX and torch's own packages are
of torch.export, the older exporter being deprecated. TorchScript is compiled from the graph (see
`mvlib.models.scripting`), so that it runs on any device. AOTInductor compiles torch.export's graph, for the kind of
machine that it runs on. What a conversion has fixed that should be open is found when the engine is compared with the
model.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..models.scripting import scriptable
from ..optimization.compilation import compiler_missing
from .folder import FORMATS
from .quiet import no_telemetry
from .run_torch import machine_of
from .runtime import require_for_export

__all__ = ["CONVERTERS", "convert", "to_program"]

def convert(
    format: str,
    model: nn.Module,
    example: Tensor,
    path: Path,
    dynamic_batch: bool = True,
    *,
    dynamic_size: bool = False,
    names: Sequence[str] = ("output0",),
    title: str | None = None,
) -> dict[str, str]:
    """Write a model in another library's format.

    Args:
        format: One of `CONVERTERS`.
        model: In evaluation mode, on the CPU (for "aotinductor": where it is to run), in float32: one input, one or
            several outputs.
        example: Images (B, C, H, W); two at least where any batch is to be taken.
        path: The file; others may be written beside it.
        dynamic_batch: Whether batches of any size are taken, or only those of the example's.
        dynamic_size: Whether images of any size are.
        names: Of the outputs.
        title: Of the model, in errors.

    Returns:
        {library: version} of what was used; for "aotinductor" also the "machine" that it runs on.

    Raises:
        MissingPackageError: The format's library is not installed.
        ConfigError: The format lacks an operation of the model, whose name it says, or cannot take the model otherwise.
    """
    require_for_export(format)
    axes = {0: "batch"} if dynamic_batch else {}
    if dynamic_size:
        axes.update({2: "height", 3: "width"})
    with torch.no_grad(), _quiet():
        try:
            return {"torch": torch.__version__, **CONVERTERS[format](model, example, path, axes, names)}
        except OSError:
            raise
        except Exception as error:  # the converters' errors have no base of their own
            title = title or getattr(model, "architecture", type(model).__name__)
            raise ConfigError(f"'{title}' cannot be converted to {FORMATS[format].title}: {_reason(error)}") from error


Axes = dict[int, str]  # of the input, those of any size


def to_openvino(model: nn.Module, example: Tensor, path: Path, axes: Axes, names: Sequence[str]) -> dict[str, str]:
    with no_telemetry():
        import openvino as ov

        traced = torch.jit.trace(model, (example,), check_trace=False)  # which would trace it once more
        converted = ov.convert_model(traced, example_input=example)
    converted.reshape([-1 if axis in axes else side for axis, side in enumerate(example.shape)])
    converted.input().get_tensor().set_names({"images"})
    for output, name in zip(converted.outputs, names, strict=True):
        output.get_tensor().set_names({name})
    ov.save_model(converted, path, compress_to_fp16=False)
    return {"openvino": ov.__version__}


def to_onnx(model: nn.Module, example: Tensor, path: Path, axes: Axes, names: Sequence[str]) -> dict[str, str]:
    import onnx
    import onnxscript

    exported = to_program(model, example, axes)
    for optimize in (True, False):  # its rewriting loses the bounds where one value is clamped twice
        program: Any = torch.onnx.export(exported, dynamo=True, verbose=False, input_names=["images"],
                                         output_names=list(names), optimize=optimize)
        program.save(path)
        try:
            onnx.checker.check_model(str(path))  # by its path: there may be more than 2 GB of weights
            break
        except onnx.checker.ValidationError:
            if not optimize:
                raise
    opset = next(item.version for item in program.model_proto.opset_import if not item.domain)
    return {"onnx": onnx.__version__, "onnxscript": onnxscript.__version__, "opset": str(opset)}


def to_torch_export(model: nn.Module, example: Tensor, path: Path, axes: Axes, names: Sequence[str]) -> dict[str, str]:
    program = to_program(model, example, axes)
    _write(path, lambda stream: torch.export.save(program, stream))
    return {}


def to_torchscript(model: nn.Module, example: Tensor, path: Path, axes: Axes, names: Sequence[str]) -> dict[str, str]:
    script = torch.jit.script(scriptable(model))
    _write(path, lambda stream: torch.jit.save(script, stream))
    return {}


def _write(path: Path, save: Callable[[io.BytesIO], None]) -> None:
    """By way of memory: on a full disk, torch ends the process."""
    stream = io.BytesIO()
    save(stream)
    path.write_bytes(stream.getbuffer())


def to_aotinductor(model: nn.Module, example: Tensor, path: Path, axes: Axes, names: Sequence[str]) -> dict[str, str]:
    """Machine code for the processor or GPU of this machine, which needs a compiler now and none afterwards."""
    from torch._inductor import aoti_compile_and_package

    if reason := compiler_missing(example.device):
        raise ConfigError(f"it compiles ahead of time, and {reason}")
    aoti_compile_and_package(to_program(model, example, axes), package_path=str(path))
    return {"machine": machine_of(example.device)}


Converter = Callable[[nn.Module, Tensor, Path, Axes, Sequence[str]], dict[str, str]]
CONVERTERS: dict[str, Converter] = {"openvino": to_openvino, "onnx": to_onnx, "torch-export": to_torch_export,
                                    "torchscript": to_torchscript, "aotinductor": to_aotinductor}


def to_program(model: nn.Module, example: Tensor, axes: Axes) -> torch.export.ExportedProgram:
    """A model as torch.export writes it down.

    Args:
        axes: {axis of the images: name} of those of any size.
    """
    sizes = {axis: torch.export.Dim(name) if axis == 0 else torch.export.Dim.DYNAMIC for axis, name in axes.items()}
    return torch.export.export(model, (example,), dynamic_shapes=(sizes or None,), strict=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the libraries say of their own age, and print of graphs that they do not understand."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript")]
    changed = [logging.getLogger(), *loggers]  # OpenVINO leaves the root's as it was not, where it fails
    levels = [logger.level for logger in changed]
    nowhere = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(changed, levels):
                logger.setLevel(level)


_LACKING = (  # what names an operation: OpenVINO's error, ONNX's, TorchScript's
    re.compile(r"No conversion rule found for operations: (?P<all>.+)"),
    re.compile(r"No ONNX function found for <OpOverload\(op='(?P<one>[\w.]+)'"),
    re.compile(r"(?<=[= ])torch\.ops\.(?P<one>\w+\.\w+)"),
)
_FIXED = re.compile(r"marked (\w+) as dynamic but your code specialized it")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def _reason(error: BaseException) -> str:
    """One line of what went wrong, with the names of the operations, if it was for them."""
    text = _ESCAPES.sub("", str(error))
    for pattern in _LACKING:
        if found := [match["all"] if "all" in match.groupdict() else match["one"] for match in pattern.finditer(text)]:
            names = ", ".join(sorted({name.strip().replace(".", "::") for name in ",".join(found).split(",")}))
            return f"it does not know the operation {names}; other formats may"
    if fixed := _FIXED.search(text):
        return f"the model fixes the {fixed[1]} of its images while it runs"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return lines[0] if len(lines[0]) < 300 else f"{lines[0][:300]}..."
