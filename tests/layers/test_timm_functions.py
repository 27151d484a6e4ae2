"""timm.layers' functions, switches and conversions: ours give what timm's give."""

import copy
import sys
import types

import pytest
import timm
import timm.layers as theirs
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

import mvlib
import mvlib.layers as ours
from tests.layers.test_timm_layers import PUBLIC, THEIRS

X = torch.randn(2, 8, 9, 7, generator=torch.Generator().manual_seed(0))
KERNEL = torch.randn(6, 4, 3, 2, generator=torch.Generator().manual_seed(1))
TOKENS = X.flatten(2).transpose(1, 2)
VECTOR = torch.rand(8, generator=torch.Generator().manual_seed(2))
WINDOWS = [(3, 1, 1), (4, 2, 3), ((3, 4), (1, 2), 1), (2, 3, 1), ((5, 3), 1, (2, 1))]


@pytest.mark.parametrize(("name", "args"), [
    *((name, (X.clone(), inplace)) for inplace in (True, False) for name in (
        "swish", "mish", "sigmoid", "tanh", "hard_swish", "hard_sigmoid", "hard_mish", "gelu", "gelu_tanh",
        "quick_gelu")),
    *((name, window) for name in ("get_padding", "is_static_pad") for window in WINDOWS),
    *(("get_same_padding", (size, *window)) for size in (7, 8, torch.tensor([1.0, 5, 6])) for window in (
        (3, 2, 1), (2, 3, 1), (1, 4, 1), (3, 2, 4))),
    ("pad_same_arg", ((7, 10), (3, 4), (2, 3), (2, 1))), ("pad_same_arg", ((7, 10), (3, 2), (2, 1))),
    ("conv2d_same", (X, KERNEL, None, (2, 1), (5, 5), (1, 2), 2)),
    ("conv2d_same", (X, KERNEL, VECTOR[:6], (1, 1), 0, (1, 1), 2)),
    *(("avg_pool2d_same", (X, (3, 2), (2, 3), (0, 0), False, count)) for count in (True, False)),
    ("max_pool2d_same", (X, (3, 2), (2, 3))), ("max_pool2d_same", (X, (3, 2), (2, 1), 0, (2, 1), True)),
    *(("adaptive_pool_feat_mult", (kind,)) for kind in ("avg", "catavgmax", "fastcatavgmax")),
    *(("select_adaptive_pool2d", (X, kind, size)) for kind in ("avg", "max", "avgmax", "catavgmax")
      for size in (1, (2, 3))),
    *(("global_pool_nlc", (TOKENS, kind, prefix, include)) for kind in ("token", "avg", "max", "avgmax", "")
      for prefix, include in ((1, False), (2, True))),
    ("maybe_add_mask", (X, X)), ("maybe_add_mask", (X,)),
    ("resolve_self_attn_mask", (7, X)), ("resolve_self_attn_mask", (7, X, None, True)),
    ("resolve_self_attn_mask", (7, X, X > 0)), ("resolve_self_attn_mask", (7, X, X)),
    ("extend_tuple", (3, 2)), ("extend_tuple", ([1, 2], 4)), ("extend_tuple", ((1, 2, 3), 2)),
    ("ndgrid", (torch.arange(2), torch.arange(3))), ("meshgrid", (torch.arange(2), torch.arange(3))),
    *(("get_spatial_dim", (kind,)) for kind in ("NCHW", "NHWC", "NLC", "NCL")),
    *(("get_channel_dim", (kind,)) for kind in ("NCHW", "NHWC", "NLC", "NCL")),
    *((name, (X, kind)) for name in ("nchw_to", "nhwc_to") for kind in ("NCHW", "NHWC", "NLC", "NCL")),
    *((name, (X, 0.1)) for name in ("instance_std", "instance_rms", "inv_instance_rms")),
    *((name, (X, 4, 0.1)) for name in ("group_std", "group_rms")),
    ("manual_var", (X, (2, 3))), ("manual_var", (X, 1, True)),
    *((name, (TOKENS, (8,), weight, 0.1)) for weight in (VECTOR, None) for name in (
        "rms_norm", "simple_norm", "fast_rms_norm", "fast_simple_norm")),
    *((name, (X, (8,), weight, 0.1)) for weight in (VECTOR, None) for name in ("rms_norm2d", "fast_rms_norm2d")),
    ("rms_norm", (X, (9, 7), None, 0.1)),
    ("fast_layer_norm", (TOKENS, (8,), VECTOR, VECTOR, 0.1)), ("fast_group_norm", (X, 4, VECTOR, None, 0.1)),
    *(("is_meta_device", (device,)) for device in ("meta", "cpu", torch.device("meta"), None)),
], ids=lambda value: value if isinstance(value, str) else "")
def test_functions_are_timms(name, args):
    mine, its = (functions[name](*copy.deepcopy(args)) for functions in (PUBLIC, THEIRS))
    if isinstance(its, torch.Tensor | tuple) and not isinstance(mine, bool):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-5)
    else:
        assert mine == its and type(mine) is type(its)


@pytest.mark.parametrize("padding", ["", "same", "valid", "SAME", 2, (1, 2)])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), WINDOWS)
def test_values_of_padding_are_timms(padding, kernel, stride, dilation):
    window = dict(stride=stride, dilation=dilation)
    its, is_dynamic = THEIRS["get_padding_value"](padding, kernel, **window)
    mine, mine_dynamic = ours.get_padding_value(padding, kernel, **window)
    assert (ours.to_2tuple(mine), mine_dynamic) == (ours.to_2tuple(its), is_dynamic)


def test_activations_by_name_are_timms():
    assert ours.get_act_fn(None) is ours.get_act_fn("") is None and ours.get_act_fn(torch.relu) is torch.relu
    for name in ("silu", "swish", "mish", "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "gelu_tanh",
                 "quick_gelu", "sigmoid", "tanh", "hard_sigmoid", "hard_swish", "hard_mish", "hardsigmoid",
                 "HardSwish"):
        torch.testing.assert_close(ours.get_act_fn(name)(X), theirs.get_act_fn(name)(X))
        torch.testing.assert_close(ours.create_act_layer(name)(X), theirs.create_act_layer(name)(X))
    with pytest.raises(ValueError, match="unknown activation 'reluu'; known: celu, elu, gelu"):
        ours.get_act_fn("reluu")


@pytest.mark.parametrize("name", ["batchnorm", "groupnorm1", "layernorm2d", "layernorm2dfp32", "rmsnorm2dfp32",
                                  "simplenorm2dfp32", "frozenbatchnorm2d", "layer_norm_2d"])
def test_norms_by_name_are_timms(name):
    mine, its = (layers.create_norm_layer(name, 8).eval() for layers in (ours, theirs))
    assert type(mine).__name__ == type(its).__name__
    mine.load_state_dict(its.state_dict())
    torch.testing.assert_close(mine(X), its(X))


@pytest.mark.parametrize("name", ["evonormb0", "evonormb1", "evonormb2", "evonorms1", "evonorms2a", "layernorm2dfp32",
                                  "rmsnorm2dfp32", "batchnorm2d-something", "frn"])
@pytest.mark.parametrize("act", ["gelu", None, nn.SiLU])
def test_norms_with_activation_by_name_are_timms(name, act):
    extra = dict(groups=4) if name.startswith("evonorms") else {}
    mine, its = (layers.create_norm_act_layer(name, 8, act, **extra) for layers in (ours, theirs))
    mine.load_state_dict(its.state_dict())
    for training in (True, True, False):  # statistics of batches, too
        torch.testing.assert_close(mine.train(training)(X), its.train(training)(X), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine.state_dict(), its.state_dict())


def test_norms_in_float32_keep_the_inputs_type():
    for name in ("LayerNorm2dFp32", "RmsNorm2dFp32", "SimpleNorm2dFp32", "LayerNormAct2dFp32", "RmsNormAct2dFp32"):
        mine, its = PUBLIC[name](8).half(), THEIRS[name](8).half()
        found = mine(300 * X.half())  # its squares are beyond half precision
        assert found.dtype == torch.float16 and torch.equal(found, its(300 * X.half()))


@pytest.mark.parametrize("name", ["LayerNorm", "LayerNorm2d", "RmsNorm2d", "GroupNorm1", "SimpleNorm2d", "RmsNorm",
                                  "LayerNormAct2d", "RmsNormAct2d", "GroupNormAct"])
def test_fast_norms_stay_in_autocasts_type(name):
    extra = dict(num_groups=4) if name == "GroupNormAct" else {}
    x = TOKENS if name in ("LayerNorm", "RmsNorm") else X
    made = []
    for layers in (ours, theirs):
        assert not THEIRS["is_fast_norm"]() and not ours.is_fast_norm()
        setting = ours if layers is ours else sys.modules["timm.layers"]
        setting.set_fast_norm(True)
        made.append(getattr(layers, name)(8, **extra))
        setting.set_fast_norm(False)
    made.append(getattr(ours, name)(8, **extra))
    with torch.autocast("cpu", torch.bfloat16):
        assert ours.is_autocast_enabled("cpu") and ours.get_autocast_dtype("cpu") is torch.bfloat16
        mine, its, plain = (norm(x) for norm in made)
    assert mine.dtype == its.dtype == torch.bfloat16 and plain.dtype == torch.float32
    torch.testing.assert_close(mine, its)
    torch.testing.assert_close(made[0](x), made[2](x))


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_frozen_batch_norms_are_timms(name):
    its = timm.create_model(name, num_classes=4)
    mine = mvlib.create_model(name, pretrained=False, num_classes=4)
    mine.load_state_dict(its.state_dict())
    x = torch.randn(2, 3, 48, 48)
    expected = mine.eval()(x)
    keys = list(mine.state_dict())
    mine, its = ours.freeze_batch_norm_2d(mine), theirs.freeze_batch_norm_2d(its)
    assert mine.state_dict().keys() == its.state_dict().keys()
    assert any(isinstance(m, FrozenBatchNorm2d | ours.FrozenBatchNormAct2d) for m in mine.modules())
    assert {key for key, _ in mine.named_parameters()} == {key for key, _ in its.named_parameters()}
    torch.testing.assert_close(mine(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.train().state_dict(), its.state_dict())
    mine = ours.unfreeze_batch_norm_2d(mine)
    assert list(mine.state_dict()) == keys and not any("Frozen" in type(m).__name__ for m in mine.modules())
    torch.testing.assert_close(mine.eval()(x), expected, rtol=1e-4, atol=1e-5)


def test_a_frozen_norm_takes_a_batch_norms_file():
    norm = nn.BatchNorm2d(8)
    ours.FrozenBatchNormAct2d(8).load_state_dict(norm.state_dict())
    assert isinstance(ours.freeze_batch_norm_2d(ours.BatchNormAct2d(8, act_layer="gelu")).act, ours.GELU)
    thawed = ours.unfreeze_batch_norm_2d(ours.freeze_batch_norm_2d(nn.BatchNorm2d(8, eps=0.3, affine=False)))
    assert thawed.eps == 0.3 and thawed.weight is None


def test_synchronised_norms_are_timms():
    def make(layers):
        return nn.Sequential(nn.BatchNorm2d(8, eps=0.1), layers.BatchNormAct2d(8, act_layer=nn.SiLU), nn.BatchNorm1d(7))

    for layers in (ours, theirs):
        model = layers.convert_sync_batchnorm(make(layers).eval(), process_group="the group")
        assert [type(m) for m in model] == [nn.SyncBatchNorm, PUBLIC["SyncBatchNormAct"] if layers is ours else
                                            THEIRS["SyncBatchNormAct"], nn.SyncBatchNorm]
        assert all(m.process_group == "the group" and not m.training for m in model) and model[0].eps == 0.1


def test_inplace_norms_ask_for_their_package(monkeypatch):
    mine, its = ours.InplaceAbn(8, act_layer=nn.ELU), THEIRS["InplaceAbn"](8, act_layer=nn.ELU)
    assert mine.state_dict().keys() == its.state_dict().keys() and mine.act_name == its.act_name == "elu"
    with pytest.raises(ImportError, match="InplaceAbn needs the package inplace_abn, .*; or take BatchNormAct2d"):
        mine(X)
    with pytest.raises(ValueError, match="of InplaceAbn is not leaky_relu, elu or identity"):
        ours.InplaceAbn(8, act_layer=nn.ReLU)
    package = types.ModuleType("inplace_abn")
    package.functions = types.SimpleNamespace(inplace_abn=lambda x, *rest: (x, rest))
    monkeypatch.setitem(sys.modules, "inplace_abn", package)
    assert mine(X) is X and ours.inplace_abn(X, 1)[1] == (1,)
    made = ours.create_norm_act_layer("iabn", 8, "leaky_relu")
    assert isinstance(made, ours.InplaceAbn) and made.act_name == "leaky_relu"


# switches


def test_switches_are_timms():
    found = []
    for config in (ours, theirs.config):
        states = []

        def note(config=config, states=states):
            states.append((config.is_scriptable(), config.is_exportable(), config.is_no_jit(), config.use_fused_attn(),
                           config.use_fused_attn(experimental=True), config.use_reentrant_ckpt()))

        note()
        with config.set_layer_config(scriptable=True, no_jit=True):
            note()
            with config.set_exportable(True):
                note()
                with config.set_scriptable(False), config.set_no_jit(False):
                    note()
            note()
        note()
        config.set_exportable(True)  # without a context it stays
        note()
        config.set_exportable(False)
        for arguments in ((True, True), (False,), (True,)):
            config.set_fused_attn(*arguments)
            note()
        config.set_reentrant_ckpt()
        note()
        config.set_reentrant_ckpt(False)
        note()
        found.append(states)
    assert found[0] == found[1]


def test_recomputing_by_torchs_older_way():
    used = []

    class Block(nn.Module):
        def forward(self, x):
            used.append(torch.is_grad_enabled())
            return x * x

    x = torch.ones(2, requires_grad=True)
    for reentrant in (True, False):
        ours.set_reentrant_ckpt(reentrant)
        try:
            ours.run_blocks([Block()], x, recompute=True).sum().backward()
        finally:
            ours.set_reentrant_ckpt(False)
    assert used == [False, True, True, True]  # the older way computes without gradients first


# tracing


def test_what_is_registered_is_one_node():
    @ours.register_notrace_module
    class Leaf(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.leaf, self.conv = Leaf(), nn.Conv2d(8, 3, 1)

        def forward(self, x):
            return self.conv(self.leaf(x))

    assert ours.is_notrace_module(Leaf) and Leaf in ours.get_notrace_modules() and not ours.is_notrace_module(Model)
    model = Model().eval()
    assert ours.get_graph_node_names(model)[1] == ["x", "leaf", "conv"]
    found = ours.create_feature_extractor(model, {"leaf": "a", "conv": "b"})(X)
    torch.testing.assert_close(found["a"], model.leaf(X))
    torch.testing.assert_close(found["b"], model(X))
    assert ours.register_notrace_function(test_switches_are_timms) is test_switches_are_timms
    assert ours.is_notrace_function(test_switches_are_timms)
    assert test_switches_are_timms in ours.get_notrace_functions()


def test_nodes_have_timms_names():
    mine, its = mvlib.create_model("resnet18", pretrained=False), timm.create_model("resnet18")
    mine.load_state_dict(its.state_dict())
    nodes, x = ["layer1.0.conv1", "layer4", "global_pool.pool", "global_pool.flatten", "fc"], torch.randn(1, 3, 64, 64)
    found = [layers.create_feature_extractor(model.eval(), nodes)(x) for layers, model in ((ours, mine), (theirs, its))]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


# what is made of models


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_pooling_at_test_time_is_timms(name):
    its = timm.create_model(name, num_classes=5).eval()
    mine = mvlib.create_model(name, pretrained=False, num_classes=5).eval()
    mine.load_state_dict(its.state_dict())
    config = dict(input_size=(3, 256, 256))
    made = []
    for layers, model in ((ours, mine), (theirs, its)):
        assert layers.apply_test_time_pool(model, dict(input_size=(3, 224, 256))) == (model, False)
        assert layers.apply_test_time_pool(nn.Identity(), config)[1] is False
        pooled, is_pooled = layers.apply_test_time_pool(model, config)
        assert is_pooled and type(pooled).__name__ == "TestTimePoolHead"
        made.append(pooled.eval())
    assert made[0].state_dict().keys() == made[1].state_dict().keys()
    x = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(made[0](x), made[1](x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("classes", "groups"), [(7, 3), (6, 3), (5, 9)])
def test_decoder_for_many_classes_is_timms(classes, groups):
    arguments = (classes, groups, 16, 8)
    mine, its = ours.MLDecoder(*arguments).eval(), THEIRS["MLDecoder"](*arguments).eval()
    assert [(key, value.shape) for key, value in mine.state_dict().items()] == [
        (key, value.shape) for key, value in its.state_dict().items()]
    mine.load_state_dict(its.state_dict())
    its.decoder = its.decoder.layers[0]  # what torch's decoder asks of its layers since 2.0, timm's lacks
    assert not mine.query_embed.weight.requires_grad
    for x in (X, TOKENS):
        torch.testing.assert_close(mine(x), its(x), rtol=1e-5, atol=1e-5)


def test_decoder_in_the_place_of_a_classifier():
    for name, path in (("resnet18", "fc"), ("efficientnet_b0", "classifier"), ("regnetx_002", "head")):
        model = mvlib.create_model(name, pretrained=False, num_classes=5)
        assert ours.add_ml_decoder_head(model) is model
        assert isinstance(getattr(model, path), ours.MLDecoder)
        if path == "fc":
            assert model.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 5)
    with pytest.raises(ValueError, match="an ML-Decoder does not fit Identity: it takes models with a global_pool"):
        model = nn.Identity()
        model.num_classes, model.num_features = 2, 3
        ours.add_ml_decoder_head(model)


def test_feature_maps_with_their_size_are_timms():
    backbone = nn.Sequential(nn.Conv2d(3, 6, 4, 4))
    found = []
    for layers in (ours, theirs):
        torch.manual_seed(0)
        embed = PUBLIC["HybridEmbedWithSize"] if layers is ours else THEIRS["HybridEmbedWithSize"]
        made = embed(backbone, img_size=32, patch_size=2, embed_dim=5)
        nn.init.constant_(made.proj.weight, 0.1)
        nn.init.zeros_(made.proj.bias)
        made.set_grad_checkpointing()
        found.append(made(torch.ones(1, 3, 32, 24)))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] == (4, 3)


def test_other_maps_give_keys_and_values_as_timms():
    its, mine = THEIRS["MultiQueryAttentionV2"](8, 6, 2, 4, 5), ours.MultiQueryAttentionV2(8, 6, 2, 4, 5)
    mine.load_state_dict(its.state_dict())
    torch.testing.assert_close(mine(X, X[:, :, :3]), its(X, X[:, :, :3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kwargs", [dict(), dict(is_causal=True), dict(attn_mask=torch.rand(9, 9) > 0.3),
                                    dict(attn_mask=torch.randn(9, 9))], ids=["", "causal", "boolean", "added"])
@pytest.mark.parametrize("half", [True, False])
def test_attention_with_positions_is_timms(fused, kwargs, half):
    settings = dict(dim=16, num_heads=2, num_prefix_tokens=1, rotate_half=half)
    its, mine = theirs.AttentionRope(**settings), ours.AttentionRope(**settings)
    mine.load_state_dict(its.state_dict())
    assert mine.scale == its.scale
    mine.fused_attn = its.fused_attn = fused
    x, rope = torch.randn(2, 9, 16), torch.randn(8, 16)
    kwargs = {key: value | torch.eye(9, dtype=torch.bool) if getattr(value, "dtype", None) is torch.bool else value
              for key, value in kwargs.items()}
    torch.testing.assert_close(mine(x, rope, **kwargs), its(x, rope, **kwargs), rtol=1e-5, atol=1e-5)


def test_heads_of_keys_that_do_not_fit():
    with pytest.raises(ValueError, match="2 heads of keys and values are not for 4 .* in one layer; set qkv_fused="):
        ours.AttentionRope(16, 4, num_kv_heads=2)
    with pytest.raises(ValueError, match="3 heads of keys and values are not for 4 heads of queries$"):
        ours.AttentionRope(16, 4, num_kv_heads=3, qkv_fused=False)


# initial weights


@pytest.mark.parametrize("name", ["init_weight_vit", "init_weight_jax"])
@pytest.mark.parametrize("path", ["head.fc", "blocks.0.mlp.fc1", "blocks.0.attn.qkv"])
@pytest.mark.parametrize("make", [lambda: nn.Linear(40, 50), lambda: nn.Conv2d(40, 50, 3), lambda: nn.LayerNorm(4)])
def test_initial_weights_are_timms(name, path, make):
    mine = make()
    its = copy.deepcopy(mine)
    for module, functions in ((mine, PUBLIC), (its, THEIRS)):
        torch.manual_seed(3)
        functions[name](module, path, head_bias=-2.0)
    for (key, value), other in zip(mine.state_dict().items(), its.state_dict().values()):
        torch.testing.assert_close(value.mean(), other.mean(), rtol=0.05, atol=2e-3)
        torch.testing.assert_close(value.std(), other.std(), rtol=0.05, atol=1e-6), key


def test_initial_weights_are_asked_of_others():
    class Own(nn.Module):
        def init_weights(self):
            self.done = True

    for function in (ours.init_weight_vit, ours.init_weight_jax):
        module = Own()
        function(module, "blocks")
        assert module.done


def test_experts_are_initialised_one_by_one():
    init = ours.get_condconv_initializer(lambda kernel: kernel.fill_(kernel.shape[0]), 3, (2, 4, 1, 1))
    weight = torch.zeros(3, 8)
    init(weight)
    assert torch.equal(weight, torch.full((3, 8), 2.0))
    with pytest.raises(ValueError, match=r"a weight of \(3, 9\) is not for 3 experts of \(2, 4, 1, 1\)"):
        init(torch.zeros(3, 9))


def test_placement_is_the_parents():
    model = nn.Linear(2, 2).double()
    assert ours.get_device_dtype(model) == theirs.helpers.get_device_dtype(model)
    assert ours.get_device_dtype(model, dtype=torch.float16)["dtype"] is torch.float16
    assert ours.get_device_dtype(nn.Identity()) == {"device": None, "dtype": None}
    with ours.nullwrap():
        assert ours.nullwrap(model) is model
    assert ours.is_exporting() is False


@pytest.mark.parametrize(("make", "message"), [
    (lambda: ours.select_adaptive_pool2d(X, "mean"), "unknown global_pool 'mean'; known: 'avg', 'max'"),
    (lambda: ours.global_pool_nlc(TOKENS, "mean"), "unknown global_pool 'mean'; known: 'token', 'avg'"),
    (lambda: ours.ClNormMlpClassifierHead(8, 2, pool_type="mean"), "unknown global_pool 'mean'"),
    (lambda: ours.ClNormMlpClassifierHead(8, 2, input_fmt="NCHW"), "input_fmt 'NCHW' is not one of NHWC, NLC"),
    (lambda: ours.SimPool1d(8, 3), "8 channels cannot be divided among 3 heads"),
    (lambda: ours.get_padding_value("sam", 3), "unknown padding 'sam'; known: 'same', 'valid'"),
    (lambda: ours.EvoNorm2dS1(8, groups=3), "8 channels cannot be divided into 3 groups"),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
