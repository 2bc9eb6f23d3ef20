// The service as docs/realtime-protocol.md describes it, in memory, with the faults that a test asks for.

import type { Frame, Json, Kind, Session, TopicFrame, UpdateFrame, Want } from "../src/protocol.ts";
import { BEGINNING, keyOf } from "../src/protocol.ts";
import { merge } from "../src/merge.ts";

interface Stream {
  readonly id: string;
  readonly topics: Set<string>;
  readonly controller: ReadableStreamDefaultController<Uint8Array>;
}

interface Log {
  epoch: string;
  offset: number;
  /** Updates after `trimmed`, in order. */
  updates: UpdateFrame[];
  trimmed: number;
  value: Json;
  text: string;
  done: boolean;
  members: Record<string, Json>;
  /** What it was before each of the updates. */
  before: Pick<Log, "offset" | "value" | "text" | "done" | "members">[];
}

export interface Request {
  readonly path: string;
  readonly body: Record<string, Json>;
  readonly token: string | undefined;
  readonly url: string;
}

export class FakeService {
  readonly requests: Request[] = [];
  readonly streams = new Map<string, Stream>();
  readonly published = new Map<string, { epoch: string; offset: number }>();
  session: Session = { token: "t1", expires: 1_700_001_000, workspace: "acme", user: "ada", read: ["*"], write: ["*"] };
  heartbeat = 20;
  /** No network. */
  down = false;
  /** Statuses to answer next, by path. */
  readonly refusals: { path: string; status: number; code: string; retryAfter?: number }[] = [];
  /** Topics that are not given. */
  readonly forbidden = new Set<string>();
  /** How many of the next updates get lost on the way to streams. */
  lose = 0;
  #logs = new Map<string, Log>();
  #streams = 0;
  #epochs = 0;

  readonly fetch: typeof fetch = async (input, init) => {
    const url = String(input);
    const path = url.replace(/^.*\/realtime/, "");
    const headers = new Headers(init?.headers);
    const token = headers.get("Authorization")?.replace("Bearer ", "");
    const body = JSON.parse(String(init?.body)) as Record<string, Json>;
    this.requests.push({ path, body, token, url });
    if (this.down) throw new TypeError("fetch failed");
    const refusal = this.refusals.findIndex((one) => one.path === path);
    if (refusal >= 0) {
      const { status, code, retryAfter = 0 } = this.refusals.splice(refusal, 1)[0]!;
      return Response.json({ code, title: code }, { status, headers: { "Retry-After": String(retryAfter) } });
    }
    if (path === "/session") return Response.json(this.session);
    if (token !== this.session.token) return Response.json({ code: "token-expired" }, { status: 401 });
    return this.#answer(path, body, init?.signal ?? undefined);
  };

  log(kind: Kind, topic: string): Log {
    const key = keyOf(kind, topic);
    const known = this.#logs.get(key);
    if (known !== undefined) return known;
    const log: Log = { epoch: `e${++this.#epochs}`, offset: 0, updates: [], trimmed: 0, value: {}, text: "", done: false, members: {}, before: [] };
    this.#logs.set(key, log);
    return log;
  }

  /** The log, which is about to change. */
  #change(kind: Kind, topic: string): Log {
    const log = this.log(kind, topic);
    const { offset, value, text, done, members } = log;
    log.before.push({ offset, value, text, done, members: { ...members } });
    return log;
  }

  publish(topic: string, data: Json, id?: string): number {
    const log = this.#change("events", topic);
    log.offset += 1;
    this.#add("events", log, { t: "msg", topic, offset: log.offset, data, ...(id !== undefined && { id }) });
    return log.offset;
  }

  patch(topic: string, patch: Json): number {
    const log = this.#change("state", topic);
    log.offset += 1;
    log.value = merge(log.value, patch);
    this.#add("state", log, { t: "patch", topic, offset: log.offset, patch });
    return log.offset;
  }

  append(topic: string, text: string, done = false): void {
    const log = this.#change("append", topic);
    const from = log.offset;
    log.offset += new TextEncoder().encode(text).length;
    log.text += text;
    log.done = done;
    this.#add("append", log, { t: "text", topic, offset: log.offset, from, text, ...(done && { done }) });
  }

  present(topic: string, member: string, data: Json | undefined): void {
    const log = this.#change("presence", topic);
    log.offset += 1;
    if (data === undefined) delete log.members[member];
    else log.members[member] = data;
    this.#add("presence", log, {
      t: "pres",
      topic,
      offset: log.offset,
      ...(data === undefined ? { leave: [member] } : { join: { [member]: data } }),
    });
  }

  /** History forgets what is older than the last few updates. */
  trim(kind: Kind, topic: string, keep: number): void {
    const log = this.log(kind, topic);
    const gone = log.updates.splice(0, Math.max(0, log.updates.length - keep));
    log.trimmed = gone.at(-1)?.offset ?? log.trimmed;
  }

  /** The store lost its last updates, which are returned, and does not know it. */
  rollBack(kind: Kind, topic: string, updates: number): UpdateFrame[] {
    const log = this.log(kind, topic);
    const lost = log.updates.splice(Math.max(0, log.updates.length - updates));
    if (lost.length > 0) Object.assign(log, log.before.splice(log.before.length - lost.length)[0]);
    return lost;
  }

  /** The store lost the topic. */
  restart(kind: Kind, topic: string): void {
    this.#logs.delete(keyOf(kind, topic));
  }

  /** Every stream breaks. */
  cut(): void {
    for (const stream of this.streams.values()) stream.controller.error(new TypeError("network error"));
    this.streams.clear();
  }

  /** A frame on every stream. */
  say(frame: Frame): void {
    for (const stream of this.streams.values()) this.#write(stream, frame);
  }

  #answer(path: string, body: Record<string, Json>, signal: AbortSignal | undefined): Response {
    if (path === "/stream") return this.#open(body["topics"] as unknown as Want[], signal);
    if (path === "/publish") return this.#publish(body);
    const stream = this.streams.get(String(body["stream"]));
    if (stream === undefined) return Response.json({ code: "stream-unknown" }, { status: 404 });
    switch (path) {
      case "/subscribe": {
        const wants = body["topics"] as unknown as Want[];
        const refused = wants.filter(({ topic }) => this.forbidden.has(topic));
        for (const want of wants) if (!refused.includes(want)) this.#start(stream, want);
        return Response.json({ refused: refused.map(({ topic, kind }) => ({ topic, kind, code: "forbidden" })) });
      }
      case "/unsubscribe":
        for (const { kind, topic } of body["topics"] as { kind: Kind; topic: string }[]) stream.topics.delete(keyOf(kind, topic));
        return new Response(null, { status: 204 });
      case "/auth":
        return Response.json({ expires: this.session.expires });
      case "/presence":
        this.present(String(body["topic"]), String(body["member"]), body["leave"] === true ? undefined : body["data"]!);
        return new Response(null, { status: 204 });
      default:
        return Response.json({ code: "not-found" }, { status: 404 });
    }
  }

  #publish(body: Record<string, Json>): Response {
    const topic = String(body["topic"]);
    const id = body["id"] === undefined ? undefined : `${topic} ${String(body["id"])}`;
    const before = id === undefined ? undefined : this.published.get(id);
    if (before !== undefined) return Response.json(before);
    const kind = body["kind"] as Kind;
    if (kind === "events") this.publish(topic, body["data"] ?? null, body["id"] as string | undefined);
    else if (kind === "state") {
      const { offset } = this.log(kind, topic);
      if (body["version"] !== undefined && body["version"] !== offset) {
        return Response.json({ code: "version-conflict", version: offset }, { status: 409 });
      }
      this.patch(topic, body["patch"] ?? null);
    } else this.append(topic, String(body["text"]), body["done"] === true);
    const { epoch, offset } = this.log(kind, topic);
    if (id !== undefined) this.published.set(id, { epoch, offset });
    return Response.json({ epoch, offset });
  }

  #open(wants: Want[], signal: AbortSignal | undefined): Response {
    const id = `s${++this.#streams}`;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        const stream: Stream = { id, topics: new Set(), controller };
        this.streams.set(id, stream);
        signal?.addEventListener("abort", () => {
          if (this.streams.delete(id)) controller.error(new DOMException("aborted", "AbortError"));
        });
        this.#write(stream, { t: "hello", stream: id, heartbeat: this.heartbeat, expires: this.session.expires });
        for (const want of wants) {
          if (this.forbidden.has(want.topic)) {
            this.#write(stream, { t: "refused", topic: want.topic, kind: want.kind, code: "forbidden" });
          } else this.#start(stream, want);
        }
      },
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }

  #start(stream: Stream, want: Want): void {
    stream.topics.add(keyOf(want.kind, want.topic));
    for (const frame of this.start(want)) this.#write(stream, frame);
  }

  /** What a subscriber gets first. */
  start(want: Want): TopicFrame[] {
    const { topic, kind } = want;
    const log = this.log(kind, topic);
    const { epoch } = log;
    const known = want.epoch !== "";
    const sub = { t: "sub", topic, kind, epoch, reached: log.offset } as const;
    if (kind === "events" && !known) return [{ ...sub, offset: log.offset, recovered: true }];
    if (known && want.epoch === epoch && want.offset >= log.trimmed && want.offset <= log.offset) {
      const after = log.updates.filter((update) => update.offset > want.offset);
      return [{ ...sub, offset: want.offset, recovered: true }, ...after];
    }
    switch (kind) {
      case "events":
        if (want.epoch === BEGINNING.epoch && log.trimmed === 0) return [{ ...sub, offset: 0, recovered: true }, ...log.updates];
        return [{ ...sub, offset: log.trimmed, recovered: false }, { t: "gap", topic, kind }, ...log.updates];
      case "state":
        return [{ ...sub, offset: log.offset, recovered: !known }, { t: "snap", topic, offset: log.offset, data: log.value }];
      case "append": {
        const { offset, text, done } = log;
        return [{ ...sub, offset: 0, recovered: !known }, { t: "text", topic, offset, from: 0, text, ...(done && { done }) }];
      }
      case "presence":
        return [{ ...sub, offset: log.offset, recovered: !known }, { t: "pres", topic, offset: log.offset, members: { ...log.members } }];
    }
  }

  #add(kind: Kind, log: Log, update: UpdateFrame): void {
    log.updates.push(update);
    if (this.lose > 0) {
      this.lose -= 1;
      return;
    }
    for (const stream of this.streams.values()) {
      if (stream.topics.has(keyOf(kind, update.topic))) this.#write(stream, update);
    }
  }

  #write(stream: Stream, frame: Frame): void {
    stream.controller.enqueue(new TextEncoder().encode(`data: ${JSON.stringify(frame)}\n\n`));
  }
}
