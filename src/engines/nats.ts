/**
 * The engine over NATS 2.9 or later with JetStream: one stream keeps the histories, two key-value buckets the members and nodes, and
 * what needs no history goes by plain NATS.
 *
 * @example
 * ```ts
 * import { createWebSocketController } from "noroshi";
 * import { natsEngine } from "noroshi/nats";
 *
 * createWebSocketController({ engine: natsEngine({ servers: "nats://localhost:4222" }) });
 * ```
 *
 * @module
 */
import { type ConnectionOptions, type NatsConnection, wsconnect } from "@nats-io/nats-core";
import { checkMs } from "../clock.ts";
import type { HistoryOptions } from "../engine.ts";
import { BrokerEngine } from "./broker-engine.ts";
import type { BrokerEngineOptions } from "./broker-options.ts";
import type { Broker, BrokerListener, BrokerSession, SessionOptions } from "./broker.ts";
import type { NatsBounds, NatsHistoryOptions, NatsMemory } from "./nats-history.ts";
import { sequenceOf } from "./nats-offset.ts";
import { NatsSession } from "./nats-session.ts";

export type { BrokerEngine } from "./broker-engine.ts";
export type { BrokerEngineOptions } from "./broker-options.ts";
export type { NatsHistoryOptions } from "./nats-history.ts";

/** Options of {@link natsEngine}: `servers` or `connection` is needed. */
export interface NatsEngineOptions extends BrokerEngineOptions {
  /** `nats://` and `tls://` need `@nats-io/transport-node`, `ws://` and `wss://` nothing. */
  servers?: string | string[];
  /** How to connect beside that, such as `user` and `pass`, `token`, `authenticator`, `tls`. */
  options?: Omit<ConnectionOptions, "servers" | "reconnect">;
  /** Connects, in place of what `servers` means: `connect` of `@nats-io/transport-deno`, for one. */
  connect?: (options: ConnectionOptions) => Promise<NatsConnection>;
  /** One that is yours, and is not closed. It has to connect again by itself: `maxReconnectAttempts: -1`. */
  connection?: NatsConnection;
  /** The bounds of histories. */
  history?: NatsHistoryOptions;
}

/**
 * Joins nodes over NATS. A channel's `size` and `ttl` hold where its history is read; the stream keeps as much as `history` says, for NATS
 * before 2.11 has no limits by channel.
 *
 * @throws {TypeError} for an option out of range, and without `servers` and `connection`.
 */
export function natsEngine(options: NatsEngineOptions): BrokerEngine {
  const { servers, options: connectionOptions, connect, connection, history = {}, ...rest } = options;
  const { maxSize = 1_000, maxTtl = 3_600_000, maxBytes, storage = "file", replicas = 1 } = history;
  for (const [name, value] of Object.entries({ maxSize, maxBytes: maxBytes ?? 1, replicas })) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new TypeError(`Cannot create the engine: history.${name} must be a whole number from 1`);
    }
  }
  checkMs("Cannot create the engine: history.maxTtl", maxTtl);
  if (connection === undefined && servers === undefined) {
    throw new TypeError('Cannot create the engine: pass servers, such as "nats://localhost:4222", or a connection');
  }
  const open = connection
    ? () => Promise.resolve(connection)
    : (timeout: number) => (connect ?? connectTo)({ ...connectionOptions, servers: servers!, reconnect: false, timeout }); // One of both, as just checked.
  const bounds = { maxSize, maxTtl, maxBytes: maxBytes === undefined ? DEFAULT_BYTES : [maxBytes], storage, replicas };
  return new BrokerEngine(new NatsBroker(open, connection !== undefined, bounds), rest);
}

/** What the stream may have: a development machine or a small disk has no room for the first. */
const DEFAULT_BYTES: readonly number[] = [2 ** 30, 2 ** 28, 2 ** 26, 2 ** 24];

class NatsBroker implements Broker {
  readonly name = "NATS";
  readonly #open: (timeout: number) => Promise<NatsConnection>;
  readonly #isShared: boolean;
  readonly #bounds: NatsBounds;
  readonly #memory: NatsMemory = { epoch: "", sequence: 0, offset: 0 };

  constructor(open: (timeout: number) => Promise<NatsConnection>, isShared: boolean, bounds: NatsBounds) {
    this.#open = open;
    this.#isShared = isShared;
    this.#bounds = bounds;
  }

  check({ size, ttl }: HistoryOptions): void {
    const { maxSize, maxTtl } = this.#bounds;
    if (size <= maxSize && ttl <= maxTtl) return;
    const kept = `${maxSize} publications and ${maxTtl} ms`;
    throw new TypeError(`Cannot keep such a history: the stream is for ${kept}, raise history.maxSize or history.maxTtl`);
  }

  /** A stream names the message before by its sequence. */
  follows(offset: number, previous: number): boolean {
    return sequenceOf(offset) === previous;
  }

  async connect(listener: BrokerListener, options: SessionOptions): Promise<BrokerSession> {
    const connection = await this.#open(options.timeout);
    const session = new NatsSession(connection, this.#isShared, this.#bounds, listener, options, this.#memory);
    try {
      await session.start();
      return session;
    } catch (error) {
      session.close();
      throw error;
    }
  }
}

async function connectTo(options: ConnectionOptions): Promise<NatsConnection> {
  const [first = ""] = [options.servers ?? []].flat();
  if (/^wss?:/.test(first)) return await wsconnect(options);
  const { connect } = await import("@nats-io/transport-node");
  return await connect(options);
}
