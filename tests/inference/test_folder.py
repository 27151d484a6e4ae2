import json
import os
import subprocess
import sys
import textwrap

import pytest

from mvlib.errors import ConfigError, DataError
from mvlib.inference.folder import Place, ResultFolder, place_of_process

FILES = [f"{number}.jpg" for number in range(10)]


def opened(path, settings=None, files=FILES, place=Place(), shard_size=4):  # noqa: B008
    return ResultFolder(path, settings or {"model": "a"}, files, suffix=".txt", shard_size=shard_size, place=place)


def do(folder, shard, failures=()):
    with folder.part(shard, list(failures)) as path:
        path.write_text("".join(shard.files))


def test_every_image_is_in_one_shard_and_finished_ones_are_skipped(tmp_path):
    with opened(tmp_path / "out") as folder:
        shards = list(folder.claim())
        assert [name for shard in shards for name in shard.files] == FILES
        assert folder.images_to_do() == 10
        do(folder, shards[1])
    with opened(tmp_path / "out") as folder:
        assert [shard.number for shard in folder.claim()] == [0, 2]
        assert folder.images_to_do() == 6
        assert folder.missing() == [0, 2]


def test_an_interrupted_part_is_no_part(tmp_path):
    with opened(tmp_path / "out") as folder:
        shard = next(folder.claim())
        with pytest.raises(KeyboardInterrupt), folder.part(shard, []) as path:
            path.write_text("half")
            raise KeyboardInterrupt
        (tmp_path / "out" / f".part-00000.txt.{10 ** 7}.tmp").write_text("of a killed process")
        assert folder.missing() == [0, 1, 2]
        do(folder, shard)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "_inputs.jsonl", "_lock", "_manifest.json", "part-00000.txt"]


def test_what_killed_processes_left_is_removed(tmp_path):
    with opened(tmp_path / "out"):
        pass
    for name in ("._inputs.1.tmp", "._manifest.json.2.tmp", ".part-00001.txt.3.tmp", "._failures-00001.jsonl.4.tmp"):
        (tmp_path / "out" / name).touch()
    with opened(tmp_path / "out") as folder:
        for shard in folder.claim():
            do(folder, shard)
    assert not list((tmp_path / "out").glob(".*"))


def test_failures_are_kept_with_their_shard(tmp_path):
    with opened(tmp_path / "out") as folder:
        for shard in folder.claim():
            do(folder, shard, [(1, "file is empty")] if shard.number == 1 else [])
    with opened(tmp_path / "out") as folder:
        assert folder.failures() == [{"index": 5, "file": "5.jpg", "error": "file is empty"}]


@pytest.mark.parametrize(("changed", "line"), [
    ({"settings": {"model": "b"}}, "model: a before, b now"),
    ({"settings": {"model": "a", "level": 2}}, "level: none before, 2 now"),
    ({"settings": {"model": "a", "weights": "1" * 64}}, "weights: others than before"),
    ({"settings": {"model": "a", "engine": {"format": "openvino"}}},
     "what runs the model: torch itself before, openvino now"),
    ({"files": FILES[:-1]}, "other pictures: 10 before, 9 now\n    gone: 9.jpg"),
    ({"files": FILES[::-1]}, "other pictures: 10 before, 10 others now\n    the same, in another order"),
    ({"shard_size": 5}, "--shard-size: 4 before, 5 now"),
])
def test_other_settings_are_refused(tmp_path, changed, line):
    with opened(tmp_path / "out"):
        pass
    with pytest.raises(ConfigError, match="was begun otherwise; .* --overwrite to begin anew") as error:
        opened(tmp_path / "out", **changed)
    assert str(error.value).split("\n", 1)[1] == f"  {line}"
    with opened(tmp_path / "out"):  # nothing has changed
        pass


def test_names_that_are_no_text(tmp_path):
    names = ["new\nline.jpg", os.fsdecode(b"\xff\xfe.jpg"), "ü.jpg"]
    with opened(tmp_path / "out", files=names) as folder:
        assert next(folder.claim()).files == names


@pytest.mark.parametrize(("prepare", "message"), [
    (lambda path: path.write_text(""), "it is a file, not a folder"),
    (lambda path: path.parent.rmdir(), "there is no folder"),
    (lambda path: (path.mkdir(), (path / "part-00000.txt").touch()), "holds parts and no _manifest.json"),
    (lambda path: (path.mkdir(), (path / "_manifest.json").write_text("{")), "is damaged"),
    (lambda path: (path.mkdir(), (path / "_manifest.json").write_text('{"settings": {}}')), "is damaged"),
])
def test_folders_that_cannot_be_written(tmp_path, prepare, message):
    path = tmp_path / "parent" / "out"
    path.parent.mkdir()
    prepare(path)
    with pytest.raises(ConfigError, match=message):
        opened(path)


def other_process(path, code, **environment):
    """Open the same folder in another process, and run `code` there."""
    code = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(os.path.dirname(__file__))!r})
        from test_folder import *
        try:
            with opened({str(path)!r}, place=place_of_process()) as folder:
                {code}
        except DataError as error:
            print(error)
    """)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                            env={**os.environ, **{key: str(value) for key, value in environment.items()}})


def test_a_second_process_is_refused_and_a_killed_one_does_not_block(tmp_path):
    holder = other_process(tmp_path / "out", "print('open', flush=True); import time; time.sleep(60)")
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(DataError, match="another process is at work on"):
        opened(tmp_path / "out")
    with pytest.raises(DataError, match="another process is at work on"):
        opened(tmp_path / "out", place=Place(0, 2))
    holder.kill()
    holder.wait()
    with opened(tmp_path / "out"):
        pass


def test_ranks_share_the_shards(tmp_path):
    with opened(tmp_path / "out", place=Place(0, 2)) as folder:
        claims = folder.claim()
        assert next(claims).number == 0
        other = other_process(tmp_path / "out", "print([s.number for s in folder.claim()])", RANK=1, WORLD_SIZE=2)
        assert other.communicate()[0] == "[1, 2]\n"  # its own, then what is left; not the one that is being done
        assert [shard.number for shard in claims] == [2, 1]
        twin = other_process(tmp_path / "out", "print('in')", RANK=0, WORLD_SIZE=2)
        assert twin.communicate()[0] == f"another process of rank 0 is at work on {tmp_path / 'out'}\n"


def test_a_place_among_processes(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert place_of_process() == Place(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert place_of_process() == Place(3, 4)
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(ConfigError, match="RANK=4 of WORLD_SIZE=4"):
        place_of_process()


def test_the_manifest_says_what_was_asked(tmp_path):
    with opened(tmp_path / "out"):
        pass
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["settings"] == {"model": "a"}
    assert {key: manifest["inputs"][key] for key in ("count", "shard_size", "shards")} == {
        "count": 10, "shard_size": 4, "shards": 3}


def test_a_system_without_posix_locks_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr("mvlib.inference.folder.fcntl", None)
    with pytest.raises(ConfigError, match="on this system, which lacks the file locks"):
        opened(tmp_path / "out")
    assert not (tmp_path / "out").exists()
