/**
 * React hooks for a client. They subscribe in effects only: server rendering opens no connection, and StrictMode's double mount
 * leaves one subscription.
 *
 * @example
 * ```tsx
 * import { createClient } from "noroshi/client";
 * import { useConnectionStatus, usePresence, useSubscription } from "noroshi/react";
 *
 * const client = createClient("/websocket", { lazy: true });
 *
 * function Room({ id }: { id: string }) {
 *   const status = useConnectionStatus(client);
 *   const people = usePresence(client, `room:${id}`);
 *   const { state: messages } = useSubscription(client, `room:${id}`, {
 *     initial: [] as string[],
 *     reduce: (messages, { event, data }) => event === "init" ? data : [...messages, data],
 *   });
 *   // …
 * }
 * ```
 *
 * @module
 */
import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import type {
  BareClient,
  ChannelName,
  ChannelOf,
  ClientError,
  ClientStatus,
  EventOf,
  InitOf,
  InOf,
  ItemOf,
  MatchingName,
  Member,
  MemberOf,
  PublicationOf,
  ReplyOf,
  StreamArguments,
  StreamType,
  SubscribeOptions,
  SubscribeOptionsOf,
} from "./client.ts";
import type { AttachOptions } from "./stream.ts";
import type { Streaming } from "./streams.ts";
import { createShownStreams, IDLE, type ShownStreams, type StreamState } from "./shown-streams.ts";

export type { StreamState, StreamStatus } from "./shown-streams.ts";

/** Options of {@link useSubscription}. */
export interface UseSubscriptionOptions<Item, State> {
  /** State before the first item. @default {undefined} */
  initial?: State;
  /** Computes the next state: `init` comes first and after a gap, then publications. @default the newest item is the state */
  reduce?: (state: State, item: Item) => State;
  /** Whether to subscribe. @default {true} */
  enabled?: boolean;
}

/** Result of {@link useSubscription}. */
export interface UseSubscriptionResult<State> {
  /** The current state. */
  state: State;
  /** Why the server refused or ended the subscription, or why the client is closed. */
  error: ClientError | undefined;
}

/** @internal */
type Item<H, Event extends string> = InitOf<H> | PublicationOf<H, Event>;

/**
 * Returns the connection's status. During server rendering and hydration it is `connecting`, and for a lazy client until its first
 * use.
 */
export function useConnectionStatus<C>(client: BareClient<C>): ClientStatus {
  const subscribe = useCallback((changed: () => void) => client.on("status", changed), [client]);
  return useSyncExternalStore(subscribe, () => client.isIdle ? "connecting" : client.status, () => "connecting");
}

/** Returns `client.error`: why the last attempt failed, or why the client is closed. `undefined` during server rendering. */
export function useConnectionError<C>(client: BareClient<C>): ClientError | undefined {
  const subscribe = useCallback((changed: () => void) => client.on("status", changed), [client]);
  return useSyncExternalStore(subscribe, () => client.error, () => undefined);
}

/**
 * Subscribes to a channel while the component is mounted, and calls the callbacks of the last render. Another channel, event, query, `data`
 * or `presence` starts a new subscription with a new state; so does adding `onPresence`, because the server then has to send members.
 */
export function useSubscription<
  C,
  Name extends ChannelName<C>,
  Event extends EventOf<ChannelOf<C, Name>> = EventOf<ChannelOf<C, Name>>,
  State = Item<ChannelOf<C, Name>, Event> | undefined,
>(
  client: BareClient<C>,
  channel: MatchingName<C, Name>,
  options:
    & SubscribeOptionsOf<ChannelOf<C, Name>, Event>
    & UseSubscriptionOptions<Item<ChannelOf<C, Name>, Event>, State>
    & { event?: Event } = {},
): UseSubscriptionResult<State> {
  const { initial } = options;
  const shown = useShown<UseSubscriptionResult<unknown>>(client, channel, options, (show, latest) => {
    let state: unknown = initial;
    const take = (item: unknown) => {
      const { reduce } = latest();
      show({ state: state = reduce ? reduce(state, item) : item, error: undefined });
    };
    return {
      onInit: (init) => {
        take(init);
        return latest().onInit?.(init);
      },
      onEvent: (publication) => {
        take(publication);
        return latest().onEvent?.(publication);
      },
      // Passed only if wanted, because it makes the client request the members.
      ...((latest().presence || latest().onPresence) && { onPresence: (change) => latest().onPresence?.(change) }),
      onGap: () => latest().onGap?.(),
      onError: (error) => {
        show({ state, error });
        return latest().onError?.(error);
      },
    };
  });
  return (shown ?? { state: initial, error: undefined }) as UseSubscriptionResult<State>; // Typed by the contract and `reduce`.
}

/** Joins a channel while the component is mounted, and returns its members. `data` is this member's data as others see it. */
export function usePresence<C, Name extends ChannelName<C>>(
  client: BareClient<C>,
  channel: MatchingName<C, Name>,
  options: { data?: InOf<ChannelOf<C, Name>, "member">; enabled?: boolean } = {},
): Member<MemberOf<ChannelOf<C, Name>>>[] {
  const shown = useShown<Member[]>(client, channel, options, (show) => ({
    onPresence: ({ present }) => show(present),
    onError: () => show([]),
  }));
  return (shown ?? NO_MEMBERS) as Member<MemberOf<ChannelOf<C, Name>>>[]; // Typed by the contract.
}

/** A constant array, so that renders which compare it see no change. */
const NO_MEMBERS: Member[] = [];

type UntypedOptions = SubscribeOptions & UseSubscriptionOptions<unknown, unknown>;

/**
 * Subscribes, and returns what the callbacks of the current subscription have last passed to `show`; `undefined` before that.
 *
 * @param begin creates the callbacks of a new subscription; `latest` returns the options of the last render.
 */
function useShown<Shown>(
  typedClient: unknown,
  channel: string,
  typedOptions: unknown,
  begin: (show: (shown: Shown) => void, latest: () => UntypedOptions) => SubscribeOptions,
): Shown | undefined {
  // The contract exists in types only; at run time everything is JSON.
  const client = typedClient as BareClient;
  const options = typedOptions as UntypedOptions;
  const { event, query, data, presence, recover, buffer, enabled = true } = options;
  const latest = useRef(options);
  // Before the effect that subscribes, because effects run in order.
  useEffect(() => {
    latest.current = options;
  });
  const key = JSON.stringify([channel, event, query, data, presence || !!options.onPresence, enabled]);
  const [result, setResult] = useState<{ key: string; client: BareClient; shown: Shown }>();
  useEffect(() => {
    if (!enabled) return;
    const subscription = client.subscribe(channel, {
      ...Object.fromEntries(
        Object.entries({ event, query, data, presence, recover, buffer }).filter(([, value]) => value !== undefined),
      ),
      ...begin((shown) => setResult({ key, client, shown }), () => latest.current),
    });
    return () => {
      subscription.unsubscribe();
      // A later subscription with the same key must not show the old result.
      setResult(undefined);
    };
    // `key` contains the options that are compared as JSON.
  }, [client, key]);
  return result?.key === key && result.client === client ? result.shown : undefined;
}

/** Result of {@link useStream}. Its functions are the same in every render. */
export interface UseStreamResult<C, Type extends string> extends StreamState<ItemOf<C, Type>, ReplyOf<C, Type>> {
  /** Starts a stream, which replaces the previous one. */
  start(...request: StreamArguments<C, Type>): void;
  /** Reads a stream that the server declares `resumable`, from its first item or after the item `after`. It replaces the previous stream. */
  resume(id: string, options?: AttachOptions): void;
  /** Asks the handler to stop. The items stay. */
  stop(): void;
}

/**
 * Starts streams of one type, one at a time, and returns the state of the newest. When the component unmounts, or the client or the type
 * changes, a stream whose `id` is known continues, for `resume`; any other is cancelled. The client needs the option `streams`.
 */
export function useStream<C, Type extends StreamType<C>>(
  client: BareClient<C> & Streaming<C>,
  type: Type,
): UseStreamResult<C, Type> {
  const [shown, setShown] = useState<{ by: ShownStreams; state: StreamState }>();
  const streams = useMemo(() => {
    // The contract exists in types only.
    const by = createShownStreams(client as Streaming, type, (state) => setShown({ by, state }));
    return by;
  }, [client, type]);
  useEffect(() => streams.end, [streams]);
  const { start, resume, stop } = streams;
  const state = shown?.by === streams ? shown.state : IDLE;
  const { status, id, text, result, error } = state;
  return {
    ...{ status, id, text, result, error, start, resume, stop },
    // A getter, so that items are copied only if they are read.
    get items() {
      return state.items;
    },
  } as UseStreamResult<C, Type>; // As above.
}
