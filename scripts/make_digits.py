"""Write scikit-learn's handwritten digits as an image folder: DIR/train/CLASS/*.png, DIR/validation/..., DIR/held-out.

    python scripts/make_digits.py DIR

1,797 scans of 8 x 8 pixels (NIST's, by way of UCI), written as 32 x 32 PNGs: 1,347 for training, 360 for validation,
and 90 held out, for `mvlib predict`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def main(folder: Path) -> None:
    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.images))
    for position, index in enumerate(order):
        label = NAMES[digits.target[index]]
        kind = "train" if position < 1347 else "validation" if position < 1707 else "held-out"
        path = folder / kind / (label if kind != "held-out" else "") / f"{label}-{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray((digits.images[index] / 16 * 255).astype(np.uint8))
        pixels.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB").save(path)
    print(f"{len(order)} digits in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
