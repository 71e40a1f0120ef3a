import * as v from "valibot";
import type { Attempt, AuthenticationState, Authenticator, Credentials } from "./authentication.ts";
import type { Bus } from "./bus.ts";
import { type CloseCause, CloseCode } from "./close.ts";
import type { Disconnections } from "./disconnections.ts";
import { type MessageUid, WebSocketError } from "./errors.ts";
import type { WebSocketEvents } from "./events.ts";
import type { ResolvedOptions } from "./options.ts";
import { type AuthMessage, AuthMessageSchema, encode, type WebSocketMessage } from "./protocol.ts";
import { OPEN, type SavedConnection } from "./transport.ts";
import type { Accountability, WebSocketClient } from "./websocket-client.ts";

/** What identities need of their controller. */
export interface IdentityHost {
  readonly options: ResolvedOptions;
  readonly authenticator: Authenticator;
  readonly bus: Bus<WebSocketEvents>;
  /** The wall clock, in ms. */
  now(): number;
  /** The monotonic clock, in ms. */
  monotonic(): number;
  report(error: unknown, client?: WebSocketClient): void;
  readonly disconnections: Disconnections;
}

/** The connection an identity belongs to. */
export interface IdentityOwner {
  readonly client: WebSocketClient;
  readonly readyState: number;
  /** Sends a frame, whether or not the client is admitted. */
  transmit(frame: string): void;
  close(code: number, reason: string, cause: CloseCause): void;
  /** Counts the connection as the user's; `false` when the user has as many as may be. */
  claim(user: string | null): boolean;
  /** The client has become one: list it, deliver to it, tell of it. */
  admitted(): void;
  /** Who it is, or until when, has changed. */
  changed(): void;
  /** Its rights have ended for now: deliver nothing to it. */
  suspended(): void;
  /** Lets later messages wait for the promise, which does not reject. */
  hold(settled: Promise<void>): void;
}

const ANONYMOUS: Accountability = Object.freeze({ user: null, role: null });

/** Failed attempts after which a connection is closed in every mode. */
const MAX_FAILURES = 3;

/**
 * Who the client of one connection is: *pending* until that is proved or nobody asks, *admitted*, and *expired* once the
 * credentials have run out. Nobody is a user without rights: in no phase does it mean that nothing is checked.
 */
export class Identity {
  accountability: Accountability = ANONYMOUS;
  expiresAt: number | null = null;
  phase: "pending" | "admitted" | "expired" = "pending";
  /** When a pending handshake, or the grace after expiry, ends: ms of the wall clock, kept for hibernation. */
  until = 0;

  readonly #host: IdentityHost;
  readonly #owner: IdentityOwner;
  #failures = 0;
  /** What `until` is in ms of the monotonic clock, and what counts while awake: the wall clock may step. */
  #dueAt = 0;
  /** Raised by whatever makes the answer to an earlier question out of date. */
  #generation = 0;

  constructor(host: IdentityHost, owner: IdentityOwner) {
    this.#host = host;
    this.#owner = owner;
  }

  /** The connection is open, with what its upgrade has proved. */
  opened(state: AuthenticationState | null): void {
    if (state) this.#assume(state.accountability, state.expires_at ?? null);
    if (state || this.#mode === "public") return this.#admit();
    this.#wait(this.#host.options.timeout);
  }

  /** The connection came back from hibernation. */
  restored({ phase, until, accountability, expires_at }: SavedConnection): void {
    this.#assume(accountability as Accountability, expires_at); // Written by Connection.save.
    this.phase = phase;
    // A wall clock that was set back meanwhile must not prolong it.
    if (phase !== "admitted") this.#wait(Math.min(Math.max(0, until - this.#host.now()), this.#host.options.timeout));
  }

  /** When {@link due} is to be called, in ms from now; `null` is never. */
  get remaining(): number | null {
    if (this.phase !== "admitted") return Math.max(0, this.#dueAt - this.#host.monotonic());
    return this.expiresAt === null ? null : Math.max(0, this.expiresAt * 1000 - this.#host.now());
  }

  /** The credentials have run out, or the time to prove or renew them has. */
  due(): void {
    if (this.remaining !== 0) return; // It was for a heartbeat, or the wall clock was set back.
    if (this.phase === "admitted") return this.#expire();
    if (this.phase === "pending") {
      return this.#refuse(failure("AUTH_TIMEOUT", "Authentication timed out"), CloseCode.AUTH_TIMEOUT, "auth");
    }
    if (this.#mode !== "public") {
      return this.#refuse(failure("AUTH_TIMEOUT", "Authentication timed out"), CloseCode.AUTH_FAILED, "expired");
    }
    this.#assume(ANONYMOUS, null);
    this.#admitAgain();
  }

  /** An `auth` message. The promise, if there is one, never rejects: later messages wait for it. */
  authenticate(message: WebSocketMessage): Promise<void> | undefined {
    const parsed = v.safeParse(AuthMessageSchema, message, { abortEarly: true, abortPipeEarly: true });
    if (!parsed.success) {
      // Who is known already has shown no wrong credentials, only a message that cannot be read.
      if (this.phase === "pending") this.#refuse(authFailed(message.uid));
      else this.#answer(failure("INVALID_PAYLOAD", "Send access_token, refresh_token, or email and password", message.uid));
      return undefined;
    }
    const since = this.#host.disconnections.number;
    return this.#host.authenticator.attempt(credentialsOf(parsed.output), this.#owner.client.handshake)
      .then((attempt) => this.#conclude(attempt, parsed.output.uid, since))
      .catch((error) => this.#host.report(error, this.phase === "pending" ? undefined : this.#owner.client));
  }

  /** A message of a client that is not admitted: pending ones must begin with `auth`, expired ones must renew first. */
  refuseMessage(uid: MessageUid | undefined): void {
    if (this.phase === "pending") this.#refuse(authFailed(uid));
    else this.#answer(failure("TOKEN_EXPIRED", "The token has expired", uid));
  }

  /** Asks the application anew who the client is. */
  async revalidate(): Promise<void> {
    const { options: { revalidate }, authenticator } = this.#host;
    if (!revalidate || this.phase !== "admitted") return;
    const since = this.#host.disconnections.number;
    const generation = ++this.#generation;
    const attempt = await authenticator.run(() => revalidate(this.#owner.client));
    // It has become somebody else meanwhile, or was asked for anew: the older answer is out of date.
    if (generation !== this.#generation) return;
    if (this.#owner.readyState !== OPEN || this.phase !== "admitted") return;
    if (!this.#renew(attempt, since)) this.#lapse();
  }

  get #mode() {
    return this.#owner.client.handshake.mode;
  }

  #expire(): void {
    const { options, authenticator } = this.#host;
    const { revalidate } = options;
    this.phase = "expired";
    this.#owner.suspended();
    if (!revalidate) return this.#lapse();
    // The grace begins once revalidate has said no, which takes at most the timeout: this is for an eviction meanwhile.
    this.#wait(2 * options.timeout);
    // A session kept in a cookie renews itself here, unseen by the client.
    const since = this.#host.disconnections.number;
    this.#owner.hold(
      authenticator.run(() => revalidate(this.#owner.client)).then((attempt) => {
        if (this.#owner.readyState !== OPEN || this.phase !== "expired") return;
        if (!this.#renew(attempt, since)) this.#lapse();
      }),
    );
  }

  /** Takes over what a revalidation says; `false` when it says that the client's rights have ended. */
  #renew(attempt: Attempt, since: number): boolean {
    if (attempt.outcome === "failed") this.#host.report(attempt.error, this.#owner.client);
    if (attempt.outcome !== "accepted") return false;
    const { accountability, expires_at } = attempt.state;
    if (this.#host.disconnections.includes(accountability, since) || !this.#owner.claim(accountability.user)) return false;
    this.#assume(accountability, expires_at ?? null);
    this.#admitAgain();
    return true;
  }

  /** Says that the token has expired and leaves the client its grace. */
  #lapse(): void {
    if (this.phase === "admitted") {
      this.phase = "expired";
      this.#owner.suspended();
    }
    this.#wait(this.#host.options.timeout);
    this.#owner.changed();
    this.#answer(failure("TOKEN_EXPIRED", "The token has expired"));
  }

  #conclude(attempt: Attempt, uid: MessageUid | undefined, since: number): void {
    // The client left meanwhile: on Node the close is reported only some time after readyState has changed.
    if (this.#owner.readyState !== OPEN) return;
    if (attempt.outcome === "accepted") return this.#accept(attempt.state, uid, since);
    if (attempt.outcome === "limited") {
      const details = { retry_after: attempt.retryAfter };
      const error = new WebSocketError("auth", "REQUESTS_EXCEEDED", "Too many failed attempts", {
        ...(uid === undefined ? {} : { uid }),
        details,
      });
      if (this.phase === "pending") this.#refuse(error, CloseCode.RATE_LIMITED, "rate");
      else this.#answer(error);
      return;
    }
    if (attempt.outcome === "failed" && !(attempt.error instanceof WebSocketError)) {
      // The server's fault: what happened is for the log, and the client may come back.
      this.#host.report(attempt.error, this.phase === "pending" ? undefined : this.#owner.client);
      const unavailable = failure("SERVICE_UNAVAILABLE", "Authentication is unavailable", uid);
      if (this.phase === "pending") this.#refuse(unavailable, CloseCode.TRY_AGAIN_LATER);
      else this.#answer(unavailable);
      return;
    }
    const error = attempt.outcome === "failed" ? (attempt.error as WebSocketError).withUid(uid) : authFailed(uid);
    // Who could not prove who they are is nobody from here on; only public mode has a place for nobody.
    if (this.#mode !== "public" || ++this.#failures >= MAX_FAILURES) return this.#refuse(error);
    this.#assume(ANONYMOUS, null);
    this.#owner.claim(null);
    this.#admitAgain();
    this.#answer(error);
    this.#host.bus.emit("auth.failure", { client: this.#owner.client, error });
  }

  #accept(state: AuthenticationState, uid: MessageUid | undefined, since: number): void {
    const { accountability, expires_at, refresh_token } = state;
    if (this.#host.disconnections.includes(accountability, since)) {
      return this.#refuse(failure("FORBIDDEN", "Disconnected", uid), CloseCode.FORBIDDEN);
    }
    if (!this.#owner.claim(accountability.user)) {
      return this.#refuse(failure("LIMIT_EXCEEDED", "Too many connections of this user", uid), CloseCode.RATE_LIMITED);
    }
    this.#failures = 0;
    this.#assume(accountability, expires_at ?? null);
    // Before `connect`, whose listeners may send: the first frame after an `auth` must be its answer.
    this.#owner.transmit(encode({
      type: "auth",
      status: "ok",
      ...(uid === undefined ? {} : { uid }),
      ...(refresh_token === undefined ? {} : { refresh_token }),
    }));
    // It could not be sent, and the connection is closing.
    if (this.#owner.readyState !== OPEN) return;
    if (this.phase === "pending") this.#admit();
    else this.#admitAgain();
    this.#host.bus.emit("auth.success", { client: this.#owner.client });
  }

  #wait(ms: number): void {
    this.until = this.#host.now() + ms;
    this.#dueAt = this.#host.monotonic() + ms;
  }

  #assume(accountability: Accountability, expiresAt: number | null): void {
    // A copy that nobody changes: deliveries are indexed by it.
    this.accountability = Object.freeze({ ...accountability });
    this.expiresAt = expiresAt;
    this.#generation++;
  }

  #admit(): void {
    this.phase = "admitted";
    this.#owner.admitted();
  }

  #admitAgain(): void {
    this.phase = "admitted";
    this.#owner.changed();
  }

  #answer(error: WebSocketError): void {
    this.#owner.transmit(error.toMessage());
  }

  /** Tells the client what was wrong with its authentication and closes. */
  #refuse(error: WebSocketError, code: number = CloseCode.AUTH_FAILED, cause: CloseCause = "auth"): void {
    this.#answer(error);
    this.#host.bus.emit("auth.failure", this.phase === "pending" ? { error } : { client: this.#owner.client, error });
    this.#owner.close(code, error.message, cause);
  }
}

const failure = (code: string, message: string, uid?: MessageUid): WebSocketError =>
  new WebSocketError("auth", code, message, uid === undefined ? {} : { uid });

const authFailed = (uid: MessageUid | undefined): WebSocketError => failure("AUTH_FAILED", "Authentication failed", uid);

function credentialsOf(message: AuthMessage): Credentials {
  if ("access_token" in message) return { source: "message", access_token: message.access_token };
  if ("refresh_token" in message) return { source: "message", refresh_token: message.refresh_token };
  const { email, password, otp } = message;
  return { source: "message", email, password, ...(otp === undefined ? {} : { otp }) };
}
