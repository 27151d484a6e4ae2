"""`mvlib list`, `info` and `cache`."""

import json

import pytest

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


def test_list_without_a_match(capsys):
    status, out, err = run(capsys, "list", "resnet5o")
    assert (status, out) == (1, "")
    assert "no model matches resnet5o; did you mean" in err


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


def test_info_of_an_architecture_without_weights(capsys):
    name = next(n for n in mvlib.list_models() if not mvlib.is_model_pretrained(n))
    assert name in run(capsys, "info", name)[1]


@pytest.mark.parametrize(("name", "message"), [
    ("resnet5o", "unknown architecture 'resnet5o'; did you mean"),
    ("resnet50.a1", "unknown tag 'a1' of the architecture 'resnet50'"),
    ("hf-hub:timm/resnet50.a1_in1k", "names a repository"),
])
def test_info_of_what_is_unknown(name, message, capsys):
    status, _, err = run(capsys, "info", name)
    assert status == 2
    assert message in err


def test_cache(hub, capsys):
    assert run(capsys, "cache", "path")[1].count("\n") == 2
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


def test_without_a_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "COMMAND" in capsys.readouterr().err
