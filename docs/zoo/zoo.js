// The zoo's page: filter box, scatter and table over the rows of data.js, which scripts/build_zoo.py writes.
"use strict";
(() => {
  const root = document.getElementById("zoo"),
    {node, words, ticks, ruler} = zooChart;
  const COLUMNS = [
    // field, heading, what it is
    ["name", "name", "architecture.tag"],
    ["family", "family", "module that defines the architecture"],
    ["top1", "top-1", "figure of the task, ImageNet-1K's top-1 accuracy in percent"],
    ["params", "params (M)", "parameters, in millions"],
    ["gmacs", "GMACs", "multiply-accumulates for one image of the input's size, in 1e9"],
    ["activations", "acts (M)", "activations for one image of the input's size, in millions"],
    ["input", "input", "height and width of the image in training, in pixels"],
    ["test", "test", "height and width of the image in evaluation, where the accuracies are measured, in pixels"],
    ["license", "licence", "licence of the weights"],
    ["year", "year", "of the architecture's paper"],
    ["source", "source", "where the weights come from"],
  ];
  const COSTS = {
    // of the chart: what an accuracy costs where it was measured, at the size of evaluation
    params: "parameters (M)",
    test_gmacs: "GMACs, at the size of evaluation",
    test_activations: "activations (M), at the size of evaluation",
    file_size: "file (MiB)",
  };
  const FIGURES = {
    top1: "ImageNet top-1 (%)",
    top5: "ImageNet top-5 (%)",
    box_map: "COCO box mAP (%)",
    mask_map: "COCO mask mAP (%)",
    kp_map: "COCO keypoint mAP (%)",
    miou: "mean IoU (%)",
    pixel_acc: "pixel accuracy (%)",
    video_top1: "Kinetics top-1 (%)",
    video_top5: "Kinetics top-5 (%)",
    epe: "end-point error (px)",
  };
  const EXAMPLES = [
    "top1>80 params<10M",
    "top1>84 gmacs<5 license=apache-2.0",
    "resnet* or convnext*",
    "classes=0 dino",
    "year>=2024",
  ];

  // The rows. Texts come as numbers that stand for them, in the order in which search sorts them.
  const {fields, otherNames, meant, units, tasks, count} = zooData,
    codes = zooData.columns,
    columns = {},
    lowered = {};
  for (const [name, values] of Object.entries(codes)) {
    const texts = zooData.texts[name];
    columns[name] = texts ? values.map(code => (code === null ? null : texts[code])) : values;
    if (texts) {
      const low = texts.map(text => text.toLowerCase());
      lowered[name] = values.map(code => (code === null ? null : low[code]));
    }
  }
  const table = {count, fields, otherNames, meant, units, tasks, columns, lowered};
  const value = (field, i) => columns[field][i];
  const shown = (field, i) => {
    const found = value(field, i);
    return found === null ? "" : fields[field].kind === "number" ? found.toFixed(fields[field].digits) : found;
  };
  const place = i => {
    // a source in a few words
    const source = value("source", i);
    if (source === null) return "none published";
    const [kind, rest] = [source.slice(0, source.indexOf(":")), source.slice(source.indexOf(":") + 1)];
    return kind === "https" || kind === "http"
      ? new URL(source).hostname
      : kind === "hf-hub"
        ? `hf-hub:${rest.split("/")[0]}`
        : `${kind}:${rest.split("/")[0]}`;
  };

  // What is shown, which the address keeps.
  const DEFAULTS = {q: "", task: "", sort: "top1", x: "params", y: "top1", weights: "", one: "", model: ""};
  const state = {...DEFAULTS};
  let rows = [],
    condition = compileQuery("", table),
    leftOut = [], // rows that may meet it: what it asks for isn't known of them
    active = 0;

  function readAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const key of Object.keys(DEFAULTS)) state[key] = given.get(key) ?? DEFAULTS[key];
    if (!Object.hasOwn(tasks, state.task)) state.task = "";
    if (!Object.hasOwn(COSTS, state.x)) state.x = DEFAULTS.x;
    if (!Object.hasOwn(FIGURES, state.y)) state.y = DEFAULTS.y;
    if (!order(state.sort).length) state.sort = DEFAULTS.sort;
    if (state.model && !indexOf.has(state.model)) state.model = "";
  }
  let writing = 0;
  function writeAddress() {
    // Once typing pauses: browsers allow few changes of the address a second, and each is slow.
    clearTimeout(writing);
    writing = setTimeout(() => {
      const kept = new URLSearchParams();
      for (const key of Object.keys(DEFAULTS)) if (state[key] !== DEFAULTS[key]) kept.set(key, state[key]);
      const hash = String(kept);
      if (hash !== location.hash.slice(1))
        history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    }, 200);
  }
  const indexOf = new Map(columns.name.map((name, i) => [name, i]));

  // As search's `sort`: each field best first, a minus turns it round; records without the field come last.
  function order(sort) {
    return sort
      .split(",")
      .map(part => {
        const turned = part.trim().startsWith("-"),
          given = part
            .trim()
            .slice(turned ? 1 : 0)
            .toLowerCase();
        const field = Object.hasOwn(otherNames, given) ? otherNames[given] : given;
        return Object.hasOwn(fields, field) && Object.hasOwn(codes, field)
          ? [field, Boolean(fields[field].descending) !== turned]
          : null;
      })
      .filter(Boolean);
  }
  function sorted(found) {
    const keys = order(state.sort).map(([field, descending]) => [codes[field], descending ? -1 : 1]);
    return found.sort((a, b) => {
      for (const [values, sign] of keys) {
        const left = values[a],
          right = values[b];
        if (left === right) continue;
        if (left === null || right === null) return (left === null) - (right === null);
        return left < right ? -sign : sign;
      }
      return a - b; // rows stand in the order of their names
    });
  }
  function choose() {
    const found = [];
    leftOut = [];
    for (let i = 0; i < count; i++)
      if (
        (!state.task || value("task", i) === state.task) &&
        (!state.weights || value("source", i) !== null)
      ) {
        const met = condition(i);
        if (met) found.push(i);
        else if (met === null) leftOut.push(i);
      }
    sorted(found);
    if (!state.one) return found;
    const seen = new Set();
    return found.filter(i => !seen.has(codes.arch[i]) && seen.add(codes.arch[i]));
  }
  // What the rows do not say, as mvlib search says it.
  function* remarks() {
    for (const [name, wanted] of condition.texts) {
      const low = wanted.toLowerCase(),
        known = (name === "name" ? ["name", "arch", "builder"] : [name]).flatMap(field => zooData.texts[field]);
      if (known.some(text => text.toLowerCase() === low)) continue;
      const near = known.filter(text => text.toLowerCase().startsWith(low)).slice(0, 3);
      const said = near.length
        ? `; did you mean ${near.map(text => `'${text}'`).join(" or ")}?`
        : known.length <= 25
          ? `; known: ${known.join(", ")}`
          : "";
      yield `no weights have the ${name} '${wanted}'${said}`;
    }
    const [[first]] = order(state.sort),
      last = rows.filter(i => value(first, i) === null).length;
    if (last) yield `${counted(last)} come last: their ${first} is not known`;
    const unknown = condition.fields.filter(name => leftOut.some(i => condition.isUnknown(name, i)));
    if (leftOut.length)
      yield `${counted(leftOut.length)} more may meet the conditions: their ${unknown.join(" or ")} is not known`;
    if (rows.some(i => value("test", i) !== value("input", i)))
      yield "accuracies are at the test size, GMACs at the input size (test_gmacs<5 or test=224 asks for one size)";
  }
  // Those that no other beats: at least as good for at most the cost, and better in one of them.
  function paretoFront(found) {
    const cost = columns[state.x],
      figure = columns[state.y],
      sign = fields[state.y].descending ? 1 : -1;
    const known = found.filter(i => cost[i] !== null && figure[i] !== null);
    const front = [];
    let best = -Infinity,
      bestCost = null;
    for (const i of [...known].sort((a, b) => cost[a] - cost[b] || sign * (figure[b] - figure[a]) || a - b)) {
      const good = sign * figure[i];
      if (good > best || (good === best && cost[i] === bestCost)) {
        front.push(i);
        best = good;
        bestCost = cost[i];
      }
    }
    return {known, front};
  }

  // Elements.
  function make(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, given] of Object.entries(attributes)) if (given !== null) made.setAttribute(key, given);
    made.append(...children);
    return made;
  }
  const option = (key, text) => make("option", {value: key}, text);
  const select = (label, options) => {
    const made = make("select", {}, ...options.map(([key, text]) => option(key, text)));
    return [make("label", {}, `${label} `, made), made];
  };
  const check = label => {
    const box = make("input", {type: "checkbox"});
    return [make("label", {}, box, ` ${label}`), box];
  };

  const box = make("input", {
    type: "search",
    id: "zoo-query",
    spellcheck: "false",
    autocomplete: "off",
    autocapitalize: "off",
    placeholder: "resnet*   top1>80 params<30M   license=mit",
    "aria-describedby": "zoo-problem",
  });
  const problem = make("p", {id: "zoo-problem", class: "zoo-problem", role: "status"});
  const tally = make("p", {class: "zoo-tally", role: "status", id: "zoo-count"});
  const command = make("code", {id: "zoo-command"});
  const [taskLabel, taskBox] = select("Task", [
    ["", "all"],
    ...Object.keys(tasks).map(name => [name, name.replaceAll("_", " ")]),
  ]);
  const known = Object.keys(fields).filter(name => Object.hasOwn(columns, name));
  const sortable = known.filter(name => !["paper", "origin", "recipe", "preprocessing"].includes(name));
  const [sortLabel, sortBox] = select(
    "Sort",
    sortable.flatMap(name => [
      [name, `${fields[name].heading || name}, best first`],
      [`-${name}`, `${fields[name].heading || name}, turned round`],
    ]),
  );
  for (const {value: key, firstChild: text} of sortBox.options) {
    const isDown = Boolean(fields[key.replace("-", "")].descending) !== key.startsWith("-");
    text.data = `${text.data.split(",")[0]} ${isDown ? "\u2193" : "\u2191"}`;
  }
  const [weightsLabel, weightsBox] = check("with weights");
  const [oneLabel, oneBox] = check("one row an architecture");
  const [xLabel, xBox] = select(
    "Cost",
    Object.entries(COSTS).map(([key, text]) => [key, text.split(",")[0]]),
  );
  const [yLabel, yBox] = select("Figure", Object.entries(FIGURES));
  const help = make("details", {class: "zoo-help"}, make("summary", {}, "What can be asked"));
  const fact = (term, text) => [make("dt", {}, make("code", {}, term)), make("dd", {}, text)];
  help.append(
    make(
      "dl",
      {},
      ...fact("resnet*", "a wildcard for the name, with or without the tag"),
      ...fact("dino", "a part of the name"),
      ...fact(
        "top1>80 params<30M",
        "conditions side by side must all hold; = != < <= > >=, in the table's unit or with k, M, G",
      ),
      ...fact("license=mit or license=apache-2.0", "alternatives; parentheses group them"),
      ...fact("labels~22k license!=unknown", "texts: = != for the whole, ~ !~ for wildcards and parts"),
      ...fact('license=""', "those without"),
      ...fact(known.join(" "), "the fields"),
    ),
  );
  const chart = make("div", {class: "zoo-chart", id: "zoo-chart"}),
    tip = make("div", {class: "zoo-tip", role: "status"});
  tip.hidden = true;
  const headings = COLUMNS.map(([field, heading, title]) =>
    make(
      "th",
      {scope: "col", class: `c-${field}`, "data-field": field},
      make("button", {type: "button", title: `${title}; sort by it`}, heading),
    ),
  );
  const body = make("tbody"),
    grid = make(
      "table",
      {
      role: "grid",
      class: "zoo-table",  // without a class it would be the theme's
      id: "zoo-table",
      tabindex: "0",
      "aria-label": "Models; arrow keys choose a row, Enter shows it",
    },
      make("thead", {}, make("tr", {"aria-rowindex": "1"}, ...headings)),
      body,
    );
  const scroller = make("div", {class: "zoo-scroll"}, grid);
  const detail = make("section", {class: "zoo-detail", id: "zoo-detail", "aria-label": "Chosen model"});
  detail.hidden = true;
  root.replaceChildren(
    make("div", {class: "zoo-ask"}, make("label", {for: "zoo-query"}, "Filter"), box),
    problem,
    make(
      "div",
      {class: "zoo-try"},
      "Try ",
      ...EXAMPLES.flatMap(text => [make("button", {type: "button", "data-query": text}, text), " "]),
    ),
    help,
    make("div", {class: "zoo-bar"}, taskLabel, sortLabel, weightsLabel, oneLabel),
    make(
      "figure",
      {class: "zoo-figure"},
      make(
        "figcaption",
        {class: "zoo-bar"},
        yLabel,
        xLabel,
        make("span", {class: "zoo-key"}, make("i"), "Pareto front: none is better and costs less"),
      ),
      chart,
      tip,
    ),
    tally,
    scroller,
    detail,
    make("p", {class: "zoo-command"}, "The same at a prompt: ", command),
  );

  // The table: only the rows that can be seen are in the page.
  const AROUND = 8;
  const broken = name => name.split(/(?<=[_./-])(?=\w)/).flatMap(part => [part, document.createElement("wbr")]);
  function line(position) {
    const i = rows[position];
    const made = make("tr", {
      id: `zoo-row-${position}`,
      "data-position": position,
      "aria-rowindex": position + 2,
    });
    for (const [field] of COLUMNS) {
      const cell = make("td", {class: `c-${field}`});
      if (field === "name") {
        const tested = value("test", i) === value("input", i) ? "" : `, tested at ${shown("test", i)}`;
        const more = [`${shown("input", i)} px${tested}`, shown("license", i), shown("year", i)]
          .filter(Boolean)
          .join(" \u00b7 ");
        cell.append(
          make(
            "span",
            {class: value("source", i) === null ? "zoo-name none" : "zoo-name"},
            ...broken(columns.name[i]),
          ),
          make("small", {}, more),
        );
        cell.title = columns.name[i];
      } else if (field === "family") {
        cell.append(
          make("a", {href: zooData.family.replace("*", columns.family[i]), tabindex: "-1"}, columns.family[i]),
        );
      } else if (field === "source") cell.append(place(i));
      else if (field === "top1") cell.append(figureOf(i));
      else cell.append(shown(field, i));
      if (field === "license" || field === "source") cell.title = value(field, i) ?? "";
      made.append(cell);
    }
    return made;
  }
  function figureOf(i) {
    // of another task, its own figure, with its name
    const [field] = tasks[value("task", i)];
    const text = shown(field, i);
    return field === "top1" || !text ? text : make("span", {title: FIGURES[field]}, text, make("sup", {}, "*"));
  }
  // Sizes are read before anything changes: a reading between two changes would lay the page out twice.
  let row = 34,
    room = 600,
    width = 1200;
  function measure() {
    row = parseFloat(getComputedStyle(scroller).getPropertyValue("--zoo-row")) || 34;
    room = scroller.clientHeight;
    width = chart.clientWidth;
  }
  function space() {
    const made = make("tr", {role: "presentation"});
    made.style.height = "0px";
    return made;
  }
  const before = space(),
    after = space(),
    lines = new Map();
  body.append(before, after);
  function drawRows(force, top = scroller.scrollTop) {
    const first = Math.max(0, Math.min(Math.floor(top / row), rows.length - 1) - AROUND);
    const last = Math.min(rows.length, Math.ceil((top + room) / row) + AROUND);
    for (const [position, drawn] of lines)
      if (force || position < first || position >= last) {
        drawn.remove();
        lines.delete(position);
      }
    let next = after;
    for (let position = last - 1; position >= first; position--) {
      if (!lines.has(position)) {
        lines.set(position, line(position));
        next.before(lines.get(position));
      }
      next = lines.get(position);
    }
    before.style.height = `${first * row}px`;
    after.style.height = `${(rows.length - last) * row}px`;
    for (const [position, drawn] of lines) {
      drawn.classList.toggle("active", position === active);
      drawn.setAttribute("aria-selected", String(columns.name[rows[position]] === state.model));
    }
    if (lines.has(active)) grid.setAttribute("aria-activedescendant", `zoo-row-${active}`);
    else grid.removeAttribute("aria-activedescendant");
  }
  function reveal(position) {
    const seen = scroller.clientHeight - grid.tHead.offsetHeight,
      top = position * row;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + row > scroller.scrollTop + seen) scroller.scrollTop = top + row - seen;
  }
  function go(position) {
    active = Math.max(0, Math.min(rows.length - 1, position));
    reveal(active);
    drawRows();
    point(rows[active]);
  }
  grid.addEventListener("keydown", event => {
    if (event.target !== grid || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(room / row) - 2);
    const step = {ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity}[
      event.key
    ];
    if (step !== undefined) go(active + step);
    else if ((event.key === "Enter" || event.key === " ") && rows.length) show(rows[active]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  grid.addEventListener("blur", () => point(null));
  const positionAt = event => Number(event.target.closest("tr[data-position]")?.dataset.position ?? -1);
  body.addEventListener("click", event => {
    if (positionAt(event) < 0 || event.target.closest("a")) return;
    active = positionAt(event);
    show(rows[active]);
  });
  body.addEventListener("pointerover", event => {
    const position = positionAt(event);
    point(position < 0 ? null : rows[position]);
  });
  body.addEventListener("pointerleave", () => point(null));
  scroller.addEventListener("scroll", () => drawRows(), {passive: true});
  for (const heading of headings)
    heading.firstChild.addEventListener("click", () => {
      const {field} = heading.dataset;
      state.sort = order(state.sort)[0][0] === field && !state.sort.startsWith("-") ? `-${field}` : field;
      update();
    });

  // The chosen model.
  const snippetOf = i => `model = mvlib.create_model("${columns.name[i]}")`;
  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", {style: "position: fixed; opacity: 0"});
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = "Copied";
    setTimeout(() => {
      button.textContent = "Copy";
    }, 1500);
  }
  function address(source) {
    if (source.startsWith("hf-hub:")) return `https://huggingface.co/${source.slice(7).split("@")[0]}`;
    return /^https?:/.test(source) ? source : null;
  }
  const paperLink = id =>
    make(
      "a",
      {href: `https://arxiv.org/abs/${id.replace(/^arXiv:/, "")}`},
      id.startsWith("arXiv:") ? id : `arXiv:${id}`,
    );
  function show(i, quietly) {
    state.model = columns.name[i];
    const button = make("button", {type: "button"}, "Copy"),
      close = make("button", {type: "button", class: "zoo-close", "aria-label": "Close"}, "\u00d7");
    button.addEventListener("click", () => copy(snippetOf(i), button));
    close.addEventListener("click", () => {
      hide();
      grid.focus({preventScroll: true});
    });
    const facts = make("dl");
    const add = (term, ...about) => facts.append(make("div", {}, make("dt", {}, term), make("dd", {}, ...about)));
    add("family", make("a", {href: zooData.family.replace("*", columns.family[i])}, columns.family[i]));
    for (const field of Object.keys(FIGURES))
      if (value(field, i) !== null)
        add(FIGURES[field].replace(/ \((.*)\)/, ""), `${value(field, i)} ${FIGURES[field].match(/\((.*)\)/)[1]}`);
    const number = (field, unit) => (value(field, i) === null ? "" : `${shown(field, i)}${unit}`);
    if (value("params", i) !== null) add("parameters", number("params", " M"));
    if (value("gmacs", i) !== null)
      add(
        `at ${value("input", i)} px`,
        [number("gmacs", " GMACs"), number("activations", " M activations")].filter(Boolean).join(", "),
      );
    if (value("test", i) !== value("input", i))
      add(
        `evaluated at ${value("test", i)} px`,
        [number("test_gmacs", " GMACs"), number("test_activations", " M activations")].filter(Boolean).join(", ") ||
          "costs not measured",
      );
    add(
      "outputs",
      value("classes", i) === 0
        ? "features"
        : `${value("classes", i)}${value("labels", i) ? `, ${value("labels", i)}` : ""}`,
    );
    if (value("license", i)) add("licence", value("license", i));
    if (value("builder", i)) add("torchvision's name", value("builder", i));
    const papers = new Set(
      [value("described", i) && `arXiv:${value("described", i)}`, ...(value("paper", i) ?? "").split(", ")].filter(
        Boolean,
      ),
    );
    if (papers.size) add("paper", ...[...papers].flatMap((id, k) => (k ? [", ", paperLink(id)] : [paperLink(id)])));
    if (value("file_size", i) !== null) add("file", number("file_size", " MiB"));
    const source = value("source", i),
      link = source && address(source);
    add(
      "weights",
      link
        ? make("a", {href: link}, source)
        : (source ?? "none are published: the model starts from initial weights"),
    );
    for (const field of ["origin", "recipe"])
      if (value(field, i))
        add(field, make("a", {href: value(field, i)}, value(field, i).replace(/^https?:\/\//, "")));
    detail.replaceChildren(
      make("div", {class: "zoo-head"}, make("b", {}, ...broken(columns.name[i])), close),
      make("div", {class: "zoo-snippet"}, make("code", {}, snippetOf(i)), button),
      facts,
    );
    detail.hidden = false;
    drawRows();
    point(i);
    if (!quietly) writeAddress();
  }
  function hide() {
    state.model = "";
    detail.hidden = true;
    drawRows();
    point(null);
    writeAddress();
  }
  root.addEventListener("keydown", event => {
    if (event.key === "Escape" && !detail.hidden && event.target !== box) {
      hide();
      grid.focus({preventScroll: true});
    }
  });

  // The scatter. All dots of a kind are one path of round caps: thousands cost as much as one.
  let spots = [],
    front = [],
    marker = null,
    onFront = -1;
  const widthOf = ruler();
  function draw() {
    chart.replaceChildren();
    tip.hidden = true;
    const {known, front: best} = paretoFront(rows);
    front = best;
    spots = [];
    marker = null;
    if (!known.length) {
      chart.append(make("p", {}, "No model of this selection has both figures."));
      return;
    }
    const wide = Math.max(width, 240),
      height = wide < 600 ? 280 : 380;
    const cost = columns[state.x],
      figure = columns[state.y],
      log = i => Math.log10(Math.max(cost[i], 1e-3));
    const isUp = Boolean(fields[state.y].descending);
    const span = (values, share) => {
      let low = Infinity,
        high = -Infinity;
      for (const one of values) {
        low = Math.min(low, one);
        high = Math.max(high, one);
      }
      const room = Math.max(high - low, 1e-6) < 1e-5 ? Math.max(Math.abs(high), 1) * 0.1 : (high - low) * share;
      return [low - room, high + room];
    };
    const [left, right] = span(known.map(log), 0.03),
      [low, high] = span(
        known.map(i => figure[i]),
        0.05,
      );
    const rising = ticks(low, high, false).map(tick => [tick, String(Number(tick.toPrecision(6)))]);
    const frame = {x: 28 + Math.max(...rising.map(([, text]) => widthOf(text)), 0), y: 8, h: height - 52};
    frame.w = wide - frame.x - 10;
    const across = i => frame.x + ((log(i) - left) / (right - left)) * frame.w;
    const up = figureValue => frame.y + ((isUp ? high - figureValue : figureValue - low) / (high - low)) * frame.h;
    const label =
      `${FIGURES[state.y]} against ${COSTS[state.x]} of ${known.length} models, ${front.length} on the Pareto front. ` +
      "Arrow keys go along the front, Enter shows a model.";
    const svg = node(
      "svg",
      {
        viewBox: `0 0 ${wide} ${height}`,
        height,
        role: "group",
        tabindex: 0,
        "aria-roledescription": "scatter plot",
        "aria-label": label,
      },
      chart,
    );
    let marks = ticks(left, right, true);
    const isRound = tick => Math.abs(tick - Math.round(tick)) < 1e-9;
    if (marks.filter(isRound).length > 2 && marks.length * 46 > frame.w) marks = marks.filter(isRound);
    if (!marks.length) marks = [(left + right) / 2];
    for (const tick of marks) {
      const x = frame.x + ((tick - left) / (right - left)) * frame.w;
      node("line", {class: "grid", x1: x, x2: x, y1: frame.y, y2: frame.y + frame.h}, svg);
      words(
        String(Number((10 ** tick).toPrecision(3))),
        {x, y: frame.y + frame.h + 17, "text-anchor": "middle"},
        svg,
      );
    }
    for (const [tick, text] of rising) {
      node("line", {class: "grid", x1: frame.x, x2: frame.x + frame.w, y1: up(tick), y2: up(tick)}, svg);
      words(text, {x: frame.x - 7, y: up(tick) + 4, "text-anchor": "end"}, svg);
    }
    node("path", {class: "axis", fill: "none", d: `M${frame.x} ${frame.y}v${frame.h}h${frame.w}`}, svg);
    words(`${COSTS[state.x]}, log scale`, {x: frame.x + frame.w / 2, y: height - 6, "text-anchor": "middle"}, svg);
    words(
      FIGURES[state.y],
      {x: 0, y: 0, "text-anchor": "middle", transform: `translate(11 ${frame.y + frame.h / 2}) rotate(-90)`},
      svg,
    );
    const spot = i => ({i, x: across(i), y: up(figure[i])});
    const isFront = new Set(front);
    spots = known.map(spot);
    const dots = found => found.map(p => `M${p.x.toFixed(1)} ${p.y.toFixed(1)}h0`).join("");
    const best_ = front.map(spot);
    node("path", {class: "dots", d: dots(spots.filter(p => !isFront.has(p.i)))}, svg);
    node(
      "path",
      {
        class: "staircase",
        d: best_
          .map((p, k) => (k ? `H${p.x.toFixed(1)}V${p.y.toFixed(1)}` : `M${p.x.toFixed(1)} ${p.y.toFixed(1)}`))
          .join(""),
      },
      svg,
    );
    node("path", {class: "dots front", d: dots(best_)}, svg);
    // Nothing is above and left of the front: there is room for names, from the best down.
    const taken = [];
    for (const p of [...best_].reverse()) {
      const text = columns.arch[p.i],
        w = widthOf(text);
      const spotBox = {x: p.x - w - 8, y: isUp ? p.y - 18 : p.y + 5, w, h: 13};
      const meets =
        taken.some(
          o =>
            spotBox.x < o.x + o.w + 6 && o.x < spotBox.x + w + 6 && spotBox.y < o.y + o.h + 1 && o.y < spotBox.y + 14,
        ) ||
        best_.some(
          o => o.x > spotBox.x - 5 && o.x < spotBox.x + w + 5 && o.y > spotBox.y - 5 && o.y < spotBox.y + 18,
        );
      if (
        meets ||
        spotBox.x < frame.x + 2 ||
        spotBox.y < frame.y - 4 ||
        spotBox.y + 13 > frame.y + frame.h ||
        taken.length >= (wide < 600 ? 5 : 14)
      )
        continue;
      taken.push(spotBox);
      words(text, {class: "name", x: spotBox.x, y: spotBox.y + 11}, svg);
    }
    marker = node("circle", {class: "marker", r: 6, visibility: "hidden"}, svg);
    onFront = -1;
    if (state.model) point(indexOf.get(state.model));
  }
  function point(i, withTip) {
    const target = i === null || i === undefined ? (state.model ? indexOf.get(state.model) : null) : i;
    const found = target === null ? null : spots.find(p => p.i === target);
    tip.hidden = true;
    if (!marker) return;
    marker.setAttribute("visibility", found ? "visible" : "hidden");
    if (!found) return;
    marker.setAttribute("cx", found.x);
    marker.setAttribute("cy", found.y);
    if (!withTip) return;
    const about = [
      `${figureText(state.y, target)}, ${shown(state.x, target)} ${COSTS[state.x].split(",")[0]}`,
      [`${shown("test", target)} px`, shown("license", target), shown("year", target)]
        .filter(Boolean)
        .join(" \u00b7 "),
    ];
    tip.replaceChildren(make("b", {}, ...broken(columns.name[target])), ...about.map(text => make("div", {}, text)));
    tip.hidden = false;
    const isRight = found.x + 12 + tip.offsetWidth < chart.clientWidth;
    tip.style.left = `${Math.max(0, isRight ? found.x + 12 : found.x - 12 - tip.offsetWidth)}px`;
    tip.style.top = `${Math.max(0, chart.offsetTop + found.y - tip.offsetHeight / 2)}px`;
  }
  const figureText = (field, i) => `${FIGURES[field].replace(/ \(.*/, "")} ${shown(field, i)}`;
  function near(event) {
    const frame = chart.getBoundingClientRect(),
      x = event.clientX - frame.left,
      y = event.clientY - frame.top;
    let found = null,
      least = 24 ** 2;
    for (const p of spots) {
      const far = (p.x - x) ** 2 + (p.y - y) ** 2;
      if (far < least) {
        least = far;
        found = p;
      }
    }
    return found;
  }
  chart.addEventListener("pointermove", event => {
    const found = near(event);
    point(found && found.i, true);
    chart.classList.toggle("over", Boolean(found));
    if (!found) tip.hidden = true;
  });
  chart.addEventListener("pointerleave", () => point(null));
  function showFromChart(i) {
    const position = rows.indexOf(i);
    active = Math.max(position, 0);
    reveal(active);
    show(i);
  }
  chart.addEventListener("click", event => {
    const found = near(event);
    if (found) showFromChart(found.i);
  });
  chart.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowUp: 1, ArrowDown: -1, Home: -Infinity, End: Infinity}[event.key];
    if (step !== undefined && front.length) {
      onFront =
        onFront < 0 && Number.isFinite(step)
          ? step > 0
            ? 0
            : front.length - 1
          : Math.max(0, Math.min(front.length - 1, onFront + step));
      point(front[onFront], true);
    } else if (event.key === "Enter" && onFront >= 0) showFromChart(front[onFront]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  chart.addEventListener("focusout", () => point(null));

  // All of it, after a change.
  const counted = number => number.toLocaleString("en");
  function quoted(text) {
    return /["$`\\!]/.test(text) ? `'${text.replaceAll("'", `'"'"'`)}'` : `"${text}"`;
  }
  function commandOf() {
    const parts = ["mvlib search"];
    if (state.q.trim()) parts.push(quoted(state.q.trim()));
    if (state.task) parts.push(`--task ${state.task}`);
    if (state.sort !== (state.task ? tasks[state.task][0] : "top1"))
      parts.push(state.sort.startsWith("-") ? `--sort=${state.sort}` : `--sort ${state.sort}`);
    if (!state.weights) parts.push("--all");
    return parts.join(" ");
  }
  function parse() {
    try {
      condition = compileQuery(state.q, table);
      problem.textContent = "";
      box.removeAttribute("aria-invalid");
    } catch (error) {
      // while a condition is being typed, the rows stay those of the last one that could be read
      if (!(error instanceof QueryError)) throw error;
      problem.replaceChildren(
        state.q.slice(0, error.start),
        make("mark", {}, state.q.slice(error.start, error.end) || "\u2026"),
        state.q.slice(error.end),
        `: ${error.message}`,
      );
      box.setAttribute("aria-invalid", "true");
    }
  }
  function update({keepScroll = false} = {}) {
    const top = scroller.scrollTop;
    parse();
    rows = choose();
    active = state.model ? Math.max(rows.indexOf(indexOf.get(state.model)), 0) : 0;
    grid.setAttribute("aria-rowcount", rows.length + 1);
    const [[field, descending]] = order(state.sort);
    for (const heading of headings)
      if (heading.dataset.field === field) heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    for (const [control, key] of [
      [taskBox, "task"],
      [sortBox, "sort"],
      [xBox, "x"],
      [yBox, "y"],
    ])
      control.value = state[key];
    weightsBox.checked = Boolean(state.weights);
    oneBox.checked = Boolean(state.one);
    const architectures = new Set(rows.map(i => codes.arch[i])).size;
    tally.textContent = [
      `${counted(rows.length)} of ${counted(count)} rows, ${counted(architectures)} architectures`,
      ...remarks(),
    ].join(". ");
    command.textContent = commandOf();
    drawRows(true, keepScroll ? top : 0);
    draw();
    if (top && !keepScroll) scroller.scrollTop = 0;
    writeAddress();
  }
  function fromAddress() {
    clearTimeout(writing);
    readAddress();
    box.value = state.q;
    update();
    if (state.model) {
      reveal(active);
      show(indexOf.get(state.model), true);
    } else {
      detail.hidden = true;
    }
  }
  box.addEventListener("input", () => {
    state.q = box.value;
    update();
  });
  for (const button of root.querySelectorAll("[data-query]"))
    button.addEventListener("click", () => {
      box.value = state.q = button.dataset.query;
      update();
    });
  taskBox.addEventListener("change", () => {
    state.task = taskBox.value;
    state.y = state.sort = state.task ? tasks[state.task][0] : "top1";
    update();
  });
  sortBox.addEventListener("change", () => {
    state.sort = sortBox.value;
    update();
  });
  xBox.addEventListener("change", () => {
    state.x = xBox.value;
    update({keepScroll: true});
  });
  yBox.addEventListener("change", () => {
    state.y = yBox.value;
    update({keepScroll: true});
  });
  weightsBox.addEventListener("change", () => {
    state.weights = weightsBox.checked ? "1" : "";
    update();
  });
  oneBox.addEventListener("change", () => {
    state.one = oneBox.checked ? "1" : "";
    update();
  });
  addEventListener("hashchange", fromAddress);
  new ResizeObserver(() => {
    const known = [width, row, room].join();
    measure();
    if (known === [width, row, room].join()) return;
    draw();
    drawRows(true);
  }).observe(root);
  root.names = () => rows.map(i => columns.name[i]); // of all rows that are shown, for other scripts
  measure();
  fromAddress();
})();
