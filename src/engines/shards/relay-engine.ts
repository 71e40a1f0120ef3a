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
import { away, HomeCalls } from "./home-calls.ts";
import { ReceivedCalls } from "./received-calls.ts";
import { RelayChannel } from "./relay-channel.ts";
import { RelayStore } from "./relay-store.ts";
import { Resync } from "./resync.ts";
import { SharedCalls } from "./shared-calls.ts";
import {
  type MembersPage,
  mergeAnswers,
  type Operation,
  ordersLost,
  passOn,
  receiveMessage,
  type RelayAnswer,
  type RelayCall,
  type RelayEngineOptions,
} from "./shards.ts";

/** Number of channels that recover at once. */
const RECOVERIES = 500;

/**
 * The engine of an object that holds connections, while its home object stores histories and members.
 *
 * It stores the position up to which each channel was delivered, its members, and the subscriptions of its clients: when it returns from
 * hibernation it calls nobody. Its members stay while it hibernates, because its connections do. If it was restarted without them, the
 * members leave when it next runs, after the time that a client takes to reconnect.
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
  /** Keeps subscriptions and the members here. */
  readonly #local: SqliteEngine;
  readonly #channels = new Map<string, RelayChannel>();
  /** The rank of each member's data, which the home object has assigned. */
  readonly #ranks = new WeakMap<Member, number>();
  #host: EngineHost | undefined;
  readonly #receivedCalls = new ReceivedCalls();
  /** Lists of members by channel. A list may be long, and all clients that return at once want it. */
  readonly #lists = new SharedCalls<readonly Member[]>();
  /** The member that is joining. */
  #joining: Member | undefined;
  /** The announcement of the call that is under way. */
  #announcing: Promise<unknown> | undefined;
  readonly #lastChanges = new LastChanges();
  /** Whether the start is over, and with it the return of clients from hibernation. */
  #isSettled = false;
  /** The registration under way. All connections that open meanwhile wait for it. */
  #registering: Promise<unknown> | undefined;
  /** Reads what all channels lack. */
  #recovering: Promise<boolean> | undefined;
  /** Whether a channel could not be read, which was reported, and not all were since. */
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
      // A closed engine ignores the answer to its last call, which would list the relay again.
      answered: (answer, call) => {
        if (this.status === "closed" || !this.#store.applyAnswer(answer, call)) return;
        this.#resync.request(true);
        this.#host?.report(ordersLost()); // The home object may have given orders without listing this relay.
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
      // Only `settle` is repeated: a repeated `claim` would find its own text.
      await this.#run(`${type} an answer`, () => ({ type, key, text, ttl }), type === "settle");
    this.answers = {
      claim: answer("claim") as AnswerStore["claim"], // As the home object answers it.
      settle: answer("settle") as AnswerStore["settle"],
    };
  }

  /** Number of channels with a subscription or a member here. */
  get channels(): number {
    return new Set([...this.#channels.keys(), ...this.#store.members().map(({ channel }) => channel)]).size;
  }

  start(host: EngineHost): void {
    if (this.#host) throw new TypeError("Cannot start the engine: it is another controller's, make one for each");
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
    // As in SqliteEngine: clients return from hibernation in the turn of the start.
    queueMicrotask(() => this.#settle());
  }

  /**
   * Resolves once the home object lists this relay. Called before a connection opens, so that it misses no order or broadcast:
   * connections without a subscription receive those, too.
   */
  async register(): Promise<void> {
    if (this.#store.isListed) return;
    const registering = this.#registering ??= this.#run("be listed", () => ({ type: "hello" }));
    await registering.finally(() => this.#registering = undefined);
  }

  async send(message: string, to?: string): Promise<void> {
    await this.#run("send", () => ({ type: "send", text: message, to }), false);
  }

  async order(message: string): Promise<void> {
    await this.#run("order", () => ({ type: "order", text: message }));
  }

  async nodes(): Promise<string[]> {
    return await this.#runAlone("name the nodes", { type: "nodes" }) as string[]; // As the home object answers it.
  }

  subscribe(channel: string, history: HistoryOptions | null): Position | null | Promise<Position | null> {
    this.#check("subscribe");
    const stored = this.#isSettled ? undefined : this.#store.positionOf(channel);
    // The home object still has the subscription. It hands over what was published meanwhile, or its next call reveals the gap.
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

  /** The member is recorded even when this rejects, and announced later. */
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
    this.#check("name the members");
    return await this.#lists.run(channel, async () => {
      const members: Member[] = [];
      this.#lastChanges.forget(channel);
      let page: MembersPage;
      do {
        const after = members.at(-1)?.user;
        // As the home object answers it.
        page = await this.#runAlone("name the members", { type: "members", channel, after }) as MembersPage;
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
    await this.#calls.run(() => ({ type: "close" }), true).catch(() => {}); // The home object notices when it calls next.
  }

  /** Handles a call of the home object, and passes it on to other relays. */
  async receive({ others, ...call }: RelayCall): Promise<RelayAnswer> {
    const { relay, callRelay, hasConnections } = this.#options;
    const isNew = call.number !== 0 && this.status !== "closed" && this.#receivedCalls.record(call);
    // Both at once. A failure here must not end the others' calls.
    const [isWhole, passed] = await Promise.all([this.#handle(call, isNew), passOn(others, call, callRelay)]);
    const isIdle = this.#channels.size === 0 && !hasConnections() && !this.#store.hasMembers;
    const own = { relay, node: this.#host?.node ?? "", generation: this.#store.state.generation, isIdle };
    if (isIdle) this.#store.unlist();
    return mergeAnswers([{ failed: [], behind: isWhole ? [] : [relay], nodes: [own] }, passed]);
  }

  /** `false`: something is missing still. */
  async #handle({ number, items, isLate }: Omit<RelayCall, "others">, isNew: boolean): Promise<boolean> {
    if (this.status === "closed" || number === 0) return true;
    if (isNew) { for (const item of items) this.#receiveItem(item); }
    // Deliveries are written at the end of the turn. The position is stored after that, so a relay that stops in between delivers again.
    await new Promise<void>((done) => afterTurn(done));
    // The same call may come once more while it is carried out.
    if (isLate && (isNew || this.#recovering)) {
      return await (this.#recovering ??= this.#recover().finally(() => this.#recovering = undefined));
    }
    const touched = isLate ? this.#channels : new Set(items.flatMap((item) => "channel" in item ? item.channel : []));
    const settled = await Promise.all([...touched.keys()].map((channel) => this.#channels.get(channel)?.settle() ?? true));
    return settled.every(Boolean);
  }

  /** Reads what all channels lack, some at once. `false`: something is missing still. */
  async #recover(): Promise<boolean> {
    const channels = this.#channels.values();
    let isWhole = true;
    const recover = async () => {
      for (const channel of channels) {
        channel.recover();
        if (!await channel.settle()) isWhole = false;
      }
    };
    await Promise.all(Array.from({ length: RECOVERIES }, recover));
    if (isWhole) this.#hasFailed = false;
    return isWhole;
  }

  #receiveItem(item: RelayCall["items"][number]): void {
    const host = this.#host!; // The object calls it after the start.
    if (item.type === "message" || item.type === "lost") return receiveMessage(host, item);
    const subscription = this.#channels.get(item.channel);
    if (!subscription) return; // Of another relay of the call.
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
      // What is published from the answer on may arrive before it: the subscription keeps it.
      const position = await this.#run("subscribe", () => ({ type: "subscribe", channel, history })) as Position | null;
      if (this.#channels.get(channel) !== subscription) throw away("subscribe", `no longer asked for "${channel}"`);
      this.#store.save(channel, position);
      subscription.start(position, true);
      return position;
    } catch (error) {
      if (this.#channels.get(channel) === subscription) this.unsubscribe(channel);
      throw error;
    }
  }

  /** Sends the home object a change of the members here. */
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

  /** @param member as the node holds it: the same object has the same rank. */
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

  /** Runs once all clients have returned from hibernation: what none of them is subscribed to ends. */
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

  /** Sends the home object all that this relay has. `false`: something is missing still. */
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
    if (this.status === "closed") throw away(action, "not called: the engine is closed");
  }
}
