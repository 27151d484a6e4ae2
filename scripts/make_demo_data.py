"""Write a small real data set, which an installed package ships, as an image folder.

    python scripts/make_demo_data.py digits DIR
    python scripts/make_demo_data.py faces DIR

digits: scikit-learn's 1,797 handwritten digits (8 x 8 pixels; NIST's, by way of UCI), enlarged to 32 x 32. 1,347 for
training, 360 for validation, 90 held out, for `mvlib predict`.
faces: scikit-image's 200 patches of 25 x 25 pixels, 100 of them faces (of Labeled Faces in the Wild). 20 of each kind
for training, 80 for validation: little, so that weights learned elsewhere can show what they are worth.
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


if __name__ == "__main__":
    {"digits": write_digits, "faces": write_faces}[sys.argv[1]](Path(sys.argv[2]))
