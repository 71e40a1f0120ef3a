/** One object with all clients, or relays with a part of them each. */
import { Hono } from "hono";
import { WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { createWebSocketObject } from "../../src/serve/cloudflare.ts";
import { createShardedObject } from "../../src/serve/shards.ts";

function build() {
  const controller = new WebSocketController({
    mode: "public",
    rateLimit: false,
    logger: false,
  });
  const channels = new Channels(controller, {
    news: { authorize: () => true, history: { size: 1_000, ttl: 600_000 } },
  });
  return {
    app: new Hono().get("/websocket", controller.upgrade),
    controller,
    channels,
  };
}

export class Alone extends createWebSocketObject(() => build()) {}

export class Sharded extends createShardedObject((_env: Env) => build(), { namespace: ({ SHARDED }) => SHARDED }) {}

interface Namespace {
  getByName(name: string): {
    fetch(request: Request): Promise<Response>;
    publish(channel: string, event: string, data: unknown): Promise<unknown>;
  };
}

interface Env {
  ALONE: Namespace;
  SHARDED: Namespace;
}

export default {
  async fetch(request: Request, { ALONE, SHARDED }: Env): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const name = searchParams.get("object")!;
    const object = (name === "alone" ? ALONE : SHARDED).getByName(name);
    if (pathname !== "/publish") return await object.fetch(request);
    const [first, count] = [
      Number(searchParams.get("first")),
      Number(searchParams.get("count")),
    ];
    await Promise.all(
      Array.from({ length: count }, (_, n) =>
        object.publish("news", "said", {
          n: first + n,
          text: "x".repeat(100),
        })),
    );
    return new Response("published");
  },
};
