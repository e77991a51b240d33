// Routes: encoders for a part of the searches, and the way back of each.

import { call, get, Refused } from "./api.js";
import { h, may, table } from "./dom.js";
import { encoder, panel } from "./experiments.js";
import { moment, number } from "./format.js";
import { confirm } from "./shell.js";

/** {element, look()}; hidden as long as there is none. */
export function routes() {
  const shown = panel("routes", async () => {
    const found = may("write") ? (await get("/routes")).routes : [];
    return found.length > 0 && [h("h2", "Routes"), table([{ text: "", figures: true }, "route", "encoder", "takes", "since", ""], found.map((each) => row(each, shown.look)), { caption: "Routes" })];
  });
  return shown;
}

const row = (each, look) => [number(each.generation), each.name, [encoder(each.encoder), each.base_languages.length > 0 && h("div.quiet", `${each.base_languages.join(", ")} stay on base`)], taken(each.match), moment(each.at),
  h("button", { type: "button", needs: "admin", "aria-label": `Roll the route ${each.name} back`, onclick: () => rollBack(each, look) }, "Roll back")];

function taken(match) {
  if (!match) return "who names it";
  const { filter, lang, key } = match;
  return [filter && `${filter.key} = ${filter.value}`, lang.length && `language ${lang.join(", ")}`, key.length && `key ${key.join(", ")}`].filter(Boolean).join(" and ");
}

/** By its own generation: a page that is behind takes nothing back. */
const rollBack = ({ name, encoder: key, generation }, look) => confirm({
  title: `Roll the route ${name} back?`,
  says: [`It has ${key} now. It becomes what it was before: its encoder, what it takes and what stays on base. A second rollback comes back here.`],
  label: "Roll back",
  act: async () => {
    try {
      await call("POST", `/routes/${encodeURIComponent(name)}/rollback`, { headers: { "If-Match": `"${generation}"` } });
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 412) throw error;
      throw new Error("Somebody else changed it meanwhile; nothing was changed. Look again and decide.");
    } finally {
      await look();
    }
  },
});
