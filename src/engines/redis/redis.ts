/**
 * The engine over Redis 6.2 or later, or Valkey. Histories are streams, members are in hashes that expire with the lease of their node,
 * and nodes communicate with `PUBLISH`.
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
import { BrokerEngine } from "../broker/broker-engine.ts";
import type { BrokerEngineOptions } from "../broker/options.ts";
import type { Broker, BrokerListener, BrokerSession, SessionOptions } from "../broker/broker.ts";
import { checkClient, connectRedis, readKeyPrefix, readServer, type RedisClient, type RedisConnection } from "./client.ts";
import { RedisMemory } from "./memory.ts";
import { RedisSession } from "./session.ts";

export type { BrokerEngine } from "../broker/broker-engine.ts";
export type { BrokerEngineOptions } from "../broker/options.ts";
export type { IoRedisClient, NodeRedisClient, RedisClient } from "./client.ts";

/** Options of {@link redisEngine}. */
export interface RedisEngineOptions extends BrokerEngineOptions {
  /**
   * A client of `redis` 5 or later, or of `ioredis` 5 or later. The engine calls `duplicate()` for two connections of its own, and does
   * not use the client otherwise. Its database and `keyPrefix` separate applications, as `namespace` does. Redis Cluster is not
   * supported.
   */
  client: RedisClient;
  /**
   * Whether histories continue after a restart of Redis. Set it only if Redis writes to disk before it answers (`appendonly yes`,
   * `appendfsync always`). A node that was running during the restart has to find that nothing is missing; other nodes wait for it,
   * at most for its `lease`. Without such a node, and after the promotion of a replica, histories start again: `recovered: false`.
   *
   * @default {false}
   */
  persistent?: boolean;
}

/**
 * Creates an engine that connects nodes over Redis.
 *
 * @throws {TypeError} for an invalid option, or a client of Redis Cluster.
 */
export function redisEngine(options: RedisEngineOptions): BrokerEngine {
  const { client, persistent = false, ...rest } = options;
  checkClient(client);
  return new BrokerEngine(new RedisBroker(client, persistent), rest);
}

/** Maximum length of key prefix and namespace together, which each envelope contains. */
const MAX_NAMESPACE = 256;

class RedisBroker implements Broker {
  readonly name = "Redis";
  readonly #client: RedisClient;
  readonly #persistent: boolean;
  readonly #known = new RedisMemory();

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
      const server = readServer(
        await commands.command("INFO", "server"),
        await commands.command("INFO", "replication"),
        await commands.command("CLIENT", "INFO"),
      );
      const run = this.#persistent ? "" : server.run;
      const namespace = `${readKeyPrefix(this.#client)}${options.namespace}`;
      if (namespace.length > MAX_NAMESPACE) {
        throw new TypeError(`Cannot use a keyPrefix of more than ${MAX_NAMESPACE - 32} characters`);
      }
      session = new RedisSession(commands, subscriber, run, this.#known, listener, { ...options, namespace });
      await session.start(server);
      this.#known.run = server.run;
      return session;
    } catch (error) {
      // Reported before the connections are closed, which would report a less useful error.
      listener.ended(error);
      for (const connection of opened) connection.close();
      throw error;
    }
  }
}
