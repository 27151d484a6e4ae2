"""timm's layers by timm's paths: each name is there, and what people do with them gives what timm gives."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest
import timm.layers as theirs
import torch
from torch import nn

from mvlib.timm import layers as face
from mvlib.timm import tables

MODULES = sorted(info.name for info in pkgutil.iter_modules(theirs.__path__))


def public(module, path):
    """Names that a module of timm defines, or a package has."""
    for name, value in vars(module).items():
        if name[0] != "_" and not inspect.ismodule(value):
            home = getattr(value, "__module__", None)
            if home == path or (path == "timm.layers" and str(home).startswith("timm.")):
                yield name, value


@pytest.mark.parametrize("name", ["", *MODULES])
def test_all_names_are_there_or_excused(name):
    path = f"layers.{name}".removesuffix(".")
    its = importlib.import_module(f"timm.{path}")
    mine = None if tables.absent(path) else importlib.import_module(f"mvlib.timm.{path}")
    for other, value in public(its, f"timm.{path}"):
        if mine is None or tables.absent(f"{path}.{other}"):
            assert not hasattr(mine, other), f"{path}.{other} is there, and is excused"
        else:
            found = getattr(mine, other)
            assert callable(found) == callable(value) and inspect.isclass(found) == inspect.isclass(value), other


def test_what_is_excused_is_timms():
    for path in tables.absences():
        if not path.startswith("layers."):
            continue
        module, _, name = path.rpartition(".")
        if path in {f"layers.{name}" for name in MODULES}:
            continue
        assert hasattr(importlib.import_module(f"timm.{module}"), name), path


@pytest.mark.slow
def test_old_path_and_private_names():
    code = """if True:
        import warnings
        import mvlib.timm
        mvlib.timm.install()
        from timm.layers import DropPath, _assert, create_conv2d, to_2tuple, trunc_normal_
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            from timm.models.layers import DropPath as old, Mlp
            from timm.models.layers import to_2tuple as old_pair
        from timm.layers.trace_utils import _assert as assert_
        from timm.layers.create_conv2d import create_conv2d as same
        assert old is DropPath and old_pair is to_2tuple and assert_ is _assert and create_conv2d is same
    """
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def both(make, *args):
    """What `make` makes of timm's layers and of ours, with the same weights."""
    torch.manual_seed(0)
    its, mine = make(theirs, *args), make(face, *args)
    mine.load_state_dict(its.state_dict())
    return its, mine


class Block(nn.Module):
    """A block as copies of timm's models write it."""

    def __init__(self, layers, dim):
        super().__init__()
        norm = layers.get_norm_layer("layernorm")
        self.norm1, self.norm2 = norm(dim), layers.LayerNorm(dim)
        self.attn = layers.Attention(dim, num_heads=2, qkv_bias=True)
        self.drop_path = layers.DropPath(0.2) if dim else nn.Identity()
        self.mlp = layers.Mlp(dim, 2 * dim, act_layer=layers.get_act_layer("gelu_tanh"), drop=0.1)
        self.conv = layers.create_conv2d(dim, dim, 3, stride=2, padding="same", depthwise=True)
        self.bn = layers.create_norm_act_layer("batchnorm2d", dim, layers.get_act_layer("swish"))
        self.act = layers.create_act_layer("hard_swish", inplace=True)
        self.pool = layers.SelectAdaptivePool2d(pool_type="catavgmax", flatten=True)
        self.head = layers.ClassifierHead(dim, 5, pool_type="avg", drop_rate=0.1)
        layers.trunc_normal_(self.head.fc.weight, std=0.02)

    def forward(self, x):
        side = int(x.shape[1] ** 0.5)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        x = self.bn(self.act(self.conv(x.transpose(1, 2).unflatten(2, (side, side)))))
        return self.head(x), self.pool(x)


@pytest.mark.parametrize("training", [True, False])
def test_a_block_of_a_copied_model(training):
    its, mine = both(Block, 8)
    x = torch.randn(2, 25, 8)
    found = []
    for block in (its, mine):
        torch.manual_seed(1)
        found.append(block.train(training)(x))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


HEADS = [
    (lambda layers: layers.ClassifierHead(16, 5), dict(in_features=12)),
    (lambda layers: layers.ClassifierHead(16, 5, use_conv=True), dict(in_features=12)),
    (lambda layers: layers.NormMlpClassifierHead(16, 5, hidden_size=6), {}),
    (lambda layers: layers.NormMlpClassifierHead(16, 5), dict(in_features=12, reset_other=True)),
]


@pytest.mark.parametrize(("make", "extra"), HEADS)
@pytest.mark.parametrize("changes", [
    dict(num_classes=7), dict(num_classes=0), dict(num_classes=3, pool_type="max"), dict(num_classes=4, pool_type=""),
    dict(num_classes=4, reset_other=True),
], ids=str)
def test_heads_are_reset_as_timms(make, extra, changes):
    for more in ({}, extra):
        its, mine = both(make)
        if changes.get("pool_type") == "" and isinstance(its, theirs.ClassifierHead) and not its.use_conv:
            continue  # a linear layer takes no map
        for head in (its, mine):
            head.eval().reset(**{**changes, **more})
        assert not any(module.training for module in mine.modules())
        assert (mine.in_features, mine.num_features, mine.use_conv) == (its.in_features, its.num_features, its.use_conv)
        shapes = {key: value.shape for key, value in its.state_dict().items()}
        assert {key: value.shape for key, value in mine.state_dict().items()} == shapes
        mine.load_state_dict(its.state_dict())
        x = torch.randn(2, its.in_features, 4, 4)
        for pre_logits in (True, False):
            torch.testing.assert_close(mine(x, pre_logits=pre_logits), its(x, pre_logits=pre_logits))


@pytest.mark.parametrize("name", ["AttentionPool2d", "RotAttentionPool2d"])
@pytest.mark.parametrize("changes", [dict(num_classes=7), dict(num_classes=0), dict(pool_type="")], ids=str)
def test_pools_by_attention_are_reset_as_timms(name, changes):
    its, mine = both(lambda layers: getattr(layers, name)(16, out_features=5, embed_dim=24, num_heads=3).eval())
    x = torch.randn(2, 16, 7, 7)
    for pool in (its, mine):
        pool.reset(**changes)
    assert not mine.proj.training
    assert (mine.out_features, mine.head_dim, mine.scale) == (its.out_features, its.head_dim, its.scale)
    mine.load_state_dict(its.state_dict())
    torch.testing.assert_close(mine(x), its(x))


def test_a_head_by_its_parts():
    """As fine-tuning scripts take a ConvNeXt's head to pieces."""
    its, mine = both(lambda layers: layers.NormMlpClassifierHead(16, 5))
    x = torch.randn(2, 16, 3, 3)
    found = [nn.Sequential(head.global_pool, head.norm, head.flatten, head.drop, head.fc).eval()(x)
             for head in (its, mine)]
    torch.testing.assert_close(*found)


def test_pooling_that_is_not_flattened_any_more():
    pools = [layers.SelectAdaptivePool2d(pool_type="avg", flatten=True) for layers in (theirs, face)]
    for pool in pools:
        pool.flatten = nn.Identity()
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(*(pool(x) for pool in pools))
    assert pools[1].feat_mult() == 1 and not pools[1].is_identity() and isinstance(pools[1].pool, nn.Module)


def test_reset_says_what_it_cannot():
    head = face.NormMlpClassifierHead(16, 5)
    with pytest.raises(ValueError, match="in_features changes only without the norm; reset it with reset_other=True"):
        head.reset(5, in_features=12)
    with pytest.raises(ValueError, match="in_features changes only without the norm"):
        face.ClNormMlpClassifierHead(16, 5).reset(5, in_features=12)


@pytest.mark.parametrize("changes", [
    dict(num_classes=7, pool_type="avgmax"), dict(num_classes=0, pool_type=""), dict(num_classes=3, reset_other=True),
    dict(num_classes=3, reset_other=True, in_features=12),
], ids=str)
def test_the_head_for_channels_that_come_last_is_reset_as_timms(changes):
    its, mine = both(lambda layers: layers.ClNormMlpClassifierHead(16, 5, hidden_size=6))
    for head in (its, mine):
        head.reset(**changes)
    mine.load_state_dict(its.state_dict())
    x = torch.randn(2, 3, 3, its.in_features)
    torch.testing.assert_close(mine(x), its(x))


@pytest.mark.parametrize("kwargs", [
    dict(), dict(pool_type="catavgmax", use_conv=True), dict(pool_type="", use_conv=True), dict(input_fmt="NHWC"),
    dict(drop_rate=0.5), dict(num_classes=0),
], ids=str)
def test_classifiers_are_timms(kwargs):
    kwargs = {"num_classes": 3, **kwargs}
    its, mine = both(lambda layers: nn.Sequential(*layers.create_classifier(8, **kwargs)).eval())
    x = torch.randn(2, *((8, 8, 8) if kwargs.get("input_fmt") else (8, 4, 4)))
    torch.testing.assert_close(mine(x), its(x))


def test_patches_have_timms_attributes():
    for kwargs in (dict(), dict(flatten=False), dict(output_fmt="NHWC", strict_img_size=False, dynamic_img_pad=True),
                   dict(output_fmt="NLC", img_size=None)):
        its, mine = both(lambda layers, kwargs=kwargs: layers.PatchEmbed(
            **{"img_size": (8, 12), "patch_size": 4, "in_chans": 2, "embed_dim": 6, **kwargs}))
        for change in (None, dict(img_size=(16, 8)), dict(patch_size=2)):
            for embed in (its, mine):
                if change:
                    embed.set_input_size(**change)
            for name in ("img_size", "patch_size", "grid_size", "num_patches", "flatten", "output_fmt",
                         "strict_img_size", "dynamic_img_pad"):
                assert getattr(mine, name) == getattr(its, name), name
            assert mine.feat_ratio() == its.feat_ratio() and mine.feat_ratio(False) == its.feat_ratio(False)
            assert mine.dynamic_feat_size((9, 13)) == its.dynamic_feat_size((9, 13))
            mine.load_state_dict(its.state_dict())
            x = torch.randn(1, 2, *(its.img_size or (8, 8)))
            torch.testing.assert_close(mine(x), its(x), rtol=1e-4, atol=1e-5)


def test_layers_say_what_timms_say():
    for make in (lambda layers: layers.DropPath(0.123), lambda layers: layers.DropPath(0.5, False)):
        assert repr(make(face)) == repr(make(theirs))
    assert face.DropBlock2d(0.1, 3, batchwise=True, fast=False, couple_channels=False).couple_channels is False
