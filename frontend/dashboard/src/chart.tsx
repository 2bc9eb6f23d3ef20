/**
 * A line chart on a canvas, and the same figures as a table.
 *
 * A canvas says nothing to who cannot see it: so it has a label that tells the last value and the range, arrow keys move a cursor whose
 * values are spoken, and a button shows the table in its place.
 */

import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { alone } from "./figures";
import { clock, NOTHING } from "./format";
import { scheme } from "./theme";

export interface Line {
  name: string;
  /** One for each time; null where nothing was measured. */
  values: readonly (number | null)[];
}

export interface ChartProps {
  title: string;
  /** Unix seconds. */
  times: readonly number[];
  lines: readonly Line[];
  format: (value: number | null | undefined) => string;
  /** Values are counted: the axis has no half ones. */
  whole?: boolean;
  /** What to say while there are no figures. */
  empty?: string;
}

const HEIGHT = 190;

export function Chart(props: ChartProps) {
  const asTable = useMemo(() => signal(false), []);
  const cursor = useMemo(() => signal<number | null>(null), []);
  const canvas = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const nothing = props.times.length === 0 || props.lines.every((line) => line.values.every((value) => value == null));
  const shown = !nothing && !asTable.value;
  const names = props.lines.map((line) => line.name).join("\n");

  useEffect(() => {
    const place = canvas.current;
    if (!shown || place === null) return;
    const chart = new uPlot(options(props, place.clientWidth), data(props), place);
    plot.current = chart;
    const watcher = new ResizeObserver(() => chart.setSize({ width: place.clientWidth, height: HEIGHT }));
    watcher.observe(place);
    return () => {
      watcher.disconnect();
      chart.destroy();
      plot.current = null;
    };
  }, [shown, names, scheme.value]);

  useEffect(() => {
    plot.current?.setData(data(props));
  }, [props.times, props.lines]);

  function move(event: KeyboardEvent): void {
    const last = props.times.length - 1;
    const from = cursor.value ?? last + (event.key === "ArrowLeft" ? 0 : 1);
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    cursor.value = Math.min(Math.max(to, 0), last);
    const chart = plot.current;
    if (chart !== null) chart.setCursor({ left: chart.valToPos(props.times[cursor.value] ?? 0, "x"), top: 0 });
  }

  return (
    <figure class="chart card">
      <figcaption>
        <h2>{props.title}</h2>
        {!nothing && (
          <button type="button" class="quiet" aria-pressed={asTable.value} onClick={() => (asTable.value = !asTable.value)}>
            {asTable.value ? "Chart" : "Table"}
            <span class="heard"> of {props.title}</span>
          </button>
        )}
      </figcaption>
      {nothing && <p class="empty">{props.empty ?? "Nothing was measured in this range yet."}</p>}
      {shown && (
        <>
          <div ref={canvas} class="canvas" role="img" tabIndex={0} aria-label={label(props)} onKeyDown={move} />
          <ul class="legend">
            {props.lines.map((line, place) => (
              <li>
                <i class={`ink-${place % INKS.length}`} /> {line.name} <b>{props.format(last(line.values))}</b>
              </li>
            ))}
          </ul>
          <p class="heard" aria-live="polite">
            {cursor.value !== null && reading(props, cursor.value)}
          </p>
        </>
      )}
      {!nothing && asTable.value && <Figures {...props} />}
    </figure>
  );
}

function Figures(props: ChartProps) {
  const rows = props.times.map((time, place) => ({ time, place })).reverse();
  return (
    <div class="scroll figures" tabIndex={0} role="region" aria-label={props.title}>
      <table>
        <caption class="heard">{props.title}</caption>
        <thead>
          <tr>
            <th scope="col">Time</th>
            {props.lines.map((line) => (
              <th scope="col" class="number">
                {line.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ time, place }) => (
            <tr key={time}>
              <td>{clock(time)}</td>
              {props.lines.map((line) => (
                <td class="number">{props.format(line.values[place])}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Colours by place, light and dark: distinguishable in both, and without red and green as the only difference. */
const INKS = [
  ["#1d4ed8", "#7aa2ff"],
  ["#b45309", "#f5b041"],
  ["#0f766e", "#4fd1c5"],
  ["#a21caf", "#e879f9"],
  ["#475569", "#a9b4c4"],
] as const;

function ink(place: number): string {
  const pair = INKS[place % INKS.length] ?? INKS[0];
  return scheme.value === "dark" ? pair[1] : pair[0];
}

/** Marks of the time axis, by the seconds between two: the time, and below it the day where it changes. In uPlot's template form. */
const TIMES: uPlot.Axis.Values = [
  [86_400, "{MMM} {D}", null, null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{MMM} {D}", null, "\n{MMM} {D}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{MMM} {D}", null, "\n{MMM} {D}", null, null, null, 1],
] as uPlot.Axis.Values;

/** Steps of an axis of counted things. */
const WHOLE = Array.from({ length: 12 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();

/** With fewer times each value is a point. */
const FEW = 30;

function options(props: ChartProps, width: number): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue("--quiet").trim();
  const grid = { stroke: style.getPropertyValue("--line").trim(), width: 1 };
  const font = "12px system-ui, sans-serif";
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, points: { size: 7 } },
    scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [
      { stroke: text, grid, ticks: grid, font, values: TIMES },
      {
        stroke: text,
        grid,
        ticks: grid,
        font,
        size: 64,
        ...(props.whole && { incrs: WHOLE }),
        values: (_plot, marks) => marks.map((mark) => props.format(mark)),
      },
    ],
    series: [
      {},
      ...props.lines.map((line, place) => ({
        label: line.name,
        stroke: ink(place),
        width: 1.75,
        spanGaps: false,
        points: {
          show: (chart: uPlot) => chart.data[0].length < FEW,
          // A value between two gaps has no line that would show it.
          filter: (chart: uPlot, place: number, show: boolean) => (show ? null : alone(chart.data[place] ?? [])),
        },
      })),
    ],
  };
}

function data(props: ChartProps): uPlot.AlignedData {
  return [props.times, ...props.lines.map((line) => line.values)] as unknown as uPlot.AlignedData;
}

function last(values: readonly (number | null)[]): number | null {
  for (let place = values.length - 1; place >= 0; place -= 1) {
    const value = values[place];
    if (value != null) return value;
  }
  return null;
}

function label(props: ChartProps): string {
  const parts = props.lines.map((line) => `${line.name} ${props.format(last(line.values))}`);
  return `${props.title}, chart of ${props.times.length} times. Last: ${parts.join(", ") || NOTHING}. Arrow keys read the values.`;
}

function reading(props: ChartProps, place: number): string {
  const parts = props.lines.map((line) => `${line.name} ${props.format(line.values[place])}`);
  return `${clock(props.times[place] ?? 0)}: ${parts.join(", ")}`;
}
