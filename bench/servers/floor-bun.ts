/** The least that a WebSocket route of Hono costs on Bun: it reads the token and the origin, and upgrades by Bun's own means. */
import { Hono } from "hono";

interface Server {
  readonly port: number;
  upgrade(request: Request, options: { data: { token: string | undefined; origin: string | undefined } }): boolean;
}
const { Bun } = globalThis as unknown as { Bun: { serve(options: object): Server } }; // Only Bun runs this.

const app = new Hono<{ Bindings: { server: Server } }>();
app.get("/websocket", (c) => {
  const data = { token: c.req.query("access_token"), origin: c.req.header("origin") };
  return new Response(null, { status: c.env.server.upgrade(c.req.raw, { data }) ? 200 : 426 });
});

const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch: (request: Request, server: Server) => app.fetch(request, { server }),
  websocket: { message() {} },
});
console.log(`PORT ${server.port}`);
