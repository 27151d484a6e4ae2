"""timm.task through the face: losses, gradients, metrics and checkpoints against timm itself."""

import inspect
import logging

import pytest
import timm.optim
import timm.task
import timm.task.distillation
import torch
from torch import nn

import mvlib.timm as face
from mvlib.errors import ConfigError

SIDES = (face, timm)


def student(side, name="resnet10t", seed=0, **kwargs):
    """The same model on both sides: mvlib's gets timm's weights."""
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=5, **kwargs)
    if side is timm:
        return model
    ours = face.create_model(name, num_classes=5, **kwargs)
    ours.load_state_dict(model.state_dict())
    return ours


def batch(multi_label=False):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 3, 64, 64, generator=generator)
    return x, (torch.rand(4, 5, generator=generator) < 0.4).float() if multi_label else torch.tensor([0, 3, 1, 4])


def compare(tasks, multi_label=False):
    """One training step of each: entries, losses and gradients."""
    results = []
    for task in tasks:
        task.train()
        result = task(*batch(multi_label))
        result["loss"].backward()
        results.append(result)
    assert list(results[0]) == list(results[1])
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-5, atol=1e-5)
    mine, theirs = (dict(task.get_trainable_module().named_parameters()) for task in tasks)
    assert mine.keys() == theirs.keys()
    for name, p in mine.items():
        torch.testing.assert_close(p.grad, theirs[name].grad, rtol=1e-4, atol=1e-5, msg=name)


def test_names_and_arguments_are_timms():
    for name in timm.task.__all__:
        mine, theirs = getattr(face.task, name), getattr(timm.task, name)
        if callable(theirs):
            assert [(p.name, p.default) for p in inspect.signature(mine).parameters.values()] == [
                (p.name, p.default) for p in inspect.signature(theirs).parameters.values()], name
        if inspect.isclass(theirs):
            missing = {key for key in vars(theirs) if not key.startswith("_")} - set(dir(mine))
            assert not missing, name
    assert set(face.task.__all__) >= set(timm.task.__all__)


@pytest.mark.parametrize(
    "kwargs", [{}, dict(criterion_kwargs=dict(smoothing=0.1)), dict(criterion=nn.MultiMarginLoss())], ids=str)
def test_classification(kwargs):
    compare([side.task.ClassificationTask(student(side), **kwargs) for side in SIDES])


def test_several_labels():
    kwargs = dict(criterion_kwargs=dict(loss_type="asl", smoothing=0.1))
    tasks = [side.task.MultiLabelClassificationTask(student(side), threshold=0.3, **kwargs) for side in SIDES]
    compare(tasks, multi_label=True)
    assert tasks[0].create_evaluator(max_samples=3).threshold == 0.3
    with pytest.raises(ConfigError, match="floating-point targets"):
        tasks[0](batch()[0], batch()[1])
    with pytest.raises(ConfigError, match="the threshold of several labels lies between 0 and 1, not at 1"):
        face.task.MultiLabelClassificationTask(nn.Identity(), threshold=1)


@pytest.mark.parametrize("kwargs", [
    {}, dict(task_loss_weight=0.3, temperature=4.0), dict(distill_loss_weight=2.0),
    dict(distill_loss_weight=2.0, task_loss_weight=0.1),
], ids=str)
def test_a_teachers_logits(kwargs):
    tasks = []
    for side in SIDES:
        teacher = student(side, "resnet14t", seed=1)
        teacher.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.4, 0.3)}  # another normalization
        tasks.append(side.task.LogitDistillationTask(student(side), teacher, **kwargs))
    assert not tasks[0].train().teacher.training
    compare(tasks)


@pytest.mark.parametrize("kwargs", [{}, dict(distill_type="hard", task_loss_weight=0.4)], ids=str)
def test_a_distillation_token(kwargs):
    size = dict(img_size=64, depth=2)
    tasks = [side.task.TokenDistillationTask(
        student(side, "deit_tiny_distilled_patch16_224", **size), student(side, "resnet10t", seed=1), **kwargs)
        for side in SIDES]
    compare(tasks)
    with pytest.raises(ConfigError, match="ResNet has no distillation token"):
        face.task.TokenDistillationTask(student(face), student(face))


@pytest.mark.parametrize("teacher", ["resnet10t", "mobilenetv3_small_050"], ids=["equal", "projected"])
def test_a_teachers_features(teacher):
    tasks = []
    for side in SIDES:
        torch.manual_seed(7)
        models = student(side), student(side, teacher, seed=1)
        torch.manual_seed(2)
        tasks.append(side.task.FeatureDistillationTask(*models, distill_loss_weight=5.0))
    compare(tasks)
    projected = teacher != "resnet10t"
    assert (tasks[0].get_trainable_module().projection is not None) == projected
    for exclude_head in (False, True):
        counts = [len(list(task.get_clip_parameters(exclude_head))) for task in tasks]
        assert counts[0] == counts[1]
    for task in tasks:
        task.setup_ema(decay=0.5)
        task.update_ema(step=1)
    states = [{**task.get_checkpoint_state(), **task.get_checkpoint_state(ema=True)} for task in tasks]
    assert states[0].keys() == states[1].keys()
    for task, state in zip(tasks, states[::-1]):  # each takes the other's
        task.load_checkpoint_state(state["state_dict"], state.get("task_state"))
        task.load_checkpoint_state(state["state_dict_ema"], state.get("task_state_ema"), ema=True)
    if projected:
        torch.testing.assert_close(*(task.get_task_state(ema=True)["projection"]["weight"] for task in tasks))
        with pytest.raises(RuntimeError, match="has a projection of features, and this task needs none"):
            face.task.FeatureDistillationTask(student(face), student(face)).load_task_state(states[0]["task_state"])


def test_layers_of_a_student_and_its_projection():
    groups = []
    for side in SIDES:
        task = side.task.FeatureDistillationTask(student(side), student(side, "mobilenetv3_small_050"))
        groups.append(side.optim.param_groups_layer_decay(task.trainable_module, 0.1, layer_decay=0.5))
    assert [(len(group["params"]), group["lr_scale"], group["weight_decay"]) for group in groups[0]] == [
        (len(group["params"]), group["lr_scale"], group["weight_decay"]) for group in groups[1]]


def test_teachers_that_cannot_be():
    with pytest.raises(TypeError, match="a teacher is a model's name or a module, not int"):
        face.task.DistillationTeacher(3)
    with pytest.raises(ConfigError, match="Linear gives no features to learn from"):
        face.task.DistillationTeacher(nn.Linear(2, 2))(torch.ones(1, 2), return_features=True)
    with pytest.raises(ConfigError, match="a teacher's logits are learned by 'kl', not 'mse'"):
        face.task.LogitDistillationTask(student(face), student(face), loss_type="mse")
    with pytest.raises(ConfigError, match="a criterion is given, and arguments for another: smoothing"):
        face.task.ClassificationTask(nn.Identity(), nn.CrossEntropyLoss(), dict(smoothing=0.1))


def test_a_task_of_ones_own_follows_its_tensors(caplog):
    task = face.task.TrainingTask()
    assert task.get_trainable_module() is task and not task.has_ema()
    assert task.to(torch.float64).dtype == torch.float64
    with pytest.raises(NotImplementedError):
        task(1, 2)
    with pytest.raises(RuntimeError, match="call setup_ema"):
        task.load_checkpoint_state({}, ema=True)
    with caplog.at_level(logging.INFO, "mvlib"):
        face.task.ClassificationTask(nn.Identity())
    assert "ClassificationTask: CrossEntropyLoss" in caplog.text


def test_compiled_tasks_train_and_save_under_the_models_names():
    task = face.task.LogitDistillationTask(student(face), student(face, seed=1))
    plain = list(task.get_checkpoint_state()["state_dict"])
    compiled = task.compile(backend="eager")
    assert compiled is task.get_eval_model()
    task.setup_ema()
    task.compile_ema(backend="eager")
    assert list(task.get_checkpoint_state(ema=True)["state_dict_ema"]) == plain
    assert task.no_sync().__enter__() is None


def test_metrics_of_one_label():
    evaluators = [side.task.ClassificationEvaluator(max_samples=25) for side in SIDES]
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        x, y = torch.randn(10, 7, generator=generator), torch.randint(7, (10,), generator=generator)
        for evaluator in evaluators:
            evaluator.update(x, y)
        assert evaluators[0].summary() == evaluators[1].summary()
    assert evaluators[0].compute() == evaluators[1].compute()
    assert evaluators[0].counts[0] == 25
    with pytest.raises(ConfigError, match=r"want logits \(N, classes\) and labels \(N,\), not \(10, 7\) and \(10, 7\)"):
        evaluators[0].update(x, x)


def test_metrics_of_several_labels():
    evaluators = [side.task.MultiLabelClassificationEvaluator(threshold=0.4, max_samples=25) for side in SIDES]
    assert evaluators[0].compute() == evaluators[1].compute()
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(10, 6, generator=generator).round(decimals=0)  # many ties
        y = (torch.rand(10, 6, generator=generator) < 0.3).float()
        y[:, 2] = 0
        for evaluator in evaluators:
            evaluator.update(x, y * 0.8 if seed == 2 else y)
        assert evaluators[0].summary() == evaluators[1].summary()
    assert evaluators[0].compute() == pytest.approx(dict(evaluators[1].compute()), rel=1e-6)
    with pytest.raises(ConfigError, match=r"want logits and targets \(N, classes\)"):
        evaluators[0].update(x, x[0])


def test_the_images_that_count():
    class Loader:
        sampler = type("Sampler", (), {"num_valid_samples": 7})()

    assert face.task.evaluation_sample_limit(Loader()) == 7
    assert face.task.evaluation_sample_limit([]) is None
