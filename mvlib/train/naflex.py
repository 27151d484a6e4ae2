"""What training and validation on batches of patches (`--naflex-loader`) take from their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from ..data.naflex_loader import NaFlexLoader, create_naflex_loader
from ..data.naflex_mixup import NaFlexMixup
from ..errors import ConfigError
from ..layers.helpers import unwrap
from ..threads import fitting_workers
from .distributed import World

__all__ = ["eval_loader", "loss_scale", "train_loader"]


def _layout(model: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Size and order of the patches that a model takes.

    Raises:
        ConfigError: It takes none, or none of that order.
    """
    model = unwrap(model)
    if not hasattr(model, "get_patch_size"):
        name = getattr(model, "architecture", None) or type(model).__name__
        raise ConfigError(f"--naflex-loader needs a model that takes patches, such as naflexvit_base_patch16_gap; "
                          f"{name} takes images alone")
    embeds = getattr(model, "embeds", None)
    first = args.naflex_patchify_channels_first
    last = getattr(embeds, "channels_last", not first)
    if first and last:
        raise ConfigError("--naflex-patchify-channels-first: the model takes patches with the channels last")
    if not getattr(embeds, "is_linear", True):
        raise ConfigError("--naflex-loader needs a model that takes patches: embed_proj_type='linear'")
    return dict(patch_size=model.get_patch_size(), patchify_channels_last=last)


def train_loader(
    args: argparse.Namespace, dataset: Any, config: Mapping[str, Any], model: Any, world: World,
    common: Mapping[str, Any],
) -> NaFlexLoader:
    """Batches of `--batch-size` images of the greatest length, or of more images of a lesser one.

    Args:
        common: Arguments that all training loaders share.
    """
    layout = _layout(model, args)
    if args.naflex_patch_sizes:
        if not getattr(unwrap(model), "supports_patch_interpolation", False):
            raise ConfigError("--naflex-patch-sizes needs a model whose patches may have other sizes: "
                              "--model-kwargs enable_patch_interpolator=True")
        layout.update(patch_size=None, patch_size_choices=args.naflex_patch_sizes,
                      patch_size_choice_probs=args.naflex_patch_size_probs)
    mixup = None
    if args.mixup > 0 or args.cutmix > 0:
        mixup = NaFlexMixup(
            num_classes=model.num_classes, mixup_alpha=args.mixup, cutmix_alpha=args.cutmix, prob=args.mixup_prob,
            switch_prob=args.mixup_switch_prob, label_smoothing=args.smoothing, mixup_off_epoch=args.mixup_off_epoch)
    return create_naflex_loader(
        dataset, train_seq_lens=args.naflex_train_seq_lens, is_training=True, mixup_fn=mixup,
        channels=config["input_size"][0], **layout, **common)


def eval_loader(
    args: argparse.Namespace, dataset: Any, config: Mapping[str, Any], model: nn.Module, **options: Any
) -> NaFlexLoader:
    """Every image once, in sequences of `--naflex-max-seq-len` patches."""
    return create_naflex_loader(
        dataset, max_seq_len=args.naflex_max_seq_len, interpolation=config["interpolation"], mean=config["mean"],
        std=config["std"], channels=config["input_size"][0], num_workers=fitting_workers(args.workers),
        pin_memory=args.pin_mem or None, use_prefetcher=not args.no_prefetcher, max_bad=args.max_bad_samples,
        **_layout(model, args), **options)


def loss_scale(args: argparse.Namespace) -> Callable[[int], float] | None:
    """The factor on the loss of a batch of so many images: in relation to `--batch-size`, as `--naflex-loss-scale`
    says; None for 1."""
    if not args.naflex_loader or args.naflex_loss_scale == "none":
        return None
    return partial(_relative, base=args.batch_size, exponent=0.5 if args.naflex_loss_scale == "sqrt" else 1.0)


def _relative(images: int, base: int, exponent: float) -> float:
    return float((images / base) ** exponent)
