"""`timm.data`. Imports no torch."""

from __future__ import annotations

_CONSTANTS = ("DEFAULT_CROP_MODE DEFAULT_CROP_PCT IMAGENET_DEFAULT_MEAN IMAGENET_DEFAULT_STD IMAGENET_DPN_MEAN "
              "IMAGENET_DPN_STD IMAGENET_INCEPTION_MEAN IMAGENET_INCEPTION_STD OPENAI_CLIP_MEAN OPENAI_CLIP_STD")
_OPERATIONS = ("auto_contrast brightness color contrast desaturate equalize gaussian_blur gaussian_blur_rand invert "
               "posterize rotate sharpness shear_x shear_y solarize solarize_add translate_x_abs translate_x_rel "
               "translate_y_abs translate_y_rel")

NAMES: dict[str, dict[str, str]] = {
    "data.auto_augment": {
        "mvlib.data": "AugMixAugment AugmentOp AutoAugment RandAugment augment_and_mix_transform augmix_ops "
                      "auto_augment_policy auto_augment_transform rand_augment_choices rand_augment_ops "
                      "rand_augment_transform",
        "mvlib.timm.meanings.data": f"LEVEL_TO_ARG NAME_TO_OP auto_augment_policy_3a auto_augment_policy_original "
                                    f"auto_augment_policy_originalr auto_augment_policy_v0 auto_augment_policy_v0r "
                                    f"{_OPERATIONS}",
    },
    "data.config": {"mvlib.data": f"resolve_data_config resolve_model_data_config {_CONSTANTS}"},
    "data.constants": {"mvlib.data": _CONSTANTS},
    "data.dataset": {"mvlib.data": "AugMixDataset IterableImageDataset", "mvlib.timm.meanings.data": "ImageDataset"},
    "data.dataset_factory": {"mvlib.timm.meanings.data": "create_dataset"},
    "data.distributed_sampler": {"mvlib.data": "OrderedDistributedSampler RepeatAugSampler"},
    "data.loader": {
        "mvlib.data": "MultiEpochsDataLoader PrefetchLoader fast_collate",
        "mvlib.timm.meanings.data": "adapt_to_chs create_loader",
    },
    "data.mixup": {"mvlib.data": "FastCollateMixup Mixup cutmix_bbox_and_lam mixup_target one_hot rand_bbox "
                                 "rand_bbox_minmax"},
    "data.random_erasing": {"mvlib.data": "RandomErasing"},
    "data.scheduled_sampler": {"mvlib.data": "ScheduledBatchSampler ScheduledTransformDataset"},
    "data.transforms": {"mvlib.data": "CenterCropOrPad MaybePILToTensor MaybeToTensor RandomCropOrPad RandomPad "
                                      "RandomResizedCropAndInterpolation ResizeKeepRatio ToNumpy ToTensor TrimBorder "
                                      "center_crop_or_pad crop_or_pad interp_mode_to_str str_to_interp_mode "
                                      "str_to_pil_interp"},
    "data.transforms_factory": {
        "mvlib.data": "create_transform",
        "mvlib.timm.meanings.data": "transforms_imagenet_eval transforms_imagenet_train transforms_noaug_train",
    },
}

_NAFLEX = "NaFlex models, and batches of images of different sizes for them, are not here yet"

ABSENT: dict[str, str] = {
    "data.naflex_dataset": _NAFLEX,
    "data.naflex_loader": _NAFLEX,
    "data.naflex_mixup": _NAFLEX,
    "data.naflex_random_erasing": _NAFLEX,
    "data.naflex_transforms": _NAFLEX,
    "data.tf_preprocessing": "TensorFlow's own decoding and resizing, by which ports of its models were checked",
}
