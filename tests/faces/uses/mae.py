"""Masked autoencoding on a subclass of VisionTransformer."""

from functools import partial

import torch
from common import fill, images
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn


class MaskedAutoencoder(VisionTransformer):
    def __init__(self, decoder_dim=32, **kwargs):
        super().__init__(**kwargs)
        del self.head
        count = self.patch_embed.num_patches
        self.pos_embed = nn.Parameter(torch.zeros(1, count + 1, self.embed_dim), requires_grad=False)
        self.decoder_embed = nn.Linear(self.embed_dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, count + 1, decoder_dim))
        self.decoder = nn.Sequential(*(Block(decoder_dim, 2, 2.0, qkv_bias=True, norm_layer=nn.LayerNorm)
                                       for _ in range(2)))
        self.predict = nn.Linear(decoder_dim, self.patch_embed.patch_size[0] ** 2 * 3)

    def encode(self, x, order, kept):
        x = self.patch_embed(x) + self.pos_embed[:, 1:]
        x = x.gather(1, order[:, :kept, None].expand(-1, -1, x.shape[2]))
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, x, order, kept):
        tokens = self.decoder_embed(self.encode(x, order, kept))
        masks = self.mask_token.expand(len(x), order.shape[1] - kept, -1)
        y = torch.cat([tokens[:, 1:], masks], 1)
        y = y.gather(1, order.argsort(1)[:, :, None].expand(-1, -1, y.shape[2]))
        y = self.decoder(torch.cat([tokens[:, :1], y], 1) + self.decoder_pos_embed)
        return self.predict(y)[:, 1:]


model = MaskedAutoencoder(img_size=64, patch_size=16, embed_dim=48, depth=2, num_heads=3, mlp_ratio=4, qkv_bias=True,
                          norm_layer=partial(nn.LayerNorm, eps=1e-6))
keys = sorted(model.state_dict())
fill(model)
assert isinstance(model.patch_embed, PatchEmbed)
order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(i)) for i in range(2)])
out = model(images(2, 3, 64, 64), order, 4)
loss = out.square().mean()
loss.backward()
RESULT = {"out": out.detach(), "loss": loss.detach(), "keys": keys,
          "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None}}
