import {
  type AnswerStore,
  type Engine,
  type EngineHost,
  type EngineStatus,
  type HistoryOptions,
  type HistoryPage,
  type Member,
  PAGE_BYTES,
  type Position,
  type PublicationContent,
  type PublishOnce,
  type SubscriptionKeeper,
} from "../engine.ts";
import { afterTurn } from "../../base/turn.ts";
import { SqliteEngine } from "../sqlite-engine.ts";
import { LastChanges } from "./last-changes.ts";
import { HomeCalls, unavailable } from "./home-calls.ts";
import { ReceivedCalls } from "./received-calls.ts";
import { RelayChannel } from "./relay-channel.ts";
import { RelayStore } from "./relay-store.ts";
import { Resync } from "./resync.ts";
import { SharedCalls } from "./shared-calls.ts";
import {
  forwardCall,
  type MembersPage,
  mergeAnswers,
  type Operation,
  ordersLost,
  receiveMessage,
  type RelayAnswer,
  type RelayCall,
  type RelayEngineOptions,
} from "./shards.ts";

/** Maximum number of channels that recover at once. */
const MAX_RECOVERIES = 500;

/**
 * The engine of an object that holds connections, while its home object stores histories and members.
 *
 * It stores the position up to which each channel was delivered, its members, and the subscriptions of its clients, so it needs no call
 * when it returns from hibernation. Members stay while it hibernates, as its connections do. If the object was restarted without its
 * connections, the members leave when it next runs, after the time that a client takes to reconnect.
 */
export class RelayEngine implements Engine {
  status: EngineStatus = "ready";
  /** Only objects with the binding can call. */
  readonly isSigned = true;
  readonly keeper: SubscriptionKeeper;
  readonly answers: AnswerStore;

  readonly #options: RelayEngineOptions;
  readonly #calls: HomeCalls;
  readonly #store: RelayStore;
  readonly #resync: Resync;
  /** Stores the subscriptions of clients and the members of this relay. */
  readonly #local: SqliteEngine;
  readonly #channels = new Map<string, RelayChannel>();
  /** By member of this relay: the rank that the home object has given its data. */
  readonly #ranks = new WeakMap<Member, number>();
  #host: EngineHost | undefined;
  readonly #receivedCalls = new ReceivedCalls();
  /** By channel: the calls for its members. The list may be long, and clients that return at once share it. */
  readonly #memberLists = new SharedCalls<readonly Member[]>();
  /** The member that {@link join} is adding. */
  #joining: Member | undefined;
  /** The announcement that the last {@link join} or {@link leave} has started. */
  #announcing: Promise<unknown> | undefined;
  readonly #lastChanges = new LastChanges();
  /** Whether all clients have returned from hibernation. */
  #isSettled = false;
  /** The registration under way. Connections that open meanwhile wait for it. */
  #registering: Promise<unknown> | undefined;
  /** The recovery of all channels that is under way. */
  #recovering: Promise<boolean> | undefined;
  /** Whether a failed recovery was reported. It is reported once, until all channels have recovered. */
  #hasFailed = false;

  constructor(options: RelayEngineOptions) {
    this.#options = options;
    const { sql, prefix, relay, callHome } = options;
    this.#store = new RelayStore(sql, prefix);
    this.#local = new SqliteEngine(sql, { prefix, receivesAll: true });
    this.keeper = this.#local.keeper;
    this.#calls = new HomeCalls({
      call: callHome,
      sender: () => ({ relay, node: this.#host?.node ?? "", ...this.#store.state }),
      // The answer to the last call of a closed engine is ignored: it would mark the relay as listed again.
      answered: (answer, call) => {
        if (this.status === "closed" || !this.#store.applyAnswer(answer, call)) return;
        this.#resync.request(true);
        this.#host?.report(ordersLost()); // The home object may have sent orders while it did not list this relay.
      },
    });
    const host = () => this.#host;
    const isClosed = () => this.status === "closed";
    this.#resync = new Resync(this.#store, {
      get deadlines() {
        return host()?.deadlines;
      },
      get isClosed() {
        return isClosed();
      },
      send: () => this.#sendAll(),
      report: (error) => host()?.report(error),
    });
    const answer = (type: "claim" | "settle") => async (key: string, text: string, ttl: number) =>
      // `claim` is not repeated: the second call would find the text of the first.
      await this.#run(`${type} an answer`, () => ({ type, key, text, ttl }), type === "settle");
    this.answers = {
      claim: answer("claim") as AnswerStore["claim"], // As the home object answers it.
      settle: answer("settle") as AnswerStore["settle"],
    };
  }

  /** Number of channels with a subscription or a member on this relay. */
  get channels(): number {
    return new Set([...this.#channels.keys(), ...this.#store.members().map(({ channel }) => channel)]).size;
  }

  start(host: EngineHost): void {
    if (this.#host) throw new TypeError("Cannot start the engine: it belongs to another controller, make one for each");
    this.#host = host;
    this.#store.start();
    this.#local.start({
      node: host.node,
      now: () => host.now(),
      deadlines: host.deadlines,
      published: () => {},
      gap: () => {},
      present: (channel, joined, left) => this.#announce(channel, joined, left),
      received: () => {},
      status: () => {},
      report: (error) => host.report(error),
    });
    // Clients return from hibernation in the turn of the start, as in SqliteEngine.
    queueMicrotask(() => this.#settle());
  }

  /**
   * Resolves once the home object lists this relay. Call it before a connection opens: orders and broadcasts concern connections
   * without a subscription, too.
   */
  async register(): Promise<void> {
    if (this.#store.isListed) return;
    const registering = this.#registering ??= this.#run("register the relay", () => ({ type: "hello" }));
    await registering.finally(() => this.#registering = undefined);
  }

  async send(message: string, to?: string): Promise<void> {
    await this.#run("send", () => ({ type: "send", text: message, to }), false);
  }

  async order(message: string): Promise<void> {
    await this.#run("order", () => ({ type: "order", text: message }));
  }

  async nodes(): Promise<string[]> {
    return await this.#runAlone("list the nodes", { type: "nodes" }) as string[]; // As the home object answers it.
  }

  subscribe(channel: string, history: HistoryOptions | null): Position | null | Promise<Position | null> {
    this.#check("subscribe");
    const stored = this.#isSettled ? undefined : this.#store.positionOf(channel);
    // The home object still has the subscription: it sends later publications, or its next call shows that some are missing.
    if (stored === undefined || (stored === null) !== (history === null)) return this.#subscribe(channel, history);
    this.#open(channel, history).start(stored, true);
    return stored;
  }

  unsubscribe(channel: string): void {
    const subscription = this.#channels.get(channel);
    subscription?.stop();
    if (!this.#channels.delete(channel) || this.status === "closed") return;
    this.#store.forget(channel);
    this.#lastChanges.forget(channel);
    this.#announceRemoval({ type: "unsubscribe", channel }).catch(() => {}); // `Resync` announces it later.
  }

  async publish(
    channel: string,
    content: PublicationContent,
    history: HistoryOptions | null,
    once?: PublishOnce,
  ): Promise<Position | null> {
    const publish = (): Operation => ({ type: "publish", channel, content, history, once });
    return await this.#run("publish", publish, once !== undefined) as Position | null; // As the home object answers it.
  }

  async read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number = Infinity,
  ): Promise<HistoryPage> {
    const read = (): Operation => ({ type: "read", channel, history, after, limit, maxBytes });
    return await this.#run("read", read) as HistoryPage; // As above.
  }

  /** If it rejects, the member is recorded nevertheless, and announced later. */
  async join(channel: string, member: Member): Promise<void> {
    this.#check("join");
    this.#joining = member;
    this.#announcing = undefined;
    try {
      this.#local.join(channel, member);
    } finally {
      this.#joining = undefined;
    }
    await this.#announcing;
  }

  async leave(channel: string, user: string): Promise<void> {
    this.#announcing = undefined;
    this.#local.leave(channel, user);
    await this.#announcing;
  }

  async members(channel: string): Promise<readonly Member[]> {
    this.#check("list the members");
    return await this.#memberLists.run(channel, async () => {
      const members: Member[] = [];
      this.#lastChanges.forget(channel);
      let page: MembersPage;
      do {
        const after = members.at(-1)?.user;
        // As the home object answers it.
        page = await this.#runAlone("list the members", { type: "members", channel, after }) as MembersPage;
        for (const member of page.members) members.push(member);
      } while (page.hasMore);
      this.#lastChanges.forget(channel);
      return members;
    });
  }

  async close(): Promise<void> {
    if (this.status === "closed") return;
    this.status = "closed";
    if (!this.#host) return;
    this.#host.deadlines.delete(this.#resync);
    for (const subscription of this.#channels.values()) subscription.stop();
    this.#channels.clear();
    this.#store.clear();
    this.#local.close();
    await this.#calls.run(() => ({ type: "close" }), true).catch(() => {}); // Otherwise the home object notices at its next call.
  }

  /** Handles a call of the home object, and forwards it to other relays. */
  async receive({ others, ...call }: RelayCall): Promise<RelayAnswer> {
    const { relay, callRelay, hasConnections } = this.#options;
    const isNew = call.number !== 0 && this.status !== "closed" && this.#receivedCalls.record(call);
    const [isComplete, forwarded] = await Promise.all([this.#handle(call, isNew), forwardCall(others, call, callRelay)]);
    const isIdle = this.#channels.size === 0 && !hasConnections() && !this.#store.hasMembers;
    const own = { relay, node: this.#host?.node ?? "", generation: this.#store.state.generation, isIdle };
    if (isIdle) this.#store.unlist();
    return mergeAnswers([{ failed: [], behind: isComplete ? [] : [relay], nodes: [own] }, forwarded]);
  }

  /** Resolves with whether this relay has everything now. */
  async #handle({ number, items, isLate }: Omit<RelayCall, "others">, isNew: boolean): Promise<boolean> {
    if (this.status === "closed" || number === 0) return true;
    if (isNew) { for (const item of items) this.#receiveItem(item); }
    // Deliveries are written at the end of the turn. The position is stored after that: a relay that stops in between delivers again
    // instead of skipping publications.
    await new Promise<void>((done) => afterTurn(done));
    // A call may be repeated while it is being handled.
    if (isLate && (isNew || this.#recovering)) {
      return await (this.#recovering ??= this.#recover().finally(() => this.#recovering = undefined));
    }
    const touched = isLate ? this.#channels : new Set(items.flatMap((item) => "channel" in item ? item.channel : []));
    const settled = await Promise.all([...touched.keys()].map((channel) => this.#channels.get(channel)?.settle() ?? true));
    return settled.every(Boolean);
  }

  /** Reads the missing publications of all channels. Resolves with whether this relay has everything now. */
  async #recover(): Promise<boolean> {
    const channels = this.#channels.values();
    let isComplete = true;
    const recover = async () => {
      for (const channel of channels) {
        channel.recover();
        if (!await channel.settle()) isComplete = false;
      }
    };
    await Promise.all(Array.from({ length: MAX_RECOVERIES }, recover));
    if (isComplete) this.#hasFailed = false;
    return isComplete;
  }

  #receiveItem(item: RelayCall["items"][number]): void {
    const host = this.#host!; // The object calls it after the start.
    if (item.type === "message" || item.type === "lost") return receiveMessage(host, item);
    const subscription = this.#channels.get(item.channel);
    if (!subscription) return; // The item is for another relay of the call.
    if (item.type === "presence") {
      const { joined, left } = this.#lastChanges.filterNew(item);
      if (joined.length + left.length > 0) host.present(item.channel, joined, left);
    } else subscription.receive({ ...item.content, position: item.position }, item.previous);
  }

  #open(channel: string, history: HistoryOptions | null): RelayChannel {
    const host = this.#host!; // Subscribed to after the start.
    const subscription = new RelayChannel(history, {
      read: (after, limit) => this.read(channel, history!, after, limit, PAGE_BYTES), // Called only with a history.
      published: (publication) => host.published(channel, publication),
      gap: (position) => host.gap(channel, position),
      reached: (position) => {
        if (this.#channels.get(channel) === subscription) this.#store.save(channel, position);
      },
      report: (error) => {
        if (!this.#hasFailed) host.report(error);
        this.#hasFailed = true;
      },
    });
    this.#channels.set(channel, subscription);
    return subscription;
  }

  async #subscribe(channel: string, history: HistoryOptions | null): Promise<Position | null> {
    const subscription = this.#open(channel, history);
    try {
      // Publications may arrive before the answer: the subscription keeps them until it starts.
      const position = await this.#run("subscribe", () => ({ type: "subscribe", channel, history })) as Position | null;
      if (this.#channels.get(channel) !== subscription) throw unavailable("subscribe", `"${channel}" was unsubscribed meanwhile`);
      this.#store.save(channel, position);
      subscription.start(position, true);
      return position;
    } catch (error) {
      if (this.#channels.get(channel) === subscription) this.unsubscribe(channel);
      throw error;
    }
  }

  /** Sends the home object a change of this relay's members. */
  #announce(channel: string, joined: readonly Member[], left: readonly string[]): void {
    if (this.status === "closed") return;
    const member = this.#joining;
    const announcements = [
      ...joined.map((each) => this.#announceJoin(channel, each, member)),
      ...left.map((user) => this.#announceRemoval({ type: "leave", channel, user })),
    ];
    const announcing = this.#announcing = Promise.all(announcements);
    announcing.catch(() => this.#resync.request());
  }

  /** @param member the object that the node has passed to {@link join}; its rank is kept for later calls with the same object. */
  async #announceJoin(channel: string, { user, data }: Member, member: Member | undefined): Promise<void> {
    const join = (): Operation => ({
      type: "join",
      channel,
      member: data === undefined ? { user } : { user, data },
      place: member && this.#ranks.get(member),
    });
    const rank = await this.#run("join", join) as number; // As the home object answers it.
    if (member) this.#ranks.set(member, rank);
  }

  /** Runs once all clients have returned from hibernation, and unsubscribes from channels that none of them is subscribed to. */
  #settle(): void {
    this.#isSettled = true;
    if (this.status === "closed") return;
    if (this.#store.isBehind) this.#resync.request(true);
    for (const channel of this.#store.channels()) {
      if (this.#channels.has(channel)) continue;
      this.#store.forget(channel);
      this.#announceRemoval({ type: "unsubscribe", channel }).catch(() => {}); // `Resync` announces it later.
    }
  }

  async #announceRemoval(operation: Extract<Operation, { type: "unsubscribe" | "leave" }>): Promise<void> {
    await this.#resync.trackRemoval(() => this.#run(operation.type, () => operation));
  }

  /** Sends the home object all subscriptions and members. Resolves with whether this relay has everything now. */
  async #sendAll(): Promise<boolean> {
    const channels = () => [...this.#channels].map(([channel, { history }]) => ({ channel, history }));
    await this.#run("resync", () => ({ type: "resync", channels: channels(), members: this.#store.members() }));
    return await this.#recover();
  }

  async #run(action: string, operation: () => Operation, isRepeatable = true): Promise<unknown> {
    this.#check(action);
    return await this.#calls.run(operation, isRepeatable);
  }

  async #runAlone(action: string, operation: Operation): Promise<unknown> {
    this.#check(action);
    // Another call of a closed engine would list the relay again.
    return await this.#calls.runAlone(operation, () => this.#check(action));
  }

  #check(action: string): void {
    if (this.status === "closed") throw unavailable(action, "the engine is closed");
  }
}
