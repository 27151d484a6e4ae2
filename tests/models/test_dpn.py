"""DPN: options that no architecture has, files without counters, and what it refuses."""

import re

import pytest
import torch

from mvlib.models.dpn import DPN, DualPathBlock

from .pairs import assert_same, assert_same_effect, build, pair

SMALL = dict(k_sec=(1, 2), inc_sec=(4, 8), k_r=16, groups=4)


def test_arguments_have_timms_effect():
    assert_same_effect("dpn68b", 70, act_layer="silu", norm_layer="groupnorm1", global_pool="catavgmax", **SMALL)


def test_without_pooling_logits_are_a_map():
    ours, theirs, x = pair("dpn68", global_pool="", num_classes=5, **SMALL)
    assert_same(ours, theirs, x)
    assert ours(x).shape == (2, 5, 8, 8)


def test_the_converted_files_have_no_counters(tmp_path):
    """Those of the authors' MXNet weights are older than batch norms' counters."""
    _, theirs, x = pair("dpn68b", **SMALL)
    file = {key: value for key, value in theirs.state_dict().items() if "num_batches_tracked" not in key}
    torch.save(file, tmp_path / "dpn68b_extra-84854c156.pth")
    assert_same(build("dpn68b", checkpoint_path=tmp_path / "dpn68b_extra-84854c156.pth", **SMALL), theirs, x)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(k_sec=(1, 1)), "k_sec and inc_sec have a number for each stage, not 2 and 4"),
    (dict(output_stride=16), "output_stride is 32 for a DPN, not 16"),
    (dict(norm_layer="batch"), "unknown norm layer 'batch'"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        DPN(**kwargs)


def test_an_unknown_type_of_block_is_refused():
    with pytest.raises(ValueError, match="unknown block_type 'up'; known: 'proj', 'down', 'normal'"):
        DualPathBlock(20, 8, 12, 16, 4, 4, "up")
