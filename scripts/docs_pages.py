"""Pages of the site that are made of the code: the command line, Python's names, recipes, and
what stands elsewhere in the repository (CONTRIBUTING.md, CHANGELOG.md, the examples).

A hook of mkdocs (see mkdocs.yml). It imports no torch: parsers and lists of names need none, docstrings are read from
the source by mkdocstrings.
"""

from __future__ import annotations

import argparse
import ast
import html
import importlib
import posixpath
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # hooks are imported from elsewhere

PACKAGES = {
    "data": "Preprocessing, augmentation, data sets and loaders.",
    "layers": "Blocks that more than one family uses; what `timm.layers` has, too, has its name and arguments here.",
    "loss": "Losses of training.",
    "optim": "Optimizers, and groups of parameters for them.",
    "scheduler": "Schedules of the learning rate.",
    "train": "Training: the loop, checkpoints, averaged weights, processes.",
    "optimization": "Models made ready to answer fast, in torch.",
    "engines": "Exports, and what runs them.",
}
GROUPS = {  # of mvlib's own names: the modules that define them, in the order of the page
    "Models": ("factory", "models.base", "features"),
    "Names": ("registry", "names", "query"),
    "Weights": ("weights", "loading", "publish", "enums", "builders"),
    "Data": ("data",),
    "Training": ("optim", "scheduler"),
    "Speed": ("optimization", "engines.exporter", "benchmark", "compare"),
    "Errors": ("errors",),
}


def on_config(config: Any) -> Any:
    """A section of the nav that is said to be a folder, such as `cli/`, gets its pages."""
    sections = {"cli/": [page for page, _ in _cli_pages()], "api/": [page for page, _ in _api_pages()]}
    for entry in config.nav:
        for title, pages in entry.items():
            if isinstance(pages, str) and pages in sections:
                entry[title] = sections[pages]
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    pages = [*_cli_pages(), *_api_pages(), ("contributing.md", _from_top("CONTRIBUTING.md")),
             ("changelog.md", _from_top("CHANGELOG.md")), ("examples.md", _from_top("examples/README.md"))]
    for name, text in pages:
        files.append(File.generated(config, name, content=text))
    outside = {found for file in files.documentation_pages() for found in _outside_pictures(file)}
    for target in sorted(outside):
        files.append(File.generated(config, f"outside/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    markdown = markdown.replace("<!-- recipes -->", "\n".join(_recipes()))
    return _LINK.sub(lambda found: _mend_link(found, page.file.src_uri), markdown)


# Links out of docs/: pictures come along, what the site has is named as it is here, other files are named alone.
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((\.\./[\w./-]+)(#[\w-]*)?\)")
_HERE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md",
         "examples/README.md": "examples.md"}


def _outside(link: str, page: str) -> str | None:
    """A relative link's target from the repository's top, if it is not in docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path.startswith("docs/") else path


def _mend_link(found: re.Match[str], page: str) -> str:
    mark, text, link, anchor = found.groups()
    target = _outside(link, page)
    if target is None:
        return found[0]
    up = "../" * page.count("/")
    if mark:
        return f"![{text}]({up}outside/{target})"
    return f"[{text}]({up}{_HERE[target]}{anchor or ''})" if target in _HERE else text


def _outside_pictures(file: Any) -> Iterator[str]:
    for found in _LINK.finditer(file.content_string):
        target = _outside(found[3], file.src_uri)
        if found[1] and target is not None:
            yield target


def _from_top(name: str) -> str:
    """A page of the repository's top as one of the site: links into docs/ are links beside it."""

    def mend(found: re.Match[str]) -> str:
        text, target = found.groups()
        if target.startswith("docs/"):
            return f"[{text}]({target.removeprefix('docs/')})"
        return f"[{text}]({_HERE[target]})" if target in _HERE else f"`{text.strip('`')}`"

    return re.sub(r"\[([^\]]*)\]\((?!https?:|#)([\w./-]+)\)", mend, (ROOT / name).read_text(encoding="utf-8"))


# The command line


def _cli_pages() -> list[tuple[str, str]]:
    from mvlib import cli

    pages, rows = [], []
    for name, summary in cli._COMMANDS.items():
        module = importlib.import_module(f"mvlib.cli.{name}_command")
        parser = cli.Parser(prog=f"mvlib {name}", description=summary[0].upper() + summary[1:] + ".")
        parser.examples = getattr(module, "EXAMPLES", ())
        module.add_arguments(parser)
        pages.append((f"cli/{name}.md", "\n".join(_parser_page(parser))))
        rows.append(f"| [`mvlib {name}`]({name}.md) | {summary} |")
    head = ("# Command line\n\nEach command says the same itself: `mvlib COMMAND --help` what most people use, "
            "`--help-all` the rest. An option may be shortened as "
            "long as it is clear which one is meant.\n\n| command | what it does |\n| --- | --- |\n")
    return [("cli/index.md", head + "\n".join(rows) + "\n"), *pages]


def _parser_page(parser: Any) -> Iterator[str]:
    usage = parser.format_usage().removeprefix("usage: ")
    yield f"# {parser.prog}\n\n{parser.description}\n\n```text\n{textwrap.dedent(usage)}```\n"
    if parser.examples:
        yield "```bash\n" + "\n".join(parser.examples) + "\n```\n"
    for group in parser._action_groups:
        actions = [action for action in group._group_actions
                   if action.help != argparse.SUPPRESS and "--help" not in action.option_strings
                   and "--help-all" not in action.option_strings]
        if not actions:
            continue
        title = {"positional arguments": "Arguments", "options": "Options"}.get(group.title or "", group.title or "")
        yield f"## {title[0].upper() + title[1:]}\n"
        if group.description:
            yield f"{_escape(group.description)}\n"
        for action in actions:
            yield f"`{_usage(action)}`{{ #{_anchor(action)} }}\n:   {_help(parser, action)}\n"
    if parser.epilog:
        yield f"{_escape(parser.epilog.strip())}\n"


def _usage(action: argparse.Action) -> str:
    if action.nargs == 0:
        value = ""
    elif action.metavar is not None:
        value = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    elif action.choices is not None:
        value = "|".join(map(str, action.choices))
    else:
        value = action.dest.upper() if action.option_strings else action.dest
    if action.nargs in ("*", "+", argparse.REMAINDER):
        value += " ..."
    return f"{', '.join(action.option_strings)} {value}".strip() if action.option_strings else value


def _anchor(action: argparse.Action) -> str:
    return max(action.option_strings, key=len).lstrip("-") if action.option_strings else action.dest


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    said = parser._get_formatter()._expand_help(action) if action.help else "-"
    return _escape(" ".join(said.split()))


def _escape(text: str) -> str:
    """A help text as Markdown that says the same: nothing in it is markup."""
    return re.sub(r"([\\`*_{}\[\]#|~^])", r"\\\1", html.escape(text, quote=False))


# Python's names


def _api_pages() -> list[tuple[str, str]]:
    first = ["# Python\n\nThe public names of `mvlib`, by what they are for. They are resolved on first use: importing "
             "mvlib imports no torch.\n"]
    names_of = _public("mvlib")
    grouped = [module for modules in GROUPS.values() for module in modules]
    more = [module.removeprefix("mvlib.") for module in names_of if module.removeprefix("mvlib.") not in grouped]
    for title, modules in {**GROUPS, "More": more}.items():
        entries = [f"::: mvlib.{module}.{name}\n    options:\n      heading: mvlib.{name}\n      toc_label: {name}\n"
                   f"      heading_level: 3\n" for module in modules for name in names_of[f"mvlib.{module}"]]
        first += [f"## {title}\n", *entries] if entries else []
    pages = [("api/index.md", "\n".join(first))]
    for package, says in PACKAGES.items():
        lines, made = [f"# mvlib.{package}\n\n{says}\n"], []
        for module, names in _public(f"mvlib.{package}").items():
            written = _written_in(ROOT / f"{module.replace('.', '/')}.py")
            made += [f"`{name}`" for name in names if name not in written]
            lines += [f"::: {module}.{name}\n    options:\n      heading: mvlib.{package}.{name}\n"
                      f"      toc_label: {name}\n" for name in names if name in written]
        if made:
            lines.append(f"## More names\n\nOf torch's, or made of others of these: {', '.join(sorted(made))}.\n")
        pages.append((f"api/{package}.md", "\n".join(lines)))
    return pages


def _public(package: str) -> dict[str, list[str]]:
    """The names that a package offers, by the module that defines them, as its stub or its imports say."""
    folder = ROOT / package.replace(".", "/")
    stub = folder / "__init__.pyi"
    source = stub if stub.exists() else folder / "__init__.py"
    found: dict[str, list[str]] = {}
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ImportFrom) or node.level != 1 or node.module is None:
            continue
        names = [alias.name for alias in node.names if alias.asname is None]  # "as" names modules
        if names == ["*"]:
            names = _all_of(folder / f"{node.module.replace('.', '/')}.py")
        if names:
            found.setdefault(f"{package}.{node.module}", []).extend(names)
    return found


def _all_of(source: Path) -> list[str]:
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def _written_in(source: Path) -> set[str]:
    """The names that a module's text defines, which can be read without importing it."""
    if not source.exists():
        source = source.with_suffix("") / "__init__.py"
    found: set[str] = set()
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found.update(getattr(target, "id", "") for target in node.targets)
        elif isinstance(node, ast.AnnAssign):
            found.add(getattr(node.target, "id", ""))
    return found


# Recipes


def _recipes() -> Iterator[str]:
    for folder in sorted({path.parent for path in (ROOT / "configs").rglob("*.yaml")}):
        place = folder.relative_to(ROOT).as_posix()
        rows = [(path, yaml.safe_load(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.yaml"))]
        yield f"## {place}\n"
        yield "| recipe | what it is | top-1 | top-5 | begins with |\n| --- | --- | --- | --- | --- |"
        for path, recipe in rows:
            published = recipe.get("published") or {}
            figures = " | ".join(f"{published[key]}" if key in published else "" for key in ("top1", "top5"))
            begins = f"`{recipe['extends']}`" if "extends" in recipe else ""
            yield f"| `{path.name}` | {_escape(recipe['title'])} | {figures} | {begins} |"
        yield ""
        sources = sorted({recipe["source"] for _, recipe in rows if recipe["source"].startswith("http")})
        if sources:
            yield "Figures: " + ", ".join(f"<{source}>" for source in sources) + "\n"
