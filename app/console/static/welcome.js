// The first visit: four steps from an empty service to an encoder of one's own. Gone once they are done, or sent away.

import { get } from "./api.js";
import { h, put } from "./dom.js";
import { plural } from "./format.js";
import { SAMPLE_QUESTION, SAMPLE_TUNING, takeSamples } from "./samples.js";
import { seen, look } from "./shell.js";

const AWAY = "welcome-away";
const SEARCHED = "welcome-searched";
const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
const keep = (name) => { try { localStorage.setItem(name, "1"); } catch {} };

export async function welcome(place, { ask }) {
  if (new URLSearchParams(location.search).get("q")) keep(SEARCHED);
  if (kept(AWAY)) return;
  let count, jobs, datasets;
  try {
    [{ count }, { tuning_jobs: jobs }, { datasets }] = await Promise.all([get("/passages/count"), get("/tuning-jobs?limit=1&brief=true"), get("/datasets"), seen() ?? look()]);
  } catch { return; } // the banner has said why
  const generation = seen().encoder.generation;
  const done = [count > 0, count > 0 && Boolean(kept(SEARCHED)), jobs.length > 0, generation > 1];
  if (done.every(Boolean)) { place.hidden = true; return; }
  const now = done.indexOf(false);
  const sample = datasets.some((dataset) => dataset.name === "beekeeping");
  place.className = "welcome";
  place.hidden = false;
  const step = (at, title, says, ...actions) => h("li", { class: done[at] ? "done" : at === now ? "now" : "", "aria-current": at === now && "step" },
    h("span.no", done[at] ? h("span.up", "✓ ") : `${at + 1}. `, title), h("p.quiet", says), at === now && h("div.actions", actions));
  put(place,
    h("h2", count ? "Next steps" : "Nothing in here yet"),
    !count && h("p.quiet", "Adiabat searches your passages by meaning. They are embedded once and never again; what gets better with time is the encoder that reads the questions. Four steps show it."),
    h("ol.steps",
      step(0, "Put passages in", done[0] ? `${plural(count, "passage")} stored.` : "A knowledge base on beekeeping in five languages, 523 passages with judged questions, to try it with; or your own.",
        place.dataset.samples && h("button.primary", { type: "button", onclick: () => samples(place, ask) }, "Take the samples"), h("a.button", { href: "/console/data" }, "Add your own")),
      step(1, "Search", "Ask as people ask who do not know the words of the trade.",
        h("button.primary", { type: "button", onclick: () => { keep(SEARCHED); ask(sample ? SAMPLE_QUESTION : "what is this about"); } }, sample ? "Ask a question of the samples" : "Ask something")),
      step(2, "Tune an encoder", "It learns from judged questions in the background, while a guard watches every other language.",
        h("a.button", { href: sample ? SAMPLE_TUNING : "/console/tuning?new=1" }, "Tune")),
      step(3, "Switch to it", "See what moved, then switch while searches go on. The way back is one button.",
        h("a.button", { href: jobs[0] ? `/console/tuning/${jobs[0].id}` : "/console/encoders" }, jobs[0] ? "Watch the tuning" : "See the encoders"))),
    h("p", { style: { margin: ".75rem 0 0" } }, h("button.link.quiet", { type: "button", onclick: () => { keep(AWAY); place.hidden = true; } }, "Do not show these steps again")));
}

async function samples(place, ask) {
  const bar = h("progress", { max: 100, "aria-label": "Samples taken" });
  const said = h("p.quiet", { role: "status" }, "Reading the samples");
  put(place, h("h2", "Taking the samples in"), said, bar);
  try {
    const count = await takeSamples((done, total, sentence) => { bar.value = (100 * done) / total; said.textContent = `${sentence}: ${done} of ${total}`; });
    said.textContent = `${count} passages stored.`;
  } catch (error) {
    put(place, h("h2", "The samples could not be taken in"), h("p.problem", { role: "alert" }, error.message),
      h("button", { type: "button", onclick: () => samples(place, ask) }, "Try again"));
    return;
  }
  await welcome(place, { ask });
}
