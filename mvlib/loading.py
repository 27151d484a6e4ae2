"""From a weights file to a model: read or mapped, adapted, assigned.

A file is read once, into memory of the tensors' own, and never unpickled beyond tensors. It is mapped instead where
that is asked for, which is right only for files that nobody rewrites in place: through a mapping, a file that is
copied over another changes a living model, and one that is truncated kills the process. The tensors are fitted to the
model (foreign layouts, input channels, classes, image size) and become the parameters of a model that was built on the
meta device, so that nothing is initialised only to be overwritten. What the file does not fill is initialised
afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import pickle
import struct
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from .arguments import shorten_error
from .errors import CheckpointError, MvlibError
from .features import FeatureExtractor
from .hub import check_complete
from .layers.helpers import owns_meta, plain_name, unwrap
from .tasks import CLASSIFICATION
from .weights import WeightsConfig

if TYPE_CHECKING:
    from .models.base import ImageModel

__all__ = ["FACTS", "adapt_input_conv", "load_by_itself", "load_checkpoint", "load_weights", "materialize",
           "read_state_dict", "read_training_facts"]

_logger = logging.getLogger("mvlib")

StateDict = dict[str, Tensor]
# In the order in which they are looked for: an average of the weights is what was published, if there is one.
EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict")
_WRAPPER_KEYS = ("classy_state_dict", "base_model", "state_dict", "model", "model_state_dict", "model_state",
                 "params", "net", "encoder", "module")
# What a checkpoint may say of its model, and of what type that is. `classes` are names, `data_config` is how its images
# are prepared, `label_set` and `license` are as in a WeightsConfig, `base` is its `base_model`, which as a key in a
# checkpoint means tensors.
FACTS: dict[str, Any] = {
    "arch": str, "num_classes": int, "classes": (list, tuple), "label_set": str, "model_args": dict,
    "data_config": dict, "license": str, "base": dict, "epoch": int, "metric": (int, float),
}
_SHOWN_KEYS = 5
_FOREIGN_SHARE = 0.2  # of the keys of file and model: with fewer that do not fit, it's an option or a damage


def read_state_dict(path: str | os.PathLike[str], use_ema: bool = True, mmap: bool = False) -> StateDict:
    """The tensors of a weights file, on the CPU.

    Reads `.safetensors`, torch's zip and legacy formats (tensors only: nothing in a pickle is run) and `.npz`. A
    training checkpoint is unwrapped ("state_dict", "model", ...) and wrappers' prefixes ("module.") are removed. Of
    quantized weights, pairs of tensors and dtypes are kept too: torch.ao packs a linear layer's parameters so.

    Args:
        path: The file.
        use_ema: Prefer averaged weights where a training checkpoint has both.
        mmap: Map the tensors of safetensors and of torch's zip format instead of reading them. The file may be
            replaced then (by a rename), but must not be written to in place for as long as they are in use.

    Raises:
        CheckpointError: The file is empty, truncated, damaged, holds more than tensors and plain data, or holds none.
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no weights file at {path}")
    check_complete(path)
    with _refusing(f"{path} cannot be read as a weights file"):
        with open(path, "rb") as stream:
            head = stream.read(8)
        if path.suffix == ".safetensors" or (len(head) == 8 and not head.startswith(b"PK") and _is_safetensors(path)):
            state_dict = _unwrap(_read_safetensors(path, mmap), use_ema, path)
        elif path.suffix == ".npz":
            state_dict = _unwrap(_read_npz(path), use_ema, path)
        else:
            state_dict = _read_torch(path, use_ema, mmap)
    return state_dict


def read_training_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint says of its model besides its tensors, as far as it does (`FACTS`); nothing for files that hold
    weights alone.

    Training checkpoints say it beside "state_dict", timm's in their arguments, safetensors in their metadata, under
    "mvlib", as JSON. It is another's word: of the right types, but not checked further.

    Raises:
        CheckpointError: The file is damaged, or it is a folder.
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no weights file at {path}")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a weights file")
    data: Any = None
    try:
        if path.suffix != ".npz" and zipfile.is_zipfile(path):
            data = _unpickle(path, "cpu", mmap=True)  # the tensors are not looked at
            if not isinstance(data, dict) or not isinstance(data.get("state_dict"), dict):
                return {}
        elif _is_safetensors(path):
            with safe_open(path, framework="pt") as file:
                data = json.loads((file.metadata() or {}).get("mvlib", "null"))
    except (CheckpointError, OSError):
        raise
    except Exception:
        return {}  # whoever reads the weights says what is wrong
    if not isinstance(data, dict):
        return {}
    if isinstance(data.get("args"), argparse.Namespace):
        data = {**_facts_of_arguments(vars(data["args"])), **data}
    return {key: data[key] for key, kind in FACTS.items() if isinstance(data.get(key), kind)}


def read_parts(path: str | os.PathLike[str]) -> set[str]:
    """The names of what a training checkpoint of torch's zip format holds beside each other: "state_dict", "optimizer",
    "state_dict_ema", ...; none for other files."""
    try:
        data = _unpickle(Path(path), "cpu", mmap=True) if zipfile.is_zipfile(path) else None
    except Exception:
        return set()  # whoever reads the weights says what is wrong
    return {key for key, value in data.items() if value is not None} \
        if isinstance(data, dict) and isinstance(data.get("state_dict"), dict) else set()


def _facts_of_arguments(args: Mapping[str, Any]) -> dict[str, Any]:
    """What the arguments that timm's script keeps in its checkpoints say of the model."""
    own = args.get("model_kwargs")
    model_args = {"in_chans": args.get("in_chans"), "global_pool": args.get("gp"),
                  **(own if isinstance(own, dict) else {})}
    names = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
    data_config = {key: args.get(key) for key in names}
    if not data_config["input_size"] and args.get("img_size"):
        data_config["input_size"] = (model_args["in_chans"] or 3, args["img_size"], args["img_size"])
    return {"arch": args.get("model"), "num_classes": args.get("num_classes"),
            "model_args": {key: value for key, value in model_args.items() if value is not None},
            "data_config": {key: value for key, value in data_config.items() if value}}


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Make whatever goes wrong over a stranger's bytes and tensors, of which anything can be wrong, one error."""
    try:
        yield
    except (MvlibError, MemoryError, OSError):
        raise
    except Exception as error:
        raise CheckpointError(f"{what}: {shorten_error(error)}") from error


def _is_safetensors(path: Path) -> bool:
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return 2 <= length < 100_000_000 and stream.read(1) == b"{"


def _read_safetensors(path: Path, mmap: bool) -> StateDict:
    with safe_open(path, framework="pt") as file, open(path, "rb") as stream:  # it checks the header
        if mmap:
            return {key: file.get_tensor(key) for key in file.keys()}
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        dtypes = {entry["dtype"]: key for key, entry in header.items()}  # one tensor of each shows which it is
        dtypes = {name: file.get_tensor(key).dtype for name, key in dtypes.items()}
        tensors = {}
        for key, entry in header.items():
            begin, end = entry["data_offsets"]
            tensors[key] = torch.empty(entry["shape"], dtype=dtypes[entry["dtype"]])
            if tensors[key].nbytes != end - begin:
                raise ValueError(f"the size of '{key}' is not that of its shape")
            _read_into(tensors[key].untyped_storage(), stream, 8 + length + begin)
    return tensors


def _read_into(storage: torch.UntypedStorage, stream: BufferedReader, offset: int) -> None:
    stream.seek(offset)
    if stream.readinto(torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data) != storage.nbytes():
        raise EOFError("it is cut off")


def _read_npz(path: Path) -> StateDict:
    import numpy

    with numpy.load(path, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def _read_torch(path: Path, use_ema: bool, mmap: bool) -> StateDict:
    """The weights of a file of torch's; of a zip file nothing else is read, however much it holds."""
    if not _is_mappable(path):
        return _unwrap(_unpickle(path, "cpu"), use_ema, path)
    storages: list[torch.UntypedStorage] = []

    def note(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage:
        storages.append(storage)
        return storage

    state_dict = _unwrap(_unpickle(path, note, mmap=True), use_ema, path)
    if mmap:
        return state_dict
    offsets = _find_storages(path, storages)
    if offsets is None or not all(map(_is_plain, state_dict.values())):
        return _unwrap(_unpickle(path, "cpu"), use_ema, path)
    own: dict[int, torch.UntypedStorage] = {}  # tensors that share memory in the file go on sharing it
    tensors = {}
    with open(path, "rb") as stream:
        for key, mapped in state_dict.items():
            storage = mapped.untyped_storage()
            address = storage.data_ptr()
            if address not in own:
                own[address] = torch.UntypedStorage(storage.nbytes())
                if address in offsets:
                    _read_into(own[address], stream, offsets[address])
            tensors[key] = torch.empty(0, dtype=mapped.dtype).set_(
                own[address], mapped.storage_offset(), mapped.shape, mapped.stride())
    return tensors


def _is_mappable(path: Path) -> bool:
    """Whether this is a zip file whose records are what will be in memory: uncompressed, in this machine's order."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        orders = {archive.read(name).decode() for name in archive.namelist() if name.endswith("/byteorder")}
        return orders <= {sys.byteorder} and not any(record.compress_type for record in archive.infolist())


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized and \
        not value.is_complex()


def _find_storages(path: Path, storages: Iterable[torch.UntypedStorage]) -> dict[int, int] | None:
    """{address: place in the file} of all of a zip file's storages that are mapped; None where that is not sure."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as stream:
        offsets = []
        for record in archive.infolist():
            if "/data/" in record.filename and record.file_size:
                stream.seek(record.header_offset + 26)  # where a record's own header says how long it is
                offsets.append(record.header_offset + 30 + sum(struct.unpack("<HH", stream.read(4))))
    addresses = {storage.data_ptr() for storage in storages if storage.nbytes()}
    found = dict(zip(sorted(addresses), sorted(offsets)))
    # All are in one mapping of the file: one distance between them all, or they are not each other's.
    is_sure = len(addresses) == len(offsets) and len({address - offset for address, offset in found.items()}) <= 1
    return found if is_sure else None


def _unpickle(path: Path, map_location: Any, mmap: bool = False) -> Any:
    try:
        # Training checkpoints of timm's hold their arguments; a Namespace is data and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        found = _unsafe_globals(path) if zipfile.is_zipfile(path) else []
        if found or "unsupported" in str(error).lower() or "not an allowed" in str(error):
            names = f" ({', '.join(found[:_SHOWN_KEYS])})" if found else ""
            raise CheckpointError(
                f"{path} holds Python objects besides tensors{names}; it was not loaded, because unpickling them could "
                f"run code. Save its state dict alone, best as safetensors, where you trust it") from error
        raise


def _unsafe_globals(path: Path) -> list[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a report about a bad file must not fail on it
        return []


def _unwrap(data: Any, use_ema: bool, path: Path) -> StateDict:
    """The state dict in what a file holds.

    Raises:
        CheckpointError: There is none, or it is not said which.
    """
    keys = (*EMA_KEYS, *_WRAPPER_KEYS) if use_ema else _WRAPPER_KEYS
    while isinstance(data, Mapping):
        inner = next((data[key] for key in keys if isinstance(data.get(key), Mapping) and data[key]), None)
        if inner is None:
            break
        data = inner
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{path} holds no tensors with names, but a {type(data).__name__}: save the model's "
                              f"state_dict()")
    if isinstance(data.get("trunk"), Mapping):  # Classy Vision's (SEER)
        data = {**data["trunk"], **(data.get("heads") or {})}
    if _is_quantized(data):
        return _without_objects(data)
    tensors = {key: value for key, value in data.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        parts = [repr(key) for key, value in data.items()
                 if isinstance(value, Mapping) and any(isinstance(part, Tensor) for part in value.values())]
        named = ", ".join((parts or list(map(repr, data)))[:_SHOWN_KEYS])
        raise CheckpointError(f"{path} holds no tensors at its top, but the state dicts {named}: save one of them by "
                              f"itself" if parts else f"{path} holds no tensors{named and f', but {named}'}")
    return strip_wrappers(tensors)


def strip_wrappers(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without what training programs' wrappers put into names and beside the weights."""
    state_dict = {plain_name(key): value for key, value in state_dict.items()}
    while state_dict and all(key.startswith("module.") or key == "n_averaged" for key in state_dict):  # DDP, averages
        state_dict = {key[len("module."):]: value for key, value in state_dict.items() if key != "n_averaged"}
    return state_dict


def _is_quantized(state_dict: Mapping[str, Any]) -> bool:
    """Whether these are weights of torch.ao's: int8, or those of quantisation-aware training."""
    return any(isinstance(key, str) and key.endswith("zero_point") for key in state_dict)


def _without_objects(data: Mapping[str, Any]) -> StateDict:
    """A quantized state dict, its packed pairs and dtypes kept, and the versions by which torch reads older layouts."""
    state_dict: OrderedDict[str, Any] = OrderedDict(
        (key, value) for key, value in data.items()
        if isinstance(value, (Tensor, torch.dtype)) or
        (isinstance(value, tuple) and all(part is None or isinstance(part, Tensor) for part in value)))
    vars(state_dict)["_metadata"] = getattr(data, "_metadata", None)
    return state_dict


def adapt_input_conv(in_chans: int, weight: Tensor, base_chans: int = 3) -> Tensor:
    """A first convolution's weight for another number of input channels, timm's rule.

    One channel takes the sum over the original channels; otherwise they are repeated (or cut) to `in_chans` and scaled
    so that the output keeps its magnitude.

    Args:
        in_chans: Channels wanted.
        weight: (out, base_chans, kh, kw), or (out, n * base_chans, kh, kw) after a space-to-depth stem, a pixel's
            channels side by side; so is (out, n * base_chans), a linear layer's over flat patches.
        base_chans: Channels of the images that the weight was trained on.

    Raises:
        CheckpointError: The weight's shape does not come from `base_chans` channels.
    """
    if in_chans == base_chans:
        return weight
    out, chans, *kernel = weight.shape
    if chans % base_chans:
        raise CheckpointError(f"a first convolution of shape {tuple(weight.shape)} cannot be adapted from {base_chans} "
                              f"to {in_chans} input channels")
    values = weight.float().reshape(out, chans // base_chans, base_chans, *kernel)
    if in_chans == 1:
        values = values.sum(dim=2, keepdim=True)
    else:
        repeats = math.ceil(in_chans / base_chans)
        values = values.repeat(1, 1, repeats, *(1 for _ in kernel))[:, :, :in_chans] * (base_chans / in_chans)
    return values.flatten(1, 2).to(weight.dtype)


def load_checkpoint(
    model: nn.Module, checkpoint_path: str | os.PathLike[str], use_ema: bool = True, strict: bool = True
) -> _IncompatibleKeys:
    """Load a weights file into a model that exists; foreign layouts and other image sizes are adapted.

    What DDP, DataParallel, AveragedModel and torch.compile put around the model or into the file's names is looked
    through, and so is a training program's own "model." or "backbone.".

    Args:
        model: The model.
        checkpoint_path: What `read_state_dict` reads.
        use_ema: Prefer averaged weights where a training checkpoint has both.
        strict: Whether missing and unexpected keys are an error. If not, a file of which nothing is loaded gets a
            warning.

    Returns:
        (missing_keys, unexpected_keys), as `load_state_dict` does.

    Raises:
        CheckpointError: The file cannot be read or does not fit the model.
    """
    own = unwrap(model)
    state_dict = read_state_dict(checkpoint_path, use_ema)
    result = load_weights(own, state_dict, strict=strict, origin=str(checkpoint_path))
    if hasattr(own, "base_weights"):  # what `create_model` noted is true no more
        own.base_weights = base_of_checkpoint(own.weights_config, read_training_facts(checkpoint_path))
    return result


def base_of_checkpoint(config: WeightsConfig, facts: Mapping[str, Any]) -> WeightsConfig:
    """What is known of a file's weights, from its facts and the config that its model was built by.

    Weights alone, without facts, have the classes that the config describes: whoever loads them knows that.

    Raises:
        ConfigError: A fact cannot be what it is said to be.
    """
    if not facts:
        return config.of_other_weights().replace(label_set=config.label_set, label_names=config.label_names,
                                                 label_descriptions=config.label_descriptions)
    about = {key: facts[key] for key in ("num_classes", "label_set", "license") if key in facts}
    about["base_model"] = facts.get("base")
    if facts.get("classes"):
        about["label_names"] = tuple(map(str, facts["classes"]))
    return config.of_other_weights().replace(**about).with_inputs()


def load_weights(
    model: nn.Module,
    state_dict: StateDict,
    *,
    config: WeightsConfig | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    fit_head: bool = False,
    fit_input: bool = False,
    strict: bool = True,
    consume: bool = False,
    origin: str = "the weights",
) -> _IncompatibleKeys:
    """Fit tensors to a model and make them its parameters.

    A model on the meta device takes the tensors themselves, moved to `device` and `dtype` where these are given; a
    model that has parameters already keeps them and gets copies of the values. An int8 model (`is_quantized`) loads
    itself, all or nothing: its `load_published` is called with the state dict and with what checks that it fits.

    Args:
        model: The model.
        state_dict: Tensors in the model's layout, or in one of its `key_maps`.
        config: What is known of the weights: layout, classes, names of head and first convolution.
        fit_head: Drop and initialise a classifier that is there for another number of classes.
        fit_input: Adapt the first convolution to the model's input channels.
        strict: Whether missing and unexpected keys are an error.
        consume: Empty the state dict, so that what is converted does not stay in memory beside what it becomes.
        origin: What error messages call the weights.

    Returns:
        (missing_keys, unexpected_keys), as `load_state_dict` does.

    Raises:
        CheckpointError: The tensors do not fit; the message lists the keys, shortened.
    """
    inner = unwrap(model)  # lacks parts of the contract where it is a user's plain module
    if getattr(inner, "is_quantized", False):  # more than tensors in both state dicts, and nothing in them to adapt
        with _refusing(f"{origin}: does not fit the model"):
            inner.load_published(state_dict, partial(_check, inner, origin))
        return _IncompatibleKeys([], [])
    config = config or WeightsConfig()
    extractor = inner if isinstance(inner, FeatureExtractor) else None
    if extractor is not None:  # its model loads the weights, from a file of either
        inner = extractor.whole()
    expected = inner.state_dict()
    with _refusing(f"{origin}: does not fit the model"):
        given = state_dict
        if extractor is not None:
            state_dict = extractor.model_names(state_dict)
        if config.key_map is None:
            state_dict = _part_of(inner, state_dict, expected, origin)
        state_dict = _translate(inner, state_dict, config.key_map)
        if consume:
            given.clear()
        # Of training with --split-bn: norms of augmented views, which the model by itself does not have. And counters
        # of norms that are frozen here.
        state_dict = {key: value for key, value in state_dict.items() if key in expected or not (
            ".aux_bn." in key or key.replace("num_batches_tracked", "running_mean") in expected)}
        if fit_input:
            _fit_input(inner, state_dict, expected, config)
        dropped, notes = _fit_head(inner, state_dict, expected, config) if fit_head else (set(), [])
        if hasattr(inner, "fit_state_dict"):
            state_dict = inner.fit_state_dict(state_dict)
        if extractor is not None:
            state_dict = {key: value for key, value in state_dict.items() if key not in extractor.left_out}
    for part in getattr(inner, "optional_parts", ()):
        if not any(key.startswith(f"{part}.") for key in state_dict):
            notes.append(f"there is no '{part}': it was initialised")
            dropped |= {key for key in expected if key.startswith(f"{part}.")}

    _check(inner, origin, expected, state_dict, dropped, strict)
    if not any(key in expected for key in state_dict):
        notes.append(f"nothing was loaded: none of its names, such as '{next(iter(state_dict), '')}', is one of the "
                     f"model '{_name(inner)}', such as '{next(iter(expected), '')}'")
    for note in notes:
        _logger.warning("%s: %s", origin, note)
    answer = _IncompatibleKeys([key for key in expected if key not in state_dict],
                               [key for key in state_dict if key not in expected])
    kept = OrderedDict((key, value) for key, value in state_dict.items() if key in expected)
    vars(kept)["_metadata"] = getattr(expected, "_metadata", None)  # fitted to the model, they are of its version
    del state_dict
    if any(owns_meta(module) for module in inner.modules()):
        _assign(inner, kept, device, dtype)
    else:
        inner.load_state_dict(kept, strict=False)
        if dropped and hasattr(inner, "init_modules"):  # a user's plain module is as it was built
            inner.init_modules({key.rpartition(".")[0] for key in dropped})
    return answer


def load_by_itself(
    model: nn.Module, state_dict: StateDict, *, config: WeightsConfig, fit_head: bool = False,
    origin: str = "the weights",
) -> None:
    """Make tensors the parameters of another library's model by its own `load_state_dict`, which knows the older
    layouts of its files.

    Args:
        model: The model; where parts of it are on the meta device, all that is there must come from the file.
        state_dict: Tensors in the model's layout, or in an older one.
        config: What is known of the weights: `num_classes`, and the names of the heads.
        fit_head: Leave a head as it is that is there for another number of classes.
        origin: What error messages call the weights.

    Raises:
        CheckpointError: The tensors do not fit.
    """
    expected = model.state_dict()
    with _refusing(f"{origin}: does not fit the model"):
        state_dict = dict(state_dict)
        dropped, notes = _fit_head(model, state_dict, expected, config) if fit_head else (set(), [])
        for kind, keys in _problems(expected, state_dict, []).items():
            if kind != "unexpected":  # it may be another name of before
                raise CheckpointError(_explain(model, origin, {kind: keys}, state_dict, expected))
        kept = {key: value.to(expected[key].dtype) if key in expected else value for key, value in state_dict.items()}
        missing, unexpected = model.load_state_dict(kept, strict=False, assign=True)
        problems = {"missing": [key for key in missing if not _may_miss(key, dropped)], "unexpected": unexpected}
        problems = {kind: keys for kind, keys in problems.items() if keys}
        if problems:
            raise CheckpointError(_explain(model, origin, problems, state_dict, expected))
    for note in notes:
        _logger.warning("%s: %s", origin, note)


def materialize(model: ImageModel, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
    """Give a model on the meta device initialised parameters, in place."""
    model.to_empty(device=device or "cpu")
    if dtype is not None:
        model.to(dtype)
    model.init_weights()


def _translate(model: nn.Module, state_dict: StateDict, key_map: str | None) -> StateDict:
    """Convert a foreign layout: the one that the config names, or the one that the keys show."""
    for candidate in getattr(model, "key_maps", ()):
        if candidate.name == key_map or (key_map is None and candidate.matches(state_dict)):
            return dict(candidate.apply(state_dict, model))
    return dict(state_dict)


def _part_of(model: nn.Module, state_dict: StateDict, expected: StateDict, origin: str) -> StateDict:
    """What a training program's state dict holds of the model: behind "model.", "backbone." or whatever it is called,
    beside its loss, say. A state dict that has half of the model's names as it is, or nowhere, is returned as it is.

    Raises:
        CheckpointError: It holds the model several times.
    """
    half = len(expected) / 2
    is_foreign = any(candidate.matches(state_dict) for candidate in getattr(model, "key_maps", ()))
    if is_foreign or sum(key in expected for key in state_dict) >= half:
        return state_dict
    sizes = Counter(key[:end + 1] for key in state_dict for end, letter in enumerate(key) if letter == ".")
    parts = {prefix: {key[len(prefix):]: value for key, value in state_dict.items() if key.startswith(prefix)}
             for prefix, size in sizes.items() if size >= half}
    found = {prefix: sum(key in expected for key in _translate(model, part, None)) for prefix, part in parts.items()}
    best = [prefix for prefix, number in found.items() if number >= half and number == max(found.values())]
    if len(best) > 1:
        raise CheckpointError(f"{origin}: holds the model '{_name(model)}' several times, behind "
                              f"{', '.join(map(repr, best))}; save one of them by itself")
    if not best:
        return state_dict
    rest = len(state_dict) - len(parts[best[0]])
    _logger.log(logging.WARNING if rest else logging.INFO, "%s: the model is what is called '%s*'; %d other tensors "
                "were left aside", origin, best[0], rest)
    return parts[best[0]]


def _paths(names: str | Iterable[str] | None) -> tuple[str, ...]:
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def _fit_input(model: ImageModel, state_dict: StateDict, expected: StateDict, config: WeightsConfig) -> None:
    for path in _paths(config.first_conv):
        key = f"{path}.weight"
        if key not in state_dict or key not in expected or state_dict[key].shape[1] == expected[key].shape[1]:
            continue
        theirs, ours = state_dict[key].shape, expected[key].shape
        # What a file was trained on, it shows itself: a stem may take several values of a channel, theirs as ours.
        chans = theirs[1] * model.in_chans // ours[1] if len(theirs) == len(ours) else config.input_size[0]
        weight = state_dict[key]
        if getattr(model.get_submodule(path.rpartition(".")[0]), "channels_last", True):
            state_dict[key] = adapt_input_conv(model.in_chans, weight, chans)
        else:  # a linear layer over flat patches, channels first
            by_channel = weight.unflatten(1, (chans, -1, 1))
            state_dict[key] = adapt_input_conv(model.in_chans, by_channel, chans).flatten(1)
        _logger.info("adapted '%s' from %d to %d input channels", path, chans, model.in_chans)


def _logits_paths(model: nn.Module) -> tuple[str, ...]:
    """Paths of the layers with a row for each class; a plain module may name its classifiers alone, or none."""
    paths: tuple[str, ...] = getattr(model, "logits_paths", getattr(model, "classifier_paths", ()))
    return paths


def _fit_head(
    model: nn.Module, state_dict: StateDict, expected: StateDict, config: WeightsConfig
) -> tuple[set[str], list[str]]:
    """Cut a background class off, or take away a classifier of another shape. Returns expected keys, and why."""
    paths = tuple(dict.fromkeys((*_paths(config.classifier), *_logits_paths(model))))
    dropped: set[str] = set()
    found = None
    for path in paths:
        for key in (f"{path}.weight", f"{path}.bias"):
            if key not in state_dict:
                continue
            if config.label_offset:
                state_dict[key] = state_dict[key][config.label_offset:]
            if key in expected and expected[key].shape == state_dict[key].shape:
                continue
            shape = state_dict.pop(key).shape
            if key in expected:
                found = found or (shape, expected[key].shape)
                dropped.add(key)
    names = "', '".join(paths)
    whole = tuple(f"{path}." for path in (*paths, *getattr(model, "classifier_paths", ())))
    if not dropped and paths and not any(key.startswith(whole) for key in state_dict):
        dropped = {key for key in expected if key.startswith(whole)}
        return dropped, [f"there is no classifier: '{names}' was initialised"] if dropped else []
    if found is None:
        return dropped, []
    theirs, ours = found
    rows = 1 if config.task == CLASSIFICATION else theirs[0] // config.num_classes  # a detector's, for shapes of boxes
    what = f"has {theirs[0] // rows} classes, the model {ours[0] // rows}" if theirs[0] != ours[0] else \
        f"takes {math.prod(theirs[1:])} features, the model's {math.prod(ours[1:])}"
    return dropped, [f"the classifier '{names}' {what}: it was initialised anew"]


def _may_miss(key: str, dropped: Collection[str]) -> bool:
    return key in dropped or key.endswith("num_batches_tracked")  # files older than torch 0.4.1 have no such counter


def _name(model: nn.Module) -> str:
    return getattr(model, "architecture", None) or type(model).__name__


def _check(
    model: nn.Module,
    origin: str,
    expected: StateDict,
    state_dict: StateDict,
    dropped: Collection[str] = (),
    strict: bool = True,
) -> None:
    """Raise CheckpointError where the tensors are not those that are expected."""
    missing = [key for key in expected if key not in state_dict]
    problems = _problems(expected, state_dict, [key for key in missing if not _may_miss(key, dropped)])
    if not strict:
        problems.pop("missing", None)
        problems.pop("unexpected", None)
    if problems:
        raise CheckpointError(_explain(model, origin, problems, state_dict, expected))


def _problems(
    expected: StateDict, state_dict: StateDict, missing: list[str]
) -> dict[str, list[str]]:
    found = {
        "missing": missing,
        "unexpected": [key for key in state_dict if key not in expected],
        "other shape": [key for key, value in state_dict.items()
                        if key in expected and expected[key].shape != value.shape],
        "no plain numbers": [key for key, value in state_dict.items() if _is_plain(expected.get(key))
                             and (not _is_plain(value) or value.is_meta)],
        "integers or booleans, where the model has floats": [
            key for key, value in state_dict.items() if _is_plain(expected.get(key)) and _is_plain(value)
            and expected[key].is_floating_point() and not value.is_floating_point()],
    }
    return {kind: keys for kind, keys in found.items() if keys}


def _explain(
    model: nn.Module, origin: str, problems: dict[str, list[str]], state_dict: StateDict, expected: StateDict
) -> str:
    lines = [f"{origin}: does not fit the model '{_name(model)}'"]
    for kind, keys in problems.items():
        shown = keys[:_SHOWN_KEYS]
        if kind == "other shape":
            shown = [f"{key} (file {tuple(state_dict[key].shape)}, model {tuple(expected[key].shape)})"
                     for key in shown]
        rest = f", and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else ""
        lines.append(f"  {kind} ({len(keys)}): {', '.join(shown)}{rest}")
    wrong = sum(len(problems.get(kind, ())) for kind in ("missing", "unexpected", "other shape"))
    share = wrong / max(len(expected) + len(problems.get("unexpected", ())), 1)
    if share > _FOREIGN_SHARE:
        lines.append(f"  {share:.0%} of all keys do not fit: these are weights of another architecture, or of this one "
                     f"built with other arguments")
    if _is_quantized(state_dict) and not _is_quantized(expected):
        lines.append("  the file holds quantized weights: a quantized_* model takes them, with quantize=True")
    elif _is_quantized(expected) and not _is_quantized(state_dict):
        lines.append("  the file holds float weights, the model is int8: pass quantize=False to load them")
    heads = {f"{path}.weight" for path in _logits_paths(model)}
    wrong_heads = heads & set(problems.get("other shape", ()))
    for key in wrong_heads:
        theirs, ours = state_dict[key].shape, expected[key].shape
        if theirs and theirs[0] != ours[0]:
            lines.append(f"  the file's classifier has {theirs[0]} classes: pass num_classes={theirs[0]} to keep it")
            break
    return "\n".join(lines)


def _assign(
    model: ImageModel, state_dict: StateDict, device: torch.device | str | None, dtype: torch.dtype | None
) -> None:
    """Make the tensors the parameters and buffers of a model on the meta device, taking them out of the state dict;
    initialise the rest."""
    device = torch.device(device or "cpu")
    incomplete = []
    with torch.no_grad():
        for path, module in model.named_modules():
            prefix = f"{path}." if path else ""
            slots: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for slot in slots:
                for name, old in slot.items():
                    if old is None:
                        continue
                    given = state_dict.pop(prefix + name, None)
                    if given is None:
                        continue
                    tensor = _place(given, old, device, dtype)
                    slot[name] = nn.Parameter(tensor, old.requires_grad) if slot is module._parameters else tensor
            if owns_meta(module):
                incomplete.append((path, module))
        for path, module in incomplete:
            _complete(model, path, module, device, dtype)


def _place(tensor: Tensor, like: Tensor, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    wanted = (dtype or like.dtype) if like.is_floating_point() else like.dtype
    return tensor.to(device=device, dtype=wanted).contiguous()


def _complete(
    model: ImageModel, path: str, module: nn.Module, device: torch.device, dtype: torch.dtype | None
) -> None:
    """Fill what `module` itself still holds on the meta device, and leave what was loaded."""
    persistent = [name for name in module._buffers if name not in module._non_persistent_buffers_set]
    lacks_weights = any(parameter is not None and parameter.is_meta for parameter in module._parameters.values())
    loaded = {}
    slots: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
    for slot in slots:
        for name, tensor in slot.items():
            if tensor is None:
                continue
            if not tensor.is_meta:
                loaded[name] = tensor
            if tensor.is_meta or lacks_weights:
                empty = torch.empty(tensor.shape, dtype=_place_dtype(tensor, dtype), device=device)
                slot[name] = nn.Parameter(empty, tensor.requires_grad) if slot is module._parameters else empty
    if lacks_weights:
        model.init_module(path, module)
    else:
        for name in persistent:  # statistics that a file may lack: counters
            counter = module._buffers[name]
            if name not in loaded and counter is not None:
                counter.zero_()
        init_others = getattr(module, "init_non_persistent_buffers", None)
        if init_others is not None:
            init_others()
    for slot in slots:
        slot.update((name, loaded[name]) for name in slot.keys() & loaded.keys())
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in loaded:
            module._buffers[name] = buffer.to(device=device, dtype=_place_dtype(buffer, dtype))


def _place_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
