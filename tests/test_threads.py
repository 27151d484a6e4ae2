"""mvlib/threads.py: how threads wait is chosen before torch is there, unless the user has chosen."""

import os
import subprocess
import sys

import pytest

from mvlib.threads import compute_threads, fitting_workers

SCRIPT = """
import os
from mvlib.cli import main
main(["list", "resnet18"])
print(*(os.environ.get(name) for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")))
"""


@pytest.mark.parametrize(("chosen", "found"), [
    ({}, "100 0 None"), ({"GOMP_SPINCOUNT": "7"}, "7 None None"), ({"OMP_WAIT_POLICY": "active"}, "None None active"),
    ({"KMP_BLOCKTIME": "200"}, "None 200 None")])
def test_every_command_has_waiting_threads_sleep(chosen, found):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "KMP_", "OMP_WAIT"))}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env={**clean, **chosen}, capture_output=True, text=True)
    assert (done.stderr, done.stdout.splitlines()) == ("", ["resnet18", found])


def test_a_library_changes_nothing(monkeypatch):
    """Where torch is there already it would be too late, and no command's process it is."""
    import torch  # noqa: F401

    from mvlib.threads import let_waiting_threads_sleep

    for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    assert not let_waiting_threads_sleep() and dict(os.environ) == before


def test_workers_are_no_more_than_cores(monkeypatch):
    monkeypatch.setattr("mvlib.threads.cpu_count", lambda: 3)
    assert [fitting_workers(wanted) for wanted in (0, 2, 3, 8)] == [0, 2, 3, 3]


@pytest.mark.parametrize(("asked", "found"), [("1", 1), (" 2,1", 2), ("64", 4), ("0", 4), ("many", 4), ("", 4)])
def test_the_threads_of_a_model_go_by_openmps_variable(asked, found, monkeypatch):
    monkeypatch.setattr("mvlib.threads.cpu_count", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert compute_threads() == found
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert compute_threads() == 4
