/** Publications in a transaction of the application, and by the database itself. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import pg from "pg";
import postgres from "postgres";
import type { HistoryOptions } from "../../src/engines/engine.ts";
import { postgresEngine, type PostgresEngineOptions } from "../../src/engines/postgres/postgres.ts";
import { createPGlite } from "../support/pglite.ts";
import { lacksPostgres, PostgresProcess } from "../support/postgres.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";
import { publish, range } from "./conformance.ts";
import { FAST, TIMEOUT, usePostgres } from "./postgres-fixture.ts";

const HISTORY: HistoryOptions = { size: 100, ttl: 300_000 };
const say = (data: unknown) => ({ event: "say", data: JSON.stringify(data) });

/** A way to run transactions. */
interface Application {
  readonly client: PostgresEngineOptions["client"];
  /** Runs the work in a transaction, which is rolled back if the work throws. */
  transaction(work: (transaction: unknown) => Promise<void>): Promise<void>;
  close(): Promise<unknown>;
}

const APPLICATIONS: Record<string, { skip: string | false; open(url: string): Promise<Application> }> = {
  pg: {
    skip: lacksPostgres(),
    open: (url) => {
      const client = new pg.Pool({ connectionString: url });
      return Promise.resolve({
        client,
        async transaction(work) {
          const transaction = await client.connect();
          try {
            await transaction.query("begin");
            await work(transaction);
            await transaction.query("commit");
          } catch (error) {
            await transaction.query("rollback");
            throw error;
          } finally {
            transaction.release();
          }
        },
        close: () => client.end(),
      });
    },
  },
  postgres: {
    skip: lacksPostgres(),
    open: (url) => {
      const client = postgres(url, { onnotice: () => {} });
      return Promise.resolve({
        client,
        transaction: async (work) => void await client.begin((transaction) => work(transaction)),
        close: () => client.end({ timeout: 0 }),
      });
    },
  },
  PGlite: {
    skip: false,
    open: async () => {
      const client = await createPGlite();
      return {
        client,
        transaction: async (work) => void await client.transaction((transaction) => work(transaction)),
        close: () => client.close(),
      };
    },
  },
};

for (const [library, { skip, open }] of Object.entries(APPLICATIONS)) {
  for (const secret of [undefined, "a secret of the tests"]) {
    describe(`A publication in a transaction of ${library}${secret ? ", signed" : ""}`, { skip }, () => {
      let broker: PostgresProcess | undefined;
      let application: Application;
      let a: BrokerNode;
      let b: BrokerNode;

      before(async () => {
        if (library !== "PGlite") broker = await PostgresProcess.postgres();
        application = await open(broker?.url ?? "");
        const make = () => postgresEngine({ client: application.client, ...FAST, ...(secret !== undefined && { secret }) });
        [a, b] = [await startNode(make()), await startNode(make())];
      }, TIMEOUT);
      after(async () => {
        await Promise.all([a, b].map((node) => node?.engine.close()));
        await application?.close();
        await broker?.close();
      }, TIMEOUT);

      it("is delivered and stored in the history when the transaction commits", TIMEOUT, async () => {
        for (const history of [HISTORY, null]) {
          const channel = `commit:${history !== null}`;
          const start = await b.engine.subscribe(channel, history);
          await application.transaction(async (transaction) => {
            for (const number of range(3)) {
              assert.equal(await a.engine.publish(channel, say(number), history, undefined, transaction), null);
            }
          });
          await publish(a.engine, channel, history, 1, 3);
          await b.host.until(() => b.host.publications(channel).length >= 4);
          assert.deepEqual([b.host.data(channel), b.host.gaps], [range(4), []]);
          if (!history) continue;
          const page = await a.engine.read(channel, history, start, 100);
          assert.deepEqual([page.isComplete, page.publications.map(({ data }) => Number(data))], [true, range(4)]);
          assert.deepEqual(
            page.publications.map(({ position }) => position),
            b.host.publications(channel).map(({ position }) => position),
          );
        }
        assert.deepEqual([a.engine.dropped, b.engine.dropped], [{}, {}]);
      });

      it("is neither delivered nor stored when the transaction rolls back", TIMEOUT, async () => {
        await b.engine.subscribe("rollback", HISTORY);
        const rolledBack = application.transaction(async (transaction) => {
          await a.engine.publish("rollback", say("never"), HISTORY, undefined, transaction);
          throw new Error("Not today");
        });
        await assert.rejects(rolledBack, /Not today/);
        await publish(a.engine, "rollback", HISTORY, 1);
        await b.host.until(() => b.host.publications("rollback").length > 0);
        const { publications } = await a.engine.read("rollback", HISTORY, null, 100);
        assert.deepEqual([b.host.data("rollback"), publications.map(({ data }) => data)], [[0], ["0"]]);
      });

      it("is published once with an id", TIMEOUT, async () => {
        const once = { id: "one", window: 300_000 };
        await b.engine.subscribe("once", HISTORY);
        for (const _ of range(2)) {
          await application.transaction(async (transaction) => {
            await a.engine.publish("once", say("first"), HISTORY, once, transaction);
          });
        }
        await a.engine.publish("once", say("again"), HISTORY, once);
        await publish(a.engine, "once", HISTORY, 1);
        await b.host.until(() => b.host.data("once").includes(0));
        assert.deepEqual(b.host.data("once"), ["first", 0]);
      });

      it("is refused with a value that is not a transaction", TIMEOUT, async () => {
        for (const transaction of [application.client, {}, null, 1, "begin"]) {
          await assert.rejects(async () => await a.engine.publish("refused", say(1), HISTORY, undefined, transaction), TypeError);
        }
        assert.equal((await a.engine.read("refused", HISTORY, null, 100)).publications.length, 0);
      });

      // PGlite runs one transaction at a time.
      const together = { ...TIMEOUT, skip: library === "PGlite" && "it has one connection" };

      it("has its position by commit order, whichever transaction began first", together, async () => {
        const start = await b.engine.subscribe("order", HISTORY);
        let commitFirst!: () => void;
        const gate = new Promise<void>((resolve) => commitFirst = resolve);
        let hasBegun!: () => void;
        const begun = new Promise<void>((resolve) => hasBegun = resolve);
        const first = application.transaction(async (transaction) => {
          await a.engine.publish("order", say("began first"), HISTORY, undefined, transaction);
          hasBegun();
          await gate;
        });
        await begun;
        // The second transaction does not wait for a lock of the first.
        await application.transaction(async (transaction) => {
          await a.engine.publish("order", say("began second"), HISTORY, undefined, transaction);
        });
        await a.engine.publish("order", say("in none"), HISTORY);
        await b.host.until(() => b.host.publications("order").length >= 2);
        commitFirst();
        await first;
        await b.host.until(() => b.host.publications("order").length >= 3);
        const expected = ["began second", "in none", "began first"];
        assert.deepEqual([b.host.data("order"), b.host.gaps], [expected, []]);
        const page = await a.engine.read("order", HISTORY, start, 100);
        assert.deepEqual([page.isComplete, page.publications.map(({ data }) => JSON.parse(data))], [true, expected]);
      });

      it("does not wait for other transactions, whatever the order of their channels", together, async () => {
        for (const channel of ["x", "y"]) await b.engine.subscribe(channel, HISTORY);
        await Promise.all(
          range(20).map((number) =>
            application.transaction(async (transaction) => {
              for (const channel of number % 2 ? ["x", "y"] : ["y", "x"]) {
                await a.engine.publish(channel, say(number), HISTORY, undefined, transaction);
              }
            })
          ),
        );
        for (const channel of ["x", "y"]) {
          await b.host.until(() => b.host.publications(channel).length >= 20);
          assert.deepEqual((b.host.data(channel) as number[]).sort((one, other) => one - other), range(20));
        }
        assert.deepEqual(b.host.gaps, []);
      });
    });
  }
}

describe("Over PostgreSQL", { skip: lacksPostgres() }, () => {
  const on = usePostgres();

  it("drops a publication when its backend is killed before the commit", TIMEOUT, async () => {
    const { client, node } = on;
    await node.engine.subscribe("killed", HISTORY);
    const transaction = await client.connect();
    const ended = new Promise<void>((resolve) => transaction.on("error", () => resolve()));
    await transaction.query("begin");
    await node.engine.publish("killed", say("never"), HISTORY, undefined, transaction);
    const { rows: [{ pid }] } = await transaction.query("select pg_backend_pid() as pid");
    await client.query("select pg_terminate_backend($1)", [pid]);
    await ended;
    transaction.release(true);
    await publish(node.engine, "killed", HISTORY, 1);
    await node.host.until(() => node.host.publications("killed").length > 0);
    const { publications } = await node.engine.read("killed", HISTORY, null, 100);
    assert.deepEqual([node.host.data("killed"), publications.length], [[0], 1]);
    assert.deepEqual((await client.query("select * from noroshi_outbox")).rows, []);
  });

  it("publishes a transaction's changes from a trigger, to channels with and without a history", TIMEOUT, async () => {
    const { client, node } = on;
    await client.query(`
      create table orders (id integer primary key, state text not null);
      create function publish_order() returns trigger language plpgsql as $$
      begin
        perform noroshi_publish('orders', tg_op, to_jsonb(new));
        perform noroshi_publish('order:' || new.id, lower(tg_op), to_jsonb(new));
        return null;
      end $$;
      create trigger publish_order after insert or update on orders for each row execute function publish_order();
    `);
    const start = await node.engine.subscribe("orders", HISTORY);
    await node.engine.subscribe("order:7", null);
    await client.query("insert into orders values (7, 'new')");
    await assert.rejects(client.query("insert into orders values (8, null)"));
    await client.query("update orders set state = 'paid'");
    await node.host.until(() => node.host.publications("orders").length >= 2 && node.host.publications("order:7").length >= 2);
    const states = [{ id: 7, state: "new" }, { id: 7, state: "paid" }];
    assert.deepEqual([node.host.data("orders"), node.host.data("order:7")], [states, states]);
    assert.deepEqual(node.host.publications("orders").map(({ event }) => event), ["INSERT", "UPDATE"]);
    assert.deepEqual(node.host.publications("order:7").map(({ event, position }) => [event, position]), [
      ["insert", null],
      ["update", null],
    ]);
    const page = await node.engine.read("orders", HISTORY, start, 100);
    assert.deepEqual([page.isComplete, page.publications.map(({ data }) => JSON.parse(data))], [true, states]);
    assert.deepEqual([node.host.gaps, node.host.errors, node.engine.dropped], [[], [], {}]);
  });

  it("refuses an invalid channel or event in noroshi_publish", TIMEOUT, async () => {
    const { client } = on;
    for (
      const [channel, event] of [["a b", "say"], ["", "say"], [null, "say"], ["room", ""], ["room", "x".repeat(65)], [
        "room",
        null,
      ], ...["init", "unsubscribe", "join", "leave", "\u{1f600}".repeat(33)].map((event) => ["room", event])]
    ) {
      await assert.rejects(client.query("select noroshi_publish($1, $2, '1')", [channel, event]), /Cannot publish/);
    }
    const long = client.query("select noroshi_publish('room', 'say', to_jsonb($1::text))", ["x".repeat(900_000)]);
    await assert.rejects(long, /898,000/);
    await client.query("select noroshi_publish('room', 'say', to_jsonb($1::text))", ["\u00e9".repeat(600_000)]);
    await client.query("select noroshi_publish('room', $1, '1')", ["\u{1f600}".repeat(32)]);
  });

  it("uses the size and ttl of the last node that read the history in noroshi_publish", TIMEOUT, async () => {
    const { client, node } = on;
    await node.engine.subscribe("terms", { size: 1, ttl: 1_000 });
    await node.engine.read("terms", HISTORY, null, 10);
    const { rows } = await client.query("select size::int, ttl::int from noroshi_channels where name = 'terms'");
    assert.deepEqual(rows, [{ ...HISTORY }]);
  });
});
