// Figures and times as people read them. Minus is a minus.

export const number = (value, digits = 0) =>
  value === null || value === undefined || Number.isNaN(value) ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");

export const signed = (value, digits = 3) => (value === null || value === undefined ? "–" : (value > 0 ? "+" : "") + number(value, digits));

export function bytes(value) {
  for (const unit of ["B", "KB", "MB", "GB"]) {
    if (value < 1000 || unit === "GB") return `${number(value, unit === "B" || value >= 100 ? 0 : 1)} ${unit}`;
    value /= 1000;
  }
}

export function tiny(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  return Math.abs(value) >= 0.001 ? number(value, 4) : value.toExponential(1).replaceAll("-", "−");
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 90) return `${number(value)} s`;
  if (value < 5400) return `${number(value / 60)} min`;
  return `${number(value / 3600, 1)} h`;
}

export function ms(value) {
  if (value < 0.1) return `${number(value * 1000, value < 0.01 ? 1 : 0)} µs`;
  return value < 10 ? `${number(value, 1)} ms` : value < 10000 ? `${number(value)} ms` : seconds(value / 1000);
}

export function ago(at) {
  const past = Date.now() / 1000 - at;
  if (past < 45) return "just now";
  if (past < 5400) return `${Math.round(past / 60)} min ago`;
  if (past < 36 * 3600) return `${Math.round(past / 3600)} h ago`;
  return new Date(at * 1000).toLocaleDateString("en", { year: "numeric", month: "short", day: "numeric" });
}

export const moment = (at) => new Date(at * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "medium", hour12: false });

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

const names = new Intl.DisplayNames(["en"], { type: "language" });
export function language(code) {
  if (!code) return "no language";
  try { return names.of(code) ?? code; } catch { return code; }
}
