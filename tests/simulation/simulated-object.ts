import { Hono } from "hono";
import { WebSocketController } from "../../mod.ts";
import { type AuthorizeContext, Channels } from "../../src/channels/channels.ts";
import type { Position } from "../../src/engines/engine.ts";
import { rowsOf, type Sql } from "../../src/engines/sqlite-histories.ts";
import { prefixOf } from "../../src/serve/object-engine.ts";
import { MemorySqlite } from "../../src/testing/memory-sqlite.ts";
import { Dice } from "./dice.ts";
import type { Order } from "./faults.ts";
import { HibernatingObject, type Life } from "./hibernating-object.ts";
import type { AnyClient } from "./simulated-client.ts";
import { GRACE, HISTORY_SIZE, HOUR, MAX_BUFFERED_BYTES, MINUTE, SECOND } from "./sizes.ts";
import { type Ground, pairOf, type Publish, type Site } from "./site.ts";

/** How likely each fault is, compared with the others. */
const WEIGHTS = { "evicted": 2, "unreachable": 1, "clients cut off": 3, "order": 2, "refresh": 2, "permission taken": 3 };

type Incident = keyof typeof WEIGHTS;

/** A fault of an object. */
export type ObjectFaultKind = Incident | "hibernation" | "expiry";

export const OBJECT_FAULTS: readonly ObjectFaultKind[] = [
  ...Object.keys(WEIGHTS) as Incident[], // As its type says.
  ...["hibernation", "expiry"] as const,
];

const HISTORIES = { short: [10 * SECOND, 10 * MINUTE, 3 * HOUR], long: [500 * HOUR] };

/** Pauses between two attempts to hibernate, in ms. */
const PAUSES = [10, 100, SECOND, 3 * SECOND, 10 * SECOND, 30 * SECOND];

/** The options `timeout` and `closeTimeout`, in ms: longer than workerd takes to let an object hibernate. */
const TIMEOUT = 14 * SECOND;

/** Permissions for every other channel last for a time out of these, in ms. */
const GRANTS = [20 * SECOND, 2 * MINUTE];

/** Some credentials expire after a time out of these, in s. */
const EXPIRIES = [5, 60, 900];

/** The longest delay of a callback, in ms. */
const DELAY = 3 * SECOND;

/** Histories that expire sooner than this are gone at the end of the episode, in ms. */
const AWAITED = 10 * MINUTE;

/** Time until expired rows are deleted, in ms: sweeps are 10 s apart, and alarms late. */
const SWEPT = MINUTE;

/** The tables that are empty when nobody is connected and all histories have expired. */
const TABLES = ["channels", "publications", "members", "subscriptions"];

/** One Durable Object, which hibernates whenever nothing is under way. */
export class SimulatedObject implements Site {
  readonly isLossy: boolean;
  readonly nodes: readonly [HibernatingObject];
  /** Permissions are asked for anew within two minutes, and everything else is sooner. */
  readonly settled: number = 3 * MINUTE;
  readonly isPrompt = true;
  readonly counts: Record<string, number> = {};
  orders: Order[] = [];
  isHarmless = true;
  readonly #ground: Ground;
  readonly #dice: Dice;
  readonly #application: Dice;
  readonly #kinds: ReadonlySet<string>;
  readonly #history: { readonly size: number; readonly ttl: number };
  readonly #slowConsumer: "close" | "drop";
  readonly #sqlite = new MemorySqlite();
  readonly #sql: Sql;
  readonly #object: HibernatingObject;
  /** What was built last. */
  #built: { readonly controller: WebSocketController; readonly life: Life } | undefined;
  #active = 0;
  #end = 0;
  #isOver = false;

  constructor(ground: Ground) {
    this.#ground = ground;
    const { dice, time, options: { seed, faults = OBJECT_FAULTS } } = ground;
    this.#kinds = new Set(faults);
    this.#dice = new Dice(seed, "faults");
    this.#application = new Dice(seed, "application");
    this.isLossy = dice.chance(0.5);
    this.#history = { size: HISTORY_SIZE, ttl: dice.pick(HISTORIES[this.isLossy ? "short" : "long"]) };
    this.#slowConsumer = dice.pick(["close", "drop"] as const);
    this.#sql = this.#sqlite.open(0);
    this.#object = new HibernatingObject({
      time,
      dice: new Dice(seed, "platform"),
      sql: this.#sql,
      failed: (error) => ground.failed(error),
      build: (life) => this.#build(life),
    });
    this.nodes = [this.#object];
  }

  get hasExpiry(): boolean {
    return this.#kinds.has("expiry");
  }

  get isActive(): boolean {
    return this.#active > 0;
  }

  start(): void {
    if (this.#kinds.has("hibernation")) this.#hibernateLater();
  }

  begin(busy: number, end: number): void {
    const dice = this.#dice;
    this.#end = end;
    this.orders = this.orders.slice(-100);
    const kinds = Array.from({ length: dice.below(4) }, () => this.#pick()).filter((kind) => kind !== undefined);
    this.isHarmless = !kinds.includes("evicted");
    for (const kind of kinds) {
      this.#run(async () => {
        await this.#ground.wait(dice.below(busy));
        this.counts[kind] = (this.counts[kind] ?? 0) + 1;
        this.#ground.say(kind);
        await this.#happen(kind);
      });
    }
  }

  calm(): void {
    // The network gives up in the end what neither side has noticed.
    for (const wire of this.#object.lost) {
      this.#ground.time.set(() => wire.terminate("server"), this.#dice.below(20 * SECOND), "the network");
    }
  }

  publisher(): Publish {
    return (channel, event, data) => this.#object.call((object) => object.publish(channel, event, data));
  }

  end(channel: string): Position | undefined {
    const [row] = this.#rows<{ epoch: string; offset: number }>(
      "SELECT epoch, place AS offset FROM channels WHERE channel = ?",
      channel,
    );
    return row;
  }

  reaches(channel: string, { epoch, offset }: Position): boolean {
    const end = this.end(channel);
    if (end?.epoch !== epoch) return false;
    const [first] = this.#rows<{ previous: number | null }>(
      "SELECT MIN(previous) AS previous FROM publications WHERE channel = ? AND until > ?",
      channel,
      this.#ground.time.now,
    );
    return end.offset === offset || (first?.previous ?? Infinity) <= offset;
  }

  memberLists(channel: string): ReturnType<Site["memberLists"]> {
    return [["the object", () => this.#object.call((object) => object.presence(channel))]];
  }

  dueOrders(since: number): readonly Order[] {
    return this.orders.filter(({ at }) => at >= since);
  }

  async stop(): Promise<readonly string[]> {
    const object = this.#object;
    this.#isOver = true;
    object.isUp = false;
    object.evict();
    const isAwaited = this.#history.ttl <= AWAITED;
    if (isAwaited) await this.#ground.time.advance(this.#history.ttl + SWEPT);
    const left = TABLES.filter((table) => this.#rows(`SELECT * FROM ${table} LIMIT 1`).length > 0);
    object.evict();
    this.counts["woken"] = object.starts;
    this.counts["alarms"] = object.alarms;
    this.#sqlite.close();
    return isAwaited && left.length > 0 ? [`The object has kept ${left.join(", ")} without clients`] : [];
  }

  /** @param query with the short names of the tables. */
  #rows<Row>(query: string, ...bindings: (string | number)[]): Row[] {
    const named = query.replace(/FROM (\w+)/, (_, table) => `FROM "${prefixOf("main")}_${table}"`);
    return rowsOf<Row>(this.#sql, named, ...bindings);
  }

  /** Tries to hibernate again and again, in calm times too. */
  #hibernateLater(): void {
    const dice = this.#dice;
    this.#ground.time.set(
      () => {
        if (this.#isOver) return;
        if (this.#object.hibernate()) this.counts["hibernated"] = (this.counts["hibernated"] ?? 0) + 1;
        this.#hibernateLater();
      },
      dice.pick(PAUSES),
      "workerd",
    );
  }

  #run(happen: () => Promise<void>): void {
    this.#active++;
    happen().catch((error) => this.#ground.failed(error)).finally(() => this.#active--);
  }

  #pick(): Incident | undefined {
    const kinds = (Object.keys(WEIGHTS) as Incident[]).filter((kind) => this.#kinds.has(kind)); // As its type says.
    let left = this.#dice.below(kinds.reduce((sum, kind) => sum + WEIGHTS[kind], 0));
    return kinds.find((kind) => (left -= WEIGHTS[kind]) < 0);
  }

  async #happen(kind: Incident): Promise<void> {
    const dice = this.#dice;
    const { clients, elapsed, turns, wait, withdrawn } = this.#ground;
    switch (kind) {
      case "evicted":
        // In the middle of a turn, too.
        return turns.postpone(() => this.#object.evict(), dice.below(4));
      case "unreachable": {
        this.#object.isUp = false;
        await wait(Math.min(Math.max(0, this.#end - elapsed), dice.below(10 * SECOND)));
        this.#object.isUp = true;
        return;
      }
      case "clients cut off":
        for (let count = 1 + dice.below(1 + clients.length / 4); count > 0; count--) dice.pick(clients).cut(dice.chance(0.5));
        return;
      case "order":
      case "refresh":
        return this.#order(kind, dice.pick(clients));
      case "permission taken": {
        const { user, followers } = dice.pick(clients);
        const granted = [...followers.keys()].filter(hasTime);
        if (user !== undefined && granted.length > 0) withdrawn.add(pairOf(user, dice.pick(granted)));
        return;
      }
    }
  }

  #order(kind: Order["kind"], { user }: AnyClient): void {
    const { banned, clients, elapsed } = this.#ground;
    if (user === undefined) return;
    const connected = clients.filter((client) => client.user === user && client.isConnected);
    const order: Order = {
      kind,
      user,
      at: elapsed,
      node: 0,
      clients: new Map(connected.map((client) => [client, client.openedAt])),
      isSent: false,
      isLost: false,
    };
    this.orders.push(order);
    this.#ground.say(`${kind} of ${user}`);
    if (kind === "refresh") banned.add(user);
    const given = kind === "order"
      ? this.#object.call((object) => object.disconnect({ user }))
      : this.#object.call(() => this.#built!.controller.refresh({ user })); // It runs.
    given.then(() => order.isSent = true, () => order.isLost = true);
  }

  #build(life: Life) {
    const controller = new WebSocketController({
      logger: false,
      mode: "public",
      rateLimit: false,
      timeout: TIMEOUT,
      closeTimeout: TIMEOUT,
      maxBufferedBytes: MAX_BUFFERED_BYTES,
      slowConsumer: this.#slowConsumer,
      authenticate: (credentials) => "access_token" in credentials ? this.#authenticate(life, credentials.access_token) : null,
      revalidate: ({ accountability: { user } }) =>
        user === null ? { accountability: { user, role: null } } : this.#revalidate(life, user),
    });
    controller.on("error", ({ error }) => !life.isOver && this.#ground.options.log && this.#ground.say(String(error)));
    const channels = new Channels(controller, {
      "log:*": { authorize: (context) => this.#authorize(life, context), history: this.#history },
      "room:*": { authorize: () => true, presence: { data: "client", grace: GRACE } },
    });
    this.#built = { controller, life };
    return { controller, channels, app: new Hono().get("/websocket", controller.upgrade) };
  }

  /** Some answers take so long that the rights change meanwhile. */
  async #authenticate(life: Life, user: string) {
    const isBanned = this.#ground.banned.has(user);
    const dice = this.#application;
    await this.#delay(life);
    const expires = this.#kinds.has("expiry") && dice.chance(0.5)
      ? Math.floor(this.#ground.time.now / SECOND) + dice.pick(EXPIRIES)
      : null;
    return isBanned ? null : { accountability: { user, role: null }, expires_at: expires };
  }

  /** Some sessions are over, so that the client has to authenticate again. */
  async #revalidate(life: Life, user: string) {
    if (!this.#application.chance(0.2)) return await this.#authenticate(life, user);
    await this.#delay(life);
    return null;
  }

  async #authorize(life: Life, { action, client, channel }: AuthorizeContext) {
    const { user } = client.accountability;
    if (user !== null && this.#ground.withdrawn.has(pairOf(user, channel))) return false;
    if (action === "subscribe" && this.#application.chance(0.1)) await this.#delayIdly(life);
    else await this.#delay(life);
    return hasTime(channel) ? { ttl: this.#application.pick(GRANTS) } : true;
  }

  /** What waits for another client does not keep the object from hibernating, and is gone then. */
  async #delayIdly(life: Life): Promise<void> {
    const waited = this.#ground.wait(this.#application.below(DELAY));
    await new Promise<void>((resolve) => void waited.then(() => life.isOver || resolve()));
  }

  /** What waits for something outside keeps the object from hibernating. */
  async #delay(life: Life): Promise<void> {
    if (this.#application.chance(0.2)) await life.await(this.#ground.wait(this.#application.below(DELAY)));
  }
}

/** Whether permissions for the channel have a time to live. */
const hasTime = (channel: string): boolean => /[02468]$/.test(channel);
