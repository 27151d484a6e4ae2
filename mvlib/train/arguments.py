"""The arguments of training: timm's flags and torchvision's, one table. Imports no torch.

Both scripts' command lines mean here what they mean there, defaults included. Which of the two a line speaks is seen
from the flags themselves: one that torchvision's script alone has (`--lr-scheduler`, `--random-erase`, ...) makes the
whole line torchvision's. `--dialect` says it outright.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..cli.argument_types import Number, finite, natural, nonnegative, positive, positive_float, seed, share
from ..cli.options import group, words
from ..errors import ConfigError
from ..names import closest
from ..precisions import canonical_precision

__all__ = ["DIALECTS", "OPTIONS", "Option", "add_options", "find_option", "finish_arguments"]


@dataclass(frozen=True)
class Option:
    """One argument of training.

    Attributes:
        dest: Its name in recipes, in args.yaml and as an attribute: timm's.
        flags: What a command line may call it; those in `foreign` are torchvision's own.
        default: Value where a timm command line does not give it.
        kwargs: For argparse.
    """

    dest: str
    flags: tuple[str, ...]
    default: Any
    help: str
    group: str
    foreign: tuple[str, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


OPTIONS: dict[str, Option] = {}
_group = ""


def _option(dest: str, flags: str, default: Any, help: str, foreign: str = "", **kwargs: Any) -> None:
    flags = tuple(flags.split()) or (f"--{dest.replace('_', '-')}",)
    if default is False:
        kwargs.setdefault("action", "store_true")
    elif "action" not in kwargs:
        kwargs.setdefault("type", {int: natural, float: nonnegative}.get(type(default), str))
    OPTIONS[dest] = Option(dest, flags, default, help, _group, tuple(foreign.split()), kwargs)


class _KeyValue(argparse.Action):
    """KEY=VALUE pairs, values as Python literals where they are some."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        pairs = dict(getattr(namespace, self.dest, None) or {})
        for word in values:
            key, equals, text = word.partition("=")
            if not equals:
                parser.error(f"{option_string} takes KEY=VALUE pairs, not {word!r}")
            try:
                pairs[key] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                pairs[key] = {"true": True, "false": False, "none": None}.get(text.lower(), text)
        setattr(namespace, self.dest, pairs)


_group = "data"
_option("data_dir", "--data-dir", None, words("--data-dir", "the same as DATA, or what --dataset needs"), "--data-path",
        metavar="FOLDER")
_option("dataset", "--dataset -d", "", "kind of data set, 'hfds/NAME' and the like (default: image folder or tars)",
        metavar="NAME")
_option("train_split", "", "train", "name of the training split")
_option("val_split", "", "validation", "name of the validation split")
_option("train_num_samples", "", None, "samples of a streamed training split", type=positive, metavar="N")
_option("val_num_samples", "", None, "samples of a streamed validation split", type=positive, metavar="N")
_option("dataset_download", "", False, "download the data set where its kind can do that")
_option("dataset_trust_remote_code", "", False, "let a Hugging Face data set run its own code")
_option("class_map", "", "", words("--class-map"), metavar="FILE")
_option("input_img_mode", "", None, "PIL mode that images are converted to ('L' for one channel)", metavar="MODE")
_option("input_key", "", None, "column of the image in data sets with columns", metavar="KEY")
_option("target_key", "", None, "column of the label in data sets with columns", metavar="KEY")
_option("max_bad_samples", "", 50, "unreadable images in a row that stop the run", metavar="N")

_group = "model"
_option("model", "--model -m", "resnet50", words("--model"), metavar="MODEL")
_option("pretrained", "", False, words("--pretrained", "training begins with them"))
_option("weights", "", None, "torchvision's name of the published weights to begin with", "--weights", metavar="NAME")
_option("pretrained_path", "", None, "begin with this file, a head of other classes excepted", metavar="FILE")
_option("initial_checkpoint", "", "", "begin with the weights of this file", metavar="FILE")
_option("num_classes", "", None, "classes (default: the data set's)", type=positive, metavar="N")
_option("gp", "--gp", None, "global pooling", type=str, metavar="POOL")
_option("img_size", "--img-size", None, words("--img-size"), "--train-crop-size", type=positive,
        metavar="N")
_option("val_img_size", "--val-img-size", None, "side of the validation images (default: the training images')",
        "--val-crop-size", type=positive, metavar="N")
_option("val_resize_size", "--val-resize", None, "shorter side to which validation images are resized before the crop",
        "--val-resize-size", type=positive, metavar="N")
_option("in_chans", "", None, "channels of the images", type=positive, metavar="N")
_option("input_size", "", None, "channels, height and width of the images", type=positive, nargs=3, metavar="N")
_option("crop_pct", "", None, "share of the resized validation image that the crop keeps",
        type=positive_float, metavar="N")
_option("mean", "", None, "mean of the channels, of intensities in [0, 1]", type=finite, nargs="+")
_option("std", "", None, "standard deviation of the channels", type=positive_float, nargs="+")
_option("interpolation", "", "", "filter that resizes images", metavar="NAME")
_option("model_kwargs", "", {}, "further arguments of the model", type=str, nargs="*", action=_KeyValue,
        metavar="KEY=VALUE")
_option("drop", "--drop", 0.0, "dropout rate", type=share, metavar="RATE")
_option("drop_connect", "", None, "old name of --drop-path", type=share, metavar="RATE")
_option("drop_path", "", None, "stochastic depth rate", type=share, metavar="RATE")
_option("drop_block", "", None, "DropBlock rate", type=share, metavar="RATE")
_option("head_init_scale", "", None, "factor on the classifier's first weights", type=finite, metavar="N")
_option("head_init_bias", "", None, "the classifier's first bias", type=finite, metavar="N")
_option("freeze", "", [], "modules that stay as they are", type=str, nargs="+", metavar="MODULE")
_option("freeze_stages", "", 0, "freeze the stem and this many stages", metavar="N")
_option("grad_checkpointing", "", False, "trade time for memory: recompute the blocks in the backward pass")
_option("channels_last", "--channels-last", None, words("--channels-last", default="for convolutional models"),
        action=argparse.BooleanOptionalAction)
_option("torchcompile", "--torchcompile --compile", None, words("--compile", "by this backend of torch.compile"),
        type=str, nargs="?", const="inductor", metavar="BACKEND")
_option("torchcompile_mode", "", None, "torch.compile's mode", type=str, metavar="MODE")
_option("fast_norm", "", False, "accepted: torch's fused norms are used in any case")

_group = "batches"
_option("batch_size", "--batch-size -b", 128, words("--batch-size", "in each process"), type=positive, metavar="N")
_option("validation_batch_size", "--validation-batch-size -vb", None, "the same for validation",
        type=positive, metavar="N")
_option("grad_accum_steps", "", 1, "batches that one update gathers", type=positive, metavar="N")
_option("workers", "--workers -j", 4, words("--workers", "processes"), metavar="N")
_option("pin_mem", "", False, "pinned memory for the way to the GPU")
_option("no_prefetcher", "", False, "normalise in the workers instead of on the device")
_option("use_multi_epochs_loader", "", False, "keep the workers between epochs")
_option("worker_seeding", "", "all", "accepted: a sample's randomness depends on seed, epoch and index alone")

_group = "patches"
_option("naflex_loader", "", False, "batches of patches, of images of any aspect ratio, for models that take them")
_option("naflex_train_seq_lens", "", [128, 256, 576, 784, 1024],
        "lengths in patches, one of which is drawn for each batch; shorter ones have more images", type=positive,
        nargs="+", metavar="N")
_option("naflex_max_seq_len", "", 576, "length in validation", type=positive, metavar="N")
_option("naflex_patch_sizes", "", None, "sides of patches, one of which is drawn for each batch", type=positive,
        nargs="+", metavar="N")
_option("naflex_patch_size_probs", "", None, "how often each is drawn", type=nonnegative, nargs="+", metavar="P")
_option("naflex_loss_scale", "", "linear", "how the loss grows with the images of a batch over --batch-size",
        choices=("none", "sqrt", "linear"))
_option("naflex_patchify_channels_first", "", False, "patches with the channels first, for models that take these")

_group = "optimizer"
_option("opt", "--opt", "sgd", "optimizer", metavar="OPTIMIZER")
_option("opt_eps", "", None, "its epsilon", type=nonnegative, metavar="EPS")
_option("opt_betas", "", None, "its betas", type=finite, nargs="+", metavar="BETA")
_option("momentum", "", 0.9, "momentum", metavar="M")
_option("weight_decay", "--weight-decay", 2e-5, "weight decay", "--wd", metavar="W")
_option("norm_weight_decay", "", None, "weight decay of normalisation layers", "--norm-weight-decay", type=nonnegative,
        metavar="W")
_option("bias_weight_decay", "", None, "weight decay of biases", "--bias-weight-decay", type=nonnegative, metavar="W")
_option("embedding_weight_decay", "", None, "weight decay of class tokens and position embeddings",
        "--transformer-embedding-decay", type=nonnegative, metavar="W")
_option("filter_bias_and_bn", "--filter-bias-and-bn", True, "no weight decay on biases and norms",
        action=argparse.BooleanOptionalAction)
_option("opt_kwargs", "", {}, "further arguments of the optimizer", type=str, nargs="*", action=_KeyValue,
        metavar="KEY=VALUE")
_option("clip_grad", "--clip-grad", None, "clip gradients at this", "--clip-grad-norm",
        type=positive_float, metavar="N")
_option("clip_mode", "", "norm", "how", choices=("norm", "value", "agc"))
_option("layer_decay", "", None, "factor on the learning rate from each layer to the one before", type=positive_float)
_option("layer_decay_min_scale", "", 0.0, "least such factor", metavar="N")
_option("layer_decay_no_opt_scale", "", None, "layers below this factor are frozen", type=nonnegative, metavar="N")

_group = "schedule"
_option("sched", "--sched", "cosine", "learning rate schedule", "--lr-scheduler", metavar="SCHEDULE")
_option("sched_on_updates", "", False, "a learning rate for each update, not each epoch")
_option("lr", "--lr", None, "learning rate (default: --lr-base for the batch size)", type=nonnegative)
_option("lr_base", "", 0.1, "learning rate for --lr-base-size images an update", metavar="LR")
_option("lr_base_size", "", 256, "see --lr-base", type=positive, metavar="N")
_option("lr_base_scale", "", "", "in the batch size (default: by optimizer)", choices=("", "linear", "sqrt"))
_option("lr_noise", "", None, "epochs (as shares of all) between which the rate is noisy", type=nonnegative, nargs="+")
_option("lr_noise_pct", "", 0.67, "greatest relative noise", metavar="N")
_option("lr_noise_std", "", 1.0, "standard deviation of the noise", metavar="N")
_option("lr_cycle_mul", "", 1.0, "factor from a cycle's length to the next", type=positive_float, metavar="N")
_option("lr_cycle_decay", "", 0.5, "factor from a cycle's height to the next", metavar="N")
_option("lr_cycle_limit", "", 1, "number of cycles", type=positive, metavar="N")
_option("lr_k_decay", "", 1.0, "k of k-decay, for cosine and poly", type=positive_float, metavar="K")
_option("lr_decay_fn", "", None, "shape of the decay of wsd and rsqrt", metavar="NAME")
_option("lr_stable_timescale", "", None, "timescale of rsqrt, in epochs", type=positive_float, metavar="N")
_option("warmup_lr", "--warmup-lr", 1e-5, "learning rate at the start of warmup", metavar="LR")
_option("warmup_factor", "", None, "the same as a share of the learning rate", "--lr-warmup-decay", type=nonnegative,
        metavar="N")
_option("warmup_method", "", "linear", "'linear' or 'constant'", "--lr-warmup-method",
        choices=("linear", "constant"))
_option("warmup_epochs", "--warmup-epochs", 5, "length of warmup", "--lr-warmup-epochs", metavar="N")
_option("warmup_prefix", "", False, "the schedule begins after warmup, not with it")
_option("min_lr", "--min-lr", 0.0, "least learning rate", "--lr-min", metavar="LR")
_option("epochs", "--epochs", 300, "epochs to train", type=positive, metavar="N")
_option("epoch_repeats", "", 0.0, "times that an epoch goes through the data", metavar="N")
_option("start_epoch", "", None, "number of the first epoch", type=natural, metavar="N")
_option("decay_milestones", "", [90, 180, 270], "epochs of 'multistep'", type=natural, nargs="+", metavar="N")
_option("decay_epochs", "--decay-epochs", None, "epochs between decays (default: 90; wsd, rsqrt: a share)",
        "--lr-step-size", type=positive_float, metavar="N")
_option("decay_rate", "--decay-rate --dr", 0.1, "factor of a decay", "--lr-gamma", metavar="RATE")
_option("cooldown_epochs", "", 0, "epochs at the least rate, at the end", metavar="N")
_option("patience_epochs", "", 10, "epochs without gain that 'plateau' bears", metavar="N")

_group = "augmentation and regularisation"
_option("no_aug", "", False, "resize and crop only")
_option("train_crop_mode", "", None, "'rrc', 'rkrc' or 'rkrr'", type=str, metavar="MODE")
_option("scale", "", [0.08, 1.0], "share of the image's area that the crop takes", type=positive_float, nargs=2)
_option("ratio", "", [3 / 4, 4 / 3], "aspect ratio of the crop", type=positive_float, nargs=2)
_option("hflip", "", 0.5, "probability of a mirror image", type=share, metavar="P")
_option("vflip", "", 0.0, "probability of an upside-down image", type=share, metavar="P")
_option("color_jitter", "", 0.4, "strength of colour jitter", metavar="N")
_option("color_jitter_prob", "", None, "its probability", type=share, metavar="P")
_option("grayscale_prob", "", None, "probability of a grey image", type=share, metavar="P")
_option("gaussian_blur_prob", "", None, "probability of blur", type=share, metavar="P")
_option("aa", "--aa", None, "augmentation: rand-m9-mstd0.5-inc1, 3a, ta_wide, ...", "--auto-augment",
        type=str, metavar="POLICY")
_option("ra_magnitude", "", 9, "magnitude of torchvision's RandAugment", "--ra-magnitude",
        type=Number(int, "nonnegative", 30), metavar="N")
_option("augmix_severity", "", 3, "severity of torchvision's AugMix", "--augmix-severity",
        type=Number(int, "positive", 10), metavar="N")
_option("aug_repeats", "--aug-repeats", 0.0, "augmented copies of an image in an epoch", "--ra-reps", metavar="N")
_option("ra_sampler", "", False, "repeated augmentation, --ra-reps copies", "--ra-sampler")
_option("aug_splits", "", 0, "views of each image in a batch: 0, or 2 and more", metavar="N")
_option("jsd_loss", "--jsd-loss --jsd", False, "Jensen-Shannon divergence between the views, and cross-entropy")
_option("bce_loss", "", False, "binary cross-entropy")
_option("bce_sum", "", False, "summed over classes")
_option("bce_target_thresh", "", None, "mixed targets above this count as 1", type=finite, metavar="N")
_option("bce_pos_weight", "", None, "weight of positive targets", type=nonnegative, metavar="N")
_option("reprob", "--reprob", 0.0, "probability of random erasing", "--random-erase", type=share, metavar="P")
_option("remode", "", "pixel", "what erased boxes are filled with", choices=("const", "rand", "pixel"))
_option("recount", "", 1, "greatest number of boxes", type=positive, metavar="N")
_option("resplit", "", False, "leave the first view clean")
_option("mixup", "--mixup", 0.0, "mixup's alpha", "--mixup-alpha", metavar="ALPHA")
_option("cutmix", "--cutmix", 0.0, "CutMix's alpha", "--cutmix-alpha", metavar="ALPHA")
_option("cutmix_minmax", "", None, "least and greatest share of a CutMix box's side", type=share, nargs=2)
_option("mixup_prob", "", 1.0, "probability of either", type=share, metavar="P")
_option("mixup_switch_prob", "", 0.5, "probability of CutMix where both are on", type=share, metavar="P")
_option("mixup_mode", "", "batch", "one draw for each", choices=("batch", "pair", "elem", "half"))
_option("mixup_off_epoch", "", 0, "epoch from which neither is done; 0 for none", metavar="N")
_option("smoothing", "--smoothing", 0.1, "label smoothing", "--label-smoothing", type=share, metavar="N")
_option("train_interpolation", "", "random", "filter that resizes training images", metavar="NAME")
_option("teacher", "--teacher --kd-model-name", None, "model whose logits are distilled", type=str, metavar="MODEL")
_option("teacher_checkpoint", "", None, "file of the teacher's weights (default: published ones)", type=str,
        metavar="FILE")
_option("distill_alpha", "", 0.5, "share of the teacher in the loss", type=share, metavar="N")
_option("distill_temperature", "", 1.0, "temperature of both models' logits", type=positive_float, metavar="T")
_option("distill_type", "", "soft", "the teacher's probabilities, or its choices", choices=("soft", "hard"))

_group = "batch norm"
_option("bn_momentum", "", None, "momentum of running statistics", type=share, metavar="M")
_option("bn_eps", "", None, "epsilon", type=nonnegative, metavar="EPS")
_option("sync_bn", "", False, "statistics over all processes")
_option("dist_bn", "", "reduce", "after each epoch, statistics of all processes: 'reduce', 'broadcast' or ''",
        choices=("reduce", "broadcast", ""))
_option("split_bn", "", False, "a batch norm of its own for each further view (--aug-splits)")

_group = "averaged weights"
_option("model_ema", "", False, "keep an exponential moving average of the weights")
_option("model_ema_force_cpu", "", False, "keep it on the CPU")
_option("model_ema_decay", "", 0.9998, "its decay", type=share, metavar="N")
_option("model_ema_warmup", "", False, "begin with smaller decays")
_option("model_ema_steps", "", 1, "updates from one average to the next", "--model-ema-steps",
        type=positive, metavar="N")
_option("model_ema_adjust", "--model-ema-adjust", False,
        "scale the decay with batch size and epochs, as torchvision's script does",
        action=argparse.BooleanOptionalAction)

_group = "precision and device"
_option("device", "--device", None, words("--device", default="a GPU, if any"), type=str, metavar="DEVICE")
_option("amp", "", False, "mixed precision")
_option("amp_dtype", "", "float16", "of what type (bfloat16 on a CPU)", type=canonical_precision,
        choices=("float16", "bfloat16"))
_option("force", "", False, words("--force"))
_option("deterministic", "--deterministic", False, "refuse algorithms that are not", "--use-deterministic-algorithms")
_option("no_ddp_bb", "", False, "do not broadcast buffers between processes")
_option("skip_nonfinite", "", 0, "updates with a loss that is not finite to leave out before stopping", metavar="N")

_group = "output"
_option("output", "--output", "", words("--output", "a folder of runs", "output/train"), "--output-dir",
        metavar="PATH")
_option("experiment", "", "", "name of this run's folder (default: time, model, size)", metavar="NAME")
_option("resume", "--resume", "", "go on with the run of this folder; by its args.yaml, or from this checkpoint; "
        "alone, with --experiment's run", type=str, nargs="?", const="auto", metavar="PATH")
_option("no_resume_opt", "", False, "go on from --resume with a new optimizer")
_option("eval_metric", "", "top1", "what the best checkpoint is best in", metavar="METRIC")
_option("test_only", "", False, "validate and stop", "--test-only")
_option("seed", "", 42, words("--seed"), type=seed, metavar="N")
_option("log_interval", "--log-interval", 50, "batches from one line to the next", "--print-freq",
        type=positive, metavar="N")
_option("recovery_interval", "", 0, "updates from one recovery checkpoint to the next; 0 for none", metavar="N")
_option("checkpoint_hist", "", 10, "best checkpoints to keep, besides the last two", type=positive, metavar="N")
_option("save_images", "", False, "write the batch of each logged step as a picture")
_option("no_export", "", False, "do not write the best epoch's weights as a repository")
_option("tta", "", 0, "copies of each validation image whose outputs are averaged", metavar="N")
_option("log_tensorboard", "", False, "write TensorBoard events into the run's folder")
_option("log_wandb", "", False, "send metrics to Weights & Biases")
_option("wandb_project", "", None, "its project", type=str, metavar="NAME")
_option("wandb_tags", "", [], "its tags", type=str, nargs="+", metavar="TAG")

# Accepted and without effect here: what other scripts' saved arguments and launchers bring along.
_IGNORED = {"--local_rank", "--local-rank", "--dist-url", "--world-size", "--cache-dataset", "--use-v2", "--backend",
            "--torchscript", "--fuser", "--apex-amp", "--native-amp", "--amp-impl", "--synchronize-step",
            "--prefetcher", "--distributed", "--rank", "--gpu", "--dist-backend"}
_IGNORED_SWITCHES = {"--cache-dataset", "--use-v2", "--torchscript", "--apex-amp", "--native-amp", "--synchronize-step",
                     "--prefetcher", "--distributed"}

_TORCHVISION = dict(  # where torchvision's script and timm's differ
    model="resnet18", batch_size=32, workers=16, lr=0.1, weight_decay=1e-4, filter_bias_and_bn=False, opt="sgd",
    sched="steplr", decay_epochs=30.0, decay_rate=0.1, warmup_epochs=0, warmup_factor=0.01, warmup_method="constant",
    warmup_prefix=True, min_lr=0.0, epochs=90, smoothing=0.0, color_jitter=0.0, train_interpolation="bilinear",
    remode="const", val_split="val", model_ema_decay=0.99998, model_ema_steps=32, model_ema_adjust=True, dist_bn="",
    log_interval=10,
)
# Its images, where the weights to begin with do not say theirs.
TORCHVISION_INPUTS = dict(img_size=224, val_img_size=224, val_resize_size=256, interpolation="bilinear")
DIALECTS: dict[str, dict[str, Any]] = {
    "timm": {name: option.default for name, option in OPTIONS.items()},
    "torchvision": {name: _TORCHVISION.get(name, option.default) for name, option in OPTIONS.items()},
}


def add_options(parser: argparse.ArgumentParser, only: Iterable[str] | None = None) -> None:
    """Add the options (or `only` those) to a parser. What is not given does not appear in the namespace."""
    parser.set_defaults(foreign_flags=())
    wanted = OPTIONS if only is None else only
    for name in wanted:
        option = OPTIONS[name]
        place = group(parser, option.group)
        kwargs = dict(option.kwargs)
        shown = "" if option.default in (None, False, "", [], {}, True) else f" (default: {option.default})"
        help = (option.help + shown).replace("%", "%%")
        own = [flag for flag in option.flags if flag not in option.foreign]
        if own:
            place.add_argument(*own, dest=name, default=argparse.SUPPRESS, help=help, **kwargs)
        if option.foreign:
            action = _foreign(kwargs.pop("action", None))
            text = f"torchvision's name of {own[0]}" if own else help
            place.add_argument(*option.foreign, dest=name, default=argparse.SUPPRESS, help=text,
                                              action=action, **kwargs)
    if only is None:
        for flag in sorted(_IGNORED):
            switch = dict(action="store_true") if flag in _IGNORED_SWITCHES else {}
            parser.add_argument(flag, dest="_ignored", default=argparse.SUPPRESS, help=argparse.SUPPRESS, **switch)


def _foreign(action: Any) -> type[argparse.Action]:
    """An action that stores its value and notes that the command line speaks torchvision's dialect."""

    class Foreign(argparse.Action):
        def __init__(self, **kwargs: Any) -> None:
            if action == "store_true":
                kwargs.update(nargs=0, const=True)
            super().__init__(**kwargs)

        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            setattr(namespace, self.dest, True if action == "store_true" else values)
            namespace.foreign_flags = (*namespace.foreign_flags, option_string)

    return Foreign


def find_option(key: str) -> tuple[Option, bool]:
    """The option that a recipe's key names, by timm's name or torchvision's, and whether it is torchvision's alone.

    Raises:
        ConfigError: There is none; the message names the closest.
    """
    name = key.lstrip("-").replace("-", "_")
    if name in OPTIONS:
        option = OPTIONS[name]
        return option, f"--{name.replace('_', '-')}" in option.foreign
    flag = f"--{name.replace('_', '-')}"
    for option in OPTIONS.values():
        if flag in option.foreign:
            return option, True
        if flag in option.flags:
            return option, False
    known = [word.lstrip("-").replace("-", "_") for option in OPTIONS.values()
             for word in (*option.flags, *option.foreign)]
    raise ConfigError(f"training has no argument '{key}'{closest(name, dict.fromkeys([*OPTIONS, *known])) or ''}")


def is_ignored(key: str) -> bool:
    """Whether a saved argument of another script means nothing here."""
    return key.startswith("_") or {f"--{key}", f"--{key.replace('_', '-')}"} & _IGNORED != set()


def finish_arguments(given: Mapping[str, Any], dialect: str) -> argparse.Namespace:
    """All arguments: those given, and the dialect's defaults; checked for contradictions.

    Raises:
        ConfigError: Two of them contradict each other, or one is out of its range.
    """
    args = argparse.Namespace(**{**DIALECTS[dialect], **given, "dialect": dialect})
    for name, value in vars(args).items():  # nobody's list or dict is shared with the table
        if isinstance(value, (list, dict)):
            setattr(args, name, value.copy())
    if args.ra_sampler and not args.aug_repeats:
        args.aug_repeats = 3.0  # torchvision's --ra-reps
    if dialect == "torchvision" and not args.ra_sampler and given.get("aug_repeats"):
        raise ConfigError("--ra-reps goes with --ra-sampler")
    _check(args)
    return args


def _check(args: argparse.Namespace) -> None:
    if args.aug_splits == 1:
        raise ConfigError(f"--aug-splits {args.aug_splits}: 0 for none, or 2 and more")
    if args.jsd_loss and not args.aug_splits:
        raise ConfigError("--jsd-loss compares augmentation splits and needs --aug-splits 2 or more")
    if args.split_bn and not (args.aug_splits or args.resplit):
        raise ConfigError("--split-bn gives each augmentation split a batch norm and needs --aug-splits 2 or more")
    if args.split_bn and args.sync_bn:
        raise ConfigError("--split-bn and --sync-bn contradict each other")
    if args.aug_splits and (args.mixup or args.cutmix or args.cutmix_minmax):
        raise ConfigError("--aug-splits and --mixup or --cutmix contradict each other")
    if args.jsd_loss and args.bce_loss:
        raise ConfigError("--jsd-loss and --bce-loss contradict each other")
    if args.teacher and args.aug_splits:
        raise ConfigError("--teacher and --aug-splits contradict each other")
    if args.naflex_loader:
        contrary = [name for name in ("aug_splits", "aug_repeats", "teacher", "cutmix_minmax", "save_images")
                    if getattr(args, name)]
        if contrary:
            raise ConfigError(f"--naflex-loader and --{contrary[0].replace('_', '-')} contradict each other")
        if args.mixup_mode != "batch":
            raise ConfigError(f"--naflex-loader mixes batches as a whole, not by --mixup-mode {args.mixup_mode}")
        sizes, weights = args.naflex_patch_sizes, args.naflex_patch_size_probs
        if weights is not None and len(weights) != len(sizes or ()):
            raise ConfigError(f"--naflex-patch-size-probs gives {len(weights)} numbers for {len(sizes or ())} sizes of "
                              f"--naflex-patch-sizes")
    if args.drop_connect is not None and args.drop_path is not None:
        raise ConfigError("--drop-connect is the old name of --drop-path; give one of them")
    if args.eval_metric not in ("top1", "top5", "loss"):
        raise ConfigError(f"--eval-metric '{args.eval_metric}' is not one of top1, top5, loss")
