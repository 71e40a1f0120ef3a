/** A small app that the tests of the kit run, with what people use: tokens, a handler, a channel with a history and presence. */
import { Hono } from "hono";
import * as v from "valibot";
import { WebSocketController, type WebSocketControllerOptions } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";

/** Tokens are names of users; one of a guest expires within a minute of `now`. */
export function createChat(now: () => number = Date.now, options: WebSocketControllerOptions = {}) {
  const controller = new WebSocketController({
    logger: false,
    authenticate: (credentials) => {
      const user = "access_token" in credentials ? credentials.access_token : undefined;
      if (user === undefined || user === "nobody") return null;
      const expires_at = user.startsWith("guest") ? now() / 1_000 + 60 : null;
      return { accountability: { user, role: null }, expires_at };
    },
    ...options,
  });
  const channels = new Channels(controller, {
    "room:*": { authorize: () => true, history: { size: 100, ttl: 300_000 }, presence: true },
    "secret": { authorize: ({ client }) => client.accountability.user === "admin" },
  });
  controller.handle("say", v.object({ text: v.string() }), async ({ client, message }) => {
    await channels.publish("room:1", "said", { by: client.accountability.user, text: message.text });
    return "said";
  });
  controller.handle("who", v.object({}), ({ client }) => client.accountability.user);
  const app = new Hono().get("/websocket", controller.upgrade);
  return { app, controller, channels };
}

/** What a subscription has received, as it comes. */
export function received(subscription: AsyncIterable<{ event: string; data?: unknown }>) {
  const items: { event: string; data: unknown }[] = [];
  const end = (async () => {
    for await (const { event, data } of subscription) items.push({ event, data });
  })();
  end.catch(() => {}); // The test ends its client.
  return items;
}
