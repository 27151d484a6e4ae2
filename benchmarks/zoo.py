"""The model zoo's page in headless Chromium: first paint, milliseconds a key in the filter, frames while it scrolls.

    python benchmarks/zoo.py
    python benchmarks/zoo.py --repeats 9 --width 390

Beside it, on the same page, a plain table of all rows, of which the same keys hide and show the same, without order and
without a chart. A key's time runs from the event to the frame after the one in which its rows were drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.browser import CHROME, Page

ROOT = Path(__file__).resolve().parents[1]
TYPED = "top1>80 params<30M"
PREPARE = """
const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
const pause = () => new Promise(done => setTimeout(done, 30));
const box = document.getElementById("zoo-query"), area = document.querySelector(".zoo-scroll");
async function timed(change) {
  await pause();
  const start = performance.now();
  change();
  const script = performance.now() - start;
  document.body.offsetHeight;
  const laid = performance.now() - start;
  await frame();
  return [script, laid, performance.now() - start];
}
const ask = text => () => { box.value = text; box.dispatchEvent(new Event("input")); };
"""
OURS = PREPARE + """
const times = [];
window.found = [];
for (let end = 1; end <= TYPED.length; end++) {
  times.push(await timed(ask(TYPED.slice(0, end))));
  window.found.push(new Set(document.getElementById("zoo").names()));
}
await timed(ask(""));
return times;
"""
PLAIN = PREPARE + """
const kept = document.createElement("div"), names = document.getElementById("zoo").names();
const columns = ["family", "top1", "params", "gmacs", "activations", "input", "license", "year", "source"];
const index = new Map(zooData.texts.name.map((name, code) => [name, zooData.columns.name.indexOf(code)]));
const cell = (field, i) => { const value = zooData.columns[field][i];
  return value === null ? "" : zooData.texts[field] ? zooData.texts[field][value] : value; };
kept.innerHTML = "<table class=zoo-list>" + names.map(name => `<tr><td>${name}</td>${columns.map(field =>
  `<td>${cell(field, index.get(name))}</td>`).join("")}</tr>`).join("") + "</table>";
const root = document.getElementById("zoo"), rows = [...kept.querySelectorAll("tr")];
const times = [["built", ...await timed(() => root.after(kept))]];
for (const found of window.found)
  times.push(["key", ...await timed(() => rows.forEach((row, i) => { row.hidden = !found.has(names[i]); }))]);
kept.remove();
return times;
"""
SCROLL = PREPARE + """
const gaps = [];
let last = await new Promise(requestAnimationFrame);
for (let step = 1; step <= 120; step++) {
  area.scrollTop = step / 120 * area.scrollHeight;
  const now = await new Promise(requestAnimationFrame);
  gaps.push(now - last);
  last = now;
}
return gaps;
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--width", type=int, default=1280, help="of the window, in CSS pixels")
    args = parser.parse_args()
    if CHROME is None:
        print("no chromium or google-chrome here", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, ROOT / "scripts" / "build_zoo.py", folder], check=True)
        paints, keys, plain, built, gaps = [], [], [], [], []
        for _ in range(args.repeats):
            with Page(args.width) as page:
                page.open((Path(folder) / "index.html").as_uri())
                paints.append(page.run("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
                nodes = page.run("document.querySelectorAll('*').length")
                run = lambda script: page.run(f"(async () => {{ {script} }})()")  # noqa: E731
                ours = run(OURS.replace("TYPED", json.dumps(TYPED)))
                keys += ours
                for kind, *times in run(PLAIN):
                    (built if kind == "built" else plain).append(times)
                gaps += run(SCROLL)
    print(f"{args.width} px wide, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"first contentful paint, table and chart drawn: {statistics.median(paints):.0f} ms ({nodes} elements)")
    for label, times in (("a key in the filter", keys), ("a plain table's filter", plain)):
        for part, what in enumerate(("script", "and layout", "and its frame")):
            values = sorted(time[part] for time in times)
            print(f"{label}, {what}: median {statistics.median(values):.1f} ms, "
                  f"worst but one in twenty {values[int(0.95 * len(values))]:.1f} ms")
    ratio = statistics.median(time[1] for time in plain) / statistics.median(time[1] for time in keys)
    print(f"plain / ours, script and layout: {ratio:.2f}; putting the plain table in: "
          f"{statistics.median(time[1] for time in built):.0f} ms")
    gaps.sort()
    print(f"frames while scrolling through all rows: median {statistics.median(gaps):.1f} ms apart, "
          f"worst but one in twenty {gaps[int(0.95 * len(gaps))]:.1f} ms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
