"""Parity with timm: the record of every architecture, a small one of every family and of some types of block; all with
`-m slow`."""

import re

import pytest
import timm
import torch

from mvlib import registry
from mvlib.layers.helpers import move_to_end
from tests.parity import harness, record
from tests.parity.__main__ import main, show_coverage
from tests.parity.representatives import DEFAULT, FIRST, REPRESENTATIVES

SHARED = [name for name in harness.list_architectures() if timm.is_model(name)]
FAMILIES = {family: members for family, members in REPRESENTATIVES.items() if timm.is_model(FIRST[family])}
RECORD = record.read()
CHECKS = [check for check in harness.CHECKS if check not in ("keys", "graphs")]  # those are elsewhere


def assert_ok(report):
    assert report.ok, "\n".join([report.name, *report.problems])
    assert report.passed, report.notes


SAMPLE = {*FIRST.values(), *SHARED[::24]}  # the default run's; `scripts/pour.sh` compares all of a family


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name in SAMPLE else pytest.mark.slow) for name in SHARED])
def test_keys(name):
    """Ours alone is built; timm's only to say what differs."""
    found = record.digests(harness.build_ours(name))
    differing = [part for part, digest in found.items() if RECORD[name][part] not in (digest, record.NONE)]
    if differing:
        assert_ok(harness.compare(name, ("keys",)))
        assert differing == ["norms"] and "bn_eps" in registry.get_pretrained_cfg(name).model_args, \
            f"not as recorded: {', '.join(differing)}; is tests/parity/timm.json of the installed timm?"


@pytest.mark.slow
@pytest.mark.parametrize("module", timm.list_modules())
def test_record_is_of_the_installed_timm(module):
    assert not list(record.stale(timm.list_models(module=module)))


def test_record_has_every_architecture_of_timm():
    assert list(RECORD) == timm.list_models()


@pytest.mark.sample(16)
@pytest.mark.parametrize(("name", "arguments"), [
    pytest.param(name, arguments, id=f"{family}-{name}", marks=() if name in DEFAULT else pytest.mark.slow)
    for family, members in FAMILIES.items() for name, arguments in members.items()])
def test_representative(name, arguments):
    report = harness.compare(name, CHECKS, **arguments)
    assert_ok(report)
    own = {"init"} if name == "ecaresnet50d_pruned" else set()  # timm leaves new layers as torch makes them
    assert {"heads", "init", "outputs", "gradients"} - own <= set(report.passed), report.notes


@pytest.mark.parametrize(("name", "arguments"), [
    pytest.param(name, arguments, id=f"{family}-{name}", marks=pytest.mark.sample(6 if name in DEFAULT else 24))
    for family, members in FAMILIES.items() for name, arguments in members.items()])
def test_type_of_block(name, arguments):
    """By default of one in six families, and of a few of the further types."""
    assert_ok(harness.compare(name, ("step",), **arguments))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_full_size(name):
    """What depends on an architecture's own depth and widths; the rest is compared on its family's representatives."""
    assert_ok(harness.compare(name, ("heads", "outputs", "features"), max_gib=16))


@pytest.mark.sample(3)
@pytest.mark.parametrize("builder", ["resnet18", "efficientnet_b0", "mobilenet_v2", "mnasnet0_5", "vit_b_32", "swin_t"])
def test_torchvision(builder):
    assert_ok(harness.compare_torchvision(builder))


@pytest.mark.slow
@pytest.mark.parametrize("builder", [
    builder for builder in harness.list_builders(["*"]) if harness.torchvision_weights(builder)
    and builder not in ("googlenet", "inception_v3")])  # whose weights change the input: test_torchvision.py has them
def test_every_torchvision_builder(builder):
    assert_ok(harness.compare_torchvision(builder, max_gib=16))


def test_what_timms_entrypoint_sets_can_be_set():
    with pytest.raises(TypeError, match="multiple values for keyword argument 'dim'"):
        timm.create_model("convmixer_768_32", dim=16)
    theirs = harness.create_timm("convmixer_768_32", dim=16, depth=None, num_classes=7)
    assert theirs.num_features == 16 and len(theirs.blocks) == 32 and theirs.head.out_features == 7
    with pytest.raises(TypeError, match="width"):
        harness.create_timm("convmixer_768_32", width=16)


def test_every_family_is_represented():
    families, broken = harness.import_families()
    assert not broken
    with_peer = {family for family in families if any(map(timm.is_model, registry.list_models(module=family)))}
    assert with_peer <= set(REPRESENTATIVES)
    for family, members in REPRESENTATIVES.items():
        assert set(members) <= set(registry.list_models(module=family))
        for name, arguments in members.items():
            assert None not in arguments.values(), f"{name}: create_model passes over what is None, as timm's does"


# the harness finds what it is there to find

CHANGES = {  # arguments that timm's model gets and ours does not
    "size": (dict(num_classes=7), "keys", r"state dict: 2 different: classifier.bias \('parameter', \(1000,\)\), exp"),
    "stride": (dict(output_stride=16), "keys", "feature_info: "),
    "eps": (dict(bn_eps=1e-3), "outputs", "logits: differs by"),
    "activation": (dict(act_layer="relu"), "features", "features: differs by"),
    "padding": (dict(pad_type="same"), "gradients", "logits: differs by"),
    "dropout": (dict(drop_rate=0.5), "gradients", "logits: differs by"),
    "epsilon": (dict(bn_eps=1e-3), "keys", "norms: "),
    "pool": (dict(global_pool="catavgmax"), "heads", r"reset_classifier\({'num_classes': 7}\): state dict: "),
    "indices": (dict(out_indices=(1,)), "extractors", r"features_only, default: "),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_difference_is_found(change, monkeypatch):
    arguments, check, message = CHANGES[change]
    build = harness.build_timm
    monkeypatch.setattr(harness, "build_timm", lambda name, *a, **kwargs: build(name, *a, **{**kwargs, **arguments}))
    report = harness.compare("mobilenetv2_035", (check,))
    assert not report.ok and not report.passed
    assert re.match(message, report.problems[0]), report.problems


def test_rounding_is_told_from_a_difference(monkeypatch):
    """Of a difference, test_a_difference_is_found tells."""
    monkeypatch.setattr(harness, "TOLERANCE", 1e-9)
    name = FIRST["convit"]
    report = harness.compare(name, ("outputs",), **REPRESENTATIVES["convit"][name])
    assert report.passed == ["outputs"] and report.differences["logits"] > 1e-9, report
    assert re.search(r"in float64; .*: rounding$", report.notes[-1]), report


def test_other_initial_weights_are_found(monkeypatch):
    def build_with_wider_weights(*args, **kwargs):
        model = timm.create_model(*args, **kwargs)
        with torch.no_grad():
            model.blocks[3][1].conv_dw.weight.mul_(1.5)
            model.classifier.bias.fill_(0.1)
        return model

    monkeypatch.setattr(harness, "build_initialised_timm", build_with_wider_weights)
    problems = harness.compare("mobilenetv2_035", ("init",)).problems
    assert [problem.split()[1] for problem in problems] == ["blocks.3.1.conv_dw.weight", "classifier.bias"]


def test_wrong_gradients_are_found(monkeypatch):
    load = harness.load_weights

    def load_and_stop_a_gradient(model, *args, **kwargs):
        load(model, *args, **kwargs)
        model.conv_head.weight.register_hook(lambda gradient: 1.01 * gradient)

    monkeypatch.setattr(harness, "load_weights", load_and_stop_a_gradient)
    for check in ("step", "gradients"):
        (problem,) = harness.compare("mobilenetv2_035", (check,)).problems
        assert re.match("gradients: that of conv_head.weight differs by 1.0e-02", problem)


def test_another_order_is_found(monkeypatch):
    build = harness.build_timm

    def build_with_the_stem_last(*args, **kwargs):
        model = build(*args, **kwargs)
        move_to_end(model, "conv_stem")
        return model

    monkeypatch.setattr(harness, "build_timm", build_with_the_stem_last)
    report = harness.compare("mobilenetv2_035", ("keys",))
    assert report.problems[0] == "state dict: in another order: conv_stem.weight, expected bn1.weight"
    assert all(problem.startswith(("norms", "layer groups")) for problem in report.problems[1:])


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


def test_coverage_names_what_is_missing(capsys):
    hrnets = set(timm.list_models(module="hrnet"))
    assert show_coverage(hrnets) == 0
    assert show_coverage(hrnets - {"hrnet_w18", "hrnet_w64"}) == 1
    out = capsys.readouterr().out
    assert f"11 of 11 architectures of 1 of timm's modules are here; its other {len(timm.list_modules()) - 1}" in out
    assert "9 of 11" in out and "    hrnet: hrnet_w18, hrnet_w64\n" in out


@pytest.mark.parametrize(("arguments", "message"), [
    (["--all", "resnet"], "--all takes no patterns"),
    (["no_such_*"], "no architecture of mvlib matches 'no_such_\\*'"),
    (["resnet", "--checks", "key"], "unknown check 'key'; known: keys, extractors"),
    (["--module", "alexandria"], "mvlib has no family 'alexandria'"),
    (["--torchvision", "no_such"], "no builder of torchvision.models matches 'no_such'"),
])
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert re.search(message, capsys.readouterr().err)
