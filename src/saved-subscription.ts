import type { Position } from "./engine.ts";
import { byteLength } from "./bytes.ts";
import type { SubscribeMessage } from "./protocol.ts";

/** For how long something is allowed: it is asked about again then. */
export interface Grant {
  /** In ms. */
  readonly ttl: number;
  /** In ms of the wall clock. */
  readonly until: number;
}

/** A `subscribe` message as it is kept: objects as JSON text. As objects a `query` of 8 kB may take 200 kB. */
export type SubscriptionRequest = Omit<SubscribeMessage, "query" | "data"> & { readonly query?: string; readonly data?: string };

/** What of a subscription outlives hibernation, as JSON. */
export type SavedSubscription = SubscribeMessage & {
  /** Where it is, when it is behind. */
  at?: Position;
  /** What its member has as data, as JSON text. */
  member?: string;
  /** The place of its member among those of the channel: the newest has the greatest. */
  entry?: number;
  /** It was not told of a change of the members. */
  isStale?: boolean;
  /** Absent where it is allowed for good. */
  grant?: Grant;
};

export function requestOf({ query, data, ...rest }: SubscribeMessage): SubscriptionRequest {
  return {
    ...rest,
    ...(query && { query: JSON.stringify(query) }),
    ...(data === undefined ? {} : { data: JSON.stringify(data) }),
  };
}

/** The query, decoded. */
export function queryOf({ query }: SubscriptionRequest): Record<string, unknown> | undefined {
  return query === undefined ? undefined : JSON.parse(query);
}

/** Bytes of what the client chose. */
export function bytesOf({ channel, uid = "", event = "", query = "", data = "", recover }: SubscriptionRequest): number {
  return [channel, `${uid}`, event, query, data, recover?.epoch ?? ""].reduce((sum, text) => sum + byteLength(text), 0);
}

/** The request that began it. */
export function savedRequestOf(
  { at: _at, member: _member, entry: _entry, isStale: _isStale, grant: _grant, ...message }: SavedSubscription,
): SubscriptionRequest {
  return requestOf(message);
}
