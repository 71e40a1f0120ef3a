import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { TestClock } from "../support/test-clock.ts";
import { SqliteEngine } from "../../src/engines/sqlite-engine.ts";
import { conformance, publish, range } from "./conformance.ts";
import type { Sql } from "../../src/engines/sqlite-histories.ts";
import { noSqlite, openSqlite } from "./sqlite.ts";
import { TestHost, type TestNode } from "./test-host.ts";

conformance("sqlite", {
  nodes: 1,
  isVirtual: true,
  channels: 10_000,
  skip: noSqlite,
  create() {
    const clock = new TestClock();
    const node = (): Promise<TestNode> => {
      const host = new TestHost(clock);
      const engine = new SqliteEngine(openSqlite());
      engine.start(host);
      return Promise.resolve({ engine, host, kill: () => {} });
    };
    return Promise.resolve({
      node,
      advance: (ms: number) => clock.advance(ms),
      forget: node,
      held: ({ engine }: TestNode) => (engine as SqliteEngine).channels, // As `node` made it.
      close: () => Promise.resolve(),
    });
  },
});

const LONG = { size: 100, ttl: 300_000 };

describe("SqliteEngine", { skip: noSqlite }, () => {
  const running = new WeakMap<Sql, { engine: SqliteEngine; host: TestHost }>();

  /** A node that replaces the previous one over the database, after its first turn. `back` restores clients in that turn. */
  async function start(sql: Sql, clock: TestClock, back: (engine: SqliteEngine) => void = () => {}, options = {}) {
    const before = running.get(sql);
    if (before) before.host.deadlines.delete(before.engine);
    const host = new TestHost(clock);
    const engine = new SqliteEngine(sql, options);
    running.set(sql, { engine, host });
    engine.start(host);
    back(engine);
    await Promise.resolve();
    return { engine, host };
  }

  /** A database some of whose statements fail. */
  function failing(database: Sql = openSqlite()) {
    const storage: { fails?: RegExp | undefined } = {};
    const sql: Sql = {
      exec(query, ...bindings) {
        if (storage.fails?.test(query)) throw new Error("The storage fails");
        return database.exec(query, ...bindings);
      },
    };
    return { storage, sql };
  }

  for (const fails of [/DELETE/, /SELECT/, /SELECT MIN/]) {
    it(`sweeps again after ${fails} has failed`, async () => {
      const [{ storage, sql }, clock] = [failing(), new TestClock()];
      const { engine, host } = await start(sql, clock);
      await publish(engine, "a", { size: 10, ttl: 20_000 }, 3);
      storage.fails = fails;
      clock.advance(60_000);
      assert.ok(host.errors.length >= 1 && host.errors.length <= 6, `${host.errors.length} errors`);
      storage.fails = undefined;
      clock.advance(10_000);
      assert.deepEqual([engine.historyBytes, engine.channels, host.deadlines.size], [0, 0, 0]);
      await publish(engine, "b", { size: 10, ttl: 20_000 }, 3);
      clock.advance(30_000);
      assert.equal(engine.channels, 0);
    });
  }

  for (const fails of [/UPDATE "noroshi_members"/, /DELETE FROM "noroshi_subscriptions"/, /UPDATE "noroshi_channels"/]) {
    it(`removes members and subscriptions that did not return from hibernation after ${fails} has failed`, async () => {
      const [database, clock] = [openSqlite(), new TestClock()];
      const before = await start(database, clock);
      before.engine.subscribe("a", LONG);
      clock.advance(LONG.ttl + 10_000);
      for (const user of ["ann", "bob", "cid"]) before.engine.join("a", { user });
      for (const uid of ["one", "two"]) before.engine.keeper.save(uid, "a", "a");
      const { storage, sql } = failing(database);
      const { engine, host } = await start(sql, clock, (engine) => {
        engine.join("a", { user: "ann" });
        storage.fails = fails;
      });
      assert.deepEqual(host.errors.map((error) => (error as Error).message), ["The storage fails"]);
      storage.fails = undefined;
      // These return before the removal is tried again.
      engine.join("a", { user: "bob" });
      engine.keeper.save("three", "a", "a");
      clock.advance(25_000);
      assert.deepEqual(engine.members("a").map(({ user }) => user), ["ann", "bob"]);
      assert.deepEqual(["one", "two", "three"].map((uid) => engine.keeper.load(uid).length), [0, 0, 1]);
      clock.advance(LONG.ttl + 10_000);
      assert.deepEqual([host.errors.length, engine.historyBytes], [1, 0]);
    });
  }

  it("reads a publication that expires after a later one at its own position", async () => {
    const clock = new TestClock();
    const { engine } = await start(openSqlite(), clock);
    const positions = [
      ...await publish(engine, "a", { size: 10, ttl: 30_000 }, 1),
      ...await publish(engine, "a", LONG, 1, 1),
      ...await publish(engine, "a", { size: 10, ttl: 30_000 }, 1, 2),
    ];
    clock.advance(20_000);
    positions.push(...await publish(engine, "a", LONG, 1, 3));
    clock.advance(11_000);
    const kept = [1, 2, 3].map((number) => [`${number}`, positions[number]]);
    for (const limit of [10, 2, 1]) {
      const { publications } = engine.read("a", LONG, null, limit);
      assert.deepEqual(publications.map(({ data, position }) => [data, position]), kept.slice(-limit));
    }
  });

  it("remembers the id of a publication after a restart, and forgets it after its window", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    const once = { id: "x", window: 60_000 };
    const publishOnce = async (history: typeof LONG | null) => {
      const { engine } = await start(sql, clock);
      return engine.publish(
        history ? "a" : "b",
        { event: "say", data: "1" },
        history,
        once,
      );
    };
    const first = await publishOnce(LONG);
    assert.deepEqual([
      await publishOnce(LONG),
      await publishOnce(null),
      await publishOnce(null),
    ], [first, null, null]);
    clock.advance(60_000);
    assert.notDeepEqual(await publishOnce(LONG), first);
    const { engine } = await start(sql, clock);
    assert.equal(engine.read("a", LONG, null, 10).publications.length, 2);
    assert.deepEqual([...sql.exec(`SELECT id FROM "noroshi_ids"`)].length, 1);
  });

  it("continues the epoch of a history after a restart", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    const before = await start(sql, clock);
    before.engine.subscribe("a", LONG);
    const [first, second] = await publish(before.engine, "a", LONG, 2);
    const { engine, host } = await start(sql, clock);
    assert.deepEqual(engine.subscribe("a", LONG), second);
    const [third] = await publish(engine, "a", LONG, 1, 2);
    assert.equal(third!.epoch, second!.epoch);
    assert.ok(third!.offset > second!.offset);
    const page = engine.read("a", LONG, first!, 9);
    assert.deepEqual(page.publications.map(({ data, position }) => [data, position]), [["1", second], ["2", third]]);
    assert.deepEqual(host.data("a"), [2]);
  });

  it("continues offsets by 1 when clients return from hibernation, because the storage is not an older copy", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    const { engine } = await start(sql, clock);
    const [first] = await publish(engine, "a", LONG, 1);
    for (const n of [1, 2]) {
      const again = await start(sql, clock, ({ keeper }) => void keeper.load("one"));
      assert.deepEqual(await publish(again.engine, "a", LONG, 1, n), [{ epoch: first!.epoch, offset: first!.offset + n }]);
    }
  });

  it("counts the same bytes after a restart, and none when everything has expired", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    const before = await start(sql, clock);
    await publish(before.engine, "a", { size: 3, ttl: 20_000 }, 10);
    await before.engine.publish("b", { event: "say", data: '"狼煙 🔥"' }, LONG);
    const { engine } = await start(sql, clock);
    assert.ok(engine.historyBytes > 0);
    assert.equal(engine.historyBytes, before.engine.historyBytes);
    clock.advance(LONG.ttl + 20_000);
    assert.deepEqual([engine.historyBytes, engine.channels, clock.timers], [0, 0, 0]);
  });

  it("reports nothing when a member rejoins after a restart, in the first turn or later", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    const before = await start(sql, clock);
    for (const user of ["ann", "bob", "cid"]) {
      before.engine.join("a", { user, data: "1" });
    }
    const { engine, host } = await start(sql, clock, (engine) => {
      engine.subscribe("a", null);
      engine.join("a", { user: "ann", data: "1" });
    });
    clock.advance(9_000);
    engine.join("a", { user: "bob", data: "1" });
    assert.deepEqual(host.presence, []);
    clock.advance(60_000);
    assert.deepEqual(host.presence, [{ channel: "a", joined: [], left: ["cid"] }]);
    assert.deepEqual(engine.members("a"), [{ user: "ann", data: "1" }, { user: "bob", data: "1" }]);
    engine.join("a", { user: "ann", data: "2" });
    assert.deepEqual(host.presence[1], { channel: "a", joined: [{ user: "ann", data: "2" }], left: [] });
  });

  it("reports no change of a member whose connections return one by one, the newest last", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    const { engine } = await start(sql, clock);
    for (const data of ["1", "2"]) engine.join("a", { user: "ann", data });
    const again = await start(sql, clock, (engine) => {
      engine.subscribe("a", null);
      for (const data of ["1", "2"]) engine.join("a", { user: "ann", data });
    });
    assert.deepEqual([again.host.presence, again.engine.members("a")], [[], [{ user: "ann", data: "2" }]]);
    again.engine.join("a", { user: "ann", data: "3" });
    assert.equal(again.host.presence.length, 1);
  });

  it("removes members that do not return in time, however often it restarts meanwhile", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    (await start(sql, clock)).engine.join("a", { user: "ann" });
    await start(sql, clock);
    clock.advance(9_000);
    const late = await start(sql, clock);
    assert.deepEqual(late.engine.members("a"), [{ user: "ann" }]);
    // As when an alarm wakes the object after the deadline.
    clock.jump(5_000);
    const { engine, host } = await start(sql, clock, (engine) => void engine.subscribe("a", null));
    clock.advance(0);
    assert.deepEqual([engine.members("a"), host.presence], [[], [{ channel: "a", joined: [], left: ["ann"] }]]);
  });

  it("sets no timer when nothing can expire, even after a restart with all members", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    const back = (engine: SqliteEngine) => {
      engine.subscribe("a", LONG);
      engine.join("a", { user: "ann" });
    };
    const { engine } = await start(sql, clock, back);
    await publish(engine, "a", LONG, 3);
    clock.advance(2 * LONG.ttl);
    assert.equal(clock.timers, 0);
    const { length } = clock.delays;
    const again = await start(sql, clock, back);
    assert.deepEqual([clock.delays.length, again.engine.members("a")], [length, [{ user: "ann" }]]);
    assert.equal(again.engine.historyBytes, engine.historyBytes);
  });

  it("recovers from the position of a channel that was idle for longer than its ttl when the node was lost", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    const { engine } = await start(sql, clock, (engine) => void engine.subscribe("a", LONG));
    const [top] = await publish(engine, "a", LONG, 1);
    clock.advance(3 * LONG.ttl);
    const after = await start(sql, clock);
    assert.equal(after.engine.read("a", LONG, top!, 9).isComplete, true);
    clock.advance(LONG.ttl + 20_000);
    assert.equal(after.engine.read("a", LONG, top!, 9).isComplete, false);
  });

  it("recovers for the ttl from the position at the last unsubscribe", async () => {
    for (const idle of [3 * LONG.ttl, LONG.ttl - 1_000]) {
      const clock = new TestClock();
      const { engine } = await start(openSqlite(), clock);
      const position = engine.subscribe("a", LONG)!;
      clock.advance(idle);
      engine.unsubscribe("a");
      clock.advance(LONG.ttl - 1);
      assert.deepEqual(engine.read("a", LONG, position, 9), { position, publications: [], isComplete: true });
      clock.advance(20_000);
      assert.notEqual(engine.read("a", LONG, null, 9).position.epoch, position.epoch);
    }
  });

  it("keeps the subscriptions of clients that return in the turn of the start", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    const { engine: { keeper } } = await start(sql, clock);
    for (const name of ["b", "a", "c", "d"]) keeper.save("one", name, name);
    keeper.save("one", "b", "other");
    keeper.delete("one", "c");
    keeper.save("two", "b", "two's");
    keeper.save("three", "b", "three's");
    keeper.delete("three");
    const loaded: string[][] = [];
    const { engine } = await start(sql, clock, ({ keeper }) => {
      for (const uid of ["one", "three"]) loaded.push(keeper.load(uid));
    });
    assert.deepEqual(loaded, [["other", "a", "d"], []]);
    assert.deepEqual([engine.keeper.load("one"), engine.keeper.load("two")], [["other", "a", "d"], []]);
  });

  it("keeps the tables of different prefixes separate, whatever their names", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    const engines = [];
    for (const prefix of ["a", 'a"; DROP TABLE "a_channels', "a b"]) {
      engines.push((await start(sql, clock, undefined, { prefix })).engine);
    }
    for (const [number, engine] of engines.entries()) {
      await publish(engine, "room", LONG, number + 1);
      engine.join("room", { user: `${number}` });
    }
    assert.deepEqual(
      engines.map((engine) => [engine.read("room", LONG, null, 9).position.offset, engine.members("room")]),
      range(3).map((number) => [number + 1, [{ user: `${number}` }]]),
    );
  });

  it("deletes the least recently used histories beyond maxHistoryBytes, and never recovers across the deletion", async () => {
    const { engine } = await start(openSqlite(), new TestClock(), undefined, { maxHistoryBytes: 40_000 });
    const data = JSON.stringify("x".repeat(4_000)); // Some 8 kB each.
    engine.subscribe("a", LONG);
    const [first] = await publish(engine, "a", LONG, 1);
    for (const channel of ["a", "b", "c", "d", "e", "f"]) {
      await engine.publish(channel, { event: "say", data }, LONG);
    }
    assert.ok(engine.historyBytes <= 40_000);
    const kept = ["a", "b", "c", "d", "e", "f"].map((channel) => engine.read(channel, LONG, null, 9).publications.length);
    assert.deepEqual([kept[0], kept[5]], [0, 1]);
    // Subscribers continue in the same epoch.
    const page = engine.read("a", LONG, first!, 9);
    assert.deepEqual([page.isComplete, page.position], [false, { epoch: first!.epoch, offset: 2 }]);
  });

  it("deletes the oldest publications of a single channel beyond maxHistoryBytes", async () => {
    const { engine } = await start(openSqlite(), new TestClock(), undefined, { maxHistoryBytes: 40_000 });
    const data = JSON.stringify("x".repeat(4_000));
    for (const _ of range(20)) {
      await engine.publish("a", { event: "say", data }, LONG);
    }
    assert.ok(engine.historyBytes <= 40_000);
    const page = engine.read("a", LONG, null, 100);
    assert.deepEqual([page.position.offset, page.publications.length], [20, 4]);
  });

  it("stores nothing of a publication that the database refuses", async () => {
    const sql = openSqlite();
    const { engine, host } = await start(
      {
        exec(query, ...bindings) {
          if (bindings.includes('"too big"')) {
            throw new RangeError("string or blob too big");
          }
          return sql.exec(query, ...bindings);
        },
      },
      new TestClock(),
      (engine) => void engine.subscribe("a", LONG),
    );
    assert.throws(() => engine.publish("a", { event: "say", data: '"too big"' }, LONG), RangeError);
    const [first] = await publish(engine, "a", LONG, 1);
    assert.deepEqual([first!.offset, host.data("a")], [1, [0]]);
  });

  it("removes members and keeps histories when it is closed", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    const { engine } = await start(sql, clock);
    engine.join("a", { user: "ann" });
    const [top] = await publish(engine, "a", LONG, 1);
    engine.close();
    assert.equal(clock.timers, 0);
    const after = await start(sql, clock);
    assert.deepEqual(after.engine.members("a"), []);
    assert.deepEqual(after.engine.read("a", LONG, null, 9).position, top);
  });

  describe("with an older copy of its database file", () => {
    const folder = mkdtempSync(join(tmpdir(), "noroshi-sqlite-"));
    after(() => rmSync(folder, { recursive: true }));

    for (const [name, history] of Object.entries({ "all kept": LONG, "few kept": { size: 3, ttl: LONG.ttl } })) {
      it(`refuses positions that the copy lacks, whatever is published later: ${name}`, async () => {
        const [path, copy, clock] = [join(folder, name), join(folder, `${name} copy`), new TestClock()];
        const write = async (count: number, first: number) => {
          const sql = openSqlite(path);
          const { engine } = await start(sql, clock);
          const positions = await publish(engine, "a", history, count, first);
          sql.close();
          return positions;
        };
        const kept = await write(5, 0);
        copyFileSync(path, copy);
        const lost = [...await write(3, 5), ...await write(2, 8)];
        copyFileSync(copy, path);
        const { engine } = await start(openSqlite(path), clock);
        assert.deepEqual(engine.read("a", history, null, 0).position, kept.at(-1));
        for (const count of [0, 1, 4, 20]) {
          await publish(engine, "a", history, count, 100);
          for (const position of lost) {
            const page = engine.read("a", history, position, 100);
            assert.deepEqual([page.isComplete, page.publications], [false, []], `${count} published`);
          }
        }
        // A new subscription continues from the copy's position.
        const top = engine.subscribe("a", history)!;
        await publish(engine, "a", history, 2, 200);
        assert.deepEqual(engine.read("a", history, top, 9).publications.map(({ data }) => data), ["200", "201"]);
      });
    }
  });

  it("reads tables of the previous version, which counted offsets from 1", async () => {
    const [sql, clock] = [openSqlite(), new TestClock()];
    sql.exec(`CREATE TABLE "noroshi_channels"
      (channel TEXT PRIMARY KEY, epoch TEXT, top INTEGER, bytes INTEGER, until INTEGER, ttl INTEGER) WITHOUT ROWID`);
    sql.exec(`CREATE TABLE "noroshi_publications"
      (channel TEXT, top INTEGER, event TEXT, data TEXT, bytes INTEGER, until INTEGER, PRIMARY KEY (channel, top)) WITHOUT ROWID`);
    const until = clock.now() + LONG.ttl;
    sql.exec(`INSERT INTO "noroshi_channels" VALUES ('a', 'e', 7, 800, ?, ?)`, until, LONG.ttl);
    for (const top of [5, 6, 7]) {
      sql.exec(`INSERT INTO "noroshi_publications" VALUES ('a', ?, 'say', ?, 200, ?)`, top, `${top}`, until);
    }
    // The first start fails half-way.
    for (const fails of [/UPDATE .* SET place/, /UPDATE .* SET previous/, /ADD COLUMN run/]) {
      const half = failing(sql);
      half.storage.fails = fails;
      await assert.rejects(start(half.sql, clock), /The storage fails/);
    }
    for (const _ of range(2)) {
      const { engine } = await start(sql, clock);
      const data = (offset: number) => engine.read("a", LONG, { epoch: "e", offset }, 9).publications.map(({ data }) => data);
      assert.deepEqual([data(4), data(6), data(7), data(3)], [["5", "6", "7"], ["7"], [], []]);
      assert.equal(engine.read("a", LONG, { epoch: "e", offset: 3 }, 9).isComplete, false);
    }
  });

  it("reads and writes a bounded number of rows in a call, however many channels there are", async () => {
    const sql = openSqlite();
    let rows = 0;
    const queries = new Set<string>();
    const counted: Sql = {
      exec(query, ...bindings) {
        const answer = [...sql.exec(query, ...bindings)];
        rows += answer.length + 1;
        queries.add(query);
        return answer;
      },
    };
    const { engine } = await start(counted, new TestClock(), undefined, { maxHistoryBytes: 600_000 });
    queries.clear();
    const most: Record<string, number> = {};
    const count = async (name: string, call: () => unknown) => {
      rows = 0;
      await call();
      most[name] = Math.max(most[name] ?? 0, rows);
    };
    for (const number of range(5_000)) {
      if (number % 3 === 0) {
        await count("subscribe", () => engine.subscribe(`${number}`, LONG));
      }
      await count(
        "publish",
        () => engine.publish(`${number}`, { event: "say", data: "1" }, LONG),
      );
      await count(
        "publish",
        () => engine.publish(`${number % 7}`, { event: "say", data: "1" }, LONG),
      );
      await count("read", () => engine.read(`${number}`, LONG, null, 10));
    }
    // A call checks up to a hundred channels, and empties each with two statements.
    for (const [name, number] of Object.entries(most)) {
      assert.ok(number < 500, `${name}: ${number} rows`);
    }
    assert.ok(
      engine.historyBytes <= 600_000 + 200 * 1_667,
      `${engine.historyBytes} bytes`,
    );
    // SQLite does not scan a table to find these rows either.
    for (const query of queries) {
      const plan = [...sql.exec(`EXPLAIN QUERY PLAN ${query}`, ...[...query.matchAll(/\?/g)].map(() => 1))];
      const details = plan.map((step) => (step as { detail: string }).detail).join("; "); // As SQLite documents it.
      assert.doesNotMatch(details, /SCAN(?! CONSTANT)|TEMP B-TREE/, query);
    }
  });

  it("throws for a limit out of range", () => {
    for (const maxHistoryBytes of [0, -1, 1.5, NaN]) {
      assert.throws(() => new SqliteEngine(openSqlite(), { maxHistoryBytes }), TypeError);
    }
  });
});
