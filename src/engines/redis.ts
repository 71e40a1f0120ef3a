/**
 * The engine over Redis 6.2 or later, or Valkey: histories in streams, members in hashes with leases, and nodes that meet by `PUBLISH`.
 *
 * @example
 * ```ts
 * import { createWebSocketController } from "noroshi";
 * import { redisEngine } from "noroshi/redis";
 * import { createClient } from "redis";
 *
 * createWebSocketController({ engine: redisEngine({ client: createClient({ url: "redis://localhost" }) }) });
 * ```
 *
 * @module
 */
import * as v from "valibot";
import type { HistoryOptions, Position } from "../engine.ts";
import { BrokerEngine, type BrokerEngineOptions } from "./broker-engine.ts";
import type { Broker, BrokerListener, BrokerPage, BrokerSession, SessionOptions } from "./broker.ts";
import { decodeName, encodeName } from "./channel-name.ts";
import { checkClient, connectRedis, readRunId, type RedisClient, type RedisConnection } from "./redis-client.ts";
import * as scripts from "./redis-scripts.ts";

export type { BrokerEngine, BrokerEngineOptions } from "./broker-engine.ts";
export type { IoRedisClient, NodeRedisClient, RedisClient } from "./redis-client.ts";

/** Options of {@link redisEngine}. */
export interface RedisEngineOptions extends BrokerEngineOptions {
  /**
   * A client of `redis` 5 or later, or of `ioredis` 5 or later: it says how to connect. The engine makes two connections of its own from it
   * by `duplicate()`, and leaves the client itself alone. Not for Redis Cluster.
   */
  client: RedisClient;
  /**
   * Redis has each write on its disk before it answers (`appendonly yes`, `appendfsync always`), so that histories outlive its restart.
   * Otherwise each restart begins new ones, and who recovers is told that he cannot. @default {false}
   */
  persistent?: boolean;
}

/**
 * Joins nodes over Redis.
 *
 * @throws {TypeError} for an option out of range, and a client that is of neither library.
 */
export function redisEngine(options: RedisEngineOptions): BrokerEngine {
  const { client, persistent = false, ...rest } = options;
  checkClient(client);
  return new BrokerEngine(new RedisBroker(client, persistent), rest);
}

class RedisBroker implements Broker {
  readonly name = "Redis";
  readonly #client: RedisClient;
  readonly #persistent: boolean;

  constructor(client: RedisClient, persistent: boolean) {
    this.#client = client;
    this.#persistent = persistent;
  }

  async connect(listener: BrokerListener, options: SessionOptions): Promise<BrokerSession> {
    let session: RedisSession | undefined;
    const opened: RedisConnection[] = [];
    const open = async (message: (subject: string, text: string) => void) => {
      const connection = await connectRedis(this.#client, { message, ended: listener.ended }, options.timeout);
      opened.push(connection);
      return connection;
    };
    try {
      const commands = await open(() => {});
      const subscriber = await open((subject, text) => session?.receive(subject, text));
      const run = readRunId(await commands.command("INFO", "server"));
      session = new RedisSession(commands, subscriber, this.#persistent ? "" : run, listener, options);
      await session.start();
      return session;
    } catch (error) {
      for (const connection of opened) connection.close();
      throw error;
    }
  }
}

/** Nothing is kept longer than this without being written again, in ms: what nodes leave behind that were all killed. */
const KEPT = 24 * 60 * 60_000;

const Place = v.tuple([v.string(), v.pipe(v.string(), v.regex(/^\d{1,15}$/), v.transform(Number))]);
const Page = v.tuple([...Place.items, v.number(), v.array(v.tuple([v.string(), v.tuple([v.string(), v.string()])]))]);
const Tops = v.array(v.union([Place, v.pipe(v.tuple([]), v.transform(() => null))]));
const Strings = v.array(v.string());

class RedisSession implements BrokerSession {
  readonly #commands: RedisConnection;
  readonly #subscriber: RedisConnection;
  readonly #run: string;
  readonly #listener: BrokerListener;
  readonly #options: SessionOptions;
  readonly #prefix: string;
  readonly #shas = new Map<string, string>();
  #epochs = 0;
  #beats = 0;
  #heard = 0;
  #announced: number;

  constructor(
    commands: RedisConnection,
    subscriber: RedisConnection,
    run: string,
    listener: BrokerListener,
    options: SessionOptions,
  ) {
    this.#commands = commands;
    this.#subscriber = subscriber;
    this.#run = run;
    this.#listener = listener;
    this.#options = options;
    this.#prefix = `${options.namespace}:`;
    this.#announced = options.now();
  }

  async start(): Promise<void> {
    for (const script of Object.values(scripts)) {
      this.#shas.set(script, v.parse(v.string(), await this.#commands.command("SCRIPT", "LOAD", script)));
    }
    await this.#subscriber.subscribe([`${this.#prefix}all`, `${this.#prefix}node:${this.#options.node}`]);
  }

  receive(subject: string, text: string): void {
    const name = subject.slice(this.#prefix.length);
    if (name === "all") return this.#listener.message(text);
    if (name.startsWith("node:")) {
      this.#heard = Math.max(this.#heard, Number(text) || 0);
      return;
    }
    const channel = decodeName(name.slice("ch:".length));
    const [first = "", second = ""] = text.split("\n", 2);
    const rest = text.slice(first.length + 1);
    if (channel === null) this.#listener.malformed();
    else if (first === "member") this.#listener.member(channel, rest);
    else if (first === "event") this.#listener.live(channel, rest, null, 0);
    else if (!/^\d{1,15}$/.test(second)) this.#listener.malformed();
    else {
      const offset = Number(second);
      // Each offset is one more than the one before it.
      this.#listener.live(channel, rest.slice(second.length + 1), { epoch: first, offset }, offset - 1);
    }
  }

  async listen(channels: readonly string[]): Promise<void> {
    await this.#subscriber.subscribe(channels.map((channel) => this.#subject(channel)));
  }

  async unlisten(channels: readonly string[]): Promise<void> {
    await this.#subscriber.unsubscribe(channels.map((channel) => this.#subject(channel)));
  }

  async publish(channel: string, envelope: string, history: HistoryOptions | null): Promise<Position | null> {
    const subject = this.#subject(channel);
    if (!history) {
      await this.#commands.command("PUBLISH", subject, `event\n${envelope}`);
      return null;
    }
    const answer = await this.#evaluate(scripts.PUBLISH, this.#keys(channel), [...this.#terms(history), subject, envelope]);
    const [epoch, offset] = v.parse(Place, answer);
    return { epoch, offset };
  }

  async read(channel: string, history: HistoryOptions, after: Position | null, limit: number): Promise<BrokerPage> {
    const terms = [...this.#terms(history), after ? after.epoch || "-" : "", `${after?.offset ?? 0}`, `${limit}`];
    const [epoch, offset, isComplete, entries] = v.parse(Page, await this.#evaluate(scripts.READ, this.#keys(channel), terms));
    return {
      position: { epoch, offset },
      entries: entries.reverse().map(([id, [, envelope]]) => ({ position: { epoch, offset: parseInt(id, 10) }, envelope })),
      isComplete: isComplete === 1,
    };
  }

  async tops(channels: readonly string[], histories: readonly HistoryOptions[]): Promise<(Position | null)[]> {
    const keys = channels.map((channel) => this.#keys(channel)[0]!); // The first of two.
    const kept = histories.map(({ ttl }) => `${ttl + this.#options.slack}`);
    const tops = v.parse(Tops, await this.#evaluate(scripts.TOPS, keys, [this.#run, ...kept]));
    return tops.map((top) => top && { epoch: top[0], offset: top[1] });
  }

  async send(envelope: string): Promise<void> {
    await this.#commands.command("PUBLISH", `${this.#prefix}all`, envelope);
  }

  async beat(): Promise<boolean> {
    // It goes out by one connection and comes in by the other: both are alive.
    if (this.#heard < this.#beats) {
      const error = new Error("Cannot go on: nothing arrives by the connection that is subscribed");
      this.#listener.ended(error);
      throw error;
    }
    const { node, lease, now } = this.#options;
    const args = [node, `${lease}`, this.#prefix, `${this.#prefix}node:${node}`, `${++this.#beats}`];
    const wasKnown = await this.#evaluate(scripts.BEAT, [`${this.#prefix}nodes`], args) === 1;
    // What is kept for a day is written again before that is over.
    if (now() - this.#announced < KEPT / 3) return wasKnown;
    this.#announced = now();
    return false;
  }

  async nodes(): Promise<string[]> {
    return v.parse(Strings, await this.#evaluate(scripts.NODES, [`${this.#prefix}nodes`], []));
  }

  async join(channel: string, user: string, envelope: string): Promise<void> {
    await this.#change(scripts.JOIN, channel, user, envelope);
  }

  async leave(channel: string, user: string, envelope: string): Promise<void> {
    await this.#change(scripts.LEAVE, channel, user, envelope);
  }

  async members(channel: string): Promise<string[]> {
    const name = encodeName(channel);
    const keys = [`${this.#prefix}w:${name}`, `${this.#prefix}nodes`];
    return v.parse(Strings, await this.#evaluate(scripts.MEMBERS, keys, [this.#prefix, name]));
  }

  async retire(): Promise<void> {
    await this.#commands.command("ZREM", `${this.#prefix}nodes`, this.#options.node);
  }

  close(): void {
    this.#commands.close();
    this.#subscriber.close();
  }

  async #change(script: string, channel: string, user: string, envelope: string): Promise<void> {
    const { node } = this.#options;
    const name = encodeName(channel);
    const keys = [`m:${node}:${name}`, `c:${node}`, `w:${name}`].map((key) => this.#prefix + key);
    await this.#evaluate(script, keys, [user, envelope, name, node, this.#subject(channel), `${KEPT}`]);
  }

  async #evaluate(script: string, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    const rest = [`${keys.length}`, ...keys, ...args];
    try {
      return await this.#commands.command("EVALSHA", this.#shas.get(script)!, ...rest); // Loaded by `start`.
    } catch (error) {
      const text = error instanceof Error ? error.message : "";
      // Somebody has flushed the scripts.
      if (text.startsWith("NOSCRIPT")) return await this.#commands.command("EVAL", script, ...rest);
      // Another server is the one to write to by now: who connects again finds it.
      if (/^(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|UNBLOCKED)/.test(text)) this.#listener.ended(error);
      throw error;
    }
  }

  /** What the scripts that may begin a history are told of it first. */
  #terms({ size, ttl }: HistoryOptions): string[] {
    return [
      this.#run,
      `${this.#options.node}.${this.#options.now()}.${++this.#epochs}`,
      `${size}`,
      `${ttl}`,
      `${this.#options.slack}`,
    ];
  }

  #keys(channel: string): [meta: string, stream: string] {
    const name = encodeName(channel);
    return [`${this.#prefix}h:${name}`, `${this.#prefix}s:${name}`];
  }

  #subject(channel: string): string {
    return `${this.#prefix}ch:${encodeName(channel)}`;
  }
}
