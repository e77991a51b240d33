// States as chips, the same everywhere.

import { h } from "./dom.js";

const GOOD = new Set(["ready", "succeeded"]);
const BAD = new Set(["rejected", "broken", "failed", "interrupted"]);

export const chip = (state) => h("span.chip", { class: GOOD.has(state) ? "good" : BAD.has(state) ? "bad" : "" }, state);
export const ENDED = new Set(["succeeded", "rejected", "failed", "cancelled", "interrupted"]);

/** How far a job is, in words and a bar. */
export function progress({ status, progress: told }) {
  const share = told.steps ? (told.step ?? 0) / told.steps : null;
  return [h("span", told.phase ?? status), share !== null && h("div.progress", { role: "progressbar", "aria-valuenow": Math.round(100 * share), "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": "Steps done" }, h("i", { style: { width: `${100 * share}%` } }))];
}
