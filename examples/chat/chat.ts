import { Hono } from "hono";
import { csrf } from "hono/csrf";
import { secureHeaders } from "hono/secure-headers";
import { type Engine, jwtAuthenticator, WebSocketController } from "noroshi";
import type { contract } from "./contract.ts";
import { createLogin, type LoginOptions, SESSION } from "./login.ts";
import { addRooms } from "./rooms.ts";

export interface ChatOptions extends Omit<LoginOptions, "onLogout"> {
  /** Where the nodes meet. Absent: there is one node. */
  engine?: Engine;
  /** How many proxies stand in front. */
  proxies?: number;
}

/** The app, and the controller of its WebSocket route. */
export function createChat({ engine, proxies = 0, ...login }: ChatOptions) {
  const controller = new WebSocketController<typeof contract>({
    mode: "strict", // A client without a session is answered 401.
    cookie: SESSION,
    authenticate: jwtAuthenticator({ secret: login.secret }),
    clientIp: proxies,
    ...(engine && { engine }),
  });
  addRooms(controller);

  const app = new Hono();
  app.use(csrf());
  app.use(secureHeaders({
    contentSecurityPolicy: { defaultSrc: ["'self'"], imgSrc: ["data:"] },
  }));
  app.get("/websocket", controller.upgrade);
  const onLogout = (user: string) => controller.disconnect({ user });
  app.route("/", createLogin({ ...login, onLogout }));
  return { app, controller };
}
