"""open_image on ordinary, odd and bad files; find_images; class_names."""

import builtins
import io
import os
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import ExifTags, Image, ImageChops, ImageOps

import mvlib
from mvlib.data import class_names, create_transform, find_images, open_image

PHOTOS = Path(skimage.__file__).parent / "data"
CAT = Image.open(PHOTOS / "chelsea.png").convert("RGB").resize((90, 60))


def save(image, path, **options):
    image.save(path, **options)
    return path


def reason(source):
    """The message of the error that `source` gives, without the name of the file."""
    with pytest.raises(mvlib.BadImageError) as caught:
        open_image(source)
    message = str(caught.value)
    assert "\n" not in message
    if isinstance(source, (str, Path)):
        assert message.startswith(f"{source}: ")
        return message.removeprefix(f"{source}: ")
    return message


# Ordinary files


@pytest.mark.parametrize("name", ["chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "camera.png"])
def test_ordinary_photographs_are_as_pil_converts_them(name):
    assert open_image(PHOTOS / name) == Image.open(PHOTOS / name).convert("RGB")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif", "ppm", "tga", "jp2"])
def test_formats(tmp_path, suffix):
    path = save(CAT, tmp_path / f"cat.{suffix}")
    image = open_image(path)
    assert type(image) is Image.Image
    assert image == Image.open(path).convert("RGB")


def test_paths_bytes_and_file_objects(tmp_path):
    path = save(CAT, tmp_path / "cat.png")
    for source in (str(path), path.read_bytes(), bytearray(path.read_bytes()), io.BytesIO(path.read_bytes())):
        assert open_image(source).tobytes() == CAT.tobytes()
    with open(path, "rb") as stream:
        assert open_image(stream).tobytes() == CAT.tobytes()
        assert not stream.closed


def test_a_file_object_is_read_from_its_start(tmp_path):
    stream = io.BytesIO(save(CAT, tmp_path / "cat.bmp").read_bytes())
    stream.seek(6)
    assert open_image(stream).tobytes() == CAT.tobytes()


def test_a_file_object_is_named_in_the_error(tmp_path):
    (tmp_path / "text.jpg").write_text("not a photograph")
    with open(tmp_path / "text.jpg", "rb") as stream:
        assert reason(stream) == f"{tmp_path / 'text.jpg'}: not an image in a format that PIL reads"


def test_many_threads(tmp_path):
    for index in range(1, 9):
        save(oriented(index), tmp_path / f"{index}.png", exif=orientation(index))
    (tmp_path / "bad.png").write_bytes((tmp_path / "1.png").read_bytes()[:2000])

    def read(path):
        try:
            return open_image(path).tobytes() == CAT.tobytes()
        except mvlib.BadImageError:
            return path.name == "bad.png"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, list(find_images(tmp_path)) * 20))


# Odd files

_UNDO = {1: (), 2: ("FLIP_LEFT_RIGHT",), 3: ("ROTATE_180",), 4: ("FLIP_TOP_BOTTOM",), 5: ("TRANSPOSE",),
         6: ("ROTATE_90",), 7: ("TRANSVERSE",), 8: ("ROTATE_270",)}


def oriented(value):
    """The cat as a camera stores it that marks it with this orientation."""
    image = CAT
    for name in _UNDO[value]:
        image = image.transpose(Image.Transpose[name])
    return image


def orientation(value):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    exif[ExifTags.Base.Make] = "camera"
    return exif


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("value", range(1, 9))
def test_exif_rotated(tmp_path, value, suffix):
    path = save(oriented(value), tmp_path / f"cat.{suffix}", exif=orientation(value))
    image = open_image(path)
    assert image.size == CAT.size
    assert image.tobytes() == CAT.tobytes()
    assert ImageOps.exif_transpose(image).tobytes() == CAT.tobytes()  # not turned a second time
    assert image.tobytes() == ImageOps.exif_transpose(Image.open(path)).tobytes()


def test_exif_rotated_jpeg(tmp_path):
    path = save(oriented(6), tmp_path / "cat.jpg", exif=orientation(6), quality=95)
    difference = ImageChops.difference(open_image(path), CAT)
    assert np.asarray(difference).mean() < 3


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0",
                                  b"Exif\0\0rubbish" * 9, orientation(0).tobytes(), orientation(9).tobytes()])
def test_damaged_exif_is_ignored(tmp_path, exif):
    path = save(CAT, tmp_path / "cat.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert open_image(path).size == CAT.size


def test_16_bit(tmp_path):
    grey = np.asarray(CAT.convert("L"))
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    for suffix in ("png", "tif", "pgm"):
        path = tmp_path / f"cat.{suffix}"
        if suffix == "pgm":  # which older PIL reads and does not write
            path.write_bytes(b"P5 %d %d 65535\n" % wide.size + np.asarray(wide).astype(">u2").tobytes())
        else:
            save(wide, path)
        assert Image.open(path).mode in ("I;16", "I")
        assert (np.asarray(open_image(path)) == grey[..., None]).all()


def test_16_bit_is_rounded(tmp_path):
    path = save(Image.fromarray(np.array([[0, 128, 129, 65535, 65406, 65407]], dtype=np.uint16)), tmp_path / "a.png")
    assert np.asarray(open_image(path))[0, :, 0].tolist() == [0, 0, 1, 255, 254, 255]


def test_16_bit_big_endian(tmp_path):
    values = np.asarray(CAT.convert("L")).astype(">u2") * 257
    path = save(Image.frombytes("I;16B", CAT.size, values.astype(">u2").tobytes()), tmp_path / "cat.tif")
    assert Image.open(path).mode == "I;16B"
    assert (np.asarray(open_image(path))[..., 0] == np.asarray(CAT.convert("L"))).all()


@pytest.mark.parametrize(("values", "expected"), [
    ([0.0, 0.5, 1.0], [0, 128, 255]),
    ([0.0, 100.4, 255.0], [0, 100, 255]),
    ([0.0, 257.0, 65535.0], [0, 1, 255]),
    ([-1.0, 0.0, 1.0], [0, 128, 255]),
    ([0.0, 1e6, 2e6], [0, 128, 255]),
    ([float("nan"), float("inf"), 1.0], [0, 0, 255]),
    ([-3.0, -3.0, -3.0], [0, 0, 0]),
])
def test_floats_are_scaled_by_their_range(tmp_path, values, expected):
    path = save(Image.fromarray(np.array([values], dtype=np.float32)), tmp_path / "a.tif")
    assert Image.open(path).mode == "F"
    assert np.asarray(open_image(path))[0, :, 1].tolist() == expected


@pytest.mark.parametrize(("values", "expected"), [
    ([0, 255, 65535], [0, 1, 255]), ([-100, 0, 100], [0, 128, 255]), ([0, 10 ** 9, 2 * 10 ** 9], [0, 128, 255]),
])
def test_32_bit_integers_are_scaled_by_their_range(tmp_path, values, expected):
    path = save(Image.fromarray(np.array([values], dtype=np.int32)), tmp_path / "a.tif")
    assert Image.open(path).mode == "I"
    assert np.asarray(open_image(path))[0, :, 2].tolist() == expected


@pytest.mark.parametrize(("mode", "suffix"), [("1", "png"), ("1", "tif"), ("CMYK", "jpg"), ("CMYK", "tif"),
                                              ("LA", "png"), ("RGBA", "png"), ("RGBA", "webp"), ("P", "png"),
                                              ("YCbCr", "jpg"), ("LAB", "tif"), ("L", "jpg")])
def test_modes_are_converted_as_pil_converts_them(tmp_path, mode, suffix):
    image = CAT.convert("RGB" if mode == "LAB" else mode)
    if mode == "LAB":
        image = Image.merge("LAB", image.split())
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.linear_gradient("L").resize(CAT.size))
    path = save(image, tmp_path / f"cat.{suffix}")
    assert open_image(path).tobytes() == Image.open(path).convert("RGB").tobytes()


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 256, 8))])
def test_a_palette_with_transparency_keeps_its_colours_and_warns_of_nothing(tmp_path, transparency):
    path = save(CAT.quantize(32), tmp_path / "cat.png", transparency=transparency)
    assert "transparency" in Image.open(path).info
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = open_image(path)
    assert found.tobytes() == CAT.quantize(32).convert("RGB").tobytes()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_frame(tmp_path, suffix):
    frames = [CAT, CAT.rotate(180), ImageOps.invert(CAT)]
    path = save(frames[0], tmp_path / f"cat.{suffix}", save_all=True, append_images=frames[1:])
    assert Image.open(path).n_frames == 3
    assert open_image(path) == Image.open(path).convert("RGB")
    difference = ImageChops.difference(open_image(path), CAT)
    assert np.asarray(difference).mean() < 12


def test_one_pixel(tmp_path):
    for mode in ("1", "L", "LA", "RGB", "RGBA", "P", "I;16"):
        image = open_image(save(Image.new(mode, (1, 1)), tmp_path / "dot.png"))
        assert image.mode == "RGB" and image.size == (1, 1)
        assert create_transform(32)(image).shape == (3, 32, 32)


# Bad files


def test_zero_bytes(tmp_path):
    (tmp_path / "empty.jpg").touch()
    assert reason(tmp_path / "empty.jpg") == "file is empty"
    assert reason(str(tmp_path / "empty.jpg")) == "file is empty"
    assert reason(b"") == "<bytes>: file is empty"


@pytest.mark.filterwarnings("ignore:Tag data larger than file")
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tif", "ppm"])
def test_truncated(tmp_path, suffix):
    stream = io.BytesIO()
    CAT.save(stream, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    data = stream.getvalue()
    path = tmp_path / f"cut.{suffix}"
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(data[:int(len(data) * share)])
        assert reason(path)


def test_truncated_jpeg(tmp_path):
    path = save(CAT, tmp_path / "cut.jpg")
    path.write_bytes(path.read_bytes()[:-500])
    assert reason(path).startswith("image file is truncated")


def test_text_named_jpg(tmp_path):
    (tmp_path / "text.jpg").write_text("not a photograph\n" * 100)
    assert reason(tmp_path / "text.jpg") == "not an image in a format that PIL reads"
    assert reason(b"text") == "<bytes>: not an image in a format that PIL reads"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [11, 15])  # PIL itself warns, and refuses
def test_decompression_bomb(tmp_path, monkeypatch, side):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = save(Image.new("L", (side, side)), tmp_path / "bomb.png")
    assert reason(path).startswith("too many pixels: ")
    assert Image.MAX_IMAGE_PIXELS == 100
    assert open_image(save(Image.new("L", (10, 10)), tmp_path / "good.png")).size == (10, 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # what a user says who trusts the files
    assert open_image(path).size == (side, side)


def test_decompression_bomb_where_warnings_are_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = save(Image.new("L", (11, 11)), tmp_path / "bomb.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(path).startswith("too many pixels: ")


def test_a_real_decompression_bomb(tmp_path):
    path = save(Image.new("1", (20000, 20000)), tmp_path / "bomb.png")
    assert path.stat().st_size < 100_000
    assert reason(path).startswith("too many pixels: Image size (400000000 pixels) exceeds limit")


def test_not_a_file(tmp_path):
    assert reason(tmp_path) == "is a folder, not an image file"
    assert reason(tmp_path / "nowhere.jpg") == "No such file or directory"
    assert reason(tmp_path / "nowhere.jpg" / "cat.jpg") == "No such file or directory"
    assert reason("a\0b.jpg") == "embedded null byte"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "is not a regular file"


def test_no_permission(tmp_path, monkeypatch):
    path = save(CAT, tmp_path / "cat.png")

    def deny(file, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(builtins, "open", deny)  # not by chmod, which does not keep root out
    assert reason(path) == "Permission denied"


def test_random_damage_gives_an_image_or_a_reason(tmp_path):
    generator = random.Random(0)
    for suffix in ("jpg", "png", "webp", "gif", "tif", "bmp"):
        data = save(CAT, tmp_path / f"cat.{suffix}").read_bytes()
        path = tmp_path / f"bad.{suffix}"
        for _ in range(60):
            damaged = bytearray(data)
            for _ in range(generator.choice((1, 5, 50))):
                reach = min(len(damaged), generator.choice((64, 10 ** 6)))  # often the header
                damaged[generator.randrange(reach)] = generator.randrange(256)
            path.write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    assert open_image(path).mode == "RGB"
                except mvlib.BadImageError as error:
                    assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


# Folders


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(root, paths=None):
    return [path.relative_to(root).as_posix() for path in find_images(root if paths is None else paths)]


def test_folders_in_natural_order(tmp_path):
    touch(tmp_path, "10.jpg", "9.PNG", "a/b2.webp", "a/b10.webp", "a/B1.jpeg", "2/x.tiff", "1\u00b2/y.gif", "notes.txt",
          "cat.jpg.bak", "model.pth", "a/Thumbs.db", "noextension")
    assert names(tmp_path) == ["1\u00b2/y.gif", "2/x.tiff", "9.PNG", "10.jpg", "a/B1.jpeg", "a/b2.webp", "a/b10.webp"]


def test_hidden_files_are_skipped_unless_named(tmp_path):
    touch(tmp_path, ".hidden.jpg", "._cat.jpg", ".cache/cat.jpg", "cat.jpg")
    assert names(tmp_path) == ["cat.jpg"]
    assert names(tmp_path, [tmp_path / ".hidden.jpg", tmp_path / ".cache"]) == [".hidden.jpg", ".cache/cat.jpg"]


def test_files_are_passed_on_as_they_are(tmp_path):
    touch(tmp_path, "a.txt", "b/c.jpg")
    paths = [tmp_path / "nowhere.jpg", str(tmp_path / "b"), tmp_path / "a.txt", tmp_path / "b"]
    assert names(tmp_path, paths) == ["nowhere.jpg", "b/c.jpg", "a.txt", "b/c.jpg"]
    assert list(find_images("nowhere.jpg")) == [Path("nowhere.jpg")]
    assert list(find_images([])) == []


def test_links_are_followed_and_loops_are_not(tmp_path):
    touch(tmp_path, "root/a/1.jpg", "elsewhere/2.jpg")
    root = tmp_path / "root"
    (root / "a" / "up").symlink_to(root)
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "c").symlink_to(root / "a")
    (root / "self.jpg").symlink_to(root / "self.jpg")
    (root / "z.jpg").symlink_to(tmp_path / "elsewhere" / "2.jpg")
    assert names(root) == ["a/1.jpg", "b/2.jpg", "self.jpg", "z.jpg"]
    assert "symbolic links" in reason(root / "self.jpg")


def test_a_folder_that_cannot_be_listed_stands_for_itself(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    scandir = os.scandir

    def deny(path):
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    assert names(tmp_path) == ["a", "b/2.jpg"]


# Labels


def test_class_names():
    names = class_names("imagenet-1k")
    assert len(names) == 1000
    assert (names[0], names[285], names[967]) == ("tench", "Egyptian cat", "espresso")
    names.clear()
    assert len(class_names("imagenet-1k")) == 1000


def test_class_names_of_an_unknown_set():
    with pytest.raises(ValueError, match="no class names for label set 'imagenet-21k'; known: imagenet-1k"):
        class_names("imagenet-21k")
