// The first visit: four steps from an empty service to an encoder of one's own. Gone once they are done, or sent away.

import { get } from "./api.js";
import { h, may, put } from "./dom.js";
import { SAMPLE_QUESTION, SAMPLE_TUNING, takeSamples } from "./samples.js";
import { seen, look } from "./shell.js";

const AWAY = "welcome-away";
const SEARCHED = "welcome-searched";
const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
const keep = (name) => { try { localStorage.setItem(name, "1"); } catch {} };

export async function welcome(place, { ask }) {
  if (new URLSearchParams(location.search).get("q")) keep(SEARCHED);
  if (kept(AWAY) || !may("write")) { leave(place); return; }
  let count, jobs, datasets;
  try {
    [{ count }, { tuning_jobs: jobs }, { datasets }] = await Promise.all([get("/passages/count"), get("/tuning-jobs?limit=1&brief=true"), get("/datasets"), seen() ?? look()]);
  } catch { return; } // the banner has said why
  const generation = seen().encoder.generation;
  const done = [count > 0, count > 0 && Boolean(kept(SEARCHED)), jobs.length > 0, generation > 1];
  if (done.every(Boolean)) { keep(AWAY); leave(place); return; }
  const now = done.indexOf(false);
  const sample = datasets.some((dataset) => dataset.name === "beekeeping");
  place.className = "welcome";
  place.hidden = false;
  const step = (at, title, says, ...actions) => h("li", { class: done[at] ? "done" : at === now ? "now" : "", "aria-current": at === now && "step" },
    h("span.no", done[at] ? h("span.up", "✓ ") : `${at + 1}. `, title), h("p.quiet", says), at === now && h("div.actions", actions));
  const away = h("button.link", { type: "button", onclick: () => { keep(AWAY); leave(place); } }, count ? "Hide" : "Do not show these steps again");
  if (count) {
    const [title, says, action] = [
      ["", "", null],
      ["Search", "Ask as people ask who do not know the words of the trade.", h("button.small.primary", { type: "button", onclick: () => { keep(SEARCHED); ask(sample ? SAMPLE_QUESTION : "what is this about"); } }, sample ? "Ask a question of the samples" : "Ask something")],
      ["Tune an encoder", "It learns from judged questions, while guards watch every other language.", h("a.button.small", { href: sample ? SAMPLE_TUNING : "/console/tuning?new=1" }, "Tune")],
      ["Switch to it", "See what moved, then switch while searches go on.", h("a.button.small", { href: jobs[0] ? `/console/tuning/${jobs[0].id}` : "/console/encoders" }, jobs[0] ? "See the tuning" : "See the encoders")],
    ][now];
    place.className = "welcome slim";
    put(place, h("span.pips", { role: "img", "aria-label": `Step ${now + 1} of 4` }, done.map((each) => h("i", { class: each && "on" }))), h("p", h("b", `${title}. `), h("span.quiet", says)), action, away);
    return;
  }
  put(place,
    h("h2", "Nothing in here yet"),
    h("p.quiet", "Adiabat searches your passages by meaning. They are embedded once and never again; what gets better with time is the encoder that reads the questions. Four steps show it."),
    h("ol.steps",
      step(0, "Put passages in", "A knowledge base on beekeeping in five languages, 523 passages with judged questions, to try it with; or your own.",
        place.dataset.samples && h("button.primary", { type: "button", onclick: () => samples(place, ask) }, "Take the samples"), h("a.button", { href: "/console/data" }, "Add your own")),
      step(1, "Search", "Ask as people ask who do not know the words of the trade."),
      step(2, "Tune an encoder", "It learns from judged questions in the background, while a guard watches every other language."),
      step(3, "Switch to it", "See what moved, then switch while searches go on. The way back is one button.")),
    h("p.away", away));
}

/** Not again, and no room is kept for it (theme.js). */
function leave(place) {
  place.hidden = true;
  delete document.documentElement.dataset.welcome;
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
