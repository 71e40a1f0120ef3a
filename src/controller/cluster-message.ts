import * as v from "valibot";
import { isCloseCode } from "../protocol/close.ts";
import type { AskAnswers, AskRequest } from "./ask-all.ts";
import type { BroadcastFilter } from "../delivery/broadcast.ts";
import type { DisconnectFilter } from "../connection/revocations.ts";
import { FIRST_ISSUE } from "../protocol/protocol.ts";

/** An order, which changes the rights of clients. `question` is present if the sender waits for confirmations. */
export type Order =
  | { type: "disconnect"; filter: DisconnectFilter; code: number; reason: string; question?: string | undefined }
  | { type: "refresh"; filter: BroadcastFilter; question?: string | undefined };

/** An answer, or one part of it. */
export interface Answer extends AskAnswers {
  type: "answer";
  question: string;
  node: string;
  clients?: { uid: string; user: string | null; role: string | null }[] | undefined;
  stats?: Record<string, number> | undefined;
  counts?: Record<string, Record<string, number>> | undefined;
  isLast: boolean;
}

/** A message between nodes. */
export type Message =
  | { type: "broadcast"; text: string; isJson: boolean; filter: BroadcastFilter }
  | { type: "ask"; question: string; about: "clients" | "stats"; filter: BroadcastFilter }
  | { type: "ask.clients"; question: string; filter: BroadcastFilter; request: AskRequest }
  /** A message of an optional feature: see `NodeMessages`. Its type is `note` for earlier versions. */
  | { type: "note"; to: string; text: string }
  | Order
  | Answer;

const id = v.pipe(v.string(), v.minLength(1), v.maxLength(1_024));
const filter = v.strictObject({ user: v.exactOptional(id), role: v.exactOptional(id) });
const question = v.optional(id);

/** What nodes send to each other. Unknown fields and messages of unknown types are ignored: a later version may send them. */
const MessageSchema = v.variant("type", [
  v.object({ type: v.literal("broadcast"), text: v.string(), isJson: v.boolean(), filter }),
  v.object({
    type: v.literal("disconnect"),
    filter: v.strictObject({ user: v.exactOptional(id), role: v.exactOptional(id), uid: v.exactOptional(id) }),
    code: v.pipe(v.number(), v.check(isCloseCode)),
    reason: v.pipe(v.string(), v.maxLength(123)),
    question,
  }),
  v.object({ type: v.literal("note"), to: id, text: v.string() }),
  v.object({ type: v.literal("refresh"), filter, question }),
  v.object({ type: v.literal("ask"), question: id, about: v.picklist(["clients", "stats"]), filter }),
  // A type of its own, because earlier versions accept no other `about` of `ask`.
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

/** The node that an answer is for: the name of a question begins with it. */
export const askerOf = (message: Message): string | undefined =>
  message.type === "answer" ? message.question.slice(0, Math.max(0, message.question.lastIndexOf(" "))) : undefined;

/** Reads a message; `null` if it is invalid. */
export function read(text: string): Message | null {
  try {
    const parsed = v.safeParse(MessageSchema, JSON.parse(text), FIRST_ISSUE);
    return parsed.success ? parsed.output : null;
  } catch {
    return null; // Not JSON: ignored like any other invalid message.
  }
}
