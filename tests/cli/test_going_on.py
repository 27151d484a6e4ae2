"""A run that goes on with results that are there: what has changed since, what can be read now, what is begun anew."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from ..inference.test_web import serving
from .command import here as mvlib


@pytest.fixture
def photos(exports, tmp_path):
    """Seven pictures, of which the third and the last are none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, source in enumerate((0, 1, 2, 3, 4, 0, 2)):
        shutil.copyfile(exports / f"{source}.png", folder / f"{number}.png")
    return folder


def embed(exports, *arguments):
    return mvlib("embed", *arguments, "--model", exports / "pooled.ov")


def read(path):
    """Names and features, of any output of `embed`."""
    path = Path(path)
    if path.is_dir():
        merged = path.with_name("merged.parquet")
        assert mvlib("merge", path, "--output", merged).returncode in (0, 1)
        path = merged
    if path.suffix == ".npy":
        return json.loads(path.with_suffix(".json").read_text()), np.load(path)
    table = pyarrow.parquet.read_table(path)
    return table["file"].to_pylist(), np.stack(table["embedding"].to_numpy())


def test_another_picture_of_the_same_name_has_other_features(exports, tmp_path):
    photo, output = tmp_path / "photo.png", tmp_path / "query.parquet"
    shutil.copyfile(exports / "0.png", photo)
    assert embed(exports, photo, "--output", output).returncode == 0
    before = read(output)[1]
    said = embed(exports, photo, "--output", output).stderr
    assert said == f"mvlib: {output} is complete already\n"
    shutil.copyfile(exports / "1.png", photo)
    done = embed(exports, photo, "--output", output)
    assert done.returncode == 0 and "mvlib: 1 image in " in done.stderr
    embed(exports, photo, "--output", tmp_path / "fresh.parquet")
    np.testing.assert_array_equal(read(output)[1], read(tmp_path / "fresh.parquet")[1])
    assert np.abs(read(output)[1] - before).max() > 0.01
    assert sorted(path.name for path in tmp_path.glob("query*")) == ["query.parquet", "query.parquet.manifest.json"]


@pytest.mark.parametrize("name", ["out.parquet", "out.npy", "out/"])
def test_what_changed_or_can_be_read_now_is_done_and_nothing_else(exports, photos, tmp_path, name):
    output, options = f"{tmp_path}/{name}", ("--shard-size", 2)
    first = embed(exports, photos, "--output", output, *options)
    assert first.returncode == 1 and "2 of 7 images could not be read" in first.stderr
    shutil.copyfile(exports / "4.png", photos / "2.png")  # mended: its shard is done but for it
    os.utime(photos / "3.png", ns=(0, 0))
    os.utime(photos / "2.png", ns=(0, 0))
    shutil.copyfile(exports / "1.png", photos / "5.png")  # another picture
    done = embed(exports, photos, "--output", output, *options)
    assert done.returncode == 1 and "1 of 7 images could not be read" in done.stderr
    # of shards (0, 1), (2, 3), (4, 5), (6,) the second and third have other files
    assert "mvlib: 4 images in " in done.stderr and ", 3 done before: " in done.stderr
    fresh = f"{tmp_path}/fresh{name[3:]}"
    embed(exports, photos, "--output", fresh, *options)
    assert read(output)[0] == read(fresh)[0] == [str(photos / f"{number}.png") for number in range(6)]
    np.testing.assert_array_equal(read(output)[1], read(fresh)[1])
    again = embed(exports, photos, "--output", output, *options)
    assert again.returncode == 1 and again.stderr.endswith(f"mvlib: {output} is complete already\n")


@pytest.mark.parametrize("name", ["out.parquet", "out.npy", "out/"])
def test_what_could_not_be_read_takes_its_place_among_what_could(exports, photos, tmp_path, name, monkeypatch):
    """The file is what it was, as with a disk that was not there, or a URL."""
    from mvlib.data.pil_transform import PILTransform
    from mvlib.errors import BadImageError

    real = PILTransform.from_file

    def fails(self, source):
        if Path(source).name in ("1.png", "5.png"):
            raise BadImageError(f"{source}: the disk is away")
        return real(self, source)

    output = f"{tmp_path}/{name}"
    with monkeypatch.context() as patch:
        patch.setattr(PILTransform, "from_file", fails)
        first = embed(exports, photos, "--output", output)
        assert first.stderr.count("the disk is away") == 2 and "4 of 7 images could not" in first.stderr
    done = embed(exports, photos, "--output", output)
    assert "mvlib: 2 images in " in done.stderr and ", 5 done before: " in done.stderr
    assert "2 of 7 images could not be read" in done.stderr
    embed(exports, photos, "--output", f"{tmp_path}/fresh{name[3:]}")
    for found, expected in zip(read(output), read(f"{tmp_path}/fresh{name[3:]}")):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("name", "command"), [("out.npy", "embed"), ("out/", "embed"), ("out/", "predict")])
def test_an_interrupted_run_says_what_it_keeps_and_goes_on(exports, photos, tmp_path, monkeypatch, name, command):
    engine = exports / {"embed": "pooled.ov", "predict": "classifier.ov"}[command]
    words = command, photos, "--model", engine, "--output", f"{tmp_path}/{name}", "--batch-size", 1
    seen = 0

    def interrupt(*_):
        nonlocal seen
        seen += 1
        if seen == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mvlib.cli.predict_command.Progress.update", interrupt)
        stopped = mvlib(*words, "--shard-size", 2)
    assert stopped.returncode == 130 and stopped.stderr.endswith(
        "mvlib: interrupted: 4 of 7 images are done, and the same command goes on with the others\n")
    with monkeypatch.context() as patch:
        seen = 3
        patch.setattr("mvlib.cli.predict_command.Progress.update", interrupt)
        anew = mvlib(*words, "--overwrite", "--shard-size", 2)
    assert "the same command without --overwrite goes on with the others" in anew.stderr
    seen = 0
    with monkeypatch.context() as patch:
        patch.setattr("mvlib.cli.predict_command.Progress.update", interrupt)
        assert "interrupted: 4 of 7 images" in mvlib(*words).stderr  # in parts of the size that it began with
    done = mvlib(*words)
    assert done.returncode == 1 and ", 4 done before: " in done.stderr


@pytest.mark.parametrize("name", ["out.parquet", "out.npy"])
def test_what_is_on_the_way_to_one_file_is_in_small_parts(exports, photos, tmp_path, name):
    assert embed(exports, photos, "--output", tmp_path / name).returncode == 1
    made = json.loads((tmp_path / f"{name}.manifest.json").read_text())["inputs"]
    assert (made["count"], made["shard_size"]) == (7, 128)
    shutil.copyfile(photos / "0.png", photos / "one more.png")
    (photos / "1.png").unlink()
    done = embed(exports, photos, "--output", tmp_path / name)
    assert done.returncode == 2 and done.stderr.endswith(f"    new: {photos / 'one more.png'}\n"
                                                         f"    gone: {photos / '1.png'}\n")


def test_predictions_in_parts_go_on_in_the_same_way(exports, photos, tmp_path):
    command = "predict", photos, "--model", exports / "classifier.ov", "--output", f"{tmp_path}/out/"
    assert "2 of 7 images" in mvlib(*command, "--shard-size", 4).stderr
    before = (tmp_path / "out" / "part-00000.jsonl").stat().st_mtime_ns
    shutil.copyfile(exports / "4.png", photos / "6.png")
    done = mvlib(*command, "--shard-size", 4)
    assert "1 of 7 images could not be read" in done.stderr and ", 4 done before: " in done.stderr
    assert (tmp_path / "out" / "part-00000.jsonl").stat().st_mtime_ns == before
    lines = [json.loads(line) for part in sorted((tmp_path / "out").glob("part-*")) for line in open(part)]
    assert [Path(line["file"]).name for line in lines] == ["0.png", "1.png", "3.png", "4.png", "5.png", "6.png"]
    other = mvlib(*command, "--shard-size", 5)
    assert other.returncode == 2 and "  --shard-size: 4 before, 5 now\n" in other.stderr
    done = mvlib(*command, "--shard-size", 5, "--overwrite")
    assert "mvlib: 6 images in " in done.stderr and len(list((tmp_path / "out").glob("part-*"))) == 2


@pytest.mark.parametrize("name", ["out.parquet", "out.npy"])
def test_a_file_without_a_row_is_not_written(exports, tmp_path, name):
    photo, output = tmp_path / "photo.png", tmp_path / name
    photo.write_text("no photograph")
    for _ in range(2):
        done = embed(exports, photo, "--output", output)
        assert done.returncode == 1 and done.stderr.splitlines()[1:] == [
            "mvlib: 1 of 1 images could not be read", f"mvlib: {output} is not written: there is nothing to go into it"]
        assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
    shutil.copyfile(exports / "0.png", photo)
    assert embed(exports, photo, "--output", output).returncode == 0 and len(read(output)[0]) == 1
    photo.write_text("no photograph any more")
    assert embed(exports, photo, "--output", output).returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]  # not the features of what is gone


def test_a_url_that_was_refused_is_asked_for_again(exports, tmp_path):
    with serving() as server:
        server.answers["/0.png"] = 200, {}, (exports / "0.png").read_bytes()
        url, output = server.url("/0.png"), f"{tmp_path}/out/"
        refused = embed(exports, url, exports / "1.png", "--output", output)
        assert refused.returncode == 1 and "--allow-local-urls" in refused.stderr
        server.answers["/0.png"] = 404, {}, b""
        gone = embed(exports, url, exports / "1.png", "--output", output, "--allow-local-urls")
        assert gone.returncode == 1 and "404" in gone.stderr and "--allow-local-urls" not in gone.stderr
        server.answers["/0.png"] = 200, {}, (exports / "0.png").read_bytes()
        done = embed(exports, url, exports / "1.png", "--output", output, "--allow-local-urls")
        assert done.returncode == 0 and "mvlib: 1 image in " in done.stderr and ", 1 done before: " in done.stderr
        assert read(output)[0] == [url, str(exports / "1.png")]


def test_other_pictures_are_refused_in_words_or_begun_anew(exports, photos, tmp_path):
    output = tmp_path / "out.parquet"
    embed(exports, exports / "0.png", exports / "1.png", "--output", output)
    done = embed(exports, photos, "--output", output)
    assert done.returncode == 2 and done.stderr == (
        f"mvlib: {output} was begun otherwise; give the same to go on, --overwrite to begin anew, or another "
        f"--output:\n"
        f"  other pictures: 2 before, 7 now\n"
        f"    new: {photos / '0.png'} and 6 more\n"
        f"    gone: {exports / '0.png'} and 1 more\n")
    assert not Path(f"{output}.parts").exists() and len(read(output)[0]) == 2
    done = embed(exports, photos, "--output", output, "--overwrite")
    assert done.returncode == 1 and "mvlib: 5 images in " in done.stderr and len(read(output)[0]) == 5
    several = mvlib("embed", photos, "--output", f"{tmp_path}/x/", "--overwrite", RANK="0", WORLD_SIZE="2")
    assert several.returncode == 2 and "--overwrite is for one process" in several.stderr


def test_several_processes_leave_what_files_are_like_to_the_first(exports, photos, tmp_path):
    """Copies of the files on other machines have other times."""
    command = "embed", photos, "--model", exports / "pooled.ov", "--output", f"{tmp_path}/out/", "--shard-size", 2
    second, first = (dict(WORLD_SIZE="2", RANK=rank) for rank in ("1", "0"))
    mvlib(*command, **second)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/part-*")}
    assert len(times) == 4
    os.utime(photos / "0.png", ns=(0, 0))
    mvlib(*command, **second)
    mvlib(*command, **first)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/part-*")}
    os.utime(photos / "0.png", ns=(10**9, 10**9))
    mvlib(*command, **first)
    assert {path.name for path, time in times.items() if path.stat().st_mtime_ns != time} == {"part-00000.parquet"}


@pytest.mark.parametrize("name", ["out.parquet", "out.npy"])
def test_a_damaged_file_is_said_and_begun_anew(exports, photos, tmp_path, name):
    output = tmp_path / name
    embed(exports, photos, "--output", output)
    output.write_bytes(output.read_bytes()[:300])
    shutil.copyfile(exports / "1.png", photos / "5.png")
    done = embed(exports, photos, "--output", output)
    assert done.returncode == 2 and done.stderr.startswith(f"mvlib: {output} is damaged (")
    assert done.stderr.endswith("--overwrite makes it anew\n") and done.stderr.count("\n") == 1
    assert not Path(f"{output}.parts").exists()
    assert embed(exports, photos, "--output", output, "--overwrite").returncode == 1 and len(read(output)[0]) == 5


def test_predictions_are_not_overwritten_by_names(exports, tmp_path):
    command = "embed", exports / "0.png", "--model", exports / "pooled.ov", "--output", tmp_path / "q.npy"
    (tmp_path / "q.json").write_text('[\n  {"file": "0.png"}\n]\n')
    done = mvlib(*command)
    assert done.returncode == 2 and f"would go into {tmp_path / 'q.json'}, which holds something else" in done.stderr
    assert "file" in (tmp_path / "q.json").read_text()
    assert mvlib(*command, "--overwrite").returncode == 0 and read(tmp_path / "q.npy")[0] == [str(exports / "0.png")]
    assert mvlib(*command).returncode == 0
    done = mvlib(*command, "--features", "tokens", "--level", "2")
    assert done.returncode == 2 and "--features and --level are two choices" in done.stderr
