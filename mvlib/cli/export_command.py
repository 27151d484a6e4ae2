"""`mvlib export`: a model as a folder that other libraries run, without torch."""

from __future__ import annotations

import argparse
import sys

from ..engines.folder import FORMATS, PRECISIONS, check_place, format_of_place, full_name, refuse_export
from ..engines.runtime import require_for_export
from ..errors import ConfigError, ExportError
from .argument_types import Number, positive, share
from .checks import check_file, check_folder, check_model, check_new_folder
from .options import add_option, group

COMMON = {
    "model": "MODEL --checkpoint --img-size",
    "export": "--output --format --features --batch-size",
    "int8": "--precision --calibrate --labels",
}
EXAMPLES = (
    "mvlib export tf_efficientnet_lite0.pip_in1k --output lite0.ov/",
    "mvlib export tf_efficientnet_lite0.pip_in1k --output lite0.onnx/",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    model = group(parser, "model")
    model.add_argument("model", nargs="?", metavar="MODEL",
                       help="name of the model, or the folder of one (RUN/export); not needed beside a "
                            "training run's --checkpoint")
    add_option(model, "--checkpoint", note="a training checkpoint brings its model and classes")
    add_option(model, "--img-size", default_is="the model's")
    out = group(parser, "export")
    add_option(out, "--output", required=True, note="a folder to write")
    add_option(out, "--format", choices=tuple(FORMATS),
               default_is="by --output's ending, else openvino",
               note="openvino: for CPUs, int8; onnx: for many programs; torch-export, torchscript: for those with "
                    "torch; aotinductor: for this machine")
    add_option(out, "--batch-size", note="the engine takes no other", default_is="any")
    out.add_argument("--dynamic-size", action="store_true", help="take images of any size, if the model can")
    add_option(out, "--features", choices=("pooled", "tokens", "maps"), default_is="classes",
               note="tokens, those before pooling; maps, those of several levels")
    add_option(out, "--level")
    out.add_argument("--out-indices", type=Number(int, most=2**31 - 1), nargs="+", metavar="N",
                     help="levels of the maps")
    add_option(out, "--device", default="cpu", note="of --format aotinductor: cpu or cuda, of the kind that is here")
    out.add_argument("--force", action="store_true",
                     help="replace an export that is there, and write one that differs from the model too much")
    int8 = group(parser, "int8")
    add_option(int8, "--precision", choices=PRECISIONS, default="float32")
    add_option(int8, "--calibrate", note="16 or more")
    int8.add_argument("--calibrate-count", type=positive, default=100, metavar="N",
                      help="how many of them are drawn (default: %(default)s)")
    int8.add_argument("--quantize-exclude", action="append", default=[], metavar="NAME",
                      help="a module (blocks.0) or a type of operations (MatMul) that stays float32; may be given "
                           "again")
    int8.add_argument("--labels", metavar="FOLDER",
                      help="pictures in one folder a class, for the accuracy before and after int8")
    int8.add_argument("--least-agreement", type=share, default=0.97, metavar="SHARE",
                      help="of pictures whose likeliest class int8 has to keep (default: %(default)s)")
    add_option(int8, "--seed", default=0)


def run(arguments: argparse.Namespace) -> int:
    arguments.format = format_of_place(arguments.output, arguments.format)
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
    from ..train.messages import messages_on_terminal

    model = arguments.model or _model_of(arguments.checkpoint)
    names = ("format", "precision", "checkpoint", "img_size", "batch_size", "dynamic_size", "out_indices", "calibrate",
             "calibrate_count", "quantize_exclude", "labels", "least_agreement", "seed", "device", "force")
    try:
        with messages_on_terminal():  # a conversion can take minutes
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
