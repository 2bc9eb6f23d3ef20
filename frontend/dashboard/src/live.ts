/** Figures that stay current while somebody looks: asked again when the service says so, else by the clock; never while hidden. */

import { effect, signal, type Signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";

import { type Problem, token } from "./api";
import { hidden, paused, streaming, told } from "./stream";

/** Seconds between two questions where nobody tells: processes write their figures every ten. */
export const PERIOD = 10;

/** And where somebody does: a word may be lost. */
const ANYWAY = 60;

/** Counts up when something was changed here, so that what shows it asks anew. */
const changes = signal(0);

export function changed(): void {
  changes.value += 1;
}

export interface Live<T> {
  value: Signal<T | null>;
  error: Signal<Problem | null>;
  /** Milliseconds since the epoch of the last answer. */
  at: Signal<number>;
}

/** What `load` answers, now and as long as the component is shown; asked anew when a word of `by` changes. */
export function useLive<T>(load: (abort: AbortSignal) => Promise<T>, by: readonly (string | number)[], period = PERIOD): Live<T> {
  const live = useMemo<Live<T>>(() => ({ value: signal<T | null>(null), error: signal<Problem | null>(null), at: signal(0) }), []);
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    let asking = false;

    async function next(): Promise<void> {
      clearTimeout(timer);
      if (asking) return;
      asking = true;
      try {
        live.value.value = await load(abort.signal);
        live.error.value = null;
        live.at.value = Date.now();
      } catch (error) {
        if (!abort.signal.aborted) live.error.value = error as Problem;
      }
      asking = false;
      // A failing service is asked less often, and not by all pages at the same moment.
      const due = streaming.peek() ? ANYWAY : period;
      const wait = (live.error.value === null ? due : period * 2) * (0.9 + 0.2 * Math.random());
      if (!abort.signal.aborted && !hidden.peek() && !paused.peek()) timer = window.setTimeout(() => void next(), wait * 1000);
    }

    const stop = effect(() => {
      // Asked again when the service tells, or no longer does, the page is seen again, the pause ends, somebody logs in, or something
      // was changed.
      void [token.value, changes.value, told.value, streaming.value];
      clearTimeout(timer);
      if (!hidden.value && (!paused.value || live.at.peek() === 0)) void next();
    });
    return () => {
      stop();
      abort.abort();
      clearTimeout(timer);
    };
  }, by);
  return live;
}
