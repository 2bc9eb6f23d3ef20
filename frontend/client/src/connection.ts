// The one stream of a browser. It never gives up: whatever ends it, it comes back and goes on where it was.

import { backoff } from "./backoff.ts";
import type { Clock } from "./clock.ts";
import type { Credentials } from "./credentials.ts";
import { RealtimeError } from "./errors.ts";
import { type Frame, isTopicFrame, keyOf, kindOf, type Kind, type Refused, type Session, type TopicFrame, type Want } from "./protocol.ts";
import type { Requests } from "./requests.ts";
import { SseParser } from "./sse.ts";

/**
 * How fresh what is shown is.
 *
 * - `live`: everything that is published arrives.
 * - `catching-up`: connected, and some topics are still being brought up to date.
 * - `stale`: connected, but the server has lost its store, or has been silent for too long.
 * - `offline`: no connection; the next attempt comes by itself.
 */
export type Status = "live" | "catching-up" | "stale" | "offline";

export interface ConnectionEvents {
  /** A frame of a topic. */
  frame(frame: TopicFrame): void;
  status(status: Status): void;
  refused(refused: Refused): void;
  /** A stream is open; presence of this browser is to be told again. */
  opened(stream: string): void;
  /** The token is now of another workspace: nothing that was known is of this one. */
  moved(): void;
}

/** A connection that is up for this long has proved itself: the next failure counts as the first. */
const PROVED_MS = 5_000;
/** What is wanted in the same moment is one request. */
const GATHER_MS = 5;
/** Silence of more than these many heartbeats is told, and ends the stream. */
const LATE = 1.5;
const DEAD = 2.5;

/** How a stream ended: the least time to wait, and whether that is all. */
interface Ended {
  readonly retry: number;
  readonly told: boolean;
}

const BROKEN: Ended = { retry: 0, told: false };

export class Connection {
  readonly #wants: () => Want[];
  readonly #events: ConnectionEvents;
  #closed = false;
  /** Whether there is something to connect for. */
  #running = false;
  /** Whether `#run` is under way; it may be on its way out of a stream that is not wanted any more. */
  #looping = false;
  /** The stream was ended on purpose, to open another: nothing to wait for. */
  #hurried = false;
  #stream: string | undefined;
  #abort: AbortController | undefined;
  #failures = 0;
  #heardAt = 0;
  #heartbeatMs = 20_000;
  #sleptOffset = 0;
  #stale = false;
  #late = false;
  #tried = false;
  #status: Status = "catching-up";
  /** Topics whose start has not come on this stream. */
  readonly #pending = new Set<string>();
  #asked = new Map<string, Want>();
  #dropped = new Set<string>();
  #gathering = false;
  #endPause: (() => void) | undefined;
  #cancelWatch: (() => void) | undefined;
  #cancelRefresh: (() => void) | undefined;
  #workspace: string | undefined;
  #expires = 0;
  #refreshing = false;

  /** @param wants every topic that is wanted now, with the position to go on from. */
  constructor(
    private readonly requests: Requests,
    private readonly credentials: Credentials,
    private readonly clock: Clock,
    wants: () => Want[],
    events: ConnectionEvents,
  ) {
    this.#wants = wants;
    this.#events = events;
  }

  get status(): Status {
    return this.#status;
  }

  /** The stream's id, while there is one. */
  get stream(): string | undefined {
    return this.#stream;
  }

  /** Asks for a topic, or again for one from another position; opens the stream if there is none. */
  subscribe(want: Want): void {
    const key = keyOf(want.kind, want.topic);
    this.#dropped.delete(key);
    this.#pending.add(key);
    this.#asked.set(key, want);
    this.#running = true;
    if (this.#looping) this.#gather();
    else void this.#run();
    this.#tell();
  }

  unsubscribe(kind: Kind, topic: string): void {
    const key = keyOf(kind, topic);
    this.#pending.delete(key);
    this.#asked.delete(key);
    this.#dropped.add(key);
    if (this.#wants().length === 0) this.#leave();
    else this.#gather();
    this.#tell();
  }

  /** Something happened that may have cut the connection, or brought the network back: do not wait, look. */
  wake(why: "online" | "visible"): void {
    this.#endPause?.();
    const silent = this.clock.now() - this.#heardAt;
    // A new network has not the old one's connections, and a computer that slept has lost them: both are silent about it.
    if (this.#stream !== undefined && (why === "online" || silent > this.#heartbeatMs * LATE || this.#slept())) {
      this.#renew();
    }
  }

  /** The network is known to be gone. */
  lost(): void {
    this.#abort?.abort();
  }

  close(): void {
    this.#closed = true;
    this.#leave();
  }

  /**
   * Makes a request as this browser. A refused token is replaced once.
   *
   * @throws RealtimeError as the server says, or "network".
   */
  async call(path: string, body: (session: Session) => unknown): Promise<unknown> {
    for (let attempt = 0; ; attempt++) {
      const session = await this.credentials.get();
      try {
        return await this.requests.call(path, body(session), session.token);
      } catch (error) {
        if (!(error instanceof RealtimeError) || error.status !== 401 || attempt > 0) throw error;
        this.credentials.forget();
      }
    }
  }

  #leave(): void {
    this.#running = false;
    this.#renew();
    this.#endPause?.();
  }

  /** Ends the stream and opens the next at once. */
  #renew(): void {
    this.#hurried = true;
    this.#abort?.abort();
  }

  async #run(): Promise<void> {
    this.#looping = true;
    while (this.#running && !this.#closed) {
      const openedAt = this.clock.now();
      let ended = BROKEN;
      try {
        ended = await this.#once();
      } catch (error) {
        if (error instanceof RealtimeError) {
          if (error.status === 401) this.credentials.forget();
          ended = { retry: error.retryAfterMs, told: false };
        }
        // What else fails here is the network or the server; what to do is the same for all of it.
      }
      const lived = this.#stream === undefined ? 0 : this.clock.now() - openedAt;
      this.#forgetStream();
      if (!this.#running || this.#closed) break;
      this.#tell();
      if (this.#hurried) {
        this.#hurried = false;
        continue;
      }
      this.#failures = lived > PROVED_MS ? 1 : this.#failures + 1;
      await this.#pause(ended.told ? ended.retry : Math.max(ended.retry, backoff(this.#failures, this.clock.random())));
    }
    this.#looping = false;
    this.#hurried = false;
  }

  /** One stream, from its request to its end. */
  async #once(): Promise<Ended> {
    const abort = new AbortController();
    this.#abort = abort;
    const session = await this.credentials.get();
    if (this.#workspace !== undefined && this.#workspace !== session.workspace) this.#events.moved();
    this.#workspace = session.workspace;
    const wants = this.#wants();
    if (wants.length === 0 || !this.#running || abort.signal.aborted) return BROKEN;
    this.#asked.clear();
    this.#dropped.clear();
    this.#pending.clear();
    for (const want of wants) this.#pending.add(keyOf(want.kind, want.topic));
    const response = await this.requests.open("/stream", { topics: wants }, session.token, abort);
    if (response.body === null) return BROKEN;
    return await this.#read(response.body.getReader(), abort);
  }

  async #read(reader: ReadableStreamDefaultReader<Uint8Array>, abort: AbortController): Promise<Ended> {
    const parser = new SseParser();
    this.#heardAt = this.clock.now();
    this.#sleptOffset = this.clock.wall() - this.clock.now();
    this.#watch();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        // What was on its way when somebody gave the stream up is not taken: the next stream begins where the topics are.
        if (done || abort.signal.aborted) return BROKEN;
        this.#heardAt = this.clock.now();
        this.#late = false;
        for (const data of parser.push(value)) {
          const ended = this.#take(JSON.parse(data) as Frame);
          if (ended !== undefined) return ended;
        }
        this.#tell();
      }
    } finally {
      // Also ends the request, so that the server need not find out.
      abort.abort();
      reader.releaseLock();
    }
  }

  #take(frame: Frame): Ended | undefined {
    if (isTopicFrame(frame)) {
      const kind = kindOf(frame);
      if (frame.t === "sub" && kind !== undefined) this.#pending.delete(keyOf(kind, frame.topic));
      this.#events.frame(frame);
      return undefined;
    }
    switch (frame.t) {
      case "hello":
        this.#stream = frame.stream;
        this.#heartbeatMs = frame.heartbeat * 1000;
        this.#expires = frame.expires;
        this.#stale = false;
        this.#planRefresh();
        this.#gather();
        this.#events.opened(frame.stream);
        return undefined;
      case "bye":
        if (frame.reason === "expired") this.credentials.forget();
        // Who is one too many, or too slow, waits longer each time.
        return { retry: frame.retry, told: frame.reason === "shutdown" || frame.reason === "expired" };
      case "auth":
        // A later end is the answer to a refresh; the same one again is its warning.
        if (frame.expires > this.#expires) this.#expires = frame.expires;
        else void this.#refresh();
        return undefined;
      case "stale":
      case "live":
        this.#stale = frame.t === "stale";
        return undefined;
      case "lag":
        for (const want of this.#wants()) {
          if (frame.topics.includes(want.topic)) this.#pending.add(keyOf(want.kind, want.topic));
        }
        return undefined;
      case "refused":
        this.#refuse(frame);
        return undefined;
      default:
        // A ping, or a frame of a newer server.
        return undefined;
    }
  }

  #refuse(refused: Refused): void {
    for (const kind of refused.kind === undefined ? (["events", "state", "append", "presence"] as const) : [refused.kind]) {
      this.#pending.delete(keyOf(kind, refused.topic));
    }
    this.#events.refused(refused);
  }

  // --- what changes while the stream is open ---

  #gather(): void {
    if (this.#gathering || this.#stream === undefined) return;
    this.#gathering = true;
    this.clock.after(GATHER_MS, () => {
      this.#gathering = false;
      void this.#send();
    });
  }

  /** Tells the server what is wanted besides, and what no longer. */
  async #send(): Promise<void> {
    const stream = this.#stream;
    if (stream === undefined) return;
    const [asked, dropped] = [[...this.#asked.values()], [...this.#dropped]];
    this.#asked.clear();
    this.#dropped.clear();
    try {
      if (dropped.length > 0) {
        const topics = dropped.map((key) => {
          const [kind, ...topic] = key.split(" ");
          return { kind, topic: topic.join(" ") };
        });
        await this.call("/unsubscribe", () => ({ stream, topics }));
      }
      if (asked.length > 0) {
        const answer = (await this.call("/subscribe", () => ({ stream, topics: asked }))) as { refused?: Refused[] };
        for (const refused of answer.refused ?? []) this.#refuse(refused);
      }
    } catch {
      // Then the stream is not what it should be. A new one asks for everything.
      if (this.#stream === stream) this.#abort?.abort();
    }
    this.#tell();
  }

  #planRefresh(): void {
    this.#refreshAfter(Math.max(10_000, this.credentials.refreshIn()));
  }

  #refreshAfter(milliseconds: number): void {
    this.#cancelRefresh?.();
    this.#cancelRefresh = this.clock.after(milliseconds, () => void this.#refresh());
  }

  /** A new token for the stream that is open. */
  async #refresh(): Promise<void> {
    const stream = this.#stream;
    if (stream === undefined || this.#refreshing) return;
    this.#refreshing = true;
    try {
      const session = await this.credentials.renew();
      if (session.workspace !== this.#workspace) return this.#renew();
      await this.requests.call("/auth", { stream }, session.token);
      if (this.#stream === stream) this.#planRefresh();
    } catch (error) {
      // The old token may be good for a while; when it ends, the server ends the stream.
      const refused = error instanceof RealtimeError && !error.retryable;
      if (refused) this.#abort?.abort();
      else if (this.#stream === stream) this.#refreshAfter(5_000);
    } finally {
      this.#refreshing = false;
    }
  }

  /** Judges the silence, by a clock that no background tab and no change of time moves. */
  #watch(): void {
    const look = (): void => {
      const silent = this.clock.now() - this.#heardAt;
      if (silent > this.#heartbeatMs * DEAD || this.#slept()) {
        this.#abort?.abort();
        return;
      }
      this.#late = silent > this.#heartbeatMs * LATE;
      this.#tell();
      this.#cancelWatch = this.clock.after(this.#heartbeatMs / 2, look);
    };
    this.#cancelWatch?.();
    this.#cancelWatch = this.clock.after(this.#heartbeatMs / 2, look);
  }

  /** The wall clock went on where the monotonic one stood: the machine slept, and its connections are dead. */
  #slept(): boolean {
    return this.clock.wall() - this.clock.now() - this.#sleptOffset > this.#heartbeatMs;
  }

  #forgetStream(): void {
    this.#stream = undefined;
    this.#late = false;
    this.#tried = true;
    this.#cancelWatch?.();
    this.#cancelRefresh?.();
  }

  async #pause(milliseconds: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.clock.after(milliseconds, resolve);
      this.#endPause = () => {
        cancel();
        resolve();
      };
    });
    this.#endPause = undefined;
  }

  #tell(): void {
    const status = this.#judge();
    if (status === this.#status) return;
    this.#status = status;
    this.#events.status(status);
  }

  #judge(): Status {
    if (this.#stream === undefined) return this.#tried ? "offline" : "catching-up";
    if (this.#stale || this.#late) return "stale";
    return this.#pending.size > 0 ? "catching-up" : "live";
  }
}
