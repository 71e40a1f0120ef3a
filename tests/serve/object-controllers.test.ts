/** The controllers of a Durable Object: each has its own tables in the object's storage. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import { WebSocketController } from "../../src/controller/controller.ts";
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
  const controller = names.map((name) => new WebSocketController({ name, logger: false }));
  return new (createWebSocketObject(() => ({ app: new Hono(), controller })))(state, {});
}

describe("createWebSocketObject", () => {
  it("accepts several controllers with different names", () => {
    build("admin", "guest");
    build("admin", "admin2", "ädmin", "Ädmin");
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
