#!/usr/bin/env python
"""Write what the registry reads in place of the families and the YAML catalogs, all in mvlib/catalog; and README's
number of models.

    python scripts/build_index.py              write it; after a change of a family or a catalog
    python scripts/build_index.py --check      write nothing; say what is stale, exit 1 if anything

FAMILY.json is the catalog FAMILY.yaml in JSON, which is read many times faster. index.json says which family defines
which architecture, and which tags it has, the default first. Its layout, by family:

    models      {architecture: [tags]}
    weightless  {architecture: [those of its tags that have no source]}
    tasks       {architecture: what it is for, where that is not classification}
    aliases     {other name: architecture or architecture.tag}
    deprecated  {old name: architecture or architecture.tag, or null where the model is gone}
    builders    {torchvision's builder: {weights: name of its Enum}}

papers.json is {architecture: arXiv's number of the paper that describes it}, from the modules and zoo_papers.yaml.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import build_zoo

import mvlib.models
from mvlib import registry
from mvlib.names import natural_key
from mvlib.tasks import CLASSIFICATION
from mvlib.weights import Catalog, load_catalog

CATALOGS = Path(registry.CATALOG_DIR)
INDEX = CATALOGS / "index.json"
PAPERS = CATALOGS / "papers.json"
README = Path(__file__).resolve().parents[1] / "README.md"
MARKS = "<!-- models -->", "<!-- end -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if the index is stale")
    args = parser.parse_args()
    index = build()
    problems = list(verify(index))
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        return 1
    text = render(index)
    copies = {path.with_suffix(".json"): as_json(path) for path in sorted(CATALOGS.glob("*.yaml"))}
    copies[PAPERS] = papers(index)
    if args.check:
        stale = list(differences(_text(INDEX), text))
        stale += [f"{path.name} is stale; run scripts/build_index.py"
                  for path, wanted in copies.items() if _text(path) != wanted]
        if _text(README) != with_families(_text(README), index):
            stale.append("README.md counts other models than there are; run scripts/build_index.py")
        print(*stale or [f"{INDEX.name} is up to date"], sep="\n")
        return int(bool(stale))
    INDEX.write_text(text, encoding="utf-8")
    for path, content in copies.items():
        path.write_text(content, encoding="utf-8")
    README.write_text(with_families(_text(README), index), encoding="utf-8")
    models = [tags for family in index.values() for tags in family["models"].values()]
    print(f"{INDEX.name}: {len(index)} families, {len(models)} architectures, {sum(map(len, models))} weights configs")
    return 0


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def as_json(path: Path) -> str:
    """A catalog in JSON, an architecture a line."""
    catalog = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    architectures = _lines(catalog.pop("architectures", {}), " ")
    shared = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in catalog.items())
    return f'{{{shared}{"," if shared else ""}\n"architectures": {architectures}}}\n'


def papers(index: dict[str, dict[str, Any]]) -> str:
    """papers.json of the architectures of an index."""
    found = {name: paper.id for family, entry in index.items() for name in entry["models"]
             if (paper := build_zoo.paper_of(family, name)) is not None}
    return _lines(dict(sorted(found.items())), "") + "\n"


def build() -> dict[str, dict[str, Any]]:
    """The index, from the families' code and the catalogs; what stands in the present index has no part in it."""
    registry._registry.clear()
    for module in pkgutil.iter_modules(mvlib.models.__path__):
        importlib.import_module(f"mvlib.models.{module.name}")
    families = sorted({*registry.list_modules(), *(path.stem for path in CATALOGS.glob("*.yaml"))})
    return {family: describe(family) for family in families}


def describe(family: str) -> dict[str, Any]:
    """What the index says of one family."""
    path = CATALOGS / f"{family}.yaml"
    catalog = load_catalog(path) if path.exists() else Catalog(path, {}, {}, {})
    tasks = {name: task for name, tags in catalog.configs.items()
             if (task := next(iter(tags.values())).task) != CLASSIFICATION}
    # Other tasks' models are torchvision's, which registers them.
    defined = list(tasks) or (registry.list_models(module=family) if family in registry.list_modules() else [])
    unknown = [name for name in catalog.configs if name not in defined]
    if unknown:
        rest = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise SystemExit(f"{path}: no family module '{family}' defines {', '.join(unknown[:5])}{rest}; does the "
                         f"catalog wait for scripts/sync_catalog.py, or the family for its code?")
    return {
        "models": {name: list(catalog.configs.get(name, ())) for name in defined},
        "weightless": {
            name: without for name in defined
            if (without := [tag for tag, c in catalog.configs.get(name, {}).items() if not c.has_weights])
        },
        **({"tasks": tasks} if tasks else {}),
        "aliases": dict(sorted(catalog.aliases.items())),
        "deprecated": dict(sorted(catalog.deprecated.items())),
        "builders": dict(sorted(catalog.builders.items())),
    }


def verify(index: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What is wrong with names: an alias that hides a model or another alias, or one that stands for nothing."""
    models = {name: tags for family in index.values() for name, tags in family["models"].items()}
    seen: dict[str, str] = {}
    for module, family in index.items():
        for name, target in (*family["aliases"].items(), *family["deprecated"].items()):
            architecture, _, tag = (target or "").partition(".")
            if name in models or name in seen:
                yield f"{module}: '{name}' is taken, by {seen.get(name, 'an architecture')}"
            elif target is not None and architecture not in models:
                yield f"{module}: '{name}' stands for '{target}', which no family defines"
            elif tag and tag not in models[architecture]:
                yield f"{module}: '{name}' stands for '{target}', which is in no catalog"
            seen[name] = f"'{module}'"


def render(index: dict[str, dict[str, Any]]) -> str:
    """JSON with one name a line, so that a diff shows what changed."""
    parts = []
    for module, family in sorted(index.items()):
        sections = [f"{json.dumps(name)}: {_lines(family[name], ' ')}" for name in family]
        parts.append(f'"{module}": {{\n' + ",\n".join(sections) + "}")
    return "{" + ",\n".join(parts) + "}\n"


def with_families(text: str, index: dict[str, dict[str, Any]]) -> str:
    """README's text, with what is between the marks, how many classifiers there are, written anew."""
    before, start, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (start and end):
        raise SystemExit(f"README.md has no {MARKS[0]} ... {MARKS[1]}")
    families = [entry for entry in index.values() if not entry.get("tasks")]
    models = sum(len(entry["models"]) for entry in families)
    weights = sum(len(tags) for entry in families for tags in entry["models"].values())
    without = sum(len(tags) for entry in families for tags in entry["weightless"].values())
    counted = f"{models:,} architectures of {len(families)} families, with {weights - without:,} sets of weights"
    return f"{before}{start}{counted}{end}{after}"


def _lines(mapping: dict[str, Any], indent: str) -> str:
    if not mapping:
        return "{}"
    pairs = (f"{indent}{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in mapping.items())
    return "{\n" + ",\n".join(pairs) + "}"


def differences(current: str, wanted: str) -> Iterator[str]:
    """What the index in place has wrongly, a line for a name."""
    if current == wanted:
        return
    try:
        ours = json.loads(current)
    except json.JSONDecodeError:
        yield f"{INDEX.name} is missing or not JSON; run scripts/build_index.py"
        return
    theirs = json.loads(wanted)
    for family in sorted({*ours, *theirs}, key=natural_key):
        for part in {**theirs.get(family, {}), **ours.get(family, {})}:
            old, new = (index.get(family, {}).get(part, {}) for index in (ours, theirs))
            for name in {**new, **old}:
                if old.get(name, "absent") != new.get(name, "absent"):
                    yield (f"{INDEX.name}: {family}: {part}: {name}: is {old.get(name, 'absent')}, should be "
                           f"{new.get(name, 'absent')}; run scripts/build_index.py")
    if ours == theirs:
        yield f"{INDEX.name}: the order or the layout differs; run scripts/build_index.py"


if __name__ == "__main__":
    sys.exit(main())
