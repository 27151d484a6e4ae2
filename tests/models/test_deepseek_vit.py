"""What is peculiar to DeepSeek's vision encoder: its aligner, padding, and files of whole multimodal models."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.deepseek_vit import checkpoint_filter_fn_classifier, checkpoint_filter_fn_encoder

import mvlib

NAMES = ("deepseek_vit_412m_enc", "deepseek_vit_412m_align", "deepseek_vit_412m")
TINY = dict(depth=2, embed_dim=48, num_heads=3, out_features=40)
OTHERS = "embed.weight", "norm.weight", "head.weight", "layers.0.attn.wo_a.weight", "image_start"  # a language model's


def deepseeks(encoder):
    """An encoder's weights as DeepSeek publishes them, in a shard of a whole multimodal model."""
    out = {key: torch.ones(3) for key in OTHERS}
    for key, value in encoder.state_dict().items():
        for ours, theirs in ((".qkv.", ".wqkv."), (".attn.proj.", ".attn.wo."), (".fc1.", ".w1."), (".fc2.", ".w2.")):
            key = key.replace(ours, theirs)
        value = value.flatten(1) if value.ndim == 4 else value
        out[key if key.startswith("aligner.") else f"vision.{key}"] = value
    return out


def tiny(name, lib=mvlib, **kwargs):
    return lib.create_model(name, pretrained=False, **TINY, **kwargs).eval()


@torch.no_grad()
def test_whole_multimodal_models_are_read(tmp_path):
    encoder = tiny("deepseek_vit_412m_enc")
    published = deepseeks(encoder)
    save_file(published, tmp_path / "model.safetensors")
    x = torch.randn(1, 3, 56, 98)
    expected, features = encoder(x), encoder.forward_features(x)
    assert expected.shape == (1, 2 * 3, 40) and features.shape == (1, 4, 7, 48)
    for name in NAMES:
        model = mvlib.create_model(name, checkpoint_path=tmp_path / "model.safetensors", **TINY).eval()
        wanted = features if name == "deepseek_vit_412m" else expected
        torch.testing.assert_close(model(x) if name.endswith("_enc") else model.forward_features(x), wanted)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["theirs", "their_aligner", "theirs_alone", "encoder", "flat", "classifier"])
def test_files_are_read_as_timm_reads_them(name, layout):
    encoder, classifier = tiny(NAMES[0]), tiny(NAMES[1], num_classes=5)
    theirs = deepseeks(encoder)
    given = {
        "theirs": theirs,
        "their_aligner": {key: value for key, value in theirs.items() if not key.startswith("vision.")},
        "theirs_alone": {key.removeprefix("vision."): value for key, value in theirs.items() if key not in OTHERS},
        "encoder": encoder.state_dict(),
        "flat": {key: value.flatten(1) if value.ndim == 4 else value for key, value in encoder.state_dict().items()},
        "classifier": classifier.state_dict(),
    }[layout]
    if layout == "their_aligner":
        del given["norm.weight"]  # timm takes it for the encoder's
    kwargs = {} if name.endswith("_enc") else dict(num_classes=5)
    ours, reference = tiny(name, **kwargs), tiny(name, timm, **kwargs)
    read = checkpoint_filter_fn_encoder if name.endswith("_enc") else checkpoint_filter_fn_classifier
    expected, got = read(dict(given), reference), ours.adapt_state_dict(dict(given))
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[key], expected[key]) for key in got)


@torch.no_grad()
def test_encoder_and_classifier_read_each_others_weights():
    encoder, classifier = tiny(NAMES[0]), tiny(NAMES[2], num_classes=5)
    assert not classifier.load_state_dict(encoder.state_dict(), strict=False).unexpected_keys
    pooled = tiny(NAMES[0], global_pool="avg")
    pooled.load_state_dict(classifier.state_dict())
    x = torch.randn(1, 3, 56, 56)
    assert torch.equal(pooled(x), encoder.forward_features(x).mean((1, 2)))


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_images_of_any_size_with_padding(name):
    models = [tiny(name, lib, dynamic_img_pad=True) for lib in (mvlib, timm)]
    models[0].load_state_dict(models[1].state_dict())
    for size in ((42, 42), (50, 71), (13, 100)):
        x = torch.randn(2, 3, *size)
        ours, theirs = (model(x) for model in models)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        ours, theirs = (model.forward_intermediates(x, 1, norm=True, intermediates_only=True) for model in models)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_an_exported_encoder_takes_maps_that_blocks_divide_and_others():
    encoder, (rows, columns) = tiny(NAMES[0]), (torch.export.Dim(name, min=2, max=20) for name in ("rows", "columns"))
    graph = torch.export.export(
        encoder, (torch.randn(2, 3, 70, 98),), dynamic_shapes=({2: 14 * rows, 3: 14 * columns},)).module()
    for size in ((84, 84), (56, 98), (84, 70)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(graph(x), encoder(x))


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("norm", "head"), [(False, False), (True, False), (False, True), (True, True)])
def test_pruned_as_timm(name, norm, head):
    models = [tiny(name, lib) for lib in (mvlib, timm)]
    models[0].load_state_dict(models[1].state_dict())
    for model in models:
        assert model.prune_intermediate_layers([0], prune_norm=norm, prune_head=head) == [0]
    assert models[0].state_dict().keys() == models[1].state_dict().keys()
    assert models[0].head_hidden_size == models[1].head_hidden_size
    x = torch.randn(1, 3, 42, 56)
    torch.testing.assert_close(models[0](x), models[1](x), rtol=1e-5, atol=1e-5)


def test_the_aligner_has_the_width_of_the_weights_language_model():
    for name, width in (("deepseek_vit_412m_enc", 5120), ("deepseek_vit_412m_align", 5120),
                        ("deepseek_vit_412m_enc.deepseek_v4_flash_vision_exp", 4096)):
        with torch.device("meta"):
            ours, theirs = (lib.create_model(name, pretrained=False, depth=1) for lib in (mvlib, timm))
        assert ours.head_hidden_size == theirs.head_hidden_size == width


def test_bad_input_is_refused_in_a_line():
    encoder = tiny("deepseek_vit_412m_enc")
    with pytest.raises(ValueError, match="50 x 56"):
        encoder(torch.zeros(1, 3, 50, 56))
    with pytest.raises(ValueError, match="an encoder classifies nothing: build the model of the same name without"):
        encoder.reset_classifier(3)
    encoder.reset_classifier(0, "avg")
    with pytest.raises(ValueError, match="the aligner has weights: build the model with global_pool='align'"):
        encoder.reset_classifier(0, "align")
    with pytest.raises(ValueError, match="unknown encoder_pool 'avg'; known: '', 'align'"):
        tiny("deepseek_vit_412m", encoder_pool="avg")
    for bad, message in ((dict(out_features=0), "at least 1, not 0 and 3"),
                         (dict(num_heads=5), "48 channels cannot be divided among 5 heads"),
                         (dict(num_heads=8), "48 channels cannot be divided among 8 heads of a multiple of 4")):
        with pytest.raises(ValueError, match=message):
            mvlib.create_model("deepseek_vit_412m_enc", pretrained=False, **{**TINY, **bad})
