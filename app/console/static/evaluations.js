// Evaluations, newest first, and the form that starts one.

import { get, keyOf, post } from "./api.js";
import { $, h, put } from "./dom.js";
import { ago, plural, seconds } from "./format.js";
import { find, measurable, named } from "./pickers.js";
import { page } from "./shell.js";
import { sortable } from "./sorting.js";
import { chip, ENDED, progress } from "./status.js";

const PAGE = 50;
const LOOK_MS = 2000;
const LISTED = 80; // encoders to tick; any other is found by its name
const place = $("page");
const form = h("form.panel", { hidden: true, onsubmit: start });
let shown = PAGE;
let timer = 0;

const table = sortable([
  { text: "measured", value: (row) => row.encoders.join(), cell: (row) => h("a", { href: `/console/evaluations/${row.id}` }, row.encoders.join(", ")) },
  { text: "on", value: (row) => row.datasets.join(), cell: (row) => h("span", [...row.datasets.slice(0, 4), ...(row.replay ? ["logged queries"] : [])].join(", "), row.datasets.length > 4 && ` and ${row.datasets.length - 4} more`) },
  { text: "status", value: (row) => row.status, cell: (row) => (ENDED.has(row.status) ? chip(row.status) : progress(row)) },
  { text: "took", figures: true, value: (row) => (row.finished_at ?? 0) - (row.started_at ?? 0), cell: (row) => (row.finished_at && row.started_at ? seconds(row.finished_at - row.started_at) : "–") },
  { text: "started", figures: true, value: (row) => row.created_at, cell: (row) => ago(row.created_at) },
], { caption: "Evaluations", by: 4, down: true });

async function load() {
  clearTimeout(timer);
  const { evaluations } = await get(`/evaluations?limit=${shown}`);
  table.rows(evaluations);
  if (!form.isConnected) put(place, form, h("div", { id: "list" }));
  put($("list"), evaluations.length ? h("section.panel", table.element, evaluations.length === shown && h("p.more", h("button", { type: "button", onclick: () => { shown += PAGE; run(); } }, `Show ${PAGE} more`)))
    : h("div.empty", h("h2", "Nothing measured yet"), h("p", "An evaluation measures encoders on judged questions, exactly, each against the base, with intervals and a test."), h("button.primary", { type: "button", needs: "write", onclick: open }, "Measure encoders")));
  if (evaluations.some((each) => !ENDED.has(each.status))) timer = setTimeout(run, LOOK_MS);
}

async function open() {
  form.hidden = !form.hidden;
  if (form.hidden) return;
  const [encoders, { datasets }] = await Promise.all([named("", { limit: LISTED }), get("/datasets")]);
  const box = (name, value, checked, note) => h("label", h("input", { type: "checkbox", name, value, checked }), value, note && h("span.quiet", note));
  const splits = datasets.flatMap((each) => Object.entries(each.splits).filter(([split]) => split !== "train").map(([split, counts]) => [`${each.name}:${split}`, counts.queries]));
  const fits = (each) => measurable(each) && keyOf(each) !== "base@1";
  const checks = h("div.checks", encoders.filter(fits).map((each) => box("encoders", keyOf(each), each.active)));
  const another = async () => {
    const key = await find(fits);
    const there = key && [...checks.querySelectorAll("input")].find((each) => each.value === key);
    if (there) there.checked = true;
    else if (key) checks.append(box("encoders", key, true));
  };
  put(form, h("h2", "Measure encoders"), h("p.quiet", "In the trainer's process; searches are not touched. The base is measured always."),
    h("fieldset", h("legend", "Encoders"), checks, encoders.length === LISTED && h("p.more", h("button.small", { type: "button", onclick: another }, "Find another …"))),
    h("fieldset", h("legend", "On"), h("div.checks", splits.length ? splits.slice(0, 200).map(([name, count]) => box("datasets", name, !name.endsWith(":dev"), plural(count, "question"))) : h("span.quiet", "No dataset yet: add one under Data."))),
    h("p.problem", { role: "alert", hidden: true }), h("div.actions", { style: { "margin-top": "1rem" } }, h("button.primary", "Measure"), h("button", { type: "button", onclick: open }, "Not now")));
  form.querySelector("input")?.focus();
}

async function start(event) {
  event.preventDefault();
  const said = new FormData(form);
  const problem = form.querySelector(".problem");
  problem.hidden = true;
  try {
    const made = await post("/evaluations", { encoders: ["base@1", ...said.getAll("encoders")], datasets: said.getAll("datasets") });
    location.href = `/console/evaluations/${made.id}`;
  } catch (error) { problem.textContent = error.message; problem.hidden = false; }
}

put($("actions"), h("button.primary", { type: "button", needs: "write", onclick: open }, "Measure encoders"));
const run = page(place, load);
