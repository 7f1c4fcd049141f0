// The page: signing in, the views by hash, and what to say while the broker is gone.
import { get, heard, setToken, token } from "./api.js";
import { failed, field, h, loading } from "./dom.js";
import { overview } from "./overview.js";
import { backlog, client, clients } from "./clients.js";
import { certificates, drops, retained, trace } from "./messages.js";
import { tool } from "./tool.js";

const VIEWS = [
  ["overview", "Overview", overview], ["clients", "Clients", clients], ["backlog", "Backlog", backlog],
  ["retained", "Retained", retained], ["trace", "Trace", trace], ["drops", "Drops", drops],
  ["certificates", "Certificates", certificates], ["tool", "Publish", tool],
];
const [main, nav, leave, gone] = ["main", "nav", "leave", "gone"].map((id) => document.getElementById(id));
let running = new AbortController();
let isGone = false;

heard.refused = () => signIn("The broker does not accept this token.");
heard.gone = () => {
  isGone = true;
  gone.hidden = false;
  gone.textContent = "The broker does not answer. Retrying …";
};
heard.back = () => {
  gone.hidden = true;
};
leave.addEventListener("click", () => signIn(""));
addEventListener("hashchange", () => open());
// A view that failed while the broker was gone is drawn again when it is back.
setInterval(async () => {
  if (!isGone || !token()) return;
  try {
    await get("/bans?kind=login");
    isGone = false;
    open();
  } catch { /* still gone */ }
}, 2000);

function open() {
  running.abort();
  if (!token()) return signIn("");
  running = new AbortController();
  const { signal } = running;
  const [, path, rest] = location.hash.match(/^#\/?([^/?]*)(?:[/?](.*))?$/) ?? [];
  const known = VIEWS.find(([name]) => name === path) ?? (path === "client" ? VIEWS[1] : VIEWS[0]);
  nav.hidden = leave.hidden = false;
  nav.replaceChildren(...VIEWS.map(([name, title]) =>
    h("a", { href: "#/" + name, "aria-current": name === known[0] ? "page" : null }, title)));
  nav.querySelector("[aria-current]").scrollIntoView?.({ block: "nearest", inline: "center" });
  document.title = known[1] + " – MoteMQ";
  const view = h("div", {}, loading());
  main.replaceChildren(view);
  const show = path === "client" ? client : known[2];
  Promise.resolve(show(view, signal, rest ?? "")).catch((error) => {
    if (!signal.aborted) view.replaceChildren(failed(error));
  });
}

function signIn(message) {
  running.abort();
  setToken("");
  nav.hidden = leave.hidden = true;
  gone.hidden = true;
  document.title = "Sign in – MoteMQ";
  const said = h("p", { class: "bad", role: "alert" }, message);
  const submit = async (event) => {
    event.preventDefault();
    const value = new FormData(event.target).get("token").trim();
    if (!/^[\x21-\x7e]+$/.test(value)) return said.replaceChildren("That is no token.");
    setToken(value);
    try {
      await get("/bans?kind=login");
      open();
    } catch (error) {
      if (error.status !== 401) said.replaceChildren(error.message);
    }
  };
  main.replaceChildren(h("section", { class: "panel login" }, h("h1", {}, "Sign in"),
    h("form", { onsubmit: submit },
      field("Token of the API", { name: "token", type: "password", required: true, autofocus: true }),
      said, h("button", { class: "main" }, "Sign in"),
      h("p", { class: "dim" }, "The token is in the file api.token of the broker's data folder. It is kept in this tab only."))));
  main.querySelector("input").focus();
}

open();
