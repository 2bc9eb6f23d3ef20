// TanStack Query: what the server pushes goes into the cache, so that components that use queries need not know of it.

import type { QueryClient, QueryKey } from "@tanstack/react-query";
import type { EventAt, EventsTopic, SharedState, Stop } from "./index.ts";

/** Keeps a query's data equal to a shared document. */
export function syncQuery<T>(client: QueryClient, key: QueryKey, state: SharedState<T>): Stop {
  const write = (value: T | undefined): void => {
    if (value !== undefined) client.setQueryData<T>(key, () => value);
  };
  const stop = state.listen(({ value }) => write(value));
  write(state.snapshot.value);
  return stop;
}

/**
 * Marks queries as out of date when an event says so; those on the screen are fetched again.
 *
 * @param keys which queries an event concerns; a list of keys.
 * @param all what is invalidated after a gap, when nobody knows which events were lost; everything unless told otherwise.
 */
export function invalidateOn<T>(
  client: QueryClient,
  topic: EventsTopic<T>,
  keys: (event: T) => readonly QueryKey[],
  all: readonly QueryKey[] = [[]],
): Stop {
  const invalidate = (some: readonly QueryKey[]): void => {
    for (const queryKey of some) void client.invalidateQueries({ queryKey });
  };
  return topic.listen((event) => invalidate(keys(event)), { onGap: () => invalidate(all) });
}

/**
 * Folds events into a query's data.
 *
 * After a gap the query is fetched again. A query that has no data yet is left to its own fetch.
 */
export function foldInto<T, D>(
  client: QueryClient,
  key: QueryKey,
  topic: EventsTopic<T>,
  fold: (data: D, event: T, at: EventAt) => D,
): Stop {
  return topic.listen(
    (event, at) => {
      client.setQueryData<D>(key, (data) => (data === undefined ? undefined : fold(data, event, at)));
    },
    { onGap: () => void client.invalidateQueries({ queryKey: key }) },
  );
}
