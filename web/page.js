"use strict";
// All text from the data goes through textContent or setAttribute: it never becomes markup.

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const DAY = 86400000;
const phone = window.matchMedia("(max-width: 720px)").matches;

function make(name, { text, children = [], on = {}, ...attributes } = {}) {
  const node = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  for (const [event, act] of Object.entries(on)) node.addEventListener(event, act);
  if (text !== undefined) node.textContent = text;
  node.append(...children);
  return node;
}

const number = (value) => (Number.isFinite(Number(value)) ? Number(value) : 0);
const grouped = (value) => number(value).toLocaleString("en-US");
const list = (value) => (Array.isArray(value) ? value : []);
const texts = (value) =>
  typeof value === "string" ? value : value === undefined || value === null ? "" : String(value);
const plural = (value, noun) => `${grouped(value)} ${noun}${number(value) === 1 ? "" : "s"}`;
const iso = (at) => new Date(at).toISOString().slice(0, 10);
const minute = (text) => texts(text).slice(0, 16).replace("T", " ");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const sized = (node, width) => {
  node.style.width = `${width}%`;
  return node;
};

function bytes(value) {
  let rest = number(value);
  let unit = "B";
  for (const next of ["kB", "MB", "GB", "TB"]) {
    if (rest < 999.5) break;
    rest /= 1000;
    unit = next;
  }
  return `${unit === "B" || rest >= 99.95 ? rest.toFixed(0) : rest.toFixed(1)} ${unit}`;
}

// `$1.23`, `$0.0042`: as the mail writes it.
function usd(value) {
  const amount = number(value);
  if (amount <= 0) return "$0";
  const digits = amount < 0.095 ? 4 : 2;
  return amount < 0.0001
    ? "under $0.0001"
    : `$${amount.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

function card(state, title, scope, children) {
  const heading = make("h2", { children: [title, " ", make("span", { class: "soft", text: scope })] });
  const section = make("section", { class: `card ${state}`, children: [heading, ...children] });
  byId("sections").append(section);
  return section;
}

// The blocks of a section, as the mail shows them too.
const blocks = {
  text: ({ text }) => [make("p", { text })],
  notes: ({ notes }) => list(notes).map((note) => make("p", { class: "soft note", text: note })),
  figures: ({ figures }) => [make("dl", { class: "figures", children: list(figures).map(figure) })],
  account,
  table: ({ title, columns, rows, left_out }) => [
    ...titled(title),
    table(
      title,
      list(columns).map((column) => ({ title: column.title, kind: column.numeric ? "number" : "" })),
      list(rows),
    ),
    ...leftOut(left_out),
  ],
  bars: ({ title, bars }) => [...titled(title), barTable(title, list(bars))],
  problems: ({ title, problems, left_out }) => [...titled(title), ...list(problems).map(problem), ...leftOut(left_out)],
  command: ({ why, commands }) => [
    make("p", { text: why }),
    make("pre", { children: [make("code", { text: list(commands).join("\n") })] }),
  ],
  lines: ({ title, lines }) => [
    ...titled(title),
    make("pre", { children: [make("code", { text: list(lines).join("\n") })] }),
  ],
};

const titled = (title) => (title ? [make("h3", { text: title })] : []);
const leftOut = (count) =>
  number(count) > 0 ? [make("p", { class: "soft", text: `and ${grouped(count)} more` })] : [];

function figure({ label, value, note, state }) {
  const shown = [make("dt", { text: label }), make("dd", { class: `value ${texts(state)}`, text: value })];
  if (note) shown.push(make("dd", { class: "soft", text: note }));
  return make("div", { children: shown });
}

function account({ label, total, parts }) {
  const all = list(parts);
  const sum = all.reduce((whole, part) => whole + number(part.count), 0);
  const bar = make("div", { class: "stacked", "aria-hidden": "true" });
  for (const part of all)
    if (number(part.count) > 0)
      bar.append(sized(make("span", { class: texts(part.colour) }), (100 * part.count) / Math.max(sum, 1)));
  const row = (dot, text, count, strong) =>
    make("tr", {
      children: [
        make("td", { children: [...dot, make(strong ? "strong" : "span", { text })] }),
        make("td", { class: "number", children: [make(strong ? "strong" : "span", { text: grouped(count) })] }),
      ],
    });
  const rows = all.map((part) =>
    row([make("span", { class: `dot ${texts(part.colour)}`, "aria-hidden": "true" })], part.label, part.count, false),
  );
  if (sum !== number(total)) rows.push(row([], "Not accounted for", Math.abs(number(total) - sum), true));
  rows.push(row([], label, total, true));
  return [bar, make("table", { children: [make("tbody", { children: rows })] })];
}

function problem({ name, affected, places, message, advice, link }) {
  const shown = [make("b", { text: name }), affected ? `: ${affected}` : ""];
  for (const place of list(places)) shown.push(make("p", { children: [make("code", { text: place })] }));
  if (message) shown.push(make("p", { text: `It said: ${message}` }));
  if (advice) shown.push(make("p", { children: [make("b", { text: "What to do: " }), advice] }));
  if (/^https?:\/\//.test(texts(link)))
    shown.push(make("p", { children: [make("a", { href: link, rel: "noreferrer", text: "Open in the console" })] }));
  return make("div", { class: "problem", children: shown });
}

function barTable(title, bars) {
  const most = Math.max(1, ...bars.map((bar) => number(bar.value)));
  const rows = bars.map((bar) => {
    const track = make("div", {
      class: "track",
      "aria-hidden": "true",
      children:
        number(bar.value) > 0
          ? [sized(make("span", { class: texts(bar.colour) }), (100 * number(bar.value)) / most)]
          : [],
    });
    return make("tr", {
      children: [
        make("td", { text: bar.label }),
        make("td", { children: [track] }),
        make("td", { class: "number", text: bar.shown }),
      ],
    });
  });
  return make("table", { class: "bar", "aria-label": texts(title), children: [make("tbody", { children: rows })] });
}

function table(label, titles, rows) {
  const head = make("tr", {
    children: titles.map(({ title, kind }) => make("th", { scope: "col", class: kind, text: title })),
  });
  const body = rows.map((cells) =>
    make("tr", {
      children: list(cells).map((cell, n) => {
        const kind = /^\d{4}-\d\d-\d\d$/.test(cell) ? "together" : "";
        return make("td", { class: (titles[n] || {}).kind || kind, text: texts(cell) });
      }),
    }),
  );
  const whole = make("table", { children: [make("thead", { children: [head] }), make("tbody", { children: body })] });
  return make("div", {
    class: "scroll",
    tabindex: 0,
    role: "region",
    "aria-label": texts(label) || "Table",
    children: [whole],
  });
}

function sectionCard({ title, scope, state, headline, blocks: parts }) {
  const children = headline ? [make("p", { class: "headline", text: headline })] : [];
  for (const part of list(parts)) if (blocks[part.kind]) children.push(...blocks[part.kind](part));
  return card(texts(state), texts(title), texts(scope), children);
}

function notice(state, text, why) {
  byId("notices").append(
    make("section", {
      class: `card ${state}`,
      role: state === "bad" ? "alert" : "status",
      children: [make("p", { class: "headline", text }), ...(why ? [make("p", { class: "soft", text: why })] : [])],
    }),
  );
}

// ---- Is a year complete?

const spans = (value) => list(value).map(({ from, to }) => [Date.parse(from), Date.parse(to)]);
const meets = (all, from, to) => all.some(([start, end]) => start < to && from < end);
const within = (all, from, to) => all.some(([start, end]) => start <= from && to <= end);
const KINDS = {
  gap: ["c-gap", "failed", "gap: not archived"],
  quarantined: ["c-quarantined", "set_aside", "some in quarantine"],
  open: ["c-open", "waiting", "some still open"],
  archived: ["c-archived", "done", "archived"],
  nothing: ["c-nothing", "nothing", "run, nothing there"],
  part: ["c-part", "part", "run in part"],
  unknown: ["c-unknown", "unknown", "not yet run"],
  future: ["c-future", "", "yet to come"],
};

function calendar(data) {
  const [covered, gaps] = [spans(data.covered), spans(data.gaps)];
  const days = new Map(
    list(data.days).map(([date, archived, open, quarantined, size]) => [date, { archived, open, quarantined, size }]),
  );
  const dates = [...days.keys(), ...[...covered, ...gaps].flatMap(([from, to]) => [iso(from), iso(to - 1)])].sort();
  if (dates.length === 0) return;
  const kindOf = (date) => {
    const [from, to, day] = [Date.parse(date), Date.parse(date) + DAY, days.get(date)];
    if (from > Date.parse(data.generated_at)) return "future";
    if (meets(gaps, from, to)) return "gap";
    // Of a day that lies at the edge of a range, or was only staged, there may be more than is archived of it.
    if (!within(covered, from, to)) return day || meets(covered, from, to) ? "part" : "unknown";
    if (day && day.quarantined > 0) return "quarantined";
    if (day && day.open > 0) return "open";
    if (day && day.archived > 0) return "archived";
    return "nothing";
  };
  const said = (date) => {
    const day = days.get(date) || { archived: 0, open: 0, quarantined: 0, size: 0 };
    const size = day.archived > 0 ? ` (${bytes(day.size)})` : "";
    const counts = [
      `${grouped(day.archived)} archived${size}`,
      `${grouped(day.open)} still open`,
      `${grouped(day.quarantined)} in quarantine`,
    ];
    return `${date}: ${counts.join(", ")}; ${KINDS[kindOf(date)][2]}`;
  };
  const legend = make("p", {
    class: "soft",
    children: Object.values(KINDS)
      .filter(([, dot]) => dot)
      .flatMap(([, dot, label]) => [make("span", { class: `dot ${dot}`, "aria-hidden": "true" }), `${label}   `]),
  });
  const line = make("p", {
    id: "day",
    "aria-live": "polite",
    text: "Point at a day, or move with the arrow keys. Click or Enter opens it.",
  });
  const opened = make("div");
  const section = card("", "Is it complete?", "all runs, each day by the time of its messages", [legend, line, opened]);
  const open = (date) => {
    const next = iso(Date.parse(date) + DAY);
    const kind = kindOf(date);
    const run = ["gap", "unknown", "part"].includes(kind)
      ? [`alert-archive run --from ${date} --to ${next} --wait`]
      : [
          `alert-archive restore --from ${date} --to ${next} --out ${date}.jsonl`,
          `alert-archive verify --from ${date} --to ${next}`,
        ];
    const runs = list((PAGE.runs || {}).runs)
      .filter(
        (one) =>
          !["recheck", "process"].includes(one.mode) &&
          Date.parse(one.from) < Date.parse(next) &&
          Date.parse(date) < Date.parse(one.to),
      )
      .slice(0, 5);
    const named = runs.map((one) =>
      make("li", {
        children: [
          make("button", { text: one.run_id, on: { click: () => openRun(one.run_id) } }),
          ` ${texts(one.outcome)}, ${texts(one.range)}`,
        ],
      }),
    );
    opened.replaceChildren(
      make("h3", { text: said(date) }),
      make("pre", { children: [make("code", { text: run.join("\n") })] }),
      ...(named.length
        ? [make("p", { class: "soft", text: "Runs over this day:" }), make("ul", { children: named })]
        : []),
    );
  };
  const [first, last] = [Number(dates[0].slice(0, 4)), Number(dates[dates.length - 1].slice(0, 4))];
  for (let year = last; year >= first && year > last - 40; year -= 1)
    section.append(yearOf(year, { days, kindOf, said, open, line }));
}

function yearOf(year, { days, kindOf, said, open, line }) {
  const from = Date.UTC(year, 0, 1);
  const length = (Date.UTC(year + 1, 0, 1) - from) / DAY;
  const offset = (new Date(from).getUTCDay() + 6) % 7;
  const [cell, gap] = [13, 3];
  const counts = {};
  const months = Array.from({ length: 12 }, () => ({
    archived: 0,
    open: 0,
    quarantined: 0,
    gap: 0,
    part: 0,
    unknown: 0,
  }));
  const shapes = [];
  for (let n = 0; n < length; n += 1) {
    const date = iso(from + n * DAY);
    const kind = kindOf(date);
    const [place, month, day] = [n + offset, months[Number(date.slice(5, 7)) - 1], days.get(date)];
    counts[kind] = (counts[kind] || 0) + 1;
    if (day) for (const key of ["archived", "open", "quarantined"]) month[key] += number(day[key]);
    if (month[kind] !== undefined && ["gap", "part", "unknown"].includes(kind)) month[kind] += 1;
    shapes.push(
      make("svg:rect", {
        x: Math.floor(place / 7) * (cell + gap),
        y: 14 + (place % 7) * (cell + gap),
        width: cell,
        height: cell,
        rx: 2,
        class: KINDS[kind][0],
        "data-date": date,
      }),
    );
    if (date.endsWith("-01"))
      shapes.push(
        make("svg:text", {
          x: Math.floor(place / 7) * (cell + gap),
          y: 10,
          text: new Date(from + n * DAY).toLocaleString("en-US", { month: "short", timeZone: "UTC" }),
        }),
      );
  }
  const total = (key) => months.reduce((sum, month) => sum + month[key], 0);
  const problems = [
    [counts.gap, "day", "with a gap"],
    [counts.part, "day", "run in part"],
    [counts.unknown, "day", "not yet run"],
    [total("open"), "message", "still open"],
    [total("quarantined"), "message", "in quarantine"],
  ];
  const told = problems.filter(([count]) => count > 0).map(([count, noun, what]) => `${plural(count, noun)} ${what}`);
  const verdict = told.length === 0 ? "complete" : told.join(", ");
  const title = `${year}: ${verdict}; ${plural(total("archived"), "message")} archived`;
  const svg = make("svg:svg", {
    class: "calendar",
    viewBox: `0 0 ${54 * (cell + gap)} ${14 + 7 * (cell + gap)}`,
    tabindex: 0,
    role: "application",
    "aria-label": `${title}. Days: move with the arrow keys, open with Enter.`,
    children: shapes,
  });
  const rects = shapes.filter((shape) => shape.tagName === "rect");
  let at = -1;
  const show = (next) => {
    if (at >= 0) rects[at].classList.remove("cursor");
    at = Math.max(0, Math.min(rects.length - 1, next));
    rects[at].classList.add("cursor");
    line.textContent = said(rects[at].dataset.date);
  };
  const steps = { ArrowLeft: -7, ArrowRight: 7, ArrowUp: -1, ArrowDown: 1, PageUp: -28, PageDown: 28 };
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") open(rects[Math.max(at, 0)].dataset.date);
    else if (event.key === "Home") show(0);
    else if (event.key === "End") show(rects.length - 1);
    else if (steps[event.key] !== undefined) show(at < 0 ? 0 : at + steps[event.key]);
    else return;
    event.preventDefault();
  });
  svg.addEventListener("focus", () => show(Math.max(at, 0)));
  svg.addEventListener("pointermove", (event) => {
    const index = rects.indexOf(event.target);
    if (index >= 0) show(index);
  });
  svg.addEventListener("click", (event) => {
    if (event.target.dataset && event.target.dataset.date) open(event.target.dataset.date);
  });
  const rows = months.map((month, n) => [
    `${year}-${String(n + 1).padStart(2, "0")}`,
    grouped(month.archived),
    grouped(month.open),
    grouped(month.quarantined),
    grouped(month.gap),
    grouped(month.part),
    grouped(month.unknown),
  ]);
  const titles = [
    "Month",
    "Archived",
    "Still open",
    "In quarantine",
    "Days with a gap",
    "Days run in part",
    "Days not yet run",
  ].map((text, n) => ({ title: text, kind: n ? "number" : "short" }));
  const numbers = make("details", {
    children: [make("summary", { text: `${year} by month, as a table` }), table(`${year} by month`, titles, rows)],
  });
  return make("div", {
    class: "year",
    children: [make("h3", { text: title }), make("div", { class: "scroll", children: [svg] }), numbers],
  });
}

// ---- Charts, each with its table

function chart(into, title, labels, series, shown = grouped, stacked = true) {
  const canvas = make("canvas", { role: "img", "aria-label": `${title}. The table below has its numbers.` });
  const titles = [{ title: "", kind: "short" }, ...series.map(({ label }) => ({ title: label, kind: "number" }))];
  const rows = labels.map((label, n) => [label, ...series.map(({ values }) => shown(values[n]))]);
  into.append(
    make("h3", { text: title }),
    make("div", { class: "chart", children: [canvas] }),
    make("details", { children: [make("summary", { text: `${title}, as a table` }), table(title, titles, rows)] }),
  );
  const datasets = series.map(({ label, values, colour: name, type }) => ({
    label,
    data: values,
    type: type || "bar",
    backgroundColor: colour(name),
    borderColor: colour(name),
    pointRadius: 0,
    borderWidth: type === "line" ? 2 : 0,
    yAxisID: "y",
  }));
  new Chart(canvas, {
    type: "bar",
    data: { labels, datasets },
    options: {
      animation: false,
      responsive: true,
      maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      scales: {
        x: {
          stacked,
          ticks: { maxRotation: 0, autoSkip: true, maxTicksLimit: phone ? 3 : 8, color: colour("soft") },
          grid: { display: false },
        },
        y: {
          stacked,
          beginAtZero: true,
          ticks: {
            color: colour("soft"),
            callback: (value) => shown(value),
            ...(shown === grouped ? { precision: 0 } : {}),
            maxTicksLimit: 5,
          },
          grid: { color: colour("line") },
        },
      },
      plugins: {
        legend: { display: series.length > 1, labels: { color: colour("text"), boxWidth: 12 } },
        tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${shown(item.raw)}` } },
      },
    },
  });
}

function growth(data) {
  const months = new Map();
  for (const [date, archived, open, quarantined, size, before] of list(data.days)) {
    const month = months.get(date.slice(0, 7)) || { archived: 0, open: 0, quarantined: 0, size: 0, before: 0 };
    months.set(date.slice(0, 7), {
      archived: month.archived + archived,
      open: month.open + open,
      quarantined: month.quarantined + quarantined,
      size: month.size + size,
      before: month.before + number(before),
    });
  }
  if (months.size === 0) return;
  const labels = [...months.keys()].sort();
  const column = (key) => labels.map((label) => months.get(label)[key]);
  const section = card("", "What the archive holds", "all runs, by the month of the messages", []);
  chart(section, "Messages by month", labels, [
    { label: "Archived", values: column("archived"), colour: "done" },
    { label: "Still open", values: column("open"), colour: "waiting" },
    { label: "In quarantine", values: column("quarantined"), colour: "set-aside" },
  ]);
  const archived = column("archived").reduce((sum, count) => sum + count, 0);
  const { messages } = data.in_source || {};
  const lines = [["In the archive", "size", "done"]];
  // A sum that lacks messages is no size beside one that has them all.
  if (number(messages) > 0 && number(messages) === archived) lines.unshift(["In the source", "before", "other"]);
  const upTo = (key) => {
    let whole = 0;
    return column(key).map((size) => (whole += size));
  };
  const series = lines.map(([label, key, name]) => ({ label, values: upTo(key), colour: name, type: "line" }));
  chart(section, "Size of the archived messages, all months up to each", labels, series, bytes, false);
}

// What the archived alerts were: one bar a month, by severity and by category.
function alertsByMonth(data) {
  const { messages, months, severities, categories } = data.alerts || {};
  if (list(months).length === 0) return;
  const section = card("", "Alerts of archived messages", "all runs, by the month of the messages", []);
  const archived = list(data.days).reduce((sum, [, count]) => sum + number(count), 0);
  if (number(messages) < archived) {
    const counted = `${grouped(messages)} of ${plural(archived, "archived message")}`;
    const text = `Of ${counted}: the others were archived before their alerts were counted.`;
    section.append(make("p", { class: "soft", text }));
  }
  const shown = (kind) =>
    list(kind).map(({ name, counts }, n) => ({ label: texts(name), values: list(counts), colour: `series-${n + 1}` }));
  chart(section, "Alerts by severity", months, shown(severities));
  chart(section, "Alerts by category", months, shown(categories));
}

// ---- Runs

const COLUMNS = [
  ["Run", (run) => texts(run.run_id), "id"],
  ["Outcome", (run) => texts(run.outcome), "short"],
  ["Messages of", (run) => texts(run.from), "range"],
  ["Started, UTC", (run) => texts(run.started_at), "short hide-small"],
  ["Took", (run) => number(run.seconds), "number hide-small"],
  ["Planned", (run) => number(run.planned), "number hide-small"],
  ["Archived", (run) => number((run.messages || {}).archived), "number"],
  ["Open", (run) => number((run.messages || {}).open), "number hide-small"],
];
let openRun = () => {};

function runsCard(data) {
  const all = list(data.runs);
  const PAGE_SIZE = 15;
  const [find, state, count] = [
    make("input", { type: "search", placeholder: "Find a run, a date, an error", "aria-label": "Find runs" }),
    make("select", {
      "aria-label": "Outcome",
      children: [
        ["", "all outcomes"],
        ["bad", "failed"],
        ["attention", "with something set aside"],
        ["good", "completed"],
        ["plain", "running"],
      ].map(([value, text]) => make("option", { value, text })),
    }),
    make("span", { class: "soft", role: "status" }),
  ];
  const [back, next] = [
    make("button", { type: "button", text: "Newer" }),
    make("button", { type: "button", text: "Older" }),
  ];
  let [page, by, up] = [0, -1, false];
  const body = make("tbody");
  const heads = COLUMNS.map(([title, , kind], n) =>
    make("th", {
      scope: "col",
      class: kind,
      "aria-sort": "none",
      children: [
        make("button", {
          type: "button",
          text: title,
          on: {
            click: () => {
              [by, up, page] = [n, by === n ? !up : n < 3, 0];
              draw();
            },
          },
        }),
      ],
    }),
  );
  const opened = make("div");
  const failed = all.filter((run) => run.state === "bad").length;
  const section = card(
    "",
    "Runs",
    `the latest ${plural(all.length, "run")}, newest first${failed ? `; ${grouped(failed)} failed` : ""}`,
    [
      make("div", { class: "tools", children: [find, state, count, back, next] }),
      make("div", {
        class: "scroll",
        tabindex: 0,
        role: "region",
        "aria-label": "Runs",
        children: [make("table", { children: [make("thead", { children: [make("tr", { children: heads })] }), body] })],
      }),
      opened,
    ],
  );
  const wanted = () => {
    const text = find.value.trim().toLowerCase();
    const matches = (run) =>
      (!state.value || run.state === state.value) &&
      (!text ||
        JSON.stringify([run.run_id, run.outcome, run.range, run.mode, run.sentence, run.section])
          .toLowerCase()
          .includes(text));
    const rows = all.filter(matches);
    if (by >= 0)
      rows.sort((left, right) => {
        const [a, b] = [COLUMNS[by][1](left), COLUMNS[by][1](right)];
        return (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1);
      });
    return rows;
  };
  const draw = () => {
    const rows = wanted();
    page = Math.max(0, Math.min(page, Math.ceil(rows.length / PAGE_SIZE) - 1));
    const shown = rows.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    count.textContent = rows.length
      ? `${grouped(page * PAGE_SIZE + 1)} to ${grouped(page * PAGE_SIZE + shown.length)} of ${grouped(rows.length)}`
      : "none";
    [back.disabled, next.disabled] = [page === 0, (page + 1) * PAGE_SIZE >= rows.length];
    heads.forEach((head, n) => head.setAttribute("aria-sort", n === by ? (up ? "ascending" : "descending") : "none"));
    body.replaceChildren(...shown.map(runRow));
  };
  // A line ends between the two edges of a range, and not within a date.
  const edges = (range) =>
    make("span", {
      children: texts(range)
        .split(/(?<= to) /)
        .flatMap((edge) => [make("span", { class: "together", text: edge }), " "]),
    });
  const runRow = (run) => {
    const kind = { good: "ok", attention: "watch", bad: "ko" }[run.state] || "";
    const mark = { good: "✓\u00a0", attention: "!\u00a0", bad: "✗\u00a0" }[run.state] || "…\u00a0";
    const cells = [
      make("button", { type: "button", text: run.run_id, on: { click: () => openRun(run.run_id) } }),
      mark + texts(run.outcome),
      edges(run.range),
      minute(run.started_at),
      run.took,
      // Of a run without a report nothing is counted.
      ...[run.planned, (run.messages || {}).archived, (run.messages || {}).open].map((count) =>
        run.uncounted ? "-" : grouped(count),
      ),
    ];
    return make("tr", {
      children: cells.map((cell, n) =>
        make("td", {
          class: `${COLUMNS[n][2]} ${n === 1 ? kind : ""}`.trim(),
          ...(typeof cell === "object" && cell !== null ? { children: [cell] } : { text: texts(cell) }),
        }),
      ),
    });
  };
  openRun = (id) => {
    const run = all.find((one) => one.run_id === id);
    if (!run) return;
    const close = make("button", { type: "button", text: "Close", on: { click: () => opened.replaceChildren() } });
    const { section: told } = run;
    const children = [make("div", { class: "tools", children: [make("h3", { text: `Run ${run.run_id}` }), close] })];
    if (told) {
      children.push(
        make("p", { class: "soft", text: told.scope }),
        make("p", { class: "headline", text: told.headline }),
      );
      for (const part of list(told.blocks)) if (blocks[part.kind]) children.push(...blocks[part.kind](part));
    }
    if (/^https:\/\//.test(texts(run.console)))
      children.push(
        make("p", {
          class: "link",
          children: [
            make("a", {
              href: run.console,
              rel: "noreferrer",
              text: "Open its execution in the Step Functions console",
            }),
          ],
        }),
      );
    children.push(grid(run));
    opened.replaceChildren(make("div", { class: texts(run.state), children }));
    opened.scrollIntoView({ block: "start" });
    close.focus({ preventScroll: true });
  };
  for (const [node, event] of [
    [find, "input"],
    [state, "change"],
  ])
    node.addEventListener(event, () => {
      page = 0;
      draw();
    });
  back.addEventListener("click", () => {
    page -= 1;
    draw();
  });
  next.addEventListener("click", () => {
    page += 1;
    draw();
  });
  draw();
  const drawn = [...all]
    .reverse()
    .slice(-52)
    .filter((run) => number(run.planned) > 0);
  const column = (key) => drawn.map((run) => number((run.messages || {})[key]));
  if (drawn.length > 1)
    chart(
      section,
      "Messages of the latest runs",
      drawn.map((run) => minute(run.started_at) || texts(run.run_id)),
      [
        { label: "Archived", values: column("archived"), colour: "done" },
        { label: "Still open", values: column("open"), colour: "waiting" },
        { label: "In quarantine", values: column("quarantined"), colour: "set-aside" },
        { label: "Not archived", values: drawn.map((run) => number(run.not_archived)), colour: "failed" },
      ],
    );
  const named = (runs) => runs.map((run) => minute(run.started_at) || texts(run.run_id));
  const written = drawn.filter((run) => run.became);
  if (written.length > 1)
    chart(
      section,
      "Size in the source against size in the archive, of what each run wrote",
      named(written),
      [
        { label: "In the source", values: written.map((run) => number(run.became.source)), colour: "other" },
        { label: "In the archive", values: written.map((run) => number(run.became.archive)), colour: "done" },
      ],
      bytes,
      false,
    );
  const paid = drawn.filter((run) => number(run.usd) > 0);
  if (paid.length > 1)
    chart(
      section,
      `Cost of each run, about (prices of ${texts(data.prices)})`,
      named(paid),
      [{ label: "Cost", values: paid.map((run) => number(run.usd)), colour: "other" }],
      usd,
    );
}

// ---- The windows of a run

const CELLS = {
  done: ["done", "", "done"],
  failed: ["failed", "✗", "failed"],
  set_aside: ["set_aside", "–", "set aside"],
};
const ACROSS = 10;

// When a window's messages are of, from its id; other ids stay as they are.
function stretch(id) {
  const edge = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)\.(\d{3})Z$/;
  const [from, to] = texts(id)
    .split("--")
    .map((text) => edge.exec(text));
  if (!from || !to) return texts(id);
  // No finer than both edges are.
  const exact = [from, to].some((edge) => edge[7] !== "000")
    ? 4
    : [from, to].some((edge) => edge[6] !== "00")
      ? 3
      : [from, to].some((edge) => edge[4] + edge[5] !== "0000")
        ? 2
        : 0;
  const time = (parts) =>
    exact === 0 ? "" : ` ${parts.slice(0, Math.min(exact, 3)).join(":")}${exact === 4 ? `.${parts[3]}` : ""}`;
  const said = ([, year, month, day, ...parts]) => `${year}-${month}-${day}${time(parts)}`;
  return `${said(from)} to ${said(to)}${exact ? " UTC" : ""}`;
}

const took = (seconds) =>
  seconds === undefined || seconds === null
    ? ""
    : number(seconds) < 60
      ? `${number(seconds)} s`
      : `${Math.floor(number(seconds) / 60)} min ${number(seconds) % 60} s`;

const stateOf = (cell) => (CELLS[cell.state] || ["", "", texts(cell.state)])[2];

// One cell a window, in the order of time, by its state; moved through with the arrow keys, told below.
function grid(run) {
  const cells = list(run.grid);
  if (cells.length === 0) return counted(run);
  const kinds = Object.entries(CELLS).map(([kind, [, , text]]) => [
    cells.filter((cell) => cell.state === kind).length,
    text,
  ]);
  const title = `${plural(cells.length, "window")}: ${kinds
    .filter(([count]) => count > 0)
    .map(([count, text]) => `${grouped(count)} ${text}`)
    .join(", ")}`;
  const said = (cell, n) =>
    [
      `Window ${grouped(n + 1)} of ${grouped(cells.length)}, ${stretch(cell.window_id)}: ${stateOf(cell)}`,
      cell.error,
      plural(cell.messages, "message"),
      took(cell.seconds),
    ]
      .filter(Boolean)
      .join("; ");
  const line = make("p", {
    class: "told",
    role: "status",
    text: "Point at a window, or move through them with the arrow keys.",
  });
  const detail = make("div");
  let at = 0;
  const boxes = cells.map((cell, n) => {
    const [kind, mark] = CELLS[cell.state] || ["other", "?"];
    return make("button", {
      type: "button",
      class: `cell ${kind}`,
      tabindex: n === 0 ? 0 : -1,
      "aria-label": said(cell, n),
      text: mark,
      on: {
        focus: () => show(n),
        pointerenter: () => {
          line.textContent = said(cell, n);
        },
        click: () => explain(cell),
      },
    });
  });
  const show = (n) => {
    boxes[at].tabIndex = -1;
    at = n;
    boxes[at].tabIndex = 0;
    line.textContent = said(cells[n], n);
  };
  const explain = (cell) => {
    const commands =
      cell.state === "failed"
        ? [
            `alert-archive rerun ${shell(run.run_id)} --wait`,
            `alert-archive skip ${shell(run.run_id)} ${shell(cell.window_id)} --reason 'why'`,
          ]
        : cell.state === "set_aside"
          ? [`alert-archive skip ${shell(run.run_id)} ${shell(cell.window_id)} --undo`]
          : [];
    const why = {
      failed: "Run again what failed, or let the run end without this window:",
      set_aside: "When the cause is gone:",
    }[cell.state];
    detail.replaceChildren(
      make("p", { children: ["Its id: ", make("code", { text: cell.window_id })] }),
      ...(why ? blocks.command({ why, commands }) : []),
      ...(/^https:\/\//.test(texts(cell.log))
        ? [
            make("p", {
              class: "link",
              children: [
                make("a", { href: cell.log, rel: "noreferrer", text: "Open its log in the CloudWatch console" }),
              ],
            }),
          ]
        : []),
    );
  };
  const box = make("div", {
    class: "cells",
    role: "group",
    "aria-label": `${title}. Move with the arrow keys, open with Enter.`,
    children: boxes,
  });
  box.addEventListener("keydown", (event) => {
    const across =
      Math.max(
        1,
        boxes.findIndex((one) => one.offsetTop > boxes[0].offsetTop),
      ) || ACROSS;
    const step = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -across,
      ArrowDown: across,
      Home: -at,
      End: boxes.length - 1 - at,
    }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    boxes[Math.max(0, Math.min(boxes.length - 1, at + step))].focus();
  });
  const legend = make("p", {
    class: "soft",
    children: kinds
      .map(([count, text], n) => [count, text, Object.values(CELLS)[n]])
      .filter(([count]) => count > 0)
      .flatMap(([, text, [kind, mark]]) => [
        make("span", { class: `cell ${kind}`, "aria-hidden": "true", text: mark }),
        ` ${text}  `,
      ]),
  });
  const numbers = make("details", { children: [make("summary", { text: "The windows, as a table" })] });
  // Made when it is wanted: there may be thousands.
  numbers.addEventListener("toggle", () => {
    if (numbers.children.length > 1) return;
    const titles = ["Messages of", "State", "Messages", "Took", "Error"].map((text, n) => ({
      title: text,
      kind: n === 2 || n === 3 ? "number" : "",
    }));
    numbers.append(
      table(
        `Windows of ${run.run_id}`,
        titles,
        cells.map((cell) => [
          stretch(cell.window_id),
          stateOf(cell),
          grouped(cell.messages),
          took(cell.seconds),
          cell.error,
        ]),
      ),
    );
  });
  return make("div", { children: [make("h3", { text: title }), legend, box, line, detail, numbers] });
}

// A word as a shell takes it.
const shell = (text) =>
  /^[A-Za-z0-9_.][A-Za-z0-9_.-]*$/.test(texts(text)) ? texts(text) : `'${texts(text).replaceAll("'", "'\\''")}'`;

// Of an older run, how many windows there were of each state.
function counted(run) {
  const { planned, succeeded, failed } = run.windows || {};
  const aside = run.status === "Running" ? 0 : Math.max(0, number(planned) - number(succeeded) - number(failed));
  const said = [
    [failed, "failed"],
    [aside, "set aside or not begun"],
    [succeeded, "done"],
  ]
    .filter(([count]) => number(count) > 0)
    .map(([count, text]) => `${grouped(count)} ${text}`)
    .join(", ");
  return make("p", {
    class: "soft",
    text: `${plural(planned, "window")}${said ? `: ${said}` : ""}. Each window is shown for the newest runs.`,
  });
}

// ---- The page

// What a pipeline has published since this page was written. A page on a disk keeps what it was written with.
async function refreshed(name, before) {
  if (!location.protocol.startsWith("http")) return;
  const answer = await fetch(`data/${encodeURIComponent(name)}.json`, {
    cache: "no-cache",
    credentials: "same-origin",
  });
  if (!answer.ok) return;
  const { section } = await answer.json();
  before.replaceWith(sectionCard(section));
}

// Before the first run: what will be here, and how it comes.
function welcome() {
  const what = [
    "each day of each year: archived, still open, in quarantine, or a gap",
    "what is still open, and for how long",
    "each run, with its windows: what failed, why, and what to do",
  ];
  const commands = [
    "alert-archive run --from 2024-07-01 --to 2024-10-01 --dry-run",
    "alert-archive run --from 2024-07-01 --to 2024-10-01 --wait",
  ];
  card("", "Welcome", "", [
    make("p", { class: "headline", text: "No run has ended yet." }),
    make("p", { text: "After the first one this page shows:" }),
    make("ul", { children: what.map((text) => make("li", { text })) }),
    ...blocks.command({
      why:
        "The first command says how many windows and messages there are, what it takes and what it costs, and starts " +
        "nothing. The second one archives them.",
      commands,
    }),
  ]);
}

let PAGE = {};

function start() {
  PAGE = JSON.parse(byId("data").textContent);
  const { latest, runs } = PAGE;
  const all = list((runs || {}).runs);
  byId("as-of").textContent = PAGE.generated_at ? `as of ${minute(PAGE.generated_at)} UTC` : "";
  for (const row of list((runs || {}).unreadable)) notice("bad", `A run is missing here: ${texts(row)}.`);
  if (all.length === 0) {
    welcome();
  } else {
    const days = Math.floor((Date.now() - Date.parse(runs.last_completed || all[all.length - 1].started_at)) / DAY);
    if (days > number(runs.silent_days))
      notice(
        "bad",
        `No run has completed for ${plural(days, "day")}.`,
        `One is expected at least every ${plural(runs.silent_days, "day")}: ` +
          "look at the latest executions, and at the schedule.",
      );
    const newest = all.find((run) => run.status !== "Running");
    if (
      newest &&
      newest.state === "bad" &&
      !(latest && latest.run_id === newest.run_id && latest.attempt === newest.attempt)
    )
      notice("bad", `The newest run, ${texts(newest.run_id)}: ${texts(newest.outcome)}.`, texts(newest.sentence));
  }
  for (const section of list((latest || {}).sections)) sectionCard(section);
  if (latest) calendar(latest);
  if (latest && list(latest.open_ages).length)
    card("", "Open messages by age", "all runs; age counts from the message's own time", [
      barTable("Open messages by age", latest.open_ages),
    ]);
  if (latest) growth(latest);
  if (latest) alertsByMonth(latest);
  if (all.length) runsCard(runs);
  for (const { name, section } of list(PAGE.pipelines)) refreshed(texts(name), sectionCard(section));
}

try {
  start();
} catch (error) {
  notice("bad", `The page could not be drawn: ${error.message}.`);
}
