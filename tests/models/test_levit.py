"""LeViT: classifiers and norms that become other modules when merged, biases by distance, options of timm's."""

import copy

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import mvlib
from mvlib.layers import reparameterize
from mvlib.loading import load_checkpoint
from mvlib.models.levit import ConvNorm, Levit, LinearNorm, NormLinear
from tests.parity import harness

from .pairs import assert_same_effect

SMALL = dict(depth=(1, 1, 1), img_size=64)
NAMES = ("levit_128s", "levit_conv_128s")
IMAGE = harness.random_image(64)


def create(name="levit_128s", **kwargs):
    """Norms do something, and branches are not 0."""
    torch.manual_seed(0)
    model = mvlib.create_model(name, pretrained=False, **{**SMALL, **kwargs}).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
    return model


@pytest.mark.parametrize(("name", "kwargs"), [
    ("levit_128s", dict(img_size=(64, 80), in_chans=5, attn_act_layer="gelu")),
    ("levit_128s", dict(stem_type="s8", distilled=False, num_heads=4, attn_ratio=(1.0, 2.0, 3.0), mlp_ratio=1.0)),
    ("levit_conv_128s", dict(img_size=(80, 48), act_layer="relu", key_dim=8)),
])
def test_arguments_have_timms_effect(name, kwargs):
    assert_same_effect(name, kwargs.get("img_size", 64), **{**SMALL, **kwargs})


@pytest.mark.parametrize("name", NAMES)
def test_norms_and_classifiers_are_merged(name):
    model = create(name)
    expected, merged = model(IMAGE), copy.deepcopy(model)
    assert reparameterize(merged) == sum(isinstance(m, (ConvNorm, LinearNorm, NormLinear)) for m in model.modules())
    assert not any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in merged.modules())
    assert harness.relative_difference(merged(IMAGE), expected) < 1e-5
    assert reparameterize(merged) == 0
    timms = timm.utils.reparameterize_model(model)
    assert [*timms.state_dict()] == [*merged.state_dict()]
    assert harness.relative_difference(timms(IMAGE), expected) < 1e-5

    optimized, report = mvlib.optimize(model, IMAGE, compile="off")
    assert harness.relative_difference(optimized(IMAGE), expected) < 1e-4
    assert report["reparameterize"].done and not report["fold"].done
    assert torch.equal(model(IMAGE), expected)


def test_a_classifier_before_and_after_merging(tmp_path):
    model = create(drop_rate=0.3, num_classes=6)
    assert isinstance(model.get_classifier(), NormLinear) and model.logits_paths == ("head.linear", "head_dist.linear")
    reparameterize(model)
    assert type(model.get_classifier()) is nn.Linear and model.logits_paths == ("head", "head_dist")
    assert model.num_classes == model.get_classifier().out_features == 6

    again = create(num_classes=6)
    reparameterize(again)
    save_file(model.state_dict(), tmp_path / "merged.safetensors")
    load_checkpoint(again, tmp_path / "merged.safetensors")
    assert torch.equal(again(IMAGE), model(IMAGE))

    model.reset_classifier(3)
    assert model(IMAGE).shape == (2, 3) and model.drop_rate == model.head.drop.p == model.head_dist.drop.p == 0.3
    assert model.get_classifier().linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.get_classifier().linear.weight.requires_grad and not model.training
    assert reparameterize(model) == 2 and model(IMAGE).shape == (2, 3)
    model.reset_classifier(0)
    assert torch.equal(model(IMAGE), model.forward_head(model.forward_features(IMAGE), pre_logits=True))


def test_dropout_acts_once():
    """It is the classifier's; the model's own, which other heads have, would be a second."""
    model = create(drop_rate=0.5, distilled=False, num_classes=4)
    features = model.forward_features(IMAGE).repeat(64, 1, 1)
    model.head.drop.train()
    assert model.forward_head(features, pre_logits=True).eq(0).sum() == 0
    seen = []
    model.head.linear.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.forward_head(features)
    assert seen[0].eq(0).float().mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_other_classes_keep_the_classifiers_norm(name, tmp_path):
    model = create(name)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    tuned = mvlib.create_model(name, pretrained=True, num_classes=7, **SMALL,
                               pretrained_cfg_overlay=dict(file=str(tmp_path / "model.safetensors"), source="file"))
    for ours, theirs in ((tuned.head, model.head), (tuned.head_dist, model.head_dist)):
        assert torch.equal(ours.bn.running_var, theirs.bn.running_var) and ours.linear.weight.shape[0] == 7
        assert ours.linear.weight.std().item() == pytest.approx(0.02, rel=0.1) and not ours.linear.bias.any()

    save_file(tuned.state_dict(), tmp_path / "tuned.safetensors")
    again = mvlib.create_model(name, pretrained=False, num_classes=7, checkpoint_path=tmp_path / "tuned.safetensors",
                               **SMALL)
    assert torch.equal(again.eval()(IMAGE), tuned.eval()(IMAGE))
    with pytest.raises(mvlib.CheckpointError, match="the file's classifier has 7 classes: pass num_classes=7"):
        mvlib.create_model(name, pretrained=False, checkpoint_path=tmp_path / "tuned.safetensors", **SMALL)


def test_a_file_without_classifier_leaves_a_whole_fresh_one(tmp_path):
    model = create()
    trunk = {key: value for key, value in model.state_dict().items() if not key.startswith("head")}
    save_file(trunk, tmp_path / "trunk.safetensors")
    built = mvlib.create_model("levit_128s", pretrained=False, num_classes=7, **SMALL,
                               checkpoint_path=tmp_path / "trunk.safetensors")
    assert (built.head_dist.bn.running_var == 1).all() and built.head.linear.weight.std() > 0.01
    assert torch.equal(built.eval().forward_features(IMAGE), model.forward_features(IMAGE))


def test_biases_know_distances_and_no_signs():
    attn = create().stages[0].blocks[0].attn
    index = attn.attention_bias_idxs.view(4, 4, 4, 4)
    assert index[0, 0, 1, 2] == index[3, 2, 2, 0] == 1 * 4 + 2 and index[2, 1, 2, 1] == 0
    down = create().stages[1].downsample.attn_downsample
    assert torch.equal(down.attention_bias_idxs, index[::2, ::2].reshape(4, 16))
    assert create().no_weight_decay() == {name for name in create().state_dict() if "attention_biases" in name}


def test_older_files_hold_the_index_of_biases():
    model, old = create(), create().state_dict()
    old["stages.0.blocks.0.attn.attention_bias_idxs"] = torch.zeros(16, 16, dtype=torch.long)
    model.load_state_dict(old)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(stem_type="s4"), "unknown stem_type 's4'; known: 's16', 's8'"),
    (dict(global_pool="max"), "unknown global_pool 'max'; known: 'avg', ''"),
    (dict(depth=(1, 1)), "one number or one for each of the 3 stages"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        Levit(**{**dict(embed_dim=(32, 32, 32), key_dim=16, depth=(1, 1, 1)), **kwargs})


@pytest.mark.parametrize("name", ["levit_128s", "levit_conv_128s"])
def test_images_of_another_size(name):
    with torch.device("meta"), pytest.raises(ValueError, match="the input is 6 x 6, not 4 x 4; resize the images"):
        mvlib.model_entrypoint(name)(img_size=64)(torch.zeros(1, 3, 96, 96))
