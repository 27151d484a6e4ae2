"""Packages that resolve their names on first use."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = ("data", "optim", "scheduler", "loss", "train")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_listed_name_is_there(name):
    package = importlib.import_module(f"mvlib.{name}")
    assert package.__all__
    for public in package.__all__:
        assert getattr(package, public) is not None
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("name", PACKAGES)
def test_a_name_that_is_not(name):
    with pytest.raises(AttributeError, match=f"module 'mvlib.{name}' has no attribute 'nothing'"):
        importlib.import_module(f"mvlib.{name}").nothing  # noqa: B018


def test_packages_cost_no_torch():
    code = "import sys\n" + "".join(f"import mvlib.{name}\n" for name in PACKAGES) + "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_names_of_timm_stand_at_the_top():
    import mvlib

    assert mvlib.create_loader is mvlib.data.create_loader
    assert mvlib.create_optimizer_v2 is mvlib.optim.create_optimizer_v2
    assert issubclass(mvlib.DataError, mvlib.MvlibError)
