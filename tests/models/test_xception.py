"""Xception, its blocks and those of Aligned Xception: features within blocks, options, files of pretrainedmodels."""

import copy
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.xception import Block as TimmBlock
from torch import nn
from torch.testing import assert_close

import mvlib
from mvlib.models.xception import Block
from mvlib.models.xception_aligned import XceptionAligned
from tests.parity.representatives import REPRESENTATIVES

from .pairs import assert_same_models, image

ALIGNED = REPRESENTATIVES["xception_aligned"]


@pytest.mark.parametrize("args", [(8, 12, 2, 2, False), (8, 12, 3, 2, True, False), (8, 8, 3)])
def test_a_block_is_timms(args):
    torch.manual_seed(0)
    ours, theirs, x = Block(*args), TimmBlock(*args), torch.randn(2, 8, 9, 9)
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_close(ours(x.clone()), theirs(x.clone()))


@pytest.mark.parametrize(("name", "kwargs"), [
    ("xception41", dict(output_stride=8, act_layer=nn.SiLU, global_pool="catavgmax", in_chans=5)),
    ("xception41p", dict(output_stride=16, norm_layer=nn.BatchNorm2d, num_classes=6)),
])
def test_arguments_have_timms_effect(name, kwargs):
    def build(create):  # timm changes the dicts
        return lambda **kwargs: create(name, block_cfg=copy.deepcopy(ALIGNED[name]["block_cfg"]), **kwargs)

    ours = build(partial(mvlib.create_model, pretrained=False))
    assert_same_models(build(timm.create_model), ours, (70, 90), **kwargs)


@pytest.mark.parametrize("name", ALIGNED)
def test_a_block_is_cut_at_its_feature_and_features_keep_it_whole(name):
    torch.manual_seed(0)
    model = mvlib.create_model(name, pretrained=False, **ALIGNED[name]).eval()
    with torch.no_grad():
        expected = model.forward_intermediates(image(), indices=[1], intermediates_only=True)[0]
        features = mvlib.create_model(name, pretrained=False, features_only=True, out_indices=[1], **ALIGNED[name])
        features.load_state_dict(model.state_dict())
        assert torch.equal(features.eval()(image())[0], expected)
        model.prune_intermediate_layers([1])
        assert torch.equal(model(image()), expected)
    cut = {key for key in features.state_dict() if key.startswith(("blocks_1.shortcut", "blocks_1.stack.conv3"))}
    assert cut and {key.replace("_", ".", 1) for key in features.state_dict().keys() - cut} == model.state_dict().keys()


def test_files_of_pretrainedmodels(tmp_path):
    """Its models call the classifier otherwise; its first file has flat pointwise kernels."""
    with torch.no_grad():
        source = mvlib.create_model("legacy_xception", pretrained=False).state_dict()
    flat = {key: value.flatten(1) if "pointwise" in key else value for key, value in source.items()}
    renamed = {key.replace("fc.", "last_linear."): value for key, value in source.items()}
    for file in (flat, renamed):
        save_file(file, tmp_path / "file.safetensors")
        model = mvlib.create_model("legacy_xception", pretrained=False,
                                   checkpoint_path=tmp_path / "file.safetensors")
        assert_close(dict(model.state_dict()), dict(source), rtol=0, atol=0)


def test_an_unknown_output_stride_is_named():
    with torch.device("meta"), pytest.raises(ValueError, match="output_stride is 8, 16 or 32, not 4"):
        XceptionAligned(ALIGNED["xception41"]["block_cfg"], output_stride=4)
