"""A model as a repository: written, read back by us and by timm, and uploaded."""

import json
import os
import re
import shlex

import pytest
import timm
import torch
from PIL import Image

import mvlib
from mvlib.errors import ConfigError
from mvlib.publish import describe_model
from mvlib.train.averaging import write_weights
from mvlib.train.checkpoint import write_checkpoint

from .cli.command import here

IMAGE = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
SMALL_SWIN = {"embed_dim": 24, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 8)}


def same(own, peer):
    """Whether outputs are equal but for the order of additions, which follows the weights' place in memory."""
    return (own - peer).abs().max() <= 1e-5 * peer.abs().max()


@pytest.mark.parametrize(("name", "kwargs", "size"), [
    ("resnet18", {}, 224),
    ("resnet18", {"in_chans": 1, "num_classes": 3, "global_pool": "max"}, 224),
    ("efficientnet_b0", {"num_classes": 12}, 224),
    ("vit_tiny_patch16_224", {"img_size": 96, "num_classes": 5}, 96),
    ("deit_tiny_distilled_patch16_224", {}, 224),
    ("swin_tiny_patch4_window7_224", {**SMALL_SWIN, "num_classes": 5}, 224),
])
def test_here_and_in_timm_a_saved_model_gives_the_same_outputs(name, kwargs, size, tmp_path):
    model = mvlib.create_model(name, **kwargs).eval()
    image = IMAGE[:1, :kwargs.get("in_chans", 3), :size, :size]
    mvlib.save_for_hub(model, tmp_path)
    again = mvlib.create_model(f"local-dir:{tmp_path}").eval()
    assert same(again(image), model(image))
    peer = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert same(peer(image), model(image))
    assert mvlib.resolve_data_config(model=again) == mvlib.resolve_data_config(model=model)


def test_what_is_said_of_the_weights_survives(tmp_path):
    model = mvlib.create_model("resnet18", num_classes=3)
    mvlib.save_for_hub(model, tmp_path, label_names=["cat", "dog", "cup"], license="mit",
                       metrics={"pets": {"acc@1": 91.5}}, data_config={"crop_pct": 0.5, "mean": (0.1, 0.2, 0.3)})
    config = mvlib.create_model(f"local-dir:{tmp_path}").weights_config
    assert config.label_names == ("cat", "dog", "cup")
    assert (config.license, config.crop_pct, config.mean) == ("mit", 0.5, (0.1, 0.2, 0.3))
    assert config.metrics == {"pets": {"acc@1": 91.5}}
    card = (tmp_path / "README.md").read_text()
    assert "license: mit" in card
    assert "3 classes: cat, dog, cup" in card
    assert "| pets | acc@1 | 91.5 |" in card


def test_torchvision_preprocessing_survives(tmp_path):
    model = mvlib.create_model("resnet50.imagenet1k_v2", pretrained=False)
    mvlib.save_for_hub(model, tmp_path)
    again = mvlib.create_model(f"local-dir:{tmp_path}", pretrained=False)
    assert again.weights_config.resize_size == model.weights_config.resize_size == 232
    assert mvlib.resolve_data_config(model=again) == mvlib.resolve_data_config(model=model)


def test_the_card_s_snippet_runs(tmp_path, monkeypatch, capsys):
    mvlib.save_for_hub(mvlib.create_model("resnet18", num_classes=2), tmp_path)
    snippet = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    exec(snippet, {})
    assert "values" in capsys.readouterr().out


def test_the_card_s_command_runs(tmp_path, monkeypatch):
    mvlib.save_for_hub(mvlib.create_model("test_resnet", num_classes=2), tmp_path)
    command = re.search(r"```bash\nmvlib (.*)\n```", (tmp_path / "README.md").read_text())[1]
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    done = here(*shlex.split(command))
    assert (done.returncode, done.stderr) == (0, "") and "photo.jpg" in done.stdout


def test_a_changed_head_is_saved_as_it_is(tmp_path):
    model = mvlib.create_model("resnet18")
    model.reset_classifier(7, "catavgmax")
    mvlib.save_for_hub(model, tmp_path)
    again = mvlib.create_model(f"local-dir:{tmp_path}")
    assert again.fc.weight.shape == (7, 1024)
    assert json.loads((tmp_path / "config.json").read_text())["global_pool"] == "catavgmax"


@pytest.mark.parametrize("mmap", [True, False])
def test_saving_over_the_folder_that_the_model_came_from(mmap, tmp_path):
    image = IMAGE[:, :, :64, :64]
    mvlib.save_for_hub(mvlib.create_model("resnet18"), tmp_path)
    model = mvlib.create_model(f"local-dir:{tmp_path}", mmap=mmap).eval()
    before = model(image)
    mvlib.save_for_hub(model, tmp_path)
    assert torch.equal(model(image), before)
    assert same(mvlib.create_model(f"local-dir:{tmp_path}").eval()(image), before)
    mvlib.save_for_hub(mvlib.create_model("resnet18", num_classes=3), tmp_path)
    assert torch.equal(model(image), before)
    assert sorted(os.listdir(tmp_path)) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pth.tar"])
def test_every_writer_of_weights_leaves_a_model_alone_that_maps_the_file(name, tmp_path):
    model = mvlib.create_model("resnet18")

    def write(state_dict):
        if name == "w.pth.tar":
            write_checkpoint({"state_dict": state_dict}, tmp_path / name)
        else:
            write_weights(state_dict, tmp_path / name)

    write(model.state_dict())
    mapped = mvlib.create_model("resnet18", checkpoint_path=tmp_path / name, mmap=True)
    write({"fc.weight": torch.zeros(2)})  # a shorter file: what it cuts off of a mapping kills who looks at it
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in mapped.state_dict().items())
    assert os.listdir(tmp_path) == [name]


# what is said of the base, and what is not

OF_THE_BASE = {"license": "cc-by-nc-4.0", "test_input_size": (3, 192, 192), "test_crop_pct": 1.0, "crop_pct": 0.9,
               "paper_ids": "arXiv:2110.00476", "origin_url": "https://example.com/origin", "notes": "a note",
               "metrics": {"ImageNet-1K": {"acc@1": 77.7}}, "recipe": "https://example.com/recipe"}


@pytest.fixture
def published(tmp_path_factory):
    """An overlay with which test_resnet.r160_in1k has weights, and facts of them."""
    path = tmp_path_factory.mktemp("published") / "w.pth"
    torch.save(mvlib.create_model("test_resnet").state_dict(), path)
    return {**OF_THE_BASE, "file": str(path)}


def said(folder) -> tuple[dict, str]:
    return json.loads((folder / "config.json").read_text()), (folder / "README.md").read_text()


@pytest.mark.parametrize("kwargs", [{}, {"num_classes": 3}, {"pretrained": False}], ids=str)
def test_what_began_at_random_says_nothing_of_published_weights(tmp_path, published, kwargs):
    name = "test_resnet.r160_in1k" if "pretrained" in kwargs else "test_resnet"
    model = mvlib.create_model(name, pretrained_cfg_overlay=published, **{"pretrained": False, **kwargs})
    mvlib.save_for_hub(model, tmp_path)
    config, card = said(tmp_path)
    for text in (json.dumps(config), card):
        for word in ("in1k", "cc-by", "arXiv", "example.com", "77.7", "a note", "192", "Base model", "base_model"):
            assert word not in text
    assert re.findall(r"^license", card, re.M) == []
    again = mvlib.create_model(f"local-dir:{tmp_path}")
    assert again.weights_config.base_model is again.weights_config.license is None
    assert mvlib.resolve_data_config(model=again, use_test_size=True)["input_size"] == (3, 160, 160)


def test_fine_tuned_weights_name_their_base(tmp_path, published):
    model = mvlib.create_model("test_resnet.r160_in1k", pretrained_cfg_overlay=published, num_classes=3)
    mvlib.save_for_hub(model, tmp_path / "one", data_config={"input_size": (3, 64, 64)})
    config, card = said(tmp_path / "one")
    base = {"name": "test_resnet.r160_in1k", "license": "cc-by-nc-4.0", "paper_ids": "arXiv:2110.00476",
            "origin_url": "https://example.com/origin"}
    assert config["mvlib"]["base_model"] == base
    own = config["pretrained_cfg"]
    assert (own["license"], own["input_size"], own["pool_size"], own["crop_pct"]) == \
        ("cc-by-nc-4.0", [3, 64, 64], [2, 2], 0.9)
    assert not own.keys() & {"tag", "test_input_size", "test_crop_pct", "paper_ids", "origin_url", "notes"}
    assert not config["mvlib"].keys() & {"metrics", "recipe", "label_set"}
    assert "- Base model: test_resnet.r160_in1k (cc-by-nc-4.0, arXiv:2110.00476, https://example.com/origin)" in card
    assert "# test_resnet\n" in card

    again = mvlib.create_model(f"local-dir:{tmp_path / 'one'}")
    mvlib.save_for_hub(again, tmp_path / "two", license="mit", label_names=["a", "b", "c"])
    config, card = said(tmp_path / "two")
    assert config["mvlib"]["base_model"] == base and config["pretrained_cfg"]["license"] == "mit"
    assert "license: mit" in card
    third = mvlib.create_model(f"local-dir:{tmp_path / 'two'}")
    mvlib.save_for_hub(third, tmp_path / "three")
    config, _ = said(tmp_path / "three")
    assert (config["pretrained_cfg"]["license"], config["label_names"]) == ("mit", ["a", "b", "c"])
    assert timm.create_model(f"local-dir:{tmp_path / 'three'}").pretrained_cfg["input_size"] == (3, 64, 64)


def test_what_nothing_was_changed_of_is_used_as_before(tmp_path, published):
    model = mvlib.create_model("test_resnet.r160_in1k", pretrained_cfg_overlay=published)
    mvlib.save_for_hub(model, tmp_path)
    again = mvlib.create_model(f"local-dir:{tmp_path}")
    for test_size in (True, False):
        assert mvlib.resolve_data_config(model=again, use_test_size=test_size) == \
            mvlib.resolve_data_config(model=model, use_test_size=test_size)
    mvlib.save_for_hub(model, tmp_path, data_config={"crop_pct": 0.5})  # for tests, too
    again = mvlib.create_model(f"local-dir:{tmp_path}")
    assert mvlib.resolve_data_config(model=again, use_test_size=True)["crop_pct"] == 0.5
    with pytest.raises(ConfigError, match="unknown field 'crop_pc' in data_config.*crop_pct"):
        mvlib.save_for_hub(model, tmp_path, data_config={"crop_pc": 0.5})


def test_torchvision_s_resize_follows_the_crop(tmp_path):
    model = mvlib.create_model("resnet18.imagenet1k_v1", pretrained=False)
    for given, wanted in (({"crop_pct": 0.5}, (448, 0.5)), ({"input_size": (3, 112, 112)}, (128, 0.875)),
                          ({"resize_size": 448}, (448, 0.5))):
        mvlib.save_for_hub(model, tmp_path, data_config=given)
        config = mvlib.resolve_data_config(model=mvlib.create_model(f"local-dir:{tmp_path}", pretrained=False))
        assert (config["resize_size"], config["crop_pct"]) == wanted


@pytest.mark.parametrize(("name", "size", "options"), [
    ("vit_tiny_patch16_224", 96, {}),
    ("vit_tiny_patch16_224", 112, {"patch_size": 8}),
    ("swin_tiny_patch4_window7_224", 112, {}),
    ("swin_tiny_patch4_window7_224", 128, {"window_size": 4}),
])
def test_a_size_that_was_set_later(tmp_path, name, size, options):
    model = mvlib.create_model(name, num_classes=2, **(SMALL_SWIN if "swin" in name else {"depth": 3})).eval()
    model.set_input_size(img_size=size, **options)
    mvlib.save_for_hub(model, tmp_path)
    image = IMAGE[:1, :, :size, :size]
    again = mvlib.create_model(f"local-dir:{tmp_path}").eval()
    assert mvlib.resolve_data_config(model=again)["input_size"] == (3, size, size)
    assert same(again(image), model(image))
    assert same(timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()(image), model(image))


def test_a_file_of_weights_alone_is_no_published_model(tmp_path, published):
    begun = mvlib.create_model("test_resnet.r160_in1k", checkpoint_path=published["file"])
    replaced = mvlib.create_model("test_resnet.r160_in1k", pretrained_cfg_overlay=published)
    mvlib.load_checkpoint(replaced, published["file"])
    for model in (begun, replaced):
        mvlib.save_for_hub(model, tmp_path)
        config, _ = said(tmp_path)
        assert "base_model" not in config["mvlib"] and "r160_in1k" not in json.dumps(config)


def test_push_to_hub(hub, tmp_path):
    model = mvlib.create_model("resnet18", num_classes=3).eval()
    url = mvlib.push_to_hub(model, "someone/mine", token="hf_test", license="mit")
    assert "someone/mine" in url
    tuned = mvlib.create_model("hf-hub:someone/mine", num_classes=2)
    mvlib.save_for_hub(tuned, tmp_path / "tuned")
    config, card = said(tmp_path / "tuned")
    assert "base_model: someone/mine\n" in card and "license: mit\n" in card
    assert config["mvlib"]["base_model"] == {"name": "someone/mine", "source": "hf-hub:someone/mine", "license": "mit"}
    again = mvlib.create_model("hf-hub:someone/mine").eval()
    assert same(again(IMAGE), model(IMAGE))


# mistakes

@pytest.mark.parametrize("base", [{"license": "mit"}, {"name": 3}, {"name": "x", "paper_ids": [1]}, ["x"]], ids=str)
def test_a_base_that_is_none(tmp_path, base):
    path = mvlib.save_for_hub(mvlib.create_model("test_resnet"), tmp_path) / "config.json"
    config = json.loads(path.read_text())
    config["mvlib"]["base_model"] = base
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="base_model"):
        mvlib.create_model(f"local-dir:{tmp_path}")


def test_a_model_without_a_name(tmp_path):
    with pytest.raises(ConfigError, match="only a model that create_model built can be saved"):
        mvlib.save_for_hub(torch.nn.Linear(2, 2), tmp_path)


def test_a_model_that_its_arguments_do_not_build(tmp_path):
    model = mvlib.create_model("test_resnet")
    model.layer1 = torch.nn.Identity()
    with pytest.raises(ConfigError, match=r"changed after it was built: its arguments give 'layer1.0.* has none; pass"):
        mvlib.save_for_hub(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_too_few_class_names(tmp_path):
    with pytest.raises(ConfigError, match="2 label_names for a model with 1000 outputs"):
        mvlib.save_for_hub(mvlib.create_model("resnet18"), tmp_path, label_names=["a", "b"])


def test_arguments_that_are_not_data(tmp_path):
    model = mvlib.create_model("resnet18", act_layer=torch.nn.SiLU)
    with pytest.raises(ConfigError, match="pass model_args={'act_layer': ...} with a name for it"):
        mvlib.save_for_hub(model, tmp_path)
    mvlib.save_for_hub(model, tmp_path, model_args={"act_layer": "silu"})
    assert isinstance(mvlib.create_model(f"local-dir:{tmp_path}").act1, torch.nn.SiLU)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_int8_model_is_saved_by_torch_alone(tmp_path):
    model = mvlib.create_model("quantized_shufflenet_v2_x0_5", quantize=True)
    with pytest.raises(ConfigError, match="'quantized_shufflenet_v2_x0_5' is int8, and safetensors cannot hold"):
        mvlib.save_for_hub(model, tmp_path)
    path = tmp_path / "int8.pth"
    torch.save(model.state_dict(), path)
    again = mvlib.create_model("quantized_shufflenet_v2_x0_5", checkpoint_path=path, quantize=True)
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(image), model(image))


def test_the_last_map_of_another_output_stride(tmp_path):
    model = mvlib.create_model("test_resnet", pretrained=False, output_stride=16).eval()
    mvlib.save_for_hub(model, tmp_path)
    again = mvlib.create_model(f"local-dir:{tmp_path}").eval()
    size = again.weights_config.input_size
    assert again.weights_config.pool_size == tuple(again.forward_features(torch.zeros(1, *size)).shape[2:])


def test_class_names_said_when_the_model_is_created_are_kept(tmp_path):
    names = ["cat", "dog", "cup"]
    model = mvlib.create_model("test_resnet", num_classes=3, pretrained_cfg_overlay={"label_names": names})
    assert describe_model(model)["classes"] == names
    mvlib.save_for_hub(model, tmp_path)
    assert list(mvlib.create_model(f"local-dir:{tmp_path}").weights_config.label_names) == names
    model.reset_classifier(2)
    assert "classes" not in describe_model(model)
