import { Hono } from "hono";
import { sign } from "hono/jwt";
import { jwtAuthenticator, WebSocketController } from "noroshi";
import { Channels } from "noroshi/channels";
import { answerOnce } from "noroshi/once";
import * as v from "valibot";
import { contract, type Said } from "./contract.ts";

const LoginSchema = v.object({ name: v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(20)) });

/** How long a login lasts, in seconds. */
const LOGIN_TIME = 12 * 60 * 60;

/**
 * The app and its controller.
 *
 * @param secret signs the tokens: at least 32 bytes. Absent or empty: a random one, and everybody logs in again after a restart.
 */
export function createChat(secret?: string): { app: Hono; controller: WebSocketController } {
  const key = secret || crypto.randomUUID();
  const controller = new WebSocketController({
    authenticate: jwtAuthenticator({ secret: key }),
    // A request that a client repeats after a lost connection is handled once.
    once: answerOnce(),
  });

  const channels = new Channels(controller, {
    chat: {
      // Clients read the channel. They write by the request "say", which knows who they are.
      authorize: ({ action }) => action === "subscribe",
      schema: contract.channels.chat.events,
      snapshot: async (): Promise<Said[]> => {
        const { publications } = await channels.history("chat");
        return publications.map(({ data }) => data as Said); // As the schema says.
      },
      history: { size: 100, ttl: 24 * 60 * 60_000 },
      presence: true,
    },
  });

  controller.handle("say", contract.requests.say, async ({ client, message }) => {
    const from = client.accountability.user ?? "";
    await channels.publish("chat", "said", { from, text: message.text, at: Date.now() });
  });

  const app = new Hono();
  app.get("/websocket", controller.upgrade);
  app.post("/login", async (c) => {
    const login = v.safeParse(LoginSchema, await c.req.json().catch(() => null));
    if (!login.success) return c.json({ error: "A name has 1 to 20 characters" }, 400);
    const now = Math.floor(Date.now() / 1000);
    return c.json({ token: await sign({ sub: login.output.name, iat: now, exp: now + LOGIN_TIME }, key, "HS256") });
  });
  return { app, controller };
}
