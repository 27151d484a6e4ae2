"""The model zoo of the documentation: its rows are search's, and its page does in a browser what it says."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import mvlib
from mvlib import query
from mvlib.errors import ConfigError
from tests.browser import CHROME, Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
build_zoo = pytest.importorskip("build_zoo")

browser = pytest.mark.skipif(CHROME is None, reason="no chromium or google-chrome to open the page with")
EVERYTHING = query.search(published=False)
NAMES = {record.name for record in EVERYTHING}


@pytest.fixture(autouse=True)
def gathered(monkeypatch):
    """Records are gathered once, not for each of a thousand searches."""
    monkeypatch.setattr(query, "_records", lambda published, task: (
        record for record in EVERYTHING if (record.source or not published) and task in (None, record.task)))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder that the script makes when it is run alone."""
    pytest.importorskip("markdown")
    out = tmp_path_factory.mktemp("zoo")
    done = subprocess.run([sys.executable, ROOT / "scripts" / "build_zoo.py", out], capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"{len(EVERYTHING)} rows" in done.stdout
    return out


@pytest.fixture(scope="module")
def desktop(site):
    """The page at a desktop's width; each test opens it anew."""
    with Page() as page:
        yield page


@pytest.fixture
def zoo(desktop, site):
    desktop.errors.clear()
    desktop.open((site / "index.html").as_uri())
    yield desktop
    assert desktop.errors == []


def data_of(text):
    return json.loads(text.removeprefix("const zooData = ").rstrip(";\n"))


# what the script makes

def test_all_rows_and_figures_are_those_of_search():
    data = data_of(build_zoo.assets()["data.js"])
    columns = {name: [None if code is None else data["texts"][name][code] for code in values]
               if name in data["texts"] else values for name, values in data["columns"].items()}
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    papers = [(row["year"], row.pop("described")) for row in rows]
    wanted = query.search(published=False, sort="name")
    assert rows == [record.as_dict(set(query.FIELDS) - {"cached"}) for record in wanted]
    assert data["count"] == len(wanted) > 2000
    assert all(year is None or year == 2000 + int(number[:2]) for year, number in papers)
    assert sum(year is not None for year, _ in papers) > 0.8 * len(wanted)


def test_it_imports_no_torch(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import build_zoo; build_zoo.assets(); " \
           "build_zoo.family_pages(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.stdout.strip() == "False", done.stderr


def test_papers_are_those_that_the_modules_cite():
    torchvision = pytest.importorskip("torchvision").models.__path__[0]
    foreign = "".join(path.read_text() for path in Path(torchvision).rglob("*.py"))
    given = yaml.safe_load(build_zoo.PAPERS.read_text())
    for family, rows in given.items():
        cited = build_zoo.description(family) or foreign
        names = [record.arch for record in EVERYTHING if record.family == family]
        for label, number, *patterns in rows:
            assert number is None or number in cited, (family, label)
            for pattern in patterns:
                assert build_zoo.fnmatch.filter(names, pattern), (family, pattern)
    for family in build_zoo.families():
        build_zoo.papers_of(family)  # which ends where a module cites several and nobody says which is which


@pytest.mark.parametrize("architecture, year", [
    ("resnet50", 2015), ("wide_resnet50_2", 2016), ("seresnext50_32x4d", 2017), ("convnext_tiny", 2022),
    ("convnextv2_tiny", 2023), ("vit_base_patch16_224", 2020), ("vit_base_patch16_clip_224", 2021),
    ("vit_base_patch14_reg4_dinov2", 2023), ("efficientnet_b0", 2019), ("tf_efficientnetv2_s", 2021),
    ("csatv2", None), ("vit_betwixt_patch16_reg4_gap_384", None), ("test_vit", None), ("raft_large", 2020)])
def test_years(architecture, year):
    paper = build_zoo.paper_of(mvlib.registry.get_module(architecture), architecture)
    assert (paper and paper.year) == year


def test_a_page_a_family_lists_all_that_it_has(site):
    families = sorted({record.family for record in EVERYTHING if record.family})
    assert {path.stem for path in site.glob("*.html")} == {"index", *families}
    listed = set()
    for family in families:
        text = (site / f"{family}.html").read_text()
        codes = set(re.findall(r"<td class=text><code>([^<]+)</code>", text))
        group = [record for record in EVERYTHING if record.family == family]
        assert codes == {record.arch for record in group} | {record.name for record in group if record.source}
        listed |= codes
        named = re.search(r'create_model\(&quot;([^&]+)&quot;\)|create_model\("([^"]+)"\)', text)
        assert (named[1] or named[2]) in {record.name for record in group}
        best = max((record.top1 for record in group if record.top1), default=None)
        assert best is None or f"<td>{best:.2f}</td>" in text
    assert {record.arch for record in EVERYTHING} <= listed
    resnet = (site / "resnet.html").read_text()
    assert 'href="https://arxiv.org/abs/1512.03385"' in resnet and "bsd-3-clause" in resnet
    vit = (site / "vision_transformer.html").read_text()
    assert "index.html#q=family%3Dvision_transformer" in vit


# the page in a browser

WORDS = ["resnet*", "dino", "VIT", "*.in1k", "resnet50.a?_in1k", "[ab]*", "[!a-m]*", "vit_*_[23]*", "[", "a]b", "x[",
         "[z-a]*", "'r50'", "tv_", '"mobilenet"', '"not"', "knot", "wide_resnet50_2", "efficientnet-b0", "*-*", "a.b",
         "[]a]*", "+", "$"]
CONDITIONS = ["top1>80", "top1 >= 84.5", "acc1<70%", "params<30M", "params>300", "params<5000k", "param_count>1g",
              "gmacs<=.5", "macs!=4.0", "activations<10", "input=224", "size==384", "test>input", "classes=0",
              "num_classes!=1000", "file_size<20", "license=MIT", "licence!=apache-2.0", "license~apple*", "labels~22k",
              "labels!~imagenet", "family=resnet", "module~vision_transformer*", "name~resnet*", "name!~resnet",
              "name=resnet50", "arch=resnet50", "tag~*clip*", "builder~vit", "builder!=resnet50", "source~https",
              "source!~hf-hub", "paper~2110*", "origin~pytorch", "recipe~references", "task=detection", "epe<3",
              "box_map>30", "miou>60", "video_top1>70", "preprocessing=torchvision", "license='cc-by-nc-4.0'",
              "test_gmacs>100", "test_activations<10", "top5>=97", "year>2020", "year<=2019", 'license=""',
              'recipe!=""', 'license~""', "license=apache", "license!=commercial", "top1<0.5%"]
MISTAKES = ["top1", "top1>", "top1>abc", "top1>80x", "top1~80", "license<mit", "nosuch=1", "(", ")", "()", "or", "and",
            "resnet or", "or resnet", "(resnet", "resnet)", "'resnet", 'license="mit', "=5", "top1>(80)", "a or or b",
            "a and or b", "and a", "top1=80=", "<", "a (b", "((a)", "license=", "x!", "x!=1", "gmacs > k", "a and",
            "params<10000000", "gmacs<5000000000", "file_size<100000", "top1>0.845", "miou>.5", "80<top1<82",
            "5>=gmacs", "80<top1<", "3=x", "params<10M, gmacs<2", "a && b", "a | b", "license=mit;", "accuracy>80",
            "flops<2G", "!x", "!", "-resnet", "-", "not top1>80", "NOT resnet", "!top1>80", "-5<top1", "params<30%",
            "params<30M%", "not=3", "vit not (dino or mae)"]


def queries():
    """Conditions alone, mistakes, and their combinations, the same in every run."""
    chance = random.Random(0)
    plain = ["", "  ", *WORDS, *CONDITIONS, *MISTAKES]

    def joined(depth):
        if not depth or chance.random() < 0.4:
            return chance.choice(WORDS + CONDITIONS * 2)
        parts = [joined(depth - 1) for _ in range(chance.randint(1, 3))]
        text = chance.choice([" ", " and ", " or ", " OR "]).join(parts)
        return f"({text})" if chance.random() < 0.5 else text

    mixed = [joined(3) for _ in range(300)]
    broken = []
    for _ in range(200):  # cut or add a character somewhere
        text = joined(2)
        at = chance.randrange(len(text))
        broken.append(text[:at] + chance.choice(["", "(", ")", "=", "!", "<", " ", "'", '"', "~", "*"]) + text[at + 1:])
    return [*plain, *mixed, *broken]


def answer(text):
    """Names that search finds, or where it stumbles and why."""
    try:
        found = query.survey(text, published=False)
        hints = [hint for hint in found.hints if "the license" in hint]
        return [sorted(record.name for record in found.found), found.left_out, list(found.unknown), len(hints)]
    except ConfigError as error:
        _, _, marks, reason = str(error).split("\n")
        marks = marks[2:]
        reason = reason.partition(";")[0].partition(" (quote the whole")[0]
        return [len(marks) - len(marks.lstrip()), len(marks), reason]


@pytest.mark.slow
@browser
def test_the_filter_reads_what_search_reads(zoo):
    asked = queries()
    script = """(() => {
      const columns = {}, lowered = {};
      for (const [name, values] of Object.entries(zooData.columns)) {
        const texts = zooData.texts[name];
        columns[name] = texts ? values.map(code => code === null ? null : texts[code]) : values;
        if (texts) lowered[name] = columns[name].map(text => text && text.toLowerCase());
      }
      const table = {...zooData, columns, lowered};
      return ASKED.map(text => {
        try {
          const condition = compileQuery(text, table);
          const unknown = columns.name.map((_, i) => i).filter(i => condition(i) === null);
          const texts = condition.texts.filter(([name, text]) => name === "license"
            && !lowered[name].includes(text.toLowerCase())).length;
          return [columns.name.filter((_, i) => condition(i)).sort(), unknown.length,
                  condition.fields.filter(name => unknown.some(i => condition.isUnknown(name, i))), texts];
        } catch (error) {
          if (!(error instanceof QueryError)) throw error;
          return [error.start, error.end, error.message.split(";")[0]];
        }
      });
    })()""".replace("ASKED", json.dumps(asked))
    found = zoo.run(script)
    wanted = [answer(text) for text in asked]
    assert [(text, f) for text, f, w in zip(asked, found, wanted) if f != w] == []
    kinds = [isinstance(w[0], int) for w in wanted]
    assert kinds.count(True) > 50 and kinds.count(False) > 300
    read = [w for w in wanted if not isinstance(w[0], int)]
    assert sum(0 < len(names) < 500 for names, *_ in read) > 150
    assert sum(left_out > 0 for _, left_out, _, _ in read) > 100 and sum(hints for *_, hints in read) > 2


def settle(page):
    page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def names(page):
    return page.run("document.getElementById('zoo').names()")


def ask(page, text):
    page.run(f"""(() => {{ const box = document.getElementById("zoo-query"); box.value = {json.dumps(text)};
        box.dispatchEvent(new Event("input")); }})()""")
    settle(page)


def visible(page):
    """Names and places of the rows that can be seen."""
    return page.run("""(() => { const area = document.querySelector(".zoo-scroll").getBoundingClientRect();
        const head = document.querySelector("#zoo-table thead").offsetHeight;
        return [...document.querySelectorAll("#zoo-table tr[data-position]")].filter(row => {
          const box = row.getBoundingClientRect();
          return box.top >= area.top + head - 1 && box.bottom <= area.bottom + 1;
        }).map(row => row.querySelector(".zoo-name").textContent); })()""")


@browser
def test_what_is_typed_filters_and_is_kept_in_the_address(zoo, site):
    assert set(names(zoo)) == NAMES
    zoo.run("document.getElementById('zoo-query').focus()")
    zoo.write("top1>80 params<30M")
    settle(zoo)
    wanted = [record.name for record in query.search("top1>80 params<30M", published=False)]
    assert names(zoo) == wanted
    assert visible(zoo) == wanted[:len(visible(zoo))] and len(visible(zoo)) > 8
    assert zoo.run("document.getElementById('zoo-count').textContent").startswith(f"{len(wanted)} of ")
    assert zoo.run("document.getElementById('zoo-command').textContent") == 'mvlib search "top1>80 params<30M" --all'
    zoo.run("new Promise(done => setTimeout(done, 400))")  # the address follows when typing pauses
    address = zoo.run("location.href")
    assert "#" in address
    zoo.open(address)
    assert names(zoo) == wanted
    assert zoo.run("document.getElementById('zoo-query').value") == "top1>80 params<30M"


@browser
def test_a_mistake_is_pointed_at_and_the_rows_stay(zoo):
    ask(zoo, "resnet*")
    before = names(zoo)
    ask(zoo, "resnet* top1>x")
    assert names(zoo) == before
    assert zoo.run("document.querySelector('#zoo-problem mark').textContent") == "x"
    assert "is not a number" in zoo.run("document.getElementById('zoo-problem').textContent")
    assert zoo.run("document.getElementById('zoo-query').getAttribute('aria-invalid')") == "true"
    ask(zoo, "cached=yes")
    assert "your machine" in zoo.run("document.getElementById('zoo-problem').textContent")
    ask(zoo, "resnet*")
    assert zoo.run("document.getElementById('zoo-problem').textContent") == ""
    ask(zoo, "<img src=x onerror=document.title=1>")
    assert zoo.run("[document.title, document.querySelectorAll('#zoo img').length]") == ["Model zoo", 0]


@pytest.mark.slow
@browser
def test_every_order_is_that_of_search(zoo, site):
    fields = zoo.run("[...document.querySelectorAll('.zoo-bar select')][1].options.length")
    assert fields > 40
    for field in sorted(set(query.FIELDS) - {"cached", "paper", "origin", "recipe", "preprocessing"}):
        for sort in (field, f"-{field}"):
            zoo.run(f"location.hash = 'sort={sort}'")
            settle(zoo)
            assert names(zoo) == [record.name for record in query.search(published=False, sort=sort)], sort
    zoo.run("location.hash = 'sort=license,-params&weights=1'")
    settle(zoo)
    assert names(zoo) == [record.name for record in query.search(sort="license,-params")]


@browser
@pytest.mark.parametrize("text", ["params<10M", "top1>80 params<30M gmacs<5", "license=apache", "license=commercial",
                                  "lite0 year>2018", "name=resnet5", "arch=resnet18 test=224 top1>0"])
def test_what_is_not_known_is_said(zoo, text):
    ask(zoo, text)
    found = query.survey(text, published=False)
    said = zoo.run("document.getElementById('zoo-count').textContent").split(". ")[1:]
    wanted = [hint for hint in found.hints if not hint.startswith("no weights have the name")]
    wanted += [f"{found.unsorted} come last: their top1 is not known"] * (found.unsorted > 0)
    wanted += [f"{found.left_out} more may meet the conditions: their {' or '.join(found.unknown)} is not known"] * (
        found.left_out > 0)
    wanted += ["accuracies are at the test size, GMACs at the input size (test_gmacs<5 or test=224 asks for one size)"
               ] * any(record.test != record.input for record in found.found)
    assert [line for line in said if not line.startswith("no weights have the name")] == wanted
    assert any(line.startswith("no weights have the name 'resnet5'; did you mean 'resnet5") for line in said) == \
        (text == "name=resnet5")


@browser
def test_tasks_years_and_one_row_an_architecture(zoo):
    zoo.run("location.hash = 'task=detection&weights=1&sort=box_map&y=box_map'")
    settle(zoo)
    assert names(zoo) == [record.name for record in query.search(task="detection")]
    zoo.run("location.hash = 'one=1&weights=1'")
    settle(zoo)
    best = {}
    for record in query.search():
        best.setdefault(record.arch, record.name)
    assert names(zoo) == list(best.values())
    zoo.run("location.hash = 'q=year%3D2015'")
    settle(zoo)
    assert "resnet50.a1_in1k" in names(zoo) and "convnext_tiny.fb_in1k" not in names(zoo)
    assert zoo.run("document.getElementById('zoo-command').textContent") == 'mvlib search "year=2015" --all'
    zoo.run("location.hash = 'sort=nosuch&x=nosuch&y=nosuch&task=nosuch&model=nosuch'")  # an address from elsewhere
    settle(zoo)
    assert names(zoo) == [record.name for record in EVERYTHING]


@browser
def test_rows_are_made_as_they_are_scrolled_to(zoo):
    wanted = names(zoo)
    assert zoo.run("document.querySelectorAll('#zoo-table tr[data-position]').length") < 80
    for share in (0.37, 1):
        zoo.run(f"""(() => {{ const area = document.querySelector(".zoo-scroll");
            area.scrollTop = {share} * area.scrollHeight; }})()""")
        settle(zoo)
        seen = visible(zoo)
        first = wanted.index(seen[0])
        assert len(seen) > 8 and seen == wanted[first:first + len(seen)]
        assert abs(first / len(wanted) - share) < 0.02
    assert seen[-1] == wanted[-1]


@browser
@pytest.mark.parametrize("text, x, y", [
    ("", "params", "top1"), ("license=apache-2.0 params<100", "test_gmacs", "top1"),
    ("vit", "test_activations", "top5"), ("", "file_size", "epe"), ("", "params", "box_map")])
def test_the_front_is_the_front(zoo, text, x, y):
    zoo.run(f"location.hash = new URLSearchParams({{q: {json.dumps(text)}, x: '{x}', y: '{y}'}})")
    settle(zoo)
    zoo.run("document.querySelector('#zoo-chart svg').focus()")
    found = []
    zoo.press("Home")
    while (name := zoo.run("document.querySelector('.zoo-tip b').textContent")) not in found:
        found.append(name)
        zoo.press("ArrowRight")
    sign = -1 if y == "epe" else 1
    points = [(getattr(r, x), sign * getattr(r, y), r.name) for r in query.search(text, published=False)
              if getattr(r, x) is not None and getattr(r, y) is not None]
    beaten = lambda p: any(q[0] <= p[0] and q[1] >= p[1] and q[:2] != p[:2] for q in points)  # noqa: E731
    assert set(found) == {p[2] for p in points if not beaten(p)}
    count = zoo.run("document.querySelector('#zoo-chart svg').getAttribute('aria-label')")
    assert f"of {len(points)} models, {len(found)} on the Pareto front" in count
    drawn = zoo.run("""[...document.querySelectorAll("#zoo-chart .dots")].map(
        dots => dots.getAttribute("d").split("M").length - 1)""")
    assert drawn == [len(points) - len(found), len(found)]
    zoo.press("Enter")
    assert found[-1] in zoo.run("document.getElementById('zoo-detail').textContent")


@browser
def test_the_pointer_shows_a_dot_and_a_click_its_model(zoo):
    ask(zoo, "name=resnet50.a1_in1k")
    place = zoo.run("""(() => { const dots = document.querySelector("#zoo-chart .dots.front").getAttribute("d");
        const [x, y] = dots.slice(1, dots.indexOf("h")).split(" ").map(Number);
        document.getElementById("zoo-chart").scrollIntoView({block: "center"});
        const box = document.querySelector("#zoo-chart").getBoundingClientRect();
        return [box.x + x, box.y + y]; })()""")
    zoo.point(place[0] + 4, place[1] + 4)
    tip = zoo.run("document.querySelector('.zoo-tip').innerText")
    record = query.search("name=resnet50.a1_in1k")[0]
    assert tip.startswith("resnet50.a1_in1k") and f"{record.top1:.2f}" in tip and f"{record.params:.2f}" in tip
    zoo.point(5, 5)
    assert zoo.run("document.querySelector('.zoo-tip').hidden")


@browser
def test_a_click_shows_the_snippet_and_copies_it(zoo):
    ask(zoo, "resnet50.a1_in1k")
    zoo.click("#zoo-table tr[data-position='0'] .c-top1")
    assert zoo.run("document.querySelector('.zoo-snippet code').textContent") == \
        'model = mvlib.create_model("resnet50.a1_in1k")'
    text = zoo.run("document.getElementById('zoo-detail').innerText")
    record = query.search("name=resnet50.a1_in1k")[0]
    for fact in (str(record.top1), f"{record.params:.2f} M", f"{record.gmacs:.2f} GMACs", record.license, record.source,
                 "arXiv:1512.03385", "arXiv:2110.00476"):
        assert fact in text
    zoo.run("""(() => { window.copied = null; const kept = text => { window.copied = text; return Promise.resolve(); };
        Object.defineProperty(navigator, "clipboard", {value: {writeText: kept}, configurable: true}); })()""")
    zoo.click(".zoo-snippet button")
    assert zoo.run("[copied, document.querySelector('.zoo-snippet button').textContent]") == \
        ['model = mvlib.create_model("resnet50.a1_in1k")', "Copied"]
    zoo.run("new Promise(done => setTimeout(done, 400))")
    zoo.open(zoo.run("location.href"))
    assert zoo.run("document.querySelector('.zoo-head b').textContent") == "resnet50.a1_in1k"


@browser
def test_all_of_it_by_keyboard(zoo):
    seen = []
    for _ in range(40):  # from control to control
        zoo.press("Tab")
        focused = zoo.run("""(() => { const at = document.activeElement, style = getComputedStyle(at);
            const outline = at.id === "zoo-table" ? getComputedStyle(at.parentElement) : style;
            return [at.id || at.parentElement.dataset.field || at.tagName, outline.outlineStyle !== "none"
                    && parseFloat(outline.outlineWidth) >= 1]; })()""")
        seen.append(focused)
        if focused[0] == "source":
            break
    reached = [name for name, _ in seen]
    assert [name for name in reached if name in ("zoo-query", "zoo-table")] == ["zoo-query", "zoo-table"]
    assert reached[-11:] == ["name", "family", "top1", "params", "gmacs", "activations", "input", "test", "license",
                             "year", "source"]
    assert all(is_seen for _, is_seen in seen)
    zoo.press("Tab", 7, shift=True)  # to the parameters' heading
    sort = "[...document.querySelectorAll('th[aria-sort]')].map(h => [h.dataset.field, h.ariaSort])"
    assert zoo.run(sort) == [["top1", "descending"]]
    zoo.press("Enter")
    assert zoo.run(sort) == [["params", "ascending"]]
    assert names(zoo) == [record.name for record in query.search(published=False, sort="params")]
    zoo.press(" ")
    assert zoo.run(sort) == [["params", "descending"]]
    wanted = [record.name for record in query.search(published=False, sort="-params")]
    assert names(zoo) == wanted

    zoo.run("document.getElementById('zoo-table').focus()")
    chosen = """(() => { const row = document.getElementById(document.getElementById("zoo-table")
        .getAttribute("aria-activedescendant"));
        const area = document.querySelector(".zoo-scroll").getBoundingClientRect(), box = row.getBoundingClientRect();
        return [row.querySelector(".zoo-name").textContent, Number(row.ariaRowIndex),
                box.top >= area.top && box.bottom <= area.bottom + 1]; })()"""
    for keys, position in ((["ArrowDown"] * 3, 3), (["End"], len(wanted) - 1), (["ArrowDown"], len(wanted) - 1),
                           (["ArrowUp"], len(wanted) - 2), (["Home"], 0), (["ArrowDown"] * 25, 25)):
        for key in keys:
            zoo.press(key)
        settle(zoo)
        assert zoo.run(chosen) == [wanted[position], position + 2, True]
    zoo.press("PageDown")
    assert zoo.run(chosen)[1] > 30
    zoo.press("Home")
    zoo.press("Enter")
    assert wanted[0] in zoo.run("document.querySelector('.zoo-snippet code').textContent")
    zoo.press("Escape")
    assert zoo.run("[document.getElementById('zoo-detail').hidden, document.activeElement.id]") == [True, "zoo-table"]


@browser
def test_controls_have_names(zoo):
    unnamed = zoo.run("""[...document.querySelectorAll("#zoo :is(input, select, button, [tabindex='0'])")].filter(
        at => ![at.labels?.[0]?.textContent, at.getAttribute("aria-label"), at.textContent].some(text => text?.trim()))
        .map(at => at.outerHTML)""")
    assert unnamed == []


PHONE = """(() => { const wide = []; for (const at of document.querySelectorAll("body *")) {
    const box = at.getBoundingClientRect();
    if (box.right > innerWidth + 1 && !at.closest(".zoo-wide table, pre")) wide.push(at.outerHTML.slice(0, 80));
  } return [document.documentElement.scrollWidth, wide]; })()"""


@browser
def test_a_phone_needs_no_sideways_scrolling(site):
    with Page(390, 844) as page:
        for name in ("index.html", "index.html#model=vit_so400m_patch14_siglip_gap_378.webli&q=vit", "resnet.html",
                     "vision_transformer.html", "regnet.html"):
            page.open(f"{site.as_uri()}/{name}")
            assert page.run(PHONE) == [390, []], name
        page.open((site / "index.html").as_uri())
        shown = page.run("""[...document.querySelectorAll("#zoo-table th")].filter(h => h.offsetWidth)
            .map(h => h.dataset.field)""")
        assert shown == ["name", "top1", "params", "gmacs"]
        more = page.run("document.querySelector('#zoo-table tr[data-position] small').innerText")
        record = EVERYTHING[0]
        assert f"{record.input} px" in more and record.license in more  # folded, not lost
        page.run("location.hash = 'model=resnet50.a1_in1k'")
        settle(page)
        assert page.run(PHONE) == [390, []]
        assert page.errors == []


CONTRAST = """(() => {
  const rgb = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const linear = c => c / 255 <= .04045 ? c / 255 / 12.92 : ((c / 255 + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const under = at => {
    for (; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour[3] > .99) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const at of document.querySelectorAll("body *")) {
    const own = [...at.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    if (!own || !at.getClientRects().length || ["OPTION", "SCRIPT", "STYLE"].includes(at.tagName)) continue;
    let shown = 1;
    for (let over = at; over; over = over.parentElement) shown *= Number(getComputedStyle(over).opacity);
    const style = getComputedStyle(at), ink = rgb(at instanceof SVGElement ? style.fill : style.color);
    const page = under(at), mixed = page.map((part, k) => shown * ink[k] + (1 - shown) * part);
    const [a, b] = [light(mixed), light(page)].sort((p, q) => q - p);
    found.push([(a + .05) / (b + .05), at.outerHTML.slice(0, 90)]);
  }
  return found;
})()"""


@pytest.mark.sample(2)
@browser
@pytest.mark.parametrize("how", ["light", "dark", "slate"])
def test_text_can_be_read(site, how):
    with Page(1280, 900, dark=how == "dark") as page:
        for name in ("index.html#q=top1&model=resnet50.a1_in1k", "resnet.html"):
            page.open(f"{site.as_uri()}/{name}")
            if how == "slate":  # the theme's switch, whose page is this dark
                page.run("""(() => { document.body.dataset.mdColorScheme = "slate";
                    document.body.style.setProperty("--md-default-bg-color", "#1e2129");
                    document.body.style.background = "#1e2129"; })()""")
            found = page.run(CONTRAST)
            assert len(found) > 50
            assert [entry for entry in found if entry[0] < 4.5] == []
            dark = page.run("getComputedStyle(document.body).backgroundColor")
            assert (dark == "rgb(255, 255, 255)") == (how == "light")


@browser
def test_nothing_comes_from_elsewhere(zoo, site):
    zoo.requests.clear()
    for name in ("index.html", "resnet.html"):
        zoo.open(f"{site.as_uri()}/{name}")
    fetched = [url for url in zoo.requests if url != "about:blank"]
    assert len(fetched) >= 8
    assert [url for url in fetched if not url.startswith(site.as_uri())] == []


SITE = """
site_name: mvlib
use_directory_urls: {folders}
theme:
  name: material
  font: false
  palette:
    - {{media: "(prefers-color-scheme: light)", scheme: default}}
    - {{media: "(prefers-color-scheme: dark)", scheme: slate}}
hooks: [{hook}]
plugins: []
markdown_extensions: [attr_list, tables, pymdownx.superfences]
validation: {{omitted_files: warn, absolute_links: warn, unrecognized_links: warn, anchors: warn}}
nav: [zoo/index.md]
"""


@pytest.mark.slow
@pytest.mark.parametrize("folders", [False, True])
def test_the_site_has_it_too(tmp_path, folders):
    pytest.importorskip("material")
    (tmp_path / "docs" / "zoo").mkdir(parents=True)
    for path in build_zoo.SOURCE.iterdir():
        (tmp_path / "docs" / "zoo" / path.name).write_bytes(path.read_bytes())
    hook = ROOT / "scripts" / "build_zoo.py"
    (tmp_path / "mkdocs.yml").write_text(SITE.format(folders=str(folders).lower(), hook=hook))
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict"], cwd=tmp_path, capture_output=True,
                          text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    zoo = tmp_path / "site" / "zoo"
    family = zoo / ("resnet/index.html" if folders else "resnet.html")
    assert "resnet50.a1_in1k" in family.read_text()
    for page in (zoo / "index.html", family):  # whatever a page names beside it is there
        links = re.findall(r'(?:href|src)="?([^"#> ]+\.(?:css|js|html)|[a-z0-9_]+/)(?:#[^"]*)?[" >]', page.read_text())
        missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
        assert len(links) > 3 and not missing
    if CHROME is None or folders:
        return
    for width, dark in ((390, False), (1280, True)):
        with Page(width, 900, dark=dark) as page:
            page.open(f"{zoo.as_uri()}/index.html#model=resnet50.a1_in1k")
            assert page.run("document.getElementById('zoo').names().length") == len(EVERYTHING)
            assert page.run("document.documentElement.scrollWidth") <= width
            assert (page.run("document.body.dataset.mdColorScheme") == "slate") == dark
            found = page.run(CONTRAST.replace('"body *"', '"#zoo *"'))
            assert len(found) > 50 and [entry for entry in found if entry[0] < 4.5] == []
            cut = page.run("""[...document.querySelectorAll("#zoo-table td:is(.c-top1, .c-params, .c-gmacs)")]
                .filter(cell => cell.scrollWidth > cell.clientWidth).length""")
            assert cut == 0
            assert [url for url in page.requests if not url.startswith(("file:", "data:", "about:"))] == []
            assert page.errors == []
