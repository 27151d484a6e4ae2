"""`mvlib benchmark`: time and memory of models, in inference and training."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.runtime import BACKENDS, require_backend
from ..precisions import PRECISIONS
from .options import add_option, add_precision_options, group
from .output import check_output, kind_of, render, write_text

if TYPE_CHECKING:
    from ..benchmark import Measurement

COLUMNS = ("model", "task", "mode", "backend", "precision", "device", "batch_size", "img_size", "params", "latency_ms",
           "latency_iqr_ms", "images_per_second", "peak_memory_mib", "steps", "disturbed", "disturbance",
           "setup_seconds", "error")
# Of the table for people; files have all columns.
_HEADINGS = {"model": "model", "task": "task", "mode": "mode", "backend": "backend", "precision": "precision",
             "batch_size": "batch", "img_size": "px", "latency_ms": "ms", "latency_iqr_ms": "IQR ms",
             "images_per_second": "images/s", "peak_memory_mib": "peak MiB", "steps": "steps", "disturbed": "disturbed",
             "error": "error"}
_TASKS = {"both": ("inference", "training"), "inference": ("inference",), "training": ("training",)}


COMMON = {
    "what to measure": "MODEL --bench --mode --backend --precision --batch-size --img-size",
    "how": "--device --threads --seconds",
    "results": "--format --results-file",
}
EXAMPLES = (
    "mvlib benchmark resnet50 efficientnet_b0 --bench inference",
    "mvlib benchmark resnet18 --mode eager --mode optimized --seconds 5",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = group(parser, "what to measure")
    what.add_argument("models", nargs="+", metavar="MODEL", help="names, wildcards ('vit_tiny*'), folders of exports")
    what.add_argument("--bench", choices=tuple(_TASKS), default="both",
                      help="training is forward, backward and an SGD step (default: %(default)s)")
    add_option(what, "--mode", action="append", note="repeatable", default_is="eager")
    add_option(what, "--backend", action="append", choices=BACKENDS, note="in inference; repeatable",
               default_is="torch, whose --mode counts")
    add_precision_options(what, PRECISIONS, note="repeatable", action="append")
    add_option(what, "--batch-size", default=32, note="inference is measured with 1, too")
    add_option(what, "--img-size", default_is="the model's")
    how = group(parser, "how")
    add_option(how, "--channels-last", action="store_true")
    add_option(how, "--device", default_is="a GPU, if any")
    add_option(how, "--threads", default_is="torch's choice")
    add_option(how, "--seconds", default=20.0, note="all configurations together")
    add_results_arguments(parser)


def add_results_arguments(parser: argparse.ArgumentParser) -> None:
    results = group(parser, "results")
    add_option(results, "--format", choices=("table", "csv", "json", "markdown"), default="table")
    add_option(results, "--results-file", note=".csv, .json or .md")


def run(arguments: argparse.Namespace) -> int:
    from ..registry import match_models

    path = check_results_file(arguments.results_file)
    names = match_models(arguments.models, what="benchmark")
    for backend in arguments.backend or ():
        require_backend(backend)

    import torch

    from ..benchmark import benchmark_models, describe_machine

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    machine = describe_machine(arguments.device)
    rows: list[dict[str, Any]] = []

    def keep(results: list[Measurement]) -> None:
        for result in results:
            rows.append(asdict(result))
            print(f"[{len({row['model'] for row in rows})}/{len(names)}] {result}", file=sys.stderr, flush=True)
        if path is not None:
            write_results(rows, COLUMNS, path, machine)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    benchmark_models(
        names, tasks=_TASKS[arguments.bench], modes=unique(arguments.mode, "eager"),
        backends=unique(arguments.backend, "torch"),
        precisions=unique(arguments.precision, "float32"), batch_sizes=(1, arguments.batch_size),
        img_size=arguments.img_size, device=arguments.device, channels_last=arguments.channels_last,
        force=arguments.force, seconds=arguments.seconds, on_model=keep, on_progress=tell)
    if arguments.format == "table":
        several = any(row["backend"] != "torch" for row in rows)
        shown = [{heading: row[field] for field, heading in _HEADINGS.items()} |
                 {"backend": row["backend"] if several else None} |
                 {"disturbed": f"{row['disturbance']:.1f}x" if row["disturbed"] else None} for row in rows]
        print(results_text(shown, tuple(_HEADINGS.values()), "table", machine), end="")
    else:
        print(results_text(rows, COLUMNS, arguments.format, machine), end="")
    say_disturbed([row["model"] for row in rows if row["disturbed"]], len(rows))
    return 1 if any(row["error"] for row in rows) else 0


def say_disturbed(names: list[str], count: int) -> None:
    """A line on standard error on those of `count` measurements that are not to be trusted, if there are any."""
    if names:
        print(f"mvlib: {len(names)} of {count} measurements were disturbed by what else the machine does, and are too "
              f"long: {', '.join(dict.fromkeys(names))}. Measure again when it is idle, or with more --seconds",
              file=sys.stderr)


def unique(values: list[str] | None, default: str) -> list[str]:
    return list(dict.fromkeys(values or [default]))


def check_results_file(path: str | None) -> Path | None:
    """The results file, refused now if it could not be written later."""
    if path is None:
        return None
    kind_of(path)
    check_output(path)
    return Path(path)


def write_results(rows: list[dict[str, Any]], columns: tuple[str, ...], path: Path, machine: dict[str, Any]) -> None:
    write_text(path, results_text(rows, columns, kind_of(path), machine))


def results_text(rows: list[dict[str, Any]], columns: tuple[str, ...], kind: str, machine: dict[str, Any]) -> str:
    """Rows in a format, with the machine: in JSON as an object, in CSV as a column, else as a line above."""
    from ..benchmark import machine_line

    line = machine_line(machine)
    kind = {"markdown": "md"}.get(kind, kind)
    if kind == "csv":
        return render([{**row, "machine": line} for row in rows], (*columns, "machine"), kind)
    text = render(rows, columns, kind, about={"machine": machine})
    return text if kind == "json" else f"{line}\n\n{text}"
