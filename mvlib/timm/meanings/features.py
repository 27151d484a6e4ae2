"""timm's feature extractors by their classes.

Of a model of ours each makes a `FeatureExtractor` in its form, and counts those as its instances. Any other module is
wrapped as timm wraps it, by its `feature_info`: [{"num_chs": 64, "reduction": 4, "module": "layer1"}, ...].
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...features import FeatureExtractor, FeatureInfo
from ...layers.fx import create_feature_extractor
from ...models.base import ImageModel, take_indices
from .modules import checkpoint

__all__ = [
    "FeatureDictNet", "FeatureGetterNet", "FeatureGraphNet", "FeatureHookNet", "FeatureHooks", "FeatureListNet",
    "GraphExtractNet", "extract_features", "feature_take_indices",
]

Indices = int | Sequence[int]


def feature_take_indices(
    num_features: int, indices: Indices | None = None, as_set: bool = False
) -> tuple[Any, int]:
    """Which of a model's features are meant: (their indices, the last of them).

    Args:
        num_features: How many there are.
        indices: None for all, an int for the last n, or indices, those below 0 counted from the end.
        as_set: Return a set instead of a list in the given order.

    Raises:
        AssertionError: An index is out of range.
    """
    if indices is None:
        taken = list(range(num_features))
    elif isinstance(indices, int):
        if not 0 < indices <= num_features:
            raise AssertionError(f"the last {indices} features are asked for, of {num_features}")
        taken = list(range(num_features - indices, num_features))
    else:
        taken = [index + num_features if index < 0 else index for index in indices]
        for index in taken:
            if not 0 <= index < num_features:
                raise AssertionError(f"feature index {index} is out of range: there are {num_features}")
    return (set(taken) if as_set else taken), max(taken)


def _info_of(model: nn.Module, out_indices: Indices) -> FeatureInfo:
    info: Any = model.feature_info
    return info.from_other(out_indices) if isinstance(info, FeatureInfo) else FeatureInfo(info, out_indices)


def _children(model: nn.Module, flatten: bool) -> Iterator[tuple[str, str, nn.Module]]:
    """(name here, name there, module): children, and the items of those that are sequential if they are flattened."""
    for name, child in model.named_children():
        if flatten and isinstance(child, nn.Sequential):
            yield from ((f"{name}_{item}", f"{name}.{item}", layer) for item, layer in child.named_children())
        else:
            yield name, name, child


class _ByForm(type):
    """Class of those that stand for a form of `FeatureExtractor`, too."""

    forms: tuple[str, ...] = ()

    def __call__(cls, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(model, *args, **kwargs) if not cls._is_for(model) else None
        return made if made is not None else cls.of_ours(model, *args, **kwargs)  # type: ignore[attr-defined]

    def _is_for(cls, model: nn.Module) -> bool:
        return cls.__module__ == __name__ and isinstance(model, ImageModel)

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or isinstance(instance, FeatureExtractor) and \
            cls.__module__ == __name__ and instance.form in cls.forms


class _Net(nn.ModuleDict, metaclass=_ByForm):
    """Runs its children in order, recomputing them in the backward pass if that is asked for."""

    feature_info: FeatureInfo
    grad_checkpointing = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass instead of storing them."""
        self.grad_checkpointing = enable

    def _steps(self, x: Any) -> Iterator[tuple[str, Any]]:
        last = len(self) - 1
        for i, (name, module) in enumerate(self.items()):
            keeps = i in (0, last) or getattr(module, "inplace", False)  # the first needs a gradient at its input
            x = checkpoint(module, x) if self.grad_checkpointing and not keeps else module(x)
            yield name, x


class FeatureDictNet(_Net):
    """{name: feature map} of a model's children, up to the last that is asked for.

    The children must be in the order in which the model runs them.

    Args:
        model: The model; it is taken apart.
        out_indices: Which features.
        out_map: Names of the outputs; their indices as text unless given.
        output_fmt: How the model arranges its features, "NCHW" or "NHWC".
        feature_concat: Join features that are several maps along the channels, instead of taking the first.
        flatten_sequential: The items of sequential children are children themselves, "layers.1" as "layers_1".
    """

    forms = ("list", "flat", "body")

    @classmethod
    def of_ours(
        cls, model: ImageModel, out_indices: Indices = (0, 1, 2, 3, 4), out_map: Sequence[Any] | None = None,
        output_fmt: str | None = None, feature_concat: bool = False, flatten_sequential: bool = False,
    ) -> FeatureExtractor:
        """A `FeatureExtractor` that returns a dict, in the form of the model's family."""
        names = None if out_map is None else list(map(str, out_map))
        return FeatureExtractor(model, _fitting(model, out_indices), output_fmt, return_dict=True, out_map=names)

    def __init__(
        self, model: nn.Module, out_indices: Indices = (0, 1, 2, 3, 4), out_map: Sequence[Any] | None = None,
        output_fmt: str = "NCHW", feature_concat: bool = False, flatten_sequential: bool = False,
    ) -> None:
        super().__init__()
        self.feature_info = _info_of(model, out_indices)
        self.output_fmt, self.concat = output_fmt, feature_concat
        self.return_layers: dict[str, str] = {}
        names = self.feature_info.out_indices if out_map is None else out_map
        wanted = dict(zip(self.feature_info.module_name(), map(str, names)))
        for name, path, module in _children(model, flatten_sequential):
            self[name] = module
            if path in wanted:
                self.return_layers[name] = wanted.pop(path)
            if not wanted:
                break
        if wanted:
            raise AssertionError(f"the model has no children {', '.join(map(repr, wanted))} to take features from")

    def _collect(self, x: Tensor) -> OrderedDict[str, Tensor]:
        found = OrderedDict()
        for name, value in self._steps(x):
            if name in self.return_layers:
                if isinstance(value, (tuple, list)):
                    value = torch.cat(list(value), 1) if self.concat else value[0]
                found[self.return_layers[name]] = value
        return found

    def forward(self, x: Tensor) -> Any:
        return self._collect(x)


class FeatureListNet(FeatureDictNet):
    """The feature maps of `FeatureDictNet` as a list."""

    @classmethod
    def of_ours(  # type: ignore[override]
        cls, model: ImageModel, out_indices: Indices = (0, 1, 2, 3, 4), output_fmt: str | None = None,
        feature_concat: bool = False, flatten_sequential: bool = False,
    ) -> FeatureExtractor:
        """A `FeatureExtractor` in the form of the model's family."""
        return FeatureExtractor(model, _fitting(model, out_indices), output_fmt)

    def __init__(
        self, model: nn.Module, out_indices: Indices = (0, 1, 2, 3, 4), output_fmt: str = "NCHW",
        feature_concat: bool = False, flatten_sequential: bool = False,
    ) -> None:
        super().__init__(model, out_indices, None, output_fmt, feature_concat, flatten_sequential)

    def forward(self, x: Tensor) -> Any:
        return list(self._collect(x).values())


class FeatureHooks:
    """What modules take or give, caught by hooks while a model runs.

    Args:
        hooks: Names of modules, or {"module": name, "hook_type": "forward" or "forward_pre"}.
        named_modules: (name, module) of all modules.
        out_map: What the outputs are called; by the modules' names unless given.
        default_hook_type: Of a hook that does not say.
    """

    def __init__(
        self, hooks: Sequence[str | Mapping[str, Any]], named_modules: Iterable[tuple[str, nn.Module]],
        out_map: Sequence[Any] | None = None, default_hook_type: str = "forward",
    ) -> None:
        self._found: dict[torch.device, dict[Any, Tensor]] = {}
        self._names: list[Any] = []
        modules = dict(named_modules)
        for i, hook in enumerate(hooks):
            path = hook if isinstance(hook, str) else hook["module"]
            kind = default_hook_type if isinstance(hook, str) else hook.get("hook_type", default_hook_type)
            name = path if out_map is None else out_map[i]
            self._names.append(name)
            if kind == "forward":
                modules[path].register_forward_hook(partial(self._note, name))
            elif kind == "forward_pre":
                modules[path].register_forward_pre_hook(partial(self._note, name))
            else:
                raise AssertionError(f"unknown type of hook {kind!r}: forward or forward_pre")

    def _note(self, name: Any, module: nn.Module, *values: Any) -> None:
        value = values[-1][0] if isinstance(values[-1], tuple) else values[-1]
        self._found.setdefault(value.device, {})[name] = value

    def get_output(self, device: torch.device) -> OrderedDict[Any, Tensor]:
        """What was caught on a device since the last call, in the order of the hooks."""
        found = self._found.pop(device, {})
        return OrderedDict((name, found[name]) for name in self._names if name in found)


class FeatureHookNet(_Net):
    """Feature maps caught by hooks while the model runs, at any depth.

    Args:
        model: The model; without its classifier if it stays whole.
        out_indices: Which features.
        out_map: Names of the outputs; those of the modules unless given.
        return_dict: Return a dict instead of a list.
        output_fmt: How the model arranges its features.
        no_rewrite: Keep the model whole; None does so unless `flatten_sequential` is set.
        flatten_sequential: The model's children, and the items of sequential ones, are this module's own.
        default_hook_type: "forward" takes what modules give, "forward_pre" what they take.
    """

    forms = ("hook",)

    @classmethod
    def of_ours(
        cls, model: ImageModel, out_indices: Indices = (0, 1, 2, 3, 4), out_map: Sequence[Any] | None = None,
        return_dict: bool = False, output_fmt: str | None = None, no_rewrite: bool | None = None,
        flatten_sequential: bool = False, default_hook_type: str = "forward",
    ) -> FeatureExtractor:
        """A `FeatureExtractor` in the form "hook"."""
        names = None if out_map is None else list(map(str, out_map))
        if names is None and return_dict:
            info = model.feature_info
            names = [info[i]["module"] for i in take_indices(len(info), _fitting(model, out_indices))]
        return FeatureExtractor(model, _fitting(model, out_indices), output_fmt, return_dict=return_dict,
                                feature_cls="hook", out_map=names)

    def __init__(
        self, model: Any, out_indices: Indices = (0, 1, 2, 3, 4), out_map: Sequence[Any] | None = None,
        return_dict: bool = False, output_fmt: str = "NCHW", no_rewrite: bool | None = None,
        flatten_sequential: bool = False, default_hook_type: str = "forward",
    ) -> None:
        super().__init__()
        self.feature_info = _info_of(model, out_indices)
        self.return_dict, self.output_fmt = return_dict, output_fmt
        hooks = self.feature_info.get_dicts()
        modules = dict(model.named_modules())
        if no_rewrite or no_rewrite is None and not flatten_sequential:
            if hasattr(model, "reset_classifier"):
                model.reset_classifier(0)
            self["body"] = model
        else:
            wanted = {hook["module"] for hook in hooks}
            for name, path, module in _children(model, flatten_sequential):
                self[name] = module
                wanted -= {found for found, _ in module.named_modules(prefix=path)}
                if not wanted:
                    break
            if wanted:
                raise AssertionError(f"the model has no modules {', '.join(map(repr, wanted))} to take features from")
        self.hooks = FeatureHooks(hooks, modules.items(), out_map, default_hook_type)

    def forward(self, x: Tensor) -> Any:
        for _ in self._steps(x):
            pass
        found = self.hooks.get_output(x.device)
        return found if self.return_dict else list(found.values())


class FeatureGetterNet(_Net):
    """Feature maps that the model's own `forward_intermediates` gives.

    Args:
        model: The model, its last layers removed if no output needs them.
        out_indices: Which features; an int takes the last n.
        out_map: Names of the outputs of a dict.
        return_dict: Return a dict instead of a list.
        output_fmt: How features are arranged, "NCHW" or "NLC".
        norm: Apply the model's final norm to each.
        prune: Remove the layers that no output needs.
    """

    forms = ("getter",)

    @classmethod
    def of_ours(
        cls, model: ImageModel, out_indices: Indices = 4, out_map: Sequence[Any] | None = None,
        return_dict: bool = False, output_fmt: str = "NCHW", norm: bool = False, prune: bool = True,
    ) -> FeatureExtractor:
        """A `FeatureExtractor` in the form "getter"."""
        names = None if out_map is None else list(map(str, out_map))
        return FeatureExtractor(model, out_indices, output_fmt, norm, return_dict, "getter", names)

    def __init__(
        self, model: Any, out_indices: Indices = 4, out_map: Sequence[Any] | None = None,
        return_dict: bool = False, output_fmt: str = "NCHW", norm: bool = False, prune: bool = True,
    ) -> None:
        super().__init__()
        if prune and hasattr(model, "prune_intermediate_layers"):
            out_indices = model.prune_intermediate_layers(out_indices, prune_norm=not norm)
        self.feature_info = _info_of(model, out_indices)
        self.model = model
        self.out_indices, self.out_map, self.return_dict = out_indices, out_map, return_dict
        self.output_fmt, self.norm = output_fmt, norm

    def forward(self, x: Tensor) -> Any:
        model: Any = self.model
        return model.forward_intermediates(
            x, indices=self.out_indices, norm=self.norm, output_fmt=self.output_fmt, intermediates_only=True)


class FeatureGraphNet(_Net):
    """Feature maps of the graph that torch.fx traces of the model.

    Args:
        model: The model.
        out_indices: Which features.
        out_map: Names of the outputs; their indices as text unless given.
        output_fmt: How the model arranges its features.
        return_dict: Return a dict instead of a list.
    """

    forms = ("fx",)

    @classmethod
    def of_ours(
        cls, model: ImageModel, out_indices: Indices = (0, 1, 2, 3, 4), out_map: Sequence[Any] | None = None,
        output_fmt: str | None = None, return_dict: bool = False,
    ) -> FeatureExtractor:
        """A `FeatureExtractor` in the form "fx"."""
        names = None if out_map is None else list(map(str, out_map))
        return FeatureExtractor(model, _fitting(model, out_indices), output_fmt, return_dict=return_dict,
                                feature_cls="fx", out_map=names)

    def __init__(
        self, model: nn.Module, out_indices: Indices = (0, 1, 2, 3, 4), out_map: Sequence[Any] | None = None,
        output_fmt: str = "NCHW", return_dict: bool = False,
    ) -> None:
        super().__init__()
        self.feature_info = _info_of(model, out_indices)
        self.output_fmt, self.return_dict = output_fmt, return_dict
        names = self.feature_info.out_indices if out_map is None else out_map
        self.graph_module = create_feature_extractor(model, dict(zip(self.feature_info.module_name(), map(str, names))))

    def forward(self, x: Tensor) -> Any:
        found = self.graph_module(x)
        return found if self.return_dict else list(found.values())


class GraphExtractNet(nn.Module):
    """Any nodes of the graph that torch.fx traces of a model.

    Args:
        model: The model.
        return_nodes: Names of nodes, or {name: what the output is called}.
        squeeze_out: Return a single output by itself.
        return_dict: Return a dict instead of a list.
    """

    def __init__(
        self, model: nn.Module, return_nodes: Mapping[str, str] | Sequence[str], squeeze_out: bool = True,
        return_dict: bool = False,
    ) -> None:
        super().__init__()
        self.squeeze_out, self.return_dict = squeeze_out, return_dict
        nodes = dict(return_nodes) if isinstance(return_nodes, Mapping) else list(return_nodes)
        self.graph_module = create_feature_extractor(model, nodes)

    def forward(self, x: Tensor) -> Any:
        found = self.graph_module(x)
        if self.return_dict:
            return found
        values = list(found.values())
        return values[0] if self.squeeze_out and len(values) == 1 else values


def _fitting(model: ImageModel, out_indices: Indices) -> Indices:
    """timm's default of five features, of a model that has fewer."""
    count = len(model.feature_info)
    return tuple(range(count)) if out_indices == (0, 1, 2, 3, 4) and count < 5 else out_indices


_CLASSES: dict[str, Callable[..., Any]] = {
    "list": FeatureListNet, "dict": FeatureDictNet, "hook": FeatureHookNet, "fx": FeatureGraphNet,
    "getter": FeatureGetterNet}


def extract_features(model: nn.Module, feature_cls: str | Callable[..., Any] = "list", **feature_cfg: Any) -> nn.Module:
    """A model as a feature extractor of a class, by its name in timm ("list", "dict", "hook", "fx", "getter").

    Raises:
        AssertionError: The name is unknown.
    """
    if isinstance(feature_cls, str):
        name = "hook" if "hook" in feature_cls.lower() else feature_cls.lower()
        if name not in _CLASSES:
            raise AssertionError(f"unknown feature_cls '{feature_cls}'; known: {', '.join(_CLASSES)}")
        feature_cls = _CLASSES[name]
    if feature_cls not in (FeatureListNet, FeatureDictNet, FeatureHookNet):
        feature_cfg.pop("flatten_sequential", None)
    if feature_cls is not FeatureHookNet:
        feature_cfg.pop("no_rewrite", None)
    made: nn.Module = feature_cls(model, **feature_cfg)
    return made
