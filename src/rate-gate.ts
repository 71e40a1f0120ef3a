import { addressKey } from "./address.ts";
import { type CloseCause, CloseCode } from "./close.ts";
import { ask } from "./guard.ts";
import { MAX_EXCESS, RateLimiter } from "./limits.ts";
import type { ResolvedOptions } from "./options.ts";
import { encode } from "./protocol.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** What a client has sent beyond the limit. */
export interface Flood {
  /** Messages that were refused, less those let through since: one who floods evenly is let through now and then. */
  excess: number;
  /** Until when the client has been told to wait, in ms of the monotonic clock. */
  toldUntil: number;
}

/** The connection whose messages are limited. */
export interface RateGateOwner {
  readonly client: WebSocketClient;
  readonly isPending: boolean;
  /** Absent until a message is refused. Written by {@link RateGate} only. */
  flood: Flood | undefined;
  transmit(text: string): void;
  close(code: number, reason: string, cause: CloseCause): void;
}

/** Lets as many messages in as the option `rateLimit` says: one for all connections of a controller. */
export class RateGate {
  readonly #limiter: RateLimiter;
  readonly #now: () => number;
  readonly #keyOf: (client: WebSocketClient) => string;

  /**
   * @param now the monotonic clock, in ms.
   * @param report told what the application's `key` throws.
   */
  constructor(
    rateLimit: Exclude<ResolvedOptions["rateLimit"], false>,
    now: () => number,
    report: (error: unknown, client: WebSocketClient) => void,
  ) {
    this.#limiter = new RateLimiter(rateLimit);
    this.#now = now;
    this.#keyOf = keyOf(rateLimit.key, report);
  }

  /** Whether a message of so many bytes is let in. If not, the client is told to wait, or closed. */
  lets(owner: RateGateOwner, bytes: number): boolean {
    const now = this.#now();
    const wait = this.#limiter.take(this.#keyOf(owner.client), bytes, now);
    if (wait === 0) {
      if (owner.flood && owner.flood.excess > 0) owner.flood.excess--;
      return true;
    }
    const flood = owner.flood ??= { excess: 0, toldUntil: 0 };
    if (++flood.excess > MAX_EXCESS || owner.isPending) {
      owner.close(CloseCode.RATE_LIMITED, "Too many messages", "rate");
    } else if (now >= flood.toldUntil) {
      // Told once, not for each message: answering was 43 % of what a flood cost.
      flood.toldUntil = now + wait;
      const error = { code: "REQUESTS_EXCEEDED", message: "Too many messages", retry_after: wait };
      owner.transmit(encode({ type: "server", status: "error", error }));
    }
    return false;
  }
}

/** Whose bucket a client's messages are taken from. */
function keyOf(
  key: ((client: WebSocketClient) => string) | undefined,
  report: (error: unknown, client: WebSocketClient) => void,
): (client: WebSocketClient) => string {
  return (client) => {
    const named = key && ask(() => key(client), (named) => typeof named === "string", (error) => report(error, client));
    if (named !== undefined) return `key:${named}`;
    const { user } = client.accountability;
    if (user !== null) return `user:${user}`;
    const { ip } = client.handshake;
    return ip === null ? `uid:${client.uid}` : `ip:${addressKey(ip)}`;
  };
}
