/** Open streams and what was sent to them. */

import { Chart } from "../chart";
import { counter, lines, times, total, useReport, useSeries } from "../figures";
import { count, rate } from "../format";
import { Card, State } from "../parts";

export function Realtime() {
  const report = useReport();
  const series = useSeries("streams", "stream_messages_total");
  const now = report.value.value;
  const found = series.value.value ?? {};
  const open = total(found.streams, "streams")[0]?.values.findLast((value) => value != null);
  return (
    <>
      <State of={report} />
      {now && (
        <div class="cards">
          <Card name="Open streams" value={count(open ?? 0)} />
          <Card name="Messages sent" value={count(counter(now, "stream_messages_total"))} more="to all streams" />
        </div>
      )}
      <div class="two">
        <Chart title="Streams" times={times(found.streams)} lines={total(found.streams, "streams")} format={count} />
        <Chart
          title="Messages"
          times={times(found.stream_messages_total)}
          lines={lines(found.stream_messages_total, { "": "messages" })}
          format={(value) => `${rate(value)}/s`}
        />
      </div>
    </>
  );
}
