import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { describe, it } from "node:test";
import pg from "pg";
import { postgresEngine } from "../../src/engines/postgres/postgres.ts";
import { TestHost } from "./test-host.ts";

describe("A server that accepts connections and stays silent", () => {
  it("is left without connections when an attempt times out or the engine closes", { timeout: 300_000 }, async () => {
    const sockets: Socket[] = [];
    const server = createServer((socket) => {
      sockets.push(socket.resume());
      socket.on("error", () => {});
      server.emit("accepted");
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo; // Of TCP.
    const client = new pg.Pool({ host: "127.0.0.1", port, user: "noroshi" });
    const engine = postgresEngine({ client, timeout: 200 });
    engine.start(new TestHost());
    while (sockets.length < 2) await once(server, "accepted");
    await Promise.all(sockets.slice(0, 2).map((socket) => socket.closed || once(socket, "close")));
    while (sockets.length < 4) await once(server, "accepted");
    await engine.close();
    // Once all connections have ended.
    await new Promise((resolve) => server.close(resolve));
    assert.ok(sockets.every((socket) => socket.closed));
    await client.end();
  });
});
