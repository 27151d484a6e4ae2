"""The site is built without a warning, has all that there is, and fetches nothing from elsewhere."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from .blocks import ROOT

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_FETCHING = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src",
             "embed": "src", "object": "data", "link": "href"}


class _Fetches(HTMLParser):
    """What a page fetches when it is opened; links for readers are not among it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "link" and attributes.get("rel") in ("canonical", "prev", "next", "alternate"):
            return
        self.found += [attributes[name] for name in (_FETCHING.get(tag), "srcset", "poster") if attributes.get(name)]
        self.found += re.findall(r"url\(([^)]*)\)", attributes.get("style") or "")


def fetches(text):
    parser = _Fetches()
    parser.feed(text)
    return parser.found


def is_outside(address):
    return re.match(r"\s*['\"]?(?:[a-z]+:)?//", address) is not None


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)], cwd=ROOT,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout
    return folder


def read(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_no_page_fetches_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    found = {path.relative_to(site): [address for address in fetches(read(path)) if is_outside(address)]
             for path in pages}
    assert not {page: addresses for page, addresses in found.items() if addresses}
    for sheet in site.rglob("*.css"):
        assert not [address for address in re.findall(r"(?:url\(|@import)([^);]*)", read(sheet)) if is_outside(address)]


@pytest.mark.slow
def test_what_pages_fetch_is_there(site):
    for path in site.rglob("*.html"):
        if path.name == "404.html":  # its addresses begin at the server's top
            continue
        for address in fetches(read(path)):
            if not address.startswith("data:"):
                assert (path.parent / address.partition("#")[0].partition("?")[0]).exists(), f"{path}: {address}"


@pytest.mark.parametrize("text, outside", [
    ('<script src="https://cdn.example/x.js"></script>', True),
    ('<link rel="stylesheet" href="//cdn.example/x.css">', True),
    ('<img src="http://x.example/a.png">', True), ('<div style="background: url(https://x.example/a.png)">', True),
    ('<a href="https://x.example">x</a>', False), ('<img src="data:image/png;base64,AA">', False),
    ('<script src="../assets/x.js"></script>', False),
])
def test_fetching_is_found(text, outside):
    assert any(map(is_outside, fetches(text))) is outside


@pytest.mark.slow
def test_every_option_is_there(site):
    from mvlib import cli

    for name in cli._COMMANDS:
        page = site / "cli" / f"{name}.html"
        assert page.exists(), name
    predict = read(site / "cli" / "predict.html")
    for option in ("--topk", "--sheet", "--output", "--decode"):
        assert f'id="{option[2:]}"' in predict and option in predict
    assert "--help-all" not in predict  # every command has it
    assert all(f'id="{option}"' in read(site / "cli" / "train.html") for option in ("warmup-epochs", "lr-scheduler"))


@pytest.mark.slow
def test_every_public_name_is_there(site):
    import mvlib

    headings = re.findall(r'<h3 id="mvlib\.[\w.]*?(\w+)" class="doc doc-heading">', read(site / "api" / "index.html"))
    assert set(mvlib.__all__) - set(headings) == {"__version__"}


@pytest.mark.slow
def test_recipes_have_their_published_figures(site):
    import yaml

    page = read(site / "recipes.html")
    for path in (ROOT / "configs").rglob("*.yaml"):
        published = yaml.safe_load(read(path)).get("published") or {}
        name = re.escape(path.name)
        row = re.search(rf"<tr>\s*<td><code>{name}</code>.*?</tr>", page, re.DOTALL)
        assert row, path
        assert all(f"<td>{figure}</td>" in row[0] for figure in published.values()), row[0]


@pytest.mark.slow
def test_the_search_is_in_a_file(site):
    assert "create_model" in read(site / "search" / "search_index.js")


@pytest.mark.slow
@pytest.mark.skipif(CHROME is None, reason="no chromium or google-chrome to open the page with")
def test_the_search_finds_without_a_server(site, tmp_path):
    """Typed into a page that is a file: browsers start no worker there (see docs/assets/iframe-worker.js)."""
    page = site / "searching.html"
    page.write_text(read(site / "index.html").replace("</body>", """<script>addEventListener("load", () => {
        const box = document.querySelector("input.md-search__input"), tick = setInterval(() => {
            box.focus()
            box.value = "create_model"
            box.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}))
            const found = document.querySelectorAll(".md-search-result__item").length
            if (found) { document.title = `found ${found}`; clearInterval(tick) }
        }, 100)
    })</script></body>""", 1), encoding="utf-8")
    done = subprocess.run(
        [CHROME, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom",
         "--virtual-time-budget=20000", f"--user-data-dir={tmp_path}", page.as_uri()], capture_output=True, text=True,
        timeout=300)
    page.unlink()
    assert re.search(r"<title>found [1-9]", done.stdout), done.stderr[-2000:]


def test_the_script_builds_it():
    script = read(ROOT / "scripts" / "docs.sh")
    assert "setup_env docs" in script and "mkdocs build --strict" in script
    assert subprocess.run(["bash", "-n", str(ROOT / "scripts" / "docs.sh")]).returncode == 0


@pytest.mark.slow
def test_pictures_from_outside_docs_come_along(site):
    assert (Path(site) / "outside" / "benchmarks" / "bubble.png").stat().st_size > 10_000
