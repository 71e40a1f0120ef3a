/** The project with channels, on Bun, Deno and Node. `broadcast` sends the same bytes without them. */
import { Hono } from "hono";
import process from "node:process";
import { type EngineHost, MemoryEngine, WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { serve } from "../../src/serve/serve.ts";
import { said } from "./message.ts";

/** One whose first epoch the generator knows. */
class BenchEngine extends MemoryEngine {
  override start(host: EngineHost): void {
    super.start({ ...host, node: "bench" });
  }
}

const controller = new WebSocketController({ rateLimit: false, maxPending: Infinity, engine: new BenchEngine() });
const anybody = { authorize: () => true };
const channels = new Channels(controller, {
  load: anybody,
  "own:*": anybody,
  kept: { ...anybody, history: { size: 100, ttl: 3_600_000 } },
});
for (let seq = 0; seq < 50; seq++) await channels.publish("kept", "said", said(seq));

const isBroadcast = process.argv.includes("broadcast");
controller.on("message", ({ message }) => {
  if (message.type !== "say") return;
  const data = said(message["seq"] as number); // As the generator sends it.
  if (isBroadcast) void controller.broadcast({ type: "subscription", event: "said", channel: "load", data });
  else void channels.publish("load", "said", data);
});

await serve(new Hono().get("/websocket", controller.upgrade), {
  port: 0,
  hostname: "127.0.0.1",
  onListen: ({ port }) => console.log(`PORT ${port}`),
});
