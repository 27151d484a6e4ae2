"""Optimizers follow timm's trajectories, resume to the bit, and say what is wrong with their arguments."""

import argparse
import contextlib
import copy
import io
import pickle
import sys
import warnings

import pytest
import timm.optim
import timm.utils
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import mvlib
from mvlib import optim
from mvlib.errors import ConfigError, MissingPackageError
from mvlib.layers.helpers import move_to_end
from mvlib.train import ModelEma

NAMES = optim.list_optimizers(exclude_filters=["fused*", "bnb*"])
IN_TIMM = [name for name in NAMES if name != "nvnovograd"]
FUSED = ("sgd", "momentum", "adam", "adamw", "adagrad")
IS_TORCH_2_5 = torch.__version__.startswith("2.5.")
WRAPPED = ["lookahead_sgd", "lookahead_adamw", "lookahead_lion"]
KRON = {"deterministic": True}


def small_net(dtype=torch.float32, chs=(20, 24, 18)):
    """Vectors, matrices, convolutions (one large enough for factors), no parameter whose gradient is only noise.

    Smooth throughout: at the corner of a ReLU the last bit becomes a difference.
    """
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, chs[0], 3, padding=1, bias=False), nn.BatchNorm2d(chs[0]), nn.SiLU(),
        nn.Conv2d(chs[0], chs[1], 3, stride=2, padding=1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(chs[1], chs[2]), nn.GELU(), nn.Linear(chs[2], 4)).to(dtype)


def net_for(name, dtype=torch.float32):
    """timm's Kron multiplies out all factors of a convolution: it takes seconds a step on the usual one."""
    return small_net(dtype, (4, 5, 6) if "kron" in name else (20, 24, 18))


def step(net, optimizer, number, second_order=False):
    generator = torch.Generator().manual_seed(number % 4)
    dtype = next(net.parameters()).dtype
    images = torch.randn(8, 3, 8, 8, generator=generator).to(dtype)
    labels = torch.randint(0, 4, (8,), generator=generator)
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(images), labels)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using backward.. with create_graph=True")
        loss.backward(create_graph=second_order)
    optimizer.step()
    return loss.detach()


def flat(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def trained(create, name, dtype=torch.float32, steps=14, **kwargs):
    net = net_for(name, dtype)
    if "kron" in name:
        kwargs = {**KRON, **kwargs}
    optimizer = create(net, name, lr=0.01, weight_decay=0.05, **kwargs)
    for number in range(steps):
        step(net, optimizer, number, getattr(optimizer, "is_second_order", False))
    return flat(net)


def distance(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.fixture
def plain_kron(monkeypatch):
    """timm's Kron compiles its functions, which needs a C compiler and a minute."""
    monkeypatch.setattr(torch, "compile", lambda fn, **kwargs: fn)


@pytest.fixture
def float64():
    """timm keeps some scalars of an optimizer's state in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# trajectories


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", IN_TIMM + WRAPPED)
@pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")
def test_trajectory_is_timms(name, plain_kron):
    if name == "cadamp":
        pytest.skip("the last bit of float32 decides a projected element's sign, and with it the mask: see float64")
    theirs = trained(timm.optim.create_optimizer_v2, name, steps=8)  # more in float64, below
    assert distance(trained(optim.create_optimizer_v2, name, steps=8), theirs) < 1e-5


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", IN_TIMM + WRAPPED)
@pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")
def test_trajectory_is_timms_in_float64(name, plain_kron, float64):
    theirs = trained(timm.optim.create_optimizer_v2, name, torch.float64)
    in_float32 = name == "radamlegacy"  # timm's; Muon's bfloat16 iterations are the same on both sides
    assert distance(trained(optim.create_optimizer_v2, name, torch.float64), theirs) < (1e-6 if in_float32 else 1e-12)


@pytest.mark.sample(3)
@pytest.mark.parametrize("name, kwargs", [
    ("sgd", {"nesterov": False, "momentum": 0.0}),
    ("sgdw", {"dampening": 0.1, "nesterov": False}), ("sgdw", {"momentum": 0.0, "nesterov": False}),
    ("sgdw", {"maximize": True}),
    ("sgdp", {"dampening": 0.1, "nesterov": False, "delta": 10.0}), ("csgdp", {"delta": 10.0}),
    ("lars", {"always_adapt": True, "dampening": 0.2, "trust_coeff": 0.1}), ("nlarc", {"trust_coeff": 10.0}),
    ("lion", {"betas": (0.8, 0.95), "maximize": True}),
    ("madgrad", {"momentum": 0.0}), ("madgradw", {"eps": 1e-3}),
    ("rmsproptf", {"centered": True}), ("rmsproptf", {"momentum": 0.0}), ("crmsproptf", {"lr_in_momentum": False}),
    ("rmsproptf", {"eps": 0.001, "alpha": 0.95}),
    ("adamwlegacy", {"amsgrad": True, "clipping_threshold": 0.5}), ("nadamw", {"clipping_threshold": 0.5}),
    ("adamwlegacy", {"maximize": True}),
    ("adamp", {"delta": 10.0, "nesterov": False}), ("cadamp", {"delta": 10.0}),
    ("adan", {"betas": (0.9, 0.8, 0.95), "eps": 1e-6}),
    ("adopt", {"clip_exp": None, "betas": (0.8, 0.9)}), ("adoptw", {"maximize": True}),
    ("lamb", {"bias_correction": False, "grad_averaging": False, "max_grad_norm": None, "always_adapt": True}),
    ("lamb", {"max_grad_norm": 0.1}),
    ("mars", {"mars_type": "lion"}), ("cmars", {"optimize_1d": True}),
    ("mars", {"lr_1d_factor": 0.5, "betas_1d": (0.8, 0.9), "gamma": 0.5}),
    ("novograd", {"amsgrad": True, "grad_averaging": True}),
    ("adabelief", {"decoupled_decay": False}), ("adabelief", {"fixed_decay": True}),
    ("radabelief", {"degenerated_to_sgd": False}),
    ("adafactor", {"lr": None}), ("adafactor", {"lr": None, "warmup_init": True}),
    ("adafactor", {"lr": None, "scale_parameter": False}), ("adafactor", {"betas": (0.9, 0.99)}),
    ("adafactor", {"min_dim_size_to_factor": 2, "clip_threshold": 0.1}),
    ("adafactorbv", {"clipping_threshold": 0.1, "momentum_dtype": "float32", "min_dim_size_to_factor": 2}),
    ("adafactorbv", {"unscaled_wd": True, "momentum": None, "decay_offset": 3}),
    ("adafactorbvc", {"unscaled_wd": True}),
    ("adahessian", {"update_each": 3}), ("adahessian", {"n_samples": 2, "avg_conv_kernel": True}),
    ("adahessian", {"hessian_power": 0.5}),
    ("kron", {"memory_save_mode": "one_diag"}), ("kron", {"memory_save_mode": "smart_one_diag"}),
    ("kron", {"memory_save_mode": "all_diag", "momentum_into_precond_update": False}),
    ("kron", {"flatten": True, "preconditioner_update_probability": 0.3}),
    ("kronw", {"stochastic_weight_decay": True, "max_size_triangular": 4}),
    ("muon", {"conv_mode": "batched"}), ("muon", {"conv_mode": "batched", "normalize_spatial": False}),
    ("muon", {"adjust_lr_fn": "original", "ns_coefficients": "original"}),
    ("muon", {"adjust_lr_fn": "rms_to_rms", "ns_coefficients": "polar_express", "ns_steps": 7, "safety_factor": 1.01}),
    ("muon", {"adjust_lr_fn": None, "scale_eps": True, "fallback_lr_scale": 0.3}),
    ("nmuon", {"ns_coefficients": (3.4445, -4.7750, 2.0315), "fallback_list": ["3.*"]}),
    ("adamuon", {"conv_mode": "batched"}), ("adamuon", {"adjust_lr_fn": "rsqrt_in", "conv_mode": "batched"}),
    ("nadamuon", {"adjust_lr_fn": "rms_to_rms", "ns_coefficients": "polar_express_safer"}),
    ("adamuon", {"adjust_lr_fn": None}),
    ("laprop", {"betas": (0.8, 0.9), "eps": 1e-6}), ("nadamlegacy", {"schedule_decay": 0.1}),
    ("radamlegacy", {"betas": (0.9, 0.9)}), ("adamw", {"amsgrad": True}),
])
@pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")
def test_options_are_timms(name, kwargs, plain_kron, float64):
    net = {}
    for library in (timm.optim, optim):
        net[library] = net_for(name, torch.float64)
        arguments = {"lr": 0.01, "weight_decay": 0.05, **(KRON if "kron" in name else {}), **kwargs}
        optimizer = library.create_optimizer_v2(net[library], name, **arguments)
        for number in range(8):
            step(net[library], optimizer, number, name == "adahessian")
    in_float32 = name == "radamlegacy"
    assert distance(flat(net[optim]), flat(net[timm.optim])) < (1e-6 if in_float32 else 1e-12)


@pytest.mark.parametrize("name", ["lamb", "lion", "adan", "nlars", "rmsproptfc", "laprop", "csgdw", "adopt", "mars"])
def test_together_is_one_by_one(name):
    one_by_one = trained(optim.create_optimizer_v2, name, torch.float64, foreach=False)
    assert distance(trained(optim.create_optimizer_v2, name, torch.float64, foreach=True), one_by_one) < 1e-12


@pytest.mark.parametrize("name", ["sgdw", "lion", "laprop", "adafactorbvc", "kronw", "adamwlegacy", "muon", "adan"])
@pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")
def test_a_schedule_and_a_late_parameter(name, plain_kron, float64):
    """The learning rate changes every step, and one parameter gets no gradient at first."""
    nets = {}
    for library in (timm.optim, optim):
        net = nets[library] = net_for(name, torch.float64)
        net[7].requires_grad_(False)
        groups = [{"params": net[7].parameters()}, {"params": [p for p in net.parameters() if p.requires_grad]}]
        kwargs = KRON if "kron" in name else {}
        optimizer = library.create_optimizer_v2(groups, name, lr=0.01, weight_decay=0.05, **kwargs)
        for number in range(10):
            if number == 3 and name != "adan":  # timm counts the steps of Adan by group
                net[7].requires_grad_(True)
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * (number + 1) / 10
            step(net, optimizer, number)
    assert distance(flat(nets[optim]), flat(nets[timm.optim])) < 1e-12


@pytest.mark.parametrize("name", ["adafactor", "adafactorbv", "lion", "novograd", "lamb", "muon", "kron"])
def test_low_precision_parameters(name):
    net = small_net(torch.bfloat16)
    optimizer = optim.create_optimizer_v2(net, name, lr=1e-3, weight_decay=0.05)
    losses = [step(net, optimizer, number) for number in range(20)]
    assert losses[-4:] < losses[:4]
    restored = optim.create_optimizer_v2(net, name, lr=1e-3, weight_decay=0.05)
    restored.load_state_dict(optimizer.state_dict())
    for state, other in zip(optimizer.state.values(), restored.state.values()):
        dtypes = [{k: v.dtype for k, v in s.items() if isinstance(v, torch.Tensor)} for s in (state, other)]
        assert dtypes[0] == dtypes[1]


# resuming


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", NAMES + WRAPPED + ["lookahead_adahessian", "lookahead_kron"])
def test_resume_is_exact(name):
    second_order = "adahessian" in name

    def start():
        net = small_net()
        return net, optim.create_optimizer_v2(net, name, lr=0.01, weight_decay=0.05)

    net, optimizer = start()
    for number in range(10):
        if number == 5:
            checkpoint = io.BytesIO()
            torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)
        step(net, optimizer, number, second_order)
    resumed, optimizer = start()
    checkpoint.seek(0)
    saved = torch.load(checkpoint, weights_only=True)
    resumed.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    for number in range(5, 10):
        step(resumed, optimizer, number, second_order)
    assert torch.equal(flat(net), flat(resumed))


def test_adahessian_resumes_between_two_estimates():
    net, other = Few(), Few()
    optimizer, resumed = (optim.create_optimizer_v2(n, "adahessian", lr=0.01, update_each=3) for n in (net, other))
    net.take_steps(optimizer, range(1))
    other.load_state_dict(net.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    net.take_steps(optimizer, range(1, 5))
    other.take_steps(resumed, range(1, 5))
    assert torch.equal(flat(net), flat(other))


@pytest.mark.parametrize("name", ["lamb", "adahessian", "kron", "lookahead_lion", "adamw"])
def test_copies_go_on_like_the_original(name):
    net = net_for(name)
    optimizer = optim.create_optimizer_v2(net, name, lr=0.01)
    step(net, optimizer, 0, name == "adahessian")
    if name == "adahessian":
        optimizer.zero_grad()  # gradients with a graph cannot be copied
    other_net, other = copy.deepcopy((net, optimizer))
    for number in range(1, 8):
        step(net, optimizer, number, name == "adahessian")
        step(other_net, other, number, name == "adahessian")
    assert torch.equal(flat(net), flat(other_net))


def test_lookahead_takes_the_state_of_what_it_wraps():
    net = small_net()
    plain = optim.create_optimizer_v2(net, "adamw", lr=0.01)
    step(net, plain, 0)
    wrapped = optim.create_optimizer_v2(net, "lookahead_adamw", lr=0.01)
    wrapped.load_state_dict(plain.state_dict())
    assert [group["lookahead_k"] for group in wrapped.param_groups] == [6]
    for number in range(6):
        step(net, wrapped, number)
    before = flat(net)
    step(net, wrapped, 0)
    wrapped.sync_lookahead()
    assert not torch.equal(flat(net), before)


def test_lookahead_takes_further_groups_and_schedules():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = optim.create_optimizer_v2(first.parameters(), "lookahead_sgd", lr=1.0)
    optimizer.add_param_group({"params": second.parameters()})
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    before = second.weight.detach().clone()
    second(first(torch.ones(1, 2))).sum().backward()
    optimizer.step()
    schedule.step()
    assert not torch.equal(second.weight, before)
    assert [group["lr"] for group in optimizer.base_optimizer.param_groups] == [0.1, 0.1]


# what torch runs


@pytest.mark.parametrize("name", FUSED)
def test_fused_by_default_unless_asked_otherwise(name):
    assert optim.create_optimizer_v2(small_net(), name).defaults["fused"] is True
    assert not optim.create_optimizer_v2(small_net(), name, foreach=True).defaults["fused"]
    assert not optim.create_optimizer_v2(small_net(), name, fused=False).defaults["fused"]
    assert not optim.create_optimizer_v2(small_net().to("meta"), name).defaults["fused"]
    fused = trained(optim.create_optimizer_v2, name)
    assert distance(fused, trained(optim.create_optimizer_v2, name, fused=False)) < 1e-6


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_fused_minds_the_layout_in_memory(name):
    """torch's own fused step mixes up the elements where state or gradient is laid out unlike the parameter."""
    def run(**kwargs):
        net = small_net()
        optimizer = optim.create_optimizer_v2(net, name, lr=0.1, **kwargs)
        step(net, optimizer, 0)
        net.to(memory_format=torch.channels_last)  # the state stays as it was
        for number in range(1, 4):
            step(net, optimizer, number)
        weight = net[3].weight
        weight.grad = weight.grad.contiguous()
        assert weight.grad.stride() != weight.stride()
        optimizer.step()
        return flat(net)

    assert distance(run(), run(fused=False)) < 1e-5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
                         ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("name", [*FUSED, "lookahead_sgd"])
def test_a_copy_minds_it_too(name, copied):
    def run(**kwargs):
        net = small_net()
        optimizer = optim.create_optimizer_v2(net, name, lr=0.1, **kwargs)
        step(net, optimizer, 0)
        net, optimizer = copied(copied((net, optimizer)))
        optimizer.load_state_dict(optimizer.state_dict())
        net.to(memory_format=torch.channels_last)
        for number in range(1, 4):
            step(net, optimizer, number)
        return flat(net)

    assert distance(run(), run(fused=False)) < 1e-5


MEMORY = {
    "slice": lambda: torch.randn(10, 8)[:, :5],
    "every second": lambda: torch.randn(12)[::2],
    "slice of a convolution": lambda: torch.randn(8, 6, 3, 3)[:4, :, 1:, :2],
    "permuted": lambda: torch.randn(4, 5, 6).permute(2, 0, 1),
    "empty": lambda: torch.randn(0, 5),
    "scalar": lambda: torch.randn(()),
}


def descend(optimizer, params, steps, change=lambda params: None):
    """Steps down a quadratic whose minimum is at 1; returns all elements."""
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p - 1).square().sum() for p in params).backward()
        change(params)
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in params])


@pytest.mark.sample(3)
@pytest.mark.parametrize("asked", [{}, {"fused": True}], ids=["default", "fused"])
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", FUSED)
def test_any_memory_learns_what_timm_learns(name, memory, asked):
    def run(create, **kwargs):
        torch.manual_seed(0)
        params = [nn.Parameter(MEMORY[memory]()), nn.Parameter(torch.randn(3))]
        return descend(create(params, name, lr=0.05, **kwargs), params, 40)

    ours, theirs = run(optim.create_optimizer_v2, **asked), run(timm.optim.create_optimizer_v2)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_linear_layer_with_a_sliced_weight_learns():
    torch.manual_seed(0)
    layer = nn.Linear(5, 10)
    layer.weight = nn.Parameter(torch.randn(10, 8)[:, :5])
    optimizer = optim.create_optimizer_v2(layer, "sgd", lr=0.05)
    assert descend(optimizer, [layer.weight, layer.bias], 300).sub(1).abs().max() < 1e-5


def _expanded(params):
    for p in params:
        p.grad = p.grad.mean().expand_as(p)


def _every_second(params):
    for p in params:
        p.grad = torch.stack((p.grad, -p.grad), dim=-1)[..., 0]


def _sparse(params):
    params[0].grad = params[0].grad.to_sparse(1)


def _half_gradient(params):
    grad, params[0].grad = params[0].grad, None
    params[0].grad_dtype = torch.bfloat16
    params[0].grad = grad.bfloat16()


@pytest.mark.parametrize(("change", "names"), [
    (_expanded, FUSED), (_every_second, FUSED), (_sparse, ("sgd", "adagrad")),
    pytest.param(_half_gradient, ("sgd", "adagrad"), marks=pytest.mark.skipif(
        not hasattr(torch.Tensor, "grad_dtype"), reason="gradients have their parameter's type in this torch")),
])
def test_any_gradient_teaches_what_it_teaches_unfused(change, names):
    def run(name, **kwargs):
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(5))]
        return descend(optim.create_optimizer_v2(params, name, lr=0.05, **kwargs), params, 4, change)

    for name in names:
        assert torch.allclose(run(name), run(name, fused=False), atol=1e-5), name


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.skipif(name == "adagrad" and IS_TORCH_2_5,
                                                reason="this torch's Adagrad takes no groups after the first step"))
    for name in FUSED])
def test_what_comes_later_is_not_fused_where_that_is_wrong(name):
    def run(**kwargs):
        torch.manual_seed(0)
        first, second, late = (nn.Parameter(t) for t in (torch.randn(4, 4), torch.randn(5), torch.randn(4, 8)[:, ::2]))
        optimizer = optim.create_optimizer_v2([{"params": [first]}, {"params": [second]}], name, lr=0.05, **kwargs)
        descend(optimizer, [first, second], 3)
        optimizer.add_param_group({"params": [late]})
        if name in ("sgd", "momentum", "adagrad"):  # torch's Adam takes no state of another type
            second.data, second.grad = second.data.double(), None
        result = descend(optimizer, [first, second, late], 3)
        return result, [group["fused"] for group in optimizer.param_groups]

    (ours, fused), (expected, _) = run(), run(fused=False)
    assert torch.allclose(ours, expected, atol=1e-5)
    assert fused[0] is True and fused[-1] is None


def test_a_step_that_cannot_be_fused_after_all_works_with_a_gradient_scaler():
    def run(**kwargs):
        torch.manual_seed(0)
        p = nn.Parameter(torch.randn(6, 4))
        optimizer = optim.create_optimizer_v2([p], "sgd", lr=0.05, **kwargs)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for _ in range(2):
            optimizer.zero_grad()
            scaler.scale((p - 1).square().sum()).backward()
            _sparse([p])
            scaler.step(optimizer)
            scaler.update()
        return p.detach()

    assert torch.allclose(run(), run(fused=False))


# state


@pytest.mark.parametrize("kwargs", [{}, {"layer_decay": 0.7}], ids=["weight decay", "layer decay"])
def test_a_state_finds_its_parameters_whatever_their_order_was(kwargs):
    def make(is_old):
        torch.manual_seed(0)
        model = mvlib.create_model("test_vit", num_classes=3)
        if is_old:
            for block in model.blocks:
                move_to_end(block, "norm1")
        return model, optim.create_optimizer_v2(model, "adamw", lr=0.01, weight_decay=0.05, **kwargs)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.linspace(-1, 1, 3 * 160 * 160).view(1, 3, 160, 160)).square().sum().backward()
        optimizer.step()

    old, new = make(True), make(False)
    step(*old)
    new[0].load_state_dict(old[0].state_dict())
    optim.resume_optimizer(new[1], copy.deepcopy(old[1].state_dict()), new[0], old[0].state_dict())
    step(*old)
    step(*new)
    expected = old[0].state_dict()
    assert list(expected) != list(new[0].state_dict())
    assert all(torch.equal(value, expected[key]) for key, value in new[0].state_dict().items())


class Few(nn.Module):
    """A convolution, a matrix (both large enough for factors), a vector, and what gets no gradient."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        shapes = {"kernel": (18, 17, 2, 1), "matrix": (17, 18), "vector": (5,), "idle": (3,)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))

    def take_steps(self, optimizer, numbers):
        params = [self.kernel, self.matrix, self.vector]
        for number in numbers:
            optimizer.zero_grad()
            waves = [(torch.arange(p.numel()).view(p.shape) * (number + 1.0)).cos() for p in params]
            loss = sum(((p - wave).square() + (p * wave).sin()).sum() for p, wave in zip(params, waves))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Using backward.. with create_graph=True")
                loss.backward(create_graph=getattr(optimizer, "is_second_order", False))
            optimizer.step()


OPTIONS = [
    ("sgdw", {"momentum": 0.0, "nesterov": False}), ("lars", {"momentum": 0.0}), ("madgrad", {"momentum": 0.0}),
    ("rmsproptf", {"centered": True}), ("adamwlegacy", {"amsgrad": True}), ("novograd", {"amsgrad": True}),
    ("mars", {"optimize_1d": True, "mars_type": "lion"}), ("adabelief", {"amsgrad": True}),
    ("adafactor", {"lr": None}), ("cadafactor", {"betas": (0.0, 0.9)}), ("adafactor", {"min_dim_size_to_factor": 17}),
    ("adafactorbv", {"momentum": None}), ("adahessian", {"update_each": 3}),
    ("kron", {"flatten": True, "mu_dtype": torch.bfloat16}), ("kronw", {"stochastic_weight_decay": True}),
]


@pytest.mark.sample(3)
@pytest.mark.parametrize("name, kwargs", [
    *((name, {}) for name in [*IN_TIMM, *WRAPPED, "lookahead_lamb", "lookahead_adan"]), *OPTIONS])
@pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")
def test_goes_on_from_timms_state(name, kwargs, plain_kron, float64):
    arguments = {"lr": 0.01, "weight_decay": 0.05, **(KRON if "kron" in name else {}), **kwargs}

    def start(create):
        net = Few()
        return net, create(net, name, **arguments)

    net, optimizer = start(timm.optim.create_optimizer_v2)
    net.take_steps(optimizer, range(4))
    file = io.BytesIO()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, file)

    def go_on(create, load):
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        net, optimizer = start(create)
        net.load_state_dict(saved["model"])
        load(optimizer, saved["optimizer"], net)
        net.take_steps(optimizer, range(4, 8))
        return flat(net)

    def plainly(optimizer, saved, net):
        optimizer.load_state_dict(saved)

    theirs = go_on(timm.optim.create_optimizer_v2, plainly)
    way = (theirs - flat(net)).norm()
    for load in (plainly, lambda *given: optim.resume_optimizer(*given, order=given[2].state_dict())):
        assert (go_on(optim.create_optimizer_v2, load) - theirs).norm() / way < 1e-5


@pytest.mark.parametrize("name, other", [
    ("lamb", "lion"), ("mars", "adamw"), ("kron", "sgd"), ("adafactor", "adafactorbv"), ("muon", "adamw"),
    ("lookahead_adan", "adam"), ("adahessian", "adamw"), ("adabelief", "adamw"),
])
def test_the_state_of_another_optimizer_is_refused(name, other):
    net = Few()
    saved = optim.create_optimizer_v2(net, other, lr=0.01)
    net.take_steps(saved, range(1))
    with pytest.raises(ConfigError, match="it is the state of another optimizer, without '|in the state, not"):
        optim.create_optimizer_v2(net, name, lr=0.01).load_state_dict(saved.state_dict())


@pytest.mark.parametrize("name, other", [("adamw", "lion"), ("lion", "adamw"), ("sgd", "adamw"), ("lamb", "sgd")])
def test_groups_tell_optimizers_apart(name, other):
    net = Few()
    saved = optim.create_optimizer_v2(net, other, lr=0.01)
    net.take_steps(saved, range(1))
    with pytest.raises(ConfigError, match="it is the state of another optimizer, with"):
        optim.resume_optimizer(optim.create_optimizer_v2(net, name), saved.state_dict(), net, net.state_dict())


def test_a_state_of_other_shapes_is_refused():
    net, wide = nn.Linear(3, 4), nn.Linear(5, 4)
    saved = optim.create_optimizer_v2(wide, "adamw")
    descend(saved, list(wide.parameters()), 1)
    with pytest.raises(ConfigError, match=r"'exp_avg' for 'weight' is \(4, 5\), and the parameter \(4, 3\)"):
        optim.resume_optimizer(optim.create_optimizer_v2(net, "adamw"), saved.state_dict(), net, ["weight", "bias"])


# step


@pytest.mark.parametrize("name", ["adamw", "lion", "lamb", "muon", "lookahead_lars", "adabelief"])
def test_closure(name):
    net, target = nn.Linear(4, 8), torch.ones(8)
    optimizer = optim.create_optimizer_v2(net, name, lr=0.01)

    def closure():
        optimizer.zero_grad()
        loss = (net(torch.ones(4)) - target).square().sum()
        loss.backward()
        return loss

    first = optimizer.step(closure)
    for _ in range(50):
        last = optimizer.step(closure)
    assert first.requires_grad and last < first


def test_second_order():
    assert optim.get_optimizer_info("adahessian").second_order
    net = small_net()
    optimizer = optim.create_optimizer_v2(net, "lookahead_adahessian")
    assert optimizer.is_second_order
    with pytest.raises(ConfigError, match=r"loss.backward\(create_graph=True\)"):
        step(net, optimizer, 0)


def test_lr_may_be_a_tensor():
    ours = trained(lambda net, name, lr, **kw: optim.create_optimizer_v2(net, name, lr=torch.tensor(lr), **kw), "lion")
    assert distance(ours, trained(optim.create_optimizer_v2, "lion")) < 1e-6


def test_gradients_stay_as_they_are():
    for name in ("lamb", "adopt", "sgdp", "cadamp", "lars", "novograd", "madgrad", "mars", "kron"):
        net = small_net()
        optimizer = optim.create_optimizer_v2(net, name, lr=0.01, weight_decay=0.05)
        step(net, optimizer, 0)
        before = [p.grad.clone() for p in net.parameters()]
        optimizer.step()
        assert all(torch.equal(p.grad, grad) for p, grad in zip(net.parameters(), before)), name


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(4, 2, sparse=True)
    optimizer = optim.create_optimizer_v2(embedding.parameters(), "lion")
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ConfigError, match="Lion does not take sparse gradients"):
        optimizer.step()


# names


def test_infos_are_timms():
    for name in timm.optim.list_optimizers():
        ours, theirs = optim.get_optimizer_info(name), timm.optim.get_optimizer_info(name)
        for field in ("name", "has_momentum", "has_betas", "second_order"):
            assert getattr(ours, field) == getattr(theirs, field), (name, field)
        assert ours.has_eps == theirs.has_eps, name
        assert ours.num_betas == theirs.num_betas, name
        assert (ours.defaults or {}) == (theirs.defaults or {}), name


def test_signatures_are_timms():
    """Every class takes timm's arguments, in its order and with its defaults, but for what only CUDA graphs need."""
    import inspect

    left_out = {"capturable", "differentiable", "verbose", "adamw_lr"}
    for name in IN_TIMM:
        ours, theirs = (
            list(inspect.signature(library.get_optimizer_class(name, bind_defaults=False)).parameters.values())
            for library in (optim, timm.optim))
        theirs = {p.name: p.default for p in theirs if p.name not in left_out}
        ours = {p.name: p.default for p in ours}
        assert [key for key in ours if key in theirs] == list(theirs), name
        ours.update({"deterministic": False} if "kron" in name else {"lr": theirs["lr"]} if "sgdp" in name else {})
        assert {key: ours[key] for key in theirs} == theirs, name


def test_list_optimizers():
    assert set(timm.optim.list_optimizers()) <= set(optim.list_optimizers())
    assert optim.list_optimizers(["la*", "nla*"]) == timm.optim.list_optimizers(["la*", "nla*"])
    kept = optim.list_optimizers("*adam*", exclude_filters=["bnb*", "fused*"])
    assert kept == timm.optim.list_optimizers("*adam*", exclude_filters=["bnb*", "fused*"])
    described = optim.list_optimizers("lion", with_description=True)
    assert described == [("lion", "Lion, the sign of the momentum")]
    assert all(text for _, text in optim.list_optimizers(with_description=True))


def test_get_optimizer_class():
    weight = nn.Parameter(torch.ones(1))
    assert optim.get_optimizer_class("sgd", bind_defaults=False) is torch.optim.SGD
    assert optim.get_optimizer_class("sgd")([weight], lr=1, momentum=0.9).defaults["nesterov"] is True
    assert optim.get_optimizer_class("lambc") is not optim.Lamb
    assert optim.get_optimizer_class("lambc", bind_defaults=False) is optim.Lamb


def test_register_optimizer():
    class Ours(torch.optim.SGD):
        pass

    try:
        optim.register_optimizer("OurSGD", Ours, "ours", has_eps=False, has_momentum=True, defaults={"nesterov": True})
        optimizer = optim.create_optimizer_v2(small_net(), "oursgd", lr=0.1, eps=1e-3)
        assert isinstance(optimizer, Ours) and optimizer.defaults["nesterov"] and optimizer.defaults["momentum"] == 0.9
        assert ("oursgd", "ours") in optim.list_optimizers(with_description=True)
        with pytest.warns(UserWarning, match="'oursgd' is registered anew"):
            optim.register_optimizer("oursgd", "torch.optim.SGD")
    finally:
        optim.registry._infos.pop("oursgd", None)
    try:
        optim.register_optimizer("rprop", torch.optim.Rprop, has_eps=False)  # takes no weight decay
        assert isinstance(optim.create_optimizer_v2(small_net(), "rprop"), torch.optim.Rprop)
        with pytest.raises(ConfigError, match="'rprop' takes no argument 'weight_decay'"):
            optim.create_optimizer_v2(small_net().parameters(), "rprop", weight_decay=0.1)
    finally:
        optim.registry._infos.pop("rprop", None)
    with pytest.raises(ConfigError, match="'lookahead_' is a prefix"):
        optim.register_optimizer("lookahead_mine", Ours)


def test_listing_imports_no_torch():
    import subprocess

    code = ("import sys, mvlib.optim as o; o.list_optimizers(); o.get_optimizer_info('adamw'); "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


# what goes wrong


def test_unknown_optimizer():
    with pytest.raises(ConfigError, match="unknown optimizer 'adamww'; did you mean 'adamw'"):
        optim.create_optimizer_v2(small_net(), "adamww")
    with pytest.raises(ValueError, match="unknown optimizer 'lookahed'"):
        optim.get_optimizer_info("lookahed")


@pytest.mark.parametrize("name, kwargs, message", [
    ("lamb", {"trust_clp": True}, "'lamb' takes no argument 'trust_clp'; did you mean 'trust_clip'?; it takes lr,"),
    ("sgd", {"caution": True}, "optimizer 'sgd' takes no argument 'caution'; it takes lr, momentum"),
    ("adan", {"betas": (0.9, 0.99)}, "optimizer 'adan' takes 3 betas, got 2"),
    ("lion", {"betas": (0.9, 1.0)}, r"Lion: beta 1.0 is not in \[0, 1\)"),
    ("lamb", {"lr": -1.0}, "Lamb: lr -1.0 is negative"),
    ("sgdw", {"momentum": 0.0}, "SGDW: Nesterov momentum needs a momentum above 0"),
    ("adamc", {"lr": 0.0}, "AdamWLegacy: corrected weight decay needs the peak learning rate"),
    ("madgrad", {"lr": 0.0}, "MADGRAD takes lr > 0"),
    ("mars", {"mars_type": "sgd"}, "mars_type 'sgd' is neither"),
    ("muon", {"conv_mode": "flat"}, "conv_mode 'flat' is not one of flatten, batched"),
    ("muon", {"adjust_lr_fn": "rsqrt_in"}, "adjust_lr_fn 'rsqrt_in' is not one of None, original"),
    ("muon", {"ns_coefficients": "cubic"}, "ns_coefficients 'cubic' is not one of original, quintic"),
    ("muon", {"ns_coefficients": [(1, 2)]}, r"ns_coefficients are \(a, b, c\)"),
    ("kron", {"memory_save_mode": "diag"}, "memory_save_mode 'diag' is not one of one_diag"),
    ("adafactorbv", {"momentum_dtype": "int8"}, "momentum_dtype 'int8' is not one of float16"),
    ("adafactor", {"warmup_init": True, "lr": 0.1}, "warmup_init is for the learning rate that it sets itself"),
    ("adahessian", {"hessian_power": 2.0}, r"hessian_power 2.0 is not in \[0, 1\]"),
])
def test_bad_arguments(name, kwargs, message):
    with pytest.raises(ConfigError, match=message.replace("?;", r"\?;")):
        optim.create_optimizer_v2(small_net(), name, **kwargs)


def test_bad_lookahead():
    with pytest.raises(ConfigError, match="lookahead takes alpha"):
        optim.Lookahead(torch.optim.SGD(small_net().parameters()), alpha=2.0)


def test_nothing_to_train():
    with pytest.raises(ConfigError, match="no trainable parameters"):
        optim.create_optimizer_v2(small_net().requires_grad_(False))
    with pytest.raises(ConfigError, match="not as one tensor"):
        optim.create_optimizer_v2(nn.Parameter(torch.ones(1)))


def test_missing_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "apex", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingPackageError, match="'fusedlamb' needs the package 'apex': NVIDIA's"):
        optim.create_optimizer_v2(small_net(), "fusedlamb")
    with pytest.raises(ImportError, match="'bnbadamw8bit' needs the package 'bitsandbytes'"):
        optim.create_optimizer_v2(small_net(), "bnbadamw8bit")


# arguments


def test_optimizer_kwargs():
    cfg = argparse.Namespace(
        opt="adamw", lr=0.1, weight_decay=0.05, momentum=0.9, opt_eps=1e-6, opt_betas=[0.9, 0.95], layer_decay=0.7,
        layer_decay_min_scale=0.1, layer_decay_no_opt_scale=None, opt_args={"amsgrad": True}, opt_foreach=False)
    assert optim.optimizer_kwargs(cfg) == timm.optim.optimizer_kwargs(cfg)
    bare = argparse.Namespace(opt="sgd", lr=None, weight_decay=0.0, momentum=0.9)
    assert optim.optimizer_kwargs(bare) == timm.optim.optimizer_kwargs(bare)
    optimizer = optim.create_optimizer(bare, small_net())
    assert optimizer.defaults["lr"] == torch.optim.SGD([torch.ones(1)]).defaults["lr"]


def test_common_arguments_are_dropped_where_they_do_not_apply():
    optimizer = optim.create_optimizer_v2(small_net(), "lion", eps=1e-3, momentum=0.5)
    assert "eps" not in optimizer.defaults and "momentum" not in optimizer.defaults
    assert "betas" not in optim.create_optimizer_v2(small_net(), "sgd", betas=(0.9, 0.9)).defaults


# groups


def same_groups(ours, theirs):
    assert len(ours) == len(theirs)
    for group, other in zip(ours, theirs):
        assert [id(p) for p in group["params"]] == [id(p) for p in other["params"]]
        assert {k: v for k, v in group.items() if k != "params"} == {k: v for k, v in other.items() if k != "params"}


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto", "efficientnet_b0",
                                  "swin_tiny_patch4_window7_224", "regnety_002", "deit_tiny_distilled_patch16_224"])
def test_groups_of_models(name):
    with torch.device("meta"):
        model, peer = mvlib.create_model(name), timm.create_model(name)
    model.conv_never = None
    no_decay = model.no_weight_decay()
    same_groups(optim.param_groups_weight_decay(model, 0.05, no_weight_decay_list=no_decay),
                timm.optim.param_groups_weight_decay(model, 0.05, no_weight_decay_list=no_decay))
    for options in ({}, {"layer_decay": 0.5, "min_scale": 0.1}, {"weight_decay_exclude_1d": False}):
        same_groups(optim.param_groups_layer_decay(model, 0.05, no_decay, **options),
                    timm.optim.param_groups_layer_decay(model, 0.05, no_decay, **options))

    def by_name(model, groups):
        names = {id(p): name for name, p in model.named_parameters()}
        return {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}

    ours = by_name(model, optim.param_groups_layer_decay(model, 0.05, no_decay))
    theirs = by_name(peer, timm.optim.param_groups_layer_decay(peer, 0.05, peer.no_weight_decay()
                                                              if hasattr(peer, "no_weight_decay") else ()))
    assert ours == theirs


def test_layer_decay_freezes_what_is_far_from_the_head():
    models = [mvlib.create_model("vit_tiny_patch16_224", depth=4) for _ in range(2)]
    for model, library in zip(models, (optim, timm.optim)):
        library.param_groups_layer_decay(model, layer_decay=0.5, no_opt_scale=0.2)
    frozen = [[name for name, p in model.named_parameters() if not p.requires_grad] for model in models]
    assert frozen[0] == frozen[1] and "cls_token" in frozen[0]


def test_layer_decay_without_a_matcher():
    net = small_net()
    for head in ("9", ("7", "9")):
        net.pretrained_cfg = {"classifier": head}
        for kwargs in ({"layers_per_group": 2}, {"num_groups": 3}, {}):
            assert optim.auto_group_layers(net, **kwargs) == timm.optim.auto_group_layers(net, **kwargs)
        same_groups(optim.param_groups_layer_decay(net), timm.optim.param_groups_layer_decay(net))
    del net.pretrained_cfg
    with pytest.warns(UserWarning, match="layer decay has no effect"):
        same_groups(optim.param_groups_layer_decay(net), timm.optim.param_groups_layer_decay(net))


def test_group_parameters_by_function():
    layers = optim.group_parameters(small_net(), lambda name: int(name.split(".")[0]))
    assert layers["0.weight"] == 0 and layers["9.bias"] == max(layers.values()) == 4


def test_groups_of_a_hybrid_optimizer():
    net = small_net()
    options = dict(weight_decay=0.05, no_weight_decay_list=["7.weight"], fallback_list=["3.*"])
    for more in ({}, {"fallback_no_weight_decay": True}, {"weight_decay_exclude_1d": False}):
        same_groups(optim.param_groups_weight_decay(net, **options, **more),
                    timm.optim.param_groups_weight_decay(net, **options, **more))
        net.pretrained_cfg = {"classifier": "9"}
        same_groups(optim.param_groups_layer_decay(net, **options, **more),
                    timm.optim.param_groups_layer_decay(net, **options, **more))
    same_groups(optim.param_groups_weight_decay(net, 0.0, fallback_list=["3.*"]),
                timm.optim.param_groups_weight_decay(net, 0.0, fallback_list=["3.*"]))


def test_frozen_parameters_are_left_out():
    net = small_net()
    net[0].requires_grad_(False)
    for kwargs in ({}, {"layer_decay": 0.9}):
        net.pretrained_cfg = {"classifier": "9"}
        optimizer = optim.create_optimizer_v2(net, "adamw", weight_decay=0.1, **kwargs)
        assert all(p is not net[0].weight for group in optimizer.param_groups for p in group["params"])


def test_model_says_what_takes_no_decay():
    model = mvlib.create_model("vit_tiny_patch16_224", depth=1)
    optimizer = optim.create_optimizer_v2(model, "adamw", weight_decay=0.1)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays[id(model.pos_embed)] == 0.0 and decays[id(model.head.weight)] == 0.1


def test_param_group_fn_and_plain_parameters():
    net = small_net()
    optimizer = optim.create_optimizer_v2(
        net, "sgd", lr=0.1, weight_decay=0.1, param_group_fn=lambda m: [{"params": m[9].parameters(), "lr": 0.5}])
    assert [(group["lr"], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups] == [
        (0.5, 0.1, 2)]
    optimizer = optim.create_optimizer_v2(net.parameters(), "lion", weight_decay=0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1]
    if not IS_TORCH_2_5:  # whose optimizers take no names
        named = list(net.named_parameters())
        assert len(optim.create_optimizer_v2(named, "sgd").param_groups[0]["params"]) == 9


# clipping


def with_gradients(scale=1.0):
    net = small_net()
    torch.manual_seed(1)
    for p in net.parameters():
        p.grad = scale * torch.randn_like(p)
    with torch.no_grad():
        net[9].bias.zero_()
        net[9].bias.grad.zero_()
    return net


@pytest.mark.parametrize("mode, value", [("norm", 0.5), ("value", 0.1), ("agc", 0.02)])
@pytest.mark.parametrize("norm_type", [1.0, 2.0])
def test_clipping_is_timms(mode, value, norm_type):
    ours, theirs = with_gradients(), with_gradients()
    total = optim.clip_grad(ours.parameters(), value, mode, norm_type)
    timm.utils.dispatch_clip_grad(theirs.parameters(), value, mode=mode, norm_type=norm_type)
    for p, other in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(p.grad, other.grad, rtol=1e-6, atol=0)
    if mode == "norm":
        grads = torch.cat([p.grad.flatten() for p in with_gradients().parameters()])
        assert total.item() == pytest.approx(grads.norm(norm_type).item(), rel=1e-5)
    else:
        assert total is None


def test_small_gradients_are_not_clipped():
    net, before = with_gradients(1e-6), with_gradients(1e-6)
    optim.adaptive_clip_grad(net.parameters(), 0.01)
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(net.parameters(), before.parameters()))


def test_unknown_clip_mode():
    with pytest.raises(ConfigError, match="clip mode 'norms', not one of norm, value, agc; did you mean 'norm'"):
        optim.clip_grad(small_net().parameters(), 1.0, "norms")


def test_parameters_without_the_head():
    from timm.models import model_parameters

    for model in (mvlib.create_model("resnet18"), small_net()):
        for exclude in (False, True):
            ours, theirs = optim.model_parameters(model, exclude), list(model_parameters(model, exclude))
            assert [id(p) for p in ours] == [id(p) for p in theirs]
    distilled = mvlib.create_model("deit_tiny_distilled_patch16_224", depth=1)
    left = {id(p) for p in optim.model_parameters(distilled, exclude_head=True)}
    assert not left & {id(p) for head in (distilled.head, distilled.head_dist) for p in head.parameters()}


# wrappers


def _with_a_compiled_block(model):
    name = next(name for name, _ in model.named_modules() if name.endswith("blocks.1"))
    model.set_submodule(name, torch.compile(model.get_submodule(name)))
    return model


@contextlib.contextmanager
def process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


WRAPPERS = {
    "compiled": torch.compile,
    "DataParallel": nn.DataParallel,
    "AveragedModel": lambda model: torch.optim.swa_utils.AveragedModel(model, avg_fn=None),
    "DDP": nn.parallel.DistributedDataParallel,
    "nested": lambda model: torch.compile(nn.parallel.DistributedDataParallel(torch.compile(model))),
    "a compiled block": _with_a_compiled_block,
    "checkpointed": lambda model: checkpoint_wrapper(model),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_groups_are_those_within_the_wrapper(name, wrapper):
    model = mvlib.create_model(name, num_classes=3)
    options = [dict(weight_decay=0.05), dict(weight_decay=0.05, layer_decay=0.7),
               dict(weight_decay=0.05, fallback_list=["head*", "*.0.norm1.*"], fallback_no_weight_decay=True)]

    def groups(model):
        names = [name for name, _ in model.named_parameters()]
        places = {id(p): place for place, p in enumerate(model.parameters())}
        assert len(places) == len(names)
        return [[{**group, "params": [places[id(p)] for p in group["params"]]} for group in
                 optim.create_optimizer_v2(model, "sgd", lr=0.1, **kwargs).param_groups] for kwargs in options]

    expected = groups(model)
    with process_group():
        wrapped = WRAPPERS[wrapper](model)
        assert groups(wrapped) == expected
        outside = [name for name, _ in wrapped.named_parameters() if ".norm1." in name]
        own = optim.param_groups_weight_decay(wrapped, fallback_list=outside)
        assert sum(len(group["params"]) for group in own if group.get("use_fallback")) == len(outside)
        assert len(optim.model_parameters(wrapped, exclude_head=True)) == len(list(model.parameters())) - 2


@pytest.mark.skipif(IS_TORCH_2_5, reason="this torch has no public fully_shard")
def test_sharded_parameters_learn():
    """torch has no fused SGD for DTensors."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with process_group():
        net = nn.Linear(4, 3)
        fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
        optimizer = optim.create_optimizer_v2(net, "sgd", lr=0.1)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = (net(torch.ones(2, 4)) - 1).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[2] < losses[0]


def test_what_asks_a_model_asks_the_one_within(tmp_path):
    model = mvlib.create_model("test_vit", num_classes=3)
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.1, 0.2, 0.3)}
    wrapped = nn.DataParallel(model)
    assert mvlib.resolve_data_config(model=wrapped) == mvlib.resolve_data_config(model=model)
    mvlib.save_for_hub(wrapped, tmp_path)
    saved = mvlib.create_model(f"local-dir:{tmp_path}")
    assert all(torch.equal(value, saved.state_dict()[key]) for key, value in model.state_dict().items())
    assert ModelEma(wrapped).module.state_dict().keys() == model.state_dict().keys()
    assert mvlib.optimize(wrapped.eval(), torch.randn(2, 3, 160, 160), compile="off")[0].num_classes == 3
    assert mvlib.FeatureExtractor(wrapped).feature_info.channels()
