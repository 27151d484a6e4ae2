"""ConvNeXt against timm and torchvision: options, head, initial weights, foreign checkpoints."""

import re
from functools import partial

import pytest
import timm
import torch
from timm.models.convnext import checkpoint_filter_fn

from mvlib.layers.norm import SimpleNorm
from mvlib.loading import load_weights
from mvlib.models.convnext import ConvNeXt
from tests.parity import harness
from tests.skeleton import skeletons

from .pairs import assert_initialised_alike, assert_same, assert_same_effect, build, pair

TINY = "test_convnext2"


def build_on_meta(name, **kwargs):
    with skeletons():
        return build(name, **kwargs)


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
    assert_same_effect(TINY, size, **kwargs)


def test_a_head_without_pooling_scores_every_position():
    ours, theirs, image = pair(TINY, head_hidden_size=48)
    ours.reset_classifier(7, "")
    assert isinstance(ours.head.fc, torch.nn.Conv2d) and ours(image).shape == (2, 7, 2, 2)
    hidden = theirs.head.pre_logits.fc.weight
    assert torch.equal(ours.head.pre_logits.fc.weight.flatten(), hidden.flatten())


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


def test_initial_weights_are_timms_distributions():
    kwargs = dict(use_grn=True, head_init_scale=0.5, head_hidden_size=512, num_classes=2000)
    assert_initialised_alike(partial(build, TINY), partial(timm.create_model, TINY), **kwargs)
    model = build(TINY, **kwargs)
    model.reset_classifier(3000)
    assert model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.02) and not model.head.fc.bias.any()


def test_simple_norm_keeps_the_mean():
    x = torch.tensor([[1.0, 3.0]])
    assert torch.allclose(SimpleNorm(2, eps=0.0)(x), x / 2**0.5)


# --- foreign checkpoints


def key_map_of(state_dict):
    return [key_map.name for key_map in ConvNeXt.key_maps if key_map.matches(state_dict)]


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
    _, theirs, _ = pair(name)
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
    _, theirs, _ = pair(TINY, head_hidden_size=hidden, num_classes=24)
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
    _, theirs, image = pair(TINY, num_classes=0)
    encoder = {key: value for key, value in theirs.state_dict().items() if not key.startswith("head.")}
    ours = build_on_meta(TINY, num_classes=0)
    load_weights(ours, encoder)
    assert (ours.head.norm.weight == 1).all() and not ours.head.norm.bias.any()
    with torch.no_grad():
        assert harness.relative_difference(ours.forward_features(image), theirs.forward_features(image)) < 1e-5


def test_linear_layers_and_convolutions_exchange_weights():
    _, theirs, image = pair(TINY)
    for options in (dict(conv_mlp=True), dict(global_pool="")):
        ours = build_on_meta(TINY, **options)
        load_weights(ours, theirs.state_dict())
        with torch.no_grad():
            features = [model.forward_features(image) for model in (ours, theirs)]
            assert harness.relative_difference(*features) < 1e-5
            if "conv_mlp" in options:
                assert_same(ours, theirs, image)
