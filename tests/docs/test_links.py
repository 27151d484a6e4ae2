"""Links of README.md, CONTRIBUTING.md and docs/ lead somewhere. Those to outside are read, not followed."""

import re
import sys
from functools import cache
from urllib.parse import urlsplit

import pytest

from .blocks import PAGES, ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import docs_pages

HOSTS = {"huggingface.co", "pytorch.org", "arxiv.org", "github.com", "docs.pytorch.org", "127.0.0.1:8000"}
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\s*\)|<(https?://[^>\s]+)>|"
                   r"^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)


def prose(text):
    """A page without its code, comments and HTML's attributes."""
    text = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`+[^`]*`+|<!--.*?-->", "", text, flags=re.DOTALL)


def links(page):
    return [next(filter(None, found)) for found in _LINK.findall(prose((ROOT / page).read_text(encoding="utf-8")))]


@cache
def generated():
    return {name for name, _ in [*docs_pages._cli_pages(), *docs_pages._api_pages()]} | {
        "contributing.md", "changelog.md", "examples.md"}


def anchors(path):
    """Of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^( *)```.*?^\1```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[ -]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def problem(page, link):
    """What is wrong with a link; None if nothing."""
    if re.match(r"[a-z]+:", link):
        url = urlsplit(link)
        if url.scheme != "https" and url.netloc != "127.0.0.1:8000" or not url.netloc:
            return "is no https address"
        return None if url.netloc in HOSTS else f"leads to {url.netloc}, which HOSTS does not list"
    target, _, anchor = link.partition("#")
    place = (ROOT / page).parent
    path = (place / target).resolve() if target else ROOT / page
    name = path.relative_to(ROOT / "docs").as_posix() if path.is_relative_to(ROOT / "docs") else ""
    if name in generated() or name.startswith("zoo/"):  # the build of the site looks into these
        return None
    if not path.is_relative_to(ROOT) or not path.exists():
        return "leads nowhere"
    return f"has no heading '{anchor}'" if anchor and anchor not in anchors(path) else None


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md", "examples/README.md"])
def test_links_lead_somewhere(page):
    assert not [f"{link} {said}" for link in links(page) if (said := problem(page, link))]


def test_there_are_links():
    assert len([link for page in PAGES for link in links(page)]) > 30


@pytest.mark.parametrize("link, said", [
    ("nothing.md", "leads nowhere"), ("predict.md#nothing", "has no heading 'nothing'"),
    ("http://arxiv.org/abs/1", "is no"),
    ("https://elsewhere.example/", "HOSTS"), ("../../outside.md", "leads nowhere"),
])
def test_broken_links_are_found(link, said):
    assert said in problem("docs/index.md", link)


@pytest.mark.parametrize("link", ["predict.md", "predict.md#the-second-time", "cli/predict.md", "../CONTRIBUTING.md"])
def test_links_that_lead_somewhere_are_not(link):
    assert problem("docs/index.md", link) is None


def test_relative_links_of_all_shapes_are_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[a](a.md) ![b](b.png) [c `code`](c.md#x) [![d](d.png)](e.md) <https://arxiv.org/abs/1>\n"
                    "`[no](no.md)`\n\n```text\n[no](no.md)\n```\n")
    assert set(links(page)) == {"a.md", "b.png", "c.md#x", "e.md", "https://arxiv.org/abs/1"}
