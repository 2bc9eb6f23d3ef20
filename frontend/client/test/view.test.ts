import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Json, Kind, TopicFrame } from "../src/protocol.ts";
import { advance, emptyView, framesOf, type View } from "../src/view.ts";
import { FakeService } from "./fake-service.ts";

const TOPIC = "t";

/** A subscriber that does what a view tells it to, over a line that loses, repeats and breaks. */
class Subscriber {
  view: View;
  readonly events: Json[] = [];
  gaps = 0;

  constructor(
    readonly service: FakeService,
    readonly kind: Kind,
  ) {
    this.view = emptyView(kind);
    this.subscribe();
  }

  subscribe(): void {
    const { epoch, offset } = this.view;
    for (const frame of this.service.start({ topic: TOPIC, kind: this.kind, epoch, offset })) this.take(frame);
  }

  take(frame: TopicFrame): void {
    const [view, outcome] = advance(this.view, frame);
    this.view = view;
    if (outcome.was === "event") this.events.push(outcome.data);
    if (outcome.was === "gap") this.gaps += 1;
    if (outcome.was === "hole") this.subscribe();
  }
}

type Action = "publish" | "deliver" | "lose" | "repeat" | "reconnect" | "trim" | "restart" | "roll back" | "late tab" | "lower position";
const actions = (...allowed: Action[]) => fc.array(fc.constantFrom(...allowed), { maxLength: 60 });
const LINE: Action[] = ["publish", "publish", "deliver", "deliver", "lose", "repeat", "reconnect", "late tab", "lower position"];

/** Runs actions; the updates of the service that were not delivered yet are on the line. */
function run(kind: Kind, steps: Action[], make: (service: FakeService, n: number) => void) {
  const service = new FakeService();
  const subscriber = new Subscriber(service, kind);
  let line: TopicFrame[] = [];
  let last: TopicFrame | undefined;
  let published: number[] = [];
  const versions: string[] = [JSON.stringify(service.log(kind, TOPIC).value)];
  let n = 0;
  const deliver = (): void => {
    const frame = line.shift();
    if (frame !== undefined) subscriber.take((last = frame));
  };
  for (const step of steps) {
    if (step === "publish") {
      make(service, ++n);
      published.push(n);
      versions.push(JSON.stringify(service.log(kind, TOPIC).value));
      line.push(service.log(kind, TOPIC).updates.at(-1)!);
    } else if (step === "deliver") deliver();
    else if (step === "lose") line.shift();
    else if (step === "repeat" && last !== undefined) subscriber.take(last);
    else if (step === "reconnect") {
      line = [];
      subscriber.subscribe();
    } else if (step === "lower position") {
      // Another tab asked for what is older; the frames come to all.
      const { epoch, offset } = subscriber.view;
      const older = { topic: TOPIC, kind, epoch, offset: kind === "append" ? 0 : Math.max(0, offset - 2) };
      for (const frame of service.start(older)) subscriber.take(frame);
    } else if (step === "trim") service.trim(kind, TOPIC, 2);
    else if (step === "restart") {
      service.restart(kind, TOPIC);
      line = [];
      last = undefined;
      // The server gives every subscriber a new start.
      subscriber.subscribe();
    } else if (step === "roll back") {
      const lost = service.rollBack(kind, TOPIC, 2).map((update) => (update.t === "msg" ? update.data : undefined));
      published = published.filter((one) => !lost.includes(one) || subscriber.events.includes(one));
      line = [];
      last = undefined;
      const ahead = subscriber.view.offset > service.log(kind, TOPIC).offset;
      const gaps = subscriber.gaps;
      subscriber.subscribe();
      if (kind === "events" && ahead) expect(subscriber.gaps).toBe(gaps + 1);
    } else if (step === "late tab") {
      let late = emptyView(kind);
      for (const frame of framesOf(subscriber.view, TOPIC)) [late] = advance(late, frame);
      const { judged: _a, ...one } = late;
      const { judged: _b, ...other } = subscriber.view;
      expect(one).toEqual(other);
    }
    if (kind === "state") expect(versions).toContain(JSON.stringify(subscriber.view.value));
  }
  subscriber.subscribe();
  return { service, subscriber, published };
}

describe("whatever the line does", () => {
  test("each event comes once, in order, and none is lost", () => {
    fc.assert(
      fc.property(actions(...LINE), (steps) => {
        const { subscriber, published } = run("events", steps, (service, n) => service.publish(TOPIC, n));
        expect(subscriber.events).toEqual(published);
        expect(subscriber.gaps).toBe(0);
      }),
    );
  });

  test("events that history lost are told as a gap, and the others come once and in order", () => {
    fc.assert(
      fc.property(actions(...LINE, "trim", "restart", "roll back"), (steps) => {
        const { subscriber, published } = run("events", steps, (service, n) => service.publish(TOPIC, n));
        const got = subscriber.events as number[];
        expect(got).toEqual([...new Set(got)].sort((a, b) => a - b));
        if (got.length < published.length) expect(subscriber.gaps).toBeGreaterThan(0);
      }),
    );
  });

  test("a document is always one of the versions that the server had, and the last one in the end", () => {
    const make = (service: FakeService, n: number): void =>
      void service.patch(TOPIC, n % 3 === 0 ? { [`k${n % 4}`]: null } : { [`k${n % 4}`]: { n, deep: { [`m${n % 2}`]: n } } });
    fc.assert(
      fc.property(actions(...LINE, "trim", "roll back"), (steps) => {
        const { service, subscriber } = run("state", steps, make);
        expect(subscriber.view.value).toEqual(service.log("state", TOPIC).value);
      }),
    );
  });

  test("a text is never wrong, and whole in the end", () => {
    const pieces = ["a", "é", "😀 ", "word ", "\n"];
    fc.assert(
      fc.property(actions(...LINE, "trim", "roll back"), (steps) => {
        const make = (service: FakeService, n: number): void => service.append(TOPIC, pieces[n % pieces.length]!);
        const { service, subscriber } = run("append", steps, make);
        expect(subscriber.view.text).toBe(service.log("append", TOPIC).text);
      }),
    );
  });
});

test("a piece of text that overlaps what is there adds only what is new, by bytes", () => {
  let view = emptyView("append");
  const frames: TopicFrame[] = [
    { t: "sub", topic: TOPIC, kind: "append", epoch: "e", offset: 0, recovered: true },
    { t: "text", topic: TOPIC, from: 0, offset: 3, text: "aé" },
    { t: "text", topic: TOPIC, from: 1, offset: 7, text: "é😀" },
  ];
  for (const frame of frames) [view] = advance(view, frame);
  expect(view.text).toBe("aé😀");
});

test("the end of a text counts also where it brings no text", () => {
  let view = emptyView("append", { epoch: "e", offset: 0 });
  [view] = advance(view, { t: "text", topic: TOPIC, from: 0, offset: 2, text: "ok" });
  [view] = advance(view, { t: "text", topic: TOPIC, from: 2, offset: 2, text: "", done: true });
  expect([view.text, view.done]).toEqual(["ok", true]);
});

test("the gap of a position that was another tab's is none here", () => {
  let view = emptyView("events", { epoch: "e", offset: 9 });
  const outcomes: string[] = [];
  const frames: TopicFrame[] = [
    { t: "sub", topic: TOPIC, kind: "events", epoch: "e", offset: 5, recovered: false, reached: 10 },
    { t: "gap", topic: TOPIC, kind: "events" },
    { t: "msg", topic: TOPIC, offset: 9, data: 9 },
    { t: "msg", topic: TOPIC, offset: 10, data: 10 },
    { t: "gap", topic: TOPIC, kind: "events" },
  ];
  for (const frame of frames) {
    const [next, outcome] = advance(view, frame);
    view = next;
    outcomes.push(outcome.was);
  }
  expect(outcomes).toEqual(["changed", "nothing", "nothing", "event", "gap"]);
});

test("a store that comes back without its last writes is a gap, and what it has replaces what was there", () => {
  const all = (kind: Kind, before: Partial<View>, frames: TopicFrame[]): [View, string[]] => {
    let view: View = { ...emptyView(kind, { epoch: "e", offset: 10 }), started: true, ...before };
    const outcomes = frames.map((frame) => {
      const [next, outcome] = advance(view, frame);
      view = next;
      return outcome.was;
    });
    return [view, outcomes];
  };
  const sub = (kind: Kind, recovered = false): TopicFrame => ({ t: "sub", topic: TOPIC, kind, epoch: "e", offset: 8, recovered, reached: 8 });
  const event = (offset: number): TopicFrame => ({ t: "msg", topic: TOPIC, offset, data: `${offset}'` });
  expect(all("events", {}, [sub("events"), { t: "gap", topic: TOPIC, kind: "events" }, event(9), event(10)])[1]).toEqual([
    "gap",
    "nothing",
    "event",
    "event",
  ]);
  const [state] = all("state", { value: { a: 1, lost: 1 } }, [
    sub("state"),
    { t: "snap", topic: TOPIC, offset: 8, data: { a: 1 } },
    { t: "patch", topic: TOPIC, offset: 9, patch: { b: 2 } },
  ]);
  expect(state.value).toEqual({ a: 1, b: 2 });
  const [present] = all("presence", { members: { lost: 1 } }, [
    sub("presence", true),
    { t: "pres", topic: TOPIC, offset: 8, members: {} },
    { t: "pres", topic: TOPIC, offset: 9, join: { ada: 1 } },
  ]);
  expect(present.members).toEqual({ ada: 1 });
  const begun: TopicFrame = { t: "sub", topic: TOPIC, kind: "append", epoch: "e", offset: 0, recovered: false, reached: 2 };
  const [text] = all("append", { text: "0123456789" }, [begun, { t: "text", topic: TOPIC, from: 0, offset: 2, text: "01" }]);
  expect([text.text, text.offset]).toEqual(["01", 2]);
  expect(all("append", { text: "0123456789" }, [{ ...begun, reached: 0 } as TopicFrame])[0].text).toBe("");
});

test("the first epoch of a topic that had none goes on from nothing, and tells what was missed", () => {
  const sub = (epoch: string, offset: number): TopicFrame => ({ t: "sub", topic: TOPIC, kind: "events", epoch, offset, recovered: true });
  const [none] = advance(emptyView("events"), sub("", 0));
  expect(advance(none, sub("e", 0))[1].was).toBe("changed");
  expect(advance(none, sub("e", 3))[1].was).toBe("gap");
  expect(advance(none, { t: "msg", topic: TOPIC, offset: 1, data: 1 })[1].was).toBe("event");
});
