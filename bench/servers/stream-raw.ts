/**
 * Streams by hand: the frames of the project. One flat out goes on as long as a quarter of a mebibyte waits at most; paced ones have no
 * backpressure.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { WebSocketServer } from "ws";
import { itemOf, paced } from "./stream-source.ts";

const MAX_BYTES = 262_144;

/** What is written in one turn of the event loop at most. */
const TURN_ITEMS = 1_000;

interface Socket {
  send(text: string): unknown;
}

/** @param request the message of the client. @param waiting bytes that the socket holds. @param isOpen whether it is. */
function stream(request: unknown, socket: Socket, waiting: () => number, isOpen: () => boolean): void {
  if (String(request).includes("paced")) return void pace(socket, isOpen);
  let seq = 0;
  const write = () => {
    for (let left = TURN_ITEMS; left > 0 && waiting() < MAX_BYTES; left--) {
      socket.send(JSON.stringify({ type: "flat", status: "next", uid: 1, data: itemOf(seq++) }));
    }
    if (isOpen()) setImmediate(write);
  };
  write();
}

async function pace(socket: Socket, isOpen: () => boolean): Promise<void> {
  for await (const data of paced()) {
    if (!isOpen()) return;
    socket.send(JSON.stringify({ type: "paced", status: "next", uid: 1, data }));
  }
}

// Only Bun and Deno have theirs; the casts are for checking it elsewhere.
interface BunSocket extends Socket {
  readonly readyState: number;
  getBufferedAmount(): number;
}
const { Bun, Deno } = globalThis as unknown as {
  Bun?: { serve(options: object): { port: number } };
  Deno?: {
    serve(options: object, handler: (request: Request) => Response): void;
    upgradeWebSocket(request: Request): { socket: WebSocket; response: Response };
  };
};

if (Bun) {
  const { port } = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request: Request, server: { upgrade(request: Request): boolean }) =>
      server.upgrade(request) ? undefined : new Response(null, { status: 400 }),
    websocket: {
      message: (ws: BunSocket, text: string) => stream(text, ws, () => ws.getBufferedAmount(), () => ws.readyState === 1),
    },
  });
  console.log(`PORT ${port}`);
} else if (Deno) {
  Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: ({ port }: { port: number }) => console.log(`PORT ${port}`) },
    (request) => {
      const { socket, response } = Deno.upgradeWebSocket(request);
      socket.onmessage = ({ data }) => stream(data, socket, () => socket.bufferedAmount, () => socket.readyState === 1);
      return response;
    },
  );
} else {
  const server = createServer();
  const wss = new WebSocketServer({ server, perMessageDeflate: false });
  wss.on("connection", (ws) => {
    ws.on("message", (text) => stream(text, ws, () => ws.bufferedAmount, () => ws.readyState === 1));
    ws.on("error", () => {}); // The close tells.
  });
  server.listen(0, "127.0.0.1", () => console.log(`PORT ${(server.address() as AddressInfo).port}`));
}
