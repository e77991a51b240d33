// What every page has: the serving encoder above, light and dark, dialogs, short notes, and how a failure is told.

import { active, keyOf, onReturn, Refused, Unreachable } from "./api.js";
import { $, h, put } from "./dom.js";

const root = document.documentElement;
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);

const here = document.querySelector("nav [aria-current]");
if (here) { // on a phone it may be out of sight; not by scrollIntoView, after which the Tab key begins there
  const [row, link] = [here.parentElement, here].map((each) => each.getBoundingClientRect());
  here.parentElement.scrollLeft += link.left + link.width / 2 - row.left - row.width / 2;
}

$("theme")?.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch {}
});

let known = null;
const listeners = new Set();

/** The last that was seen of `/active-encoder`; its `etag` goes with every switch. */
export const seen = () => known;
export const onActive = (listener) => { listeners.add(listener); if (known) listener(known); };

export function saw(state) {
  known = state;
  const { encoder } = state;
  put($("serving"), h("span.dot"), h("b", keyOf(encoder)), h("span.generation", ` generation ${encoder.generation}`));
  for (const listener of listeners) listener(state);
  return state;
}

export const look = async () => saw(await active());
look().catch(() => {});
onReturn(() => look().catch(() => {}));

/** Where a page or a part of it could not be had: what happened, and a button. */
export function failed(place, error, again) {
  if (error.name === "AbortError") return;
  const gone = error instanceof Refused && error.status === 404;
  put(place, h("div.empty", h("h2", gone ? "Not here any more" : error instanceof Unreachable ? "No answer" : "That did not work"),
    h("p", error.message), again && h("button", { type: "button", onclick: again }, "Try again")));
  if (!(error instanceof Refused) && !(error instanceof Unreachable)) console.error(error);
}

/** Runs `load`, shows its failure in `place`, and runs it again when the service is back. */
export function page(place, load) {
  let broken = false;
  const run = async () => {
    try { await load(); broken = false; } catch (error) { broken = true; failed(place, error, run); }
  };
  onReturn(() => { if (broken) run(); });
  run();
  return run;
}

export function toast(sentence, kind = "") {
  const note = h("div.toast", { class: kind }, sentence);
  $("toasts").append(note);
  setTimeout(() => note.remove(), kind === "bad" ? 12000 : 5000);
}

/** A dialog with a title, content and buttons; resolves when it is closed. Escape closes it. */
export function dialog(title, content, buttons = []) {
  const box = $("dialog");
  return new Promise((resolve) => {
    put(box, h("h2", { id: "dialog-title", dir: "auto" }, title), h("div.dialog-body", content),
      h("div.actions", buttons, h("button", { type: "button", onclick: () => box.close() }, buttons.length ? "Not now" : "Close")));
    box.addEventListener("close", () => resolve(), { once: true });
    if (!box.open) box.showModal();
  });
}

/** Ask, then do; the dialog says what will happen, and a refusal in its own words. */
export function confirm({ title, says, label, danger, act }) {
  const problem = h("p.problem", { role: "alert", hidden: true });
  const button = h("button.primary", { type: "button", class: danger && "danger" }, label);
  let running = false;
  button.addEventListener("click", async () => {
    if (running) return;
    running = true;
    button.disabled = true;
    button.textContent = `${label} …`;
    problem.hidden = true;
    try {
      const shown = await act();
      if (shown) put($("dialog"), shown, h("div.actions", h("button.primary", { type: "button", onclick: () => $("dialog").close() }, "Done")));
      else $("dialog").close();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    } finally {
      running = false;
      button.disabled = false;
      button.textContent = label;
    }
  });
  return dialog(title, [says.map((line) => h("p", line)), problem], [button]);
}
