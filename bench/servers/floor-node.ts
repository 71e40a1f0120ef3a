/**
 * The least that a WebSocket route of Hono costs over `node:http`: it reads the token and the origin, and upgrades with ws. The request
 * comes through `@hono/node-server`, whose Request is the cheapest there is on Node. Its response is written by nobody.
 */
import { getRequestListener } from "@hono/node-server";
import { Hono } from "hono";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { WebSocketServer } from "ws";

const wss = new WebSocketServer({ noServer: true, perMessageDeflate: false, clientTracking: false });

/** In place of the response of `node:http`: ws writes the 101. */
class Unwritten {
  readonly head: Buffer;

  constructor(head: Buffer) {
    this.head = head;
  }

  on(): void {}
  writeHead(): void {}
  end(): void {}
}

const app = new Hono<{ Bindings: { incoming: IncomingMessage; outgoing: Unwritten } }>();
app.get("/websocket", (c) => {
  const { incoming, outgoing: { head } } = c.env;
  const facts = { token: c.req.query("access_token"), origin: c.req.header("origin") };
  wss.handleUpgrade(incoming, incoming.socket, head, (ws) => {
    Object.assign(ws, { facts });
    ws.on("message", () => {});
    ws.on("error", () => {});
  });
  return new Response(null);
});

const listener = getRequestListener(app.fetch);
const server = createServer();
server.on("upgrade", (incoming, _socket, head: Buffer) => {
  void listener(incoming, new Unwritten(head) as unknown as ServerResponse); // The adapter calls nothing else.
});
server.listen(0, "127.0.0.1", () => console.log(`PORT ${(server.address() as AddressInfo).port}`));
