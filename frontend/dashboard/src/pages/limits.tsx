/** Who was refused most, how decisions went, and the reset of one subject's limits. */

import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";

import { Chart } from "../chart";
import { confirmAction } from "../dialog";
import type { Done, Offender } from "../documents";
import { counter, lines, share, times, useReport, useSeries } from "../figures";
import { count, percent, rate } from "../format";
import { Card, Section, State } from "../parts";
import { Table } from "../table";

export function Limits() {
  const report = useReport();
  const series = useSeries("rate_limit_decisions_total", "rate_limit_degraded_total");
  const now = report.value.value;
  const found = series.value.value ?? {};
  const allowed = counter(now, "rate_limit_decisions_total|allowed");
  const denied = counter(now, "rate_limit_decisions_total|refused");
  const all = (allowed ?? 0) + (denied ?? 0);
  return (
    <>
      <State of={report} />
      {now && (
        <div class="cards">
          <Card name="Decisions" value={count(all)} />
          <Card name="Refused" value={count(denied)} more={`${percent(all ? (denied ?? 0) / all : null)} of all`} />
          <Card name="Without the store" value={count(counter(now, "rate_limit_degraded_total"))} more="decided by this fleet's shares" />
        </div>
      )}
      <div class="two">
        <Chart
          title="Decisions"
          times={times(found.rate_limit_decisions_total)}
          lines={lines(found.rate_limit_decisions_total)}
          format={(value) => `${rate(value)}/s`}
        />
        <Chart
          title="Refused part"
          times={times(found.rate_limit_decisions_total)}
          lines={share(found.rate_limit_decisions_total, ["refused"], "refused")}
          format={percent}
        />
      </div>
      <Section title="Top offenders">
        <Table<Offender>
          quiet
          caption="Who was refused most"
          empty="Nobody was refused in this range."
          rows={now?.offenders ?? []}
          id={(row) => `${row.subject} ${row.endpoint}`}
          columns={[
            { head: "Who", cell: (row) => <code>{row.subject}</code>, by: (row) => row.subject },
            { head: "Endpoint", cell: (row) => <code>{row.endpoint}</code>, by: (row) => row.endpoint },
            { head: "Refused", cell: (row) => count(row.refused), by: (row) => row.refused, number: true },
            {
              head: "",
              cell: (row) => (
                <button type="button" onClick={() => reset(row.subject, row.endpoint)}>
                  Reset …
                </button>
              ),
            },
          ]}
        />
      </Section>
      <Reset />
    </>
  );
}

function reset(subject: string, endpoint: string): void {
  confirmAction<Done>({
    title: `Reset the limits of ${subject}?`,
    body: (
      <p>
        What {subject} has used up{endpoint && ` at ${endpoint}`} is forgotten: it has its whole budget again.
      </p>
    ),
    button: "Reset",
    path: "admin/limits/reset",
    words: { user: subject, endpoint: endpoint || null },
    done: (answer) => (answer.changed ? `${count(answer.changed)} limits were reset.` : "Nothing was counted for it."),
  });
}

function Reset() {
  const subject = useMemo(() => signal(""), []);
  const endpoint = useMemo(() => signal(""), []);
  return (
    <Section title="Reset a user's limits">
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault();
          reset(subject.value, endpoint.value);
        }}
      >
        <label>
          User, or ip=…
          <input required value={subject.value} onInput={(event) => (subject.value = event.currentTarget.value.trim())} />
        </label>
        <label>
          Endpoint (all if empty)
          <input value={endpoint.value} onInput={(event) => (endpoint.value = event.currentTarget.value.trim())} />
        </label>
        <button type="submit">Reset …</button>
      </form>
    </Section>
  );
}
