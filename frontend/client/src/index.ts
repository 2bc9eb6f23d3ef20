export { Realtime, type RealtimeOptions } from "./client.ts";
export type { Status } from "./connection.ts";
export { RealtimeError } from "./errors.ts";
export type { Job, JobEvent, JobSnapshot } from "./job.ts";
export type { Sharing } from "./link.ts";
export { merge, type MergePatch } from "./merge.ts";
export { BEGINNING, type Json, type Position } from "./protocol.ts";
export type {
  EventAt,
  EventsTopic,
  ListenOptions,
  Presence,
  PresenceSnapshot,
  SharedState,
  StateSnapshot,
  Stop,
  TextSnapshot,
  TokenStream,
} from "./topics.ts";
export type {
  AnyJobs,
  AnyTopics,
  EventOf,
  EventsName,
  JobName,
  Jobs,
  MemberOf,
  PresenceName,
  Register,
  ResultOf,
  StateName,
  StateOf,
  TextName,
  Topics,
} from "./types.ts";
