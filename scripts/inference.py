#!/usr/bin/env python
"""The likeliest classes of a data set's images, as a file: the same as `mvlib inference`."""

import sys

from mvlib.cli import main

if __name__ == "__main__":
    sys.exit(main(["inference", *sys.argv[1:]]))
