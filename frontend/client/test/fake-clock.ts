import type { Clock } from "../src/clock.ts";

/** A clock that a test moves; `sleep` is what a laptop's lid does: the wall clock goes on, the monotonic one does not. */
export class FakeClock implements Clock {
  #now = 1_000;
  #slept = 1_700_000_000_000;
  #timers: { at: number; call: () => void }[] = [];
  chance = 0;

  now(): number {
    return this.#now;
  }

  wall(): number {
    return this.#now + this.#slept;
  }

  random(): number {
    return this.chance;
  }

  after(milliseconds: number, call: () => void): () => void {
    const timer = { at: this.#now + milliseconds, call };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  sleep(milliseconds: number): void {
    this.#slept += milliseconds;
  }

  /** Lets time pass, and everything happen that then happens. */
  async pass(milliseconds: number): Promise<void> {
    const end = this.#now + milliseconds;
    await settled();
    for (;;) {
      const next = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      this.#now = Math.max(this.#now, next.at);
      next.call();
      await settled();
    }
    this.#now = end;
    await settled();
  }
}

/** Everything that waits for nothing but its turn has had it. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve));
}
