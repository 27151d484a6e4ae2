"""The model of a command: which weights, which numbers, how its images are read."""

import pytest
import skimage.data
import torch
from PIL import Image

import mvlib
from mvlib.errors import ConfigError
from mvlib.inference.model import (
    class_names_of,
    create_read,
    digest_of,
    load_model,
    prepare,
    resolve_device,
)
from mvlib.inference.options import quantized_name
from mvlib.threads import cpu_count

CPU = torch.device("cpu")
CONFIG = {"input_size": (3, 64, 64), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_pct": 0.9}


def test_devices():
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="device 'nowhere' cannot be used: "):
        resolve_device("nowhere")


def test_processes_share_cores_and_gpus(monkeypatch):
    alone = cpu_count()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert cpu_count() == max(alone // 2, 1)
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch, "empty", lambda *args, device: torch.zeros(*args))
    assert resolve_device("cuda") == torch.device("cuda:1")


def test_int8_weights_of_the_same_origin_are_found():
    assert quantized_name("resnet50.imagenet1k_v2") == "quantized_resnet50.imagenet1k_fbgemm_v2"
    assert quantized_name("resnet50.imagenet1k_v1") == "quantized_resnet50.imagenet1k_fbgemm_v1"
    assert quantized_name("resnet50.a1_in1k") is None  # int8 weights were made of others
    assert quantized_name("vit_tiny_patch16_224") is None
    assert quantized_name("hf-hub:timm/resnet50.a1_in1k") is None


def test_int8_on_the_fly():
    torch.manual_seed(0)
    model = mvlib.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    wide, narrow = (prepare(model, CONFIG, CPU, precision=precision, batch_size=2, compile="off")
                    for precision in ("float32", "int8"))
    assert narrow.report is None and wide.report["prepack"].done
    assert any("quantized" in type(module).__module__ for module in narrow.model.modules())
    with torch.inference_mode():
        expected, found = wide(images), narrow(images)
    assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()


def test_int8_is_refused_where_it_gains_nothing():
    model = mvlib.create_model("squeezenet1_1", pretrained=False).eval()
    with pytest.raises(ConfigError, match="'squeezenet1_1.*' has no int8 weights, and its linear layers, which could"):
        prepare(model, CONFIG, CPU, precision="int8")
    with pytest.raises(ConfigError, match="int8 models run on the CPU, not on cuda"):
        prepare(model, CONFIG, torch.device("cuda"), precision="int8")


def test_a_model_tells_its_weights_by_what_is_in_them():
    torch.manual_seed(0)
    one = mvlib.create_model("squeezenet1_1", pretrained=False)
    other = mvlib.create_model("squeezenet1_1", pretrained=False)
    digest = digest_of(one)
    assert digest == digest_of(one) != digest_of(other)
    other.load_state_dict(one.state_dict())
    assert digest_of(other) == digest
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1
    assert digest_of(other) != digest


def test_weights_from_a_file(tmp_path):
    model = mvlib.create_model("squeezenet1_1", pretrained=False)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    loaded = load_model("squeezenet1_1", str(tmp_path / "weights.pth"), CPU)
    assert digest_of(loaded) == digest_of(model) and not loaded.training
    assert len(class_names_of(loaded)) == 1000


def test_ways_of_decoding(tmp_path):
    photograph = Image.fromarray(skimage.data.chelsea()).resize((1800, 1200))
    photograph.save(tmp_path / "cat.jpg", quality=95)
    reference, full, scaled = (create_read(CONFIG, decode)(tmp_path / "cat.jpg")
                               for decode in ("reference", "full", "scaled"))
    expected = mvlib.create_transform(**CONFIG, use_prefetcher=True)(mvlib.data.open_image(tmp_path / "cat.jpg"))
    assert torch.equal(reference, expected)
    assert (full.int() - expected.int()).abs().max() <= 1
    assert 0 < (scaled.int() - expected.int()).abs().float().mean() < 2
