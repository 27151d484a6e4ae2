"""Each of torchvision's 80 + 12 builders, from a published file to logits, the way a user goes.

torchvision's model gets random weights and is saved under the name of its weights' URL; a server hands the file to our
loader; images go through both libraries' transforms. Families that timm has not, or not with these heads, are compared
with torchvision's in the rest, too: sizes, a step of training, taps, initial weights.
"""

import contextlib
import functools
import hashlib
import re

import pytest
import torch
import torchvision
from torchvision.models.quantization.utils import quantize_model

import mvlib
from mvlib import models
from tests.parity import harness
from tests.skeleton import skeletons, uninitialised

THEIRS = torchvision.models
FLOAT = THEIRS.list_models(module=THEIRS)
QUANTIZED = THEIRS.list_models(module=THEIRS.quantization)
LARGEST = 40_000_000  # parameters of what the default run builds
SLOW_INT8 = ("resnext101_32x8d", "resnext101_64x4d", "inception_v3", "resnet50", "mobilenet_v3_large")  # ten seconds


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


@pytest.mark.sample(20)
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

    batches = weights.transforms()(image())[None], member.transforms()(image())[None]
    assert torch.equal(*batches)
    built = models.get_model(builder, weights=member, progress=False).eval()
    ours = mvlib.create_model(builder, pretrained=True, pretrained_cfg=member.value.config, progress=False).eval()
    assert type(built) is type(theirs) and isinstance(ours, mvlib.ImageModel)
    with torch.inference_mode():
        logits = theirs.eval()(batches[0])
        assert torch.equal(built(batches[1]), logits)
        assert difference(ours(batches[1]), logits) < harness.TOLERANCE


@pytest.mark.sample(3)
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


@pytest.mark.slow
@pytest.mark.parametrize("builder", ["googlenet", "inception_v3"])
def test_auxiliary_heads(builder, hub, monkeypatch, tmp_path):
    weights = THEIRS.get_model_weights(builder).DEFAULT
    with uninitialised():
        theirs = THEIRS.get_model(builder, transform_input=True, aux_logits=True, init_weights=False)
    side = 299 if builder == "inception_v3" else 224
    harness.randomize(theirs, torch.randn(2, 3, side, side))
    member = serve(hub, monkeypatch, weights, theirs.state_dict(), tmp_path)
    ours = mvlib.create_model(builder, pretrained=True, pretrained_cfg=member.value.config, aux_logits=True)
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
    with contextlib.nullcontext() if builder == "inception_v3" else pytest.warns(UserWarning, match="not trained"):
        built = models.get_model(builder, weights=member, aux_logits=True, num_classes=7)
    assert built.transform_input and built.train()(batch)[1].shape == (4, 7)
    bare = models.get_model(builder, weights=member, aux_logits=False, transform_input=False)
    assert not bare.transform_input and not any(key.startswith(("aux", "Aux")) for key in bare.state_dict())


# families of torchvision's alone

AUXILIARY = dict(aux_logits=True, transform_input=False)
ALONE = {  # sides of images, our arguments, the modules that are taps
    "alexnet": ((63, 64, 200, 224, 256, 319), {}, ("features.1", "features.4", "features.11", "features.12")),
    "googlenet": (((15, 15), (37, 61), (97, 130), (225, 224)), AUXILIARY,
                  ("conv1", "conv3", "inception3b", "inception4e", "inception5b")),
    "inception_v3": ((75, (97, 130), 299), dict(AUXILIARY, drop_rate=0.5),
                     ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")),
    **{f"shufflenet_v2_{width}": ((72, 111), {}, ("conv1", "maxpool", "stage2", "stage3", "stage4"))
       for width in ("x0_5", "x1_0", "x1_5", "x2_0")},
    "squeezenet1_0": ((64, 95, 224), {}, ("features.1", "features.5", "features.10", "features.12")),
    "squeezenet1_1": ((64, 95, 224), {}, ("features.1", "features.4", "features.7", "features.12")),
}
families_alone = pytest.mark.parametrize("builder", ALONE, scope="module")


@functools.lru_cache(1)
def pair(builder):
    """torchvision's model with random weights, and what builds ours."""
    kwargs = ALONE[builder][1]
    theirs = THEIRS.get_model(builder, **(dict(AUXILIARY, init_weights=False) if kwargs else {}))
    harness.randomize(theirs, harness.random_image(299 if builder == "inception_v3" else 96))
    if builder.startswith("squeezenet"):  # else the ReLU after the classifier leaves too little to compare
        theirs.classifier[1].bias.data += 1.0
    side = 299 if builder == "inception_v3" else 128
    return harness.Pair(builder, theirs, harness.random_image(side), dict(kwargs, num_classes=1000))


@pytest.mark.sample(2)
@families_alone
@torch.no_grad()
def test_images_of_other_sizes(builder, monkeypatch):
    models, report = (pair(builder).build_ours(), pair(builder).theirs), harness.Report(builder)
    for transform_input in (False, True) if hasattr(models[1], "transform_input") else (None,):
        for model in models:
            monkeypatch.setattr(model, "transform_input", transform_input, raising=False)
        for side in ALONE[builder][0]:
            image = torch.randn(2, 3, *(side if isinstance(side, tuple) else (side, side)))
            report.compare("logits", *(model(image) for model in models))
    assert report.ok, report.problems


@pytest.mark.sample(3)
@families_alone
@torch.no_grad()
def test_taps_are_torchvisions_modules(builder):
    ours, theirs, image = pair(builder).build_ours(), pair(builder).theirs, harness.random_image(224)
    modules = [info["module"] for info in ours.feature_info]
    assert tuple(modules) == ALONE[builder][2]
    taken, report = {}, harness.Report(builder)
    handles = [theirs.get_submodule(name).register_forward_hook(
        lambda module, args, out, name=name: taken.update({name: out.clone()})) for name in modules]
    theirs(image)
    report.compare("taps", ours.forward_intermediates(image, intermediates_only=True), list(taken.values()))
    for handle in handles:
        handle.remove()
    assert report.ok, report.problems
    for info, tap in zip(ours.feature_info, taken.values()):  # the stem may be without padding
        assert tap.shape[1] == info["num_chs"] and -1 < 224 / info["reduction"] - tap.shape[-1] < 4.1


@pytest.mark.sample(6)
@families_alone
def test_initial_weights_and_settings(builder):
    kwargs, report = ALONE[builder][1], harness.Report(builder)
    torch.manual_seed(0)
    theirs = THEIRS.get_model(builder, **(dict(AUXILIARY, init_weights=True) if kwargs else {}))
    ours = mvlib.create_model(builder, pretrained=False, num_classes=1000, **kwargs)
    found, expected = harness.described(ours), harness.described(theirs)
    order = sorted if builder == "inception_v3" else list  # whose order is timm's
    assert order(found["state"][0]) == order(expected["state"][0]) and found["norms"] == expected["norms"]
    harness.check_init(report, ours, theirs)
    assert report.ok, report.problems


@pytest.mark.sample(5)
@families_alone
def test_a_step_of_training(builder):
    """Last, for it turns the pair into float64."""
    report = harness.Report(builder)
    harness.check_gradients(report, pair(builder))
    pair.cache_clear()
    assert report.ok and report.differences, report.problems


@pytest.mark.sample(4)
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

    if builder == "quantized_mobilenet_v3_large":
        state = qat_state(float_model)
        monkeypatch.setattr(weights, "get_state_dict", lambda **kwargs: state)
        int8 = THEIRS.get_model(builder, weights=weights, quantize=True)
    else:
        int8 = float_model
        quantize_model(int8, weights.meta["backend"])
        state = int8.state_dict()
    file = serve(hub, monkeypatch, weights, state, tmp_path)
    ours = models.get_model(builder, weights=file, quantize=True)
    with torch.inference_mode():
        found = ours(file.transforms()(image())[None])
        assert torch.equal(found, int8(batch)) and found.unique().numel() > 20
    assert ours.state_dict().keys() == {key for key in int8.state_dict() if not key.startswith(("aux", "AuxLogits"))}
    assert any("quantized" in type(m).__module__ for m in ours.modules()) and not list(ours.parameters())

    by_name = mvlib.create_model(f"{builder}.{weights.name.lower()}", pretrained_cfg=file.value.config, pretrained=True)
    with torch.inference_mode():
        assert torch.equal(by_name(batch), found)


def qat_state(model):
    """What is published for MobileNetV3: the state of a model that is prepared, not converted."""
    model = model.train()
    model.fuse_model(is_qat=True)
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig("qnnpack")
    torch.ao.quantization.prepare_qat(model, inplace=True)
    for _ in range(2):  # the observers see something, the norms move
        model(torch.randn(2, 3, 96, 96))
    return model.state_dict()
