"""Operations and policies against timm's: the same pixels from the same seeds."""

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as peer
from torchvision.transforms import v2

from mvlib import ConfigError
from mvlib.data import auto_augment as own

HPARAMS = {"translate_const": 100, "img_mean": (124, 116, 104)}
RANDOM = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def picture(width: int = 96, height: int = 80, seed: int = 0) -> Image.Image:
    """Smooth colours with noise, so that both rounding and edges count."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 7, 3), dtype=np.uint8)).resize((width, height), 3)
    noise = generator.integers(-40, 40, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) * 0.8 + 20 + noise, 0, 255).astype(np.uint8))


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.mode == other.mode and one.size == other.size and one.tobytes() == other.tobytes()


def after(seed: int, transform, *arguments):
    """What a transform gives after seeding, and how far it took Python's `random`."""
    random.seed(seed)
    np.random.seed(seed)
    return transform(*arguments), random.getstate()


@pytest.fixture(autouse=True)
def black_posters(monkeypatch):
    """timm asks Pillow to keep 0 bits, which gave black until Pillow refused it."""
    keep = peer.ImageOps.posterize
    black = lambda image, bits: keep(image, bits) if bits else image.point([0] * 768)  # noqa: E731
    monkeypatch.setattr(peer.ImageOps, "posterize", black)


def test_the_operations_are_those_of_timm():
    assert set(own.OPERATIONS) == set(peer.NAME_TO_OP)


@pytest.mark.parametrize("interpolation", [None, *RANDOM, Image.Resampling.NEAREST],
                         ids=["random", "bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("name", own.OPERATIONS)
def test_operations_give_the_pixels_of_timm(name, interpolation):
    given = {} if interpolation is None else {"interpolation": interpolation}
    hparams = {**HPARAMS, "magnitude_std": 2.0, **given}
    for seed in range(12):
        image = picture(seed=seed) if seed % 2 else picture(51, 64, seed)
        magnitude = (0, 1, 5, 9, 10)[seed % 5]
        ours, our_state = after(seed, own.AugmentOp(name, 0.9, magnitude, hparams), image)
        theirs, their_state = after(seed, peer.AugmentOp(name, 0.9, magnitude, hparams), image)
        assert our_state == their_state, seed
        assert same(ours, theirs), seed


@pytest.mark.parametrize("factor", [-2.5, -1.0, -0.5, 0.0, 0.0078125, 0.25, 1.0, 3.0])
@pytest.mark.parametrize("resample", RANDOM)
@pytest.mark.parametrize("name", ["ShearX", "ShearY", "TranslateXRel", "TranslateYRel"])
def test_moves_by_whole_and_half_pixels_and_out_of_the_image(name, resample, factor):
    for size in ((64, 64), (3, 40), (1, 1)):
        image = picture(*size)
        moved = own.OPERATIONS[name].apply(np.array(image), factor, resample, (1, 2, 3))
        expected = peer.NAME_TO_OP[name](image, factor, resample=resample, fillcolor=(1, 2, 3))
        assert np.array_equal(moved, np.array(expected)), size


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_tables_of_flat_and_nearly_flat_images(name):
    flat = np.zeros((20, 30, 3), np.uint8)
    nearly, two, steep = (flat.copy() for _ in range(3))
    nearly[0, 0] = 200
    two[:10, :, 1:] = 77
    steep[:15] = np.arange(30, dtype=np.uint8)[:, None] * 3 + 90
    for pixels in (flat, flat + 255, nearly, two, steep, np.array(picture(300, 200))):
        image = Image.fromarray(pixels)
        assert same(own.OPERATIONS[name].apply(image), peer.NAME_TO_OP[name](image))


def test_sharpening_leaves_images_without_an_inside():
    for size in ((2, 5), (5, 2), (1, 1), (3, 3)):
        image = picture(*size)
        sharpened = own.OPERATIONS["Sharpness"].apply(np.array(image), 1.7)
        assert np.array_equal(sharpened, np.array(peer.sharpness(image, 1.7))), size


@pytest.mark.parametrize("name", own.OPERATIONS)
@pytest.mark.parametrize(("std", "highest"), [(0.5, None), (float("inf"), None), (3.0, 20), (0, 30)])
def test_arguments_are_drawn_as_in_timm(name, std, highest, monkeypatch):
    hparams = {**HPARAMS, "magnitude_std": std} | ({"magnitude_max": highest} if highest else {})
    arguments = []
    monkeypatch.setitem(peer.NAME_TO_OP, name, lambda image, *values, **_: arguments.append(values))
    monkeypatch.setitem(own.OPERATIONS, name, own.OPERATIONS[name]._replace(
        apply=lambda image, *values: arguments.append(values[:1]), pil=True))
    for seed in range(40):
        after(seed, own.AugmentOp(name, 1.0, 12 if highest else 9, hparams).apply, picture(1, 1))
        after(seed, peer.AugmentOp(name, 1.0, 12 if highest else 9, hparams), None)
    assert arguments[::2] == arguments[1::2]


@pytest.mark.parametrize("name", own.AUTO_AUGMENT_POLICIES)
def test_auto_augment_is_that_of_timm(name):
    image = picture()
    for config in (name, f"{name}-mstd0.5"):
        ours, theirs = own.auto_augment_transform(config, HPARAMS), peer.auto_augment_transform(config, dict(HPARAMS))
        layout = [[[(op.name, op.prob, op.magnitude, op.magnitude_std) for op in line] for line in policy.policy]
                  for policy in (ours, theirs)]
        assert layout[0] == layout[1]
        for seed in range(30):
            assert same(after(seed, ours, image)[0], after(seed, theirs, image)[0]), seed


RAND_CONFIGS = ["rand", "rand-m9-mstd0.5-inc1", "rand-m9-n3-mstd0.5", "rand-n4-p0.3-mmax20-m15-mstd101-inc1",
                "rand-mstd1-tweights", "rand-m7-t3a-n1", "rand-t3aw-n3"]


def description(policy) -> tuple:
    operations = [(op.name, op.prob, op.magnitude, op.magnitude_std, op.magnitude_max) for op in policy.ops]
    weights = policy.choice_weights
    return policy.num_layers, operations, None if weights is None else list((np.array(weights) / sum(weights)).round(9))


@pytest.mark.parametrize("config", RAND_CONFIGS)
def test_rand_augment_is_that_of_timm(config):
    ours = own.rand_augment_transform(config, HPARAMS)
    theirs = peer.rand_augment_transform(config, dict(HPARAMS))
    assert description(ours) == description(theirs) and repr(ours) == repr(theirs)
    for seed in range(20):
        assert same(after(seed, ours, picture())[0], after(seed, theirs, picture())[0]), seed


def test_hparams_go_before_the_string():
    hparams = {"magnitude_std": 2.0, "magnitude_max": 8}
    for module in (own, peer):
        policy = module.rand_augment_transform("rand-m9-mstd0.5-mmax20", dict(hparams))
        assert {(op.magnitude_std, op.magnitude_max) for op in policy.ops} == {(2.0, 8)}


def test_w0_are_the_weights_that_timm_had():
    policy = own.rand_augment_transform("rand-m9-mstd0.5-inc1-w0")
    weights = {op.name: weight for op, weight in zip(policy.ops, policy.choice_weights)}
    assert weights["Rotate"] == 0.3 and weights["ShearX"] == 0.2 and weights["SharpnessIncreasing"] == 0.025
    assert weights["Invert"] == weights["PosterizeIncreasing"] == 0
    assert sum(weights.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("config", ["augmix", "augmix-m5-w4-d2", "augmix-m1-w2-d1-a0.5-b1-mstd0.5"])
def test_augmix_is_that_of_timm(config):
    hparams = {**HPARAMS, "translate_pct": 0.3}
    ours, theirs = own.augment_and_mix_transform(config, hparams), peer.augment_and_mix_transform(config, dict(hparams))
    assert repr(ours) == repr(theirs)
    assert [(op.name, op.prob, op.magnitude, op.magnitude_std, op.hparams["translate_pct"]) for op in ours.ops] == \
        [(op.name, op.prob, op.magnitude, op.magnitude_std, op.hparams["translate_pct"]) for op in theirs.ops]
    for seed in range(10):
        assert same(after(seed, ours, picture())[0], after(seed, theirs, picture())[0]), seed


def test_torchvisions_policies_are_torchvisions():
    bilinear = v2.InterpolationMode.BILINEAR
    expected = {"ta_wide": v2.TrivialAugmentWide(interpolation=bilinear), "ra": v2.RandAugment(interpolation=bilinear),
                "ra-m7": v2.RandAugment(magnitude=7, interpolation=bilinear),
                "imagenet": v2.AutoAugment(interpolation=bilinear),
                "autoaugment": v2.AutoAugment(interpolation=bilinear),
                "cifar10": v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, interpolation=bilinear),
                "augmix": v2.AugMix(interpolation=bilinear)}
    image = picture()
    for config, theirs in expected.items():
        ours = own.create_policy(config, preprocessing="torchvision")
        assert repr(ours) == repr(theirs)
        for seed in range(5):
            results = [(torch.manual_seed(seed), policy(image))[1] for policy in (ours, theirs)]
            assert same(*results), config
    assert isinstance(own.create_policy("augmix"), own.AugMixAugment)


@pytest.mark.parametrize("config", [*RAND_CONFIGS, *own.AUTO_AUGMENT_POLICIES, "augmix", "ta_wide", "ra"])
def test_policies_travel_to_workers_and_leave_the_image(config):
    image = picture()
    before = image.tobytes()
    policy = own.create_policy(config, HPARAMS)
    torch.manual_seed(1)
    result = after(1, policy, image)[0]
    torch.manual_seed(1)
    assert same(result, after(1, pickle.loads(pickle.dumps(policy)), image)[0])
    assert image.tobytes() == before


@pytest.mark.parametrize("name", own.OPERATIONS)
def test_tensors_and_greyscale_images_are_taken_too(name):
    operation = own.AugmentOp(name, 1.0, 7, {**HPARAMS, "magnitude_std": 1.0})
    grey = own.AugmentOp(name, 1.0, 7, {**HPARAMS, "img_mean": (124,)})
    image = picture()
    for seed in range(4):
        expected = after(seed, operation, image)[0]
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        result = after(seed, operation, pixels)[0]
        assert torch.equal(result, torch.from_numpy(np.array(expected)).permute(2, 0, 1))
        assert torch.equal(after(seed, operation, pixels.contiguous())[0], result)
        assert result.permute(1, 2, 0).is_contiguous()
        light = image.convert("L")
        theirs = peer.AugmentOp(name, 1.0, 7, {**HPARAMS, "img_mean": (124,)})
        assert same(after(seed, grey, light)[0], after(seed, theirs, light)[0])


@pytest.mark.parametrize(("config", "message"), [
    ("randaug-m9", "unknown augmentation 'randaug-m9'; did you mean 'rand'?; names, to which sections"),
    ("orignal", "unknown augmentation 'orignal'; did you mean 'original' or 'originalr'?"),
    ("ta_wid", "did you mean 'ta_wide'?"),
    ("rand-m9-std0.5", "unknown section 'std0.5' in augmentation 'rand-m9-std0.5'; did you mean 'mstd'?; "
                       "sections: m, n, p, mstd, mmax, inc, t, w, each with its value"),
    ("rand-m9-inc", "section 'inc' of augmentation 'rand-m9-inc' needs a number after 'inc'"),
    ("rand-m9.5", "section 'm9.5' of augmentation 'rand-m9.5' needs a number after 'm'"),
    ("rand-tweight", "unknown set of operations 'weight' in augmentation 'rand-tweight'; did you mean 'weights'?"),
    ("rand-w1", "there are weights w0 only"),
    ("rand-w0-tweights", "there are weights w0 only"),
    ("rand-t3aw-n20", "RandAugment cannot choose 20 of 14 weighted operations"),
    ("original-m5", "unknown section 'm5' in augmentation 'original-m5'; sections: mstd"),
    ("augmix-z4", "unknown section 'z4' in augmentation 'augmix-z4'; sections: m, w, d, a, b, mstd"),
    ("ta_wide-m9", "unknown section 'm9' in augmentation 'ta_wide-m9'; it takes none"),
])
def test_mistakes_are_named(config, message):
    with pytest.raises(ConfigError) as caught:
        own.create_policy(config)
    assert message in str(caught.value)


def test_unknown_operations_are_named():
    with pytest.raises(ConfigError, match="unknown augmentation operation 'Sheer'; did you mean"):
        own.rand_augment_transform("rand", transforms=["Sheer"])
    with pytest.raises(ConfigError, match="unknown AutoAugment policy 'v1'"):
        own.auto_augment_policy("v1")
