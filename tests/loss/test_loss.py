"""Losses: timm's values and gradients, the papers' formulas, and which loss flags mean."""

import math

import pytest
import timm.loss
import torch
import torch.nn.functional as F
from torch import nn

import mvlib.loss
from mvlib.errors import ConfigError
from mvlib.loss import DistillationLoss, JsdCrossEntropy, create_loss

CLASSES = 7


@pytest.fixture(params=[0, 1], ids=["small", "large logits"])
def logits(request):
    generator = torch.Generator().manual_seed(request.param)
    return torch.randn(6, CLASSES, generator=generator) * (1, 20)[request.param]


def labels():
    return torch.tensor([0, 3, 6, 2, 2, 5])


def mixed():
    return torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(5)).mul(2).softmax(-1)


def multi_hot():
    return (mixed() > 0.15).float()


def value_and_gradient(loss, logits, target):
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    value.sum().backward()
    return value.detach(), logits.grad


def assert_like_timm(name, logits, target, **kwargs):
    mine = value_and_gradient(getattr(mvlib.loss, name)(**kwargs), logits, target)
    theirs = value_and_gradient(getattr(timm.loss, name)(**kwargs), logits, target)
    for found, expected in zip(mine, theirs):
        assert found.shape == expected.shape
        assert found.isfinite().all()
        known = expected.isfinite()  # timm's gradient is not, where a gamma below 1 meets a perfect prediction
        assert known.float().mean() > 0.9
        assert (found - expected)[known].abs().max() <= 1e-5 * expected[known].abs().max()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_label_smoothing_is_timms(logits, smoothing):
    assert_like_timm("LabelSmoothingCrossEntropy", logits, labels(), smoothing=smoothing)


def test_soft_targets_are_timms(logits):
    assert_like_timm("SoftTargetCrossEntropy", logits, mixed())


def test_soft_targets_of_many_positions_are_timms(logits):
    assert_like_timm("SoftTargetCrossEntropy", logits.unflatten(0, (2, 3)), mixed().unflatten(0, (2, 3)))


def test_soft_targets_may_be_more_precise_than_the_logits(logits):
    loss = mvlib.loss.SoftTargetCrossEntropy()
    assert loss(logits.bfloat16(), mixed()).dtype is torch.float32
    assert torch.equal(loss(logits.bfloat16(), mixed()), loss(logits.bfloat16().float(), mixed()))


@pytest.mark.parametrize("target", [labels, mixed, multi_hot], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kwargs", [
    {}, {"smoothing": 0.0}, {"smoothing": 0.3, "target_threshold": 0.2}, {"sum_classes": True}, {"reduction": "sum"},
    {"reduction": "none"}, {"pos_weight": 3.0}, {"pos_weight": torch.linspace(0.5, 2, CLASSES), "sum_classes": True},
    {"weight": torch.linspace(0.5, 2, CLASSES)}, {"smooth_dense": True, "smoothing": 0.2},
], ids=lambda kwargs: "-".join(kwargs) or "default")
def test_binary_cross_entropy_is_timms(logits, target, kwargs):
    assert_like_timm("BinaryCrossEntropy", logits, target(), **kwargs)


def test_binary_cross_entropy_takes_whole_numbers_as_targets(logits):
    loss = mvlib.loss.BinaryCrossEntropy()
    assert torch.equal(loss(logits, multi_hot().long()), loss(logits, multi_hot()))


@pytest.mark.parametrize("kwargs", [
    {}, {"num_splits": 2}, {"alpha": 3.0}, {"smoothing": None}, {"smoothing": 0.0}, {"num_splits": 6},
], ids=str)
def test_jsd_is_timms(logits, kwargs):
    assert_like_timm("JsdCrossEntropy", logits, labels(), **kwargs)


def test_jsd_of_equal_splits_is_the_cross_entropy(logits):
    clean = logits[:2]
    loss = JsdCrossEntropy(num_splits=3, smoothing=0.0)(clean.repeat(3, 1), labels()[:2])
    assert loss.item() == pytest.approx(F.cross_entropy(clean, labels()[:2]).item(), rel=1e-5)


def test_jsd_is_finite_where_every_split_rules_a_class_out():
    logits = torch.tensor([[0.0, 900.0], [0.0, 900.0]])
    value, gradient = value_and_gradient(JsdCrossEntropy(num_splits=2, smoothing=0.0), logits, torch.tensor([1]))
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert gradient.isfinite().all()


def test_jsd_says_that_a_batch_does_not_divide(logits):
    with pytest.raises(ConfigError, match="a batch of 5 does not divide into 3 splits"):
        JsdCrossEntropy()(logits[:5], labels()[:5])


@pytest.mark.parametrize("target", [mixed, multi_hot], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kwargs", [
    {}, {"gamma_neg": 0, "gamma_pos": 0}, {"gamma_neg": 2, "gamma_pos": 0.5}, {"clip": None}, {"clip": 0.2},
    {"disable_torch_grad_focal_loss": True}, {"smoothing": 0.2}, {"reduction": "sum"}, {"reduction": "mean"},
    {"reduction": "none"}, {"pos_weight": 2.0}, {"weight": torch.linspace(0.5, 2, CLASSES)}, {"eps": 1e-3},
], ids=lambda kwargs: "-".join(kwargs) or "default")
def test_asymmetric_loss_of_many_labels_is_timms(logits, target, kwargs):
    assert_like_timm("AsymmetricLossMultiLabel", logits, target(), **kwargs)


def test_a_perfect_prediction_has_a_gradient():
    loss = mvlib.loss.AsymmetricLossMultiLabel(gamma_pos=0.5)
    value, gradient = value_and_gradient(loss, torch.tensor([[40.0, -40.0]]), torch.tensor([[1.0, 0.0]]))
    assert value == 0
    assert torch.equal(gradient, torch.zeros(1, 2))


def test_asymmetric_loss_is_computed_in_float32(logits):
    loss = mvlib.loss.AsymmetricLossMultiLabel()
    assert loss(logits.half(), multi_hot().half()).dtype is torch.float32


@pytest.mark.parametrize("kwargs", [
    {}, {"eps": 0.0}, {"gamma_pos": 0, "gamma_neg": 0}, {"gamma_pos": 2, "gamma_neg": 1}, {"reduction": "none"},
], ids=str)
def test_asymmetric_loss_of_one_label_is_timms(logits, kwargs):
    assert_like_timm("AsymmetricLossSingleLabel", logits, labels(), **kwargs)


def test_asymmetric_loss_of_one_label_without_focus_is_label_smoothing(logits):
    loss = mvlib.loss.AsymmetricLossSingleLabel(gamma_pos=0, gamma_neg=0, eps=0.1)
    expected = F.cross_entropy(logits, labels(), label_smoothing=0.1)
    assert loss(logits, labels()).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("loss", [
    JsdCrossEntropy(), mvlib.loss.AsymmetricLossSingleLabel(),
    lambda x, y: DistillationLoss(nn.CrossEntropyLoss(), alpha=1.0)(x, y, x.roll(1, 0)),
], ids=["jsd", "asymmetric", "distillation"])
def test_half_precision_is_computed_in_float32(logits, loss):
    found, gradient = value_and_gradient(loss, logits.bfloat16(), labels())
    assert found.dtype is torch.float32
    assert gradient.dtype is torch.bfloat16
    assert found.item() == pytest.approx(loss(logits.bfloat16().float(), labels()).item(), rel=1e-5)


def test_weights_move_with_the_loss():
    loss = mvlib.loss.BinaryCrossEntropy(weight=torch.ones(CLASSES), pos_weight=[2.0] * CLASSES)
    assert {name: tuple(value.shape) for name, value in loss.state_dict().items()} == {
        "weight": (CLASSES,), "pos_weight": (CLASSES,)}
    assert loss.double().pos_weight.dtype is torch.float64


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_distillation_is_the_formula(logits, temperature):
    teacher = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(9))
    total = 0.0
    for student_row, teacher_row in zip(logits.double().tolist(), teacher.double().tolist()):
        p = [math.exp(z / temperature) for z in teacher_row]
        q = [math.exp((z - max(student_row)) / temperature) for z in student_row]
        total += sum(a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q))
    expected = 0.7 * F.cross_entropy(logits, labels()).item() + 0.3 * temperature ** 2 * total / len(logits)
    loss = DistillationLoss(nn.CrossEntropyLoss(), alpha=0.3, temperature=temperature)
    assert loss(logits, labels(), teacher).item() == pytest.approx(expected, rel=1e-5)


def test_hard_distillation_is_the_formula(logits):
    teacher = F.one_hot((labels() + 1) % CLASSES, CLASSES).float()
    loss = DistillationLoss(nn.CrossEntropyLoss(), kind="hard")
    expected = 0.5 * F.cross_entropy(logits, labels()) + 0.5 * F.cross_entropy(logits, (labels() + 1) % CLASSES)
    assert loss(logits, labels(), teacher).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_distillation_token_learns_from_the_teacher_alone(logits):
    teacher = logits.flip(0).requires_grad_()
    own, token = logits.clone().requires_grad_(), logits.roll(1, 0).clone().requires_grad_()
    base = mvlib.loss.SoftTargetCrossEntropy()
    loss = DistillationLoss(base, alpha=0.4, temperature=2.0)((own, token), mixed(), teacher)
    loss.backward()
    assert teacher.grad is None
    _, expected = value_and_gradient(base, logits, mixed())
    assert torch.allclose(own.grad, 0.6 * expected)
    assert token.grad.abs().max() > 0


def test_a_student_that_is_its_teacher_has_nothing_to_learn(logits):
    loss = DistillationLoss(nn.CrossEntropyLoss(), alpha=1.0, temperature=4.0)
    value, gradient = value_and_gradient(lambda x, y: loss(x, y, logits), logits, labels())
    assert abs(value) < 1e-5
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("kwargs, message", [
    (dict(alpha=1.5), "the share of distillation is from 0 to 1, not 1.5"),
    (dict(temperature=0.0), "the temperature of distillation is above 0, not 0.0"),
    (dict(kind="medium"), "unknown kind of distillation 'medium'; known: soft, hard"),
])
def test_bad_arguments_of_distillation(kwargs, message):
    with pytest.raises(ConfigError) as error:
        DistillationLoss(nn.CrossEntropyLoss(), **kwargs)
    assert str(error.value) == message


def test_a_teacher_of_other_classes_is_refused(logits):
    with pytest.raises(ConfigError, match=r"the teacher's logits have the shape \(6, 9\), the student's \(6, 7\)"):
        DistillationLoss(nn.CrossEntropyLoss())(logits, labels(), torch.zeros(6, 9))


@pytest.mark.parametrize("make, message", [
    (lambda: mvlib.loss.LabelSmoothingCrossEntropy(1.0), "label smoothing is from 0 to below 1, not 1.0"),
    (lambda: mvlib.loss.LabelSmoothingCrossEntropy(-0.1), "label smoothing is from 0 to below 1, not -0.1"),
    (lambda: mvlib.loss.BinaryCrossEntropy(2.0), "label smoothing is from 0 to below 1"),
    (lambda: mvlib.loss.BinaryCrossEntropy(reduction="avg"), "unknown reduction 'avg'; known: mean, sum, none"),
    (lambda: mvlib.loss.AsymmetricLossMultiLabel(reduction="avg"), "unknown reduction 'avg'; known: batchmean, sum"),
    (lambda: mvlib.loss.AsymmetricLossSingleLabel(reduction="avg"), "unknown reduction 'avg'"),
    (lambda: JsdCrossEntropy(num_splits=1), "JsdCrossEntropy compares 2 or more splits, not 1"),
])
def test_bad_arguments_are_said(make, message):
    with pytest.raises(ConfigError) as error:
        make()
    assert message in str(error.value)


@pytest.mark.parametrize("flags, kind, fields", [
    ({}, "LabelSmoothingCrossEntropy", {"smoothing": 0.1}),
    ({"smoothing": 0.0}, "CrossEntropyLoss", {"label_smoothing": 0.0}),
    ({"mixup_active": True}, "SoftTargetCrossEntropy", {}),
    ({"bce_loss": True}, "BinaryCrossEntropy", {"smoothing": 0.1, "sum_classes": False, "target_threshold": None}),
    ({"bce_loss": True, "smoothing": 0.0}, "BinaryCrossEntropy", {"smoothing": 0.0}),
    ({"bce_loss": True, "mixup_active": True, "bce_target_thresh": 0.2, "bce_sum": True, "bce_pos_weight": 2.0},
     "BinaryCrossEntropy", {"smoothing": 0.0, "target_threshold": 0.2, "sum_classes": True, "pos_weight": 2.0}),
    ({"jsd": True, "num_splits": 3}, "JsdCrossEntropy", {"num_splits": 3, "alpha": 12}),
    ({"num_splits": 3}, "LabelSmoothingCrossEntropy", {"smoothing": 0.1}),
], ids=lambda value: str(value)[:60])
def test_flags_choose_timms_loss(flags, kind, fields):
    loss = create_loss(**flags)
    assert type(loss).__name__ == kind
    assert {name: getattr(loss, name) for name in fields} == fields


@pytest.mark.parametrize("flags", [
    {}, {"smoothing": 0.0}, {"mixup_active": True}, {"bce_loss": True},
    {"bce_loss": True, "mixup_active": True, "bce_target_thresh": 0.2, "bce_pos_weight": 2.0},
    {"bce_loss": True, "smoothing": 0.0, "bce_sum": True}, {"jsd": True, "num_splits": 3},
], ids=str)
def test_the_loss_of_flags_has_timms_value(logits, flags):
    target = mixed() if flags.get("mixup_active") else labels()
    kind = "jsd" if flags.get("jsd") else "bce" if flags.get("bce_loss") else "ce"
    peer = timm.loss.create_classification_loss(
        kind, smoothing=flags.get("smoothing", 0.1), soft_targets=flags.get("mixup_active", False),
        pos_weight=flags.get("bce_pos_weight"), bce_target_thresh=flags.get("bce_target_thresh"),
        bce_sum=flags.get("bce_sum", False), jsd_splits=flags.get("num_splits", 0))
    assert create_loss(**flags)(logits, target).item() == pytest.approx(peer(logits, target).item(), rel=1e-5)


@pytest.mark.parametrize("flags, message", [
    ({"jsd": True}, "--jsd-loss compares augmentation splits and needs --aug-splits 2 or more"),
    ({"jsd": True, "num_splits": 3, "mixup_active": True},
     "--jsd-loss needs labels that are not mixed: leave --mixup and --cutmix out"),
    ({"jsd": True, "num_splits": 3, "bce_loss": True}, "--jsd-loss and --bce-loss contradict each other"),
    ({"bce_sum": True}, "--bce-target-thresh, --bce-sum and --bce-pos-weight need --bce-loss"),
    ({"smoothing": 1.5}, "label smoothing is from 0 to below 1, not 1.5"),
])
def test_contradictory_flags_are_said(flags, message):
    with pytest.raises(ConfigError) as error:
        create_loss(**flags)
    assert str(error.value) == message
