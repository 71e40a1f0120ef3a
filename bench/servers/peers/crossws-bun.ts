import crossws from "crossws/adapters/bun";
import { hooks, sync } from "./crossws-hooks.ts";

// Only Bun runs this.
const { Bun } = globalThis as unknown as { Bun: { serve(options: object): { port: number } } };

const adapter = crossws({ hooks, ...await sync() });
const server = Bun.serve({ port: 0, hostname: "127.0.0.1", websocket: adapter.websocket, fetch: adapter.handleUpgrade });
console.log(`PORT ${server.port}`);
