import { createInbox, headers, type Msg, type NatsConnection, type RequestError, type RequestOptions } from "@nats-io/nats-core";
import * as v from "valibot";

/** A message stored in a stream. */
export interface StreamMessage {
  readonly sequence: number;
  readonly subject: string;
  readonly text: string;
  /** When the server stored it, in ms. */
  readonly time: number;
}

/** Result of {@link JetStream.list}. */
export interface StreamList {
  /** The oldest first. */
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
  /** Time that the ids of messages are remembered. */
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

/** Nanoseconds in a millisecond. */
export const NANOSECONDS = 1_000_000;

/** HTTP-like status of a request that nobody listens to. JetStream's own codes start at 10,000. */
const NO_RESPONDERS = 503;
/** No room for the stream: limits of the account, of memory, of the disk. */
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

/** Messages per pull request. */
const BATCH = 100;

/** Estimated bytes of a message in addition to its text. */
const MESSAGE_BYTES = 200;

/** The limits of a stream that are raised. */
const LIMITS = ["max_msgs_per_subject", "max_age", "duplicate_window"] as const;

/** Status of a pull request whose `max_bytes` are too few for the next message. */
const TOO_LARGE = 409;

/** Expiry of a pull request, in ms. Without one, nats-server 2.9 never answers when all pending messages were purged. */
const EXPIRY = 500;

/** Client for the parts of JetStream that the engine uses. It speaks the API over plain NATS: any connection will do. */
export class JetStream {
  readonly #connection: NatsConnection;
  readonly #timeout: number;
  readonly #inboxPrefix: string;

  /**
   * @param timeout of one request, in ms.
   * @param inboxPrefix the connection's own: the server may not permit another one.
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
        // Another node was faster.
        if (attempt > 3 || !(error instanceof JetStreamError) || error.code !== NAME_IN_USE) throw error;
      }
    }
  }

  /**
   * Stores a message, and resolves with its sequence.
   *
   * @param last the sequence that the last message of the subject must have, 0 for none. Resolves with `null` when it differs.
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

  /** Stores a message, unless one with this id was stored within `duplicate_window`. Resolves with the sequence of either. */
  async publishOnce(subject: string, text: string, id: string): Promise<{ sequence: number; isDuplicate: boolean }> {
    const options = { timeout: this.#timeout, headers: headers() };
    options.headers.set("Nats-Msg-Id", id);
    const { seq, duplicate } = read(await this.#request(subject, text, options), Acknowledgement);
    return { sequence: seq, isDuplicate: duplicate };
  }

  /** The last message of a subject; `null` when there is none. */
  last(stream: string, subject: string): Promise<StreamMessage | null> {
    return this.message(stream, { last_by_subj: subject });
  }

  /** One message; `null` when it is not stored. */
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
   * The messages of a subject from a sequence on, or the last one of each matching subject. Returns none when there are more than
   * `limit`, and fewer than `count` when some are deleted during the read.
   *
   * @param maxBytes approximate size after which the list ends.
   * @param headers_only whether the texts are left out.
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
      inactive_threshold: this.#timeout * NANOSECONDS, // A server that has deleted it does not answer.
      mem_storage: true,
      num_replicas: 1,
      headers_only,
      ...(from === "last of each"
        ? { deliver_policy: "last_per_subject" }
        : { deliver_policy: "by_start_sequence", opt_start_seq: Math.max(1, from) }),
    };
    const { name, num_pending } = await this.#callApi(`CONSUMER.CREATE.${stream}`, { stream_name: stream, config }, Consumer);
    try {
      const messages = num_pending > limit ? [] : await this.#fetch(stream, name, num_pending, maxBytes);
      return { messages, isWhole: messages.length === num_pending, count: num_pending };
    } finally {
      // Otherwise it would stay until `inactive_threshold`.
      if (!this.#connection.isClosed()) this.#connection.publish(`$JS.API.CONSUMER.DELETE.${stream}.${name}`);
    }
  }

  /** The last messages of a subject. JetStream has no request for them: lists the headers of all, and then the texts of the last ones. */
  async listLast(stream: string, subject: string, count: number): Promise<readonly StreamMessage[]> {
    const all = await this.list(stream, subject, 1, count);
    if (all.count <= count) return all.messages;
    const { messages } = await this.list(stream, subject, 1, Infinity, Infinity, true);
    return (await this.list(stream, subject, messages.at(-count)?.sequence ?? 1, Infinity)).messages;
  }

  async #fetch(stream: string, consumer: string, count: number, maxBytes: number): Promise<StreamMessage[]> {
    if (count === 0) return [];
    const inbox = createInbox(this.#inboxPrefix);
    const messages: StreamMessage[] = [];
    let end!: () => void;
    let fail!: (error: unknown) => void;
    const ended = new Promise<void>((resolve, reject) => {
      end = resolve;
      fail = reject;
    });
    /** Number of messages received before the last request. */
    let before = 0;
    let batch = 0;
    let bytes = 0;
    // One message is always returned.
    const isFull = () => messages.length >= count || messages.length > 0 && bytes >= maxBytes;
    /** @param isLarge whether the next message is larger than the bytes left, and is requested alone. */
    const request = (isLarge = false) => {
      before = messages.length;
      batch = isLarge ? 1 : Math.min(BATCH, count - messages.length);
      const text = JSON.stringify({
        batch,
        ...(!isLarge && maxBytes < Infinity && { max_bytes: Math.ceil(maxBytes - bytes) }),
        no_wait: true,
        expires: EXPIRY * NANOSECONDS,
      });
      this.#connection.publish(`$JS.API.CONSUMER.MSG.NEXT.${stream}.${consumer}`, text, { reply: inbox });
    };
    const subscription = this.#connection.subscribe(inbox, {
      callback: (error, message) => {
        if (error) return fail(error);
        // A request that was repeated may be answered twice.
        if (isFull()) return;
        const received = toStreamMessage(message);
        // A status message: the request has expired, nothing is left, or the next message exceeds `max_bytes`.
        if (!received && message.headers?.code === TOO_LARGE) return bytes < maxBytes / 2 ? request(true) : end();
        if (!received) return messages.length > before && messages.length < count ? request() : end();
        // A message was lost on the way: skip those after it.
        if (received.delivery !== messages.length + 1) return;
        messages.push(received);
        bytes += received.text.length + MESSAGE_BYTES;
        if (isFull()) end();
        else if (messages.length - before === batch) request();
      },
    });
    // A lost connection ends the read without waiting for the timeout. What waits for `connection.closed()` would stay until then.
    void subscription.closed.then(() => fail(new Error("Cannot go on: the connection was closed")));
    const timer = setTimeout(() => fail(new Error("Cannot go on: the server is silent")), this.#timeout);
    // nats-server 2.9 sends no status when a request expires half-way, as happens on a busy server: request again.
    let seen = 0;
    const repeating = setInterval(() => messages.length === seen ? request() : seen = messages.length, 2 * EXPIRY);
    try {
      request();
      await ended;
      return messages;
    } finally {
      clearTimeout(timer);
      clearInterval(repeating);
      subscription.unsubscribe();
    }
  }

  /** Configuration and state of a stream; `null` when it does not exist. */
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
      // By its method, not `instanceof`: the library may be loaded twice.
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

/**
 * Reads the position of a message from its reply subject: …, stream, consumer, deliveries, stream sequence, consumer sequence, time,
 * pending. `null` for a status message.
 */
function toStreamMessage(message: Msg): StreamMessage & { readonly delivery: number } | null {
  const words = message.reply?.split(".") ?? [];
  // Newer servers put two more tokens before the stream.
  const [sequence, delivery, time] = words.slice(words.length >= 11 ? 7 : 5);
  if (words[1] !== "ACK" || !/^\d{1,15}$/.test(sequence ?? "")) return null;
  const { subject } = message;
  return {
    sequence: Number(sequence),
    delivery: Number(delivery),
    subject,
    text: message.string(),
    time: Number(time) / NANOSECONDS,
  };
}

const utf8 = new TextDecoder();

/** The text in base64. By a loop: `Uint8Array.from` with a function took 15 times as long. */
function decodeBase64(data: string): string {
  const binary = atob(data);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return utf8.decode(bytes);
}
