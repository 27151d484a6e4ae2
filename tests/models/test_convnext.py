"""ConvNeXt against timm and torchvision: options, head, initial weights, foreign checkpoints."""

import re

import pytest
import timm
import torch
import torchvision
from timm.models.convnext import checkpoint_filter_fn

from mvlib import registry
from mvlib.layers.norm import SimpleNorm
from mvlib.loading import load_weights
from mvlib.models import convnext
from mvlib.models.convnext import ConvNeXt
from tests.parity import harness
from tests.skeleton import skeletons

TIMM_NAMES = timm.list_models(module="convnext")
TINY = "test_convnext2"


def build(name, **kwargs):
    return getattr(convnext, name)(**kwargs).eval()


def build_on_meta(name, **kwargs):
    with skeletons():
        return build(name, **kwargs)


def pair(name, size=64, **kwargs):
    """timm's model and ours with the same random weights, in eval mode, and an image for them."""
    theirs, ours = timm.create_model(name, **kwargs), build(name, **kwargs)
    image = harness.random_image(size, theirs.in_chans)
    harness.randomize(theirs, image)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, image


def layout(model):
    return {key: value.shape for key, value in model.state_dict().items()}


def same(one, other):
    return harness.relative_difference(one, other) < 1e-5


# --- timm's architectures


def test_every_architecture_of_timm_is_here():
    assert len(TIMM_NAMES) == 31
    assert set(TIMM_NAMES) == set(registry.list_models(module="convnext"))


@pytest.mark.parametrize(("size", "kwargs"), [
    (64, dict(output_stride=16)),
    (70, dict(output_stride=8, in_chans=5)),
    (64, dict(patch_size=2)),  # the first stage downsamples too
    (64, dict(patch_size=8, output_stride=8)),
    (64, dict(stem_type="overlap_act", act_layer="silu", conv_bias=False)),
    (64, dict(head_norm_first=True, global_pool="catavgmax")),
    (64, dict(head_hidden_size=48, global_pool="avgmax")),
    (64, dict(head_hidden_size=48, global_pool="")),
    (64, dict(num_classes=0, head_hidden_size=48)),
    (64, dict(norm_layer="rmsnorm")),
    (64, dict(norm_layer="simplenorm2d", use_grn=True)),
    (64, dict(norm_layer="batchnorm2d", conv_mlp=True)),
    (64, dict(kernel_sizes=3, ls_init_value=0.1, norm_eps=0.1)),
])
def test_arguments_have_timms_effect(size, kwargs):
    theirs, ours, image = pair(TINY, size, **kwargs)
    with torch.no_grad():
        assert same(ours(image), theirs(image))
        taps = [model.forward_intermediates(image, norm=True, intermediates_only=True) for model in (ours, theirs)]
        assert all(same(one, other) for one, other in zip(*taps, strict=True))
    assert [info["reduction"] for info in ours.feature_info] == [info["reduction"] for info in theirs.feature_info]
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)


@pytest.mark.parametrize("key", [
    "stem.1.weight", "stages.0.blocks.0.gamma", "stages.1.downsample.0.bias", "stages.2.blocks.0.conv_dw.weight",
    "stages.2.blocks.0.mlp.grn.weight", "stages.3.blocks.0.mlp.grn.bias", "head.norm.weight", "head.fc.bias",
])
def test_the_comparison_notices_every_kind_of_weight(key):
    theirs, ours, image = pair(TINY, use_grn=True)
    ours.state_dict()[key].mul_(1.05)
    with torch.no_grad():
        assert not same(ours(image), theirs(image))


def test_stochastic_depth_is_timms():
    kwargs = dict(drop_path_rate=0.3, drop_rate=0.2)
    theirs, ours = timm.create_model("test_convnext", **kwargs), build("test_convnext", **kwargs)
    rates = [{name: m.drop_prob for name, m in model.named_modules() if type(m).__name__ == "DropPath"}
             for model in (ours, theirs)]
    assert rates[0] == pytest.approx(rates[1]) and len(rates[0]) == 8
    assert ours.head.drop.p == 0.2


@pytest.mark.parametrize("options", [{}, dict(head_norm_first=True), dict(head_hidden_size=48)])
@pytest.mark.parametrize("arguments", [
    dict(indices=[0]), dict(indices=1), dict(indices=1, prune_head=False), dict(indices=[3], prune_norm=True),
    dict(indices=[2], prune_head=False),
])
def test_pruning_to_features_equals_timms(options, arguments):
    theirs, ours, image = pair(TINY, **options)
    assert ours.prune_intermediate_layers(**arguments) == theirs.prune_intermediate_layers(**arguments)
    assert layout(ours) == layout(theirs)
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)
    with torch.no_grad():
        assert same(ours(image), theirs(image))


@pytest.mark.parametrize("options", [{}, dict(head_norm_first=True), dict(head_hidden_size=48)])
@pytest.mark.parametrize("arguments", [
    dict(num_classes=7), dict(num_classes=7, global_pool="max"), dict(num_classes=7, reset_other=True),
    dict(num_classes=0), dict(num_classes=0, global_pool="", reset_other=True),
])
def test_a_new_head_is_shaped_as_timms(options, arguments):
    theirs, ours, image = pair(TINY, **options)
    ours.reset_classifier(**arguments)
    theirs.reset_classifier(**arguments)
    assert layout(ours) == layout(theirs)
    assert ours.head_hidden_size == theirs.head_hidden_size
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        assert same(ours(image), theirs(image))


def test_a_head_without_pooling_scores_every_position():
    theirs, ours, image = pair(TINY, head_hidden_size=48)
    ours.reset_classifier(7, "")
    assert isinstance(ours.head.fc, torch.nn.Conv2d) and ours(image).shape == (2, 7, 2, 2)
    hidden = theirs.head.pre_logits.fc.weight
    assert torch.equal(ours.head.pre_logits.fc.weight.flatten(), hidden.flatten())


def test_checkpointing_changes_nothing_but_memory():
    plain, checkpointed = build("test_convnext", use_grn=True), build("test_convnext", use_grn=True)
    image, stored = harness.random_image(64), []
    harness.randomize(plain, image)
    checkpointed.load_state_dict(plain.state_dict())
    checkpointed.set_grad_checkpointing()
    for model in (plain, checkpointed):
        count = [0]

        def pack(tensor, count=count):
            count[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = model(image)
        out.square().sum().backward()
        stored.append(count[0])
    assert stored[1] < stored[0] / 2
    for (key, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), key


@pytest.mark.parametrize("name", ["test_convnext", "convnextv2_atto", "convnext_zepto_rms_ols"])
def test_traces_and_exports(name):
    model, image = build(name, num_classes=7), harness.random_image(64)
    harness.randomize(model, image)
    with torch.no_grad():
        expected = model(image)
        assert torch.equal(torch.fx.symbolic_trace(model)(image), expected)
        assert torch.equal(torch.export.export(model, (image,), strict=False).module()(image), expected)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "output_stride 4 is not one of 8, 16, 32"),
    (dict(stem_type="patchy"), "unknown stem_type 'patchy'; known: patch, overlap, overlap_tiered, overlap_act"),
    (dict(head_norm_first=True, head_hidden_size=8), "head_norm_first has to be False"),
    (dict(norm_layer="batchnorm2d"), "norm_layer 'batchnorm2d' needs conv_mlp=True: with channels last there are laye"),
    (dict(norm_layer="norm", conv_mlp=True), "unknown norm layer 'norm'"),
    (dict(global_pool="catavgmax"), "global_pool 'catavgmax' changes the width"),
    (dict(act_layer="gelly"), "unknown activation 'gelly'"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        ConvNeXt(**kwargs)


# --- initial weights


@pytest.mark.parametrize("options", [{}, dict(use_grn=True, ls_init_value=None), dict(norm_layer="simplenorm")])
def test_a_model_from_the_meta_device_is_complete(options):
    model = build_on_meta(TINY, **options)
    model.to_empty(device="cpu")
    for tensor in model.parameters():
        tensor.data.fill_(-7)
    model.init_weights()
    assert not any((tensor == -7).any() for tensor in model.parameters())


def test_initial_weights_are_timms_distributions():
    model = build(TINY, use_grn=True, head_init_scale=0.5, head_hidden_size=512, num_classes=2000)
    block = model.stages[3].blocks[0]
    assert (block.gamma == 1e-6).all() and (block.norm.weight == 1).all()
    assert not block.mlp.grn.weight.any() and not block.mlp.grn.bias.any() and not block.conv_dw.bias.any()
    assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.stages[3].downsample[1].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert model.head.pre_logits.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    model.reset_classifier(3000)
    assert model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.02) and not model.head.fc.bias.any()


def test_simple_norm_keeps_the_mean():
    x = torch.tensor([[1.0, 3.0]])
    assert torch.allclose(SimpleNorm(2, eps=0.0)(x), x / 2**0.5)


# --- foreign checkpoints


def key_map_of(state_dict):
    return [key_map.name for key_map in ConvNeXt.key_maps if key_map.matches(state_dict)]


@pytest.mark.parametrize("builder", ["convnext_tiny", *(
    pytest.param(name, marks=pytest.mark.slow) for name in ("convnext_small", "convnext_base", "convnext_large"))])
def test_torchvision_has_the_same_outputs(builder):
    theirs, image = getattr(torchvision.models, builder)(), harness.random_image(64)
    harness.randomize(theirs, image)
    ours = build_on_meta(builder)
    load_weights(ours, theirs.state_dict())  # shares memory with theirs
    with torch.inference_mode():
        expected = theirs(image)
        assert expected.std() > 1e-3 and same(ours(image), expected)


@pytest.mark.parametrize("builder", torchvision.models.list_models(include="convnext*", module=torchvision.models))
def test_torchvisions_keys_become_ours(builder):
    with skeletons():
        state_dict = getattr(torchvision.models, builder)().state_dict()
    ours = build_on_meta(builder)
    assert key_map_of(state_dict) == ["torchvision"] and key_map_of(ours.state_dict()) == []
    converted = ConvNeXt.key_maps[1].convert(state_dict, ours)
    assert {key: value.shape for key, value in converted.items()} == layout(ours)


def to_facebook(state_dict):
    """Our state dict with the keys and shapes of the original repositories, which know linear layers alone."""
    renamed = {}
    for key, value in state_dict.items():
        for old, new in ((r"^stem\.", "downsample_layers.0."), (r"^stages\.(\d)\.downsample", r"downsample_layers.\1"),
                         (r"\.blocks\.", "."), ("conv_dw", "dwconv"), (r"mlp\.fc", "pwconv"), (r"head\.norm", "norm"),
                         (r"mlp\.grn\.weight", "grn.gamma"), (r"mlp\.grn\.bias", "grn.beta"), (r"head\.fc", "head")):
            key = re.sub(old, new, key)
        value = value.flatten(1) if "pwconv" in key and value.ndim == 4 else value
        renamed[key] = value.view(1, 1, 1, -1) if "grn" in key else value
    return renamed


@pytest.mark.parametrize("name", ["test_convnext2", "convnextv2_atto"])  # linear layers, 1x1 convolutions
def test_checkpoints_of_the_original_repositories_load(name):
    theirs, _, _ = pair(name)
    published = to_facebook(theirs.state_dict())
    published |= {"norms.0.weight": torch.ones(4), "projectors.0.weight": torch.ones(4, 4)}
    assert key_map_of(published) == ["facebook"] and "stages.3.0.pwconv1.weight" in published
    ours = build_on_meta(name)
    load_weights(ours, published)
    expected = checkpoint_filter_fn(published, theirs)
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    again = build(name)
    again.load_state_dict(published)
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize("hidden", [None, 48])
def test_image_towers_of_open_clip_load(hidden):
    theirs, _, _ = pair(TINY, head_hidden_size=hidden, num_classes=24)
    state_dict = theirs.state_dict()
    heads = {"head.fc.weight": "mlp.fc2.weight" if hidden else "proj.weight", "head.fc.bias": None,
             "head.pre_logits.fc.weight": "mlp.fc1.weight", "head.pre_logits.fc.bias": "mlp.fc1.bias"}
    published = {"visual.head." + heads[key] if key in heads else "visual.trunk." + key: value
                 for key, value in state_dict.items() if heads.get(key, key)}
    published |= {"logit_scale": torch.ones(()), "text.positional_embedding": torch.ones(7, 4)}
    assert key_map_of(published) == ["open_clip"]
    ours = build_on_meta(TINY, head_hidden_size=hidden, num_classes=24)
    load_weights(ours, published)
    expected = checkpoint_filter_fn(published, theirs)
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())
    assert not ours.head.fc.bias.any() and torch.equal(ours.head.fc.weight, state_dict["head.fc.weight"])


def test_an_encoder_of_a_masked_autoencoder_gets_a_fresh_norm():
    theirs, _, image = pair(TINY, num_classes=0)
    encoder = {key: value for key, value in theirs.state_dict().items() if not key.startswith("head.")}
    ours = build_on_meta(TINY, num_classes=0)
    load_weights(ours, encoder)
    assert (ours.head.norm.weight == 1).all() and not ours.head.norm.bias.any()
    with torch.no_grad():
        assert same(ours.forward_features(image), theirs.forward_features(image))


def test_linear_layers_and_convolutions_exchange_weights():
    theirs, _, image = pair(TINY)
    for options in (dict(conv_mlp=True), dict(global_pool="")):
        ours = build_on_meta(TINY, **options)
        load_weights(ours, theirs.state_dict())
        with torch.no_grad():
            features = [model.forward_features(image) for model in (ours, theirs)]
            assert same(*features)
            if "conv_mlp" in options:
                assert same(ours(image), theirs(image))
