"""What every family promises: heads, features, training, initialisation, and what leaves Python.

Cases are tests/parity/representatives.py: by default the first architecture of a family stands for it, with `-m slow`
every one. A family's own file holds what only that family has. What a model shares with timm's is tests/parity.
"""

import copy
import functools
import inspect
import io

import pytest
import timm
import torch
from timm.models._manipulate import group_parameters
from torch import nn
from torch.utils._pytree import tree_map

import mvlib
from mvlib import factory
from mvlib.models.base import ImageModel, take_indices
from mvlib.models.feature_extraction import create_feature_extractor, get_graph_node_names

from ..parity.representatives import DEFAULT, REPRESENTATIVES
from ..skeleton import skeletons, uninitialised

ARGUMENTS = {name: arguments for family in REPRESENTATIVES.values() for name, arguments in family.items()}
SIZES = dict.fromkeys(("inception_v3", "inception_v4", "inception_resnet_v2", "alexnet"), 96)  # 64 pixels are too few
# Two more seconds each: for one model of convolutions, one of tokens, one of windows.
COMPILED = ("test_efficientnet", "vit_tiny_patch16_224")
LISTS = ("hrnet",)  # whose stages give lists of maps: nothing to classify, and a step may be no module

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:FutureWarning")


def cases(default):
    """A model's tests follow one another, for what is built once."""
    return pytest.mark.parametrize("name", [
        pytest.param(name, id=f"{family}-{name}", marks=() if name in default else pytest.mark.slow)
        for family, members in REPRESENTATIVES.items() for name in members
        if not name.endswith("_enc")], scope="module")  # encoders classify nothing


every_family = cases(DEFAULT)
few_families = cases(COMPILED)


def create(name, **kwargs):
    """A classifier of zeros, which would hide what stands before it, is filled."""
    torch.manual_seed(0)
    model = mvlib.create_model(name, pretrained=False, **{"num_classes": 10, **ARGUMENTS[name], **kwargs})
    for path in getattr(model, "logits_paths", ()):
        weight = getattr(model.get_submodule(path), "weight", None)
        if weight is not None and not weight.is_meta and not weight.any():
            nn.init.normal_(weight, std=0.02)
    return model


def on_meta(name, **kwargs):
    with skeletons():
        return create(name, **kwargs)


@functools.lru_cache(2)
def built(name):
    """In eval mode, for tests that change nothing of it."""
    return create(name).eval()


def copy_of(name, **kwargs):
    """A model of its own with `built`'s weights."""
    if not kwargs:
        return copy.deepcopy(built(name))
    with uninitialised():
        model = create(name, **kwargs)
    model.load_state_dict(built(name).state_dict())
    return model.eval()


def images(name, count=2, chans=3):
    size = getattr(getattr(built(name), "patch_embed", None), "img_size", None)
    size = size or ARGUMENTS[name].get("img_size") or SIZES.get(name, 64)
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(count, chans, height, width, generator=torch.Generator().manual_seed(0))


def known_arguments(name):
    """What the architecture names; it may take more (a MetaFormer: what its token mixers take)."""
    known = factory.known_arguments(name)
    return inspect.signature(type(built(name))).parameters if known is None else known


def rates(name, rate):
    """Every drop rate that the architecture takes."""
    return dict.fromkeys({"drop_rate", "drop_path_rate", "attn_drop_rate"} & set(known_arguments(name)), rate)


@torch.no_grad()
def check(name, other, counts=(1, 4)):
    """`other` answers as the model does, for one image and for four."""
    for count in counts:
        x = images(name, count)
        expected = built(name)(x)
        with torch.jit.optimized_execution(False):  # which takes longer than the model
            torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


# names


def test_every_family_has_a_representative():
    assert set(mvlib.list_modules("classification")) - {"quantization"} == set(REPRESENTATIVES)
    assert set(ARGUMENTS) <= set(mvlib.list_models())


@pytest.mark.parametrize("family", REPRESENTATIVES)
def test_every_architecture_of_timms_module_is_here(family):
    if family in timm.list_modules():
        assert set(timm.list_models(module=family)) <= set(mvlib.list_models(module=family))
    for name in mvlib.list_models(module=family):
        entrypoint = mvlib.model_entrypoint(name)
        result = inspect.signature(entrypoint, eval_str=True).return_annotation
        assert entrypoint.__doc__ and issubclass(result, ImageModel), name
        assert "pretrained" not in (factory.known_arguments(name) or ())


# forward and head


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_forward_is_features_and_head(name):
    model, x = built(name), images(name)
    features, logits = model.forward_features(x), model(x)
    assert torch.equal(logits, model.forward_head(features)) and logits.shape == (2, 10)
    hidden = model.forward_head(features, pre_logits=True)
    assert hidden.shape == (2, model.head_hidden_size)
    behind = getattr(model, "fc_norm", nn.Identity())  # timm's `pool` of a transformer does not count it in
    torch.testing.assert_close(behind(model.pool(features)), hidden)
    headless = copy_of(name)
    headless.reset_classifier(0)
    classifier = headless.get_classifier()
    classifier = classifier[0] if isinstance(classifier, nn.ModuleList) else classifier  # several, for parts of them
    assert isinstance(classifier, nn.Identity) and headless.num_classes == 0
    assert torch.equal(headless(x), hidden)
    assert torch.equal(headless(x), headless.forward_head(headless.forward_features(x), pre_logits=True))


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_a_new_classifier(name):
    model, x = copy_of(name), images(name)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7) and model.num_classes == 7
    assert all(not model.get_submodule(path).training for path in model.classifier_paths)
    torch.testing.assert_close(model.forward_features(x), built(name).forward_features(x), rtol=0, atol=0)


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_pooling_is_chosen_when_built_or_later(name):
    resets = inspect.signature(built(name).reset_classifier).parameters
    one_of_two = {"distillation": False} if "distillation" in resets else {}  # a new classifier is one, unless asked
    for pool in ("avg", "max", "avgmax"):
        try:
            model = on_meta(name, global_pool=pool, **one_of_two)
        except ValueError as error:
            with pytest.raises(ValueError, match=str(error).split(":")[0]):
                copy_of(name).reset_classifier(10, pool)
            continue
        changed = copy_of(name)
        changed.reset_classifier(10, pool)
        shapes = [[p.shape for p in m.get_classifier().parameters()] for m in (changed, model)]
        assert shapes[0] == shapes[1]
        assert changed(images(name)).shape == (2, 10)
    with pytest.raises(ValueError, match="global_pool|pooling"):
        on_meta(name, global_pool="mean")


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_drop_rate(name):
    """Built or set, the rate is what is reported and what acts, in whichever way the head drops."""
    x = tree_map(torch.rand_like, built(name).forward_features(images(name)))

    def dropped(model):
        """Twice the same is not the same; a head's batch norms stay as they are."""
        model.eval()
        for module in model.modules():
            module.training = not isinstance(module, nn.modules.batchnorm._BatchNorm)
        return not torch.equal(model.forward_head(x), model.forward_head(x))

    model, changed = copy_of(name, drop_rate=0.3), copy_of(name, drop_rate=0.0)
    assert model.drop_rate == 0.3 and dropped(model)
    assert changed.drop_rate == 0.0 and not dropped(changed)
    changed.drop_rate = 0.4
    model.drop_rate = 0.0
    assert changed.drop_rate == 0.4 and dropped(changed)
    assert model.drop_rate == 0.0 and not dropped(model)
    with pytest.raises(ValueError, match="drop_rate 1.5"):
        model.drop_rate = 1.5
    assert not any(module.p for path, module in model.named_modules() if isinstance(module, nn.Dropout) and
                   "head" in path)


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_any_number_of_channels(name):
    if name.startswith("csatv2"):  # takes colours apart
        return
    x = images(name, chans=5).to("meta")
    with torch.device("meta"):
        assert create(name, in_chans=5).eval()(x).shape == (2, 10)


# features


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_intermediates(name):
    model, x = built(name), images(name)
    count = len(model.feature_info)
    final, maps = model.forward_intermediates(x)
    torch.testing.assert_close(final, model.forward_features(x), rtol=0, atol=0)  # a list of CoaT's
    assert len(maps) == count
    for info, feature in zip(model.feature_info, maps):
        assert feature.shape[1] == info["num_chs"]
        for side, full in zip(feature.shape[2:], x.shape[2:]):  # without padding it is smaller by a few
            assert full / info["reduction"] - 4.1 < side <= -(-full // info["reduction"])
        if not name.startswith((*LISTS, "twins", "mvitv2", "mobilenetv5", "gemma4_vit")):  # timm's are of no modules
            model.get_submodule(info["module"])
    early = model.forward_intermediates(x, indices=[0, -1], intermediates_only=True)
    assert torch.equal(early[0], maps[0]) and torch.equal(early[1], maps[-1])
    with pytest.raises(ValueError, match="out of range"):
        model.forward_intermediates(x, indices=[count])
    with pytest.raises(ValueError, match="output_fmt 'HWC' is not one of"):
        model.forward_intermediates(x, output_fmt="HWC")


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_features_only_equals_intermediates(name):
    """Indices in any order give features in order of depth, as a list or as a dict."""
    model, x = built(name), images(name)
    for indices, kind in (((0, len(model.feature_info) // 2), "list"), ((-1, 0, -1), "dict")):
        features = create(name, features_only=True, out_indices=indices, feature_cls=kind).eval()
        info, taken = features.feature_info, take_indices(len(model.feature_info), indices)
        features.load_state_dict(built(name).state_dict(), strict=False)
        expected = model.forward_intermediates(
            x, indices=taken, intermediates_only=True, output_fmt=model.feature_layout)
        outputs = features(x)
        assert [i % len(info.info) for i in info.out_indices] == list(features.out_indices) == taken
        assert info.channels() == [model.feature_info[i]["num_chs"] for i in taken]
        if kind == "dict":
            assert len(outputs) == len(taken)
        for own, other in zip(outputs.values() if kind == "dict" else outputs, expected, strict=True):
            assert torch.equal(own, other)
        assert len(features.state_dict()) < len(model.state_dict())


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_a_pruned_model_runs_and_takes_a_new_head(name):
    model, x = copy_of(name), images(name)
    features = built(name).forward_intermediates(x, indices=[1], intermediates_only=True, output_fmt="NCHW")[0]
    assert model.prune_intermediate_layers([1]) == [1]
    assert torch.equal(model.forward_intermediates(x, indices=[1], intermediates_only=True)[0], features)
    if not name.startswith((*LISTS, "crossvit")):  # all branches stay
        model.reset_classifier(3, "token" if name.startswith("pit_") or "_distilled_" in name else "avg")
        necked = name.startswith("samvit_") and not name.endswith("_224")  # whose neck stays
        width = 256 if necked else model.feature_info[1]["num_chs"]
        if name.startswith("efficientvim"):  # its classifiers read all stages
            width += sum(info["num_chs"] for info in model.feature_info)
        assert model(x).shape == (2, 3) and model.head_hidden_size == width


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_output_stride(name):
    if "output_stride" not in known_arguments(name):
        return
    for stride in (8, 16):
        try:
            model = on_meta(name, output_stride=stride).eval()
        except ValueError as error:
            assert "output_stride is 32 for" in str(error)  # a family without dilation
            continue
        x = torch.zeros(1, 3, 64, 64, device="meta")
        assert 64 // stride in model.forward_features(x).shape[1:]
        assert max(info["reduction"] for info in model.feature_info) == stride


# training


@pytest.mark.sample(8)
@every_family
def test_checkpointing_changes_memory_alone(name):
    results = []
    for enable in (False, True):
        model, stored = copy_of(name, **rates(name, 0.0)), []
        model.set_grad_checkpointing(enable)

        def pack(tensor, stored=stored):
            stored.append(0 if isinstance(tensor, nn.Parameter) else tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            features = model.forward_features(images(name))
        out = model.forward_head(features)
        out.square().sum().backward()
        results.append((out, [p.grad for p in model.parameters()], sum(stored)))
    (plain, gradients, much), (saved, saved_gradients, little) = results
    assert torch.equal(plain, saved) and little < 0.95 * much
    for a, b in zip(gradients, saved_gradients):
        torch.testing.assert_close(a, b)


@cases(("resnet18", "densenet121", "hrnet_w18_small"))
def test_checkpointing_keeps_the_gradients_of_features(name):
    results = []  # without hooks, which hide that something was changed in place
    for enable in (False, True):
        model = create(name, features_only=True).eval()
        model.set_grad_checkpointing(enable)
        sum(feature.square().mean() for feature in model(images(name))).backward()
        results.append([p.grad for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.sample(8)
@every_family
def test_every_parameter_gets_a_gradient_and_drop_path_is_random_in_training_alone(name):
    model, x = copy_of(name, **rates(name, 0.5)), images(name, 4)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
    drop_paths = [m.drop_prob for m in model.modules() if type(m).__name__ == "DropPath"]
    assert 0 < max(drop_paths) <= 0.5 if "drop_path_rate" in known_arguments(name) else not drop_paths
    for _ in range(8):  # by chance a branch may be dropped for every image
        out = model.train()(x)
        sum(o.square().sum() for o in (out if isinstance(out, tuple) else (out,))).backward()
        without = [n for n, p in model.named_parameters() if p.grad is None]
        if not without:
            break
    assert not without


@pytest.mark.sample(8)
@every_family
def test_initialisation_is_complete_and_repeatable(name):
    first, second = built(name), create(name)
    for (key, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.isfinite(a).all() or key.endswith(("put_min", "put_max")), key  # bounds, none at first
        assert torch.equal(a, b), key
    with skeletons():
        direct = mvlib.model_entrypoint(name)(**{"num_classes": 10, **ARGUMENTS[name]})
    assert type(direct) is type(first) and list(direct.state_dict()) == list(first.state_dict())
    empty = on_meta(name).to_empty(device="cpu")
    for tensor in (*empty.parameters(), *empty.buffers()):
        tensor.data.fill_(7)
    empty.init_weights()
    buffers = dict(first.named_buffers())
    assert not any((parameter == 7).any() for parameter in empty.parameters())
    assert all(torch.equal(buffer, buffers[key]) for key, buffer in empty.named_buffers())


@every_family
def test_layer_groups_cover_every_parameter(name):
    model = built(name)
    counts = []
    for coarse in (False, True):
        groups = group_parameters(model, model.group_matcher(coarse=coarse))
        assert sum(map(len, groups.values())) == len(list(model.parameters()))
        counts.append(len(groups))
    assert counts[0] >= counts[1] > 2
    last = set(groups[max(groups)])
    assert all(f"{path}.{key}" in last for path in model.classifier_paths
               for key, _ in model.get_submodule(path).named_parameters())


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_half_precision(name):
    model = copy_of(name).to(torch.bfloat16)
    assert model(images(name).bfloat16()).dtype == torch.bfloat16


# what leaves Python, or is built without memory


class StandIn(nn.Module):
    """As int8 layers and adapters do, it stands where a linear layer stood; its own weight does not say all."""

    def __init__(self, linear):
        super().__init__()
        self.base_layer, self.in_features, self.out_features = linear, linear.in_features, linear.out_features
        self.was_called = False

    weight, bias = (property(lambda self, name=name: getattr(self.base_layer, name)) for name in ("weight", "bias"))

    def forward(self, x):
        self.was_called = True
        return self.base_layer(x)


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_what_stands_in_for_a_linear_layer_is_called(name):
    model, x = copy_of(name), images(name)
    paths = [path for path, module in model.named_modules() if type(module) is nn.Linear]
    for path in paths:
        model.set_submodule(path, StandIn(model.get_submodule(path)))
    torch.testing.assert_close(model(x), built(name)(x), rtol=1e-4, atol=1e-5)
    assert [path for path in paths if not model.get_submodule(path).was_called] == []


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_trace_of_one_image_takes_four(name):
    check(name, torch.jit.trace(built(name), images(name, 1), check_trace=False))


@pytest.mark.sample(8)
@every_family
def test_fx(name):
    check(name, torch.fx.symbolic_trace(built(name)))


@few_families
def test_nodes_of_a_graph(name):
    model = built(name)
    _, nodes = get_graph_node_names(model)  # traces in training, too
    last = create_feature_extractor(model, {nodes[-1]: "last"})
    check(name, lambda x: last(x)["last"], counts=(4,))


@pytest.mark.sample(12)
@every_family
@torch.no_grad()
def test_script(name):
    model = copy_of(name, **rates(name, 0.2))
    script = torch.jit.script(model)
    check(name, script)
    kept = [key for key in script.state_dict() if key in model.state_dict()]  # TorchScript keeps every buffer
    assert kept == list(model.state_dict())
    x, answers = images(name, 4), []
    for trained in (model.train(), script.train()):
        torch.manual_seed(0)
        with torch.jit.optimized_execution(False):
            answers.append(trained(x))
    assert torch.equal(*answers)


@few_families  # what fx and TorchScript follow is exported, too
@torch.no_grad()
def test_export(name):
    check(name, torch.export.export(built(name), (images(name),), strict=False).module(), counts=(2,))


@pytest.mark.sample(2)
@few_families
@torch.no_grad()
def test_strict_export(name):
    check(name, torch.export.export(built(name), (images(name),), strict=True).module(), counts=(2,))


@few_families
def test_compile_without_graph_breaks(name):
    torch.compiler.reset()  # each model compiles ImageModel.forward anew, and there is a limit to how often
    if name.startswith("sequencer"):
        pytest.skip("torch's compiler takes no LSTM")
    model = built(name)  # not in inference mode, in which its weights would stay for the next test
    with torch.inference_mode():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(images(name)), model(images(name)))


NOT_TRACED_TO_ONNX = {  # timm's neither
    **dict.fromkeys(("alexnet", "vgg", "pvt_v2_b2_li", "csatv2"),
                    "ONNX has no pooling to a map that does not divide the other"),
    "abswin": "the older exporter has no antialiased interpolation, with which position embeddings are resized",
    "volo_": "the older exporter folds to sizes that are fixed alone",
}


@few_families
@pytest.mark.filterwarnings("ignore")
def test_onnx_of_one_image_takes_four(name):
    """The older exporter, which traces."""
    for part, reason in NOT_TRACED_TO_ONNX.items():
        if part in name:
            pytest.skip(reason)
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file = io.BytesIO()
    torch.onnx.export(built(name), (images(name, 1),), file, dynamo=False, input_names=["x"], output_names=["y"],
                      dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}})
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    check(name, lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0]))


@pytest.mark.sample(2)
@pytest.mark.skipif(torch.__version__.startswith("2.5."), reason="torch 2.5 does not export with today's onnxscript")
@few_families
def test_onnx(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    optimize = not name.startswith("gemma4")  # torch loses bounds of what is clamped twice; mvlib.export sees it
    torch.onnx.export(built(name), (images(name),), tmp_path / "model.onnx", dynamo=True, verbose=False,
                      optimize=optimize)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    check(name, lambda x: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]), (2,))


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_built_on_meta(name):
    """The protocol of transformers and accelerate, for models without memory."""
    with torch.device("meta"):
        model = create(name)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    model.to_empty(device="cpu")
    for buffer in model.buffers():
        buffer.fill_(7)  # what lies in memory
    model.load_state_dict(built(name).state_dict())
    for module in model.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
    check(name, model.eval(), counts=(2,))


@pytest.mark.sample(8)
@every_family
@torch.no_grad()
def test_parameters_on_meta_buffers_in_memory(name, monkeypatch):
    """accelerate's `init_empty_weights` moves each parameter as it is registered."""
    register = nn.Module.register_parameter

    def register_on_meta(module, key, parameter):
        register(module, key, None if parameter is None else nn.Parameter(
            parameter.to("meta"), parameter.requires_grad))

    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "register_parameter", register_on_meta)
        model = create(name)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    model.load_state_dict(built(name).state_dict(), assign=True)
    check(name, model.eval(), counts=(2,))


def test_indices():
    assert take_indices(5, None) == [0, 1, 2, 3, 4]
    assert take_indices(5, 2) == [3, 4]
    assert take_indices(5, (0, -1)) == [0, 4]
    assert take_indices(5, (-1, 1, 4, 1)) == [1, 4]
    for bad in (0, 6, (5,), (-6,), ()):
        with pytest.raises(ValueError, match="cannot take|out of range"):
            take_indices(5, bad)
