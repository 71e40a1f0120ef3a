import { after, before } from "node:test";
import pg from "pg";
import { postgresEngine, type PostgresEngineOptions } from "../../src/engines/postgres/postgres.ts";
import { PostgresProcess } from "../support/postgres.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";

/** Quick to notice all but silence: a busy machine keeps a server or a node silent for a while. */
export const FAST = { lease: 8_000, checkInterval: 300, linger: 300, timeout: 10_000 };

/** Limits are for what hangs. */
export const TIMEOUT = { timeout: 300_000 };

/** PostgreSQL, a pool of connections with it, and a node. */
export interface PostgresFixture {
  readonly broker: PostgresProcess;
  readonly client: pg.Pool;
  readonly node: BrokerNode;
  /** Another connection, which the caller ends. */
  connect(): Promise<pg.Client>;
}

/** Starts them before the tests of a suite, and ends them afterwards. */
export function usePostgres(options: Partial<PostgresEngineOptions> = {}): PostgresFixture {
  let broker: PostgresProcess;
  let client: pg.Pool;
  let node: BrokerNode;

  before(async () => {
    broker = await PostgresProcess.postgres();
    client = new pg.Pool({ connectionString: broker.url });
    node = await startNode(postgresEngine({ client, ...FAST, ...options }));
  }, TIMEOUT);
  after(async () => {
    await node?.engine.close();
    await client?.end();
    await broker?.close();
  }, TIMEOUT);

  return {
    get broker() {
      return broker;
    },
    get client() {
      return client;
    },
    get node() {
      return node;
    },
    async connect() {
      const connection = new pg.Client({ connectionString: broker.url });
      await connection.connect();
      return connection;
    },
  };
}
