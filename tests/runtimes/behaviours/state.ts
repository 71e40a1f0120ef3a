import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import { Wire } from "../wire.ts";

/** What a client keeps for its whole life. */
export const state: Behaviour[] = [
  {
    title: "a client keeps uid, identity, handshake and state",
    hibernates: true,
    async run(server) {
      const wire = await Wire.open(server.port, "/strict?access_token=ann:editor:3600&keep=1", {
        headers: { "Sec-WebSocket-Protocol": "noroshi.v1" },
      });
      const kept = { cart: ["apple", { n: 1 }], note: "grüße" };
      await wire.ask({ type: "keep", state: kept });
      const before = (await wire.ask({ type: "who" })).data;
      assert.deepEqual(before.state, kept);
      assert.equal(typeof before.expires_at, "number");
      await server.pause();
      assert.deepEqual((await wire.ask({ type: "who" })).data, before);
      assert.equal((await server.control("strict", "clients"))[0].uid, before.uid);
      wire.reset();
    },
  },
  {
    title: "the state is there when the client closes",
    hibernates: true,
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      await wire.ask({ type: "keep", state: { draft: "unsent" } });
      await server.pause();
      await wire.close(1000);
      const [{ state }] = await server.control("public", "wait", { event: "close" });
      assert.deepEqual(state, { draft: "unsent" });
    },
  },
  {
    title: "a state of more than 8 KiB is refused and the old one stays",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      await wire.ask({ type: "keep", state: "x".repeat(8190) });
      assert.equal((await wire.ask({ type: "keep", state: "y".repeat(8191) })).error.code, "INTERNAL_ERROR");
      assert.equal((await wire.ask({ type: "keep", state: "語".repeat(2731) })).error.code, "INTERNAL_ERROR");
      assert.equal((await wire.ask({ type: "who" })).data.state, "x".repeat(8190));
      const [{ error }] = await server.control("public", "wait", { event: "error" });
      assert.match(error, /^TypeError: Cannot keep the state/);
      wire.reset();
    },
  },
  {
    title: "connect is emitted once for each client",
    hibernates: true,
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      await server.control("public", "wait", { event: "connect" });
      await server.pause();
      await wire.ask({ type: "ping" });
      const told = (await server.control("public", "log")).filter(({ event }: { event: string }) => event === "connect");
      assert.ok(told.length <= 1, "told again"); // The log is young where the object was evicted.
      wire.reset();
    },
  },
];
