import assert from "node:assert/strict";
import { staysConnected } from "./behaviours/upgrading.ts";
import { conformance, type Difference } from "./conformance.ts";
import { startServer } from "./server.ts";
import { Wire } from "./wire.ts";

/** Middleware answers otherwise after next(), or waits. */
function hasLeft(...ways: string[]): Difference {
  return {
    because: "Bun has sent the 101 by then",
    async instead(server) {
      for (const how of ways) {
        await staysConnected(server, `/after/${how}/public`);
        await server.control("all", "fresh");
      }
    },
  };
}

conformance("Bun", () => startServer("bun"), {
  differences: {
    "abandons the upgrade when middleware throws after next()": hasLeft("throw"),
    "abandons the upgrade when middleware replaces the response after next()": hasLeft("replace", "merge", "empty"),
    "connects a client once its 101 leaves, not while middleware waits after next()": hasLeft("stall"),
    "answers 4xx to an odd request target and keeps serving": {
      because: "Bun normalizes the target before the application receives it",
      async instead({ port }) {
        for (const target of ["http://[/public", "//[/public", "http://a:b:c/public"]) await Wire.request(port, target);
        await Wire.open(port, "/public");
      },
    },
    "puts headers that middleware sets after next() on the 101": {
      because: "Bun has sent the 101 by then",
      async instead({ port }) {
        const wire = await Wire.open(port, "/public");
        assert.equal(wire.answer.headers["x-after"], undefined);
        assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      },
    },
    "a peer that never answers the close handshake is gone after the close timeout": {
      because: "Bun ends the connection as soon as it has sent its close frame, so that nobody waits",
      async instead(server) {
        const wire = await Wire.open(server.port, "/public");
        wire.answersClose = false;
        wire.send({ type: "close", code: 4000, reason: "bye" });
        const [{ code, reason }] = await server.control("public", "wait", { event: "close" });
        assert.deepEqual({ code, reason }, { code: 4000, reason: "bye" });
        await wire.ended;
        await server.control("public", "quiet");
      },
    },
  },
});
