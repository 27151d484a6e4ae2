"""A detector's neck on features_only: widths and strides are read from the backbone."""

import timm
import torch
from common import fill, images
from torch import nn
from torch.nn.functional import interpolate


class Pyramid(nn.Module):
    def __init__(self, name, width=8, **kwargs):
        super().__init__()
        self.body = timm.create_model(name, features_only=True, pretrained=False, **kwargs)
        self.is_last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"
        self.lateral = nn.ModuleList(nn.Conv2d(chs, width, 1) for chs in self.body.feature_info.channels())

    def forward(self, x):
        maps = [m.permute(0, 3, 1, 2) if self.is_last else m for m in self.body(x)]
        found = [self.lateral[-1](maps[-1])]
        for layer, m in zip(reversed(self.lateral[:-1]), reversed(maps[:-1])):
            found.insert(0, layer(m) + interpolate(found[0], m.shape[-2:], mode="nearest"))
        return found


BACKBONES = {
    "resnet18": dict(out_indices=(2, 3, 4)),
    "resnet18 dilated": dict(output_stride=8, out_indices=(-2, -1)),
    "mobilenetv3_small_050": dict(out_indices=(1, 2, 3, 4), in_chans=4),
    "convnext_atto": dict(out_indices=(0, 3)),
    "regnetx_002": dict(),
    "swin_tiny_patch4_window7_224": dict(img_size=64, embed_dim=24, depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 6),
                                         window_size=4),
    "vit_tiny_patch16_224": dict(img_size=64, depth=2, out_indices=(0, 1)),
}
RESULT = {}
for name, kwargs in BACKBONES.items():
    model = fill(Pyramid(name.split()[0], **kwargs)).eval()
    info = model.body.feature_info
    with torch.no_grad():
        RESULT[name] = {"maps": model(images(1, kwargs.get("in_chans", 3), 64, 64)), "channels": info.channels(),
                        "reduction": info.reduction(), "names": info.module_name(),
                        "indices": list(info.out_indices), "dicts": info.get_dicts(keys=["num_chs", "reduction"])}
