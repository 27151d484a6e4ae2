"""`python -m mvlib.timm train.py ...`: somebody else's script, in which `import timm` finds mvlib."""

import sys

from mvlib.running import run

if __name__ == "__main__":
    sys.exit(run("mvlib.timm", sys.argv[1:]))
