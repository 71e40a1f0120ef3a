/** What upgrades that end without a WebSocket leave behind, behind `noroshi/serve` on Node and on Deno. */
import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { OPENING, requestOf, Stubborn } from "../support/node-server.ts";
import { startServer, type TestServer } from "./server.ts";
import { Wire } from "./wire.ts";

/** Resolves when no place is taken. The clock of the fixture stands still, so no deadline gives one back. */
async function untilEmpty(server: TestServer): Promise<void> {
  while ((await server.control("public", "stats")).reserved > 0);
}

for (const runtime of ["node", "deno"] as const) {
  describe(`serve on ${runtime}`, () => {
    afterEach(() => Wire.resetAll());

    it("is reachable while refused clients keep their sides open, with 200 file descriptors", { timeout: 300_000 }, async () => {
      const server = await startServer(runtime, undefined, 200);
      const clients = Array.from({ length: 300 }, () => new Stubborn(server.port, requestOf("GET", "/guarded/public", OPENING)));
      // Out of descriptors a server drops the next ones unanswered. Each try below is a connection of its own, and its end is waited for.
      for (const client of clients.slice(0, 60)) assert.match(await client.until(/HTTP/), /^HTTP\/1.1 403 /);
      for (let status = 0; status !== 101;) {
        const wire = Wire.begin(server.port, "/public");
        await wire.answered;
        status = wire.answer.status;
      }
      for (const client of clients) client.reset();
      assert.equal(await server.stop(), 0);
    });

    it("has every place back when clients leave during the upgrade", { timeout: 300_000 }, async () => {
      const server = await startServer(runtime);
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
