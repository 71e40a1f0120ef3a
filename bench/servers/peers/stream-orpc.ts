/** An event iterator of oRPC over its WebSocket adapters. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { os } from "@orpc/server";
import { WebSocketServer } from "ws";
import { paced } from "../stream-source.ts";

const router = { paced: os.handler(paced) };

// Only Bun and Deno have theirs; the cast is for checking it elsewhere.
const { Bun, Deno } = globalThis as unknown as {
  Bun?: { serve(options: object): { port: number } };
  Deno?: {
    serve(options: object, handler: (request: Request) => Response): void;
    upgradeWebSocket(request: Request): { socket: WebSocket; response: Response };
  };
};

if (Bun) {
  const { RPCHandler } = await import("@orpc/server/bun-ws");
  const handler = new RPCHandler(router);
  type Socket = Parameters<typeof handler.message>[0];
  const { port } = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request: Request, server: { upgrade(request: Request): boolean }) =>
      server.upgrade(request) ? undefined : new Response(null, { status: 400 }),
    websocket: {
      message: (ws: Socket, message: string) => handler.message(ws, message),
      close: (ws: Socket) => handler.close(ws),
    },
  });
  console.log(`PORT ${port}`);
} else if (Deno) {
  const { RPCHandler } = await import("@orpc/server/websocket");
  const handler = new RPCHandler(router);
  Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: ({ port }: { port: number }) => console.log(`PORT ${port}`) }, (request) => {
    const { socket, response } = Deno.upgradeWebSocket(request);
    handler.upgrade(socket);
    return response;
  });
} else {
  const { RPCHandler } = await import("@orpc/server/ws");
  const handler = new RPCHandler(router);
  const server = createServer();
  const wss = new WebSocketServer({ server, perMessageDeflate: false });
  wss.on("connection", (ws) => void handler.upgrade(ws));
  server.listen(0, "127.0.0.1", () => console.log(`PORT ${(server.address() as AddressInfo).port}`));
}
