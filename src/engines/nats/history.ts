import type { HistoryOptions, Position, PublishOnce } from "../engine.ts";
import type { BrokerPage, Seal, SessionOptions } from "../broker/broker.ts";
import { encodeName } from "../broker/channel-name.ts";
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
import { isMark, leastOffsetOf, markOf, MAX_SEQUENCE, offsetOf, sequenceOf, standsFor } from "./offset.ts";
import { messageId, WINDOW } from "./publish-once.ts";

/** Bounds of the histories of a namespace, which share one stream. When nodes differ, the largest `maxSize` and `maxTtl` apply. */
export interface NatsHistoryOptions {
  /** The largest `size` of a channel's history. @default {1_000} */
  maxSize?: number;
  /** The largest `ttl` of a channel's history, in ms. The stream keeps messages for twice as long. @default {3_600_000} */
  maxTtl?: number;
  /**
   * Maximum size of all histories together, in bytes; beyond it the oldest publications are deleted. The server reserves it when the
   * stream is created.
   * @default the largest of 1,024, 256, 64 and 16 MiB that the server has room for
   */
  maxBytes?: number;
  /** Where the server stores the stream; `"memory"` is lost when it restarts. Used when the stream is created. @default {"file"} */
  storage?: "file" | "memory";
  /** Number of servers of a cluster that store the stream: 1, 3 or 5. Used when the stream is created. @default {1} */
  replicas?: number;
}

/** {@link NatsHistoryOptions} with the defaults filled in. */
export interface NatsBounds extends Required<Omit<NatsHistoryOptions, "maxBytes">> {
  /** Sizes to try, in order, until the server has room for one. */
  readonly maxBytes: readonly number[];
}

/** What a node remembers of the stream across sessions. A stream that has less has lost data. */
export interface NatsMemory {
  epoch: string;
  /** The last sequence that the server has reported. */
  sequence: number;
  /** Offset of the last message that the server has returned or acknowledged; 0 when there was none. */
  offset: number;
}

/** The stream and its epoch. */
interface Current {
  /** Token in the stream's subjects, random per stream: a publication meant for an earlier stream of the same name is refused. */
  readonly generation: string;
  readonly epoch: string;
}

/** Room for marks of a channel, in addition to its publications. */
const MARKS = 8;

/** Subject token of the anchor. No channel is encoded as a lone `=`. */
const ANCHOR = "=";

/** Prefix of the anchor's text; the epoch follows. */
const EPOCH = "epoch ";

/** A server's clock that goes back further than this, in ms, is followed; smaller steps are ignored. */
const MAX_STEP = 60_000;

/**
 * The histories of a namespace, in one JetStream stream. An offset is a message's sequence in the stream plus some bits of its hash.
 * The epoch is stored in the stream as a message, the anchor: a new epoch begins when the anchor is lost, or when the stream ends
 * before what this node knows of it. The stream republishes each message, with the sequence of the one before it in the same channel.
 *
 * A position is valid only while its message is stored, because only then nothing after it can have been deleted. An empty channel
 * therefore gets a mark as its first position, and a quiet channel another one before its last message expires. A mark names the
 * offset it stands for.
 */
export class NatsHistory {
  readonly #jetstream: JetStream;
  readonly #prefix: string;
  readonly #stream: string;
  readonly #bounds: NatsBounds;
  readonly #slack: number;
  readonly #memory: NatsMemory;
  readonly #positions: () => Iterable<Position>;
  /** Replaced as a whole, so that no publication in one stream gets the epoch of another. */
  #current: Current = { generation: "", epoch: "" };
  #opening: Promise<void> | undefined;
  /** Time in ms that the stream remembers ids. */
  #window = WINDOW;
  /** The last sequence that was acknowledged. */
  #acknowledged = 0;
  /** Server time of the last message, its sequence, and the local monotonic time at which it was seen. */
  #time = { last: 0, sequence: 0, base: 0 };

  constructor(
    jetstream: JetStream,
    { namespace, slack, positions }: SessionOptions,
    bounds: NatsBounds,
    memory: NatsMemory,
  ) {
    this.#jetstream = jetstream;
    this.#prefix = `noroshi.${namespace}`;
    this.#stream = `NOROSHI_${namespace}`;
    this.#bounds = bounds;
    this.#slack = slack;
    this.#positions = positions;
    this.#memory = memory;
  }

  get epoch(): string {
    return this.#current.epoch;
  }

  /** Creates the stream if needed, and reads the epoch or begins one. Concurrent calls share one run. */
  open(): Promise<void> {
    // A run may have found the stream before another client deleted it, and other calls share the run.
    const again = (error: unknown) => isGone(error) ? this.#open() : Promise.reject(error);
    return this.#opening ??= this.#open().catch(again).finally(() => this.#opening = undefined);
  }

  async #open(): Promise<void> {
    const { maxSize, maxTtl, storage, replicas } = this.#bounds;
    const memory = this.#currentMemory();
    const proposed = crypto.randomUUID();
    const { config: { subjects }, state: { last_seq } } = await this.#make({
      name: this.#stream,
      retention: "limits",
      discard: "old",
      storage,
      num_replicas: replicas,
      subjects: [`${this.#prefix}.history.${proposed}.*`],
      max_msgs_per_subject: maxSize + 1 + MARKS,
      // Slack: marks and the anchor are renewed at checks and heartbeats, not exactly in time.
      max_age: Math.max(2 * maxTtl + this.#slack, this.#window) * NANOSECONDS,
      duplicate_window: this.#window * NANOSECONDS,
      republish: { src: `${this.#prefix}.history.${proposed}.*`, dest: `${this.#prefix}.channel.{{wildcard(1)}}.publication` },
    });
    // An existing stream has the generation of the node that created it.
    const generation = generationOf(subjects);
    const subject = this.#subject(ANCHOR, generation);
    this.#acknowledged = 0;
    let epoch = "";
    for (let hasWritten = false; !hasWritten;) {
      const anchor = await this.#jetstream.last(this.#stream, subject);
      const known = anchor?.text.startsWith(EPOCH) ? anchor.text.slice(EPOCH.length) : "";
      const isLost = known === "" || (known === memory.epoch
        ? await this.#hasGoneBack(last_seq, memory)
        // Another epoch: the stream has gone back unless it is a later one.
        : memory.epoch !== "" && orderOf(known) <= orderOf(memory.epoch));
      epoch = isLost ? `${Math.max(orderOf(known), orderOf(memory.epoch)) + 1}.${crypto.randomUUID()}` : known;
      // Written even when nothing is lost: the new message shows the server's time.
      hasWritten = await this.#replace(subject, `${EPOCH}${epoch}`, anchor) || !isLost;
    }
    const info = await this.#jetstream.info(this.#stream);
    if (!info) throw new Error(`Cannot use the stream ${this.#stream}: it was deleted`);
    const { state } = info;
    if (state.last_seq > MAX_SEQUENCE / 2) throw new Error(`Cannot use the stream ${this.#stream}: it is full, delete it`);
    this.#current = { generation, epoch };
    const offset = epoch === memory.epoch ? this.#memory.offset : 0;
    Object.assign(this.#memory, { epoch, sequence: state.last_seq, offset });
    this.#updateClock(state);
  }

  async #make(config: StreamConfig): Promise<StreamInfo> {
    let refusal: unknown;
    for (const max_bytes of this.#bounds.maxBytes) {
      try {
        return await this.#jetstream.open({ ...config, max_bytes });
      } catch (error) {
        if (!hasNoRoom(error)) throw error;
        const { message } = error as Error; // `hasNoRoom` accepts only a JetStreamError.
        refusal = new Error(`${message}, for a stream of ${max_bytes} bytes: lower history.maxBytes, or give JetStream more`);
      }
    }
    throw refusal;
  }

  /** Begins a new epoch when the stream has lost data or is another one. */
  async verify(): Promise<void> {
    const known = this.#currentMemory();
    const [info, anchor] = await Promise.all([this.#jetstream.info(this.#stream), this.#anchor()]);
    const isOurs = info && anchor && generationOf(info.config.subjects) === this.#current.generation;
    if (!isOurs || await this.#hasGoneBack(info.state.last_seq, known)) return await this.open();
    const { state } = info;
    this.#memory.sequence = Math.max(this.#memory.sequence, state.last_seq);
    this.#updateClock(state);
    // Renew the anchor before `max_age` or, in a full stream, `max_bytes` deletes it.
    const isOld = anchor.time < this.now() - this.#bounds.maxTtl / 2;
    if (isOld || anchor.sequence - state.first_seq < (state.last_seq - state.first_seq) / 2) {
      await this.#replace(this.#subject(ANCHOR), anchor.text, anchor);
    }
  }

  async publish(channel: string, seal: Seal, once?: PublishOnce): Promise<Position> {
    const name = encodeName(channel);
    if (once && once.window > this.#window) {
      this.#window = once.window;
      await this.open();
    }
    return await this.#retryIfGone(async () => {
      const sealed = seal();
      const envelope = typeof sealed === "string" ? sealed : await sealed;
      const { epoch } = this.#current;
      const sent = once && await this.#jetstream.publishOnce(this.#subject(name), envelope, messageId(channel, once));
      if (sent?.isDuplicate) {
        const message = await this.#jetstream.message(this.#stream, { seq: sent.sequence });
        // Nobody can recover from the position of a message that is not stored any more.
        return { epoch, offset: message ? offsetOf(message.sequence, message.text) : leastOffsetOf(sent.sequence) };
      }
      // `null` only with an expected sequence.
      const sequence = sent?.sequence ?? (await this.#jetstream.publish(this.#subject(name), envelope))!;
      const offset = offsetOf(sequence, envelope);
      this.#remember(offset);
      // Acknowledgements arrive in order: a sequence that does not grow means that the stream has gone back.
      if (sequence <= this.#acknowledged) {
        this.#memory.sequence = Infinity;
        await this.open();
        return { epoch: this.epoch, offset };
      }
      this.#acknowledged = sequence;
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
    return this.#retryIfGone(() => this.#read(encodeName(channel), history, after, limit, maxBytes));
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
    const page = (end: number, messages: readonly StreamMessage[], isComplete: boolean): BrokerPage => {
      const epoch = this.epoch;
      const entries = messages.map(({ sequence, text, time }) => ({
        position: { epoch, offset: offsetOf(sequence, text) },
        envelope: text,
        time,
      }));
      return { position: { epoch, offset: end }, entries, isComplete };
    };
    if (!after) {
      const messages = most > 0 ? await this.#jetstream.listLast(this.#stream, subject, most + MARKS) : [];
      const last = messages.at(-1);
      const kept = messages.filter(({ text, time }) => !isMark(text) && time > oldest);
      return page(last ? standsFor(last) : await this.#endOffset(name), kept.slice(Math.max(0, kept.length - most)), true);
    }
    const refused = async () => page(await this.#endOffset(name), [], false);
    if (after.epoch !== this.epoch) return await refused();
    const { offset } = after;
    const seq = sequenceOf(offset);
    const from = await this.#jetstream.list(this.#stream, subject, seq + 1, most + MARKS, maxBytes);
    // Queried after the list: if the position is still stored, nothing that followed it was deleted before.
    const [message, anchor] = await Promise.all([this.#jetstream.message(this.#stream, { seq }), this.#anchor()]);
    // Another node may have noticed a loss and begun the next epoch.
    if (!anchor) await this.open();
    const isThere = message?.subject === subject && [offsetOf(seq, message.text), standsFor(message)].includes(offset);
    const missed = from.messages.filter(({ text }) => !isMark(text));
    // Marks are set only behind old messages, and come before younger ones: the entries past this page include none.
    const count = from.count - (from.messages.length - missed.length);
    const isComplete = isThere && count <= most && (from.isWhole || (maxBytes < Infinity && missed.length > 0));
    if (after.epoch !== this.epoch || !isComplete || missed.some(({ time }) => time <= oldest)) return await refused();
    if (!from.isWhole) return { ...page(await this.#endOffset(name), missed, true), hasMore: true };
    const last = missed.at(-1);
    return page(last ? offsetOf(last.sequence, last.text) : offset, missed, true);
  }

  /** Invalidates the positions of the channel, all or up to one. @returns whether there was a history to end. */
  end(channel: string, upTo?: Position): Promise<boolean> {
    return this.#retryIfGone(async () => {
      if (upTo && upTo.epoch !== this.epoch) return false;
      const subject = this.#subject(encodeName(channel));
      if (!await this.#jetstream.last(this.#stream, subject)) return false;
      await this.#jetstream.purge(this.#stream, subject, upTo && sequenceOf(upTo.offset));
      return true;
    });
  }

  /** The end of each channel's history; `null` when it has none. Quiet channels get a mark. */
  latestPositions(channels: readonly string[]): Promise<(Position | null)[]> {
    return this.#retryIfGone(() => Promise.all(channels.map((channel) => this.#latestPosition(encodeName(channel)))));
  }

  async #latestPosition(name: string): Promise<Position | null> {
    const last = await this.#jetstream.last(this.#stream, this.#subject(name));
    if (!last) return null;
    this.#remember(offsetOf(last.sequence, last.text));
    const offset = standsFor(last);
    // A `null` result is fine: another node has set the mark, or there was a publication.
    if (last.time < this.now() - this.#bounds.maxTtl) {
      await this.#jetstream.publish(this.#subject(name), markOf(offset), last.sequence);
    }
    return { epoch: this.epoch, offset };
  }

  /** Position of a republished message, by its headers. Its epoch is `""` when it comes from another stream of this name. */
  positionOf(subject: string, sequence: number, text: string): Position {
    const { generation, epoch } = this.#current;
    return { epoch: generationOf([subject]) === generation ? epoch : "", offset: offsetOf(sequence, text) };
  }

  /** The offset at the end of the channel, which gets a mark if it is empty. */
  async #endOffset(name: string): Promise<number> {
    for (;;) {
      const subject = this.#subject(name);
      const last = await this.#jetstream.last(this.#stream, subject);
      if (last) return standsFor(last);
      const mark = markOf();
      const marked = await this.#jetstream.publish(subject, mark, 0);
      if (marked !== null) return offsetOf(marked, mark);
    }
  }

  /** Replaces a message; `false` when another node was faster. */
  async #replace(subject: string, text: string, message: StreamMessage | null): Promise<boolean> {
    const written = await this.#jetstream.publish(subject, text, message?.sequence ?? 0);
    if (written !== null && message) await this.#jetstream.delete(this.#stream, message.sequence);
    return written !== null;
  }

  /** The anchor, if it names the current epoch. */
  async #anchor(): Promise<StreamMessage | null> {
    const anchor = await this.#jetstream.last(this.#stream, this.#subject(ANCHOR));
    return anchor?.text === `${EPOCH}${this.epoch}` ? anchor : null;
  }

  /** Retries once when the stream was gone, after creating it again. */
  async #retryIfGone<Result>(request: () => Promise<Result>): Promise<Result> {
    try {
      return await request();
    } catch (error) {
      if (!isGone(error)) throw error;
      await this.open();
      return await request();
    }
  }

  /**
   * What this node knows of the stream now, from answers and from what its subscriptions have received. Call it before a request: what
   * arrives meanwhile is later than the answer.
   */
  #currentMemory(): NatsMemory {
    const known = { ...this.#memory };
    for (const { epoch, offset } of this.#positions()) {
      if (epoch === known.epoch) known.offset = Math.max(known.offset, offset);
    }
    return known;
  }

  #remember(offset: number): void {
    const memory = this.#memory;
    // A late answer to an earlier session must not change what the current one knows.
    if (offset > memory.offset && memory.epoch === this.epoch) memory.offset = offset;
  }

  /** Whether the stream ends before the last message that the memory knows, or has another message at its sequence. */
  async #hasGoneBack(last: number, { sequence, offset }: NatsMemory): Promise<boolean> {
    if (last < sequence || last < sequenceOf(offset)) return true;
    const message = offset > 0 ? await this.#jetstream.message(this.#stream, { seq: sequenceOf(offset) }) : null;
    // A missing message proves nothing: limits delete messages.
    return message !== null && offsetOf(message.sequence, message.text) !== offset;
  }

  /** Sets the server's time: that of its last message, plus the local time since. No times of two machines are compared. */
  #updateClock({ last_seq, last_ts }: StreamState): void {
    const { sequence } = this.#time;
    if (last_seq === sequence) return;
    const last = Date.parse(last_ts);
    const now = this.now();
    this.#time = { last: last < now - MAX_STEP ? last : Math.max(last, now), sequence: last_seq, base: performance.now() };
  }

  /** The server's clock, in ms. */
  now(): number {
    const { last, base } = this.#time;
    return last + performance.now() - base;
  }

  #subject(name: string, generation = this.#current.generation): string {
    return `${this.#prefix}.history.${generation}.${name}`;
  }
}

/** Number of an epoch: greater than those of all epochs that its node knew. 0 for one of an earlier version. */
const orderOf = (epoch: string): number => Number(/^(\d{1,9})\./.exec(epoch)?.[1] ?? 0);

const generationOf = (subjects: readonly string[]): string => subjects[0]?.split(".").at(-2) ?? "";
