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

/** What one may cost beside its message: what was missed, a snapshot and the members, two messages each. */
const ASKED_COST = 6;

/** More than any client sends. */
const UNLIMITED = 1e15;

/** Bytes of a ping, at least. */
const PING_BYTES = 64;

/** Messages and their bytes. */
interface Amount {
  messages: number;
  bytes: number;
}

/**
 * Sends what the server takes (PROTOCOL.md §2.9), and no faster. What was sent may wait there until a ping that came after it is answered.
 * The answer also says what is left of the rate; from then on it is refilled as time passes here.
 */
export class Pace {
  readonly #host: PaceHost;
  /** Messages that may wait, and their bytes. The defaults are those of a server that says nothing. */
  #waiting = 63;
  #payload = 65_536;
  #messages: AnnouncedBucket = { rate: 100, burst: 2_000, left: 2_000 };
  #bytes: AnnouncedBucket = { rate: 2 ** 20, burst: 2 ** 23, left: 2 ** 23 };
  /** The largest message, in bytes, if the server has said it. */
  #largest = UNLIMITED;
  /** When the last ping was answered, in ms of the monotonic clock. */
  #at = 0;
  /** What was sent after the last ping that was answered. */
  #sent: Amount = { messages: 0, bytes: 0 };
  /** What of it was sent after the ping under way. */
  #after: Amount = { messages: 0, bytes: 0 };
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
    this.#sent = { messages: 0, bytes: 0 };
    this.#after = { messages: 0, bytes: 0 };
  }

  /** Whether the server takes no message of this size, as far as it has said so. */
  isTooBig(text: string): boolean {
    return text.length * 3 > this.#largest && bytesOf(text) > this.#largest;
  }

  /** Sends it if the server takes it now. */
  send(text: string, isSubscribe = false): boolean {
    if (this.#timer !== undefined) return false;
    const size = bytesOf(text);
    const { messages, bytes } = this.#sent;
    // With room for a ping.
    const cost = Math.min(2, this.#messages.burst);
    const isBusy = this.#isBlind || messages >= this.#waiting || messages > 0 &&
        (bytes + size > this.#payload || messages + this.#asks + cost > this.#messages.burst || bytes + size + PING_BYTES > this.#bytes.burst);
    if (!isBusy) {
      if (this.#mustWait(cost, size)) return false;
      this.count(size);
      if (isSubscribe) this.#asks += ASKED_COST;
      this.#host.send(text);
    }
    if (isBusy || messages * 2 >= this.#waiting || (bytes + size) * 2 >= this.#payload) this.#ask();
    return !isBusy;
  }

  /** Something is sent that cannot wait. */
  count(size = PING_BYTES): void {
    for (const amount of [this.#sent, this.#after]) {
      amount.messages++;
      amount.bytes += size;
    }
  }

  /** The ping of a heartbeat. In place of one that may never be answered it is that. */
  probe(ping: WebSocketMessage): WebSocketMessage {
    if (this.#uid) return this.#ping();
    this.count();
    return ping;
  }

  /** All that was sent before this one has been taken when it is answered. */
  mark(uid: string): void {
    this.#uid = uid;
    this.count();
    this.#after = { messages: 0, bytes: 0 };
  }

  /** A message of the server, which may be the answer. */
  heard({ uid, limits }: WebSocketMessage): void {
    if (!this.#uid || uid !== this.#uid) return;
    const { messages, bytes } = this.#sent;
    const now = this.#host.clock.monotonic();
    const seconds = (now - this.#at) / 1000;
    this.#at = now;
    this.#uid = undefined;
    this.#isBlind = false;
    this.#sent = this.#after;
    this.#after = { ...this.#sent };
    this.#asks = ASKED_COST * this.#host.asked();
    if (limits) {
      const said = limits as Record<string, unknown>; // Or what a hostile server has in its place.
      this.#largest = this.#payload = numberOf(said["payload"]);
      this.#waiting = Math.max(1, numberOf(said["waiting"]) - 1);
      this.#messages = bucketOf(said["messages"]);
      this.#bytes = bucketOf(said["bytes"]);
    } else {
      const refill = (bucket: AnnouncedBucket, taken: number) => {
        bucket.left = Math.min(bucket.burst, bucket.left + seconds * bucket.rate) - taken;
      };
      refill(this.#messages, messages - this.#sent.messages);
      refill(this.#bytes, bytes - this.#sent.bytes);
    }
    this.#host.resume();
  }

  /** The server asks to wait so many ms. It has not read all that was sent, and nothing is left of its rate. */
  pause(ms: number): void {
    this.reset();
    this.#at = this.#host.clock.monotonic();
    this.#messages.left = this.#bytes.left = 0;
    // A server that says what is left is asked first. A timer may be early.
    if (this.#largest < UNLIMITED) ms += 50;
    else this.#isBlind = false;
    this.#wait(ms);
  }

  #ask(): void {
    if (!this.#uid && !this.#mustWait(1, PING_BYTES)) this.#host.send(JSON.stringify(this.#ping()));
  }

  #ping(): WebSocketMessage {
    const uid = this.#host.nextUid();
    this.mark(uid);
    return { type: "ping", uid, limits: true };
  }

  /** Whether so much more is not within the rate yet. */
  #mustWait(messages: number, bytes: number): boolean {
    const seconds = (this.#host.clock.monotonic() - this.#at) / 1000;
    const short = ({ rate, burst, left }: AnnouncedBucket, sent: number, cost: number) =>
      (sent + Math.min(cost, burst) - left) / rate - seconds;
    const wait = Math.max(short(this.#messages, this.#sent.messages + this.#asks, messages), short(this.#bytes, this.#sent.bytes, bytes));
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

const numberOf = (value: unknown): number => typeof value === "number" && value >= 0 ? value : UNLIMITED;

const bucketOf = (bucket: unknown): AnnouncedBucket => {
  const { rate, burst, left } = Object(bucket) as Record<string, unknown>;
  return { rate: numberOf(rate), burst: numberOf(burst), left: numberOf(left) };
};

/** Of UTF-8. */
const bytesOf = (text: string): number =>
  text.replace(/[\x80-\u07ff\ud800-\udfff]/g, "__").replace(/[\u0800-\uffff]/g, "___").length;
