// The page and the mail in a real browser: what is drawn, what can be done with a keyboard, what leaves the page (nothing),
// and what axe finds about it. PAGES names the folder that `cargo run -p reports --example preview -- FOLDER` has written;
// without it, this test calls that itself. PICTURES=FOLDER keeps a picture of each state.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import axe from "axe-core";
import puppeteer from "puppeteer-core";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const STATES = ["empty", "healthy", "failing", "dead", "set-aside", "many"];
const WIDTHS = [375, 768, 1280];
const SCHEMES = ["light", "dark"];
const HOSTILE = '<img src=x onerror="window.taken = true">';

let pages = process.env.PAGES;
let browser;

before(async () => {
  if (!pages) {
    pages = mkdtempSync(join(tmpdir(), "pages-"));
    execFileSync("cargo", ["run", "--quiet", "--locked", "-p", "reports", "--example", "preview", "--", pages], { cwd: ROOT, stdio: "inherit" });
  }
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  // Without a sandbox only where the kernel refuses one to root, as in a container.
  const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  browser = await puppeteer.launch({ executablePath, args });
});

after(() => browser?.close());

const address = (state, file = "index.html") => pathToFileURL(join(pages, state, file)).href;

// A page, with everything that it asked for and everything that it complained about.
async function opened(url, { width = 1280, scheme = "light", until = "load" } = {}) {
  const page = await browser.newPage();
  const [asked, complaints] = [[], []];
  page.on("request", (request) => asked.push(request.url()));
  page.on("console", (message) => { if (["error", "warn"].includes(message.type())) complaints.push(message.text()); });
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }, { name: "prefers-reduced-motion", value: "reduce" }]);
  await page.goto(url, { waitUntil: until });
  return { page, asked, complaints };
}

async function faults(page) {
  await page.addScriptTag({ content: axe.source });
  const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target.join(" ")).slice(0, 4).join("; ")}`);
}

// A page as the one of a state, but for what `change` does to its data.
async function openedWith(state, change) {
  const whole = readFileSync(join(pages, state, "index.html"), "utf8");
  const [, before] = /id="data">(.*?)<\/script>/s.exec(whole);
  const data = JSON.parse(before);
  change(data);
  const folder = mkdtempSync(join(tmpdir(), "changed-"));
  const changed = whole.replace(before, () => JSON.stringify(data).replaceAll("<", "\\u003c"));
  writeFileSync(join(folder, "index.html"), changed);
  const changedPage = await opened(pathToFileURL(join(folder, "index.html")).href);
  assert.deepEqual(changedPage.complaints, []);
  return changedPage;
}

async function saidWith(state, change) {
  const { page } = await openedWith(state, change);
  const told = await page.$eval("main", (node) => node.textContent);
  await page.close();
  return told;
}

const beyond = (page) => page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);

async function keepPicture(page, name) {
  if (!process.env.PICTURES) return;
  mkdirSync(process.env.PICTURES, { recursive: true });
  await page.screenshot({ path: join(process.env.PICTURES, `${name}.png`), fullPage: true });
}

for (const state of STATES) {
  test(`${state}: drawn on phone, tablet and desk, light and dark, without a complaint or a request`, async () => {
    for (const scheme of SCHEMES) for (const width of WIDTHS) {
      const { page, asked, complaints } = await opened(address(state), { width, scheme });
      const where = `${state}, ${width}, ${scheme}`;
      assert.deepEqual(complaints, [], where);
      assert.deepEqual(asked.filter((url) => !url.startsWith("data:")), [address(state)], where);
      assert.ok(await beyond(page) <= 0, `${where}: ${await beyond(page)} pixels too wide`);
      assert.equal(await page.$eval("h1", (node) => node.textContent), "Alert archive");
      await keepPicture(page, `page-${state}-${width}-${scheme}`);
      await page.close();
    }
  });

  test(`${state}: axe finds nothing, light and dark`, async () => {
    for (const scheme of SCHEMES) {
      const page = await browser.newPage();
      // The page's policy admits its own two scripts only; the test's is a third.
      await page.setBypassCSP(true);
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.goto(address(state));
      assert.deepEqual(await faults(page), [], scheme);
      await page.close();
    }
  });
}

test("on a phone the oldest open messages are seen with their ages, without scrolling aside, and dates unbroken", async () => {
  const { page } = await opened(address("many"), { width: 375 });
  const hidden = await page.$eval("[aria-label='Oldest open messages']", (region) => region.scrollWidth - region.clientWidth);
  assert.ok(hidden <= 0, `${hidden} pixels of the table are hidden`);
  const lines = await page.$eval("[aria-label='Oldest open messages'] td:nth-child(2)", (cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return range.getClientRects().length;
  });
  assert.equal(lines, 1);
  await page.close();
});

test("an archive without a run is friendly", async () => {
  const { page } = await opened(address("empty"));
  const told = await page.$eval("main", (node) => node.textContent);
  assert.match(told, /No run has ended yet/);
  assert.match(await page.$eval("pre code", (node) => node.textContent), /^alert-archive run --from \S+ --to \S+ --dry-run\n/);
  assert.equal(await page.$$eval(".bad", (nodes) => nodes.length), 0);
  await page.close();
});

test("runs are found by their error, paged, sorted and opened", async () => {
  const { page } = await opened(address("many"));
  const count = () => page.$eval("[role=status]", (node) => node.textContent);
  assert.match(await count(), /^1 to 15 of 400$/);
  await page.type("input[type=search]", "SourceUnavailable");
  const found = Number((await count()).split(" of ")[1]);
  assert.ok(found > 0 && found < 100, `${found} runs failed with it`);
  await page.$eval("input[type=search]", (input) => { input.value = "no such run"; input.dispatchEvent(new Event("input")); });
  assert.equal(await count(), "none");
  await page.$eval("input[type=search]", (input) => { input.value = ""; input.dispatchEvent(new Event("input")); });
  await page.select("select", "bad");
  assert.equal(Number((await count()).split(" of ")[1]), found);
  await page.$eval("tbody td.id button", (button) => button.click());
  const told = await page.$$eval("h3", (nodes) => nodes.map((node) => node.textContent));
  assert.ok(told.some((text) => text.startsWith("Run ")), told.join("; "));
  await page.close();
});

test("a run opens with a cell a window, read with the keyboard, and with a link to its execution", async () => {
  const { page } = await opened(address("failing"));
  await page.$eval("tbody td.id button", (button) => button.click());
  const cells = await page.$$eval(".cells .cell", (nodes) => nodes.map((node) => [node.className, node.getAttribute("aria-label"), node.tabIndex]));
  assert.equal(cells.length, 91);
  assert.equal(cells.filter(([kind]) => kind.includes("failed")).length, 22);
  assert.equal(cells.filter(([, , index]) => index === 0).length, 1, "one stop of the tab key");
  await page.$eval(".cells .cell", (cell) => cell.focus());
  await page.keyboard.press("ArrowRight");
  const told = await page.$eval(".told", (node) => node.textContent);
  assert.match(told, /^Window 2 of 91, \d{4}-\d\d-\d\d 06:00 to \d{4}-\d\d-\d\d 06:00 UTC: failed; SourceUnavailable; \d+ messages; 1 min 1 s$/);
  await page.keyboard.press("Enter");
  const commands = await page.$$eval("pre code", (nodes) => nodes.map((node) => node.textContent));
  assert.ok(commands.some((text) => /alert-archive skip \S+ \d{8}T\S+--\S+ --reason/.test(text)), commands.join("; "));
  await page.keyboard.press("End");
  assert.match(await page.$eval(".told", (node) => node.textContent), /^Window 91 of 91, /);
  await page.$eval(".cells .cell.failed", (cell) => cell.click());
  const links = await page.$$eval("a", (nodes) => nodes.map((node) => node.href));
  assert.ok(links.some((href) => href.includes("/log-group/$252Faws$252Flambda$252Fquery-messages/")), links.join("; "));
  assert.ok(links.some((href) => href.includes("console.aws.amazon.com") && href.includes(":execution:")), links.join("; "));
  await page.close();
});

test("an opened run with its windows: axe finds nothing, and it fits a phone", async () => {
  for (const scheme of SCHEMES) for (const width of WIDTHS) {
    const page = await browser.newPage();
    await page.setBypassCSP(true);
    await page.setViewport({ width, height: 900 });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.goto(address("failing"));
    await page.$eval("tbody td.id button", (button) => button.click());
    await page.$$eval("details", (nodes) => nodes.forEach((node) => { node.open = true; }));
    assert.ok(await beyond(page) <= 0, `${width}: ${await beyond(page)} pixels too wide`);
    if (width === 1280) assert.deepEqual(await faults(page), [], scheme);
    await keepPicture(page, `opened-${width}-${scheme}`);
    await page.close();
  }
});

test("what runs wrote and what they cost stand in charts, each with its table", async () => {
  const { page } = await opened(address("healthy"));
  const told = await page.$$eval("h3", (nodes) => nodes.map((node) => node.textContent));
  for (const title of ["Messages by month", "Size of the archived messages, all months up to each", "Size in the source against size in the archive", "Cost of each run, about (prices of us-east-1, "]) {
    assert.ok(told.some((text) => text.startsWith(title)), `${title}: ${told.join("; ")}`);
  }
  const cells = await page.$$eval("details table td.number", (nodes) => nodes.map((node) => node.textContent));
  assert.ok(cells.some((text) => /^\$0\.\d{4}$/.test(text)) && cells.some((text) => /^[\d.]+ MB$/.test(text)), cells.join("; "));
  await page.close();
});

test("the sizes of the archive and of the source grow side by side, where all messages are counted in both", async () => {
  const title = "Size of the archived messages, all months up to each";
  const heads = (page) => page.$$eval(`[aria-label='${title}'] th`, (nodes) => nodes.map((node) => node.textContent));
  const { page } = await opened(address("healthy"));
  assert.deepEqual(await heads(page), ["", "In the source", "In the archive"]);
  const rows = await page.$$eval(`[aria-label='${title}'] tbody tr`, (nodes) => nodes.map((node) => node.textContent));
  const figure = await page.$eval("main", (node) => node.textContent);
  const [, size] = /Size in the archive([\d.]+ [kMG]B)/.exec(figure);
  assert.ok(rows.at(-1).endsWith(size), `${rows.at(-1)} ends with ${size}`);
  await page.close();
  const partly = await openedWith("healthy", (data) => { data.latest.in_source.messages -= 1; });
  assert.deepEqual(await heads(partly.page), ["", "In the archive"]);
  await partly.page.close();
});

test("alerts stand by month, severity and category, and the page says of how many messages", async () => {
  const { page } = await opened(address("healthy"));
  const titles = await page.$$eval("h3", (nodes) => nodes.map((node) => node.textContent));
  for (const title of ["Alerts by severity", "Alerts by category"]) assert.ok(titles.includes(title), titles.join("; "));
  const heads = await page.$$eval("[aria-label='Alerts by severity'] th", (nodes) => nodes.map((node) => node.textContent));
  assert.deepEqual(heads, ["", "critical", "high", "medium", "low", "(none)"]);
  assert.doesNotMatch(await page.$eval("main", (node) => node.textContent), /before their alerts were counted/);
  await page.close();
  const written = await saidWith("healthy", (data) => { data.latest.alerts.messages -= 9; });
  assert.match(written, /Of [\d,]+ of [\d,]+ archived messages: the others were archived before their alerts were counted\./);
  const older = await saidWith("healthy", (data) => { delete data.latest.alerts; });
  assert.doesNotMatch(older, /Alerts by severity|could not be drawn/);
  assert.match(older, /Size of the archived messages/);
});

test("the calendar is read and opened with the keyboard", async () => {
  const { page } = await opened(address("failing"));
  await page.$eval("svg.calendar", (calendar) => calendar.focus());
  for (const key of ["Home", "ArrowRight", "ArrowDown"]) await page.keyboard.press(key);
  const said = await page.$eval("#day", (node) => node.textContent);
  assert.match(said, /^\d{4}-01-\d\d: /);
  await page.keyboard.press("Enter");
  const commands = await page.$$eval("pre code", (nodes) => nodes.map((node) => node.textContent));
  assert.ok(commands.some((text) => text.includes(`--from ${said.slice(0, 10)}`)), commands.join("; "));
  await page.close();
});

test("a day of which only a part was run is not called archived, and a recheck is no run over it", async () => {
  const day = "2024-07-01";
  const { page } = await openedWith("healthy", (data) => {
    const { latest, runs } = data;
    latest.covered = [{ from: "2024-06-01T00:00:00.000Z", to: `${day}T06:00:00.000Z` }];
    latest.gaps = [];
    latest.days = [["2024-06-30", 5, 0, 0, 1], [day, 9, 0, 0, 1], ["2024-07-02", 1, 0, 0, 1]];
    const every = { from: "1970-01-01T00:00:00.000Z", to: "2030-01-01T00:00:00.000Z" };
    Object.assign(runs.runs[0], every, { mode: "recheck", run_id: "the-recheck" });
    Object.assign(runs.runs[1], every, { mode: "range", run_id: "the-range" });
  });
  const kind = (date) => page.$eval(`rect[data-date="${date}"]`, (rect) => rect.getAttribute("class"));
  assert.equal(await kind("2024-06-30"), "c-archived");
  assert.equal(await kind("2024-06-29"), "c-nothing");
  assert.equal(await kind(day), "c-part");
  assert.equal(await kind("2024-07-02"), "c-part", "one late message is not the whole day");
  assert.equal(await kind("2024-07-03"), "c-unknown");
  await page.$eval(`rect[data-date="${day}"]`, (rect) => rect.dispatchEvent(new MouseEvent("click", { bubbles: true })));
  const named = await page.$$eval("section ul button", (buttons) => buttons.map((button) => button.textContent));
  assert.deepEqual(named.filter((name) => name.startsWith("the-")), ["the-range"]);
  const verdict = await page.$eval(".year h3", (node) => node.textContent);
  assert.match(verdict, /^2024: 2 days run in part, 3\d\d days not yet run; 15 messages archived$/);
  await page.close();
});

test("hostile names stay text", async () => {
  const folder = mkdtempSync(join(tmpdir(), "hostile-"));
  const whole = readFileSync(join(pages, "failing", "index.html"), "utf8");
  const [, id] = /"run_id":"([^"]+)"/.exec(whole);
  const inside = JSON.stringify(HOSTILE).slice(1, -1).replaceAll("<", "\\u003c");
  writeFileSync(join(folder, "index.html"), whole.replaceAll(id, inside));
  const { page, asked, complaints } = await opened(pathToFileURL(join(folder, "index.html")).href);
  assert.equal(await page.evaluate(() => window.taken), undefined);
  assert.equal(await page.$$eval("img", (nodes) => nodes.length), 0);
  assert.ok((await page.$eval("main", (node) => node.textContent)).includes(HOSTILE));
  assert.deepEqual(complaints, []);
  assert.equal(asked.filter((url) => !url.startsWith("data:")).length, 1);
  await page.close();
});

test("from a server it asks its own origin only, and takes what a pipeline has published since", async () => {
  const asked = [];
  const section = { title: "Partner feeds", scope: "since", state: "good", headline: "Published since.", blocks: [] };
  const server = createServer((request, response) => {
    asked.push(request.url);
    const feeds = request.url === "/data/feeds.json";
    response.writeHead(feeds || request.url === "/" ? 200 : 404, { "content-type": feeds ? "application/json" : "text/html; charset=utf-8" });
    response.end(feeds ? JSON.stringify({ section }) : readFileSync(join(pages, "healthy", "index.html")));
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const origin = `http://127.0.0.1:${server.address().port}`;
  const { page, asked: urls } = await opened(`${origin}/`, { until: "networkidle0" });
  assert.ok(urls.filter((url) => !url.startsWith("data:")).every((url) => url.startsWith(origin)), urls.join("; "));
  assert.deepEqual([...new Set(asked)].sort(), ["/", "/data/feeds.json"]);
  assert.match(await page.$eval("main", (node) => node.textContent), /Published since\./);
  await page.close();
  server.close();
});

for (const state of STATES.filter((state) => state !== "empty")) {
  test(`${state}: the mail fits a phone, light and dark, and asks for nothing`, async () => {
    for (const scheme of SCHEMES) for (const width of [375, 768]) {
      const { page, asked } = await opened(address(state, "mail.html"), { width, scheme });
      const foreign = asked.filter((url) => !url.startsWith("file:"));
      assert.deepEqual(foreign, [], `${state}, ${width}`);
      assert.ok(await beyond(page) <= 0, `${state}, ${width}: ${await beyond(page)} pixels too wide`);
      const background = await page.$eval("body", (body) => getComputedStyle(body).backgroundColor);
      const [red] = background.match(/\d+/g).map(Number);
      assert.ok(scheme === "dark" ? red < 64 : red > 192, `${scheme}: ${background}`);
      await keepPicture(page, `mail-${state}-${width}-${scheme}`);
      await page.close();
    }
  });
}
