// The heat map of an evaluation: colours from worse to better around zero, also as a picture and as a table file.

import { h } from "./dom.js";
import { number, signed } from "./format.js";

const LIGHT = ["#9c3f06", "#dd8236", "#f6d7b4", "#f5f4f1", "#c3d8ea", "#5a95c6", "#18508a"];
const BARE = "#eceef0";

const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

function shade(value, most) {
  if (value === null || value === undefined) return BARE;
  const at = ((Math.max(-1, Math.min(1, value / most)) + 1) / 2) * (LIGHT.length - 1);
  const [low, share] = [Math.min(Math.floor(at), LIGHT.length - 2), at - Math.min(Math.floor(at), LIGHT.length - 2)];
  const [a, b] = [channels(LIGHT[low]), channels(LIGHT[low + 1])];
  return `#${a.map((each, place) => Math.round(each + (b[place] - each) * share).toString(16).padStart(2, "0")).join("")}`;
}

const light = (colour) => { const part = channels(colour).map((each) => { const share = each / 255; return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4; }); return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2]; };
// One of the two is always at 4.5 to 1 or better.
const inkOn = (colour) => (light(colour) > 0.179 ? "#000000" : "#ffffff");

/** `rows` and `columns` are names; `cell(row, column)` gives {figure, change?, low?, high?, star?} or null. */
export function heat({ rows, columns, cell, caption }) {
  const changes = rows.flatMap((row) => columns.map((column) => Math.abs(cell(row, column)?.change ?? 0)));
  const most = Math.max(...changes, 0.01);
  return h("div.scroll", { tabindex: "0", role: "region", "aria-label": caption },
    h("table.heat", h("caption.unseen", caption), h("thead", h("tr", h("td"), columns.map((column) => h("th", { scope: "col" }, column)))),
      h("tbody", rows.map((row) => h("tr", h("th", { scope: "row" }, row), columns.map((column) => {
        const found = cell(row, column);
        if (!found) return h("td", h("div.cell.quiet", "–"));
        const colour = shade(found.change, most);
        const span = found.low === undefined ? "" : `, 95% interval ${signed(found.low, 4)} to ${signed(found.high, 4)}`;
        return h("td", h("div.cell", { style: { background: colour, color: inkOn(colour) }, title: `${row}, ${column}: ${number(found.figure, 4)}${span}` },
          h("b", number(found.figure, 3)), h("small", found.change === undefined ? "base" : `${signed(found.change, 3)}${found.star ?? ""}`)));
      }))))));
}

/** The same as PNG, in light colours, at twice the size. */
export function picture({ rows, columns, cell, caption }) {
  const [left, top, wide, high, scale] = [170, 64, 112, 48, 2];
  const canvas = h("canvas");
  canvas.width = (left + wide * columns.length + 16) * scale;
  canvas.height = (top + high * rows.length + 40) * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  const write = (text, x, y, { font = "13px sans-serif", colour = "#1d2127", align = "center", most } = {}) => { pen.font = font; pen.fillStyle = colour; pen.textAlign = align; pen.fillText(text, x, y, most); };
  write(caption, 16, 24, { font: "600 15px sans-serif", align: "left" });
  columns.forEach((column, at) => write(column, left + wide * (at + 0.5), top - 10, { most: wide - 8 }));
  const most = Math.max(...rows.flatMap((row) => columns.map((column) => Math.abs(cell(row, column)?.change ?? 0))), 0.01);
  rows.forEach((row, y) => {
    write(row, 16, top + high * (y + 0.5) + 5, { align: "left", most: left - 24 });
    columns.forEach((column, x) => {
      const found = cell(row, column);
      const colour = found ? shade(found.change, most) : BARE;
      pen.fillStyle = colour;
      pen.fillRect(left + wide * x + 1, top + high * y + 1, wide - 2, high - 2);
      if (!found) return;
      write(number(found.figure, 3), left + wide * (x + 0.5), top + high * y + 21, { font: "600 14px sans-serif", colour: inkOn(colour) });
      write(found.change === undefined ? "base" : `${signed(found.change, 3)}${found.star ?? ""}`, left + wide * (x + 0.5), top + high * y + 38, { font: "12px sans-serif", colour: inkOn(colour) });
    });
  });
  write("Difference to the base; * p < 0.05, ** p < 0.01, after Holm", 16, top + high * rows.length + 26, { align: "left", colour: "#575f6a", font: "12px sans-serif" });
  return canvas;
}

export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

export const csv = (rows) => new Blob([rows.map((row) => row.map((cell) => (/[",\n]/.test(String(cell)) ? `"${String(cell).replaceAll('"', '""')}"` : cell)).join(",")).join("\n") + "\n"], { type: "text/csv" });
