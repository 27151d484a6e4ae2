"""`features_only`: timm's state dicts, children and outputs, whatever a family's form; files of every layout."""

import copy
import pickle

import pytest
import timm
import torch
from torch import nn

import mvlib
import mvlib.layers
from mvlib import ConfigError, FeatureExtractor
from mvlib.models.base import Flow, Step
from tests.parity.harness import build_timm
from tests.parity.representatives import REPRESENTATIVES

# A small model of each form, and what its extractor's first children are.
FORMS = {
    "test_resnet": ["conv1", "bn1", "act1", "maxpool", "layer1"],
    "test_convnext": ["stem_0", "stem_1", "stages_0", "stages_1"],
    "vgg11": ["features_0", "features_1", "features_2", "features_3", "features_4"],
    "test_efficientnet": ["conv_stem", "bn1", "blocks"],
    "test_vit": ["model"],
}
ARGUMENTS = {"vgg11": dict(mlp_ratio=0.0625)}
IMAGE = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))

# Forms of timm's that raise when they are called, or (Visformer) have lost the positions; ours work.
UNUSABLE = {"coat": ("list", "dict"), "levit": ("list", "dict", "hook"), "visformer": ("list", "dict")}

every_form = pytest.mark.parametrize("name", FORMS)


def build(name, **kwargs):
    return mvlib.create_model(name, pretrained=False, features_only=True, **ARGUMENTS.get(name, {}), **kwargs).eval()


def image(name):
    return IMAGE[:, :, :32, :32] if name == "vgg11" else IMAGE


def layout(features):
    """What is timm's to the name and in order; only what is saved of the buffers."""
    return {
        "keys": [(key, value.shape) for key, value in features.state_dict().items()],
        "parameters": [name for name, _ in features.named_parameters()],
        "children": [name for name, child in features.named_children() if child.state_dict()],
        "info": features.feature_info.get_dicts(),
        "channels": list(features.feature_info.channels()), "reduction": list(features.feature_info.reduction()),
    }


def is_timms(name, arguments, **kwargs):
    try:
        theirs = build_timm(name, meta=True, features_only=True, **arguments, **kwargs)
    except (AssertionError, IndexError, KeyError):  # taps that timm cannot find, or fewer than its default takes
        return False
    ours = mvlib.create_model(name, features_only=True, device="meta", **arguments, **kwargs)
    found, expected = layout(ours), layout(theirs)
    assert found == expected, (kwargs, {key: found[key] for key in found if found[key] != expected[key]})
    if hasattr(theirs, "return_layers"):
        named = [child for child in theirs.keys() if child != "from_seq"]  # SelecSLS's, which has no part in the maps
        assert ours.return_layers == theirs.return_layers and list(ours.keys()) == named
    return True


def same(outputs, expected):
    return len(outputs) == len(expected) and all(map(torch.equal, outputs, expected))


@every_form
@pytest.mark.parametrize("out_indices", [None, (0,), (1, 2), (-1,), 2])
def test_state_dict_and_children_are_timms(name, out_indices):
    assert is_timms(name, ARGUMENTS.get(name, {}), **({} if out_indices is None else {"out_indices": out_indices}))


@pytest.mark.parametrize("feature_cls", ["list", "dict", "getter", "hook"])
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_the_form_that_is_asked_for(name, feature_cls):
    assert is_timms(name, {}, feature_cls=feature_cls, out_indices=(0, 1))


@pytest.mark.parametrize("name, arguments", [
    pytest.param(*item, id=item[0], marks=() if item[0] in ("test_byobnet", "rdnet_tiny") else pytest.mark.slow)
    for models in REPRESENTATIVES.values() for item in models.items()])
def test_every_subset_is_timms(name, arguments):
    if not timm.is_model(name):
        pytest.skip("timm has no such model")
    count = len(mvlib.create_model(name, device="meta", **arguments).feature_info)
    is_timms(name, arguments)
    for out_indices in [*((i,) for i in range(count)), *((i, i + 1) for i in range(count - 1)), (-1,), range(count)]:
        is_found = is_timms(name, arguments, out_indices=tuple(out_indices))
        assert is_found or name.startswith("tresnet") and 0 in out_indices  # which timm's lists and cannot find
    if name.startswith("hardcorenas"):
        return  # timm's do not take feature_cls
    for feature_cls in ("list", "dict", "getter", "hook"):
        if feature_cls in UNUSABLE.get(name.partition("_")[0], ()) and "conv" not in name:
            continue
        is_timms(name, arguments, feature_cls=feature_cls)
        if name.startswith("tresnet") and feature_cls == "getter":
            continue  # its tap 0 has a name in ours alone
        is_timms(name, arguments, feature_cls=feature_cls, out_indices=(0, count // 2) if count > 1 else (0,))


def test_channels_are_those_behind_a_norm_that_changes_them():
    model = mvlib.create_model("samvit_base_patch16", img_size=64, embed_dim=96, depth=2, num_heads=2)
    features = FeatureExtractor(model, norm=True)
    assert features.feature_info.channels() == [256] * 2
    assert [output.shape[1] for output in features.eval()(torch.zeros(1, 3, 64, 64))] == [256] * 2


@every_form
def test_there_and_back(name):
    theirs, back = (timm.create_model(name, features_only=True, out_indices=(0, 2), **ARGUMENTS.get(name, {})).eval()
                    for _ in range(2))
    ours = build(name, out_indices=(0, 2))
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    with torch.no_grad():
        expected = theirs(image(name))
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours(image(name)), expected, strict=True))
        assert back.load_state_dict(ours.state_dict()) == ([], [])
        assert same(back(image(name)), expected)


@every_form
def test_children(name):
    features = build(name, out_indices=(0, 1))
    assert list(features.keys())[:5] == FORMS[name] and len(features) == len(list(features.children()))
    last = FORMS[name][-1]
    assert features[last] is getattr(features, last)
    if last != "model":  # there is one tree: what is replaced is what runs
        for before in FORMS[name][:-1]:
            features[before] = nn.Identity()
        stage = nn.Conv2d(3, 4, 1)
        setattr(features, last, nn.Sequential(stage, nn.ReLU()) if last == "blocks" else stage)
        assert features(image(name))[-1].shape[1] == 4


@every_form
def test_files_of_every_layout_load(name, tmp_path):
    """The extractor's own, timm's, the model's as a whole, and those that mvlib wrote when all were behind "model."."""
    model = mvlib.create_model(name, **ARGUMENTS.get(name, {}))
    state_dict = model.state_dict()
    expected = FeatureExtractor(copy.deepcopy(model).eval(), (0, 1))
    own = expected.state_dict()
    old = FeatureExtractor(copy.deepcopy(model), (0, 1), feature_cls="getter").state_dict()
    assert all(key.startswith("model.") for key in old)
    if name == "test_efficientnet":  # what ran no more was not kept then
        own = {key: value for key, value in own.items() if f"model.{key}" in old}
    torch.save(old, tmp_path / "old.pth")
    torch.save(state_dict, tmp_path / "whole.pth")
    with torch.no_grad():
        outputs = expected(image(name))
        for given in (expected.state_dict(), state_dict, {f"model.{key}": v for key, v in state_dict.items()}, old):
            features = build(name, out_indices=(0, 1))
            features.load_state_dict(given, strict=given is not old)
            assert same(features(image(name)), outputs)
            assert all(torch.equal(value, features.state_dict()[key]) for key, value in own.items())
        for file in ("whole.pth", "old.pth"):
            if file == "old.pth" and name == "test_efficientnet":
                continue
            assert same(build(name, out_indices=(0, 1), checkpoint_path=tmp_path / file)(image(name)), outputs)
            features = build(name, out_indices=(0, 1))
            assert mvlib.load_checkpoint(features, tmp_path / file) == ([], [])
            assert same(features(image(name)), outputs)


def test_what_is_of_no_model_is_refused(tmp_path):
    features = build("test_convnext", out_indices=(0, 1))
    with pytest.raises(RuntimeError, match="Unexpected key.*stages_0.blocks.0.colour"):
        features.load_state_dict({**features.state_dict(), "stages_0.blocks.0.colour": torch.ones(1)})
    with pytest.raises(RuntimeError, match="Missing key.*stem_0.weight"):
        features.load_state_dict({key: value for key, value in features.state_dict().items() if "stem" not in key})
    torch.save(build("test_resnet").state_dict(), tmp_path / "other.pth")
    with pytest.raises(mvlib.CheckpointError, match="does not fit the model 'test_convnext'"):
        build("test_convnext", checkpoint_path=tmp_path / "other.pth")


def test_weights_in_other_sizes_and_layouts():
    """What the model adapts, its extractor does."""
    source = mvlib.create_model("test_convnext", conv_mlp=True)
    features = build("test_convnext")
    features.load_state_dict(source.state_dict())  # 1x1 convolutions; ours are linear
    weight = source.stages[0].blocks[0].mlp.fc1.weight
    assert torch.equal(features.stages_0.blocks[0].mlp.fc1.weight, weight.flatten(1))
    features = build("test_vit", img_size=64)
    features.load_state_dict(build("test_vit").state_dict())
    assert features(IMAGE[:, :, :64, :64])[0].shape[-2:] == (4, 4)


@every_form
def test_copies_are_whole(name):
    features = build(name, out_indices=(0, 1))
    with torch.no_grad():
        expected = features(image(name))
        for other in (copy.deepcopy(features), pickle.loads(pickle.dumps(features))):
            assert same(other(image(name)), expected)
            next(other.parameters()).zero_()
            assert not same(other(image(name)), expected) and same(features(image(name)), expected)
        replica = features._replicate_for_data_parallel()  # its modules are then replaced by another device's
        for key in replica._modules:
            replica._modules[key] = nn.Identity()
        assert same(features(image(name)), expected)
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(features))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in synced.model.modules())


@every_form
def test_recomputed_activations_change_nothing(name):
    gradients = []
    features = build(name, out_indices=(0, 1))
    for enable in (False, True):
        features.set_grad_checkpointing(enable)
        features.zero_grad()
        sum(output.square().mean() for output in features(image(name)[:1])).backward()
        gradients.append([p.grad.clone() for p in features.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 2 and all(map(torch.equal, *gradients))


def test_no_weight_decay_has_our_names():
    names = {name for name, _ in build("swin_tiny_patch4_window7_224", depths=(1, 1), embed_dim=12, num_heads=(2, 2),
                                       out_indices=(0, 1)).named_parameters()}
    features = build("swin_tiny_patch4_window7_224", depths=(1, 1), embed_dim=12, num_heads=(2, 2), out_indices=(0, 1))
    assert features.no_weight_decay() == {name for name in names if name.endswith("bias_table")} and len(names) > 10


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet"])
def test_graphs_have_our_names(name):
    features = build(name, out_indices=(0, 1))
    traced = torch.fx.symbolic_trace(features)
    exported = torch.export.export(features, (IMAGE,))
    assert set(traced.state_dict()) <= set(features.state_dict()) >= set(exported.state_dict)
    with torch.no_grad():
        assert same(traced(IMAGE), features(IMAGE)) and same(exported.module()(IMAGE), features(IMAGE))


@pytest.mark.filterwarnings("ignore:.*nodes obtained by tracing:UserWarning")
@pytest.mark.parametrize("feature_cls, child", [("getter", "model"), ("hook", "body"), ("fx", "graph_module")])
def test_other_forms_give_the_same(feature_cls, child):
    model = mvlib.create_model("test_resnet").eval()
    expected = FeatureExtractor(copy.deepcopy(model), (1, 2))
    features = FeatureExtractor(copy.deepcopy(model), (1, 2), feature_cls=feature_cls)
    assert list(features.keys()) == [child]
    with torch.no_grad():
        assert same(features(IMAGE), expected(IMAGE))
        features.load_state_dict({key: torch.zeros_like(value) for key, value in expected.state_dict().items()},
                                 strict=feature_cls != "hook")  # which keeps layer4
        assert features(IMAGE)[0].count_nonzero() == 0


def test_formats_of_outputs():
    small = dict(depths=(1, 1), embed_dim=12, num_heads=(2, 2), img_size=56)
    own, got, asked = (build("swin_tiny_patch4_window7_224", out_indices=(0, 1), **small, **options) for options in
                       ({}, dict(feature_cls="getter"), dict(feature_cls="getter", output_fmt="NHWC")))
    shapes = [tuple(features(IMAGE[:, :, :56, :56])[1].shape) for features in (own, got, asked)]
    assert shapes == [(2, 7, 7, 24), (2, 24, 7, 7), (2, 7, 7, 24)]


class Plain(mvlib.ImageModel):
    """A user's model, with a parameter and a step of its own."""

    def __init__(self, num_classes=2):
        super().__init__()
        self.num_classes, self.in_chans, self.num_features, self.head_hidden_size = num_classes, 3, 4, 4
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.conv = nn.Conv2d(3, 4, 2, 2)
        self.flow = Flow(stem=[Step("rescale")], stages=[Step("conv", 4, 2)])
        self.global_pool = mvlib.layers.GlobalPool2d("avg")
        self.head = self.make_classifier(num_classes)

    def rescale(self, x):
        return x * self.scale


def test_a_model_of_ones_own_is_whole():
    features = FeatureExtractor(Plain())
    assert list(features.state_dict()) == ["model.scale", "model.conv.weight", "model.conv.bias"]
    assert features(IMAGE)[0].shape == (2, 4, 80, 80)


def test_names_of_outputs():
    model = mvlib.create_model("test_resnet")
    assert list(build("test_resnet", feature_cls="dict", out_indices=(1, -1))(IMAGE)) == ["1", "-1"]
    assert list(build("test_vit", feature_cls="dict")(IMAGE)) == ["3", "4", "5"]
    assert list(FeatureExtractor(model, 2, return_dict=True, out_map=["fine", "coarse"])(IMAGE)) == ["fine", "coarse"]
    with pytest.raises(ValueError, match="out_map names 1 outputs, there are 2"):
        FeatureExtractor(model, 2, out_map=["fine"])


def test_an_unknown_feature_cls():
    with pytest.raises(ConfigError, match="unknown feature_cls 'hooks'; known: list, dict, getter, hook, fx"):
        build("test_resnet", feature_cls="hooks")


@pytest.mark.parametrize(("name", "arguments", "side", "shapes"), [
    ("ese_vovnet19b_dw", dict(num_classes=0), 224, (2, 1024)),
    ("mobilenetv3_large_100", {}, 224, (2, 1000)),
    ("resnet50", dict(num_classes=0), 224, (2, 2048)),
    ("resnest26d", dict(features_only=True), 224,
     [(2, 64, 112, 112), (2, 256, 56, 56), (2, 512, 28, 28), (2, 1024, 14, 14), (2, 2048, 7, 7)]),
    ("regnety_032", dict(features_only=True), 224,
     [(2, 32, 112, 112), (2, 72, 56, 56), (2, 216, 28, 28), (2, 576, 14, 14), (2, 1512, 7, 7)]),
    ("ecaresnet101d", dict(features_only=True, output_stride=8, out_indices=(2, 4)), 320,
     [(2, 512, 40, 40), (2, 2048, 40, 40)]),
])
def test_examples_of_timms_guide(name, arguments, side, shapes):
    model = mvlib.create_model(name, pretrained=False, device="meta", **arguments)
    out = model(torch.empty(2, 3, side, side, device="meta"))
    assert (tuple(out.shape) if isinstance(out, torch.Tensor) else [tuple(x.shape) for x in out]) == shapes
    if isinstance(shapes, list):
        assert model.feature_info.channels() == [chs for _, chs, _, _ in shapes]
