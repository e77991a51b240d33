// The service's public API, asked as any client asks it. What is refused comes as `Refused` with the service's sentence.

const TOKEN = document.querySelector('meta[name="adiabat-token"]').content;
const RETRY_MS = [1000, 2000, 4000, 8000];

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `The service answered ${status}.`);
    this.status = status;
    this.slug = (problem.type ?? "").split(":").pop();
    this.problem = problem;
  }
}

/** The service did not answer at all. */
export class Unreachable extends Error {
  constructor() { super("The service does not answer."); }
}

export async function call(method, path, { json, body, type, headers = {}, signal } = {}) {
  const sent = { ...headers, "X-Adiabat-Token": TOKEN };
  if (json !== undefined) { body = JSON.stringify(json); type = "application/json"; }
  if (type) sent["Content-Type"] = type;
  let answer;
  try {
    answer = await fetch(path, { method, body, headers: sent, signal, redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    lost();
    throw new Unreachable();
  }
  const text = await answer.text();
  let read = null;
  try { read = text ? JSON.parse(text) : null; } catch { read = text; }
  if (!answer.ok) {
    if (answer.status === 401) signedOut();
    throw new Refused(answer.status, read && typeof read === "object" ? read : {});
  }
  return { data: read, headers: answer.headers, status: answer.status };
}

export const get = async (path, options) => (await call("GET", path, options)).data;
export const post = async (path, json, options) => (await call("POST", path, { json, ...options })).data;
export const remove = (path) => call("DELETE", path);

/** Name, version, and the ETag that a switch must carry. */
export async function active() {
  const { data, headers } = await call("GET", "/active-encoder");
  return { ...data, etag: headers.get("etag") };
}

export const keyOf = (encoder) => `${encoder.name}@${encoder.version}`;
export const filterOf = (lang) => ({ must: [{ key: "lang", match: { value: lang } }] });

// ------- when the service is away: say so, ask again, lose nothing

const banner = document.getElementById("banner");
let waiting = null;
const back = new Set();

/** Called once the service answers again. */
export const onReturn = (listener) => back.add(listener);

export function lost() {
  if (waiting) return;
  show("The service does not answer. What you typed stays here; trying again …", "Try now", () => waiting?.now());
  let tries = 0;
  const look = async () => {
    clearTimeout(waiting.timer);
    const found = await fetch("/health/live").then((answer) => answer.ok, () => false);
    if (!waiting) return;
    if (found) {
      waiting = null;
      show("The service is back.");
      setTimeout(() => { if (!waiting) banner.hidden = true; }, 2500);
      for (const listener of back) listener();
      return;
    }
    waiting.timer = setTimeout(look, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
  };
  waiting = { now: look, timer: setTimeout(look, RETRY_MS[0]) };
}

function signedOut() {
  const next = encodeURIComponent(location.pathname + location.search);
  show("You are signed out. What you typed stays here.", "Sign in", () => { location.href = `/console/login?next=${next}`; });
}

function show(sentence, label, act) {
  const button = document.createElement("button");
  button.textContent = label ?? "";
  button.addEventListener("click", () => act());
  banner.replaceChildren(document.createTextNode(sentence), ...(label ? [button] : []));
  banner.hidden = false;
}
