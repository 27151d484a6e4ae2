"""HRNet: what a step gives several maps for."""

import timm
import torch

import mvlib


def test_taps_of_the_parallel_branches_alone_and_together():
    theirs = timm.create_model("hrnet_w18_small").eval()
    ours = mvlib.create_model("hrnet_w18_small", pretrained=False).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for indices in ([0], [0, 3], [4], None):
            final, maps = ours.forward_intermediates(image, indices, stop_early=indices == [0])
            expected_final, expected = theirs.forward_intermediates(image, indices, stop_early=indices == [0])
            for one, other in zip([final, *maps], [expected_final, *expected], strict=True):
                torch.testing.assert_close(one, other)


def test_without_what_only_the_classifier_needs():
    model = mvlib.create_model("hrnet_w18_small", pretrained=False)
    model.prune_intermediate_layers([2])
    assert not list(model.downsamp_modules.parameters()) and not list(model.final_layer.parameters())
    assert len(model.incre_modules) == 2 == len(model.feature_info) - 1
    model.prune_intermediate_layers([0])
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {"conv1", "bn1"}
