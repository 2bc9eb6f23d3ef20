/** What is wrong first; then how much, how fast, and what it costs. */

import { Chart } from "../chart";
import { confirmAction } from "../dialog";
import type { Alarm, MockMode, OutageFigures, RedisMetrics } from "../documents";
import { happened, lines, share, times, total, useReport, useSeries } from "../figures";
import { bytes, count, dollars, milliseconds, percent, rate, seconds } from "../format";
import { Card, Facts, Section, State, Tag } from "../parts";
import { link } from "../router";
import { Table } from "../table";

const GOOD_MODES = new Set(["upstash", "tcp", "cluster"]);

const WHERE: Record<string, string> = {
  "queue-stuck": "queues",
  "bill-forecast": "workspaces",
  "error-burst": "slow",
  "mock-mode": "audit",
};

export function Overview() {
  const report = useReport();
  const series = useSeries(
    "operations_total",
    "operation_duration_seconds",
    "cache_lookups_total",
    "errors_total",
    "queue_depth",
    "billed_commands_total",
  );
  const now = report.value.value;
  const found = series.value.value ?? {};
  return (
    <>
      <State of={report} />
      {now !== null && <Wrong report={now} />}
      {now !== null && (
        <div class="cards">
          <Card name="Operations" value={`${rate(now.traffic.operations_per_second)}/s`} more={`${count(now.traffic.operations)} in all`} />
          <Card
            name="Latency p50"
            value={milliseconds(now.operations.p50_ms)}
            more={`p95 ${milliseconds(now.operations.p95_ms)} · p99 ${milliseconds(now.operations.p99_ms)}`}
          />
          <Card name="Cache hits" value={percent(now.hit_rates.hit_ratio)} more={`memory ${percent(now.hit_rates.memory_ratio)}`} />
          <Card name="Errors" value={count(now.traffic.errors)} more={`${percent(now.traffic.error_ratio)} of calls`} />
          <Bill report={now} />
        </div>
      )}
      <div class="two">
        <Chart
          title="Operations a second"
          times={times(found.operations_total)}
          lines={total(found.operations_total, "operations")}
          format={(value) => `${rate(value)}/s`}
        />
        <Chart
          title="Latency"
          times={times(found.operation_duration_seconds)}
          lines={lines(found.operation_duration_seconds, { p50: "p50", p95: "p95", p99: "p99" }, 1000)}
          format={milliseconds}
        />
        <Chart
          title="Cache hit ratio"
          times={times(found.cache_lookups_total)}
          lines={[
            ...share(found.cache_lookups_total, ["memory", "store", "stale"], "hits"),
            ...share(found.cache_lookups_total, ["memory"], "in memory"),
          ]}
          format={percent}
        />
        <Chart
          title={now?.cost.price_per_million === 0 ? "Commands a second" : "Billed commands a second"}
          times={times(found.billed_commands_total)}
          lines={total(found.billed_commands_total, "those inside scripts included")}
          format={(value) => `${rate(value)}/s`}
        />
        <Chart
          title="Errors"
          times={times(found.errors_total)}
          lines={happened(lines(found.errors_total))}
          format={(value) => `${rate(value)}/s`}
          empty="No errors in this range."
        />
        <Chart
          title="Unfinished jobs"
          times={times(found.queue_depth)}
          lines={lines(found.queue_depth)}
          format={count}
          whole
          empty="No queue has jobs."
        />
      </div>
      {now !== null && (
        <div class="two">
          <Section title="Store" tools={<MockSwitch report={now} />}>
            <Store report={now} />
          </Section>
          <Section title="Services">
            <Table
              quiet
              caption="Services by operations"
              empty="Nothing was called in this range."
              rows={now.services}
              id={(row) => row.service}
              columns={[
                { head: "Service", cell: (row) => row.service, by: (row) => row.service },
                { head: "Operations", cell: (row) => count(row.operations), by: (row) => row.operations, number: true },
                { head: "p50", cell: (row) => milliseconds(row.latency.p50_ms), by: (row) => row.latency.p50_ms ?? -1, number: true },
                { head: "p99", cell: (row) => milliseconds(row.latency.p99_ms), by: (row) => row.latency.p99_ms ?? -1, number: true },
              ]}
            />
          </Section>
        </div>
      )}
    </>
  );
}

/** Also in words where no command is billed: a row of zeros would look like figures that are missing. */
function Bill(props: { report: RedisMetrics }) {
  const { cost, traffic } = props.report;
  if (cost.price_per_million === 0)
    return (
      <>
        <Card name="Commands" value={count(traffic.billed_commands)} more={`${count(traffic.commands)} sent, the others inside scripts`} />
        <Card name="Bill" value="none" more="this store is not billed by command" />
      </>
    );
  return (
    <>
      <Card name="Today's bill" value={dollars(cost.cost_today)} more={`forecast ${dollars(cost.forecast_today)}`} />
      <Card name="30 days" value={dollars(cost.forecast_month)} more={`at ${dollars(cost.price_per_million)} a million`} />
    </>
  );
}

function Wrong(props: { report: RedisMetrics }) {
  const { alarms } = props.report;
  if (alarms.length === 0)
    return (
      <p class="note good">
        <b>All is well</b>
        <span>No alarm is raised.</span>
      </p>
    );
  return (
    <ul class="notes" aria-label="What is wrong">
      {alarms.map((alarm) => (
        <li class={`note ${alarm.severity === "critical" ? "bad" : "warn"}`}>
          <b>{title(alarm)}</b>
          <span>
            {alarm.text} {WHERE[alarm.code] && <a href={link(WHERE[alarm.code] ?? "")}>Look</a>}
          </span>
        </li>
      ))}
    </ul>
  );
}

function outages(figures: OutageFigures): string {
  if (figures.outages_total === 0) return "none since this process started";
  return `${count(figures.outages_total)}, ${seconds(figures.degraded_seconds)} on memory in all`;
}

function journal(figures: OutageFigures): string {
  if (figures.waiting === 0 && figures.quarantined === 0) return "empty";
  const aside = figures.quarantined > 0 ? `, ${count(figures.quarantined)} in quarantine` : "";
  return `${count(figures.waiting)} records wait${aside}`;
}

/** Mock mode of the process that answers: what an operator does when the store is there and harms. */
function MockSwitch(props: { report: RedisMetrics }) {
  const { connection, outage } = props.report;
  if (connection.mode === "memory") return null;
  const on = outage.forced;
  return (
    <button
      type="button"
      class={on ? "main" : "quiet"}
      onClick={() =>
        confirmAction<MockMode>({
          title: on ? "Go back to the store?" : "Serve from memory?",
          body: (
            <p>
              {on
                ? "What the journal keeps is carried out first, then the store serves again."
                : "The process that answers here stops using the store, as in an outage: what must not be lost waits in its journal. Other processes go on; edit MOCK_REDIS in backend/.env.production to switch all of a host."}
            </p>
          ),
          button: on ? "Go back" : "Serve from memory",
          danger: !on,
          path: `admin/mock?on=${on ? "false" : "true"}`,
          method: "PUT",
          done: (answer) => (answer.on ? "Memory serves." : `The store is coming back: ${answer.mode}.`),
        })
      }
    >
      {on ? "Go back to the store …" : "Serve from memory …"}
    </button>
  );
}

function title(alarm: Alarm): string {
  const words = alarm.code.replaceAll("-", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function Store(props: { report: RedisMetrics }) {
  const { connection, store, server, memory, transport, latency, outage, processes, uptime_seconds } = props.report;
  const mode = connection.mode;
  const used = memory?.limit_bytes ? `${bytes(memory.used_bytes)} of ${bytes(memory.limit_bytes)}` : bytes(memory?.used_bytes);
  return (
    <Facts
      of={[
        [
          "Mode",
          <Tag kind={connection.reachable ? (GOOD_MODES.has(mode) ? "good" : "warn") : "bad"}>
            {connection.reachable ? mode : `${mode}, not reachable`}
          </Tag>,
        ],
        ["Where", <code>{connection.target}</code>],
        ["Server", store === null ? "–" : `${store.server} ${store.version ?? ""} ${store.role ?? ""}`],
        [
          "PING",
          latency.samples === 0
            ? "–"
            : `p50 ${milliseconds(latency.p50_ms)}, p99 ${milliseconds(latency.p99_ms)}, of ${count(latency.samples)} sent by this process`,
        ],
        ["Memory", used],
        ["Eviction", memory?.eviction_policy ?? "–"],
        ["Clients", count(server?.connected_clients)],
        ["Commands a trip", transport.commands_per_trip === null ? "–" : rate(transport.commands_per_trip)],
        ["Outages", outages(outage)],
        ["Journal", journal(outage)],
        ["Processes", `${count(processes)}, this one for ${seconds(uptime_seconds)}`],
      ]}
    />
  );
}
