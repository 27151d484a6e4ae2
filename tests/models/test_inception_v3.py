"""Inception-v3 against torchvision and timm: a step of training with the auxiliary head, odd sizes, odd arguments."""

import pytest
import timm
import torch
import torchvision

from mvlib.models.inception_v3 import InceptionOutputs, InceptionV3
from tests.parity import harness
from tests.skeleton import skeletons

DIFFERENCE = harness.relative_difference


def torchvisions():
    return torchvision.models.inception_v3(aux_logits=True, init_weights=False, dropout=0.0)


def timms(**kwargs):
    return timm.create_model("inception_v3", **kwargs)


def image_of(*size, batch=2):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def theirs():
    """torchvision's model with random weights and its head, no dropout."""
    model = torchvisions()
    harness.randomize(model, image_of(299, 299))
    return model


def build(theirs, **kwargs):
    model = InceptionV3(**kwargs)
    model.load_state_dict(model.fit_state_dict(theirs.state_dict()))
    return model


def step(model, image):
    """One step of training: what the model returned, and what the step left in gradients and running statistics."""
    model.train().zero_grad()
    outputs = model(image)
    sum(weight * output.square().mean() for weight, output in zip((1.0, 0.4), outputs)).backward()
    return outputs, {name: p.grad.clone() for name, p in model.named_parameters()}, dict(model.named_buffers())


@pytest.mark.parametrize("other", [torchvisions, lambda: timms(aux_logits=True)], ids=["torchvision", "timm"])
def test_a_step_of_training_is_theirs(other, theirs):
    reference = other()
    reference.load_state_dict(theirs.state_dict())
    ours, image = build(theirs, aux_logits=True), image_of(299, 299)
    outputs, gradients, buffers = step(ours, image)
    expected, their_gradients, their_buffers = step(reference, image)
    assert isinstance(outputs, InceptionOutputs) and len(expected) == 2
    for output, value in zip(outputs, expected):
        assert value.std(0).mean() > 1e-3 and DIFFERENCE(output, value) < 1e-5
    assert gradients.keys() == their_gradients.keys() and buffers.keys() == their_buffers.keys()
    assert max(DIFFERENCE(gradients[name], their_gradients[name]) for name in gradients) < 1e-4
    assert max(DIFFERENCE(buffers[name].float(), their_buffers[name].float()) for name in buffers) < 1e-5


@pytest.mark.parametrize("size", [(75, 75), (97, 130), (299, 299)])
@pytest.mark.parametrize("transform_input", [False, True])
def test_outputs_at_odd_sizes_are_torchvisions(theirs, size, transform_input, monkeypatch):
    monkeypatch.setattr(theirs, "transform_input", transform_input)
    image = image_of(*size)
    with torch.inference_mode():
        expected = theirs.eval()(image)
        assert DIFFERENCE(build(theirs, transform_input=transform_input).eval()(image), expected) < 1e-5
        assert torch.equal(build(theirs, aux_logits=True).eval()(image), build(theirs).eval()(image))
    assert expected.std(0).mean() > 1e-5


@pytest.mark.parametrize("kwargs", [{"act_layer": "silu"}, {"norm_eps": 1e-5}, {"norm_layer": "layernorm2d"},
                                    {"global_pool": "catavgmax", "num_classes": 7}], ids=str)
def test_timms_arguments(kwargs):
    reference, image = timms(**kwargs), image_of(96, 96)
    harness.randomize(reference, image)
    ours = InceptionV3(**kwargs).eval()
    ours.load_state_dict(reference.state_dict())
    with torch.inference_mode():
        expected = reference(image)
        assert expected.std(0).mean() > 1e-5 and DIFFERENCE(ours(image), expected) < 1e-5


def test_only_the_head_tells_the_state_dicts_apart():
    with skeletons():
        plain, whole = InceptionV3(), InceptionV3(aux_logits=True)
        reference = timms(aux_logits=True)
    shapes = {key: value.shape for key, value in whole.state_dict().items()}
    assert shapes == {key: value.shape for key, value in reference.state_dict().items()}
    assert set(shapes) - set(plain.state_dict()) == {key for key in shapes if key.startswith("AuxLogits.")}
    assert plain.AuxLogits is None and plain.fit_state_dict(whole.state_dict()).keys() == plain.state_dict().keys()
