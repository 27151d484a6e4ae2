"""What is peculiar to Gemma 4's vision encoder: patches with padding, bounds of linear layers, and original files."""

import pytest
import timm
import torch

import mvlib

from ..parity.harness import randomize
from ..parity.representatives import REPRESENTATIVES

TINY = REPRESENTATIVES["gemma4_vit"]["gemma4_vit_167m"]
LAYERS = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm", "norm3": "pre_feedforward_layernorm",
          "norm4": "post_feedforward_layernorm", ".attn.": ".self_attn.", "blocks.": "encoder.layers.",
          "patch_embed.": "patch_embedder."}


def pair(name, **kwargs):
    """Ours and timm's with the same weights."""
    arguments = {**TINY, **kwargs}
    theirs = timm.create_model(name, pretrained=False, **arguments)
    randomize(theirs, torch.rand(1, 3, 96, 96))
    ours = mvlib.create_model(name, pretrained=False, **arguments)
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


def patches():
    """Two images of 3 x 6 and 3 x 3 patches; the second has padding."""
    numbers = torch.Generator().manual_seed(0)
    coord = torch.full((2, 18, 2), -1)
    coord[0] = torch.cartesian_prod(torch.arange(3), torch.arange(6))
    coord[1, :9] = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    return {"patches": torch.rand(2, 18, 16 * 16 * 3, generator=numbers), "patch_coord": coord,
            "patch_valid": (coord >= 0).all(-1)}


@torch.no_grad()
@pytest.mark.parametrize("name, options", [
    ("gemma4_vit_167m", {}), ("gemma4_vit_167m", {"encoder_pool": "soft"}), ("gemma4_vit_570m_enc", {}),
    ("gemma4_vit_167m_enc", {"global_pool": "avg"}), ("gemma4_vit_167m_enc", {"global_pool": ""})])
def test_patches_with_padding_are_as_in_timm(name, options):
    (ours, theirs), given = pair(name, **options), patches()
    torch.testing.assert_close(ours(given), theirs(given))
    unsaid = {key: value for key, value in given.items() if key != "patch_valid"}  # the coordinates tell
    torch.testing.assert_close(ours(unsaid), theirs(unsaid))
    squares = dict(given, patches=given["patches"].unflatten(2, (16, 16, 3)))
    torch.testing.assert_close(ours(squares), theirs(given))
    found = ours.forward_intermediates(given, output_fmt="NLC", intermediates_only=True)
    torch.testing.assert_close(found, theirs.forward_intermediates(given, output_fmt="NLC", intermediates_only=True))
    assert torch.equal(ours.forward_intermediates(given, output_fmt="NLC", output_dict=True)["patch_valid"],
                       given["patch_valid"])


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated", "ignore:torch.quantize_per_tensor")
def test_linear_layers_may_be_packed():
    model, x = pair("gemma4_vit_167m")[0], torch.rand(2, 3, 96, 96)
    expected = model(x)
    packed = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    torch.testing.assert_close(packed(x), expected, rtol=0.2, atol=0.2 * expected.abs().max().item())
    optimized, report = mvlib.optimize(model, x, compile="off")
    torch.testing.assert_close(optimized(x), expected, rtol=1e-3, atol=1e-3)
    assert report["prepack"].done


@torch.no_grad()
def test_padding_changes_nothing():
    model, given = pair("gemma4_vit_167m")[0], patches()
    alone = {key: value[1:, :9] for key, value in given.items()}
    torch.testing.assert_close(model(given)[1:], model(alone))


@torch.no_grad()
def test_bounds_can_be_lifted():
    model, x = pair("gemma4_vit_167m")[0], torch.rand(1, 3, 96, 96)
    free = model(x)
    for name, bound in model.named_buffers():
        if name.endswith(("_min", "_max")):
            bound.fill_(-0.1 if name.endswith("min") else 0.1)
    assert not torch.allclose(model(x), free)
    model.set_clamp_enabled(False)
    assert torch.equal(model(x), free)


@torch.no_grad()
def test_original_files_are_read():
    encoder, x = pair("gemma4_vit_570m_enc")[0], torch.rand(1, 3, 96, 96)
    original = {"model.language_model.norm.weight": torch.ones(3)}
    for key, value in encoder.state_dict().items():
        for ours, theirs in LAYERS.items():
            key = key.replace(ours, theirs)
        original[f"model.vision_tower.{key}"] = value
    for name in ("gemma4_vit_570m_enc", "gemma4_vit_570m"):
        model = mvlib.create_model(name, pretrained=False, num_classes=0, **TINY).eval()
        model.load_state_dict(original)
        assert torch.equal(model.forward_features(x), encoder.forward_features(x))
    encoder.load_state_dict(model.state_dict())


def test_bad_input_is_refused_in_a_line():
    encoder, given = mvlib.create_model("gemma4_vit_167m_enc", pretrained=False, **TINY), patches()
    with pytest.raises(ValueError, match="the pool takes images of multiples of 48 x 48 pixels, not 64 x 96; resize"):
        encoder(torch.zeros(1, 3, 64, 96))
    with pytest.raises(ValueError, match="patches need patch_coord, the row and column of each"):
        encoder(given["patches"])
    with pytest.raises(ValueError, match="patches of images of different sizes make no maps: output_fmt is 'NLC', not"):
        encoder.forward_intermediates(given)
    with pytest.raises(ValueError, match="16 patches cannot be pooled in blocks of 3 x 3: pad to a multiple"):
        encoder({key: value[:, :16] for key, value in given.items()})
    with pytest.raises(RuntimeError, match="the blocks of patches that are pooled do not divide a grid"):
        encoder(dict(given, patch_coord=given["patch_coord"].clamp(max=4)))
    with pytest.raises(ValueError, match="an encoder classifies nothing: build the model of the same name without"):
        encoder.reset_classifier(3)
    with pytest.raises(ValueError, match="unknown global_pool 'max'; known: 'soft', 'avg', 'none', ''"):
        encoder.reset_classifier(0, "max")
    with pytest.raises(ValueError, match="unknown encoder_pool 'avg'; known: '', 'none', 'soft'"):
        mvlib.create_model("gemma4_vit_167m", pretrained=False, encoder_pool="avg", **TINY)
    with pytest.raises(ValueError, match="2 heads of keys and values are not for 3 heads of queries"):
        mvlib.create_model("gemma4_vit_167m", pretrained=False, num_kv_heads=2, **TINY)
