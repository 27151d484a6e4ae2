"""What others' code sets on a model that gives features."""

import timm
import torch

import mvlib


def test_outputs_are_chosen_anew_by_return_layers():
    """As transformers asks a backbone for all its hidden states."""
    arguments = dict(features_only=True, out_indices=(1, 3))
    theirs, ours = timm.create_model("resnet18", **arguments).eval(), mvlib.create_model("resnet18", **arguments).eval()
    ours.load_state_dict(theirs.state_dict())
    x, before = torch.randn(1, 3, 64, 64), dict(ours.return_layers)
    for model in (theirs, ours):
        model.return_layers = {row["module"]: str(i) for i, row in enumerate(model.feature_info.info)}
    assert [f.shape for f in ours(x)] == [f.shape for f in theirs(x)]
    assert len(ours(x)) == 4 and all(map(torch.equal, ours(x), theirs(x)))
    ours.return_layers = before
    assert [f.shape[1] for f in ours(x)] == [64, 256]
