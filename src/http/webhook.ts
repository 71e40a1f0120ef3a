import type { Context, Handler } from "hono";
import { consoleLogger, errorRecord } from "../application/log.ts";
import { isFunction, isPositive } from "../application/option-checks.ts";
import { checkMs, Deadlines, systemClock } from "../base/clock.ts";
import { endUnread, joined, readBytes } from "./read-body.ts";

/** A verified webhook. */
export interface Webhook {
  /** The same for each attempt of the sender: pass it as `id` to `channels.publish`. */
  readonly id: string;
  /** When it was sent, in ms since 1970. */
  readonly sentAt: number;
  /** The body, from JSON. It is signed, and its form is not checked. */
  readonly payload: unknown;
}

/** Options of {@link webhook}. */
export interface WebhookOptions {
  /**
   * Time that the sender's clock may differ, and that a webhook may take to arrive, in ms. A webhook of a clock that is ahead is
   * accepted for up to twice that time: set `idWindow` of the channels at least as long.
   *
   * @default {300_000}
   */
  tolerance?: number;
  /** Maximum size of the body, in bytes. @default {1_048_576} */
  maxBody?: number;
  /** Time for the body to arrive, in ms. @default {10_000} */
  timeout?: number;
  /** Returns the time, in ms since 1970. @default {Date.now} */
  now?: () => number;
}

/**
 * Documented by Hono: `deno doc --lint` treats it as a type of this package.
 *
 * @internal
 */
type Route = Handler;

/**
 * Documented by Hono: `deno doc --lint` treats it as a type of this package.
 *
 * @internal
 */
type RequestContext = Context;

/**
 * Receives webhooks that are signed as Standard Webhooks (https://www.standardwebhooks.com) with the symmetric `v1`. The response
 * is 204 once the handler has returned, 401 for an invalid signature, 400 for a body that is not JSON in UTF-8, 408 if it arrives
 * too slowly, and 413 if it is too large. An error of the handler goes to Hono's error handler, so that the sender tries again.
 *
 * @param secret as the sender shows it, `whsec_…`. Pass two during rotation.
 * @throws {TypeError} for a secret that is not base64 of at least 16 bytes, an unknown option, or a value out of range.
 *
 * @example
 * ```ts
 * app.post("/webhooks", webhook(secret, async ({ id, payload }) => {
 *   const { type, data } = parse(Event, payload);
 *   await channels.publish("orders", type, data, { id });
 * }));
 * ```
 */
export function webhook(
  secret: string | readonly string[],
  handler: (webhook: Webhook, c: RequestContext) => void | Promise<void>,
  { tolerance = 300_000, maxBody = 1_048_576, timeout = 10_000, now = Date.now, ...unknown }: WebhookOptions = {},
): Route {
  for (const name of Object.keys(unknown)) throw new TypeError(`Cannot receive webhooks: unknown option "${name}"`);
  checkMs('Cannot receive webhooks: option "tolerance"', tolerance);
  checkMs('Cannot receive webhooks: option "timeout"', timeout);
  if (!isPositive(maxBody)) {
    throw new TypeError('Cannot receive webhooks: option "maxBody" must be a whole number of bytes from 1');
  }
  if (!isFunction(now)) throw new TypeError('Cannot receive webhooks: option "now" must be a function');
  if (!isFunction(handler)) throw new TypeError("Cannot receive webhooks: the handler must be a function");
  const secrets = [secret].flat().map(bytesOf);
  if (secrets.length === 0) throw new TypeError("Cannot receive webhooks: pass a secret");
  return async (c) => {
    const refuse = (status: 400 | 401 | 408 | 413, message: string) => {
      endUnread(c);
      return c.json({ error: { code: "INVALID_REQUEST", message } }, status);
    };
    const id = c.req.header("webhook-id");
    const timestamp = c.req.header("webhook-timestamp") ?? "";
    const signatures = c.req.header("webhook-signature");
    if (!id || !signatures || !/^\d{1,12}$/.test(timestamp)) return refuse(401, "The webhook is not signed");
    const sentAt = 1_000 * Number(timestamp);
    // Checked first: a recorded webhook that somebody replays after `tolerance` must be refused.
    if (!(Math.abs(now() - sentAt) <= tolerance)) return refuse(401, "The webhook is too old, or from the future");
    // Not shared: in a Worker a timer ends with the request that has set it.
    const deadlines = new Deadlines(systemClock, (error) => consoleLogger().error(...errorRecord(error)));
    const { bytes, end } = await readBytes(c.req.raw, maxBody, { deadlines, timeout });
    deadlines.end();
    if (end === "late") return refuse(408, "The body took too long");
    if (end === "broken") return refuse(400, "The body is not whole");
    if (end === "large") return refuse(413, `The body has more than ${maxBody} bytes`);
    const prefix = new TextEncoder().encode(`${id}.${timestamp}.`);
    const signed = joined([prefix, bytes], prefix.byteLength + bytes.byteLength);
    if (!await isSigned(signed, signatures, secrets)) return refuse(401, "The signature is not valid");
    let payload: unknown;
    try {
      payload = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)); // Without a byte order mark (RFC 8259 §8.1).
    } catch {
      return refuse(400, "The body is not JSON");
    }
    await handler({ id, sentAt, payload }, c);
    return c.body(null, 204);
  };
}

/** Maximum number of signatures that are verified: a sender has one for each of its secrets. */
const MAX_SIGNATURES = 8;

const HMAC = { name: "HMAC", hash: "SHA-256" };

/** Whether one of the signatures was made with one of the secrets. */
async function isSigned(
  signed: Uint8Array<ArrayBuffer>,
  signatures: string,
  secrets: readonly Uint8Array<ArrayBuffer>[],
): Promise<boolean> {
  for (const secret of secrets) {
    const key = await crypto.subtle.importKey("raw", secret, HMAC, false, ["verify"]);
    // Several header fields are joined by a comma.
    for (const signature of signatures.split(/,?\s+/).slice(0, MAX_SIGNATURES)) {
      const [, base64] = /^v1,([A-Za-z0-9+/]+={0,2})$/.exec(signature) ?? [];
      const bytes = base64 && decode(base64);
      if (bytes && await crypto.subtle.verify(HMAC, key, bytes, signed)) return true;
    }
  }
  return false;
}

/** Minimum size of a secret, in bytes. Standard Webhooks requires 24 to 64. */
const MIN_SECRET = 16;

function bytesOf(secret: unknown): Uint8Array<ArrayBuffer> {
  const bytes = typeof secret === "string" ? decode(secret.replace(/^whsec_/, "")) : undefined;
  if (bytes && bytes.byteLength >= MIN_SECRET) return bytes;
  throw new TypeError(
    `Cannot receive webhooks: the secret must be base64 of at least ${MIN_SECRET} bytes, as the sender gives it, with or without whsec_`,
  );
}

function decode(base64: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    return undefined; // It is not base64, which the caller reports.
  }
}
