"""What type checkers read: the generated stubs, and what a user's code is told."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .test_catalog import script

ROOT = Path(__file__).parents[1]
USER = """
from typing import Any
from typing_extensions import assert_type
from torch import nn
import mvlib
import mvlib.models
from mvlib.data import create_transfrom  # error: attr-defined
from mvlib.enums import Weights
from mvlib.models import (
    AlexNet, AlexNet_Weights, ResNet, ResNet18_Weights, ResNet50_Weights, VisionTransformer, alexnet, resnet50,
    vit_b_16, quantized_resnet18,
)
from torchvision.models.quantization import QuantizableResNet
from mvlib.models.deit import VisionTransformerDistilled
from mvlib.models.deit import deit_small_patch16_224, deit_small_distilled_patch16_224
from mvlib.models.deit import deit_small_patch16_225  # error: attr-defined
from mvlib.models.resnet import resnet50d
from mvlib.models.resnet import resnet51d  # error: attr-defined

assert_type(mvlib.create_model("resnet50.a1_in1k", num_classes=3), mvlib.ImageModel)
assert_type(mvlib.create_model("resnet50", True, features_only=False), mvlib.ImageModel)
assert_type(mvlib.create_model("resnet50", features_only=True, out_indices=[1, 2]), mvlib.FeatureExtractor)
assert_type(mvlib.models.create_model("resnet50", features_only=True), mvlib.FeatureExtractor)
assert_type(mvlib.create_model("resnet50").weights_config, mvlib.WeightsConfig)
def of_either(features_only: bool) -> nn.Module:
    either = mvlib.create_model("resnet50", features_only=features_only)
    return assert_type(either, mvlib.ImageModel | mvlib.FeatureExtractor)
mvlib.creat_model("resnet50")  # error: attr-defined
mvlib.create_model(50)  # error: call-overload
mvlib.create_model("resnet50", device=0.5)  # error: call-overload
mvlib.list_models("*resne*t*", pretraned=True)  # error: call-arg

assert_type(resnet50(weights=ResNet50_Weights.IMAGENET1K_V2, progress=False, num_classes=3), ResNet)
assert_type(resnet50(weights="DEFAULT"), ResNet)
assert_type(alexnet(), AlexNet)  # the family has the same name
assert_type(mvlib.models.alexnet(weights=AlexNet_Weights.DEFAULT), AlexNet)
assert_type(vit_b_16(weights=None), VisionTransformer)
assert_type(quantized_resnet18(weights=ResNet18_Weights.DEFAULT, quantize=True), QuantizableResNet)
assert_type(ResNet50_Weights.A1_IN1K.value, Weights)
assert_type(ResNet50_Weights.verify("A1_IN1K"), ResNet50_Weights | None)
assert_type(mvlib.get_model_weights("resnet50").DEFAULT, mvlib.WeightsEnum)
resnet50(ResNet50_Weights.DEFAULT)  # error: call-arg
resnet50(weights=ResNet18_Weights.DEFAULT)  # error: arg-type
mvlib.models.resnet18_5()  # error: attr-defined
ResNet50_Weights.A9_IN1K  # error: attr-defined
mvlib.models.ResNet19_Weights  # error: attr-defined

@mvlib.register_model
def mine(**kwargs: Any) -> mvlib.models.resnet.ResNet: return resnet50d(**kwargs)
@mvlib.register_model(name="other", override=True)
def mine_too(**kwargs: Any) -> AlexNet: return alexnet(**kwargs)
assert_type(deit_small_patch16_224(), mvlib.models.vision_transformer.VisionTransformer)
assert_type(deit_small_distilled_patch16_224(), VisionTransformerDistilled)
assert_type(mine(), mvlib.models.resnet.ResNet)
assert_type(mine_too(), AlexNet)
mvlib.register_model(override=1)  # error: call-overload
mvlib.register_model.variants(__name__, mine, {"small": dict(layers=(1, 1, 1, 1))}, overide=True)  # error: call-arg
assert_type(mvlib.models.resnet.resnet50d().structure, str)
assert_type(mvlib.models.resnet.resnet50(weights=mvlib.models.resnet.ResNet50_Weights.DEFAULT), ResNet)
assert_type(mvlib.optim.list_optimizers("*adam*"), list[str])
mvlib.optim.list_optimizers(description=True)  # error: call-overload
"""


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_the_stubs_are_up_to_date():
    done = run("scripts/build_stubs.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_what_a_user_is_told(tmp_path):
    file = tmp_path / "user.py"
    file.write_text(USER)
    # The configuration of scripts/check_types.py, whose cache makes this cheap.
    done = run("-m", "mypy", file)
    # It names the folder of the run that filled the cache.
    told = re.findall(rf"^\S*/{re.escape(file.name)}:(\d+): error: .*\[(.+)\]$", done.stdout, re.MULTILINE)
    marked = [(str(number), line.partition("# error: ")[2])
              for number, line in enumerate(USER.splitlines(), 1) if "# error: " in line]
    assert told == marked, done.stdout + done.stderr


@pytest.mark.parametrize("errors, status, told, printed, left", [
    (["arg-type"], 0, "1 errors, 1 are allowed", 0, "mvlib/a.py  arg-type:1\n"),
    (["arg-type", "index"], 1, "mvlib/a.py: 1 of [index], 1 more than it may have", 1, "mvlib/a.py  arg-type:1\n"),
    (["arg-type", "arg-type"], 1, "mvlib/a.py: 2 of [arg-type], 1 more", 2, "mvlib/a.py  arg-type:1\n"),
    ([], 0, "0 errors, 1 are allowed", 0, ""),
])
def test_errors_of_types_only_become_fewer(errors, status, told, printed, left, tmp_path, monkeypatch, capsys):
    check = script("check_types")
    found = {"mvlib/a.py": [(f"mvlib/a.py:1: error: it is wrong  [{code}]", code) for code in errors]} if errors else {}
    monkeypatch.setattr(check, "run_mypy", lambda: found)
    monkeypatch.setattr(check, "ALLOWED", tmp_path / "allowed.txt")
    check.ALLOWED.write_text("mvlib/a.py  arg-type:1\n")
    monkeypatch.setattr(sys, "argv", ["check_types.py", "--update"])
    assert check.main() == status
    output = capsys.readouterr().out
    assert told in output and output.count("it is wrong") == printed
    assert check.ALLOWED.read_text() == left
