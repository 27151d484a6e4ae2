"""A model file of a training repository: a distilled transformer with two heads, registered by its own names."""

from functools import partial

import torch
from common import fill, images
from timm.models import create_model
from timm.models.layers import DropPath, Mlp, to_2tuple, trunc_normal_
from timm.models.registry import register_model
from timm.models.vision_transformer import PatchEmbed, VisionTransformer, _cfg
from torch import nn


class TwoHeads(VisionTransformer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.dist_token = nn.Parameter(torch.zeros(1, 1, self.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + 2, self.embed_dim))
        self.head_dist = nn.Linear(self.embed_dim, self.num_classes) if self.num_classes > 0 else nn.Identity()
        trunc_normal_(self.dist_token, std=0.02)
        trunc_normal_(self.pos_embed, std=0.02)
        self.head_dist.apply(self._init_weights)

    def forward_features(self, x):
        x = self.patch_embed(x)
        tokens = [token.expand(len(x), -1, -1) for token in (self.cls_token, self.dist_token)]
        x = self.pos_drop(torch.cat([*tokens, x], 1) + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x[:, 0], x[:, 1]

    def forward(self, x):
        x, distilled = self.forward_features(x)
        x, distilled = self.head(x), self.head_dist(distilled)
        return (x, distilled) if self.training else (x + distilled) / 2


class ScaledBlock(nn.Module):
    """A block of the user's own, passed to timm's class."""

    def __init__(self, dim, num_heads, mlp_ratio=4.0, drop_path=0.0, norm_layer=nn.LayerNorm, act_layer=nn.GELU,
                 proj_drop=0.0, **kwargs):
        super().__init__()
        self.norm, self.drop_path = norm_layer(dim), DropPath(drop_path)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.gamma = nn.Parameter(1e-1 * torch.ones(dim))

    def forward(self, x, **kwargs):
        return x + self.drop_path(self.gamma * self.mlp(self.norm(x)))


SMALL = dict(img_size=64, patch_size=16, embed_dim=48, depth=2, num_heads=3, mlp_ratio=4, qkv_bias=True,
             norm_layer=partial(nn.LayerNorm, eps=1e-6))


@register_model
def colony_two_heads(pretrained=False, **kwargs):
    kwargs = {key: value for key, value in kwargs.items() if not key.startswith(("pretrained", "cache"))}
    model = TwoHeads(**dict(SMALL, **kwargs))
    model.default_cfg = _cfg(crop_pct=0.7)
    return model


@register_model
def colony_scaled(pretrained=False, **kwargs):
    kwargs = {key: value for key, value in kwargs.items() if not key.startswith(("pretrained", "cache"))}
    model = VisionTransformer(block_fn=ScaledBlock, **dict(SMALL, **kwargs))
    model.default_cfg = _cfg()
    return model


two = create_model("colony_two_heads", pretrained=False, num_classes=7, drop_rate=0.0, drop_path_rate=0.1)
rates = [block.drop_path1.drop_prob if hasattr(block.drop_path1, "drop_prob") else 0.0 for block in two.blocks]
keys = {name: list(tensor.shape) for name, tensor in two.state_dict().items()}
fill(two).eval()
scaled = fill(create_model("colony_scaled", num_classes=3)).eval()
assert isinstance(two.patch_embed, PatchEmbed) and to_2tuple(3) == (3, 3)
x = images(2, 3, 64, 64)
with torch.no_grad():
    RESULT = {"logits": two(x), "scaled": scaled(x), "rates": torch.tensor(rates), "keys": keys,
              "cfg": {key: two.default_cfg[key] for key in ("crop_pct", "first_conv", "classifier", "num_classes")},
              "no_decay": sorted(two.no_weight_decay())}
    two.train()
    two.drop_path_rate = 0.0
    for block in two.blocks:
        block.drop_path1 = block.drop_path2 = nn.Identity()
    RESULT["both"] = two(x)
