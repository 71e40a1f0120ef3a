/** The tables and functions of the PostgreSQL engine, by their SQL. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import pg from "pg";
import type { HistoryOptions } from "../../src/engines/engine.ts";
import { postgresEngine, postgresMigrations } from "../../src/engines/postgres/postgres.ts";
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

  for (const level of ["repeatable read", "serializable"]) {
    it(`fail at the commit when a history began that the snapshot of ${level} lacks`, TIMEOUT, async () => {
      const transactions: Record<string, (transaction: pg.Client, channel: string) => Promise<unknown>> = {
        sql: (transaction, channel) => transaction.query("select noroshi_publish($1, 'say', '1')", [channel]),
        node: (transaction, channel) =>
          Promise.resolve(node.engine.publish(channel, { event: "say", data: "1" }, null, undefined, transaction)),
      };
      for (const [by, publish] of Object.entries(transactions)) {
        const channel = `${by}:${level.replace(" ", "-")}`;
        const transaction = new pg.Client({ connectionString: broker.url });
        await transaction.connect();
        await transaction.query(`begin isolation level ${level}`);
        await transaction.query("select count(*) from noroshi_channels");
        const start = await node.engine.subscribe(channel, HISTORY);
        await publish(transaction, channel);
        await assert.rejects(transaction.query("commit"), { code: "40001" });
        await transaction.query(`begin isolation level ${level}`);
        await transaction.query("select noroshi_publish($1, 'say', '2')", [channel]);
        await transaction.query("commit");
        await transaction.end();
        const { isComplete, publications } = await node.engine.read(channel, HISTORY, start, 100);
        assert.deepEqual([isComplete, publications.map(({ data }) => data)], [true, ["2"]]);
      }
    });
  }

  it("publish to one channel without a history from several transactions at once", TIMEOUT, async () => {
    await node.engine.subscribe("several", null);
    const numbers = Array.from({ length: 20 }, (_, number) => number);
    await Promise.all(numbers.map((number) => client.query("select noroshi_publish('several', 'say', $1)", [number])));
    await node.host.until(() => node.host.publications("several").length >= 20);
    assert.deepEqual((node.host.data("several") as number[]).sort((one, other) => one - other), numbers);
    assert.deepEqual((await client.query("select * from noroshi_channels where name = 'several'")).rows, []);
  });

  it("remove the publications of all expired channels, 1,000 channels at a time", TIMEOUT, async () => {
    await client.query(`
      with made as (
        insert into noroshi_channels (namespace, name, run, epoch, n, size, ttl, expires)
          select 'other', 'expired:' || number, '', '', 1, 1, 1, noroshi_now() - 1000 from generate_series(1, 2500) number returning id
      ) insert into noroshi_publications select id, 1, 0, 1, 0, '' from made
    `);
    for (let sweep = 0; sweep < 3; sweep++) {
      await client.query("select noroshi_call('other', '[[\"sweep\",true]]')");
    }
    const { rows } = await client.query("select count(*)::int from noroshi_publications where envelope = ''");
    assert.deepEqual(rows, [{ count: 0 }]);
  });

  it("remove mail at once, however much there is", { timeout: 30_000 }, async () => {
    const quiet = await PostgresProcess.postgres();
    const pool = new pg.Pool({ connectionString: quiet.url });
    for (const { sql } of postgresMigrations()) await pool.query(sql);
    await pool.query("insert into noroshi_mail (at, envelope) select 0, '' from generate_series(1, 22000)");
    // It beats once during the test.
    const only = await startNode(postgresEngine({ client: pool, ...FAST, lease: 3_600_000 }));
    const left = async () => (await pool.query("select 1 from noroshi_mail where at = 0 limit 1")).rows.length;
    while (await left() > 0) continue;
    await only.engine.close();
    await pool.end();
    await quiet.close();
  });

  it("need the rights that the guide names, and no others", TIMEOUT, async () => {
    const { rows: tables } = await client.query("select tablename from pg_tables where tablename like 'noroshi%'");
    const { rows: all } = await client.query("select oid::regprocedure::text as name from pg_proc where proname like 'noroshi%'");
    const names = all.map(({ name }) => name).join();
    await client.query(`
      create role app login;
      revoke all on schema public from public;
      revoke execute on function ${names} from public;
      grant usage on schema public to app;
      grant usage on sequence noroshi_serial to app;
      grant select, insert, update, delete on ${tables.map(({ tablename }) => tablename).join()} to app;
      grant execute on function ${names} to app;
    `);
    const pool = new pg.Pool({ connectionString: broker.url.replace("noroshi@", "app@") });
    const app = await startNode(postgresEngine({ client: pool, ...FAST }));
    const start = await app.engine.subscribe("rights", HISTORY);
    await app.engine.publish("rights", { event: "say", data: "1" }, HISTORY);
    const transaction = new pg.Client({ connectionString: broker.url.replace("noroshi@", "app@") });
    await transaction.connect();
    await transaction.query("begin");
    await app.engine.publish("rights", { event: "say", data: "2" }, HISTORY, undefined, transaction);
    await transaction.query("select noroshi_publish('rights', 'say', '3')");
    await transaction.query("commit");
    await transaction.end();
    await pool.query("select noroshi_call('noroshi', '[[\"sweep\",true]]')");
    const page = await app.engine.read("rights", HISTORY, start, 10);
    await app.host.until(() => app.host.publications("rights").length >= 3);
    await app.engine.close();
    await pool.end();
    assert.deepEqual([page.isComplete, page.publications.map(({ data }) => data)], [true, ["1", "2", "3"]]);
    assert.deepEqual(app.host.errors, []);
  });
});
