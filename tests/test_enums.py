"""Enums of weights: names, members, meta and behaviour, against torchvision's own."""

import copy
import math
import pickle
import subprocess
import sys

import pytest
import torchvision

import mvlib
import mvlib.models
from mvlib import enums, registry
from mvlib.costs import costs_of
from mvlib.errors import UnknownNameError

THEIRS = torchvision.models
BUILDERS = [*THEIRS.list_models(module=THEIRS), *THEIRS.list_models(module=THEIRS.quantization)]


def pairs():
    for builder in BUILDERS:
        for member in THEIRS.get_model_weights(builder):
            yield pytest.param(builder, member, id=repr(member))


def test_all_of_torchvisions_builders_and_weights_are_known():
    assert sum(not b.startswith("quantized_") for b in BUILDERS) == 80
    assert sum(1 for _ in pairs()) == 115 + 14
    assert registry.list_builders("classification") == sorted(BUILDERS)
    assert registry.list_builders() == THEIRS.list_models()


@pytest.mark.parametrize(("builder", "theirs"), list(pairs()))
def test_every_member_says_what_torchvisions_says(builder, theirs):
    ours = mvlib.get_weight(repr(theirs))
    assert type(ours).__name__ == type(theirs).__name__ and ours.name == theirs.name
    assert repr(ours) == repr(theirs) and str(ours) == str(theirs)
    assert ours is mvlib.get_model_weights(builder)[theirs.name]
    assert type(ours) is getattr(mvlib.models, type(ours).__name__)
    assert ours.url == theirs.url
    expected = {**theirs.meta, "_docs": " ".join(theirs.meta["_docs"].split())}
    if "unquantized" in expected:
        unquantized = ours.meta["unquantized"]
        assert repr(unquantized) == repr(expected.pop("unquantized")) and isinstance(unquantized, mvlib.WeightsEnum)
    found = {key: value for key, value in ours.meta.items() if key != "unquantized"}
    if theirs.name == "IMAGENET1K_FEATURES":
        assert math.isnan(expected["_metrics"]["ImageNet-1K"]["acc@1"])
        assert repr(found.pop("_metrics")) == repr(expected.pop("_metrics"))  # not a number, which equals none
    assert found == expected


@pytest.mark.parametrize("builder", BUILDERS)
def test_default_and_order_are_torchvisions(builder):
    ours, theirs = mvlib.get_model_weights(builder), THEIRS.get_model_weights(builder)
    assert ours.DEFAULT is ours[theirs.DEFAULT.name]
    assert [member.name for member in ours][:len(theirs)] == [member.name for member in theirs]


def test_an_enum_has_timms_weights_too():
    weights = mvlib.models.ResNet50_Weights.A1_IN1K
    assert weights.url == "https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors"
    assert weights.meta["recipe"] and len(weights.meta["categories"]) == 1000
    assert weights.meta["num_params"] == 25557032 and weights.meta["_ops"] == pytest.approx(4.11, abs=0.1)


def test_meta_knows_what_the_catalog_s_costs_know():
    count = 0
    for name in mvlib.list_models(pretrained=True, include_tags=True):
        config, meta = mvlib.get_pretrained_cfg(name), enums.weights_of(name).meta
        if costs := costs_of(config):
            assert meta["num_params"] == (config.num_params or costs["params"]), name
            assert meta["_ops"] == (config.gmacs or costs["gmacs"]), name
            count += 1
    assert count > 1000


def test_models_that_torchvision_lacks_have_an_enum():
    enum = mvlib.models.Vit_Base_Patch16_Clip_224_Weights
    assert enum.DEFAULT.name == registry.get_arch_tags("vit_base_patch16_clip_224")[0].upper()
    assert enum.__name__ == "Vit_Base_Patch16_Clip_224_Weights" and "OPENAI" in enum.__members__
    assert mvlib.get_model_weights("vit_base_patch16_clip_224") is enum


def test_an_architecture_with_two_names_has_one_enum():
    assert mvlib.models.Swin_Tiny_Patch4_Window7_224_Weights is mvlib.models.Swin_T_Weights
    assert mvlib.models.Swin_T_Weights.MS_IN22K.value.config.name == "swin_tiny_patch4_window7_224.ms_in22k"


def test_every_model_with_weights_has_an_enum_under_a_name_of_its_own():
    names = {}
    for architecture in registry.list_models(task="classification"):
        if registry.get_arch_tags(architecture):
            enum = enums.weights_enum(architecture)
            assert names.setdefault(enum.__name__, enum) is enum
            assert len(enum) == len(registry.get_arch_tags(architecture)), architecture
            assert getattr(mvlib.models, enum.__name__) is enum
            assert enum.DEFAULT in enum
    assert set(names) <= set(enums.enum_names("classification")) <= set(dir(mvlib.models))


def test_names_are_exact():
    with pytest.raises(AttributeError, match="no Enum of weights 'Resnet50_Weight_Weights'"):
        getattr(mvlib.models, "Resnet50_Weight_Weights")  # noqa: B009
    with pytest.raises(AttributeError, match=r"no Enum of weights 'resnet50_Weights'; did you mean 'ResNet50_Weights'"):
        getattr(mvlib.models, "resnet50_Weights")  # noqa: B009


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
@pytest.mark.parametrize("name", ["ResNet50_Weights.IMAGENET1K_V2", "ResNet50_QuantizedWeights.DEFAULT",
                                  "Vit_Base_Patch16_Clip_224_Weights.OPENAI"])
def test_copies_are_the_member_itself(copied, name):
    weights = mvlib.get_weight(name)
    assert copied(weights) is weights
    assert copied([weights, {"a": weights}]) == [weights, {"a": weights}]


def test_members_compare_hash_and_print():
    first, second = mvlib.models.ResNet50_Weights.IMAGENET1K_V1, mvlib.models.ResNet50_Weights.IMAGENET1K_V2
    assert first != second and len({first, second, mvlib.models.ResNet50_Weights.DEFAULT}) == 2
    assert repr(second) == "ResNet50_Weights.IMAGENET1K_V2"
    assert first.value == copy.copy(first.value) and first.value != second.value


def test_hand_written_enums_work():
    made = mvlib.Weights(url="https://example.com/w.pth", transforms=mvlib.models.ResNet18_Weights.DEFAULT.transforms,
                         meta={"categories": ["a", "b"]})

    class Mine_Weights(mvlib.WeightsEnum):
        V1 = made
        DEFAULT = V1

    assert Mine_Weights.DEFAULT is Mine_Weights.V1 and Mine_Weights.V1.meta["categories"] == ["a", "b"]
    assert copy.deepcopy(made) == made and made != mvlib.models.ResNet18_Weights.DEFAULT.value
    assert Mine_Weights.V1.url == "https://example.com/w.pth"


@pytest.mark.parametrize(("name", "error", "message"), [
    ("ResNet50_Weights", ValueError, "invalid weight name 'ResNet50_Weights'; it has the form"),
    ("a.b.c", ValueError, "invalid weight name 'a.b.c'"),
    ("ResNet51_Weights.DEFAULT", ValueError,
     "no model has weights called 'ResNet51_Weights'; did you mean 'Resnet51q_Weights', 'ResNet18_Weights' "
     "or 'ResNet50_"),
    ("ResNet50_Weights.IMAGENET1K_V3", KeyError, "ResNet50_Weights has no weights 'IMAGENET1K_V3'; did you mean"),
])
def test_get_weight_says_what_is_wrong(name, error, message):
    with pytest.raises(error, match=message):
        mvlib.get_weight(name)


def test_verify():
    enum = mvlib.models.ResNet50_Weights
    assert enum.verify(None) is None
    for name in ("IMAGENET1K_V2", "DEFAULT", "ResNet50_Weights.IMAGENET1K_V2", enum.IMAGENET1K_V2,
                 THEIRS.ResNet50_Weights.IMAGENET1K_V2):
        assert enum.verify(name) is enum.IMAGENET1K_V2
    with pytest.raises(TypeError, match=r"expected ResNet50_Weights but received ResNet18_Weights\.IMAGENET1K_V1"):
        enum.verify(mvlib.models.ResNet18_Weights.DEFAULT)
    with pytest.raises(TypeError, match=r"expected ResNet50_Weights but received ResNet18_Weights\.IMAGENET1K_V1"):
        enum.verify("ResNet18_Weights.IMAGENET1K_V1")
    with pytest.raises(TypeError, match="expected ResNet50_Weights but received ResNet18_Weights"):
        enum.verify(THEIRS.ResNet18_Weights.DEFAULT)
    with pytest.raises(UnknownNameError, match="ResNet50_Weights has no weights 'IMAGENET1K'; did you mean"):
        enum.verify("IMAGENET1K")
    with pytest.raises(KeyError, match=r"has no weights '/tmp/mine.pth'; a file is loaded by mvlib.load_checkpoint"):
        enum.verify("/tmp/mine.pth")


def test_the_prototypes_spelling():
    enum = mvlib.models.ResNet50_Weights
    for ask, member in ((lambda: enum.ImageNet1K_V1, enum.IMAGENET1K_V1), (lambda: enum.default, enum.DEFAULT),
                        (lambda: mvlib.get_weight("ResNet50_Weights.default"), enum.DEFAULT),
                        (lambda: enum.verify("ImageNet1K_V2"), enum.IMAGENET1K_V2),
                        (lambda: mvlib.models.ViT_B_16_Weights.ImageNet1K_SWAG_E2E_V1,
                         mvlib.models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1)):
        with pytest.warns(DeprecationWarning, match=r"prototype spelt it; write \w+_Weights\.[A-Z]") as caught:
            assert ask() is member
        assert caught[0].filename == __file__
    meta = enum.DEFAULT.meta
    with pytest.warns(DeprecationWarning, match="meta\\['size'\\] is of torchvision's prototype"):
        assert meta["size"] == (224, 224)
    assert "size" not in meta and meta == copy.deepcopy(meta) == pickle.loads(pickle.dumps(meta)) == dict(meta)
    with pytest.raises(KeyError, match="colour"):
        meta["colour"]
    with pytest.raises(AttributeError, match="ResNet50_Weights has no weights 'ImageNet1K_V7'; did you mean"):
        enum.ImageNet1K_V7  # noqa: B018


def test_reading_an_enum_imports_no_torch():
    code = """if True:
        import sys, mvlib
        from mvlib.models import ResNet50_Weights, resnet50
        weights = mvlib.get_weight("ResNet50_Weights.DEFAULT")
        assert weights.meta["categories"][281] == "tabby" and weights.url and weights.transforms
        assert mvlib.get_model_weights(resnet50) is ResNet50_Weights
        mvlib.models.list_models(include="res*"), dir(mvlib.models)
        sys.exit("torch" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_user_registered_model_has_builder_and_enum(fresh_registry):
    @mvlib.register_model(weights={"mine": {"sources": ["file:/nowhere.safetensors"], "label_names": ["a", "b"],
                                            "num_classes": 2}})
    def house_net(**kwargs):
        raise NotImplementedError

    assert list(mvlib.models.House_Net_Weights) == [mvlib.models.House_Net_Weights.MINE]
    assert mvlib.models.House_Net_Weights.DEFAULT.meta["categories"] == ["a", "b"]
    assert "house_net" in mvlib.models.list_models() and mvlib.models.house_net.__name__ == "house_net"
