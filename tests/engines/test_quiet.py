"""No report leaves a process that runs or converts models, whoever imported openvino."""

import subprocess
import sys

import pytest

pytest.importorskip("openvino_telemetry")

# The network is a list: of what was to be sent.
SENT = """
import sys
sent = []
def listen():
    from openvino_telemetry.utils.sender import TelemetrySender
    TelemetrySender.send = lambda self, backend, message: sent.append(message)
"""
FIRST = """
from mvlib.engines.quiet import no_telemetry
with no_telemetry():
    with no_telemetry():
        pass
    import openvino
assert "openvino_telemetry" not in sys.modules
listen()
"""
LAST = """
listen()
import openvino
assert sent
from mvlib.engines.quiet import no_telemetry
"""
CONVERT = """
sent.clear()
import torch
with no_telemetry():
    openvino.convert_model(torch.nn.ReLU(), example_input=torch.zeros(1))
assert not sent, sent
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", [FIRST, LAST], ids=["mvlib first", "openvino first"])
def test_nothing_is_sent(order, tmp_path):
    code = SENT + order + CONVERT
    if order is LAST:  # what the user's program does outside is its own affair
        code += "openvino.convert_model(torch.nn.ReLU(), example_input=torch.zeros(1))\nassert sent"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={"HOME": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert order is LAST or not list(tmp_path.iterdir())
