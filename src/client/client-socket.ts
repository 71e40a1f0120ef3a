import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { ClientError } from "./error.ts";
import { type CloseInfo, type Failure, readFailure } from "./failure.ts";
import { readFrame } from "./frames.ts";
import { createLivenessProbe, type LivenessProbe } from "./liveness-probe.ts";
import type { ResolvedOptions } from "./options.ts";
import { createTimer } from "./platform.ts";

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

/** One WebSocket from opening to close, with a heartbeat that detects a dead peer. */
export interface ClientSocket extends LivenessProbe {
  /** Resolves when the socket has closed, or the peer did not answer the close in time. */
  readonly gone: Promise<void>;
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
  const patience = createTimer(clock);
  let wasOpened = false;
  let hasEnded = false;
  let failure: Failure = { reason: "" };
  let resolveGone: () => void;
  const gone = new Promise<void>((resolve) => resolveGone = resolve);

  const stop = (close: CloseInfo) => {
    hasEnded = true; // Set first: a listener may check it.
    liveness.stop();
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

  const liveness = createLivenessProbe(clock, heartbeat, host.ping, () => end(1006, "No answer"));

  socket.onopen = () => {
    wasOpened = true;
    if (!hasEnded) host.opened();
  };
  socket.onmessage = ({ data }: { data: unknown }) => {
    if (hasEnded) return;
    liveness.heard();
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
    ...liveness,
    gone,
    send(text) {
      // After a close, browsers drop the message silently and some runtimes throw.
      if (socket.readyState === 1) socket.send(text);
    },
    end,
  };
}
