import {
  type Engine,
  type EngineHost,
  type EngineStatus,
  type HistoryOptions,
  type HistoryPage,
  type Member,
  PAGE_BYTES,
  type Position,
} from "../engine.ts";
import { WebSocketError } from "../../protocol/errors.ts";
import { Announcer } from "./announcer.ts";
import { BrokerAnswerStore } from "./answer-store.ts";
import { type Broker, type BrokerListener, inBatches, statusText, unavailable } from "./broker.ts";
import { type BrokerEngineOptions, resolveBrokerOptions, type ResolvedBrokerOptions } from "./options.ts";
import { Dropped } from "./dropped.ts";
import type { EnvelopeKind } from "./envelope-kind.ts";
import { type DropReason, Envelopes, type Opened } from "./envelope.ts";
import { HistoryReader } from "./history-reader.ts";
import { inboundListener } from "./inbound.ts";
import { Listening } from "./listening.ts";
import { presenceSetOf } from "./presence.ts";
import { Reconnection } from "./reconnection.ts";
import { NodeSubscription } from "./node-subscription.ts";
import { Trust } from "./trust.ts";

/** Engine whose nodes communicate over a broker. {@link Broker} hides the differences between NATS, Redis and PostgreSQL. */
export class BrokerEngine implements Engine {
  /** Stores answers to requests. */
  readonly answers: NonNullable<Engine["answers"]> = new BrokerAnswerStore({
    link: (action) => this.#connected(action),
    seal: (key, text) => this.#seal("message", key, text),
    open: (key, envelope) => this.#envelopes!.open(["message"], key, envelope, false), // Set by `start`.
  });
  readonly #broker: Broker;
  readonly #options: ResolvedBrokerOptions;
  readonly #subscriptions = new Map<string, NodeSubscription>();
  /** By channel whose subscription waits for the first connection: a token of its `subscribe` call. */
  readonly #awaiting = new Map<string, object>();
  readonly #announcer: Announcer;
  readonly #dropped: Dropped;
  #envelopes: Envelopes | undefined;
  #host: EngineHost | undefined;
  #link: Reconnection | undefined;
  #listening: Listening | undefined;
  /** Set if nodes sign their envelopes. */
  #trust: Trust | undefined;
  #reader: HistoryReader | undefined;

  /** Created by {@link natsEngine}, {@link redisEngine} and {@link postgresEngine}. */
  constructor(broker: Broker, options: BrokerEngineOptions) {
    this.#broker = broker;
    this.#dropped = new Dropped(broker.name);
    this.#options = resolveBrokerOptions(options);
    this.#announcer = new Announcer({
      link: (action) => this.#linked(action),
      envelopes: () => this.#envelopes!, // Set by `start`.
      verifier: () => this.#trust?.verifier,
      subscription: (channel) => this.#subscriptions.get(channel),
      malformed: () => this.#drop("malformed"),
      report: (error) => this.#host?.report(error),
    });
  }

  /** Whether the engine can be used now. */
  get status(): EngineStatus {
    return this.#link?.status ?? "connecting";
  }

  /** Whether the option `secret` is set, so that nodes sign what they send. */
  get isSigned(): boolean {
    return this.#options.secrets.length > 0;
  }

  /** Whether `publish` takes a transaction of the application. */
  get hasTransactions(): boolean {
    return this.#broker.publishIn !== undefined;
  }

  /** The live nodes as last known. */
  get lastNodes(): readonly string[] {
    return this.#link?.nodes ?? [];
  }

  /** Number of dropped envelopes, by reason. Usually a third party or a newer version has written them to the broker. */
  get dropped(): Readonly<Record<string, number>> {
    return this.#dropped.counts;
  }

  /** Number of channels with a subscription or members on this node, or with a subscription at the broker that lingers. */
  get channels(): number {
    return new Set([...this.#subscriptions.keys(), ...this.#announcer.own.channels, ...this.#listening?.channels ?? []]).size;
  }

  /** The largest history that the broker can keep; `undefined` without a limit. */
  get maxHistory(): HistoryOptions | undefined {
    return this.#broker.maxHistory;
  }

  /** Checks a history that a channel declares. @throws {TypeError} if the broker cannot keep it. */
  check(history: HistoryOptions): void {
    this.#broker.check?.(history);
  }

  /** Starts the engine for one controller. @throws {TypeError} if it was started before. */
  start(host: EngineHost): void {
    if (this.#host) throw new TypeError("Cannot start the engine: it belongs to another controller, make one for each");
    this.#host = host;
    const { maxLength, linger, namespace, lease, checkInterval, timeout } = this.#options;
    const now = () => host.now();
    const { isSigned } = this;
    const dropped = (...dropping: [DropReason, node?: string, channel?: string]) => this.#drop(...dropping);
    const envelopes = this.#envelopes = new Envelopes({
      node: host.node,
      secrets: this.#options.secrets,
      maxLength,
      // Only nodes that sign check the namespace and the time. `#link` is set below, before the first envelope.
      fullNamespace: () => isSigned ? this.#link!.fullNamespace : "",
      now: () => isSigned ? this.#link!.now() : 0,
      dropped,
    });
    const onlySends = host.onlySends === true && !isSigned; // A node that signs has to receive the questions of other nodes.
    const bounds = { lease, slack: 3 * checkInterval, timeout };
    const session = { node: host.node, namespace, ...bounds, now, positions: this.#positions, onlySends };
    const link = this.#link = new Reconnection(this.#broker, session, this.#listener(), host, checkInterval, {
      prepare: () => this.#listening!.resume([...this.#subscriptions.keys()]), // Set below, before `open`.
      greet: async () => await this.#trust?.greet(),
      ended: () => this.#trust?.orders.ended(),
      resume: () => this.#resume(),
      check: (count) => this.#compare(count),
      nodes: (nodes) => this.#subscriptions.forEach((each) => each.retainNodes(nodes)),
      announce: () => this.#announcer.announce(),
      retire: async () => {
        await this.#announcer.retire();
        await this.#link!.call("leave", (session) => session.retire()); // Set: it calls this hook.
      },
    });
    const { own } = this.#announcer;
    const members = (channel: string) => own.of(channel).map((member) => own.ranked(member));
    const follows = (channel: string) => this.#subscriptions.has(channel);
    if (isSigned) this.#trust = new Trust({ host, link, envelopes, lease, checkInterval, timeout, members, follows, dropped });
    this.#reader = new HistoryReader({
      isSigned,
      page: (channel, ...query) => link.call("read", (session) => session.read(channel, ...query, this.#positionOf(channel))),
      open: (channel, envelope) => envelopes.open(["publication"], channel, envelope, false),
      dropped,
    });
    this.#listening = new Listening(this.#link, host.deadlines, linger, (channel) => this.#subscriptions.has(channel));
    this.#link.open();
  }

  /** Sends a message to the other nodes, once the broker is connected. */
  async send(message: string): Promise<void> {
    this.#checkLength("send", message);
    const given = this.#linked("send");
    const link = given instanceof Promise ? await given : given;
    const envelope = await this.#seal("message", "", message);
    await link.call("send", (session) => session.send(envelope));
  }

  /**
   * Sends an order to the other nodes. With a `secret` the broker stores it for disconnected nodes, and an order that fails because
   * the broker is unavailable is sent on reconnect. Without one this is {@link send}.
   */
  async order(message: string): Promise<void> {
    this.#checkLength("order", message);
    await (this.#trust ? this.#trust.orders.send(message) : this.send(message));
  }

  /** Lists the live nodes, including this one. */
  async nodes(): Promise<string[]> {
    const { host } = this.#started();
    const nodes = await (await this.#connected("list the nodes")).listNodes();
    return [...new Set([...nodes, host.node])];
  }

  /** Subscribes this node to a channel. Without the broker the channel is not subscribed. */
  async subscribe(channel: string, history: HistoryOptions | null): Promise<Position | null> {
    const link = this.#isConnecting ? await this.#awaited(channel) : this.#ready("subscribe");
    if (history) this.check(history);
    const { host } = this.#started();
    const subscription = new NodeSubscription(channel, history, host, {
      follows: (offset, previous) => this.#broker.follows?.(offset, previous) ?? offset === previous,
      read: (after, limit) => this.#read("catch up", channel, history!, after, limit, PAGE_BYTES), // Called only with a history.
      members: () => this.#announcer.read(channel),
      // One lease: in this time, the member's node sends three heartbeats and announces a lost member again.
      checksUntilRemoval: Math.ceil(this.#options.lease / this.#options.checkInterval),
      unknown: () => this.#drop("unknown position"),
      failed: (error) => {
        // `Reconnection` has already reported that the broker is unavailable.
        if (this.status === "ready") host.report(error);
      },
    });
    this.#subscriptions.set(channel, subscription);
    try {
      await this.#listening!.listen(channel); // Set by `start`.
      if (!history) return null;
      const { position } = await link.call("subscribe", (session) => session.read(channel, history, null, 0, 0));
      subscription.start(position);
      return position;
    } catch (error) {
      if (this.#subscriptions.get(channel) === subscription) this.unsubscribe(channel);
      throw error;
    }
  }

  /** Ends the subscription of this node. */
  unsubscribe(channel: string): void {
    this.#awaiting.delete(channel);
    this.#trust?.verifier.forget(channel);
    this.#subscriptions.get(channel)?.stop();
    if (this.#subscriptions.delete(channel) && this.status !== "closed") this.#listening?.linger(channel);
  }

  /** Publishes to a channel, and appends to its history in the same step if it has one. */
  async publish(...[channel, content, history, once, transaction]: Parameters<Engine["publish"]>): Promise<Position | null> {
    this.#checkLength("publish", content.data);
    if (transaction !== undefined) return await this.#publishIn(transaction, channel, content, history, once);
    // No `await` if the connection is ready, so that publications are sent in the order of the calls.
    const given = this.#linked("publish");
    const link = given instanceof Promise ? await given : given;
    if (history) this.check(history);
    const seal = () => this.#seal(history ? "publication" : "event", channel, content.data, content);
    return await link.call("publish", (session) => session.publish(channel, seal, history, this.#positionOf(channel), once));
  }

  /** Reads the history of a channel after a position. */
  read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number = Infinity,
  ): Promise<HistoryPage> {
    return this.#read("read", channel, history, after, limit, maxBytes);
  }

  /** Adds a member. If this rejects, the member is recorded nevertheless, and announced on reconnect unless `leave` is called first. */
  async join(channel: string, member: Member): Promise<void> {
    this.#announcer.own.join(channel, member);
    await this.#announcer.join(channel, member);
  }

  /** Removes a member. While the broker is unavailable, the leave is recorded, and announced on reconnect. */
  async leave(channel: string, user: string): Promise<void> {
    if (this.#announcer.own.leave(channel, user) && this.status === "ready") await this.#announcer.leave(channel, user);
  }

  /** Lists the members of a channel, over all nodes. */
  async members(channel: string): Promise<readonly Member[]> {
    await this.#connected("list the members");
    const subscription = this.#subscriptions.get(channel);
    return subscription ? await subscription.members() : presenceSetOf(await this.#announcer.read(channel)).members;
  }

  /** Leaves the cluster and closes the connections to the broker. */
  async close(): Promise<void> {
    for (const channel of [...this.#subscriptions.keys()]) this.unsubscribe(channel);
    this.#listening?.close();
    await this.#link?.close();
    this.#announcer.own.clear();
  }

  #listener(): Omit<BrokerListener, "ended"> {
    return inboundListener({
      // `#envelopes` is set by `start`.
      open: (kinds, scope, envelope) => this.#envelopes!.open(kinds, scope, envelope, true),
      subscription: (channel) => this.#subscriptions.get(channel),
      verifier: () => this.#trust?.verifier,
      receive: (opened) => this.#receive(opened),
      malformed: () => this.#drop("malformed"),
      report: (error) => this.#host?.report(error),
    });
  }

  #receive(opened: Opened): void {
    const { host } = this.#started();
    if (opened.kind === "message") {
      if (opened.node !== host.node) host.received(opened.body);
    } else this.#trust?.received(opened);
  }

  async #read(action: string, ...query: Required<Parameters<Engine["read"]>>): Promise<HistoryPage> {
    const link = await this.#connected(action);
    const [channel, history] = query;
    this.check(history);
    const end = (upTo: Position) => link.call(action, (session) => session.endHistory(channel, upTo));
    await this.#subscriptions.get(channel)?.endIncompleteHistory(end);
    return await this.#reader!.read(...query); // Set by `start`.
  }

  /** Runs after each connect, because messages of the previous session may be lost, in both directions. */
  async #resume(): Promise<void> {
    // Before the first `await`: channels that are subscribed to later use the new session and miss nothing.
    const subscriptions = [...this.#subscriptions.values()];
    await this.#trust?.orders.resume();
    await this.#announcer.announce();
    for (const batch of inBatches(subscriptions, 50)) await Promise.all(batch.map((each) => each.resume()));
    await this.#announcer.removeStale();
  }

  /** Compares the ends of histories. Reads members again at every 12th regular check, and if some may be wrong. @param count 0 for an extra check. */
  async #compare(count: number): Promise<void> {
    const link = this.#ready("compare");
    if (count > 0 && this.#announcer.isIncomplete) await this.#announcer.announce();
    const recorded = [...this.#subscriptions.values()].filter(({ history }) => history);
    for (const batch of inBatches(recorded, 200)) {
      const channels = batch.map(({ channel }) => channel);
      const positions = batch.map(({ position }) => position);
      const histories = batch.map(({ history }) => history!); // As filtered.
      const latest = await link.call("compare", (session) => session.latestPositions(channels, histories, positions));
      for (const [index, subscription] of batch.entries()) subscription.check(latest[index] ?? null, positions[index]);
    }
    for (const subscription of recorded) if (subscription.isHistoryIncomplete) await subscription.resume();
    const renewed = [...this.#subscriptions.values()].filter((each) =>
      each.isStale || count > 0 && (each.countCheck() || count % 12 === 2 || this.#trust?.verifier.isUnanswered(each.channel))
    );
    for (const batch of inBatches(renewed, 20)) await Promise.all(batch.map((each) => each.renew()));
  }

  /** Publishes in a transaction, with an envelope that may arrive late: see {@link Envelopes.sealSingle}. The position is unknown until the commit. */
  async #publishIn(
    transaction: unknown,
    ...[channel, content, history, once]: Parameters<Engine["publish"]>
  ): Promise<Position | null> {
    const { publishIn } = this.#broker;
    if (!publishIn) {
      throw new TypeError(
        `Cannot publish in a transaction: ${this.#broker.name} does not support it, use an engine of noroshi/postgres`,
      );
    }
    await this.#connected("publish");
    const kind = history ? "publication" : "event";
    const envelope = await this.#envelopes!.sealSingle(kind, channel, content.data, content.event, content.traceparent); // Set by `start`.
    await publishIn(transaction, this.#options.namespace, channel, envelope, history, once);
    return null;
  }

  readonly #positions = (): Position[] => [...this.#subscriptions.values()].flatMap(({ position }) => position ?? []);

  /** The position up to which this node has received everything; `undefined` if it is not subscribed. */
  #positionOf(channel: string): Position | undefined {
    return this.#subscriptions.get(channel)?.position;
  }

  #seal(kind: EnvelopeKind, scope: string, body: string, of?: { event: string; traceparent?: string }) {
    return this.#envelopes!.seal(kind, scope, body, of?.event, of?.traceparent); // Set by `start`.
  }

  #started(): { host: EngineHost } {
    if (!this.#host) throw new TypeError("Cannot use the engine: pass it to a controller, which starts it");
    return { host: this.#host };
  }

  /** The connection, or a promise while the first connect is under way. */
  #linked(action: string): Reconnection | Promise<Reconnection> {
    return this.#isConnecting ? this.#connected(action) : this.#ready(action);
  }

  get #isConnecting(): boolean {
    return this.#link?.isStarting === true;
  }

  /** The connection. Calls before the first connect wait for it instead of failing. */
  async #connected(action: string): Promise<Reconnection> {
    await this.#link?.firstConnect;
    return this.#ready(action);
  }

  /** Like `#connected`, but rejects if the channel is unsubscribed meanwhile. */
  async #awaited(channel: string): Promise<Reconnection> {
    const own = {};
    this.#awaiting.set(channel, own);
    const link = await this.#connected("subscribe");
    if (this.#awaiting.get(channel) !== own) throw unavailable("subscribe", `"${channel}" was unsubscribed meanwhile`);
    this.#awaiting.delete(channel);
    return link;
  }

  #ready(action: string): Reconnection {
    const link = this.#link;
    if (link?.status === "ready") return link;
    throw unavailable(action, `${this.#broker.name} is ${link ? statusText(link.status) : "not connected"}`, link?.reason);
  }

  #checkLength(action: string, text: string): void {
    const { maxLength } = this.#options;
    // 2,000 characters are reserved for the signature and the header.
    if (text.length <= maxLength - 2_000) return;
    const problem = `Cannot ${action}: ${text.length} characters are more than maxLength allows`;
    throw new WebSocketError("engine", "LIMIT_EXCEEDED", problem);
  }

  #drop(reason: DropReason, node?: string, channel?: string): void {
    if (reason === "unknown node" && node !== undefined) this.#trust?.greetUnknown(node);
    if (channel !== undefined) this.#subscriptions.get(channel)?.markStale();
    this.#dropped.count(reason, this.#started().host);
  }
}
