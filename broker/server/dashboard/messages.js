// Messages: the retained ones, those that come and go, and those that were lost; and certificates that end.
import { get, query, remove, segment, stream } from "./api.js";
import { bar, bytes, confirmed, duration, failed, field, h, link, loading, number, panel, row, show, time } from "./dom.js";
import { pages } from "./clients.js";

const ROWS_MAX = 500;
const PAYLOAD_SHOWN = 65536;
const who = (id) => (id ? link("/client/" + encodeURIComponent(id), id) : "–");
const asked = (rest) => Object.fromEntries(new URLSearchParams(rest));

export const eventColumns = () => [
  ["When", (event) => time(event.at_ms), "time"], ["What", (event) => h("span", { class: ["dropped", "refused"].includes(event.kind) ? "bad" : "" }, event.kind)],
  ["Why", (event) => event.reason], ["Client", (event) => who(event.client_id)], ["Topic", (event) => event.topic, "code"],
  ["From", (event) => (event.publisher ? who(event.publisher) : event.peer)], ["Detail", (event) => event.detail], ["Times", (event) => number(event.count ?? 1), "num"],
];

export async function retained(view, signal) {
  const list = h("div", { class: "panel" }), detail = h("div", { "aria-live": "polite" });
  let wish = { filter: "#" };
  const ask = (values) => {
    wish = values;
    detail.replaceChildren();
    return pages(list, "/retained", { ...values, limit: 100 }, [
      ["Topic", (item) => h("button", { type: "button", class: "code", onclick: () => open(item.topic) }, item.topic)],
      ["Size", (item) => bytes(item.payload_bytes ?? item.bytes), "num"], ["QoS", (item) => item.qos, "num"], ["From", (item) => who(item.publisher)],
      ["Since", (item) => time(item.at_ms ?? item.published_at_ms ?? item.stored_at_ms), "time"],
    ], "No retained message matches.", signal);
  };
  const open = async (topic) => {
    detail.replaceChildren(loading());
    try {
      detail.replaceChildren(message(topic, await get("/retained/" + segment(topic), signal), async () => {
        if (!(await confirmed(`Delete the retained message of ${topic}?`, "Delete"))) return;
        await remove("/retained/" + segment(topic)).then(() => ask(wish), (error) => detail.replaceChildren(failed(error)));
      }));
    } catch (error) {
      detail.replaceChildren(failed(error));
    }
    detail.scrollIntoView({ block: "nearest" });
  };
  view.replaceChildren(h("h1", {}, "Retained messages"), bar([field("Topic filter", { name: "filter", value: "#", required: true })], "Show", ask), detail, list);
  await ask(wish);
}

function message(topic, item, onremove) {
  const raw = item.payload_base64 !== undefined && item.payload_base64 !== null
    ? Uint8Array.from(atob(item.payload_base64), (each) => each.charCodeAt(0)) : new TextEncoder().encode(item.payload ?? "");
  const [shown, kind] = payload(raw);
  const pre = h("pre", { class: "code", tabindex: 0 }, shown[kind]);
  const choice = field("Shown as", { value: kind, onchange: (event) => (pre.textContent = shown[event.target.value]) },
    Object.keys(shown).map((name) => [name, name]));
  return panel(topic, h("div", { class: "bar" }, choice, h("button", { type: "button", class: "danger", onclick: onremove }, "Delete"),
    h("span", { class: "dim" }, `${bytes(raw.length)}, QoS ${show(item.qos)}`)), pre);
}

// What can be shown of a payload, and what is best.
export function payload(raw) {
  const part = raw.subarray(0, PAYLOAD_SHOWN);
  const cut = raw.length > part.length ? "\n… cut" : "";
  const hex = [...part].map((byte, at) => byte.toString(16).padStart(2, "0") + (at % 16 === 15 ? "\n" : " ")).join("") + cut;
  const shown = { hex };
  let kind = "hex";
  try {
    shown.text = new TextDecoder("utf-8", { fatal: true }).decode(raw).slice(0, PAYLOAD_SHOWN) + cut;
    kind = "text";
    shown.JSON = JSON.stringify(JSON.parse(shown.text), null, 2);
    kind = "JSON";
  } catch { /* not of that kind */ }
  return [shown, kind];
}

const TRACED = [
  ["When", (packet) => time(packet.at_ms), "time"], ["Client", (packet) => who(packet.client_id)],
  ["", (packet) => (packet.direction === "in" ? "→ in" : packet.direction === "out" ? "← out" : ""), "time"],
  ["Packet", (packet) => packet.packet ?? packet.kind], ["Topic", (packet) => packet.topic ?? (packet.filters ?? []).map((each) => each.filter ?? each).join(", "), "code"],
  ["QoS", (packet) => packet.qos, "num"],
  ["Payload", (packet) => [packet.payload ?? packet.payload_hex ?? "", packet.payload_is_cut ? " …" : ""].join("") || told(packet), "code"],
];
const told = (packet) => packet.reason ?? (packet.packet_id ? "id " + packet.packet_id : packet.kind === "lost" ? `${packet.packets} packets not shown` : "");

export async function trace(view, signal, rest) {
  const wish = asked(rest);
  const body = h("tbody"), said = h("span", { class: "dim", role: "status" }, "Not running.");
  let running, isPaused = false, waiting = [];
  const flush = () => {
    if (isPaused) return;
    body.prepend(...waiting.reverse().map((packet) => row(TRACED, packet)));
    waiting = [];
    while (body.children.length > ROWS_MAX) body.lastChild.remove();
  };
  const timer = setInterval(flush, 200);
  signal.addEventListener("abort", () => { clearInterval(timer); running?.abort(); });
  const stop = h("button", { type: "button", onclick: () => running?.abort() }, "Stop");
  const pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Continue" : "Pause";
    pause.setAttribute("aria-pressed", String(isPaused));
  } }, "Pause");
  const clear = h("button", { type: "button", onclick: () => { waiting = []; body.replaceChildren(); } }, "Clear");
  const start = async (values) => {
    running?.abort();
    const mine = (running = new AbortController());
    said.className = "dim";
    said.textContent = "Running.";
    try {
      await stream("/trace" + query(values), mine.signal, (packet) => {
        if (["begin", "end"].includes(packet.kind)) return;
        waiting.push(packet);
        if (waiting.length > ROWS_MAX) waiting.shift();
      });
      if (running === mine) said.textContent = "Ended: the time is over.";
    } catch (error) {
      if (running !== mine || signal.aborted) return;
      said.className = error.name === "AbortError" ? "dim" : "bad";
      said.textContent = error.name === "AbortError" ? "Stopped." : error.message + (error.hint ? " – " + error.hint : "");
    }
  };
  view.replaceChildren(h("h1", {}, "Trace"), bar([
    field("Client", { name: "client", value: wish.client ?? "", placeholder: "sensor-*" }), field("Topic filter", { name: "topic", value: wish.topic ?? "", placeholder: "home/#" }),
    field("For seconds", { name: "for_s", type: "number", min: 1, value: "60" }),
  ], "Start", start), h("div", { class: "bar" }, stop, pause, clear, said),
  h("div", { class: "panel" }, h("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": "Packets, the latest first" },
    h("table", {}, h("thead", {}, h("tr", {}, TRACED.map(([title, , kind]) => h("th", { class: kind, scope: "col" }, title)))), body)),
  h("p", { class: "dim" }, `The latest ${ROWS_MAX} packets, the newest first.`)));
  if (wish.client || wish.topic) start({ ...wish, for_s: "60" });
}

export async function drops(view, signal, rest) {
  const wish = { kind: "dropped,suppressed", ...asked(rest) };
  const list = h("div", { class: "panel" });
  const ask = ({ minutes, ...values }) => pages(list, "/events", { ...values, since_ms: minutes && Date.now() - minutes * 60000, limit: 100 },
    eventColumns(), "Nothing like that is remembered.", signal);
  view.replaceChildren(h("h1", {}, "Where did my message go?"), bar([
    field("Client", { name: "client", value: wish.client ?? "", placeholder: "receiver or publisher" }), field("Topic filter", { name: "topic", value: wish.topic ?? "", placeholder: "home/#" }),
    field("Reason", { name: "reason", value: wish.reason ?? "", placeholder: "queue_full" }),
    field("Events", { name: "kind", value: wish.kind }, [["dropped,suppressed", "dropped"], ["refused", "refused"], ["connected,disconnected,takeover", "connections"], ["", "all"]]),
    field("Within minutes", { name: "minutes", type: "number", min: 1 }),
  ], "Find", ask), list);
  await ask(wish);
}

export async function certificates(view, signal) {
  const list = h("div", { class: "panel" });
  const left = (item) => {
    const seconds = (item.not_after_ms - Date.now()) / 1000;
    return h("span", { class: seconds < 7 * 86400 ? "bad" : seconds < 30 * 86400 ? "warn" : "good" }, seconds < 0 ? "over" : duration(seconds));
  };
  const ask = (values) => pages(list, "/certificates", values, [
    ["Of", (item) => (item.client_id ? who(item.client_id) : item.listener ?? item.kind ?? item.what)], ["Subject", (item) => item.subject ?? item.name],
    ["Serial", (item) => item.serial, "code"], ["Ends", (item) => time(item.not_after_ms), "time"], ["Left", left, "num"],
  ], "No certificate ends in that time.", signal);
  view.replaceChildren(h("h1", {}, "Certificates"), bar([
    field("Ending within", { name: "within_days", value: "3650" }, [["7", "a week"], ["30", "a month"], ["365", "a year"], ["3650", "ten years"]]),
  ], "Show", ask), list);
  await ask({ within_days: "3650" });
}
