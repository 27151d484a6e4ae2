# Written by scripts/build_stubs.py.
# ruff: noqa
from .. import DenseNet121_Weights as DenseNet121_Weights
from .. import DenseNet161_Weights as DenseNet161_Weights
from .. import DenseNet169_Weights as DenseNet169_Weights
from .. import DenseNet201_Weights as DenseNet201_Weights
from .. import densenet121 as densenet121
from .. import densenet161 as densenet161
from .. import densenet169 as densenet169
from .. import densenet201 as densenet201
from typing import Any
from ..densenet import DenseNet as _DenseNet
def densenet264d(**kwargs: Any) -> _DenseNet: ...
def densenetblur121d(**kwargs: Any) -> _DenseNet: ...
