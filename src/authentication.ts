import { type Deadlines, within } from "./clock.ts";
import { WebSocketError } from "./errors.ts";
import type { FailureLimiter } from "./limits.ts";
import { byteLength } from "./bytes.ts";
import { isTokenRefusal } from "./token-refusal.ts";
import type { Accountability, Handshake, WebSocketClient } from "./websocket-client.ts";

/** Where credentials came from: an `auth` message, or a part of the upgrade request. */
export type CredentialSource = "message" | "protocol" | "header" | "query" | "cookie";

/** What a client shows to prove who it is. */
export type Credentials =
  & { source: CredentialSource }
  & (
    | { access_token: string }
    | { refresh_token: string }
    | { email: string; password: string; otp?: string }
  );

/** What valid credentials stand for. */
export interface AuthenticationState {
  /** Who it is. */
  accountability: Accountability;
  /** When it ends, in seconds since 1970 (RFC 7519 §4.1.4). Absent or `null` is never. */
  expires_at?: number | null;
  /** Sent back in the answer to the `auth` message, where credentials rotate. */
  refresh_token?: string;
}

/** Refuses the credentials and says why: the `cause` of `auth.failure`, which the client is not shown. */
export type Refuse = (cause: unknown) => null;

/**
 * Verifies credentials: the state they stand for, or `null` when they are not valid, best `refuse(cause)`, which is `null`. A
 * `WebSocketError` it throws is answered as it is; any other throw is a fault of the server, not of the client.
 */
export type Authenticate = (
  credentials: Credentials,
  handshake: Handshake,
  refuse: Refuse,
) => AuthenticationState | null | Promise<AuthenticationState | null>;

/**
 * Says anew who a client is, when its credentials expire and when `controller.refresh` asks: the state as of now, or `null`
 * when its rights have ended. A throw counts as `null`.
 */
export type Revalidate = (
  client: WebSocketClient,
) => AuthenticationState | null | Promise<AuthenticationState | null>;

/** How an attempt ended. */
export type Attempt =
  | { outcome: "accepted"; state: AuthenticationState }
  /** The credentials are not valid: what the client is answered, where `authenticate` threw it, and the cause for the application. */
  | { outcome: "refused"; error?: WebSocketError; cause?: unknown }
  /** Too many attempts from this address have failed, so that `authenticate` was not asked: wait so many ms. */
  | { outcome: "limited"; retryAfter: number }
  /** `authenticate` threw, took too long, or returned what is not a state. */
  | { outcome: "failed"; error: unknown };

/** Runs the application's `authenticate`, bounded in time and rate, and checked in result. The promise never rejects. */
export class Authenticator {
  readonly #authenticate: Authenticate | undefined;
  readonly #timeout: number;
  readonly #deadlines: Deadlines;
  readonly #now: () => number;
  readonly #failures: FailureLimiter | undefined;

  /**
   * @param timeout ms after which an attempt has failed.
   * @param now the wall clock, in ms.
   * @param failures absent: any number may fail.
   */
  constructor(
    authenticate: Authenticate | undefined,
    timeout: number,
    deadlines: Deadlines,
    now: () => number,
    failures?: FailureLimiter,
  ) {
    this.#authenticate = authenticate;
    this.#timeout = timeout;
    this.#deadlines = deadlines;
    this.#now = now;
    this.#failures = failures;
  }

  /** Whether credentials can be verified at all. */
  get enabled(): boolean {
    return this.#authenticate !== undefined;
  }

  /** Has the application verify credentials. */
  async attempt(credentials: Credentials, handshake: Handshake): Promise<Attempt> {
    const authenticate = this.#authenticate;
    if (!authenticate) return { outcome: "refused", cause: new Error('The controller has no option "authenticate"') };
    const { ip } = handshake;
    const retryAfter = this.#failures?.wait(ip) ?? 0;
    if (retryAfter > 0) return { outcome: "limited", retryAfter };
    let cause: unknown;
    const refuse: Refuse = (reason) => {
      cause = reason;
      return null;
    };
    const attempt = await this.run(() => authenticate(credentials, handshake, refuse));
    if (attempt.outcome === "failed") return this.#conclude(asRefusal(attempt.error, credentials), ip);
    if (attempt.outcome !== "refused" || cause === undefined) return this.#conclude(attempt, ip);
    return this.#conclude({ outcome: "refused", cause: showable(cause, credentials) }, ip);
  }

  #conclude(attempt: Attempt, ip: string | null): Attempt {
    if (attempt.outcome === "refused") this.#failures?.failed(ip);
    return attempt;
  }

  /** Bounds and checks any call that returns an authentication state. */
  run(call: () => AuthenticationState | null | Promise<AuthenticationState | null>): Promise<Attempt> {
    const late = () => new Error(`Cannot authenticate: no answer within ${this.#timeout} ms`);
    return within(this.#deadlines, this.#timeout, call, late)
      .then((state) => this.#check(state))
      .catch((error): Attempt => ({ outcome: "failed", error }));
  }

  #check(state: AuthenticationState | null): Attempt {
    if (state === null) return { outcome: "refused" };
    // A copy first: a getter is read once, and one that throws is a failed attempt.
    const copy = copyOf(state);
    const fault = faultOf(copy);
    if (fault) return { outcome: "failed", error: new TypeError(`Cannot use what authenticate returned: ${fault}`) };
    const { expires_at } = copy;
    // Verified a moment ago, expired now: the client's to renew, like any other token that is out of date.
    if (typeof expires_at === "number" && expires_at * 1000 <= this.#now()) {
      return { outcome: "refused", cause: new Error(`The credentials expired ${secondsSince(expires_at, this.#now())} s ago`) };
    }
    return { outcome: "accepted", state: copy };
  }
}

/** Of whatever it is: what is no object stays as it is. */
function copyOf(state: AuthenticationState): AuthenticationState {
  if (typeof state !== "object" || state === null) return state;
  const copy = { ...state };
  const { accountability } = copy;
  if (typeof accountability === "object" && accountability !== null) copy.accountability = Object.freeze({ ...accountability });
  return copy;
}

const secondsSince = (expiresAt: number, now: number): number => Math.ceil(now / 1000 - expiresAt);

/** What `authenticate` threw: a `WebSocketError` says what the client is answered, so it is a refusal and no fault of the server. */
function asRefusal(thrown: unknown, credentials: Credentials): Attempt {
  const error = WebSocketError.from(thrown);
  if (!error) return { outcome: "failed", error: showable(thrown, credentials) };
  const cause = causeOf(thrown);
  return { outcome: "refused", error, ...(cause === undefined ? {} : { cause: showable(cause, credentials) }) };
}

function causeOf(error: unknown): unknown {
  try {
    return (error as Error).cause; // As `from` has seen: of this copy of the package or of another.
  } catch {
    return new Error("Cannot read why it was refused"); // Its getter throws.
  }
}

/** Characters from which on a secret is taken out of a text; a shorter one may be a part of any word in it. */
const MIN_REDACTED = 8;

/** In place of a text that has a short secret in it: what is left of "Cannot" without an "a" would give the secret away. */
const HIDDEN = "Cannot authenticate: what was thrown may quote the credentials";

/** {@link withoutSecrets}, for what may throw when it is looked at. */
function showable(error: unknown, credentials: Credentials): unknown {
  try {
    return isTokenRefusal(error) ? error : withoutSecrets(error, credentials);
  } catch {
    return new Error("Cannot authenticate: what was thrown cannot be shown"); // Its getters throw.
  }
}

/** The error without the credentials it may quote: hono's own JWT errors do, and it is going to listeners and the log. */
function withoutSecrets(error: unknown, { source: _source, ...credentials }: Credentials): unknown {
  // The longest first: another may be a part of it, and would leave the rest.
  const secrets = Object.values(credentials).filter((secret) => typeof secret === "string" && secret !== "")
    .sort((a, b) => b.length - a.length);
  const redact = (text: string, hidden: string) =>
    secrets.some((secret) => secret.length < MIN_REDACTED && text.includes(secret))
      ? hidden
      : secrets.reduce((left, secret) => left.replaceAll(secret, "[redacted]"), text);
  if (typeof error === "string") return redact(error, HIDDEN);
  if (!(error instanceof Error)) return error;
  const shown = [error.message, error.name, error.stack, error.cause].map(String);
  if (!secrets.some((secret) => shown.some((text) => text.includes(secret)))) return error;
  const redacted = new Error(redact(error.message, HIDDEN));
  redacted.name = redact(error.name, "Error");
  redacted.stack = redact(error.stack ?? "", `${redacted.name}: ${redacted.message}`);
  return redacted;
}

/** Bytes of an id: with a channel's name it is a subject of NATS, of at most 4,096 bytes, in which a byte of it takes up to three. */
const MAX_ID_BYTES = 256;

/** What is wrong with a state an application returned. Ids are strings, for `1` and `"1"` must not be two users. */
function faultOf(state: unknown): string | null {
  if (typeof state !== "object" || state === null) return "return { accountability } or null";
  const { accountability, expires_at, refresh_token } = state as Record<string, unknown>;
  if (typeof accountability !== "object" || accountability === null) return "accountability must be { user, role }";
  for (const key of ["user", "role"]) {
    const id = (accountability as Record<string, unknown>)[key];
    if (id !== null && (typeof id !== "string" || id === "")) return `accountability.${key} must be a non-empty string or null`;
    if (id !== null && byteLength(id) > MAX_ID_BYTES) return `accountability.${key} must be at most ${MAX_ID_BYTES} bytes long`;
  }
  if (expires_at !== undefined && expires_at !== null && !Number.isFinite(expires_at)) {
    return "expires_at must be a finite number of seconds, or null";
  }
  if (refresh_token !== undefined && typeof refresh_token !== "string") return "refresh_token must be a string";
  return null;
}
