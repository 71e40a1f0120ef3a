import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { startServer } from "./server.ts";
import { Wire } from "./wire.ts";

for (const runtime of ["bun", "deno", "node"] as const) {
  describe(`serve on ${runtime}`, () => {
    it("closes clients with 1001 and exits with 0 when told to terminate", { timeout: 20_000 }, async () => {
      const server = await startServer(runtime);
      const admitted = await Wire.open(server.port, "/public");
      const pending = await Wire.open(server.port, "/handshake");
      const stopped = server.stop();
      assert.deepEqual(await admitted.closed, { code: 1001, reason: "Going away" });
      assert.deepEqual(await pending.closed, { code: 1001, reason: "Going away" });
      assert.equal(await stopped, 0);
    });

    it("exits with 0 though a client never answers the close handshake", { timeout: 20_000 }, async () => {
      const server = await startServer(runtime);
      const wire = await Wire.open(server.port, "/public");
      wire.answersClose = false;
      assert.equal(await server.stop(), 0);
      wire.reset();
    });
  });
}
