"""Looking into a transformer: hooks where the weights of attention pass, traced features, intermediates."""

import timm
import torch
from common import fill, images
from timm.layers import set_fused_attn
from timm.models import get_graph_node_names
from timm.models._features_fx import create_feature_extractor
from timm.utils import AttentionExtract

x = images(2, 3, 64, 64)
set_fused_attn(False)
model = fill(timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=5)).eval()
set_fused_attn(True)

maps = {}
for number, block in enumerate(model.blocks):
    assert not block.attn.fused_attn
    block.attn.attn_drop.register_forward_hook(lambda _, __, out, number=number: maps.__setitem__(number, out.detach()))
with torch.no_grad():
    logits = model(x)
    rolled = torch.eye(17).expand(2, -1, -1)
    for number in range(3):
        rolled = (0.5 * maps[number].mean(1) + 0.5 * torch.eye(17)) @ rolled
    last, between = model.forward_intermediates(x, indices=[0, 2], norm=True, output_fmt="NLC")
    prefix = model.forward_intermediates(x, indices=1, return_prefix_tokens=True, intermediates_only=True)
    nodes = [name for name in get_graph_node_names(model)[1] if name.endswith("attn.softmax")]
    traced = create_feature_extractor(model, nodes)(x)
    extract = AttentionExtract(model, method="fx")
    found = extract(x)
    scores = [block.attn.scale * block.attn.num_heads for block in model.blocks]

fused = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1)
RESULT = {"logits": logits, "maps": [maps[i] for i in range(3)], "rolled": rolled, "last": last, "between": between,
          "prefix": [list(pair) for pair in prefix], "nodes": nodes, "traced": dict(traced), "found": dict(found),
          "names": extract.names, "scores": torch.tensor(scores), "fused": bool(fused.blocks[0].attn.fused_attn),
          "pruned": [model.prune_intermediate_layers(1), len(model.blocks)]}
