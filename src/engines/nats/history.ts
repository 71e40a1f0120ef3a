import type { HistoryOptions, Position, PublishOnce } from "../engine.ts";
import type { BrokerPage, Seal, SessionOptions } from "../broker/broker.ts";
import { encodeName } from "../broker/channel-name.ts";
import { hasNoRoom, isGone, type JetStream, type StreamConfig, type StreamInfo } from "./jetstream.ts";
import { isMark, leastOffsetOf, markOf, MAX_SEQUENCE, offsetOf, sequenceOf, standsFor } from "./offset.ts";
import { messageId, WINDOW } from "./publish-once.ts";
import { NS_PER_MS, type StreamMessage } from "./pull-consumer.ts";
import { ServerClock } from "./server-clock.ts";

/** Bounds of the histories of a namespace, which share one stream. If nodes differ, the largest `maxSize` and `maxTtl` apply. */
export interface NatsHistoryOptions {
  /** Maximum `size` of a channel's history. @default {1_000} */
  maxSize?: number;
  /** Maximum `ttl` of a channel's history, in ms. The stream keeps messages for twice as long. @default {3_600_000} */
  maxTtl?: number;
  /**
   * Maximum size of all histories together, in bytes; beyond it the oldest publications are deleted. The server reserves it when the
   * stream is created.
   *
   * @default the largest of 1,024, 256, 64 and 16 MiB that the server has room for
   */
  maxBytes?: number;
  /** Where the server stores the stream; `"memory"` is lost when it restarts. Used when the stream is created. @default {"file"} */
  storage?: "file" | "memory";
  /** Number of servers of a cluster that store the stream: 1, 3 or 5. Used when the stream is created. @default {1} */
  replicas?: number;
}

/** {@link NatsHistoryOptions} with defaults applied. */
export interface NatsBounds extends Required<Omit<NatsHistoryOptions, "maxBytes">> {
  /** Sizes in bytes to try, in order, until the server has room for one. */
  readonly maxBytes: readonly number[];
}

/** What a node knows of the stream, across sessions. A stream that has less has lost data. */
export interface NatsMemory {
  epoch: string;
  /** The highest sequence that the server has reported. */
  sequence: number;
  /** Offset of the last message that the server has returned or acknowledged; 0 before the first. */
  offset: number;
}

/** The stream and its epoch. */
interface Current {
  /** Random token in the stream's subjects, so that a publication for an earlier stream of the same name is refused. */
  readonly generation: string;
  readonly epoch: string;
}

/** Number of marks of a channel that are stored in addition to its publications. */
const MARKS = 8;

/** Subject token of the anchor. No channel name is encoded as `=`. */
const ANCHOR = "=";

/** Prefix of the anchor's text; the epoch follows. */
const EPOCH = "epoch ";

/**
 * The histories of a namespace, in one JetStream stream. An offset is a message's sequence in the stream, with some bits of its hash.
 * The epoch is stored in the stream as a message, the anchor. A new epoch begins if the anchor is lost, or if the stream ends before the
 * last message that this node knows. The stream republishes each message, with the sequence of the previous one in the same channel.
 *
 * A position is valid only while its message is stored, because only then nothing after it can have been deleted. So an empty channel
 * gets a mark as its first position, and a channel without new publications gets another one before its last message expires. A mark
 * contains the offset that it stands for.
 */
export class NatsHistory {
  readonly #jetstream: JetStream;
  readonly #prefix: string;
  readonly #stream: string;
  readonly #bounds: NatsBounds;
  readonly #slack: number;
  readonly #memory: NatsMemory;
  readonly #positions: () => Iterable<Position>;
  /** Replaced as a whole, so that a publication never gets the epoch of another stream. */
  #current: Current = { generation: "", epoch: "" };
  #opening: Promise<void> | undefined;
  /** Time in ms for which the stream recognizes repeated ids. */
  #window = WINDOW;
  /** The last sequence that was acknowledged. */
  #acknowledged = 0;
  readonly #clock = new ServerClock();

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

  /** Creates the stream if it is missing, and reads the epoch or begins one. Concurrent calls share one run. */
  open(): Promise<void> {
    // Retried once, because the stream may be deleted during a run, which later calls share.
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
      // With slack, because marks and the anchor are renewed at checks and heartbeats only.
      max_age: Math.max(2 * maxTtl + this.#slack, this.#window) * NS_PER_MS,
      duplicate_window: this.#window * NS_PER_MS,
      republish: { src: `${this.#prefix}.history.${proposed}.*`, dest: `${this.#prefix}.channel.{{wildcard(1)}}.publication` },
    });
    // An existing stream has the generation that the node has proposed which created it.
    const generation = generationOf(subjects);
    const subject = this.#subject(ANCHOR, generation);
    this.#acknowledged = 0;
    let epoch = "";
    for (let hasWritten = false; !hasWritten;) {
      const anchor = await this.#jetstream.last(this.#stream, subject);
      const known = anchor?.text.startsWith(EPOCH) ? anchor.text.slice(EPOCH.length) : "";
      const isLost = known === "" || (known === memory.epoch
        ? await this.#hasGoneBack(last_seq, memory)
        // Another epoch means that the stream was set back, unless it is a later one.
        : memory.epoch !== "" && orderOf(known) <= orderOf(memory.epoch));
      epoch = isLost ? `${Math.max(orderOf(known), orderOf(memory.epoch)) + 1}.${crypto.randomUUID()}` : known;
      // Written even if nothing is lost, because the new message shows the server's time.
      hasWritten = await this.#replace(subject, `${EPOCH}${epoch}`, anchor) || !isLost;
    }
    const info = await this.#jetstream.info(this.#stream);
    if (!info) throw new Error(`Cannot use the stream ${this.#stream}: it was deleted`);
    const { state } = info;
    if (state.last_seq > MAX_SEQUENCE / 2) throw new Error(`Cannot use the stream ${this.#stream}: it is full, delete it`);
    this.#current = { generation, epoch };
    const offset = epoch === memory.epoch ? this.#memory.offset : 0;
    Object.assign(this.#memory, { epoch, sequence: state.last_seq, offset });
    this.#clock.update(state);
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

  /** Begins a new epoch if the stream has lost data or is another one. Renews the anchor. */
  async verify(): Promise<void> {
    const known = this.#currentMemory();
    const [info, anchor] = await Promise.all([this.#jetstream.info(this.#stream), this.#anchor()]);
    const isOurs = info && anchor && generationOf(info.config.subjects) === this.#current.generation;
    if (!isOurs || await this.#hasGoneBack(info.state.last_seq, known)) return await this.open();
    const { state } = info;
    this.#memory.sequence = Math.max(this.#memory.sequence, state.last_seq);
    this.#clock.update(state);
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
        // Without the message its hash is unknown, but nobody can recover from its position anyway.
        return { epoch, offset: message ? offsetOf(message.sequence, message.text) : leastOffsetOf(sent.sequence) };
      }
      // `publish` resolves with `null` only if a sequence is expected.
      const sequence = sent?.sequence ?? (await this.#jetstream.publish(this.#subject(name), envelope))!;
      const offset = offsetOf(sequence, envelope);
      this.#remember(offset);
      // Acknowledgements arrive in order, so a sequence that does not grow means that the stream was set back.
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
    // Queried after the list: if the position is still stored, nothing after it had been deleted before the list.
    const [message, anchor] = await Promise.all([this.#jetstream.message(this.#stream, { seq }), this.#anchor()]);
    // Without an anchor, another node may have noticed a loss and begun the next epoch.
    if (!anchor) await this.open();
    const isThere = message?.subject === subject && [offsetOf(seq, message.text), standsFor(message)].includes(offset);
    const missed = from.messages.filter(({ text }) => !isMark(text));
    // `count` has no marks beyond this page, because a mark is set after old messages only.
    const count = from.count - (from.messages.length - missed.length);
    const isComplete = isThere && count <= most && (from.isWhole || (maxBytes < Infinity && missed.length > 0));
    if (after.epoch !== this.epoch || !isComplete || missed.some(({ time }) => time <= oldest)) return await refused();
    if (!from.isWhole) return { ...page(await this.#endOffset(name), missed, true), hasMore: true };
    const last = missed.at(-1);
    return page(last ? offsetOf(last.sequence, last.text) : offset, missed, true);
  }

  /** Invalidates all positions of the channel, or those up to `upTo`. Resolves with whether there was a history. */
  end(channel: string, upTo?: Position): Promise<boolean> {
    return this.#retryIfGone(async () => {
      if (upTo && upTo.epoch !== this.epoch) return false;
      const subject = this.#subject(encodeName(channel));
      if (!await this.#jetstream.last(this.#stream, subject)) return false;
      await this.#jetstream.purge(this.#stream, subject, upTo && sequenceOf(upTo.offset));
      return true;
    });
  }

  /** Resolves with the latest position of each channel, or `null` without a history. Sets a mark after a message that will expire. */
  latestPositions(channels: readonly string[]): Promise<(Position | null)[]> {
    return this.#retryIfGone(() => Promise.all(channels.map((channel) => this.#latestPosition(encodeName(channel)))));
  }

  async #latestPosition(name: string): Promise<Position | null> {
    const last = await this.#jetstream.last(this.#stream, this.#subject(name));
    if (!last) return null;
    this.#remember(offsetOf(last.sequence, last.text));
    const offset = standsFor(last);
    // If it resolves with `null`, another node has set the mark, or there was a publication.
    if (last.time < this.now() - this.#bounds.maxTtl) {
      await this.#jetstream.publish(this.#subject(name), markOf(offset), last.sequence);
    }
    return { epoch: this.epoch, offset };
  }

  /** The position of a republished message. Its epoch is `""` if it comes from another stream of this name. */
  positionOf(subject: string, sequence: number, text: string): Position {
    const { generation, epoch } = this.#current;
    return { epoch: generationOf([subject]) === generation ? epoch : "", offset: offsetOf(sequence, text) };
  }

  /** The offset at the end of the channel. An empty channel gets a mark. */
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

  /** Replaces a message, or adds the first one. Resolves with `false` if another node was faster. */
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

  /** Creates the stream again if it was deleted, and retries once. */
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
   * What this node knows of the stream, from answers and from its subscriptions. Call it before the request whose answer is compared with
   * it, because later publications are not in that answer.
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
    // A late answer of an earlier session may be of another epoch.
    if (offset > memory.offset && memory.epoch === this.epoch) memory.offset = offset;
  }

  /** Whether the stream ends before the last known message, or has another one at its sequence. @param last sequence of the stream. */
  async #hasGoneBack(last: number, { sequence, offset }: NatsMemory): Promise<boolean> {
    if (last < sequence || last < sequenceOf(offset)) return true;
    const message = offset > 0 ? await this.#jetstream.message(this.#stream, { seq: sequenceOf(offset) }) : null;
    // A missing message proves nothing, because messages expire.
    return message !== null && offsetOf(message.sequence, message.text) !== offset;
  }

  /** The server's clock, in ms. */
  now(): number {
    return this.#clock.now();
  }

  #subject(name: string, generation = this.#current.generation): string {
    return `${this.#prefix}.history.${generation}.${name}`;
  }
}

/** Number of an epoch, which is greater than those of all epochs that its node knew. 0 for an epoch of an earlier version. */
const orderOf = (epoch: string): number => Number(/^(\d{1,9})\./.exec(epoch)?.[1] ?? 0);

const generationOf = (subjects: readonly string[]): string => subjects[0]?.split(".").at(-2) ?? "";
