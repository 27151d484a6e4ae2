"""Post-training quantization of an OpenVINO engine to int8, by NNCF.

A model's graph says how it is quantized:

- With layer norms or attention it is NNCF's model type "transformer": SmoothQuant moves the outliers of activations
  into the weights, and what stands between the products (sums, norms, softmax) stays in float32.
- Without, activations are quantized asymmetrically (the preset "mixed"): SiLU, GELU and hard swish have a short
  negative side, which a symmetric scale gives half of its steps.
- Ranges are NNCF's own, of the average picture: with those of all pictures tf_efficientnet_lite0 agreed no more often,
  and a network of SiLUs, whose outliers nothing cuts off, less.

Where int8 then agrees too rarely with float32, the first layers are left in float32, a few more at each attempt, and
then the depthwise ones, each of whose channels sums up few values and gains little in int8; the best attempt is taken.
With 6 and the depthwise ones, tf_efficientnet_lite0 agrees on 97.6% of 85 photographs, with 6 alone on 96.5%. Of the
squared error of tf_efficientnet_lite0 with all of its 50 layers in int8, the first two make
two thirds, and they cost little in float32. To quantize each layer alone, and then leave out those that do the most
harm, took three times as long and found the early ones.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.config import per_channel
from ..errors import ConfigError, DataError, ExportError
from ..inference.model import known_class_names
from ..names import closest
from ..optimization.wiring import adjacent
from ..threads import compute_threads
from .calibration import LEAST, Pictures, draw, find_labels, read
from .folder import EngineFolder
from .openvino_runtime import own_signal_stack
from .quiet import no_telemetry
from .runtime import require

__all__ = ["check", "quantize", "summary"]

_logger = logging.getLogger("mvlib")
_WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")
# What is left in float32, in one attempt after another: so many of the first layers; whether the depthwise ones, too.
_ATTEMPTS = ((0, False), (2, False), (6, True), (14, True))
_BATCH_SIZE = 16


def check(format: str, calibrate: Any) -> None:
    """Refuse what cannot be had, before anything is converted.

    Raises:
        ConfigError: The format has no int8 here, or there are no pictures.
        MissingPackageError: openvino or nncf is not installed.
    """
    if format != "openvino":
        raise ConfigError(f"int8 is made in OpenVINO's format alone, not in '{format}': --format openvino")
    if calibrate is None:
        raise ConfigError("int8 is calibrated on pictures like those that the model will see: name a folder of them, "
                          "with --calibrate")
    require("openvino")
    require("nncf")


def quantize(
    folder: EngineFolder,
    run: nn.Module,
    calibrate: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None,
    *,
    count: int = 100,
    exclude: Sequence[str] = (),
    labels: str | os.PathLike[str] | None = None,
    least_agreement: float = 0.97,
    seed: int = 0,
    force: bool = False,
) -> EngineFolder:
    """Turn an export in float32 into one in int8.

    Args:
        folder: The export, in OpenVINO's format, in a place of its own: its engine is replaced.
        run: The module that it was made from.
        calibrate: Pictures, or folders of them, like those that the model will see.
        count: Pictures to calibrate on, at most (200 were no better than 40); see `calibration.draw` for those that
            are held out.
        exclude: Names of modules, with all that is in them, or types of OpenVINO's operations ("MatMul"), with
            wildcards: what is left in float32.
        labels: A folder of class folders to measure accuracy on. None takes the calibration folder, if its folders are
            named as the model's classes.
        least_agreement: Share of the pictures that int8 has to give the same class as float32; for features, the
            cosine of the two on average.
        force: Go on with less.

    Returns:
        The folder, to be described anew. `measured` says "agreement" (on pictures that were held out, "held_out" of
        them; if these are too few, on those of the calibration, and "held_out" is 0), "calibrated_on",
        "float32_layers" (which were left as they were) and, with labels, "top1_float32" and
        "top1_int8" on "labelled" pictures.

    Raises:
        ConfigError: Too few pictures, or a pattern that matches nothing.
        DataError: `labels` is no folder of class folders.
        ExportError: Too little agreement.
        Whatever `check` raises.
    """
    check(folder.format, calibrate)
    assert calibrate is not None
    right = _labels(folder, run, calibrate, labels)
    sample, others = draw(calibrate, count, seed, labels)
    seen, held = read(sample, folder.data_config), read(others, folder.data_config)
    if len(seen) < LEAST:
        raise ConfigError(f"int8 is calibrated on {LEAST} pictures or more, and of {len(sample)} only {len(seen)} "
                          f"could be read")
    quantizer = _Quantizer(folder, seen)
    excluded = quantizer.matching(exclude, _layers_of_norms(run, folder))
    judged = held if len(held) >= LEAST else seen
    expected = quantizer.answers(quantizer.model, judged)
    agreement, left, found, model = -np.inf, list[str](), expected, None
    layers = quantizer.layers()
    for count, depthwise in _ATTEMPTS:
        chosen = [name for place, (name, kind) in enumerate(layers.items())
                  if place < count or depthwise and kind == "GroupConvolution"]
        if 2 * len(chosen) > len(layers):  # with more, little is gained
            continue
        attempt = quantizer.quantized(excluded | set(chosen))
        answers = quantizer.answers(attempt, judged)
        share = _agreement(expected, answers, folder.features is None)
        if share > agreement:
            agreement, left, found, model = share, chosen, answers, attempt
        if share >= least_agreement:
            break
    measured = {
        **folder.measured,
        "difference": max(float(np.abs(want - have).max() / np.abs(want).max())
                          for want, have in zip(expected, found)),
        "agreement": agreement,
        "held_out": len(judged) if judged is held else 0,
        "calibrated_on": len(seen),
        "float32_layers": [quantizer.title(name) for name in left],
    }
    if known := [place for place, path in enumerate(judged.paths) if path in right]:
        truth = np.array([right[judged.paths[place]] for place in known])
        measured["labelled"] = len(known)
        for precision, outputs in (("float32", expected), ("int8", found)):
            measured[f"top1_{precision}"] = float(np.mean(outputs[0][known].argmax(1) == truth))
    if agreement < least_agreement and not force:
        kind = "give the same class" if folder.features is None else "agree (cosine)"
        where = f"{len(judged)} pictures" + ("" if judged is held else " of the calibration")
        raise ExportError(f"int8 and float32 {kind} on {agreement:.1%} of {where}, less than "
                          f"{least_agreement:.0%}: leave layers in float32 with --quantize-exclude, calibrate on more "
                          f"pictures, or take the export all the same with --force")
    versions = {**folder.versions, **quantizer.save(model)}
    return replace(folder, precision="int8", measured=measured, versions=versions)


def summary(measured: Mapping[str, Any]) -> str:
    """What `quantize` has measured, in a line."""
    held = measured["held_out"]
    pictures = f"{held} pictures that were held out" if held else "the calibration's own pictures"
    parts = [f"{measured['agreement']:.1%} agreement with float32 on {pictures}",
             f"calibrated on {measured['calibrated_on']}"]
    if "top1_int8" in measured:
        parts.append(f"top-1 {measured['top1_float32']:.1%} -> {measured['top1_int8']:.1%} of {measured['labelled']}")
    if measured["float32_layers"]:
        parts.append(f"{len(measured['float32_layers'])} layers stay in float32")
    return "; ".join(parts)


def _labels(folder: EngineFolder, run: nn.Module, calibrate: Any, labels: Any) -> dict[str, int]:
    """The right output of each picture, by its path, as far as that can be known."""
    where = labels if labels is not None else calibrate
    if folder.features is not None or not isinstance(where, (str, os.PathLike)):
        return {}
    weights = getattr(run, "weights_config", None)
    names = known_class_names(run) if weights else [folder.class_names]
    label_set = weights.label_set if weights and not weights.label_names else None
    try:
        return find_labels(where, folder.num_classes, names, label_set)
    except (ConfigError, DataError):
        if labels is not None:
            raise
        return {}


def _agreement(expected: Sequence[np.ndarray], found: Sequence[np.ndarray], classes: bool) -> float:
    """Share of equal classes; of features, the average cosine."""
    if classes:
        return float(np.mean(expected[0].argmax(1) == found[0].argmax(1)))
    cosines = []
    for pair in zip(expected, found):
        one, other = (array.reshape(len(array), -1).astype(np.float64) for array in pair)
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines.append(np.mean((one * other).sum(1) / np.maximum(norms, 1e-12)))
    return float(min(cosines))


def _layers_of_norms(run: nn.Module, folder: EngineFolder) -> dict[str, str]:
    """{batch norm: layer before it}: OpenVINO makes one operation of the two, and names it after the norm."""
    names = {id(module): name for name, module in run.named_modules()}
    example = torch.zeros(1, *folder.data_config["input_size"])
    pairs = adjacent(run, example, (nn.Conv2d, nn.Linear), (nn.BatchNorm2d, nn.BatchNorm1d))
    return {names[id(norm)]: names[id(layer)] for layer, norm in pairs}


class _Quantizer:
    """NNCF, told what to do by the model's graph.

    Attributes:
        model: In float32.
    """

    def __init__(self, folder: EngineFolder, pictures: Pictures) -> None:
        with _quiet(), no_telemetry():
            import nncf
            import openvino

        self.nncf, self.ov, self.folder = nncf, openvino, folder
        core = openvino.Core()
        core.set_property({"ENABLE_MMAP": False})  # the file is replaced
        self.model = core.read_model(folder.engine_file)
        size = folder.input.shape[0] if isinstance(folder.input.shape[0], int) else 1
        self._titles: dict[str, str] = {}
        self._batches = list(_batches(self._normalized(pictures.images), size))
        self._is_transformer = _is_transformer(self.model)

    def _normalized(self, images: np.ndarray) -> np.ndarray:
        """uint8 (n, height, width, channels) -> float32 (n, channels, height, width)."""
        config = self.folder.data_config
        mean, std = (255 * np.array(per_channel(config[key], images.shape[-1])) for key in ("mean", "std"))
        scaled = images * (1 / std).astype(np.float32) + (-mean / std).astype(np.float32)
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))

    def quantized(self, excluded: set[str]) -> Any:
        """The model in int8, but for operations of these names."""
        nncf = self.nncf
        with _quiet(), no_telemetry(), own_signal_stack():
            return nncf.quantize(
                self.model.clone(), nncf.Dataset(self._batches), subset_size=len(self._batches),
                preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER if self._is_transformer else None,
                ignored_scope=nncf.IgnoredScope(names=sorted(excluded), validate=False),
                # Weights of 7 bits: sums of full bytes overflow, without a word, on processors without VNNI.
                advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE))

    def answers(self, model: Any, pictures: Pictures) -> list[np.ndarray]:
        """What a model gives for pictures, whole batches of any number."""
        from .run_openvino import OpenVINOEngine

        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": compute_threads()}
        engine = OpenVINOEngine(self.folder, model, options, 1)
        size = self.folder.input.shape[0]
        answers = [engine(batch) for batch in _batches(pictures.images, size if isinstance(size, int) else _BATCH_SIZE)]
        return [np.concatenate(outputs)[:len(pictures)] for outputs in zip(*answers)]

    def layers(self) -> dict[str, str]:
        """{name: type} of the operations with weights, from the first on."""
        return {op.get_friendly_name(): op.get_type_name() for op in self.model.get_ordered_ops()
                if op.get_type_name() in _WEIGHTED}

    def matching(self, patterns: Iterable[str], layers: Mapping[str, str]) -> set[str]:
        """Names of the operations that patterns of modules or types mean.

        Raises:
            ConfigError: A pattern matches nothing.
        """
        operations = [(op.get_friendly_name(), op.get_type_name(), _modules(op, layers))
                      for op in self.model.get_ordered_ops() if op.get_type_name() not in _NO_OPERATIONS]
        found = set()
        for pattern in patterns:
            names = {name for name, kind, modules in operations
                     if fnmatch.fnmatchcase(kind.lower(), pattern.lower()) or fnmatch.filter(modules, pattern)}
            if not names:
                known = {title for _, kind, modules in operations for title in (kind, *modules)}
                raise ConfigError(f"--quantize-exclude: '{pattern}' is neither a module of the model nor a type of its "
                                  f"operations{closest(pattern, sorted(known))}")
            found |= names
        self._titles.update((name, modules[-1] if modules else name) for name, _, modules in operations)
        return found

    def title(self, name: str) -> str:
        """What people call an operation."""
        return self._titles.get(name, name)

    def save(self, model: Any) -> dict[str, str]:
        """Write over the float32 engine; gives the versions of what was used."""
        self.ov.save_model(model, self.folder.engine_file, compress_to_fp16=False)
        return {"nncf": self.nncf.__version__}


_NO_OPERATIONS = ("Constant", "Parameter", "Result")


def _modules(op: Any, layers: Mapping[str, str]) -> list[str]:
    """Names of the modules that an operation is in, from the outermost on, and of the layer before a norm."""
    while not (found := re.match(r"__module\.(.+?)/", op.get_friendly_name())):
        readers = op.output(0).get_target_inputs() if op.get_output_size() == 1 else ()
        if len(readers) != 1:
            return []
        op = next(iter(readers)).get_node()
    names = []
    for path in filter(None, (found[1], layers.get(found[1]))):
        parts = path.removeprefix("model.").split(".")  # within `Features`
        names += [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return names


def _is_transformer(model: Any) -> bool:
    """Whether there are layer norms or attention."""
    kinds = {op.get_type_name() for op in model.get_ops()}
    return bool(kinds & {"MVN", "ScaledDotProductAttention"}) or any(
        reader.get_node().get_type_name() == "MatMul" for op in model.get_ops() if op.get_type_name() == "Softmax"
        for reader in op.output(0).get_target_inputs())


def _batches(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """All of `size`; the last one is filled up with the first images."""
    for start in range(0, len(images), size):
        batch = images[start:start + size]
        yield batch if len(batch) == size else np.concatenate([batch, images[:1].repeat(size - len(batch), axis=0)])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without NNCF's bars of progress and hints, and what it makes torch say of compilers."""
    levels = [(logger, logger.level) for logger in map(logging.getLogger, ("nncf", "torch.utils.cpp_extension"))]
    for logger, _ in levels:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
