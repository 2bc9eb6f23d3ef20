import { describe, expect, it, vi } from "vitest";

// The page's address and the browser's storage, which the modules read when they are loaded.
vi.stubGlobal("document", { hidden: false, baseURI: "http://service/admin/performance/", addEventListener: () => {} });
vi.stubGlobal("sessionStorage", { getItem: () => null });
vi.stubGlobal("location", { hash: "" });
vi.stubGlobal("addEventListener", () => {});
const { alone, happened, whole, word } = await import("./figures");

describe("series", () => {
  const series = { metric: "operations_total", unit: "1/s", times: [0, 60, 120], lines: [{ label: "", values: [5, 6, 1] }] };

  it("leaves out a rate's time whose minute is not over", () => {
    const shown = whole({ ...series, kind: "counter", step: 60 }, 150);
    expect(shown.times).toEqual([0, 60]);
    expect(shown.lines[0]?.values).toEqual([5, 6]);
  });

  it.each([
    ["counter", 181],
    ["gauge", 150],
    ["histogram", 150],
  ] as const)("keeps all times of a %s at %s", (kind, now) => {
    expect(whole({ ...series, kind, step: 60 }, now).times).toHaveLength(3);
  });

  it("names a metric without labels by a word", () => {
    expect(word("errors_total")).toBe("errors");
    expect(word("queue_wait_seconds")).toBe("queue wait");
    expect(word("cache_load_seconds_total")).toBe("cache load");
  });

  it("keeps lines on which anything happened", () => {
    const lines = [
      { name: "a", values: [0, null] },
      { name: "b", values: [0, 2] },
    ];
    expect(happened(lines).map((line) => line.name)).toEqual(["b"]);
  });
});

it("tells the values that no line would show", () => {
  expect(alone([1, null, 2, 3, undefined, 4])).toEqual([0, 5]);
  expect(alone([7])).toEqual([0]);
  expect(alone([null, 1, 2])).toEqual([]);
});
