// A table whose columns sort: by a button in each head, told to screen readers, kept while rows are drawn again.

import { h } from "./dom.js";

/** `columns`: [{text, figures?, value(row), cell(row)}]; `mark(row)` gives a row's class. Returns {element, rows(list)}. */
export function sortable(columns, { caption, by = 0, down = false, mark = () => "" }) {
  let [sorted, falling, held] = [by, down, []];
  const body = h("tbody");
  const heads = columns.map((column, at) => {
    const cell = h("th", { scope: "col", class: column.figures && "figures", title: column.title });
    cell.append(column.value ? h("button", { type: "button", onclick: () => { falling = sorted === at ? !falling : Boolean(column.figures); sorted = at; draw(); } }, column.text) : column.text ?? "");
    return cell;
  });
  const draw = () => {
    heads.forEach((cell, at) => { if (at === sorted) cell.setAttribute("aria-sort", falling ? "descending" : "ascending"); else cell.removeAttribute("aria-sort"); });
    const { value } = columns[sorted];
    const order = (a, b) => {
      const [x, y] = [value(a) ?? null, value(b) ?? null];
      if (x === null || y === null) return x === y ? 0 : x === null ? 1 : -1; // what has no figure comes last, either way
      return (x < y ? -1 : x > y ? 1 : 0) * (falling ? -1 : 1);
    };
    body.replaceChildren(...[...held].sort(order).map((row) => h("tr", { class: mark(row) }, columns.map((column) => h("td", { class: column.figures && "figures" }, column.cell(row) ?? "")))));
  };
  const element = h("div.scroll", { tabindex: "0", role: "region", "aria-label": caption }, h("table", h("caption.unseen", caption), h("thead", h("tr", heads)), body));
  return { element, rows: (list) => { held = list; draw(); } };
}
