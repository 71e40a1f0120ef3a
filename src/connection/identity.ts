import * as v from "valibot";
import { limitsOf } from "./announced-limits.ts";
import type { Attempt, AuthenticationState, Credentials, Revalidate } from "../application/authentication.ts";
import { type CloseCause, CloseCode } from "../protocol/close.ts";
import type { Connection } from "./connection.ts";
import { type MessageUid, WebSocketError } from "../protocol/errors.ts";
import { BATCHING } from "../delivery/write-queue.ts";
import { type AuthMessage, AuthMessageSchema, encode, FIRST_ISSUE, type WebSocketMessage } from "../protocol/protocol.ts";
import type { Refusals } from "../application/refusals.ts";
import type { Revocation } from "./revocations.ts";
import { OPEN, type SavedConnection } from "../delivery/transport.ts";
import type { Accountability, WebSocketClient } from "../application/websocket-client.ts";

const ANONYMOUS: Accountability = Object.freeze({ user: null, role: null });

/** Number of failed attempts after which the connection is closed in every mode. */
const MAX_FAILURES = 3;

/** The accountability of one client: authenticates it, and renews, rechecks and ends its credentials. */
export class Identity {
  /** A copy, because deliveries are indexed by it. The client freezes it before the application sees it. */
  accountability: Accountability = ANONYMOUS;
  expiresAt: number | null = null;
  /** When the client was authenticated, in whole ms of the monotonic clock. If it is `undefined` (unknown), every late order applies to it. */
  provedAt: number | undefined = undefined;
  /** Settles when `revalidate` has renewed or refused expired credentials; `undefined` or absent if it is not running. */
  declare revalidating?: Promise<void> | undefined;

  readonly #owner: Connection;
  #failures = 0;
  /** When the pending handshake or the grace period after expiry ends, in ms of the monotonic clock, because the wall clock may be set. */
  #dueAt = 0;
  /** Increased whenever the answer of an earlier `revalidate` becomes outdated. */
  #generation = 0;
  /** Whether `TOKEN_EXPIRED` was dropped, because the client reads too slowly. */
  #hasMissedExpiry = false;

  constructor(owner: Connection) {
    this.#owner = owner;
  }

  /**
   * The connection is open.
   *
   * @param state result of the authentication during the upgrade; `null` without one.
   * @param since {@link Revocations.number} when that authentication began.
   */
  opened(state: AuthenticationState | null, since: number): void {
    if (!state) return this.#mode === "public" ? this.#owner.enter("admitted") : this.#wait(this.#owner.host.options.timeout);
    this.#assume(state.accountability, state.expires_at ?? null); // Cannot fail: the slot was claimed before.
    const attempt: Attempt = { outcome: "accepted", state };
    if (this.#isRevoked(attempt, "disconnected", since)) return this.#owner.close(CloseCode.FORBIDDEN, "Disconnected", "server");
    if (!this.#isRevoked(attempt, "refreshed", since)) return this.#owner.enter("admitted");
    this.#wait(this.#owner.host.options.timeout);
    this.#owner.hold(
      this.#newest(attempt, since, (newest) => {
        if (this.#owner.readyState === OPEN && !this.#renew(newest, since)) {
          this.#refuse(
            authFailed(undefined),
            new Error("The client's rights were refreshed while it connected, and revalidate refused it"),
          );
        }
      }),
    );
  }

  /** The connection has returned from hibernation. */
  restored({ phase, until, accountability, expires_at, missed }: SavedConnection): void {
    // The connection exists already, even beyond `maxConnectionsPerUser`.
    this.#owner.claim((accountability as Accountability).user); // Written by Connection.save.
    this.#set(accountability as Accountability, expires_at);
    this.provedAt = undefined;
    this.#hasMissedExpiry = phase === "expired" && missed !== undefined; // It may have. Sending it again does no harm.
    // A wall clock that was set back during hibernation must not extend the wait.
    if (phase !== "admitted") this.#wait(Math.min(Math.max(0, until - this.#owner.host.now()), this.#owner.host.options.timeout));
  }

  /** When the pending handshake or the grace period after expiry ends, in ms of the wall clock; 0 without either. Saved for hibernation. */
  get until(): number {
    const { host } = this.#owner;
    return this.#dueAt === 0 ? 0 : host.now() + this.#dueAt - host.monotonic();
  }

  /** Whether the client is admitted and its credentials have not expired, even if the timer is late. */
  get isAdmitted(): boolean {
    return this.#owner.state === "admitted" && this.remaining !== 0;
  }

  /** Time until {@link due} must be called, in ms; `null` if the credentials do not expire. */
  get remaining(): number | null {
    if (this.#owner.state !== "admitted") return Math.max(0, this.#dueAt - this.#owner.host.monotonic());
    return this.expiresAt === null ? null : Math.max(0, this.expiresAt * 1000 - this.#owner.host.now());
  }

  /** The credentials have expired, or the time to authenticate or to renew them is over. */
  due(): void {
    if (this.remaining !== 0) return; // Another deadline has passed, or the wall clock was set back.
    if (this.#owner.state === "admitted") return this.#expire();
    if (this.#owner.state === "pending") {
      return this.#refuse(failure("AUTH_TIMEOUT", "Authentication timed out"), LATE, { code: CloseCode.AUTH_TIMEOUT });
    }
    if (this.#mode !== "public") {
      return this.#refuse(failure("AUTH_TIMEOUT", "Authentication timed out"), LATE, { closeCause: "expired" });
    }
    this.#assume(ANONYMOUS, null);
    this.#owner.enter("admitted");
  }

  /** Handles an `auth` message. If it returns a promise, later messages wait for it. The promise never rejects. */
  authenticate(message: WebSocketMessage): Promise<void> | undefined {
    const parsed = v.safeParse(AuthMessageSchema, message, FIRST_ISSUE);
    if (!parsed.success) {
      // A client that was admitted keeps its connection, because the message is malformed, but its credentials are not wrong.
      if (this.#owner.state === "pending") {
        this.#refuse(authFailed(message.uid), new Error("The auth message has no valid credentials"));
      } else this.#answer(failure("INVALID_PAYLOAD", "Send access_token, refresh_token, or email and password", message.uid));
      return undefined;
    }
    this.#hasMissedExpiry = false; // The client renews its credentials without `TOKEN_EXPIRED`.
    const since = this.#owner.host.revocations.number;
    // Always a promise, so that later messages wait for the answer.
    const { host: { authenticator }, client: { handshake } } = this.#owner;
    return new Promise<Attempt>((resolve) => resolve(authenticator.attempt(credentialsOf(parsed.output), handshake)))
      .then((attempt) => this.#newest(attempt, since, (newest) => this.#conclude(newest, parsed.output.uid, since)))
      .catch((error) => this.#report(error));
  }

  /** Answers a message of a client that is not admitted: a pending one must begin with `auth`, an expired one must renew first. */
  refuseMessage(uid: MessageUid | undefined): void {
    if (this.#owner.state === "pending") this.#refuse(authFailed(uid), new Error("The first message of the client was not auth"));
    else this.#answerExpired(uid);
  }

  /** The client was notified of the messages that it has missed. */
  notified(): void {
    // Sends `TOKEN_EXPIRED` again, because without it, the client would not renew its credentials and become anonymous.
    if (this.#hasMissedExpiry) this.#answerExpired();
  }

  /** Calls the option `revalidate` for an admitted client. */
  async revalidate(): Promise<void> {
    const { options: { revalidate }, revocations } = this.#owner.host;
    if (!revalidate || this.#owner.state !== "admitted") return;
    const since = revocations.number;
    await this.#ask(revalidate, (attempt) => {
      if (this.#owner.state === "admitted" && !this.#renew(attempt, since)) this.#lapse();
    });
  }

  get #mode() {
    return this.#owner.client.handshake.mode;
  }

  #expire(): void {
    const { options: { revalidate, timeout }, revocations } = this.#owner.host;
    this.#owner.enter("expired");
    if (!revalidate) return this.#lapse();
    // Covers both `revalidate`, which takes at most the timeout, and the grace period after it, in case of an eviction meanwhile.
    this.#wait(2 * timeout);
    // `revalidate` may renew the credentials without the client, such as a session in a cookie.
    const since = revocations.number;
    const revalidating = this.revalidating = this.#ask(revalidate, (attempt) => {
      if (this.#owner.state === "expired" && !this.#renew(attempt, since)) this.#lapse();
    }).finally(() => {
      // Meanwhile an `auth` may have renewed the credentials, and those may have expired, too.
      if (this.revalidating === revalidating) this.revalidating = undefined;
    });
    this.#owner.hold(revalidating);
  }

  /**
   * Calls `revalidate`, and again if the rights were refreshed meanwhile.
   *
   * @param take called synchronously after the check that the answer is current. Not called if the client has left, its
   * accountability has changed, or a newer call has begun.
   */
  async #ask(revalidate: Revalidate, take: (attempt: Attempt) => void): Promise<void> {
    const { authenticator, revocations } = this.#owner.host;
    for (;;) {
      const since = revocations.number;
      const generation = ++this.#generation;
      const attempt = await authenticator.run(() => revalidate(this.#owner.client));
      if (generation !== this.#generation || this.#owner.readyState !== OPEN) return;
      if (!this.#isRevoked(attempt, "refreshed", since)) return take(attempt);
    }
  }

  /**
   * Passes the attempt on, unless the rights of its user or role were refreshed since it began, because it may have read the old rights.
   * Then it calls `revalidate` until an answer is current. No message is handled meanwhile.
   *
   * @param take called synchronously after the check that the result is current.
   */
  async #newest(attempt: Attempt, since: number, take: (newest: Attempt) => void): Promise<void> {
    const { options: { revalidate, timeout }, authenticator, revocations } = this.#owner.host;
    let newest = attempt;
    // A refresh requires the option `revalidate`.
    while (revalidate && newest.outcome === "accepted" && this.#isRevoked(newest, "refreshed", since)) {
      if (this.#owner.readyState !== OPEN) break;
      since = revocations.number;
      const { accountability, expires_at, refresh_token } = newest.state;
      // `revalidate` reads the accountability of the client, so it is set before. The same user keeps its current rights until the answer.
      if (accountability.user === null || accountability.user !== this.accountability.user) {
        if (!this.#assume(accountability, expires_at ?? null)) break; // `take` fails for the same reason, and reports it.
        if (this.#owner.state === "admitted") {
          this.#owner.enter("expired");
          this.#wait(2 * timeout);
          this.#owner.changed();
        }
      }
      const answer = await authenticator.run(() => revalidate(this.#owner.client));
      if (answer.outcome === "failed") this.#report(answer.error);
      newest = answer.outcome === "accepted"
        ? { outcome: "accepted", state: { ...(refresh_token === undefined ? {} : { refresh_token }), ...answer.state } }
        : { outcome: "refused" }; // A failed `revalidate` counts as a refusal.
    }
    take(newest);
  }

  #isRevoked(attempt: Attempt, kind: Revocation, since: number): boolean {
    return attempt.outcome === "accepted" && this.#owner.host.revocations.includes(kind, attempt.state.accountability, since);
  }

  /** Applies the result of `revalidate`. Returns `false` if the client has no rights any more. */
  #renew(attempt: Attempt, since: number): boolean {
    if (attempt.outcome === "failed") this.#report(attempt.error);
    if (attempt.outcome !== "accepted" || this.#isRevoked(attempt, "disconnected", since)) return false;
    const { accountability, expires_at } = attempt.state;
    if (!this.#assume(accountability, expires_at ?? null)) return false;
    this.#hasMissedExpiry = false;
    this.#owner.enter("admitted");
    return true;
  }

  /** Sends `TOKEN_EXPIRED` and starts the grace period. */
  #lapse(): void {
    if (this.#owner.state === "admitted") this.#owner.enter("expired");
    this.#wait(this.#owner.host.options.timeout);
    this.#owner.changed();
    this.#answerExpired();
  }

  #conclude(attempt: Attempt, uid: MessageUid | undefined, since: number): void {
    // The client has left. Node reports the close some time after `readyState` has changed.
    if (this.#owner.readyState !== OPEN) return;
    if (this.#isRevoked(attempt, "disconnected", since)) {
      return this.#refuse(failure("FORBIDDEN", "Disconnected", uid), DISCONNECTED, {
        code: CloseCode.FORBIDDEN,
        reason: "disconnected",
      });
    }
    if (attempt.outcome === "accepted") return this.#accept(attempt.state, uid);
    if (attempt.outcome === "limited") {
      const details = { retry_after: attempt.retryAfter };
      const error = new WebSocketError("auth", "REQUESTS_EXCEEDED", "Too many failed attempts", {
        ...(uid === undefined ? {} : { uid }),
        details,
      });
      const cause = new Error("Too many authentications from the client's address have failed");
      if (this.#owner.state === "pending") {
        this.#refuse(error, cause, { code: CloseCode.RATE_LIMITED, closeCause: "rate", reason: "failures" });
      } else this.#answer(error);
      return;
    }
    if (attempt.outcome === "failed") {
      // A fault of the server: the error is logged, and the client may reconnect.
      this.#report(attempt.error);
      const unavailable = failure("SERVICE_UNAVAILABLE", "Authentication is unavailable", uid);
      if (this.#owner.state === "pending") {
        this.#refuse(unavailable, attempt.error, { code: CloseCode.TRY_AGAIN_LATER, reason: "unavailable" });
      } else this.#answer(unavailable);
      return;
    }
    const error = attempt.error?.withUid(uid) ?? authFailed(uid);
    // After a failed attempt, the client is anonymous, which only public mode admits.
    if (this.#mode !== "public" || ++this.#failures >= MAX_FAILURES) return this.#refuse(error, attempt.cause);
    this.#assume(ANONYMOUS, null);
    this.#owner.enter("admitted");
    this.#answer(error);
    this.#addFailure(error, attempt.cause, this.#owner.client);
  }

  #accept({ accountability, expires_at, refresh_token }: AuthenticationState, uid: MessageUid | undefined): void {
    const { user } = this.accountability;
    if (!this.#assume(accountability, expires_at ?? null)) {
      const cause = new Error("The user has as many connections as maxConnectionsPerUser allows");
      return this.#refuse(failure("LIMIT_EXCEEDED", "Too many connections of this user", uid), cause, {
        code: CloseCode.RATE_LIMITED,
        reason: "user",
        fields: { option: "maxConnectionsPerUser", limit: this.#owner.host.options.maxConnectionsPerUser },
      });
    }
    this.#failures = 0;
    const { client, host } = this.#owner;
    // Counts the subscriptions, which are authorized again; those of another user end. Before the answer, which contains the limits.
    if (user === accountability.user) host.rateGate?.renew(this.#owner, host.extension?.subscriptionsOf(client) ?? 0);
    // Before `connect`, whose listeners may send, because the first frame after an `auth` must be its answer.
    this.#owner.transmit(encode({
      type: "auth",
      status: "ok",
      ...(uid === undefined ? {} : { uid }),
      ...(refresh_token === undefined ? {} : { refresh_token }),
      ...(client.handshake.protocol === BATCHING && { limits: limitsOf(host, client) }),
    }));
    // The connection is closing, because the send has failed.
    if (this.#owner.readyState !== OPEN) return;
    this.#owner.enter("admitted");
    this.#owner.host.bus.emit("auth.success", { client: this.#owner.client });
  }

  #wait(ms: number): void {
    this.#dueAt = this.#owner.host.monotonic() + ms;
  }

  /** Sets the accountability, and counts the connection for its user. Returns `false` if the user has too many; then nothing has changed. */
  #assume(accountability: Accountability, expiresAt: number | null): boolean {
    if (!this.#owner.claim(accountability.user)) return false;
    this.#set(accountability, expiresAt);
    return true;
  }

  #set(accountability: Accountability, expiresAt: number | null): void {
    this.accountability = { ...accountability };
    this.expiresAt = expiresAt;
    this.provedAt = Math.floor(this.#owner.host.monotonic());
    this.#generation++;
  }

  /** Reports an error; without the client while it is pending, because the application has not seen it. */
  #report(error: unknown): void {
    this.#owner.host.report(error, this.#owner.isKnown ? this.#owner.client : undefined);
  }

  #answerExpired(uid?: MessageUid): void {
    this.#hasMissedExpiry = !this.#answer(failure("TOKEN_EXPIRED", "The token has expired", uid));
  }

  #answer(error: WebSocketError): boolean {
    return this.#owner.transmit(error.toMessage());
  }

  /**
   * Answers with the error and closes.
   *
   * @param why the cause for the application. The client never receives it.
   */
  #refuse(
    error: WebSocketError,
    why: unknown,
    { code = CloseCode.AUTH_FAILED, closeCause = "auth", ...refusal }: RefusedBy & { code?: number; closeCause?: CloseCause } =
      {},
  ): void {
    this.#answer(error);
    this.#addFailure(error, why, this.#owner.isKnown ? this.#owner.client : undefined, refusal);
    this.#owner.close(code, error.message, closeCause);
  }

  /** @param client shown to the application, if it was admitted. */
  #addFailure(error: WebSocketError, why: unknown, client: WebSocketClient | undefined, refusal: RefusedBy = {}): void {
    const { ip } = this.#owner.client.handshake;
    this.#owner.host.refusals.addFailure(error, why, {
      what: "a client",
      ip,
      client,
      event: "noroshi.auth.refused",
      ...refusal,
    });
  }
}

/** Why a client is refused, if {@link Authenticate} does not refuse it. */
type RefusedBy = Pick<Parameters<Refusals["addFailure"]>[2], "reason" | "fields">;

const LATE = new Error("The client did not authenticate within the option timeout");
const DISCONNECTED = new Error("disconnect() was called for the user or role of the client while it authenticated");

const failure = (code: string, message: string, uid?: MessageUid): WebSocketError =>
  new WebSocketError("auth", code, message, uid === undefined ? {} : { uid });

const authFailed = (uid: MessageUid | undefined): WebSocketError => failure("AUTH_FAILED", "Authentication failed", uid);

function credentialsOf(message: AuthMessage): Credentials {
  if ("access_token" in message) return { source: "message", access_token: message.access_token };
  if ("refresh_token" in message) return { source: "message", refresh_token: message.refresh_token };
  const { email, password, otp } = message;
  return { source: "message", email, password, ...(otp === undefined ? {} : { otp }) };
}
