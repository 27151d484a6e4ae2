"""Readers and data sets: each kind of source, what it gives, and what it says of bad ones."""

import csv
import inspect
import io
import json
import os
import pickle
import random
import sys
import tarfile

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torch.utils.data import ConcatDataset, DataLoader

from mvlib.data.dataset import AugMixDataset, ImageDataset, IterableImageDataset
from mvlib.data.dataset_factory import create_dataset
from mvlib.data.readers import Sample, StreamReader, check_labels, check_same_classes
from mvlib.data.readers.base import Names
from mvlib.data.readers.class_map import load_class_map
from mvlib.data.readers.tar import index_tar
from mvlib.data.readers.wds import expand_braces
from mvlib.data.transforms import MaybePILToTensor
from mvlib.errors import BadImageError, ConfigError, DataError, MissingPackageError, MvlibError
from mvlib.names import natural_key, natural_text

NESTED = {"b10": ["1.jpg", "10.jpg", "2.PNG"], "b2": ["1.jpeg"], "A/x": ["3.jpg"],
          "n01440764": ["n01_2.png", "n01_11.jpg"]}


def encoded(value=0, format="PNG", size=(6, 5), mode="RGB", **options):
    stream = io.BytesIO()
    color = value if mode in ("L", "I;16") else (value,) * len(mode)
    Image.new(mode, size, color).save(stream, format, **options)
    return stream.getvalue()


def make_folder(root, classes=NESTED):
    value = 0
    for name, files in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for file in files:
            value += 1
            (root / name / file).write_bytes(encoded(value))  # PNG whatever the name says: PIL looks at the content
    return root


def make_tar(path, files):
    """A tar of {name: content}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def images(count, folder="n{}/", classes=2, first=0):
    return {f"{folder.format(i % classes)}{i}.png": encoded(i) for i in range(first, first + count)}


def value_of(sample):
    """What `encoded` was called with."""
    return sample.getpixel((0, 0))[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# image folder


def test_folder_is_numbered_as_timm_does(tmp_path):
    make_folder(tmp_path)
    dataset, theirs = create_dataset("", tmp_path), ReaderImageFolder(str(tmp_path))
    assert dataset.class_to_idx == theirs.class_to_idx == {"b2": 0, "b10": 1, "n01440764": 2, "x": 3}
    ours = [(str(tmp_path / name), int(label)) for name, label in zip(dataset.filenames(), dataset.targets())]
    assert ours == theirs.samples
    assert dataset.filenames() == theirs.filenames()
    assert dataset.classes == ["b2", "b10", "n01440764", "x"]
    assert dataset.filename(0, basename=True) == "3.jpg"
    assert dataset.filename(0, absolute=True) == str(tmp_path / "A/x/3.jpg")


def test_sample_is_image_and_label(tmp_path):
    dataset = create_dataset("", make_folder(tmp_path))
    image, label = dataset[1]
    assert isinstance(image, Image.Image) and image.mode == "RGB" and type(label) is int and label == 0
    image, label = dataset[2]
    dataset.transform, dataset.target_transform = value_of, lambda label: label * 10
    assert dataset[2] == (value_of(image), 10)
    assert dataset.load(1)[0].size == (6, 5)
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_transform_that_reads_files_gets_the_file(tmp_path):
    class Transform:
        def from_file(self, source):
            return "read", source

    dataset = create_dataset("", make_folder(tmp_path), transform=Transform())
    assert dataset[0][0] == ("read", str(tmp_path / "A/x/3.jpg"))


def test_hidden_files_are_left_out(tmp_path):
    make_folder(tmp_path, {"a": ["1.png"], ".ipynb_checkpoints": ["1.png"]})
    (tmp_path / "a" / "._1.png").write_bytes(b"\0")
    assert create_dataset("", tmp_path).filenames() == ["a/1.png"]


def test_links_are_followed_but_not_round_and_round(tmp_path):
    make_folder(tmp_path / "data", {"a": ["1.png"]})
    make_folder(tmp_path / "elsewhere", {"b": ["2.png"]})
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (tmp_path / "data" / "a" / "again").symlink_to(tmp_path / "data")
    assert create_dataset("", tmp_path / "data").filenames() == ["a/1.png", "b/2.png"]


@pytest.mark.parametrize("folders, split, found", [
    (["train", "val"], "train", "train"), (["train", "val"], "training", "train"),
    (["train", "val"], "validation", "val"), (["train", "valid"], "eval", "valid"),
    (["train", "val", "test"], "test", "test"), (["training", "evaluation"], "train", "training"),
    (["train", "val"], "train[:10%]", "train"),
])
def test_search_of_splits_is_timms(tmp_path, folders, split, found):
    for name in folders:
        make_folder(tmp_path / name)
    dataset = create_dataset("", str(tmp_path), split=split)
    assert dataset.reader.root == str(tmp_path / found)
    assert timm.data.create_dataset("", str(tmp_path), split=split).reader.root == str(tmp_path / found)


def test_two_splits_of_one_undivided_folder_are_noticed(tmp_path, caplog):
    make_folder(tmp_path / "all")
    for split in ("train", "train", "train[:50%]", "validation"):
        assert not caplog.records
        create_dataset("", str(tmp_path / "all"), split=split)
    assert f"{tmp_path / 'all'} has no folders for splits: 'validation' is the same images as 'train'" in caplog.text


def test_missing_split_is_not_replaced_by_all_of_them(tmp_path):
    make_folder(tmp_path / "train")
    with pytest.raises(DataError, match="has no folder for the split 'validation'; there is train"):
        create_dataset("", tmp_path, split="validation")
    assert len(create_dataset("", tmp_path, split="validation", search_split=False)) == 7


def test_a_class_may_be_called_train(tmp_path):
    make_folder(tmp_path, {"train": ["1.png"], "car": ["2.png"]})
    assert create_dataset("", tmp_path, split="validation").classes == ["car", "train"]


def test_names_of_the_folder_reader(tmp_path):
    make_folder(tmp_path)
    for name in ("", "folder", "image_folder", "ImageFolder", str(tmp_path)):
        assert len(create_dataset(name, None if name == str(tmp_path) else tmp_path)) == 7


@pytest.mark.parametrize("name, root, error, text", [
    ("", None, ConfigError, "data set '' needs a root"),
    ("", "nowhere", DataError, "nowhere does not exist"),
    ("hdfs/food", "x", ConfigError, r"'hdfs/' is none of torch/, hfds/, .*; did you mean 'hfds'"),
    ("foldr", None, ConfigError, "'foldr' is neither a file or folder, nor a known name; did you mean 'folder'"),
    ("torch/cifar11", "x", ConfigError, "'torch/cifar11' is not one of torchvision's data sets .*'cifar10'"),
])
def test_unknown_names(name, root, error, text):
    with pytest.raises(error, match=text):
        create_dataset(name, root)


def test_unknown_argument(tmp_path):
    with pytest.raises(ConfigError, match="does not take the argument 'clas_map'.*did you mean 'class_map'"):
        create_dataset("", make_folder(tmp_path), clas_map={})


def test_empty_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=rf"{tmp_path} has no images: no file in it or its folders ends in .*\.jpg"):
        create_dataset("", tmp_path)


def test_class_without_images_is_named_and_keeps_its_label(tmp_path, caplog):
    make_folder(tmp_path, {"a": ["1.png"], "b": [], "c": ["2.png"]})
    dataset = create_dataset("", tmp_path)
    assert dataset.classes == ["a", "b", "c"] and list(dataset.targets()) == [0, 2]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: no images of 'b'; labels are numbered as if there were"]


def test_images_beside_class_folders_are_left_out(tmp_path, caplog):
    make_folder(tmp_path, {"a": ["1.png"], "": ["preview.png"]})
    assert create_dataset("", tmp_path).filenames() == ["a/1.png"]
    assert "left out 1 images that lie in no class folder, such as preview.png" in caplog.text


def test_images_without_classes(tmp_path):
    make_folder(tmp_path, {"": ["1.png", "2.png"]})
    dataset = create_dataset("", tmp_path)
    assert dataset.classes is None and dataset[0][1] == -1
    with pytest.raises(DataError, match="has no class folders: its images lie in it directly .first: 1.png."):
        create_dataset("", tmp_path, is_training=True)
    with pytest.raises(DataError, match="sample 1.png has no label"):
        check_labels(dataset, 10)


def test_input_key_names_extensions(tmp_path):
    make_folder(tmp_path)
    assert create_dataset("", tmp_path, input_key="png;.jpeg").filenames() == \
        ["b2/1.jpeg", "b10/2.PNG", "n01440764/n01_2.png"]


def test_unreadable_image_is_named(tmp_path):
    make_folder(tmp_path, {"a": ["1.png"]})
    (tmp_path / "a" / "1.png").write_bytes(b"no image")
    dataset = create_dataset("", tmp_path)
    with pytest.raises(BadImageError, match=rf"^{tmp_path}/a/1.png: not an image"):
        dataset[0]
    (tmp_path / "a" / "1.png").unlink()
    with pytest.raises(BadImageError, match=r"a/1.png: No such file"):
        dataset.load(0)


# what is done with samples


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK"])
def test_image_modes_are_timms(tmp_path, mode):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(encoded(90, mode="RGBA"))
    ours = create_dataset("", tmp_path, input_img_mode=mode)[0][0]
    theirs = timm.data.create_dataset("", str(tmp_path), input_img_mode=mode)[0][0]
    assert ours.mode == mode and ours.tobytes() == theirs.tobytes()


def test_image_mode_of_the_file(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(encoded(90, mode="L"))
    assert create_dataset("", tmp_path, input_img_mode="")[0][0].mode == "L"


def test_grey_of_16_bits_is_scaled(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(encoded(257 * 100, mode="I;16"))
    assert create_dataset("", tmp_path, input_img_mode="L")[0][0].getpixel((0, 0)) == 100


def test_load_bytes(tmp_path):
    dataset = create_dataset("", make_folder(tmp_path / "f"), load_bytes=True)
    assert dataset[0][0] == (tmp_path / "f" / dataset.filename(0)).read_bytes()
    tar = create_dataset("", make_tar(tmp_path / "a.tar", images(2)), load_bytes=True, transform=len)
    assert tar[0][0] == len(encoded(0))
    (tmp_path / "f" / dataset.filename(0)).unlink()
    with pytest.raises(BadImageError, match=r"3.jpg: No such file"):
        dataset[0]


def test_augmix_gives_versions(tmp_path):
    dataset = AugMixDataset(create_dataset("", make_folder(tmp_path)), num_splits=3)
    dataset.transform = (value_of, lambda value: value + 100, lambda value: value / 2)
    value = value_of(dataset.load(1)[0])
    assert dataset[1] == ((value / 2, (value + 100) / 2, (value + 100) / 2), 0)
    assert len(dataset) == 7 and dataset.classes[0] == "b2" and dataset.filename(0) == "A/x/3.jpg"
    assert not hasattr(dataset, "something")
    with pytest.raises(ConfigError, match="takes the three transforms of create_transform.*, got function"):
        dataset.transform = value_of
    with pytest.raises(ConfigError, match="num_splits=1"):
        AugMixDataset(dataset, 1)


def test_natural_order_as_text():
    draw = random.Random(0)
    texts = ["".join(draw.choices("aB/.0129_-٣ ", k=draw.randrange(9))) for _ in range(5000)]
    assert sorted(texts, key=natural_text) == sorted(texts, key=natural_key)


def test_many_names_are_one_block():
    names = Names(["a", "", "ä/1.jpg", os.fsdecode(b"\xff.jpg")])
    assert list(names) == ["a", "", "ä/1.jpg", os.fsdecode(b"\xff.jpg")] and names[-1] == names[3]
    assert names[1:3] == ["", "ä/1.jpg"]
    with pytest.raises(IndexError):
        names[4]


# class maps, and whether data sets fit


@pytest.mark.parametrize("file, content", [
    ("map.txt", "b\na\nc\n\n"), ("map.json", '["b", "a", "c"]'), ("map.json", '{"b": 0, "a": 1, "c": 2}'),
    ("map.yaml", "b: 0\na: 1\nc: 2\n"), ("map.yml", "- b\n- a\n- c\n"), ("map.csv", "b,0\na,1\nc,2\n"),
    ("map.csv", "name,label\nb,0\na,1\nc,2\n"), ("map.csv", "b\na\nc\n"),
])
def test_class_map_formats(tmp_path, file, content):
    make_folder(tmp_path, {"a": ["1.png"], "b": ["2.png"], "d": ["3.png"]})
    (tmp_path / file).write_text(content)
    dataset = create_dataset("", tmp_path, class_map=file)  # found in the root
    assert dataset.classes == ["b", "a", "c"] and list(dataset.targets()) == [1, 0]


def test_class_map_says_what_differs(tmp_path, caplog):
    make_folder(tmp_path, {"a": ["1.png"], "d": ["3.png", "4.png"]})
    create_dataset("", tmp_path, class_map={"a": 0, "b": 1})
    assert "left out 2 images of 'd', which the class map does not have" in caplog.text
    assert f"{tmp_path}: no images of 'b'" in caplog.text
    with pytest.raises(DataError, match="the class map has none of the classes 'a', 'd'; it has 'x'"):
        create_dataset("", tmp_path, class_map={"x": 0})


@pytest.mark.parametrize("file, content, text", [
    ("m.pkl", "", "a pickle can run code when it is read; write the same as a .json file"),
    ("m.xml", "", "format .xml is none of .txt, .json"),
    ("m.txt", None, "is not a file, here or in"),
    ("m.txt", "", "is empty"),
    ("m.txt", "a\nb\na", "class 'a' is named twice"),
    ("m.csv", "a,0\na,1", "class 'a' is named twice"),
    ("m.json", "{", "cannot be read"),
    ("m.yaml", "a: [", "cannot be read"),
    ("m.json", "3", "neither a list of names nor a mapping"),
    ("m.json", '{"a": "x"}', "the label of 'a' is 'x', not a number from 0 on"),
    ("m.json", '{"a": -1}', "the label of 'a' is -1"),
])
def test_bad_class_maps(tmp_path, file, content, text):
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(ConfigError, match=text):
        load_class_map(str(tmp_path / file))


def test_pickled_class_map_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    (tmp_path / "map.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ConfigError):
        load_class_map(tmp_path / "map.pkl")
    assert not (tmp_path / "trapped").exists()


def test_classes_of_train_and_validation(tmp_path):
    train = create_dataset("", make_folder(tmp_path / "t", {"a": ["1.png"], "b": ["1.png"], "c": ["1.png"]}))
    validation = create_dataset("", make_folder(tmp_path / "v", {"a": ["1.png"], "b": ["1.png"], "d": ["1.png"]}))
    check_same_classes(train, train)
    with pytest.raises(DataError, match=r"training has 3 classes and validation 3.*'c' only in training \(.*/t\); "
                                        r"'d' only in validation \(.*/v\)"):
        check_same_classes(train, validation)
    other = create_dataset("", tmp_path / "t", class_map={"a": 1, "b": 0, "c": 2})
    with pytest.raises(DataError, match="label 0 is 'a' in training and 'b' in validation"):
        check_same_classes(train, other)


def test_label_outside_num_classes(tmp_path):
    dataset = create_dataset("", make_folder(tmp_path))
    check_labels(dataset, 4)
    with pytest.raises(DataError, match=r"sample A/x/3.jpg has label 3, which is not in 0 .. 2, the labels of "
                                        r"num_classes=3 \(the data set has 4 classes\)"):
        check_labels(dataset, 3)


# tars


@pytest.mark.parametrize("files", [
    {"n1/1.png": 1, "n1/10.png": 2, "n1/2.png": 3, "n0/a.png": 4, "readme.md": 5},
    {"set/n1/1.png": 1, "set/n2/2.png": 2},
])
def test_tar_is_numbered_as_timm_does(tmp_path, files):
    path = make_tar(tmp_path / "train.tar", {name: encoded(value) for name, value in files.items()})
    dataset, theirs = create_dataset("", path), ReaderImageInTar(str(path))
    assert dataset.class_to_idx == theirs.class_name_to_idx
    assert dataset.filenames() == theirs.filenames() and list(dataset.targets()) == list(theirs.targets)
    assert [value_of(dataset[i][0]) for i in range(len(dataset))] == [files[name] for name in dataset.filenames()]


def test_folder_of_tars(tmp_path):
    make_tar(tmp_path / "n10.tar", images(2, ""))
    make_tar(tmp_path / "n2.tar", images(3, "", first=5))
    for name in ("", "tar"):
        dataset = create_dataset(name, tmp_path)
        assert dataset.classes == ["n2", "n10"] == list(ReaderImageInTar(str(tmp_path)).class_name_to_idx)
        assert dataset.filenames() == ["n2.tar/5.png", "n2.tar/6.png", "n2.tar/7.png", "n10.tar/0.png", "n10.tar/1.png"]
        assert [value_of(dataset[i][0]) for i in range(5)] == [5, 6, 7, 0, 1]


def test_tar_for_each_split(tmp_path):
    make_tar(tmp_path / "train.tar", images(4))
    make_tar(tmp_path / "val.tar", images(2))
    assert [len(create_dataset("", tmp_path, split=split)) for split in ("train", "validation")] == [4, 2]


def test_tars_in_a_tar(tmp_path):
    inner = {f"{name}.tar": make_tar(tmp_path / f"{name}.tar", images(2, "", first=first)).read_bytes()
             for name, first in (("n1", 0), ("n2", 7))}
    path = make_tar(tmp_path / "outer" / "all.tar", inner)
    dataset = create_dataset("", path)
    assert dataset.classes == list(ReaderImageInTar(str(path)).class_name_to_idx) == ["n1", "n2"]
    assert [(value_of(image), label) for image, label in map(dataset.__getitem__, range(4))] == \
        [(0, 0), (1, 0), (7, 1), (8, 1)]
    assert dataset.filename(3) == "n2.tar/8.png"


def test_unreadable_image_in_a_tar_is_named(tmp_path):
    dataset = create_dataset("", make_tar(tmp_path / "train.tar", {"n01/1.jpg": b"no image"}))
    with pytest.raises(BadImageError, match=r"^train.tar/n01/1.jpg: not an image"):
        dataset[0]


def test_tar_that_is_cut_off(tmp_path):
    path = make_tar(tmp_path / "train.tar", {f"n1/{i}.png": np.random.bytes(1000) for i in range(10)})
    whole = path.read_bytes()
    # Each file takes 512 bytes of header and 1024 of content.
    for files, rest in ((6, 600), (6, 100), (6, 512), (6, 0), (10, 0)):
        path.write_bytes(whole[:1536 * files + rest])
        with pytest.raises(DataError, match=rf"^{path} is cut off or damaged.*; {files} samples before that can be"):
            create_dataset("", path)
    path.write_bytes(whole[:1536 * 3] + b"\xff" * 512 + whole[1536 * 3 + 512:])
    with pytest.raises(DataError, match="is cut off or damaged at byte 4608; 3 samples"):
        create_dataset("", path)


def test_tar_in_a_tar_that_is_cut_off(tmp_path):
    inner = make_tar(tmp_path / "n1.tar", {f"{i}.png": bytes(1000) for i in range(4)}).read_bytes()[:1536 * 2 + 700]
    path = make_tar(tmp_path / "outer" / "all.tar", {"n1.tar": inner, "n2/1.png": encoded(1)})
    with pytest.raises(DataError, match=r"\(in it, n1.tar\) is cut off or damaged.*; 2 samples"):
        create_dataset("", path)


@pytest.mark.parametrize("name, content, text", [
    ("a.tar", b"", "is cut off or damaged .empty file.; 0 samples"),
    ("a.tar", b"no tar " * 300, "is cut off or damaged"),
    ("a.tar.gz", b"\x1f\x8b" + b"x" * 1000, "is compressed, and cannot be read in place: decompress it"),
])
def test_files_that_are_no_tars(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=text):
        create_dataset("", tmp_path / name)


def test_tars_without_images(tmp_path):
    with pytest.raises(DataError, match=r"has no images: no file in 1 tar\(s\) ends in"):
        create_dataset("", make_tar(tmp_path / "a.tar", {"n/1.txt": b"text"}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no .tar files"):
        create_dataset("tar", tmp_path / "empty")
    with pytest.raises(DataError, match="has no class folders"):
        create_dataset("", make_tar(tmp_path / "b.tar", {"1.png": encoded()}), is_training=True)


def test_index_of_a_tar_is_kept(tmp_path, monkeypatch):
    from mvlib.data.readers import tar

    monkeypatch.setattr(tar, "_CACHE_FROM", 2)
    path = make_tar(tmp_path / "a.tar", images(5))
    members = index_tar(path)
    cache, = (tmp_path / "cache" / "mvlib" / "tars").iterdir()
    stamp = cache.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(tar, "_scan", None)  # nothing is read again
        assert index_tar(path) == members
    for damage in (b"", b"damaged", cache.read_bytes()[:-40]):
        cache.write_bytes(damage)
        assert index_tar(path) == members
        assert tar._read_cache(cache, np.array([1, path.stat().st_size, path.stat().st_mtime_ns])) == members
    assert cache.stat().st_mtime_ns > stamp
    make_tar(path, images(7))
    assert len(index_tar(path)) == 7
    os.chmod(cache.parent, 0o500)
    monkeypatch.setattr(tar, "_write_cache", lambda *_: (_ for _ in ()).throw(PermissionError("read-only")))
    make_tar(path, images(9))
    assert len(index_tar(path)) == 9
    os.chmod(cache.parent, 0o700)


def test_tar_that_shrinks_while_it_is_used(tmp_path):
    dataset = create_dataset("", make_tar(tmp_path / "a.tar", images(3)))
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(BadImageError, match=r"^a.tar/n1/1.png: .* has changed: it ended at byte"):
        dataset[2]


# WebDataset


def make_shards(root, shards=2, each=3, label=lambda i: {"cls": str(i % 3).encode()}, pattern="train-{:04d}.tar"):
    for shard in range(shards):
        files = {}
        for i in range(shard * each, (shard + 1) * each):
            files |= {f"{i:06d}.jpg": encoded(i), **{f"{i:06d}.{key}": value for key, value in label(i).items()}}
        make_tar(root / pattern.format(shard), files)
    return root


@pytest.mark.parametrize("label, options", [
    (lambda i: {"cls": str(i % 3).encode()}, {}),
    (lambda i: {"cls": b"9", "json": json.dumps({"label": i % 3}).encode()}, {"target_key": "label"}),
    (lambda i: {"json": json.dumps({"label": i % 3}).encode()}, {}),
    (lambda i: {"json": json.dumps({"meta": {"id": i % 3}}).encode()}, {"target_key": "meta/id"}),
    (lambda i: {"cls": "cat dog owl".split()[i % 3].encode()}, {}),
    (lambda i: {"cls": str(i % 3 + 5).encode()}, {"class_map": {"5": 0, "6": 1, "7": 2}}),
])
def test_shards_are_read_in_place(tmp_path, label, options):
    dataset = create_dataset("wds/", make_shards(tmp_path, label=label), split="train", **options)
    assert isinstance(dataset, ImageDataset) and "webdataset" not in dataset.reader.__module__
    assert [(value_of(image), target) for image, target in map(dataset.__getitem__, range(6))] == \
        [(i, i % 3) for i in range(6)]
    assert dataset.filename(4) == "train-0001.tar/000004.jpg" and list(dataset.targets()) == [0, 1, 2] * 2


def test_shards_of_class_names(tmp_path):
    make_shards(tmp_path, label=lambda i: {"cls": "owl cat dog".split()[i % 3].encode()})
    assert create_dataset("wds/", tmp_path, split="train").classes == ["cat", "dog", "owl"]


@pytest.mark.parametrize("file", ["_info.json", "info.json", "_info.yaml", "info.yaml"])
def test_info_file_names_shards(tmp_path, file):
    make_shards(tmp_path, 3, pattern="x-{:02d}.tar", label=lambda i: {"json": json.dumps({"kind": i % 2}).encode()})
    splits = {"train": {"name": "train", "num_samples": 6, "filenames": ["x-00.tar", "x-01.tar"],
                        "shard_lengths": [3, 3], "alt_label": "kind"},
              "val": {"name": "val", "num_samples": 3, "filenames": ["x-02.tar"], "shard_lengths": [3],
                      "alt_label": "kind"}}
    (tmp_path / file).write_text(json.dumps({"splits": splits}))  # JSON is YAML
    assert len(create_dataset("wds/anything", tmp_path, split="train")) == 6
    validation = create_dataset("wds/", tmp_path, split="validation")
    assert [value_of(validation[i][0]) for i in range(3)] == [6, 7, 8] and list(validation.targets()) == [0, 1, 0]
    with pytest.raises(ConfigError, match="has no split 'test'; its info names train, val"):
        create_dataset("wds/", tmp_path, split="test")


def test_shard_lengths_are_compared(tmp_path, caplog):
    make_shards(tmp_path, 1)
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {"train": {
        "name": "train", "num_samples": 5, "filenames": ["train-0000.tar"], "shard_lengths": [5]}}}))
    create_dataset("wds/", tmp_path, split="train")
    assert "train-0000.tar has 3 samples, and 5 by its info file" in caplog.text


@pytest.mark.parametrize("split, count", [
    ("train", 6), ("training", 6), ("validation", 3), ("train-{0000..0001}.tar", 6), ("train-0001.tar|3", 3),
    ("train-0000.tar::val-0000.tar", 6), ("train-{0000,0001}.tar", 6),
])
def test_shards_by_name(tmp_path, split, count):
    make_shards(tmp_path)
    make_shards(tmp_path, 1, pattern="val-{:04d}.tar")
    assert len(create_dataset("wds/", tmp_path, split=split)) == count


def test_braces():
    assert expand_braces("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand_braces("{a,b}/{0..1}") == ["a/0", "a/1", "b/0", "b/1"]


@pytest.mark.parametrize("split, label, options, error, text", [
    ("test", None, {}, ConfigError, "has no shards of the split 'test', such as test-0000.tar; there is train-"),
    ("train-{0000..0005}.tar", None, {}, DataError, "4 of 6 shards are not there, the first: .*train-0002.tar"),
    ("train-0000.tar|many", None, {}, ConfigError, "behind '|' stands the number of samples, not 'many'"),
    ("train", lambda i: {} if i == 4 else {"cls": b"1"}, {}, DataError,
     "sample train-0001.tar/000004.jpg has no label"),
    ("train", lambda i: {"cls": b"1"}, {"target_key": "kind"}, DataError,
     "train-0000.tar/000000: the label field 'kind' is to stand in a .json file"),
    ("train", lambda i: {"json": b'{"a": 1}'}, {"target_key": "kind"}, DataError, "has no field 'kind'; its fields"),
    ("train", lambda i: {"json": b"{"}, {}, DataError, "train-0000.tar/000000.json cannot be read"),
    ("train", None, {"input_key": "webp"}, DataError, "2 shard.s. have no images in the fields webp"),
    ("train", lambda i: {"cls": b"-1"}, {}, DataError, "all labels are below 0"),
])
def test_bad_shards(tmp_path, split, label, options, error, text):
    make_shards(tmp_path, **({"label": label} if label else {}))
    with pytest.raises(error, match=text):
        create_dataset("wds/", tmp_path, split=split, **options)


def test_bad_roots_of_shards(tmp_path):
    with pytest.raises(DataError, match="has no shards: no .tar files, and none of _info.json"):
        create_dataset("wds/", tmp_path)
    (tmp_path / "_info.json").write_text("{")
    with pytest.raises(DataError, match="_info.json cannot be read"):
        create_dataset("wds/", tmp_path)
    with pytest.raises(DataError, match="is neither a folder nor a URL"):
        create_dataset("wds/", tmp_path / "nowhere")


def test_labels_below_zero_are_left_out(tmp_path):
    make_shards(tmp_path, label=lambda i: {"json": json.dumps({"label": -1 if i == 2 else i}).encode()})
    assert list(create_dataset("wds/", tmp_path, split="train").targets()) == [0, 1, 3, 4, 5]


def test_shard_that_is_cut_off(tmp_path):
    make_shards(tmp_path)
    path = tmp_path / "train-0001.tar"
    path.write_bytes(path.read_bytes()[:2500])
    with pytest.raises(DataError, match=rf"{path} is cut off or damaged.*; 1 samples before that can be read"):
        create_dataset("wds/", tmp_path, split="train")


def test_several_labels_a_sample(tmp_path):
    make_shards(tmp_path, 1, label=lambda i: {"json": json.dumps({"cat": i % 2, "dog": 1, "tags": [0, i]}).encode()})
    dataset = create_dataset("wds/", tmp_path, split="train", target_key="cat, dog")
    assert [label for _, label in map(dataset.__getitem__, range(3))] == [[1], [0, 1], [1]]
    assert dataset.classes == ["cat", "dog"]
    tags = create_dataset("wds/", tmp_path, split="train", target_key="tags", class_map={"0": 5, "1": 6})
    assert tags.targets() == [[5, 5], [5, 6], [5]]
    check_labels(tags, 7)
    with pytest.raises(DataError, match=r"sample train-0000.tar/000001.jpg has label \[5, 6\], which is not in 0 .. 5"):
        check_labels(tags, 6)


# torchvision


def test_fake_data_of_torchvision():
    dataset = create_dataset("torch/FakeData", split="train", size=7, image_size=(3, 8, 8), num_classes=3)
    image, label = dataset[6]
    assert len(dataset) == 7 and image.size == (8, 8) and type(label) is int and dataset.filename(6) == "FakeData/6"
    assert dataset.load(6)[1] == label and dataset.name == "torch/FakeData"
    with pytest.raises(IndexError):
        dataset[7]


def make_cifar10(root):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for file, value in [*((f"data_batch_{i}", i) for i in range(1, 6)), ("test_batch", 9)]:
        (folder / file).write_bytes(pickle.dumps({"data": np.full((2, 3072), value, np.uint8), "labels": [3, 5]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))


def test_train_argument_of_torchvision(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    make_cifar10(tmp_path)
    train = create_dataset("torch/cifar10", tmp_path, split="train")
    assert len(train) == 10 and value_of(train[0][0]) == 1 and train.classes[9] == "class 9"
    assert list(train.targets()) == [3, 5] * 5
    assert value_of(create_dataset("TORCH/CIFAR10", tmp_path, split="validation")[0][0]) == 9
    with pytest.raises(ConfigError, match="split 'trian' is none of train, validation and test; did you mean 'train'"):
        create_dataset("torch/cifar10", tmp_path, split="trian")


def test_split_argument_of_torchvision(tmp_path):
    from torchvision.datasets import Food101

    files = {"train": ["cat/1", "dog/2"], "test": ["dog/3"]}
    (tmp_path / "food-101" / "meta").mkdir(parents=True)
    for split, names in files.items():
        (tmp_path / "food-101" / "meta" / f"{split}.json").write_text(json.dumps(
            {kind: [name for name in names if name.startswith(kind)] for kind in ("cat", "dog")}))
        for name in names:
            (tmp_path / "food-101" / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "food-101" / "images" / f"{name}.jpg").write_bytes(encoded(int(name[-1])))
    assert len(create_dataset("torch/food101", tmp_path, split="train")) == 2
    dataset = create_dataset("torch/food101", tmp_path, split="validation")  # "test", the only other one
    assert dataset.filename(0) == "food-101/images/dog/3.jpg" and value_of(dataset[0][0]) == 3 and dataset[0][1] == 1
    (tmp_path / "food-101/images/dog/3.jpg").write_bytes(b"")
    takes_loader = "loader" in inspect.signature(Food101).parameters  # older torchvision reads images itself
    reason = "file is empty" if takes_loader else "cannot identify image file"
    with pytest.raises(BadImageError, match=rf"food-101/images/dog/3.jpg: {reason}"):
        dataset[0]
    with pytest.raises(ConfigError, match=r"torch/Food101 has no split 'extra': Unknown value 'extra'.*Valid values"):
        create_dataset("torch/food101", tmp_path, split="extra")


def test_image_folder_of_torchvision(tmp_path):
    make_folder(tmp_path / "train")
    dataset = create_dataset("torch/image_folder", tmp_path, split="train")
    theirs = timm.data.create_dataset("torch/image_folder", str(tmp_path), split="train")
    assert dataset.classes == theirs.classes and list(dataset.targets()) == theirs.targets
    assert [dataset.filename(i, absolute=True) for i in range(len(dataset))] == [path for path, _ in theirs.samples]
    assert dataset[3][0].tobytes() == theirs[3][0].tobytes()


@pytest.mark.parametrize("name, root, options, error, text", [
    ("torch/cifar10", None, {}, ConfigError, "torch/CIFAR10 needs a root"),
    ("torch/cifar10", "here", {}, DataError, "torch/CIFAR10, split 'train': Dataset not found or corrupted"),
    ("torch/fake_data", None, {"sise": 3}, ConfigError, "does not take the argument 'sise'.*'size'"),
    ("torch/fake_data", None, {"class_map": {"a": 0}}, ConfigError, "takes no class_map"),
])
def test_bad_torchvision_data(tmp_path, name, root, options, error, text):
    with pytest.raises(error, match=text):
        create_dataset(name, root and tmp_path / root, split="train", **options)


@pytest.mark.parametrize("name, split, expected", [
    ("INaturalist", "train", {"version": "2021_train", "target_type": "full"}),
    ("INaturalist", "kingdom_phylum/val", {"version": "2021_valid", "target_type": ["kingdom", "phylum"]}),
    ("QMNIST", "val", {"train": False}), ("QMNIST", "nist", {"what": "nist"}),
    ("EMNIST", "train", {"train": True, "split": "balanced"}),
    ("EMNIST", "letters/test", {"train": False, "split": "letters"}),
    ("Places365", "train", {"split": "train-standard"}), ("Places365", "validation", {"split": "val"}),
    ("OxfordIIITPet", "train", {"split": "trainval"}), ("OxfordIIITPet", "val", {"split": "test"}),
    ("ImageNet", "eval", {"split": "val"}), ("Omniglot", "train", {"background": True}), ("SUN397", "train", {}),
    ("KMNIST", "training", {"train": True}),
])
def test_splits_as_torchvision_takes_them(tmp_path, monkeypatch, name, split, expected):
    from torchvision import datasets

    made = getattr(datasets, name)
    valid = {"Places365": ("train-standard", "train-challenge", "val"), "OxfordIIITPet": ("trainval", "test"),
             "ImageNet": ("train", "val")}.get(name)

    class Recorder(made):
        def __init__(self, root, *, download=None, loader=None, **kwargs):
            if valid and kwargs["split"] not in valid:
                raise ValueError(f"Unknown value '{kwargs['split']}' for argument split. Valid values are {valid}.")
            self.given = kwargs

        def __len__(self):
            return 1

    parameters = __import__("mvlib.data.readers.torchvision_reader", fromlist=["_parameters"])._parameters
    monkeypatch.setattr("mvlib.data.readers.torchvision_reader._parameters", lambda _: parameters(made))
    monkeypatch.setattr(datasets, name, Recorder)
    monkeypatch.setattr("mvlib.data.readers.torchvision_reader._classes", lambda _: None)
    assert create_dataset(f"torch/{name.lower()}", tmp_path, split=split).reader.dataset.given == expected


def test_every_torchvision_name_exists():
    from torchvision import datasets

    from mvlib.data.readers.torchvision_reader import _NAMES

    assert all(hasattr(datasets, name) for name in _NAMES)


# manifests


def make_manifest(root, rows, file="data.csv", delimiter=","):
    make_folder(root, {"pictures": ["1.png", "2.png", "3.png", "4.png"]})
    with open(root / file, "w", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    return root / file


ROWS = [["path", "label"], ["pictures/3.png", "dog"], ["pictures/1.png", "cat"], ["pictures/2.png", "dog"]]


@pytest.mark.parametrize("file, delimiter", [("data.csv", ","), ("data.csv", ";"), ("data.tsv", "\t")])
def test_manifest(tmp_path, file, delimiter):
    path = make_manifest(tmp_path, ROWS, file, delimiter)
    for name, root in (("", path), (f"csv:{path}", None), (str(path), None), ("csv", path), (file, tmp_path)):
        dataset = create_dataset(name, root)
        assert dataset.classes == ["cat", "dog"] and list(dataset.targets()) == [1, 0, 1]
        assert value_of(dataset[0][0]) == 3 and dataset.filename(0) == "pictures/3.png"


@pytest.mark.parametrize("columns", [("file", "class"), ("Filename", "TARGET"), ("image", "Label")])
def test_columns_by_name(tmp_path, columns):
    path = make_manifest(tmp_path, [["extra", *columns], ["x", "pictures/2.png", 7],
                                    ["y", str(tmp_path / "pictures/1.png"), 0]])
    dataset = create_dataset("", path)
    assert list(dataset.targets()) == [7, 0] and dataset.classes is None and value_of(dataset[1][0]) == 1
    assert create_dataset("", path, class_map={"a": 0, "b": 1}).classes == ["a", "b"]


def test_columns_by_argument_and_split(tmp_path):
    path = make_manifest(tmp_path, [["where", "what", "split"], ["pictures/1.png", "b", "train"],
                                    ["pictures/2.png", "a", "val"], ["pictures/3.png", "c", "train"]])
    options = {"input_key": "where", "target_key": "what"}
    train = create_dataset("", path, split="train", **options)
    validation = create_dataset("", path, split="validation", **options)
    assert train.classes == validation.classes == ["a", "b", "c"]
    assert list(train.targets()) == [1, 2] and list(validation.targets()) == [0]
    with pytest.raises(ConfigError, match="has no rows of the split 'test'; its splits are train, val"):
        create_dataset("", path, split="test", **options)


def test_parquet_manifest(tmp_path):
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    make_folder(tmp_path, {"p": ["1.png", "2.png"]})
    parquet.write_table(arrow.table({"path": ["p/2.png", "p/1.png"], "label": [4, 1]}), tmp_path / "train.parquet")
    dataset = create_dataset("", tmp_path / "train.parquet")
    assert [(value_of(image), label) for image, label in map(dataset.__getitem__, range(2))] == [(2, 4), (1, 1)]
    assert len(create_dataset("csv", tmp_path, split="train", search_split=False)) == 2
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match="bad.parquet cannot be read"):
        create_dataset("", tmp_path / "bad.parquet")


@pytest.mark.parametrize("rows, options, error, text", [
    ([["a", "b"], [1, 2]], {}, ConfigError, "has no path column 'path', .*'image'; its columns are 'a', 'b'"),
    ([["path", "b"], [1, 2]], {}, ConfigError, "has no label column 'label', 'class', 'target'"),
    (ROWS, {"target_key": "labl"}, ConfigError, "has no label column 'labl'; did you mean 'label'"),
    ([["path", "label"]], {}, DataError, "has no rows"),
    ([["path", "label"], ["1.png", ""]], {}, DataError, r"row 1 has no label \(1.png\)"),
    ([["path", "label"], ["1.png", "a"], ["", "a"]], {}, DataError, "row 2 has no path"),
    (ROWS, {"class_map": {"owl": 0}}, DataError, "the class map has the class of none of 3 samples"),
    ([["path", "label"], ["1.png", -2], ["2.png", 1]], {}, DataError, "label -2 is not the number of a class"),
])
def test_bad_manifests(tmp_path, rows, options, error, text):
    with pytest.raises(error, match=text):
        create_dataset("", make_manifest(tmp_path, rows), **options)


def test_manifest_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.csv does not exist"):
        create_dataset(f"csv:{tmp_path}/nowhere.csv")
    with pytest.raises(DataError, match="has no manifest of the split 'train': none of train.csv"):
        create_dataset("csv", tmp_path, split="train")
    dataset = create_dataset("", make_manifest(tmp_path, [["path", "label"], ["gone.png", 1]]))
    with pytest.raises(BadImageError, match=r"gone.png: No such file"):
        dataset[0]


# Hugging Face datasets


@pytest.fixture
def hf(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True, raising=False)
    return datasets


def hf_table(datasets, count=6, names=("cat", "dog", "owl"), image="image", label="label", **more):
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=list(names)),
                                  **{key: datasets.Value("int64") for key in more}})
    rows = {image: [{"bytes": encoded(i), "path": f"{i}.png"} for i in range(count)],
            label: [i % len(names) for i in range(count)], **more}
    return datasets.Dataset.from_dict(rows, features=features)


def test_saved_hugging_face_dataset(tmp_path, hf):
    hf.DatasetDict(train=hf_table(hf), val=hf_table(hf, 3)).save_to_disk(tmp_path / "saved")
    dataset = create_dataset(f"hfds/{tmp_path / 'saved'}", split="train")
    assert [(value_of(image), label) for image, label in map(dataset.__getitem__, range(6))] == \
        [(i, i % 3) for i in range(6)]
    assert dataset.classes == ["cat", "dog", "owl"] and list(dataset.targets()) == [0, 1, 2] * 2
    assert dataset.filename(4) == "4.png"
    assert len(create_dataset("hfds/", tmp_path / "saved", split="validation")) == 3
    with pytest.raises(ConfigError, match="has no split 'test'; its splits are train, val"):
        create_dataset("hfds/", tmp_path / "saved", split="test")
    with pytest.raises(IndexError):
        dataset[6]


def test_hugging_face_folders(tmp_path, hf):
    make_folder(tmp_path / "data" / "train", {"cat": ["1.png"], "dog": ["2.png", "3.png"]})
    make_folder(tmp_path / "data" / "validation", {"cat": ["1.png"], "dog": ["2.png"]})
    dataset = create_dataset(f"hfds/{tmp_path / 'data'}", tmp_path / "hub", split="train")
    assert dataset.classes == ["cat", "dog"] and sorted(dataset.targets()) == [0, 1, 1]
    assert isinstance(dataset[0][0], Image.Image) and dataset.filename(0).endswith("cat/1.png")
    assert len(create_dataset(f"hfds/{tmp_path / 'data'}", tmp_path / "hub", split="val")) == 2
    (tmp_path / "data" / "train" / "cat" / "1.png").write_bytes(b"no image")
    with pytest.raises(BadImageError, match=r"cat/1.png: not an image"):
        dataset[0]


def test_hugging_face_columns(tmp_path, hf):
    hf_table(hf, image="img", label="kind", weight=[5] * 6).save_to_disk(tmp_path / "saved")
    dataset = create_dataset("hfds/", tmp_path / "saved", additional_features=["weight"])
    assert dataset[1][1:] == (1, 5) and dataset.classes == ["cat", "dog", "owl"]
    again = create_dataset("hfds/", tmp_path / "saved", input_key="img", target_key="weight")
    assert list(again.targets()) == [5] * 6 and again.classes is None
    for options, text in (({"input_key": "imgs"}, "has no image column 'imgs'; did you mean 'img'.*its columns are"),
                          ({"target_key": "kinds"}, "has no label column 'kinds'; did you mean 'kind'"),
                          ({"additional_features": "size"}, "has no additional column 'size'")):
        with pytest.raises(ConfigError, match=text):
            create_dataset("hfds/", tmp_path / "saved", **options)


def test_hugging_face_class_map(tmp_path, hf, caplog):
    hf_table(hf).save_to_disk(tmp_path / "saved")
    dataset = create_dataset("hfds/", tmp_path / "saved", class_map={"dog": 0, "cat": 1})
    assert dataset.classes == ["dog", "cat"] and list(dataset.targets()) == [1, 0, 1, 0] and dataset[3][1] == 0
    assert value_of(dataset[2][0]) == 3 and "left out 2 samples" in caplog.text
    with pytest.raises(DataError, match="the class map has the class of none"):
        create_dataset("hfds/", tmp_path / "saved", class_map={"lynx": 0})


def test_hugging_face_texts_and_lists(tmp_path, hf):
    pictures = [{"bytes": encoded(i), "path": None} for i in range(3)]
    features = hf.Features({"image": hf.Image(), "label": hf.Value("string"),
                            "tags": hf.Sequence(hf.ClassLabel(names=["x", "y"]))})
    data = hf.Dataset.from_dict({"image": pictures, "label": ["b10", "b2", "b10"], "tags": [[0], [], [0, 1]]}, features)
    data.save_to_disk(tmp_path / "saved")
    dataset = create_dataset("hfds/", tmp_path / "saved")
    assert dataset.classes == ["b2", "b10"] and list(dataset.targets()) == [1, 0, 1] and dataset.filename(2) == "2"
    tags = create_dataset("hfds/", tmp_path / "saved", target_key="tags")
    assert tags.classes == ["x", "y"] and list(tags.targets()) == [[0], [], [0, 1]] and tags[2][1] == [0, 1]


def test_hugging_face_data_that_is_not_there(tmp_path, hf):
    with pytest.raises(DataError, match="'hfds/user/nothing' cannot be loaded: "):
        create_dataset("hfds/user/nothing", tmp_path)
    with pytest.raises(ConfigError, match="'hfds/' needs a name"):
        create_dataset("hfds/")
    if int(hf.__version__.split(".")[0]) >= 4:
        with pytest.raises(ConfigError, match="runs no code of a data set"):
            create_dataset("hfds/user/nothing", trust_remote_code=True)


@pytest.fixture
def hf_stream(tmp_path, hf):
    (tmp_path / "parquet").mkdir()
    for number in range(3):
        hf_table(hf, 7).to_parquet(tmp_path / "parquet" / f"train-{number}.parquet")
    return f"hfids/{tmp_path / 'parquet'}"


def test_hugging_face_stream(tmp_path, hf_stream):
    dataset = create_dataset(hf_stream, tmp_path / "hub", split="train", num_samples=21)
    assert isinstance(dataset, IterableImageDataset) and len(dataset) == 21
    assert dataset.classes == ["cat", "dog", "owl"]
    assert [(value_of(image), label) for image, label in dataset] == [(i % 7, i % 7 % 3) for i in range(21)]
    stored = create_dataset(hf_stream, tmp_path / "hub", split="train", download=True)
    assert len(stored) == 21 and sorted(map(value_of, (image for image, _ in stored))) == sorted(list(range(7)) * 3)


def test_hugging_face_stream_in_workers(tmp_path, hf_stream):
    def read(workers, epoch=0):
        dataset = create_dataset(hf_stream, tmp_path / "hub", split="train", is_training=True, num_samples=30,
                                 batch_size=4, transform=number_of, shuffle_size=8)
        dataset.set_epoch(epoch)
        loader = DataLoader(dataset, batch_size=4, num_workers=workers)
        return torch.cat([batch for batch, _ in loader]).tolist()

    assert len(read(0)) == 30 and read(0) == read(1) == read(2) != read(0, epoch=1)


def test_length_of_a_stream_may_be_unknown(tmp_path, hf_stream):
    dataset = create_dataset(hf_stream, tmp_path / "hub", split="train")
    with pytest.raises(TypeError, match="the number of samples of hfids/.* is not known; num_samples=... says it"):
        len(dataset)
    with pytest.raises(ConfigError, match="is a stream"):
        dataset.filename(0)


# streams


class Numbers(StreamReader):
    """A stream of `count` images, whose values are their numbers."""

    name = "numbers"

    def __init__(self, count=23):
        self.num_samples = count

    def stream(self, seed):
        order = list(range(self.num_samples))
        if seed is not None:
            np.random.RandomState(seed % 2**32).shuffle(order)
        for i in order:
            yield Sample(f"{i}.png", encoded(i) if i != 13 else b"", i % 5)


def number_of(image):
    return torch.tensor(value_of(image))


def stream(count=12, **options):
    return IterableImageDataset(reader=Numbers(count), transform=number_of, **options)


def values(dataset, *args, **kwargs):
    return [int(read()[0]) for _, read in dataset.iterate(*args, **kwargs)]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2])
def test_workers_share_the_batches_of_one_order(workers, ranks):
    dataset = stream(12, is_training=True)
    order = values(dataset, 5)
    batches = {}
    for rank in range(ranks):
        for worker in range(workers):
            for (_, position, _), read in dataset.iterate(5, worker, workers, 2, rank, ranks):
                place, owner = divmod(position, ranks)
                assert owner == rank and place // 2 % workers == worker
                batches.setdefault((rank, place // 2), []).append(int(read()[0]))
    assert sorted(order) == list(range(12))
    assert {key: order[rank::ranks][2 * batch:2 * batch + 2] for key in batches for rank, batch in [key]} == batches


def test_order_of_an_epoch():
    training, evaluation = stream(is_training=True), stream()
    assert values(training, 0) == values(training, 0) != values(training, 1)
    assert values(stream(is_training=True, seed=1), 0) != values(training, 0)
    assert values(evaluation, 0) == values(evaluation, 3) == list(range(12))


def test_batches_before_the_start_are_not_decoded():
    whole = list(stream(20).iterate(0, batch_size=4))
    rest = list(stream(20).iterate(0, batch_size=4, start_batch=3))
    assert [key for key, _ in rest] == [key for key, _ in whole[12:]] and rest[0][1].name == "12.png"
    with pytest.raises(BadImageError, match="file is empty"):  # the 13th is damaged: only reading it says so
        rest[1][1]()


def test_ranks_get_equally_many_samples_in_training():
    lengths = [len(values(stream(11, is_training=True), 0, rank=rank, world_size=3)) for rank in range(3)]
    assert lengths == [3, 3, 3]
    assert [len(values(stream(11), 0, rank=rank, world_size=3)) for rank in range(3)] == [4, 4, 3]


def test_repeats_and_num_samples():
    twice = stream(6, is_training=True, repeats=2)
    assert len(twice) == 12 and sorted(values(twice, 0)) == sorted(list(range(6)) * 2)
    assert values(twice, 0)[:6] != values(twice, 0)[6:]
    assert len(stream(6, repeats=2)) == 6
    longer = stream(6, is_training=True, num_samples=8)
    assert len(longer) == 8 == len(values(longer, 0)) and set(values(longer, 0)) == set(range(6))
    assert values(stream(6, num_samples=4), 0) == [0, 1, 2, 3]


def test_stream_in_a_plain_loader():
    expected = values(stream(12, is_training=True), 0)
    for workers in (0, 2):
        dataset = stream(12, is_training=True, batch_size=3)
        batches = [batch for batch, _ in DataLoader(dataset, batch_size=3, num_workers=workers)]
        assert torch.cat(batches).tolist() == expected


def test_names_of_a_stream():
    assert stream(3).filenames() == ["0.png", "1.png", "2.png"]


def test_shards_behind_a_pipe(tmp_path):
    pytest.importorskip("webdataset")
    make_shards(tmp_path)
    split = f"pipe:cat {tmp_path}/train-{{0000..0001}}.tar|6"
    dataset = create_dataset("wds/", split=split, is_training=False, class_map={"0": 2, "1": 1, "2": 0})
    assert isinstance(dataset, IterableImageDataset) and len(dataset) == 6
    assert [(value_of(image), label) for image, label in dataset] == [(i, 2 - i % 3) for i in range(6)]
    training = create_dataset("wds/", split=split, is_training=True, shuffle_size=4)
    training.transform = number_of
    assert sorted(values(training, 0)) == list(range(6))
    assert values(training, 0) == values(training, 0) != values(training, 2)
    (tmp_path / "train-0001.tar").write_bytes((tmp_path / "train-0001.tar").read_bytes()[:2500])
    with pytest.raises(DataError, match=r"-0001.tar cannot be read to its end .*at byte 2048.; 0 samples before that "):
        list(dataset)


def test_shards_of_a_url_with_info(tmp_path):
    pytest.importorskip("webdataset")
    make_shards(tmp_path)
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {"train": {
        "name": "train", "num_samples": 6, "filenames": ["train-{0000..0001}.tar"], "shard_lengths": [3, 3]}}}))
    dataset = create_dataset("wds/", f"file://{tmp_path}", split="train")
    assert len(dataset) == 6 and [value_of(image) for image, _ in dataset] == list(range(6))


def test_names_of_classes_in_a_stream(tmp_path):
    pytest.importorskip("webdataset")
    make_shards(tmp_path, 1, label=lambda i: {"cls": b"cat"})
    dataset = create_dataset("wds/", split=f"pipe:cat {tmp_path}/train-0000.tar")
    with pytest.raises(DataError, match="label 'cat' is a name, and a stream cannot know them all: give a class_map"):
        list(dataset)


# several processes


def make_each(tmp_path, hf_module):
    make_folder(tmp_path / "folder", {"a": [f"{i}.png" for i in range(4)], "b": [f"{i}.png" for i in range(4)]})
    make_tar(tmp_path / "a.tar", images(8))
    make_shards(tmp_path / "wds", 2, 4)
    make_manifest(tmp_path / "csv", ROWS)
    hf_table(hf_module, 8).save_to_disk(tmp_path / "hf")
    return {"folder": ("", tmp_path / "folder"), "tar": ("", tmp_path / "a.tar"), "wds": ("wds/", tmp_path / "wds"),
            "csv": ("", tmp_path / "csv" / "data.csv"), "hfds": ("hfds/", tmp_path / "hf"),
            "torch": ("torch/image_folder", tmp_path / "folder")}


@pytest.mark.parametrize("start, workers", [
    ("fork", 2), pytest.param("spawn", 1, marks=pytest.mark.slow)])  # by default: they are pickled, below
def test_readers_in_worker_processes(tmp_path, hf, start, workers):
    dataset = ConcatDataset([create_dataset(name, root, split="train", transform=MaybePILToTensor())
                             for name, root in make_each(tmp_path, hf).values()])
    here = [(int(image[0, 0, 0]), label) for image, label in map(dataset.__getitem__, range(len(dataset)))]
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, multiprocessing_context=start)
    there = [(int(value), int(label)) for images, labels in loader for value, label in zip(images[:, 0, 0, 0], labels)]
    assert there == here


def test_readers_can_be_pickled(tmp_path, hf):
    for kind, (name, root) in make_each(tmp_path, hf).items():
        dataset = create_dataset(name, root, split="train", transform=number_of)
        copy = pickle.loads(pickle.dumps(dataset))
        assert [copy[i] for i in range(len(copy))] == [dataset[i] for i in range(len(dataset))], kind
        assert copy.filenames() == dataset.filenames() and copy.classes == dataset.classes


# packages that are not there


@pytest.mark.parametrize("module, name, root, package", [
    ("datasets", "hfds/user/data", None, "datasets"), ("datasets", "hfids/user/data", None, "datasets"),
    ("tensorflow_datasets", "tfds/mnist", None, "tensorflow-datasets"),
    ("webdataset", "wds/", "https://example.org/data", "webdataset"),
    ("pyarrow.parquet", "", "train.parquet", "pyarrow"),
])
def test_missing_packages(tmp_path, monkeypatch, module, name, root, package):
    monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    if root == "train.parquet":
        root = tmp_path / root
        root.write_bytes(b"")
    with pytest.raises(MissingPackageError, match=rf"needs the package '{package}': pip install {package} "
                                                  r"\(or pip install 'mvlib\[train\]'\)") as caught:
        create_dataset(name, root)
    assert isinstance(caught.value, MvlibError) and isinstance(caught.value, ImportError)


def test_readers_import_no_torch():
    import subprocess

    code = "import sys, mvlib.data.readers.folder, mvlib.data.readers.wds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# TensorFlow datasets


def make_tfds(root, file_format):
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("tensorflow")  # writes; array_record is read without it

    class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = root

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
                "image": tfds.features.Image(shape=(5, 6, 3)), "id": tfds.features.Text(),
                "label": tfds.features.ClassLabel(names=["cat", "dog", "owl"])}))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(8), "test": self._generate_examples(3)}

        def _generate_examples(self, count=0):
            for i in range(count):
                yield i, {"image": io.BytesIO(encoded(i)), "label": i % 3, "id": f"{i:02d}"}

    Digits(data_dir=root, file_format=file_format).download_and_prepare()
    return root


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_tensorflow_datasets(tmp_path, file_format, monkeypatch):
    root = make_tfds(tmp_path, file_format)
    dataset = create_dataset("tfds/digits", root, split="train", transform=number_of)
    assert isinstance(dataset, ImageDataset if file_format == "array_record" else IterableImageDataset)
    assert len(dataset) == 8 and dataset.classes == ["cat", "dog", "owl"]
    copy = pickle.loads(pickle.dumps(dataset))
    if file_format == "array_record":
        found = {dataset.filename(i): (int(dataset[i][0]), dataset[i][1]) for i in range(8)}
        assert found == {f"{i:02d}": (i, i % 3) for i in range(8)}
        assert [copy[i] for i in range(8)] == [dataset[i] for i in range(8)]
        mapped = create_dataset("tfds/digits", root, split="train", class_map={"dog": 0})
        assert {mapped[i][1] for i in range(8) if found[mapped.filename(i)][1] == 1} == {0}
        with pytest.raises(DataError, match="tfds/digits/0.: its class is not in the class map"):
            [mapped[i] for i in range(8)]
        check_labels(dataset, 1)  # labels cannot be had without reading everything
        with pytest.raises(DataError, match="forked from.*start workers by multiprocessing_context='spawn'"):
            list(DataLoader(dataset, num_workers=1, multiprocessing_context="fork"))
    else:
        assert sorted((int(value), label) for value, label in copy) == [(i, i % 3) for i in range(8)]
        training = create_dataset("tfds/digits", root, split="train", transform=number_of, is_training=True)
        assert values(training, 0) == values(training, 0) and sorted(values(training, 1)) == list(range(8))
    with pytest.raises(ConfigError, match="'tfds/digits' has no split 'val.*'; its splits are "):
        create_dataset("tfds/digits", root, split="val")
    with pytest.raises(ConfigError, match="has no label column 'lable'; did you mean 'label'"):
        create_dataset("tfds/digits", root, split="test", target_key="lable")
    with pytest.raises(DataError, match="'tfds/nothing' cannot be had"):
        create_dataset("tfds/nothing", root)


