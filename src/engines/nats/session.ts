import type { Msg, NatsConnection, QueuedIterator, Status, Subscription } from "@nats-io/nats-core";
import type { HistoryOptions, Position } from "../engine.ts";
import { WebSocketError } from "../../protocol/errors.ts";
import { type BrokerListener, type BrokerPage, type BrokerSession, chain, type SessionOptions } from "../broker/broker.ts";
import { decodeName, encodeAny, encodeName } from "../broker/channel-name.ts";
import { NatsAnswerStore } from "./answer-store.ts";
import { isGone, JetStream, type StreamInfo } from "./jetstream.ts";
import { type NatsBounds, NatsHistory, type NatsMemory } from "./history.ts";
import { isMark } from "./offset.ts";
import { NatsPublishOnce } from "./publish-once.ts";
import { NS_PER_MS, type StreamMessage } from "./pull-consumer.ts";
import { ORDER_KEYS, orderKey, ordersSince } from "./orders.ts";
import { UndeclaredHistories } from "./undeclared-histories.ts";

/** Expiry of entries in the buckets, in ms, so that they are deleted even if all nodes were killed. */
const RETENTION = 24 * 60 * 60_000;

/** Maximum number of entries that one read of a bucket returns. */
const MAX_ENTRIES = 1_000_000;

/** Session with NATS, over one connection. */
export class NatsSession implements BrokerSession {
  readonly #connection: NatsConnection;
  readonly #isShared: boolean;
  readonly #bounds: NatsBounds;
  readonly #history: NatsHistory;
  readonly #once: NatsPublishOnce;
  readonly answers: NatsAnswerStore;
  readonly #listener: BrokerListener;
  readonly #options: SessionOptions;
  readonly #jetstream: JetStream;
  readonly #inboxPrefix: string;
  readonly #prefix: string;
  readonly #membersBucket: string;
  readonly #nodesBucket: string;
  readonly #subscriptions = new Map<string, Subscription>();
  /** The state of each bucket at the last heartbeat. */
  readonly #buckets = new Map<string, StreamInfo>();
  readonly #undeclared: UndeclaredHistories = new UndeclaredHistories({
    watch: (channel, added) => {
      const subscription = this.#subscribe(this.#subject(channel, "publication"), added);
      return () => subscription.unsubscribe();
    },
    end: (channel) => this.#history.end(channel),
    failed: (error) => this.#ended(error),
  });
  /** By member: its last write. Writes of one member run one after the other. */
  readonly #writing = new Map<string, Promise<void>>();
  #flushing: Promise<void> | undefined;
  #nextFlush: Promise<void> | undefined;
  #nodesSubscription: Subscription | undefined;
  #statuses: QueuedIterator<Status> | undefined;
  #lastHeartbeat: number | undefined;
  #nodes: ReadonlySet<string> = new Set();
  #announcedAt: number;
  #closed = false;

  constructor(
    connection: NatsConnection,
    isShared: boolean,
    bounds: NatsBounds,
    listener: BrokerListener,
    options: SessionOptions,
    memory: NatsMemory,
  ) {
    this.#connection = connection;
    this.#isShared = isShared;
    this.#bounds = bounds;
    this.#listener = listener;
    this.#options = options;
    this.#inboxPrefix = inboxPrefixOf(connection);
    // Longer than the three timeouts after which the engine ends the session.
    this.#jetstream = new JetStream(connection, Math.min(4 * options.timeout, 2 ** 31 - 1), this.#inboxPrefix);
    this.#history = new NatsHistory(this.#jetstream, options, bounds, memory);
    this.#once = new NatsPublishOnce(this.#jetstream, options.namespace, bounds);
    this.answers = new NatsAnswerStore(this.#jetstream, options.namespace, bounds);
    this.#prefix = `noroshi.${options.namespace}`;
    this.#membersBucket = `noroshi-${options.namespace}-members`;
    this.#nodesBucket = `noroshi-${options.namespace}-nodes`;
    this.#announcedAt = performance.now();
  }

  get fullNamespace(): string {
    return this.#options.namespace;
  }

  now(): number {
    return this.#history.now();
  }

  async start(): Promise<void> {
    this.#watch().catch((error) => this.#ended(error));
    // `flush` waits for a shared connection that is reconnecting.
    if (this.#isShared) await this.#connection.flush();
    // The server handles requests in order, so it has subscribed this node when it answers the following ones.
    this.#nodesSubscription = this.#subscribe(`${this.#prefix}.nodes`, ({ data }) => this.#listener.message(utf8.decode(data)));
    const { storage, replicas } = this.#bounds;
    await Promise.all([
      this.#history.open(),
      ...[this.#membersBucket, this.#nodesBucket].map(async (bucket) => {
        const made = await this.#jetstream.open({
          name: `KV_${bucket}`,
          retention: "limits",
          discard: "old",
          storage,
          num_replicas: replicas,
          subjects: [`$KV.${bucket}.>`],
          // Keeps the previous value of an entry that is overwritten during a read.
          max_msgs_per_subject: 2,
          max_age: RETENTION * NS_PER_MS,
          max_bytes: -1,
          allow_rollup_hdrs: true,
          deny_delete: true,
        });
        this.#buckets.set(bucket, made);
      }),
    ]);
  }

  async listen(channels: readonly string[]): Promise<void> {
    for (const channel of channels) {
      this.#subscriptions.get(channel)?.unsubscribe();
      this.#subscriptions.set(
        channel,
        this.#subscribe(this.#subject(channel, "*"), (message) => this.#receive(channel, message)),
      );
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

  async publish(...[channel, seal, history, , once]: Parameters<BrokerSession["publish"]>): Promise<Position | null> {
    const checked = () => chain(seal(), (envelope) => this.#checkLength("publish", envelope));
    if (history) return await this.#history.publish(channel, checked, once);
    const sealed = checked();
    const envelope = typeof sealed === "string" ? sealed : await sealed;
    if (once) await this.#once.publish(channel, envelope, once);
    else this.#connection.publish(this.#subject(channel, "event"), envelope);
    await (this.#undeclared.afterPublish(channel) ?? this.#flush());
    return null;
  }

  read(...query: Parameters<NatsHistory["read"]>): Promise<BrokerPage> {
    return this.#history.read(...query);
  }

  async endHistory(channel: string, upTo: Position): Promise<void> {
    await this.#history.end(channel, upTo);
  }

  latestPositions(channels: readonly string[], _: readonly HistoryOptions[]): Promise<(Position | null)[]> {
    return this.#history.latestPositions(channels);
  }

  async send(envelope: string): Promise<void> {
    this.#checkLength("send", envelope);
    this.#connection.publish(`${this.#prefix}.nodes`, envelope);
    await this.#flush();
  }

  async storeOrder(envelope: string, number: number): Promise<void> {
    await this.send(envelope);
    const key = orderKey(this.#options.node, number);
    await this.#inBucket(() => this.#jetstream.publish(`$KV.${this.#nodesBucket}.${key}`, envelope));
  }

  async storedOrders(since: number): ReturnType<BrokerSession["storedOrders"]> {
    return ordersSince(since, await this.#entries(this.#nodesBucket, ORDER_KEYS));
  }

  async heartbeat(): Promise<boolean> {
    this.#undeclared.stopUnused();
    const checks = new Map([...this.#buckets].map(([bucket, known]) => [bucket, this.#verify(bucket, known)]));
    const renew = async () => {
      // After the check of this bucket: a new entry before it could hide that another one was lost.
      await checks.get(this.#nodesBucket);
      return await this.#renew();
    };
    const [wasKnown] = await Promise.all([renew(), this.#history.verify(), ...checks.values()]);
    if (!wasKnown) return false;
    // With `false`, the engine announces its members again, which renews their expiry.
    if (performance.now() - this.#announcedAt < RETENTION / 3) return true;
    this.#announcedAt = performance.now();
    return false;
  }

  /** Writes the heartbeat of the node. Resolves with whether its last one was still stored. */
  async #renew(): Promise<boolean> {
    const { node, lease } = this.#options;
    const subject = `$KV.${this.#nodesBucket}.${node}`;
    const last = this.#lastHeartbeat;
    const write = (last?: number) => this.#inBucket(() => this.#jetstream.publish(subject, `${lease}`, last));
    const wasKnown = last !== undefined && await write(last);
    // Otherwise this is the first heartbeat, or another node has removed the last one.
    this.#lastHeartbeat = wasKnown || (await write())!; // It resolves with `null` only if a sequence is expected.
    return Boolean(wasKnown);
  }

  async nodes(): Promise<string[]> {
    const heartbeats = await this.#entries(this.#nodesBucket, "*");
    // Approximates the server's clock by the latest heartbeat, which is recent, because this node sends some.
    const now = Math.max(...heartbeats.map(({ time }) => time));
    const alive: string[] = [];
    for (const { subject, text, time } of heartbeats) {
      const node = subject.slice(subject.lastIndexOf(".") + 1);
      if (time + (Number(text) || 0) > now) alive.push(node);
      else await this.#removeNode(node);
    }
    this.#nodes = new Set(alive);
    return alive;
  }

  async join(channel: string, user: string, envelope: string): Promise<void> {
    await this.#changeMember(channel, user, envelope, async (subject) => void await this.#jetstream.publish(subject, envelope));
  }

  async leave(channel: string, user: string, envelope: string): Promise<void> {
    await this.#changeMember(channel, user, envelope, (subject) => this.#jetstream.purge(`KV_${this.#membersBucket}`, subject));
  }

  /** Writes a change, then publishes it. In the other order, a node that reads the members in between would undo the change. */
  async #changeMember(channel: string, user: string, envelope: string, write: (subject: string) => Promise<void>): Promise<void> {
    await this.#write(`${channel}\n${user}`, async () => {
      await this.#inBucket(async () => write(await this.#memberSubject(channel, user)));
      this.#connection.publish(this.#subject(channel, "member"), envelope);
    });
    await this.#flush();
  }

  async members(channel: string): Promise<string[]> {
    const all = await this.#entries(this.#membersBucket, `${encodeName(channel)}.*.*`);
    const nodeOf = ({ subject }: StreamMessage) => subject.split(".").at(-2) ?? "";
    if (all.some((member) => !this.#nodes.has(nodeOf(member)))) await this.nodes();
    return all.filter((member) => this.#nodes.has(nodeOf(member))).map(({ text }) => text);
  }

  async ownMembers(): Promise<{ channel: string; envelope: string }[]> {
    const all = await this.#entries(this.#membersBucket, `*.${this.#options.node}.*`);
    return all.map(({ subject, text }) => ({ channel: decodeName(subject.split(".").at(-3) ?? "") ?? "", envelope: text }));
  }

  async retire(): Promise<void> {
    await this.#removeNode(this.#options.node);
  }

  close(): void {
    this.#closed = true;
    if (!this.#isShared) {
      // Errors do not matter, because the connection is no longer used.
      this.#connection.close().catch(() => {});
      return;
    }
    for (const subscription of [this.#nodesSubscription, ...this.#subscriptions.values()]) subscription?.unsubscribe();
    this.#undeclared.close();
    this.#statuses?.stop();
  }

  /** Resolves when the server has received what was published. One flush runs at a time; calls during it share the next one. */
  #flush(): Promise<void> {
    if (this.#flushing) return this.#nextFlush ??= this.#flushing.then(this.#startNextFlush, this.#startNextFlush);
    return this.#flushing = this.#connection.flush().finally(() => this.#flushing = undefined);
  }

  readonly #startNextFlush = (): Promise<void> => {
    this.#nextFlush = undefined;
    return this.#flush();
  };

  /** Ends the session if a bucket has lost data. @param known its state at the last check. */
  async #verify(bucket: string, known: StreamInfo): Promise<void> {
    const info = await this.#jetstream.info(`KV_${bucket}`);
    if (info && info.created === known.created && info.state.last_seq >= known.state.last_seq) {
      this.#buckets.set(bucket, info);
      return;
    }
    const error = new Error(`Cannot use the bucket ${bucket}: it has lost data`);
    this.#ended(error);
    throw error;
  }

  /** Ends the session if a bucket is gone. The next session creates it, and every node announces its members again. */
  async #inBucket<Result>(request: () => Promise<Result>): Promise<Result> {
    try {
      return await request();
    } catch (error) {
      if (isGone(error)) this.#ended(error);
      throw error;
    }
  }

  /** Follows the status of the connection until the session or the connection is closed. */
  async #watch(): Promise<void> {
    this.#statuses = this.#connection.status() as QueuedIterator<Status>; // As every version returns.
    for await (const status of this.#statuses) {
      if (this.#closed) return;
      const { type } = status;
      if (this.#isShared && (type === "disconnect" || type === "staleConnection")) {
        return this.#ended(new Error("Cannot use NATS: the connection was lost"));
      }
      // The server does not reply to a request that it does not permit; its error arrives here.
      if (type === "error" && this.#isOurs(status.error)) return this.#ended(status.error);
    }
    // Not awaited before, because a callback of `closed()` would keep an ended session in memory.
    if (!this.#closed) this.#ended(await this.#connection.closed() ?? new Error("Cannot use NATS: the connection was closed"));
  }

  /** Whether the error is about a subject that this session uses. Not by `instanceof`, because the library may be loaded twice. */
  #isOurs(error: Error & { readonly subject?: unknown }): boolean {
    const subject = typeof error.subject === "string" ? error.subject : "";
    const buckets = [this.#membersBucket, this.#nodesBucket].map((bucket) => `$KV.${bucket}.`);
    return [`${this.#prefix}.`, "$JS.", ...buckets, this.#inboxPrefix].some((prefix) => subject.startsWith(prefix));
  }

  /** Reports the end of the session, unless `close` caused it. */
  #ended(error: unknown): void {
    if (!this.#closed) this.#listener.ended(error);
  }

  #subscribe(subject: string, handle: (message: Msg) => void): Subscription {
    const callback = (error: Error | null, message: Msg) => error ? this.#ended(error) : handle(message);
    return this.#connection.subscribe(subject, { callback });
  }

  #receive(channel: string, message: Msg): void {
    const kind = message.subject.slice(message.subject.lastIndexOf(".") + 1);
    const text = utf8.decode(message.data);
    if (kind === "event") return this.#listener.live(channel, text, null, 0);
    if (kind === "member") return this.#listener.member(channel, text);
    const { headers } = message;
    const subject = headers?.get("Nats-Subject") ?? "";
    const sequence = Number(headers?.get("Nats-Sequence") || NaN);
    const previous = Number(headers?.get("Nats-Last-Sequence") || NaN);
    if (kind !== "publication" || subject === "" || !Number.isSafeInteger(sequence) || !Number.isSafeInteger(previous)) {
      return this.#listener.malformed();
    }
    const position = this.#history.positionOf(subject, sequence, text);
    if (isMark(text)) this.#listener.mark(channel, position, previous);
    else this.#listener.live(channel, text, position, previous);
  }

  /** Reads the entries of a bucket whose keys match a pattern. */
  async #entries(bucket: string, keys: string): Promise<readonly StreamMessage[]> {
    for (let attempt = 1;; attempt++) {
      const { messages, isWhole } = await this.#inBucket(() =>
        this.#jetstream.list(`KV_${bucket}`, `$KV.${bucket}.${keys}`, "last of each", MAX_ENTRIES)
      );
      // Read again if entries were deleted during the read, because they may have been written again.
      if (isWhole || attempt >= 5) return messages;
    }
  }

  /** Deletes a node and its members. */
  async #removeNode(node: string): Promise<void> {
    await this.#inBucket(async () => {
      await this.#jetstream.purge(`KV_${this.#membersBucket}`, `$KV.${this.#membersBucket}.*.${node}.*`);
      await this.#jetstream.purge(`KV_${this.#nodesBucket}`, `$KV.${this.#nodesBucket}.${node}`);
    });
  }

  /** Runs a write after the earlier writes of the member. */
  #write(member: string, write: () => Promise<void>): Promise<void> {
    const before = this.#writing.get(member) ?? Promise.resolve();
    const writing = before.then(write, write).finally(() => {
      if (this.#writing.get(member) === writing) this.#writing.delete(member);
    });
    this.#writing.set(member, writing);
    return writing;
  }

  /** Returns the envelope if NATS accepts its length. */
  #checkLength(action: string, envelope: string): string {
    const most = this.#connection.info?.max_payload ?? Infinity;
    // A UTF-16 unit takes at most three bytes of UTF-8, so the text has to be encoded only near the limit.
    if (envelope.length * 3 <= most || utf8Encoder.encode(envelope).length <= most) return envelope;
    throw new WebSocketError("engine", "LIMIT_EXCEEDED", `Cannot ${action}: it exceeds the ${most} bytes that NATS allows`);
  }

  #subject(channel: string, kind: string): string {
    return `${this.#prefix}.channel.${encodeName(channel)}.${kind}`;
  }

  async #memberSubject(channel: string, user: string): Promise<string> {
    return `$KV.${this.#membersBucket}.${encodeName(channel)}.${this.#options.node}.${await encodeAny(user)}`;
  }
}

/** The inbox prefix of the connection. Every connection has it, but not in the library's types. */
function inboxPrefixOf(connection: NatsConnection & { readonly options?: { readonly inboxPrefix?: string } }): string {
  return connection.options?.inboxPrefix ?? "_INBOX";
}

const utf8 = new TextDecoder();
const utf8Encoder = new TextEncoder();
