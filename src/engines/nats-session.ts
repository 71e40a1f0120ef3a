import type { Msg, NatsConnection, Subscription } from "@nats-io/nats-core";
import type { HistoryOptions, Position } from "../engine.ts";
import { WebSocketError } from "../errors.ts";
import type { BrokerListener, BrokerPage, BrokerSession, SessionOptions } from "./broker.ts";
import { encodeName } from "./channel-name.ts";
import { JetStream, NANOSECONDS, type StreamMessage } from "./jetstream.ts";

/** How much the stream of a namespace keeps: the bounds of what channels may ask for. The largest that any node asks for counts. */
export interface NatsHistoryOptions {
  /** The largest `size` of a channel's history. @default {1_000} */
  maxSize?: number;
  /** The longest `ttl` of a channel's history, in ms. The stream keeps messages twice as long. @default {3_600_000} */
  maxTtl?: number;
  /** Bytes of all histories; beyond it the oldest publications are given up. @default {1_073_741_824} */
  maxBytes?: number;
  /** `memory` does not outlive a restart of the server. Read when the stream is made. @default {"file"} */
  storage?: "file" | "memory";
  /** On how many servers of a cluster it is kept: 1, 3 or 5. Read when the stream is made. @default {1} */
  replicas?: number;
}

/** Marks of one channel that may be in its history, beside its publications. */
const MARKS = 8;

/** What nodes leave behind that were all killed is kept no longer, in ms. */
const KEPT = 24 * 60 * 60_000;

/** Members of one channel, and nodes. */
const MAX_ENTRIES = 1_000_000;

/**
 * One connection to NATS. The offset of a publication is its sequence in the stream, which all channels of a namespace share, and the
 * epoch is in its subject: what is published by an epoch that is no more is refused. The stream publishes what it keeps anew, with the
 * sequence of the one before it in the same channel.
 *
 * Every position is that of a message, for only as long as that is kept nothing after it can be gone. So a channel's first position is
 * that of a mark, and a channel that is quiet gets another one before its last message is too old. A mark names the position it stands for.
 */
export class NatsSession implements BrokerSession {
  readonly #connection: NatsConnection;
  readonly #isShared: boolean;
  readonly #bounds: Required<NatsHistoryOptions>;
  readonly #listener: BrokerListener;
  readonly #options: SessionOptions;
  readonly #jetstream: JetStream;
  readonly #prefix: string;
  readonly #stream: string;
  readonly #membersBucket: string;
  readonly #nodesBucket: string;
  readonly #subscriptions = new Map<string, Subscription>();
  /** Of one member one thing is written at a time. */
  readonly #writing = new Map<string, Promise<void>>();
  #arriving: Promise<void> | undefined;
  #arrivingNext: Promise<void> | undefined;
  #own: Subscription | undefined;
  #epoch = "";
  #beat: number | undefined;
  #nodes: ReadonlySet<string> = new Set();
  #announced: number;
  #closed = false;

  constructor(
    connection: NatsConnection,
    isShared: boolean,
    bounds: Required<NatsHistoryOptions>,
    listener: BrokerListener,
    options: SessionOptions,
  ) {
    this.#connection = connection;
    this.#isShared = isShared;
    this.#bounds = bounds;
    this.#listener = listener;
    this.#options = options;
    // The engine has ended the session before, when an answer takes so long.
    this.#jetstream = new JetStream(connection, 4 * options.timeout);
    this.#prefix = `noroshi.${options.namespace}`;
    this.#stream = `NOROSHI_${options.namespace}`;
    this.#membersBucket = `noroshi-${options.namespace}-members`;
    this.#nodesBucket = `noroshi-${options.namespace}-nodes`;
    this.#announced = options.now();
  }

  async start(): Promise<void> {
    this.#watch();
    // One that is shared may be connecting again.
    await this.#connection.flush();
    const { maxSize, maxTtl, maxBytes, storage, replicas } = this.#bounds;
    const common = { retention: "limits", discard: "old", storage, num_replicas: replicas };
    const epoch = crypto.randomUUID();
    const [stream] = await Promise.all([
      this.#jetstream.open({
        ...common,
        name: this.#stream,
        subjects: [`${this.#prefix}.history.${epoch}.*`],
        max_msgs_per_subject: maxSize + 1 + MARKS,
        max_age: 2 * maxTtl * NANOSECONDS,
        max_bytes: maxBytes,
        republish: { src: `${this.#prefix}.history.${epoch}.*`, dest: `${this.#prefix}.channel.{{wildcard(1)}}.publication` },
      }),
      ...[this.#membersBucket, this.#nodesBucket].map((bucket) =>
        this.#jetstream.open({
          ...common,
          name: `KV_${bucket}`,
          subjects: [`$KV.${bucket}.>`],
          // What is written while all is read is not missed: the one before it is still there.
          max_msgs_per_subject: 2,
          max_age: KEPT * NANOSECONDS,
          max_bytes: -1,
          allow_rollup_hdrs: true,
          deny_delete: true,
        })
      ),
    ]);
    // Whoever made the stream has named the epoch.
    this.#epoch = stream!.subjects[0]?.split(".").at(-2) ?? ""; // `all` keeps the order.
    this.#own = this.#connection.subscribe(`${this.#prefix}.nodes`, {
      callback: (_, { data }) => this.#listener.message(utf8.decode(data)),
    });
    await this.#connection.flush();
  }

  async listen(channels: readonly string[]): Promise<void> {
    for (const channel of channels) {
      const callback = (error: Error | null, message: Msg) => {
        if (!error) this.#receive(channel, message);
      };
      this.#subscriptions.get(channel)?.unsubscribe();
      this.#subscriptions.set(channel, this.#connection.subscribe(this.#subject(channel, "*"), { callback }));
    }
    await this.#connection.flush();
  }

  async unlisten(channels: readonly string[]): Promise<void> {
    for (const channel of channels) {
      this.#subscriptions.get(channel)?.unsubscribe();
      this.#subscriptions.delete(channel);
    }
    await this.#connection.flush();
  }

  async publish(channel: string, envelope: string, history: HistoryOptions | null): Promise<Position | null> {
    this.#checkLength("publish", envelope);
    if (history) {
      const offset = await this.#jetstream.publish(this.#history(channel), envelope);
      return { epoch: this.#epoch, offset: offset! }; // Only with an expectation there is none.
    }
    this.#connection.publish(this.#subject(channel, "event"), envelope);
    await this.#arrive();
    return null;
  }

  async read(channel: string, history: HistoryOptions, after: Position | null, limit: number): Promise<BrokerPage> {
    const epoch = this.#epoch;
    const most = Math.min(history.size, limit);
    const oldest = this.#options.now() - history.ttl;
    const page = (top: number, messages: readonly StreamMessage[], isComplete: boolean): BrokerPage => ({
      position: { epoch, offset: top },
      entries: messages.map(({ sequence, text }) => ({ position: { epoch, offset: sequence }, envelope: text })),
      isComplete,
    });
    if (!after) {
      const all = most > 0 ? await this.#jetstream.list(this.#stream, this.#history(channel), 1, Infinity) : { messages: [] };
      const last = all.messages.at(-1);
      const kept = all.messages.filter(({ text, time }) => !isMark(text) && time > oldest);
      return page(last ? topOf(last) : await this.#top(channel), kept.slice(Math.max(0, kept.length - most)), true);
    }
    // From the position itself on: while it is there, so is all that followed.
    const { offset } = after;
    const from = after.epoch === epoch && offset > 0
      ? await this.#jetstream.list(this.#stream, this.#history(channel), offset, most + 1 + MARKS)
      : { messages: [], isWhole: false };
    const [first] = from.messages;
    const missed = from.messages.filter(({ sequence, text }) => sequence > offset && !isMark(text));
    const isThere = from.isWhole && first && (first.sequence === offset || (isMark(first.text) && topOf(first) === offset));
    if (!isThere || missed.length > most || missed.some(({ time }) => time <= oldest)) {
      return page(await this.#top(channel), [], false);
    }
    return page(missed.at(-1)?.sequence ?? offset, missed, true);
  }

  async tops(channels: readonly string[], _: readonly HistoryOptions[]): Promise<(Position | null)[]> {
    const tops = await Promise.all(channels.map(async (channel) => {
      const last = await this.#jetstream.last(this.#stream, this.#history(channel));
      if (!last) return null;
      // When another node has marked it meanwhile, or something was published, there is no need to.
      const isOld = last.time < this.#options.now() - this.#bounds.maxTtl;
      if (isOld) await this.#jetstream.publish(this.#history(channel), `${MARK}${topOf(last)}`, last.sequence);
      return topOf(last);
    }));
    return tops.map((offset) => offset === null ? null : { epoch: this.#epoch, offset });
  }

  async send(envelope: string): Promise<void> {
    this.#checkLength("send", envelope);
    this.#connection.publish(`${this.#prefix}.nodes`, envelope);
    await this.#arrive();
  }

  async beat(): Promise<boolean> {
    const { node, lease, now } = this.#options;
    const subject = `$KV.${this.#nodesBucket}.${node}`;
    const last = this.#beat;
    const wasKnown = last !== undefined && await this.#jetstream.publish(subject, `${lease}`, last);
    // It was swept after, or this is the first.
    this.#beat = wasKnown || (await this.#jetstream.publish(subject, `${lease}`))!; // Without an expectation there is one.
    if (!wasKnown) return false;
    // What is kept for a day is written again before that is over.
    if (now() - this.#announced < KEPT / 3) return true;
    this.#announced = now();
    return false;
  }

  async nodes(): Promise<string[]> {
    const beats = await this.#entries(this.#nodesBucket, "*");
    // By the server's clock: this node has said so a moment ago.
    const now = Math.max(...beats.map(({ time }) => time));
    const alive: string[] = [];
    for (const { subject, text, time } of beats) {
      const node = subject.slice(subject.lastIndexOf(".") + 1);
      if (time + (Number(text) || 0) > now) alive.push(node);
      else await this.#sweep(node);
    }
    this.#nodes = new Set(alive);
    return alive;
  }

  async join(channel: string, user: string, envelope: string): Promise<void> {
    await this.#tellOf(channel, user, envelope, async (subject) => void await this.#jetstream.publish(subject, envelope));
  }

  async leave(channel: string, user: string, envelope: string): Promise<void> {
    await this.#tellOf(channel, user, envelope, (subject) => this.#jetstream.purge(`KV_${this.#membersBucket}`, subject));
  }

  /** Told once it is written: who compares in between would take back what it was told. In the order of the calls, for each member. */
  async #tellOf(channel: string, user: string, envelope: string, write: (subject: string) => Promise<void>): Promise<void> {
    await this.#write(this.#member(channel, user), async (subject) => {
      await write(subject);
      this.#connection.publish(this.#subject(channel, "member"), envelope);
    });
    await this.#arrive();
  }

  async members(channel: string): Promise<string[]> {
    const all = await this.#entries(this.#membersBucket, `${encodeName(channel)}.*.*`);
    const nodeOf = ({ subject }: StreamMessage) => subject.split(".").at(-2) ?? "";
    if (all.some((member) => !this.#nodes.has(nodeOf(member)))) await this.nodes();
    return all.filter((member) => this.#nodes.has(nodeOf(member))).map(({ text }) => text);
  }

  async retire(): Promise<void> {
    await this.#sweep(this.#options.node);
  }

  close(): void {
    this.#closed = true;
    if (!this.#isShared) {
      // What goes wrong with a connection that is given up matters to nobody.
      this.#connection.close().catch(() => {});
      return;
    }
    for (const subscription of [this.#own, ...this.#subscriptions.values()]) subscription?.unsubscribe();
  }

  /** Until the server has what was published. It is asked once at a time: who comes meanwhile shares the next question, for each is a write. */
  #arrive(): Promise<void> {
    if (this.#arriving) return this.#arrivingNext ??= this.#arriving.then(this.#arriveNext, this.#arriveNext);
    return this.#arriving = this.#connection.flush().finally(() => this.#arriving = undefined);
  }

  readonly #arriveNext = (): Promise<void> => {
    this.#arrivingNext = undefined;
    return this.#arrive();
  };

  #watch(): void {
    const ended = (error: unknown) => this.#listener.ended(error ?? new Error("Cannot go on: the connection was closed"));
    this.#connection.closed().then(ended, ended);
    if (!this.#isShared) return;
    const follow = async () => {
      for await (const { type } of this.#connection.status()) {
        if (this.#closed) return;
        if (type === "disconnect" || type === "staleConnection") return ended(new Error("Cannot go on: the connection was lost"));
      }
    };
    follow().catch(ended);
  }

  #receive(channel: string, message: Msg): void {
    const kind = message.subject.slice(message.subject.lastIndexOf(".") + 1);
    const text = utf8.decode(message.data);
    if (kind === "event") return this.#listener.live(channel, text, null, 0);
    if (kind === "member") return this.#listener.member(channel, text);
    const { headers } = message;
    const epoch = headers?.get("Nats-Subject").split(".").at(-2) ?? "";
    const offset = Number(headers?.get("Nats-Sequence") || NaN);
    const previous = Number(headers?.get("Nats-Last-Sequence") || NaN);
    if (kind !== "publication" || epoch === "" || !Number.isSafeInteger(offset) || !Number.isSafeInteger(previous)) {
      return this.#listener.malformed();
    }
    if (isMark(text)) this.#listener.mark(channel, { epoch, offset }, previous);
    else this.#listener.live(channel, text, { epoch, offset }, previous);
  }

  /** Where the channel stands; it gets a mark to stand at where it has nothing. */
  async #top(channel: string): Promise<number> {
    for (;;) {
      const last = await this.#jetstream.last(this.#stream, this.#history(channel));
      if (last) return topOf(last);
      const marked = await this.#jetstream.publish(this.#history(channel), `${MARK}0`, 0);
      if (marked !== null) return marked;
    }
  }

  /** What a bucket holds. */
  async #entries(bucket: string, keys: string): Promise<readonly StreamMessage[]> {
    for (let attempt = 1;; attempt++) {
      const { messages, isWhole } = await this.#jetstream.list(
        `KV_${bucket}`,
        `$KV.${bucket}.${keys}`,
        "last of each",
        MAX_ENTRIES,
      );
      // Some went while they were read, and others may have been written anew.
      if (isWhole || attempt >= 5) return messages;
    }
  }

  async #sweep(node: string): Promise<void> {
    await this.#jetstream.purge(`KV_${this.#membersBucket}`, `$KV.${this.#membersBucket}.*.${node}.*`);
    await this.#jetstream.purge(`KV_${this.#nodesBucket}`, `$KV.${this.#nodesBucket}.${node}`);
  }

  #write(subject: string, write: (subject: string) => Promise<void>): Promise<void> {
    const before = this.#writing.get(subject) ?? Promise.resolve();
    const writing = before.then(() => write(subject), () => write(subject)).finally(() => {
      if (this.#writing.get(subject) === writing) this.#writing.delete(subject);
    });
    this.#writing.set(subject, writing);
    return writing;
  }

  #checkLength(action: string, envelope: string): void {
    const most = this.#connection.info?.max_payload ?? Infinity;
    // A character takes three bytes at most.
    if (envelope.length * 3 <= most || utf8Encoder.encode(envelope).length <= most) return;
    throw new WebSocketError("engine", "LIMIT_EXCEEDED", `Cannot ${action}: it is more than the ${most} bytes that NATS takes`);
  }

  #subject(channel: string, kind: string): string {
    return `${this.#prefix}.channel.${encodeName(channel)}.${kind}`;
  }

  #history(channel: string): string {
    return `${this.#prefix}.history.${this.#epoch}.${encodeName(channel)}`;
  }

  #member(channel: string, user: string): string {
    return `$KV.${this.#membersBucket}.${encodeName(channel)}.${this.#options.node}.${encodeName(user)}`;
  }
}

/** No envelope begins so: its first line is a signature or nothing. */
const MARK = "mark ";

const isMark = (text: string): boolean => text.startsWith(MARK);

/** The position that a message stands for. */
function topOf({ sequence, text }: StreamMessage): number {
  return isMark(text) ? Number(text.slice(MARK.length)) || sequence : sequence;
}

const utf8 = new TextDecoder();
const utf8Encoder = new TextEncoder();
