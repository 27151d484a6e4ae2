#!/usr/bin/env python
"""Train an image model: `python scripts/train.py DATA --model resnet50 ...`; the same as `mvlib train`."""

import sys

from mvlib.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
