"""GoogLeNet and Inception-v3: what auxiliary heads and the second normalisation ask of the contract."""

import pytest
import torch

import mvlib
from mvlib.errors import ConfigError

SIDE = {"googlenet": 64, "inception_v3": 299}
both = pytest.mark.parametrize("name", SIDE)


def build(name, **kwargs):
    torch.manual_seed(0)
    return mvlib.create_model(name, pretrained=False, **{"transform_input": False, **kwargs})


@both
def test_heads_in_training_alone(name):
    model = build(name, aux_logits=True, num_classes=7)
    image = torch.randn(2, 3, SIDE[name], SIDE[name])
    outputs = model.train()(image)
    assert type(outputs).__name__.endswith("Outputs") and {tuple(o.shape) for o in outputs} == {(2, 7)}
    sum(output.sum() for output in outputs).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.eval()(image).shape == (2, 7)
    assert build(name).train()(image).shape == (2, 1000)


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
    model.reset_classifier(0)
    assert model.eval()(torch.randn(1, 3, SIDE[name], SIDE[name])).shape == (1, model.num_features)
    features = mvlib.create_model(name, features_only=True, out_indices=(0, 2), aux_logits=True)
    assert [f.shape[1] for f in features(torch.randn(1, 3, 96, 96))] == list(features.feature_info.channels())
    assert not [key for key in features.state_dict() if "ux" in key]


@both
def test_transform_input_is_another_normalisation(name):
    plain, model = build(name).eval(), build(name, transform_input=True).eval()
    pixels = torch.rand(1, 3, 96, 96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        found, expected = model((pixels - mean) / std), plain((pixels - 0.5) / 0.5)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    with pytest.raises(ValueError, match="transform_input knows the statistics of 3 channels, not of 1"):
        build(name, transform_input=True, in_chans=1)


@both
def test_exports_and_traces(name):
    model = build(name, transform_input=True).eval()
    image = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        expected = model(image)
        assert torch.equal(torch.fx.symbolic_trace(model)(image), expected)
    exported = torch.export.export(model, (image,)).module()
    assert torch.allclose(exported(image), expected, rtol=1e-4, atol=1e-6)


def test_an_unknown_argument():
    with pytest.raises(ConfigError, match="'googlenet' does not know the argument 'aux_logit'; did you mean 'aux_logi"):
        build("googlenet", aux_logit=True)


@both
def test_files_without_heads_and_heads_of_other_classes(name, tmp_path, caplog):
    path = tmp_path / "weights.pth"
    torch.save(build(name).state_dict(), path)
    model = mvlib.create_model(name, checkpoint_path=path, aux_logits=True)
    assert "it was initialised" in caplog.text and all(p.std() > 0 for p in model.parameters() if p.ndim > 1)
    torch.save(build(name, aux_logits=True).state_dict(), path)
    model = mvlib.create_model(name, checkpoint_path=path, aux_logits=True, num_classes=7)
    assert {model.get_submodule(p).out_features for p in model.classifier_paths} == {7}
