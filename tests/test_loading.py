"""From a file to a model: formats, adaptation, and files that must not be loaded."""

import argparse
import logging
import os
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

import mvlib
from mvlib.errors import CheckpointError
from mvlib.loading import adapt_input_conv, load_checkpoint, read_state_dict


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return mvlib.create_model("resnet18").eval()


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The same weights in each format that is read."""
    folder = tmp_path_factory.mktemp("weights")
    weights = model.state_dict()
    save_file(weights, folder / "w.safetensors")
    torch.save(weights, folder / "w.pth")
    torch.save(weights, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    noise = {k: torch.zeros_like(v) for k, v in weights.items()}
    torch.save({"state_dict": noise, "state_dict_ema": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3,
                "args": argparse.Namespace(lr=0.1)}, folder / "training.pth.tar")
    torch.save({"model": {f"_orig_mod.module.{k}": v for k, v in weights.items()}}, folder / "compiled.bin")
    os.link(folder / "w.safetensors", folder / "blob-without-suffix")
    return folder


FORMATS = ("w.safetensors", "w.pth", "legacy.pth", "training.pth.tar", "compiled.bin", "blob-without-suffix")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_outputs(name, files, model):
    image = torch.randn(1, 3, 64, 64)
    loaded = mvlib.create_model("resnet18", checkpoint_path=files / name).eval()
    difference = (loaded(image) - model(image)).abs().max() / model(image).abs().max()
    assert difference < 1e-5  # not 0: the order of additions follows the weights' place in memory
    assert all(p.requires_grad and p.is_leaf for p in loaded.parameters())


@pytest.mark.parametrize("name", FORMATS)
def test_training_a_loaded_model_leaves_the_file_alone(name, files):
    before = (files / name).read_bytes()
    loaded = mvlib.create_model("resnet18", checkpoint_path=files / name)
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(torch.randn(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    assert (files / name).read_bytes() == before


def test_ema_can_be_left_aside(files):
    assert read_state_dict(files / "training.pth.tar", use_ema=False)["fc.weight"].abs().sum() == 0


def test_loading_maps_instead_of_copying(files):
    tensors = read_state_dict(files / "w.safetensors")
    loaded = mvlib.create_model("resnet18", checkpoint_path=files / "w.safetensors")
    with open("/proc/self/maps") as maps:
        assert str(files) in maps.read()
    assert tensors["fc.weight"].shape == loaded.fc.weight.shape


def test_loading_into_a_model_keeps_its_parameters(files, model):
    other = mvlib.create_model("resnet18")
    weight = other.fc.weight
    load_checkpoint(other, files / "w.safetensors")
    assert other.fc.weight is weight
    assert torch.equal(weight, model.fc.weight)


def test_dtype_and_device_are_targets(files):
    loaded = mvlib.create_model("resnet18", checkpoint_path=files / "w.safetensors", dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert loaded.bn1.num_batches_tracked.dtype == torch.int64


def test_half_precision_files_load_in_the_model_s_precision(model, tmp_path):
    save_file({k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()},
              tmp_path / "half.safetensors")
    loaded = mvlib.create_model("resnet18", checkpoint_path=tmp_path / "half.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_files_without_batch_counters_load(model, tmp_path):
    save_file({k: v for k, v in model.state_dict().items() if "num_batches" not in k}, tmp_path / "old.safetensors")
    loaded = mvlib.create_model("resnet18", checkpoint_path=tmp_path / "old.safetensors")
    assert loaded.bn1.num_batches_tracked == 0


def test_another_head_is_initialised_and_said_in_one_line(files, caplog):
    with caplog.at_level(logging.INFO, logger="mvlib"):
        loaded = mvlib.create_model("resnet18", checkpoint_path=files / "w.safetensors", num_classes=7)
    lines = [r.getMessage() for r in caplog.records if "classifier" in r.getMessage()]
    assert len(lines) == 1
    assert "the classifier 'fc' has 1000 classes, the model 7: it was initialised anew" in lines[0]
    assert loaded.fc.weight.shape == (7, 512)
    assert loaded.fc.weight.std() > 0
    assert torch.isfinite(loaded.fc.weight).all()


def test_no_head(files):
    loaded = mvlib.create_model("resnet18", checkpoint_path=files / "w.safetensors", num_classes=0).eval()
    assert loaded(torch.randn(1, 3, 64, 64)).shape == (1, 512)


@pytest.mark.parametrize("in_chans", [1, 2, 4, 6])
def test_input_channels_are_adapted_as_timm_does(in_chans, files, model):
    from timm.models import adapt_input_conv as timm_adapt

    loaded = mvlib.create_model("resnet18", checkpoint_path=files / "w.safetensors", in_chans=in_chans)
    assert torch.equal(loaded.conv1.weight, timm_adapt(in_chans, model.conv1.weight.detach().clone()))


def test_a_first_convolution_of_another_kind_cannot_be_adapted():
    with pytest.raises(CheckpointError, match="cannot be adapted from 3 to 2 input channels"):
        adapt_input_conv(2, torch.zeros(8, 4, 3, 3), 3)


# files that do not fit

def test_another_number_of_classes_names_the_remedy(model, tmp_path):
    small = mvlib.create_model("resnet18", num_classes=10)
    save_file(small.state_dict(), tmp_path / "ten.safetensors")
    with pytest.raises(CheckpointError) as caught:
        mvlib.create_model("resnet18", checkpoint_path=tmp_path / "ten.safetensors")
    assert "fc.weight (file (10, 512), model (1000, 512))" in str(caught.value)
    assert "pass num_classes=10 to keep it" in str(caught.value)


def test_another_architecture(files):
    with pytest.raises(CheckpointError) as caught:
        mvlib.create_model("vit_tiny_patch16_224", checkpoint_path=files / "w.safetensors")
    text = str(caught.value)
    assert "does not fit the model 'vit_tiny_patch16_224'" in text
    assert "these are weights of another architecture" in text
    assert "and 1" in text and len(text) < 1200  # shortened


def test_missing_keys(model, tmp_path):
    save_file({k: v for k, v in model.state_dict().items() if not k.startswith("layer1.0.")},
              tmp_path / "gap.safetensors")
    with pytest.raises(CheckpointError, match=r"missing \(10\): layer1.0.conv1.weight"):
        mvlib.create_model("resnet18", checkpoint_path=tmp_path / "gap.safetensors")


def test_wrong_shapes(model, tmp_path):
    weights = model.state_dict() | {"layer1.0.conv1.weight": torch.zeros(64, 64, 5, 5)}
    save_file(weights, tmp_path / "shape.safetensors")
    with pytest.raises(CheckpointError,
                       match=r"layer1.0.conv1.weight \(file \(64, 64, 5, 5\), model \(64, 64, 3, 3\)\)"):
        mvlib.create_model("resnet18", checkpoint_path=tmp_path / "shape.safetensors")


def test_unexpected_keys(model, tmp_path):
    save_file(model.state_dict() | {"extra.weight": torch.zeros(1)}, tmp_path / "extra.safetensors")
    with pytest.raises(CheckpointError, match=r"unexpected \(1\): extra.weight"):
        mvlib.create_model("resnet18", checkpoint_path=tmp_path / "extra.safetensors")


# files that are not weights

@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "legacy.pth"])
@pytest.mark.parametrize("share", [0.999, 0.5, 0.0001])
def test_truncated(name, share, files, tmp_path):
    data = (files / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[:int(len(data) * share)])
    with pytest.raises(CheckpointError, match=str(path)):
        mvlib.create_model("resnet18", checkpoint_path=path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_zero_bytes(name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match="empty|zero bytes|0 bytes"):
        mvlib.create_model("resnet18", checkpoint_path=tmp_path / name)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.bin"])
def test_a_web_page_instead_of_weights(name, tmp_path):
    (tmp_path / name).write_text("<html><body>404 Not Found</body></html>" * 20)
    with pytest.raises(CheckpointError, match=name):
        mvlib.create_model("resnet18", checkpoint_path=tmp_path / name)


class Malice:
    def __reduce__(self):
        return os.system, ("touch /tmp/mvlib-test-was-owned",)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(new_format, tmp_path):
    owned = "/tmp/mvlib-test-was-owned"
    if os.path.exists(owned):
        os.unlink(owned)
    path = tmp_path / "evil.pth"
    torch.save({"fc.weight": torch.zeros(1), "x": Malice()}, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match="it was not loaded, because unpickling them could run code"):
        mvlib.create_model("resnet18", checkpoint_path=path)
    assert not os.path.exists(owned)


def test_a_bare_pickle_is_refused(tmp_path):
    path = tmp_path / "plain.pth"
    path.write_bytes(pickle.dumps(Malice()))
    with pytest.raises(CheckpointError):
        read_state_dict(path)


# quantized weights

def quantized_weights():
    weight = torch.quantize_per_channel(torch.randn(4, 8), torch.full((4,), 0.1), torch.zeros(4), 0, torch.qint8)
    weights = OrderedDict({
        "fc.scale": torch.tensor(0.5), "fc.zero_point": torch.tensor(3), "fc._packed_params.dtype": torch.qint8,
        "fc._packed_params._packed_params": (weight, None), "name": "text", "sizes": (1, 2)})
    weights._metadata = OrderedDict({"fc": {"version": 3}})
    return weights


@pytest.mark.parametrize("new_format", [True, False])
def test_packed_parameters_are_kept(new_format, tmp_path):
    weights = quantized_weights()
    torch.save({"state_dict": weights}, tmp_path / "int8.pth", _use_new_zipfile_serialization=new_format)
    found = read_state_dict(tmp_path / "int8.pth")
    assert set(weights) - set(found) == {"name", "sizes"}
    weight, bias = found["fc._packed_params._packed_params"]
    written = weights["fc._packed_params._packed_params"][0]
    assert weight.is_quantized and torch.equal(weight.int_repr(), written.int_repr())
    assert bias is None and found["fc._packed_params.dtype"] is torch.qint8
    assert found._metadata["fc"]["version"] == 3


def test_code_in_quantized_weights_is_refused(tmp_path):
    torch.save({**quantized_weights(), "x": Malice()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="it was not loaded, because unpickling them could run code"):
        read_state_dict(tmp_path / "evil.pth")


def test_an_int8_model_loads_itself(tmp_path):
    class Int8(torch.nn.Module):
        is_quantized = True

        def load_published(self, state_dict, check):
            check({"fc.scale": torch.ones(())}, {key: state_dict[key] for key in ("fc.scale", "fc.zero_point")})

    torch.save(quantized_weights(), tmp_path / "int8.pth")
    with pytest.raises(CheckpointError, match=r"does not fit the model 'Int8'\n  unexpected \(1\): fc.zero_point"):
        load_checkpoint(Int8(), tmp_path / "int8.pth")


def test_no_tensors(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_state_dict(tmp_path / "none.pth")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file at"):
        mvlib.create_model("resnet18", checkpoint_path=tmp_path / "none.safetensors")


def test_weights_without_a_classifier_get_a_new_one(tmp_path, caplog):
    """What self-supervised training leaves behind, for fine-tuning."""
    model = mvlib.create_model("resnet18", num_classes=0)
    path = tmp_path / "headless.pth"
    torch.save(model.state_dict(), path)
    tuned = mvlib.create_model("resnet18", checkpoint_path=path, num_classes=5)
    assert torch.equal(tuned.conv1.weight, model.conv1.weight) and tuned.fc.weight.shape == (5, 512)
    assert tuned.fc.weight.std() > 0
    assert "there is no classifier: 'fc' was initialised" in caplog.text
    with pytest.raises(CheckpointError, match="missing"):
        mvlib.create_model("resnet18", checkpoint_path=path)
