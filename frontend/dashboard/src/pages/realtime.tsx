/** Open streams, what they listen to, and what was sent to them. */

import { ask } from "../api";
import { Chart } from "../chart";
import type { RealtimeFigures, TopicFigures } from "../documents";
import { counter, lines, times, total, useReport, useSeries } from "../figures";
import { count, rate } from "../format";
import { useLive } from "../live";
import { Card, Section, State, Tag } from "../parts";
import { Table } from "../table";

export function Realtime() {
  const report = useReport();
  const here = useLive((abort) => ask<RealtimeFigures>("admin/realtime", {}, abort), []);
  const series = useSeries("streams", "topics", "stream_messages_total");
  const now = report.value.value;
  const figures = here.value.value;
  const found = series.value.value ?? {};
  return (
    <>
      <State of={here} />
      {figures && (
        <div class="cards">
          <Card
            name="Open streams"
            value={count(figures.streams)}
            more={`of this process, this page included; ${count(figures.opened_total)} opened so far`}
          />
          <Card name="Topics listened to" value={count(figures.topics_total)} more="in this process" />
          <Card name="Messages sent" value={count(counter(now, "stream_messages_total"))} more="by all processes, in this range" />
          <Card name="Fell behind" value={count(figures.lagged_total)} more={`${count(figures.slow_total)} ended for being too slow`} />
          <Card name="Link to the store" value={figures.live ? "up" : "down"} more={`${count(figures.parked)} streams wait for a write`} />
        </div>
      )}
      <div class="two">
        <Chart
          title="Streams and topics"
          times={times(found.streams)}
          lines={[...total(found.streams, "streams"), ...total(found.topics, "topics")]}
          format={count}
          whole
          empty="No stream was open in this range."
        />
        <Chart
          title="Messages"
          times={times(found.stream_messages_total)}
          lines={lines(found.stream_messages_total, { "": "messages" })}
          format={(value) => `${rate(value)}/s`}
          empty="Nothing was sent in this range."
        />
      </div>
      <Section title="Topics of this process">
        <Table<TopicFigures>
          quiet
          caption="Topics by listeners"
          empty="Nobody listens to a topic here."
          rows={figures?.topics ?? []}
          id={(row) => `${row.workspace} ${row.kind} ${row.topic}`}
          columns={[
            { head: "Topic", cell: (row) => <code>{row.topic}</code>, by: (row) => row.topic },
            { head: "Kind", cell: (row) => <Tag>{row.kind}</Tag>, by: (row) => row.kind },
            { head: "Workspace", cell: (row) => row.workspace, by: (row) => row.workspace },
            { head: "Listeners", cell: (row) => count(row.listeners), by: (row) => row.listeners, number: true },
          ]}
        />
      </Section>
    </>
  );
}
