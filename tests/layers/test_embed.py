"""Patches, positions, attention and attention pooling, compared with timm's layers."""

import pytest
import timm.layers as timm_layers
import torch
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table as timm_resize_bias

from mvlib.layers.attention import Attention
from mvlib.layers.attention_pool import AttentionPoolLatent, AttentionPoolPrr
from mvlib.layers.drop import PatchDropout
from mvlib.layers.patch_embed import PatchEmbed, resample_patch_embed
from mvlib.layers.pos_embed import resample_abs_pos_embed, resample_grid
from mvlib.layers.rel_pos import resize_rel_pos_bias_table
from tests.parity.harness import randomize, relative_difference


def noise(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


# positions

@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("mode", [("bicubic", True, None), ("bilinear", False, None), ("bilinear", False, True)],
                         ids=str)
@pytest.mark.parametrize(("old", "new"), [((7, 7), (14, 14)), ((8, 8), (3, 5)), ((2, 8), (4, 4)), ((3, 5), (3, 5))])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_position_embedding_is_resampled_as_in_timm(prefix, old, new, mode, dtype):
    interpolation, antialias, align_corners = mode
    pos_embed = noise(1, prefix + old[0] * old[1], 6, dtype=dtype)
    options = dict(interpolation=interpolation, antialias=antialias, align_corners=align_corners)
    found = resample_abs_pos_embed(pos_embed, new, old, prefix, **options)
    expected = timm_layers.resample_abs_pos_embed(pos_embed, new, old, prefix, **options)
    assert found.dtype == dtype
    assert torch.equal(found, expected)


def test_grid_is_a_square_unless_given():
    pos_embed = noise(1, 1 + 16, 6)
    assert torch.equal(resample_abs_pos_embed(pos_embed, (2, 8)), resample_abs_pos_embed(pos_embed, (2, 8), (4, 4)))
    assert resample_abs_pos_embed(pos_embed, (4, 4)) is pos_embed


def test_grid_keeps_rows_and_columns_apart():
    rows = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 6, 2)  # varies along rows alone
    resized = resample_grid(rows, (8, 3))
    assert resized.shape == (1, 8, 3, 2)
    torch.testing.assert_close(resized, resized[:, :, :1].expand_as(resized))
    assert (resized[0, 1:, 0, 0] > resized[0, :-1, 0, 0]).all()


@pytest.mark.parametrize(("old", "new"), [((7, 7), (12, 12)), ((7, 7), (4, 4)), ((7, 7), (14, 10)), ((4, 6), (8, 3)),
                                          ((7, 7), (7, 7))])
def test_bias_table_is_resized_as_in_timm(old, new):
    table, shape = noise((2 * old[0] - 1) * (2 * old[1] - 1), 3), ((2 * new[0] - 1) * (2 * new[1] - 1), 3)
    expected = timm_resize_bias(table, new, shape, old)
    torch.testing.assert_close(resize_rel_pos_bias_table(table, new, shape, old), expected, rtol=1e-5, atol=1e-6)
    assert resize_rel_pos_bias_table(table.to("meta"), new, shape, old).shape == shape


def test_bias_table_of_an_unknown_window():
    assert resize_rel_pos_bias_table(noise(7 * 11, 2), (4, 6), (7 * 11, 2)).shape == (7 * 11, 2)
    with pytest.raises(ValueError, match="a bias table of 77 offsets belongs to no square window; its window must be"):
        resize_rel_pos_bias_table(noise(7 * 11, 2), (8, 8), (225, 2))


# patches

@pytest.mark.parametrize("mode", [("bicubic", True), ("bilinear", False)], ids=str)
@pytest.mark.parametrize("new", [(8, 8), (24, 24), (12, 20), (16, 16)])
def test_patch_weights_are_resampled_as_in_timm(new, mode):
    weight = noise(5, 3, 16, 16)
    expected = timm_layers.resample_patch_embed(weight, new, *mode)
    assert relative_difference(resample_patch_embed(weight, new, *mode), expected) < 1e-5
    half = resample_patch_embed(weight.half(), new, *mode)
    assert half.dtype == torch.float16 and half.shape == expected.shape
    assert resample_patch_embed(weight.to("meta"), new, *mode).shape == expected.shape


def test_a_larger_patch_keeps_its_embedding():
    """What resampling promises: the resized patch meets resized weights with the same result."""
    weight, patch = noise(4, 3, 8, 8), noise(2, 3, 8, 8)
    larger = torch.nn.functional.interpolate(patch, size=(16, 16), mode="bilinear")
    resampled = resample_patch_embed(weight, (16, 16), "bilinear", antialias=False)
    before, after = (torch.einsum("bchw,ochw->bo", *pair) for pair in ((patch, weight), (larger, resampled)))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kwargs", [
    dict(),
    dict(output_fmt="NHWC"),
    dict(output_fmt="NCHW"),
    dict(bias=False),
    dict(norm_layer=torch.nn.LayerNorm),
    dict(patch_size=(8, 4)),
    dict(img_size=None),
    dict(strict_img_size=False, img_size=64),
    dict(dynamic_img_pad=True, strict_img_size=False, patch_size=7),
    dict(dynamic_img_pad=True, patch_size=7),
], ids=str)
def test_patch_embed_equals_timms(kwargs):
    kwargs = dict(img_size=(32, 48), patch_size=8, embed_dim=12) | kwargs
    theirs_kwargs = dict(kwargs, flatten=kwargs.get("output_fmt", "NLC") == "NLC")
    if not theirs_kwargs["flatten"]:
        theirs_kwargs["output_fmt"] = kwargs["output_fmt"]
    ours, theirs = PatchEmbed(**kwargs), timm_layers.PatchEmbed(**theirs_kwargs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    x = noise(2, 3, 32, 48)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
    assert (ours.grid_size, ours.num_patches) == (theirs.grid_size, theirs.num_patches)
    assert tuple(ours.dynamic_feat_size((36, 50))) == tuple(theirs.dynamic_feat_size((36, 50)))
    assert ours.feat_ratio() == theirs.feat_ratio()


def test_patch_embed_changes_size():
    ours, theirs = PatchEmbed(32, 8, embed_dim=12), timm_layers.PatchEmbed(32, 8, embed_dim=12)
    ours.load_state_dict(theirs.state_dict())
    ours.proj.weight.requires_grad_(False)
    for change in (dict(img_size=(40, 64)), dict(patch_size=4), dict(img_size=60, patch_size=(12, 6))):
        ours.set_input_size(**change)
        theirs.set_input_size(**change)
        for name in ("img_size", "patch_size", "grid_size", "num_patches"):
            assert getattr(ours, name) == getattr(theirs, name)
        x = noise(1, 3, *ours.img_size)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
        assert not ours.proj.weight.requires_grad


@pytest.mark.parametrize(("kwargs", "size", "message"), [
    (dict(), (32, 40), r"the input is 32 x 40, its patches are made for 32 x 32; resize it, .* img_size=$"),
    (dict(strict_img_size=False), (33, 40), r"33 x 40, which patches of 8 x 8 do not divide; .* dynamic_img_pad=True"),
])
def test_images_that_do_not_fit(kwargs, size, message):
    with pytest.raises(ValueError, match=message):
        PatchEmbed(32, 8, embed_dim=4, **kwargs)(noise(1, 3, *size))


def test_unknown_layout():
    with pytest.raises(ValueError, match="output_fmt 'LNC' is not one of NCHW, NHWC, NCL, NLC"):
        PatchEmbed(output_fmt="LNC")


@pytest.mark.parametrize("prefix", [0, 2])
def test_patch_dropout_keeps_a_share_and_the_prefix(prefix):
    drop = PatchDropout(0.25, num_prefix_tokens=prefix)
    x = torch.arange(3 * (prefix + 16), dtype=torch.float32).view(3, -1, 1).expand(-1, -1, 4)
    assert drop.eval()(x) is x
    torch.manual_seed(0)
    kept = drop.train()(x)
    assert kept.shape == (3, prefix + 12, 4)
    assert torch.equal(kept[:, :prefix], x[:, :prefix])
    for before, after in zip(x[:, prefix:, 0].tolist(), kept[:, prefix:, 0].tolist()):
        assert len(set(after)) == 12 and set(after) < set(before)
    assert len({tuple(row) for row in (kept[:, prefix:, 0] % (prefix + 16)).tolist()}) == 3  # each image its own
    with pytest.raises(ValueError, match="a patch dropout of 1.0 leaves nothing"):
        PatchDropout(1.0)


# attention

@pytest.mark.parametrize("kwargs", [
    dict(),
    dict(qkv_bias=True, proj_bias=False),
    dict(qk_norm=True, norm_layer=torch.nn.LayerNorm),
    dict(scale_norm=True, norm_layer=torch.nn.LayerNorm),
], ids=str)
def test_attention_equals_timms(kwargs):
    ours, theirs = Attention(32, num_heads=4, **kwargs), timm_layers.Attention(32, num_heads=4, **kwargs)
    x = noise(2, 9, 32)
    randomize(theirs, x)
    ours.load_state_dict(theirs.state_dict())
    assert relative_difference(ours.eval()(x), theirs(x)) < 1e-5
    mask = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(1)) < 0.7
    mask |= torch.eye(9, dtype=torch.bool)
    assert relative_difference(ours(x, attn_mask=mask), theirs(x, attn_mask=mask)) < 1e-5


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match="32 channels cannot be divided among 5 heads"):
        Attention(32, num_heads=5)


def test_attention_pool_equals_timms():
    options = dict(num_heads=4, mlp_ratio=2.0, norm_layer=torch.nn.LayerNorm)
    ours, theirs = AttentionPoolLatent(32, **options), timm_layers.AttentionPoolLatent(32, **options)
    x = noise(3, 9, 32)
    randomize(theirs, x)
    ours.load_state_dict(theirs.state_dict())
    assert relative_difference(ours.eval()(x), theirs(x)) < 1e-5


def test_attention_pool_begins_with_the_query_that_timms_begins_with():
    torch.manual_seed(0)
    ours, theirs = (pool(1024, num_heads=4, mlp_ratio=0.1) for pool in (AttentionPoolLatent,
                                                                        timm_layers.AttentionPoolLatent))
    assert abs(ours.latent.std() / theirs.latent.std() - 1) < 0.06
    assert abs(ours.latent.abs().max() / theirs.latent.abs().max() - 1) < 0.06  # where it is cut off


@pytest.mark.parametrize("pool_type", ["token", "avg"])
def test_pool_without_parameters_equals_timms(pool_type):
    x = noise(3, 9, 32)
    theirs = timm_layers.AttentionPoolPrr(32, num_heads=4, pool_type=pool_type)
    assert relative_difference(AttentionPoolPrr(32, num_heads=4, pool_type=pool_type)(x), theirs(x)) < 1e-5
