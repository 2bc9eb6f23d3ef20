import { describe, expect, it } from "vitest";

import { ago, bytes, count, dollars, milliseconds, percent, rate, seconds } from "./format";

describe("figures", () => {
  it.each([
    [percent(null), "–"],
    [percent(0), "0 %"],
    [percent(0.0004), "<0.1 %"],
    [percent(0.052), "5.2 %"],
    [percent(0.9996), ">99.9 %"],
    [percent(1), "100 %"],
    [count(0), "0"],
    [count(1523.4), "1,523"],
    [count(1_523_412), "1.5M"],
    [rate(0.0312), "0.031"],
    [rate(412.7), "413"],
    [milliseconds(0.8231), "0.82 ms"],
    [milliseconds(12_345), "12.3 s"],
    [bytes(999), "999 B"],
    [bytes(84_000_000), "84 MB"],
    [dollars(0), "$0.00"],
    [dollars(0.004), "<$0.01"],
    [dollars(212.4), "$212"],
    [seconds(0.138), "138 ms"],
    [seconds(90), "90 s"],
    [seconds(8123), "2.26 h"],
    [seconds(1_000_000), "11.6 days"],
    [ago(100, 100.2), "now"],
    [ago(100, 130.4), "30 s ago"],
  ])("%s is %s", (shown, wanted) => {
    expect(shown).toBe(wanted);
  });

  it("never shows a small number as nothing", () => {
    for (let power = -6; power < 3; power += 1) {
      expect(rate(10 ** power)).not.toBe("0");
      expect(milliseconds(10 ** power)).not.toBe("0 ms");
    }
  });
});
