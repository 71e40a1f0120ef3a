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
  /** Why the server refused or ended the subscription. */
  error: ClientError | undefined;
}

type Item<H, Event extends string> = InitOf<H> | PublicationOf<H, Event>;

/** Whether there is a connection. While a server renders, and on the first render of what it has rendered, it is `connecting`. */
export function useConnectionStatus<C>(client: BareClient<C>): ClientStatus {
  const subscribe = useCallback((changed: () => void) => client.on("status", changed), [client]);
  return useSyncExternalStore(subscribe, () => client.status, () => "connecting");
}

/**
 * Subscribes to a channel for as long as the component is mounted. Other callbacks than the last ones are never called; another channel,
 * event, query or `data` is another subscription, with a state of its own.
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
  // The contract is of types alone; here, everything is JSON.
  return useUntyped(client as unknown as BareClient, channel, options as unknown as UntypedOptions) as UseSubscriptionResult<
    State
  >;
}

/** Who is in a channel, of which one is a member for as long as the component is mounted. `data` is what others are told. */
export function usePresence<C, Name extends ChannelName<C>>(
  client: BareClient<C>,
  channel: Name,
  { data, enabled = true }: { data?: MemberOf<ChannelOf<C, Name>>; enabled?: boolean } = {},
): Member<MemberOf<ChannelOf<C, Name>>>[] {
  const [members, setMembers] = useState<Member[]>([]);
  useUntyped(client as unknown as BareClient, channel, {
    ...(data !== undefined && { data }),
    enabled,
    onPresence: ({ present }) => setMembers(present),
    onError: () => setMembers([]),
  });
  // Another channel's are not shown: the effect of the change has not run yet.
  useEffect(() => () => setMembers([]), [client, channel, enabled]);
  return members as Member<MemberOf<ChannelOf<C, Name>>>[]; // As above.
}

type UntypedOptions = SubscribeOptions & UseSubscriptionOptions<unknown, unknown>;

function useUntyped(client: BareClient, channel: string, options: UntypedOptions): UseSubscriptionResult<unknown> {
  const { event, query, data, presence, recover, buffer, enabled = true, initial } = options;
  const latest = useRef(options);
  // Before the effect that subscribes: effects run in order.
  useEffect(() => {
    latest.current = options;
  });
  const key = JSON.stringify([channel, event, query, data, presence, enabled]);
  const [result, setResult] = useState<{ key: string; client: BareClient; state: unknown; error: ClientError | undefined }>();
  useEffect(() => {
    if (!enabled) return;
    let state = latest.current.initial;
    const show = (error?: ClientError) => setResult({ key, client, state, error });
    const take = (item: unknown) => {
      const { reduce } = latest.current;
      state = reduce ? reduce(state, item) : item;
      show();
    };
    const subscription = client.subscribe(channel, {
      ...Object.fromEntries(
        Object.entries({ event, query, data, presence, recover, buffer }).filter(([, value]) => value !== undefined),
      ),
      onInit: (init) => {
        take(init);
        return latest.current.onInit?.(init);
      },
      onEvent: (publication) => {
        take(publication);
        return latest.current.onEvent?.(publication);
      },
      ...(latest.current.onPresence && { onPresence: (change) => latest.current.onPresence?.(change) }),
      onGap: () => latest.current.onGap?.(),
      onError: (error) => {
        show(error);
        return latest.current.onError?.(error);
      },
    });
    return () => subscription.unsubscribe();
    // What is compared by its JSON is in the key.
  }, [client, key]);
  return result?.key === key && result.client === client ? result : { state: initial, error: undefined };
}
