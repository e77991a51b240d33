// Passages and datasets: counts, files dropped to be taken in, browsing, deleting.

import { call, filterOf, get, remove } from "./api.js";
import { $, h, may, put, table } from "./dom.js";
import { ago, bytes, language, number, plural } from "./format.js";
import { chips, cut, show, titleOf } from "./passage.js";
import { SAMPLE_TUNING, takeSamples } from "./samples.js";
import { confirm, dialog, page, toast } from "./shell.js";

const BROWSED = 20;
const LINES = 64; // of passages in a call: a bar that moves
const LANGUAGES_MOST = 24;
const place = $("page");
const [counts, languages, intake, sets, browse] = [h("div"), h("div", { id: "languages" }), h("section.panel"), h("section.panel"), h("section.panel")];
let datasets = [];
let cursors = [null];
let lang = "";

async function load() {
  const [{ count }, found, ready] = await Promise.all([get("/passages/count"), get("/datasets"), get("/health/ready")]);
  datasets = found.datasets;
  tiles(count, ready);
  if (!intake.childElementCount) put(intake, dropZone(count));
  list();
  await page_(0);
  await byLanguage(count);
  if (!counts.isConnected) put(place, counts, languages, intake, sets, browse); // all at once: nothing moves
}

function tiles(count, ready) {
  const tile = (value, text) => h("div.tile", h("b", value), h("span", text));
  put(counts, h("div.tiles", tile(number(count), "passages"), tile(number(datasets.length), datasets.length === 1 ? "dataset" : "datasets"),
    tile(number(datasets.reduce((sum, each) => sum + each.queries, 0)), "judged questions"), tile(ready.indexing ? "rebuilding" : "current", "index"),
    tile("base@1", "passage encoder, fixed for good")));
}

/** The service counts by filter; the languages are those that the datasets and the browsed passages name. */
async function byLanguage(count) {
  if (!count) { put(languages); return; }
  const codes = [...new Set([...datasets.flatMap((each) => Object.keys(each.languages)), ...seenLanguages])].filter(Boolean).slice(0, LANGUAGES_MOST);
  const found = (await Promise.all(codes.map(async (code) => [code, (await get(`/passages/count?filter=${encodeURIComponent(JSON.stringify(filterOf(code)))}`)).count]))).filter(([, each]) => each).sort((a, b) => b[1] - a[1]);
  if (!found.length) return;
  const rest = count - found.reduce((sum, [, each]) => sum + each, 0);
  const rows = rest > 0 ? [...found, ["", rest]] : found;
  put(languages, h("section.panel", h("h2", "Passages by language"), h("div.bars", rows.flatMap(([code, each]) => [h("span", code ? language(code) : "other"), h("span.bar", h("i", { style: { width: `${(100 * each) / count}%` } })), h("span.figures", number(each))]))));
}
const seenLanguages = new Set();

// ------- taking files in

function dropZone(count) {
  if (!may("write")) return [h("h2", "Add passages or judged questions"), h("p.quiet", "That needs a key with the scope write.")];
  const said = h("div", { role: "status" });
  const input = h("input", { type: "file", class: "unseen", accept: ".jsonl,.ndjson,.zip,.json", tabindex: "-1", "aria-label": "Files", onchange: () => { if (input.files[0]) take(input.files[0], said); input.value = ""; } });
  const zone = h("div.drop", input, h("p", h("b", "Drop a file here"), " or ", h("button.small", { type: "button", onclick: () => input.click() }, "choose one"), place.dataset.samples && !count && [" or ", h("button.small", { type: "button", onclick: () => samples(said) }, "take the samples")]),
    h("p.about", "Passages as JSONL: a line each with ", h("code", "id"), ", ", h("code", "text"), " and optionally ", h("code", "title"), ", ", h("code", "metadata"), ". A dataset as zip in BEIR shape, or as NDJSON with ", h("code", "query"), " and ", h("code", "relevant"), "."), said);
  for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.remove("over"); });
  zone.addEventListener("drop", (event) => { if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0], said); });
  return [h("h2", "Add passages or judged questions"), zone];
}

async function samples(said) {
  await guarded(said, async (told) => {
    await takeSamples(told);
    return ["The samples are stored. ", h("a", { href: SAMPLE_TUNING }, "Tune an encoder on them"), "."];
  });
}

async function take(file, said) {
  const head = await file.slice(0, 65536).text();
  if (/\.zip$/i.test(file.name) || head.startsWith("PK")) return takeDataset(file, said, "application/zip");
  let line = {};
  try { line = JSON.parse(head.slice(0, head.indexOf("\n") + 1 || undefined)); } catch {} // the service says what is wrong with it
  return "query" in line || "passage" in line ? takeDataset(file, said, "application/x-ndjson") : takePassages(file, said);
}

async function takeDataset(file, said, type) {
  const name = h("input", { value: file.name.replace(/\.[^.]*$/, "").toLowerCase().replace(/[^a-z0-9._-]+/g, "-").replace(/^[^a-z0-9]+/, "") || "dataset", "aria-label": "Name of the dataset" });
  const exists = () => (datasets.some((each) => each.name === name.value) ? " One of that name is there and will be replaced; jobs keep the content they began with." : "");
  await confirm({
    title: "Store it as a dataset",
    says: [h("span", `${file.name}, ${bytes(file.size)}. Under the name `, name), h("span.quiet", exists())],
    label: "Store",
    act: () => guarded(said, async (told) => {
      told(null, null, `Sending and checking ${file.name}`);
      const { data } = await call("PUT", `/datasets/${encodeURIComponent(name.value)}`, { body: file, type });
      return `${data.name}: ${plural(data.queries, "question")}${data.unknown_passages?.count ? `; ${number(data.unknown_passages.count)} judgments name passages that are not stored` : ""}.`;
    }, true),
  });
}

/** Line by line in parts, so that the bar moves and a broken connection costs one part. */
async function takePassages(file, said) {
  await guarded(said, async (told) => {
    const sum = { embedded: 0, unchanged: 0, metadata_updated: 0, bad_line_count: 0 };
    const bad = [];
    let [lines, done, first] = [[], 0, 1];
    const send = async () => {
      if (!lines.length) return;
      const { data } = await call("POST", "/passages", { body: lines.join("\n"), type: "application/x-ndjson" });
      for (const name of Object.keys(sum)) sum[name] += data[name] ?? 0;
      bad.push(...(data.bad_lines ?? []).map((each) => `line ${first + each.line - 1}: ${each.problem}`));
      first += lines.length;
      done += lines.reduce((size, line) => size + line.length + 1, 0);
      lines = [];
      told(Math.min(done, file.size), file.size, `${file.name}: ${number(sum.embedded)} embedded, ${number(sum.unchanged)} there already`);
    };
    told(0, file.size, file.name);
    const reader = file.stream().pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done: over } = await reader.read();
      rest += value ?? "";
      const parts = rest.split("\n");
      rest = over ? "" : parts.pop();
      for (const part of parts) { lines.push(part); if (lines.length === LINES) await send(); }
      if (over) break;
    }
    await send();
    return [`${number(sum.embedded)} passages embedded, ${number(sum.metadata_updated)} with new metadata, ${number(sum.unchanged)} there already.`, bad.length ? h("details", h("summary", `${number(sum.bad_line_count)} lines are no passage`), h("ul", bad.slice(0, 50).map((each) => h("li", each)))) : ""];
  });
}

async function guarded(said, work, throws = false) {
  const bar = h("progress", { max: 100, value: 0, "aria-label": "Taken in" });
  const line = h("p.quiet");
  put(said, bar, line);
  try {
    const result = await work((done, total, sentence) => { if (total === null) bar.removeAttribute("value"); else bar.value = (100 * done) / (total || 1); line.textContent = sentence; });
    put(said, h("p", result));
    run();
  } catch (error) {
    put(said, h("p.problem", { role: "alert" }, error.message, " What was acknowledged is stored; sending the file again does no harm."));
    if (throws) throw error;
  }
}

// ------- datasets

function list() {
  put(sets, h("h2", "Datasets"), datasets.length ? table(["name", { text: "questions", figures: true }, "splits", "languages", "searched", { text: "stored", figures: true }, ""],
    datasets.slice(0, 500).map((each) => [h("button.link", { type: "button", onclick: () => about(each.name) }, each.name), number(each.queries), h("span.grows", Object.entries(each.splits).map(([split, counts]) => `${split} ${number(counts.queries)}`).join(", ")),
      Object.keys(each.languages).filter(Boolean).slice(0, 8).join(", ") || "–", each.passages == null ? "stored passages" : `its own ${number(each.passages)}`, ago(each.created_at),
      each.name === "judgments" ? h("a.button.small", { href: "/console/judgments" }, "See them") // the service's own: never deleted
        : h("button.small", { type: "button", needs: "write", "aria-label": `Delete the dataset ${each.name}`, onclick: () => dropped(each) }, "Delete")]), { caption: "Datasets" })
    : h("p.quiet", "None yet. A dataset is judged questions: which passages answer them. Encoders are tuned on them and measured with them."));
}

async function about(name) {
  let each;
  try { each = await get(`/datasets/${encodeURIComponent(name)}`); } catch (error) { toast(error.message, "bad"); run(); return; }
  await dialog(name, [h("p", h("code", each.digest)), table(["split", { text: "questions", figures: true }, { text: "pairs", figures: true }, "languages"], Object.entries(each.splits).map(([split, counts]) => [split, number(counts.queries), number(counts.pairs), Object.entries(counts.languages ?? {}).map(([code, count]) => `${code || "–"} ${count}`).join(", ")]), { caption: "Splits" }),
    each.unknown_passages?.count ? h("p.problem", `${number(each.unknown_passages.count)} judgments name passages that are not stored, such as ${each.unknown_passages.ids.slice(0, 5).join(", ")}.`) : null]);
}

const dropped = (each) => confirm({
  title: `Delete the dataset ${each.name}?`, says: [`Its ${plural(each.queries, "question")} and judgments are removed. Passages and encoders are not touched.`], label: "Delete", danger: true,
  act: async () => { await remove(`/datasets/${encodeURIComponent(each.name)}`); toast(`${each.name} was deleted.`); run(); },
});

// ------- passages

async function page_(at) {
  const said = new URLSearchParams({ limit: BROWSED });
  if (cursors[at]) said.set("cursor", cursors[at]);
  if (lang) said.set("filter", JSON.stringify(filterOf(lang)));
  const found = await get(`/passages?${said}`);
  cursors[at + 1] = found.next_cursor ?? null;
  for (const each of found.passages) if (typeof each.metadata.lang === "string") seenLanguages.add(each.metadata.lang);
  const id = h("input", { type: "search", placeholder: "Passage by id", "aria-label": "Passage by id" });
  const find = async (event) => { event.preventDefault(); try { await show(await get(`/passages/${encodeURIComponent(id.value.trim())}`)); } catch (error) { toast(error.message, "bad"); } };
  const codes = [...new Set([...datasets.flatMap((each) => Object.keys(each.languages)), ...seenLanguages])].filter(Boolean);
  put(browse, h("div.head", h("h2", { style: { margin: "0", "margin-right": "auto" } }, "Passages"),
    codes.length ? h("label.quiet", "Language ", h("select", { onchange: (event) => { lang = event.target.value; cursors = [null]; page_(0).catch((error) => toast(error.message, "bad")); } }, h("option", { value: "" }, "all"), codes.map((code) => h("option", { value: code, selected: code === lang }, language(code))))) : null,
    h("form", { onsubmit: find }, id)),
    found.passages.length ? table(["passage", "text", "metadata", ""], found.passages.map((each) => [
      h("button.link", { type: "button", dir: "auto", onclick: () => show(each) }, titleOf(each).slice(0, 60)), h("span.grows.quiet", { dir: "auto" }, cut(each.text).slice(0, 160)), h("span.chips.one-line", chips(each).slice(0, 2)),
      h("button.small", { type: "button", needs: "write", "aria-label": `Delete ${titleOf(each).slice(0, 60)}`, onclick: () => gone(each) }, "Delete")]), { caption: "Passages" }) : h("p.quiet", lang ? `None is marked as ${language(lang)}.` : "None yet."),
    h("div.actions", at > 0 && h("button", { type: "button", onclick: () => page_(at - 1) }, "Back"), found.next_cursor && h("button", { type: "button", onclick: () => page_(at + 1) }, "Next")));
}

const gone = (each) => confirm({
  title: `Delete ${titleOf(each)}?`, says: [`The passage ${each.id} is no longer found, and judgments that name it are left out of measurements.`], label: "Delete", danger: true,
  act: async () => { await remove(`/passages/${encodeURIComponent(each.id)}`); toast(`${each.id} was deleted.`); run(); },
});

const run = page(place, load);
