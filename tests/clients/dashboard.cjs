// Clicks through the dashboard in headless Chromium, over its DevTools protocol: dashboard.cjs URL TOKEN FOLDER [fake]
// Fails at any error in the console, any breach of the page's own policy and any page that is wider than its window. Writes a picture of
// each view, at 1280 and 390 pixels, light and dark. With `fake` the API is answered from here, with hostile names.
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const WebSocket = require("ws");

const [url, token, folder, fake] = process.argv.slice(2);
const HOSTILE = '<img src=x onerror="alert(1)">';
const VIEWS = ["overview", "clients", "backlog", "retained", "trace?client=*", "drops", "certificates", "tool"];
const profile = fs.mkdtempSync(path.join(os.tmpdir(), "motemq-chromium-"));
const chromium = spawn(process.env.CHROMIUM ?? "chromium",
  ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0", `--user-data-dir=${profile}`, "about:blank"],
  { stdio: ["ignore", "ignore", "pipe"] });
const problems = [];
const problem = (text) => { problems.push(text); console.error("PROBLEM " + text); };
const timeout = setTimeout(() => finish("it took too long"), 240000);

function finish(why) {
  clearTimeout(timeout);
  if (why) problem(why);
  chromium.on("exit", () => {
    fs.rmSync(profile, { recursive: true, force: true, maxRetries: 3 });
    process.exit(problems.length ? 1 : 0);
  });
  chromium.kill();
}

async function main() {
  const browser = await new Promise((resolve, reject) => {
    let said = "";
    chromium.on("exit", () => reject(new Error("chromium ended: " + said)));
    chromium.stderr.on("data", (data) => {
      said += data;
      const found = said.match(/ws:\/\/\S+/);
      if (found) resolve(found[0]);
    });
  });
  const socket = new WebSocket(browser, { perMessageDeflate: false, maxPayload: 1 << 28 });
  await new Promise((resolve, reject) => { socket.on("open", resolve); socket.on("error", reject); });
  let next = 0;
  let session;
  const waiting = new Map();
  const send = (method, params = {}) => new Promise((resolve, reject) => {
    waiting.set(++next, { resolve, reject });
    socket.send(JSON.stringify({ id: next, method, params, sessionId: session }));
  });
  const on = {
    "Runtime.exceptionThrown": ({ exceptionDetails: { text, exception } }) => problem("exception: " + (exception?.description ?? text)),
    "Runtime.consoleAPICalled": ({ type, args }) => ["error", "warning", "assert"].includes(type) && problem(`console.${type}: ` + args.map((each) => each.value ?? each.description).join(" ")),
    "Log.entryAdded": ({ entry }) => {
      // A wrong token is asked for on purpose, and so is a broker that is gone.
      if (["error", "warning"].includes(entry.level) && !(expected && /status of 401|ERR_CONNECTION_REFUSED/.test(entry.text))) problem(`${entry.source}: ${entry.text} ${entry.url ?? ""}`);
    },
    "Page.javascriptDialogOpening": ({ message }) => { problem("a script of a client ran: " + message); send("Page.handleJavaScriptDialog", { accept: true }); },
    "Fetch.requestPaused": (event) => answer(event),
  };
  let expected = false;
  let isGone = false;
  socket.on("message", (data) => {
    const { id, result, error, method, params } = JSON.parse(data);
    if (id) {
      const { resolve, reject } = waiting.get(id);
      waiting.delete(id);
      if (error) reject(new Error(error.message));
      else resolve(result);
    } else on[method]?.(params);
  });
  function answer({ requestId, request }) {
    if (isGone) return send("Fetch.failRequest", { requestId, errorReason: "ConnectionRefused" });
    const { pathname, searchParams } = new URL(request.url);
    const allowed = request.headers.Authorization === "Bearer " + token;
    const found = allowed ? fakes(request.method, pathname.slice("/api/v1".length), searchParams) : { status: 401, body: { code: "unauthorized", message: "the API asks for its token" } };
    send("Fetch.fulfillRequest", {
      requestId, responseCode: found.status ?? 200,
      responseHeaders: [{ name: "Content-Type", value: found.stream ? "text/event-stream" : "application/json" }],
      body: Buffer.from(found.stream ? found.stream.map((each) => `data: ${JSON.stringify(each)}\n\n`).join("") : found.body ? JSON.stringify(found.body) : "").toString("base64"),
    }).catch(() => {});
  }
  const { targetInfos } = await send("Target.getTargets");
  const page = targetInfos.find(({ type }) => type === "page").targetId;
  session = (await send("Target.attachToTarget", { targetId: page, flatten: true })).sessionId;
  for (const domain of ["Page", "Runtime", "Log"]) await send(domain + ".enable");
  if (fake) await send("Fetch.enable", { patterns: [{ urlPattern: "*/api/v1/*" }] });
  const run = async (expression) => {
    const { result, exceptionDetails } = await send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true, userGesture: true });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  };
  const until = async (expression, what) => {
    for (let round = 0; round < 150; round++) {
      if (await run(expression)) return;
      await new Promise((resume) => setTimeout(resume, 100));
    }
    problem(`${what}: not seen within 15 s: ${await run("document.querySelector('main').innerText.slice(0, 300)")}`);
  };
  const text = (part) => `document.body.innerText.includes(${JSON.stringify(part)})`;
  const button = (name) => `[...document.querySelectorAll("button, dialog button")].findLast((each) => each.textContent === ${JSON.stringify(name)})`;
  const look = async (width, scheme) => {
    await send("Emulation.setDeviceMetricsOverride", { width, height: width > 600 ? 800 : 844, deviceScaleFactor: 1, mobile: width < 600 });
    await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  };
  const picture = async (name) => {
    const { data } = await send("Page.captureScreenshot", { format: "png" });
    fs.writeFileSync(path.join(folder, name + ".png"), Buffer.from(data, "base64"));
  };
  const signIn = async (value) => {
    await until(`!!document.querySelector("input[name=token]")`, "the login");
    await run(`document.querySelector("input[name=token]").value = ${JSON.stringify(value)}; document.querySelector("form button").click()`);
  };
  const go = async (hash) => {
    await run(`location.hash = ${JSON.stringify("#/" + hash)}`);
    await until(`!${text("Loading …")} && !!document.querySelector("main h1")`, hash);
    const error = await run(`document.querySelector("main .state.bad")?.textContent ?? ""`);
    if (error) problem(`${hash}: ${error}`);
    const over = await run("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    if (over > 0) problem(`${hash}: the page is ${over} pixels wider than its window`);
  };

  await look(1280, "light");
  await send("Page.navigate", { url });
  expected = true;
  await signIn("wrong-token");
  await until(text("does not accept this token"), "a wrong token");
  await picture("login-1280-light");
  await signIn(token);
  await until(text("Connections"), "the overview");
  expected = false;
  for (const width of [1280, 390]) {
    for (const scheme of ["light", "dark"]) {
      await look(width, scheme);
      for (const view of VIEWS) {
        await go(view);
        if (view.startsWith("trace")) await until(`document.querySelectorAll("tbody tr").length > 0`, "traced packets");
        if (view === "overview") await new Promise((resume) => setTimeout(resume, fake ? 1500 : 3500));
        if (view === "retained") {
          await run(`document.querySelector("td button").click()`);
          await until(`!!document.querySelector("main pre")`, "a retained message");
        }
        if (view === "tool") await useTool();
        await picture(`${view.split("?")[0]}-${width}-${scheme}`);
      }
      await go("clients");
      await run(`document.querySelector("td a").click()`);
      await until(text("Bytes by layer"), "a client");
      await picture(`client-${width}-${scheme}`);
    }
  }
  async function useTool() {
    await until(text("Connected as"), "the MQTT connection");
    await run(`document.querySelector("input[name=filter]").value = "dash/#"; ${button("Subscribe")}.click()`);
    await until(text("Subscribed to dash/#"), "SUBACK");
    await run(`document.querySelector("input[name=topic]").value = ${JSON.stringify("dash/" + HOSTILE.replaceAll("/", ""))};
      document.querySelector("textarea").value = '{"payload": "<script>alert(1)</script>"}'; ${button("Publish")}.click()`);
    await until(`${text("Published, and acknowledged")} && document.querySelectorAll("tbody tr").length > 0`, "the message published");
  }
  // What is dangerous asks first, and can be left by the keyboard.
  await look(1280, "light");
  await go("clients");
  await run(`document.querySelector("td a").click()`);
  await until(`!!(${button("Purge session")})`, "a client");
  await run(`${button("Purge session")}.click()`);
  await until(`!!document.querySelector("dialog[open]")`, "the question");
  await picture("confirm-1280-light");
  for (const type of ["keyDown", "keyUp"]) await send("Input.dispatchKeyEvent", { type, key: "Escape", code: "Escape", windowsVirtualKeyCode: 27 });
  await until(`!document.querySelector("dialog")`, "the question's end");
  if (fake) {
    expected = isGone = true;
    await run(`location.hash = "#/backlog"`);
    await until(`!document.getElementById("gone").hidden && ${text("Retrying")}`, "that the broker is gone");
    await picture("gone-1280-light");
    isGone = false;
    await until(`document.getElementById("gone").hidden && document.querySelectorAll("tbody tr").length > 0`, "that the broker is back");
    expected = false;
  }
  await run(`document.getElementById("leave").click()`);
  await until(`!!document.querySelector("input[name=token]") && !sessionStorage.length`, "signing out");
}

function fakes(method, path, wish) {
  const now = Date.now();
  const item = (id, more) => ({ client_id: id, user: "meter", state: "connected", listener: "mqtts", peer: "10.0.3.17:50312", version: 5, connected_at_ms: now - 3.6e6, disconnected_at_ms: null,
    keep_alive_s: 300, session_expiry_s: 86400, subscriptions: 2, queue_messages: 12, queue_bytes: 40960, queue_oldest_ms: 90000, inflight: 1, ...more });
  const rate = () => ({ messages: 900 + 200 * Math.random(), bytes: 2e5 + 5e4 * Math.random() });
  const status = () => ({ version: "0.1.0", uptime_s: 93784, connections: 10432, sessions: 12001, rates: { in: rate(), out: rate() }, queue: { messages: 5120, bytes: 7340032, oldest_ms: 640000 },
    drops: { queue_full: 231, expired: 12, no_subscriber: 5021 }, memory: { used_bytes: 268435456, max_bytes: 1073741824 }, store: { bytes: 52428800, journal_bytes: 1048576 }, certificate_end_ms: now + 12 * 864e5 });
  const events = [["dropped", "queue_full", "sensor-0001", "home/kitchen/power"], ["dropped", "expired", HOSTILE, "a/" + HOSTILE], ["refused", "password", "intruder", undefined]]
    .map(([kind, reason, client_id, topic]) => ({ at_ms: now - 5000, kind, client_id, reason, topic, qos: topic && 1, publisher: topic && "gateway-7", peer: "10.0.3.17:50312", count: 3 }));
  const list = (items, next = null) => ({ body: { items, next } });
  const clients = [item(HOSTILE), ...Array.from({ length: 20 }, (_, at) => item(`sensor-${String(at).padStart(4, "0")}`, at % 3 ? {} : { state: "offline", peer: null, connected_at_ms: null, disconnected_at_ms: now - 9e6 }))];
  if (method !== "GET") return { status: 204 };
  if (path === "/status") return { body: status() };
  if (path === "/live") return { stream: Array.from({ length: 120 }, status) };
  if (path === "/bans") return list([]);
  if (path === "/clients") return list(clients, wish.get("after") ? null : "sensor-0019");
  if (path.startsWith("/clients/")) return { body: { ...item(decodeURIComponent(path.slice(9))), certificate: { subject: "CN=sensor-0001, O=Example", serial: "0a1b2c", not_after_ms: now + 40 * 864e5, fingerprint: "9f".repeat(32) },
    tls: { version: "1.3", is_resumed: true }, subscriptions: [{ filter: "home/+/power", qos: 1, no_local: false }, { filter: HOSTILE, qos: 0 }],
    bytes: { payload: { in: 10240, out: 300 }, mqtt: { in: 12000, out: 900 }, tls: { in: 14500, out: 1800 }, tcp: { in: 17000, out: 4000 } }, tcp: { rtt_us: 48200, rttvar_us: 3100, retransmits: 4, lost: 0 }, keep_alive_share: 0.42, events } };
  if (path === "/retained") return list([{ topic: "home/kitchen/state", payload_bytes: 42, qos: 1, publisher: "gateway-7", at_ms: now - 1e6 }, { topic: HOSTILE, payload_bytes: 7, qos: 0, publisher: HOSTILE, at_ms: now }]);
  if (path.startsWith("/retained/")) return { body: { topic: decodeURIComponent(path.slice(10)), qos: 1, payload_base64: Buffer.from('{"on":true,"w":41.5}').toString("base64") } };
  if (path === "/events") return list(events);
  if (path === "/certificates") return list([{ listener: "mqtts", subject: "CN=broker.example.org", serial: "01", not_after_ms: now + 12 * 864e5 }, { client_id: "sensor-0001", subject: "CN=sensor-0001", serial: "02", not_after_ms: now + 3 * 864e5 }]);
  if (path === "/trace") return { stream: [{ kind: "begin" }, ...Array.from({ length: 30 }, (_, at) => ({ kind: "packet", at_ms: now, client_id: at % 7 ? "sensor-0001" : HOSTILE, version: 5, direction: at % 2 ? "in" : "out", packet: at % 2 ? "PUBLISH" : "PUBACK", packet_id: at,
    ...(at % 2 && { qos: 1, topic: "home/kitchen/power", payload: '{"w":41.5}', payload_bytes: 10 }) })), { kind: "lost", packets: 4, at_ms: now }, { kind: "end" }] };
  return { status: 404, body: { code: "not_found", message: "there is no " + path } };
}

main().then(() => finish(), (error) => finish(error.stack));
