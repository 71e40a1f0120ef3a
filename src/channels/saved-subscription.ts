import type { Position } from "../engines/engine.ts";
import { byteLength } from "../protocol/bytes.ts";
import type { SubscribeMessage } from "../protocol/protocol.ts";

/** A permission with a time limit, after which `authorize` is called again. */
export interface Grant {
  /** Duration in ms. */
  readonly ttl: number;
  /** End in ms of the wall clock. */
  readonly until: number;
}

/** A `subscribe` message with `query` and `data` as JSON text. As an object, a `query` of 8 kB can take 200 kB of memory. */
export type SubscriptionRequest = Omit<SubscribeMessage, "query" | "data"> & { readonly query?: string; readonly data?: string };

/** The state of a subscription that is saved as JSON for hibernation. */
export type SavedSubscription = SubscribeMessage & {
  /** Position that the client has reached. Absent unless the subscription is behind. */
  at?: Position;
  /** Data of its member, as JSON text. */
  member?: string;
  /** Order of its member among those of the channel on this node; greater is newer. */
  entry?: number;
  /** Whether the client lacks the list of members, or missed a change of them. */
  isStale?: boolean;
  /** Whether its member has not joined yet. Then `data` is saved too. */
  isJoining?: boolean;
  /** Absent if the permission has no time limit. */
  grant?: Grant;
  /** Whether `authorize` has not answered since the client's rights changed. */
  isDoubtful?: boolean;
  /** Whether `init` was not sent. Then it has the fields of its request only, `recover` and `data` among them. */
  isStarting?: boolean;
  /** The starting subscription that is to replace it. */
  next?: SavedSubscription;
};

export function requestOf({ query, data, ...rest }: SubscribeMessage): SubscriptionRequest {
  return {
    ...rest,
    ...(query && { query: JSON.stringify(query) }),
    ...(data === undefined ? {} : { data: JSON.stringify(data) }),
  };
}

/** The decoded query. */
export function queryOf({ query }: SubscriptionRequest): Record<string, unknown> | undefined {
  return query === undefined ? undefined : JSON.parse(query);
}

/** Size of the fields that the client chose, in bytes. */
export function bytesOf({ channel, uid = "", event = "", query = "", data = "", recover }: SubscriptionRequest): number {
  return [channel, `${uid}`, event, query, data, recover?.epoch ?? ""].reduce((sum, text) => sum + byteLength(text), 0);
}

/** The fields to save of a subscription that has started: its state, and its request without `recover` and `data`. */
export function savedOf(request: SubscriptionRequest, state: Omit<SavedSubscription, keyof SubscribeMessage>): SavedSubscription {
  const { recover: _recover, data: _data, query: _query, ...message } = request;
  const query = queryOf(request);
  return { ...message, ...(query && { query }), ...state };
}

/** The fields to save of a subscription that has not started: all of its request. */
export function startingOf(request: SubscriptionRequest): SavedSubscription {
  const { data, query: _query, ...message } = request;
  const query = queryOf(request);
  return { ...message, ...(query && { query }), ...(data === undefined ? {} : { data: JSON.parse(data) }), isStarting: true };
}

/** The request of a saved subscription. */
export function savedRequestOf({
  at: _at,
  member: _member,
  entry: _entry,
  isStale: _isStale,
  isJoining: _isJoining,
  grant: _grant,
  isDoubtful: _doubt,
  isStarting: _isStarting,
  next: _next,
  ...message
}: SavedSubscription): SubscriptionRequest {
  return requestOf(message);
}
