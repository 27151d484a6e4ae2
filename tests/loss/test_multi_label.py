"""Losses by name, the poly and multi-label losses, weights of classes: timm's values, gradients and errors."""

import inspect
import json

import pytest
import timm.loss
import torch

from mvlib import loss as ours
from mvlib.errors import ConfigError

N, CLASSES = 6, 9
NN_MODULES = ("args", "kwargs")  # of a class without a constructor
COUNTS = [1, 0, 40, 100, 7, 3, 99, 12, 50]


def batch(kind):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, CLASSES, generator=generator) * 3
    if kind == "labels":
        return x, torch.randint(CLASSES, (N,), generator=generator)
    y = (torch.rand(N, CLASSES, generator=generator) < 0.3).float()
    y[2] = 0  # an image without labels
    y[:, 4] = 0
    return x, {"several": y, "mixed": 0.6 * y + 0.4 * y.roll(1, 0), "mix": (x * 0.3).roll(1, 0).softmax(-1)}[kind]


def same(mine, theirs, x, y):
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    values = [loss(leaf, y) for loss, leaf in zip((mine, theirs), leaves)]
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    for value in values:
        value.sum().backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name, kind, kwargs", [
    ("PolyCrossEntropy", "labels", {}), ("PolyCrossEntropy", "labels", dict(epsilon=-1.0, smoothing=0.1)),
    ("PolyCrossEntropy", "mix", dict(smoothing=0.1, reduction="none")),
    ("PolyCrossEntropy", "labels", dict(reduction="sum")),
    ("PolyBinaryCrossEntropy", "several", {}), ("PolyBinaryCrossEntropy", "mixed", dict(gamma=2.0, alpha=0.25)),
    ("PolyBinaryCrossEntropy", "several", dict(smoothing=0.1, reduction="batchmean")),
    ("PolyBinaryCrossEntropy", "several", dict(reduction="none")),
    ("TwoWayLoss", "several", {}), ("TwoWayLoss", "mixed", dict(tp=2.0, tn=0.5)), ("ZlprLoss", "several", {}),
    ("DistributionBalancedLoss", "several", {}),
    ("DistributionBalancedLoss", "mixed", dict(smoothing=0.1, reduction="batchmean", neg_scale=1.5, init_bias=0.1)),
    ("DistributionBalancedLoss", "several", dict(focal_gamma=0.0, reduction="sum", map_mu=0.3, map_alpha=0.2)),
])
def test_values_and_gradients_are_timms(name, kind, kwargs):
    arguments = (COUNTS, 100) if name == "DistributionBalancedLoss" else ()
    mine, theirs = (getattr(side, name)(*arguments, **kwargs) for side in (ours, timm.loss))
    same(mine, theirs, *batch(kind))


@pytest.mark.parametrize("name", ["TwoWayLoss", "ZlprLoss"])
def test_a_batch_without_labels_or_with_all_has_a_finite_gradient(name):
    for value in (0.0, 1.0):
        x = torch.randn(3, 4, requires_grad=True)
        getattr(ours, name)()(x, torch.full((3, 4), value)).backward()
        assert x.grad.isfinite().all()


def test_arguments_are_timms():
    for name in timm.loss.__dict__:
        if callable(theirs := getattr(timm.loss, name)):
            mine, expected = (
                [(p.name, p.default) for p in inspect.signature(side).parameters.values() if p.name not in NN_MODULES]
                for side in (getattr(ours, name), theirs))
            assert mine == expected, name


BY_NAME = [
    dict(), dict(smoothing=0.1), dict(soft_targets=True, smoothing=0.1), dict(multi_label=True),
    dict(loss_type="bce", smoothing=0.1, bce_sum=True), dict(loss_type="bce", soft_targets=True, bce_target_thresh=0.2),
    dict(multi_label=True, smoothing=0.1, class_weight=[1.0] * 8 + [2.0], pos_weight=3.0),
    dict(loss_type="asl", multi_label=True, pos_weight=[2.0] * 9, asl_clip=None, asl_reduction="mean", smoothing=0.1),
    dict(loss_type="asl", smoothing=0.1, asl_gamma_neg=2.0), dict(loss_type="poly", smoothing=0.1, poly_epsilon=1.0),
    dict(loss_type="poly", multi_label=True, poly_gamma=1.0, poly_alpha=0.3, smoothing=0.1),
    dict(loss_type="poly", soft_targets=True, smoothing=0.1), dict(loss_type="jsd", jsd_splits=3, smoothing=0.1),
    dict(loss_type="twoway", multi_label=True, twoway_tp=2.0), dict(loss_type="zlpr", multi_label=True),
    dict(loss_type="db", multi_label=True, class_counts=COUNTS, num_samples=100, db_neg_scale=3.0, smoothing=0.1),
    dict(loss_type="db", multi_label=True, class_counts=COUNTS, num_samples=100, soft_targets=True, smoothing=0.1),
]


@pytest.mark.parametrize("kwargs", BY_NAME, ids=str)
def test_a_loss_by_name_is_timms(kwargs):
    mine, theirs = (side.create_classification_loss(**kwargs) for side in (ours, timm.loss))
    assert type(mine).__name__ == type(theirs).__name__
    soft = kwargs.get("soft_targets")
    same(mine, theirs, *batch(("mixed" if soft else "several") if kwargs.get("multi_label") else
                              "mix" if soft else "labels"))


@pytest.mark.parametrize("kwargs, message", [
    (dict(loss_type="focal"), "unknown loss 'focal'; known: ce, bce, asl"),
    (dict(loss_type="ce", multi_label=True), "loss 'ce' is for one label an image; for several: bce, asl"),
    (dict(loss_type="zlpr"), "loss 'zlpr' is for several labels an image"),
    (dict(class_weight=2.0), "loss 'ce': weights of classes and positives go with bce"),
    (dict(loss_type="asl", pos_weight=2.0), "loss 'asl': weights of classes and positives go with bce"),
    (dict(bce_sum=True), "a target threshold and a sum go with bce"),
    (dict(num_samples=4), "counts of classes go with db"),
    (dict(loss_type="db", multi_label=True), "db needs class_counts and num_samples"),
    (dict(loss_type="jsd"), "jsd needs jsd_splits of 2 or more"),
    (dict(loss_type="twoway", multi_label=True, smoothing=0.1), "it needs targets neither mixed nor smoothed"),
    (dict(loss_type="asl", soft_targets=True), "asl for one label needs targets that are not mixed"),
    (dict(loss_type="asl", asl_reduction="sum"), "has no other reduction than 'batchmean'"),
    (dict(loss_type="poly", poly_gamma=1.0), "poly_gamma and poly_alpha are for several labels"),
    (dict(loss_type="poly", multi_label=True, poly_alpha=2.0), "the weight of positives is from 0 to 1, not 2.0"),
    (dict(loss_type="poly", smoothing=1.0), "label smoothing is from 0 to below 1, not 1.0"),
    (dict(loss_type="twoway", multi_label=True, twoway_tn=0.0), "temperatures are above 0, not 4.0 and 0.0"),
    (dict(loss_type="db", multi_label=True, class_counts=[3, 9], num_samples=8), "not 3 to 9 of 8"),
    (dict(loss_type="db", multi_label=True, class_counts=[], num_samples=8), "one number a class, not of the shape (0"),
    (dict(loss_type="db", multi_label=True, class_counts=[3], num_samples=8, db_neg_scale=0.0),
     "the scale of negatives is above 0, not 0.0"),
], ids=lambda value: str(value)[:50])
def test_what_does_not_go_together_is_said(kwargs, message):
    with pytest.raises(ConfigError) as error:
        ours.create_classification_loss(**kwargs)
    assert message in str(error.value)
    with pytest.raises((ValueError, AssertionError)):
        timm.loss.create_classification_loss(**kwargs)


@pytest.mark.parametrize("kwargs", [
    {}, dict(power=0.5), dict(max_weight=5.0), dict(method="inv_freq"), dict(method="inv_freq", power=0.5),
    dict(method="effective_num"), dict(method="effective_num", beta=0.9, max_weight=2.0),
], ids=str)
def test_weights_from_counts_are_timms(kwargs):
    mine, theirs = (side.compute_class_weights(COUNTS, 100, **kwargs) for side in (ours, timm.loss))
    assert mine[0] == theirs[0]
    torch.testing.assert_close(mine[1], theirs[1], rtol=1e-6, atol=0)


def test_weights_as_they_are_written(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps({"class_weight": [1, 2], "pos_weight": 3}))
    (tmp_path / "list.json").write_text("[1, 2.5]")
    (tmp_path / "w.txt").write_text("1, 2\n3")
    values = [None, "", " ", 2, 0.5, [1, 2], torch.tensor([3.0]), "1,2 3", "4", *map(str, tmp_path.iterdir())]
    for value in values:
        mine, theirs = (side.load_class_weights(value) for side in (ours, timm.loss))
        assert type(mine) is type(theirs)
        assert mine is None or torch.as_tensor(mine).equal(torch.as_tensor(theirs))
    assert ours.load_class_weights(str(tmp_path / "w.json"), "pos_weight") == 3.0
    with pytest.raises(ConfigError, match="w.json has no 'alpha', only class_weight, pos_weight"):
        ours.load_class_weights(str(tmp_path / "w.json"), "alpha")


@pytest.mark.parametrize("value, message", [
    (True, "'True' are no weights"), ("no/such.json", "'no/such.json' are no weights: neither numbers nor a file"),
    ([], "not of the shape \\(0,\\)"), ([[1.0]], "not of the shape \\(1, 1\\)"), ([-1.0], "finite numbers from 0 on"),
    ([float("nan")], "finite numbers from 0 on"),
], ids=str)
def test_what_are_no_weights_is_said(value, message):
    with pytest.raises(ConfigError, match=message):
        ours.load_class_weights(value)


def test_weights_by_the_name_of_a_method(tmp_path):
    path = tmp_path / "stats.json"
    path.write_text(json.dumps({"pos_counts": COUNTS, "num_samples": 100}))
    mine, theirs = ours.load_class_stats(path), timm.loss.load_class_stats(str(path))
    assert mine[0].equal(theirs[0]) and mine[1] == theirs[1] == 100
    assert ours.load_class_stats("") is None
    for method, kind in ours.CLASS_WEIGHT_METHOD_KINDS.items():
        weights = ours.resolve_class_weights(method, kind, mine, power=0.5)
        torch.testing.assert_close(weights, timm.loss.resolve_class_weights(method, kind, theirs, power=0.5))
    assert ours.resolve_class_weights("2.5") == 2.5
    for arguments, message in (
        (("neg_pos", "class_weight", mine), "method 'neg_pos' gives pos_weight, not class_weight, which inv_freq, "),
        (("inv_freq",), "method 'inv_freq' needs statistics of the classes"),
    ):
        with pytest.raises(ConfigError, match=message):
            ours.resolve_class_weights(*arguments)
    with pytest.raises(ConfigError, match="unknown method of class weights 'inv_frq'; did you mean 'inv_freq'"):
        ours.compute_class_weights(COUNTS, 100, "inv_frq")
    with pytest.raises(ConfigError, match="beta of class weights lies between 0 and 1, not at 1"):
        ours.compute_class_weights(COUNTS, 100, "effective_num", beta=1)
    with pytest.raises(ConfigError, match="counts are from 0 to the number of images, not 0 to 100 of 10"):
        ours.compute_class_weights(COUNTS, 10)
    path.write_text("[1]")
    with pytest.raises(ConfigError, match="needs 'pos_counts' and 'num_samples'"):
        ours.load_class_stats(path)
