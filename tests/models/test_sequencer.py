"""Sequencer: timm's options, the authors' files, and what is refused."""

import pytest
import torch

from mvlib.models.sequencer import RNN2dBase

from .pairs import assert_same, assert_same_effect, build, pair

SMALL = dict(layers=(1, 1, 2, 1), embed_dims=(16, 24, 24, 32), hidden_sizes=(4, 8, 8, 8))


@pytest.mark.parametrize("kwargs", [
    dict(union="add", num_rnn_layers=2, stem_norm=True, global_pool="catavgmax", in_chans=1),
    dict(union="vertical", bidirectional=False, num_classes=0),
    dict(union="horizontal", mlp_ratios=(1.0, 2.0, 2.0, 1.0), global_pool="", num_classes=0),
    dict(with_fc=False, embed_dims=(16, 32, 32, 32)),
], ids=str)
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect("sequencer2d_s", 56, **{**SMALL, **kwargs})


def test_the_authors_files_load(tmp_path):
    """In them, downsampling is the last item of the stage before."""
    _, theirs, x = pair("sequencer2d_s", 56, **SMALL)
    original = {}
    for key, value in theirs.state_dict().items():
        parts = key.replace("head.fc.", "head.").split(".")
        if parts[0] == "stages":
            parts = ["blocks", str(int(parts[1]) - 1), "9", *parts[3:]] if parts[2] == "downsample" else \
                ["blocks", parts[1], *parts[3:]]
        original[".".join(parts)] = value
    assert {"blocks.0.9.down.weight", "blocks.2.1.norm1.weight", "head.weight"} <= original.keys()
    torch.save({"model": original}, tmp_path / "sequencer.pth")
    assert_same(build("sequencer2d_s", checkpoint_path=tmp_path / "sequencer.pth", **SMALL), theirs, x)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: RNN2dBase(8, 8, union="both"), "unknown union 'both'; known: cat, add, vertical, horizontal"),
    (lambda: RNN2dBase(8, 8, with_fc=False), "without with_fc the output has 32 channels, not the input's 8"),
    (lambda: build("sequencer2d_s", layers=(1, 1)), "hidden_sizes and mlp_ratios have one value a stage"),
])
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
