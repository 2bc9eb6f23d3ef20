/** Figures as people read them. Nothing is rounded to a false zero, and what is unknown is a dash. */

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const NOTHING = "–";

export function count(value: number | null | undefined): string {
  if (value == null) return NOTHING;
  return Math.abs(value) < 100_000 ? plain.format(value) : compact.format(value);
}

export function rate(value: number | null | undefined): string {
  if (value == null) return NOTHING;
  return value > 0 && value < 10 ? significant(value) : count(value);
}

export function percent(ratio: number | null | undefined): string {
  if (ratio == null) return NOTHING;
  const value = ratio * 100;
  // 99.96 % is not 100 %, and 0.04 % is not nothing.
  if (value > 99.9 && value < 100) return ">99.9 %";
  if (value > 0 && value < 0.1) return "<0.1 %";
  return `${value >= 10 ? value.toFixed(value === 100 ? 0 : 1) : significant(value)} %`;
}

export function milliseconds(value: number | null | undefined): string {
  if (value == null) return NOTHING;
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  return `${significant(value)} ms`;
}

export function bytes(value: number | null | undefined): string {
  if (value == null) return NOTHING;
  const units = ["B", "KB", "MB", "GB", "TB"];
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? plain.format(size) : significant(size)} ${units[unit]}`;
}

export function dollars(value: number | null | undefined): string {
  if (value == null) return NOTHING;
  if (value > 0 && value < 0.01) return "<$0.01";
  return `$${value < 100 ? value.toFixed(2) : plain.format(value)}`;
}

export function seconds(value: number | null | undefined): string {
  if (value == null) return NOTHING;
  if (value < 1) return milliseconds(value * 1000);
  if (value < 120) return `${significant(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  if (value < 172_800) return `${significant(value / 3600)} h`;
  return `${significant(value / 86_400)} days`;
}

/** How long ago, of a Unix time in seconds. */
export function ago(then: number, now: number = Date.now() / 1000): string {
  const passed = Math.max(0, now - then);
  return passed < 1 ? "now" : `${seconds(Math.round(passed))} ago`;
}

export function clock(unix: number): string {
  return new Date(unix * 1000).toLocaleString(undefined, {
    month: "short",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  });
}

function significant(value: number): string {
  const size = Math.abs(value);
  if (size >= 100) return plain.format(value);
  if (size >= 10) return value.toFixed(1).replace(/\.0$/, "");
  if (size >= 0.1 || size === 0) return value.toFixed(2).replace(/\.?0+$/, "");
  return String(Number(value.toPrecision(2)));
}
