import * as v from "valibot";
import type { Attempt, AuthenticationState, Authenticator, Credentials } from "./authentication.ts";
import type { Bus } from "./bus.ts";
import type { Deadlines, Timed } from "./clock.ts";
import { ABNORMAL, checkCloseCode, CloseCode, cutCloseReason } from "./close.ts";
import type { Delivery, Recipient } from "./delivery.ts";
import { type MessageUid, WebSocketError } from "./errors.ts";
import type { WebSocketEvents } from "./events.ts";
import type { Handlers } from "./handlers.ts";
import type { ResolvedOptions } from "./options.ts";
import {
  type AuthMessage,
  AuthMessageSchema,
  byteLength,
  decode,
  encode,
  exceedsBytes,
  textOf,
  type WebSocketMessage,
} from "./protocol.ts";
import { CLOSED, CLOSING, OPEN, type SavedConnection, type Transport } from "./transport.ts";
import {
  type Accountability,
  type ClientConnection,
  type Handshake,
  type JsonValue,
  WebSocketClient,
} from "./websocket-client.ts";

/** What all connections of a controller share. */
export interface ConnectionHost {
  readonly options: ResolvedOptions;
  readonly authenticator: Authenticator;
  readonly bus: Bus<WebSocketEvents>;
  readonly deadlines: Deadlines;
  readonly delivery: Delivery;
  readonly handlers: Handlers;
  /** The wall clock, in ms. */
  now(): number;
  /** An `error` event, or a logged line where nobody listens. */
  report(error: unknown, client?: WebSocketClient): void;
  /** Lists the connection's client, once it is admitted. */
  admit(connection: Connection): void;
  /** Takes the client off the list, once its connection is closed. */
  dismiss(connection: Connection): void;
}

/** Keeps connections until they are closed. */
export interface ConnectionKeeper {
  delete(connection: Connection): void;
}

const ANONYMOUS: Accountability = Object.freeze({ user: null, role: null });

/**
 * One connection's lifetime and the gate its messages pass: size, then decoding, then identity, then the handlers.
 *
 * It is pushed into by the runtime's socket — `message`, `closed`, `error` — and writes to it through a {@link Transport}.
 * *Pending* until it is admitted: no application code sees it, and nothing is sent to it before `auth ok`.
 */
export class Connection implements ClientConnection, Recipient, Timed {
  readonly client: WebSocketClient;
  deadline = 0;
  place = -1;

  readonly #host: ConnectionHost;
  readonly #transport: Transport;
  #accountability: Accountability = ANONYMOUS;
  #expiresAt: number | null = null;
  #phase: "pending" | "admitted" | "closed" = "pending";
  /** When the handshake times out, in ms of the wall clock: it is kept through hibernation. */
  #pendingUntil = 0;
  /** What our own close frame said: the close that is reported, whatever the peer echoes. */
  #closing: { code: number; reason: string } | undefined;
  /** An earlier message is being authenticated or held by a middleware, so that later ones wait. */
  #busy = false;
  #waiting: (string | null)[] | undefined;
  #waitingBytes = 0;
  readonly #keepers: ConnectionKeeper[] = [];

  constructor(host: ConnectionHost, transport: Transport, uid: string, handshake: Handshake, state?: JsonValue) {
    this.#host = host;
    this.#transport = transport;
    this.client = new WebSocketClient(this, uid, handshake, state);
  }

  // The runtime's side

  /** The socket is open. With an identity, and in public mode, the client is admitted at once. */
  opened(identity: AuthenticationState | null): void {
    if (this.#closing) return;
    const { mode } = this.client.handshake;
    if (identity) this.#identify(identity.accountability, identity.expires_at ?? null);
    if (identity || mode === "public") return this.#admit();
    const { timeout } = this.#host.options;
    this.#pendingUntil = this.#host.now() + timeout;
    this.#host.deadlines.set(this, timeout);
    this.save();
  }

  /** The socket came back from hibernation: the same connection goes on, so there is no `connect`. */
  restored(saved: SavedConnection): void {
    // It was written by `save` below, by this version or the one before it.
    const identity = saved.identity as { accountability: Accountability; expires_at: number | null } | undefined;
    if (identity) {
      this.#identify(identity.accountability, identity.expires_at);
      this.#phase = "admitted";
      this.#host.admit(this);
      return;
    }
    this.#pendingUntil = saved.pendingUntil ?? 0;
    this.#host.deadlines.set(this, Math.max(0, this.#pendingUntil - this.#host.now()));
  }

  /** A frame arrived. Only a view's own bytes count. */
  message(data: string | ArrayBuffer | ArrayBufferView): void {
    if (this.#phase === "closed" || this.#closing) return;
    const { maxPayload } = this.#host.options;
    if (typeof data === "string" ? exceedsBytes(data, maxPayload) : data.byteLength > maxPayload) {
      return this.close(CloseCode.MESSAGE_TOO_BIG, "Message too big");
    }
    const text = typeof data === "string" ? data : textOf(data);
    if (this.#busy) this.#wait(text);
    else this.#receive(text);
  }

  /** The socket closed, by whichever side. Told more than once it counts once. */
  closed(code: number, reason: string, wasClean: boolean): void {
    if (this.#phase === "closed") return;
    const admitted = this.#phase === "admitted";
    this.#phase = "closed";
    this.#waiting = undefined;
    this.#host.deadlines.delete(this);
    this.#host.dismiss(this);
    if (admitted) {
      const close = this.#closing ?? { code, reason };
      this.#host.bus.emit("close", { client: this.client, ...close, wasClean });
    }
    for (const keeper of this.#keepers) keeper.delete(this);
  }

  /** Deletes the connection from the keeper once it is closed. */
  onClosed(keeper: ConnectionKeeper): void {
    if (this.#phase === "closed") keeper.delete(this);
    else this.#keepers.push(keeper);
  }

  /** The socket reported an error; the close that follows it is reported by {@link closed}. */
  error(error: unknown): void {
    if (this.#phase !== "closed") this.#host.report(error, this.#phase === "admitted" ? this.client : undefined);
  }

  /** The deadline has passed: of the handshake, or of the peer's answer to our close frame. */
  due(): void {
    if (this.#phase === "closed") return;
    if (this.#closing) {
      this.#transport.terminate();
      return this.closed(ABNORMAL, "", false);
    }
    if (this.#phase !== "pending") return;
    const remaining = this.#pendingUntil - this.#host.now();
    // A wall clock that was set back must not keep the connection pending for longer than the timeout.
    if (remaining > 0 && remaining <= this.#host.options.timeout) return this.#host.deadlines.set(this, remaining);
    this.#refuse(new WebSocketError("auth", "AUTH_TIMEOUT", "Authentication timed out"), CloseCode.AUTH_TIMEOUT);
  }

  // The client's side

  get accountability(): Accountability {
    return this.#accountability;
  }

  get expires_at(): number | null {
    return this.#expiresAt;
  }

  get readyState(): number {
    if (this.#phase === "closed") return CLOSED;
    return this.#closing ? CLOSING : this.#transport.readyState;
  }

  get bufferedAmount(): number {
    return this.#transport.bufferedAmount;
  }

  get socket(): unknown {
    return this.#transport.socket;
  }

  /** Hands a frame to the socket, or closes the connection because it cannot. Nothing is dropped in silence. */
  send(frame: string): void {
    if (this.readyState !== OPEN) return;
    try {
      if (this.#transport.bufferedAmount <= this.#host.options.maxBufferedBytes && this.#transport.send(frame)) return;
    } catch (error) {
      // The socket was gone before the runtime said so: its close event follows.
      return this.error(error);
    }
    this.close(CloseCode.SLOW_CONSUMER, "Too slow");
  }

  close(code: number = CloseCode.NORMAL, reason = ""): void {
    checkCloseCode(code);
    if (this.#phase === "closed" || this.#closing) return;
    this.#closing = { code, reason: cutCloseReason(String(reason)) };
    this.#waiting = undefined;
    this.#host.delivery.remove(this);
    // A peer that never answers the close handshake stays open for more than 160 s on Deno and workerd.
    this.#host.deadlines.set(this, this.#host.options.closeTimeout);
    try {
      this.#transport.close(code, this.#closing.reason);
    } catch (error) {
      this.error(error);
      this.closed(ABNORMAL, "", false);
    }
  }

  save(): void {
    if (!this.#transport.save) return;
    const { uid, handshake, state } = this.client;
    const identity = { accountability: this.#accountability, expires_at: this.#expiresAt };
    this.#transport.save({
      controller: this.#host.options.name,
      uid,
      handshake,
      state,
      ...(this.#phase === "pending" ? { pendingUntil: this.#pendingUntil } : { identity }),
    });
  }

  // The gate

  #wait(text: string | null): void {
    const { maxPayload, maxPipelined } = this.#host.options;
    this.#waiting ??= [];
    this.#waitingBytes += text === null ? 0 : byteLength(text);
    if (this.#waiting.length < maxPipelined && this.#waitingBytes <= maxPayload) this.#waiting.push(text);
    else this.close(CloseCode.RATE_LIMITED, "Too many messages waiting");
  }

  #receive(text: string | null): void {
    const settled = this.#handle(text);
    if (!settled) return;
    this.#busy = true;
    void settled.then(() => {
      this.#busy = false;
      while (!this.#busy && this.#waiting?.length) {
        const next = this.#waiting.shift() as string | null; // There is one: `length` said so.
        this.#waitingBytes -= next === null ? 0 : byteLength(next);
        this.#receive(next);
      }
    });
  }

  /** The promise, if there is one, never rejects: later messages wait for it. */
  #handle(text: string | null): Promise<void> | undefined {
    const decoded = text === null ? notText : decode(text);
    if (!decoded.ok) {
      if (this.#phase === "pending") this.#refuse(authFailed(decoded.error.uid));
      else this.#answer(decoded.error);
      return undefined;
    }
    const { message } = decoded;
    if (message.type === "auth") return this.#authenticate(message);
    if (this.#phase === "pending") {
      this.#refuse(authFailed(message.uid));
      return undefined;
    }
    // A pong needs no answer: that it came in is what it is for.
    if (message.type === "pong") return undefined;
    if (message.type === "ping") {
      const { uid } = message;
      this.send(encode(uid === undefined ? { type: "pong" } : { type: "pong", uid }));
      return undefined;
    }
    return this.#host.handlers.dispatch(this.client, message);
  }

  #answer(error: WebSocketError): void {
    this.send(error.toMessage());
  }

  // Identity

  #authenticate(message: WebSocketMessage): Promise<void> | undefined {
    const parsed = v.safeParse(AuthMessageSchema, message, { abortEarly: true, abortPipeEarly: true });
    if (!parsed.success) {
      if (this.#phase === "pending") this.#refuse(authFailed(message.uid));
      else {this.#answer(
          new WebSocketError(
            "auth",
            "INVALID_PAYLOAD",
            "Send access_token, refresh_token, or email and password",
            uidOption(message.uid),
          ),
        );}
      return undefined;
    }
    const { uid } = parsed.output;
    return this.#host.authenticator.attempt(credentialsOf(parsed.output), this.client.handshake)
      .then((attempt) => this.#conclude(attempt, uid));
  }

  #conclude(attempt: Attempt, uid: MessageUid | undefined): void {
    // The client left meanwhile: on Node the close is reported only some time after readyState has changed.
    if (this.readyState !== OPEN) return;
    if (attempt.outcome === "accepted") return this.#accept(attempt.state, uid);
    if (attempt.outcome === "failed" && !(attempt.error instanceof WebSocketError)) {
      // The server's fault: what happened is for the log, and the client may come back.
      this.#host.report(attempt.error, this.#phase === "admitted" ? this.client : undefined);
      const unavailable = new WebSocketError("auth", "SERVICE_UNAVAILABLE", "Authentication is unavailable", uidOption(uid));
      if (this.#phase === "pending") this.#refuse(unavailable, CloseCode.TRY_AGAIN_LATER);
      else this.#answer(unavailable);
      return;
    }
    const error = attempt.outcome === "failed" ? (attempt.error as WebSocketError).withUid(uid) : authFailed(uid);
    // Who could not prove who they are is nobody from here on; only public mode has a place for nobody.
    if (this.client.handshake.mode !== "public") return this.#refuse(error);
    this.#identify(ANONYMOUS, null);
    this.#host.delivery.add(this);
    this.save();
    this.#answer(error);
    this.#host.bus.emit("auth.failure", { client: this.client, error });
  }

  #accept(state: AuthenticationState, uid: MessageUid | undefined): void {
    this.#identify(state.accountability, state.expires_at ?? null);
    const { refresh_token } = state;
    // Before `connect`, whose listeners may send: the first frame after an `auth` must be its answer.
    this.send(encode({
      type: "auth",
      status: "ok",
      ...(uid === undefined ? {} : { uid }),
      ...(refresh_token === undefined ? {} : { refresh_token }),
    }));
    if (this.#phase === "pending") this.#admit();
    else {
      this.#host.delivery.add(this);
      this.save();
    }
    this.#host.bus.emit("auth.success", { client: this.client });
  }

  #identify(accountability: Accountability, expiresAt: number | null): void {
    this.#accountability = accountability;
    this.#expiresAt = expiresAt;
  }

  #admit(): void {
    this.#host.deadlines.delete(this);
    this.#phase = "admitted";
    this.save();
    this.#host.admit(this);
    this.#host.bus.emit("connect", { client: this.client });
  }

  /** Tells the client what was wrong with its authentication and closes. */
  #refuse(error: WebSocketError, code: number = CloseCode.AUTH_FAILED): void {
    this.#answer(error);
    this.#host.bus.emit("auth.failure", this.#phase === "admitted" ? { client: this.client, error } : { error });
    this.close(code, error.message);
  }
}

const notText = {
  ok: false,
  error: new WebSocketError("server", "INVALID_PAYLOAD", "Binary that is not UTF-8 text"),
} as const;

const uidOption = (uid: MessageUid | undefined): { uid?: MessageUid } => uid === undefined ? {} : { uid };

const authFailed = (uid: MessageUid | undefined): WebSocketError =>
  new WebSocketError("auth", "AUTH_FAILED", "Authentication failed", uidOption(uid));

function credentialsOf(message: AuthMessage): Credentials {
  if ("access_token" in message) return { source: "message", access_token: message.access_token };
  if ("refresh_token" in message) return { source: "message", refresh_token: message.refresh_token };
  const { email, password, otp } = message;
  return { source: "message", email, password, ...(otp === undefined ? {} : { otp }) };
}
