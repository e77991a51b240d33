// Canaries, past and running, with what their clicks say, and the standing order to tune with what was done by it.

import { call, get, Refused } from "./api.js";
import { h, put, table } from "./dom.js";
import { moment, number, signed } from "./format.js";
import { confirm, look as lookAgain } from "./shell.js";
import { endOfCanary } from "./switching.js";

const PAGE = 10;
const FORBIDDEN = 403; // a key that may not see it
const VERDICTS = { better: "good", worse: "bad" };

/** {element, look()}; hidden as long as there is nothing to show. */
export const experiments = () => panel("experiments", async () => {
  const found = (await get(`/experiments?limit=${PAGE}`)).experiments;
  return found.length > 0 && [h("h2", "Experiments"), table([{ text: "", figures: true }, "canary", { text: "searches", figures: true }, { text: "difference", figures: true, title: "Canary less active, with an interval that holds at all looks" }, "so far", "state"], found.map(row), { caption: "Experiments" })];
});

export const continuous = () => panel("continuous", async () => {
  const [found, { steps }] = await Promise.all([get("/continuous-tuning"), get(`/continuous-tuning/history?limit=${PAGE}`)]);
  return steps.length > 0 && [h("h2", "Continuous tuning"), h("p", h("b", found.state), ` ${found.said}`),
    table(["when", "step", "why"], steps.map((step) => [moment(step.at), [step.kind, step.encoder && [" ", encoder(step.encoder)]], h("span", { dir: "auto" }, step.said)]), { caption: "Steps of continuous tuning" })];
});

export function panel(id, draw) {
  const element = h("section.panel", { id, hidden: true });
  async function look() {
    let drawn = null;
    try {
      drawn = await draw();
    } catch (error) {
      if (!(error instanceof Refused)) return; // the banner has said why
      if (error.status !== FORBIDDEN) drawn = h("p.problem", { role: "alert" }, error.message);
    }
    element.hidden = !drawn;
    if (drawn) put(element, drawn);
  }
  return { element, look };
}

export const encoder = (key) => h("a", { href: `/console/encoders/${encodeURIComponent(key)}` }, key);

function row(each) {
  const { canary, active_arm: active, canary_arm: tried, effect } = each;
  const asked = canary.interleave ? active.requests : active.requests + tried.requests;
  const shown = (share) => (canary.interleave ? signed(share, 2) : `${signed(100 * share, 1)}%`);
  return [number(each.id), [encoder(canary.encoder), h("div.quiet", `${number(canary.percent)}%${canary.interleave ? ", interleaved" : ""} beside ${active.encoder}`)], number(asked),
    effect ? h("span", { title: effect.measure }, `${shown(effect.estimate)} (${shown(effect.low)} … ${shown(effect.high)})`) : "–",
    [h("span.chip", { class: VERDICTS[each.verdict] ?? "" }, each.verdict), h("div.quiet", each.said)],
    each.ended_by ? [`ended ${moment(each.ended_at)}`, h("div.quiet", each.note ?? each.ended_by)] : h("button", { type: "button", needs: "admin", onclick: () => end(each) }, "End it")];
}

/** By its own generation: another one's canary is not ended by a page that is behind. */
const end = ({ id, canary, active_arm: active }) => confirm({
  ...endOfCanary(canary.encoder, active.encoder),
  act: async () => {
    try {
      await call("POST", "/active-encoder/rollback", { headers: { "If-Match": `"${id}"` } });
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 412) throw error;
      throw new Error("It has ended already; nothing was changed.");
    } finally {
      await lookAgain();
    }
  },
});
