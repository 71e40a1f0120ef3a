import type { Disposes } from "./dispose.ts";
import type { ClientError } from "./error.ts";

/** A position in a channel's history. */
export interface Position {
  /** Identifies the history. It changes when the history is lost. */
  epoch: string;
  /** Offset of the last publication received. */
  offset: number;
}

/** A member of a channel. */
export interface Member<Data = unknown> {
  /** The user's id, or `uid:<id>` for an anonymous connection. */
  user: string;
  /** Data of the member, if the channel has any. */
  data?: Data;
}

/** First item of a subscription, and the first after a gap. */
export interface SubscriptionInit<Snapshot = unknown> {
  /** Always `init`. */
  event: "init";
  /** The channel's snapshot, if it has one. */
  data: Snapshot;
  /** Absent the first time. `false` after a gap: discard your state and start from `data`. */
  recovered?: false;
}

/** A publication. */
export interface Publication<Event extends string = string, Data = unknown> {
  /** Name of the event. */
  event: Event;
  /** The published data. */
  data: Data;
  /** Offset in the channel's history, if it has one. */
  offset?: number;
}

/** A change of a channel's members. */
export interface PresenceChange<Data = unknown> {
  /** `init` lists all members. `join` of a present member means that its data has changed. */
  event: "init" | "join" | "leave";
  /** The members that changed. */
  members: Member<Data>[];
  /** All members after the change. */
  present: Member<Data>[];
}

/** Options and callbacks of a subscription. Callbacks may be async; what they throw or reject with becomes an `error` event. */
export interface SubscribeOptions<
  Init = SubscriptionInit,
  Event = Publication,
  Data = unknown,
  Query = Record<string, unknown>,
  Own = Data,
> {
  /** Only receives publications of this event. */
  event?: string;
  /** Passed to the channel's snapshot. */
  query?: Query;
  /** Position to resume from, such as one saved before a page reload. */
  recover?: Position;
  /** Whether to receive presence; implied by `onPresence`. @default {false} */
  presence?: boolean;
  /** This member's data as others see it, if the channel accepts it from clients: at most 1,024 bytes of JSON. */
  data?: Own;
  /** Maximum number of items queued for iteration; `0` means the default. @default {1_000} */
  buffer?: number;
  /** Called at the start, and after each gap. */
  onInit?: (init: Init) => unknown;
  /** Called for each publication. */
  onEvent?: (event: Event) => unknown;
  /** Called when the members change. */
  onPresence?: (change: PresenceChange<Data>) => unknown;
  /** Called when publications may have been lost, before `onInit`. */
  onGap?: () => unknown;
  /** Called when the server refuses or ends the subscription, or the client gives up, after which `connect()` resumes it. */
  onError?: (error: ClientError) => unknown;
}

/** A subscription to a channel: iterate over it or pass callbacks. It survives reconnects; `using` ends it with its block. */
export type Subscription<Item = SubscriptionInit | Publication, Data = unknown> = OpenSubscription<Item, Data> & Disposes;

/** {@link Subscription} without `using`. */
export interface OpenSubscription<Item = SubscriptionInit | Publication, Data = unknown> extends AsyncIterable<Item> {
  /** The channel's name. */
  readonly channel: string;
  /** Current position in the channel's history, if it has one. */
  readonly position: Position | undefined;
  /** Current members, with the option `presence`. */
  readonly present: Member<Data>[];
  /** Ends the subscription and its iteration. */
  unsubscribe(): void;
}
