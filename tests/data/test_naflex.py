"""Images as patches: transforms, mixing, erasing and batches as timm's from the same seeds; loaders that go on."""

from __future__ import annotations

import random

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from timm.data import naflex_dataset, naflex_loader, naflex_random_erasing, naflex_transforms

from mvlib import data
from mvlib.data.random_erasing import MODES
from mvlib.errors import BadImageError, ConfigError

SIZES = [(40, 60), (61, 33), (50, 50), (17, 90), (128, 96)]


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed + height * width)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def seed(number):
    random.seed(number)
    torch.manual_seed(number)
    np.random.seed(number)


def same(ours, theirs):
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        return all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    return np.array_equal(np.asarray(ours), np.asarray(theirs))


class Pictures(torch.utils.data.Dataset):
    """A data set of images of different sizes, of which some cannot be read."""

    def __init__(self, count=23, broken=()):
        self.count, self.broken, self.transform = count, broken, None

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.broken:
            raise OSError("no image")
        image = picture(*SIZES[index % len(SIZES)], seed=index)
        return (self.transform(image) if self.transform else image), index % 3


# --- transforms


@pytest.mark.parametrize("options", [{}, dict(patch_size=(8, 4)), dict(max_seq_len=7), dict(max_ratio=0.5),
                                     dict(divisible_by_patch=False), dict(eps=1e-3)])
@pytest.mark.parametrize("size", [*SIZES, (1, 1), (3000, 2), (480, 640)])
def test_sizes_for_sequences_as_timms(size, options):
    expected = naflex_transforms.get_image_size_for_seq(size, **options)
    assert data.get_image_size_for_seq(size, **options) == expected


TRANSFORMS = {
    "ResizeToSequence": [
        dict(patch_size=8, max_seq_len=20), dict(patch_size=(4, 8), max_seq_len=30, interpolation="bilinear"),
        dict(patch_size=16, max_seq_len=9, max_ratio=0.3, interpolation="random"),
        dict(patch_size=8, divisible_by_patch=False, max_seq_len=40)],
    "ResizeKeepRatioToSequence": [
        dict(patch_size=8, max_sequence_len=20), dict(patch_size=8, max_sequence_len=40, longest=0.7),
        dict(patch_size=(8, 4), max_sequence_len=25, random_scale_prob=0.7, random_scale_area=True,
             random_aspect_prob=0.8, interpolation="random", max_ratio=1.5),
        dict(patch_size=8, max_sequence_len=25, random_scale_prob=1.0, random_scale_range=(1.5, 2.5),
             divisible_by_patch=False)],
    "CenterCropToSequence": [dict(patch_size=8, max_seq_len=20), dict(patch_size=16, max_seq_len=400, fill=(9, 8, 7))],
    "RandomCropToSequence": [dict(patch_size=8, max_sequence_len=20),
                             dict(patch_size=(8, 16), max_sequence_len=300, padding_mode="reflect")],
    "RandomResizedCropToSequence": [
        dict(patch_size=8, max_seq_len=20), dict(patch_size=(8, 4), max_seq_len=30, interpolation="random"),
        dict(max_seq_len=12, patch_size=8, final_scale_range=(0.4, 0.9), divisible_by_patch=False),
        dict(max_seq_len=12, patch_size=8, final_scale_range=(0.4, 0.9)),
        dict(max_seq_len=12, patch_size=8, scale=(1.5, 2.0)), dict(patch_size=8, max_seq_len=12, ratio=(1.5, 3.0),
                                                                   attempts=1, scale=(0.9, 1.0))],
}


@pytest.mark.parametrize("name, options", [(n, o) for n, all_ in TRANSFORMS.items() for o in all_])
def test_transforms_as_timms(name, options):
    ours, theirs = getattr(data, name)(**options), getattr(timm.data, name)(**options)
    for number, size in enumerate(SIZES * 3):
        results = []
        for transform in (ours, theirs):
            seed(number)
            results.append((transform(picture(*size)), random.random()))
        assert results[0][0].size == results[1][0].size and same(results[0], results[1]), size
    assert name in repr(ours)


def test_a_tensor_is_resized_as_timms():
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    ours, theirs = (m.ResizeToSequence(8, 20) for m in (data, timm.data))
    assert same(ours(image), theirs(image)) and same(ours(image / 255), theirs(image / 255))


@pytest.mark.parametrize("options", [{}, dict(flatten_patches=False), dict(channels_last=False),
                                     dict(channels_last=False, flatten_patches=False), dict(include_info=False)])
def test_patches_as_timms(options):
    image = torch.randn(3, 21, 34)
    assert same(data.patchify_image(image, (8, 5), **options), timm.data.patchify_image(image, (8, 5), **options))
    options.pop("include_info", None)
    for given in (image, picture(40, 30)):
        assert same(data.Patchify(7, **options)(given), timm.data.Patchify(7, **options)(given))


@pytest.mark.parametrize("options", [
    {}, dict(use_prefetcher=True), dict(is_training=True), dict(is_training=True, use_prefetcher=True),
    dict(is_training=True, no_aug=True, interpolation="random", crop_border_pixels=3), dict(crop_border_pixels=4),
    dict(is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=1.0, interpolation="random"),
    dict(is_training=True, scale=(0.5, 0.6), ratio=(0.9, 1.1), color_jitter=(0.1, 0.2, 0.3), grayscale_prob=0.5,
         gaussian_blur_prob=0.5, vflip=0.5, normalize=False),
    dict(patchify=True), dict(patchify=True, patchify_flatten=False, patchify_channels_last=False),
    dict(is_training=True, patchify=True, patchify_channels_last=False, use_prefetcher=True),
])
def test_create_transform_as_timms(options):
    options = dict(naflex=True, patch_size=8, max_seq_len=20, **options)
    ours, theirs = data.create_transform(**options), timm.data.create_transform(**options)
    for number, size in enumerate(SIZES):
        results = []
        for transform in (ours, theirs):
            seed(number)
            results.append(transform(picture(*size)))
        ours_, theirs_ = (r if isinstance(r, dict) else {"image": r} for r in results)
        for key, expected in theirs_.items():
            assert ours_[key].shape == expected.shape and ours_[key].dtype == expected.dtype
            step = 1 if expected.dtype == torch.uint8 else 1 / 50  # policies' pixels are PIL's to within one step
            limit = step if options.get("auto_augment") else 0
            assert (ours_[key].double() - expected.double()).abs().max() <= limit


# --- mixing and erasing


@pytest.mark.parametrize("options", [{}, dict(mixup_alpha=0.0), dict(cutmix_alpha=0.0), dict(local_shuffle=0),
                                     dict(prob=0.5), dict(label_smoothing=0.1), dict(mixup_off_epoch=1)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_mixing_as_timms(options, dtype):
    ours, theirs = (m.NaFlexMixup(num_classes=4, **options) for m in (data, timm.data))
    for number in range(6):
        images = [(torch.rand(3, h // 4, w // 4) * 255).to(dtype) for h, w in SIZES[:2 + number % 4]]
        labels = [i % 4 for i in range(len(images))]
        results = []
        for mixup in (ours, theirs):
            mixup.set_epoch(number // 4)
            seed(number)
            mixed, targets = mixup([image.clone() for image in images], labels)
            results.append((list(mixed), list(targets), random.random()))
        assert same(results[0], results[1])


def test_mixing_dense_targets_as_timms():
    targets = torch.rand(4, 3)
    arguments = ({0: 2, 2: 0}, [0.25, 1.0, 0.5, 1.0])
    options = dict(num_classes=3, smoothing=0.1, multi_label=True)
    found, expected = (m.pairwise_mixup_target(targets, *arguments, **options) for m in (data, timm.data))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spatial_mode", ["region", "patch"])
@pytest.mark.parametrize("shape", [(64, 3), (8, 8, 3)])
def test_erasing_as_timms(mode, spatial_mode, shape):
    options = dict(erase_prob=0.8, max_count=3, mode=mode, spatial_mode=spatial_mode, num_splits=3, max_area=0.25)
    patches = torch.rand(6, 13, *shape)
    coord = torch.cartesian_prod(torch.arange(4), torch.arange(3))
    coord = torch.cat((coord, torch.zeros(1, 2, dtype=torch.long))).expand(6, -1, -1)
    valid = (torch.arange(13) < 12).expand(6, -1).clone()
    valid[4] = False
    for number in range(5):
        results = []
        for module in (data, naflex_random_erasing):
            erasing = module.PatchRandomErasing(**options, device="cpu")
            seed(number)
            results.append(erasing(patches.clone(), coord, valid))
        assert torch.equal(*results) and not torch.equal(results[0], patches)


def test_erasing_in_two_halves():
    """What is drawn without the patches is filled where they are; noise depends on the seed of the box alone."""
    erasing = data.PatchRandomErasing(1.0, mode="pixel", max_count=2)
    coord, valid = torch.cartesian_prod(torch.arange(6), torch.arange(7)), torch.ones(42, dtype=torch.bool)
    seed(1)
    boxes = erasing.draw(6, 7)
    patches = torch.zeros(42, 4, 3)
    results = []
    for number in (2, 3):
        torch.manual_seed(number)
        results.append(erasing.erase_(patches.clone(), coord, valid, boxes))
    assert torch.equal(*results)
    erased = (results[0] != 0).all(-1).all(-1)
    covered = sum(((coord[:, 0] >= b.top) & (coord[:, 0] < b.top + b.height)
                    & (coord[:, 1] >= b.left) & (coord[:, 1] < b.left + b.width)) for b in boxes)
    assert torch.equal(erased, covered > 0) and 0 < erased.sum() < 42
    assert data.PatchRandomErasing(0.0).draw(6, 7) == []


# --- batches


@pytest.mark.parametrize("arguments", [(1000, 128), (1000, 300, 2), (1000, 100, None, 4), (1000, 90, None, 4, "ceil"),
                                       (1000, 90, None, 4, "round"), (100, 300, None, 8)])
def test_batch_sizes_as_timms(arguments):
    expected = naflex_dataset.calculate_naflex_batch_size(*arguments)
    assert data.calculate_naflex_batch_size(*arguments) == expected


@pytest.mark.parametrize("options", [
    dict(patch_size=8), dict(patch_size_choices=[8, 4], patch_size_choice_probs=[3, 1]), dict(shuffle=False),
    dict(patch_size=(8, 4), distributed=True, rank=1, world_size=3, patchify_channels_last=False),
])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_wrapper_gives_timms_batches(options, mixed):
    results = []
    for module in (data, timm.data):
        wrapped = module.NaFlexMapDatasetWrapper(
            Pictures(), seq_lens=(6, 12), max_tokens_per_batch=60, batch_divisor=2, epoch=1, seed=3,
            mixup_fn=module.NaFlexMixup(num_classes=3) if mixed else None,
            transform_factory=lambda module=module, **keys: module.create_transform(
                is_training=True, naflex=True, use_prefetcher=True, **keys), **options)
        seed(0)
        first = list(wrapped)
        wrapped.set_epoch(2)
        results.append([len(wrapped), first, list(wrapped)])
    assert same(results[0], results[1])


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("prefetch", [True, False])
def test_timms_loader(is_training, prefetch):
    from mvlib.timm.data import create_naflex_loader

    results = []
    for create in (create_naflex_loader, naflex_loader.create_naflex_loader):
        loader = create(
            Pictures(), patch_size=8, train_seq_lens=(6, 12), max_seq_len=10, batch_size=4, is_training=is_training,
            use_prefetcher=prefetch, num_workers=0, device=torch.device("cpu"), pin_memory=False, re_prob=0.5,
            re_mode="pixel", auto_augment=None)
        seed(0)
        results.append((len(loader), list(loader)))
    assert same(results[0], results[1])


def loader(workers=0, **options):
    options = dict(dict(patch_size=8, train_seq_lens=(6, 12), batch_size=4, is_training=True, num_workers=workers,
                        re_prob=0.7, re_mode="pixel", device="cpu", persistent_workers=False,
                        mixup_fn=data.NaFlexMixup(num_classes=3, mixup_off_epoch=3)), **options)
    return data.create_naflex_loader(options.pop("dataset", None) or Pictures(), **options)


@pytest.mark.parametrize("options", [{}, dict(patch_size=None, patch_size_choices=[4, 8], use_prefetcher=False),
                                     dict(patchify_channels_last=False, mixup_fn=None),
                                     dict(distributed=True, rank=1, world_size=2, dataset=Pictures(46))])
def test_batches_depend_on_neither_workers_nor_start(options):
    whole = loader(**options)
    whole.set_epoch(2)
    expected = list(whole)
    assert len(expected) == len(whole) == 4
    assert {batch["patches"].shape[1] for batch, _ in expected} == {6, 12}
    seed(9)
    others = loader(workers=2, **options)
    others.set_epoch(2)
    assert same(list(others), expected)
    later = loader(workers=1, **options)
    later.set_epoch(2, start_batch=1)
    assert same(list(later), expected[1:])
    assert not same([t for _, t in list(later)], [t for _, t in expected])  # the next epoch


def test_ranks_read_different_samples_in_batches_alike():
    parts = [list(loader(distributed=True, rank=rank, world_size=2, mixup_fn=None)) for rank in (0, 1)]
    assert [b["patches"].shape for b, _ in parts[0]] == [b["patches"].shape for b, _ in parts[1]]
    assert sum(len(t) for part in parts for _, t in part) == 24  # of 23 one twice
    assert not same(*parts)


def test_mixing_stops_at_its_epoch():
    on = loader()
    for epoch, is_mixed in ((2, True), (3, False)):
        on.set_epoch(epoch)
        targets = torch.cat([targets for _, targets in on])
        assert ((targets > 0.001) & (targets < 0.999)).any() == is_mixed


def test_an_epoch_is_timms_and_what_cannot_be_read_is_replaced():
    dataset = Pictures(broken=(4, 5))
    found = loader(dataset=dataset, mixup_fn=None)
    schedule = data.TokenSchedule(23, (6, 12), 48)
    assert [(b["patches"].shape[:2]) for b, _ in found] == [
        (len(batch.indices), batch.seq_len) for batch in schedule.batches(0)]
    assert sorted(name for name, _ in found.bad_samples) == ["sample 4", "sample 5"]


def test_evaluation_reads_each_once():
    parts = [loader(is_training=False, max_seq_len=9, mixup_fn=None, distributed=True, rank=rank, world_size=2,
                    batch_size=5) for rank in (0, 1)]
    labels = [torch.cat([t for _, t in part]).tolist() for part in parts]
    assert sorted(labels[0] + labels[1]) == sorted(i % 3 for i in range(23)) and len(labels[0]) == 12
    batch, _ = next(iter(parts[0]))
    assert batch["patches"].shape == (5, 9, 192) and batch["patch_valid"].any(1).all()
    assert same(list(parts[0])[0], (batch, _))  # every evaluation is the same


def test_patches_are_normalised_as_images_are():
    batch, _ = next(iter(loader(is_training=False, mixup_fn=None, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))))
    transform = data.create_transform(naflex=True, patch_size=8, max_seq_len=576, patchify=True, mean=(0.1, 0.2, 0.3),
                                      std=(0.5, 0.6, 0.7))
    expected = transform(picture(*SIZES[0], seed=0))["patches"]
    torch.testing.assert_close(batch["patches"][0][batch["patch_valid"][0]], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("call, error, text", [
    (lambda: data.Patchify((8, 8, 8)), ConfigError, "patch_size (8, 8, 8) is neither a side of a square nor"),
    (lambda: data.get_image_size_for_seq((4, 4), max_seq_len=0), ConfigError, "max_seq_len 0 has room for no patch"),
    (lambda: data.get_image_size_for_seq((10**9, 10**9)), BadImageError, "cannot be scaled to 1024 patches"),
    (lambda: data.RandomResizedCropToSequence(scale=0.5), ConfigError, "scale 0.5 is not a range"),
    (lambda: data.patchify_image(torch.zeros(3, 9, 8), (8, 8), pad=False), ConfigError, "pad=True pads it"),
    (lambda: data.mix_batch_variable_size([torch.zeros(3, 8, 8)]), ConfigError, "1 images cannot be mixed"),
    (lambda: data.mix_batch_variable_size([torch.zeros(3, 8, 8)] * 2, mixup_alpha=0, cutmix_alpha=0), ConfigError,
     "there is nothing to do"),
    (lambda: data.PatchRandomErasing(mode="noise"), ConfigError, "random erasing has no mode 'noise'"),
    (lambda: data.PatchRandomErasing(spatial_mode="pixel"), ConfigError, "spatial_mode 'pixel' is none of"),
    (lambda: data.PatchRandomErasing(patch_drop_prob=0.1), ConfigError, "can be erased, not taken away"),
    (lambda: data.TokenSchedule(4, (), 9), ConfigError, "seq_lens [] are not numbers of patches"),
    (lambda: loader(patch_size_choices=[4]), ConfigError, "give one of them"),
    (lambda: loader(patch_size=None, patch_size_choices=[4, 8], patch_size_choice_probs=[1]), ConfigError,
     "are not 2 weights, one a patch size"),
    (lambda: loader(patch_size=None, patch_size_choices=[4], is_training=False), ConfigError, "is_training=True"),
    (lambda: loader(num_aug_repeats=2), ConfigError, "num_aug_repeats=2 and batches of patches"),
    (lambda: data.NaFlexMapDatasetWrapper(iter(())), TypeError, "has no numbered samples"),
    (lambda: data.create_transform(naflex=True, backend="fast"), NotImplementedError, "backend='reference'"),
])
def test_what_is_refused(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
