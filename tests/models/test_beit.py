"""BEiT: biases that follow the image's size, and files of other sizes and layouts."""

import timm
import torch

import mvlib
from tests.parity import harness

TINY = dict(embed_dim=32, depth=2, num_heads=2, num_classes=5)


def pair(**kwargs):
    return [library.create_model("beit_base_patch16_224", **TINY, **kwargs).eval() for library in (mvlib, timm)]


def same(ours, theirs, *size):
    x = torch.randn(2, 3, *size)
    with torch.inference_mode():
        return harness.relative_difference(ours(x), theirs(x)) < harness.TOLERANCE


def test_shared_and_own_biases_follow_another_size():
    kinds = dict(img_size=64, use_shared_rel_pos_bias=True, use_abs_pos_emb=True)
    ours, theirs = pair(**kinds)
    harness.randomize(theirs, torch.randn(1, 3, 64, 64))
    ours.load_state_dict(theirs.state_dict())
    for size in ((96, 64), (32, 32)):
        for model in (ours, theirs):
            model.set_input_size(img_size=size)
        assert same(ours, theirs, *size)


def test_file_of_the_authors_layout_and_another_size(tmp_path):
    """In "module", with the index of positions beside each table."""
    _, source = pair(img_size=64)
    harness.randomize(source, torch.randn(1, 3, 64, 64))
    state = dict(source.state_dict())
    for i in range(2):
        state[f"blocks.{i}.attn.relative_position_index"] = torch.zeros(17, 17, dtype=torch.long)
    torch.save({"module": state}, tmp_path / "beit.pth")
    ours, theirs = pair(img_size=96)
    mvlib.load_checkpoint(ours, tmp_path / "beit.pth")
    theirs.load_state_dict(timm.models.beit.checkpoint_filter_fn({"module": state}, theirs))
    assert same(ours, theirs, 96, 96)
