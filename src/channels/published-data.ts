import type { ResolvedChannel } from "./channel-options.ts";
import { queryOf, type SubscriptionRequest } from "./saved-subscription.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { type Issue, issuePath } from "../protocol/protocol.ts";
import { type CheckedSchema, parse, type Parsed } from "../application/schema.ts";

/**
 * Validates what a client publishes. Returns the output of the event's schema, in a promise only if the schema is asynchronous.
 *
 * @throws {WebSocketError} INVALID_PAYLOAD, with the path.
 */
export function readPublished(
  { schema }: ResolvedChannel,
  event: string,
  data: unknown,
): { readonly data: unknown } | Promise<{ readonly data: unknown }> {
  if (!schema) return { data };
  const of = schema.get(event);
  if (!of) throw new WebSocketError("publish", "INVALID_PAYLOAD", "No such event", { details: { path: "event" } });
  const parsed = parse(of, data);
  return parsed instanceof Promise ? parsed.then(outputOf) : outputOf(parsed);
}

function outputOf(parsed: Parsed): { readonly data: unknown } {
  if (parsed.success) return { data: parsed.output };
  throw invalid("publish", parsed.issues[0]!, "data"); // A failure has an issue.
}

/**
 * Validates the `query` and the member's `data` of a subscription. They are used as they were sent.
 *
 * @throws {WebSocketError} INVALID_PAYLOAD, as a rejection, with the path.
 */
export async function checkSubscription(
  { query, member, presence }: ResolvedChannel,
  request: SubscriptionRequest,
): Promise<void> {
  const check = async (within: string, schema: CheckedSchema, value: unknown): Promise<void> => {
    const parsed = await parse(schema, value);
    if (!parsed.success) throw invalid("subscribe", parsed.issues[0]!, within); // A failure has an issue.
  };
  if (query && request.query !== undefined) await check("query", query, queryOf(request));
  // If `presence.data` is a function, the data is its result, not what the client sent.
  if (member && presence?.data === "client" && request.data !== undefined) {
    await check("data", member, JSON.parse(request.data));
  }
}

/** The error that names the path of an issue. */
export function invalid(type: string, issue: Issue, within?: string): WebSocketError {
  const path = [within, issuePath(issue)].filter((part) => part !== undefined && part !== "").join(".");
  return new WebSocketError(type, "INVALID_PAYLOAD", path === "" ? "Invalid payload" : `Invalid payload at "${path}"`, {
    ...(path === "" ? {} : { details: { path } }),
  });
}
