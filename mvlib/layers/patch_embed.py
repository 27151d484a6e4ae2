"""Images to patch embeddings, and patch weights resampled to other patch sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .format import Format, nchw_to
from .helpers import move_to_end, placeable, to_2tuple

__all__ = [
    "HybridEmbed", "HybridEmbedWithSize", "PatchEmbed", "PatchEmbedInterpolator", "PatchEmbedResamplerFixedOrigSize",
    "PatchEmbedWithSize", "resample_patch_embed",
]


class PatchGrid(nn.Module):
    """What cuts images into patches of `patch_size` (height, width), and with `dynamic_img_pad` pads them."""

    patch_size: tuple[int, int]
    dynamic_img_pad: bool = False

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Stride of the patch grid with respect to the image; of rows and columns unless `as_scalar`."""
        return max(self.patch_size) if as_scalar else self.patch_size

    def dynamic_feat_size(self, img_size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the patch grid for an image of (height, width)."""
        height, width = img_size[0], img_size[1]
        if self.dynamic_img_pad:
            return -(-height // self.patch_size[0]), -(-width // self.patch_size[1])
        return height // self.patch_size[0], width // self.patch_size[1]


class PatchEmbed(PatchGrid):
    """Cut an image into patches and embed each linearly; keys `proj`, `norm` (if given).

    Shapes: (B, in_chans, H, W) -> (B, rows * columns, embed_dim), or (B, rows, columns, embed_dim) for "NHWC".

    Args:
        img_size: Side, or (height, width), in pixels; None for one that takes all, as `cut_remainder`.
        patch_size: Side, or (height, width), of a patch.
        norm_layer: Optional norm of the embeddings.
        flatten: "NLC" where no `output_fmt` is given; otherwise "NCHW".
        output_fmt: "NLC", "NHWC", "NCHW" or "NCL".
        bias: Whether the embedding has a bias.
        strict_img_size: Refuse images of another size; otherwise any multiple of the patch size will do.
        dynamic_img_pad: Pad images to a multiple of the patch size, with zeros below and to the right.
        cut_remainder: Take images of any size, without the pixels below and on the right that are less than a patch.

    Attributes:
        may_be_dynamic: Whether the model has `dynamic_img_size`; the error for an image of another size names it then.

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
        layouts = [layout.value for layout in Format]
        if output_fmt is not None and output_fmt not in layouts:
            raise ValueError(f"output_fmt {output_fmt!r} is not one of {', '.join(layouts)}")
        self.patch_size = to_2tuple(patch_size)
        self._set_img_size(img_size)
        self.flatten = flatten and output_fmt is None
        self.output_fmt = Format(output_fmt or "NCHW")
        self.strict_img_size = strict_img_size
        self.dynamic_img_pad = dynamic_img_pad
        self.cut_remainder = cut_remainder
        self.may_be_dynamic = False
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

    def forward(self, x: Tensor) -> Tensor:
        expected = self.img_size if self.strict_img_size else None
        cut = self.cut_remainder or self.img_size is None
        return self._embed(fit_patches(x, expected, self.patch_size, self.dynamic_img_pad, cut, self.may_be_dynamic))

    def _embed(self, x: Tensor) -> Tensor:
        return self.norm(self._arrange(self.proj(x)))

    def _arrange(self, x: Tensor) -> Tensor:
        return nchw_to(x, Format.NLC if self.flatten else self.output_fmt)


class PatchEmbedWithSize(PatchEmbed):
    """`PatchEmbed` that returns the rows and columns of the patches, too: (embeddings, grid).

    It takes images of any multiple of the patch size; where `img_size` is None, of all sizes.
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
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim, norm_layer, flatten, output_fmt, bias,
                         strict_img_size=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:  # type: ignore[override]
        x = self.proj(fit_patches(x, None, self.patch_size, False, self.img_size is None, False))
        return self.norm(self._arrange(x)), x.shape[-2:]


class HybridEmbed(PatchEmbed):
    """Cut a network's feature map into patches and embed each linearly; keys `backbone`, `proj`, `norm` (if given).

    Shapes: (B, in_chans, H, W) -> as `PatchEmbed`, which has the other arguments. A remainder of the feature map that
    is less than a patch is cut off, or padded.

    Args:
        backbone: Image -> feature map (B, C, rows, columns), or several, of which the last counts.
        img_size: Side, or (height, width), of the image in pixels.
        patch_size: Side, or (height, width), of a patch of the feature map.
        feature_size: Side, or (height, width), of the feature map; found out unless given.
        feature_ratio: Its stride, where its size is given; 16 unless given.
        proj: Whether patches are embedded; otherwise they are single positions, of `embed_dim` channels.

    Raises:
        ValueError: Patches do not divide the feature map, or there is no embedding where one is needed; from `forward`,
            the image's size is not one that the model takes.
    """

    @placeable
    def __init__(
        self,
        backbone: nn.Module,
        img_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 1,
        feature_size: int | Sequence[int] | None = None,
        feature_ratio: int | Sequence[int] | None = None,
        in_chans: int = 3,
        embed_dim: int = 768,
        bias: bool = True,
        proj: bool = True,
        flatten: bool = True,
        output_fmt: str | None = None,
        strict_img_size: bool = True,
        dynamic_img_pad: bool = False,
        norm_layer: Callable[[int], nn.Module] | None = None,
    ) -> None:
        chs, *found_size = _feature_shape(backbone, in_chans, img_size)
        if feature_size is not None:
            feature_ratio = feature_ratio or 16
        super().__init__(None, patch_size, chs, embed_dim, norm_layer, flatten, output_fmt, bias, strict_img_size,
                         dynamic_img_pad)
        if not proj:
            self.proj = nn.Identity()  # type: ignore[assignment]
        if not proj and (chs != embed_dim or self.patch_size != (1, 1)):
            raise ValueError(f"without an embedding, {chs} channels in patches of {self.patch_size} cannot become "
                             f"embed_dim {embed_dim}")
        self.in_chans = in_chans
        self.backbone = backbone
        move_to_end(self, "proj", "norm")
        self._set_features(img_size, feature_size or found_size, feature_ratio)

    def _set_img_size(self, img_size: int | Sequence[int] | None) -> None:
        if img_size is None:  # there is no backbone yet
            super()._set_img_size(None)
        else:
            self._set_features(img_size, _feature_shape(self.backbone, self.in_chans, img_size)[1:])

    def _set_features(
        self,
        img_size: int | Sequence[int],
        feature_size: int | Sequence[int],
        feature_ratio: int | Sequence[int] | None = None,
    ) -> None:
        self.img_size, self.feature_size = to_2tuple(img_size), to_2tuple(feature_size)
        self.feature_ratio = to_2tuple(feature_ratio) if feature_ratio else tuple(
            s // f for s, f in zip(self.img_size, self.feature_size))
        self.grid_size = tuple(f // p for f, p in zip(self.feature_size, self.patch_size))
        self.num_patches = math.prod(self.grid_size)
        divides = all(f % p == 0 for f, p in zip(self.feature_size, self.patch_size))
        if not (self.num_patches and (divides or self.dynamic_img_pad)):
            raise ValueError(f"an image of {self.img_size} has a feature map of {self.feature_size}, which patches of "
                             f"{self.patch_size} do not divide")

    def set_input_size(
        self, img_size: int | Sequence[int] | None = None, patch_size: int | Sequence[int] | None = None
    ) -> None:
        """Change image and patch size, in place; the patch weights are resampled.

        Raises:
            ValueError: There are none, or patches of the new size do not divide the new feature map.
        """
        if patch_size is not None and to_2tuple(patch_size) != self.patch_size and isinstance(self.proj, nn.Identity):
            raise ValueError("patch_size cannot be changed: there are no patch weights")
        super().set_input_size(img_size, patch_size)

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        ratio = tuple(f * p for f, p in zip(self.feature_ratio, self.patch_size))
        return max(ratio) if as_scalar else ratio

    def dynamic_feat_size(self, img_size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the patch grid for an image of (height, width) that the backbone's stride divides."""
        rows, columns = (s // f for s, f in zip(img_size, self.feature_ratio))
        return super().dynamic_feat_size((rows, columns))

    def forward(self, x: Tensor) -> Tensor:
        x = fit_patches(x, self.img_size if self.strict_img_size else None, (1, 1), False, True, self.may_be_dynamic)
        x = self.backbone(x)
        if isinstance(x, (list, tuple)):
            x = x[-1]
        return self._embed(fit_patches(x, None, self.patch_size, self.dynamic_img_pad, True, self.may_be_dynamic))


class HybridEmbedWithSize(HybridEmbed):
    """`HybridEmbed` that returns the rows and columns of the patches, too: ((B, N, embed_dim), grid)."""

    @placeable
    def __init__(
        self,
        backbone: nn.Module,
        img_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 1,
        feature_size: int | Sequence[int] | None = None,
        feature_ratio: int | Sequence[int] | None = None,
        in_chans: int = 3,
        embed_dim: int = 768,
        bias: bool = True,
        proj: bool = True,
    ) -> None:
        super().__init__(backbone, img_size, patch_size, feature_size, feature_ratio, in_chans, embed_dim, bias, proj)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's activations, where it can."""
        backbone: Any = self.backbone
        if hasattr(backbone, "set_grad_checkpointing"):
            backbone.set_grad_checkpointing(enable)
        elif hasattr(backbone, "grad_checkpointing"):
            backbone.grad_checkpointing = enable

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:  # type: ignore[override]
        x = self.backbone(x)
        x = self.proj(x[-1] if isinstance(x, (list, tuple)) else x)
        return x.flatten(2).transpose(1, 2), x.shape[-2:]


def _feature_shape(backbone: nn.Module, in_chans: int, img_size: int | Sequence[int]) -> list[int]:
    """Channels, rows and columns of what the backbone makes of an image, in evaluation; nothing is computed."""
    modes = {module: module.training for module in backbone.modules()}
    tensors = {name: torch.empty_like(tensor, device="meta")
               for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers())}
    like = next((tensor for tensor in tensors.values() if tensor.is_floating_point()), torch.empty(0))
    image = torch.empty(1, in_chans, *to_2tuple(img_size), dtype=like.dtype, device="meta")
    try:
        with torch.no_grad():
            features = functional_call(backbone.eval(), tensors, image)
    finally:
        for module, training in modes.items():
            module.training = training
    return list((features[-1] if isinstance(features, (list, tuple)) else features).shape[1:])


@torch.fx.wrap  # one node in a traced graph: what it does depends on the input's size
def fit_patches(
    x: Tensor, img_size: tuple[int, int] | None, patch_size: tuple[int, int], pad: bool, cut_remainder: bool,
    may_be_dynamic: bool,
) -> Tensor:
    """The image, padded if it may be; an error where it is not of `img_size`, or patches do not divide it."""
    height, width = x.shape[-2:]
    divides = height % patch_size[0] == 0 and width % patch_size[1] == 0
    if img_size is not None:
        if height != img_size[0] or width != img_size[1]:
            dynamic = " or dynamic_img_size=True" if may_be_dynamic else ""
            padded = ", dynamic_img_pad=True" if may_be_dynamic and not divides else ""
            raise ValueError(f"the input is {height} x {width}, its patches are made for {img_size[0]} x "
                             f"{img_size[1]}; resize it, or build the model with img_size={dynamic}{padded}")
    elif not (pad or cut_remainder or divides):
        raise ValueError(f"the input is {height} x {width}, which patches of {patch_size[0]} x {patch_size[1]} do not "
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
    inverse = _inverse_resize(old_size, new_size, interpolation, antialias, patch_embed.device)
    return (patch_embed.float().flatten(2) @ inverse).unflatten(2, new_size).to(patch_embed.dtype)


def _inverse_resize(
    old_size: tuple[int, ...], new_size: tuple[int, ...], interpolation: str, antialias: bool, device: torch.device
) -> Tensor:
    """What weights of patches (..., old pixels) are multiplied by for patches of another size: (old, new pixels)."""
    basis = torch.eye(math.prod(old_size), device=device).reshape(-1, 1, *old_size)
    resized = F.interpolate(basis, size=new_size, mode=interpolation, antialias=antialias).flatten(1)
    return torch.linalg.pinv(resized.T)


class PatchEmbedResamplerFixedOrigSize(nn.Module):
    """`resample_patch_embed` of weights of one size that remembers what each new size needs; no keys.

    Args:
        orig_size: (height, width) of the weights.
        interpolation, antialias: As `torch.nn.functional.interpolate` takes them.
    """

    _cache_device_anchor: Tensor

    @placeable
    def __init__(self, orig_size: tuple[int, int], interpolation: str = "bicubic", antialias: bool = True) -> None:
        super().__init__()
        self.orig_size = to_2tuple(orig_size)
        self.interpolation, self.antialias = interpolation, antialias
        self._inverses: dict[tuple[tuple[int, int], torch.device], Tensor] = {}
        self.register_buffer("_cache_device_anchor", torch.empty(0, dtype=torch.uint8), persistent=False)

    def init_non_persistent_buffers(self) -> None:
        """The only buffer is empty: it knows where the module is."""

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> nn.Module:
        self._inverses.clear()
        return super()._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]

    def _inverse(self, new_size: tuple[int, int], device: torch.device) -> Tensor:
        key = (new_size, device)
        if key not in self._inverses:
            # An ordinary float32 tensor, whatever runs when it is first needed.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
                self._inverses[key] = _inverse_resize(
                    self.orig_size, new_size, self.interpolation, self.antialias, device)
        return self._inverses[key]

    def prewarm(
        self, new_sizes: Iterable[int | tuple[int, int]], device: torch.device | str | None = None
    ) -> None:
        """Compute now what patches of these sizes need, on `device` or where the module is; moving it forgets that."""
        place = self._cache_device_anchor.device if device is None else torch.empty(0, device=device).device
        for new_size in map(to_2tuple, new_sizes):
            if new_size != self.orig_size:
                self._inverse(new_size, place)

    def forward(self, patch_embed: Tensor, new_size: Sequence[int]) -> Tensor:
        """Weights (out, in, *orig_size) -> (out, in, *new_size).

        Raises:
            ValueError: The weights have another size.
        """
        if tuple(patch_embed.shape[-2:]) != self.orig_size:
            raise ValueError(f"the patch weights are {tuple(patch_embed.shape[-2:])}, not {self.orig_size}")
        new_size = to_2tuple(new_size)
        if new_size == self.orig_size:
            return patch_embed
        inverse = self._inverse(new_size, patch_embed.device)
        return (patch_embed.float().flatten(2) @ inverse).unflatten(2, new_size).to(patch_embed.dtype)


class PatchEmbedInterpolator(nn.Module):
    """Embed patches of any size by weights of one size, resampled on the fly (FlexiViT); no keys.

    Args:
        base_patch_size: (height, width) of the weights' patches.
        interpolation, antialias: As `torch.nn.functional.interpolate` takes them.
        channels_last: Whether flat patches, and a linear layer's weights, run over (height, width, channels) rather
            than (channels, height, width).
    """

    @placeable
    def __init__(
        self,
        base_patch_size: tuple[int, int],
        in_chans: int = 3,
        embed_dim: int = 768,
        interpolation: str = "bicubic",
        antialias: bool = True,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.base_patch_size = to_2tuple(base_patch_size)
        self.in_chans, self.embed_dim = in_chans, embed_dim
        self.interpolation, self.antialias, self.channels_last = interpolation, antialias, channels_last
        self.resampler = PatchEmbedResamplerFixedOrigSize(self.base_patch_size, interpolation, antialias)

    def prewarm(
        self, target_patch_sizes: Iterable[int | tuple[int, int]], device: torch.device | str | None = None
    ) -> None:
        """As the resampler's."""
        self.resampler.prewarm(target_patch_sizes, device)

    def resample_linear_weight(self, weight: Tensor, target_patch_size: tuple[int, int]) -> Tensor:
        """A linear layer's weight (embed_dim, height * width * in_chans) for patches of another size."""
        if tuple(target_patch_size) == self.base_patch_size:
            return weight
        if not self.channels_last:
            return self.resampler(weight.unflatten(1, (self.in_chans, *self.base_patch_size)),
                                  target_patch_size).flatten(1)
        weight = weight.unflatten(1, (*self.base_patch_size, self.in_chans)).permute(0, 3, 1, 2)
        return self.resampler(weight, target_patch_size).permute(0, 2, 3, 1).flatten(1)

    def resample_conv_weight(self, weight: Tensor, target_patch_size: tuple[int, int]) -> Tensor:
        """A convolution's weight for patches of another size."""
        resampled: Tensor = self.resampler(weight, target_patch_size)
        return resampled

    def forward(
        self,
        patches: Tensor,
        proj_weight: Tensor,
        proj_bias: Tensor | None = None,
        patch_size: tuple[int, int] | None = None,
        is_linear: bool = True,
    ) -> Tensor:
        """Embeddings (B, N, embed_dim) of patches, by a linear layer; or a map of them, by a convolution.

        Args:
            patches: (B, N, height, width, in_chans), or (B, N, in_chans, height, width) without `channels_last`, or
                flat; for a convolution the image (B, in_chans, H, W).
            proj_weight, proj_bias: The layer's.
            patch_size: (height, width) of the patches; as the weights' unless given.
            is_linear: Otherwise the layer is a convolution.
        """
        size = self.base_patch_size if patch_size is None else to_2tuple(patch_size)
        if not is_linear:
            return F.conv2d(patches, self.resample_conv_weight(proj_weight, size), proj_bias, stride=size)
        if size != self.base_patch_size and patches.ndim != 5:
            raise ValueError(f"patches of another size come with their sides, in 5 dimensions, not {patches.ndim}")
        return F.linear(patches.flatten(2), self.resample_linear_weight(proj_weight, size), proj_bias)
