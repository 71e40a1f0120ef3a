import * as v from "valibot";
import type { Awaitable, HistoryOptions, Position, PublishOnce } from "../engine.ts";
import type { BrokerListener, BrokerPage, BrokerSession, Seal, SessionOptions, StoredOrders } from "../broker/broker.ts";
import { decodeName, encodeName } from "../broker/channel-name.ts";
import { LatestPositions, Orders, Page, Published, Strings } from "./replies.ts";
import type { RedisConnection, RedisServer } from "./client.ts";
import { RedisClock } from "./clock.ts";
import type { RedisMemory } from "./memory.ts";
import * as scripts from "./scripts.ts";

/** Maximum number of stored orders. Orders older than {@link RETENTION} are deleted, too. */
const MAX_ORDERS = 10_000;

/** Expiry of members and orders in Redis, in ms, so that they are deleted even if all nodes were killed. */
const RETENTION = 24 * 60 * 60_000;

/** Steps between two offsets are random and less than this. The offset of a lost publication is reused with a chance of 1 in 500,000. */
const STEP_LIMIT = 1_000_000;

/** Pause between two attempts to start after a restart of Redis, in ms: another node may know its state before the restart. */
const START_PAUSE = 50;

/** Maximum number of channels whose members one heartbeat checks. */
const CHANNELS_PER_HEARTBEAT = 1_000;

/** A session with Redis, over one connection for commands and one for subscriptions. */
export class RedisSession implements BrokerSession {
  readonly #commands: RedisConnection;
  readonly #clock: RedisClock;
  readonly #subscriber: RedisConnection;
  readonly #run: string;
  readonly #known: RedisMemory;
  readonly #listener: BrokerListener;
  readonly #options: SessionOptions;
  readonly #prefix: string;
  /** Prefix of subjects. It contains the database, because all databases share subjects, unlike keys. */
  #subjects: string;
  /** Encoded names of the channels with members on this node. */
  readonly #joinedChannels = new Set<string>();
  /** The part of `#joinedChannels` that heartbeats have not checked yet in this round. */
  #uncheckedChannels: string[] = [];
  readonly #scriptHashes = new Map<string, string>();
  /** By channel: the deletion of its history, which runs at the end of the turn. */
  readonly #endingHistories = new Map<string, Promise<void>>();
  #epochs = 0;
  #sentHeartbeats = 0;
  #receivedHeartbeats = 0;
  #announcedAt: number;

  constructor(
    commands: RedisConnection,
    subscriber: RedisConnection,
    run: string,
    known: RedisMemory,
    listener: BrokerListener,
    options: SessionOptions,
  ) {
    this.#commands = commands;
    this.#clock = new RedisClock(commands);
    this.#subscriber = subscriber;
    this.#run = run;
    this.#known = known;
    this.#listener = listener;
    this.#options = options;
    this.#prefix = this.#subjects = `${options.namespace}:`;
    this.#announcedAt = options.now();
  }

  async start({ run, promotion, database }: RedisServer): Promise<void> {
    if (database > 0) this.#subjects = `${this.#prefix}${database}:`;
    for (const script of Object.values(scripts)) {
      this.#scriptHashes.set(script, `${await this.#commands.command("SCRIPT", "LOAD", script)}`);
    }
    await this.#clock.read();
    const { node } = this.#options;
    // Subscribes and publishes to an unused channel, to check that the ACL permits it.
    const [own, channel] = [`${this.#subjects}node:${node}`, this.#subject(node)];
    await this.#subscriber.subscribe([`${this.#subjects}all`, own, channel]);
    await this.#subscriber.unsubscribe([channel]);
    await this.#evaluate(scripts.CHECK, ["h", "s", "z"].map((type) => `${this.#prefix}check:${node}:${type}`), [channel]);
    if (this.#run !== "") return;
    const { run: before, publications } = this.#known;
    const keys = [this.#runKey, `${this.#prefix}nodes`];
    const args = [run, before, `${publications}`, promotion, this.#newEpoch(), node];
    for (let waited = 0; await this.#evaluate(scripts.START, keys, args) === 0; waited += START_PAUSE) {
      if (waited >= this.#options.timeout / 2) {
        throw new Error("Cannot use Redis: it was restarted, and no node that knows the histories is back yet");
      }
      await new Promise((resolve) => setTimeout(resolve, START_PAUSE));
    }
  }

  get fullNamespace(): string {
    return this.#subjects.slice(0, -1);
  }

  now(): number {
    return this.#clock.now();
  }

  receive(subject: string, text: string): void {
    const name = subject.slice(this.#subjects.length);
    if (name === "all") return this.#listener.message(text);
    if (name.startsWith("node:")) {
      this.#receivedHeartbeats = Math.max(this.#receivedHeartbeats, Number(text) || 0);
      return;
    }
    const channel = decodeName(name.slice("ch:".length));
    const [first = "", second = ""] = text.split("\n", 2);
    const rest = text.slice(first.length + 1);
    if (channel === null) this.#listener.malformed();
    else if (first === "member") this.#listener.member(channel, rest);
    else if (first === "event") this.#listener.live(channel, rest, null, 0);
    else if (!/^\d{1,15} \d{6} \d{1,15}$/.test(second)) this.#listener.malformed();
    else {
      const [offset, step, publications] = second.split(" ").map(Number) as [number, number, number]; // Matched above.
      this.#known.publications = Math.max(this.#known.publications, publications);
      this.#listener.live(channel, rest.slice(second.length + 1), { epoch: first, offset }, offset - step);
    }
  }

  async listen(channels: readonly string[]): Promise<void> {
    await this.#subscriber.subscribe(channels.map((channel) => this.#subject(channel)));
  }

  async unlisten(channels: readonly string[]): Promise<void> {
    await this.#subscriber.unsubscribe(channels.map((channel) => this.#subject(channel)));
  }

  async publish(
    channel: string,
    seal: Seal,
    history: HistoryOptions | null,
    known?: Position,
    once?: PublishOnce,
  ): Promise<Position | null> {
    const subject = this.#subject(channel);
    const sealed = seal();
    const envelope = typeof sealed === "string" ? sealed : await sealed;
    const ids = once ? [`${this.#prefix}i:${encodeName(channel)}:${encodeName(once.id)}`] : [];
    const window = `${once?.window ?? 0}`;
    if (!history) {
      const again = async () => [window, subject, `event\n${await seal()}`];
      const published = once
        ? this.#evaluate(scripts.PUBLISH_ONCE, ids, [window, subject, `event\n${envelope}`], again)
        : this.#commands.command("PUBLISH", subject, `event\n${envelope}`);
      await Promise.all([published, this.#endIncompleteHistory(channel)]);
      return null;
    }
    const step = `${1 + Math.floor(Math.random() * (STEP_LIMIT - 1))}`.padStart(6, "0");
    const args = [...this.#historyArgs(channel, known), `${history.size}`, ...this.#expiryArgs(history), step, subject, window];
    const again = async () => [...args, await seal()];
    const answer = await this.#evaluate(scripts.PUBLISH, [...this.#keys(channel), ...ids], [...args, envelope], again);
    const [epoch, offset, publications] = v.parse(Published, answer);
    // The position of an earlier publication with this id, which has none if it was made without a history.
    if (publications < 0) return epoch === "" ? null : { epoch, offset };
    this.#known.publications = Math.max(this.#known.publications, publications);
    return this.#remember(channel, { epoch, offset });
  }

  readonly answers: BrokerSession["answers"] = {
    claim: async (key, text, ttl) =>
      v.parse(v.string(), await this.#evaluate(scripts.CLAIM, [`${this.#prefix}a:${encodeName(key)}`], [`${ttl}`, text])) || null,
    settle: async (key, text, ttl) =>
      void await this.#evaluate(scripts.SETTLE, [`${this.#prefix}a:${encodeName(key)}`], [`${ttl}`, text]),
  };

  async read(
    channel: string,
    history: HistoryOptions,
    after: Position | null,
    limit: number,
    maxBytes: number,
    known?: Position,
  ): Promise<BrokerPage> {
    const most = Math.min(limit, history.size);
    const from = after ? [after.epoch || "-", `${after.offset}`, after === known ? "1" : "0"] : ["", "0", "0"];
    const bounds = [`${Math.min(maxBytes, Number.MAX_SAFE_INTEGER)}`, limit === Infinity ? "0" : "1"];
    const args = [...this.#historyArgs(channel, known), ...this.#expiryArgs(history), `${most}`, ...from, ...bounds];
    const [epoch, offset, isComplete, found, hasMore] = v.parse(
      Page,
      await this.#evaluate(scripts.READ, this.#keys(channel), args),
    );
    const position = this.#remember(channel, { epoch, offset });
    const entries = found.map(([id, [, envelope]]) => {
      const offset = parseInt(id, 10);
      const time = Number(id.slice(id.indexOf("-") + 1, -6));
      return { position: { epoch, offset }, envelope, time, previous: offset - Number(id.slice(-6)) };
    });
    if (after) return { position, entries, isComplete: isComplete === 1, hasMore: hasMore === 1 };
    entries.reverse();
    // Only entries after the last gap.
    const broken = entries.findLastIndex(({ previous }, number) =>
      number > 0 && previous !== entries[number - 1]!.position.offset
    );
    return { position, entries: entries.slice(Math.max(0, broken)), isComplete: true };
  }

  async endHistory(channel: string, { epoch }: Position): Promise<void> {
    await this.#evaluate(scripts.END, this.#keys(channel).slice(0, 2), [epoch]); // Without the key `run`.
  }

  async latestPositions(
    channels: readonly string[],
    histories: readonly HistoryOptions[],
    known: readonly (Position | undefined)[],
  ): Promise<(Position | null)[]> {
    const keys = channels.map((channel) => this.#keys(channel)[0]!); // The key `meta`.
    const args = histories.flatMap(({ ttl }, number) => [
      `${ttl + this.#options.slack}`,
      ...positionArgs(this.#known.latest(channels[number]!, known[number])), // All three have the same length.
    ]);
    const latest = v.parse(
      LatestPositions,
      await this.#evaluate(scripts.LATEST_POSITIONS, [...keys, this.#runKey], [this.#run, ...args]),
    );
    return latest.map((each, index) => each && this.#remember(channels[index]!, { epoch: each[0], offset: each[1] }));
  }

  async send(envelope: string): Promise<void> {
    await this.#commands.command("PUBLISH", `${this.#subjects}all`, envelope);
  }

  async storeOrder(envelope: string): Promise<void> {
    await this.#evaluate(scripts.STORE_ORDER, [`${this.#prefix}orders`], [
      `${this.#subjects}all`,
      envelope,
      `${MAX_ORDERS}`,
      `${RETENTION}`,
    ]);
  }

  async storedOrders(since: number): Promise<StoredOrders> {
    const first = `${Math.max(0, Math.floor(since))}`;
    const orders = await this.#commands.command("XRANGE", `${this.#prefix}orders`, first, "+", "COUNT", `${MAX_ORDERS}`);
    const envelopes = v.parse(Orders, orders).map(([, [, envelope]]) => envelope);
    return { envelopes, isWhole: envelopes.length < MAX_ORDERS };
  }

  async heartbeat(): Promise<boolean> {
    const { node, lease, now } = this.#options;
    const before = this.#sentHeartbeats;
    if (this.#uncheckedChannels.length === 0) this.#uncheckedChannels = [...this.#joinedChannels];
    const channels = this.#uncheckedChannels.splice(-CHANNELS_PER_HEARTBEAT).filter((channel) =>
      this.#joinedChannels.has(channel)
    );
    const args = [node, `${lease}`, this.#prefix, `${this.#subjects}node:${node}`, `${++this.#sentHeartbeats}`, ...channels];
    const [known] = await Promise.all([this.#evaluate(scripts.HEARTBEAT, [`${this.#prefix}nodes`], args), this.#clock.read()]);
    // Each heartbeat publishes to this node. If the one before did not arrive, the subscribed connection is dead. This is checked after the
    // answer, because a process that was stopped for a while has not yet read what had arrived.
    if (this.#receivedHeartbeats < before) {
      const error = new Error("Cannot receive messages: nothing arrives on the connection that is subscribed");
      this.#listener.ended(error);
      throw error;
    }
    const wasKnown = known === 1;
    // With `false`, the engine announces its members again, which renews their expiry.
    if (now() - this.#announcedAt < RETENTION / 3) return wasKnown;
    this.#announcedAt = now();
    return false;
  }

  async nodes(): Promise<string[]> {
    return v.parse(Strings, await this.#evaluate(scripts.NODES, [`${this.#prefix}nodes`], []));
  }

  async join(channel: string, user: string, envelope: string): Promise<void> {
    await this.#change(scripts.JOIN, channel, user, envelope, false);
  }

  async leave(channel: string, user: string, envelope: string, isLast: boolean): Promise<void> {
    await this.#change(scripts.LEAVE, channel, user, envelope, isLast);
  }

  async members(channel: string): Promise<string[]> {
    const name = encodeName(channel);
    const keys = [`${this.#prefix}w:${name}`, `${this.#prefix}nodes`];
    return v.parse(Strings, await this.#evaluate(scripts.MEMBERS, keys, [this.#prefix, name]));
  }

  async ownMembers(): Promise<{ channel: string; envelope: string }[]> {
    const { node } = this.#options;
    const list = async (command: string, key: string) =>
      v.parse(Strings, await this.#commands.command(command, this.#prefix + key));
    const found = (await list("SMEMBERS", `c:${node}`)).map(async (name) =>
      (await list("HVALS", `m:${node}:${name}`)).map((envelope) => ({ channel: decodeName(name) ?? "", envelope }))
    );
    return (await Promise.all(found)).flat();
  }

  async retire(): Promise<void> {
    await this.#commands.command("ZREM", `${this.#prefix}nodes`, this.#options.node);
  }

  close(): void {
    this.#commands.close();
    this.#subscriber.close();
  }

  /** Deletes the history that other nodes keep, which lacks what was just published. Once per turn, because it takes an extra command. */
  #endIncompleteHistory(channel: string): Promise<void> {
    const underWay = this.#endingHistories.get(channel);
    if (underWay) return underWay;
    const ending = Promise.resolve().then(async () => {
      this.#endingHistories.delete(channel);
      await this.#commands.command("DEL", ...this.#keys(channel).slice(0, 2));
    });
    this.#endingHistories.set(channel, ending);
    return ending;
  }

  async #change(script: string, channel: string, user: string, envelope: string, isLast: boolean): Promise<void> {
    const { node } = this.#options;
    const name = encodeName(channel);
    const keys = [`m:${node}:${name}`, `c:${node}`, `w:${name}`].map((key) => this.#prefix + key);
    const args = [user, envelope, name, node, this.#subject(channel), `${RETENTION}`];
    await this.#evaluate(script, keys, args);
    // Replies arrive in the order of the calls. `isLast` is used instead of a reply, because Redis may have evicted other members.
    this.#joinedChannels[isLast ? "delete" : "add"](name);
  }

  /** Runs a script. @param again returns the arguments if it has to be sent again. */
  async #evaluate(
    script: string,
    keys: readonly string[],
    args: readonly string[],
    again: () => Awaitable<readonly string[]> = () => args,
  ): Promise<unknown> {
    const rest = [`${keys.length}`, ...keys];
    try {
      return await this.#commands.command("EVALSHA", this.#scriptHashes.get(script)!, ...rest, ...args); // Set by `start`.
    } catch (error) {
      const text = error instanceof Error ? error.message : "";
      // Redis has lost the script, as after `SCRIPT FLUSH`.
      if (text.startsWith("NOSCRIPT")) return await this.#commands.command("EVAL", script, ...rest, ...await again());
      // After a failover, another server accepts writes, and reconnecting finds it.
      if (/^(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|UNBLOCKED)/.test(text)) this.#listener.ended(error);
      throw error;
    }
  }

  /** First arguments of the scripts that may begin a history: run, new epoch, and the last known position. */
  #historyArgs(channel: string, known: Position | undefined): string[] {
    return [this.#run, this.#newEpoch(), ...positionArgs(this.#known.latest(channel, known))];
  }

  #expiryArgs({ ttl }: HistoryOptions): string[] {
    return [`${ttl}`, `${this.#options.slack}`];
  }

  #newEpoch(): string {
    return `${this.#options.node}.${this.#options.now()}.${++this.#epochs}`;
  }

  /** Keeps a position that Redis has reported. */
  #remember(channel: string, position: Position): Position {
    this.#known.remember(channel, position);
    return position;
  }

  get #runKey(): string {
    return `${this.#prefix}run`;
  }

  #keys(channel: string): string[] {
    const name = encodeName(channel);
    return [`${this.#prefix}h:${name}`, `${this.#prefix}s:${name}`, this.#runKey];
  }

  #subject(channel: string): string {
    return `${this.#subjects}ch:${encodeName(channel)}`;
  }
}

const positionArgs = (position: Position | undefined): string[] => position ? [position.epoch, `${position.offset}`] : ["", "0"];
