/** What pages ask, in one place: the report over the chosen range, and metrics over time. */

import { ask } from "./api";
import type { Line } from "./chart";
import type { RedisMetrics, Series, SeriesLine } from "./documents";
import { type Live, useLive } from "./live";
import { range } from "./router";

/** Points of a chart, about. */
const POINTS = 120;

export function useReport(): Live<RedisMetrics> {
  const window = range.value.seconds;
  return useLive((abort) => ask<RedisMetrics>("admin/redis-metrics", { window }, abort), [window]);
}

export type SeriesByName = Record<string, Series>;

export function useSeries(...names: readonly string[]): Live<SeriesByName> {
  const seconds = range.value.seconds;
  return useLive(
    async (abort) => {
      const from = Math.floor(Date.now() / 1000) - seconds;
      const step = Math.max(60, Math.ceil(seconds / POINTS / 60) * 60);
      const all = await Promise.all(names.map((metric) => ask<Series>("admin/redis-series", { metric, from, step }, abort)));
      return Object.fromEntries(all.map((series) => [series.metric, whole(series)]));
    },
    [seconds, ...names],
  );
}

/** A rate's last time is left out while its bucket is filling: it would look as if traffic fell. */
export function whole(series: Series, now: number = Date.now() / 1000): Series {
  const bucket = series.step < 3600 ? 60 : 3600;
  const last = series.times.at(-1);
  if (series.kind !== "counter" || last === undefined || now - last >= bucket) return series;
  const lines = series.lines.map((line) => ({ ...line, values: line.values.slice(0, -1) }));
  return { ...series, times: series.times.slice(0, -1), lines };
}

/** What a metric without labels is called: `errors_total` is "errors". */
export function word(metric: string): string {
  return metric.replace(/(_seconds)?(_total)?$/, "").replaceAll("_", " ");
}

/** The lines on which anything happened. */
export function happened(all: readonly Line[]): Line[] {
  return all.filter((line) => line.values.some((value) => value !== null && value !== 0));
}

export const NO_TIMES: readonly number[] = [];

export function times(series: Series | undefined): readonly number[] {
  return series?.times ?? NO_TIMES;
}

/** A chart's lines of a series, by label; all of them under their own labels unless names are given. */
export function lines(series: Series | undefined, names?: Record<string, string>, scale = 1): Line[] {
  if (series === undefined) return [];
  return series.lines
    .filter((line) => names === undefined || line.label in names)
    .map((line) => ({ name: names?.[line.label] ?? (line.label || word(series.metric)), values: scaled(line, scale) }));
}

/** The sum of all lines, as one. */
export function total(series: Series | undefined, name: string): Line[] {
  if (series === undefined || series.lines.length === 0) return [];
  return [{ name, values: series.times.map((_, place) => sum(series.lines, place)) }];
}

/** One label's part of the sum, at each time; null where there was nothing. */
export function share(series: Series | undefined, labels: readonly string[], name: string): Line[] {
  if (series === undefined) return [];
  const chosen = series.lines.filter((line) => labels.includes(line.label));
  return [
    {
      name,
      values: series.times.map((_, place) => {
        const whole = sum(series.lines, place);
        return whole ? (sum(chosen, place) ?? 0) / whole : null;
      }),
    },
  ];
}

function sum(all: readonly SeriesLine[], place: number): number | null {
  let found: number | null = null;
  for (const line of all) {
    const value = line.values[place];
    if (value != null) found = (found ?? 0) + value;
  }
  return found;
}

function scaled(line: SeriesLine, scale: number): (number | null)[] {
  return scale === 1 ? line.values : line.values.map((value) => (value == null ? null : value * scale));
}

/** A counter of the report within its window. */
export function counter(report: RedisMetrics | null, name: string): number | null {
  return report?.counters[name] ?? (report === null ? null : 0);
}

/** Where a value stands between two gaps. */
export function alone(values: ArrayLike<number | null | undefined>): number[] {
  return Array.from(values, (_, place) => place).filter(
    (place) => values[place] != null && values[place - 1] == null && values[place + 1] == null,
  );
}
