"""What an argument or a field may be, by its annotation, its default and its name. Imports no torch.

An annotation that says nothing that can be checked (a class, a type variable, a name that exists for type checkers
alone) allows everything, and so does one that its own default contradicts.
"""

from __future__ import annotations

import inspect
import math
import numbers
import reprlib
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["Parameter", "accepts", "arguments_of", "check_plain", "describe", "model_class", "nesting",
           "parameters_of", "shorten", "shorten_error", "summarize"]

# In somebody's config.json, of sizes, depths, widths: what is larger is hostile or broken.
_MAX_NUMBER = 65536
_MAX_TOTAL = 1 << 20
_MAX_TEXT = 1000
_MAY_BE_ZERO = (  # though their defaults are not
    "num_classes", "num_features", "depth", "depth_token_only", "local_up_to_layer", "parallel_depth")
_SCALARS = {bool: "a bool", int: "an int", float: "a number", str: "a str"}

_shortener = reprlib.Repr()
_shortener.maxstring = _shortener.maxother = _shortener.maxlong = 80


class _Summarizer(reprlib.Repr):
    """As source has it: classes and functions by their names."""

    def repr_type(self, value: type, level: int) -> str:
        return value.__name__

    def repr_function(self, value: types.FunctionType, level: int) -> str:
        return value.__name__

    def repr_partial(self, value: partial[Any], level: int) -> str:
        return f"partial({self.repr(value.func)}{''.join(f', {k}={self.repr(v)}' for k, v in value.keywords.items())})"


_summarizer = _Summarizer()
_summarizer.maxstring = _summarizer.maxother = 80


def shorten(value: Any) -> str:
    """`repr`, of a few dozen characters at most."""
    return _shortener.repr(value)


def summarize(arguments: Mapping[str, Any]) -> str:
    """Arguments as they stand in a call, each of a few dozen characters at most."""
    return ", ".join(f"{key}={_summarizer.repr(value)}" for key, value in arguments.items())


def shorten_error(error: Exception) -> str:
    """An error's first line, of a hundred characters or two."""
    line = (str(error).strip() or type(error).__name__).partition("\n")[0]
    return line if len(line) <= 200 else f"{line[:200]} ..."


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a value may stand where an annotation does; numbers of numpy and torch count as numbers."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(accepts(arg, value) for arg in args)
    if origin is Literal:
        return value in args
    if annotation in (None, type(None)):
        return value is None
    if annotation is bool:
        return hasattr(type(value), "__bool__")  # as all numbers have, and neither texts nor lists
    if annotation is int:
        return hasattr(type(value), "__index__") and not isinstance(value, bool)
    if annotation is float:
        return hasattr(type(value), "__float__")
    if annotation is str:
        return isinstance(value, str)
    kind = origin or annotation
    if kind in (type, Callable):
        return callable(value)
    if not isinstance(kind, type) or kind.__module__ not in ("builtins", "collections.abc"):
        return True
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping) and (len(args) != 2 or all(
            accepts(args[0], key) and accepts(args[1], item) for key, item in value.items()))
    if hasattr(kind, "__iter__") and not issubclass(kind, (str, bytes)):
        return _accepts_items(kind, args, value)
    return True


def _accepts_items(kind: type, args: tuple[Any, ...], value: Any) -> bool:
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__len__") or not hasattr(value, "__iter__"):
        return False
    items = list(value)
    if kind is tuple and args and args[-1] is not Ellipsis:
        return len(items) == len(args) and all(map(accepts, args, items))
    return not args or all(accepts(args[0], item) for item in items)


def describe(annotation: Any) -> str:
    """What `accepts` takes, in words: "an int or a list of int"."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(arg) for arg in args if arg is not type(None)))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    kind = origin or annotation
    if kind in (type, Callable):
        return "a class or function"
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "a mapping"
    if not args:
        return getattr(annotation, "__name__", str(annotation))
    count = "" if kind is not tuple or args[-1] is Ellipsis else f"{len(args)} "
    return f"{count}values, each {describe(args[0])}" if count else f"a list, each item {describe(args[0])}"


@dataclass(frozen=True)
class Parameter:
    """One argument of an architecture.

    Attributes:
        name: Its name.
        default: Its default, `inspect.Parameter.empty` where it has none.
        declared: Its annotation as it stands in the signature, perhaps as text.
        names: What the text may speak of: the globals of the function.
    """

    name: str
    default: Any
    declared: Any
    names: Mapping[str, Any]

    @cached_property
    def annotation(self) -> Any:
        """The annotation, `Any` where it says nothing that holds for the default too."""
        found = self.declared
        if isinstance(found, str):
            try:
                found = eval(found, dict(self.names))  # the source's own text, as typing.get_type_hints evaluates it
            except Exception:  # a name for type checkers alone
                return Any
        if found is inspect.Parameter.empty or self.has_default and not accepts(found, self.default):
            return Any
        return found

    @property
    def is_ours(self) -> bool:
        """Whether a function of mvlib's has it."""
        return self.names.get("__name__", "").startswith("mvlib.")

    @property
    def has_default(self) -> bool:
        return self.default is not inspect.Parameter.empty

    def problem(self, value: Any) -> str | None:
        """What is expected instead of a value; None where the value is as good as the signature can tell."""
        if not accepts(self.annotation, value):
            return describe(self.annotation)
        found = list(_numbers(value))
        if not all(math.isfinite(number) for number in found if not isinstance(number, int)):
            return "a finite number"
        least, most = self._range
        if any(number < least for number in found):
            return f"at least {least}"
        return f"at most {most}" if any(number > most for number in found) else None

    @property
    def _range(self) -> tuple[float, float]:
        if "drop" in self.name:
            return 0, 1
        if "init" in self.name:  # weights may be negative
            return -math.inf, math.inf
        if any(number < 0 for number in _numbers(self.default)):  # an index may count from the end
            return -math.inf, math.inf
        default = self.default if isinstance(self.default, (int, float)) else 0
        return int(type(default) is int and default > 0 and self.name not in _MAY_BE_ZERO), math.inf


def parameters_of(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters that can be given by name."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = getattr(inspect.unwrap(function), "__globals__", {})
    return {name: Parameter(name, p.default, p.annotation, names)
            for name, p in inspect.signature(function).parameters.items() if p.kind in named and name != "self"}


def arguments_of(entrypoint: Callable[..., Any]) -> dict[str, Parameter] | None:
    """The keyword arguments of a function that builds a model, and of the model's class, to which it passes on what it
    does not know; None where the signatures do not tell."""
    parameters = parameters_of(entrypoint)
    if not _takes_more(entrypoint):
        return parameters
    for base in getattr(model_class(entrypoint), "__mro__", ()):
        parameters = {**parameters_of(base.__init__), **parameters}
        if not _takes_more(base.__init__):
            return parameters
    return None  # also where the last class keeps its **kwargs for itself: nn.Module and object take anything


def model_class(entrypoint: Callable[..., Any]) -> type | None:
    """The class itself, or the class that a function says it returns."""
    if isinstance(entrypoint, type):
        return entrypoint
    try:
        returned = get_type_hints(entrypoint).get("return")
    except NameError:  # an annotation that exists for type checkers alone
        return None
    return returned if isinstance(returned, type) else None


def _takes_more(function: Callable[..., Any]) -> bool:
    """Whether a function has **kwargs, which it passes on."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def check_plain(name: str, value: Any) -> str | None:
    """What is expected instead of data that no argument of a model can be: numbers and texts beyond all measure."""
    found = [abs(number) for number in _numbers(value)]
    most = _MAX_TOTAL if name == "num_classes" else _MAX_NUMBER
    if any(not number <= most for number in found):  # NaN is not either
        return f"numbers of at most {most}"
    if sum(found) > _MAX_TOTAL:
        return f"numbers of at most {_MAX_TOTAL} in all"
    if any(len(text) > _MAX_TEXT for text in _leaves(value) if isinstance(text, str)):
        return f"texts of at most {_MAX_TEXT} characters"
    return None


def nesting(value: Any) -> int:
    """How deep lists and mappings lie in each other."""
    level, depth = [value], 0
    while level := [item for outer in level for item in (
            outer.values() if isinstance(outer, Mapping) else outer if isinstance(outer, (list, tuple)) else ())]:
        depth += 1
    return depth


def _numbers(value: Any) -> Iterator[numbers.Real]:
    return (item for item in _leaves(value) if isinstance(item, numbers.Real))  # numpy's too


def _leaves(value: Any) -> Iterator[Any]:
    """What lists and mappings hold; one after the other, so that no depth of nesting is too much."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Mapping):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple)):
            pending += item
        else:
            yield item
