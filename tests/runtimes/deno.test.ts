import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { heldBack } from "./behaviours/authentication.ts";
import { leavesNothing } from "./behaviours/upgrading.ts";
import { conformance, type Difference } from "./conformance.ts";
import { NATIVE_DENO, startServer } from "./server.ts";
import { frame, frames, Wire } from "./wire.ts";

/** Deno sends the 101 in place of each response, and the client is closed before it is connected. */
function closesAtOnce(answers: Record<string, number>): Difference {
  return {
    because: "Deno.serve stops listening for good at any answer but a 101 to a request that it has upgraded",
    async instead(server) {
      for (const [how, status] of Object.entries(answers)) {
        const wire = await Wire.open(server.port, `/after/${how}/public`);
        assert.deepEqual(await wire.closed, { code: 1011, reason: `Answered ${status}` });
        const [{ error }] = await server.control("public", "wait", { event: "error" });
        assert.match(error, new RegExp(`Cannot answer ${status} after the upgrade`));
        await leavesNothing(server, "public");
        await server.control("all", "fresh");
      }
      await Wire.open(server.port, "/public");
    },
  };
}

conformance("Deno", () => startServer("deno"), { differences: heldBack });

conformance("Deno.serve", () => startServer("deno", NATIVE_DENO), {
  differences: {
    "abandons the upgrade when middleware throws after next()": closesAtOnce({ throw: 500 }),
    "abandons the upgrade when middleware replaces the response after next()": closesAtOnce({
      replace: 503,
      merge: 200,
      empty: 204,
    }),
    "passes a POST that offers HTTP/2 to its route, with its body": {
      because: "Deno answers 400 to a request with both an Upgrade header and a body, before the application sees it",
      async instead({ port }) {
        const { answer } = await Wire.request(port, "/posted", {
          method: "POST",
          headers: { Upgrade: "h2c", "Content-Length": "6" },
          follow: Buffer.from("a body"),
        });
        assert.equal(answer.status, 400);
      },
    },
    "a client that reads stays connected and misses nothing when one turn exceeds the buffer limit": {
      because: "Deno writes once the turn is over, so that all of it waits until then",
      async instead(server) {
        const wire = await Wire.open(server.port, "/bounded");
        await wire.ask({ type: "ping" });
        const news = Array.from({ length: 20 }, (_, n) => ({ type: "news", n, text: "x".repeat(10_000) }));
        await server.control("bounded", "turn", { steps: news.map((send) => ({ send })) });
        for (let n = 0; n < 7; n++) assert.equal((await wire.next()).n, n);
        assert.equal((await wire.closed).code, 4508);
      },
    },
    "a client that goes on after a hundred refusals is closed with 4529": {
      because: "Deno ends the connection without a close frame when messages still come in after close()",
      async instead(server) {
        const wire = await Wire.open(server.port, "/limited");
        wire.write(frames(...Array.from({ length: 200 }, (_, uid) => ({ type: "ping", uid }))));
        assert.equal((await wire.closed).code, 1006);
        const [{ code, cause }] = await server.control("limited", "wait", { event: "close" });
        assert.deepEqual({ code, cause }, { code: 4529, cause: "rate" });
        await Wire.open(server.port, "/public");
      },
    },
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

describe("A fragmented message that never ends, from a client that has not authenticated", () => {
  const FRAGMENT = "x".repeat(16_384);
  /** Fragments of 1 MiB in total: sixteen times maxPayload. */
  const MAX_FRAGMENTS = 64;

  /** Writes fragments until the server closes; resolves with their number and the close code. */
  async function flood(file?: string) {
    const server = await startServer("deno", file);
    try {
      const wire = await Wire.open(server.port, "/handshake");
      let isOver = false;
      void wire.closed.then(() => isOver = true);
      let written = 0;
      for (; written < MAX_FRAGMENTS && !isOver; written++) {
        // The ping is answered once the server has read the fragment.
        wire.write(Buffer.concat([frame(written === 0 ? 1 : 0, FRAGMENT, { fin: false }), frame(9, "")]));
        await Promise.race([wire.ponged(written + 1), wire.closed]);
      }
      return { written, code: isOver ? (await wire.closed).code : null, stats: await server.control("handshake", "stats") };
    } finally {
      await server.stop();
    }
  }

  it("is closed at maxPayload with 1009 behind noroshi/serve", async () => {
    const { written, code, stats } = await flood();
    assert.equal(code, 1009);
    assert.ok(written < 16, `${written} fragments were taken`);
    assert.equal(stats.clients, 0);
  });

  it("is buffered completely by Deno.serve", async () => {
    assert.deepEqual(await flood(NATIVE_DENO).then(({ written, code }) => ({ written, code })), {
      written: MAX_FRAGMENTS,
      code: null,
    });
  });
});
