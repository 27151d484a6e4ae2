"""mvlib/compare.py, mvlib/charts.py and mvlib/report.py."""

import html.parser
import json
import math
import random
import re
import shutil
import subprocess
import sys

import pytest

import mvlib
from mvlib import benchmark, compare
from mvlib.charts import Box, bubble_figure, draw_bubbles, place_labels, round_sizes
from mvlib.cli import main, schedule_command
from mvlib.compare import Candidate, compare_models, pareto_front
from mvlib.report import render_report
from mvlib.train import report

from .test_benchmark import Probe, Weather

QUICK = dict(seconds=0.02, img_size=64)

# name, top-1 error, milliseconds, MiB: about what they are on two cores
STUDY = (
    ("alexnet", 43.5, 22, 233.1), ("squeezenet1_0", 41.9, 23, 4.8), ("squeezenet1_1", 41.8, 13, 4.7),
    ("resnet18", 30.2, 38, 44.7), ("resnet50", 19.1, 92, 97.8), ("densenet121", 25.6, 80, 30.8),
    ("mobilenet_v2", 27.8, 18, 13.6), ("mobilenet_v3_large", 24.7, 15, 21.1), ("efficientnet_b0", 22.3, 31, 20.5),
    ("shufflenet_v2_x1_0", 30.6, 12, 8.8), ("convnext_tiny", 17.5, 121, 109.1), ("vit_b_16", 18.9, 330, 330.3),
    ("swin_t", 18.5, 150, 108.2), ("vgg16", 28.4, 300, 527.8), ("regnet_y_800mf", 21.2, 27, 24.8),
    ("googlenet", 30.2, 42, 49.7), ("inception_v3", 22.7, 110, 103.9),
)


def study(rows=STUDY):
    candidates = [Candidate(name, f"{name}.in1k", error, error / 4, time, time / 50, size_mib=size, params=size / 4,
                            gmacs=time / 20, img_size=224) for name, error, time, size in rows]
    pareto_front(candidates)
    return candidates


# facts and times


@pytest.mark.slow
def test_published_errors_sizes_and_times():
    found = {c.model: c for c in compare_models(["alexnet", "squeezenet1_1", "vit_b_16"], seconds=0.02)}
    assert (found["alexnet"].top1_err, found["alexnet"].top5_err) == (43.478, 20.934)
    assert (found["alexnet"].size_mib, found["alexnet"].params, found["alexnet"].gmacs) == (233.1, 61.1, 0.7142)
    assert found["vit_b_16"].weights == "vit_base_patch16_224.imagenet1k_v1"
    for candidate in found.values():
        assert candidate.cpu_ms > 0 and candidate.img_size == 224 and candidate.note is None
    assert found["squeezenet1_1"].cpu_ms < found["vit_b_16"].cpu_ms


def test_a_model_without_metrics_is_listed(fresh_registry):
    mvlib.register_model(lambda **kwargs: Probe(), name="mine")
    mvlib.register_model(lambda **kwargs: Probe(), name="ours", weights={"in1k": {"sources": ["file:/none"]}})
    found = {c.model: c for c in compare_models(["mine", "squeezenet1_1", "ours"], **QUICK)}
    assert list(found) == ["squeezenet1_1", "mine", "ours"]  # by error, those without at the end
    assert (found["mine"].top1_err, found["mine"].note) == (None, "no published weights")
    assert found["ours"].note == "no published ImageNet-1K accuracy"
    assert found["mine"].cpu_ms > 0 and found["mine"].size_mib == 0 and not found["mine"].pareto
    assert found["squeezenet1_1"].note == "errors published at 224 px"


def test_times_of_a_busy_machine_are_marked(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "calibration", lambda device: Weather(2.0))
    files = {kind: tmp_path / f"found.{kind}" for kind in ("json", "html", "svg")}
    assert main(["compare", "squeezenet1_1", "mobilenetv3_small_100", "--img-size", "64", "--seconds", "0.02",
                 "--results-file", str(files["json"]), "--html", str(files["html"]), "--plot", str(files["svg"])]) == 0
    out, err = capsys.readouterr()
    times = [line.split()[3] for line in out.splitlines()[1:3]]
    assert all(time.startswith("~") for time in times)
    assert "~, hollow: the machine was busy, the time is too long; the front is not certain." in out
    assert "mvlib: 2 of 2 measurements were disturbed" in err
    assert [row["disturbed"] for row in json.loads(files["json"].read_text())["results"]] == [True, True]
    page = files["html"].read_text()
    assert page.count("too long\">~") == 2 and [point["disturbed"] for point in data_of(page)["points"]] == [True] * 2


def test_disturbed_bubbles_are_hollow():
    candidates = study(STUDY[:4])
    candidates[1].disturbed = True
    figure = bubble_figure(candidates)
    shown = sorted(candidates, key=lambda c: -c.size_mib)
    faces = figure.axes[0].collections[0].get_facecolors()[:, :3].tolist()
    assert [face == [1, 1, 1] for face in faces] == [c.disturbed for c in shown]
    legend = [text.get_text() for text in figure.axes[1].texts]
    assert "hollow: timed on a\nbusy machine" in legend
    assert not any("hollow" in text.get_text() for text in bubble_figure(study(STUDY[:4])).axes[1].texts)


@pytest.mark.slow
def test_branches_are_merged_or_it_is_said(capsys):
    """A model that was trained with more than inference needs is not slow for it."""
    names = ["repghostnet_050", "squeezenet1_1"]
    for mode, note in (("eager", "timed as trained: its branches merge with --mode optimized"), ("optimized", None)):
        found = {c.model: c for c in compare_models(names, mode=mode, devices=["cpu"], seconds=0.02)}
        assert [found[name].note for name in names] == [note, None]
        assert all(candidate.cpu_ms > 0 for candidate in found.values())
    assert main(["compare", *names, "--seconds", "0.02", "--mode", "optimized"]) == 0
    assert "one image at a time, float32, optimized." in capsys.readouterr().out


def test_multiply_accumulates_are_those_of_search():
    [record] = mvlib.search("name=tiny_vit_5m_224.dist_in22k_ft_in1k")
    [candidate] = compare_models([record.name], devices=["cpu"], seconds=0.01)
    assert f"{candidate.gmacs:.2f}" == f"{record.gmacs:.2f}" == "1.26"


def test_tags_and_wildcards(monkeypatch):
    timed = []
    real = mvlib.benchmark_models

    def note(names, **kwargs):
        timed.append(list(names))
        return real(names, **kwargs)

    monkeypatch.setattr("mvlib.benchmark.benchmark_models", note)
    found = {c.model: c for c in compare_models(["resnet50.imagenet1k*", "resnet50.tv_in1k", "squeezenet1_*"], **QUICK)}
    assert {"resnet50.imagenet1k_v1", "resnet50.imagenet1k_v2", "resnet50.tv_in1k", "squeezenet1_0",
            "squeezenet1_1"} <= set(found)
    assert found["resnet50.imagenet1k_v1"].top1_err == pytest.approx(23.87)
    assert found["resnet50.imagenet1k_v2"].top1_err == pytest.approx(19.142)
    # One architecture is timed once.
    assert sum(name.startswith("resnet50") for name in timed[0]) == 1
    assert found["resnet50.imagenet1k_v1"].cpu_ms == found["resnet50.imagenet1k_v2"].cpu_ms


def test_a_size_is_the_file_s_where_there_is_one(fresh_registry, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(bytes(3 * 2**20))
    mvlib.register_model(lambda **kwargs: Probe(), name="ours", weights={"in1k": {"sources": [f"file:{path}"]}})
    found = {c.model: c for c in compare_models(["ours", "alexnet.imagenet1k_v1", "resnet18.a1_in1k"], **QUICK)}
    assert (found["ours"].size_mib, found["ours"].size_from) == (3.0, "cached")
    assert found["alexnet.imagenet1k_v1"].size_from in ("published", "cached")
    assert found["resnet18.a1_in1k"].size_mib == pytest.approx(44.6, abs=0.2)


def test_nothing_is_downloaded(monkeypatch):
    monkeypatch.setattr("mvlib.hub.fetch", None)
    assert compare_models(["squeezenet1_1"], **QUICK)[0].cpu_ms > 0


def test_measured_errors(fresh_registry):
    asked = []

    def measure(name):
        asked.append(name)
        if name.startswith("squeezenet1_0"):
            raise mvlib.NotCachedError("the weights are not here\nfetch them")
        return {"top1": 75.0, "top1_err": 25.0, "top5_err": 5.0}

    found = compare_models(["squeezenet1_0", "squeezenet1_1"], measure=measure, **QUICK)
    assert asked == ["squeezenet1_0.imagenet1k_v1", "squeezenet1_1.imagenet1k_v1"]
    assert (found[0].model, found[0].top1_err, found[0].top5_err, found[0].note) == ("squeezenet1_1", 25.0, 5.0, None)
    assert (found[1].top1_err, found[1].note) == (None, "not measured: the weights are not here")
    assert found[1].cpu_ms > 0


def test_a_model_that_cannot_be_timed_is_listed():
    found = compare_models(["alexnet", "squeezenet1_1"], img_size=32, seconds=0.02)
    alexnet = next(c for c in found if c.model == "alexnet")
    assert alexnet.cpu_ms is None and "not timed on cpu: RuntimeError: " in alexnet.note
    assert alexnet.top1_err == 43.478


def test_time_is_an_image_s(fresh_registry, monkeypatch):
    mvlib.register_model(lambda **kwargs: Probe(), name="mine")
    made = mvlib.benchmark.Measurement("mine", "inference", "eager", "float32", "cpu", 4, latency_ms=80.0,
                                       latency_iqr_ms=8.0)
    monkeypatch.setattr("mvlib.benchmark.benchmark_models", lambda names, **kwargs: [made])
    found, = compare_models("mine", batch_size=4)
    assert (found.cpu_ms, found.cpu_iqr_ms) == (20.0, 2.0)


def test_models_take_turns_as_far_as_memory_goes():
    groups = {f"model{i}": [Candidate(f"model{i}", "", params=200.0)] for i in range(6)}  # 800 MB each
    batches = compare._batches(groups)
    assert [name for batch in batches for name in batch] == list(groups)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert compare._batches({"giant": [Candidate("giant", "", params=5000.0)]}) == [["giant"]]


@pytest.mark.parametrize(("arguments", "error", "text"), [
    (dict(models=["resnet5o"]), mvlib.UnknownNameError, "unknown architecture 'resnet5o'; did you mean"),
    (dict(models=["resnet50.a1"]), mvlib.UnknownNameError, "unknown tag 'a1' of the architecture 'resnet50'"),
    (dict(models=["nothing_*"]), mvlib.UnknownNameError, "no model with weights matches 'nothing_*'"),
    (dict(models=[]), mvlib.ConfigError, "compare needs the names of models"),
    (dict(models=["alexnet"], sort="beauty"), mvlib.ConfigError, "cannot sort by 'beauty'; known: model, top1_err"),
])
def test_what_is_refused(arguments, error, text):
    with pytest.raises(error) as caught:
        compare_models(**arguments)
    assert text in str(caught.value)


def test_the_pareto_front_is_what_nothing_dominates():
    for seed in range(200):
        draw = random.Random(seed)
        points = [(draw.randint(1, 9), draw.randint(1, 9)) for _ in range(draw.randint(1, 12))]
        candidates = [Candidate(str(i), "", float(error), cpu_ms=float(time)) for i, (error, time) in enumerate(points)]
        candidates.append(Candidate("without", "", None, cpu_ms=0.1))
        front = pareto_front(candidates)
        for (error, time), candidate in zip(points, candidates):
            dominated = any(e <= error and t <= time and (e, t) != (error, time) for e, t in points)
            assert candidate.pareto == (not dominated)
        assert sorted(c.model for c in front) == sorted(c.model for c in candidates if c.pareto)
        assert [c.top1_err for c in front] == sorted(c.top1_err for c in front)


# the chart


def label_boxes(figure):
    figure.canvas.draw()
    texts = figure.axes[0].findobj(lambda artist: artist.get_gid() == "label")
    return {text.get_text(): Box(*text.get_window_extent().extents) for text in texts}


def crowd(count, seed):
    draw = random.Random(seed)
    return study([(f"model_{'x' * draw.randint(1, 14)}_{i}", draw.gauss(25, 4), math.exp(draw.gauss(4, 0.7)),
                   math.exp(draw.gauss(3.5, 1.2))) for i in range(count)])


@pytest.mark.sample(3)
@pytest.mark.parametrize("candidates", [
    study(), study(STUDY[:1]), study(STUDY[:2]), crowd(30, 0), crowd(30, 1), crowd(60, 2),
    study([(f"same_place_{i}", 20.0, 50.0, 100.0) for i in range(12)]),
    study([(f"a_column_{i}", 20.0, 10.0 + i, 100.0) for i in range(12)]),
], ids=["study", "one", "two", "crowd30", "crowd30b", "crowd60", "same", "column"])
def test_labels_neither_overlap_nor_leave_the_axes(candidates):
    figure = bubble_figure(candidates)
    boxes = label_boxes(figure)
    assert set(boxes) == {c.model for c in candidates}  # there is room for all of these
    frame = Box(*figure.axes[0].get_window_extent().extents)
    for name, box in boxes.items():
        assert box.within(frame), name
        assert not any(box.overlaps(other) for key, other in boxes.items() if key != name), name


def test_bubbles_lie_within_the_axes_and_their_areas_are_proportional():
    figure = bubble_figure(study())
    figure.canvas.draw()
    axes, panel = figure.axes
    bubbles = axes.collections[0]
    frame = axes.get_window_extent()
    for (x, y), area in zip(axes.transData.transform(bubbles.get_offsets()), bubbles.get_sizes()):
        radius = math.sqrt(area) / 2 * figure.dpi / 72
        assert frame.x0 <= x - radius and x + radius <= frame.x1 and frame.y0 <= y - radius and y + radius <= frame.y1
    sizes = sorted((size for *_, size in STUDY), reverse=True)
    for area, size in zip(bubbles.get_sizes(), sizes):
        assert area == pytest.approx(bubbles.get_sizes()[0] * size / sizes[0]) or size < 5
    # The legend's bubbles have the same scale.
    shown = {float(text.get_text().split()[0]): dots.get_sizes()[0] for text, dots in zip(
        [t for t in panel.texts if t.get_text().endswith("MiB")], panel.collections)}
    assert set(shown) == {20, 100, 500}
    for size, area in shown.items():
        assert area == pytest.approx(bubbles.get_sizes()[0] * size / sizes[0])


def test_the_chart_says_what_it_shows():
    candidates = [*study(), Candidate("no_$x$_metrics", "w", None, cpu_ms=20.0)]
    figure = bubble_figure(candidates, caption="the machine")
    axes = figure.axes[0]
    texts = " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))
    assert axes.get_yscale() == "log" and axes.get_xlabel() == "top-1 error (%)"
    assert axes.get_ylabel() == "CPU time per image (ms), log scale"
    assert "lower left is better" in texts and "the machine" in texts and "Pareto front" in texts
    assert "Not shown, for want of an error or a time: no_$x$_metrics." in texts
    line = axes.lines[0]
    assert line.get_drawstyle() == "steps-post"
    assert list(line.get_xdata()) == sorted(c.top1_err for c in candidates if c.pareto)
    assert bubble_figure(study(STUDY[3:6])).axes[0].get_yscale() == "linear"  # 38 to 92 ms


def test_labels_leave_out_a_tag_that_tells_nothing():
    rows = study([("resnet50.a1_in1k", 19.0, 90.0, 98.0), ("resnet50.a2_in1k", 21.0, 80.0, 98.0),
                  ("vgg16.tv_in1k", 28.0, 300.0, 528.0)])
    assert set(label_boxes(bubble_figure(rows))) == {"resnet50.a1_in1k", "resnet50.a2_in1k", "vgg16"}
    assert [point["name"] for point in data_of(render_report(rows))["points"]] == [
        "resnet50.a1_in1k", "resnet50.a2_in1k", "vgg16"]


def test_a_chart_without_any_point():
    figure = bubble_figure([Candidate("mine", "mine", None, cpu_ms=1.0)])
    assert "no model has both an error and a time" in [text.get_text() for text in figure.axes[0].texts]


def test_the_same_figures_give_the_same_file(tmp_path):
    for ending in ("png", "pdf"):
        first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
        draw_bubbles(study(), first)
        draw_bubbles(study(), second)
        assert first.read_bytes() == second.read_bytes()
    draw_bubbles(study(), tmp_path / "a.svg")
    assert "<dc:date>" not in (tmp_path / "a.svg").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "a.png", "a.svg", "b.pdf", "b.png"]


def test_a_label_without_a_free_place_is_left_out():
    frame = Box(0, 0, 100, 40)
    boxes = place_labels([(90, 15)] * 4, [(50, 20)] * 4, [2.0] * 4, frame)
    placed = [box for box in boxes if box is not None]
    assert 1 <= len(placed) < 4
    assert not any(a.overlaps(b) for i, a in enumerate(placed) for b in placed[:i])


def test_labels_keep_off_bubbles_and_lines():
    boxes = place_labels([(40, 10)], [(100, 100)], [10], Box(0, 0, 300, 200), lines=[((100, 100), (300, 100))])
    assert not boxes[0].cut((100, 100), (300, 100)) and math.dist(boxes[0].nearest((100, 100)), (100, 100)) >= 10


def test_matplotlib_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(mvlib.MissingPackageError, match="--plot needs the package 'matplotlib': pip install"):
        draw_bubbles(study(), tmp_path / "x.png")


@pytest.mark.parametrize(("sizes", "expected"), [
    ([528, 5], [20, 100, 500]), ([100], [100]), ([90, 40], [50]), ([0.5, 0.2], [0.1, 0.5]), ([9, 1], [1, 5]),
])
def test_round_sizes(sizes, expected):
    assert round_sizes(sizes) == pytest.approx(expected)


# the page


class Page(html.parser.HTMLParser):
    """Elements and the table's cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag != "wbr":  # may stand within words
            self.tags.append(tag)
        self.links += [value for key, value in attributes if key in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.tags[-1] in ("td", "button", "small", "span"):
            self.rows[-1][-1] += data.strip("\n")


EVIL = "</script><script>document['title']='broken'</script>@DATA@"


def page(extra=()):
    rows = [*study(), Candidate("without", "without.in1k", None, None, 20.0, size_mib=9.9, params=2.5, img_size=224,
                                note="no published <b>accuracy</b>"), *extra]
    pareto_front(rows)
    return rows, render_report(rows, caption="machine & <b>\nsecond line")


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])


def test_the_page_needs_nothing_else():
    _, text = page()
    assert Page(text).links == [] and not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "@import" not in text and "url(" not in text
    assert '<p class="caption">machine &amp; &lt;b&gt;</p>' in text and "second line" in text
    assert "Not in the chart, for want of an error or a time: without." in text


def test_the_page_s_table():
    rows, text = page()
    table = Page(text).rows
    assert table[0] == ["model", "top-1 error (%)", "top-5 error (%)", "CPU (ms)", "size (MiB)", "params (M)",
                        "GMACs", "px", "front", "weights", "note"]
    assert [row[0] for row in table[1:]] == [c.model for c in rows]
    assert table[1][1:5] == ["43.50", "10.88", "22.0 \u00b1 0.22", "233.1"]
    assert table[-1][1] == "" and table[-1][-1] == "no published <b>accuracy</b>"


def test_names_are_escaped():
    _, text = page([Candidate(EVIL, EVIL, 30.0, None, 20.0, size_mib=3.0)])
    assert text.count("<script") == 2 and text.count("</script>") == 2
    assert data_of(text)["points"][-1]["model"] == EVIL


CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
browser = pytest.mark.skipif(CHROME is None, reason="no chromium or google-chrome to open the page with")


def browse(tmp_path, text, script, width=1100):
    """What a script, run in the page in headless Chromium, returns."""
    probe = r"""<script>
    addEventListener("error", event => document.title = event.message);
    addEventListener("load", () => {
      const found = (() => { SCRIPT })();
      const out = document.createElement("pre");
      out.id = "found"; out.textContent = "FOUND" + JSON.stringify({found, title: document.title}) + "END";
      document.body.append(out);
    });
    </script></head>""".replace("SCRIPT", script)
    path = tmp_path / "page.html"
    path.write_text(text.replace("</head>", probe, 1), encoding="utf-8")
    done = subprocess.run(
        [CHROME, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", path.as_uri()],
        capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">FOUND(.*)END</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    result = json.loads(html.unescape(found[1]))
    assert result["title"] == "Error, time and size of image models"  # no error, and no script of a name's
    return result["found"]


SORT = """
  const headers = Array.from(document.querySelectorAll("th"));
  const read = () => Array.from(document.querySelectorAll("tbody tr"), row => row.cells[0].textContent);
  return %s.map(heading => [1, 2, 3].map(() => {
    const header = headers.find(h => h.textContent.startsWith(heading));
    header.querySelector("button").focus();
    document.activeElement.click();  // what Enter and the space bar do to a button
    return [read(), header.getAttribute("aria-sort"), headers.filter(h => h.hasAttribute("aria-sort")).length];
  }));
"""


@browser
def test_a_click_on_a_header_sorts(tmp_path):
    rows, text = page()
    fields = {"CPU": "cpu_ms", "top-5": "top5_err", "model": "model", "size": "size_mib", "GMACs": "gmacs"}
    for field, orders in zip(fields.values(), browse(tmp_path, text, SORT % list(fields)), strict=True):
        check_orders(rows, field, *orders)


def check_orders(rows, field, first, second, third):
    known = [c for c in rows if getattr(c, field) is not None]
    key = (lambda c: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", c.model)]) \
        if field == "model" else (lambda c: getattr(c, field))
    missing = [c.model for c in rows if getattr(c, field) is None]

    def values(names):
        by_name = {c.model: c for c in rows}
        return [getattr(by_name[name], field) for name in names]

    assert values(first[0]) == [getattr(c, field) for c in sorted(known, key=key)] + [None] * len(missing)
    assert values(second[0]) == [getattr(c, field) for c in sorted(known, key=key, reverse=True)] + \
        [None] * len(missing)
    assert third[0] == first[0]
    assert [first[1:], second[1:], third[1:]] == [["ascending", 1], ["descending", 1], ["ascending", 1]]


CHART = """
  const svg = document.querySelector("#chart svg"), frame = svg.getBoundingClientRect();
  const box = part => { const b = part.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
  const labels = Array.from(svg.querySelectorAll("text.name"), t => [t.textContent, box(t)]);
  const circles = Array.from(svg.querySelectorAll("circle"), c => [c.getAttribute("aria-label"), box(c),
    c.classList.contains("front"), c.tabIndex, Number(c.getAttribute("r"))]);
  return {labels, circles, frame: box(svg), path: svg.querySelector(".staircase").getAttribute("d"),
          width: document.documentElement.scrollWidth, seen: innerWidth};
"""


@browser
@pytest.mark.parametrize("width", [1100, 500])
def test_the_chart_in_the_page(tmp_path, width):
    rows, text = page()
    found = browse(tmp_path, text, CHART, width)
    shown = [c for c in rows if c.top1_err is not None]
    labels = [Box(left, top, right, bottom) for _, (left, top, right, bottom) in found["labels"]]
    assert len(labels) == len(shown) == len(found["circles"])
    frame = Box(*found["frame"])
    for i, label in enumerate(labels):
        assert label.within(frame)
        # Letters, not the lines' leading: half a pixel of rounding.
        assert not any(label.overlaps(other, -0.5) for other in labels[:i])
    for label, _, is_front, tab, _ in found["circles"]:
        candidate = next(c for c in rows if c.model == label.partition(":")[0])
        assert is_front == candidate.pareto and tab == 0
        assert f"top-1 error {candidate.top1_err:.2f} %" in label and f"{candidate.size_mib:.1f} MiB" in label
    assert found["path"].count("H") == sum(c.pareto for c in rows) - 1
    radii = {label.partition(":")[0]: radius for label, *_, radius in found["circles"]}
    assert radii["vgg16"] / radii["resnet50"] == pytest.approx(math.sqrt(527.8 / 97.8))
    assert found["width"] <= found["seen"]  # the page itself does not scroll sideways


AXIS = """
  const box = part => { const b = part.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
  const texts = Array.from(document.querySelectorAll("#chart svg text:not(.name)"));
  const title = texts.find(text => text.textContent.startsWith("CPU time"));
  return [box(title), box(document.querySelector("#chart")),
          texts.filter(text => text !== title).map(text => [text.textContent, box(text)])];
"""


@browser
@pytest.mark.parametrize("width", [pytest.param(1100, marks=pytest.mark.slow), 500])
@pytest.mark.parametrize("times", [(1200, 3000), (0.004, 25000), (123450, 123460)], ids=str)
def test_the_time_axis_leaves_room_for_its_numbers(tmp_path, times, width):
    rows = study([("one", 30.0, times[0], 20.0), ("two", 25.0, times[1], 90.0)])
    title, chart, others = browse(tmp_path, render_report(rows), AXIS, width)
    assert any(float(text) >= times[0] for text, _ in others[:-1])
    for _, box in others:
        assert not Box(*title).overlaps(Box(*box))
        assert Box(*chart)[0] <= box[0] and box[2] <= Box(*chart)[2]


LINES = """
  const cell = Array.from(document.querySelectorAll("td:first-child")).find(c => c.textContent === "%s");
  const circle = document.querySelector('circle[aria-label^="%s:"]');
  circle.dispatchEvent(new PointerEvent("pointerenter"));
  return [cell, document.querySelector("#tip b")].map(place => {
    const words = [];
    for (const node of place.childNodes) if (node.nodeType === Node.TEXT_NODE) {
      const range = document.createRange();
      range.selectNodeContents(node);
      words.push([node.textContent, range.getClientRects().length]);
    }
    return [words, place.getClientRects()[0].height];
  });
"""


@browser
def test_names_break_between_their_parts_on_a_phone(tmp_path):
    name = "vit_base_patch16_clip_quickgelu_224.dfn2b_ft_in12k_ft_in1k"
    for words, height in browse(tmp_path, page([Candidate(name, name, 14.0, 3.0, 20.0, size_mib=330.0)])[1],
                                LINES % (name, name), 500):
        assert height > 30  # more than one line
        assert "".join(text for text, _ in words) == name
        assert all(lines == 1 for _, lines in words), words


TOOLTIP = """
  const tip = document.getElementById("tip"), read = () => tip.hidden ? null : tip.innerText;
  const circle = document.querySelector('circle[aria-label^="%s:"]');
  const result = [read()];
  circle.dispatchEvent(new PointerEvent("pointerenter")); result.push(read());
  const row = document.querySelector("tr.chosen"); result.push(row && row.cells[0].textContent);
  circle.dispatchEvent(new PointerEvent("pointerleave")); result.push(read());
  circle.focus(); result.push(read());
  const place = tip.getBoundingClientRect(); result.push(place.left >= 0 && place.right <= innerWidth);
  circle.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"})); result.push(read());
  return result;
"""


@browser
@pytest.mark.parametrize("width", [1100, 500])
def test_tooltips_on_hover_and_focus(tmp_path, width):
    hidden, hovered, row, left, focused, is_inside, closed = browse(tmp_path, page()[1], TOOLTIP % "vgg16", width)
    assert hidden is left is closed is None
    assert hovered.splitlines() == ["vgg16", "top-1 error 28.40 %", "top-5 error 7.10 %", "CPU time 300 ms",
                                    "527.8 MiB", "131.9 M parameters", "15.00 GMACs at 224 px", "vgg16.in1k"]
    assert focused == hovered and row == "vgg16" and is_inside


@browser
def test_a_name_that_is_a_script_stays_a_name(tmp_path):
    _, text = page([Candidate(EVIL, EVIL, 30.0, None, 20.0, size_mib=3.0)])
    cells, labels = browse(tmp_path, text, """
      return ["td:first-child", "text.name"].map(
        kind => Array.from(document.querySelectorAll(kind), part => part.textContent));""")
    assert cells[-1] == EVIL and EVIL in labels


@browser
def test_dark_mode(tmp_path):
    _, text = page()
    colour = "return getComputedStyle(document.body).backgroundColor;"
    assert browse(tmp_path, text, colour) == "rgb(255, 255, 255)"
    dark = text.replace("(prefers-color-scheme: dark)", "(min-width: 0)")
    assert browse(tmp_path, dark, colour) == "rgb(20, 25, 30)"


# the style of other pictures


def test_curves_have_a_title_and_named_axes_in_the_chart_s_style(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path: drawn.append(figure))
    history = [{"epoch": i, "train_loss": 2.0, "eval_loss": math.nan, "eval_top1": 50.0 + i, "lr": 0.1} for i in (0, 1)]
    assert report.describe_run(history, "first", "digits") == "run first on digits; best top-1 51.00% at epoch 1"
    assert report.describe_run([{"epoch": 0, "lr": 0.1}], "first", "digits") == "run first on digits"
    of_equals = [{"epoch": i, "eval_top1": 99.0, "eval_loss": 0.1, "ema_top1": top1, "ema_loss": loss}  # as it is kept
                 for i, (top1, loss) in enumerate([(50.0, 2.0), (60.0, 1.0), (60.0, math.nan), (40.0, 1.5)])]
    assert report.describe_run(of_equals, "first", "digits") == "run first on digits; best top-1 60.00% at epoch 2"
    assert report.describe_run(of_equals, "first", "digits", "loss") == "run first on digits; best loss 1 at epoch 1"
    report.draw_curves(history, tmp_path / "curves.png", "Training of resnet18", "run first on digits")
    figure = drawn[0]
    assert figure.get_suptitle() == "Training of resnet18"
    assert [text.get_text() for text in figure.texts] == ["Training of resnet18", "run first on digits"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy (%)", "learning rate"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 1]  # what was not measured has no line
    bubbles = bubble_figure(study())
    for ours in figure.axes:
        for side, spine in bubbles.axes[0].spines.items():
            assert (ours.spines[side].get_visible(), ours.spines[side].get_edgecolor()) == \
                (spine.get_visible(), spine.get_edgecolor())
    assert figure.dpi == bubbles.dpi
    assert bubbles.get_suptitle() == "Error, time and size of image models"


def test_the_same_weights_have_the_same_colour_in_all_panels(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path: drawn.append(figure))
    columns = ("train_loss", "eval_loss", "ema_loss", "eval_top1", "eval_top5", "ema_top1", "lr")
    report.draw_curves([{"epoch": 0, **dict.fromkeys(columns, 1.0)}], tmp_path / "curves.png")
    colours = [{line.get_label(): line.get_color() for line in axes.lines} for axes in drawn[0].axes]
    assert colours[0]["validation"] == colours[1]["top-1"]
    assert colours[0]["validation, average"] == colours[1]["top-1, average"]
    assert len(set(colours[1].values())) == len(set(colours[0].values())) == 3
    drawn[0].draw_without_rendering()
    shown = [tick for axes in drawn[0].axes for tick in axes.get_xticks() if abs(tick) <= 0.5]
    assert shown == [0, 0, 0]  # of the first epoch, no fractions of it


def test_learning_rates_have_a_title(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(schedule_command, "save_figure", lambda figure, path: drawn.append(figure))
    assert main(["schedule", "--epochs", "8", "--lr", "0.5", "--plot", str(tmp_path / "lr.png")]) == 0
    figure = drawn[0]
    assert figure.get_suptitle() == "Learning rate"
    assert figure.texts[1].get_text().startswith("Cosine(t_initial=8") and "base learning rate 0.5" in \
        figure.texts[1].get_text()
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("epoch", "learning rate")
    figure.draw_without_rendering()
    assert all(float(tick) == int(float(tick)) for tick in figure.axes[0].get_xticks())
