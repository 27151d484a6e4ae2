# Written by scripts/build_stubs.py.
# ruff: noqa
from typing import Any
from ..xception import Xception as _Xception
def legacy_xception(**kwargs: Any) -> _Xception: ...
