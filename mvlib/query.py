"""Which weights? A small language over all that the catalogs know, and `search`. Imports no torch.

    top1>80 params<30M license=apache-2.0     conditions, all of which must hold
    resnet*  dino                             words of the name: wildcards, or any part of it
    (license=mit or license=bsd-3-clause)     alternatives; `or` binds weaker than what stands side by side

Numbers are compared with = != < <= > >=, texts with = != and ~ !~ (like a word of the name), whatever their case. A
number is in the field's unit (params in 1e6, gmacs in 1e9, accuracies in percent) or, with an ending k, M or G,
absolute. A value that holds spaces is quoted. A condition is turned round by its own sign (params>=3, name!~resnet50).
Weights of which a field is not known meet no condition on it, `survey` says how many those are; license="" finds those
without a text.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from . import registry
from .costs import costs_of
from .errors import ConfigError
from .names import closest, natural_key
from .tasks import CLASSIFICATION, TASKS, find_task
from .weights import WeightsConfig

__all__ = ["FIELDS", "Field", "Record", "Survey", "find_field", "papers", "search", "survey"]

DATA_SET = "ImageNet-1K"  # whose accuracies top1 and top5 are
# Where published figures stand: {field: (data set, metric)}.
FIGURES = {
    "top1": (DATA_SET, "acc@1"), "top5": (DATA_SET, "acc@5"),
    "box_map": ("COCO-val2017", "box_map"), "mask_map": ("COCO-val2017", "mask_map"),
    "kp_map": ("COCO-val2017", "kp_map"),
    "miou": ("COCO-val2017-VOC-labels", "miou"), "pixel_acc": ("COCO-val2017-VOC-labels", "pixel_acc"),
    "video_top1": ("Kinetics-400", "acc@1"), "video_top5": ("Kinetics-400", "acc@5"),
    "epe": ("Sintel-Train-Cleanpass", "epe"),
}


@dataclass(frozen=True)
class Record:
    """One set of weights, or an architecture for which none are published. None: not known, or there is none.

    Attributes:
        name: "architecture.tag"; `arch` and `tag` are its parts.
        task: What it is for, "classification", "detection", ... (`tasks.TASKS`).
        family: Module that defines the architecture.
        builder: torchvision's name of the architecture.
        top1, top5: Published accuracies on ImageNet-1K, in percent.
        box_map, mask_map, kp_map: Published mean average precision on COCO of boxes, masks and keypoints, in percent.
        miou, pixel_acc: Of segmentation, on COCO's images with the classes of Pascal VOC, in percent.
        video_top1, video_top5: Accuracies on Kinetics-400, in percent.
        epe: Of optical flow, the end-point error in pixels on Sintel's training set, "clean".
        params: Parameters, in 1e6.
        gmacs, activations: Multiply-accumulates (1e9), and elements that convolutions and matrix products put out
            (1e6), for one image of `input` pixels.
        input: Height and width of the images in training.
        test: Height and width in evaluation; `test_gmacs` and `test_activations` are at this size.
        classes: Outputs, 0 for weights that give features; `labels` is what they mean.
        license: Its identifier.
        year: Of the paper that describes the architecture.
        file_size: Of the published file, in MiB.
        preprocessing: Whose pipeline prepares the inputs, "timm" or "torchvision".
        source: Where the weights come from first: "hf-hub:...", "https://...", ...
        paper, origin, recipe: Where they are described.
    """

    name: str
    arch: str
    tag: str | None = None
    family: str | None = None
    builder: str | None = None
    top1: float | None = None
    top5: float | None = None
    box_map: float | None = None
    mask_map: float | None = None
    kp_map: float | None = None
    miou: float | None = None
    pixel_acc: float | None = None
    video_top1: float | None = None
    video_top5: float | None = None
    epe: float | None = None
    params: float | None = None
    gmacs: float | None = None
    activations: float | None = None
    input: int | None = None
    test: int | None = None
    test_gmacs: float | None = None
    test_activations: float | None = None
    classes: int | None = None
    labels: str | None = None
    license: str | None = None
    year: int | None = None
    file_size: float | None = None
    preprocessing: str | None = None
    source: str | None = None
    paper: str | None = None
    origin: str | None = None
    recipe: str | None = None
    task: str = CLASSIFICATION

    @functools.cached_property
    def cached(self) -> bool:
        """Whether the weights lie on this machine already; looked up when it is first asked for."""
        from . import hub

        config = registry.get_pretrained_cfg(self.name)
        return config is not None and hub.is_cached(config.sources, filename=config.filename) is not None

    def as_dict(self, columns: Iterable[str] | None = None) -> dict[str, Any]:
        """The fields by name, or these of them."""
        return {name: getattr(self, name) for name in columns or (field.name for field in fields(self))}


@dataclass(frozen=True)
class Field:
    """How a field of a record is compared, sorted and shown.

    Attributes:
        kind: "number", "text" or "yes or no".
        unit: What a number counts; one with an ending is divided by it.
        percent: Whether a number is a percentage.
        heading: Its column.
        descending: Whether the best is the highest.
        digits: Decimals in a table.
    """

    kind: str = "text"
    unit: float = 1
    heading: str = ""
    descending: bool = False
    digits: int = 0
    percent: bool = False


FIELDS = {
    "name": Field(), "arch": Field(), "tag": Field(), "task": Field(), "family": Field(), "builder": Field(),
    **{name: Field("number", descending=name != "epe", digits=2, percent=name != "epe") for name in FIGURES},
    "params": Field("number", 1e6, "params (M)", digits=2),
    "gmacs": Field("number", 1e9, digits=2),
    "activations": Field("number", 1e6, "activations (M)", digits=2),
    "input": Field("number"), "test": Field("number"),
    "test_gmacs": Field("number", 1e9, digits=2),
    "test_activations": Field("number", 1e6, "test_activations (M)", digits=2),
    "classes": Field("number"), "labels": Field(), "license": Field(),
    "year": Field("number", descending=True),
    "file_size": Field("number", 2**20, "file (MiB)", digits=1),
    "preprocessing": Field(), "source": Field(), "paper": Field(), "origin": Field(), "recipe": Field(),
    "cached": Field("yes or no", descending=True),
}
OTHER_NAMES = {
    "acc1": "top1", "acc@1": "top1", "acc5": "top5", "acc@5": "top5", "acts": "activations", "architecture": "arch",
    "dataset": "labels", "img_size": "input", "input_size": "input", "licence": "license", "macs": "gmacs",
    "macts": "activations", "model": "name", "module": "family", "num_classes": "classes", "param_count": "params",
    "size": "input", "test_size": "test",
}
# What people call what is a field here, and what to say to them.
MEANT = {
    **dict.fromkeys(("acc", "accuracy", "top-1", "imagenet"), "'top1' or 'top5'"),
    **dict.fromkeys(("error", "err", "top1_err"), "'top1', which is 100 less the error"),
    **dict.fromkeys(("flops", "gflops", "mflops", "flop"), "'gmacs'? A multiply-accumulate is two FLOPs"),
    **dict.fromkeys(("parameters", "num_params", "n_params", "weights"), "'params'"),
    **dict.fromkeys(("resolution", "image_size", "px", "crop"), "'input' or 'test'"),
    **dict.fromkeys(("map", "ap"), "'box_map', 'mask_map' or 'kp_map'"),
    **dict.fromkeys(("iou", "mean_iou"), "'miou'"),
    **dict.fromkeys(("date", "released", "published"), "'year'"),
    **dict.fromkeys(("mb", "mib", "disk", "bytes"), "'file_size'"),
    **dict.fromkeys(("outputs", "nb_classes"), "'classes'"),
}
UNITS = {1e6: "millions", 1e9: "billions", 2**20: "MiB"}
_TOO_MANY = 1e5  # of a unit; no model has as much
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}
_OPERATORS = {"number": tuple(_COMPARISONS), "text": ("=", "==", "!=", "~", "!~"), "yes or no": ("=", "==", "!=")}
_ENDINGS = {"": None, "k": 1e3, "m": 1e6, "g": 1e9}
_TOKENS = re.compile(r"""(?P<space>\s+) | (?P<paren>[()]) | (?P<operator>[<>!=]= | !~ | [=<>~])
                         | (?P<quoted>"[^"]*" | '[^']*') | (?P<word>(?:[^\s()=<>!~"'] | !(?![=~]))+)""", re.VERBOSE)
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([a-z]*)(%?)", re.IGNORECASE)
_SEPARATORS = re.compile("[,;&|]")

Condition = Callable[[Record], "bool | None"]  # None: that hangs on a field that is not known


def search(
    query: str = "", *, sort: str | Sequence[str] | None = None, limit: int | None = None, published: bool = True,
    task: str | None = None,
) -> list[Record]:
    """Weights that meet conditions.

        mvlib.search("top1>80 params<30M gmacs<5 license=apache-2.0 input=224")
        mvlib.search("vit_*  classes=0", sort="params", limit=5)

    Args:
        query: Conditions; see this module's description. An empty one is met by all.
        sort: Fields, as a list or separated by commas; each best first: accuracies from the highest, what a model
            costs from the least, texts in alphabetical order. A minus before its name turns a field's order round.
            Default: the first figure of the task, or without one of the task whose figures the conditions ask for,
            else "top1". Records that lack the field come last, equal
            ones by name.
        limit: Keep this many.
        published: Whether to leave out what has no weights that can be had.
        task: Only weights for this task ("detection").

    Raises:
        ConfigError: The query cannot be read (the message points at the place), or there is no such field or task.
    """
    if limit is not None and limit < 0:
        raise ConfigError(f"limit {limit} is not a number of records")
    return survey(query, sort=sort, published=published, task=task).found[:limit]


@dataclass(frozen=True)
class Survey:
    """What a search found, and what it could not tell.

    Attributes:
        found: The records, in order.
        sort: The field that they are sorted by first.
        task: Whose figures are asked for.
        unsorted: How many of them come last because that field is not known.
        left_out: How many more might meet the conditions, if `unknown` fields of them were known.
        hints: Lines on what is asked for and nothing has, such as a licence that is spelt otherwise.
    """

    found: list[Record]
    sort: str
    task: str
    unsorted: int
    left_out: int
    unknown: tuple[str, ...]
    hints: tuple[str, ...]


def survey(
    query: str = "", *, sort: str | Sequence[str] | None = None, published: bool = True, task: str | None = None
) -> Survey:
    """As `search`, with what it leaves out because nobody knows it.

    Raises:
        ConfigError: As `search`.
    """
    task = task and find_task(task)
    parser = _Parser(query)
    condition = parser.parse()
    shown_task = task or _task_of_figures(parser.fields)
    order = _parse_order(sort or TASKS[shown_task].columns[0])
    records = list(_records(published, task))
    met = [condition(record) for record in records]
    found = [record for record, is_met in zip(records, met) if is_met]
    uncertain = [record for record, is_met in zip(records, met) if is_met is None]
    unknown = tuple(name for name in parser.fields if any(_is_unknown(record, name) for record in uncertain))
    found.sort(key=lambda record: natural_key(record.name))
    for name, descending in reversed(order):
        found.sort(key=functools.partial(_sort_key, name=name), reverse=descending)
        found.sort(key=lambda record, name=name: getattr(record, name) is None)
    first = order[0][0]
    unsorted = sum(getattr(record, first) is None for record in found)
    return Survey(found, first, shown_task, unsorted, len(uncertain), unknown, tuple(_hints(records, parser.texts)))


def _task_of_figures(asked: Iterable[str]) -> str:
    """The first task that has all the figures which conditions ask for."""
    figures = {name for name in asked if name in FIGURES}
    return next((name for name, task in TASKS.items() if figures <= {*task.columns}), CLASSIFICATION)


def _hints(records: Sequence[Record], asked: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Of texts that a field should be equal to, those that no record has."""
    for name, wanted in dict.fromkeys(asked):
        sources = ("name", "arch", "builder") if name == "name" else (name,)
        known = {value for record in records for source in sources if (value := getattr(record, source)) is not None}
        if not wanted or wanted.lower() in map(str.lower, known):
            continue
        near = sorted(value for value in known if value.lower().startswith(wanted.lower()))[:3]
        meant = closest(near[0], near) if near else closest(wanted, known)
        if not meant and len(known) <= _LISTED:
            meant = f"; known: {', '.join(sorted(known))}"
        yield f"no weights have the {name} '{wanted}'{meant}"


_LISTED = 25  # values of a field, at most, in a hint


def find_field(name: str) -> str:
    """The field of this name, or of timm's or torchvision's name for it.

    Raises:
        ConfigError: There is none; the message has those that are close, or all.
    """
    name = name.strip().lower()
    name = OTHER_NAMES.get(name, name)
    if name not in FIELDS:
        raise ConfigError(_unknown_field(name))
    return name


def _unknown_field(name: str) -> str:
    if name.lower() in MEANT:
        meant = MEANT[name.lower()]
        return f"there is no field '{name}'; did you mean {meant}{'' if '?' in meant else '?'}"
    return f"there is no field '{name}'" + (closest(name, [*FIELDS, *OTHER_NAMES]) or f"; fields: {', '.join(FIELDS)}")


def _is_unknown(record: Record, name: str) -> bool:
    """Whether the record should have this, and nobody knows it. Of most texts, none means that there is none."""
    if getattr(record, name) is not None:
        return False
    if name in FIGURES:
        return name in TASKS[record.task].columns  # models of other tasks have other figures
    return FIELDS[name].kind == "number" or (name == "license" and record.source is not None)


def _parse_order(sort: str | Sequence[str]) -> list[tuple[str, bool]]:
    names = sort.split(",") if isinstance(sort, str) else sort
    order = []
    for name in names:
        field = find_field(name.strip().removeprefix("-"))
        order.append((field, FIELDS[field].descending != name.strip().startswith("-")))
    return order


def _sort_key(record: Record, name: str) -> Any:
    value = getattr(record, name)
    if FIELDS[name].kind == "text":
        return natural_key(value or "")
    return 0 if value is None else value


# records

@functools.cache
def papers() -> dict[str, str]:
    """{architecture: arXiv's number of the paper that describes it}, as scripts/build_index.py wrote it."""
    try:
        with open(os.path.join(registry.CATALOG_DIR, "papers.json"), encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:  # a source tree whose index has not been built yet
        return {}


def year_of(paper: str) -> int:
    """Of a paper's first version: arXiv's number begins with year and month."""
    return 2000 + int(paper[:2])


def _records(published: bool, task: str | None) -> Iterator[Record]:
    for architecture in registry.list_models(task=task):
        configs = registry.get_arch_pretrained_cfgs(architecture).values() or [WeightsConfig(architecture)]
        facts = {"family": registry.get_module(architecture), "builder": registry.torchvision_builder(architecture)}
        for config in configs:
            if config.has_weights or not published:
                yield _record(config, **facts)


def _record(config: WeightsConfig, **facts: Any) -> Record:
    figures: dict[str, Any] = {name: config.metrics.get(data_set, {}).get(metric)
                               for name, (data_set, metric) in FIGURES.items()}
    costs = costs_of(config)
    params = costs.get("params") or config.num_params
    test, test_gmacs, test_activations = costs.get("test", (None, None, None))
    if test is None and costs:
        test_gmacs, test_activations = costs["gmacs"], costs["activations"]
    cited, described = config.paper_ids, papers().get(str(config.architecture))
    return Record(
        name=config.name, arch=str(config.architecture), tag=config.tag, task=config.task, **facts, **figures,
        params=params and params / 1e6, gmacs=costs.get("gmacs", config.gmacs), activations=costs.get("activations"),
        input=config.input_size[-1], test=(config.test_input_size or config.input_size)[-1],
        test_gmacs=test_gmacs, test_activations=test_activations,
        classes=config.num_classes, labels=config.label_set, license=config.license, file_size=config.file_size,
        preprocessing=config.preprocessing, source=next(iter(config.sources), None),
        year=year_of(described) if described else None,
        paper=", ".join(cited) if isinstance(cited, tuple) else cited, origin=config.origin_url,
        recipe=config.recipe,
    )


# the language

@dataclass(frozen=True)
class _Token:
    kind: str  # "word", "quoted", "operator", "paren", or "end"
    text: str
    start: int
    end: int

    @property
    def value(self) -> str:
        return self.text[1:-1] if self.kind == "quoted" else self.text


class _Parser:
    """Recursive descent over

        alternatives: conditions ("or" conditions)*
        conditions:   condition+
        condition:    "(" alternatives ")" | FIELD OPERATOR VALUE | WORD
    """

    def __init__(self, query: str) -> None:
        self.query = query
        self.tokens = list(self._split())
        self.position = 0
        self.fields: dict[str, None] = {}  # of conditions
        self.texts: list[tuple[str, str]] = []  # fields with texts that they should be equal to

    def parse(self) -> Condition:
        if self.current.kind == "end":
            return lambda record: True
        condition = self._alternatives()
        if self.current.kind != "end":
            self._fail("this closes no parenthesis that was opened")
        return condition

    def _split(self) -> Iterator[_Token]:
        position, length = 0, len(self.query)
        while position < length:
            match = _TOKENS.match(self.query, position)
            if match is None:
                self._fail("this quotation mark has no other that ends the text" if self.query[position] in "\"'"
                           else "this means nothing here", _Token("", "", position, position + 1))
            comma = _SEPARATORS.search(match.group()) if match.lastgroup == "word" else None
            if comma is not None:
                start = position + comma.start()
                self._fail("conditions are separated by spaces, alternatives by or", _Token("", "", start, start + 1))
            if match.lastgroup != "space":
                yield _Token(str(match.lastgroup), match.group(), match.start(), match.end())
            position = match.end()
        yield _Token("end", "", length, length)

    @property
    def current(self) -> _Token:
        return self.tokens[self.position]

    def _next(self) -> _Token:
        token = self.current
        self.position += 1
        return token

    def _fail(self, reason: str, token: _Token | None = None) -> NoReturn:
        """Show the query with carets under the token, and say why."""
        token = token or self.current
        shown = "".join(c if c.isprintable() else " " for c in self.query)
        marks = " " * token.start + "^" * max(1, token.end - token.start)
        raise ConfigError(f"the search cannot be read:\n  {shown}\n  {marks}\n{reason}")

    def _alternatives(self) -> Condition:
        choices = [self._conditions()]
        while self._is_word("or"):
            self._next()
            choices.append(self._conditions())
        return choices[0] if len(choices) == 1 else functools.partial(_join, choices, True)

    def _conditions(self) -> Condition:
        conditions = [self._condition()]
        while self.current.kind != "end" and self.current.text != ")" and not self._is_word("or"):
            if self._is_word("and"):
                self._next()
            conditions.append(self._condition())
        return conditions[0] if len(conditions) == 1 else functools.partial(_join, conditions, False)

    def _is_word(self, text: str) -> bool:
        return self.current.kind == "word" and self.current.text.lower() == text

    def _condition(self) -> Condition:
        token = self._next()
        if token.text == "(":
            condition = self._alternatives()
            if self._next().text != ")":
                self._fail("this parenthesis is not closed", token)
            return condition
        if token.kind not in ("word", "quoted") or (token.kind == "word" and token.text.lower() in ("or", "and")):
            self._fail("here a condition is missing, such as top1>80, or a word of the name", token)
        self._check_negation(token)
        if self.current.kind == "operator":
            return self._comparison(token, self._next())
        if token.kind == "word" and OTHER_NAMES.get(token.text.lower(), token.text.lower()) in FIELDS:
            self._fail(f"'{token.text}' is a field: here an operator and a value are missing (quote the whole search: "
                       f"the shell takes < and > for itself)", token)
        return functools.partial(_has_name, matches=_pattern(token.value))

    def _check_negation(self, token: _Token) -> None:
        """Of "not params<3", "!resnet50" and "-resnet50", say how it is written."""
        word, is_compared = token.text.lower(), self.current.kind == "operator"
        if token.kind != "word" or not (word == "not" or word[0] == "!" or (word[0] == "-" and not is_compared)):
            return
        if word == "not" or is_compared or len(word) == 1:
            self._fail("a condition is turned round by its own sign: params>=3 for not params<3, name!~resnet50 for "
                       "not resnet50", token)
        self._fail(f"names with this are left out by name!~{token.text[1:]}", token)

    def _comparison(self, left: _Token, sign: _Token) -> Condition:
        name = OTHER_NAMES.get(left.value.lower(), left.value.lower())
        if name not in FIELDS:
            self._check_order(left, sign)
            self._fail(_unknown_field(left.value), left)
        field = FIELDS[name]
        allowed = _OPERATORS[field.kind]
        if sign.text not in allowed:
            self._fail(f"{name} is a {field.kind}, which is compared with {' '.join(a for a in allowed if a != '==')}",
                       sign)
        right = self._next()
        if right.kind not in ("word", "quoted"):
            self._fail(f"here a value for {name} is missing: {_EXPECTED[field.kind]}", right)
        if field.kind != "text" or right.value or "~" in sign.text:  # whether a text is there is always known
            self.fields[name] = None
        if field.kind == "text":
            if "~" not in sign.text:
                self.texts.append((name, right.value))
            return _compare_text(name, sign.text, right.value)
        value = self._number(name, sign, right) if field.kind == "number" else self._yes_or_no(right)
        return _compare_value(name, _COMPARISONS[sign.text], value)

    def _check_order(self, left: _Token, sign: _Token) -> None:
        """Of "80<top1<82", say how it is written."""
        field = OTHER_NAMES.get(self.current.value.lower(), self.current.value.lower())
        if not _NUMBER.fullmatch(left.value) or field not in FIELDS or sign.text not in _COMPARISONS:
            return
        said = f"{field}{sign.text.translate(_TURNED)}{left.value}"
        following = self.tokens[self.position + 1:self.position + 3]
        if len(following) == 2 and following[0].text in _COMPARISONS and following[1].kind == "word":
            said += f" {field}{following[0].text}{following[1].text}"
        self._fail(f"the field stands first: {said}", left)

    def _number(self, name: str, sign: _Token, token: _Token) -> float:
        field = FIELDS[name]
        match = _NUMBER.fullmatch(token.value)
        ending = match.group(2).lower() if match else ""
        if match is None or ending not in _ENDINGS:
            self._fail(f"'{token.value}' is not {_EXPECTED['number']}", token)
        number, scale = float(match.group(1)), _ENDINGS[ending]
        if field.unit > 1 and scale is None and abs(number) >= _TOO_MANY:
            self._fail(f"{name} is in {UNITS[field.unit]}: write {_plain(number / field.unit)}", token)
        if match.group(3) and not field.percent:
            self._fail(f"{name} is not in percent: write {token.value[:-1]}", token)
        if field.percent and 0 < number < 1 and not match.group(3):
            self._fail(f"{name} is in percent: write {name}{sign.text}{_plain(100 * number)}", token)
        return number if scale is None else number * scale / field.unit

    def _yes_or_no(self, token: _Token) -> bool:
        known = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
        if token.value.lower() not in known:
            self._fail(f"'{token.value}' is not {_EXPECTED['yes or no']}", token)
        return known[token.value.lower()]


def _plain(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


_TURNED = str.maketrans("<>", "><")
_EXPECTED = {"number": "a number, which may end in k, M or G", "text": "a text, quoted if it holds spaces",
             "yes or no": "yes or no"}


def _join(conditions: Sequence[Condition], is_enough: bool, record: Record) -> bool | None:
    """Of conditions, one of which decides if it `is_enough`: what they come to, None where that is not known."""
    answer: bool | None = not is_enough
    for condition in conditions:
        met = condition(record)
        if met is is_enough:
            return met
        if met is None:
            answer = None
    return answer


def _compare_value(name: str, compare: Callable[[Any, Any], bool], wanted: float) -> Condition:
    def condition(record: Record) -> bool | None:
        value = getattr(record, name)
        if value is None:
            return None if _is_unknown(record, name) else False
        return compare(value, wanted)

    return condition


def _compare_text(name: str, sign: str, wanted: str) -> Condition:
    matches = _pattern(wanted) if "~" in sign else functools.partial(operator.eq, wanted.lower())

    def is_like(record: Record) -> bool:
        return _has_name(record, matches) if name == "name" else matches(getattr(record, name).lower())

    def condition(record: Record) -> bool | None:
        if not wanted and "~" not in sign:
            return (getattr(record, name) is None) != sign.startswith("!")
        if getattr(record, name) is None:
            return None if _is_unknown(record, name) else False
        return is_like(record) != sign.startswith("!")

    return condition


def _pattern(text: str) -> Callable[[str], bool]:
    """Whether a text in lower case is like this one: a wildcard, or else a part of it."""
    text = text.lower()
    if any(character in text for character in "*?["):
        wildcard = re.compile(fnmatch.translate(text))
        return lambda value: wildcard.match(value) is not None
    return lambda value: text in value


def _has_name(record: Record, matches: Callable[[str], bool]) -> bool:
    """Whether the name is like that, or the architecture's (a wildcard need not say the tag), or torchvision's."""
    return any(matches(name.lower()) for name in (record.name, record.arch, record.builder) if name)
