"""`mvlib clean`: a training checkpoint's weights alone, and what they are of."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ConfigError
from ..names import closest_path
from .options import add_option
from .output import check_weights_output

EXAMPLES = (
    "mvlib clean output/train/first/model_best.pth.tar",
    "mvlib clean output/train/first/model_best.pth.tar --output weights.safetensors",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="FILE", help="the training checkpoint")
    add_option(parser, "--output", note="safetensors, or torch's format where it ends in .pth",
               default_is="./ and the checkpoint's name, with a hash and .safetensors")
    add_option(parser, "--no-use-ema")
    parser.add_argument("--hash", action=argparse.BooleanOptionalAction, default=None,
                        help="a hash of the file in its name (default: where --output does not say the name)")
    parser.add_argument("--keep-aux-bn", action="store_true", help="keep split batch norms")


def run(arguments: argparse.Namespace) -> int:
    checkpoint = Path(arguments.checkpoint)
    if not checkpoint.is_file():
        raise ConfigError(f"{checkpoint} is a folder; a checkpoint is a file" if checkpoint.exists() else
                          f"there is no checkpoint {checkpoint}{closest_path(checkpoint)}")
    output = Path(arguments.output or checkpoint.name.partition(".")[0] + ".safetensors")
    check_weights_output(output)
    from ..train.averaging import clean_checkpoint, common_facts, write_weights

    state = clean_checkpoint(checkpoint, not arguments.no_use_ema, arguments.keep_aux_bn)
    add_hash = arguments.hash if arguments.hash is not None else not arguments.output
    path = write_weights(state, output, add_hash=add_hash, facts=common_facts([checkpoint]))
    count = sum(tensor.numel() for tensor in state.values())
    print(f"{path}: {count / 1e6:.2f} M numbers, {path.stat().st_size / 2**20:.1f} MiB")
    return 0
