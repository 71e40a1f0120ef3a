import { ERROR_MEANINGS } from "../protocol/code-meanings.ts";
import type { AsyncApiMessage } from "./document.ts";
import type { JsonSchema } from "./json-schema.ts";

/** Schemas of PROTOCOL.md, for messages whose valibot schema, if any, has functions that JSON Schema cannot express. */
const UID: JsonSchema = {
  type: ["string", "number"],
  maxLength: 64,
  minimum: Number.MIN_SAFE_INTEGER,
  maximum: Number.MAX_SAFE_INTEGER,
  description: "Chosen by the sender and echoed in the answer, with its JSON type",
  examples: [1],
};
const NAME: JsonSchema = { type: "string", minLength: 1, maxLength: 64 };
const TOKEN: JsonSchema = { type: "string", minLength: 1, maxLength: 8192 };
const EPOCH: JsonSchema = { type: "string", maxLength: 64, description: "The history that the offset belongs to" };
const OFFSET: JsonSchema = { type: "integer", minimum: 0, maximum: Number.MAX_SAFE_INTEGER };
export const OK: JsonSchema = { const: "ok" };
const POSITION: JsonSchema = { type: "object", properties: { epoch: EPOCH, offset: OFFSET }, required: ["epoch", "offset"] };
const BUCKET: JsonSchema = {
  type: "object",
  properties: {
    rate: { type: "number", description: "Refill per second" },
    burst: { type: "number", description: "Capacity" },
    left: { type: "number", description: "Left now" },
  },
  required: ["rate", "burst", "left"],
};
const LIMITS: JsonSchema = {
  type: "object",
  description: "The limits of the server; one that is absent does not apply",
  properties: {
    payload: { type: "number", description: "Maximum size of a message, in bytes of UTF-8" },
    waiting: { type: "number", description: "How many messages may queue behind an earlier one" },
    subscriptions: { type: "number", description: "How many subscriptions a client may have" },
    messages: BUCKET,
    bytes: BUCKET,
  },
  required: ["payload", "waiting"],
};

/** The `uid` of a question and its answer. */
const QUESTION_UID: JsonSchema = { type: "string", pattern: "^ask:", maxLength: 64, examples: ["ask:7f0c"] };

/** The fields of every message; those of a type follow. */
export const envelopeOf = (type: string, isQuestion = false): JsonSchema => ({
  type: "object",
  properties: { type: { const: type }, uid: isQuestion ? QUESTION_UID : UID },
  required: isQuestion ? ["type", "uid"] : ["type"],
});

/** Fields of a message beside `type` and `uid`. A name that ends in `?` may be absent. */
export type Fields = Readonly<Record<string, JsonSchema>>;

/** A message of a type. Its examples are written without the type. */
export function message(type: string, title: string, summary: string, fields: Fields, ...examples: object[]): AsyncApiMessage {
  const names = Object.keys(fields);
  const envelope = envelopeOf(type);
  return describe(type, title, summary, {
    ...envelope,
    properties: {
      ...envelope["properties"] as Fields, // Of the envelope.
      ...Object.fromEntries(names.map((name) => [name.replace("?", ""), fields[name]])),
    },
    required: ["type", ...names.filter((name) => !name.endsWith("?"))],
  }, examples.map((example) => ({ type, ...example })));
}

/** Describes a message by the schema of the whole message. */
export function describe(
  name: string,
  title: string,
  summary: string,
  payload: JsonSchema,
  examples: readonly Record<string, unknown>[] = [],
): AsyncApiMessage {
  return {
    name,
    title,
    summary,
    payload,
    correlationId: { location: "$message.payload#/uid" },
    ...(examples.length > 0 && { examples: examples.map((payload) => ({ payload })) }),
  };
}

/** An error: the answer to any request, or of type `auth` or `server` if it answers none. */
export const error: AsyncApiMessage = describe(
  "error",
  "Error",
  "A request failed, or the server reports something. The connection lives.",
  {
    type: "object",
    properties: {
      type: { ...NAME, description: "That of the request, or `auth` or `server`" },
      uid: UID,
      status: { const: "error" },
      error: {
        type: "object",
        properties: {
          code: {
            type: "string",
            description: "An application may have codes of its own",
            examples: Object.keys(ERROR_MEANINGS),
          },
          message: { type: "string", description: "For people" },
          path: { type: "string", description: "With `INVALID_PAYLOAD`: where the first fault is" },
          retry_after: { type: "number", description: "With `REQUESTS_EXCEEDED`: the ms to wait" },
          count: { type: "number", description: "With `MESSAGES_DROPPED`: how many messages were not sent" },
        },
        required: ["code", "message"],
      },
    },
    required: ["type", "status", "error"],
  },
  [
    { type: "say", uid: 7, status: "error", error: { code: "INVALID_PAYLOAD", message: "Invalid payload", path: "text" } },
    { type: "server", status: "error", error: { code: "REQUESTS_EXCEEDED", message: "Too many messages", retry_after: 250 } },
  ],
);

const TWO_LIMITS = { payload: 65_536, waiting: 64, messages: { rate: 100, burst: 2000, left: 1998 } };

/** Messages of every connection, by their names in the document. */
export const connectionMessages: Readonly<Record<string, AsyncApiMessage>> = {
  auth: withCredentials(message(
    "auth",
    "Credentials",
    "Authenticates the client, as often as its credentials are renewed.",
    {
      "access_token?": TOKEN,
      "refresh_token?": TOKEN,
      "email?": { type: "string", minLength: 1, maxLength: 320 },
      "password?": { type: "string", maxLength: 1024 },
      "otp?": { type: "string", maxLength: 64 },
    },
    { uid: 1, access_token: "eyJhbGciOi…" },
    { email: "mika@example.com", password: "secret" },
  )),
  "auth ok": message(
    "auth",
    "Accepted",
    "The credentials are accepted.",
    { status: OK, "refresh_token?": { type: "string", description: "Replaces the one that was sent" }, "limits?": LIMITS },
    { uid: 1, status: "ok" },
    { status: "ok", limits: TWO_LIMITS },
  ),
  ping: message(
    "ping",
    "Ping",
    "Asks the other side for a pong.",
    { "limits?": { type: "boolean", description: "Asks a server for its limits too" } },
    { uid: 3 },
    { uid: 4, limits: true },
  ),
  pong: message(
    "pong",
    "Pong",
    "Answers a ping.",
    {
      "limits?": LIMITS,
      "channels?": {
        type: "object",
        description: "By channel with a history: the position up to which everything was sent",
        additionalProperties: POSITION,
      },
    },
    { uid: 3 },
    { uid: 4, channels: { "room:1": { epoch: "k3", offset: 43 } } },
  ),
  error,
  question: questionMessage("Question", "The server asks an admitted client. The type is one of the application.", {}, [
    { type: "confirm", uid: "ask:7f0c", text: "Delete it?" },
  ]),
  answer: questionMessage("Answer", "Answers a question, with its type and `uid`.", {
    status: { enum: ["ok", "error"] },
    "data?": {},
    "error?": { type: "object", properties: { code: { type: "string" } }, required: ["code"] },
  }, [{ type: "confirm", uid: "ask:7f0c", status: "ok", data: { yes: true } }]),
};

/** The answer of a client that refuses a question. */
export const refusal: AsyncApiMessage = questionMessage("Refusal", "Refuses a question, with its type and `uid`.", {
  status: { const: "error" },
  error: { type: "object", properties: { code: { type: "string" } }, required: ["code"] },
}, [{ type: "confirm", uid: "ask:7f0c", status: "error", error: { code: "DECLINED" } }]);

/** Messages that end subscriptions to any channel. */
export const unsubscribeMessages: Readonly<Record<string, AsyncApiMessage>> = {
  unsubscribe: message(
    "unsubscribe",
    "Unsubscribe",
    "Ends the subscription with the `uid`, those of the channel, or all.",
    { "channel?": { type: "string", maxLength: 255 } },
    { uid: 1 },
    { channel: "room:1" },
  ),
  unsubscribed: message(
    "subscription",
    "Unsubscribed",
    "Answers `unsubscribe`. Nothing of the ended subscriptions follows.",
    { event: { const: "unsubscribe" }, "channel?": { type: "string" } },
    { uid: 1, event: "unsubscribe" },
  ),
};

/** The schema with a description, unless it has one. Draft-07 ignores what is beside a reference. */
const described = (description: string, schema: JsonSchema): JsonSchema => "$ref" in schema ? schema : { description, ...schema };

/** Schemas of a channel. */
export interface ChannelSchemas {
  /** Its name in a message. */
  readonly channel: JsonSchema;
  readonly snapshot: JsonSchema;
  readonly query: JsonSchema;
  readonly member: JsonSchema;
}

/** Messages of a subscription to a channel, without its publications. */
export function subscriptionMessages({ channel, snapshot, query, member }: ChannelSchemas): Record<string, AsyncApiMessage> {
  const members = (event: string, title: string, summary: string) =>
    message("presence", title, summary, {
      event: { const: event },
      channel,
      members: {
        type: "array",
        items: {
          type: "object",
          properties: { user: { type: "string" }, ...(event !== "leave" && { data: member }) },
          required: ["user"],
        },
      },
    });
  return {
    subscribe: message("subscribe", "Subscribe", "Subscribes, or replaces the subscription with the same `uid`.", {
      channel,
      // The example is of a first subscription to all events.
      "event?": { ...NAME, description: "Only publications of this event, and no snapshot", examples: [] },
      "query?": described("Chooses the snapshot", query),
      "recover?": { ...POSITION, description: "Asks for what was missed since this position", examples: [] },
      "presence?": { type: "boolean", description: "Also asks for the members" },
      "data?": described("Data of the client's own member: at most 1,024 bytes", member),
    }),
    init: message("subscription", "Subscribed", "Starts a subscription, or starts it anew after a loss.", {
      event: { const: "init" },
      channel,
      "data?": described("The snapshot", snapshot),
      "epoch?": EPOCH,
      "offset?": { ...OFFSET, description: "Publications follow after this position" },
      "recovered?": { type: "boolean", description: "Whether all missed publications follow, without a gap", examples: [false] },
    }),
    end: message("subscription", "Ended", "The server ended the subscription.", {
      event: { const: "unsubscribe" },
      channel,
      "reason?": { type: "string", description: "The error code that a new subscribe would meet", examples: ["FORBIDDEN"] },
    }),
    "presence init": members("init", "Members", "All members, after the start of a subscription with presence."),
    "presence join": members("join", "Joined", "New members, and members with new data."),
    "presence leave": members("leave", "Left", "Members that left."),
  };
}

/** Schemas of an event. */
export interface EventSchemas {
  /** `undefined`: any event, in a contract that names none. */
  readonly event: string | undefined;
  /** What a client publishes. */
  readonly input: JsonSchema;
  /** What subscribers receive. */
  readonly output: JsonSchema;
}

const eventField = (event: string | undefined): JsonSchema =>
  event === undefined ? { ...NAME, examples: ["said"] } : { const: event };
const labelOf = (event: string | undefined) => event === undefined ? "any event" : `“${event}”`;

/** The publication of an event, as subscribers receive it. */
export const publication = (channel: JsonSchema, { event, output }: EventSchemas): AsyncApiMessage =>
  message("subscription", `Publication of ${labelOf(event)}`, "A publication, in the order of the channel.", {
    event: eventField(event),
    channel,
    data: output,
    "offset?": { ...OFFSET, description: "Its position, in a channel with a history" },
  });

/** The publication of an event, as a client sends it. */
export const publish = (channel: JsonSchema, { event, input }: EventSchemas): AsyncApiMessage =>
  message("publish", `Publish ${labelOf(event)}`, "Publishes, where the client is allowed to.", {
    channel,
    event: eventField(event),
    data: input,
    "id?": { ...NAME, description: "The same id publishes once, and is answered with the same position", examples: [] },
  });

/** The answer to {@link publish}. */
export const published: AsyncApiMessage = message("publish", "Published", "The publication is in the history, if there is one.", {
  status: OK,
  "epoch?": EPOCH,
  "offset?": OFFSET,
}, { uid: 5, status: "ok", epoch: "k3", offset: 44 });

/** A message of any type, with the `uid` of a question. */
function questionMessage(title: string, summary: string, fields: Fields, examples: Record<string, unknown>[]): AsyncApiMessage {
  const { payload, ...rest } = message("question", title, summary, fields);
  const properties = { ...payload["properties"] as Fields, type: NAME, uid: QUESTION_UID };
  const required = ["type", "uid", ...Object.keys(fields).filter((name) => !name.endsWith("?"))];
  return { ...rest, payload: { ...payload, properties, required }, examples: examples.map((payload) => ({ payload })) };
}

function withCredentials(auth: AsyncApiMessage): AsyncApiMessage {
  const kinds = [["access_token"], ["refresh_token"], ["email", "password"]];
  return { ...auth, payload: { ...auth.payload, anyOf: kinds.map((required) => ({ required })) } };
}
