// What was judged, newest first: by language, a page at a time, each with the way to take it back. The address holds the language.

import { get, remove } from "./api.js";
import { $, h, may, put, table, withheld } from "./dom.js";
import { ago, language, number } from "./format.js";
import { show } from "./passage.js";
import { confirm, page, toast } from "./shell.js";

const PAGE = 50;
const GRADES = ["not relevant", "relevant", "relevant, 2 of 3", "relevant, 3 of 3"];
const place = $("page");
let lang = new URLSearchParams(location.search).get("lang"); // null: all; "": those without one
let cursors = [null]; // of the pages up to this one
let at = 0;

async function load() {
  if (!may("write")) {
    put(place, h("div.empty", h("h2", "Judgments are for those who judge"), h("p", withheld("write")), h("a.button", { href: "/" }, "Search")));
    return;
  }
  const said = new URLSearchParams({ limit: PAGE });
  if (cursors[at]) said.set("cursor", cursors[at]);
  if (lang !== null) said.set("lang", lang);
  const found = await get(`/judgments?${said}`);
  if (!found.judgments.length && at > 0) { at -= 1; await load(); return; } // the last of a page was taken back
  cursors[at + 1] = found.next_cursor ?? null;
  put(place, found.count || lang !== null ? list(found) : h("div.empty", h("h2", "Nothing judged yet"),
    h("p", "✓ and ✗ beside a hit say whether it answers the question. What is said there, or sent to ", h("code", "POST /judgments"), ", is the dataset ", h("code", "judgments"), ": encoders are tuned and measured on it."),
    h("a.button", { href: "/" }, "Search")));
}

function list({ judgments, count, languages, next_cursor }) {
  const first = at * PAGE;
  const total = Object.values(languages).reduce((sum, each) => sum + each, 0);
  const shown = judgments.length ? `${number(first + 1)} to ${number(first + judgments.length)} of ${number(count)}, newest first` : "None in this language.";
  return h("section.panel",
    h("div.head", h("span.quiet", { style: { "margin-right": "auto" }, role: "status" }, shown),
      h("label.quiet", "Language ", h("select", { onchange: (event) => choose(event.target.value) },
        h("option", { value: "all" }, `all (${number(total)})`),
        Object.entries(languages).map(([code, each]) => h("option", { value: `=${code}`, selected: code === lang }, `${code ? language(code) : "not said"} (${number(each)})`))))),
    judgments.length ? table(["question", "passage", "judged", "language", { text: "when", figures: true }, ""], judgments.map(row), { caption: "Judgments" }) : null,
    h("div.actions", at > 0 && h("button", { type: "button", onclick: () => turn(-1) }, "Newer"), next_cursor && h("button", { type: "button", onclick: () => turn(1) }, "Older")));
}

function row(each) {
  const asked = new URLSearchParams({ q: each.query, ...(each.lang ? { lang: each.lang } : {}) });
  return [
    h("a.grows", { href: `/?${asked}`, dir: "auto", title: "Ask it again" }, short(each.query, 160)),
    h("button.link", { type: "button", dir: "auto", title: "Show the passage", onclick: () => passage(each) }, short(each.passage_id, 40)),
    h("span.chip", { class: each.relevance ? "good" : "bad" }, GRADES[each.relevance]),
    each.lang ? language(each.lang) : "–",
    ago(each.judged_at),
    h("button.small", { type: "button", needs: "write", "aria-label": `Take back: ${short(each.query, 60)}, ${short(each.passage_id, 40)}`, onclick: () => takeBack(each) }, "Take back"),
  ];
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most)} …` : text);

function choose(value) {
  lang = value === "all" ? null : value.slice(1);
  [cursors, at] = [[null], 0];
  history.replaceState(null, "", lang === null ? location.pathname : `?${new URLSearchParams({ lang })}`);
  again();
}

function turn(by) {
  at += by;
  again();
}

const again = () => load().catch((error) => toast(error.message, "bad"));

async function passage(each) {
  try {
    await show(await get(`/passages/${encodeURIComponent(each.passage_id)}`), [], each.query, each.lang);
    again(); // it may have been judged anew there
  } catch (error) {
    toast(error.status === 404 ? `The passage ${each.passage_id} is not stored any more; its judgments count for nothing.` : error.message, "bad");
  }
}

const takeBack = (each) => confirm({
  title: "Take this judgment back?", says: [`“${short(each.query, 200)}”, ${short(each.passage_id, 60)}: ${GRADES[each.relevance]}.`, "It is as if it had never been said. Tunings that were started with it keep it."], label: "Take back", danger: true,
  act: async () => { await remove(`/judgments/${encodeURIComponent(each.id)}`); toast("Taken back."); again(); },
});

page(place, load);
