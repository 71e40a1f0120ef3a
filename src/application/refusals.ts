import { describeCause } from "../base/describe-cause.ts";
import type { WebSocketError } from "../protocol/errors.ts";
import type { WebSocketEvents } from "./events.ts";
import type { Observed } from "./observer.ts";
import type { Log, LogRecord } from "./log.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/**
 * Why an upgrade or an `auth` message was refused, or a POST of the fallback.
 *
 * - `request`: not a valid WebSocket handshake (400, 405, 413, 426)
 * - `runtime`: the server cannot upgrade requests (501)
 * - `origin`: a page of another site (403)
 * - `token`: credentials missing, late or invalid (401, 4401, 4408)
 * - `failures`: too many failed authentications from the address (429)
 * - `disconnected`: `disconnect()` matched the client while it authenticated (403)
 * - `connections`, `pending`: a limit of the controller is reached (503)
 * - `ip`, `user`: a limit of the address or the user is reached (429)
 * - `draining`: the controller drains or is closed (503)
 * - `unavailable`: `authenticate` failed or timed out (503)
 * - `abandoned`: the client disconnected, or another handler answered the request
 * - `node`: a POST of the fallback for a connection on another node (409)
 * - `posts`: too many POSTs of one fallback connection at once, or one that was repeated too often (429)
 */
export type RefusalReason =
  | "request"
  | "runtime"
  | "origin"
  | "token"
  | "failures"
  | "disconnected"
  | "connections"
  | "pending"
  | "ip"
  | "user"
  | "draining"
  | "unavailable"
  | "abandoned"
  | "node"
  | "posts";

/** All counters at 0. Written out, so that the compiler reports a missing reason. */
const NONE: Readonly<Record<RefusalReason, number>> = {
  request: 0,
  runtime: 0,
  origin: 0,
  token: 0,
  failures: 0,
  disconnected: 0,
  connections: 0,
  pending: 0,
  ip: 0,
  user: 0,
  draining: 0,
  unavailable: 0,
  abandoned: 0,
  node: 0,
  posts: 0,
};

/** The log record of a refusal: its fields, and a message that names the option or proxy setting to change. */
export type DescribedRefusal = readonly [fields: Omit<LogRecord, "event" | "reason">, message: string];

/** Counts refusals by reason, and logs at most one a second of each. */
export class Refusals {
  readonly counts: Record<RefusalReason, number>;
  readonly #log: Pick<Log, "warn">;
  readonly #emit: (failure: WebSocketEvents["auth.failure"]) => boolean;
  readonly #observed: Pick<Observed, "observer">;

  /** @param emit emits `auth.failure`; returns whether there is a listener. */
  constructor(
    log: Pick<Log, "warn">,
    emit: (failure: WebSocketEvents["auth.failure"]) => boolean,
    observed: Pick<Observed, "observer"> = { observer: undefined },
  ) {
    this.#emit = emit;
    this.#observed = observed;
    this.counts = { ...NONE };
    this.#log = log;
  }

  /** Counts a refusal. @param describe absent: nothing is logged. */
  add(reason: RefusalReason, describe?: () => DescribedRefusal, event: LogRecord["event"] = "noroshi.upgrade.refused"): void {
    this.#count(reason, describe);
    if (describe) this.#warn(reason, describe, event);
  }

  #count(reason: RefusalReason, describe: (() => DescribedRefusal) | undefined, client?: WebSocketClient): void {
    this.counts[reason]++;
    this.#observed.observer?.refused?.(reason, describe, client);
  }

  #warn(reason: RefusalReason, describe: () => DescribedRefusal, event: LogRecord["event"]): void {
    this.#log.warn(reason, () => {
      const [fields, message] = describe();
      return [{ event, reason, ...fields }, message];
    });
  }

  /**
   * Counts refused credentials and emits `auth.failure`; without a listener it logs a line instead.
   *
   * @param error sent to the client.
   * @param cause shown only to the application and in the log.
   * @param what names what was refused, such as "a client".
   * @param ip the address of the client.
   * @param reason counted and logged. The error does not show it: `authenticate` may throw any code. @default {"token"}
   * @param fields of the log record: the option whose limit is reached, and the limit.
   */
  addFailure(
    error: WebSocketError,
    cause: unknown,
    { what, ip, client, event, reason = "token", fields }: {
      what: string;
      ip: string | null;
      client?: WebSocketClient | undefined;
      event: LogRecord["event"];
      reason?: RefusalReason;
      fields?: Pick<LogRecord, "option" | "limit">;
    },
  ): void {
    const hasListener = this.#emit({ ...(client && { client }), error, ...(cause === undefined ? {} : { cause }) });
    const describe = (): DescribedRefusal => [
      { code: error.code, ...(ip !== null && { ip }), ...fields, ...(client && { client: client.uid }) },
      `Refused ${what}: ${describeCause(cause, error)}`,
    ];
    this.#count(reason, describe, client);
    if (!hasListener) this.#warn(reason, describe, event);
  }
}
