"""VOLO: classifiers of class token and patches, tokens that are mixed, other sizes."""

import pytest
import torch
from timm.models import volo as theirs_of
from torch import nn

from mvlib.models import volo

from .pairs import assert_same, assert_same_effect, assert_same_models, build, image, pair

NAME = "volo_d1_224"
TINY = dict(layers=(1, 2, 1, 1), embed_dims=(8, 16, 16, 16), num_heads=(1, 2, 2, 2), img_size=64, stem_hidden_dim=8)


@pytest.mark.parametrize("kwargs", [
    dict(img_size=(64, 96), patch_size=4, global_pool="avg", num_classes=3, in_chans=1, qkv_bias=True),
    dict(post_layers=("ca",), global_pool="", use_aux_head=False, norm_layer=nn.RMSNorm),
    dict(layers=(1, 1), embed_dims=(8, 8), num_heads=(1, 1), downsamples=(False, False), global_pool="avg"),
    dict(outlook_attention=(True, False, True, False), num_classes=0, stem_hidden_dim=4),
], ids=str)
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect(NAME, kwargs.get("img_size", 64), **{**TINY, **kwargs})


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_without_a_class_token_the_first_patch_stands_for_it(pool):
    assert_same_models(theirs_of.VOLO, lambda **kwargs: volo.VOLO(**kwargs).eval(), post_layers=None, global_pool=pool,
                       mlp_ratio=(1, 2, 3, 4), **TINY)


@pytest.mark.parametrize("indices", [[0], [1], [0, 2], [3]])
def test_pruned_models_keep_the_norm_that_fits(indices):
    ours, theirs, x = pair(NAME, **TINY)
    for model in (ours, theirs):
        model.prune_intermediate_layers(indices)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_same(ours, theirs, x)
    with pytest.raises(ValueError, match="global_pool 'token' needs a class token, which this model does not have"):
        ours.reset_classifier(3, "token")


@pytest.mark.parametrize("mixes", [True, False])
def test_training_with_mixed_tokens(mixes):
    ours, theirs, x = pair(NAME, use_mix_token=mixes, **TINY)
    results = []
    for model in (ours.train(), theirs.train()):
        torch.manual_seed(7)
        results.append(model.forward_train(x))
    assert results[0][2] == results[1][2]
    assert (results[0][2] != (0, 0, 0, 0)) == mixes
    for own, other in zip(results[0][:2], results[1][:2]):
        torch.testing.assert_close(own, other)
    torch.testing.assert_close(ours.eval().forward_train(x), theirs.eval()(x))  # timm's own refuses to


def test_boxes_are_timms():
    for seed in range(20):
        boxes = []
        for function in (volo.rand_bbox, theirs_of.rand_bbox):
            torch.manual_seed(seed)
            boxes.append(function((2, 24, 17, 8), torch.rand(()), scale=2))
        assert boxes[0] == boxes[1]


def test_weights_of_another_size_or_with_more_parts(tmp_path):
    ours, theirs, _ = pair(NAME, **TINY)
    torch.save(theirs.state_dict(), tmp_path / "volo.pth")
    wide = build(NAME, checkpoint_path=tmp_path / "volo.pth", **{**TINY, "img_size": (64, 96)})
    expected = nn.functional.interpolate(theirs.pos_embed.permute(0, 3, 1, 2), size=(4, 6), mode="bicubic")
    torch.testing.assert_close(wide.pos_embed, expected.permute(0, 2, 3, 1))
    torch.testing.assert_close(wide.head.weight, theirs.head.weight)
    plain = volo.VOLO(use_aux_head=False, post_layers=None, global_pool="avg", **TINY)
    plain.load_state_dict(theirs.state_dict())
    assert {*ours.state_dict()} - {*plain.state_dict()} == {
        key for key in ours.state_dict() if key.startswith(("aux_head", "cls_token", "post_network"))}
    torch.testing.assert_close(plain.norm.weight, theirs.norm.weight)


def test_a_new_classifier_is_two():
    ours, theirs, x = pair(NAME, **TINY)
    for model in (ours, theirs):
        model.reset_classifier(0)
    assert_same(ours, theirs, x)
    for model in (ours, theirs):
        model.reset_classifier(5, "avg")
    assert ours.aux_head.weight.shape == theirs.aux_head.weight.shape == (5, 16)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, x)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(global_pool="max"), "unknown global_pool 'max'; known: '', 'avg', 'token'"),
    (dict(patch_size=7), "patch_size is 4, 8 or 16, not 7"),
    (dict(num_heads=(1, 2)), "embed_dims, num_heads, .* have a value for each of the 4 stages"),
    (dict(embed_dims=None), "embed_dims, num_heads, .* have a value for each of the 4 stages"),
    (dict(embed_dims=(8, 16, 16, 32)), r"channels \(8, 16, 16, 32\) change only where downsamples does: \(True, False"),
    (dict(use_mix_token=True, global_pool="avg"), "use_mix_token needs global_pool 'token', not 'avg'"),
    (dict(post_layers=("sa",)), "unknown block_type 'sa'; known: ca"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        volo.VOLO(**{**TINY, **kwargs})


def test_an_image_of_another_size():
    with pytest.raises(ValueError, match="a map of 6 x 6 has no positions: the model's img_size gives one of 4 x 4"):
        build(NAME, **TINY)(image(96))
