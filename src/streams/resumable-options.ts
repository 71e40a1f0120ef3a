import type { HandlerContext } from "../application/call.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";
import { isMs, MS } from "../base/clock.ts";
import type { HistoryOptions } from "../engines/engine.ts";

/** Passed to {@link ResumableOptions.authorize}. */
export interface AttachContext {
  /** The client that attaches. */
  readonly client: WebSocketClient;
  /** The name of the stream. */
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

/** Options of a stream that outlives its connection. */
export interface ResumableOptions<Payload = unknown, Item = unknown> {
  /**
   * Time in ms that the generator goes on while no client is attached. Items are kept as long, and at least ten minutes.
   * @default {60_000}
   */
  readonly ttl?: number;
  /**
   * Maximum number of items kept, and of items that the generator is ahead of the fastest attached client. At most 4 MiB are kept.
   * @default {10_000}
   */
  readonly size?: number;
  /** Joins consecutive items into fewer, for a client that has missed them. Synchronous. */
  merge?(items: Item[]): Item[];
  /** A name of yours that `client.streams()` lists, such as the id of a chat: up to 128 characters. @default none */
  key?(context: HandlerContext<Payload>): string;
  /**
   * Decides who may attach, and stop the stream. Its id then holds the user, the role and the `key`.
   * @default the same user with the same role; of an anonymous client, any anonymous client with the id, which cannot be guessed
   */
  authorize?(context: AttachContext): boolean | Promise<boolean>;
}

/** Time in ms that items are kept at least. */
const KEPT = 600_000;

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

/** Validates the options and applies the defaults. @throws {TypeError} for an unknown option or a value out of range. */
export function resolveKind(type: string, options: ResumableOptions | true): StreamKind {
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
  const { ttl = 60_000, size = 10_000, merge, key, authorize } = given;
  return {
    type,
    ttl,
    history: { size, ttl: Math.max(ttl, KEPT) },
    ...(merge && { merge }),
    ...(key && { key }),
    ...(authorize && { authorize }),
  };
}

function isFunction(value: unknown): boolean {
  return typeof value === "function";
}
