// Rates, connections, queues, memory, drops, store and health, once a second.
import { get, stream } from "./api.js";
import { bytes, chart, duration, facts, failed, h, number, panel, table, tile, time } from "./dom.js";

const POINTS = 300;
const history = { messages: [], bytes: [] };

export async function overview(view, signal) {
  show(view, await get("/status", signal));
  let pause = 1000;
  while (!signal.aborted) {
    try {
      await stream("/live", signal, (status) => {
        pause = 1000;
        show(view, status);
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error.status && error.status !== 503) return view.append(failed(error));
    }
    await new Promise((resume) => setTimeout(resume, pause));
    pause = Math.min(pause * 2, 10000);
  }
}

function note(points, point) {
  points.push(point);
  if (points.length > POINTS) points.shift();
}

// A number under one of several names: `a.b` is b of a.
function pick(object, ...names) {
  for (const name of names) {
    const value = name.split(".").reduce((part, key) => part?.[key], object);
    if (value !== undefined && value !== null && typeof value !== "object") return value;
  }
  return undefined;
}

function show(view, status) {
  const rate = (direction, what) => Number(pick(status, `rates.${direction}.${what}`, `rates.${direction}.${what}_per_s`,
    `rates.${what}_${direction}`, `rates.${what}_${direction}_per_s`, `rates.${direction}`) ?? 0);
  const messages = [rate("in", "messages"), rate("out", "messages")];
  const traffic = [rate("in", "bytes"), rate("out", "bytes")];
  note(history.messages, messages);
  note(history.bytes, traffic);
  const health = pick(status, "health", "health.state", "health.status", "store.room", "store.state") ?? "answers";
  const isWell = ["ok", "ready", "open", "answers", "healthy"].includes(health);
  const used = pick(status, "memory.used_bytes", "memory.bytes", "memory_bytes");
  const max = pick(status, "memory.max_bytes", "memory.bytes_max", "memory_bytes_max");
  const oldest = pick(status, "queue.oldest_ms", "queue_oldest_ms");
  const ends = pick(status, "certificate_end_ms", "certificate.not_after_ms", "certificates.first_end_ms", "certificate_not_after_ms");
  const drops = Object.entries(status.drops ?? {}).map(([reason, count]) => (
    typeof count === "object" ? { reason: count.reason ?? reason, count: count.count ?? 0 } : { reason, count })).filter(({ count }) => count > 0);
  drops.sort((a, b) => b.count - a.count);
  const store = typeof status.store === "object" && status.store
    ? Object.entries(status.store).map(([key, value]) => [key.replace(/_(bytes|ms|s)$/, "").replaceAll("_", " "), unit(key, value)]) : [];
  const scroll = scrollY;
  view.replaceChildren(h("h1", {}, "Overview"),
    h("div", { class: "grid" },
      tile("Health", health, status.version && "version " + status.version, isWell ? "good" : "bad"),
      tile("Connections", number(pick(status, "connections", "connections.connected", "connections.open"))),
      tile("Sessions", number(pick(status, "sessions", "sessions.total", "sessions.all"))),
      tile("Queued messages", number(pick(status, "queue.messages", "queue_messages")),
        oldest ? "oldest " + duration(oldest > 1e12 ? (Date.now() - oldest) / 1000 : oldest / 1000) : bytes(pick(status, "queue.bytes", "queue_bytes"))),
      tile("Memory", bytes(used), max ? "of " + bytes(max) : null, max && used > 0.85 * max ? "warn" : ""),
      tile("Running for", duration(status.uptime_s)),
      ends && tile("First certificate ends", time(ends).slice(0, 10), "in " + duration((ends - Date.now()) / 1000), ends - Date.now() < 30 * 864e5 ? "warn" : "")),
    h("div", { class: "grid wide" }, rates("Messages per second", history.messages, messages, number),
      rates("Bytes per second", history.bytes, traffic, bytes)),
    h("div", { class: "grid wide" },
      panel("Dropped since the start, by reason",
        table([["Reason", ({ reason }) => h("a", { href: "#/drops?reason=" + encodeURIComponent(reason) }, reason)], ["Messages", ({ count }) => number(count), "num"]],
          drops, "Nothing was dropped.")),
      panel("Store", store.length ? facts(store) : h("p", { class: "dim" }, "No store: everything is in memory."))));
  scrollTo(0, scroll);
}

function unit(key, value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return typeof value === "object" ? JSON.stringify(value) : value;
  if (key.endsWith("_bytes") || key === "bytes") return bytes(value);
  if (key.endsWith("_s")) return duration(value);
  if (key.endsWith("_ms") && value > 1e12) return time(value);
  return number(value) + (key.endsWith("_ms") ? " ms" : "");
}

function rates(title, points, [into, out], shown) {
  const max = Math.max(0, ...points.flat());
  return panel(title, h("div", { class: "bar" },
    h("span", { class: "key in" }, `— in ${shown(into)}`), h("span", { class: "key out" }, `- - out ${shown(out)}`),
    h("span", { class: "dim" }, `top ${shown(max)}, last ${duration(points.length)}`)),
  chart(points, `${title}: in ${shown(into)}, out ${shown(out)}`));
}
