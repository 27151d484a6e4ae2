"""Packages that resolve their names on first use."""

import importlib
import subprocess
import sys

import pytest

import mvlib

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


@pytest.mark.parametrize("name", PACKAGES)
def test_a_star_import_brings_the_list(name):
    found: dict = {}
    exec(f"from mvlib.{name} import *", found)
    assert set(importlib.import_module(f"mvlib.{name}").__all__) <= set(found)


@pytest.mark.slow
def test_every_module_is_an_attribute():
    """Of a package that nothing has been asked of: each in a process of its own; they share what torch costs."""
    code = """if True:
        import os, sys, pkgutil, torch, torchvision, mvlib
        for name in sys.argv[1:]:
            if os.fork():
                assert os.wait()[1] == 0, name
                continue
            package = getattr(mvlib, name)
            for module in pkgutil.iter_modules(package.__path__):
                assert module.name in dir(package)
                assert getattr(package, module.name).__name__ == f"mvlib.{name}.{module.name}"
            os._exit(0)
    """
    done = subprocess.run([sys.executable, "-c", code, *PACKAGES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_at_the_top_is_there():
    assert {"__version__", "create_model", "create_dataset", "create_scheduler_v2"} <= set(mvlib.__all__)
    for public in mvlib.__all__:
        assert getattr(mvlib, public) is not None
    assert {*mvlib.__all__, "models", "optim", "train"} <= set(dir(mvlib))
    with pytest.raises(AttributeError, match="module 'mvlib' has no attribute 'nothing'"):
        mvlib.nothing  # noqa: B018


def test_names_of_timm_stand_at_the_top():
    assert mvlib.create_loader is mvlib.data.create_loader
    assert mvlib.create_optimizer_v2 is mvlib.optim.create_optimizer_v2
    assert issubclass(mvlib.DataError, mvlib.MvlibError)
