// React hooks. What they return is typed by the topic's name, see types.ts.

import {
  createContext,
  createElement,
  type FunctionComponent,
  type ReactNode,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import type {
  EventAt,
  EventOf,
  EventsName,
  JobName,
  JobSnapshot,
  MemberOf,
  MergePatch,
  Position,
  PresenceName,
  PresenceSnapshot,
  Realtime,
  ResultOf,
  StateName,
  StateOf,
  StateSnapshot,
  Status,
  Stop,
  TextName,
  TextSnapshot,
} from "./index.ts";

const Context = createContext<Realtime | undefined>(undefined);

/** Gives the hooks below it their `Realtime`. */
export const RealtimeProvider: FunctionComponent<{ realtime: Realtime; children?: ReactNode }> = ({ realtime, children }) =>
  createElement(Context.Provider, { value: realtime }, children);

/** The page's `Realtime`. */
export function useRealtime(): Realtime {
  const realtime = useContext(Context);
  if (realtime === undefined) throw new Error("Put a <RealtimeProvider> around what uses realtime.");
  return realtime;
}

/** How fresh what is shown is. */
export function useStatus(): Status {
  const realtime = useRealtime();
  return useSyncExternalStore(
    useCallback((changed) => realtime.onStatus(changed), [realtime]),
    () => realtime.status,
    () => realtime.status,
  );
}

interface Source<S> {
  readonly snapshot: S;
  listen(onChange: (snapshot: S) => void): Stop;
}

function useSnapshot<S>(source: Source<S>): S {
  return useSyncExternalStore(
    useCallback((changed) => source.listen(changed), [source]),
    () => source.snapshot,
    () => source.snapshot,
  );
}

export interface TopicOptions<T> {
  /** How many of the last events to keep in `events`; 50 unless told otherwise. */
  readonly keep?: number;
  /** Called for each event, once. */
  readonly onEvent?: (event: T, at: EventAt) => void;
  /** Called when events are missing that nobody has any more: read again what they are about. */
  readonly onGap?: () => void;
  /** Go on after this position, as an earlier event told it. Counts when the topic is first used. */
  readonly after?: Position;
}

export interface TopicResult<T> {
  /** The last events, the newest last. */
  readonly events: readonly T[];
  /** How many times events were lost for good. */
  readonly gaps: number;
  readonly status: Status;
  /** Why the server does not give this topic. */
  readonly refused: string | undefined;
  readonly publish: (event: T, options?: { readonly id?: string }) => Promise<Position>;
}

/** The events of a topic. */
export function useTopic<N extends EventsName>(name: N, options: TopicOptions<EventOf<N>> = {}): TopicResult<EventOf<N>> {
  type Heard = { name: N; events: readonly EventOf<N>[]; gaps: number; refused: string | undefined };
  const topic = useRealtime().events(name);
  const status = useStatus();
  const nothing: Heard = { name, events: [], gaps: 0, refused: undefined };
  const [heard, setHeard] = useState<Heard>(nothing);
  const latest = useRef(options);
  useEffect(() => {
    latest.current = options;
  });
  useEffect(() => {
    const update = (change: (heard: Heard) => Partial<Heard>): void =>
      setHeard((before) => {
        const own: Heard = before.name === name ? before : { name, events: [], gaps: 0, refused: undefined };
        return { ...own, ...change(own) };
      });
    const { after } = latest.current;
    return topic.listen(
      (event, at) => {
        const keep = latest.current.keep ?? 50;
        update(({ events }) => ({ events: keep === 0 ? [] : [...events, event].slice(-keep) }));
        latest.current.onEvent?.(event, at);
      },
      {
        ...(after && { after }),
        onGap: () => {
          update(({ gaps }) => ({ gaps: gaps + 1 }));
          latest.current.onGap?.();
        },
        onRefused: (refused) => update(() => ({ refused })),
      },
    );
  }, [topic, name]);
  const publish = useCallback((event: EventOf<N>, how?: { readonly id?: string }) => topic.publish(event, how), [topic]);
  const { events, gaps, refused } = heard.name === name ? heard : nothing;
  return { events, gaps, refused, status, publish };
}

export interface SharedStateResult<T> extends StateSnapshot<T> {
  readonly status: Status;
  readonly patch: (patch: MergePatch<T>, options?: { readonly version?: number }) => Promise<Position>;
  readonly set: (value: T) => Promise<Position>;
}

/** A document that all who look at it share. Show `draft` where it is edited, `value` elsewhere. */
export function useSharedState<N extends StateName>(name: N): SharedStateResult<StateOf<N>> {
  const state = useRealtime().state(name);
  const snapshot = useSnapshot(state);
  const status = useStatus();
  return useMemo(
    () => ({ ...snapshot, status, patch: state.patch.bind(state), set: state.set.bind(state) }),
    [snapshot, status, state],
  );
}

/** A text as it is made. */
export function useTokenStream<N extends TextName>(name: N): TextSnapshot & { readonly status: Status } {
  const snapshot = useSnapshot(useRealtime().text(name));
  const status = useStatus();
  return useMemo(() => ({ ...snapshot, status }), [snapshot, status]);
}

/** Who is there; with `me` this component is there too, while it is mounted. Its data may change. */
export function usePresence<N extends PresenceName>(
  name: N,
  me?: { readonly name?: string; readonly data: MemberOf<N> },
): PresenceSnapshot<MemberOf<N>> & { readonly status: Status; readonly isMine: (member: string) => boolean } {
  const presence = useRealtime().presence(name);
  const snapshot = useSnapshot(presence);
  const status = useStatus();
  const own = me?.name;
  const data = me === undefined ? undefined : JSON.stringify(me.data);
  // Leaving is not the end of each change of the data, or the others would see this tab go and come.
  const stop = useRef<Stop>(undefined);
  useEffect(() => {
    stop.current = data === undefined ? void stop.current?.() : presence.join(JSON.parse(data) as MemberOf<N>, own);
  }, [presence, own, data]);
  useEffect(
    () => () => {
      stop.current?.();
      stop.current = undefined;
    },
    [presence, own],
  );
  return useMemo(() => ({ ...snapshot, status, isMine: presence.isMine.bind(presence) }), [snapshot, status, presence]);
}

/** A job as it runs. The task's name gives the result its type. */
export function useJob<N extends JobName>(id: string, task?: N): JobSnapshot<ResultOf<N>> & { readonly status: Status } {
  const snapshot = useSnapshot(useRealtime().job(id, task));
  const status = useStatus();
  return useMemo(() => ({ ...snapshot, status }), [snapshot, status]);
}
