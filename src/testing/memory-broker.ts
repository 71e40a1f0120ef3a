/** A broker in memory, which behaves like Redis, with virtual time and connections that can be cut. */
import type {
  Broker,
  BrokerListener,
  BrokerPage,
  BrokerSession,
  Seal,
  SessionOptions,
  StoredOrders,
} from "../engines/broker/broker.ts";
import type { HistoryOptions, Position, PublishOnce } from "../engines/engine.ts";
import { PublishedIds } from "../engines/published-ids.ts";
import { MemoryAnswerStore } from "../once/memory-answer-store.ts";
import { Link } from "./link.ts";
import { HistoryStore } from "./memory-histories.ts";
import type { Turns } from "./turns.ts";

/** Time that an order is kept, in ms, and maximum number of orders: the same as with Redis. */
const [ORDER_AGE, MAX_ORDERS] = [24 * 60 * 60_000, 10_000];

/** What the broker stores of one node. */
interface Lease {
  until: number;
  /** Envelopes of members, by channel and user. They stay after the lease until a node sends a heartbeat. */
  readonly members: Map<string, Map<string, string>>;
}

/** The state of one namespace, which all its sessions share. */
class Space {
  readonly sessions = new Set<MemorySession>();
  readonly histories: HistoryStore;
  readonly ids = new PublishedIds();
  readonly answers: MemoryAnswerStore;
  readonly leases = new Map<string, Lease>();
  readonly orders: { readonly time: number; readonly envelope: string }[] = [];

  constructor(now: () => number, step: () => number) {
    this.histories = new HistoryStore(now, step);
    this.answers = new MemoryAnswerStore().at(now);
  }

  /** Like {@link HistoryStore.backup}. Without a channel, it also restores leases, members and orders. */
  backup(): (channel?: string) => void {
    const restoreHistories = this.histories.backup();
    const leases = structuredClone(this.leases);
    const orders = [...this.orders];
    return (channel) => {
      restoreHistories(channel);
      if (channel !== undefined) return;
      this.leases.clear();
      for (const [node, lease] of structuredClone(leases)) this.leases.set(node, lease);
      this.orders.splice(0, Infinity, ...orders);
    };
  }

  lease(node: string): Lease {
    let lease = this.leases.get(node);
    if (!lease) this.leases.set(node, lease = { until: -Infinity, members: new Map() });
    return lease;
  }
}

/** Connects the nodes of a test. Each node has links to the broker, which {@link cut} holds and {@link kill} ends. */
export class MemoryBroker {
  readonly #turns: Turns;
  readonly #now: () => number;
  readonly #step: () => number;
  /** Number of epochs so far, in all sessions, so that a node that connects again does not reuse one. */
  #epochs = 0;
  #spaces = new Map<string, Space>();
  readonly #sessions = new Map<number, Set<MemorySession>>();
  readonly #cut = new Set<number>();

  /**
   * @param now the broker's clock, in ms.
   * @param step returns the difference between two offsets of a history. With Redis it is random, so that a lost offset is not reused.
   * @default 1
   */
  constructor(turns: Turns, now: () => number, step: () => number = () => 1) {
    this.#turns = turns;
    this.#now = now;
    this.#step = step;
  }

  /** Returns the broker for the node with this number. */
  of(node: number): Broker {
    return {
      name: "The broker in memory",
      connect: (listener, options) => this.#connect(node, listener, options),
    };
  }

  /** Cuts the node off. What it and the broker send to each other waits, as with TCP, until {@link restore} or a timeout. */
  cut(node: number): void {
    this.#cut.add(node);
    for (const session of this.#sessions.get(node) ?? []) session.hold();
  }

  /** Ends a {@link cut}. */
  restore(node: number): void {
    this.#cut.delete(node);
    for (const session of this.#sessions.get(node) ?? []) session.release();
  }

  /** Ends the connections of a node whose process has ended. */
  kill(node: number): void {
    for (const session of this.#sessions.get(node) ?? []) session.close();
    this.restore(node);
  }

  /** Loses all data and all connections, like a restart without persistence. */
  forget(): void {
    this.#spaces = new Map();
    for (const session of [...this.#sessions.values()].flatMap((each) => [...each])) {
      session.fail(new Error("The broker has ended"));
    }
  }

  /**
   * Returns a function that restores the present state, of one channel's history or of everything.
   */
  backup(): (channel?: string) => void {
    const restores = [...this.#spaces.values()].map((space) => space.backup());
    return (channel) => restores.forEach((restore) => restore(channel));
  }

  /** Evicts the members of all nodes and the list of nodes, like Redis when its memory is full. */
  evict(): void {
    for (const space of this.#spaces.values()) space.leases.clear();
  }

  /** The histories of the only namespace. */
  get histories(): HistoryStore | undefined {
    return [...this.#spaces.values()].at(-1)?.histories;
  }

  async #connect(node: number, listener: BrokerListener, options: SessionOptions): Promise<BrokerSession> {
    let space = this.#spaces.get(options.namespace);
    if (!space) this.#spaces.set(options.namespace, space = new Space(this.#now, this.#step));
    let sessions = this.#sessions.get(node);
    if (!sessions) this.#sessions.set(node, sessions = new Set());
    const epoch = () => ++this.#epochs;
    const closed = (session: MemorySession) => void sessions.delete(session);
    const session = new MemorySession(this.#turns, space, this.#now, listener, options, epoch, closed);
    sessions.add(session);
    if (this.#cut.has(node)) session.hold();
    await session.open();
    return session;
  }
}

/** One connection of a node. Requests and answers each take a turn, and arrive in order. */
class MemorySession implements BrokerSession {
  readonly fullNamespace: string;
  readonly answers: BrokerSession["answers"] = {
    claim: (key, text, ttl) => this.#request(() => this.#space.answers.claim(key, text, ttl)),
    settle: (key, text, ttl) => this.#request(() => this.#space.answers.settle(key, text, ttl)),
  };
  /** The channels that the node listens to. */
  readonly #channels = new Set<string>();
  readonly #space: Space;
  readonly #now: () => number;
  readonly #listener: BrokerListener;
  readonly #options: SessionOptions;
  readonly #toBroker: Link;
  readonly #toNode: Link;
  readonly #epoch: () => number;
  readonly #closed: (session: MemorySession) => void;

  constructor(
    turns: Turns,
    space: Space,
    now: () => number,
    listener: BrokerListener,
    options: SessionOptions,
    epoch: () => number,
    closed: (session: MemorySession) => void,
  ) {
    this.#epoch = epoch;
    this.fullNamespace = options.namespace;
    this.#space = space;
    this.#now = now;
    this.#listener = listener;
    this.#options = options;
    this.#toBroker = new Link(turns);
    this.#toNode = new Link(turns);
    this.#closed = closed;
  }

  open(): Promise<void> {
    return this.#request(() => void this.#space.sessions.add(this));
  }

  hold(): void {
    this.#toBroker.hold();
    this.#toNode.hold();
  }

  release(): void {
    this.#toBroker.release();
    this.#toNode.release();
  }

  /** Ends the connection with an error. */
  fail(error: Error): void {
    this.close();
    this.#listener.ended(error);
  }

  now(): number {
    return this.#now();
  }

  listen(channels: readonly string[]): Promise<void> {
    return this.#request(() => channels.forEach((channel) => this.#channels.add(channel)));
  }

  unlisten(channels: readonly string[]): Promise<void> {
    return this.#request(() => channels.forEach((channel) => this.#channels.delete(channel)));
  }

  async publish(
    channel: string,
    seal: Seal,
    history: HistoryOptions | null,
    known?: Position,
    once?: PublishOnce,
  ): Promise<Position | null> {
    const sealed = seal();
    const envelope = typeof sealed === "string" ? sealed : await sealed;
    return await this.#request(() => {
      const { ids } = this.#space;
      const now = this.#now();
      const first = once && ids.find(channel, once, now);
      if (first !== undefined) return first;
      if (once) ids.checkRoom();
      const position = this.#append(channel, envelope, history, known);
      if (once) ids.add(channel, once, position, now);
      return position;
    });
  }

  read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number,
    known?: Position,
  ): Promise<BrokerPage> {
    return this.#request(() => this.#space.histories.read(channel, history, after, limit, maxBytes, this.#requestTerms(known)));
  }

  endHistory(channel: string, { epoch }: Position): Promise<void> {
    return this.#request(() => this.#space.histories.delete(channel, epoch));
  }

  latestPositions(
    channels: readonly string[],
    histories: readonly HistoryOptions[],
    known: readonly (Position | undefined)[],
  ): Promise<(Position | null)[]> {
    return this.#request(() =>
      // All three have the same length.
      channels.map((channel, index) => this.#space.histories.top(channel, histories[index]!, this.#requestTerms(known[index])))
    );
  }

  send(envelope: string): Promise<void> {
    return this.#request(() => this.#notifyAll((listener) => listener.message(envelope)));
  }

  storeOrder(envelope: string): Promise<void> {
    return this.#request(() => {
      const { orders } = this.#space;
      const now = this.#now();
      orders.push({ time: now, envelope });
      while (orders.length > MAX_ORDERS || orders[0]!.time <= now - ORDER_AGE) orders.shift();
      this.#notifyAll((listener) => listener.message(envelope));
    });
  }

  storedOrders(since: number): Promise<StoredOrders> {
    return this.#request(() => {
      const envelopes = this.#space.orders.filter(({ time }) => time >= since).map(({ envelope }) => envelope);
      return { envelopes, isWhole: envelopes.length < MAX_ORDERS };
    });
  }

  heartbeat(): Promise<boolean> {
    return this.#request(() => {
      const now = this.#now();
      const { node, lease: duration } = this.#options;
      const own = this.#space.lease(node);
      const wasKnown = own.until > now;
      own.until = now + duration;
      for (const [other, { until }] of this.#space.leases) if (until <= now) this.#space.leases.delete(other);
      return wasKnown;
    });
  }

  nodes(): Promise<string[]> {
    return this.#request(() => [...this.#alive()].map(([node]) => node));
  }

  join(channel: string, user: string, envelope: string): Promise<void> {
    return this.#request(() => {
      const { members } = this.#space.lease(this.#options.node);
      let users = members.get(channel);
      if (!users) members.set(channel, users = new Map());
      users.set(user, envelope);
      this.#notify(channel, (listener) => listener.member(channel, envelope));
    });
  }

  leave(channel: string, user: string, envelope: string): Promise<void> {
    return this.#request(() => {
      const { members } = this.#space.lease(this.#options.node);
      const users = members.get(channel);
      users?.delete(user);
      if (users?.size === 0) members.delete(channel);
      this.#notify(channel, (listener) => listener.member(channel, envelope));
    });
  }

  members(channel: string): Promise<string[]> {
    return this.#request(() => [...this.#alive()].flatMap(([, { members }]) => [...members.get(channel)?.values() ?? []]));
  }

  ownMembers(): Promise<{ channel: string; envelope: string }[]> {
    return this.#request(() => {
      const { members } = this.#space.lease(this.#options.node);
      return [...members].flatMap(([channel, users]) => [...users.values()].map((envelope) => ({ channel, envelope })));
    });
  }

  retire(): Promise<void> {
    return this.#request(() => void this.#space.leases.delete(this.#options.node));
  }

  close(): void {
    this.#toBroker.end();
    this.#toNode.end();
    this.#space.sessions.delete(this);
    this.#closed(this);
  }

  #append(channel: string, envelope: string, history: HistoryOptions | null, known: Position | undefined): Position | null {
    const { histories } = this.#space;
    if (!history) {
      // A history that other nodes keep would lack this publication.
      histories.delete(channel);
      this.#notify(channel, (listener) => listener.live(channel, envelope, null, 0));
      return null;
    }
    const { position, previous } = histories.append(channel, envelope, history, this.#requestTerms(known));
    this.#notify(channel, (listener) => listener.live(channel, envelope, position, previous));
    return position;
  }

  #requestTerms(known: Position | undefined) {
    return { known, slack: this.#options.slack, epoch: () => `${this.#options.node}.${this.#epoch()}` };
  }

  #alive(): Iterable<[node: string, Lease]> {
    const now = this.#now();
    return [...this.#space.leases].filter(([, { until }]) => until > now);
  }

  /** Notifies every session that listens to the channel. */
  #notify(channel: string, notify: (listener: BrokerListener) => void): void {
    for (const session of this.#space.sessions) {
      if (session.#channels.has(channel)) session.#toNode.send(() => notify(session.#listener));
    }
  }

  #notifyAll(notify: (listener: BrokerListener) => void): void {
    for (const session of this.#space.sessions) session.#toNode.send(() => notify(session.#listener));
  }

  /** Makes a request. It is not answered after the connection has ended. */
  #request<Answer>(answer: () => Answer): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#toBroker.send(() => {
        try {
          const value = answer();
          this.#toNode.send(() => resolve(value));
        } catch (error) {
          this.#toNode.send(() => reject(error));
        }
      });
    });
  }
}
