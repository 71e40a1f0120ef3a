import { createInbox, headers, type Msg, type NatsConnection, type RequestError, type RequestOptions } from "@nats-io/nats-core";
import * as v from "valibot";

/** A message that a stream keeps. */
export interface StreamMessage {
  readonly sequence: number;
  readonly subject: string;
  readonly text: string;
  /** When the server took it, in ms. */
  readonly time: number;
}

/** Messages, the oldest first. */
export interface StreamList {
  readonly messages: readonly StreamMessage[];
  readonly isWhole: boolean;
  /** How many there were when it was asked for, with those that are not among them. */
  readonly count: number;
}

/** The parts of a stream's configuration that are used, with durations in ns as on the wire. */
export interface StreamConfig {
  readonly name: string;
  readonly subjects: readonly string[];
  readonly max_msgs_per_subject: number;
  readonly max_age: number;
  readonly [field: string]: unknown;
}

/** What a stream holds. */
export interface StreamState {
  readonly first_seq: number;
  readonly last_seq: number;
  /** When the server took the last message, in ISO 8601. */
  readonly last_ts: string;
}

/** A stream as it is. */
export interface StreamInfo {
  readonly config: StreamConfig;
  /** When it was made, in ISO 8601: another one of the same name has another time. */
  readonly created: string;
  readonly state: StreamState;
}

/** What JetStream has refused. */
export class JetStreamError extends Error {
  /** As the server numbers its errors. */
  readonly code: number;

  constructor(code: number, description: string) {
    super(`Cannot use JetStream: ${description}`);
    this.code = code;
  }
}

export const NANOSECONDS = 1_000_000;

/** As HTTP would say it: the server numbers its own from 10,000 on. */
const NO_RESPONDERS = 503;
/** Of the account, of memory, of the disk: there is no room for such a stream. */
const NO_ROOM: readonly number[] = [10_002, 10_023, 10_028, 10_047];
const NAME_IN_USE = 10_058;
const DELETE_FAILED = 10_057;
const NOT_FOUND = 10_037;
const STREAM_NOT_FOUND = 10_059;
const WRONG_LAST_SEQUENCE = 10_071;

/** Whether the stream that was asked for is not there. */
export function isGone(error: unknown): boolean {
  return error instanceof JetStreamError && (error.code === NO_RESPONDERS || error.code === STREAM_NOT_FOUND);
}

/** Whether the server has no room for the stream. */
export function hasNoRoom(error: unknown): boolean {
  return error instanceof JetStreamError && NO_ROOM.includes(error.code);
}

const Failure = v.object({
  error: v.object({ err_code: v.optional(v.number(), 0), description: v.optional(v.string(), "refused") }),
});
const Acknowledgement = v.object({ stream: v.string(), seq: v.pipe(v.number(), v.safeInteger(), v.minValue(1)) });
const Sequence = v.pipe(v.number(), v.safeInteger());
const Info = v.object({
  created: v.string(),
  state: v.object({ first_seq: Sequence, last_seq: Sequence, last_ts: v.string() }),
  config: v.looseObject({ subjects: v.array(v.string()), max_msgs_per_subject: v.number(), max_age: v.number() }),
});
const Consumer = v.object({ name: v.string(), num_pending: v.pipe(v.number(), v.safeInteger()) });
const Stored = v.object({
  message: v.object({ subject: v.string(), seq: v.number(), data: v.optional(v.string(), ""), time: v.string() }),
});

/** Messages asked for at once. */
const BATCH = 100;

/** What a message takes beside its text, in bytes. */
const MESSAGE_BYTES = 200;

/** The status of a request whose `max_bytes` the next message has no room in. */
const TOO_LARGE = 409;

/** So long, in ms, the server may look for them: without it 2.9 never answers who asks once all of them have been purged. */
const EXPIRY = 500;

/** What is needed of JetStream, by its API over plain NATS, so that one connection of any transport is enough. */
export class JetStream {
  readonly #connection: NatsConnection;
  readonly #timeout: number;
  readonly #inboxPrefix: string;

  /**
   * @param timeout ms.
   * @param inboxPrefix of the connection: another one may not be permitted.
   */
  constructor(connection: NatsConnection, timeout: number, inboxPrefix: string) {
    this.#connection = connection;
    this.#timeout = timeout;
    this.#inboxPrefix = inboxPrefix;
  }

  /** The stream; made with this configuration where there is none, and raised where it keeps less. */
  async open(config: StreamConfig): Promise<StreamInfo> {
    for (let attempt = 0;; attempt++) {
      const info = await this.info(config.name);
      const existing = info?.config;
      const { max_msgs_per_subject, max_age } = config;
      if (info && info.config.max_msgs_per_subject >= max_msgs_per_subject && info.config.max_age >= max_age) return info;
      const raised = existing && {
        ...existing,
        max_msgs_per_subject: Math.max(existing.max_msgs_per_subject, max_msgs_per_subject),
        max_age: Math.max(existing.max_age, max_age),
      };
      try {
        const method = raised ? "UPDATE" : "CREATE";
        return toInfo(config.name, await this.#ask(`STREAM.${method}.${config.name}`, raised ?? config, Info));
      } catch (error) {
        // Another node was faster.
        if (attempt > 3 || !(error instanceof JetStreamError) || error.code !== NAME_IN_USE) throw error;
      }
    }
  }

  /** Keeps a message. @param last the sequence that the last one of the subject must have. Resolves with its sequence; `null` if not. */
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

  /** The last message of a subject. */
  last(stream: string, subject: string): Promise<StreamMessage | null> {
    return this.message(stream, { last_by_subj: subject });
  }

  /** One message; `null` where it is not there. */
  async message(stream: string, which: { last_by_subj: string } | { seq: number }): Promise<StreamMessage | null> {
    try {
      const { message } = await this.#ask(`STREAM.MSG.GET.${stream}`, which, Stored);
      const bytes = Uint8Array.from(atob(message.data), (character) => character.charCodeAt(0));
      return { sequence: message.seq, subject: message.subject, text: utf8.decode(bytes), time: Date.parse(message.time) };
    } catch (error) {
      if (error instanceof JetStreamError && error.code === NOT_FOUND) return null;
      throw error;
    }
  }

  /** Deletes one message, where it is there. */
  async delete(stream: string, sequence: number): Promise<void> {
    try {
      await this.#ask(`STREAM.MSG.DELETE.${stream}`, { seq: sequence, no_erase: true }, v.object({}));
    } catch (error) {
      if (!(error instanceof JetStreamError) || error.code !== DELETE_FAILED) throw error;
    }
  }

  /** @param upTo the last sequence that is to go. @default all of them */
  async purge(stream: string, subject: string, upTo?: number): Promise<void> {
    const first = upTo === undefined ? {} : { seq: upTo + 1 };
    await this.#ask(`STREAM.PURGE.${stream}`, { filter: subject, ...first }, v.object({}));
  }

  /**
   * The messages of a subject from a sequence on, or the last of each subject that matches, as there are by now. None when there are more
   * than the limit; fewer also when some went while they were read.
   *
   * @param maxBytes of them, about: the first are given.
   */
  async list(
    stream: string,
    subject: string,
    from: number | "last of each",
    limit: number,
    maxBytes: number = Infinity,
  ): Promise<StreamList> {
    const config = {
      filter_subject: subject,
      ack_policy: "none",
      inactive_threshold: 10_000 * NANOSECONDS,
      mem_storage: true,
      num_replicas: 1,
      ...(from === "last of each"
        ? { deliver_policy: "last_per_subject" }
        : { deliver_policy: "by_start_sequence", opt_start_seq: Math.max(1, from) }),
    };
    const { name, num_pending } = await this.#ask(`CONSUMER.CREATE.${stream}`, { stream_name: stream, config }, Consumer);
    try {
      const messages = num_pending > limit ? [] : await this.#fetch(stream, name, num_pending, maxBytes);
      return { messages, isWhole: messages.length === num_pending, count: num_pending };
    } finally {
      // It would go by itself when nobody asks it any more.
      if (!this.#connection.isClosed()) this.#connection.publish(`$JS.API.CONSUMER.DELETE.${stream}.${name}`);
    }
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
    let asked = 0;
    let batch = 0;
    let bytes = 0;
    /** @param isLarge the next one is larger than what there is room for. */
    const ask = (isLarge = false) => {
      asked = messages.length;
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
        const kept = toStreamMessage(message);
        // A status: the time was over, there is no more, or no room for the next one.
        if (!kept && message.headers?.code === TOO_LARGE) return bytes < maxBytes / 2 ? ask(true) : end();
        if (!kept) return messages.length > asked && messages.length < count ? ask() : end();
        // One was lost on its way: those after it do not follow.
        if (kept.place !== messages.length + 1) return;
        messages.push(kept);
        bytes += kept.text.length + MESSAGE_BYTES;
        if (messages.length >= count || bytes >= maxBytes) end();
        else if (messages.length - asked === batch) ask();
      },
    });
    // Who asked has been told that the broker is away when that ends it.
    this.#connection.closed().then(() => fail(new Error("Cannot go on: the connection was closed")), fail);
    const timer = setTimeout(() => fail(new Error("Cannot go on: the server is silent")), this.#timeout);
    // 2.9 says nothing where the time was over in the middle of it, which takes no more than that a server is busy.
    let seen = 0;
    const asking = setInterval(() => messages.length === seen ? ask() : seen = messages.length, 2 * EXPIRY);
    try {
      ask();
      await ended;
      return messages;
    } finally {
      clearTimeout(timer);
      clearInterval(asking);
      subscription.unsubscribe();
    }
  }

  /** `null` where there is no such stream. */
  async info(stream: string): Promise<StreamInfo | null> {
    try {
      return toInfo(stream, await this.#ask(`STREAM.INFO.${stream}`, {}, Info));
    } catch (error) {
      if (error instanceof JetStreamError && error.code === STREAM_NOT_FOUND) return null;
      throw error;
    }
  }

  async #ask<Output>(method: string, question: object, schema: v.GenericSchema<unknown, Output>): Promise<Output> {
    const answer = await this.#request(`$JS.API.${method}`, JSON.stringify(question), { timeout: this.#timeout });
    return read(answer, schema);
  }

  async #request(subject: string, text: string, options: RequestOptions): Promise<Msg> {
    try {
      return await this.#connection.request(subject, text, options);
    } catch (error) {
      // Of any copy of the library.
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

/** Where a message stands is in the subject to acknowledge it by: …, stream, consumer, times, sequence, consumer's sequence, time, pending. */
function toStreamMessage(message: Msg): StreamMessage & { readonly place: number } | null {
  const words = message.reply?.split(".") ?? [];
  // Later servers put two words before the stream.
  const [sequence, place, time] = words.slice(words.length >= 11 ? 7 : 5);
  if (words[1] !== "ACK" || !/^\d{1,15}$/.test(sequence ?? "")) return null;
  const { subject } = message;
  return {
    sequence: Number(sequence),
    place: Number(place),
    subject,
    text: message.string(),
    time: Number(time) / NANOSECONDS,
  };
}

const utf8 = new TextDecoder();
