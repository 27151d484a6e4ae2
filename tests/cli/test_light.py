"""`mvlib list`, `info` and `cache`."""

import json

import pytest
import torchvision

import mvlib
from mvlib.cli import main


def run(capsys, *arguments):
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_list_prints_what_list_models_returns(capsys):
    status, out, _ = run(capsys, "list", "vit_*", "--pretrained")
    assert status == 0
    assert out.splitlines() == mvlib.list_models("vit_*", pretrained=True)


def test_list_takes_several_patterns_and_exclusions(capsys):
    _, out, _ = run(capsys, "list", "resnet18*", "resnet34*", "--exclude", "*d", "--module", "resnet", "--json")
    assert json.loads(out) == mvlib.list_models(["resnet18*", "resnet34*"], exclude_filters="*d", module="resnet")


def test_list_modules(capsys):
    assert run(capsys, "list", "--modules")[1].splitlines() == mvlib.list_modules()
    assert run(capsys, "list", "--modules", "resnet*", "--exclude", "*v2")[1].split() == ["resnet"]
    assert run(capsys, "list", "--modules", "resnat")[::2] == \
        (1, "mvlib: no family matches resnat; did you mean 'resnet', 'res2net' or 'resnest'?\n")
    status, _, err = run(capsys, "list", "--modules", "--pretrained")
    assert status == 2 and "--modules lists families" in err


def test_a_pattern_with_a_dot_is_for_tags(capsys):
    assert run(capsys, "list", "resnet50.*")[1].split() == mvlib.list_models("resnet50.*", include_tags=True) != []
    assert run(capsys, "list", "resnet50.a1_in1k")[1] == "resnet50.a1_in1k\n"
    without = run(capsys, "list", "resnet50", "--exclude", "*.a1_in1k")[1].split()
    assert "resnet50.a2_in1k" in without and "resnet50.a1_in1k" not in without


def test_list_without_a_match(capsys):
    status, out, err = run(capsys, "list", "resnet5o")
    assert (status, out) == (1, "")
    assert "no model matches resnet5o; did you mean" in err
    assert run(capsys, "list", "resnet18*", "--exclude", "*")[::2] == (1, "mvlib: no model matches resnet18*\n")


def test_info_of_weights(capsys):
    status, out, _ = run(capsys, "info", "resnet50.imagenet1k_v2")
    assert status == 0
    for expected in ("25.56 M", "4.09 at 224 x 224", "3 x 224 x 224", "resize 232 (bilinear), crop 224",
                     "1000 classes (imagenet-1k)", "acc@1 80.858", "https://download.pytorch.org/models/resnet50",
                     "cached", "a1_in1k", "tags of resnet50"):
        assert expected in out


def test_info_as_json(capsys):
    facts = json.loads(run(capsys, "info", "resnet50", "--json")[1])
    assert facts["architecture"] == "resnet50"
    assert len(facts["tags"]) == len(mvlib.list_models("resnet50.*", pretrained=True))


@pytest.mark.parametrize(("name", "text"), [
    ("vit_base_patch16_224.imagenet1k_v1", "version of DeIT (https://arxiv.org/abs/2012.12877)'s training recipe."),
    ("vgg16.imagenet1k_features", "missing values in the classifier module. Only the features module has valid"),
])
def test_info_is_plain_text(name, text, capsys):
    for options in ([], ["--json"]):
        out = run(capsys, "info", name, *options)[1]
        assert text in out and "`" not in out


def test_info_of_an_architecture_without_weights(capsys):
    name = next(n for n in mvlib.list_models() if not mvlib.is_model_pretrained(n))
    assert name in run(capsys, "info", name)[1]


@pytest.mark.parametrize(("name", "message"), [
    ("resnet5o", "unknown architecture 'resnet5o'; did you mean"),
    ("resnet50.a1", "unknown tag 'a1' of the architecture 'resnet50'"),
    ("hf-hub:timm/resnet50.a1_in1k", "names a repository"),
    ("resnet50.safetensors", "'resnet50.safetensors' is the name of a weights file, not of a model: name the model"),
    ("last.pth", "'last.pth' is the name of a weights file, not of a model"),
    ("run/model_best.pth.tar", "'run/model_best.pth.tar' is the name of a weights file, not of a model"),
])
def test_info_of_what_is_unknown(name, message, capsys):
    status, _, err = run(capsys, "info", name)
    assert status == 2
    assert message in err


def test_compare_shows_old_and_new_side_by_side(capsys):
    status, out, _ = run(capsys, "info", "--compare", "V1", "V2")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert status == 0 and len(rows) == 27
    assert rows["resnet50"] == ["76.130", "80.858", "+4.728"]
    assert rows["efficientnet_b1"][:2] == ["78.642", "79.838"]
    assert rows["mobilenet_v3_large"][:2] == ["74.042", "75.274"]
    assert rows["quantized_resnet50"][:2] == ["75.920", "80.282"]
    assert rows["quantized_resnext101_32x8d"][:2] == ["78.986", "82.574"]
    both = [builder for builder in torchvision.models.list_models(module=torchvision.models)
            if {"IMAGENET1K_V1", "IMAGENET1K_V2"} <= set(torchvision.models.get_model_weights(builder).__members__)]
    assert set(both) <= set(rows)


def test_compare_as_json_and_by_pattern(capsys):
    rows = json.loads(run(capsys, "info", "regnetx_*", "--compare", "imagenet1k_v1", "imagenet1k_v2", "--json")[1])
    assert len(rows) == 7 and {row["model"][:9] for row in rows} == {"regnet_x_"}
    assert all(row["gain"] == pytest.approx(row["imagenet1k_v2"] - row["imagenet1k_v1"], abs=1e-3) for row in rows)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--compare", "V1", "V9"], "no model that matches '*' has weights of both 'V1' and 'V9'"),
    ([], "info needs the name of a MODEL, or --compare OLD NEW"),
])
def test_compare_of_what_is_unknown(arguments, message, capsys):
    status, _, err = run(capsys, "info", *arguments)
    assert status == 2 and message in err


def test_cache(hub, capsys):
    assert run(capsys, "cache", "path")[1].count("\n") == 3
    assert run(capsys, "cache", "list")[::2] == (0, "mvlib: the cache is empty\n")
    hub.add_repo("timm/resnet18.a1_in1k", {"config.json": b"{}", "model.safetensors": b"\2\0\0\0\0\0\0\0{}"})
    from mvlib.hub import fetch

    fetch("hf-hub:timm/resnet18.a1_in1k")
    status, out, _ = run(capsys, "cache", "list")
    assert status == 0
    assert "timm/resnet18.a1_in1k" in out
    assert run(capsys, "cache", "remove", "nothing*")[0] == 1
    status, out, _ = run(capsys, "cache", "remove", "*resnet18*")
    assert status == 0
    assert "1 removed" in out
    assert run(capsys, "cache", "list")[2] == "mvlib: the cache is empty\n"
