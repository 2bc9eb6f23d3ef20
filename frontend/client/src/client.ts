import { Channel } from "./channel.ts";
import type { Status } from "./connection.ts";
import { RealtimeError } from "./errors.ts";
import { Job, type JobEvent } from "./job.ts";
import { type Link, openLink, type Sharing, waysOf } from "./link.ts";
import type { HubConfig, ToHub, ToTab } from "./messages.ts";
import { type Json, type Kind, keyOf, kindOf, type Position, type TopicFrame } from "./protocol.ts";
import { EventsTopic, Presence, type Publish, SharedState, type Stop, TokenStream } from "./topics.ts";
import type { EventOf, EventsName, JobName, MemberOf, PresenceName, ResultOf, StateName, StateOf, TextName } from "./types.ts";

export interface RealtimeOptions {
  /** Who is logged in, for example the user's id and workspace. Tabs share a stream only if it is the same. */
  readonly identity: string;
  /** The service's base path or URL; "/api/v1/realtime" unless told otherwise. */
  readonly url?: string;
  /** Gives a token that the application's backend signed. Without it the session's cookie speaks. */
  readonly token?: () => string | Promise<string>;
  /** Which ways of sharing to try, in order; all that this browser has unless told otherwise. */
  readonly sharing?: readonly Sharing[];
}

interface Call {
  /** Whether a hub has it. */
  sent: boolean;
  readonly message: ToHub & { m: "publish" };
  readonly resolve: (position: Position) => void;
  readonly reject: (error: RealtimeError) => void;
}

/** Realtime for one page. Made once, closed when the user logs out. */
export class Realtime {
  readonly #options: RealtimeOptions;
  readonly #config: HubConfig;
  readonly #name: string;
  readonly #tab = crypto.randomUUID();
  readonly #channels = new Map<string, Channel>();
  readonly #topics = new Map<string, unknown>();
  readonly #present = new Map<string, ToHub & { m: "present" }>();
  readonly #calls = new Map<number, Call>();
  readonly #statusListeners = new Set<(status: Status) => void>();
  readonly #abort = new AbortController();
  #ways: Sharing[];
  #link: Link | undefined;
  /** Whether a hub knows this tab. Until then nothing is sent: joining tells it all. */
  #joined = false;
  #status: Status = "catching-up";
  #lastCall = 0;

  constructor(options: RealtimeOptions) {
    this.#options = options;
    const url = new URL(options.url ?? "/api/v1/realtime", globalThis.location?.href).href;
    this.#config = { url, signed: options.token !== undefined };
    this.#name = `raptorflow ${url} ${options.identity}`;
    const here = waysOf();
    this.#ways = [...(options.sharing ?? here)].filter((way) => here.includes(way));
    const { signal } = this.#abort;
    globalThis.document?.addEventListener("visibilitychange", () => this.#visible(), { signal });
    globalThis.addEventListener?.("pagehide", (event) => this.#hidden(event as PageTransitionEvent), { signal });
    globalThis.addEventListener?.("pageshow", (event) => this.#shown(event as PageTransitionEvent), { signal });
  }

  /** This tab's own id. */
  get tab(): string {
    return this.#tab;
  }

  /** How this tab shares the stream; undefined before there was a reason to connect. */
  get sharing(): Sharing | undefined {
    return this.#link?.sharing;
  }

  get status(): Status {
    return this.#status;
  }

  /** Calls at each change of the status until the returned function is called. */
  onStatus(listener: (status: Status) => void): Stop {
    this.#statusListeners.add(listener);
    return () => this.#statusListeners.delete(listener);
  }

  events<N extends EventsName>(name: N): EventsTopic<EventOf<N>> {
    return this.#once("events", name, () => new EventsTopic<EventOf<N>>(this.#channel("events", name), this.#publish));
  }

  state<N extends StateName>(name: N): SharedState<StateOf<N>> {
    return this.#once("state", name, () => new SharedState<StateOf<N>>(this.#channel("state", name), this.#publish));
  }

  text<N extends TextName>(name: N): TokenStream {
    return this.#once("append", name, () => new TokenStream(this.#channel("append", name), this.#publish));
  }

  presence<N extends PresenceName>(name: N): Presence<MemberOf<N>> {
    const here = (member: string, data: Json): Stop => this.#here(name, member, data);
    return this.#once("presence", name, () => new Presence<MemberOf<N>>(this.#channel("presence", name), this.#tab, here));
  }

  /** A job that the application has enqueued. The task's name gives the result its type. */
  job<N extends JobName>(id: string, _task?: N): Job<ResultOf<N>> {
    const topic = `job:${id}`;
    return this.#once("job", topic, () => {
      const events = new EventsTopic<JobEvent<ResultOf<N>>>(this.#channel("events", topic), this.#publish);
      return new Job(events, new TokenStream(this.#channel("append", topic), this.#publish));
    });
  }

  /** Leaves: nothing is heard any more, and presence ends. */
  close(): void {
    this.#abort.abort();
    this.#link?.close();
    this.#link = undefined;
    this.#ways = [];
    for (const { reject } of this.#calls.values()) reject(new RealtimeError("Realtime was closed.", "closed", 0));
    this.#calls.clear();
  }

  #once<T>(kind: string, name: string, make: () => T): T {
    const key = `${kind} ${name}`;
    if (!this.#topics.has(key)) this.#topics.set(key, make());
    return this.#topics.get(key) as T;
  }

  #channel(kind: Kind, topic: string): Channel {
    const key = keyOf(kind, topic);
    const channel = this.#channels.get(key) ?? new Channel(kind, topic, (message) => this.#send(message));
    this.#channels.set(key, channel);
    return channel;
  }

  // --- the hub ---

  #send(message: ToHub): void {
    if (this.#link === undefined) this.#open();
    if (this.#joined) this.#link?.send(message);
  }

  #open(): void {
    const [way] = this.#ways;
    if (way === undefined) return;
    this.#link = openLink(way, this.#name, this.#tab, this.#config, {
      message: (message) => this.#take(message),
      fresh: () => this.#tellAll(),
      failed: () => {
        this.#ways.shift();
        this.#joined = false;
        this.#open();
      },
    });
  }

  /** A hub that knows nothing of this tab hears all that it needs to, and goes on where this tab is. */
  #tellAll(): void {
    const link = this.#link;
    if (link === undefined) return;
    this.#joined = true;
    link.send({ m: "join", tab: this.#tab, config: this.#config });
    for (const channel of this.#channels.values()) {
      if (channel.used) channel.want();
    }
    for (const present of this.#present.values()) link.send(present);
    for (const [id, call] of this.#calls) {
      if (call.sent && !call.message.repeatable) {
        call.reject(new RealtimeError("The connection broke before the answer came.", "network", 0));
        this.#calls.delete(id);
      } else {
        call.sent = true;
        link.send(call.message);
      }
    }
  }

  #take(message: ToTab): void {
    switch (message.m) {
      case "frame":
        return this.#frame(message.frame);
      case "status":
        if (message.status === this.#status) return;
        this.#status = message.status;
        for (const listener of [...this.#statusListeners]) listener(message.status);
        return;
      case "refused": {
        const { topic, kind, code } = message.refused;
        for (const channel of this.#channelsOf(topic, kind)) channel.refuse(code);
        return;
      }
      case "token":
        void this.#token();
        return;
      case "moved":
        for (const channel of this.#channels.values()) channel.reset();
        return;
      case "done":
        this.#calls.get(message.call)?.resolve(message.result as unknown as Position);
        this.#calls.delete(message.call);
        return;
      case "failed":
        this.#calls.get(message.call)?.reject(new RealtimeError(message.message, message.code, message.status));
        this.#calls.delete(message.call);
        return;
    }
  }

  #frame(frame: TopicFrame): void {
    for (const channel of this.#channelsOf(frame.topic, kindOf(frame))) channel.take(frame);
  }

  #channelsOf(topic: string, kind: Kind | undefined): Channel[] {
    const kinds: Kind[] = kind === undefined ? ["events", "state", "append", "presence"] : [kind];
    return kinds.flatMap((one) => this.#channels.get(keyOf(one, topic)) ?? []);
  }

  async #token(): Promise<void> {
    const { token } = this.#options;
    if (token === undefined) return;
    try {
      this.#link?.send({ m: "token", token: await token() });
    } catch {
      // Another tab may have one; the hub asks again.
    }
  }

  // --- what this tab does ---

  readonly #publish: Publish = (body, repeatable) =>
    new Promise((resolve, reject) => {
      const call = ++this.#lastCall;
      const message = { m: "publish", call, body, repeatable } as const;
      // A call of a hub that died is sent to the next one, unless that could do it twice.
      this.#calls.set(call, { message, resolve, reject, sent: this.#joined });
      this.#send(message);
    });

  #here(topic: string, member: string, data: Json): Stop {
    const key = `${topic} ${member}`;
    const message = { m: "present", topic, member, data } as const;
    this.#present.set(key, message);
    this.#send(message);
    return () => {
      if (this.#present.get(key) !== message) return;
      this.#present.delete(key);
      this.#send({ m: "absent", topic, member });
    };
  }

  // --- the page ---

  #visible(): void {
    if (globalThis.document.visibilityState === "visible") this.#link?.send({ m: "wake", why: "visible" });
  }

  #hidden(event: PageTransitionEvent): void {
    // A page that may come back keeps its link; one that is gone says so, where its lock would only tell later.
    if (!event.persisted) this.#link?.send({ m: "leave" });
  }

  #shown(event: PageTransitionEvent): void {
    if (event.persisted) this.#tellAll();
  }
}
