/** The body of a request that the upgrade route refuses, behind a real server. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { describe, it } from "node:test";
import { Hono } from "hono";
import { WebSocketController } from "../../mod.ts";
import { serve } from "../../src/serve/serve.ts";
import { sendEndlessBody } from "../support/endless-body.ts";

const HANDSHAKE = "Upgrade: websocket\r\nConnection: Upgrade\r\n";

describe("A refused upgrade", () => {
  it("ends the connection of a client that goes on sending its body, and of no other", async () => {
    const controller = new WebSocketController({ mode: "public", heartbeat: false, logger: false });
    const app = new Hono().all("/websocket", controller.upgrade);
    const server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false, handleSignals: false });
    for (
      const [method, headers, status] of [
        ["POST", "", 426],
        // Hono's Node adapter, also on Deno, ends no GET: Node ends it as a request that takes too long.
        ...("Bun" in globalThis ? [["GET", "", 426] as const] : []),
        ["GET", HANDSHAKE, 413],
      ] as const
    ) {
      const answer = await sendEndlessBody(server.port, `${method} /websocket HTTP/1.1\r\nHost: localhost\r\n${headers}`);
      assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), `${method} ${headers}`);
    }
    const kept = connect(server.port, "127.0.0.1");
    let answers = "";
    for (let count = 1; count <= 2; count++) {
      kept.write("GET /websocket HTTP/1.1\r\nHost: localhost\r\n\r\n");
      while (answers.split("This is a WebSocket route").length <= count) answers += (await once(kept, "data"))[0];
    }
    kept.destroy();
    await server.close();
    await controller.close();
  });
});
