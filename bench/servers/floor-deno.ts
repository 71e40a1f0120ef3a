/** The least that a WebSocket route of Hono costs on Deno: it reads the token and the origin, and upgrades by Deno's own means. */
import { Hono } from "hono";

// Only Deno runs this; the cast is for checking it where Deno's types are not installed.
const { Deno } = globalThis as unknown as {
  Deno: {
    serve(options: object, handler: (request: Request) => unknown): void;
    upgradeWebSocket(request: Request): { socket: WebSocket; response: Response };
  };
};

const app = new Hono();
app.get("/websocket", (c) => {
  const facts = { token: c.req.query("access_token"), origin: c.req.header("origin") }; // Before: Deno reads no header after it.
  const { socket, response } = Deno.upgradeWebSocket(c.req.raw);
  Object.assign(socket, { facts });
  socket.onmessage = () => {};
  return response;
});

Deno.serve(
  { port: 0, hostname: "127.0.0.1", onListen: ({ port }: { port: number }) => console.log(`PORT ${port}`) },
  app.fetch,
);
