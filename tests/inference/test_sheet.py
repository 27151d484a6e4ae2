"""The contact sheet: what is on it, page by page."""

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageDraw

from mvlib.errors import ConfigError
from mvlib.inference import sheet
from mvlib.inference.sheet import ContactSheet

CAT = [(281, "tabby", 0.5), (285, "Egyptian cat", 0.25), (282, "tiger cat", 0.125), (0, "not shown", 0.1)]


@pytest.fixture
def photographs(tmp_path):
    """A red picture, a photograph on its side, and a green one of 1 x 500 pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3000, 1000), (200, 0, 0)).save(tmp_path / "wide.jpg")
    Image.fromarray(skimage.data.chelsea()).rotate(90, expand=True).save(tmp_path / "cat.jpg", exif=exif)
    Image.new("RGB", (1, 500), (0, 200, 0)).save(tmp_path / "thin.png")
    return tmp_path


@pytest.fixture
def words(monkeypatch):
    """Every text that is drawn."""
    found, text = [], ImageDraw.ImageDraw.text

    def note(self, place, what, *args, **kwargs):
        found.append(what)
        return text(self, place, what, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    return found


def test_pictures_with_their_classes(photographs, tmp_path, words):
    page = ContactSheet(tmp_path / "out.png")
    for name in ("wide.jpg", "cat.jpg", "thin.png"):
        page.add(photographs / name, CAT)
    page.add(photographs / "gone.jpg", (), "file is empty")
    assert page.close() == [tmp_path / "out.png"]
    assert words[:7] == ["wide.jpg", "50%", "tabby", "25%", "Egyptian cat", "12%", "tiger cat"]
    assert words[-2:] == ["file is empty", "gone.jpg"] and "not shown" not in words
    with Image.open(tmp_path / "out.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[1] == 4 * (240 + 18) + 18
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 20)
    assert 240 * 80 * 0.98 < red.sum() < 240 * 80 * 1.02  # 3 to 1, as in the file
    green = (pixels[..., 1] > 180) & (pixels[..., 0] < 20)
    assert green.sum() == 180  # one pixel wide at least
    shown = Image.fromarray(pixels[18:198, 18 + 258:18 + 258 + 240].astype(np.uint8))
    upright = Image.fromarray(skimage.data.chelsea()).resize((240, 160))
    difference = np.asarray(shown.crop((0, 10, 240, 170))).astype(int) - np.asarray(upright)
    assert np.abs(difference).mean() < 6


def test_many_pictures_fill_several_pages(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "_PAGE", 4)
    page = ContactSheet(tmp_path / "out.jpg")
    for _ in range(9):
        page.add(photographs / "thin.png", CAT)
    assert [path.name for path in page.close()] == ["out.jpg", "out-2.jpg", "out-3.jpg"]
    sizes = [Image.open(path).size for path in page.pages]
    assert sizes[0] == sizes[1] and sizes[2][0] == 240 + 3 * 18 - 18
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == [
        "out-2.jpg", "out-3.jpg", "out.jpg"]


def test_a_picture_that_changed_meanwhile_is_marked(photographs, tmp_path, words):
    page = ContactSheet(tmp_path / "out.png")
    page.add(photographs / "gone.jpg", CAT)
    page.close()
    assert "No such file or directory" in words


def test_long_names_lose_their_middle(photographs, tmp_path, words):
    page = ContactSheet(tmp_path / "out.png")
    page.add(photographs / "thin.png", [(0, "a very long name of a class that goes on and on, the end", 0.5)])
    page.close()
    name = next(text for text in words if text.startswith("a very"))
    assert "..." in name and name.endswith("the end") and len(name) < 40


def test_no_pictures_no_file(tmp_path):
    assert ContactSheet(tmp_path / "out.png").close() == [] and not list(tmp_path.iterdir())


def test_endings():
    with pytest.raises(ConfigError, match="--sheet draws .png, .jpg, .jpeg, .webp, and 'out.gif' ends in none of them"):
        ContactSheet("out.gif")
