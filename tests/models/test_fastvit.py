"""FastViT: what becomes single convolutions, files with branches and merged, of the authors and of OpenCLIP."""

import copy
from functools import partial

import pytest
import torch
from timm.models import fastvit as timms
from torch.testing import assert_close

import mvlib
from mvlib.layers import reparameterize
from mvlib.loading import load_weights
from mvlib.models.fastvit import FastVit, MobileOneBlock, RepConditionalPosEnc
from tests.parity import harness

from .pairs import assert_same_models, pair_of

TINY = dict(layers=(2, 1), embed_dims=(16, 32), token_mixers=("repmixer", "attention"), se_downsamples=(False, True))


def build(library, **kwargs):
    encoding = timms.RepConditionalPosEnc if library is timms else RepConditionalPosEnc
    maker = timms.FastVit if library is timms else FastVit
    return maker(**{**TINY, "pos_embs": (None, partial(encoding, spatial_shape=(7, 7))), "num_classes": 7, **kwargs})


BUILD_TIMM, BUILD_OURS = partial(build, timms), partial(build, mvlib)


@pytest.mark.parametrize("kwargs", [
    dict(lkc_use_act=True, in_chans=5, cls_ratio=1, global_pool="max"),
    dict(layer_scale_init_value=None, stem_use_scale_branch=False, repmixer_kernel_size=5, down_patch_size=5),
    dict(inference_mode=True),
])
def test_arguments_have_timms_effect(kwargs):
    assert_same_models(BUILD_TIMM, BUILD_OURS, (70, 90), **kwargs)


@pytest.mark.parametrize("scale", [1e-5, None])
def test_what_is_merged_is_what_timm_merges(scale):
    model, theirs, x = pair_of(BUILD_TIMM, BUILD_OURS, layer_scale_init_value=scale)
    expected, merged = model(x), copy.deepcopy(model)
    assert reparameterize(merged) == 9 and reparameterize(merged) == 0
    assert all(m.is_reparameterized for m in merged.modules() if isinstance(m, MobileOneBlock))
    assert harness.relative_difference(merged(x), expected) < 1e-5
    made_merged = BUILD_OURS(inference_mode=True, layer_scale_init_value=scale)
    made_by_timm = BUILD_TIMM(inference_mode=True, layer_scale_init_value=scale)
    shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (merged, made_merged, made_by_timm)]
    assert shapes[0] == shapes[1] == shapes[2]
    assert harness.relative_difference(timms_merged(theirs)(x), expected) < 1e-5

    optimized, report = mvlib.optimize(model, x, compile="off")
    assert report["reparameterize"].done and harness.relative_difference(optimized(x), expected) < 1e-4

    for loaded in (BUILD_OURS(layer_scale_init_value=scale), made_merged):
        load_weights(loaded, dict(merged.state_dict()))
        assert harness.relative_difference(loaded.eval()(x), expected) < 1e-5


def timms_merged(model):
    for module in model.modules():
        if hasattr(module, "reparameterize") and not getattr(module, "reparam_conv", None):
            module.reparameterize()
    return model


def authors_keys(state_dict):
    """The authors' keys for those of `TINY`: stages are one list, with downsampling and positions in it."""
    renamed = {}
    for key, value in state_dict.items():
        for ours, theirs in (
            ("stages.0.blocks.", "network.0."), ("stages.1.downsample.proj.", "network.1.proj."),
            ("stages.1.pos_emb.pos_enc.", "network.2.pe."), ("stages.1.blocks.", "network.3."),
            (".conv_kxk.", ".rbr_conv."), (".conv_scale.", ".rbr_scale."), (".identity.", ".rbr_skip."),
            ("large_conv", "lkb_origin"), ("final_conv", "conv_exp"), (".mlp.", ".convffn."), (".gamma", ""),
            ("se.fc1", "se.reduce"), ("se.fc2", "se.expand"), ("head.fc.", "head."),
        ):
            key = key.replace(ours, theirs)
        renamed["patch_embed" + key[4:] if key.startswith("stem.") else key] = value
    return renamed


@pytest.mark.parametrize("layout", ["authors", "tower", "clip"])
def test_files_of_other_layouts(layout):
    model, theirs, x = pair_of(BUILD_TIMM, BUILD_OURS)
    source = theirs.state_dict()
    if layout == "clip":
        file = {f"module.visual.trunk.{key}": value for key, value in source.items()} | {"logit_scale": torch.ones(1)}
    else:
        file = authors_keys(source)
    if layout == "tower":
        projection = file.pop("head.weight").T
        file.pop("head.bias")
        file = {f"image_encoder.model.{key}": value for key, value in file.items()}
        file |= {"image_encoder.model.head.proj": projection, "text_encoder.weight": torch.ones(1)}
        source["head.fc.bias"].zero_()
    assert timms.checkpoint_filter_fn(file, theirs).keys() == source.keys()
    fresh = BUILD_OURS()
    load_weights(fresh, file)
    assert_close(dict(fresh.state_dict()), dict(source), rtol=0, atol=0)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(token_mixers=("repmixer", "conv")), "unknown token mixer 'conv'; known: 'repmixer', 'attention'"),
    (dict(embed_dims=(16,)), "have a value for each of the 2 stages of layers"),
    (dict(embed_dims=(16, 48)), "48 channels cannot be divided into heads of 32"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        BUILD_OURS(**kwargs)


@pytest.mark.parametrize("name", ["fastvit_mci3", "fastvit_mci4", "fastvit_t8"])
def test_features_are_those_of_four_stages_unless_asked(name):
    ours, theirs = (build(name, features_only=True).feature_info for build in (
        harness.build_ours, partial(harness.build_timm, meta=True)))
    assert ours.channels() == theirs.channels() and len(ours.channels()) == 4
    assert len(harness.build_ours("fastvit_mci3", features_only=True, out_indices=(0, 4)).feature_info.channels()) == 2
