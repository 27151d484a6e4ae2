"""MambaOut: timm's options, the authors' files, and what is refused."""

import pytest
import torch
from torch import nn

from mvlib.models.mambaout import MambaOutStage, MlpHead

from .pairs import assert_same, assert_same_effect, build, pair

SMALL = dict(depths=(1, 1, 1, 1), dims=(16, 24, 32, 40))


@pytest.mark.parametrize(("name", "kwargs"), [
    ("mambaout_femto", dict(SMALL, conv_ratio=0.5, kernel_size=5, global_pool="", in_chans=1, num_classes=0)),
    ("mambaout_femto", dict(SMALL, ls_init_value=0.5, stem_mid_norm=False, act_layer="relu", drop_rate=0.1)),
    ("test_mambaout", dict(depths=(1, 2), dims=(16, 24), global_pool="avgmax", conv_ratio=1.5)),
], ids=str)
def test_arguments_have_timms_effect(name, kwargs):
    assert_same_effect(name, **kwargs)


def test_the_authors_files_load(tmp_path):
    """In them, downsampling stands beside the stages, and the last norm before the head."""
    _, theirs, x = pair("mambaout_femto", **SMALL)
    original = {}
    for key, value in theirs.state_dict().items():
        for ours, authors in (("stem.", "downsample_layers.0."), ("head.norm.", "norm."), (".blocks.", "."),
                              ("head.pre_logits.fc.", "head.fc1."), ("head.pre_logits.norm.", "head.norm."),
                              ("head.fc.", "head.fc2.")):
            if ours in key:
                key = key.replace(ours, authors)
                break
        if ".downsample." in key:
            key = key.replace("stages.", "downsample_layers.").replace(".downsample.", ".")
        original[key] = value
    assert {"downsample_layers.3.norm.weight", "stages.1.0.fc1.weight", "norm.bias", "head.fc2.bias"} <= original.keys()
    torch.save({"model": original}, tmp_path / "mambaout.pth")
    assert_same(build("mambaout_femto", checkpoint_path=tmp_path / "mambaout.pth", **SMALL), theirs, x)


def test_the_scale_begins_where_timms_does():
    assert build("test_mambaout").stages[0].blocks[0].ls.gamma.unique().item() == pytest.approx(1e-5)
    assert isinstance(build("mambaout_femto", **SMALL).stages[0].blocks[0].ls, nn.Identity)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: MlpHead(8, 3, pool_type="max"), "unknown global_pool 'max'; known: 'avg', ''"),
    (lambda: MambaOutStage(8, 16, downsample="pool"), "downsample 'pool' cannot change 8 channels to 16: .* conv_nf"),
])
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
