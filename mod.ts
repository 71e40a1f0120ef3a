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
export * from "./src/protocol/errors.ts";
export { type CloseCause, CloseCode } from "./src/protocol/close.ts";
export {
  type AnnouncedBucket,
  type AnnouncedLimits,
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
} from "./src/protocol/protocol.ts";
export type {
  Authenticate,
  AuthenticationState,
  Credentials,
  CredentialSource,
  Refuse,
  Revalidate,
} from "./src/application/authentication.ts";
export type { Listener } from "./src/base/bus.ts";
export { type CheckedContract, defineContract, type RequestDeclaration } from "./src/application/contract.ts";
export type { PayloadSchema } from "./src/application/schema.ts";
export type * from "./src/protocol/contract-types.ts";
export type { JsonItemOf, JsonOf } from "./src/protocol/json-of.ts";
export type { Clock, Deadlines, Timed } from "./src/base/clock.ts";
export type {
  Cluster,
  ClusterClient,
  ClusterClients,
  ClusterQuestion,
  ClusterStats,
  OrderResult,
} from "./src/controller/cluster.ts";
export { WebSocketController } from "./src/controller/controller.ts";
export type { ControllerStatus, DrainOptions, DrainResult } from "./src/controller/drain.ts";
export { type Health, health } from "./src/controller/health.ts";
export { createWebSocketController, getWebSocketController } from "./src/controller/default-controller.ts";
export type { BroadcastFilter, BroadcastResult } from "./src/delivery/broadcast.ts";
export type { WebSocketEvents } from "./src/application/events.ts";
export type { Answer, HandlerContext, ReadableStreamOf, Streamed } from "./src/application/call.ts";
export type { Declared, Handler } from "./src/application/handlers.ts";
export type { Middleware, MiddlewareContext } from "./src/application/middleware.ts";
export {
  type JwtAuthenticator,
  jwtAuthenticator,
  type JwtAuthenticatorOptions,
  type SymmetricAlgorithm,
} from "./src/application/jwt.ts";
export { TokenRefusal, type TokenRefusalReason } from "./src/application/token-refusal.ts";
export type { AsymmetricAlgorithm, PublicJwk } from "./src/application/jwk.ts";
export type { AskAllOptions, AskAllQuestion, AskAllResult, AskMissing, AskReply } from "./src/controller/ask-all.ts";
export type { AskOptions } from "./src/application/questions.ts";
export type { RateLimit } from "./src/base/limits.ts";
export type { Origins } from "./src/application/origin.ts";
export type { ClientAddress, HeartbeatOptions, RateLimitOptions, WebSocketControllerOptions } from "./src/application/options.ts";
export type { AttachContext, ResumableOptions } from "./src/streams/resumable-options.ts";
export type { HandleOptions } from "./src/streams/streams.ts";
export type { LogEvent, LoggedError, Logger, LoggerOption, LogLevel, LogRecord } from "./src/application/log.ts";
export type { DisconnectFilter } from "./src/connection/revocations.ts";
export type { ControllerStats } from "./src/controller/stats.ts";
export type { RefusalReason } from "./src/application/refusals.ts";
export { WebSocketService } from "./src/controller/service.ts";
export type { UpgradeHandler } from "./src/controller/upgrade.ts";
export type {
  Accountability,
  AuthenticationMode,
  Handshake,
  JsonValue,
  WebSocketClient,
} from "./src/application/websocket-client.ts";
export type {
  AnswerStore,
  Awaitable,
  Engine,
  EngineHost,
  EngineStatus,
  HistoryOptions,
  HistoryPage,
  Member,
  Position,
  Publication,
  PublicationContent,
  PublishOnce,
  SubscriptionKeeper,
} from "./src/engines/engine.ts";
export { MemoryEngine, type MemoryEngineOptions } from "./src/engines/memory-engine.ts";
export type { Connection } from "./src/connection/connection.ts";
export { Frame } from "./src/protocol/frame.ts";
export type { Publisher, SavedConnection, Transport } from "./src/delivery/transport.ts";
