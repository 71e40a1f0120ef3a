import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { ClientError } from "./error.ts";
import { type CloseInfo, type Failure, readFailure } from "./failure.ts";
import { readFrame } from "./frames.ts";
import type { ResolvedOptions } from "./options.ts";
import { createTimer } from "./platform.ts";

/** Interval of the timer, in ms, so that the client notices within half a second that the machine has slept. */
const TICK = 500;
/** If a timer is later than this, in ms, the machine has slept or the page was frozen. */
const JUMP = 2_500;
/** Time for an answer, in ms. With the interval of the timer, the documented five seconds. */
const ANSWER_TIMEOUT = 4_500;
/** Time for an answer after a jump, in ms. With the interval of the timer, the documented one second. */
const WAKE_ANSWER_TIMEOUT = 400;
/** Time for the peer's close frame, in ms. */
const CLOSE_TIMEOUT = 2_000;

/** What a connection needs from the connector. */
export interface ClientSocketHost {
  opened(): void;
  received(message: WebSocketMessage): void;
  /** Called once at the end. @param wasOpened whether the upgrade has succeeded. */
  ended(close: CloseInfo, wasOpened: boolean): void;
  /** Sends the heartbeat's ping. */
  ping(): void;
  /** Reports a frame that cannot be read. */
  invalid(error: ClientError): void;
}

/** One WebSocket with a heartbeat, which pings every period and at once after a sleep, to detect a dead peer. */
export interface ClientSocket {
  /** Resolves when the socket has closed, or the peer did not answer the close in time. */
  readonly gone: Promise<void>;
  /** Starts the heartbeat. */
  start(): void;
  /** Pings now. Any frame counts as an answer. */
  probe(): void;
  send(text: string): void;
  /**
   * Ends the connection at once, without waiting for the peer, which may be dead. Later frames are ignored.
   * With 1006, the socket is terminated without a close frame if the platform can do that.
   *
   * @param sentCode the code of the close frame. @default {4000}
   */
  end(code: number, reason: string, sentCode?: number): void;
}

/** @throws what the `WebSocket` constructor throws, such as for an invalid URL or a token that is not a valid subprotocol. */
export function openSocket(options: ResolvedOptions, url: string, protocols: string[], host: ClientSocketHost): ClientSocket {
  const { clock, heartbeat, maxFrame, WebSocket } = options;
  const socket = new WebSocket(url, protocols);
  const timer = createTimer(clock);
  const closeTimer = createTimer(clock);
  let wasOpened = false;
  let hasEnded = false;
  let failure: Failure = { reason: "" };
  /** When the timer is due, by the wall clock, because some monotonic clocks stop during sleep. */
  let dueAt: number;
  /** Time of the next ping, and time at which the connection counts as dead; `Infinity` if no answer is awaited. */
  let pingAt: number;
  let deadAt = Infinity;
  let resolveGone: () => void;
  const gone = new Promise<void>((resolve) => resolveGone = resolve);

  const stop = (close: CloseInfo) => {
    hasEnded = true; // Set first, because a listener may check it.
    timer();
    host.ended(close, wasOpened);
  };

  const end = (code: number, reason: string, sentCode = 4000) => {
    if (hasEnded) return;
    hasEnded = true;
    // Set first, because some platforms call `onclose` before `close` returns.
    closeTimer(() => {
      socket.terminate?.();
      resolveGone();
    }, CLOSE_TIMEOUT);
    if (code === 1006 && socket.terminate) socket.terminate();
    else {
      try {
        // Browsers accept only 1000 and 3000 to 4999, and reasons of at most 123 bytes.
        socket.close(sentCode, reason.slice(0, 40));
      } catch {
        socket.close();
      }
    }
    // Clean only if this code was sent to the peer; otherwise the peer is presumed dead or faulty.
    stop({ code, reason, wasClean: code === sentCode });
  };

  const start = () => {
    pingAt = clock.monotonic() + (heartbeat || Infinity);
    wait();
  };

  /** Sets the timer for the next ping or the time limit of an answer, if any. */
  const wait = () => {
    const left = Math.min(pingAt, deadAt) - clock.monotonic();
    // In all clients of a machine at the same times, so that it wakes once for all of them.
    const delay = Math.min(left, TICK - clock.now() % TICK || left);
    dueAt = clock.now() + delay;
    timer(left < Infinity ? check : undefined, delay);
  };

  const probe = () => {
    deadAt = Math.min(deadAt, clock.monotonic() + ANSWER_TIMEOUT);
    start();
    host.ping();
  };

  const check = () => {
    const now = clock.monotonic();
    // A wall clock that is set forward causes one needless ping.
    if (clock.now() - dueAt > JUMP) {
      pingAt = now;
      // An answer from before the sleep may still be unread.
      deadAt = now + WAKE_ANSWER_TIMEOUT;
    }
    if (now >= deadAt) end(1006, "No answer");
    else if (now >= pingAt) probe();
    else wait();
  };

  socket.onopen = () => {
    wasOpened = true;
    if (!hasEnded) host.opened();
  };
  socket.onmessage = ({ data }: { data: unknown }) => {
    if (hasEnded) return;
    deadAt = Infinity;
    if (typeof data === "string" && data.length > maxFrame) return end(1009, "Message too big");
    for (const message of readFrame(data, host.invalid)) {
      // An earlier message of the frame may have ended the connection.
      if (!hasEnded) host.received(message);
    }
  };
  // `onclose` follows. Without a listener, `ws` would throw.
  socket.onerror = (event) => void (failure = readFailure(event));
  socket.onclose = ({ code, reason, wasClean }: CloseInfo) => {
    closeTimer();
    resolveGone();
    // Without a close frame, some platforms report code 0 or no fields at all.
    if (!hasEnded) stop({ ...failure, code: code || 1006, reason: reason || failure.reason, wasClean: !!wasClean });
  };

  return {
    gone,
    start,
    probe,
    send(text) {
      // After a close, browsers drop the message silently and some runtimes throw.
      if (socket.readyState === 1) socket.send(text);
    },
    end,
  };
}
