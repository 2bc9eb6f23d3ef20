// Which shape each topic has. The application's `events.ts`, made by `raptorflow types`, adds its topics to `Register`.

import type { Json } from "./protocol.ts";

/** Augmented by the application's generated types: `{ topics: Topics; jobs: Jobs }`. */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type
export interface Register {}

/** Topics of an application that has registered none: any name, any JSON. */
export interface AnyTopics {
  events: Record<string, Json>;
  state: Record<string, Json>;
  append: Record<string, string>;
  presence: Record<string, Json>;
}

export type AnyJobs = Record<string, { arguments: unknown; result: unknown }>;

export type Topics = Register extends { topics: infer T extends Shapes } ? T : AnyTopics;
export type Jobs = Register extends { jobs: infer J } ? J : AnyJobs;

interface Shapes {
  events: object;
  state: object;
  append: object;
  presence: object;
}

export type EventsName = keyof Topics["events"] & string;
export type StateName = keyof Topics["state"] & string;
export type TextName = keyof Topics["append"] & string;
export type PresenceName = keyof Topics["presence"] & string;
export type JobName = keyof Jobs & string;

export type EventOf<N extends EventsName> = Topics["events"][N];
export type StateOf<N extends StateName> = Topics["state"][N];
export type MemberOf<N extends PresenceName> = Topics["presence"][N];
export type ResultOf<N extends JobName> = Jobs[N] extends { result: infer R } ? R : unknown;
