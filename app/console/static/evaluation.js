// One evaluation: encoders against datasets, or languages, as a heat map; the figures below it sort.

import { get, post } from "./api.js";
import { $, h, put, table } from "./dom.js";
import { language, moment, number, signed, tiny } from "./format.js";
import { csv, download, heat, picture } from "./heat.js";
import { coloured } from "./figures.js";
import { confirm, page, toast } from "./shell.js";
import { sortable } from "./sorting.js";
import { chip, ENDED, progress } from "./status.js";

const place = $("page");
const { id } = place.dataset;
const path = `/evaluations/${encodeURIComponent(id)}`;
const MEASURES = { mrr: "MRR@10", ndcg: "nDCG@10", recall_10: "recall@10", recall_100: "recall@100", triplets: "triplets" };
let [found, measure, by] = [null, "mrr", "dataset"];

async function load() {
  found = await get(path);
  put($("actions"),
    !ENDED.has(found.status) && h("button", { type: "button", needs: "write", onclick: cancel }, "Cancel"),
    found.status === "interrupted" && h("button.primary", { type: "button", needs: "write", onclick: () => post(`${path}/resume`).then(run, (error) => toast(error.message, "bad")) }, "Resume"),
    found.result && Object.keys(found.result.datasets).length > 0 && [h("button", { type: "button", onclick: saveCsv }, "CSV"), h("button", { type: "button", onclick: savePicture }, "PNG")]);
  if (!found.result) {
    put(place, h("section.panel", h("h2", found.encoders.join(", ")), h("p.quiet", [...found.datasets, ...(found.replay ? ["logged queries, asked again"] : [])].join(", ")), ENDED.has(found.status) ? [h("p", chip(found.status)), found.reason && h("p.problem", found.reason)] : progress(found)));
    if (!ENDED.has(found.status)) setTimeout(run, 1000);
    return;
  }
  draw();
}

const cellOf = (encoder, column) => {
  const [dataset, lang] = column.split(" · ");
  const whole = found.result.matrix[encoder]?.[dataset];
  return lang === undefined ? whole : whole?.languages[lang];
};
const columns = () => {
  const first = Object.values(found.result.matrix)[0];
  return by === "dataset" ? Object.keys(first) : Object.entries(first).flatMap(([dataset, cell]) => Object.keys(cell.languages).map((lang) => `${dataset} · ${lang}`));
};
const star = (p) => (p === null || p === undefined ? "" : p < 0.01 ? " **" : p < 0.05 ? " *" : "");

function map() {
  const base = Object.keys(found.result.matrix)[0];
  return {
    caption: `${MEASURES[measure]} by encoder and ${by === "dataset" ? "dataset" : "language"}`,
    rows: Object.keys(found.result.matrix), columns: columns(),
    cell: (encoder, column) => {
      const [cell, before] = [cellOf(encoder, column), cellOf(base, column)];
      if (!cell) return null;
      const difference = measure === "mrr" ? cell.difference : null;
      return { figure: cell[measure], change: encoder === base ? undefined : difference?.change ?? cell[measure] - before[measure], low: difference?.low, high: difference?.high, star: star(difference?.p_holm ?? difference?.p) };
    },
  };
}

function replayed({ against, searches, queries, left_out, encoders }) {
  const rows = Object.entries(encoders).flatMap(([encoder, whole]) => [{ encoder, lang: "", ...whole }, ...Object.entries(whole.languages).map(([lang, part]) => ({ encoder, lang, ...part }))]);
  const cells = (row) => [row.lang ? "" : h("a", { href: `/console/encoders/${encodeURIComponent(row.encoder)}` }, row.encoder), row.lang ? language(row.lang) : "all", number(row.searches), number(row.overlap, 3), number(row.rbo, 3), `${number(100 * row.first_changed, 1)}%`, number(row.churn, 2), row.judged ? [number(row.judged.mrr, 3), " ", coloured(row.judged.difference.change)] : "–"];
  const heads = ["searches", "overlap@10", "rank-biased overlap", "first hit changed", "ranks moved", "MRR@10, judged"].map((text) => ({ text, figures: true }));
  const changes = Object.entries(encoders).flatMap(([encoder, each]) => (each.changes ?? []).map((change) => [h("a", { href: `/?${new URLSearchParams({ q: change.query, encoder, compare: against })}`, dir: "auto", title: "Compare the answers" }, change.query), encoder, change.lang ? language(change.lang) : "–", number(change.times), number(change.overlap, 1), number(change.rbo, 3)]));
  return h("section.panel", h("h2", "Logged queries, asked again"),
    h("p.about", `${number(searches)} searches, ${number(queries)} different, against ${against}. ${left_out ? `${number(left_out)} were left out: by words (lexical, hybrid), or with filters that cannot be served. ` : ""}What differs need not be worse; only judged queries say which is better.`),
    table(["encoder", "language", ...heads], rows.map(cells), { caption: "What would change" }),
    changes.length ? [h("h3", "What changes most"), table(["question", "encoder", "language", ...["asked", "overlap@10", "rank-biased overlap"].map((text) => ({ text, figures: true }))], changes, { caption: "The largest changes" })] : null);
}

function draw() {
  if (!Object.keys(found.result.datasets).length) { put(place, replayed(found.result.replay)); return; }
  const pick = (label, values, chosen, act) => h("label", { style: { display: "inline-flex", gap: ".4rem", "align-items": "center" } }, label, h("select", { onchange: (event) => act(event.target.value) }, Object.entries(values).map(([value, text]) => h("option", { value, selected: value === chosen }, text))));
  const told = map();
  const rows = told.rows.flatMap((encoder) => told.columns.map((column) => ({ encoder, column, ...cellOf(encoder, column) }))).filter((row) => row.queries);
  const all = sortable([
    { text: "encoder", value: (row) => row.encoder, cell: (row) => h("a", { href: `/console/encoders/${encodeURIComponent(row.encoder)}` }, row.encoder) },
    { text: "on", value: (row) => row.column, cell: (row) => row.column },
    { text: "questions", figures: true, value: (row) => row.queries, cell: (row) => number(row.queries) },
    ...Object.entries(MEASURES).map(([name, text]) => ({ text, figures: true, value: (row) => row[name], cell: (row) => number(row[name], 3) })),
    { text: "change of MRR@10", figures: true, value: (row) => row.difference?.change, cell: (row) => row.difference && coloured(row.difference.change) },
    { text: "95% interval", figures: true, cell: (row) => row.difference && `${signed(row.difference.low)} to ${signed(row.difference.high)}` },
    { text: "p", figures: true, title: "After Holm, where it is of a whole dataset", value: (row) => row.difference?.p_holm ?? row.difference?.p, cell: (row) => row.difference && tiny(row.difference.p_holm ?? row.difference.p) },
    { text: "drift", figures: true, value: (row) => row.drift, cell: (row) => (row.drift === undefined ? "" : tiny(row.drift)) },
  ], { caption: "All figures", by: 1 });
  all.rows(rows);
  const missing = Object.entries(found.result.datasets).filter(([, each]) => each.missing.judgments);
  put(place,
    h("section.panel", h("div.picks", pick("Measure", MEASURES, measure, (value) => { measure = value; draw(); }), pick("By", { dataset: "dataset", language: "language" }, by, (value) => { by = value; draw(); })),
      told.columns.length ? heat(told) : h("p.quiet", "The questions name no languages."),
      h("p.about", { style: { "margin-top": ".5rem" } }, "Below each figure its difference to the base: blue is better, orange is worse. ", measure === "mrr" ? "* p < 0.05, ** p < 0.01, after Holm over the datasets of an encoder." : "", ` Measured ${moment(found.finished_at)}.`)),
    missing.length ? h("p.problem", `Judgments that name a passage which is not there were left out: ${missing.map(([name, each]) => `${number(each.missing.judgments)} in ${name}`).join(", ")}.`) : null,
    h("section.panel", h("h2", "All figures"), all.element),
    found.result.replay ? replayed(found.result.replay) : null);
}

function saveCsv() {
  const head = ["encoder", "on", "questions", ...Object.keys(MEASURES), "change", "low", "high", "p", "p_holm", "drift"];
  const told = map();
  const rows = told.rows.flatMap((encoder) => told.columns.map((column) => [encoder, column, cellOf(encoder, column)])).filter(([, , cell]) => cell)
    .map(([encoder, column, cell]) => [encoder, column, cell.queries, ...Object.keys(MEASURES).map((name) => cell[name]), ...["change", "low", "high", "p", "p_holm"].map((name) => cell.difference?.[name] ?? ""), cell.drift ?? ""]);
  download(csv([head, ...rows]), `evaluation-${id}.csv`);
}

const savePicture = () => picture(map()).toBlob((blob) => download(blob, `evaluation-${id}.png`), "image/png");

const cancel = () => confirm({ title: "Cancel the evaluation?", says: ["It stops and leaves no figures."], label: "Cancel the evaluation", danger: true, act: async () => { await post(`${path}/cancel`); run(); } });

const run = page(place, load);
