// One page: loads its JSON every few seconds, updates the drawn content in place, and posts the user's actions.

import { count, draw, exact, relative } from "./draw.js";

const root = document.getElementById("tab");
const body = document.getElementById("tab-body");
const status = document.getElementById("tab-status");
const light = document.getElementById("tab-light");
const messages = document.getElementById("tab-said");
const dialog = document.getElementById("tab-dialog");

const page = {
  path: root.dataset.page,
  query: new URLSearchParams(location.search),
  isReadOnly: root.dataset.readOnly === "yes",
  now: Date.now() / 1000,
  lead: 0, // how far the server's clock is ahead of this one, seconds
};
const chosen = new Set();
let readAt = null;
let isBusy = false;

// --- updating in place -----------------------------------------------------------------------------

const KEPT = new Set(["open", "value", "disabled"]); // set by the user, or by the selection

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.dataset.key || "" : "";
}

function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || keyOf(old) !== keyOf(fresh)) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  const isForm = old.nodeName === "INPUT" || old.nodeName === "DETAILS" || old.nodeName === "BUTTON";
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(isForm && KEPT.has(name))) old.removeAttribute(name);
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) !== value && !(isForm && KEPT.has(name))) old.setAttribute(name, value);
  }
  // Leave a list alone that the user may have open.
  if (old.nodeName !== "SELECT") patchChildren(old, [...fresh.childNodes]);
}

function patchChildren(old, fresh) {
  const keyed = new Map([...old.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  fresh.forEach((node, index) => {
    const known = keyed.get(keyOf(node));
    let at = old.childNodes[index];
    if (known && known !== at) {
      old.insertBefore(known, at || null);
      at = known;
    }
    if (at) patch(at, node);
    else old.append(node);
  });
  while (old.childNodes.length > fresh.length) old.lastChild.remove();
}

// --- reading ---------------------------------------------------------------------------------------

async function fetchJson(address, options) {
  let answer;
  try {
    answer = await fetch(address, { credentials: "same-origin", ...options });
  } catch {
    throw new Error("Flower does not answer");
  }
  const value = await answer.json().catch(() => null);
  if (answer.ok && value) return value;
  throw new Error((value && value.error) || `Flower answered with status ${answer.status}`);
}

function show(view) {
  page.lead = view.at - Date.now() / 1000;
  page.now = view.at;
  patchChildren(body, draw(view.blocks, page));
  body.removeAttribute("aria-busy");
  body.classList.remove("tab-old");
  readAt = Date.now();
  light.className = "status-dot status-dot-live";
  showChoice();
  showAges();
}

function showAway(error) {
  light.className = "status-dot status-dot-error";
  status.textContent = readAt ? `Last update ${relative(readAt / 1000, Date.now() / 1000)}` : "No answer";
  body.classList.add("tab-old");
  body.removeAttribute("aria-busy");
  say("away", "danger", `${error.message}; trying again.`);
}

async function read() {
  try {
    const view = await fetchJson(`${root.dataset.source}?${page.query}`);
    unsay("away");
    show(view);
    return view.refresh_seconds;
  } catch (error) {
    showAway(error);
    return 3;
  }
}

// Rows must not move while rows are selected or the pointer is over a button.
function mayMove() {
  return !document.hidden && !dialog.open && !isBusy && chosen.size === 0 && !body.querySelector(".tab-actions:hover");
}

async function readAgainAndAgain() {
  let pause = await read();
  while (root.dataset.autoRefresh === "yes") {
    await new Promise((done) => setTimeout(done, pause * 1000));
    if (mayMove()) pause = await read();
  }
}

function showAges() {
  page.now = Date.now() / 1000 + page.lead;
  for (const element of body.querySelectorAll("time[data-at]")) {
    const text = relative(Number(element.dataset.at), page.now);
    if (element.textContent !== text) element.textContent = text;
  }
  if (readAt && light.classList.contains("status-dot-live")) {
    const age = Math.round((Date.now() - readAt) / 1000);
    status.textContent = chosen.size ? "Paused while rows are selected" : age < 2 ? "Live" : `Updated ${age} s ago`;
    status.title = exact(readAt / 1000);
  }
}

// --- messages at the top ---------------------------------------------------------------------------

function say(name, tone, text) {
  let line = document.getElementById(`said-${name}`);
  if (!line) {
    line = document.createElement("p");
    line.id = `said-${name}`;
    messages.append(line);
  }
  line.className = `tab-note tab-tone-${tone}`;
  if (line.textContent !== text) line.textContent = text;
}

function unsay(name) {
  document.getElementById(`said-${name}`)?.remove();
}

// --- selecting -------------------------------------------------------------------------------------

function showChoice() {
  const boxes = [...body.querySelectorAll("[data-choose]")];
  const there = new Set(boxes.map((box) => box.dataset.choose));
  for (const key of chosen) if (!there.has(key)) chosen.delete(key);
  for (const box of boxes) box.checked = chosen.has(box.dataset.choose);
  const all = body.querySelector("[data-choose-all]");
  if (all) {
    all.checked = boxes.length > 0 && chosen.size === boxes.length;
    all.indeterminate = chosen.size > 0 && chosen.size < boxes.length;
  }
  for (const button of body.querySelectorAll("[data-chosen]")) button.disabled = chosen.size === 0;
  const text = body.querySelector(".tab-chosen");
  if (text) text.textContent = chosen.size ? `${count(chosen.size)} selected` : "none selected";
}

body.addEventListener("change", ({ target }) => {
  const keys = target.dataset.chooseAll
    ? [...body.querySelectorAll("[data-choose]")].map((box) => box.dataset.choose) : [target.dataset.choose];
  if (keys[0] === undefined) return;
  for (const key of keys) target.checked ? chosen.add(key) : chosen.delete(key);
  showChoice();
  showAges();
});

// --- acting ----------------------------------------------------------------------------------------

let answer = () => {}; // resolves the question that is open

function ask(question, confirm, isDangerous) {
  answer(false);
  document.getElementById("tab-question").textContent = question;
  const yes = dialog.querySelector("[value=yes]");
  yes.textContent = confirm;
  yes.className = isDangerous ? "btn btn-danger" : "btn btn-primary";
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((done) => { answer = done; });
}

// The browser tells late that a dialog has closed: the next question may be open by then.
dialog.addEventListener("close", () => {
  if (!dialog.open) answer(dialog.returnValue === "yes");
});

dialog.addEventListener("click", ({ target }) => {
  if (target.value) dialog.close(target.value);
});

function cookie(name) {
  const found = document.cookie.split("; ").find((each) => each.startsWith(`${name}=`));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
}

function post(action, order) {
  const headers = { "Content-Type": "application/json", "X-XSRFToken": cookie("_xsrf") };
  return fetchJson(root.dataset.actions + action, { method: "POST", headers, body: JSON.stringify(order) });
}

async function actOnAll(action, label) {
  const fits = Object.fromEntries(page.query);
  const at = page.now;
  let [total, cursor, done] = [0, "", null];
  do {
    done = await post(action, { fits, at, cursor });
    total += done.count;
    cursor = done.cursor;
    say("done", "", `${label}: ${count(total)} so far…`);
  } while (cursor);
  return { text: `${label}: ${count(total)} done`, problems: [] };
}

async function act(button) {
  const { action, about, all, asks } = button.dataset;
  const keys = all ? [] : about !== undefined ? [about] : [...chosen];
  const isOne = keys.length === 1;
  const rows = all ? `all matching ${root.dataset.rowNoun}` : `${count(keys.length)} ${root.dataset.rowNoun}`;
  const subject = isOne ? `“${keys[0]}”` : all ? `${rows} on every page` : rows;
  const isDangerous = button.classList.contains("btn-outline-danger");
  const question = asks || (isOne ? "" : `${button.textContent} {}?`);
  const confirm = isOne ? button.textContent : button.dataset.confirm.replace("{}", () => rows);
  if (question && !(await ask(question.replace("{}", () => subject), confirm, isDangerous))) return;
  isBusy = true;
  body.classList.add("tab-busy");
  try {
    const done = all ? await actOnAll(action, button.textContent) : await post(action, { keys });
    chosen.clear();
    const problems = done.problems.length > 3 ? [...done.problems.slice(0, 3), `and ${count(done.problems.length - 3)} more`] : done.problems;
    say("done", problems.length ? "warning" : "success", [done.text, ...problems].join("; "));
  } catch (error) {
    say("done", "danger", error.message);
  }
  isBusy = false;
  body.classList.remove("tab-busy");
  await read();
}

body.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-action]");
  if (button && !isBusy) act(button);
});

setInterval(showAges, 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden && mayMove()) read(); });
readAgainAndAgain();
