"""`mvlib embed`: photographs to features, in files that are gone on with when a run was stopped."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from ..precisions import canonical_precision
from .checks import check_new_folder
from .options import add_option, group
from .output import check_output
from .predict_command import (
    Progress,
    add_shared_arguments,
    check_shared_arguments,
    finish,
    is_folder_name,
    read_begun,
    report_failures,
    saying_what_is_kept,
    settings_of,
    shard_size_of,
)
from .tally import Tally

if TYPE_CHECKING:
    from ..inference.folder import ResultFolder
    from ..inference.session import Session


COMMON = {
    "what to read": "INPUT --files-from",
    "model": "--model --checkpoint",
    "results": "--output --features --level --dtype",
    "computation": "--device --precision --batch-size",
}
EXAMPLES = (
    "mvlib embed photos/ --output photos.parquet",
    "mvlib embed photos/ --output tokens.npy --features tokens",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser)
    results = group(parser, "results")
    add_option(results, "--output", required=True,
               note="NAME.parquet; NAME.npy, and names in NAME.json; a folder (NAME/) for parts")
    add_option(results, "--features", choices=("pooled", "tokens"),
               note="tokens, those before pooling", default_is="pooled; of an export, its own")
    add_option(results, "--level")
    results.add_argument("--dtype", type=canonical_precision, choices=("float32", "float16"), default="float32",
                         help="numbers in the file (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    from ..inference.fill import read_again
    from ..inference.folder import ResultFolder, place_of_process
    from ..inference.inputs import list_inputs
    from ..inference.merge import check_names, names_of, split
    from ..inference.parts import require_parquet
    from ..inference.session import embed, open_session

    check_shared_arguments(arguments)
    output, place = Path(arguments.output), place_of_process()
    is_folder = is_folder_name(arguments.output)
    kind = "folder" if is_folder else output.suffix.lower()
    if kind not in ("folder", ".parquet", ".npy"):
        raise ConfigError(f"{output} is no place for features: name a .parquet or .npy file, or a folder ({output}/)")
    if place.world > 1 and not is_folder:
        raise ConfigError(f"{place.world} processes need a folder (--output {output.with_suffix('')}/); "
                          f"'mvlib merge' makes one file of it")
    if is_folder:
        check_new_folder(output, "--output")
    else:
        check_output(output)
        if not arguments.overwrite:
            check_names(output)
    suffix = ".npy" if kind == ".npy" else ".parquet"
    if suffix == ".parquet":
        require_parquet()
    files = list_inputs(arguments.inputs, arguments.files_from)
    parts = output if is_folder else output.with_name(f"{output.name}.parts")
    finished = None if is_folder or arguments.overwrite else _read_finished(output)
    begun = None if arguments.overwrite else finished or read_begun(parts / "_manifest.json")
    if arguments.level and arguments.features:
        raise ConfigError("--features and --level are two choices: give one of them")
    session = open_session(settings_of(arguments, begun), arguments.level or arguments.features or "auto",
                           with_digest=True)
    compute = embed(session, arguments.dtype)
    shape = list(session.try_out(session).shape[1:])
    settings = {"command": "embed", **session.describe(), "features": session.features, "shape": shape,
                "dtype": arguments.dtype}
    shard_size = finished["inputs"]["shard_size"] if finished else shard_size_of(arguments, begun, is_folder)
    with ResultFolder(parts, settings, files, suffix=suffix, shard_size=shard_size, place=place, output=output,
                      overwrite=arguments.overwrite, finished=finished,
                      names=partial(names_of, output, finished) if finished else None) as folder:
        if arguments.overwrite and not is_folder:
            _manifest_of(output).unlink(missing_ok=True)
        again, reasons = read_again(session, finished["failures"] if finished else folder.own_failures())
        if finished is not None and not folder.changed and not again:
            tally, failures = Tally(before=folder.image_count, left=0), finished["failures"]
            shutil.rmtree(parts)
            _tidy(output)
        else:
            if finished is not None:
                try:
                    split(output, folder, finished)
                except DataError:
                    shutil.rmtree(parts)
                    raise
                _manifest_of(output).unlink()
            folder.do_again(again)
            with saying_what_is_kept(folder, arguments.overwrite):
                tally = _fill(folder, session, compute, shape, arguments.dtype)
            failures = folder.failures()
            if not is_folder:
                _finish(folder, output, len(failures))
        count = folder.image_count
    status = report_failures(
        ((failure["file"], reasons.get(failure["index"], failure["error"])) for failure in failures), count)
    if is_folder or output.exists():
        tally.report(arguments.output)
    else:
        print(f"mvlib: {output} is not written: there is nothing to go into it", file=sys.stderr)
    finish(session, arguments)
    return status


def _fill(folder: ResultFolder, session: Session, compute: Any, shape: Sequence[int], dtype: str) -> Tally:
    from ..inference.fill import fill
    from ..inference.parts import NpyPart, ParquetPart

    part_type = NpyPart if folder.suffix == ".npy" else ParquetPart
    tally = Tally.of_folder(folder)
    with Progress(folder.images_to_do()) as bar:
        for answer in fill(folder, session, compute, lambda path: part_type(path, shape, dtype)):
            tally.add(answer)
            bar.update(len(answer.job.files))
    return tally


def _manifest_of(output: Path) -> Path:
    """Where it stands how a finished file was made, and what is not in it."""
    return output.with_name(f"{output.name}.manifest.json")


def _read_finished(output: Path) -> dict[str, Any] | None:
    """The manifest of a file that is finished."""
    from ..inference.folder import read_manifest_file

    path = _manifest_of(output)
    return read_manifest_file(path) if output.exists() and path.exists() else None


def _tidy(output: Path) -> None:
    """Remove what killed processes have left beside a file."""
    from ..inference.folder import remove_temporaries

    for path in (output, output.with_suffix(".json"), _manifest_of(output)):
        remove_temporaries(path)


def _finish(folder: ResultFolder, output: Path, failures: int) -> None:
    """One file of all parts, how it was made, and no parts: in this order, for the process may be killed. No file where
    nothing could be read."""
    from ..inference.folder import write_json
    from ..inference.merge import merge

    _tidy(output)
    if failures == folder.image_count:
        if output.exists() and output.suffix.lower() == ".npy":
            output.with_suffix(".json").unlink(missing_ok=True)
        output.unlink(missing_ok=True)
    else:
        write_json(_manifest_of(output), {**folder.manifest, "failures": merge(folder.path, output)})
    shutil.rmtree(folder.path)
