/** The server that is attacked: default limits, two routes, and what the bench asks of it. Runs on Bun, Deno and Node. */
import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Hono } from "hono";
import { WebSocketController, type WebSocketControllerOptions } from "../mod.ts";
import { serve } from "../src/serve/serve.ts";

const { Bun } = globalThis as { Bun?: { gc(force: boolean): void } };

function collectGarbage(): void {
  if (Bun) return Bun.gc(true);
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)(); // The flag put it into every context made since.
}

const closes: Record<string, number> = {};
let connects = 0;
/** Error events, by what they say. */
const errors: Record<string, number> = {};

// Tokens are "user:role".
const options: WebSocketControllerOptions = {
  authenticate: (credentials) => {
    const [user = "", role = null] = "access_token" in credentials ? credentials.access_token.split(":") : [];
    return user === "" || user === "bad" ? null : { accountability: { user, role } };
  },
};
const controllers = (["public", "handshake"] as const).map((mode) => new WebSocketController({ ...options, name: mode, mode }));
for (const controller of controllers) {
  controller.on("connect", () => void connects++);
  controller.on("close", ({ code, client }) => {
    const name = `${client.accountability.role ?? "nobody"} ${code}`;
    closes[name] = (closes[name] ?? 0) + 1;
  });
  controller.on(
    "error",
    ({ error }) => void (errors[String(error)] = (errors[String(error)] ?? 0) + 1),
  );
}

const app = new Hono();
for (const { name, upgrade } of controllers) app.get(`/${name}`, upgrade);
app.get(
  "/state",
  (c) =>
    c.json({
      stats: controllers.map((controller) => controller.stats()),
      connects,
      closes,
      errors,
    }),
);
app.get("/collect", (c) => {
  collectGarbage();
  return c.json(process.memoryUsage());
});

// In every phase: in the calm one nobody is there to read it slowly.
const large = { type: "large", text: "x".repeat(60_000) };
setInterval(() => controllers[0]!.broadcast(large, { role: "stalled" }), 50);

await serve(app, {
  port: 0,
  hostname: "127.0.0.1",
  drain: { timeout: 2_000 },
  onListen: ({ port }) => console.log(`PORT ${port}`),
});
