"""CrossViT: the authors' files, images of other sizes, taps by branch, and what it refuses."""

import pytest
import torch

from mvlib.models.crossvit import CrossVit, PatchEmbed

TINY = dict(img_size=48, patch_size=(12, 16), embed_dim=(8, 16), num_heads=(2, 2), depth=((1, 1, 0),) * 2,
            mlp_ratio=(2, 2, 1), num_classes=3)


def test_the_authors_files_load():
    model, other = CrossVit(**TINY), CrossVit(**TINY)
    theirs = {key.replace("pos_embed_", "pos_embed.").replace("cls_token_", "cls_token."): value
              for key, value in model.state_dict().items()}
    assert "pos_embed.1" in theirs
    other.load_state_dict(theirs)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_taps_come_branch_by_branch_and_images_are_scaled():
    model = CrossVit(**TINY).eval()
    assert [(info["num_chs"], info["module"]) for info in model.feature_info] == [
        (8, "blocks.0"), (8, "blocks.1"), (16, "blocks.0"), (16, "blocks.1")]
    with torch.no_grad():
        maps = model.forward_intermediates(torch.zeros(1, 3, 60, 50), indices=[1, 2], intermediates_only=True)
    assert [tuple(x.shape) for x in maps] == [(1, 8, 4, 4), (1, 16, 3, 3)]


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(global_pool="max"), "unknown global_pool 'max'; known: 'token', 'avg', ''"),
    (dict(img_size=50), "images of 50x50 pixels cannot be divided into patches of 12"),
])
def test_bad_arguments_are_reported(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CrossVit(**{**TINY, **kwargs})
    with pytest.raises(ValueError, match="multi_conv is for patches of 12 and 16 pixels, not 8"):
        PatchEmbed(patch_size=8, multi_conv=True)
