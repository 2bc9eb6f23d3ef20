/** Who uses the store: commands, bytes and cost by workspace, and the bill by day. */

import type { DayCost, WorkspaceFigures } from "../documents";
import { useReport } from "../figures";
import { bytes, count, dollars, percent } from "../format";
import { Card, Section, State } from "../parts";
import { type Column, Table } from "../table";

const cost: Column<{ cost: number }> = { head: "Cost", cell: (row) => dollars(row.cost), by: (row) => row.cost, number: true };

export function Workspaces() {
  const report = useReport();
  const now = report.value.value;
  const all = now?.workspaces.reduce((sum, one) => sum + one.commands, 0) ?? 0;
  const billed = now !== null && now.cost.price_per_million > 0;
  const most = Math.max(1, ...(now?.cost.days ?? []).map((day) => day.billed_commands));
  return (
    <>
      <State of={report} />
      {now && (
        <div class="cards">
          <Card
            name="Commands today"
            value={count(now.cost.billed_commands_today)}
            more="those inside scripts included; up to 5 minutes late"
          />
          {billed ? (
            <>
              <Card name="Today's bill" value={dollars(now.cost.cost_today)} more={`forecast ${dollars(now.cost.forecast_today)}`} />
              <Card name="30 days" value={dollars(now.cost.forecast_month)} more="as the last 24 hours" />
              <Card name="Price" value={dollars(now.cost.price_per_million)} more="a million commands" />
            </>
          ) : (
            <Card name="Bill" value="none" more="This store is not billed by command; REDIS_PRICE_PER_MILLION sets a price." />
          )}
        </div>
      )}
      <div class="two">
        <Section title="Workspaces">
          <Table<WorkspaceFigures>
            quiet
            caption="Workspaces by use, in the chosen range"
            empty="No workspace sent a command in this range."
            rows={now?.workspaces ?? []}
            id={(row) => row.workspace}
            columns={[
              { head: "Workspace", cell: (row) => (row.workspace === "other" ? "all others" : row.workspace), by: (row) => row.workspace },
              { head: "Commands", cell: (row) => count(row.commands), by: (row) => row.commands, number: true },
              { head: "Share", cell: (row) => percent(all ? row.commands / all : null), by: (row) => row.commands, number: true },
              { head: "Bytes", cell: (row) => bytes(row.bytes), by: (row) => row.bytes, number: true },
              ...(billed ? [cost] : []),
            ]}
          />
        </Section>
        <Section title={billed ? "Bill by day" : "Commands by day"}>
          <Table<DayCost>
            quiet
            caption="Commands by day, in UTC"
            empty="No day has been counted yet."
            rows={[...(now?.cost.days ?? [])].reverse()}
            id={(row) => row.day}
            columns={[
              { head: "Day", cell: (row) => row.day, by: (row) => row.day },
              { head: "Compared", cell: (row) => <meter max={most} value={row.billed_commands} aria-label={count(row.billed_commands)} /> },
              { head: "Commands", cell: (row) => count(row.billed_commands), by: (row) => row.billed_commands, number: true },
              ...(billed ? [cost] : []),
            ]}
          />
        </Section>
      </div>
    </>
  );
}
