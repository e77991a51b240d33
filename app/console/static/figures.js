// What a tuning found, read from a job's result or an encoder's metrics, and shown: both tell it in the same words.

import { intervals } from "./charts.js";
import { h, table } from "./dom.js";
import { language, number, signed, tiny } from "./format.js";

/** Dev first, then the guards: [{name, before, after, change, low, high, p, held, drift, queries, metrics, languages}]. */
export function setsOf(found) {
  if (found?.dev?.gain === undefined) return [];
  const row = (name, each, change) => ({ ...each, name, change, p: each.p_holm ?? each.p });
  return [row("dev", found.dev, found.dev.gain), ...Object.entries(found.guards ?? {}).map(([name, each]) => row(name, each, each.change))];
}

/** The guard that lost most, or gained least. */
export const worstOf = (found) => setsOf(found).slice(1).reduce((worst, each) => (!worst || each.change < worst.change ? each : worst), null);

export function gained(found, limit) {
  const rows = setsOf(found);
  if (!rows.length) return null;
  return h("section.panel", h("h2", "What it gained and what it kept"),
    h("p.quiet", "Change of MRR@10 against the base with 95% intervals, on questions that nothing was chosen by.", limit < 1 ? ` The dashed line is the loss that a guard may have, ${limit}.` : ""),
    intervals(rows, { title: "Change of MRR@10 by set, with 95% intervals", limit: limit < 0.5 ? limit : undefined }));
}

export function matrix(found) {
  const rows = setsOf(found);
  if (!rows.length) return null;
  const span = (each) => (Number.isFinite(each.low) ? `${signed(each.low)} to ${signed(each.high)}` : "–");
  const held = (each) => (each.held === true ? h("span.chip.good", "held") : each.held === false ? h("span.chip.bad", "not shown") : "");
  return h("section.panel.wide", h("h2", "The figures"),
    table(["set", ...["questions", "before", "after", "change", "95% interval", "p", "drift"].map((text) => ({ text, figures: true })), ""],
      rows.map((each) => [each.name, number(each.queries), number(each.before, 3), number(each.after, 3), coloured(each.change), span(each), each.p === undefined ? "" : tiny(each.p), tiny(each.drift), held(each)]),
      { caption: "MRR@10 before and after, by set" }),
    byLanguage(rows));
}

export const coloured = (value, digits = 3) => h("b", { class: value > 0 ? "up" : value < 0 ? "down" : "" }, signed(value, digits));

const MEASURES = { mrr: "MRR@10", ndcg: "nDCG@10", recall_10: "recall@10", recall_100: "recall@100" };

function byLanguage(rows) {
  const told = rows.flatMap((each) => [
    each.metrics && [each.name, each.metrics],
    ...Object.entries(each.languages ?? {}).map(([code, figures]) => [`${each.name}, ${language(code)}`, figures]),
  ].filter(Boolean));
  if (!told.length) return null;
  return h("details", h("summary", "Other measures, and by language"),
    table(["", ...Object.values(MEASURES).map((text) => ({ text, figures: true }))],
      told.map(([name, figures]) => [name, ...Object.keys(MEASURES).map((measure) => (figures[measure] ? `${number(figures[measure].before, 3)} → ${number(figures[measure].after, 3)}` : ""))]),
      { caption: "Other measures before and after" }));
}

export function drifts(found) {
  const rows = setsOf(found).filter((each) => Number.isFinite(each.drift));
  if (!rows.length) return null;
  const most = Math.max(...rows.map((each) => each.drift), 1e-12);
  return h("section.panel", h("h2", "How far questions moved"), h("p.quiet", "Drift: the mean of 1 − cos between a question's vector before and after."),
    h("div.bars", rows.flatMap((each) => [h("span", each.name), h("span.bar", h("i", { style: { width: `${(100 * each.drift) / most}%` } })), h("span.figures", tiny(each.drift))])));
}

/** The gate's rules, kept and broken. */
export function verdict(found) {
  const reasons = found?.gate?.reasons;
  if (!reasons) return null;
  const rule = (reason) => {
    const kept = reason.startsWith("kept: ");
    const said = reason.replace(/^(kept|BROKEN): /, "").replace(/(?<=\s)-(?=\d)/g, "−");
    return h("li", h("span", { class: kept ? "up" : "down", "aria-label": kept ? "kept" : "broken" }, kept ? "✓" : "✗"), h("span", said[0].toUpperCase() + said.slice(1) + "."));
  };
  return h("section.panel", h("h2", "Gate ", h("span.chip", { class: found.gate.passed ? "good" : "bad" }, found.gate.passed ? "passed" : "did not pass")),
    h("ul.reasons", [...reasons].sort((a, b) => Number(a.startsWith("kept")) - Number(b.startsWith("kept"))).map(rule)));
}
