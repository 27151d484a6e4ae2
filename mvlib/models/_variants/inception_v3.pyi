# Written by scripts/build_stubs.py.
# ruff: noqa
from .. import Inception_V3_Weights as Inception_V3_Weights
from .. import inception_v3 as inception_v3
