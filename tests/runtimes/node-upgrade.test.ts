/** Resources after upgrades that end without a WebSocket, behind `noroshi/serve` on Node and on Deno. */
import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { OPENING, requestOf, Stubborn } from "../support/node-server.ts";
import { until } from "../support/waiting.ts";
import { EXHAUSTED_SERVE, PATIENT_SERVE, startServer, type TestServer } from "./server.ts";
import { Wire } from "./wire.ts";

/** Resolves when no slot is reserved. The clock of the fixture stands still, so no deadline releases one. */
async function untilEmpty(server: TestServer): Promise<void> {
  let reserved = 0;
  await until(async () => (reserved = (await server.control("public", "stats")).reserved) === 0, () => ({ reserved }));
}

for (const runtime of ["node", "deno"] as const) {
  describe(`serve on ${runtime}`, () => {
    afterEach(() => Wire.resetAll());

    it("stays reachable with 200 descriptors while refused clients keep their sides open", { timeout: 300_000 }, async () => {
      const server = await startServer(runtime, PATIENT_SERVE, 200);
      const clients = Array.from({ length: 300 }, () => new Stubborn(server.port, requestOf("GET", "/guarded/public", OPENING)));
      // Without descriptors, a server drops connections unanswered. Each try below is a new connection.
      for (const client of clients.slice(0, 60)) assert.match(await client.until(/HTTP/), /^HTTP\/1.1 403 /);
      for (let status = 0; status !== 101;) {
        const wire = Wire.begin(server.port, "/public");
        await wire.answered;
        status = wire.answer.status;
      }
      for (const client of clients) client.reset();
      assert.equal(await server.stop(), 0);
    });

    it(
      "has loaded all that an upgrade needs when it listens, because clients may take every descriptor",
      { timeout: 300_000 },
      async () => {
        const server = await startServer(runtime, EXHAUSTED_SERVE, 200);
        await Wire.open(server.port, "/public");
        Wire.resetAll();
        await server.stop();
      },
    );

    it("releases every slot when clients leave during the upgrade", { timeout: 300_000 }, async () => {
      const server = await startServer(runtime, PATIENT_SERVE);
      for (const headers of [{}, { "Sec-WebSocket-Protocol": "a," }, { Upgrade: "websocket, foo" }]) {
        for (
          const leave of [(wire: Wire) => wire.reset(), (wire: Wire) => wire.socket.destroy(), (wire: Wire) => wire.socket.end()]
        ) {
          const wires = Array.from({ length: 60 }, () => Wire.begin(server.port, "/public", { headers }));
          for (const wire of wires) wire.socket.once("connect", () => setImmediate(() => leave(wire)));
          await Promise.all(wires.map((wire) => wire.closed));
          await untilEmpty(server);
        }
      }
      await Wire.open(server.port, "/public");
      assert.equal(await server.stop(), 0);
    });
  });
}
