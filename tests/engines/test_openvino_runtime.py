"""OpenVINO's import for running models: without its converter, which is there all the same."""

import subprocess
import sys

import pytest

pytest.importorskip("openvino")

CODE = """
import sys
from mvlib.engines.openvino_runtime import quick_import
with quick_import():
    import openvino
assert not any(name.startswith("openvino.tools.ovc") for name in sys.modules)
with quick_import():
    from openvino import Core
assert openvino.Core is Core
try:
    openvino.nothing
except AttributeError as error:
    assert str(error) == "module 'openvino' has no attribute 'nothing'"
from openvino import convert_model
assert convert_model is openvino.convert_model is sys.modules["openvino.tools.ovc"].convert_model
"""
LATER = """
import openvino
before = openvino.convert_model
from mvlib.engines.openvino_runtime import quick_import
with quick_import():
    import openvino
assert openvino.convert_model is before and not hasattr(openvino, "__getattr__")
"""


@pytest.mark.parametrize("code", [CODE, LATER], ids=["first", "after the user"])
def test_the_converter_is_imported_when_it_is_asked_for(code, tmp_path):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
