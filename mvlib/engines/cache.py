"""Engines that mvlib makes by itself and keeps for the next time. Imports no torch.

    DIGEST/          an export (see `folder`)
    DIGEST.json      what it was made of, and its files as they were written; written last: what has none is not used
    .DIGEST.lock     of the process that is making it
    .DIGEST.*.tmp    what it is made in
    sums.json        checksums of weights files, by path, with the state in which they were hashed

The folder is `engines` in $MVLIB_CACHE, which is $XDG_CACHE_HOME/mvlib or ~/.cache/mvlib unless it is set.

An engine is found by all that it depends on (`Key`): the SHA-256 of the weights file, what its config says, what is
asked for, and the versions of mvlib and of the engine's library. A weights file is hashed when an engine is made of it;
afterwards its path, size, inode and times of change say that it is still the same. The inode's own time of change
(ctime) is among them, which no program can set back: whoever writes to a file, replaces it or restores its other times
changes one of them. An engine's files are known in the same way, and hashed again after a day, as disks err, too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fnmatch
import functools
import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .. import __version__, hub
from ..errors import CheckpointError, MvlibError
from ..files import locked, replacing
from ..hub import CacheEntry
from ..inference.options import DEFAULT_MODEL
from ..names import parse_model_name
from ..registry import get_pretrained_cfg, is_ours, resolve_name
from .folder import ENGINE_FILE, FORMATS, LAYOUT, EngineFolder, file_digest, read_export

__all__ = ["EngineEntry", "Key", "Source", "discard", "engine_entries", "engines_dir", "facts_of", "failure", "find",
           "find_latest", "find_source", "key_of", "make", "mark_once", "note_failure", "remove_engines"]

_MAX_BYTES = 10 << 30  # of all engines; those that were not used for the longest time go first
_HASH_AFTER = 24 * 3600  # seconds after which an engine's files are hashed again, and not only looked at
_ENTRY = re.compile(r"[0-9a-f]{64}")
_SUMS = "sums.json"

State = list[int]


def engines_dir() -> Path:
    """Where engines are kept."""
    cache = os.environ.get("MVLIB_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "mvlib")
    return Path(os.path.abspath(os.path.expanduser(cache))) / "engines"


# what an engine is made of


@dataclass(frozen=True)
class Source:
    """A model's weights file, and what else says how the model is built.

    Attributes:
        name: The model, for people.
        path: Of the file.
        state: Of the file, as it is before anybody loads it.
        about: The rest, as JSON has it.
        origin: The "hf-hub:" branch that the file is of, if it is of one.
        model: What the file, a checkpoint, was found to be of; None where that was not asked.
    """

    name: str
    path: Path
    state: State
    about: Mapping[str, Any]
    origin: str | None = None
    model: str | None = None

    def is_unchanged(self) -> bool:
        """Whether the file is still what it was."""
        try:
            return _state(self.path) == self.state
        except OSError:
            return False


def find_source(model: str | None, checkpoint: str | None = None, *, read_checkpoint: bool = False) -> Source | None:
    """What `create_model` would load, found without torch and without the network.

    None where it is not here yet, or cannot be told: then nothing is known of an engine either. So it is with a model
    of the user's own, whose code may be another the next time.

    Args:
        model: A name; None for the checkpoint's, or `DEFAULT_MODEL`.
        checkpoint: A weights file instead of the published ones.
        read_checkpoint: Whether the checkpoint may be asked for its model, which takes torch; else only what is
            remembered of it counts.
    """
    with contextlib.suppress(MvlibError, OSError), warnings.catch_warnings():  # who loads the model says what is wrong
        warnings.simplefilter("ignore", FutureWarning)  # of an old name: the same
        own = None
        if checkpoint and not model:
            model = own = _model_of(checkpoint, read_checkpoint)
            if model is None:
                return None
        parsed = parse_model_name(model or DEFAULT_MODEL)
        find = _in_registry if parsed.source is None else _in_repository
        found = find(model or DEFAULT_MODEL)
        if found is None:
            return None
        name, architecture, path, config, origin = found
        if checkpoint:
            path = Path(checkpoint)
            name = f"{architecture if own else name} {os.path.abspath(path)}"  # no tag: they are not its weights
        if path is None or not is_ours(architecture):
            return None
        about = {"architecture": architecture, "from": "checkpoint" if checkpoint else "published", "config": config}
        path = Path(os.path.realpath(path))  # of all revisions of a repository that have it
        return Source(name, path, _state(path), about, origin, own)
    return None


_Found = tuple[str, str, Path | None, str, str | None]


def _in_registry(name: str) -> _Found | None:
    architecture, tag = resolve_name(name)
    config = get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture)
    if config is None:
        return None
    about = _digest_of({**dataclasses.asdict(config), "sources": []})
    return config.name, architecture, hub.is_cached(config.sources, filename=config.filename), about, None


def _in_repository(name: str) -> _Found | None:
    """The file and the architecture as `create_model` reads them from config.json, all of which counts."""
    source, place, _ = parse_model_name(name)
    where = f"{source}:{place}"
    if hub.is_cached(where, filename="config.json") is None:
        return None
    data = hub.fetch_config(where)
    fields = data["pretrained_cfg"] if isinstance(data.get("pretrained_cfg"), dict) else data
    architecture = data.get("architecture", fields.get("architecture"))
    if not isinstance(architecture, str):
        return None
    architecture, _ = resolve_name(architecture.partition(".")[0])
    path = hub.is_cached(where, filename=fields.get("hf_hub_filename"))
    shown = place if source == "hf-hub" else os.path.abspath(os.path.expanduser(place))
    return shown, architecture, path, _digest_of(data), where if source == "hf-hub" else None


def _model_of(checkpoint: str, read: bool) -> str | None:
    """The architecture that a checkpoint says it is of, or what stands for it where it does not."""
    if read:
        from ..loading import read_training_facts

        return read_training_facts(checkpoint).get("arch") or DEFAULT_MODEL
    known = _remembered(os.path.realpath(checkpoint))
    return known.get("model") if known and known["state"] == _state(checkpoint) else None


@dataclass(frozen=True)
class Key:
    """All that an engine depends on.

    Attributes:
        source: What it is made of.
        facts: The same as JSON has it, by content; with what is asked for, and the versions of what makes it.
    """

    source: Source
    facts: Mapping[str, Any]

    @functools.cached_property
    def digest(self) -> str:
        """Its name in the cache."""
        return _digest_of(self.facts)

    @property
    def path(self) -> Path:
        """Of the export."""
        return engines_dir() / self.digest


def key_of(
    source: Source, *, format: str, precision: str = "float32", features: str | None = None, read: bool = False,
    **more: Any,
) -> Key | None:
    """The key of an engine; None where the weights file would have to be read for it, and may not be.

    Args:
        source: Of `find_source`.
        format: Of `folder.FORMATS`.
        precision: "float32" or "int8".
        features: What it gives in the place of classes.
        read: Whether a file that was not seen before is read.
        more: What else is asked for, as JSON has it.
    """
    known = _remembered(source.path)
    if known and known["state"] == source.state:
        sha256 = known["sha256"]
    elif known or read:  # an engine was made of a file in this place: it is worth a look
        with open(source.path, "rb") as stream:
            sha256 = file_digest(stream)
        if not source.is_unchanged():
            return None
    else:
        return None
    return Key(source, {
        "weights": sha256, **source.about, "format": format, "precision": precision, "features": features, **more,
        "layout": LAYOUT, "mvlib": _own_version(), "library": _library_version(FORMATS[format].package),
    })


def _library_version(package: str) -> str:
    from importlib import metadata

    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:  # of another name: onnxruntime-gpu
        names = metadata.packages_distributions().get(package, [])
        return " ".join(f"{name} {metadata.version(name)}" for name in names) or package


def _own_version() -> str:
    return " ".join(filter(None, (__version__, _sources())))


@functools.cache
def _sources() -> str:
    """The state of mvlib's sources, where this is a working copy, which changes without its version; else nothing."""
    package = Path(__file__).parents[1]
    if not (package.parent / ".git").exists():
        return ""
    return _digest_of(sorted((str(path), *_state(path)) for path in package.rglob("*.py")))


def _digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _state(path: str | os.PathLike[str]) -> State:
    """What changes with a file's content."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


# checksums of weights files


def _remembered(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """{"state": ..., "sha256": ..., "model": of a checkpoint, if it was asked} of a file when it was last hashed."""
    known = _read(engines_dir() / _SUMS).get(os.fspath(path))
    return known if isinstance(known, dict) and {"state", "sha256"} <= known.keys() else None


def _remember(key: Key) -> None:
    about = {"state": key.source.state, "sha256": key.facts["weights"], "model": key.source.model}
    before = _remembered(key.source.path)
    if about["model"] is None and before and before["state"] == about["state"]:  # this time the user has named one
        about["model"] = before.get("model")
    place = engines_dir() / _SUMS
    known = _read(place)
    if known.get(str(key.source.path)) != about:
        known = {path: value for path, value in known.items() if os.path.exists(path)}
        _write(place, {**known, str(key.source.path): about})


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or not what was written: nothing is known then
        return {}
    return data if isinstance(data, dict) else {}


def _write(path: Path, data: Mapping[str, Any]) -> None:
    with replacing(path, durable=True) as temporary:
        temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")


# finding and making


class _Kept(EngineFolder):
    """An export of the cache, whose files `find` has seen to."""

    def check_files(self) -> None:
        pass


def find(key: Key) -> EngineFolder | None:
    """The engine of a key.

    Raises:
        CheckpointError: It is damaged; `make` makes it anew.
    """
    record = _read(_record_path(key.digest))
    if record.get("facts") != _plain(key.facts) or "files" not in record:
        return None
    try:
        folder = read_export(key.path)
        files = _checked(key.path, record)
    except (MvlibError, OSError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the engine of {key.source.name} in the cache is damaged: {error}") from error
    with contextlib.suppress(OSError):  # a cache that cannot be written serves all the same
        if files is not None:
            _write(_record_path(key.digest), _record(key, files))
        os.utime(_record_path(key.digest))  # its last use
    return _Kept(**{field.name: getattr(folder, field.name) for field in fields(folder)})


def find_latest(key: Key, but: str, digest: str | None = None) -> EngineFolder | None:
    """The engine that was made last of those whose keys differ from this one in a fact alone, if at all.

    Args:
        key: What it shall be.
        but: Name of the fact.
        digest: Of the engine, where it has to be a certain one.

    Raises:
        CheckpointError: One is damaged.
    """
    wanted = {**_plain(key.facts), but: None}
    records = [record for path in engines_dir().glob("*.json") if (record := _read(path)).get("files")
               and {**record["facts"], but: None} == wanted]
    for record in sorted(records, key=lambda record: record["files"][ENGINE_FILE]["state"][1], reverse=True):
        folder = find(Key(key.source, record["facts"]))
        if folder is not None and digest in (None, folder.digest):
            return folder
    return None


def facts_of(folder: EngineFolder) -> dict[str, Any]:
    """The facts of the key of an engine that was found."""
    return _read(_record_path(folder.path.name)).get("facts", {})


def _checked(path: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Refuse an engine that is not as it was written; gives its files, where they had to be hashed to know."""
    said = record["files"]
    if 0 <= time.time() - record["checked"] < _HASH_AFTER and _states(path) == {
            name: file["state"] for name, file in said.items()}:
        return None
    found = _hashed(path)
    for name in {**said, **found}:
        if name not in found or name not in said or found[name]["sha256"] != said[name]["sha256"]:
            raise CheckpointError(f"{name} is not what was written")
    return found


def _hashed(path: Path) -> dict[str, Any]:
    """{name: {"state": ..., "sha256": ...}} of the files of a folder."""
    files = {}
    for name, state in _states(path).items():
        with open(path / name, "rb") as stream:
            files[name] = {"state": state, "sha256": file_digest(stream)}
    return files


def _record(key: Key, files: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": key.source.name, "facts": key.facts, "files": files, "checked": time.time()}


def _states(path: Path) -> dict[str, State]:
    return {entry.name: _state(entry) for entry in os.scandir(path)}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _record_path(digest: str) -> Path:
    return engines_dir() / f"{digest}.json"


def _lock_path(digest: str) -> Path:
    return engines_dir() / f".{digest}.lock"


def make(key: Key, build: Callable[[Path], object], *, wait: bool = True) -> EngineFolder:
    """The engine of a key, made where it is not there.

    Args:
        key: Of `key_of(..., read=True)`.
        build: Writes the export as a whole to a path.
        wait: Whether to wait for another process that is making it.

    Raises:
        BlockingIOError: Another process is making it, and `wait` is false.
        OSError: The cache cannot be written, or the disk is full.
        CheckpointError: The weights file has changed meanwhile.
        Whatever `build` raises.
    """
    place = engines_dir()
    place.mkdir(parents=True, exist_ok=True)
    with locked(_lock_path(key.digest), wait):
        with contextlib.suppress(CheckpointError):
            found = find(key)
            if found is not None:
                _remember(key)
                return found
        _remove(key.digest)
        _sweep(place, key.digest)
        if shutil.disk_usage(place).free < 2 * key.source.state[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
        try:
            build(key.path)
            if not key.source.is_unchanged():
                raise CheckpointError(f"{key.source.path} was changed while an engine was made of it")
            read_export(key.path)
            _write(_record_path(key.digest), _record(key, _hashed(key.path)))
        except BaseException:
            shutil.rmtree(key.path, ignore_errors=True)
            raise
        found = find(key)
    assert found is not None
    with contextlib.suppress(OSError):
        _remember(key)
        _shrink(key.digest)
    return found


def discard(folder: EngineFolder) -> None:
    """Remove an engine of `find` that is of no use; another process that is at work on it does so itself."""
    with contextlib.suppress(OSError), locked(_lock_path(folder.path.name), wait=False):
        _remove(folder.path.name)


def note_failure(key: Key, reason: str) -> None:
    """Remember that no engine can be made, so that nobody tries in vain at every start."""
    with contextlib.suppress(OSError):
        _write(_record_path(key.digest), {"name": key.source.name, "facts": key.facts, "failed": reason})
        _remember(key)


def failure(key: Key) -> str | None:
    """Why no engine can be made, as `note_failure` was told."""
    record = _read(_record_path(key.digest))
    return record.get("failed") if record.get("facts") == _plain(key.facts) else None


def mark_once(name: str) -> bool:
    """Whether this is the first call with this name in all processes; not where that cannot be remembered."""
    try:
        engines_dir().mkdir(parents=True, exist_ok=True)
        with open(engines_dir() / f"said-{name}", "x"):
            return True
    except OSError:
        return False


def _remove(digest: str) -> None:
    """Remove an engine, or what is left of one; for who has its lock."""
    _record_path(digest).unlink(missing_ok=True)  # first: without it, the rest is not used
    for path in (engines_dir() / digest, *engines_dir().glob(f".{digest}.*.tmp")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _sweep(place: Path, own: str) -> None:
    """Remove what killed processes have left of other engines."""
    names = set(os.listdir(place))
    digests = {match[0] for name in names if (match := _ENTRY.search(name)) and f"{match[0]}.json" not in names}
    for digest in digests - {own}:
        with contextlib.suppress(OSError), locked(_lock_path(digest), wait=False):  # who has it is alive
            if not _record_path(digest).exists():
                _remove(digest)


def _shrink(own: str) -> None:
    entries = sorted(engine_entries(), key=lambda entry: entry.last_used)
    total = sum(entry.size for entry in entries)
    for entry in entries:
        if total > _MAX_BYTES and entry.path.name != own:
            with contextlib.suppress(BlockingIOError), locked(_lock_path(entry.path.name), wait=False):
                _remove(entry.path.name)
                total -= entry.size


# for people


@dataclass(frozen=True)
class EngineEntry(CacheEntry):
    """An engine in the cache.

    Attributes:
        about: Format, precision and whatever else tells it from others of the same model.
    """

    about: str = ""


def engine_entries() -> list[EngineEntry]:
    """All engines, by name."""
    entries = []
    for path in engines_dir().glob("*.json"):
        record = _read(path)
        if _ENTRY.fullmatch(path.stem) and isinstance(record.get("files"), dict):
            facts = record["facts"]
            features = facts["features"]
            about = " ".join(filter(None, (facts["format"], facts["precision"],
                                           f"level {features}" if features and features.isdigit() else features)))
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                entries.append(EngineEntry(record["name"], "engine", path.with_suffix(""), sum(
                    said["state"][0] for said in record["files"].values()), path.stat().st_mtime, about))
    return sorted(entries, key=lambda entry: (entry.name, entry.about, entry.path))


def remove_engines(patterns: Iterable[str]) -> list[EngineEntry]:
    """Delete the engines that match any of these names or wildcards; gives those that went.

    One that a process is answering with can go: it has opened what it needs.
    """
    patterns = list(patterns)
    gone = []
    for entry in engine_entries():
        if any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in patterns):
            with locked(_lock_path(entry.path.name)):
                _remove(entry.path.name)
            gone.append(entry)
    return gone
