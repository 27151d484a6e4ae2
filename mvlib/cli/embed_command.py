"""`mvlib embed`: photographs to features, in files that are gone on with when a run was stopped."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
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
    settings_of,
)
from .tally import Tally

if TYPE_CHECKING:
    from ..inference.folder import ResultFolder
    from ..inference.inputs import Input


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
    from ..inference.fill import fill
    from ..inference.folder import ResultFolder, place_of_process
    from ..inference.inputs import list_inputs
    from ..inference.parts import NpyPart, ParquetPart, require_parquet
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
    suffix = ".npy" if kind == ".npy" else ".parquet"
    if suffix == ".parquet":
        require_parquet()
    files = list_inputs(arguments.inputs, arguments.files_from)
    parts = output if is_folder else output.with_name(f"{output.name}.parts")
    finished = [_manifest_of(output)] if not is_folder and output.exists() else []
    begun = read_begun(*finished, parts / "_manifest.json")
    session = open_session(settings_of(arguments, begun), arguments.level or arguments.features or "auto",
                           with_digest=True)
    compute = embed(session, arguments.dtype)
    shape = list(session.try_out(compute).shape[1:])
    settings = {"command": "embed", **session.describe(), "features": session.features, "shape": shape,
                "dtype": arguments.dtype}
    if not is_folder and output.exists() and _manifest_of(output).exists():
        return _refuse_or_report(output, settings, files)
    with ResultFolder(parts, settings, files, suffix=suffix, shard_size=arguments.shard_size, place=place) as folder:
        with Progress(folder.images_to_do()) as bar:
            tally = Tally.of_folder(folder)
            part_type = NpyPart if suffix == ".npy" else ParquetPart
            for answer in fill(folder, session, compute, lambda path: part_type(path, shape, arguments.dtype)):
                tally.add(answer)
                bar.update(len(answer.job.files))
        failures, count = folder.failures(), folder.image_count
        if not is_folder:
            _finish(folder, output)
    status = report_failures(((failure["file"], failure["error"]) for failure in failures), count)
    tally.report(arguments.output)
    finish(session, arguments)
    return status


def _manifest_of(output: Path) -> Path:
    """Where it stands how a finished file was made, and what is not in it."""
    return output.with_name(f"{output.name}.manifest.json")


def _refuse_or_report(output: Path, settings: dict[str, Any], files: Iterator[Input]) -> int:
    """A file that is finished is not made again, nor overwritten by another."""
    from ..inference.folder import list_to, read_manifest_file, refuse_differences

    manifest = read_manifest_file(_manifest_of(output))
    now = list_to(None, files, manifest["inputs"]["shard_size"])[0]
    refuse_differences(output, manifest, {"settings": settings, "inputs": now})
    shutil.rmtree(f"{output}.parts", ignore_errors=True)  # of a process that was killed at the very end
    _tidy(output)
    status = report_failures(((failure["file"], failure["error"]) for failure in manifest["failures"]),
                             manifest["inputs"]["count"])
    Tally(before=manifest["inputs"]["count"], left=0).report(output)
    return status


def _tidy(output: Path) -> None:
    """Remove what killed processes have left beside a file."""
    from ..inference.folder import remove_temporaries

    for path in (output, output.with_suffix(".json"), _manifest_of(output)):
        remove_temporaries(path)


def _finish(folder: ResultFolder, output: Path) -> None:
    """One file of all parts, how it was made, and no parts: in this order, for the process may be killed."""
    from ..inference.folder import write_json
    from ..inference.merge import merge

    _tidy(output)
    failures = merge(folder.path, output)
    write_json(_manifest_of(output), {**folder.manifest, "failures": failures})
    shutil.rmtree(folder.path)
