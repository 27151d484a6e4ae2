"""Arguments of training: both dialects, recipes, contradictions."""

import argparse
import re
from pathlib import Path

import pytest
import torch
import yaml

import mvlib
from mvlib.errors import ConfigError
from mvlib.train.arguments import DIALECTS, OPTIONS, find_option
from mvlib.train.distributed import World
from mvlib.train.model import build_model
from mvlib.train.recipes import parse_train_arguments, read_recipe
from mvlib.train.run import _eval_config, _optimizer, _policy

REFERENCE = (
    "data --model resnet50 --batch-size 128 --lr 0.5 --lr-scheduler cosineannealinglr --lr-warmup-epochs 5 "
    "--lr-warmup-method linear --auto-augment ta_wide --epochs 600 --random-erase 0.1 --weight-decay 0.00002 "
    "--norm-weight-decay 0.0 --label-smoothing 0.1 --mixup-alpha 0.2 --cutmix-alpha 1.0 --train-crop-size 176 "
    "--model-ema --val-resize-size 232 --ra-sampler --ra-reps 4")


def parse(line: str) -> argparse.Namespace:
    return parse_train_arguments(line.split())


def test_timm_flags_have_timm_defaults():
    args = parse("data --model seresnet34 --sched cosine --epochs 150 --warmup-epochs 5 --lr 0.4 --amp -j 4 -b 256")
    assert (args.dialect, args.data_dir, args.model, args.batch_size, args.workers) == \
        ("timm", "data", "seresnet34", 256, 4)
    assert (args.opt, args.momentum, args.weight_decay, args.smoothing, args.color_jitter) == \
        ("sgd", 0.9, 2e-5, 0.1, 0.4)


@pytest.mark.parametrize(("flags", "side", "crop_pct", "interpolation"), [
    ("--model local-dir:{base} --pretrained", 32, 0.95, "bicubic"),
    ("--model test_vit --initial-checkpoint {facts}", 32, 0.95, "bicubic"),
    ("--model test_vit --initial-checkpoint {facts} --train-crop-size 48 --val-crop-size 48", 48, 0.95, "bicubic"),
    ("--model test_vit --initial-checkpoint {facts} --val-crop-size 32 --val-resize-size 64", 32, 0.5, "bicubic"),
    ("--model test_vit --initial-checkpoint {plain}", 224, 224 / 256, "bilinear"),
    ("--model test_vit", 224, 224 / 256, "bilinear"),
])
def test_torchvision_s_image_size_gives_way_to_that_of_the_weights(tmp_path, flags, side, crop_pct, interpolation):
    model = mvlib.create_model("test_vit", img_size=32, num_classes=4)
    files = {"base": mvlib.save_for_hub(model, tmp_path / "base"), "facts": tmp_path / "f.pth",
             "plain": tmp_path / "p.pth"}
    about = {"arch": "test_vit", "num_classes": 4, "model_args": dict(model.model_args),
             "data_config": mvlib.resolve_data_config(model=model)}
    torch.save({**about, "state_dict": model.state_dict()}, files["facts"])
    torch.save(model.state_dict(), files["plain"])
    args = parse("--data-path data --num-classes 4 " + flags.format(**files))
    assert args.dialect == "torchvision"
    built, config = build_model(args, None, World(0, 1, 0, torch.device("cpu")))
    config = _eval_config(args, config)
    assert built.patch_embed.img_size == (args.img_size or side,) * 2
    assert config["input_size"] == (3, side, side) and config["interpolation"] == interpolation
    assert config["crop_pct"] == pytest.approx(crop_pct)


def test_abbreviations_of_timm_flags():
    args = parse("data --jsd --aug-splits 3 --dr .97")
    assert args.jsd_loss and args.decay_rate == 0.97


def test_torchvision_flags_bring_torchvision_defaults():
    args = parse(REFERENCE)
    assert (args.dialect, args.sched, args.warmup_epochs, args.warmup_factor) == \
        ("torchvision", "cosineannealinglr", 5, 0.01)
    assert (args.aa, args.reprob, args.remode, args.color_jitter) == ("ta_wide", 0.1, "const", 0.0)
    assert (args.img_size, args.val_img_size, args.val_resize_size) == (176, None, 232)  # None: the model decides
    assert (args.model_ema_decay, args.model_ema_steps, args.model_ema_adjust) == (0.99998, 32, True)
    assert (args.aug_repeats, args.mixup, args.cutmix, args.smoothing) == (4.0, 0.2, 1.0, 0.1)


def test_dialect_can_be_said():
    assert parse("data --dialect torchvision").epochs == 90
    assert parse(f"{REFERENCE} --dialect timm").workers == 4


def test_defaults_are_not_shared():
    parse("data").decay_milestones.append(1)
    assert parse("data").decay_milestones == [90, 180, 270]


def test_key_value_pairs():
    assert parse("data --model-kwargs a=1 b=true c=x").model_kwargs == {"a": 1, "b": True, "c": "x"}


@pytest.mark.parametrize(("line", "text"), [
    ("--jsd", "--jsd-loss compares augmentation splits and needs --aug-splits 2 or more"),
    ("--split-bn", "--split-bn gives each augmentation split a batch norm and needs --aug-splits 2 or more"),
    ("--aug-splits 1", "--aug-splits 1: 0 for none, or 2 and more"),
    ("--aug-splits 2 --mixup 0.2", "--aug-splits and --mixup or --cutmix contradict each other"),
    ("--aug-splits 2 --split-bn --sync-bn", "--split-bn and --sync-bn contradict each other"),
    ("--aug-splits 2 --jsd --bce-loss", "--jsd-loss and --bce-loss contradict each other"),
    ("--drop-connect 0.1 --drop-path 0.1", "--drop-connect is the old name of --drop-path; give one of them"),
    ("--eval-metric f1", "--eval-metric 'f1' is not one of top1, top5, loss"),
    ("--dialect torchvision --ra-reps 4", "--ra-reps goes with --ra-sampler"),
])
def test_contradictions(line, text):
    with pytest.raises(ConfigError) as error:
        parse(f"data {line}")
    assert text in str(error.value)


def write(path, **data):
    path.write_text(yaml.safe_dump(data))
    return path


def test_recipe_then_flags(tmp_path):
    recipe = write(tmp_path / "r.yaml", model="resnet18", lr=0.3, source="https://example.org", epochs=7)
    args = parse(f"data --config {recipe} --epochs 2")
    assert (args.model, args.lr, args.epochs, args.opt) == ("resnet18", 0.3, 2, "sgd")


def test_recipes_extend_one_another(tmp_path):
    write(tmp_path / "base.yaml", model="resnet50", lr_scheduler="cosineannealinglr", lr=0.5, epochs=90)
    (tmp_path / "steps").mkdir()
    step = write(tmp_path / "steps" / "long.yaml", extends="../base.yaml", epochs=600, published={"top1": 78.606})
    recipe = read_recipe(step)
    assert recipe.arguments == {"model": "resnet50", "sched": "cosineannealinglr", "lr": 0.5, "epochs": 600}
    assert recipe.dialect == "torchvision"
    assert recipe.about == {"extends": "../base.yaml", "published": {"top1": 78.606}}


def test_saved_arguments_are_a_recipe(tmp_path):
    args = parse("data --model resnet18 --mixup 0.2 --opt-betas 0.9 0.95")
    saved = write(tmp_path / "args.yaml", **vars(args))
    again = parse_train_arguments(["--config", str(saved)])
    assert {**vars(again), "config": None} == vars(args)


@pytest.mark.parametrize(("text", "message"), [
    ("modle: resnet50", "training has no argument 'modle'; did you mean 'model'"),
    ("lr: fast", "lr: 'fast' is not a number"),
    ("lr: -1", "lr: -1 is negative"),
    ("lr: .nan", "lr: 'nan' is not a number"),
    ("reprob: 2", "reprob: 2 is more than 1"),
    ("batch_size: 0", "batch_size: 0 is not a positive number"),
    ("batch_size: 2.5", "batch_size: '2.5' is not a whole number"),
    ("scale: [0.5]", "scale: 2 values, not [0.5]"),
    ("model: [resnet50]", "model: ['resnet50'] is not a text"),
    ("amp: 3", "amp: 3 is not true or false"),
    ("remode: noise", "remode: 'noise' is none of 'const', 'rand', 'pixel'"),
    ("- a list", "is not a mapping of arguments"),
    ("a: [", "is not YAML"),
    ("extends: recipe.yaml", "extends itself"),
    ("dialect: keras", "dialect 'keras' is not one of timm, torchvision"),
])
def test_bad_recipes(tmp_path, text, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_recipe(recipe)
    assert message in str(error.value)


def test_missing_recipe(tmp_path):
    recipe = write(tmp_path / "r.yaml", extends="nowhere.yaml")
    with pytest.raises(FileNotFoundError, match=r"there is no recipe .*nowhere.yaml \(extended by"):
        read_recipe(recipe)


def test_every_flag_names_one_option():
    owners: dict[str, str] = {}
    for name, option in OPTIONS.items():
        assert find_option(name)[0] is option
        for flag in (*option.flags, *option.foreign):
            assert owners.setdefault(flag, name) == name
    assert DIALECTS["timm"].keys() == DIALECTS["torchvision"].keys()


CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes(path):
    recipe = read_recipe(path)
    assert {"title", "source", "published"} <= recipe.about.keys()
    args = vars(parse_train_arguments(["data", "--config", str(path)]))
    if "command" in recipe.about:
        line = recipe.about["command"].split()[2:]
        assert {**args, "config": None, "data_dir": "DATA"} == vars(parse_train_arguments(line))


def test_the_last_step_of_torchvision_s_road_is_its_published_command():
    path = CONFIGS / "torchvision/resnet50/12-repeated-augmentation.yaml"
    args = vars(parse_train_arguments(["data", "--config", str(path)]))
    unused = {"decay_epochs", "decay_rate"}  # of the baseline's step schedule; cosine has neither
    reference = vars(parse(REFERENCE))
    assert {key for key in args if args[key] != reference[key]} <= {"config", *unused}


def test_no_option_is_without_effect():
    """Each is read somewhere, or says that it is not."""
    package = Path(mvlib.__file__).parent
    sources = "".join(path.read_text() for folder in ("train", "scheduler", "optim")
                      for path in (package / folder).glob("*.py") if path.name != "arguments.py")
    sources += "ra_sampler norm_weight_decay bias_weight_decay embedding_weight_decay"  # in the table's file; by halves
    unread = {name for name in OPTIONS if not re.search(rf"\b{name}\b", sources)}
    assert all(OPTIONS[name].help.startswith("accepted: ") for name in unread), unread


@pytest.mark.parametrize(("line", "policy"), [
    ("--aa augmix", "augmix"), ("--auto-augment augmix", "augmix-m3"), ("--auto-augment ra --ra-magnitude 5", "ra-m5"),
    ("--auto-augment augmix --augmix-severity 7", "augmix-m7"), ("--auto-augment ta_wide", "ta_wide"),
    ("--aa rand-m9", "rand-m9"),
])
def test_policies_have_their_strength(line, policy):
    assert _policy(parse(f"data {line}")) == policy


@pytest.mark.parametrize(("line", "decays", "nesterov"), [
    ("--weight-decay 0.1", {0.0, 0.1}, True),
    ("--weight-decay 0.1 --no-filter-bias-and-bn", {0.1}, True),
    ("--weight-decay 0.1 --opt-kwargs nesterov=False", {0.0, 0.1}, False),
    ("--weight-decay 0.1 --lr-scheduler steplr", {0.1}, False),  # torchvision's script decays all
    ("--weight-decay 0.1 --norm-weight-decay 0", {0.0, 0.1}, False),
])
def test_the_optimizer_is_the_one_that_is_asked_for(line, decays, nesterov):
    model = mvlib.create_model("test_resnet", num_classes=2)
    optimizer = _optimizer(parse(f"data --lr 0.1 {line}"), model, World(0, 1, 0, torch.device("cpu")))
    assert {group["weight_decay"] for group in optimizer.param_groups} == decays
    assert all(group["nesterov"] == nesterov for group in optimizer.param_groups)
