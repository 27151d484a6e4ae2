"""Each example, on small data: what it finds, not only that it ends."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .conftest import EXAMPLES

SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if path.name != "demo_data.py")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_file_is_short_says_its_command_and_is_listed(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    assert f"python examples/{path.name}" in text.split('"""')[1]
    assert f"]({path.name})" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def run(script: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    """An example in a process of its own."""
    return subprocess.run([sys.executable, EXAMPLES / script, *arguments], text=True, capture_output=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)


@pytest.mark.parametrize("name", ["finetune_resume_export", "linear_probe", "distillation"])
def test_wrong_data_is_one_line(example, name, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [f"examples/{name}.py"])
    with pytest.raises(SystemExit) as error:
        example("demo_data").run(lambda: example(name).main([str(tmp_path / "nowhere")]))
    assert str(error.value) == f"{name}.py: {tmp_path}/nowhere does not exist"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The name of a small model with weights."""
    import mvlib

    folder = tmp_path_factory.mktemp("small")
    mvlib.save_for_hub(mvlib.create_model("test_resnet", num_classes=3), folder)
    return f"local-dir:{folder}"


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits_and_its_export_agrees(example, small, tmp_path, capsys, monkeypatch):
    import torch

    import mvlib
    from mvlib.engines import read_export

    finetune = example("finetune_resume_export")
    data = example("demo_data").write_textures(tmp_path / "data", train=12, validation=4)
    arguments = (str(data), "--model", small, "--img-size", "32", "--epochs", "2", "--batch-size", "8",
                 "--lr", "0.003")
    killed = run("finetune_resume_export.py", *arguments, "--output", str(tmp_path / "killed"), "--kill-after", "4")
    assert killed.returncode == -signal.SIGKILL
    resumed = finetune.main([*arguments, "--output", str(tmp_path / "killed")])
    printed = capsys.readouterr().out
    assert "going on in epoch 0, from batch 4" in printed
    assert "agree on 100.0% of pictures" in printed
    monkeypatch.setattr(mvlib, "export", lambda *_, **__: None)  # once is enough
    (tmp_path / "straight").mkdir()
    shutil.copytree(tmp_path / "killed" / "openvino", tmp_path / "straight" / "openvino")
    straight = finetune.main([*arguments, "--output", str(tmp_path / "straight")])
    assert resumed.updates == straight.updates == 12
    for key, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    assert read_export(tmp_path / "killed" / "openvino").class_names == ["brick", "grass", "gravel", "moon"]


def test_a_probe_and_neighbours_read_digits(example, tmp_path):
    data = example("demo_data").write_digits(tmp_path / "digits", train=12, validation=6)
    probe, neighbours = example("linear_probe").main([str(data), "--img-size", "48"]).values()
    assert probe > 60 and neighbours > 50  # 10% by chance


def test_the_map_of_a_class_lies_where_its_object_is(example, tmp_path):
    """A cat pasted to one side of noise, by Grad-CAM."""
    from PIL import Image

    maps, photographs = example("attention_maps"), example("demo_data").photographs()
    cat = Image.open(next(path for path in photographs if path.stem == "chelsea")).crop((100, 0, 400, 300))
    found = {}
    for left in (0, 240):
        canvas = Image.new("RGB", (480, 480), (127, 127, 127))
        canvas.paste(cat.resize((240, 240)), (left, 120))
        canvas.save(tmp_path / "cat.png")
        (place, heat), = maps.main([str(tmp_path / "cat.png"), "--output", str(tmp_path / "maps")]).items()
        found[left] = heat[:, :3].sum() / (heat[:, :3].sum() + heat[:, 4:].sum())
        assert Image.open(place).size == (224, 224)
    assert found[0] > 0.6 and found[240] < 0.4


def test_rollout_of_a_transformer_is_a_distribution_over_its_patches(example):
    import torch

    import mvlib

    model = mvlib.create_model("test_vit").eval()
    heat = example("attention_maps").rollout(model, torch.rand(1, 3, *model.patch_embed.img_size))
    assert heat.shape == model.patch_embed.grid_size
    assert (heat >= 0).all() and 0 < heat.sum() < 1  # the class token keeps some for itself
    for block in model.blocks:  # attention that looks at all alike
        block.attn.qkv.weight.data.zero_()
        block.attn.qkv.bias.data.zero_()
    even = example("attention_maps").rollout(model, torch.rand(1, 3, *model.patch_embed.img_size))
    assert even.std() < 1e-6 * even.mean()


def test_a_model_without_maps_says_so(example, tmp_path):
    import mvlib

    with pytest.raises(mvlib.ConfigError, match="'mixer_s32_224' has neither maps"):
        example("attention_maps").main(["--model", "mixer_s32_224"])


@pytest.mark.slow
def test_a_head_on_features_finds_coins_that_it_has_not_seen(example, tmp_path):
    data = example("demo_data").write_coins(tmp_path / "coins")
    background, coins = example("segmentation_head").main([str(data), "--img-size", "48", "--steps", "16"])
    assert background > 0.8 and coins > 0.6  # a third of the pixels are coins: 0.67 and 0 without a look


def test_iou_counts_what_is_known_alone(example):
    import torch

    found, truth = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, -100, 0])
    assert example("segmentation_head").iou(found, truth, 2) == [pytest.approx(1 / 3), pytest.approx(1 / 3)]


@pytest.mark.slow
def test_a_student_learns_from_its_teacher(example, tmp_path):
    data = example("demo_data").write_textures(tmp_path / "data", train=16, validation=10)
    arguments = [str(data), "--img-size", "32", "--epochs", "8"]
    teacher, _, taught = example("distillation").main(arguments).values()
    assert teacher[0] > 60 and taught[0] > 40  # 25% by chance
    assert 0 == teacher[1] < taught[1] < 1.0  # that of the same probability for all is 1.35


@pytest.mark.slow
def test_a_taught_student_is_nearer_to_its_teacher_than_one_alone(example):
    _, alone, taught = example("distillation").main([]).values()
    assert taught[1] < alone[1] and taught[0] > 80


@pytest.mark.slow
def test_fine_tuned_weights_tell_textures_apart(example, capsys):
    example("finetune_resume_export").main([])
    accuracies = [float(line.rpartition("top-1 ")[2][:-1]) for line in capsys.readouterr().out.splitlines()
                  if line.startswith("epoch")]
    assert len(accuracies) == 4 and accuracies[-1] > 90


@pytest.mark.slow
def test_a_piece_finds_its_photograph(example, tmp_path, capsys):
    import mvlib
    from mvlib.cli import main

    search = example("image_search")
    found = search.main(["--index", str(tmp_path / "photographs.parquet"), "--sheet", str(tmp_path / "sheet.png")])
    assert len(found) == 16
    assert all(Path(pictures[0][0]).stem == query.stem for query, pictures in found.items())
    assert all(len(pictures) == 3 and np.all(np.diff([cosine for _, cosine in pictures]) <= 0)
               for pictures in found.values())
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    (query, _), *_ = found.items()
    again = search.main([str(query), "--index", str(tmp_path / "photographs.parquet"), "--count", "1"])
    assert [file for file, _ in again[query]] == [found[query][0][0]]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    capsys.readouterr()
    both = search.main([str(tmp_path / "broken.png"), str(query), "--index", str(tmp_path / "photographs.parquet")])
    assert list(both) == [query] and both[query] == found[query], "the good one is answered"
    shown = capsys.readouterr().out.splitlines()
    assert "not read: " in shown[0] and "/".join(Path(both[query][0][0]).parts[-2:]) in shown[1]
    query = str(query)
    for number, options in enumerate((["--features", "tokens"], ["--level", "1"])):
        index = tmp_path / f"{number}.parquet"
        assert main(["embed", again[Path(query)][0][0], query, *options, "--output", str(index)]) == 0
        assert search.main([query, "--index", str(index)])[Path(query)][0][0] == query
    index.with_name(f"{index.name}.manifest.json").unlink()
    with pytest.raises(SystemExit, match="1.parquet.manifest.json, which says of which model .* is missing"):
        search.main([query, "--index", str(index)])
    mvlib.save_for_hub(mvlib.create_model("test_resnet", pretrained=False), tmp_path / "own")
    search.main([query, "--folder", str(Path(query).parent), "--model", f"local-dir:{tmp_path}/own", "--index",
                 str(tmp_path / "own.parquet")])
    assert "test_resnet" in (tmp_path / "own.parquet.manifest.json").read_text()
    (tmp_path / "empty").mkdir(exist_ok=True)
    for arguments, said in ((["http://a.b/x.jpg"], "http://a.b/x.jpg is no file: save the picture first"),
                            (["--folder", f"{tmp_path}/empty", "--index", f"{tmp_path}/x.parquet"], "no images in"),
                            (["--index", str(tmp_path / "x.npy")], "an index is a .parquet file"),
                            (["--count", "0"], "--count is at least 1")):
        with pytest.raises(SystemExit, match="2"):
            search.main(arguments)
        assert said in capsys.readouterr().err
