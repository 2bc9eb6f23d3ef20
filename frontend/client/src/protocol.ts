// The frames of docs/realtime-protocol.md: what the server says on the stream, and what it is asked for.

export type Kind = "events" | "state" | "append" | "presence";

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** Where a subscriber stands in a topic. Offsets only count within their epoch. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** Before all that a topic's history has: nothing is missing for who begins here, unless the history has lost its own beginning. */
export const BEGINNING: Position = { epoch: "0", offset: 0 };

/** A topic that is asked for, from a position on. Epoch "" is no position: now for events, else the whole. */
export interface Want extends Position {
  readonly topic: string;
  readonly kind: Kind;
}

export type Members = Readonly<Record<string, Json>>;

export interface SubFrame extends Position {
  readonly t: "sub";
  readonly topic: string;
  readonly kind: Kind;
  readonly recovered: boolean;
  /** The topic's last position. */
  readonly reached?: number;
}

export type UpdateFrame =
  | { readonly t: "msg"; readonly topic: string; readonly offset: number; readonly data: Json; readonly id?: string }
  | { readonly t: "snap"; readonly topic: string; readonly offset: number; readonly data: Json }
  | { readonly t: "patch"; readonly topic: string; readonly offset: number; readonly patch: Json }
  | {
      readonly t: "text";
      readonly topic: string;
      readonly offset: number;
      readonly from: number;
      readonly text: string;
      readonly done?: boolean;
    }
  | {
      readonly t: "pres";
      readonly topic: string;
      readonly offset: number;
      readonly members?: Members;
      readonly join?: Members;
      readonly leave?: readonly string[];
    };

/** `kind` says which of two topics of the same name is meant, where a server sends it. */
export type GapFrame = { readonly t: "gap"; readonly topic: string; readonly kind?: Kind };

export type TopicFrame = SubFrame | UpdateFrame | GapFrame;

export type Farewell = "shutdown" | "slow" | "expired" | "limit";

export type StreamFrame =
  | { readonly t: "hello"; readonly stream: string; readonly heartbeat: number; readonly expires: number }
  | { readonly t: "ping" }
  | { readonly t: "bye"; readonly retry: number; readonly reason: Farewell }
  | { readonly t: "lag"; readonly topics: readonly string[] }
  | { readonly t: "auth"; readonly expires: number }
  | { readonly t: "refused"; readonly topic: string; readonly kind?: Kind; readonly code: string }
  | { readonly t: "stale" }
  | { readonly t: "live" };

export type Frame = TopicFrame | StreamFrame;

/** What POST /session answers. */
export interface Session {
  readonly token: string;
  /** Unix time in seconds. */
  readonly expires: number;
  readonly workspace: string;
  readonly user: string;
  readonly read: readonly string[];
  readonly write: readonly string[];
}

/** A topic that the server did not give, and why. */
export interface Refused {
  readonly topic: string;
  readonly kind?: Kind;
  readonly code: string;
}

const KIND_OF_UPDATE = { msg: "events", snap: "state", patch: "state", text: "append", pres: "presence" } as const;

/** The kind of topic that a frame belongs to; undefined for a gap that does not say so. */
export function kindOf(frame: TopicFrame): Kind | undefined {
  return frame.t === "sub" || frame.t === "gap" ? frame.kind : KIND_OF_UPDATE[frame.t];
}

/** One name for a topic and its kind: a job has events and a text under the same topic. */
export function keyOf(kind: Kind, topic: string): string {
  return `${kind} ${topic}`;
}

export function isTopicFrame(frame: Frame): frame is TopicFrame {
  return ["sub", "gap", "msg", "snap", "patch", "text", "pres"].includes(frame.t);
}
