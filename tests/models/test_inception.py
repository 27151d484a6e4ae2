"""GoogLeNet and Inception-v3: what auxiliary heads and the second normalisation ask of the contract.

tests/parity/test_torchvision.py compares them with torchvision's, a step of training too.
"""

import pytest
import timm
import torch
from timm.models._manipulate import group_parameters

import mvlib
from mvlib.errors import ConfigError
from mvlib.models.inception_v3 import InceptionV3
from tests.parity import harness
from tests.skeleton import skeletons

from .pairs import assert_same_effect

SIDE = {"googlenet": 64, "inception_v3": 299}
both = pytest.mark.parametrize("name", SIDE)


def build(name, **kwargs):
    torch.manual_seed(0)
    return mvlib.create_model(name, pretrained=False, **{"transform_input": False, **kwargs})


@both
def test_a_state_dict_with_heads_fits_a_model_without(name, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(build(name, aux_logits=True).state_dict(), path)
    plain = mvlib.create_model(name, checkpoint_path=path)
    assert not plain.aux_logits and not [key for key in plain.state_dict() if "ux" in key]
    with_heads = mvlib.create_model(name, checkpoint_path=path, aux_logits=True)
    assert [key for key in with_heads.state_dict() if "ux" in key]


@both
def test_reset_and_prune_know_the_heads(name):
    model = build(name, aux_logits=True)
    model.reset_classifier(5)
    outputs = model.train()(torch.randn(2, 3, SIDE[name], SIDE[name]))
    assert {output.shape[1] for output in outputs} == {5}
    assert build(name, num_classes=5).train()(torch.randn(2, 3, 96, 96)).shape == (2, 5)
    model.reset_classifier(0)
    assert model.eval()(torch.randn(1, 3, SIDE[name], SIDE[name])).shape == (1, model.num_features)
    features = mvlib.create_model(name, features_only=True, out_indices=(0, 2), aux_logits=True)
    assert [f.shape[1] for f in features(torch.randn(1, 3, 96, 96))] == list(features.feature_info.channels())
    assert not [key for key in features.state_dict() if "ux" in key]


@pytest.mark.slow
@both
def test_transform_input_is_another_normalisation(name):
    plain, model = build(name).eval(), build(name, transform_input=True).eval()
    pixels = torch.rand(1, 3, 96, 96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    image = (pixels - mean) / std
    with torch.inference_mode():
        found, expected = model(image), plain((pixels - 0.5) / 0.5)
        assert torch.equal(torch.fx.symbolic_trace(model)(image), found)
    torch.testing.assert_close(torch.export.export(model, (image,)).module()(image), found, rtol=1e-4, atol=1e-6)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    with pytest.raises(ValueError, match="transform_input knows the statistics of 3 channels, not of 1"):
        build(name, transform_input=True, in_chans=1)


def test_an_unknown_argument():
    with pytest.raises(ConfigError, match="'googlenet' does not know the argument 'aux_logit'; did you mean 'aux_logi"):
        build("googlenet", aux_logit=True)


@pytest.mark.slow
@both
def test_files_without_heads_and_heads_of_other_classes(name, tmp_path, caplog):
    path = tmp_path / "weights.pth"
    torch.save(build(name).state_dict(), path)
    model = mvlib.create_model(name, checkpoint_path=path, aux_logits=True)
    assert "it was initialised" in caplog.text and all(p.std() > 0 for p in model.parameters() if p.ndim > 1)
    torch.save(build(name, aux_logits=True).state_dict(), path)
    model = mvlib.create_model(name, checkpoint_path=path, aux_logits=True, num_classes=7)
    assert {model.get_submodule(p).out_features for p in model.classifier_paths} == {7}


def test_layers_for_learning_rates_follow_depth():
    model = build("googlenet", aux_logits=True)
    layers = group_parameters(model, model.group_matcher())
    depth = {name.removesuffix(".weight"): i for i, names in layers.items() for name in names}
    order = [depth[name] for name in ("conv1.conv", "inception3a.branch1.conv", "inception4d.branch1.conv",
                                      "inception5b.branch1.conv", "fc")]
    assert order == sorted(set(order)) and depth["conv3.conv"] == depth["conv1.conv"]


# Inception-v3 is timm's too


@pytest.mark.slow
@pytest.mark.parametrize("kwargs", [{"act_layer": "silu"}, {"norm_eps": 1e-5}, {"norm_layer": "layernorm2d"},
                                    {"global_pool": "catavgmax", "num_classes": 7}], ids=str)
def test_timms_arguments(kwargs):
    assert_same_effect("inception_v3", 96, **kwargs)


@pytest.mark.slow
def test_a_step_of_training_with_timms_head():
    theirs, image, report = timm.create_model("inception_v3", aux_logits=True), harness.random_image(299), \
        harness.Report("inception_v3")
    harness.randomize(theirs, image)
    harness.check_gradients(report, harness.Pair("inception_v3", theirs, image, dict(aux_logits=True)))
    assert report.ok, report.problems


def test_only_the_head_tells_the_state_dicts_apart():
    with skeletons():
        plain, whole = InceptionV3(), InceptionV3(aux_logits=True)
        theirs = timm.create_model("inception_v3", aux_logits=True)
    assert whole.state_dict().keys() == theirs.state_dict().keys()
    assert whole.state_dict().keys() - plain.state_dict() == {key for key in whole.state_dict() if "AuxLogits." in key}
    assert plain.AuxLogits is None and plain.fit_state_dict(whole.state_dict()).keys() == plain.state_dict().keys()
