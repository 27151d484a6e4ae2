"""Schedules: timm's and torch's learning rates, resumption, errors."""

import argparse
import inspect
import itertools
import pickle
import subprocess
import sys
import warnings

import pytest
import timm.scheduler
import torch
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    SequentialLR,
    StepLR,
)

from mvlib import scheduler as ours
from mvlib.errors import ConfigError
from mvlib.scheduler import (
    Cosine,
    MultiStep,
    Poly,
    Schedule,
    create_schedule,
    create_scheduler,
    create_scheduler_v2,
    scale_learning_rate,
    scheduler_kwargs,
)

UPDATES = 3


def optimizer(*lrs, **first):
    """SGD with a group for each learning rate; `first` goes into the first group."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs or (0.5, 0.02, 3e-4)]
    groups[0].update(first)
    return torch.optim.SGD(groups, lr=0.1)


def rates(opt):
    return [group["lr"] for group in opt.param_groups]


def follow(create, on_updates=False, steps=40, **kwargs):
    """Learning rates of all groups: at first, and after every step; and the number of epochs."""
    opt = optimizer(lr_scale=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler, epochs = create(
            opt, **kwargs, step_on_epochs=not on_updates, updates_per_epoch=UPDATES if on_updates else 0)
    seen = [rates(opt)]
    for t in range(1, steps):
        (scheduler.step_update if on_updates else scheduler.step)(t)
        seen.append(rates(opt))
        (scheduler.step if on_updates else scheduler.step_update)(t + 3)  # the other unit: nothing happens
        assert rates(opt) == seen[-1]
    return seen, epochs


def assert_like_timm(on_updates=False, steps=40, **kwargs):
    found, epochs = follow(create_scheduler_v2, on_updates, steps, **kwargs)
    expected, timm_epochs = follow(timm.scheduler.create_scheduler_v2, on_updates, steps, **kwargs)
    assert epochs == timm_epochs
    for t, (mine, theirs) in enumerate(zip(found, expected)):
        assert mine == pytest.approx(theirs, rel=1e-12, abs=1e-300), t


WARMUPS = [
    {}, {"warmup_epochs": 5}, {"warmup_epochs": 5, "warmup_prefix": True, "warmup_lr": 1e-3},
    {"warmup_epochs": 60, "warmup_lr": 0.0},  # longer than the training
]
NOISES = [{}, {"noise": [0.4, 0.8], "noise_std": 0.5}, {"noise": 0.3, "noise_pct": 0.4, "noise_seed": 7}]
CYCLES = [
    {}, {"cycle_limit": 3, "cycle_decay": 0.5}, {"cycle_limit": 4, "cycle_mul": 2.0, "cycle_decay": 0.7},
    {"cycle_limit": 3, "cycle_mul": 1.5}, {"cycle_limit": 0},
]
SHAPES = [
    *({"sched": name, "num_epochs": 12, "min_lr": low, **cycles}
      for name, low, cycles in itertools.product(("cosine", "tanh", "poly"), (0.0, 1e-5), CYCLES)),
    *({"sched": name, "num_epochs": 12, "k_decay": k, "decay_rate": rate, "cooldown_epochs": 4}
      for name, k, rate in itertools.product(("cosine", "poly"), (0.7, 2.0), (0.5, 1.0))),
    *({"sched": "step", "num_epochs": 20, "decay_epochs": every, "decay_rate": rate}
      for every, rate in itertools.product((2.4, 6, None), (0.1, 0.97))),
    *({"sched": "multistep", "num_epochs": 20, "decay_milestones": stones} for stones in ([1, 9], (5, 10, 17), [])),
    {"sched": "constant", "num_epochs": 20},
]
STABLE = [
    {"sched": name, "num_epochs": 20, "decay_epochs": decay, "min_lr": 1e-3, "cooldown_epochs": 2, "decay_fn": shape}
    for name, decay, shape in itertools.product(
        ("wsd", "rsqrt"), (None, 0.35, 6), (None, "linear", "1-sqrt", "cosine", "power", "exp"))
]


@pytest.mark.sample(3)
@pytest.mark.parametrize("on_updates", [False, True], ids=["epochs", "updates"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_learning_rates_are_timms(shape, on_updates):
    for warmup, noise in itertools.product(WARMUPS, NOISES):
        assert_like_timm(on_updates, 45 * UPDATES if on_updates else 45, **shape, **warmup, **noise)


@pytest.mark.parametrize("on_updates", [False, True], ids=["epochs", "updates"])
@pytest.mark.parametrize("shape", STABLE, ids=str)
def test_warmup_stable_decay_is_timms(shape, on_updates):
    for warmup in ({"warmup_epochs": 4}, {"warmup_epochs": 4, "warmup_prefix": True, "noise": 0.5},
                   {"warmup_epochs": 2, "stable_timescale": 3.0}):
        assert_like_timm(on_updates, 30 * UPDATES if on_updates else 30, **shape, **warmup)


def plateau_metrics(mode):
    generator = torch.Generator().manual_seed(3)
    climb = [min(epoch, 8) + 0.3 * torch.rand(1, generator=generator).item() for epoch in range(40)]
    return climb if mode == "max" else [20 - value for value in climb]


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("noise", NOISES, ids=str)
@pytest.mark.parametrize("warmup", [{}, {"warmup_epochs": 4}, {"warmup_epochs": 4, "warmup_prefix": True}], ids=str)
def test_plateau_is_timms(mode, noise, warmup):
    kwargs = dict(sched="plateau", num_epochs=40, patience_epochs=3, decay_rate=0.3, min_lr=1e-3, plateau_mode=mode,
                  **noise, **warmup)
    mine, theirs = optimizer(lr_scale=0.3), optimizer(lr_scale=0.3)
    scheduler, epochs = create_scheduler_v2(mine, **kwargs)
    with pytest.warns(FutureWarning):
        peer, timm_epochs = timm.scheduler.create_scheduler_v2(theirs, **kwargs)
    assert epochs == timm_epochs
    assert rates(mine) == rates(theirs)
    for epoch, metric in enumerate(plateau_metrics(mode), start=1):
        scheduler.step(epoch, metric if epoch % 9 else None)
        peer.step(epoch, metric if epoch % 9 else None)
        scheduler.step_update(epoch)
        assert rates(mine) == pytest.approx(rates(theirs), rel=1e-12)
    assert rates(mine)[1] < 0.02 / 3  # it has decayed


def test_plateau_with_cooldown_and_threshold_is_timms():
    kwargs = dict(decay_rate=0.5, patience_t=1, cooldown_t=3, threshold=0.05, mode="max", warmup_t=2)
    mine, theirs = optimizer(), optimizer()
    scheduler = ours.PlateauLRScheduler(mine, **kwargs)
    with pytest.warns(FutureWarning):
        peer = timm.scheduler.PlateauLRScheduler(theirs, **kwargs)
    for epoch, metric in enumerate(plateau_metrics("max"), start=1):
        scheduler.step(epoch, metric)
        peer.step(epoch, metric)
        assert rates(mine) == pytest.approx(rates(theirs), rel=1e-12)


def test_plateau_without_warmup_leaves_the_first_epoch_alone():
    """timm sets warmup's learning rate where there is no warmup, when step(0) is called."""
    opt = optimizer(0.5)
    scheduler, _ = create_scheduler_v2(opt, "plateau")
    scheduler.step(0, 1.0)
    assert rates(opt) == [0.5]


TORCH = {
    "cosineannealinglr": lambda opt: CosineAnnealingLR(opt, T_max=25, eta_min=1e-4),
    "steplr": lambda opt: StepLR(opt, step_size=7, gamma=0.1),
    "exponentiallr": lambda opt: ExponentialLR(opt, gamma=0.1),
}


@pytest.mark.parametrize("method", ["linear", "constant"])
@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("warmup", [0, 5])
def test_torchvision_recipes_have_torchs_learning_rates(name, method, warmup):
    mine, theirs = optimizer(), optimizer()
    scheduler, epochs = create_scheduler_v2(
        mine, name, num_epochs=25, min_lr=1e-4, decay_epochs=7, decay_rate=0.1, warmup_epochs=warmup,
        warmup_prefix=True, warmup_method=method, warmup_factor=0.01)
    peer = TORCH[name](theirs)
    if warmup:
        first = LinearLR(theirs, start_factor=0.01, total_iters=warmup) if method == "linear" \
            else ConstantLR(theirs, factor=0.01, total_iters=warmup)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = SequentialLR(theirs, [first, peer], milestones=[warmup])
    assert epochs == 25 + warmup
    assert rates(mine) == pytest.approx(rates(theirs), rel=1e-12)
    for epoch in range(1, epochs):
        theirs.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer.step()
        scheduler.step(epoch)
        assert rates(mine) == pytest.approx(rates(theirs), rel=1e-12, abs=1e-16), epoch


def test_torchs_names_are_read_without_case():
    assert create_schedule("CosineAnnealingLR", 9) == create_schedule("cosine", 9)


def test_exponential_by_update_agrees_with_epochs_at_their_ends():
    by_epoch, _ = create_schedule("exponential", 20, decay_rate=0.9)
    by_update, _ = create_schedule("exponential", 20, decay_rate=0.9, step_on_epochs=False, updates_per_epoch=10)
    assert [by_update(10 * t, 1.0) for t in range(20)] == pytest.approx([by_epoch(t, 1.0) for t in range(20)])
    assert by_epoch(1, 1.0) < by_update(5, 1.0) < by_epoch(0, 1.0)


def test_none_gives_no_scheduler():
    opt = optimizer()
    assert create_scheduler_v2(opt, "none", num_epochs=5) == (None, 5)
    assert rates(opt) == [0.5, 0.02, 3e-4]


def test_arguments_are_timms_and_two_more():
    theirs = inspect.signature(timm.scheduler.create_scheduler_v2).parameters
    mine = inspect.signature(create_scheduler_v2).parameters
    assert list(mine) == [*theirs, "warmup_method", "warmup_factor"]
    assert {name: mine[name].default for name in theirs} == {name: p.default for name, p in theirs.items()}


@pytest.mark.parametrize("cfg", [
    dict(sched="cosine"),
    dict(sched="step", epochs=7, decay_epochs=2.4, decay_rate=0.97, warmup_lr=1e-6, lr_noise=[0.42, 0.9], seed=3,
         eval_metric="loss", sched_on_updates=True, lr_cycle_decay=0.5, lr_k_decay=2.0, cooldown_epochs=1),
], ids=["defaults", "values"])
@pytest.mark.parametrize("decreasing", [None, True, False])
def test_scheduler_kwargs_are_timms(cfg, decreasing):
    cfg = argparse.Namespace(**cfg)
    assert scheduler_kwargs(cfg, decreasing) == timm.scheduler.scheduler_kwargs(cfg, decreasing)


def test_our_own_keywords_are_read_where_they_are():
    cfg = argparse.Namespace(sched="cosine", warmup_method="constant", warmup_factor=0.1)
    assert scheduler_kwargs(cfg)["warmup_method"] == "constant"
    opt = optimizer(0.5, 0.2)
    create_scheduler(cfg, opt)
    assert rates(opt) == pytest.approx([0.05, 0.02])


def test_create_scheduler_takes_a_training_scripts_arguments():
    cfg = argparse.Namespace(sched="cosine", epochs=6, warmup_epochs=2, sched_on_updates=True)
    mine, theirs = optimizer(), optimizer()
    scheduler, epochs = create_scheduler(cfg, mine, updates_per_epoch=4)
    peer, timm_epochs = timm.scheduler.create_scheduler(cfg, theirs, updates_per_epoch=4)
    scheduler.step_update(13)
    peer.step_update(13)
    assert epochs == timm_epochs == 6
    assert rates(mine) == pytest.approx(rates(theirs), rel=1e-12)


@pytest.mark.parametrize("name, arguments, keywords", [
    ("CosineLRScheduler", (30,), dict(lr_min=1e-5, warmup_t=3, warmup_lr_init=1e-4, k_decay=1.5)),
    ("CosineLRScheduler", (10, 1e-5, 2.0, 0.5, 2), dict(warmup_prefix=True)),
    ("TanhLRScheduler", (30, -6.0, 4.0, 1e-5), dict(warmup_t=3, warmup_lr_init=1e-4)),
    ("PolyLRScheduler", (30, 0.9, 1e-5), dict(noise_range_t=(5, 20))),
    ("StepLRScheduler", (4, 0.5), dict(warmup_t=3)),
    ("MultiStepLRScheduler", ([4, 9], 0.5), dict(warmup_t=3)),
    ("WSDLRScheduler", (30, 6, 1e-5), dict(stable_fn="power", stable_timescale=4.0, decay_fn=lambda x: 1 - x * x)),
])
def test_timms_classes(name, arguments, keywords):
    for in_epochs in (True, False):
        mine, theirs = optimizer(), optimizer()
        scheduler = getattr(ours, name)(mine, *arguments, **keywords, t_in_epochs=in_epochs)
        peer = getattr(timm.scheduler, name)(theirs, *arguments, **keywords, t_in_epochs=in_epochs)
        for t in range(1, 40):
            for one in (scheduler, peer):
                one.step(t)
                one.step_update(2 * t)
            assert rates(mine) == pytest.approx(rates(theirs), rel=1e-12, abs=1e-300), t
        assert hasattr(scheduler, "get_cycle_length") == hasattr(peer, "get_cycle_length")
        for cycles in range(4) if hasattr(peer, "get_cycle_length") else ():
            assert scheduler.get_cycle_length(cycles) == peer.get_cycle_length(cycles)


CLASSES = [name for name in timm.scheduler.__dict__ if name.endswith("LRScheduler")]


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_built_as_timms(name):
    mine = inspect.signature(getattr(ours, name)).parameters
    theirs = inspect.signature(getattr(timm.scheduler, name)).parameters
    positional = [p for p in mine.values() if p.kind == p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in positional] == [(p.name, p.default) for p in theirs.values()]


def test_a_class_says_which_argument_it_does_not_take():
    with pytest.raises(TypeError, match="CosineLRScheduler: got an unexpected keyword argument 't_mul'"):
        ours.CosineLRScheduler(optimizer(), 30, t_mul=1)
    with pytest.raises(TypeError, match="StepLRScheduler: missing a required argument: 'decay_t'"):
        ours.StepLRScheduler(optimizer())


@pytest.mark.parametrize(
    "sched", ["cosine", "tanh", "poly", "step", "constant", "multistep", "wsd", "rsqrt", "plateau"])
def test_a_schedule_by_name_is_an_object_of_timms_class(sched):
    kwargs = dict(sched=sched, num_epochs=20, warmup_epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer, _ = timm.scheduler.create_scheduler_v2(optimizer(), **kwargs)
    scheduler, _ = create_scheduler_v2(optimizer(), **kwargs)
    assert isinstance(scheduler, getattr(ours, type(peer).__name__))
    for name in vars(peer).keys() - {"optimizer", "lr_scheduler", "_initial_param_group_field"}:
        mine, theirs = getattr(scheduler, name), getattr(peer, name)
        assert (tuple(mine) == tuple(theirs)) if isinstance(theirs, (list, tuple)) else (mine == theirs), name


class Root(ours.Scheduler):
    """One of a user's own, built as timm's base class wants it."""

    def __init__(self, optimizer, power, **kwargs):
        super().__init__(optimizer, "lr", **kwargs)
        self.power = power

    def _get_lr(self, t):
        return [base / (1 + t) ** self.power for base in self.base_values]


class TimmsRoot(timm.scheduler.scheduler.Scheduler):
    def __init__(self, optimizer, power, **kwargs):
        super().__init__(optimizer, "lr", **kwargs)
        self.power = power

    _get_lr = Root._get_lr


@pytest.mark.parametrize("kwargs", [
    {}, dict(noise_range_t=3), dict(noise_range_t=(2, 9), noise_type="uniform", noise_pct=0.3, noise_seed=5),
    dict(t_in_epochs=False),
], ids=str)
def test_a_scheduler_of_ones_own_derives_from_ours_as_from_timms(kwargs):
    mine, theirs = optimizer(lr_scale=0.3), optimizer(lr_scale=0.3)
    scheduler, peer = Root(mine, 0.5, **kwargs), TimmsRoot(theirs, 0.5, **kwargs)
    for t in range(1, 12):
        for one in (scheduler, peer):
            one.step(t)
            one.step_update(2 * t)
        assert rates(mine) == pytest.approx(rates(theirs), rel=1e-12)
    state, again = scheduler.state_dict(), Root(optimizer(lr_scale=0.3), 9.0, **kwargs)
    again.load_state_dict(state)
    assert (again.power, rates(again.optimizer)) == (0.5, rates(mine))


def test_a_scheduler_needs_to_say_what_it_sets():
    class Idle(ours.Scheduler):
        pass

    with pytest.raises(TypeError, match="_get_lr"):
        Idle(optimizer(), "lr")


def test_any_field_of_the_groups_can_be_scheduled():
    class Decay(ours.Scheduler):
        def _get_lr(self, t):
            return [base * (1 + t) for base in self.base_values]

    opt = optimizer(weight_decay=0.1)
    scheduler = Decay(opt, param_group_field="weight_decay")
    scheduler.step(4)
    assert [group["weight_decay"] for group in opt.param_groups] == pytest.approx([0.5, 0.0, 0.0])
    assert rates(opt) == [0.5, 0.02, 3e-4]
    scheduler.update_groups(0.7)
    assert [group["weight_decay"] for group in opt.param_groups] == [0.7] * 3


def test_a_schedulers_attributes_can_be_changed_like_timms():
    mine, theirs = optimizer(), optimizer()
    scheduler = ours.CosineLRScheduler(mine, 30, warmup_t=3)
    peer = timm.scheduler.CosineLRScheduler(theirs, 30, warmup_t=3)
    for one in (scheduler, peer):
        one.t_initial, one.lr_min, one.base_values = 20, 1e-4, [0.3, 0.2, 0.1]
        one.step(7)
    assert rates(mine) == pytest.approx(rates(theirs), rel=1e-12)


@pytest.mark.parametrize("name, arguments, keywords", [
    ("CosineLRScheduler", (30,), dict(lr_min=1e-5, warmup_t=3, warmup_lr_init=1e-4, noise_range_t=(5, 20))),
    ("TanhLRScheduler", (30,), dict(warmup_t=3)),
    ("PolyLRScheduler", (30, 0.9, 1e-5), dict(warmup_t=3, warmup_prefix=True)),
    ("StepLRScheduler", (4, 0.5), dict(warmup_t=3)),
    ("MultiStepLRScheduler", ([4, 9], 0.5), dict(warmup_t=3)),
    ("WSDLRScheduler", (30, 6), dict(warmup_t=2, stable_fn="rsqrt")),
])
def test_states_are_exchanged_with_timm(name, arguments, keywords):
    """A state brings its schedule with it, on both sides."""
    kinds = getattr(ours, name), getattr(timm.scheduler, name)
    for kind, other in (kinds, kinds[::-1]):
        first, second = optimizer(lr_scale=0.3), optimizer(0.1, 0.2, 0.7, lr_scale=0.3)
        source, target = kind(first, *arguments, **keywords), other(second, arguments[0], *arguments[1:2])
        source.step(6)
        target.load_state_dict(pickle.loads(pickle.dumps(source.state_dict())))
        for t in range(7, 33):
            source.step(t)
            target.step(t)
            assert rates(second) == pytest.approx(rates(first), rel=1e-12, abs=1e-300), t


def test_the_state_of_timms_plateau_is_its_best_metric():
    scheduler = ours.PlateauLRScheduler(optimizer(), patience_t=0)
    with pytest.warns(FutureWarning):
        peer = timm.scheduler.PlateauLRScheduler(optimizer(), patience_t=0)
    peer.step(1, 0.8)
    scheduler.load_state_dict(peer.state_dict())
    scheduler.step(2, 0.7)  # worse than what timm had
    assert rates(scheduler.optimizer) == pytest.approx([0.05, 0.002, 3e-5])
    peer.load_state_dict(scheduler.state_dict())
    assert peer.lr_scheduler.best == 0.8


def test_the_progress_leaves_the_schedule_to_the_constructor():
    scheduler, longer = ours.CosineLRScheduler(optimizer(), 10), ours.CosineLRScheduler(optimizer(), 20)
    scheduler.step(5)
    longer.load_state_dict(scheduler.progress())
    assert rates(longer.optimizer)[0] == pytest.approx(Cosine(t_initial=20)(5, 0.5))
    longer.load_state_dict(scheduler.state_dict())
    assert rates(longer.optimizer)[0] == pytest.approx(0.25)


def test_initial_lr_and_lr_scale_of_a_group_count():
    opt = optimizer(0.1, 0.1, initial_lr=0.4, lr_scale=0.25)
    scheduler, _ = create_scheduler_v2(opt, "cosine", num_epochs=10)
    assert rates(opt) == pytest.approx([0.1, 0.1])
    scheduler.step(5)
    assert scheduler.get_last_lr() == rates(opt) == pytest.approx([0.4 * 0.5 * 0.25, 0.05])


def test_without_initialize_the_groups_must_know_their_base():
    opt = optimizer(0.1, initial_lr=0.4)
    assert ours.StepLRScheduler(opt, 3, initialize=False).base_values == [0.4]
    with pytest.raises(ConfigError, match="parameter group 0 has no initial_lr"):
        ours.StepLRScheduler(optimizer(0.1), 3, initialize=False)


def test_a_learning_rate_that_is_a_tensor_is_filled():
    lr = torch.tensor(0.5)
    opt = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=lr, foreach=False, capturable=False)
    scheduler, _ = create_scheduler_v2(opt, "cosine", num_epochs=10)
    scheduler.step(5)
    assert opt.param_groups[0]["lr"] is lr
    assert lr.item() == pytest.approx(0.25)
    assert scheduler.get_last_lr() == [pytest.approx(0.25)]


@pytest.mark.parametrize("kwargs", [
    dict(sched="cosine", warmup_epochs=3, noise=[0.2, 0.9]), dict(sched="cosine", warmup_epochs=3),
    dict(sched="plateau", warmup_epochs=3, patience_epochs=2, noise=[0.2, 0.9]),
    dict(sched="plateau", warmup_epochs=3, patience_epochs=2),
], ids=str)
@pytest.mark.parametrize("stop", [0, 2, 9, 21])
def test_a_resumed_schedule_goes_on_to_the_bit(kwargs, stop):
    metrics = plateau_metrics("max")
    whole = optimizer(lr_scale=0.3)
    scheduler, _ = create_scheduler_v2(whole, num_epochs=30, **kwargs)
    for epoch in range(1, stop + 1):
        scheduler.step(epoch, metrics[epoch])
    state = pickle.loads(pickle.dumps(scheduler.state_dict()))

    resumed = optimizer(9.0, 9.0, 9.0, lr_scale=0.3)
    again, _ = create_scheduler_v2(resumed, num_epochs=30, **kwargs)
    again.load_state_dict(state)
    assert rates(resumed) == rates(whole)
    for epoch in range(stop + 1, 31):
        scheduler.step(epoch, metrics[epoch])
        again.step(epoch, metrics[epoch])
        assert rates(resumed) == rates(whole)


@pytest.mark.parametrize("sched", ["cosine", "plateau"])
def test_a_state_is_plain_data(sched, tmp_path):
    scheduler, _ = create_scheduler_v2(optimizer(), sched, noise=0.0)
    scheduler.step(3, 0.7)
    torch.save(scheduler.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == scheduler.state_dict()


def test_a_state_of_other_groups_is_refused():
    scheduler, _ = create_scheduler_v2(optimizer(), "cosine")
    other, _ = create_scheduler_v2(optimizer(0.1), "cosine")
    with pytest.raises(ConfigError, match="the scheduler's state has 3 parameter groups, the optimizer has 1"):
        other.load_state_dict(scheduler.state_dict())


def test_a_schedule_is_pure_and_can_be_compared_and_pickled():
    schedule = Cosine(t_initial=30, warmup_t=3, noise_range_t=[5, 20])
    values = [schedule(t, 0.5) for t in range(35)]
    assert [schedule(t, 0.5) for t in reversed(range(35))] == values[::-1]
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert len({schedule, Cosine(t_initial=30, warmup_t=3, noise_range_t=(5, 20))}) == 1


def test_fractions_of_an_epoch_and_rounding_at_the_ends_of_cycles():
    poly = Poly(t_initial=10, power=0.5, cycle_mul=1.1, cycle_limit=5, k_decay=1.3)
    cosine = Cosine(t_initial=10, cycle_mul=1.1, cycle_limit=5, k_decay=1.3)
    for t in range(700):
        assert 0 <= poly(t / 10, 1.0) <= 1
        assert 0 <= cosine(t / 10, 1.0) <= 1


def test_shrinking_cycles_end():
    """timm fails there with a math domain error."""
    schedule = Cosine(t_initial=8, cycle_mul=0.5, cycle_limit=9, lr_min=1e-3)
    assert schedule(8, 1.0) == 1.0
    assert [schedule(t, 1.0) for t in (16, 17, 100)] == [1e-3] * 3


def test_a_run_shorter_than_its_warmup_only_warms_up():
    opt = optimizer(0.5)
    scheduler, epochs = create_scheduler_v2(opt, "cosine", num_epochs=2, warmup_epochs=5, warmup_lr=0.1)
    scheduler.step(1)
    assert epochs == 2
    assert rates(opt) == [pytest.approx(0.18)]


@pytest.mark.parametrize("kwargs, message", [
    (dict(sched="cosin"), "unknown scheduler 'cosin'; did you mean 'cosine'?"),
    (dict(sched="steps"), "did you mean 'step'"),
    (dict(sched="zzz"), "unknown scheduler 'zzz'; known: constant, cosine, cosineannealinglr, "),
    (dict(num_epochs=0), "a schedule of 0 epochs; it needs more than 0"),
    (dict(sched="plateau", num_epochs=0), "a schedule of 0 epochs"),
    (dict(min_lr=-1.0), "min_lr is negative, -1.0"),
    (dict(warmup_lr=-1.0), "warmup_lr is negative"),
    (dict(warmup_epochs=-1), "warmup_epochs is negative"),
    (dict(cooldown_epochs=-1), "cooldown_epochs is negative"),
    (dict(warmup_method="cubic"), "unknown warmup method 'cubic'; known: linear, constant"),
    (dict(warmup_factor=-0.1), "the warmup factor is negative"),
    (dict(noise=[0.1, 0.2, 0.3]), "learning rate noise has one bound or two, not 3"),
    (dict(noise=0.5, noise_pct=0.0), "learning rate noise has a limit above 0, not 0.0"),
    (dict(cycle_mul=0.0), "the factor between lengths of cycles is above 0, not 0.0"),
    (dict(cycle_limit=-1), "the number of cycles is negative, -1"),
    (dict(sched="step", decay_epochs=0), "the time between decays is above 0, not 0"),
    (dict(sched="multistep", decay_milestones=[9, 3]), "milestones do not increase: [9, 3]"),
    (dict(sched="exponential", decay_rate=0.0), "the factor of an exponential decay is above 0, not 0.0"),
    (dict(sched="wsd", num_epochs=10, decay_epochs=20), "the wsd schedule decays for 20 of 10 epochs after warmup"),
    (dict(sched="wsd", num_epochs=5, warmup_epochs=5), "decays for 0 of 0 epochs after warmup"),
    (dict(sched="wsd", decay_fn="cosin"), "unknown decay function 'cosin'; did you mean 'cosine'?"),
    (dict(sched="rsqrt"), "a plateau that falls ('rsqrt') needs warmup or a stable_timescale above 0"),
    (dict(step_on_epochs=False), "needs updates_per_epoch, the number of updates in an epoch"),
    (dict(sched="plateau", step_on_epochs=False, updates_per_epoch=3), "cannot count updates"),
    (dict(sched="plateau", decay_rate=1.5), "plateau schedule: Factor should be < 1.0."),
    (dict(sched="plateau", plateau_mode="up"), "plateau schedule: mode up is unknown!"),
], ids=lambda value: str(value)[:40])
def test_bad_arguments_are_said(kwargs, message):
    with pytest.raises(ConfigError) as error:
        create_scheduler_v2(optimizer(), **kwargs)
    assert message in str(error.value)


def test_a_group_without_a_learning_rate_or_with_a_bad_one():
    opt = optimizer(0.1)
    opt.param_groups[0]["lr"] = -0.1
    with pytest.raises(ConfigError, match="the learning rate of parameter group 0 is -0.1, not a number from 0 on"):
        create_scheduler_v2(opt)
    opt = optimizer(0.1)
    del opt.param_groups[0]["lr"]
    with pytest.raises(ConfigError, match="parameter group 0 has no lr"):
        create_scheduler_v2(opt)


def test_what_is_measured_has_no_pure_schedule():
    with pytest.raises(ConfigError, match="the plateau schedule follows the metric that is measured"):
        create_schedule("plateau")


def test_milestones_act_one_earlier_than_torchs_as_in_timm():
    schedule = MultiStep(decay_t=[10], decay_rate=0.1)
    assert (schedule(8, 1.0), schedule(9, 1.0)) == (1.0, 0.1)


def test_the_base_of_all_schedules_is_warmup_and_then_nothing():
    schedule = Schedule(warmup_t=4, warmup_lr_init=0.2)
    assert [schedule(t, 1.0) for t in (0, 2, 4, 99)] == pytest.approx([0.2, 0.6, 1.0, 1.0])


@pytest.mark.parametrize("opt, scale, factor", [("sgd", "", 2.0), ("adamw", "", 2 ** 0.5), ("lamb", "", 2 ** 0.5),
                                                ("adamw", "linear", 2.0), ("sgd", "sqrt", 2 ** 0.5)])
def test_the_learning_rate_for_a_batch_size(opt, scale, factor):
    assert scale_learning_rate(0.1, 512, 256, scale, opt) == pytest.approx(0.1 * factor)


def test_the_scale_of_a_learning_rate_has_two_kinds():
    with pytest.raises(ConfigError, match="--lr-base-scale 'log' is neither 'linear' nor 'sqrt'"):
        scale_learning_rate(0.1, 512, lr_base_scale="log")


def test_schedules_import_no_torch():
    code = "from mvlib.scheduler import create_schedule; import sys; s, n = create_schedule('cosine', 9); s(3, 0.1); " \
           "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
