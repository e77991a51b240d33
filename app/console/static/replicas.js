// Several services on one registry: who has the newest generation, who is behind and why. One that serves alone is one of one.

import { get } from "./api.js";
import { h, put } from "./dom.js";
import { number, plural } from "./format.js";

const LOOK_MS = 2000;

/** Whether there is more to say than that one service serves alone; `replicas` is null while the registry does not answer. */
export const several = (replicas) => Boolean(replicas && (replicas.live > 1 || replicas.behind.length));

/** A sentence: how many live replicas have the newest generation. */
export function spread({ live, switched, behind }) {
  if (behind.some((each) => each.name === "unknown")) return "not known";
  if (behind.length) return `${number(switched)} of ${number(live)} have it`;
  return live === 1 ? "this one has it" : `all ${number(live)} have it`;
}

/** Who is behind, one line each; nothing where nobody is. */
export const behind = (replicas) => replicas.behind.length > 0 && h("ul.reasons.behind", replicas.behind.map((each) => h("li", h("span.down", { "aria-hidden": "true" }, "!"),
  h("div", each.name === "unknown" ? h("b", "The other replicas") : [h("b.mono", each.name), ` answers with generation ${number(each.generation)}`],
    h("div.quiet", each.reason ?? "It has not taken it up yet.")))));

/** An element that follows who is behind until nobody is, for as long as it is on the page; `everywhere()` is called then. */
export function followed(replicas, generation, everywhere) {
  const element = h("div", { role: "status" });
  const draw = (now) => put(element, now.behind.length ? behind(now) : h("p", `All ${plural(now.live, "live replica")} have generation ${number(generation)} now.`));
  const look = async () => {
    if (!element.isConnected) return;
    let over = false;
    try {
      const { encoder, replicas: now } = await get("/active-encoder");
      over = encoder.generation !== generation || now?.behind.length === 0; // switched again: another story
      if (now && encoder.generation === generation) { draw(now); if (over) everywhere(now); }
    } catch {} // the banner has said why
    if (!over) setTimeout(look, LOOK_MS);
  };
  draw(replicas);
  setTimeout(look, LOOK_MS);
  return element;
}
