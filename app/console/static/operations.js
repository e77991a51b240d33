// How the service does now: from its own figures, two looks apart, and the history of generations.

import { call, get } from "./api.js";
import { lines } from "./charts.js";
import { auditLog } from "./audit.js";
import { $, h, may, put, table } from "./dom.js";
import { continuous, experiments } from "./experiments.js";
import { bytes, moment, ms, number, seconds } from "./format.js";
import { behind, several, spread } from "./replicas.js";
import { routes as encoderRoutes } from "./routes.js";
import { look as lookAgain, page, onActive, seen } from "./shell.js";
import { rollBack, wayBack } from "./switching.js";

const LOOK_MS = 5000; // the figures are some 60 KB
const LOOKS = 120; // ten minutes
const place = $("page");
const SELDOM = 12; // looks: what was judged is counted anew
const [audit, tried, standing, routed] = [auditLog(), experiments(), continuous(), encoderRoutes()];
const [now, charts, history, routes, health] = [h("div.tiles"), h("div.grid"), h("section.panel"), h("section.panel"), h("section.panel")];
const replicas = h("section.panel", { id: "replicas", hidden: true });
let [last, timer, draw, looks] = [null, 0, null, 0];
let toldOfGenerations;
const generations = new Promise((resolve) => { toldOfGenerations = resolve; });
const waited = new Promise((resolve) => setTimeout(resolve, 2000)); // the page comes all the same
const series = { qps: [], p50: [], p99: [] };

/** Prometheus' text: {name: [{labels, value}]}. */
export function parsed(text) {
  const found = {};
  for (const line of text.split("\n")) {
    const match = /^([a-z_:]+)(?:\{(.*)\})? (\S+)$/i.exec(line);
    if (!match) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name, value]));
    (found[match[1]] ??= []).push({ labels, value: Number(match[3]) });
  }
  return found;
}

const only = (found, name) => found[name]?.[0]?.value;
const SEARCH = (labels) => labels.route.startsWith("/search");

/** Buckets of a histogram as they grew between two looks, cumulative by upper bound. */
function grown(after, before, name, wanted) {
  const sum = (found) => {
    const by = new Map();
    for (const { labels, value } of found?.[`${name}_bucket`] ?? []) if (wanted(labels)) by.set(Number(labels.le.replace("+Inf", "Infinity")), (by.get(Number(labels.le.replace("+Inf", "Infinity"))) ?? 0) + value);
    return by;
  };
  const old = sum(before);
  return [...sum(after)].map(([le, value]) => [le, value - (old.get(le) ?? 0)]).sort((a, b) => a[0] - b[0]);
}

/** As Prometheus' histogram_quantile: linear within a bucket. */
function quantile(buckets, share) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (!total) return null;
  let [from, below] = [0, 0];
  for (const [le, count] of buckets) {
    if (count >= share * total) return le === Infinity ? from : from + (le - from) * ((share * total - below) / Math.max(count - below, 1e-9));
    [from, below] = [le, count];
  }
  return from;
}

async function load() {
  clearTimeout(timer);
  const [{ data: text }, ready, state] = await Promise.all([call("GET", "/metrics"), get("/health/ready").catch((error) => error.problem ?? Promise.reject(error)), get("/active-encoder")]);
  if (seen() && seen().encoder.generation !== state.encoder.generation) lookAgain().catch(() => {}); // somebody else switched
  const look = { at: performance.now() / 1000, found: parsed(text) };
  if (!draw) {
    const [rate, latency] = [h("div"), h("div")];
    put(charts, h("section.panel", h("h2", "Searches a second"), rate), h("section.panel", h("h2", "Latency of searches"), h("p.quiet", "In milliseconds, over the searches of five seconds."), latency));
    const [drawRate, drawLatency] = [lines(rate, { title: "Searches a second", height: 170 }), lines(latency, { title: "Latency of searches in milliseconds", height: 170 })];
    draw = () => {
      drawRate([{ name: "searches/s", colour: 1, digits: 1, points: series.qps }], { zero: true, xTitle: "seconds" });
      drawLatency([{ name: "p50, ms", colour: 1, digits: 1, points: series.p50 }, { name: "p99, ms", colour: 2, digits: 1, points: series.p99 }], { zero: true, xTitle: "seconds" });
    };
    await Promise.race([Promise.all([generations, routed.look(), tried.look(), standing.look()]), waited]); // or what comes later moves what is there
    put(place, now, replicas, charts, routed.element, tried.element, standing.element, h("div.grid", health, history), may("admin") && audit.element, routes);
  }
  figures(look, ready);
  among(state, look.found);
  if (state.canary && looks) tried.look();
  if (looks && looks % SELDOM === 0) [routed, standing].forEach((each) => each.look());
  looks++;
  last = look;
  timer = setTimeout(() => { if (document.hidden) addEventListener("visibilitychange", run, { once: true }); else run(); }, LOOK_MS);
}

function figures(look, ready) {
  const { found } = look;
  const buckets = grown(found, last?.found, "adiabat_http_request_duration_seconds", SEARCH);
  const took = last ? look.at - last.at : null;
  const [qps, p50, p99] = [took ? (buckets.at(-1)?.[1] ?? 0) / took : null, quantile(buckets, 0.5), quantile(buckets, 0.99)];
  if (took) {
    const at = Math.round(look.at);
    for (const [name, value] of [["qps", qps], ["p50", p50 && p50 * 1000], ["p99", p99 && p99 * 1000]]) {
      if (value !== null) series[name].push([at, value]);
      if (series[name].length > LOOKS) series[name].shift();
    }
  }
  draw();
  const tile = (value, text, bad) => h("div.tile", h("b", { class: bad ? "down" : "" }, value), h("span", text));
  const waiting = (found.adiabat_queue_texts ?? []).reduce((sum, each) => sum + each.value, 0);
  put(now, tile(ready.status === "ready" ? "ready" : "not ready", "service", ready.status !== "ready"), tile(qps === null ? "…" : number(qps, qps < 10 ? 1 : 0), "searches/s"),
    tile(p50 === null ? "–" : ms(p50 * 1000), last ? "p50 of searches" : "p50 so far"), tile(p99 === null ? "–" : ms(p99 * 1000), last ? "p99 of searches" : "p99 so far"),
    tile(number(only(found, "adiabat_http_requests_in_flight")), "in flight"), tile(number(waiting), "texts waiting"), tile(bytes(only(found, "process_resident_memory_bytes") ?? 0), "memory"));
  const silence = found.adiabat_trainer_silence_seconds ?? [];
  const up = Object.fromEntries((found.adiabat_part_up ?? []).map((each) => [each.labels.part, each.value]));
  const running = (found.adiabat_tuning_jobs ?? []).filter((each) => each.value);
  put(health, h("h2", "Parts"), h("dl.facts",
    h("dt", "trainer"), h("dd", { class: String(ready.trainer).startsWith("dead") ? "down" : "" }, ready.trainer ?? "–"), silence.map((each) => [h("dt", "last seen"), h("dd", `${seconds(each.value)} ago`)]),
    Object.entries(up).map(([part, value]) => [h("dt", part), h("dd", { class: value ? "" : "down" }, value ? "answers" : "does not answer")]),
    h("dt", "passages"), h("dd", number(only(found, "adiabat_passages"))), h("dt", "in the index"), h("dd", number(only(found, "adiabat_passages_indexed")), only(found, "adiabat_store_indexing") ? ", being rebuilt" : ""),
    h("dt", "segments"), h("dd", number(only(found, "adiabat_store_segments"))),
    h("dt", "in memory"), h("dd", (found.adiabat_resident_encoder_bytes ?? []).map((each) => `${each.labels.encoder} ${bytes(each.value)}`).join(", ") || "–"),
    h("dt", "shared weights"), h("dd", bytes(only(found, "adiabat_shared_weights_bytes") ?? 0)),
    h("dt", "jobs"), h("dd", running.map((each) => `${number(each.value)} ${each.labels.status}`).join(", ") || "none"),
    (ready.notes ?? []).map((note) => [h("dt.down", "note"), h("dd", note)])));
  byRoute(found);
}

/** Only where there are several: one alone has nobody to be behind. This one may be the one that is. */
function among({ replicas: told }, found) {
  replicas.hidden = !several(told);
  if (replicas.hidden) return;
  const newest = only(found, "adiabat_generation") + only(found, "adiabat_generations_behind");
  put(replicas, h("h2", "Replicas"), h("p", `${number(told.live)} live. Generation ${number(newest)}: `, h("b", { class: told.behind.length ? "down" : "" }, spread(told)), "."), behind(told));
}

function byRoute(found) {
  const named = new Map();
  for (const { labels, value } of found.adiabat_http_request_duration_seconds_count ?? []) {
    const key = `${labels.method} ${labels.route}`;
    const row = named.get(key) ?? { count: 0, failed: 0, seconds: 0 };
    row.count += value;
    if (labels.status >= "400") row.failed += value;
    named.set(key, row);
  }
  for (const { labels, value } of found.adiabat_http_request_duration_seconds_sum ?? []) named.get(`${labels.method} ${labels.route}`).seconds += value;
  const open = routes.querySelector("details")?.open;
  put(routes, h("details", { open }, h("summary", "Every call since the start"), table(["call", ...["answered", "refused", "mean"].map((text) => ({ text, figures: true }))],
    [...named].filter(([name]) => !name.includes("/console/")).sort((a, b) => b[1].count - a[1].count).map(([name, row]) => [h("code", name), number(row.count), row.failed ? h("span.down", number(row.failed)) : "0", ms((1000 * row.seconds) / row.count)]), { caption: "Calls since the start" })));
}

const REASONS = { start: "first start", activate: "somebody switched", rollback: "rolled back", job: "a tuning passed its gate", continuous: "continuous tuning", canary: "a canary was begun", rule: "a canary was ended", fallback: "its artifact was gone" };

onActive(async (state) => {
  audit.look(); // a switch is an entry, and may end an experiment
  if (looks) tried.look();
  put($("actions"), wayBack(state) && h("button", { type: "button", needs: "admin", onclick: () => rollBack() }, wayBack(state)));
  try {
    const { activations } = await get("/active-encoder/history?limit=50");
    put(history, h("h2", "Generations"), table([{ text: "", figures: true }, "encoder", "reason", "when"],
      activations.map((each) => [number(each.generation), h("a", { href: `/console/encoders/${encodeURIComponent(each.encoder)}` }, each.encoder), [REASONS[each.reason] ?? each.reason, each.forced && h("b.down", " by force")], moment(each.at)]), { caption: "History of generations" }));
  } catch {} // the banner has said why
  toldOfGenerations();
});

const run = page(place, load);
