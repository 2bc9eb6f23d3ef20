import fc from "fast-check";
import { expect, test } from "vitest";
import { backoff, LONGEST_MS, SHORTEST_MS } from "../src/backoff.ts";
import { Channel } from "../src/channel.ts";
import { waysOf } from "../src/link.ts";
import { merge } from "../src/merge.ts";
import type { Json, Position } from "../src/protocol.ts";
import { SseParser } from "../src/sse.ts";
import { SharedState } from "../src/topics.ts";

test("a merge patch does what RFC 7396 lists", () => {
  const cases: [Json, Json, Json][] = [
    [{ a: "b" }, { a: "c" }, { a: "c" }],
    [{ a: "b" }, { b: "c" }, { a: "b", b: "c" }],
    [{ a: "b" }, { a: null }, {}],
    [{ a: "b", b: "c" }, { a: null }, { b: "c" }],
    [{ a: ["b"] }, { a: "c" }, { a: "c" }],
    [{ a: "c" }, { a: ["b"] }, { a: ["b"] }],
    [{ a: { b: "c" } }, { a: { b: "d", c: null } }, { a: { b: "d" } }],
    [{ a: [{ b: "c" }] }, { a: [1] }, { a: [1] }],
    [["a", "b"], ["c", "d"], ["c", "d"]],
    [{ a: "b" }, ["c"], ["c"]],
    [{ a: "foo" }, null, null],
    [{ a: "foo" }, "bar", "bar"],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [[1, 2], { a: "b", c: null }, { a: "b" }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ];
  for (const [target, patch, result] of cases) expect(merge(target, patch)).toEqual(result);
});

test("a member that is called __proto__ is a member, and changes no object's prototype", () => {
  const merged = merge({}, JSON.parse('{"__proto__": {"polluted": true}}') as Json) as { polluted?: Json };
  expect(Object.keys(merged)).toEqual(["__proto__"]);
  expect(merged.polluted).toBeUndefined();
  expect(({} as { polluted?: Json }).polluted).toBeUndefined();
});

test("events are the same however their bytes are cut", () => {
  const line = fc.constantFrom("data: é😀", "data:x", "data", ": comment", "event: e", "id: 7", "retry: 5", "", "");
  const ending = fc.constantFrom("\n", "\r\n", "\r");
  const text = fc.array(fc.tuple(line, ending)).map((lines) => `${lines.flat().join("")}data: end\n\n`);
  fc.assert(
    fc.property(text, fc.array(fc.nat(40)), (stream, cuts) => {
      const bytes = new TextEncoder().encode(stream);
      const whole = new SseParser().push(bytes);
      const parser = new SseParser();
      const places = [0, ...cuts.sort((a, b) => a - b), bytes.length];
      const pieces = places.slice(1).flatMap((end, index) => parser.push(bytes.subarray(places[index], end)));
      expect(pieces).toEqual(whole);
      expect(whole.at(-1)).toMatch(/end$/);
    }),
  );
});

test("an event that never ends does not fill memory", () => {
  const parser = new SseParser(1_000);
  expect(() => {
    for (let n = 0; n < 100; n++) parser.push(new TextEncoder().encode("data: 0123456789\n".repeat(20)));
  }).toThrow(RangeError);
});

test("waits grow, are spread, and never are longer than half a minute", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1e9 }), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (failures, chance) => {
      const wait = backoff(failures, chance);
      expect(wait).toBeGreaterThanOrEqual(SHORTEST_MS);
      expect(wait).toBeLessThanOrEqual(LONGEST_MS);
    }),
  );
  expect(backoff(1, 0.99)).toBeLessThan(1_000);
  expect(backoff(20, 0.999)).toBeGreaterThan(29_000);
});

test("the way of sharing is the best that the browser has", () => {
  const locks = { navigator: { locks: {} } };
  const ways = (scope: object): string[] => waysOf(scope as typeof globalThis);
  expect(ways({ ...locks, SharedWorker: 1, BroadcastChannel: 1 })).toEqual(["worker", "leader", "tab"]);
  expect(ways({ ...locks, BroadcastChannel: 1 })).toEqual(["leader", "tab"]);
  expect(ways({ SharedWorker: 1, BroadcastChannel: 1, navigator: {} })).toEqual(["tab"]);
});

test("a document that is set waits for the patch under way, and a patch for it", async () => {
  const sent: { body: Record<string, Json>; done: (at: Position) => void }[] = [];
  const send = (body: Json): Promise<Position> =>
    new Promise((done) => sent.push({ body: body as Record<string, Json>, done }));
  const state = new SharedState<{ a: number; b?: number }>(new Channel("state", "doc", () => undefined), send);
  const all = [state.patch({ a: 1 }), state.set({ a: 2 }), state.patch({ b: 3 })];
  expect(state.snapshot.draft).toEqual({ a: 2, b: 3 });
  for (let offset = 1; offset <= all.length; offset++) {
    expect(sent.length).toBe(offset);
    sent[offset - 1]!.done({ epoch: "e", offset });
    await all[offset - 1];
    await Promise.resolve();
  }
  const topic = { topic: "doc", kind: "state" };
  expect(sent.map(({ body }) => body)).toEqual([
    { ...topic, patch: { a: 1 } },
    { ...topic, data: { a: 2 } },
    { ...topic, patch: { b: 3 } },
  ]);
});
