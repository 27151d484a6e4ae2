"""DLA: the authors' files, maps of logits, and what it refuses."""

import re

import pytest
import torch

from mvlib.errors import CheckpointError
from mvlib.loading import load_checkpoint
from mvlib.models.dla import DLA
from tests.parity import harness

from .pairs import assert_same, build, pair

SMALL = dict(channels=(8, 8, 16, 16, 32, 32))


def test_the_authors_file_has_projections_that_nothing_reads(tmp_path):
    ours, theirs, x = pair("dla34", levels=(1, 1, 1, 2, 2, 1), **SMALL)
    file = {key: value for key, value in theirs.state_dict().items() if "num_batches_tracked" not in key}
    unread = {"level4.project.0.weight": torch.randn(32, 16, 1, 1), "level4.project.1.weight": torch.ones(32)}
    torch.save({**file, **unread}, tmp_path / "dla34-ba72cf86.pth")
    fresh = build("dla34", checkpoint_path=tmp_path / "dla34-ba72cf86.pth", levels=(1, 1, 1, 2, 2, 1), **SMALL)
    assert_same(fresh, theirs, x)
    torch.save({**file, "level4.projection.0.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="level4.projection.0.weight"):
        load_checkpoint(ours, tmp_path / "other.pth")


@pytest.mark.parametrize(("pool", "classes", "shape"), [
    ("", 5, (2, 5, 2, 2)), ("", 0, (2, 32, 2, 2)), ("max", 5, (2, 5))])
def test_without_pooling_logits_are_a_map(pool, classes, shape):
    ours, theirs, x = pair("dla46_c", global_pool=pool, num_classes=classes, **SMALL)
    assert_same(ours, theirs, x)
    assert ours(x).shape == shape
    for model in (ours, theirs):
        torch.manual_seed(0)
        model.reset_classifier(3, "catavgmax")
    harness.randomize(theirs, x)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours.eval(), theirs, x)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(levels=(1, 1, 1)), "levels and channels have a number for each of 6, not 3 and 6"),
    (dict(output_stride=16), "output_stride is 32 for a DLA, not 16"),
    (dict(block="bottle"), "unknown block 'bottle'; known: basic, bottleneck, bottle2neck"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        DLA(**{"levels": (1,) * 6, **SMALL, **kwargs})
