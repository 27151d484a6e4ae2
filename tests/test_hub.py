"""Sources, caches and uploads, against a hub on this machine; and what is said of each mistake."""

import errno
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import mvlib.hub
from mvlib.errors import (
    CheckpointError,
    ChecksumError,
    ConfigError,
    DownloadError,
    NotCachedError,
    WeightsError,
)
from mvlib.hub import (
    WEIGHT_FILES,
    cache_entries,
    cache_paths,
    check_complete,
    fetch,
    fetch_config,
    fetch_weights,
    find_newer,
    is_cached,
    keep_newer,
    push_folder,
    remove_cached,
    torch_checkpoints_dir,
)

REPO = "timm/resnet18.a1_in1k"
SOURCE = f"hf-hub:{REPO}"
BY_REQUESTS = version("huggingface_hub").startswith("0.")  # an older client, which has another HTTP client
BLOB = f"/{REPO}/resolve/main/model.safetensors"


def safetensors_file(payload=b"\1" * 4000, offset=0):
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(payload)],
                               "data_offsets": [0, len(payload) + offset]}}).encode()
    return len(header).to_bytes(8, "little") + header + payload


def zip_file(payload=b"\2" * 3000):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("data.pkl"), payload)
    return stream.getvalue()


WEIGHTS, OTHER = safetensors_file(), safetensors_file(b"\3" * 4000)
CHECKPOINT = zip_file()
CONFIG = b'{"architecture": "resnet18"}'


def sha256(data):
    return hashlib.sha256(data).hexdigest()


NAME = f"resnet18-{sha256(CHECKPOINT)[:8]}.pth"


@pytest.fixture
def url(hub):
    """A checkpoint on a server, named as torchvision names them."""
    return hub.add_file(f"/tv/{NAME}", CHECKPOINT)


@pytest.fixture
def repo(hub):
    return hub.add_repo(REPO, {"config.json": CONFIG, "model.safetensors": WEIGHTS, "pytorch_model.bin": CHECKPOINT})


@pytest.fixture
def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def unreachable(hub):
    """The address of a hub that is down."""
    hub.stop()
    return hub.endpoint


def forget_requests(hub):
    hub.requests.clear()
    hub.downloads.clear()


def cached_files(folder):
    return sorted(p.name for p in Path(folder).rglob("*") if p.is_file() and not p.name.endswith(".lock"))


def checkpoints():
    return torch_checkpoints_dir()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# the hub

def test_safetensors_are_preferred(hub, repo):
    path = fetch(SOURCE)
    assert path.name == "model.safetensors"
    assert path.read_bytes() == WEIGHTS
    assert hub.downloads[BLOB] == 1
    assert not any("pytorch_model" in p for p in hub.requests)


@pytest.mark.parametrize("name", WEIGHT_FILES)
def test_every_usual_name_is_found(hub, name):
    data = WEIGHTS if name.endswith(".safetensors") else CHECKPOINT
    hub.add_repo("a/b", {name: data, "README.md": b"hello"})
    assert fetch("hf-hub:a/b").read_bytes() == data


def test_a_file_by_its_name(hub, repo):
    assert fetch(SOURCE, filename="pytorch_model.bin").read_bytes() == CHECKPOINT
    hub.add_repo("a/b", {"old/weights.pt": CHECKPOINT})
    assert fetch("hf-hub:a/b", filename="old/weights.pt").read_bytes() == CHECKPOINT


def test_revisions(hub, repo):
    hub.add_repo(REPO, {"model.safetensors": OTHER}, revision="v2")
    assert fetch(f"{SOURCE}@v2").read_bytes() == OTHER
    assert fetch(SOURCE).read_bytes() == WEIGHTS
    commit = hub.repos[REPO].refs["v2"]
    forget_requests(hub)
    assert fetch(f"{SOURCE}@{commit}").read_bytes() == OTHER
    assert not hub.requests
    hub.add_repo(REPO, {"model.safetensors": safetensors_file(b"pr")}, revision="refs/pr/1")
    assert fetch(f"{SOURCE}@refs/pr/1").read_bytes() == safetensors_file(b"pr")


def test_what_is_cached_needs_no_network_and_no_warning(hub, repo, url, capfd):
    first = fetch(SOURCE), fetch(url), fetch_config(SOURCE)
    forget_requests(hub)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (fetch(SOURCE), fetch(url), fetch_config(SOURCE)) == first
        assert is_cached(SOURCE) == first[0]
        assert is_cached(url) == first[1]
    assert not hub.requests
    assert capfd.readouterr() == ("", "")


def test_a_branch_that_moved_is_used_as_it_is_until_it_is_removed(hub, repo):
    fetch(SOURCE)
    hub.add_repo(REPO, {"config.json": CONFIG, "model.safetensors": OTHER})
    assert fetch(SOURCE).read_bytes() == WEIGHTS
    assert [e.name for e in remove_cached(REPO)] == [REPO]
    assert fetch(SOURCE).read_bytes() == OTHER


def test_the_hub_goes_down_and_the_file_is_cached(hub, repo, url, recwarn):
    paths = fetch(SOURCE), fetch(url), fetch_config(SOURCE)
    hub.stop()
    assert (fetch(SOURCE), fetch(url), fetch_config(SOURCE)) == paths
    assert not recwarn.list
    with pytest.raises(NotCachedError, match="the hub cannot be reached"):
        fetch("hf-hub:a/b")


def test_is_cached_asks_nobody(hub, repo, url):
    assert is_cached([SOURCE, url, "file:/nowhere", "pkg:nowhere/x"]) is None
    put(checkpoints() / NAME, CHECKPOINT)
    assert is_cached([SOURCE, url]) == checkpoints() / NAME
    assert not hub.requests


def test_a_cache_of_one_s_own(hub, repo, url, tmp_path):
    assert tmp_path / "mine" in fetch(SOURCE, cache_dir=tmp_path / "mine").parents
    assert fetch(url, cache_dir=str(tmp_path / "mine")) == tmp_path / "mine" / NAME
    assert is_cached(SOURCE) is is_cached(url) is None
    assert is_cached(SOURCE, cache_dir=tmp_path / "mine") is not None


def test_a_token_is_sent(hub, repo, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    hub.repos[REPO].gated = True
    with pytest.raises(DownloadError, match=r"gated \(403\)"):
        fetch(SOURCE)


@pytest.mark.skipif(BY_REQUESTS, reason="this huggingface_hub does not ask again after a 500")
def test_the_hub_s_500_that_passes(hub, repo):
    hub.fault("*/model.safetensors", status=500, times=2)
    assert fetch(SOURCE).read_bytes() == WEIGHTS


def test_a_hub_download_that_breaks_off_is_resumed(hub, repo, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)  # what is less than a chunk is not kept
    hub.fault(BLOB, cut_after=1500, reset=False)
    assert fetch(SOURCE).read_bytes() == WEIGHTS
    assert hub.downloads[BLOB] == 2
    assert hub.ranges[BLOB] == ["bytes=1500-"]


def test_a_hub_download_whose_connection_is_reset_is_begun_anew(hub, repo):
    hub.fault(BLOB, cut_after=1500, times=2)
    assert fetch(SOURCE).read_bytes() == WEIGHTS
    assert hub.downloads[BLOB] == 3


def test_a_hub_download_with_wrong_content_is_fetched_again_once(hub, repo):
    hub.fault(BLOB, content=OTHER)
    assert fetch(SOURCE).read_bytes() == WEIGHTS
    assert hub.downloads[BLOB] == 2


def test_a_hub_download_with_wrong_content_twice(hub, repo):
    hub.fault(BLOB, content=OTHER, times=None)
    with pytest.raises(ChecksumError) as caught:
        fetch(SOURCE)
    assert f"expected sha256 {sha256(WEIGHTS)}, found {sha256(OTHER)}" in str(caught.value)
    assert "model.safetensors" in str(caught.value)
    assert hub.downloads[BLOB] == 2
    assert is_cached(SOURCE) is None


def test_a_repository_with_other_weights_than_the_pinned_ones(hub, repo):
    assert fetch(SOURCE, sha256=sha256(WEIGHTS).upper())
    with pytest.raises(ChecksumError, match=f"expected sha256 {sha256(OTHER)}, found {sha256(WEIGHTS)}"):
        fetch(SOURCE, sha256=sha256(OTHER))
    assert hub.downloads[BLOB] == 1  # the hub says that it has nothing else
    hub.add_repo(REPO, {"model.safetensors": OTHER})
    assert fetch(SOURCE, sha256=sha256(OTHER)).read_bytes() == OTHER


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: b""])
def test_a_damaged_file_in_the_hub_s_cache_is_fetched_again(hub, repo, damage):
    blob = fetch(SOURCE).resolve()
    blob.write_bytes(damage(WEIGHTS))
    assert fetch(SOURCE).read_bytes() == WEIGHTS
    assert hub.downloads[BLOB] == 2


def test_a_damaged_file_in_the_hub_s_cache_offline(hub, repo, offline):
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = False
    blob = fetch(SOURCE).resolve()
    constants.HF_HUB_OFFLINE = True
    blob.write_bytes(WEIGHTS[:-100])
    with pytest.raises(CheckpointError, match=f"truncated or damaged: {len(WEIGHTS) - 100} bytes, .* {len(WEIGHTS)}"):
        fetch(SOURCE)
    assert blob.exists()


def test_a_damaged_file_that_cannot_be_fetched_again(hub, repo):
    fetch(SOURCE).resolve().write_bytes(WEIGHTS[:-100])
    hub.fault("*", status=404, headers={"X-Error-Code": "RepoNotFound"}, times=None)
    with pytest.raises(DownloadError, match=r"truncated or damaged.*could not be fetched again: .*no repository"):
        fetch(SOURCE)


def share_blob(path):
    """Move a blob where huggingface_hub shares those that come by Xet: linked to, by another hash than sha256."""
    blob = path.parent / os.readlink(path)
    store = put(mvlib.hub.cache_paths()["hub"] / "blobs" / "ab" / ("ab" + "0" * 62), blob.read_bytes())
    put(store.parents[1] / ".huggingface-shared-blobs", b"1\n")
    blob = Path(os.path.normpath(blob))
    put(store.with_name(store.name + ".refs"), (blob.relative_to(store.parents[2]).as_posix() + "\n").encode())
    blob.unlink()
    blob.symlink_to(os.path.relpath(store, blob.parent))
    return store


def test_a_blob_in_the_shared_store_is_known_by_its_sha256(hub, repo):
    path = fetch(SOURCE)
    share_blob(path)
    assert mvlib.hub._hub_damage(path, None, True) is None  # as after a download by Xet
    assert fetch(SOURCE, sha256=sha256(WEIGHTS)) == path
    assert hub.downloads[BLOB] == 1


def test_a_damaged_blob_in_the_shared_store(hub, repo):
    store = share_blob(fetch(SOURCE))
    store.write_bytes(WEIGHTS[:-1])
    assert fetch(SOURCE).read_bytes() == WEIGHTS
    assert not store.exists()


def test_an_older_client_s_cache_without_links(hub, repo, monkeypatch):
    path = fetch(SOURCE)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    assert fetch(SOURCE, sha256=sha256(WEIGHTS)) == path
    path.write_bytes(OTHER)
    assert fetch(SOURCE, sha256=sha256(WEIGHTS)).read_bytes() == WEIGHTS


# newer revisions

def test_a_branch_that_has_moved(hub, repo):
    assert find_newer(SOURCE) is None  # nothing is cached
    fetch_config(SOURCE), fetch(SOURCE)
    forget_requests(hub)
    assert find_newer(SOURCE) is None
    assert hub.requests == {f"/api/models/{REPO}": 1}
    commit = hub.add_repo(REPO, {"config.json": CONFIG, "model.safetensors": OTHER})
    newer = find_newer(SOURCE)
    assert newer == f"{SOURCE}@{commit}"
    assert fetch(newer).read_bytes() == OTHER
    assert fetch(SOURCE).read_bytes() == WEIGHTS  # until it is said that all of it is here
    keep_newer(SOURCE, newer)
    assert fetch(SOURCE).read_bytes() == OTHER
    assert find_newer(SOURCE) is None
    forget_requests(hub)
    assert find_newer(newer) is None and find_newer("local-dir:/x") is None
    assert not hub.requests


def test_other_branches_move_too(hub, repo):
    for revision in ("v2", "refs/pr/1"):
        hub.add_repo(REPO, {"model.safetensors": WEIGHTS}, revision=revision)
        fetch(f"{SOURCE}@{revision}")
        commit = hub.add_repo(REPO, {"model.safetensors": OTHER}, revision=revision)
        assert find_newer(f"{SOURCE}@{revision}") == f"{SOURCE}@{commit}"
        fetch(f"{SOURCE}@{commit}")
        keep_newer(f"{SOURCE}@{revision}", f"{SOURCE}@{commit}")
        assert fetch(f"{SOURCE}@{revision}").read_bytes() == OTHER


@pytest.mark.parametrize("trouble", ["status", "gated", "gone", "down", "offline", "silence", "unresolved"])
def test_whether_there_is_a_newer_revision_cannot_be_known(trouble, hub, repo, monkeypatch, capfd, caplog):
    from huggingface_hub import HfApi, constants

    fetch(SOURCE)
    hub.add_repo(REPO, {"model.safetensors": OTHER})
    answer = threading.Event()
    if trouble == "status":
        hub.fault("*", status=500, times=None)
    elif trouble == "gated":
        hub.repos[REPO].gated = True
    elif trouble == "gone":
        del hub.repos[REPO]
    elif trouble == "down":
        hub.stop()
    elif trouble == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif trouble == "silence":
        monkeypatch.setattr(mvlib.hub, "_NEWER_SECONDS", 0.01)
        monkeypatch.setattr(HfApi, "model_info", lambda *args, **kwargs: answer.wait() and None)
    else:
        monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    assert find_newer(SOURCE) is None
    answer.set()
    assert not caplog.records and capfd.readouterr() == ("", "")


# mistakes with the hub

def test_a_config_holds_nothing_that_a_terminal_would_obey(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "label_names": [
        "\x1b[31mred", "line\nbreak", "half \ud800", "\u732b caf\u00e9"]}))
    assert mvlib.hub.fetch_config(f"local-dir:{tmp_path}")["label_names"] == [
        "\ufffd[31mred", "line\nbreak", "half \ufffd", "\u732b caf\u00e9"]


def test_no_such_repository(hub):
    with pytest.raises(DownloadError, match=r"the hub has no repository 'no/body' \(404\), or it is private and needs "
                                            r"`hf auth login` or HF_TOKEN"):
        fetch("hf-hub:no/body")


def test_no_such_file(hub, repo):
    with pytest.raises(DownloadError, match=rf"'{REPO}' holds no weights file \(404\); looked for mine.safetensors"):
        fetch(SOURCE, filename="mine.safetensors")
    hub.add_repo("a/b", {"README.md": b"hello"})
    with pytest.raises(DownloadError, match=r"'a/b' holds no weights file .*model.safetensors, pytorch_model.bin"):
        fetch("hf-hub:a/b")


def test_no_such_revision(hub, repo):
    with pytest.raises(DownloadError, match=rf"'{REPO}' has no revision 'v9' \(404\)"):
        fetch(f"{SOURCE}@v9")


def test_gated(hub):
    hub.add_repo(REPO, {"model.safetensors": WEIGHTS}, gated=True)
    with pytest.raises(DownloadError) as caught:
        fetch(SOURCE)
    text = str(caught.value)
    assert "is gated (401): accept its terms at " + hub.url(f"/{REPO}") in text
    assert "log in with `hf auth login` or set HF_TOKEN" in text


@pytest.mark.parametrize(("status", "hint"), [
    (401, "log in with `hf auth login`"), (403, "log in with `hf auth login`"), (500, "try again later"),
    (503, "try again later"), (429, "try again later"),
])
def test_the_hub_refuses(hub, repo, status, hint):
    headers = {"X-Error-Message": "Invalid credentials in Authorization header"}
    hub.fault("*", status=status, times=None, headers=headers)
    with pytest.raises(DownloadError, match=f"the hub answered {status} for model.safetensors of '{REPO}'; {hint}"):
        fetch(SOURCE)


def test_a_hub_that_always_breaks_off(hub, repo):
    hub.fault(BLOB, cut_after=0, times=None)
    with pytest.raises(DownloadError, match=f"model.safetensors of '{REPO}' could not be downloaded"):
        fetch(SOURCE)
    assert is_cached(SOURCE) is None


def test_not_cached_and_offline(hub, offline):
    with pytest.raises(NotCachedError) as caught:
        fetch(f"{SOURCE}@v2")
    text = str(caught.value)
    command = f"hf download {REPO} config.json model.safetensors --revision v2"
    assert "model.safetensors is not cached, and HF_HUB_OFFLINE is set" in text
    assert f"run `{command} --cache-dir weights`, and" in text
    assert f"copy weights/models--timm--resnet18.a1_in1k to {cache_paths()['hub']}/ on this one" in text
    assert "\n" not in text
    with pytest.raises(NotCachedError, match=rf"hf download {REPO} odd.pt --cache-dir"):
        fetch(SOURCE, filename="odd.pt")
    assert not hub.requests


def test_the_command_that_the_error_gives_works(hub, repo, tmp_path, monkeypatch):
    """On the machine with a network, as it stands in the message; then the folder is copied."""
    hf = Path(sys.executable).with_name("hf")
    if not hf.exists():
        pytest.skip("the hf command is not beside this interpreter")
    with monkeypatch.context() as patch:
        from huggingface_hub import constants

        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(NotCachedError) as caught:
            fetch(SOURCE)
    command = re.search("`(hf [^`]+)`", str(caught.value))[1]
    subprocess.run([str(hf), *command.split()[1:]], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    shutil.copytree(tmp_path / "weights" / "models--timm--resnet18.a1_in1k",
                    cache_paths()["hub"] / "models--timm--resnet18.a1_in1k", symlinks=True)
    forget_requests(hub)
    assert fetch(SOURCE).read_bytes() == WEIGHTS
    assert not hub.requests


def test_not_cached_and_unreachable(unreachable):
    with pytest.raises(NotCachedError, match=r"is not cached, and the hub cannot be reached \(.+\); on a machine that "
                                             r"has a network, run `hf download"):
        fetch(SOURCE)


@pytest.mark.parametrize("name", ["../etc/passwd", "a/b/c", "", "timm/..", "a b/c"])
def test_impossible_repositories(name):
    with pytest.raises(DownloadError, match=r"cannot be a repository of the hub|owner/name"):
        fetch(f"hf-hub:{name}")


@pytest.mark.parametrize("revision", ["../../x", "/etc", "a/../../b"])
def test_hostile_revisions(hub, revision):
    with pytest.raises(DownloadError, match=r"leads out of its folder"):
        fetch(f"{SOURCE}@{revision}")
    assert not hub.requests


@pytest.mark.parametrize("filename", ["../../etc/passwd", "/etc/passwd", "a/../../b", "..\\x", "C:\\x", "", "a\0b"])
@pytest.mark.parametrize("source", [SOURCE, "https://example.com/x.pth", "local-dir:/tmp"])
def test_hostile_file_names(hub, source, filename):
    for ask in (fetch, is_cached):
        with pytest.raises(DownloadError, match="leads out of its folder"):
            ask(source, filename=filename)
    assert not hub.requests


# files by URL

def test_a_url_goes_where_torchvision_puts_it(hub, url):
    path = fetch(url)
    assert path == torch_checkpoints_dir() / NAME
    assert path.read_bytes() == CHECKPOINT
    assert cached_files(checkpoints()) == [f".{NAME}.verified", NAME]


def test_torch_finds_what_was_fetched(hub, url):
    import torch

    torch.save({"w": torch.ones(3)}, buffer := io.BytesIO())
    name = f"/w-{sha256(buffer.getvalue())[:8]}.pth"
    source = hub.add_file(name, buffer.getvalue())
    fetch(source)
    forget_requests(hub)
    assert torch.hub.load_state_dict_from_url(source, check_hash=True)["w"].sum() == 3
    assert not hub.requests


def test_what_torchvision_left_is_verified_when_first_seen(hub, url, monkeypatch):
    put(checkpoints() / NAME, CHECKPOINT)
    hashed = []
    original = mvlib.hub._sha256
    monkeypatch.setattr(mvlib.hub, "_sha256", lambda path: hashed.append(path) or original(path))
    assert fetch(url).read_bytes() == CHECKPOINT
    assert fetch(url).read_bytes() == CHECKPOINT
    assert fetch(url, sha256=sha256(CHECKPOINT))
    assert len(hashed) == 1
    os.utime(checkpoints() / NAME, (1, 1))
    fetch(url)
    assert len(hashed) == 2
    assert not hub.requests


def test_a_wrong_file_in_torch_s_cache_is_replaced(hub, url):
    put(checkpoints() / NAME, zip_file(b"other"))
    assert fetch(url).read_bytes() == CHECKPOINT
    assert hub.downloads[f"/tv/{NAME}"] == 1


def test_a_wrong_file_that_took_a_right_one_s_place(hub, url):
    path = fetch(url)
    time.sleep(0.02)
    path.write_bytes(zip_file(b"other"))
    assert fetch(url).read_bytes() == CHECKPOINT


def test_a_wrong_file_in_torch_s_cache_offline(hub, url, offline):
    path = put(checkpoints() / NAME, zip_file(b"other"))
    with pytest.raises(ChecksumError, match=f"expected sha256 {NAME[9:17]}, found {sha256(zip_file(b'other'))}"):
        fetch(url)
    assert path.exists()


def test_a_wrong_file_that_cannot_be_fetched_again(hub, url):
    put(checkpoints() / NAME, zip_file(b"other"))
    hub.fault("*", status=404)
    with pytest.raises(DownloadError, match="expected sha256 .* and it could not be fetched again: .* 404"):
        fetch(url)


def test_a_cache_that_is_read_only(hub, url, monkeypatch):
    path = put(checkpoints() / NAME, CHECKPOINT)

    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert fetch(url) == path
    path.unlink()
    with pytest.raises(DownloadError, match=r"cannot be saved as .*: Permission denied; pass cache_dir= or set T"):
        fetch(url)


def test_the_checksum_that_is_given_counts_before_the_name(hub):
    source = hub.add_file("/w-00000000.pth", CHECKPOINT)
    assert fetch(source, sha256=sha256(CHECKPOINT))
    with pytest.raises(ChecksumError):
        fetch(source)


def test_a_url_without_a_checksum(hub):
    source = hub.add_file("/mine-v2.pth", CHECKPOINT)
    assert fetch(source).read_bytes() == CHECKPOINT
    forget_requests(hub)
    fetch(source)
    assert not hub.requests


def test_a_url_saved_under_another_name(hub, url):
    assert fetch(url, filename="mine.pth") == checkpoints() / "mine.pth"


def test_a_query_is_no_part_of_the_name(hub, url):
    assert fetch(f"{url}?download=true") == checkpoints() / NAME


def test_a_url_that_breaks_off_is_resumed(hub, url):
    hub.fault(f"/tv/{NAME}", cut_after=1000)
    hub.fault(f"/tv/{NAME}", cut_after=500)
    assert fetch(url).read_bytes() == CHECKPOINT
    assert hub.ranges[f"/tv/{NAME}"] == ["bytes=1000-", "bytes=1500-"]
    assert cached_files(checkpoints()) == [f".{NAME}.verified", NAME]


def test_a_connection_that_closes_early_and_in_order(hub):
    source = hub.add_file("/mine.pth", CHECKPOINT)
    hub.fault("/mine.pth", cut_after=1000, reset=False)
    assert fetch(source).read_bytes() == CHECKPOINT
    assert hub.ranges["/mine.pth"] == ["bytes=1000-"]


def test_the_next_call_goes_on_where_this_one_broke_off(hub, url):
    hub.fault("*", cut_after=1000)
    hub.fault("*", cut_after=0, times=4)
    with pytest.raises(DownloadError, match="given up after 5 tries"):
        fetch(url)
    assert is_cached(url) is None
    assert fetch(url).read_bytes() == CHECKPOINT
    assert hub.ranges[f"/tv/{NAME}"][-1] == "bytes=1000-"


def test_the_beginning_of_another_file_is_thrown_away(hub, url):
    put(checkpoints() / (NAME.removesuffix(".pth") + ".part.pth"), b"x" * 100)
    assert fetch(url).read_bytes() == CHECKPOINT
    put(checkpoints() / "mine.part.pth", b"x" * 100)
    assert fetch(hub.add_file("/mine.pth", CHECKPOINT)).read_bytes() == CHECKPOINT
    assert "/mine.pth" not in hub.ranges


def test_a_beginning_that_is_longer_than_the_file(hub, url):
    put(checkpoints() / (NAME.removesuffix(".pth") + ".part.pth"), b"x" * 99999)
    assert fetch(url).read_bytes() == CHECKPOINT


def test_a_url_with_wrong_content_is_fetched_again_once(hub, url):
    hub.fault("*", content=b"<html>log in to this network</html>")
    assert fetch(url).read_bytes() == CHECKPOINT
    assert hub.downloads[f"/tv/{NAME}"] == 2


def test_a_url_with_wrong_content_twice(hub, url):
    hub.fault("*", content=b"<html>", times=None)
    with pytest.raises(ChecksumError) as caught:
        fetch(url)
    assert f"expected sha256 {NAME[9:17]}, found {sha256(b'<html>')}" in str(caught.value)
    assert str(checkpoints() / NAME) in str(caught.value)
    assert hub.downloads[f"/tv/{NAME}"] == 2
    assert cached_files(checkpoints()) == []


@pytest.mark.parametrize(("name", "data", "message"), [
    ("/w.safetensors", WEIGHTS[:-10], "w.safetensors arrives damaged: .* truncated"),
    ("/w.pth", CHECKPOINT[:-30], "w.pth arrives damaged: .* truncated"),
    ("/w.pth", b"", r"w.pth arrives damaged: .* is empty \(zero bytes\)"),
])
def test_a_url_with_a_damaged_file(hub, name, data, message):
    with pytest.raises(CheckpointError, match=message):
        fetch(hub.add_file(name, data))
    assert cached_files(checkpoints()) == []


def test_a_header_may_have_any_length(tmp_path):
    """The first byte of a safetensors file is that of its header's length: torch.save's files begin with 0x80, too."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    for length in (0x80, 0x80 + 256):
        path = tmp_path / "w.safetensors"
        path.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + b"x")
        assert path.read_bytes()[0] == 0x80
        check_complete(path)


def test_a_page_is_not_kept_as_weights(hub):
    url = hub.add_file("/w.pth", b"<html>log in</html>")
    with pytest.raises(CheckpointError, match="w.pth arrives damaged: .* is a web page"):
        fetch(url)
    assert cached_files(checkpoints()) == []


# mistakes with URLs

@pytest.mark.parametrize(("status", "message"), [
    (404, r"the server answered 404 \(.*\); the file was moved or deleted"),
    (403, r"the server answered 403 \(.*\); it may not be fetched from here"),
    (401, r"the server answered 401 \(.*\); it needs a login"),
])
def test_the_server_refuses(hub, url, status, message):
    hub.fault("*", status=status, times=None)
    with pytest.raises(DownloadError, match=f"{url}: {message}"):
        fetch(url)
    assert sum(hub.requests.values()) == 1


def test_the_server_s_500(hub, url):
    hub.fault("*", status=500, times=2)
    assert fetch(url).read_bytes() == CHECKPOINT
    remove_cached("*")
    hub.fault("*", status=500, times=None)
    with pytest.raises(DownloadError, match=r"given up after 5 tries: the server answered 500"):
        fetch(url)


def test_a_server_that_is_unreachable(hub, unreachable):
    with pytest.raises(NotCachedError) as caught:
        fetch(f"{unreachable}/{NAME}")
    text = str(caught.value)
    assert "unreachable: " in text
    assert f"run `curl -L -o {NAME} {unreachable}/{NAME}`, and" in text
    assert f"copy the file to {checkpoints() / NAME} on this one" in text and "\n" not in text
    assert not checkpoints().exists()


def test_a_url_offline(hub, url, offline):
    with pytest.raises(NotCachedError, match=r"not cached, and HF_HUB_OFFLINE is set; on a machine .* `curl -L -o"):
        fetch(url)
    assert not hub.requests
    assert not checkpoints().exists()


@pytest.mark.parametrize("source", ["https:", "https://", "https://host", "https://host/", "https:x.pth",
                                    "https://[host/x.pth", "https://host/a b.pth", "http://host/\nx"])
def test_impossible_urls(hub, source):
    with pytest.raises(DownloadError, match="is not the URL of a file"):
        fetch(source)


@pytest.mark.parametrize("source", ["https://host/..", "https://host/%2e%2e%2fx.pth", "https://host/%2fetc%2fpasswd"])
def test_hostile_urls(hub, source):
    with pytest.raises(DownloadError, match="leads out of its folder"):
        fetch(source)


# a disk that is full

class FullDisk:
    """A file that takes so many bytes and no more."""

    def __init__(self, stream, room):
        self.stream, self.room = stream, room

    def write(self, data):
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(data)
        return self.stream.write(data)

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()


def test_a_full_disk(hub, url, monkeypatch):
    monkeypatch.setattr(mvlib.hub, "open", lambda *args: FullDisk(open(*args), 1000), raising=False)
    with pytest.raises(DownloadError) as caught:
        fetch(url)
    assert f"the disk is full: no room in {checkpoints()}; {len(CHECKPOINT)} bytes are needed" in str(caught.value)
    assert cached_files(checkpoints()) == []


def test_a_full_disk_under_the_hub_s_cache(hub, repo, monkeypatch):
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args, **kwargs: FullDisk(original(self, *args, **kwargs), 1000)
                        if self.name.endswith(".incomplete") else original(self, *args, **kwargs))
    with pytest.raises(DownloadError, match=f"the disk is full: no room in {cache_paths()['hub']}"):
        fetch(SOURCE)
    left = [name for name in cached_files(cache_paths()["hub"]) if "incomplete" in name or len(name) == 64]
    assert not [name for name in left if not (BY_REQUESTS and name.endswith(".incomplete"))]  # goes on with it later


# no network

NOWHERE = "http://name.invalid"  # a name that nobody may have


def test_a_name_that_cannot_be_resolved_is_said_in_one_line_and_at_once(hub, monkeypatch, capfd, caplog, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    before = list(tmp_path.rglob("*"))
    for source in (SOURCE, f"{NOWHERE}/{NAME}", [SOURCE, f"{NOWHERE}/{NAME}"]):
        with pytest.raises(NotCachedError, match="name.invalid: ") as caught:
            fetch(source)
        assert "\n" not in str(caught.value)
    with pytest.raises(NotCachedError, match="config.json is not cached, and the hub cannot be reached"):
        fetch_config(SOURCE)
    assert not caplog.records and capfd.readouterr() == ("", "")  # huggingface_hub would log each of its tries
    assert list(tmp_path.rglob("*")) == before


def test_a_download_that_broke_off_waits_for_the_network(hub, url):
    part = put(checkpoints() / f"{Path(NAME).stem}.part.pth", CHECKPOINT[:500])
    hub.stop()
    with pytest.raises(NotCachedError, match="unreachable"):
        fetch(url)
    assert part.exists()


def test_a_resolver_that_does_not_answer(hub, url, monkeypatch):
    import socket

    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: [] if answer.wait() else [])
    monkeypatch.setattr(mvlib.hub, "_REACH_SECONDS", 0.01)
    for source in (SOURCE, url):
        with pytest.raises(NotCachedError, match=r"127.0.0.1: no answer within 0.01 s"):
            fetch(source)
    answer.set()


def test_a_proxy_is_what_has_to_be_reached(hub, url, monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", hub.endpoint)
    assert mvlib.hub._unreachable(f"{NOWHERE}/x") is None
    monkeypatch.setenv("http_proxy", "name.invalid:3128")
    assert mvlib.hub._unreachable(url).startswith("name.invalid: ")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert mvlib.hub._unreachable(url) is None


def test_weights_of_the_architecture_that_are_here_are_named(hub, monkeypatch):
    monkeypatch.setattr(mvlib.hub, "_unreachable", lambda url: "no network")
    with pytest.raises(NotCachedError, match=f"^hf-hub:{REPO}: "):
        fetch_weights(mvlib.get_pretrained_cfg("resnet18.a1_in1k"))
    put(checkpoints() / "resnet18-f37072fd.pth", CHECKPOINT)
    message = ("^resnet18.tv_in1k, resnet18.imagenet1k_v1 can be used without a network, 'resnet18.a1_in1k' cannot: "
               "hf-hub:[^\n]*$")
    with pytest.raises(NotCachedError, match=message):
        fetch_weights(mvlib.get_pretrained_cfg("resnet18.a1_in1k"))
    with pytest.raises(NotCachedError, match=message):
        mvlib.create_model("resnet18.a1_in1k")
    with pytest.raises(NotCachedError, match=message):
        mvlib.enums.weights_of("resnet18.a1_in1k").get_state_dict()


# two processes


def test_downloads_leave_no_lock(hub, url):
    fetch(url)
    hub.fault("*", status=404, times=None)
    with pytest.raises(DownloadError):
        fetch(hub.url("/tv/gone.pth"))
    assert sorted(os.listdir(checkpoints())) == [f".{NAME}.verified", NAME]


@pytest.mark.parametrize("kind", ["hub", "url"])
def test_two_processes_ask_at_once_and_one_downloads(kind, hub, repo, url, tmp_path):
    hub.delay = 0.5
    source, path = (SOURCE, BLOB) if kind == "hub" else (url, f"/tv/{NAME}")
    code = ("import pathlib, sys, time; from mvlib.hub import fetch; import filelock, huggingface_hub.file_download\n"
            "source, number, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])\n"
            "(folder / f'ready{number}').touch()\n"
            "while not (folder / 'go').exists(): time.sleep(0.002)\n"
            "print(fetch(source))")
    processes = [subprocess.Popen([sys.executable, "-c", code, source, str(number), str(tmp_path)], text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE) for number in range(2)]
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"ready{number}").exists() for number in range(2)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (tmp_path / "go").touch()
    replies = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], replies
    assert len({out for out, _ in replies}) == 1
    assert Path(replies[0][0].strip()).read_bytes() == (WEIGHTS if kind == "hub" else CHECKPOINT)
    assert hub.downloads[path] == 1


def test_no_progress_bar_in_a_pipe(hub, repo, url):
    code = f"from mvlib.hub import fetch; fetch({SOURCE!r}); fetch({url!r})"
    reply = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert reply.returncode == 0, reply.stderr
    assert "%|" not in reply.stdout + reply.stderr


def test_processes_that_a_test_starts_have_its_caches(hub):
    code = "from mvlib.hub import cache_paths; print(*cache_paths().values())"
    reply = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert reply.stdout.split() == [str(path) for path in cache_paths().values()]


def test_progress_bars_can_be_switched_off(hub, repo):
    from huggingface_hub.utils import are_progress_bars_disabled

    fetch(SOURCE, progress=False)
    assert not are_progress_bars_disabled()


def test_importing_is_cheap():
    code = ("import sys, mvlib.hub; print([m for m in ('torch', 'huggingface_hub', 'httpx2', 'tqdm', 'filelock', "
            "'urllib.request') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout == "[]\n"


# files, folders, packages

def test_a_file(tmp_path):
    path = put(tmp_path / "w.safetensors", WEIGHTS)
    assert fetch(f"file:{path}") == path
    assert fetch(f"file:{path}", sha256=sha256(WEIGHTS)[:16]) == path
    with pytest.raises(ChecksumError, match=f"{path} is not the file .* expected sha256 00aa, found {sha256(WEIGHTS)}"):
        fetch(f"file:{path}", sha256="00aa")
    assert path.exists()


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(DownloadError, match=f"file:{tmp_path}/w.pth: there is no such file"):
        fetch(f"file:{tmp_path}/w.pth")


def test_a_folder(tmp_path):
    put(tmp_path / "pytorch_model.bin", CHECKPOINT)
    assert fetch(f"local-dir:{tmp_path}") == tmp_path / "pytorch_model.bin"
    put(tmp_path / "model.safetensors", WEIGHTS)
    assert fetch(f"local-dir:{tmp_path}") == tmp_path / "model.safetensors"
    assert fetch(f"local-dir:{tmp_path}", filename="pytorch_model.bin") == tmp_path / "pytorch_model.bin"


def test_a_folder_in_one_s_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "mine" / "model.safetensors", WEIGHTS)
    put(tmp_path / "mine" / "config.json", CONFIG)
    assert fetch("local-dir:~/mine").read_bytes() == WEIGHTS
    assert fetch_config("local-dir:~/mine") == {"architecture": "resnet18"}


def test_a_folder_that_is_missing_or_without_weights(tmp_path):
    with pytest.raises(DownloadError, match=f"local-dir:{tmp_path}/no: there is no such folder"):
        fetch(f"local-dir:{tmp_path}/no")
    with pytest.raises(DownloadError, match=r"the folder holds no weights; looked for model.safetensors, pytorch_mod"):
        fetch(f"local-dir:{tmp_path}")


@pytest.fixture
def package(tmp_path, monkeypatch):
    put(tmp_path / "some_weights" / "__init__.py", b"raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return put(tmp_path / "some_weights" / "files" / "w.pth", CHECKPOINT)


def test_a_file_in_a_package_that_is_not_imported(package):
    source = "pkg:some_weights/files/w.pth"
    assert fetch(source) == is_cached(source) == package
    assert fetch(source, sha256=sha256(CHECKPOINT)) == package
    with pytest.raises(ChecksumError, match=f"expected sha256 {'0' * 64}, found {sha256(CHECKPOINT)}"):
        fetch(source, sha256="0" * 64)


def test_a_package_that_is_not_installed():
    with pytest.raises(NotCachedError, match=r"package that is not installed; run `pip install no-such-weights`$"):
        fetch("pkg:no_such_weights/w.pth")


def test_a_package_without_the_file(package):
    with pytest.raises(DownloadError, match=r"'some_weights' is installed but has no file 'v2.pth'; another version"):
        fetch("pkg:some_weights/v2.pth")


@pytest.mark.parametrize("path", ["../secret", "files/../../secret", "/etc/passwd", ""])
def test_paths_that_leave_the_package(package, path):
    with pytest.raises(DownloadError, match="leads out of its folder"):
        fetch(f"pkg:some_weights/{path}")


@pytest.mark.parametrize("name", ["..", "a-b", "os.path", ""])
def test_impossible_packages(name):
    with pytest.raises(DownloadError, match="is not the name of a Python package"):
        fetch(f"pkg:{name}/w.pth")


def test_a_program_is_no_package():
    with pytest.raises(NotCachedError, match="not installed"):
        fetch("pkg:__main__/w.pth")


# several sources

def test_what_is_cached_goes_before_what_stands_first(hub, repo, url):
    put(checkpoints() / NAME, CHECKPOINT)
    assert fetch([SOURCE, url]) == checkpoints() / NAME
    assert not hub.requests


def test_the_next_source_is_tried(hub, url):
    assert fetch(["hf-hub:no/body", "file:/nowhere.pth", url]).read_bytes() == CHECKPOINT


def test_a_damaged_source_is_no_obstacle(hub, url, tmp_path):
    put(tmp_path / "w.pth", b"")
    assert fetch([f"file:{tmp_path}/w.pth", "pkg:../x", url]).read_bytes() == CHECKPOINT


def test_every_source_fails(hub, url, tmp_path):
    hub.fault("/tv/*", status=404)
    put(tmp_path / "w.pth", b"")
    with pytest.raises(DownloadError) as caught:
        fetch(["hf-hub:no/body", url, f"file:{tmp_path}/w.pth", "pkg:no_such/w.pth"])
    text = str(caught.value)
    assert text.startswith("no source of the weights could be used:\n")
    assert "- hf-hub:no/body: the hub has no repository 'no/body'" in text
    assert f"- {url}: the server answered 404" in text
    assert f"- file:{tmp_path}/w.pth: {tmp_path}/w.pth is empty" in text
    assert "- pkg:no_such/w.pth: the weights are in a Python package that is not installed" in text
    assert not isinstance(caught.value, NotCachedError)


def test_no_source_is_cached(hub, offline):
    with pytest.raises(NotCachedError, match=r"(?s)hf download.*curl -L.*pip install no-such"):
        fetch([SOURCE, "https://example.com/w.pth", "pkg:no_such/w.pth"])


def test_no_source():
    with pytest.raises(DownloadError, match="no source is known for these weights"):
        fetch([])


@pytest.mark.parametrize("source", ["hf-hubb:timm/x", "s3:bucket/x", "resnet50", "file", "C:\\w.pth"])
def test_unknown_sources(source):
    for ask in (fetch, is_cached):
        with pytest.raises(DownloadError) as caught:
            ask(source)
        assert f"unknown source '{source}'; known: hf-hub:, https:, http:, file:, local-dir:, pkg:" in str(caught.value)
    assert "did you mean 'hf-hub'" in str(caught.value) or source != "hf-hubb:timm/x"


# config.json

def test_a_config(hub, repo, tmp_path):
    assert fetch_config(SOURCE) == {"architecture": "resnet18"}
    put(tmp_path / "config.json", CONFIG)
    assert fetch_config(f"local-dir:{tmp_path}") == {"architecture": "resnet18"}


@pytest.mark.parametrize(("data", "message"), [
    (b"<html>", "is not JSON"), (b"", "is not JSON"), (b"\xff\xfe{}", "is not JSON"), (b"[1]", "is not a JSON object"),
    (b'"text"', "is not a JSON object"), (b"[" * 100_000, "is nested too deeply|is not JSON"),
    (b"{\"a\":" * 500 + b"1" + b"}" * 500, "is nested too deeply"),
    (b'{"x": ' + b"9" * 5000 + b"}", "is not JSON"),
    (b" " * (2**20 + 1), r"1048577 bytes are too many .*at most 1048576"),
])
def test_bad_configs(hub, data, message, tmp_path):
    hub.add_repo("evil/model", {"config.json": data})
    with pytest.raises(ConfigError, match=f"config.json.*({message})"):
        fetch_config("hf-hub:evil/model")
    put(tmp_path / "config.json", data)
    with pytest.raises(ConfigError, match=f"{tmp_path}/config.json.*({message})"):
        fetch_config(f"local-dir:{tmp_path}")


def test_no_config(hub, tmp_path):
    hub.add_repo("a/b", {"model.safetensors": WEIGHTS})
    with pytest.raises(ConfigError, match="'a/b' holds no config.json: it is not a timm-style repository"):
        fetch_config("hf-hub:a/b")
    with pytest.raises(ConfigError, match=f"{tmp_path} holds no config.json"):
        fetch_config(f"local-dir:{tmp_path}")
    with pytest.raises(ConfigError, match=f"there is no folder {tmp_path}/typo"):
        fetch_config(f"local-dir:{tmp_path}/typo")
    with pytest.raises(ConfigError, match="only hf-hub: and local-dir: sources have one"):
        fetch_config("file:/x")


def test_a_config_offline(hub, offline):
    with pytest.raises(NotCachedError, match=rf"hf download {REPO} config.json model.safetensors --cache-dir"):
        fetch_config(SOURCE)


# whole files

@pytest.mark.parametrize(("name", "data"), [
    ("w.safetensors", WEIGHTS), ("w.safetensors", b"\2\0\0\0\0\0\0\0{}"), ("w.pth", CHECKPOINT),
    ("w.pth", b"\x80\x02}q\0."), ("w.npz", zip_file()),
])
def test_whole_files(name, data, tmp_path):
    check_complete(put(tmp_path / name, data))


@pytest.mark.parametrize(("name", "data", "message"), [
    ("w.safetensors", b"", r"is empty \(zero bytes\)"),
    ("w.pth", b"", r"is empty \(zero bytes\)"),
    ("w.safetensors", b"\1\2", "is truncated: 2 bytes"),
    ("w.safetensors", WEIGHTS[:30], r"is truncated or no safetensors file: 30 bytes, a header of \d+"),
    ("w.safetensors", WEIGHTS[:-1], rf"truncated or damaged: {len(WEIGHTS) - 1} bytes, its header says {len(WEIGHTS)}"),
    ("w.safetensors", WEIGHTS + b"\0", r"its header says"),
    ("w.safetensors", safetensors_file(offset=2**60), r"its header says \d{19}"),
    ("w.safetensors", b"\xff" * 100, "is truncated or no safetensors file"),
    ("w.safetensors", b"\6\0\0\0\0\0\0\0<html>", "its header cannot be read"),
    ("w.safetensors", b"\3\0\0\0\0\0\0\0[1]", "its header cannot be read"),
    ("w.safetensors", (10**5).to_bytes(8, "little") + b"[" * 10**5, "its header cannot be read"),
    ("w.safetensors", b"\7\0\0\0\0\0\0\0" + b'{"a":1}', "its header cannot be read"),
    ("w.pth", b"hello", "is a text file, not a weights file"),
    ("w.pth", ("naïve " * 200).encode(), "is a text file, not a weights file"),
    ("w.pth", b"\n<!DOCTYPE html><body>404</body>" * 20, "is a web page, not a weights file"),
    ("w.safetensors", b"version https://git-lfs.github.com/spec/v1\noid 1\n", "a pointer of Git LFS.*git lfs pull"),
    ("w.safetensors", CHECKPOINT, "is a file of torch.save's: give it the ending .pth"),
    ("w.pth", CHECKPOINT[:1000], "is truncated: its 1000 bytes begin as a zip archive and do not end as one"),
])
def test_damaged_files(name, data, message, tmp_path):
    path = put(tmp_path / name, data)
    with pytest.raises(CheckpointError, match=message):
        check_complete(path)
    with pytest.raises(CheckpointError, match=message):
        fetch(f"file:{path}")


# the caches

@pytest.mark.parametrize("variables", [
    {}, {"XDG_CACHE_HOME": "/x/cache"}, {"TORCH_HOME": "/x/torch"}, {"TORCH_HOME": "~/t", "XDG_CACHE_HOME": "/x"},
    {"HF_HOME": "/x/hf"}, {"HF_HUB_CACHE": "/x/c", "HF_HOME": "/x/hf"}, {"HUGGINGFACE_HUB_CACHE": "/x/old"},
    {"HF_HOME": "$HOME/hf"},
])
def test_the_folders_are_those_of_torch_and_huggingface_hub(variables):
    code = ("import os\nfrom mvlib.hub import cache_paths\npaths = cache_paths()\n"
            "from torch import hub\nfrom huggingface_hub import constants\n"
            "assert str(paths['torch']) == os.path.join(hub.get_dir(), 'checkpoints'), (paths, hub.get_dir())\n"
            "assert str(paths['hub']) == constants.HF_HUB_CACHE, (paths, constants.HF_HUB_CACHE)\n"
            "assert cache_paths() == paths\n")
    names = ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    environment = {k: v for k, v in os.environ.items() if k not in names} | variables
    # torch.hub alone is wanted, and importing torch takes seconds: its function is read from the file.
    code = code.replace("from torch import hub\n", _TORCH_HUB)
    reply = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert reply.returncode == 0, reply.stderr


_TORCH_HUB = '''
import ast, importlib.util, pathlib, types, typing
folder = importlib.util.find_spec("torch").submodule_search_locations[0]
tree = ast.parse((pathlib.Path(folder) / "hub.py").read_text())
wanted = ("ENV_TORCH_HOME", "ENV_XDG_CACHE_HOME", "DEFAULT_CACHE_DIR", "_hub_dir")
keep = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in ("get_dir", "_get_torch_home")
        or isinstance(n, (ast.Assign, ast.AnnAssign))
        and getattr(n.targets[0] if isinstance(n, ast.Assign) else n.target, "id", "") in wanted]
names = {"os": os, "warnings": types.SimpleNamespace(warn=print), "Optional": typing.Optional}  # of older torch
exec(compile(ast.Module(keep, []), "hub.py", "exec"), names)
hub = types.SimpleNamespace(**names)
'''


def test_what_is_in_the_caches(hub, repo, url, tmp_path):
    assert cache_entries() == []
    fetch(SOURCE)
    fetch_config(SOURCE)
    fetch(url)
    first, second = cache_entries()
    assert (first.name, first.kind, first.size) == (REPO, "hub", len(WEIGHTS) + len(CONFIG) + 40)  # and refs/main
    assert (second.name, second.kind, second.size) == (NAME, "torch", len(CHECKPOINT))
    assert first.path == cache_paths()["hub"] / "models--timm--resnet18.a1_in1k"
    assert second.path == checkpoints() / NAME
    assert abs(first.last_used - time.time()) < 100


def snapshot(name, files):
    for file, data in files.items():
        put(cache_paths()["hub"] / name / "snapshots" / ("0" * 40) / file, data)


def test_other_libraries_repositories_are_not_ours(hub):
    language = json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}).encode()
    snapshot("models--meta--llama", {"config.json": language, "model.safetensors": WEIGHTS})
    snapshot("models--some--diffuser", {"model_index.json": b"{}", "unet/diffusion_pytorch_model.safetensors": WEIGHTS})
    snapshot("models--some--adapter", {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS})
    snapshot("models--some--broken", {"config.json": b"<html>", "model.safetensors": WEIGHTS})
    snapshot("datasets--some--data", {"model.safetensors": WEIGHTS})
    snapshot("models--laion--clip", {"open_clip_config.json": b"{}", "open_clip_model.safetensors": WEIGHTS})
    snapshot("models--timm--vit", {"config.json": CONFIG})
    snapshot("models--timm--bare", {"weights.pt": CHECKPOINT})
    assert [e.name for e in cache_entries()] == ["laion/clip", "timm/bare", "timm/vit"]
    remove_cached("*")
    assert (cache_paths()["hub"] / "models--meta--llama").is_dir()
    assert cache_entries() == []


def test_removing(hub, repo, url):
    fetch(SOURCE)
    fetch(url)
    assert remove_cached("nothing*") == []
    assert [e.name for e in remove_cached(["*resnet18.a1*"])] == [REPO]
    assert is_cached(SOURCE) is None
    assert [e.name for e in remove_cached("resnet18-*.pth")] == [NAME]
    assert list(checkpoints().iterdir()) == []
    assert cache_entries() == []
    assert fetch([SOURCE]).read_bytes() == WEIGHTS


def test_removing_a_copy_of_a_repository(hub, repo):
    hub.repos["copy/cat"] = hub.repos[REPO]
    fetch(SOURCE)
    fetch("hf-hub:copy/cat")
    remove_cached("copy/*")
    assert is_cached(SOURCE) is not None
    assert is_cached("hf-hub:copy/cat") is None


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub.utils._shared_blobs") is None,
                    reason="this huggingface_hub knows no shared store")
def test_removing_frees_the_shared_store(hub, repo):
    store = share_blob(fetch(SOURCE))
    assert cache_entries()[0].size >= len(WEIGHTS)
    remove_cached(REPO)
    assert not store.exists()


# uploads

@pytest.fixture
def folder(tmp_path):
    put(tmp_path / "model" / "config.json", CONFIG)
    put(tmp_path / "model" / "README.md", b"---\nlicense: mit\n---\nhello")
    put(tmp_path / "model" / "model.safetensors", WEIGHTS)
    return tmp_path / "model"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of huggingface_hub's own making
def test_push(hub, folder):
    address = push_folder(folder, "me/mine", token="hf_x", private=True)
    assert address.startswith(hub.url("/me/mine/commit/"))
    assert fetch("hf-hub:me/mine").read_bytes() == WEIGHTS
    assert fetch_config("hf-hub:me/mine") == {"architecture": "resnet18"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_push_to_a_branch_and_as_a_pull_request(hub, folder):
    push_folder(folder, "me/mine", token="hf_x")
    put(folder / "model.safetensors", OTHER)
    push_folder(folder, "me/mine", token="hf_x", revision="next")
    assert fetch("hf-hub:me/mine@next").read_bytes() == OTHER
    assert fetch("hf-hub:me/mine").read_bytes() == WEIGHTS
    assert push_folder(folder, "me/mine", token="hf_x", create_pr=True) == hub.url("/me/mine/discussions/1")
    assert fetch("hf-hub:me/mine@refs/pr/1").read_bytes() == OTHER


def test_push_without_a_token(hub, folder):
    for token in (None, "", False):
        with pytest.raises(DownloadError, match=r"refused the upload to 'me/mine' \(401\); log in with `hf auth log"):
            push_folder(folder, "me/mine", token=token)


def test_push_that_shall_not_use_the_stored_token(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_stored")
    with pytest.raises(DownloadError, match=r"refused the upload to 'me/mine' \(401\)"):
        push_folder(folder, "me/mine", token=False)


def test_push_that_the_hub_refuses(hub, folder):
    hub.fault("/api/repos/create", status=500, times=None)
    with pytest.raises(DownloadError, match=r"the hub refused the upload to 'me/mine' \(500\)$"):
        push_folder(folder, "me/mine", token="hf_x")


def test_push_to_an_impossible_name(hub, folder):
    with pytest.raises(DownloadError, match=r"'me/my/mine' cannot be a repository of the hub"):
        push_folder(folder, "me/my/mine", token="hf_x")


def test_push_of_nothing(hub, tmp_path):
    with pytest.raises(ConfigError, match="no is not a folder"):
        push_folder(tmp_path / "no", "me/mine", token="hf_x")


def test_push_to_nowhere(unreachable, folder):
    with pytest.raises(DownloadError, match="the hub cannot be reached for the upload to 'me/mine'"):
        push_folder(folder, "me/mine", token="hf_x")


def test_push_offline(hub, offline, folder):
    with pytest.raises(DownloadError, match="nothing can be uploaded to 'me/mine': HF_HUB_OFFLINE is set"):
        push_folder(folder, "me/mine", token="hf_x")


def test_every_error_is_a_weights_error():
    for kind in (DownloadError, NotCachedError, ChecksumError, CheckpointError):
        assert issubclass(kind, WeightsError)
        assert issubclass(kind, RuntimeError)
    assert issubclass(ConfigError, ValueError)
