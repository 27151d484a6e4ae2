"""scripts/setup_env.sh in projects of its own, with the real pip, offline: torch and mvlib are wheels made here."""

import contextlib
import functools
import http.server
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("ensurepip")

BACKEND = """if True:  # what setuptools would do, without a network
    import zipfile

    def build_editable(folder, config_settings=None, metadata_directory=None):
        with zipfile.ZipFile(f"{folder}/mvlib-0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("mvlib-0.dist-info/METADATA", METADATA)
            wheel.writestr("mvlib-0.dist-info/WHEEL", WHEEL)
            wheel.writestr("mvlib-0.dist-info/RECORD", "")
        return "mvlib-0-py3-none-any.whl"

    WHEEL = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    METADATA = '''Metadata-Version: 2.1
Name: mvlib
Version: 0
Requires-Dist: torch>=2.5
Requires-Dist: torchvision>=0.20
Provides-Extra: demo
'''
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "mvlib"
version = "0"
dependencies = ["torch>=2.5", "torchvision>=0.20"]

[project.optional-dependencies]
demo = []
"""


def wheel(folder, name, version, size=0):
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}/__init__.py", f"__version__ = '{version}'\n")
        file.writestr(f"{name}/large", bytes(size))  # not compressed
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    wheel(folder, "torch", "2.6.0", 25_000_000)
    wheel(folder, "torchvision", "0.21.0")
    return folder


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """A Python that has a torch, outside of any environment: seen as a folder of user packages is."""
    folder = tmp_path_factory.mktemp("user")
    packages = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    packages.mkdir(parents=True)
    for name, version in (("torch", "2.7.0"), ("torchvision", "0.22.0")):
        (packages / f"{name}-{version}.dist-info").mkdir()
        (packages / f"{name}-{version}.dist-info/METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return {"PYTHONUSERBASE": str(folder)}


class Project:
    """A clone in which scripts set up .venv."""

    def __init__(self, path, wheels):
        self.path, self.wheels = path, wheels

    def __call__(self, check=True, **environment):
        base = {key: value for key, value in os.environ.items()
                if not key.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV", "MVLIB_"))}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "source scripts/setup_env.sh; setup_env demo; echo ready"],
            cwd=self.path, capture_output=True, text=True,
            env={**base, "PYTHON": sys._base_executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels),
                 "PIP_CONFIG_FILE": os.devnull, **environment})
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    @property
    def packages(self):
        return next(self.path.glob(".venv/lib/python*/site-packages"))

    def forget(self, *names):
        """As if it were not installed yet, but for what is there of others than `names`."""
        (self.path / ".venv/.installed-demo").unlink(missing_ok=True)
        for name in names:
            for path in self.packages.glob(f"{name}*"):
                shutil.rmtree(path)

    def version_of_torch(self, **environment):
        code = "from importlib.metadata import version; print(version('torch'))"
        return subprocess.run([self.path / ".venv/bin/python", "-c", code], capture_output=True, text=True, check=True,
                              env={**os.environ, **environment}).stdout.strip()


@pytest.fixture(scope="module")
def first(tmp_path_factory, wheels):
    """A project, and what its first installation said."""
    path = tmp_path_factory.mktemp("first")
    (path / "pyproject.toml").write_text(PROJECT)
    (path / "backend.py").write_text(BACKEND)
    (path / "scripts").mkdir()
    for name in ("setup_env.sh", "before_install.py"):
        shutil.copy(ROOT / "scripts" / name, path / "scripts")
    project = Project(path, wheels)
    return project, project().stdout


@pytest.fixture
def project(first, tmp_path):
    """Its copy: to make an environment anew for each test would take ten seconds."""
    return Project(Path(shutil.copytree(first[0].path, tmp_path / "copy", symlinks=True)), first[0].wheels)


@pytest.mark.slow
def test_what_is_fetched_is_said_before_and_once(first, project):
    lines = first[1].splitlines()
    assert lines[0] == "Installing mvlib[demo] into .venv, once"
    assert lines[1].startswith("  to be fetched: torch")
    assert lines[-2].startswith("installed in ") and lines[-1] == "ready"
    assert project.version_of_torch() == "2.6.0"
    assert project().stdout == "ready\n"
    with open(project.path / "pyproject.toml", "a") as stream:
        stream.write("# changed\n")
    lines = project().stdout.splitlines()
    assert lines[:2] == ["Installing mvlib[demo] into .venv, once", "  torch 2.6.0 is there already"]


@pytest.mark.slow
def test_large_downloads_are_said_one_a_line(project, wheels):
    """Of pip's many lines, where there is no terminal."""
    project.forget("torch")
    with http_server(wheels) as address:
        done = project(PIP_FIND_LINKS=address)
    lines = [line for line in done.stdout.splitlines() if "Downloading" in line]
    assert len(lines) == 1 and "torch-2.6.0-py3-none-any.whl (2" in lines[0] and lines[0].endswith("MB)")


@contextlib.contextmanager
def http_server(folder):
    handler = functools.partial(type("Quiet", (http.server.SimpleHTTPRequestHandler,), {
        "log_message": lambda *_: None}), directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.slow
def test_what_a_stopped_installation_left_is_mended(project):
    (project.packages / "torch-2.6.0.dist-info/RECORD").unlink()
    shutil.rmtree(project.packages / "torch")
    (project.packages / "~orch").mkdir()
    project.forget()
    lines = project().stdout.splitlines()
    assert lines[0] == "torch-2.6.0 was not installed to its end: it is installed again"
    assert (project.packages / "torch/__init__.py").is_file() and not (project.packages / "~orch").exists()
    for path in project.packages.glob("pip*"):  # another tool made it, and there is more in it
        shutil.rmtree(path)
    (project.packages / "mine.pth").touch()
    project.forget()
    assert project().stdout.endswith("ready\n")
    assert (project.packages / "pip").is_dir() and (project.packages / "mine.pth").is_file()
    shutil.rmtree(project.packages / "pip")  # venv was stopped, or its Python is another one now
    project.forget()
    assert project().stdout.endswith("ready\n")
    assert (project.packages / "pip").is_dir()


def test_an_installation_that_fails_is_no_installation(project):
    project.forget("torch")
    done = project(check=False, PIP_FIND_LINKS=str(project.path))
    assert done.returncode != 0 and "ready" not in done.stdout and "torch" in done.stderr
    assert not (project.path / ".venv/.installed-demo").exists()


@pytest.mark.slow
def test_the_torch_of_the_system_is_used_when_asked_for(project, system):
    project.forget("torch")
    lines = project(**system).stdout
    assert f"torch 2.7.0 of {sys._base_executable} would do: with MVLIB_SYSTEM_TORCH=1 in the environment" in lines
    assert project.version_of_torch(**system) == "2.6.0"  # an environment of its own, unless asked
    project.forget("torch")
    lines = project(MVLIB_SYSTEM_TORCH="1", **system).stdout.splitlines()
    assert lines[1] == "  torch 2.7.0 is there already"
    assert project.version_of_torch(**system) == "2.7.0"
    assert not list(project.packages.glob("torch*"))


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("pip")
    spec = importlib.util.spec_from_file_location("before_install", ROOT / "scripts/before_install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_requirements_are_those_of_pyproject(script):
    """Those of extras that an extra names, too."""
    tomllib = pytest.importorskip("tomllib")
    text = (ROOT / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    found = {str(need) for need in script.requirements(text, ["test", "plot"])}
    assert found == {"torch>=2.5", "torchvision>=0.20", *(x for x in extras["test"] if x.startswith("torchvision"))}
    assert {str(need) for need in script.requirements(text, ["demo"])} == {"torch>=2.5", "torchvision>=0.20"}
    nested = 'dependencies = ["a>1"]\nx = ["mvlib[y]"]  # "]"\ny = [\n    "torch>3",  # "torch<9"\n    "mvlib[x]",\n]\n'
    assert [str(need) for need in script.requirements(nested, ["x"])] == ["torch>3"]


@pytest.mark.parametrize(("have", "does"), [
    ({"torch": "2.6.0+cpu", "torchvision": "0.21.0+cpu"}, True), ({"torch": "2.6.0"}, False),
    ({"torch": "2.4.1", "torchvision": "0.21"}, False), ({}, False),
    ({"torch": "2.9.0a0+git12", "torchvision": "0.24.0a0"}, True),  # built from source
])
def test_which_torch_does(have, does, script):
    wanted = list(script.requirements((ROOT / "pyproject.toml").read_text(), ["demo"]))
    assert script.satisfied(wanted, have) is does


def test_what_is_said_depends_on_the_machine(script):
    wanted = list(script.requirements((ROOT / "pyproject.toml").read_text(), []))
    said = "\n".join(script.announcement(wanted, False, {}, "python3", "linux"))
    assert "about 6 GB" in said and "https://pytorch.org/get-started/locally/" in said and "SYSTEM" not in said
    assert "pytorch.org" not in "\n".join(script.announcement(wanted, True, {}, "python3", "linux"))
    assert "0.5 GB" in "\n".join(script.announcement(wanted, False, {}, "python3", "darwin"))
