// The audit log: who changed what, from where, and what came of it. For admins.

import { get } from "./api.js";
import { h, may, put, table } from "./dom.js";
import { moment, number } from "./format.js";

const PAGE = 20;

/** {element, look()}; the element is empty until the first look has an answer. */
export function auditLog() {
  const rows = h("div");
  const kind = h("select", { "aria-label": "Which entries", onchange: () => look() }, h("option", { value: "" }, "everything"), h("option", { value: "refused" }, "refused attempts"));
  const element = h("section.panel", { id: "audit" }, h("div.head", h("h2", { style: { margin: "0", "margin-right": "auto" } }, "Audit log"), kind), rows);
  let entries = [];

  async function look(cursor) {
    if (!may("admin")) return;
    const wanted = new URLSearchParams({ limit: PAGE, ...(kind.value ? { action: kind.value } : {}), ...(cursor ? { cursor } : {}) });
    try {
      const page = await get(`/audit?${wanted}`);
      entries = cursor ? [...entries, ...page.entries] : page.entries;
      put(rows, entries.length ? drawn(entries) : h("p.quiet", "None yet."),
        page.next_cursor && h("p.more", h("button", { type: "button", onclick: () => look(page.next_cursor) }, `Show ${PAGE} more`)));
    } catch {} // the banner has said why
  }
  return { element, look: () => look() };
}

const drawn = (entries) => table(["when", "what", "of", "by", "from"], entries.map((each) => [moment(each.at),
  [each.action, each.outcome !== "done" && h("b.down", ` ${each.outcome}`)],
  [h("span", { dir: "auto" }, each.target), each.generation !== undefined && h("span.quiet", ` generation ${number(each.generation)}`)],
  each.key ?? h("span.quiet", "nobody's key"), each.peer ?? "–"]), { caption: "Audit log" });
