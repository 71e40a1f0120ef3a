import { join } from "node:path";
import process from "node:process";
import { serveStatic } from "@hono/node-server/serve-static";
import { redisEngine } from "noroshi/redis";
import { serve } from "noroshi/serve";
import { createClient } from "redis";
import { findHash } from "./accounts.ts";
import { createChat } from "./chat.ts";

const { env } = process;
const engine = env["REDIS_URL"] && redisEngine({
  client: createClient({ url: env["REDIS_URL"] }),
  secret: env["NODE_SECRET"]!,
});

const { app } = createChat({
  findHash,
  // A random one ends all sessions when the server stops.
  secret: env["SECRET"] || crypto.randomUUID(),
  isSecure: env["NODE_ENV"] === "production",
  proxies: Number(env["PROXIES"] ?? 0),
  ...(engine && { engine }),
});
app.use(serveStatic({ root: join(import.meta.dirname, "public") }));
await serve(app, {
  hostname: env["HOST"] ?? "127.0.0.1",
  port: Number(env["PORT"] ?? 3000),
});
