# Written by scripts/build_stubs.py.
# ruff: noqa
from typing import Any
from ..nasnet import NASNetALarge as _NASNetALarge
def nasnetalarge(**kwargs: Any) -> _NASNetALarge: ...
