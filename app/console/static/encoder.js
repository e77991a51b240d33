// One encoder: its card, and what can be done with it.

import { call, get, keyOf, Refused, remove } from "./api.js";
import { $, h, put } from "./dom.js";
import { bytes, moment, number } from "./format.js";
import { drifts, gained, matrix, verdict } from "./figures.js";
import { rates, recipe, tradeOff, weights } from "./recipe.js";
import { confirm, onActive, page, seen, toast } from "./shell.js";
import { chip } from "./status.js";
import { activate, rollBack, wayBack } from "./switching.js";

const place = $("page");
const asked = place.dataset.key;
let encoder = null;

async function load() {
  encoder = await get(`/encoders/${encodeURIComponent(asked)}`);
  const { metrics } = encoder;
  const job = metrics.job ? await get(`/tuning-jobs/${encodeURIComponent(metrics.job)}`).catch((error) => { if (error instanceof Refused) return null; throw error; }) : null;
  const { pictures } = await get(`/console/cards/${encodeURIComponent(keyOf(encoder))}`).catch(() => ({ pictures: [] }));
  const found = { ...metrics, ...(job?.result ?? {}) };
  document.title = `${keyOf(encoder)} · Adiabat`;
  put(place,
    h("div.grid.two", gained(found, job?.gate.max_guard_loss), verdict(found), tradeOff(found), drifts(found)),
    matrix(found), rates(found), job && recipe(job.recipe, found.chosen), h("div.grid", facts(job), weights(found), checks()), shown(pictures));
  buttons();
}

function facts(job) {
  const { lineage } = encoder;
  const row = (name, ...value) => [h("dt", name), h("dd", value)];
  return h("section.panel", h("h2", "What it is"), encoder.description && h("p", { dir: "auto" }, encoder.description), h("dl.facts",
    row("admission", encoder.admission), row("size", bytes(encoder.size_bytes)), row("made", moment(encoder.created_at)),
    job && row("parent", h("a", { href: `/console/encoders/${encodeURIComponent(job.parent)}` }, job.parent)),
    job && row("tuning", h("a", { href: `/console/tuning/${job.id}` }, `${job.dataset}, ${job.id}`)),
    Object.entries(encoder.labels).map(([name, value]) => row(name, value)),
    row("digest", short(encoder.digest)), lineage.base && row("base", short(lineage.base)), lineage.parent && row("parent's digest", short(lineage.parent))));
}

const short = (digest) => h("code", { title: digest }, `${digest.slice(0, 23)}…`);

function checks() {
  if (!encoder.checks.length) return null;
  const told = (value) => (typeof value === "number" ? number(value, value % 1 ? 4 : 0) : String(value).replace(/^(sha256:\w{8})\w+$/, "$1…"));
  const mark = (check) => h("span", { class: check.passed ? "up" : "down", "aria-label": check.passed ? "passed" : "not passed" }, check.passed ? "✓ " : "✗ ");
  return h("section.panel", h("h2", "Checks at registration"), h("dl.facts", encoder.checks.map((check) => [h("dt", check.check),
    h("dd", mark(check), told(check.value), check.expected !== undefined && check.expected !== check.value && h("span.quiet", ` expected ${told(check.expected)}`))])));
}

function shown(pictures) {
  if (!pictures.length) return null;
  const cards = h("div.cards");
  const details = h("details.panel", { ontoggle: () => {
    if (!details.open || cards.childElementCount) return;
    cards.append(...pictures.map((name) => h("a", { href: addressOf(name) }, h("img", { src: addressOf(name), alt: `${name.replace(/^card\/|\.png$/g, "")}, from the model card`, width: 600, height: 300, loading: "lazy" }))));
  } }, h("summary", `Pictures of the model card (${pictures.length})`), cards);
  return details;
}

const addressOf = (name) => `/console/cards/${encodeURIComponent(keyOf(encoder))}/${name}`;

function buttons() {
  const now = seen();
  if (!encoder || !now) return;
  const key = keyOf(encoder);
  const active = keyOf(now.encoder) === key;
  const previous = now.previous && keyOf(now.previous) === key;
  put($("name"), key, " ", chip(encoder.state), active && [" ", h("span.chip.on", "active")], previous && [" ", h("span.chip", "previous")]);
  put($("actions"),
    !active && encoder.state !== "broken" && encoder.state !== "deleted" && h("button.primary", { type: "button", needs: "admin", onclick: () => activate(encoder, run) }, "Switch to it"),
    active && wayBack(now) && h("button", { type: "button", needs: "admin", onclick: () => rollBack(run) }, wayBack(now)),
    !active && encoder.state !== "deleted" && h("a.button", { href: `/?${new URLSearchParams({ encoder: key, compare: keyOf(now.encoder) })}` }, "Compare in search"),
    encoder.state !== "deleted" && h("button", { type: "button", needs: "write", onclick: exported }, "Export"),
    key !== "base@1" && !active && !previous && encoder.state !== "deleted" && h("button", { type: "button", needs: "admin", onclick: deleted }, "Delete"));
}

function exported() {
  return confirm({
    title: `Export ${keyOf(encoder)}?`,
    says: ["You get a tar of the whole sentence-transformers folder, full weights and model card included. SentenceTransformer(folder) loads it anywhere; its lineage goes with it."],
    label: "Download",
    act: async () => {
      await call("GET", `/encoders/${encodeURIComponent(keyOf(encoder))}?`); // gone or signed out: said here, not as a broken file
      const link = h("a", { href: `/encoders/${encodeURIComponent(keyOf(encoder))}/archive`, download: `${keyOf(encoder)}.tar` });
      link.click();
    },
  });
}

function deleted() {
  return confirm({
    title: `Delete ${keyOf(encoder)}?`,
    says: ["Its weights and its card are removed for good; the history of generations goes on naming it. Searches are not touched: it is neither active nor the way back.", "Export it first if you may want it again."],
    label: "Delete",
    danger: true,
    act: async () => {
      await remove(`/encoders/${encodeURIComponent(keyOf(encoder))}`);
      toast(`${keyOf(encoder)} was deleted.`);
      location.href = "/console/encoders";
    },
  });
}

const run = page(place, load);
onActive(buttons);
