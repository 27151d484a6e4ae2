"""Fields of a record: which one is the label, and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...errors import ConfigError
from ...names import closest

__all__ = ["IMAGE_FIELDS", "LABEL_FIELDS", "find_field", "get_field", "get_target", "has_field", "target_fields"]

IMAGE_FIELDS = ("path", "file", "filename", "image")
LABEL_FIELDS = ("label", "class", "target")


def find_field(wanted: str | None, usual: Iterable[str], known: Iterable[str], what: str, where: str) -> str:
    """The field that `wanted` names, otherwise the first of the `usual` ones that is there. Case does not matter.

    Raises:
        ConfigError: There is none; says which fields there are.
    """
    known = list(known)
    lower = {name.strip().lower(): name for name in reversed(known)}
    for name in [wanted] if wanted else usual:
        if name.lower() in lower:
            return lower[name.lower()]
    expected = f"'{wanted}'{closest(wanted, known)}" if wanted else ", ".join(f"'{name}'" for name in usual)
    raise ConfigError(f"{where} has no {what} column {expected}; its columns are "
                      f"{', '.join(repr(name) for name in known)}")


def target_fields(target_key: str | None) -> tuple[str, ...]:
    """Names in a comma-separated `target_key`.

    Raises:
        ConfigError: One is empty or stands twice.
    """
    keys = tuple(key.strip() for key in (target_key or "").split(",")) if target_key else ()
    if not all(keys) or len(set(keys)) != len(keys):
        raise ConfigError(f"target_key '{target_key}' is to name different fields, separated by commas")
    return keys


def has_field(record: Any, path: str) -> bool:
    try:
        get_field(record, path)
    except (KeyError, TypeError):
        return False
    return True


def get_field(record: Any, path: str) -> Any:
    """A field of a nested record by "a/b/c"; from a list of records on the way, the list of their fields."""
    if isinstance(record, Mapping) and path in record:
        return record[path]
    head, slash, rest = path.partition("/")
    if isinstance(record, (list, tuple)):
        return [get_field(entry, path) for entry in record]
    value = record[head]
    return get_field(value, rest) if slash else value


def get_target(record: Any, keys: Sequence[str]) -> Any:
    """The value of a single field; of several fields, the numbers of those above zero (a label each, as in timm)."""
    if len(keys) == 1:
        return get_field(record, keys[0])
    return [number for number, key in enumerate(keys) if get_field(record, key) > 0]
