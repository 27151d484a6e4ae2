"""What the scripts here share: weights that do not depend on who initializes, images that need no download."""

import zlib

import torch
from PIL import Image


@torch.no_grad()
def fill(model):
    """Weights from their names alone, of about the size that training leaves."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point() or name.endswith(("attn_mask", "relative_position_index")):
            continue
        draw = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.copy_(1 + 0.1 * draw.tanh())
        elif tensor.ndim < 2:
            tensor.copy_(0.1 * draw)
        else:
            tensor.copy_(draw / max(tensor[0].numel(), 1) ** 0.5)
    return model


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def image_folder(root, per_class=4, size=48):
    """root/train and root/val with three classes of plain colours and noise."""
    for split in ("train", "val"):
        for label, colour in enumerate(((200, 30, 30), (30, 200, 30), (30, 30, 200))):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(per_class):
                noise = 40 * images(size, size, 3, seed=label * 100 + number)
                pixels = (torch.tensor(colour) + noise).clamp(0, 255).byte().numpy()
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root
