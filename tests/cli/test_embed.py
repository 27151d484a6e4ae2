"""`mvlib embed` and `mvlib merge`, as a user runs them: processes, real photographs, real weights; killed at random."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import skimage
from PIL import Image

from .command import here as mvlib
from .command import start

PHOTOS = Path(skimage.__file__).parent / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """25 pictures, and one file that is none."""
    root = tmp_path_factory.mktemp("photos")
    photograph = Image.open(PHOTOS / "coffee.png").resize((300, 200))
    for number in range(26):
        photograph.rotate(10 * number).save(root / f"{number}.jpg", quality=90)
    (root / "10.jpg").write_text("not a photograph")
    return root


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """What an uninterrupted run gives."""
    output = tmp_path_factory.mktemp("whole") / "emb.parquet"
    done = mvlib("embed", folder, "--output", output, "--shard-size", 4)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[:-1] == [
        f"mvlib: not read: {folder / '10.jpg'}: not an image in a format that PIL reads",
        "mvlib: 1 of 26 images could not be read"]
    return output


def read_parquet(path):
    table = pyarrow.parquet.read_table(path)
    return table["file"].to_pylist(), np.stack(table["embedding"].to_numpy())


def names(folder):
    return [str(folder / f"{number}.jpg") for number in range(26) if number != 10]


def test_embeddings_are_the_models(folder, whole):
    import mvlib as library

    files, embeddings = read_parquet(whole)
    assert files == names(folder)
    assert embeddings.dtype == np.float32 and embeddings.shape == (25, 1280)
    model = library.create_model("tf_efficientnet_lite0.pip_in1k").eval()
    transform = library.create_transform(**library.resolve_data_config(model=model))
    image = transform(library.data.open_image(files[3]))[None]
    expected = model.forward_head(model.forward_features(image), pre_logits=True)[0].detach().numpy()
    assert np.abs(embeddings[3] - expected).max() < 0.1 * np.abs(expected).max()  # one step of 8 bits, at most, apart
    schema = pyarrow.parquet.read_schema(whole)
    assert schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 1280)
    assert json.loads(schema.metadata[b"mvlib"])["settings"]["model"] == "tf_efficientnet_lite0.pip_in1k"


@pytest.mark.slow
def test_killed_again_and_again_it_gives_what_a_run_in_peace_gives(folder, whole, tmp_path):
    output, draw = tmp_path / "emb.parquet", random.Random(0)
    parts = tmp_path / "emb.parquet.parts"
    command = ("embed", folder, "--output", output, "--shard-size", 4)
    done, kills = 0, 0
    for _ in range(2):
        process = start(*command)
        while len(list(parts.glob("part-*"))) <= done and process.poll() is None:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        kills += process.wait() == -9
        done = len(list(parts.glob("part-*")))
    assert kills == 2
    (tmp_path / ".emb.parquet.1.tmp").touch()  # of one killed while it joined the parts
    (tmp_path / ".emb.parquet.manifest.json.1.tmp").touch()
    assert mvlib(*command).returncode == 1
    files, embeddings = read_parquet(output)
    expected_files, expected = read_parquet(whole)
    assert files == expected_files
    np.testing.assert_array_equal(embeddings, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["emb.parquet", "emb.parquet.manifest.json"]
    manifests = [json.loads(path.with_name("emb.parquet.manifest.json").read_text()) for path in (output, whole)]
    assert manifests[0] == manifests[1]
    assert [failure["file"] for failure in manifests[0]["failures"]] == [str(folder / "10.jpg")]


def test_a_finished_file_is_not_made_again(folder, whole):
    before = whole.stat().st_mtime_ns
    done = mvlib("embed", folder, "--output", whole, "--shard-size", 4)
    assert done.returncode == 1 and f"{whole} is complete already" in done.stderr
    assert "1 of 26 images could not be read" in done.stderr
    assert whole.stat().st_mtime_ns == before
    done = mvlib("embed", folder, "--output", whole, "--features", "tokens")
    assert done.returncode == 2
    assert "  features: pooled before, tokens now" in done.stderr
    assert not Path(f"{whole}.parts").exists()
    manifest = whole.with_name(f"{whole.name}.manifest.json")
    text = manifest.read_text()
    manifest.write_text(text[:40])
    done = mvlib("embed", folder, "--output", whole)
    manifest.write_text(text)
    assert done.returncode == 2 and f"{manifest} is damaged" in done.stderr and done.stderr.count("\n") == 1


def test_npy_with_names_beside_it(folder, whole, tmp_path):
    done = mvlib("embed", folder, "--output", tmp_path / "emb.npy", "--dtype", "float16", "--shard-size", 10)
    assert done.returncode == 1
    array = np.load(tmp_path / "emb.npy")
    assert array.dtype == np.float16 and array.shape == (25, 1280)
    assert json.loads((tmp_path / "emb.json").read_text()) == names(folder)
    np.testing.assert_allclose(array, read_parquet(whole)[1], atol=0.02)


@pytest.mark.slow
def test_two_ranks_fill_one_folder_and_merge_joins_it(folder, whole, tmp_path):
    command = ("embed", folder, "--output", f"{tmp_path}/parts/", "--shard-size", 4)
    first = mvlib(*command, RANK="1", WORLD_SIZE="2")  # alone, it does the other's share, too
    assert first.returncode == 1, first.stderr
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("parts/part-*")}
    (tmp_path / "parts" / "part-00001.parquet").unlink()
    (tmp_path / "parts" / "part-00004.parquet").unlink()
    (tmp_path / "parts" / "part-00005.parquet").unlink()
    done = mvlib("merge", tmp_path / "parts", "--output", tmp_path / "all.parquet")
    assert done.returncode == 2
    assert "3 of 7 shards are missing (1, 4-5)" in done.stderr

    pair = [start(*command, RANK=str(rank), WORLD_SIZE="2") for rank in (0, 1)]
    assert [process.wait() for process in pair] == [1, 1]
    again = {path: path.stat().st_mtime_ns for path in tmp_path.glob("parts/part-*")}
    assert {path for path in again if again[path] != written[path]} == {
        tmp_path / "parts" / f"part-0000{number}.parquet" for number in (1, 4, 5)}
    done = mvlib("merge", tmp_path / "parts", "--output", tmp_path / "all.parquet")
    assert done.returncode == 1 and "1 of 26 images" in done.stderr
    assert read_parquet(tmp_path / "all.parquet")[0] == read_parquet(whole)[0]
    np.testing.assert_array_equal(read_parquet(tmp_path / "all.parquet")[1], read_parquet(whole)[1])
    mvlib("merge", tmp_path / "parts", "--output", tmp_path / "all.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "all.npy"), read_parquet(whole)[1])
    assert json.loads((tmp_path / "all.json").read_text()) == names(folder)
    done = mvlib("merge", tmp_path / "parts", "--output", tmp_path / "all.csv")
    assert done.returncode == 2 and "known: .parquet, .npy" in done.stderr


@pytest.mark.slow  # `mvlib predict` is, by default
def test_under_torchrun(folder, whole, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mvlib", "embed",
         *names(folder), "--output", f"{tmp_path}/parts/", "--shard-size", "4"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert mvlib("merge", tmp_path / "parts", "--output", tmp_path / "all.parquet").returncode == 0
    files, embeddings = read_parquet(tmp_path / "all.parquet")
    assert files == names(folder)
    np.testing.assert_allclose(embeddings, read_parquet(whole)[1], atol=1e-4)


@pytest.mark.slow
def test_two_processes_on_one_folder(folder, tmp_path):
    command = ("embed", folder, "--output", f"{tmp_path}/parts/", "--shard-size", 2)
    one = start(*command)
    while not list(tmp_path.glob("parts/part-*")):
        assert one.poll() is None
        time.sleep(0.002)
    one.send_signal(19)  # SIGSTOP: it holds its locks as long as it likes
    try:
        two = mvlib(*command)
    finally:
        one.send_signal(18)
        one.communicate()
    assert two.returncode == 2
    assert two.stderr.strip() == f"mvlib: another process is at work on {tmp_path}/parts"
    assert one.returncode == 1
    assert len(list(tmp_path.glob("parts/part-*"))) == 13


def test_tokens_and_levels(tmp_path):
    mvlib("embed", PHOTOS / "coffee.png", "--output", tmp_path / "tokens.npy", "--features", "tokens")
    assert np.load(tmp_path / "tokens.npy").shape == (1, 1280, 7, 7)
    mvlib("embed", PHOTOS / "coffee.png", "--output", tmp_path / "level.parquet", "--level", "-1")
    assert read_parquet(tmp_path / "level.parquet")[1].shape == (1, 320 * 7 * 7)
    metadata = pyarrow.parquet.read_schema(tmp_path / "level.parquet").metadata[b"mvlib"]
    assert json.loads(metadata)["shape"] == [320, 7, 7]


@pytest.mark.parametrize(("arguments", "message"), [
    (["{empty}", "--output", "{tmp}/x.npy"], "no images in "),
    ([], "--output"),
    (["--output", "{tmp}/x.npy"], "no images: name files, folders"),
    (["{photo}", "--output", "{tmp}/x.txt"], "is no place for features: name a .parquet or .npy file"),
    (["{photo}", "--output", "{tmp}/nowhere/x.npy"], "there is no folder"),
    (["{photo}", "--output", "{tmp}/x.npy", "--level", "99"], "has no level '99'; it has 0 ("),
    (["{photo}", "--files-from", "{tmp}/none.txt", "--output", "{tmp}/x.npy"], "cannot be read: No such file"),
])
def test_mistakes(arguments, message, tmp_path):
    (tmp_path / "empty").mkdir()
    places = {"empty": tmp_path / "empty", "tmp": tmp_path, "photo": PHOTOS / "coffee.png"}
    done = mvlib("embed", *(argument.format(**places) for argument in arguments))
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("x*"))


def test_several_processes_need_a_folder_and_a_list_in_a_file():
    done = mvlib("embed", PHOTOS / "coffee.png", "--output", "x.npy", WORLD_SIZE="2", RANK="0")
    assert done.returncode == 2 and "2 processes need a folder (--output x/)" in done.stderr
    done = mvlib("embed", "-", "--output", "x/", WORLD_SIZE="2", RANK="0")
    assert done.returncode == 2 and "cannot share standard input" in done.stderr
