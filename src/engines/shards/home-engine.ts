import type { Timed } from "../../base/clock.ts";
import type {
  AnswerStore,
  Engine,
  EngineHost,
  EngineStatus,
  HistoryOptions,
  HistoryPage,
  Member,
  Position,
  Publication,
  PublicationContent,
  PublishOnce,
  SubscriptionKeeper,
} from "../engine.ts";
import { SqliteEngine } from "../sqlite-engine.ts";
import { unavailable } from "./home-calls.ts";
import { HomeMembers } from "./home-members.ts";
import { FanOut } from "./fan-out.ts";
import { HomeMessages, OWN } from "./home-messages.ts";
import { HomeStore } from "./home-store.ts";
import { RelayNodes } from "./relay-nodes.ts";
import {
  CALL_LENGTH,
  failureOf,
  type HomeAnswer,
  type HomeCall,
  type HomeEngineOptions,
  isChange,
  isClose,
  type Item,
  lengthOfValue,
  type MembersPage,
  type Operation,
  type Outcome,
  type RelayAnswer,
} from "./shards.ts";

/** Interval at which items that all relays have received are deleted from the storage, in ms. */
const CLEANUP_PERIOD = 10_000;

/**
 * The engine of the home object. It stores histories, members and the channels that each relay is subscribed to, and sends relays what is
 * published. It needs no connection of its own.
 *
 * While relays may lack something, a flag in the storage says so and an alarm is set. A home object that finds the flag when it starts
 * lets all relays read what they lack.
 */
export class HomeEngine implements Engine, Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  /** Only objects with the binding can call. */
  readonly isSigned = true;
  readonly keeper: SubscriptionKeeper;
  readonly answers: AnswerStore;

  readonly #options: HomeEngineOptions;
  readonly #local: SqliteEngine;
  readonly #store: HomeStore;
  readonly #members: HomeMembers;
  /** Channels that the home object's own node is subscribed to. */
  readonly #own = new Set<string>();
  /** By subscribed channel with a history: the offset of its last publication. */
  readonly #latestOffsets = new Map<string, number>();
  readonly #nodes: RelayNodes;
  readonly #messages: HomeMessages;
  /** By member of this node: the rank of its data. And the member that {@link join} is adding. */
  readonly #ranks = new WeakMap<Member, number>();
  #joining: Member | undefined;
  #host: EngineHost | undefined;
  #fanOut: FanOut | undefined;

  constructor(options: HomeEngineOptions) {
    this.#options = options;
    const { sql, prefix } = options;
    this.#local = new SqliteEngine(sql, { prefix, receivesAll: true });
    this.#store = new HomeStore(sql, prefix);
    this.#members = new HomeMembers(sql, prefix, (channel, joined, left) => {
      if (this.#own.has(channel)) this.#host?.present(channel, joined, left);
      return this.#push({ type: "presence", channel, joined, left }, this.#relaysOf(channel));
    });
    this.#nodes = new RelayNodes({
      callRelay: options.callRelay,
      now: () => this.#host!.deadlines.now(), // Called after the start.
      answered: (answer) => this.#answered(answer),
    });
    this.#messages = new HomeMessages({
      store: this.#store,
      nodes: this.#nodes,
      host: () => this.#host!, // Called after the start.
      push: (item, relays) => void this.#push(item, relays),
    });
    this.keeper = this.#local.keeper;
    this.answers = this.#local.answers;
  }

  get status(): EngineStatus {
    return this.#local.status;
  }

  /** Number of channels with a history, a member or a subscription. */
  get channels(): number {
    return this.#local.channels;
  }

  /** Names of the listed relays: those with connections, subscriptions or members. */
  get relays(): string[] {
    return [...this.#store.relays.keys()];
  }

  start(host: EngineHost): void {
    if (this.#host) throw new TypeError("Cannot start the engine: it belongs to another controller, make one for each");
    this.#host = host;
    const { deadlines } = host;
    const report = (error: unknown) => host.report(error);
    this.#store.start();
    this.#members.start();
    this.#local.start({
      node: host.node,
      now: () => host.now(),
      deadlines,
      published: (channel, publication) => this.#published(channel, publication),
      gap: () => {},
      present: (channel, joined, left) => {
        for (const member of joined) this.#joinOwn(channel, member);
        for (const user of left) this.#members.leave(OWN, channel, user);
      },
      received: () => {},
      status: () => {},
      report,
    });
    this.#fanOut = new FanOut({
      run: host.node,
      deadlines,
      callRelay: this.#options.callRelay,
      answered: (answer) => this.#answered(answer),
      itemsOf: (changes) => this.#members.itemsOf(changes),
      report,
    });
    for (const relay of this.#store.relays.keys()) this.#fanOut.add(relay);
    for (const channel of this.#store.channels.keys()) this.#retain(channel);
    if (this.#store.hasPending) this.#resendPending();
  }

  async send(message: string, to?: string): Promise<void> {
    this.#check("send");
    await Promise.resolve();
    this.#messages.send(OWN, message, to);
  }

  async order(message: string): Promise<void> {
    this.#check("order");
    await Promise.resolve();
    this.#messages.order(OWN, message);
  }

  async nodes(): Promise<string[]> {
    this.#check("list the nodes");
    const nodes = await this.#nodesOf();
    return [...new Set([...nodes, this.#host!.node])]; // `#check` throws before the start.
  }

  subscribe(channel: string, history: HistoryOptions | null): Position | null {
    this.#check("subscribe");
    this.#own.add(channel);
    return this.#retain(channel, history);
  }

  unsubscribe(channel: string): void {
    this.#own.delete(channel);
    this.#release(channel);
  }

  publish(channel: string, content: PublicationContent, history: HistoryOptions | null, once?: PublishOnce): Position | null {
    this.#check("publish");
    // A history that another version of the application declares would lack this publication, so it ends.
    if (!history && this.#local.endHistory(channel) && this.#own.has(channel)) {
      this.#host?.gap(channel, this.#retain(channel) ?? undefined);
    }
    return this.#local.publish(channel, content, history, once);
  }

  read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number = Infinity,
  ): HistoryPage {
    this.#check("read");
    return this.#local.read(channel, history, after, limit, maxBytes);
  }

  join(channel: string, member: Member): void {
    this.#check("join");
    this.#joining = member;
    try {
      this.#local.join(channel, member);
    } finally {
      this.#joining = undefined;
    }
  }

  leave(channel: string, user: string): void {
    this.#local.leave(channel, user);
  }

  async members(channel: string): Promise<Member[]> {
    this.#check("list the members");
    await this.#querySilentRelays(channel);
    return this.#members.members(channel);
  }

  /** A page of members in the order of their users, as many as fit into one answer. @param after the last user of the previous page. */
  async membersAfter(channel: string, after: string | undefined): Promise<MembersPage> {
    if (after === undefined) await this.#querySilentRelays(channel);
    return this.#members.page(channel, after);
  }

  close(): void {
    if (this.status === "closed") return;
    this.#fanOut?.stop();
    this.#host?.deadlines.delete(this);
    if (this.#host) this.#members.replace(OWN, []);
    this.#local.close();
  }

  /** Carries out the operations of a relay. */
  async receive({ relay, node, generation, operations }: HomeCall): Promise<HomeAnswer> {
    // The last call of a relay may arrive after the relay was started again, which it must not end.
    if (generation < (this.#store.relays.get(relay) ?? 0) && operations.some(isClose)) {
      const failure = failureOf(unavailable("carry out the operation", "the relay was started again"));
      return { home: this.#store.id, revision: 0, outcomes: operations.map(() => failure) };
    }
    const revision = this.#store.add(relay, generation, operations.some(isChange));
    this.#fanOut?.add(relay);
    this.#nodes.update(relay, node);
    const outcomes: Outcome[] = [];
    let length = 0;
    for (const operation of operations) {
      if (length > CALL_LENGTH) break; // The relay sends the other operations again.
      try {
        const made = this.#carryOut(relay, operation);
        const value = made instanceof Promise ? await made : made;
        length += lengthOfValue(operation, value);
        outcomes.push({ value });
      } catch (error) {
        const failure = failureOf(error);
        if (failure.code === "ENGINE_UNAVAILABLE") this.#host?.report(error);
        outcomes.push(failure);
      }
    }
    return { home: this.#store.id, revision, outcomes };
  }

  /** Deletes stored items once all relays have received them. */
  due(): void {
    if (!this.#store.hasPending) return;
    if (!this.#fanOut?.isIdle) return this.#host?.deadlines.set(this, CLEANUP_PERIOD);
    this.#members.confirmAll();
    this.#store.hasPending = false;
  }

  #joinOwn(channel: string, member: Member): void {
    const joining = this.#joining;
    const rank = this.#members.join(OWN, channel, member, joining && this.#ranks.get(joining));
    if (joining) this.#ranks.set(joining, rank);
  }

  #carryOut(relay: string, operation: Operation): unknown {
    switch (operation.type) {
      case "hello":
        return null;
      case "subscribe": {
        const { channel, history } = operation;
        this.#store.subscribe(relay, operation);
        return this.#retain(channel, history);
      }
      case "unsubscribe":
        this.#store.unsubscribe(relay, operation.channel);
        return this.#release(operation.channel);
      case "publish":
        return this.publish(operation.channel, operation.content, operation.history, operation.once);
      case "read":
        return this.read(operation.channel, operation.history, operation.after, operation.limit, operation.maxBytes);
      case "join":
        return this.#members.join(relay, operation.channel, operation.member, operation.place);
      case "leave":
        return this.#members.leave(relay, operation.channel, operation.user);
      case "members":
        return this.membersAfter(operation.channel, operation.after);
      case "resync":
        for (const channel of this.#store.replace(relay, operation.channels)) this.#release(channel);
        for (const { channel, history } of operation.channels) this.#retain(channel, history);
        return this.#members.replace(relay, operation.members);
      case "send":
        return this.#messages.send(relay, operation.text, operation.to);
      case "order":
        return this.#messages.order(relay, operation.text);
      case "nodes":
        return this.#nodesOf();
      case "claim":
      case "settle":
        return this.answers[operation.type](operation.key, operation.text, operation.ttl);
      case "close":
        return this.#forget(relay);
    }
  }

  async #querySilentRelays(channel: string): Promise<void> {
    await this.#nodes.querySilent(this.#members.relays(channel).filter((relay) => relay !== OWN));
  }

  /** The nodes with connections. */
  async #nodesOf(): Promise<string[]> {
    const nodes = await this.#nodes.query(this.relays);
    return this.#options.hasConnections() ? [...nodes, this.#host!.node] : nodes; // Called after the start.
  }

  /** Subscribes the storage to a channel, so that its history does not expire. Returns its position, or `null` without a history. */
  #retain(channel: string, history?: HistoryOptions | null): Position | null {
    const declared = history ?? [...this.#store.channels.get(channel)?.values() ?? []].find(Boolean) ?? null;
    const position = this.#local.subscribe(channel, declared);
    if (position) this.#latestOffsets.set(channel, position.offset);
    return history === null ? null : position;
  }

  #release(channel: string): void {
    if (this.#own.has(channel) || this.#store.channels.has(channel)) return;
    this.#latestOffsets.delete(channel);
    this.#local.unsubscribe(channel);
  }

  #forget(relay: string): void {
    for (const channel of this.#store.delete(relay)) this.#release(channel);
    this.#members.replace(relay, []);
    this.#fanOut?.delete(relay);
    this.#nodes.forget(relay);
  }

  #published(channel: string, { position, ...content }: Publication): void {
    const previous = this.#latestOffsets.get(channel) ?? 0;
    if (position && this.#latestOffsets.has(channel)) this.#latestOffsets.set(channel, position.offset);
    if (this.#own.has(channel)) this.#host?.published(channel, { ...content, position });
    this.#push({ type: "publication", channel, content, position, previous }, this.#relaysOf(channel));
  }

  #relaysOf(channel: string): Iterable<string> {
    return this.#store.channels.get(channel)?.keys() ?? [];
  }

  /** Sends an item to relays. Returns whether there are any. */
  #push(item: Item | null, relays: Iterable<string>): boolean {
    const targets = [...relays];
    if (targets.length === 0) return false;
    if (!this.#store.hasPending) {
      this.#store.hasPending = true;
      this.#host?.deadlines.set(this, CLEANUP_PERIOD);
    }
    this.#fanOut?.push(item, targets);
    return true;
  }

  /** Sends again what relays may not have received before the previous run ended. */
  #resendPending(): void {
    const host = this.#host!; // Called by the start.
    host.deadlines.set(this, CLEANUP_PERIOD);
    this.#push(null, this.#store.relays.keys());
    for (const { channel, user } of this.#members.pending()) {
      const [item] = this.#members.itemsOf([`${channel}\n${user}`]);
      this.#push({ ...item!, isRepeated: true }, this.#relaysOf(channel)); // One change makes one item.
    }
    this.#messages.resendOrders();
  }

  #answered({ nodes }: RelayAnswer): void {
    for (const { relay, node, generation, isIdle } of nodes) {
      const listed = this.#store.relays.get(relay);
      if (listed === undefined) continue; // Removed during the call.
      if (isIdle && generation >= listed) this.#forget(relay);
      else this.#nodes.update(relay, node);
    }
  }

  #check(action: string): void {
    if (this.status === "closed") this.#local.nodes(); // Throws.
    if (!this.#host) throw new TypeError(`Cannot ${action}: pass the engine to a controller, which starts it`);
  }
}
