// Elements, numbers and times. What comes from the broker is put in as text, never as markup.
const SVG = "http://www.w3.org/2000/svg";

export function h(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value") element.value = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

export const link = (hash, text) => h("a", { href: "#" + hash }, show(text));
export const show = (value) => (value === null || value === undefined || value === "" ? "–" : String(value));
export const panel = (title, ...children) => h("section", { class: "panel" }, title && h("h2", {}, title), ...children);
export const state = (text, kind) => h("p", { class: "state " + (kind ?? ""), role: kind === "bad" ? "alert" : "status" }, text);
export const loading = () => state("Loading …");
export const failed = (error) => h("div", { class: "panel" }, state(error.message + (error.hint ? " – " + error.hint : ""), "bad"));
export const tile = (name, value, note, kind) =>
  h("div", { class: "panel tile" }, h("span", { class: "dim" }, name), h("b", { class: kind }, show(value)), note && h("span", { class: "dim" }, note));

// columns: [title, cell of an item, class]
export function table(columns, items, nothing) {
  if (items.length === 0) return state(nothing ?? "Nothing here.");
  const head = h("thead", {}, h("tr", {}, columns.map(([title, , kind]) => h("th", { class: kind, scope: "col" }, title))));
  const body = h("tbody", {}, items.map((item) => row(columns, item)));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table" }, h("table", {}, head, body));
}

export function row(columns, item) {
  return h("tr", {}, columns.map(([, cell, kind]) => {
    const value = cell(item);
    return h("td", { class: kind }, value instanceof Node || Array.isArray(value) ? value : show(value));
  }));
}

export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return h("dl", {}, known.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value instanceof Node ? value : String(value))]));
}

export function field(label, attributes, options) {
  const input = options
    ? h("select", attributes, options.map(([value, text]) => h("option", { value, selected: value === attributes.value }, text)))
    : h("input", { autocomplete: "off", spellcheck: "false", ...attributes });
  return h("label", { class: attributes.type === "checkbox" ? "check" : null }, attributes.type === "checkbox" ? [input, label] : [label, input]);
}

// A form whose values come as an object.
export function bar(fields, button, onsubmit) {
  const submit = (event) => {
    event.preventDefault();
    onsubmit(Object.fromEntries(new FormData(event.target)));
  };
  return h("form", { class: "bar", onsubmit: submit }, fields, button && h("button", { class: "main" }, button));
}

export function confirmed(question, verb) {
  return new Promise((answer) => {
    const close = (is) => () => { dialog.close(); dialog.remove(); answer(is); };
    const dialog = h("dialog", { oncancel: close(false), "aria-label": "Confirm" }, h("p", {}, question),
      h("div", { class: "bar" }, h("button", { type: "button", onclick: close(false) }, "Cancel"),
        h("button", { type: "button", class: "danger", onclick: close(true) }, verb)));
    document.body.append(dialog);
    dialog.showModal();
  });
}

// Two lines over time in one picture; values: [in, out], oldest first.
export function chart(points, label) {
  const max = Math.max(1, ...points.flat());
  const width = 300, height = 100, count = Math.max(2, points.length - 1);
  const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
  const line = (at) => points.map((point, index) =>
    `${index ? "L" : "M"}${((width * index) / count).toFixed(1)} ${(height - 4 - ((height - 8) * point[at]) / max).toFixed(1)}`).join("");
  return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("line", { x1: 0, x2: width, y1: 4, y2: 4 }), svg("line", { x1: 0, x2: width, y1: height - 4, y2: height - 4 }),
    svg("path", { class: "in", d: line(0) }), svg("path", { class: "out", d: line(1) }));
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) < 10 && value % 1 ? value.toFixed(1) : Math.round(value).toLocaleString("en");
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; value >= 1024 && at < 4; at++) value /= 1024;
  return (at && value < 100 ? value.toFixed(1) : Math.round(value)) + " " + units[at];
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = parts.findIndex(([size]) => seconds >= size);
  if (at < 0) return "0 s";
  const [size, unit] = parts[at], next = parts[at + 1];
  const rest = next && Math.floor((seconds % size) / next[0]);
  return `${Math.floor(seconds / size)} ${unit}` + (rest ? ` ${rest} ${next[1]}` : "");
}

const two = (value) => String(value).padStart(2, "0");
export function time(ms) {
  if (!ms) return "–";
  const date = new Date(ms), now = new Date();
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return date.toDateString() === now.toDateString() ? clock : `${day} ${clock}`;
}
export const ago = (ms) => (ms ? duration(Math.max(0, (Date.now() - ms) / 1000)) : "–");
