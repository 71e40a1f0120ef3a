/** One node: the same newsroom, which meets the others at a broker. */
import process from "node:process";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { inspector } from "../../src/inspector/inspector.ts";
import { serve } from "../../src/serve/serve.ts";
import { createNewsroom } from "../app.ts";
import { readFile } from "../read-file.ts";

const { HOST = "127.0.0.1", PORT = "0", NODE_NAME = "node", NATS_URL = "nats://127.0.0.1:4222", ENGINE_SECRET, JWT_SECRET } =
  process.env;

const engine = natsEngine({
  servers: NATS_URL,
  namespace: "newsroom",
  lease: 5_000,
  // As long as the longest `ttl` of a channel.
  history: { maxTtl: 12 * 60 * 60_000 },
  ...(ENGINE_SECRET && { secret: ENGINE_SECRET }),
});
const { app, controller } = createNewsroom({
  readFile,
  secret: JWT_SECRET,
  inspector,
  cluster: { engine, node: NODE_NAME, kill: () => void process.kill(process.pid, "SIGKILL") },
});

// What the front asks: a node that the broker cannot be reached from gets no new clients while there is another one.
app.get("/healthz", (c) => c.text(controller.engine.status, controller.engine.status === "ready" ? 200 : 503));

// On SIGTERM its clients go to the other nodes within a second, and members of channels keep their place there.
await serve(app, { port: Number(PORT), hostname: HOST, drain: { window: 1_000 } });
