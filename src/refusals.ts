import type { WebSocketError } from "./errors.ts";
import type { WebSocketEvents } from "./events.ts";
import { guard } from "./guard.ts";
import { describeCause, escapeControls, LogThrottle } from "./log.ts";
import type { Logger } from "./options.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** The counters of `stats().refused`. */
const REASONS = [
  "request",
  "runtime",
  "origin",
  "token",
  "failures",
  "disconnected",
  "connections",
  "pending",
  "ip",
  "user",
  "unavailable",
  "abandoned",
] as const;

/**
 * Why an upgrade or an `auth` message was refused. `request`: it was no valid WebSocket handshake (400, 405, 413, 426). `runtime`: nothing here can upgrade
 * (501). `origin`: a page of another site (403). `token`: credentials were missing, late or not valid (401, 4401, 4408). `failures`: too many failed
 * authentications from the address (429). `disconnected`: `disconnect()` named its user meanwhile (403). `connections`, `pending`, `ip`
 * and `user`: a limit (503, 429). `unavailable`: the controller was closed, or `authenticate` failed or took too long (503).
 * `abandoned`: the client left, or something else answered the request.
 */
export type RefusalReason = typeof REASONS[number];

/** The reasons of answers that are not `AUTH_FAILED` or a code of the application's. */
const REASONS_BY_CODE: Record<string, RefusalReason> = {
  FORBIDDEN: "disconnected",
  LIMIT_EXCEEDED: "user",
  REQUESTS_EXCEEDED: "failures",
  SERVICE_UNAVAILABLE: "unavailable",
};

/** Characters of one line. */
const MAX_LENGTH = 512;

/** Counts refused upgrades, and writes the operator a line about each kind at most once a second. */
export class Refusals {
  /** How many there were, by reason. */
  readonly counts: Record<RefusalReason, number>;
  readonly #logger: Logger | false;
  readonly #throttle: LogThrottle;

  readonly #emit: (failure: WebSocketEvents["auth.failure"]) => boolean;

  /**
   * @param now the monotonic clock, in ms.
   * @param emit emits `auth.failure`; whether anybody listens.
   */
  constructor(logger: Logger | false, now: () => number, emit: (failure: WebSocketEvents["auth.failure"]) => boolean) {
    this.#emit = emit;
    this.counts = Object.fromEntries(REASONS.map((reason) => [reason, 0])) as Record<RefusalReason, number>; // Of all reasons.
    this.#logger = logger;
    this.#throttle = new LogThrottle(now);
  }

  /** Counts one. `describe` makes its line: the cause, and the option or proxy setting that changes it. Absent: nothing is written. */
  add(reason: RefusalReason, describe?: () => string): void {
    this.counts[reason]++;
    const logger = this.#logger;
    if (!logger || !describe) return;
    const left = this.#throttle.take(reason);
    if (left === undefined) return;
    const more = left === 0 ? "" : ` (${left} more like it were left out)`;
    // A failure of the logger itself has nowhere to go.
    guard(() => logger.warn(`[noroshi] ${escapeControls(describe()).slice(0, MAX_LENGTH)}${more}`), () => {});
  }

  /**
   * Counts credentials that were refused, and hands them to the listeners of `auth.failure`, who then need no line.
   *
   * @param error what the client is answered.
   * @param cause what only the application and the operator are to read.
   */
  addFailure(error: WebSocketError, cause: unknown, what: string, client?: WebSocketClient): void {
    const isHeard = this.#emit({ ...(client && { client }), error, ...(cause === undefined ? {} : { cause }) });
    const line = () => `Refused ${what}: ${describeCause(cause, error)}`;
    // The code may be the application's own, such as "constructor".
    const reason = Object.hasOwn(REASONS_BY_CODE, error.code) ? REASONS_BY_CODE[error.code] : undefined;
    this.add(reason ?? "token", isHeard ? undefined : line);
  }
}
