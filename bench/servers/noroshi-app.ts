import { Hono } from "hono";
import * as v from "valibot";
import { type PayloadSchema, WebSocketController, type WebSocketControllerOptions } from "../../mod.ts";
import { large, said } from "./message.ts";

/** Default options, but for the limits that would end the generator: it is one user, and everybody. */
const PUBLIC: WebSocketControllerOptions = {
  mode: "public",
  rateLimit: false,
  maxConnections: Infinity,
  maxPending: Infinity,
  authenticate: (credentials) => {
    const [user = "", role = ""] = "access_token" in credentials ? credentials.access_token.split(":") : [];
    return { accountability: { user, role } };
  },
};

/** Origins, limits per address and user, and an asynchronous authentication, which each client needs. */
export const STRICT: WebSocketControllerOptions = {
  ...PUBLIC,
  mode: "strict",
  rateLimit: {},
  maxConnectionsPerIp: 50_000,
  maxConnectionsPerUser: 50_000,
  origins: ["https://other.example", "https://app.example"],
  authenticate: async (credentials, handshake, refuse) => await PUBLIC.authenticate!(credentials, handshake, refuse), // It is above.
};

export function createNoroshi(
  Echo: PayloadSchema<unknown, { text: string }> = v.object({ text: v.string() }),
  options: WebSocketControllerOptions = PUBLIC,
): { app: Hono; controller: WebSocketController } {
  const controller = new WebSocketController(options);
  controller.on("message", ({ message }) => {
    if (message.type === "echo") return;
    const publication = said(message.seq as number); // As the generator sends it.
    if (message.type === "say-slow") controller.broadcast(large, { role: "slow" });
    controller.broadcast(publication, message.type === "say-few" ? { role: "few" } : undefined);
  });
  controller.handle("echo", Echo, ({ message }) => message.text);
  return { app: new Hono().get("/websocket", controller.upgrade), controller };
}
