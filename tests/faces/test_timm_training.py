"""timm.utils, .optim, .scheduler and .loss through the face: what training scripts import, against timm itself."""

import argparse
import inspect
import logging
import random
import sys

import mvlib.timm.utils.model
import numpy as np
import pytest
import timm.layers
import timm.models
import timm.optim
import timm.scheduler
import timm.utils
import timm.utils.model
import torch
from torch import nn

import mvlib.layers.config
import mvlib.timm as face
from mvlib.errors import ConfigError, MissingPackageError

OURS, TIMMS = face.utils, timm.utils
BOTH = pytest.mark.parametrize("utils", [OURS, TIMMS], ids=["mvlib", "timm"])


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def train_a_little(model, steps=1):
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        loss = model(torch.randn(4, 3, 8, 8, generator=generator)).square().mean()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
        model.zero_grad()


def same_states(mine, theirs, **tolerance):
    mine, theirs = mine.state_dict(), theirs.state_dict()
    assert list(mine) == list(theirs)
    for key in mine:
        torch.testing.assert_close(mine[key], theirs[key], **tolerance)


def parameters(function):
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", [
    "AverageMeter", "CheckpointSaver", "ModelEma", "ModelEmaV2", "ModelEmaV3", "NativeScaler", "accuracy",
    "adaptive_clip_grad", "add_bool_arg", "check_batch_size_retry", "decay_batch_step", "distribute_bn", "get_outdir",
    "get_state_dict", "init_distributed_device", "is_primary", "random_seed", "reduce_tensor", "set_jit_fuser",
    "setup_default_logging", "trim_summary", "update_summary", "world_info_from_env", "dispatch_clip_grad",
    "FormatterNoInfo", "load_checkpoint_metadata", "unwrap_model", "AttentionExtract", "is_distributed_env",
])
def test_utils_are_called_as_timms(name):
    mine, theirs = parameters(getattr(OURS, name)), parameters(getattr(TIMMS, name))
    if name in ("CheckpointSaver", "get_state_dict"):  # a default is a function, of each side's own
        mine, theirs = [name for name, _ in mine], [name for name, _ in theirs]
    assert mine == theirs


def test_command_lines():
    found = []
    for utils in (OURS, TIMMS):
        parser = argparse.ArgumentParser()
        utils.add_bool_arg(parser, "use-it", default=True, help="it")
        utils.add_bool_arg(parser, "other")
        parser.add_argument("--model-kwargs", nargs="*", default={}, action=utils.ParseKwargs)
        found.append([vars(parser.parse_args(line.split())) for line in (
            "", "--no-use-it --other", "--model-kwargs a=1 b=x.y c=[1,2] d=None e=a=b --use-it")])
        with pytest.raises(SystemExit):
            parser.parse_args(["--other", "--no-other"])
    assert found[0] == found[1]
    assert found[0][2]["model_kwargs"] == {"a": 1, "b": "x.y", "c": [1, 2], "d": None, "e": "a=b"}


def test_logging(tmp_path, monkeypatch):
    for utils, path in ((OURS, tmp_path / "ours"), (TIMMS, tmp_path / "timms")):
        root = logging.Logger("root")
        monkeypatch.setattr(logging, "root", root)
        utils.setup_default_logging(logging.WARNING, str(path))
        assert root.level == logging.WARNING
        assert [type(handler) for handler in root.handlers] == [
            logging.StreamHandler, logging.handlers.RotatingFileHandler]
        formatter = root.handlers[0].formatter
        for level, text in ((logging.INFO, "7 of 9"), (logging.ERROR, "ERROR: 7 of 9")):
            record = logging.LogRecord("x", level, "file", 1, "%d of %d", (7, 9), None)
            assert formatter.format(record) == text
        root.handlers[1].setFormatter(logging.Formatter("%(name)s"))
        root.error("it is written")
        root.handlers[1].close()
        assert path.read_text() == "root\n"


def test_summaries(tmp_path):
    written = []
    for utils, folder in ((OURS, tmp_path / "a"), (TIMMS, tmp_path / "b")):
        folder.mkdir()
        file = folder / "summary.csv"
        utils.trim_summary(str(file), 0)  # nothing there
        for epoch in range(4):
            utils.update_summary(epoch, {"loss": 1 / (1 + epoch)}, {"top1": epoch} if epoch % 2 == 0 else {"top1": 7},
                                 str(file), lr=0.1)
        whole = file.read_bytes()
        utils.trim_summary(str(file), 2)
        utils.update_summary(2, {"loss": 5}, None, str(file), write_header=True)
        trimmed = file.read_bytes()
        utils.trim_summary(str(file), 0)
        utils.update_summary(0, {"loss": 5}, None, str(file))
        written.append((whole, trimmed, file.read_bytes()))
    assert written[0] == written[1]


@BOTH
def test_output_folders(utils, tmp_path):
    first = utils.get_outdir(str(tmp_path), "a", "b")
    assert first == str(tmp_path / "a" / "b") == utils.get_outdir(str(tmp_path), "a", "b")
    assert [utils.get_outdir(first, inc=True) for _ in range(2)] == [f"{first}-1", f"{first}-2"]
    for number in range(3, 100):
        (tmp_path / "a" / f"b-{number}").mkdir()
    with pytest.raises((FileExistsError, AssertionError)):
        utils.get_outdir(first, inc=True)


def test_meters_and_accuracy():
    meters = OURS.AverageMeter(), TIMMS.AverageMeter()
    for value, n in ((3.0, 1), (5.0, 4), (1.0, 0)):
        for meter in meters:
            meter.update(value, n)
        assert vars(meters[0]) == vars(meters[1])
    empty = OURS.AverageMeter()
    empty.update(3.0, 0)
    assert empty.avg == 0
    output, target = torch.randn(64, 9), torch.randint(9, (64,))
    for topk in ((1,), (1, 5), (3, 20)):
        mine, theirs = (utils.accuracy(output, target, topk=topk) for utils in (OURS, TIMMS))
        assert [value.item() for value in mine] == [value.item() for value in theirs]


def test_smaller_batches_and_seeds():
    for size in (-1, 0, 1, 2, 3, 7, 64, 65, 100, 1000):
        for steps in (1, 2, 3, 4):
            for no_odd in (False, True):
                assert OURS.decay_batch_step(size, steps, no_odd) == TIMMS.decay_batch_step(size, steps, no_odd)
    for text in ("CUDA out of memory", "Illegal memory access", "required rank 4 tensor"):
        assert OURS.check_batch_size_retry(text) == TIMMS.check_batch_size_retry(text)
    drawn = []
    for utils in (OURS, TIMMS):
        utils.random_seed(7, rank=3)
        drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))
    assert drawn[0] == drawn[1]
    names = ["b10", "B2", "a"]
    assert sorted(names, key=OURS.natural_key) == sorted(names, key=TIMMS.natural_key)


def test_who_is_who(monkeypatch):
    environments = (
        {}, {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, {"WORLD_SIZE": "1", "SLURM_NTASKS": "3"},
        {"SLURM_PROCID": "5", "SLURM_LOCALID": "2", "SLURM_NTASKS": "8"}, {"PMI_RANK": "2", "PMI_SIZE": "6"},
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
    )
    for environment in environments:
        with monkeypatch.context() as patch:
            for name in {key for env in environments for key in env}:
                patch.delenv(name, raising=False)
            for name, value in environment.items():
                patch.setenv(name, value)
            assert OURS.world_info_from_env() == TIMMS.world_info_from_env()
            assert OURS.is_distributed_env() == TIMMS.is_distributed_env()
    args = argparse.Namespace(device="cpu", rank=3)
    assert OURS.init_distributed_device(args) == torch.device("cpu")
    assert vars(args) == {"device": "cpu", "rank": 0, "local_rank": 0, "world_size": 1, "distributed": False}
    assert OURS.is_primary(args) and OURS.is_primary(args, local=True)
    args.rank = 1
    assert not OURS.is_primary(args) and OURS.is_primary(args, local=True)


def distributed(rank, port, results):
    import os

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port))
    args = argparse.Namespace(device="cpu")
    OURS.init_distributed_device(args)
    model = nn.BatchNorm1d(1)
    model.running_mean += rank + 1
    mean = OURS.reduce_tensor(torch.tensor(float(rank + 1)), args.world_size)
    OURS.distribute_bn(model, args.world_size, reduce=rank >= 0)
    averaged = model.running_mean.item()
    model.running_mean += rank
    OURS.distribute_bn(model, args.world_size)
    results.put((rank, args.rank, args.world_size, args.distributed, mean.item(), averaged, model.running_mean.item()))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes():
    import socket

    import torch.multiprocessing as mp

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    mp.spawn(distributed, (port, results), nprocs=2)
    assert sorted(results.get() for _ in range(2)) == [(rank, rank, 2, True, 1.5, 1.5, 1.5) for rank in range(2)]


@pytest.mark.parametrize("mode", ["norm", "value", "agc"])
def test_clipping(mode):
    models = net(), net()
    for model, utils in zip(models, (OURS, TIMMS)):
        model(torch.ones(2, 3, 8, 8)).square().sum().backward()
        utils.dispatch_clip_grad(model.parameters(), 0.01, mode=mode)
    for mine, theirs in zip(*(model.parameters() for model in models)):
        torch.testing.assert_close(mine.grad, theirs.grad)
    with pytest.raises(ConfigError, match="unknown clip mode 'nrom'"):
        OURS.dispatch_clip_grad([], 0.1, mode="nrom")


def test_scalers():
    losses = []
    for utils in (OURS, TIMMS):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = utils.NativeScaler(device="cpu")
        for need_update in (False, True, True):
            scaler(model(torch.ones(2, 3, 8, 8)).square().mean(), optimizer, clip_grad=0.5, clip_mode="norm",
                   parameters=model.parameters(), need_update=need_update)
        losses.append(model(torch.ones(2, 3, 8, 8)).sum().item())
        assert scaler.state_dict_key == "amp_scaler"
        other = utils.NativeScaler("cpu")
        other.load_state_dict(scaler.state_dict())
        assert other.state_dict() == scaler.state_dict()
    assert losses[0] == losses[1]
    with pytest.raises(ConfigError, match="clip_grad needs the parameters"):
        OURS.NativeScaler("cpu")(torch.ones((), requires_grad=True), optimizer, clip_grad=1.0)
    with pytest.raises(MissingPackageError, match="apex.amp has been removed"):
        OURS.ApexScaler()


@pytest.mark.parametrize("name, kwargs", [
    ("ModelEma", dict(decay=0.9)), ("ModelEma", dict(decay=0.9, device="cpu")), ("ModelEmaV2", dict(decay=0.9)),
    ("ModelEmaV3", dict(decay=0.9)), ("ModelEmaV3", dict(decay=0.9, use_warmup=True, update_after_step=2)),
    ("ModelEmaV3", dict(decay=0.9, exclude_buffers=True)), ("ModelEmaV3", dict(decay=0.9, foreach=False)),
    ("ModelEmaV3", dict(decay=0.9, dtype=torch.float64, min_decay=0.5, use_warmup=True, warmup_power=0.8)),
], ids=str)
def test_averages_of_weights(name, kwargs):
    averages, models = [], [net(), net()]
    for model, utils in zip(models, (OURS, TIMMS)):
        average = getattr(utils, name)(model, **kwargs)
        for step in range(6):
            train_a_little(model)
            average.update(model, **({"step": step} if name == "ModelEmaV3" else {}))
        averages.append(average)
    same_states(*(utils.unwrap_model(average) for average, utils in zip(averages, (OURS, TIMMS))))
    if name != "ModelEma":
        same_states(*averages)
        dtype = kwargs.get("dtype", torch.float32)
        torch.testing.assert_close(*(average(torch.ones(1, 3, 8, 8, dtype=dtype)) for average in averages))
        averages[0].set(models[0])
        torch.testing.assert_close(averages[0].module[0].weight, models[0][0].weight.to(dtype))


def test_an_average_in_bfloat16_moves_by_chance():
    model = nn.Linear(400, 100, bias=False)
    model.weight.data.fill_(1.0)
    average = OURS.ModelEmaV3(model, decay=0.999, dtype=torch.bfloat16)
    stiff = OURS.ModelEmaV3(model, decay=0.999, dtype=torch.bfloat16, stochastic_rounding=False)
    model.weight.data.fill_(2.0)
    state = torch.get_rng_state()
    average.update(model)
    stiff.update(model)
    assert average.module.weight.dtype == torch.bfloat16
    assert average.module.weight.float().mean().item() == pytest.approx(1.001, abs=3e-4)
    assert stiff.module.weight.float().mean().item() == 1.0
    assert torch.equal(torch.get_rng_state(), state)


def test_unwrapping():
    model = net()
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager"), nn.DataParallel(
            torch.compile(model, backend="eager"))):
        assert OURS.unwrap_model(wrapped) is model
        assert list(OURS.get_state_dict(wrapped)) == list(model.state_dict())
    assert list(OURS.get_state_dict(OURS.ModelEma(nn.DataParallel(model)))) == list(model.state_dict())


def test_activations_are_heard():
    stats = []
    for utils in (face.utils.model, timm.utils.model):
        model = net().eval()
        hook = utils.ActivationStatsHook(
            model, ["[01]", "0"], [utils.avg_sq_ch_mean, utils.avg_ch_var])
        model(torch.arange(2 * 3 * 64).reshape(2, 3, 8, 8) / 100)
        stats.append(hook.stats)
    assert stats[0].keys() == stats[1].keys()
    for name, values in stats[0].items():
        assert values == pytest.approx(stats[1][name], rel=1e-5)
    assert len(stats[0]["avg_sq_ch_mean"]) == 2
    with pytest.raises(ValueError, match="1 patterns of modules for 0 functions; each has one"):
        face.utils.model.ActivationStatsHook(net(), ["*"], [])
    found = face.utils.model.extract_spp_stats(net(), ["1"], [face.utils.model.avg_ch_var], [8, 3, 8, 8])
    assert found["avg_ch_var"][0] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("submodules", [(), ["layer1", "layer2.0", "bn1"], "layer1"], ids=str)
def test_freezing(submodules):
    states = []
    for side in (face, timm):
        model = side.create_model("resnet10t", num_classes=3).train()
        side.utils.freeze(model, submodules)
        before = [p.requires_grad for p in model.parameters()]
        kinds = [type(module).__name__ for _, module in model.named_modules() if "BatchNorm" in type(module).__name__]
        side.utils.unfreeze(model, submodules)
        again = [type(module).__name__ for _, module in model.named_modules() if "BatchNorm" in type(module).__name__]
        states.append((before, kinds, [p.requires_grad for p in model.parameters()], again))
    assert states[0] == states[1]
    assert all(states[0][2]) and not all(states[0][0])


def test_freezing_leaves_statistics_on_request():
    model = face.create_model("resnet10t", num_classes=3)
    OURS.freeze(model, ["layer1"], include_bn_running_stats=False)
    assert type(model.layer1[0].bn1).__name__ == "BatchNorm2d" and not model.layer1[0].bn1.weight.requires_grad
    with pytest.raises(AssertionError, match="a batch norm by itself"):
        OURS.freeze(nn.BatchNorm2d(3))


@pytest.mark.parametrize("method", ["fx", "hook"])
def test_attention_maps(method):
    maps, state = [], None
    for side, config in ((face, mvlib.layers.config), (timm, timm.layers)):
        config.set_fused_attn(False)
        try:
            torch.manual_seed(0)
            model = side.create_model("vit_tiny_patch16_224", img_size=32, depth=2)
            if state is not None:
                model.load_state_dict(state)
            state = model.state_dict()
            maps.append(side.utils.AttentionExtract(model, method=method)(torch.ones(1, 3, 32, 32)))
        finally:
            config.set_fused_attn(True)
    assert len(maps[0]) == 2
    for mine, theirs in zip(maps[0].values(), maps[1].values()):
        torch.testing.assert_close(mine, theirs)
    with pytest.raises(RuntimeError, match="has a name like nothing"):
        OURS.AttentionExtract(net(), names=["nothing"], method=method)
    with pytest.raises(ConfigError, match="'graph' is neither 'fx' nor 'hook'"):
        OURS.AttentionExtract(net(), method="graph")


def test_fusers():
    before = torch._C._jit_texpr_fuser_enabled()
    try:
        OURS.set_jit_fuser("old")
        assert not torch._C._jit_texpr_fuser_enabled()
        OURS.set_jit_fuser("te")
        assert torch._C._jit_texpr_fuser_enabled()
    finally:
        torch._C._jit_set_texpr_fuser_enabled(before)
    with pytest.raises(ConfigError, match="unknown fuser 'tee'; known: te, old, legacy"):
        OURS.set_jit_fuser("tee")
    with pytest.raises(ConfigError, match="fuser 'nvfuser' has been removed from torch"):
        OURS.set_jit_fuser("nvfuser")


# optim, scheduler


def test_the_registry_of_optimizers_is_an_object():
    registry = face.optim._optim_factory.default_registry
    assert registry.list_optimizers("lamb*") == face.optim.list_optimizers("lamb*")
    assert registry.get_optimizer_class("lamb", bind_defaults=False) is face.optim.Lamb
    assert issubclass(registry.get_optimizer_class("adamw", bind_defaults=False), torch.optim.AdamW)
    registry.register(face.optim.OptimInfo(name="MyLamb", opt_class=face.optim.Lamb, has_betas=True))
    registry.register_alias("mine", "mylamb")
    try:
        optimizer = registry.create_optimizer(net(), "mine", lr=0.3, weight_decay=0.1, weight_decay_exclude_1d=False)
        assert isinstance(optimizer, face.optim.Lamb)
        assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(6, 0.1)]
    finally:
        from mvlib.optim import registry as body

        del body._infos["mylamb"], body._infos["mine"]
    with pytest.raises(ConfigError, match="there is one registry of optimizers"):
        face.optim._optim_factory.OptimizerRegistry()


def test_each_optimizer_is_where_timm_has_it():
    for name, value in vars(timm.optim).items():
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and "timm" in value.__module__:
            module = getattr(face.optim, value.__module__.removeprefix("timm.optim."))
            assert getattr(module, name) is getattr(face.optim, name)


def test_the_old_path_of_the_factory_warns():
    import importlib

    sys.modules.pop("mvlib.timm.optim.optim_factory", None)
    with pytest.warns(FutureWarning, match="timm.optim.optim_factory is deprecated"):
        factory = importlib.import_module("mvlib.timm.optim.optim_factory")
    assert factory.param_groups_layer_decay is face.optim.param_groups_layer_decay


def test_schedulers_are_where_timm_has_them():
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    scheduler, epochs = face.scheduler.create_scheduler_v2(optimizer, "cosine", num_epochs=7)
    assert epochs == 7
    assert isinstance(scheduler, face.scheduler.cosine_lr.CosineLRScheduler)
    assert isinstance(scheduler, face.scheduler.scheduler.Scheduler)
