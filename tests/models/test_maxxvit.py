"""What is special to CoAtNet and MaxViT: options, sizes, heads, torchvision's variant. More is in tests/parity."""

import inspect
from functools import partial

import pytest
import timm
import torch
import torchvision
from timm.models import maxxvit as timm_maxxvit
from torch import nn

import mvlib
from mvlib.loading import load_weights
from mvlib.models import maxxvit
from mvlib.models.maxxvit import MaxxVit
from tests.parity.harness import randomize
from tests.skeleton import skeletons

from . import pairs
from .pairs import assert_same, image

MAX, COAT = "test_maxvit", "test_coatnet"
HEAD = dict(head_hidden_size=48)


SMALL = dict(img_size=64, num_classes=7)


def build(name, **kwargs):
    return mvlib.model_entrypoint(name)(**{**SMALL, **kwargs}).eval()


def build_timm(name, **kwargs):
    return timm.create_model(name, **{**SMALL, **kwargs})


def pair(name, **kwargs):
    """Our model and timm's, with the same random weights."""
    return pairs.pair(name, kwargs.get("img_size", 64), **{**SMALL, **kwargs})[:2]


def shapes(model):
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", timm.list_models(module="maxxvit"))
def test_an_architecture_is_built_for_its_image_size(name):
    with skeletons():
        model = getattr(maxxvit, name)()
    assert model.img_size == timm.get_pretrained_cfg(name).input_size[1:]


# options

@pytest.mark.sample(2)
@pytest.mark.parametrize(("name", "kwargs"), [
    (MAX, dict(conv_expand_ratio=2.0, conv_expand_output=True, conv_attn_ratio=0.125)),
    (MAX, dict(conv_kernel_size=5, conv_group_size=8, conv_attn_layer="eca")),
    (MAX, dict(conv_stride_mode="1x1", conv_pool_type="max2", conv_attn_layer="")),
    (MAX, dict(conv_stride_mode="pool", conv_pool_type="avg", conv_downsample_pool_type="max", conv_pre_norm_act=True)),
    (MAX, dict(conv_attn_early=True, conv_attn_act_layer="relu", conv_norm_layer="layernorm2d", conv_norm_eps=1e-2)),
    (MAX, dict(conv_block_type="convnext", conv_norm_layer="layernorm2d", conv_norm_eps=1e-6, conv_stride_mode="pool",
               embed_dim=(32, 64, 128, 256))),
    (MAX, dict(transformer_use_nchw_attn=True, transformer_init_values=0.1)),
    (MAX, dict(transformer_use_nchw_attn=True, transformer_head_first=False, transformer_rel_pos_type="mlp")),
    (MAX, dict(transformer_dim_head=16, transformer_head_first=False, transformer_attn_bias=False)),
    (MAX, dict(transformer_window_size=(2, 1), transformer_grid_size=2, transformer_rel_pos_type="bias_tf")),
    (MAX, dict(transformer_partition_ratio=64, transformer_no_block_attn=True, transformer_norm_layer_cl="rmsnorm")),
    (MAX, dict(img_size=(64, 96), transformer_rel_pos_type="bias_tf")),
    (MAX, dict(block_type=("PM", "M", "C", "T"), transformer_norm_eps=1e-2, stem_width=24, stem_bias=True, **HEAD)),
    (COAT, dict(transformer_expand_first=True, transformer_shortcut_bias=False, transformer_pool_type="max2")),
    (COAT, dict(transformer_rel_pos_type="mlp", transformer_rel_pos_dim=16, transformer_act_layer="relu")),
    (COAT, dict(transformer_rel_pos_type="bias_tf", transformer_expand_ratio=2.0, img_size=(64, 96))),
    (COAT, dict(block_type=("C", ("C", "T"), ("T", "C"), "M"), embed_dim=(32, 32, 64, 64), global_pool="catavgmax")),
    (COAT, dict(num_classes=0, global_pool="max", **HEAD)),
], ids=str)
def test_arguments_have_timms_effect(name, kwargs):
    pairs.assert_same_effect(name, kwargs.get("img_size", 64), **{**SMALL, **kwargs})


@pytest.mark.parametrize("pool", ["max", "max2", "avg", "avg2"])
def test_tensorflow_padding_at_odd_sizes(pool):
    ours = maxxvit.Downsample2d(4, 6, pool, padding="same").eval()
    theirs = timm_maxxvit.Downsample2d(4, 6, pool, padding="same").eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 4, 7, 9)
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours(x).shape == (1, 6, 4, 5)


def test_the_signature_spells_out_every_option_of_timms():
    known = inspect.signature(MaxxVit.__init__).parameters
    for section, config in (("conv", timm_maxxvit.MaxxVitConvCfg), ("transformer", timm_maxxvit.MaxxVitTransformerCfg)):
        for field in inspect.signature(config).parameters.values():
            if (section, field.name) == ("conv", "norm_layer_cl"):  # timm's blocks never look at it
                continue
            assert known[f"{section}_{field.name}"].default == field.default
    assert not any(p.kind is p.VAR_KEYWORD for p in known.values())


@pytest.mark.parametrize(("kwargs", "error", "message"), [
    (dict(conv_block="mb"), TypeError, "unexpected keyword argument 'block'"),
    (dict(window_size=7), TypeError, "unexpected keyword argument 'window_size'"),
    (dict(depths=(1, 1)), ValueError, r"embed_dim .*, depths \(1, 1\) and block_type .* must have one entry for each"),
    (dict(block_type=("M", "M", "X", "M")), ValueError, "block_type 'X' is not one of 'C', 'T', 'M', 'PM'"),
    (dict(conv_block_type="resnet"), ValueError, "conv_block_type 'resnet' is not one of 'mbconv', 'convnext'"),
    (dict(conv_block_type="convnext", conv_stride_mode="1x1"), ValueError, "conv_stride_mode '1x1' is not one of"),
    (dict(conv_pool_type="median"), ValueError, "pool_type 'median' is not one of 'max', 'max2', 'avg', 'avg_zeros'"),
    (dict(transformer_rel_pos_type="rope"), ValueError, "transformer_rel_pos_type 'rope' is not one of"),
    (dict(transformer_dim_head=48), ValueError, "32 channels cannot be divided into heads of 48"),
    (dict(weight_init="zeros"), ValueError, "weight_init 'zeros' is not one of"),
    (dict(img_size=16), ValueError, "windows and grid of 0 x 0: the image is smaller than transformer_partition_ratio"),
    (dict(block_type=("PM",) * 4, transformer_window_size=2, transformer_grid_size=1), ValueError,
     r"windows \(2, 2\) and grid \(1, 1\) must be of one size"),
    (dict(global_pool="catavgmax", **HEAD), ValueError, "global_pool 'catavgmax' changes the width"),
])
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        build(MAX, **kwargs)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: maxxvit.TransformerBlock2d(32, 64), "a transformer block of stride 1 keeps its 32 channels, it makes no"),
    (lambda: maxxvit.ConvNeXtBlock(32, conv_mlp=False), "conv_mlp=False goes with a layer norm, not with norm_layer"),
    (lambda: maxxvit.MaxxVitBlock(32, 32), "windows and grid have no size: give window_size and grid_size"),
    (lambda: maxxvit.ParallelPartitionAttention(33), "33 channels cannot be divided between two attentions"),
    (lambda: maxxvit.MaxxVitStage(32, 32, depth=1, block_types="X"), "block_type 'X' is not one of"),
])
def test_bad_blocks(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_parts_resized_by_one_number():
    block = maxxvit.PartitionAttention2d(32, cfg=maxxvit.TransformerConfig(window_size=2))
    block.set_partition_size(4)
    assert block(torch.randn(1, 32, 8, 4)).shape == (1, 32, 8, 4)
    with pytest.raises(ValueError, match="a map of 8 x 6 cannot be cut into windows of 4 x 4"):
        block(torch.randn(1, 32, 8, 6))


def test_an_image_of_another_size():
    with pytest.raises(ValueError, match="a map of 12 x 12 cannot be cut into windows of 8 x 8: build the model with"):
        build(MAX, transformer_window_size=8)(image(48))
    with pytest.raises(ValueError, match="a map of 3 x 3 does not fit the biases .* one of 4 x 4"):
        build(COAT)(image(48))
    assert build(COAT, transformer_rel_pos_type="")(image(48)).shape == (2, 7)
    assert build(MAX)(image(128)).shape == (2, 7)  # more windows of the same size


# sizes

@pytest.mark.sample(3)
@pytest.mark.parametrize(("name", "kwargs"), [
    (MAX, {}), (MAX, dict(transformer_rel_pos_type="bias_tf")), (MAX, dict(transformer_rel_pos_type="mlp")),
    (MAX, dict(block_type=("PM",) * 4)), (COAT, {}), (COAT, dict(transformer_rel_pos_type="mlp")),
], ids=str)
@pytest.mark.parametrize("change", [dict(img_size=(96, 128)), dict(img_size=128, window_size=4, grid_size=4)], ids=str)
def test_set_input_size(name, kwargs, change):
    pairs.assert_same_resized(*pair(name, **kwargs), **change)


def test_set_input_size_is_remembered_for_saving():
    model = build(MAX)
    model.model_args = dict(num_classes=7)
    model.set_input_size(img_size=128, partition_ratio=64)
    assert model.model_args == dict(num_classes=7, img_size=(128, 128), transformer_window_size=(2, 2),
                                    transformer_grid_size=(2, 2), transformer_partition_ratio=64)
    assert shapes(maxxvit.test_maxvit(**model.model_args)) == shapes(model)


@pytest.mark.parametrize("change", [dict(img_size=16), dict(window_size=0), dict(window_size=1, grid_size=2)])
def test_bad_resize_changes_nothing(change):
    model = build(MAX, block_type=("PM",) * 4)
    with pytest.raises(ValueError, match="windows and grid of|must be of one size"):
        model.set_input_size(**change)
    assert model.img_size == (64, 64)
    model(image())


@pytest.mark.parametrize("size", [96, (64, 128)], ids=str)
@pytest.mark.parametrize("kind", ["bias", "bias_tf"])
@pytest.mark.parametrize("name", [MAX, COAT])
def test_weights_are_resampled_as_timm_does(name, kind, size):
    source = build_timm(name, transformer_rel_pos_type=kind)
    randomize(source, image())
    kwargs = dict(img_size=size, transformer_rel_pos_type=kind)
    ours, theirs = build(name, **kwargs), build_timm(name, **kwargs)
    expected = timm_maxxvit.checkpoint_filter_fn(source.state_dict(), theirs)
    pairs.assert_fitted(source.state_dict(), expected, ours, theirs)


def test_linear_weights_fit_convolutions_and_back():
    linear, conv = build(MAX), build(MAX, transformer_use_nchw_attn=True)
    randomize(linear, image())
    load_weights(conv, linear.state_dict())
    assert_same(conv, linear, image())
    load_weights(linear, conv.state_dict())
    assert_same(conv, linear, image())


# heads


def test_a_changed_pooling_keeps_the_hidden_layer():
    model = build(COAT, **HEAD)
    fc = model.head.pre_logits.fc
    weight = fc.weight.clone()
    fc.weight.requires_grad_(False)
    model.reset_classifier(0, "")
    assert model.head.pre_logits.fc.weight.shape == (48, 128, 1, 1)
    model.reset_classifier(0, "avg")
    assert torch.equal(model.head.pre_logits.fc.weight, weight)
    assert not model.head.pre_logits.fc.weight.requires_grad
    assert model.head_hidden_size == 48


# torchvision

def test_torchvisions_settings():
    with skeletons():
        ours, theirs = mvlib.model_entrypoint("maxvit_t")(), torchvision.models.maxvit_t()
    assert sum(p.numel() for p in ours.parameters()) == 30_919_624  # what torchvision's weights say of themselves
    norms = [[m for m in model.modules() if isinstance(m, nn.BatchNorm2d)] for model in (ours, theirs)]
    assert [(m.eps, m.momentum) for m in norms[0]] == [(m.eps, m.momentum) for m in norms[1]]
    rates = [block.conv.drop_path.drop_prob for stage in ours.stages for block in stage.blocks[1:]]
    expected = [layer.layers.MBconv.stochastic_depth.p for block in theirs.blocks for layer in block.layers[1:]]
    assert rates == pytest.approx(expected)


def test_timms_weights_are_not_taken_for_torchvisions():
    state_dict = build(MAX).state_dict()
    assert not any(key_map.matches(state_dict) for key_map in MaxxVit.key_maps)


def test_torchvisions_windows_stay_for_other_images():
    with skeletons():
        model = mvlib.model_entrypoint("maxvit_t")(img_size=448)
        assert model(torch.empty(1, 3, 448, 448)).shape == (1, 1000)
    assert model.stages[0].blocks[0].attn_grid.partition_size == (7, 7)


# the contract, where this family touches it


@pytest.mark.parametrize("scheme", ["", "normal", "trunc_normal", "xavier_normal", "vit_eff"])
@pytest.mark.parametrize("kwargs", [
    dict(block_type=("C", "M", "T", "PM"), transformer_rel_pos_type="mlp"),
    dict(block_type=("C", "M", "T", "T"), conv_block_type="convnext", conv_init_values=1e-5),
], ids=["mbconv", "convnext"])
def test_initial_weights_are_distributed_as_timms(kwargs, scheme):
    pairs.assert_initialised_alike(partial(build, MAX), partial(build_timm, MAX), **kwargs, weight_init=scheme,
                                   embed_dim=(64,) * 4, depths=(2, 1, 2, 1))


def test_initial_weights_of_torchvisions_head():
    model = build("maxvit_t", transformer_window_size=2, depths=(1, 1, 1, 1))
    for layer in (model.head.fc, model.head.pre_logits.fc, model.stages[0].blocks[0].conv.conv1_1x1):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.head.pre_logits.fc.bias.any()


def test_position_mlp_drops_as_timms_in_training():
    ours, theirs = pair(MAX, transformer_rel_pos_type="mlp")
    grads = []
    for model in (ours.double(), theirs.double()):
        torch.manual_seed(0)
        model.train()(image().double()).square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for name, grad in grads[1].items():
        torch.testing.assert_close(grads[0][name], grad, rtol=1e-5, atol=1e-5 * grad.abs().max().item() + 1e-9)


def test_config_json_can_hold_every_argument():
    """What JSON makes of tuples."""
    plain = build(MAX, transformer_window_size=[2, 2], stem_width=[16, 32], block_type=["M", ["M"], "M", "M"])
    assert shapes(plain) == shapes(build(MAX))


def test_create_model_takes_options():
    model = mvlib.create_model("test_coatnet", pretrained=False, img_size=64, transformer_rel_pos_type="mlp")
    assert "stages.2.blocks.0.attn.rel_pos.mlp.fc1.weight" in model.state_dict()
    with pytest.raises(mvlib.errors.ConfigError, match="does not know the argument 'conv_expand'.*conv_expand_ratio"):
        mvlib.create_model("test_coatnet", pretrained=False, conv_expand=2)
