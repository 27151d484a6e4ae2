"""What is peculiar to Qwen's vision encoder: its merger, and files of whole multimodal models."""

import pytest
import timm
import torch
from safetensors.torch import save_file

import mvlib

TINY = dict(depth=2, embed_dim=48, num_heads=3, pos_embed_grid_size=4, out_features=40)


def qwens(encoder, prefix):
    """An encoder's weights as Qwen publishes them, in a whole multimodal model."""
    others = "model.language_model.norm.weight", f"{prefix}deepstack_merger_list.0.norm.bias"
    out = {key: torch.ones(3) for key in others}
    for key, value in encoder.state_dict().items():
        for ours, theirs in ((".fc1.", ".linear_fc1."), (".fc2.", ".linear_fc2.")):
            key = key.replace(ours, theirs)
        if key == "pos_embed":
            key, value = "pos_embed.weight", value[0]
        if key == "patch_embed.proj.weight":
            value = torch.stack((0.25 * value, 0.75 * value), dim=2)
        out[prefix + key] = value.contiguous()
    return out


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["model.visual.", "vlm.model.visual."])
def test_whole_multimodal_models_are_read(tmp_path, prefix):
    encoder = mvlib.create_model("qwen3_vit_88m_enc", pretrained=False, **TINY).eval()
    save_file(qwens(encoder, prefix), tmp_path / "model.safetensors")
    x = torch.randn(1, 3, 64, 96)
    expected, features = encoder(x), encoder.forward_features(x)
    assert expected.shape == (1, 6, 40)
    for name in ("qwen3_vit_88m_enc", "qwen3_vit_88m_merge", "qwen3_vit_88m"):
        model = mvlib.create_model(name, checkpoint_path=tmp_path / "model.safetensors", **TINY).eval()
        wanted = features if name == "qwen3_vit_88m" else expected
        got = model(x) if name.endswith("_enc") else model.forward_features(x)
        torch.testing.assert_close(got, wanted)


@torch.no_grad()
def test_encoder_and_classifier_read_each_others_weights():
    encoder = mvlib.create_model("qwen3_vit_88m_enc", pretrained=False, **TINY)
    classifier = mvlib.create_model("qwen3_vit_88m", pretrained=False, num_classes=5, **TINY)
    assert not classifier.load_state_dict(encoder.state_dict(), strict=False).unexpected_keys
    pooled = mvlib.create_model("qwen3_vit_88m_enc", pretrained=False, global_pool="avg", **TINY)
    pooled.load_state_dict(classifier.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(pooled(x), encoder.forward_features(x).mean((1, 2)))


def test_the_merger_has_the_width_of_the_weights_language_model():
    for name in ("qwen3_vit_306m_enc", "qwen3_vit_306m_enc.qwen3_vl_4b", "qwen3_vit_416m_merge.qwen3_vl_30b_a3b"):
        with torch.device("meta"):
            ours, theirs = (lib.create_model(name, pretrained=False, depth=1) for lib in (mvlib, timm))
        assert ours.head_hidden_size == theirs.head_hidden_size


def test_bad_input_is_refused_in_a_line():
    encoder = mvlib.create_model("qwen3_vit_88m_enc", pretrained=False, **TINY)
    with pytest.raises(ValueError, match="gives 3 x 4 patches, which blocks of 2 x 2 do not divide; resize the images"):
        encoder(torch.zeros(1, 3, 48, 64))
    with pytest.raises(ValueError, match="an encoder classifies nothing: build the model of the same name without"):
        encoder.reset_classifier(3)
    with pytest.raises(ValueError, match="unknown global_pool 'max'; known: '', 'avg', 'merge'"):
        encoder.reset_classifier(0, "max")
    encoder.reset_classifier(0, "avg")
    with pytest.raises(ValueError, match="the merger has weights: build the model with global_pool='merge'"):
        encoder.reset_classifier(0, "merge")
    with pytest.raises(ValueError, match="unknown encoder_pool 'avg'; known: '', 'merge'"):
        mvlib.create_model("qwen3_vit_88m", pretrained=False, encoder_pool="avg", **TINY)
