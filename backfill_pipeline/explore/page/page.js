"use strict";
// The view is site, points, range and time zone. The address of the page holds it. Each zoom requests what the width needs.

const MOST_POINTS = 8;
const DAY = 86400000;
const COLORS = {
  light: ["#0b63ce", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0e7490", "#a16207", "#be185d"],
  dark: ["#6cb2ff", "#ff9d5c", "#5fd38d", "#c79bff", "#ff8a8a", "#5ad1e6", "#e6c34a", "#ff8cc3"],
};
const LOCAL = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
const darkMode = matchMedia("(prefers-color-scheme: dark)");
const byId = (id) => document.getElementById(id);

const view = { site: "", points: [], start: 0, end: 0, tz: "UTC" };
let plot = null; // the embedded figure
let zoneOf = {}; // time zones of sites, as far as they are set
let isFilling = false;
let running = new AbortController();
let searching = new AbortController();

const theme = () => (darkMode.matches ? "dark" : "light");
const iso = (ms) => new Date(ms).toISOString();

function readAddress() {
  const asked = new URLSearchParams(location.search);
  const time = (text, other) => (Number.isNaN(Date.parse(text)) ? other : Date.parse(text));
  const today = Math.floor(Date.now() / DAY) * DAY;
  view.site = asked.get("site") || "";
  view.points = [...new Set(asked.getAll("point"))].slice(0, MOST_POINTS);
  view.end = time(asked.get("to"), today);
  view.start = time(asked.get("from"), view.end - 365 * DAY);
  view.tz = asked.get("tz") || "UTC";
}

function query(more = {}) {
  const found = new URLSearchParams({ site: view.site });
  for (const point of view.points) found.append("point", point);
  found.set("from", iso(view.start));
  found.set("to", iso(view.end));
  found.set("tz", view.tz);
  for (const [name, value] of Object.entries(more)) found.set(name, value);
  return found;
}

async function answer(path, signal) {
  const response = await fetch(path, { signal });
  const found = await response.json();
  if (!response.ok) throw new Error(found.message);
  return found;
}

function report(text, failed = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("failed", failed);
}

function element(kind, text, attributes = {}) {
  const made = document.createElement(kind);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// --- finding points

async function search() {
  searching.abort();
  searching = new AbortController();
  if (!view.site) return;
  try {
    const asked = new URLSearchParams({ site: view.site, words: byId("words").value });
    const found = await answer(`points?${asked}`, searching.signal);
    const more = found.found > found.points.length ? `, the first ${found.points.length} are shown` : "";
    byId("found").textContent = found.all
      ? `${found.found} of ${found.all} points${more}` : "The store has no catalogue of points of this site.";
    byId("results").replaceChildren(...found.points.map(result));
  } catch (error) {
    if (error.name !== "AbortError") byId("found").textContent = error.message;
  }
}

function result(point) {
  const button = element("button", point.shown, { type: "button", "aria-pressed": view.points.includes(point.name) });
  button.dataset.point = point.name;
  button.append(element("small", [point.about, point.unit].filter(Boolean).join(", ")));
  button.addEventListener("click", () => toggle(point.name));
  const item = element("li", "");
  item.append(button);
  return item;
}

function toggle(name) {
  if (view.points.includes(name)) view.points = view.points.filter((one) => one !== name);
  else if (view.points.length < MOST_POINTS) view.points = [...view.points, name];
  else return report(`A chart has at most ${MOST_POINTS} points. Remove one first.`, true);
  draw();
}

function visible(text) { // control and format characters would forge or reorder what is shown
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (one) => `\\u${one.codePointAt(0).toString(16).padStart(4, "0")}`);
}

function showChosen() {
  byId("chosen").replaceChildren(...view.points.map((name, number) => {
    const item = element("li", "");
    const swatch = element("span", "", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = COLORS[theme()][number];
    const remove = element("button", "×", { type: "button", "aria-label": `Remove ${visible(name)}` });
    remove.addEventListener("click", () => toggle(name));
    item.append(swatch, element("span", visible(name)), remove);
    return item;
  }));
  for (const button of byId("results").querySelectorAll("button"))
    button.setAttribute("aria-pressed", view.points.includes(button.dataset.point));
}

// --- the chart

function showView() {
  history.replaceState(null, "", `?${query()}`);
  byId("from").value = iso(view.start).slice(0, 10);
  byId("to").value = iso(view.end - 1).slice(0, 10);
  const has = view.site && view.points.length > 0;
  for (const kind of ["csv", "parquet"]) {
    byId(kind).hidden = !has;
    byId(kind).href = `download?${query({ format: kind })}`;
  }
  byId("coverage").hidden = !view.site;
  byId("coverage").href = `coverage?${query()}`;
}

const numbers = (values) => Float64Array.from(values, (value) => (value === null ? NaN : value));

function fill(found) {
  const model = (name) => plot.document.get_model_by_name(name);
  found.series.forEach((one, number) => {
    model(`series-${number}`).data = {
      x: numbers(one.x), mean: numbers(one.mean), min: numbers(one.min), max: numbers(one.max),
      count: one.count, when: one.when, name: one.x.map(() => one.name),
      size: one.x.map(() => (one.x.length < 200 ? 4 : 1.5)), // a sample between two gaps has no line
    };
  });
  model("ticks").ticks = found.ticks;
  model("time-axis").major_label_overrides = new Map(found.ticks.map((at, number) => [at, found.labels[number]]));
}

function setRange() {
  isFilling = true;
  plot.x_range.setv({ start: view.start, end: view.end });
  isFilling = false;
}

async function draw() { // a new figure: other points, or another theme
  showChosen();
  plot = null;
  await update();
}

async function update() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  showView();
  if (!view.site || !view.points.length) {
    byId("chart").replaceChildren();
    return report(view.site ? "Choose points to see their series." : "Choose a site.");
  }
  report("Loading ...");
  byId("chart").setAttribute("aria-busy", "true");
  try {
    const more = { width: Math.min(4000, Math.max(100, byId("chart").clientWidth - 80)), theme: theme() };
    const found = await answer(`chart?${query(plot ? more : { ...more, figure: 1 })}`, signal);
    if (found.item) {
      byId("chart").replaceChildren();
      const views = await Bokeh.embed.embed_item(found.item);
      plot = [...views.roots][0].model;
      let waiting = 0;
      plot.x_range.change.connect(() => {
        if (isFilling) return;
        clearTimeout(waiting);
        waiting = setTimeout(zoomed, 200);
      });
    }
    fill(found);
    setRange();
    const rows = found.series.reduce((sum, one) => sum + one.count.reduce((a, b) => a + b, 0), 0);
    const text = `${rows.toLocaleString("en")} samples, one column for each ${span(found.column_ms)}. Times: ${view.tz}.`;
    report(found.missing ? `${text} Days that are not stored: ${found.missing}.` : text);
    byId("chart").setAttribute("aria-label", `Chart of ${view.points.map(visible).join(", ")}. ${text}`);
    const shaded = await answer(`days?${query()}`, signal);
    plot.document.get_model_by_name("days").data = {
      x0: numbers(shaded.days.map((one) => one.start)), x1: numbers(shaded.days.map((one) => one.end)),
      alpha: numbers(shaded.days.map((one) => (one.state === "thin" ? 0.06 : 0.16))),
    };
    byId("chart").dataset.shaded = shaded.days.length;
    if (shaded.days.length)
      report(`${byId("status").textContent} Shaded days: strongly shaded is not stored, lightly shaded is incomplete.`);
  } catch (error) {
    if (error.name !== "AbortError") report(error.message, true);
  } finally {
    if (!signal.aborted) byId("chart").setAttribute("aria-busy", "false");
  }
}

function span(ms) {
  for (const [size, name] of [[DAY, "day"], [3600000, "hour"], [60000, "minute"], [1000, "second"]])
    if (ms >= size) return `${+(ms / size).toFixed(1)} ${name}${ms === size ? "" : "s"}`;
  return `${ms} ms`;
}

function zoomed() {
  go(plot.x_range.start, plot.x_range.end);
}

function go(start, end) {
  view.start = Math.round(start);
  view.end = Math.max(Math.round(end), view.start + 1000);
  update();
}

// --- the controls

function choose(select, names, value) {
  select.replaceChildren(...names.map(([name, text]) => element("option", text, { value: name })));
  select.value = value;
}

function chooseZone() {
  const site = zoneOf[view.site];
  const text = (name) => {
    if (name === "UTC") return name;
    if (name === site) return `site (${name})`;
    return name === LOCAL ? `browser (${name})` : name;
  };
  const zones = [...new Set(["UTC", site, LOCAL, view.tz].filter(Boolean))];
  choose(byId("tz"), zones.map((name) => [name, text(name)]), view.tz);
}

function connect() {
  let waiting = 0;
  byId("words").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 150);
  });
  byId("site").addEventListener("change", () => {
    view.site = byId("site").value;
    view.points = [];
    chooseZone();
    search();
    draw();
  });
  byId("tz").addEventListener("change", () => {
    view.tz = byId("tz").value;
    update();
  });
  byId("range").addEventListener("submit", (event) => {
    event.preventDefault();
    go(Date.parse(byId("from").value), Date.parse(byId("to").value) + DAY);
  });
  for (const button of document.querySelectorAll("[data-move], [data-zoom], [data-days]"))
    button.addEventListener("click", () => {
      const length = view.end - view.start;
      const { move, zoom, days } = button.dataset;
      if (move) return go(view.start + move * length, view.end + move * length);
      if (days) return go(view.end - days * DAY, view.end);
      const middle = view.start + length / 2;
      go(middle - (zoom * length) / 2, middle + (zoom * length) / 2);
    });
  darkMode.addEventListener("change", draw);
}

async function begin() {
  readAddress();
  connect();
  chooseZone();
  try {
    const { sites, zones } = await answer("sites");
    zoneOf = zones;
    const names = [...new Set([...sites, view.site].filter(Boolean))];
    view.site = view.site || names[0] || "";
    choose(byId("site"), names.map((name) => [name, visible(name)]), view.site);
  } catch (error) {
    if (!view.site) return report(error.message, true);
    choose(byId("site"), [[view.site, visible(view.site)]], view.site);
  }
  chooseZone();
  search();
  draw();
}

begin();
