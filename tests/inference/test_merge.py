"""Parts to one file and back: what is damaged is named, and what belongs to others is left alone."""

import json

import numpy as np
import pytest

from mvlib.cli import main
from mvlib.errors import ConfigError, DataError
from mvlib.inference.folder import ResultFolder
from mvlib.inference.merge import check_names, merge, split
from mvlib.inference.parts import JsonlPart, NpyPart, ParquetPart

FILES = [f"{number}.jpg" for number in range(5)]


def parts(path, suffix):
    """Results of five pictures, of which the second could not be read, in three parts."""
    settings = {"command": "predict"} if suffix == ".jsonl" else {"command": "embed", "shape": [3], "dtype": "float32"}
    with ResultFolder(path, settings, FILES, suffix=suffix, shard_size=2) as folder:
        for shard in folder.claim():
            failures = [(1, "file is empty")] if shard.number == 0 else []
            with folder.part(shard, failures) as place:
                part = JsonlPart(place) if suffix == ".jsonl" else \
                    {".npy": NpyPart, ".parquet": ParquetPart}[suffix](place, (3,), "float32")
                names = shard.files[:1] if failures else shard.files
                part.add(names, [[(0, "cat", 0.5)]] * len(names) if suffix == ".jsonl" else
                         np.ones((len(names), 3), np.float32) * shard.number)
                part.close()
    return path


@pytest.mark.parametrize("suffix, ending", [
    (".jsonl", ".csv"), (".jsonl", ".parquet"), (".npy", ".npy"), (".npy", ".parquet"), (".parquet", ".npy")])
def test_a_damaged_part_is_named(tmp_path, suffix, ending):
    folder, output = parts(tmp_path / "out", suffix), tmp_path / f"all{ending}"
    assert [failure["file"] for failure in merge(folder, output)] == ["1.jpg"]
    before = output.read_bytes()
    part = folder / f"part-00001{suffix}"
    content = part.read_bytes()
    lines = [len(content) // 2] if suffix == ".jsonl" else []  # one of two
    cuts = [0, len(content) // 4, len(content) - 5, *lines]
    for cut in cuts:
        part.write_bytes(content[:cut])
        with pytest.raises(DataError, match=rf"part-00001{suffix} is damaged \(.*: remove it, and run the same"):
            merge(folder, output)
        assert output.read_bytes() == before
    part.write_bytes(content)
    (folder / "_failures-00000.jsonl").write_text('{"index": 1, "fi')
    with pytest.raises(DataError, match="_failures-00000.jsonl is damaged: remove it with its part"):
        merge(folder, output)


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_damaged_file_is_named(tmp_path, suffix):
    folder, output = parts(tmp_path / "out", suffix), tmp_path / f"all{suffix}"
    failures = merge(folder, output)
    finished = {**json.loads((folder / "_manifest.json").read_text()), "failures": failures}
    content = output.read_bytes()
    for cut in (0, len(content) // 4, len(content) - 5):
        output.write_bytes(content[:cut])
        with ResultFolder(tmp_path / f"parts{cut}", finished["settings"], FILES, suffix=suffix, shard_size=2,
                          finished=finished) as again:
            with pytest.raises(DataError, match=rf"all{suffix} is damaged \(.*: --overwrite makes it anew"):
                split(output, again, finished)


def test_names_do_not_take_the_place_of_other_files(tmp_path, capsys):
    folder, output, names = parts(tmp_path / "out", ".npy"), tmp_path / "all.npy", tmp_path / "all.json"
    merge(folder, output)
    merge(folder, output)  # the names of before are its own
    assert main(["merge", str(folder), "--output", str(output)]) == 1
    assert json.loads(names.read_text()) == ["0.jpg", "2.jpg", "3.jpg", "4.jpg"]
    names.write_text('[\n  {"file": "0.jpg"}\n]\n')
    assert main(["merge", str(folder), "--output", str(output)]) == 2
    assert "all.json, which holds something else: take another --output" in capsys.readouterr().err
    assert "file" in names.read_text()
    for content in (b"", b"{}"):
        names.write_bytes(content)
        with pytest.raises(ConfigError, match="holds something else"):
            check_names(output)
