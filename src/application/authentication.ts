import { type Deadlines, within } from "../base/clock.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { isThenable } from "../base/guard.ts";
import type { FailureLimiter } from "../base/limits.ts";
import { exceedsBytes } from "../protocol/bytes.ts";
import type { Observed } from "./observer.ts";
import { isTokenRefusal } from "./token-refusal.ts";
import type { Accountability, Handshake, WebSocketClient } from "./websocket-client.ts";
import { withoutSecrets } from "./without-secrets.ts";

/** Where credentials came from: an `auth` message, or a part of the upgrade request. */
export type CredentialSource = "message" | "protocol" | "header" | "query" | "cookie";

/** The credentials a client presents. */
export type Credentials =
  & { source: CredentialSource }
  & (
    | { access_token: string }
    | { refresh_token: string }
    | { email: string; password: string; otp?: string }
  );

/** The result of a successful authentication. */
export interface AuthenticationState {
  /** The user, the role and further claims of the client. */
  accountability: Accountability;
  /** When the authentication expires, in seconds since 1970 (RFC 7519 §4.1.4). Absent or `null`: never. */
  expires_at?: number | null;
  /** A rotated refresh token, returned to the client in the answer to its `auth` message. */
  refresh_token?: string;
}

/** Refuses the credentials with a `cause` for the `auth.failure` event, which is never sent to the client. Returns `null`. */
export type Refuse = (cause: unknown) => null;

/**
 * Verifies credentials: returns the state, or `null` if they are invalid; prefer `return refuse(cause)`, which logs why. A
 * `WebSocketError` that it throws is sent to the client as it is; any other error counts as a failure of the server.
 */
export type Authenticate = (
  credentials: Credentials,
  handshake: Handshake,
  refuse: Refuse,
) => AuthenticationState | null | Promise<AuthenticationState | null>;

/**
 * Re-evaluates a client when its credentials expire and at `controller.refresh`: returns its current state, or `null` if its
 * rights have ended. Throwing counts as `null`, and is reported as an `error` event.
 */
export type Revalidate = (
  client: WebSocketClient,
) => AuthenticationState | null | Promise<AuthenticationState | null>;

/** The outcome of an authentication. */
export type Attempt =
  | { outcome: "accepted"; state: AuthenticationState }
  /** The credentials are invalid. `error`: thrown by `authenticate`, for the client; `cause`: for the application. */
  | { outcome: "refused"; error?: WebSocketError; cause?: unknown }
  /** Too many attempts from this address have failed; `authenticate` was not called. `retryAfter` is in ms. */
  | { outcome: "limited"; retryAfter: number }
  /** `authenticate` threw, timed out, or returned an invalid state. */
  | { outcome: "failed"; error: unknown };

/** Runs the application's `authenticate` with a timeout and a rate limit, and validates its result. */
export class Authenticator {
  readonly #authenticate: Authenticate | undefined;
  readonly #timeout: number;
  readonly #deadlines: Deadlines;
  readonly #now: () => number;
  readonly #observed: Observed;
  readonly #failures: FailureLimiter | undefined;

  /**
   * @param timeout limit of one attempt, in ms.
   * @param now the wall clock, in ms.
   * @param failures limits failed attempts by address; absent: no limit.
   */
  constructor(
    authenticate: Authenticate | undefined,
    timeout: number,
    deadlines: Deadlines,
    now: () => number,
    observed: Observed,
    failures?: FailureLimiter,
  ) {
    this.#authenticate = authenticate;
    this.#timeout = timeout;
    this.#deadlines = deadlines;
    this.#now = now;
    this.#observed = observed;
    this.#failures = failures;
  }

  /** Whether the option `authenticate` was passed. */
  get enabled(): boolean {
    return this.#authenticate !== undefined;
  }

  /** Verifies credentials with the application's `authenticate`: at once if that is synchronous. Never throws or rejects. */
  attempt(credentials: Credentials, handshake: Handshake): Attempt | Promise<Attempt> {
    const authenticate = this.#authenticate;
    if (!authenticate) return { outcome: "refused", cause: new Error('The controller has no option "authenticate"') };
    const { ip } = handshake;
    const retryAfter = this.#failures?.wait(ip) ?? 0;
    if (retryAfter > 0) return this.#conclude({ outcome: "limited", retryAfter }, ip);
    let cause: unknown;
    const refuse: Refuse = (reason) => {
      cause = reason;
      return null;
    };
    const attempt = this.run(() => authenticate(credentials, handshake, refuse));
    if (isThenable(attempt)) return attempt.then((attempt) => this.#conclude(shown(attempt, cause, credentials), ip));
    return this.#conclude(shown(attempt, cause, credentials), ip);
  }

  #conclude(attempt: Attempt, ip: string | null): Attempt {
    this.#observed.observer?.authenticated?.(attempt.outcome);
    if (attempt.outcome === "refused") this.#failures?.failed(ip);
    return attempt;
  }

  /**
   * Runs any call that returns an authentication state, with the timeout, and validates its result: at once if the call is
   * synchronous. Never throws or rejects.
   */
  run(call: () => AuthenticationState | null | Promise<AuthenticationState | null>): Attempt | Promise<Attempt> {
    try {
      const state = call();
      return isThenable(state) ? this.#checkLater(state) : this.#check(state);
    } catch (error) {
      return { outcome: "failed", error };
    }
  }

  async #checkLater(state: Promise<AuthenticationState | null>): Promise<Attempt> {
    const late = () => new Error(`Cannot authenticate: no answer within ${this.#timeout} ms`);
    try {
      return this.#check(await within(this.#deadlines, this.#timeout, () => state, late));
    } catch (error) {
      return { outcome: "failed", error };
    }
  }

  #check(state: AuthenticationState | null): Attempt {
    if (state === null) return { outcome: "refused" };
    // Copied before the check: a getter is read only once, and one that throws fails the attempt.
    const copy = copyOf(state);
    const fault = faultOf(copy);
    if (fault) return { outcome: "failed", error: new TypeError(`Cannot use what authenticate returned: ${fault}`) };
    const { expires_at } = copy;
    // Expired while it was verified: refused like any expired token, so the client renews it.
    if (typeof expires_at === "number" && expires_at * 1000 <= this.#now()) {
      return { outcome: "refused", cause: new Error(`The credentials expired ${secondsSince(expires_at, this.#now())} s ago`) };
    }
    return { outcome: "accepted", state: copy };
  }
}

/** Copies the state; a value that is not an object is returned unchanged, for {@link faultOf} to reject. */
function copyOf(state: AuthenticationState): AuthenticationState {
  if (typeof state !== "object" || state === null) return state;
  const copy = { ...state };
  const { accountability } = copy;
  if (typeof accountability === "object" && accountability !== null) copy.accountability = { ...accountability };
  return copy;
}

const secondsSince = (expiresAt: number, now: number): number => Math.ceil(now / 1000 - expiresAt);

/** Returns the attempt without secrets, for listeners and the log. @param cause passed to `refuse` */
function shown(attempt: Attempt, cause: unknown, credentials: Credentials): Attempt {
  if (attempt.outcome === "failed") return asRefusal(attempt.error, credentials);
  if (attempt.outcome !== "refused" || cause === undefined) return attempt;
  return { outcome: "refused", cause: showable(cause, credentials) };
}

/** Maps what `authenticate` threw: a `WebSocketError` is a refusal with its own answer, anything else a failure of the server. */
function asRefusal(thrown: unknown, credentials: Credentials): Attempt {
  const error = WebSocketError.from(thrown);
  if (!error) return { outcome: "failed", error: showable(thrown, credentials) };
  const cause = causeOf(thrown);
  return { outcome: "refused", error, ...(cause === undefined ? {} : { cause: showable(cause, credentials) }) };
}

function causeOf(error: unknown): unknown {
  try {
    return (error as Error).cause; // `WebSocketError.from` has accepted it.
  } catch {
    return new Error("Cannot read the cause of the refusal"); // Its getter threw.
  }
}

/** Applies {@link withoutSecrets}, also to values whose getters throw. */
function showable(error: unknown, { source: _source, ...credentials }: Credentials): unknown {
  try {
    const secrets = Object.values(credentials).filter((secret) => typeof secret === "string");
    return isTokenRefusal(error) ? error : withoutSecrets(error, secrets);
  } catch {
    return new Error("Cannot authenticate: the error cannot be shown, because reading it throws");
  }
}

/** Maximum bytes of an id: it is part of a NATS subject (at most 4,096 bytes), where escaping takes up to three bytes for one. */
const MAX_ID_BYTES = 256;

/** Describes what is wrong with a returned state; `null`: valid. Ids must be strings, so that `1` and `"1"` are not two users. */
function faultOf(state: unknown): string | null {
  if (typeof state !== "object" || state === null) return "return { accountability } or null";
  const { accountability, expires_at, refresh_token } = state as Record<string, unknown>;
  if (typeof accountability !== "object" || accountability === null) return "accountability must be { user, role }";
  const { user, role } = accountability as Record<string, unknown>;
  const fault = idFault("user", user) ?? idFault("role", role);
  if (fault !== null) return fault;
  if (expires_at !== undefined && expires_at !== null && !Number.isFinite(expires_at)) {
    return "expires_at must be a finite number of seconds, or null";
  }
  if (refresh_token !== undefined && typeof refresh_token !== "string") return "refresh_token must be a string";
  return null;
}

function idFault(key: string, id: unknown): string | null {
  if (id === null) return null;
  if (typeof id !== "string" || id === "") return `accountability.${key} must be a non-empty string or null`;
  // PostgreSQL stores neither in JSON.
  if (id.includes("\u0000") || !id.isWellFormed()) {
    return `accountability.${key} must have no NUL and no lone surrogate`;
  }
  return exceedsBytes(id, MAX_ID_BYTES) ? `accountability.${key} must be at most ${MAX_ID_BYTES} bytes long` : null;
}
