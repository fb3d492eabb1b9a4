// Bar and line charts as inline SVG. The drawing is stretched to its container; labels are text around it.

import { exact, formatted } from "./draw.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600;
const HEIGHT = 160;
const COLOURS = 8;

function shape(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function box(name, className, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// Round up to 1, 2 or 5 × 10ⁿ, so that the scale does not change with each value.
function roundUp(value, as) {
  if (value <= 0) return as === "count" ? 5 : 0.1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 5, 10].find((each) => each * power >= value);
  return as === "count" ? Math.max(step * power, 5) : step * power;
}

function colour(series, index) {
  return series.tone ? `tab-line-${series.tone}` : `tab-line-${index % COLOURS}`;
}

function bars(block, top) {
  const width = WIDTH / Math.max(block.at.length, 1);
  const heights = block.at.map(() => 0);
  return block.series.flatMap((series, index) => series.values.map((value, at) => {
    const height = ((value || 0) / top) * HEIGHT;
    heights[at] += height;
    return height ? shape("rect", { class: colour(series, index), x: at * width + width * 0.1, width: width * 0.8,
      y: HEIGHT - heights[at], height }) : null;
  })).filter(Boolean);
}

// A value between two gaps is drawn as a dot.
function lines(block, top) {
  const width = WIDTH / Math.max(block.at.length, 1);
  return block.series.flatMap((series, index) => {
    let [line, dots] = ["", ""];
    const known = (at) => series.values[at] !== null && series.values[at] !== undefined;
    series.values.forEach((value, at) => {
      if (!known(at)) return;
      const place = `${(at + 0.5) * width} ${HEIGHT - (value / top) * HEIGHT}`;
      line += `${known(at - 1) ? "L" : "M"}${place}`;
      if (!known(at - 1) && !known(at + 1)) dots += `M${place}h0.01`;
    });
    const className = `tab-path ${colour(series, index)}`;
    return [shape("path", { class: className, d: line }), shape("path", { class: `${className} tab-dots`, d: dots })];
  });
}

// Transparent rectangles that show the values of each moment on hover.
function hints(block) {
  const width = WIDTH / Math.max(block.at.length, 1);
  return block.at.map((at, index) => {
    const values = block.series.map((series) => `${series.label}: ${formatted(series.values[index], block.as)}`);
    const title = shape("title", {}, [exact(at), ...values].join("\n"));
    return shape("rect", { class: "tab-hover", x: index * width, y: 0, width, height: HEIGHT }, title);
  });
}

function legend(block) {
  return box("ul", "tab-legend", ...block.series.map((series, index) => {
    const mark = box("span", `tab-mark ${colour(series, index)}`);
    return box("li", "", mark, series.label);
  }));
}

function asTable(block) {
  const names = box("tr", "", box("th", "", "Minute"), ...block.series.map((series) => box("th", "tab-number", series.label)));
  const rows = block.at.map((at, index) => box("tr", "", box("td", "", exact(at).slice(11, 16)),
    ...block.series.map((series) => box("td", "tab-number", formatted(series.values[index], block.as)))));
  const table = box("table", "table table-sm mb-0", box("thead", "", names), box("tbody", "", ...rows.reverse()));
  const scrolled = box("div", "tab-chart-table", table);
  scrolled.tabIndex = 0;
  return box("details", "tab-chart-details", box("summary", "", "As a table"), scrolled);
}

export function chart(block) {
  const sums = block.at.map((_, at) => block.series.map((series) => series.values[at] || 0));
  const highest = Math.max(0, ...sums.map((each) => block.shape === "bars" ? each.reduce((a, b) => a + b, 0) : Math.max(0, ...each)));
  const top = roundUp(highest, block.as);
  const grid = [0.25, 0.5, 0.75].map((part) => shape("line", { class: "tab-grid", x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part }));
  const drawing = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${block.title}, maximum ${formatted(highest, block.as)}` },
  ...grid, ...(block.shape === "bars" ? bars(block, top) : lines(block, top)), ...hints(block));
  const minutes = block.at.length ? Math.round((block.at[block.at.length - 1] - block.at[0]) / 60) : 0;
  const element = box("section", "tab-card tab-chart",
    box("header", "tab-card-head", box("h2", "", block.title), legend(block)),
    box("div", "tab-plot",
      box("span", "tab-top", formatted(top, block.as)), box("span", "tab-bottom", formatted(0, "count")), drawing,
      box("span", "tab-from", `${minutes} min ago`), box("span", "tab-to", "now")),
    asTable(block));
  return element;
}
