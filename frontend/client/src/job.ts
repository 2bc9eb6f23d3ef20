// A job of the queue as it runs: what it tells by events, and the text that it makes.

import { BEGINNING, type Json } from "./protocol.ts";
import type { EventsTopic, Stop, TokenStream } from "./topics.ts";

/** What a job tells on its topic `job:<id>`. */
export type JobEvent<R = unknown> =
  | { readonly kind: "progress"; readonly value: number; readonly message?: string }
  | { readonly kind: "log"; readonly message: string; readonly fields?: Readonly<Record<string, Json>> }
  | { readonly kind: "token"; readonly text: string }
  | { readonly kind: "end"; readonly status: string; readonly result?: R; readonly error?: string };

export interface JobSnapshot<R> {
  /** How far it is, of 0 to 1. */
  readonly progress: number;
  readonly message: string;
  readonly text: string;
  /** The last lines, at most 200. */
  readonly logs: readonly { readonly message: string; readonly fields: Readonly<Record<string, Json>> }[];
  /** How it ended: "done", "failed", "cancelled"; undefined while it has not. */
  readonly ended: string | undefined;
  readonly result: R | undefined;
  readonly error: string | undefined;
  /** Something that it told was lost; ask the application for its status. */
  readonly gap: boolean;
}

const MOST_LOGS = 200;

/** Follows one job; what it told before is there as far as its topic's history goes. */
export class Job<R> {
  #listeners = new Set<(snapshot: JobSnapshot<R>) => void>();
  #stops: Stop[] = [];
  #snapshot: JobSnapshot<R> = emptyJob();

  constructor(
    private readonly events: EventsTopic<JobEvent<R>>,
    private readonly tokens: TokenStream,
  ) {}

  /** The same object until something changes. */
  get snapshot(): JobSnapshot<R> {
    return this.#snapshot;
  }

  listen(onChange: (snapshot: JobSnapshot<R>) => void): Stop {
    this.#listeners.add(onChange);
    if (this.#listeners.size === 1) this.#start();
    return () => {
      if (!this.#listeners.delete(onChange) || this.#listeners.size > 0) return;
      for (const stop of this.#stops.splice(0)) stop();
    };
  }

  #start(): void {
    this.#snapshot = emptyJob();
    const gap = (): void => this.#set({ ...this.#snapshot, gap: true });
    this.#stops.push(
      this.events.listen((event) => this.#set(tell(this.#snapshot, event)), { after: BEGINNING, onGap: gap }),
      this.tokens.listen(({ text }) => {
        if (text !== "") this.#set({ ...this.#snapshot, text });
      }),
    );
  }

  #set(snapshot: JobSnapshot<R>): void {
    this.#snapshot = snapshot;
    for (const listener of [...this.#listeners]) listener(snapshot);
  }
}

function emptyJob<R>(): JobSnapshot<R> {
  return { progress: 0, message: "", text: "", logs: [], ended: undefined, result: undefined, error: undefined, gap: false };
}

/** The job after an event. */
export function tell<R>(job: JobSnapshot<R>, event: JobEvent<R>): JobSnapshot<R> {
  switch (event.kind) {
    case "progress":
      return { ...job, progress: event.value, message: event.message ?? "" };
    case "log": {
      const line = { message: event.message, fields: event.fields ?? {} };
      return { ...job, logs: [...job.logs, line].slice(-MOST_LOGS) };
    }
    case "token":
      return { ...job, text: job.text + event.text };
    case "end":
      return { ...job, ended: event.status, result: event.result, error: event.error };
    default:
      return job; // Of a newer server.
  }
}
