"""`timm.data`. Imports no torch."""

from __future__ import annotations

from .core import FLAGS as _FLAGS

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
    "data.dataset_factory": {"mvlib.timm.meanings.data": "create_dataset",
                             _FLAGS: "has_imagenet has_inaturalist has_places365 has_qmnist"},
    "data.dataset_info": {"mvlib.data": "CustomDatasetInfo DatasetInfo DatasetInfoLabelMapper LabelMappingCoverage",
                          "mvlib.data.dataset_info": "LabelNames"},
    "data.distributed_sampler": {"mvlib.data": "OrderedDistributedSampler RepeatAugSampler"},
    "data.imagenet_info": {"mvlib.data": "ImageNetInfo infer_imagenet_subset"},
    "data.loader": {
        "mvlib.data": "MultiEpochsDataLoader PrefetchLoader fast_collate",
        "mvlib.timm.meanings.data": "adapt_to_chs create_loader",
    },
    "data.mixup": {"mvlib.timm.meanings.data": "FastCollateMixup Mixup",
                   "mvlib.data": "cutmix_bbox_and_lam mixup_target one_hot rand_bbox rand_bbox_minmax"},
    "data.model_config": {"mvlib.timm.meanings.data": "resolve_input_data_config"},
    "data.naflex_dataset": {"mvlib.data": "NaFlexCollator NaFlexMapDatasetWrapper calculate_naflex_batch_size",
                            "mvlib.layers.helpers": "to_2tuple"},
    "data.naflex_loader": {"mvlib.data": "NaFlexPrefetchLoader",
                           "mvlib.timm.meanings.data": "create_naflex_loader"},
    "data.naflex_mixup": {"mvlib.data": "NaFlexMixup mix_batch_variable_size pairwise_mixup_target"},
    "data.naflex_random_erasing": {"mvlib.data": "PatchRandomErasing"},
    "data.naflex_transforms": {"mvlib.data": "CenterCropToSequence Patchify RandomCropToSequence "
                                             "RandomResizedCropToSequence ResizeKeepRatioToSequence ResizeToSequence "
                                             "get_image_size_for_seq patchify_image"},
    "data.random_erasing": {"mvlib.data": "RandomErasing"},
    "data.readers": {"mvlib.data.readers": "create_reader"},
    "data.readers.class_map": {"mvlib.data.readers.class_map": "load_class_map"},
    "data.readers.img_extensions": {"mvlib.data.readers.img_extensions":
                                    "IMG_EXTENSIONS add_img_extensions del_img_extensions get_img_extensions "
                                    "is_img_extension set_img_extensions"},
    "data.readers.reader": {"mvlib.data.readers": "Reader"},
    "data.readers.reader_factory": {"mvlib.data.readers": "create_reader"},
    "data.readers.reader_hfds": {"mvlib.data.readers.hf": "ReaderHfds=HuggingFaceReader"},
    "data.readers.reader_image_folder": {"mvlib.data.readers.folder": "ReaderImageFolder=FolderReader "
                                                                      "find_images_and_targets"},
    "data.readers.reader_image_in_tar": {"mvlib.data.readers.tar": "ReaderImageInTar=TarReader"},
    "data.readers.reader_image_tar": {"mvlib.data.readers.tar": "ReaderImageTar=TarReader"},
    "data.readers.shared_count": {"mvlib.timm.meanings.data": "SharedCount"},
    "data.real_labels": {"mvlib.data": "RealLabelsImagenet"},
    "data.scheduled_sampler": {"mvlib.data": "ScheduledBatchSampler ScheduledTransformDataset"},
    "data.target_transforms": {"mvlib.data": "MultiLabelTarget"},
    "data.transforms": {"mvlib.data": "CenterCropOrPad MaybePILToTensor MaybeToTensor RandomCropOrPad RandomPad "
                                      "RandomResizedCropAndInterpolation ResizeKeepRatio ToNumpy ToTensor TrimBorder "
                                      "center_crop_or_pad crop_or_pad interp_mode_to_str str_to_interp_mode "
                                      "str_to_pil_interp",
                        "mvlib.data.transforms": "_RANDOM_INTERPOLATION=_RANDOM", _FLAGS: "has_interpolation_mode"},
    "data.transforms_factory": {
        "mvlib.timm.meanings.data": "create_transform transforms_imagenet_eval transforms_imagenet_train "
                                    "transforms_noaug_train",
    },
}

ABSENT: dict[str, dict[str, str]] = {
    "part of timm's readers of label columns; mvlib.data.readers.fields is that of ours": {
        "data.readers._hfds": "", "data.readers.targets": "",
        "data.readers.class_map": "remap_dense_target remap_labels remap_target",
    },
    "streams are read by mvlib.data.IterableImageDataset, whose readers divide their samples in another way": {
        "data.readers.reader_hfids": "", "data.readers.reader_tfds": "", "data.readers.reader_wds": "",
    },
    "the index of a tar is kept in mvlib's cache": {"data.readers.reader_image_in_tar": "CACHE_FILENAME_SUFFIX"},
    "tars are read in place, by one index of all that lies in them": {"data.readers.reader_image_in_tar": "TarState"},
    "mvlib.data.readers.tar.index_tar gives another form of index": {
        "data.readers.reader_image_in_tar": "extract_tarinfos", "data.readers.reader_image_tar": "extract_tarinfo",
    },
    "TensorFlow's own decoding and resizing, by which ports of its models were checked": {"data.tf_preprocessing": ""},
}
