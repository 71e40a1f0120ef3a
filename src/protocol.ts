import * as v from "valibot";
import { type ErrorMessage, isUid, type MessageUid, WebSocketError } from "./errors.ts";

/** Any message of the protocol: an object with a `type`. What else is in it belongs to the type. */
export interface WebSocketMessage {
  /** What the message is: 1 to 64 characters. */
  type: string;
  /** Chosen by the sender, and echoed in the answer. */
  uid?: MessageUid;
  [field: string]: unknown;
}

/** A client proves who it is, with one of three kinds of credentials. */
export type AuthMessage =
  & { type: "auth"; uid?: MessageUid }
  & (
    | { access_token: string }
    | { refresh_token: string }
    | { email: string; password: string; otp?: string }
  );

/** A bucket that is refilled with time, and that what a client sends is taken from. */
export interface AnnouncedBucket {
  /** What it is refilled with, a second. */
  rate: number;
  /** What it holds when it is full. */
  burst: number;
  /** What is in it now. */
  left: number;
}

/** What a server takes of a client. */
export interface AnnouncedLimits {
  /** The largest message, in bytes of UTF-8. */
  payload: number;
  /** Messages that may wait for an earlier one; together they may have `payload` bytes. */
  waiting: number;
  /** Subscriptions; absent where there may be any number. */
  subscriptions?: number;
  /** The rate of messages; absent where there is no limit. */
  messages?: AnnouncedBucket;
  /** The rate of bytes; absent where there is no limit. */
  bytes?: AnnouncedBucket;
}

/** The answer to a successful {@link AuthMessage}. */
export interface AuthOkMessage {
  /** As in the request. */
  type: "auth";
  /** It succeeded. */
  status: "ok";
  /** The request's own `uid`, where it had one. */
  uid?: MessageUid;
  /** A new refresh token, where the credentials brought one. */
  refresh_token?: string;
  /** What the server takes, for a client of `noroshi.v1`. */
  limits?: AnnouncedLimits;
}

/** Asks the other side for a {@link PongMessage}. */
export interface PingMessage {
  /** Never seen by a handler: it is answered before. */
  type: "ping";
  /** Echoed in the answer. */
  uid?: MessageUid;
  /** Asks for the limits of the server, too. */
  limits?: boolean;
}

/** The answer to a {@link PingMessage}, with its `uid`. */
export interface PongMessage {
  /** Never seen by a handler: that it came is what it is for. */
  type: "pong";
  /** The ping's own `uid`, where it had one. */
  uid?: MessageUid;
  /** What the server takes, where the ping asks for it. */
  limits?: AnnouncedLimits;
}

/** The answer of a handler that succeeded: the request's type and `uid`, and what the handler returned. */
export interface ReplyMessage {
  /** As in the request. */
  type: string;
  /** It succeeded. */
  status: "ok";
  /** The request's own `uid`, where it had one. */
  uid?: MessageUid;
  /** What the handler returned or resolved with; absent where that is `undefined`. */
  data?: unknown;
}

/** Asks for the publications of a channel. */
export interface SubscribeMessage {
  /** A subscription begins. */
  type: "subscribe";
  /** The channel; `collection` is accepted for it, the word of the Directus SDK. */
  channel: string;
  /** The same, where the client named it so. */
  collection?: string;
  /** Names the subscription; the same one again replaces it. */
  uid?: MessageUid;
  /** Only publications of this event. */
  event?: string;
  /** Given to the channel's snapshot as it is. */
  query?: Record<string, unknown>;
  /** The position to resume from. */
  recover?: { epoch: string; offset: number };
  /** Tells of the members too. */
  presence?: boolean;
  /** What the client's own member is to have as data, where the channel takes it: at most 1,024 bytes of JSON. */
  data?: unknown;
}

/** Ends subscriptions: the one with this `uid`, those of a channel, or all. */
export interface UnsubscribeMessage {
  /** Subscriptions end. */
  type: "unsubscribe";
  /** Only the subscription with this `uid`. */
  uid?: MessageUid;
  /** Only those of this channel. */
  channel?: string;
}

/** Publishes to a channel. */
export interface PublishMessage {
  /** A publication. */
  type: "publish";
  /** Where to. */
  channel: string;
  /** What happened: 1 to 64 characters. */
  event: string;
  /** What is published. @default null */
  data?: unknown;
  /** Echoed in the answer. */
  uid?: MessageUid;
}

/** What a subscription sends: `init` first, then an event for each publication, and `unsubscribe` when it ended. */
export interface SubscriptionMessage {
  /** Something of a subscription, whatever the event. */
  type: "subscription";
  /** `init`, `unsubscribe`, or the event of the publication. */
  event: string;
  /** The channel it is of. */
  channel?: string;
  /** The snapshot at `init`, later what was published. */
  data?: unknown;
  /** The `uid` of the subscription. */
  uid?: MessageUid;
  /** Which history the offset counts in. */
  epoch?: string;
  /** The place of the publication in the history. */
  offset?: number;
  /** At `init`: whether all that was missed follows, without a gap. */
  recovered?: boolean;
  /** At `unsubscribe` by the server: the error code that says why. */
  reason?: string;
}

/** What a subscription with `presence` is told of the members of its channel. */
export interface PresenceMessage {
  /** Something of the members. */
  type: "presence";
  /** `init` lists all; then who comes, or has other data, and who leaves. */
  event: "init" | "join" | "leave";
  /** The channel they are members of. */
  channel: string;
  /** Whom it is about. */
  members: { user: string; data?: unknown }[];
  /** The `uid` of the subscription. */
  uid?: MessageUid;
}

// Echoed in every answer, so its size is ours to bound. One check and no union: for a number that makes the issue of a string first, at
// 0.8 µs a message.
const uid: v.GenericSchema<MessageUid> = v.custom<MessageUid>(isUid);

/** The `uid` of a message: a string of at most 64 characters or a number from -(2^53 - 1) to 2^53 - 1. */
export const MessageUidSchema: v.GenericSchema<MessageUid> = uid;

const envelope = { type: v.pipe(v.string(), v.minLength(1), v.maxLength(64)), uid: v.optional(uid) };

/** The envelope every message has: a `type` of 1 to 64 characters, perhaps a `uid`. */
export const WebSocketMessageSchema: v.GenericSchema<WebSocketMessage> = v.looseObject(envelope) as v.GenericSchema<
  WebSocketMessage
>; // An absent `uid` stays absent; valibot's type says it may be `undefined`.

/** What {@link decode} asks of an object: the same in one check, for the loose object copies what it does not know, and asks part by part. */
const EnvelopeSchema = v.custom<WebSocketMessage>((value) => {
  const { type, uid } = value as Record<string, unknown>; // An object, as decode has seen.
  return typeof type === "string" && type !== "" && type.length <= 64 && (uid === undefined || isUid(uid));
});

/** What the name of a channel is made of. No `*`, `>`, `?` or space: a broker would read them as patterns. */
export const CHANNEL_NAME: RegExp = /^[A-Za-z0-9_\-.:/@=+~]{1,255}$/;

const channel = v.pipe(v.string(), v.maxLength(255), v.regex(CHANNEL_NAME));

/** Names that are the protocol's own and no event of a publication. */
export const RESERVED_EVENTS: ReadonlySet<string> = new Set(["init", "unsubscribe", "join", "leave"]);

const event = v.pipe(v.string(), v.minLength(1), v.maxLength(64));
// A JWT of 8 KiB is past every proxy's header limit already; longer tokens are refused unread.
const token = v.pipe(v.string(), v.minLength(1), v.maxLength(8192));

/** An `auth` message, in its three forms. */
export const AuthMessageSchema: v.GenericSchema<AuthMessage> = v.union([
  v.object({ type: v.literal("auth"), uid: v.optional(uid), access_token: token }),
  v.object({ type: v.literal("auth"), uid: v.optional(uid), refresh_token: token }),
  v.object({
    type: v.literal("auth"),
    uid: v.optional(uid),
    email: v.pipe(v.string(), v.minLength(1), v.maxLength(320)),
    password: v.pipe(v.string(), v.maxLength(1024)),
    otp: v.optional(v.pipe(v.string(), v.maxLength(64))),
  }),
]) as v.GenericSchema<AuthMessage>; // As above: optional fields that are absent stay absent.

/** A `ping` message. */
export const PingMessageSchema: v.GenericSchema<PingMessage> = v.object({
  type: v.literal("ping"),
  uid: v.optional(uid),
  limits: v.optional(v.boolean()),
}) as v.GenericSchema<PingMessage>; // As above.

/** The message with its `collection`, the word of the Directus SDK, read as `channel`. */
const withChannel = (schema: v.GenericSchema) =>
  v.pipe(
    v.looseObject({}),
    // Of two names the one that is not read could be the one that is meant.
    v.check(({ channel, collection }) => channel === undefined || collection === undefined || channel === collection),
    v.transform((message): unknown =>
      message.channel === undefined && message.collection !== undefined ? { ...message, channel: message.collection } : message
    ),
    schema,
  );

/**
 * Fields with which Directus, or a query that has slipped out of `query`, asks for less than a whole channel. Ignored like other unknown
 * fields they would let more be sent than was asked for.
 */
const NARROWING =
  "item items ids keys events filter fields sort search limit offset page deep alias aggregate group groupBy version";

/** A `subscribe` message; its `collection` is read as `channel`. */
export const SubscribeMessageSchema: v.GenericSchema<unknown, SubscribeMessage> = withChannel(v.object({
  ...Object.fromEntries(NARROWING.split(" ").map((name) => [name, v.optional(v.never())])),
  type: v.literal("subscribe"),
  channel,
  collection: v.optional(channel),
  uid: v.optional(uid),
  event: v.optional(event),
  // valibot's record() accepts an array.
  query: v.optional(v.custom((value) => typeof value === "object" && value !== null && !Array.isArray(value))),
  recover: v.optional(v.object({
    epoch: v.pipe(v.string(), v.maxLength(64)),
    offset: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  })),
  presence: v.optional(v.boolean()),
  data: v.optional(v.unknown()),
})) as v.GenericSchema<unknown, SubscribeMessage>; // As above.

/** A `publish` message. */
export const PublishMessageSchema: v.GenericSchema<PublishMessage> = v.object({
  type: v.literal("publish"),
  channel,
  event: v.pipe(event, v.check((name) => !RESERVED_EVENTS.has(name))),
  data: v.optional(v.unknown()),
  uid: v.optional(uid),
}) as v.GenericSchema<PublishMessage>; // As above.

/** An `unsubscribe` message; its `collection` is read as `channel`. */
export const UnsubscribeMessageSchema: v.GenericSchema<unknown, UnsubscribeMessage> = withChannel(v.object({
  type: v.literal("unsubscribe"),
  uid: v.optional(uid),
  channel: v.optional(channel),
})) as v.GenericSchema<unknown, UnsubscribeMessage>; // As above.

/** How input is checked: up to its first fault. valibot's issues repeat what came, and can grow 3,000-fold. One object for all messages. */
export const FIRST_ISSUE = { abortEarly: true, abortPipeEarly: true } as const;

/** The levels of nesting a message may have; deeper ones are `INVALID_PAYLOAD`. */
export const MAX_DEPTH = 32;

/** A frame that was read, or the error that answers it. */
export type Decoded = { ok: true; message: WebSocketMessage } | { ok: false; error: WebSocketError };

const invalid = (reason: string, uid?: MessageUid): Decoded => ({
  ok: false,
  error: new WebSocketError("server", "INVALID_PAYLOAD", reason, uid === undefined ? {} : { uid }),
});

/** Reads the text of a frame as one message; `null` is a frame that was no text. Bad input is a value, not an exception. */
export function decode(text: string | null): Decoded {
  if (text === null) return invalid("Binary that is not UTF-8 text");
  // JSON.parse takes millions of levels, but 100,000 block Bun for 1.3 s and JSON.stringify throws on 10,000.
  if (mayBeDeeper(text, MAX_DEPTH) && isDeeper(text, MAX_DEPTH)) return invalid(`Nested deeper than ${MAX_DEPTH} levels`);
  let value: unknown;
  try {
    value = text.includes("__proto__") || text.includes("\\u") ? JSON.parse(text, withoutProto) : JSON.parse(text);
  } catch {
    // The parser's own words quote the input, so they stay here; the frame itself is what was wrong.
    return invalid("Not JSON");
  }
  // valibot's object() accepts an array.
  if (typeof value !== "object" || value === null || Array.isArray(value)) return invalid("Not an object");
  // The value that was parsed is handed on, not valibot's output: that is a copy without keys such as `constructor`.
  if (v.is(EnvelopeSchema, value)) return { ok: true, message: value };
  const { type, uid } = value as Record<string, unknown>;
  if (uid !== undefined && !v.is(MessageUidSchema, uid)) {
    return invalid("`uid` must be a string of at most 64 characters or a number from -(2^53 - 1) to 2^53 - 1");
  }
  return invalid(
    type === undefined ? "`type` is missing" : "`type` must be a string of 1 to 64 characters",
    uid as MessageUid | undefined,
  );
}

// JSON.parse makes `__proto__` an own key, which Object.assign in an application turns into a prototype.
const withoutProto = (key: string, value: unknown): unknown => key === "__proto__" ? undefined : value;

/** Whether there are brackets enough, which a search finds 10 times sooner than a loop over the characters. */
function mayBeDeeper(text: string, limit: number): boolean {
  let count = 0;
  for (const bracket of ["{", "["]) {
    for (let at = text.indexOf(bracket); at >= 0; at = text.indexOf(bracket, at + 1)) if (++count > limit) return true;
  }
  return false;
}

function isDeeper(text: string, limit: number): boolean {
  let depth = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (quoted) {
      if (char === 0x5c /* \ */) i++;
      else if (char === 0x22 /* " */) quoted = false;
    } else if (char === 0x22) quoted = true;
    else if (char === 0x5b /* [ */ || char === 0x7b /* { */) {
      if (++depth > limit) return true;
    } else if (char === 0x5d /* ] */ || char === 0x7d /* } */) depth--;
  }
  return false;
}

/**
 * A message as the text of a frame. A string goes out as it is, with a lone surrogate replaced: workerd sends those as
 * invalid UTF-8, and the peer then has to fail the connection.
 *
 * @throws {TypeError} for what JSON cannot hold: a cycle, a BigInt, or a value that `toJSON` makes `undefined`.
 */
export function encode(message: string | WebSocketMessage | ErrorMessage): string {
  if (typeof message === "string") return message.toWellFormed();
  const text: string | undefined = typeof message === "object" && message !== null && !Array.isArray(message)
    // An array would be read as several messages.
    ? JSON.stringify(message)
    : undefined;
  if (text === undefined) throw new TypeError("Cannot send the message: pass a string or an object that JSON can hold");
  return text;
}

/**
 * Data as JSON text, `undefined` as `null`. `undefined` for what JSON leaves out, such as a function.
 *
 * @throws what JSON.stringify throws: for a cycle, a BigInt, and what a `toJSON` throws.
 */
export const jsonOf = (data: unknown): string | undefined => data === undefined ? "null" : JSON.stringify(data);

/** Where in the payload the first issue is, as `items.0.text`; at most 64 characters, so that no input is sent back. */
export function issuePath(issue: v.BaseIssue<unknown>): string {
  return (v.getDotPath(issue) ?? "").slice(0, 64);
}
