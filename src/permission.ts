import type { Authorization, AuthorizeContext, ResolvedChannel } from "./channel-options.ts";
import { within } from "./clock.ts";
import { WebSocketError } from "./errors.ts";
import type { ExtensionHost } from "./extension.ts";
import { queryOf, type SubscriptionRequest } from "./saved-subscription.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/**
 * What the application answers: at once where it does, else in time.
 *
 * @throws {WebSocketError} SERVICE_UNAVAILABLE, as a rejection, when it takes too long.
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
 * Whether a client may: for how long, in ms.
 *
 * @throws {WebSocketError} FORBIDDEN when it may not, or what `authorize` throws.
 */
export async function permit({ authorize }: ResolvedChannel, context: AuthorizeContext, host: ExtensionHost): Promise<number> {
  const answer = await answerOf<Authorization>(() => authorize(context), context.action, host);
  if (answer === true) return Infinity;
  if (typeof answer === "object" && answer !== null && typeof answer.ttl === "number" && answer.ttl > 0) return answer.ttl;
  throw new WebSocketError(context.action, "FORBIDDEN", "Not allowed");
}

/** What `authorize` is asked for a subscription. */
export function contextOf(client: WebSocketClient, request: SubscriptionRequest): AuthorizeContext {
  const { channel, event, query, recover } = request;
  const context: AuthorizeContext = {
    client,
    channel,
    action: "subscribe",
    ...(event === undefined ? {} : { event }),
    ...(recover && { recover }),
  };
  if (query === undefined) return context;
  // Decoded for who reads it: it may take many times its text, for as long as the answer takes.
  return Object.defineProperty(context, "query", { get: () => queryOf(request), enumerable: true, configurable: true });
}

/** What the client is told of an error: the error itself where it may be shown; another one is reported, and told as that alone. */
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
