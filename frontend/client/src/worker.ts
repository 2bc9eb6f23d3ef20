// The SharedWorker: one hub for all tabs of this browser. Its name says whose it is, so that two users never share one.

import { SYSTEM_CLOCK } from "./clock.ts";
import { Hub } from "./hub.ts";
import type { TabPort, ToHub } from "./messages.ts";

interface SharedScope extends EventTarget {
  readonly name: string;
  readonly navigator: { readonly locks: LockManager };
}

const scope = globalThis as unknown as SharedScope;
let hub: Hub | undefined;

// While this worker lives it holds the lock by which tabs know that it does.
const alive = new Promise<void>((resolve) => {
  void scope.navigator.locks.request(`${scope.name}:hub`, () => {
    resolve();
    return new Promise<never>(() => undefined);
  });
});

scope.addEventListener("connect", (event) => {
  const port = (event as MessageEvent).ports[0];
  if (port === undefined) return;
  const tab: TabPort = { send: (message) => port.postMessage(message) };
  port.onmessage = ({ data }: MessageEvent<ToHub>) => {
    void alive.then(() => {
      if (data.m === "join") {
        hub ??= new Hub(data.config, (...request) => fetch(...request), SYSTEM_CLOCK);
        // Granted when the tab is gone, however it went.
        void scope.navigator.locks.request(`${scope.name}:tab:${data.tab}`, () => hub?.leave(tab));
      }
      hub?.take(tab, data);
    });
  };
});
scope.addEventListener("online", () => hub?.network(true));
scope.addEventListener("offline", () => hub?.network(false));
