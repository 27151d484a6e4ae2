"""HRNet: what a step gives several maps for."""

import pytest
import timm
import torch

import mvlib
import mvlib.timm
from mvlib.models.hrnet import HighResolutionModule
from mvlib.models.resnet import BasicBlock


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


@pytest.mark.parametrize("location", ["incre", ""])
def test_features_before_either_part_of_the_head(location):
    theirs = timm.create_model("hrnet_w18_small", features_only=True, feature_location=location).eval()
    ours = mvlib.timm.create_model("hrnet_w18_small", features_only=True, feature_location=location).eval()
    ours.load_state_dict(theirs.state_dict())
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for one, other in zip(ours(image), theirs(image), strict=True):
            torch.testing.assert_close(one, other)


def test_a_file_of_the_whole_model_fits_one_without_head(tmp_path):
    whole = mvlib.create_model("hrnet_w18_small", pretrained=False)
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    maps = mvlib.create_model("hrnet_w18_small", pretrained=False, head="",
                              checkpoint_path=tmp_path / "whole.pt").eval()
    assert maps.num_classes == 0 and [m.shape[1] for m in maps(torch.zeros(1, 3, 64, 64))] == [16, 32, 64, 128]
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in maps.state_dict().items())


def test_an_unknown_head_is_refused():
    with pytest.raises(ValueError, match="unknown head 'seg'; known: 'classification', ''"):
        mvlib.create_model("hrnet_w18_small", pretrained=False, head="seg")


def test_a_number_for_each_branch_and_a_known_location():
    with pytest.raises(ValueError, match="num_blocks has a number for each of 2 branches, not 1"):
        HighResolutionModule(2, BasicBlock, [1], [4, 8], [4, 8], "SUM")
    with pytest.raises(ValueError, match="unknown feature_location 'head'; known: 'incre', ''"):
        mvlib.timm.create_model("hrnet_w18_small", features_only=True, feature_location="head")
