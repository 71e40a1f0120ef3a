/** The stub of a Durable Object with the types of its contract: tests/types/stub.ts tests the types. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import * as v from "valibot";
import { defineContract } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { createWebSocketObject, typeStub, type WebSocketObjectState } from "../../src/serve/cloudflare.ts";

/** An object without SQLite storage and without sockets. */
const state = {
  storage: { setAlarm: () => Promise.resolve() },
  getWebSockets: () => [],
  setWebSocketAutoResponse: () => {},
} as unknown as WebSocketObjectState; // It has the used members.

// A global of workerd that the object constructs.
(globalThis as { WebSocketRequestResponsePair?: unknown }).WebSocketRequestResponsePair ??= class {};

describe("typeStub", () => {
  const contract = defineContract({ channels: { "room:{id}": { events: { said: v.object({ at: v.date() }) } } } });

  it("returns the stub itself, whose object checks the names that the types do not", async () => {
    const controller = new WebSocketController({ contract, logger: false });
    const channels = new Channels(controller, { "room:{id}": { authorize: () => true, history: { size: 1, ttl: 60_000 } } });
    const object = new (createWebSocketObject(() => ({ app: new Hono(), controller, channels })))(state, {});
    const stub = typeStub(contract, object);
    assert.ok(Object.is(stub, object));
    await stub.publish("room:1", "said", { at: new Date(0) });
    const { publications: [publication] } = await stub.history("room:1");
    const at: string | undefined = publication?.data.at;
    assert.equal(at, "1970-01-01T00:00:00.000Z");
    // @ts-expect-error -- a parameter takes no ":"
    await assert.rejects(stub.publish("room:1:2", "said", { at: new Date(0) }), TypeError);
    await assert.rejects(object.publish("room:1:2", "said", { at: new Date(0) }), TypeError); // Allowed by the stub's own types.
    await controller.close();
  });
});
