import * as v from "valibot";
import { FIRST_ISSUE } from "../protocol/protocol.ts";

/** A question about what the nodes are doing. */
export interface Query {
  about: "clients" | "client" | "channels" | "streams" | "refusals" | "errors";
  text?: string | undefined;
  /** The `uid` of a client. */
  client?: string | undefined;
  /** The only node that is asked. */
  node?: string | undefined;
  /** Of clients. @default {"open"} */
  state?: "open" | "closed" | "all" | undefined;
}

/** A question about one channel, which any node can answer. */
export interface ChannelQuery {
  name: string;
  /** The history is read from here. @default the latest publications */
  after?: { epoch: string; offset: number } | undefined;
}

/** A note between the inspectors of two nodes. */
export type Note =
  /** Somebody looks at the node that sends it, and at the messages if `isTapping`. */
  | { kind: "watch"; isTapping: boolean }
  | { kind: "snapshot"; snapshot: { node: string } }
  | { kind: "tapped"; batch: { node: string } }
  | { kind: "ask"; id: string; query: Query }
  /** Without `data` it was the last part. */
  | { kind: "answer"; id: string; node: string; data?: object | undefined };

const text = v.pipe(v.string(), v.maxLength(256));

export const QuerySchema: v.GenericSchema<unknown, Query> = v.object({
  about: v.picklist(["clients", "client", "channels", "streams", "refusals", "errors"]),
  text: v.optional(text),
  client: v.optional(text),
  node: v.optional(text),
  state: v.optional(v.picklist(["open", "closed", "all"])),
});

export const ChannelQuerySchema: v.GenericSchema<unknown, ChannelQuery> = v.object({
  name: text,
  after: v.optional(v.object({ epoch: v.string(), offset: v.number() })),
});

const NoteSchema = v.variant("kind", [
  v.object({ kind: v.literal("watch"), isTapping: v.boolean() }),
  v.object({ kind: v.literal("snapshot"), snapshot: v.looseObject({ node: text }) }),
  v.object({ kind: v.literal("tapped"), batch: v.looseObject({ node: text }) }),
  v.object({ kind: v.literal("ask"), id: text, query: QuerySchema }),
  v.object({ kind: v.literal("answer"), id: text, node: text, data: v.optional(v.looseObject({})) }),
]);

/** Reads a note; `null`: it is of another version, or forged. */
export function readNote(json: string): Note | null {
  try {
    const parsed = v.safeParse(NoteSchema, JSON.parse(json), FIRST_ISSUE);
    return parsed.success ? parsed.output : null;
  } catch {
    return null; // Not JSON.
  }
}
