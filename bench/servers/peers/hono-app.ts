/** The app that Hono's own WebSocket helper is measured with: the sockets in a Set, a loop of `send`. */
import { Hono } from "hono";
import type { UpgradeWebSocket, WSContext } from "hono/ws";
import { type Asked, echo, say } from "./answers.ts";

export function createApp(upgradeWebSocket: UpgradeWebSocket): Hono {
  const everybody = new Set<WSContext>();
  return new Hono().get(
    "/websocket",
    upgradeWebSocket(() => {
      // The context of each event is a new one on some runtimes.
      let own: WSContext;
      return {
        onOpen: (_, ws) => {
          everybody.add(own = ws);
        },
        onMessage: ({ data }, ws) => {
          const message: Asked = JSON.parse(String(data));
          if (message.type === "echo") return ws.send(echo(message));
          const text = say(message);
          for (const each of everybody) each.send(text);
        },
        onClose: () => {
          everybody.delete(own);
        },
      };
    }),
  );
}
