"""Parity with timm: every key set, and one small architecture for every type of block; all of them with `-m slow`."""

import re

import pytest
import timm
import torch

from mvlib import registry
from mvlib.layers.helpers import move_to_end
from tests.parity import harness
from tests.parity.__main__ import main
from tests.parity.representatives import REPRESENTATIVES

SHARED = [name for name in harness.list_architectures() if timm.is_model(name)]
SMALL = [(name, arguments) for family in REPRESENTATIVES.values() for name, arguments in family.items()]
DYNAMIC = ("outputs", "features", "gradients")


def assert_ok(report):
    assert report.ok, "\n".join([report.name, *report.problems])
    assert report.passed, report.notes


@pytest.mark.parametrize("name", SHARED)
def test_keys(name):
    assert_ok(harness.compare(name, ("keys",)))


@pytest.mark.parametrize(("name", "arguments"), SMALL, ids=[name for name, _ in SMALL])
def test_representative(name, arguments):
    report = harness.compare(name, DYNAMIC, **arguments)
    assert_ok(report)
    assert {"outputs", "gradients"} <= set(report.passed), report.notes


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_everything(name):
    assert_ok(harness.compare(name, max_gib=16))


@pytest.mark.parametrize("builder", ["resnet18", "efficientnet_b0", "mobilenet_v2", "mnasnet0_5", "vit_b_32", "swin_t"])
def test_torchvision(builder):
    assert_ok(harness.compare_torchvision(builder))


@pytest.mark.slow
@pytest.mark.parametrize("builder", filter(harness.torchvision_weights, harness.list_builders(["*"])))
def test_every_torchvision_builder(builder):
    assert_ok(harness.compare_torchvision(builder, max_gib=16))


def test_every_family_is_represented():
    families, broken = harness.import_families()
    assert not broken
    with_peer = {family for family in families if any(map(timm.is_model, registry.list_models(module=family)))}
    assert with_peer == set(REPRESENTATIVES)
    for family, members in REPRESENTATIVES.items():
        assert set(members) <= set(registry.list_models(module=family))


# the harness finds what it is there to find

CHANGES = {  # arguments that timm's model gets and ours does not
    "size": (dict(num_classes=7), "keys", r"state dict: 2 different: classifier.bias \('parameter', \(1000,\)\), exp"),
    "stride": (dict(output_stride=16), "keys", "feature_info: "),
    "eps": (dict(bn_eps=1e-3), "outputs", "logits: differs by"),
    "activation": (dict(act_layer="relu"), "features", "features: differs by"),
    "padding": (dict(pad_type="same"), "gradients", "gradients: that of .* differs by"),
    "dropout": (dict(drop_rate=0.5), "gradients", "gradients: that of .* differs by"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_difference_is_found(change, monkeypatch):
    arguments, check, message = CHANGES[change]
    build = harness.build_timm
    monkeypatch.setattr(harness, "build_timm", lambda name, *a, **kwargs: build(name, *a, **{**kwargs, **arguments}))
    report = harness.compare("mobilenetv2_035", (check,))
    assert not report.ok and not report.passed
    assert re.match(message, report.problems[0]), report.problems


def test_another_order_is_found(monkeypatch):
    build = harness.build_timm

    def build_with_the_stem_last(*args, **kwargs):
        model = build(*args, **kwargs)
        move_to_end(model, "conv_stem")
        return model

    monkeypatch.setattr(harness, "build_timm", build_with_the_stem_last)
    report = harness.compare("mobilenetv2_035", ("keys",))
    assert report.problems == [f"{what}: in another order: conv_stem.weight, expected bn1.weight"
                               for what in ("state dict", "parameters")]


def test_a_failure_is_a_row(monkeypatch):
    monkeypatch.setattr(harness, "randomize", lambda *args: 1 / 0)
    report = harness.compare("mobilenetv2_035", ("outputs",))
    assert re.match(r"ZeroDivisionError: division by zero \(test_parity.py:\d+\)", report.problems[0])


def test_dead_weights_prove_nothing(monkeypatch):
    def kill(model, image):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        model.eval()

    monkeypatch.setattr(harness, "randomize", kill)
    assert "constant output" in harness.compare("mobilenetv2_035", ("outputs",)).problems[0]


def test_command_line(capsys):
    assert main(["mobilenetv2_035", "mnasnet_130", "--checks", "keys,outputs"]) == 0
    out = capsys.readouterr().out
    assert "ok: keys, outputs" in out and "timm has no such architecture" in out
    assert "1 same, 0 differ, 1 skipped" in out
    assert main(["mobilenetv2_*", "--module", "efficientnet", "--checks", "outputs", "--max-gib", "0.007"]) == 0
    assert "outputs left out: needs 0.0" in capsys.readouterr().out
    assert main(["--torchvision", "alexnet"]) == 0


def test_command_line_fails_where_something_differs(capsys, monkeypatch):
    monkeypatch.setattr(harness, "TOLERANCE", -1.0)
    assert main(["mobilenetv2_035", "--checks", "outputs"]) == 1
    assert "0 same, 1 differ, 0 skipped" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (["no_such_*"], "no architecture of mvlib matches 'no_such_\\*'"),
    (["resnet", "--checks", "key"], "unknown check 'key'; known: keys, outputs"),
    (["--module", "alexandria"], "mvlib has no family 'alexandria'"),
    (["--torchvision", "no_such"], "no builder of torchvision.models matches 'no_such'"),
])
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert re.search(message, capsys.readouterr().err)
