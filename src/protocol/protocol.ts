/** The wire protocol (PROTOCOL.md): messages with their schemas and JSON codec, frames, errors and close codes. */
import { isTooDeep, MAX_DEPTH } from "./depth.ts";
import * as v from "valibot";
import { type ErrorMessage, isUid, type MessageUid, WebSocketError } from "./errors.ts";

/**
 * Documented by valibot: `deno doc --lint` treats it as a type of this package.
 *
 * @internal
 */
type Schema<Input = unknown, Output = Input> = v.GenericSchema<Input, Output>;

/** Any message of the protocol: an object with a `type`, which defines the other fields. */
export interface WebSocketMessage {
  /** The message type: 1 to 64 characters. */
  type: string;
  /** Chosen by the sender and echoed in the answer. */
  uid?: MessageUid;
  /** Fields of the type. */
  [field: string]: unknown;
}

/** Authenticates the client, with one of three kinds of credentials. */
export type AuthMessage =
  & { type: "auth"; uid?: MessageUid }
  & (
    | { access_token: string }
    | { refresh_token: string }
    | { email: string; password: string; otp?: string }
  );

/** The state of a token bucket, which limits what a client sends. */
export interface AnnouncedBucket {
  /** Refill per second. */
  rate: number;
  /** Capacity. */
  burst: number;
  /** Tokens left now; below 0 after an `auth` that cost more than there were. */
  left: number;
}

/** The limits of a server for one client. */
export interface AnnouncedLimits {
  /** Maximum size of a message, in UTF-8 bytes. */
  payload: number;
  /** Messages that may queue behind an earlier one, with at most `payload` bytes together. */
  waiting: number;
  /** Maximum subscriptions; absent: no limit. */
  subscriptions?: number;
  /** The rate limit of messages; absent: no limit. */
  messages?: AnnouncedBucket;
  /** The rate limit of bytes; absent: no limit. */
  bytes?: AnnouncedBucket;
}

/** The answer to a successful {@link AuthMessage}. */
export interface AuthOkMessage {
  /** As in the request. */
  type: "auth";
  /** The request succeeded. */
  status: "ok";
  /** The request's `uid`, if it had one. */
  uid?: MessageUid;
  /** A rotated refresh token, if `authenticate` returned one. */
  refresh_token?: string;
  /** The limits of the server, for a client of `noroshi.v1`. */
  limits?: AnnouncedLimits;
}

/** Asks the other side for a {@link PongMessage}. */
export interface PingMessage {
  /** The controller answers it; handlers never receive it. */
  type: "ping";
  /** Echoed in the answer. */
  uid?: MessageUid;
  /** Also requests the limits of the server. */
  limits?: boolean;
}

/** The answer to a {@link PingMessage}, with its `uid`. */
export interface PongMessage {
  /** Answers a ping; handlers never receive it. */
  type: "pong";
  /** The `uid` of the ping, if it had one. */
  uid?: MessageUid;
  /** The limits of the server, if the ping requested them. */
  limits?: AnnouncedLimits;
}

/** The answer of a handler: the request's type and `uid`, and the handler's result. */
export interface ReplyMessage {
  /** As in the request. */
  type: string;
  /** The request succeeded. */
  status: "ok";
  /** The request's `uid`, if it had one. */
  uid?: MessageUid;
  /** The handler's result; absent if it is `undefined`. */
  data?: unknown;
}

/** Subscribes to a channel. */
export interface SubscribeMessage {
  /** Starts a subscription. */
  type: "subscribe";
  /** The channel. The schema also accepts `collection`, as the Directus SDK calls it. */
  channel: string;
  /** The channel, if the client sent it as `collection`. */
  collection?: string;
  /** Identifies the subscription; subscribing again with the same one replaces it. */
  uid?: MessageUid;
  /** Only publications of this event. */
  event?: string;
  /** Passed unchanged to the channel's snapshot. */
  query?: Record<string, unknown>;
  /** The position to recover from. */
  recover?: { epoch: string; offset: number };
  /** Also receives the members of the channel, and their joins and leaves. */
  presence?: boolean;
  /** Data of the client's own member, if the channel accepts it: at most 1,024 bytes of JSON. */
  data?: unknown;
}

/** Ends subscriptions: the one with this `uid`, those of a channel, or all. */
export interface UnsubscribeMessage {
  /** Ends subscriptions. */
  type: "unsubscribe";
  /** Only the subscription with this `uid`. */
  uid?: MessageUid;
  /** Only the subscriptions to this channel. */
  channel?: string;
}

/** Publishes to a channel. */
export interface PublishMessage {
  /** Publishes an event. */
  type: "publish";
  /** The channel. */
  channel: string;
  /** The event name: 1 to 64 characters. */
  event: string;
  /** The data of the event. @default {null} */
  data?: unknown;
  /** Publishes at most once: a repeat of the same user within five minutes is answered with the same position. */
  id?: string;
  /** Echoed in the answer. */
  uid?: MessageUid;
}

/** A message of a subscription: `init` first, then an event for each publication, and `unsubscribe` at the end. */
export interface SubscriptionMessage {
  /** The same for every event. */
  type: "subscription";
  /** `init`, `unsubscribe`, or the event of the publication. */
  event: string;
  /** The channel. */
  channel?: string;
  /** At `init` the snapshot, later the data of the publication. */
  data?: unknown;
  /** The `uid` of the subscription. */
  uid?: MessageUid;
  /** The epoch of the history that the offset belongs to. */
  epoch?: string;
  /** The offset of the publication in the history. */
  offset?: number;
  /** At `init`: whether all missed publications follow, without a gap. */
  recovered?: boolean;
  /** At `unsubscribe` by the server: an error code. */
  reason?: string;
}

/** A presence message, for a subscription with `presence`. */
export interface PresenceMessage {
  /** The same for every event. */
  type: "presence";
  /** `init` lists all members; `join` reports new members and changed data, `leave` members that left. */
  event: "init" | "join" | "leave";
  /** The channel. */
  channel: string;
  /** The members that the event is about. */
  members: { user: string; data?: unknown }[];
  /** The `uid` of the subscription. */
  uid?: MessageUid;
}

// Bounded, because every answer echoes it. One check and not a union, which takes 0.8 µs for a number: it first creates an issue
// for the string.
const uid: Schema<MessageUid> = v.custom<MessageUid>(isUid);

/** The `uid` of a message: a string of at most 64 characters or a number from -(2^53 - 1) to 2^53 - 1. */
export const MessageUidSchema: Schema<MessageUid> = uid;

const envelope = { type: v.pipe(v.string(), v.minLength(1), v.maxLength(64)), uid: v.optional(uid) };

/** The envelope of every message: a `type` of 1 to 64 characters, and optionally a `uid`. */
export const WebSocketMessageSchema: Schema<WebSocketMessage> = v.looseObject(envelope) as Schema<
  WebSocketMessage
>; // An absent `uid` stays absent, but valibot's type allows `undefined`.

/** The same check for {@link decode}, in one step and without the copy that `looseObject` makes. */
const EnvelopeSchema = v.custom<WebSocketMessage>((value) => {
  const { type, uid } = value as Record<string, unknown>; // `decode` passes only objects.
  return typeof type === "string" && type !== "" && type.length <= 64 && (uid === undefined || isUid(uid));
});

/**
 * The syntax of a channel name: without `*`, `>`, `?` and space, which brokers interpret as patterns, and not `__proto__`, a key
 * that {@link decode} drops.
 */
export const CHANNEL_NAME: RegExp = /^(?!__proto__$)[A-Za-z0-9_\-.:/@=+~]{1,255}$/;

// `__proto__` is valid here, so that the answer is FORBIDDEN, as for any name that is not declared.
const channel = v.pipe(v.string(), v.maxLength(255), v.check((name) => name === "__proto__" || CHANNEL_NAME.test(name)));

/** Event names of the protocol itself, which a publication must not use. */
export const RESERVED_EVENTS: ReadonlySet<string> = new Set(["init", "unsubscribe", "join", "leave"]);

const event = v.pipe(v.string(), v.minLength(1), v.maxLength(64));
// Longer tokens are refused without verifying them. 8 KiB already exceeds the header limit of every proxy.
const token = v.pipe(v.string(), v.minLength(1), v.maxLength(8192));

/** An `auth` message, in its three forms. */
export const AuthMessageSchema: Schema<AuthMessage> = v.union([
  v.object({ type: v.literal("auth"), uid: v.optional(uid), access_token: token }),
  v.object({ type: v.literal("auth"), uid: v.optional(uid), refresh_token: token }),
  v.object({
    type: v.literal("auth"),
    uid: v.optional(uid),
    email: v.pipe(v.string(), v.minLength(1), v.maxLength(320)),
    password: v.pipe(v.string(), v.maxLength(1024)),
    otp: v.optional(v.pipe(v.string(), v.maxLength(64))),
  }),
]) as Schema<AuthMessage>; // As for WebSocketMessageSchema.

/** A `ping` message. */
export const PingMessageSchema: Schema<PingMessage> = v.object({
  type: v.literal("ping"),
  uid: v.optional(uid),
  limits: v.optional(v.boolean()),
}) as Schema<PingMessage>; // As for WebSocketMessageSchema.

/** Accepts `collection`, as the Directus SDK calls it, in place of `channel`. */
const withChannel = (schema: Schema) =>
  v.pipe(
    v.looseObject({}),
    // Two different names are ambiguous.
    v.check(({ channel, collection }) => channel === undefined || collection === undefined || channel === collection),
    v.transform((message): unknown =>
      message.channel === undefined && message.collection !== undefined ? { ...message, channel: message.collection } : message
    ),
    schema,
  );

/**
 * Fields that narrow a subscription in Directus, or belong inside `query`. They are refused: ignored like other unknown fields,
 * the client would receive more than it asked for.
 */
const NARROWING =
  "item items ids keys events filter fields sort search limit offset page deep alias aggregate group groupBy version";

/** A `subscribe` message; its `collection` is read as `channel`. */
export const SubscribeMessageSchema: Schema<unknown, SubscribeMessage> = withChannel(v.object({
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
})) as Schema<unknown, SubscribeMessage>; // As for WebSocketMessageSchema.

/** Maximum length of the id of a publication, in characters. */
export const MAX_ID_LENGTH = 64;

/** A `publish` message. */
export const PublishMessageSchema: Schema<PublishMessage> = v.object({
  type: v.literal("publish"),
  channel,
  event: v.pipe(event, v.check((name) => !RESERVED_EVENTS.has(name))),
  data: v.optional(v.unknown()),
  id: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(MAX_ID_LENGTH))),
  uid: v.optional(uid),
}) as Schema<PublishMessage>; // As for WebSocketMessageSchema.

/** An `unsubscribe` message; its `collection` is read as `channel`. */
export const UnsubscribeMessageSchema: Schema<unknown, UnsubscribeMessage> = withChannel(v.object({
  type: v.literal("unsubscribe"),
  uid: v.optional(uid),
  channel: v.optional(channel),
})) as Schema<unknown, UnsubscribeMessage>; // As for WebSocketMessageSchema.

/** Stops validation at the first issue: valibot's issues quote the input and can be 3,000 times as large. */
export const FIRST_ISSUE = { abortEarly: true } as const;

/** A decoded message, or the error to answer with. */
export type Decoded = { ok: true; message: WebSocketMessage } | { ok: false; error: WebSocketError };

const invalid = (reason: string, uid?: MessageUid): Decoded => ({
  ok: false,
  error: new WebSocketError("server", "INVALID_PAYLOAD", reason, uid === undefined ? {} : { uid }),
});

/** Decodes the text of a frame; `null`: a binary frame that is not UTF-8. Invalid input returns an error and never throws. */
export function decode(text: string | null): Decoded {
  if (text === null) return invalid("Binary that is not UTF-8 text");
  if (isTooDeep(text)) return invalid(`Nested deeper than ${MAX_DEPTH} levels`);
  let value: unknown;
  try {
    value = text.includes("__proto__") || text.includes("\\u") ? JSON.parse(text, withoutProto) : JSON.parse(text);
  } catch {
    // The parser's message quotes the input, so it is not sent.
    return invalid("Not JSON");
  }
  // valibot's object() accepts an array.
  if (typeof value !== "object" || value === null || Array.isArray(value)) return invalid("Not an object");
  // The parsed value itself, not valibot's output, which is a copy without keys such as `constructor`.
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

// JSON.parse creates an own key `__proto__`; Object.assign in an application would then set the prototype.
const withoutProto = (key: string, value: unknown): unknown => key === "__proto__" ? undefined : value;

const NO_TYPE = 'Cannot send the message: it has no type, write { type: "news", … }';

/**
 * Encodes a message as the text of a frame. A string is sent unchanged except for lone surrogates, which are replaced: workerd
 * sends them as invalid UTF-8, on which the peer must fail the connection (RFC 6455 §8.1).
 *
 * @throws {TypeError} for a message that JSON cannot represent: a cycle, a BigInt, or a `toJSON` that returns `undefined`.
 */
export function encode(message: string | WebSocketMessage | ErrorMessage): string {
  if (typeof message === "string") return message.toWellFormed();
  const text: string | undefined = typeof message === "object" && message !== null && !Array.isArray(message)
    // A client would read an array as a batch of messages.
    ? JSON.stringify(message)
    : undefined;
  if (text === undefined) throw new TypeError("Cannot send the message: pass a string or an object that JSON can hold");
  if (typeof (message as WebSocketMessage).type !== "string") throw new TypeError(NO_TYPE); // An object, as checked above.
  return text;
}

/**
 * Encodes data as JSON text, `undefined` as `null`. Returns `undefined` for a value that JSON omits, such as a function.
 *
 * @throws {TypeError} for a cycle or a BigInt, and any error of a `toJSON`.
 */
export const jsonOf = (data: unknown): string | undefined => data === undefined ? "null" : JSON.stringify(data);

/** The part of an issue that may be shown: its path (https://standardschema.dev), whose parts are keys or objects with a key. */
export interface Issue {
  readonly path?: readonly (PropertyKey | { readonly key: unknown })[] | undefined;
}

/**
 * The path of an issue, such as `items.0.text`, cut to 64 characters, because keys are input of any length.
 */
export function issuePath({ path }: Issue): string {
  // Not `path.map`: the path of ArkType is a class of its own, which `map` would construct.
  const keys = Array.from(path ?? [], (part) => typeof part === "object" ? part.key : part);
  return keys.every((key) => typeof key === "string" || typeof key === "number") ? keys.join(".").slice(0, 64) : "";
}
