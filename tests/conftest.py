"""Fixtures that more than one file of tests uses."""

import copy
import ctypes
import gc
import signal
import sys
import time
import types
import zlib
from collections import defaultdict

import pytest

from .hub_server import HubServer

_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_CACHE",
              "XDG_CACHE_HOME")


def pytest_configure(config):
    """What a shell starts in the background ignores interrupts, as do its children; tests send some."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before those that are not run are taken out
def pytest_collection_modifyitems(items):
    """Of the cases of a test marked `sample(n)` one in n is run by default, and one at least. Which ones, their names
    say: of a family some tests are run always, and they stay the same when others come."""
    samples = defaultdict(list)
    for item in items:
        marker = item.get_closest_marker("sample")
        if marker:
            samples[item.nodeid.partition("[")[0], marker.args[0]].append((zlib.crc32(item.nodeid.encode()), item))
    for (_, step), cases in samples.items():
        first = min(number % step for number, _ in cases)
        for number, item in cases:
            if number % step != first:
                item.add_marker(pytest.mark.slow)


def pytest_collection_finish(session):
    """What is there to stay need not be searched for garbage again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests go to one process, for their fixtures' sake; where a file walks over models, a model's do."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFileOrModel(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file, _, test = nodeid.partition("::")
            walks = file.endswith(("test_families.py", "parity/test_parity.py", "parity/test_torchvision.py"))
            return f"{file}[{test.partition('[')[2]}" if walks else file

    return ByFileOrModel(config, log)


@pytest.fixture(scope="session", autouse=True)
def no_engines(tmp_path_factory):
    """No test makes engines by the way, nor uses the user's; those of engines turn them on, in a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MVLIB_ENGINES", "off")
        patch.setenv("MVLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_signal_stack(signal_stack):
    """Nothing that a test does leaves its thread with another stack for signals: who has put it there may take it away,
    and the next signal is the end of the process (see `mvlib.engines.openvino_runtime`)."""
    yield
    assert signal_stack == _signal_stack()


@pytest.fixture(scope="session")
def signal_stack():
    return _signal_stack()


def _signal_stack():
    """Address, flags and size."""
    found = (ctypes.c_size_t * 3)()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).sigaltstack(None, found)
    return tuple(found)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine that is the only one, with empty caches; retries do not wait.

    huggingface_hub reads its variables when it is imported, so its constants are set beside them; the variables are
    for the processes that a test starts.
    """
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    import mvlib.hub

    home = tmp_path / "hf"
    with HubServer() as server:
        for name in _VARIABLES:
            monkeypatch.delenv(name, raising=False)
        variables = {
            "HF_ENDPOINT": server.endpoint, "HF_HOME": home, "HF_HUB_CACHE": home / "hub",
            "TORCH_HOME": tmp_path / "torch", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        settings = {
            "ENDPOINT": server.endpoint, "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub"),
            "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_TOKEN_PATH": str(home / "token"), "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
            if hasattr(file_download, name):  # before 1.0 it holds some of them itself
                monkeypatch.setattr(file_download, name, value)
        without_waiting = types.SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
        for module in (mvlib.hub, file_download, _http):
            monkeypatch.setattr(module, "time", without_waiting)
        yield server


@pytest.fixture
def fresh_registry(monkeypatch):
    """A registry in which a test can register what it likes."""
    from mvlib import registry

    known = registry._registry
    fresh = copy.deepcopy(known)
    monkeypatch.setattr(registry, "_registry", fresh)
    yield fresh
    for name, entry in known.entries.items():  # a family that the test imported registers its models once alone
        own = fresh.entries.get(name)
        if entry.entrypoint is None and own is not None and (own.place or "").startswith("mvlib.models."):
            entry.entrypoint, entry.place = own.entrypoint, own.place


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """A folder with a small model as a "repository", as an export "classifier.ov" and as one of its features,
    "pooled.ov"; and with photographs, 0.png to 4.png, of which 2.png is none."""
    import skimage.data
    import torch
    from PIL import Image

    import mvlib

    root = tmp_path_factory.mktemp("exports")
    torch.manual_seed(0)
    model = mvlib.create_model("test_resnet", num_classes=7, pretrained=False).eval()
    with torch.no_grad():
        model.fc.weight.mul_(20)  # so that classes differ
    mvlib.save_for_hub(model, root / "repository", label_names=[f"kind {i}" for i in range(7)])
    model = mvlib.create_model(f"local-dir:{root}/repository").eval()
    mvlib.export(model, root / "classifier.ov", format="openvino")
    mvlib.export(model, root / "pooled.ov", format="openvino", features="pooled")
    for number, name in enumerate(("chelsea", "coffee", "rocket", "astronaut", "chelsea")):
        Image.fromarray(getattr(skimage.data, name)()).save(root / f"{number}.png")
    (root / "2.png").write_text("no photograph")
    return root
