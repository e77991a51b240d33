// The jobs, newest first, and the form that starts one.

import { get, keyOf, onReturn, post } from "./api.js";
import { $, h, may, put, withhold } from "./dom.js";
import { ago, plural, seconds } from "./format.js";
import { coloured, worstOf } from "./figures.js";
import { choose, encoders, measurable } from "./pickers.js";
import { page } from "./shell.js";
import { sortable } from "./sorting.js";
import { chip, ENDED, progress } from "./status.js";

const PAGE = 50;
const LOOK_MS = 2000;
const place = $("page");
const form = $("start");
const KEPT = "tuning-form";
let timer = 0;

const columns = [
  { text: "encoder", value: (job) => job.name, cell: (job) => h("a", { href: `/console/tuning/${job.id}` }, job.encoder ? keyOf(job.encoder) : job.name) },
  { text: "status", value: (job) => job.status, cell: (job) => (ENDED.has(job.status) ? chip(job.status) : progress(job)) },
  { text: "dataset", value: (job) => job.dataset, cell: (job) => job.dataset },
  { text: "dev gain", figures: true, value: (job) => job.result?.dev?.gain, cell: (job) => (job.result?.dev?.gain === undefined ? "" : coloured(job.result.dev.gain)) },
  { text: "worst guard", figures: true, value: (job) => worstOf(job.result)?.change, cell: (job) => { const worst = worstOf(job.result); return worst && [h("span.quiet", `${worst.name} `), coloured(worst.change)]; } },
  { text: "took", figures: true, value: (job) => (job.finished_at ?? Date.now() / 1000) - (job.started_at ?? job.created_at), cell: (job) => (job.started_at ? seconds((job.finished_at ?? Date.now() / 1000) - job.started_at) : "–") },
  { text: "started", figures: true, value: (job) => job.created_at, cell: (job) => ago(job.created_at) },
];
const jobs = sortable(columns, { caption: "Tuning jobs", by: 6, down: true });
let shown = PAGE;

async function load() {
  clearTimeout(timer);
  const { tuning_jobs: found } = await get(`/tuning-jobs?limit=${shown}&brief=true`);
  if (!found.length) {
    put(place, h("div.empty", h("h2", "No tuning yet"), h("p", "A tuning learns from judged questions in the background and makes a query encoder of its own. Guards watch that nothing else is lost."),
      h("button.primary", { type: "button", needs: "write", onclick: () => open(true) }, "Start one")));
    return;
  }
  jobs.rows(found);
  if (!jobs.element.isConnected) put(place, h("section.panel", jobs.element), h("p.more", { id: "more" }));
  put($("more"), found.length === shown && h("button", { type: "button", onclick: () => { shown += PAGE; run(); } }, `Show ${PAGE} more`));
  if (found.some((job) => !ENDED.has(job.status))) timer = setTimeout(() => { if (document.hidden) addEventListener("visibilitychange", run, { once: true }); else run(); }, LOOK_MS);
}
const run = page(place, load);

// ------- the form

function open(wanted) {
  form.hidden = !wanted;
  $("new").setAttribute("aria-expanded", wanted);
  if (wanted) { scrollTo({ top: 0 }); $("job-name").focus({ preventScroll: true }); }
}

async function choices() {
  put($("job-parent"), h("option", { value: "base@1" }, "base@1"));
  const [{ datasets }] = await Promise.all([get("/datasets"), encoders($("job-parent"), measurable)]);
  const kept = { ...remembered() };
  const tunable = datasets.filter((each) => each.splits.train && each.splits.dev && each.passages == null)
    .sort((a, b) => b.splits.train.pairs - a.splits.train.pairs); // what there is most to learn from comes first, not a handful of judgments
  put($("job-dataset"), tunable.map((each) => h("option", { value: each.name }, `${each.name} (${plural(each.splits.train.pairs, "pair")})`)));
  if (!tunable.length) put($("job-dataset"), h("option", { value: "" }, "none has the splits train and dev"));
  const guards = datasets.flatMap((each) => Object.entries(each.splits).filter(([split]) => split !== "train" && split !== "dev").map(([split, counts]) => [`${each.name}:${split}`, counts]));
  if (guards.length) put($("guards"), guards.slice(0, 200).map(([name, counts]) => h("label", h("input", { type: "checkbox", name: "guards", value: name }), name, h("span.quiet", plural(counts.queries, "question")))));
  fillIn(kept);
  fillIn(fromAddress());
}

function fromAddress() {
  const given = Object.fromEntries(new URLSearchParams(location.search));
  return given.guards ? { ...given, guards: given.guards.split(",") } : given;
}

function fillIn(values) {
  for (const [name, value] of Object.entries(values)) {
    for (const field of form.querySelectorAll(`[name="${CSS.escape(name)}"]`)) {
      if (field.type === "checkbox") field.checked = value.includes(field.value);
      else if (name === "parent") choose(field, value);
      else if (field.tagName !== "SELECT" || [...field.options].some((option) => option.value === value)) field.value = value;
    }
  }
}

// What was typed outlives a reload and a service that is away.
const remembered = () => { try { return JSON.parse(sessionStorage.getItem(KEPT)) ?? {}; } catch { return {}; } };
const typed = () => ({ ...Object.fromEntries(new FormData(form)), guards: new FormData(form).getAll("guards") });
form.addEventListener("input", () => { try { sessionStorage.setItem(KEPT, JSON.stringify(typed())); } catch {} });

function body() {
  const said = typed();
  const sent = { name: said.name.trim(), parent: said.parent, dataset: said.dataset, activate: said.activate, guards: said.guards, recipe: {}, gate: {} };
  for (const field of form.querySelectorAll("[name*='.']")) {
    const [group, name] = field.name.split(".");
    const value = field.value.trim();
    if (value === (field.dataset.default ?? "")) continue; // the service's own defaults
    if (field.dataset.kind === "lines") sent[group][name] = value.split("\n").map((line) => line.trim()).filter(Boolean);
    else if (field.dataset.kind === "number") sent[group][name] = value === "" ? null : value === "auto" || Number.isNaN(Number(value)) ? value : Number(value);
    else sent[group][name] = value;
  }
  return sent;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const problem = $("start-problem");
  const button = form.querySelector(".primary");
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  problem.hidden = true;
  button.disabled = true;
  try {
    const job = await post("/tuning-jobs", body(), { headers: { "Idempotency-Key": crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` } });
    try { sessionStorage.removeItem(KEPT); } catch {}
    location.href = `/console/tuning/${job.id}`;
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
    for (const { field } of [...(error.problem?.errors ?? []), { field: error.problem?.field }]) {
      const at = field && form.querySelector(`[name="${CSS.escape(field.split(".").slice(0, 2).join("."))}"]`);
      if (at) { at.setAttribute("aria-invalid", "true"); at.closest("details")?.setAttribute("open", ""); at.focus(); }
    }
  } finally {
    button.disabled = false;
  }
});
$("new").addEventListener("click", () => open(form.hidden));
$("never-mind").addEventListener("click", () => { open(false); $("new").focus(); });
choices().catch(() => {});
withhold($("new"), "write");
withhold(form.querySelector("[value=if-gate-passes]"), "admin"); // it would switch
if (!form.hidden) open(may("write"));
onReturn(() => choices().catch(() => {}));
