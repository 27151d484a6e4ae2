"""Checkpoints: atomic, verified, the best kept."""

import contextlib
import multiprocessing
import os
import signal

import pytest
import torch

from mvlib.errors import CheckpointError
from mvlib.train.checkpoint import (
    CheckpointStore,
    find_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)


def data(value: float = 1.0) -> dict:
    return {"state_dict": {"w": torch.full((1000,), value)}, "epoch": 1}


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_best_last_and_previous_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for epoch, metric in enumerate([50.0, 70.0, 60.0, 55.0, 40.0]):
        store.save_epoch(data(epoch), epoch, metric)
    assert names(tmp_path) == ["checkpoint-1.pth.tar", "checkpoint-2.pth.tar", "checkpoint-3.pth.tar",
                               "checkpoint-4.pth.tar", "last.pth.tar", "model_best.pth.tar"]
    assert store.best_epoch == 1
    assert read_checkpoint(tmp_path / "model_best.pth.tar")["state_dict"]["w"][0] == 1
    assert read_checkpoint(tmp_path / "last.pth.tar")["state_dict"]["w"][0] == 4


def test_less_may_be_better_and_nan_is_worst(tmp_path):
    store = CheckpointStore(tmp_path, keep=1, decreasing=True)
    for epoch, metric in enumerate([float("nan"), 2.0, 3.0]):
        store.save_epoch(data(), epoch, metric)
    assert store.best_epoch == 1


def test_of_equals_the_later_is_the_best(tmp_path):
    """Where 10 of 10 are right in most epochs, the first of them is not the one to keep."""
    store = CheckpointStore(tmp_path, keep=1)
    for epoch, metric in enumerate([90.0, 100.0, 100.0, 90.0]):
        store.save_epoch(data(epoch), epoch, metric)
    assert store.best_epoch == 2 and store.best()[0] == 2
    assert read_checkpoint(tmp_path / "model_best.pth.tar")["state_dict"]["w"][0] == 2


def test_recoveries_end_with_their_epoch(tmp_path):
    store = CheckpointStore(tmp_path)
    for batch in (10, 20, 30):
        store.save_recovery(data(), 0, batch)
    assert names(tmp_path) == ["recovery-0-20.pth.tar", "recovery-0-30.pth.tar"]
    store.save_epoch(data(), 0, 1.0)
    assert names(tmp_path) == ["checkpoint-0.pth.tar", "last.pth.tar", "model_best.pth.tar"]


def test_order(tmp_path):
    for name in ("checkpoint-9", "checkpoint-10", "recovery-10-5", "recovery-11-100", "recovery-11-20"):
        (tmp_path / f"{name}.pth.tar").touch()
    assert [path.name.partition(".")[0] for path in find_checkpoints(tmp_path)] == \
        ["recovery-11-100", "recovery-11-20", "checkpoint-10", "recovery-10-5", "checkpoint-9"]


@pytest.mark.parametrize("harm", ["cut", "bit", "empty"])
def test_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog, harm):
    store = CheckpointStore(tmp_path)
    store.save_epoch(data(0), 0, 1.0)
    store.save_epoch(data(1), 1, 1.0)
    path = tmp_path / "checkpoint-1.pth.tar"
    content = bytearray(path.read_bytes())
    if harm == "bit":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[:-100], "bit": content, "empty": b""}[harm])
    for where in (tmp_path, path):
        caplog.clear()
        found, loaded = newest_checkpoint(where)
        assert found.name == "checkpoint-0.pth.tar" and loaded["state_dict"]["w"][0] == 0
        assert "checkpoint-1.pth.tar is" in caplog.text
        assert "going on from the checkpoint before it" in caplog.text


def test_nothing_whole(tmp_path):
    (tmp_path / "checkpoint-0.pth.tar").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="no checkpoint in .* is whole"):
        newest_checkpoint(tmp_path)


def test_nothing_there(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="there is no checkpoint .*nowhere"):
        newest_checkpoint(tmp_path / "nowhere")


def test_weights_are_no_training_checkpoint(tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="is not a training checkpoint: it has no 'state_dict'"):
        read_checkpoint(tmp_path / "w.pth")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": {}, "x": Evil()}, tmp_path / "e.pth")
    with pytest.raises(CheckpointError, match="is not a whole checkpoint"):
        read_checkpoint(tmp_path / "e.pth")
    assert not (tmp_path / "ran").exists()


def test_left_over_files_of_a_killed_save_are_removed(tmp_path):
    (tmp_path / "checkpoint-3.pth.tar.77.tmp").write_bytes(b"half")
    CheckpointStore(tmp_path)
    assert names(tmp_path) == []


@contextlib.contextmanager
def full_disk(size=100_000):
    """Larger files cannot be written, as on a full disk; the signal that comes with it Python ignores."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_the_last_good_one(tmp_path, caplog):
    store = CheckpointStore(tmp_path)
    assert store.save_epoch({"state_dict": {"w": torch.zeros(1000)}}, 0, 1.0)
    with full_disk():
        assert store.save_epoch({"state_dict": {"w": torch.zeros(1_000_000)}}, 1, 2.0) is None
        assert store.save_recovery({"state_dict": {"w": torch.zeros(1_000_000)}}, 1, 5) is None
    assert store.best_epoch == 0
    read_checkpoint(tmp_path / "last.pth.tar")
    assert "checkpoint-1.pth.tar was not saved" in caplog.text
    assert "the last good checkpoint is" in caplog.text and "checkpoint-0.pth.tar" in caplog.text
    assert names(tmp_path) == ["checkpoint-0.pth.tar", "last.pth.tar", "model_best.pth.tar"]


def save_and_die(folder):
    store = CheckpointStore(folder)
    store.save_epoch({"state_dict": {"w": torch.zeros(10)}}, 0, 1.0)
    os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)  # all is written, nothing is renamed
    store.save_epoch({"state_dict": {"w": torch.ones(10)}}, 1, 2.0)


def test_kill_in_the_middle_of_a_save(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=save_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert any(name.endswith(".tmp") for name in names(tmp_path))
    path, loaded = newest_checkpoint(tmp_path)
    assert path.name == "checkpoint-0.pth.tar" and loaded["state_dict"]["w"].sum() == 0
    CheckpointStore(tmp_path)
    assert not any(name.endswith(".tmp") for name in names(tmp_path))


def test_unwritable_folder(tmp_path):
    with pytest.raises(OSError):
        write_checkpoint(data(), tmp_path / "missing" / "x.pth.tar")
