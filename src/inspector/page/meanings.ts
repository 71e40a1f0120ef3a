import type { CloseCause } from "../../protocol/close.ts";
import type { RefusalReason } from "../../application/refusals.ts";

/** Why connections end, and what an operator can do about it. */
export const CAUSES: Record<CloseCause, string> = {
  client: "The client sent a close frame: it left, or its page was closed.",
  server: "The application closed it, or an inspector disconnected it.",
  auth: "The client did not authenticate, or not in time.",
  expired: "The credentials expired and were not renewed in time.",
  rate: "The client sent more than the rate limit allows.",
  payload: "A message was larger than maxPayload.",
  slow: "The client read too slowly: more than maxBufferedBytes waited for it.",
  heartbeat: "No answer to the heartbeat: the network or the machine of the client is gone.",
  age: "The connection reached maxAge.",
  drain: "The node drains or closes. The client comes back elsewhere.",
  error: "The connection ended without a close frame: the network broke, or the process of the client ended.",
};

/** Why connections are refused, and what to change if they should not be. */
export const REASONS: Record<RefusalReason, string> = {
  request: "The request is not a WebSocket handshake.",
  runtime: "The server cannot upgrade requests: attach the runtime.",
  origin: "The page is of another site: list its origin in origins.",
  token: "The credentials are missing, late or not valid.",
  failures: "Too many failed attempts of one address. Behind a proxy, set clientIp.",
  disconnected: "disconnect() matched the client while it authenticated.",
  connections: "maxConnections is reached.",
  pending: "maxPending is reached: too many authenticate at once.",
  ip: "The limit of one address is reached. Behind a proxy, set clientIp.",
  user: "maxConnectionsPerUser is reached.",
  draining: "The node drains or is closed.",
  unavailable: "authenticate failed or took too long.",
  abandoned: "The client left before the connection was open.",
  node: "A POST of the fallback reached another node: let the proxy route by its parameter connection.",
  posts: "Too many POSTs of one connection of the fallback at once, or one was repeated too often.",
};
