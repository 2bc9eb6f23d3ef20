export const SHORTEST_MS = 500;
export const LONGEST_MS = 30_000;

/**
 * How long to wait before the next attempt: full jitter, at random between half a second and a bound that doubles
 * up to 30 s. A thousand browsers that lost the same server come back spread over time. It has no last attempt.
 *
 * @param failures how many attempts in a row have failed, from 1.
 * @param random of [0, 1).
 */
export function backoff(failures: number, random: number): number {
  const bound = Math.min(LONGEST_MS, 2 * SHORTEST_MS * 2 ** Math.min(failures - 1, 10));
  return SHORTEST_MS + random * (bound - SHORTEST_MS);
}
