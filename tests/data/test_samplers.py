"""Samplers: what is read, once or copied, alone and in a distributed run."""

import pytest
import torch
from timm.data.distributed_sampler import OrderedDistributedSampler as TimmOrderedSampler
from timm.data.distributed_sampler import RepeatAugSampler as TimmRepeatAugSampler
from timm.data.scheduled_sampler import ScheduledBatchSampler as TimmScheduledSampler

from mvlib.data.samplers import (
    BatchKeys,
    OrderedDistributedSampler,
    OrderedSampler,
    RepeatAugSampler,
    ScheduledBatchKeys,
    ScheduledBatchSampler,
    ScheduledTransformDataset,
    ShuffledSampler,
    process_place,
)
from mvlib.errors import ConfigError, DataError


def indices(sampler, epoch=0):
    sampler.set_epoch(epoch)
    assert [index for _, index, _ in sampler.keys()] == list(sampler)
    return list(sampler)


def test_shuffled_reads_every_sample_once_in_another_order_each_epoch():
    sampler = ShuffledSampler(range(50), seed=1)
    first, second = indices(sampler, 0), indices(sampler, 1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second != list(range(50))
    assert indices(sampler, 0) == first
    assert indices(ShuffledSampler(range(50), seed=2)) != first


def test_keys_name_epoch_index_and_copy():
    sampler = ShuffledSampler(range(3))
    sampler.set_epoch(7)
    assert sorted(sampler.keys()) == [(7, 0, 0), (7, 1, 0), (7, 2, 0)]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_shuffled_ranks_together_read_the_one_order(world):
    alone = indices(ShuffledSampler(range(24)))
    ranks = [indices(ShuffledSampler(range(24), world, rank)) for rank in range(world)]
    assert [index for step in zip(*ranks) for index in step] == alone


def test_batches_of_two_ranks_interleave_to_those_of_one_process():
    alone = BatchKeys(ShuffledSampler(range(40)), 8, drop_last=True)
    ranks = [BatchKeys(ShuffledSampler(range(40), 2, rank), 4, drop_last=True) for rank in range(2)]
    assert len(alone) == len(ranks[0]) == 5
    for joint, *parts in zip(alone, *ranks):
        assert [key for pair in zip(*parts) for key in pair] == joint


def test_shuffled_wraps_around_so_that_ranks_are_equally_long():
    keys = [ShuffledSampler(range(10), 4, rank).keys() for rank in range(4)]
    assert [len(rank) for rank in keys] == [3] * 4
    joint = [key for rank in keys for key in rank]
    assert len(set(joint)) == 12  # the two that are read again are augmented anew
    assert sorted({index for _, index, _ in joint}) == list(range(10))
    order = indices(ShuffledSampler(range(10)))
    assert sorted(key[1:] for key in joint if key[2]) == sorted((index, 1) for index in order[:2])


@pytest.mark.parametrize("length, world", [(10, 1), (10, 4), (3, 5), (8, 2)])
def test_evaluation_reads_every_sample_exactly_once(length, world):
    samplers = [OrderedSampler(range(length), world, rank) for rank in range(world)]
    assert sorted(index for sampler in samplers for index in indices(sampler)) == list(range(length))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]


@pytest.mark.parametrize("length, world", [(10, 1), (10, 4), (3, 5), (8, 2)])
def test_evaluation_of_equal_shares_is_timms(length, world):
    for rank in range(world):
        own, peer = (kind(range(length), world, rank) for kind in (OrderedDistributedSampler, TimmOrderedSampler))
        assert list(own) == list(peer) and len(own) == len(peer) == own.num_samples == peer.num_samples
        assert (own.num_valid_samples, own.total_size) == (peer.num_valid_samples, peer.total_size)


@pytest.mark.parametrize("arguments", [
    {}, {"num_repeats": 2.5}, {"selected_round": 0}, {"selected_ratio": 1}, {"num_repeats": 1, "selected_ratio": 1},
    {"selected_round": 32, "num_repeats": 4}, {"selected_ratio": 0.5},
])
@pytest.mark.parametrize("length, world", [(300, 3), (70, 2), (5, 4), (1000, 1)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_repeated_augmentation_reads_what_timm_reads(arguments, length, world, shuffle):
    for rank in range(world):
        own = RepeatAugSampler(range(length), world, rank, shuffle, **arguments)
        peer = TimmRepeatAugSampler(range(length), world, rank, shuffle, **arguments)
        peer.set_epoch(5)
        assert indices(own, 5) == list(peer)
        assert len(own) == len(peer)


def test_repeated_augmentation_reads_what_torchvision_selects():
    # its sampler: every index three times in a row, floor(n // 256 * 256 / ranks) of them, strided over the ranks
    samplers = [RepeatAugSampler(range(600), 2, rank, seed=42) for rank in range(2)]
    assert [len(sampler) for sampler in samplers] == [256, 256]
    joint = [index for step in zip(*samplers) for index in step]
    shuffled = indices(ShuffledSampler(range(600)))
    assert joint == [index for index in shuffled for _ in range(3)][:512]


@pytest.mark.parametrize("num_repeats", [3, 1.5, 2.2])
def test_copies_of_a_sample_differ(num_repeats):
    samplers = [RepeatAugSampler(range(50), 4, rank, num_repeats=num_repeats, selected_ratio=1) for rank in range(4)]
    keys = [key for sampler in samplers for key in sampler.keys()]
    assert len(keys) > 50 and len(set(keys)) == len(keys)


def test_batches_from_the_kth_on_are_those_of_the_whole_epoch():
    sampler = ShuffledSampler(range(23))
    batches = BatchKeys(sampler, 4, drop_last=False)
    whole = list(batches)
    assert len(batches) == len(whole) == 6 and len(whole[-1]) == 3
    sampler.set_epoch(0, start_batch=4)
    assert list(batches) == whole[4:]
    assert len(batches) == 6
    sampler.set_epoch(0, start_batch=6)
    assert list(batches) == []


def test_incomplete_batch_is_dropped():
    batches = BatchKeys(ShuffledSampler(range(23)), 4, drop_last=True)
    assert len(batches) == 5 and [len(keys) for keys in batches] == [4] * 5


def test_an_epoch_that_is_iterated_again_is_the_next_one_in_training_alone():
    training, evaluation = ShuffledSampler(range(9)), OrderedSampler(range(9))
    training.set_epoch(4, start_batch=2)
    assert [training.begin() for _ in range(3)] == [(4, 2), (5, 0), (6, 0)]
    evaluation.set_epoch(4, start_batch=2)
    assert [evaluation.begin() for _ in range(3)] == [(4, 2), (4, 0), (4, 0)]
    training.set_epoch(6)
    assert training.begin() == (6, 0)


def test_samplers_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    list(ShuffledSampler(range(9)))
    assert torch.equal(state, torch.get_rng_state())


def test_place_is_that_of_one_process_without_torch_distributed():
    assert process_place() == (1, 0)


def test_place_is_asked_of_torch_distributed(monkeypatch):
    import torch.distributed as dist

    for name, value in (("is_initialized", True), ("get_world_size", 3), ("get_rank", 1)):
        monkeypatch.setattr(dist, name, lambda value=value: value)
    assert process_place() == (3, 1)
    assert indices(OrderedSampler(range(7))) == [1, 4]
    assert indices(OrderedSampler(range(7), 2, 0)) == [0, 2, 4, 6]


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match="rank 2 is none of 2 processes"):
        ShuffledSampler(range(4), 2, 2)
    with pytest.raises(DataError, match="the data set range is empty"):
        ShuffledSampler(range(0))
    with pytest.raises(ConfigError, match="num_repeats 0.5 is below 1"):
        RepeatAugSampler(range(4), num_repeats=0.5)


SCHEDULES = [
    {}, {"choice_weights": [1, 0, 3]}, {"num_batches": 30}, {"seed": 5},
    {"schedule": "progressive", "schedule_epochs": 4},
    {"schedule": "progressive", "schedule_epochs": 4, "spread": 0, "random_mix": 0, "choice_weights": [0, 1, 1]},
    {"schedule": "progressive", "schedule_epochs": 1, "random_mix": 0.5, "num_batches": 7},
]


@pytest.mark.parametrize("arguments", SCHEDULES)
@pytest.mark.parametrize("batch_sizes", [(8, 4, 2), (4, 4, 4)])
def test_schedules_are_timms(arguments, batch_sizes):
    own = ScheduledBatchKeys(ShuffledSampler(range(70)), batch_sizes, **arguments)
    renamed = {"schedule": "choice_schedule", "spread": "schedule_spread", "random_mix": "schedule_random_mix"}
    timms = {renamed.get(k, k): v for k, v in arguments.items()}
    peer, plain = (kind(range(70), batch_sizes, **timms) for kind in (TimmScheduledSampler, ScheduledBatchSampler))
    assert len(own) == len(peer) == len(plain)
    for epoch in range(5):
        own.sampler.set_epoch(epoch)
        peer.set_epoch(epoch)
        plain.set_epoch(epoch)
        assert list(plain) == list(peer)
        expected = [(batch[0][1], len(batch)) for batch in peer]
        whole = list(own)
        assert [(choice, len(keys)) for choice, keys in whole] == expected
        keys = [key for _, batch in whole for key in batch]
        assert len(set(keys)) == len(keys)
        assert [index for _, index, _ in keys[:70]] == indices(own.sampler, epoch)[:len(keys)]
        own.sampler.set_epoch(epoch, start_batch=3)
        assert list(own) == whole[3:]


@pytest.mark.parametrize("arguments, message", [
    ({"batch_sizes": (0, 2)}, "batch_size_choices .* are not numbers of samples"),
    ({"choice_weights": [1]}, "batch_choice_weights .* are not 2 weights"),
    ({"choice_weights": [0, 0]}, "batch_choice_weights"),
    ({"num_batches": 0}, "num_batches 0 is not a number of batches"),
    ({"schedule": "linear"}, "batch_choice_schedule 'linear' is none of"),
    ({"schedule": "progressive"}, "needs two choices or more, and batch_schedule_epochs"),
    ({"spread": -1}, "batch_schedule_spread -1 is negative"),
    ({"batch_sizes": (90, 100)}, "the 70 samples of an epoch fill no batch"),
])
def test_bad_schedules_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ScheduledBatchKeys(ShuffledSampler(range(70)), **{"batch_sizes": (2, 4), **arguments})


def test_a_schedules_transforms():
    dataset = ScheduledTransformDataset([("a", 1), ("b", 2)], [str.upper, lambda image: image * 2])
    assert len(dataset) == 2 and dataset[1, 0] == ("B", 2) and dataset[0, 1] == ("aa", 1)
    with pytest.raises(ConfigError, match="drop_last=False is not supported"):
        ScheduledBatchSampler(range(8), (2, 4), drop_last=False)
