# Written by scripts/build_stubs.py.
# ruff: noqa
from typing import Any
from ..pnasnet import PNASNet5Large as _PNASNet5Large
def pnasnet5large(**kwargs: Any) -> _PNASNet5Large: ...
