"""DeiT (https://arxiv.org/abs/2012.12877), with and without a distillation token, and DeiT-III.

DeiT-III (https://arxiv.org/abs/2204.07118) is a ViT with layer scale whose class token has no position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from ..registry import register_model
from .distilled import Distilled
from .tokens import sized_by_name
from .vision_transformer import VisionTransformer

if TYPE_CHECKING:
    from ._variants.deit import *

__all__ = ["VisionTransformerDistilled"]


class VisionTransformerDistilled(Distilled, VisionTransformer):
    """A vision transformer with a second token, and a second classifier on it, that learn from a teacher.

    Shapes and arguments as `VisionTransformer`'s; see `Distilled`. Only its two tokens are pooled.

    Raises:
        ValueError: Another pooling than "token" is asked for.
    """

    has_dist_token: ClassVar[bool] = True

    def check_pool(self, pool_type: str) -> None:
        if pool_type not in ("token", ""):
            raise ValueError(f"global_pool {pool_type!r}: a distilled model pools its two tokens alone, 'token'")

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """Tokens (B, N, embed_dim) -> (B, embed_dim), for "token" the mean of both, as `forward_head` has it."""
        if (self.global_pool if pool_type is None else pool_type) == "token":
            return (x[:, 0] + x[:, 1]) / 2
        return super().pool(x, pool_type)

    def classifier_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.head_drop(x[:, 0]), self.head_drop(x[:, 1])


_DEIT3 = dict(no_embed_class=True, init_values=1e-6)

register_model.variants(__name__, VisionTransformer, sized_by_name({
    "deit_tiny_patch16_224 deit_small_patch16_224 deit_base_patch16_224 deit_base_patch16_384": {},
    "deit3_small_patch16_224 deit3_small_patch16_384 deit3_medium_patch16_224 deit3_base_patch16_224 "
    "deit3_base_patch16_384 deit3_large_patch16_224 deit3_large_patch16_384 deit3_huge_patch14_224": _DEIT3,
}))
register_model.variants(__name__, VisionTransformerDistilled, sized_by_name({
    "deit_tiny_distilled_patch16_224 deit_small_distilled_patch16_224 deit_base_distilled_patch16_224 "
    "deit_base_distilled_patch16_384": {},
}))
