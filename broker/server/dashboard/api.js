// Asks the API of the broker that served this page. The token is kept for this tab alone.
const KEY = "motemq.token";
export const token = () => sessionStorage.getItem(KEY) ?? "";
export const setToken = (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY));

// Who is told about a token that is refused, and about a broker that is gone or back.
export const heard = { refused() {}, gone() {}, back() {} };

export class ApiError extends Error {
  constructor(status, body) {
    super(body?.message ?? `the broker answered with status ${status}`);
    this.status = status;
    this.code = body?.code;
    this.hint = body?.hint;
  }
}

export const segment = (text) => encodeURIComponent(text).replace(/\./g, "%2E");
export function query(values) {
  const wanted = Object.entries(values).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return wanted.length ? "?" + new URLSearchParams(wanted) : "";
}

async function send(method, path, body, signal) {
  let response;
  try {
    response = await fetch("/api/v1" + path, {
      method, signal, cache: "no-store",
      headers: { Authorization: "Bearer " + token(), ...(body && { "Content-Type": "application/json" }) },
      body: body && JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    heard.gone();
    throw new ApiError(0, { code: "gone", message: "the broker does not answer", hint: "this page asks again by itself" });
  }
  heard.back();
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  const error = new ApiError(response.status, answer);
  if (response.status === 401) heard.refused(error);
  throw error;
}

async function json(method, path, body, signal) {
  const response = await send(method, path, body, signal);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}
export const get = (path, signal) => json("GET", path, undefined, signal);
export const post = (path, body) => json("POST", path, body);
export const remove = (path) => json("DELETE", path);

// Server-sent events; EventSource cannot send the token.
export async function stream(path, signal, onevent) {
  const response = await send("GET", path, undefined, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length) onevent(JSON.parse(data.join("\n")));
    }
  }
}
