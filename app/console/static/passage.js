// A passage as it is shown: its text cut and marked, its metadata as chips, the whole of it in a dialog, and judged.

import { get, post, remove } from "./api.js";
import { h, may } from "./dom.js";
import { language } from "./format.js";
import { dialog, toast } from "./shell.js";

const CUT = 600; // characters of a text that are put on the page; the dialog has the whole
const LONG = 380; // characters that three lines hold on a wide screen
const MARKS = 400; // in one text; more would only make the page slow
const CHIPS = 6;
const COMMON = new Set(("a an and are as at be been but by can did do does for from had has have how i if in into is it its my of on or our "
  + "so than that the their them then there they this to was we were what when where which who why will with you your "
  + "der die das den dem ein eine einen und oder ist sind war wie was wer wo wenn man ich es im in zu mit auf für von nicht "
  + "el la los las un una y o es son de del en que qué cómo por para con no se su al le les des du et est sont je il "
  + "une dans pour sur avec ce qui que quoi comment").split(" "));

/** The words of a question that are worth marking. */
export function wordsOf(query) {
  const words = query.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return [...new Set(words.filter((word) => !COMMON.has(word) && (word.length > 2 || /[^\p{Script=Latin}\p{N}]/u.test(word))))].slice(0, 40);
}

/** `text` with the words of the question marked where a word begins with them. */
export function marked(text, words) {
  if (!words.length) return [text];
  const pattern = new RegExp(`(?<![\\p{L}\\p{N}])(?:${words.sort((a, b) => b.length - a.length).join("|")})`, "giu");
  const found = [];
  let from = 0;
  for (const match of text.matchAll(pattern)) {
    if (found.length >= 2 * MARKS) break;
    found.push(text.slice(from, match.index), h("mark", match[0]));
    from = match.index + match[0].length;
  }
  return [...found, text.slice(from)];
}

export const titleOf = (passage) => passage.title?.slice(0, 300) || passage.text.slice(0, 80).trim() || passage.id;
export const cut = (text) => (text.length > CUT ? `${text.slice(0, CUT)} …` : text);

/** Whether a hit shows less than there is. */
export const isCut = ({ title, text }) => text.length > (title ? LONG : 80);

export function chips(passage) {
  const entries = Object.entries(passage.metadata ?? {});
  const shown = entries.slice(0, CHIPS).map(([key, value]) => h("span.chip", { title: `${key}: ${written(value)}`, dir: "auto" },
    h("span.k", key), key === "lang" ? language(value) : written(value)));
  return [...shown, entries.length > CHIPS && h("span.chip", h("span.k", `+${entries.length - CHIPS}`))];
}

const written = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value)).slice(0, 200);

export function show(passage, words = [], query = "", lang = "") {
  const several = Object.keys(passage.metadata ?? {}).length > CHIPS;
  return dialog(titleOf(passage), [
    h("p.chips", h("code", passage.id), chips(passage)),
    h("div.whole", { dir: "auto", tabindex: "0" }, marked(passage.text, words)),
    several && h("details", h("summary", "All metadata"), h("pre", { tabindex: "0", dir: "auto" }, JSON.stringify(passage.metadata, null, 2))),
  ], query && may("write") ? [judge(query, passage, lang)] : []);
}

const judged = new Map(); // by question and passage: {id, relevance}
const said = (query, id) => `${query.trim().replace(/\s+/g, " ")}\n${id}`;

/** What was judged of this question before, by whomever; the buttons made after it show that. */
export async function recall(query) {
  if (!may("write")) return;
  const { judgments } = await get(`/judgments?limit=1000&query=${encodeURIComponent(query)}`);
  for (const each of judgments) judged.set(said(query, each.passage_id), each);
}

/** Two buttons that tell the service whether a passage answers the question; `lang` is the question's, where it is known.
 *  The same one again takes the judgment back. */
export function judge(query, passage, lang) {
  if (!may("write")) return null;
  const key = said(query, passage.id);
  const yes = h("button.small.yes", { type: "button", "aria-label": `Relevant: ${titleOf(passage)}`, title: "It answers the question; again: take that back" }, "✓", h("span.judge-word", "relevant"));
  const no = h("button.small.no", { type: "button", "aria-label": `Not relevant: ${titleOf(passage)}`, title: "It does not answer the question; again: take that back" }, "✗");
  const draw = () => {
    const relevance = judged.get(key)?.relevance;
    yes.setAttribute("aria-pressed", relevance > 0);
    no.setAttribute("aria-pressed", relevance === 0);
  };
  const say = (relevance) => async () => {
    const before = judged.get(key);
    const again = before && (before.relevance > 0) === (relevance > 0);
    try {
      if (again) {
        await remove(`/judgments/${before.id}`);
        judged.delete(key);
      } else {
        judged.set(key, await post("/judgments", { query, passage_id: passage.id, relevance, ...(lang ? { lang } : {}) }));
      }
    } catch (error) {
      toast(error.message, "bad");
    }
    draw();
  };
  yes.addEventListener("click", say(1));
  no.addEventListener("click", say(0));
  draw();
  return h("span.judge", { role: "group", "aria-label": "Does it answer the question?" }, yes, no);
}
