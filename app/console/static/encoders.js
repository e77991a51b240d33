// All encoders: the tree of what was tuned from what, and a table of what each gained and lost.

import { get, keyOf } from "./api.js";
import { tree } from "./charts.js";
import { $, h, put } from "./dom.js";
import { ago, bytes, plural, signed, tiny } from "./format.js";
import { coloured, setsOf, worstOf } from "./figures.js";
import { look, onActive, page, seen } from "./shell.js";
import { sortable } from "./sorting.js";
import { chip } from "./status.js";
import { activate, rollBack } from "./switching.js";

const PAGE = 80;
const TREE_MOST = 60; // more nodes than that are no picture any more
const place = $("page");
const pathOf = (encoder) => `/console/encoders/${encodeURIComponent(keyOf(encoder))}`;
const isActive = (encoder) => seen() && keyOf(seen().encoder) === keyOf(encoder);
let encoders = [];

const columns = [
  { text: "encoder", value: keyOf, cell: (row) => [h("a", { href: pathOf(row) }, keyOf(row)), isActive(row) && [" ", h("span.chip.on", "active")]] },
  { text: "state", value: (row) => row.state, cell: (row) => chip(row.state) },
  { text: "dev gain", figures: true, title: "Change of MRR@10 on dev against the base", value: (row) => row.metrics.dev?.gain, cell: (row) => (row.metrics.dev?.gain === undefined ? "" : coloured(row.metrics.dev.gain)) },
  { text: "worst guard", figures: true, title: "The guard that lost most, or gained least", value: (row) => worstOf(row.metrics)?.change, cell: (row) => { const worst = worstOf(row.metrics); return worst && [h("span.quiet", `${worst.name} `), coloured(worst.change)]; } },
  { text: "most drift", figures: true, title: "Of any guard: mean of 1 − cos", value: driftOf, cell: (row) => (driftOf(row) === undefined ? "" : tiny(driftOf(row))) },
  { text: "admission", value: (row) => row.admission, cell: (row) => row.admission },
  { text: "size", figures: true, value: (row) => row.size_bytes, cell: (row) => bytes(row.size_bytes) },
  { text: "made", figures: true, value: (row) => row.created_at, cell: (row) => ago(row.created_at) },
  { text: "", cell: (row) => (isActive(row) || row.state === "broken" ? "" : h("button.small", { type: "button", needs: "admin", "aria-label": `Switch to ${keyOf(row)}`, onclick: () => activate(row, run) }, "Switch")) },
];

function driftOf(row) {
  const found = setsOf(row.metrics).slice(1).map((each) => each.drift).filter(Number.isFinite);
  return found.length ? Math.max(...found) : undefined;
}

async function load(from = 0) {
  const [{ encoders: next }] = await Promise.all([get(`/encoders?limit=${PAGE}&offset=${from}&brief=true`), seen() ?? look()]);
  encoders = from ? [...encoders, ...next] : next;
  const table = sortable(columns, { caption: "Encoders", mark: (row) => (isActive(row) ? "on" : "") });
  table.rows(encoders);
  const filter = h("input", { type: "search", placeholder: "Filter by name", "aria-label": "Filter by name", oninput: () => table.rows(encoders.filter((each) => keyOf(each).includes(filter.value.trim()))) });
  put(place,
    encoders.length > 1
      ? h("section.panel", h("h2", "Lineage"), lineage())
      : h("section.empty", h("h2", "Only the base so far"), h("p", "Tune an encoder on judged questions, or register one with ", h("code", "adiabat encoders register"), "."), h("a.button", { href: "/console/tuning?new=1" }, "Tune an encoder")),
    h("section.panel", h("div.head", h("h2", { style: { margin: "0", "margin-right": "auto" } }, plural(encoders.length, "encoder"), next.length === PAGE && " so far"), encoders.length > 8 && filter), table.element,
      next.length === PAGE && h("p.more", h("button", { type: "button", onclick: () => load(encoders.length) }, `Load ${PAGE} more`))));
}

function lineage() {
  const shown = encoders.filter((each) => each.name === "base" || each.metrics.dev || encoders.length <= TREE_MOST).slice(0, TREE_MOST);
  const byDigest = new Map(shown.map((each) => [each.digest, keyOf(each)]));
  const nodes = shown.map((each) => {
    const gain = each.metrics.dev?.gain;
    const parent = byDigest.get(each.lineage.parent) ?? (each.name === "base" ? null : "base@1");
    return {
      id: keyOf(each), parent, label: keyOf(each), href: pathOf(each), kind: isActive(each) ? "on" : each.state,
      note: [isActive(each) && "active", gain !== undefined ? `dev ${signed(gain)}` : each.name === "base" ? "the base" : each.admission, each.state !== "ready" && each.state].filter(Boolean).join(" · "),
    };
  });
  return [h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Lineage of the encoders" }, tree(nodes, { title: "What was tuned from what" })),
    shown.length < encoders.length && h("p.about", `The first ${shown.length} are drawn.`)];
}

const run = page(place, () => load());
let drawn = null;
onActive((state) => {
  put($("actions"), state.previous && h("button", { type: "button", needs: "admin", onclick: () => rollBack(run) }, `Roll back to ${keyOf(state.previous)}`));
  if (drawn !== null && drawn !== state.encoder.generation) run();
  drawn = state.encoder.generation;
});
