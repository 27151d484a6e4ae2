"""Names of classes, labels that are vectors, and the labels of ReaL: timm's answers."""

from types import SimpleNamespace

import pytest
import timm.data
import torch

from mvlib import ConfigError
from mvlib.data import (
    CustomDatasetInfo,
    DatasetInfoLabelMapper,
    ImageNetInfo,
    MultiLabelTarget,
    RealLabelsImagenet,
    infer_imagenet_subset,
)


@pytest.mark.parametrize("subset", ["imagenet-1k", "ImageNet_12k", "imagenet22k", "imagenet-21k", "imagenet 21k goog",
                                    "imagenet-21k-miil", "imagenet-22k-ms"])
def test_imagenets_classes_are_timms(subset):
    ours, theirs = ImageNetInfo(subset), timm.data.ImageNetInfo(subset)
    assert ours.num_classes() == theirs.num_classes() and ours.label_names() == theirs.label_names()
    assert ours.label_descriptions() == theirs.label_descriptions()
    assert ours.label_descriptions(detailed=True, as_dict=True) == theirs.label_descriptions(True, True)
    assert ours.index_to_description(3, detailed=True) == theirs.index_to_description(3, detailed=True)
    last = ours.num_classes() - 1
    assert ours.has_label(last) and not ours.has_label(last + 1) and not ours.has_label(-1)


def test_a_subset_that_does_not_exist():
    with pytest.raises(ConfigError, match="'imagenet-2k'; did you mean 'imagenet-12k', 'imagenet-22k' or"):
        ImageNetInfo("imagenet-2k")
    with pytest.raises(IndexError, match="label 1000 is none of 1000 classes"):
        ImageNetInfo().index_to_label_name(1000)


@pytest.mark.parametrize("count", [10, 1000, 11221, 11821, 21841, 21842, 21843, None, 0])
def test_subsets_are_inferred_as_timm_does(count):
    for given in ({"num_classes": count}, SimpleNamespace(num_classes=count),
                  SimpleNamespace(num_classes=0, pretrained_cfg={"num_classes": count})):
        assert infer_imagenet_subset(given) == timm.data.infer_imagenet_subset(given)


NAMES = [["a", "b"], ("a", "b", "c"), {"4": "a", 0: "b"}]


@pytest.mark.parametrize("names", NAMES, ids=str)
@pytest.mark.parametrize("descriptions", [None, {"a": "an A", "b": "a B", "c": "a C"}])
def test_names_that_are_given_are_told_as_timm_tells_them(names, descriptions):
    ours, theirs = CustomDatasetInfo(names, descriptions), timm.data.CustomDatasetInfo(names, descriptions)
    for method in ("num_classes", "label_names", "label_indices", "label_descriptions"):
        assert getattr(ours, method)() == getattr(theirs, method)()
    for kind in ("name", "description", "detail"):
        mappers = DatasetInfoLabelMapper(ours, kind), timm.data.DatasetInfoLabelMapper(theirs, kind)
        assert [mappers[0](index) for index in range(6)] == [mappers[1](index) for index in range(6)]
        for count in (0, 2, 9):
            assert mappers[0].coverage(count) == mappers[1].coverage(count)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (([],), ConfigError, "neither a list of names nor a dict"), (("ab",), ConfigError, "neither a list of names"),
    (({"x": "a"},), ConfigError, "label 'x' is not a number"), (({-1: "a"},), ConfigError, "label -1 is below 0"),
    (({"1": "a", 1: "b"},), ConfigError, "label 1 stands twice"), (([3],), TypeError, "the name of label 0 is 3"),
    ((["a"], ["text"]), TypeError, "label_descriptions are list, not a dict"),
    ((["a", "b"], {"a": "text"}), ConfigError, "label_descriptions say nothing of b"),
])
def test_names_that_are_none(arguments, error, message):
    with pytest.raises(error, match=message):
        CustomDatasetInfo(*arguments)
    with pytest.raises((ValueError, TypeError)):
        timm.data.CustomDatasetInfo(*arguments)


def test_what_is_shown_of_labels():
    info = CustomDatasetInfo(["a"])
    with pytest.raises(ConfigError, match="label_type 'text' is none of name, description, detail"):
        DatasetInfoLabelMapper(info, "text")
    with pytest.raises(ConfigError, match="num_classes -1 is below 0"):
        DatasetInfoLabelMapper(info).coverage(-1)
    with pytest.raises(KeyError):
        DatasetInfoLabelMapper(info, fallback_format=None)(3)


@pytest.mark.parametrize("target", [[], [3], [0, 2, 2], torch.tensor([1, 4])], ids=str)
def test_labels_become_vectors(target):
    assert torch.equal(MultiLabelTarget(5)(target), timm.data.MultiLabelTarget(5)(target))


@pytest.mark.parametrize("target", [[0, 1, 1], [0.5, 0.0, 1.0], [True, False, True]], ids=str)
def test_vectors_stay_vectors(target):
    found = MultiLabelTarget(3, dense=True)(target)
    assert found.dtype == torch.float32 and torch.equal(found, timm.data.MultiLabelTarget(3, dense=True)(target))


@pytest.mark.parametrize(("dense", "target", "message"), [
    (False, 1, "are no list of numbers"), (False, [0.5], "are not numbers of classes; dense=True"),
    (False, [True], "are not numbers of classes"), (False, [3], "are not all among 3 classes"),
    (False, [-1], "are not all among 3 classes"), (True, [0, 1], "are not 3 values from 0 to 1"),
    (True, [0, 1, 2], "are not 3 values"), (True, [0, 1, float("nan")], "are not 3 values"),
])
def test_labels_that_are_none(dense, target, message):
    with pytest.raises(ConfigError, match=message):
        MultiLabelTarget(3, dense)(target)
    with pytest.raises(ValueError):
        timm.data.MultiLabelTarget(3, dense)(target)


def test_a_vector_has_classes():
    with pytest.raises(ConfigError, match="num_classes 0 is not a number of classes"):
        MultiLabelTarget(0)


def test_real_labels_are_timms(tmp_path):
    names = [f"n01/ILSVRC2012_val_{number:08}.JPEG" for number in range(50000, 0, -1)]
    ours, theirs = RealLabelsImagenet(names), timm.data.RealLabelsImagenet(names)
    assert ours.real_labels == theirs.real_labels
    labels = [ours.real_labels[name[4:]] for name in names[:300]]
    scores = torch.rand(300, 1000, generator=torch.Generator().manual_seed(0))
    for row, found in zip(scores[::2], labels[::2]):
        row[found[:1]] += 0.999
    for part in scores.split(128):
        ours.add_result(part)
        theirs.add_result(part)
    assert ours.get_accuracy() == pytest.approx(theirs.get_accuracy()) and 30 < ours.get_accuracy(1) < 70
    (tmp_path / "real.json").write_text("[[1], []]")
    own = RealLabelsImagenet(["ILSVRC2012_val_00000001.JPEG", "x/ILSVRC2012_val_00000002.JPEG"],
                             tmp_path / "real.json", topk=(1,))
    own.add_result(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert own.get_accuracy(1) == 100
    with pytest.raises(ConfigError, match="3 file names for 50000 images with labels"):
        RealLabelsImagenet(names[:3])
