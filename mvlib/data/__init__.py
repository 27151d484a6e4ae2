"""From image files to what a model reads. Names are resolved on first use: reading a config imports no torch."""

from __future__ import annotations

from ..lazy import attach

_NAMES = {
    "config": ("image_mode", "per_channel", "resolve_data_config", "resolve_model_data_config"),
    "transforms": (
        "CenterCropOrPad", "MaybePILToTensor", "MaybeToTensor", "RandomCropOrPad", "RandomPad", "Resize",
        "ResizeKeepRatio", "ToNumpy", "ToTensor", "TrimBorder", "center_crop_or_pad", "crop_or_pad",
        "interp_mode_to_str", "str_to_interp_mode", "str_to_pil_interp",
    ),
    "transform_factory": ("create_transform",),
    "fast": ("FastTransform",),
    "normalizer": ("Normalizer",),
    "presets": ("ImageClassification",),
    "images": ("find_images", "open_image"),
    "labels": ("class_names",),
    "dataset_info": (
        "CustomDatasetInfo", "DatasetInfo", "DatasetInfoLabelMapper", "ImageNetInfo", "LabelMappingCoverage",
        "infer_imagenet_subset",
    ),
    "real_labels": ("RealLabelsImagenet",),
    "target_transforms": ("MultiLabelTarget",),
    "dataset": ("AugMixDataset", "ImageDataset", "IterableImageDataset", "StreamedSample"),
    "dataset_factory": ("create_dataset",),
    "readers": ("Relabel", "check_labels", "check_same_classes", "create_reader", "match_classes"),
    "loader": ("Loader", "create_loader"),
    "torch_loader": ("MultiEpochsDataLoader", "PrefetchLoader", "create_torch_loader"),
    "collate": ("fast_collate",),
    "mixup": (
        "FastCollateMixup", "Mixup", "cutmix_bbox_and_lam", "mixup_target", "one_hot", "rand_bbox", "rand_bbox_minmax",
    ),
    "naflex_transforms": (
        "CenterCropToSequence", "Patchify", "RandomCropToSequence", "RandomResizedCropToSequence",
        "ResizeKeepRatioToSequence", "ResizeToSequence", "get_image_size_for_seq", "patchify_image",
    ),
    "naflex_mixup": ("NaFlexMixup", "mix_batch_variable_size", "pairwise_mixup_target"),
    "naflex_random_erasing": ("PatchRandomErasing",),
    "naflex_dataset": (
        "NaFlexCollator", "NaFlexMapDatasetWrapper", "TokenBatch", "TokenSchedule", "calculate_naflex_batch_size",
    ),
    "naflex_loader": ("NaFlexLoader", "NaFlexPrefetchLoader", "create_naflex_loader"),
    "samplers": (
        "BatchKeys", "OrderedDistributedSampler", "OrderedSampler", "RepeatAugSampler", "ScheduledBatchKeys",
        "ScheduledBatchSampler", "ScheduledTransformDataset", "ShuffledSampler", "process_place",
    ),
    "auto_augment": (
        "AugMixAugment", "AugmentOp", "AutoAugment", "RandAugment", "augment_and_mix_transform", "augmix_ops",
        "auto_augment_policy", "auto_augment_transform", "create_policy", "rand_augment_choices", "rand_augment_ops",
        "rand_augment_transform",
    ),
    "random_erasing": ("ErasedBox", "RandomErasing"),
    "train_transforms": ("RandomResizedCropAndInterpolation", "ToPIL", "TrainTransform", "create_train_transform"),
    "randomness": ("reseed", "sample_seed", "seeded"),
    "constants": (
        "DEFAULT_CROP_MODE", "DEFAULT_CROP_PCT", "IMAGENET_DEFAULT_MEAN", "IMAGENET_DEFAULT_STD", "IMAGENET_DPN_MEAN",
        "IMAGENET_DPN_STD", "IMAGENET_INCEPTION_MEAN", "IMAGENET_INCEPTION_STD", "OPENAI_CLIP_MEAN", "OPENAI_CLIP_STD",
    ),
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES, submodules=("augment", "pil_transform", "workers"))
