# Written by scripts/build_stubs.py.
# ruff: noqa
from .. import SqueezeNet1_0_Weights as SqueezeNet1_0_Weights
from .. import SqueezeNet1_1_Weights as SqueezeNet1_1_Weights
from .. import squeezenet1_0 as squeezenet1_0
from .. import squeezenet1_1 as squeezenet1_1
