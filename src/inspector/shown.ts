import type { CloseCause } from "../protocol/close.ts";
import type { ControllerStatus } from "../controller/drain.ts";
import type { ControllerStats } from "../controller/stats.ts";
import type { EngineStatus, Position } from "../engines/engine.ts";
import type { RefusalReason } from "../application/refusals.ts";

// Data that the server sends to the page.

/** What a user of the page may be allowed to do. `view` is required for every request, in addition to the action itself. */
export type InspectorAction = "view" | "read" | "disconnect" | "refresh" | "broadcast" | "publish" | "tap";

/** Actions with a route of their own. */
export const ACTIONS: readonly ["read", "disconnect", "refresh", "broadcast", "publish"] = [
  "read",
  "disconnect",
  "refresh",
  "broadcast",
  "publish",
];

/** The channel with the snapshots of all nodes. */
export const CHANNEL = "noroshi:inspector";

/** The channel with messages of clients. */
export const TAP_CHANNEL = "noroshi:inspector:tap";

/** Durations of one second, in ms. */
export interface Durations {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
}

/** One node at one time. Counters are since its start, unless they say otherwise. */
export interface Snapshot {
  readonly node: string;
  /** Time of the node's wall clock, in ms, which may step back. */
  readonly at: number;
  /** Sequence number of the node's snapshots. */
  readonly seq: number;
  readonly status: ControllerStatus;
  readonly engine: EngineStatus;
  /** `false`: the node ignores messages of other nodes, because anybody with access to the broker can send them. */
  readonly isSigned: boolean;
  readonly stats: ControllerStats;
  readonly channels: number;
  readonly subscriptions: number;
  readonly sent: number;
  /** Messages of clients, counted only while the page is open. */
  readonly received: number;
  /** Publications, counted only while the page is open. */
  readonly published: number;
  /** Durations of the handlers that ended since the last snapshot. */
  readonly handled: Durations;
  /** Maximum delay of a timer since the last snapshot, in ms. */
  readonly delay: number;
  /** Resident memory, in bytes. Absent if the runtime does not report it. */
  readonly memory?: number;
  /** CPU use since the last snapshot, as a share of one core. Absent if the runtime does not report it. */
  readonly cpu?: number;
  /** Largest buffer among the sampled clients, in bytes. */
  readonly buffered: number;
  readonly errors: number;
}

/** How a connection ended. */
export interface Ending {
  readonly at: number;
  readonly cause: CloseCause;
  readonly code: number;
  readonly reason: string;
}

/** A client in a list. */
export interface ClientRow {
  readonly node: string;
  readonly uid: string;
  readonly user: string | null;
  readonly role: string | null;
  readonly ip: string | null;
  /** Time of the wall clock, in ms; `null`: it connected before the inspector was created, or while 20,000 were open. */
  readonly openedAt: number | null;
  /** Bytes buffered for the client. */
  readonly buffered: number;
  readonly closed?: Ending;
}

export type EntryKind = "opened" | "admitted" | "auth" | "message" | "stream" | "buffer" | "refused" | "error" | "closed";

/** Something that happened to a client, once or several times in a row. */
export interface Entry {
  readonly kind: EntryKind;
  readonly text: string;
  /** Time of the first, by the wall clock, in ms. */
  readonly at: number;
  /** Time of the last. */
  readonly until: number;
  readonly count: number;
}

/** One client, and its timeline so far. */
export interface ClientDetail extends ClientRow {
  /** Path and query of the upgrade, without the values of parameters. */
  readonly url: string;
  readonly origin: string | null;
  readonly userAgent: string | null;
  readonly protocol: string | null;
  readonly expires_at: number | null;
  readonly channels: readonly string[];
  readonly timeline: readonly Entry[];
  /** Number of entries that were dropped. */
  readonly forgotten: number;
}

/** A channel that is open on a node. */
export interface ChannelRow {
  readonly name: string;
  readonly declared: string;
  readonly subscriptions: number;
  readonly position: Position | null;
  readonly hasHistory: boolean;
  readonly hasPresence: boolean;
  /** Publications of this node in the last second. */
  readonly rate: number;
}

/** A part of the history of a channel, oldest first and redacted, and the position of its end. */
export interface HistoryPart extends Position {
  readonly publications: readonly { readonly event: string; readonly data: unknown; readonly offset: number }[];
}

/** The members of a channel, and a part of its history; `null`: the channel has none. */
export interface ChannelDetail {
  readonly members: readonly { readonly user: string; readonly data?: unknown }[] | null;
  readonly history: HistoryPart | null;
}

/** A stream that has not ended. */
export interface StreamRow {
  readonly type: string;
  readonly uid: string;
  readonly user: string | null;
  readonly startedAt: number;
}

/** Refusals or errors of one kind within one second. */
export interface Incident {
  readonly at: number;
  readonly kind: RefusalReason | "error";
  readonly text: string;
  readonly code?: string;
  readonly ip?: string;
  /** The `uid` of the client. */
  readonly client?: string;
  readonly stack?: string;
  readonly count: number;
}

/** A message of a client, cut and redacted. */
export interface Tapped {
  readonly at: number;
  readonly uid: string;
  readonly user: string | null;
  readonly type: string;
  readonly message: unknown;
}

/** Messages that the tap of one node recorded in one second. */
export interface TapBatch {
  readonly node: string;
  readonly messages: readonly Tapped[];
  /** Number of messages that were not shown. */
  readonly skipped: number;
}

/** Answers to queries, by `about`. An answer is a stream, and each item comes from one node. */
export interface Answers {
  /** The newest clients. In the first part of a node, `total` counts all that match. */
  clients: { readonly rows: readonly ClientRow[]; readonly total: number };
  client: { readonly client: ClientDetail | null };
  channels: { readonly rows: readonly ChannelRow[]; readonly total: number };
  streams: { readonly rows: readonly StreamRow[]; readonly total: number };
  refusals: { readonly rows: readonly Incident[] };
  errors: { readonly rows: readonly Incident[] };
}

/** An item of an answer. */
export interface Part<About extends keyof Answers = keyof Answers> {
  readonly node: string;
  readonly data: Answers[About];
}
