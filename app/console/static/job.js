// A tuning, live: what the service tells of it as server-sent events, drawn as it comes, and what came of it.

import { get, keyOf, lost, onReturn, post } from "./api.js";
import { lines } from "./charts.js";
import { $, h, put } from "./dom.js";
import { moment, number, seconds, signed, tiny } from "./format.js";
import { drifts, gained, matrix, setsOf, verdict } from "./figures.js";
import { rates, recipe, tradeOff, weights } from "./recipe.js";
import { confirm, onActive, page, seen, toast } from "./shell.js";
import { chip, ENDED } from "./status.js";
import { activate } from "./switching.js";

const place = $("page");
const { id } = place.dataset;
const path = `/tuning-jobs/${encodeURIComponent(id)}`;
const MOST = 600; // points of a curve; more are thinned
const LOG_MOST = 500;
const LOOK_MS = 5000;

let job = null;
let source = null;
let heard = 0;
let draws = null;
let timer = 0;
let looking = false;
const told = { loss: [], during: [], before: null, after: null, phase: "", eta: null, trainer: null, step: 0, steps: 0, log: [] };

async function load() {
  job = await get(path);
  document.title = `${job.name} · Adiabat`;
  frame();
  if (!source) follow();
}

const waits = () => ["queued", "preparing"].includes(job.status);

/** Why nothing happens yet: whoever looks at a job that waits wants to know for whom. */
async function wait() {
  if (!waits()) told.trainer = null;
  if (looking || !waits()) return;
  looking = true;
  told.trainer = (await get("/health/ready").catch(() => null))?.trainer ?? null;
  draw();
  setTimeout(() => { looking = false; wait(); }, LOOK_MS);
}

// ------- the page

const curves = h("div.grid.two");
const state = h("section.panel");
const log = h("ol.log", { tabindex: "0", "aria-label": "What happened" });
const outcome = h("div");
const given = h("div");

function frame() {
  head();
  if (!draws) {
    const [loss, dev, guards, drift] = [h("div"), h("div"), h("div"), h("div")];
    curves.append(h("section.panel", h("h2", "Loss"), h("p.quiet", "Of each step's questions; it jumps about, and should fall."), loss), h("section.panel", h("h2", "Dev"), h("p.quiet", "MRR@10 on the half that choices are made by; a line ends with what is kept of the step."), dev));
    if (job.guards.length) curves.append(h("section.panel", h("h2", "Guards"), h("p.quiet", "MRR@10 of each; a line begins with the base and ends with what is kept."), guards), h("section.panel", h("h2", "Drift"), h("p.quiet", "How far each guard's questions have moved from the base; the end of a line is of the prove half."), drift));
    draws = { loss: lines(loss, { title: "Loss by step" }), dev: lines(dev, { title: "MRR@10 of dev by step" }), guards: lines(guards, { title: "MRR@10 of each guard by step" }), drift: lines(drift, { title: "Drift of each guard by step" }) };
  }
  if (!state.isConnected) put(place, state, outcome, curves, given, h("section.panel", h("h2", "What happened"), log));
  put(given, recipe(job.recipe, job.result?.chosen), h("div.grid", h("section.panel", h("h2", "Asked for"), h("dl.facts",
    h("dt", "dataset"), h("dd", job.dataset), h("dt", "parent"), h("dd", job.parent), h("dt", "guards"), h("dd", job.guards.join(", ") || "none"),
    Object.entries(job.gate).map(([name, value]) => [h("dt", name.replaceAll("_", " ")), h("dd", value === null ? "–" : String(value))]),
    h("dt", "when it passes"), h("dd", job.activate === "never" ? "is registered" : "is switched to"), job.activation && [h("dt", "activation"), h("dd", job.activation)],
    h("dt", "started"), h("dd", moment(job.created_at)), job.finished_at && [h("dt", "ended"), h("dd", moment(job.finished_at))])), job.result && weights(job.result)));
  draw();
  ended();
}

function head() {
  if (!job) return;
  wait();
  const now = seen();
  const active = now && job.encoder && keyOf(now.encoder) === keyOf(job.encoder);
  put($("name"), job.name, " ", chip(job.status), active && [" ", h("span.chip.on", "active")]);
  const running = !ENDED.has(job.status);
  put($("actions"),
    running && job.status !== "cancelling" && h("button", { type: "button", needs: "write", onclick: cancel }, "Cancel"),
    job.status === "interrupted" && h("button.primary", { type: "button", needs: "write", onclick: resume }, "Resume"),
    job.status === "interrupted" && h("button", { type: "button", needs: "write", onclick: cancel }, "Give up"),
    job.encoder && h("a.button", { href: `/console/encoders/${encodeURIComponent(keyOf(job.encoder))}` }, "See its card"),
    job.encoder && h("a.button", { href: `/?${new URLSearchParams({ encoder: keyOf(job.encoder), compare: "base@1" })}` }, "Compare in search"),
    job.encoder && !active && h("button.primary", { type: "button", needs: "admin", onclick: () => activate({ ...job.encoder, state: job.status === "rejected" ? "rejected" : "ready" }, run) }, "Switch to it"));
}

function ended() {
  if (!ENDED.has(job.status)) { put(outcome); return; }
  const found = job.result;
  const broken = job.status === "rejected" && h("section.panel", h("h2", "Why it was rejected"), h("p", "It is registered and kept, and never becomes active by itself."), missed(found));
  put(outcome, broken, !found && job.reason && h("p.problem", job.reason), found && [h("div.grid.two", gained(found, job.gate.max_guard_loss), verdict(found), tradeOff(found), drifts(found)), matrix(found), rates(found)]);
}

/** Each rule that was broken, what was asked, what was shown, and by how much it fell short. */
function missed(found) {
  const { min_gain, max_guard_loss, max_drift } = job.gate;
  const [dev, ...guards] = setsOf(found);
  const rules = [{ name: "dev gains", asked: min_gain, shown: dev?.at_least, short: min_gain - dev?.at_least, digits: signed },
    ...guards.map((each) => ({ name: `${each.name} keeps`, asked: -max_guard_loss, shown: each.at_least, short: -max_guard_loss - each.at_least, digits: signed })),
    ...(max_drift === null || max_drift === undefined ? [] : guards.map((each) => ({ name: `${each.name} drifts`, asked: max_drift, shown: each.drift, short: each.drift - max_drift, digits: tiny })))];
  const broken = rules.filter((rule) => rule.short > 0);
  return h("ul.reasons", broken.map((rule) => h("li", h("span.down", { "aria-hidden": "true" }, "✗"), h("span", h("b", rule.name), ` at least ${rule.digits(rule.asked)} was asked, ${rule.digits(rule.shown)} could be shown: short by `.replace("drifts at least", "drifts"), h("b.down.figures", rule.digits === tiny ? tiny(rule.short) : number(rule.short, 4)), "."))));
}

// ------- what comes

function draw() {
  const share = told.steps ? told.step / told.steps : 0;
  const running = !ENDED.has(job.status);
  put(state, h("div.overlap", { style: { "margin-bottom": ".5rem" } },
    h("div", h("b", { id: "phase" }, running ? told.phase || job.status : job.status)),
    waits() && told.trainer && h("span.quiet", { id: "trainer" }, `trainer: ${told.trainer}`),
    told.steps ? h("div", h("b.figures", `${number(told.step)} / ${number(told.steps)}`), h("span.quiet", "steps")) : null,
    running && told.eta !== null && h("div", h("b.figures", seconds(told.eta)), h("span.quiet", "left")),
    job.encoder && h("div", h("span.quiet", "made"), h("b", keyOf(job.encoder)))),
    h("div.progress", { role: "progressbar", "aria-label": "Steps done", "aria-valuenow": Math.round(100 * share), "aria-valuemin": 0, "aria-valuemax": 100 }, h("i", { style: { width: `${100 * (job.status === "succeeded" || job.status === "rejected" ? 1 : share)}%` } })));
  draws.loss([{ name: "loss", colour: 1, points: thinned(told.loss) }]);
  const base = told.before;
  const last = Math.max(told.steps, 1); // what is kept of the step is measured after it, where a line ends
  const at = (read) => [...(base ? [[0, read(base)]] : []), ...told.during.map((look) => [look.step, read(look)]), ...(told.after ? [[last, read(told.after)]] : [])].filter(([, value]) => value !== undefined);
  draws.dev([{ name: "dev", colour: 1, points: at((look) => look.dev) }]);
  draws.guards(job.guards.map((name, place) => ({ name, colour: (place % 8) + 1, dashed: place > 7, points: at((look) => look.guards[name]) })));
  draws.drift(job.guards.map((name, place) => ({ name, colour: (place % 8) + 1, dashed: place > 7, digits: 5, points: [...(base ? [[0, 0]] : []), ...told.during.filter((look) => look.drift?.[name] !== undefined).map((look) => [look.step, look.drift[name]]), ...(job.result?.guards[name] ? [[last, job.result.guards[name].drift]] : [])] })),
    { zero: true, limit: job.recipe.drift_budget ? { y: job.recipe.drift_budget, text: "drift budget" } : undefined });
}

const thinned = (points) => (points.length <= MOST ? points : points.filter((_, place) => place % Math.ceil(points.length / MOST) === 0 || place === points.length - 1));

const HEAR = {
  status(data) { job.status = data.status; told.eta = null; note(data.reason?.startsWith(data.status) ? data.reason : data.reason ? `${data.status}: ${data.reason}` : data.status); head(); },
  progress(data) {
    if (told.phase !== data.phase) {
      note(data.phase);
      if (data.phase?.startsWith("tuning")) { told.loss = []; told.during = []; told.after = null; } // another tuning of a search begins
    }
    Object.assign(told, { phase: data.phase ?? "", eta: data.eta_s ?? null, step: data.step ?? told.step, steps: data.steps ?? told.steps });
    if (data.loss !== undefined && data.step) told.loss.push([data.step, data.loss]);
  },
  measured(data) {
    if (data.half !== "choose") return;
    if (data.when === "before") told.before = data;
    if (data.when === "during") told.during.push(data);
    if (data.when === "after") told.after = data;
  },
  log(data) { note(data.message); },
  end(data) { job.status = data.status; note(data.encoder ? `${data.status}: ${data.encoder}` : data.status); settle(); },
};

function note(sentence) {
  if (!sentence) return;
  told.log.push(sentence);
  log.append(h("li", h("time.quiet.figures", new Date(told.at * 1000).toLocaleTimeString("en", { hour12: false })), h("span", { dir: "auto" }, sentence)));
  if (log.childElementCount > LOG_MOST) log.firstChild.remove();
  log.scrollTop = log.scrollHeight;
}

function follow() {
  source?.close();
  source = new EventSource(`${path}/events?after=${heard}`);
  for (const kind of Object.keys(HEAR)) {
    source.addEventListener(kind, (event) => {
      const said = JSON.parse(event.data);
      if (said.sequence <= heard) return; // the browser may ask again from where it began
      heard = said.sequence;
      told.at = said.at;
      HEAR[kind](said.data);
      timer ||= requestAnimationFrame(() => { timer = 0; draw(); });
    });
  }
  source.onerror = () => {
    if (ENDED.has(job.status)) { source.close(); return; }
    fetch("/health/live").catch(() => lost());
  };
}

/** The end is told before its result is read. */
async function settle() {
  source?.close();
  source = null;
  try {
    job = await get(path);
    frame();
  } catch (error) { toast(error.message, "bad"); }
}

function cancel() {
  return confirm({
    title: `Cancel the tuning of ${job.name}?`,
    says: ["It ends within one step and leaves no encoder. The active encoder goes on as it is."],
    label: "Cancel the tuning", danger: true,
    act: async () => { job = await post(`${path}/cancel`); frame(); if (ENDED.has(job.status)) settle(); },
  });
}

async function resume() {
  try {
    job = await post(`${path}/resume`);
    frame();
    follow();
  } catch (error) { toast(error.message, "bad"); }
}

onActive(head);
const run = page(place, load);
onReturn(() => { if (job && !ENDED.has(job.status)) { follow(); get(path).then((found) => { job = found; frame(); }, () => {}); } });
addEventListener("pagehide", () => source?.close());
