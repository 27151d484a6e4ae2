"""timm's functions for repositories, against timm's own on the same repository."""

import json

import pytest
import timm as real
import timm.models
import torch
from mvlib.timm.models import _hub

import mvlib
import mvlib.timm as timm

TINY = dict(layers=(1, 1, 1, 1), channels=(8, 16, 24, 32), stem_width=8)


def test_a_repository_there_and_back(hub, tmp_path):
    model = timm.create_model("resnet18", num_classes=2, **TINY).eval()
    card = {"description": "Mine.", "license": "mit"}
    url = timm.models.push_to_hf_hub(model, "someone/mine", token="hf_test", model_card=card,
                                     model_config={"label_names": ["cat", "dog"]})
    assert "someone/mine" in str(url)
    theirs = real.create_model("hf-hub:someone/mine", pretrained=True, cache_dir=tmp_path / "a").eval()
    ours = timm.create_model("hf-hub:someone/mine", pretrained=True, cache_dir=tmp_path / "b").eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(ours(x), model(x)) and torch.equal(theirs(x), model(x))
    for library in (timm, real):
        read = library.models.load_model_config_from_hf
        cfg, architecture, arguments = read("someone/mine", cache_dir=tmp_path / "c")
        assert (architecture, arguments["num_classes"], cfg["label_names"]) == ("resnet18", 2, ["cat", "dog"])
        assert cfg["hf_hub_id"] == "someone/mine" and cfg["source"] == "hf-hub"
        state_dict = library.models.load_state_dict_from_hf("someone/mine", cache_dir=tmp_path / "d")
        assert torch.equal(state_dict["fc.weight"], model.fc.weight)
    text = open(_hub.download_from_hf("someone/mine", "README.md", cache_dir=tmp_path / "e")).read()
    assert text == real.models._hub.generate_readme(card, "mine")
    with pytest.raises(mvlib.DownloadError, match="the repository 'someone/mine' holds no nothing.txt"):
        _hub.download_from_hf("someone/mine", "nothing.txt", cache_dir=tmp_path / "e")


def test_a_users_function_of_a_repositorys_architecture(hub, tmp_path):
    from mvlib.timm.meanings import registry as meaning

    def a_net(pretrained=False, **kwargs):
        return pretrained, kwargs["pretrained_cfg"]["hf_hub_id"], kwargs["width"], kwargs["num_classes"]

    a_net.__module__ = __name__
    timm.models.register_model(a_net)
    hub.add_repo("someone/a", {"config.json": json.dumps({
        "architecture": "a_net", "num_classes": 3, "pretrained_cfg": {}, "model_args": {"width": 7, "num_classes": 3}}
    ).encode()})
    try:
        made = timm.create_model("hf-hub:someone/a", pretrained=True, num_classes=5, cache_dir=tmp_path)
    finally:
        del meaning._foreign["a_net"], mvlib.registry._registry.entries["a_net"]
    assert made == (True, "someone/a", 7, 5)


def test_a_config_of_a_repository_is_read_as_timm_reads_it(tmp_path):
    for i, data in enumerate((
        {"architecture": "x", "num_classes": 4, "pretrained_cfg": {"input_size": [3, 64, 64], "fixed_input_size": True},
         "model_args": {"img_size": 96, "in_chans": 1}, "label_names": ["a"]},
        {"architecture": "x", "num_features": 5, "labels": ["a"], "input_size": [3, 8, 8]},
        {"architecture": "x", "pretrained_cfg": {"fixed_input_size": True}, "model_args": {"dynamic_img_size": True}},
    )):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(data))
        ours, theirs = (library.models._hub.load_model_config_from_path(folder) for library in (timm, real))
        assert ours == theirs


@pytest.mark.parametrize("card", [
    {}, {"tags": ["a"], "license": "mit", "license_name": "n", "license_link": "l", "library_name": "b"},
    {"description": "D", "details": {"Dataset": "IN", "Pretrain Dataset": ["A", "B"], "X": {"a": 1}, "Y": [1, 2]},
     "usage": "use", "comparison": "table", "citation": ["one", "two"]},
    {"details": {"Dataset": ["A"]}, "citation": "one"},
], ids=str)
def test_a_card(card):
    assert _hub.generate_readme(card, "name", "task") == real.models._hub.generate_readme(card, "name", "task")


def test_files_of_plain_addresses(hub, tmp_path):
    url = hub.add_file("/weights.pth", b"x" * 100)
    assert not _hub.check_cached_file(url, cache_dir=tmp_path)
    path = _hub.download_cached_file((url, "mine.pth"), cache_dir=tmp_path)
    assert path == str(tmp_path / "mine.pth")
    assert _hub.check_cached_file((url, "mine.pth"), cache_dir=tmp_path)
    assert _hub.hf_split("a/b@c") == real.models._hub.hf_split("a/b@c") == ("a/b", "c")
    assert _hub.get_cache_dir("sub") == real.models._hub.get_cache_dir("sub")


@pytest.mark.parametrize("arguments, text", [
    (dict(model_config={"num_classes": 3}), "num_classes=3 of a model that has 2"),
    (dict(model_args={"act_layer": torch.nn.GELU}), "the model's argument act_layer is not plain data"),
    (dict(model_args={"in_chans": 5}), "in_chans=5 disagrees with the model, which has 3"),
])
def test_what_cannot_be_written(arguments, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        timm.models.save_for_hf(timm.create_model("resnet18", num_classes=2, **TINY), tmp_path, **arguments)
