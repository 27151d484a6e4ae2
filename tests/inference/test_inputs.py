"""What a command is asked to read."""

import io

import pytest

from mvlib.errors import ConfigError
from mvlib.inference.inputs import batched, count_inputs, list_inputs


def test_files_folders_and_lists_in_order(tmp_path, monkeypatch):
    for name in ("b10.jpg", "b2.jpg", "note.txt"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_bytes(b"x.jpg\r\n\n \xff.png\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("in.jpg\n"))
    found = [str(path) for path in list_inputs(["a.jpg", str(tmp_path), "-"], str(tmp_path / "list.txt"))]
    assert found == ["a.jpg", f"{tmp_path}/b2.jpg", f"{tmp_path}/b10.jpg", "in.jpg", "x.jpg", " \udcff.png"]


def test_what_is_not_there_is_said_at_once(tmp_path):
    with pytest.raises(ConfigError, match=f"the list {tmp_path}/none.txt cannot be read: No such file or directory"):
        list_inputs(["a.jpg"], str(tmp_path / "none.txt"))
    (tmp_path / "list.txt").touch()
    with pytest.raises(ConfigError, match=f"no images in {tmp_path}, {tmp_path}/list.txt"):
        list_inputs([str(tmp_path)], str(tmp_path / "list.txt"))


def test_counts_that_need_no_search(tmp_path):
    assert count_inputs(["a.jpg", "b.jpg"]) == 2
    assert count_inputs(["a.jpg", str(tmp_path)]) is count_inputs(["-"]) is count_inputs(["a.jpg"], "list.txt") is None


def test_batches():
    assert list(batched(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]
