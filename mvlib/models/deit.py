"""DeiT (https://arxiv.org/abs/2012.12877), with and without a distillation token, and DeiT-III.

DeiT-III (https://arxiv.org/abs/2204.07118) is a ViT with layer scale whose class token has no position.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from ..registry import register_model
from .vision_transformer import VisionTransformer

__all__ = ["VisionTransformerDistilled"]

Model = TypeVar("Model", bound=VisionTransformer)


class VisionTransformerDistilled(VisionTransformer):
    """A vision transformer with a second token, and a second classifier on it, that learn from a teacher.

    Shapes: (B, in_chans, H, W) -> (B, num_classes), the mean of both classifiers; in training after
    `set_distilled_training()`, a pair of both. Takes `VisionTransformer`'s arguments; only its tokens are pooled.

    Raises:
        ValueError: Another pooling than "token" is asked for.
    """

    classifier_path: ClassVar[tuple[str, ...]] = ("head", "head_dist")
    has_dist_token: ClassVar[bool] = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.distilled_training = False
        self.head_dist = self.make_classifier(self.num_classes)
        self.init_weights(["head_dist"])

    def _check_pool(self, pool_type: str) -> None:
        if pool_type not in ("token", ""):
            raise ValueError(f"global_pool {pool_type!r}: a distilled model pools its two tokens alone, 'token'")

    def set_distilled_training(self, enable: bool = True) -> None:
        """Whether training returns both classifiers' logits, for a loss of each."""
        self.distilled_training = enable

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """Tokens (B, N, embed_dim) -> (B, embed_dim), for "token" the mean of both, as `forward_head` has it."""
        if (self.global_pool if pool_type is None else pool_type) == "token":
            return (x[:, 0] + x[:, 1]) / 2
        return super().pool(x, pool_type)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        own, distilled = self.head_drop(x[:, 0]), self.head_drop(x[:, 1])
        if pre_logits:
            return (own + distilled) / 2
        own, distilled = self.head(own), self.head_dist(distilled)
        if self.distilled_training and self.training:
            return own, distilled
        return (own + distilled) / 2


def _deit(model_class: type[Model], kwargs: Mapping[str, Any], *presets: Mapping[str, Any], **own: Any) -> Model:
    arguments: dict[str, Any] = {}
    for part in (*presets, own, kwargs):
        arguments.update(part)
    return model_class(**arguments)


_TINY = dict(embed_dim=192, depth=12, num_heads=3)
_SMALL = dict(embed_dim=384, depth=12, num_heads=6)
_MEDIUM = dict(embed_dim=512, depth=12, num_heads=8)
_BASE = dict(embed_dim=768, depth=12, num_heads=12)
_LARGE = dict(embed_dim=1024, depth=24, num_heads=16)
_HUGE = dict(embed_dim=1280, depth=32, num_heads=16)
_DEIT3 = dict(no_embed_class=True, init_values=1e-6)


@register_model
def deit_tiny_patch16_224(**kwargs: Any) -> VisionTransformer:
    """DeiT-Tiny/16 at 224 x 224."""
    return _deit(VisionTransformer, kwargs, _TINY, patch_size=16)


@register_model
def deit_small_patch16_224(**kwargs: Any) -> VisionTransformer:
    """DeiT-Small/16 at 224 x 224."""
    return _deit(VisionTransformer, kwargs, _SMALL, patch_size=16)


@register_model
def deit_base_patch16_224(**kwargs: Any) -> VisionTransformer:
    """DeiT-Base/16 at 224 x 224."""
    return _deit(VisionTransformer, kwargs, _BASE, patch_size=16)


@register_model
def deit_base_patch16_384(**kwargs: Any) -> VisionTransformer:
    """DeiT-Base/16 at 384 x 384."""
    return _deit(VisionTransformer, kwargs, _BASE, img_size=384, patch_size=16)


@register_model
def deit_tiny_distilled_patch16_224(**kwargs: Any) -> VisionTransformerDistilled:
    """DeiT-Tiny/16 at 224 x 224, distilled."""
    return _deit(VisionTransformerDistilled, kwargs, _TINY, patch_size=16)


@register_model
def deit_small_distilled_patch16_224(**kwargs: Any) -> VisionTransformerDistilled:
    """DeiT-Small/16 at 224 x 224, distilled."""
    return _deit(VisionTransformerDistilled, kwargs, _SMALL, patch_size=16)


@register_model
def deit_base_distilled_patch16_224(**kwargs: Any) -> VisionTransformerDistilled:
    """DeiT-Base/16 at 224 x 224, distilled."""
    return _deit(VisionTransformerDistilled, kwargs, _BASE, patch_size=16)


@register_model
def deit_base_distilled_patch16_384(**kwargs: Any) -> VisionTransformerDistilled:
    """DeiT-Base/16 at 384 x 384, distilled."""
    return _deit(VisionTransformerDistilled, kwargs, _BASE, img_size=384, patch_size=16)


@register_model
def deit3_small_patch16_224(**kwargs: Any) -> VisionTransformer:
    """DeiT-III-Small/16 at 224 x 224."""
    return _deit(VisionTransformer, kwargs, _SMALL, _DEIT3, patch_size=16)


@register_model
def deit3_small_patch16_384(**kwargs: Any) -> VisionTransformer:
    """DeiT-III-Small/16 at 384 x 384."""
    return _deit(VisionTransformer, kwargs, _SMALL, _DEIT3, img_size=384, patch_size=16)


@register_model
def deit3_medium_patch16_224(**kwargs: Any) -> VisionTransformer:
    """DeiT-III-Medium/16 at 224 x 224."""
    return _deit(VisionTransformer, kwargs, _MEDIUM, _DEIT3, patch_size=16)


@register_model
def deit3_base_patch16_224(**kwargs: Any) -> VisionTransformer:
    """DeiT-III-Base/16 at 224 x 224."""
    return _deit(VisionTransformer, kwargs, _BASE, _DEIT3, patch_size=16)


@register_model
def deit3_base_patch16_384(**kwargs: Any) -> VisionTransformer:
    """DeiT-III-Base/16 at 384 x 384."""
    return _deit(VisionTransformer, kwargs, _BASE, _DEIT3, img_size=384, patch_size=16)


@register_model
def deit3_large_patch16_224(**kwargs: Any) -> VisionTransformer:
    """DeiT-III-Large/16 at 224 x 224."""
    return _deit(VisionTransformer, kwargs, _LARGE, _DEIT3, patch_size=16)


@register_model
def deit3_large_patch16_384(**kwargs: Any) -> VisionTransformer:
    """DeiT-III-Large/16 at 384 x 384."""
    return _deit(VisionTransformer, kwargs, _LARGE, _DEIT3, img_size=384, patch_size=16)


@register_model
def deit3_huge_patch14_224(**kwargs: Any) -> VisionTransformer:
    """DeiT-III-Huge/14 at 224 x 224."""
    return _deit(VisionTransformer, kwargs, _HUGE, _DEIT3, patch_size=14)
