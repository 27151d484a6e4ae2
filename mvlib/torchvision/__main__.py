"""`python -m mvlib.torchvision train.py ...`: somebody else's script, in which `import torchvision` finds mvlib."""

import sys

from mvlib.running import run

if __name__ == "__main__":
    sys.exit(run("mvlib.torchvision", sys.argv[1:]))
