/** The tables and functions of the PostgreSQL engine, by their SQL. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import pg from "pg";
import type { HistoryOptions } from "../../src/engines/engine.ts";
import { postgresEngine, postgresMigrations } from "../../src/engines/postgres/postgres.ts";
import { PARTS } from "../../src/engines/postgres/session.ts";
import { lacksPostgres, PostgresProcess } from "../support/postgres.ts";
import { startNode } from "./broker-fixture.ts";
import { publish, range } from "./conformance.ts";
import { FAST, TIMEOUT, usePostgres } from "./postgres-fixture.ts";
import { TestHost } from "./test-host.ts";

const HISTORY: HistoryOptions = { size: 100, ttl: 300_000 };

/** A call that removes everything that has expired. */
const SWEEP = JSON.stringify([["sweep", PARTS]]);

describe("The functions of PostgreSQL", { skip: lacksPostgres() }, () => {
  const on = usePostgres();

  it("update the row of a channel once for all publications of a transaction", TIMEOUT, async () => {
    const { client, node } = on;
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
    const expected = range(100).map((number) => 2 * number + 1);
    assert.deepEqual([publications.map(({ data }) => Number(data)), node.host.data("batch:2")], [expected, expected]);
    assert.deepEqual([node.host.gaps, node.host.errors, node.engine.dropped], [[], [], {}]);
  });

  for (const level of ["repeatable read", "serializable"]) {
    it(`fail at the commit when a history has begun since the snapshot of ${level}`, TIMEOUT, async () => {
      const { connect, node } = on;
      const transactions: Record<string, (transaction: pg.Client, channel: string) => Promise<unknown>> = {
        sql: (transaction, channel) => transaction.query("select noroshi_publish($1, 'say', '1')", [channel]),
        node: (transaction, channel) =>
          Promise.resolve(node.engine.publish(channel, { event: "say", data: "1" }, null, undefined, transaction)),
      };
      for (const [by, publish] of Object.entries(transactions)) {
        const channel = `${by}:${level.replace(" ", "-")}`;
        const transaction = await connect();
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

  // Both run at READ COMMITTED, where a statement does not see uncommitted changes.
  const event = (channel: string) =>
    `select noroshi_call('noroshi', '${JSON.stringify([["event", channel, '\n{"v":2}\n1', null, 0]])}') as answers`;
  const begin = (channel: string) =>
    `select noroshi_call('noroshi', '${
      JSON.stringify([["read", channel, 100, 300_000, 1_000, null, 0, 0, 0, null, 0, false]])
    }') as answers`;

  it("end a history that another transaction is about to commit, at a publication without a history", TIMEOUT, async () => {
    const { client, node } = on;
    const [beginning, publishing] = [await on.connect(), await on.connect()];
    await beginning.query("begin");
    const { rows: [row] } = await beginning.query(begin("about-to-begin"));
    const [[epoch, offset]] = JSON.parse(row.answers);
    const published = publishing.query(event("about-to-begin"));
    await isOverOrWaits(client, published, publishing);
    await beginning.query("commit");
    await published;
    const page = await node.engine.read("about-to-begin", HISTORY, { epoch, offset }, 100);
    assert.equal(page.isComplete, false);
    for (const connection of [beginning, publishing]) await connection.end();
  });

  it("begin a history only after the commit of a publication without a history", TIMEOUT, async () => {
    const { client, node } = on;
    const [beginning, publishing] = [await on.connect(), await on.connect()];
    await publishing.query("begin");
    await publishing.query(event("about-to-end"));
    const begun = beginning.query(begin("about-to-end"));
    const isOver = await isOverOrWaits(client, begun, beginning);
    await publishing.query("commit");
    const [[epoch, offset]] = JSON.parse((await begun).rows[0].answers);
    const page = await node.engine.read("about-to-end", HISTORY, { epoch, offset }, 100);
    // A history that began before the commit lacks the publication.
    assert.equal(page.isComplete, !isOver);
    for (const connection of [beginning, publishing]) await connection.end();
  });

  it("read a whole page while its first publications are removed", TIMEOUT, async () => {
    const { client, node } = on;
    const small = { size: 10, ttl: HISTORY.ttl };
    const { epoch, offset } = (await node.engine.subscribe("removed", small))!;
    await publish(node.engine, "removed", small, 10);
    node.engine.unsubscribe("removed");
    const rows = "noroshi_publications where channel = (select id from noroshi_channels where name = 'removed')";
    await client.query(
      `update noroshi_publications set at = at - 60000 where (channel, pos) in (select channel, pos from ${rows})`,
    );
    // Otherwise the read renews the row, and publications wait for the read.
    await client.query("update noroshi_channels set expires = expires + 600000 where name = 'removed'");
    // The role can read no row until the test releases the lock.
    await client.query(`
      create role slow;
      grant usage on schema public to slow;
      grant select, insert, update, delete on all tables in schema public to slow;
      create function let_go() returns boolean language plpgsql as $$
      begin
        perform pg_advisory_xact_lock_shared(7, 7);
        return true;
      end $$;
      alter table noroshi_publications enable row level security;
      create policy slow on noroshi_publications to slow using (let_go());
    `);
    const [reading, removing] = [await on.connect(), await on.connect()];
    await reading.query("set role slow");
    await removing.query("select pg_advisory_lock(7, 7)");
    const call = JSON.stringify([["read", "removed", 10, HISTORY.ttl, 1_000, epoch, offset, 10, 1_000_000, null, 0, false]]);
    const read = reading.query("select noroshi_call('noroshi', $1) as answers", [call]);
    assert.equal(await isOverOrWaits(client, read, reading), false);
    await publish(node.engine, "removed", small, 1, 10);
    assert.equal((await client.query(`select from ${rows}`)).rowCount, 10);
    await removing.query("select pg_advisory_unlock(7, 7)");
    const [[, , isComplete, entries]] = JSON.parse((await read).rows[0].answers);
    await client.query("alter table noroshi_publications disable row level security");
    for (const connection of [reading, removing]) await connection.end();
    assert.deepEqual([isComplete, entries.length, entries[0]?.[1]], [true, 10, offset]);
  });

  it("publish with an id and without a history from a transaction and a node concurrently", TIMEOUT, async () => {
    const { client, node } = on;
    for (const first of ["", "select noroshi_publish('identified', 'say', '1')"]) {
      const [holding, transaction, publishing] = [await on.connect(), await on.connect(), await on.connect()];
      await node.engine.read("identified", HISTORY, null, 1);
      await holding.query("begin");
      await holding.query("select from noroshi_channels where name = 'identified' for update");
      await transaction.query("begin");
      await transaction.query(first);
      const once = { id: `transaction ${first}`, window: 60_000 };
      await node.engine.publish("identified", { event: "say", data: "1" }, null, once, transaction);
      const committed = transaction.query("commit");
      assert.equal(await isOverOrWaits(client, committed, transaction), false);
      const call = JSON.stringify([["event", "identified", '\n{"v":2}\n1', `node ${first}`, 60_000]]);
      const published = publishing.query("select noroshi_call('noroshi', $1)", [call]);
      assert.equal(await isOverOrWaits(client, published, publishing), false);
      await holding.query("commit");
      await Promise.all([committed, published]);
      for (const connection of [holding, transaction, publishing]) await connection.end();
    }
  });

  it("let nodes begin and end histories of the same channels in any order", TIMEOUT, async () => {
    const { node } = on;
    const other = await startNode(postgresEngine({ client: on.client, ...FAST }));
    const channels = range(20).map((number) => `mixed:${number}`);
    for (const round of range(5)) {
      await Promise.all(
        [node, other].flatMap(({ engine }, index) =>
          (index ? channels : channels.toReversed()).flatMap((channel, number) => [
            publish(engine, channel, (number + index + round) % 3 ? HISTORY : null, 1),
            engine.read(channel, HISTORY, null, 1),
            publish(engine, channel, (number + index + round) % 2 ? null : HISTORY, 1),
          ])
        ),
      );
    }
    await other.engine.close();
    assert.deepEqual([node.host.errors, other.host.errors], [[], []]);
  });

  it("publish to one channel without a history from concurrent transactions", TIMEOUT, async () => {
    const { client, node } = on;
    await node.engine.subscribe("several", null);
    await Promise.all(range(20).map((number) => client.query("select noroshi_publish('several', 'say', $1)", [number])));
    await node.host.until(() => node.host.publications("several").length >= 20);
    assert.deepEqual((node.host.data("several") as number[]).sort((one, other) => one - other), range(20));
    assert.deepEqual((await client.query("select * from noroshi_channels where name = 'several'")).rows, []);
  });

  it("remove the publications of all expired channels, 1,000 channels at a time", TIMEOUT, async () => {
    const { client } = on;
    await client.query(`
      with made as (
        insert into noroshi_channels (namespace, name, run, epoch, n, size, ttl, expires)
          select 'other', 'expired:' || number, '', '', 1, 1, 1, noroshi_now() - 1000 from generate_series(1, 2500) number returning id
      ) insert into noroshi_publications select id, 1, 0, 1, 0, '' from made
    `);
    for (let sweep = 0; sweep < 3; sweep++) {
      await client.query("select noroshi_call('other', $1)", [SWEEP]);
    }
    const { rows } = await client.query("select count(*)::int from noroshi_publications where envelope = ''");
    assert.deepEqual(rows, [{ count: 0 }]);
  });

  it("return the parts that may have more to sweep, and ignore parts of later versions", TIMEOUT, async () => {
    const transaction = await on.connect();
    await transaction.query("begin"); // Because the node of the suite sweeps, too.
    await transaction.query(`
      insert into noroshi_ids select noroshi_key('old', number::text), '', 0, 0 from generate_series(1, 5001) number;
      insert into noroshi_orders (namespace, at, envelope) select 'other', 0, '' from generate_series(1, 10)
    `);
    const more = async (parts: readonly string[]) =>
      (await transaction.query("select noroshi_sweep($1) as more", [parts])).rows[0].more;
    assert.deepEqual(await more([...PARTS, "of a later version"]), ["ids"]);
    assert.deepEqual(await more(["ids"]), []);
    const left = "select 1 from noroshi_ids where expires = 0 union all select 1 from noroshi_orders where at = 0";
    assert.deepEqual((await transaction.query(left)).rows, []);
    await transaction.end();
  });

  it("remove publications beyond the size from a quiet channel", TIMEOUT, async () => {
    const { client, node } = on;
    const small = { size: 10, ttl: HISTORY.ttl };
    const channels = range(60).map((number) => `quiet:${number}`);
    const starts = await Promise.all(channels.map((channel) => node.engine.subscribe(channel, small)));
    // In the future, for as long as the test takes to look at them: the node of the suite sweeps, too.
    await client.query(`
      begin;
      select noroshi_publish('quiet:0', 'say', to_jsonb(n)) from generate_series(0, 399) n;
      select noroshi_publish('quiet:' || channel, 'say', to_jsonb(n)) from generate_series(1, 59) channel, generate_series(0, 10) n;
      set constraints all immediate;
      update noroshi_publications set at = at + 3600000
        where channel in (select id from noroshi_channels where name like 'quiet:%');
      commit;
    `);
    const count = async (condition: string) => {
      const text = "select count(*)::int as count from noroshi_publications p join noroshi_channels c on c.id = p.channel";
      return (await client.query(`${text} where c.name like 'quiet:%' and ${condition}`)).rows[0].count;
    };
    const sweep = () => client.query("select noroshi_call('noroshi', $1)", [SWEEP]);
    await sweep();
    // Nodes that were notified of them may still read them.
    assert.equal(await count("true"), 400 + 59 * 11);
    await client.query(`
      update noroshi_publications set at = at - 3600000 - 10001
        where channel in (select id from noroshi_channels where name like 'quiet:%')
    `);
    for (let sweeps = 0; await count("p.n <= c.n - c.size") > 0; sweeps++) {
      assert.ok(sweeps < 20, "each removes some");
      await sweep();
    }
    assert.equal(await count("true"), 600);
    assert.equal(await count("c.gone = c.n - c.size"), 600);
    // The remaining history continues.
    const [position] = await publish(node.engine, channels[1]!, small, 1, 11);
    const page = await node.engine.read(channels[1]!, small, null, 100);
    assert.deepEqual([page.position, page.publications.map(({ data }) => Number(data))], [position, range(10).map((n) => 2 + n)]);
    assert.equal((await node.engine.read(channels[1]!, small, starts[1]!, 100)).isComplete, false);
    for (const channel of channels) node.engine.unsubscribe(channel);
  });

  it("remove the members of a node that joined without a lease", TIMEOUT, async () => {
    // In one transaction: the node of the suite sweeps too.
    const joined = [["join", "room", "alive", "ada", "1"], ["join", "room", "dead", "bob", "2"]];
    const calls = JSON.stringify([["beat", "alive", 60_000, 1], ...joined, ["sweep", PARTS]]);
    await on.client.query("select noroshi_call('members', $1)", [calls]);
    const { rows } = await on.client.query("select node from noroshi_members where namespace = 'members'");
    assert.deepEqual(rows, [{ node: "alive" }]);
  });

  it("remove all expired mail within one heartbeat, however much there is", TIMEOUT, async () => {
    const quiet = await PostgresProcess.postgres();
    const pool = new pg.Pool({ connectionString: quiet.url });
    for (const { sql } of postgresMigrations()) await pool.query(sql);
    await pool.query("insert into noroshi_mail (at, envelope) select 0, '' from generate_series(1, 22000)");
    // It sends one heartbeat during the test.
    const only = await startNode(postgresEngine({ client: pool, ...FAST, lease: 3_600_000 }));
    const left = async () => (await pool.query("select 1 from noroshi_mail where at = 0 limit 1")).rows.length;
    while (await left() > 0) continue;
    await only.engine.close();
    await pool.end();
    await quiet.close();
  });

  it("are migrated, or reported as outdated when migrate is false", TIMEOUT, async () => {
    const { client } = on;
    for (const { sql } of postgresMigrations("older")) await client.query(sql);
    await client.query(`
      delete from older.noroshi_migrations;
      create or replace function older.noroshi_start(p_namespace text, p_run text, p_lsn text) returns json language sql as $$
        select json_build_object('answer', 'of another version')
      $$;
    `);
    const refused = postgresEngine({ client, ...FAST, schema: "older", migrate: false });
    const host = new TestHost();
    refused.start(host);
    await host.until(() => host.errors.length > 0);
    assert.match(`${(host.errors[0] as Error).cause}`, /have version 0 and not 1/);
    await refused.close();
    const migrating = await startNode(postgresEngine({ client, ...FAST, schema: "older" }));
    assert.equal((await publish(migrating.engine, "room", HISTORY, 1)).length, 1);
    await migrating.engine.close();
  });

  it("need only the privileges that the guide lists", TIMEOUT, async () => {
    const { broker, client } = on;
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
    await pool.query("select noroshi_call('noroshi', $1)", [SWEEP]);
    const page = await app.engine.read("rights", HISTORY, start, 10);
    await app.host.until(() => app.host.publications("rights").length >= 3);
    await app.engine.close();
    await pool.end();
    assert.deepEqual([page.isComplete, page.publications.map(({ data }) => data)], [true, ["1", "2", "3"]]);
    assert.deepEqual(app.host.errors, []);
  });
});

/** Resolves when the query is over, with `true`, or when its connection waits for a lock. */
async function isOverOrWaits(
  client: pg.Pool,
  query: Promise<unknown>,
  { processID }: pg.Client & { processID?: number },
): Promise<boolean> {
  let isOver = false;
  query.then(() => isOver = true, () => isOver = true);
  for (;;) {
    const { rows } = await client.query("select 1 from pg_locks where pid = $1 and not granted", [processID]);
    if (isOver || rows.length > 0) return isOver;
  }
}
