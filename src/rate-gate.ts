import type { ClientKey } from "./client-key.ts";
import { type CloseCause, CloseCode } from "./close.ts";
import type { RequestLimit } from "./extension.ts";
import { MAX_EXCESS, type RateLimit, RateLimiter } from "./limits.ts";
import { type AnnouncedLimits, encode } from "./protocol.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** What asking for one thing costs, such as a recovery, a snapshot or a list of members, in messages. */
const ASK_COST = 2;

/** What is sent for it costs a message for so many bytes. Measured on Bun: to send 100 publications of 130 bytes takes as long as ten echoes. */
const BYTES_A_MESSAGE = 16_384;

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
export class RateGate implements RequestLimit {
  readonly #limiter: RateLimiter;
  readonly #now: () => number;
  readonly #keyOf: ClientKey;
  /** Messages that were refused so far. */
  limited = 0;

  /** @param now the monotonic clock, in ms. */
  constructor(rateLimit: Required<RateLimit>, now: () => number, keyOf: ClientKey) {
    this.#limiter = new RateLimiter(rateLimit);
    this.#now = now;
    this.#keyOf = keyOf;
  }

  /**
   * Whether a message of so many bytes is let in. If not, the client is told to wait, or closed.
   *
   * @param now the monotonic clock: it has been read already for each message.
   */
  lets(owner: RateGateOwner, bytes: number, now: number): boolean {
    const wait = this.#limiter.take(this.#keyOf(owner.client), bytes, now);
    if (wait === 0) {
      if (owner.flood && owner.flood.excess > 0) owner.flood.excess--;
      return true;
    }
    this.limited++;
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

  /** The two buckets of the client's messages: how fast they fill, how much they hold, and what is left in them now. */
  left(client: WebSocketClient): Required<Pick<AnnouncedLimits, "messages" | "bytes">> {
    return this.#limiter.left(this.#keyOf(client), this.#now());
  }

  /**
   * Takes what a message costs that asks for so many things beyond its own handling: 0 when that is within the limit, else the ms to wait.
   * Its sender answers it, by its `uid`: it has been read.
   */
  ask(client: WebSocketClient, asks: number): number {
    if (asks === 0) return 0;
    const key = this.#keyOf(client);
    const now = this.#now();
    const wait = this.#limiter.peek(asked(key), now) || this.#limiter.take(key, 0, now, ASK_COST * asks);
    if (wait > 0) this.limited++;
    return wait;
  }

  /** So many bytes are sent for what the client has asked for: {@link ask} has to wait until they are paid for, other messages need not. */
  spend(client: WebSocketClient, bytes: number): void {
    this.#limiter.charge(asked(this.#keyOf(client)), this.#now(), bytes / BYTES_A_MESSAGE);
  }
}

/** The bucket of what is sent for what was asked for: of the same size as that of messages, and apart from it. */
const asked = (key: string): string => `asked ${key}`;
