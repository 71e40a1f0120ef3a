import { headers, type Msg, type NatsConnection, type RequestError, type RequestOptions } from "@nats-io/nats-core";
import * as v from "valibot";
import { NS_PER_MS, pullMessages, type StreamMessage } from "./pull-consumer.ts";

/** Result of {@link JetStream.list}. */
export interface StreamList {
  /** Oldest first. */
  readonly messages: readonly StreamMessage[];
  /** Whether `messages` are all that `count` counts. */
  readonly isWhole: boolean;
  /** Matching messages at the time of the request. */
  readonly count: number;
}

/** A stream's configuration, with durations in ns as on the wire. */
export interface StreamConfig {
  readonly name: string;
  readonly subjects: readonly string[];
  readonly max_msgs_per_subject: number;
  readonly max_age: number;
  /** Time for which repeated ids of messages are recognized. */
  readonly duplicate_window?: number;
  readonly [field: string]: unknown;
}

/** The state of a stream. */
export interface StreamState {
  readonly first_seq: number;
  readonly last_seq: number;
  /** When the server stored the last message, in ISO 8601. */
  readonly last_ts: string;
}

/** A stream's configuration and state. */
export interface StreamInfo {
  readonly config: StreamConfig;
  /** Time of creation, in ISO 8601. It differs for a stream that was deleted and created again. */
  readonly created: string;
  readonly state: StreamState;
}

/** An error that JetStream returned. */
export class JetStreamError extends Error {
  /** JetStream's `err_code`, or 503. */
  readonly code: number;

  constructor(code: number, description: string) {
    super(`Cannot use JetStream: ${description}`);
    this.code = code;
  }
}

/** Status of a request without a receiver. Codes of JetStream start at 10,000. */
const NO_RESPONDERS = 503;
/** No room for the stream, because of limits of the account, the memory or the disk. */
const NO_ROOM: readonly number[] = [10_002, 10_023, 10_028, 10_047];
const NAME_IN_USE = 10_058;
const DELETE_FAILED = 10_057;
const NOT_FOUND = 10_037;
const STREAM_NOT_FOUND = 10_059;
/** A consumer for a subject that the stream does not store. */
const WRONG_SUBJECT = 10_093;
const WRONG_LAST_SEQUENCE = 10_071;

/** Whether the stream does not exist, or another one has its name. */
export function isGone(error: unknown): boolean {
  return error instanceof JetStreamError && [NO_RESPONDERS, STREAM_NOT_FOUND, WRONG_SUBJECT].includes(error.code);
}

/** Whether the server has no room for the stream. */
export function hasNoRoom(error: unknown): boolean {
  return error instanceof JetStreamError && NO_ROOM.includes(error.code);
}

const Failure = v.object({
  error: v.object({ err_code: v.optional(v.number(), 0), description: v.optional(v.string(), "refused") }),
});
const Acknowledgement = v.object({
  stream: v.string(),
  seq: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  duplicate: v.optional(v.boolean(), false),
});
const Sequence = v.pipe(v.number(), v.safeInteger());
const Info = v.object({
  created: v.string(),
  state: v.object({ first_seq: Sequence, last_seq: Sequence, last_ts: v.string() }),
  config: v.looseObject({
    subjects: v.array(v.string()),
    max_msgs_per_subject: v.number(),
    max_age: v.number(),
    duplicate_window: v.optional(v.number(), 0),
  }),
});
const Consumer = v.object({ name: v.string(), num_pending: v.pipe(v.number(), v.safeInteger()) });
const Stored = v.object({
  message: v.object({ subject: v.string(), seq: v.number(), data: v.optional(v.string(), ""), time: v.string() }),
});

/** Limits of a stream that {@link JetStream.open} raises. */
const LIMITS = ["max_msgs_per_subject", "max_age", "duplicate_window"] as const;

/** Client for the parts of JetStream that the engine uses. It calls the API over plain NATS, with any connection. */
export class JetStream {
  readonly #connection: NatsConnection;
  readonly #timeout: number;
  readonly #inboxPrefix: string;

  /**
   * @param timeout of one request, in ms.
   * @param inboxPrefix the prefix of the connection's inboxes.
   */
  constructor(connection: NatsConnection, timeout: number, inboxPrefix: string) {
    this.#connection = connection;
    this.#timeout = timeout;
    this.#inboxPrefix = inboxPrefix;
  }

  /** Creates the stream if it does not exist, and raises its limits if they are lower than these. */
  async open(config: StreamConfig): Promise<StreamInfo> {
    for (let attempt = 0;; attempt++) {
      const info = await this.info(config.name);
      const existing = info?.config;
      const { max_msgs_per_subject, max_age, duplicate_window = 0 } = config;
      const raised = existing && {
        ...existing,
        max_msgs_per_subject: Math.max(existing.max_msgs_per_subject, max_msgs_per_subject),
        max_age: Math.max(existing.max_age, max_age),
        duplicate_window: Math.max(existing.duplicate_window ?? 0, duplicate_window),
      };
      if (info && raised && LIMITS.every((limit) => raised[limit] === info.config[limit])) return info;
      try {
        const method = raised ? "UPDATE" : "CREATE";
        return toInfo(config.name, await this.#callApi(`STREAM.${method}.${config.name}`, raised ?? config, Info));
      } catch (error) {
        // Another node has created it meanwhile.
        if (attempt > 3 || !(error instanceof JetStreamError) || error.code !== NAME_IN_USE) throw error;
      }
    }
  }

  /**
   * Stores a message, and resolves with its sequence.
   *
   * @param last the sequence that the last message of the subject must have; 0 for no message. If it differs, resolves with `null`.
   */
  async publish(subject: string, text: string, last?: number): Promise<number | null> {
    const expected = headers();
    if (last !== undefined) expected.set("Nats-Expected-Last-Subject-Sequence", `${last}`);
    const options = { timeout: this.#timeout, ...(last === undefined ? {} : { headers: expected }) };
    try {
      const { seq } = read(await this.#request(subject, text, options), Acknowledgement);
      return seq;
    } catch (error) {
      if (error instanceof JetStreamError && error.code === WRONG_LAST_SEQUENCE) return null;
      throw error;
    }
  }

  /** Stores a message, unless one with this id was stored within `duplicate_window`. Resolves with the sequence of the stored one. */
  async publishOnce(subject: string, text: string, id: string): Promise<{ sequence: number; isDuplicate: boolean }> {
    const options = { timeout: this.#timeout, headers: headers() };
    options.headers.set("Nats-Msg-Id", id);
    const { seq, duplicate } = read(await this.#request(subject, text, options), Acknowledgement);
    return { sequence: seq, isDuplicate: duplicate };
  }

  /** The last message of a subject; `null` if there is none. */
  last(stream: string, subject: string): Promise<StreamMessage | null> {
    return this.message(stream, { last_by_subj: subject });
  }

  /** One message; `null` if it is not stored. */
  async message(stream: string, which: { last_by_subj: string } | { seq: number }): Promise<StreamMessage | null> {
    try {
      const { message } = await this.#callApi(`STREAM.MSG.GET.${stream}`, which, Stored);
      return {
        sequence: message.seq,
        subject: message.subject,
        text: decodeBase64(message.data),
        time: Date.parse(message.time),
      };
    } catch (error) {
      if (error instanceof JetStreamError && error.code === NOT_FOUND) return null;
      throw error;
    }
  }

  /** Deletes a message, if it is stored. */
  async delete(stream: string, sequence: number): Promise<void> {
    try {
      await this.#callApi(`STREAM.MSG.DELETE.${stream}`, { seq: sequence, no_erase: true }, v.object({}));
    } catch (error) {
      if (!(error instanceof JetStreamError) || error.code !== DELETE_FAILED) throw error;
    }
  }

  /** Deletes the messages of a subject. @param upTo the last sequence to delete. @default all of them */
  async purge(stream: string, subject: string, upTo?: number): Promise<void> {
    const first = upTo === undefined ? {} : { seq: upTo + 1 };
    await this.#callApi(`STREAM.PURGE.${stream}`, { filter: subject, ...first }, v.object({}));
  }

  /**
   * The messages of a subject from a sequence on, or the last one of each matching subject. Returns none if there are more than
   * `limit`, and fewer than `count` if some are deleted during the read.
   *
   * @param maxBytes approximate size after which the list ends.
   * @param headers_only whether to leave out the texts.
   */
  async list(
    stream: string,
    subject: string,
    from: number | "last of each",
    limit: number,
    maxBytes: number = Infinity,
    headers_only = false,
  ): Promise<StreamList> {
    const config = {
      filter_subject: subject,
      ack_policy: "none",
      inactive_threshold: this.#timeout * NS_PER_MS, // A server that has deleted it does not answer.
      mem_storage: true,
      num_replicas: 1,
      headers_only,
      ...(from === "last of each"
        ? { deliver_policy: "last_per_subject" }
        : { deliver_policy: "by_start_sequence", opt_start_seq: Math.max(1, from) }),
    };
    const { name, num_pending } = await this.#callApi(`CONSUMER.CREATE.${stream}`, { stream_name: stream, config }, Consumer);
    try {
      const messages = num_pending > limit ? [] : await this.#pull(stream, name, num_pending, maxBytes);
      return { messages, isWhole: messages.length === num_pending, count: num_pending };
    } finally {
      // Otherwise the consumer would stay until `inactive_threshold`.
      if (!this.#connection.isClosed()) this.#connection.publish(`$JS.API.CONSUMER.DELETE.${stream}.${name}`);
    }
  }

  /** The last messages of a subject. As JetStream has no request for them, it lists the headers of all, then the last messages with texts. */
  async listLast(stream: string, subject: string, count: number): Promise<readonly StreamMessage[]> {
    const all = await this.list(stream, subject, 1, count);
    if (all.count <= count) return all.messages;
    const { messages } = await this.list(stream, subject, 1, Infinity, Infinity, true);
    return (await this.list(stream, subject, messages.at(-count)?.sequence ?? 1, Infinity)).messages;
  }

  #pull(stream: string, consumer: string, count: number, maxBytes: number): Promise<StreamMessage[]> {
    const [connection, inboxPrefix, timeout] = [this.#connection, this.#inboxPrefix, this.#timeout];
    return pullMessages({ connection, inboxPrefix, timeout, stream, consumer }, count, maxBytes);
  }

  /** Configuration and state of a stream; `null` if it does not exist. */
  async info(stream: string): Promise<StreamInfo | null> {
    try {
      return toInfo(stream, await this.#callApi(`STREAM.INFO.${stream}`, {}, Info));
    } catch (error) {
      if (error instanceof JetStreamError && error.code === STREAM_NOT_FOUND) return null;
      throw error;
    }
  }

  async #callApi<Output>(method: string, parameters: object, schema: v.GenericSchema<unknown, Output>): Promise<Output> {
    const answer = await this.#request(`$JS.API.${method}`, JSON.stringify(parameters), { timeout: this.#timeout });
    return read(answer, schema);
  }

  async #request(subject: string, text: string, options: RequestOptions): Promise<Msg> {
    try {
      return await this.#connection.request(subject, text, options);
    } catch (error) {
      // Recognized by its method instead of `instanceof`, because the library may be loaded twice.
      if (!(error as Partial<RequestError>).isNoResponders?.()) throw error;
      const isApi = subject.startsWith("$JS.API.");
      throw new JetStreamError(NO_RESPONDERS, isApi ? "it is not enabled for this account" : `no stream takes ${subject}`);
    }
  }
}

const toInfo = (name: string, { config, ...info }: v.InferOutput<typeof Info>): StreamInfo => ({
  ...info,
  config: { ...config, name },
});

function read<Output>(answer: Msg, schema: v.GenericSchema<unknown, Output>): Output {
  const json = answer.json<unknown>();
  if (v.is(Failure, json)) {
    const { err_code, description } = v.parse(Failure, json).error;
    throw new JetStreamError(err_code, description);
  }
  return v.parse(schema, json);
}

const utf8 = new TextDecoder();

/** Decodes a text from base64. With a loop, because `Uint8Array.from` with a function takes 15 times as long. */
function decodeBase64(data: string): string {
  const binary = atob(data);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return utf8.decode(bytes);
}
