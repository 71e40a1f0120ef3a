/** Tables with rows as the previous version wrote them: a deployment finds them in each object. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { SqliteEngine } from "../../src/engines/sqlite-engine.ts";
import { Schedules } from "../../src/serve/schedules.ts";
import { TestClock } from "../support/test-clock.ts";
import { noSqlite, openSqlite } from "./sqlite.ts";
import { TestHost } from "./test-host.ts";

const HISTORY = { size: 3, ttl: 300_000 };

describe("The tables of 0.1.0", { skip: noSqlite }, () => {
  it("keep their histories, ids, answers, members and subscriptions, and get the tables of schedules", async () => {
    const sql = openSqlite();
    const tables = readFileSync(new URL("tables-0.1.0.sql", import.meta.url), "utf8");
    for (const statement of tables.split(/;\n/).filter(Boolean)) for (const _ of sql.exec(statement));

    const [clock, epoch] = [new TestClock(), "node-1.1"];
    const engine = new SqliteEngine(sql, { prefix: "noroshi_main" });
    engine.start(new TestHost(clock));
    // Its client returns from hibernation.
    assert.deepEqual(engine.keeper.load("client-1"), ['{"channel":"room:1"}']);
    engine.join("room:1", { user: "ann", data: '{"name":"Ann"}' });
    await Promise.resolve();

    assert.deepEqual(engine.subscribe("room:1", HISTORY), { epoch, offset: 4 });
    assert.deepEqual(engine.read("room:1", HISTORY, { epoch, offset: 2 }, 10), {
      position: { epoch, offset: 4 },
      publications: [3, 4].map((offset) => ({
        event: "said",
        data: `{"text":"It's ${offset}"}`,
        position: { epoch, offset },
      })),
      isComplete: true,
    });
    assert.equal(engine.historyBytes, 926);
    const publish = (id: string) =>
      engine.publish("room:1", { event: "said", data: "5" }, HISTORY, { id: JSON.stringify([id]), window: 300_000 });
    assert.deepEqual(publish("id 3"), { epoch, offset: 3 });
    assert.deepEqual(publish("id 5"), { epoch, offset: 5 });
    assert.equal(engine.answers.claim("request-1", "another", 300_000), '{"data":1}');
    assert.deepEqual(engine.members("room:1"), [{ user: "ann", data: '{"name":"Ann"}' }]);

    const schedules = new Schedules({ note: () => {} });
    schedules.start({ sql, clock, report: (error) => assert.fail(String(error)) });
    const id = await schedules.schedule(1_000, "note");
    assert.equal(await schedules.cancel(id), true);
    clock.advance(600_000);
    assert.equal(engine.read("room:1", HISTORY, null, 10).publications.length, 0);
  });
});
