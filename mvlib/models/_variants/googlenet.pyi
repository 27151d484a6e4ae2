# Written by scripts/build_stubs.py.
# ruff: noqa
from .. import GoogLeNet_Weights as GoogLeNet_Weights
from .. import googlenet as googlenet
