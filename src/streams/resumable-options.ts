import type { HandlerContext } from "../application/call.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";
import { isMs, MS } from "../base/clock.ts";
import type { HistoryOptions } from "../engines/engine.ts";

/** Passed to {@link ResumableOptions.authorize}. */
export interface AttachContext {
  /** The client that attaches. */
  readonly client: WebSocketClient;
  /** The id of the stream. */
  readonly id: string;
  /** Its message type. */
  readonly type: string;
  /** The user who started it; `null`: an anonymous client. */
  readonly user: string | null;
  /** The role that it was started with; `null`: none. */
  readonly role: string | null;
  /** What {@link ResumableOptions.key} returned. */
  readonly key?: string;
}

/** Options of a stream that outlives its connection. `Item` is an item as the client receives it. */
export interface ResumableOptions<Payload = unknown, Item = unknown> {
  /**
   * Time in ms that the generator goes on while no client is attached. Items are kept as long, and at least ten minutes, or as long as
   * the engine keeps any.
   * @default {60_000}
   */
  readonly ttl?: number;
  /**
   * Maximum number of items kept, and of items that the generator is ahead of the fastest attached client. At most 4 MiB are kept.
   * @default 10,000, or what the engine keeps at most: with NATS its `history.maxSize`
   */
  readonly size?: number;
  /** Joins consecutive items, which are JSON by then, into fewer, for a client that has missed them. Synchronous. */
  merge?(items: Item[]): Item[];
  /** A name of yours that `client.streams()` lists, such as the id of a chat: up to 128 characters. @default none */
  key?(context: HandlerContext<Payload>): string;
  /**
   * Decides who may attach, and stop the stream. Its id then holds the user, the role and the `key`.
   * @default the same user with the same role; of an anonymous client, any anonymous client with the id, which cannot be guessed
   */
  authorize?(context: AttachContext): boolean | Promise<boolean>;
}

/** What is kept if the engine keeps as much: items, and the time in ms. */
const KEPT: HistoryOptions = { size: 10_000, ttl: 600_000 };

/** Streams of one message type, with the defaults applied. */
export interface StreamKind extends Pick<ResumableOptions, "merge" | "key" | "authorize"> {
  readonly type: string;
  readonly ttl: number;
  readonly history: HistoryOptions;
}

/** For each option its check, and the remedy in the error message. */
const CHECKS: { readonly [Name in keyof ResumableOptions]-?: readonly [(value: unknown) => boolean, string] } = {
  ttl: [isMs, MS],
  size: [(value) => Number.isSafeInteger(value) && (value as number) > 1, "a whole number from 2, such as 10_000"],
  merge: [isFunction, "a function"],
  key: [isFunction, "a function"],
  authorize: [isFunction, "a function"],
};

/**
 * Validates the options and applies the defaults.
 *
 * @param max the largest history that the engine keeps: defaults stay within it. What the options name is not limited.
 * @throws {TypeError} for an unknown option or a value out of range.
 */
export function resolveKind(type: string, options: ResumableOptions | true, max: HistoryOptions = KEPT): StreamKind {
  const given = options === true ? {} : options;
  const prefix = `Cannot handle "${type}": `;
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw new TypeError(`${prefix}resumable must be true or an object, such as { ttl: 60_000 }`);
  }
  for (const [name, value] of Object.entries(given)) {
    const check = Object.hasOwn(CHECKS, name) ? CHECKS[name as keyof ResumableOptions] : undefined;
    if (!check) throw new TypeError(`${prefix}unknown option "resumable.${name}", use one of ${Object.keys(CHECKS).join(", ")}`);
    if (value !== undefined && !check[0](value)) throw new TypeError(`${prefix}resumable.${name} must be ${check[1]}`);
  }
  const { ttl = Math.min(60_000, max.ttl), size = Math.max(2, Math.min(KEPT.size, max.size)), merge, key, authorize } = given;
  return {
    type,
    ttl,
    history: { size, ttl: Math.max(ttl, Math.min(KEPT.ttl, max.ttl)) },
    ...(merge && { merge }),
    ...(key && { key }),
    ...(authorize && { authorize }),
  };
}

function isFunction(value: unknown): boolean {
  return typeof value === "function";
}
