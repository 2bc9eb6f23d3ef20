/** Hit ratios by tier, loads, and the flush of a workspace's cache. */

import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";

import { Chart } from "../chart";
import { confirmAction } from "../dialog";
import type { Done } from "../documents";
import { counter, lines, share, times, useReport, useSeries } from "../figures";
import { count, percent, rate } from "../format";
import { Card, Section, State } from "../parts";

const TIERS = { memory: "memory", store: "store", stale: "stale", miss: "miss" };

export function Cache() {
  const report = useReport();
  const series = useSeries("cache_lookups_total", "cache_loads_total", "cache_store_errors_total");
  const now = report.value.value;
  const found = series.value.value ?? {};
  const rates = now?.hit_rates;
  return (
    <>
      <State of={report} />
      {rates && (
        <div class="cards">
          <Card name="Hits" value={percent(rates.hit_ratio)} more="of either tier" />
          <Card name="In memory" value={percent(rates.memory_ratio)} more={count(rates.memory_hits)} />
          <Card name="In the store" value={percent(rates.store_ratio)} more={`${count(rates.store_hits)}, of what reached it`} />
          <Card name="Stale" value={count(rates.stale_hits)} more="served while renewed" />
          <Card name="Misses" value={count(rates.misses)} />
          <Card
            name="Loads failed"
            value={count(counter(now, "cache_loads_total|failed"))}
            more={`${count(counter(now, "cache_loads_total|done"))} done`}
          />
        </div>
      )}
      <div class="two">
        <Chart
          title="Hit ratio"
          times={times(found.cache_lookups_total)}
          lines={[
            ...share(found.cache_lookups_total, ["memory", "store", "stale"], "hits"),
            ...share(found.cache_lookups_total, ["memory"], "in memory"),
          ]}
          format={percent}
        />
        <Chart
          title="Lookups by tier"
          times={times(found.cache_lookups_total)}
          lines={lines(found.cache_lookups_total, TIERS)}
          format={(value) => `${rate(value)}/s`}
        />
        <Chart
          title="Loads"
          times={times(found.cache_loads_total)}
          lines={lines(found.cache_loads_total)}
          format={(value) => `${rate(value)}/s`}
        />
        <Flush />
      </div>
    </>
  );
}

function Flush() {
  const workspace = useMemo(() => signal(""), []);
  const region = useMemo(() => signal(""), []);

  function ask(event: Event): void {
    event.preventDefault();
    const what = region.value ? `region ${region.value} of ${workspace.value}` : `the whole cache of ${workspace.value}`;
    confirmAction<Done>({
      title: "Flush the cache?",
      body: <p>Every value of {what} becomes a miss, in all processes at once. What is asked next is loaded anew.</p>,
      button: "Flush",
      danger: true,
      path: "admin/cache/flush",
      words: { workspace: workspace.value, region: region.value || null },
      done: () => `Flushed ${what}.`,
    });
  }

  return (
    <Section title="Flush">
      <form class="filters" onSubmit={ask}>
        <label>
          Workspace
          <input required value={workspace.value} onInput={(event) => (workspace.value = event.currentTarget.value.trim())} />
        </label>
        <label>
          Region (all if empty)
          <input value={region.value} onInput={(event) => (region.value = event.currentTarget.value.trim())} />
        </label>
        <button type="submit" class="danger">
          Flush …
        </button>
      </form>
    </Section>
  );
}
