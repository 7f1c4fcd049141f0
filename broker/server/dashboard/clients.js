// Clients: the list, one of them, and the sessions with the longest queues.
import { get, query, remove, segment } from "./api.js";
import { ago, bar, bytes, confirmed, duration, facts, failed, field, h, link, loading, number, panel, show, state, table, time } from "./dom.js";
import { eventColumns } from "./messages.js";

const VERSIONS = { 3: "3.1", 4: "3.1.1", 5: "5" };
const version = (item) => VERSIONS[item.version] ?? item.version;
const name = (item) => link("/client/" + encodeURIComponent(item.client_id), item.client_id);
const online = (item) => h("span", { class: item.state === "connected" ? "good" : "dim" }, show(item.state));

const COLUMNS = [
  ["Client", name], ["User", (item) => item.user], ["State", online], ["Listener", (item) => item.listener], ["From", (item) => item.peer],
  ["MQTT", version], ["Since", (item) => time(item.connected_at_ms ?? item.disconnected_at_ms), "time"],
  ["Filters", (item) => number(item.subscriptions), "num"], ["Queued", (item) => number(item.queue_messages), "num"],
];
const BACKLOG = [
  ["Client", name], ["State", online], ["Queued", (item) => number(item.queue_messages), "num"], ["Size", (item) => bytes(item.queue_bytes), "num"],
  ["Oldest", (item) => age(item.queue_oldest_ms), "num"], ["In flight", (item) => number(item.inflight), "num"],
  ["Away for", (item) => (item.state === "connected" ? "" : ago(item.disconnected_at_ms)), "num"],
];
// A time or an age.
const age = (ms) => (ms > 1e12 ? ago(ms) : ms ? duration(ms / 1000) : "–");

// A list in pages below `place`: more come with a button.
export function pages(place, path, values, columns, nothing, signal) {
  const items = [];
  const more = async (after) => {
    try {
      const page = await get(path + query({ ...values, after }), signal);
      items.push(...page.items);
      place.replaceChildren(table(columns, items, nothing),
        h("div", { class: "bar" }, h("span", { class: "dim" }, `${items.length} shown`),
          page.next && h("button", { type: "button", onclick: () => more(page.next) }, "More")));
    } catch (error) {
      if (!signal.aborted) place.replaceChildren(failed(error));
    }
  };
  place.replaceChildren(loading());
  return more();
}

export async function clients(view, signal) {
  const list = h("div", { class: "panel" });
  const ask = (wish) => {
    const id = wish.id && !/[*?]/.test(wish.id) ? `*${wish.id}*` : wish.id;
    return pages(list, "/clients", { ...wish, id, limit: 100 }, COLUMNS, "No client is like that.", signal);
  };
  view.replaceChildren(h("h1", {}, "Clients"), bar([
    field("Client id", { name: "id", placeholder: "part of it, or sensor-*" }), field("User", { name: "user" }), field("Listener", { name: "listener" }),
    field("State", { name: "state", value: "" }, [["", "any"], ["connected", "connected"], ["offline", "offline"]]),
    field("Sort by", { name: "sort", value: "id" }, [["id", "client id"], ["queue_messages", "queue"]]),
  ], "Search", ask), list);
  await ask({ sort: "id" });
}

export async function backlog(view, signal) {
  const list = h("div", { class: "panel" });
  view.replaceChildren(h("h1", {}, "Backlog"), h("p", { class: "dim" }, "Sessions by what waits in their queues, the longest first."), list);
  await pages(list, "/clients", { sort: "queue_messages", limit: 100 }, BACKLOG, "No session waits for anything.", signal);
}

export async function client(view, signal, rest) {
  const id = decodeURIComponent(rest);
  const path = "/clients/" + segment(id);
  const item = await get(path, signal);
  const again = () => client(view, signal, rest);
  const said = h("p", { role: "status" });
  const order = (question, verb, target) => async () => {
    if (!(await confirmed(question, verb))) return;
    try {
      await remove(target);
      said.className = "good";
      said.textContent = verb + ": done.";
      setTimeout(() => !signal.aborted && again().catch((error) => view.replaceChildren(failed(error))), 700);
    } catch (error) {
      said.className = "bad";
      said.textContent = error.message;
    }
  };
  const { certificate, tls, tcp } = item;
  view.replaceChildren(h("p", {}, link("/clients", "← Clients")), h("h1", {}, id),
    h("div", { class: "bar" },
      item.state === "connected" && h("button", { type: "button", class: "danger", onclick: order(`End the connection of ${id}? It may connect again.`, "Kick", path + "/connection") }, "Kick"),
      h("button", { type: "button", class: "danger", onclick: order(`Remove the session of ${id}, with its subscriptions and ${number(item.queue_messages)} queued messages?`, "Purge", path) }, "Purge session"),
      h("a", { href: "#/trace?client=" + encodeURIComponent(id) }, "Trace"), h("a", { href: "#/drops?client=" + encodeURIComponent(id) }, "Drops")), said,
    h("div", { class: "grid wide" },
      panel("Connection", facts([
        ["State", online(item)], ["User", item.user], ["Listener", item.listener], ["From", item.peer], ["MQTT", version(item)],
        ["Connected", item.connected_at_ms && time(item.connected_at_ms)], ["Disconnected", item.disconnected_at_ms && time(item.disconnected_at_ms)],
        ["Keep alive", item.keep_alive_s && duration(item.keep_alive_s)],
        ["Silence used", item.keep_alive_share !== undefined && item.keep_alive_share !== null ? Math.round(item.keep_alive_share * 100) + " % of the keep alive" : null],
        ["Session expiry", item.session_expiry_s === 0 ? "with the connection" : item.session_expiry_s >= 4294967295 ? "never" : item.session_expiry_s && duration(item.session_expiry_s)],
      ])),
      panel("Queue", facts([["Messages", number(item.queue_messages)], ["Size", bytes(item.queue_bytes)], ["Oldest", age(item.queue_oldest_ms)], ["In flight", number(item.inflight)]])),
      panel("Certificate", certificate ? facts([["Subject", certificate.subject], ["Serial", certificate.serial], ["Ends", time(certificate.not_after_ms)], ["Fingerprint", certificate.fingerprint],
        ["TLS", tls && `${tls.version ?? ""} ${tls.is_resumed ? "(resumed)" : ""}`]]) : h("p", { class: "dim" }, tls ? `TLS ${tls.version}, no certificate.` : "None shown.")),
      panel("Bytes by layer", layers(item.bytes)),
      panel("TCP", tcp ? facts([["Round trip", tcp.rtt_us !== undefined && `${(tcp.rtt_us / 1000).toFixed(1)} ms ± ${((tcp.rttvar_us ?? 0) / 1000).toFixed(1)}`],
        ["Retransmits", number(tcp.retransmits)], ["Lost", number(tcp.lost)]]) : h("p", { class: "dim" }, "Not known."))),
    panel("Subscriptions", table([["Filter", (each) => each.filter ?? each, "code"], ["QoS", (each) => each.qos, "num"],
      ["Options", (each) => Object.entries(each).filter(([key, value]) => !["filter", "qos"].includes(key) && value !== false && value !== null).map(([key, value]) => `${key.replaceAll("_", " ")}: ${value}`).join(", ")]],
    Array.isArray(item.subscriptions) ? item.subscriptions : [], "It subscribes to nothing.")),
    panel("Latest events", table(eventColumns(), item.events ?? [], "Nothing is remembered of it.")));
}

function layers(layers) {
  const known = Object.entries(layers ?? {}).filter(([, value]) => value);
  if (!known.length) return state("Not measured.");
  return table([["Layer", ([layer]) => layer], ["In", ([, value]) => bytes(value.in), "num"], ["Out", ([, value]) => bytes(value.out), "num"]], known);
}
