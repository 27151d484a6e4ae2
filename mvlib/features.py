"""Models as feature extractors: `create_model(..., features_only=True)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .layers.helpers import unwrap
from .models.base import ImageModel, Indices, StateDict, take_indices
from .models.scripting import scriptable

__all__ = ["FeatureExtractor", "FeatureInfo"]


class FeatureInfo:
    """What a feature extractor returns: channels, strides and module names of its outputs.

    Each accessor takes the indices to look up, and looks up the extractor's outputs where none are given.
    """

    def __init__(self, info: Sequence[dict[str, Any]], out_indices: Sequence[int]) -> None:
        self.info = list(info)
        self.out_indices = tuple(out_indices)

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


class FeatureExtractor(nn.Module):
    """A model without its head that returns features at several depths.

    Image (B, in_chans, H, W) -> list of feature maps, in order of depth; or {module name: feature map}.
    State-dict keys are the model's behind "model."; keys without that prefix, and timm's flattened ones ("layers_0."),
    load too.

    Args:
        model: The model; layers that no output needs are removed from it.
        out_indices: Which features: None for the family's default, an int for the last n, or indices in any order;
            outputs, `feature_info` and the attribute `out_indices` have them in order of depth, each once.
        output_fmt: "NCHW", "NHWC" or "NLC"; the family's own unless given.
        norm: Apply the final norm to the outputs that it fits.
        return_dict: Return a dict instead of a list.

    Raises:
        ValueError: An index is out of range.
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
    ) -> None:
        super().__init__()
        model = unwrap(model)
        info = model.feature_info
        if out_indices is None and isinstance(model.default_out_indices, int):
            out_indices = min(model.default_out_indices, len(info))
        taken = take_indices(len(info), model.default_out_indices if out_indices is None else out_indices)
        model.prune_intermediate_layers(taken, prune_norm=not norm)
        self.model = model
        self.out_indices = tuple(taken)
        self.output_fmt = output_fmt or model.feature_layout
        self.norm = norm
        self.return_dict = return_dict
        self.feature_info = FeatureInfo(info, taken)
        self.in_chans = model.in_chans

    def forward(self, x: Tensor) -> list[Tensor] | dict[str, Tensor]:
        features = self.model.forward_intermediates(
            x, self.out_indices, norm=self.norm, output_fmt=self.output_fmt, intermediates_only=True)
        if not self.return_dict:
            return features
        names = [self.feature_info.info[i]["module"] for i in self.out_indices]
        return dict(zip(names, features))

    def __prepare_scriptable__(self) -> nn.Module:
        """What `torch.jit.script` asks for: a module that it can compile in this one's place."""
        return scriptable(self)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass instead of storing them."""
        self.model.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that take no weight decay besides biases and norms."""
        return {f"model.{name}" for name in self.model.no_weight_decay()}

    def _load_from_state_dict(self, state_dict: StateDict, prefix: str, *args: Any) -> None:
        # timm's list extractors save the bare model's keys, the first level of sequentials flattened.
        containers = {name for name, child in self.model.named_children() if isinstance(child, nn.Sequential)}
        for key in [k for k in state_dict if k.startswith(prefix) and not k.startswith(f"{prefix}model.")]:
            bare = key[len(prefix):]
            first, _, rest = bare.partition(".")
            container, _, item = first.rpartition("_")
            if container in containers and item.isdigit():
                bare = f"{container}.{item}.{rest}"
            state_dict[f"{prefix}model.{bare}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
