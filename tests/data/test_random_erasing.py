"""Random erasing against timm's: the same boxes and noise from the same draws; or noise that belongs to the box."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from timm.data.random_erasing import RandomErasing as Peer

from mvlib import ConfigError
from mvlib.data.random_erasing import ErasedBox, RandomErasing


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


@pytest.mark.parametrize("options", [
    {}, {"probability": 1.0, "max_count": 3}, {"probability": 1.0, "min_count": 2, "max_count": 2, "max_aspect": 3.3},
    {"probability": 0.9, "min_area": 0.3, "max_area": 0.9, "min_aspect": 0.1}, {"num_splits": 3},
    {"mode": "rand", "max_count": 3}, {"mode": "pixel", "max_count": 3},
], ids=str)
def test_the_boxes_and_their_noise_are_those_of_timm(options):
    for seed in range(40):
        random.seed(seed), torch.manual_seed(seed)
        ours = RandomErasing(**options)(ones(6, 3, 40, 56))
        ended, torchs = random.getstate(), torch.get_rng_state()
        random.seed(seed), torch.manual_seed(seed)
        theirs = Peer(**options, device="cpu")(ones(6, 3, 40, 56))
        assert torch.equal(ours, theirs), seed
        assert ended == random.getstate() and torch.equal(torchs, torch.get_rng_state())


def test_noise_is_normal_one_colour_a_box_or_a_pixel():
    boxes = [ErasedBox(0, 0, 200, 300, 5)]
    pixels = RandomErasing(mode="pixel").erase_(ones(3, 200, 300), boxes)
    assert abs(pixels.mean()) < 0.01 and abs(pixels.std() - 1) < 0.01
    colours = torch.stack([RandomErasing(mode="rand").erase_(ones(3, 4, 4), [ErasedBox(0, 0, 4, 4, seed)])
                           for seed in range(2000)])
    assert torch.equal(colours, colours[..., :1, :1].expand_as(colours))
    assert abs(colours.mean()) < 0.05 and abs(colours[..., 0, 0].std() - 1) < 0.05


def test_drawn_boxes_are_erased_alike_in_whatever_order():
    erasing = RandomErasing(0.7, mode="pixel", max_count=3)
    random.seed(3)
    boxes = [erasing.draw(32, 48) for _ in range(8)]
    forth, back = ones(8, 3, 32, 48), ones(8, 3, 32, 48)
    for image, drawn in zip(forth, boxes):
        erasing.erase_(image, drawn)
    for image, drawn in reversed(list(zip(back, boxes))):
        erasing.erase_(image, drawn)
    assert torch.equal(forth, back) and (forth != 1).sum() > 100
    assert len({box.noise_seed for drawn in boxes for box in drawn}) == sum(map(len, boxes))


def test_noise_does_not_depend_on_the_memory_format_nor_take_from_torchs_generator():
    erasing = RandomErasing(1.0, mode="pixel")
    boxes = [ErasedBox(3, 5, 20, 17, 11), ErasedBox(0, 0, 2, 2, 12)]
    state = torch.get_rng_state()
    contiguous = erasing.erase_(ones(3, 32, 48), boxes)
    last = erasing.erase_(ones(32, 48, 3).permute(2, 0, 1), boxes)
    assert torch.equal(contiguous, last) and torch.equal(state, torch.get_rng_state())


def test_the_first_split_stays_clean():
    random.seed(0)
    images = RandomErasing(1.0, num_splits=3)(ones(9, 3, 32, 32))
    assert [bool((image != 1).any()) for image in images] == [False] * 3 + [True] * 6


def test_half_precision_images():
    for dtype in (torch.float16, torch.bfloat16):
        image = RandomErasing(1.0, mode="pixel").erase_(ones(3, 16, 16).to(dtype), [ErasedBox(1, 2, 8, 9, 4)])
        assert image.dtype == dtype and (image != 1).sum() > 200


def test_draws_are_as_frequent_and_as_large_as_they_are_said_to_be():
    random.seed(1)
    erasing = RandomErasing(0.25, max_count=4)
    drawn = [erasing.draw(224, 224) for _ in range(8000)]
    counts = Counter(map(len, drawn))
    assert abs(counts[0] / 8000 - 0.75) < 0.02
    assert all(abs(counts[count] / 8000 - 0.0625) < 0.012 for count in (1, 2, 3, 4))
    areas = [box.height * box.width / 224 ** 2 for boxes in drawn if len(boxes) == 1 for box in boxes]
    assert np.mean(areas) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    assert min(areas) > 0.018 and max(areas) < 0.34


def test_an_image_too_small_for_any_box_is_left_alone():
    random.seed(0)
    assert torch.equal(RandomErasing(1.0, mode="pixel")(ones(3, 1, 1)), ones(3, 1, 1))


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="random erasing has no mode 'pixels', only const, rand, pixel; did you mean"):
        RandomErasing(mode="pixels")


def test_repr():
    assert repr(RandomErasing(0.2, mode="pixel", max_count=3)) == "RandomErasing(p=0.2, mode=pixel, count=(1, 3))"
