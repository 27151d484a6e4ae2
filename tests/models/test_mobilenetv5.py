"""MobileNetV5: which maps are fused and how, Gemma's files, an encoder that classifies nothing."""

import pytest
import timm
import torch

import mvlib
from mvlib.loading import load_weights
from mvlib.models.mobilenetv5 import MobileNetV5MultiScaleFusionAdapter

from ..parity.representatives import REPRESENTATIVES
from .pairs import assert_same_models, build, image

THEIRS = timm.models.mobilenetv5
TINY = REPRESENTATIVES["mobilenetv5"]["mobilenetv5_base"]
ENCODER = REPRESENTATIVES["mobilenetv5"]["mobilenetv5_300m_enc"]


@pytest.mark.parametrize("arguments", [
    dict(msfa_indices=(0, 2, 3), msfa_output_resolution=8),  # the stem's, and not the last
    dict(msfa_indices=(-1,), msfa_output_resolution=2, global_pool="catavgmax"),
    dict(use_msfa=False, global_pool="max", act_layer="relu", norm_layer="batchnorm2d", stem_bias=False),
    dict(norm_layer="batchnorm2d", pad_type="same", stem_size=24, fix_stem=True, layer_scale_init_value=0.5),
])
def test_arguments_have_timms_effect(arguments):
    assert_same_models(THEIRS.MobileNetV5, mvlib.models.MobileNetV5, 64, **{**TINY, **arguments})


@pytest.mark.parametrize("size", [(4, 8), (3, 5), (8, 8), (16, 4)])
@torch.no_grad()
def test_the_fusion_resizes_as_timms(size):
    arguments = dict(in_chs=[8, 16], out_chs=24, output_resolution=(4, 4), layer_scale_init_value=0.1, noskip=False)
    ours = MobileNetV5MultiScaleFusionAdapter(**arguments)
    theirs = THEIRS.MobileNetV5MultiScaleFusionAdapter(**arguments)
    theirs.load_state_dict(ours.state_dict())
    maps = [torch.randn(2, 8, *size), torch.randn(2, 16, size[0] // 2, size[1] // 2)]
    torch.testing.assert_close(ours(maps), theirs(maps), rtol=1e-5, atol=1e-6)


def test_narrow_models_keep_the_stem():
    for name in ("mobilenetv5_base", "mobilenetv5_300m_enc"):
        ours, theirs = ({key: value.shape for key, value in library.create_model(
            name, channel_multiplier=0.125, device="meta").state_dict().items()} for library in (mvlib, timm))
        assert ours == theirs


def test_gemmas_files_load():
    model, other = (build("mobilenetv5_300m_enc", **ENCODER) for _ in range(2))
    state_dict = model.state_dict()
    foreign = {f"model.vision_tower.timm_model.{key}": value for key, value in state_dict.items()}
    foreign["model.embed_vision.embedding.weight"] = torch.zeros(2, 2)
    assert THEIRS.checkpoint_filter_fn(dict(foreign), None).keys() == state_dict.keys()
    load_weights(other, foreign)
    assert all(torch.equal(value, state_dict[key]) for key, value in other.state_dict().items())


def test_the_encoder_has_no_head():
    with pytest.warns(UserWarning, match="num_classes and global_pool have no effect; 'mobilenetv5_300m' has them"):
        model = build("mobilenetv5_300m_enc", num_classes=10, **ENCODER)
    assert model.num_classes == 0 and model(image(64)).shape == (2, 2048, 16, 16)
    with pytest.raises(NotImplementedError, match="forward_features gives its features"):
        model.forward_head(model.forward_features(image(64)))
    with pytest.raises(ValueError, match="has no pooling and no classifier; 'mobilenetv5_300m' has them"):
        model.reset_classifier(10)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(msfa_indices=(-2, 5)), "feature indices .* are out of range: the model has 5 features"),
    (dict(output_stride=16), "output_stride is 32 for a MobileNetV5, not 16"),
])
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.create_model("mobilenetv5_base", device="meta", **arguments)
