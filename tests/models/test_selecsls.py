"""SelecSLS: what the blocks of a stage share."""

import torch

from mvlib.models.selecsls import SelecSls


@torch.no_grad()
def test_blocks_read_what_their_stages_first_block_wrote():
    model = SelecSls(features=((8, 16, 1), (12, 24, 3)), head=(32, 40), num_classes=3).eval()
    seen = {}
    for name, block in model.features.named_children():
        block.register_forward_hook(lambda block, args, out, name=name: seen.update({name: (args, out)}))
    maps = model.forward_intermediates(torch.randn(2, 3, 64, 64), intermediates_only=True)
    first, = seen["1"][1][:1]
    assert len(seen["1"][0]) == 1  # no skip of the stage before
    assert seen["2"][0][1] is first and seen["3"][0][1] is first
    assert [info["module"] for info in model.feature_info] == ["stem.2", "features.0", "features.3", "head.1"]
    for info, x in zip(model.feature_info, maps, strict=True):
        assert x.shape == (2, info["num_chs"], 64 // info["reduction"], 64 // info["reduction"])
