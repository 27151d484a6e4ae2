"""Vision transformers whose patches are cut from a convolutional network's feature map.

R+ViT of Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", 2020
(https://arxiv.org/abs/2010.11929), and of Steiner et al., "How to train your ViT? Data, Augmentation, and
Regularization in Vision Transformers", 2021 (https://arxiv.org/abs/2106.10270): a ResNet V2 with standardised kernels,
group norm and TensorFlow's padding, whose norms follow the convolutions; or its stem alone. MobileCLIP's image tower
(https://arxiv.org/abs/2311.17049, https://arxiv.org/abs/2508.20691) has three convolutions. Those with ResNet-D's first
stages are timm's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..layers.activations import ActLayer
from ..layers.conv import ConvNormAct
from ..layers.helpers import placeable, to_ntuple
from ..layers.norm import NormLayer
from ..layers.padding import Padding
from ..layers.patch_embed import HybridEmbed
from ..layers.std_conv import StdConv2dSame
from ..registry import register_model
from .base import ImageModel, KeyMap, StateDict, Step, rename_keys
from .resnet import Bottleneck, ResNet
from .resnetv2 import ResNetV2, block_path, create_resnetv2_stem
from .tokens import sized_by_name
from .vision_transformer import VisionTransformer, _from_jax, as_classifier

if TYPE_CHECKING:
    from ._variants.vision_transformer_hybrid import *

__all__ = ["ConvStem", "HybridVisionTransformer"]


# --- backbones


class ConvStem(nn.Sequential):
    """Convolutions with norm and activation; the last has a bias in place of both.

    Shapes: (B, in_chans, H, W) -> (B, channels[-1], H', W').

    Args:
        depth: Number of convolutions.
        channels: Of each; one number is the last's, and each has half of the next.
        kernel_size, padding: Of each, or of all; stride: of each.

    Raises:
        ValueError: There is not a number for each convolution.
    """

    @placeable
    def __init__(
        self, in_chans: int = 3, depth: int = 3, channels: int | Sequence[int] = 64,
        kernel_size: int | Sequence[int] = 3, stride: Sequence[int] = (2, 2, 2),
        padding: Padding | Sequence[Padding] = "", norm_layer: NormLayer = nn.BatchNorm2d,
        act_layer: ActLayer = nn.ReLU,
    ) -> None:
        if isinstance(channels, int):
            channels = [channels // 2**i for i in reversed(range(depth))]
        sizes, pads = to_ntuple(depth)(kernel_size), to_ntuple(depth)(padding)
        if not depth == len(channels) == len(sizes) == len(stride) == len(pads):
            raise ValueError(f"channels, kernel_size, stride and padding are for {depth} convolutions")
        super().__init__()
        for i, (chs, size, step, pad) in enumerate(zip(channels, sizes, stride, pads)):
            is_last = i == depth - 1
            self.append(ConvNormAct(
                in_chans, chs, size, step, pad, bias=is_last, apply_norm=not is_last, apply_act=not is_last,
                norm_layer=norm_layer, act_layer=act_layer))
            in_chans = chs


def _mobileclip(in_chans: int) -> nn.Module:
    return ConvStem(in_chans, 3, (192, 192, 768), (4, 2, 2), (4, 2, 2), 0, act_layer="gelu")


def _resnetv2(in_chans: int, layers: Sequence[int]) -> nn.Module:
    conv = partial(StdConv2dSame, eps=1e-8)
    if not layers:
        return create_resnetv2_stem(in_chans, stem_type="same", preact=False, conv_layer=conv)
    return ResNetV2(layers, num_classes=0, in_chans=in_chans, global_pool="", stem_type="same", preact=False,
                    conv_layer=conv, zero_init_last=True)


def _resnet(in_chans: int, layers: Sequence[int]) -> nn.Module:
    """ResNet-D, without classifier, and without its last stage where there are three."""
    padded = (*layers, 1)[:4]
    model = ResNet(Bottleneck, padded, num_classes=0, in_chans=in_chans, global_pool="", stem_width=32,
                   stem_type="deep", avg_down=True)
    model.prune_intermediate_layers([len(layers)])
    return model


# --- the model


class HybridVisionTransformer(VisionTransformer):
    """A vision transformer behind a convolutional network.

    Shapes and further arguments as `VisionTransformer`'s; the grid of patches follows from `img_size`.

    Args:
        backbone: Makes the network for a number of image channels: (B, in_chans, H, W) -> (B, C, rows, columns).
        patch_size: Side, or (height, width), of a patch of the feature map.
        embed_args: Further arguments of `HybridEmbed`.
    """

    def __init__(
        self, backbone: Callable[[int], nn.Module], patch_size: int | tuple[int, int] = 1,
        embed_args: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:
        embed_layer = partial(HybridEmbed, backbone(kwargs.get("in_chans", 3)), **(embed_args or {}))
        super().__init__(patch_size=patch_size, **{"embed_layer": embed_layer, **kwargs})
        if self.dynamic_img_size:  # backbones round the size of their map in ways of their own
            self.flow.stem[:1] = [Step("patch_embed"), Step("note_grid", gives=("grid",))]

    def note_grid(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patches (B, rows, columns, C) -> the same, and the grid's rows and columns."""
        return x, (x.shape[1], x.shape[2])

    def init_module(self, name: str, module: nn.Module) -> None:
        backbone, prefix = self.patch_embed.backbone, "patch_embed.backbone."
        if isinstance(backbone, ImageModel) and name.startswith(prefix):
            backbone.init_module(name.removeprefix(prefix), module)
        else:
            super().init_module(name, module)


# --- the architectures

_STEM, _R26, _R50_3, _R50 = (
    dict(backbone=partial(_resnetv2, layers=layers)) for layers in ((), (2, 2, 2, 2), (3, 4, 9), (3, 4, 6, 3)))
_R26D, _R50D, _R50D_3 = (
    dict(backbone=partial(_resnet, layers=layers)) for layers in ((2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 6)))
_SHALLOW = dict(embed_dim=768, depth=8, num_heads=8, mlp_ratio=3)

register_model.variants(__name__, HybridVisionTransformer, sized_by_name({
    "vit_tiny_r_s16_p8_224 vit_tiny_r_s16_p8_384": (dict(patch_size=8), _STEM),
    "vit_small_r26_s32_224 vit_small_r26_s32_384 vit_base_r26_s32_224": _R26,
    "vit_base_r50_s16_224 vit_base_r50_s16_384": _R50_3,
    "vit_large_r50_s32_224 vit_large_r50_s32_384": _R50,
    "vit_small_resnet26d_224": (_SHALLOW, _R26D),
    "vit_small_resnet50d_s16_224": (_SHALLOW, _R50D_3),
    "vit_base_resnet26d_224": _R26D,
    "vit_base_resnet50d_224": _R50D,
    "vit_base_mci_224": dict(no_embed_class=True, embed_args=dict(proj=False), backbone=_mobileclip),
}))


# --- foreign checkpoints


def _from_mobileclip(state_dict: StateDict, model: nn.Module) -> StateDict:
    """MobileCLIP's image tower; its projection becomes a classifier without bias."""
    out = rename_keys(
        state_dict, (r"^patch_emb\.", "patch_embed.backbone."),
        (r"\.block\.conv\.", ".conv."), (r"\.block\.norm\.", ".bn."),
        (r"^pos_embed\.pos_embed\.pos_embed$", "pos_embed"), (r"^post_transformer_norm\.", "norm."),
        (r"^transformer\.", "blocks."), (r"\.qkv_proj\.", ".qkv."), (r"\.out_proj\.", ".proj."),
        (r"\.pre_norm_mha\.0\.", ".norm1."), (r"\.pre_norm_mha\.1\.", ".attn."), (r"\.pre_norm_ffn\.0\.", ".norm2."),
        (r"\.pre_norm_ffn\.1\.", ".mlp.fc1."), (r"\.pre_norm_ffn\.4\.", ".mlp.fc2."), prefix="image_encoder.model.")
    out["pos_embed"] = out["pos_embed"].squeeze(0)
    return out | as_classifier(out.pop("classifier.proj").T)


def _from_jax_hybrid(state_dict: StateDict, model: Any) -> StateDict:
    """vision_transformer's arrays of R+ViT: those of the ResNet beside the transformer's."""
    stem = "patch_embed.backbone." + ("stem." if isinstance(model.patch_embed.backbone, ImageModel) else "")
    return _from_jax(rename_keys(
        state_dict, (r"\bconv_root/", f"{stem}conv/"), (r"\bgn_root/", f"{stem}norm/"),
        (r"\bblock(\d+)/unit(\d+)/", lambda found: f"patch_embed.backbone.{block_path(found)}"),
        (r"\bconv_proj/", "downsample.conv/"), (r"\bgn_proj/", "downsample.norm/"), (r"\bgn(\d)/", r"norm\1/")), model)


HybridVisionTransformer.key_maps = (
    KeyMap("mobileclip", lambda keys: "image_encoder.model.patch_emb.0.block.conv.weight" in keys, _from_mobileclip),
    KeyMap("jax_hybrid", lambda keys: any(key.endswith("conv_root/kernel") for key in keys), _from_jax_hybrid),
    *VisionTransformer.key_maps,
)
