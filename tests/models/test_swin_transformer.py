"""What is special to Swin: windows of all kinds, resizing, checkpoints of other layouts. More is in tests/parity."""

import copy
import functools

import pytest
import torch
from timm.models import swin_transformer as timm_swin
from timm.models import swin_transformer_v2 as timm_swin_v2
from torchvision.models import swin_transformer as tv_swin

import mvlib
from mvlib.loading import load_weights
from mvlib.models import swin_transformer, swin_transformer_v2
from mvlib.models.swin_transformer import SwinTransformer
from mvlib.models.swin_transformer_v2 import SwinTransformerV2
from tests.parity.harness import build_ours, build_timm, randomize, relative_difference

from . import pairs
from .pairs import assert_same, image

SMALL = dict(img_size=64, num_classes=7, embed_dim=16, depths=(2, 2, 2), num_heads=(1, 2, 4), drop_path_rate=0.0)


def pair(**kwargs):
    """Our model and timm's, with the same random weights."""
    return pairs.pair_of(timm_swin.SwinTransformer, SwinTransformer, **{**SMALL, **kwargs})[:2]


@pytest.mark.parametrize("kwargs", [
    dict(window_size=4),
    dict(window_size=(4, 2)),
    dict(window_size=(2, 8, 4)),
    dict(window_size=((4, 2), (2, 4), (2, 2))),
    dict(window_size=5),  # padded
    dict(window_size=7, always_partition=True),
    dict(head_dim=12, qkv_bias=False, mlp_ratio=(2.0, 3.0, 4.0)),
    dict(global_pool="catavgmax"),
    dict(global_pool=""),
    dict(num_classes=0),
], ids=str)
def test_arguments_have_timms_effect(kwargs):
    pairs.assert_same_models(timm_swin.SwinTransformer, SwinTransformer, **{**SMALL, **kwargs})


@pytest.mark.parametrize("img_size", [(64, 96), (52, 76), (4, 4)])
def test_sizes_that_windows_do_not_divide(img_size):
    assert_same(*pairs.pair_of(timm_swin.SwinTransformer, SwinTransformer, img_size, **{
        **SMALL, "img_size": img_size, "window_size": 4}))


@pytest.mark.parametrize("dynamic", [dict(strict_img_size=False), dict(dynamic_img_size=True)])
def test_dynamic_size(dynamic):
    ours, theirs = pair(window_size=4, **dynamic)
    for size in (64, (48, 100), 128):
        assert_same(ours, theirs, image(size))
    assert ours.layers[0].blocks[1].attn_mask is None


@pytest.mark.parametrize("model_class", [SwinTransformer, SwinTransformerV2])
def test_what_a_refused_size_advises_works(model_class):
    options, x = {}, image((54, 61))
    for advice in ({"dynamic_img_size": True, "dynamic_img_pad": True}, {"dynamic_img_pad": True}):
        with pytest.raises(ValueError, match="54 x 61.* " + ", ".join(f"{key}=True" for key in advice)):
            model_class(**SMALL, **options)(x)
        assert model_class(**SMALL, **advice)(x).shape == (2, 7)
        options = {"dynamic_img_size": True}
    assert model_class(**{**SMALL, "img_size": (54, 61)})(x).shape == (2, 7)
    padded = torch.nn.functional.pad(x, (0, 3, 0, 2))
    model = model_class(**SMALL, dynamic_img_pad=True).eval()
    assert torch.equal(model(x), model(padded))
    with pytest.raises(ValueError, match="96 x 96, .* img_size= or dynamic_img_size=True$"):
        model_class(**SMALL)(image(96))


@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t"])
@pytest.mark.parametrize("size", [(230, 250), (32, 96), (68, 20)])
def test_any_size_as_torchvision_takes_it(name, size):
    ours, theirs = torchvision_pair(name)
    for batch in (1, 2):
        assert_same(ours, theirs, image(size, batch))
        if not torch.__version__.startswith("2.5."):  # whose fx cannot trace a roll by what depends on the size
            assert_same(torch.fx.symbolic_trace(ours), theirs, image(size, batch))


@functools.cache
def torchvision_pair(name):
    """Two stages of two blocks are enough: windows and shifts follow from the maps' sizes."""
    small = dict(num_classes=7, embed_dim=24, depths=[2, 2], num_heads=[1, 2])
    window, model_class, more = 7, SwinTransformer, {}
    if name == "swin_v2_t":
        window, model_class = 8, SwinTransformerV2
        more = dict(block=tv_swin.SwinTransformerBlockV2, downsample_layer=tv_swin.PatchMergingV2)
    theirs = tv_swin.SwinTransformer(patch_size=[4, 4], window_size=[window] * 2, **small, **more)
    randomize(theirs, image())
    ours = model_class(**small, window_size=window, fixed_windows=True).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def test_fixed_windows_stay():
    ours, theirs = torchvision_pair("swin_t")
    before = copy.deepcopy(ours)
    before.set_input_size(img_size=(230, 250))
    assert_same(before, theirs, image((230, 250)))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "coatnet_nano_rw_224"])
def test_attributes_that_timm_has(name):
    ours, theirs = build_ours(name), build_timm(name, meta=True)
    for key in ("output_fmt", "num_layers", "global_pool", "num_features", "embed_dim", "head_hidden_size"):
        if hasattr(theirs, key):
            assert getattr(ours, key) == getattr(theirs, key)
    ours.reset_classifier(3, "max")
    assert ours.global_pool == "max"


@pytest.mark.parametrize("change", [
    dict(img_size=(96, 128)),
    dict(img_size=128, window_size=8),
    dict(window_size=(2, 4)),
    dict(window_ratio=4),
    dict(window_ratio=(2, 4, 4)),
    dict(patch_size=8),
    dict(img_size=32, always_partition=True),
], ids=str)
def test_set_input_size(change):
    ours, theirs = pair(window_size=4)
    pairs.assert_same_resized(ours, theirs, **change)
    assert [info["reduction"] for info in ours.feature_info] == [info["reduction"] for info in theirs.feature_info]
    for model in (ours, theirs):  # and again: the windows keep their proportion to the grid
        model.set_input_size(img_size=160)
    assert [b.window_size for s in ours.layers for b in s.blocks] == \
        [b.window_size for s in theirs.layers for b in s.blocks]


def test_set_input_size_is_remembered_for_saving():
    model = mvlib.create_model("swin_tiny_patch4_window7_224", pretrained=False, **SMALL)
    model.set_input_size(img_size=128, window_size=8)
    assert model.model_args["img_size"] == (128, 128)
    rebuilt = SwinTransformer(**model.model_args)
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(window_size=(7, 7, 7, 7)), r"window_size \(7, 7, 7, 7\) is not a positive size, .* for each of 3 stages"),
    (dict(window_size=0), "window_size 0 is not a positive size"),
    (dict(weight_init="zeros"), "weight_init 'zeros' is not one of"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SwinTransformer(**{**SMALL, **arguments})


@pytest.mark.parametrize("change", [dict(window_ratio=(2, 2)), dict(window_ratio=0), dict(window_size=(7, 7, 7, 7))])
def test_bad_resize_changes_nothing(change):
    model = SwinTransformer(**SMALL)
    with pytest.raises(ValueError, match="is not a positive .* 3 stages"):
        model.set_input_size(img_size=128, **change)
    assert tuple(model.patch_embed.img_size) == (64, 64)
    model(image())


# checkpoints

@pytest.mark.parametrize("change", [
    dict(window_size=8), dict(window_size=(4, 2)), dict(img_size=32), dict(patch_size=8)], ids=str)
def test_weights_are_resampled_as_timm_does(change):
    source = timm_swin.SwinTransformer(**SMALL, window_size=4)
    randomize(source, image())
    ours, theirs = SwinTransformer(**{**SMALL, "window_size": 4, **change}), \
        timm_swin.SwinTransformer(**{**SMALL, "window_size": 4, **change})
    expected = timm_swin.checkpoint_filter_fn(source.state_dict(), theirs)
    pairs.assert_fitted(source.state_dict(), expected, ours, theirs)


def as_microsoft(state_dict):
    """The original repository's layout: patch merging ends a stage, buffers are saved, the head is one layer."""
    moved = {}
    for key, value in state_dict.items():
        parts = key.split(".")
        if parts[2:3] == ["downsample"]:
            parts[1] = str(int(parts[1]) - 1)
        moved[".".join(parts).replace("head.fc.", "head.")] = value
    moved["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16)
    moved["layers.0.blocks.1.attn_mask"] = torch.zeros(16, 16, 16)
    return moved


@pytest.mark.parametrize("with_head", [True, False])
def test_microsoft_layout(with_head):
    ours, theirs = pair(**({} if with_head else {"num_classes": 0}))
    foreign = as_microsoft(theirs.state_dict())
    expected = timm_swin.checkpoint_filter_fn(dict(foreign), theirs)
    assert expected.keys() == ours.state_dict().keys()
    fresh = SwinTransformer(**{**SMALL, "num_classes": ours.num_classes}).eval()
    load_weights(fresh, foreign)
    assert_same(fresh, theirs, image())


# the contract, where windows touch it


@pytest.mark.parametrize("mode", ["", "jax", "jax_nlhb", "moco", "reset"])
def test_initial_weights_are_distributed_as_timms(mode):
    pairs.assert_initialised_alike(SwinTransformer, timm_swin.SwinTransformer,
                                   **{**SMALL, "embed_dim": 64, "weight_init": mode})


def build_block(module, name, **kwargs):
    return getattr(module, name)(16, (8, 8), 2, window_size=4, **kwargs).eval()


@pytest.mark.parametrize(("ours", "theirs", "name"), [
    (swin_transformer, timm_swin, "SwinTransformerBlock"),
    (swin_transformer_v2, timm_swin_v2, "SwinTransformerV2Block")])
def test_a_block_by_itself_is_timms(ours, theirs, name):
    """Its own initial values, attributes, and what it computes."""
    own, other = (build_block(module, name, shift_size=2) for module in (ours, theirs))
    own.load_state_dict(other.state_dict())
    assert_same(own, other, torch.randn(2, 8, 8, 16))
    for key in "dim input_resolution mlp_ratio shift_size target_shift_size window_area window_size".split():
        assert getattr(own, key) == getattr(other, key), key
    for key in ("dim", "num_heads", "window_size"):
        assert getattr(own.attn, key) == getattr(other.attn, key), key
    assert relative_difference(own.attn_mask, other.attn_mask) == 0
    assert build_block(ours, name).attn_mask is None
    x = torch.randn(3, 8, 8, 5)
    windows = [module.window_partition(x, (4, 2)) for module in (swin_transformer, theirs)]
    assert torch.equal(*windows) and torch.equal(swin_transformer.window_reverse(windows[0], (4, 2), 8, 8), x)


def test_a_stage_by_itself_is_timms():
    kwargs = dict(dim=8, out_dim=16, input_resolution=(8, 8), depth=2, num_heads=2, head_dim=4, window_size=2)
    own, other = (module.SwinTransformerStage(**kwargs).eval() for module in (swin_transformer, timm_swin))
    own.load_state_dict(other.state_dict())
    assert_same(own, other, torch.randn(2, 8, 8, 8))
    for key in ("dim", "depth", "input_resolution", "output_resolution"):
        assert getattr(own, key) == getattr(other, key)
