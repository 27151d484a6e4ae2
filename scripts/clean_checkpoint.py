#!/usr/bin/env python
"""A training checkpoint's weights alone, and what they are of:
`python scripts/clean_checkpoint.py --checkpoint FILE --output FILE`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mvlib.cli import guard
from mvlib.train.averaging import clean_checkpoint, common_facts, write_weights


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="the training checkpoint")
    parser.add_argument("--output", default="", metavar="FILE",
                        help="where to (default: the checkpoint's name, with a hash and .safetensors)")
    parser.add_argument("--no-use-ema", action="store_true", help="not the average that the checkpoint holds")
    parser.add_argument("--hash", action=argparse.BooleanOptionalAction, default=None,
                        help="a hash of the file in its name (default: where --output does not say the name)")
    parser.add_argument("--clean-aux-bn", action="store_true", help="accepted: split batch norms are always left out")
    parser.add_argument("--keep-aux-bn", action="store_true", help="keep split batch norms")
    parser.add_argument("--safetensors", action="store_true", help="write safetensors whatever the ending")
    args = parser.parse_args()
    output = Path(args.output or Path(args.checkpoint).name.partition(".")[0] + ".safetensors")
    if args.safetensors:
        output = output.with_suffix(".safetensors")
    state = clean_checkpoint(args.checkpoint, not args.no_use_ema, args.keep_aux_bn)
    add_hash = args.hash if args.hash is not None else not args.output
    path = write_weights(state, output, add_hash=add_hash, facts=common_facts([args.checkpoint]))
    count = sum(tensor.numel() for tensor in state.values())
    print(f"{path}: {count / 1e6:.2f} M numbers, {path.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    if status := guard("clean_checkpoint", main):
        sys.exit(status)
