# Written by scripts/build_stubs.py.
# ruff: noqa
from . import augment as augment, auto_augment as auto_augment, collate as collate, config as config, constants as constants, dataset as dataset, dataset_factory as dataset_factory, dataset_info as dataset_info, fast as fast, images as images, labels as labels, loader as loader, mixup as mixup, naflex_dataset as naflex_dataset, naflex_loader as naflex_loader, naflex_mixup as naflex_mixup, naflex_random_erasing as naflex_random_erasing, naflex_transforms as naflex_transforms, normalizer as normalizer, pil_transform as pil_transform, presets as presets, random_erasing as random_erasing, randomness as randomness, readers as readers, real_labels as real_labels, samplers as samplers, target_transforms as target_transforms, torch_loader as torch_loader, train_transforms as train_transforms, transform_factory as transform_factory, transforms as transforms, workers as workers
from .auto_augment import AugMixAugment, AugmentOp, AutoAugment, RandAugment, augment_and_mix_transform, augmix_ops, auto_augment_policy, auto_augment_transform, create_policy, rand_augment_choices, rand_augment_ops, rand_augment_transform
from .collate import fast_collate
from .config import image_mode, per_channel, resolve_data_config, resolve_model_data_config
from .constants import DEFAULT_CROP_MODE, DEFAULT_CROP_PCT, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, IMAGENET_DPN_MEAN, IMAGENET_DPN_STD, IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from .dataset import AugMixDataset, ImageDataset, IterableImageDataset, StreamedSample
from .dataset_factory import create_dataset
from .dataset_info import CustomDatasetInfo, DatasetInfo, DatasetInfoLabelMapper, ImageNetInfo, LabelMappingCoverage, infer_imagenet_subset
from .fast import FastTransform
from .images import find_images, open_image
from .labels import class_names
from .loader import Loader, create_loader
from .mixup import FastCollateMixup, Mixup, cutmix_bbox_and_lam, mixup_target, one_hot, rand_bbox, rand_bbox_minmax
from .naflex_dataset import NaFlexCollator, NaFlexMapDatasetWrapper, TokenBatch, TokenSchedule, calculate_naflex_batch_size
from .naflex_loader import NaFlexLoader, NaFlexPrefetchLoader, create_naflex_loader
from .naflex_mixup import NaFlexMixup, mix_batch_variable_size, pairwise_mixup_target
from .naflex_random_erasing import PatchRandomErasing
from .naflex_transforms import CenterCropToSequence, Patchify, RandomCropToSequence, RandomResizedCropToSequence, ResizeKeepRatioToSequence, ResizeToSequence, get_image_size_for_seq, patchify_image
from .normalizer import Normalizer
from .presets import ImageClassification
from .random_erasing import ErasedBox, RandomErasing
from .randomness import reseed, sample_seed, seeded
from .readers import Relabel, check_labels, check_same_classes, create_reader, match_classes
from .real_labels import RealLabelsImagenet
from .samplers import BatchKeys, OrderedDistributedSampler, OrderedSampler, RepeatAugSampler, ScheduledBatchKeys, ScheduledBatchSampler, ScheduledTransformDataset, ShuffledSampler, process_place
from .target_transforms import MultiLabelTarget
from .torch_loader import MultiEpochsDataLoader, PrefetchLoader, create_torch_loader
from .train_transforms import RandomResizedCropAndInterpolation, ToPIL, TrainTransform, create_train_transform
from .transform_factory import create_transform
from .transforms import CenterCropOrPad, MaybePILToTensor, MaybeToTensor, RandomCropOrPad, RandomPad, Resize, ResizeKeepRatio, ToNumpy, ToTensor, TrimBorder, center_crop_or_pad, crop_or_pad, interp_mode_to_str, str_to_interp_mode, str_to_pil_interp
__all__ = ['AugMixAugment', 'AugMixDataset', 'AugmentOp', 'AutoAugment', 'BatchKeys', 'CenterCropOrPad', 'CenterCropToSequence', 'CustomDatasetInfo', 'DEFAULT_CROP_MODE', 'DEFAULT_CROP_PCT', 'DatasetInfo', 'DatasetInfoLabelMapper', 'ErasedBox', 'FastCollateMixup', 'FastTransform', 'IMAGENET_DEFAULT_MEAN', 'IMAGENET_DEFAULT_STD', 'IMAGENET_DPN_MEAN', 'IMAGENET_DPN_STD', 'IMAGENET_INCEPTION_MEAN', 'IMAGENET_INCEPTION_STD', 'ImageClassification', 'ImageDataset', 'ImageNetInfo', 'IterableImageDataset', 'LabelMappingCoverage', 'Loader', 'MaybePILToTensor', 'MaybeToTensor', 'Mixup', 'MultiEpochsDataLoader', 'MultiLabelTarget', 'NaFlexCollator', 'NaFlexLoader', 'NaFlexMapDatasetWrapper', 'NaFlexMixup', 'NaFlexPrefetchLoader', 'Normalizer', 'OPENAI_CLIP_MEAN', 'OPENAI_CLIP_STD', 'OrderedDistributedSampler', 'OrderedSampler', 'PatchRandomErasing', 'Patchify', 'PrefetchLoader', 'RandAugment', 'RandomCropOrPad', 'RandomCropToSequence', 'RandomErasing', 'RandomPad', 'RandomResizedCropAndInterpolation', 'RandomResizedCropToSequence', 'RealLabelsImagenet', 'Relabel', 'RepeatAugSampler', 'Resize', 'ResizeKeepRatio', 'ResizeKeepRatioToSequence', 'ResizeToSequence', 'ScheduledBatchKeys', 'ScheduledBatchSampler', 'ScheduledTransformDataset', 'ShuffledSampler', 'StreamedSample', 'ToNumpy', 'ToPIL', 'ToTensor', 'TokenBatch', 'TokenSchedule', 'TrainTransform', 'TrimBorder', 'augment_and_mix_transform', 'augmix_ops', 'auto_augment_policy', 'auto_augment_transform', 'calculate_naflex_batch_size', 'center_crop_or_pad', 'check_labels', 'check_same_classes', 'class_names', 'create_dataset', 'create_loader', 'create_naflex_loader', 'create_policy', 'create_reader', 'create_torch_loader', 'create_train_transform', 'create_transform', 'crop_or_pad', 'cutmix_bbox_and_lam', 'fast_collate', 'find_images', 'get_image_size_for_seq', 'image_mode', 'infer_imagenet_subset', 'interp_mode_to_str', 'match_classes', 'mix_batch_variable_size', 'mixup_target', 'one_hot', 'open_image', 'pairwise_mixup_target', 'patchify_image', 'per_channel', 'process_place', 'rand_augment_choices', 'rand_augment_ops', 'rand_augment_transform', 'rand_bbox', 'rand_bbox_minmax', 'reseed', 'resolve_data_config', 'resolve_model_data_config', 'sample_seed', 'seeded', 'str_to_interp_mode', 'str_to_pil_interp']
