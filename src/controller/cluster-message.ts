import * as v from "valibot";
import { isCloseCode } from "../protocol/close.ts";
import { FIRST_ISSUE } from "../protocol/protocol.ts";

const id = v.pipe(v.string(), v.minLength(1), v.maxLength(1_024));
const filter = v.strictObject({ user: v.optional(id), role: v.optional(id) });
/** Present if the sender waits for confirmations of the order. */
const question = v.optional(id);

/** What nodes send to each other. Unknown fields and messages of unknown types are ignored: a later version may send them. */
const MessageSchema = v.variant("type", [
  v.object({ type: v.literal("broadcast"), text: v.string(), isJson: v.boolean(), filter }),
  v.object({
    type: v.literal("disconnect"),
    filter: v.strictObject({ user: v.optional(id), role: v.optional(id), uid: v.optional(id) }),
    code: v.pipe(v.number(), v.check(isCloseCode)),
    reason: v.pipe(v.string(), v.maxLength(123)),
    question,
  }),
  v.object({ type: v.literal("refresh"), filter, question }),
  v.object({ type: v.literal("ask"), question: id, about: v.picklist(["clients", "stats"]), filter }),
  // Not a kind of `ask`: earlier versions accept only the two above there.
  v.object({
    type: v.literal("ask.clients"),
    question: id,
    filter,
    request: v.object({ type: v.pipe(v.string(), v.minLength(1), v.maxLength(64)), payload: v.string(), timeout: v.number() }),
  }),
  v.object({
    type: v.literal("answer"),
    question: id,
    node: id,
    clients: v.optional(v.array(v.object({ uid: id, user: v.nullable(id), role: v.nullable(id) }))),
    stats: v.optional(v.record(v.string(), v.number())),
    // Not in `stats`: earlier versions accept only numbers there.
    counts: v.optional(v.record(v.string(), v.record(v.string(), v.number()))),
    replies: v.optional(v.array(v.object({ uid: id, user: v.nullable(id), data: v.optional(v.string()) }))),
    failed: v.optional(v.array(v.object({ uid: v.optional(id), code: v.pipe(v.string(), v.maxLength(64)) }))),
    isLast: v.boolean(),
  }),
]);

/** A message between nodes. */
export type Message = v.InferOutput<typeof MessageSchema>;
/** An answer, or one part of it. */
export type Answer = Extract<Message, { type: "answer" }>;
/** An order, which changes the rights of clients. */
export type Order = Extract<Message, { type: "disconnect" | "refresh" }>;

/** Reads a message; `null` if it is invalid. */
export function read(text: string): Message | null {
  try {
    const parsed = v.safeParse(MessageSchema, JSON.parse(text), FIRST_ISSUE);
    return parsed.success ? parsed.output : null;
  } catch {
    return null; // Not JSON: ignored like any other invalid message.
  }
}
