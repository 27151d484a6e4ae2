"""`mvlib.optimize`: the same outputs, a true report, and errors that say what is wrong."""

import copy
import types

import pytest
import torch
from torch import nn

import mvlib
from mvlib.errors import ConfigError
from mvlib.layers import RepVggBlock
from mvlib.optimization import compilation, pipeline, precision, prepacking, wiring
from mvlib.optimization.compilation import estimated_seconds, worth_compiling
from mvlib.optimization.prepacking import PackedConv2d, PackedLinear, can_prepack

MODELS = {  # name -> arguments that keep it small
    "resnet18": {}, "efficientnet_b0": {}, "convnext_atto": {}, "mobilenetv3_small_050": {}, "regnety_002": {},
    "vit_tiny_patch16_224": {"img_size": 64}, "deit_tiny_distilled_patch16_224": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {"img_size": 112, "depths": (1, 2, 1, 1)},
    "xcit_nano_12_p16_224": {"img_size": 64, "depth": 2, "embed_dim": 64},
}
every_family = pytest.mark.parametrize("name", MODELS)
BFLOAT16 = torch.bfloat16 in precision.supported_dtypes(torch.device("cpu"))
needs_bfloat16 = pytest.mark.skipif(not BFLOAT16, reason="this CPU does not compute in bfloat16")


def build(name, **kwargs):
    torch.manual_seed(0)
    return mvlib.create_model(name, pretrained=False, **{**MODELS[name], **kwargs}).eval()


def image(name, batch=2):
    size = MODELS[name].get("img_size", 64)
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def shaken(name, **kwargs):
    """A model whose batch norms do something."""
    model = build(name, **kwargs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return model


def difference(found, expected):
    return wiring.relative_difference(found, expected)


@pytest.mark.sample(2)
@every_family
def test_float32_stays_within_the_bound(name):
    model, x = shaken(name), image(name, 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    strides = [p.stride() for p in model.parameters()]
    expected = model(x)
    optimized, report = mvlib.optimize(model, x, compile="off")
    assert difference(optimized(x), expected) <= 1e-4
    assert report.difference <= 1e-4 and report.dtype == "float32"
    for batch in (1, 5):
        assert difference(optimized(image(name, batch)), model(image(name, batch))) <= 1e-4
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [p.stride() for p in model.parameters()] == strides and all(p.requires_grad for p in model.parameters())
    assert not any(step.note.startswith("undone") for step in report.steps), str(report)
    if can_prepack():
        assert report["prepack"].done


@needs_bfloat16
@every_family
def test_bfloat16(name):
    model, x = shaken(name), image(name)
    expected = model(x)
    optimized, report = mvlib.optimize(model, x, dtype="bfloat16", compile="off")
    found = optimized(x)
    assert found.dtype == torch.float32 and report["convert"].done
    assert 1e-5 < report.difference < 0.1 and difference(found, expected) < 0.1
    assert difference(optimized(x.bfloat16()), expected) < 0.1  # images come in any type
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_report_says_what_was_done():
    _, report = mvlib.optimize(shaken("resnet18"), image("resnet18"), compile="off")
    names = [step.name for step in report.steps]
    assert names == ["memory", "channels_last", "reparameterize", "fold", "convert", "prepack", "compile"]
    assert report["fold"].done and report["fold"].note == "20 batch norms went into the layers beside them"
    assert not report["compile"].done and report["compile"].note == "compile is off"
    lines = str(report).splitlines()
    assert lines[0].startswith("float32 on cpu: outputs differ by") and len(lines) == 1 + len(names)
    assert "+ fold" in str(report) and "- reparameterize  no module has branches to merge" in str(report)
    with pytest.raises(KeyError):
        report["nothing"]


def test_tensors_that_no_step_replaces_are_shared():
    model = build("vit_tiny_patch16_224")
    optimized, _ = mvlib.optimize(model, image("vit_tiny_patch16_224"), compile="off")
    assert optimized.model.pos_embed.data_ptr() == model.pos_embed.data_ptr()


@pytest.mark.parametrize("change", [
    nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm,
    nn.utils.parametrizations.spectral_norm, lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.3),
], ids=["weight_norm hook", "weight_norm", "spectral_norm hook", "spectral_norm", "prune"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_are_computed_in_each_pass(change):
    model, x = build("resnet18"), image("resnet18")
    for layer in (model.fc, model.layer1[0].conv1):
        change(layer)
    model.eval()(x).sum().backward()
    expected, keys = model(x), list(model.state_dict())
    optimized, report = mvlib.optimize(model, x)
    assert difference(optimized(x), expected) <= 1e-4
    assert report["fold"].note.startswith("20 batch norms") and not list(optimized.model.fc._forward_pre_hooks)
    assert torch.equal(model(x), expected) and list(model.state_dict()) == keys


@pytest.mark.parametrize("compile", ["off", "on"])
def test_deepcopy(compile, fake_compiler):
    x = image("resnet18")
    optimized, _ = mvlib.optimize(build("resnet18"), x, compile=compile)
    copied = copy.deepcopy(optimized)
    assert torch.equal(copied(x), optimized(x)) and (copied.compiled is not None) == (compile == "on")
    pairs = [pair for pair in zip(optimized.modules(), copied.modules()) if hasattr(pair[0], "packed")]
    assert len(pairs) == 21 if can_prepack() else not pairs
    assert all(own is not other and own.packed is other.packed for own, other in pairs)


def test_a_model_in_training_mode_stays_so():
    model = shaken("resnet18").train()
    optimized, _ = mvlib.optimize(model, image("resnet18"), compile="off")
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in optimized.modules())
    with pytest.raises(RuntimeError, match="an optimized model cannot be trained"):
        optimized.train()


def test_outputs_are_inference_tensors_and_attributes_the_models():
    optimized, _ = mvlib.optimize(build("resnet18", num_classes=7), image("resnet18"), compile="off")
    assert optimized(image("resnet18")).is_inference()
    assert optimized.num_classes == 7
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        optimized.colour  # noqa: B018


def test_features_and_several_outputs():
    model = shaken("resnet18", features_only=True)
    optimized, report = mvlib.optimize(model, image("resnet18"), compile="off")
    found, expected = optimized(image("resnet18")), model(image("resnet18"))
    assert [f.shape for f in found] == [f.shape for f in expected] and difference(found, expected) <= 1e-4
    assert optimized.feature_info.channels() == model.feature_info.channels()
    assert report["fold"].done

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 4, 3), nn.ReLU()

        def forward(self, x):
            x = self.conv(x)
            return {"before": x, "after": (self.act(x), 3)}

    model = Two().eval()  # the activation's input is an output, too: it may not go into the convolution
    optimized, report = mvlib.optimize(model, torch.randn(2, 3, 8, 8), compile="off")
    x = torch.randn(2, 3, 8, 8)
    assert difference(optimized(x), model(x)) <= 1e-4 and optimized(x)["after"][1] == 3
    if can_prepack():
        assert report["prepack"].note == "1 layers packed for oneDNN, 0 activations within them"


def test_twice_is_once():
    first, report = mvlib.optimize(build("resnet18"), image("resnet18"), compile="off")
    again, same = mvlib.optimize(first, image("resnet18"), compile="off")
    assert again is first and same is report
    with pytest.raises(ConfigError, match="is optimized for float32 already: optimize the model that it was made from"):
        mvlib.optimize(first, image("resnet18"), dtype=torch.bfloat16)


def test_quantized_models_are_left_alone():
    from torch.ao.quantization import quantize_dynamic

    model = quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), {nn.Linear}, dtype=torch.qint8).eval()
    x = torch.randn(2, 3, 4, 4)
    optimized, report = mvlib.optimize(model, x)
    assert optimized.model is model and torch.equal(optimized(x), model(x))
    assert [step.done for step in report.steps] == [False]
    assert "left alone" in str(report) and report.dtype == "int8"


def test_packing_is_undone_where_a_weight_is_read():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.act = nn.Linear(8, 8), nn.ReLU()

        def forward(self, x):
            return self.act(self.fc(x)) @ self.fc.weight

    model, x = Tied().eval(), torch.randn(2, 3, 8, 8)
    optimized, report = mvlib.optimize(model, x, compile="off")
    torch.testing.assert_close(optimized(x), model(x))
    assert not report["prepack"].done


def test_a_snapshot_takes_back_what_a_feature_extractor_runs():
    model, x = shaken("resnet18", features_only=True), image("resnet18")
    expected = model(x)
    snapshot = wiring.Snapshot(model)
    for _ in range(2):
        model.layer4 = nn.Identity()
        snapshot.restore()
        torch.testing.assert_close(model(x), expected)


def test_a_step_that_changes_outputs_is_undone(monkeypatch):
    def wrong(model, images, tolerance):
        model.conv1.weight = nn.Parameter(2 * model.conv1.weight)
        return 1

    monkeypatch.setattr(pipeline, "fold_batch_norms", wrong)
    model = shaken("resnet18")
    optimized, report = mvlib.optimize(model, image("resnet18"), compile="off")
    assert not report["fold"].done and "undone: outputs changed by" in report["fold"].note
    assert difference(optimized(image("resnet18")), model(image("resnet18"))) <= 1e-4


def test_linear_and_leading_norms_are_folded():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1),
        nn.Flatten(), nn.Linear(144, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval()
    for norm in (model[0], model[3], model[7], model[9]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(4, 3, 8, 8)
    optimized, report = mvlib.optimize(model, x, compile="off")
    assert difference(optimized(x), model(x)) <= 1e-5
    assert report["fold"].note.startswith("3 batch norms")  # the padding's zeros keep the second where it is
    assert isinstance(optimized.model[3], nn.BatchNorm2d)


@pytest.mark.skipif(not can_prepack(), reason="torch without oneDNN")
@pytest.mark.parametrize("act", [nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Hardswish(),
                                 nn.Sigmoid(), nn.Tanh(), nn.LeakyReLU(0.3)], ids=repr)
@pytest.mark.parametrize("faster", [True, False])
def test_activations_within_packed_layers(act, faster, monkeypatch):
    monkeypatch.setattr(prepacking, "is_faster", lambda one, other: [one(), other()] and faster)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), act, nn.Flatten(), nn.Linear(256, 32), act).eval()
    model[4] = type(act)(*([act.approximate] if isinstance(act, nn.GELU) else [0.3] if isinstance(act, nn.LeakyReLU)
                           else []))
    x = 4 * torch.randn(3, 3, 8, 8)
    for at in (0, 3):
        model[at].weight.data.mul_(6)  # past the bounds of those that have some
    expected = model(x)
    assert prepacking.prepack(model, x.contiguous(memory_format=torch.channels_last)) == (2, 1 + faster)
    with torch.inference_mode():
        assert difference(model(x), expected) <= 1e-5


@pytest.mark.skipif(not can_prepack(), reason="torch without oneDNN")
def test_whether_an_activation_pays_is_measured_once_a_size(monkeypatch):
    timed = []
    monkeypatch.setattr(prepacking, "is_faster", lambda one, other: timed.append(
        difference(one(), other()) <= 1e-5) or False)
    optimized, report = mvlib.optimize(build("vit_tiny_patch16_224"), image("vit_tiny_patch16_224"), compile="off")
    assert timed == [True] and "0 activations within them" in report["prepack"].note


@pytest.mark.skipif(not can_prepack(), reason="torch without oneDNN")
def test_what_is_packed():
    optimized, _ = mvlib.optimize(build("convnext_atto"), image("convnext_atto"), compile="off")
    kinds = {type(module) for module in optimized.modules()}
    assert {PackedConv2d, PackedLinear} <= kinds
    assert not any(type(module) in (nn.Conv2d, nn.Linear) for module in optimized.modules())


def test_product_attention_is_attention():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 33, 16).bfloat16().unbind(0)
    expected = nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    scaled = nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), scale=0.5)
    with precision.ProductAttention():
        assert difference(nn.functional.scaled_dot_product_attention(q, k, v), expected) < 2e-2
        assert difference(nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5), scaled) < 2e-2
        named = nn.functional.scaled_dot_product_attention(query=q, key=k, value=v, scale=0.5)
        assert torch.equal(named, nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5))
        causal = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.equal(causal, nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))


@needs_bfloat16
@pytest.mark.parametrize("faster", [True, False])
def test_attention_and_convolutions_are_chosen_by_measurement(faster, monkeypatch):
    monkeypatch.setattr(precision, "is_faster", lambda one, other: one() is None or other() is None or faster)
    vit, x = build("vit_tiny_patch16_224"), image("vit_tiny_patch16_224")
    optimized, report = mvlib.optimize(vit, x, dtype="bfloat16", compile="off")
    assert report["attention"].done == faster == (optimized.mode is precision.ProductAttention)
    model, x = shaken("convnext_atto"), image("convnext_atto")
    optimized, report = mvlib.optimize(model, x, dtype="bfloat16", compile="off")
    count = sum(isinstance(module, precision.InFloat32) for module in optimized.modules())
    assert count == (12 if faster else 0)
    assert f"{count} of 12 depthwise convolutions" in report["convert"].note
    assert difference(optimized(x), model(x)) < 0.05


def test_branches_are_merged():
    torch.manual_seed(0)
    model = nn.Sequential(RepVggBlock(3, 8, stride=2), RepVggBlock(8, 8), RepVggBlock(8, 8, groups=4, act_layer="silu"),
                          RepVggBlock(8, 8, kernel_size=5, dilation=2), RepVggBlock(8, 6)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    optimized, report = mvlib.optimize(model, x, compile="off")
    assert difference(optimized(x), expected) <= 1e-5
    assert report["reparameterize"].note == "5 modules merged into simple layers" and report["reparameterize"].done
    assert not any(block.is_reparameterized for block in model) and torch.equal(model(x), expected)


# torch.compile


def test_when_compiling_pays():
    assert worth_compiling(0.05, 10_000, 20)
    assert not worth_compiling(0.05, 256, 20)
    assert not worth_compiling(0.05, 0, 0.001)
    assert worth_compiling(0.05, 1_500, 20, "cuda") and not worth_compiling(0.05, 1_500, 20, "cpu")
    assert estimated_seconds(build("efficientnet_b0")) > estimated_seconds(build("resnet18")) > 5


@pytest.fixture
def fake_compiler(monkeypatch):
    """torch.compile without a compiler: what it was asked for, and times that say that it pays."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model, **kwargs: asked.append(kwargs) or model)
    monkeypatch.setattr(pipeline, "compiler_missing", lambda device: None)
    monkeypatch.setattr(pipeline, "time_both", lambda one, other: (2.0, 1.0))
    return asked


def test_auto(fake_compiler, monkeypatch):
    x = image("resnet18")
    _, report = mvlib.optimize(build("resnet18"), x)
    assert not report.compiled and "say how many images are to come" in report["compile"].note
    monkeypatch.setattr(pipeline._Optimizer, "_seconds_per_image", lambda self, optimized: 0.05)
    _, report = mvlib.optimize(build("resnet18"), x, work=100)
    assert not report.compiled and "would not be won back in 100 images, which take 5 s" in report["compile"].note
    assert not fake_compiler
    _, report = mvlib.optimize(build("resnet18"), x, work=100_000)
    assert report.compiled and report["compile"].done and len(fake_compiler) == 1
    assert fake_compiler[0]["options"] == {"freezing": True}


def test_what_was_not_compiled_for_runs_uncompiled(fake_compiler):
    model = build("resnet18")
    optimized, _ = mvlib.optimize(model, image("resnet18"), compile="on")
    ran = []
    optimized.compiled.function = lambda x: ran.append(x.shape) or optimized.model(x)
    for shape in ((2, 3, 64, 64), (9, 3, 64, 64), (1, 3, 64, 64), (2, 3, 96, 64)):
        x = torch.randn(shape)
        assert difference(optimized(x), model(x)) <= 1e-4
    assert ran == [(2, 3, 64, 64), (9, 3, 64, 64)]
    optimized, report = mvlib.optimize(model, image("resnet18", 1), compile="on")
    assert "for a batch of 1 at 64 x 64" in report["compile"].note
    assert optimized.compiled.fits(torch.zeros(1, 3, 64, 64)) and not optimized.compiled.fits(torch.zeros(2, 3, 64, 64))


def test_a_compiled_model_that_is_slower_is_dropped(fake_compiler, monkeypatch):
    monkeypatch.setattr(pipeline, "time_both", lambda one, other: (1.0, 2.0))
    optimized, report = mvlib.optimize(build("resnet18"), image("resnet18"), compile="on")
    assert optimized.compiled is None and not report.compiled
    assert "a batch takes 2000 ms, and 1000 ms without" in report["compile"].note


def test_without_a_compiler_the_model_runs_uncompiled(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    _, report = mvlib.optimize(build("resnet18"), image("resnet18"), compile="on")
    assert not report.compiled and report["compile"].note == "there is no C++ compiler (no-such-compiler)"
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(compilation, "shutil", types.SimpleNamespace(which=lambda name: None))
    _, report = mvlib.optimize(build("resnet18"), image("resnet18"), compile="on")
    assert "there is no C++ compiler (g++)" in str(report)


def test_a_compiler_that_fails_is_no_error(fake_compiler, monkeypatch):
    def broken(model, **kwargs):
        raise ValueError("internal compiler error\nlong story")

    monkeypatch.setattr(torch, "compile", broken)
    model, x = build("resnet18"), image("resnet18")
    optimized, report = mvlib.optimize(model, x, compile="on")
    assert report["compile"].note == "failed, so the model runs uncompiled: internal compiler error"
    assert difference(optimized(x), model(x)) <= 1e-4


# errors


@pytest.mark.parametrize("example, kwargs, message", [
    (torch.zeros(2, 4, 64, 64), {}, "example_input has 4 channels, and the model takes 3"),
    (torch.zeros(3, 64, 64), {}, r"a floating tensor of images \(B, C, H, W\), not \(3, 64, 64\) of torch.float32"),
    (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), {}, r"not \(2, 3, 64, 64\) of torch.uint8"),
    ([1, 2], {}, r"images \(B, C, H, W\), not list"),
    (torch.zeros(2, 3, 64, 64), {"compile": "perhaps"}, "compile 'perhaps' is not one of auto, on, off"),
    (torch.zeros(2, 3, 64, 64), {"dtype": torch.float64}, "cpu here does not compute in float64; known: float32"),
    (torch.zeros(2, 3, 64, 64), {"dtype": "half a byte"}, "unknown precision 'half a byte'; known"),
    (torch.zeros(2, 3, 64, 64), {"work": -1}, "work is a number of images, not -1"),
    (torch.zeros(2, 3, 64, 64, device="meta"), {}, "example_input is on meta, and the model on cpu"),
])
def test_errors(example, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        mvlib.optimize(build("resnet18"), example, **kwargs)


def test_an_example_of_another_size_than_the_model_takes():
    with pytest.raises(ConfigError, match=r"does not take an example_input of shape \(2, 3, 96, 96\): "):
        mvlib.optimize(build("vit_tiny_patch16_224"), torch.zeros(2, 3, 96, 96))
