/** What an object does whose storage is full: SQLite refuses what needs room, and takes what frees it. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { SqliteEngine } from "../../src/engines/sqlite-engine.ts";
import type { Sql } from "../../src/engines/sqlite-histories.ts";
import { Schedules } from "../../src/serve/schedules.ts";
import { TestClock } from "../support/test-clock.ts";
import { noSqlite, openSqlite } from "./sqlite.ts";
import { TestHost } from "./test-host.ts";

const LONG = { size: 1_000, ttl: 300_000 };
const FULL = /full/i;

function open(sql: Sql) {
  const host = new TestHost(new TestClock());
  const engine = new SqliteEngine(sql);
  engine.start(host);
  engine.subscribe("a", LONG);
  return { engine, host };
}

/** Lets the database have so many pages more. */
function limit(sql: Sql, more: number): void {
  const [{ page_count: pages }] = [...sql.exec("PRAGMA page_count")] as [{ page_count: number }]; // As SQLite answers.
  [...sql.exec(`PRAGMA max_page_count = ${pages + more}`)];
}

describe("A full database", { skip: noSqlite }, () => {
  it("refuses publications, keeps those from before, and accepts others when there is room", () => {
    const sql = openSqlite();
    const { engine, host } = open(sql);
    limit(sql, 8);
    const publish = (data: number) => engine.publish("a", { event: "say", data: JSON.stringify("x".repeat(500) + data) }, LONG);
    let count = 0;
    assert.throws(() => {
      for (; count < 1_000; count++) publish(count);
    }, FULL);
    assert.ok(count > 10 && count < 1_000, `${count}`);
    assert.throws(() => publish(count), FULL);
    assert.throws(() => engine.keeper.save("client", "b", "x".repeat(5_000)), FULL);
    const read = () => engine.read("a", LONG, null, 1_000).publications;
    assert.equal(read().length, count);
    assert.equal(host.publications("a").length, count);
    limit(sql, 100);
    const position = publish(count);
    assert.deepEqual(read().at(-1)?.position, position);
    assert.deepEqual(read().map(({ position }) => position), host.publications("a").map(({ position }) => position));
  });

  it("stores what it delivers, whichever statement of a publication fails", () => {
    for (let place = 0; place < 12; place++) {
      const database = openSqlite();
      let statements = Infinity;
      const sql: Sql = {
        exec(query, ...bindings) {
          // Those that delete free room.
          if (/^\s*(?:INSERT|UPDATE)/.test(query) && statements-- === 0) throw new Error("database or disk is full");
          return database.exec(query, ...bindings);
        },
      };
      const { engine, host } = open(sql);
      const history = { ...LONG, size: 3 };
      const publish = (number: number) =>
        engine.publish("a", { event: "say", data: `${number}` }, history, { id: `${number}`, window: 60_000 });
      for (let number = 0; number < 4; number++) publish(number);
      statements = place;
      for (let number = 4; number < 8; number++) {
        try {
          publish(number);
        } catch (error) {
          assert.match(String(error), FULL);
        }
      }
      const { publications, position } = engine.read("a", history, null, 10);
      // The oldest one may have gone for one that failed.
      assert.ok(publications.length >= 2 && host.publications("a").length >= 7);
      assert.deepEqual(publications, host.publications("a").slice(-publications.length));
      // A subscriber that was there before has missed none.
      const [first, ...others] = publications;
      assert.deepEqual(engine.read("a", history, first!.position, 10), { position, publications: others, isComplete: true });
    }
  });

  it("refuses a schedule, and runs those that are stored", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    let calls = 0;
    const schedules = new Schedules({ count: () => void calls++ });
    schedules.start({ sql, clock, report: (error) => assert.fail(String(error)) });
    const add = () => schedules.schedule(1_000, "count", "x".repeat(500));
    await add();
    limit(sql, 8);
    let count = 1;
    await assert.rejects(async () => {
      for (; count < 1_000; count++) await add();
    }, FULL);
    for (let turn = 0; turn < 10; turn++) {
      clock.advance(1_000);
      await new Promise((resolve) => setTimeout(resolve));
    }
    assert.deepEqual([calls, await schedules.list()], [count, []]);
    await add();
  });
});
