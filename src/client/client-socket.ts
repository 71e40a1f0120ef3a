import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { ClientError } from "./error.ts";
import { type CloseInfo, type Failure, readFailure } from "./failure.ts";
import { readFrame } from "./frames.ts";
import type { ResolvedOptions } from "./options.ts";
import { createTimer } from "./platform.ts";

/** Interval of the timer, in ms: a machine that wakes from sleep is noticed within half a second. */
const TICK = 500;
/** A timer this much too late (ms) means that the machine slept or the page was frozen. */
const JUMP = 2_500;
/** Time for an answer, in ms: with a timer that is late, the documented five seconds. */
const PATIENCE = 4_500;
/** Time for an answer after a jump, in ms: with the tick before it, the documented one second. */
const WAKE_PATIENCE = 400;
/** How long to wait for the peer's close frame, in ms. */
const CLOSE_PATIENCE = 2_000;

/** What a connection needs from the connector. */
export interface ClientSocketHost {
  opened(): void;
  received(message: WebSocketMessage): void;
  /** Called once. `wasOpened`: the upgrade succeeded. */
  ended(close: CloseInfo, wasOpened: boolean): void;
  /** Sends the heartbeat's ping. */
  ping(): void;
  /** Reports a frame that cannot be read. */
  invalid(error: ClientError): void;
}

/** One WebSocket from opening to close, with a heartbeat that detects a dead peer: a ping every period, and at once after a sleep. */
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
   * With 1006 the socket is terminated without a close frame where the platform supports it.
   *
   * @param sentCode the code of the close frame. @default {4000}
   */
  end(code: number, reason: string, sentCode?: number): void;
}

/** @throws what the `WebSocket` constructor throws, such as for an invalid URL or a token that is no valid subprotocol. */
export function openSocket(options: ResolvedOptions, url: string, protocols: string[], host: ClientSocketHost): ClientSocket {
  const { clock, heartbeat, maxFrame, WebSocket } = options;
  const socket = new WebSocket(url, protocols);
  const timer = createTimer(clock);
  const patience = createTimer(clock);
  let wasOpened = false;
  let hasEnded = false;
  let failure: Failure = { reason: "" };
  /** When the timer is due, by the wall clock: some monotonic clocks stop during sleep. */
  let dueAt: number;
  /** Time of the next ping, and when the connection is declared dead: `Infinity` while no answer is due. */
  let pingAt: number;
  let deadAt = Infinity;
  let resolveGone: () => void;
  const gone = new Promise<void>((resolve) => resolveGone = resolve);

  const stop = (close: CloseInfo) => {
    hasEnded = true; // Set first: a listener may check it.
    timer();
    host.ended(close, wasOpened);
  };

  const end = (code: number, reason: string, sentCode = 4000) => {
    if (hasEnded) return;
    hasEnded = true;
    // Set first: some platforms call `onclose` before they return.
    patience(() => {
      socket.terminate?.();
      resolveGone();
    }, CLOSE_PATIENCE);
    if (code === 1006 && socket.terminate) socket.terminate();
    else {
      try {
        // Browsers accept only 1000 and 3000 to 4999, and reasons of at most 123 bytes.
        socket.close(sentCode, reason.slice(0, 40));
      } catch {
        socket.close();
      }
    }
    // Clean only if the peer was sent this very code; otherwise the peer is presumed dead or at fault.
    stop({ code, reason, wasClean: code === sentCode });
  };

  const start = () => {
    pingAt = clock.monotonic() + (heartbeat || Infinity);
    wait();
  };

  /** Waits for what is due next. Without a period nothing is, unless an answer is. */
  const wait = () => {
    const left = Math.min(pingAt, deadAt) - clock.monotonic();
    // At the same times in all clients of a machine, so that it wakes once for all of them.
    const delay = Math.min(left, TICK - clock.now() % TICK || left);
    dueAt = clock.now() + delay;
    timer(left < Infinity ? check : undefined, delay);
  };

  const probe = () => {
    deadAt = Math.min(deadAt, clock.monotonic() + PATIENCE);
    start();
    host.ping();
  };

  const check = () => {
    const now = clock.monotonic();
    // A wall clock that is set forward costs one needless ping.
    if (clock.now() - dueAt > JUMP) {
      pingAt = now;
      // An answer that was due before the sleep may still be unread.
      deadAt = now + WAKE_PATIENCE;
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
  // `onclose` follows. Without a listener `ws` would throw.
  socket.onerror = (event) => void (failure = readFailure(event));
  socket.onclose = ({ code, reason, wasClean }: CloseInfo) => {
    patience();
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
