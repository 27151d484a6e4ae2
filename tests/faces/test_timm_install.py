"""`python -m mvlib.timm` and `mvlib.timm.install()`: other people's `import timm` finds mvlib."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def python(*arguments, cwd=None, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd,
                          env=environment)


def run(code, *arguments, **environment):
    """What a piece of code prints."""
    done = python("-c", code, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_are_the_same_by_both_names():
    run("""if True:
        import sys
        import mvlib.timm as face
        import mvlib.timm.models.resnet
        face.install()
        face.install()
        import timm
        import timm.models.resnet
        import timm.models.vgg as vgg
        from timm import models
        from timm.models import resnet, list_models
        assert timm is face and timm.models.resnet is face.models.resnet is resnet
        assert models is timm.models is sys.modules["mvlib.timm.models"] is sys.modules["timm.models"]
        assert vgg is face.models.vgg is sys.modules["mvlib.timm.models.vgg"]
        assert vgg.__spec__.name == "mvlib.timm.models.vgg"
        assert timm.is_installed() and timm.__version__ == "1.0.31"
        from importlib.metadata import version
        assert version("timm") == "1.0.31"
        assert "torch" not in sys.modules
    """)


@pytest.mark.slow
def test_a_function_that_a_user_replaces_is_replaced_in_our_code():
    run("""if True:
        import mvlib.timm.models._helpers as helpers
        from mvlib.timm.meanings import checkpoints
        kept = helpers.clean_state_dict
        helpers.clean_state_dict = lambda state_dict: {}
        assert helpers.clean_state_dict({"a": 1}) == checkpoints.clean_state_dict({"a": 1}) == {}
        helpers.clean_state_dict = kept
        assert checkpoints.clean_state_dict is kept
        import mvlib.timm.models as models  # a package has names of other modules: one of its own is no more than that
        models.clean_state_dict = models.something_else = None
        assert checkpoints.clean_state_dict is kept and models.something_else is None
    """)


def test_the_real_timm_is_refused_by_name(tmp_path):
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").write_text("")
    done = python("-c", "import timm, mvlib.timm; mvlib.timm.install()", cwd=tmp_path)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: timm itself is imported already ({tmp_path}/timm/__init__.py); call mvlib.timm.install() before "
        f"anything that imports timm, or run the script with `python -m mvlib.timm`")


@pytest.mark.slow
def test_a_picture_is_no_script(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    for face in ("mvlib.timm", "mvlib.torchvision"):
        done = python("-m", face, "picture.png", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"python -m {face}: 'picture.png' is no script: it holds bytes that no text has\n"


def test_names_that_are_not_there():
    printed = run("""if True:
        import mvlib.timm as timm
        timm.install()
        for text in ("timm.create_modl", "hasattr(timm.models, 'resnet51')"):
            try:
                print(eval(text))
            except AttributeError as error:
                print(error)
        for text in ("from timm.models import resnet51", "import timm.models.resnex", "import timm.nothing.at_all"):
            try:
                exec(text)
            except ImportError as error:
                print(error)
    """).splitlines()
    assert printed == [
        "mvlib.timm has no 'create_modl'; did you mean 'create_model'?",
        "False",
        "mvlib.timm.models has no 'resnet51'; did you mean 'resnet51q', 'resnet18' or 'resnet50'?",
        "No module named 'timm.models.resnex' (mvlib stands for timm); did you mean 'resnet', 'res2net' or 'resnest'?",
        "No module named 'timm.nothing' (mvlib stands for timm)",
    ]


def test_what_is_absent_says_why(monkeypatch):
    from mvlib.timm import finder, tables

    monkeypatch.setitem(tables.absences(), "models.nothing", "because of the test")
    monkeypatch.setitem(tables.absences(), "models.no_name", "it is only a test")
    with pytest.raises(ModuleNotFoundError, match="^mvlib.timm has no 'models.nothing': because of the test$"):
        finder._finder.find_spec("mvlib.timm.models.nothing")
    with pytest.raises(AttributeError, match="^mvlib.timm.models has no 'no_name': it is only a test$"):
        finder.get("models", "no_name")
    with pytest.raises(ImportError, match="^mvlib.timm.models has no 'no_name': it is only a test$"):
        from mvlib.timm.models import no_name  # noqa: F401


SCRIPT = """
import multiprocessing
import sys
import timm
from timm.models import resnet18
import beside

class Item:
    def __init__(self, value):
        self.value = value

def double(item):
    assert timm.__name__ == "mvlib.timm"
    return Item(2 * item.value), __name__

if __name__ == "__main__":
    print(sys.argv[1:], sys.path[0], __file__, __package__)
    for method in sys.argv[1].split(","):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, *((item.value, name) for item, name in pool.map(double, [Item(1), Item(2)])))
    sys.exit(beside.status)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "a.b c%2E" / "train.py"  # a name of a module says it all
    path.parent.mkdir()
    path.write_text(SCRIPT)
    (path.parent / "beside.py").write_text("import timm; status = 7")
    return path


def test_a_script_with_processes_by_fork_and_by_spawn(script):
    done = python("-m", "mvlib.timm", script, "fork,spawn,forkserver", "-m", cwd="/")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"['fork,spawn,forkserver', '-m'] {script.parent} {script} None",
        "fork (2, '__main__') (4, '__main__')",
        "spawn (2, '__mp_main__') (4, '__mp_main__')",
        "forkserver (2, '__mp_main__') (4, '__mp_main__')",
    ]
    assert done.returncode == 7


def test_a_module_with_processes_by_spawn(script):
    (script.parent / "package").mkdir()
    (script.parent / "package" / "__init__.py").write_text("import timm")
    (script.parent / "package" / "__main__.py").write_text(SCRIPT.replace("import beside", "from . import beside"))
    (script.parent / "package" / "beside.py").write_text("status = 0")
    done = python("-m", "mvlib.timm", "-m", "package", "spawn", cwd=script.parent)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"['spawn'] {script.parent} {script.parent / 'package' / '__main__.py'} package",
        "spawn (2, '__mp_main__') (4, '__mp_main__')",
    ]


def test_a_text():
    done = python("-m", "mvlib.timm", "-c", "import sys, timm; print(timm.__name__, sys.argv, sys.path[0] == '')", "a")
    assert (done.stdout, done.stderr) == ("mvlib.timm ['-c', 'a'] True\n", "")


def test_a_traceback_begins_with_the_script(tmp_path):
    (tmp_path / "fails.py").write_text("import timm\n\ndef f():\n    timm.nothing()\n\nf()\n")
    done = python("-m", "mvlib.timm", "fails.py", cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert lines[:2] == ["Traceback (most recent call last):", f'  File "{tmp_path}/fails.py", line 6, in <module>']
    assert lines[-1] == "AttributeError: mvlib.timm has no 'nothing'"
    assert done.returncode == 1


@pytest.mark.parametrize("arguments, text", [
    (["trian.py"], "there is no script 'trian.py'; did you mean 'train.py'?"),
    (["nowhere/train.py"], "there is no script 'nowhere/train.py': no folder 'nowhere'"),
    (["."], "'.' is a folder; name the script in it"),
    (["-m"], "-m wants the name of a module after it"),
    (["-c"], "-c wants a text after it"),
    (["-m", "no_such_module.at_all"], "there is no module 'no_such_module.at_all' that could be run"),
    (["--nothing"], "does not know the option --nothing; the options of python stand before -m, those of the script "
                    "after it"),
])
def test_what_cannot_be_run(arguments, text, tmp_path):
    (tmp_path / "train.py").write_text("")
    done = python("-m", "mvlib.timm", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"python -m mvlib.timm: {text}\n")


@pytest.mark.slow
def test_torchrun(tmp_path):
    (tmp_path / "ranks.py").write_text("import os, timm; assert timm.is_installed(); print(os.environ['RANK'])")
    done = python("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "mvlib.timm", "ranks.py", cwd=tmp_path)
    assert sorted(done.stdout.split()) == ["0", "1"], done.stderr
