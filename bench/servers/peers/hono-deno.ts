import { upgradeWebSocket } from "hono/deno";
import { createApp } from "./hono-app.ts";

Deno.serve(
  { port: 0, hostname: "127.0.0.1", onListen: ({ port }) => console.log(`PORT ${port}`) },
  createApp(upgradeWebSocket).fetch,
);
