/** Every change by an operator: who, what, when, before and after. */

import { ask } from "../api";
import { show } from "../dialog";
import type { AuditEntry, AuditPage } from "../documents";
import { ago } from "../format";
import { useLive } from "../live";
import { Facts, Section, State, Tag } from "../parts";
import { link, query } from "../router";
import { Table } from "../table";

export function Audit() {
  const before = query.value.get("before") ?? "";
  const page = useLive((abort) => ask<AuditPage>("admin/audit", { before: before || undefined }, abort), [before]);
  const now = page.value.value;
  return (
    <Section title="Changes, the latest first">
      <State of={page} />
      <Table<AuditEntry>
        quiet
        caption="Audit log"
        empty="Nobody has changed anything yet."
        rows={now?.entries ?? []}
        id={(row) => row.id}
        columns={[
          { head: "When", cell: (row) => <time dateTime={row.time}>{ago(Date.parse(row.time) / 1000)}</time>, by: (row) => row.time },
          { head: "Who", cell: (row) => row.who, by: (row) => row.who },
          { head: "Role", cell: (row) => <Tag>{row.role}</Tag>, by: (row) => row.role },
          { head: "What", cell: (row) => <code>{row.action}</code>, by: (row) => row.action },
          { head: "Of", cell: (row) => <code>{row.target}</code>, by: (row) => row.target },
          {
            head: "Outcome",
            cell: (row) => <Tag kind={row.outcome === "done" ? "good" : "bad"}>{row.outcome}</Tag>,
            by: (row) => row.outcome,
          },
          {
            head: "",
            cell: (row) => (
              <button type="button" class="quiet" onClick={() => whole(row)}>
                Whole<span class="heard"> entry {row.id}</span>
              </button>
            ),
          },
        ]}
      />
      {now?.next && <a href={link("audit", { before: now.next })}>Earlier</a>}
    </Section>
  );
}

function whole(entry: AuditEntry): void {
  show(
    `${entry.action} of ${entry.target}`,
    <>
      <Facts
        of={[
          ["When", entry.time],
          ["Who", `${entry.who}, ${entry.role}`],
          ["Outcome", entry.outcome],
        ]}
      />
      <h3>Before</h3>
      <pre>{JSON.stringify(entry.before, null, 2)}</pre>
      <h3>After</h3>
      <pre>{JSON.stringify(entry.after, null, 2)}</pre>
    </>,
  );
}
