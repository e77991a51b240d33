// A recipe as a table, and what a search tried: the trade-off over the share of the step that is kept.

import { lines } from "./charts.js";
import { h, table } from "./dom.js";
import { number, signed, tiny } from "./format.js";

const written = (value) => (value === null || (Array.isArray(value) && !value.length) ? "–" : Array.isArray(value) ? value.join(", ") : String(value));

export function recipe(given, chosen = {}) {
  const row = ([name, value]) => h("div", h("dt", name.replaceAll("_", " ")), h("dd", chosen[name] !== undefined && chosen[name] !== value ? [`${written(value)} → `, h("b", written(chosen[name]))] : written(value)));
  return h("section.panel", h("h2", "Recipe"), h("dl.pairs", Object.entries(given).map(row)));
}

export function weights(found) {
  const moved = found?.weights;
  if (!moved) return null;
  return h("section.panel", h("h2", "Weights that moved"), h("dl.facts",
    h("dt", "moved"), h("dd", `${number(moved.moved)} of ${number(moved.weights)} (${number((100 * moved.moved) / moved.weights, 1)}%)`),
    h("dt", "mean change"), h("dd", tiny(moved.mean_change)), h("dt", "largest"), h("dd", tiny(moved.max_change)),
    found.pairs !== undefined && [h("dt", "pairs"), h("dd", number(found.pairs))],
    found.chosen && [h("dt", "kept of the step"), h("dd", `a = ${found.chosen.soften}`)]));
}

const COURSE = ["learning_rate", "epochs", "reach", "temperature", "runs"];

const change = (point) => [point.soften, point.dev];

/** The curve of the tuning that was taken, and of the rates where they were searched. */
export function tradeOff(found) {
  const trials = (found?.search ?? []).filter((trial) => trial.points?.length);
  const taken = [...trials].reverse().find((trial) => trial.stage !== "rate" && COURSE.every((name) => (found.chosen ?? trial)[name] === trial[name])) ?? trials.at(-1);
  if (!taken || taken.points.length < 2) return null;
  const place = h("div");
  const points = taken.points.map((point) => ({ ...point, means: Object.values(point.guards ?? {}) }));
  const mean = (values) => values.reduce((sum, each) => sum + each, 0) / values.length;
  const draw = lines(place, { title: "Change of MRR@10 by the share of the step that is kept" });
  draw([
    { name: "dev", colour: 1, points: points.map(change) },
    { name: "guards, mean", colour: 3, points: points.filter((point) => point.means.length).map((point) => [point.soften, mean(point.means)]) },
    { name: "guards, worst", colour: 2, points: points.filter((point) => point.means.length).map((point) => [point.soften, Math.min(...point.means)]) },
  ].map((each) => ({ ...each, points: each.points.sort((a, b) => a[0] - b[0]) })), { zero: true, at: found.chosen?.soften, xTitle: "share of the step that is kept, a" });
  return h("section.panel", h("h2", "The trade-off"), h("p.quiet", `Change of MRR@10 on the choose halves as more of the step is kept; a = ${found.chosen?.soften} was taken.`), place);
}

export function rates(found) {
  const trials = (found?.search ?? []).filter((trial) => trial.points?.length || trial.ended);
  if (trials.length < 2) return null;
  const best = (trial) => trial.points.reduce((top, point) => (!top || point.dev > top.dev ? point : top), null);
  return h("section.panel.wide", h("h2", "What was tried"), table(
    ["looked for", ...["rate", "epochs", "reach", "T", "runs", "pairs", "best a", "dev", "guards, worst"].map((text) => ({ text, figures: true }))],
    trials.map((trial) => {
      const point = best(trial);
      const guards = Object.values(point?.guards ?? {});
      return [trial.stage, trial.learning_rate.toExponential(1), number(trial.epochs), trial.reach === undefined ? "" : number(trial.reach), trial.temperature ?? "", trial.runs ?? "", number(trial.pairs), point ? String(point.soften) : "", point ? signed(point.dev) : trial.ended, guards.length ? signed(Math.min(...guards)) : ""];
    }), { caption: "Tunings that the search tried" }));
}
