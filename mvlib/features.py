"""Models as feature extractors: `create_model(..., features_only=True)`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .errors import ConfigError
from .layers.helpers import unwrap
from .models.base import Flow, ImageModel, Indices, StateDict, Step, take_indices
from .models.scripting import scriptable

__all__ = ["FeatureExtractor", "FeatureInfo"]


class FeatureInfo:
    """What a feature extractor returns: channels, strides and module names of its outputs.

    Each accessor takes the indices to look up, and looks up the extractor's outputs where none are given.
    """

    def __init__(self, feature_info: Sequence[dict[str, Any]], out_indices: int | Sequence[int]) -> None:
        self.info = list(feature_info)
        self.out_indices = tuple(range(-out_indices, 0) if isinstance(out_indices, int) else out_indices)

    def from_other(self, out_indices: int | Sequence[int]) -> FeatureInfo:
        """The same model's, of other outputs."""
        return FeatureInfo(copy.deepcopy(self.info), out_indices)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        if isinstance(idx, int):
            return self.info[idx][key]
        return [self.info[i][key] for i in (self.out_indices if idx is None else idx)]

    def get_dicts(self, keys: Sequence[str] | None = None, idx: int | Sequence[int] | None = None) -> Any:
        if isinstance(idx, int):
            return self._pick(idx, keys)
        return [self._pick(i, keys) for i in (self.out_indices if idx is None else idx)]

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Channels of each output."""
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Stride of each output with respect to the image."""
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Name of the module that each output comes from."""
        return self.get("module", idx)

    def _pick(self, index: int, keys: Sequence[str] | None) -> dict[str, Any]:
        info = self.info[index]
        return dict(info) if keys is None else {key: info[key] for key in keys}

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.info[index]

    def __len__(self) -> int:
        return len(self.info)


class FeatureExtractor(nn.ModuleDict):
    """A model without its head that returns features at several depths.

    Image (B, in_chans, H, W) -> list of feature maps, in order of depth; or {name: feature map}.

    Its children, and with them the keys of its state dict, are timm's, in a form that each family chooses; the first
    three are for models whose tensors and steps are all their children's:

    "list": The model's children up to the last output: "layer1.0.conv1.weight".
    "flat": The same, and the items of sequential children are children themselves: "stages_0.blocks.1.norm.weight".
    "body": All children before the head, whatever the outputs: "blocks.3.0.conv_pw.weight".
    "getter": One child, `model`, without the layers that no output needs: "model.blocks.3.norm1.weight".
    "hook": One child, `body`, the whole model but for its classifier.
    "fx": One child, `graph_module`: what torch.fx traces of the model.

    State dicts of the model and of its other forms load too; what the extractor has no place for is left out.
    `model` is the model in any form, run by it and without the layers that it lacks.

    Args:
        model: The model; it is taken apart.
        out_indices: Which features: None for the family's default, an int for the last n, or indices in any order;
            outputs, `feature_info` and the attribute `out_indices` have them in order of depth, each once;
            `feature_info.out_indices` counts from the end where this does, except in the form "getter".
        output_fmt: "NCHW", "NHWC" or "NLC"; unless given the family's own, and "NCHW" where `feature_cls` is "getter".
        norm: Apply the final norm to the outputs that it fits, in the form "getter".
        return_dict: Return a dict instead of a list.
        feature_cls: The form, where it is to be another than the family's `feature_form`: "getter", "hook" or "fx".
            "list" and "dict" are the family's own and say what is returned.
        out_map: Names in the dict that is returned, instead of the indices as text.

    Raises:
        ValueError: An index is out of range; as ConfigError, `feature_cls` is unknown, or `out_map` has not a name for
            each output.
    """

    pretrained_cfg: dict[str, Any]
    default_cfg: dict[str, Any]

    def __init__(
        self,
        model: ImageModel,
        out_indices: Indices = None,
        output_fmt: str | None = None,
        norm: bool = False,
        return_dict: bool = False,
        feature_cls: str | None = None,
        out_map: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if feature_cls not in (None, "list", "dict", *_INSIDE):
            raise ConfigError(f"unknown feature_cls {feature_cls!r}; known: list, dict, {', '.join(_INSIDE)}")
        model = unwrap(model)
        info, keys = model.feature_info, model.state_dict().keys()
        default = model.default_out_indices
        if isinstance(default, int):
            default = min(default, len(info))
        taken = take_indices(len(info), default if out_indices is None else out_indices)
        given = _as_given(taken, out_indices, len(info))
        names = tuple(map(str, given if out_map is None else out_map))
        if len(names) != len(taken):
            raise ConfigError(f"out_map names {len(names)} outputs, there are {len(taken)}")
        self.out_indices = tuple(taken)
        self.output_fmt = output_fmt or ("NCHW" if feature_cls == "getter" else model.feature_layout)
        self.return_dict = return_dict or feature_cls == "dict"
        self.in_chans = model.in_chans
        self.norm, self._names = norm, names

        form = "getter" if norm else feature_cls if feature_cls in _INSIDE else model.feature_form
        if form == "hook" and model.feature_form == "flat":
            form = "flat"
        self.form = form
        self.feature_info = FeatureInfo(info, taken if form == "getter" else given)
        self._inside = _INSIDE.get(form, "")
        self._is_flat = form == "flat"
        self._flattened = {f"{name}_{item}": f"{name}.{item}" for name, child in model.named_children()
                           if isinstance(child, nn.Sequential) for item in child._modules}
        self.__dict__["model"] = model  # no child as yet
        if form == "fx":
            self.graph_module = _trace(model, dict(zip(self.feature_info.module_name(), names)))
        elif form == "hook":
            model.reset_classifier(0)
            self.body = model
        else:
            before = self._children(model)
            model.prune_intermediate_layers(None if form == "body" else taken, prune_norm=not norm)
            if form == "getter":
                self.model = model
                for tap in self.feature_info.info:
                    if "num_chs_norm" in tap:  # a norm that has channels of its own, and may have gone just now
                        tap.update(model.tap_facts(tap["module"]))
                        tap["num_chs"] = tap["num_chs_norm"] if norm else tap["num_chs"]
            else:
                self._adopt_children(before, self._own_name(info[taken[-1]]["module"]).partition(".")[0])
        self.left_out = keys - {self._model_name(key) for key in self.state_dict()}

    def _children(self, model: ImageModel) -> dict[str, Any]:
        """The model's children under our names for them."""
        children: dict[str, Any] = {}
        for name, child in model.named_children():
            if self._is_flat and isinstance(child, nn.Sequential):
                children.update((f"{name}_{item}", layer) for item, layer in child.named_children())
            else:
                children[name] = child
        return children

    def _adopt_children(self, before: dict[str, Any], last: str) -> None:
        """Make the children of the model, up to the last that it runs, this module's own, and run them from there.

        The one that holds the last output is as it was before it was pruned: whole.
        """
        model = self.model
        children = self._children(model)
        if last in children:
            children[last] = before[last]
        if self._is_flat:
            model.flow = Flow([*map(self._moved, model.flow.stem)], [*map(self._moved, model.flow.stages)])
        run = {parts[0] for step in model.flow.body for parts in step.parts}
        count = 1 + max(i for i, name in enumerate(children) if name in run)
        # One dict: a child that somebody replaces here (a norm by a synchronised one, say) is replaced there too.
        kept: Any = dict(list(children.items())[:count])
        self._modules = model._modules = kept

    def _moved(self, step: Step) -> Step:
        """The step, looked up among our children."""
        items = [path for name in step.paths for path in self._flattened.values() if path.startswith(f"{name}.")]
        moved = copy.copy(step)
        object.__setattr__(moved, "parts", step.split(map(self._own_name, items or step.paths)))
        return moved

    def forward(self, x: Tensor) -> list[Tensor] | dict[str, Tensor]:
        features: Any
        if self._inside == "graph_module":
            features = list(self.graph_module(x).values())
        else:
            features = self.model.forward_intermediates(
                x, indices=self.out_indices, norm=self.norm, output_fmt=self.output_fmt, intermediates_only=True)
        return dict(zip(self._names, features)) if self.return_dict else features

    @property
    def return_layers(self) -> dict[str, str]:
        """{name of the child, or of the module within it, that gives an output: the output's name in a dict}."""
        return dict(zip((self._own_name(self.feature_info.info[i]["module"]) for i in self.out_indices), self._names))

    @return_layers.setter
    def return_layers(self, layers: Mapping[str, str]) -> None:
        """Other outputs from now on, as others' code chooses them: those named, by the modules of `feature_info` or
        by children, up to the deepest that this was built for."""
        info = self.feature_info.info
        deepest = self.feature_info.out_indices[-1] % len(info)
        names = {i: layers.get(item["module"], layers.get(self._own_name(item["module"])))
                 for i, item in enumerate(info[:deepest + 1])}
        taken = {i: str(name) for i, name in names.items() if name is not None}
        self.out_indices, self._names = tuple(taken), tuple(taken.values())

    def __prepare_scriptable__(self) -> nn.Module:
        """What `torch.jit.script` asks for: a module that it can compile in this one's place."""
        return scriptable(self)

    def _replicate_for_data_parallel(self) -> nn.Module:
        replica: Any = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        if "model" not in self._modules:
            replica.__dict__["model"] = copy.copy(self.model)
            replica.model._modules = replica._modules
        return replica

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass instead of storing them."""
        self.model.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that take no weight decay besides biases and norms."""
        return set(map(self._own_name, self.whole().no_weight_decay()))

    # names: those of the model ("stages.0.norm.weight") and our own ("stages_0.norm.weight")

    def _own_name(self, name: str) -> str:
        if self._inside:
            return f"{self._inside}.{name}"
        flat = name.replace(".", "_", 1)
        return flat if self._is_flat and flat.partition(".")[0] in self._flattened else name

    def _model_name(self, name: str) -> str:
        first, _, rest = name.partition(".")
        if first in ("model", self._inside):
            first, _, rest = rest.partition(".")
        first = self._flattened.get(first, first)
        return f"{first}.{rest}" if rest else first

    def whole(self) -> ImageModel:
        """The model with its own names: what is a child here because it was an item there is an item."""
        if not self._is_flat:
            return self.model
        model = copy.copy(self.model)
        model._modules = {}
        for name, child in self.named_children():
            container, _, item = self._model_name(name).rpartition(".")
            if container and container not in model._modules:
                model._modules[container] = nn.Sequential()
            parent = model._at(container) if container else model
            parent._modules[item] = child
        return model

    def model_names(self, state_dict: StateDict) -> StateDict:
        """A state dict of any form with the names of `whole()`."""
        return {self._model_name(key): value for key, value in state_dict.items()}

    def _load_from_state_dict(self, state_dict: StateDict, prefix: str, *args: Any) -> None:
        given = {key[len(prefix):]: state_dict.pop(key) for key in [*state_dict] if key.startswith(prefix)}
        fitted = self.whole().adapt_state_dict(self.model_names(given))
        state_dict.update((prefix + self._own_name(key), value) for key, value in fitted.items()
                          if key not in self.left_out)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _as_given(taken: Sequence[int], indices: Indices, count: int) -> list[int]:
    """Absolute indices as the caller gave them: counted from the end, perhaps."""
    given = range(-indices, 0) if isinstance(indices, int) else indices or ()
    by_depth = {index % count: index for index in given}
    return [by_depth.get(index, index) for index in taken]


_INSIDE = {"getter": "model", "hook": "body", "fx": "graph_module"}  # forms with one child


def _trace(model: ImageModel, modules: dict[str, str]) -> nn.Module:
    """image -> {name: output} of the modules {path: name}; needs torchvision, whose tracer knows them by path."""
    from torchvision.models.feature_extraction import create_feature_extractor

    return create_feature_extractor(model, modules)
