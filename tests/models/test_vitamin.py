"""What is peculiar to ViTamin: another description of its convolutions, OpenCLIP's files."""

import timm
import torch
from timm.models import vitamin as theirs_module

import mvlib
from mvlib.models import vitamin as ours_module
from tests.parity import harness


def tiny(library, module):
    cfg = module.VitCfg(embed_dim=(16, 32, 48), depths=(1, 2, 1), stem_width=8)
    return library.create_model("vitamin_small_224", embed_cfg=cfg, embed_dim=48, depth=2, num_heads=3, img_size=64,
                                num_classes=5).eval()


def test_open_clip_file_of_other_convolutions(tmp_path):
    ours, theirs = tiny(mvlib, ours_module), tiny(timm, theirs_module)
    x = torch.randn(1, 3, 64, 64)
    harness.randomize(theirs, x)
    state = {f"visual.trunk.{key}": value for key, value in theirs.state_dict().items() if "head" not in key}
    state["visual.head.proj.weight"] = theirs.head.weight.detach()
    theirs.head.bias.data.zero_()
    torch.save(state, tmp_path / "clip.pt")
    mvlib.load_checkpoint(ours, str(tmp_path / "clip.pt"))
    with torch.inference_mode():
        assert harness.relative_difference(ours(x), theirs(x)) < harness.TOLERANCE
