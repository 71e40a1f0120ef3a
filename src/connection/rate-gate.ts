import type { Writable } from "../base/writable.ts";
import type { Connection } from "./connection.ts";
import type { ClientKey } from "../application/client-key.ts";
import { CloseCode } from "../protocol/close.ts";
import type { RequestLimit } from "../application/extension.ts";
import { isLimitsPing } from "./pipeline.ts";
import { MAX_EXCESS, type RateLimit, RateLimiter } from "../base/limits.ts";
import type { AnnouncedLimits } from "../protocol/protocol.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";

/** Cost of a recovery, snapshot or list of members, in messages. */
const ASK_COST = 2;

/** Number of bytes in answers that cost one message. */
const BYTES_A_MESSAGE = 16_384;

/** Number of characters at the end of a refused message that are searched for its `uid`. */
const TAIL = 200;

/** A `uid` as the last field: an integer of at most 15 digits, or printable ASCII without escapes (PROTOCOL.md 3.3). */
const LAST_UID = /^[,{ ]"uid": ?("[ !#-[\]-~]{1,64}"|0|-?[1-9]\d{0,14}) ?\}$/;

/**
 * Messages whose effect an admitted client waits for before it sends anything else, and which it would not send again (PROTOCOL.md 3.3).
 * A `stream.cancel` with an `id` reads the history of the stream, which costs more than one with a `uid`.
 */
const URGENT = /^\{ ?"type": ?"(auth|ping|stream\.cancel(?=", ?"id":))"/;

/** Messages of a client beyond the limit. */
export interface Flood {
  /** Number of refused messages, minus those accepted since. */
  excess: number;
  /** The end of the last wait that the client was notified of, in ms of the monotonic clock. */
  notifiedUntil: number;
  /** When the next {@link URGENT} message of each type may be read beyond the limit, in ms of the monotonic clock. */
  readonly nextReadAt: Record<"auth" | "ping" | "stream.cancel", number>;
}

/** A connection whose messages are limited. Only {@link RateGate} writes `flood`. */
type Limited = Writable<Pick<Connection, "client" | "isPending" | "flood" | "transmit" | "close">>;

/** Applies the option `rateLimit` to all connections of a controller. */
export class RateGate implements RequestLimit {
  readonly #limiter: RateLimiter;
  readonly #burst: number;
  readonly #now: () => number;
  readonly #keyOf: ClientKey;
  /** Number of messages refused so far. */
  limited = 0;

  /** @param now the monotonic clock, in ms. */
  constructor(rateLimit: Required<RateLimit>, now: () => number, keyOf: ClientKey) {
    this.#limiter = new RateLimiter(rateLimit);
    this.#burst = rateLimit.burst;
    this.#now = now;
    this.#keyOf = keyOf;
  }

  /**
   * Returns whether a message of this size is within the limit. If not, the client receives an error with the time to wait, or is closed,
   * unless `takes` has handled the message.
   *
   * @param now the time, in ms of the monotonic clock.
   * @param text the message, if it is text. The error has its `uid` if that is the last field.
   * @param takes handles a message beyond the limit if the server waits for it. Returns whether it did.
   */
  accepts<Owner extends Limited>(
    owner: Owner,
    bytes: number,
    now: number,
    text = "",
    takes?: (owner: Owner, text: string) => boolean,
  ): boolean {
    const key = this.#keyOf(owner.client);
    const wait = this.#limiter.take(key, bytes, now);
    if (wait === 0) {
      if (owner.flood && owner.flood.excess > 0) owner.flood.excess--;
      return true;
    }
    if (!owner.isPending && takes?.(owner, text)) return false;
    const flood = floodOf(owner);
    if (!owner.isPending && isUrgent(flood.nextReadAt, text, now, wait)) {
      this.#limiter.charge(key, now, 1 + bytes / BYTES_A_MESSAGE);
      return true;
    }
    this.limited++;
    if (++flood.excess > MAX_EXCESS || owner.isPending) {
      owner.close(CloseCode.RATE_LIMITED, "Too many messages", "rate");
      return false;
    }
    // An error without a `uid` is sent once for each wait. The number of errors with a `uid` is limited by `MAX_EXCESS`.
    const uid = lastUid(text);
    if (uid === undefined && now < flood.notifiedUntil) return false;
    flood.notifiedUntil = now + wait;
    const error = `{"code":"REQUESTS_EXCEEDED","message":"Too many messages","retry_after":${wait}}`;
    owner.transmit(`{"type":"server","status":"error",${uid === undefined ? "" : `"uid":${uid},`}"error":${error}}`);
    return false;
  }

  /**
   * Charges an accepted `auth` for the subscriptions that are authorized again, one message each. It is not refused for that, but later
   * messages and another `auth` wait, at most for as long as it takes to fill the bucket.
   */
  renew(owner: Limited, subscriptions: number): void {
    const [key, now] = [this.#keyOf(owner.client), this.#now()];
    this.#limiter.charge(key, now, subscriptions, this.#burst);
    const wait = this.#limiter.peek(key, now);
    if (wait > 0) floodOf(owner).nextReadAt.auth = now + wait;
  }

  /** Refunds the cost of a message that does not count against the limit. */
  refund(client: WebSocketClient): void {
    this.#limiter.charge(this.#keyOf(client), this.#now(), -1);
  }

  /** The client's buckets for messages and bytes: rate, size, and what is left. */
  left(client: WebSocketClient): Required<Pick<AnnouncedLimits, "messages" | "bytes">> {
    return this.#limiter.left(this.#keyOf(client), this.#now());
  }

  /**
   * Charges a message for its expensive requests. Returns 0, or the ms to wait, in which case nothing was charged. The caller answers the
   * message, because it knows the `uid`.
   */
  ask(client: WebSocketClient, asks: number): number {
    if (asks === 0) return 0;
    const key = this.#keyOf(client);
    const now = this.#now();
    const wait = this.#limiter.peek(answersKey(key), now) || this.#limiter.take(key, 0, now, ASK_COST * asks);
    if (wait > 0) this.limited++;
    return wait;
  }

  /** Charges bytes that are sent in answer. They delay further calls of {@link ask}, but no other messages. */
  spend(client: WebSocketClient, bytes: number): void {
    this.#limiter.charge(answersKey(this.#keyOf(client)), this.#now(), bytes / BYTES_A_MESSAGE);
  }
}

/**
 * The `uid`, as JSON, of a message that ends with it, without parsing the message: in JSON, only a field of the message can be at its end.
 * `undefined` for messages about a running stream, because its request has the same `uid`.
 */
function lastUid(text: string): string | undefined {
  const tail = text.slice(-TAIL);
  const at = tail.lastIndexOf('"uid":');
  return at < 1 || tail.includes('"stream.') ? undefined : LAST_UID.exec(tail.slice(at - 1))?.[1];
}

const floodOf = (owner: Limited): Flood =>
  owner.flood ??= { excess: 0, notifiedUntil: 0, nextReadAt: { auth: 0, ping: 0, "stream.cancel": 0 } };

/** Whether the message is read beyond the limit: one of each type during each wait. Its cost makes the next wait longer. */
function isUrgent(nextReadAt: Flood["nextReadAt"], text: string, now: number, wait: number): boolean {
  const type = URGENT.exec(text)?.[1] as keyof Flood["nextReadAt"] | undefined; // The types of the expression.
  if (!type || now < nextReadAt[type] || type === "ping" && !isLimitsPing(text)) return false;
  nextReadAt[type] = now + wait;
  return true;
}

/** The key of a second bucket, for the bytes sent in answer, as large as the one for messages. */
const answersKey = (key: string): string => `asked ${key}`;
