/**
 * The engine over NATS 2.9 or later with JetStream. One stream stores the histories, two key-value buckets store members and nodes,
 * and everything else goes over plain NATS.
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
import type { ConnectionOptions, NatsConnection } from "@nats-io/nats-core";
import { checkMs } from "../../base/clock.ts";
import { missingPackage } from "../../base/missing-package.ts";
import type { HistoryOptions } from "../engine.ts";
import { BrokerEngine } from "../broker/broker-engine.ts";
import type { BrokerEngineOptions } from "../broker/options.ts";
import type { Broker, BrokerListener, BrokerSession, SessionOptions } from "../broker/broker.ts";
import type { NatsBounds, NatsHistoryOptions, NatsMemory } from "./history.ts";
import { sequenceOf } from "./offset.ts";

export type { BrokerEngine } from "../broker/broker-engine.ts";
export type { BrokerEngineOptions } from "../broker/options.ts";
export type { NatsHistoryOptions } from "./history.ts";

/**
 * Documented by @nats-io/nats-core: `deno doc --lint` treats it as a type of this package.
 *
 * @internal
 */
type Options = ConnectionOptions;

/**
 * Documented by @nats-io/nats-core: `deno doc --lint` treats it as a type of this package.
 *
 * @internal
 */
type Nats = NatsConnection;

/** Options of {@link natsEngine}. `servers` or `connection` is required. */
export interface NatsEngineOptions extends BrokerEngineOptions {
  /** URLs of the servers. `nats://` and `tls://` need the package `@nats-io/transport-node`; `ws://` and `wss://` do not. */
  servers?: string | string[];
  /** Other connection options, such as `user` and `pass`, `token`, `authenticator`, `tls`. */
  options?: Omit<Options, "servers" | "reconnect">;
  /** Opens the connection, such as `connect` of `@nats-io/transport-deno`. @default by the scheme of the first of `servers` */
  connect?: (options: Options) => Promise<Nats>;
  /** A connection of your own, instead of `servers`. The engine does not close it. Create it with `maxReconnectAttempts: -1`. */
  connection?: Nats;
  /** Bounds of the histories that channels may declare. */
  history?: NatsHistoryOptions;
}

/**
 * Creates an engine that connects nodes over NATS. A channel's `size` and `ttl` apply when its history is read. The stream stores as much
 * as the option `history` allows, because NATS before 2.11 has no limits per channel.
 *
 * @throws {TypeError} for an invalid option, or if both `servers` and `connection` are missing.
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
  const connectTo = connection ? undefined : connect ?? connectWithDriver(servers);
  const open = connectTo
    ? (timeout: number) => connectTo({ ...connectionOptions, servers: servers!, reconnect: false, timeout }) // Checked above.
    : () => Promise.resolve(connection!); // Given, as nothing connects.
  const bounds = { maxSize, maxTtl, maxBytes: maxBytes === undefined ? DEFAULT_BYTES : [maxBytes], storage, replicas };
  return new BrokerEngine(new NatsBroker(open, connection !== undefined, bounds), rest);
}

/** Sizes of the stream to try, in bytes. A development machine or a small disk may have no room for the first. */
const DEFAULT_BYTES: readonly number[] = [2 ** 30, 2 ** 28, 2 ** 26, 2 ** 24];

class NatsBroker implements Broker {
  readonly name = "NATS";
  readonly #open: (timeout: number) => Promise<NatsConnection>;
  readonly #isShared: boolean;
  readonly #bounds: NatsBounds;
  readonly #memory: NatsMemory = { epoch: "", sequence: 0, offset: 0 };
  readonly #module = load(() => import("./session.ts"));

  constructor(open: (timeout: number) => Promise<NatsConnection>, isShared: boolean, bounds: NatsBounds) {
    this.#open = open;
    this.#isShared = isShared;
    this.#bounds = bounds;
  }

  get maxHistory(): HistoryOptions {
    const { maxSize, maxTtl } = this.#bounds;
    return { size: maxSize, ttl: maxTtl };
  }

  check({ size, ttl }: HistoryOptions): void {
    const max = this.maxHistory;
    if (size <= max.size && ttl <= max.ttl) return;
    const bounds = `${max.size} publications and ${max.ttl} ms`;
    throw new TypeError(`Cannot keep the history: the stream allows ${bounds}, raise history.maxSize or history.maxTtl`);
  }

  /** NATS reports the sequence of the previous message, not its offset. */
  follows(offset: number, previous: number): boolean {
    return sequenceOf(offset) === previous;
  }

  async connect(listener: BrokerListener, options: SessionOptions): Promise<BrokerSession> {
    const { NatsSession } = await this.#module;
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

/** Loads the driver for the servers. Returns a function that connects with it. */
function connectWithDriver(servers: string | string[] | undefined): (options: ConnectionOptions) => Promise<NatsConnection> {
  const [first = ""] = [servers ?? []].flat();
  const connecting = /^wss?:/.test(first)
    ? load(async () => (await import("@nats-io/nats-core")).wsconnect)
    : load(async () => (await import("@nats-io/transport-node")).connect);
  return async (options) => (await connecting)(options);
}

/**
 * Imports a module that needs packages of NATS, so that the error can name the package to install. Called when the engine is created:
 * once a server listens, its clients may take every file descriptor, and Node 20 and Deno cache an import that fails.
 */
function load<Module>(module: () => Promise<Module>): Promise<Module> {
  const loading = module().catch((error) => {
    throw missingPackage("connect", ["@nats-io/nats-core", "@nats-io/transport-node"], error);
  });
  loading.catch(() => {}); // Each attempt to connect reports it.
  return loading;
}
