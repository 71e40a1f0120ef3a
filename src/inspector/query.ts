import * as v from "valibot";
import { FIRST_ISSUE } from "../protocol/protocol.ts";

/** A query of the page about the nodes. */
export interface Query {
  about: "clients" | "client" | "channels" | "streams" | "refusals" | "errors";
  text?: string | undefined;
  /** The `uid` of a client. */
  client?: string | undefined;
  /** The only node to ask. @default all nodes */
  node?: string | undefined;
  /** Of clients. @default {"open"} */
  state?: "open" | "closed" | "all" | undefined;
  /** Maximum number of clients that a node lists, the newest ones. @default {500} */
  limit?: number | undefined;
}

/** A query about one channel, which any node can answer. */
export interface ChannelQuery {
  name: string;
  /** The history is read from here. @default the latest publications */
  after?: { epoch: string; offset: number } | undefined;
}

/** A message between the inspectors of two nodes. */
export type InspectorMessage =
  /** The page is connected to the sending node, and shows messages of clients if `isTapping`. */
  | { kind: "watch"; isTapping: boolean }
  | { kind: "snapshot"; snapshot: { node: string } }
  | { kind: "tapped"; batch: { node: string } }
  | { kind: "ask"; id: string; query: Query }
  /** Without `data` it was the last part. */
  | { kind: "answer"; id: string; node: string; data?: object | undefined };

/** Maximum number of clients that a node lists in one answer. */
export const MAX_CLIENTS = 20_000;

const text = v.pipe(v.string(), v.maxLength(256));

export const QuerySchema: v.GenericSchema<unknown, Query> = v.object({
  about: v.picklist(["clients", "client", "channels", "streams", "refusals", "errors"]),
  text: v.optional(text),
  client: v.optional(text),
  node: v.optional(text),
  state: v.optional(v.picklist(["open", "closed", "all"])),
  limit: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_CLIENTS))),
});

export const ChannelQuerySchema: v.GenericSchema<unknown, ChannelQuery> = v.object({
  name: text,
  after: v.optional(v.object({ epoch: v.string(), offset: v.number() })),
});

/** Version of the messages. Nodes with another version ignore them. */
const VERSION = 1;

const version = v.literal(VERSION);
const [numbers, count] = [v.record(v.string(), v.number()), v.number()];

/** The fields of a snapshot that the page reads. */
const SnapshotSchema = v.looseObject({
  ...{ node: text, status: text, engine: text, isSigned: v.boolean() },
  ...{ at: count, seq: count, channels: count, subscriptions: count, sent: count, received: count, published: count },
  ...{ delay: count, buffered: count, errors: count, memory: v.optional(count), cpu: v.optional(count) },
  stats: v.looseObject({
    ...{ opened: count, closed: count, active: count, clients: count, dropped: count, limited: count, streams: count },
    ...{ refused: numbers, closedBy: numbers },
  }),
  handled: v.object({ count, p50: count, p99: count }),
});

const TappedSchema = v.looseObject({ at: count, uid: text, user: v.nullable(v.string()), type: text });

const MessageSchema = v.variant("kind", [
  v.object({ v: version, kind: v.literal("watch"), isTapping: v.boolean() }),
  v.object({ v: version, kind: v.literal("snapshot"), snapshot: SnapshotSchema }),
  v.object({
    v: version,
    kind: v.literal("tapped"),
    batch: v.looseObject({ node: text, messages: v.array(TappedSchema), skipped: count }),
  }),
  v.object({ v: version, kind: v.literal("ask"), id: text, query: QuerySchema }),
  v.object({ v: version, kind: v.literal("answer"), id: text, node: text, data: v.optional(v.looseObject({})) }),
]);

/** Encodes a message as JSON. */
export const encodeMessage = (message: InspectorMessage): string => JSON.stringify({ v: VERSION, ...message });

/** Decodes a message; `null`: it is of another version, or invalid. */
export function decodeMessage(json: string): InspectorMessage | null {
  try {
    const parsed = v.safeParse(MessageSchema, JSON.parse(json), FIRST_ISSUE);
    return parsed.success ? parsed.output : null;
  } catch {
    return null; // Not JSON.
  }
}
