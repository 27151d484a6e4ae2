"""What every model promises, for one small model a family: heads, features, training aids, export."""

import pytest
import torch

import mvlib
from mvlib.models.base import ImageModel, take_indices

SMALL = {  # name -> arguments that keep it small
    "resnet18": {},
    "efficientnet_b0": {},
    "vit_tiny_patch16_224": {"img_size": 64},
    "deit_tiny_distilled_patch16_224": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {"img_size": 112},
    "convnext_atto": {},
    "mobilenetv3_small_050": {},
    "regnety_002": {},
}
MORE_HEADS = {  # what pools and drops in yet other ways
    "vgg11": {"mlp_ratio": 0.03},
    "alexnet": {},
    "squeezenet1_1": {},
    "densenet121": {},
    "maxvit_tiny_tf_224": {"img_size": 64, "embed_dim": (32, 32), "depths": (1, 1), "block_type": ("M", "M"),
                           "stem_width": 32, "head_hidden_size": 32},
}
CONVOLUTIONAL = ("resnet18", "efficientnet_b0", "convnext_atto", "mobilenetv3_small_050", "regnety_002")
every_family = pytest.mark.parametrize("name", SMALL)
FEW = ("resnet18", "efficientnet_b0", "vit_tiny_patch16_224")  # where a test takes ten seconds a model
few_families = pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in SMALL])


def build(name, **kwargs):
    torch.manual_seed(0)
    return mvlib.create_model(name, pretrained=False, **{**{**SMALL, **MORE_HEADS}[name], **kwargs}).eval()


def image(name, batch=2):
    size = {**SMALL, **MORE_HEADS}[name].get("img_size", 64)
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


@every_family
def test_forward_is_features_and_head(name):
    model = build(name)
    x = image(name)
    features = model.forward_features(x)
    assert torch.equal(model(x), model.forward_head(features))
    assert model.forward_head(features, pre_logits=True).shape[-1] == model.head_hidden_size


@pytest.mark.parametrize("name", [*SMALL, *MORE_HEADS])
def test_pooled_features_are_the_classifier_s_input(name):
    model = build(name)
    features = model.forward_features(image(name))
    torch.testing.assert_close(model.pool(features), model.forward_head(features, pre_logits=True))


@every_family
def test_no_classes_gives_pooled_features(name):
    assert build(name, num_classes=0)(image(name)).shape == (2, build(name).head_hidden_size)


@pytest.mark.parametrize("name", [*SMALL, *MORE_HEADS])
def test_drop_rate(name):
    """Built or set, the rate is what is reported and what acts, in whichever way the head drops."""
    def dropped(model):
        x, model = model.forward_features(image(name)), model.train()
        return not torch.equal(model.forward_head(x), model.eval().forward_head(x))

    built, changed = build(name, drop_rate=0.3), build(name, drop_rate=0.0)
    assert built.drop_rate == 0.3 and dropped(built)
    assert changed.drop_rate == 0.0 and not dropped(changed)
    changed.drop_rate = 0.4
    built.drop_rate = 0.0
    assert changed.drop_rate == 0.4 and dropped(changed)
    assert built.drop_rate == 0.0 and not dropped(built)
    with pytest.raises(ValueError, match="drop_rate 1.5"):
        built.drop_rate = 1.5
    assert not any(module.p for path, module in built.named_modules()
                   if isinstance(module, torch.nn.Dropout) and "head" in path)


@every_family
def test_reset_classifier(name):
    model = build(name)
    before = model.forward_features(image(name))
    model.reset_classifier(7)
    assert model(image(name)).shape == (2, 7)
    assert model.num_classes == 7
    assert model.get_classifier().weight.shape[0] == 7
    assert torch.equal(model.forward_features(image(name)), before)
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), torch.nn.Identity)


@every_family
@pytest.mark.parametrize("pool", ["avg", "max", "avgmax"])
def test_global_pool(name, pool):
    if "distilled" in name:
        with pytest.raises(ValueError, match="a distilled model pools its two tokens alone"):
            build(name, global_pool=pool)
        return
    built, changed = build(name, global_pool=pool, num_classes=3), build(name, num_classes=3)
    changed.reset_classifier(3, pool)
    assert built(image(name)).shape == changed(image(name)).shape == (2, 3)


@every_family
def test_intermediates(name):
    model = build(name)
    count = len(model.feature_info)
    final, maps = model.forward_intermediates(image(name))
    assert torch.equal(final, model.forward_features(image(name)))
    assert len(maps) == count
    side = image(name).shape[-1]
    for info, feature in zip(model.feature_info, maps):
        grid = -(-side // info["reduction"])  # rounded up: patch merging pads
        assert feature.shape == (2, info["num_chs"], grid, grid)
        model.get_submodule(info["module"])
    early = model.forward_intermediates(image(name), indices=[0, -1], intermediates_only=True)
    assert torch.equal(early[0], maps[0]) and torch.equal(early[1], maps[-1])
    with pytest.raises(ValueError, match="out of range"):
        model.forward_intermediates(image(name), indices=[count])
    with pytest.raises(ValueError, match="output_fmt 'HWC' is not one of"):
        model.forward_intermediates(image(name), output_fmt="HWC")


@every_family
def test_features_only_equals_intermediates(name):
    model = build(name)
    expected = model.forward_intermediates(image(name), indices=[0, 2], intermediates_only=True,
                                           output_fmt=model.feature_layout)
    features = build(name, features_only=True, out_indices=(0, 2))
    assert features.feature_info.channels() == [model.feature_info[i]["num_chs"] for i in (0, 2)]
    for own, other in zip(features(image(name)), expected):
        assert torch.equal(own, other)
    assert len(features.state_dict()) < len(model.state_dict())


@every_family
@pytest.mark.parametrize("kind", ["list", "dict"])
def test_indices_in_any_order_give_features_in_order_of_depth(name, kind):
    features = build(name, features_only=True, out_indices=(-1, 0, -1), feature_cls=kind)
    outputs, info = features(image(name)), features.feature_info
    assert info.out_indices == features.out_indices == (0, len(info) - 1)
    if kind == "dict":
        assert list(outputs) == list(features.return_layers.values()) == ["0", "-1"]
    channels_axis = 1 if features.output_fmt == "NCHW" else -1
    shapes = [output.shape for output in (outputs.values() if kind == "dict" else outputs)]
    assert [shape[channels_axis] for shape in shapes] == info.channels()


@every_family
def test_checkpointing_changes_memory_alone(name):
    results = []
    for enable in (False, True):
        model = build(name, drop_path_rate=0.0)
        model.set_grad_checkpointing(enable)
        out = model(image(name))
        out.square().sum().backward()
        results.append((out, [p.grad for p in model.parameters()]))
    (plain, plain_grads), (saved, saved_grads) = results
    assert torch.equal(plain, saved)
    for a, b in zip(plain_grads, saved_grads):
        torch.testing.assert_close(a, b)


@every_family
def test_every_parameter_gets_a_gradient(name):
    model = build(name, drop_path_rate=0.1, drop_rate=0.1).train()
    out = model(image(name))
    sum(o.square().sum() for o in (out if isinstance(out, tuple) else (out,))).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]


@every_family
def test_initialisation_is_complete_and_repeatable(name):
    first, second = build(name), build(name)
    for (key, a), b in zip(first.state_dict().items(), second.state_dict().values()):
        assert torch.isfinite(a).all(), key
        assert torch.equal(a, b), key
    direct = mvlib.model_entrypoint(name)(**SMALL[name])
    assert isinstance(direct, ImageModel)
    for (key, a), b in zip(direct.state_dict().items(), first.state_dict().values()):
        assert a.shape == b.shape, key
        if a.numel() >= 20:  # drawn from the same distribution
            assert abs(a.float().std() - b.float().std()) < 0.2 * b.float().std() + 0.02, key


@every_family
def test_drop_path_is_random_in_training_alone(name):
    model = build(name, drop_path_rate=0.5)
    assert torch.equal(model(image(name)), model(image(name)))
    blocks = [m for m in model.modules() if type(m).__name__ == "DropPath"]
    assert blocks
    assert 0 < max(b.drop_prob for b in blocks) <= 0.5


@every_family
def test_group_matcher_covers_every_parameter(name):
    from timm.models._manipulate import group_parameters

    model = build(name)
    for coarse in (False, True):
        groups = group_parameters(model, model.group_matcher(coarse=coarse))
        assert sum(map(len, groups.values())) == len(list(model.parameters()))
    fine = group_parameters(model, model.group_matcher())
    assert len(fine) > len(groups) or name.startswith(("vit", "deit"))


@few_families
def test_compile_without_graph_breaks(name):
    model = build(name)
    torch.compiler.reset()  # each model compiles ImageModel.forward anew, and there is a limit to how often
    with torch.inference_mode():
        expected = model(image(name))
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(image(name)), expected)


@every_family
def test_export(name):
    model = build(name)
    program = torch.export.export(model, (image(name),))
    torch.testing.assert_close(program.module()(image(name)), model(image(name)))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_fx_tracing(name):
    model = build(name)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(image(name)), model(image(name)))


@pytest.mark.skipif(torch.__version__.startswith("2.5."), reason="torch 2.5 does not export with today's onnxscript")
@few_families
def test_onnx(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = build(name)
    torch.onnx.export(model, (image(name),), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    out = session.run(None, {session.get_inputs()[0].name: image(name).numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(out), model(image(name)).detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride(name, stride):
    model = build(name, output_stride=stride)
    assert model.forward_features(image(name)).shape[-1] == 64 // stride
    assert max(info["reduction"] for info in model.feature_info) == stride


def test_indices():
    assert take_indices(5, None) == [0, 1, 2, 3, 4]
    assert take_indices(5, 2) == [3, 4]
    assert take_indices(5, (0, -1)) == [0, 4]
    assert take_indices(5, (-1, 1, 4, 1)) == [1, 4]
    for bad in (0, 6, (5,), (-6,), ()):
        with pytest.raises(ValueError, match="cannot take|out of range"):
            take_indices(5, bad)
