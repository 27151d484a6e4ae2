"""Images to patch embeddings, and patch weights resampled to other patch sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .helpers import placeable, to_2tuple

__all__ = ["PatchEmbed", "resample_patch_embed"]

_LAYOUTS = ("NLC", "NHWC", "NCHW")


class PatchEmbed(nn.Module):
    """Cut an image into patches and embed each linearly; keys `proj`, `norm` (if given).

    Shapes: (B, in_chans, H, W) -> (B, rows * columns, embed_dim), or (B, rows, columns, embed_dim) for "NHWC".

    Args:
        img_size: Side, or (height, width), in pixels; None for one that takes all, as `cut_remainder`.
        patch_size: Side, or (height, width), of a patch.
        norm_layer: Optional norm of the embeddings.
        flatten: "NLC" where no `output_fmt` is given; otherwise "NCHW".
        output_fmt: "NLC", "NHWC" or "NCHW".
        bias: Whether the embedding has a bias.
        strict_img_size: Refuse images of another size; otherwise any multiple of the patch size will do.
        dynamic_img_pad: Pad images to a multiple of the patch size, with zeros below and to the right.
        cut_remainder: Take images of any size, without the pixels below and on the right that are less than a patch.

    Raises:
        ValueError: The image is smaller than a patch; from `forward`, its size is not one that the model takes.
    """

    @placeable
    def __init__(
        self,
        img_size: int | Sequence[int] | None = 224,
        patch_size: int | Sequence[int] = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        norm_layer: Callable[[int], nn.Module] | None = None,
        flatten: bool = True,
        output_fmt: str | None = None,
        bias: bool = True,
        strict_img_size: bool = True,
        dynamic_img_pad: bool = False,
        cut_remainder: bool = False,
    ) -> None:
        super().__init__()
        output_fmt = output_fmt or ("NLC" if flatten else "NCHW")
        if output_fmt not in _LAYOUTS:
            raise ValueError(f"output_fmt {output_fmt!r} is not one of {', '.join(_LAYOUTS)}")
        self.patch_size = to_2tuple(patch_size)
        self._set_img_size(img_size)
        self.output_fmt = output_fmt
        self.strict_img_size = strict_img_size
        self.dynamic_img_pad = dynamic_img_pad
        self.cut_remainder = cut_remainder
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=self.patch_size, stride=self.patch_size, bias=bias)
        self.norm = norm_layer(embed_dim) if norm_layer is not None else nn.Identity()

    def _set_img_size(self, img_size: int | Sequence[int] | None) -> None:
        self.img_size = None if img_size is None else to_2tuple(img_size)
        self.grid_size = None if img_size is None else tuple(s // p for s, p in zip(self.img_size, self.patch_size))
        self.num_patches = None if img_size is None else math.prod(self.grid_size)
        if self.num_patches == 0:
            raise ValueError(f"an image of {self.img_size} is smaller than a patch of {self.patch_size}")

    def set_input_size(
        self, img_size: int | Sequence[int] | None = None, patch_size: int | Sequence[int] | None = None
    ) -> None:
        """Change image and patch size, in place; the patch weights are resampled."""
        if patch_size is not None and to_2tuple(patch_size) != self.patch_size:
            self.patch_size = to_2tuple(patch_size)
            old = self.proj
            with torch.no_grad():
                weight = resample_patch_embed(old.weight, self.patch_size)
            old.weight = nn.Parameter(weight, old.weight.requires_grad)
            old.kernel_size = old.stride = self.patch_size
        self._set_img_size(self.img_size if img_size is None else img_size)

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Stride of the patch grid with respect to the image; of rows and columns unless `as_scalar`."""
        return max(self.patch_size) if as_scalar else self.patch_size

    def dynamic_feat_size(self, img_size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the patch grid for an image of (height, width)."""
        height, width = img_size[0], img_size[1]
        if self.dynamic_img_pad:
            return -(-height // self.patch_size[0]), -(-width // self.patch_size[1])
        return height // self.patch_size[0], width // self.patch_size[1]

    def forward(self, x: Tensor) -> Tensor:
        expected = self.img_size if self.strict_img_size else None
        cut = self.cut_remainder or self.img_size is None
        x = self.proj(_fit_patches(x, expected, self.patch_size, self.dynamic_img_pad, cut))
        if self.output_fmt == "NLC":
            x = x.flatten(2).transpose(1, 2)
        elif self.output_fmt == "NHWC":
            x = x.permute(0, 2, 3, 1)
        return self.norm(x)


@torch.fx.wrap  # one node in a traced graph: what it does depends on the input's size
def _fit_patches(
    x: Tensor, img_size: tuple[int, int] | None, patch_size: tuple[int, int], pad: bool, cut_remainder: bool
) -> Tensor:
    """The image, padded if it may be; an error where it is not of `img_size`, or patches do not divide it."""
    height, width = x.shape[-2:]
    divides = height % patch_size[0] == 0 and width % patch_size[1] == 0
    if img_size is not None:
        if height != img_size[0] or width != img_size[1]:
            padded = "" if divides else ", dynamic_img_pad=True"
            raise ValueError(f"the image is {height} x {width}, the model takes {img_size[0]} x {img_size[1]}; build "
                             f"it with img_size= or dynamic_img_size=True{padded}")
    elif not (pad or cut_remainder or divides):
        raise ValueError(f"the image is {height} x {width}, which patches of {patch_size[0]} x {patch_size[1]} do not "
                         f"divide; build the model with dynamic_img_pad=True")
    return F.pad(x, [0, -width % patch_size[1], 0, -height % patch_size[0]]) if pad else x


def resample_patch_embed(
    patch_embed: Tensor,
    new_size: Sequence[int],
    interpolation: str = "bicubic",
    antialias: bool = True,
    verbose: bool = False,
) -> Tensor:
    """Patch weights for another patch size, such that a resized patch keeps its embedding.

    Resizing a patch is a linear map R; the new weights are the old ones times R's pseudo-inverse.

    Args:
        patch_embed: (out, in, height, width).
        new_size: (height, width) wanted.
        interpolation, antialias: As `torch.nn.functional.interpolate` takes them.
        verbose: Without effect; timm's callers give it.

    Returns:
        (out, in, *new_size), in the weight's own type.

    Source: Beyer et al., "FlexiViT: One Model for All Patch Sizes", 2023.
    """
    old_size, new_size = tuple(patch_embed.shape[-2:]), to_2tuple(new_size)
    if old_size == new_size:
        return patch_embed
    if patch_embed.is_meta:
        return patch_embed.new_empty((*patch_embed.shape[:2], *new_size))
    basis = torch.eye(math.prod(old_size), device=patch_embed.device).reshape(-1, 1, *old_size)
    resized = F.interpolate(basis, size=new_size, mode=interpolation, antialias=antialias).flatten(1)
    inverse = torch.linalg.pinv(resized.T)
    return (patch_embed.float().flatten(2) @ inverse).unflatten(2, new_size).to(patch_embed.dtype)
