"""The contract that every model obeys.

A family describes its flow once, in its constructor:

    self.flow = Flow(
        stem=[Step("conv1"), Step("bn1"), Step("act1", chs=64, reduction=2), Step("maxpool")],
        stages=[Step("layer1", chs=256, reduction=4), ...],
        tail=[Step("norm")],
    )

and names its pooling and its classifier. Everything else follows from that: forward_features, forward_head,
forward_intermediates, feature_info, features_only, get_classifier and reset_classifier, gradient checkpointing,
layer-wise groups, initialisation. A family overrides one of these only where its architecture differs.

Initialisation is a contract too, because a model is built on the meta device when its weights come from a file: each
module that itself owns parameters has `reset_parameters()`, each that owns non-persistent buffers has
`init_non_persistent_buffers()` (timm's name, which transformers and accelerate know), a family refines the former in
`init_module`, and no constructor reads a tensor's values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers.helpers import owns_meta
from ..layers.pool import GlobalPool2d
from .scripting import scriptable

__all__ = ["Flow", "ImageModel", "KeyMap", "Step", "take_indices"]

StateDict = dict[str, Tensor]
Indices = int | Sequence[int] | None


@dataclass(frozen=True)
class Step:
    """One step of a model's flow.

    Attributes:
        name: Path of a module ("layer1", "blocks.3"), or name of a method of the model that takes and returns a tensor.
            "features[3:5]" is features.3 and features.4, one after the other: a stage of a model that is a flat list.
        chs: Channels of the output, if the output can be taken as a feature ("tap").
        reduction: Stride of the output with respect to the image, if it is a tap.
        module: The name that `feature_info` gives the tap; the step's name unless given.
    """

    name: str
    chs: int | None = None
    reduction: int | None = None
    module: str | None = None

    @property
    def is_tap(self) -> bool:
        return self.chs is not None


@dataclass
class Flow:
    """A model's features, from image to final feature map, as three lists of steps.

    Attributes:
        stem: Run first, never checkpointed.
        stages: The body; checkpointed when gradient checkpointing is on.
        tail: What follows the last stage: the final norm, a last convolution.
    """

    stem: list[Step]
    stages: list[Step]
    tail: list[Step] = field(default_factory=list)

    @property
    def body(self) -> list[Step]:
        return self.stem + self.stages

    @property
    def taps(self) -> list[Step]:
        return [step for step in self.body if step.is_tap]


@dataclass(frozen=True)
class KeyMap:
    """How a foreign state dict becomes one of ours.

    Attributes:
        name: What weights configs call it ("torchvision").
        matches: Whether a state dict (or any mapping with its keys) has this layout.
        convert: (state dict, model) -> state dict with our keys.
    """

    name: str
    matches: Callable[[Mapping[str, Any]], bool]
    convert: Callable[[StateDict, nn.Module], StateDict]


def take_indices(count: int, indices: Indices) -> list[int]:
    """Absolute feature indices, in order of depth and each once: the order in which a model's outputs come.

    None means all `count`, an int the last n; negative indices count from the end.

    Raises:
        ValueError: An index is out of range.
    """
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        if not 0 < indices <= count:
            raise ValueError(f"cannot take the last {indices} features: the model has {count}")
        return list(range(count - indices, count))
    absolute = [i + count if i < 0 else i for i in indices]
    if not absolute or min(absolute) < 0 or max(absolute) >= count:
        raise ValueError(f"feature indices {list(indices)} are out of range: the model has {count} features")
    return sorted(set(absolute))


def _layer_paths(name: str) -> list[str]:
    """Paths of the modules that a step's name stands for: the items of "features[3:5]", else the name itself."""
    path, bracket, limits = name.removesuffix("]").partition("[")
    if not bracket:
        return [name]
    start, stop = limits.split(":")
    return [f"{path}.{i}" for i in range(int(start), int(stop))]


def _run_layers(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


class ImageModel(nn.Module):
    """Base class of all models.

    A family's constructor sets `num_classes`, `in_chans`, `num_features`, `head_hidden_size`, `flow`, and `drop_rate`
    where the head has no dropout module; it ends with `self.init_weights()`, which does nothing on the meta device.

    Class attributes:
        classifier_path: Path of the classifier, or of several (distilled models); the first is the main one.
        dropout_paths: Paths of the head's dropout modules, those that there are; `drop_rate` is theirs.
        pool_path: Path of the `GlobalPool2d`; a family that pools differently overrides `pool` and `set_global_pool`.
        tap_layout: Layout of what a tap holds: "NCHW", "NHWC" or "NLC".
        feature_layout: Layout of `features_only` outputs unless asked otherwise.
        default_out_indices: What `features_only` takes unless asked: None is all, an int the last n.
        tap_norm: Which taps `forward_intermediates(norm=True)` normalises: "none", "last" or "all".
        key_maps: Foreign state-dict layouts that the family reads.
    """

    classifier_path: ClassVar[str | tuple[str, ...]] = "head"
    dropout_paths: ClassVar[tuple[str, ...]] = ("head.drop", "head_drop")
    pool_path: ClassVar[str] = "global_pool"
    tap_layout: ClassVar[str] = "NCHW"
    feature_layout: ClassVar[str] = "NCHW"
    default_out_indices: ClassVar[Indices] = None
    tap_norm: ClassVar[str] = "none"
    key_maps: ClassVar[tuple[KeyMap, ...]] = ()

    num_classes: int
    in_chans: int
    num_features: int
    head_hidden_size: int
    num_prefix_tokens: int = 0
    _drop_rate: float = 0.0
    grad_checkpointing: bool = False
    flow: Flow

    # forward

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, in_chans, H, W) -> logits (B, num_classes), or features where `num_classes` is 0."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Image (B, in_chans, H, W) -> final features, unpooled, in the family's own layout."""
        for step in self.flow.stem:
            x = self._step(step.name)(x)
        for step in self.flow.stages:
            x = self._run_stage(step, x)
        for step in self.flow.tail:
            x = self._step(step.name)(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Final features -> logits, or the classifier's input where `pre_logits`."""
        x = self.pool(x)
        if "head_drop" in self._modules:
            x = self.head_drop(x)
        elif self._drop_rate > 0.0:
            x = F.dropout(x, p=self._drop_rate, training=self.training)
        return x if pre_logits else self.get_classifier()(x)

    def pool(self, x: Tensor) -> Tensor:
        """Final features -> one vector per image (B, head_hidden_size): the classifier's input, but for dropout."""
        return self._at(self.pool_path)(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: Indices = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list | tuple[Tensor, list]:
        """The features named by `feature_info`, and the final features.

        Args:
            x: Image (B, in_chans, H, W).
            indices: Which taps: None for all, an int for the last n, or a sequence (negative counts from the end), in
                any order.
            return_prefix_tokens: Token models only: each intermediate becomes a pair (spatial, prefix tokens).
            norm: Apply the final norm to the intermediates that it fits.
            stop_early: Stop after the last tap that was asked for; the final features are then that tap's, or the
                stem's where the tap lies within it.
            output_fmt: "NCHW", "NHWC", or "NLC" for token models.
            intermediates_only: Return the intermediates alone.

        Returns:
            (final features, intermediates in order of depth), or the intermediates.

        Raises:
            ValueError: An index is out of range, or the format is not one that this model can give.
        """
        wanted = set(take_indices(len(self.flow.taps), indices))
        stop_after = max(wanted) if stop_early or intermediates_only else len(self.flow.taps)
        image_size = x.shape[-2:]
        taps, index, complete = [], 0, True
        for position, step in enumerate(self.flow.body):
            x = self._step(step.name)(x) if position < len(self.flow.stem) else self._run_stage(step, x)
            if not step.is_tap:
                continue
            if index in wanted:
                taps.append(self._normalize_tap(x, index) if norm else x)
            if index == stop_after:
                complete = position == len(self.flow.body) - 1
                break
            index += 1
        intermediates = [self._format_tap(tap, image_size, output_fmt, return_prefix_tokens) for tap in taps]
        if intermediates_only:
            return intermediates
        for step in self.flow.stem[position + 1:]:
            x = self._step(step.name)(x)
        if complete or self.tap_norm == "all":  # a norm that fits every tap fits the last one reached
            for step in self.flow.tail:
                x = self._step(step.name)(x)
        return x, intermediates

    def tap_grid(self, image_size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of a token model's patch grid for an image of `image_size` (H, W)."""
        return self.patch_embed.dynamic_feat_size(image_size)

    def _at(self, path: str) -> nn.Module:
        """What `get_submodule` gives, in words that torch.export of torch 2.5 can follow."""
        module = self
        for name in path.split("."):
            module = getattr(module, name)
        return module

    def _step(self, name: str) -> Callable[[Tensor], Tensor]:
        if name.endswith("]"):
            return partial(_run_layers, [self._at(path) for path in _layer_paths(name)])
        return self._at(name)

    def _run_stage(self, step: Step, x: Tensor) -> Tensor:
        module = self._step(step.name)
        if not self.grad_checkpointing or not torch.is_grad_enabled() or hasattr(module, "grad_checkpointing"):
            return module(x)
        for block in module if isinstance(module, nn.Sequential) else [module]:
            x = checkpoint(block, x, use_reentrant=False)
        return x

    def _normalize_tap(self, x: Tensor, index: int) -> Tensor:
        is_last = index == len(self.flow.taps) - 1
        if self.tap_norm == "all" or (self.tap_norm == "last" and is_last):
            return self.norm(x)
        return x

    def _format_tap(self, x: Tensor, image_size: Sequence[int], output_fmt: str, prefix: bool) -> Any:
        known = ("NCHW", "NHWC", "NLC") if self.tap_layout == "NLC" else ("NCHW", "NHWC")
        if output_fmt not in known:
            raise ValueError(f"output_fmt {output_fmt!r} is not one of {', '.join(known)}")
        prefix_tokens = None
        if self.tap_layout == "NLC":
            prefix_tokens, x = x[:, :self.num_prefix_tokens], x[:, self.num_prefix_tokens:]
            if output_fmt != "NLC":
                x = x.reshape(x.shape[0], *self.tap_grid(image_size), -1)
        is_channels_last = self.tap_layout != "NCHW"
        if output_fmt == "NCHW" and is_channels_last:
            x = x.permute(0, 3, 1, 2).contiguous()
        elif output_fmt == "NHWC" and not is_channels_last:
            x = x.permute(0, 2, 3, 1).contiguous()
        return (x, prefix_tokens) if prefix and self.num_prefix_tokens else x

    def __prepare_scriptable__(self) -> nn.Module:
        """What `torch.jit.script` asks for: a module that it can compile in this one's place."""
        return scriptable(self)

    # features

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """One dict a tap: `num_chs`, `reduction` (stride), `module` and `index`."""
        return [dict(num_chs=step.chs, reduction=step.reduction, module=step.module or step.name, index=i)
                for i, step in enumerate(self.flow.taps)]

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove, in place, what the named features do not need. Returns their absolute indices."""
        taken = take_indices(len(self.flow.taps), indices)
        last = self.flow.taps[max(taken)]
        cut = self.flow.body.index(last) + 1
        is_cut = cut < len(self.flow.body)
        tail = [] if prune_norm or is_cut else self.flow.tail
        removed = self.flow.body[cut:] + [step for step in self.flow.tail if step not in tail]
        for path in [path for step in removed for path in _layer_paths(step.name)]:
            self._remove_module(path)
        stem_count = len(self.flow.stem)
        self.flow = Flow(self.flow.stem[:cut], self.flow.stages[:max(cut - stem_count, 0)], tail)
        if is_cut:
            self.num_features = self.head_hidden_size = last.chs
        if prune_head or is_cut:
            self.reset_classifier(0, "")
        return taken

    def _remove_module(self, path: str) -> None:
        parent_path, _, name = path.rpartition(".")
        parent = self.get_submodule(parent_path)
        if name not in parent._modules:
            return  # a step that is a method
        if isinstance(parent, (nn.Sequential, nn.ModuleList)):
            del parent._modules[name]
        else:
            parent._modules[name] = nn.Identity()

    # head

    @property
    def drop_rate(self) -> float:
        """Dropout in the head; it can be set at any time.

        Raises:
            ValueError: A rate is set that is not within [0, 1].
        """
        return next((drop.p for drop in self._head_dropouts()), self._drop_rate)

    @drop_rate.setter
    def drop_rate(self, rate: float) -> None:
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"drop_rate {rate} is not within [0, 1]")
        self._drop_rate = rate
        for drop in self._head_dropouts():
            drop.p = rate

    def _head_dropouts(self) -> list[nn.Dropout]:
        found = []
        for path in self.dropout_paths:
            try:
                module = self.get_submodule(path)
            except AttributeError:  # another family's, or the head is not the family's own
                continue
            found += [module] if isinstance(module, nn.Dropout) else []
        return found

    @property
    def classifier_paths(self) -> tuple[str, ...]:
        """Paths of all classifiers; the first is the main one."""
        return (self.classifier_path,) if isinstance(self.classifier_path, str) else self.classifier_path

    def get_classifier(self) -> nn.Module:
        """The (main) classifier, an `nn.Identity` where there is none."""
        return self._at(self.classifier_paths[0])

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier with a fresh one, initialised; 0 classes removes it.

        Args:
            num_classes: Outputs of the new classifier.
            global_pool: New pooling, unchanged if None.
        """
        self.num_classes = num_classes
        like = next((p for p in self.parameters() if p.is_floating_point()), None)
        if global_pool is not None:
            self.set_global_pool(global_pool)
        for path in self.classifier_paths:
            fresh = self.make_classifier(num_classes)
            if like is not None:
                fresh.to(device=like.device, dtype=like.dtype)
            self.set_submodule(path, fresh.train(self.training))
            if num_classes > 0 and not owns_meta(fresh):
                self.init_module(path, fresh)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """A classifier that fits the pooled features, or an identity for 0 classes."""
        return nn.Linear(self.head_hidden_size, num_classes) if num_classes > 0 else nn.Identity()

    def set_global_pool(self, pool_type: str) -> None:
        """Change the pooling, in place."""
        layout = self.tap_layout if self.tap_layout == "NHWC" else "NCHW"
        pool = GlobalPool2d(pool_type, layout=layout)
        self.set_submodule(self.pool_path, pool)
        self.head_hidden_size = self.num_features * pool.out_factor

    # training

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the stages' activations in the backward pass instead of storing them."""
        for module in self.modules():
            if hasattr(module, "grad_checkpointing"):
                module.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that take no weight decay besides biases and norms."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that sort parameter names into layers, for layer-wise learning rates.

        Args:
            coarse: One layer a stage instead of one a block.

        Returns:
            `stem`: a pattern of the stem's modules and the parameters that the model itself owns; `blocks`: pairs of
            a pattern, whose numeric groups order the layers, and None or a suffix, where 99999 joins the layer before.
            What matches nothing belongs to the head.
        """
        prefixes = {}  # "layer1" and "layer2" share one pattern; a sequential stage's items are its blocks
        for step in self.flow.stages:
            prefix = re.sub(r"(\d+)$", r"(\\d+)", re.escape(_layer_paths(step.name)[0]))
            prefixes[prefix] = r"\.(\d+)" if not coarse and isinstance(self._step(step.name), nn.Sequential) else ""
        blocks = [(f"^{prefix}{fine}", None) for prefix, fine in sorted(prefixes.items())]
        blocks += [(f"^{re.escape(step.name)}", (99999,)) for step in self.flow.tail]
        own = [name for name, parameter in self._parameters.items() if parameter is not None]
        stem = "|".join([re.escape(step.name) for step in self.flow.stem] + own)
        return dict(stem=rf"^(?:{stem})(?:\.|$)", blocks=blocks)  # the end: "features.1" is not "features.10"

    # weights

    @property
    def optional_parts(self) -> tuple[str, ...]:
        """Paths of modules that a published file may lack as a whole, and that are initialised then."""
        return ()

    def init_weights(self, only: Iterable[str] | None = None) -> None:
        """Initialise every module that owns parameters, or `only` those of these paths ("" is the model itself).

        Does nothing while the model is on the meta device.
        """
        named = dict(self.named_modules())
        paths = list(named) if only is None else list(only)
        if any(owns_meta(named[path]) for path in paths):
            return
        with torch.no_grad():
            for path in paths:
                module = named[path]
                if module._parameters or module._buffers:
                    self.init_module(path, module)

    def init_module(self, name: str, module: nn.Module) -> None:
        """Initialise what `module` itself owns; families refine this and fall back to it."""
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        elif any(p is not None for p in module._parameters.values()):
            raise NotImplementedError(f"{type(module).__name__} at '{name}' owns parameters, not reset_parameters()")
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()

    def _load_from_state_dict(self, state_dict: StateDict, prefix: str, *args: Any) -> None:
        """What torch calls to load this model, by itself or as a part of another: what is there in a foreign layout or
        in other sizes is converted first. What fits as it is stays as it is."""
        given = {key[len(prefix):]: value for key, value in state_dict.items() if key.startswith(prefix)}
        key_map = next((candidate for candidate in self.key_maps if candidate.matches(given)), None)
        own = {key: getattr(value, "shape", None) for key, value in self.state_dict().items()}
        fits = {key: value for key, value in given.items() if key in own and own[key] == getattr(value, "shape", None)}
        if key_map is not None or len(fits) < len(given):
            fitted = self.fit_state_dict(key_map.convert(given, self)) if key_map is not None else \
                {**self.fit_state_dict(given), **fits}
            for key in given:
                del state_dict[prefix + key]
            state_dict.update((prefix + key, value) for key, value in fitted.items())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Fit a state dict in our layout to this model's sizes (position embeddings, bias tables); base: unchanged.

        May drop keys of buffers that other code saves and we compute.
        """
        return state_dict
