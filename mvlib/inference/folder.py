"""A folder of results in parts, which several processes fill, once and for all, however often they are killed.

    _manifest.json         what was asked for; a later run that asks for something else is refused, and shards whose
                           files have changed since are done again
    _inputs.jsonl          the images, a JSON string a line: those of shard i are lines i * size to (i + 1) * size
    part-00000.parquet     results of a shard; it is there when all of it is
    _failures-00000.jsonl  which of its images could not be read, and why; written before the part. A later run tries
                           them again
    _lock                  whose bytes processes lock: a dead process holds no locks

Imports no torch.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .. import __version__
from ..errors import ConfigError, DataError
from ..files import replacing, sync
from ..names import closest_path
from .inputs import Url

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["Place", "ResultFolder", "Shard", "part_path", "place_of_process", "read_failures", "read_manifest",
           "read_manifest_file", "refuse_differences", "remove_temporaries", "replace_file", "write_json"]

_MOST_NAMES = 1_000_000  # of pictures that a message looks through
_SETUP, _RUN, _RANKS, _SHARDS = 0, 1, 16, 1 << 20  # bytes of the lock file


@dataclass(frozen=True)
class Place:
    """Which of `world` processes this one is."""

    rank: int = 0
    world: int = 1


def place_of_process() -> Place:
    """As torchrun says in RANK and WORLD_SIZE.

    Raises:
        ConfigError: They are no such numbers.
    """
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise ConfigError(f"RANK={rank} of WORLD_SIZE={world} is no place among processes")
    return Place(int(rank), int(world))


@dataclass(frozen=True)
class Shard:
    """Consecutive images of the input list.

    Attributes:
        number: Which one.
        files: Names of its images.
        again: Positions of those to do again; None for a shard without a part, of which all are to be done.
        failures: (position, reason) of the images that are not in its part, and stay out of it.
    """

    number: int
    files: Sequence[str]
    again: Sequence[int] | None = None
    failures: Sequence[tuple[int, str]] = ()

    @property
    def to_do(self) -> Sequence[int]:
        """Positions of the images to do."""
        return range(len(self.files)) if self.again is None else self.again


class ResultFolder:
    """The parts of one run, opened to be filled.

    Args:
        path: The folder; made if it does not exist.
        settings: What the results depend on, as JSON has it.
        files: All images, in order.
        suffix: Of part files.
        shard_size: Images in a part.
        place: This process among those that fill the folder.
        overwrite: Whether to begin anew, whatever has been done.
        finished: Manifest of a file that was made of such parts, which are gone. Unless `keep` brings them back, the
            folder is only compared with it.
        output: The file that the parts are for, if so, for messages.
        names: Gives the pictures that the finished file is of, for messages.

    Attributes:
        path, output, place: As given.
        suffix: Of part files.
        manifest: What this run asks for.
        changed: Shards that were done, and whose files are not what they were.

    Raises:
        ConfigError: The folder was begun with other settings, or holds something else; or this system does not have
            the locks of POSIX.
        DataError: Another process is at work on it.
    """

    def __init__(
        self, path: str | os.PathLike[str], settings: Mapping[str, Any], files: Iterable[str | os.PathLike[str]], *,
        suffix: str, shard_size: int, place: Place = Place(), overwrite: bool = False,
        finished: Mapping[str, Any] | None = None, output: str | os.PathLike[str] | None = None,
        names: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        if fcntl is None:
            raise ConfigError(f"{path} cannot be filled on this system, which lacks the file locks that keep processes "
                              f"apart (Linux and macOS have them)")
        self.path = Path(path)
        self.output = self.path if output is None else Path(output)
        self.place = place
        self.suffix = suffix
        self.changed: list[int] = []
        self._again: dict[int, list[int]] = {}
        self._names = names or (lambda: _listed(self.path / "_inputs.jsonl"))
        self._make(begun=finished is not None)
        self._lock_file = open(self.path / "_lock", "a+b", buffering=0)
        try:
            self._lock_run()
            with self._locked(_SETUP):
                try:
                    self._set_up(settings, files, shard_size, overwrite, finished)
                except BaseException:
                    if finished is not None:
                        shutil.rmtree(self.path, ignore_errors=True)
                    raise
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ResultFolder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all locks."""
        self._lock_file.close()

    def _make(self, begun: bool) -> None:
        try:
            self.path.mkdir(exist_ok=True)
            begun = begun or (self.path / "_manifest.json").exists()
            if not os.access(self.path, os.W_OK):
                raise PermissionError(0, "writing there is not permitted")
            if not begun and glob.glob(f"{glob.escape(str(self.path))}/part-*"):
                raise ConfigError(f"{self.path} holds parts and no _manifest.json: take another folder")
        except FileExistsError:
            raise ConfigError(f"{self.path} cannot be written: it is a file, not a folder") from None
        except FileNotFoundError:
            raise ConfigError(f"{self.path} cannot be written: there is no folder {self.path.parent}") from None
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from None

    # locks

    def _try_lock(self, byte: int, shared: bool = False) -> bool:
        try:
            fcntl.lockf(self._lock_file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        return True

    @contextmanager
    def _locked(self, byte: int) -> Iterator[None]:
        fcntl.lockf(self._lock_file, fcntl.LOCK_EX, 1, byte)
        try:
            yield
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN, 1, byte)

    def _lock_run(self) -> None:
        """One process alone, or one of each rank."""
        rank, world = self.place.rank, self.place.world
        if not self._try_lock(_RUN, shared=world > 1):
            raise DataError(f"another process is at work on {self.path}")
        if world > 1 and not self._try_lock(_RANKS + rank):
            raise DataError(f"another process of rank {rank} is at work on {self.path}")

    # what is to be done

    def _set_up(
        self, settings: Mapping[str, Any], files: Iterable[str | os.PathLike[str]], shard_size: int, overwrite: bool,
        finished: Mapping[str, Any] | None,
    ) -> None:
        listed, manifest_path = self.path / f"._inputs.{os.getpid()}.tmp", self.path / "_manifest.json"
        for path in (self.path / "_inputs", manifest_path):
            remove_temporaries(path)
        try:
            with open(listed, "wb") as stream:  # down on the disk: it may be longer than memory allows
                inputs, self._starts = list_to(stream, files, shard_size)
            self.manifest: dict[str, Any] = {
                "mvlib": __version__, "part_suffix": self.suffix, "settings": dict(settings), "inputs": inputs}
            if overwrite or finished is not None:
                self._clear()
            if finished is None and manifest_path.exists():
                self._compare(read_manifest(self.path), listed)
                return
            if finished is not None:
                self._compare(finished, listed)
            sync(listed)
            os.replace(listed, self.path / "_inputs.jsonl")
            if self.place.rank:  # what files are like is the first process's to say: others' clocks and disks differ
                del inputs["stamps"]
            if finished is None:
                write_json(manifest_path, self.manifest)
        finally:
            with suppress(FileNotFoundError):
                listed.unlink()

    def _clear(self) -> None:
        """Remove what has been done; the manifest last, without which parts are refused."""
        for pattern in ("part-[0-9]*", "_failures-[0-9]*.jsonl", "_manifest.json"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)

    def _compare(self, before: Mapping[str, Any], listed: Path) -> None:
        """Refuse to go on with something else; what was made of files that have changed since is no part any more."""
        refuse_differences(self.output, before, self.manifest, lambda: (self._names(), _listed(listed)))
        if self.place.rank:
            self.manifest["inputs"] = before["inputs"]
            return
        stamps, now = before["inputs"].get("stamps"), self.manifest["inputs"]["stamps"]
        if stamps != now:
            numbers = range(self.shard_count) if stamps else ()
            self.changed = [number for number in numbers if stamps[number:number + 1] != now[number:number + 1]]
            for number in self.changed:
                self.part_of(number).unlink(missing_ok=True)
            if (self.path / "_manifest.json").exists():
                write_json(self.path / "_manifest.json", self.manifest)

    def keep(self, write_part: Callable[[Path | None, int], None], failures: Sequence[Mapping[str, Any]]) -> None:
        """Bring back the parts of a finished file, but for those that have changed.

        Args:
            write_part: Is called for each shard, in order, with where its part goes, or None where it is not wanted,
                and how many rows it has.
            failures: Of the finished file.
        """
        size, by_shard = self.manifest["inputs"]["shard_size"], defaultdict(list)
        for failure in failures:
            by_shard[failure["index"] // size].append(failure)
        for number in range(self.shard_count):
            bad = by_shard[number]
            rows = min(size, self.image_count - number * size) - len(bad)
            if number in self.changed:
                write_part(None, rows)
                continue
            _write_failures(failures_path(self.path, number), bad)
            with replacing(self.part_of(number), durable=True) as temporary:
                write_part(temporary, rows)
        write_json(self.path / "_manifest.json", self.manifest)

    @property
    def image_count(self) -> int:
        return self.manifest["inputs"]["count"]

    def images_to_do(self) -> int:
        """Images in shards that are not done, and those to be done again."""
        size = self.manifest["inputs"]["shard_size"]
        return sum(min(size, self.image_count - number * size) for number in self.missing()) + \
            sum(map(len, self._again.values()))

    def failures(self) -> list[dict[str, Any]]:
        """`index`, `file` and `error` of the images that could not be read, of all shards that are done."""
        return list(read_failures(self.path, range(self.shard_count)))

    def own_failures(self) -> list[dict[str, Any]]:
        """The same of those shards that are this process's to look after."""
        own = range(self.place.rank, self.shard_count, self.place.world)
        return list(read_failures(self.path, [number for number in own if self.is_done(number)]))

    def do_again(self, failures: Iterable[Mapping[str, Any]]) -> None:
        """Have images that could not be read be done again, and nothing else of their shards; of shards that are not
        done, all images are."""
        size = self.manifest["inputs"]["shard_size"]
        for failure in failures:
            number, position = divmod(failure["index"], size)
            if self.is_done(number):
                self._again.setdefault(number, []).append(position)

    @property
    def shard_count(self) -> int:
        return len(self._starts)

    def claim(self) -> Iterator[Shard]:
        """Shards that this process is to do: its own share first, then whatever nobody else is at.

        A shard stays locked until the process ends or the folder is closed.
        """
        own = range(self.place.rank, self.shard_count, self.place.world)
        others = (number for number in range(self.shard_count) if number % self.place.world != self.place.rank)
        for number in (*own, *others):
            if self._is_to_do(number) and self._try_lock(_SHARDS + number) and self._is_to_do(number):
                again = self._again.get(number) if self.is_done(number) else None
                yield Shard(number, self._files(number), again, self._left_out(number, again) if again else ())

    def _is_to_do(self, number: int) -> bool:
        return not self.is_done(number) or number in self._again

    def _left_out(self, number: int, again: Sequence[int]) -> list[tuple[int, str]]:
        first = number * self.manifest["inputs"]["shard_size"]
        return [(failure["index"] - first, failure["error"]) for failure in read_failures(self.path, [number])
                if failure["index"] - first not in again]

    def _files(self, number: int) -> list[str]:
        with open(self.path / "_inputs.jsonl", "rb") as stream:
            stream.seek(self._starts[number])
            lines = (stream.readline() for _ in range(self.manifest["inputs"]["shard_size"]))
            return [json.loads(line) for line in lines if line]

    def part_of(self, number: int) -> Path:
        """Where the part of a shard is, or will be."""
        return part_path(self.path, number, self.suffix)

    def is_done(self, number: int) -> bool:
        return self.part_of(number).exists()

    def missing(self) -> list[int]:
        """Numbers of the shards that have no part yet."""
        return [number for number in range(self.shard_count) if not self.is_done(number)]

    # parts

    @contextmanager
    def part(self, shard: Shard, failures: list[tuple[int, str]]) -> Iterator[Path]:
        """A path to write the part of a shard to; at the end the part is there, on the disk.

        Args:
            shard: One of `claim`.
            failures: (position, reason) of the images that are not in the part; read at the end.
        """
        target = self.part_of(shard.number)
        for path in (target, failures_path(self.path, shard.number)):
            remove_temporaries(path)
        with replacing(target, durable=True) as temporary:
            yield temporary
            target.unlink(missing_ok=True)  # an older part would not go with these failures
            first = shard.number * self.manifest["inputs"]["shard_size"]
            _write_failures(failures_path(self.path, shard.number), [
                {"index": first + position, "file": shard.files[position], "error": reason}
                for position, reason in sorted(failures)])
        self._again.pop(shard.number, None)


def _write_failures(path: Path, failures: Sequence[Mapping[str, Any]]) -> None:
    if failures:
        replace_file(path, "".join(f"{json.dumps(failure)}\n" for failure in failures))
    else:
        path.unlink(missing_ok=True)


def list_to(
    stream: BinaryIO | None, files: Iterable[str | os.PathLike[str]], shard_size: int
) -> tuple[dict[str, Any], list[int]]:
    """Write a list of inputs; gives what a manifest says of it, and the bytes where its shards begin.

    "sha256" is of the names; "stamps", one a shard, are of the files' sizes and times.
    """
    digest, count, position, starts, stamps = hashlib.sha256(), 0, 0, [], []
    for name in files:
        line = json.dumps(os.fspath(name)).encode() + b"\n"
        if count % shard_size == 0:
            starts.append(position)
            stamps.append(hashlib.sha256())
        if stream is not None:
            stream.write(line)
        position += len(line)
        digest.update(line)
        stamps[-1].update(_stamp(name))
        count += 1
    return {"count": count, "sha256": digest.hexdigest(), "shard_size": shard_size, "shards": len(starts),
            "stamps": [stamp.hexdigest()[:16] for stamp in stamps]}, starts


def _stamp(name: str | os.PathLike[str]) -> bytes:
    """What a file has another of once it was written anew. What is on the web is taken to stay as it is."""
    if isinstance(name, Url):
        return b"url\n"
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return b"none\n"
    return f"{found.st_size} {found.st_mtime_ns}\n".encode()


def _listed(path: Path) -> Iterator[str]:
    with suppress(FileNotFoundError), open(path, "rb") as stream:
        yield from map(json.loads, stream)


def refuse_differences(
    where: Path, before: Mapping[str, Any], now: Mapping[str, Any],
    names: Callable[[], tuple[Iterable[str], Iterable[str]]] = lambda: ((), ()),
) -> None:
    """Refuse to go on with what was begun differently.

    Args:
        where: Folder or file of results.
        before, now: Manifests.
        names: Gives the pictures of both; asked only where they are others.

    Raises:
        ConfigError: They differ in settings or inputs; the message says in what.
    """
    old, new = (json.loads(json.dumps({**manifest["settings"], "inputs": manifest["inputs"]}))
                for manifest in (before, now))
    lines = [f"  {line}" for key in {**old, **new} if old.get(key) != new.get(key)
             for line in _differences(key, old.get(key), new.get(key))]
    if old["inputs"].get("sha256") != new["inputs"]["sha256"] and new["inputs"]["count"] <= _MOST_NAMES:
        lines += [f"  {line}" for line in _new_and_gone(*map(dict.fromkeys, names()))]
    if lines:
        raise ConfigError("\n".join([f"{where} was begun otherwise; give the same to go on, --overwrite to begin anew, "
                                     f"or another --output:", *lines]))


def _new_and_gone(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if old and old.keys() == new.keys():
        yield "  the same, in another order"
    for word, these, others in (("new", new, old), ("gone", old, new)):
        if found := [name for name in these if name not in others]:
            yield f"  {word}: {found[0]}" + (f" and {len(found) - 1:,} more" if len(found) > 1 else "")


def _differences(key: str, old: Any, new: Any) -> Iterator[str]:
    """In words what differs in a setting."""
    if key == "inputs":
        if (old["count"], old.get("sha256")) != (new["count"], new["sha256"]):
            others = " others" if old["count"] == new["count"] else ""
            yield f"other pictures: {old['count']} before, {new['count']}{others} now"
        if old["shard_size"] != new["shard_size"]:
            yield f"--shard-size: {old['shard_size']} before, {new['shard_size']} now"
    elif key == "engine":
        names = [value["format"] if value else "torch itself" for value in (old, new)]
        yield f"what runs the model: {names[0]} before, {names[1]} now" if names[0] != names[1] else \
            "the engine: it was made anew"
    elif key == "weights":
        yield "weights: others than before"
    elif key == "preprocessing" and isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            if old.get(name) != new.get(name):
                yield f"{name} of the images: {_short(old.get(name))} before, {_short(new.get(name))} now"
    else:
        yield f"{key}: {_short(old)} before, {_short(new)} now"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else "none" if value is None else json.dumps(value)
    return text if len(text) <= 72 else f"{text[:69]}..."


def part_path(folder: Path, number: int, suffix: str) -> Path:
    return folder / f"part-{number:05d}{suffix}"


def failures_path(folder: Path, number: int) -> Path:
    return folder / f"_failures-{number:05d}.jsonl"


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What a folder of results was begun with.

    Raises:
        ConfigError: It is not such a folder.
    """
    try:
        return read_manifest_file(Path(folder) / "_manifest.json")
    except FileNotFoundError:
        if not os.path.exists(folder):
            raise ConfigError(f"there is no folder {folder}{closest_path(folder, files=False)}") from None
        raise ConfigError(f"{folder} is no folder of results: it has no _manifest.json") from None


def read_manifest_file(path: Path) -> dict[str, Any]:
    """What results were begun with.

    Raises:
        ConfigError: It does not say so.
        FileNotFoundError: There is no such file.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known = manifest["settings"], *(manifest["inputs"][key] for key in ("count", "shard_size"))
        if list(map(type, known)) != [dict, int, int]:
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is damaged: it does not say how the results were made. They are whole, but cannot "
                          f"be gone on with: remove it, or take another --output") from None
    return manifest


def read_failures(folder: Path, shards: Iterable[int]) -> Iterator[dict[str, Any]]:
    """{"index": ..., "file": ..., "error": ...} of each image that could not be read, in order."""
    for number in shards:
        path = failures_path(folder, number)
        with suppress(FileNotFoundError), open(path, encoding="utf-8") as stream:
            for line in stream:
                try:
                    failure = json.loads(line)
                except ValueError:
                    raise DataError(f"{path} is damaged: remove it with its part, and run the same command again") \
                        from None
                yield failure


def write_json(path: Path, value: Any) -> None:
    replace_file(path, json.dumps(value, indent=2) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Write a small file whole, or not at all, even if the power fails."""
    with replacing(path, durable=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_temporaries(path: Path) -> None:
    """Remove what killed processes have left of a file that they were writing; for whoever alone may write it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)
