// All encoders: the tree of what was tuned from what, and a table of what each gained and lost.

import { get, keyOf } from "./api.js";
import { tree } from "./charts.js";
import { $, h, put } from "./dom.js";
import { ago, bytes, plural, signed, tiny } from "./format.js";
import { coloured, setsOf, worstOf } from "./figures.js";
import { named, soon } from "./pickers.js";
import { look, onActive, page, seen, toast } from "./shell.js";
import { sortable } from "./sorting.js";
import { chip } from "./status.js";
import { activate, rollBack, wayBack } from "./switching.js";

const PAGE = 80;
const TREE_MOST = 60; // more nodes than that are no picture any more
const place = $("page");
const pathOf = (encoder) => `/console/encoders/${encodeURIComponent(keyOf(encoder))}`;
const isActive = (encoder) => seen() && keyOf(seen().encoder) === keyOf(encoder);
let encoders = []; // as the filter has them
let known = []; // without the filter: what the tree is drawn of
let asked = 0;

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

const table = sortable(columns, { caption: "Encoders", mark: (row) => (isActive(row) ? "on" : "") });
const filter = h("input", { type: "search", placeholder: "Filter by name", "aria-label": "Filter by name", autocomplete: "off", spellcheck: false, oninput: soon(() => load().catch((error) => toast(error.message, "bad"))) });
const [top, title, more] = [h("section"), h("h2", { style: { margin: "0", "margin-right": "auto" }, role: "status" }), h("p.more")];
const list = h("section.panel", h("div.head", title, filter), table.element, more);

/** The service filters: what is looked for may be on no page that was loaded. */
async function load(from = 0) {
  const turn = (asked += 1);
  const wanted = filter.value.trim();
  const [next] = await Promise.all([named(wanted, { from, limit: PAGE }), seen() ?? look()]);
  if (turn !== asked) return; // somebody typed on
  encoders = from ? [...encoders, ...next] : next;
  if (!wanted) await remember();
  const whole = next.length < PAGE;
  filter.hidden = !wanted && whole && encoders.length <= 8;
  put(title, wanted ? `${plural(encoders.length, "encoder")}${whole ? "" : " so far"} with “${wanted}”` : `${plural(encoders.length, "encoder")}${whole ? "" : " so far"}`);
  put(more, !whole && h("button", { type: "button", onclick: () => load(encoders.length).catch((error) => toast(error.message, "bad")) }, `Load ${PAGE} more`));
  table.rows(encoders);
  if (!list.isConnected) put(place, top, list);
}

/** The tree shows the active encoder whatever its name, so wherever in the list it is. */
async function remember() {
  known = encoders;
  if (seen() && !known.some(isActive)) known = [...known, await get(`/encoders/${encodeURIComponent(keyOf(seen().encoder))}`)];
  top.className = known.length > 1 ? "panel" : "empty";
  put(top, known.length > 1 ? [h("h2", "Lineage"), lineage()]
    : [h("h2", "Only the base so far"), h("p", "Tune an encoder on judged questions, or register one with ", h("code", "adiabat encoders register"), "."), h("button", { type: "button", needs: "write", onclick: () => { location.href = "/console/tuning?new=1"; } }, "Tune an encoder")]);
}

function lineage() {
  const first = (each) => isActive(each) || each.name === "base";
  const tuned = known.filter((each) => !first(each) && (each.metrics.dev || known.length <= TREE_MOST));
  const shown = [...known.filter(first), ...tuned].slice(0, TREE_MOST);
  const byDigest = new Map(shown.map((each) => [each.digest, keyOf(each)]));
  const nodes = shown.map((each) => {
    const gain = each.metrics.dev?.gain;
    const parent = each.name === "base" ? null : each.lineage.parent ? byDigest.get(each.lineage.parent) ?? null : "base@1";
    return {
      id: keyOf(each), parent, label: keyOf(each), href: pathOf(each), kind: isActive(each) ? "on" : each.state,
      note: [isActive(each) && "active", gain !== undefined ? `dev ${signed(gain)}` : each.name === "base" ? "the base" : each.admission, each.state !== "ready" && each.state].filter(Boolean).join(" · "),
    };
  });
  return [h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Lineage of the encoders" }, tree(nodes, { title: "What was tuned from what" })),
    (shown.length < known.length || known.length >= PAGE) && h("p.about", `${shown.length} are drawn, the active one among them; one whose parent is not among them stands by itself.`)];
}

const run = page(place, () => load());
let drawn = null;
onActive((state) => {
  put($("actions"), wayBack(state) && h("button", { type: "button", needs: "admin", onclick: () => rollBack(run) }, wayBack(state)));
  if (drawn !== null && drawn !== state.encoder.generation) run();
  drawn = state.encoder.generation;
});
