// What the tabs of a browser share: one connection, and for each topic what is known of it, for tabs that come later.

import type { Clock } from "./clock.ts";
import { Connection } from "./connection.ts";
import { Credentials } from "./credentials.ts";
import { RealtimeError } from "./errors.ts";
import type { HubConfig, TabPort, ToHub } from "./messages.ts";
import { type Json, keyOf, kindOf, type Kind, type TopicFrame, type Want } from "./protocol.ts";
import { Requests } from "./requests.ts";
import { backoff } from "./backoff.ts";
import { advance, emptyView, framesOf, type View } from "./view.ts";

/** A topic that no tab wants is kept for this long: a page that is left is often followed by one that wants it too. */
const LINGER_MS = 1_000;
/** A publish that can be repeated without harm is sent again for this long. */
const PUBLISH_WITHIN_MS = 30_000;
const TOKEN_WITHIN_MS = 15_000;

interface Topic {
  readonly kind: Kind;
  readonly topic: string;
  readonly tabs: Set<TabPort>;
  view: View;
  /** Whether a hole was found and its filling is under way. */
  healing: boolean;
  takeBackEnd: (() => void) | undefined;
}

interface Present {
  readonly tab: TabPort;
  readonly topic: string;
  readonly member: string;
  data: Json;
}

export class Hub {
  readonly #connection: Connection;
  readonly #requests: Requests;
  readonly #clock: Clock;
  readonly #tabs = new Set<TabPort>();
  readonly #topics = new Map<string, Topic>();
  readonly #present = new Map<string, Present>();
  #tokenWaiters: ((token: string | undefined) => void)[] = [];

  constructor(config: HubConfig, fetcher: typeof fetch, clock: Clock) {
    this.#clock = clock;
    this.#requests = new Requests(config.url, fetcher, clock);
    const credentials = new Credentials(this.#requests, () => (config.signed ? this.#askTabs() : Promise.resolve(undefined)));
    this.#connection = new Connection(this.#requests, credentials, clock, () => this.#wants(), {
      frame: (frame) => this.#frame(frame),
      status: (status) => this.#tell({ m: "status", status }),
      refused: (refused) => this.#tell({ m: "refused", refused }),
      opened: () => this.#presentAgain(),
      moved: () => this.#moved(),
    });
  }

  /** A message of a tab; its first one makes it known. */
  take(tab: TabPort, message: ToHub): void {
    switch (message.m) {
      case "join":
        this.#tabs.add(tab);
        tab.send({ m: "status", status: this.#connection.status });
        return;
      case "want":
        return this.#want(tab, message.want);
      case "drop":
        return this.#drop(tab, keyOf(message.kind, message.topic));
      case "publish":
        void this.#publish(tab, message.call, message.body, message.repeatable);
        return;
      case "present": {
        const { topic, member, data } = message;
        const present = { tab, topic, member, data };
        this.#present.set(`${topic} ${member}`, present);
        void this.#say(present);
        return;
      }
      case "absent":
        return this.#absent(`${message.topic} ${message.member}`);
      case "token":
        for (const waiter of this.#tokenWaiters.splice(0)) waiter(message.token ?? undefined);
        return;
      case "wake":
        return this.#connection.wake(message.why);
      case "leave":
        return this.leave(tab);
    }
  }

  /** The tab is gone. */
  leave(tab: TabPort): void {
    if (!this.#tabs.delete(tab)) return;
    for (const [key, present] of this.#present) {
      if (present.tab === tab) this.#absent(key);
    }
    for (const [key, topic] of this.#topics) {
      if (topic.tabs.has(tab)) this.#drop(tab, key);
    }
  }

  /** The network came back, or went. */
  network(online: boolean): void {
    if (online) this.#connection.wake("online");
    else this.#connection.lost();
  }

  close(): void {
    this.#connection.close();
  }

  // --- topics ---

  #wants(): Want[] {
    return [...this.#topics.values()].map(({ kind, topic, view }) => ({
      topic,
      kind,
      epoch: view.epoch,
      offset: view.offset,
    }));
  }

  #want(tab: TabPort, want: Want): void {
    const key = keyOf(want.kind, want.topic);
    const known = this.#topics.get(key);
    if (known === undefined) {
      const { kind, topic } = want;
      const view = emptyView(kind, kind === "events" ? want : undefined);
      this.#topics.set(key, { kind, topic, view, tabs: new Set([tab]), healing: false, takeBackEnd: undefined });
      this.#connection.subscribe({ topic, kind, epoch: view.epoch, offset: view.offset });
      return;
    }
    known.takeBackEnd?.();
    known.takeBackEnd = undefined;
    known.tabs.add(tab);
    const { view, topic, kind } = known;
    const behind = kind === "events" && want.epoch !== "" && (want.epoch !== view.epoch || want.offset < view.offset);
    if (!view.started) {
      // Nothing was said to anybody yet: all begin where the first has to.
      if (!behind) return;
      known.view = emptyView(kind, want);
      return this.#connection.subscribe(want);
    }
    // Events before the hub's own position are with the server. All tabs get them, and those that have them drop them.
    if (behind) this.#connection.subscribe(want);
    else for (const frame of framesOf(view, topic)) tab.send({ m: "frame", frame });
  }

  #drop(tab: TabPort, key: string): void {
    const topic = this.#topics.get(key);
    if (topic === undefined || !topic.tabs.delete(tab) || topic.tabs.size > 0) return;
    topic.takeBackEnd = this.#clock.after(LINGER_MS, () => {
      this.#topics.delete(key);
      this.#connection.unsubscribe(topic.kind, topic.topic);
    });
  }

  #frame(frame: TopicFrame): void {
    const kind = kindOf(frame);
    for (const topic of kind === undefined ? this.#named(frame.topic) : this.#named(frame.topic, kind)) {
      const [view, outcome] = advance(topic.view, frame);
      topic.view = view;
      if (frame.t === "sub") topic.healing = false;
      if (outcome.was === "hole") {
        this.#heal(topic);
        continue;
      }
      for (const tab of topic.tabs) tab.send({ m: "frame", frame });
    }
  }

  #named(name: string, ...kinds: Kind[]): Topic[] {
    const all: Kind[] = kinds.length > 0 ? kinds : ["events", "state", "append", "presence"];
    return all.flatMap((kind) => this.#topics.get(keyOf(kind, name)) ?? []);
  }

  /** Updates did not arrive: the server has them. */
  #heal(topic: Topic): void {
    if (topic.healing) return;
    topic.healing = true;
    const { kind, view } = topic;
    this.#connection.subscribe({ topic: topic.topic, kind, epoch: view.epoch, offset: view.offset });
  }

  #moved(): void {
    for (const topic of this.#topics.values()) topic.view = emptyView(topic.kind);
    this.#tell({ m: "moved" });
  }

  #tell(message: Parameters<TabPort["send"]>[0]): void {
    for (const tab of this.#tabs) tab.send(message);
  }

  // --- what tabs do ---

  async #publish(tab: TabPort, call: number, body: Json, repeatable: boolean): Promise<void> {
    const until = this.#clock.now() + PUBLISH_WITHIN_MS;
    for (let failures = 1; ; failures++) {
      try {
        const result = (await this.#connection.call("/publish", () => body)) as Json;
        return tab.send({ m: "done", call, result });
      } catch (error) {
        const known = error instanceof RealtimeError ? error : new RealtimeError(String(error), "unexpected", 400);
        const pause = backoff(failures, this.#clock.random());
        const again = known.status === 429 || (known.retryable && repeatable);
        if (!again || this.#clock.now() + pause > until) {
          const { message, code, status } = known;
          return tab.send({ m: "failed", call, message, code, status });
        }
        await new Promise<void>((resolve) => this.#clock.after(pause, resolve));
      }
    }
  }

  #presentAgain(): void {
    for (const present of this.#present.values()) void this.#say(present);
  }

  async #say(present: Present, leave = false): Promise<void> {
    const { topic, member, data } = present;
    const stream = this.#connection.stream;
    // Without a stream there is nobody to be present; the next one tells it again.
    if (stream === undefined) return;
    try {
      await this.#connection.call("/presence", ({ user }) => ({
        stream,
        topic,
        member: `${user}:${member}`,
        ...(leave ? { leave } : { data }),
      }));
    } catch (error) {
      if (error instanceof RealtimeError && error.status === 403) {
        this.#tell({ m: "refused", refused: { topic, kind: "presence", code: error.code } });
      } else if (!leave && stream === this.#connection.stream) {
        this.#clock.after(backoff(3, this.#clock.random()), () => {
          if (this.#present.get(`${topic} ${member}`) === present) void this.#say(present);
        });
      }
    }
  }

  #absent(key: string): void {
    const present = this.#present.get(key);
    if (present === undefined) return;
    this.#present.delete(key);
    void this.#say(present, true);
  }

  /** The token of the first tab that gives one. */
  #askTabs(): Promise<string | undefined> {
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(TOKEN_WITHIN_MS, () => reject(new RealtimeError("No tab gave a token.", "token-missing", 0)));
      this.#tokenWaiters.push((token) => {
        cancel();
        resolve(token);
      });
      this.#tell({ m: "token" });
    });
  }
}
