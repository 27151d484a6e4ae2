"""Every block of code of the pages is run, in a folder with photographs and a small data set; or says why not."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .blocks import LANGUAGES, PAGES, REASONS, ROOT, commands, read_blocks, same_output
from .forks import Forks

BLOCKS = {page: read_blocks(page) for page in PAGES}
RUN = [page for page in PAGES if any(block.why_not is None and block.language != "text" for block in BLOCKS[page])]
SLOW = [page for page in RUN if any(block.is_slow for block in BLOCKS[page])]


@pytest.fixture(scope="module")
def forks():
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    folder = Path(tempfile.mkdtemp())
    forks = Forks(folder)
    yield forks
    forks.close()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """What the pages name: photo.jpg, photos/ (with a folder in it), list.txt; small data sets: DATA, with train and
    validation, and pets/, without."""
    import skimage
    from PIL import Image

    place = Path(skimage.__file__).parent / "data"
    folder = tmp_path_factory.mktemp("photographs")
    pictures = {name: Image.open(place / name).convert("RGB") for name in (
        "chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png", "motorcycle_left.png", "clock_motion.png",
        "coins.png", "brick.png", "grass.png")}
    for name, picture in pictures.items():
        part = folder / "photos" / ("textures" if name in ("brick.png", "grass.png") else "")
        part.mkdir(parents=True, exist_ok=True)
        picture.thumbnail((320, 320))
        picture.save(part / f"{Path(name).stem}.jpg", quality=95)
    shutil.copy(folder / "photos" / "chelsea.jpg", folder / "photo.jpg")
    (folder / "list.txt").write_text("photos/coffee.jpg\nphotos/rocket.jpg\n")
    for kind in ("brick", "grass"):
        for number in range(12):  # other parts of the picture for validation
            split, (row, column) = "train" if number < 8 else "validation", divmod(number, 4)
            path = folder / "DATA" / split / kind / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pictures[f"{kind}.png"].crop((column * 60, row * 50, column * 60 + 64, row * 50 + 50)).save(path)
    for name, photograph in (("cat", "chelsea.png"), ("coffee", "coffee.png")):
        (folder / "pets" / name).mkdir(parents=True)
        for number in range(6):
            row, column = divmod(number, 3)
            part = pictures[photograph].crop((column * 90, row * 90, column * 90 + 100, row * 90 + 100))
            part.save(folder / "pets" / name / f"{number}.jpg")
    for name in ("configs", "scripts", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run_page(page, forks, photographs, folder, *options):
    place = folder / "page"
    shutil.copytree(photographs, place, symlinks=True)
    done = subprocess.run(
        [forks.bin / "python", "-m", "tests.docs.run_page", page, *options], cwd=place, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": f"{forks.bin}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg",
             "HF_HUB_OFFLINE": "1", "COLUMNS": "120", "NO_COLOR": "1"})
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", [
    pytest.param(page, marks=[] if page == "README.md" else pytest.mark.slow) for page in RUN])
def test_the_blocks_run(page, forks, photographs, tmp_path):
    run_page(page, forks, photographs, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_all_blocks_run(page, forks, photographs, tmp_path):
    run_page(page, forks, photographs, tmp_path, "--slow")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page):
    for block in BLOCKS[page]:
        assert block.language in LANGUAGES, f"{block.where}: a block of '{block.language}'; known: {LANGUAGES}"
        assert block.mark in ("", "slow") or block.why_not in REASONS or not block.mark.startswith(("not", "slow")), \
            f"{block.where}: '{block.mark}' is no reason; known: {REASONS}"
        if block.language == "console":
            assert commands(block.code), f"{block.where}: shows no command"
    fences = sum(line.lstrip().startswith("```") for line in (ROOT / page).read_text(encoding="utf-8").splitlines())
    assert fences == 2 * len(BLOCKS[page]), f"{page}: a fence is left open"


def test_a_block_that_fails_is_found(forks, tmp_path):
    """The pages' test can fail: on Python's errors, on a shell's, and on another output."""
    page = tmp_path / "page.md"
    page.write_text("```python\nwrong\n```\n\n```bash\nmvlib list nothing-like-this\n```\n\n"
                    "```console\n$ echo one\ntwo\n$ echo three\nthree\n```\n\n<!-- not run: needs a hub -->\n"
                    "```bash\nfalse\n```\n\n```python\nassert True\n```\n")
    done = subprocess.run([forks.bin / "python", "-m", "tests.docs.run_page", page], cwd=tmp_path, text=True,
                          stdout=subprocess.PIPE, env={**os.environ, "PATH": f"{forks.bin}:{os.environ['PATH']}"})
    assert done.returncode == 1
    assert "NameError: name 'wrong'" in done.stdout and f"{page}:6: status" in done.stdout
    assert "$ echo one\nprints\none" in done.stdout and done.stdout.count(str(page) + ":") == 3


@pytest.mark.parametrize("shown, printed, same", [
    ("one\ntwo\n", "one\ntwo\n", True), ("one\n", "one\ntwo\n", False), ("... s\n", "4.1 s\n", True),
    ("a\n...\nz\n", "a\nb\nc\nz\n", True), ("a\n...\nz\n", "a\nb\nc\n", False), ("a (b)\n", "a (b)\n", True),
])
def test_outputs_are_compared(shown, printed, same):
    assert same_output(shown, printed) is same


def test_programs_are_this_interpreters(forks):
    said = subprocess.check_output([forks.bin / "python", "-c", "import sys; print(sys.executable)"], text=True)
    assert said.strip() == sys.executable
