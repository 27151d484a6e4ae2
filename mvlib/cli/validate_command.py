"""`mvlib validate`: accuracy and speed of models on a data set; the same as scripts/validate.py."""

from __future__ import annotations

import argparse
import os

from ..engines.folder import full_name, is_export
from ..engines.runtime import BACKENDS, require, require_backend
from ..errors import ConfigError
from ..precisions import PRECISIONS
from ..train.arguments import add_options
from .argument_types import positive
from .checks import check_data, check_file, check_folder, check_model, expand_models
from .options import add_option, group
from .output import check_output, kind_of
from .tally import Tally

SHARED = ("dataset", "dataset_download", "class_map", "input_img_mode", "input_key", "target_key", "max_bad_samples",
           "num_classes", "in_chans", "img_size", "input_size", "crop_pct", "mean", "std", "interpolation", "gp",
           "model_kwargs", "channels_last", "torchcompile", "workers", "pin_mem", "no_prefetcher", "amp", "amp_dtype",
           "force", "device")
NAFLEX = ("naflex_loader", "naflex_max_seq_len", "naflex_patchify_channels_first")


COMMON = {
    "data": "DATA --dataset --split --class-map",
    "model": "--model --checkpoint --num-classes --img-size",
    "results": "--results-file",
    "computation": "--batch-size --workers --device --amp --backend",
}
EXAMPLES = (
    "mvlib validate DATA --model tf_efficientnet_lite0.pip_in1k",
    "mvlib validate DATA --checkpoint last.pth.tar --results-file results.csv",
)


def add_source_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """What model, on what data: arguments of all commands that measure or apply one.

    Args:
        parser: The command's.
        several: Whether --model and --checkpoint may name several models.
    """
    data = group(parser, "data")
    data.add_argument("data", nargs="?", metavar="DATA", help="folder of the data set")
    add_option(data, "--data-dir", note="the same as DATA, or what --dataset needs")
    add_option(data, "--split", default="validation")
    data.add_argument("--num-samples", type=positive, metavar="N", help="samples of a streamed split")
    data.add_argument("--crop-mode", choices=("center", "squash", "border"), help="how images are cropped")
    data.add_argument("--preprocess", choices=("reference", "fast"), default="reference",
                      help="fast: images decoded and resized by torch, at most a step of 8 bits apart (default: "
                           "%(default)s)")
    model = group(parser, "model")
    more = "; several (a,b), a wildcard, or a text file of names" if several else ""
    add_option(model, "--model", default="", note=f"or the folder of an export{more}")
    add_option(model, "--checkpoint", note="a training checkpoint brings its model and classes"
                                           f"{'; or a folder of checkpoints' if several else ''}")
    add_option(model, "--pretrained", action=argparse.BooleanOptionalAction, default=True, default_is="yes")
    model.add_argument("--use-train-size", action="store_true", help="the size of training, where weights have two")
    computation = group(parser, "computation")
    add_option(computation, "--batch-size", default=256)
    add_option(computation, "--backend", choices=BACKENDS, note="auto: the fastest here",
               default_is="torch; of an export, its own")
    add_option(computation, "--precision", choices=(*PRECISIONS, "int8"), note="of an engine; of torch, see --amp",
               default_is="float32; of an export, its own")
    add_option(computation, "--calibrate", default_is="a sample of the data set's")
    add_options(parser, SHARED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, several=True)
    add_options(parser, NAFLEX)
    group(parser, "data").add_argument("--real-labels", metavar="FILE",
                                       help="JSON of the labels that count as right for each image")
    add_option(group(parser, "model"), "--valid-labels")
    group(parser, "computation").add_argument("--fold-bn", action=argparse.BooleanOptionalAction, default=True,
                                              help="fold batch norms into convolutions (default: yes)")
    results = group(parser, "results")
    add_option(results, "--results-file", note=".csv, .json or .md")
    add_option(results, "--results-format", choices=("csv", "json", "md"), default_is="what its ending says")


def run(arguments: argparse.Namespace) -> int:
    args = complete(arguments)
    for option in ("real_labels", "valid_labels"):
        check_file(getattr(args, option), f"--{option.replace('_', '-')}")
    if args.results_file:
        kind_of(args.results_file, args.results_format)
        check_output(args.results_file)
    from ..train.evaluation import evaluate, write_results
    from ..train.messages import messages_on_terminal

    tally = Tally("model")
    with messages_on_terminal():
        rows = evaluate(args)
    write_results(rows, None)
    if args.results_file:
        tally.skipped = sum("error" in row for row in rows)
        tally.done = len(rows) - tally.skipped
        tally.report(args.results_file)
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
