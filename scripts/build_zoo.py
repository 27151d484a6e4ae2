#!/usr/bin/env python
"""Make the model zoo of the documentation from the catalogs: its rows, and a page a family. Imports no torch.

    python scripts/build_zoo.py OUT/     the zoo alone: open OUT/index.html

mkdocs runs it as a hook (`hooks:` in mkdocs.yml); what it makes is never committed. `docs/zoo` holds the page itself.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import functools
import html
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mvlib
from mvlib import charts, query, registry
from mvlib.names import natural_key
from mvlib.tasks import CLASSIFICATION, TASKS

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "docs" / "zoo"
PAPERS = ROOT / "scripts" / "zoo_papers.yaml"
ASSETS = ("zoo.css", "zoo.js", "query.js")
MARK = "<!-- families -->"
_ARXIV = re.compile(r"(?:arXiv:|arxiv\.org/abs/)(\d{4}\.\d{4,5})")
_TITLE = re.compile(r'"([^"]+)"[^"]{0,40}?(?:arXiv:|\(?https://arxiv\.org/abs/)(\d{4}\.\d{4,5})')
_SHELL = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>
body {{ max-width: 1220px; margin: 0 auto; padding: 16px; background: var(--zoo-page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }}
a {{ color: var(--front); }} pre {{ overflow-x: auto; padding: .6em; background: var(--band); }}
p, li {{ overflow-wrap: break-word; }}
</style></head><body>
{body}
</body></html>
"""


@dataclass(frozen=True)
class Paper:
    """A paper that a family's module cites.

    Attributes:
        id: arXiv's number.
        label: Its title, or what it brought; "" where only the number is known.
        patterns: Wildcards of the architectures that it describes.
    """

    id: str
    label: str = ""
    patterns: tuple[str, ...] = ()

    @property
    def year(self) -> int:
        """Of its first version."""
        return query.year_of(self.id)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the pages; it is made")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name in ASSETS:
        shutil.copyfile(SOURCE / name, out / name)
    for name, text in assets().items():
        (out / name).write_text(text, encoding="utf-8")
    pages = {"index.md": index_page(), **family_pages()}
    for name, text in pages.items():
        (out / name).with_suffix(".html").write_text(_alone(text), encoding="utf-8")
    print(f"{out / 'index.html'}: {len(records())} rows, {len(pages) - 1} families")
    return 0


def _alone(text: str) -> str:
    """A page of the site as one that needs no theme."""
    import markdown

    matter, _, body = text.removeprefix("---\n").partition("\n---\n")
    return _SHELL.format(title=html.escape(yaml.safe_load(matter)["title"]),
                         body=markdown.markdown(body, extensions=["fenced_code"]))


# mkdocs

def on_files(files: Any, config: Any) -> Any:
    """mkdocs' hook: add what is made."""
    from mkdocs.structure.files import File, InclusionLevel

    ending = "/" if config.use_directory_urls else ".html"
    for name, text in {**assets(ending), **family_pages(ending)}.items():
        files.append(File.generated(config, f"zoo/{name}", content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """mkdocs' hook: list the families where the zoo's page has the mark."""
    if page.file.src_uri != "zoo/index.md":
        return markdown
    return markdown.replace(MARK, families_list("/" if config.use_directory_urls else ".html"))


# the rows

@functools.cache
def records() -> tuple[query.Record, ...]:
    """All weights, and architectures without, in the order of their names."""
    return tuple(query.search(published=False, sort="name"))


def rows() -> dict[str, list[Any]]:
    """Columns of the table, by field: those of `search`, and `described`, arXiv's number of the paper that describes
    the architecture."""
    names = [name for name in query.FIELDS if name != "cached"]  # that is a matter of the reader's machine
    columns = {name: [getattr(record, name) for record in records()] for name in names}
    return {**columns, "described": [query.papers().get(record.arch) for record in records()]}


def assets(ending: str = ".html") -> dict[str, str]:
    """Files beside the pages, by name: the rows, the colours, and what all our charts share.

    Args:
        ending: Of the families' pages in links: ".html" or "/".
    """
    columns, texts = rows(), {}
    for name, values in columns.items():
        if name == "described" or query.FIELDS[name].kind == "text":
            known = sorted({value for value in values if value is not None}, key=lambda text: (natural_key(text), text))
            codes = {text: code for code, text in enumerate(known)}  # which sort as search sorts the texts
            texts[name], columns[name] = known, [None if value is None else codes[value] for value in values]
    fields = {name: {"kind": field.kind, "unit": field.unit, "heading": field.heading, "descending": field.descending,
                     "digits": field.digits, "percent": field.percent, "figure": name in query.FIGURES}
              for name, field in query.FIELDS.items()}
    data = {"count": len(records()), "fields": fields, "otherNames": query.OTHER_NAMES, "meant": query.MEANT,
            "units": {f"{unit:.0f}": name for unit, name in query.UNITS.items()}, "columns": columns,
            "texts": texts, "tasks": {name: task.columns for name, task in TASKS.items()}, "family": f"*{ending}",
            "version": mvlib.__version__}
    chart = (Path(charts.__file__).with_name("chart.js")).read_text(encoding="utf-8")
    light, dark = (charts.css_colours({**palette, "zoo-page": palette["page"]})
                   for palette in (charts.LIGHT, charts.DARK))
    return {
        "data.js": f"const zooData = {json.dumps(data, separators=(',', ':'))};\n",
        "chart.js": f"const zooChart = (() => {{\n{chart}return {{node, words, ticks, ruler}};\n}})();\n",
        # The theme's switch says which; without the theme, the system does.
        "chart.css": f"body {{ {light} }}\nbody[data-md-color-scheme=slate] {{ {dark} }}\n"
                     f"@media (prefers-color-scheme: dark) {{ body:not([data-md-color-scheme]) {{ {dark} }} }}\n",
    }


# papers

@functools.cache
def papers_of(family: str) -> tuple[Paper, ...]:
    """The papers of a family; the first of them whose patterns fit describes an architecture."""
    titles = {number: re.sub(r"\s+", " ", title) for title, number in _TITLE.findall(description(family))}
    titles.update(_catalog_titles(family))
    return tuple(replace(paper, label=titles.get(paper.id, paper.label)) for paper in _cited(family))


@functools.cache
def _cited(family: str) -> tuple[Paper, ...]:
    """The papers, before their titles; the registry has no part in it."""
    given = _given_papers().get(family)
    if given is not None:
        return tuple(Paper(str(number or ""), label, tuple(patterns)) for label, number, *patterns in given)
    cited = list(dict.fromkeys(_ARXIV.findall(description(family))))
    if len(cited) > 1:
        raise SystemExit(f"{PAPERS.name} does not say which of {', '.join(cited)} describes which of '{family}'")
    return tuple(Paper(number, "", ("*",)) for number in cited)


@functools.cache
def _given_papers() -> Mapping[str, Sequence[Any]]:
    return yaml.safe_load(PAPERS.read_text(encoding="utf-8"))


@functools.cache
def _catalog_titles(family: str) -> Mapping[str, str]:
    found = {}
    for record in _of(family):
        config = registry.get_pretrained_cfg(record.name)
        if config and config.paper_name and isinstance(config.paper_ids, str):
            found[config.paper_ids.removeprefix("arXiv:")] = config.paper_name
    return found


def paper_of(family: str | None, architecture: str) -> Paper | None:
    """The paper that describes an architecture; None where there is none, or it isn't known."""
    if family is None or architecture.startswith("test_"):  # tiny ones, for tests
        return None
    for paper in _cited(family):
        if any(fnmatch.fnmatchcase(architecture, pattern) for pattern in paper.patterns):
            return paper if paper.id else None
    return None


# pages

@functools.cache
def description(family: str) -> str:
    """What the family's module says of it; "" for those that are torchvision's own."""
    path = ROOT / "mvlib" / "models" / f"{family}.py"
    if not path.exists():
        return ""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def families() -> list[str]:
    """All families, in alphabetical order."""
    return sorted({record.family for record in records() if record.family}, key=natural_key)


@functools.cache
def _by_family() -> Mapping[str, list[query.Record]]:
    found: dict[str, list[query.Record]] = {}
    for record in records():
        if record.family:
            found.setdefault(record.family, []).append(record)
    return found


def _of(family: str) -> list[query.Record]:
    return _by_family()[family]


def index_page(ending: str = ".html") -> str:
    """The zoo's page, with the families listed."""
    return (SOURCE / "index.md").read_text(encoding="utf-8").replace(MARK, families_list(ending))


def families_list(ending: str = ".html") -> str:
    """Links to the families' pages, as HTML."""
    items = "\n".join(f'<li><a href="{family}{ending}">{family}</a></li>' for family in families())
    return f'<ul class="zoo-families">\n{items}\n</ul>'


def family_pages(ending: str = ".html") -> dict[str, str]:
    """Pages of families as Markdown, by file name."""
    return {f"{family}.md": family_page(family, ending) for family in families()}


def family_page(family: str, ending: str = ".html") -> str:
    """A family: what it is, its papers, a snippet, its architectures and its weights."""
    rows = _of(family)
    home = "../" if ending == "/" else "index.html"
    up = "../" if ending == "/" else ""  # a page is a folder then
    styles = "\n".join(f'<link rel="stylesheet" href="{up}{name}">' for name in ("chart.css", "zoo.css"))
    parts = [f"---\ntitle: {family}\nhide: [navigation]\n---", styles, f"# {family}", *_prose(family)]
    parts.append(f'<p><a href="{home}#q=family%3D{family}">All of {family} in the zoo</a>, with filter and chart.</p>')
    papers = sorted((paper for paper in papers_of(family) if paper.id), key=lambda paper: paper.id)  # oldest first
    if papers:
        parts += ["## Papers", "\n".join(_paper_item(paper) for paper in papers)]
    parts += ["## Use", _snippet(rows), "## Architectures", _architectures(family, rows)]
    weights = [record for record in rows if record.source]
    if weights:
        parts += ["## Weights", _weights(weights)]
    return "\n\n".join(parts) + "\n"


def _prose(family: str) -> Iterator[str]:
    """The description in Markdown: numbers of papers become links, indented tables stay as they are."""
    text = description(family)
    if not text:
        tasks = dict.fromkeys(record.task for record in _of(family))
        names = " and ".join(f"{TASKS[task].model}" for task in tasks)
        yield f"torchvision's own, filled by mvlib's loader; each model is {names.replace(' and a', ' or a')}."
        return
    for block in re.split(r"\n\s*\n", text):
        lines = block.splitlines()
        if re.fullmatch(r"Papers?:", lines[0]):
            continue  # they have a section of their own
        if all(line.startswith("    ") for line in lines):
            yield "```text\n" + textwrap.dedent(block) + "\n```"
        else:
            yield _linked(block)


def _linked(text: str) -> str:
    """Text with links for addresses and arXiv's numbers, safe in Markdown but for code and lists."""
    pieces = re.split(r"(`[^`]+`|https?://[^\s)>,;]+|arXiv:\d{4}\.\d{4,5})", text)
    for i, piece in enumerate(pieces):
        if piece.startswith("http"):
            address = piece.rstrip(".")
            label = re.sub(r"^https?://(arxiv\.org/abs/)?", lambda match: "arXiv:" if match[1] else "", address)
            pieces[i] = f"[{label}]({address})" + piece[len(address):]
        elif piece.startswith("arXiv:"):
            pieces[i] = f"[{piece}](https://arxiv.org/abs/{piece[6:]})"
        elif not piece.startswith("`"):
            pieces[i] = re.sub(r"([*_<\[\]])", r"\\\1", piece)
    return "".join(pieces)


def _paper_item(paper: Paper) -> str:
    label = paper.label or f"arXiv:{paper.id}"
    names = "" if paper.patterns in ((), ("*",)) else ": " + ", ".join(f"`{pattern}`" for pattern in paper.patterns)
    return f"- [{_escape(label)}](https://arxiv.org/abs/{paper.id}), arXiv:{paper.id}, {paper.year}{names}"


def _escape(text: str) -> str:
    return re.sub(r"([*_<\[\]`\\])", r"\\\1", text)


def _snippet(rows: Iterable[query.Record]) -> str:
    """How the most accurate weights are had, or an architecture where none are published."""
    rows = list(rows)
    figure = TASKS[rows[0].task].columns[0]
    sign = 1 if query.FIELDS[figure].descending else -1
    best = max(rows, key=lambda r: (r.source is not None, sign * (getattr(r, figure) or 0), -(r.params or 0)))
    lines = ["import mvlib", "", f'model = mvlib.create_model("{best.name}").eval()']
    if best.task != CLASSIFICATION:
        lines[-1] += f"  # takes {TASKS[best.task].takes}"
    elif best.source:
        lines.append("transform = mvlib.create_transform(**mvlib.resolve_data_config(model=model))")
    return "```python\n" + "\n".join(lines) + "\n```"


def _architectures(family: str, rows: Sequence[query.Record]) -> str:
    by_name: dict[str, list[query.Record]] = {}
    for record in rows:
        by_name.setdefault(record.arch, []).append(record)
    body = []
    for name, group in by_name.items():
        first = registry.get_pretrained_cfg(name)
        default = next((r for r in group if first and r.name == first.name), group[0])
        paper = paper_of(family, name)
        count = sum(record.source is not None for record in group)
        body.append([_code(name), _number(default, "params"), _number(default, "gmacs"),
                     _number(default, "activations"), _number(default, "input"), str(paper.year) if paper else "",
                     str(count)])
    return _table(["architecture", "params (M)", "GMACs", "activations (M)", "input", "year", "weights"], body, texts=1)


def _weights(rows: Sequence[query.Record]) -> str:
    figures = list(dict.fromkeys(name for record in rows for name in TASKS[record.task].columns))
    figures = [name for name in figures if any(getattr(record, name) is not None for record in rows)]
    body = [[_code(record.name), *(_number(record, name) for name in figures), _number(record, "test"),
             _number(record, "classes"), html.escape(record.license or ""), _source(record.source or "")]
            for record in rows]
    return _table(["weights", *(name.replace("_", " ") for name in figures), "evaluated at (px)", "outputs", "licence",
                   "source"], body, texts=1, last=2)


def _number(record: query.Record, name: str) -> str:
    value = getattr(record, name)
    return "" if value is None else f"{value:.{query.FIELDS[name].digits}f}"


def _code(name: str) -> str:
    return f"<code>{html.escape(name)}</code>"


def _source(source: str) -> str:
    if source.startswith("hf-hub:"):
        address = f"https://huggingface.co/{source[7:].partition('@')[0]}"
        return f'<a href="{html.escape(address)}">{html.escape(source.partition("/")[0])}</a>'
    if source.startswith(("http://", "https://")):
        return f'<a href="{html.escape(source)}">{html.escape(source.split("/")[2])}</a>'
    return html.escape(source.partition("/")[0])


def _table(headings: Sequence[str], body: Iterable[Sequence[str]], texts: int, last: int = 0) -> str:
    """A table in HTML that scrolls sideways within itself; the first `texts` and the `last` columns are texts."""
    def cells(tag: str, values: Sequence[str]) -> str:
        ends = range(texts, len(values) - last)
        return "".join(f"<{tag}{'' if i in ends else ' class=text'}>{value}</{tag}>" for i, value in enumerate(values))

    lines = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in body)
    excluded = "" if headings[0] == "architecture" else " data-search-exclude"  # weights are the zoo's to find
    return (f'<div class="zoo-wide" tabindex="0" role="region" aria-label="{headings[0]}"{excluded}>'
            '<table class="zoo-list">\n'
            f"<thead><tr>{cells('th', headings)}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table></div>")


if __name__ == "__main__":
    raise SystemExit(main())
