"""Engines that are kept: found by all that they depend on, and whole or not used, whatever happens to their makers."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import mvlib
from mvlib.cli import main
from mvlib.cli.output import format_size
from mvlib.engines import cache
from mvlib.engines.folder import ENGINE_FILE, EngineFolder, Tensor, new_folder, write_description
from mvlib.errors import CheckpointError, ConfigError


def build(path: Path, content: bytes = b"bytes" * 1000) -> None:
    """An export that nobody can run, for what happens to its files."""
    data_config = {"input_size": (3, 8, 8), "interpolation": "bicubic", "mean": (0, 0, 0), "std": (1, 1, 1),
                   "crop_pct": 1.0, "crop_mode": "center"}
    with new_folder(path) as place:
        (place / "model.bin").write_bytes(content)
        write_description(EngineFolder(
            path=place, format="openvino", model="tiny", weights=None, precision="float32", features=None,
            num_classes=2, data_config=data_config, input=Tensor("images", ("batch", 3, 8, 8)),
            outputs=(Tensor("logits", ("batch", 2)),), config={"num_classes": 2}))


def key(repository, read=True, **asked):
    source = cache.find_source(f"local-dir:{repository}")
    return cache.key_of(source, read=read, **{"format": "openvino", **asked})


def names(place):
    return sorted(os.listdir(place))


# keys

def test_an_engine_is_found_again_without_a_look_at_the_weights(place, repository):
    assert key(repository, read=False) is None  # of a file that was never seen
    made = cache.make(key(repository), build)
    os.chmod(repository / "model.safetensors", 0)
    found = cache.find(key(repository))
    assert found.path == made.path and found.engine_file.parent == place / key(repository).digest
    assert found.config == {"num_classes": 2}


def test_the_same_weights_in_another_place_are_the_same(place, repository, tmp_path):
    cache.make(key(repository), build)
    other = Path(shutil.copytree(repository, tmp_path / "other"))
    assert cache.find(key(other)) is not None


@pytest.mark.parametrize("field", ["mean", "crop_pct", "interpolation", "num_classes", "label_names", "model_args",
                                   "architecture"])
def test_what_config_json_says_is_part_of_the_key(field, place, repository):
    cache.make(key(repository), build)
    before = key(repository).digest
    data = json.loads((repository / "config.json").read_text())
    new = {"mean": [0, 0, 0], "crop_pct": 0.5, "interpolation": "bilinear", "num_classes": 2,
           "label_names": ["x", "y", "z"], "model_args": {"act_layer": "relu"}, "architecture": "test_resnet"}
    (data["pretrained_cfg"] if field in ("mean", "crop_pct", "interpolation") else data)[field] = new[field]
    (repository / "config.json").write_text(json.dumps(data))
    assert key(repository).digest != before
    assert cache.find(key(repository)) is None


@pytest.mark.parametrize("asked", [dict(format="onnx"), dict(precision="int8"), dict(features="pooled"),
                                   dict(img_size=96)], ids=str)
def test_what_is_asked_for_is_part_of_the_key(asked, place, repository):
    cache.make(key(repository), build)
    assert cache.find(key(repository, **asked)) is None


@pytest.mark.parametrize("name", ["__version__", "LAYOUT", "_library_version"])
def test_versions_are_part_of_the_key(name, place, repository, monkeypatch):
    cache.make(key(repository), build)
    value = {"__version__": "0.0.1", "LAYOUT": 99, "_library_version": lambda package: f"{package} 1970.1"}[name]
    monkeypatch.setattr(cache, name, value)
    assert cache.find(key(repository)) is None


def test_other_weights_in_the_same_place_are_others(place, repository):
    cache.make(key(repository), build)
    path = repository / "model.safetensors"
    stat = path.stat()
    with open(path, "r+b") as stream:  # of the same size, in the same file
        stream.seek(-4, os.SEEK_END)
        stream.write(b"abcd")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # with the old time
    assert cache.find(key(repository, read=False)) is None


def test_a_file_that_was_but_touched_is_the_same(place, repository):
    cache.make(key(repository), build)
    os.utime(repository / "model.safetensors")
    assert cache.find(key(repository, read=False)) is not None


def test_a_checkpoint_is_told_from_published_weights(place, repository):
    name, path = f"local-dir:{repository}", repository / "model.safetensors"
    cache.make(key(repository), build)
    other = cache.key_of(cache.find_source(name, str(path)), format="openvino", read=True)
    assert other.facts["weights"] == key(repository).facts["weights"]
    assert cache.find(other) is None


def test_a_checkpoint_says_its_model_once(place, tiny, tmp_path):
    """The architecture is read with torch when an engine is made, and remembered."""
    import torch

    model = mvlib.create_model(f"local-dir:{tiny}")
    path = tmp_path / "run.pth"
    torch.save({"state_dict": model.state_dict(), "arch": "test_efficientnet", "num_classes": 3,
                "model_args": {}}, path)
    assert cache.find_source(None, str(path)) is None
    source = cache.find_source(None, str(path), read_checkpoint=True)
    assert source.about["architecture"] == "test_efficientnet"
    cache.make(cache.key_of(source, format="openvino", read=True), build)
    assert cache.find(cache.key_of(cache.find_source(None, str(path)), format="openvino")) is not None
    named = cache.find_source("test_efficientnet", str(path))
    assert cache.find(cache.key_of(named, format="openvino")) is not None


def test_a_model_that_the_user_has_named_is_not_what_the_checkpoint_says(place, tmp_path):
    import torch

    path = tmp_path / "run.pth"
    torch.save({"state_dict": {"weight": torch.zeros(1)}, "arch": "test_efficientnet"}, path)

    def find(model=None, read=False):
        return cache.find_source(model, str(path), read_checkpoint=read)

    cache.make(cache.key_of(find("test_resnet"), format="openvino", read=True), build)
    assert find() is None
    cache.make(cache.key_of(find(read=True), format="openvino", read=True), build)
    cache.make(cache.key_of(find("test_resnet"), format="onnx", read=True), build)
    assert find().about["architecture"] == "test_efficientnet"
    torch.save({"state_dict": {"weight": torch.zeros(1)}, "arch": "test_resnet"}, path)
    assert find() is None


def test_a_model_of_the_users_own_has_no_engine(place, repository, fresh_registry, tmp_path):
    @mvlib.register_model(weights={"mine": {"sources": [f"file:{repository}/model.safetensors"]}})
    def my_model(**kwargs):
        raise AssertionError

    assert cache.find_source("my_model.mine") is None
    assert cache.find_source(f"local-dir:{repository}") is not None

    @mvlib.register_model(name="test_efficientnet", override=True)
    def other(**kwargs):
        raise AssertionError

    assert cache.find_source(f"local-dir:{repository}") is None


def test_weights_of_a_users_catalog_go_by_what_it_says(place, repository, fresh_registry, tmp_path):
    def digest(crop):
        fields = {"sources": [f"file:{repository}/model.safetensors"], "crop_pct": crop / 10}
        text = json.dumps({"architectures": {"test_resnet": {"tags": {f"mine{crop}": fields}}}})  # which is YAML
        (tmp_path / "catalog.yaml").write_text(text)
        mvlib.register_catalog(tmp_path / "catalog.yaml")
        return cache.key_of(cache.find_source(f"test_resnet.mine{crop}"), format="openvino", read=True).digest

    assert digest(5) != digest(6)


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "nothing", "local-dir:/nowhere", "hf-hub:a/b", "a/b", "x.y.z"])
def test_of_what_is_not_here_there_is_no_engine(name, place, hub):
    assert cache.find_source(name) is None


def test_a_hub_repository_goes_by_its_revision(place, hub, tiny, tmp_path):
    files = {name: (tiny / name).read_bytes() for name in ("config.json", "model.safetensors")}
    hub.add_repo("me/tiny", files)
    name = "hf-hub:me/tiny"
    assert cache.find_source(name) is None  # which asks nobody
    mvlib.create_model(name)
    source = cache.find_source(name)
    assert source.origin == name and source.name == "me/tiny"
    cache.make(cache.key_of(source, format="openvino", read=True), build)
    config = json.loads(files["config.json"])
    config["pretrained_cfg"]["crop_pct"] = 0.5
    hub.add_repo("me/tiny", {**files, "config.json": json.dumps(config).encode()})
    assert cache.find(cache.key_of(cache.find_source(name), format="openvino")) is not None
    mvlib.create_model(name)  # the new one is here now; of the same weights
    assert cache.find(cache.key_of(cache.find_source(name), format="openvino")) is None


# damage

@pytest.mark.parametrize("damage", ["truncated", "changed", "changed with its time", "gone", "another beside it",
                                    "description", "names", "no folder"])
def test_a_damaged_engine_is_found_out_and_made_anew(damage, place, repository):
    folder = cache.make(key(repository), build)
    path = folder.path / {"description": ENGINE_FILE, "names": "config.json"}.get(damage, "model.bin")
    stat = path.stat()
    if damage == "truncated":
        os.truncate(path, 10)
    elif damage in ("gone", "no folder"):
        path.unlink()
        if damage == "no folder":
            shutil.rmtree(folder.path)
    elif damage == "another beside it":
        (folder.path / "other.bin").write_bytes(b"")
    elif damage == "names":
        path.write_text(json.dumps({**json.loads(path.read_text()), "label_names": ["b", "a"]}))
    else:
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        with open(path, "r+b") as stream:
            stream.write(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(CheckpointError, match=r"the engine of .*/tiny in the cache is damaged: "):
        cache.find(key(repository))
    cache.make(key(repository), build)
    assert cache.find(key(repository)) is not None
    assert len(names(folder.path)) == 3


def test_what_is_not_looked_at_is_hashed_after_a_day(place, repository, monkeypatch):
    """A disk that gives other bytes, with all times as they were."""
    folder = cache.make(key(repository), build)
    record_path = place / f"{folder.path.name}.json"
    record = json.loads(record_path.read_text())
    record["files"]["model.bin"]["sha256"] = "0" * 64
    record_path.write_text(json.dumps(record))
    assert cache.find(key(repository)) is not None
    now = time.time()
    for later in (25 * 3600, -3600):  # or when the clock was set back
        monkeypatch.setattr(cache.time, "time", lambda later=later: now + later)
        with pytest.raises(CheckpointError, match=r"model\.bin is not what was written"):
            cache.find(key(repository))


def test_an_engine_that_was_copied_is_hashed_once(place, repository, tmp_path, monkeypatch):
    cache.make(key(repository), build)
    shutil.copytree(place, tmp_path / "copy")
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "copy", place)  # other inodes and times
    hashed = []
    monkeypatch.setattr(cache, "file_digest", lambda stream, real=cache.file_digest: hashed.append(stream.name) or
                        real(stream))
    assert cache.find(key(repository)) is not None and len(hashed) == 3
    assert cache.find(key(repository)) is not None and len(hashed) == 3


@pytest.mark.parametrize("text", ["", "[]", "{}", "\0", '{"facts": 1, "files": {}}'])
def test_a_record_that_is_no_record_is_none(text, place, repository):
    folder = cache.make(key(repository), build)
    (place / f"{folder.path.name}.json").write_text(text)
    (place / "sums.json").write_text(text)
    assert key(repository, read=False) is None
    assert cache.find(key(repository)) is None
    cache.make(key(repository), build)
    assert cache.find(key(repository, read=False)) is not None


@pytest.mark.parametrize("field", ["files", "checked"])
def test_a_record_that_lacks_something_is_damaged(field, place, repository):
    folder = cache.make(key(repository), build)
    record = place / f"{folder.path.name}.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), field: None}))
    with pytest.raises(CheckpointError, match="is damaged"):
        cache.find(key(repository))


# making

def test_what_cannot_be_made_leaves_nothing(place, repository):
    def fail(path):
        with new_folder(path) as temporary:
            (temporary / "model.bin").write_bytes(b"half")
            raise ConfigError("no such operation")

    with pytest.raises(ConfigError, match="no such operation"):
        cache.make(key(repository), fail)
    assert names(place) == []


def test_weights_that_change_meanwhile_leave_no_engine(place, repository):
    def slow(path):
        build(path)
        shutil.copy(repository / "model.safetensors", repository / "new")
        os.replace(repository / "new", repository / "model.safetensors")

    with pytest.raises(CheckpointError, match=r"model\.safetensors was changed while an engine was made of it"):
        cache.make(key(repository), slow)
    assert names(place) == []


def test_weights_that_change_while_they_are_hashed_have_no_key(place, repository, monkeypatch):
    source = cache.find_source(f"local-dir:{repository}")
    os.utime(repository / "model.safetensors")
    assert cache.key_of(source, format="openvino", read=True) is None


@pytest.mark.parametrize("when", ["building", "recording"])
def test_a_full_disk_leaves_nothing(when, place, repository, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    wanted = key(repository)
    if when == "recording":
        monkeypatch.setattr(cache, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        cache.make(wanted, full if when == "building" else build)
    assert names(place) == []


def test_a_disk_that_is_nearly_full_is_not_filled(place, repository, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 1000))
    with pytest.raises(OSError, match="No space left"):
        cache.make(key(repository), lambda path: pytest.fail("it was tried"))
    assert names(place) == []


def test_files_that_may_not_grow_leave_nothing(place, repository):
    """RLIMIT_FSIZE in a process of its own."""
    code = f"""if True:
        import resource
        from tests.engines.test_cache import build, cache, key
        wanted = key({str(repository)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            cache.make(wanted, build)
        except OSError as error:
            print(error.strerror)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "File too large\n", done.stderr
    assert names(place) == []


def test_a_cache_that_cannot_be_made_is_an_error_of_the_system(tmp_path, monkeypatch, repository):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MVLIB_CACHE", str(tmp_path / "file"))
    wanted = key(repository)
    assert cache.find(wanted) is None and cache.engine_entries() == []
    with pytest.raises(OSError, match="Not a directory"):
        cache.make(wanted, build)
    assert not cache.mark_once("hint")


def test_a_cache_that_cannot_be_written_serves(place, repository, monkeypatch):
    cache.make(key(repository), build)

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(cache, "replacing", refuse)
    monkeypatch.setattr(cache.os, "utime", refuse)
    monkeypatch.setattr(cache.time, "time", lambda: 4e9)
    assert cache.find(key(repository)) is not None


def test_one_thread_makes_what_many_want(place, repository):
    made, found = [], []

    def slow(path):
        time.sleep(0.1)
        build(path)
        made.append(path)

    def run():
        found.append(cache.make(key(repository), slow).path)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and found == made * 4
    assert names(place) == sorted([made[0].name, f"{made[0].name}.json", "sums.json"])


WORKER = """if True:
    import sys, time
    from pathlib import Path
    from tests.engines import test_cache
    from tests.engines.test_cache import build, cache, key

    repository, stage, wait = sys.argv[1], sys.argv[2], sys.argv[3] == "wait"

    def stop(*_):
        print("here", flush=True)
        sys.stdin.readline()

    def slow(path):
        if stage == "building":
            real = test_cache.write_description
            test_cache.write_description = lambda folder: (stop(), real(folder))
        build(path)

    if stage == "built":
        hashed = cache._hashed
        cache._hashed = lambda path: (stop(), hashed(path))[1]
    if stage == "recording":
        real = cache.os.replace
        import mvlib.files
        class Os:
            def __getattr__(self, name): return getattr(__import__("os"), name)
            def replace(self, *args): stop(); real(*args)
        mvlib.files.os = Os()
    if stage == "recorded":
        cache._shrink = stop
    wanted = key(repository)
    try:
        cache.make(wanted, slow, wait=wait)
        print("done", flush=True)
    except BlockingIOError:
        print("busy", flush=True)
"""


def worker(repository, stage, wait="wait"):
    return subprocess.Popen([sys.executable, "-c", WORKER, str(repository), stage, wait], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("stage", ["building", "built", "recording", "recorded"])
def test_a_process_that_is_killed_leaves_nothing_that_is_used(stage, place, repository):
    process = worker(repository, stage)
    assert process.stdout.readline() == "here\n"
    left = names(place)
    process.kill()
    process.communicate()
    assert len(left) > 1  # it was in the middle
    if stage == "recorded":
        assert cache.find(key(repository)) is not None
        return
    assert cache.find(key(repository)) is None
    assert cache.engine_entries() == []
    other = key(repository, format="onnx")  # whoever makes another sweeps
    cache.make(other, build)
    assert names(place) == sorted([other.digest, f"{other.digest}.json", "sums.json"])
    cache.make(key(repository), build)
    assert cache.find(key(repository)) is not None


def test_of_two_processes_one_makes_it_and_the_other_waits_or_does_not(place, repository):
    first = worker(repository, "building")
    assert first.stdout.readline() == "here\n"
    busy, waiting = worker(repository, "none", "no"), worker(repository, "none")
    assert busy.communicate()[0] == "busy\n"
    cache.make(key(repository, format="onnx"), build)  # the sweep spares what the living have
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.communicate(timeout=0.3)
    assert first.communicate("\n")[0] == "done\n"
    assert waiting.communicate()[0] == "done\n"
    assert cache.find(key(repository)) is not None
    assert not [name for name in names(place) if name.startswith(".")]


@pytest.mark.slow
def test_killed_at_any_moment(place, repository):
    """Six dozen kills at moments of chance; what is found in between is whole."""
    chance = random.Random(0)
    code = f"""if True:
        from tests.engines.test_cache import build, cache, key
        wanted = key({str(repository)!r})
        print("ready", flush=True)
        while True:
            cache.make(wanted, build)
            cache._remove(wanted.digest)
    """
    found = 0
    for _ in range(72):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        folder = cache.find(key(repository))
        if folder is not None:
            found += 1
            assert (folder.path / "model.bin").read_bytes() == b"bytes" * 1000
    assert 0 < found < 72
    cache.make(key(repository), build)
    assert not [name for name in names(place) if name.startswith(".")]


# what is there

def test_what_was_not_used_for_the_longest_time_goes_first(place, repository, monkeypatch):
    keys = [key(repository, number=number) for number in range(4)]
    for age, wanted in enumerate(keys[:3]):
        cache.make(wanted, build)
        os.utime(place / f"{wanted.digest}.json", (1e9 + age, 1e9 + age))
    cache.find(keys[0])  # used just now
    size = cache.engine_entries()[0].size
    monkeypatch.setattr(cache, "_MAX_BYTES", int(2.5 * size))
    cache.make(keys[3], build)
    assert [cache.find(wanted) is not None for wanted in keys] == [True, False, False, True]


def test_an_engine_larger_than_the_bound_is_kept_until_the_next(place, repository, monkeypatch):
    monkeypatch.setattr(cache, "_MAX_BYTES", 1)
    assert cache.make(key(repository), build) is not None
    cache.make(key(repository, format="onnx"), build)
    assert [entry.about for entry in cache.engine_entries()] == ["onnx float32"]


def test_entries_say_what_they_are(place, repository):
    cache.make(key(repository, features="pooled"), build)
    cache.make(key(repository), build)
    first, second = cache.engine_entries()
    assert first.name == second.name == str(repository) and first.kind == "engine"
    assert (first.about, second.about) == ("openvino float32", "openvino float32 pooled")
    assert first.size == sum(path.stat().st_size for path in first.path.iterdir())
    assert abs(first.last_used - time.time()) < 100


def test_what_is_removed_is_gone_and_what_was_opened_stays_open(place, repository):
    folder = cache.make(key(repository), build)
    cache.make(key(repository, format="onnx"), build)
    with open(folder.path / "model.bin", "rb") as stream:
        assert cache.remove_engines(["nothing*"]) == []
        assert [entry.about for entry in cache.remove_engines(["*/tiny"])] == ["onnx float32", "openvino float32"]
        assert stream.read() == b"bytes" * 1000
    assert names(place) == ["sums.json"]
    assert cache.find(key(repository)) is None


def test_the_command_shows_and_removes_engines(place, repository, hub, capsys):
    def run(*arguments):
        status = main(["cache", *arguments])
        return status, *capsys.readouterr()

    assert f"engine\t{place}\n" in run("path")[1]
    cache.make(key(repository, features="pooled"), build)
    cache.make(key(repository, format="onnx"), build)
    status, out, _ = run("list", "*/tiny")
    assert status == 0
    header, first, second, total = out.splitlines()
    assert header.split() == ["name", "kind", "size", "last", "used"]
    today = time.strftime("%Y-%m-%d")
    size = format_size(cache.engine_entries()[0].size)
    assert first.split() == [str(repository), "engine", "onnx", "float32", *size.split(), today]
    assert second.split()[:5] == [str(repository), "engine", "openvino", "float32", "pooled"]
    assert total.startswith("2 in all, 1")
    assert run("list", "nothing*")[0] == 1
    status, out, _ = run("remove", "*/tiny")
    assert status == 0 and "2 removed, " in out
    assert run("list") == (0, "", "mvlib: the cache is empty\n")


def test_a_failure_is_remembered_for_these_versions(place, repository, monkeypatch):
    wanted = key(repository)
    cache.engines_dir().mkdir(parents=True)
    assert cache.failure(wanted) is None
    cache.note_failure(wanted, "it has complex numbers")
    assert cache.failure(key(repository, read=False)) == "it has complex numbers"
    assert cache.find(wanted) is None and cache.engine_entries() == []
    cache.make(wanted, build)  # who asks for it explicitly
    assert cache.failure(wanted) is None
    monkeypatch.setattr(cache, "_library_version", lambda package: "next")
    assert cache.failure(key(repository)) is None


def test_what_is_said_once(place):
    assert [cache.mark_once("hint"), cache.mark_once("hint"), cache.mark_once("other")] == [True, False, True]


@pytest.mark.parametrize(("variables", "expected"), [
    ({"MVLIB_CACHE": "/a"}, "/a/engines"), ({"XDG_CACHE_HOME": "/b"}, "/b/mvlib/engines"),
    ({"MVLIB_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a/engines"),
    ({"HOME": "/c"}, "/c/.cache/mvlib/engines"), ({"MVLIB_CACHE": "~/d", "HOME": "/c"}, "/c/d/engines"),
    ({"MVLIB_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/mvlib/engines"),
], ids=str)
def test_where_engines_are(variables, expected, monkeypatch):
    for name in ("MVLIB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache.engines_dir()) == expected
