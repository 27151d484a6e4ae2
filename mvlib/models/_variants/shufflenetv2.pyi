# Written by scripts/build_stubs.py.
# ruff: noqa
from .. import ShuffleNet_V2_X0_5_Weights as ShuffleNet_V2_X0_5_Weights
from .. import ShuffleNet_V2_X1_0_Weights as ShuffleNet_V2_X1_0_Weights
from .. import ShuffleNet_V2_X1_5_Weights as ShuffleNet_V2_X1_5_Weights
from .. import ShuffleNet_V2_X2_0_Weights as ShuffleNet_V2_X2_0_Weights
from .. import shufflenet_v2_x0_5 as shufflenet_v2_x0_5
from .. import shufflenet_v2_x1_0 as shufflenet_v2_x1_0
from .. import shufflenet_v2_x1_5 as shufflenet_v2_x1_5
from .. import shufflenet_v2_x2_0 as shufflenet_v2_x2_0
