import type { WebSocketMessage } from "../protocol.ts";
import { type CloseInfo, Connection } from "./connection.ts";
import { ClientError, errorOf, retryAfter } from "./error.ts";
import type { ResolvedOptions, Token } from "./options.ts";
import { onWake } from "./platform.ts";

/** `connecting`: until the server has let the client in. `waiting`: for the next try. `closed`: nothing is tried any more. */
export type ClientStatus = "connecting" | "open" | "waiting" | "closed";

/** What a client is told of the end of a connection. */
export interface ClientClose extends CloseInfo {
  /** Nothing is tried any more. */
  isFinal: boolean;
}

/** What a client is told of the next try. */
export interface Reconnecting {
  /** How many tries there were since a connection last held. */
  attempt: number;
  /** ms until the next one. */
  delay: number;
  /** Why the last one ended. */
  close: CloseInfo;
}

/** What is told of a connector as it is. */
export interface ConnectorEvents {
  /** The status has changed. */
  status: { status: ClientStatus };
  /** The next try will be made. */
  reconnecting: Reconnecting;
  /** Something went wrong. */
  error: { error: unknown };
}

/** What a connector needs of the client. */
export interface ConnectorHost {
  readonly options: ResolvedOptions;
  readonly url: string;
  /** A uid that is nobody else's. */
  nextUid(): string;
  /** The server takes messages: it has let the client in, or let it in again. */
  ready(isNew: boolean): void;
  received(message: WebSocketMessage): void;
  /** A connection that was let in has ended, or the last one did. */
  lost(close: ClientClose): void;
  ping(): WebSocketMessage;
  emit<Event extends keyof ConnectorEvents>(event: Event, payload: ConnectorEvents[Event]): void;
}

type BackoffOptions = Pick<ResolvedOptions, "backoff" | "random">;

/** How long to wait for the next try, in ms: anything up to a ceiling that doubles, so that not all come back at once ("full jitter"). */
export function backoffDelay(attempt: number, { backoff: { base, cap }, random }: BackoffOptions): number {
  return random() * Math.min(cap, base * 2 ** attempt);
}

/** Keeps one connection, never two: opens it, says who the client is, and comes back when it was lost. */
export class Connector {
  status: ClientStatus = "closed";
  /** Whether what is sent is handled: the server has let the client in, and its credentials have not run out since. */
  isReady = false;
  readonly #host: ConnectorHost;
  #connection: Connection | undefined;
  /** Resolves when nothing is left of the last connection. */
  #gone: Promise<void> = Promise.resolve();
  /** For the next try while waiting, otherwise for the server to let the client in. */
  #timer: unknown;
  /** Counts what began: what an earlier one has waited for is out of date. */
  #generation = 0;
  #attempt = 0;
  #openSince = 0;
  /** No try before (ms since 1970): the server asked for it. */
  #notBefore = 0;
  /** The uid of the `auth` that is under way. */
  #authUid: string | undefined;
  /** The last token was refused. One that is asked for anew may be accepted, once. */
  #wasRefused = false;
  #isClosing = false;
  #stopListening: (() => void) | undefined;

  constructor(host: ConnectorHost) {
    this.#host = host;
  }

  /** Starts, tries again at once, or asks whether the connection is alive. */
  wake(): void {
    if (this.status === "open") this.#connection?.heartbeat.probe();
    else if (this.status === "closed") {
      this.#stopListening = onWake(() => this.wake());
      this.#attempt = 0;
      this.#wasRefused = false;
      void this.#connect();
    } else if (this.status === "waiting" && this.#now() >= this.#notBefore) void this.#connect();
  }

  send(text: string): void {
    this.#connection?.send(text);
  }

  /** Ends it for good. Resolves when nothing is left of the connection. */
  close(code: number, reason: string): Promise<void> {
    if (this.#connection) {
      this.#isClosing = true;
      this.#connection.end(code, reason, code);
    } else if (this.status !== "closed") this.#finish({ code, reason, wasClean: true });
    return this.#gone;
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
    this.#host.emit("error", { error });
    // In public mode no close follows, and the client would be nobody without having asked for it.
    if (isAnswer) this.#refuse(error);
  }

  /** Does not come back before the time that a server asks for. Returns how long that is, in ms. */
  heed(error: ClientError): number {
    const wait = retryAfter(error);
    this.#notBefore = Math.max(this.#notBefore, this.#now() + wait);
    return wait;
  }

  #now(): number {
    return this.#host.options.clock.now();
  }

  #setStatus(status: ClientStatus): void {
    if (this.status === status) return;
    this.status = status;
    this.#host.emit("status", { status });
  }

  #wait(callback: () => void, delay: number): void {
    const { clock } = this.#host.options;
    clock.clearTimeout(this.#timer);
    this.#timer = clock.setTimeout(callback, delay);
  }

  /** How long the server may take to let the client in. */
  #limit(): void {
    this.#wait(() => this.#fail(1006, "No answer"), this.#host.options.timeout);
  }

  async #connect(): Promise<void> {
    const { options, url, received, ping } = this.#host;
    const { tokenIn } = options;
    const generation = ++this.#generation;
    this.#limit();
    this.#setStatus("connecting");
    const token = await this.#ask(generation);
    if (generation !== this.#generation) return;
    const protocols = [...options.protocols];
    let address = url;
    if (token && tokenIn === "protocol") protocols.push(`bearer.${token}`);
    if (token && tokenIn === "query") {
      address += `${url.includes("?") ? "&" : "?"}access_token=${encodeURIComponent(token)}`;
    }
    try {
      this.#connection = new Connection(
        {
          ...options,
          received,
          ping,
          opened: () => {
            if (token && tokenIn === "message") this.#authenticate(token);
            else this.#admitted();
          },
          ended: (close) => this.#lost(close),
          invalid: (error) => this.#host.emit("error", { error }),
        },
        address,
        protocols,
      );
      this.#gone = this.#connection.gone;
    } catch (error) {
      // A bad address, or a token that is no subprotocol: the next try would fail as this one did.
      this.#host.emit("error", { error });
      this.#finish({ code: 1006, reason: String(error), wasClean: false });
    }
  }

  /** The token, if there is any. One that cannot be had ends the try. */
  async #ask(generation: number): Promise<Token> {
    const { token } = this.#host.options;
    try {
      return typeof token === "function" ? await token() : token;
    } catch (error) {
      if (generation === this.#generation) {
        this.#host.emit("error", { error: new ClientError("TOKEN_FAILED", "Cannot get a token", {}, error) });
        this.#fail(1006, "Cannot get a token");
      }
      return undefined;
    }
  }

  #authenticate(token: string): void {
    this.#authUid = this.#host.nextUid();
    this.send(JSON.stringify({ type: "auth", uid: this.#authUid, access_token: token }));
  }

  #admitted(): void {
    const isNew = this.status !== "open";
    this.#host.options.clock.clearTimeout(this.#timer);
    this.#authUid = undefined;
    this.#wasRefused = false;
    this.isReady = true;
    if (isNew) {
      this.#openSince = this.#now();
      this.#connection?.heartbeat.start();
      this.#setStatus("open");
    }
    // A listener may have closed it.
    if (this.isReady) this.#host.ready(isNew);
  }

  /** The credentials have run out: others are shown on the same connection, which goes on as it was. */
  async #renew(error: ClientError): Promise<void> {
    if (!this.isReady) return; // That is under way.
    this.isReady = false;
    this.#limit();
    const generation = this.#generation;
    const token = typeof this.#host.options.token === "function" && await this.#ask(generation);
    if (generation !== this.#generation) return;
    if (token) return this.#authenticate(token);
    this.#host.emit("error", { error });
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
    this.#generation++;
    this.#connection = this.#authUid = undefined;
    this.isReady = false;
    if (this.#isClosing || !this.#mayReturn(close)) return this.#finish(close);
    // One that is let in and lost again at once has not held: it must not come back every half second.
    if (status === "open" && this.#now() - this.#openSince >= options.backoff.reset) this.#attempt = 0;
    const delay = Math.max(0, this.#notBefore - this.#now()) + backoffDelay(this.#attempt++, options);
    this.#wait(() => void this.#connect(), delay);
    const attempt = this.#attempt;
    this.#setStatus("waiting");
    if (status === "open") this.#host.lost({ ...close, isFinal: false });
    if (this.status === "waiting") this.#host.emit("reconnecting", { attempt, delay, close });
  }

  #mayReturn({ code }: CloseInfo): boolean {
    const { token, reconnect } = this.#host.options;
    if (code < 4400 || code >= 4500) return reconnect;
    // Coming back unchanged is pointless (PROTOCOL.md §6).
    const isRenewable = typeof token === "function" && (code === 4401 || code === 4408) && !this.#wasRefused;
    this.#wasRefused = true;
    return isRenewable && reconnect;
  }

  #finish(close: CloseInfo): void {
    this.#generation++;
    this.#isClosing = false;
    this.#host.options.clock.clearTimeout(this.#timer);
    this.#stopListening?.();
    this.#setStatus("closed");
    this.#host.lost({ ...close, isFinal: true });
  }
}
