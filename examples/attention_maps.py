"""Where a model looks: Grad-CAM for a convolutional network, attention rollout for a vision transformer.

    python examples/attention_maps.py                       # scikit-image's cat and coffee, by tf_efficientnet_lite0
    python examples/attention_maps.py PHOTO... --model resnet50.a1_in1k
    python examples/attention_maps.py PHOTO --model vit_tiny_patch16_224          # add a tag, .augreg_in21k_ft_in1k

Pictures are saved with the map over them, red where it is largest. tf_efficientnet_lite0's weights are a package's; a
transformer's have to be fetched (a tag in its name), else its map is of random weights. arXiv 1610.02391, 2005.00928.
"""

import argparse
import copy
from pathlib import Path

import torch
from demo_data import photographs, run, save
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

import mvlib
from mvlib.data import open_image
from mvlib.inference import class_names_of


def grad_cam(model: mvlib.ImageModel, images: Tensor, target: int) -> Tensor:
    """Images (1, C, H, W) -> (h, w): final feature maps, weighted by how much each one's mean raises the logit."""
    maps = model.forward_features(images).detach().requires_grad_()
    if maps.ndim != 4 or maps.shape[1] != model.num_features:
        raise mvlib.ConfigError(f"'{model.architecture}' has neither maps (C, h, w) nor plain attention")
    gradient, = torch.autograd.grad(model.forward_head(maps)[0, target], maps)
    return (gradient.mean((2, 3), keepdim=True) * maps).sum(1)[0].relu().detach()


@torch.no_grad()
def rollout(model: mvlib.ImageModel, images: Tensor) -> Tensor:
    """Images (1, C, H, W) -> (h, w): how much of each patch reaches the class token (or all, where there is none)."""
    seen: list[Tensor] = []  # (1, heads, tokens, tokens), a layer each
    model = copy.deepcopy(model)  # the hooks go with it
    for block in model.blocks:
        block.attn.fused_attn = False  # fused attention never has its map in memory
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(images)
    flow = same = torch.eye(seen[0].shape[-1])
    for attention in seen:
        flow = (attention[0].mean(0) + same) / 2 @ flow
    prefix = model.num_prefix_tokens
    return (flow[0] if prefix else flow.mean(0))[prefix:].reshape(model.patch_embed.grid_size)


def overlay(image: Tensor, heat: Tensor, mean: tuple, std: tuple) -> Image.Image:
    """The normalised image (3, H, W) that a model saw with a map (h, w) over it, from blue (least) to red (most)."""
    pixels = (image.permute(1, 2, 0) * torch.tensor(std) + torch.tensor(mean)) * 255
    picture, heat = Image.fromarray(pixels.round().byte().numpy()), heat - heat.min()
    colours = Image.fromarray(colormaps["jet"]((heat / heat.max().clamp(min=1e-9)).numpy(), bytes=True)).convert("RGB")
    return Image.blend(picture, colours.resize(picture.size, Image.Resampling.BICUBIC), 0.45)


def main(argv: list[str] | None = None) -> dict[Path, Tensor]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--model", default="tf_efficientnet_lite0.pip_in1k")
    parser.add_argument("--output", type=Path, default=Path("output/examples/maps"))
    args = parser.parse_args(argv)
    model, found = mvlib.create_model(args.model).eval(), {}
    transform = mvlib.create_transform(**(config := mvlib.resolve_data_config(model=model)))
    for path in args.pictures or [path for path in photographs() if path.stem in ("chelsea", "coffee")]:
        images = transform(open_image(path))[None]
        likeliest = int(model(images).argmax())
        attends = hasattr(getattr(model, "blocks", [None])[0], "attn")
        heat = rollout(model, images) if attends else grad_cam(model, images, likeliest)
        found[args.output / f"{path.stem}.png"] = heat
        save(overlay(images[0], heat, config["mean"], config["std"]), args.output / f"{path.stem}.png")
        print(f"{path.name}: {class_names_of(model)[likeliest]}; strongest at {divmod(int(heat.argmax()), len(heat))}")
    return found


if __name__ == "__main__":
    run(main)
