"""The loop: accumulation, clipping, averages, bad losses, stops and resumption, on a tiny model in memory."""

import copy
import math

import pytest
import torch
from torch import nn

from mvlib.optim import create_optimizer_v2
from mvlib.scheduler import create_scheduler_v2
from mvlib.train import ModelEma, StepOptions, TrainState, train_one_epoch, validate
from mvlib.train.engine import NonFiniteLossError


class Data:
    """A loader of fixed batches that are a function of the epoch."""

    def __init__(self, batches: int = 6, size: int = 4, poison: tuple[int, ...] = ()) -> None:
        self.batches, self.size, self.poison = batches, size, poison
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        self.epoch, self.start = epoch, start_batch

    def __iter__(self):
        for batch in range(self.start, self.batches):
            generator = torch.Generator().manual_seed(1000 * self.epoch + batch)
            images = torch.randn(self.size, 3, 8, 8, generator=generator)
            if batch in self.poison:
                images[0, 0, 0, 0] = math.nan
            yield images, torch.randint(0, 5, (self.size,), generator=generator)


def make_state(opt: str = "sgd", norm: bool = True, ema: bool = True, dropout: float = 0.3) -> TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU(), nn.Flatten(),
                          nn.Dropout(dropout), nn.Linear(288, 5))
    optimizer = create_optimizer_v2(model, opt, lr=0.05, weight_decay=1e-4)
    scheduler, _ = create_scheduler_v2(optimizer, "cosine", num_epochs=3, warmup_epochs=1, step_on_epochs=False,
                                       updates_per_epoch=6)
    return TrainState(model, optimizer, scheduler, ModelEma(model, 0.9) if ema else None)


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


class Stop(Exception):
    pass


@pytest.mark.parametrize("opt", ["sgd", "adamw", "lookahead_radam"])
@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_stopped_run_goes_on_to_the_bit(tmp_path, opt, at):
    whole = make_state(opt)
    for _ in range(2):
        train_one_epoch(whole, Data(), nn.functional.cross_entropy)

    def stop(state, progress):
        if state.updates == at:
            torch.save(state.state_dict(), tmp_path / "c.pth")
            raise Stop

    broken = make_state(opt)
    with pytest.raises(Stop):
        for _ in range(2):
            train_one_epoch(broken, Data(), nn.functional.cross_entropy, on_update=stop)
    resumed = make_state(opt)
    resumed.load_state_dict(torch.load(tmp_path / "c.pth", weights_only=True))
    torch.manual_seed(99)  # what the process drew before is of no matter
    while resumed.epoch < 2:
        train_one_epoch(resumed, Data(), nn.functional.cross_entropy)
    assert same(whole.state_dict(), resumed.state_dict())


def test_accumulated_batches_are_one_large_batch():
    class Joined(Data):
        def __iter__(self):
            batches = list(super().__iter__())
            for i in range(0, len(batches), 2):
                yield tuple(torch.cat(column) for column in zip(*batches[i:i + 2]))

        def __len__(self):
            return (self.batches + 1) // 2

    one = make_state(norm=False, dropout=0.0)
    two = make_state(norm=False, dropout=0.0)
    train_one_epoch(one, Joined(batches=6), nn.functional.cross_entropy)
    train_one_epoch(two, Data(batches=6), nn.functional.cross_entropy, StepOptions(grad_accum_steps=2))
    assert one.updates == two.updates == 3
    for a, b in zip(one.model.parameters(), two.model.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_the_last_group_may_be_smaller():
    state = make_state()
    train_one_epoch(state, Data(batches=5), nn.functional.cross_entropy, StepOptions(grad_accum_steps=2))
    assert state.updates == 3


def test_accuracy_of_validation():
    model = nn.Linear(4, 6, bias=False)
    with torch.no_grad():
        model.weight.zero_()
        model.weight[:4] = torch.eye(4)
    inputs = torch.eye(4)
    loader = [(inputs, torch.tensor([0, 1, 3, 5]))]
    measured = validate(model, loader)
    assert measured["top1"] == 50.0 and measured["images"] == 4
    assert measured["top5"] in (75.0, 100.0)  # class 5 ties with class 4 for the last of five places
    assert measured["loss"] == pytest.approx(nn.functional.cross_entropy(model(inputs), loader[0][1]).item())
    assert model.training


def test_validation_averages_copies():
    model = nn.Identity()
    model.weight = nn.Parameter(torch.zeros(1))
    images = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.5, 0.0]])
    assert validate(model, [(images, torch.tensor([0, 0, 1, 1]))], tta=2)["top1"] == 100.0


def test_infinite_loss_stops():
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan in epoch 0, batch 3 \(update 3\), at learning rate"):
        train_one_epoch(make_state(), Data(poison=(3,)), nn.functional.cross_entropy)


def test_infinite_loss_may_be_left_out():
    state, clean = make_state(norm=False), make_state(norm=False)
    measured = train_one_epoch(state, Data(poison=(2, 4)), nn.functional.cross_entropy, StepOptions(skip_nonfinite=1))
    assert math.isfinite(measured["loss"]) and state.updates == 6
    assert all(p.isfinite().all() for p in state.model.parameters())
    train_one_epoch(clean, Data(), nn.functional.cross_entropy)
    assert not torch.equal(clean.model[0].weight, state.model[0].weight)
    with pytest.raises(NonFiniteLossError):
        train_one_epoch(make_state(), Data(poison=(2, 3)), nn.functional.cross_entropy, StepOptions(skip_nonfinite=1))


@pytest.mark.parametrize("mode", ["norm", "value", "agc"])
def test_clipping(mode):
    state = make_state(ema=False)
    before = copy.deepcopy(state.model.state_dict())
    train_one_epoch(state, Data(batches=1), lambda o, t: 1e6 * nn.functional.cross_entropy(o, t),
                    StepOptions(clip_grad=1e-3, clip_mode=mode))
    moved = (state.model[0].weight - before["0.weight"]).norm().item()
    assert 0 < moved < 0.1


def test_averages_every_few_updates_and_restarts():
    state = make_state()
    train_one_epoch(state, Data(), nn.functional.cross_entropy, StepOptions(ema_steps=4))
    assert state.ema.n_averaged == 2  # updates 0 and 4
    restarting = make_state()
    train_one_epoch(restarting, Data(), nn.functional.cross_entropy, StepOptions(ema_restart_epochs=1))
    for a, b in zip(restarting.ema.module.parameters(), restarting.model.parameters()):
        assert torch.equal(a, b)


def test_frozen_norms_keep_their_statistics():
    state = make_state()
    state.model[1].requires_grad_(False)
    before = state.model[1].running_mean.clone()
    train_one_epoch(state, Data(), nn.functional.cross_entropy)
    assert torch.equal(before, state.model[1].running_mean)


def test_bfloat16():
    state = make_state()
    options = StepOptions(autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    assert math.isfinite(train_one_epoch(state, Data(), nn.functional.cross_entropy, options)["loss"])


def test_a_teacher_is_asked():
    state = make_state()
    teacher = copy.deepcopy(state.model).eval().requires_grad_(False)
    asked = []

    def loss(outputs, targets, wisdom):
        asked.append(wisdom.shape)
        return nn.functional.mse_loss(outputs, wisdom)

    train_one_epoch(state, Data(), loss, StepOptions(teacher=teacher))
    assert asked == [(4, 5)] * 6


def test_auxiliary_classifiers_count():
    import mvlib

    torch.manual_seed(0)
    model = mvlib.create_model("googlenet", pretrained=False, num_classes=5, aux_logits=True)
    state = TrainState(model, create_optimizer_v2(model, "sgd", lr=0.01))

    class Larger(Data):
        def __iter__(self):
            for images, targets in super().__iter__():
                yield torch.nn.functional.interpolate(images, size=64), targets

    before = model.aux1.fc2.weight.clone()
    assert math.isfinite(train_one_epoch(state, Larger(batches=1), nn.functional.cross_entropy)["loss"])
    assert not torch.equal(before, model.aux1.fc2.weight)
