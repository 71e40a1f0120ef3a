import type { AnnouncedBucket, AnnouncedLimits, WebSocketMessage } from "../protocol/protocol.ts";
import { bytesOf } from "./encode.ts";
import { ClientError } from "./error.ts";
import { type ClientClock, createTimer } from "./platform.ts";

/** A number of messages and their total bytes. */
type Amount = [messages: number, bytes: number];

/** Assumed size of a ping or another small message, in bytes. */
const PING_BYTES = 64;

/** Maximum cost of a subscription besides its message: two messages each for recovery, snapshot and members. */
const SUBSCRIBE_COST = 6;

/**
 * Keeps the client within the server's announced limits (PROTOCOL.md §2.9). A sent message may occupy the server's queue until a later ping
 * is answered. That pong also reports the remaining rate, which the client then refills by its own clock. Announced limits are not
 * validated: with a missing or invalid one, comparisons with `NaN` are false, so that nothing is limited.
 */
export interface Pace {
  /** The connection has ended. */
  reset(): void;
  /**
   * Sends a message if the server accepts it now.
   *
   * @param refused called if the message exceeds the server's maximum, for which the server would close the connection.
   * @returns whether the message was sent or refused.
   */
  offer(text: string, refused: (error: ClientError) => void, isSubscribe?: boolean): boolean;
  /** Sends a small message at once. If a ping is pending, which may be lost, a heartbeat ping replaces it. */
  send(message: WebSocketMessage): void;
  /** Sends a ping or `auth` at once. Its answer means that the server has read everything that was sent before it. */
  measure(message: WebSocketMessage & { uid: string }): void;
  /** Called with each message of the server, which may answer the pending ping. */
  heard(message: WebSocketMessage): void;
  /** The server asks to wait. It has discarded messages, and nothing is left of the rate. */
  pause(ms: number): void;
}

/**
 * @param nextUid returns a new unique uid.
 * @param isReady returns whether the server handles messages.
 * @param resume called when more can be sent.
 * @param unanswered returns the number of sent `subscribe` messages without an answer.
 */
export function createPace(
  clock: ClientClock,
  nextUid: () => string,
  isReady: () => boolean,
  send: (text: string) => void,
  resume: () => void,
  unanswered: () => number,
): Pace {
  /** Size of the server's queue, in messages and bytes. The server's defaults until it announces its limits. */
  let waiting = 63;
  let payload = 65_536;
  let rates: [messages: AnnouncedBucket, bytes: AnnouncedBucket] = [
    { rate: 100, burst: 2_000, left: 2_000 },
    { rate: 2 ** 20, burst: 2 ** 23, left: 2 ** 23 },
  ];
  /** Maximum size of a message in bytes; unlimited until the server announces it. */
  let largest = Infinity;
  /** When the last ping was answered, in ms of the monotonic clock. */
  let answeredAt = 0;
  /** What was sent since the last answered ping, and the part of it before the pending ping. */
  let sent: Amount;
  let marked: Amount;
  /** Number of messages that are reserved for the cost of unanswered subscriptions. */
  let reserved: number;
  /** The `uid` of the pending ping. */
  let uid: string | undefined;
  /** Whether only a ping may be sent, until it is answered. */
  let isBlind: boolean;
  /** Whether nothing is sent until the timer fires. */
  let isPaused: boolean;
  const timer = createTimer(clock);

  const reset = () => {
    timer();
    uid = undefined;
    isBlind = true;
    isPaused = false;
    reserved = 0;
    sent = [0, 0];
  };
  reset();

  const wait = (ms: number) => {
    isPaused = true;
    timer(() => {
      isPaused = false;
      resume();
    }, Math.min(ms, 300_000));
  };

  const count = (size: number) => {
    sent[0]++;
    sent[1] += size;
  };

  const measure: Pace["measure"] = (message) => {
    ({ uid } = message);
    count(PING_BYTES);
    marked = [...sent];
    send(JSON.stringify(message));
  };

  const ping = () => measure({ type: "ping", uid: nextUid(), limits: true });

  /** Returns whether the rate forbids this amount now. Then it sets the timer for when it is allowed. */
  const mustWait = (...costs: Amount) => {
    const seconds = (clock.monotonic() - answeredAt) / 1000;
    const waits = rates.map(({ rate, burst, left }, i) =>
      (sent[i]! + (i ? 0 : reserved) + Math.min(costs[i]!, burst) - left) / rate - seconds || 0 // NaN without this rate.
    );
    const ms = Math.ceil(Math.max(...waits) * 1000);
    if (ms > 0) wait(ms);
    return isPaused;
  };

  return {
    reset,
    measure,
    offer(text, refused, isSubscribe) {
      const size = bytesOf(text);
      if (size > largest) {
        refused(new ClientError("MESSAGE_TOO_BIG", "Cannot send: it is too big"));
        return true;
      }
      if (isPaused || !isReady()) return false;
      const [messages, bytes] = sent;
      const total = bytes + size;
      const [{ burst }, { burst: burstBytes }] = rates;
      // With room for a ping.
      const isBusy = isBlind || messages >= waiting || messages > 0 &&
          (total > payload || messages + reserved + 2 > burst || total + PING_BYTES > burstBytes);
      if (!isBusy) {
        if (mustWait(2, size)) return false;
        count(size);
        if (isSubscribe) reserved += SUBSCRIBE_COST;
        send(text);
      }
      if ((isBusy || messages * 2 >= waiting || total * 2 >= payload) && !uid && !mustWait(1, PING_BYTES)) {
        ping();
      }
      return !isBusy;
    },
    send(message) {
      if (uid && message.type === "ping") return ping();
      count(PING_BYTES);
      send(JSON.stringify(message));
    },
    heard({ uid: answered, limits }) {
      if (!uid || answered !== uid) return;
      const now = clock.monotonic();
      if (limits) {
        const { payload: size, waiting: queueLength, messages, bytes } = limits as Required<AnnouncedLimits>; // Unchecked: only compared.
        largest = payload = size;
        waiting = Math.max(1, queueLength - 1);
        rates = [Object(messages), Object(bytes)];
      } else {
        rates.forEach((bucket, i) => {
          bucket.left = Math.min(bucket.burst, bucket.left + (now - answeredAt) / 1000 * bucket.rate) - marked[i]!;
        });
      }
      answeredAt = now;
      uid = undefined;
      isBlind = false;
      sent = [sent[0] - marked[0], sent[1] - marked[1]];
      reserved = SUBSCRIBE_COST * unanswered();
      resume();
    },
    pause(ms) {
      reset();
      answeredAt = clock.monotonic();
      for (const bucket of rates) bucket.left = 0;
      // If the server announces limits, it is pinged first. 50 ms more, because timers may fire early.
      if (largest < Infinity) ms += 50;
      else isBlind = false;
      wait(ms);
    },
  };
}
