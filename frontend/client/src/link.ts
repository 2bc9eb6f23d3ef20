// How a tab reaches the hub: in a SharedWorker, in the tab that leads, or in itself.

import { SYSTEM_CLOCK } from "./clock.ts";
import { Hub } from "./hub.ts";
import type { HubConfig, TabPort, ToHub, ToTab } from "./messages.ts";

export type Sharing = "worker" | "leader" | "tab";

export interface Link {
  readonly sharing: Sharing;
  send(message: ToHub): void;
  close(): void;
}

export interface LinkEvents {
  message(message: ToTab): void;
  /** There is a hub that knows nothing of this tab: join it, and tell it everything. */
  fresh(): void;
  /** This way does not work here. */
  failed(): void;
}

type Envelope =
  | { readonly to: "hub"; readonly from: string; readonly message: ToHub }
  | { readonly to: "tab"; readonly tab: string; readonly message: ToTab }
  /** A tab asks whether there is a leader; a leader says that it is there, to one tab or to all. */
  | { readonly to: "leader"; readonly from: string }
  | { readonly to: "follower"; readonly tab: string | undefined; readonly leader: string };

const WORKER_ANSWERS_WITHIN_MS = 10_000;

/** The ways that this browser has, the best first. */
export function waysOf(scope: typeof globalThis = globalThis): Sharing[] {
  const locks = scope.navigator?.locks !== undefined;
  return [
    ...(locks && "SharedWorker" in scope ? (["worker"] as const) : []),
    ...(locks && "BroadcastChannel" in scope ? (["leader"] as const) : []),
    "tab",
  ];
}

/**
 * Opens a link.
 *
 * @param name what tabs that share have in common.
 * @param tab this tab's id; by a lock of this name others see that it is there.
 */
export function openLink(sharing: Sharing, name: string, tab: string, config: HubConfig, events: LinkEvents): Link {
  switch (sharing) {
    case "worker":
      return new WorkerLink(name, tab, events);
    case "leader":
      return new LeaderLink(name, tab, config, events);
    case "tab":
      return new OwnLink(config, events);
  }
}

/** Holds a lock until it is told to let go, and calls when it has it. */
function hold(name: string, held: () => void, signal: AbortSignal): void {
  const ended = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
  navigator.locks
    .request(name, { signal }, () => {
      held();
      return ended;
    })
    .catch(() => undefined); // The signal ended the wait.
}

class WorkerLink implements Link {
  readonly sharing = "worker";
  readonly #abort = new AbortController();
  #port: MessagePort | undefined;
  #takeBackFailure: (() => void) | undefined;

  constructor(
    private readonly name: string,
    tab: string,
    private readonly events: LinkEvents,
  ) {
    hold(`${name}:tab:${tab}`, () => this.#open(), this.#abort.signal);
  }

  send(message: ToHub): void {
    this.#port?.postMessage(message);
  }

  close(): void {
    this.#takeBackFailure?.();
    this.send({ m: "leave" });
    this.#port?.close();
    this.#abort.abort();
  }

  #open(): void {
    let answered = false;
    const fail = (): void => {
      if (answered || this.#abort.signal.aborted) return;
      this.#abort.abort();
      this.events.failed();
    };
    let worker: SharedWorker;
    try {
      worker = new SharedWorker(new URL("./worker.js", import.meta.url), { type: "module", name: this.name });
    } catch {
      // A content policy or an origin that may have none.
      return fail();
    }
    worker.addEventListener("error", fail);
    this.#takeBackFailure = SYSTEM_CLOCK.after(WORKER_ANSWERS_WITHIN_MS, fail);
    this.#port = worker.port;
    this.#port.onmessage = ({ data }: MessageEvent<ToTab>) => {
      if (!answered) {
        answered = true;
        this.#takeBackFailure?.();
        this.#mourn();
      }
      this.events.message(data);
    };
    this.events.fresh();
  }

  /** Waits for the lock that the worker holds: who gets it knows that the worker is dead, and starts another. */
  #mourn(): void {
    const { signal } = this.#abort;
    navigator.locks
      .request(`${this.name}:hub`, { mode: "shared", signal }, () => undefined)
      .then(
        () => {
          this.#port?.close();
          this.#open();
        },
        () => undefined, // The signal ended the wait.
      );
  }
}

class LeaderLink implements Link {
  readonly sharing = "leader";
  readonly #channel: BroadcastChannel;
  readonly #abort = new AbortController();
  #hub: Hub | undefined;
  readonly #own: TabPort;
  readonly #others = new Map<string, TabPort>();
  #leader: string | undefined;

  constructor(
    private readonly name: string,
    private readonly tab: string,
    private readonly config: HubConfig,
    private readonly events: LinkEvents,
  ) {
    this.#own = { send: (message) => queueMicrotask(() => events.message(message)) };
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }: MessageEvent<Envelope>) => this.#take(data);
    hold(`${name}:tab:${tab}`, () => this.#post({ to: "leader", from: tab }), this.#abort.signal);
    hold(`${name}:leader`, () => this.#lead(), this.#abort.signal);
  }

  send(message: ToHub): void {
    if (this.#hub !== undefined) this.#hub.take(this.#own, message);
    else this.#post({ to: "hub", from: this.tab, message });
  }

  close(): void {
    this.send({ m: "leave" });
    this.#hub?.close();
    this.#abort.abort();
    this.#channel.close();
  }

  #post(envelope: Envelope): void {
    this.#channel.postMessage(envelope);
  }

  #lead(): void {
    this.#hub = hubWithNetwork(this.config, this.#abort.signal);
    this.#leader = this.tab;
    this.#post({ to: "follower", tab: undefined, leader: this.tab });
    this.events.fresh();
  }

  #take(envelope: Envelope): void {
    switch (envelope.to) {
      case "leader":
        if (this.#hub !== undefined) this.#post({ to: "follower", tab: envelope.from, leader: this.tab });
        return;
      case "follower":
        if (envelope.leader === this.#leader || (envelope.tab !== undefined && envelope.tab !== this.tab)) return;
        this.#leader = envelope.leader;
        return this.events.fresh();
      case "tab":
        if (envelope.tab === this.tab) this.events.message(envelope.message);
        return;
      case "hub":
        this.#hub?.take(this.#port(envelope.from), envelope.message);
        return;
    }
  }

  /** Another tab's port, for as long as that tab holds its lock. */
  #port(tab: string): TabPort {
    const known = this.#others.get(tab);
    if (known !== undefined) return known;
    const port: TabPort = { send: (message) => this.#post({ to: "tab", tab, message }) };
    this.#others.set(tab, port);
    navigator.locks
      .request(`${this.name}:tab:${tab}`, { signal: this.#abort.signal }, () => {
        this.#others.delete(tab);
        this.#hub?.leave(port);
      })
      .catch(() => undefined); // This tab was closed first.
    return port;
  }
}

class OwnLink implements Link {
  readonly sharing = "tab";
  readonly #abort = new AbortController();
  readonly #hub: Hub;
  readonly #port: TabPort;

  constructor(config: HubConfig, events: LinkEvents) {
    this.#hub = hubWithNetwork(config, this.#abort.signal);
    this.#port = { send: (message) => queueMicrotask(() => events.message(message)) };
    queueMicrotask(() => events.fresh());
  }

  send(message: ToHub): void {
    this.#hub.take(this.#port, message);
  }

  close(): void {
    this.#hub.leave(this.#port);
    this.#hub.close();
    this.#abort.abort();
  }
}

function hubWithNetwork(config: HubConfig, signal: AbortSignal): Hub {
  const hub = new Hub(config, (...request) => fetch(...request), SYSTEM_CLOCK);
  globalThis.addEventListener?.("online", () => hub.network(true), { signal });
  globalThis.addEventListener?.("offline", () => hub.network(false), { signal });
  return hub;
}
