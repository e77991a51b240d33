// Elements from data. Text is always text: nothing that came from the service is ever read as markup.

const SCOPES = ["search", "write", "admin"];
const HELD = document.querySelector('meta[name="adiabat-scope"]')?.content ?? "";

/** Whether the key that is signed in with may do what asks for `scope`; the service holds everybody to it all the same. */
export const may = (scope) => SCOPES.indexOf(HELD) >= SCOPES.indexOf(scope);

/** Why it may not, in a sentence. */
export const withheld = (scope) => `Needs a key with the scope ${scope}; yours has ${HELD || "none"}.`;

/** Disables what the key may not do, and says why. `h` does it for the property `needs`. */
export function withhold(element, scope) {
  if (may(scope)) return element;
  const reason = withheld(scope);
  element.disabled = true;
  element.title = reason;
  element.setAttribute("aria-description", reason);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** `h("p.quiet", {title: "…", onclick: f}, "text", child, [more])`; null, undefined and false are left out. */
export function h(kind, ...rest) {
  const [tag, ...classes] = kind.split(".");
  return fill(document.createElement(tag || "div"), classes, rest);
}

/** The same for SVG. */
export function s(kind, ...rest) {
  const [tag, ...classes] = kind.split(".");
  return fill(document.createElementNS(SVG, tag), classes, rest);
}

function fill(element, classes, rest) {
  if (classes.length) element.classList.add(...classes);
  const [first] = rest;
  if (first && typeof first === "object" && !Array.isArray(first) && !(first instanceof Node)) {
    set(element, rest.shift());
  }
  element.append(...rest.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

function set(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.classList.add(...value.split(" ").filter(Boolean));
    else if (name === "needs") withhold(element, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, each] of Object.entries(value)) element.style.setProperty(key, each);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name in element && !(element instanceof SVGElement) && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
}

export const $ = (id) => document.getElementById(id);

export function put(place, ...children) {
  place.replaceChildren(...children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false));
  place.removeAttribute("aria-busy");
  place.classList.remove("waiting");
  return place;
}

/** `rows` of cells below `heads`; a head is a text, or {text, figures, title}. Cells may be nodes. */
export function table(heads, rows, { caption, className = "" } = {}) {
  const told = heads.map((head) => (typeof head === "string" ? { text: head } : head));
  return h("div.scroll", { tabindex: "0", role: "region", "aria-label": caption },
    h(`table${className}`,
      caption && h("caption.unseen", caption),
      h("thead", h("tr", told.map((head) => h("th", { scope: "col", class: head.figures && "figures", title: head.title }, head.text)))),
      h("tbody", rows.map((row) => (row instanceof Node ? row : h("tr",
        row.map((cell, place) => h("td", { class: told[place]?.figures && "figures" }, cell ?? ""))))))));
}
