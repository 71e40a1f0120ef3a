/** Nodes whose statements go through PgBouncer in transaction mode, and that listen on connections of their own. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import pg from "pg";
import postgres from "postgres";
import type { HistoryOptions } from "../../src/engines/engine.ts";
import { postgresEngine, type PostgresEngineOptions } from "../../src/engines/postgres/postgres.ts";
import { lacksPgBouncer, PgBouncerProcess } from "../support/pgbouncer.ts";
import { PostgresProcess } from "../support/postgres.ts";
import { brokerFixture, startNode } from "./broker-fixture.ts";
import { conformance } from "./conformance.ts";
import { FAST, TIMEOUT } from "./postgres-fixture.ts";
import { TestHost } from "./test-host.ts";

const HISTORY: HistoryOptions = { size: 100, ttl: 300_000 };

/** The clients of one node, and what ends them. */
interface Clients {
  readonly options: PostgresEngineOptions;
  end(): Promise<unknown>;
}

/** No named statements, and none that postgres.js sends by itself. */
const POSTGRES_JS = { prepare: false, fetch_types: false, onnotice: () => {} };

/** Clients of both libraries in turn. */
function clientsOf(bouncer: string, direct: string, number: number): Clients {
  if (number % 2 === 0) {
    const [client, listen] = [bouncer, direct].map((connectionString) => new pg.Pool({ connectionString }));
    return { options: { client: client!, listen: listen! }, end: () => Promise.all([client!.end(), listen!.end()]) };
  }
  const [client, listen] = [bouncer, direct].map((url) => postgres(url, POSTGRES_JS));
  return {
    options: { client: client!, listen: listen! },
    end: () => Promise.all([client!.end({ timeout: 0 }), listen!.end({ timeout: 0 })]),
  };
}

conformance("postgres, through PgBouncer", {
  nodes: 4,
  channels: 200,
  skip: lacksPgBouncer(),
  async create() {
    const broker = await PostgresProcess.postgres();
    const bouncer = await PgBouncerProcess.before(broker.port);
    const ends: Clients["end"][] = [];
    const fixture = brokerFixture(() => {
      const { options, end } = clientsOf(bouncer.url, broker.url, ends.length);
      ends.push(end);
      return postgresEngine({ ...options, ...FAST });
    }, () => broker.restart());
    return {
      ...fixture,
      async close() {
        await fixture.close();
        await Promise.all(ends.map((end) => end()));
        await bouncer.close();
        await broker.close();
      },
    };
  },
});

describe("Through PgBouncer", { skip: lacksPgBouncer() }, () => {
  let broker: PostgresProcess;
  let bouncer: PgBouncerProcess;

  before(async () => {
    broker = await PostgresProcess.postgres();
    bouncer = await PgBouncerProcess.before(broker.port);
  }, TIMEOUT);
  after(async () => {
    await bouncer?.close();
    await broker?.close();
  }, TIMEOUT);

  it("publishes in a transaction of the application", TIMEOUT, async () => {
    const [client, listen] = [bouncer, broker].map(({ url }) => new pg.Pool({ connectionString: url })) as [pg.Pool, pg.Pool]; // Of two.
    const sql = postgres(bouncer.url, POSTGRES_JS);
    const { engine, host } = await startNode(postgresEngine({ client, listen, ...FAST }));
    const start = await engine.subscribe("orders", HISTORY);
    const say = (data: unknown) => ({ event: "say", data: JSON.stringify(data) });

    const transaction = await client.connect();
    await transaction.query("begin");
    await engine.publish("orders", say("pg"), HISTORY, undefined, transaction);
    // Meanwhile another transaction uses another server process.
    await sql.begin(async (transaction) => void await engine.publish("orders", say("postgres"), HISTORY, undefined, transaction));
    await transaction.query("commit");
    await transaction.query("begin");
    await engine.publish("orders", say("never"), HISTORY, undefined, transaction);
    await transaction.query("rollback");
    transaction.release();

    await host.until(() => host.publications("orders").length >= 2);
    const page = await engine.read("orders", HISTORY, start, 100);
    assert.deepEqual(page.publications.map(({ data }) => JSON.parse(data)), ["postgres", "pg"]);
    assert.deepEqual([host.data("orders"), host.gaps, host.errors], [["postgres", "pg"], [], []]);
    await engine.close();
    await Promise.all([client.end(), listen.end(), sql.end({ timeout: 0 })]);
  });

  it("reports that notifications are missing when the node listens through the pooler", TIMEOUT, async () => {
    const client = new pg.Pool({ connectionString: bouncer.url });
    const engine = postgresEngine({ client, ...FAST, namespace: "deaf" });
    const host = new TestHost();
    engine.start(host);
    await host.until(() => host.errors.length > 0);
    const { cause } = host.errors[0] as Error; // Of the engine.
    assert.match(String(cause), /none arrives on the connection that listens, pass the option listen a client without a pooler/);
    await engine.close();
    await client.end();
  });
});
