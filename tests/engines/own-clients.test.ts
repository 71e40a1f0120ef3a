/** What an engine leaves on the client that the application has passed to it, and uses for other things. */
import type { EventEmitter } from "node:events";
import { describe, it } from "node:test";
import { isDeepStrictEqual } from "node:util";
import type { NatsConnection } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import { Redis } from "ioredis";
import pg from "pg";
import postgres from "postgres";
import { createClient } from "redis";
import type { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { postgresEngine, type PostgresEngineOptions } from "../../src/engines/postgres/postgres.ts";
import { redisEngine, type RedisEngineOptions } from "../../src/engines/redis/redis.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { heapUsed } from "../support/heap.ts";
import { createPGlite } from "../support/pglite.ts";
import { lacksPostgres, PostgresProcess } from "../support/postgres.ts";
import { until } from "../support/waiting.ts";
import { startNode } from "./broker-fixture.ts";
import { range } from "./conformance.ts";

/** A client of an application. */
interface Own {
  makeEngine(): BrokerEngine;
  /** What is registered on the client now. */
  registered(): unknown;
  /** Ends the connection over which the engine receives, if it is one of the client. The client opens another. */
  lose?(): Promise<unknown>;
  close(): Promise<unknown>;
}

interface Kind {
  readonly skip: string | false;
  open(): Promise<Own>;
}

/** Longer than a busy machine keeps a server silent. */
const PATIENT = { lease: 60_000, timeout: 60_000 };

const LONG = { size: 10, ttl: 300_000 };

/** Engines that one client is passed to, one after the other. */
const ENGINES = 4;

const listenersOf = (emitter: EventEmitter) =>
  emitter.eventNames().map((name) => `${String(name)}: ${emitter.listenerCount(name)}`).sort();

function redis<Client extends RedisEngineOptions["client"]>(
  open: (url: string) => Promise<Client>,
  close: (client: NoInfer<Client>) => Promise<unknown>,
): Kind {
  return {
    skip: lacks("redis-server"),
    async open() {
      const broker = await BrokerProcess.redis();
      const client = await open(`redis://127.0.0.1:${broker.port}`);
      return {
        makeEngine: () => redisEngine({ client, ...PATIENT }),
        registered: () => listenersOf(client as unknown as EventEmitter), // Of both libraries.
        async close() {
          await close(client);
          await broker.close();
        },
      };
    },
  };
}

function postgresql<Client extends PostgresEngineOptions["client"]>(
  open: (url: string) => Promise<Client>,
  registered: (client: NoInfer<Client>) => unknown,
  close: (client: NoInfer<Client>) => Promise<unknown>,
  lose?: (client: NoInfer<Client>) => Promise<unknown>,
): Kind {
  return {
    skip: lacksPostgres(),
    async open() {
      const broker = await PostgresProcess.postgres();
      const client = await open(broker.url);
      return {
        makeEngine: () => postgresEngine({ client, ...PATIENT }),
        registered: () => registered(client),
        ...(lose && { lose: () => lose(client) }),
        async close() {
          await close(client);
          await broker.close();
        },
      };
    },
  };
}

/** By the client whose `listen` is counted: the number of callbacks that listen. */
const listening = new WeakMap<object, number>();

/** Counts the callbacks that listen. */
function counted<Client extends { listen: unknown }>(client: Client): Client {
  const listen = client.listen as (...args: unknown[]) => Promise<unknown>; // Of both libraries.
  const add = (count: number) => listening.set(client, (listening.get(client) ?? 0) + count);
  add(0);
  client.listen = async (...args: unknown[]) => {
    add(1);
    const listener = await listen.apply(client, args);
    const stop = <Result>(end: () => Result) => () => (add(-1), end());
    if (typeof listener === "function") return stop(listener as () => unknown); // Of PGlite.
    const { unlisten } = listener as { unlisten(): unknown }; // Of `postgres`.
    return { unlisten: stop(unlisten) };
  };
  return client;
}

/** Fields of every connection, which are not in its types. */
interface Internal {
  readonly protocol: { readonly listeners: unknown[]; readonly subscriptions: { size(): number } };
}

const KINDS: Record<string, Kind> = {
  "a client of redis": redis(
    async (url) => {
      const client = createClient({ url });
      await client.connect();
      return client;
    },
    (client) => client.close(),
  ),
  "a client of ioredis": redis(async (url) => {
    const client = new Redis(url);
    await client.ping();
    return client;
  }, (client) => client.quit()),
  "a pool of pg": postgresql(
    async (connectionString) => {
      const pool = new pg.Pool({ connectionString });
      await pool.query("select 1");
      return pool;
    },
    (pool) => [...listenersOf(pool), pool.totalCount],
    (pool) => pool.end(),
  ),
  "a client of pg": postgresql(
    async (connectionString) => {
      const client = new pg.Client({ connectionString });
      await client.connect();
      return client;
    },
    (client) => listenersOf(client),
    (client) => client.end(),
  ),
  "the sql of postgres": postgresql(
    (url) => Promise.resolve(counted(postgres(url, { onnotice() {} }))),
    (sql) => listening.get(sql),
    (sql) => sql.end(),
    (sql) => sql.unsafe("select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen %'"),
  ),
  "a PGlite": {
    skip: false,
    async open() {
      const client = counted(await createPGlite());
      return {
        makeEngine: () => postgresEngine({ client, ...PATIENT }),
        registered: () => listening.get(client),
        close: () => client.close(),
      };
    },
  },
  "a connection of NATS": {
    skip: lacks("nats-server"),
    async open() {
      const broker = await BrokerProcess.nats();
      const connection: NatsConnection & Partial<Internal> = await connect({
        servers: `127.0.0.1:${broker.port}`,
        maxReconnectAttempts: -1,
        reconnectTimeWait: 50,
      });
      await connection.request("$JS.API.INFO"); // All requests share one subscription, which stays.
      return {
        makeEngine: () => natsEngine({ connection, history: { storage: "memory" }, ...PATIENT }),
        registered() {
          const { listeners, subscriptions } = connection.protocol!; // See `Internal`.
          return { statuses: listeners.length, subscriptions: subscriptions.size() };
        },
        lose: () => connection.reconnect(),
        async close() {
          await connection.close();
          await broker.close();
        },
      };
    },
  },
};

/** Starts an engine, uses it and closes it. Returns a reference to what it was started for, which does not keep that in memory. */
async function useOnce({ makeEngine, lose }: Own): Promise<WeakRef<object>> {
  const { engine, host } = await startNode(makeEngine());
  for (const [channel, history] of [["room", LONG], ["hall", null]] as const) {
    await engine.subscribe(channel, history);
    await engine.join(channel, { user: "ann" });
    await engine.publish(channel, { event: "say", data: "1" }, history);
    await host.until(() => host.publications(channel).length > 0);
  }
  await lose?.();
  if (lose) await host.until(() => host.statuses.includes("unavailable") && host.statuses.at(-1) === "ready");
  await engine.close();
  return new WeakRef(host);
}

describe("A closed engine", () => {
  for (const [name, { skip, open }] of Object.entries(KINDS)) {
    it(`leaves nothing on ${name}, which does not keep it in memory`, { skip, timeout: 600_000 }, async () => {
      const own = await open();
      try {
        const before = own.registered();
        const hosts: WeakRef<object>[] = [];
        for (const _ of range(ENGINES)) hosts.push(await useOnce(own));
        await until(() => isDeepStrictEqual(own.registered(), before), own.registered);
        // The last ones may still be on the stack.
        const kept = () => hosts.filter((host) => host.deref() !== undefined).length;
        await until(async () => (await heapUsed(), kept() <= ENGINES / 2), kept);
      } finally {
        await own.close();
      }
    });
  }
});
