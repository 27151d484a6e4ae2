"""Parts of a folder to one file, in the order of the inputs, and back; a part at a time is in memory. Imports no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from ..files import replacing
from .folder import ResultFolder, part_path, read_failures, read_manifest
from .parts import NpyPart, ParquetPart, read_jsonl, read_npy_blocks, read_parquet_blocks, require_parquet, whole
from .writers import WRITERS, Prediction, open_output

__all__ = ["check_names", "merge", "names_of", "split"]


def merge(folder: str | os.PathLike[str], output: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Join the parts of a folder.

    Args:
        folder: Of results.
        output: .csv, .jsonl, .json or .parquet for predictions; .parquet or .npy for features. A .npy file comes with
            the names of its rows in a .json file of the same name.

    Returns:
        The images that could not be read: `index`, `file` and `error` of each.

    Raises:
        ConfigError: It is no folder of results, the format is none for what is in it, or names would go where another
            file is.
        DataError: Shards are missing or damaged.
    """
    folder, output = Path(folder), Path(output)
    manifest = read_manifest(folder)
    numbers = range(manifest["inputs"]["shards"])
    paths = [part_path(folder, number, manifest["part_suffix"]) for number in numbers]
    missing = [number for number, path in zip(numbers, paths) if not path.exists()]
    if missing:
        raise DataError(f"{folder} is not complete: {len(missing)} of {len(numbers)} shards are missing "
                        f"({_ranges(missing)}); run the same command again to get them")
    kind = output.suffix.lower()
    known = (".csv", ".jsonl", ".json", ".parquet") if manifest["part_suffix"] == ".jsonl" else (".parquet", ".npy")
    if kind not in known:
        raise ConfigError(f"{folder} holds {manifest['settings']['command']} results, which cannot be written as "
                          f"'{kind.lstrip('.') or output.name}'; known: {', '.join(known)}")
    if manifest["part_suffix"] != ".jsonl":
        _merge_features(folder, manifest, paths, output)
    elif kind == ".parquet":
        _merge_predictions_to_parquet(folder, manifest, paths, output)
    else:
        _merge_predictions(folder, manifest, paths, output, kind.lstrip("."))
    return list(read_failures(folder, numbers))


def check_names(output: str | os.PathLike[str]) -> None:
    """Refuse features in NAME.npy whose names would take the place of a NAME.json that holds something else.

    Raises:
        ConfigError: So it is.
    """
    names = Path(output).with_suffix(".json")
    if Path(output).suffix.lower() != ".npy" or not names.exists():
        return
    try:
        with open(names, "rb") as stream:
            begin = stream.read(3)
    except OSError:
        begin = b""
    if begin not in (b'[\n"', b"[\n]"):
        raise ConfigError(f"the names of the rows of {output} would go into {names}, which holds something else: take "
                          f"another --output, or remove it")


def _ranges(numbers: Sequence[int]) -> str:
    """1, 4-6, 9; the first of many."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs[:10])
    return shown + (", ..." if len(runs) > 10 else "")


def _predictions(
    folder: Path, manifest: Mapping[str, Any], number: int, path: Path
) -> Iterator[tuple[str, list[Prediction]]]:
    """Of a shard."""
    size, count = manifest["inputs"]["shard_size"], manifest["inputs"]["count"]
    expected = min(size, count - number * size) - sum(1 for _ in read_failures(folder, [number]))
    found = 0
    for item in read_jsonl(path):
        found += 1
        yield item
    with whole(path):
        if found != expected:
            raise ValueError(f"it has {found} pictures, not {expected}")


def _merge_predictions(
    folder: Path, manifest: Mapping[str, Any], paths: Sequence[Path], output: Path, kind: str
) -> None:
    with open_output(output) as stream:
        writer = WRITERS[kind](stream)
        for number, path in enumerate(paths):
            for name, predictions in _predictions(folder, manifest, number, path):
                writer.write(name, predictions)
        writer.close()


def _merge_predictions_to_parquet(
    folder: Path, manifest: Mapping[str, Any], paths: Sequence[Path], output: Path
) -> None:
    """A row for each class of each image, as in CSV."""
    arrow = require_parquet()
    schema = arrow.schema([("file", arrow.string()), ("rank", arrow.int32()), ("index", arrow.int32()),
                           ("class", arrow.string()), ("probability", arrow.float32())])
    with replacing(output, durable=True) as temporary, arrow.parquet.ParquetWriter(temporary, schema) as writer:
        for number, path in enumerate(paths):
            rows = [{"file": name.encode("utf-8", "replace").decode(), "rank": rank, "index": index, "class": label,
                     "probability": value}
                    for name, predictions in _predictions(folder, manifest, number, path)
                    for rank, (index, label, value) in enumerate(predictions, start=1)]
            writer.write_table(arrow.Table.from_pylist(rows, schema))


def _merge_features(folder: Path, manifest: dict[str, Any], paths: Sequence[Path], output: Path) -> None:
    shape, dtype = manifest["settings"]["shape"], manifest["settings"]["dtype"]
    with replacing(output, durable=True) as temporary:
        is_npy = output.suffix.lower() == ".npy"
        if is_npy:
            part = NpyPart(temporary, shape, dtype)
        else:
            part = ParquetPart(temporary, shape, dtype, {"settings": manifest["settings"]})
        for names, rows in _features(folder, manifest, paths, shape):
            part.add(names, rows)
        part.close()
        if is_npy:  # names never lie beside rows of others
            if temporary != output:
                output.unlink(missing_ok=True)
            _write_names(folder, manifest, output.with_suffix(".json"))


def _features(
    folder: Path, manifest: dict[str, Any], paths: Sequence[Path], shape: Sequence[int]
) -> Iterator[tuple[list[str], Any]]:
    if manifest["part_suffix"] == ".parquet":
        for path in paths:
            with whole(path):
                yield from read_parquet_blocks(path, shape)
        return
    names = _names(folder, manifest)
    for path in paths:
        with whole(path):
            for rows in read_npy_blocks(path):
                yield [next(names) for _ in rows], rows


def _names(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """The images that could be read."""
    bad = (failure["index"] for failure in read_failures(folder, range(manifest["inputs"]["shards"])))
    left_out = next(bad, None)
    with open(folder / "_inputs.jsonl", encoding="utf-8") as stream:
        for index, line in enumerate(stream):
            if index == left_out:
                left_out = next(bad, None)
            else:
                yield json.loads(line)


def _write_names(folder: Path, manifest: dict[str, Any], path: Path) -> None:
    with open_output(path) as stream:
        stream.write("[")
        for number, name in enumerate(_names(folder, manifest)):
            stream.write(f"{',' if number else ''}\n{json.dumps(name)}")
        stream.write("\n]\n")


def names_of(output: str | os.PathLike[str], manifest: Mapping[str, Any]) -> Iterator[str]:
    """The images that a file of features is of, in no order: those of its rows, and those that could not be read.

    Raises:
        DataError: The file, or that of the names, is damaged.
    """
    output = Path(output)
    with whole(output, "--overwrite makes it anew"):
        if output.suffix.lower() == ".npy":
            yield from json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
        else:
            for batch in require_parquet().parquet.ParquetFile(output).iter_batches(columns=["file"]):
                yield from batch.column("file").to_pylist()
    yield from (failure["file"] for failure in manifest["failures"])


def split(output: str | os.PathLike[str], folder: ResultFolder, manifest: Mapping[str, Any]) -> None:
    """Give a folder the parts of a file of features that was merged of such, but for shards that have changed.

    Args:
        output: .parquet or .npy.
        folder: Opened with that file's manifest.
        manifest: The same.

    Raises:
        DataError: The file is damaged.
    """
    output, settings = Path(output), manifest["settings"]
    shape, dtype = settings["shape"], settings["dtype"]
    blocks = ((None, rows) for rows in read_npy_blocks(output)) if output.suffix.lower() == ".npy" else \
        read_parquet_blocks(output, shape)
    rest: tuple[Any, Any] = (None, ())

    def write_part(path: Path | None, count: int) -> None:
        nonlocal rest
        kind = NpyPart if folder.suffix == ".npy" else ParquetPart
        part = kind(path, shape, dtype) if path is not None else None
        while count:
            with whole(output, "--overwrite makes it anew"):
                names, rows = rest if len(rest[1]) else next(blocks, rest)
                if not len(rows):
                    raise ValueError("it has too few rows")
            taken = min(count, len(rows))
            if part is not None:
                part.add(names[:taken] if names else [""] * taken, rows[:taken])
            rest, count = (names and names[taken:], rows[taken:]), count - taken
        if part is not None:
            part.close()

    folder.keep(write_part, manifest["failures"])
