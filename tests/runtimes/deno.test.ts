import assert from "node:assert/strict";
import { conformance } from "./conformance.ts";
import { startServer } from "./server.ts";
import { frame, Wire } from "./wire.ts";

conformance("Deno", () => startServer("deno"), {
  differences: {
    "closes with 1007 on a text frame that is not UTF-8": {
      because: "Deno ends the connection without a close frame",
      async instead(server) {
        const wire = await Wire.open(server.port, "/public");
        wire.write(frame(1, Buffer.from([0x22, 0xff, 0x22])));
        assert.equal((await wire.closed).code, 1006);
        const [{ code }] = await server.control("public", "wait", { event: "close" });
        assert.equal(code, 1006);
        await Wire.open(server.port, "/public");
      },
    },
  },
});
