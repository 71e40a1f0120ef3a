import type { Deadlines } from "../base/clock.ts";
import type { Engine } from "../engines/engine.ts";
import type { WebSocketClient } from "./websocket-client.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";

/** What the handling of idempotent requests needs from the controller. */
export interface OnceHost {
  /** The engine of the controller. The first read of this property starts it. */
  readonly engine: Engine;
  /** Deadlines of the controller. */
  readonly deadlines: Deadlines;
  /** The wall clock, in ms. */
  now(): number;
  /** Reports an error of background work. */
  report(error: unknown, client?: WebSocketClient): void;
}

/** An idempotent request in progress. */
export interface OnceAnswer {
  /**
   * Settles once it is known whether this request runs or repeats another; later messages of the client wait for it. Absent:
   * that is known already. Never rejects.
   */
  readonly entered?: Promise<void>;
  /** The result of the request, or of the one that it repeats. */
  readonly result: Promise<unknown>;
}

/** Answers repeats of idempotent requests with the first answer: the option `once`. */
export interface Once {
  /** Answers a request, or a repeat of one. @param run calls the handler. */
  answer(client: WebSocketClient, message: WebSocketMessage, run: () => unknown, host: OnceHost): OnceAnswer;
}

/** Whether a request is idempotent (PROTOCOL.md 3.7). */
export const isOnce = ({ uid }: WebSocketMessage): boolean => typeof uid === "string" && uid.endsWith(".once");
