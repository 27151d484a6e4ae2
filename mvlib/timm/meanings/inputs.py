"""What timm keeps of a model's inputs and arguments, from what our models say of themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...data.geometry import as_pair
from ...models.base import ImageModel
from ...publish import current_arguments

__all__ = ["get_model_args", "get_model_input_config", "get_model_traits", "get_pretrained_grid_size",
           "update_model_args", "update_model_input_size"]


def get_model_traits(model: nn.Module) -> dict[str, Any]:
    """What is true of a model now: `img_size`, `fixed_input_size`, `first_conv`, `in_chans`, `num_classes`."""
    cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    traits: dict[str, Any] = {
        "img_size": getattr(model, "img_size", None),
        "fixed_input_size": _is_fixed(model, cfg),
        "first_conv": cfg.get("first_conv"),
        **getattr(model, "_traits", {}),  # what a user's model says
    }
    traits.update((key, getattr(model, key)) for key in ("in_chans", "num_classes") if hasattr(model, key))
    return traits


def _is_fixed(model: nn.Module, cfg: Mapping[str, Any]) -> bool:
    embed = getattr(model, "patch_embed", None)
    fixed = getattr(embed, "strict_img_size", cfg.get("fixed_input_size", False))
    return bool(fixed) and not getattr(model, "dynamic_img_size", False)


def get_model_input_config(model: nn.Module) -> dict[str, Any]:
    """`input_size` (channels, height, width), `fixed_input_size` and `first_conv` of a model as it is now."""
    traits = get_model_traits(model)
    cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    chans, *size = cfg.get("input_size") or (3, 224, 224)
    return {"input_size": (traits.get("in_chans", chans), *(traits["img_size"] or size)),
            "fixed_input_size": traits["fixed_input_size"], "first_conv": traits["first_conv"]}


def get_model_args(model: Any, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arguments that build a model again as it is now, without rates of dropout unless `overrides` has them.

    Raises:
        ValueError: An override disagrees with the model.
    """
    if isinstance(model, ImageModel):
        current = current_arguments(model)
    else:
        current = {key: value for key, value in getattr(model, "model_args", {}).items()
                   if not re.search(r"drop.*_rate$", key)}
        current.update((key, getattr(model, key)) for key in ("in_chans", "num_classes") if hasattr(model, key))
    for key, value in (overrides or {}).items():
        if key in ("num_classes", "in_chans", "img_size", "global_pool") and current.get(key, value) != value:
            raise ValueError(f"{key}={value} disagrees with the model, which has {current[key]}")
    return {**current, **(overrides or {})}


def update_model_args(model: Any, **model_args: Any) -> None:
    """Note arguments by which a model that was changed is built again."""
    model.model_args = {**getattr(model, "model_args", {}), **model_args}


def update_model_input_size(model: Any, img_size: int | Sequence[int] | None, **model_args: Any) -> None:
    """Note the size that a model was changed to, and arguments by which it is built again; None is no size."""
    size = None if img_size is None else as_pair(img_size, "img_size")
    traits = {key: value for key, value in getattr(model, "_traits", {}).items() if key != "img_size"}
    if getattr(model, "img_size", None) != size:  # it does not say so itself
        traits["img_size"] = size
    model._traits = traits
    changed = {key: value for key, value in model_args.items() if value is not None}
    args = {**getattr(model, "model_args", {}), **changed, "img_size": size}
    model.model_args = {key: value for key, value in args.items() if key != "img_size" or size is not None}


def get_pretrained_grid_size(
    model: nn.Module, patch_weight: Tensor | None, num_tokens: int
) -> tuple[int, int] | None:
    """The grid of patches that a checkpoint's position embedding has, by the image size of its config.

    Returns:
        (rows, columns); None where they do not make `num_tokens`.
    """
    if patch_weight is None or patch_weight.ndim != 4:
        return None
    cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    size = getattr(model, "pretrained_model_args", {}).get("img_size") or (cfg.get("input_size") or (3, 224, 224))[-2:]
    sides = (size, size) if isinstance(size, int) else tuple(size)
    rows, columns = (side // patch for side, patch in zip(sides, patch_weight.shape[-2:]))
    return (rows, columns) if rows * columns == num_tokens else None
