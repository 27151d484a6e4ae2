"""What is exported: a model, or its features, and what is said of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..data.config import per_channel, resolve_data_config
from ..errors import ConfigError
from ..factory import known_arguments
from ..features import FeatureExtractor
from ..inference.features import Features
from ..inference.model import digest_of, load_model, name_of
from ..layers.branches import reparameterize
from ..layers.helpers import unwrap
from ..models.base import ImageModel
from ..optimization.copies import convert_tensors, settle_weights, shared_copy, why_quantized
from ..publish import hub_config
from ..registry import check_is_classifier
from ..tasks import check_classifies
from ..torchvision_models import note_classes
from .folder import EngineFolder, full_name, refuse_export
from .folder import Tensor as Described
from .module import EngineModule

__all__ = ["Subject", "examples", "load"]

Outputs = list[np.ndarray]


def load(
    name: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None, img_size: int | Sequence[int] | None,
    dynamic_size: bool,
) -> nn.Module:
    """The model of a name, for images of that size.

    Raises:
        ConfigError: The name is that of an export.
        UnknownNameError, WeightsError: Of `create_model`.
    """
    refuse_export(os.fspath(name))
    name = full_name(name)
    check_is_classifier(name, "export")
    arguments: dict[str, Any] = {}
    known = known_arguments(name) or ()
    if img_size is not None and "img_size" in known:
        arguments["img_size"] = img_size if isinstance(img_size, int) else tuple(img_size)
    if dynamic_size and "dynamic_img_size" in known:
        arguments["dynamic_img_size"] = True
    return load_model(name, os.fspath(checkpoint) if checkpoint else None, what="export", **arguments)


class Subject:
    """A model as it is exported: in evaluation mode, in float32, sharing what it can with the original.

    Args:
        model: Of `create_model`; not changed.
        img_size: Height and width of images; the model's own unless given.
        features: As of `export`.
        out_indices: As of `export`.
        dynamic_size: As of `export`.
        device: Where it runs.

    Attributes:
        name: Of the weights, or the architecture.
        reference: What the original answers.
        run: The same, with branches merged: what is converted. Gives a tensor, or a tuple of them.
        data_config: How images are prepared.
        size: Height and width of the images.

    Raises:
        ConfigError: It cannot be exported so.
    """

    classifier: Any  # whatever it has beyond ours
    name: str
    features: str | None

    def __init__(self, model: Any, img_size: int | Sequence[int] | None, features: str | None,
                 out_indices: int | Sequence[int] | None, dynamic_size: bool,
                 device: torch.device = torch.device("cpu")) -> None:  # noqa: B008 (which cannot be changed)
        self.device = device
        model = unwrap(model)
        is_extractor = isinstance(model, FeatureExtractor)
        self.classifier = model.model if is_extractor else model
        _check(model, self.classifier, features)
        self.name = name_of(self.classifier)
        self.digest = digest_of(model)
        if features not in (None, "maps") and is_extractor:
            raise ConfigError(f"'{self.name}' was built with features_only, and gives maps, not '{features}': build it "
                              f"without")
        self.features = "maps" if is_extractor else features
        if self.features is None and not self.classifier.num_classes:
            self.features = "pooled"  # which it gives as it is
        copy: Any = shared_copy(model).eval()
        for module in copy.modules():
            if getattr(module, "grad_checkpointing", False):
                module.grad_checkpointing = False
        settle_weights(copy)
        convert_tensors(copy, torch.float32, device)
        self.data_config = self._data_config(img_size)
        self.size: Any = self.data_config["input_size"][1:]
        resamples = getattr(copy, "resamples_positions", False) or self.classifier.img_size not in (None, self.size)
        if not dynamic_size and not is_extractor and resamples and hasattr(copy, "set_input_size"):
            copy.set_input_size(self.size)  # once, and not as it runs, by an operation that few libraries have
        if features == "maps" and not is_extractor:
            copy = FeatureExtractor(copy, out_indices)
        elif features is not None and not is_extractor:
            copy = Features(copy, features)
            if copy.level is not None:
                self.features = self.classifier.feature_info[copy.level]["module"]
        self.levels = copy.out_indices if isinstance(copy, FeatureExtractor) else ()
        self.reference = copy
        self.run = shared_copy(copy)
        reparameterize(self.run)
        try:
            outputs = self.run(torch.from_numpy(examples(1, self.size, self.data_config)).to(device))
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise ConfigError(f"'{self.name}' does not take images of {self.size[0]} x {self.size[1]}: "
                              f"{_first_line(error)}") from error
        if any(not isinstance(value, Tensor) for value in tree_leaves(outputs)):
            raise ConfigError(f"'{self.name}' gives more than tensors, and cannot be exported so")
        if not isinstance(outputs, Tensor):
            self.run = _Flat(self.run)

    def _data_config(self, img_size: int | Sequence[int] | None) -> dict[str, Any]:
        given = {}
        if img_size is not None:
            height, width = [img_size] * 2 if isinstance(img_size, int) else img_size
            if min(height, width) < 1:
                raise ConfigError(f"images of {height} x {width} pixels have none")
            own = self.classifier.img_size
            if own and tuple(own) != (height, width) and not getattr(self.classifier, "dynamic_img_size", False):
                raise ConfigError(f"'{self.name}' was built for images of {own[0]} x {own[1]}, not of {height} x "
                                  f"{width}: export it by its name, or build it with img_size=({height}, {width})")
            given = {"input_size": (self.classifier.in_chans, height, width)}
        config = resolve_data_config(given, model=self.classifier)
        return {**config, "input_size": tuple(config["input_size"])}

    def answers(self, images: np.ndarray) -> Outputs:
        """What torch gives for normalised images (B, C, H, W)."""
        outputs = self.reference(torch.from_numpy(images).to(self.device))
        return [value.cpu().numpy() for value in tree_leaves(outputs)]

    def other_sizes(self) -> list[tuple[int, int]]:
        """Sizes (height, width) besides its own that the model takes: odd ones, too, if it does.

        Raises:
            ConfigError: It takes none.
        """
        height, width = self.size
        step = max((info["reduction"] for info in getattr(self.classifier, "feature_info", ())), default=32)
        found, reasons = [], []
        for size in ((height + 2 * step, width + step), (height + step + 7, width + 2 * step - 5)):
            try:
                self.answers(examples(1, size, self.data_config))
                found.append(size)
            except (RuntimeError, ValueError, TypeError, AssertionError) as error:
                reasons.append(_first_line(error))
        if not found:
            raise ConfigError(f"'{self.name}' does not take images of any size: {reasons[0]}")
        return found

    def output_names(self, outputs: Outputs) -> list[str]:
        if self.levels:
            return [f"level{index}" for index in self.levels]
        word = "features" if self.features else "logits"
        return [word] if len(outputs) == 1 else [f"{word}{index}" for index in range(len(outputs))]

    def describe(
        self, place: Path, format: str, inputs: list[np.ndarray], expected: list[Outputs], versions: dict[str, str]
    ) -> EngineFolder:
        """What the export is to say.

        Args:
            inputs: Examples of all sizes that are taken.
            expected: Outputs for each.
        """
        outputs = tuple(
            Described(name, _shape([found[index].shape for found in expected]))
            for index, name in enumerate(self.output_names(expected[0])))
        return EngineFolder(
            path=place, format=format, model=self.name, weights=self.digest, precision="float32",
            features=self.features, num_classes=self.classifier.num_classes, data_config=self.data_config,
            input=Described("images", _shape([images.shape for images in inputs])), outputs=outputs, versions=versions,
            config=hub_config(self.classifier, self.data_config))

    def nbytes(self) -> int:
        """Of its weights."""
        return sum(value.nbytes for value in self.run.state_dict().values() if isinstance(value, Tensor))


class _Flat(nn.Module):
    """A model whose outputs, in lists or dicts, are one tuple."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(tree_leaves(self.model(x)))


def _check(model: Any, classifier: Any, features: str | None) -> None:
    check_classifies(classifier, "export")
    name = getattr(classifier, "architecture", type(classifier).__name__)
    if isinstance(classifier, EngineModule):
        raise ConfigError(f"{classifier.folder.path} is an export already: export the model that it was made from")
    if hasattr(classifier, "report") and hasattr(classifier, "model"):
        raise ConfigError("what mvlib.optimize returns is made for this machine: export the model that it was made "
                          "from")
    if getattr(classifier, "is_quantized", False) or why_quantized(classifier):
        raise ConfigError(f"'{name}' is quantized by torch, and other libraries do not read its weights: export the "
                          f"model in float32, with precision='int8' if that is wanted")
    if getattr(classifier, "structure", None) == "torchvision":
        if features is not None:
            raise ConfigError(f"'{name}' is torchvision's {type(classifier).__name__}, which gives logits alone: "
                              f"export create_model('{name}') for features")
        note_classes(classifier)
    elif not isinstance(classifier, ImageModel) or getattr(classifier, "architecture", None) is None:
        raise ConfigError(f"{type(classifier).__name__} is no model that create_model built, which says how its images "
                          f"are prepared: register it (mvlib.register_model), deriving it from mvlib.ImageModel")
    if any(value.is_meta for value in model.state_dict().values() if isinstance(value, Tensor)):
        raise ConfigError(f"'{name}' is on the meta device, without values: load its weights first")


def examples(count: int, size: Sequence[int], config: dict[str, Any], first: int = 0) -> np.ndarray:
    """Normalised images (count, C, H, W) that differ: like a photograph, noise, black, white, stripes, and so on, from
    the `first` of these."""
    random = np.random.default_rng(count)
    channels, (height, width) = config["input_size"][0], size
    rows, columns = np.linspace(0, 7, height), np.linspace(0, 5, width)
    waves = np.sin(rows[:, None] + np.cos(columns)) / 2 + 0.5
    kinds: list[Callable[[], np.ndarray]] = [
        lambda: 0.8 * waves * random.random((channels, 1, 1)) + 0.2 * random.random((channels, height, width)),
        lambda: random.random((channels, height, width)),
        lambda: np.zeros((channels, height, width)),
        lambda: np.ones((channels, height, width)),
        lambda: np.broadcast_to(np.arange(width) // 4 % 2, (channels, height, width)),
    ]
    images = np.stack([kinds[index % len(kinds)]() for index in range(first, first + count)])
    mean, std = (np.array(per_channel(config[key], channels))[:, None, None] for key in ("mean", "std"))
    return ((images - mean) / std).astype(np.float32)


def _shape(shapes: list[tuple[int, ...]]) -> tuple[int | str, ...]:
    """One shape for all: a word where they differ."""
    words = ("batch", "channels", "height", "width") if len(shapes[0]) == 4 else ("batch", "length", "channels")
    return tuple(sides[0] if len(set(sides)) == 1 else words[axis] if axis < len(words) else f"axis{axis}"
                 for axis, sides in enumerate(zip(*shapes)))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
