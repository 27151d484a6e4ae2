"""A segmentation head on `features_only`: a small feature pyramid that finds coins, from 28 crops of one photograph.

    python examples/segmentation_head.py                               # scikit-image's coins, under a minute
    python examples/segmentation_head.py DATA --classes 21 --steps 2000 --img-size 512 --model resnet50.a1_in1k

DATA has images/ and masks/ (PNG, numbers of classes, 255: unknown) in one order; the last fifth is held out. The head
is that of Panoptic FPN (arXiv 1901.02446), made smaller.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from demo_data import run, write_coins
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

import mvlib
from mvlib.data import find_images, open_image


class FPNSegmenter(nn.Module):
    """Images (B, 3, H, W) -> logits (B, classes, H, W): all levels in `width` channels, added from the coarsest on."""

    def __init__(self, backbone: mvlib.FeatureExtractor, classes: int, width: int = 64) -> None:
        super().__init__()
        self.backbone = backbone
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in backbone.feature_info.channels())
        self.head = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
                                  nn.Conv2d(width, classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        *finer, top = (lateral(maps) for lateral, maps in zip(self.lateral, self.backbone(images)))
        for maps in reversed(finer):
            top = maps + interpolate(top, maps.shape[2:], mode="bilinear")
        return interpolate(self.head(top), images.shape[2:], mode="bilinear")


def iou(found: Tensor, truth: Tensor, classes: int) -> list[float]:
    """Intersection over union of each class, over all pixels whose class is known."""
    pairs = [(found[truth >= 0] == number, truth[truth >= 0] == number) for number in range(classes)]
    return [((ours & theirs).sum() / (ours | theirs).sum()).item() for ours, theirs in pairs]


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="folder with images/ and masks/")
    parser.add_argument("--model", default="tf_efficientnet_lite0.pip_in1k")
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--img-size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=40)
    args, _ = parser.parse_args(argv), torch.manual_seed(0)
    data, side = args.data or write_coins(Path("output/examples/coins")), args.img_size
    model = FPNSegmenter(mvlib.create_model(args.model, features_only=True, out_indices=(1, 2, 3, 4)), args.classes)
    transform = mvlib.create_transform(**mvlib.resolve_data_config(
        {"input_size": (3, side, side), "crop_pct": 1.0, "crop_mode": "squash"}, model=model.backbone))
    images = torch.stack([transform(open_image(path)) for path in find_images(data / "images")])
    shrunk = [Image.open(path).resize((side, side), Image.Resampling.NEAREST) for path in find_images(data / "masks")]
    masks = torch.from_numpy(np.stack(shrunk)).long()
    masks[masks == 255] = -100  # what cross_entropy leaves out
    held_out = len(images) - len(images) // 5
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for _ in range(args.steps):
        chosen = torch.randint(held_out, (8,))
        flip = [axis for axis in (-1, -2) if torch.rand(()) < 0.5]
        loss = cross_entropy(model(images[chosen].flip(flip)), masks[chosen].flip(flip))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    found = torch.cat([model.eval()(image[None]).argmax(1) for image in images[held_out:]])
    ious = iou(found, masks[held_out:], args.classes)
    print(f"loss {loss:.3f}; IoU on {len(found)} pictures held out:", *(f"{value:.3f}" for value in ious))
    return ious


if __name__ == "__main__":
    run(main)
