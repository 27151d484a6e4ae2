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


@pytest.mark.parametrize(("command", "said"), [
    ("finetune phots", "there is no data set phots; did you mean 'photos'?"),
    ("train phots --model resnet18", "there is no data set phots; did you mean 'photos'?"),
    ("validate phots --model resnet18", "there is no data set phots; did you mean 'photos'?"),
    ("predict phots", "there is no file or folder phots; did you mean 'photos'?"),
    ("predict photos/tree.jpg", "there is no file or folder photos/tree.jpg; did you mean 'three.jpg' in photos?"),
    ("predict phots/three.jpg", "there is no file or folder phots/three.jpg; did you mean 'photos'?"),
    ("predict three.jpg", "there is no file or folder three.jpg"),
    ("embed photos --output phots/x.npy",
     "phots/x.npy cannot be written: there is no folder phots; did you mean 'photos'?"),
    ("merge phots --output x.csv", "there is no folder phots; did you mean 'photos'?"),
    ("merge photos --output x.csv", "photos is no folder of results: it has no _manifest.json"),
    ("export resnet18 --output x --precision int8 --calibrate phots",
     "--calibrate: there is no folder phots; did you mean 'photos'?"),
    ("compare resnet18 --data phots", "--data: there is no folder phots; did you mean 'photos'?"),
    ("train photos --model resnet18 --resume run/lst.pth",
     "there is no checkpoint run/lst.pth; did you mean 'last.pth' in run?"),
    ("validate photos --model resnet18 --checkpoint run/lst.pth",
     "--checkpoint run/lst.pth cannot be read: there is no such file; did you mean 'last.pth' in run?"),
    ("finetune photos --resume rn", "there is no run rn; did you mean 'run'?"),
    ("schedule --config run/fst.yaml", "; did you mean 'fast.yaml' in "),
])
def test_data_that_are_not_there_and_their_nearest_name(tmp_path, monkeypatch, command, said):
    monkeypatch.chdir(tmp_path)
    for place in ("photos/three.jpg", "run/last.pth", "run/fast.yaml"):
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).touch()
    done = mvlib(*command.split())
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert said.startswith(";") or done.stderr == f"mvlib: {said}\n"


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
