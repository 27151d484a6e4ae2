"""CSATv2: the cosine transforms, the authors' files, and what it refuses."""

import pytest
import timm
import torch

from mvlib.models.csatv2 import CSATv2, Dct1d, Dct2dStats, csatv2
from tests.parity import harness

TINY = dict(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), transformer_depths=(0, 0, 0, 1), num_classes=3)


@pytest.mark.parametrize("kernel_type", [2, 3])
@pytest.mark.parametrize("orthonormal", [True, False])
def test_transforms_are_timms(kernel_type, orthonormal):
    classes = Dct1d, timm.models.csatv2.__globals__["Dct1d"]
    ours, theirs = (cls(8, kernel_type, orthonormal).weights for cls in classes)
    assert harness.relative_difference(ours, theirs) < 1e-5


def test_statistics_are_timms():
    image = torch.randn(2, 3, 16, 24)
    ours, theirs = Dct2dStats(8)(image), timm.models.csatv2.__globals__["Dct2dStats"](8)(image)
    for own, other in zip(ours, theirs):
        assert harness.relative_difference(own, other) < 1e-5


def test_the_authors_files_are_read_as_timm_reads_them():
    model = csatv2()
    keys = """dct.Y_Conv.weight dct.Cb_Conv.bias dct.transform.transform.weights stages1.0.grn.gamma stages1.2.weight
        stages1.3.weight stages2.0.attention.conv.weight stages2.3.bias stages3.1.attention.attention.attn.to_qkv.weight
        stages3.9.weight stages3.7.attn.to_qkv.weight stages3.7.attn.to_out.0.bias stages3.6.ff.net.0.weight
        stages4.5.ff.net.3.weight stages4.5.attn_norm.bias stages4.5.ff_norm.bias stages4.5.attn.pos_embed.proj.bias
        stages1.0.attention.attention.pos_embed.proj.weight stages1.1.grn.beta norm.weight head.bias""".split()
    theirs = {key: torch.full((1, 1), float(i)) for i, key in enumerate(keys)}
    read = timm.models.csatv2.__globals__["checkpoint_filter_fn"](dict(theirs), model)
    key_map, = model.key_maps
    assert key_map.matches(theirs) and key_map.convert(theirs, model) == read


def test_bad_arguments_are_reported():
    with pytest.raises(ValueError, match="in_chans is 3 for a CSATv2, which takes colours apart, not 1"):
        CSATv2(in_chans=1)
    with pytest.raises(ValueError, match="out_chs is a multiple of 8, six parts luma and one of each chroma, not 12"):
        CSATv2(**{**TINY, "dims": (12, 16, 24, 32)})
    with pytest.raises(ValueError, match="kernel_type is 2 or 3, not 4"):
        Dct1d(8, 4)
    with pytest.raises(ValueError, match="image size 60x64 cannot be divided into patches of 8x8"):
        CSATv2(**TINY)(torch.zeros(1, 3, 60, 64))
