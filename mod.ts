/**
 * The realtime WebSocket service for Hono apps: one {@link WebSocketService}, the same on Bun, Deno, Node and Cloudflare.
 *
 * @example
 * ```ts
 * import { Hono } from "hono";
 * import { createWebSocketController, WebSocketService } from "noroshi";
 *
 * const controller = createWebSocketController();
 * const app = new Hono().get("/websocket", controller.upgrade);
 *
 * const service = new WebSocketService();
 * service.on("message", ({ message }) => service.broadcast(message));
 * ```
 *
 * @module
 */
export * from "./src/errors.ts";
export { type CloseCause, CloseCode } from "./src/close.ts";
export {
  type AuthMessage,
  AuthMessageSchema,
  type AuthOkMessage,
  MessageUidSchema,
  type PingMessage,
  PingMessageSchema,
  type PongMessage,
  type ReplyMessage,
  type SubscribeMessage,
  SubscribeMessageSchema,
  type SubscriptionMessage,
  type UnsubscribeMessage,
  UnsubscribeMessageSchema,
  type WebSocketMessage,
  WebSocketMessageSchema,
} from "./src/protocol.ts";
export type {
  Authenticate,
  AuthenticationState,
  Credentials,
  CredentialSource,
  Refuse,
  Revalidate,
} from "./src/authentication.ts";
export type { Listener } from "./src/bus.ts";
export {
  type ChannelDeclaration,
  type ContractDeclaration,
  defineContract,
  type PayloadSchema,
  type RequestDeclaration,
} from "./src/contract.ts";
export type { Clock } from "./src/clock.ts";
export type { Cluster, ClusterClient, ClusterClients, ClusterQuestion, ClusterStats, OrderResult } from "./src/cluster.ts";
export { WebSocketController } from "./src/controller.ts";
export { createWebSocketController, getWebSocketController } from "./src/default-controller.ts";
export type { BroadcastFilter, BroadcastResult } from "./src/broadcast.ts";
export type { WebSocketEvents } from "./src/events.ts";
export type { Declared, Handler, HandlerContext, Middleware, MiddlewareContext } from "./src/handlers.ts";
export { type JwtAuthenticator, jwtAuthenticator, type JwtAuthenticatorOptions, type SymmetricAlgorithm } from "./src/jwt.ts";
export { TokenRefusal, type TokenRefusalReason } from "./src/token-refusal.ts";
export type { AsymmetricAlgorithm, PublicJwk } from "./src/jwk.ts";
export type { RateLimit } from "./src/limits.ts";
export type { Origins } from "./src/origin.ts";
export type { ClientAddress, HeartbeatOptions, Logger, RateLimitOptions, WebSocketControllerOptions } from "./src/options.ts";
export type { DisconnectFilter } from "./src/revocations.ts";
export type { ControllerStats } from "./src/stats.ts";
export { WebSocketService } from "./src/service.ts";
export type { UpgradeHandler } from "./src/upgrade.ts";
export type { Accountability, AuthenticationMode, Handshake, JsonValue, WebSocketClient } from "./src/websocket-client.ts";
export type {
  Engine,
  EngineHost,
  EngineStatus,
  HistoryOptions,
  HistoryPage,
  Member,
  Position,
  Publication,
  PublicationContent,
} from "./src/engine.ts";
export { MemoryEngine, type MemoryEngineOptions } from "./src/memory-engine.ts";
export type { Connection } from "./src/connection.ts";
export { Frame } from "./src/frame.ts";
export type { SavedConnection, Transport } from "./src/transport.ts";
