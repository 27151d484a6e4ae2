"""What models cost: the counter against arithmetic, the file against the models, and both against published figures."""

import csv
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import get_model_weights

import mvlib
from mvlib import registry
from mvlib.costs import costs_of, read_stats
from mvlib.models.maxxvit import RelPosBiasTf

from .test_catalog import script

stats = script("build_stats")
# From timm's results/benchmark-infer-amp-nhwc-pt113-cu117-rtx3090.csv: attention in its unfused form.
with open(Path(__file__).with_name("published_costs.csv"), encoding="utf-8", newline="") as stream:
    PUBLISHED = list(csv.DictReader(stream))


def count(model, *shape):
    with torch.device("meta"), torch.no_grad(), stats.CostCounter() as counter:
        model(torch.empty(shape))
    return counter.macs, counter.activations


# the counter

def test_convolutions_and_products_count_as_arithmetic_says():
    with torch.device("meta"):
        conv, grouped, linear = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, groups=8), nn.Linear(7, 5)
        norm, embed = nn.BatchNorm2d(8).eval(), nn.Embedding(10, 4)
    assert count(conv, 1, 3, 16, 16) == (8 * 8 * 8 * 3 * 9, 8 * 8 * 8)
    assert count(grouped, 1, 8, 10, 10) == (8 * 8 * 8 * 9, 8 * 8 * 8)
    assert count(linear, 1, 6, 7) == (6 * 7 * 5, 6 * 5)
    assert count(lambda x: torch.einsum("bij,bkj->bik", x, x), 2, 3, 4) == (2 * 3 * 3 * 4, 2 * 3 * 3)
    assert count(lambda x: x @ x, 1, 4, 4) == (64, 16)
    assert count(norm, 1, 8, 4, 4) == (0, 0) and count(nn.functional.gelu, 1, 8) == (0, 0)
    assert count(lambda x: embed(x.long()), 1, 3) == (0, 0)


def test_attention_counts_its_scores_and_its_result():
    heads, tokens, width = 3, 10, 8

    def attend(x):
        return nn.functional.scaled_dot_product_attention(x, x, x)

    assert count(attend, 1, heads, tokens, width) == \
        (2 * heads * tokens * tokens * width, heads * tokens * tokens + heads * tokens * width)


def test_a_fused_operator_whose_parts_cannot_be_seen_is_refused():
    q = torch.ones(1, 2, 8, 8)
    with torch.no_grad(), stats.CostCounter(), pytest.raises(TypeError, match="fused operator, whose inner products"):
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, q, q)


# the file

def test_every_architecture_and_all_weights_have_a_row_that_is_theirs():
    assert list(read_stats()) == [name for name, _ in stats.rows()]
    for name in mvlib.list_models(task="classification"):
        for config in mvlib.get_arch_pretrained_cfgs(name).values():
            row = costs_of(config)
            assert (row["size"], row["classes"]) == (stats._side(config.input_size), config.num_classes), config.name
            test_size = config.test_input_size or config.input_size
            assert row.get("test", [row["size"]])[0] == stats._side(test_size), config.name


@pytest.mark.parametrize("name", ["resnet50", "resnet50.a3_in1k", "vit_base_patch16_224.augreg_in21k",
                                  "swin_tiny_patch4_window7_224", "convnext_tiny", "googlenet"])
def test_the_file_says_what_is_measured(name):
    assert stats.measure(mvlib.get_pretrained_cfg(name)) == read_stats()[name]


def test_weights_that_nobody_measured_have_costs_only_if_they_are_like_the_default():
    config = mvlib.get_pretrained_cfg("resnet18")
    assert costs_of(config.replace(tag="mine")) == read_stats()["resnet18"]
    for changes in ({"num_classes": 10}, {"input_size": (3, 64, 64)}, {"input_size": (1, 224, 224)},
                    {"test_input_size": (3, 96, 96)}, {"architecture": "unheard_of"}):
        assert costs_of(config.replace(tag="mine", **changes)) == {}


def test_the_script_measures_what_lacks_and_drops_what_is_gone(tmp_path, monkeypatch, capsys):
    path = tmp_path / "stats.json"
    known = dict(read_stats())
    wrong = {**known["resnet18"], "params": 1}
    path.write_text(json.dumps({**{k: v for k, v in known.items() if k != "alexnet"}, "gone": {}, "resnet18": wrong}))
    monkeypatch.setattr(stats, "PATH", path)
    few = {name: config for name, config in stats.rows() if name in ("alexnet", "resnet18")}
    monkeypatch.setattr(stats, "rows", lambda: iter(few.items()))
    monkeypatch.setattr("sys.argv", ["build_stats.py", "--check"])
    assert stats.main() == 1
    said = capsys.readouterr().out
    assert "stale: alexnet\n" in said and "stale: gone\n" in said and "stale: resnet18\n" in said
    monkeypatch.setattr("sys.argv", ["build_stats.py"])
    assert stats.main() == 0
    assert json.loads(path.read_text()) == {"alexnet": known["alexnet"], "resnet18": wrong}
    for argument in ("--all", "resnet"):
        path.write_text(json.dumps({"alexnet": known["alexnet"], "resnet18": wrong}))
        monkeypatch.setattr("sys.argv", ["build_stats.py", argument])
        assert stats.main() == 0
        assert json.loads(path.read_text()) == {name: known[name] for name in few}
    monkeypatch.setattr("sys.argv", ["build_stats.py", "resnets"])
    with pytest.raises(SystemExit):
        stats.main()
    assert "no family resnets; known: alexnet, " in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["build_stats.py", "--check"])
    assert stats.main() == 0


# published figures

# torchvision counts the auxiliary head that its weights have, and biases of attention's keys that it sets to zero.
OTHER_PARAMETERS = ("inception_v3", "quantized_inception_v3", "swin_v2_t", "swin_v2_s", "swin_v2_b")


@pytest.mark.parametrize("builder", registry.list_builders("classification"))
def test_torchvisions_figures(builder):
    for member in get_model_weights(builder):
        costs = costs_of(mvlib.get_pretrained_cfg(f"{builder}.{member.name.lower()}"))
        assert costs["gmacs"] == pytest.approx(member.meta["_ops"], rel=0.01, abs=0.0006)  # to 3 decimals, cut
        if builder not in OTHER_PARAMETERS:
            assert costs["params"] == member.meta["num_params"]


class NormCounter(TorchDispatchMode):
    """Operations on norms, which fvcore, with which timm counts, adds to the multiply-accumulates."""

    OPERATIONS = {"native_batch_norm": 2, "native_layer_norm": 5, "native_group_norm": 5}  # for each element

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        operations = self.OPERATIONS.get(func._overloadpacket.__name__)
        self.total += operations * args[0].numel() if operations else 0
        return func(*args, **(kwargs or {}))


def lookups(model):
    """(multiply-accumulates, activations) of MaxViT's relative positions, which timm looks up by products with one-hot
    matrices, first of the rows, then of the columns; mvlib reads the table."""
    macs = activations = 0
    for module in model.modules():
        if isinstance(module, RelPosBiasTf):
            height, width = module.window_size
            rows = module.num_heads * height**2 * (2 * width - 1)
            both = module.num_heads * (height * width) ** 2
            macs += rows * (2 * height - 1) + both * (2 * width - 1)
            activations += rows + both
    return macs, activations


# What timm has changed, under the same name, since it published these figures.
AS_PUBLISHED = {
    "vit_large_patch32_224": {"num_classes": 21843},  # before fine-tuning
    "vit_huge_patch14_224": {"num_classes": 21843},
    "ecaresnext50t_32x4d": {"model_args": {"layers": (2, 2, 2, 2)}},  # those of the 26t
}


def as_timm_counts(name, size):
    """(gmacs, activations, params) of a model in the units and with the additions of timm's tables."""
    config, size = mvlib.get_pretrained_cfg(name).replace(**AS_PUBLISHED.get(name, {})), (3, size, size)
    model = stats.build(config, size)
    with torch.no_grad(), NormCounter() as norms:
        gmacs, activations = stats.count(model, size)
    macs, more = lookups(model)
    return gmacs + (norms.total + macs) / 1e9, activations + more / 1e6, stats.count_parameters(model) / 1e6


def rows():
    """All that are published: by default every sixteenth, and those told apart above."""
    for index, row in enumerate(PUBLISHED):
        is_fast = index % 16 == 0 or row["name"] in {*AS_PUBLISHED, "maxvit_tiny_tf_384"}
        yield pytest.param(row, id=row["name"], marks=() if is_fast else pytest.mark.slow)


@pytest.mark.sample(3)
@pytest.mark.parametrize("row", list(rows()))
def test_timms_figures(row):
    if row["name"].startswith("swinv2") and torch.__version__.startswith("2.5."):
        pytest.skip("this torch adds no biases on the meta device to what is on another")
    found = as_timm_counts(row["name"], int(row["img_size"]))
    for value, published in zip(found, (row["gmacs"], row["macts"], row["params"])):
        assert value == pytest.approx(float(published), rel=0.01, abs=0.00501)  # rounded to two decimals
