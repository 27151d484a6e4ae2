"""resolve_data_config against timm's, for every config that timm publishes for our families."""

import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
import timm
import timm.data

import mvlib
from mvlib.data import constants, create_transform, resolve_data_config, resolve_model_data_config
from mvlib.weights import WeightsConfig

MODULES = ("resnet", "efficientnet", "vision_transformer", "deit", "swin_transformer")
ARGS = (
    None,
    {},
    {"img_size": 384},
    {"img_size": 96, "in_chans": 1, "mean": [0.5], "std": (0.25,)},
    {"in_chans": 4, "mean": [0.4], "std": None},
    {"chans": 1, "img_size": 64, "mean": (0.1,), "std": (0.2,)},
    {"input_size": [3, 320, 256], "crop_pct": 1.0, "crop_mode": "squash"},
    {"interpolation": "lanczos", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_mode": "border"},
    {"interpolation": "", "crop_pct": 0.0, "crop_mode": "", "unrelated": 1},
)


def timm_configs():
    for module in MODULES:
        for name in timm.list_models(module=module, include_tags=True):
            yield name, timm.get_pretrained_cfg(name)


def test_every_published_config_resolves_as_in_timm():
    count = 0
    for name, published in timm_configs():
        values = published.to_dict()
        model = SimpleNamespace(pretrained_cfg=values)
        ours = WeightsConfig.from_dict(values, strict=False)
        for args in ARGS:
            for use_test_size in (False, True):
                expected = timm.data.resolve_data_config(args, values, use_test_size=use_test_size)
                for found in (
                    resolve_data_config(args, values, use_test_size=use_test_size),
                    resolve_data_config(args, ours, use_test_size=use_test_size),
                    resolve_data_config(args, None, model, use_test_size),
                    resolve_model_data_config(model, args, use_test_size=use_test_size),
                ):
                    assert found == expected, (name, args)
                    assert list(found) == list(expected)
                    assert [type(v) for v in found.values()] == [type(v) for v in expected.values()]
                count += 1
    assert count > 10_000


@pytest.mark.parametrize("cfg", [
    {"crop_pct": 0.9}, {"input_size": (1, 28, 28), "mean": (0.1,)}, {"test_input_size": (3, 288, 288)},
    {"test_crop_pct": 1.0, "interpolation": "bilinear"}, {"input_size": None, "std": None},
])
@pytest.mark.parametrize("use_test_size", [False, True])
def test_sparse_configs_resolve_as_in_timm(cfg, use_test_size):
    for args in ARGS:
        expected = timm.data.resolve_data_config(args, cfg, use_test_size=use_test_size)
        assert resolve_data_config(args, cfg, use_test_size=use_test_size) == expected


def test_a_config_given_wins_over_the_models_own():
    model = SimpleNamespace(pretrained_cfg={"crop_pct": 0.5})
    assert resolve_data_config(model=model)["crop_pct"] == 0.5
    assert resolve_data_config(model=model, pretrained_cfg={"crop_pct": 0.6})["crop_pct"] == 0.6
    assert resolve_data_config(model=model, pretrained_cfg={})["crop_pct"] == 0.5
    assert resolve_data_config(model=SimpleNamespace()) == timm.data.resolve_data_config(model=SimpleNamespace())


def test_the_constants_are_timms():
    for name in constants.__all__:
        assert getattr(constants, name) == getattr(timm.data.constants, name)
        assert getattr(mvlib.data, name) == getattr(constants, name)


def test_torchvision_weights_carry_torchvisions_resize():
    config = resolve_data_config(pretrained_cfg=mvlib.get_pretrained_cfg("resnet50.imagenet1k_v2"))
    assert config == {"input_size": (3, 224, 224), "interpolation": "bilinear", "mean": (0.485, 0.456, 0.406),
                      "std": (0.229, 0.224, 0.225), "crop_pct": 0.965, "crop_mode": "center",
                      "preprocessing": "torchvision", "resize_size": 232}


TORCHVISION = {"input_size": (3, 224, 224), "crop_pct": 0.875, "preprocessing": "torchvision", "resize_size": 256}


@pytest.mark.parametrize(("args", "resize_size"), [
    ({}, 256),
    ({"img_size": 448}, 512),
    ({"img_size": 112}, 128),
    ({"input_size": (3, 448, 224)}, (512, 256)),
    ({"crop_pct": 1.0}, 224),
    ({"img_size": 384, "crop_pct": 0.95}, 404),
    ({"crop_mode": "center"}, 256),
    ({"crop_mode": "squash"}, None),
    ({"crop_mode": "border"}, None),
])
def test_explicit_arguments_keep_torchvisions_ratio(args, resize_size):
    config = resolve_data_config(args, TORCHVISION)
    assert config.get("resize_size") == resize_size
    assert config.get("preprocessing") == ("torchvision" if resize_size else None)
    assert config["crop_pct"] == args.get("crop_pct", 0.875)
    mvlib.create_transform(**config)


def test_a_test_size_keeps_torchvisions_ratio():
    weights = {**TORCHVISION, "test_input_size": (3, 448, 448)}
    assert resolve_data_config(pretrained_cfg=weights, use_test_size=True)["resize_size"] == 512
    weights["test_crop_pct"] = 1.0
    assert resolve_data_config(pretrained_cfg=weights, use_test_size=True)["resize_size"] == 448


def test_antialias_is_carried_where_it_is_off():
    assert "antialias" not in resolve_data_config(pretrained_cfg=TORCHVISION)
    assert resolve_data_config(pretrained_cfg={**TORCHVISION, "antialias": False})["antialias"] is False


@pytest.mark.parametrize(("args", "message"), [
    (None, "none of them is given"),
    ({"input_size": 224}, "input_size 224 is not (channels, height, width)"),
    ({"input_size": (224, 224)}, "input_size (224, 224) is not (channels, height, width)"),
    ({"img_size": (224, 224)}, "img_size (224, 224) is not the side of a square"),
    ({"mean": (0.5, 0.5)}, "mean (0.5, 0.5) has 2 values for 3 channels"),
    ({"in_chans": 1, "std": (0.5, 0.5, 0.5)}, "std (0.5, 0.5, 0.5) has 3 values for 1 channels"),
])
def test_mistakes_are_named(args, message):
    with pytest.raises(ValueError) as caught:
        resolve_data_config(args)
    assert message in str(caught.value)


def test_verbose_logs_the_result(caplog):
    with caplog.at_level(logging.INFO, "mvlib"):
        resolve_data_config({"img_size": 96}, verbose=True)
    assert "input_size (3, 96, 96)" in caplog.text


def test_neither_torch_nor_pil_is_imported():
    code = ("import sys, mvlib.data as d; dir(d); d.resolve_data_config({'img_size': 96}); d.IMAGENET_DPN_STD; "
            "sys.exit('torch' in sys.modules or 'PIL' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'mvlib.data' has no attribute 'nothing'"):
        mvlib.data.nothing  # noqa: B018


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5])
@pytest.mark.parametrize("weights", [{}, TORCHVISION])
def test_a_share_that_is_none_is_refused(value, weights):
    with pytest.raises(mvlib.ConfigError, match=f"crop_pct {value} is not a share of the image"):
        resolve_data_config({"crop_pct": value}, pretrained_cfg=weights)
    with pytest.raises(mvlib.ConfigError, match=f"crop_pct {value} is not a share of the image"):
        create_transform(96, crop_pct=value)
