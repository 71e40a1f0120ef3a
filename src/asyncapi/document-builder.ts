import type { ChannelContract, RequestContract } from "../protocol/contract-types.ts";
import { channelAddress, channelField } from "./channel-name.ts";
import type {
  AsyncApiChannel,
  AsyncApiDocument,
  AsyncApiMessage,
  AsyncApiOperation,
  AsyncApiOptions,
  AsyncApiReference,
  OperationOptions,
} from "./document.ts";
import { exampleOf } from "./example.ts";
import {
  acceptsUndefined,
  convert,
  type JsonSchema,
  mapReferences,
  pointerTo,
  resolvePointer,
  type Side,
  withEnvelope,
} from "./json-schema.ts";
import {
  connectionMessages,
  describe,
  envelopeOf,
  error,
  publication,
  publish,
  published,
  refusal,
  subscriptionMessages,
  unsubscribeMessages,
} from "./protocol-messages.ts";
import { ANY } from "./schema-alternatives.ts";
import { STREAM_OPERATIONS, streamInput, streamItem, streamMessages } from "./stream-messages.ts";

/** Key of the connection among the channels: no name of a channel has a space. */
const CONNECTION = "WebSocket connection";

/** Begins the tag of a channel: its name alone may be that of another tag. */
const CHANNEL_TAG = "channel ";

const CONNECTION_TEXT =
  "One WebSocket carries all messages: JSON objects with a `type`, one a text frame. A client that offers the subprotocol " +
  "`noroshi.v1` also receives arrays of messages. A request with a `uid` is answered with that `uid`.";

/** The record with each value mapped. */
export function mapValues<Value>(values: Readonly<Record<string, Value>>, map: (value: Value) => Value): Record<string, Value> {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, map(value)]));
}

/** Collects the channels, operations and schemas of an AsyncAPI document. */
export class DocumentBuilder {
  readonly #channels: Record<string, AsyncApiChannel> = Object.create(null); // `__proto__` is a name of a channel.
  readonly operations: Record<string, AsyncApiOperation> = {};
  readonly schemas: Record<string, JsonSchema> = {};
  readonly #toJsonSchema: AsyncApiOptions["toJsonSchema"];
  readonly #resolve = (reference: string): unknown => resolvePointer({ components: { schemas: this.schemas } }, reference);
  readonly #messages: Record<string, AsyncApiMessage> = { ...connectionMessages };

  constructor(toJsonSchema: AsyncApiOptions["toJsonSchema"]) {
    this.#toJsonSchema = toJsonSchema;
  }

  /** The channels; a message without examples is given one, if one can be made from its schema. */
  listChannels(): AsyncApiDocument["channels"] {
    const complete = (message: AsyncApiMessage): AsyncApiMessage => {
      const example = message.examples ? undefined : exampleOf(message.payload, this.#resolve);
      // Of a schema of an object.
      return example ? { ...message, examples: [{ payload: example.value as Record<string, unknown> }] } : message;
    };
    return mapValues(this.#channels, (channel) => ({ ...channel, messages: mapValues(channel.messages, complete) }));
  }

  addConnection(hasChannels: boolean): void {
    this.#channels[CONNECTION] = {
      address: null,
      title: "The connection",
      description: CONNECTION_TEXT,
      messages: this.#messages,
      bindings: {
        ws: {
          method: "GET",
          query: {
            type: "object",
            properties: {
              access_token: { type: "string", description: "A token, for clients that cannot send it in a header or in `auth`" },
            },
          },
          bindingVersion: "0.1.0",
        },
      },
    };
    const tag = "protocol";
    const add = (key: string, options: Omit<OperationOptions, "tag">) => this.#addOperation(key, CONNECTION, { tag, ...options });
    add("auth", {
      action: "receive",
      title: "Authenticate",
      summary: "Authenticates the client, or renews its credentials.",
      messages: ["auth"],
      reply: ["auth ok", "error"],
    });
    const ping = "Asks whether the other side is alive.";
    add("ping", { action: "receive", title: "Ping of a client", summary: ping, messages: ["ping"], reply: ["pong", "error"] });
    add("ping of the server", {
      action: "send",
      title: "Ping of the server",
      summary: ping,
      messages: ["ping"],
      reply: ["pong"],
    });
    add("error", {
      action: "send",
      title: "Report an error",
      summary: "Reports expired credentials, too many messages or dropped messages.",
      messages: ["error"],
    });
    add("question", {
      action: "send",
      title: "Ask a client",
      summary: "Asks a client, which may answer.",
      messages: ["question"],
      reply: ["answer"],
    });
    if (!hasChannels) return;
    Object.assign(this.#messages, unsubscribeMessages);
    add("unsubscribe", {
      action: "receive",
      title: "Unsubscribe",
      summary: "Ends subscriptions to channels.",
      messages: ["unsubscribe"],
      reply: ["unsubscribed", "error"],
    });
  }

  addStreams(): void {
    Object.assign(this.#messages, streamMessages);
    for (const [key, title, ...replies] of STREAM_OPERATIONS) {
      const { summary } = streamMessages[key]!; // One of its keys.
      const reply = replies.length > 0 && { reply: [...replies, "error"] };
      this.#addOperation(key, CONNECTION, { tag: "protocol", action: "receive", title, summary, messages: [key], ...reply });
    }
  }

  addRequest(type: string, request: RequestContract): void {
    const input = request.stream?.input;
    const stream = input && !request.stream?.output ? undefined : request.stream; // Input alone has no items.
    const item = `item ${type}`;
    if (stream) this.#messages[item] = streamItem(type, this.#convertIfAny(stream.output, "input", `request ${type} item`));
    const [asked, answered] = this.#addExchange(type, request, ["request", "reply", "The request succeeded."]);
    this.#addOperation(asked, CONNECTION, {
      action: "receive",
      title: type,
      summary: `Handles “${type}”.`,
      tag: "requests",
      messages: [asked],
      reply: [...stream ? [item] : [], answered, "error"],
    });
    if (!input) return;
    const sent = `input ${type}`;
    this.#messages[sent] = streamInput(type, this.#convert(input, "input", sent));
    this.#addOperation(sent, CONNECTION, {
      action: "receive",
      title: `Input of ${type}`,
      summary: `Takes an item of the input of “${type}”.`,
      tag: "requests",
      messages: [sent],
      reply: ["granted", "enough", "error"],
    });
  }

  addQuestion(type: string, question: RequestContract): void {
    const [asked, answered] = this.#addExchange(type, question, ["question", "answer", "The client answered."]);
    this.#messages["refusal"] = refusal;
    this.#addOperation(asked, CONNECTION, {
      action: "send",
      title: type,
      summary: `Asks a client “${type}”.`,
      tag: "questions",
      messages: [asked],
      reply: [answered, "refusal"],
    });
  }

  /** Adds what is asked and what answers it, and returns their names. */
  #addExchange(
    type: string,
    { payload, reply }: RequestContract,
    [ask, answer, summary]: [ask: "request" | "question", answer: string, summary: string],
  ): [asked: string, answered: string] {
    const [asked, answered] = [`${ask} ${type}`, `${answer} ${type}`] as const;
    const envelope = envelopeOf(type, ask === "question");
    const schema = payload === undefined
      ? envelope
      : withEnvelope(this.#convert(payload, "input", `${asked} payload`), envelope, this.#resolve);
    const title = (word: string) => `${word.charAt(0).toUpperCase()}${word.slice(1)}`;
    const text = payload === undefined ? `A ${ask} without a payload.` : `A ${ask} with its payload.`;
    this.#messages[asked] = describe(type, `${title(ask)} “${type}”`, text, schema);
    const isRequired = reply !== undefined && !acceptsUndefined(reply);
    this.#messages[answered] = describe(type, `${title(answer)} to “${type}”`, summary, {
      ...envelope,
      properties: {
        ...envelope["properties"] as JsonSchema, // Of the envelope.
        status: { const: "ok" },
        data: this.#convertIfAny(reply, "input", `${asked} reply`),
      },
      required: [...envelope["required"] as string[], "status", ...isRequired ? ["data"] : []],
    });
    return [asked, answered];
  }

  addMessage(type: string, schema: unknown): void {
    const name = `message ${type}`;
    this.#messages[name] = describe(
      type,
      `Message “${type}”`,
      "A message that the server sends on its own.",
      withEnvelope(this.#convert(schema, "input", name), envelopeOf(type), this.#resolve),
    );
    const summary = `Sends “${type}”, to some clients or to all.`;
    this.#addOperation(name, CONNECTION, { action: "send", title: type, summary, tag: "messages", messages: [name] });
  }

  addChannel(name: string, { events, snapshot, query, member }: ChannelContract): void {
    const field = channelField(name);
    const schemas = Object.entries(events ?? {}).map(([event, schema]) => ({
      event,
      input: this.#convert(schema, "input", `publish ${name} ${event}`),
      output: this.#convert(schema, "output", `publication ${name} ${event}`),
    }));
    // Events that the contract does not name have any name and data.
    const all = events ? schemas : [{ event: undefined, input: ANY, output: ANY }];
    const sent = all.map((each) => [`publish ${each.event ?? "any"}`, publish(field, each)] as const);
    const received = all.map((each) => [`publication ${each.event ?? "any"}`, publication(field, each)] as const);
    const subscription = subscriptionMessages({
      channel: field,
      snapshot: this.#convertIfAny(snapshot, "input", `snapshot ${name}`),
      query: query === undefined ? { type: "object" } : this.#convert(query, "input", `query ${name}`),
      member: this.#convertIfAny(member, "input", `member ${name}`),
    });
    this.#channels[name] = {
      ...channelAddress(name),
      title: name,
      description: "Its messages travel on the one connection, and name it in `channel`.",
      messages: {
        ...subscription,
        ...Object.fromEntries([...sent, ...received]),
        published,
        error,
      },
    };
    const tag = CHANNEL_TAG + name;
    this.#addOperation(`subscribe ${name}`, name, {
      action: "receive",
      title: `Subscribe to ${name}`,
      summary: "Starts a subscription, or recovers one.",
      tag,
      messages: ["subscribe"],
      reply: ["init", "error"],
    });
    this.#addOperation(`publications ${name}`, name, {
      action: "send",
      title: `Publications of ${name}`,
      summary: "Sends publications to subscribers, until the subscription ends.",
      tag,
      messages: [...received.map(([key]) => key), "end"],
    });
    if (sent.length > 0) {
      this.#addOperation(`publish ${name}`, name, {
        action: "receive",
        title: `Publish to ${name}`,
        summary: "Publishes what a client sends, where it is allowed to.",
        tag,
        messages: sent.map(([key]) => key),
        reply: ["published", "error"],
      });
    }
    this.#addOperation(`presence ${name}`, name, {
      action: "send",
      title: `Presence in ${name}`,
      summary: "Sends the members and their changes to subscribers with presence, in a channel that has it.",
      tag,
      messages: ["presence init", "presence join", "presence leave"],
    });
  }

  #addOperation(key: string, channel: string, { action, title, summary, tag, messages, reply }: OperationOptions): void {
    const refer = (names: readonly string[]): AsyncApiReference[] =>
      names.map((name) => ({ $ref: pointerTo("channels", channel, "messages", name) }));
    const reference = { $ref: pointerTo("channels", channel) };
    this.operations[key] = {
      action,
      channel: reference,
      title,
      summary,
      tags: [{ name: tag }],
      messages: refer(messages),
      ...(reply && { reply: { channel: reference, messages: refer(reply) } }),
    };
  }

  #convertIfAny(schema: unknown, side: Side, name: string): JsonSchema {
    return schema === undefined ? ANY : this.#convert(schema, side, name);
  }

  /** The JSON Schema of a part; with references it becomes a component, because they count from the root of the document. */
  #convert(schema: unknown, side: Side, name: string): JsonSchema {
    const converted = convert(schema, side, name, this.#toJsonSchema);
    const key = name.replace(
      /[^A-Za-z0-9-]/g, // A point stands for a space only, so that no two names are alike.
      (character) => character === " " ? "." : `_${character.codePointAt(0)!.toString(16)}_`,
    );
    let hasReference = false;
    const component = mapReferences(converted, (reference) => {
      hasReference = true;
      return pointerTo("components", "schemas", key) + reference.slice(1);
    });
    if (!hasReference) return converted;
    this.schemas[key] = component;
    return { $ref: pointerTo("components", "schemas", key) };
  }
}
