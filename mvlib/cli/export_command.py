"""`mvlib export`: a model as a folder that other libraries run, without torch."""

from __future__ import annotations

import argparse
import sys

from ..engines.folder import FORMATS, PRECISIONS, check_place, full_name, refuse_export
from ..engines.runtime import require_for_export
from ..errors import ConfigError, ExportError
from ..precisions import canonical_precision
from .argument_types import Number, positive, seed, share
from .checks import check_file, check_folder, check_model, check_new_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL",
                        help="name of a model, or the folder of one (RUN/export); may be left out beside the "
                             "--checkpoint of a training run, which says its own")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument("--format", choices=tuple(FORMATS), default="openvino",
                        help="openvino: for CPUs, and the one that int8 is made in; onnx: for ONNX Runtime and many "
                             "other programs; torch-export, torchscript: for programs that have torch; aotinductor: "
                             "machine code for this kind of CPU or GPU (default: %(default)s)")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights to load instead of the published ones")
    parser.add_argument("--img-size", type=positive, metavar="N", help="height and width instead of the weights' own")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="the only size of batches; any unless given")
    parser.add_argument("--dynamic-size", action="store_true", help="take images of any size, if the model can")
    parser.add_argument("--features", choices=("pooled", "tokens", "maps"),
                        help="in the place of classes: pooled, one vector an image, what the classifier reads; tokens, "
                             "the final features before pooling; maps, those of several levels")
    parser.add_argument("--level", metavar="N|MODULE", help="the features of a level of the model instead")
    parser.add_argument("--out-indices", type=Number(int, most=2**31 - 1), nargs="+", metavar="N",
                        help="levels of the maps")
    parser.add_argument("--precision", type=canonical_precision, choices=PRECISIONS, default="float32",
                        help="numbers that the engine computes with (default: %(default)s)")
    parser.add_argument("--calibrate", metavar="FOLDER", help="pictures like those to come, 16 or more, for int8")
    parser.add_argument("--calibrate-count", type=positive, default=100, metavar="N",
                        help="how many of them are drawn (default: %(default)s)")
    parser.add_argument("--quantize-exclude", action="append", default=[], metavar="NAME",
                        help="a module (blocks.0) or a type of operations (MatMul) that stays float32; may be given "
                             "again")
    parser.add_argument("--labels", metavar="FOLDER",
                        help="pictures in one folder a class, for the accuracy before and after int8")
    parser.add_argument("--least-agreement", type=share, default=0.97, metavar="SHARE",
                        help="of pictures whose likeliest class int8 has to keep (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of what is drawn (default: %(default)s)")
    parser.add_argument("--device", default="cpu",
                        help="what --format aotinductor compiles for: cpu or cuda, of the kind that is here "
                             "(default: %(default)s)")
    parser.add_argument("--force", action="store_true",
                        help="replace an export that is there, and write one that differs from the model too much")


def run(arguments: argparse.Namespace) -> int:
    if arguments.level and arguments.features:
        raise ConfigError("--features and --level are two choices: give one of them")
    if arguments.out_indices and (arguments.level or arguments.features not in (None, "maps")):
        raise ConfigError("--out-indices goes with --features maps")
    check_folder(arguments.calibrate, "--calibrate")
    check_folder(arguments.labels, "--labels")
    if arguments.precision != "int8" and (arguments.calibrate or arguments.labels or arguments.quantize_exclude):
        raise ConfigError("--calibrate, --labels and --quantize-exclude go with --precision int8")
    if arguments.precision == "int8" and not arguments.calibrate:
        raise ConfigError("int8 is calibrated on pictures like those that the model will see: --calibrate FOLDER")
    if arguments.device != "cpu" and arguments.format != "aotinductor":
        raise ConfigError("--device goes with --format aotinductor: the other formats are for any device that their "
                          "library runs on")
    check_file(arguments.checkpoint, "--checkpoint")
    if not arguments.model and not arguments.checkpoint:
        raise ConfigError("name the MODEL, or a training run's --checkpoint, which says its own")
    if arguments.model:
        refuse_export(arguments.model)
        check_model(full_name(arguments.model), "export", weights=not arguments.checkpoint)
    check_new_folder(arguments.output, "--output")
    check_place(arguments.output, replace=arguments.force)
    require_for_export(arguments.format)
    from ..engines.exporter import export

    model = arguments.model or _model_of(arguments.checkpoint)
    names = ("format", "precision", "checkpoint", "img_size", "batch_size", "dynamic_size", "out_indices", "calibrate",
             "calibrate_count", "quantize_exclude", "labels", "least_agreement", "seed", "device", "force")
    try:
        report = export(model, arguments.output, features=arguments.level or arguments.features,
                        **{name: getattr(arguments, name) for name in names})
    except ExportError as error:
        print(f"mvlib: {error}", file=sys.stderr)
        return 1
    print(report)
    return 0


def _model_of(checkpoint: str) -> str:
    """What a training checkpoint says that it is of.

    Raises:
        ConfigError: Nothing.
    """
    from ..loading import read_training_facts

    model = read_training_facts(checkpoint).get("arch")
    if not model:
        raise ConfigError(f"{checkpoint} does not say what model it is of: name the MODEL, too")
    return model
