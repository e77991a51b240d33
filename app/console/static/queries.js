// The query log, newest first, a page at a time: what was asked, who answered, what was clicked, and the way to forget it.

import { get, remove } from "./api.js";
import { $, h, may, put, table, withheld } from "./dom.js";
import { ago, language, number } from "./format.js";
import { confirm, page, toast } from "./shell.js";

const PAGE = 50;
const place = $("page");
let cursors = [null]; // of the pages up to this one
let at = 0;

async function load() {
  if (!may("write")) {
    put(place, h("div.empty", h("h2", "Queries are for those who judge"), h("p", withheld("write")), h("a.button", { href: "/" }, "Search")));
    return;
  }
  const said = new URLSearchParams({ limit: PAGE });
  if (cursors[at]) said.set("cursor", cursors[at]);
  const found = await get(`/queries?${said}`);
  if (!found.searches.length && at > 0) { at -= 1; await load(); return; } // the last of a page was forgotten
  cursors[at + 1] = found.next_cursor ?? null;
  put(place, found.searches.length ? list(found) : h("div.empty", h("h2", "No query is kept"),
    h("p", found.share ? "Nobody has searched since the log is on." : ["The query log is off. With ", h("code", "ADIABAT_QUERY_LOG=0.1"), " a tenth of the searches is kept, and clicks on them (", h("code", "POST /feedback"), ") become judgments."])));
}

const list = ({ searches, count, share, next_cursor }) => h("section.panel",
  h("p.quiet", { role: "status" }, `${number(count)} kept, newest first; ${share ? `${number(100 * share, share < 0.1 ? 2 : 0)}% of the searches are` : "the log is off, and no more are"} kept.`),
  table(["question", "language", "answered by", "clicked", "key", { text: "when", figures: true }, ""], searches.map(row), { caption: "Queries" }),
  h("div.actions", at > 0 && h("button", { type: "button", onclick: () => turn(-1) }, "Newer"), next_cursor && h("button", { type: "button", onclick: () => turn(1) }, "Older")));

const row = (each) => [
  h("a.grows", { href: `/?${new URLSearchParams({ q: each.query })}`, dir: "auto", title: "Ask it again" }, short(each.query, 160)),
  each.lang ? language(each.lang) : "–",
  [each.encoder, each.route && h("div.quiet", `by the route ${each.route}`)],
  each.clicks.length ? each.clicks.map((click) => `${number(click.position)}. ${short(click.passage_id, 40)}`).join(", ") : each.shown.length ? "–" : "nothing was found",
  each.key ?? "–",
  ago(each.at),
  h("button.small", { type: "button", needs: "write", "aria-label": `Forget: ${short(each.query, 60)}`, onclick: () => forget(each) }, "Forget"),
];

const short = (text, most) => (text.length > most ? `${text.slice(0, most)} …` : text);

function turn(by) {
  at += by;
  again();
}

const again = () => load().catch((error) => toast(error.message, "bad"));

const forget = (each) => confirm({
  title: "Forget this search?", says: [`“${short(each.query, 200)}”`, "Its clicks go with it. Tunings that were started with them keep them until they have ended."], label: "Forget", danger: true,
  act: async () => { await remove(`/queries/${each.search_id}`); toast("Forgotten."); again(); },
});

page(place, load);
