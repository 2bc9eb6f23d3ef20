/** Tables: a caption for who hears them, sortable heads, one empty line that says why there is nothing. */

import { signal, type Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";

export interface Column<Row> {
  head: string;
  /** What a cell shows. */
  cell: (row: Row) => ComponentChildren;
  /** What the column is sorted by; a column without it is not sortable. */
  by?: (row: Row) => number | string;
  number?: boolean;
}

interface Order {
  column: number;
  down: boolean;
}

export function Table<Row>(props: {
  caption: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  id: (row: Row) => string;
  empty: string;
  /** A caption that is only heard, where a heading already says it. */
  quiet?: boolean;
}) {
  const order: Signal<Order | null> = useMemo(() => signal<Order | null>(null), []);
  const rows = sorted(props.rows, props.columns, order.value);
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={props.caption}>
      <table>
        <caption class={props.quiet ? "heard" : ""}>{props.caption}</caption>
        <thead>
          <tr>
            {props.columns.map((column, place) => (
              <th
                scope="col"
                class={column.number ? "number" : ""}
                aria-sort={column.by && (order.value?.column === place ? (order.value.down ? "descending" : "ascending") : "none")}
              >
                {column.by ? (
                  <button type="button" class="sort" onClick={() => (order.value = next(order.value, place))}>
                    {column.head}
                    <span aria-hidden="true">{order.value?.column === place ? (order.value.down ? " ↓" : " ↑") : ""}</span>
                  </button>
                ) : (
                  column.head || <span class="heard">Actions</span>
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.length === 0 && (
            <tr>
              <td class="empty" colSpan={props.columns.length}>
                {props.empty}
              </td>
            </tr>
          )}
          {rows.map((row) => (
            <tr key={props.id(row)}>
              {props.columns.map((column) => (
                <td class={column.number ? "number" : column.head ? "" : "act"}>{column.cell(row)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function next(order: Order | null, column: number): Order | null {
  if (order?.column !== column) return { column, down: true };
  return order.down ? { column, down: false } : null;
}

export function sorted<Row>(rows: readonly Row[], columns: readonly Column<Row>[], order: Order | null): readonly Row[] {
  const by = order === null ? undefined : columns[order.column]?.by;
  if (order === null || by === undefined) return rows;
  const sign = order.down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [by(a), by(b)];
    return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
  });
}
