"""Rotary, sine-cosine and Fourier embeddings against timm's."""

import pytest
import timm.layers as theirs
import torch
from timm.layers import pos_embed_sincos as their_module

from mvlib.layers import rope as ours

GRID = (3, 5)
GRIDS = [dict(), dict(in_pixels=False), dict(in_pixels=False, ref_feat_shape=(7, 4), grid_offset=0.5),
         dict(grid_indexing="xy", linear_bands=True), dict(in_pixels=False, grid_indexing="xy", ref_feat_shape=(2, 9)),
         dict(grid_type="centered", normalize_coords="max"), dict(grid_type="centered", normalize_coords="min"),
         dict(grid_type="index", max_res=32)]
RANDOM = dict(shift_coords=0.2, jitter_coords=1.3, rescale_coords=2.0)
MODULES = [(name, dict(dim=16, **kwargs)) for name in ("RotaryEmbedding", "RotaryEmbeddingCat") for kwargs in GRIDS]
MODULES += [("RotaryEmbeddingDinoV3", dict(dim=16, **kwargs)) for kwargs in (
    dict(), dict(rotate_half=False, normalize_coords="max"), dict(temperature=None, min_period=2.0, max_period=50.0),
    dict(grid_indexing="xy", grid_offset=0.25, normalize_coords="min"))]
MODULES += [("RotaryEmbeddingMixed", dict(dim=32, depth=2, num_heads=2, **kwargs)) for kwargs in (
    dict(), dict(grid_indexing="ij", temperature=100.0))]


def both(name, **kwargs):
    its, mine = getattr(theirs, name)(**kwargs), getattr(ours, name)(**kwargs)
    assert list(mine.state_dict()) == list(its.state_dict())
    mine.load_state_dict(its.state_dict())
    return mine, its


def equal(mine, its, tolerance=1e-5):
    torch.testing.assert_close(mine, its, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kwargs", GRIDS, ids=str)
def test_embeddings_of_a_grid_are_timms(kwargs):
    for extra in (dict(), dict(rotate_half=True, dtype=torch.float64)):
        equal(ours.build_rotary_pos_embed(GRID, dim=16, **kwargs, **extra),
              theirs.build_rotary_pos_embed(GRID, dim=16, **kwargs, **extra))
    equal(ours.build_fourier_pos_embed(GRID, num_bands=6, include_grid=True, **kwargs),
          theirs.build_fourier_pos_embed(GRID, num_bands=6, include_grid=True, **kwargs))
    bands = torch.rand(5)
    equal(ours.build_fourier_pos_embed(GRID, bands, **kwargs), theirs.build_fourier_pos_embed(GRID, bands, **kwargs))
    found = []
    for layers in (ours, theirs):
        torch.manual_seed(1)
        found.append(layers.build_rotary_pos_embed(GRID, dim=16, **kwargs, **RANDOM))
    equal(*found)


@pytest.mark.parametrize("kwargs", [dict(), dict(reverse_coord=True), dict(interleave_sin_cos=True, temperature=20.0)])
def test_sine_cosine_embedding_is_timms(kwargs):
    equal(ours.build_sincos2d_pos_embed(GRID, 16, **kwargs), theirs.build_sincos2d_pos_embed(list(GRID), 16, **kwargs))
    with pytest.raises(ValueError, match="a multiple of 4 channels, not 18"):
        ours.build_sincos2d_pos_embed(GRID, 18)


def test_bands_are_timms():
    equal(ours.freq_bands(9, 50.0), theirs.freq_bands(9, 50.0))
    for linear in (True, False):
        equal(ours.pixel_freq_bands(9, 50.0, linear), theirs.pixel_freq_bands(9, 50.0, linear))


@pytest.mark.parametrize("half", [True, False])
def test_what_is_turned_is_turned_as_in_timm(half):
    x, emb = torch.randn(2, 3, 15, 16), torch.randn(15, 32)
    equal(ours.apply_rot_embed_cat(x, emb, half), theirs.apply_rot_embed_cat(x, emb, half))
    equal(ours.apply_rot_embed_list([x, x + 1], emb[:, :16], emb[:, 16:], half),
          theirs.apply_rot_embed_list([x, x + 1], emb[:, :16], emb[:, 16:], half))
    assert ours.apply_rot_embed_cat(x.half(), emb, half).dtype == torch.float16


@pytest.mark.parametrize("shape", [(9, 4), (2, 9, 4), (3, 2, 9, 4)])
def test_kept_positions_are_timms(shape):
    x, keep = torch.zeros(3, 9, 8), torch.tensor([[1, 5], [0, 8], [7, 2]])
    for has_batch in (False, *([True] if shape[0] == 3 else [])):
        args = (x, torch.randn(shape), keep, has_batch)
        assert torch.equal(ours.apply_keep_indices_nlc(*args), theirs.apply_keep_indices_nlc(*args))


@pytest.mark.parametrize(("name", "kwargs"), MODULES, ids=str)
def test_modules_are_timms(name, kwargs):
    for fixed in (False, True):
        mine, its = both(name, **kwargs, **(dict(feat_shape=list(GRID)) if fixed else {}))
        for module in (mine, its):
            module.eval()
        equal(mine.get_embed(None if fixed else GRID), its.get_embed(None if fixed else list(GRID)))
        equal(mine.get_embed(GRID, torch.float64), its.get_embed(list(GRID), torch.float64))
        x = torch.randn(2, kwargs["dim"], *GRID)
        equal(mine(x), its(x))
        for module in (mine, its):
            module.half().update_feat_shape([4, 4])
        equal(mine.get_embed((4, 4), torch.float32), its.get_embed([4, 4], torch.float32), 2e-3 if fixed else 1e-5)


@pytest.mark.parametrize(("name", "kwargs"), [case for case in MODULES if case[0] != "RotaryEmbedding"], ids=str)
def test_batches_of_grids_are_timms(name, kwargs):
    mine, its = both(name, **kwargs)
    shapes = [(2, 3), (4, 1), (3, 3)]
    equal(mine.get_batch_embeds(shapes), its.get_batch_embeds(shapes))
    equal(mine.get_batch_embeds(shapes, 11), its.get_batch_embeds(shapes, 11))
    with pytest.raises(ValueError, match="seq_len 5 is less"):
        mine.get_batch_embeds(shapes, 5)


@pytest.mark.parametrize("name", sorted({name for name, _ in MODULES}))
def test_training_moves_positions_as_timm_does(name):
    kwargs = dict(dim=16, depth=2, num_heads=2) if name.endswith("Mixed") else dict(dim=16)
    for fixed in (dict(), dict(feat_shape=list(GRID))):
        mine, its = both(name, **kwargs, **RANDOM, **fixed)
        found = []
        for module in (mine, its):
            torch.manual_seed(4)
            found.append(module.get_embed(None if fixed else list(GRID)))
        equal(*found)
        equal(mine.eval().get_embed(list(GRID)), its.eval().get_embed(list(GRID)))
    with pytest.raises(ValueError, match="shift_coords is a number of 0 or more"):
        getattr(ours, name)(**kwargs, shift_coords=-1.0)


@pytest.mark.parametrize("section", [(8, 12, 12), (2, 1, 3), (0, 0, 2)])
def test_three_axes_are_timms(section):
    mine, its = both("RotaryEmbeddingMRope", dim=24, mrope_section=section, temperature=50.0, **RANDOM)
    for training in (True, False):
        found = []
        for module in (mine.train(training), its.train(training)):
            torch.manual_seed(4)
            found.append(module.get_embed(list(GRID)))
        equal(*found)
    for module in (mine, its):
        module.half()
    equal(mine.get_embed((2, 3), torch.float32), its.get_embed([2, 3], torch.float32))
    empty = ours.RotaryEmbeddingMRope(24, section, 50.0, device="meta").to_empty(device="cpu").eval()
    empty.init_non_persistent_buffers()
    equal(empty.get_embed(GRID), mine.get_embed(GRID))
    made = ours.create_rope_embed("mrope", 48, 2, mrope_section=section, temperature=50.0, in_pixels=False).eval()
    equal(made.get_embed(GRID), mine.get_embed(GRID))
    with pytest.raises(ValueError, match="mrope rotary embeddings have halves as pairs, no neighbours"):
        ours.create_rope_embed("mrope", 48, 2, rotate_half=False)
    with pytest.raises(ValueError, match="dim 5 is even, mrope_section .* not negative, and grid_indexing 'ij' 'ij'"):
        ours.RotaryEmbeddingMRope(5)


def test_functions_of_positions_are_timms():
    x = torch.randn(3, 8)
    for name in ("rot", "rope_rotate_half"):
        equal(getattr(ours, name)(x), getattr(their_module, name)(x))
    for indexing in ("ij", "xy"):
        equal(ours.get_mixed_grid(GRID, indexing), their_module.get_mixed_grid(list(GRID), indexing))
        for normalize in ("separate", "min", "max"):
            args = (*GRID, normalize, indexing, 0.3)
            equal(ours.make_coords_dinov3(*args), their_module.make_coords_dinov3(*args))
    for shape in ([2, 3], [2, 3, 4]):
        assert ours.swap_shape_xy(shape) == their_module.swap_shape_xy(shape)
    for rotate in (True, False):
        found = []
        for module in (ours, their_module):
            torch.manual_seed(4)
            found.append(module.init_random_2d_freqs(16, 2, 3, 50.0, rotate))
        equal(*found)


def test_frequencies_begin_as_in_timm():
    torch.manual_seed(2)
    its = theirs.RotaryEmbeddingMixed(32, 3, 2)
    torch.manual_seed(2)
    equal(ours.RotaryEmbeddingMixed(32, 3, 2).freqs, its.freqs)
    assert ours.RotaryEmbeddingMixed(32, 3, 2).no_weight_decay() == its.no_weight_decay()


@pytest.mark.parametrize("kind", ["base", "cat", "mixed", "dinov3"])
def test_kinds_by_name_are_timms(kind):
    kwargs = dict(depth=1) if kind == "mixed" else {}
    mine, its = (layers.create_rope_embed(kind, 32, 2, in_pixels=False, **kwargs) for layers in (ours, theirs))
    assert type(mine).__name__ == type(its).__name__ and isinstance(its, vars(their_module)[type(mine).__name__])
    with pytest.raises(ValueError, match="unknown rope_type 'bas'; known: base, cat"):
        ours.create_rope_embed("bas")


@pytest.mark.parametrize("name", ["RotaryEmbeddingCat", "RotaryEmbedding", "RotaryEmbeddingDinoV3"])
def test_from_the_meta_device(name):
    built = getattr(ours, name)(16, feat_shape=GRID)
    empty = getattr(ours, name)(16, feat_shape=GRID, device="meta").to_empty(device="cpu")
    empty.init_non_persistent_buffers()
    equal(empty.get_embed(), built.get_embed())
