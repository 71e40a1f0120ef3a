import type { HistoryOptions, Position } from "../engine.ts";
import type { BrokerPage, SessionOptions } from "./broker.ts";
import { encodeName } from "./channel-name.ts";
import {
  hasNoRoom,
  isGone,
  type JetStream,
  NANOSECONDS,
  type StreamConfig,
  type StreamInfo,
  type StreamMessage,
  type StreamState,
} from "./jetstream.ts";
import { isMark, markOf, MAX_SEQUENCE, offsetOf, sequenceOf, standsFor } from "./nats-offset.ts";

/** How much the stream of a namespace keeps: the bounds of what channels may ask for. The largest that any node asks for counts. */
export interface NatsHistoryOptions {
  /** The largest `size` of a channel's history. @default {1_000} */
  maxSize?: number;
  /** The longest `ttl` of a channel's history, in ms. The stream keeps messages twice as long. @default {3_600_000} */
  maxTtl?: number;
  /**
   * Bytes of all histories, which the server sets aside when the stream is made; beyond it the oldest publications are given up.
   * @default the most of 1,024, 256, 64 and 16 MiB that it has room for
   */
  maxBytes?: number;
  /** `memory` does not outlive a restart of the server. Read when the stream is made. @default {"file"} */
  storage?: "file" | "memory";
  /** On how many servers of a cluster it is kept: 1, 3 or 5. Read when the stream is made. @default {1} */
  replicas?: number;
}

/** {@link NatsHistoryOptions}, with what is not given. */
export interface NatsBounds extends Required<Omit<NatsHistoryOptions, "maxBytes">> {
  /** The first that the server has room for. */
  readonly maxBytes: readonly number[];
}

/** What a node knows of the stream from one session to the next. */
export interface NatsMemory {
  epoch: string;
  /** The last sequence that the server has named. */
  sequence: number;
  /** Where the last message stands that the server has shown or acknowledged. */
  offset: number;
}

/** Marks of one channel that may be in its history, beside its publications. */
const MARKS = 8;

/** No channel is encoded so. */
const ANCHOR = "=";

/** Before what names the epoch. */
const EPOCH = "epoch ";

/** How far the server's time may go back without being set anew, in ms. */
const MAX_STEP = 60_000;

/**
 * The histories of a namespace: one stream. An offset is a message's sequence, which all channels share, and a part of its hash. The
 * epoch lies in the stream as a message, the anchor: where that is lost, or the stream ends before what a node knows of it, the next
 * epoch begins. The stream publishes what it keeps anew, with the sequence of the one before it in the same channel.
 *
 * Every position is that of a message, for only as long as that is kept nothing after it can be gone. So a channel's first position is
 * that of a mark, and a channel that is quiet gets another one before its last message is too old. A mark names the offset it stands for.
 */
export class NatsHistory {
  readonly #jetstream: JetStream;
  readonly #prefix: string;
  readonly #stream: string;
  readonly #bounds: NatsBounds;
  readonly #slack: number;
  readonly #memory: NatsMemory;
  /** In the subjects of one stream: what is published to another one that had its name is refused. */
  #generation = "";
  #epoch = "";
  #opening: Promise<void> | undefined;
  /** The last sequence that was acknowledged. */
  #acknowledged = 0;
  /** The server's time at a message, and when that was seen here. */
  #time = { last: 0, sequence: 0, base: 0 };

  constructor(
    jetstream: JetStream,
    { namespace, slack }: SessionOptions,
    bounds: NatsBounds,
    memory: NatsMemory,
  ) {
    this.#jetstream = jetstream;
    this.#prefix = `noroshi.${namespace}`;
    this.#stream = `NOROSHI_${namespace}`;
    this.#bounds = bounds;
    this.#slack = slack;
    this.#memory = memory;
  }

  get epoch(): string {
    return this.#epoch;
  }

  /** Makes the stream where there is none, and finds the epoch or begins one. At most once at a time. */
  open(): Promise<void> {
    return this.#opening ??= this.#open().finally(() => this.#opening = undefined);
  }

  async #open(): Promise<void> {
    const { maxSize, maxTtl, storage, replicas } = this.#bounds;
    const generation = crypto.randomUUID();
    const { config: { subjects }, state: { last_seq } } = await this.#make({
      name: this.#stream,
      retention: "limits",
      discard: "old",
      storage,
      num_replicas: replicas,
      subjects: [`${this.#prefix}.history.${generation}.*`],
      max_msgs_per_subject: maxSize + 1 + MARKS,
      // The anchor and the marks are looked at now and then.
      max_age: (2 * maxTtl + this.#slack) * NANOSECONDS,
      republish: { src: `${this.#prefix}.history.${generation}.*`, dest: `${this.#prefix}.channel.{{wildcard(1)}}.publication` },
    });
    // The node that made the stream has named it.
    this.#generation = generationOf(subjects);
    this.#acknowledged = 0;
    const memory = this.#memory;
    for (let hasWritten = false; !hasWritten;) {
      const anchor = await this.#jetstream.last(this.#stream, this.#subject(ANCHOR));
      const known = anchor?.text.startsWith(EPOCH) ? anchor.text.slice(EPOCH.length) : "";
      const isLost = known === "" || (known === memory.epoch
        ? await this.#hasGoneBack(last_seq, memory)
        // It has gone back to before the epoch that this node knows.
        : memory.epoch !== "" && orderOf(known) <= orderOf(memory.epoch));
      this.#epoch = isLost ? `${Math.max(orderOf(known), orderOf(memory.epoch)) + 1}.${crypto.randomUUID()}` : known;
      // Written anew by each session: its time is the server's.
      hasWritten = await this.#replace(ANCHOR, `${EPOCH}${this.#epoch}`, anchor) || !isLost;
    }
    const info = await this.#jetstream.info(this.#stream);
    if (!info) throw new Error(`Cannot use the stream ${this.#stream}: it was deleted`);
    const { state } = info;
    if (state.last_seq > MAX_SEQUENCE / 2) throw new Error(`Cannot use the stream ${this.#stream}: it is full, delete it`);
    Object.assign(memory, { epoch: this.#epoch, sequence: state.last_seq, offset: 0 });
    this.#look(state);
  }

  async #make(config: StreamConfig): Promise<StreamInfo> {
    let refusal: unknown;
    for (const max_bytes of this.#bounds.maxBytes) {
      try {
        return await this.#jetstream.open({ ...config, max_bytes });
      } catch (error) {
        if (!hasNoRoom(error)) throw error;
        const { message } = error as Error; // A JetStreamError.
        refusal = new Error(`${message}, for a stream of ${max_bytes} bytes: lower history.maxBytes, or give JetStream more`);
      }
    }
    throw refusal;
  }

  /** Notices that the stream has lost what it kept, or is another one: then the epoch is another. */
  async verify(): Promise<void> {
    const known = { ...this.#memory };
    const [info, anchor] = await Promise.all([this.#jetstream.info(this.#stream), this.#anchor()]);
    const isOurs = info && anchor && generationOf(info.config.subjects) === this.#generation;
    if (!isOurs || await this.#hasGoneBack(info.state.last_seq, known)) return await this.open();
    const { state } = info;
    this.#memory.sequence = Math.max(this.#memory.sequence, state.last_seq);
    this.#look(state);
    // It is not to be given up for its age, nor as one of the oldest of a stream that is full.
    const isOld = anchor.time < this.now() - this.#bounds.maxTtl / 2;
    if (isOld || anchor.sequence - state.first_seq < (state.last_seq - state.first_seq) / 2) {
      await this.#replace(ANCHOR, anchor.text, anchor);
    }
  }

  async publish(channel: string, envelope: string): Promise<Position> {
    const name = encodeName(channel);
    return await this.#ask(async () => {
      const epoch = this.#epoch;
      const sequence = (await this.#jetstream.publish(this.#subject(name), envelope))!; // Only with an expectation there is none.
      const offset = offsetOf(sequence, envelope);
      this.#knows(offset);
      // Acknowledgements come in order.
      if (sequence <= this.#acknowledged) {
        this.#memory.sequence = Infinity;
        await this.open();
      } else this.#acknowledged = sequence;
      return { epoch, offset };
    });
  }

  read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number,
  ): Promise<BrokerPage> {
    return this.#ask(() => this.#read(encodeName(channel), history, after, limit, maxBytes));
  }

  async #read(
    name: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number,
  ): Promise<BrokerPage> {
    const most = Math.min(history.size, limit);
    const oldest = this.now() - history.ttl;
    const subject = this.#subject(name);
    const page = (top: number, messages: readonly StreamMessage[], isComplete: boolean): BrokerPage => {
      const epoch = this.#epoch;
      const entries = messages.map(({ sequence, text, time }) => ({
        position: { epoch, offset: offsetOf(sequence, text) },
        envelope: text,
        time,
      }));
      return { position: { epoch, offset: top }, entries, isComplete };
    };
    if (!after) {
      const all = most > 0 ? await this.#jetstream.list(this.#stream, subject, 1, Infinity) : { messages: [] };
      const last = all.messages.at(-1);
      const kept = all.messages.filter(({ text, time }) => !isMark(text) && time > oldest);
      return page(last ? standsFor(last) : await this.#top(name), kept.slice(Math.max(0, kept.length - most)), true);
    }
    const refused = async () => page(await this.#top(name), [], false);
    if (after.epoch !== this.#epoch) return await refused();
    const { offset } = after;
    const seq = sequenceOf(offset);
    const from = await this.#jetstream.list(this.#stream, subject, seq + 1, most + MARKS, maxBytes);
    // Last: while the position is there, so is all that followed.
    const [place, anchor] = await Promise.all([this.#jetstream.message(this.#stream, { seq }), this.#anchor()]);
    // Another node may know that the stream has lost something, and have begun the next epoch.
    if (!anchor) await this.open();
    const isThere = place?.subject === subject && [offsetOf(seq, place.text), standsFor(place)].includes(offset);
    const missed = from.messages.filter(({ text }) => !isMark(text));
    // Marks come before what is too young to need one: there are none among those that are not on the page.
    const count = from.count - (from.messages.length - missed.length);
    const isComplete = isThere && count <= most && (from.isWhole || (maxBytes < Infinity && missed.length > 0));
    if (after.epoch !== this.#epoch || !isComplete || missed.some(({ time }) => time <= oldest)) return await refused();
    if (!from.isWhole) return { ...page(await this.#top(name), missed, true), hasMore: true };
    const last = missed.at(-1);
    return page(last ? offsetOf(last.sequence, last.text) : offset, missed, true);
  }

  /** No position of the channel is good any more, up to this one where it is given. `false` where it has none. */
  end(channel: string, upTo?: Position): Promise<boolean> {
    return this.#ask(async () => {
      if (upTo && upTo.epoch !== this.#epoch) return false;
      const subject = this.#subject(encodeName(channel));
      if (!await this.#jetstream.last(this.#stream, subject)) return false;
      await this.#jetstream.purge(this.#stream, subject, upTo && sequenceOf(upTo.offset));
      return true;
    });
  }

  /** Where the channels stand; those that are quiet get a mark. */
  tops(channels: readonly string[]): Promise<(Position | null)[]> {
    return this.#ask(() => Promise.all(channels.map((channel) => this.#keep(encodeName(channel)))));
  }

  async #keep(name: string): Promise<Position | null> {
    const last = await this.#jetstream.last(this.#stream, this.#subject(name));
    if (!last) return null;
    this.#knows(offsetOf(last.sequence, last.text));
    const offset = standsFor(last);
    // When another node has marked it meanwhile, or something was published, there is no need to.
    if (last.time < this.now() - this.#bounds.maxTtl) {
      await this.#jetstream.publish(this.#subject(name), markOf(offset), last.sequence);
    }
    return { epoch: this.#epoch, offset };
  }

  /** The position of what the stream publishes anew, by its headers; of no epoch where it is not of this stream. */
  positionOf(subject: string, sequence: number, text: string): Position {
    return { epoch: generationOf([subject]) === this.#generation ? this.#epoch : "", offset: offsetOf(sequence, text) };
  }

  /** Where the channel stands; it gets a mark to stand at where it has nothing. */
  async #top(name: string): Promise<number> {
    for (;;) {
      const subject = this.#subject(name);
      const last = await this.#jetstream.last(this.#stream, subject);
      if (last) return standsFor(last);
      const mark = markOf();
      const marked = await this.#jetstream.publish(subject, mark, 0);
      if (marked !== null) return offsetOf(marked, mark);
    }
  }

  /** Writes in place of a message; `false` where another node was faster. */
  async #replace(name: string, text: string, message: StreamMessage | null): Promise<boolean> {
    const written = await this.#jetstream.publish(this.#subject(name), text, message?.sequence ?? 0);
    if (written !== null && message) await this.#jetstream.delete(this.#stream, message.sequence);
    return written !== null;
  }

  /** That of this epoch. */
  async #anchor(): Promise<StreamMessage | null> {
    const anchor = await this.#jetstream.last(this.#stream, this.#subject(ANCHOR));
    return anchor?.text === `${EPOCH}${this.#epoch}` ? anchor : null;
  }

  /** Asks again where the stream was gone, and has been made again. */
  async #ask<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
    try {
      return await ask();
    } catch (error) {
      if (!isGone(error)) throw error;
      await this.open();
      return await ask();
    }
  }

  #knows(offset: number): void {
    const memory = this.#memory;
    // Not by a late answer to a session that has ended.
    if (offset > memory.offset && memory.epoch === this.#epoch) memory.offset = offset;
  }

  /** Whether the stream lacks the last of what this node knew before it asked, or has another message in its place. */
  async #hasGoneBack(last: number, { sequence, offset }: NatsMemory): Promise<boolean> {
    if (last < sequence || last < sequenceOf(offset)) return true;
    const message = offset > 0 ? await this.#jetstream.message(this.#stream, { seq: sequenceOf(offset) }) : null;
    // One that is gone says nothing: histories have limits.
    return message !== null && offsetOf(message.sequence, message.text) !== offset;
  }

  /** The server's time is that of its last message, and what has passed here since that was seen: no clock is compared with another's. */
  #look({ last_seq, last_ts }: StreamState): void {
    const { sequence } = this.#time;
    if (last_seq === sequence) return;
    const last = Date.parse(last_ts);
    const now = this.now();
    this.#time = { last: last < now - MAX_STEP ? last : Math.max(last, now), sequence: last_seq, base: performance.now() };
  }

  /** The server's time, in ms. */
  now(): number {
    const { last, base } = this.#time;
    return last + performance.now() - base;
  }

  #subject(name: string): string {
    return `${this.#prefix}.history.${this.#generation}.${name}`;
  }
}

/** Which of the epochs it is: each is later than all that its node knows. One of an earlier version has no number. */
const orderOf = (epoch: string): number => Number(/^(\d{1,9})\./.exec(epoch)?.[1] ?? 0);

const generationOf = (subjects: readonly string[]): string => subjects[0]?.split(".").at(-2) ?? "";
