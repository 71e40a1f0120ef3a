import { serve, upgradeWebSocket } from "@hono/node-server";
import { WebSocketServer } from "ws";
import { createApp } from "./hono-app.ts";

serve({
  fetch: createApp(upgradeWebSocket).fetch,
  port: 0,
  hostname: "127.0.0.1",
  websocket: { server: new WebSocketServer({ noServer: true }) },
}, ({ port }) => console.log(`PORT ${port}`));
