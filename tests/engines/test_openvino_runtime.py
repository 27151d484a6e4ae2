"""OpenVINO's import for running models: without its converter, which is there all the same."""

import subprocess
import sys

import pytest

import mvlib

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


TWICE = """
import os, threading, time
from operator import attrgetter
from mvlib.engines.run_openvino import ov
parameter = ov.op.Parameter(ov.Type.f32, ov.PartialShape([4]))
model = ov.Model([ov.op.Result(parameter.output(0))], [parameter], "same")
compiled = ov.Core().compile_model(model, "CPU")
first, second = (compiled.create_infer_request().get_input_tensor() for _ in range(2))
class Slow(list):
    data = property(sum)
slow = Slow(range(4_000_000))
def run(start, *values):
    time.sleep(start - time.monotonic())
    list(map(attrgetter("data"), values))
now = time.monotonic() + 0.2
threads = [threading.Thread(target=run, args=(now, slow, first), daemon=True),  # has the GIL until the other waits
           threading.Thread(target=run, args=(now + 0.001, second), daemon=True)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(20)
os._exit(any(thread.is_alive() for thread in threads))
"""


def test_two_threads_may_be_the_first(tmp_path):
    """OpenVINO's binding prepares itself for arrays at the first use; in two threads at once it was a deadlock."""
    done = subprocess.run([sys.executable, "-c", TWICE], env={"HOME": str(tmp_path)}, timeout=60)
    assert done.returncode == 0


DROPPED = """
import gc, signal, subprocess, sys, threading
from mvlib.engines.folder import read_export
from mvlib.engines.run_openvino import open_engine
signal.signal(signal.SIGCHLD, lambda *_: None)  # as a DataLoader with workers does, for good
engines = [open_engine(read_export(sys.argv[1]), lanes=1, threads=1, precision="float32")]
engines[0].warm_up()
thread = threading.Thread(target=lambda: (engines.clear(), gc.collect()))
thread.start()
thread.join()
subprocess.run([sys.executable, "-c", ""])
"""


def test_signals_arrive_after_an_engine_is_gone(tiny, tmp_path):
    """OpenVINO left the thread with a stack for signals that went with the engine: the next signal was the end."""
    mvlib.export(mvlib.create_model(f"local-dir:{tiny}"), tmp_path / "engine")
    done = subprocess.run([sys.executable, "-c", DROPPED, tmp_path / "engine"], env={"HOME": str(tmp_path)}, timeout=60)
    assert done.returncode == 0
