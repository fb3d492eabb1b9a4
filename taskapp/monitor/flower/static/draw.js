// Draws the content of a tab. Everything from outside becomes text or an attribute value, never markup.

import { chart } from "./chart.js";

const DASH = "\u2013";
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
const GOOD = new Set(["active", "running", "SUCCESS"]);
const BAD = new Set(["broken", "lost", "FAILURE", "crashed", "failed", "rejected", "unknown task", "unreadable"]);
const BUSY = new Set(["draining", "paused", "QUEUED", "WAITING", "STARTED", "RETRY"]);

export function h(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(key, value === true ? "" : value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function count(value) {
  return Number(value).toLocaleString("en");
}

export function seconds(value) {
  const size = Math.abs(value);
  if (size < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (size < 9.95) return `${value.toFixed(1)} s`;
  return `${value < 0 ? "-" : ""}${units(Math.round(size))}`;
}

// The two largest units of a whole number of seconds, 1 or more.
function units(whole) {
  const at = UNITS.findIndex(([unit]) => whole >= unit);
  const [unit, name] = UNITS[at];
  const rest = at + 1 < UNITS.length ? Math.floor((whole % unit) / UNITS[at + 1][0]) : 0;
  return `${Math.floor(whole / unit)} ${name}` + (rest ? ` ${rest} ${UNITS[at + 1][1]}` : "");
}

export function relative(at, now) {
  const away = at - now;
  if (Math.abs(away) < 1) return "now";
  return away > 0 ? `in ${units(Math.ceil(away))}` : `${units(Math.floor(-away))} ago`;
}

export function exact(at) {
  const moment = new Date(at * 1000);
  if (Number.isNaN(moment.getTime())) return String(at);
  const utc = moment.toISOString().replace("T", " ").replace("Z", " UTC");
  return `${utc} (local time ${moment.toLocaleString()})`;
}

function bytes(value) {
  if (value < 1024) return `${value} B`;
  const [size, unit] = value < 1048576 ? [value / 1024, "KiB"] : [value / 1048576, "MiB"];
  return `${size < 10 ? size.toFixed(1) : Math.round(size)} ${unit}`;
}

export function formatted(value, as) {
  if (value === null || value === undefined || value === "") return DASH;
  if (as === "count") return count(value);
  if (as === "seconds") return seconds(value);
  if (as === "bytes") return bytes(value);
  if (as === "decimal") return Number(value).toFixed(2);
  return String(value);
}

// --- cells ---------------------------------------------------------------------------------------

const NUMBERS = new Set(["count", "seconds", "bytes", "decimal"]);

function toneOf(state) {
  if (GOOD.has(state)) return "success";
  if (BAD.has(state)) return "danger";
  return BUSY.has(state) ? "warning" : "";
}

function share([used, total]) {
  const part = total ? Math.min(used / total, 1) : 0;
  return h("span", { class: "tab-share" },
    h("meter", { min: 0, max: 1, value: part, "aria-label": `${used} of ${total}` }),
    h("span", {}, `${count(used)} / ${count(total)}`));
}

function value(of, as, now, hint) {
  if (of === null || of === undefined || of === "") return h("span", { class: "value-missing" }, DASH);
  if (as === "time") {
    const title = hint ? `${hint}\n${exact(of)}` : exact(of);
    return h("time", { "data-at": of, title }, relative(of, now));
  }
  if (as === "state") return h("span", { class: `tab-state tab-tone-${toneOf(of)}`, title: hint }, of);
  if (as === "share") return share(of);
  if (as === "code") return h("code", { title: hint }, of);
  return h("span", { title: hint }, formatted(of, as));
}

// --- buttons -------------------------------------------------------------------------------------

function button(about, attributes) {
  const style = about.tone === "danger" ? "btn-outline-danger" : "btn-outline-secondary";
  return h("button", { type: "button", class: `btn btn-sm ${style}`, "data-action": about.action, "data-asks": about.asks,
    "data-confirm": about.confirm || `${about.label} {}`,
    ...attributes }, about.label);
}

// --- blocks --------------------------------------------------------------------------------------

function cards(block, page) {
  return h("section", { class: "metric-grid tab-cards", "aria-label": "Key figures" }, block.cards.map((card) =>
    h("article", { class: `metric-card tab-tone-${card.tone}` },
      h("p", { class: "metric-label" }, card.label),
      h("p", { class: "metric-value" }, card.as === "share" ? card.value.map(count).join(" / ")
        : value(card.value, card.as, page.now)))));
}

function note(block) {
  return h("p", { class: `tab-note tab-tone-${block.tone}`, role: block.tone === "danger" ? "alert" : "note" },
    block.text);
}

function filters(block) {
  const inputs = block.fields.map((field) => {
    const about = { name: field.name, id: `filter-${field.name}`, class: "form-control" };
    const input = field.options.length
      ? h("select", { ...about, class: "form-select" }, h("option", { value: "" }, "all"),
        field.options.map((option) => h("option", { value: option, selected: option === field.value }, option)))
      : h("input", { ...about, type: "search", value: field.value, autocomplete: "off" });
    return h("div", { class: "tab-field" }, h("label", { for: about.id }, field.label), input);
  });
  return h("form", { class: "tab-filters", method: "get", role: "search", "aria-label": "Filter" }, inputs,
    h("button", { type: "submit", class: "btn btn-primary" }, "Filter"));
}

function cell(block, row, column, index, page) {
  const hint = (row.hints || {})[column.key];
  const drawn = value(row[column.key], column.as, page.now, hint);
  const isLink = index === 0 && block.has_details;
  const content = isLink ? h("a", { href: `?show=${encodeURIComponent(row[block.key])}` }, drawn) : drawn;
  const attributes = { class: NUMBERS.has(column.as) ? "tab-number" : `tab-cell-${column.as}` };
  return index === 0 ? h("th", { scope: "row", ...attributes }, content) : h("td", attributes, content);
}

function rowButtons(block, row) {
  const key = row[block.key];
  return h("td", { class: "tab-actions" }, block.buttons
    .filter((about) => !row.may || row.may.includes(about.action))
    .map((about) => button(about, { "data-about": key, "aria-label": `${about.label} ${key}` })));
}

function head(block, isActive, isChosen) {
  return h("thead", {}, h("tr", {},
    isChosen ? h("th", { class: "tab-choice" }, h("input", { type: "checkbox", class: "form-check-input",
      "data-choose-all": "yes", "aria-label": "Select all on this page" })) : null,
    block.columns.map((column) =>
      h("th", { scope: "col", class: NUMBERS.has(column.as) ? "tab-number" : "" }, column.label)),
    isActive ? h("th", { scope: "col", class: "tab-actions" }, h("span", { class: "visually-hidden" }, "Actions")) : null));
}

function many(block, page) {
  const forChosen = block.buttons.filter((about) => about.for_many)
    .map((about) => button(about, { "data-chosen": "yes", disabled: true }));
  const forAll = block.buttons.filter((about) => about.for_all && block.rows.length)
    .map((about) => button({ ...about, confirm: about.confirm || `${about.label} {}`, label: `${about.label} all matching` },
      { "data-all": "yes" }));
  return h("div", { class: "tab-many" },
    h("span", { class: "tab-chosen" }, "none selected"), forChosen, forAll.length ? h("span", { class: "tab-gap" }) : null,
    forAll);
}

function pager(block, page) {
  const after = new URLSearchParams(page.query);
  after.set("after", block.cursor);
  const first = new URLSearchParams(page.query);
  first.delete("after");
  if (!block.cursor && !page.query.get("after")) return null;
  return h("nav", { class: "tab-pager", "aria-label": "Pages" },
    page.query.get("after") ? h("a", { class: "btn btn-sm btn-outline-secondary", href: `?${first}` }, "First page") : null,
    block.cursor ? h("a", { class: "btn btn-sm btn-outline-secondary", rel: "next", href: `?${after}` }, "Next page") : null);
}

function table(block, page) {
  const isActive = block.buttons.length > 0 && !page.isReadOnly;
  const isChosen = isActive && block.buttons.some((about) => about.for_many);
  const rows = block.rows.map((row) => h("tr", { "data-key": block.key ? row[block.key] : "" },
    isChosen ? h("td", { class: "tab-choice" }, h("input", { type: "checkbox", class: "form-check-input",
      "data-choose": row[block.key], "aria-label": `Select ${row[block.key]}` })) : null,
    block.columns.map((column, index) => cell(block, row, column, index, page)),
    isActive ? rowButtons(block, row) : null));
  const width = block.columns.length + (isActive ? 1 : 0) + (isChosen ? 1 : 0);
  const empty = h("tr", {}, h("td", { class: "empty-table-message", colspan: width }, block.empty));
  return h("section", { class: "tab-card" },
    h("header", { class: "tab-card-head" }, h("h2", {}, block.title), isChosen ? many(block, page) : null),
    h("div", { class: "table-responsive", tabindex: 0, role: "group", "aria-label": block.title },
      h("table", { class: "workers-table tab-table table table-hover align-middle mb-0" },
        head(block, isActive, isChosen), h("tbody", {}, rows.length ? rows : empty))),
    pager(block, page));
}

function facts(block, page) {
  const buttons = page.isReadOnly ? [] : block.buttons.map((about) => button(about, { "data-about": block.subject }));
  return h("section", { class: "tab-card" },
    h("header", { class: "tab-card-head" }, h("h2", {}, h("code", {}, block.title)),
      h("div", { class: "tab-many" }, buttons, h("a", { class: "btn btn-sm btn-outline-secondary", href: page.path }, "Back to all"))),
    h("dl", { class: "tab-facts" }, block.facts.map((fact) =>
      h("div", {}, h("dt", {}, fact.label), h("dd", {}, value(fact.value, fact.as, page.now))))));
}

function text(block) {
  return h("section", { class: "tab-card" }, h("header", { class: "tab-card-head" }, h("h2", {}, block.title)),
    h("pre", { tabindex: 0 }, block.text || DASH));
}

const KINDS = { cards, note, filters, table, facts, text, chart };

export function draw(blocks, page) {
  const drawn = [];
  let charts = null;
  for (const block of blocks) {
    const each = (KINDS[block.kind] || (() => null))(block, page);
    if (block.kind !== "chart") charts = null;
    else if (!charts) drawn.push(charts = h("div", { class: "tab-charts" }));
    if (each) (charts ? charts.append(each) : drawn.push(each));
  }
  return drawn;
}
