"""CSPNeXt: OpenMMLab's files, and what it refuses."""

import pytest
import torch

from mvlib.models.cspnext import CspNext

TINY = dict(depths=(1, 1, 1, 1), channels=(16, 16, 24, 32), num_classes=3)


def test_openmmlabs_files_load():
    model = CspNext(**TINY)
    theirs = {}
    for key, value in model.state_dict().items():
        first, _, rest = key.partition(".")
        if first == "stages":
            stage, _, rest = rest.partition(".")
            first = f"stage{int(stage) + 1}"
        theirs[key if first == "head" else f"backbone.{first}.{rest}"] = value + 1
    assert theirs.keys() & model.state_dict().keys() == {"head.fc.weight", "head.fc.bias"}
    other = CspNext(**TINY)
    other.load_state_dict(theirs)
    assert all(torch.equal(value, model.state_dict()[key] + 1) for key, value in other.state_dict().items())


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "output_stride is 8, 16 or 32, not 4"),
    (dict(depths=(1, 1)), "depths and channels have a number for each stage, not 2 and 4"),
])
def test_bad_arguments_are_reported(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CspNext(**{**TINY, **kwargs})
