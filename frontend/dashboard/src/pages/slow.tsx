/** The slowest calls, as sampled in the clients; and errors by kind. */

import { Chart } from "../chart";
import type { ErrorFigures, SlowOperation } from "../documents";
import { happened, lines, times, useReport, useSeries } from "../figures";
import { ago, count, milliseconds, rate } from "../format";
import { Section, State } from "../parts";
import { Table } from "../table";

export function Slow() {
  const report = useReport();
  const series = useSeries("operation_duration_seconds", "errors_total");
  const now = report.value.value;
  const found = series.value.value ?? {};
  return (
    <>
      <State of={report} />
      <Section title="The slowest">
        <Table<SlowOperation>
          quiet
          caption="Slow operations, no keys and no values"
          empty="Nothing was slow in this range."
          rows={now?.slow_operations ?? []}
          id={(row) => `${row.time} ${row.operation} ${row.workspace} ${row.duration_ms}`}
          columns={[
            { head: "When", cell: (row) => <time dateTime={row.time}>{ago(Date.parse(row.time) / 1000)}</time>, by: (row) => row.time },
            { head: "Took", cell: (row) => milliseconds(row.duration_ms), by: (row) => row.duration_ms, number: true },
            { head: "Operation", cell: (row) => <code>{row.operation}</code>, by: (row) => row.operation },
            { head: "Service", cell: (row) => row.service, by: (row) => row.service },
            { head: "Workspace", cell: (row) => row.workspace ?? "–", by: (row) => row.workspace ?? "" },
          ]}
        />
      </Section>
      <div class="two">
        <Chart
          title="Latency"
          times={times(found.operation_duration_seconds)}
          lines={lines(found.operation_duration_seconds, { p50: "p50", p95: "p95", p99: "p99" }, 1000)}
          format={milliseconds}
        />
        <Chart
          title="Errors"
          times={times(found.errors_total)}
          lines={happened(lines(found.errors_total))}
          format={(value) => `${rate(value)}/s`}
          empty="No errors in this range."
        />
        {now !== null && now.errors.length > 0 && (
          <Section title="Errors by kind">
            <Table<ErrorFigures>
              quiet
              caption="Errors of this range, by kind"
              empty="No errors in this range."
              rows={now.errors}
              id={(row) => row.kind}
              columns={[
                { head: "Kind", cell: (row) => <code>{row.kind}</code>, by: (row) => row.kind },
                { head: "Count", cell: (row) => count(row.count), by: (row) => row.count, number: true },
              ]}
            />
          </Section>
        )}
      </div>
    </>
  );
}
