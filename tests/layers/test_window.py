import pytest
import torch

from mvlib.layers import gen_relative_position_index, window_partition, window_reverse
from mvlib.models.swin_transformer import shifted_window_mask


def test_partition_takes_windows_row_by_row():
    x = torch.arange(2 * 4 * 6).view(2, 4, 6, 1)
    windows = window_partition(x, (2, 3))
    assert windows.shape == (8, 2, 3, 1)
    assert torch.equal(windows[1], x[0, :2, 3:])
    assert torch.equal(windows[6], x[1, 2:, :3])
    assert torch.equal(window_reverse(windows, (2, 3), 4, 6), x)


@pytest.mark.parametrize("window", [(3, 3), (2, 4), (1, 5)])
def test_relative_position_index_is_one_row_an_offset(window):
    height, width = window
    index = gen_relative_position_index(window)
    positions = [(y, x) for y in range(height) for x in range(width)]
    offsets = [(dy, dx) for dy in range(1 - height, height) for dx in range(1 - width, width)]
    for i, (yi, xi) in enumerate(positions):
        for j, (yj, xj) in enumerate(positions):
            assert offsets[index[i, j]] == (yi - yj, xi - xj)


@pytest.mark.parametrize(("window", "shift"), [((4, 4), (2, 2)), ((4, 2), (1, 1)), ((4, 4), (0, 2)), ((4, 4), (2, 0))])
def test_mask_separates_what_was_not_adjacent(window, shift):
    """Two tokens of a window see each other exactly when they keep their distance after rolling back."""
    grid = (8, 12)
    place = torch.stack(torch.meshgrid(*map(torch.arange, grid), indexing="ij"), dim=-1)  # original (row, column)
    rolled = torch.roll(place, [-s for s in shift], dims=(0, 1))
    windows = window_partition(rolled[None], window).flatten(1, 2)
    inside = window_partition(place[None], window).flatten(1, 2)
    gap = windows[:, :, None] - windows[:, None]
    expected = (gap == inside[:, :, None] - inside[:, None]).all(dim=-1)
    mask = shifted_window_mask(grid, window, shift, dtype=torch.float64)
    assert mask.dtype == torch.float64
    assert torch.equal(mask == 0, expected)
    assert mask[~expected].unique().tolist() == [-100.0]
