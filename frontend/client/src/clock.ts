/** Time and chance, which tests move. */
export interface Clock {
  /** Milliseconds that only grow, whatever happens to the wall clock. */
  now(): number;
  /** Unix time in milliseconds: for what the server dates, and to notice that the machine slept. */
  wall(): number;
  /** Of [0, 1). */
  random(): number;
  /** Calls back after some milliseconds; what it returns takes that back. */
  after(milliseconds: number, call: () => void): () => void;
}

export const SYSTEM_CLOCK: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  random: () => Math.random(),
  after(milliseconds, call) {
    const timer = setTimeout(call, milliseconds);
    return () => clearTimeout(timer);
  },
};
