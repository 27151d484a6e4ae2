"""A comparison as one page of HTML that needs nothing else: a sortable table, and the bubble chart with tooltips."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from .charts import DARK, LIGHT, TIME_LABELS, css_colours, round_sizes
from .compare import Candidate, short_names

__all__ = ["render_report"]

_TEMPLATE = Path(__file__).with_suffix(".html")
_CHART = Path(__file__).with_name("chart.js")  # shared with the zoo of the documentation
# field, heading, whether it is text
_COLUMNS = (
    ("model", "model", True), ("top1_err", "top-1 error (%)", False), ("top5_err", "top-5 error (%)", False),
    ("cpu_ms", "CPU (ms)", False), ("gpu_ms", "GPU (ms)", False), ("size_mib", "size (MiB)", False),
    ("params", "params (M)", False), ("gmacs", "GMACs", False), ("img_size", "px", False),
    ("pareto", "front", True), ("weights", "weights", True), ("note", "note", True),
)
_DIGITS = {"top1_err": "{:.2f}", "top5_err": "{:.2f}", "cpu_ms": "{:.1f}", "gpu_ms": "{:.2f}", "size_mib": "{:.1f}",
           "params": "{:.2f}", "gmacs": "{:.2f}", "img_size": "{}"}


def render_report(
    candidates: Sequence[Candidate], *, time: str = "cpu_ms", caption: str = "", sort: str = "top1_err"
) -> str:
    """The page as text.

    Args:
        candidates: The models, in the order of the table.
        time: What the chart shows upwards: "cpu_ms" or "gpu_ms".
        caption: Text under the table, a paragraph a line.
        sort: The column by which they are sorted.
    """
    shown = [(i, c) for i, c in enumerate(candidates) if c.top1_err is not None and getattr(c, time) is not None]
    sizes = [c.size_mib for _, c in shown if c.size_mib]
    names = short_names([c for _, c in shown])
    data = {"label": TIME_LABELS[time],
            "points": [_point(i, c, name, time) for (i, c), name in zip(shown, names)],
            "sizes": round_sizes(sizes) if sizes else []}
    missing = [c.model for c in candidates if c.top1_err is None or getattr(c, time) is None]
    lines = caption.splitlines()
    if missing:
        lines.append(f"Not in the chart, for want of an error or a time: {', '.join(missing)}.")
    text = json.dumps(data).replace("<", "\\u003c")  # which could end the element that holds the data
    palette = (f":root {{ {css_colours(LIGHT)} }}\n"
               f"@media (prefers-color-scheme: dark) {{ :root {{ {css_colours(DARK)} }} }}")
    pieces = {"@PALETTE@": palette, "@CHART@": _CHART.read_text(encoding="utf-8"),
              "@TABLE@": _table(candidates, sort), "@DATA@": text,
              "@CAPTION@": "\n".join(f'<p class="caption">{escape(line)}</p>' for line in lines)}
    return re.sub("|".join(pieces), lambda mark: pieces[mark[0]], _TEMPLATE.read_text(encoding="utf-8"))


def _point(index: int, candidate: Candidate, name: str, time: str) -> dict[str, Any]:
    lines = [f"top-1 error {candidate.top1_err:.2f} %"]
    if candidate.top5_err is not None:
        lines.append(f"top-5 error {candidate.top5_err:.2f} %")
    lines += [f"{TIME_LABELS[key].partition(' per')[0]} {value:.3g} ms"
              for key in TIME_LABELS if (value := getattr(candidate, key)) is not None]
    if candidate.disturbed:
        lines.append("timed on a busy machine: too long")
    if candidate.size_mib is not None:
        lines.append(f"{candidate.size_mib:.1f} MiB")
    if candidate.params is not None:
        lines.append(f"{candidate.params:.1f} M parameters")
    if candidate.gmacs is not None:
        lines.append(f"{candidate.gmacs:.2f} GMACs at {candidate.img_size} px")
    if candidate.weights != candidate.model:
        lines.append(candidate.weights)
    return {"index": index, "name": name, "model": candidate.model, "error": candidate.top1_err,
            "time": getattr(candidate, time), "size": candidate.size_mib, "pareto": candidate.pareto,
            "disturbed": candidate.disturbed, "lines": lines}


def _table(candidates: Sequence[Candidate], sort: str) -> str:
    columns = [column for column in _COLUMNS
               if column[0] in ("model", "top1_err") or any(getattr(c, column[0]) for c in candidates)]
    header = "".join(
        f'<th scope="col"{" class=text" if is_text else ""}{" aria-sort=ascending" if field == sort else ""}>'
        f"<button type=button>{heading}</button></th>" for field, heading, is_text in columns)
    rows = "\n".join(f'<tr data-index="{index}">{"".join(_cell(c, field, is_text) for field, _, is_text in columns)}'
                     "</tr>" for index, c in enumerate(candidates))
    return f"<table>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _cell(candidate: Candidate, field: str, is_text: bool) -> str:
    value = getattr(candidate, field)
    if field == "pareto":
        return '<td class="text pareto" data-value="front">\u25cf front</td>' if value else '<td data-value=""></td>'
    if value is None:
        return f'<td{" class=text" if is_text else ""} data-value=""></td>'
    text = escape(value) if is_text else _DIGITS[field].format(value)
    if field == "model":  # on a phone it is broken between its parts
        text = re.sub(r"[_./](?=\w)", r"\g<0><wbr>", text)
    spread = getattr(candidate, field.replace("_ms", "_iqr_ms")) if field.endswith("_ms") else None
    if candidate.disturbed and field.endswith("_ms"):
        text = f'<span title="the machine was busy: too long">~{text}</span>'
    if spread is not None:
        text += f" <small>\u00b1 {spread / 2:.2g}</small>"
    if field == "size_mib" and candidate.size_from == "4 bytes a parameter":
        text = f'<span title="4 bytes a parameter">~{text}</span>'
    kind = f' class="text {field}"' if is_text else ""
    return f'<td{kind} data-value="{escape(str(value))}">{text}</td>'
