"""What is peculiar to SAM's image encoder: files of a whole SAM, other sizes, the neck."""

import pytest
import timm
import torch

import mvlib
from mvlib.models.vision_transformer_sam import Attention
from tests.parity import harness

TINY = dict(depth=2, embed_dim=48, num_heads=3, window_size=2, global_attn_indexes=(1,), neck_chans=32)


def pair(**kwargs):
    ours, theirs = (library.create_model("samvit_base_patch16", **TINY, **kwargs).eval() for library in (mvlib, timm))
    harness.randomize(theirs, torch.randn(1, 3, 96, 96))
    return ours, theirs


def same(found, expected):
    return harness.relative_difference(found, expected) < harness.TOLERANCE


def test_file_of_a_whole_sam(tmp_path):
    _, theirs = pair(img_size=96)
    state = {f"image_encoder.{key.replace('mlp.fc', 'mlp.lin')}": value for key, value in theirs.state_dict().items()}
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 32)
    torch.save(state, tmp_path / "sam.pth")
    ours = mvlib.create_model("samvit_base_patch16", **TINY, img_size=96, checkpoint_path=str(tmp_path / "sam.pth"))
    x = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        assert same(ours.eval()(x), theirs(x))


def test_weights_of_another_size_are_what_the_model_makes_of_them_as_it_runs():
    ours, theirs = pair(img_size=96)
    smaller = mvlib.create_model("samvit_base_patch16", **TINY, img_size=(64, 80)).eval()
    smaller.load_state_dict(smaller.fit_state_dict(theirs.state_dict()))
    square, x = mvlib.create_model("samvit_base_patch16", **TINY, img_size=64).eval(), torch.randn(1, 3, 64, 80)
    square.load_state_dict(square.fit_state_dict(theirs.state_dict()))
    with torch.inference_mode():
        assert same(square(x[..., :64]), theirs(x[..., :64]))
        assert smaller(x).isfinite().all() and smaller.pos_embed.shape == (1, 4, 5, 48)


@pytest.mark.parametrize("kwargs, message", [
    (dict(num_heads=5), "48 channels cannot be divided among 5 heads"),
    (dict(use_rope=True), "use_rope and use_rel_pos exclude each other"),
    (dict(patch_drop_rate=0.1), "windows need all patches: patch_drop_rate has to be 0, not 0.1"),
])
def test_what_the_constructor_refuses(kwargs, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        mvlib.create_model("samvit_base_patch16", **{**TINY, **kwargs}, img_size=64)


def test_offsets_need_a_size():
    with pytest.raises(ValueError, match="^use_rel_pos needs input_size, and no rotary embedding beside it$"):
        Attention(48, 3, use_rel_pos=True)
