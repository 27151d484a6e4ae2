"""A model, ready to be given files: by torch, or an export by the library that runs it. Imports no torch."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..engines.folder import EngineFolder, is_export, read_export
from ..engines.runtime import backend_of, is_installed
from ..errors import CheckpointError, ConfigError, MissingPackageError, NoAnswerError
from ..threads import cpu_count
from .inputs import Input, Url, WebRules
from .pipeline import NO_ANSWER, Allocate, Answer, Job, Read, run_pipeline

if TYPE_CHECKING:
    from .web import Downloader

__all__ = ["Session", "Settings", "classify", "embed", "open_session"]

_NO_NUMBERS = f"{NO_ANSWER}the model gives NaN or infinity for it"


@dataclass(frozen=True)
class Settings:
    """What a command is told of model and machine; see `mvlib predict --help`.

    Attributes:
        model: A name, or the path of an export.
        precision: None for float32, or the export's.
        batch_size: Images at once, in each of the model's threads; None for what suits the device. Few are best on a
            CPU: what a layer writes is still in the cache when the next one reads it.
        count: How many images there will be, as far as that is known; what compiling has to pay for.
        backend: What runs the model; "auto" for what is best here.
        files: What lists the images anew, where that can be done.
        begun: The settings (of a manifest) of results that are gone on with.
        calibrate: A folder of pictures to calibrate an engine in int8 on, instead of `files`.
        web: What may be fetched, where files are URLs.
    """

    model: str | None = None
    checkpoint: str | None = None
    device: str = "auto"
    precision: str | None = None
    force: bool = False
    compile: str = "auto"
    decode: str = "full"
    batch_size: int | None = None
    workers: int | None = None
    count: int | None = None
    backend: str = "auto"
    files: Callable[[], Iterable[Input]] | None = None
    begun: Mapping[str, Any] | None = None
    calibrate: str | None = None
    web: WebRules = WebRules()


class Session:
    """A model that answers, and the threads that feed it.

    Attributes:
        settings: What was asked for.
        name: Of the model's weights, or else of its architecture.
        num_classes: Of a classifier's outputs; 0 if it is none.
        class_names: Of its outputs.
        features: What it gives in the place of classes, if so.
        data_config: How its inputs are prepared.
        read: File, or what was fetched of a URL, to uint8 image (height, width, channels), as the model wants it but
            for normalisation.
        batch_size: Images in a job, at most.
        lanes: Batches under way at once.
        allocate: What gives the memory of batches.
        after: What can wait until all answers are delivered, if anything can.
        fetched: Is given each URL and what was fetched of it, in the thread that reads it.
    """

    settings: Settings
    name: str
    num_classes: int
    class_names: list[str]
    features: str | None
    data_config: dict[str, Any]
    read: Read
    batch_size: int
    lanes: int
    allocate: Allocate = staticmethod(np.empty)
    after: Callable[[], None] | None = None
    fetched: Callable[[Url, BinaryIO], None] | None = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 images (n, height, width, channels) -> what the model gives for them (n, ...), in float32.

        Raises:
            ConfigError: It gives more than one array.
        """
        raise NotImplementedError

    def warm_up(self) -> None:
        """What the first call would have to do before it computes."""

    def describe(self) -> dict[str, Any]:
        """What results depend on, as JSON has it."""
        raise NotImplementedError

    def try_out(self, compute: Callable[[np.ndarray], Any]) -> Any:
        """What `compute` gives for one black image."""
        channels, height, width = self.data_config["input_size"]
        return compute(np.zeros((1, height, width, channels), np.uint8))

    def answers(self, jobs: Iterable[Job], compute: Callable[[np.ndarray], Any]) -> Iterator[Answer]:
        """Run `compute`, which calls the session, over the images of `jobs`, in order; see `run_pipeline`."""
        channels, height, width = self.data_config["input_size"]
        read = _Reader(self)
        try:
            yield from run_pipeline(
                jobs, read, compute, image_shape=(height, width, channels), batch_size=self.batch_size,
                workers=self.settings.workers or cpu_count(), lanes=self.lanes, allocate=self.allocate,
                warm_up=self.warm_up)
        finally:
            read.close()

    def finish(self) -> None:
        """What can wait until all answers are delivered; commands call it at their end. An interrupt (Ctrl-C, SIGTERM)
        ends it, and changes nothing of what was delivered."""
        if self.after is not None:
            with contextlib.suppress(KeyboardInterrupt):
                self.after()


class _Reader:
    """A session's `read`, of URLs, too."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._lock = threading.Lock()
        self._downloader: Downloader | None = None

    def __call__(self, source: Input) -> np.ndarray:
        if not isinstance(source, Url):
            return self.session.read(source)
        content = self._get_downloader().fetch(source)
        if self.session.fetched is not None:
            self.session.fetched(source, content)
        return self.session.read(content)

    def _get_downloader(self) -> Downloader:
        """Imported and made for the first URL that comes."""
        with self._lock:
            if self._downloader is None:
                from .web import Downloader

                self._downloader = Downloader(self.session.settings.web)
            return self._downloader

    def close(self) -> None:
        if self._downloader is not None:
            self._downloader.close()


def open_session(settings: Settings, features: str | None = None, with_digest: bool = False) -> Session:
    """Load what `settings` name.

    Args:
        settings: What to load, and how to run it.
        features: What is wanted in the place of classes: a kind of `mvlib.inference.features.Features`; "auto" for
            "pooled", or what an export was made for.
        with_digest: Whether `describe` tells weights by what is in them.

    Raises:
        ConfigError: The settings contradict each other or the model, or the model has no such features.
        MissingPackageError: What has to run the model is not installed.
    """
    if settings.model is not None and is_export(settings.model):
        return _open_export(settings, features)
    from ..engines.choose import choose

    features = "pooled" if features == "auto" else features
    choice = choose(settings, features)
    while choice.folder is not None:
        try:
            return _open_engine(choice.folder, replace(settings, checkpoint=None), features and "auto")
        except (CheckpointError, ImportError) as error:
            if choice.again is None:
                raise
            choice = choice.again(error)
    if not is_installed("torch"):
        raise MissingPackageError("torch, which runs models, is not installed: pip install torch torchvision; or name "
                                  "an export, which runs without it: --model FOLDER, of 'mvlib export'")
    with _without_garbage_collection():
        from .torch_session import TorchSession
    session = TorchSession(settings, features, with_digest)
    session.after = choice.after
    return session


def _open_export(settings: Settings, features: str | None) -> Session:
    folder = read_export(str(settings.model))
    runs = backend_of(folder)
    if settings.calibrate:
        raise ConfigError(f"{folder.path} is an export, made already: leave out --calibrate, or name the model "
                          f"{folder.made_of}")
    if settings.backend not in ("auto", runs):
        raise ConfigError(f"{folder.path} is an export that {runs} runs, not {settings.backend}: leave out --backend, "
                          f"or name the model {folder.made_of}")
    return _open_engine(folder, settings, features)


def _open_engine(folder: EngineFolder, settings: Settings, features: str | None) -> Session:
    with _without_garbage_collection():
        from .engine_session import EngineSession

        return EngineSession(folder, settings, features)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """The collector finds nothing among modules that are imported, a seventh of torch's time long."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def classify(session: Session, topk: int) -> Callable[[np.ndarray], list[list[tuple[int, str, float]]]]:
    """What turns images into their likeliest classes: uint8 (n, H, W, C) -> n lists of (number, name, probability).

    It raises NoAnswerError where the model gives NaN or infinity.

    Raises:
        ConfigError: The model has no classes.
    """
    if session.num_classes < 1:
        raise ConfigError(f"'{session.name}' has no classes to predict: its weights are for features")
    names, topk = session.class_names, min(topk, session.num_classes)

    def compute(images: np.ndarray) -> list[list[tuple[int, str, float]]]:
        outputs = session(images)
        _refuse(~np.isfinite(outputs.max(-1)), _NO_NUMBERS)  # -inf is no class's, of a class that is ruled out
        return [[(index, names[index], value) for index, value in zip(*_likeliest(row, topk))] for row in outputs]

    return compute


def _refuse(bad: np.ndarray, reason: str) -> None:
    """Raise NoAnswerError where an image (n,) is bad."""
    if bad.any():
        raise NoAnswerError(dict.fromkeys(np.flatnonzero(bad).tolist(), reason))


def _likeliest(outputs: np.ndarray, count: int) -> tuple[list[int], list[float]]:
    """Numbers and probabilities of the classes with the largest of float32 outputs; of equal ones the first."""
    powers = np.exp(outputs - outputs.max())
    least = np.partition(outputs, -count)[-count]
    chosen = np.flatnonzero(outputs >= least)
    chosen = chosen[np.argsort(-outputs[chosen], kind="stable")[:count]]
    return chosen.tolist(), (powers[chosen] / powers.sum()).tolist()


def embed(session: Session, dtype: str = "float32") -> Callable[[np.ndarray], np.ndarray]:
    """What turns uint8 images (n, H, W, C) into an array of their features (n, ...), of `dtype`.

    It raises NoAnswerError where the model gives NaN or infinity, or what is too large for `dtype`.
    """

    def compute(images: np.ndarray) -> np.ndarray:
        outputs = session(images)
        with np.errstate(over="ignore"):
            features = np.array(outputs, dtype, order="C")
        bad = ~np.isfinite(features).reshape(len(features), -1).all(1)
        if bad.any():
            _refuse(bad & ~np.isfinite(outputs).reshape(len(features), -1).all(1), _NO_NUMBERS)
            _refuse(bad, f"{NO_ANSWER}its features are too large for {dtype}")
        return features

    return compute
