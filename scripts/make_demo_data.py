"""Write a small real data set, which an installed package ships, as an image folder.

    python scripts/make_demo_data.py digits DIR
    python scripts/make_demo_data.py faces DIR
    python scripts/make_demo_data.py textures|scenes|lookalikes DIR

digits: scikit-learn's 1,797 handwritten digits (8 x 8 pixels; NIST's, by way of UCI), enlarged to 32 x 32. 1,347 for
training, 360 for validation, 90 held out, for `mvlib predict`.
faces: scikit-image's 200 patches of 25 x 25 pixels, 100 of them faces (of Labeled Faces in the Wild). 20 of each kind
for training, 80 for validation: little, so that weights learned elsewhere can show what they are worth.
Four classes each, with 40 pictures a class in train and 60 in test, for `mvlib finetune`:
textures: squares of 40 pixels of scikit-image's grey photographs of brick, grass, gravel and the moon.
scenes: squares of 64 pixels of four of its colour photographs (a cat, a cup, a motorcycle, a retina).
Of both, the squares of train are of a picture's left half and those of test of its right half, so that none overlap.
lookalikes: the digits three, five, eight and nine, grey, 8 x 8 pixels as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def save(pixels: np.ndarray, side: int, path: Path) -> None:
    """Write intensities (height, width) from 0 to 1 as an RGB picture of side x side pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    image.resize((side, side), Image.Resampling.BICUBIC).convert("RGB").save(path)


def write_digits(folder: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for position, index in enumerate(np.random.RandomState(0).permutation(len(digits.images))):
        name = DIGITS[digits.target[index]]
        place = Path("train", name) if position < 1347 else Path("validation", name) if position < 1707 else \
            Path("held-out")
        save(digits.images[index] / 16, 32, folder / place / f"{name}-{index:04d}.png")


def write_faces(folder: Path) -> None:
    from skimage.data import lfw_subset

    for index, pixels in enumerate(lfw_subset()):  # 100 faces, then 100 that are none
        name = "face" if index < 100 else "no face"
        save(pixels, 64, folder / ("train" if index % 100 < 20 else "validation") / name / f"{index:03d}.png")


def write_squares(folder: Path, photographs: dict[str, str], side: int) -> None:
    """Squares of photographs, at places drawn by a fixed seed: 40 of each left half, 60 of each right half."""
    import skimage

    draw = np.random.RandomState(0)
    for name, file in photographs.items():
        image = Image.open(Path(skimage.__file__).parent / "data" / file)
        image = image if image.mode == "L" else image.convert("RGB")
        middle = image.width // 2
        for split, count, first, last in (("train", 40, 0, middle), ("test", 60, middle, image.width)):
            place = folder / split / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                x, y = draw.randint(first, last - side + 1), draw.randint(0, image.height - side + 1)
                image.crop((x, y, x + side, y + side)).save(place / f"{number:02d}.png")


def write_textures(folder: Path) -> None:
    write_squares(folder, {name: f"{name}.png" for name in ("brick", "grass", "gravel", "moon")}, 40)


def write_scenes(folder: Path) -> None:
    write_squares(folder, {"cat": "chelsea.png", "cup": "coffee.png", "motorcycle": "motorcycle_left.png",
                           "retina": "retina.jpg"}, 64)


def write_lookalikes(folder: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in (3, 5, 8, 9):
        for number, index in enumerate(np.flatnonzero(digits.target == label)[:100]):
            place = folder / ("train" if number < 40 else "test") / DIGITS[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[index] / 16 * 255).astype(np.uint8)).save(place / f"{number:02d}.png")


KINDS = {"digits": write_digits, "faces": write_faces, "textures": write_textures, "scenes": write_scenes,
         "lookalikes": write_lookalikes}

if __name__ == "__main__":
    KINDS[sys.argv[1]](Path(sys.argv[2]))
