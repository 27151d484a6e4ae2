"""Real pictures for the examples, from packages that are installed (the `demo` extra): nothing is downloaded.

    python examples/demo_data.py textures DIR      # or digits: a folder a class, in train/ and validation/
    python examples/demo_data.py pieces DIR        # the middle of each photograph
    python examples/demo_data.py coins DIR         # crops with coins in images/, where the coins are in masks/
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mvlib import MvlibError

PHOTOGRAPHS = """astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png
    hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png retina.jpg rocket.jpg""".split()


def photographs() -> list[Path]:
    """Scikit-image's and scikit-learn's photographs, as they lie in the packages."""
    import skimage
    import sklearn

    skimages, sklearns = (Path(package.__file__).parent for package in (skimage, sklearn))
    return [*(skimages / "data" / name for name in PHOTOGRAPHS), *sorted((sklearns / "datasets/images").glob("*.jpg"))]


def save(image: Image.Image, path: Path, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path)
    return path


def write_pieces(folder: Path) -> list[Path]:
    """The middle of each photograph, half as wide and half as high."""
    images = {path.stem: Image.open(path) for path in photographs()}
    return [save(image.crop((image.width // 4, image.height // 4, image.width * 3 // 4, image.height * 3 // 4)),
                 folder / f"{name}.png") for name, image in images.items()]


def write_textures(folder: Path, train: int = 24, validation: int = 12, side: int = 64) -> Path:
    """Square crops, `side` pixels wide, of four photographs: the left 60% for training, the rest for validation."""
    random = np.random.RandomState(0)
    for path in (path for path in photographs() if path.stem in ("brick", "grass", "gravel", "moon")):
        image = Image.open(path)
        border = int(image.width * 0.6)
        for split, count, left, right in (("train", train, 0, border), ("validation", validation, border, image.width)):
            for number in range(count):
                x, y = random.randint(left, right - side + 1), random.randint(image.height - side + 1)
                save(image.crop((x, y, x + side, y + side)), folder / split / path.stem / f"{number:03d}.png")
    return folder


def write_digits(folder: Path, train: int = 30, validation: int = 20, side: int = 32) -> Path:
    """Scikit-learn's handwritten digits, ten classes, so many pictures of each."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for digit in range(10):
        for number, pixels in enumerate(images[labels == digit][:train + validation].reshape(-1, 8, 8)):
            image = Image.fromarray((pixels * 15.9).astype(np.uint8)).resize((side, side))
            save(image, folder / ("train" if number < train else "validation") / str(digit) / f"{number:03d}.png")
    return folder


def write_coins(folder: Path, side: int = 96) -> Path:
    """35 crops of scikit-image's coins, the last 7 of other coins, and masks by a watershed, as in its tutorial."""
    from scipy.ndimage import binary_fill_holes
    from skimage import data, filters, segmentation

    seeds = np.where((coins := data.coins()) < 30, 1, np.where(coins > 150, 2, 0))
    mask = binary_fill_holes(segmentation.watershed(filters.sobel(coins), seeds) == 2).astype(np.uint8)
    for y, x in ((y, x) for y in (0, 35, 70, 105, 207) for x in range(0, 289, 48)):
        for kind, pixels in (("images", coins), ("masks", mask)):
            save(Image.fromarray(pixels[y:y + side, x:x + side]), folder / kind / f"{y:03d}-{x:03d}.png", mode="L")
    return folder


def run(main: Callable[[], object]) -> None:
    """Run an example; what is wrong with its arguments or pictures is one line."""
    try:
        main()
    except (MvlibError, OSError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


if __name__ == "__main__":
    writers = {"textures": write_textures, "digits": write_digits, "pieces": write_pieces, "coins": write_coins}
    if len(sys.argv) != 3 or sys.argv[1] not in writers:
        sys.exit(__doc__)
    writers[sys.argv[1]](Path(sys.argv[2]))
