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
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import registry
from ..errors import CheckpointError
from ..layers.helpers import Module, computed, owns_meta
from ..layers.pool import ConvClassifier, GlobalPool2d, Head, global_pool_nlc
from ..layers.stage import Stage, run_blocks, runs_by_itself
from .scripting import scriptable

if TYPE_CHECKING:
    from ..weights import WeightsConfig

__all__ = ["Flow", "ImageModel", "KeyMap", "Step", "rename_keys", "reshape_alike", "take_indices"]

StateDict = dict[str, Tensor]
Inits = Mapping[Any, Callable[[Any], Any]]
Indices = int | Sequence[int] | None


@dataclass(frozen=True)
class Step:
    """One step of a model's flow.

    Attributes:
        name: Path of a module ("layer1", "blocks.3"), or name of a method of the model. It takes what the step before
            gave and gives what the next one takes: as a rule a tensor. "features[3:5]" is features.3 and features.4,
            one after the other: a stage of a model that is a flat list.
        chs: Channels of the output, if the output can be taken as a feature ("tap"). A tuple where the output is a list
            of maps (parallel branches): a tap each.
        reduction: Stride of the output with respect to the image, if it is a tap; a tuple as `chs`.
        module: The name that `feature_info` gives the tap; the step's name unless given; a tuple as `chs`.
        takes: Names of shared values (rotary tables, a mask, the grid of tokens) that it takes after its input.
        gives: Names under which what it returns after its output is shared with the steps behind it. "grid", the rows
            and columns of tokens, is also what taps are shaped by; a list of them where the output is a list.
        method: Method of the module that is run instead of it: a block with a tap within is two steps.
        options: Names of values that it takes as keyword arguments, where a caller of the model gave them (a mask).
    """

    name: str
    chs: int | tuple[int, ...] | None = None
    reduction: int | tuple[int, ...] | None = None
    module: str | tuple[str, ...] | None = None
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    method: str = ""
    options: tuple[str, ...] = ()
    parts: tuple[tuple[str, ...], ...] = field(init=False, repr=False, compare=False)  # the name, as it is looked up

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", self.split(self.paths))

    def split(self, paths: Iterable[str]) -> tuple[tuple[str, ...], ...]:
        """What is looked up, name by name, to run the module at each of these paths."""
        method = (self.method,) if self.method else ()
        return tuple((*path.split("."), *method) for path in paths)

    @property
    def paths(self) -> list[str]:
        """Paths of the modules that the name stands for: the items of "features[3:5]", else the name itself."""
        path, bracket, limits = self.name.removesuffix("]").partition("[")
        return [f"{path}.{i}" for i in range(*map(int, limits.split(":")))] if bracket else [self.name]

    @property
    def taps(self) -> list[Tap]:
        """What can be taken here as a feature."""
        if self.chs is None:
            return []
        reduction: Any = self.reduction  # as many as channels, and modules too
        module: Any = self.module
        if isinstance(self.chs, int):
            return [Tap(self, None, self.chs, reduction, module or self.name)]
        modules = module or (self.name,) * len(self.chs)
        return [Tap(self, i, *row) for i, row in enumerate(zip(self.chs, reduction, modules))]


class Tap(NamedTuple):
    """A feature: the output of a step, or the map `part` of a step that gives several."""

    step: Step
    part: int | None
    chs: int
    reduction: int
    module: str


@dataclass
class Flow:
    """A model's features, from image to final feature map, as lists of steps.

    Attributes:
        stem: Run first, never checkpointed.
        stages: The body; checkpointed when gradient checkpointing is on.
        tail: What follows the last stage, and goes with it: an activation, the final norm. A method of the model stays:
            it has no weights, and arranges what any stage gives for the head.
        neck: What widens the features for the classifier (a last convolution); it goes with norm or classifier.
    """

    stem: list[Step]
    stages: list[Step]
    tail: list[Step] = field(default_factory=list)
    neck: list[Step] = field(default_factory=list)
    known_sequences: dict[str, list[str]] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of_stages(cls, chs: Sequence[int], reduction: int = 4, stem: str = "stem", tail: Sequence[str] = ()) -> Flow:
        """The flow of a stem and of `stages`, each of half the size of the one before; `reduction` is the first's."""
        stages = [Step(f"stages.{i}", dim, reduction * 2**i) for i, dim in enumerate(chs)]
        return cls([Step(stem)], stages, [Step(name) for name in tail])

    @property
    def container(self) -> str:
        """Path of the module whose items, all in turn, the stages are; "" where they are not."""
        path = self.stages[0].name.rpartition(".")[0] if self.stages else ""
        are_items = all(step.name == f"{path}.{i}" and not step.method for i, step in enumerate(self.stages))
        return path if are_items and not any(s.name.startswith(f"{path}.") for s in self.stem + self.end) else ""

    @property  # with a place of its own: the lock of Python 3.11's `cached_property` breaks a compiled graph
    def sequences(self) -> dict[str, list[str]]:
        """{path of a module: names of its items} of those whose items are steps, one behind the other, and no more."""
        if self.known_sequences is not None:
            return self.known_sequences
        found: dict[str, list[str]] = {}
        last, broken = "", set()
        for step in self.body + self.end:
            for path in step.paths:
                parent, _, name = path.rpartition(".")
                if parent != last and parent in found or step.method or step.takes or step.gives or step.options:
                    broken.add(parent)
                found.setdefault(parent, []).append(name)
                last = parent
        self.known_sequences = {path: names for path, names in found.items() if path and path not in broken}
        return self.known_sequences

    @property
    def body(self) -> list[Step]:
        return self.stem + self.stages

    @property
    def end(self) -> list[Step]:
        return self.tail + self.neck

    @property
    def taps(self) -> list[Tap]:
        return [tap for step in self.body for tap in step.taps]


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

    @classmethod
    def renaming(cls, name: str, key: str, *pairs: tuple[str, Any], **options: str) -> KeyMap:
        """The map of a layout that the presence of `key` tells, and that is ours after `rename_keys`."""
        return cls(name, lambda keys: key in keys, lambda state_dict, _: rename_keys(state_dict, *pairs, **options))

    def apply(self, state_dict: StateDict, model: nn.Module) -> StateDict:
        """`convert`, for a model that loads the result; warns where torchvision's model is ours by other arguments than
        our defaults (an eps, say), which no state dict tells."""
        name, given = getattr(model, "architecture", ""), getattr(model, "model_args", {})
        theirs = registry.torchvision_arguments(name) if self.name in ("torchvision", "mvlib") else {}
        said = ", ".join(f"{key}={value}" for key, value in theirs.items())
        problem = None
        if self.name == "mvlib" and theirs:
            problem = f"mvlib's layout, which does not say whether '{name}' was built with {said}, as torchvision's " \
                "is: if it was not, outputs can differ"
        elif any(given.get(key) != value for key, value in theirs.items()):
            problem = f"torchvision's layout, and torchvision's model is '{name}' with {said}, as this one is not: " \
                f"outputs can differ; build it by mvlib.create_model('{name}', {said})"
        if problem:
            warnings.warn(f"these weights have {problem}", UserWarning, stacklevel=registry.caller_level())
        return self.convert(state_dict, model)


def rename_keys(state_dict: StateDict, *pairs: tuple[str, Any], prefix: str = "", without: str = "") -> StateDict:
    """Keys that begin with `prefix`, without it, with each pattern of `pairs` replaced in turn (as `re.sub`), but for
    those in which the pattern `without` is found."""
    renamed = {}
    for key, value in state_dict.items():
        if not key.startswith(prefix) or (without and re.search(without, key)):
            continue
        key = key[len(prefix):]
        for pattern, replacement in pairs:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def reshape_alike(state_dict: StateDict, model: nn.Module) -> StateDict:
    """Values in the shapes that the model has, where these differ in dimensions of 1: a linear layer's weight for a 1x1
    convolution, or the reverse; a number for each channel that is stored so as to broadcast."""
    own = model.state_dict()
    return {key: value.reshape(own[key].shape) if key in own and value.squeeze().shape == own[key].squeeze().shape
            else value for key, value in state_dict.items()}


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
        raise ValueError(f"feature indices {list(indices)} are out of range: the model has {count} features, 0 to "
                         f"{count - 1}")
    return sorted(set(absolute))


class ImageModel(Module):
    """Base class of all models.

    A family's constructor sets `num_classes`, `in_chans`, `num_features`, `flow`, and, where the head is no module of
    its own, `head_hidden_size` and `drop_rate`; it ends with `self.init_weights()`, which does nothing on the meta
    device.

    Arguments of these names mean the same in all families, and their docstrings do not repeat it: `in_chans`, channels
    of the image; `num_classes`, classes, 0 for pooled features; `drop_rate`, dropout before the classifier;
    `drop_path_rate`, stochastic depth of the last block, where earlier ones have proportionally less; `global_pool`,
    pooling, where nothing else is said "avg", "max", "avgmax", "catavgmax" or "" for none; `output_stride`, 8, 16 or
    32, beyond which strides become dilation; `act_layer`, `norm_layer`, activation and norm by name or class;
    `aa_layer`, anti-aliased downsampling behind a convolution of stride 1: "avg", "blur", "blurpc" or a class;
    `zero_init_last`, whether blocks begin as identities, the last scale of their branches being 0.

    Class attributes:
        head_path: Path of the module that is the head, see `layers.pool.Head`, where there is one; the paths of pooling
            and, unless the class gives it, classifier follow from it. Else they and dropout are the model's own.
        classifier_path: Path of the classifier, or of several (distilled models); the first is the main one.
        conv_classifier: Whether the classifier is a 1x1 convolution, which without pooling gives a map of logits.
        dropout_paths: Paths of the head's dropout modules, those that there are; `drop_rate` is theirs.
        pool_path: Path of the `GlobalPool2d`; a family that pools differently gives `pools` and overrides `pool`.
        pools: Names of the poolings, of which the attribute `global_pool` is one; as `global_pool_nlc` has them, of
            tokens or of a map's positions, unless the family overrides `pool`.
        hidden_paths: What else between the features and the classifier fits the final features alone; it is cut with
            them.
        tap_layout: Layout of what a tap holds: "NCHW", "NHWC" or "NLC".
        tap_prefix: Whether a tap of tokens begins with the prefix tokens.
        feature_layout: Layout of `features_only` outputs unless asked otherwise.
        feature_form: How a `FeatureExtractor` arranges the modules: "list", "flat", "body" or "getter", see there.
        default_out_indices: What `features_only` takes unless asked: None is all, an int the last n.
        tap_norm: Which taps `forward_intermediates(norm=True)` normalises: "none", "last" or "all". Where all, tail and
            head fit each of them.
        norm_path: Path of that norm.
        pruned_pool: Pooling of a model whose head `prune_intermediate_layers` removed; None for that which it had.
        key_maps: Foreign state-dict layouts that the family reads.
        inits: What initialises layers of a type, or of a tuple of types, after their own `reset_parameters()`.
        undecayed: Pattern of the names of parameters that take no weight decay besides biases and norms; "" for none.
        structure: Whose modules it is made of: "mvlib", or "torchvision" where a builder of `mvlib.models` gave one of
            torchvision's own classes, which derive from nn.Module alone.
    """

    structure: ClassVar[str] = "mvlib"

    head_path: ClassVar[str] = ""
    classifier_path: ClassVar[str | tuple[str, ...]] = "head"
    conv_classifier: ClassVar[bool] = False
    dropout_paths: ClassVar[tuple[str, ...]] = ("head.drop", "head_drop")
    pool_path: ClassVar[str] = "global_pool"
    hidden_paths: ClassVar[tuple[str, ...]] = ()
    tap_layout: ClassVar[str] = "NCHW"
    tap_prefix: ClassVar[bool] = True
    feature_layout: ClassVar[str] = "NCHW"
    feature_form: ClassVar[str] = "getter"
    default_out_indices: ClassVar[Indices] = None
    tap_norm: ClassVar[str] = "none"
    norm_path: ClassVar[str] = "norm"
    pruned_pool: ClassVar[str | None] = ""
    key_maps: ClassVar[tuple[KeyMap, ...]] = ()
    inits: ClassVar[Inits] = MappingProxyType({})
    undecayed: ClassVar[str] = ""
    pools: ClassVar[tuple[str, ...]] = ()

    num_classes: int
    in_chans: int
    num_features: int
    head_hidden_size: int
    num_prefix_tokens: int = 0
    zero_init_last: bool = False  # of a block, what its `last_norm` (a path) names
    head_drop: nn.Module  # in some families
    global_pool: Any  # a module, or one of `pools`
    weight_init_mode: str = ""  # in families with several schemes
    _drop_rate: float = 0.0
    _began_empty: bool | None = None  # built on the meta device; None while it's being built
    grad_checkpointing: bool = False
    flow: Flow
    img_size: tuple[int, int] | None = None  # height and width that positions or windows are made for
    model_args: Mapping[str, Any] = MappingProxyType({})  # arguments that build this model again
    # What `create_model` says of the model.
    architecture: str
    weights_config: WeightsConfig
    base_weights: WeightsConfig | None
    pretrained_cfg: dict[str, Any]
    default_cfg: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what a pickle of the whole model holds.

        Raises:
            CheckpointError: It is another library's model, of the same names of classes.
        """
        if "flow" not in state:
            raise CheckpointError(f"the pickle holds a whole {type(self).__name__} of another library: save its "
                                  f"state_dict() where it was made, and load that")
        super().__setstate__(state)  # type: ignore[no-untyped-call]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "head_path" in vars(cls):
            cls.pool_path = f"{cls.head_path}.global_pool"
            if "classifier_path" not in vars(cls):
                cls.classifier_path = f"{cls.head_path}.fc"

    # forward

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, in_chans, H, W) -> logits (B, num_classes), or features where `num_classes` is 0."""
        return self.forward_head(self.forward_features(x))

    def forward_image(self, x: Tensor) -> Tensor:
        """`forward` of an image alone, whatever else a family's takes."""
        return self.forward(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Image (B, in_chans, H, W) -> final features, unpooled, in the family's own layout."""
        features: Tensor = self.run_flow(x)
        return features

    def run_flow(self, x: Any, **shared: Any) -> Any:
        """Final features of an image; `shared` are values for the steps that take them."""
        container = self._follow_container()
        if steps := self._follow_sequences():
            for step in steps:
                x = self.run_step(step, x, shared, self.grad_checkpointing and step in self.flow.stages)
            return x
        for step in self.flow.stem:
            x = self.run_step(step, x, shared)
        if container is not None and not self.grad_checkpointing and runs_by_itself(container):
            step = self.flow.stages[0]
            x = self.run_step(replace(step, name=self.flow.container), x, shared)
        else:
            for step in self.flow.stages:
                x = self.run_step(step, x, shared, self.grad_checkpointing)
        for step in self.flow.end:
            x = self.run_step(step, x, shared)
        return x

    def _follow_container(self) -> nn.Module | None:
        """The module whose items the stages are; where a user cut or added some, the stages are now those there are."""
        path, stages = self.flow.container, self.flow.stages
        if not path:
            return None
        try:
            container = self.get_submodule(path)
        except AttributeError:  # a `FeatureExtractor` has arranged the modules otherwise
            return None
        if isinstance(container, (nn.Sequential, nn.ModuleList)) and len(container) not in (0, len(stages)):
            stages[len(container):] = [replace(stages[-1], name=f"{path}.{i}", module=None)
                                       for i in range(len(stages), len(container))]
            self.flow.known_sequences = None
        return container

    def _follow_sequences(self) -> list[Step]:
        """All steps, a sequence in the place of its items where a user hooked it, or cut or added some; else []."""
        theirs = [path for path, names in self.flow.sequences.items() if self._is_users(path, names)]
        if not theirs:
            return []
        steps: list[Step] = []
        for step in self.flow.body + self.flow.end:
            path = step.paths[0].rpartition(".")[0]
            if path not in theirs:
                steps.append(step)
            elif not steps or steps[-1].name != path:
                steps.append(Step(path))
        return steps

    def _is_users(self, path: str, names: list[str]) -> bool:
        try:
            module = self.get_submodule(path)
        except AttributeError:  # as above
            return False
        return isinstance(module, nn.Sequential) and (
            list(module._modules) != names or not self.grad_checkpointing and runs_by_itself(module))

    def run_step(self, step: Step, x: Any, shared: dict[str, Any], recompute: bool = False) -> Any:
        """What a step makes of `x` and of the shared values that it takes; what it gives is added to them.

        Args:
            recompute: Blocks keep no activations for the backward pass.
        """
        if recompute and len(step.parts) > 1:  # its layers are one block
            return run_blocks([partial(self.run_step, step, shared=shared)], x, recompute=True)
        taken = [shared[name] for name in step.takes]
        options = {name: shared[name] for name in step.options if shared.get(name) is not None}
        for path in step.parts:
            module: Any = self
            for name in path:  # `get_submodule`, but quick, and in words that torch.export of torch 2.5 can follow
                module = module._modules[name] if name in module._modules else getattr(module, name)
            is_ours = recompute and not hasattr(module, "grad_checkpointing")  # else the module sees to it
            if is_ours or (taken and isinstance(module, nn.Sequential)):
                blocks = module if isinstance(module, nn.Sequential) else [module]
                x = run_blocks(blocks, x, *taken, recompute=is_ours, **options)
            else:
                x = module(x, *taken, **options)
        if step.gives:
            x, *given = x
            shared.update(zip(step.gives, given))
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Final features -> logits, or the classifier's input where `pre_logits`."""
        if self._head is not None:
            head: Callable[..., Tensor] = self._head  # a user may have put any module there
            return head(x, pre_logits=True) if pre_logits else head(x)
        x = self.pool(x)
        if "head_drop" in self._modules:
            x = self.head_drop(x)
        elif self._drop_rate > 0.0:
            x = F.dropout(x, p=self._drop_rate, training=self.training)
        return x if pre_logits else self.get_classifier()(x)

    def pool(self, x: Tensor) -> Tensor:
        """Final features -> one vector per image (B, head_hidden_size): the classifier's input, but for dropout."""
        if self.pools:
            if self.tap_layout == "NCHW":
                return x.mean(dim=(2, 3)) if self.global_pool else x
            return global_pool_nlc(x, self.global_pool, self.num_prefix_tokens)
        return self._at(self.pool_path)(x) if self._head is None else self._head.pool(x)

    def forward_intermediates(
        self, x: Tensor, indices: Indices = None, norm: bool = False, stop_early: bool = False,
        output_fmt: str = "NCHW", intermediates_only: bool = False, *, return_prefix_tokens: bool = False,
        output_dict: bool = False,
    ) -> Any:
        """The features named by `feature_info`, and the final features.

        Args:
            indices: Which taps: None for all, an int for the last n, or a sequence (negative counts from the end), in
                any order.
            norm: Apply the final norm to the intermediates that it fits.
            stop_early: Stop after the last tap that was asked for; the final features are then that tap's, or the
                stem's where the tap lies within it.
            output_fmt: "NCHW", "NHWC", or "NLC" for token models.
            return_prefix_tokens: Token models only: each intermediate becomes a pair (spatial, prefix tokens).
            output_dict: Return a dict: "image_features", "image_intermediates" and, for prefix tokens that were asked
                for, "image_intermediates_prefix".

        Returns:
            (final features, intermediates in order of depth), or the intermediates; a dict of them for `output_dict`.

        Raises:
            ValueError: An index is out of range, or the format is not one that this model can give.
        """
        return self.run_to_taps(x, indices, norm, stop_early, output_fmt, intermediates_only, return_prefix_tokens,
                                output_dict)

    def run_to_taps(
        self, x: Tensor, indices: Indices, norm: bool, stop_early: bool, output_fmt: str, intermediates_only: bool,
        return_prefix_tokens: bool, output_dict: bool, **shared: Any,
    ) -> Any:
        """What `forward_intermediates` gives; `shared` are values for the steps that take them."""
        self._follow_container()
        wanted = set(take_indices(len(self.flow.taps), indices))
        stop_after = max(wanted) if stop_early or intermediates_only else len(self.flow.taps)
        image_size = x.shape[-2:] if hasattr(x, "shape") else None
        intermediates: list[Any] = []
        index, complete = 0, True
        for position, step in enumerate(self.flow.body):
            x = self.run_step(step, x, shared, position >= len(self.flow.stem) and self.grad_checkpointing)
            for tap in step.taps:
                if index in wanted:
                    feature, grid = x, shared.get("grid")
                    if tap.part is not None:
                        feature, grid = x[tap.part], grid and grid[tap.part]
                    if norm:
                        feature = self.norm_tap(feature, index)
                    grid = grid or self.tap_grid(tap, image_size)
                    intermediates.append(self._format_tap(feature, grid, output_fmt, return_prefix_tokens))
                index += 1
            if index > stop_after:
                complete = position == len(self.flow.body) - 1
                break
        if not intermediates_only:
            for step in self.steps_after(position):
                x = self.run_step(step, x, shared)
            if complete or self.tap_norm == "all":  # a norm that fits every tap fits the last one reached
                for step in self.flow.end:
                    x = self.run_step(step, x, shared)
            else:
                x = self.early_features(x)
        if not output_dict:
            return intermediates if intermediates_only else (x, intermediates)
        found: dict[str, Any] = {} if intermediates_only else {"image_features": x}
        if intermediates and isinstance(intermediates[0], tuple):
            intermediates, found["image_intermediates_prefix"] = (list(part) for part in zip(*intermediates))
        return found | {"image_intermediates": intermediates}

    def early_features(self, x: Any) -> Any:
        """Final features of a pass that stops at a tap, from what the tap's step gave."""
        return x

    def steps_after(self, position: int) -> list[Step]:
        """What is run after this step of the flow's body where one stops early: the rest of the stem."""
        return self.flow.stem[position + 1:]

    def tap_grid(self, tap: Tap, image_size: Sequence[int] | None) -> tuple[int, int] | None:
        """Rows and columns of a tap of tokens, where no step gives them, for an image of `image_size` (H, W)."""
        grid: tuple[int, int] | None = \
            self._at("patch_embed").dynamic_feat_size(image_size) if self.tap_layout == "NLC" else None
        return grid

    def _at(self, path: str) -> Any:
        """What `get_submodule` gives, in words that torch.export of torch 2.5 can follow."""
        module: Any = self
        for name in path.split("."):
            module = getattr(module, name)
        return module

    def norm_tap(self, x: Tensor, index: int) -> Tensor:
        """A tap behind the final norm that fits it; as it is where none does."""
        is_normed = self.tap_norm == "all" or (self.tap_norm == "last" and index == len(self.flow.taps) - 1)
        normed: Tensor = self._at(self.norm_path)(x) if is_normed else x
        return normed

    def _format_tap(self, x: Tensor, grid: tuple[int, int] | None, output_fmt: str, prefix: bool) -> Any:
        known = ("NCHW", "NHWC", "NLC") if self.tap_layout == "NLC" else ("NCHW", "NHWC")
        if output_fmt not in known:
            raise ValueError(f"output_fmt {output_fmt!r} is not one of {', '.join(known)}")
        prefix_tokens = None
        if self.tap_layout == "NLC":
            count = self.num_prefix_tokens if self.tap_prefix else 0
            prefix_tokens, x = x[:, :count], x[:, count:]
            if output_fmt != "NLC":
                assert grid is not None
                x = x.reshape(x.shape[0], *grid, -1)
        is_channels_last = self.tap_layout != "NCHW"
        if output_fmt == "NCHW" and is_channels_last:
            x = x.permute(0, 3, 1, 2).contiguous()
        elif output_fmt == "NHWC" and not is_channels_last:
            x = x.permute(0, 2, 3, 1).contiguous()
        return (x, prefix_tokens) if prefix and self.num_prefix_tokens and self.tap_prefix else x

    def __prepare_scriptable__(self) -> nn.Module:
        """What `torch.jit.script` asks for: a module that it can compile in this one's place."""
        return scriptable(self)

    # features

    @computed
    def feature_info(self) -> list[dict[str, Any]]:
        """One dict a tap: `num_chs`, `reduction` (stride), `module` and `index`."""
        return [dict(num_chs=tap.chs, reduction=tap.reduction, module=tap.module, **self.tap_facts(tap.module), index=i)
                for i, tap in enumerate(self.flow.taps)]

    def tap_facts(self, module: str) -> dict[str, Any]:
        """What else `feature_info` says, in timm too, of a tap at `module` in this family."""
        return {}

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove, in place, what the named features do not need. Returns their absolute indices."""
        flow, taken = self.flow, take_indices(len(self.flow.taps), indices)
        last = flow.taps[max(taken)]
        stop = flow.body.index(last.step) + 1
        is_cut = stop < len(flow.body) and self.tap_norm != "all"
        tail = [step for step in flow.tail if step.parts[0][0] not in self._modules or
                not (is_cut or (prune_norm and step.name == self.norm_path))]
        neck = [] if prune_norm or is_cut or prune_head else flow.neck
        if is_cut or neck != flow.neck:  # the head was made for other features
            self.num_features, prune_head = last.chs, True
        kept = {path for step in flow.body[:stop] for path in step.paths}  # a block may be several steps
        for step in flow.body[stop:] + [step for step in flow.end if step not in tail + neck]:
            for path in step.paths:
                if path not in kept:
                    self._remove_module(path)
        self.flow = Flow(flow.stem[:stop], flow.stages[:max(stop - len(flow.stem), 0)], tail, neck)
        if prune_head:
            self.reset_classifier(0, self.pruned_pool, reset_other=True)
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

    def add_head(self, head: Head) -> None:
        """Add `head`, of a family whose `head_path` that is, behind all else; initialise all weights."""
        self.num_features, self.head_hidden_size = head.in_features, head.num_features
        self.add_module(self.head_path, head)
        self.init_weights()

    def add_classifier(
        self, num_features: int, num_classes: int, global_pool: str, head_drop: nn.Module | None = None
    ) -> None:
        """Add pooling, dropout if given, and classifier of a family without a `Head`; initialise all weights."""
        self.num_features = self.head_hidden_size = num_features
        self.num_classes = num_classes
        self.set_global_pool(global_pool)
        if head_drop is not None:
            self.head_drop = head_drop
        self.add_module(self.classifier_paths[0], self.make_classifier(num_classes))
        self.init_weights()

    @property
    def _head(self) -> Head | None:
        head: Head | None = self._at(self.head_path) if self.head_path else None
        return head

    def cut_head(self) -> None:
        """Remove of the head what fits the final features alone; it then takes any of `num_features` channels."""
        for path in self.hidden_paths:
            self.set_submodule(path, nn.Identity())
        if self._head is not None:
            self._head.cut(self.num_features)
            self.head_hidden_size = self._head.num_features
        else:
            self.head_hidden_size = self.num_features * getattr(self._at(self.pool_path), "out_factor", 1)

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

    @property
    def logits_paths(self) -> tuple[str, ...]:
        """Paths of the layers that have a row for each class: the classifiers, or what is last in each of them."""
        layers = [name for name, module in self.named_modules() if hasattr(module, "weight")]
        return tuple(next((name for name in reversed(layers) if f"{name}.".startswith(f"{path}.")), path)
                     for path in self.classifier_paths)

    def get_classifier(self, name_only: bool = False) -> Any:
        """The (main) classifier, an `nn.Identity` where there is none; or its path."""
        path = self.classifier_paths[0]
        return path if name_only else self._at(path)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, reset_other: bool = False) -> None:
        """Replace the classifier with a fresh one, initialised; 0 classes removes it.

        Args:
            global_pool: New pooling, unchanged if None.
            reset_other: Remove the head's norms and hidden layers as well.
        """
        self.num_classes = num_classes
        if reset_other:
            self.cut_head()
        like = next((p for p in self.parameters() if p.is_floating_point()), None)
        if global_pool is not None:
            self.set_global_pool(global_pool)
        for path in self.classifier_paths:
            fresh = self.make_classifier_at(path, num_classes)
            if like is not None:
                fresh.to(device=like.device, dtype=like.dtype)
            self.set_submodule(path, fresh.train(self.training))
            self.init_modules(f"{path}.{name}".removesuffix(".") for name, _ in fresh.named_modules())

    def make_classifier_at(self, path: str, num_classes: int) -> nn.Module:
        """The classifier of one of `classifier_paths`; families whose classifiers differ have one for each."""
        return self.make_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """A classifier that fits the pooled features, or an identity for 0 classes."""
        if self._head is not None:
            return self._head.make_classifier(num_classes)
        if self.conv_classifier and num_classes > 0:
            return ConvClassifier(self.head_hidden_size, num_classes, bool(self._at(self.pool_path).pool_type))
        return nn.Linear(self.head_hidden_size, num_classes) if num_classes > 0 else nn.Identity()

    def set_global_pool(self, pool_type: str) -> None:
        """Change the pooling, in place."""
        if self.pools:
            self.check_pool(pool_type)
            self.global_pool = pool_type
        elif self._head is not None:
            self._head.set_global_pool(pool_type)
            self.head_hidden_size = self._head.num_features
        else:
            pool = GlobalPool2d(pool_type, layout="NHWC" if self.tap_layout == "NHWC" else "NCHW")
            self.set_submodule(self.pool_path, pool)
            self.head_hidden_size = self.num_features * pool.out_factor

    def check_pool(self, pool_type: str) -> None:
        """
        Raises:
            ValueError: There is no pooling of that name, or this model lacks what it takes.
        """
        if pool_type not in self.pools:
            raise ValueError(f"unknown global_pool {pool_type!r}; known: {', '.join(map(repr, self.pools))}")

    # training

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the stages' activations in the backward pass instead of storing them."""
        module: Any
        for module in self.modules():
            if hasattr(module, "grad_checkpointing"):
                module.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names, or wildcards, of parameters that take no weight decay besides biases and norms."""
        names = (name for name, _ in self.named_parameters()) if self.undecayed else ()
        return {name for name in names if re.search(self.undecayed, name)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that sort parameter names into layers, for layer-wise learning rates.

        Args:
            coarse: One layer a stage instead of one a block.

        Returns:
            `stem`: a pattern of the stem's modules and the parameters that the model itself owns; `blocks`: pairs of
            a pattern, whose numeric groups order the layers, and None or a suffix, where 99999 joins the layer before.
            What matches nothing belongs to the head.
        """
        stages: dict[str, nn.Module | None] = {}  # "layer1" and "layer2" share one pattern
        for step in self.flow.stages:
            path = step.paths[0]
            is_module = path.partition(".")[0] in self._modules
            stages[re.sub(r"(\d+)$", r"(\\d+)", re.escape(path))] = self.get_submodule(path) if is_module else None
        blocks: list[tuple[str, tuple[int, ...] | None]] = []
        for prefix, stage in sorted(stages.items()):
            if isinstance(stage, Stage) and not coarse:
                blocks += [(rf"^{prefix}\.downsample", (0,)), (rf"^{prefix}\.blocks\.(\d+)", None)]
            else:  # a sequential stage's items are its blocks
                is_fine = isinstance(stage, nn.Sequential) and not coarse
                blocks.append((rf"^{prefix}\.(\d+)" if is_fine else f"^{prefix}", None))
        if not coarse or not any(isinstance(stage, Stage) for stage in stages.values()):  # there timm's head has it
            blocks += [(f"^{re.escape(step.name)}", (99999,)) for step in self.flow.end]
        own = [name for name, parameter in self._parameters.items() if parameter is not None]
        stem = "|".join([re.escape(step.name) for step in self.flow.stem] + own)
        return dict(stem=rf"^(?:{stem})(?:\.|$)", blocks=blocks)  # the end: "features.1" is not "features.10"

    # weights

    def note_arguments(self, **changed: Any) -> None:
        """Write down what was changed since the model was built, so that `model_args` build it as it is now."""
        self.model_args = {**self.model_args, **changed}

    @property
    def optional_parts(self) -> tuple[str, ...]:
        """Paths of modules that a published file may lack as a whole, and that are initialised then."""
        return ()

    def init_weights(self) -> None:
        """Initialise all weights; does nothing while the model is on the meta device."""
        if self.head_path and isinstance(self._head, Head):
            self.head_hidden_size = self._head.num_features
        self.init_modules()

    def init_modules(self, paths: Iterable[str] | None = None) -> None:
        """Initialise every module that owns parameters, or those of these paths ("" is the model itself); none while
        they are on the meta device."""
        named = dict(self.named_modules())
        paths = list(named) if paths is None else list(paths)
        if any(owns_meta(named[path]) for path in paths):
            self._began_empty = self._began_empty is not False
            return
        with torch.no_grad():
            for path in paths:
                module = named[path]
                if module._parameters or module._buffers:
                    self.init_module(path, module)
        self._began_empty = bool(self._began_empty)

    def _init_as(self, mode: str, needs_reset: bool) -> None:
        """What `init_weights(mode, needs_reset)` of a family with several schemes does; "" is that of the constructor.
        Layers that the scheme says nothing of keep their values unless `needs_reset`."""
        built, self.weight_init_mode = self.weight_init_mode, mode or self.weight_init_mode
        kinds = (nn.Linear, nn.Conv2d) if self.weight_init_mode.startswith("jax") else nn.Linear
        try:
            self.init_modules(None if needs_reset else [
                path for path, module in self.named_modules() if module is self or isinstance(module, kinds)])
        finally:
            self.weight_init_mode = built

    def _init_weights(self, m: nn.Module) -> None:
        """Initialise what `m` itself owns, wherever it stands: `head.apply(self._init_weights)`."""
        with torch.no_grad():
            self.init_module("", m)

    def init_module(self, name: str, module: nn.Module) -> None:
        """Initialise what `module` itself owns; families refine this and fall back to it.

        While the model is being built, what the constructors of its parts gave stays, a user's block's above all; later
        that of parts without `reset_parameters()`.

        Raises:
            NotImplementedError: The model was built on the meta device, where a constructor gives no values.
        """
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            if module is self or self._began_empty is not None:
                reset()
        elif self._began_empty and any(p is not None for p in module._parameters.values()):
            raise NotImplementedError(f"{type(module).__name__} at '{name}' owns parameters, not reset_parameters()")
        for kinds, init in self.inits.items():
            if isinstance(module, kinds):
                init(module)
        if self.zero_init_last and isinstance(weight := getattr(module, "weight", None), Tensor):
            parts = name.split(".")
            if any(getattr(self._at(".".join(parts[:i])), "last_norm", None) == ".".join(parts[i:])
                   for i in range(1, len(parts))):
                nn.init.zeros_(weight)
        norm: Any = module
        if hasattr(norm, "initial_weight"):  # see `layers.branches.ConvNormPair`
            nn.init.constant_(norm.weight, norm.initial_weight)
        init_others = getattr(module, "init_non_persistent_buffers", None)
        if init_others is not None:
            init_others()

    def _load_from_state_dict(self, state_dict: StateDict, prefix: str, *args: Any) -> None:
        """What torch calls to load this model, by itself or as a part of another."""
        given = {key[len(prefix):]: state_dict.pop(key) for key in [*state_dict] if key.startswith(prefix)}
        state_dict.update((prefix + key, value) for key, value in self.adapt_state_dict(given).items())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def adapt_state_dict(self, state_dict: StateDict) -> StateDict:
        """A state dict for this model: what is there in a foreign layout or in other sizes is converted, what fits as
        it is stays as it is."""
        key_map = next((candidate for candidate in self.key_maps if candidate.matches(state_dict)), None)
        if key_map is not None:
            return self.fit_state_dict(key_map.apply(state_dict, self))
        own = {key: getattr(value, "shape", None) for key, value in self.state_dict().items()}
        fits = {key: value for key, value in state_dict.items()
                if key in own and own[key] == getattr(value, "shape", None)}
        return fits if len(fits) == len(state_dict) else {**self.fit_state_dict(state_dict), **fits}

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """A state dict in our layout, fitted to this model's sizes (position embeddings, bias tables); base: unchanged.
        It may lack buffers that other code saves and we compute."""
        return state_dict
