"""The grammar of model names: `[source:]architecture[.tag]`. Imports no torch.

    resnet50                          architecture
    resnet50.imagenet1k_v2            architecture and tag of its weights
    hf-hub:timm/resnet50.a1_in1k@rev  a hub repository, optionally at a revision
    local-dir:/models/mine            the same layout on disk
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from .errors import UnknownNameError

__all__ = ["SOURCES", "ModelName", "closest", "closest_path", "missing_folder", "natural_key", "natural_text",
           "parse_model_name", "split_model_name_tag", "weights_file"]

SOURCES = ("hf-hub", "local-dir")
_WEIGHTS_ENDINGS = (".safetensors", ".pth", ".pth.tar", ".pt", ".bin", ".ckpt", ".npz")
_MOST_ENTRIES = 10_000  # of a folder that are compared with a name
_ALIASES = {"hf_hub": "hf-hub", "hf": "hf-hub"}
# Two characters at least, so that the drive letter of a Windows path is not taken for a source.
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9+.\-_]+")
_DIGITS = re.compile(r"\d+")


class ModelName(NamedTuple):
    """A parsed model name.

    Attributes:
        source: "hf-hub", "local-dir", or None for a name of the registry.
        id: The architecture, or what stands behind the source prefix: repository (with @revision) or path.
        tag: Tag of the weights, "" if none is named.
    """

    source: str | None
    id: str
    tag: str = ""


def split_model_name_tag(model_name: str, no_tag: str = "") -> tuple[str, str]:
    """Split "resnet50.a1_in1k" into ("resnet50", "a1_in1k"); `no_tag` stands in where there is no tag.

    Raises:
        UnknownNameError: The name is not a str.
    """
    _check_text(model_name)
    architecture, _, tag = model_name.partition(".")
    return architecture, tag or no_tag


def parse_model_name(model_name: str) -> ModelName:
    """Parse a model name.

    Raises:
        UnknownNameError: The source prefix is unknown or nothing follows it, or the name looks like a path or a
            repository but has no prefix (where it can only be a path, what is missing there); or it is not a str.
    """
    _check_text(model_name)
    source, colon, rest = model_name.partition(":")
    if colon and _PREFIX.fullmatch(source):
        known = _ALIASES.get(source.lower(), source.lower())
        if known not in SOURCES:
            hint = closest(source, SOURCES)
            raise UnknownNameError(f"unknown source '{source}:' in model name '{model_name}'; "
                                   f"known sources: {', '.join(s + ':' for s in SOURCES)}{hint}")
        if not rest:
            raise UnknownNameError(f"model name '{model_name}' names nothing after the source '{source}:'")
        return ModelName(known, rest)
    if any(c in model_name for c in "/\\:"):
        if reason := weights_file(model_name) or missing_folder(model_name):
            raise UnknownNameError(reason)
        raise UnknownNameError(
            f"model name '{model_name}' looks like a repository or a path; write 'hf-hub:{model_name}' to load it from "
            f"the hub or 'local-dir:{model_name}' to load it from disk")
    return ModelName(None, *split_model_name_tag(model_name))


def weights_file(name: str) -> str | None:
    """What to say of a name that is a weights file's; None for any other name."""
    if not name.lower().endswith(_WEIGHTS_ENDINGS):
        return None
    return (f"'{name}' is the name of a weights file, not of a model: name the model, and give the file as its "
            f"checkpoint (--checkpoint, or checkpoint_path=)")


def missing_folder(name: str) -> str | None:
    """What to say of a name that is written as a path, and leads nowhere; None for any other name.

    Written as a path is what begins with ".", "/" or "~", ends in "/" or ".ov", has more than one slash, or begins with
    a folder that is there.
    """
    path = os.path.expanduser(name).rstrip("/")
    first, slash, _ = name.partition("/")
    if not (name.startswith((".", "/", "~")) or name.endswith(("/", ".ov")) or name.count("/") > 1
            or slash and os.path.isdir(first)) or os.path.exists(path or "/"):
        return None
    hub = f"; write 'hf-hub:{name}' to load it from the hub" if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) else ""
    above, below = os.path.split(path)
    if below == "export" and os.path.isdir(above):
        return f"there is no folder {name}: the run {above} has no export, which is written at the end of a training"
    return f"there is no folder {name}{closest_path(path, files=False) or hub}"


def closest_path(path: str | os.PathLike[str], files: bool = True) -> str:
    """The end of an error message on a path that leads nowhere: "; did you mean 'photos' in /data?", or "".

    Args:
        path: It; the name that is looked for is its first that is missing.
        files: Whether files may be meant, beside folders.
    """
    above, below = os.path.split(os.path.expanduser(os.fspath(path)).rstrip("/"))
    while above and not os.path.isdir(above):
        above, below = os.path.split(above)
        files = False  # what something is to lie in
    try:
        with os.scandir(above or ".") as entries:
            known = [entry.name for entry in itertools.islice(entries, _MOST_ENTRIES) if files or entry.is_dir()]
    except (OSError, ValueError):
        return ""
    near = closest(below, known, count=1)
    return f"{near.removesuffix('?')} in {above}?" if near and above not in ("", ".") else near


def _check_text(model_name: Any) -> None:
    if not isinstance(model_name, str):
        raise UnknownNameError(f"a model name is a str, such as 'resnet50', not {model_name!r}")


def natural_key(string_: str) -> list[int | str]:
    """Sort key under which "b2" stands before "b10"; case does not matter."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", string_.lower())]


def natural_text(text: str) -> str:
    """A text that sorts as `natural_key(text)` does. A million lists would keep the garbage collector busy."""
    return _DIGITS.sub(_number_text, text.lower())


def _number_text(match: re.Match[str]) -> str:
    """A number so that a shorter one sorts first, and before letters."""
    digits = match[0]
    if digits[0] == "0" or not digits.isascii():
        digits = str(int(digits))
    return f"\0{chr(len(digits))}{digits}"


def closest(name: str, known: Iterable[str], count: int = 3) -> str:
    """The end of an error message: "; did you mean 'a', 'b' or 'c'?", or "" where nothing is close."""
    from difflib import SequenceMatcher, get_close_matches  # only an error needs it

    lowered = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(name.lower(), lowered, n=20, cutoff=0.6)
    # As near as each other: in the order of a list, not from its end.
    near.sort(key=lambda match: (-SequenceMatcher(None, match, name.lower()).ratio(), natural_key(match)))
    matches = [f"'{lowered[match]}'" for match in near[:count]]
    if not matches:
        return ""
    listed = matches[0] if len(matches) == 1 else f"{', '.join(matches[:-1])} or {matches[-1]}"
    return f"; did you mean {listed}?"
