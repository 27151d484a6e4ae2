"""Files that are written whole or not at all."""

import csv
import io
import os
import stat
import sys
import threading
import time

import pytest
import torch

import mvlib
from mvlib.cli.output import render
from mvlib.files import csv_text, csv_writer, locked, replacing
from mvlib.inference.writers import Csv
from mvlib.train.checkpoint import CheckpointStore


@pytest.mark.parametrize("cell", ["a\rb", "a\nb", "a\r\nb", "a,b", 'a"b', "\r", "a\r\n", "a b", ""])
def test_csv_is_read_as_it_was(cell):
    text = io.StringIO()
    csv_writer(text).writerows([("x", "y"), (cell, "1")])
    written = io.StringIO()
    writer = Csv(written)
    writer.write(cell, [(0, cell, 1.0)])
    writer.close()
    for found, expected in ((text.getvalue(), [["x", "y"], [cell, "1"]]),
                           (csv_text(("x", "y"), [{"x": cell, "y": 1}]), [["x", "y"], [cell, "1"]]),
                           (render([{"x": cell, "y": 1}], ("x", "y"), "csv"), [["x", "y"], [cell, "1"]]),
                           (written.getvalue(), [list(Csv.HEADER), [cell, "1", "0", cell, "1.000000"]])):
        assert found.endswith("\n") and not found.endswith("\r\n")
        assert list(csv.reader(io.StringIO(found, newline=""))) == expected


def names(folder):
    return sorted(os.listdir(folder))


def in_threads(function, count=4):
    errors = []

    def run(number):
        try:
            function(number)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_threads_that_write_one_file_give_a_whole_one_each(tmp_path):
    barrier = threading.Barrier(4)

    def write(number):
        with replacing(tmp_path / "file") as temporary:
            barrier.wait()
            with open(temporary, "w") as stream:
                for _ in range(50):
                    stream.write(f"{number}" * 1000)
                    stream.flush()
                barrier.wait()

    assert in_threads(write) == []
    text = (tmp_path / "file").read_text()
    assert len(text) == 50_000 and len(set(text)) == 1
    assert names(tmp_path) == ["file"]


def test_threads_that_save_checkpoints_of_one_name(tmp_path):
    def save(number):
        store = CheckpointStore.__new__(CheckpointStore)  # without the search for left-overs, which is the owner's
        store.folder, store.keep, store.decreasing, store.metrics = tmp_path, 3, False, {}
        for _ in range(5):
            assert store.save_epoch({"state_dict": {"w": torch.full((1000,), number)}}, 0, 1.0)

    assert in_threads(save) == []
    assert names(tmp_path) == ["checkpoint-0.pth.tar", "last.pth.tar", "model_best.pth.tar"]
    for name in names(tmp_path):
        assert len(torch.load(tmp_path / name, weights_only=True)["state_dict"]["w"].unique()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_a_new_file(tmp_path, mask, monkeypatch):
    model = mvlib.create_model("test_resnet", num_classes=2)
    old = os.umask(mask)
    monkeypatch.setattr(os, "umask", None)  # which is the whole process's: no thread may meet another's
    try:
        (tmp_path / "plain").touch()
        with replacing(tmp_path / "text") as temporary:
            temporary.write_text("text")
        mvlib.save_for_hub(model, tmp_path / "repository")
    finally:
        monkeypatch.undo()
        os.umask(old)
    wanted = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert wanted == 0o666 & ~mask
    for path in (tmp_path / "text", *(tmp_path / "repository").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_what_killed_processes_left_goes_after_a_day(tmp_path):
    old, young, other = (tmp_path / name for name in (".file.1a.tmp", ".file.2b.tmp", ".other.1a.tmp"))
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (time.time() - 90_000,) * 2)
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == [".file.2b.tmp", ".other.1a.tmp", "file"]


def test_an_error_leaves_the_file_as_it_was(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file") as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "file").read_text() == "old" and names(tmp_path) == ["file"]


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="devices of Unix")
def test_devices_and_pipes_are_written_as_they_are(tmp_path):
    reading, writing = os.pipe()
    with open(tmp_path / "stdout", "wb") as stream:
        for descriptor in (writing, stream.fileno()):
            with replacing(f"/dev/fd/{descriptor}") as path:
                path.write_text("text")
    assert os.read(reading, 100) == b"text" and (tmp_path / "stdout").read_text() == "text"
    assert names(tmp_path) == ["stdout"]
    with replacing(os.devnull) as path:
        path.write_text("text")
    assert not os.path.isfile(os.devnull)


def test_a_folder_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(IsADirectoryError), replacing(tmp_path):
        pytest.fail("there is nothing to write to")


def test_locks_keep_threads_apart_and_leave_no_file(tmp_path):
    inside, most = [], []

    def work(number):
        for _ in range(50):
            with locked(tmp_path / "lock"):
                inside.append(1)
                time.sleep(0.0002)  # the others come to wait
                most.append(len(inside))
                inside.pop()

    assert in_threads(work) == []
    assert len(most) == 200 and max(most) == 1
    assert names(tmp_path) == []


def test_who_does_not_wait_for_a_lock_hears_that_another_has_it(tmp_path):
    with locked(tmp_path / "lock"):
        with pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
            pytest.fail("two have it")
    with locked(tmp_path / "lock", wait=False):
        pass
    assert names(tmp_path) == []
