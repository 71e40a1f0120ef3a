/**
 * HTTP beside the socket: the same connections, channels and identity for clients that cannot hold a WebSocket.
 *
 * @example
 * ```ts
 * app.use("/websocket", fallback());
 * app.get("/websocket", controller.upgrade);
 * app.route("/channels", channelsHttp(channels));
 * ```
 *
 * @module
 */
import { channelsHttp } from "./channels-http.ts";
import { channelsOpenApi, type ChannelsOpenApiOptions, type OpenApiDocument } from "./openapi.ts";
import { fallback, type FallbackOptions } from "./fallback.ts";
import { type Webhook, webhook, type WebhookOptions } from "./webhook.ts";

export { channelsHttp, channelsOpenApi, fallback, webhook };
export type { ToJsonSchema } from "../asyncapi/json-schema.ts";
export type { ChannelsOpenApiOptions, FallbackOptions, OpenApiDocument, Webhook, WebhookOptions };
