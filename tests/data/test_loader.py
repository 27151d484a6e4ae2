"""The loader: the same bits for any number of workers and from any batch on, unreadable samples, dead workers."""

import inspect
import io
import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset

from mvlib.data.collate import fast_collate
from mvlib.data.dataset import IterableImageDataset
from mvlib.data.loader import create_loader
from mvlib.data.mixup import FastCollateMixup, Mixup
from mvlib.data.random_erasing import RandomErasing
from mvlib.data.readers import Sample, StreamReader
from mvlib.data.readers.base import NamedBytes
from mvlib.data.side_stream import SideStream
from mvlib.errors import BadImageError, ConfigError, DataError

SIZE = (3, 32, 32)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores


class Photographs(Dataset):
    """`length` images of noise in five classes, some of them unreadable."""

    name = "photographs"

    def __init__(self, length=24, bad=(), fatal=None, signalled=None):
        self.length, self.bad, self.fatal, self.signalled = length, frozenset(bad), fatal, signalled
        self.transform = None

    def __len__(self):
        return self.length

    def filename(self, index):
        return f"{index}.jpg"

    def load(self, index):
        if index == self.fatal and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self.signalled:
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
        if index in self.bad:
            raise BadImageError(f"folder/{index}.jpg: file is empty")
        noise = np.random.RandomState(index).randint(0, 256, (40, 48, 3), dtype=np.uint8)
        return Image.fromarray(noise), index % 5

    def __getitem__(self, index):
        image, label = self.load(index)
        return self.transform(image), label


class Foreign(Photographs):
    """A data set that is not ours: no names, and errors of all kinds."""

    load = filename = property()

    def __init__(self, error, bad=(3,)):
        super().__init__(12, bad)
        self.error = error

    def __getitem__(self, index):
        if index in self.bad:
            raise self.error
        return self.transform(Image.new("RGB", (40, 40), (index, 0, 0))), index


class Splits(Photographs):
    """What AugMixDataset gives: a clean image and augmented ones."""

    num_splits = 3

    def __getitem__(self, index):
        image, label = self.load(index)
        base, augment, final = self.transform
        image = base(image)
        return (final(image), *(final(augment(image)) for _ in range(self.num_splits - 1))), label


AUGMENTED = {"is_training": True, "auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.8, "re_mode": "pixel",
             "vflip": 0.5, "device": "cpu"}


def training(dataset=None, mixed=True, **options):
    mixup = Mixup(0.2, 1.0, num_classes=5) if mixed else None
    dataset = options.pop("dataset", dataset)
    dataset = Photographs() if dataset is None else dataset
    return create_loader(dataset, SIZE, 4, **{"mixup": mixup, "num_workers": 0, **AUGMENTED, **options})


def evaluation(dataset=None, **options):
    return create_loader(dataset or Photographs(), SIZE, 4, **{"num_workers": 0, "device": "cpu", **options})


def epochs(loader, count=2):
    batches = []
    for epoch in range(count):
        loader.set_epoch(epoch)
        batches.append(list(loader))
    return batches


def assert_same(first, second):
    assert len(first) == len(second) > 0
    for (images, targets), (other_images, other_targets) in zip(first, second):
        assert torch.equal(images, other_images) and torch.equal(targets, other_targets)


# ---- the same bits


@pytest.fixture(scope="module")
def reference():
    return epochs(training(Photographs(bad={5, 6})))


@pytest.mark.parametrize("workers, context, persistent", [
    (1, "fork", True), (4, "fork", True), (2, "fork", False), pytest.param(1, "spawn", True, marks=pytest.mark.slow),
])
def test_batches_are_the_same_bits_for_any_number_of_workers(reference, workers, context, persistent):
    loader = training(Photographs(bad={5, 6}), num_workers=workers, multiprocessing_context=context,
                      persistent_workers=persistent)
    for expected, got in zip(reference, epochs(loader)):
        assert_same(expected, got)


def test_epochs_and_seeds_differ(reference):
    first, second = reference
    assert not torch.equal(first[0][0], second[0][0])
    loader = training(Photographs(bad={5, 6}), seed=43)
    assert not torch.equal(next(iter(loader))[0], first[0][0])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_from_any_batch_without_reading_those_before(reference, workers):
    loader = training(Photographs(bad={5, 6}), num_workers=workers)
    for start in (3, 1):
        loader.set_epoch(1, start_batch=start)
        assert_same(list(loader), reference[1][start:])
    loader.set_epoch(0)
    assert_same(list(loader), reference[0])
    assert len(loader) == 6


def test_skipped_batches_are_not_read():
    dataset = Photographs()
    read, load = [], dataset.load
    dataset.load = lambda index: read.append(index) or load(index)
    loader = training(dataset)
    loader.set_epoch(0, start_batch=5)
    assert len(list(loader)) == 1 and len(read) == 4


def test_iterating_again_is_the_next_epoch(reference):
    loader = training(Photographs(bad={5, 6}))
    assert_same(list(loader), reference[0])
    assert_same(list(loader), reference[1])


def test_leaving_an_epoch_early_does_not_reach_into_the_next(reference):
    loader = training(Photographs(bad={5, 6}), num_workers=2)
    next(iter(loader))
    loader.set_epoch(1)
    assert_same(list(loader), reference[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generators_are_left_alone(workers):
    loader = training(num_workers=workers)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    epochs(loader)
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


def test_a_sample_is_augmented_alike_in_whichever_batch_it_stands():
    def samples(batch_size):
        loader = create_loader(Photographs(), SIZE, batch_size, num_workers=0, **AUGMENTED)
        return torch.cat([images for images, _ in loader])

    assert torch.equal(samples(4), samples(12))


def test_two_ranks_together_read_what_one_process_reads():
    alone = list(create_loader(Photographs(), SIZE, 8, num_workers=0, **AUGMENTED))
    ranks = [list(training(mixed=False, distributed=True, rank=rank, world_size=2)) for rank in range(2)]
    for (images, labels), *parts in zip(alone, *ranks):
        assert torch.equal(images[0::2], parts[0][0]) and torch.equal(images[1::2], parts[1][0])
        assert torch.equal(labels[0::2], parts[0][1]) and torch.equal(labels[1::2], parts[1][1])


def test_every_sample_is_evaluated_once_by_one_rank():
    loaders = [evaluation(Photographs(22), distributed=True, rank=rank, world_size=3) for rank in range(3)]
    counts = [sum(len(labels) for _, labels in loader) for loader in loaders]
    assert counts == [8, 7, 7] and [len(loader) for loader in loaders] == [2, 2, 2]


def test_copies_of_repeated_augmentation_differ():
    loader = training(mixed=False, num_aug_repeats=3)
    images = torch.cat([images for images, _ in loader])
    assert len(images) == 24 and len(set(loader.sampler)) == 8
    assert not torch.equal(images[0], images[1])


# ---- what a batch is


def test_evaluation_batches_are_timms():
    import timm.data  # not above: a worker that is spawned would import it too

    own = list(evaluation(Photographs(10), num_workers=1))
    peer = list(timm.data.create_loader(Photographs(10), SIZE, 4, num_workers=0, device=torch.device("cpu"),
                                        persistent_workers=False))
    assert [len(labels) for _, labels in own] == [4, 4, 2]
    assert_same(own, peer)
    assert own[0][0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("options, dtype", [
    ({"img_dtype": torch.bfloat16}, torch.bfloat16), ({"fp16": True}, torch.float16), ({}, torch.float32),
])
def test_dtype_of_the_images(options, dtype):
    images, labels = next(iter(evaluation(**options)))
    exact = next(iter(evaluation()))[0]
    assert images.dtype == dtype and labels.dtype == torch.int64
    assert torch.equal(images, exact.to(dtype))


def test_without_prefetcher_the_transform_normalises():
    plain = next(iter(evaluation(use_prefetcher=False)))
    torch.testing.assert_close(plain[0], next(iter(evaluation()))[0])


def test_one_mean_for_three_channels_is_said(caplog):
    with caplog.at_level(logging.WARNING, "mvlib"):
        loader = create_loader(Gray(8), (1, 32, 32), 4, num_workers=0, device="cpu")
    assert "mean or std of 3 channels, images have 1: all take the average 0.4490" in caplog.text
    assert next(iter(loader))[0].shape == (4, 1, 32, 32)


class Gray(Photographs):
    def load(self, index):
        image, label = super().load(index)
        return image.convert("L"), label


def test_erasing_is_of_normalised_images_and_belongs_to_the_sample():
    plain = list(training(mixed=False, re_prob=0))
    erased = list(training(mixed=False, re_prob=1, re_mode="const"))
    changed = [(images != other).any(1) for (images, _), (other, _) in zip(plain, erased)]
    for (images, _), mask in zip(erased, changed):
        assert mask.flatten(1).any(1).all()
        assert (images.permute(0, 2, 3, 1)[mask] == 0).all()  # 0 is the mean colour, after normalisation


def test_resplit_spares_the_first_half():
    plain = list(training(mixed=False, re_prob=0))
    erased = list(training(mixed=False, re_prob=1, re_split=True))
    for (images, _), (other, _) in zip(plain, erased):
        same = (images == other).flatten(1).all(1)
        assert same.tolist() == [True, True, False, False]


def test_augmentation_splits_are_laid_out_as_timms():
    loader = training(Splits(), mixed=False, num_aug_splits=3, re_prob=1, re_split=True)
    plain = next(iter(training(mixed=False, auto_augment=None, re_prob=0, color_jitter=0)))
    images, labels = next(iter(loader))
    assert images.shape[0] == 12 and loader.batch_size == 4
    assert torch.equal(labels, plain[1].repeat(3))
    assert torch.equal(images[:4], plain[0])  # neither augmented nor erased
    assert not torch.equal(images[4:8], images[8:])


def test_collate_is_timms():
    import timm.data.loader

    samples = [(torch.randint(256, (3, 5, 6), dtype=torch.uint8), label) for label in range(4)]
    splits = [(tuple(torch.randint(256, (3, 5, 6), dtype=torch.uint8) for _ in range(3)), label) for label in range(4)]
    arrays = [(image.numpy(), np.int32(label)) for image, label in samples]
    dense = [(image, torch.tensor([0, label])) for image, label in samples]
    for batch in (samples, splits, arrays, dense):
        for got, expected in zip(fast_collate(batch), timm.data.loader.fast_collate(batch)):
            assert torch.equal(got, expected) and got.dtype == expected.dtype


def test_a_sample_without_target_is_minus_one():
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    assert fast_collate([(image, None), (image, 4)])[1].tolist() == [-1, 4]


def test_collate_refuses_what_is_not_bytes_or_differs_in_size():
    with pytest.raises(ConfigError, match=r"got torch.float32 of shape \(3, 2, 2\); use_prefetcher=False"):
        fast_collate([(torch.zeros(3, 2, 2), 0)])
    with pytest.raises(ConfigError, match="got str"):
        fast_collate([("image", 0)])
    sizes = [(torch.zeros(3, 2, width, dtype=torch.uint8), 0) for width in (2, 1)]
    with pytest.raises(ConfigError, match=r"differ in shape: \(3, 2, 2\) and \(3, 2, 1\)"):
        fast_collate(sizes)


def test_an_own_collate_function_is_called_in_the_workers():
    loader = evaluation(collate_fn=without_labels, num_workers=1)
    images, ids = next(iter(loader))
    assert ids.tolist() == [0, 1, 2, 3] and images.dtype == torch.float32


def without_labels(samples):
    return torch.stack([image for image, _ in samples]), torch.arange(len(samples))


def test_mixup_can_be_switched_off():
    loader = training()
    assert loader.mixup_enabled
    loader.mixup_enabled = False
    plain = training(mixed=False)
    for (images, targets), (other, labels) in zip(loader, plain):
        assert torch.equal(images, other) and torch.equal(targets.argmax(1), labels)
    plain.mixup_enabled = True
    assert not plain.mixup_enabled


def test_mixup_as_timms_users_pass_it_mixes_before_erasing():
    mixup = FastCollateMixup(0.0, 1.0, num_classes=5)
    loader = training(mixed=False, collate_fn=mixup, re_prob=1, re_mode="const")
    plain = training(mixed=False, re_prob=0)
    late = training(mixup=Mixup(0.0, 1.0, num_classes=5), re_prob=0)
    assert loader.mixup is mixup and loader.mixup_enabled
    mixed = next(iter(late))[0]
    images, targets = next(iter(loader))
    kept = images != 0
    assert targets.shape == (4, 5) and not torch.equal(mixed, next(iter(plain))[0])
    assert torch.equal(images[kept], mixed[kept])


def test_subset_gets_the_transform():
    images, labels = next(iter(evaluation(Subset(Photographs(), [7, 3, 1, 2]))))
    assert labels.tolist() == [2, 3, 1, 2] and images.shape == (4, *SIZE)


def test_scheduled_sizes_of_images_and_batches():
    options = {"input_size_choices": [16, (24, 32), (3, 32, 32)], "batch_size_choices": [8, 4, 2]}
    batches = epochs(training(mixed=False, **options))
    shapes = {tuple(images.shape) for images, _ in batches[0]}
    assert shapes == {(8, 3, 16, 16), (4, 3, 24, 32), (2, 3, 32, 32)}
    for expected, got in zip(batches, epochs(training(mixed=False, num_workers=2, **options))):
        assert_same(expected, got)


# ---- streams


class Noise(StreamReader):
    """A stream of 26 files, some of them unreadable, in an order that the seed decides."""

    name, num_samples = "noise", 26

    def __init__(self, bad=()):
        self.bad = frozenset(bad)

    def stream(self, seed):
        order = list(range(self.num_samples))
        if seed is not None:
            random.Random(seed).shuffle(order)
        for index in order:
            file = io.BytesIO()
            noise = np.random.RandomState(index).randint(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(noise).save(file, "PNG")
            name = f"{index}.png"
            yield Sample(name, NamedBytes(b"" if index in self.bad else file.getvalue(), name), index % 5)


def stream(is_training, bad=()):
    return IterableImageDataset(reader=Noise(bad), is_training=is_training)


@pytest.mark.parametrize("workers", [1, 3, 4])
def test_batches_of_a_stream_are_the_same_bits_for_any_number_of_workers(workers):
    expected = epochs(training(stream(True, bad={3, 4})))
    loader = training(stream(True, bad={3, 4}), num_workers=workers)
    assert [len(batches) for batches in expected] == [len(loader)] * 2 == [6, 6]
    for own, batches in zip(expected, epochs(loader)):
        assert_same(own, batches)
    assert not torch.equal(expected[0][0][0], expected[1][0][0])
    for start in (1, 4, 5):
        loader.set_epoch(1, start_batch=start)
        assert_same(list(loader), expected[1][start:])
    assert_same(list(training(stream(True, bad={3, 4}))), expected[0])


@pytest.mark.parametrize("workers", [0, 3])
def test_a_stream_is_evaluated_once_in_order(workers):
    loader = evaluation(stream(False, bad={0, 1, 2, 3, 9}), num_workers=workers)
    for _ in range(2):
        labels = [labels.tolist() for _, labels in loader]
        assert labels == [[4, 0, 1, 2], [3, 0, 1], [2, 3, 4, 0], [1, 2, 3, 4], [0, 1, 2, 3], [4, 0]]
        assert [name for name, _ in loader.bad_samples] == ["0.png", "1.png", "2.png", "3.png", "9.png"]
    assert len(loader) == 7


def test_ranks_share_a_stream():
    loaders = [evaluation(stream(False), distributed=True, rank=rank, world_size=3) for rank in range(3)]
    assert [sum(len(labels) for _, labels in loader) for loader in loaders] == [9, 9, 8]
    assert [len(loader) for loader in loaders] == [3, 3, 2]
    ranks = [list(training(stream(True), mixed=False, distributed=True, rank=rank, world_size=2)) for rank in (0, 1)]
    alone = list(create_loader(stream(True), SIZE, 8, num_workers=0, **AUGMENTED))
    assert len(alone) == len(ranks[0]) == len(ranks[1]) == 3
    for (images, _), *parts in zip(alone, *ranks):
        assert torch.equal(images[0::2], parts[0][0]) and torch.equal(images[1::2], parts[1][0])


def test_too_many_unreadable_samples_of_a_stream_stop_the_run():
    for is_training in (True, False):
        make = training if is_training else evaluation
        with pytest.raises(DataError, match=r"9 unreadable samples in a row, the last: .*\.png: file is empty"):
            list(make(stream(is_training, bad=range(26)), max_bad=8, num_workers=1))


def test_a_stream_too_short_for_a_batch_is_an_error_in_training():
    short = create_loader(stream(True), SIZE, 27, num_workers=1, **AUGMENTED)
    with pytest.raises(DataError, match="the data set noise has no 27 samples for one batch"):
        list(short)


def test_what_a_stream_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="num_aug_repeats=3 needs a data set whose samples have numbers"):
        training(stream(True), num_aug_repeats=3)

    class Plain(IterableDataset):
        __iter__ = None

    with pytest.raises(ConfigError, match="Plain has no method iterate"):
        training(Plain())


# ---- unreadable samples


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_unreadable_samples_are_left_out_of_evaluation(caplog, workers):
    loader = evaluation(Photographs(20, bad={1, 4, 5, 6, 7, 19}), num_workers=workers)
    for _ in range(2):
        batches = list(loader)
        assert [labels.tolist() for _, labels in batches] == [[0, 2, 3], [3, 4, 0, 1], [2, 3, 4, 0], [1, 2, 3]]
        assert loader.bad_samples == sorted((f"{index}.jpg", "file is empty") for index in (1, 4, 5, 6, 7, 19))
    warnings = [record.getMessage() for record in caplog.records if "unreadable" in record.getMessage()]
    assert warnings == [f"left out an unreadable sample: {index}.jpg: file is empty" for index in (1, 4, 5, 6, 7, 19)]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_unreadable_samples_are_replaced_in_training(caplog, workers):
    loader = training(Photographs(bad={3, 4, 23}), mixed=False, num_workers=workers)
    for epoch in range(2):
        loader.set_epoch(epoch)
        order = list(loader.sampler)
        expected = [{3: 5, 4: 5, 23: 0}.get(index, index) % 5 for index in order]
        assert torch.cat([labels for _, labels in loader]).tolist() == expected
        assert [name for name, _ in loader.bad_samples] == ["23.jpg", "3.jpg", "4.jpg"]
    assert sum("unreadable" in record.getMessage() for record in caplog.records) == 3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("is_training", [True, False])
def test_too_many_unreadable_samples_in_a_row_stop_the_run(workers, is_training):
    options = {"num_workers": workers, "max_bad": 5}
    make = training if is_training else evaluation
    assert len(list(make(Photographs(bad=range(8, 13)), **options))) > 0
    loader = make(Photographs(bad=range(8, 14)), **options)
    with pytest.raises(DataError, match=r"^6 unreadable samples in a row, the last: 13.jpg: file is empty$"):
        for _ in range(20):  # an epoch whose order reaches the first of the six
            list(loader)


def test_the_default_bound_is_fifty():
    with pytest.raises(DataError, match="^51 unreadable samples in a row, the last: 50.jpg: file is empty$"):
        list(evaluation(Photographs(80, bad=range(80))))


@pytest.mark.parametrize("make", [training, evaluation])
def test_a_small_data_set_without_a_readable_sample(make):
    with pytest.raises(DataError, match="none of 8 samples can be read, the last: [0-7].jpg: file is empty"):
        list(make(Photographs(8, bad=range(8))))


@pytest.mark.parametrize("error, reason", [
    (OSError("broken data stream"), "broken data stream"), (SyntaxError("not a TIFF"), "not a TIFF"),
    (ValueError(), "ValueError"), (BadImageError("x.png: file is empty"), "x.png: file is empty"),
])
def test_errors_of_foreign_decoders_are_unreadable_samples(error, reason):
    loader = evaluation(Foreign(error), num_workers=1)
    assert sum(len(labels) for _, labels in loader) == 11
    assert loader.bad_samples == [("sample 3", reason)]


@pytest.mark.parametrize("error", [ConfigError("no such option"), DataError("tar is cut off"), KeyError("x")])
def test_other_errors_stop_the_run(error):
    with pytest.raises(type(error), match=error.args[0]):
        list(evaluation(Foreign(error)))


def test_a_mistake_in_a_transform_is_not_an_unreadable_sample():
    loader = evaluation()
    loader.dataset.transform = int
    with pytest.raises(TypeError):
        list(loader)

    def wrong(image):
        raise ValueError("my mistake")

    loader.dataset.transform = wrong
    with pytest.raises(ValueError, match="my mistake"):
        list(loader)


@pytest.mark.parametrize("persistent", [True, False])
def test_a_killed_worker_is_reported_with_what_may_help(persistent):
    loader = evaluation(Photographs(fatal=13), num_workers=2, persistent_workers=persistent)
    with pytest.raises(DataError, match=r"a worker that reads the data died: .*--workers.*/dev/shm"):
        list(loader)


@pytest.mark.parametrize("start", ["fork", *(pytest.param(how, marks=pytest.mark.slow)
                                             for how in ("spawn", "forkserver"))])
def test_workers_leave_signals_to_the_main_process(start):
    """What a terminal or timeout sends to the group does not end them; what the main process asks does."""
    loader = evaluation(Photographs(signalled=13), num_workers=2, multiprocessing_context=start)
    assert len(list(loader)) == 6
    for worker in loader._batches._iterator._workers:
        worker.terminate()
        worker.join(10)
        assert worker.exitcode == 0
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGTERM, signal.SIGINT}


@pytest.mark.slow
def test_workers_do_not_outlive_the_main_process(tmp_path):
    """Not even one that is at work when that is killed."""
    script = f"""
import sys, time, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_loader import Photographs, evaluation

class Slow(Photographs):
    def load(self, index):
        if index == 8:
            print("begun", flush=True)
            time.sleep(300)
        return super().load(index)

list(evaluation(Slow(), num_workers=2))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    process.kill()
    assert process.communicate(timeout=60) == (b"", None)  # the pipe's end: nobody holds it



# ---- arguments


def test_arguments_have_timms_names_order_and_defaults():
    import timm.data

    peer = inspect.signature(timm.data.create_loader).parameters
    own = list(inspect.signature(create_loader).parameters.values())[:len(peer)]
    assert [parameter.name for parameter in own] == list(peer)
    other = {parameter.name for parameter in own if parameter.default != peer[parameter.name].default}
    assert other == {"pin_memory", "img_dtype", "device"}  # None: what the machine has


@pytest.mark.parametrize("options, error, message", [
    ({"dataset": Photographs(0)}, DataError, "the data set photographs is empty"),
    ({"dataset": Photographs(3)}, ConfigError, "batch_size 4 is larger than the 3 samples of an epoch"),
    ({"num_aug_splits": 3}, ConfigError, r"num_aug_splits=3 needs AugMixDataset\(dataset, num_splits=3\)"),
    ({"num_aug_repeats": 3, "is_training": False}, ConfigError, "num_aug_repeats=3 needs is_training=True"),
    ({"input_size_choices": [32], "is_training": False}, ConfigError, r"input_size_choices=\[32\] needs is_training"),
    ({"input_size_choices": [32, (1, 8, 8)]}, ConfigError, r"\(1, 8, 8\) is not the size of an image of 3 channels"),
    ({"input_size_choices": [32, 8], "batch_size_choices": [1]}, ConfigError, "1 batch_size_choices for 2 input_size"),
    ({"worker_seeding": "some"}, ConfigError, "worker_seeding 'some' is none of"),
    ({"collate_fn": Mixup()}, ConfigError, "collate_fn and mixup are two Mixups"),
    ({"distributed": True, "rank": 2, "world_size": 2}, ConfigError, "rank 2 is none of 2 processes"),
])
def test_bad_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        training(**options)


def test_erasing_is_passed_on():
    loader = training(re_count=3, re_split=True)
    erasing = loader._reader.erasing
    assert isinstance(erasing, RandomErasing)
    assert (erasing.probability, erasing.max_count, erasing.num_splits) == (0.8, 3, 2)
    assert training(no_aug=True)._reader.erasing is None


def test_beside_the_consumer_each_batch_is_made_ready_before_the_last_is_given():
    """The order alone, which no GPU is needed for."""
    notes = []

    class Noted(SideStream):
        def _run(self, prepare, item):
            notes.append(f"ready {item}")
            return item, prepare(item), None

        def _hand_over(self, batch, ready):
            return batch

    side = Noted(torch.device("cpu"))
    assert not side.is_active and list(side.ahead("ab", str.upper)) == [("a", "A"), ("b", "B")] and not notes
    side._stream = object()
    for item, batch in side.ahead(iter("abc"), str.upper):
        notes.append(f"given {item}{batch}")
    assert notes == ["ready a", "ready b", "given aA", "ready c", "given bB", "given cC"]
    assert list(side.ahead("", str.upper)) == [] and list(side.ahead("x", str.upper)) == [("x", "X")]
