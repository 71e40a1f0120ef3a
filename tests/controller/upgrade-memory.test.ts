/** Memory that `src/controller/upgrade.ts` keeps per request: the facts, not the headers they were cut from. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createRoute } from "../support/fake-runtime.ts";
import { heapUsed } from "../support/heap.ts";

const CONNECTIONS = 400;

/** Maximum bytes per connection, with its fake socket and its facts. A retained header takes 14 kB more. */
const MAX_BYTES = 6_000;

describe("controller.upgrade", () => {
  it("keeps the needed part of a long header, and releases the header", { timeout: 300_000 }, async () => {
    const { controller, request } = createRoute({ clientIp: 1, maxPending: CONNECTIONS * 2 });
    const connect = async (count: number) => {
      for (let n = 0; n < count; n++) {
        const long = `${n} `.repeat(14_000 / `${n} `.length);
        const { status } = await request(`/websocket?n=${n}`, {
          "user-agent": long,
          "x-forwarded-for": `${long.replaceAll(" ", ",")}2001:db8:${n % 9999}:7::1`,
          origin: "http://localhost",
          "sec-websocket-protocol": `noroshi.v1, ${"x".repeat(8_000)}${n}`,
        });
        assert.equal(status, 200);
      }
    };
    await connect(50);
    const before = await heapUsed();
    await connect(CONNECTIONS);
    const bytes = (await heapUsed() - before) / CONNECTIONS;
    assert.equal(controller.clients().size, CONNECTIONS + 50);
    assert.ok(bytes < MAX_BYTES, `${Math.round(bytes)} bytes a connection`);
  });
});
