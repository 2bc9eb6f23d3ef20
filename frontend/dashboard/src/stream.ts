/** Whether somebody looks; and the stream by which the service then says when there is something new, through this project's own client. */

import { effect, signal } from "@preact/signals";
import { Realtime } from "@raptorflow/redis";

import { change, type Problem, refused, ROOT, token } from "./api";
import type { LiveToken } from "./documents";

export const paused = signal(false);
export const hidden = signal(document.hidden);
document.addEventListener("visibilitychange", () => (hidden.value = document.hidden));

/** Whether the service tells; otherwise the page asks by the clock. */
export const streaming = signal(false);

/** Counts what the service told. */
export const told = signal(0);

const TOPIC = "dashboard";

/** A service without keys for realtime: it is not asked again. */
const without = signal(false);

effect(() => {
  void token.value;
  if (hidden.value || paused.value || without.value || refused.value !== null) return;
  const realtime = new Realtime({
    identity: crypto.randomUUID(),
    url: new URL("api/v1/realtime", ROOT).href,
    // Only the tab that is looked at has a stream.
    sharing: ["tab"],
    token: issued,
  });
  const stops = [
    // Stale is the store's state, of which the service tells all the same.
    realtime.onStatus((status) => (streaming.value = status === "live" || status === "stale")),
    realtime.events(TOPIC).listen(tell, { onGap: tell }),
  ];
  return () => {
    for (const stop of stops) stop();
    realtime.close();
    streaming.value = false;
  };
});

function tell(): void {
  told.value += 1;
}

async function issued(): Promise<string> {
  try {
    return (await change<LiveToken>("admin/realtime/token")).token;
  } catch (error) {
    const { code, forbidden } = error as Problem;
    if (code === "not-configured" || forbidden) without.value = true;
    throw error;
  }
}
