#!/usr/bin/env python
"""Measure models: `python scripts/validate.py DATA --model resnet50 ...`; the same as `mvlib validate`."""

import sys

from mvlib.cli import main

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]]))
