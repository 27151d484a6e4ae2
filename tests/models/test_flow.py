"""What a flow may be besides a chain of modules, in models made up for it."""

import pytest
import torch
from torch import nn

import mvlib
from mvlib.layers.pool import ClassifierHead, GlobalPool2d
from mvlib.layers.stage import Stage
from mvlib.models.base import Flow, ImageModel, Step
from mvlib.models.scripting import scriptable


class Patches(nn.Module):
    """A map or an image -> tokens, and their grid."""

    def __init__(self, in_chs, out_chs):
        super().__init__()
        self.proj = nn.Conv2d(in_chs, out_chs, 2, stride=2)

    def forward(self, x, grid=None):
        if grid is not None:
            x = x.transpose(1, 2).unflatten(2, grid)
        x = self.proj(x)
        return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3])


class GridBlock(nn.Linear):
    """Needs the grid: adds a token's row."""

    def forward(self, x, grid):
        rows = torch.arange(grid[0]).repeat_interleave(grid[1]).to(x)
        return super().forward(x) + rows[:, None]


class Pyramid(ImageModel):
    """Tokens at two resolutions; each stage gives its grid."""

    tap_layout = "NLC"

    def __init__(self):
        super().__init__()
        self.num_classes, self.in_chans = 3, 3
        self.num_features = self.head_hidden_size = 8
        self.patches1, self.stage1 = Patches(3, 4), nn.Sequential(GridBlock(4, 4), GridBlock(4, 4))
        self.patches2, self.stage2 = Patches(4, 8), nn.Sequential(GridBlock(8, 8))
        self.flow = Flow(
            stem=[Step("patches1", gives=("grid",))],
            stages=[Step("stage1", 4, 2, takes=("grid",)), Step("patches2", takes=("grid",), gives=("grid",)),
                    Step("stage2", 8, 4, takes=("grid",))])
        self.head = self.make_classifier(3)
        self.init_weights()

    def pool(self, x):
        return x.mean(1)

    def set_global_pool(self, pool_type):
        self.global_pool = pool_type


class Twins(ImageModel):
    """Two streams of tokens of one image, a tap each, and a classifier each; the input is a dict."""

    classifier_path = ("heads.0", "heads.1")
    tap_layout = "NLC"

    def __init__(self):
        super().__init__()
        self.num_classes, self.in_chans, self.num_features, self.head_hidden_size = 3, 3, 4, 4
        self.fine, self.coarse = Patches(3, 4), nn.Sequential(nn.AvgPool2d(2), Patches(3, 4))
        self.flow = Flow(stem=[Step("look", (4, 4), (2, 4), module=("fine", "coarse"), gives=("grid",))], stages=[])
        self.heads = nn.ModuleList(self.make_classifier(3) for _ in range(2))
        self.init_weights()

    def look(self, x):
        (fine, fine_grid), (coarse, coarse_grid) = self.fine(x["image"]), self.coarse(x["image"])
        return [fine, coarse], [fine_grid, coarse_grid]

    def forward_head(self, x, pre_logits=False):
        pooled = [tokens.mean(1) for tokens in x]
        return torch.stack(pooled if pre_logits else [head(y) for head, y in zip(self.heads, pooled)]).mean(0)


class Staged(ImageModel):
    """A stage with downsampling, a final norm of another name, a neck, and one module for the head."""

    head_path = "head"
    tap_norm = "last"
    norm_path = "last_norm"

    def __init__(self):
        super().__init__()
        self.num_classes, self.in_chans, self.num_features = 3, 3, 8
        self.stem = nn.Conv2d(3, 4, 1)
        self.stage = Stage()
        self.stage.downsample = nn.Conv2d(4, 4, 2, 2)
        self.stage.blocks = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh(), nn.Conv2d(4, 4, 1))
        self.last_norm, self.widen = nn.BatchNorm2d(4), nn.Conv2d(4, 8, 1)
        self.flow = Flow([Step("stem", 4, 1)], [Step("stage", 4, 2)], tail=[Step("last_norm")], neck=[Step("widen")])
        self.head = ClassifierHead(8, 3, "catavgmax")
        self.head_hidden_size = self.head.num_features
        self.init_weights()


IMAGE = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def test_shared_values_reach_the_steps_that_take_them_and_taps_have_their_own_grid():
    model = Pyramid().eval()
    final, (fine, coarse) = model.forward_intermediates(IMAGE)
    assert fine.shape == (2, 4, 4, 6) and coarse.shape == (2, 8, 2, 3)
    assert torch.equal(final, model.forward_features(IMAGE))
    assert torch.equal(coarse.flatten(2).transpose(1, 2), final)
    assert model.forward_intermediates(IMAGE, [0], output_fmt="NLC", intermediates_only=True)[0].shape == (2, 24, 4)


def test_checkpointed_blocks_take_shared_values_too():
    results = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = Pyramid()
        model.set_grad_checkpointing(enable)
        model(IMAGE).square().sum().backward()
        results.append([p.grad for p in model.parameters()])
    for plain, saved in zip(*results, strict=True):
        torch.testing.assert_close(plain, saved)


def test_shared_values_are_traced_and_exported():
    model = Pyramid().eval()
    torch.testing.assert_close(torch.export.export(model, (IMAGE,)).module()(IMAGE), model(IMAGE))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(IMAGE), model(IMAGE))


def test_a_step_may_give_several_taps_and_a_model_take_a_dict_and_have_several_classifiers():
    model = Twins().eval()
    assert [(f["num_chs"], f["reduction"], f["module"]) for f in model.feature_info] == \
        [(4, 2, "fine"), (4, 4, "coarse")]
    final, (fine, coarse) = model.forward_intermediates({"image": IMAGE})
    assert fine.shape == (2, 4, 4, 6) and coarse.shape == (2, 4, 2, 3) and len(final) == 2
    assert torch.equal(model.forward_intermediates({"image": IMAGE}, [1], intermediates_only=True)[0], coarse)
    assert model({"image": IMAGE}).shape == (2, 3)
    model.reset_classifier(5)
    assert model({"image": IMAGE}).shape == (2, 5) and model.heads[1].weight.shape == (5, 4)


def test_a_stage_a_neck_and_a_head_are_seen_to_by_the_base():
    model = Staged().eval()
    assert model(IMAGE).shape == (2, 3) and model.get_classifier() is model.head.fc
    assert model.group_matcher()["blocks"] == [
        (r"^stage\.downsample", (0,)), (r"^stage\.blocks\.(\d+)", None), ("^last_norm", (99999,)),
        ("^widen", (99999,))]
    *_, (_, normed) = model.forward_intermediates(IMAGE, norm=True)
    assert torch.equal(normed, model.last_norm(model.stage(model.stem(IMAGE))))
    model.reset_classifier(4, "max")
    assert model(IMAGE).shape == (2, 4) and model.head_hidden_size == 8


@pytest.mark.parametrize(("arguments", "names"), [
    (dict(indices=1, prune_head=False), {"stem", "stage", "last_norm", "widen", "head"}),
    (dict(indices=1), {"stem", "stage", "last_norm"}),
    (dict(indices=1, prune_norm=True, prune_head=False), {"stem", "stage"}),
    (dict(indices=[0], prune_head=False), {"stem"}),
])
def test_what_pruning_leaves(arguments, names):
    model = Staged().eval()
    model.prune_intermediate_layers(**arguments)
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == names
    if "head" not in names:  # it was made for wider features
        assert model.num_features == model.head_hidden_size == 4
        model.reset_classifier(2, "avg")
        assert model(IMAGE).shape == (2, 2)


def test_a_module_that_was_replaced_is_run():
    model = Staged().eval()
    model(IMAGE)
    model.last_norm = nn.Identity()
    assert torch.equal(model.forward_features(IMAGE), model.widen(model.stage(model.stem(IMAGE))))


def test_arguments_that_changed_are_noted_for_one_model_alone():
    one, other = Staged(), Staged()
    one.note_arguments(img_size=(8, 8))
    assert one.model_args == {"img_size": (8, 8)} and other.model_args == {}


def test_pool_types_of_a_head():
    head = ClassifierHead(4, 2, "avg")
    assert isinstance(head.global_pool, GlobalPool2d) and head.num_features == 4
    head.set_global_pool("catavgmax")
    assert head.num_features == 8 and head.make_classifier(2).weight.shape == (2, 8)


@pytest.mark.parametrize("names", [("conv", "norm"), ("norm", "conv")])
def test_a_script_has_the_models_order_whatever_was_scripted_before(names):
    class Inner(nn.Module):  # the same names in both orders, of the same types
        def __init__(self):
            super().__init__()
            for name in names:
                self.add_module(name, nn.Conv2d(3, 3, 1) if name == "conv" else nn.BatchNorm2d(3))

        def forward(self, x):
            return self.norm(self.conv(x))

    model = nn.Sequential(Inner())
    assert list(torch.jit.script(scriptable(model)).state_dict()) == list(model.state_dict())


def test_a_model_compiles_before_it_was_called():
    """What it finds out about itself in its first call must not break the graph: no locks, as of a cached property."""
    torch.compiler.reset()
    model = mvlib.create_model("test_efficientnet", num_classes=3).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits = torch.compile(model, fullgraph=True, backend="eager")(images)
        assert torch.equal(logits, model(images))
