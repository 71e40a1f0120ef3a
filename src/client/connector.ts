import type { WebSocketMessage } from "../protocol.ts";
import { backoffDelay } from "./backoff.ts";
import { Connection } from "./connection.ts";
import { checkToken } from "./encode.ts";
import { ClientError, errorOf, retryAfter } from "./error.ts";
import type { ClientClose, ClientStatus, ConnectorEvents } from "./events.ts";
import { type CloseInfo, notConnected, textOf, withoutSecrets } from "./failure.ts";
import type { ResolvedOptions, Token } from "./options.ts";
import { Pace } from "./pace.ts";
import { onWake } from "./platform.ts";

/** What a connector needs of the client. */
export interface ConnectorHost {
  readonly options: ResolvedOptions;
  readonly url: string;
  /** A uid that is nobody else's. */
  nextUid(): string;
  /** The server takes messages: it has let the client in, or let it in again. */
  ready(isNew: boolean): void;
  /** The server takes more messages. */
  resume(): void;
  /** How many subscriptions have been asked for and not answered. */
  asked(): number;
  received(message: WebSocketMessage): void;
  /** A connection that was let in has ended, or the last one did; the events follow. `error` says why nothing is tried any more. */
  lost(close: ClientClose, error?: ClientError): void;
  ping(): WebSocketMessage;
  emit<Event extends keyof ConnectorEvents>(event: Event, payload: ConnectorEvents[Event]): void;
}

/** Keeps one connection, never two: opens it, says who the client is, and comes back when it was lost. */
export class Connector {
  status: ClientStatus = "closed";
  /** Whether what is sent is handled: the server has let the client in, and its credentials have not run out since. */
  isReady = false;
  /** Why there is no connection. Absent while there is one, before the first attempt has ended, and where the application closed it. */
  error: ClientError | undefined;
  readonly pace: Pace;
  readonly #host: ConnectorHost;
  #connection: Connection | undefined;
  /** Resolves when nothing is left of the last connection. */
  #gone: Promise<void> = Promise.resolve();
  /** For the next try while waiting, otherwise for the server to let the client in. */
  #timer: unknown;
  /** Counts what began: what an earlier one has waited for is out of date. */
  #generation = 0;
  /** Attempts since a connection last held: what the waiting goes by. */
  #attempt = 0;
  /** Attempts since the server last let the client in: what is reported. */
  #attempts = 0;
  #close: CloseInfo | undefined;
  #openSince = 0;
  /** No try before: the server asked for it. As all times of a connector in ms of the monotonic clock. */
  #notBefore = 0;
  /** The uid of the `auth` that is under way. */
  #authUid: string | undefined;
  /** The server has been asked whether it has let the client in: its first message that is no `auth` says so. */
  #isAsking = false;
  /** What the server said of the credentials, or `token` and `renew` threw, since the attempt began. */
  #fault: ClientError | undefined;
  /** The code of the last `error` event of this outage: there is one, not one for each attempt. */
  #reported: string | undefined;
  /** The last credentials were refused. Others that are asked for anew may be accepted, once. */
  #wasRefused = false;
  /** Upgrades in a row that were refused, as far as the platform says so. */
  #refusals = 0;
  /** The session is renewed before the next attempt. */
  #mustRenew = false;
  #isClosing = false;
  #stopListening: (() => void) | undefined;

  constructor(host: ConnectorHost) {
    this.#host = host;
    this.pace = new Pace({
      clock: host.options.clock,
      nextUid: host.nextUid,
      send: (text) => this.#connection?.send(text),
      asked: host.asked,
      resume: () => {
        if (this.isReady) host.resume();
      },
    });
  }

  /**
   * Starts, tries again at once, or asks whether the connection is alive.
   *
   * @param isEarly whether it may be before the time that the server asks for.
   */
  wake(isEarly: boolean): void {
    if (this.status === "open") this.#connection?.heartbeat.probe();
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

  /** The page is put into the back/forward cache, where its socket would answer pings: nothing is tried until it is seen again. */
  #sleep(): void {
    // Not 1000: the client may come back, and has not left.
    if (this.status !== "waiting") this.#fail(4000, "Page hidden");
    this.#host.options.clock.clearTimeout(this.#timer);
  }

  /** Sends it, whether or not the server takes messages now. */
  send(message: WebSocketMessage): void {
    this.#connection?.send(JSON.stringify(this.pace.probe(message)));
  }

  /** Sends it if the server takes messages now. */
  offer(text: string, isSubscribe?: boolean): boolean {
    return this.isReady && this.pace.send(text, isSubscribe);
  }

  /** Ends it for good. Resolves when nothing is left of the connection. */
  close(code: number, reason: string): Promise<void> {
    if (this.#connection) {
      this.#isClosing = true;
      this.#connection.end(code, reason, code);
    } else if (this.status !== "closed") this.#finish({ code, reason, wasClean: true });
    return this.#gone;
  }

  /** Why what waits was not sent. */
  notConnected(): ClientError {
    return this.#describe("NOT_CONNECTED");
  }

  /** An answer to `auth`, or that the credentials have run out. */
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
    this.#report(this.#fault = error);
    // In public mode no close follows, and the client would be nobody without having asked for it.
    if (isAnswer) this.#refuse(error);
  }

  /** Does not come back before the time that a server asks for. Returns how long that is, in ms. */
  heed(error: ClientError): number {
    const wait = retryAfter(error);
    if (wait) this.pace.pause(wait);
    this.#notBefore = Math.max(this.#notBefore, this.#now() + wait);
    return wait;
  }

  /** Looked at again after a listener, which may have changed it. */
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

  /** An `error` event, once for each code in an outage. */
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

  /** How long the server may take to let the client in. */
  #limit(): void {
    const { clock, timeout } = this.#host.options;
    if (timeout) this.#wait(() => this.#fail(1006, this.#connection ? "No answer" : "No token"), timeout);
    else clock.clearTimeout(this.#timer);
  }

  async #connect(): Promise<void> {
    const { options, url, received, ping } = this.#host;
    const { tokenIn } = options;
    const generation = ++this.#generation;
    this.#attempts++;
    this.#fault = undefined;
    this.#limit();
    this.#setStatus("connecting");
    const token = await this.#ask(generation);
    if (generation !== this.#generation) return;
    try {
      const protocols = [...options.protocols];
      let address = url;
      if (token && tokenIn === "protocol") protocols.push(`bearer.${token}`);
      if (token && tokenIn === "query") {
        address += `${url.includes("?") ? "&" : "?"}access_token=${encodeURIComponent(token)}`;
      }
      this.#connection = new Connection(
        {
          ...options,
          received: (message) => {
            this.pace.heard(message);
            if (this.#isAsking) this.#answered(message);
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
      // A bad address, or a token that is no subprotocol: the next try would fail as this one did.
      this.#close = { code: 1006, reason: withoutSecrets(textOf(error), token), wasClean: false };
      this.#report(this.#fault = this.#describe());
      this.#finish(this.#close, this.#fault);
    }
  }

  /** The token, if there is any, once the session is renewed where it has to be. What cannot be had ends the try. */
  async #ask(generation: number): Promise<Token> {
    const { token, renew } = this.#host.options;
    try {
      if (renew && this.#mustRenew) {
        const isRenewed = await renew() !== false;
        if (generation !== this.#generation) return undefined;
        this.#mustRenew = false;
        if (!isRenewed) {
          const reason = "The session has ended";
          this.#report(this.#fault = new ClientError("AUTH_FAILED", reason, {}, this.error));
          this.#finish({ code: 4401, reason, wasClean: false }, this.#fault);
          return undefined;
        }
      }
      return checkToken(typeof token === "function" ? await token() : token);
    } catch (error) {
      if (generation === this.#generation) {
        this.#report(this.#fault = new ClientError("TOKEN_FAILED", "Cannot get a token", {}, error));
        this.#fail(1006, "Cannot get a token");
      }
      return undefined;
    }
  }

  /** Shows the token, or asks whether the server has let the client in without one: it answers a ping only then (PROTOCOL.md §3.5). */
  #authenticate(token: Token): void {
    const uid = this.#authUid = this.#host.nextUid();
    this.#isAsking = !token;
    this.pace.mark(uid);
    // With a uid: a runtime that answers bare pings for the server does not know whether the client is admitted.
    const message = token ? { type: "auth", uid, access_token: token } : { type: "ping", uid, limits: true };
    this.#connection?.send(JSON.stringify(message));
  }

  /** To a client that it has not let in, a server sends nothing but the error that refuses it (PROTOCOL.md §2.4). */
  #answered({ type, uid }: WebSocketMessage): void {
    if (type === "auth") return;
    if (!this.#mustRenew) return this.#admitted();
    // What was sent before it expired has been refused by now, and waits. Not 1000: the client comes back, and has not left.
    if (uid === this.#authUid) this.#fail(4000, "Token expired");
  }

  #admitted(): void {
    const isNew = this.status !== "open";
    this.#host.options.clock.clearTimeout(this.#timer);
    this.#authUid = this.#reported = undefined;
    this.#fault = this.#close = this.error = undefined;
    this.#isAsking = this.#wasRefused = this.#mustRenew = false;
    this.#attempts = this.#refusals = 0;
    this.isReady = true;
    if (isNew) {
      this.#openSince = this.#now();
      this.#connection?.heartbeat.start();
      this.#setStatus("open");
    }
    // A listener may have closed it.
    if (this.isReady) this.#host.ready(isNew);
  }

  /** The credentials have run out: others are shown on the same connection, which goes on as it was, or the session is renewed. */
  async #renew(error: ClientError): Promise<void> {
    const { token, renew } = this.#host.options;
    if (this.#mustRenew || !this.isReady && !this.#isAsking) return; // That is under way.
    this.isReady = this.#isAsking = false;
    this.#limit();
    const generation = this.#generation;
    const renewed = typeof token === "function" && await this.#ask(generation);
    if (generation !== this.#generation) return;
    if (renewed) return this.#authenticate(renewed);
    if (renew) {
      this.#fault = error;
      this.#mustRenew = true;
      return this.#authenticate(undefined);
    }
    this.#report(this.#fault = error);
    this.#refuse(error);
  }

  #refuse({ code, message }: ClientError): void {
    // What it would be closed with, or is.
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
    this.isReady = this.#isAsking = false;
    this.#close = close;
    if (this.#isClosing) return this.#finish(close);
    const error = this.error = this.#fault ?? this.#describe(undefined, null);
    if (wasOpen) this.#reported = this.#fault?.code;
    else this.#report(error);
    // A listener may have closed it, or be the first to have.
    if (generation !== this.#generation) return;
    if (!this.#mayReturn(close, wasOpened)) return this.#finish(close, error);
    // One that is let in and lost again at once has not held: it must not come back every half second.
    if (wasOpen && this.#now() - this.#openSince >= options.backoff.reset) this.#attempt = 0;
    const delay = Math.max(0, this.#notBefore - this.#now()) + backoffDelay(this.#attempt++, options);
    const attempt = this.#attempt;
    this.#wait(() => void this.#connect(), delay);
    this.status = "waiting";
    if (wasOpen) this.#host.lost({ ...close, isFinal: false });
    this.#host.emit("status", { status: "waiting" });
    if (wasOpen && !this.#isClosed) this.#host.emit("close", { ...close, isFinal: false });
    if (generation === this.#generation) this.#host.emit("reconnecting", { attempt, delay, close });
  }

  #mayReturn({ code, status, reason }: CloseInfo, wasOpened: boolean): boolean {
    const { token, renew, reconnect, maxAttempts, maxRefusals } = this.#host.options;
    const isRefused = status === 401 || status === 403;
    // In a browser, 1006 without a word is all that is known.
    this.#refusals = isRefused || !wasOpened && !reason ? this.#refusals + 1 : 0;
    if (!reconnect || maxAttempts && this.#attempts >= maxAttempts) return false;
    if (code >= 4400 && code < 4500) {
      // Coming back unchanged is pointless (PROTOCOL.md §6).
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

  /** @param error why, where the application has not asked for it. */
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
    // What waited for it may have opened it again.
    if (!wasClosed && this.#isClosed) this.#host.emit("status", { status: "closed" });
    this.#host.emit("close", final);
  }
}
