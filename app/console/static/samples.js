// The sample collection, sent by the same calls as anybody's own.

import { call } from "./api.js";

const BATCH = 64;

/** Passages first, then the judged questions; `told(done, total, sentence)` as it goes. */
export async function takeSamples(told) {
  const corpus = (await (await fetch("/console/samples/corpus.jsonl")).text()).trim().split("\n").map((line) => JSON.parse(line));
  for (let from = 0; from < corpus.length; from += BATCH) {
    told(from, corpus.length, "Embedding passages, once and for all");
    const passages = corpus.slice(from, from + BATCH).map(({ _id, text, title, metadata }) => ({ id: _id, text, title, metadata }));
    await call("POST", "/passages", { json: { passages } });
  }
  told(corpus.length, corpus.length, "Storing the judged questions");
  const judged = await (await fetch("/console/samples/beekeeping.zip")).blob();
  await call("PUT", "/datasets/beekeeping", { body: judged, type: "application/zip" });
  return corpus.length;
}

// What the samples are too few for: the default gate asks for more questions than they have.
export const SAMPLE_TUNING = "/console/tuning?" + new URLSearchParams({
  new: "1", name: "bees", dataset: "beekeeping", guards: "beekeeping:de,beekeeping:es,beekeeping:fr,beekeeping:vi",
  "gate.max_guard_loss": "0.05", "gate.alpha": "0.2",
});
export const SAMPLE_QUESTION = "bees all in the top brood box after winter with the bottom one empty, switch them";
