import type { AnnouncedBucket, WebSocketMessage } from "../protocol.ts";
import type { ClientClock } from "./platform.ts";

/** What a pace needs of the connector. */
export interface PaceHost {
  readonly clock: ClientClock;
  nextUid(): string;
  send(text: string): void;
  /** More may be sent. */
  resume(): void;
  /** How many subscriptions the server has been asked for and not answered. */
  asked(): number;
}

/** Messages and their bytes. */
type Amount = [messages: number, bytes: number];

/** A ping, at least. */
const PING_BYTES = 64;

/** What a subscription may cost beside its message: what was missed, a snapshot and the members, two messages each. */
const ASKED_COST = 6;

/**
 * Sends what the server takes (PROTOCOL.md §2.9), and no faster. What was sent may wait there until a ping that came after it is answered.
 * The answer also says what is left of the rate; from then on it is refilled as time passes here. A limit that is absent, or is no number,
 * compares with nothing, and is none.
 */
export class Pace {
  readonly #host: PaceHost;
  /** Messages that may wait, and their bytes. The defaults are those of a server that says nothing. */
  #waiting = 63;
  #payload = 65_536;
  #rates: [messages: AnnouncedBucket, bytes: AnnouncedBucket] = [
    { rate: 100, burst: 2_000, left: 2_000 },
    { rate: 2 ** 20, burst: 2 ** 23, left: 2 ** 23 },
  ];
  /** The largest message, in bytes, if the server has said it. */
  #largest = Infinity;
  /** When the last ping was answered, in ms of the monotonic clock. */
  #at = 0;
  /** What was sent after the last ping that was answered. */
  #sent: Amount = [0, 0];
  /** What of it was sent after the ping under way. */
  #after: Amount = [0, 0];
  /** Messages that may yet be taken for subscriptions. */
  #asks = 0;
  /** Of the ping under way. */
  #uid: string | undefined;
  /** Whether nothing is sent before a ping is answered. */
  #isBlind = true;
  /** Nothing is sent before. */
  #timer: unknown;

  constructor(host: PaceHost) {
    this.#host = host;
  }

  /** Nothing is left of the connection. */
  reset(): void {
    this.#host.clock.clearTimeout(this.#timer);
    this.#timer = this.#uid = undefined;
    this.#isBlind = true;
    this.#asks = 0;
    this.#sent = [0, 0];
    this.#after = [0, 0];
  }

  /** Whether the server takes no message of this size, as far as it has said so. */
  isTooBig(text: string): boolean {
    return bytesOf(text) > this.#largest;
  }

  /** Sends it if the server takes it now. */
  send(text: string, isSubscribe?: boolean): boolean {
    if (this.#timer) return false;
    const size = bytesOf(text);
    const [messages, bytes] = this.#sent;
    const total = bytes + size;
    const [{ burst }, { burst: burstBytes }] = this.#rates;
    // With room for a ping.
    const isBusy = this.#isBlind || messages >= this.#waiting || messages > 0 &&
        (total > this.#payload || messages + this.#asks + 2 > burst || total + PING_BYTES > burstBytes);
    if (!isBusy) {
      if (this.#mustWait(2, size)) return false;
      this.#count(size);
      if (isSubscribe) this.#asks += ASKED_COST;
      this.#host.send(text);
    }
    if ((isBusy || messages * 2 >= this.#waiting || total * 2 >= this.#payload) && !this.#uid && !this.#mustWait(1, PING_BYTES)) {
      this.#host.send(JSON.stringify(this.#ping()));
    }
    return !isBusy;
  }

  /** Something small that cannot wait is sent. In place of a ping, while another may never be answered, it is one that asks. */
  probe(message: WebSocketMessage): WebSocketMessage {
    if (this.#uid && message.type === "ping") return this.#ping();
    this.#count(PING_BYTES);
    return message;
  }

  /** All that was sent before this one has been taken when it is answered. */
  mark(uid: string): void {
    this.#uid = uid;
    this.#count(PING_BYTES);
    this.#after = [0, 0];
  }

  /** A message of the server, which may be the answer. */
  heard({ uid, limits }: WebSocketMessage): void {
    if (!this.#uid || uid !== this.#uid) return;
    const now = this.#host.clock.monotonic();
    const seconds = (now - this.#at) / 1000;
    if (limits) {
      // deno-lint-ignore no-explicit-any -- of a server, which is not trusted: whatever it is, it is only compared
      const { payload, waiting, messages, bytes } = limits as any;
      this.#largest = this.#payload = payload;
      this.#waiting = Math.max(1, waiting - 1);
      this.#rates = [Object(messages), Object(bytes)];
    } else {
      this.#rates.forEach((bucket, i) => {
        bucket.left = Math.min(bucket.burst, bucket.left + seconds * bucket.rate) - this.#sent[i]! + this.#after[i]!;
      });
    }
    this.#at = now;
    this.#uid = undefined;
    this.#isBlind = false;
    this.#sent = this.#after;
    this.#after = [...this.#sent];
    this.#asks = ASKED_COST * this.#host.asked();
    this.#host.resume();
  }

  /** The server asks to wait so many ms. It has not read all that was sent, and nothing is left of its rate. */
  pause(ms: number): void {
    this.reset();
    this.#at = this.#host.clock.monotonic();
    for (const bucket of this.#rates) bucket.left = 0;
    // A server that says what is left is asked first. A timer may be early.
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
    for (const amount of [this.#sent, this.#after]) {
      amount[0]++;
      amount[1] += size;
    }
  }

  /** Whether so much more is not within the rate yet. */
  #mustWait(...costs: Amount): boolean {
    const seconds = (this.#host.clock.monotonic() - this.#at) / 1000;
    const waits = this.#rates.map(({ rate, burst, left }, i) =>
      (this.#sent[i]! + (i ? 0 : this.#asks) + Math.min(costs[i]!, burst) - left) / rate - seconds
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

/** Of UTF-8: what JSON.stringify returns has no lone surrogates, at which encodeURI throws. */
const bytesOf = (text: string): number => encodeURI(text).replace(/%../g, "_").length;
