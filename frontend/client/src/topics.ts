// What an application holds of a topic: listen to it, read it, change it. One kind of topic, one class.

import type { Channel } from "./channel.ts";
import { merge, type MergePatch } from "./merge.ts";
import type { Json, Position } from "./protocol.ts";

export type Stop = () => void;

/** Sends a publish and waits for its position; `repeatable` if it may be sent twice without harm. */
export type Publish = (body: Json, repeatable: boolean) => Promise<Position>;

export interface EventAt extends Position {
  /** The id that the event was published under, if any. */
  readonly id: string | undefined;
}

export interface ListenOptions {
  /** Go on after this position, as an earlier event told it; without it events begin now. */
  readonly after?: Position;
  /** Events are missing that the history does not have any more: read again what they are about. */
  readonly onGap?: () => void;
  /** The server does not give this topic. */
  readonly onRefused?: (code: string) => void;
}

/** A topic of events: each one once, in order. */
export class EventsTopic<T> {
  constructor(
    private readonly channel: Channel,
    private readonly send: Publish,
  ) {}

  get name(): string {
    return this.channel.topic;
  }

  /** Calls for each event until the returned function is called. */
  listen(onEvent: (event: T, at: EventAt) => void, options: ListenOptions = {}): Stop {
    const { after, onGap, onRefused } = options;
    return this.channel.listen(
      {
        event: (data, at) => onEvent(data as T, at),
        ...(onGap && { gap: onGap }),
        ...(onRefused && { refused: onRefused }),
      },
      after,
    );
  }

  /**
   * Publishes an event. It is sent again until it is known to be there; under its id it is there once.
   *
   * @throws RealtimeError the server refused it, or could not be reached for 30 s.
   */
  publish(event: T, options: { readonly id?: string } = {}): Promise<Position> {
    const { id = crypto.randomUUID() } = options;
    return this.send({ topic: this.name, kind: "events", data: event as Json, id }, true);
  }
}

export interface StateSnapshot<T> {
  /** The document: always one of the versions that the server had. Undefined before it is known. */
  readonly value: T | undefined;
  /** The document with this tab's own changes that the server has not confirmed yet: what an editor shows. */
  readonly draft: T | undefined;
  /** The document's version, for a patch that must not meet another's change. */
  readonly version: number;
  /** Whether this tab has changes that are not confirmed. */
  readonly saving: boolean;
  readonly refused: string | undefined;
}

type Patch = { readonly [name: string]: Json };
/** A patch, or the whole document. */
type Change = { readonly patch: Patch } | { readonly data: Json };

/** A change of this tab that has not come back from the server. */
interface Unconfirmed {
  change: Change;
  readonly version: number | undefined;
  /** Where the server put it; unknown until it answers. */
  at: Position | undefined;
  readonly sent: PromiseWithResolvers<Position>;
}

/** A document that all who look at it share. */
export class SharedState<T> {
  #unconfirmed: Unconfirmed[] = [];
  /** Changes that were not sent yet: one request at a time, as two could overtake each other. */
  readonly #waiting: Unconfirmed[] = [];
  #sending = false;
  #snapshot: StateSnapshot<T> | undefined;
  readonly #listeners = new Set<() => void>();

  constructor(
    private readonly channel: Channel,
    private readonly send: Publish,
  ) {}

  get name(): string {
    return this.channel.topic;
  }

  /** The same object until something changes. */
  get snapshot(): StateSnapshot<T> {
    this.#snapshot ??= this.#read();
    return this.#snapshot;
  }

  /** Calls after each change until the returned function is called. */
  listen(onChange: (snapshot: StateSnapshot<T>) => void): Stop {
    const changed = (): void => {
      this.#settle();
      this.#snapshot = undefined;
      onChange(this.snapshot);
    };
    const own = (): void => onChange(this.snapshot);
    this.#listeners.add(own);
    this.#snapshot = undefined;
    const stop = this.channel.listen({ changed });
    return () => {
      this.#listeners.delete(own);
      stop();
    };
  }

  /**
   * Changes the members that the patch names; null removes one. The draft has it at once, and loses it if the server refuses.
   *
   * @param options.version refuse with code "version-conflict" unless the document is still of this version.
   * @throws RealtimeError as above, or the server refused it or could not be reached.
   */
  patch(patch: MergePatch<T>, options: { readonly version?: number } = {}): Promise<Position> {
    const { version } = options;
    const second = patch as unknown as Patch;
    const last = this.#waiting.at(-1);
    const first = last !== undefined && "patch" in last.change ? last.change.patch : undefined;
    if (last === undefined || first === undefined || version !== undefined || last.version !== undefined || !composes(first, second)) {
      return this.#ask({ patch: second }, version);
    }
    // What is typed while a request is under way is one request.
    last.change = { patch: { ...first, ...second } };
    this.#changed();
    return last.sent.promise;
  }

  /** Replaces the whole document, after what this tab changed before. The draft has it at once. */
  set(value: T): Promise<Position> {
    return this.#ask({ data: value as Json });
  }

  #ask(change: Change, version?: number): Promise<Position> {
    const one: Unconfirmed = { change, version, at: undefined, sent: withResolvers<Position>() };
    this.#unconfirmed.push(one);
    this.#waiting.push(one);
    this.#changed();
    if (!this.#sending) void this.#sendWaiting();
    return one.sent.promise;
  }

  async #sendWaiting(): Promise<void> {
    this.#sending = true;
    for (let one = this.#waiting.shift(); one !== undefined; one = this.#waiting.shift()) {
      const { change, version } = one;
      const body = { topic: this.name, kind: "state", ...change, ...(version !== undefined && { version }) };
      try {
        one.at = await this.send(body, version === undefined);
        one.sent.resolve(one.at);
      } catch (error) {
        const refused = one;
        this.#unconfirmed = this.#unconfirmed.filter((other) => other !== refused);
        one.sent.reject(error);
      }
      this.#settle();
      this.#changed();
    }
    this.#sending = false;
  }

  /** Forgets the own changes that have come back from the server. */
  #settle(): void {
    const { epoch, offset } = this.channel.view;
    this.#unconfirmed = this.#unconfirmed.filter(({ at }) => at === undefined || (at.epoch === epoch && at.offset > offset));
  }

  #changed(): void {
    this.#snapshot = undefined;
    for (const listener of [...this.#listeners]) listener();
  }

  #read(): StateSnapshot<T> {
    const { value, offset } = this.channel.view;
    const draft = this.#unconfirmed.reduce<Json | undefined>((document, { change }) => apply(document, change), value);
    return {
      value: value as T | undefined,
      draft: draft as T | undefined,
      version: offset,
      saving: this.#unconfirmed.length > 0,
      refused: this.channel.refused,
    };
  }
}

function apply(document: Json | undefined, change: Change): Json {
  return "data" in change ? change.data : merge(document, change.patch);
}

/** Whether a patch after another is the same as both in one: a member that is merged into needs what was there before. */
function composes(first: Patch, second: Patch): boolean {
  return Object.entries(second).every(
    ([name, change]) => !(name in first) || typeof change !== "object" || change === null || Array.isArray(change),
  );
}

interface PromiseWithResolvers<P> {
  readonly promise: Promise<P>;
  readonly resolve: (value: P) => void;
  readonly reject: (reason: unknown) => void;
}

/** `Promise.withResolvers`, which browsers of 2023 do not have. */
function withResolvers<P>(): PromiseWithResolvers<P> {
  let resolve!: (value: P) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<P>((...both) => ([resolve, reject] = both));
  return { promise, resolve, reject };
}

export interface TextSnapshot {
  readonly text: string;
  /** Whether it is complete. */
  readonly done: boolean;
  readonly refused: string | undefined;
}

/** A text that grows: an agent's answer as it is made. */
export class TokenStream {
  #snapshot: TextSnapshot | undefined;

  constructor(
    private readonly channel: Channel,
    private readonly send: Publish,
  ) {}

  get name(): string {
    return this.channel.topic;
  }

  /** The same object until something changes. */
  get snapshot(): TextSnapshot {
    const { text, done } = this.channel.view;
    this.#snapshot ??= { text, done, refused: this.channel.refused };
    return this.#snapshot;
  }

  /** Calls after each change until the returned function is called. */
  listen(onChange: (snapshot: TextSnapshot) => void): Stop {
    this.#snapshot = undefined;
    return this.channel.listen({
      changed: () => {
        this.#snapshot = undefined;
        onChange(this.snapshot);
      },
    });
  }

  /** Adds to the text. It is sent once: whether it arrived is not known if the connection breaks meanwhile. */
  append(text: string, options: { readonly done?: boolean } = {}): Promise<Position> {
    const { done } = options;
    return this.send({ topic: this.name, kind: "append", text, ...(done !== undefined && { done }) }, false);
  }
}

export interface PresenceSnapshot<T> {
  /** By their names: the user's, a colon, and the name that was joined under. */
  readonly members: Readonly<Record<string, T>>;
  readonly refused: string | undefined;
}

/** Who is there. */
export class Presence<T> {
  #snapshot: PresenceSnapshot<T> | undefined;

  /** @param here says and unsays that a member is there. */
  constructor(
    private readonly channel: Channel,
    private readonly tab: string,
    private readonly here: (member: string, data: Json) => Stop,
  ) {}

  get name(): string {
    return this.channel.topic;
  }

  /** The same object until something changes. */
  get snapshot(): PresenceSnapshot<T> {
    const members = this.channel.view.members as Readonly<Record<string, T>>;
    this.#snapshot ??= { members, refused: this.channel.refused };
    return this.#snapshot;
  }

  /** Calls after each change until the returned function is called. */
  listen(onChange: (snapshot: PresenceSnapshot<T>) => void): Stop {
    this.#snapshot = undefined;
    return this.channel.listen({
      changed: () => {
        this.#snapshot = undefined;
        onChange(this.snapshot);
      },
    });
  }

  /**
   * Be there, until the returned function is called or this tab is gone. Joining again under the same name changes the data.
   *
   * @param data what the others see.
   * @param name tells apart what the same user has open; this tab's id unless given. Nobody can join as another user.
   */
  join(data: T, name: string = this.tab): Stop {
    return this.here(name, data as Json);
  }

  /** Whether a member is this tab. */
  isMine(member: string): boolean {
    return member.endsWith(`:${this.tab}`);
  }
}
