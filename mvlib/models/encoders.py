"""What encoders of multimodal models share that keep a map of patches, and have a module, the projector, that makes
tokens of a language model of it: the encoder, which ends in the projector, and a classifier over it.

Both resample nothing when they load weights, take images of any size, and read each other's weights.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from ..layers.weight_init import init_trunc_normal
from .base import Flow, ImageModel, Indices, Inits, StateDict, Step, rename_keys

__all__ = ["EncoderClassifier", "Headless", "OverEncoder", "VisionEncoder"]

Size = tuple[int, int]


class Headless(ImageModel):
    """Mixin of encoders, which have no classifier; it stands first among the bases, as `OverEncoder`."""

    classifier_path: ClassVar[tuple[str, ...]] = ()

    def get_classifier(self, name_only: bool = False) -> Any:
        """There is none."""
        return "" if name_only else nn.Identity()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, reset_other: bool = False) -> None:
        """Change the pooling.

        Raises:
            ValueError: Classes are asked for, or a pooling that is unknown or has weights.
        """
        if num_classes:
            raise ValueError("an encoder classifies nothing: build the model of the same name without '_enc'")
        if global_pool is not None:
            self.set_global_pool(global_pool)


class OverEncoder(ImageModel):
    """Mixin of classifiers over their `encoder`."""

    encoder: Any

    @property
    def optional_parts(self) -> tuple[str, ...]:
        return ("head",)  # the published encoders classify nothing

    def no_weight_decay(self) -> set[str]:
        return {f"encoder.{name}" for name in self.encoder.no_weight_decay()}


class _Tower(ImageModel):
    """Final features are a map (B, H, W, embed_dim), or the projector's tokens."""

    tap_layout: ClassVar[str] = "NLC"
    default_out_indices: ClassVar[Indices] = 3
    tap_norm: ClassVar[str] = "all"
    num_prefix_tokens = 0

    def follow(self, path: str, encoder: Any, neck: list[Step]) -> None:
        """Make the flow, whose modules are the encoder's at `path` ("encoder.", or nothing)."""
        stride = encoder.patch_embed.feat_ratio()
        self.flow = Flow(
            stem=[Step(f"{path}patch_embed"), Step(f"{path}_pos_embed", gives=("rope", "grid"))],
            stages=[Step(f"{path}blocks.{i}", encoder.embed_dim, stride, takes=("rope",))
                    for i in range(len(encoder.blocks))],
            tail=[Step(f"{path}norm")] * hasattr(encoder, "norm") + [Step("_to_map", takes=("grid",))],
            neck=neck)

    def _to_map(self, x: Tensor, grid: Size) -> Tensor:
        return x.unflatten(1, grid)

    def norm_tap(self, x: Tensor, index: int) -> Tensor:
        for step in self.flow.tail[:-1]:
            x = self.run_step(step, x, {})
        return x

    def forward_intermediates(  # type: ignore[override]  # timm's order, with prefix tokens first
        self, x: Tensor, indices: Indices = None, return_prefix_tokens: bool = False, norm: bool = False,
        stop_early: bool = False, output_fmt: str = "NCHW", intermediates_only: bool = False, output_dict: bool = False,
    ) -> Any:
        """As every model's; `return_prefix_tokens` is without effect."""
        return self.run_to_taps(
            x, indices, norm, stop_early, output_fmt, intermediates_only, return_prefix_tokens, output_dict)

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """As every model's; the projector goes with the head."""
        taken = super().prune_intermediate_layers(indices, False, prune_head)
        for step in self.flow.tail[:-1] if prune_norm else []:
            self.set_submodule(step.name, nn.Identity())
        return taken


class VisionEncoder(Headless, _Tower):
    """An encoder, which classifies nothing.

    A family sets `in_chans`, `num_classes`, makes its modules, and calls `end`.

    Class attributes:
        projector: Name of the module that makes tokens; it has `out_features`.
        pools: The last is the projector's.
    """

    output_fmt: ClassVar[str] = "NHWC"  # timm's name of the layout of features
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}
    projector: ClassVar[str]
    embed_dim: int
    out_features: int

    def end(self, projector: Any) -> None:
        """Take the projector, or None, and make the flow."""
        setattr(self, self.projector, projector)
        self.num_features, self.head_hidden_size = self.embed_dim, getattr(projector, "out_features", self.embed_dim)
        self.follow("", self, [])
        self.init_weights()

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features (B, H, W, embed_dim) -> what `global_pool` makes of them; `pre_logits` is without effect."""
        projector = self._at(self.projector)
        if projector is not None:
            return projector(x)
        return x.mean(dim=(1, 2)) if self.global_pool == "avg" else x

    def pool(self, x: Tensor) -> Tensor:
        return self.forward_head(x)

    def set_global_pool(self, pool_type: str) -> None:
        self.check_pool(pool_type)
        if pool_type != self.pools[-1]:
            setattr(self, self.projector, None)
            self.out_features, self.head_hidden_size = 0, self.num_features
        elif self._at(self.projector) is None:
            raise ValueError(f"the {self.projector} has weights: build the model with global_pool={pool_type!r}")
        self.global_pool = pool_type

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^patch_embed|pos_embed|rope", blocks=[
            (r"^blocks\.(\d+)", None), (rf"^norm|^{self.projector}", (99999,))])

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Weights of an encoder with a projector, for one without."""
        unused = f"{self.projector}." if self._at(self.projector) is None else ()
        return {key: value for key, value in state_dict.items() if not key.startswith(unused)}


class EncoderClassifier(OverEncoder, _Tower):
    """A classifier of the mean of an encoder's patches, or of its projector's tokens.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features are the encoder's, or (B, N, out_features) with the
    projector.

    A family makes its `encoder`, and calls `add_head`.

    Class attributes:
        final_norms: The class of the norm behind the pooling, (channels, eps, affine).
    """

    pruned_pool: ClassVar[str | None] = None
    pools: ClassVar[tuple[str, ...]] = ("", "avg")
    encoder: VisionEncoder
    final_norms: ClassVar[Any]

    def check_pools(self, global_pool: str, encoder_pool: str, known: tuple[str, str]) -> None:
        """Note both.

        Raises:
            ValueError: The model, or its encoder, has no such pooling.
        """
        self.check_pool(global_pool)
        if encoder_pool not in known:
            raise ValueError(f"unknown encoder_pool {encoder_pool!r}; known: {', '.join(map(repr, known))}")
        self.global_pool, self.encoder_pool = global_pool, encoder_pool

    def add_head(  # type: ignore[override]  # one of tokens
        self, num_classes: int, drop_rate: float, norm_eps: float | None
    ) -> None:
        """Make what follows the encoder, and the flow; an eps of None is for no norm."""
        encoder = self.encoder
        self.in_chans, self.num_classes, self.embed_dim = encoder.in_chans, num_classes, encoder.embed_dim
        self.num_features = self.head_hidden_size = encoder.head_hidden_size
        self.norm = nn.Identity() if norm_eps is None else self.final_norms(self.num_features, norm_eps, affine=False)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = self.make_classifier(num_classes)
        self.follow("encoder.", encoder, [Step(f"encoder.{encoder.projector}")] if self.encoder_pool else [])
        self.init_weights()

    @property
    def output_fmt(self) -> str:
        """timm's name of the layout of features."""
        return "NLC" if self.encoder_pool else "NHWC"

    def pool(self, x: Tensor) -> Tensor:
        """Features -> (B, num_features), normed; (B, N, num_features) where there is no pooling."""
        x = x.flatten(1, -2)
        return self.norm(x.mean(dim=1) if self.global_pool == "avg" else x)

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        if prune_head:
            self.encoder.set_global_pool("")
            self.encoder_pool, self.flow.neck = "", []
            self.num_features = self.embed_dim
        return super().prune_intermediate_layers(indices, prune_norm, prune_head)

    def cut_head(self) -> None:
        self.head_hidden_size = self.num_features
        if not isinstance(self.norm, nn.Identity):
            self.norm = self.final_norms(self.num_features, self.norm.eps, affine=False).train(self.training)

    def init_module(self, name: str, module: nn.Module) -> None:
        if not name.startswith("encoder"):
            self.encoder.init_module("head", module)  # there is one scheme
        elif self._began_empty is not None:  # otherwise the encoder has just been made, and initialised
            self.encoder.init_module(name.removeprefix("encoder").removeprefix("."), module)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^encoder\.(?:patch_embed|pos_embed|rope)", blocks=[
            (r"^encoder\.blocks\.(\d+)", None),
            (rf"^encoder\.(?:norm|{self.encoder.projector})|^norm|^head", (99999,))])

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        encoder = self.encoder.fit_state_dict(rename_keys(state_dict, prefix="encoder."))
        own = {key: value for key, value in state_dict.items() if not key.startswith("encoder.")}
        return {**{f"encoder.{key}": value for key, value in encoder.items()}, **own}
