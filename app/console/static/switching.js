// The switch and the way back. Both carry the generation that the page showed: a stale page switches nothing.

import { call, keyOf, Refused } from "./api.js";
import { h } from "./dom.js";
import { ms, number } from "./format.js";
import { followed, several, spread } from "./replicas.js";
import { confirm, look, saw, seen } from "./shell.js";

export function activate(encoder, done = () => {}) {
  const key = keyOf(encoder);
  const now = seen();
  const rejected = encoder.state === "rejected";
  return confirm({
    title: `Switch to ${key}?`,
    says: [
      `Searches use ${keyOf(now.encoder)} now, generation ${now.encoder.generation}. ${key} is loaded, checked and warmed up first; then one reference changes${inAll(now)}. No request fails, waits or mixes encoders, and no passage is embedded again.`,
      rejected ? "Its gate said no: it did not show that it keeps what it must keep. It is switched to by force, and the history says so." : `If it does not do well, "Roll back" brings ${keyOf(now.encoder)} back at once.`,
    ],
    label: rejected ? "Switch by force" : "Switch",
    danger: rejected,
    act: () => switched("PUT", "/active-encoder", { name: encoder.name, version: encoder.version, force: rejected, timeout_s: 120 }, now, done),
  });
}

const inAll = ({ replicas }) => (replicas?.live > 1 ? ` in each of the ${number(replicas.live)} live replicas` : "");

/** What a rollback would do now, as its button says it; null: nothing. While there is a canary it only ends that. */
export const wayBack = ({ canary, previous }) => (canary ? `End the canary ${canary.encoder}` : previous && `Roll back to ${keyOf(previous)}`);

export const endOfCanary = (canary, active) => ({
  title: `End the canary ${canary}?`,
  says: [`${active} answers all searches again, as a new generation. ${canary} stays registered, and what was counted is kept.`],
  label: "End the canary",
});

export function rollBack(done = () => {}) {
  const now = seen();
  const back = now.previous;
  return confirm({
    ...(now.canary ? endOfCanary(now.canary.encoder, keyOf(now.encoder)) : {
      title: back ? `Roll back to ${keyOf(back)}?` : "Nothing to roll back to",
      says: [back
        ? `Searches use ${keyOf(now.encoder)} now. ${keyOf(back)} is still in memory and becomes active at once, as a new generation. A second rollback comes back here.`
        : `${keyOf(now.encoder)} is the only encoder that was ever active here.`],
      label: "Roll back",
    }),
    act: () => switched("POST", "/active-encoder/rollback", undefined, now, done),
  });
}

async function switched(method, path, json, from, done) {
  let answer;
  try {
    answer = await call(method, path, { json, headers: { "If-Match": from.etag } });
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 412) throw error;
    const { encoder } = await look();
    done();
    throw new Error(`Somebody else switched meanwhile: ${keyOf(encoder)} is active now, generation ${encoder.generation}. Nothing was changed; look again and decide.`);
  }
  saw({ ...answer.data, etag: answer.headers.get("etag") });
  done();
  return told(answer.data, from);
}

function told({ encoder, swap, replicas }, from) {
  const step = (label, ...value) => h("li", h("span", label), h("b.figures", value));
  const waits = replicas.behind.length > 0;
  const heading = h("h2", { id: "dialog-title" }, `${keyOf(encoder)} is active${waits ? ", but not yet everywhere" : ""}`);
  const known = step("Replicas", spread(replicas));
  const everywhere = (now) => { heading.textContent = `${keyOf(encoder)} is active`; known.lastChild.textContent = spread(now); };
  return h("div", heading,
    h("ol.swap", step("Load and check", swap.load_ms ? ms(swap.load_ms) : "was in memory"), step("Warm up", swap.warmup_ms ? ms(swap.warmup_ms) : "was warm"),
      step("Switch", ms(swap.switch_us / 1000)),
      step("Generation", `${number(from.encoder.generation)} → ${number(encoder.generation)}`),
      several(replicas) ? known : step("Searches", "use it now")),
    waits && followed(replicas, encoder.generation, everywhere));
}
