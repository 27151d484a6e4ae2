"""`mvlib predict`: photographs to classes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.folder import full_name
from ..engines.runtime import BACKENDS
from ..errors import ConfigError
from ..inference.options import COMPILE, DECODINGS, DEFAULT_MODEL, PRECISIONS, SHEETS
from ..names import closest_path
from .argument_types import positive
from .checks import check_file, check_folder, check_model, check_new_folder
from .options import add_option, add_precision_options, group
from .output import check_output, hang_up
from .tally import Tally

if TYPE_CHECKING:
    from ..inference.folder import ResultFolder
    from ..inference.inputs import Input
    from ..inference.session import Session, Settings
    from ..inference.sheet import ContactSheet

COMMON = {
    "what to read": "INPUT --files-from",
    "model": "--model --checkpoint",
    "results": "--topk --format --output --sheet",
    "computation": "--device --precision --batch-size --workers",
}
EXAMPLES = (
    "mvlib predict photo.jpg photos/    # files, and folders with all below",
    "mvlib predict photos/ --output classes.csv",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser)
    results = group(parser, "results")
    add_option(results, "--topk", default=5)
    add_option(results, "--format", choices=("table", "json", "jsonl", "csv"),
               default_is="what the ending of --output says, else table")
    add_option(results, "--output", note="a file in the place of standard output; a folder (an existing one, or NAME/) "
                                         "takes parts, and goes on where it stopped")
    results.add_argument("--sheet", metavar="FILE", help="contact sheet of the pictures: .png, .jpg, .webp")


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """What to read, with which model, and how."""
    read = group(parser, "what to read")
    read.add_argument("inputs", nargs="*", metavar="INPUT",
                      help="image files, folders (with all below), URLs, or - for a list on standard input")
    read.add_argument("--files-from", metavar="FILE", help="a list of files, one a line")
    read.add_argument("--decode", choices=DECODINGS, default="full",
                      help="full; scaled: large JPEGs at 1/2, 1/4 or 1/8, faster and nearly the same; reference: by "
                           "PIL, to the bit what the weights were validated with; without it, torch and engines "
                           "differ by a step of 8 bits in a value of 1,000 (default: %(default)s)")
    read.add_argument("--max-download", type=positive, default=50, metavar="MB",
                      help="the largest file that is read from a URL (default: %(default)s MB)")
    read.add_argument("--allow-local-urls", action="store_true",
                      help="read URLs that lead to this machine or into a private network, too")
    model = group(parser, "model")
    add_option(model, "--model", note="or the folder of an export, or of a training run's weights, RUN/export",
               default_is=f"the checkpoint's, or {DEFAULT_MODEL}")
    add_option(model, "--checkpoint", note="a training checkpoint brings its model and classes")
    results = group(parser, "results")
    results.add_argument("--shard-size", type=positive, metavar="N",
                         help="images in a part: what a run that is stopped loses at most (default: 1024 in an output "
                              "folder, 128 on the way to a single file; of a run that has begun, its own)")
    results.add_argument("--overwrite", action="store_true",
                         help="begin anew where there are results already; else a run goes on with them")
    computation = group(parser, "computation")
    add_option(computation, "--device", default="auto", default_is="a GPU, if any")
    add_precision_options(computation, PRECISIONS, default_is="float32; of an export, its own")
    add_option(computation, "--calibrate", default_is="those that it is asked about, the first time")
    add_option(computation, "--batch-size", note="in each thread of the model", default_is="4 on a CPU, 64 on a GPU")
    add_option(computation, "--workers", type=positive, note="threads", default_is="cores")
    add_option(computation, "--backend", choices=BACKENDS, default="auto",
               default_is="auto, on a CPU OpenVINO where it is installed: an engine that is made of the model once, "
                          "and kept; see mvlib cache, and MVLIB_ENGINES=off")
    add_option(computation, "--compile", choices=COMPILE, default="auto",
               default_is="auto, where the images are many enough to pay for it")


def run(arguments: argparse.Namespace) -> int:
    from ..inference.folder import place_of_process
    from ..inference.inputs import list_inputs
    from ..inference.session import classify, open_session
    from ..inference.writers import ENDINGS, check_format

    check_shared_arguments(arguments)
    output, place = arguments.output, place_of_process()
    is_folder = output is not None and is_folder_name(output)
    if place.world > 1 and not is_folder:
        raise ConfigError(f"{place.world} processes need a folder (--output NAME/); 'mvlib merge' makes one file of it")
    if is_folder and arguments.format not in (None, "jsonl"):
        raise ConfigError(f"parts are jsonl, not {arguments.format}; 'mvlib merge' makes one file of them")
    if is_folder and arguments.sheet:
        raise ConfigError("--sheet goes with an output that is not a folder")
    if is_folder:
        check_new_folder(output, "--output")
    elif output is not None:
        check_output(output, () if arguments.format else ENDINGS, hint="; or say --format")
        if arguments.format:
            check_format(output, arguments.format)
    if arguments.sheet:
        check_output(arguments.sheet, SHEETS, "--sheet")
    files = list_inputs(arguments.inputs, arguments.files_from)
    begun = read_begun(Path(output, "_manifest.json")) if is_folder and not arguments.overwrite else None
    arguments.shard_size = shard_size_of(arguments, begun, is_folder)
    session = open_session(settings_of(arguments, begun), with_digest=is_folder)
    compute = classify(session, arguments.topk)
    status = (_fill_folder if is_folder else _write)(arguments, session, compute, files)
    finish(session, arguments)
    return status


def _write(arguments: argparse.Namespace, session: Session, compute: Any, files: Iterator[Input]) -> int:
    """Predictions to one file, or to standard output."""
    from ..inference.inputs import batched, count_inputs
    from ..inference.pipeline import Job
    from ..inference.writers import WRITERS, format_of, open_output

    kind = arguments.format or (format_of(arguments.output) if arguments.output else "table")
    failures: list[tuple[Input, str]] = []
    sheet = _open_sheet(arguments.sheet)
    if sheet is not None:
        session.fetched = sheet.keep
    tally = Tally()
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(open_output(arguments.output)) if arguments.output else sys.stdout
        bar = stack.enter_context(Progress(count_inputs(arguments.inputs, arguments.files_from), arguments))
        writer = WRITERS[kind](stream, None if arguments.output else bar.print)
        for answer in session.answers(map(Job, batched(files, session.batch_size)), compute):
            tally.add(answer)
            bar.update(len(answer.job.files))
            failures += [(answer.job.files[position], reason) for position, reason in answer.failures]
            for position, predictions in zip(answer.read, answer.output or ()):
                writer.write(answer.job.files[position], predictions)
            if sheet is not None:
                known, reasons = dict(zip(answer.read, answer.output or ())), dict(answer.failures)
                for position, path in enumerate(answer.job.files):
                    sheet.add(path, known.get(position, ()), reasons.get(position))
        writer.close()
        if sheet is not None:
            sheet.close()
    status = report_failures(failures, tally.done + tally.skipped)
    if arguments.output:
        tally.report(arguments.output)
    return status


def _open_sheet(path: str | None) -> ContactSheet | None:
    if path is None:
        return None
    from ..inference.sheet import ContactSheet

    return ContactSheet(path)


def _fill_folder(arguments: argparse.Namespace, session: Session, compute: Any, files: Iterator[Input]) -> int:
    """Predictions in parts, each done once."""
    from ..inference.fill import fill, read_again
    from ..inference.folder import ResultFolder, place_of_process
    from ..inference.parts import JsonlPart

    settings = {"command": "predict", **session.describe(), "topk": arguments.topk}
    with ResultFolder(arguments.output, settings, files, suffix=".jsonl", shard_size=arguments.shard_size,
                      place=place_of_process(), overwrite=arguments.overwrite) as folder:
        again, reasons = read_again(session, folder.own_failures())
        folder.do_again(again)
        tally = Tally.of_folder(folder)
        with saying_what_is_kept(folder, arguments.overwrite), Progress(folder.images_to_do()) as bar:
            for answer in fill(folder, session, compute, JsonlPart):
                tally.add(answer)
                bar.update(len(answer.job.files))
        status = report_failures(((item["file"], reasons.get(item["index"], item["error"]))
                                  for item in folder.failures()), folder.image_count)
    tally.report(arguments.output)
    return status


def is_folder_name(output: str) -> bool:
    """Whether an output is a folder of parts."""
    return output.endswith(("/", os.sep)) or os.path.isdir(output)


def read_begun(manifest: Path) -> Mapping[str, Any] | None:
    """The manifest of results that are there already, if they are."""
    from ..inference.folder import read_manifest_file

    return read_manifest_file(manifest) if manifest.exists() else None


def shard_size_of(arguments: argparse.Namespace, begun: Mapping[str, Any] | None, is_folder: bool) -> int:
    """Images in a part of results, which go to a folder or, in the end, to one file."""
    return arguments.shard_size or (begun["inputs"]["shard_size"] if begun else 1024 if is_folder else 128)


@contextlib.contextmanager
def saying_what_is_kept(folder: ResultFolder, overwrite: bool) -> Iterator[None]:
    """An interruption says how much of the work stays done."""
    try:
        yield
    except KeyboardInterrupt as stop:
        kept = folder.image_count - folder.images_to_do()
        without = " without --overwrite" if overwrite else ""
        stop.args = (f"{kept} of {folder.image_count} images are done, and the same command{without} goes on with the "
                     f"others",)
        raise


def settings_of(arguments: argparse.Namespace, begun: Mapping[str, Any] | None = None) -> Settings:
    """What opens the session; of results that have begun, as their manifest says."""
    from ..inference.inputs import WebRules, count_inputs, list_inputs
    from ..inference.session import Settings

    inputs, listed = arguments.inputs, arguments.files_from
    can_be_listed_anew = "-" not in inputs and (listed is None or os.path.isfile(listed))
    names = ("model", "checkpoint", "device", "precision", "force", "compile", "decode", "batch_size", "workers",
             "backend", "calibrate")
    web = WebRules(arguments.max_download * 1_000_000, arguments.allow_local_urls)
    return Settings(**{name: getattr(arguments, name) for name in names}, web=web, count=count_inputs(inputs, listed),
                    files=(lambda: list_inputs(inputs, listed)) if can_be_listed_anew else None,
                    begun=begun and begun["settings"])


def finish(session: Session, arguments: argparse.Namespace) -> None:
    """Do what can wait until the answers are delivered; whoever reads them does not wait for it."""
    sys.stdout.flush()
    if session.after is not None and arguments.is_program:
        hang_up(sys.stdout)
    session.finish()


def check_shared_arguments(arguments: argparse.Namespace) -> None:
    import warnings

    from PIL import Image

    from ..inference.folder import place_of_process
    from ..inference.inputs import Url, as_input

    if not arguments.inputs and not arguments.files_from:
        raise ConfigError("no images: name files, folders, URLs, or - for a list on standard input")
    if arguments.overwrite and place_of_process().world > 1:
        raise ConfigError("--overwrite is for one process alone: where several share a folder, remove it first")
    if "-" in arguments.inputs and place_of_process().world > 1:
        raise ConfigError("several processes cannot share standard input: put the list into a file, --files-from FILE")
    urls = {name for name in arguments.inputs if isinstance(as_input(name), Url)}
    if urls:
        from ..inference.web import check_url

        for name in urls:
            check_url(name)
    gone = [name for name in arguments.inputs if name != "-" and name not in urls and not os.path.exists(name)]
    if gone and len(gone) == len(arguments.inputs) and not arguments.files_from:  # of some, the others are done
        raise ConfigError(f"there is no file or folder {', '.join(gone[:3])}{', ...' if len(gone) > 3 else ''}"
                          f"{closest_path(gone[0])}")
    check_file(arguments.checkpoint, "--checkpoint")
    check_folder(arguments.calibrate, "--calibrate")
    if arguments.model:
        arguments.model = full_name(arguments.model)
        check_model(arguments.model, arguments.command, weights=not arguments.checkpoint)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such a file is refused with a reason


def report_failures(failures: Iterable[tuple[Input | str, str]], count: int) -> int:
    """Say which of `count` images could not be read, or got no answer, and give the exit status."""
    from ..inference.pipeline import NO_ANSWER

    unread = unanswered = 0
    for path, reason in failures:
        was_read = reason.startswith(NO_ANSWER)
        print(f"mvlib: {'' if was_read else 'not read: '}{path}: {reason}", file=sys.stderr)
        unread, unanswered = unread + (not was_read), unanswered + was_read
    if unread:
        print(f"mvlib: {unread} of {count} images could not be read", file=sys.stderr)
    if unanswered:
        print(f"mvlib: {unanswered} of {count} images got no answer", file=sys.stderr)
    return 1 if unread or unanswered else 0


class Progress:
    """A bar on a terminal, where the package tqdm is there to draw it.

    Args:
        total: Images, if that is known.
        arguments: With inputs that are counted, if it is not, while the first are at work already.
    """

    def __init__(self, total: int | None, arguments: argparse.Namespace | None = None) -> None:
        self.bar: Any = None
        self.arguments = arguments
        if sys.stderr.isatty():
            with contextlib.suppress(ImportError):
                from tqdm import tqdm

                self.bar = tqdm(total=total, unit="image")

    def __enter__(self) -> Progress:
        if self.bar is not None and self.bar.total is None and "-" not in self.arguments.inputs:
            import threading

            threading.Thread(target=self._count, daemon=True).start()
        return self

    def _count(self) -> None:
        from ..inference.inputs import list_inputs

        self.bar.total = sum(1 for _ in list_inputs(self.arguments.inputs, self.arguments.files_from))

    def update(self, count: int) -> None:
        if self.bar is not None:
            self.bar.update(count)

    def print(self, text: str) -> None:
        """A line above the bar."""
        if self.bar is None:
            print(text)
        else:
            self.bar.write(text)

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()
