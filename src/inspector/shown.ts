import type { CloseCause } from "../protocol/close.ts";
import type { ControllerStatus } from "../controller/drain.ts";
import type { ControllerStats } from "../controller/stats.ts";
import type { EngineStatus, Position } from "../engines/engine.ts";
import type { RefusalReason } from "../application/refusals.ts";

// What the server sends to the page.

/** What a person may be allowed to do. `view` is asked for everything, the others for what they name as well. */
export type InspectorAction = "view" | "read" | "disconnect" | "refresh" | "broadcast" | "publish" | "tap";

/** The actions that are requests of their own. */
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
  /** Of its wall clock, in ms, which may step back. */
  readonly at: number;
  /** Each snapshot of the node has the next number. */
  readonly seq: number;
  readonly status: ControllerStatus;
  readonly engine: EngineStatus;
  /** `false`: it ignores messages of other nodes, because anybody with access to the broker can send them. */
  readonly isSigned: boolean;
  readonly stats: ControllerStats;
  readonly channels: number;
  readonly subscriptions: number;
  readonly sent: number;
  /** Messages of clients, counted only while the page is open. */
  readonly received: number;
  /** Publications, counted only while the page is open. */
  readonly published: number;
  /** Of the handlers that ended since the last snapshot. */
  readonly handled: Durations;
  /** By how much a timer was late at most since the last snapshot, in ms. */
  readonly delay: number;
  /** Bytes. Absent where the runtime does not say. */
  readonly memory?: number;
  /** Share of one core, since the last snapshot. Absent where the runtime does not say. */
  readonly cpu?: number;
  /** Largest buffer among the clients that were looked at, in bytes. */
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
  /** Of the wall clock, in ms; `null`: it connected before the inspector was created, or when 20,000 were open. */
  readonly openedAt: number | null;
  /** Bytes. */
  readonly buffered: number;
  readonly closed?: Ending;
}

export type EntryKind = "opened" | "admitted" | "auth" | "message" | "stream" | "buffer" | "refused" | "error" | "closed";

/** Something that happened to a client, once or several times in a row. */
export interface Entry {
  readonly kind: EntryKind;
  readonly text: string;
  /** Of the wall clock, in ms. */
  readonly at: number;
  /** When it happened last. */
  readonly until: number;
  readonly count: number;
}

/** One client, and its timeline so far. */
export interface ClientDetail extends ClientRow {
  /** Its path and the names in its query. */
  readonly url: string;
  readonly origin: string | null;
  readonly userAgent: string | null;
  readonly protocol: string | null;
  readonly expires_at: number | null;
  readonly channels: readonly string[];
  readonly timeline: readonly Entry[];
  /** Number of entries that are not kept any more. */
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

/** The members of a channel, and a part of its history; `null`: it is declared without. */
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

/** Refusals or errors of one kind, of one second. */
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

/** What the tap of one node has seen in one second. */
export interface TapBatch {
  readonly node: string;
  readonly messages: readonly Tapped[];
  /** Number of messages that were not shown. */
  readonly skipped: number;
}

/** The answers to a question, by its name: items of a stream, of one node each. */
export interface Answers {
  /** The newest clients; `total` counts in the first part of a node all that match. */
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
