/** One connection: its state, and the paths of its messages in and out. */
import type { AuthenticationState } from "../application/authentication.ts";
import type { Timed } from "../base/clock.ts";
import { ABNORMAL, checkCloseCode, type CloseCause, CloseCode, cutCloseReason, isFinal } from "../protocol/close.ts";
import { SHORT_CLOSE_TIMEOUT } from "../protocol/close.ts";
import type { ConnectionHost } from "./connection-host.ts";
import { type Close, type ConnectionState, isSaved } from "./state.ts";
import type { IndexedRecipient, IndexKeys } from "../delivery/delivery.ts";
import { Frame } from "../protocol/frame.ts";
import type { MessageUid } from "../protocol/errors.ts";
import { FLOOD, pass, receive } from "./gate.ts";
import { Identity } from "./identity.ts";
import type { Slot } from "../base/limits.ts";
import { ageLimit, endAfter, remainingAge } from "./max-age.ts";
import { Pipeline } from "./pipeline.ts";
import type { Flood } from "./rate-gate.ts";
import type { Lag } from "./sender.ts";
import { savedOf } from "./saved-connection.ts";
import { steppedFor } from "./stepped-transport.ts";
import { CLOSED, CLOSING, OPEN, type SavedConnection, type Transport } from "../delivery/transport.ts";
import type { Accountability, ClientConnection, Handshake, JsonValue } from "../application/websocket-client.ts";
import { questionsOf, WebSocketClient } from "../application/websocket-client.ts";

/** A set of open connections, from which a connection is deleted when it closes. */
export interface ConnectionSet {
  delete(connection: Connection): void;
}

/** Maximum interval between two checks of the wall clock, in ms, because it may be set forward. */
const MAX_WALL_WAIT = 60_000;

/**
 * One connection, from the open socket to its close.
 * The runtime calls `message`, `heard`, `closed` and `error`; writes go through a {@link Transport}. Until the connection is
 * admitted, no application code sees it and nothing is sent to it before `auth ok`.
 * @internal
 */
export class Connection implements ClientConnection, IndexedRecipient, Timed {
  readonly client: WebSocketClient;
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly host: ConnectionHost;
  transport: Transport;
  readonly identity: Identity;
  readonly #slot: Slot;
  #openConnections: ConnectionSet | undefined;
  #state: ConnectionState = "opening";
  /** Set when the close begins. If the server has sent a close frame, the code and reason that the peer echoes do not change it. */
  #close: Close | undefined;
  /** When the connection reaches `maxAge`, in ms of the monotonic clock; `undefined` without a limit. */
  #endsAt: number | undefined;
  /** Created when messages first have to wait for authentication, a middleware or revalidation. */
  pipeline: Pipeline | undefined;
  /** Time of the next check of the heartbeat, in whole ms of the monotonic clock; `undefined` if there is none. */
  readonly nextPingAt: number | undefined = undefined;
  /** When the peer last sent anything, in whole ms of the monotonic clock. The heartbeat writes it, too. */
  receivedAt = 0;
  /** Absent until a message is dropped, or a message larger than `maxBufferedBytes` is sent. */
  readonly lag: Lag | undefined = undefined;
  /** Absent until a message is refused. */
  readonly flood: Flood | undefined = undefined;
  indexedBy: IndexKeys | undefined = undefined;
  /** Whether a message to the client was dropped, which may have been an answer. */
  hasDropped = false;

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

  // Called by the runtime

  /** The socket is open. A client with an identity, or in public mode, is admitted at once. */
  opened(state: AuthenticationState | null, since: number): void {
    if (this.#state !== "opening") return;
    this.#state = "pending";
    const { heartbeat, options } = this.host;
    this.#endsAt = endAfter(ageLimit(options.maxAge), this.host.monotonic());
    // Not with hibernation, which a timer would prevent, and not without a way to ping: that of the protocol, or a `ping` message.
    if (!this.transport.save && (this.transport.ping || options.heartbeat && options.heartbeat.message)) heartbeat?.start(this);
    this.identity.opened(state, since);
    if (this.isPending) this.changed();
  }

  /** The socket has returned from hibernation. The connection continues, without another `connect`. */
  restored(saved: SavedConnection): void {
    const { monotonic, now, options } = this.host;
    this.#endsAt = endAfter(remainingAge(saved.ends_at, options.maxAge, now()), monotonic());
    this.#state = saved.phase;
    this.hasDropped = true; // It may have: the field is not saved.
    if (saved.missed !== undefined) this.host.sender.restored(this, saved.missed);
    this.identity.restored(saved);
    if (this.isKnown) {
      this.#slot.admit();
      this.host.admit(this);
      if (this.#state === "expired") this.host.suspend(this);
      this.host.extension?.restored(this.client);
    }
    this.#schedule();
  }

  /** Receives a frame. Of a view, only its own part of the buffer is read. */
  message(data: string | ArrayBuffer | ArrayBufferView): void {
    if (this.#isLive) receive(this, data, this.heard());
  }

  /** Records a sign of life: a message, or a protocol ping or pong. Returns the time, in ms of the monotonic clock. */
  heard(): number {
    this.transport.heard?.();
    const now = this.host.monotonic();
    this.receivedAt = Math.floor(now);
    return now;
  }

  /** The socket closed, by either side. Only the first call has an effect. */
  closed(code: number, reason: string, wasClean: boolean): void {
    const from = this.#state;
    if (from === "closed") return;
    if (from !== "closing") this.#close = { code, reason, cause: wasClean ? "client" : "error", from };
    this.#state = "closed";
    this.pipeline?.clear();
    this.host.deadlines.delete(this);
    this.#slot.release();
    const close = this.#close!; // Set above or by `close`.
    this.host.dismiss(this, !isFinal(close.code), close);
    // Before the `close` listeners run, which must not see it as open.
    this.#openConnections?.delete(this);
    questionsOf(this.client)?.close();
    if (!this.isKnown || !this.host.bus.has("close")) return;
    const { from: _from, ...shown } = close;
    this.host.bus.emit("close", { client: this.client, ...shown, wasClean });
  }

  /** Removes the connection from the set when it closes, or now if it has closed. */
  onClosed(connections: ConnectionSet): void {
    if (this.#state === "closed") connections.delete(this);
    else this.#openConnections = connections;
  }

  /** The socket reported an error. {@link closed} follows. */
  error(error: unknown): void {
    if (this.#state !== "closed") this.host.report(error, this.isKnown ? this.client : undefined);
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Whether the client was admitted, so that the application has seen it. Stays true when it closes. */
  get isKnown(): boolean {
    const state = this.#close?.from ?? this.#state;
    return state === "admitted" || state === "expired";
  }

  /** Whether the client was not admitted and the connection is not closed. */
  get isPending(): boolean {
    return this.#state !== "closed" && !this.isKnown;
  }

  /** Whether the connection is neither closing nor closed. */
  get #isLive(): boolean {
    return this.#state !== "closing" && this.#state !== "closed";
  }

  /** A deadline has passed: that of the close handshake, `maxAge`, the heartbeat, the identity or the sender. */
  due(): void {
    if (this.#state === "closing") {
      try {
        this.transport.terminate();
      } catch (error) {
        this.error(error);
      }
      return this.closed(ABNORMAL, "", false);
    }
    if (this.#endsAt !== undefined && this.host.monotonic() >= this.#endsAt) {
      return this.close(CloseCode.SERVICE_RESTART, "Maximum age", "age");
    }
    try {
      this.host.heartbeat?.due(this);
    } catch (error) {
      this.error(error); // The socket is gone, but the other deadlines still apply.
    }
    if (this.#isLive) this.identity.due();
    this.host.sender.due(this);
    this.#schedule();
  }

  // Called through the client

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

  get readyState(): number {
    return this.#state === "closed" ? CLOSED : this.#state === "closing" ? CLOSING : this.transport.readyState;
  }

  get isOverHttp(): boolean {
    return this.transport.isOverHttp ?? false;
  }

  get bufferedAmount(): number {
    return this.transport.bufferedAmount;
  }

  get unreadBytes(): number {
    return this.transport.unreadBytes ?? this.transport.bufferedAmount;
  }

  get heldBytes(): number {
    return this.lag && this.lag.missed > 0 ? Infinity : this.transport.bufferedAmount; // `MESSAGES_DROPPED` has to be sent first, to this client alone.
  }

  get socket(): unknown {
    return this.transport.socket;
  }

  deferHeartbeat(): void {
    this.receivedAt = Math.floor(this.host.monotonic());
    this.transport.ask?.();
  }

  /** Sends a frame to an admitted client. Returns whether the socket accepted it, within `maxBufferedBytes`. */
  send(frame: Frame): boolean {
    if (this.#state === "admitted" && this.host.sender.send(this, frame)) return true;
    this.hasDropped = true;
    return false;
  }

  answer(frame: Frame): void {
    if (!this.isKnown || !this.host.sender.send(this, frame)) this.hasDropped = true;
  }

  step(): boolean {
    const { host: { delivery }, indexedBy } = this;
    const stepped = steppedFor(this, "collection");
    if (!stepped) return false;
    delivery.remove(this); // Frames that are published to topics would overtake the waiting ones.
    this.transport = stepped;
    if (indexedBy) delivery.add(this);
    return true;
  }

  /** Answers a message that may no longer be handled, if the socket is open. */
  refuseMessage(uid: MessageUid | undefined): void {
    this.identity.refuseMessage(uid);
  }

  /** Sends an encoded message, whether or not the client is admitted. Returns whether the socket accepted it. */
  transmit(text: string): boolean {
    return this.host.sender.send(this, new Frame(text, true));
  }

  /** The runtime dropped a frame that it had accepted. */
  dropped(): void {
    this.hasDropped = true;
    this.host.sender.drop(this);
  }

  close(code: number = CloseCode.NORMAL, reason = "", cause: CloseCause = "server"): void {
    checkCloseCode(code);
    const from = this.#state;
    if (from === "closing" || from === "closed") return;
    this.#state = "closing";
    this.#close = { code, reason: cutCloseReason(String(reason)), cause, from };
    this.pipeline?.clear();
    this.host.suspend(this);
    // Without a deadline, the socket of a peer that does not answer the close frame stays open for more than 160 s on Deno and workerd.
    // It is short for a slow consumer, whose buffers stay in memory until then, and for a client that keeps sending.
    const { closeTimeout } = this.host.options;
    const isShort = cause === "slow" || cause === "rate";
    this.host.deadlines.set(this, isShort ? Math.min(closeTimeout, SHORT_CLOSE_TIMEOUT) : closeTimeout);
    try {
      this.transport.close(code, this.#close.reason);
    } catch (error) {
      this.error(error);
      this.closed(ABNORMAL, "", false);
    }
  }

  save(): void {
    const phase = this.#close?.from ?? this.#state;
    if (!this.transport.save || this.#state === "closed" || !isSaved(phase)) return;
    try {
      this.transport.save(savedOf(this, phase, this.#endsAt));
    } catch (error) {
      // An attachment has at most 16 KiB. If it is not saved, the connection would return with its previous identity.
      this.error(error);
      this.close(CloseCode.INTERNAL_ERROR, "Cannot keep the connection");
    }
  }

  // Called by the identity and the shared services

  /** Counts the connection for the user. Returns `false` if the user has reached `maxConnectionsPerUser`. */
  claim(user: string | null): boolean {
    return this.#slot.claim(user);
  }

  /** Changes the state. An admitted client is listed and receives messages; an expired one stays listed and receives none. */
  enter(state: "admitted" | "expired"): void {
    if (!this.#isLive) return;
    const isNew = !this.isKnown;
    this.#state = state;
    if (state === "expired") return this.host.suspend(this);
    if (isNew) this.#slot.admit();
    this.host.admit(this);
    if (isNew) this.host.bus.emit("connect", { client: this.client });
    this.changed();
  }

  /** The state, the accountability or a deadline has changed. */
  changed(): void {
    if (!this.#isLive) return;
    this.#schedule();
    this.save();
  }

  /** Holds later messages until the promise settles, which must not reject. */
  hold(settled: Promise<void>): void {
    this.pipeline ??= new Pipeline(this.host.options, (text) => this.#isLive ? pass(this, text) : undefined, this.transport);
    this.pipeline.hold(settled);
  }

  /** Calls the option `revalidate` for the client. */
  revalidate(): Promise<void> {
    return this.identity.revalidate();
  }

  /** Pings the peer. */
  probe(): void {
    const { heartbeat } = this.host.options;
    if (heartbeat && heartbeat.message) this.send(new Frame('{"type":"ping"}', true));
    this.transport.ping?.();
  }

  /** The first message was dropped. */
  fellBehind(): void {
    this.save();
    this.#schedule();
  }

  /** The client was notified of the messages that it has missed. */
  notified(): void {
    this.save();
    this.identity.notified();
    this.host.extension?.readable(this.client);
  }

  /** The peer did not answer a ping in time. */
  timedOut(): void {
    // If reading was paused, it is not that the client was silent, but that a middleware or an authentication took too long.
    if (this.transport.isPaused) this.close(CloseCode.RATE_LIMITED, FLOOD, "rate");
    else this.close(CloseCode.HEARTBEAT_TIMEOUT, "Heartbeat timed out", "heartbeat");
  }

  /** Sets the deadline of the connection to the earliest of all. */
  #schedule(): void {
    if (!this.#isLive) return;
    const { deadlines, heartbeat, monotonic, sender } = this.host;
    const identity = this.identity.remaining ?? Infinity;
    // With hibernation, the deadline is an alarm, which follows the wall clock. Checks of the clock would wake the object.
    const longest = this.transport.save ? Infinity : MAX_WALL_WAIT;
    const wait = identity === Infinity ? Infinity : Math.min(identity, longest);
    const age = this.#endsAt === undefined ? Infinity : Math.max(0, this.#endsAt - monotonic());
    const next = Math.min(wait, age, heartbeat?.remaining(this) ?? Infinity, sender.remaining(this));
    if (next === Infinity) deadlines.delete(this);
    else deadlines.set(this, next);
  }
}
