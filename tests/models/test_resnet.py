"""ResNet and its relatives against timm and torchvision: options, blocks of other families, pruned widths, channel
attention."""

from functools import partial

import pytest
import timm
import torch
from timm.layers import BlurPool2d as TimmBlur
from timm.layers import SEModule as TimmSE
from timm.layers import create_attn as timm_create_attn
from timm.models import resnet as timm_resnet
from torch import nn

import mvlib
from mvlib.layers.channel_attention import EcaModule, SEModule, create_attn, get_attn
from mvlib.models import pruning, resnet
from mvlib.models.pruning import prune_to_widths, pruned_widths
from mvlib.models.resnet import ResNet
from tests.parity.harness import randomize

from .pairs import assert_same, assert_same_effect, build, image

ONE_EACH = dict(layers=(1, 1, 1, 1))
SLIM = dict(ONE_EACH, channels=(16, 32, 32, 32))


@pytest.mark.sample(3)
@pytest.mark.parametrize(("name", "size", "kwargs"), [
    ("resnet18", 75, dict(output_stride=16)),
    ("resnet26", 64, dict(output_stride=8)),
    ("resnet26d", 65, dict(output_stride=8)),  # pooled shortcuts that keep the size
    ("senet154", 64, dict(output_stride=8, **ONE_EACH)),  # dilated 3x3 shortcuts
    ("resnetblur18", 64, dict(output_stride=16)),
    ("resnetaa50", 64, dict(output_stride=8, **ONE_EACH)),
    ("resnetrs50", 64, dict(aa_layer=None, output_stride=16, **ONE_EACH)),
    ("resnet10t", 64, dict(global_pool="catavgmax", in_chans=5)),
    ("resnet18", 64, dict(global_pool="avgmax", act_layer="silu", norm_layer="groupnorm")),
    ("resnet10t", 64, dict(num_classes=0, global_pool="")),
    ("test_resnet", 64, dict(channels=(16, 32, 32, 48), stem_type="deep_tiered", block_reduce_first=2)),
    ("resnet10t", 64, dict(block_args=dict(attn_layer="ese"))),
    ("ecaresnet50d_pruned", 64, dict(output_stride=8, global_pool="catavgmax", in_chans=1)),
    ("ecaresnet50d_pruned", 64, dict(num_classes=0)),
    ("res2net50_26w_4s", 65, dict(SLIM, layers=(1, 1, 1, 2), output_stride=8, aa_layer=nn.AvgPool2d)),  # stem's
    ("res2next50", 64, dict(SLIM, block_reduce_first=2, block_args=dict(scale=1))),
    ("res2net50d", 64, dict(SLIM, block_args=dict(attn_layer=TimmSE, scale=2), act_layer="prelu")),
    ("resnest14d", 65, dict(SLIM, output_stride=8)),
    ("resnest14d", 64, dict(SLIM, block_args=dict(radix=0, avd=True, avd_first=True), output_stride=16)),
    ("resnest14d", 64, dict(SLIM, block_args=dict(radix=4, avd=True, is_first=True), norm_layer="layernorm2d")),
    ("skresnet18", 65, dict(SLIM, output_stride=8, block_reduce_first=2)),
    ("skresnet18", 64, dict(SLIM, block_args=dict(sk_kwargs=dict(kernel_size=[3, 5, 7], split_input=False)))),
    ("skresnet50d", 64, dict(SLIM, aa_layer=nn.AvgPool2d, base_width=128, block_args=dict(attn_layer="se"))),
])
def test_arguments_have_timms_effect(name, size, kwargs):
    assert_same_effect(name, size, **kwargs)


class TimmBlurZeros(TimmBlur):
    def __init__(self, **kwargs):
        super().__init__(pad_mode="constant", **kwargs)


@pytest.mark.parametrize(("name", "timm_class"), [("blur", TimmBlur), ("blurpc", TimmBlurZeros), ("avg", nn.AvgPool2d)])
@pytest.mark.parametrize("replace_stem_pool", [False, True])
def test_anti_aliasing_by_name_equals_timms_by_class(name, timm_class, replace_stem_pool):
    kwargs = dict(replace_stem_pool=replace_stem_pool, num_classes=7)
    theirs = timm.create_model("resnet10t", aa_layer=timm_class, **kwargs)
    ours = build("resnet10t", aa_layer=name, **kwargs)
    randomize(theirs, image())
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, image())


@pytest.mark.parametrize("name", ["resnet26", "res2net50_26w_4s", "resnest26d", "skresnet18", "skresnet50"])
def test_drop_block_is_timms(name):
    kwargs = dict(SLIM, layers=(1, 1, 2, 2), drop_block_rate=0.1)
    theirs, ours = timm.create_model(name, **kwargs), build(name, **kwargs)
    drops = [[(name, m.drop_prob, m.block_size, m.gamma_scale) for name, m in model.named_modules()
              if type(m).__name__ == "DropBlock2d"] for model in (ours, theirs)]
    assert drops[0] == drops[1] and len(drops[0]) == (8 if name.startswith("sk") else 4)


def test_blocks_drop_in_training_alone():
    model = build("resnet26", norm_layer="groupnorm", drop_block_rate=0.5)  # batch norm would change as it runs
    randomize(model, image())
    with torch.no_grad():
        assert torch.equal(model(image()), model(image()))
        assert not torch.equal(model.train()(image()), model(image()))


@pytest.mark.parametrize("name", ["skresnet18", "skresnet50"])
def test_a_selective_branch_may_begin_with_zeros(name):  # not by default
    for zero_init_last in (False, True):
        block = build(name, zero_init_last=zero_init_last, **SLIM).layer1[0]
        assert (block.get_submodule(block.last_norm).weight == float(not zero_init_last)).all()


def test_stochastic_depth_of_resnest_drops_the_branch():  # in timm, the shortcut's input
    block = build("resnest14d", drop_path_rate=0.5, **SLIM).layer4[0].train()
    block.drop_path.drop_prob = 1.0
    torch.nn.init.ones_(block.bn3.weight)
    x = torch.randn(2, 128, 4, 4)
    assert torch.equal(block(x), block.downsample(x).relu())


@torch.no_grad()
def test_features_of_the_guides_examples():
    with torch.device("meta"):
        model = build("resnest26d", features_only=True)
        assert [x.shape[1] for x in model(torch.empty(2, 3, 64, 64))] == [64, 256, 512, 1024, 2048]
        model = build("ecaresnet101d", features_only=True, output_stride=8, out_indices=(2, 4))
        assert [x.shape for x in model(torch.empty(2, 3, 320, 320))] == [(2, 512, 40, 40), (2, 2048, 40, 40)]


# --- pruned widths


def test_pruned_model_is_initialised_and_takes_a_new_head():
    model = build("ecaresnet50d_pruned")
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert model.num_features == pruned_widths("ecaresnet50d_pruned")["fc"][0] == 2022
    model.reset_classifier(5, "catavgmax")
    assert model.fc.weight.shape == (5, 4044)
    assert model(image()).shape == (2, 5)


def test_widths_name_the_layer_that_they_do_not_fit():
    name = "ecaresnet50d_pruned"
    with pytest.raises(ValueError, match="are for a model with a layer 'conv1.0'"):
        prune_to_widths(build("resnet50"), name)
    with pytest.raises(ValueError, match="do not fit its layer 'conv1.1', a GroupNorm"):
        build(name, norm_layer="groupnorm")
    with pytest.raises(ValueError, match="do not fit its layer 'layer1.0.se.fc1', a Conv2d"):
        build(name, block_args=dict(attn_layer="se"))
    with pytest.raises(FileNotFoundError, match="resnet50_pruned"):
        pruned_widths("resnet50_pruned")


def test_widths_cannot_be_changed():
    with pytest.raises(TypeError):
        pruning.pruned_widths("ecaresnet50d_pruned")["fc"] = (1,)


def test_the_last_norm_of_a_block_begins_at_one_where_asked():
    assert all((block.bn2.weight == 1).all() for block in build("resnet18", zero_init_last=False).layer3)


# --- channel attention


@pytest.mark.parametrize("attn", ["se", "ese", "eca", "ceca", "gc", "gca", True])
@pytest.mark.parametrize("channels", [64, 1024])
def test_channel_attention_equals_timms(attn, channels):
    theirs, ours = timm_create_attn(attn, channels), create_attn(attn, channels)
    x = torch.randn(2, channels, 7, 5)
    randomize(theirs, x)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, x)


@pytest.mark.parametrize("kwargs", [
    dict(add_maxpool=True), dict(rd_channels=10, bias=False), dict(norm_layer=nn.BatchNorm2d, act_layer=nn.SiLU),
])
def test_squeeze_and_excitation_takes_timms_options(kwargs):
    theirs, ours = timm_create_attn("se", 64, **kwargs).eval(), SEModule(64, **kwargs).eval()
    x = torch.randn(2, 64, 7, 5)
    randomize(theirs, x)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, x)


def test_attention_by_name_class_or_not_at_all():
    assert get_attn(None) is None and get_attn(False) is None and get_attn(EcaModule) is EcaModule
    assert create_attn("", 8) is None


# --- bad input


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "output_stride is 8, 16 or 32, not 4"),
    (dict(stem_type="wide"), "unknown stem_type 'wide'; known: '', 'deep', 'deep_tiered'"),
    (dict(cardinality=32), "a BasicBlock has one group and base_width 64, not 32 and 64"),
    (dict(aa_layer="sharp"), "unknown anti-aliasing layer 'sharp'; known: avg"),
    (dict(act_layer="rely"), "unknown activation 'rely'"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
    (dict(block_args=dict(attn_layer="sey")), "unknown attention layer 'sey'; known: bat, bottleneck, cbam, ceca"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build("resnet18", **kwargs)


@pytest.mark.parametrize(("name", "kwargs", "message"), [
    ("res2net50_26w_4s", dict(block_args=dict(scale=0)), "scale is 1 or more, not 0"),
    ("resnest14d", dict(block_reduce_first=2), "a ResNestBottleneck takes no reduce_first, not 2"),
    ("resnest14d", dict(aa_layer="avg"), "a ResNestBottleneck takes no aa_layer, not 'avg'"),
    ("resnest14d", dict(block_args=dict(attn_layer="se")), "a ResNestBottleneck takes no attn_layer, not 'se'"),
    ("skresnet18", dict(cardinality=2), "a basic block has one group and base_width 64, not 2 and 64"),
    ("skresnet50", dict(block_args=dict(sk_kwargs=dict(kernel_size=[4, 6]))), r"kernels \[4, 6\] are not odd"),
])
def test_bad_arguments_of_blocks_are_named(name, kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build(name, **kwargs)


def test_even_kernels_have_no_centre():
    with pytest.raises(ValueError, match="kernel_size must be odd, to have a centre; it is 4"):
        EcaModule(kernel_size=4)


def test_a_users_block_is_called_as_timm_calls_it():
    """With the same arguments, whatever it takes; its own way of beginning as an identity is asked for."""
    calls = {}

    class Recorder(nn.Module):
        expansion = 2

        def __init__(self, inplanes, planes, stride=1, downsample=None, **kwargs):
            super().__init__()
            kwargs = {key: value for key, value in kwargs.items() if key not in ("device", "dtype")}
            described = {key: type(value).__name__ if isinstance(value, nn.Module) else value
                         for key, value in kwargs.items()}
            described["drop_block"] = getattr(kwargs["drop_block"], "keywords", None)
            path = getattr(kwargs["drop_path"], "drop_prob", None)
            calls.setdefault(side, []).append((inplanes, planes, stride, str(downsample), path, described))
            self.conv = nn.Conv2d(inplanes, planes * 2, 3, stride, 1)
            self.scale = nn.Parameter(torch.ones(planes * 2, 1, 1))
            self.downsample = downsample

        def zero_init_last(self):
            nn.init.zeros_(self.scale)

        def forward(self, x):
            return self.conv(x) * self.scale + (x if self.downsample is None else self.downsample(x))

    kwargs = dict(num_classes=3, channels=(4, 8, 8, 16), drop_path_rate=0.2, block_args=dict(attn_layer="se"))
    models = {}
    for side, model_class in (("timm", timm_resnet.ResNet), ("ours", ResNet)):
        torch.manual_seed(0)
        models[side] = model_class(Recorder, [1, 2, 1, 1], output_stride=16, **kwargs)
        assert not models[side].layer2[1].scale.any()
    for ours, theirs in zip(calls["ours"], calls["timm"], strict=True):
        assert ours[:4] == theirs[:4] and ours[5] == theirs[5]
        assert (ours[4] is None) == (theirs[4] is None) and ours[4] == pytest.approx(theirs[4])
    models["ours"].load_state_dict(models["timm"].state_dict())
    assert_same(models["ours"].eval(), models["timm"].eval(), image())
    models["ours"].init_weights(zero_init_last=False)
    assert models["ours"].zero_init_last and isinstance(models["ours"], ResNet)


@pytest.mark.parametrize("name", ["downsample_conv", "downsample_avg"])
@pytest.mark.parametrize("kwargs", [
    dict(kernel_size=1), dict(kernel_size=3, stride=2), dict(kernel_size=3, dilation=2, first_dilation=1),
    dict(kernel_size=3, dilation=2), dict(kernel_size=1, stride=2, norm_layer=nn.Identity)])
def test_shortcuts(name, kwargs):
    ours, theirs = (getattr(module, name)(4, 6, **kwargs).eval() for module in (resnet, timm_resnet))
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, torch.randn(2, 4, 9, 9))


def test_blocks_say_their_stride_and_dilation():
    ours, theirs = (build(output_stride=8) for build in (
        partial(mvlib.create_model, "resnet18", pretrained=False), partial(timm.create_model, "resnet18")))
    for name, block in theirs.named_modules():
        if isinstance(block, timm_resnet.BasicBlock):
            found = ours.get_submodule(name)
            assert (found.stride, found.dilation) == (block.stride, block.dilation)


@pytest.mark.parametrize("name", ["resnet18", "seresnet50", "res2net50_26w_4s", "skresnet18"])
def test_what_a_block_has_not_is_none(name):
    """Code that walks over blocks asks `if block.downsample is not None: block.downsample[0]`."""
    for rate in (0.0, 0.1):
        theirs, ours = timm.create_model(name, drop_path_rate=rate), build(name, drop_path_rate=rate)
        blocks = list(zip(theirs.layer2, ours.layer2))
        assert len(blocks) > 1
        for expected, found in blocks:
            for part in ("se", "drop_path", "downsample", "drop_block"):
                assert type(getattr(found, part, None)).__name__ == type(getattr(expected, part, None)).__name__, part
