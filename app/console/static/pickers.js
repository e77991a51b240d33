// A select of encoders, a page at a time: there may be ten thousand.

import { get, keyOf } from "./api.js";
import { h } from "./dom.js";

const PAGE = 80;
const MORE = "…more";
const pages = new Map(); // two selects of a page read the same

function read(from) {
  if (!pages.has(from)) pages.set(from, get(`/encoders?limit=${PAGE}&offset=${from}&brief=true`).catch((error) => { pages.delete(from); throw error; }));
  return pages.get(from);
}

/** Fill `select` after the options that it has; `wanted(encoder)` says which. What is chosen stays chosen. */
export async function encoders(select, wanted = () => true) {
  let [from, before] = [0, select.value];
  const load = async () => {
    const { encoders: found } = await read(from);
    from += found.length;
    const chosen = select.value === MORE ? before : select.value;
    [...select.options].find((option) => option.value === MORE)?.remove();
    const there = new Set([...select.options].map((option) => option.value));
    for (const each of found) {
      const key = keyOf(each);
      if (!there.has(key) && wanted(each)) select.append(h("option", { value: key }, each.state === "ready" ? key : `${key} (${each.state})`));
    }
    if (found.length === PAGE) select.append(h("option", { value: MORE }, "more …"));
    select.value = chosen;
  };
  await load();
  if (select.dataset.filled) return; // the page was filled again: it listens already
  select.dataset.filled = "yes";
  // Before others hear of it: "more" is no choice.
  select.addEventListener("change", (event) => {
    if (select.value !== MORE) { before = select.value; return; }
    event.stopImmediatePropagation();
    load().catch(() => { select.value = before; });
  }, { capture: true });
}
