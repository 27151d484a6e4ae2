"""Classes of a data set and of a model are compared by name."""

import pickle

import pytest

from mvlib.data import Relabel, class_names, match_classes
from mvlib.errors import ConfigError

IMAGENET = class_names("imagenet-1k")


@pytest.mark.parametrize(("classes", "names", "expected"), [
    (["cat", "dog"], [["cat", "dog"]], None),
    (["cat", "dog"], [["dog", "cat"]], [1, 0]),
    (["a", "b", "c"], [["c", "a", "b"]], [1, 2, 0]),
    (["tiger_cat", "Egyptian cat"], [["Tiger cat", "egyptian_cat"]], None),
    (["katze", "hund"], [["n02", "n01"], ["hund", "katze"]], [1, 0]),  # descriptions name them, too
    (["0", "1"], [["cat", "dog"]], None),
    (["3", "5"], [["5", "3"]], [1, 0]),
    (["cat"], [], None),
    (None, [["cat", "dog"]], None),
])
def test_same_names_are_found_in_any_order(classes, names, expected):
    assert match_classes(classes, names) == expected


@pytest.mark.parametrize("classes", [["cow", "dog"], ["1", "2"], ["n01440764", "n01443537"]])
def test_other_names_are_an_error_that_lists_both(classes):
    with pytest.raises(ConfigError) as raised:
        match_classes(classes, [["cat", "dog"]])
    assert str(raised.value).startswith("the model's classes are not the data set's: only the model has 'cat'")
    assert f"only the data set has '{classes[0]}'" in str(raised.value)


def test_public_label_sets_are_known_by_numbers_and_by_most_of_their_names():
    synsets = [f"n{number:08d}" for number in range(1_000)]
    hub = [f"{name}, and another name" for name in IMAGENET[:990]] + ["x"] * 10  # as lists of synonyms have them
    for classes in (synsets, hub, [str(number) for number in range(1000)]):
        assert match_classes(classes, [IMAGENET], "imagenet-1k") is None
    assert match_classes(IMAGENET[::-1], [IMAGENET], "imagenet-1k") == list(range(999, -1, -1))
    for classes in (synsets[::-1], [f"class {number}" for number in range(1000)]):
        with pytest.raises(ConfigError, match="the model's classes are not the data set's: only the model has 'tench'"):
            match_classes(classes, [IMAGENET], "imagenet-1k")


def test_labels_become_the_model_s():
    relabel = pickle.loads(pickle.dumps(Relabel([2, 0, 1])))
    assert [relabel(label) for label in (0, 1, 2, -1)] == [2, 0, 1, -1]
    assert relabel([0, 2]) == [2, 1]
