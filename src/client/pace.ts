import type { AnnouncedBucket, AnnouncedLimits, WebSocketMessage } from "../protocol/protocol.ts";
import type { ClientClock } from "./platform.ts";

/** What a pace needs from the connector. */
export interface PaceHost {
  readonly clock: ClientClock;
  nextUid(): string;
  send(text: string): void;
  /** Called when more can be sent. */
  resume(): void;
  /** Number of `subscribe` messages that are sent and unanswered. */
  unanswered(): number;
}

/** A number of messages and their total bytes. */
type Amount = [messages: number, bytes: number];

/** Assumed size of a ping or another small message, in bytes. */
const PING_BYTES = 64;

/** Worst cost of a subscription besides its message: recovery, snapshot and members, two messages each. */
const SUBSCRIBE_COST = 6;

/**
 * Keeps what the client sends within the server's announced limits (PROTOCOL.md §2.9). A sent message may occupy the server's queue
 * until a later ping is answered. That pong also reports what is left of the rate, which the client then refills by its own clock.
 * Limits are untrusted and unchecked: a missing or invalid one becomes `NaN`, every comparison is false, and nothing is limited.
 */
export class Pace {
  readonly #host: PaceHost;
  /** The server's queue, in messages and bytes. Until the server announces its limits, these are its defaults. */
  #waiting = 63;
  #payload = 65_536;
  #rates: [messages: AnnouncedBucket, bytes: AnnouncedBucket] = [
    { rate: 100, burst: 2_000, left: 2_000 },
    { rate: 2 ** 20, burst: 2 ** 23, left: 2 ** 23 },
  ];
  /** Largest message in bytes; unlimited until the server announces it. */
  #largest = Infinity;
  /** When the last ping was answered, in ms of the monotonic clock. */
  #answeredAt = 0;
  /** Sent since the last answered ping. */
  #sent: Amount = [0, 0];
  /** The part of `#sent` that followed the pending ping. */
  #sentAfterPing: Amount = [0, 0];
  /** Messages reserved for the cost of unanswered subscriptions. */
  #reserved = 0;
  /** The `uid` of the pending ping. */
  #uid: string | undefined;
  /** Nothing but a ping is sent until one has been answered. */
  #isBlind = true;
  /** Nothing is sent until it fires. */
  #timer: unknown;

  constructor(host: PaceHost) {
    this.#host = host;
  }

  /** The connection has ended. */
  reset(): void {
    this.#host.clock.clearTimeout(this.#timer);
    this.#timer = this.#uid = undefined;
    this.#isBlind = true;
    this.#reserved = 0;
    this.#sent = [0, 0];
    this.#sentAfterPing = [0, 0];
  }

  /** Whether the message exceeds the announced maximum. */
  isTooBig(text: string): boolean {
    return bytesOf(text) > this.#largest;
  }

  /** Sends the message if the server accepts it now. Returns whether it did. */
  send(text: string, isSubscribe?: boolean): boolean {
    if (this.#timer) return false;
    const size = bytesOf(text);
    const [messages, bytes] = this.#sent;
    const total = bytes + size;
    const [{ burst }, { burst: burstBytes }] = this.#rates;
    // Leaves room for a ping.
    const isBusy = this.#isBlind || messages >= this.#waiting || messages > 0 &&
        (total > this.#payload || messages + this.#reserved + 2 > burst || total + PING_BYTES > burstBytes);
    if (!isBusy) {
      if (this.#mustWait(2, size)) return false;
      this.#count(size);
      if (isSubscribe) this.#reserved += SUBSCRIBE_COST;
      this.#host.send(text);
    }
    if ((isBusy || messages * 2 >= this.#waiting || total * 2 >= this.#payload) && !this.#uid && !this.#mustWait(1, PING_BYTES)) {
      this.#host.send(JSON.stringify(this.#ping()));
    }
    return !isBusy;
  }

  /** Counts a small message that bypasses the pace. A heartbeat ping becomes a new measuring ping if one is pending, which may be lost. */
  probe(message: WebSocketMessage): WebSocketMessage {
    if (this.#uid && message.type === "ping") return this.#ping();
    this.#count(PING_BYTES);
    return message;
  }

  /** Registers a ping or `auth`: its answer means that the server has read everything sent before it. */
  mark(uid: string): void {
    this.#uid = uid;
    this.#count(PING_BYTES);
    this.#sentAfterPing = [0, 0];
  }

  /** Takes any message of the server, which may answer the pending ping. */
  heard({ uid, limits }: WebSocketMessage): void {
    if (!this.#uid || uid !== this.#uid) return;
    const now = this.#host.clock.monotonic();
    const seconds = (now - this.#answeredAt) / 1000;
    if (limits) {
      const { payload, waiting, messages, bytes } = limits as Required<AnnouncedLimits>; // Unchecked: the values are only compared.
      this.#largest = this.#payload = payload;
      this.#waiting = Math.max(1, waiting - 1);
      this.#rates = [Object(messages), Object(bytes)];
    } else {
      this.#rates.forEach((bucket, i) => {
        bucket.left = Math.min(bucket.burst, bucket.left + seconds * bucket.rate) - this.#sent[i]! + this.#sentAfterPing[i]!;
      });
    }
    this.#answeredAt = now;
    this.#uid = undefined;
    this.#isBlind = false;
    this.#sent = this.#sentAfterPing;
    this.#sentAfterPing = [...this.#sent];
    this.#reserved = SUBSCRIBE_COST * this.#host.unanswered();
    this.#host.resume();
  }

  /** The server asks to wait. It has discarded some messages, and nothing is left of the rate. */
  pause(ms: number): void {
    this.reset();
    this.#answeredAt = this.#host.clock.monotonic();
    for (const bucket of this.#rates) bucket.left = 0;
    // A server that announces limits is pinged first. 50 ms more, since timers may fire early.
    if (this.#largest < Infinity) ms += 50;
    else this.#isBlind = false;
    this.#wait(ms);
  }

  #ping(): WebSocketMessage {
    const uid = this.#host.nextUid();
    this.mark(uid);
    return { type: "ping", uid, limits: true };
  }

  #count(size: number): void {
    for (const amount of [this.#sent, this.#sentAfterPing]) {
      amount[0]++;
      amount[1] += size;
    }
  }

  /** Whether the rate forbids this amount now; starts the timer for when it is allowed. */
  #mustWait(...costs: Amount): boolean {
    const seconds = (this.#host.clock.monotonic() - this.#answeredAt) / 1000;
    const waits = this.#rates.map(({ rate, burst, left }, i) =>
      (this.#sent[i]! + (i ? 0 : this.#reserved) + Math.min(costs[i]!, burst) - left) / rate - seconds || 0 // NaN without this rate.
    );
    const wait = Math.max(...waits);
    if (wait > 0) this.#wait(Math.ceil(wait * 1000));
    return wait > 0;
  }

  #wait(ms: number): void {
    this.#timer = this.#host.clock.setTimeout(() => {
      this.#timer = undefined;
      this.#host.resume();
    }, Math.min(ms, 300_000));
  }
}

/** UTF-8 length. `JSON.stringify` escapes lone surrogates, at which `encodeURI` would throw. */
const bytesOf = (text: string): number => encodeURI(text).replace(/%../g, "_").length;
