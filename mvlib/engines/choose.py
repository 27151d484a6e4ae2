"""What runs a model: torch, or an engine that was made of it before, is made now, or will be the next time. Imports no
torch.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import hub
from ..arguments import shorten_error
from ..data.images import find_images
from ..data.jpeg import read_jpeg
from ..errors import CheckpointError, ConfigError, MissingPackageError, WeightsError
from ..inference.options import DEFAULT_MODEL, quantized_name
from ..memory import is_out_of_memory
from ..names import parse_model_name
from ..precisions import canonical_precision
from ..registry import resolve_name
from ..threads import cpu_count
from . import cache, calibration
from .folder import FORMATS, EngineFolder, read_export
from .runtime import BACKENDS, ENGINES, is_installed, require, require_backend

if TYPE_CHECKING:
    from torch import nn

    from ..inference.session import Settings

__all__ = ["Choice", "are_enabled", "choose", "has_gpu"]

_AUTO = "openvino"  # which of them "auto" takes
# Images for which a conversion pays before the first answer. On two cores an engine in float32 saves 1.2 ms an image
# (tf_efficientnet_lite0) to 8 ms (resnet50), and a conversion takes 2 to 5 s.
_ENOUGH = 2000
_START = 2.5  # seconds that torch takes to start
_SOONER = 0.003  # seconds of a core by which torch reads each megapixel sooner; of the first, engines make up for it
_MEMORY = 8  # times the size of the weights file: what a conversion takes
_temporary: list[tempfile.TemporaryDirectory[str]] = []  # of engines that could not be kept; they go with the process


@dataclass(frozen=True)
class Choice:
    """What answers.

    Attributes:
        folder: An engine's; None for torch.
        again: Where its library does not take the engine (CheckpointError) or cannot be imported (ImportError): from
            the error to another choice.
        after: What is to be done when all answers are delivered, if anything is.
    """

    folder: EngineFolder | None = None
    again: Callable[[Exception], Choice] | None = None
    after: Callable[[], None] | None = None


def are_enabled() -> bool:
    """Whether mvlib may make and use engines by itself: MVLIB_ENGINES, on or off.

    Raises:
        ConfigError: It says neither.
    """
    value = os.environ.get("MVLIB_ENGINES", "").lower()
    if value not in ("", "on", "1", "yes", "true", "off", "0", "no", "false"):
        raise ConfigError(f"MVLIB_ENGINES is '{value}': set it to on or off")
    return value in ("", "on", "1", "yes", "true")


def has_gpu() -> bool:
    """Whether torch would find a GPU; found out without torch."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return False
    if "+cpu" in version:
        return False
    if "+rocm" in version:
        return True
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int()
        return cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False


def choose(settings: Settings, features: str | None = None) -> Choice:
    """What answers for a model that is named.

    "auto" takes an engine in float32 on a CPU, where OpenVINO is installed and nothing is asked for that engines do not
    have: one that is there; else one that is made first, if the images are many; else torch, and one is made when they
    are answered. Results that were begun are gone on with by what has begun them.

    Args:
        settings: Of the session; `model` is not an export.
        features: What is wanted in the place of classes.

    Raises:
        ConfigError: The backend is unknown, or cannot do what the settings ask for.
        MissingPackageError: It is not installed; or torch is not, which would have to make the engine.
    """
    backend = settings.backend
    if backend not in BACKENDS:
        raise ConfigError(f"unknown backend '{backend}'; known: {', '.join(BACKENDS)}")
    if settings.calibrate and canonical_precision(settings.precision or "float32") != "int8":
        raise ConfigError("--calibrate goes with --precision int8")
    if backend in ("auto", "torch"):
        choice = _choose_freely(settings, features) if backend == "auto" else Choice()
        if settings.calibrate and choice.folder is None:
            raise ConfigError("--calibrate is for engines, and here torch answers, which makes no use of it: give "
                              "--backend openvino, too, which says what it lacks, or leave out --calibrate")
        return choice
    return _choose_as_told(settings, features)


def _choose_as_told(settings: Settings, features: str | None) -> Choice:
    backend = settings.backend
    if not are_enabled():
        raise ConfigError(f"--backend {backend} makes and uses engines, which MVLIB_ENGINES=off forbids: leave out one "
                          f"of them")
    require_backend(backend)
    if settings.device not in ("auto", "cpu"):
        raise ConfigError(f"--backend {backend} runs on the CPU, not on the device '{settings.device}': leave out one "
                          f"of them")
    if settings.compile == "on":
        raise ConfigError(f"--compile on is for torch, and --backend {backend} compiles by itself: leave out one of "
                          f"them")
    wanted = _Wanted(settings, features, ENGINES[backend])
    if backend == "onnxruntime" and canonical_precision(settings.precision or "float32") != "float32":
        raise ConfigError(f"--backend onnxruntime computes in float32, and not in {settings.precision}: give --backend "
                          f"openvino")
    folder = wanted.find(read=True)
    return Choice(wanted.make_as_told()) if folder is None else \
        Choice(folder, again=lambda error: wanted.instead_of(folder, error))


def _choose_freely(settings: Settings, features: str | None) -> Choice:
    precision = canonical_precision(settings.precision or "float32")
    if not are_enabled() or settings.device not in ("auto", "cpu") or settings.compile == "on" or \
            precision not in ("float32", "int8"):
        return Choice()
    if precision == "int8" and not settings.checkpoint and quantized_name(settings.model or DEFAULT_MODEL):
        return Choice()  # weights that were published so
    if settings.device == "auto" and has_gpu():
        return Choice()
    if not is_installed(FORMATS[ENGINES[_AUTO]].package):
        return Choice(after=_recommend)
    wanted = _Wanted(settings, features, ENGINES[_AUTO])
    if settings.begun is not None:
        return wanted.go_on(settings.begun)
    if precision == "float32" and _is_reading_most(settings):
        return Choice()
    folder = wanted.find(read=precision == "int8")
    if folder is None and wanted.pays():
        folder = wanted.make_as_told() if settings.calibrate else \
            wanted.make_if_possible("converted first, for this time and the next", wait=True)
    if folder is not None:
        return Choice(folder, again=lambda error: wanted.without(folder, error))
    return Choice(after=wanted.later)


def _are(settings: Settings, count: int) -> bool:
    """Whether there are so many images, as far as that can be known."""
    if settings.count is None and settings.files is not None:
        return sum(1 for _ in islice(settings.files(), count)) == count
    return (settings.count or 0) >= count


def _is_reading_most(settings: Settings) -> bool:
    """Whether photographs are so large and so many that torch, by which they are read sooner than by PIL, answers
    first. They are taken to be as large as the first one."""
    if settings.decode != "full" or settings.files is None or not is_installed("torch"):
        return False
    jpeg = next(map(read_jpeg, settings.files()), None)
    if jpeg is None:
        return False
    _, header = jpeg
    sooner = _SOONER * (header.height * header.width / 1e6 - 1) / (settings.workers or cpu_count())
    return sooner > 0 and _are(settings, math.ceil(_START / sooner))


def _recommend() -> None:
    if cache.mark_once("openvino"):
        _say("with OpenVINO this model would answer sooner, without torch's start: pip install 'mvlib[openvino]' (said "
             "once)")


@dataclass(frozen=True)
class _Wanted:
    """An engine that would do."""

    settings: Settings
    features: str | None
    format: str

    def _key(self, read: bool, is_to_be_made: bool = True) -> cache.Key | None:
        """Of what is here now; None where that is nothing, or cannot be told.

        Args:
            read: Whether a weights file that was not seen before is read for it.
            is_to_be_made: Whether it says what int8 would be calibrated on.
        """
        source = cache.find_source(self.settings.model, self.settings.checkpoint,
                                   read_checkpoint=read and is_installed("torch"))
        more = {} if self.precision == "float32" else {"calibration": self._calibration if is_to_be_made else None}
        return cache.key_of(source, format=self.format, precision=self.precision, features=self.features, read=read,
                            **more) if source else None

    @property
    def precision(self) -> str:
        """Of the engine; what is not int8 may be computed in fewer bits by an engine in float32."""
        return "int8" if canonical_precision(self.settings.precision or "float32") == "int8" else "float32"

    @functools.cached_property
    def _pictures(self) -> list[str] | None:
        """What int8 is calibrated on: the user's choice, or the pictures that are asked about and in files."""
        found = find_images([self.settings.calibrate]) if self.settings.calibrate else \
            self.settings.files() if self.settings.files is not None else None
        return sorted(os.path.abspath(path) for path in found if os.path.exists(path)) if found is not None else None

    @functools.cached_property
    def _calibration(self) -> dict[str, str] | None:
        """The same, as the key of an engine says it."""
        if not self._pictures:
            return None
        digest = hashlib.sha256()
        for path in self._pictures:
            stat = os.stat(path)
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return {"on": os.path.commonpath(self._pictures), "pictures": digest.hexdigest()}

    def pays(self) -> bool:
        """Whether one is made before the first answer."""
        if self.precision == "float32":
            return is_installed("torch") and _are(self.settings, _ENOUGH)
        return is_installed("torch") and is_installed("nncf") and (
            bool(self.settings.calibrate) or len(self._pictures or ()) >= calibration.LEAST)

    # one that is there

    def find(self, read: bool = False, digest: str | None = None) -> EngineFolder | None:
        """One that was made before of what the model's name stands for now.

        In int8 it is the one that was calibrated last, on whatever pictures, which is said; unless the user names some.

        Args:
            read: Whether a weights file that was not seen before is read for it.
            digest: Of the engine, where it has to be a certain one.
        """
        of_any = self.precision == "int8" and (digest is not None or not self.settings.calibrate)
        key = self._key(read, is_to_be_made=not of_any)
        if key is None:
            return None
        try:
            folder = cache.find_latest(key, "calibration", digest) if of_any else cache.find(key)
        except CheckpointError as error:
            _say(f"{error}; it is not used")
            return None
        if folder is None or key.source.origin and hub.find_newer(key.source.origin):
            return None
        name = self.settings.model
        if name and parse_model_name(name).source is None:
            resolve_name(name)  # which warns of an old one
        if self.precision == "int8":
            _say(_describe(folder))
        return folder

    def go_on(self, begun: Mapping[str, Any]) -> Choice:
        """By what has begun; where that is not to be had any more, whoever compares the settings says so."""
        engine = begun.get("engine")
        if not engine:
            return Choice(after=self.later)
        folder = dataclasses.replace(self, format=engine["format"]).find(read=True, digest=engine["digest"])
        return Choice(folder) if folder is not None and folder.digest == engine["digest"] else Choice()

    def without(self, folder: EngineFolder, error: Exception) -> Choice:
        """Torch in the place of an engine that its library does not take, or whose library cannot be imported."""
        _say(str(error))
        if isinstance(error, CheckpointError):
            cache.discard(folder)
        return Choice(after=self.later)

    # one that is made

    def instead_of(self, folder: EngineFolder, error: Exception) -> Choice:
        """One in the place of an engine that its library does not take."""
        if not isinstance(error, CheckpointError):
            raise error
        _say(str(error))
        cache.discard(folder)
        return Choice(self.make_as_told())

    def make_as_told(self) -> EngineFolder:
        """One that is kept if it can be, and else goes with this process."""
        if not is_installed("torch"):
            raise MissingPackageError(f"torch, which makes engines for --backend {self.settings.backend}, is not "
                                      f"installed: pip install torch torchvision")
        if self.precision == "int8":
            require("nncf")
        started = time.perf_counter()
        key = self._newest_key()
        reason = "an engine of a model of one's own is not kept"
        if key is not None:
            try:
                folder = cache.make(key, lambda path: self._build(path, key))
                _say(f"converted for this time and the next: {time.perf_counter() - started:.1f} s")
                if self.precision == "int8":
                    _say(_describe(folder))
                return folder
            except OSError as error:
                reason = f"it cannot be kept: {_reason(error)}"
        _temporary.append(tempfile.TemporaryDirectory(prefix="mvlib-"))
        path = Path(_temporary[-1].name, "engine")
        self._build(path, None)
        _say(f"converted for this time: {time.perf_counter() - started:.1f} s; {reason}")
        return read_export(path)

    def make_if_possible(self, done: str, wait: bool) -> EngineFolder | None:
        """One that is kept; None, and a line that says why, where there is none.

        Args:
            done: What to say when one was made.
            wait: Whether to wait for another process that is at it.
        """
        started = time.perf_counter()
        key: cache.Key | None = None
        made: list[Path] = []

        def build(path: Path) -> None:
            if sys.stderr.isatty():  # who waits at a terminal wonders at what
                _say("converting the model first" if wait else "preparing an engine for next time; Ctrl-C is safe")
            self._build(path, key)
            made.append(path)

        try:
            key = self._newest_key() if wait else self._key(read=True)  # else torch has fetched it to answer
            if key is None or cache.failure(key) is not None or not _fits_in_memory(key.source):
                return None
            folder = cache.make(key, build, wait=wait)
        except BlockingIOError:
            return None
        except Exception as error:  # of other people's converters, for a model that torch answers for
            _say_why(error, key)
            return None
        if made:
            _say(f"{done}: {time.perf_counter() - started:.1f} s")
            if self.precision == "int8":
                _say(_describe(folder))
        return folder

    @property
    def later(self) -> Callable[[], None] | None:
        """What makes one for the next time; int8 waits for pictures that it can be calibrated on."""
        if self.precision == "int8":
            return None

        def prepare() -> None:
            self.make_if_possible("prepared for next time", wait=False)

        return prepare

    def _newest_key(self) -> cache.Key | None:
        """The same as `_key`, once all is here that torch would answer with."""
        key = self._key(read=True)
        if key is None or key.source.origin and hub.find_newer(key.source.origin):
            self._load()  # fetches it
            key = self._key(read=True)
        return key

    def _load(self) -> nn.Module:
        import torch

        from ..inference.model import load_model

        return load_model(self.settings.model, self.settings.checkpoint, torch.device("cpu"))

    def _build(self, path: Path, key: cache.Key | None) -> None:
        from .exporter import export

        with warnings.catch_warnings(), hub.as_cached():
            warnings.simplefilter("ignore")  # of the model, they were given when torch loaded it to answer
            export(self._load(), path, format=self.format, features=self.features, precision=self.precision,
                   calibrate=self._pictures if self.precision == "int8" else None)
        if key is not None and self._key(read=True) != key:  # another process has fetched a newer revision
            raise CheckpointError(f"{key.source.path} was changed while an engine was made of it")


def _describe(folder: EngineFolder) -> str:
    """What an engine in int8 was calibrated on."""
    where, found = cache.facts_of(folder).get("calibration") or {"on": "what was given"}, folder.measured
    share = f"{found['agreement']:.1%} {'of the same class' if folder.features is None else 'alike'}"
    return (f"int8 as calibrated on {where['on']} ({found['calibrated_on']} pictures; {share} as in float32); "
            f"--calibrate FOLDER takes others")


def _say_why(error: Exception, key: cache.Key | None) -> None:
    """Why there is no engine; remembered, where it would be the same the next time."""
    reason = _reason(error)
    if isinstance(error, (OSError, MemoryError, WeightsError, MissingPackageError)) or is_out_of_memory(error):
        _say(f"no engine was kept for next time: {reason} (MVLIB_ENGINES=off does without)")
    else:
        if key is not None:
            cache.note_failure(key, reason)
        _say(f"no engine can be made of this model, so torch goes on answering for it: {reason}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or shorten_error(error)


def _fits_in_memory(source: cache.Source) -> bool:
    """Whether a conversion that nobody asked for may be tried."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            available = next(int(line.split()[1]) << 10 for line in stream if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return True
    return _MEMORY * source.state[0] < available


def _say(text: str) -> None:
    print(f"mvlib: {text}", file=sys.stderr)
