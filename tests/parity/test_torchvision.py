"""Each of torchvision's 80 + 12 builders, from a published file to logits, the way a user goes.

torchvision's model gets random weights and is saved under the name of its weights' URL; a server hands the file to our
loader; images go through both libraries' transforms.
"""

import contextlib
import hashlib
import re

import pytest
import torch
import torchvision

import mvlib
from mvlib import models
from tests.parity import harness
from tests.skeleton import skeletons, uninitialised

THEIRS = torchvision.models
FLOAT = THEIRS.list_models(module=THEIRS)
QUANTIZED = THEIRS.list_models(module=THEIRS.quantization)
LARGEST = 40_000_000  # parameters of what the default run builds
SLOW_INT8 = ("resnext101_32x8d", "resnext101_64x4d", "inception_v3", "resnet50")  # ten seconds each and more


def cases():
    for builder in FLOAT:
        weights = THEIRS.get_model_weights(builder)
        # One member for each network that they stand for: only ViTs are built for their image's size.
        sizes = {m.meta["min_size"]: m for m in sorted(weights, key=lambda m: m is weights.DEFAULT)}
        for member in sizes.values():
            is_large = member.meta["num_params"] > LARGEST
            yield pytest.param(builder, member, id=repr(member), marks=[pytest.mark.slow] if is_large else [])


def serve(hub, monkeypatch, theirs, state_dict, tmp_path):
    """Publish a state dict as torchvision publishes: NAME-first digits of its sha256.pth. Returns our member."""
    path = tmp_path / "weights.pth"
    torch.save(state_dict, path)
    data = path.read_bytes()
    name = theirs.url.rpartition("/")[2]
    name = re.sub("[0-9a-f]{8,}(?=[.]pth$)", hashlib.sha256(data).hexdigest()[:8], name)
    ours = mvlib.get_weight(repr(theirs))
    monkeypatch.setattr(ours.value, "config", ours.value.config.replace(sources=(hub.add_file(f"/{name}", data),)))
    return ours


def image(seed=0):
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, 40, 50, generator=generator)
    large = torch.nn.functional.interpolate(small, (400, 500), mode="bicubic").clamp(0, 1)
    return (large[0] * 255).to(torch.uint8)


def difference(ours, theirs):
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize(("builder", "weights"), list(cases()))
def test_classification(builder, weights, hub, monkeypatch, tmp_path):
    options = {"image_size": weights.meta["min_size"][0]} if builder.startswith("vit_") else {}
    if builder in ("googlenet", "inception_v3"):
        options = dict(transform_input=True, aux_logits=True, init_weights=False)
    with uninitialised():
        theirs = THEIRS.get_model(builder, **options)
    side = weights.transforms().crop_size[0]
    if not options and builder != "maxvit_t":
        side = 96  # the others take images of any size
    harness.randomize(theirs, torch.randn(2, 3, side, side))
    member = serve(hub, monkeypatch, weights, theirs.state_dict(), tmp_path)

    ours = models.get_model(builder, weights=member, progress=False).eval()
    batches = weights.transforms()(image())[None], member.transforms()(image())[None]
    assert torch.equal(*batches)
    with torch.inference_mode():
        assert difference(ours(batches[1]), theirs.eval()(batches[0])) < harness.TOLERANCE


@pytest.mark.parametrize("builder", FLOAT)
def test_keys_become_ours(builder, monkeypatch):
    """Sorted, as safetensors has them, and on the meta device, so that the largest are here too."""
    regnet = THEIRS.RegNet

    def on_meta(*args, **kwargs):  # a RegNet's builder computes with tensors before it
        with skeletons():
            return regnet(*args, **kwargs)

    monkeypatch.setattr(THEIRS.regnet, "RegNet", on_meta)
    heads = dict(aux_logits=False, init_weights=False) if builder in ("googlenet", "inception_v3") else {}
    with contextlib.nullcontext() if builder.startswith("regnet") else skeletons():
        theirs = THEIRS.get_model(builder, **heads).state_dict()
    name = harness.torchvision_weights(builder)[0].partition(".")[0]
    ours = harness.build_ours(name, num_classes=1000)
    maps = [key_map for key_map in ours.key_maps if key_map.matches(theirs)]
    assert len(maps) < 2 and not any(key_map.matches(ours.state_dict()) for key_map in ours.key_maps)
    state_dict = {key: theirs[key] for key in sorted(theirs)}
    converted = maps[0].convert(state_dict, ours) if maps else state_dict
    assert {key: value.shape for key, value in converted.items()} == \
        {key: value.shape for key, value in ours.state_dict().items()}


@pytest.mark.parametrize("builder", ["googlenet", "inception_v3"])
def test_auxiliary_heads(builder, hub, monkeypatch, tmp_path):
    weights = THEIRS.get_model_weights(builder).DEFAULT
    with uninitialised():
        theirs = THEIRS.get_model(builder, transform_input=True, aux_logits=True, init_weights=False)
    side = 299 if builder == "inception_v3" else 224
    harness.randomize(theirs, torch.randn(2, 3, side, side))
    member = serve(hub, monkeypatch, weights, theirs.state_dict(), tmp_path)
    ours = models.get_model(builder, weights=member, aux_logits=True)
    assert ours.transform_input and ours.aux_logits
    batch = torch.randn(4, 3, side, side)
    for model in (ours, theirs):
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            for name in ("drop_rate", "aux_drop_rate"):
                if hasattr(module, name):
                    setattr(module, name, 0.0)
    with torch.no_grad():
        found, expected = ours(batch), theirs(batch)
    assert type(found).__name__ == type(expected).__name__ and found._fields == expected._fields
    for mine, other in zip(found, expected):
        assert difference(mine, other) < harness.TOLERANCE

    assert (models.get_model(builder, weights=member).aux_logits) == (builder == "inception_v3")
    for key, model in (("aux1", models.googlenet()), ("AuxLogits", models.inception_v3())):
        assert getattr(model, key) is not None and not model.transform_input
    assert models.get_model(builder, weights=None, aux_logits=False).aux_logits is False


@pytest.mark.parametrize("builder", [pytest.param(b, marks=[pytest.mark.slow] if b.endswith(SLOW_INT8) else [])
                                     for b in QUANTIZED])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantized(builder, hub, monkeypatch, tmp_path):
    """int8 weights through the builder and by name with tag; float weights into the same builder."""
    weights = THEIRS.get_model_weights(builder).DEFAULT
    unquantized = weights.meta["unquantized"]
    options = {}
    if builder in ("quantized_googlenet", "quantized_inception_v3"):
        options = dict(transform_input=True, aux_logits=True, init_weights=False)
    torch.manual_seed(0)
    with uninitialised():
        float_model = THEIRS.get_model(builder, **options).eval()
    side = weights.transforms().crop_size[0]
    harness.randomize(float_model, torch.randn(2, 3, side, side))
    file = serve(hub, monkeypatch, unquantized, float_model.state_dict(), tmp_path)
    ours = models.get_model(builder, weights=file, quantize=False).eval()
    batch = weights.transforms()(image())[None]
    with torch.inference_mode():
        assert difference(ours(batch), float_model(batch)) < harness.TOLERANCE

    int8 = THEIRS.get_model(builder, quantize=True, **options)
    if builder == "quantized_mobilenet_v3_large":
        state = qat_state(float_model)
    else:
        state = int8.state_dict()
    file = serve(hub, monkeypatch, weights, state, tmp_path)
    ours = models.get_model(builder, weights=file, quantize=True)
    with torch.inference_mode():
        found = ours(file.transforms()(image())[None])
        if builder != "quantized_mobilenet_v3_large":
            assert torch.equal(found, int8(batch))
        else:
            assert found.shape == (1, 1000) and found.unique().numel() > 1
    assert any("quantized" in type(m).__module__ for m in ours.modules())

    by_name = mvlib.create_model(f"{builder}.{weights.name.lower()}", pretrained_cfg=file.value.config, pretrained=True)
    with torch.inference_mode():
        assert torch.equal(by_name(batch), found)


def qat_state(model):
    """What is published for MobileNetV3: the state of a model that is prepared, not converted."""
    model = model.train()
    model.fuse_model(is_qat=True)
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig("qnnpack")
    torch.ao.quantization.prepare_qat(model, inplace=True)
    model(torch.randn(2, 3, 96, 96))
    return model.eval().state_dict()
