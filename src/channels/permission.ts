import type { Authorization, AuthorizeContext, ChannelTable, ResolvedChannel } from "./channel-options.ts";
import { within } from "../base/clock.ts";
import { WebSocketError } from "../protocol/errors.ts";
import type { ExtensionHost } from "../application/extension.ts";
import { checkSubscription } from "./published-data.ts";
import { queryOf, type SubscriptionRequest } from "./saved-subscription.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";

/**
 * Calls the application and limits the time of an asynchronous answer to `timeout`. A synchronous answer is returned as it is.
 *
 * @throws {WebSocketError} SERVICE_UNAVAILABLE, as a rejection, on timeout.
 */
export function answerOf<Value>(
  call: () => Value | Promise<Value>,
  action: AuthorizeContext["action"],
  { deadlines, timeout }: ExtensionHost,
): Value | Promise<Value> {
  const answer = call();
  if (typeof answer !== "object" || answer === null || !("then" in answer)) return answer;
  return within(
    deadlines,
    timeout,
    () => answer,
    () => new WebSocketError(action, "SERVICE_UNAVAILABLE", `Cannot ${action}: it took too long, try again`),
  );
}

/**
 * Authorizes a client. Resolves with the time that the permission lasts, in ms; `Infinity` without a limit.
 *
 * @throws {WebSocketError} FORBIDDEN if `authorize` refuses, SERVICE_UNAVAILABLE on timeout, or what `authorize` throws.
 */
export async function permit({ authorize }: ResolvedChannel, context: AuthorizeContext, host: ExtensionHost): Promise<number> {
  const answer = await answerOf<Authorization>(() => authorize(context), context.action, host);
  if (answer === true) return Infinity;
  if (typeof answer === "object" && answer !== null && typeof answer.ttl === "number" && answer.ttl >= 1) return answer.ttl;
  throw new WebSocketError(context.action, "FORBIDDEN", "Not allowed");
}

/** Authorizes a subscription as {@link permit} does, and validates what the client sent with a new one. */
export function permitSubscription(
  client: WebSocketClient,
  request: SubscriptionRequest,
  options: ResolvedChannel,
  host: ExtensionHost,
  isNew: boolean,
): Promise<number> {
  const permitted = permit(options, contextOf(client, request, options), host);
  if (!isNew || !options.query && !options.member) return permitted;
  return permitted.then(async (ttl) => {
    await answerOf(() => checkSubscription(options, request), "subscribe", host);
    return ttl;
  });
}

/**
 * Authorizes a client that reads without a subscription. `rateLimit` counts it like a subscription. Resolves with the channel's options.
 *
 * @throws {WebSocketError} as a `subscribe` is refused.
 */
export async function permitReader(
  client: WebSocketClient,
  channel: string,
  table: ChannelTable,
  host: ExtensionHost,
): Promise<ResolvedChannel> {
  const options = table.find(channel);
  if (!options) throw new WebSocketError("subscribe", "FORBIDDEN", "Not allowed");
  const wait = host.rateGate?.ask(client, 1) ?? 0;
  if (wait > 0) {
    throw new WebSocketError("subscribe", "REQUESTS_EXCEEDED", "Too many requests", { details: { retry_after: wait } });
  }
  await permit(options, contextOf(client, { type: "subscribe", channel }, options), host);
  return options;
}

/** The context passed to `authorize` for a subscription. */
export function contextOf(client: WebSocketClient, request: SubscriptionRequest, { params }: ResolvedChannel): AuthorizeContext {
  const { channel, event, query, recover } = request;
  const context: AuthorizeContext = {
    client,
    channel,
    params: params(channel),
    action: "subscribe",
    ...(event === undefined ? {} : { event }),
    ...(recover && { recover }),
  };
  if (query === undefined) return context;
  // Decoded only when read: as an object it takes many times the memory of its text, for as long as `authorize` runs.
  return Object.defineProperty(context, "query", { get: () => queryOf(request), enumerable: true, configurable: true });
}

/** The error to send to the client: a `WebSocketError` as it is; any other is reported and sent as INTERNAL_ERROR. */
export function shownError(
  error: unknown,
  action: AuthorizeContext["action"],
  { client, host }: { readonly client: WebSocketClient; readonly host: ExtensionHost },
): WebSocketError {
  const shown = WebSocketError.from(error);
  if (shown) return shown;
  host.report(error, client);
  return new WebSocketError(action, "INTERNAL_ERROR", "Something went wrong");
}
