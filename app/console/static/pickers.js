// Choosing an encoder where there may be ten thousand: a select of the first page, and a dialog that finds the others by typing.

import { get, keyOf } from "./api.js";
import { $, h, put } from "./dom.js";
import { plural } from "./format.js";
import { dialog } from "./shell.js";

const PAGE = 80;
const FIND = "…find";
const LISTED = 40;
const TYPED_MS = 150;
const POSSIBLE = /^[a-z0-9._@-]{1,80}$/i; // nothing else is in a name

/** Whether it can be tuned further and measured. */
export const measurable = (each) => ["ready", "rejected"].includes(each.state);

/** Encoders whose key has `text` in it, in order of their names. */
export async function named(text, { from = 0, limit = LISTED } = {}) {
  if (text && !POSSIBLE.test(text)) return [];
  const said = new URLSearchParams({ limit, offset: from, brief: true, ...(text ? { contains: text } : {}) });
  return (await get(`/encoders?${said}`)).encoders;
}

/** `act`, once nobody has typed for a moment. */
export function soon(act) {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(act, TYPED_MS); };
}

/** Asks which encoder; its key, or null where nobody chose. */
export async function find(wanted = () => true) {
  let [chosen, asked] = [null, 0];
  const [said, list] = [h("p.quiet", { role: "status" }), h("ul.found")];
  const take = (key) => { chosen = key; $("dialog").close(); };
  const look = async () => {
    const turn = (asked += 1);
    try {
      const found = await named(input.value.trim());
      if (turn !== asked) return;
      const fit = found.filter(wanted);
      put(said, found.length < LISTED ? plural(fit.length, "encoder") : `The first ${fit.length}; type more of the name.`);
      put(list, fit.map((each) => h("li", h("button.link", { type: "button", onclick: () => take(keyOf(each)) }, keyOf(each)), each.state !== "ready" && h("span.quiet", each.state))));
    } catch (error) { put(said, error.message); }
  };
  const input = h("input", { type: "search", "aria-label": "Part of its name", placeholder: "Part of its name", autocomplete: "off", spellcheck: false, autofocus: true, oninput: soon(look),
    onkeydown: (event) => { if (event.key === "Enter") list.querySelector("button")?.click(); } });
  look();
  await dialog("Which encoder?", [input, said, list]);
  return chosen;
}

let first = null; // two selects of a page read the same

/** Fill `select` after the options that it has; `wanted(encoder)` says which. What is chosen stays chosen. */
export async function encoders(select, wanted = () => true) {
  first ??= named("", { limit: PAGE }).catch((error) => { first = null; throw error; });
  const [found, chosen] = [await first, select.value];
  [...select.options].find((option) => option.value === FIND)?.remove();
  const there = new Set([...select.options].map((option) => option.value));
  select.append(...found.filter((each) => !there.has(keyOf(each)) && wanted(each)).map((each) => h("option", { value: keyOf(each) }, each.state === "ready" ? keyOf(each) : `${keyOf(each)} (${each.state})`)));
  if (found.length === PAGE) select.append(h("option", { value: FIND }, "find another …"));
  select.value = chosen;
  if (select.dataset.filled) return; // the page was filled again: it listens already
  select.dataset.filled = "yes";
  finds(select, wanted);
}

/** Choose what may not be among the options yet: an address or a form that was kept may name any encoder. */
export function choose(select, value) {
  const options = [...select.options];
  if (value && !options.some((option) => option.value === value)) select.add(h("option", { value }, value), options.find((option) => option.value === FIND) ?? null);
  select.value = value;
}

/** Before others hear of it: "find another" is no choice. */
function finds(select, wanted) {
  let before = select.value;
  select.addEventListener("focus", () => { before = select.value; });
  select.addEventListener("change", async (event) => {
    if (select.value !== FIND) { before = select.value; return; }
    event.stopImmediatePropagation();
    select.value = before;
    const key = await find(wanted);
    if (!key) return;
    choose(select, key);
    for (const told of ["input", "change"]) select.dispatchEvent(new Event(told, { bubbles: true }));
  }, { capture: true });
}
