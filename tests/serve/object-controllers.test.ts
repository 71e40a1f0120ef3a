/** The controllers of a Durable Object: each has its own tables in the object's storage. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import { WebSocketController } from "../../src/controller/controller.ts";
import { noSqlite, openSqlite } from "../engines/sqlite.ts";
import { createWebSocketObject, type WebSocketObjectState } from "../../src/serve/cloudflare.ts";

/** An object without SQLite storage and without sockets. */
const state = {
  storage: {},
  getWebSockets: () => [],
  setWebSocketAutoResponse: () => {},
} as unknown as WebSocketObjectState; // It has the used members.

// A global of workerd that the object constructs.
(globalThis as { WebSocketRequestResponsePair?: unknown }).WebSocketRequestResponsePair ??= class {};

function build(...names: string[]) {
  return buildOn(state, ...names);
}

function buildOn(state: WebSocketObjectState, ...names: string[]) {
  const controller = names.map((name) => new WebSocketController({ name, logger: false }));
  return new (createWebSocketObject(() => ({ app: new Hono(), controller })))(state, {});
}

describe("createWebSocketObject", () => {
  it("accepts several controllers with different names", () => {
    build("admin", "guest");
    build("admin", "admin2", "ädmin", "Ädmin");
  });

  it("refuses an alarm() in a class without SQLite storage, where it would never be called", () => {
    const Base = createWebSocketObject(() => ({ app: new Hono(), controller: new WebSocketController({ logger: false }) }));
    class Alarmed extends Base {
      override alarm(): void {}
    }
    assert.throws(() => new Alarmed(state, {}), { name: "TypeError", message: /an alarm\(\) of its own needs SQLite storage/ });
    new (class extends Base {})(state, {});
  });

  it("protects its own alarm from a class without alarm()", { skip: noSqlite }, async () => {
    const deleted: string[] = [];
    const storage = {
      sql: openSqlite(),
      setAlarm: () => Promise.resolve(),
      deleteAlarm: () => Promise.resolve(void deleted.push("the object's alarm")),
    };
    buildOn({ ...state, storage }, "main");
    await storage.deleteAlarm();
    assert.deepEqual(deleted, []);
    await assert.rejects(storage.setAlarm(), { name: "TypeError", message: /the class has no alarm\(\)/ });
  });

  it("rejects calls of channels and schedules when its build function has not returned them", async () => {
    const object =
      new (createWebSocketObject(() => ({ app: new Hono(), controller: new WebSocketController({ logger: false }) })))(
        state,
        {},
      );
    await assert.rejects(object.publish("room", "say", 1), { name: "TypeError", message: /has no channels, return them too/ });
    await assert.rejects(object.presence("room"), { name: "TypeError", message: /has no channels/ });
    await assert.rejects(object.history("room"), { name: "TypeError", message: /has no channels/ });
    await assert.rejects(object.schedule(0, "call"), { name: "TypeError", message: /has no schedules, return them too/ });
    await assert.rejects(object.schedules(), { name: "TypeError", message: /has no schedules/ });
    assert.equal((await object.stats()).channels, undefined);
  });

  it("refuses names that differ only in case, because SQLite would use the same tables", () => {
    for (const names of [["main", "main"], ["admin", "Admin"], ["guest", "admin", "ADMIN"]]) {
      assert.throws(() => build(...names), {
        name: "TypeError",
        message:
          "Cannot build the object: pass a controller, or several that differ in their option `name` by more than its case",
      });
    }
  });
});
