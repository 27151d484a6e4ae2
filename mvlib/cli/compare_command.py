"""`mvlib compare`: which model? Error, time and size side by side, as a table, a chart, a page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..compare import COLUMNS, Candidate, compare_models
from ..engines.folder import is_export
from ..engines.runtime import BACKENDS, require_backend
from ..errors import ConfigError
from ..precisions import PRECISIONS
from .benchmark_command import add_results_arguments, check_results_file, results_text, say_disturbed, write_results
from .checks import check_file, check_folder
from .options import add_option, add_precision_options, group
from .output import check_output, write_text

_HEADINGS = {"top1_err": "top-1 err", "top5_err": "top-5 err", "cpu_ms": "CPU ms", "gpu_ms": "GPU ms",
             "size_mib": "MiB", "params": "M params", "gmacs": "GMACs", "img_size": "px"}


COMMON = {
    "what to compare": "MODEL --data --split",
    "times": "--batch-size --img-size --precision --mode --backend --seconds",
    "results": "--sort --plot --html --format --results-file",
}
EXAMPLES = (
    "mvlib compare resnet18 mobilenet_v3_large --plot bubble.png",
    "mvlib compare tf_efficientnet_lite0.pip_in1k --data DATA  # its own errors",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = group(parser, "what to compare")
    what.add_argument("models", nargs="+", metavar="MODEL",
                      help="names, with tags or without (the default weights), wildcards (a dot means tags), folders "
                           "of exports")
    what.add_argument("--data", metavar="FOLDER",
                      help="measure errors on this data set, as `mvlib validate` does, not the published ones")
    add_option(what, "--split", default="validation")
    add_option(what, "--class-map")
    add_option(what, "--valid-labels")
    add_option(what, "--workers", note="processes")
    times = group(parser, "times")
    add_option(times, "--batch-size", default=1)
    add_option(times, "--img-size", default_is="the model's")
    add_precision_options(times, PRECISIONS, default="float32")
    add_option(times, "--mode", default="eager", note="with the backend torch")
    add_option(times, "--backend", choices=BACKENDS, default="torch", note="on the CPU; exports have their own")
    add_option(times, "--threads", default_is="torch's choice")
    add_option(times, "--seconds", default=2.0, note="on each device")
    results = group(parser, "results")
    add_option(results, "--sort", choices=COLUMNS[:-2], default="top1_err", metavar="COLUMN")
    add_option(results, "--plot", note="bubbles: .png, .svg or .pdf")
    results.add_argument("--plot-time", choices=("cpu", "gpu"), default="cpu",
                         help="time in the chart (default: %(default)s)")
    results.add_argument("--html", metavar="FILE", help="write a page with a sortable table and the chart")
    add_results_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..data.readers.class_map import load_class_map
    from ..registry import match_models

    results = check_results_file(arguments.results_file)
    for path in (arguments.plot, arguments.html):
        if path is not None:
            check_output(path)
    if arguments.plot is not None:
        from ..charts import check_picture

        check_picture(arguments.plot)
    check_folder(arguments.data, "--data")
    check_file(arguments.valid_labels, "--valid-labels")
    load_class_map(arguments.class_map, arguments.data or "")
    names = match_models(arguments.models, pretrained=True, what="compare")
    require_backend(arguments.backend)

    import torch

    from ..benchmark import describe_machine, machine_line

    time = f"{arguments.plot_time}_ms"
    if arguments.plot_time == "gpu" and not torch.cuda.is_available():
        raise ConfigError("--plot-time gpu needs a GPU, and torch finds none")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    measure = _measure_on(arguments) if arguments.data else None
    machine = describe_machine()
    print(machine_line(machine), file=sys.stderr)
    candidates = compare_models(
        names, batch_size=arguments.batch_size, img_size=arguments.img_size, precision=arguments.precision,
        backend=arguments.backend, mode=arguments.mode, seconds=arguments.seconds, force=arguments.force,
        measure=measure, sort=arguments.sort, on_progress=lambda line: print(line, file=sys.stderr, flush=True))
    if arguments.plot_time != "cpu":
        from ..compare import pareto_front

        pareto_front(candidates, time)
    rows = [candidate.as_row() for candidate in candidates]
    caption = _caption(arguments, machine_line(machine), any(candidate.disturbed for candidate in candidates))
    if arguments.plot is not None:
        from ..charts import draw_bubbles

        draw_bubbles(candidates, arguments.plot, time=time, caption=caption)
    if arguments.html is not None:
        from ..report import render_report

        page = render_report(candidates, time=time, caption=caption, sort=arguments.sort)
        write_text(Path(arguments.html), page)
    if results is not None:
        write_results(rows, COLUMNS, results, machine)
    if arguments.format == "table":
        print(_table(candidates, caption), end="")
    else:
        print(results_text(rows, COLUMNS, arguments.format, machine), end="")
    say_disturbed([c.model for c in candidates if c.disturbed], len(candidates))
    return 0


def _table(candidates: list[Candidate], caption: str) -> str:
    """For people: times with their spread, and what is missing below."""
    from .output import format_table

    fields = ["model", *(field for field in _HEADINGS if any(getattr(c, field) is not None for c in candidates))]
    rows = [[c.model, *(_number(getattr(c, field), field, c.disturbed) for field in fields[1:]),
             "*" if c.pareto else ""] for c in candidates]
    notes = [f"{c.model}: {c.note}\n" for c in candidates if c.note]
    table = format_table(rows, ["model", *(_HEADINGS[field] for field in fields[1:]), "front"])
    return f"{table}\n\n{''.join(notes)}{caption}\nfront: no other model is both more accurate and faster\n"


def _number(value: float | None, field: str, disturbed: bool) -> str | None:
    if value is None:
        return None
    if field == "img_size":
        return str(value)
    return f"{'~' if disturbed and field.endswith('_ms') else ''}{value:.{1 if field == 'size_mib' else 2}f}"


def _caption(arguments: argparse.Namespace, machine: str, disturbed: bool) -> str:
    errors = f"measured on {Path(arguments.data).name}" if arguments.data else "published, ImageNet-1K"
    batch = f"batches of {arguments.batch_size}" if arguments.batch_size > 1 else "one image at a time"
    size = f"; times at {arguments.img_size} px" if arguments.img_size else ""
    busy = "\n~, hollow: the machine was busy, the time is too long; the front is not certain." if disturbed else ""
    by = arguments.mode if arguments.backend == "torch" else arguments.backend
    by = "" if by == "eager" else f", {by}"
    what = f"Errors: {errors}. Times: median, {batch}, {arguments.precision}{by}{size}. Sizes: weights file."
    return f"{machine}\n{what}{busy}"


def _measure_on(arguments: argparse.Namespace) -> Callable[[str], Mapping[str, float]]:
    """Measures a model's errors with what is behind `mvlib validate`."""
    from . import validate_command

    parser = argparse.ArgumentParser()
    validate_command.add_arguments(parser)
    words = [arguments.data, "--split", arguments.split, "--batch-size", "32"]
    for flag in ("class_map", "valid_labels", "img_size", "workers"):
        if getattr(arguments, flag) is not None:
            words += [f"--{flag.replace('_', '-')}", str(getattr(arguments, flag))]

    def measure(name: str) -> dict[str, Any]:
        from ..train.evaluation import evaluate

        own = [] if is_export(name) or arguments.backend == "torch" else ["--backend", arguments.backend]
        return evaluate(validate_command.complete(parser.parse_args([*words, *own, "--model", name])))[0]

    return measure
