/** A worker thread with a server of its own: it says its port, and does what it is told. */
import { parentPort } from "node:worker_threads";
import { Hono } from "hono";
import { WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { broadcastChannelEngine } from "../../src/engines/broadcast-channel/broadcast-channel.ts";
import { serve } from "../../src/serve/serve.ts";

const controller = new WebSocketController({
  engine: broadcastChannelEngine({ lease: 5_000 }),
  logger: false,
  authenticate: (credentials) =>
    "access_token" in credentials ? { accountability: { user: credentials.access_token, role: null } } : null,
});
const channels = new Channels(controller, { room: { authorize: () => true, presence: { grace: 0 } } });
const app = new Hono().get("/websocket", controller.upgrade);
const { url } = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false, handleSignals: false });

const commands = {
  broadcast: (text: string, user?: string) => controller.broadcast({ type: "news", text }, user === undefined ? {} : { user }),
  publish: (text: string) => channels.publish("room", "say", text),
  disconnect: (user: string) => controller.disconnect({ user }, 4403, "Out"),
  clients: (timeout: string) => controller.cluster.clients({}, { timeout: Number(timeout) }),
  nodes: () => controller.engine.nodes(),
  presence: () => channels.presence("room"),
  errors: () => errors,
};
const errors: string[] = [];
controller.on("error", ({ error }) => void errors.push(String(error)));

/** What a worker can be told to do. */
export type Commands = typeof commands;

parentPort!.on("message", async ({ id, name, args }: { id: number; name: keyof Commands; args: string[] }) => {
  const command = commands[name] as (...args: string[]) => unknown; // Called with the arguments of this very command.
  parentPort!.postMessage({ id, result: await command(...args) });
});
parentPort!.postMessage({ id: 0, result: url });
