// The search page: one encoder's answers, or two side by side with lines that show what moved.

import { filterOf, get, keyOf, post } from "./api.js";
import { $, h, put, s } from "./dom.js";
import { language, ms, number } from "./format.js";
import { chips, cut, isCut, judge, marked, recall, show, titleOf, wordsOf } from "./passage.js";
import { choose, encoders } from "./pickers.js";
import { failed, onActive } from "./shell.js";
import { welcome } from "./welcome.js";

const LIMIT = 10;
const MORE = 40;
const place = $("found");
let running = null;
let redraw = () => {};

const SCORES = { dense: "Cosine of question and passage", lexical: "BM25 of the words in common", hybrid: "1/(10 + rank) by meaning and by words, added" };

const asked = () => Object.fromEntries([...new FormData($("ask"))].map(([name, value]) => [name, value.trim()]));

async function search(limit = LIMIT) {
  const { q, mode, encoder, compare, lang } = asked();
  if (!q) { put(place); $("took").textContent = ""; return; }
  running?.abort();
  running = new AbortController();
  place.setAttribute("aria-busy", "true");
  const body = { query: q, limit };
  if (mode) body.mode = mode;
  if (encoder) body.encoder = encoder;
  if (compare) body.compare_to = compare;
  if (lang) body.filter = filterOf(lang);
  const started = performance.now();
  try {
    const [answer] = await Promise.all([post("/search", body, { signal: running.signal }), recall(q).catch(() => {})]);
    $("took").textContent = `${ms(answer.took_ms.total)} in the service, ${ms(performance.now() - started)} here`;
    learn(answer.hits.map((hit) => hit.metadata?.lang));
    const words = wordsOf(q);
    if (!answer.hits.length) none(lang, mode);
    else if (answer.compared_to) compared(answer, q, words, limit);
    else single(answer, q, words, limit);
    steps();
  } catch (error) {
    $("took").textContent = "";
    failed(place, error, () => search(limit));
  }
}

function none(lang, mode) {
  const words = mode === "lexical";
  const said = words ? `No passage${lang ? ` marked as ${language(lang)}` : ""} has a word of this; search by meaning.`
    : lang ? `No passage is marked as ${language(lang)}; search in all languages.` : "There is no passage yet.";
  put(place, h("div.empty", h("h2", "Nothing found"), h("p", said),
    !lang && !words && h("a.button", { href: "/console/data" }, "Add passages")));
}

function single(answer, query, words, limit) {
  const most = Math.max(...answer.hits.map((hit) => hit.score), 1e-9);
  const items = answer.hits.map((hit, place) => h("li.hit", { data: { id: hit.id } },
    h("span.rank", `${place + 1}`),
    h("div",
      h("h3", { dir: "auto" }, opener(hit, words, query)),
      hit.title && h("p.text", { dir: "auto" }, marked(cut(hit.text), words)),
      h("div.chips", isCut(hit) && h("button.link", { type: "button", "aria-label": `more of ${titleOf(hit)}`, onclick: () => show(hit, words, query, asked().lang) }, "more"), chips(hit), judge(query, hit, asked().lang))),
    h("div.score", { title: SCORES[answer.mode] }, number(hit.score, 3),
      h("span.score-bar", h("i", { style: { width: `${Math.max(0, (100 * hit.score) / most)}%` } })))));
  redraw = () => {};
  put(place, h("ol.hits", items),
    answer.next_cursor && limit < MORE && h("p.more", h("button", { type: "button", onclick: () => search(MORE) }, `Show ${MORE}`)));
}

const opener = (hit, words, query) => h("button.link", { type: "button", dir: "auto", onclick: () => show(hit, words, query, asked().lang) }, marked(titleOf(hit), words));

function compared(answer, query, words, limit) {
  const ours = answer.hits;
  const theirs = [...ours.filter((hit) => !hit.new), ...answer.compared_to.lost].sort((a, b) => a.compared_rank - b.compared_rank);
  const kept = ours.filter((hit) => !hit.new).length;
  const here = new Map(ours.map((hit, at) => [hit.id, at + 1]));
  const moved = ours.filter((hit, at) => !hit.new && hit.compared_rank !== at + 1).length;
  const left = h("ol", theirs.map((hit) => side(hit, hit.compared_rank, here.has(hit.id) ? null : h("span.move.down", "lost"), here.has(hit.id) ? "" : "lost", words, query, false)));
  const right = h("ol", ours.map((hit, at) => side(hit, at + 1, moves(hit, at + 1), hit.new ? "new" : "", words, query, true)));
  const lines = s("svg.moves", { "aria-hidden": "true" });
  const sides = h("div.sides",
    h("div", h("h2", keyOf(answer.compared_to.encoder), h("small", " compared with")), left),
    h("div.gutter", lines),
    h("div.right", h("h2", keyOf(answer.encoder), h("small", answer.encoder.generation ? ` active, generation ${answer.encoder.generation}` : "")), right));
  put(place,
    h("div.overlap", { role: "status" },
      h("div", h("span.pips", { "aria-hidden": "true" }, ours.map((hit) => h("i", { class: hit.new ? "" : "on" }))), h("b", `${kept} of ${Math.max(ours.length, theirs.length)}`), h("span.quiet", `overlap@${limit}`)),
      h("div", h("b", number(moved)), h("span.quiet", "moved")),
      h("div", h("b.up", number(ours.length - kept)), h("span.quiet", "new")),
      h("div", h("b.down", number(theirs.length - kept)), h("span.quiet", "lost"))),
    sides);
  redraw = () => draw(lines, left, right, theirs, here);
  redraw();
  new ResizeObserver(() => redraw()).observe(sides);
}

function moves(hit, rank) {
  if (hit.new) {
    return h("span.move.up", { title: hit.compared_rank ? `rank ${hit.compared_rank} with the other encoder` : "not among the other's hits" }, hit.compared_rank ? `new, was ${hit.compared_rank}` : "new");
  }
  const by = hit.compared_rank - rank;
  if (!by) return h("span.move.quiet", { title: "the same rank" }, "=");
  return h("span.move", { class: by > 0 ? "up" : "down", title: `from rank ${hit.compared_rank} to ${rank}` }, `${by > 0 ? "▲" : "▼"} ${Math.abs(by)}`);
}

function side(hit, rank, mark, kind, words, query, judges) {
  return h("li", { class: kind, data: { id: hit.id } }, h("span.rank", `${rank}`), h("h3", { dir: "auto" }, opener(hit, words, query)), mark ?? h("span"),
    h("p.text", { dir: "auto" }, hit.title ? marked(cut(hit.text).slice(0, 200), words) : ""),
    judges && h("div.foot-row", h("span.quiet.figures", number(hit.score, 3)), judge(query, hit, asked().lang)));
}

/** A line from each passage's place on the left to its place on the right. */
function draw(lines, left, right, theirs, here) {
  const box = lines.parentElement.getBoundingClientRect();
  if (!box.width) return;
  lines.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  const middle = (item) => { const at = item.getBoundingClientRect(); return at.top + at.height / 2 - box.top; };
  lines.replaceChildren(...theirs.flatMap((hit, at) => {
    const rank = here.get(hit.id);
    if (!rank) return [];
    const [from, to, bend] = [middle(left.children[at]), middle(right.children[rank - 1]), box.width * 0.5];
    const kind = rank < hit.compared_rank ? "rose" : rank > hit.compared_rank ? "fell" : "same";
    return [s(`path.${kind}`, { d: `M2 ${from}C${bend} ${from} ${box.width - bend} ${to} ${box.width - 2} ${to}` })];
  }));
}

// ------- the pickers, and the address that holds them

const languages = new Set();
function learn(codes) {
  const select = $("lang");
  for (const code of codes) {
    if (typeof code !== "string" || !code || code.length > 35 || languages.has(code)) continue;
    languages.add(code);
    select.append(h("option", { value: code }, language(code)));
  }
}

function fromAddress() {
  const given = new URLSearchParams(location.search);
  $("q").value = given.get("q") ?? "";
  learn([given.get("lang")]);
  $("mode").value = given.get("mode") ?? "";
  if ($("mode").selectedIndex < 0) $("mode").value = "";
  for (const name of ["encoder", "compare", "lang"]) choose($(name), given.get(name) ?? "");
  byMode();
}

/** By words no encoder has a part. */
function byMode() {
  for (const name of ["encoder", "compare"]) $(name).disabled = $("mode").value === "lexical";
}

function toAddress() {
  const said = new URLSearchParams(Object.entries(asked()).filter(([, value]) => value));
  const address = `/${String(said) ? `?${said}` : ""}`;
  if (address !== location.pathname + location.search) history.pushState(null, "", address);
}

async function pickers() {
  const [{ datasets }] = await Promise.all([get("/datasets"), encoders($("encoder")), encoders($("compare"))]);
  learn(datasets.flatMap((dataset) => Object.keys(dataset.languages ?? {})));
  $("lang").value = new URLSearchParams(location.search).get("lang") ?? "";
}

const steps = () => welcome($("welcome"), { ask: (query) => { $("q").value = query; toAddress(); search(); $("q").focus(); } });

$("ask").addEventListener("submit", (event) => { event.preventDefault(); toAddress(); search(); });
addEventListener("popstate", () => { fromAddress(); search(); });
onActive(({ encoder }) => { $("encoder").options[0].textContent = `active (${keyOf(encoder)})`; });
fromAddress();
pickers().catch(() => {});
for (const name of ["mode", "encoder", "compare", "lang"]) $(name).addEventListener("change", () => { byMode(); toAddress(); search(); }); // after the pickers': "more" is no choice
steps();
search();
