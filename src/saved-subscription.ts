import type { Position } from "./engine.ts";
import type { SubscribeMessage } from "./protocol.ts";

/** For how long something is allowed: it is asked about again then. */
export interface Grant {
  /** In ms. */
  readonly ttl: number;
  /** In ms of the wall clock. */
  readonly until: number;
}

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

/** The message that began it. */
export function messageOf(
  { at: _at, member: _member, entry: _entry, isStale: _isStale, grant: _grant, ...message }: SavedSubscription,
): SubscribeMessage {
  return message;
}
