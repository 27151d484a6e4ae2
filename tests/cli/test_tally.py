"""The line that ends a run."""

import re

import pytest

from mvlib.cli.tally import Tally

from .command import here as mvlib


@pytest.mark.parametrize(("done", "skipped", "before", "seconds", "said"), [
    (1200, 0, 0, 12.34, "1,200 images in 12.3 s (97 a second): x.csv"),
    (1, 3, 0, 2, "1 image in 2.0 s (0.5 a second), 3 skipped: x.csv"),
    (90000, 0, 1024, 3725, "90,000 images in 1 h 02 min (24 a second), 1,024 done before: x.csv"),
    (12, 0, 0, 119.7, "12 images in 2 min 00 s (0.1 a second): x.csv"),
    (0, 2, 0, 1, "0 images in 1.0 s, 2 skipped: x.csv"),
    (0, 0, 5, 0, "x.csv is complete already"),
])
def test_what_it_says(done, skipped, before, seconds, said):
    tally = Tally(before=before, left=done + skipped)
    tally.done, tally.skipped = done, skipped
    assert tally.line("x.csv", seconds) == said


def test_every_command_that_writes_a_file_ends_with_it(exports, tmp_path):
    """And none whose results go to standard output."""
    model = "--model", exports / "classifier.ov"
    line = re.compile(r"mvlib: 4 images in \d+\.\d s \([\d.,]+ a second\), 1 skipped: (.+)")
    for output in (tmp_path / "x.csv", f"{tmp_path}/parts/"):
        done = mvlib("predict", exports, *model, "--output", output)
        assert done.returncode == 1 and line.fullmatch(done.stderr.splitlines()[-1])[1] == str(output)
    done = mvlib("predict", exports, *model, "--output", f"{tmp_path}/parts/")
    assert done.stderr.splitlines()[-1] == f"mvlib: {tmp_path}/parts/ is complete already"
    done = mvlib("embed", exports, "--model", exports / "pooled.ov", "--output", tmp_path / "x.npy")
    assert line.fullmatch(done.stderr.splitlines()[-1])[1] == f"{tmp_path}/x.npy"
    assert "a second" not in mvlib("predict", exports, *model).stderr

    data = tmp_path / "data" / "kind 0"
    data.mkdir(parents=True)
    for number in range(5):
        (data / f"{number}.png").write_bytes((exports / f"{number}.png").read_bytes())
    options = data.parent, *model, "--split", "", "--workers", 0
    done = mvlib("inference", *options, "--results-file", tmp_path / "y.csv")
    assert line.fullmatch(done.stderr.splitlines()[-1])[1] == f"{tmp_path}/y.csv", done.stderr
    for number in range(1, 7):
        (data.parent / f"kind {number}").mkdir()
        (data.parent / f"kind {number}" / "0.png").write_bytes((exports / "0.png").read_bytes())
    done = mvlib("validate", *options, "--results-file", tmp_path / "z.csv")
    assert re.fullmatch(rf"mvlib: 1 model in \d+\.\d s: {tmp_path}/z.csv",
                        done.stderr.splitlines()[-1]), done.stderr
    assert (tmp_path / "z.csv").is_file()
