// The few pictures there are, drawn by hand as SVG: lines over steps, intervals around zero, a tree of encoders.

import { h, put, s } from "./dom.js";
import { number, signed } from "./format.js";

/** A picture that is drawn for the width it has, so that its letters keep their size. `draw(width)` gives an SVG. */
function fitted(draw, height) {
  const box = h("div.fitted", { style: { "min-height": `${height}px` } });
  let last = 0;
  const again = () => {
    const width = Math.round(box.clientWidth) || last;
    if (!width) return;
    last = width;
    box.replaceChildren(draw(width));
  };
  new ResizeObserver(() => { if (Math.round(box.clientWidth) !== last) again(); }).observe(box);
  return { box, again };
}

function ticks(low, high, about = 4) {
  const span = high - low || 1;
  const unit = 10 ** Math.floor(Math.log10(span / about));
  const step = [1, 2, 5, 10].map((each) => each * unit).find((each) => span / each <= about) ?? unit * 10;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
}

const digitsOf = (values) => {
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) : 1;
  return Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));
};

/**
 * Lines. `series`: [{name, points: [[x, y], …], colour: 1…8, dashed?}]; drawn again by the function that comes back.
 * `limit`: {y, text} for what must not be crossed, `at`: an x that is
 * marked; the legend tells the values there, else the last.
 */
export function lines(place, { title, height = 200, log = false, unit = "" }) {
  const key = h("ul.legend");
  let [series, options] = [[], {}];
  const { box, again } = fitted((width) => {
    const svg = s("svg.chart", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title });
    paint(svg, width);
    return svg;
  }, height);
  put(place, box, key);
  const paint = (svg, WIDTH) => {
    const { limit, at, zero = false, xTitle = "step" } = options;
    const drawn = series.filter((each) => each.points.length);
    const xs = drawn.flatMap((each) => each.points.map(([x]) => x));
    const ys = [...drawn.flatMap((each) => each.points.map(([, y]) => y)), ...(limit ? [limit.y] : []), ...(zero ? [0] : [])].filter(Number.isFinite);
    if (!xs.length) { svg.replaceChildren(s("text", { x: WIDTH / 2, y: height / 2, "text-anchor": "middle" }, "no figures")); key.replaceChildren(); return; }
    const scaleX = log ? Math.log10 : (x) => x;
    const [x0, x1] = [Math.min(...xs.map(scaleX)), Math.max(...xs.map(scaleX))];
    let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
    const room = (y1 - y0 || Math.abs(y1) || 1) * 0.08;
    if (!(zero && y0 === 0)) y0 -= room;
    y1 += room;
    const marks = ticks(y0, y1);
    const digits = digitsOf(marks);
    const left = 14 + 7.2 * Math.max(...marks.map((mark) => number(mark, digits).length));
    const [right, top, bottom] = [WIDTH - 10, 8, height - 34];
    const X = (x) => (x1 === x0 ? (left + right) / 2 : left + ((scaleX(x) - x0) / (x1 - x0)) * (right - left));
    const Y = (y) => bottom - ((y - y0) / (y1 - y0)) * (bottom - top);
    const along = log ? [...new Set(xs)].sort((a, b) => a - b) : ticks(x0, x1, WIDTH < 420 ? 4 : 7);
    svg.replaceChildren(
      ...marks.flatMap((mark) => [s(mark === 0 && y0 < 0 ? "line.zero" : "line.axis", { x1: left, x2: right, y1: Y(mark), y2: Y(mark) }),
        s("text", { x: left - 6, y: Y(mark) + 4, "text-anchor": "end" }, number(mark, digits))]),
      ...along.map((x) => s("text", { x: X(x), y: bottom + 16, "text-anchor": "middle" }, log ? x.toExponential(0) : number(x, digitsOf(along)))),
      s("text", { x: right, y: height - 3, "text-anchor": "end" }, xTitle),
      ...(limit ? [s("line.limit", { x1: left, x2: right, y1: Y(limit.y), y2: Y(limit.y) }), s("text", { x: right, y: Y(limit.y) - 4, "text-anchor": "end" }, limit.text)] : []),
      ...(at !== undefined ? [s("line.zero", { x1: X(at), x2: X(at), y1: top, y2: bottom, "stroke-dasharray": "2 3" })] : []),
      ...drawn.flatMap((each) => [
        s(`path.line.c${each.colour}`, { d: each.points.map(([x, y], place) => `${place ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join(""), "stroke-dasharray": each.dashed && "5 4" }),
        ...(each.points.length <= 24 ? each.points.map(([x, y]) => s(`circle.f${each.colour}`, { cx: X(x), cy: Y(y), r: 3 }, s("title", `${each.name} ${number(y, 4)}${unit} at ${x}`))) : []),
      ]),
    );
    key.replaceChildren(...drawn.map((each) => h("li", s("svg", { width: 18, height: 8, "aria-hidden": "true" }, s(`path.line.c${each.colour}`, { d: "M1 4H17", "stroke-dasharray": each.dashed && "5 4" })),
      each.name, h("b.figures", number((each.points.find(([x]) => x === at) ?? each.points.at(-1))[1], each.digits ?? 4)))));
  };
  return (drawn, told = {}) => { [series, options] = [drawn, told]; again(); };
}

/** Changes with their intervals around zero. `rows`: [{name, change, low, high, note?}]; `limit`: what may be lost. */
export function intervals(rows, { title, limit } = {}) {
  const [line, height] = [30, rows.length * 30 + 34];
  return fitted((WIDTH) => drawIntervals(rows, { title, limit, line, height, WIDTH }), height).box;
}

function drawIntervals(rows, { title, limit, line, height, WIDTH }) {
  const values = [0, ...rows.flatMap((row) => [row.low, row.high, row.change]), ...(limit !== undefined ? [-limit] : [])].filter(Number.isFinite);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = (high - low || 0.02) * 0.06;
  const left = 24 + 7.4 * Math.max(...rows.map((row) => Math.min(row.name.length, 24)));
  const right = WIDTH - 84;
  const X = (value) => left + ((value - low + pad) / (high - low + 2 * pad)) * (right - left);
  const marks = ticks(low - pad, high + pad, WIDTH < 420 ? 3 : 5);
  const digits = digitsOf(marks);
  return s("svg.chart", { viewBox: `0 0 ${WIDTH} ${height}`, width: WIDTH, height, role: "img", "aria-label": title },
    marks.map((mark) => [s(mark === 0 ? "line.zero" : "line.axis", { x1: X(mark), x2: X(mark), y1: 4, y2: height - 28 }),
      s("text", { x: X(mark), y: height - 10, "text-anchor": "middle" }, mark ? signed(mark, digits) : "0")]),
    limit !== undefined && X(-limit) >= left && s("line.limit", { x1: X(-limit), x2: X(-limit), y1: 4, y2: height - 28 }, s("title", `a loss up to ${limit} is allowed`)),
    rows.map((row, at) => {
      const y = at * line + line / 2 + 4;
      const kind = row.change < 0 ? "worse" : "better";
      return s("g", s("title", `${row.name}: ${signed(row.change, 4)}, ${signed(row.low, 4)} to ${signed(row.high, 4)}`),
        s("text.ink", { x: left - 12, y: y + 4, "text-anchor": "end" }, row.name.length > 24 ? `${row.name.slice(0, 23)}…` : row.name),
        Number.isFinite(row.low) && s(`line.whisker.${kind}`, { x1: X(row.low), x2: X(row.high), y1: y, y2: y }),
        s(`circle.${kind}`, { cx: X(row.change), cy: y, r: 5 }),
        s("text.ink.strong", { x: WIDTH - 4, y: y + 4, "text-anchor": "end" }, signed(row.change, 3)));
    }));
}

/** A tree of `nodes` [{id, parent, label, note, kind, href}], roots first in their order; parents to the left. */
export function tree(nodes, { title }) {
  const [wide, high, gapX, gapY] = [164, 44, 40, 12];
  const below = new Map();
  const ids = new Set(nodes.map((node) => node.id));
  for (const node of nodes) {
    const parent = ids.has(node.parent) && node.parent !== node.id ? node.parent : null;
    below.set(parent, [...(below.get(parent) ?? []), node]);
  }
  const placed = new Map();
  let row = 0;
  const settle = (node, depth) => {
    if (placed.has(node.id)) return;
    placed.set(node.id, null); // against a circle
    const children = below.get(node.id) ?? [];
    for (const child of children) settle(child, depth + 1);
    const rows = children.map((child) => placed.get(child.id)?.row).filter((each) => each !== undefined);
    placed.set(node.id, { node, depth, row: rows.length ? rows[0] : row++ });
  };
  for (const root of below.get(null) ?? []) settle(root, 0);
  const all = [...placed.values()].filter(Boolean);
  const at = ({ depth, row: line }) => [depth * (wide + gapX) + 1, line * (high + gapY) + 1];
  const width = Math.max(...all.map((each) => at(each)[0])) + wide + 2;
  const height = Math.max(...all.map((each) => at(each)[1])) + high + 2;
  return s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": title },
    all.map((each) => {
      const parent = placed.get(each.node.parent);
      if (!parent || parent === each) return null;
      const [[px, py], [x, y]] = [at(parent), at(each)];
      return s("path.edge", { d: `M${px + wide} ${py + high / 2}C${px + wide + gapX / 2} ${py + high / 2} ${x - gapX / 2} ${y + high / 2} ${x} ${y + high / 2}` });
    }),
    all.map((each) => {
      const [x, y] = at(each);
      const { label, note, kind, href } = each.node;
      return s("a", { href }, s("g.node", { class: kind }, s("rect", { x, y, width: wide, height: high, rx: 7 }),
        s("text.ink.strong", { x: x + 11, y: y + 18 }, label.length > 18 ? `${label.slice(0, 17)}…` : label), s("text", { x: x + 11, y: y + 34 }, note.length > 26 ? `${note.slice(0, 25)}…` : note)));
    }));
}
