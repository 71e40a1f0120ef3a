import { upgradeWebSocket, websocket } from "hono/bun";
import { createApp } from "./hono-app.ts";

// Only Bun runs this.
const { Bun } = globalThis as unknown as { Bun: { serve(options: object): { port: number } } };

const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: createApp(upgradeWebSocket).fetch, websocket });
console.log(`PORT ${server.port}`);
