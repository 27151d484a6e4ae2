"""Mixup and CutMix: timm's and torchvision's results for the same draws, and what is refused."""

import numpy as np
import pytest
import timm.data.mixup
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import mvlib.data.mixup
from mvlib.data.mixup import FastCollateMixup, Mixup, mixup_target
from mvlib.errors import ConfigError

KINDS = {
    "mixup": {"mixup_alpha": 0.8},
    "cutmix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    "both": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0},
    "minmax": {"mixup_alpha": 0.2, "cutmix_minmax": (0.2, 0.7)},
    "seldom": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 0.5, "switch_prob": 0.3},
    "uncorrected": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "correct_lam": False, "label_smoothing": 0.0},
}


def batch(size=8, classes=10, shape=(3, 20, 28)):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, *shape, generator=generator), torch.randint(classes, (size,), generator=generator)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_results_are_timms_for_the_same_draws(mode, kind):
    own = Mixup(mode=mode, num_classes=10, **KINDS[kind])
    peer = timm.data.mixup.Mixup(mode=mode, num_classes=10, **KINDS[kind])
    for seed in range(12):
        images, labels = batch()
        np.random.seed(seed)
        expected, expected_target = peer(images.clone(), labels)
        got, target = own(images.clone(), labels, np.random.RandomState(seed))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(target, expected_target, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem", "half"])
@pytest.mark.parametrize("kind", ["cutmix", "both"])
def test_fast_collate_results_are_timms_but_for_rounding(mode, kind):
    images, labels = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8), torch.arange(8)
    peer = timm.data.mixup.FastCollateMixup(mode=mode, num_classes=10, **KINDS[kind])
    for seed in range(8):
        np.random.seed(seed)
        expected, expected_target = peer([(image.clone(), int(label)) for image, label in zip(images, labels)])
        own = FastCollateMixup(mode=mode, num_classes=10, **KINDS[kind])
        got, target = own(images.float(), labels, np.random.RandomState(seed))
        assert (got - expected.float()).abs().max() <= 0.501
        torch.testing.assert_close(target, expected_target, rtol=1e-5, atol=1e-7)
        for samples in (images, images.numpy()):
            np.random.seed(seed)
            collated, target = own([(image.copy() if isinstance(image, np.ndarray) else image.clone(), int(label))
                                    for image, label in zip(samples, labels)])
            assert collated.dtype == torch.uint8 and torch.equal(collated, expected)
            torch.testing.assert_close(target, expected_target, rtol=1e-6, atol=1e-7)


def test_mixup_is_switched_off_in_workers_that_run():
    samples = [(torch.full((3, 4, 4), 50 * number, dtype=torch.uint8), number) for number in range(4)]
    collate = FastCollateMixup(num_classes=4, label_smoothing=0.0)
    loader = DataLoader(samples, 4, collate_fn=collate, num_workers=1, persistent_workers=True)
    mixed = [(target > 0).sum() for _, target in loader]
    collate.mixup_enabled = False
    assert mixed == [8] and [(target > 0).sum() for _, target in loader] == [4]


@pytest.mark.parametrize("count", [None, 5])
def test_boxes_are_timms(count):
    own, peer = mvlib.data.mixup, timm.data.mixup
    for seed in range(20):
        results = []
        for module in (own, peer):
            np.random.seed(seed)
            results.append((module.rand_bbox((3, 30, 41), 0.7, 0.1, count),
                            module.rand_bbox_minmax((30, 41), (0.2, 0.9), count),
                            *module.cutmix_bbox_and_lam((30, 41), 0.7, None, seed % 2, count),
                            *module.cutmix_bbox_and_lam((30, 41), 0.7, (0.1, 0.5), False, count)))
        for ours, theirs in zip(*results):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert torch.equal(own.one_hot(torch.tensor([2, 0]), 3, 0.9, 0.1), peer.one_hot(torch.tensor([2, 0]), 3, 0.9, 0.1))


def test_without_a_generator_numpys_global_one_is_drawn_from():
    images, labels = batch()
    mixup = Mixup(cutmix_alpha=1.0, num_classes=10)
    np.random.seed(3)
    first = mixup(images.clone(), labels)
    second = mixup(images.clone(), labels, np.random.RandomState(3))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


class Fixed:
    """A generator whose draws are given."""

    def __init__(self, lam, cut, numbers=()):
        self.lam, self.samples, self.numbers = lam, [0.0, 0.0 if cut else 0.9], list(numbers)

    def random_sample(self):
        return self.samples.pop(0)

    def beta(self, *_):
        return self.lam

    def randint(self, *_):
        return self.numbers.pop(0)


@pytest.mark.parametrize("lam, x, y", [(0.3, 5, 7), (0.71, 0, 19), (0.05, 27, 0), (0.9, 14, 10)])
@pytest.mark.parametrize("cut", [False, True])
def test_rolled_results_are_torchvisions_for_the_same_draws(monkeypatch, cut, lam, x, y):
    images, labels = batch()
    mixup = Mixup(0.2, 1.0, label_smoothing=0.0, num_classes=10, rolled=True)
    got, target = mixup(images.clone(), labels, Fixed(lam, cut, [x, y]))
    peer = (v2.CutMix if cut else v2.MixUp)(alpha=1.0, num_classes=10)
    numbers = [torch.tensor([x]), torch.tensor([y])]
    monkeypatch.setattr(type(peer._dist), "sample", lambda *_: torch.tensor([lam], dtype=torch.float64))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: numbers.pop(0))
    expected, expected_target = peer(images, labels)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(target, expected_target, rtol=1e-5, atol=1e-6)


def test_rolled_takes_an_odd_batch_and_smooths():
    images, labels = batch(7)
    _, target = Mixup(0.2, 1.0, num_classes=10, rolled=True)(images, labels)
    assert target.shape == (7, 10) and target.min() == pytest.approx(0.01)
    torch.testing.assert_close(target.sum(1), torch.ones(7))


def test_disabled_it_gives_smoothed_targets_and_the_images():
    for mode in ("batch", "pair", "elem"):
        images, labels = batch()
        mixup = Mixup(mode=mode, cutmix_alpha=1.0, num_classes=10)
        mixup.mixup_enabled = False
        got, target = mixup(images.clone(), labels)
        assert torch.equal(got, images)
        assert torch.equal(target, mixup_target(labels, 10, 1.0, 0.1))
        assert target.max() == pytest.approx(0.91)


def test_dense_targets_are_mixed_and_smoothed_towards_a_half():
    images, _ = batch(2)
    dense = torch.tensor([[1, 0, 1], [0, 0, 1]])
    own = Mixup(num_classes=3, multi_label=True)
    peer = timm.data.mixup.Mixup(num_classes=3, multi_label=True)
    np.random.seed(1)
    expected = peer(images.clone(), dense)[1]
    torch.testing.assert_close(own(images, dense, np.random.RandomState(1))[1], expected)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_memory_format_and_dtype_are_kept(mode):
    images, labels = batch()
    images = images.to(torch.bfloat16, memory_format=torch.channels_last)
    got, target = Mixup(cutmix_alpha=1.0, mode=mode, num_classes=10)(images, labels)
    assert got.dtype == torch.bfloat16 and got.is_contiguous(memory_format=torch.channels_last)
    assert target.dtype == torch.float32


@pytest.mark.parametrize("mode", ["pair", "elem", "half"])
def test_odd_batches_are_refused_where_images_are_paired(mode):
    with pytest.raises(ConfigError, match=f"mixup mode '{mode}' needs an even batch size, got 7"):
        Mixup(mode=mode, num_classes=10)(*batch(7))


@pytest.mark.parametrize("arguments, message", [
    ({"mode": "pairs"}, "mixup mode 'pairs' is none of batch, pair, elem, half"),
    ({"mixup_alpha": 0}, "one of mixup_alpha, cutmix_alpha and cutmix_minmax is needed"),
    ({"cutmix_minmax": (0.5, 0.2)}, "is not two shares of an image's side"),
    ({"rolled": True, "mode": "elem"}, "torchvision's mixup .* has mode 'batch'"),
])
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Mixup(**arguments)


def test_targets_of_another_shape_are_refused():
    images, labels = batch()
    with pytest.raises(ConfigError, match=r"mixing needs one label an image, got targets of shape \(8, 2\)"):
        Mixup(num_classes=10)(images, labels.repeat(2, 1).T)
    with pytest.raises(ConfigError, match=r"needs targets of shape \(batch, 10\), got \(8,\)"):
        Mixup(num_classes=10, multi_label=True)(images, labels)


def test_names_are_public():
    assert set(mvlib.data.mixup.__all__) >= {"FastCollateMixup", "Mixup"}
