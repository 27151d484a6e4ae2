"""`timm.data` of the face against timm's: the same names, orders, draws and numbers."""

import inspect
import random

import numpy as np
import pytest
import timm.data
import timm.data.auto_augment
import timm.data.loader
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset
from torchvision import transforms

import mvlib.data
import mvlib.timm as face
from mvlib.data.randomness import seeded

CPU = torch.device("cpu")


def photograph(width=70, height=56, seed=0) -> Image.Image:
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((width, height), 3)
    noise = generator.integers(-8, 9, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse).astype(int) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 7), ("val", 5)):
        for label in ("bird", "cat"):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                photograph(60 + number, 50, number).save(root / split / label / f"{number}.png")
    return root


def both():
    return face.data, timm.data


def batches(module, folder, make=None, split="train", seed=3, **options):
    """Those of one epoch by a module's create_loader, and the loader."""
    dataset = module.create_dataset("", str(folder), split=split)
    if make is not None:
        dataset = make(module, dataset)
    options = {"input_size": (3, 32, 32), "batch_size": 4, "num_workers": 0, "device": CPU, **options}
    with seeded(seed):
        loader = module.create_loader(dataset, **options)
        return list(loader), loader


def assert_close(ours, theirs, steps=0.0):
    """`steps` of 255 may lie between them; timm normalises in the type asked for, and loses digits of half ones."""
    assert len(ours) == len(theirs) > 0
    for (images, targets), (their_images, their_targets) in zip(ours, theirs):
        assert images.shape == their_images.shape and images.dtype == their_images.dtype
        rounding = 4 * torch.finfo(images.dtype).eps
        torch.testing.assert_close(images.float(), their_images.float(), rtol=rounding, atol=max(steps / 50, rounding))
        torch.testing.assert_close(targets, their_targets)


# ---- loaders


@pytest.mark.parametrize(("use_prefetcher", "workers", "interpolation"), [
    (True, 0, "random"), (False, 0, "bicubic"), (True, 1, "bilinear"), (False, 1, "lanczos")])
def test_training_batches_are_timms(folder, use_prefetcher, workers, interpolation):
    options = {"is_training": True, "interpolation": interpolation, "use_prefetcher": use_prefetcher, "vflip": 0.2,
               "re_prob": 0.5, "re_count": 2, "num_workers": workers}
    ours, loader = batches(face.data, folder, **options)
    theirs, _ = batches(timm.data, folder, **options)
    assert_close(ours, theirs)
    assert len(loader) == 3


@pytest.mark.parametrize("use_prefetcher", [True, False])
def test_a_policys_draws_are_timms(folder, use_prefetcher):
    options = {"is_training": True, "interpolation": "random", "use_prefetcher": use_prefetcher,
               "auto_augment": "rand-m6-mstd0.5-inc1", "img_dtype": torch.bfloat16}
    assert_close(*(batches(module, folder, **options)[0] for module in both()))


@pytest.mark.parametrize("options", [{}, {"crop_mode": "border", "interpolation": "bicubic"}, {"fp16": True},
                                     {"input_size": (3, 24, 40), "use_prefetcher": False}], ids=str)
def test_evaluation_batches_are_timms(folder, options):
    ours, loader = batches(face.data, folder, split="validation", **options)
    assert_close(ours, batches(timm.data, folder, split="validation", **options)[0])
    assert [len(targets) for _, targets in ours] == [4, 4, 2] and len(loader.dataset) == 10


def test_without_the_prefetcher_it_is_torchs(folder):
    _, loader = batches(face.data, folder, is_training=True, use_prefetcher=False, num_workers=0, pin_memory=False)
    assert type(loader) is DataLoader
    assert (loader.batch_size, loader.num_workers, loader.drop_last) == (4, 0, True)
    assert isinstance(loader.sampler, torch.utils.data.RandomSampler)
    assert loader.batch_sampler.drop_last and loader.collate_fn is torch.utils.data.default_collate
    assert loader.dataset.transform.transforms[0].size == (32, 32)


def test_with_the_prefetcher_it_is_around_torchs(folder):
    options = {"is_training": True, "re_prob": 0.2, "re_mode": "pixel", "re_split": True, "img_dtype": torch.float16}
    loaders = [batches(module, folder, **options)[1] for module in both()]
    for loader in loaders:
        assert type(loader.loader) is DataLoader and loader.sampler is loader.loader.sampler
        assert loader.dataset is loader.loader.dataset and loader.batch_sampler is loader.loader.batch_sampler
        assert loader.mixup_enabled is False
    ours, theirs = loaders
    assert isinstance(ours, face.data.loader.PrefetchLoader)
    assert repr(ours.random_erasing) == repr(theirs.random_erasing) and ours.random_erasing.num_splits == 2
    assert (ours.device, ours.img_dtype, ours.mean.shape) == (theirs.device, theirs.img_dtype, theirs.mean.shape)
    assert batches(face.data, folder, is_training=True, no_aug=True, re_prob=0.2)[1].random_erasing is None


@pytest.mark.parametrize("mode", ["batch", "elem", "pair", "half"])
def test_mixup_while_collating_is_timms(folder, mode):
    found = []
    for module in both():
        mixup = module.FastCollateMixup(mixup_alpha=0.8, cutmix_alpha=1.0, mode=mode, num_classes=2)
        given, loader = batches(module, folder, is_training=True, collate_fn=mixup, interpolation="lanczos")
        assert loader.mixup_enabled
        loader.mixup_enabled = False
        assert not mixup.mixup_enabled and not loader.mixup_enabled
        found.append(given)
    assert_close(*found, steps=0.02)


def test_mixup_after_loading_is_timms():
    images, labels = torch.rand(8, 3, 12, 12), torch.arange(8) % 5
    for seed in range(6):
        results = []
        for module in both():
            mixup = module.Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=5)
            np.random.seed(seed)
            results.append(mixup(images.clone(), labels))
        torch.testing.assert_close(results[0], results[1])


def test_augmentation_splits_are_timms(folder):
    def split(module, dataset):
        return module.AugMixDataset(dataset, num_splits=3)

    options = {"is_training": True, "num_aug_splits": 3, "auto_augment": "augmix-m5-w4-d2", "re_prob": 0.6,
               "re_split": True, "interpolation": "nearest", "batch_size": 2}
    ours, loader = batches(face.data, folder, split, **options)
    assert_close(ours, batches(timm.data, folder, split, **options)[0])
    assert len(ours[0][0]) == 6 and loader.random_erasing.num_splits == 3


@pytest.mark.parametrize("options", [{}, {"batch_size_choices": [4, 2], "batch_choice_schedule": "progressive",
                                          "batch_schedule_epochs": 3, "num_batches": 5}], ids=["constant", "moving"])
def test_scheduled_sizes_are_timms(folder, options):
    options = {"is_training": True, "input_size_choices": [24, (32, 40)], "interpolation": "lanczos", **options}
    ours, loader = batches(face.data, folder, **options)
    theirs, peer = batches(timm.data, folder, **options)
    assert_close(ours, theirs)
    assert len(loader) == len(peer) and loader.batch_sampler.batch_sizes == list(peer.batch_sampler.batch_sizes)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_shares_of_a_distributed_run_are_timms(folder, is_training, rank, monkeypatch):
    for name, value in (("is_initialized", True), ("get_world_size", 3), ("get_rank", rank)):
        monkeypatch.setattr(torch.distributed, name, lambda *_, value=value: value)
    for repeats in (0, 3) if is_training else (0,):
        options = {"is_training": is_training, "distributed": True, "num_aug_repeats": repeats, "batch_size": 2}
        loaders = [batches(module, folder, **options)[1] for module in both()]
        for epoch in range(2):
            orders = []
            for loader in loaders:
                if is_training:
                    loader.sampler.set_epoch(epoch)
                orders.append(list(loader.sampler))
            assert orders[0] == orders[1] and len(orders[0]) > 1
        assert type(loaders[0].sampler).__name__ == type(loaders[1].sampler).__name__


def test_a_sampler_of_repeats_serves_any_data_loader():
    for epoch in range(2):
        orders = []
        for module in (face.data.distributed_sampler, timm.data.distributed_sampler):
            sampler = module.RepeatAugSampler(range(40), num_replicas=2, rank=1, num_repeats=3)
            sampler.set_epoch(epoch)
            orders.append(torch.cat(list(DataLoader(range(40), 5, sampler=sampler))).tolist())
        assert orders[0] == orders[1]


def test_workers_that_live_on(folder):
    found, loader = batches(face.data, folder, is_training=True, use_multi_epochs_loader=True, num_workers=1)
    assert type(loader.loader) is face.data.loader.MultiEpochsDataLoader and loader.loader.persistent_workers
    assert len(found) == len(loader) == len(list(loader)) == 3


def test_seeds_of_workers_can_be_chosen(folder):
    options = {"is_training": True, "num_workers": 1, "worker_seeding": seed_of_all, "interpolation": "lanczos"}
    results = [batches(face.data, folder, seed=3, **options)[0] for _ in range(2)]
    assert_close(*results)
    assert_close(results[0], batches(timm.data, folder, seed=3, **options)[0])


def seed_of_all(info):
    return 5


def test_a_stream_is_shared_by_ranks_and_workers(monkeypatch, tmp_path):
    import io
    import tarfile

    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        for number in range(11):
            buffer = io.BytesIO()
            photograph(40, 40, number).save(buffer, "PNG")
            for name, content in ((f"{number:03}.png", buffer.getvalue()), (f"{number:03}.cls", str(number).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    seen = []
    for rank in range(2):
        for name, value in (("is_initialized", True), ("get_world_size", 2), ("get_rank", rank)):
            monkeypatch.setattr(torch.distributed, name, lambda *_, value=value: value)
        dataset = face.data.IterableImageDataset(str(tmp_path), reader=Shard(tmp_path / "train-0.tar"),
                                                 num_samples=11)
        assert isinstance(dataset, IterableDataset)
        loader = face.data.create_loader(dataset, 32, 2, num_workers=2, device=CPU, distributed=True)
        labels = torch.cat([targets for _, targets in loader]).tolist()
        assert len(loader) == 3 and len(labels) == (6 if rank == 0 else 5)
        seen += labels
    assert sorted(seen) == list(range(11))


class Shard(face.data.IterableImageDataset.__init__.__globals__["StreamReader"]):
    """A tar of shards as a stream."""

    def __init__(self, path):
        from mvlib.data.readers.wds import create_wds_reader

        self._reader = create_wds_reader("", str(path.parent), "train")
        self.num_samples, self.name = len(self._reader), "shard"

    def stream(self, seed):
        from mvlib.data.readers import Sample

        for number in range(len(self._reader)):
            yield Sample(str(number), *self._reader[number])


def test_unknown_arguments_are_errors(folder):
    dataset = face.data.create_dataset("", str(folder), split="train")
    with pytest.raises(TypeError, match="seed"):
        face.data.create_loader(dataset, 32, 4, seed=1)
    with pytest.raises(ValueError, match="worker_seeding 'none' is none of"):
        face.data.create_loader(dataset, 32, 4, worker_seeding="none", device=CPU)
    with pytest.raises(ValueError, match="num_aug_repeats=3 needs is_training=True"):
        face.data.create_loader(dataset, 32, 4, num_aug_repeats=3, device=CPU)


# ---- data sets


def test_data_sets_are_timms(folder):
    ours, theirs = (module.create_dataset("", str(folder), split="val") for module in both())
    assert isinstance(ours, face.data.ImageDataset) and isinstance(ours, torch.utils.data.Dataset)
    assert ours.reader.class_to_idx == theirs.reader.class_to_idx
    assert ours.filenames(basename=True) == theirs.filenames(basename=True)
    assert ours.filenames() == theirs.filenames()
    assert ours.filename(7, absolute=True) == theirs.filename(7, absolute=True)
    for index in (0, 9):
        assert ours[index][0].tobytes() == theirs[index][0].tobytes() and ours[index][1] == theirs[index][1]
    ours.transform, ours.target_transform = transforms.ToTensor(), lambda label: label + 10
    assert ours[9][0].shape == (3, 50, 64) and ours[9][1] == 11


def test_unreadable_images_are_passed_over(tmp_path, caplog):
    for number in range(14):
        if number in (2, 3):
            (tmp_path / f"{number:02}.png").write_bytes(b"not an image")
        else:
            photograph(seed=number).save(tmp_path / f"{number:02}.png")
    ours, theirs = (module.create_dataset("", str(tmp_path)) for module in both())
    assert ours[2][0].tobytes() == theirs[2][0].tobytes() == ours[4][0].tobytes()
    assert [record.getMessage() for record in caplog.records if record.name == "mvlib"] == [
        f"left out an unreadable sample: {tmp_path}/0{number}.png: not an image in a format that PIL reads"
        for number in (2, 3)]
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(RuntimeError, match="10 unreadable samples in a row"):
        ours[0]


def test_torchvisions_data_sets_are_torchvisions(folder):
    ours, theirs = (module.create_dataset("torch/image_folder", str(folder), split="train") for module in both())
    assert type(ours) is type(theirs) and ours.targets == theirs.targets
    assert ours[0][0].tobytes() == theirs[0][0].tobytes()


# ---- transforms


@pytest.mark.parametrize("name", ["create_transform", "create_dataset", "Mixup", "FastCollateMixup", "create_loader"])
def test_signatures_are_timms(name):
    ours, theirs = (list(inspect.signature(getattr(module, name)).parameters.values()) for module in both())
    positional = [parameter.name for parameter in ours if parameter.kind is not parameter.KEYWORD_ONLY]
    assert positional == [parameter.name for parameter in theirs]
    defaults = {parameter.name: parameter.default for parameter in ours}
    differing = {"device", "img_dtype", "num_aug_repeats"} if name == "create_loader" else set()
    for parameter in theirs:
        assert parameter.name in differing or defaults[parameter.name] == parameter.default


@pytest.mark.parametrize("options", [
    {}, {"color_jitter": None, "interpolation": "bicubic"}, {"auto_augment": "rand-m9-mstd0.5-inc1"},
    {"auto_augment": "augmix-m5-w4-d2"}, {"auto_augment": "3a", "interpolation": "random"},
    {"train_crop_mode": "rkrr"}, {"train_crop_mode": "rkrc", "interpolation": "bicubic"}], ids=str)
def test_pixels_in_training_are_timms(options):
    """A policy can make a hundred levels of one, which is why not even one is allowed."""
    for seed in range(6):
        found = []
        for module in both():
            transform = module.create_transform(48, is_training=True, use_prefetcher=True, **options)
            with seeded(seed):
                found.append(torch.as_tensor(transform(photograph(90, 70, seed))))
        assert torch.equal(*found)
    soon = face.data.create_transform(48, is_training=True, exact=False)
    assert soon.transforms[0].as_tensor
    assert not mvlib.data.create_transform(48, True, exact=True).transforms[0].as_tensor


@pytest.mark.parametrize("mode", ["batch", "elem", "pair"])
def test_batches_of_an_odd_size_are_not_mixed(mode):
    for module in both():
        mixup = module.Mixup(mode=mode, num_classes=3)
        mixed, soft = mixup(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 1]))
        assert mixed.shape == (4, 3, 8, 8) and soft.shape == (4, 3)
        with pytest.raises(AssertionError, match="Batch size should be even when using this"):
            mixup(torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2]))
        samples = [(np.zeros((3, 8, 8), np.uint8), 1)] * 3
        with pytest.raises(AssertionError, match="Batch size should be even when using this"):
            module.FastCollateMixup(mode=mode, num_classes=3)(samples)
        assert issubclass(module.FastCollateMixup, module.Mixup)


def test_the_first_step_is_the_crop():
    transform = face.data.create_transform(32, is_training=True, color_jitter=0.3, auto_augment="rand-m9-mstd0.5-inc1")
    assert isinstance(transform.transforms[0], face.data.RandomResizedCropAndInterpolation)
    assert isinstance(transform, transforms.Compose)
    transform.transforms[0] = transforms.RandomCrop(32, padding=4)
    assert transform(photograph(32, 32)).shape == (3, 32, 32)
    evaluation = face.data.create_transform(32)
    normalize = evaluation.transforms[-1]
    assert isinstance(normalize, transforms.Normalize) and isinstance(evaluation.transforms[0], transforms.Resize)
    assert torch.equal(normalize.mean, torch.tensor(face.data.IMAGENET_DEFAULT_MEAN))
    assert len(face.data.create_transform(32, True, separate=True)) == 3


CALLS = {
    "RandomResizedCropAndInterpolation": [((32,), {}), (((24, 40), (0.3, 0.9), (0.5, 2.0), "random"), {})],
    "ResizeKeepRatio": [((32,), {}), (((24, 40), 1.0, "bicubic"), {}),
                        ((32, 0.5, "random", 0.5, (0.8, 1.2), True, 0.5), {}), ((32,), {"random_scale_prob": 0.9})],
    "CenterCropOrPad": [((40,), {}), (((30, 90), 7), {}), (((70, 80),), {"padding_mode": "reflect"})],
    "RandomCropOrPad": [((40,), {}), (((70, 30), (1, 2, 3)), {}), ((75,), {"padding_mode": "reflect"})],
    "RandomPad": [(((80, 60),), {}), (((64, 90), 5), {})],
    "TrimBorder": [((3,), {})],
    "ToNumpy": [((), {})], "ToTensor": [((), {}), ((torch.float16,), {})],
    "MaybeToTensor": [((), {})], "MaybePILToTensor": [((), {})],
}


def same(one, other) -> bool:
    if isinstance(one, Image.Image):
        return isinstance(other, Image.Image) and one.size == other.size and one.tobytes() == other.tobytes()
    return type(one) is type(other) and one.dtype == other.dtype and bool((one == other).all())


@pytest.mark.parametrize("name", CALLS)
def test_each_transform_is_timms(name):
    images = [photograph(), photograph(31, 90, 1), photograph().convert("L")]
    for args, kwargs in CALLS[name]:
        ours, theirs = (getattr(module.transforms, name)(*args, **kwargs) for module in both())
        if name not in ("ToNumpy", "ToTensor", "TrimBorder"):
            assert repr(ours) == repr(theirs) or "object at" in repr(theirs)
        for seed in range(6):
            for image in images[:2 if "1, 2, 3" in str(args) else 3]:
                results = []
                for transform in (ours, theirs):
                    random.seed(seed)
                    results.append(transform(image))
                assert same(*results), (args, kwargs, seed, image.size)
    tensor = torch.ones(3, 4, 4, dtype=torch.uint8)
    if name.startswith("Maybe"):
        assert ours(tensor) is tensor


@pytest.mark.parametrize("box", [(5, 6, 20, 30), (-4, 3, 30, 20), (40, 50, 40, 40), (-70, 0, 20, 10), (0, 80, 10, 10)])
def test_boxes_that_reach_beyond_an_image_are_timms(box):
    image = photograph()
    for options in ({}, {"fill": 9}, {"padding_mode": "edge"}):
        ours, theirs = (module.transforms.crop_or_pad(image, *box, **options) for module in both())
        assert same(ours, theirs)


def test_interpolations_have_timms_names():
    for name in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"):
        for convert in ("str_to_interp_mode", "str_to_pil_interp"):
            assert getattr(face.data, convert)(name) == getattr(timm.data, convert)(name)
        assert face.data.interp_mode_to_str(face.data.str_to_interp_mode(name)) == name
    with pytest.raises(KeyError):
        face.data.str_to_interp_mode("cubic")


@pytest.mark.parametrize(("name", "options"), [
    ("transforms_imagenet_train", {}),
    ("transforms_imagenet_train", {"auto_augment": "rand-m9", "re_prob": 0.4, "force_color_jitter": True,
                                   "img_size": (40, 32)}),
    ("transforms_imagenet_train", {"train_crop_mode": "rkrr", "use_prefetcher": True}),
    ("transforms_imagenet_eval", {"crop_mode": "border", "img_size": 64}), ("transforms_imagenet_eval", {}),
    ("transforms_noaug_train", {"img_size": 64, "normalize": False}), ("transforms_noaug_train", {}),
])
def test_the_parts_of_create_transform_are_timms(name, options):
    ours, theirs = (getattr(module.transforms_factory, name)(**options) for module in both())
    assert list(map(repr, ours.transforms)) == list(map(repr, theirs.transforms))
    parameters = [set(inspect.signature(getattr(module.transforms_factory, name)).parameters) for module in both()]
    assert parameters[0] - {"naflex"} <= parameters[1]


# ---- policies


@pytest.mark.parametrize("name", sorted(timm.data.auto_augment.NAME_TO_OP))
def test_operations_of_policies_are_timms(name):
    image = photograph()
    hparams = {"translate_const": 30, "translate_pct": 0.3, "img_mean": (124, 116, 104)}
    assert face.data.auto_augment.NAME_TO_OP.keys() == timm.data.auto_augment.NAME_TO_OP.keys()
    for seed in range(4):
        results = []
        for module in (face.data.auto_augment, timm.data.auto_augment):
            random.seed(seed)
            draw, function = module.LEVEL_TO_ARG[name], module.NAME_TO_OP[name]
            arguments = draw(7, hparams) if draw is not None else ()
            assert getattr(module, function.__name__) is function
            results.append((arguments, function(image, *arguments, fillcolor=(1, 2, 3)),
                            function(image, *arguments, resample=(2, 3))))
        assert results[0][0] == pytest.approx(results[1][0])
        assert same(results[0][1], results[1][1]) and same(results[0][2], results[1][2])


@pytest.mark.parametrize("config", ["rand-m6-mstd0.5-inc1", "original-mstd0.5", "augmix-m5-w4-d2", "3a"])
def test_policies_by_their_strings_are_timms(config):
    make = {"rand": "rand_augment_transform", "augm": "augment_and_mix_transform"}.get(config[:4],
                                                                                      "auto_augment_transform")
    hparams = {"translate_const": 30, "img_mean": (124, 116, 104)}
    ours, theirs = (getattr(module.auto_augment, make)(config, dict(hparams)) for module in both())
    assert repr(ours) == repr(theirs)
    for seed in range(10):
        results = []
        for policy in (ours, theirs):
            with seeded(seed):
                results.append(policy(photograph()))
        assert same(*results), seed


@pytest.mark.parametrize("name", ["v0", "v0r", "original", "originalr", "3a"])
def test_policies_by_functions_are_timms(name):
    ours, theirs = (getattr(module.auto_augment, f"auto_augment_policy_{name}")({"img_mean": (1, 2, 3)})
                    for module in both())
    assert list(map(str, ours)) == list(map(str, theirs))


# ---- readers


def test_folders_are_read_as_by_timm(folder):
    readers = [module.readers.reader_image_folder.ReaderImageFolder(str(folder / "train")) for module in both()]
    assert readers[0].samples == readers[1].samples and readers[0].class_to_idx == readers[1].class_to_idx
    for options in ({}, {"leaf_name_only": False}, {"class_to_idx": {"cat": 7}}, {"types": [".jpg"]}):
        found = [module.readers.reader_image_folder.find_images_and_targets(str(folder), **options)
                 for module in both()]
        assert found[0] == found[1]


@pytest.fixture
def extensions():
    functions = face.data.readers.img_extensions
    before = functions.get_img_extensions()
    yield functions
    functions.set_img_extensions(before)


def test_extensions_of_images_can_be_set(folder, extensions, tmp_path):
    assert {*timm.data.get_img_extensions()} < {*extensions.get_img_extensions()} == extensions.get_img_extensions(True)
    (tmp_path / "a").mkdir()
    for name in ("one.png", "two.heic", "three.jpg"):
        (tmp_path / "a" / name).write_bytes(b"")

    def names():
        return face.data.create_dataset("", str(tmp_path)).filenames(basename=True)

    assert names() == ["one.png", "three.jpg"]
    extensions.add_img_extensions(".heic")
    assert names() == ["one.png", "three.jpg", "two.heic"] and extensions.is_img_extension(".heic")
    assert extensions.IMG_EXTENSIONS == extensions.get_img_extensions() and ".heic" in extensions.IMG_EXTENSIONS
    extensions.del_img_extensions((".png", ".jpg"))
    assert names() == ["two.heic"]
    with pytest.raises(ValueError, match="extension 'png' of images does not begin with a dot"):
        extensions.set_img_extensions(["png"])
    with pytest.raises(ValueError, match="no extension of images is left"):
        extensions.set_img_extensions([])


class Letters(face.data.readers.reader.Reader):
    """A reader as its authors wrote it for timm."""

    def __init__(self):
        super().__init__()
        self.class_to_idx = {"a": 0}

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return photograph(seed=index), 0

    def _filename(self, index, basename=False, absolute=False):
        return f"{'/root/' if absolute else ''}{index}.png"


def test_readers_written_for_timm_serve():
    dataset = face.data.ImageDataset("", reader=Letters(), transform=face.data.create_transform(24))
    assert dataset.filenames() == ["0.png", "1.png"] and dataset.filename(1, absolute=True) == "/root/1.png"
    assert dataset[1][0].shape == (3, 24, 24) and dataset.classes == ["a"]


def test_a_number_that_processes_share():
    count = face.data.readers.shared_count.SharedCount(3)
    count.value += 4
    assert count.value == count.shared_epoch.value == 7


# ---- configs


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_efficientnet"])
def test_configs_for_the_model_as_it_is_are_timms(name):
    requests = [{}, {"img_size": 96}, {"input_size": (3, 96, 64)}, {"input_size": (3, 160, 160), "img_size": 160},
                {"in_chans": 1}, {"mean": 0.5}, {"img_size": 96, "input_size": (3, 64, 64)}, {"mean": (0.1, 0.2)},
                {"model_kwargs": {"img_size": 160}}, {"model_kwargs": {"img_size": 160}, "img_size": 224},
                {"crop_pct": 1.0, "interpolation": "bilinear"}, {"chans": 1, "in_chans": 3}]
    for channels in (3, 1):
        models = face.create_model(name, in_chans=channels), timm.create_model(name, in_chans=channels)
        for request in requests:
            for use_test_size in (False, True):
                found = []
                for module, model in zip(both(), models):
                    resolve = module.model_config.resolve_input_data_config
                    try:
                        found.append(resolve(model, request, None, use_test_size))
                    except ValueError:
                        found.append(ValueError)
                assert found[0] == found[1], (channels, request)


@pytest.mark.parametrize(("request_", "message"), [
    ({"in_chans": 1}, "1 channels are asked for, and the model takes 3"),
    ({"in_chans": 1, "chans": 3}, "different values of the number of channels are asked for: 1, 3"),
    ({"img_size": 96, "input_size": (3, 64, 64)}, "different values of the image size are asked for"),
])
def test_requests_that_contradict_a_model(request_, message):
    with pytest.raises(ValueError, match=message):
        face.data.resolve_input_data_config(face.create_model("test_vit"), request_)


def test_a_size_that_a_model_cannot_take():
    model = face.create_model("vit_tiny_patch16_224", depth=1)
    message = r"images of \(96, 96\) are asked for, and the model takes those of \(224, 224\)"
    with pytest.raises(ValueError, match=message):
        face.data.resolve_input_data_config(model, {"img_size": 96})
    assert face.data.resolve_input_data_config(model, {"img_size": 224})["input_size"] == (3, 224, 224)
