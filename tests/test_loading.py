"""From a file to a model: formats, adaptation, and files that must not be loaded."""

import argparse
import copy
import logging
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mvlib
from mvlib import loading
from mvlib.errors import CheckpointError
from mvlib.layers.helpers import unwrap
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
    repack(folder / "w.pth", folder / "deflated.pth", zipfile.ZIP_DEFLATED)
    return folder


def repack(source, target, compression=zipfile.ZIP_STORED, change=lambda name, data: data):
    """Write a zip file's records to another, as other people's tools do."""
    with zipfile.ZipFile(source) as records, zipfile.ZipFile(target, "w", compression, compresslevel=1) as archive:
        for name in records.namelist():
            archive.writestr(name, change(name, records.read(name)))


FORMATS = ("w.safetensors", "w.pth", "legacy.pth", "training.pth.tar", "compiled.bin", "blob-without-suffix",
           "deflated.pth")


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


def is_mapped(path):
    with open("/proc/self/maps") as maps:
        return str(path) in maps.read()


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_the_user_s_is_read_so_that_it_may_be_written_to(name, files, tmp_path, model):
    path = tmp_path / name
    path.write_bytes((files / name).read_bytes())
    loaded = mvlib.create_model("resnet18", checkpoint_path=path)
    assert not is_mapped(path)
    with open(path, "r+b") as stream:
        stream.write(bytes(path.stat().st_size))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_a_model_s_weights_are_saved_over_the_file_that_it_came_from(tmp_path, model):
    path = tmp_path / "w.pth"
    torch.save(model.state_dict(), path)
    for _ in range(2):
        torch.save(mvlib.create_model("resnet18", checkpoint_path=path).state_dict(), path)
    assert torch.equal(read_state_dict(path)["fc.weight"], model.fc.weight)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "training.pth.tar", "blob-without-suffix"])
def test_mapping_is_asked_for(name, files, model):
    path = files / name
    tensors = read_state_dict(path, mmap=True)
    assert is_mapped(path)
    del tensors
    assert not is_mapped(path)
    loaded = mvlib.create_model("resnet18", checkpoint_path=path, mmap=True)
    assert is_mapped(path)
    assert torch.equal(loaded.fc.weight, model.fc.weight)


@pytest.mark.parametrize("name", ["legacy.pth", "deflated.pth"])
def test_what_cannot_be_mapped_is_read(name, files, model):
    assert torch.equal(read_state_dict(files / name, mmap=True)["fc.weight"], model.fc.weight)
    assert not is_mapped(files / name)


def test_only_downloads_and_packages_are_mapped_unasked(files, tmp_path, hub, monkeypatch):
    """A cache's files are replaced by others and never written to in place."""
    data = (files / "w.safetensors").read_bytes()
    url = hub.add_file("/x/mine.safetensors", data)
    hub.add_repo("someone/weights", {"model.safetensors": data})
    (tmp_path / "a_package").mkdir()
    (tmp_path / "a_package" / "__init__.py").touch()
    (tmp_path / "a_package" / "w.safetensors").write_bytes(data)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text('{"architecture": "resnet18", "num_classes": 1000}')
    (tmp_path / "folder" / "model.safetensors").write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path)
    for source, where in ((url, "torch/hub/checkpoints/mine.safetensors"), ("hf-hub:someone/weights", "hf/hub"),
                          ("pkg:a_package/w.safetensors", "a_package/w.safetensors")):
        overlay = {"sources": [source], "sha256": None}
        model = mvlib.create_model("resnet18", pretrained=True, pretrained_cfg_overlay=overlay)
        assert is_mapped(tmp_path / where)
        model = mvlib.create_model("resnet18", pretrained=True, pretrained_cfg_overlay=overlay, mmap=False)
        assert not is_mapped(tmp_path / where) and model.num_classes == 1000
    cached = tmp_path / "torch/hub/checkpoints/mine.safetensors"
    overlay = {"file": str(cached), "sha256": None}
    models = [mvlib.create_model("resnet18", checkpoint_path=cached),  # by its path, a file in a cache is the caller's
              mvlib.create_model("resnet18", pretrained=True, pretrained_cfg_overlay=overlay),
              mvlib.create_model(f"local-dir:{tmp_path}/folder")]
    assert not is_mapped(tmp_path)
    models.append(mvlib.create_model(f"local-dir:{tmp_path}/folder", mmap=True))
    assert is_mapped(tmp_path / "folder/model.safetensors")


PEAK = """
import sys
import torch
import mvlib
from mvlib import loading

def memory(what):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what)) * 1024

models = [mvlib.create_model("resnet18", num_classes=2)]  # what is imported and allocated once
for path in sys.argv[1:]:
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before = memory("VmRSS")
    models.append(mvlib.create_model("resnet18", checkpoint_path=path))  # kept: none takes what another has freed
    print((memory("VmHWM") - before) / sum(value.nbytes for value in models[-1].state_dict().values()))
"""


def test_weights_are_in_memory_once(files, model, tmp_path):
    """Not beside the file's pages, a training checkpoint's other parts, or themselves in another layout."""
    moments = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    torch.save({"model": model.state_dict(), "optimizer": moments}, tmp_path / "training.pth")
    paths = [files / "w.safetensors", files / "w.pth", files / "legacy.pth", tmp_path / "training.pth"]
    done = subprocess.run([sys.executable, "-c", PEAK, *map(str, paths)], check=True, capture_output=True, text=True)
    assert all(float(share) <= 1.05 for share in done.stdout.split()), done.stdout
    assert len(done.stdout.split()) == len(paths)


def test_tensors_that_share_memory_in_a_file_share_it_in_memory(tmp_path):
    whole = torch.arange(12.).reshape(3, 4)
    torch.save({"a": whole, "b": whole.t(), "c": whole[1], "n": torch.empty(0)}, tmp_path / "w.pth")
    read = read_state_dict(tmp_path / "w.pth")
    read["a"][1, 2] = -1
    assert torch.equal(read["b"], read["a"].t()) and torch.equal(read["c"], read["a"][1])
    assert read["n"].shape == (0,)


def test_a_file_from_a_machine_that_counts_bytes_the_other_way_round(tmp_path):
    torch.save({"w": torch.arange(5.)}, tmp_path / "w.pth")

    def turn(name, data):
        if name.endswith("/byteorder"):
            return {b"little": b"big", b"big": b"little"}[data]
        return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(-1, 4).flip(1).numpy().tobytes() \
            if name.endswith("/data/0") else data

    repack(tmp_path / "w.pth", tmp_path / "turned.pth", change=turn)
    for mmap in (False, True):
        assert torch.equal(read_state_dict(tmp_path / "turned.pth", mmap=mmap)["w"], torch.arange(5.))


def test_records_that_no_tensor_needs(tmp_path):
    torch.save({"w": torch.arange(5.), "v": torch.ones(5)}, tmp_path / "w.pth")
    repack(tmp_path / "w.pth", tmp_path / "more.pth")
    with zipfile.ZipFile(tmp_path / "more.pth", "a") as archive:
        archive.writestr("w/data/7", bytes(20))
    assert torch.equal(read_state_dict(tmp_path / "more.pth")["w"], torch.arange(5.))
    assert torch.equal(read_state_dict(tmp_path / "more.pth")["v"], torch.ones(5))


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


@pytest.mark.parametrize(("theirs", "ours"), [(4, 3), (1, 3), (4, 1)])
def test_a_file_s_own_input_channels_are_what_is_adapted(theirs, ours, tmp_path, caplog):
    source = mvlib.create_model("resnet18", in_chans=theirs)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    with caplog.at_level(logging.INFO, logger="mvlib"):
        loaded = mvlib.create_model("resnet18", checkpoint_path=tmp_path / "w.safetensors", in_chans=ours)
    assert torch.equal(loaded.conv1.weight, adapt_input_conv(ours, source.conv1.weight.detach(), theirs))
    assert f"adapted 'conv1' from {theirs} to {ours} input channels" in caplog.text


# what training programs put around a model

def behind(prefix, weights):
    return {prefix + key: value for key, value in weights.items()}


def averaged(weights):
    return {"n_averaged": torch.tensor(3), **behind("module.", weights)}


WRAPPINGS = {
    "torchvision's reference scripts": lambda w: {"model": zeros(w), "model_ema": averaged(w), "epoch": 3},
    "the same, of a model in DDP": lambda w: {"model_ema": averaged(behind("module.", w))},
    "an average by itself": averaged,
    "DataParallel twice": lambda w: behind("module.module.", w),
    "compiled in DDP": lambda w: behind("module._orig_mod.", w),
    "DDP, compiled, DDP": lambda w: behind("module._orig_mod.module.", w),
    "compiled by regions": lambda w: {key.replace("layer1.0.", "layer1.0._orig_mod."): v for key, v in w.items()},
    "FSDP and checkpointing": lambda w: {f"_fsdp_wrapped_module.{key}".replace(
        "layer2.", "layer2._checkpoint_wrapped_module."): v for key, v in w.items()},
    "DeepSpeed": lambda w: {"module": w, "global_steps": 5},
    "Lightning": lambda w: {"state_dict": {**behind("model.", w), "criterion.weight": torch.ones(3)}},
    "Lightning, compiled": lambda w: {"state_dict": behind("net._orig_mod.", w)},
    "a backbone": lambda w: {"state_dict": {**behind("backbone.body.", w), "neck.weight": torch.ones(3)}},
    "MoCo": lambda w: {"state_dict": {**behind("module.encoder_q.", w), "module.queue": torch.ones(3)}},
}


def zeros(weights):
    return {key: torch.zeros_like(value) for key, value in weights.items()}


@pytest.fixture
def net():
    """Names as a ResNet's, and little behind them."""
    stages = {f"layer{i}": nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for i in (1, 2)}
    return nn.Sequential(OrderedDict({"conv1": nn.Conv2d(3, 3, 1), **stages, "fc": nn.Linear(3, 2)}))


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_what_training_programs_put_around_a_model_s_names(wrapping, net, tmp_path):
    torch.save(WRAPPINGS[wrapping](net.state_dict()), tmp_path / "w.pth")
    other = copy.deepcopy(net)
    other.load_state_dict(zeros(net.state_dict()))
    assert load_checkpoint(other, tmp_path / "w.pth") == ([], [])
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in other.state_dict().items())


@pytest.mark.parametrize("wrap", [
    nn.DataParallel, torch.compile, torch.optim.swa_utils.AveragedModel, lambda m: torch.compile(nn.DataParallel(m)),
])
def test_a_model_in_a_wrapper(wrap, net, tmp_path):
    save_file(zeros(net.state_dict()), tmp_path / "w.safetensors")
    wrapped = wrap(net)
    assert load_checkpoint(wrapped, tmp_path / "w.safetensors") == ([], [])
    assert unwrap(wrapped).fc.weight.abs().sum() == 0


def test_a_foreign_layout_in_a_training_program_s_names(tmp_path):
    from torchvision.models import VisionTransformer

    theirs = VisionTransformer(224, 16, 1, 3, 12, 48, num_classes=3)
    torch.save({"state_dict": {**behind("model.", theirs.state_dict()), "loss.weight": torch.ones(3)}},
               tmp_path / "w.pth")
    ours = small_vit()
    load_checkpoint(ours, tmp_path / "w.pth")
    assert torch.equal(ours.norm.weight, theirs.encoder.ln.weight)


def test_what_is_left_aside_is_said(net, tmp_path, caplog):
    torch.save(WRAPPINGS["Lightning"](net.state_dict()), tmp_path / "w.pth")
    load_checkpoint(net, tmp_path / "w.pth")
    assert "the model is what is called 'model.*'; 1 other tensors were left aside" in caplog.text


def test_two_models_in_a_file(net, tmp_path):
    torch.save(behind("student.", net.state_dict()) | behind("teacher.", net.state_dict()), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="the model 'Sequential' several times, behind 'student.', 'teacher.'"):
        load_checkpoint(net, tmp_path / "w.pth", strict=False)


def test_not_strict_returns_what_load_state_dict_returns(net, tmp_path, caplog):
    weights = {key: value for key, value in zeros(net.state_dict()).items() if not key.startswith("fc.")}
    torch.save({**weights, "extra": torch.ones(1)}, tmp_path / "w.pth")
    assert load_checkpoint(net, tmp_path / "w.pth", strict=False) == (["fc.weight", "fc.bias"], ["extra"])
    assert net.conv1.weight.abs().sum() == 0
    assert not caplog.records


def test_a_file_of_which_nothing_is_loaded_is_no_silence(net, tmp_path, caplog):
    torch.save(behind("mine_", zeros(net.state_dict())), tmp_path / "w.pth")
    missing, unexpected = load_checkpoint(net, tmp_path / "w.pth", strict=False)
    assert len(missing) == len(unexpected) == len(net.state_dict())
    assert "nothing was loaded: none of its names, such as 'mine_conv1.weight'" in caplog.text
    assert net.conv1.weight.abs().sum() > 0


# what load_state_dict converts, by itself and inside other modules

SWINS = {  # with what old files of timm's and Microsoft's hold besides the weights
    "swin_tiny_patch4_window7_224": "relative_position_index", "swinv2_tiny_window8_256": "relative_coords_table"}


@pytest.mark.parametrize("name", SWINS)
def test_a_state_dict_with_buffers_that_other_code_saves(name):
    model = mvlib.create_model(name, depths=(1, 1), embed_dim=12, num_heads=(2, 2), num_classes=3)
    old = zeros(model.state_dict()) | {f"layers.0.blocks.0.attn.{SWINS[name]}": torch.zeros(4, 4),
                                       "layers.0.blocks.0.attn_mask": torch.zeros(4, 4)}
    for wrapped, prefix in ((model, ""), (nn.DataParallel(model), "module."), (nn.Sequential(model), "0.")):
        nn.init.ones_(model.head.fc.weight)
        assert wrapped.load_state_dict(behind(prefix, old)) == ([], [])
        assert model.head.fc.weight.abs().sum() == 0
    features = mvlib.create_model(name, depths=(1, 1), embed_dim=12, num_heads=(2, 2), features_only=True,
                                  out_indices=(0, 1))
    features.load_state_dict(features.state_dict() | {f"model.layers.0.blocks.0.attn.{SWINS[name]}": torch.zeros(4)})


def small_vit(**kwargs):
    return mvlib.create_model("vit_tiny_patch16_224", depth=1, embed_dim=12, num_classes=3, **kwargs)


def test_a_state_dict_of_another_image_size():
    source, model = small_vit(img_size=64), small_vit(img_size=32)
    model.load_state_dict(source.state_dict())
    assert torch.equal(model.head.weight, source.head.weight)
    assert model.pos_embed.shape == (1, 5, 12)


def test_what_fits_is_loaded_as_it_is():
    """A grid of as many places as the published one, but another shape, is not taken for the published one."""
    source, model = small_vit(img_size=(112, 448)), small_vit(img_size=(112, 448))
    model.load_state_dict(source.state_dict() | {"pre_logits.fc.weight": torch.zeros(2)})
    assert torch.equal(model.pos_embed, source.pos_embed)


# files that do not fit

def test_another_number_of_classes_names_the_remedy(model, tmp_path):
    small = mvlib.create_model("resnet18", num_classes=10)
    save_file(small.state_dict(), tmp_path / "ten.safetensors")
    with pytest.raises(CheckpointError) as caught:
        mvlib.create_model("resnet18", checkpoint_path=tmp_path / "ten.safetensors")
    assert "fc.weight (file (10, 512), model (1000, 512))" in str(caught.value)
    assert "pass num_classes=10 to keep it" in str(caught.value)
    save_file({**model.state_dict(), "fc.weight": torch.tensor(1.0)}, tmp_path / "number.safetensors")
    with pytest.raises(CheckpointError, match=r"fc.weight \(file \(\), model \(1000, 512\)\)"):
        mvlib.create_model("resnet18", checkpoint_path=tmp_path / "number.safetensors")


def test_another_architecture(files):
    with pytest.raises(CheckpointError) as caught:
        mvlib.create_model("vit_tiny_patch16_224", checkpoint_path=files / "w.safetensors")
    text = str(caught.value)
    assert "does not fit the model 'vit_tiny_patch16_224'" in text
    assert "these are weights of another architecture" in text
    assert "and 1" in text and len(text) < 1200  # shortened


@pytest.mark.parametrize(("theirs", "ours"), [("resnet18", "resnet34"), ("resnet34", "resnet18"),
                                              ("resnet18", "resnet50")])
def test_another_architecture_with_the_same_names(theirs, ours, tmp_path, caplog):
    torch.save(mvlib.create_model(theirs, num_classes=4).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="these are weights of another architecture"):
        mvlib.create_model(ours, num_classes=4, checkpoint_path=tmp_path / "w.pth")
    assert not caplog.records  # nothing is said of a classifier that nobody gets


def test_a_classifier_of_other_features(tmp_path, caplog):
    torch.save(mvlib.create_model("resnet18", num_classes=4).state_dict(), tmp_path / "w.pth")
    mvlib.create_model("resnet18", num_classes=4, global_pool="catavgmax", checkpoint_path=tmp_path / "w.pth")
    assert "the classifier 'fc' takes 512 features, the model's 1024: it was initialised anew" in caplog.text
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(mvlib.create_model("resnet18", num_classes=4, global_pool="catavgmax"), tmp_path / "w.pth")
    assert "pass num_classes" not in str(caught.value)


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


@pytest.mark.parametrize(("data", "said"), [
    ({"epoch": 3}, "holds no tensors, but 'epoch'$"), ({}, "holds no tensors$"),
    ({"teacher": {"w": torch.ones(1)}, "student": {"w": torch.ones(1)}, "epoch": 3},
     "holds no tensors at its top, but the state dicts 'teacher', 'student': save one of them by itself"),
    ([torch.ones(1)], r"holds no tensors with names, but a list: save the model's state_dict\(\)"),
])
def test_no_tensors(data, said, tmp_path):
    torch.save(data, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=said):
        read_state_dict(tmp_path / "none.pth")


def test_a_folder_is_no_weights_file(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder, not a weights file"):
        mvlib.create_model("test_resnet", checkpoint_path=tmp_path)
    with pytest.raises(CheckpointError, match="is a folder, not a weights file"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("change", [lambda value: (value * 100).int(), lambda value: value > 0])
def test_integers_are_no_weights(change, tmp_path):
    model = mvlib.create_model("test_resnet", pretrained=False)
    torch.save({key: change(value) if value.is_floating_point() else value
                for key, value in model.state_dict().items()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"integers or booleans, where the model has floats \(\d+\): co") as said:
        mvlib.create_model("test_resnet", checkpoint_path=tmp_path / "w.pth")
    assert "another architecture" not in str(said.value)
    with pytest.raises(CheckpointError, match="where the model has floats"):
        load_checkpoint(model, tmp_path / "w.pth", strict=False)


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


def test_no_fact_is_taken_for_weights():
    assert not set(loading.FACTS) & {*loading.EMA_KEYS, *loading._WRAPPER_KEYS}
