import type { AuthenticationState } from "./authentication.ts";
import type { Deadlines, Timed } from "./clock.ts";
import { ABNORMAL, checkCloseCode, type CloseCause, CloseCode, cutCloseReason, isFinal, SHORT_CLOSE_TIMEOUT } from "./close.ts";
import type { Delivery, IndexedRecipient, IndexKeys } from "./delivery.ts";
import { Frame } from "./frame.ts";
import type { MessageUid } from "./errors.ts";
import type { Extension } from "./extension.ts";
import { FLOOD, type GateOwner, pass, receive } from "./gate.ts";
import type { Handlers } from "./handlers.ts";
import type { Heartbeat, HeartbeatOwner } from "./heartbeat.ts";
import { Identity, type IdentityHost, type IdentityOwner } from "./identity.ts";
import type { Slot } from "./limits.ts";
import { Pipeline } from "./pipeline.ts";
import type { Flood } from "./rate-gate.ts";
import type { Sender, SenderOwner } from "./sender.ts";
import { steppedFor } from "./stepped-transport.ts";
import { CLOSED, CLOSING, OPEN, type SavedConnection, type Transport } from "./transport.ts";
import {
  type Accountability,
  type ClientConnection,
  type Handshake,
  type JsonValue,
  WebSocketClient,
} from "./websocket-client.ts";

/** What all connections of a controller share. */
export interface ConnectionHost extends IdentityHost {
  readonly deadlines: Deadlines;
  readonly delivery: Pick<Delivery, "add" | "remove">;
  readonly handlers: Handlers;
  /** Absent: nobody is asked for a sign of life. */
  readonly heartbeat: Heartbeat | undefined;
  readonly sender: Sender;
  /** Lists the client and delivers to it, from now on or by what has changed. */
  admit(connection: Connection): void;
  /** What is built on the connections. */
  readonly extension: Extension | undefined;
  /** Delivers nothing to it; it stays listed. */
  suspend(connection: Connection): void;
  /** Takes the client off the list. */
  dismiss(connection: Connection, hasLeft: boolean, cause: CloseCause): void;
}

/** Keeps the connections of a server until they are closed. */
export interface ConnectionKeeper {
  delete(connection: Connection): void;
}

/** The longest time between two looks at the wall clock, in ms: it may be set forward. */
const MAX_WALL_WAIT = 60_000;

type Closing = { code: number; reason: string; cause: CloseCause };

/** ms for which a connection may be open: up to a tenth less than `maxAge`, so that clients that came together do not come back together. */
const ageOf = ({ maxAge }: { readonly maxAge: number }): number => maxAge * (1 - Math.random() / 10);

/**
 * One connection's lifetime and the gate its messages pass: size, rate, decoding, identity, then the handlers.
 *
 * It is pushed into by the runtime's socket — `message`, `heard`, `closed`, `error` — and writes to it through a {@link Transport}.
 * *Pending* until it is admitted: no application code sees it, and nothing is sent to it before `auth ok`.
 */
export class Connection
  implements ClientConnection, GateOwner, HeartbeatOwner, IdentityOwner, IndexedRecipient, SenderOwner, Timed {
  readonly client: WebSocketClient;
  deadline = 0;
  place = -1;

  readonly host: ConnectionHost;
  transport: Transport;
  readonly identity: Identity;
  readonly #slot: Slot;
  #keeper: ConnectionKeeper | undefined;
  /** Whether the application was told of it, so that it is to be told of its close. */
  #stage: "unknown" | "known" | "closed" = "unknown";
  /** What our own close frame said: the close that is reported, whatever the peer echoes. */
  #closing: Closing | undefined;
  /** When it reaches `maxAge`, in ms of the monotonic clock. */
  #endsAt = Infinity;
  /** Made when messages first have to wait: for one that is authenticated or held by a middleware, or a revalidation. */
  pipeline: Pipeline | undefined;
  beatAt: number = Infinity;
  heardAt = 0;
  missed = 0;
  following: number = Infinity;
  flood: Flood | undefined = undefined;
  indexedBy: IndexKeys | undefined = undefined;

  constructor(host: ConnectionHost, transport: Transport, slot: Slot, handshake: Handshake, uid?: string, state?: JsonValue) {
    this.host = host;
    this.transport = transport;
    this.#slot = slot;
    this.client = new WebSocketClient(this, handshake, uid, state);
    this.identity = new Identity(this);
    const { maxBufferedBytes, heartbeat } = host.options;
    this.transport = steppedFor(this, "all") ?? transport;
    this.transport.limit?.(maxBufferedBytes, host.monotonic, heartbeat && heartbeat.message);
  }

  // The runtime's side

  /** The socket is open. With an identity, and in public mode, the client is admitted at once. */
  opened(state: AuthenticationState | null, since: number): void {
    if (this.#closing) return;
    const { heartbeat, options } = this.host;
    this.#endsAt = this.host.monotonic() + ageOf(options);
    // Where it hibernates a timer would keep it awake, and without a protocol ping only a message can ask.
    if (!this.transport.save && (this.transport.ping || options.heartbeat && options.heartbeat.message)) heartbeat?.start(this);
    this.identity.opened(state, since);
    if (this.isPending) this.changed();
  }

  /** The socket came back from hibernation: the same connection goes on, so there is no `connect`. */
  restored(saved: SavedConnection): void {
    const identity = this.identity;
    const { monotonic, now, options } = this.host;
    // A wall clock that was set back meanwhile must not prolong it.
    const left = saved.ends_at === undefined || options.maxAge === Infinity
      ? ageOf(options)
      : Math.min(Math.max(0, saved.ends_at - now()), options.maxAge);
    this.#endsAt = monotonic() + left;
    identity.restored(saved);
    if (identity.phase !== "pending") {
      this.#stage = "known";
      this.#slot.admit();
      this.host.admit(this);
    }
    if (identity.phase === "expired") this.host.suspend(this);
    if (this.#stage === "known") this.host.extension?.restored(this.client);
    this.#schedule();
  }

  /** A frame arrived. Only a view's own bytes count. */
  message(data: string | ArrayBuffer | ArrayBufferView): void {
    if (this.#isClosed || this.#closing) return;
    receive(this, data, this.heard());
  }

  /** The peer showed that it is alive, by a message or a protocol ping or pong. Returns the time, in ms of the monotonic clock. */
  heard(): number {
    this.transport.heard?.();
    return this.heardAt = this.host.monotonic();
  }

  /** The socket closed, by whichever side. Told more than once it counts once. */
  closed(code: number, reason: string, wasClean: boolean): void {
    if (this.#isClosed) return;
    const wasKnown = this.#stage === "known";
    this.#stage = "closed";
    this.pipeline?.clear();
    this.host.deadlines.delete(this);
    this.#slot.release();
    const close = this.#closing ?? { code, reason, cause: wasClean ? "client" : "error" };
    this.host.dismiss(this, isFinal(close.code), close.cause);
    // Before the listeners: to them it is not open any more.
    this.#keeper?.delete(this);
    if (wasKnown) this.host.bus.emit("close", { client: this.client, ...close, wasClean });
  }

  /** Deletes it from the keeper once it is closed. */
  onClosed(keeper: ConnectionKeeper): void {
    if (this.#isClosed) keeper.delete(this);
    else this.#keeper = keeper;
  }

  /** The socket reported an error; the close that follows it is reported by {@link closed}. */
  error(error: unknown): void {
    if (!this.#isClosed) this.host.report(error, this.#stage === "known" ? this.client : undefined);
  }

  /** Whether it is open and has not been admitted. */
  get isPending(): boolean {
    return !this.#isClosed && this.identity.phase === "pending";
  }

  /** A deadline has passed: of the peer's answer to our close frame, of its age, of a heartbeat, or of the identity. */
  due(): void {
    if (this.#isClosed) return;
    if (this.#closing) {
      try {
        this.transport.terminate();
      } catch (error) {
        this.error(error);
      }
      return this.closed(ABNORMAL, "", false);
    }
    if (this.host.monotonic() >= this.#endsAt) return this.close(CloseCode.SERVICE_RESTART, "Maximum age", "age");
    try {
      this.host.heartbeat?.due(this);
    } catch (error) {
      this.error(error); // The socket was gone: what else is due is due all the same.
    }
    if (!this.#closing) this.identity.due();
    this.host.sender.due(this);
    this.#schedule();
  }

  // The client's side

  get accountability(): Accountability {
    return this.identity.accountability;
  }

  get expires_at(): number | null {
    return this.identity.expiresAt;
  }

  get isSuspended(): boolean {
    return this.readyState !== OPEN || !this.identity.isAdmitted;
  }

  get revalidating(): Promise<void> | undefined {
    return this.identity.revalidating;
  }

  get #isClosed(): boolean {
    return this.#stage === "closed";
  }

  get readyState(): number {
    if (this.#isClosed) return CLOSED;
    return this.#closing ? CLOSING : this.transport.readyState;
  }

  get bufferedAmount(): number {
    return this.transport.bufferedAmount;
  }

  get unreadBytes(): number {
    return this.transport.unreadBytes ?? this.transport.bufferedAmount;
  }

  get heldBytes(): number {
    return this.missed > 0 ? Infinity : this.transport.bufferedAmount; // It has to be told of them first.
  }

  get socket(): unknown {
    return this.transport.socket;
  }

  spare(): void {
    this.heardAt = this.host.monotonic();
    this.transport.ask?.();
  }

  /** Hands a frame to a client that is admitted; whether it could. One whose credentials have expired receives nothing. */
  send(frame: Frame): boolean {
    return this.identity.phase === "admitted" && this.host.sender.send(this, frame);
  }

  step(): boolean {
    const { host: { delivery }, indexedBy } = this;
    const stepped = steppedFor(this, "collection");
    if (!stepped) return false;
    delivery.remove(this); // Topics of its runtime would overtake what waits.
    this.transport = stepped;
    if (indexedBy) delivery.add(this);
    return true;
  }

  /** Answers a message that may not be handled any more, where anything is answered. */
  refuseMessage(uid: MessageUid | undefined): void {
    if (this.readyState === OPEN) this.identity.refuseMessage(uid);
  }

  /** Hands an encoded message to the socket, whether or not the client is admitted. */
  transmit(text: string): void {
    this.host.sender.send(this, new Frame(text, true));
  }

  /** The runtime dropped a frame that it had taken. */
  dropped(): void {
    this.host.sender.drop(this);
  }

  close(code: number = CloseCode.NORMAL, reason = "", cause: CloseCause = "server"): void {
    checkCloseCode(code);
    if (this.#isClosed || this.#closing) return;
    this.#closing = { code, reason: cutCloseReason(String(reason)), cause };
    this.pipeline?.clear();
    this.host.suspend(this);
    // A peer that never answers the close handshake stays open for more than 160 s on Deno and workerd.
    // One that does not read will not read the close frame either, and holds what it was sent; one that floods goes on until it is cut off.
    const { closeTimeout } = this.host.options;
    const isShort = cause === "slow" || cause === "rate";
    this.host.deadlines.set(this, isShort ? Math.min(closeTimeout, SHORT_CLOSE_TIMEOUT) : closeTimeout);
    try {
      this.transport.close(code, this.#closing.reason);
    } catch (error) {
      this.error(error);
      this.closed(ABNORMAL, "", false);
    }
  }

  save(): void {
    if (!this.transport.save || this.#isClosed) return;
    const { uid, handshake, state } = this.client;
    const { phase, until, accountability, expiresAt } = this.identity;
    const { monotonic, now, options: { name } } = this.host;
    try {
      this.transport.save({
        controller: name,
        uid,
        handshake,
        state,
        phase,
        until,
        accountability,
        expires_at: expiresAt,
        ...(this.#endsAt < Infinity && { ends_at: now() + this.#endsAt - monotonic() }),
      });
    } catch (error) {
      // An attachment holds 16 KiB. A connection that cannot be kept would come back from hibernation as somebody else.
      this.error(error);
      this.close(CloseCode.INTERNAL_ERROR, "Cannot keep the connection");
    }
  }

  // The identity's side

  claim(user: string | null): boolean {
    return this.#slot.claim(user);
  }

  admitted(): void {
    this.#slot.admit();
    this.#stage = "known";
    this.host.admit(this);
    this.host.bus.emit("connect", { client: this.client });
    this.changed();
  }

  changed(): void {
    if (this.#isClosed || this.#closing) return;
    if (this.identity.phase === "admitted") this.host.admit(this);
    this.#schedule();
    this.save();
  }

  suspended(): void {
    this.host.suspend(this);
  }

  hold(settled: Promise<void>): void {
    this.pipeline ??= new Pipeline(this.host.options, (text) => this.#pass(text), this.transport);
    this.pipeline.hold(settled);
  }

  /** Asks the application anew who the client is. */
  revalidate(): Promise<void> {
    return this.identity.revalidate();
  }

  /** A message that had to wait. */
  #pass(text: string | null): void {
    if (!this.#isClosed && !this.#closing) pass(this, text);
  }

  probe(): void {
    const { heartbeat } = this.host.options;
    if (heartbeat && heartbeat.message) this.send(new Frame('{"type":"ping"}', true));
    this.transport.ping?.();
  }

  fellBehind(): void {
    this.#schedule();
  }

  told(): void {
    this.host.extension?.readable(this.client);
  }

  silent(): void {
    // Nothing was read of it: it has not been silent, and a middleware or an authentication has not ended in all that time.
    if (this.transport.isPaused) this.close(CloseCode.RATE_LIMITED, FLOOD, "rate");
    else this.close(CloseCode.HEARTBEAT_TIMEOUT, "Heartbeat timed out", "heartbeat");
  }

  /** Sets the one timer to what is due next. */
  #schedule(): void {
    if (this.#isClosed || this.#closing) return;
    const { deadlines, heartbeat, monotonic, sender } = this.host;
    const identity = this.identity.remaining ?? Infinity;
    // An alarm goes by the wall clock itself, and each would wake a hibernating object.
    const longest = this.transport.save ? Infinity : MAX_WALL_WAIT;
    const wait = identity === Infinity ? Infinity : Math.min(identity, longest);
    const age = Math.max(0, this.#endsAt - monotonic());
    const next = Math.min(wait, age, heartbeat?.remaining(this) ?? Infinity, sender.remaining(this));
    if (next === Infinity) deadlines.delete(this);
    else deadlines.set(this, next);
  }
}
