/**
 * Hooks for a client in React. They subscribe in effects alone, so that nothing is opened while a server renders, and
 * what StrictMode mounts twice is one subscription.
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
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import type {
  BareClient,
  ChannelName,
  ChannelOf,
  ClientError,
  ClientStatus,
  EventOf,
  InitOf,
  Member,
  MemberOf,
  PublicationOf,
  SubscribeOptions,
  SubscribeOptionsOf,
} from "./client/client.ts";

/** Options of {@link useSubscription}. */
export interface UseSubscriptionOptions<Item, State> {
  /** The state before anything has come. @default {undefined} */
  initial?: State;
  /** What an item makes of the state: `init` first and after a gap, then each publication. @default the newest item is the state */
  reduce?: (state: State, item: Item) => State;
  /** Whether there is a subscription at all. @default {true} */
  enabled?: boolean;
}

/** What {@link useSubscription} returns. */
export interface UseSubscriptionResult<State> {
  /** What has become of it. */
  state: State;
  /** Why the server refused or ended the subscription, or why the client is closed. */
  error: ClientError | undefined;
}

type Item<H, Event extends string> = InitOf<H> | PublicationOf<H, Event>;

/**
 * Whether there is a connection. While a server renders, and on the first render of what it has rendered, it is `connecting`; so is a lazy
 * client of which nothing has been wanted yet, on a server and in a browser alike.
 */
export function useConnectionStatus<C>(client: BareClient<C>): ClientStatus {
  const subscribe = useCallback((changed: () => void) => client.on("status", changed), [client]);
  return useSyncExternalStore(subscribe, () => client.isIdle ? "connecting" : client.status, () => "connecting");
}

/** Why there is no connection, as `client.error`: of the last attempt, or why the client is closed. While a server renders there is none. */
export function useConnectionError<C>(client: BareClient<C>): ClientError | undefined {
  const subscribe = useCallback((changed: () => void) => client.on("status", changed), [client]);
  return useSyncExternalStore(subscribe, () => client.error, () => undefined);
}

/**
 * Subscribes to a channel for as long as the component is mounted. Other callbacks than the last ones are never called; another channel,
 * event, query, `data` or `presence` is another subscription, with a state of its own. So is one that gets its first `onPresence` later: the
 * server is asked for the members then.
 */
export function useSubscription<
  C,
  Name extends ChannelName<C>,
  Event extends EventOf<ChannelOf<C, Name>> = EventOf<ChannelOf<C, Name>>,
  State = Item<ChannelOf<C, Name>, Event> | undefined,
>(
  client: BareClient<C>,
  channel: Name,
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
      // With it the server is asked for the members.
      ...((latest().presence || latest().onPresence) && { onPresence: (change) => latest().onPresence?.(change) }),
      onGap: () => latest().onGap?.(),
      onError: (error) => {
        show({ state, error });
        return latest().onError?.(error);
      },
    };
  });
  return (shown ?? { state: initial, error: undefined }) as UseSubscriptionResult<State>; // As the contract and `reduce` say.
}

/** Who is in a channel, of which one is a member for as long as the component is mounted. `data` is what others are told. */
export function usePresence<C, Name extends ChannelName<C>>(
  client: BareClient<C>,
  channel: Name,
  options: { data?: MemberOf<ChannelOf<C, Name>>; enabled?: boolean } = {},
): Member<MemberOf<ChannelOf<C, Name>>>[] {
  const shown = useShown<Member[]>(client, channel, options, (show) => ({
    onPresence: ({ present }) => show(present),
    onError: () => show([]),
  }));
  return (shown ?? NOBODY) as Member<MemberOf<ChannelOf<C, Name>>>[]; // As the contract says.
}

/** Always the same, so that it changes nothing for who compares. */
const NOBODY: Member[] = [];

type UntypedOptions = SubscribeOptions & UseSubscriptionOptions<unknown, unknown>;

/**
 * What the callbacks of a subscription show. Nothing before they have, nor of a subscription before.
 *
 * @param begin makes the callbacks of a new subscription; `latest` returns the options of the last render.
 */
function useShown<Shown>(
  typedClient: unknown,
  channel: string,
  typedOptions: unknown,
  begin: (show: (shown: Shown) => void, latest: () => UntypedOptions) => SubscribeOptions,
): Shown | undefined {
  // The contract is of types alone; here, everything is JSON.
  const client = typedClient as BareClient;
  const options = typedOptions as UntypedOptions;
  const { event, query, data, presence, recover, buffer, enabled = true } = options;
  const latest = useRef(options);
  // Before the effect that subscribes: effects run in order.
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
      // One that is like it may follow: it begins anew.
      setResult(undefined);
    };
    // What is compared by its JSON is in the key.
  }, [client, key]);
  return result?.key === key && result.client === client ? result.shown : undefined;
}
