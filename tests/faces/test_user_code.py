"""What a user's code does to models: values that it sets, modules that it puts in, blocks that it adds."""

import copy
import functools
import io
import pickle

import pytest
import timm
import torch
from torch import nn

import mvlib
import mvlib.timm
from mvlib.errors import CheckpointError
from mvlib.models.base import ImageModel

from ..parity.representatives import REPRESENTATIVES

ARGUMENTS = {name: arguments for family in REPRESENTATIVES.values() for name, arguments in family.items()}
SMALL = ("cait_xxs24_224", "convit_tiny", "levit_128s", "resmlp_12_224", "nest_tiny", "dm_nfnet_f0",
         "vit_base_patch16_xp_224", "vit_dpwee_patch16_reg1_gap_256", "xcit_nano_12_p16_224")
VIT = dict(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3)
SWIN = dict(img_size=32, window_size=2, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), num_classes=3)
CASES = [("vit_tiny_patch16_224", VIT, "blocks", 16), ("swin_tiny_patch4_window7_224", SWIN, "layers", 32),
         ("test_convnext", {}, "stages", 64), ("test_efficientnet", {}, "blocks", 64)]


@pytest.mark.parametrize("name", [name for family in REPRESENTATIVES.values() for name in family if name in SMALL])
def test_parts_get_values_where_they_are_made(name, monkeypatch):
    """A user's own model may be made of them: none waits for a model's `init_weights`."""
    monkeypatch.setattr(ImageModel, "init_modules", lambda self, paths=None: None)
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # what is not initialised is NaN
    try:
        model = mvlib.model_entrypoint(name)(num_classes=10, **ARGUMENTS[name])
    finally:
        torch.use_deterministic_algorithms(was)
    for path, module in model.named_modules():
        if not isinstance(module, ImageModel):
            assert not any(tensor is not None and tensor.isnan().any() for tensor in module._parameters.values()), path


def test_values_from_a_user_s_constructor_stay(fresh_registry):
    """What is built on the meta device loses them."""
    from mvlib.models.resnet import BasicBlock, ResNet
    from mvlib.models.vision_transformer import Block, VisionTransformer

    small = dict(embed_dim=16, depth=1, num_heads=2, img_size=16, patch_size=8, num_classes=2)

    class Net(VisionTransformer):
        def __init__(self, **kwargs):
            super().__init__(**{**small, **kwargs})
            nn.init.constant_(self.head.bias, -4.0)

    def made(**kwargs) -> VisionTransformer:
        model = VisionTransformer(**{**small, **kwargs})
        nn.init.constant_(model.head.bias, -4.0)
        return model

    mvlib.register_model(made)
    mvlib.register_model(Net)
    mvlib.register_model.variants(__name__, Net, {"variant": {}})
    for name in ("made", "Net", "variant"):
        assert mvlib.create_model(name).head.bias.tolist() == [-4.0, -4.0], name

    class MyBlock(Block):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            nn.init.constant_(self.norm1.weight, 7.0)

    class MyNorm(nn.LayerNorm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            nn.init.constant_(self.weight, 7.0)

    class MyResBlock(BasicBlock):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            nn.init.constant_(self.bn1.weight, 7.0)

    for changes in (dict(block_fn=MyBlock), dict(norm_layer=MyNorm),
                    dict(norm_layer=functools.partial(MyNorm, eps=1e-6))):
        for model in (mvlib.create_model("vit_tiny_patch16_224", **small, **changes),
                      VisionTransformer(**small, **changes)):
            assert model.blocks[0].norm1.weight.unique().tolist() == [7.0], changes
    for model in (mvlib.create_model("resnet10t", block=MyResBlock), ResNet(MyResBlock, (1, 1, 1, 1))):
        assert model.layer1[0].bn1.weight.unique().tolist() == [7.0]


class Tripled(nn.Sequential):
    def forward(self, x, *shared, **options):
        for block in self:
            x = block(x, *shared, **options)
        return 3 * x


@pytest.mark.parametrize(("name", "arguments", "path", "size"), CASES)
@torch.no_grad()
def test_containers_of_blocks_are_the_user_s(name, arguments, path, size):
    """What is added, cut, wrapped, hooked or of another class counts, as where torch calls an nn.Sequential."""
    model = mvlib.timm.create_model(name, **arguments).eval()
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))

    def changed(change):
        other = copy.deepcopy(model)
        replacement = change(getattr(other, path))
        if isinstance(replacement, nn.Module):
            setattr(other, path, replacement)
        return other.forward_features(x)

    clip = nn.Hardtanh(-1e-3, 1e-3)
    outputs = {
        "appended": changed(lambda blocks: nn.Sequential(*blocks, clip)),
        "appended in place": changed(lambda blocks: blocks.add_module(str(len(blocks)), clip)),
        "wrapped": changed(lambda blocks: nn.Sequential(blocks, clip)),
        "hooked": changed(lambda blocks: blocks.register_forward_hook(lambda m, i, o: clip(o))),
    }
    last = changed(lambda blocks: setattr(blocks, str(len(blocks) - 1), nn.Sequential(blocks[-1], clip)))
    assert not torch.equal(last, model.forward_features(x))
    for what, output in outputs.items():
        assert torch.equal(output, last), what
    own = changed(lambda blocks: Tripled(*blocks))
    assert torch.equal(own, changed(lambda blocks: blocks.register_forward_hook(lambda m, i, o: 3 * o)))
    assert not torch.equal(own, model.forward_features(x))

    if path == "blocks" and name.startswith("vit"):
        cut = copy.deepcopy(model)
        cut.blocks = cut.blocks[:1]
        assert len(cut.forward_intermediates(x)[1]) == 1 and cut(x).shape == (1, 3)


def test_any_module_can_be_the_head():
    model = mvlib.timm.create_model("test_convnext").eval()
    x = torch.ones(1, 3, 64, 64)
    features = model.forward_features(x)
    model.head = nn.Identity()
    assert torch.equal(model(x), features)


def test_a_patch_embedding_that_says_nothing_of_its_stride():
    class Embed(nn.Module):
        def __init__(self, img_size, patch_size, in_chans, embed_dim, **kwargs):
            super().__init__()
            self.patch_size, self.num_patches = patch_size, (img_size // patch_size) ** 2
            self.grid_size = (img_size // patch_size,) * 2
            self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)

        def forward(self, x):
            return self.proj(x).flatten(2).transpose(1, 2)

    model = mvlib.timm.create_model("vit_tiny_patch16_224", embed_layer=Embed, **VIT)
    assert model(torch.ones(1, 3, 16, 16)).shape == (1, 3) and model.feature_info[0]["reduction"] == 8


class Installed(pickle.Unpickler):
    def find_class(self, module, name):
        return super().find_class(f"mvlib.{module}" if module.startswith("timm.") else module, name)


def test_a_pickle_of_a_whole_model_of_timms_is_named():
    pickled = io.BytesIO(pickle.dumps(timm.create_model("test_resnet")))
    with pytest.raises(CheckpointError, match="a whole ResNet of another library: save its state_dict"):
        Installed(pickled).load()
    model = mvlib.create_model("test_resnet", pretrained=False)
    assert pickle.loads(pickle.dumps(model)).flow.stages


@pytest.mark.parametrize("library", [timm, mvlib.timm], ids=lambda library: library.__name__)
def test_a_subclass_sets_what_models_compute(library):
    """Before `super().__init__` and after it, as FlexiViT and detectors do."""
    vit, swin = library.models.vision_transformer, library.models.swin_transformer

    class Flexible(vit.VisionTransformer):
        def __init__(self):
            self.img_size = (40, 24)
            super().__init__(**VIT)
            self.feature_info = [dict(num_chs=16, reduction=8, module="blocks.1")]

    class Windows(swin.SwinTransformer):
        def __init__(self):
            super().__init__(**SWIN)
            self.img_size, self.global_pool = 48, "none"

    model, other = Flexible(), Windows()
    assert model.img_size == (40, 24) and model.feature_info[0]["module"] == "blocks.1" and len(model.feature_info) == 1
    assert (other.img_size, other.global_pool) == (48, "none")
    assert model(torch.zeros(1, 3, 16, 16)).shape == other(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


@pytest.mark.sample(3)
@pytest.mark.parametrize(("name", "path"), [
    ("ghostnet_050", "blocks"), ("rexnet_100", "features"), ("vgg11", "features"), ("densenet121", "features"),
    ("resnetv2_18", "stem"), ("nfnet_l0", "stages"),
])
@torch.no_grad()
def test_sequences_that_end_in_the_neck_or_begin_in_the_stem_are_the_user_s(name, path):
    """As in timm, which calls them: what is added in place or with a new sequence counts, and hooks are called."""
    theirs, ours = (face.create_model(name, num_classes=3).eval() for face in (timm, mvlib.timm))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = theirs.forward_features(x)
    called = []

    class Halved(nn.Module):
        def forward(self, x):
            return 0.5 * x

    def change_all(change):
        for model in (theirs, ours):
            change(model, getattr(model, path))
        expected, found = (model.forward_features(x) for model in (theirs, ours))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
        assert not torch.allclose(expected, plain, rtol=1e-2)

    change_all(lambda model, items: items.add_module("more", Halved()))
    change_all(lambda model, items: setattr(model, path, nn.Sequential(Halved(), *items)))
    change_all(lambda model, items: items.register_forward_hook(lambda m, i, o: called.append(m) or 2 * o))
    assert [called.count(getattr(model, path)) for model in (theirs, ours)] == [1, 1]
