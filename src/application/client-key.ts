import { addressKey } from "../base/address.ts";
import { ask } from "../base/guard.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** Returns the key of a client; clients with the same key share one limit. */
export type ClientKey = (client: WebSocketClient) => string;

/**
 * Keys clients by the application's key, else by user, else by address, else by connection.
 *
 * @param key the application's; its errors go to `report`.
 */
export function clientKey(
  key: ClientKey | undefined,
  report: (error: unknown, client: WebSocketClient) => void,
): ClientKey {
  return (client) => {
    const named = key && ask(() => key(client), (named) => typeof named === "string", (error) => report(error, client));
    if (named !== undefined) return `key:${named}`;
    const { user } = client.accountability;
    if (user !== null) return `user:${user}`;
    const { ip } = client.handshake;
    return ip === null ? `uid:${client.uid}` : `ip:${addressKey(ip)}`;
  };
}
