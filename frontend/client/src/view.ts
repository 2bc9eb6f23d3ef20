// What a subscriber knows of one topic, and how each frame changes it. Pure: the heart of the protocol, and what its tests drive.

import { merge } from "./merge.ts";
import { BEGINNING } from "./protocol.ts";
import type { Json, Kind, Members, Position, SubFrame, TopicFrame, UpdateFrame } from "./protocol.ts";

/** One topic as a subscriber has it. */
export interface View extends Position {
  readonly kind: Kind;
  /** Whether the server has given it: until then value, text and members are not known. */
  readonly started: boolean;
  /** The document of a `state` topic: always one of the versions that the server had. */
  readonly value: Json | undefined;
  /** The text of an `append` topic. */
  readonly text: string;
  /** Whether the text is complete. */
  readonly done: boolean;
  /** Who is there, of a `presence` topic. */
  readonly members: Members;
  /** Whether the last frame was a start, which was judged by this view's own position. */
  readonly judged: boolean;
}

export type Outcome =
  /** The frame had been seen, or told nothing new. */
  | { readonly was: "nothing" }
  | { readonly was: "changed" }
  | { readonly was: "event"; readonly data: Json; readonly id: string | undefined; readonly offset: number }
  /** Updates are missing that the server still has: ask for the topic again from this view's position. */
  | { readonly was: "hole" }
  /** Updates are missing that nobody has any more. The view goes on after them. */
  | { readonly was: "gap" };

export type Step = readonly [View, Outcome];

const NOTHING: Outcome = { was: "nothing" };
const CHANGED: Outcome = { was: "changed" };
const HOLE: Outcome = { was: "hole" };
const GAP: Outcome = { was: "gap" };

/** A topic before the server has said anything, after a position or from nowhere. */
export function emptyView(kind: Kind, after: Position = { epoch: "", offset: 0 }): View {
  const { epoch, offset } = after;
  return { kind, epoch, offset, started: false, value: undefined, text: "", done: false, members: {}, judged: false };
}

/** The view after a frame of its topic. */
export function advance(view: View, frame: TopicFrame): Step {
  if (frame.t === "sub") return start(view, frame);
  // The server tells a gap of the position that it was given, which may be another tab's. The start before it was judged here.
  if (frame.t === "gap") return [view, view.kind === "events" && !view.judged ? GAP : NOTHING];
  const [next, outcome] = update(view, frame);
  return [next.judged ? { ...next, judged: false } : next, outcome];
}

/** A new start: `frame` is the position that the updates after it follow on. */
function start(view: View, frame: SubFrame): Step {
  const begins = view.epoch === BEGINNING.epoch && frame.offset === 0;
  const known = !begins && (view.epoch !== "" || view.started);
  const goesOn = frame.epoch === view.epoch && frame.recovered;
  // A topic that nobody has published to may have no epoch yet; the first one goes on from nothing.
  const mayGoOn = frame.epoch === view.epoch || view.epoch === "";
  // The store came back without its last writes: what this view has of them is nobody's any more.
  const reached = frame.reached ?? (frame.recovered ? view.offset : frame.offset);
  const lost = known && frame.epoch === view.epoch && reached < view.offset;
  if (lost && frame.recovered && view.kind !== "events" && view.kind !== "presence") {
    // It goes on from another tab's older position, so that the whole does not follow: to be asked for from here.
    return [view, HOLE];
  }
  if (known && !lost && (goesOn || (mayGoOn && frame.offset <= view.offset))) {
    // It goes on from here or from before; what was seen is dropped as it comes.
    return [{ ...view, epoch: frame.epoch, started: true, judged: true }, CHANGED];
  }
  // Another epoch, or a position that history does not reach back to. What follows is a snapshot, or events after a gap.
  const offset = lost && view.kind === "events" ? reached : frame.offset;
  const fresh = { ...emptyView(view.kind, { epoch: frame.epoch, offset }), started: true, judged: true };
  const text = frame.reached === 0 ? "" : view.text;
  const shown = view.kind === "events" ? fresh : { ...fresh, value: view.value, text, members: view.members };
  return [shown, known && view.kind === "events" ? GAP : CHANGED];
}

/** Whether what is whole was there before. Right after a start it is what the start is of, whatever its position. */
function isOlder(view: View, frame: UpdateFrame): boolean {
  return frame.offset < view.offset && !view.judged;
}

function update(view: View, frame: UpdateFrame): Step {
  switch (frame.t) {
    case "msg":
      if (frame.offset <= view.offset) return [view, NOTHING];
      if (frame.offset > view.offset + 1) return [view, HOLE];
      return [
        { ...view, offset: frame.offset },
        { was: "event", data: frame.data, id: frame.id, offset: frame.offset },
      ];
    case "snap":
      if (isOlder(view, frame)) return [view, NOTHING];
      return [{ ...view, offset: frame.offset, value: frame.data }, CHANGED];
    case "patch":
      if (frame.offset <= view.offset) return [view, NOTHING];
      if (frame.offset > view.offset + 1) return [view, HOLE];
      return [{ ...view, offset: frame.offset, value: merge(view.value, frame.patch) }, CHANGED];
    case "text":
      return text(view, frame);
    case "pres":
      return presence(view, frame);
  }
}

function text(view: View, frame: UpdateFrame & { t: "text" }): Step {
  const done = view.done || frame.done === true;
  if (frame.from === 0) {
    // The whole up to here. A shorter one is older.
    if (isOlder(view, frame)) return [view, NOTHING];
    return [{ ...view, offset: frame.offset, text: frame.text, done }, CHANGED];
  }
  if (frame.from > view.offset) return [view, HOLE];
  if (frame.offset <= view.offset) return done === view.done ? [view, NOTHING] : [{ ...view, done }, CHANGED];
  const piece = frame.from === view.offset ? frame.text : afterBytes(frame.text, view.offset - frame.from);
  return [{ ...view, offset: frame.offset, text: view.text + piece, done }, CHANGED];
}

/** A text without its first bytes of UTF-8, which is what offsets of a text count. */
function afterBytes(text: string, bytes: number): string {
  return new TextDecoder().decode(new TextEncoder().encode(text).subarray(bytes));
}

function presence(view: View, frame: UpdateFrame & { t: "pres" }): Step {
  if (frame.members !== undefined) {
    if (isOlder(view, frame)) return [view, NOTHING];
    return [{ ...view, offset: frame.offset, members: frame.members }, CHANGED];
  }
  if (frame.offset <= view.offset) return [view, NOTHING];
  const members: Record<string, Json> = { ...view.members, ...frame.join };
  for (const gone of frame.leave ?? []) delete members[gone];
  return [{ ...view, offset: frame.offset, members }, CHANGED];
}

/** What a subscriber that comes later is told, so that it has the same view. */
export function framesOf(view: View, topic: string): TopicFrame[] {
  const { kind, epoch, offset } = view;
  const sub: SubFrame = { t: "sub", topic, kind, epoch, offset, recovered: true };
  switch (kind) {
    case "events":
      return [sub];
    case "state":
      return [sub, { t: "snap", topic, offset, data: view.value ?? null }];
    case "append":
      return [{ ...sub, offset: 0 }, { t: "text", topic, offset, from: 0, text: view.text, done: view.done }];
    case "presence":
      return [sub, { t: "pres", topic, offset, members: view.members }];
  }
}
