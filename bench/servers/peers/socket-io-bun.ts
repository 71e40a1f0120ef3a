import { Server as Engine } from "@socket.io/bun-engine";
import { Server } from "socket.io";
import { adapter, answer } from "./socket-io-app.ts";

// Only Bun runs this.
const { Bun } = globalThis as unknown as { Bun: { serve(options: object): { port: number } } };

const io = new Server(await adapter());
const engine = new Engine({ path: "/socket.io/" });
io.bind(engine);
answer(io);
const server = Bun.serve({ ...engine.handler(), port: 0, hostname: "127.0.0.1" });
console.log(`PORT ${server.port}`);
