import { Hono } from "hono";
import * as v from "valibot";
import { type PayloadSchema, WebSocketController } from "../../mod.ts";
import { large, said } from "./message.ts";

/** Default options, but for the limits that would end the generator: it is one user, and everybody. */
export function createNoroshi(
  Echo: PayloadSchema<unknown, { text: string }> = v.object({ text: v.string() }),
): { app: Hono; controller: WebSocketController } {
  const controller = new WebSocketController({
    mode: "public",
    rateLimit: false,
    maxConnections: Infinity,
    maxPending: Infinity,
    authenticate: (credentials) => {
      const [user = "", role = ""] = "access_token" in credentials ? credentials.access_token.split(":") : [];
      return { accountability: { user, role } };
    },
  });
  controller.on("message", ({ message }) => {
    if (message.type === "echo") return;
    const publication = said(message.seq as number); // As the generator sends it.
    if (message.type === "say-slow") controller.broadcast(large, { role: "slow" });
    controller.broadcast(publication, message.type === "say-few" ? { role: "few" } : undefined);
  });
  controller.handle("echo", Echo, ({ message }) => message.text);
  return { app: new Hono().get("/websocket", controller.upgrade), controller };
}
