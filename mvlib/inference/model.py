"""The model of a command, made fast, and how its images are read."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..data.config import image_mode
from ..data.images import open_image
from ..data.labels import known_names
from ..data.normalizer import Normalizer
from ..data.transform_factory import create_transform
from ..devices import find_device
from ..errors import ConfigError
from ..factory import create_model
from ..loading import read_training_facts
from ..optimization import optimize
from ..precisions import precision_name
from ..registry import check_is_classifier
from ..tasks import check_classifies
from .options import DEFAULT_MODEL, quantized_name

if TYPE_CHECKING:
    from ..optimization.report import Report

__all__ = ["Engine", "class_names_of", "create_read", "digest_of", "known_class_names", "load_model", "name_of",
           "prepare", "resolve_device"]

_LEAST_INT8 = 0.5  # share of the weights that int8 has to reach: with less there is nothing to gain


def resolve_device(name: str) -> torch.device:
    """"auto" is the GPU if there is one; of several, each process that torchrun started takes its own.

    Raises:
        ConfigError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{int(os.environ['LOCAL_RANK']) % max(torch.cuda.device_count(), 1)}"
    return find_device(name)


def load_model(
    name: str | None, checkpoint: str | None, device: torch.device | None = None, precision: str = "float32",
    what: str = "this", **arguments: Any,
) -> nn.Module:
    """The model that a command names, in evaluation mode.

    Args:
        name: Of the model; None for the checkpoint's, or `DEFAULT_MODEL`.
        checkpoint: Weights file instead of the published ones. What a training checkpoint says of its model holds.
        precision: "int8" takes the quantized model of that name, if it is published with these weights.
        what: Who loads it, for the message that refuses a model for another task.
        arguments: Of `create_model`, where the user contradicts checkpoint or weights by name; None counts as not
            given.
    """
    facts = read_training_facts(checkpoint) if checkpoint else {}
    name = name or facts.get("arch") or DEFAULT_MODEL
    if precision == "int8" and not checkpoint:
        name = quantized_name(name) or name
    check_is_classifier(name, what)
    model = create_model(name, **{"pretrained": not checkpoint, **arguments}, checkpoint_path=checkpoint, device=device)
    check_classifies(model, what)
    return model.eval()


def class_names_of(model: Any) -> list[str]:
    """What a model's outputs are called, as far as its weights know."""
    *_, names = known_class_names(model) or [[f"class {index}" for index in range(model.num_classes)]]
    return names


def known_class_names(model: Any) -> list[list[str]]:
    """The names that a model's outputs have by its weights: none, one list, or names and then descriptions."""
    config = model.weights_config
    names = known_names(config, model.num_classes)
    if names is None:
        return []
    descriptions = config.label_descriptions if config.label_names else None
    return [names, [descriptions.get(name, name) for name in names]] if descriptions else [names]


def create_read(config: dict[str, Any], decode: str = "full") -> Callable[[Path], Tensor]:
    """What reads a file to a uint8 image (C, H, W) as a model wants it, but for normalisation: grey for a model of one
    channel, with transparency for one of two or four.

    Args:
        config: Of `resolve_data_config`.
        decode: "full"; "scaled" for JPEGs decoded at 1/2, 1/4 or 1/8 where twice the size is left; "reference" for
            PIL, to the bit what the model was validated with.
    """
    mode = image_mode(config["input_size"][0])
    if decode != "reference" and mode == "RGB":  # the only mode that the fast way knows
        return create_transform(**config, use_prefetcher=True, backend="fast", decode=decode).from_file
    transform = create_transform(**config, use_prefetcher=True)
    return lambda path: transform(open_image(path, mode))


def name_of(model: nn.Module) -> str:
    """Of the published weights that the model began with, or else of its architecture."""
    model = getattr(model, "model", model)  # cut off at its features
    base = getattr(model, "base_weights", None)
    return base.name if base is not None and base.architecture else getattr(model, "architecture", type(model).__name__)


def digest_of(model: nn.Module) -> str:
    """SHA-256 of what a model has learned, whatever file it came from."""
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        _digest(value, digest)
    return digest.hexdigest()


def _digest(value: Any, digest: Any) -> None:
    if isinstance(value, Tensor):
        if value.is_quantized:
            digest.update(repr((value.qscheme(), value.dtype)).encode())
            value = value.int_repr()
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, (tuple, list)):
        for item in value:
            _digest(item, digest)
    else:
        digest.update(repr(value).encode())


@dataclass
class Engine:
    """A model ready to be fed with uint8 batches.

    Attributes:
        model: What is called with normalised images.
        normalizer: uint8 batch to what the model takes.
        device: Where both are.
        report: What `mvlib.optimize` did; None for int8.
    """

    model: Callable[[Tensor], Any]
    normalizer: Normalizer
    device: torch.device
    report: Report | None = None

    def __call__(self, images: Tensor) -> Any:
        """uint8 images (n, C, H, W) -> what the model gives for them."""
        return self.model(self.normalizer(images.to(self.device, non_blocking=True)))


def prepare(
    model: nn.Module,
    config: dict[str, Any],
    device: torch.device,
    *,
    precision: str = "float32",
    compile: str = "auto",
    batch_size: int = 16,
    count: int | None = None,
    force: bool = False,
) -> Engine:
    """Make a model fast for uint8 batches.

    Args:
        model: In evaluation mode, on `device`.
        config: Of `resolve_data_config`.
        precision: One of `options.PRECISIONS`; "int8" leaves a quantized model as it is, and otherwise takes its
            linear layers in int8, scaled for each batch anew.
        compile: As `mvlib.optimize` takes it.
        batch_size: Images at once.
        count: Images in all, if that is known.
        force: Take a precision in which the device is slower, too.

    Raises:
        ConfigError: The precision does not exist for this model, or does not pay on the device.
    """
    if precision == "int8" and device.type != "cpu":
        raise ConfigError(f"int8 models run on the CPU, not on {device}")
    dtype = torch.float32 if precision == "int8" else getattr(torch, precision_name(precision))
    channels = config["input_size"][0]
    normalizer = Normalizer(config["mean"], config["std"], channels, device, dtype)
    if precision == "int8" or getattr(model, "is_quantized", False):
        return Engine(_quantize(model), normalizer, device)
    example = torch.zeros((batch_size, *config["input_size"]), dtype=torch.uint8, device=device)
    example = Normalizer(config["mean"], config["std"], channels, device, torch.float32)(example)
    model, report = optimize(model, example, dtype=dtype, compile=compile, work=count, force=force)
    return Engine(model, normalizer, device, report)


def _quantize(model: nn.Module) -> nn.Module:
    if getattr(model, "is_quantized", False):
        return model
    linear = [module for module in model.modules() if type(module) is nn.Linear]
    share = sum(module.weight.numel() for module in linear) / max(sum(p.numel() for p in model.parameters()), 1)
    if share < _LEAST_INT8:
        raise ConfigError(f"'{name_of(model)}' has no int8 weights, and its linear layers, which could be quantized on "
                          f"the fly, are but {share:.0%} of it: take another precision, a quantized_* model, or an "
                          f"engine that is calibrated on 16 pictures or more, --calibrate FOLDER")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but all that torch itself has
        from torch.ao.quantization import quantize_dynamic

        return quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
