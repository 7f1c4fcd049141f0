// Publish and subscribe, as a client of this broker over WebSocket.
import { token } from "./api.js";
import { bar, field, h, panel, row, time } from "./dom.js";
import { MqttClient } from "./mqtt.js";
import { payload } from "./messages.js";

const ROWS_MAX = 200;
const COLUMNS = [
  ["When", (message) => time(message.at), "time"], ["Topic", (message) => message.topic, "code"], ["QoS", (message) => message.qos, "num"],
  ["", (message) => (message.isRetained ? "retained" : "")],
  ["Payload", (message) => { const [shown, kind] = payload(message.payload); return h("pre", {}, shown[kind]); }, "code"],
];

export async function tool(view, signal) {
  const connection = h("p", { class: "dim", role: "status" }), said = h("p", { role: "status" }), filters = h("div", { class: "bar" });
  const body = h("tbody");
  let isNeeded = true, client, pause = 1000;
  const wanted = new Map();
  const say = (text, kind) => { said.className = kind; said.textContent = text; };
  const on = {
    message(message) {
      body.prepend(row(COLUMNS, { ...message, at: Date.now() }));
      while (body.children.length > ROWS_MAX) body.lastChild.remove();
    },
    closed(why) {
      if (!isNeeded) return;
      connection.className = "bad";
      connection.textContent = `Not connected: ${why}. Trying again …`;
      setTimeout(() => isNeeded && connect(), pause);
      pause = Math.min(pause * 2, 10000);
    },
  };
  const connect = () => {
    const url = new URL("/mqtt", location.href);
    url.protocol = location.protocol.replace("http", "ws");
    client = new MqttClient(url.href, token(), on);
    client.opened.then(async () => {
      pause = 1000;
      connection.className = "good";
      connection.textContent = "Connected as " + (client.clientId ?? "dashboard") + ".";
      for (const [filter, qos] of wanted) await client.subscribe(filter, qos);
    }).catch(() => {});
  };
  signal.addEventListener("abort", () => { isNeeded = false; client?.close(); });
  const show = () => filters.replaceChildren(...[...wanted.keys()].map((filter) =>
    h("button", { type: "button", "aria-label": "Unsubscribe from " + filter, onclick: () => { wanted.delete(filter); client.unsubscribe(filter).catch(() => {}); show(); } }, filter + " ✕")));
  const subscribe = async ({ filter, qos }) => {
    try {
      await client.subscribe(filter, Number(qos));
      wanted.set(filter, Number(qos));
      show();
      say(`Subscribed to ${filter}.`, "good");
    } catch (error) { say(`Not subscribed: ${error.message}`, "bad"); }
  };
  const publish = async ({ topic, payload: text, qos, retain }) => {
    try {
      const codes = await client.publish({ topic, payload: text, qos: Number(qos), retain: retain === "on" });
      say(codes[0] === 16 ? "Taken; nobody subscribes to that topic." : Number(qos) ? "Published, and acknowledged." : "Sent.", "good");
    } catch (error) { say(`Not published: ${error.message}`, "bad"); }
  };
  const qos = () => field("QoS", { name: "qos", value: "1" }, [["0", "0"], ["1", "1"]]);
  view.replaceChildren(h("h1", {}, "Publish and subscribe"), connection,
    h("div", { class: "grid wide" },
      panel("Publish", bar([field("Topic", { name: "topic", required: true }), qos(), field("Retain", { name: "retain", type: "checkbox" }),
        h("label", { class: "whole" }, "Payload", h("textarea", { name: "payload", spellcheck: "false" }))], "Publish", publish)),
      panel("Subscribe", bar([field("Topic filter", { name: "filter", value: "#", required: true }), qos()], "Subscribe", subscribe), filters)),
    said, panel("Messages", h("div", { class: "bar" }, h("button", { type: "button", onclick: () => body.replaceChildren() }, "Clear"), h("span", { class: "dim" }, `the latest ${ROWS_MAX}`)),
      h("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": "Messages, the latest first" },
        h("table", {}, h("thead", {}, h("tr", {}, COLUMNS.map(([title, , kind]) => h("th", { class: kind, scope: "col" }, title)))), body))));
  connect();
}
