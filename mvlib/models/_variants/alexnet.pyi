# Written by scripts/build_stubs.py.
# ruff: noqa
from .. import AlexNet_Weights as AlexNet_Weights
from .. import alexnet as alexnet
