/** The tables and functions of the PostgreSQL engine, by their SQL. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import pg from "pg";
import type { HistoryOptions } from "../../src/engines/engine.ts";
import { postgresEngine } from "../../src/engines/postgres/postgres.ts";
import { lacksPostgres, PostgresProcess } from "../support/postgres.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";

const FAST = { lease: 4_000, checkInterval: 300, linger: 300, timeout: 10_000 };
const HISTORY: HistoryOptions = { size: 100, ttl: 300_000 };
const TIMEOUT = { timeout: 120_000 };

describe("The functions of PostgreSQL", { skip: lacksPostgres() }, () => {
  let broker: PostgresProcess;
  let client: pg.Pool;
  let node: BrokerNode;

  before(async () => {
    broker = await PostgresProcess.postgres();
    client = new pg.Pool({ connectionString: broker.url });
    node = await startNode(postgresEngine({ client, ...FAST }));
  }, TIMEOUT);
  after(async () => {
    await node?.engine.close();
    await client?.end();
    await broker?.close();
  }, TIMEOUT);

  it("write the row of a channel once for all publications of a transaction", TIMEOUT, async () => {
    await client.query(`
      create table writes (name text);
      create function note_write() returns trigger language plpgsql as $$
      begin
        insert into writes values (new.name);
        return null;
      end $$;
      create trigger note_write after update on noroshi_channels for each row execute function note_write();
    `);
    for (const channel of ["batch:1", "batch:2"]) await node.engine.subscribe(channel, HISTORY);
    await client.query("delete from writes");
    await client.query("select noroshi_publish('batch:' || 1 + n % 2, 'say', to_jsonb(n)) from generate_series(0, 199) n");
    const { rows } = await client.query("select name from writes where name like 'batch:%' order by name");
    await client.query("drop trigger note_write on noroshi_channels");
    assert.deepEqual(rows.map(({ name }) => name), ["batch:1", "batch:2"]);
    for (const channel of ["batch:1", "batch:2"]) await node.host.until(() => node.host.publications(channel).length >= 100);
    const { publications } = await node.engine.read("batch:2", HISTORY, null, 100);
    const expected = Array.from({ length: 100 }, (_, number) => 2 * number + 1);
    assert.deepEqual([publications.map(({ data }) => Number(data)), node.host.data("batch:2")], [expected, expected]);
    assert.deepEqual([node.host.gaps, node.host.errors, node.engine.dropped], [[], [], {}]);
  });
});
