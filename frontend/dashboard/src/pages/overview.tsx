/** What is wrong first; then how much, how fast, and what it costs. */

import { Chart } from "../chart";
import type { Alarm, RedisMetrics } from "../documents";
import { lines, share, times, total, useReport, useSeries } from "../figures";
import { bytes, count, dollars, milliseconds, percent, rate, seconds } from "../format";
import { Card, Facts, Section, State, Tag } from "../parts";
import { link } from "../router";
import { Table } from "../table";

const GOOD_MODES = new Set(["upstash", "tcp", "cluster"]);

const WHERE: Record<string, string> = {
  "queue-stuck": "queues",
  "bill-forecast": "workspaces",
  "error-burst": "slow",
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
          <Card name="Today's bill" value={dollars(now.cost.cost_today)} more={`forecast ${dollars(now.cost.forecast_today)}`} />
          <Card name="30 days" value={dollars(now.cost.forecast_month)} more={`at ${dollars(now.cost.price_per_million)} a million`} />
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
          title="Billed commands a second"
          times={times(found.billed_commands_total)}
          lines={total(found.billed_commands_total, "billed commands")}
          format={(value) => `${rate(value)}/s`}
        />
        <Chart
          title="Errors"
          times={times(found.errors_total)}
          lines={lines(found.errors_total)}
          format={(value) => `${rate(value)}/s`}
          empty="No errors in this range."
        />
        <Chart
          title="Unfinished jobs"
          times={times(found.queue_depth)}
          lines={lines(found.queue_depth)}
          format={count}
          empty="No queue has jobs."
        />
      </div>
      {now !== null && (
        <div class="two">
          <Section title="Store">
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

function title(alarm: Alarm): string {
  const words = alarm.code.replaceAll("-", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function Store(props: { report: RedisMetrics }) {
  const { connection, store, server, memory, transport, latency, processes, uptime_seconds } = props.report;
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
        ["PING p50 / p99", `${milliseconds(latency.p50_ms)} / ${milliseconds(latency.p99_ms)}`],
        ["Memory", used],
        ["Eviction", memory?.eviction_policy ?? "–"],
        ["Clients", count(server?.connected_clients)],
        ["Commands a trip", transport.commands_per_trip === null ? "–" : rate(transport.commands_per_trip)],
        ["Processes", `${count(processes)}, this one for ${seconds(uptime_seconds)}`],
      ]}
    />
  );
}
