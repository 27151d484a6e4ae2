"""`mvlib validate`: accuracy and speed of models on a data set; the same as scripts/validate.py."""

from __future__ import annotations

import argparse
import os

from ..engines.folder import full_name, is_export
from ..engines.runtime import BACKENDS, require, require_backend
from ..errors import ConfigError
from ..precisions import PRECISIONS, canonical_precision
from ..train.arguments import add_options
from .argument_types import positive
from .checks import check_data, check_file, check_folder, check_model, expand_models
from .output import check_output, kind_of

SHARED = ("dataset", "dataset_download", "class_map", "input_img_mode", "input_key", "target_key", "max_bad_samples",
           "num_classes", "in_chans", "img_size", "input_size", "crop_pct", "mean", "std", "interpolation", "gp",
           "model_kwargs", "channels_last", "torchcompile", "workers", "pin_mem", "no_prefetcher", "amp", "amp_dtype",
           "force", "device")
NAFLEX = ("naflex_loader", "naflex_max_seq_len", "naflex_patchify_channels_first")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """What model, on what data: arguments of all commands that measure or apply one."""
    parser.add_argument("data", nargs="?", metavar="DATA", help="folder of the data set")
    parser.add_argument("--data-dir", metavar="DIR", help="the same")
    parser.add_argument("--split", default="validation", help="split of the data set (default: %(default)s)")
    parser.add_argument("--num-samples", type=positive, metavar="N", help="samples of a streamed split")
    parser.add_argument("--model", "-m", default="", metavar="NAME",
                        help="a model, or the folder of an export; `validate`: several (a,b), a wildcard, or a text "
                             "file of names")
    parser.add_argument("--pretrained", action=argparse.BooleanOptionalAction, default=True,
                        help="load published weights (default)")
    parser.add_argument("--checkpoint", metavar="PATH", help="weights file; `validate`: or a folder of them")
    parser.add_argument("--batch-size", "-b", type=positive, default=256, metavar="N",
                        help="images at once (%(default)s)")
    parser.add_argument("--crop-mode", choices=("center", "squash", "border"), help="how images are cropped")
    parser.add_argument("--use-train-size", action="store_true", help="the size of training, where weights have two")
    parser.add_argument("--preprocess", choices=("reference", "fast"), default="reference",
                        help="fast: images decoded and resized by torch, at most a step of 8 bits apart (%(default)s)")
    parser.add_argument("--backend", choices=BACKENDS,
                        help="what runs the model; auto: the fastest here (default: torch; of an export, its own)")
    parser.add_argument("--precision", type=canonical_precision, choices=(*PRECISIONS, "int8"),
                        help="what an engine computes in (default: float32; of an export, its own)")
    parser.add_argument("--calibrate", metavar="FOLDER",
                        help="pictures that --precision int8 is calibrated on (default: a sample of the data set's)")
    add_options(parser, SHARED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    add_options(parser, NAFLEX)
    parser.add_argument("--real-labels", metavar="FILE", help="JSON of the labels that count as right for each image")
    parser.add_argument("--valid-labels", metavar="FILE",
                        help="the model's outputs that count, one number a line, in the order of the data set's labels")
    parser.add_argument("--fold-bn", action=argparse.BooleanOptionalAction, default=True,
                        help="fold batch norms into convolutions (default)")
    parser.add_argument("--results-file", metavar="FILE", help="where results go: .csv, .json or .md")
    parser.add_argument("--results-format", choices=("csv", "json", "md"), help="their format, whatever the ending")


def run(arguments: argparse.Namespace) -> int:
    args = complete(arguments)
    for option in ("real_labels", "valid_labels"):
        check_file(getattr(args, option), f"--{option.replace('_', '-')}")
    if args.results_file:
        kind_of(args.results_file, args.results_format)
        check_output(args.results_file)
    from ..train.evaluation import evaluate, write_results
    from ..train.messages import messages_on_terminal

    with messages_on_terminal():
        rows = evaluate(args)
    write_results(rows, None)
    return 1 if any("error" in row for row in rows) else 0


def complete(arguments: argparse.Namespace, several: bool = True) -> argparse.Namespace:
    """The arguments with the defaults of those that are shared with training, checked.

    Args:
        arguments: As they were parsed.
        several: Whether --model and --checkpoint may name several models.
    """
    from ..train.arguments import DIALECTS

    args = argparse.Namespace(**{**{name: DIALECTS["timm"][name] for name in (*SHARED, *NAFLEX)}, **vars(arguments)})
    if args.data and args.data_dir and args.data != args.data_dir:
        raise ConfigError(f"the data set is {args.data}, and by --data-dir {args.data_dir}: give one of them")
    args.data_dir = args.data or args.data_dir
    if not args.data_dir and not args.dataset:
        raise ConfigError("no data set: give its folder, or --dataset")
    if not args.model and not args.checkpoint:
        raise ConfigError("no model: --model names one, or --checkpoint a file that says of which it is")
    check_data(args)
    _check_engine(args)
    if not several or not args.checkpoint or not os.path.isdir(args.checkpoint):
        check_file(args.checkpoint, "--checkpoint")
    models = expand_models(args.model, args.checkpoint, args.pretrained) if several else [(args.model, args.checkpoint)]
    if len(models) == 1 and models[0][0]:  # of several, one that cannot be had has its error in the results
        what = getattr(args, "command", None) or "validate"
        check_model(models[0][0], what, weights=args.pretrained and not args.checkpoint)
    return args


def _check_engine(args: argparse.Namespace) -> None:
    """Refuse options of engines without one, and engines whose packages are missing."""
    if args.naflex_loader and (args.backend not in (None, "torch") or is_export(args.model)):
        raise ConfigError("--naflex-loader gives patches, which torch alone takes: not --backend, and no export")
    args.model = full_name(args.model)
    check_folder(args.calibrate, "--calibrate")
    exported = is_export(args.model)
    if args.precision and args.backend in (None, "torch") and not exported:
        other = "" if args.precision == "int8" else f", or with torch --amp --amp-dtype {args.precision}"
        raise ConfigError(f"--precision {args.precision} is computed by engines: give --backend openvino{other}")
    if args.calibrate and (args.precision != "int8" or exported):
        raise ConfigError("--calibrate goes with --precision int8 of a model that is no export yet")
    if args.precision == "int8" and not exported:
        require("nncf")
    require_backend(args.backend)
