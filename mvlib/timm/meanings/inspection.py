"""timm.utils.model and .attention_extract: models unwrapped, frozen and looked into."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from .ema import ModelEma

__all__ = [
    "ActivationStatsHook", "AttentionExtract", "avg_ch_var", "avg_ch_var_residual", "avg_sq_ch_mean",
    "extract_spp_stats", "freeze", "get_state_dict", "unfreeze", "unwrap_model",
]


def unwrap_model(model: Any) -> Any:
    """The model within DDP, torch.compile, a moving average and whatever else keeps one as `module`."""
    while True:
        if isinstance(model, ModelEma):
            model = model.ema
        elif hasattr(model, "module"):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def get_state_dict(model: Any, unwrap_fn: Callable[[Any], nn.Module] = unwrap_model) -> dict[str, Tensor]:
    """The state dict of the model within."""
    return unwrap_fn(model).state_dict()


# activations


def avg_sq_ch_mean(model: nn.Module, input: Any, output: Tensor) -> float:
    """Mean over channels of the squared mean of an output (N, C, H, W)."""
    return output.mean((0, 2, 3)).square().mean().item()


def avg_ch_var(model: nn.Module, input: Any, output: Tensor) -> float:
    """Mean over channels of the variance of an output (N, C, H, W)."""
    return output.var((0, 2, 3)).mean().item()


avg_ch_var_residual = avg_ch_var


class ActivationStatsHook:
    """Keeps what functions say of the outputs of modules, while a model runs.

    Args:
        model: Whose modules.
        hook_fn_locs: For each function a pattern such as "layer?.0.bn2", which the names of its modules match.
        hook_fns: Functions of (module, input, output).

    Attributes:
        stats: {name of a function: its results, in the order of calls}.

    Raises:
        ConfigError: There are not as many patterns as functions.
    """

    def __init__(self, model: nn.Module, hook_fn_locs: Sequence[str], hook_fns: Sequence[Callable[..., Any]]) -> None:
        if len(hook_fn_locs) != len(hook_fns):
            raise ConfigError(f"{len(hook_fn_locs)} patterns of modules for {len(hook_fns)} functions; each has one")
        self.model = model
        self.hook_fn_locs = hook_fn_locs
        self.hook_fns = hook_fns
        self.stats: dict[str, list[Any]] = {function.__name__: [] for function in hook_fns}
        for pattern, function in zip(hook_fn_locs, hook_fns):
            self.register_hook(pattern, function)

    def register_hook(self, hook_fn_loc: str, hook_fn: Callable[..., Any]) -> None:
        """Let one more pattern's modules call one more function."""
        results = self.stats.setdefault(hook_fn.__name__, [])

        def keep(module: nn.Module, input: Any, output: Any) -> None:
            results.append(hook_fn(module, input, output))

        for name, module in self.model.named_modules():
            if fnmatch.fnmatch(name, hook_fn_loc):
                module.register_forward_hook(keep)


def extract_spp_stats(
    model: nn.Module, hook_fn_locs: Sequence[str], hook_fns: Sequence[Callable[..., Any]],
    input_shape: Sequence[int] = (8, 3, 224, 224),
) -> dict[str, list[Any]]:
    """`ActivationStatsHook.stats` of one forward pass on normal noise: a signal propagation plot (arXiv 2101.08692)."""
    hook = ActivationStatsHook(model, hook_fn_locs, hook_fns)
    model(torch.normal(0.0, 1.0, tuple(input_shape)))
    return hook.stats


class AttentionExtract(nn.Module):
    """A model whose output is its attention maps, or other values within: {name: tensor}.

    Fused attention has no maps: `timm.layers.set_fused_attn(False)` before the model is built.

    Args:
        model: Put into `mode`.
        names: Names or patterns, of nodes of the graph ("fx") or of modules ("hook"); None for usual names of maps.
        mode: "eval" or "train".
        method: "fx" traces the model, "hook" listens to modules.
        hook_type: "forward" for a module's output, "forward_pre" for its input.
        use_regex: Names are regular expressions, not patterns.

    Raises:
        RuntimeError: Nothing has such a name.
    """

    default_node_names = ["*attn.softmax"]
    default_module_names = ["*attn_drop"]

    def __init__(
        self, model: nn.Module, names: list[str] | None = None, mode: str = "eval", method: str = "fx",
        hook_type: str = "forward", use_regex: bool = False,
    ) -> None:
        super().__init__()
        for value, known in ((mode, ("train", "eval")), (method, ("fx", "hook")),
                             (hook_type, ("forward", "forward_pre"))):
            if value not in known:
                raise ConfigError(f"AttentionExtract: '{value}' is neither '{known[0]}' nor '{known[1]}'")
        model = model.train(mode == "train")
        is_fx = method == "fx"
        if is_fx:
            from ...layers.fx import get_graph_node_names

            known_names = get_graph_node_names(model)[mode == "eval"]
        else:
            known_names = [name for name, _ in model.named_modules()]
        wanted = names or (self.default_node_names if is_fx else self.default_module_names)
        matches = re.match if use_regex else lambda pattern, name: fnmatch.fnmatch(name, pattern)
        found = [name for name in known_names if any(matches(pattern, name) for pattern in wanted)]
        if not found:
            raise RuntimeError(f"no {'node' if is_fx else 'module'} has a name like {', '.join(wanted)}")
        self.names = found
        self.mode = mode
        self.method = method
        self._values: dict[str, Tensor] = {}
        if is_fx:
            from ...layers.fx import create_feature_extractor

            self.model: nn.Module = create_feature_extractor(model, {name: name for name in found})
        else:
            self.model = model
            for name in found:
                module = model.get_submodule(name)
                if hook_type == "forward":
                    module.register_forward_hook(lambda _, inputs, output, name=name: self._keep(name, output))
                else:
                    module.register_forward_pre_hook(lambda _, inputs, name=name: self._keep(name, inputs[0]))

    def _keep(self, name: str, value: Tensor) -> None:
        self._values[name] = value

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        output = self.model(x)
        if self.method == "fx":
            return output
        values, self._values = self._values, {}
        return values


# freezing


def freeze(
    root_module: nn.Module, submodules: str | Sequence[str] = (), include_bn_running_stats: bool = True
) -> None:
    """Freeze the parameters of modules in place and, as frozen layers, the statistics of their batch norms.

    Args:
        root_module: A model.
        submodules: Names of modules in it; none for all of it.
        include_bn_running_stats: Whether batch norms are replaced.
    """
    from ...layers.batch_norm import freeze_batch_norm_2d

    _set_frozen(root_module, submodules, freeze_batch_norm_2d if include_bn_running_stats else None, True)


def unfreeze(
    root_module: nn.Module, submodules: str | Sequence[str] = (), include_bn_running_stats: bool = True
) -> None:
    """Undo `freeze`, in place; the arguments are its."""
    from ...layers.batch_norm import unfreeze_batch_norm_2d

    _set_frozen(root_module, submodules, unfreeze_batch_norm_2d if include_bn_running_stats else None, False)


def _set_frozen(
    root: nn.Module, names: str | Sequence[str], convert: Callable[[nn.Module], nn.Module] | None, frozen: bool
) -> None:
    if convert is not None and isinstance(root, nn.modules.batchnorm._BatchNorm):
        raise AssertionError("a batch norm by itself cannot be replaced in place: freeze_batch_norm_2d and "
                             "unfreeze_batch_norm_2d give one to put into its place")
    for name in [names] if isinstance(names, str) else list(names) or [""]:
        module = root.get_submodule(name)
        module.requires_grad_(not frozen)
        if convert is not None and (converted := convert(module)) is not module:
            parent, _, last = name.rpartition(".")
            root.get_submodule(parent).register_module(last, converted)
