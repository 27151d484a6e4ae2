"""An export on disk: a folder that says all there is to know of an engine. Imports no torch.

    config.json     architecture, preprocessing, classes, licence, base: the layout of a repository (see mvlib.publish)
    engine.json     which engine, of which files and versions, what it takes and gives, and how it was measured
    model.*         the engine itself, in its own library's format

The folder is written beside its place and then renamed: it is there when all of it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import CheckpointError, ConfigError
from ..files import replacing, sync
from ..names import closest_path
from ..registry import is_model

if TYPE_CHECKING:
    from ..weights import WeightsConfig

__all__ = ["CONFIG_FILE", "ENGINE_FILE", "FORMATS", "PRECISIONS", "EngineFolder", "Format", "Tensor", "check_place",
           "format_of_place", "full_name", "is_export", "new_folder", "read_export", "refuse_export",
           "write_description"]

CONFIG_FILE, ENGINE_FILE = "config.json", "engine.json"
LAYOUT = 1  # of engine.json; one more where older versions of mvlib would misread it


@dataclass(frozen=True)
class Format:
    """What an engine can be written as.

    Attributes:
        title: For people.
        file: What its library opens.
        backend: What runs it, by the name that users give.
        package: The same, as Python imports it.
        module: Of ours that runs it.
        writers: Packages that it takes to write it, beyond torch.
    """

    title: str
    file: str
    backend: str = "torch"
    package: str = "torch"
    module: str = "run_torch"
    writers: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {
    "openvino": Format("OpenVINO", "model.xml", "openvino", "openvino", "run_openvino", ("openvino",)),
    "onnx": Format("ONNX", "model.onnx", "onnxruntime", "onnxruntime", "run_onnx",
                   ("onnx", "onnxscript", "onnxruntime")),
    "torch-export": Format("torch.export", "model.pt2"),
    "torchscript": Format("TorchScript", "model.pt"),
    "aotinductor": Format("AOTInductor", "model.aoti.pt2"),
}
PRECISIONS = ("float32", "int8")
_MAX_BYTES = 64 << 20  # of a description


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine.

    Attributes:
        name: In the engine.
        shape: With a word where any size is taken: ("batch", 3, 224, 224).
    """

    name: str
    shape: tuple[int | str, ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tensor:
        return cls(data["name"], tuple(data["shape"]))


@dataclass(frozen=True)
class EngineFolder:
    """What engine.json and config.json say of an export.

    Attributes:
        path: The folder.
        format: One of `FORMATS`.
        model: Name of the weights, "resnet50.a1_in1k", or of the architecture.
        weights: SHA-256 of the weights as they were exported (`mvlib.inference.model.digest_of`).
        precision: "float32", "bfloat16", "float16" or "int8".
        features: None for a classifier; "pooled", "tokens" or the module of a level; "maps" for `features_only`.
        num_classes: Of a classifier's outputs.
        data_config: How inputs are prepared, as `resolve_data_config` gives it.
        input: float32 images (batch, channels, height, width), normalised.
        outputs: In the order in which the engine gives them.
        files: {name: SHA-256} of all files of the engine.
        versions: {library: version} of what made it.
        measured: What was found on an example: "difference" (of outputs, over the largest), "agreement", ...
        config: All of config.json.
    """

    path: Path
    format: str
    model: str
    weights: str | None
    precision: str
    features: str | None
    num_classes: int
    data_config: Mapping[str, Any]
    input: Tensor
    outputs: tuple[Tensor, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def engine_file(self) -> Path:
        """What the format's library opens."""
        return self.path / FORMATS[self.format].file

    @property
    def made_of(self) -> str:
        """What to export again, for messages: a name without a tag is that of an architecture, not of these weights."""
        return f"'{self.model}'" + ("" if "." in self.model else " (with the same weights)")

    @property
    def class_names(self) -> list[str]:
        """Of the outputs; numbered where nobody has named them."""
        names = self.config.get("label_names")
        return list(names) if names else [f"class {index}" for index in range(self.num_classes)]

    @property
    def weights_config(self) -> WeightsConfig:
        """Of the weights as the engine has them: prepared for its size alone."""
        from ..weights import OWN_FIELDS, WeightsConfig

        own = self.config.get("mvlib", {})
        fields = {**self.config.get("pretrained_cfg", {}), **{key: own[key] for key in OWN_FIELDS if key in own},
                  "num_classes": self.num_classes}
        fields.update((key, self.config[key]) for key in ("architecture", "label_names", "label_descriptions")
                      if key in self.config)
        inputs = {key: tuple(value) if isinstance(value, list) else value for key, value in self.data_config.items()}
        return WeightsConfig.from_dict(fields, strict=False).with_inputs(**inputs)

    @property
    def digest(self) -> str:
        """What results depend on, besides the processor: the engine's files."""
        return hashlib.sha256(json.dumps(dict(self.files), sort_keys=True).encode()).hexdigest()

    @property
    def has_dynamic_batch(self) -> bool:
        return isinstance(self.input.shape[0], str)

    @property
    def has_dynamic_size(self) -> bool:
        return any(isinstance(side, str) for side in self.input.shape[2:])

    def check_files(self) -> None:
        """Refuse an engine that is not as it was written.

        Raises:
            CheckpointError: A file is missing or has changed.
        """
        for name, sha256 in self.files.items():
            path = self.path / name
            if not path.is_file():
                raise CheckpointError(f"{self.path} is damaged: {name} is missing; export it again")
            with open(path, "rb") as stream:
                found = file_digest(stream)
            if found != sha256:
                raise CheckpointError(f"{self.path} is damaged: {name} is not what was exported (SHA-256 {found[:12]}, "
                                      f"not {sha256[:12]}); export it again")


def file_digest(stream: Any) -> str:
    """SHA-256 of what is left of a file."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def is_export(name: str | os.PathLike[str]) -> bool:
    """Whether a model's name is the path of an export, "local-dir:" before it or not."""
    return os.path.isfile(os.path.join(_place(name), ENGINE_FILE))


def full_name(name: str | os.PathLike[str]) -> str:
    """A model's name: of the folder of a repository ("RUN/export"), with the "local-dir:" that `create_model` wants."""
    name = os.fspath(name)
    if is_export(name) or is_model(name.partition(".")[0]):
        return name
    return f"local-dir:{name}" if os.path.isfile(os.path.join(os.path.expanduser(name), CONFIG_FILE)) else name


def refuse_export(name: str) -> None:
    """Refuse the name of an export where a model with weights is wanted.

    Raises:
        ConfigError: It is one.
    """
    if is_export(name):
        raise ConfigError(f"{_place(name)} is an export, which predict, embed, validate and the like run, and has no "
                          f"weights for torch: open it with mvlib.inference.open_session or mvlib.engines.open_engine, "
                          f"or name the model that it was made from, {read_export(name).made_of}")


def _place(name: str | os.PathLike[str]) -> Path:
    return Path(os.path.expanduser(os.fspath(name).removeprefix("local-dir:")))


def read_export(name: str | os.PathLike[str]) -> EngineFolder:
    """The description of an export; its files are not looked at yet (`EngineFolder.check_files`).

    Raises:
        ConfigError: There is none, it is of a newer mvlib, a description cannot be read, engine.json has been changed,
            or config.json in what the engine depends on.
    """
    path = _place(name)
    if not path.is_dir():
        raise ConfigError(f"there is no folder {path}{closest_path(path, files=False)}")
    if not (path / ENGINE_FILE).is_file():
        raise ConfigError(f"{path} holds no {ENGINE_FILE}: it is not an export; 'mvlib export' writes one")
    said, config = (_read_json(path / file) for file in (ENGINE_FILE, CONFIG_FILE))
    if said.get("layout") != LAYOUT:
        raise ConfigError(f"{path} is an export in layout {said.get('layout')}, and mvlib {__version__} reads "
                          f"{LAYOUT}: export it again")
    try:
        known = {f.name: said[f.name] for f in fields(EngineFolder) if f.name not in ("path", "config")}
        known.update(input=Tensor.from_dict(said["input"]), outputs=tuple(map(Tensor.from_dict, said["outputs"])))
        folder = EngineFolder(path=path, config=config, **known)
        if folder.format not in FORMATS:
            raise ConfigError(f"{path} holds an engine of the unknown format '{folder.format}'; known: "
                              f"{', '.join(FORMATS)}")
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path / ENGINE_FILE} is damaged: {error!r}; export it again") from None
    if said.get("sha256") != _digest(said):  # nothing below is of another type than was written
        raise ConfigError(f"{path / ENGINE_FILE} was changed after the export, which is what it describes; export it "
                          f"again")
    for key, value in said["facts"].items():
        if _plain(_fact(config, key)) != value:
            raise ConfigError(f"{path / CONFIG_FILE} was changed after the export: {key} is {_fact(config, key)!r}, "
                              f"and the engine was made with {value!r}; export it again")
    names = config.get("label_names")
    if names is not None and (not isinstance(names, list) or len(names) != folder.num_classes):
        count = f"{len(names)} names" if isinstance(names, list) else "no list of names"
        raise ConfigError(f"{path / CONFIG_FILE}: label_names has {count}, and the engine has {folder.num_classes} "
                          f"classes")
    return folder


def _digest(said: Mapping[str, Any]) -> str:
    """SHA-256 of a description, but for the line that says it."""
    data = json.dumps({key: value for key, value in said.items() if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(data.encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes are too many for a description")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path.parent} is damaged: {path.name} is missing; export it again") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}; export it again") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not a JSON object; export it again")
    return data


# Fields of config.json that an engine cannot be used without, or that say what it is.
_FACTS = ("architecture", "num_classes", "model_args", "pretrained_cfg.input_size", "pretrained_cfg.mean",
          "pretrained_cfg.std", "pretrained_cfg.interpolation", "pretrained_cfg.crop_pct", "pretrained_cfg.crop_mode",
          "mvlib.preprocessing", "mvlib.resize_size")


def _fact(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


_ENDINGS = {".ov": "openvino", ".onnx": "onnx", ".pt2": "torch-export"}


def format_of_place(path: str | os.PathLike[str], format: str | None = None) -> str:
    """The format of an export: `format`; where it is None, what the folder's name ends in, else "openvino".

    Raises:
        ConfigError: The two contradict each other.
    """
    ending = Path(path).suffix.lower()
    said = _ENDINGS.get(ending)
    if format == "aotinductor" and ending == ".pt2":  # its own files end so, too
        said = format
    if format is not None and said not in (None, format):
        raise ConfigError(f"{path} ends in {ending}, which is for {FORMATS[said].title}, and the format is {format}: "
                          f"take another name, or --format {said}")
    return format or said or "openvino"


def check_place(path: str | os.PathLike[str], replace: bool = False) -> None:
    """Refuse a place where an export may not be written.

    Raises:
        ConfigError: Something is there already, but for an empty folder, and, where `replace`, an export.
    """
    target = Path(os.path.abspath(path))
    if os.path.lexists(target) and not (replace and is_export(target)) and not _is_empty(target):
        raise ConfigError(f"{path} exists already" + ("; --force replaces it" if is_export(target) else
                                                      " and is no export: take another place"))


@contextmanager
def new_folder(path: str | os.PathLike[str], replace: bool = False) -> Iterator[Path]:
    """A folder to write an export to, which takes its place at the end; after an error nothing is left of it.

    Args:
        path: Where the export is to be; parents are made.
        replace: Whether an export that is there is replaced. Anything else never is.

    Raises:
        ConfigError: Something is there already.
    """
    check_place(path, replace)
    target = Path(os.path.abspath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
    except OSError as error:
        error.filename = str(target)  # the name that its user knows
        raise
    try:
        yield temporary
        for file in temporary.iterdir():
            sync(file)
        check_place(path, replace)  # again: another may have been written meanwhile
        old = target.with_name(f".{target.name}.{secrets.token_hex(6)}.old.tmp")
        try:
            if os.path.lexists(target) and (replace or target.is_symlink()):
                os.rename(target, old)
            elif os.path.lexists(target):
                os.rmdir(target)
            os.rename(temporary, target)
        except OSError:
            check_place(path, replace)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def write_description(folder: EngineFolder) -> EngineFolder:
    """Write config.json and engine.json beside the engine's files, whose checksums are taken now."""
    files = {}
    for path in sorted(folder.path.iterdir()):
        if path.name not in (CONFIG_FILE, ENGINE_FILE, "README.md"):
            with open(path, "rb") as stream:
                files[path.name] = file_digest(stream)
    said = {key: value for key, value in asdict(folder).items() if key not in ("path", "config")}
    said.update(layout=LAYOUT, files=files, versions={"mvlib": __version__, **folder.versions},
                facts={key: _fact(folder.config, key) for key in _FACTS})
    said["sha256"] = _digest(_plain(said))
    for name, data in ((CONFIG_FILE, folder.config), (ENGINE_FILE, said)):
        with replacing(folder.path / name) as temporary:
            temporary.write_text(json.dumps(data, indent=2), encoding="utf-8")
    return read_export(folder.path)
