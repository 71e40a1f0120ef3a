/** One node of the chat. With `REDIS_URL` it is one of several. */
import { join } from "node:path";
import process from "node:process";
import { serveStatic } from "@hono/node-server/serve-static";
import type { UIMessage } from "ai";
import { Redis } from "ioredis";
import { redisEngine } from "noroshi/redis";
import { serve } from "noroshi/serve";
import { type ChatNode, createChatApp } from "./chat.ts";
import { createModel } from "./model.ts";

const { PORT = "3000", REDIS_URL, NODE_NAME, ENGINE_SECRET } = process.env;

const { app } = createChatApp(createModel(), REDIS_URL ? shared(REDIS_URL) : {});
app.use(serveStatic({ root: join(import.meta.dirname, "public") }));
await serve(app, { hostname: "127.0.0.1", port: Number(PORT) });

/** Streams and chats at Redis, where the other nodes have theirs. */
function shared(url: string): ChatNode {
  const redis = new Redis(url);
  return {
    name: NODE_NAME,
    engine: redisEngine({ client: redis, ...(ENGINE_SECRET && { secret: ENGINE_SECRET }) }),
    chats: {
      get: async (key) => JSON.parse(await redis.get(`chat ${key}`) ?? "null") as UIMessage[] | null ?? undefined, // Written below.
      set: (key, messages) => redis.set(`chat ${key}`, JSON.stringify(messages)),
    },
  };
}
