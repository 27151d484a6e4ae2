"""Models that are written as paths, and names of files that contradict the format."""

from pathlib import Path

import pytest

from .command import here as mvlib


@pytest.mark.parametrize(("name", "said"), [
    ("some/path/that/is/missing", "there is no folder some/path/that/is/missing"),
    ("nosuch.ov/", "there is no folder nosuch.ov/"),
    ("nosuch.ov", "there is no folder nosuch.ov"),
    ("lite.ov", "there is no folder lite.ov; did you mean 'lite0.ov'?"),
    ("./lite0", "there is no folder ./lite0; did you mean 'lite0.ov'?"),
    ("run/exprt", "there is no folder run/exprt; did you mean 'expert' in run?"),
    ("run/export", "there is no folder run/export: the run run has no export, which is written at the end of a "
                   "training"),
    ("run/resnet18", "there is no folder run/resnet18; write 'hf-hub:run/resnet18' to load it from the hub"),
    ("timm/resnet18", "looks like a repository or a path"),
    ("resnet18.a1_in1", "did you mean"),
])
def test_a_model_that_is_written_as_a_path_and_is_not_there(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    for place in ("lite0.ov", "run/expert"):
        Path(place).mkdir(parents=True)
    Path("x.jpg").touch()
    for command in (["predict", "x.jpg"], ["embed", "x.jpg", "--output", "x.npy"], ["validate", ".", "--split", ""]):
        done = mvlib(*command, "--model", name)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
        assert not said.startswith("there is") or done.stderr == f"mvlib: {said}\n"


@pytest.mark.parametrize(("arguments", "said"), [
    ("export resnet18.a1_in1k --output a.onnx --format openvino",
     "a.onnx ends in .onnx, which is for ONNX, and the format is openvino"),
    ("predict x.jpg --format csv --output a.json", "the ending .json is for json; leave out --format"),
    ("predict x.jpg --format json --output a.txt", "the ending .txt is for table"),
    ("embed x.jpg", "--output photos.parquet"),
])
def test_a_name_that_contradicts_the_format(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("x.jpg").touch()
    done = mvlib(*arguments.split())
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.jpg"]
