"""Pictures: the bubble chart of a comparison (error, time and size of models), and the style that all of ours have.

They need matplotlib.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .compare import Candidate, short_names
from .errors import ConfigError, MissingPackageError
from .files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DARK", "LIGHT", "LINES", "PICTURES", "Box", "bubble_figure", "check_picture", "css_colours", "draw_bubbles",
           "line_panels", "need_matplotlib", "place_labels", "round_sizes", "save_figure", "style"]

PICTURES = (".png", ".svg", ".pdf")
TIME_LABELS = {"cpu_ms": "CPU time per image (ms)", "gpu_ms": "GPU time per image (ms)"}
# The colours of pictures and pages; front and other are told apart without colour vision, too.
LIGHT = {
    "page": "#ffffff", "ink": "#1f2933", "quiet": "#566370", "line": "#e0e5ea", "axis": "#98a3ae", "band": "#f4f6f8",
    "front": "#0072b2", "other": "#8d99a6", "tip": "#1f2933", "tip-ink": "#ffffff", "mark": "#e8f2f9",
}
DARK = {
    "page": "#14191e", "ink": "#e6ebf0", "quiet": "#9fabb7", "line": "#2b343d", "axis": "#64717d", "band": "#1b2229",
    "front": "#56b4e9", "other": "#7d8a97", "tip": "#e6ebf0", "tip-ink": "#14191e", "mark": "#1c3140",
}
_FRONT, _OTHER, _INK, _QUIET = (LIGHT[name] for name in ("front", "other", "ink", "quiet"))
LINES = (_FRONT, "#d55e00", "#009e73", _OTHER)  # of a chart of several
_DPI = 160
_LARGEST = 27.0  # radius of the largest bubble, in points; areas are proportional
_SMALLEST = 2.2
_LOG_FROM = 6.0  # slowest over fastest, from where on the time axis is logarithmic
_RINGS = (2.0, 5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 65.0, 85.0, 110.0, 140.0, 180.0)  # gaps to a bubble, in points
_DIRECTIONS = 24
_FEW = 30  # points of a line, up to which each is marked
_LEADER = 8.0  # gap from which on a line joins label and bubble, in points


def css_colours(palette: Mapping[str, str]) -> str:
    """LIGHT or DARK as the declarations of a style sheet: "--page: #ffffff; --ink: ..."."""
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())


def check_picture(path: str | os.PathLike[str]) -> None:
    """Refuse a picture that could not be drawn.

    Raises:
        ConfigError: The file's name has another ending than .png, .svg or .pdf.
        MissingPackageError: matplotlib is not installed.
    """
    if Path(path).suffix.lower() not in PICTURES:
        raise ConfigError(f"--plot draws {', '.join(PICTURES)}, and '{path}' ends in none of them")
    need_matplotlib()


def need_matplotlib(what: str = "--plot") -> None:
    """Refuse to draw without it.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MissingPackageError(
            f"{what} needs the package 'matplotlib': pip install matplotlib (or pip install 'mvlib[plot]')") from None


def draw_bubbles(
    candidates: Sequence[Candidate], path: str | os.PathLike[str], *, time: str = "cpu_ms", caption: str = ""
) -> None:
    """Draw `bubble_figure` into a .png, .svg or .pdf, whole or not at all."""
    check_picture(path)
    save_figure(bubble_figure(candidates, time=time, caption=caption), path)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure into a .png, .svg or .pdf, whole or not at all."""
    path = Path(path)
    # Without a date: the same figures give the same file.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower(), {})
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), metadata=metadata)


def bubble_figure(candidates: Sequence[Candidate], *, time: str = "cpu_ms", caption: str = "") -> Figure:
    """Models as bubbles: top-1 error to the right, time upwards, area the size of the weights.

    Labels do not overlap and stay within the axes; the staircase is the Pareto front, `Candidate.pareto`. What lacks an
    error or a time is listed under the chart.

    Args:
        candidates: The models.
        time: "cpu_ms" or "gpu_ms".
        caption: Text under the chart.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    need_matplotlib()
    shown = [c for c in candidates if c.top1_err is not None and getattr(c, time) is not None]
    missing = [c.model for c in candidates if c not in shown]
    lines = _captions(caption, missing)
    below = 0.62 + 0.17 * len(lines)  # inches: axis label, caption
    height = 5.6 + below
    figure = _figure(10.6, height)
    axes = figure.add_axes((0.075, below / height, 0.76, (5.6 - 0.72) / height))
    style(axes, "top-1 error (%)", TIME_LABELS[time])
    _title(figure, "Error, time and size of image models", "\u2199 lower left is better", 0.075)
    figure.text(0.075, 0.12 / height, "\n".join(lines), size=7.8, color=_QUIET, va="bottom", linespacing=1.35,
                parse_math=False)
    if shown:
        _bubbles(figure, axes, sorted(shown, key=lambda c: -(c.size_mib or 0)), time)
    else:
        axes.text(0.5, 0.5, "no model has both an error and a time", transform=axes.transAxes, ha="center",
                  color=_QUIET)
    return figure


def _captions(caption: str, missing: Sequence[str]) -> list[str]:
    lines = [line for text in caption.splitlines() for line in textwrap.wrap(text, 170)]
    if missing:
        lines += textwrap.wrap(f"Not shown, for want of an error or a time: {', '.join(missing)}.", 170)
    return lines


def line_panels(
    title: str, panels: Sequence[tuple[str, Mapping[str, Sequence[tuple[float, float]]]]], *, x: str = "epoch",
    steps: bool = False, subtitle: str = "", colours: Mapping[str, str] | None = None,
) -> Figure:
    """Panels of lines side by side, in the style of the bubble chart.

    Args:
        title: Of the picture.
        subtitle: A line below it: of which run, say.
        colours: Of lines by their labels, where the order in a panel does not give them (`LINES`).
        panels: For each panel what its y axis shows, and {label: points} of its lines; a lone line needs no legend.
        x: What the x axes show.
        steps: Whether each value holds until the next point.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    need_matplotlib()
    from matplotlib.ticker import MaxNLocator

    width, height = max(4.6 * len(panels), 7.2), 4.2 + 0.2 * bool(subtitle)
    figure = _figure(width, height, layout="constrained")
    top = (0.68 if subtitle else 0.5) / height
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.1, h_pad=0.1, rect=(0, 0, 1, 1 - top))  # pads in inches
    _title(figure, title, subtitle, 0.12 / width)
    for axes, (y, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        style(axes, x, y)
        for colour, (label, points) in zip(LINES, lines.items()):
            axes.plot(*zip(*points), label=label, color=(colours or {}).get(label, colour), linewidth=1.6,
                      drawstyle="steps-post" * steps or None, marker="." if len(points) < _FEW and not steps else None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        known = {x for points in lines.values() for x, _ in points}
        if len(known) == 1:  # the first epoch
            axes.set_xlim(min(known) - 0.5, min(known) + 0.5)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=9, labelcolor=_INK)
    return figure


def _title(figure: Figure, title: str, subtitle: str, left: float) -> None:
    """What all our pictures have at their top: what is shown, and a quiet line.

    Args:
        left: Share of the width from which on they are written.
    """
    height = figure.get_size_inches()[1]
    figure.suptitle(title, x=left, y=1 - 0.3 / height, ha="left", va="center", size=13, weight="bold", color=_INK,
                    parse_math=False)
    figure.text(left, 1 - 0.53 / height, subtitle, size=9.5, color=_QUIET, va="center", parse_math=False)


def _figure(width: float, height: float, **kwargs: Any) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white", **kwargs)
    FigureCanvasAgg(figure)
    return figure


def style(axes: Axes, x: str, y: str) -> None:
    """Axes as all our pictures have them, named."""
    axes.set_xlabel(x, color=_INK, size=10.5)
    axes.set_ylabel(y, color=_INK, size=10.5)
    axes.tick_params(colors=_QUIET, labelsize=9, length=3)
    axes.grid(color="#e4e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#9aa5b1")


def _bubbles(figure: Figure, axes: Axes, shown: list[Candidate], time: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    errors, times = [c.top1_err for c in shown], [getattr(c, time) for c in shown]
    largest = max(c.size_mib or 0 for c in shown) or 1
    radii = [_radius(c.size_mib or 0, largest) for c in shown]  # points
    is_log = max(times) > _LOG_FROM * min(times)
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel(f"{TIME_LABELS[time]}, log scale", color=_INK, size=10.5)
    box = axes.get_window_extent()
    scale = _DPI / 72
    margins = [(radius + 9) * scale for radius in radii]
    axes.set_xlim(_limits(errors, [margin + 14 * scale for margin in margins], box.width))  # room for labels
    low, high = _limits([math.log10(t) for t in times] if is_log else times, margins, box.height)
    axes.set_ylim((10**low, 10**high) if is_log else (max(low, 0), high))
    colours = [_FRONT if c.pareto else _OTHER for c in shown]
    axes.scatter(errors, times, s=[(2 * radius) ** 2 for radius in radii], alpha=0.72, zorder=3,
                 linewidths=[1.6 if c.disturbed else 0.8 for c in shown],
                 facecolors=["white" if c.disturbed else colour for c, colour in zip(shown, colours)],
                 edgecolors=[colour if c.disturbed else "white" for c, colour in zip(shown, colours)])
    front = sorted((c.top1_err, getattr(c, time)) for c in shown if c.pareto)
    if front:
        axes.plot(*zip(*front), drawstyle="steps-post", color=_FRONT, linewidth=1.2, alpha=0.75, zorder=2)
    _legend(figure, axes, [c.size_mib for c in shown if c.size_mib], largest, bool(front),
            any(c.disturbed for c in shown))
    _labels(figure, axes, shown, list(zip(errors, times)), radii, front)


def _radius(size: float, largest: float) -> float:
    return max(_LARGEST * math.sqrt(size / largest), _SMALLEST)


def _limits(values: Sequence[float], margins: Sequence[float], pixels: float) -> tuple[float, float]:
    """An axis that shows each value with its margin in pixels inside."""
    low, high = min(values), max(values)
    if high - low < 1e-6 * max(abs(high), 1):
        low, high = low - max(abs(low), 1) * 0.2, high + max(abs(high), 1) * 0.2
    data = low, high
    for _ in range(20):  # wider axes make the margins wider in turn; this converges, for bubbles are small
        unit = (high - low) / pixels
        low = min(data[0], *(value - margin * unit for value, margin in zip(values, margins)))
        high = max(data[1], *(value + margin * unit for value, margin in zip(values, margins)))
    return low, high


def round_sizes(sizes: Sequence[float]) -> list[float]:
    """Up to three sizes for a legend, 1, 2 or 5 times a power of ten, from the range of these."""
    steps = [mantissa * 10.0**exponent for exponent in range(-3, 8) for mantissa in (1, 2, 5)]
    largest = max((step for step in steps if step <= max(sizes)), default=max(sizes))
    wanted = [largest, largest / 5, largest / 25]
    return sorted({min(steps, key=lambda step: abs(math.log(step / value))) for value in wanted
                   if value >= 0.5 * min(sizes)} or {largest})


def _legend(
    figure: Figure, axes: Axes, sizes: Sequence[float], largest: float, has_front: bool, has_disturbed: bool
) -> None:
    """To the right of the axes: what area and colour mean. Drawn in points, so that bubbles have their size."""
    width, height = (length * 72 for length in figure.get_size_inches())
    frame = axes.get_position()
    left = frame.x1 + 0.022
    panel = figure.add_axes((left, frame.y0, 1 - left, frame.height), xlim=(0, (1 - left) * width),
                            ylim=(-frame.height * height, 0))
    panel.axis("off")
    text = dict(size=8.6, color=_INK, va="center")
    y = -5.0
    if sizes:
        shown = [(size, _radius(size, largest)) for size in reversed(round_sizes(sizes))]
        panel.text(0, y, "area: size of weights", **text)
        y -= 8
        for size, radius in shown:
            y -= radius + 4
            panel.scatter([shown[0][1]], [y], s=(2 * radius) ** 2, color="#dfe4e9", edgecolors=_OTHER, linewidths=0.8)
            panel.text(2 * shown[0][1] + 9, y, f"{size:g} MiB", **text)
            y -= max(radius, 4) + 4
        y -= 22
    rows = [(_OTHER, _OTHER, "other models")]
    if has_front:
        rows.insert(0, (_FRONT, _FRONT, "Pareto front: no\nmodel is both more\naccurate and faster"))
        panel.plot([0, 12], [y, y], color=_FRONT, linewidth=1.2, alpha=0.75)
    if has_disturbed:
        rows.append(("white", _INK, "hollow: timed on a\nbusy machine"))
    for face, edge, label in rows:
        panel.scatter([6], [y], s=64, facecolors=face, edgecolors="white" if face == edge else edge, zorder=3)
        panel.text(20, y + 5.5, label, linespacing=1.25, **{**text, "va": "top"})
        y -= 16 + 11.5 * label.count("\n")


def _labels(
    figure: Figure, axes: Axes, shown: Sequence[Candidate], points: Sequence[tuple[float, float]],
    radii: Sequence[float], front: Sequence[tuple[float, float]],
) -> None:
    from matplotlib.patheffects import withStroke

    scale = _DPI / 72
    halo = withStroke(linewidth=2.5, foreground="white")
    size = 8.8 if len(shown) <= 30 else 7.4
    texts = [axes.text(0, 0, name, size=size, color=_FRONT if c.pareto else _INK, zorder=5, ha="left", va="bottom",
                       parse_math=False, gid="label", path_effects=[halo])
             for c, name in zip(shown, short_names(shown))]
    renderer = figure.canvas.get_renderer()
    extents = [text.get_window_extent(renderer) for text in texts]
    frame = axes.get_window_extent()
    centres = [tuple(point) for point in axes.transData.transform(points)]
    steps = [(x, y) for pair in zip(front, front[1:]) for x, y in (pair[0], (pair[1][0], pair[0][1]), pair[1])]
    lines = axes.transData.transform(steps).tolist() if steps else []
    boxes = place_labels(
        [(extent.width, extent.height) for extent in extents], centres, [radius * scale for radius in radii],
        Box(frame.x0, frame.y0, frame.x1, frame.y1), lines=list(zip(lines, lines[1:])), unit=scale)
    inverse = axes.transData.inverted()
    for text, box, centre, radius in zip(texts, boxes, centres, radii):
        if box is None:
            text.remove()
            continue
        text.set_position(inverse.transform((box.left, box.bottom)))
        near = box.nearest(centre)
        if math.dist(near, centre) > (radius + _LEADER) * scale:
            rim = radius * scale / math.dist(near, centre)
            start = (centre[0] + (near[0] - centre[0]) * rim, centre[1] + (near[1] - centre[1]) * rim)
            axes.plot(*zip(*inverse.transform([start, near])), color="#9aa5b1", linewidth=0.7, zorder=4,
                      scalex=False, scaley=False)


class Box(NamedTuple):
    """A rectangle, in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box, gap: float = 0.0) -> bool:
        return (self.left < other.right + gap and other.left < self.right + gap
                and self.bottom < other.top + gap and other.bottom < self.top + gap)

    def within(self, other: Box) -> bool:
        return (other.left <= self.left and self.right <= other.right
                and other.bottom <= self.bottom and self.top <= other.top)

    def nearest(self, point: Sequence[float]) -> tuple[float, float]:
        """The point of the rectangle that is nearest to this one."""
        return min(max(point[0], self.left), self.right), min(max(point[1], self.bottom), self.top)

    def cut(self, start: Sequence[float], end: Sequence[float]) -> bool:
        """Whether a line goes through it."""
        low, high = 0.0, 1.0
        for axis, (least, most) in enumerate(((self.left, self.right), (self.bottom, self.top))):
            delta = end[axis] - start[axis]
            if abs(delta) < 1e-9:
                if not least < start[axis] < most:
                    return False
                continue
            first, last = sorted(((least - start[axis]) / delta, (most - start[axis]) / delta))
            low, high = max(low, first), min(high, last)
        return low < high


def place_labels(
    sizes: Sequence[tuple[float, float]],
    centres: Sequence[tuple[float, float]],
    radii: Sequence[float],
    frame: Box,
    *,
    lines: Iterable[tuple[Sequence[float], Sequence[float]]] = (),
    unit: float = 1.0,
) -> list[Box | None]:
    """Where the labels of bubbles go: within the frame, not over each other, over bubbles and lines only if need be.

    Each label tries places around its bubble, the near ones first, and takes the cheapest that is free. Those in the
    thickest crowd choose first; then all choose again while that helps.

    Args:
        sizes: (width, height) of each label.
        centres: Of the bubbles.
        radii: Of the bubbles.
        frame: What no label leaves.
        lines: Lines that labels had better not cover.
        unit: Pixels in a point.

    Returns:
        A box for each label, None where no place is free.
    """
    lines = list(lines)
    gap = 1.5 * unit
    choices = [list(_choices(*item, frame, unit)) for item in zip(sizes, centres, radii)]
    fixed = [[_fixed_cost(box, i, centres, radii, lines, unit) + cost for cost, box in own]
             for i, own in enumerate(choices)]
    crowd = [sum(math.dist(centre, other) < 70 * unit for other in centres) for centre in centres]
    order = sorted(range(len(sizes)), key=lambda i: (-crowd[i], -sizes[i][0]))
    boxes: list[Box | None] = [None] * len(sizes)
    for _ in range(6):
        before = list(boxes)
        for i in order:
            others = [(box, centres[j]) for j, box in enumerate(boxes) if box is not None and j != i]
            best, least = None, math.inf
            for cost, (_, box) in sorted(zip(fixed[i], choices[i]), key=lambda pair: pair[0]):
                if cost >= least:
                    break
                if any(box.overlaps(other, gap) for other, _ in others):
                    continue
                near = box.nearest(centres[i])
                cost += 40 * sum(other.cut(near, centres[i]) for other, _ in others)
                cost += 40 * sum(box.cut(other.nearest(centre), centre) for other, centre in others)
                if cost < least:
                    best, least = box, cost
            boxes[i] = best
        if boxes == before:
            break
    return boxes


def _choices(
    size: tuple[float, float], centre: tuple[float, float], radius: float, frame: Box, unit: float
) -> Iterable[tuple[float, Box]]:
    """(cost, box) of the places around a bubble that lie within the frame."""
    width, height = size
    inside = Box(frame.left + unit, frame.bottom + unit, frame.right - unit, frame.top - unit)
    for ring in _RINGS:
        for step in range(_DIRECTIONS):
            angle = 2 * math.pi * step / _DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            x = centre[0] + across * (radius + ring * unit + width / 2)
            y = centre[1] + up * (radius + ring * unit + height / 2)
            box = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            if box.within(inside):
                # To the right reads best, then above, left, below; slanting places look less orderly.
                yield ring * 1.0 + (1 - across) * 0.8 + (1 - up) * 0.4 + 1.5 * abs(math.sin(2 * angle)), box


def _fixed_cost(
    box: Box, own: int, centres: Sequence[tuple[float, float]], radii: Sequence[float],
    lines: Sequence[tuple[Sequence[float], Sequence[float]]], unit: float,
) -> float:
    """What a place costs for the bubbles and lines that it covers, its own bubble included."""
    cost = 0.0
    for j, (centre, radius) in enumerate(zip(centres, radii)):
        depth = radius + (unit if j == own else 1.5 * unit) - math.dist(box.nearest(centre), centre)
        if depth > 0:
            cost += 25 + 3 * depth / unit
    return cost + 18 * sum(box.cut(start, end) for start, end in lines)
