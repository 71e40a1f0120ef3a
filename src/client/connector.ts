import type { WebSocketMessage } from "../protocol/protocol.ts";
import { backoffDelay } from "./backoff.ts";
import { ClientSocket } from "./client-socket.ts";
import { checkToken } from "./encode.ts";
import { ClientError, errorOf, retryAfter, retryIn } from "./error.ts";
import type { ClientClose, ClientStatus, ConnectorEvents } from "./events.ts";
import { type CloseInfo, notConnected, textOf, withoutSecrets } from "./failure.ts";
import type { ResolvedOptions, Token } from "./options.ts";
import { Pace } from "./pace.ts";
import { onWake } from "./platform.ts";

/** What a connector needs from the client. */
export interface ConnectorHost {
  readonly options: ResolvedOptions;
  readonly url: string;
  /** Returns a new unique uid. */
  nextUid(): string;
  /** The server has admitted the client, or accepted its new credentials. */
  ready(isNew: boolean): void;
  /** The server accepts messages again. */
  resume(): void;
  /** Number of `subscribe` messages that are sent and unanswered. */
  unanswered(): number;
  received(message: WebSocketMessage): void;
  /** An admitted connection, or the last one, has ended. Called before the events; `error` says why the client gave up. */
  lost(close: ClientClose, error?: ClientError): void;
  ping(): WebSocketMessage;
  emit<Event extends keyof ConnectorEvents>(event: Event, payload: ConnectorEvents[Event]): void;
}

/** Keeps at most one connection: opens it, authenticates and reconnects. */
export class Connector {
  status: ClientStatus = "closed";
  /** Whether the server handles messages: the client is admitted and its credentials have not expired. */
  isReady = false;
  /** See {@link BareClient.error}. */
  error: ClientError | undefined;
  readonly pace: Pace;
  readonly #host: ConnectorHost;
  #connection: ClientSocket | undefined;
  /** Resolves when the last connection is gone. */
  #gone: Promise<void> = Promise.resolve();
  /** While waiting: the next attempt. Otherwise: the limit for being admitted. */
  #timer: unknown;
  /** Incremented by each attempt and end, so that an async step can tell that it is out of date. */
  #generation = 0;
  /** Attempts since a connection last held for `backoff.reset`; sets the backoff. */
  #attempt = 0;
  /** Attempts since the client was last admitted; reported in errors. */
  #attempts = 0;
  #close: CloseInfo | undefined;
  #openSince = 0;
  /** Earliest time of the next attempt, from `retry_after` or a close reason. All times here are ms of the monotonic clock. */
  #notBefore = 0;
  /** The `uid` of the pending `auth`, or of the ping sent in its place. */
  #authUid: string | undefined;
  /** A ping was sent in place of `auth`: the first message that is not `auth` shows that the client is admitted. */
  #isProbing = false;
  /** Error of the credentials in this attempt, from the server, `token` or `renew`. */
  #credentialsError: ClientError | undefined;
  /** Code of the last `error` event in this outage, so that each code is reported once and not per attempt. */
  #reported: string | undefined;
  /** The last credentials were refused. A second refusal in a row is final. */
  #wasRefused = false;
  /** Consecutive upgrades that were, or may have been, refused. */
  #refusals = 0;
  /** `renew` must run before the next attempt. */
  #mustRenew = false;
  #isClosing = false;
  #stopListening: (() => void) | undefined;

  constructor(host: ConnectorHost) {
    this.#host = host;
    this.pace = new Pace({
      clock: host.options.clock,
      nextUid: host.nextUid,
      send: (text) => this.#connection?.send(text),
      unanswered: host.unanswered,
      resume: () => {
        if (this.isReady) host.resume();
      },
    });
  }

  /**
   * Connects, retries now, or pings an open connection.
   *
   * @param isEarly ignores the time that the server asked to wait.
   */
  wake(isEarly: boolean): void {
    if (this.status === "open") this.#connection?.liveness.probe();
    else if (this.status === "closed") {
      this.#stopListening = onWake(() => this.wake(false), () => this.#sleep());
      this.#attempt = this.#attempts = this.#refusals = 0;
      this.#wasRefused = this.#mustRenew = false;
      this.error = this.#close = this.#reported = undefined;
      void this.#connect();
    } else if (this.status === "waiting") {
      const rest = isEarly ? 0 : this.#notBefore - this.#now();
      if (rest <= 0) void this.#connect();
      else this.#wait(() => void this.#connect(), rest);
    }
  }

  /** The page enters the back/forward cache, where its socket would keep answering pings: disconnect until it is shown again. */
  #sleep(): void {
    // Not 1000, which would announce the member as having left.
    if (this.status !== "waiting") this.#fail(4000, "Page hidden");
    this.#host.options.clock.clearTimeout(this.#timer);
  }

  /** Sends a message even while the server is not ready for others. */
  send(message: WebSocketMessage): void {
    this.#connection?.send(JSON.stringify(this.pace.probe(message)));
  }

  /** Sends a message if the server accepts it now. Returns whether it did. */
  offer(text: string, isSubscribe?: boolean): boolean {
    return this.isReady && this.pace.send(text, isSubscribe);
  }

  /** Closes for good. Resolves when the connection is gone. */
  close(code: number, reason: string): Promise<void> {
    if (this.#connection) {
      this.#isClosing = true;
      this.#connection.end(code, reason, code);
    } else if (this.status !== "closed") this.#finish({ code, reason, wasClean: true });
    return this.#gone;
  }

  /** The error for messages that cannot be sent. */
  notConnected(): ClientError {
    return this.#describe("NOT_CONNECTED");
  }

  /** Handles an answer to `auth`, or the notice that the credentials have expired. */
  auth(message: WebSocketMessage): void {
    const { uid, status } = message;
    const isAnswer = this.#authUid && uid === this.#authUid;
    if (status === "ok") {
      if (isAnswer) this.#admitted();
      return;
    }
    const error = errorOf(message);
    if (error.code === "TOKEN_EXPIRED" && !isAnswer) return void this.#renew(error);
    this.heed(error);
    this.#report(this.#credentialsError = error);
    // In public mode the server keeps the connection, and the client would silently continue as anonymous (PROTOCOL.md §2.4).
    if (isAnswer) this.#refuse(error);
  }

  /** Applies the error's `retry_after`, and returns it in ms. */
  heed(error: ClientError): number {
    const wait = retryAfter(error);
    if (wait) this.pace.pause(wait);
    this.#notBefore = Math.max(this.#notBefore, this.#now() + wait);
    return wait;
  }

  /** A getter, because a listener may have changed the status, which TypeScript would take for unchanged. */
  get #isClosed(): boolean {
    return this.status === "closed";
  }

  #now(): number {
    return this.#host.options.clock.monotonic();
  }

  #setStatus(status: ClientStatus): void {
    if (this.status === status) return;
    this.status = status;
    this.#host.emit("status", { status });
  }

  #describe(code?: string, cause: unknown = this.error): ClientError {
    return notConnected(this.#host.url, this.#attempts, this.#close, code, cause);
  }

  /** Emits `error`, once per code in an outage. */
  #report(error: ClientError): void {
    if (this.status !== "open" && error.code === this.#reported) return;
    this.#reported = error.code;
    this.#host.emit("error", { error });
  }

  #wait(callback: () => void, delay: number): void {
    const { clock } = this.#host.options;
    clock.clearTimeout(this.#timer);
    this.#timer = clock.setTimeout(callback, delay);
  }

  /** Starts the timeout for being admitted. */
  #startTimeout(): void {
    const { clock, timeout } = this.#host.options;
    if (timeout) this.#wait(() => this.#fail(1006, this.#connection ? "No answer" : "No token"), timeout);
    else clock.clearTimeout(this.#timer);
  }

  async #connect(): Promise<void> {
    const { options, url, received, ping } = this.#host;
    const { tokenIn } = options;
    const generation = ++this.#generation;
    this.#attempts++;
    this.#credentialsError = undefined;
    this.#startTimeout();
    this.#setStatus("connecting");
    const token = await this.#getToken(generation);
    if (generation !== this.#generation) return;
    try {
      const protocols = [...options.protocols];
      let address = url;
      if (token && tokenIn === "protocol") protocols.push(`bearer.${token}`);
      if (token && tokenIn === "query") {
        address += `${url.includes("?") ? "&" : "?"}access_token=${encodeURIComponent(token)}`;
      }
      this.#connection = new ClientSocket(
        {
          ...options,
          received: (message) => {
            this.pace.heard(message);
            if (this.#isProbing) this.#checkAdmission(message);
            if (this.#connection) received(message);
          },
          ping: () => this.pace.probe(ping()),
          opened: () => this.#authenticate(tokenIn === "message" ? token : undefined),
          ended: (close) => this.#lost(close),
          invalid: (error) => this.#host.emit("error", { error }),
        },
        address,
        protocols,
      );
      this.#gone = this.#connection.gone;
    } catch (error) {
      // An invalid URL, or a token that is no valid subprotocol: another attempt would fail the same way.
      this.#close = { code: 1006, reason: withoutSecrets(textOf(error), token), wasClean: false };
      this.#report(this.#credentialsError = this.#describe());
      this.#finish(this.#close, this.#credentialsError);
    }
  }

  /** Runs `renew` if it is due, then gets the token. A failure ends the attempt. */
  async #getToken(generation: number): Promise<Token> {
    const { token, renew } = this.#host.options;
    try {
      if (renew && this.#mustRenew) {
        const isRenewed = await renew() !== false;
        if (generation !== this.#generation) return undefined;
        this.#mustRenew = false;
        if (!isRenewed) {
          const reason = "The session has ended";
          this.#report(this.#credentialsError = new ClientError("AUTH_FAILED", reason, {}, this.error));
          this.#finish({ code: 4401, reason, wasClean: false }, this.#credentialsError);
          return undefined;
        }
      }
      return checkToken(typeof token === "function" ? await token() : token);
    } catch (error) {
      if (generation === this.#generation) {
        this.#report(this.#credentialsError = new ClientError("TOKEN_FAILED", "Cannot get a token", {}, error));
        this.#fail(1006, "Cannot get a token");
      }
      return undefined;
    }
  }

  /** Sends the token, or a ping that is answered only if the client was admitted without one (PROTOCOL.md §3.5). */
  #authenticate(token: Token): void {
    const uid = this.#authUid = this.#host.nextUid();
    this.#isProbing = !token;
    this.pace.mark(uid);
    // With a `uid`: a runtime may answer bare pings by itself, without knowing whether the client is admitted.
    const message = token ? { type: "auth", uid, access_token: token } : { type: "ping", uid, limits: true };
    this.#connection?.send(JSON.stringify(message));
  }

  /** Before it admits a client, a server sends nothing but the error that refuses it (PROTOCOL.md §2.4). */
  #checkAdmission({ type, uid }: WebSocketMessage): void {
    if (type === "auth") return;
    if (!this.#mustRenew) return this.#admitted();
    // By this pong, every message sent after the expiry has been refused and queued again. Not 1000, as in `#sleep`.
    if (uid === this.#authUid) this.#fail(4000, "Token expired");
  }

  #admitted(): void {
    const isNew = this.status !== "open";
    this.#host.options.clock.clearTimeout(this.#timer);
    this.#authUid = this.#reported = undefined;
    this.#credentialsError = this.#close = this.error = undefined;
    this.#isProbing = this.#wasRefused = this.#mustRenew = false;
    this.#attempts = this.#refusals = 0;
    this.isReady = true;
    if (isNew) {
      this.#openSince = this.#now();
      this.#connection?.liveness.start();
      this.#setStatus("open");
    }
    // A listener may have closed the client.
    if (this.isReady) this.#host.ready(isNew);
  }

  /** The credentials have expired: sends a new token on the same connection, or renews the session and reconnects. */
  async #renew(error: ClientError): Promise<void> {
    const { token, renew } = this.#host.options;
    if (this.#mustRenew || !this.isReady && !this.#isProbing) return; // Already under way.
    this.isReady = this.#isProbing = false;
    this.#startTimeout();
    const generation = this.#generation;
    const renewed = typeof token === "function" && await this.#getToken(generation);
    if (generation !== this.#generation) return;
    if (renewed) return this.#authenticate(renewed);
    if (renew) {
      this.#credentialsError = error;
      this.#mustRenew = true;
      return this.#authenticate(undefined);
    }
    this.#report(this.#credentialsError = error);
    this.#refuse(error);
  }

  #refuse({ code, message }: ClientError): void {
    // The code with which the server closes, or would close, such a client.
    this.#fail(code === "FORBIDDEN" ? 4403 : /_(EXCEEDED|UNAVAILABLE)$/.test(code) ? 1013 : 4401, message);
  }

  #fail(code: number, reason: string): void {
    if (this.#connection) this.#connection.end(code, reason);
    else this.#lost({ code, reason, wasClean: false });
  }

  #lost(close: CloseInfo): void {
    const { options } = this.#host;
    const { status } = this;
    const wasOpen = status === "open";
    const wasOpened = !this.#connection || this.#connection.wasOpened;
    const generation = ++this.#generation;
    this.#connection = this.#authUid = undefined;
    this.pace.reset();
    this.isReady = this.#isProbing = false;
    this.#close = close;
    if (this.#isClosing) return this.#finish(close);
    const error = this.error = this.#credentialsError ?? this.#describe(undefined, null);
    if (wasOpen) this.#reported = this.#credentialsError?.code;
    else this.#report(error);
    // A listener may have closed or reopened the client.
    if (generation !== this.#generation) return;
    if (!this.#mayReconnect(close, wasOpened)) return this.#finish(close, error);
    // A connection that is lost right after it was admitted keeps its backoff, or it would return every half second. So does one that
    // read too slowly (4508): the next would ask for the same history again.
    if (wasOpen && close.code !== 4508 && this.#now() - this.#openSince >= options.backoff.reset) this.#attempt = 0;
    this.#notBefore = Math.max(this.#notBefore, this.#now() + retryIn(close.reason));
    const delay = this.#notBefore - this.#now() + backoffDelay(this.#attempt++, options, close.code);
    const attempt = this.#attempt;
    this.#wait(() => void this.#connect(), delay);
    this.status = "waiting";
    if (wasOpen) this.#host.lost({ ...close, isFinal: false });
    this.#host.emit("status", { status: "waiting" });
    if (wasOpen && !this.#isClosed) this.#host.emit("close", { ...close, isFinal: false });
    if (generation === this.#generation) this.#host.emit("reconnecting", { attempt, delay, close });
  }

  #mayReconnect({ code, status, reason }: CloseInfo, wasOpened: boolean): boolean {
    const { token, renew, reconnect, maxAttempts, maxRefusals } = this.#host.options;
    const isRefused = status === 401 || status === 403;
    // A browser reports a refused upgrade only as 1006 without a reason.
    this.#refusals = isRefused || !wasOpened && !reason ? this.#refusals + 1 : 0;
    if (!reconnect || maxAttempts && this.#attempts >= maxAttempts) return false;
    if (code >= 4400 && code < 4500) {
      // Retrying unchanged is pointless (PROTOCOL.md §6).
      if (this.#wasRefused || code !== 4401 && code !== 4408 || !renew && typeof token !== "function") return false;
      this.#wasRefused = true;
      this.#mustRenew = !!renew;
    }
    if (this.#refusals && this.#refusals === maxRefusals) {
      if (isRefused && (this.#wasRefused || !renew)) return false;
      this.#refusals = 0;
      this.#wasRefused ||= isRefused;
      this.#mustRenew = !!renew;
    }
    return true;
  }

  /** @param error why the client gave up; `undefined` when the application closed it. */
  #finish(close: CloseInfo, error?: ClientError): void {
    this.#generation++;
    this.#isClosing = false;
    this.error = error;
    this.#host.options.clock.clearTimeout(this.#timer);
    this.#stopListening?.();
    const wasClosed = this.status === "closed";
    this.status = "closed";
    const final = { ...close, isFinal: true };
    this.#host.lost(final, error);
    // A callback may have opened the client again.
    if (!wasClosed && this.#isClosed) this.#host.emit("status", { status: "closed" });
    this.#host.emit("close", final);
  }
}
